package docker

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/registry"
	"golang.org/x/crypto/bcrypt"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

// hub is a real registry on the loopback.
type hub struct {
	addr     string
	password string // of user "u"; "" lets everybody in
	stop     func()
}

const hubConfig = `version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: %q}, delete: {enabled: true}}
http: {addr: %q}
%s`

// startRegistry runs Debian's docker-registry, or skips where it is missing;
// in CI that is a failure.
func startRegistry(t *testing.T, password string) *hub {
	t.Helper()
	program, err := exec.LookPath("docker-registry")
	if err != nil && os.Getenv("CI") != "" {
		t.Fatalf("%s needs docker-registry: %v", t.Name(), err)
	}
	if err != nil {
		t.Skipf("%s needs docker-registry: %v", t.Name(), err)
	}
	h := &hub{addr: freeAddr(t), password: password}
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf(hubConfig, filepath.Join(dir, "data"), h.addr, h.auth(t, dir))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "serve", config)
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h.stop = sync.OnceFunc(func() { cmd.Process.Kill(); cmd.Wait() })
	t.Cleanup(h.stop)
	h.await(t)
	return h
}

func (h *hub) auth(t *testing.T, dir string) string {
	if h.password == "" {
		return ""
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(h.password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "htpasswd")
	if err := os.WriteFile(file, []byte("u:"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("auth: {htpasswd: {realm: test, path: %q}}\n", file)
}

func (h *hub) await(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if resp, err := http.Get("http://" + h.addr + "/v2/"); err == nil {
			resp.Body.Close()
			return
		}
	}
	t.Fatalf("the registry does not answer at %s", h.addr)
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// push puts the helper's image there and removes it from the engine.
func (h *hub) push(t *testing.T, name string) string {
	t.Helper()
	ref := h.addr + "/" + live.run + "/" + name
	if err := importImage(ref); err != nil {
		t.Fatal(err)
	}
	auth, err := registry.EncodeAuthConfig(registry.AuthConfig{Username: "u", Password: h.password})
	if err != nil {
		t.Fatal(err)
	}
	stream, err := live.cli.ImagePush(t.Context(), ref, image.PushOptions{RegistryAuth: auth})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if text, err := io.ReadAll(stream); err != nil || bytes.Contains(text, []byte(`"error"`)) {
		t.Fatalf("push %s: %v: %s", ref, err, text)
	}
	forget(t, ref)
	return ref
}

func forget(t *testing.T, ref string) {
	t.Helper()
	if _, err := live.cli.ImageRemove(t.Context(), ref, image.RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
}

// run launches a task for an owner of its own. The container is removed at the
// test's end.
func run(t *testing.T, e *Engine, name string, s task.Spec) (provider.Container, error) {
	t.Helper()
	c, err := e.Launch(t.Context(), newOwner(), live.run+"-"+name, s)
	if err == nil {
		t.Cleanup(func() {
			err := live.cli.ContainerRemove(context.Background(), c.ID, container.RemoveOptions{Force: true, RemoveVolumes: true})
			if err != nil && !errdefs.IsNotFound(err) {
				t.Error(err)
			}
		})
	}
	return c, err
}

func imageSpec(ref string, args ...string) task.Spec {
	s := helperSpec(args...)
	s.Image = ref
	return s
}

func TestPullOnEngine(t *testing.T) {
	engine(t)
	h := startRegistry(t, "")
	ref := h.push(t, "app:1")
	var mu sync.Mutex
	var said []string
	e := newEngine(t, func(o *Options) {
		o.PullProgress = func(image, text string) {
			mu.Lock()
			defer mu.Unlock()
			said = append(said, image+" "+text)
		}
	})
	if _, err := run(t, e, "pull", imageSpec(ref, "run")); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if all := strings.Join(said, "\n"); !strings.Contains(all, ref+" ") || !strings.Contains(all, "MB") {
		t.Errorf("progress was told as %q", all)
	}
}

func TestPullWithCredentialsOnEngine(t *testing.T) {
	engine(t)
	h := startRegistry(t, "secret")
	ref := h.push(t, "private:1")
	config := filepath.Join(t.TempDir(), "config.json")
	e := newEngine(t, func(o *Options) { o.DockerConfig = config })
	_, err := run(t, e, "private", imageSpec(ref, "run"))
	if !errors.Is(err, provider.ErrRejected) || !strings.Contains(err.Error(), ref) || !strings.Contains(err.Error(), "docker login") {
		t.Fatalf("without credentials: %v", err)
	}
	text, err := json.Marshal(map[string]any{"auths": map[string]any{
		h.addr: map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte("u:secret"))},
	}})
	brought := imageSpec(ref, "run")
	brought.PullConfig = []byte(`{"credsStore": "evil"}`)
	if _, err := run(t, e, "private", brought); !errors.Is(err, provider.ErrRejected) || !strings.Contains(err.Error(), "no config.json with auths") {
		t.Errorf("with credentials that are none: %v", err)
	}
	brought.PullConfig = text
	if _, err := run(t, e, "private-own", brought); err != nil {
		t.Errorf("with the task's own credentials: %v", err)
	}
	forget(t, ref)
	if err == nil {
		err = os.WriteFile(config, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := run(t, e, "private", imageSpec(ref, "run")); err != nil {
		t.Errorf("with credentials: %v", err)
	}
}

func TestForcePullOnEngine(t *testing.T) {
	engine(t)
	h := startRegistry(t, "")
	ref := h.push(t, "forced:1")
	var log bytes.Buffer
	e := newEngine(t, func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	spec := imageSpec(ref, "run")
	spec.ForcePull = true
	if _, err := run(t, e, "forced-1", spec); err != nil || log.Len() > 0 {
		t.Fatalf("%v, log %s", err, &log)
	}
	h.stop()
	if _, err := run(t, e, "forced-2", spec); err != nil {
		t.Errorf("with an unreachable registry and a local copy: %v", err)
	}
	if !strings.Contains(log.String(), "could not be pulled") || !strings.Contains(log.String(), ref) {
		t.Errorf("the old copy ran without a word; log: %s", &log)
	}
	spec.Image = h.addr + "/" + live.run + "/never:1"
	_, err := run(t, e, "forced-3", spec)
	if err == nil || classified(err) || !strings.Contains(err.Error(), "cannot be reached") {
		t.Errorf("with an unreachable registry and no copy: %v; want a temporary error", err)
	}
}

func TestPullEndsWithContextOnEngine(t *testing.T) {
	engine(t)
	l, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, answers nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err = newEngine(t, nil).Launch(ctx, newOwner(), live.run+"-hung", imageSpec(l.Addr().String()+"/hung:1", "run"))
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 5*time.Second {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
}
