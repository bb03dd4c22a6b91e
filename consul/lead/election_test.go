package lead

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mesopool/mesopool/store"
)

const ttl = 10 * time.Second

// contender is a process in an election.
type contender struct {
	*Election
	name    string
	terms   int
	term    *Term           // while it leads
	ctx     context.Context // of the term
	since   time.Time
	until   time.Time
	stop    context.CancelFunc
	done    chan error
	failing error // what the next serve returns at once
}

// contend starts a process; it must be called in a bubble.
func contend(t *testing.T, f *fake, name string) *contender {
	t.Helper()
	e, err := New(Config{Address: "consul:8500", HTTP: f.client(), Key: "m/x", Self: name, TTL: ttl, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	c := &contender{Election: e, name: name, done: make(chan error, 1)}
	ctx, stop := context.WithCancel(t.Context())
	c.stop = stop
	go func() { c.done <- e.Run(ctx, c.serve) }()
	t.Cleanup(func() {
		stop()
		synctest.Wait()
	})
	return c
}

func (c *contender) serve(ctx context.Context, term *Term) error {
	if c.failing != nil {
		return c.failing
	}
	c.terms, c.since = c.terms+1, time.Now()
	c.term, c.ctx = term, ctx
	<-ctx.Done()
	c.term, c.until = nil, time.Now()
	return nil
}

func (c *contender) leads() bool { return c.term != nil && c.term.Check() == nil }

func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// leading checks who leads, and that all others know.
func leading(t *testing.T, want string, all ...*contender) {
	t.Helper()
	for _, c := range all {
		if c.leads() != (c.name == want) {
			t.Errorf("%s leads: %v; want %q to", c.name, c.leads(), want)
		}
		if c.name != want && want != "" && c.Leader() != want {
			t.Errorf("%s takes %q for the leader, not %q", c.name, c.Leader(), want)
		}
	}
}

func TestOneLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		a := contend(t, f, "a")
		after(0)
		b := contend(t, f, "b")
		after(time.Hour)
		leading(t, "a", a, b)
		if a.terms != 1 {
			t.Errorf("%d terms in an hour", a.terms)
		}
		// An orderly end frees the lock: no session must run out.
		a.stop()
		if err := <-a.done; err != nil {
			t.Error(err)
		}
		after(ttl / 5)
		leading(t, "b", b)
		f.at(func() {
			if len(f.sessions) != 1 {
				t.Errorf("sessions %v", f.sessions)
			}
		})
		b.stop()
		if err := <-b.done; err != nil {
			t.Error(err)
		}
	})
}

// One that is cut off stops before anybody else can lead.
func TestSilenceDeposes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		a := contend(t, f, "a")
		after(0)
		b := contend(t, f, "b")
		after(time.Minute)
		leading(t, "a", a, b)
		cut := time.Now()
		f.set(func(string) fault { return hangs })
		after(ttl)
		leading(t, "", a, b)
		if lasted := a.until.Sub(cut); lasted >= ttl {
			t.Errorf("it led for %s after it was cut off", lasted)
		}
		f.set(nil)
		after(4 * ttl)
		if a.leads() == b.leads() {
			t.Errorf("a leads: %v, b leads: %v", a.leads(), b.leads())
		}
	})
}

// One that is killed is followed when its session and the lock's delay are over.
func TestKilledIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		a := contend(t, f, "a")
		after(0)
		b := contend(t, f, "b")
		after(time.Minute)
		leading(t, "a", a, b)
		killed := time.Now()
		f.set(func(call string) fault { // nothing of the first one gets through any more
			if call == "renew" || call == "release" || call == "destroy" {
				return broken
			}
			return well
		})
		a.stop()
		<-a.done
		f.set(nil)
		after(4 * ttl)
		if !b.leads() {
			t.Fatal("nobody follows")
		}
		if took := b.since.Sub(killed); took > 3*ttl+2*time.Second {
			t.Errorf("followed after %s", took)
		}
	})
}

func TestDeposedByConsul(t *testing.T) {
	for name, depose := range map[string]func(f *fake){
		"the session is destroyed": func(f *fake) { f.invalidate(f.pairs["m/x/leader"].Session) },
		"the lock is given to another": func(f *fake) {
			f.sessions["other"] = &fakeSession{timer: time.NewTimer(time.Hour)}
			p := *f.pairs["m/x/leader"]
			p.Session, p.Value = "other", []byte("c")
			f.write(&p)
		},
		"the lock is released by hand": func(f *fake) { f.release("m/x/leader", f.pairs["m/x/leader"].Session) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				a := contend(t, f, "a")
				after(time.Minute)
				leading(t, "a", a)
				term := a.term
				f.at(func() { depose(f) })
				after(0)
				if a.term == term {
					t.Fatal("it leads on")
				}
				if err := term.Check(); !errors.Is(err, ErrDeposed) {
					t.Errorf("Check: %v", err)
				}
			})
		})
	}
}

// Any single call may fail, have its answer lost, or hang: somebody leads all
// the same, and never two.
func TestCallsGoWrong(t *testing.T) {
	for _, kind := range []string{"create", "acquire", "get", "renew", "release", "destroy"} {
		for _, what := range []fault{broken, lost, hangs} {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				f.set(once(kind, what))
				a, b := contend(t, f, "a"), contend(t, f, "b")
				for range 100 {
					after(time.Second)
					if a.leads() && b.leads() {
						t.Fatalf("%s %d: both lead", kind, what)
					}
				}
				if !a.leads() && !b.leads() {
					t.Fatalf("%s %d: nobody leads", kind, what)
				}
				first, second := a, b
				if b.leads() {
					first, second = b, a
				}
				first.stop()
				<-first.done
				after(4 * ttl)
				leading(t, second.name, second)
			})
		}
	}
}

// Renewals that fail for a while depose nobody.
func TestShortOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		a := contend(t, f, "a")
		after(time.Minute)
		f.set(func(string) fault { return broken })
		after(ttl / 2)
		f.set(nil)
		after(time.Minute)
		leading(t, "a", a)
		if a.terms != 1 {
			t.Errorf("%d terms", a.terms)
		}
	})
}

func TestResign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		a := contend(t, f, "a")
		after(0)
		b := contend(t, f, "b")
		after(time.Minute)
		a.term.Resign()
		after(time.Second)
		leading(t, "b", a, b)
		after(ttl / 2) // the one that has resigned holds back for a while
		b.term.Resign()
		after(time.Second)
		leading(t, "a", a, b)
		b.stop()
		<-b.done
		a.term.Resign() // and nobody else is there
		after(ttl)
		leading(t, "a", a)
	})
}

// A process that stood still does nothing when it goes on.
func TestCheckAfterAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		a := contend(t, f, "a")
		after(time.Minute)
		l := a.term.session.lease
		l.mu.Lock()
		l.timer.Stop() // as if no timer had come yet
		l.until = time.Now().Add(-time.Millisecond)
		l.mu.Unlock()
		if err := a.term.Check(); !errors.Is(err, ErrDeposed) {
			t.Errorf("Check: %v", err)
		}
		l.extend(time.Now())
		if l.holds() {
			t.Error("what was over began again")
		}
	})
}

func TestServeFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		want := errors.New("the record is not readable")
		e, err := New(Config{Address: "x", HTTP: f.client(), Key: "k", Self: "a", Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Run(t.Context(), func(context.Context, *Term) error { return want }); !errors.Is(err, want) {
			t.Errorf("Run: %v", err)
		}
		if p := f.pairs["k/leader"]; p == nil || p.Session != "" || len(f.sessions) != 0 {
			t.Errorf("left: %+v, %v", p, f.sessions)
		}
	})
}

// What the end of ctx cuts off is no failure; any other error of serve is told.
func TestEndCutsOff(t *testing.T) {
	other := errors.New("disk full")
	for _, want := range []error{nil, other} {
		synctest.Test(t, func(t *testing.T) {
			e, err := New(Config{Address: "x", HTTP: newFake().client(), Key: "k", Self: "a", Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(t.Context())
			err = e.Run(ctx, func(ctx context.Context, _ *Term) error {
				stop()
				<-ctx.Done()
				if want != nil {
					return want
				}
				return fmt.Errorf("save: %w", ctx.Err())
			})
			if !errors.Is(err, want) {
				t.Errorf("Run: %v, want %v", err, want)
			}
		})
	}
}

func TestConfig(t *testing.T) {
	for key, why := range map[string]string{"": "folder", "/a": "folder", "a/": "folder", "a//b": "folder"} {
		if _, err := New(Config{Key: key}); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %v", key, err)
		}
	}
	if _, err := New(Config{Key: "k", TTL: time.Hour}); err == nil || !strings.Contains(err.Error(), "1h") {
		t.Error(err)
	}
}

var _ store.Store = (*Store)(nil)
