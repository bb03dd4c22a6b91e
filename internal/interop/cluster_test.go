package interop

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

const patience = 60 * time.Second

// program is the binary under test, built once.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "interop")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "mesopool")
	build := exec.Command("go", "build", "-o", file, "./cmd/mesopool")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		os.Stderr.Write(out)
		return "", err
	}
	return file, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if file, err := program(); err == nil {
		os.RemoveAll(filepath.Dir(file))
	}
	os.Exit(code)
}

// process is one role that runs.
type process struct {
	stop func()
}

// run starts a role; what it writes is shown when the test fails.
func run(t *testing.T, args ...string) *process {
	t.Helper()
	file, err := program()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, file, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceFunc(func() {
		cancel()
		cmd.Wait()
		if t.Failed() {
			t.Logf("%v:\n%s", args, out.String())
		}
	})
	t.Cleanup(stop)
	return &process{stop}
}

// port is a free one.
func port(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// cluster starts a master and an agent on a simulated data center, and returns
// the master's address and a way to start it again.
func cluster(t *testing.T) (addr string, restart func()) {
	t.Helper()
	at, dir := port(t), t.TempDir()
	master := func() *process {
		p := run(t, "master", "--ip", "127.0.0.1", "--port", at, "--work-dir", dir)
		await(t, "http://127.0.0.1:"+at+"/health")
		return p
	}
	first := master()
	run(t, "agent", "--ip", "127.0.0.1", "--port", port(t), "--master", "127.0.0.1:"+at, "--provider", "memory", "--resources", "cpus:4;mem:4096;disk:4096")
	return "127.0.0.1:" + at, func() {
		first.stop()
		master()
	}
}

// await waits until a URL answers.
func await(t *testing.T, url string) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get(url)
		if err != nil {
			continue
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return
		}
	}
	t.Fatalf("%s never answers", url)
}
