package consul

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/mesopool/mesopool/task"
)

// binary finds the Consul that tools/consul pins. In CI it is built if need be;
// elsewhere a test is skipped without it.
func binary(t *testing.T) string {
	t.Helper()
	args := []string{"../scripts/consul.sh"}
	if os.Getenv("CI") == "" {
		args = append(args, "--cached")
	}
	out, err := exec.Command("bash", args...).Output()
	if err != nil && os.Getenv("CI") == "" {
		t.Skip("SKIPPED: there is no Consul here; build it once with scripts/consul.sh")
	}
	if err != nil {
		t.Fatalf("scripts/consul.sh: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// realConsul is a Consul server in development mode.
type realConsul struct {
	binary string
	ports  []string // http, server, serf LAN, serf WAN
	cmd    *exec.Cmd
	api    *api.Client
}

func newReal(t *testing.T) *realConsul {
	t.Helper()
	c := &realConsul{binary: binary(t)}
	for range 4 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		c.ports = append(c.ports, port)
	}
	client, err := api.NewClient(&api.Config{Address: c.address()})
	if err != nil {
		t.Fatal(err)
	}
	c.api = client
	return c
}

func (c *realConsul) address() string { return "127.0.0.1:" + c.ports[0] }

// start brings the server up, empty, and waits until it leads.
func (c *realConsul) start(t *testing.T) {
	t.Helper()
	c.cmd = exec.Command(c.binary, "agent", "-dev", "-log-level=err", "-bind=127.0.0.1", "-client=127.0.0.1",
		"-http-port="+c.ports[0], "-server-port="+c.ports[1], "-serf-lan-port="+c.ports[2], "-serf-wan-port="+c.ports[3],
		"-grpc-port=-1", "-grpc-tls-port=-1", "-dns-port=-1")
	c.cmd.Stderr = os.Stderr
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.stop)
	eventually(t, "Consul has a leader", func() bool {
		leader, err := c.api.Status().Leader()
		return err == nil && leader != ""
	})
}

func (c *realConsul) stop() {
	if c.cmd != nil {
		c.cmd.Process.Kill()
		c.cmd.Wait()
		c.cmd = nil
	}
}

// passing says how many instances of a service pass their checks.
func (c *realConsul) passing(name string) int {
	entries, _, err := c.api.Health().Service(name, "", true, nil)
	if err != nil {
		return -1
	}
	return len(entries)
}

func TestRealConsul(t *testing.T) {
	c := newReal(t)
	app, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	go http.Serve(app, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "well") }))
	port := uint16(app.Addr().(*net.TCPAddr).Port)

	r, _ := running(t, Config{Address: c.address()}) // Consul comes later
	s := spec(func(s *task.Spec) {
		s.Ports = []task.Port{{Container: port}}
		s.Health = &task.HealthCheck{Type: task.CheckHTTP, Port: port, Path: "/", Interval: time.Second, Timeout: time.Second}
	})
	here := task.ContainerStatus{ID: "c1", Addresses: []string{"127.0.0.1"}}
	r.Put("web", TaskServices(s, here, testOwner, "S1"))
	s.Health, s.Name = nil, "odd"
	s.Key.ID = "a b/c?d%e" // any text is a good ID
	odd := TaskServices(s, here, testOwner, "S1")
	odd[0].Check.Interval = time.Second
	r.Put("odd", odd)
	r.Put(SelfID, Self(Role{Name: "mesos-agent", Address: "127.0.0.1", Port: port, Path: "/health"}, testOwner))
	r.Synced()
	c.start(t)
	if err := c.api.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "foreign"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "web passes its HTTP check", func() bool { return c.passing("web-shop") == 1 })
	eventually(t, "odd passes its TCP check", func() bool { return c.passing("odd") == 1 })
	eventually(t, "the agent itself passes its check", func() bool { return c.passing("mesos-agent") == 1 })

	c.stop() // and loses everything
	r.Put("late", []Service{{ID: "late", Name: "late", Address: "127.0.0.1"}})
	eventually(t, "the Registrar knows that Consul is down", r.isDown)
	c.start(t)
	eventually(t, "all is registered again", func() bool { return c.passing("web-shop") == 1 && c.passing("late") == 1 })

	for _, id := range []string{"odd", "web"} {
		if err := r.Drop(within(t, 10*time.Second), id); err != nil {
			t.Error(err)
		}
	}
	held, err := c.api.Agent().Services()
	if err != nil {
		t.Fatal(err)
	}
	if len(held) != 2 {
		t.Errorf("Consul holds %v, want late and the agent itself", held)
	}
}

func TestRealConsulReconcile(t *testing.T) {
	c := newReal(t)
	c.start(t)
	if err := c.api.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "foreign"}); err != nil {
		t.Fatal(err)
	}
	first, err := New(Config{Address: c.address(), Role: "agent", Owner: testOwner})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- first.Run(ctx) }()
	first.Put("a", []Service{service("a1")})
	first.Put("b", []Service{service("b1")})
	has := func(id string) bool {
		_, _, err := c.api.Agent().Service(id, nil)
		return err == nil
	}
	eventually(t, "both are registered", func() bool { return has("a1") && has("b1") })
	cancel() // the agent dies; b ends before it is back
	<-ended

	second, _ := running(t, Config{Address: c.address()})
	second.Put("a", []Service{service("a1")})
	second.Synced()
	eventually(t, "what is left of an earlier life is gone", func() bool { return !has("b1") })
	if !has("a1") || !has("foreign") {
		t.Error("a service that is wanted, or somebody else's, is gone too")
	}
}
