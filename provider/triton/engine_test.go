package triton

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	engineclient "github.com/docker/docker/client"

	"github.com/mesopool/mesopool/endpoint"
	"github.com/mesopool/mesopool/endpoint/backend"
	"github.com/mesopool/mesopool/provider/providertest"
	"github.com/mesopool/mesopool/task"
)

// live is the Docker engine behind the endpoint. What a test makes there carries
// the run's own name and is removed at its end.
type live struct {
	run string
	cli *engineclient.Client
}

func newLive(t *testing.T) *live {
	t.Helper()
	l, err := prepareLive(t)
	if err == nil {
		return l
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("no Docker engine for %s: %v", t.Name(), err)
	}
	t.Skipf("%s needs a Docker engine: %v", t.Name(), err)
	return nil
}

func prepareLive(t *testing.T) (*live, error) {
	cli, err := engineclient.NewClientWithOpts(engineclient.FromEnv, engineclient.WithAPIVersionNegotiation())
	if err != nil {
		return nil, err
	}
	if _, err := cli.Info(t.Context()); err != nil {
		return nil, err
	}
	var id [4]byte
	rand.Read(id[:])
	l := &live{run: "triton-test-" + hex.EncodeToString(id[:]), cli: cli}
	helper := filepath.Join(t.TempDir(), "helper")
	cmd := exec.Command("go", "build", "-o", helper, "../docker/testdata/helper")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-ldflags=-s")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the helper: %w: %s", err, out)
	}
	t.Cleanup(func() {
		if err := l.clear(); err != nil {
			t.Errorf("clearing the engine: %v", err)
		}
	})
	return l, l.importImage(t.Context(), helper)
}

func (l *live) image() string { return l.run + ":1" }

func (l *live) importImage(ctx context.Context, helper string) error {
	program, err := os.ReadFile(helper)
	if err != nil {
		return err
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, dir := range []string{"tmp/", "etc/", "data/"} {
		w.WriteHeader(&tar.Header{Name: dir, Mode: 0o777, Typeflag: tar.TypeDir})
	}
	w.WriteHeader(&tar.Header{Name: "helper", Mode: 0o755, Size: int64(len(program))})
	w.Write(program)
	w.Close()
	r, err := l.cli.ImageImport(ctx, image.ImportSource{Source: &layer, SourceName: "-"}, l.image(), image.ImportOptions{})
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(io.Discard, r)
	return err
}

func (l *live) clear() error {
	ctx := context.Background()
	own := filters.NewArgs(filters.Arg("label", "mesopool.endpoint="+l.run))
	left, err := l.cli.ContainerList(ctx, container.ListOptions{All: true, Filters: own})
	for _, c := range left {
		err = errors.Join(err, l.cli.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true, RemoveVolumes: true}))
	}
	networks, e := l.cli.NetworkList(ctx, network.ListOptions{Filters: own})
	err = errors.Join(err, e)
	for _, n := range networks {
		err = errors.Join(err, l.cli.NetworkRemove(ctx, n.ID))
	}
	_, e = l.cli.ImageRemove(ctx, l.image(), image.RemoveOptions{Force: true})
	return errors.Join(err, e)
}

// vanish removes a container where the endpoint does not see it happen.
func (l *live) vanish(t *testing.T, id string) {
	all, err := l.cli.ContainerList(t.Context(), container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", "mesopool.endpoint.id="+id))})
	if err != nil || len(all) != 1 {
		t.Fatalf("%d containers, %v", len(all), err)
	}
	if err := l.cli.ContainerRemove(t.Context(), all[0].ID, container.RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
}

// emptyRegistry has no image at all.
func emptyRegistry(t *testing.T) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
		if r.URL.Path == "/v2/" {
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`)
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func helperArgs(p providertest.Program) []string {
	args := []string{"/helper"}
	if p.Deaf {
		args = append(args, "deaf")
	}
	args = append(args, fmt.Sprintf("lines=%d", p.Lines))
	if p.Run {
		return append(args, "run")
	}
	return append(args, fmt.Sprintf("exit=%d", p.Exit))
}

func readFile(t *testing.T, d *Datacenter, id, path string) []byte {
	t.Helper()
	stream, _, err := d.cli.CopyFromContainer(t.Context(), id, path)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	r := tar.NewReader(stream)
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestConformanceOnEngine runs the contract of all backends through the
// endpoint on a real engine.
func TestConformanceOnEngine(t *testing.T) {
	l := newLive(t)
	b, err := backend.NewEngine(t.Context(), backend.EngineConfig{Name: l.run})
	if err != nil {
		t.Fatal(err)
	}
	r := newRigOn(t, b)
	if r.acct, err = r.cloud.Accounts().Change("team", func(a *endpoint.Account) error { a.Images = []string{l.image()}; return nil }); err != nil {
		t.Fatal(err)
	}
	missing, owners := emptyRegistry(t)+"/none:1", 0
	providertest.Run(t, func(t *testing.T) providertest.Setup {
		s := r.setup(t)
		owners++
		s.Owner, s.Missing = task.Owner{Cluster: l.run, Agent: fmt.Sprintf("dc-%d", owners)}, missing
		s.Spec = func(p providertest.Program) task.Spec {
			args := helperArgs(p)
			return task.Spec{Image: l.image(), Command: task.Command{Value: args[0], Args: args[1:]}}
		}
		s.Argv = helperArgs
		d := s.Provider.(*Datacenter)
		s.Vanish = l.vanish
		s.ReadFile = func(t *testing.T, id, path string) []byte { return readFile(t, d, id, path) }
		return s
	}, providertest.Quirks{Settle: 20 * time.Second, Grace: time.Second})
}
