package link

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/agent"
	"github.com/mesopool/mesopool/internal/uuid"
	"github.com/mesopool/mesopool/mesos/convert"
	"github.com/mesopool/mesopool/mesos/crammd5"
	"github.com/mesopool/mesopool/mesos/libprocess"
	"github.com/mesopool/mesopool/mesos/messages"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/store"
)

// Agent is what the link needs of the agent: *agent.Runner is one.
type Agent interface {
	Put(agent.Input)
	Roster(context.Context) (agent.Roster, error)
}

// Config describes the agent to the master.
type Config struct {
	Node       *libprocess.Node
	Self       libprocess.UPID                                    // the agent's own actor, slave(1)@ip:port
	Master     func(ctx context.Context) (libprocess.UPID, error) // finds the leading master
	Hostname   string
	Resources  resources.Resources
	Attributes []*mesosv1.Attribute
	Domain     *mesosv1.DomainInfo // nil: none; only for masters that have one themselves
	Version    string              // SemVer of the Mesos that is spoken, such as 1.11.0
	Store      store.Store
	Backoff    time.Duration // --registration_backoff_factor; 0: 1s
	Credential *crammd5.Credential
	Recheck    time.Duration // how often Master is asked while registered; 0: never
	Log        *slog.Logger

	// RemoveVolume has the backend remove a persistent volume that was destroyed;
	// absent is success. Nil: the backend has none.
	RemoveVolume func(ctx context.Context, role, id string) error

	Shutdown ShutdownPolicy // what a master's order to end does

	ExecutorGrace time.Duration // what executors without a grace of their own are told; 0: 5s
	Recovery      time.Duration // how long executors wait for the agent; 0: 15min
}

// Link is the agent's connection to its master.
type Link struct {
	cfg     Config
	log     *slog.Logger
	agent   Agent
	patient time.Duration // with a master that authenticates, at first
	ledger  *ledger
	refused refusals

	resendMin, resendMax time.Duration // between two sends of an operation's end

	events chan any

	mu         sync.Mutex
	told       resources.Resources // the total of the last registration
	version    []byte              // resource version, new at every registration
	master     libprocess.UPID     // zero while none is known
	id         string
	registered bool
	lastPing   time.Time
	silence    time.Duration // no ping for so long means that the master is gone
}

// idKey is where the agent's ID is stored; see also operations.go.
const idKey = "link/agent-id"

type (
	eventExited     struct{ peer libprocess.UPID }
	eventReregister struct{ why string }
	eventRegistered struct{}
	eventShutdown   struct{ message string }
)

// New returns a link that has not started.
func New(cfg Config) *Link {
	if cfg.Backoff <= 0 {
		cfg.Backoff = time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	cfg.ExecutorGrace, cfg.Recovery = cmp.Or(cfg.ExecutorGrace, 5*time.Second), cmp.Or(cfg.Recovery, 15*time.Minute)
	return &Link{
		cfg: cfg, log: cfg.Log, events: make(chan any, 64), silence: 75 * time.Second, version: newVersion(), patient: 5 * time.Second,
		ledger: newLedger(), resendMin: 10 * time.Second, resendMax: 10 * time.Minute,
	}
}

// newVersion names a state of the resources: operations on another one are not
// carried out.
func newVersion() []byte {
	version := uuid.New()
	return version[:]
}

func (l *Link) resourceVersion() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.version
}

// Exited must be called when the node's link to a peer breaks.
func (l *Link) Exited(peer libprocess.UPID) { l.post(eventExited{peer}) }

// post never blocks: the events it could lose are repeated by the protocol.
func (l *Link) post(e any) {
	select {
	case l.events <- e:
	default:
	}
}

// AgentID returns the ID that the master gave, "" before.
func (l *Link) AgentID() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.id
}

// Master returns the master's address and whether the agent is registered.
func (l *Link) Master() (libprocess.UPID, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.master, l.registered
}

// SetTotal changes what the agent has. A master learns it from a registration
// (master.cpp, ___reregisterSlave); tasks stay, whatever the total.
func (l *Link) SetTotal(total resources.Resources) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cfg.Resources = total
}

// outgrown says that the total is another one than the master was told.
func (l *Link) outgrown() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.told.Equal(l.cfg.Resources)
}

// Run finds the master, registers, and stays registered until ctx ends. It
// returns an error when the master orders this agent to end.
func (l *Link) Run(ctx context.Context, a Agent) error {
	l.agent = a
	if err := l.load(ctx); err != nil {
		return err
	}
	l.cfg.Node.Handle(l.cfg.Self.ID, l.receive)
	defer l.cfg.Node.Unhandle(l.cfg.Self.ID)
	defer l.background(ctx)()
	for ctx.Err() == nil {
		master, err := l.register(ctx)
		if err != nil {
			return endOf(ctx, err)
		}
		why, err := l.stay(ctx, master)
		if err != nil {
			return endOf(ctx, err)
		}
		l.log.Warn("registering again", "because", why)
		l.leave()
	}
	return nil
}

// endOf: an error because ctx ended is none.
func endOf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (l *Link) load(ctx context.Context) error {
	e, err := l.cfg.Store.Get(ctx, idKey)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("link: read the agent's ID: %w", err)
	}
	l.mu.Lock()
	l.id = string(e.Value)
	l.mu.Unlock()
	return l.loadLedger(ctx)
}

// background does what goes on whether there is a master or not; the returned
// function ends it.
func (l *Link) background(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { l.resendOperations(ctx) })
	if l.cfg.RemoveVolume != nil {
		running.Go(func() { l.removeVolumes(ctx) })
	}
	return func() { cancel(); running.Wait() }
}

// find asks for the leading master until there is one.
func (l *Link) find(ctx context.Context) (libprocess.UPID, error) {
	told := false
	for {
		master, err := l.cfg.Master(ctx)
		if err == nil {
			return master, nil
		}
		if ctx.Err() != nil {
			return master, ctx.Err()
		}
		if !told {
			l.log.Warn("no master yet; trying again every second", "error", err)
			told = true
		}
		if err := pause(ctx, time.Second); err != nil {
			return master, err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// register repeats the registration with a growing back-off until the master
// answers (slave.cpp, doReliableRegistration). Before each attempt it asks who
// leads, because a master that does not answer may not lead any more.
func (l *Link) register(ctx context.Context) (libprocess.UPID, error) {
	most := l.cfg.Backoff
	if err := pause(ctx, mathrand.N(most/4)); err != nil {
		return libprocess.UPID{}, err
	}
	proof := &proof{link: l}
	for {
		master, err := l.find(ctx)
		if err != nil {
			return master, err
		}
		l.follow(master)
		if ok, err := proof.give(ctx, master); err != nil {
			return master, err
		} else if !ok {
			continue
		}
		tasks, err := l.sendRegistration(ctx)
		if err != nil {
			return master, err
		}
		wait := most/2 + mathrand.N(most/2) + time.Duration(tasks)*perTask
		most = min(2*most, time.Minute)
		answer, err := l.awaitRegistered(ctx, wait)
		switch {
		case answer == accepted || err != nil:
			l.cfg.Node.Link(master) // again: the first attempt to connect may have failed
			return master, err
		case answer == unreachable: // nothing is overloaded by trying again soon
			most = min(most, 4*l.cfg.Backoff)
			proof.void()
		}
	}
}

// perTask is how much longer a master may take to answer for each task that it
// is told: to tell it all again meanwhile would keep it from ever getting there.
const perTask = 100 * time.Microsecond

// follow believes from now on what this master says.
func (l *Link) follow(master libprocess.UPID) {
	l.mu.Lock()
	l.master = master
	l.mu.Unlock()
	l.cfg.Node.Link(master)
}

type answer uint8

const (
	silent answer = iota
	unreachable
	accepted
)

// awaitRegistered waits for the master's answer.
func (l *Link) awaitRegistered(ctx context.Context, wait time.Duration) (answer, error) {
	timeout := time.After(wait)
	out := silent
	for {
		select {
		case <-ctx.Done():
			return out, ctx.Err()
		case <-timeout:
			return out, nil
		case e := <-l.events:
			switch e := e.(type) {
			case eventExited:
				out = unreachable
			case eventRegistered:
				if _, ok := l.Master(); ok { // else it is left from an earlier registration
					return accepted, nil
				}
			case eventShutdown:
				if err := l.shutdown(ctx, e.message); err != nil {
					return out, err
				}
			}
		}
	}
}

// stay waits for a reason to register again.
func (l *Link) stay(ctx context.Context, master libprocess.UPID) (string, error) {
	check := time.NewTicker(time.Second)
	defer check.Stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	other := l.otherLeader(ctx, master)
	for {
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case now := <-other:
			return "another master leads: " + now.String(), nil
		case <-check.C:
			if quiet := l.quiet(); quiet > 0 {
				return fmt.Sprintf("the master has not pinged for %s", quiet.Round(time.Second)), nil
			}
			if l.outgrown() {
				return "the agent's resources have changed", nil
			}
		case e := <-l.events:
			switch e := e.(type) {
			case eventExited:
				if e.peer.Addr == master.Addr {
					return "the connection to the master broke", nil
				}
			case eventReregister:
				return e.why, nil
			case eventShutdown:
				if err := l.shutdown(ctx, e.message); err != nil {
					return "", err
				}
			}
		}
	}
}

// otherLeader tells when somebody else leads. Not to find a leader is no news:
// the master that has registered the agent is believed until it falls silent.
func (l *Link) otherLeader(ctx context.Context, master libprocess.UPID) <-chan libprocess.UPID {
	out := make(chan libprocess.UPID, 1)
	if l.cfg.Recheck <= 0 {
		return out
	}
	go func() {
		for pause(ctx, l.cfg.Recheck) == nil {
			if now, err := l.cfg.Master(ctx); err == nil && now != master {
				out <- now
				return
			}
		}
	}()
	return out
}

// quiet returns how long there was no ping, if that is too long.
func (l *Link) quiet() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d := time.Since(l.lastPing); d > l.silence {
		return d
	}
	return 0
}

func (l *Link) leave() {
	l.mu.Lock()
	l.registered, l.version = false, newVersion()
	l.mu.Unlock()
	l.agent.Put(agent.Parted{})
}

func (l *Link) send(m proto.Message) {
	l.mu.Lock()
	to := l.master
	l.mu.Unlock()
	if to.IsZero() {
		return
	}
	if err := l.cfg.Node.SendProto(l.cfg.Self.ID, to, m); err != nil {
		l.log.Error("a message could not be encoded", "type", m.ProtoReflect().Descriptor().FullName(), "error", err)
	}
}

// Report implements agent.Link. Everything in it that a genuine master insists
// on is set: pid, and the same UUID twice (master.cpp, statusUpdate).
func (l *Link) Report(r agent.Report) {
	l.mu.Lock()
	id, ok := l.id, l.registered
	l.mu.Unlock()
	if !ok {
		return
	}
	status := convert.ToldStatus(r.Key.ID, id, &r.Status)
	status.ExecutorId = &mesosv1.ExecutorID{Value: new(cmp.Or(r.Executor, r.Key.ID))}
	l.send(&messages.StatusUpdateMessage{
		Update: &messages.StatusUpdate{
			FrameworkId: &mesosv1.FrameworkID{Value: &r.Key.Framework}, ExecutorId: status.ExecutorId, SlaveId: status.AgentId,
			Status: status, Timestamp: status.Timestamp, Uuid: status.Uuid, LatestState: mesosv1.TaskState(r.Latest).Enum(),
		},
		Pid: new(l.cfg.Self.String()),
	})
}

// ExecutorGone implements agent.Link: the master frees what it charged for the
// executor (master.cpp, exitedExecutor).
func (l *Link) ExecutorGone(e agent.ExecutorGone) {
	l.send(&messages.ExitedExecutorMessage{
		SlaveId: &mesosv1.AgentID{Value: new(l.AgentID())}, FrameworkId: &mesosv1.FrameworkID{Value: &e.Framework},
		ExecutorId: &mesosv1.ExecutorID{Value: &e.Executor}, Status: &e.Status,
	})
}

// ExecutorMessage implements agent.Link; the master passes it on.
func (l *Link) ExecutorMessage(e agent.ExecutorMessage) {
	l.send(&messages.ExecutorToFrameworkMessage{
		SlaveId: &mesosv1.AgentID{Value: new(l.AgentID())}, FrameworkId: &mesosv1.FrameworkID{Value: &e.Framework},
		ExecutorId: &mesosv1.ExecutorID{Value: &e.Executor}, Data: e.Data,
	})
}
