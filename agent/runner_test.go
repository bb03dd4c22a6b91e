package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/provider/memory"
	"github.com/mesopool/mesopool/store"
	"github.com/mesopool/mesopool/task"
)

// spy tells the test of calls; before, unless nil, may hold one up.
type spy struct {
	provider.Provider
	before func(ctx context.Context, op, what string)

	mu    sync.Mutex
	calls []string
}

func (s *spy) told(ctx context.Context, op, what string) {
	if s.before != nil {
		s.before(ctx, op, what)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, op+" "+what)
}

func (s *spy) list() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.calls...)
}

func (s *spy) Launch(ctx context.Context, o task.Owner, name string, x task.Spec) (provider.Container, error) {
	s.told(ctx, "launch", x.Key.ID)
	return s.Provider.Launch(ctx, o, name, x)
}

func (s *spy) Stop(ctx context.Context, id string, grace time.Duration) error {
	s.told(ctx, "stop", id)
	return s.Provider.Stop(ctx, id, grace)
}

// master is a Link that acknowledges what it takes and outlives the runners.
type master struct {
	t *testing.T

	mu     sync.Mutex
	runner *Runner
	deaf   bool // does not acknowledge
	heard  map[task.UUID]bool
	states map[string][]task.State
	last   map[string]task.Status
	gone   []string // executors
	said   []string // by executors
}

func newMaster(t *testing.T) *master {
	return &master{t: t, heard: map[task.UUID]bool{}, states: map[string][]task.State{}, last: map[string]task.Status{}}
}

func (m *master) Report(r Report) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.heard[r.Status.UUID] {
		m.heard[r.Status.UUID] = true
		m.states[r.Key.ID] = append(m.states[r.Key.ID], r.Status.State)
		m.last[r.Key.ID] = r.Status
	}
	if !m.deaf {
		m.runner.Put(Ack{Key: r.Key, UUID: r.Status.UUID})
	}
}

func (m *master) ExecutorGone(e ExecutorGone) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gone = append(m.gone, e.Executor)
}

func (m *master) ExecutorMessage(e ExecutorMessage) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.said = append(m.said, string(e.Data))
}

func (m *master) with(r *Runner) {
	m.mu.Lock()
	m.runner = r
	m.mu.Unlock()
	r.Put(Joined{})
}

func (m *master) setDeaf(deaf bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.deaf = deaf
}

func (m *master) history(id string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for _, s := range m.states[id] {
		out = append(out, short(s))
	}
	return strings.Join(out, " ")
}

func (m *master) status(id string) task.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last[id]
}

// running is a runner under way.
type live struct {
	*Runner
	cancel context.CancelFunc
	done   chan error
}

func run(o Options, m *master) *live {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	r := NewRunner(o)
	ctx, cancel := context.WithCancel(context.Background())
	l := &live{r, cancel, make(chan error, 1)}
	m.with(r)
	go func() { l.done <- r.Run(ctx, m) }()
	return l
}

func (l *live) stop(t *testing.T) {
	t.Helper()
	l.cancel()
	if err := <-l.done; err != nil {
		t.Fatalf("Run: %v", err)
	}
}

func (l *live) launch(ids ...string) {
	for _, id := range ids {
		l.Put(Launch{Framework: aware, Spec: spec(id)})
	}
}

func (l *live) kill(ids ...string) {
	for _, id := range ids {
		l.Put(Kill{Key: key(id)})
	}
}

// Core configurations number updates anew after a restart; UUIDs must not.
var uuids = struct {
	mu   sync.Mutex
	next func() task.UUID
}{next: counter()}

func coreConfig() Config {
	cfg := testConfig()
	cfg.NewUUID = func() task.UUID {
		uuids.mu.Lock()
		defer uuids.mu.Unlock()
		return uuids.next()
	}
	return cfg
}

func ids(n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf("t%d", i))
	}
	return out
}

func openStores(t *testing.T) map[string]func(t *testing.T) store.Store {
	t.Helper()
	return map[string]func(t *testing.T) store.Store{
		"memory": func(*testing.T) store.Store { return store.NewMemory() },
		"bolt": func(t *testing.T) store.Store {
			s, err := store.OpenBolt(filepath.Join(t.TempDir(), "state"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			return s
		},
	}
}

// However often and whenever the agent restarts, nothing is lost or doubled.
func TestRestartMidFlight(t *testing.T) {
	for name, open := range openStores(t) {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			synctest.Test(t, func(t *testing.T) { restartMidFlight(t, s) })
		})
	}
}

func restartMidFlight(t *testing.T, s store.Store) {
	data := memory.New(memory.Config{
		Latency: memory.Span{Max: 3 * time.Second}, CallLatency: memory.Span{Max: time.Second}, ExitLatency: memory.Span{Max: time.Second},
	})
	m := newMaster(t)
	all := ids(30)
	o := Options{Core: coreConfig(), Provider: data, Store: s, Workers: 4}
	r := run(o, m)
	r.launch(all[:20]...)
	for i := range 12 {
		time.Sleep(time.Duration(i+1) * 211 * time.Millisecond) // what came in just before a stop may be lost
		r.stop(t)
		r = run(o, m)
		if i == 2 {
			r.launch(all[20:]...)
		}
	}
	time.Sleep(time.Minute)
	for _, id := range all {
		if got := m.history(id); got != "STARTING RUNNING" {
			t.Errorf("%s: %s", id, got)
		}
	}
	r.kill(all...)
	for i := range 6 {
		time.Sleep(time.Duration(i+1) * 173 * time.Millisecond)
		r.stop(t)
		r = run(o, m)
		r.kill(all...)
	}
	time.Sleep(10 * time.Minute)
	for _, id := range all {
		if got := m.history(id); !strings.HasPrefix(got, "STARTING RUNNING KILLING KILLED") {
			t.Errorf("%s: %s", id, got)
		}
	}
	data.Do(func(c *memory.Core, _ time.Time) {
		if d := c.Doubles(); len(d) > 0 || c.Len() > 0 {
			t.Errorf("doubles %v, %d containers left", d, c.Len())
		}
	})
	r.stop(t)
	if saved, err := loadState(context.Background(), s); err != nil || len(saved.Tasks)+len(saved.Frameworks) > 0 {
		t.Errorf("still saved: %+v, error %v", saved, err)
	}
}

// failing is a store that ends amid the work.
type failing struct {
	store.Store
	commits, after int
}

func (f *failing) Commit(ctx context.Context, ops []store.Op) error {
	if f.commits++; f.commits > f.after {
		return errors.New("no space left on device")
	}
	return f.Store.Commit(ctx, ops)
}

func TestNothingLeavesThatIsNotSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &spy{Provider: memory.New(memory.Config{})}
		m := newMaster(t)
		r := run(Options{Core: coreConfig(), Provider: s, Store: &failing{Store: store.NewMemory(), after: 0}}, m)
		r.launch("a", "b")
		err := <-r.done
		if err == nil || !strings.Contains(err.Error(), "no space left") || !strings.Contains(err.Error(), "nothing was done") {
			t.Errorf("Run: %v", err)
		}
		if got := s.list(); len(got) > 0 || m.history("a") != "" {
			t.Errorf("calls %v, reports %q", got, m.history("a"))
		}
		if _, err := r.Roster(t.Context()); err == nil {
			t.Error("a runner that has stopped has a roster")
		}
	})
}

func TestUnreadableStateIsTold(t *testing.T) {
	s := store.NewMemory()
	if err := s.Commit(t.Context(), []store.Op{{Key: "agent/framework/f1", Value: []byte("{")}}); err != nil {
		t.Fatal(err)
	}
	err := NewRunner(Options{Core: coreConfig(), Store: s}).Run(t.Context(), newMaster(t))
	if err == nil || !strings.Contains(err.Error(), "agent/framework/f1") {
		t.Errorf("Run: %v", err)
	}
}

func TestStopsOvertakeLaunches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		s := &spy{Provider: memory.New(memory.Config{}), before: func(_ context.Context, op, what string) {
			if op == "launch" && what != "first" {
				<-gate
			}
		}}
		m := newMaster(t)
		r := run(Options{Core: coreConfig(), Provider: s, Store: store.NewMemory(), Workers: 1}, m)
		r.launch("first")
		synctest.Wait()
		r.launch(ids(5)...)
		synctest.Wait()
		r.kill("first")
		synctest.Wait()
		close(gate)
		synctest.Wait()
		got := s.list()
		if len(got) != 7 || got[1] != "launch t0" || !strings.HasPrefix(got[2], "stop ") {
			t.Errorf("calls: %q", got)
		}
		if got := m.history("first"); got != "STARTING RUNNING KILLING KILLED" {
			t.Errorf("first: %s", got)
		}
		r.stop(t)
	})
}

// registry notes what it is told in the spy's list of calls.
type registry struct {
	s    *spy
	hang bool
}

func (r registry) Announce(s *task.Spec, c provider.Container) {
	r.s.told(context.Background(), "announce", s.Key.ID+" "+strings.Join(c.Addresses, ","))
}

func (r registry) Withdraw(ctx context.Context, k task.Key) error {
	r.s.told(ctx, "withdraw", k.ID)
	if r.hang {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func (r registry) AllKnown() { r.s.told(context.Background(), "all", "known") }

func TestWithdrawComesBeforeTheStop(t *testing.T) {
	for hang, delay := range map[bool]time.Duration{false: 0, true: 700 * time.Millisecond} {
		t.Run(fmt.Sprintf("hang=%v", hang), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var stopped time.Time
				s := &spy{Provider: memory.New(memory.Config{}), before: func(_ context.Context, op, _ string) {
					if op == "stop" {
						stopped = time.Now()
					}
				}}
				r := run(Options{
					Core: coreConfig(), Provider: s, Store: store.NewMemory(), Registry: registry{s, hang}, Withdraw: 700 * time.Millisecond,
				}, newMaster(t))
				synctest.Wait()
				r.launch("t")
				synctest.Wait()
				killed := time.Now()
				r.kill("t")
				time.Sleep(10 * time.Second)
				r.stop(t)
				diff(t, "calls", []string{"all known", "launch t", "announce t 10.64.0.2", "withdraw t", "stop 000000000001"}, s.list())
				if got := stopped.Sub(killed); got != delay {
					t.Errorf("the stop came after %v, want %v", got, delay)
				}
			})
		})
	}
}

// A task that ended by itself is withdrawn too, once.
func TestWithdrawAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &spy{Provider: memory.New(memory.Config{})}
		r := run(Options{Core: coreConfig(), Provider: s, Store: store.NewMemory(), Registry: registry{s, false}}, newMaster(t))
		x := spec("t")
		x.Env = []task.Label{{Key: "MESOPOOL_SIM_RUN", Value: "5s"}}
		r.Put(Launch{Framework: fw, Spec: x})
		time.Sleep(time.Minute)
		r.stop(t)
		if got := strings.Join(s.list(), "; "); strings.Count(got, "withdraw t") != 1 {
			t.Errorf("calls: %s", got)
		}
	})
}

func TestRosterWhileRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := memory.New(memory.Config{Latency: memory.Span{Min: time.Second, Max: 2 * time.Second}})
		m := newMaster(t)
		r := run(Options{Core: coreConfig(), Provider: data, Store: store.NewMemory()}, m)
		var readers sync.WaitGroup
		stop := make(chan struct{})
		for range 4 {
			readers.Go(func() {
				for {
					select {
					case <-stop:
						return
					case <-time.After(50 * time.Millisecond):
					}
					roster, err := r.Roster(t.Context())
					if err != nil {
						t.Error(err)
					}
					for _, x := range roster.Tasks { // reads all that the core might still write
						_ = fmt.Sprintf("%+v %+v %+v", *x.Spec, x.History, x.Pending)
					}
				}
			})
		}
		r.launch(ids(20)...)
		time.Sleep(5 * time.Second)
		if got, err := r.Roster(t.Context()); err != nil || len(got.Tasks) != 20 || len(got.Frameworks) != 1 {
			t.Errorf("roster: %d tasks, error %v", len(got.Tasks), err)
		}
		r.kill(ids(20)...)
		time.Sleep(5 * time.Second)
		close(stop)
		readers.Wait()
		if got, err := r.Roster(t.Context()); err != nil || len(got.Tasks) != 0 || got.Kept != 20 {
			t.Errorf("roster: %+v, error %v", got, err)
		}
		r.stop(t)
	})
}

// A broken watch is started again; what happened meanwhile is found out.
func TestWatchStartsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := memory.New(memory.Config{})
		m := newMaster(t)
		r := run(Options{Core: coreConfig(), Provider: data, Store: store.NewMemory()}, m)
		r.launch("a", "b", "c")
		synctest.Wait()
		data.Do(func(c *memory.Core, now time.Time) {
			c.BreakFeeds(owner)
			a, _ := c.Lookup(nameOf("a"))
			c.Vanish(now, a.ID)
			b, _ := c.Lookup(nameOf("b"))
			c.Kill(now, b.ID, 3)
		})
		time.Sleep(10 * time.Second)
		for id, want := range map[string]string{"a": "STARTING RUNNING GONE", "b": "STARTING RUNNING FAILED", "c": "STARTING RUNNING"} {
			if got := m.history(id); got != want {
				t.Errorf("%s: %s, want %s", id, got, want)
			}
		}
		r.stop(t)
	})
}

// Updates wait while nobody acknowledges, and the container with them.
func TestUnacknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := memory.New(memory.Config{})
		m := newMaster(t)
		m.setDeaf(true)
		s := store.NewMemory()
		r := run(Options{Core: coreConfig(), Provider: data, Store: s}, m)
		r.launch("t")
		synctest.Wait()
		r.kill("t")
		time.Sleep(time.Hour)
		if got := m.history("t"); got != "STARTING" {
			t.Errorf("history: %s", got)
		}
		r.stop(t)
		r = run(Options{Core: coreConfig(), Provider: data, Store: s}, m)
		time.Sleep(time.Hour)
		data.Do(func(c *memory.Core, _ time.Time) {
			if c.Len() != 1 {
				t.Error("the container went before its end was acknowledged")
			}
		})
		m.setDeaf(false)
		time.Sleep(20 * time.Minute)
		if got := m.history("t"); got != "STARTING RUNNING KILLING KILLED" {
			t.Errorf("history: %s", got)
		}
		data.Do(func(c *memory.Core, _ time.Time) {
			if c.Len() != 0 {
				t.Error("the container is still there")
			}
		})
		r.stop(t)
	})
}
