package marathon

import (
	"fmt"
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
	Finished    int // runs of an app that runs once
	Deployments []string
	LastFailure *Failure
	Waiting     string        // why there are too few instances, "" when there are enough
	Need        int           // how many are lacking
	Delay       time.Duration // until the next launch
	Since       time.Time
	Refused     Refusals
	Readiness   []ReadinessResult // during a deployment
	Residences  []ResidenceView
	Notes       []string // what of the definition means something else here
}

// ResidenceView is a residence as readers see it.
type ResidenceView struct {
	Residence
	Lived bool // a task lives there
}

// Apps returns the apps that the filter wants, by ID, with copies of their
// instances; nil wants all.
func (c *Core) Apps(now time.Time, want func(*App) bool) []AppView {
	out := c.Summaries(now, want)
	for n := range out {
		out[n].Instances = c.apps[out[n].App.ID].copies()
	}
	return out
}

// Summaries is Apps without the instances, which costs much less.
func (c *Core) Summaries(now time.Time, want func(*App) bool) []AppView {
	out := []AppView{}
	for _, id := range slices.Sorted(maps.Keys(c.apps)) {
		a := c.apps[id]
		if !a.stopping && (want == nil || want(a.def)) {
			out = append(out, c.view(now, a))
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
	v := c.view(now, a)
	v.Instances = a.copies()
	return v, true
}

// Definition returns an app's current definition, or false.
func (c *Core) Definition(id string) (*App, bool) {
	a := c.apps[id]
	if a == nil || a.stopping {
		return nil, false
	}
	return a.def, true
}

// Instance returns a copy of the instance of a task, or false.
func (c *Core) Instance(taskID string) (*Instance, bool) {
	i := c.instances[taskID]
	if i == nil {
		return nil, false
	}
	return i.clone(), true
}

func (c *Core) view(now time.Time, a *app) AppView {
	v := AppView{App: a.def, Finished: a.finished(), LastFailure: a.failure, Need: c.need(a), Refused: a.seen, Notes: c.notes(now, a), Readiness: c.Readiness(a.def.ID)}
	for _, d := range a.changes {
		v.Deployments = append(v.Deployments, d.ID)
	}
	v.Refused.Lacking, v.Refused.Largest = maps.Clone(a.seen.Lacking), maps.Clone(a.seen.Largest)
	v.Refused.Unused = slices.Clone(a.seen.Unused)
	if v.Need > 0 || a.blocked() {
		v.Waiting, v.Since = c.reason(now, a), a.since
		v.Delay = max(0, a.delayed.Sub(now))
	}
	if n := a.unready(); v.Waiting == "" && n > 0 {
		v.Waiting = fmt.Sprintf("%d of the new instances have not passed their readiness check yet", n)
	}
	if why := a.braked(now); why != "" {
		v.Notes = append(v.Notes, why)
	}
	v.Notes = append(v.Notes, a.scalingNotes()...)
	if why := a.waitsForPromotion(); v.Waiting == "" {
		v.Waiting = why
	}
	if a.def.Resident() {
		for _, r := range c.residencesOf(a.def.ID) {
			v.Residences = append(v.Residences, ResidenceView{*r, c.lives(r)})
		}
	}
	for _, i := range a.instances {
		v.count(i)
	}
	return v
}

func (a *app) copies() []*Instance {
	out := a.sorted()
	for n, i := range out {
		out[n] = i.clone()
	}
	return out
}

func (i *Instance) clone() *Instance {
	out := *i
	out.checks = cloneChecks(i.checks)
	if len(i.Parts) > 0 {
		out.Parts = make([]*Part, len(i.Parts))
		for n, p := range i.Parts {
			out.Parts[n] = new(*p)
		}
	}
	return &out
}

func (v *AppView) count(i *Instance) {
	switch i.State {
	case task.Staging, task.Starting:
		v.Staged++
	case task.Running, task.Killing:
		v.Running++
	}
	switch h := i.Health(); {
	case h == nil:
	case *h:
		v.Healthy++
	default:
		v.Unhealthy++
	}
}

func cloneChecks(in map[int]*CheckState) map[int]*CheckState {
	if len(in) == 0 {
		return nil
	}
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

// VersionOf is the version that a deployment on its way, or one that has ended
// lately, has given to what it changed; "" when it is not known.
func (c *Core) VersionOf(deployment string) string {
	for _, list := range [][]*Deployment{c.deployments, c.ended} {
		for _, d := range list {
			if d.ID == deployment {
				return d.Version
			}
		}
	}
	return ""
}

// Info is what the core knows of its connection.
func (c *Core) Info() (frameworkID, masterID string, connected bool) {
	return c.frameworkID, c.masterID, c.connected
}
