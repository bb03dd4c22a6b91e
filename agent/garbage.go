package agent

import (
	"cmp"
	"slices"
	"time"

	"github.com/mesopool/mesopool/gc"
	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

// kept is a container that waits for its removal.
type kept struct {
	key  task.Key
	name string
}

func outcome(s task.State) gc.Outcome {
	switch s {
	case task.Finished:
		return gc.Succeeded
	case task.Killed, task.GoneByOperator:
		return gc.Killed
	}
	return gc.Failed
}

// byExit guesses from how it ended what became of a container whose task is
// forgotten.
func byExit(k *provider.Container) gc.Outcome {
	switch {
	case k.HasExit && k.ExitCode == 0:
		return gc.Succeeded
	case !k.OOMKilled && (k.ExitCode == 128+9 || k.ExitCode == 128+15):
		return gc.Killed
	}
	return gc.Failed
}

func (c *Core) removal(id string) Call {
	return Call{Op: OpRemove, ID: id, Key: c.kept[id].key, Tries: c.gc.Failures(id)}
}

// Disposal is what becomes of a container that is not, or no longer, a task's
// that runs.
type Disposal struct {
	ID    string
	Name  string
	Key   task.Key
	Ended time.Time // zero: it runs, or nobody knows
	At    time.Time // when something is done; zero: not before something else happens
	Why   string
}

// Garbage says of each container that has ended, and of each that belongs to no
// task, why it goes or stays, oldest first. It changes nothing.
func (c *Core) Garbage(now time.Time) []Disposal {
	out := []Disposal{}
	for _, r := range c.sorted() {
		if r.State.Terminal() && r.Container.ID != "" {
			out = append(out, Disposal{ID: r.Container.ID, Name: r.Name, Key: r.key, Ended: r.Container.Ended, Why: "stays: the end of its task is not acknowledged"})
		}
	}
	for id, r := range c.orphans {
		d := Disposal{ID: id, Name: r.Name, Key: r.key, At: r.tryAt, Why: "is stopped: it belongs to no task"}
		if r.tryAt.After(now) {
			d.Why = "runs until its grace is over: it belongs to no task"
		}
		out = append(out, d)
	}
	slices.SortStableFunc(out, func(a, b Disposal) int { return cmp.Or(a.Ended.Compare(b.Ended), cmp.Compare(a.ID, b.ID)) })
	for _, v := range c.gc.Explain(c.cfg.GC, now) {
		k := c.kept[v.ID]
		out = append(out, Disposal{ID: v.ID, Name: k.name, Key: k.key, Ended: v.Ends, At: v.At, Why: v.Why})
	}
	return out
}
