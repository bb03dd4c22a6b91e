package sim

import (
	"flag"
	"sync/atomic"
	"testing"
	"time"
)

var (
	fleetSeed = flag.Uint64("fleet-seed", 0, "replay this seed of TestFleet only")
	fleetTime = flag.Duration("fleet-time", 20*time.Minute, "how long a fleet lives, in its own time")
)

// TestFleet: hours of a master's life among agents, frameworks and operators,
// with faults; its books are right all the time, and exact in the end.
func TestFleet(t *testing.T) {
	if *fleetSeed != 0 {
		runFleet(t, *fleetSeed)
		return
	}
	n := 4
	if testing.Short() {
		n = 2
	}
	var steps atomic.Int64
	parallel(func(i int) bool {
		if i >= n || t.Failed() {
			return false
		}
		steps.Add(int64(runFleet(t, uint64(i+1))))
		return true
	})
	t.Logf("%d fleets, %v each, %d steps", n, *fleetTime, steps.Load())
}

// TestFleetRegressions replays what once went wrong.
func TestFleetRegressions(t *testing.T) {
	for what, seed := range map[string]uint64{
		"a framework that ended while its agent and then its master were away stays with its tasks until it is torn down": 1795288239405578038,
		"as do the updates of its ended tasks":                                       1795288239405578044,
		"a registration that an operation crosses takes its effect out of the books": 1795289493238928717,
	} {
		t.Run(what, func(t *testing.T) { runFleet(t, seed) })
	}
}

func runFleet(t *testing.T, seed uint64) int {
	f := NewFleet(seed)
	if err := f.Run(*fleetTime); err != nil {
		t.Errorf("%v; replay with -run Fleet -fleet-seed=%d -fleet-time=%v", err, seed, *fleetTime)
	}
	return f.Steps
}

// TestFleetSoak runs fresh seeds until its time is up, see scripts/sim-soak.sh.
func TestFleetSoak(t *testing.T) {
	if *duration == 0 {
		t.Skip("TestFleetSoak: not asked for with -for")
	}
	began := time.Now()
	from := uint64(began.UnixNano())
	var done, steps atomic.Int64
	parallel(func(i int) bool {
		if time.Since(began) > *duration {
			return false
		}
		done.Add(1)
		steps.Add(int64(runFleet(t, from+uint64(i))))
		return true
	})
	t.Logf("%d fleets, %v each, %d steps", done.Load(), *fleetTime, steps.Load())
}
