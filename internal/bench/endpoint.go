package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mesopool/mesopool/agent"
	"github.com/mesopool/mesopool/endpoint"
	"github.com/mesopool/mesopool/endpoint/backend"
	"github.com/mesopool/mesopool/internal/uuid"
	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/provider/docker"
	"github.com/mesopool/mesopool/provider/limit"
	"github.com/mesopool/mesopool/provider/triton"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/store"
	"github.com/mesopool/mesopool/task"
)

// EndpointOptions describe a run of RunEndpoint. All must be above 0.
type EndpointOptions struct {
	Containers int           // of all tenants together
	Tenants    int           // each with an agent of its own
	Idle       time.Duration // how long the cluster is watched when nothing happens
	Progress   io.Writer     // nil: none
}

// EndpointResult is what a run measured.
type EndpointResult struct {
	Containers int           `json:"containers"`
	Tenants    int           `json:"tenants"`
	Launch     time.Duration `json:"launch_ns"`    // until all run and have been reported
	Inventory  time.Duration `json:"inventory_ns"` // until agents that start anew have seen and inspected everything
	IdleCPU    float64       `json:"idle_cpu"`     // share of one core, endpoint and agents together
	Usage      Usage         `json:"usage"`

	// What one more tenant with ten containers waits for an inventory of them and
	// for one inspection, in the middle: alone, and with all others' containers
	// there.
	Alone, Among Latency
}

// Latency of the small tenant's requests.
type Latency struct {
	Stock   time.Duration `json:"inventory_ns"`
	Inspect time.Duration `json:"inspect_ns"`
}

// fewContainers is what the small tenant has.
const fewContainers = 10

// RunEndpoint measures agents on a Triton-style endpoint with a simulated data
// center behind it, all in this process and over TLS on the loopback.
func RunEndpoint(ctx context.Context, o EndpointOptions) (r EndpointResult, err error) {
	b, err := openEndpoint(ctx, o)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	r.Containers, r.Tenants = o.Containers, o.Tenants
	if err := b.few(); err != nil {
		return r, err
	}
	steps := []struct {
		text string
		do   func(*EndpointResult) error
	}{
		{"one small tenant alone", func(r *EndpointResult) (err error) { r.Alone, err = b.ask(); return }},
		{"launching", b.launch},
		{"taking stock", b.takeStock},
		{"one small tenant among all", func(r *EndpointResult) (err error) { r.Among, err = b.ask(); return }},
		{"watching it idle", b.idle},
	}
	for _, step := range steps {
		report(Options{Name: "endpoint", Progress: o.Progress}, step.text)
		if err := step.do(&r); err != nil {
			return r, fmt.Errorf("%s: %w", step.text, err)
		}
	}
	r.Usage = usage()
	return r, nil
}

// endpointBench is an endpoint with its tenants.
type endpointBench struct {
	opt     EndpointOptions
	ctx     context.Context
	stop    context.CancelFunc
	group   *errgroup.Group
	dir     string
	cloud   *endpoint.Cloud
	host    string
	tenants []*tenant
	small   *triton.Datacenter
}

// tenant is an account with its agent: the agent's link and registry.
type tenant struct {
	center  *triton.Datacenter
	options agent.Options
	tasks   int

	runner *agent.Runner
	end    func() error
	up     atomic.Int64
	ended  atomic.Int64 // tasks that ended, which none should
	all    chan struct{}
	known  chan struct{}
}

func openEndpoint(ctx context.Context, o EndpointOptions) (*endpointBench, error) {
	dir, err := os.MkdirTemp("", "mesopool-bench-")
	if err != nil {
		return nil, err
	}
	b := &endpointBench{opt: o, dir: dir}
	b.group, b.ctx = errgroup.WithContext(ctx)
	b.ctx, b.stop = context.WithCancel(b.ctx)
	if err := b.serve(); err != nil {
		return nil, errors.Join(err, b.close())
	}
	for i := range o.Tenants {
		tasks := o.Containers / o.Tenants
		if i == 0 {
			tasks += o.Containers % o.Tenants
		}
		if err := b.tenant(fmt.Sprintf("tenant%d", i), tasks); err != nil {
			return nil, errors.Join(err, b.close())
		}
	}
	b.small, err = b.center("small")
	if err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *endpointBench) serve() error {
	var err error
	cfg := endpoint.Config{Dir: b.dir, Backend: backend.NewMemory(backend.MemoryConfig{}), Log: quiet}
	if b.cloud, err = endpoint.Open(b.ctx, cfg); err != nil {
		return err
	}
	s, err := endpoint.New(b.cloud, endpoint.Options{})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	b.host = "tcp://" + l.Addr().String()
	b.group.Go(func() error { return b.cloud.Run(b.ctx) })
	b.group.Go(func() error { return s.Serve(b.ctx, l) })
	return nil
}

// center makes an account and a client with its certificate.
func (b *endpointBench) center(login string) (*triton.Datacenter, error) {
	acct, err := b.cloud.Accounts().Add(login)
	if err != nil {
		return nil, err
	}
	certs := filepath.Join(b.dir, "certs-"+login)
	if err := b.cloud.Authority().WriteCerts(acct, certs); err != nil {
		return nil, err
	}
	return triton.New(triton.Options{Docker: docker.Options{Host: b.host, CertPath: certs, TLSVerify: true, Log: quiet}})
}

func (b *endpointBench) tenant(login string, tasks int) error {
	center, err := b.center(login)
	if err != nil {
		return err
	}
	cfg := agent.DefaultConfig()
	cfg.Owner, cfg.NewUUID = task.Owner{Cluster: login, Agent: "agent"}, uuid.New
	t := &tenant{center: center, tasks: tasks}
	t.options = agent.Options{
		Core: cfg, Provider: limit.New(center, limit.Options{Launches: 8, LaunchTimeout: time.Hour}), Store: store.NewMemory(), Registry: t, Log: quiet,
	}
	b.tenants = append(b.tenants, t)
	t.start(b.ctx)
	return nil
}

func (b *endpointBench) close() error {
	var all []error
	for _, t := range b.tenants {
		all = append(all, t.end(), t.center.Close())
	}
	if b.small != nil {
		all = append(all, b.small.Close())
	}
	b.stop()
	return errors.Join(append(all, b.group.Wait(), os.RemoveAll(b.dir))...)
}

// start begins a life of the tenant's agent.
func (t *tenant) start(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	t.known, t.all = make(chan struct{}), make(chan struct{})
	t.runner = agent.NewRunner(t.options)
	t.runner.Put(agent.Joined{})
	go func() { done <- t.runner.Run(ctx, t) }()
	t.end = func() error {
		cancel()
		err := <-done
		done <- nil // for a second call
		if errors.Is(err, context.Canceled) {
			return nil
		}
		return err
	}
}

// Report is part of agent.Link.
func (t *tenant) Report(r agent.Report) {
	t.runner.Put(agent.Ack{Key: r.Key, UUID: r.Status.UUID})
	switch {
	case r.Status.State.Terminal():
		t.ended.Add(1)
	case r.Status.State == task.Running && t.up.Add(1) == int64(t.tasks):
		close(t.all)
	}
}

// ExecutorGone is part of agent.Link.
func (*tenant) ExecutorGone(agent.ExecutorGone) {}

// ExecutorMessage is part of agent.Link.
func (*tenant) ExecutorMessage(agent.ExecutorMessage) {}

// Announce is part of agent.Registry.
func (*tenant) Announce(*task.Spec, provider.Container) {}

// Withdraw is part of agent.Registry.
func (*tenant) Withdraw(context.Context, task.Key) error { return nil }

// AllKnown is part of agent.Registry.
func (t *tenant) AllKnown() { close(t.known) }

func benchSpec(id string) task.Spec {
	return task.Spec{
		Key: task.Key{Framework: "bench", ID: id}, Name: "bench", Image: "bench:1", Command: task.Command{Value: "sleep", Args: []string{"infinity"}},
		Resources: resources.NewScalar("mem", resources.Whole(128)),
	}
}

// few makes the small tenant's containers.
func (b *endpointBench) few() error {
	for i := range fewContainers {
		id := fmt.Sprintf("few-%d", i)
		if _, err := b.small.Launch(b.ctx, smallOwner, id, benchSpec(id)); err != nil {
			return err
		}
	}
	return nil
}

var smallOwner = task.Owner{Cluster: "small", Agent: "agent"}

// ask measures the small tenant's requests: a look at everything, and at one.
func (b *endpointBench) ask() (l Latency, err error) {
	const rounds = 200
	var stocks, looks []time.Duration
	for i := range rounds {
		began := time.Now()
		if err := b.stock(); err != nil {
			return l, err
		}
		stocks = append(stocks, time.Since(began))
		began = time.Now()
		if _, err := b.small.Inspect(b.ctx, fmt.Sprintf("few-%d", i%fewContainers)); err != nil {
			return l, err
		}
		looks = append(looks, time.Since(began))
	}
	slices.Sort(stocks)
	slices.Sort(looks)
	return Latency{Stock: stocks[rounds/2], Inspect: looks[rounds/2]}, nil
}

// stock is one look at all of the small tenant's containers.
func (b *endpointBench) stock() error {
	seen := 0
	for ev, err := range b.small.Watch(b.ctx, smallOwner) {
		if err != nil {
			return err
		}
		if ev.Synced {
			break
		}
		seen++
	}
	if seen != fewContainers {
		return fmt.Errorf("the small tenant sees %d containers and has %d", seen, fewContainers)
	}
	return nil
}

// launch starts all tasks of all tenants.
func (b *endpointBench) launch(r *EndpointResult) error {
	began := time.Now()
	for _, t := range b.tenants {
		for i := range t.tasks {
			t.runner.Put(agent.Launch{Framework: agent.Framework{ID: "bench"}, Spec: benchSpec(fmt.Sprintf("t%d", i))})
		}
	}
	for _, t := range b.tenants {
		if err := b.await(t.all); err != nil {
			return err
		}
	}
	r.Launch = time.Since(began)
	return b.whole()
}

// takeStock ends all agents and starts them again: they know nothing of what
// runs until they have seen it all.
func (b *endpointBench) takeStock(r *EndpointResult) error {
	for _, t := range b.tenants {
		if err := t.end(); err != nil {
			return err
		}
	}
	began := time.Now()
	for _, t := range b.tenants {
		t.start(b.ctx)
	}
	for _, t := range b.tenants {
		if err := b.await(t.known); err != nil {
			return err
		}
	}
	r.Inventory = time.Since(began)
	return b.whole()
}

func (b *endpointBench) await(what <-chan struct{}) error {
	select {
	case <-what:
		return nil
	case <-b.ctx.Done():
		return b.ctx.Err()
	}
}

// whole fails if a task has ended.
func (b *endpointBench) whole() error {
	for i, t := range b.tenants {
		if n := t.ended.Load(); n > 0 {
			return fmt.Errorf("%d tasks of tenant %d ended, which none should", n, i)
		}
	}
	return nil
}

func (b *endpointBench) idle(r *EndpointResult) error {
	before, began := cpu(), time.Now()
	ctx, cancel := context.WithTimeout(b.ctx, b.opt.Idle)
	defer cancel()
	<-ctx.Done()
	if b.ctx.Err() != nil {
		return b.ctx.Err()
	}
	r.IdleCPU = float64(cpu()-before) / float64(time.Since(began))
	return b.whole()
}

// WriteEndpoint prints the rounds as a table.
func WriteEndpoint(w io.Writer, rounds []EndpointResult) {
	if len(rounds) == 0 {
		return
	}
	first := rounds[0]
	fmt.Fprintf(w, "%s\n%d containers of %d tenants, an agent each\n", machine(), first.Containers, first.Tenants)
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	line := func(what, figure string) { fmt.Fprintf(t, "%s\t%s\n", what, figure) }
	span := func(value func(EndpointResult) time.Duration) string { return spread(rounds, value, durationText) }
	line("all launched and reported", span(func(r EndpointResult) time.Duration { return r.Launch }))
	line("inventory of agents that start anew", span(func(r EndpointResult) time.Duration { return r.Inventory }))
	line("CPU when idle, of one core", spread(rounds, func(r EndpointResult) float64 { return r.IdleCPU }, percent))
	line("memory in use, all in one process", spread(rounds, func(r EndpointResult) int64 { return int64(r.Usage.Live) }, bytesText))
	line("most memory ever", spread(rounds, func(r EndpointResult) int64 { return int64(r.Usage.Peak) }, bytesText))
	line("a tenant of 10 takes stock, alone", span(func(r EndpointResult) time.Duration { return r.Alone.Stock }))
	line("a tenant of 10 takes stock, among all", span(func(r EndpointResult) time.Duration { return r.Among.Stock }))
	line("it inspects one, alone", span(func(r EndpointResult) time.Duration { return r.Alone.Inspect }))
	line("it inspects one, among all", span(func(r EndpointResult) time.Duration { return r.Among.Inspect }))
	t.Flush()
}
