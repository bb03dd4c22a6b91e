package agent

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	dockerct "github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"

	"github.com/mesopool/mesopool/gc"
	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/provider/docker"
	"github.com/mesopool/mesopool/store"
	"github.com/mesopool/mesopool/task"
)

const testLabel = "mesopool-test"

// engine is a live Docker engine. All that a test makes there carries its name.
type engine struct {
	t      *testing.T
	cli    *client.Client
	name   string
	helper []byte // the only program in the image
}

func newEngine(t *testing.T) *engine {
	t.Helper()
	cli, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err == nil {
		_, err = cli.Ping(t.Context())
	}
	if err != nil && os.Getenv("CI") != "" {
		t.Fatalf("no Docker engine for %s: %v", t.Name(), err)
	}
	if err != nil {
		t.Skipf("%s needs a Docker engine: %v", t.Name(), err)
	}
	var id [4]byte
	rand.Read(id[:])
	e := &engine{t: t, cli: cli, name: "mesopool-agent-test-" + hex.EncodeToString(id[:])}
	t.Cleanup(e.clear)
	e.makeImage()
	return e
}

// makeImage makes an image of the Docker provider's helper program.
func (e *engine) makeImage() {
	e.t.Helper()
	file := filepath.Join(e.t.TempDir(), "helper")
	cmd := exec.Command("go", "build", "-ldflags=-s", "-o", file, "../provider/docker/testdata/helper")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		e.t.Fatalf("build the helper: %v: %s", err, out)
	}
	helper, err := os.ReadFile(file)
	if err != nil {
		e.t.Fatal(err)
	}
	e.helper = helper
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	w.WriteHeader(&tar.Header{Name: "helper", Mode: 0o755, Size: int64(len(helper))})
	w.Write(helper)
	w.Close()
	r, err := e.cli.ImageImport(e.t.Context(), image.ImportSource{Source: &layer, SourceName: "-"}, e.name+":1", image.ImportOptions{})
	if err != nil {
		e.t.Fatal(err)
	}
	io.Copy(io.Discard, r)
	r.Close()
}

func (e *engine) clear() {
	ctx := context.Background()
	left, err := e.cli.ContainerList(ctx, dockerct.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", testLabel+"="+e.name))})
	if err != nil {
		e.t.Error(err)
	}
	for _, c := range left {
		if err := e.cli.ContainerRemove(ctx, c.ID, dockerct.RemoveOptions{Force: true, RemoveVolumes: true}); err != nil {
			e.t.Error(err)
		}
	}
	if _, err := e.cli.ImageRemove(ctx, e.name+":1", image.RemoveOptions{Force: true}); err != nil {
		e.t.Error(err)
	}
	e.cli.Close()
}

func (e *engine) provider() *docker.Engine {
	o := docker.OptionsFromEnv(os.Getenv)
	o.Cluster, o.Log = e.name, slog.New(slog.DiscardHandler)
	p, err := docker.New(o)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { p.Close() })
	return p
}

func (e *engine) spec(id string) task.Spec {
	s := spec(id)
	s.Image, s.Command = e.name+":1", task.Command{Value: "/helper", Args: []string{"run"}}
	s.Labels = []task.Label{{Key: testLabel, Value: e.name}}
	return s
}

// foreign starts a container without our labels.
func (e *engine) foreign() string {
	e.t.Helper()
	made, err := e.cli.ContainerCreate(e.t.Context(), &dockerct.Config{
		Image: e.name + ":1", Cmd: []string{"/helper", "run"}, Labels: map[string]string{testLabel: e.name},
	}, nil, nil, nil, e.name+"-foreign")
	if err == nil {
		err = e.cli.ContainerStart(e.t.Context(), made.ID, dockerct.StartOptions{})
	}
	if err != nil {
		e.t.Fatal(err)
	}
	return made.ID
}

func (e *engine) state(id string) string {
	e.t.Helper()
	c, err := e.cli.ContainerInspect(e.t.Context(), id)
	if errdefs.IsNotFound(err) {
		return "absent"
	}
	if err != nil {
		e.t.Fatal(err)
	}
	return c.State.Status
}

// deadly is a provider under which the agent dies as soon as a task's container
// was made: the answer never arrives.
type deadly struct {
	provider.Provider
	once sync.Once
	task string
	die  func()
}

func (d *deadly) Launch(ctx context.Context, o task.Owner, name string, s task.Spec) (provider.Container, error) {
	k, err := d.Provider.Launch(ctx, o, name, s)
	if s.Key.ID == d.task && err == nil {
		d.once.Do(d.die)
		<-ctx.Done()
		return provider.Container{}, ctx.Err()
	}
	return k, err
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never came to be: %s", what)
		}
	}
}

func TestRestartOnEngine(t *testing.T) {
	e := newEngine(t)
	foreign := e.foreign()
	other, err := e.provider().Launch(t.Context(), task.Owner{Cluster: e.name + "-other", Agent: "dc-1"}, e.name+"-other", e.spec("t0"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := coreConfig()
	cfg.Owner = task.Owner{Cluster: e.name, Agent: "dc-1"}
	cfg.GC.Keep = gc.KeepAll(0)
	m := newMaster(t)
	o := Options{Core: cfg, Provider: e.provider(), Store: store.NewMemory()}
	name := func(id string) string { return ContainerName(e.name, key(id), "web") }

	first := o
	d := &deadly{Provider: o.Provider, task: "t1"}
	first.Provider = d
	var dying *live
	born := make(chan struct{})
	d.die = func() { <-born; dying.cancel() }
	dying = run(first, m)
	for _, id := range []string{"t0", "t2"} {
		dying.Put(Launch{Framework: aware, Spec: e.spec(id)})
	}
	eventually(t, "t0 and t2 run", func() bool { return m.history("t0") == "STARTING RUNNING" && m.history("t2") == "STARTING RUNNING" })
	close(born)
	dying.Put(Launch{Framework: aware, Spec: e.spec("t1")})
	if err := <-dying.done; err != nil {
		t.Fatal(err)
	}
	if got := m.history("t1"); strings.Contains(got, "RUNNING") {
		t.Fatalf("t1: %s", got)
	}
	made, err := e.provider().Inspect(t.Context(), name("t1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := e.cli.ContainerKill(t.Context(), name("t0"), "KILL"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "t0 has ended", func() bool { return e.state(name("t0")) == "exited" })

	r := run(o, m)
	eventually(t, "t1 runs and t0 has failed", func() bool {
		return m.history("t1") == "STARTING RUNNING" && m.history("t0") == "STARTING RUNNING FAILED"
	})
	if got := m.status("t0"); !strings.Contains(got.Message, "status 137") {
		t.Errorf("t0: %q", got.Message)
	}
	if got := m.status("t1"); got.Container.ID != made.ID || len(got.Container.Addresses) == 0 {
		t.Errorf("t1 runs in %+v, want container %s, with an address", got.Container, made.ID)
	}
	if got := m.status("t2"); !bytes.HasPrefix(got.Data, []byte("[{")) {
		t.Errorf("t2 runs without the engine's description of it: %q", got.Data)
	}
	r.kill("t1", "t2")
	for _, id := range []string{"t0", "t1", "t2"} {
		eventually(t, id+" is removed", func() bool { return e.state(name(id)) == "absent" })
	}
	for _, id := range []string{"t1", "t2"} {
		if got := m.history(id); got != "STARTING RUNNING KILLING KILLED" {
			t.Errorf("%s: %s", id, got)
		}
	}
	r.stop(t)
	for _, id := range []string{foreign, other.ID} {
		if got := e.state(id); got != "running" {
			t.Errorf("container %.12s, which is not the agent's, is %s", id, got)
		}
	}
}
