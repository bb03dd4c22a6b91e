package lead

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/consul/api"

	"github.com/mesopool/mesopool/store"
	"github.com/mesopool/mesopool/store/storetest"
)

// term begins one for the store's tests, and ends it with the test.
func term(t *testing.T, cfg Config) *Term {
	t.Helper()
	cfg.Log = slog.New(slog.DiscardHandler)
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	got, done := make(chan *Term, 1), make(chan error, 1)
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		done <- e.Run(ctx, func(ctx context.Context, term *Term) error {
			got <- term
			<-ctx.Done()
			stop() // one term is enough
			return nil
		})
	}()
	t.Cleanup(func() { stop(); <-done })
	return <-got
}

func fakeTerm(t *testing.T, f *fake) *Term {
	return term(t, Config{Address: "consul", HTTP: f.client(), Key: "m", Self: "a", TTL: ttl})
}

func open(t *testing.T, term *Term) *Store {
	t.Helper()
	s, err := term.Store(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s.(*Store)
}

func contract(t *testing.T, begin func(t *testing.T) *Term) {
	var lasts *Term
	storetest.Run(t, func(t *testing.T) store.Store {
		lasts = begin(t)
		return open(t, lasts)
	}, func(t *testing.T, _ store.Store) store.Store { return open(t, lasts) })
}

func TestStoreKeepsTheContract(t *testing.T) {
	contract(t, func(t *testing.T) *Term { return fakeTerm(t, newFake()) })
}

func big(n int, seed byte) []byte {
	r := rand.New(rand.NewChaCha8([32]byte{seed}))
	out := make([]byte, n)
	for i := range out {
		out[i] = byte(r.Uint32())
	}
	return out
}

// many is a commit that is too large for a transaction in every way. Nobody
// changes it.
var many = sync.OnceValue(func() []store.Op {
	var ops []store.Op
	for n := range 150 {
		ops = append(ops, store.Op{Key: fmt.Sprint("n/", n), Value: fmt.Appendf(nil, "value %d", n)})
	}
	return append(ops, store.Op{Key: "big", Value: big(3*mostValue+17, 1)}, store.Op{Key: "big2", Value: big(mostValue+1, 2)},
		store.Op{Key: "n/7"}, store.Op{Key: "twice", Value: big(mostValue+1, 3)}, store.Op{Key: "twice", Value: []byte("small")}, store.Op{Key: "empty", Value: []byte{}})
})

func contents(t *testing.T, s store.Store) map[string]string {
	t.Helper()
	list, err := s.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, e := range list {
		out[e.Key] = string(e.Value)
	}
	return out
}

func wantMany(t *testing.T) map[string]string {
	m := store.NewMemory()
	if err := m.Commit(t.Context(), many()); err != nil {
		t.Fatal(err)
	}
	return contents(t, m)
}

// leftovers are the parts, and the journal, that a fake holds.
func leftovers(f *fake) (names []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range append(f.below("m/parts/"), f.below("m/journal")...) {
		names = append(names, p.Key)
	}
	return names
}

func TestLargeCommit(t *testing.T) {
	f := newFake()
	s := open(t, fakeTerm(t, f))
	if err := s.Commit(t.Context(), many()); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(wantMany(t), contents(t, s)); d != "" {
		t.Errorf("-want +got:\n%.2000s", d)
	}
	if got := len(leftovers(f)); got != 4+2 {
		t.Errorf("%d parts of 6: %v", got, leftovers(f))
	}
	e, err := s.Get(t.Context(), "big")
	if err != nil || !bytes.Equal(e.Value, big(3*mostValue+17, 1)) {
		t.Errorf("Get: %d bytes, %v", len(e.Value), err)
	}
	// A large value that is replaced, by whoever opens the store, leaves nothing.
	s = open(t, &Term{election: s.term.election, session: s.term.session})
	if err := s.Commit(t.Context(), []store.Op{{Key: "big", Value: []byte("x")}, {Key: "big2"}, {Key: "n/1", If: new(e.Version)}}); !errors.Is(err, store.ErrConflict) {
		t.Fatal(err)
	}
	if err := s.Commit(t.Context(), []store.Op{{Key: "big", Value: []byte("x"), If: &e.Version}, {Key: "big2"}}); err != nil {
		t.Fatal(err)
	}
	if got := leftovers(f); len(got) > 0 {
		t.Errorf("left: %v", got)
	}
}

// Wherever a large commit is cut off, it holds as a whole or not at all for the
// next one, and nothing is left of it.
func TestLargeCommitIsCutOff(t *testing.T) {
	total := 0
	{
		f := newFake()
		s := open(t, fakeTerm(t, f))
		f.at(func() { f.calls = nil })
		if err := s.Commit(t.Context(), many()); err != nil {
			t.Fatal(err)
		}
		f.at(func() {
			for _, c := range f.calls {
				if c == "txn" {
					total++
				}
			}
		})
	}
	whole, none := 0, 0
	for cut := range total {
		for _, what := range []fault{broken, lost} {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				a := fakeTerm(t, f)
				s := open(t, a)
				if err := s.Commit(t.Context(), []store.Op{{Key: "before", Value: []byte("x")}}); err != nil {
					t.Fatal(err)
				}
				n := 0
				f.set(func(call string) fault {
					if call == "txn" {
						n++
					}
					switch {
					case n == cut+1 && call == "txn":
						return what
					case n > cut: // and nothing of it comes through any more
						return broken
					}
					return well
				})
				if err := s.Commit(t.Context(), many()); !errors.Is(err, ErrDeposed) {
					t.Fatalf("cut at %d: %v", cut, err)
				}
				f.set(nil)
				next := open(t, fakeTerm(t, f))
				got := contents(t, next)
				if len(got) == 1 {
					none++
				} else {
					whole++
					want := wantMany(t)
					want["before"] = "x"
					if d := cmp.Diff(want, got); d != "" {
						t.Errorf("cut at %d: -want +got:\n%.2000s", cut, d)
					}
				}
				if got := len(leftovers(f)); got != 0 && got != 6 {
					t.Errorf("cut at %d: left %v", cut, leftovers(f))
				}
			})
		}
	}
	if whole == 0 || none == 0 {
		t.Errorf("%d whole, %d none", whole, none)
	}
}

// A deposed leader that does not know it writes nothing.
func TestFence(t *testing.T) {
	f := newFake()
	a := fakeTerm(t, f)
	s := open(t, a)
	f.at(func() {
		f.sessions["other"] = &fakeSession{timer: time.NewTimer(time.Hour)}
		f.pairs["m/leader"].Session = "other" // nobody is told
	})
	if err := s.Commit(t.Context(), []store.Op{{Key: "k", Value: []byte("v")}}); !errors.Is(err, ErrDeposed) {
		t.Errorf("Commit: %v", err)
	}
	if err := s.Commit(t.Context(), many()); !errors.Is(err, ErrDeposed) {
		t.Errorf("a large Commit: %v", err)
	}
	if err := a.Check(); !errors.Is(err, ErrDeposed) {
		t.Errorf("Check: %v", err)
	}
	f.at(func() {
		if got := f.below("m/state"); len(got) > 0 {
			t.Errorf("written: %v", got)
		}
	})
}

// Whatever goes wrong once is tried again, also what has happened without an
// answer.
func TestStoreTriesAgain(t *testing.T) {
	for _, kind := range []string{"txn", "get", "list", "keys"} {
		for _, what := range []fault{broken, lost, hangs} {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				a := fakeTerm(t, f)
				f.set(once(kind, what))
				s := open(t, a)
				absent := uint64(0)
				if err := s.Commit(t.Context(), []store.Op{{Key: "k", Value: []byte("v"), If: &absent}}); err != nil {
					t.Fatalf("%s %d: %v", kind, what, err)
				}
				if d := cmp.Diff(map[string]string{"k": "v"}, contents(t, s)); d != "" {
					t.Errorf("%s %d: %s", kind, what, d)
				}
			})
		}
	}
}

// What Consul would refuse again is told in its words, at once.
func TestRefused(t *testing.T) {
	f := newFake()
	s := open(t, fakeTerm(t, f))
	f.at(func() { f.mostBody = 1 << 10 })
	err := s.Commit(t.Context(), []store.Op{{Key: "k", Value: make([]byte, 4<<10)}})
	if err == nil || errors.Is(err, ErrDeposed) || !strings.Contains(err.Error(), "too large") {
		t.Error(err)
	}
}

// A large commit that Consul refuses half way is completed before anything else
// is written.
func TestRefusedHalfWay(t *testing.T) {
	f := newFake()
	a := fakeTerm(t, f)
	s := open(t, a)
	f.set(func(call string) fault {
		if len(f.below("m/journal")) > 0 {
			f.mostOps = 1
		}
		return well
	})
	for range 2 {
		if err := s.Commit(t.Context(), many()); err == nil || !strings.Contains(err.Error(), "too many") {
			t.Fatal(err)
		}
	}
	f.set(nil)
	f.at(func() { f.mostOps = 64 })
	if err := s.Commit(t.Context(), []store.Op{{Key: "k", Value: []byte("v")}}); err == nil || !strings.Contains(err.Error(), "not completed") {
		t.Fatal(err)
	}
	if d := cmp.Diff(wantMany(t), contents(t, open(t, a))); d != "" {
		t.Errorf("-want +got:\n%.2000s", d)
	}
}

// Parts that are missing, or references that make no sense, are told; nothing
// is made up.
func TestDamage(t *testing.T) {
	f := newFake()
	a := fakeTerm(t, f)
	s := open(t, a)
	if err := s.Commit(t.Context(), []store.Op{{Key: "big", Value: big(2*mostValue, 1)}}); err != nil {
		t.Fatal(err)
	}
	f.at(func() { delete(f.pairs, f.below("m/parts/")[1].Key) })
	if _, err := s.Get(t.Context(), "big"); err == nil || !strings.Contains(err.Error(), "part 2 of 2 is missing") {
		t.Error(err)
	}
	f.at(func() { f.pairs["m/state/big"].Value = []byte(`{"id":"x","parts":9,"bytes":1}`) })
	if _, err := s.List(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "does not say where") {
		t.Error(err)
	}
	f.at(func() { f.write(&api.KVPair{Key: "m/journal", Value: []byte("{"), Flags: inParts}) })
	if _, err := a.Store(t.Context()); err == nil {
		t.Error("a broken journal was opened")
	}
}

func FuzzReference(f *testing.F) {
	f.Add([]byte(`{"id":"a","parts":1,"bytes":3}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := parseReference(text)
		if err == nil && (r.Parts < 0 || r.Parts > mostCommit/mostValue+1 || r.Parts*mostValue < r.Bytes) {
			t.Errorf("%+v", r)
		}
	})
}

func FuzzJournal(f *testing.F) {
	text, err := encodeJournal([]store.Op{{Key: "a", Value: []byte("b")}, {Key: "c"}, {Key: "d", Value: []byte{}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		ops, err := decodeJournal(text)
		if err != nil {
			return
		}
		again, err := encodeJournal(ops)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeJournal(again)
		if d := cmp.Diff(ops, got); d != "" || err != nil {
			t.Errorf("%v %s", err, d)
		}
	})
}
