package cli

import (
	"cmp"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/provider/docker"
	"github.com/mesopool/mesopool/provider/limit"
	"github.com/mesopool/mesopool/provider/triton"
)

func tritonFlags(f *pflag.FlagSet) {
	f.String("triton-url", "", "triton: CloudAPI (also TRITON_URL, SDC_URL); default: do without")
	f.String("triton-account", "", "triton: the account's login (also TRITON_ACCOUNT, SDC_ACCOUNT)")
	f.String("triton-key", "", "triton: an SSH key of the account: a file, or the fingerprint of one in the ssh-agent (also TRITON_KEY_ID, SDC_KEY_ID)")
	f.String("triton-ca", "", "triton: a file of authorities to trust for CloudAPI besides the system's")
	f.Bool("triton-insecure", false, "triton: trust any certificate of CloudAPI (also TRITON_TLS_INSECURE)")
	f.Bool("triton-publish", false, "triton: open task ports on public addresses")
	f.Bool("triton-volumes", false, "triton: the data center has NFS volumes")
	f.String("triton-packages", "", "triton: what the names of the packages begin with that tasks may get")
	f.Duration("triton-poll", 10*time.Second, "triton: the usual time between two listings")
}

// tritonBackend is a Triton data center, found as its own tools find it.
func tritonBackend(v *viper.Viper, log *slog.Logger) (provider.Provider, error) {
	certs, err := certificates(os.Getenv)
	if err != nil {
		return nil, err
	}
	d := docker.OptionsFromEnv(os.Getenv)
	d.CertPath, d.DefaultImage, d.DockerConfig, d.Log = cmp.Or(certs, d.CertPath), v.GetString("default-image"), v.GetString("docker-config"), log
	if d.Host == "" {
		return nil, exit(exitUsage, "--provider triton needs the data center's Docker endpoint: set DOCKER_HOST, DOCKER_CERT_PATH and DOCKER_TLS_VERIFY, as `triton env --docker` prints them")
	}
	o := triton.Options{
		Docker: d, Publish: v.GetBool("triton-publish"), Volumes: v.GetBool("triton-volumes"), PackagePrefix: v.GetString("triton-packages"), Poll: v.GetDuration("triton-poll"),
	}
	if o.Cloud, err = cloudOptions(v, os.Getenv); err != nil {
		return nil, err
	}
	dc, err := triton.New(o)
	if err != nil {
		return nil, exit(exitUsage, "%w", err)
	}
	// A launch takes as long as provisioning does (sdc-docker: an hour at most).
	return limit.New(dc, limit.Options{Launches: v.GetInt("launches"), LaunchTimeout: time.Hour}), nil
}

func cloudOptions(v *viper.Viper, getenv func(string) string) (triton.CloudOptions, error) {
	o := triton.CloudOptions{
		URL:     cmp.Or(v.GetString("triton-url"), getenv("TRITON_URL"), getenv("SDC_URL")),
		Account: cmp.Or(v.GetString("triton-account"), getenv("TRITON_ACCOUNT"), getenv("SDC_ACCOUNT")),
		CA:      v.GetString("triton-ca"), Insecure: v.GetBool("triton-insecure") || getenv("TRITON_TLS_INSECURE") != "" || getenv("SDC_TESTING") != "",
	}
	if o.URL == "" {
		return o, nil
	}
	key := cmp.Or(v.GetString("triton-key"), getenv("TRITON_KEY_ID"), getenv("SDC_KEY_ID"))
	if o.Account == "" || key == "" {
		return o, exit(exitUsage, "CloudAPI at %s needs --triton-account and --triton-key", o.URL)
	}
	var err error
	if isFingerprint(key) {
		o.Key, err = triton.KeyFromAgent(o.Account, key, getenv("SSH_AUTH_SOCK"))
	} else {
		o.Key, err = triton.KeyFromFile(o.Account, key)
	}
	if err != nil {
		return o, exit(exitUsage, "%w", err)
	}
	return o, nil
}

func isFingerprint(key string) bool {
	return strings.HasPrefix(key, "SHA256:") || strings.HasPrefix(key, "MD5:") || strings.Count(key, ":") == 15
}

// certificates writes the certificates that come by environment, as the demo of
// 2015 passes them into the agent's container (mesos-dockerfiles:
// agent/sbin/triton-mesos-agent), to a folder of this process; "" when none do.
func certificates(getenv func(string) string) (dir string, err error) {
	pems := map[string]string{"ca.pem": getenv("TLSCA"), "cert.pem": getenv("TLSCERT"), "key.pem": getenv("TLSKEY")}
	missing := 0
	for _, text := range pems {
		if text == "" {
			missing++
		}
	}
	if missing == len(pems) {
		return "", nil
	}
	if missing > 0 {
		return "", exit(exitUsage, "TLSCA, TLSCERT and TLSKEY go together: the texts of ca.pem, cert.pem and key.pem")
	}
	if err := os.MkdirAll(os.TempDir(), os.ModeSticky|0o777); err != nil { // an image of one binary has none
		return "", fmt.Errorf("a folder for the certificates: %w", err)
	}
	if dir, err = os.MkdirTemp("", "mesopool-certs-"); err != nil {
		return "", fmt.Errorf("a folder for the certificates: %w", err)
	}
	for name, text := range pems {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text+"\n"), 0o600); err != nil {
			return "", err
		}
	}
	return dir, nil
}
