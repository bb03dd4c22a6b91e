package link

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/agent"
	"github.com/mesopool/mesopool/mesos/libprocess"
	"github.com/mesopool/mesopool/mesos/messages"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/store"
)

const (
	agentID = "9a93295b-S0"
	limit   = 10 * time.Second // for whatever must come
)

var quiet = slog.New(slog.DiscardHandler)

func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	for end := time.Now().Add(limit); err != nil && time.Now().Before(end); { // a port of before may be another client's for a while
		time.Sleep(10 * time.Millisecond)
		l, err = net.Listen("tcp", address)
	}
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// fakeMaster is a master that takes messages and answers none by itself.
type fakeMaster struct {
	t     *testing.T
	node  *libprocess.Node
	inbox chan libprocess.Message
	limit time.Duration // how long it waits for a message
	stop  func()
}

func newMaster(t *testing.T, address string) *fakeMaster {
	t.Helper()
	m := &fakeMaster{t: t, inbox: make(chan libprocess.Message, 1000), limit: limit}
	m.node = libprocess.NewNode(libprocess.Config{Listener: listen(t, address)})
	for _, id := range []string{"master", "slave-observer(1)"} {
		m.node.Handle(id, func(x libprocess.Message) {
			x.Body = append([]byte(nil), x.Body...)
			m.inbox <- x
		})
	}
	m.stop = background(t, m.node.Run)
	return m
}

// background runs until the returned function, or the test's end.
func background(t *testing.T, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := run(ctx); err != nil {
			t.Errorf("background: %v", err)
		}
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return stop
}

func (m *fakeMaster) upid() libprocess.UPID { return m.node.UPID("master") }

// expect returns the next message of the type, past all others.
func expect[T proto.Message](m *fakeMaster, into T) (T, libprocess.Message) {
	m.t.Helper()
	timeout := time.After(m.limit)
	for {
		select {
		case x := <-m.inbox:
			if x.Name != string(into.ProtoReflect().Descriptor().FullName()) {
				continue
			}
			if err := proto.Unmarshal(x.Body, into); err != nil {
				m.t.Fatal(err)
			}
			return into, x
		case <-timeout:
			m.t.Fatalf("no %T came", into)
		}
	}
}

// fakeAgent keeps what the link puts.
type fakeAgent struct {
	t      *testing.T
	inputs chan agent.Input
	store  store.Store

	mu     sync.Mutex
	roster agent.Roster
}

func (a *fakeAgent) Put(in agent.Input) {
	if _, joined := in.(agent.Joined); joined {
		if _, err := a.store.Get(context.Background(), idKey); err != nil {
			a.t.Errorf("joined before the ID was saved: %v", err)
		}
	}
	a.inputs <- in
}

func (a *fakeAgent) Roster(context.Context) (agent.Roster, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.roster, nil
}

// input returns the next input of the type, past all others.
func input[T agent.Input](e *env) T {
	e.t.Helper()
	timeout := time.After(limit)
	for {
		select {
		case in := <-e.agent.inputs:
			if x, ok := in.(T); ok {
				return x
			}
		case <-timeout:
			var none T
			e.t.Fatalf("no %T came", none)
		}
	}
}

// noInput fails if anything has come until what was sent after it is handled.
func (e *env) noInput() {
	e.t.Helper()
	e.send(&messages.PingSlaveMessage{Connected: new(true)})
	e.pong()
	select {
	case in := <-e.agent.inputs:
		e.t.Fatalf("unexpected %T: %+v", in, in)
	default:
	}
}

// env is a link between a fake master and a fake agent.
type env struct {
	t      *testing.T
	master *fakeMaster
	agent  *fakeAgent
	link   *Link
	store  store.Store
	node   *libprocess.Node
	done   chan error
	stop   func()
	tune   func(*Link) // before it runs; may be nil

	mu     sync.Mutex
	leader *fakeMaster
}

func (e *env) find(context.Context) (libprocess.UPID, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.leader == nil {
		return libprocess.UPID{}, errors.New("nobody leads")
	}
	return e.leader.upid(), nil
}

func (e *env) lead(m *fakeMaster) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.leader = m
	if m != nil {
		e.master = m
	}
}

func newEnv(t *testing.T) *env {
	t.Helper()
	e := &env{t: t, store: store.NewMemory()}
	e.lead(newMaster(t, "127.0.0.1:0"))
	return e
}

// start starts the link, over what an earlier one saved.
func (e *env) start() {
	e.t.Helper()
	e.agent = &fakeAgent{t: e.t, inputs: make(chan agent.Input, 10_000), store: e.store}
	e.node = libprocess.NewNode(libprocess.Config{
		Listener: listen(e.t, "127.0.0.1:0"), Exited: func(u libprocess.UPID) { e.link.Exited(u) },
	})
	total, err := resources.Parse("cpus:4;mem:1024")
	if err != nil {
		e.t.Fatal(err)
	}
	e.link = New(Config{
		Node: e.node, Self: e.node.UPID("slave(1)"), Master: e.find, Hostname: "dc-1.example", Resources: total, Version: "1.11.0",
		Store: e.store, Backoff: 20 * time.Millisecond, Log: quiet,
	})
	if e.tune != nil {
		e.tune(e.link)
	}
	stopNode := background(e.t, e.node.Run)
	ctx, cancel := context.WithCancel(context.Background())
	e.done = make(chan error, 1)
	go func() { e.done <- e.link.Run(ctx, e.agent) }()
	e.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-e.done; err != nil {
			e.t.Errorf("Run: %v", err)
		}
		stopNode()
	})
	e.t.Cleanup(e.stop)
}

func (e *env) setRoster(r agent.Roster) {
	e.agent.mu.Lock()
	defer e.agent.mu.Unlock()
	e.agent.roster = r
}

func (e *env) send(m proto.Message) { e.sendAs("master", m) }

func (e *env) sendAs(from string, m proto.Message) {
	e.t.Helper()
	if err := e.master.node.SendProto(from, e.link.cfg.Self, m); err != nil {
		e.t.Fatal(err)
	}
}

func (e *env) pong() {
	e.t.Helper()
	expect(e.master, &messages.PongSlaveMessage{})
}

// registered is a link that is registered.
func registered(t *testing.T) *env {
	t.Helper()
	e := newEnv(t)
	e.start()
	expect(e.master, &messages.RegisterSlaveMessage{})
	e.admit(75)
	return e
}

func (e *env) admit(silence float64) {
	e.t.Helper()
	e.send(&messages.SlaveRegisteredMessage{
		SlaveId: &mesosv1.AgentID{Value: new(agentID)}, Connection: &messages.MasterSlaveConnection{TotalPingTimeoutSeconds: &silence},
	})
	input[agent.Joined](e)
}

func (e *env) readmit() {
	e.t.Helper()
	m, _ := expect(e.master, &messages.ReregisterSlaveMessage{})
	if m.Slave.GetId().GetValue() != agentID {
		e.t.Errorf("registered again as %q", m.Slave.GetId().GetValue())
	}
	e.send(&messages.SlaveReregisteredMessage{SlaveId: m.Slave.Id})
	input[agent.Joined](e)
}
