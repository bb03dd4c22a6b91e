package agent

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/mesopool/mesopool/gc"
	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/provider/limit"
	"github.com/mesopool/mesopool/provider/memory"
	"github.com/mesopool/mesopool/store"
	"github.com/mesopool/mesopool/task"
)

// fault is what goes wrong with one call.
type fault int

const (
	none     fault = iota
	fails          // nothing is done, and the call says so
	throttle       // the same, with ErrThrottle
	loses          // it is done, and the answer is lost
	hangs          // it is done or not, and nothing is ever answered
)

var errInjected = errors.New("an injected fault")

// hurt is a provider with faults. step is called before and after each call.
type hurt struct {
	provider.Provider
	mu     sync.Mutex
	seen   map[string]int // calls by operation
	fault  func(op string, n int) fault
	cut    func(n int) bool // the watch breaks after its n-th event
	step   func()
	events int
}

func (h *hurt) do(ctx context.Context, op string, call func() error) error {
	h.mu.Lock()
	h.seen[op]++
	n := h.seen[op]
	h.mu.Unlock()
	h.step()
	defer h.step()
	switch f := h.fault(op, n); f {
	case fails:
		return errInjected
	case throttle:
		return fmt.Errorf("%w: %w", provider.ErrThrottle, errInjected)
	case loses, hangs:
		if f == loses || n%2 == 0 {
			_ = call() // nobody hears how it went
		}
		if f == hangs {
			<-ctx.Done()
			return ctx.Err()
		}
		return errInjected
	}
	return call()
}

func (h *hurt) Launch(ctx context.Context, o task.Owner, name string, s task.Spec) (c provider.Container, err error) {
	err = h.do(ctx, "launch", func() (err error) { c, err = h.Provider.Launch(ctx, o, name, s); return err })
	return c, err
}

func (h *hurt) Stop(ctx context.Context, id string, grace time.Duration) error {
	return h.do(ctx, "stop", func() error { return h.Provider.Stop(ctx, id, grace) })
}

func (h *hurt) Remove(ctx context.Context, id string) error {
	return h.do(ctx, "remove", func() error { return h.Provider.Remove(ctx, id) })
}

func (h *hurt) Inspect(ctx context.Context, id string) (c provider.Container, err error) {
	err = h.do(ctx, "inspect", func() (err error) { c, err = h.Provider.Inspect(ctx, id); return err })
	return c, err
}

func (h *hurt) Watch(ctx context.Context, o task.Owner) iter.Seq2[provider.Event, error] {
	return func(yield func(provider.Event, error) bool) {
		for ev, err := range h.Provider.Watch(ctx, o) {
			if !yield(ev, err) || err != nil {
				return
			}
			h.mu.Lock()
			h.events++
			cut := h.cut(h.events)
			h.mu.Unlock()
			if cut {
				yield(provider.Event{}, errInjected)
				return
			}
		}
	}
}

// stepping is a store that counts its commits as steps.
type stepping struct {
	store.Store
	step func()
}

func (s *stepping) Commit(ctx context.Context, ops []store.Op) error {
	s.step()
	defer s.step()
	if err := ctx.Err(); err != nil { // who is dead commits nothing
		return err
	}
	return s.Store.Commit(ctx, ops)
}

// place is where the containers of a fault's story run.
type place struct {
	provider provider.Provider
	owner    task.Owner
	spec     func(id string, exit int) task.Spec // exit < 0: runs until it is stopped
	every    int                                 // of the moments to die at, only each n-th is tried
	wait     time.Duration                       // that a call may take
}

func inMemory(t *testing.T) place {
	return place{
		provider: memory.New(memory.Config{}), owner: task.Owner{Cluster: "mesos", Agent: "dc-1"}, every: 1, wait: 50 * time.Millisecond,
		spec: func(id string, exit int) task.Spec {
			s := spec(id)
			s.Command = task.Command{Shell: true, Value: "sleep infinity"}
			if exit >= 0 {
				s.Command.Value = fmt.Sprintf("sleep 0.01; exit %d", exit)
			}
			return s
		},
	}
}

func onEngine(t *testing.T) place {
	e := newEngine(t)
	return place{
		provider: e.provider(), owner: task.Owner{Cluster: e.name, Agent: "dc-1"}, every: 9, wait: 3 * time.Second,
		spec: func(id string, exit int) task.Spec {
			s := e.spec(id)
			if exit >= 0 {
				s.Command.Args = []string{fmt.Sprintf("exit=%d", exit)}
			}
			return s
		},
	}
}

// story is one task that runs and is killed and two that end by themselves,
// under faults and deaths of the agent.
type story struct {
	*testing.T
	place
	hurt   *hurt
	store  store.Store
	master *master

	mu     sync.Mutex
	life   *live
	steps  int
	dieAt  int // 0: never
	deaths int
	killed bool
}

func newStory(t *testing.T, p place) *story {
	s := &story{T: t, place: p, store: store.NewMemory(), master: newMaster(t)}
	s.hurt = &hurt{
		Provider: p.provider, seen: map[string]int{}, fault: func(string, int) fault { return none }, cut: func(int) bool { return false }, step: s.step,
	}
	return s
}

// step is a moment between two things that happen; the agent may die there.
func (s *story) step() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.steps++; s.steps == s.dieAt && s.life != nil {
		s.deaths++
		s.life.cancel()
	}
}

// begin starts a life of the agent.
func (s *story) begin() {
	cfg := coreConfig()
	cfg.Owner, cfg.GC, cfg.OrphanGrace = s.owner, gc.Policy{Keep: gc.KeepAll(0)}, 50*time.Millisecond
	cfg.RetryMin, cfg.RetryMax, cfg.ResendMin, cfg.ResendMax = 20*time.Millisecond, 200*time.Millisecond, 200*time.Millisecond, time.Second
	backend := limit.New(s.hurt, limit.Options{LaunchTimeout: s.wait, CallTimeout: s.wait, Retries: -1})
	life := run(Options{Core: cfg, Provider: backend, Store: &stepping{s.store, s.step}, Log: slog.New(slog.DiscardHandler)}, s.master)
	s.mu.Lock()
	s.life = life
	s.mu.Unlock()
}

// wipe loses the agent's disk.
func (s *story) wipe() { s.store = store.NewMemory() }

var tasks = map[string]int{"run": -1, "ok": 0, "bad": 3}

// ask asks for what the master wants and has had no word of.
func (s *story) ask() {
	for id, exit := range tasks {
		if s.master.history(id) == "" {
			s.life.Put(Launch{Framework: aware, Spec: s.spec(id, exit)})
		}
	}
	if s.killed {
		s.life.Put(Kill{Key: key("run")})
	}
}

// until goes on, and on in another life, until something holds.
func (s *story) until(what string, holds func() bool) {
	s.Helper()
	end := time.Now().Add(90 * time.Second)
	asked := time.Now()
	for !holds() {
		select {
		case err := <-s.life.done:
			if err != nil && !errors.Is(err, context.Canceled) {
				s.Fatalf("the agent ended: %v", err)
			}
			s.begin()
			s.ask()
		case <-time.After(5 * time.Millisecond):
		}
		if time.Since(asked) > time.Second { // as a master reconciles
			asked = time.Now()
			s.ask()
		}
		if time.Now().After(end) {
			s.Fatalf("never came to be: %s; run %q, ok %q, bad %q", what, s.master.history("run"), s.master.history("ok"), s.master.history("bad"))
		}
	}
}

func (s *story) matches(id, want string) bool {
	return regexp.MustCompile("^" + want + "$").MatchString(s.master.history(id))
}

// left are the owner's containers.
func (s *story) left() (n int) {
	for ev, err := range s.provider.Watch(s.Context(), s.owner) {
		if err != nil {
			s.Fatal(err)
		}
		if ev.Synced {
			return n
		}
		n++
	}
	return n
}

// tell runs the story from its beginning to its end: nothing is lost, nothing
// doubled, nothing left.
func (s *story) tell() {
	s.Helper()
	s.begin()
	s.ask()
	s.until("one runs and two have ended", func() bool {
		return s.matches("run", "STARTING( STARTING)* RUNNING") && s.matches("ok", ".* FINISHED") && s.matches("bad", ".* FAILED")
	})
	s.killed = true
	s.ask()
	s.until("the one is killed", func() bool { return s.matches("run", ".* KILLED") })
	s.until("nothing is left", func() bool { return s.left() == 0 })
	s.finish()
	for id, want := range map[string]string{
		"run": "STARTING( STARTING)* RUNNING( KILLING)? KILLED", "ok": "STARTING( STARTING)*( RUNNING)? FINISHED", "bad": "STARTING( STARTING)*( RUNNING)? FAILED",
	} {
		if !s.matches(id, want) {
			s.Errorf("%s: %q", id, s.master.history(id))
		}
	}
	if got := s.master.status("bad"); got.Reason == task.ReasonContainerLaunchFailed {
		s.Errorf("the task that exits with 3 failed because %s", got.Message)
	}
}

func (s *story) finish() {
	s.life.cancel()
	if err := <-s.life.done; err != nil && !errors.Is(err, context.Canceled) {
		s.Error(err)
	}
	if m, ok := s.provider.(*memory.Provider); ok {
		m.Do(func(c *memory.Core, _ time.Time) {
			if d := c.Doubles(); len(d) > 0 {
				s.Errorf("two live containers of %v", d)
			}
		})
	}
}

// onFirst hurts the first calls of some operations.
func onFirst(n int, f fault, ops ...string) func(string, int) fault {
	return func(op string, k int) fault {
		for _, x := range ops {
			if x == op && k <= n {
				return f
			}
		}
		return none
	}
}

// TestFaults is the table of what can go wrong, in memory and on an engine.
func TestFaults(t *testing.T) {
	all := []string{"launch", "stop", "remove", "inspect"}
	table := map[string]func(*story){
		"nothing":             func(*story) {},
		"create answers lost": func(s *story) { s.hurt.fault = onFirst(4, loses, "launch") },
		"stop answers lost":   func(s *story) { s.hurt.fault = onFirst(2, loses, "stop") },
		"remove answers lost": func(s *story) { s.hurt.fault = onFirst(3, loses, "remove") },
		"500s":                func(s *story) { s.hurt.fault = onFirst(3, fails, all...) },
		"throttled":           func(s *story) { s.hurt.fault = onFirst(4, throttle, all...) },
		"hanging":             func(s *story) { s.hurt.fault = onFirst(2, hangs, all...) },
		"stream cut":          func(s *story) { s.hurt.cut = func(n int) bool { return n%2 == 1 && n < 6 } },
		"all of it": func(s *story) {
			s.hurt.fault = func(_ string, n int) fault { return fault(n % 5) }
			s.hurt.cut = func(n int) bool { return n == 3 }
		},
	}
	for where, p := range map[string]func(*testing.T) place{"memory": inMemory, "engine": onEngine} {
		for what, arrange := range table {
			t.Run(where+"/"+what, func(t *testing.T) {
				t.Parallel()
				s := newStory(t, p(t))
				arrange(s)
				s.tell()
			})
		}
	}
}

// TestDeathAtAnyStep kills the agent between any two steps of the story: before
// and after each commit and each call of the backend.
func TestDeathAtAnyStep(t *testing.T) {
	for where, p := range map[string]func(*testing.T) place{"memory": inMemory, "engine": onEngine} {
		t.Run(where, func(t *testing.T) {
			for at, died := 1, true; died; {
				s := newStory(t, p(t))
				s.dieAt = at
				s.tell()
				died = s.deaths > 0
				at += s.every
			}
		})
	}
}

// TestDiskLost: an agent without its records knows no tasks; what runs are
// orphans, which stop after their grace, and nothing is launched again.
func TestDiskLost(t *testing.T) {
	for where, p := range map[string]func(*testing.T) place{"memory": inMemory, "engine": onEngine} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			s := newStory(t, p(t))
			s.begin()
			s.ask()
			s.until("it runs", func() bool {
				return s.matches("run", "STARTING RUNNING") && s.matches("ok", ".* FINISHED") && s.matches("bad", ".* FAILED")
			})
			s.life.cancel()
			<-s.life.done
			s.wipe()
			s.begin()
			s.until("nothing is left", func() bool { return s.left() == 0 })
			s.finish()
			if got := s.master.history("run"); got != "STARTING RUNNING" {
				t.Errorf("an agent without records tells of the task: %s", got)
			}
			if n := s.hurt.seen["launch"]; n != 3 {
				t.Errorf("%d launches for three tasks", n)
			}
		})
	}
}
