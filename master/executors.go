package master

import (
	"bytes"
	"maps"
	"slices"

	"github.com/mesopool/mesopool/resources"
)

// Executor is one that tasks of a framework name on an agent: the framework's
// own, or the agent's default one for task groups. Its resources are counted
// once, however many tasks it runs. Rows are never changed.
type Executor struct {
	ID        string
	Framework string
	Agent     string
	Resources resources.Resources // allocated to the role of its first task
	Origin    []byte              // the ExecutorInfo without the framework's ID
}

// counted leaves out ports that are only there for frameworks that insist on
// some: many have the same ones, so that no sum of them means anything.
func (a *agent) counted(r resources.Resources) resources.Resources {
	if !a.SyntheticPorts {
		return r
	}
	return leave(r, func(x *resources.Resource) bool { return x.Name == "ports" })
}

// passing leaves out what an agent gives without having less of it: shared volumes
// besides what is not counted.
func (a *agent) passing(r resources.Resources) resources.Resources {
	return leave(a.counted(r), func(x *resources.Resource) bool { return x.Shared })
}

// leave returns r itself if there is nothing to leave out.
func leave(r resources.Resources, lasting func(*resources.Resource) bool) resources.Resources {
	for i := range r {
		if lasting(&r[i]) {
			return r.Filter(func(x *resources.Resource) bool { return !lasting(x) })
		}
	}
	return r
}

// recount makes the books of an agent without offers anew, when what is counted
// has changed.
func (a *agent) recount() {
	a.used, a.offered = nil, nil
	for t := range a.tasks {
		if !t.State.Terminal() {
			a.used = a.used.Add(a.counted(t.Resources)...)
		}
	}
	for _, e := range a.executors {
		a.used = a.used.Add(a.counted(e.Resources)...)
	}
}

// needs is what launches take that are one, with their executor when that does
// not run yet.
func (a *agent) needs(f *framework, launches []Launch) resources.Resources {
	first := &launches[0]
	total := first.Resources
	for i := range launches[1:] {
		total = total.Add(launches[i+1].Resources...)
	}
	if len(first.ExecutorResources) == 0 || a.executors[executorKey{f.ID, first.Executor}] != nil {
		return total
	}
	return total.Add(first.ExecutorResources...)
}

// clashes says whether a launch's executor differs from the one of its name that
// runs (master/validation.cpp, executor::validateCompatibleExecutorInfo).
func (a *agent) clashes(f *framework, l *Launch) bool {
	known := a.executors[executorKey{f.ID, l.Executor}]
	return known != nil && l.Executor != "" && len(l.ExecutorOrigin) > 0 && !bytes.Equal(known.Origin, l.ExecutorOrigin)
}

// startExecutor counts the executor of a launch, unless it runs already.
func (c *Core) startExecutor(a *agent, f *framework, l *Launch) (runs bool) {
	key := executorKey{f.ID, l.Executor}
	if l.Executor == "" || a.executors[key] != nil {
		return l.Executor != ""
	}
	c.addExecutor(a, f, &Executor{ID: l.Executor, Framework: f.ID, Agent: a.ID, Resources: l.ExecutorResources, Origin: l.ExecutorOrigin})
	return false
}

func (c *Core) addExecutor(a *agent, f *framework, e *Executor) {
	a.executors[executorKey{f.ID, e.ID}] = e
	c.use(a, f, e.Resources)
}

func (c *Core) dropExecutor(a *agent, key executorKey) {
	if e := a.executors[key]; e != nil {
		c.unuse(a, key.framework, e.Resources)
		delete(a.executors, key)
	}
}

// takeExecutors makes the executors those that the agent reports.
func (c *Core) takeExecutors(a *agent, reported []*Executor) {
	seen := map[executorKey]bool{}
	for _, e := range reported {
		key := executorKey{e.Framework, e.ID}
		seen[key] = true
		f := c.frameworks[e.Framework]
		if f == nil || a.executors[key] != nil {
			continue
		}
		row := *e
		row.Agent = a.ID
		c.addExecutor(a, f, &row)
	}
	for key := range a.executors {
		if !seen[key] {
			c.dropExecutor(a, key)
		}
	}
}

// executorsOf returns the agent's executors in a repeatable order.
func (a *agent) executorsOf() []*Executor {
	out := slices.Collect(maps.Values(a.executors))
	slices.SortFunc(out, byExecutor)
	return out
}

// executorIDs are those of a framework on an agent.
func (a *agent) executorIDs(framework string) (out []string) {
	for _, e := range a.executorsOf() {
		if e.Framework == framework {
			out = append(out, e.ID)
		}
	}
	return out
}
