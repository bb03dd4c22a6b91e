package sim

import (
	"flag"
	"fmt"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	oneSeed  = flag.Uint64("seed", 0, "replay this seed only")
	seeds    = flag.Int("seeds", 1000, "how many seeds TestCluster runs")
	first    = flag.Uint64("first", 1, "the first seed of TestCluster")
	duration = flag.Duration("for", 0, "TestSoak goes on for so long")
	last     = flag.Int("last", 60, "how many events of a failing run are printed")
	trace    = flag.Bool("trace", false, "print the whole trace of -seed")
)

// TestMain lets garbage lie for longer: a world is small and soon over, and a
// quarter of the time went into collecting what was left of others.
func TestMain(m *testing.M) {
	debug.SetGCPercent(400)
	m.Run()
}

// TestCluster runs many seeds, or replays one.
func TestCluster(t *testing.T) {
	if *oneSeed != 0 {
		replay(t, *oneSeed)
		return
	}
	n := *seeds
	if testing.Short() {
		n = min(n, 50)
	}
	began := time.Now()
	parallel(func(i int) bool {
		if i >= n || t.Failed() {
			return false
		}
		seed := *first + uint64(i)
		if f := New(seed, Options{}).Run(Generate(seed)); f != nil {
			explain(t, f)
		}
		return true
	})
	t.Logf("%d seeds, %.1f a second", n, float64(n)/time.Since(began).Seconds())
}

// TestSoak runs fresh seeds until its time is up, see scripts/sim-soak.sh.
func TestSoak(t *testing.T) {
	if *duration == 0 {
		t.Skip("TestSoak: not asked for with -for")
	}
	began := time.Now()
	from := uint64(began.UnixNano())
	var done atomic.Int64
	parallel(func(i int) bool {
		if time.Since(began) > *duration {
			return false
		}
		done.Add(1)
		seed := from + uint64(i)
		if f := New(seed, Options{}).Run(Generate(seed)); f != nil {
			explain(t, f)
		}
		return true
	})
	t.Logf("%d seeds, %.1f a second", done.Load(), float64(done.Load())/time.Since(began).Seconds())
}

// parallel calls do with 0, 1, … from all processors until it says no.
func parallel(do func(i int) bool) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for do(int(next.Add(1) - 1)) {
			}
		})
	}
	wg.Wait()
}

func replay(t *testing.T, seed uint64) {
	w := New(seed, Options{Trace: true})
	f := w.Run(Generate(seed))
	if *trace || testing.Verbose() {
		fmt.Println(strings.Join(w.Trace(), "\n"))
	}
	t.Logf("%d events, trace %x", w.Steps(), w.TraceHash())
	if f != nil {
		explain(t, f)
	}
}

// routine is what goes on all the time.
var routine = regexp.MustCompile(`: (Tick|Pong|pong|Probed|heartbeat)$|Ping$|Checked`)

// explain shrinks a failing scenario and prints what is left.
func explain(t *testing.T, f *Failure) {
	t.Helper()
	tries := 0
	small := Shrink(Generate(f.Seed), func(s Scenario) bool {
		tries++
		got := New(f.Seed, Options{}).Run(s)
		return tries < 400 && got != nil && got.Checker == f.Checker
	})
	w := New(f.Seed, Options{Trace: true})
	again := w.Run(small)
	lines := slices.DeleteFunc(w.Trace(), func(line string) bool { return !*trace && routine.MatchString(line) })
	t.Errorf("%v\nthe smallest scenario that shows it (%d of %d events):\n%v\n%v\nthe last events:\n%s", f, len(small), len(Generate(f.Seed)),
		small, again, strings.Join(lines[max(0, len(lines)-*last):], "\n"))
}

// A run is the same every time.
func TestRepeatable(t *testing.T) {
	for seed := uint64(1); seed <= 5; seed++ {
		a, b := New(seed, Options{Trace: true}), New(seed, Options{Trace: true})
		a.Run(Generate(seed))
		b.Run(Generate(seed))
		if a.TraceHash() != b.TraceHash() || len(a.Trace()) == 0 {
			for i := range a.Trace() {
				if i >= len(b.Trace()) || a.Trace()[i] != b.Trace()[i] {
					t.Fatalf("seed %d: line %d\n%s\n%s", seed, i, a.Trace()[i], b.Trace()[min(i, len(b.Trace())-1)])
				}
			}
			t.Errorf("seed %d: %x and %x", seed, a.TraceHash(), b.TraceHash())
		}
	}
}

// What is traced is what happens without a trace.
func TestTraceChangesNothing(t *testing.T) {
	for seed := uint64(1); seed <= 3; seed++ {
		a, b := New(seed, Options{Trace: true}), New(seed, Options{})
		a.Run(Generate(seed))
		b.Run(Generate(seed))
		if a.Steps() != b.Steps() {
			t.Errorf("seed %d: %d events with a trace, %d without", seed, a.Steps(), b.Steps())
		}
	}
}

func TestScenarioText(t *testing.T) {
	s := Generate(7)
	back, err := ParseScenario(s.String())
	if err != nil || back.String() != s.String() {
		t.Errorf("%v\n%v", err, back)
	}
	for _, bad := range []string{"12s", "x crash 1", "1s nonsense 1"} {
		if _, err := ParseScenario(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// TestCoverage prints which faults met which states.
func TestCoverage(t *testing.T) {
	var c Coverage
	parallel(func(i int) bool {
		if i >= 60 {
			return false
		}
		seed := uint64(i + 1)
		New(seed, Options{Coverage: &c}).Run(Generate(seed))
		return true
	})
	t.Logf("\n%v", &c)
	if reached, all := c.Reached(); reached < all/2 {
		t.Errorf("only %d of %d pairs were reached", reached, all)
	}
}
