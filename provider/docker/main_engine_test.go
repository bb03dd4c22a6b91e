package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/provider/providertest"
	"github.com/mesopool/mesopool/task"
)

// The live engine's part of the tests: whatever they make there carries the
// run's own name and is removed at the end.
var live struct {
	once    sync.Once
	err     error
	run     string // the name
	cli     *client.Client
	helper  []byte // the program, for further images
	owners  int
	ownerMu sync.Mutex
}

func TestMain(m *testing.M) {
	code := m.Run()
	if live.cli != nil && live.err == nil {
		if err := clearEngine(); err != nil {
			fmt.Fprintln(os.Stderr, "clearing the engine:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// clearContainers removes the run's containers.
func clearContainers() error {
	ctx := context.Background()
	own := filters.NewArgs(filters.Arg("label", "mesopool-test="+live.run))
	left, err := live.cli.ContainerList(ctx, container.ListOptions{All: true, Filters: own})
	for _, c := range left {
		err = errors.Join(err, live.cli.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true, RemoveVolumes: true}))
	}
	return err
}

// clearEngine removes all that the run made.
func clearEngine() error {
	ctx, err := context.Background(), clearContainers()
	if e := live.cli.NetworkRemove(ctx, live.run); e != nil && !errdefs.IsNotFound(e) {
		err = errors.Join(err, e)
	}
	images, e := live.cli.ImageList(ctx, image.ListOptions{Filters: filters.NewArgs(filters.Arg("reference", "*"+live.run+"*"), filters.Arg("reference", "*/"+live.run+"/*"))})
	err = errors.Join(err, e)
	for _, i := range images {
		for _, tag := range i.RepoTags {
			_, e := live.cli.ImageRemove(ctx, tag, image.RemoveOptions{Force: true})
			err = errors.Join(err, e)
		}
	}
	return err
}

// engine returns the live engine's client, or skips where there is none; in CI
// that is a failure.
func engine(t testing.TB) *client.Client {
	t.Helper()
	live.once.Do(func() { live.err = prepareEngine() })
	if live.err == nil {
		return live.cli
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("no Docker engine for %s: %v", t.Name(), live.err)
	}
	t.Skipf("%s needs a Docker engine: %v", t.Name(), live.err)
	return nil
}

func prepareEngine() error {
	e, err := New(OptionsFromEnv(os.Getenv))
	if err != nil {
		return err
	}
	if err := e.ready(context.Background()); err != nil {
		return e.explain(err)
	}
	var id [4]byte
	rand.Read(id[:])
	live.run = "mesopool-test-" + hex.EncodeToString(id[:])
	live.cli = e.cli
	dir, err := os.MkdirTemp("", "mesopool")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command("go", "build", "-o", filepath.Join(dir, "helper"), "./testdata/helper")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-ldflags=-s")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the helper: %w: %s", err, out)
	}
	if live.helper, err = os.ReadFile(filepath.Join(dir, "helper")); err != nil {
		return err
	}
	return importImage(live.run + ":1")
}

// importImage makes an image of the helper and of a file that no other image
// has, so that its layer must be pulled.
func importImage(ref string) error {
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	w.WriteHeader(&tar.Header{Name: "name", Mode: 0o644, Size: int64(len(ref))})
	w.Write([]byte(ref))
	w.WriteHeader(&tar.Header{Name: "helper", Mode: 0o755, Size: int64(len(live.helper))})
	w.Write(live.helper)
	w.Close()
	r, err := live.cli.ImageImport(context.Background(), image.ImportSource{Source: &layer, SourceName: "-"}, ref, image.ImportOptions{})
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(io.Discard, r)
	return err
}

// newOwner returns an owner of nothing.
func newOwner() task.Owner {
	live.ownerMu.Lock()
	defer live.ownerMu.Unlock()
	live.owners++
	return task.Owner{Cluster: fmt.Sprintf("%s-%d", live.run, live.owners), Agent: "dc-1"}
}

// newEngine returns a provider on the live engine in the run's own network.
func newEngine(t testing.TB, change func(*Options)) *Engine {
	t.Helper()
	engine(t)
	o := OptionsFromEnv(os.Getenv)
	o.Cluster, o.Network = live.run, live.run
	if change != nil {
		change(&o)
	}
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func helperArgs(p providertest.Program) []string {
	args := []string{fmt.Sprintf("lines=%d", p.Lines)}
	if p.Deaf {
		args = append([]string{"deaf"}, args...)
	}
	if p.Run {
		return append(args, "run")
	}
	return append(args, fmt.Sprintf("exit=%d", p.Exit))
}

// helperSpec is a task that runs the helper.
func helperSpec(args ...string) task.Spec {
	return task.Spec{
		Key:     task.Key{Framework: "framework-0001", ID: "task." + strings.Join(args, ".")},
		Image:   live.run + ":1",
		Command: task.Command{Value: "/helper", Args: args},
		Labels:  []task.Label{{Key: "mesopool-test", Value: live.run}},
	}
}

// cutter passes connections on to the engine and can cut them all.
type cutter struct {
	mu    sync.Mutex
	conns []net.Conn
	host  string
}

func newCutter(t *testing.T) *cutter {
	t.Helper()
	dir, err := os.MkdirTemp("", "mp")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); os.RemoveAll(dir) })
	c := &cutter{host: "unix://" + filepath.Join(dir, "s")}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go c.pass(conn)
		}
	}()
	return c
}

func (c *cutter) pass(down net.Conn) {
	up, err := live.cli.Dialer()(context.Background())
	if err != nil {
		down.Close()
		return
	}
	c.mu.Lock()
	c.conns = append(c.conns, up, down)
	c.mu.Unlock()
	go func() { io.Copy(up, down); closeWrite(up) }()
	io.Copy(down, up)
	down.Close()
	up.Close()
}

func closeWrite(conn net.Conn) {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
}

func (c *cutter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		conn.Close()
	}
	c.conns = nil
}

func TestConformanceOnEngine(t *testing.T) {
	engine(t)
	hub := startRegistry(t, "")
	providertest.Run(t, func(t *testing.T) providertest.Setup {
		proxy := newCutter(t)
		e := newEngine(t, func(o *Options) { o.Host = proxy.host })
		return providertest.Setup{
			Provider: e,
			Owner:    newOwner(),
			Spec:     func(p providertest.Program) task.Spec { return helperSpec(helperArgs(p)...) },
			Argv:     func(p providertest.Program) []string { return append([]string{"/helper"}, helperArgs(p)...) },
			Missing:  hub.addr + "/" + live.run + "/none:1",
			Foreign:  foreign,
			Create:   func(t *testing.T, o task.Owner, n string, s task.Spec) { createOnly(t, e, o, n, s) },
			ReadFile: readFile,
			Vanish:   vanish,
			Break:    func(*testing.T) { proxy.cut() },
		}
	}, providertest.Quirks{Settle: 20 * time.Second})
}

func foreign(t *testing.T, name string) string {
	made, err := live.cli.ContainerCreate(t.Context(), &container.Config{
		Image: live.run + ":1", Cmd: []string{"/helper", "run"}, Labels: map[string]string{"mesopool-test": live.run},
	}, nil, nil, nil, name)
	if err == nil {
		err = live.cli.ContainerStart(t.Context(), made.ID, container.StartOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := live.cli.ContainerRemove(context.Background(), made.ID, container.RemoveOptions{Force: true}); err != nil {
			t.Error(err)
		}
	})
	return made.ID
}

func createOnly(t *testing.T, e *Engine, o task.Owner, name string, s task.Spec) {
	t.Helper()
	req, err := e.request(o, name, &s)
	if err == nil {
		err = e.ensureNetwork(t.Context())
	}
	if err == nil {
		_, err = e.tryCreate(t.Context(), name, req)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, id, path string) []byte {
	t.Helper()
	stream, _, err := live.cli.CopyFromContainer(t.Context(), id, path)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	r := tar.NewReader(stream)
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func vanish(t *testing.T, id string) {
	t.Helper()
	if err := live.cli.ContainerRemove(t.Context(), id, container.RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
}

var (
	_ provider.Logger = (*Engine)(nil)
	_ provider.Execer = (*Engine)(nil)
)
