package bench

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// spread is the middle of some rounds with the smallest and the largest.
func spread[R any, V cmp.Ordered](rounds []R, value func(R) V, text func(V) string) string {
	v := make([]V, len(rounds))
	for i, r := range rounds {
		v[i] = value(r)
	}
	slices.Sort(v)
	if len(v) == 0 {
		return "–"
	}
	if len(v) == 1 {
		return text(v[0])
	}
	return fmt.Sprintf("%s (%s – %s)", text(v[len(v)/2]), text(v[0]), text(v[len(v)-1]))
}

// median is the middle value of the rounds; 0 without any.
func median[R any](rounds []R, value func(R) float64) float64 {
	if len(rounds) == 0 {
		return 0
	}
	v := make([]float64, len(rounds))
	for i, r := range rounds {
		v[i] = value(r)
	}
	slices.Sort(v)
	return v[len(v)/2]
}

func perSecond(v float64) string { return fmt.Sprintf("%.0f/s", v) }

func percent(v float64) string { return fmt.Sprintf("%.1f %%", 100*v) }

func bytesText(n int64) string {
	switch {
	case n >= 10<<20:
		return fmt.Sprintf("%d MB", n>>20)
	default:
		return fmt.Sprintf("%d B", n)
	}
}

func durationText(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= 10*time.Millisecond:
		return d.Round(time.Millisecond).String()
	default:
		return d.Round(time.Microsecond).String()
	}
}

// WriteMaster prints the rounds of one measurement of a master: the middle, and
// the smallest and largest.
func WriteMaster(w io.Writer, rounds []MasterResult) {
	if len(rounds) == 0 {
		return
	}
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	defer t.Flush()
	fmt.Fprintf(t, "%d agents, %d tasks, %d frameworks\t\n", rounds[0].Agents, rounds[0].Tasks, rounds[0].Frameworks)
	for _, l := range masterLines(rounds) {
		fmt.Fprintf(t, "%s\t%s\t\n", l.name, l.value)
	}
}

type line struct{ name, value string }

func masterLines(rounds []MasterResult) []line {
	took := func(f func(MasterResult) time.Duration) string { return spread(rounds, f, durationText) }
	rate := func(f func(MasterResult) float64) string { return spread(rounds, f, perSecond) }
	size := func(f func(MasterResult) int64) string { return spread(rounds, f, bytesText) }
	return []line{
		{"agents registered", took(func(r MasterResult) time.Duration { return r.Registration })},
		{"one allocation of everything", took(func(r MasterResult) time.Duration { return r.Allocation })},
		{"launches", rate(func(r MasterResult) float64 { return r.Launches })},
		{"ACCEPT to launch message, p50", took(func(r MasterResult) time.Duration { return r.AcceptP50 })},
		{"ACCEPT to launch message, p99", took(func(r MasterResult) time.Duration { return r.AcceptP99 })},
		{"state changes, acknowledged", rate(func(r MasterResult) float64 { return r.Changes })},
		{"/state", took(func(r MasterResult) time.Duration { return r.State.Took })},
		{fmt.Sprintf("/state, the longest of %d", asked), took(func(r MasterResult) time.Duration { return r.State.Longest })},
		{"/state, size", size(func(r MasterResult) int64 { return r.State.Bytes })},
		{"GET_STATE, protobuf", took(func(r MasterResult) time.Duration { return r.GetState.Took })},
		{fmt.Sprintf("GET_STATE, the longest of %d", asked), took(func(r MasterResult) time.Duration { return r.GetState.Longest })},
		{"GET_STATE, size", size(func(r MasterResult) int64 { return r.GetState.Bytes })},
		{"longest wait for the loop while reading", took(func(r MasterResult) time.Duration { return r.ReadStall })},
		{"longest wait for the loop", took(func(r MasterResult) time.Duration { return r.Stall })},
		{"failover until all agents are back", took(func(r MasterResult) time.Duration { return r.Failover })},
		{"memory of the master per task", size(func(r MasterResult) int64 { return r.PerTask })},
	}
}
