package marathon

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
)

// Action is one thing a deployment does to an app.
type Action struct {
	Action string `json:"action"`
	App    string `json:"app"`
}

// The actions, by Marathon's names.
const (
	ActionStart   = "StartApplication"
	ActionScale   = "ScaleApplication"
	ActionRestart = "RestartApplication"
	ActionStop    = "StopApplication"
)

// Deployment is a change on its way. Its steps follow one another; the actions
// of a step go on together.
type Deployment struct {
	ID      string     `json:"id"`
	Version string     `json:"version"`
	Steps   [][]Action `json:"steps"`
	Current int        `json:"current"` // index of the step under way

	// Before is what the apps were, for a revert; nil for an app that was not.
	Before map[string]*App `json:"before"`

	at map[string][]int // the steps in which an app is
}

// Apps returns the apps that the deployment changes, sorted.
func (d *Deployment) Apps() []string {
	set := map[string]bool{}
	for _, step := range d.Steps {
		for _, a := range step {
			set[a.App] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// change carries out what a user wants as one deployment.
func (c *Core) change(now time.Time, in Change, fx []Effect) ([]Effect, error) {
	if err := c.mayChange(in); err != nil {
		return fx, err
	}
	d := &Deployment{ID: in.DeploymentID, Version: c.version(now), Before: map[string]*App{}}
	fx = c.supersede(now, touched(in), fx)
	var starts, layers []Action
	for _, def := range in.Put {
		action, more := c.put(now, def, d, slices.Contains(in.Restart, def.ID), fx)
		fx = more
		if c.apps[def.ID].def.VersionInfo.LastConfigChangeAt == d.Version && d.Before[def.ID] == nil {
			starts = append(starts, Action{ActionStart, def.ID})
		}
		if action != "" {
			layers = append(layers, Action{action, def.ID})
		}
		fx = append(fx, Event{Type: "api_post_event", Time: now, Body: map[string]any{"clientIp": in.ClientIP, "uri": in.URI, "appDefinition": c.apps[def.ID].def}})
	}
	if len(in.Delete) > 0 {
		d.Steps = append(d.Steps, c.stopStep(in.Delete, d))
		fx = c.stopApps(in.Delete, fx)
	}
	if len(starts) > 0 {
		d.Steps = append(d.Steps, starts)
	}
	d.Steps = append(d.Steps, c.layered(layers)...)
	return c.begin(now, d, fx), nil
}

func touched(in Change) []string {
	ids := slices.Clone(in.Delete)
	for _, a := range in.Put {
		ids = append(ids, a.ID)
	}
	return ids
}

// mayChange refuses the whole change before anything is done.
func (c *Core) mayChange(in Change) error {
	ids := touched(in)
	if len(slices.Compact(slices.Sorted(slices.Values(ids)))) < len(ids) {
		return problem("/id", "a change can name an app only once: %s", strings.Join(ids, ", "))
	}
	for _, a := range in.Put {
		known := c.apps[a.ID]
		if in.Create && known != nil && !known.stopping {
			return ErrExists
		}
	}
	if err := c.fitsTree(in.Put); err != nil {
		return err
	}
	for _, id := range in.Delete {
		if known := c.apps[id]; known == nil || known.stopping {
			return notFound("App", id)
		}
	}
	if locks := c.locks(ids); len(locks) > 0 && !in.Force {
		return &Locked{Deployments: locks}
	}
	return nil
}

// locks lists the deployments that touch any of the apps.
func (c *Core) locks(ids []string) []string {
	var out []string
	for _, id := range ids {
		if a := c.apps[id]; a != nil {
			for _, d := range a.changes {
				if !slices.Contains(out, d.ID) {
					out = append(out, d.ID)
				}
			}
		}
	}
	return out
}

// fitsTree: an app and a group cannot share an ID, and dependencies must not
// run in a circle.
func (c *Core) fitsTree(put []*App) error {
	next := map[string]*App{}
	for _, a := range put {
		next[a.ID] = a
	}
	for _, a := range put {
		if err := c.alone(a.ID, next); err != nil {
			return err
		}
		if c.circular(a, next) {
			return problem("/dependencies", "the dependencies run in a circle back to %s", a.ID)
		}
	}
	return nil
}

func (c *Core) alone(id string, next map[string]*App) error {
	if below := c.below(id); len(below) > 0 {
		return problem("/id", "an app and a group cannot share an ID: there is an app %s", below[0])
	}
	for g := path.Dir(id); len(g) > 1; g = path.Dir(g) {
		if c.apps[g] != nil || next[g] != nil {
			return problem("/id", "an app and a group cannot share an ID: there is an app %s", g)
		}
	}
	return nil
}

// circular says whether an app depends on itself, over others or not, once the
// new definitions are in force.
func (c *Core) circular(a *App, next map[string]*App) bool {
	seen := map[string]bool{}
	var walk func(ids []string) bool
	walk = func(ids []string) bool {
		for _, id := range ids {
			if id == a.ID || strings.HasPrefix(a.ID, id+"/") {
				return true
			}
			if seen[id] {
				continue
			}
			seen[id] = true
			def := next[id]
			if known := c.apps[id]; def == nil && known != nil {
				def = known.def
			}
			if def != nil && walk(def.Dependencies) || def == nil && walk(c.below(id)) {
				return true
			}
		}
		return false
	}
	return walk(a.Dependencies)
}

// below lists the apps of a group.
func (c *Core) below(group string) []string {
	var out []string
	for id, a := range c.apps {
		if !a.stopping && len(id) > len(group) && id[len(group)] == '/' && id[:len(group)] == group {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// supersede ends the deployments that change the same apps: force was given.
func (c *Core) supersede(now time.Time, ids []string, fx []Effect) []Effect {
	locks := c.locks(ids)
	for _, d := range slices.Clone(c.deployments) {
		if slices.Contains(locks, d.ID) {
			fx = c.endDeployment(now, d, "deployment_failed", "canceled by a newer deployment", fx)
		}
	}
	return fx
}

// put makes a definition the current one and says what has to be done for it:
// nothing, scaling, or a restart of all instances.
func (c *Core) put(now time.Time, def *App, d *Deployment, restart bool, fx []Effect) (string, []Effect) {
	known := c.apps[def.ID]
	next := *def
	next.Version = d.Version
	action := ActionRestart
	switch {
	case known == nil || known.stopping:
		next.VersionInfo = &VersionInfo{LastScalingAt: d.Version, LastConfigChangeAt: d.Version}
		action = ActionScale
	case !restart && sameConfig(known.def, def):
		next.VersionInfo = &VersionInfo{LastScalingAt: known.def.VersionInfo.LastScalingAt, LastConfigChangeAt: known.def.ConfigVersion()}
		action = ""
		if known.def.Instances != def.Instances {
			next.VersionInfo.LastScalingAt = d.Version
			action = ActionScale
		}
		d.Before[def.ID] = known.def
	default:
		next.VersionInfo = &VersionInfo{LastScalingAt: d.Version, LastConfigChangeAt: d.Version}
		d.Before[def.ID] = known.def
	}
	if known == nil {
		known = &app{instances: map[string]*Instance{}}
		c.apps[def.ID] = known
	}
	if known.def == nil || known.def.ConfigVersion() != next.ConfigVersion() {
		known.delay, known.delayed = 0, time.Time{} // a new configuration starts afresh
	}
	known.def, known.stopping = &next, false
	for _, i := range known.instances {
		c.touch(i)
	}
	return action, c.keepVersion(known, &next, fx)
}

// keepVersion saves a version and lets the oldest go.
func (c *Core) keepVersion(a *app, def *App, fx []Effect) []Effect {
	a.versions = append([]*App{def}, a.versions...)
	fx = append(fx, Save{Key: KeyApp + def.ID, Value: SavedApp{App: def}}, Save{Key: KeyVersion + def.Version + def.ID, Value: def})
	if n := len(a.versions); n > c.cfg.KeepVersions {
		last := a.versions[n-1]
		a.versions = a.versions[:n-1]
		fx = append(fx, Save{Key: KeyVersion + last.Version + last.ID})
	}
	return fx
}

func (c *Core) stopStep(ids []string, d *Deployment) []Action {
	var step []Action
	for _, id := range ids {
		d.Before[id] = c.apps[id].def
		step = append(step, Action{ActionStop, id})
	}
	return step
}

func (c *Core) stopApps(ids []string, fx []Effect) []Effect {
	for _, id := range ids {
		a := c.apps[id]
		a.stopping = true
		c.changed[id] = true
		fx = append(fx, Save{Key: KeyApp + id, Value: SavedApp{App: a.def, Stopping: true}})
	}
	return fx
}

// layered orders actions so that what an app depends on comes before it.
func (c *Core) layered(actions []Action) [][]Action {
	depth := map[string]int{}
	var measure func(id string) int
	measure = func(id string) int {
		if d, ok := depth[id]; ok {
			return d
		}
		depth[id] = 0
		if a := c.apps[id]; a != nil {
			for _, dep := range a.def.Dependencies {
				depth[id] = max(depth[id], measure(dep)+1)
			}
		} else {
			for _, dep := range c.below(id) {
				depth[id] = max(depth[id], measure(dep))
			}
		}
		return depth[id]
	}
	byDepth := map[int][]Action{}
	for _, a := range actions {
		d := measure(a.App)
		byDepth[d] = append(byDepth[d], a)
	}
	var out [][]Action
	for _, d := range slices.Sorted(maps.Keys(byDepth)) {
		out = append(out, byDepth[d])
	}
	return out
}

func (c *Core) begin(now time.Time, d *Deployment, fx []Effect) []Effect {
	c.deployments = append(c.deployments, d)
	c.link(d)
	fx = append(fx, Save{Key: KeyDeployment + d.ID, Value: d}, Event{Type: "deployment_info", Time: now, Body: map[string]any{"plan": d, "currentStep": d.step()}})
	return c.advanceDeployments(now, fx)
}

// link notes where the deployment touches which apps.
func (c *Core) link(d *Deployment) {
	d.at = map[string][]int{}
	for n, step := range d.Steps {
		for _, act := range step {
			d.at[act.App] = append(d.at[act.App], n)
		}
	}
	for id := range d.at {
		c.changed[id] = true
		if a := c.apps[id]; a != nil {
			a.changes = append(a.changes, d)
		}
	}
}

// step is the step under way in the form of the events.
func (d *Deployment) step() map[string]any {
	if d.Current >= len(d.Steps) {
		return map[string]any{"actions": []Action{}}
	}
	return map[string]any{"actions": d.Steps[d.Current]}
}

// advanceDeployments moves every deployment on as far as its apps have come.
func (c *Core) advanceDeployments(now time.Time, fx []Effect) []Effect {
	for _, d := range slices.Clone(c.deployments) {
		moved := false
		for d.Current < len(d.Steps) && c.stepDone(d.Steps[d.Current]) {
			fx = append(fx, Event{Type: "deployment_step_success", Time: now, Body: map[string]any{"plan": d, "currentStep": d.step()}})
			d.Current++
			moved = true
		}
		if d.Current >= len(d.Steps) {
			fx = c.endDeployment(now, d, "deployment_success", "", fx)
			continue
		}
		if moved {
			fx = append(fx, Save{Key: KeyDeployment + d.ID, Value: d})
			for _, a := range d.Steps[d.Current] {
				c.changed[a.App] = true
			}
		}
	}
	return fx
}

func (c *Core) stepDone(step []Action) bool {
	for _, s := range step {
		a := c.apps[s.App]
		if a == nil || s.Action == ActionStart {
			continue
		}
		if s.Action == ActionStop && a.stopping || s.Action != ActionStop && !a.settled() {
			return false
		}
	}
	return true
}

// forgetApp removes a stopped app whose instances have ended.
func (c *Core) forgetApp(now time.Time, a *app, fx []Effect) []Effect {
	id := a.def.ID
	delete(c.apps, id)
	fx = append(fx, Save{Key: KeyApp + id}, Event{Type: "app_terminated_event", Time: now, Body: map[string]any{"appId": id}})
	for _, v := range a.versions {
		fx = append(fx, Save{Key: KeyVersion + v.Version + v.ID})
	}
	return fx
}

// keptEnded is how many ended deployments are remembered at least.
const keptEnded = 256

func (c *Core) endDeployment(now time.Time, d *Deployment, event, reason string, fx []Effect) []Effect {
	same := func(x *Deployment) bool { return x == d }
	c.deployments = slices.DeleteFunc(c.deployments, same)
	for id := range d.at {
		c.changed[id] = true
		if a := c.apps[id]; a != nil {
			a.changes = slices.DeleteFunc(a.changes, same)
		}
	}
	c.ended = append(c.ended, d)
	if len(c.ended) > 2*keptEnded {
		c.ended = slices.Clone(c.ended[keptEnded:])
	}
	body := map[string]any{"id": d.ID, "plan": d}
	if reason != "" {
		body["reason"] = reason
	}
	return append(fx, Save{Key: KeyDeployment + d.ID}, Event{Type: event, Time: now, Body: body})
}

// cancelDeployment ends a deployment; with Revert the apps it changed (and
// only those) go back to what they were.
func (c *Core) cancelDeployment(now time.Time, in CancelDeployment, fx []Effect) ([]Effect, error) {
	i := slices.IndexFunc(c.deployments, func(d *Deployment) bool { return d.ID == in.ID })
	if i < 0 {
		return fx, fmt.Errorf("DeploymentPlan %s %w", in.ID, ErrNotFound)
	}
	d := c.deployments[i]
	if !in.Revert {
		return c.endDeployment(now, d, "deployment_failed", "canceled", fx), nil
	}
	back := Change{DeploymentID: in.NewID, Force: true, URI: "/v2/deployments/" + d.ID}
	for _, id := range d.Apps() {
		switch was := d.Before[id]; {
		case was != nil:
			back.Put = append(back.Put, was)
		case c.apps[id] != nil && !c.apps[id].stopping:
			back.Delete = append(back.Delete, id)
		}
	}
	return c.change(now, back, fx)
}

// blocked says whether an app waits for an earlier step of a deployment.
func (a *app) blocked() bool {
	for _, d := range a.changes {
		at := d.at[a.def.ID]
		if !slices.Contains(at, d.Current) && len(at) > 0 && at[len(at)-1] > d.Current {
			return true
		}
	}
	return false
}
