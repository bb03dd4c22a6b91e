package agent

import (
	"cmp"
	"slices"
	"time"

	"github.com/mesopool/mesopool/gc"
	"github.com/mesopool/mesopool/internal/recent"
	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// Config is how a Core behaves.
type Config struct {
	Owner         task.Owner
	NewUUID       func() task.UUID // for status updates
	KillGrace     time.Duration    // for tasks that name none
	LaunchTimeout time.Duration    // a launch that does not succeed for so long ends as TASK_FAILED
	LaunchRetry   time.Duration    // so does one that fails with an answer each time, after this; 0: LaunchTimeout
	NoExec        bool             // the backend runs no further commands in a container
	NoFetch       string           // why URIs cannot be fetched here; "": they can
	NoPods        string           // why tasks cannot share a network here; "": they can
	NoExecutors   string           // why frameworks' own executors cannot run here; "": they can
	Registration  time.Duration    // an executor that does not connect for so long after its start is ended
	Recovery      time.Duration    // so is one that does not connect again after a restart of the agent
	OrphanGrace   time.Duration    // a container of ours without a record is stopped after this
	RetryMin      time.Duration    // first pause between tries of a call, doubled up to RetryMax
	RetryMax      time.Duration
	ResendMin     time.Duration // first pause between sends of an update, doubled up to ResendMax
	ResendMax     time.Duration
	GC            gc.Policy
}

// DefaultConfig has Mesos' times (slave/constants.hpp) where Mesos has one.
func DefaultConfig() Config {
	return Config{
		KillGrace: 5 * time.Second, LaunchTimeout: 10 * time.Minute, LaunchRetry: 2 * time.Minute, OrphanGrace: time.Minute,
		Registration: time.Minute, Recovery: 15 * time.Minute,
		RetryMin: 500 * time.Millisecond, RetryMax: 30 * time.Second,
		ResendMin: 10 * time.Second, ResendMax: 10 * time.Minute,
		GC: gc.Policy{Keep: [3]time.Duration{gc.Succeeded: 5 * time.Minute, gc.Failed: time.Hour, gc.Killed: 5 * time.Minute}, MaxKept: 1000},
	}
}

// Core is the agent's brain. It is not safe for concurrent use.
type Core struct {
	cfg        Config
	tasks      map[task.Key]*row
	pods       map[task.Key][]*row // tasks by framework and executor
	frameworks map[string]*framework
	orphans    map[string]*row // by container ID: ours by label, without a record
	gc         gc.Queue
	kept       map[string]kept // by container ID: those that gc has
	completed  []Completed     // at most maxCompleted
	endings    Counts
	amounts    *recent.Values[resources.Resources] // that tasks have asked for
	refusals   map[task.Reason]uint64              // tasks that did not run here, by why
	wakes      wakes
	drain      *DrainConfig // nil: not draining
	joined     bool
	synced     bool
	epoch      int // counts the watches
}

type framework struct {
	Framework
	tasks int
}

// row is a task (or an orphan) with its three variables: want, seen, and the
// queue of updates.
type row struct {
	Record
	*extra
	key task.Key

	epoch    int // of the watch that told it last
	failures int
	tryAt    time.Time // no call before

	resends  int
	resendAt time.Time

	deadline time.Time // when the task must have ended
	check    *checker  // nil before the container is up, or without a health check
	checkAt  time.Time // of the next probe

	orphan    bool
	seen      provider.State
	inFlight  Op
	again     bool // ask again when the call in flight is done
	look      bool // an inspection must say what became of the container
	announced bool
	addressed bool // it was announced with an address
}

// NewCore returns a core without tasks.
func NewCore(cfg Config) *Core {
	return &Core{
		cfg: cfg, tasks: map[task.Key]*row{}, pods: map[task.Key][]*row{}, frameworks: map[string]*framework{},
		orphans: map[string]*row{}, kept: map[string]kept{}, refusals: map[task.Reason]uint64{}, amounts: recent.New(resources.Resources.Equal),
	}
}

// Step tells the core one fact and appends what must be done about it.
func (c *Core) Step(now time.Time, in Input, fx []Effect) []Effect {
	switch in := in.(type) {
	case Recover:
		return c.recover(now, in, fx)
	case Launch:
		return c.launch(now, in, fx)
	case LaunchGroup:
		return c.launchGroup(now, in, fx)
	case ShutdownExecutor:
		return c.shutdownExecutor(now, in, fx)
	case Subscribe:
		return c.subscribe(now, in, fx)
	case Unsubscribe:
		return c.unsubscribe(in, fx)
	case ExecutorUpdate:
		return c.executorUpdate(now, in, fx)
	case FrameworkMessage:
		return c.frameworkMessage(in, fx)
	case ExecutorSaid:
		return c.executorSaid(in, fx)
	case Refuse:
		return c.refuse(now, in, fx)
	case Kill:
		return c.kill(now, in, fx)
	case Ack:
		return c.ack(now, in, fx)
	case ShutdownFramework:
		return c.shutdownFramework(now, in, fx)
	case UpdateFramework:
		return c.updateFramework(now, in, fx)
	case Joined:
		return c.join(now, in, fx)
	case Parted:
		c.joined = false
		return fx
	case WatchStarted:
		c.epoch++
		return fx
	case Seen:
		return c.see(now, in, fx)
	case Done:
		return c.done(now, in, fx)
	case Probed:
		return c.probed(now, in, fx)
	case Drain:
		return c.startDrain(now, in, fx)
	case Tick:
		return c.tick(now, fx)
	}
	return fx
}

// Next is when a Tick would do something; the zero time means not before
// another input.
func (c *Core) Next() time.Time {
	next := c.gc.Next(c.cfg.GC)
	if at := c.wakes.next(); !at.IsZero() && (next.IsZero() || at.Before(next)) {
		next = at
	}
	return next
}

func (c *Core) tick(now time.Time, fx []Effect) []Effect {
	for r := c.wakes.pop(now); r != nil; r = c.wakes.pop(now) {
		fx = c.wake(now, r, fx)
	}
	return c.collect(now, fx)
}

func (c *Core) wake(now time.Time, r *row, fx []Effect) []Effect {
	if due(r.resendAt, now) {
		fx = c.resend(now, r, fx)
	}
	if due(r.deadline, now) {
		fx = c.expire(now, r, fx)
	}
	if due(r.checkAt, now) {
		fx = c.probe(r, fx)
	}
	if due(r.watchAt, now) {
		fx = c.watch(r, fx)
	}
	if due(r.connectBy, now) {
		fx = c.notConnected(now, r, fx)
	}
	return c.advance(now, r, fx)
}

// collect asks for the removal of the containers that are due.
func (c *Core) collect(now time.Time, fx []Effect) []Effect {
	for _, id := range c.gc.Due(c.cfg.GC, now) {
		fx = append(fx, c.removal(id))
	}
	return fx
}

// sorted returns the rows in a repeatable order.
func (c *Core) sorted() []*row {
	rows := make([]*row, 0, len(c.tasks))
	for _, r := range c.tasks {
		rows = append(rows, r)
	}
	slices.SortFunc(rows, func(a, b *row) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.key.Framework, b.key.Framework), cmp.Compare(a.key.ID, b.key.ID))
	})
	return rows
}

func (c *Core) framework(f Framework, fx []Effect) (*framework, []Effect) {
	known := c.frameworks[f.ID]
	if known == nil {
		known = &framework{Framework: f}
		c.frameworks[f.ID] = known
		return known, append(fx, SaveFramework{ID: f.ID, Framework: &f})
	}
	return known, fx
}

// partitionAware tells whether the framework of a task understands the finer
// states; unknown frameworks get the old one.
func (c *Core) partitionAware(id string) bool {
	f := c.frameworks[id]
	return f != nil && f.PartitionAware
}

func (c *Core) add(r *row) {
	c.share(r)
	c.tasks[r.key] = r
	c.joinPod(r)
	if f := c.frameworks[r.key.Framework]; f != nil {
		f.tasks++
	}
}

// drop forgets a task and, with its last one, the framework.
func (c *Core) drop(r *row, fx []Effect) []Effect {
	delete(c.tasks, r.key)
	c.partPod(r)
	r.sleep()
	fx = c.endDrain(append(fx, Save{Key: r.key}))
	f := c.frameworks[r.key.Framework]
	if f == nil {
		return fx
	}
	if f.tasks--; f.tasks <= 0 {
		delete(c.frameworks, f.ID)
		fx = append(fx, SaveFramework{ID: f.ID})
	}
	return fx
}
