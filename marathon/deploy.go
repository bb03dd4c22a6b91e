package marathon

import (
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
)

// Action is one thing a deployment does to an app or a pod.
type Action struct {
	Action string
	App    string
	Pod    bool
}

// podActions are Marathon's names of actions on a pod (DeploymentStep, raml).
var podActions = map[string]string{ActionStart: "StartPod", ActionScale: "ScalePod", ActionRestart: "RestartPod", ActionStop: "StopPod"}

// wireAction is an action in an answer, and in the store.
type wireAction struct {
	Action string `json:"action"`
	App    string `json:"app,omitempty"`
	Pod    string `json:"pod,omitempty"`
}

// Name is Marathon's name of the action.
func (a Action) Name() string {
	if a.Pod {
		return podActions[a.Action]
	}
	return a.Action
}

// MarshalJSON writes {"action":"StartApplication","app":"/a"}, or a pod's.
func (a Action) MarshalJSON() ([]byte, error) {
	if a.Pod {
		return json.Marshal(wireAction{Action: a.Name(), Pod: a.App})
	}
	return json.Marshal(wireAction{Action: a.Action, App: a.App})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (a *Action) UnmarshalJSON(text []byte) error {
	var w wireAction
	if err := json.Unmarshal(text, &w); err != nil {
		return err
	}
	*a = Action{Action: w.Action, App: w.App}
	for kind, name := range podActions {
		if w.Pod != "" && name == w.Action {
			*a = Action{Action: kind, App: w.Pod, Pod: true}
		}
	}
	return nil
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

	// Groups is what the records of groups were, nil for one that was not.
	Groups map[string]*Group `json:"groups,omitempty"`

	Since   time.Time `json:"since"`             // when the step under way began
	Reverts bool      `json:"reverts,omitempty"` // it goes back from another one
	Auto    bool      `json:"auto,omitempty"`    // the scheduler scales by itself: it locks nothing

	at       map[string][]int // the steps in which an app is
	failures map[string]int   // instances of what is being deployed that have failed, by app
}

// Touched returns the IDs of the apps, or the pods, that the deployment changes,
// sorted.
func (d *Deployment) Touched(pods bool) []string {
	out := []string{}
	for _, id := range d.Apps() {
		for _, a := range slices.Concat(d.Steps...) {
			if a.App == id && a.Pod == pods {
				out = append(out, id)
				break
			}
		}
	}
	return out
}

// Apps returns the apps and pods that the deployment changes, sorted.
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
	c.fill(&in)
	if err := c.mayChange(in); err != nil {
		return fx, err
	}
	d := &Deployment{ID: in.DeploymentID, Version: c.version(now), Before: map[string]*App{}, Steps: c.steps(in), Since: now, Reverts: in.reverts, Auto: in.auto != ""}
	fx = c.supersede(now, touched(in), fx)
	before := map[string]*App{}
	for _, def := range in.Put {
		if known := c.apps[def.ID]; known != nil {
			before[def.ID] = known.def
		}
	}
	for _, def := range in.Put {
		fx = c.put(def, d, c.actionFor(def, &in), fx)
		if in.Live || in.reverts {
			c.recheck(now, c.apps[def.ID])
		}
		fx = append(fx, changed(now, &in, c.apps[def.ID].def, d))
	}
	for _, id := range in.Delete {
		if c.apps[id].def.IsPod() {
			fx = append(fx, Event{Type: "pod_deleted_event", Time: now, Body: map[string]any{"clientIp": in.ClientIP, "uri": in.URI}})
		}
	}
	fx = c.stopApps(now, in.Delete, d, fx)
	fx = c.putGroups(in, d, fx)
	fx = c.noteChange(now, &in, d, before, fx)
	return c.begin(now, d, fx), nil
}

// changed tells of a definition that somebody has put.
func changed(now time.Time, in *Change, def *App, d *Deployment) Event {
	out := Event{Type: "api_post_event", Time: now, Body: map[string]any{"clientIp": in.ClientIP, "uri": in.URI}}
	switch {
	case !def.IsPod():
		out.Body["appDefinition"] = def
	case d.Before[def.ID] == nil:
		out.Type = "pod_created_event"
	default:
		out.Type = "pod_updated_event"
	}
	return out
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
		if why := a.outOfBounds(); why != "" {
			return problem("/instances", "%s: %s", a.ID, why)
		}
		if known == nil || known.stopping {
			continue
		}
		if in.Create {
			return ErrExists
		}
		if known.def.IsPod() != a.IsPod() {
			return problem("/id", "an app and a pod cannot share an ID: %s", a.ID)
		}
		if err := staysResident(known.def, a); err != nil {
			return err
		}
	}
	for id, version := range in.Expect {
		if known := c.apps[id]; known == nil || known.stopping || version != "*" && version != known.def.Version {
			return fmt.Errorf("App '%s' %w: it is not in version %s", id, ErrStale, version)
		}
	}
	if err := c.fitsTree(in); err != nil {
		return err
	}
	for _, id := range in.Delete {
		if known := c.apps[id]; known == nil || known.stopping {
			return notFound("App", id)
		}
	}
	if locks := c.locks(ids, false); len(locks) > 0 && !in.Force {
		return &Locked{Deployments: locks}
	}
	return nil
}

// locks lists the deployments that touch any of the apps; those by which they are
// autoscaled give way to everything else, and count only with all.
func (c *Core) locks(ids []string, all bool) []string {
	var out []string
	for _, id := range ids {
		if a := c.apps[id]; a != nil {
			for _, d := range a.changes {
				if (all || !d.Auto) && !slices.Contains(out, d.ID) {
					out = append(out, d.ID)
				}
			}
		}
	}
	return out
}

// fitsTree: an app and a group cannot share an ID, and dependencies must not
// run in a circle.
func (c *Core) fitsTree(in Change) error {
	next := c.after(in)
	look := in.Put
	for _, g := range in.Groups {
		if next.app(g.ID) != nil {
			return problem("/id", "an app and a group cannot share an ID: there is an app %s", g.ID)
		}
		for _, id := range next.below(g.ID) {
			if len(g.Dependencies) > 0 && next.apps[id] == nil {
				look = append(slices.Clip(look), next.app(id))
			}
		}
	}
	for _, a := range look {
		if err := next.alone(a.ID); err != nil {
			return err
		}
		if next.circular(a) {
			return problem("/dependencies", "the dependencies run in a circle back to %s", a.ID)
		}
	}
	return nil
}

func (o *outlook) alone(id string) error {
	if below := o.below(id); len(below) > 0 {
		return problem("/id", "an app and a group cannot share an ID: there is an app %s", below[0])
	}
	if o.group(id) != nil {
		return problem("/id", "an app and a group cannot share an ID: there is a group %s", id)
	}
	for g := path.Dir(id); len(g) > 1; g = path.Dir(g) {
		if o.app(g) != nil || o.core.apps[g] != nil && !o.gone[g] {
			return problem("/id", "an app and a group cannot share an ID: there is an app %s", g)
		}
	}
	return nil
}

// below lists the apps of a group.
func (c *Core) below(group string) []string {
	var out []string
	for id, a := range c.apps {
		if !a.stopping && inGroup(id, group) {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// supersede ends the deployments that change the same apps: force was given.
func (c *Core) supersede(now time.Time, ids []string, fx []Effect) []Effect {
	locks := c.locks(ids, true)
	for _, d := range slices.Clone(c.deployments) {
		if slices.Contains(locks, d.ID) {
			fx = c.endDeployment(now, d, "deployment_failed", "canceled by a newer deployment", fx)
		}
	}
	return fx
}

// put makes a definition the current one; the action says what it changes.
func (c *Core) put(def *App, d *Deployment, action string, fx []Effect) []Effect {
	known := c.apps[def.ID]
	next := *def
	next.Version, next.open = d.Version, false
	next.VersionInfo = &VersionInfo{LastScalingAt: d.Version, LastConfigChangeAt: d.Version}
	if action != ActionStart {
		d.Before[def.ID] = known.def
	}
	if action == ActionScale || action == "" {
		next.VersionInfo.LastConfigChangeAt = known.def.ConfigVersion()
	}
	if action == ActionRestart && d.Reverts && def.VersionInfo != nil {
		next.VersionInfo.LastConfigChangeAt = def.ConfigVersion() // what runs of it need not be restarted
	}
	if action == "" {
		next.VersionInfo.LastScalingAt = known.def.VersionInfo.LastScalingAt
	}
	if known == nil {
		known = &app{core: c, instances: map[string]*Instance{}}
		c.apps[def.ID] = known
	}
	if known.def == nil || known.def.ConfigVersion() != next.ConfigVersion() {
		known.delay, known.delayed, known.secrets = 0, time.Time{}, secretsOf{} // a new configuration starts afresh
	}
	old, waits := known.def, known.def != nil && known.held()
	known.def, known.stopping = &next, false
	c.noteWide(known)
	if next.Everywhere {
		c.lookAround = time.Time{}
	}
	known.decideCanary(action, old, waits, d)
	if action == ActionStart {
		old = nil
	}
	if known.rescale(d.Since, old); known.scaling != nil {
		c.keepMeasuring(d.Since)
	}
	if action == ActionStart {
		known.good = nil
	} else {
		known.redefine()
	}
	for _, i := range known.instances {
		c.touch(i)
	}
	return c.keepVersion(known, &next, fx)
}

// keepVersion saves a version and lets the oldest go.
func (c *Core) keepVersion(a *app, def *App, fx []Effect) []Effect {
	a.versions = append([]*App{def}, a.versions...)
	fx = append(fx, Save{Key: KeyApp + def.ID, Value: a.record()}, Save{Key: KeyVersion + def.Version + def.ID, Value: def})
	if len(a.versions) > c.cfg.KeepVersions {
		n := a.spareVersion()
		last := a.versions[n]
		a.versions = slices.Delete(slices.Clone(a.versions), n, n+1)
		fx = append(fx, Save{Key: KeyVersion + last.Version + last.ID})
	}
	return fx
}

// spareVersion is the one to forget: the oldest, but of an app that is autoscaled
// rather the oldest that only scaled. It makes many of those.
func (a *app) spareVersion() int {
	last := len(a.versions) - 1
	for n := last; a.def.Autoscale != nil && n > 1; n-- {
		if v := a.versions[n]; v != a.good && v.ConfigVersion() == a.versions[n-1].ConfigVersion() {
			return n
		}
	}
	return last
}

func (c *Core) stopApps(now time.Time, ids []string, d *Deployment, fx []Effect) []Effect {
	for _, id := range ids {
		a := c.apps[id]
		d.Before[id] = a.def
		a.stopping = true
		c.noteWide(a)
		c.changed[id] = true
		fx = c.vacateAll(now, id, fx)
		fx = append(fx, Save{Key: KeyApp + id, Value: a.record()})
	}
	return fx
}

func (c *Core) begin(now time.Time, d *Deployment, fx []Effect) []Effect {
	c.deployments = append(c.deployments, d)
	c.link(d)
	c.stepBegins(d)
	fx = append(fx, Save{Key: KeyDeployment + d.ID, Value: d}, Event{Type: "deployment_info", Time: now, Body: map[string]any{"plan": d.plan(), "currentStep": d.step()}})
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

// stepInfo is a step as events show it.
type stepInfo struct {
	Actions []Action `json:"actions"`
}

// step is the step under way in the form of the events.
func (d *Deployment) step() stepInfo {
	if d.Current >= len(d.Steps) {
		return stepInfo{[]Action{}}
	}
	return stepInfo{d.Steps[d.Current]}
}

// plan is the deployment in the form of the events: Marathon's light one, without
// the whole tree of groups before and after.
func (d *Deployment) plan() map[string]any {
	steps := make([]stepInfo, len(d.Steps))
	for n, actions := range d.Steps {
		steps[n].Actions = actions
	}
	return map[string]any{"id": d.ID, "version": d.Version, "steps": steps}
}

// advanceDeployments moves every deployment on as far as its apps have come.
func (c *Core) advanceDeployments(now time.Time, fx []Effect) []Effect {
	for _, d := range slices.Clone(c.deployments) {
		moved := false
		if !slices.Contains(c.deployments, d) {
			continue // ended by one that another has brought about
		}
		for d.Current < len(d.Steps) && c.stepDone(d.Steps[d.Current]) {
			fx = append(fx, Event{Type: "deployment_step_success", Time: now, Body: map[string]any{"plan": d.plan(), "currentStep": d.step()}})
			d.Current++
			d.Since, moved = now, true
		}
		if d.Current >= len(d.Steps) {
			fx = c.worked(d, fx)
			fx = c.endDeployment(now, d, "deployment_success", "", fx)
			continue
		}
		if failed, reason := c.overLimit(now, d); len(failed) > 0 {
			fx = c.failDeployment(now, d, failed, reason, fx)
			continue
		}
		if moved {
			c.stepBegins(d)
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
	delete(c.wide, id)
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
	body := map[string]any{"id": d.ID, "plan": d.plan()}
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
		fx = c.note(now, in.Author, AuditEntry{What: "stop deployment", Deployment: d.ID, Actions: cut(slices.Concat(d.Steps...))}, fx)
		return c.endDeployment(now, d, "deployment_failed", "canceled", fx), nil
	}
	back := Change{DeploymentID: in.NewID, Force: true, reverts: true, Author: in.Author}
	for _, id := range d.Apps() {
		switch was := d.Before[id]; {
		case was != nil:
			back.Put = append(back.Put, was)
		case c.apps[id] != nil && !c.apps[id].stopping:
			back.Delete = append(back.Delete, id)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(d.Groups)) {
		switch was := d.Groups[id]; {
		case was != nil:
			back.Groups = append(back.Groups, was)
		case c.groups[id] != nil:
			back.DeleteGroups = append(back.DeleteGroups, id)
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
