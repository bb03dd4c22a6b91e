package triton

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/mesopool/mesopool/agent"
	"github.com/mesopool/mesopool/endpoint"
	"github.com/mesopool/mesopool/endpoint/backend"
	"github.com/mesopool/mesopool/endpoint/cloudapi"
	"github.com/mesopool/mesopool/gc"
	"github.com/mesopool/mesopool/internal/uuid"
	bounds "github.com/mesopool/mesopool/provider/limit"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/store"
	"github.com/mesopool/mesopool/task"
)

// flaky is a simulated data center whose provisioning may hang for a while. It
// counts how often the containers of each name have really been started.
type flaky struct {
	*backend.Memory
	hang atomic.Int64  // nanoseconds
	gate chan struct{} // nil, or what provisioning waits for

	mu     sync.Mutex
	name   map[string]string               // of a container, by ID
	starts map[string]map[time.Time]string // by name
}

func newFlaky() *flaky {
	return &flaky{
		Memory: backend.NewMemory(backend.MemoryConfig{Catalog: shop(), Provision: 20 * time.Millisecond}),
		name:   map[string]string{}, starts: map[string]map[time.Time]string{},
	}
}

// Create is part of backend.Backend.
func (f *flaky) Create(ctx context.Context, s *backend.Spec) error {
	f.mu.Lock()
	f.name[s.ID] = s.Name
	f.mu.Unlock()
	if f.gate != nil {
		<-f.gate
	}
	select {
	case <-time.After(time.Duration(f.hang.Load())):
	case <-ctx.Done():
		return ctx.Err()
	}
	return f.Memory.Create(ctx, s)
}

// Notify is part of backend.Backend.
func (f *flaky) Notify(tell func(string, backend.State)) {
	f.Memory.Notify(func(id string, s backend.State) {
		f.mu.Lock()
		if name := f.name[id]; !s.Started.IsZero() {
			if f.starts[name] == nil {
				f.starts[name] = map[time.Time]string{}
			}
			f.starts[name][s.Started] = id
		}
		f.mu.Unlock()
		tell(id, s)
	})
}

// cuttable is a listener whose connections can all be cut.
type cuttable struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

func (c *cuttable) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.mu.Lock()
		c.conns = append(c.conns, conn)
		c.mu.Unlock()
	}
	return conn, err
}

func (c *cuttable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		conn.Close()
	}
	c.conns = nil
}

// framework is the agent's link: it acknowledges everything, once in a while
// twice, and remembers what it was told.
type framework struct {
	mu     sync.Mutex
	runner *agent.Runner
	heard  map[task.UUID]bool
	states map[string][]task.State
}

// Report is part of agent.Link.
func (f *framework) Report(r agent.Report) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.heard[r.Status.UUID] {
		f.heard[r.Status.UUID] = true
		f.states[r.Key.ID] = append(f.states[r.Key.ID], r.Status.State)
	}
	f.runner.Put(agent.Ack{Key: r.Key, UUID: r.Status.UUID})
}

// ExecutorGone is part of agent.Link.
func (*framework) ExecutorGone(agent.ExecutorGone)       {}
func (*framework) ExecutorMessage(agent.ExecutorMessage) {}

func (f *framework) last(id string) task.State {
	f.mu.Lock()
	defer f.mu.Unlock()
	if all := f.states[id]; len(all) > 0 {
		return all[len(all)-1]
	}
	return task.Staging
}

// stormy is an agent on a data center under faults.
type stormy struct {
	*rig
	t       *testing.T
	center  *flaky
	link    *framework
	options agent.Options
	api     atomic.Pointer[cloudapi.API]
	feed    *cuttable
	stop    func()
	names   []string
}

func newStormy(t *testing.T) *stormy {
	s := &stormy{t: t, center: newFlaky(), link: &framework{heard: map[task.UUID]bool{}, states: map[string][]task.State{}}}
	s.rig = newRigOn(t, s.center)
	s.rig.mem = s.center.Memory
	s.serveCloud()
	if err := s.cloud.Pull(t.Context(), s.acct, "app:1", "", discard{}); err != nil {
		t.Fatal(err)
	}
	s.options = agent.Options{
		Core: agent.Config{
			Owner: owner, NewUUID: uuid.New, KillGrace: 50 * time.Millisecond, LaunchTimeout: 2 * time.Minute, OrphanGrace: 300 * time.Millisecond,
			RetryMin: 20 * time.Millisecond, RetryMax: 200 * time.Millisecond, ResendMin: 100 * time.Millisecond, ResendMax: time.Second,
			GC: gc.Policy{MaxKept: 1000},
		},
		Provider: bounds.New(s.datacenter(), bounds.Options{Launches: 16, LaunchTimeout: 200 * time.Millisecond, CallTimeout: 2 * time.Second}),
		Store:    store.NewMemory(), Log: slog.New(slog.DiscardHandler),
	}
	s.start()
	return s
}

// serveCloud puts CloudAPI behind a listener that can be cut and a handler that
// can be changed.
func (s *stormy) serveCloud() {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	s.feed = &cuttable{Listener: l}
	s.throttle(false)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.api.Load().ServeHTTP(w, r) })}
	go srv.Serve(s.feed)
	s.t.Cleanup(func() { srv.Close(); s.feed.cut() })
	s.opt.Cloud.URL = "http://" + l.Addr().String()
}

func (s *stormy) throttle(on bool) {
	o := cloudapi.Options{Burst: 1000, Rate: 1000}
	if on {
		o = cloudapi.Options{Burst: 1, Rate: 0.1}
	}
	s.api.Store(cloudapi.New(s.cloud, o))
}

func (s *stormy) start() {
	ctx, cancel := context.WithCancel(context.Background())
	runner, done := agent.NewRunner(s.options), make(chan error, 1)
	s.link.mu.Lock()
	s.link.runner = runner
	s.link.mu.Unlock()
	runner.Put(agent.Joined{})
	go func() { done <- runner.Run(ctx, s.link) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	s.t.Cleanup(func() { s.stop() })
}

// crash ends the agent, whatever it is doing, and starts it again.
func (s *stormy) crash() {
	s.stop()
	s.start()
}

// ends are what the tasks do, and how that is told.
var ends = []struct {
	script string
	state  task.State
}{{"sleep infinity", task.Running}, {"sleep 0.1; exit 0", task.Finished}, {"sleep 0.1; exit 3", task.Failed}}

// launch asks for three tasks of each kind.
func (s *stormy) launch(phase string) {
	for i := range 3 * len(ends) {
		id := fmt.Sprintf("%s.%d.%d", phase, i%len(ends), i/len(ends))
		s.names = append(s.names, id)
		s.link.runner.Put(agent.Launch{Framework: agent.Framework{ID: "f", PartitionAware: true}, Spec: task.Spec{
			Key: task.Key{Framework: "f", ID: id}, Name: id, Image: "app:1", Command: task.Command{Shell: true, Value: ends[i%len(ends)].script},
			Resources: resources.NewScalar("mem", resources.Whole(100)),
		}})
	}
}

func (s *stormy) want(id string) task.State { return ends[id[strings.IndexByte(id, '.')+1]-'0'].state }

// settled waits until a condition holds, which it does when nothing was lost.
func (s *stormy) settled(what string, missing func() []string) {
	s.t.Helper()
	var left []string
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if left = missing(); len(left) == 0 {
			return
		}
	}
	s.t.Fatalf("%s: not after a minute: %v", what, left)
}

// wrong lists the tasks that are in another state than they should be.
func (s *stormy) wrong(want func(id string) task.State) []string {
	var all []string
	for _, id := range s.names {
		if got := s.link.last(id); got != want(id) {
			all = append(all, fmt.Sprintf("%s is %v, not %v", id, got, want(id)))
		}
	}
	return all
}

// TestStorm: an agent under all that goes wrong with a data center, crashes of
// its own included, loses no task, runs none twice and leaves nothing behind.
func TestStorm(t *testing.T) {
	s := newStormy(t)
	resp, err := s.datacenter().cli.ContainerCreate(t.Context(), &container.Config{Image: "app:1", Cmd: []string{"sleep", "infinity"}}, &container.HostConfig{}, nil, nil, "stranger")
	if err != nil {
		t.Fatal(err)
	}
	for _, storm := range []struct {
		name       string
		begin, end func()
	}{
		{"throttled", func() { s.throttle(true) }, func() { s.throttle(false) }}, // first: the list of packages is not known yet
		{"late-failure", func() { s.center.SetFaults(backend.Faults{Provision: 0.5}) }, func() { s.center.SetFaults(backend.Faults{}) }},
		{"hang", func() { s.center.hang.Store(int64(time.Second)) }, func() { s.center.hang.Store(0) }},
		{"given-up", func() { s.center.hang.Store(int64(300 * time.Millisecond)) }, func() { s.center.hang.Store(0) }},
		{"lost-answers", func() { s.server.SetMode(endpoint.Mode{LoseAnswer: 0.5}) }, func() { s.server.SetMode(endpoint.Mode{}) }},
		{"cut-feed", s.feed.cut, s.feed.cut},
		{"read-only", func() { s.server.SetMode(endpoint.Mode{ReadOnly: true}) }, func() { s.server.SetMode(endpoint.Mode{}) }},
		{"degraded", func() { s.server.SetMode(endpoint.Mode{Degraded: true}) }, func() { s.server.SetMode(endpoint.Mode{}) }},
	} {
		storm.begin()
		s.launch(storm.name)
		time.Sleep(400 * time.Millisecond) // the storm; what must hold does so however long it is
		s.crash()
		time.Sleep(400 * time.Millisecond)
		storm.end()
	}
	s.settled("tasks run or have ended as they should", func() []string { return s.wrong(s.want) })

	s.server.SetMode(endpoint.Mode{LoseAnswer: 0.3})
	for _, id := range s.names {
		if s.want(id) == task.Running {
			s.link.runner.Put(agent.Kill{Key: task.Key{Framework: "f", ID: id}})
		}
	}
	s.settled("all have ended", func() []string {
		return s.wrong(func(id string) task.State {
			if s.want(id) == task.Running {
				return task.Killed
			}
			return s.want(id)
		})
	})
	s.settled("their containers are gone", s.containers)
	if _, err := s.cloud.Container(s.acct, resp.ID); err != nil {
		t.Errorf("the account's other container: %v", err)
	}
	s.noneTwice()
}

// containers lists what is left, the stranger apart.
func (s *stormy) containers() []string {
	var left []string
	for _, c := range s.cloud.Containers(s.acct, nil) {
		if c.Name != "stranger" {
			left = append(left, c.Name)
		}
	}
	return left
}

// noneTwice: every task was started exactly once, and its end told once. What
// ends soon may never have been seen running.
func (s *stormy) noneTwice() {
	s.center.mu.Lock()
	defer s.center.mu.Unlock()
	if len(s.center.starts) != len(s.names) {
		s.t.Errorf("containers of %d names were started for %d tasks", len(s.center.starts), len(s.names))
	}
	for name, starts := range s.center.starts {
		if len(starts) != 1 {
			s.t.Errorf("%s was started %d times: %v", name, len(starts), starts)
		}
	}
	for id, states := range s.link.states {
		terminal := slices.IndexFunc(states, task.State.Terminal)
		if terminal != len(states)-1 || s.want(id) == task.Running && !slices.Contains(states, task.Running) {
			s.t.Errorf("%s was told as %v", id, states)
		}
	}
}

// TestProvisioningIsNotTold: a container is told when it is there, not before.
func TestProvisioningIsNotTold(t *testing.T) {
	center := newFlaky()
	center.gate = make(chan struct{})
	r := newRigOn(t, center)
	r.mem = center.Memory
	if err := r.cloud.Pull(t.Context(), r.acct, "app:1", "", discard{}); err != nil {
		t.Fatal(err)
	}
	d := r.datacenter()
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() {
		_, err := d.Launch(ctx, owner, "slow", spec("slow"))
		gone <- err
	}()
	for r.cloud.Usage(r.acct).Machines == 0 {
		time.Sleep(time.Millisecond)
	}
	all, err := d.cli.ContainerList(t.Context(), container.ListOptions{All: true})
	if err != nil || len(all) != 1 || !strings.HasPrefix(all[0].Status, "Provisioning") {
		t.Errorf("the data center lists %+v, %v", all, err)
	}
	if told, err := d.list(t.Context(), owner); err != nil || len(told) != 0 {
		t.Errorf("told: %+v, %v", told, err)
	}
	cancel()
	<-gone
	close(center.gate)
}
