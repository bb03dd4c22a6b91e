package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mesopool/mesopool/internal/loop"
	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/mesos/libprocess"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/store"
)

// Server is a Mesos master. Its methods may be called from any goroutine.
type Server struct {
	cfg     Config
	log     *slog.Logger
	node    *libprocess.Node
	self    *mesosv1.MasterInfo
	started time.Time
	elected time.Time // set before it leads

	inbox     *loop.Inbox[any] // master.Command, request or func(*master.Core)
	stopped   chan struct{}
	leading   chan struct{} // closed when this master leads
	registry  registry
	agents    agentTable
	observers observers
	snapshot  snapshotCache
	tally     tally
	auth      authentications
	drivers   sync.WaitGroup // whose streams are served

	life    context.Context // of what goes on without a request
	endLife context.CancelFunc
}

// New returns a server that has not started.
func New(cfg Config) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, log: cfg.Log, started: time.Now(), inbox: loop.New[any](), stopped: make(chan struct{}), leading: make(chan struct{})}
	s.life, s.endLife = context.WithCancel(context.Background())
	s.registry.init()
	s.node = libprocess.NewNode(libprocess.Config{
		Listener: cfg.Listener, Dial: cfg.Dial, Advertise: cfg.Advertise, HTTP: s.routes(), Exited: s.exited, ErrorLog: cfg.Log,
	})
	s.agents.init(s.node)
	s.auth.init()
	s.node.Handle(authenticator, s.authenticationStep)
	s.self = s.masterInfo()
	s.node.Handle(masterActor, s.receive)
	return s, nil
}

// ID returns the master's UUID as text.
func (s *Server) ID() string { return s.cfg.ID }

// UPID returns the master's address for agents.
func (s *Server) UPID() libprocess.UPID { return s.node.UPID(masterActor) }

// Run recovers the agents that the store knows and serves until ctx ends, then
// returns nil. Where there is an election it waits for that first. An error is
// that of the store, of the listener or of the election.
func (s *Server) Run(ctx context.Context) error {
	defer s.drivers.Wait()
	defer close(s.stopped)
	g, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, s.endLife)()
	if s.cfg.Election != nil {
		g.Go(func() error { return s.node.Run(ctx) })
		if s.awaitElection(ctx, g.Go) != nil {
			return g.Wait()
		}
	}
	core := master.NewCore(s.cfg.Core)
	if err := s.recover(ctx, core); err != nil {
		s.cfg.Listener.Close()
		g.Go(func() error { return err })
		return g.Wait()
	}
	s.elected = time.Now()
	close(s.leading)
	g.Go(func() error {
		return s.inbox.Run(ctx, core.Next, func(inputs []any) error { return s.takeAll(ctx, core, inputs) })
	})
	if s.cfg.Election == nil {
		g.Go(func() error { return s.node.Run(ctx) })
	}
	return g.Wait()
}

// recover tells the core of the agents from before the start.
func (s *Server) recover(ctx context.Context, core *master.Core) error {
	agents, err := loadAgents(ctx, s.cfg.Store)
	if err != nil {
		return err
	}
	settings, err := loadSettings(ctx, s.cfg.Store)
	if err != nil {
		return err
	}
	batch := []any{settings}
	for i := range agents {
		s.registry.setAgent(&agents[i])
		batch = append(batch, master.Recover{Agent: agents[i]})
	}
	s.log.Info("recovered", "agents", len(agents), "master", s.cfg.ID)
	return s.batch(ctx, core, batch)
}

// request is a command whose sender waits until it is done.
type request struct {
	cmd  master.Command
	done chan<- error
}

// put hands a command to the core. It never blocks.
func (s *Server) put(cmd master.Command) { s.inbox.Put(cmd) }

var errStopped = errors.New("the master has stopped")

// do hands a command to the core and returns when its effects have left.
func (s *Server) do(ctx context.Context, cmd master.Command) error {
	done := make(chan error, 1)
	s.inbox.Put(request{cmd, done})
	select {
	case err := <-done:
		return err
	case <-s.stopped:
		return errStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

// View calls f with the core, between two batches. f must return soon and keep
// nothing that is not immutable.
func (s *Server) View(ctx context.Context, f func(*master.Core)) error {
	done := make(chan struct{})
	s.inbox.Put(func(c *master.Core) { f(c); close(done) })
	select {
	case <-done:
		return nil
	case <-s.stopped:
		return errStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

// maxBatch bounds how long the first of a batch waits for the last.
const maxBatch = 2048

// takeAll applies what has come in, and whatever is due.
func (s *Server) takeAll(ctx context.Context, core *master.Core, inputs []any) error {
	for first := true; first || len(inputs) > 0; first = false {
		n := min(len(inputs), maxBatch)
		if err := s.batch(ctx, core, inputs[:n]); err != nil {
			return err
		}
		inputs = inputs[n:]
	}
	return nil
}

// answered is a request and what became of it.
type answered struct {
	done chan<- error
	err  error
}

// round is what one batch leaves to do.
type round struct {
	fx      []master.Effect
	answers []answered
	views   []func(*master.Core)
	touched []string // frameworks whose connection may have changed
}

// batch applies the inputs, commits what must be durable, and only then lets
// everything else leave.
func (s *Server) batch(ctx context.Context, core *master.Core, inputs []any) error {
	r := s.apply(core, inputs)
	if err := s.commit(ctx, r.fx); err != nil {
		return err
	}
	for _, e := range r.fx {
		s.dispatch(e)
	}
	s.registry.refresh(core, r.touched)
	for _, a := range r.answers {
		a.done <- a.err
	}
	for _, view := range r.views {
		view(core)
	}
	return nil
}

func (s *Server) apply(core *master.Core, inputs []any) *round {
	r := &round{}
	now := time.Now()
	for _, in := range inputs {
		switch in := in.(type) {
		case func(*master.Core):
			r.views = append(r.views, in)
		case request:
			r.answers = append(r.answers, answered{in.done, s.applyOne(core, now, in.cmd, r)})
		case master.Command:
			s.applyOne(core, now, in, r)
		}
	}
	if next := core.Next(); !next.IsZero() && !next.After(now) {
		s.applyOne(core, now, master.Tick{}, r)
		r.touched = append(r.touched, s.registry.away()...)
	}
	return r
}

// applyOne: a refusal has changed nothing; most are races that the protocol
// expects.
func (s *Server) applyOne(core *master.Core, now time.Time, cmd master.Command, r *round) error {
	var err error
	r.fx, err = core.Apply(now, cmd, r.fx)
	r.touched = append(r.touched, frameworksOf(cmd)...)
	if _, pong := cmd.(master.Pong); !pong { // readers see nothing of it
		s.snapshot.changed()
	}
	if err != nil {
		s.log.Debug("not done", "command", fmt.Sprintf("%T", cmd), "because", err)
	}
	return err
}

// frameworksOf names the frameworks that a command may connect, disconnect,
// make known or forget.
func frameworksOf(cmd master.Command) []string {
	switch cmd := cmd.(type) {
	case master.Disconnect:
		return []string{cmd.Framework}
	case master.Teardown:
		return []string{cmd.Framework}
	case master.ReregisterAgent:
		ids := make([]string, len(cmd.Frameworks))
		for i := range cmd.Frameworks {
			ids[i] = cmd.Frameworks[i].ID
		}
		return ids
	}
	return nil
}

func (s *Server) commit(ctx context.Context, fx []master.Effect) error {
	var ops []store.Op
	for _, e := range fx {
		op, ok, err := storeOp(e)
		if err != nil {
			return err
		}
		if ok {
			ops = append(ops, op)
		}
	}
	if len(ops) == 0 {
		return nil
	}
	if err := s.cfg.Store.Commit(ctx, ops); err != nil {
		return fmt.Errorf("server: the changes could not be saved, so nothing was done: %w", err)
	}
	return nil
}

func (s *Server) dispatch(e master.Effect) {
	switch e := e.(type) {
	case master.ToFramework:
		s.toFramework(e)
	case master.ToAgent:
		s.agents.send(e, s.log, s.pingTimeout())
	case master.CloseStream:
		s.registry.closeStream(e.Stream)
	case master.Noted:
		s.observers.tell(e.Note)
	case master.Persist:
		s.registry.persisted(e)
	case master.Watch:
		s.watch(e)
	case master.Unwatch:
		s.agents.unwatch(e)
	}
}

func (s *Server) pingTimeout() time.Duration { return s.cfg.Core.PingTimeout() }

// snapshotCache shares one snapshot among readers.
type snapshotCache struct {
	version atomic.Uint64

	mu   sync.Mutex
	last *master.Snapshot
	of   uint64 // the version that last shows
	at   time.Time
	cost time.Duration // for which it held up the loop
	tag  uint64        // names last, for readers who have it already
}

// snapshotAge is how old a snapshot may be while things change. Of a cluster so
// large that taking one is slow it may be older, so that readers never take
// more than a small part of the loop's time.
const (
	snapshotAge  = 100 * time.Millisecond
	snapshotPart = 20
)

func (c *snapshotCache) fresh(version uint64) bool {
	return c.last != nil && (c.of == version || time.Since(c.at) < max(snapshotAge, snapshotPart*c.cost))
}

// expire makes the next reader see what an operator has just done.
func (c *snapshotCache) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = nil
}

func (c *snapshotCache) changed() { c.version.Add(1) }

// Snapshot returns what the master knows, nothing unless it leads, mostly not older than 100 ms. Readers share it
// and must not change it.
func (s *Server) Snapshot(ctx context.Context) (*master.Snapshot, error) {
	if !s.leads() {
		return &master.Snapshot{}, nil
	}
	c := &s.snapshot
	c.mu.Lock()
	defer c.mu.Unlock()
	version := c.version.Load()
	if c.fresh(version) {
		return c.last, nil
	}
	var snap *master.Snapshot
	err := s.View(ctx, func(core *master.Core) {
		start := time.Now()
		snap = core.Collect()
		c.cost = time.Since(start)
	})
	if err != nil {
		return nil, fmt.Errorf("server: snapshot: %w", err)
	}
	snap.Finish()
	c.last, c.of, c.at = snap, version, time.Now()
	c.tag++
	return snap, nil
}

// Visible is Snapshot with only what the one may see whose request, to a page of
// Config.Pages, the context is of.
func (s *Server) Visible(ctx context.Context) (*master.Snapshot, error) {
	snap, err := s.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	return s.viewer(ctx).snapshot(snap), nil
}

// tag names a snapshot that is still the newest, "" for others.
func (s *Server) tag(snap *master.Snapshot) string {
	c := &s.snapshot
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last != snap {
		return ""
	}
	return fmt.Sprintf(`W/"%s-%d"`, s.cfg.ID, c.tag)
}
