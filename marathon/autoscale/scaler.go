package autoscale

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// tolerance is how far off its target the average may be without a change.
const tolerance = 0.1

// rounding is what a sum of floats may be off.
const rounding = 1e-6

// Load is one thing that is measured.
type Load struct {
	Name   string    // as in "cpu"
	Target float64   // what each instance should use; above 0
	Used   []float64 // what those use that were measured
}

// Rules bound what is decided.
type Rules struct {
	Min, Max  int           // instances; Max counts where Min is above it
	Cooldown  time.Duration // no change so long after the last one
	DownAfter time.Duration // less is decided only if less has been enough for so long
}

// Advice is what was decided, and why.
type Advice struct {
	Instances int
	Wanted    int // by the load alone, before cool-down, window, steps and bounds
	Why       string
}

// Scaler decides again and again for one app. Before the first Decide it needs a
// Restart.
type Scaler struct {
	changed time.Time // the number of instances
	asked   time.Time // the last time
	past    []past    // the latest last; each wants less than the one before it
}

// past is what was wanted at a time.
type past struct {
	at     time.Time
	wanted int
}

// Restart begins cool-down and window anew: after a change of the number of
// instances or of the rules, and when what was before is not known.
func (s *Scaler) Restart(now time.Time) { *s = Scaler{changed: now, asked: now} }

// Decide says how many of something there should be of which there are current,
// at least 1. It changes nothing by itself: whoever follows it calls Restart. If
// it was not asked for long, it does not know what was meanwhile and restarts.
func (s *Scaler) Decide(now time.Time, r Rules, current int, loads []Load) Advice {
	if now.Sub(s.asked) > longest {
		s.Restart(now)
	}
	s.asked = now
	wanted, why := want(current, loads)
	most := s.remember(now, r.DownAfter, min(max(wanted, r.Min), r.Max)) // so that few differ
	out := Advice{Instances: wanted, Wanted: wanted, Why: why}
	if wanted < current {
		out.Instances = min(current, most)
		if now.Sub(s.changed) < r.DownAfter {
			out.Instances = current
		}
	}
	if now.Sub(s.changed) < r.Cooldown {
		out.Instances = current
	}
	out.Instances = min(max(out.Instances, (current+1)/2), 2*current)
	out.Instances = min(max(out.Instances, r.Min), r.Max)
	return out
}

// remember notes what is wanted and returns the most that was within the window.
func (s *Scaler) remember(now time.Time, window time.Duration, wanted int) int {
	s.past = slices.DeleteFunc(s.past, func(p past) bool { return p.wanted <= wanted || now.Sub(p.at) > window })
	s.past = append(s.past, past{now, wanted})
	return s.past[0].wanted
}

// want is the most that any load asks for; with loads of which nothing is known,
// not less than there are.
func want(current int, loads []Load) (n int, why string) {
	for _, l := range loads {
		if m := l.want(current); m > n || why == "" {
			n, why = m, l.sentence(current)
		}
	}
	if len(loads) == 0 {
		return current, "nothing is measured"
	}
	return n, why
}

// want is how many instances the load asks for. Those that were not measured
// count as idle when there would be more, and as busy when there would be less.
func (l *Load) want(current int) int {
	sum := 0.0
	for _, u := range l.Used {
		sum += u
	}
	missing := max(0, current-len(l.Used))
	least := sum / l.Target
	most := least + float64(missing)
	switch n := float64(current); {
	case len(l.Used) == 0:
	case least > n*(1+tolerance)+rounding:
		return whole(least)
	case most < n*(1-tolerance)-rounding:
		return whole(most)
	}
	return current
}

// whole rounds up, to at least 1 and at most what any app may have.
func whole(v float64) int { return int(min(max(math.Ceil(v-rounding), 1), math.MaxInt32)) }

// short is a figure as people want to read it.
func short(v float64) float64 { return math.Round(v*100) / 100 }

func (l *Load) sentence(current int) string {
	if len(l.Used) == 0 {
		return fmt.Sprintf("%s is not known of any of %d instances", l.Name, current)
	}
	sum := 0.0
	for _, u := range l.Used {
		sum += u
	}
	out := fmt.Sprintf("%s is %v on average, to be %v", l.Name, short(sum/float64(len(l.Used))), l.Target)
	if len(l.Used) < current {
		out += fmt.Sprintf(" (%d of %d instances measured)", len(l.Used), current)
	}
	return out
}
