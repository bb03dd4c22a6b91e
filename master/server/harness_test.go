package server

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/mesopool/mesopool/agent"
	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/mesos/libprocess"
	"github.com/mesopool/mesopool/mesos/link"
	"github.com/mesopool/mesopool/mesos/scheduler"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/provider/memory"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/store"
	"github.com/mesopool/mesopool/task"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// running is something with a Run that a test can stop.
type running struct {
	cancel context.CancelFunc
	done   chan error
}

func start(t testing.TB, run func(context.Context) error) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{cancel, make(chan error, 1)}
	go func() { r.done <- run(ctx) }()
	t.Cleanup(r.stop)
	return r
}

func (r *running) stop() {
	r.cancel()
	r.wait()
}

func (r *running) wait() error {
	err := <-r.done
	r.done <- err
	return err
}

type testMaster struct {
	*Server
	*running
	addr string
}

// startMaster serves on addr; "" is any port.
func startMaster(t testing.TB, addr string, change func(*Config)) *testMaster {
	t.Helper()
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Listener: l, Store: store.NewMemory(), Cluster: "test", Log: quiet()}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &testMaster{s, start(t, s.Run), l.Addr().String()}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// until waits for a snapshot that shows what is wanted.
func (m *testMaster) until(t testing.TB, what string, ok func(*master.Snapshot) bool) *master.Snapshot {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		snap, err := m.Snapshot(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if ok(snap) {
			return snap
		}
	}
	t.Fatalf("the master never shows %s", what)
	return nil
}

// testAgent is our own agent on a simulated data center.
type testAgent struct {
	*running
	link *link.Link
	data *memory.Provider
}

func parse(t testing.TB, text string) resources.Resources {
	t.Helper()
	r, err := resources.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func startAgent(t testing.TB, m *testMaster, amount string) *testAgent {
	t.Helper()
	return startAgentOn(t, m.addr, amount, store.NewMemory(), memory.New(memory.Config{}))
}

func startAgentOn(t testing.TB, masterAddr, amount string, st store.Store, data *memory.Provider) *testAgent {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	to, err := libprocess.ParseUPID("master@" + masterAddr)
	if err != nil {
		t.Fatal(err)
	}
	a := &testAgent{data: data}
	node := libprocess.NewNode(libprocess.Config{Listener: l, Exited: func(u libprocess.UPID) { a.link.Exited(u) }})
	a.link = link.New(link.Config{
		Node: node, Self: node.UPID("slave(1)"), Master: func(context.Context) (libprocess.UPID, error) { return to, nil },
		Hostname: "dc.example", Resources: parse(t, amount), Version: "1.11.0", Store: st, Backoff: 50 * time.Millisecond, Log: quiet(),
		Attributes: []*mesosv1.Attribute{{Name: new("rack"), Type: mesosv1.Value_TEXT.Enum(), Text: &mesosv1.Value_Text{Value: new("r1")}}},
	})
	core := agent.DefaultConfig()
	core.Owner = task.Owner{Cluster: "test", Agent: "a1"}
	core.NewUUID = func() (u task.UUID) { rand.Read(u[:]); return u }
	runner := agent.NewRunner(agent.Options{Core: core, Provider: data, Store: st, Log: quiet()})
	a.running = start(t, func(ctx context.Context) error {
		errs := make(chan error, 3)
		ctx, cancel := context.WithCancel(ctx)
		go func() { errs <- node.Run(ctx) }()
		go func() { errs <- runner.Run(ctx, a.link) }()
		go func() { errs <- a.link.Run(ctx, runner) }()
		err := <-errs
		cancel()
		return errors.Join(err, <-errs, <-errs)
	})
	return a
}

// untilContainers waits for a number of containers that run.
func (a *testAgent) untilContainers(t testing.TB, want int) {
	t.Helper()
	got := -1
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if got = a.containers(t); got == want {
			return
		}
	}
	t.Fatalf("%d containers run, want %d", got, want)
}

func (a *testAgent) containers(t testing.TB) (running int) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for ev, err := range a.data.Watch(ctx, task.Owner{Cluster: "test", Agent: "a1"}) {
		if err != nil {
			t.Fatal(err)
		}
		if ev.Synced {
			return running
		}
		if ev.Container.State == provider.StateUp {
			running++
		}
	}
	return running
}

// event is one thing that a framework is told.
type event struct {
	kind   string // subscribed, offers, rescinded, update, lost, disconnected
	id     string
	agent  string
	offers []task.Offer
	status task.Status
}

// testFramework is our own client; its events come one after the other.
type testFramework struct {
	*running
	*scheduler.Client
	events  chan event
	offered []task.Offer // not used yet
	silent  bool         // does not acknowledge
}

func frameworkOf(name string, change func(*mesosv1.FrameworkInfo)) *mesosv1.FrameworkInfo {
	f := &mesosv1.FrameworkInfo{User: new("root"), Name: &name, FailoverTimeout: new(3600.0), Checkpoint: new(true)}
	for _, c := range []mesosv1.FrameworkInfo_Capability_Type{
		mesosv1.FrameworkInfo_Capability_PARTITION_AWARE, mesosv1.FrameworkInfo_Capability_MULTI_ROLE,
		mesosv1.FrameworkInfo_Capability_RESERVATION_REFINEMENT, mesosv1.FrameworkInfo_Capability_TASK_KILLING_STATE,
	} {
		f.Capabilities = append(f.Capabilities, &mesosv1.FrameworkInfo_Capability{Type: c.Enum()})
	}
	f.Roles = []string{"web"}
	if change != nil {
		change(f)
	}
	return f
}

func startFramework(t testing.TB, addr string, info *mesosv1.FrameworkInfo) *testFramework {
	t.Helper()
	f := &testFramework{events: make(chan event, 100_000)}
	f.Client = scheduler.New(scheduler.Config{
		Framework: info, Log: quiet(), Retry: 50 * time.Millisecond,
		Master: func(context.Context) (string, error) { return addr, nil },
	})
	f.running = start(t, func(ctx context.Context) error { return f.Run(ctx, f) })
	return f
}

func (f *testFramework) Subscribed(id, masterID string) error {
	f.events <- event{kind: "subscribed", id: id, agent: masterID}
	return nil
}
func (f *testFramework) Offers(o []task.Offer) { f.events <- event{kind: "offers", offers: o} }
func (f *testFramework) Rescinded(id string)   { f.events <- event{kind: "rescinded", id: id} }
func (f *testFramework) AgentLost(id string)   { f.events <- event{kind: "lost", id: id} }
func (f *testFramework) Disconnected()         { f.events <- event{kind: "disconnected"} }

func (f *testFramework) Update(id, agent string, s task.Status) {
	if !f.silent && !s.UUID.IsZero() {
		f.Acknowledge(id, agent, s.UUID)
	}
	f.events <- event{kind: "update", id: id, agent: agent, status: s}
}

// next waits for an event of a kind; others pass by, offers are kept.
func (f *testFramework) next(t testing.TB, kind string) event {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case e := <-f.events:
			if e.kind == "offers" {
				f.offered = append(f.offered, e.offers...)
			}
			if e.kind == kind {
				return e
			}
		case <-timeout:
			t.Fatalf("no %s came", kind)
		}
	}
}

// state waits for a state of a task.
func (f *testFramework) state(t testing.TB, id string, want task.State) event {
	t.Helper()
	for {
		e := f.next(t, "update")
		if e.id == id && e.status.State == want {
			return e
		}
		if e.id == id && e.status.State.Terminal() {
			t.Fatalf("task %s: %s (%s), want %s", id, e.status.State, e.status.Message, want)
		}
	}
}

// offer waits for an offer that has not been used.
func (f *testFramework) offer(t testing.TB) task.Offer {
	t.Helper()
	for len(f.offered) == 0 {
		f.next(t, "offers")
	}
	o := f.offered[0]
	f.offered = f.offered[1:]
	return o
}

func sleeper(t testing.TB, framework, id, role string) task.Spec {
	return task.Spec{
		Key: task.Key{Framework: framework, ID: id}, Name: id, Image: "web:1", Resources: parse(t, "cpus:0.1;mem:32").Allocated(role),
		Command: task.Command{Shell: true, Value: "sleep infinity"},
	}
}

// launch starts sleepers on the next offer.
func (f *testFramework) launch(t testing.TB, framework string, ids ...string) task.Offer {
	t.Helper()
	o := f.offer(t)
	specs := make([]task.Spec, len(ids))
	for i, id := range ids {
		specs[i] = sleeper(t, framework, id, o.Role)
	}
	f.Accept([]string{o.ID}, o.Agent, task.Launch{Tasks: specs}, 0)
	return o
}
