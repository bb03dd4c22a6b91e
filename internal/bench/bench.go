package bench

import (
	"context"
	"fmt"
	"io"
	"runtime/pprof"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/store"
	"github.com/mesopool/mesopool/task"
)

// Options are what to measure.
type Options struct {
	Name     string
	Provider provider.Provider
	Owner    task.Owner
	Spec     task.Spec // without key and resources
	Tasks    int
	InFlight int // launches at a time
	Workers  int // calls of the provider at a time
	Store    func() (store.Store, error)
	Idle     time.Duration // how long the running tasks are watched afterwards; 0: not
	Restart  bool          // the agent is restarted with all tasks running
	Leave    bool          // the containers stay: the provider ends with the process
	Progress io.Writer     // nil: none
	Heap     io.Writer     // gets a heap profile of all running tasks, for go tool pprof; nil: none
}

// Run measures one whole cluster in this process, over loopback, and takes
// everything down again.
func Run(ctx context.Context, o Options) (Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	o.Spec.Resources = one()
	f := newFramework(o.Spec, o.Tasks, o.InFlight)
	g, gctx := errgroup.WithContext(ctx)
	c, err := start(gctx, g, o)
	if err != nil {
		return Result{}, err
	}
	client := newClient(func() string { return c.master.UPID().Addr.String() }, "bench", 0)
	f.driver = client
	var r Result
	g.Go(func() error { return client.Run(gctx, f) })
	g.Go(func() (err error) {
		defer cancel()
		r, err = drive(gctx, c, f)
		return err
	})
	if err := g.Wait(); err != nil || o.Leave {
		return r, err
	}
	return r, removed(context.WithoutCancel(ctx), o)
}

// drive waits for all tasks to run, looks at them as the options say, and ends
// them.
func drive(ctx context.Context, c *cluster, f *framework) (Result, error) {
	before := cpu()
	if err := allUp(ctx, c, f); err != nil {
		return Result{}, err
	}
	r := f.result(c.opt.Name)
	r.Acknowledged = time.Since(f.first)
	r.CPUPerTask = (cpu() - before) / time.Duration(max(1, r.Tasks))
	r.Usage = usage()
	if c.opt.Heap != nil {
		if err := pprof.WriteHeapProfile(c.opt.Heap); err != nil {
			return r, fmt.Errorf("the heap profile: %w", err)
		}
	}
	if c.opt.Idle > 0 {
		report(c.opt, fmt.Sprintf("watching %d tasks for %v", r.Tasks, c.opt.Idle))
		r.Idle = idle(ctx, c.opt.Idle)
	}
	if c.opt.Restart {
		report(c.opt, "restarting the agent")
		var err error
		if r.Recovery, err = c.restartAgent(ctx, r.Tasks); err != nil {
			return r, err
		}
	}
	if c.opt.Leave {
		return r, nil
	}
	return r, allDown(ctx, c.opt, f)
}

// allUp waits until every task runs and its updates are acknowledged: STARTING
// and RUNNING.
func allUp(ctx context.Context, c *cluster, f *framework) error {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			report(c.opt, fmt.Sprintf("%d of %d running", f.progress(), c.opt.Tasks))
			continue
		case <-f.allUp:
		}
		break
	}
	updates := uint64(2 * f.progress())
	return untilCounted(ctx, c.master, func(n master.Counters) bool { return n.Acknowledgements >= updates })
}

func allDown(ctx context.Context, o Options, f *framework) error {
	if f.killAll() == 0 {
		return nil
	}
	report(o, "ending the tasks")
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-f.allDown:
		return nil
	}
}

// idle is the share of one core that is used while nothing happens.
func idle(ctx context.Context, d time.Duration) float64 {
	before, begin := cpu(), time.Now()
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
	return float64(cpu()-before) / float64(time.Since(begin))
}

func report(o Options, text string) {
	if o.Progress != nil {
		fmt.Fprintf(o.Progress, "\r%-60s", o.Name+": "+text)
	}
}

// removed takes away whatever of the owner's is left.
func removed(ctx context.Context, o Options) error {
	report(o, "removing the containers")
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for ev, err := range o.Provider.Watch(ctx, o.Owner) {
		if err != nil {
			return err
		}
		if ev.Synced {
			return nil
		}
		if ev.Container.State == provider.StateUp {
			if err := o.Provider.Stop(ctx, ev.Container.ID, 0); err != nil {
				return err
			}
		}
		for n := 0; ; n++ {
			err := o.Provider.Remove(ctx, ev.Container.ID)
			if err == nil {
				break
			}
			if n == 100 {
				return err
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	return nil
}
