package bench

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/master/server"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/store"
	"github.com/mesopool/mesopool/task"
)

// MasterOptions are how large a cluster to show a master.
type MasterOptions struct {
	Agents     int
	Frameworks int
	Tasks      int
	Progress   io.Writer
}

// MasterResult is what a master took for a cluster of many agents.
type MasterResult struct {
	Agents     int `json:"agents"`
	Frameworks int `json:"frameworks"`
	Tasks      int `json:"tasks"`

	Registration time.Duration `json:"registration_ns"` // all agents, empty
	Allocation   time.Duration `json:"allocation_ns"`   // from SUBSCRIBE until every agent was offered
	Launches     float64       `json:"launches_per_second"`
	AcceptP50    time.Duration `json:"accept_p50_ns"` // from ACCEPT to the launch message at the agent
	AcceptP99    time.Duration `json:"accept_p99_ns"`
	Changes      float64       `json:"state_changes_per_second"` // an update to the framework, and its acknowledgement back
	State        Answer        `json:"state"`                    // GET /state
	GetState     Answer        `json:"get_state"`                // GET_STATE of the operator API, protobuf
	Failover     time.Duration `json:"failover_ns"`              // of a new master, until all agents are back with their tasks
	ReadStall    time.Duration `json:"read_stall_ns"`            // the longest wait for the loop while the two states were read
	Stall        time.Duration `json:"stall_ns"`                 // the longest wait for the loop in all of this
	PerTask      int64         `json:"bytes_per_task"`           // live memory of the master, without its registry
}

// Answer is how long an answer took, to its last byte, and how large it is.
type Answer struct {
	Took    time.Duration `json:"took_ns"` // the middle of several
	Longest time.Duration `json:"longest_ns"`
	Bytes   int64         `json:"bytes"`
}

// masterBench is one run.
type masterBench struct {
	opt    MasterOptions
	group  *errgroup.Group
	fleet  *fleet
	result MasterResult

	registry store.Store // of one master after the other
	server   *server.Server
	address  atomic.Pointer[string]
	stop     context.CancelFunc
	stall    *stall

	frameworks []*framework
	mu         sync.Mutex
	sent       map[string]time.Time
	took       []time.Duration
}

// RunMaster measures a master with simulated agents and real v1 frameworks.
func RunMaster(ctx context.Context, o MasterOptions) (MasterResult, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, gctx := errgroup.WithContext(ctx)
	b := &masterBench{
		opt: o, group: g, registry: store.NewMemory(), sent: map[string]time.Time{},
		result: MasterResult{Agents: o.Agents, Frameworks: o.Frameworks, Tasks: o.Tasks},
	}
	var err error
	if b.fleet, err = newFleet(o.Agents, 2+o.Tasks/o.Agents, b.arrived); err != nil {
		return b.result, err
	}
	g.Go(func() error { return b.fleet.run(gctx) })
	g.Go(func() error {
		defer cancel()
		return b.drive(gctx)
	})
	err = g.Wait()
	return b.result, err
}

func (b *masterBench) drive(ctx context.Context) error {
	if err := b.elect(ctx); err != nil {
		return err
	}
	for _, step := range []struct {
		text string
		do   func(context.Context) error
	}{
		{"agents register", b.register},
		{"everything is offered", b.allocate},
		{"tasks start", b.launch},
		{"states change", b.change},
		{"the state is read", b.read},
		{"another master takes over", b.failover},
		{"the master is weighed", b.weigh},
	} {
		report(Options{Name: "master", Progress: b.opt.Progress}, step.text)
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("bench: %s: %w", step.text, err)
		}
	}
	return nil
}

// elect starts a master, in the place of the one before.
func (b *masterBench) elect(ctx context.Context) error {
	if b.stop != nil {
		b.stop()
	}
	ctx, b.stop = context.WithCancel(ctx)
	var err error
	if b.server, err = startMaster(ctx, b.group, b.registry); err != nil {
		return err
	}
	at := b.server.UPID().Addr.String()
	b.address.Store(&at)
	b.stall = watchLoop(ctx, b.group, b.server)
	return nil
}

// leader is where frameworks find the master.
func (b *masterBench) leader() string { return *b.address.Load() }

func (b *masterBench) register(ctx context.Context) error {
	begin := time.Now()
	b.fleet.join(b.server.UPID())
	if err := b.allRegistered(ctx); err != nil {
		return err
	}
	b.result.Registration = time.Since(begin)
	return nil
}

func (b *masterBench) allRegistered(ctx context.Context) error {
	return until(ctx, func() bool { return b.fleet.registered.Load() == int64(b.opt.Agents) })
}

// allocate has a framework count the agents that it is offered.
func (b *masterBench) allocate(ctx context.Context) error {
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	c := &census{agents: map[string]bool{}, want: b.opt.Agents, all: make(chan struct{})}
	client := newClient(b.leader, "census", 0)
	b.group.Go(func() error { return client.Run(ctx, c) })
	begin := time.Now()
	if err := wait(ctx, c.all); err != nil {
		return err
	}
	b.result.Allocation = time.Since(begin)
	return nil
}

// launch has all frameworks fill the cluster at the same time.
func (b *masterBench) launch(ctx context.Context) error {
	begin := time.Now()
	for n := range b.opt.Frameworks {
		f := newFramework(task.Spec{Name: "bench", Image: "bench", Resources: share()}, b.opt.Tasks/b.opt.Frameworks, 1000)
		f.prefix, f.accepted = fmt.Sprintf("bench-%d-", n), b.accepted
		c := newClient(b.leader, f.prefix, time.Hour)
		f.driver = c
		b.frameworks = append(b.frameworks, f)
		b.group.Go(func() error { return c.Run(ctx, f) })
	}
	for _, f := range b.frameworks {
		if err := wait(ctx, f.allUp); err != nil {
			return err
		}
	}
	b.result.Launches = float64(b.opt.Tasks) / time.Since(begin).Seconds()
	b.mu.Lock()
	defer b.mu.Unlock()
	slices.Sort(b.took)
	b.result.AcceptP50, b.result.AcceptP99 = b.took[len(b.took)/2], b.took[len(b.took)*99/100]
	b.sent = nil
	return nil
}

// accepted notes that an ACCEPT leaves its framework.
func (b *masterBench) accepted(specs []task.Spec) {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range specs {
		b.sent[specs[i].Key.ID] = now
	}
}

// arrived notes that an agent was told to launch.
func (b *masterBench) arrived(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.took = append(b.took, time.Since(b.sent[id]))
}

// change reports every task once more; a round ends when all are acknowledged.
func (b *masterBench) change(ctx context.Context) error {
	before, err := counters(ctx, b.server)
	if err != nil {
		return err
	}
	begin := time.Now()
	b.fleet.updateAll()
	err = untilCounted(ctx, b.server, func(n master.Counters) bool {
		return n.Acknowledgements >= before.Acknowledgements+uint64(b.opt.Tasks)
	})
	b.result.Changes = float64(b.opt.Tasks) / time.Since(begin).Seconds()
	return err
}

// read asks for the whole state, as a dashboard and as an operator's tool do.
func (b *masterBench) read(ctx context.Context) error {
	b.noteStall()
	var err error
	if b.result.State, err = ask(ctx, http.MethodGet, "http://"+b.leader()+"/state", "application/json", ""); err != nil {
		return err
	}
	if b.result.GetState, err = ask(ctx, http.MethodPost, "http://"+b.leader()+"/api/v1", "application/x-protobuf", `{"type":"GET_STATE"}`); err != nil {
		return err
	}
	b.result.ReadStall = b.noteStall()
	return nil
}

// noteStall takes over the longest wait since the last time.
func (b *masterBench) noteStall() time.Duration {
	d := b.stall.take()
	b.result.Stall = max(b.result.Stall, d)
	return d
}

// asked is how often a question is asked.
const asked = 5

// reader takes what comes in large pieces: the cost of reading is not the
// master's.
var reader = &http.Client{Transport: &http.Transport{ReadBufferSize: 256 << 10}}

// ask asks a question several times.
func ask(ctx context.Context, method, url, accept, body string) (Answer, error) {
	var took []time.Duration
	var size int64
	for range asked {
		begin := time.Now()
		n, err := askOnce(ctx, method, url, accept, body)
		if err != nil {
			return Answer{}, err
		}
		took, size = append(took, time.Since(begin)), n
	}
	slices.Sort(took)
	return Answer{Took: took[asked/2], Longest: took[asked-1], Bytes: size}, nil
}

func askOnce(ctx context.Context, method, url, accept, body string) (int64, error) {
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", accept)
	r.Header.Set("Accept-Encoding", "identity")
	resp, err := reader.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answered %s", url, resp.Status)
	}
	return n, err
}

// failover gives the agents another master, which knows them from the registry.
func (b *masterBench) failover(ctx context.Context) error {
	b.noteStall()
	begin := time.Now()
	if err := b.elect(ctx); err != nil {
		return err
	}
	b.fleet.join(b.server.UPID())
	if err := b.allRegistered(ctx); err != nil {
		return err
	}
	b.result.Failover = time.Since(begin)
	b.noteStall()
	return nil
}

// weigh compares the memory with and without the master, everybody else having
// forgotten the tasks.
func (b *masterBench) weigh(context.Context) error {
	b.fleet.forget()
	for _, f := range b.frameworks {
		f.forget()
	}
	with := usage().Live
	b.stop()
	b.server = nil
	time.Sleep(100 * time.Millisecond) // its goroutines end
	b.result.PerTask = (int64(with) - int64(usage().Live)) / int64(max(1, b.opt.Tasks))
	return nil
}

// share is what a task of the master's benchmark needs.
func share() resources.Resources {
	r, err := resources.Parse("cpus:1;mem:1024")
	if err != nil {
		panic(err) // a constant
	}
	return r
}

// census is a framework that only counts who is offered.
type census struct {
	agents map[string]bool
	want   int
	all    chan struct{}
}

// Offers implements scheduler.Handler.
func (c *census) Offers(offers []task.Offer) {
	before := len(c.agents)
	for _, o := range offers {
		c.agents[o.Agent] = true
	}
	if before < c.want && len(c.agents) == c.want {
		close(c.all)
	}
}

// Subscribed implements scheduler.Handler.
func (c *census) Subscribed(string, string) error { return nil }

// Update implements scheduler.Handler.
func (c *census) Update(string, string, task.Status) {}

// Rescinded implements scheduler.Handler.
func (c *census) Rescinded(string) {}

// AgentLost implements scheduler.Handler.
func (c *census) AgentLost(string) {}

// Disconnected implements scheduler.Handler.
func (c *census) Disconnected() {}

// stall is the longest time that the master's loop kept somebody waiting.
type stall struct {
	mu  sync.Mutex
	max time.Duration
}

// watchLoop asks the loop again and again.
func watchLoop(ctx context.Context, g *errgroup.Group, m *server.Server) *stall {
	s := &stall{}
	g.Go(func() error {
		for ctx.Err() == nil {
			begin := time.Now()
			if m.View(ctx, func(*master.Core) {}) != nil {
				return nil
			}
			s.note(time.Since(begin))
			time.Sleep(time.Millisecond)
		}
		return nil
	})
	return s
}

func (s *stall) note(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.max = max(s.max, d)
}

func (s *stall) take() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.max
	s.max = 0
	return d
}

func wait(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-done:
		return nil
	}
}

func until(ctx context.Context, done func() bool) error {
	for !done() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}
