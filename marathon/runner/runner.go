package runner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mesopool/mesopool/internal/loop"
	"github.com/mesopool/mesopool/marathon"
	"github.com/mesopool/mesopool/store"
	"github.com/mesopool/mesopool/task"
)

// Driver is what Marathon needs of a master: mesos/scheduler's Client is one.
// Its methods never block.
type Driver interface {
	Accept(offers []string, agent string, l task.Launch, refuse time.Duration)
	Decline(offers []string, refuse time.Duration)
	Kill(taskID, agent string, grace *time.Duration)
	Acknowledge(taskID, agent string, uuid task.UUID)
	Reconcile(tasks map[string]string)
	Revive()
	Suppress()
}

// Config is what a Runner works with.
type Config struct {
	Core  marathon.Config
	Store store.Store
	Log   *slog.Logger // nil: slog.Default

	// Fence is asked before anything leaves; its error ends Run, and then nothing
	// leaves any more. nil: this process cannot be deposed.
	Fence func() error

	// Secrets has the values of apps' secrets; nil: there are none, and apps that
	// name some wait.
	Secrets Secrets
}

// ErrStopped is what calls get after Run has returned.
var ErrStopped = errors.New("marathon: shutting down")

// Runner owns a marathon.Core. Its methods may be called from any goroutine.
type Runner struct {
	cfg    Config
	log    *slog.Logger
	driver Driver
	events *Bus
	checks *checker
	calls  *Callbacks
	saved  marathon.Recover

	inbox   *loop.Inbox[message]
	stopped chan struct{}
}

// message is an input with who waits for its answer, or a look at the core.
type message struct {
	in   marathon.Input
	done chan<- error
	view func(*marathon.Core)
}

// New loads what was saved and returns a runner that has not started.
func New(ctx context.Context, cfg Config) (*Runner, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	saved, err := load(ctx, cfg.Store)
	if err != nil {
		return nil, err
	}
	r := &Runner{cfg: cfg, log: cfg.Log, saved: saved, events: newBus(), inbox: loop.New[message](), stopped: make(chan struct{})}
	r.checks = newChecker(r)
	r.calls, err = loadCallbacks(ctx, cfg.Store, r.events, r.log)
	return r, err
}

// FrameworkID is the saved one, "" before the first subscription.
func (r *Runner) FrameworkID() string { return r.saved.FrameworkID }

// Events is where everything that happens is told.
func (r *Runner) Events() *Bus { return r.events }

// Callbacks are the URLs that events are posted to.
func (r *Runner) Callbacks() *Callbacks { return r.calls }

// Run works until ctx ends or the store fails.
func (r *Runner) Run(ctx context.Context, driver Driver) error {
	r.driver = driver
	defer close(r.stopped)
	core := marathon.NewCore(r.cfg.Core)
	r.log.Info("recovered", "apps", len(r.saved.Apps), "instances", len(r.saved.Instances), "deployments", len(r.saved.Deployments))
	if err := r.batch(ctx, core, []message{{in: r.saved}}); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return r.inbox.Run(ctx, core.Next, func(all []message) error { return r.batch(ctx, core, all) })
	})
	g.Go(func() error { return r.checks.run(ctx) })
	g.Go(func() error { return r.calls.run(ctx) })
	return g.Wait()
}

func (r *Runner) post(m message) { r.inbox.Put(m) }

// batch applies everything, commits, lets the effects leave, and then answers.
func (r *Runner) batch(ctx context.Context, core *marathon.Core, batch []message) error {
	fx, refused := apply(core, batch)
	ops, err := saveOps(fx)
	if err != nil {
		return err
	}
	if len(ops) > 0 {
		if err := r.cfg.Store.Commit(ctx, ops); err != nil {
			return fmt.Errorf("marathon: the state could not be saved, so nothing was done: %w", err)
		}
	}
	if err := r.fence(); err != nil {
		return err
	}
	for _, e := range fx {
		r.dispatch(e)
	}
	for n, m := range batch {
		if m.view != nil {
			m.view(core)
		}
		if m.done != nil {
			m.done <- refused[n]
		}
	}
	return nil
}

func (r *Runner) fence() error {
	if r.cfg.Fence == nil {
		return nil
	}
	return r.cfg.Fence()
}

// apply tells the core everything, and the time when something is due.
func apply(core *marathon.Core, batch []message) (fx []marathon.Effect, refused []error) {
	now := time.Now()
	refused = make([]error, len(batch))
	for n, m := range batch {
		if m.in != nil {
			fx, refused[n] = core.Apply(now, m.in, fx)
		}
	}
	if next := core.Next(); !next.IsZero() && !next.After(now) {
		fx, _ = core.Apply(now, marathon.Tick{}, fx) // is never refused
	}
	return core.Settle(now, fx), refused
}

func (r *Runner) dispatch(e marathon.Effect) {
	switch e := e.(type) {
	case marathon.Accept:
		r.driver.Accept(e.Offers, e.Agent, e.Launch, e.Refuse)
	case marathon.Decline:
		r.driver.Decline(e.Offers, e.Refuse)
	case marathon.Acknowledge:
		r.driver.Acknowledge(e.TaskID, e.Agent, e.UUID)
	case marathon.Kill:
		r.driver.Kill(e.TaskID, e.Agent, nil)
	case marathon.Reconcile:
		r.driver.Reconcile(e.Tasks)
	case marathon.Revive:
		r.driver.Revive()
	case marathon.Suppress:
		r.driver.Suppress()
	case marathon.Check:
		r.checks.put(r.checks.health(e))
	case marathon.AskSecrets:
		r.checks.put(r.secrets(e))
	case marathon.CheckReady:
		r.checks.put(r.checks.ready(e))
	case marathon.Measure:
		r.checks.put(r.checks.measure(e))
	case marathon.Event:
		r.events.publish(e)
	}
}

// Do carries a wish out and returns when it is saved, or refused.
func (r *Runner) Do(ctx context.Context, in marathon.Input) error {
	done := make(chan error, 1)
	r.post(message{in: in, done: done})
	return r.await(ctx, done)
}

// View looks at the core; look must only copy. What it has copied may be used
// only when there is no error: otherwise look may run later.
func (r *Runner) View(ctx context.Context, look func(*marathon.Core)) error {
	done := make(chan error, 1)
	r.post(message{view: look, done: done})
	return r.await(ctx, done)
}

func (r *Runner) await(ctx context.Context, done <-chan error) error {
	select {
	case err := <-done:
		return err
	case <-r.stopped:
		return ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Subscribed returns when the framework's ID is saved.
func (r *Runner) Subscribed(frameworkID, masterID string) error {
	r.log.Info("subscribed", "framework", frameworkID, "master", masterID)
	return r.Do(context.Background(), marathon.Subscribed{FrameworkID: frameworkID, MasterID: masterID})
}

// Offers hands offers on.
func (r *Runner) Offers(offers []task.Offer) { r.post(message{in: marathon.Offered{Offers: offers}}) }

// Rescinded needs nothing: offers are used or declined at once, and a launch on
// a rescinded one is answered with its failure.
func (r *Runner) Rescinded(string) {}

// Update hands a status on.
func (r *Runner) Update(taskID, agentID string, s task.Status) {
	r.post(message{in: marathon.Updated{TaskID: taskID, Agent: agentID, Status: s}})
}

// AgentLost needs nothing: every task of the agent is told of by its status.
func (r *Runner) AgentLost(string) {}

// Disconnected tells that the stream ended.
func (r *Runner) Disconnected() { r.post(message{in: marathon.Disconnected{}}) }
