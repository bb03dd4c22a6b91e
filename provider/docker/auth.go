package docker

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"

	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/registry"
)

// dockerHub is the key of Docker Hub's credentials.
const dockerHub = "https://index.docker.io/v1/"

// configFile is the part of Docker's config.json that has credentials.
type configFile struct {
	Auths       map[string]registry.AuthConfig `json:"auths"`
	CredsStore  string                         `json:"credsStore"`
	CredHelpers map[string]string              `json:"credHelpers"`
}

// withTag adds ":latest" to a name without tag and digest: the engine would
// pull all tags. Names that make no sense are left to the engine to refuse.
func withTag(ref string) string {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return ref
	}
	return named.String()
}

// credentials returns the header for the image's registry, "" when nothing is
// known about it. What a task brings takes the place of the agent's own.
func (e *Engine) credentials(ctx context.Context, w wanted) (string, error) {
	named, err := reference.ParseNormalizedNamed(w.ref)
	if err != nil || e.o.DockerConfig == "" && w.config == "" {
		return "", nil //nolint:nilerr // the engine refuses the name in its own words
	}
	file, err := e.configFor(w)
	if err != nil {
		return "", err
	}
	auth, ok, err := file.find(ctx, reference.Domain(named))
	if err != nil || !ok {
		return "", err
	}
	return registry.EncodeAuthConfig(auth)
}

// configFor reads what a task brings as values only: the programs that a
// config.json may name (credHelpers) are the agent's business.
func (e *Engine) configFor(w wanted) (configFile, error) {
	if w.config == "" {
		return readConfig(e.o.DockerConfig)
	}
	var own struct {
		Auths map[string]registry.AuthConfig `json:"auths"`
	}
	if err := json.Unmarshal([]byte(w.config), &own); err != nil || len(own.Auths) == 0 {
		return configFile{}, reject("the task's credentials for the image are no config.json with auths")
	}
	return configFile{Auths: own.Auths}, nil
}

// readConfig reads the file anew each time: logins change it.
func readConfig(path string) (configFile, error) {
	var file configFile
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return file, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &file)
	}
	if err != nil {
		return file, fmt.Errorf("the registries' credentials in %s cannot be read: %w", path, err)
	}
	return file, nil
}

// find looks a registry up: its own helper, the common helper, the file.
func (f configFile) find(ctx context.Context, domain string) (registry.AuthConfig, bool, error) {
	server := domain
	if domain == "docker.io" {
		server = dockerHub
	}
	for _, helper := range []string{f.CredHelpers[domain], f.CredsStore} {
		if helper == "" {
			continue
		}
		auth, ok, err := askHelper(ctx, helper, server)
		if ok || err != nil {
			return auth, ok, err
		}
	}
	for key, auth := range f.Auths {
		if hostOf(key) == hostOf(server) {
			decoded, err := decodeAuth(auth, server)
			return decoded, err == nil, err
		}
	}
	return registry.AuthConfig{}, false, nil
}

// hostOf reduces a key such as https://index.docker.io/v1/ to its host.
func hostOf(key string) string {
	key = strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	host, _, _ := strings.Cut(key, "/")
	return host
}

func decodeAuth(auth registry.AuthConfig, server string) (registry.AuthConfig, error) {
	if auth.Auth != "" {
		text, err := base64.StdEncoding.DecodeString(auth.Auth)
		user, password, ok := strings.Cut(string(text), ":")
		if err != nil || !ok {
			return auth, fmt.Errorf("the credentials of %s are not base64 of user:password", server)
		}
		auth.Username, auth.Password, auth.Auth = user, strings.TrimRight(password, "\x00"), ""
	}
	auth.ServerAddress = server
	return auth, nil
}

// askHelper runs docker-credential-<helper> get. That it knows nothing of the
// server is no error.
func askHelper(ctx context.Context, helper, server string) (registry.AuthConfig, bool, error) {
	cmd := exec.CommandContext(ctx, "docker-credential-"+helper, "get")
	cmd.Stdin = strings.NewReader(server)
	out, err := cmd.Output()
	if err != nil {
		if bytes.Contains(out, []byte("credentials not found")) {
			return registry.AuthConfig{}, false, nil
		}
		return registry.AuthConfig{}, false, fmt.Errorf("the credential helper docker-credential-%s: %w: %s", helper, err, bytes.TrimSpace(out))
	}
	var got struct{ Username, Secret string }
	if err := json.Unmarshal(out, &got); err != nil {
		return registry.AuthConfig{}, false, fmt.Errorf("the credential helper docker-credential-%s: %w", helper, err)
	}
	auth := registry.AuthConfig{Username: got.Username, Password: got.Secret, ServerAddress: server}
	if got.Username == "<token>" {
		auth = registry.AuthConfig{IdentityToken: got.Secret, ServerAddress: server}
	}
	return auth, true, nil
}
