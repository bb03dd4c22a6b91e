package marathon

import (
	"maps"
	"slices"
	"time"

	"github.com/mesopool/mesopool/task"
)

// AppView is an app as readers see it. Nothing in it may be changed.
type AppView struct {
	App         *App
	Instances   []*Instance // copies, by task ID
	Staged      int
	Running     int
	Healthy     int
	Unhealthy   int
	Deployments []string
	LastFailure *Failure
	Waiting     string        // why there are too few instances, "" when there are enough
	Need        int           // how many are lacking
	Delay       time.Duration // until the next launch
	Since       time.Time
	Refused     Refusals
}

// Apps returns the apps that the filter wants, by ID; nil wants all.
func (c *Core) Apps(now time.Time, want func(*App) bool) []AppView {
	locks := map[string][]string{}
	for _, d := range c.deployments {
		for _, id := range d.Apps() {
			locks[id] = append(locks[id], d.ID)
		}
	}
	out := []AppView{}
	for _, id := range slices.Sorted(maps.Keys(c.apps)) {
		a := c.apps[id]
		if !a.stopping && (want == nil || want(a.def)) {
			out = append(out, c.view(now, a, locks[id]))
		}
	}
	return out
}

// App returns one app, or false.
func (c *Core) App(now time.Time, id string) (AppView, bool) {
	a := c.apps[id]
	if a == nil || a.stopping {
		return AppView{}, false
	}
	var locks []string
	for _, d := range c.deployments {
		if slices.Contains(d.Apps(), id) {
			locks = append(locks, d.ID)
		}
	}
	return c.view(now, a, locks), true
}

func (c *Core) view(now time.Time, a *app, locks []string) AppView {
	v := AppView{App: a.def, Deployments: locks, LastFailure: a.failure, Need: c.need(a), Refused: a.seen}
	v.Refused.Lacking, v.Refused.Largest = maps.Clone(a.seen.Lacking), maps.Clone(a.seen.Largest)
	if v.Need > 0 {
		v.Waiting, v.Since = c.reason(now, a), a.since
		v.Delay = max(0, a.delayed.Sub(now))
	}
	for _, id := range slices.Sorted(maps.Keys(a.instances)) {
		i := *a.instances[id]
		i.checks = cloneChecks(i.checks)
		v.Instances = append(v.Instances, &i)
		v.count(&i, a.def)
	}
	return v
}

func (v *AppView) count(i *Instance, a *App) {
	switch i.State {
	case task.Staging, task.Starting:
		v.Staged++
	case task.Running, task.Killing:
		v.Running++
	}
	switch h := i.Health(a); {
	case h == nil:
	case *h:
		v.Healthy++
	default:
		v.Unhealthy++
	}
}

func cloneChecks(in map[int]*CheckState) map[int]*CheckState {
	out := make(map[int]*CheckState, len(in))
	for n, s := range in {
		out[n] = new(*s)
	}
	return out
}

// Checks returns the states of the instance's checks, by their index.
func (i *Instance) Checks() map[int]*CheckState { return i.checks }

// Versions returns an app's versions, newest first.
func (c *Core) Versions(id string) ([]*App, bool) {
	a := c.apps[id]
	if a == nil || a.stopping {
		return nil, false
	}
	return slices.Clone(a.versions), true
}

// Deployments returns copies of those on their way, oldest first.
func (c *Core) Deployments() []Deployment {
	out := make([]Deployment, 0, len(c.deployments))
	for _, d := range c.deployments {
		out = append(out, *d)
	}
	return out
}

// Info is what the core knows of its connection.
func (c *Core) Info() (frameworkID, masterID string, connected bool) {
	return c.frameworkID, c.masterID, c.connected
}

// AppOf returns the app of a task, "" when it is not known.
func (c *Core) AppOf(taskID string) string {
	if i := c.instances[taskID]; i != nil {
		return i.App
	}
	return ""
}
