package bench

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mesopool/mesopool/agent"
	"github.com/mesopool/mesopool/gc"
	"github.com/mesopool/mesopool/internal/uuid"
	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/master/server"
	"github.com/mesopool/mesopool/mesos/libprocess"
	"github.com/mesopool/mesopool/mesos/link"
	"github.com/mesopool/mesopool/mesos/scheduler"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/resources"
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
	Progress io.Writer // nil: none
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
	f.driver = c
	g.Go(func() error { return c.Run(gctx, f) })
	g.Go(func() error {
		defer cancel()
		return drive(gctx, f, o)
	})
	if err := g.Wait(); err != nil {
		return Result{}, err
	}
	if err := removed(context.WithoutCancel(ctx), o); err != nil {
		return Result{}, err
	}
	return f.result(o.Name), nil
}

// drive waits for all tasks to run, and then for all to be gone.
func drive(ctx context.Context, f *framework, o Options) error {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			report(o, fmt.Sprintf("%d of %d running", f.progress(), o.Tasks))
			continue
		case <-f.allUp:
		}
		break
	}
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

func report(o Options, text string) {
	if o.Progress != nil {
		fmt.Fprintf(o.Progress, "\r%-60s", o.Name+": "+text)
	}
}

// start brings a master and an agent up and returns a framework's client.
func start(ctx context.Context, g *errgroup.Group, o Options) (*scheduler.Client, error) {
	quiet := slog.New(slog.DiscardHandler)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	core := master.DefaultConfig()
	m, err := server.New(server.Config{Listener: l, Store: store.NewMemory(), Core: core, Log: quiet})
	if err != nil {
		return nil, err
	}
	g.Go(func() error { return m.Run(ctx) })
	if err := startAgent(ctx, g, o, m.UPID(), quiet); err != nil {
		return nil, err
	}
	return scheduler.New(scheduler.Config{
		Framework: &mesosv1.FrameworkInfo{
			User: new("bench"), Name: new("bench"), Roles: []string{"*"}, Checkpoint: new(true),
			Capabilities: []*mesosv1.FrameworkInfo_Capability{
				{Type: mesosv1.FrameworkInfo_Capability_MULTI_ROLE.Enum()}, {Type: mesosv1.FrameworkInfo_Capability_PARTITION_AWARE.Enum()},
			},
		},
		Master: func(context.Context) (string, error) { return m.UPID().Addr.String(), nil }, Log: quiet,
	}), nil
}

func startAgent(ctx context.Context, g *errgroup.Group, o Options, at libprocess.UPID, log *slog.Logger) error {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	state, err := o.Store()
	if err != nil {
		return err
	}
	cfg := agent.DefaultConfig()
	cfg.Owner, cfg.NewUUID, cfg.GC = o.Owner, uuid.New, gc.Policy{Batch: 64}
	run := agent.NewRunner(agent.Options{Core: cfg, Provider: o.Provider, Store: state, Log: log, Workers: o.Workers})
	var lnk *link.Link
	node := libprocess.NewNode(libprocess.Config{Listener: l, Advertise: netip.AddrPort{}, Exited: func(u libprocess.UPID) { lnk.Exited(u) }})
	lnk = link.New(link.Config{
		Node: node, Self: node.UPID("slave(1)"), Master: func(context.Context) (libprocess.UPID, error) { return at, nil },
		Hostname: "bench", Resources: plenty(), Version: "1.11.0", Store: state, Log: log,
	})
	g.Go(func() error { return node.Run(ctx) })
	g.Go(func() error { return run.Run(ctx, lnk) })
	g.Go(func() error {
		defer state.Close()
		return lnk.Run(ctx, run)
	})
	return nil
}

// plenty is a pool that is never the bound of a measurement.
func plenty() resources.Resources {
	r, err := resources.Parse("cpus:1000000;mem:1000000000;disk:1000000000")
	if err != nil {
		panic(err) // a constant
	}
	return r
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
