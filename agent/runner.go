package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mesopool/mesopool/internal/loop"
	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/store"
	"github.com/mesopool/mesopool/task"
)

// Link is what the agent needs of its connection to a master.
type Link interface {
	// Report sends an update. It never blocks; a report may be lost or sent
	// twice, the core sends it again until it is acknowledged.
	Report(Report)

	// ExecutorGone tells that a pod has ended. It never blocks and may be lost: a
	// re-registration tells which there are.
	ExecutorGone(ExecutorGone)

	// ExecutorMessage takes a message to a framework. It never blocks and may be
	// lost, as in Mesos.
	ExecutorMessage(ExecutorMessage)
}

// Executors are the connections of frameworks' own executors. An executor that
// reads too slowly is cut off, and tells so by an Unsubscribe.
type Executors interface {
	// Send passes an event on. It never blocks. An event for a session that is
	// over is lost.
	Send(ToExecutor)
}

// Registry is told which tasks can be reached. A nil Registry is not told.
type Registry interface {
	// Announce says that a task can be reached; it never blocks.
	Announce(spec *task.Spec, c provider.Container)
	// Withdraw takes a task out; it returns when that has been told, or when
	// ctx ends, and then it is caught up later.
	Withdraw(ctx context.Context, key task.Key) error
	// AllKnown says that what was not announced by now is not there.
	AllKnown()
}

// Fetcher brings the files that tasks name by URI: *fetch.Fetcher is one.
type Fetcher interface {
	// Fetch returns the files as a tar stream whose names are relative to the
	// sandbox; the caller closes it. An error that trying again cannot mend is a
	// provider.ErrRejected.
	Fetch(ctx context.Context, uris []task.URI, user string) (io.ReadCloser, error)
}

// Archive keeps what containers wrote for a while after their removal.
type Archive interface {
	// Save keeps the output of a task, which open reads from its beginning.
	Save(ctx context.Context, key task.Key, open func() (provider.LogReader, error)) error
}

// Options is what a Runner works with.
type Options struct {
	Core      Config
	Provider  provider.Provider
	Store     store.Store
	Registry  Registry      // may be nil
	Fetcher   Fetcher       // nil: tasks with URIs are refused
	Archive   Archive       // nil: logs go with their containers
	Executors Executors     // nil: frameworks' own executors are refused
	Log       *slog.Logger  // nil: slog.Default
	Workers   int           // calls of the provider at a time; 0: 32
	Probes    int           // health probes at a time; 0: 32
	Withdraw  time.Duration // how long a stop waits for the registry; 0: 2s
}

// Runner is the shell around a Core. All its methods may be called from any
// goroutine.
type Runner struct {
	opt   Options
	log   *slog.Logger
	calls *callQueue
	probe *prober
	link  Link

	state   *writer
	inbox   *loop.Inbox[any] // Input or func(*Core)
	stopped chan struct{}
}

// NewRunner returns a runner that has not started.
func NewRunner(opt Options) *Runner {
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	if opt.Workers <= 0 {
		opt.Workers = 32
	}
	if opt.Probes <= 0 {
		opt.Probes = 32
	}
	if opt.Withdraw <= 0 {
		opt.Withdraw = 2 * time.Second
	}
	probe := newProber(opt.Provider)
	opt.Core.NoExec = opt.Core.NoExec || probe.exec == nil
	opt.Core.NoFetch = noFetch(&opt)
	if _, ok := provider.As[provider.Pods](opt.Provider); !ok && opt.Core.NoPods == "" {
		opt.Core.NoPods = "this agent's backend has no containers that share a network: launch the tasks one by one"
	}
	if opt.Executors == nil && opt.Core.NoExecutors == "" {
		opt.Core.NoExecutors = "this agent does not serve executors: give the task a command or a container instead"
	}
	return &Runner{
		opt: opt, log: opt.Log, calls: newCallQueue(opt.Workers), probe: probe,
		state: newWriter(), inbox: loop.New[any](), stopped: make(chan struct{}),
	}
}

// Put hands an input to the core. It never blocks.
func (r *Runner) Put(in Input) { r.inbox.Put(in) }

// Roster returns what the agent has, as of now.
func (r *Runner) Roster(ctx context.Context) (Roster, error) {
	return ask(ctx, r, (*Core).Roster)
}

// Executor looks a framework's own executor up.
func (r *Runner) Executor(ctx context.Context, framework, executor string) (ExecutorView, error) {
	return ask(ctx, r, func(c *Core) ExecutorView { return c.Executor(framework, executor) })
}

// ask has the loop answer a question about the core.
func ask[T any](ctx context.Context, r *Runner, question func(*Core) T) (T, error) {
	var none T
	answer := make(chan T, 1)
	r.inbox.Put(func(c *Core) { answer <- question(c) })
	select {
	case x := <-answer:
		return x, nil
	case <-r.stopped:
		return none, errors.New("agent: stopped")
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// Garbage says of each container that has ended why it goes or stays.
func (r *Runner) Garbage(ctx context.Context) ([]Disposal, error) {
	return ask(ctx, r, func(c *Core) []Disposal { return c.Garbage(time.Now()) })
}

// Run works until ctx ends or the store fails. Containers keep running.
func (r *Runner) Run(ctx context.Context, link Link) error {
	r.link = link
	defer close(r.stopped)
	core := NewCore(r.opt.Core)
	saved, err := loadState(ctx, r.opt.Store)
	if err != nil {
		return err
	}
	r.log.Info("recovered", "tasks", len(saved.Tasks), "frameworks", len(saved.Frameworks))
	if err := r.batch(ctx, core, []any{saved}); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return r.inbox.Run(ctx, core.Next, func(inputs []any) error { return r.batch(ctx, core, inputs) })
	})
	g.Go(func() error { return r.watch(ctx) })
	for range r.opt.Workers {
		g.Go(func() error { return r.work(ctx) })
	}
	for range r.opt.Probes {
		g.Go(func() error { r.probe.work(ctx, r.Put); return nil })
	}
	g.Go(func() error { <-ctx.Done(); r.calls.close(); r.probe.close(); return nil })
	return g.Wait()
}

// batch steps through the inputs, commits what the core wants saved, and only
// then lets everything else leave.
func (r *Runner) batch(ctx context.Context, core *Core, inputs []any) error {
	fx, views := step(core, inputs)
	ops, err := r.state.write(fx)
	if err != nil {
		return err
	}
	if len(ops) > 0 {
		if err := r.opt.Store.Commit(ctx, ops); err != nil {
			return fmt.Errorf("agent: the state could not be saved, so nothing was done: %w", err)
		}
	}
	for _, e := range fx {
		r.dispatch(ctx, e)
	}
	for _, view := range views {
		view(core)
	}
	return nil
}

// step tells the core everything, and the time when something is due.
func step(core *Core, inputs []any) (fx []Effect, views []func(*Core)) {
	now := time.Now()
	for _, in := range inputs {
		switch in := in.(type) {
		case Input:
			fx = core.Step(now, in, fx)
		case func(*Core):
			views = append(views, in)
		}
	}
	if next := core.Next(); !next.IsZero() && !next.After(now) {
		fx = core.Step(now, Tick{}, fx)
	}
	return fx, views
}

func (r *Runner) dispatch(ctx context.Context, e Effect) {
	switch e := e.(type) {
	case Report:
		r.log.Debug("report", "task", e.Key, "state", e.Status.State, "message", e.Status.Message)
		if r.link != nil {
			r.link.Report(e)
		}
	case ExecutorGone:
		if r.link != nil {
			r.link.ExecutorGone(e)
		}
	case ExecutorMessage:
		if r.link != nil {
			r.link.ExecutorMessage(e)
		}
	case ToExecutor:
		if r.opt.Executors != nil {
			r.opt.Executors.Send(e)
		}
	case Call:
		r.calls.put(ctx, e)
	case Cancel:
		if j := r.calls.cancel(e.Key); j != nil {
			r.Put(Done{Call: j.Call, Err: context.Canceled})
		}
	case Probe:
		r.probe.put(e)
	case Announce:
		if r.opt.Registry != nil {
			r.opt.Registry.Announce(e.Spec, e.Container)
		}
	case Withdraw:
		r.calls.put(ctx, Call{Key: e.Key, Withdraw: true})
	case AllKnown:
		if r.opt.Registry != nil {
			r.opt.Registry.AllKnown()
		}
	}
}

// watch feeds the provider's events; a broken stream is started again.
func (r *Runner) watch(ctx context.Context) error {
	pause := time.Second
	for ctx.Err() == nil {
		started := time.Now()
		r.Put(WatchStarted{})
		err := r.watchOnce(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(started) > time.Minute {
			pause = time.Second
		}
		r.log.Warn("the watch of the backend broke; starting over", "error", err, "in", pause)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, 30*time.Second)
	}
	return nil
}

func (r *Runner) watchOnce(ctx context.Context) error {
	for ev, err := range r.opt.Provider.Watch(ctx, r.opt.Core.Owner) {
		if err != nil {
			return err
		}
		r.Put(Seen{Event: ev})
	}
	return errors.New("the stream ended")
}

// work makes the provider's calls, one at a time per worker.
func (r *Runner) work(ctx context.Context) error {
	for {
		j, ok := r.calls.get()
		if !ok {
			return nil
		}
		if j.Withdraw {
			r.withdraw(ctx, j.Key)
		}
		if j.Op != OpNone {
			r.do(ctx, j)
		}
	}
}

// do makes one call; its answer is an input, unless the runner ends.
func (r *Runner) do(ctx context.Context, j *job) {
	container, err := r.make(j.ctx, j.Call)
	canceled := j.ctx.Err() != nil
	r.calls.done(j)
	if ctx.Err() != nil {
		return
	}
	if err != nil && !canceled && !errors.Is(err, provider.ErrNotFound) {
		r.log.Warn("backend call failed", "op", j.Op.String(), "task", j.Key.String(), "id", j.ID, "error", err)
	}
	r.Put(Done{Call: j.Call, Container: container, Err: err})
}

func (r *Runner) make(ctx context.Context, call Call) (provider.Container, error) {
	p := r.opt.Provider
	switch call.Op {
	case OpLaunch:
		return r.launch(ctx, call)
	case OpStop:
		return provider.Container{}, p.Stop(ctx, call.ID, call.Grace)
	case OpInspect:
		return p.Inspect(ctx, call.ID)
	default:
		if err := r.save(ctx, call); err != nil {
			return provider.Container{}, err
		}
		return provider.Container{}, p.Remove(ctx, call.ID)
	}
}

// saveTries is how often the removal of a container waits for its logs to be
// saved; then it goes without.
const saveTries = 3

// save keeps what a container wrote, before it is removed.
func (r *Runner) save(ctx context.Context, call Call) error {
	logger, ok := provider.As[provider.Logger](r.opt.Provider)
	if r.opt.Archive == nil || !ok {
		return nil
	}
	err := r.opt.Archive.Save(ctx, call.Key, func() (provider.LogReader, error) {
		return logger.Logs(ctx, call.ID, provider.LogOptions{Stdout: true, Stderr: true})
	})
	if err == nil || errors.Is(err, provider.ErrNotFound) {
		return nil
	}
	if call.Tries < saveTries {
		return fmt.Errorf("its logs could not be saved, so it stays for now: %w", err)
	}
	r.log.Warn("removed without its logs, which cannot be saved", "task", call.Key.String(), "id", call.ID, "error", err)
	return nil
}

func (r *Runner) withdraw(ctx context.Context, key task.Key) {
	if r.opt.Registry == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, r.opt.Withdraw)
	defer cancel()
	if err := r.opt.Registry.Withdraw(ctx, key); err != nil {
		r.log.Warn("not withdrawn from the registry yet; it is caught up later", "task", key.String(), "error", err)
	}
}
