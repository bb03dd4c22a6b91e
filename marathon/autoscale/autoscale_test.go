package autoscale

import (
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestRate(t *testing.T) {
	type step struct {
		at    time.Duration
		value float64
		want  float64 // below 0: not known
	}
	for name, steps := range map[string][]step{
		"a rate":                  {{0, 10, -1}, {10 * time.Second, 30, 2}, {15 * time.Second, 30, 0}},
		"a restart is no load":    {{0, 10, -1}, {10 * time.Second, 3, -1}, {20 * time.Second, 23, 2}},
		"the same count again":    {{0, 10, -1}, {0, 10, -1}, {10 * time.Second, 20, 1}},
		"too soon":                {{0, 10, -1}, {time.Second / 2, 11, -1}, {2 * time.Second, 12, 1}},
		"a gap":                   {{0, 10, -1}, {time.Hour, 9999, -1}, {time.Hour + 10*time.Second, 10009, 1}},
		"a clock that goes back":  {{0, 10, -1}, {-time.Hour, 20, -1}, {10*time.Second - time.Hour, 30, 1}},
		"what is no count":        {{0, 10, -1}, {10 * time.Second, math.NaN(), -1}, {20 * time.Second, 30, -1}, {30 * time.Second, 40, 1}},
		"what cannot be a count":  {{0, -1, -1}, {10 * time.Second, 10, -1}},
		"what is without an end":  {{0, math.Inf(1), -1}, {10 * time.Second, math.Inf(1), -1}},
		"nothing happens at all":  {{0, 0, -1}, {10 * time.Second, 0, 0}},
		"a counter begins at 0":   {{0, 0, -1}, {10 * time.Second, 5, 0.5}},
		"a restart, then a count": {{0, 100, -1}, {10 * time.Second, 0, -1}, {20 * time.Second, 100, 10}},
	} {
		var g Gauge
		for n, s := range steps {
			got, known := g.Rate(Count{t0.Add(s.at), s.value})
			if known != (s.want >= 0) || known && got != s.want {
				t.Errorf("%s, step %d: %v, %v; want %v", name, n, got, known, s.want)
			}
		}
	}
}

func same(n int, v float64) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = v
	}
	return out
}

// decided is after a long time of the same load.
func decided(r Rules, current int, loads ...Load) Advice {
	var s Scaler
	s.Restart(t0)
	var out Advice
	for at := time.Duration(0); at <= max(r.Cooldown, r.DownAfter); at += 15 * time.Second {
		out = s.Decide(t0.Add(at), r, current, loads)
	}
	return out
}

func TestArithmetic(t *testing.T) {
	r := Rules{Min: 1, Max: 100, Cooldown: time.Minute, DownAfter: 5 * time.Minute}
	cpu := func(used ...float64) Load { return Load{"cpu", 0.5, used} }
	rps := func(used ...float64) Load { return Load{"requests", 100, used} }
	for name, x := range map[string]struct {
		current int
		loads   []Load
		want    int
	}{
		"on target":                           {4, []Load{cpu(same(4, 0.5)...)}, 4},
		"a tenth above":                       {10, []Load{cpu(same(10, 0.55)...)}, 10},
		"a bit more":                          {10, []Load{cpu(same(10, 0.56)...)}, 12},
		"a tenth below":                       {10, []Load{cpu(same(10, 0.45)...)}, 10},
		"a bit less":                          {10, []Load{cpu(same(10, 0.44)...)}, 9},
		"half as much again":                  {4, []Load{cpu(same(4, 0.75)...)}, 6},
		"uneven":                              {4, []Load{cpu(1, 1, 0.5, 0.5)}, 6},
		"ten times: doubled":                  {4, []Load{cpu(same(4, 5)...)}, 8},
		"from one":                            {1, []Load{cpu(5)}, 2},
		"nothing: halved":                     {9, []Load{cpu(same(9, 0)...)}, 5},
		"one of two":                          {2, []Load{cpu(0, 0)}, 1},
		"one stays":                           {1, []Load{cpu(0)}, 1},
		"whole numbers are not rounded up":    {4, []Load{cpu(same(4, 0.375)...)}, 3},
		"a sum that floats cannot do":         {7, []Load{{"x", 0.7, same(7, 0.5)}}, 5},
		"nobody was measured":                 {4, []Load{cpu()}, 4},
		"nothing is to be measured":           {4, nil, 4},
		"up, the missing are idle":            {4, []Load{cpu(1, 1)}, 4},
		"up in spite of that":                 {4, []Load{cpu(1.5, 1.5)}, 6},
		"down, the missing are busy":          {4, []Load{cpu(0, 0)}, 2},
		"down, too many are missing":          {10, []Load{cpu(0)}, 10},
		"the greater need counts":             {4, []Load{cpu(same(4, 0.1)...), rps(same(4, 200)...)}, 8},
		"one does not know: not down":         {4, []Load{cpu(same(4, 0.1)...), rps()}, 4},
		"one does not know: up":               {4, []Load{cpu(same(4, 0.75)...), rps()}, 6},
		"more were measured than there shall": {2, []Load{cpu(0.5, 0.5, 0.5)}, 3},
		"absurdly much":                       {50, []Load{cpu(same(50, 1e300)...)}, 100},
	} {
		if got := decided(r, x.current, x.loads...); got.Instances != x.want {
			t.Errorf("%s: %+v, want %d", name, got, x.want)
		}
	}
	if got := decided(Rules{Min: 3, Max: 5}, 4, cpu(same(4, 0)...)); got.Instances != 3 || got.Wanted != 1 {
		t.Errorf("at the lower bound: %+v", got)
	}
	if got := decided(Rules{Min: 3, Max: 5}, 4, cpu(same(4, 9)...)); got.Instances != 5 {
		t.Errorf("at the upper bound: %+v", got)
	}
	if why := decided(r, 4, cpu(1.5, 1.5)).Why; why != "cpu is 1.5 on average, to be 0.5 (2 of 4 instances measured)" {
		t.Error(why)
	}
	if why := decided(r, 4, cpu()).Why; !strings.Contains(why, "not known of any of 4") {
		t.Error(why)
	}
}

// More is decided as soon as the cool-down is over, less only when less has been
// enough for the whole window.
func TestCooldownAndWindow(t *testing.T) {
	r := Rules{Min: 1, Max: 100, Cooldown: time.Minute, DownAfter: 3 * time.Minute}
	busy, idle, half := []Load{{"cpu", 0.5, same(4, 1)}}, []Load{{"cpu", 0.5, same(4, 0)}}, []Load{{"cpu", 0.5, same(4, 0.3)}}
	for name, x := range map[string]struct {
		load func(at time.Duration) []Load
		gap  time.Duration // nobody asks from the first minute to here
		when time.Duration // of the first change
		want int
	}{
		"up":          {func(time.Duration) []Load { return busy }, 0, time.Minute, 8},
		"down":        {func(time.Duration) []Load { return idle }, 0, 3 * time.Minute, 2},
		"a peak":      {func(at time.Duration) []Load { return either(at == time.Minute/2, busy, idle) }, 0, 225 * time.Second, 2}, // it comes while it cools down
		"more lately": {func(at time.Duration) []Load { return either(at > 2*time.Minute, half, idle) }, 0, 3 * time.Minute, 3},
		"a gap":       {func(time.Duration) []Load { return idle }, 10 * time.Minute, 13 * time.Minute, 2},
		"unknown":     {func(at time.Duration) []Load { return either(at == 2*time.Minute, []Load{{"cpu", 0.5, nil}}, idle) }, 0, 5*time.Minute + 15*time.Second, 2},
	} {
		var s Scaler
		s.Restart(t0)
		for at := time.Duration(0); ; at += 15 * time.Second {
			if at > time.Minute && at < x.gap {
				continue
			}
			if at > time.Hour {
				t.Errorf("%s: no change", name)
				break
			}
			if got := s.Decide(t0.Add(at), r, 4, x.load(at)); got.Instances != 4 {
				if at < x.when || at > x.when+30*time.Second || got.Instances != x.want {
					t.Errorf("%s: %+v after %v, want %d after %v", name, got, at, x.want, x.when)
				}
				break
			}
		}
	}
}

func either(first bool, a, b []Load) []Load {
	if first {
		return a
	}
	return b
}

// Whatever is measured, and whoever else changes the number: the bounds hold, no
// step is too great, nothing changes while it cools down, nothing for want of
// figures, and less only if it has been enough all the while.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lowest := rapid.IntRange(1, 20).Draw(t, "min")
		r := Rules{
			Min: lowest, Max: lowest + rapid.IntRange(0, 40).Draw(t, "more"),
			Cooldown:  time.Duration(rapid.IntRange(0, 120).Draw(t, "cooldown")) * time.Second,
			DownAfter: time.Duration(rapid.IntRange(0, 600).Draw(t, "window")) * time.Second,
		}
		target := rapid.Float64Range(0.01, 1000).Draw(t, "target")
		current := rapid.IntRange(r.Min, r.Max).Draw(t, "current")
		now, changed := t0, t0
		var s Scaler
		s.Restart(now)
		lastNeed := t0.Add(-time.Hour) // of so many as there are
		for range rapid.IntRange(1, 80).Draw(t, "rounds") {
			now = now.Add(time.Duration(rapid.IntRange(1, 90).Draw(t, "passed")) * time.Second)
			measured := rapid.IntRange(0, current).Draw(t, "measured")
			load := Load{Name: "x", Target: target}
			for range measured {
				load.Used = append(load.Used, target*rapid.SampledFrom([]float64{0, 0.3, 0.5, 0.9, 1, 1.05, 1.5, 4, 1e6}).Draw(t, "used"))
			}
			got := s.Decide(now, r, current, []Load{load}).Instances
			need := load.want(current)
			if need >= current {
				lastNeed = now
			}
			if got < r.Min || got > r.Max {
				t.Fatalf("%d is not in %d to %d", got, r.Min, r.Max)
			}
			if got > 2*current || got < current/2 {
				t.Fatalf("from %d to %d in one step", current, got)
			}
			if got != current && now.Sub(changed) < r.Cooldown {
				t.Fatalf("from %d to %d %v after the last change, in a cool-down of %v", current, got, now.Sub(changed), r.Cooldown)
			}
			if got != current && measured == 0 {
				t.Fatalf("from %d to %d without figures", current, got)
			}
			if got < current && (now.Sub(changed) < r.DownAfter || now.Sub(lastNeed) <= r.DownAfter) {
				t.Fatalf("from %d to %d; %v ago so many were needed, the window is %v", current, got, now.Sub(lastNeed), r.DownAfter)
			}
			if got > current && need <= current || got < current && need >= current {
				t.Fatalf("from %d to %d, needed are %d", current, got, need)
			}
			if len(s.past) > r.Max-r.Min+1 {
				t.Fatalf("%d entries are kept", len(s.past))
			}
			if rapid.IntRange(0, 20).Draw(t, "somebody") == 0 {
				got = rapid.IntRange(r.Min, r.Max).Draw(t, "by hand")
			}
			if got != current {
				current, changed, lastNeed = got, now, t0.Add(-time.Hour)
				s.Restart(now)
			}
		}
	})
}

// What is not measured never makes a step larger than if it were.
func TestMissingIsConservative(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		used := rapid.SliceOfN(rapid.Float64Range(0, 1), 1, 30).Draw(t, "used")
		l := Load{Name: "x", Target: 0.5, Used: used}
		all := l.want(len(used))
		l.Used = used[:rapid.IntRange(0, len(used)).Draw(t, "measured")]
		some := l.want(len(used))
		idle := Load{Name: "x", Target: 0.5, Used: append(append([]float64{}, l.Used...), make([]float64, len(used)-len(l.Used))...)}
		if some > len(used) && some > idle.want(len(used)) {
			t.Fatalf("%d of %v would have %d, idle ones %d", len(l.Used), used, some, idle.want(len(used)))
		}
		if some > len(used) && some > all {
			t.Fatalf("%d of %v would have %d, all of them %d", len(l.Used), used, some, all)
		}
	})
}
