package docker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/volume"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// output waits for a container's end and returns what it wrote.
func output(t *testing.T, e *Engine, id string) (string, provider.Container) {
	t.Helper()
	r, err := e.Logs(t.Context(), id, provider.LogOptions{Follow: true, Stdout: true, Stderr: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var all bytes.Buffer
	for {
		piece, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		all.Write(piece.Data)
	}
	c, err := e.Inspect(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return all.String(), c
}

func TestMesosEnvironmentOnEngine(t *testing.T) {
	e := newEngine(t, nil)
	s := helperSpec("env=MESOS_SANDBOX", "env=MESOS_CONTAINER_NAME", "env=A", "env=MESOS_TASK_ID")
	s.Env = []task.Label{{Key: "A", Value: "1"}, {Key: "A", Value: "2=x"}, {Key: "MESOS_SANDBOX", Value: "mine"}}
	c, err := run(t, e, "env", s)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := output(t, e, c.ID)
	if want := provider.Sandbox + "\n" + c.Name + "\n2=x\n\n"; text != want {
		t.Errorf("the task sees %q, want %q", text, want)
	}
}

func TestRefusedStartsOnEngine(t *testing.T) {
	e := newEngine(t, nil)
	tests := []struct {
		name string
		edit func(*task.Spec)
		want string
	}{
		{"command", func(s *task.Spec) { s.Command.Value = "/no/such/command" }, "/no/such/command"},
		{"shell", func(s *task.Spec) { s.Command = task.Command{Shell: true, Value: "date"} }, "/bin/sh"},
		{"user", func(s *task.Spec) { s.User = "nobody-at-all" }, "nobody-at-all"},
		{"image name", func(s *task.Spec) { s.Image = "Bad Name" }, "Bad Name"},
		{"network", func(s *task.Spec) { s.Network = task.Network{Mode: task.NetworkUser, Name: live.run + "-none"} }, live.run + "-none"},
		{"volume path", func(s *task.Spec) { s.Volumes = []task.Volume{{Container: "/", Name: "x"}} }, "/"},
		{"workdir", func(s *task.Spec) { s.WorkDir = "not/absolute" }, "not/absolute"},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := helperSpec("run")
			tt.edit(&s)
			name := fmt.Sprintf("%s-refused-%d", live.run, i)
			_, err := e.Launch(t.Context(), newOwner(), name, s)
			if !errors.Is(err, provider.ErrRejected) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v; want a refusal with %q", err, tt.want)
			}
			if _, err := e.Inspect(t.Context(), name); !errors.Is(err, provider.ErrNotFound) {
				t.Errorf("the refused container is still there: %v", err)
			}
		})
	}
}

func fetch(t *testing.T, url string) string {
	t.Helper()
	var last error
	for range 100 {
		resp, err := http.Get(url)
		if err == nil {
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			return string(text)
		}
		last = err
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatal(last)
	return ""
}

func TestOwnAddressesOnEngine(t *testing.T) {
	e := newEngine(t, nil)
	for _, name := range []string{"own-1", "own-2"} {
		s := helperSpec("serve", "run")
		s.Ports = []task.Port{{Container: 80, Host: 31000}}
		c, err := run(t, e, name, s)
		if err != nil {
			t.Fatal(err)
		}
		if c, err = e.Inspect(t.Context(), c.ID); err != nil || len(c.Addresses) == 0 {
			t.Fatalf("%v, addresses %v", err, c.Addresses)
		}
		if c.Network != live.run || len(c.Ports) != 0 {
			t.Errorf("network %s, published %v", c.Network, c.Ports)
		}
		if got := fetch(t, "http://"+c.Addresses[0]+"/"); !strings.Contains(got, c.Name) {
			t.Errorf("%s answered %q", c.Name, got)
		}
	}
}

func TestPublishLoopbackOnEngine(t *testing.T) {
	e := newEngine(t, func(o *Options) { o.PublishLoopback = true })
	s := helperSpec("serve", "run")
	s.Ports = []task.Port{{Container: 80}, {Container: 53, Protocol: "udp"}}
	made, err := run(t, e, "published", s)
	if err != nil {
		t.Fatal(err)
	}
	c, err := e.Inspect(t.Context(), made.ID)
	if err != nil || len(c.Ports) != 2 || c.PublishIP != "127.0.0.1" || c.Ports[0].Protocol != "udp" || c.Ports[1].Container != 80 {
		t.Fatalf("%v: published %v at %q", err, c.Ports, c.PublishIP)
	}
	if got := fetch(t, fmt.Sprintf("http://127.0.0.1:%d/", c.Ports[1].Host)); !strings.Contains(got, c.Name) {
		t.Errorf("answered %q", got)
	}
}

func TestOldDefinitionOnEngine(t *testing.T) {
	e := newEngine(t, nil)
	consul, err := run(t, e, "consul", helperSpec("serve", "run"))
	if err != nil {
		t.Fatal(err)
	}
	s := helperSpec("run")
	s.Network.Mode = task.NetworkBridge
	s.Resources = resources.NewScalar("mem", resources.Whole(48))
	s.Parameters = []task.Label{
		{Key: "restart", Value: "always"},
		{Key: "link", Value: consul.Name + ":consul"},
		{Key: "link", Value: "mesos_none_1:x"},
		{Key: "label", Value: "MESOS_TASK_ID=web.1"},
		{Key: "add-host", Value: "db:10.0.0.1"},
		{Key: "ulimit", Value: "nofile=100:200"},
		{Key: "memory-swap", Value: "64m"},
		{Key: "read-only", Value: "true"},
		{Key: "tmpfs", Value: "/run:size=1m"},
		{Key: "network-alias", Value: "web"},
		{Key: "log-opt", Value: "max-size=1m"},
		{Key: "shm-size", Value: "1m"},
		{Key: "sysctl", Value: "net.core.somaxconn=64"},
		{Key: "stop-timeout", Value: "3"},
		{Key: "init", Value: "false"},
		{Key: "mac-address", Value: "02:42:ac:11:65:43"},
		{Key: "pids-limit", Value: "50"},
		{Key: "cap-drop", Value: "ALL"},
	}
	c, err := run(t, e, "old", s)
	if err != nil {
		t.Fatal(err)
	}
	in, err := live.cli.ContainerInspect(t.Context(), c.ID)
	if err != nil {
		t.Fatal(err)
	}
	n := in.NetworkSettings.Networks[live.run]
	if n == nil || len(n.Links) != 1 || n.MacAddress != "02:42:ac:11:65:43" || in.HostConfig.RestartPolicy.Name != "no" && in.HostConfig.RestartPolicy.Name != "" {
		t.Errorf("network %+v, restart %v", n, in.HostConfig.RestartPolicy)
	}
	if in.Config.Labels["MESOS_TASK_ID"] != "web.1" || !in.HostConfig.ReadonlyRootfs || *in.HostConfig.PidsLimit != 50 || in.HostConfig.ShmSize != 1<<20 {
		t.Errorf("labels %v, %+v", in.Config.Labels, in.HostConfig)
	}
}

func TestNamedVolumeOnEngine(t *testing.T) {
	e := newEngine(t, nil)
	name := live.run + "-data"
	t.Cleanup(func() {
		for range 50 {
			if live.cli.VolumeRemove(context.Background(), name, true) == nil {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Error("the volume cannot be removed")
	})
	s := helperSpec("run")
	s.Volumes = []task.Volume{{Name: name, Container: "data"}, {Container: "/scratch"}}
	c, err := run(t, e, "volume", s)
	if err != nil {
		t.Fatal(err)
	}
	in, err := live.cli.ContainerInspect(t.Context(), c.ID)
	if err != nil {
		t.Fatal(err)
	}
	where, scratch := map[string]string{}, ""
	for _, m := range in.Mounts {
		where[m.Name] = m.Destination
		if m.Destination == "/scratch" {
			scratch = m.Name
		}
	}
	if where[name] != provider.Sandbox+"/data" || scratch == "" {
		t.Errorf("mounted %v", where)
	}
	if err := e.Stop(t.Context(), c.ID, 0); err != nil {
		t.Fatal(err)
	}
	output(t, e, c.ID)
	if err := e.Remove(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	left, err := live.cli.VolumeList(t.Context(), volume.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	kept := false
	for _, v := range left.Volumes {
		kept = kept || v.Name == name
		if v.Name == scratch {
			t.Error("the anonymous volume was left behind")
		}
	}
	if !kept {
		t.Error("the named volume was removed")
	}
}

func TestNetworkNoneOnEngine(t *testing.T) {
	e := newEngine(t, nil)
	s := helperSpec("run")
	s.Network.Mode = task.NetworkNone
	c, err := run(t, e, "none", s)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = e.Inspect(t.Context(), c.ID); err != nil || len(c.Addresses) != 0 || c.State != provider.StateUp {
		t.Errorf("%v, addresses %v, %v", err, c.Addresses, c.State)
	}
}

// TestNetworkComesBackOnEngine: an operator removed the cluster's network.
func TestNetworkComesBackOnEngine(t *testing.T) {
	e := newEngine(t, func(o *Options) { o.Network += "-lost" })
	t.Cleanup(func() { live.cli.NetworkRemove(context.Background(), e.o.Network) })
	for i := range 2 {
		c, err := run(t, e, fmt.Sprintf("lost-%d", i), helperSpec("run"))
		if err != nil {
			t.Fatal(err)
		}
		if err := live.cli.ContainerRemove(t.Context(), c.ID, container.RemoveOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
		if err := live.cli.NetworkRemove(t.Context(), e.o.Network); err != nil {
			t.Fatal(err)
		}
	}
}

func TestExecTerminalOnEngine(t *testing.T) {
	e := newEngine(t, nil)
	c, err := run(t, e, "exec", helperSpec("run"))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	resize := make(chan [2]uint, 1)
	resize <- [2]uint{40, 100}
	code, err := e.Exec(t.Context(), c.ID, provider.ExecOptions{
		Argv: []string{"/helper", "lines=1", "exit=9"}, TTY: true, Stdout: &out, Resize: resize,
	})
	if err != nil || code != 9 || out.String() != "out 1\r\nerr 1\r\n" {
		t.Errorf("a terminal: %d, %v, %q", code, err, &out)
	}
	out.Reset()
	code, err = e.Exec(t.Context(), c.ID, provider.ExecOptions{
		Argv: []string{"/helper", "cat", "env=X"}, Env: []string{"X=y"}, Stdin: strings.NewReader("through\n"), Stdout: &out,
	})
	if err != nil || code != 0 || out.String() != "through\ny\n" {
		t.Errorf("with input: %d, %v, %q", code, err, &out)
	}
}

func TestTerminalLogsOnEngine(t *testing.T) {
	e := newEngine(t, nil)
	s := helperSpec("lines=1")
	s.TTY = true
	c, err := run(t, e, "tty", s)
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := output(t, e, c.ID); text != "out 1\r\nerr 1\r\n" {
		t.Errorf("wrote %q", text)
	}
}

func TestRawOnEngine(t *testing.T) {
	e := newEngine(t, nil)
	c, err := run(t, e, "raw", helperSpec("run"))
	if err != nil {
		t.Fatal(err)
	}
	if c, err = e.Inspect(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	if raw := string(c.Raw); !strings.HasPrefix(raw, `[{"Id":"`+c.ID) || !strings.HasSuffix(strings.TrimSpace(raw), "]") {
		t.Errorf("raw is %.80s …", raw)
	}
}

// together makes n launches at once.
func together(b *testing.B, n int, launch func(i int) error) time.Duration {
	b.Helper()
	began, done := time.Now(), make(chan error, n)
	for i := range n {
		go func() { done <- launch(i) }()
	}
	for range n {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(began)
}

// BenchmarkLaunchOnEngine compares Launch with nothing but create and start,
// in turns, so that both meet the same engine.
func BenchmarkLaunchOnEngine(b *testing.B) {
	for _, at := range []int{1, 4} {
		b.Run(fmt.Sprintf("at once %d", at), func(b *testing.B) {
			e, o := newEngine(b, nil), newOwner()
			if err := e.ensureNetwork(b.Context()); err != nil {
				b.Fatal(err)
			}
			var bareTook, launchTook time.Duration
			for round := range b.N {
				name := func(how string, i int) string {
					return fmt.Sprintf("%s-%s-%d-%d-%d-%d", live.run, how, at, b.N, round, i)
				}
				bareTook += together(b, at, func(i int) error { return bare(b.Context(), name("bare", i)) })
				launchTook += together(b, at, func(i int) error {
					_, err := e.Launch(b.Context(), o, name("launch", i), helperSpec("run"))
					return err
				})
			}
			b.StopTimer()
			n := float64(b.N * at)
			b.ReportMetric(n/bareTook.Seconds(), "bare/s")
			b.ReportMetric(n/launchTook.Seconds(), "launches/s")
			if err := clearContainers(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

func bare(ctx context.Context, name string) error {
	made, err := live.cli.ContainerCreate(ctx,
		&container.Config{Image: live.run + ":1", Cmd: []string{"/helper", "run"}, Labels: map[string]string{"mesopool-test": live.run}},
		&container.HostConfig{NetworkMode: container.NetworkMode(live.run)}, nil, nil, name)
	if err != nil {
		return err
	}
	return live.cli.ContainerStart(ctx, made.ID, container.StartOptions{})
}
