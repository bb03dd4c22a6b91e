package bench

import (
	"context"
	"errors"
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
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/store"
)

var quiet = slog.New(slog.DiscardHandler)

// cluster is a master and one virtual agent in this process, over loopback.
type cluster struct {
	opt    Options
	group  *errgroup.Group
	ctx    context.Context
	master *server.Server
	store  store.Store // the agent's
	agent  *running
}

// running is one life of the agent.
type running struct {
	runner *agent.Runner
	link   *link.Link
	self   libprocess.UPID
	stop   context.CancelFunc
	done   chan struct{}
}

// start brings a master and an agent up.
func start(ctx context.Context, g *errgroup.Group, o Options) (*cluster, error) {
	m, err := startMaster(ctx, g, store.NewMemory())
	if err != nil {
		return nil, err
	}
	state, err := o.Store()
	if err != nil {
		return nil, err
	}
	c := &cluster{opt: o, group: g, ctx: ctx, master: m, store: state}
	g.Go(func() error {
		<-ctx.Done()
		if c.agent != nil {
			<-c.agent.done
		}
		return state.Close()
	})
	return c, c.startAgent()
}

func startMaster(ctx context.Context, g *errgroup.Group, registry store.Store) (*server.Server, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	m, err := server.New(server.Config{Listener: l, Store: registry, Core: master.DefaultConfig(), Log: quiet})
	if err != nil {
		return nil, err
	}
	g.Go(func() error { return m.Run(ctx) })
	return m, nil
}

// startAgent begins a life of the agent on the cluster's store.
func (c *cluster) startAgent() error {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(c.ctx)
	cfg := agent.DefaultConfig()
	cfg.Owner, cfg.NewUUID, cfg.GC = c.opt.Owner, uuid.New, gc.Policy{Batch: 64}
	a := &running{stop: stop, done: make(chan struct{})}
	a.runner = agent.NewRunner(agent.Options{Core: cfg, Provider: c.opt.Provider, Store: c.store, Log: quiet, Workers: c.opt.Workers})
	node := libprocess.NewNode(libprocess.Config{Listener: l, Advertise: netip.AddrPort{}, Exited: func(u libprocess.UPID) { a.link.Exited(u) }})
	a.self = node.UPID("slave(1)")
	at := c.master.UPID()
	a.link = link.New(link.Config{
		Node: node, Self: a.self, Master: func(context.Context) (libprocess.UPID, error) { return at, nil },
		Hostname: "bench", Resources: plenty(), Version: "1.11.0", Store: c.store, Log: quiet,
	})
	c.agent = a
	parts, pctx := errgroup.WithContext(ctx)
	parts.Go(func() error { return node.Run(pctx) })
	parts.Go(func() error { return a.runner.Run(pctx, a.link) })
	parts.Go(func() error { return a.link.Run(pctx, a.runner) })
	c.group.Go(func() error {
		defer close(a.done)
		return parts.Wait()
	})
	return nil
}

// counters asks a master what has happened so far.
func counters(ctx context.Context, m *server.Server) (n master.Counters, err error) {
	err = m.View(ctx, func(core *master.Core) { n = core.Counters() })
	return n, err
}

func untilCounted(ctx context.Context, m *server.Server, done func(master.Counters) bool) error {
	var failed error
	err := until(ctx, func() bool {
		var n master.Counters
		n, failed = counters(ctx, m)
		return failed != nil || done(n)
	})
	return errors.Join(failed, err)
}

// newClient is a framework's side of a cluster.
func newClient(leader func() string, name string, failover time.Duration) *scheduler.Client {
	return scheduler.New(scheduler.Config{
		Framework: &mesosv1.FrameworkInfo{
			User: new("bench"), Name: &name, Roles: []string{"*"}, Checkpoint: new(true), FailoverTimeout: new(failover.Seconds()),
			Capabilities: []*mesosv1.FrameworkInfo_Capability{
				{Type: mesosv1.FrameworkInfo_Capability_MULTI_ROLE.Enum()}, {Type: mesosv1.FrameworkInfo_Capability_PARTITION_AWARE.Enum()},
			},
		},
		Master: func(context.Context) (string, error) { return leader(), nil }, Log: quiet,
	})
}

// plenty is a pool that is never the bound of a measurement: 5 000 hosts.
func plenty() resources.Resources {
	r, err := resources.Parse("cpus:320000;mem:1310720000;disk:10000000000")
	if err != nil {
		panic(err) // a constant
	}
	return r
}
