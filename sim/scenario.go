package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Event is a wish of a user or a fault. What it does in detail follows from N
// alone, so that an event does the same when others are left out.
type Event struct {
	At   time.Duration
	Kind string
	N    uint32
}

// String is a line that ParseScenario reads.
func (e Event) String() string { return fmt.Sprintf("%s %s %d", e.At, e.Kind, e.N) }

// Scenario is everything that users wish and that goes wrong in a run.
type Scenario []Event

// String is a line per event.
func (s Scenario) String() string {
	lines := make([]string, len(s))
	for i, e := range s {
		lines[i] = e.String()
	}
	return strings.Join(lines, "\n")
}

// ParseScenario reads what String writes.
func ParseScenario(text string) (Scenario, error) {
	var out Scenario
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		var e Event
		var at string
		if _, err := fmt.Sscan(line, &at, &e.Kind, &e.N); err != nil {
			return nil, fmt.Errorf("sim: %q is no event such as 12.5s crash 7: %w", strings.TrimSpace(line), err)
		}
		var err error
		if e.At, err = time.ParseDuration(at); err != nil {
			return nil, fmt.Errorf("sim: %q: %w", strings.TrimSpace(line), err)
		}
		if actions[e.Kind] == nil {
			return nil, fmt.Errorf("sim: %q is no kind of event", e.Kind)
		}
		out = append(out, e)
	}
	return out, nil
}

// Generate draws a scenario: a few calm users first, then users and faults
// together. Some scenarios are about a few kinds only, so that rare faults meet.
func Generate(seed uint64) Scenario {
	rnd := rand.New(rand.NewPCG(seed, 2))
	var s Scenario
	at := 3 * time.Second
	add := func(kind string, most time.Duration) {
		s = append(s, Event{At: at.Round(time.Millisecond), Kind: kind, N: rnd.Uint32()})
		at += time.Duration(rnd.Int64N(int64(most)))
	}
	for range 1 + rnd.IntN(4) {
		add("create", 10*time.Second)
	}
	kinds := drawKinds(rnd)
	gap := oneOf(rnd, 2*time.Second, 15*time.Second, 60*time.Second)
	for range 10 + rnd.IntN(50) {
		if rnd.IntN(10) < 4 {
			add(oneOf(rnd, userKinds...), gap)
		} else {
			add(oneOf(rnd, kinds...), gap)
		}
	}
	return s
}

func drawKinds(rnd *rand.Rand) []string {
	kinds := slices.Clone(faultKinds)
	rnd.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
	if rnd.IntN(3) == 0 {
		return kinds
	}
	return kinds[:1+rnd.IntN(4)]
}

// Shrink leaves out what the failure does not need: first halves, then ever
// smaller parts, as long as the same check fails.
func Shrink(s Scenario, fails func(Scenario) bool) Scenario {
	for size := len(s) / 2; size >= 1; {
		smaller := false
		for from := 0; from < len(s); {
			without := slices.Concat(s[:from], s[min(from+size, len(s)):])
			if len(without) < len(s) && fails(without) {
				s, smaller = without, true
				continue
			}
			from += size
		}
		switch {
		case size > 1:
			size /= 2
		case !smaller:
			return s
		}
	}
	return s
}
