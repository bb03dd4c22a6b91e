package sim

import (
	"maps"
	"math"
	"slices"

	"github.com/mesopool/mesopool/marathon"
	"github.com/mesopool/mesopool/task"
)

// rules is what Marathon promises of every app, whatever happens: it looks at
// what Marathon was told, what it has saved, and what agents and master say,
// and never at what it thinks.
type rules struct {
	w           *World
	apps        map[string]marathon.SavedApp
	deployments map[string]marathon.Deployment
	residences  map[string]marathon.Residence
	fellows     map[string]map[string]*fellow // by app and instance
	byTask      map[string]*fellow            // pods have several tasks
	framework   string
}

// fellow is an instance that Marathon has launched.
type fellow struct {
	id, app, version, agent, residence string
	def                                *marathon.App
	tasks                              map[string]task.State // the last that Marathon heard of each
	over                               map[string]bool       // the tasks that have ended in truth, or never were
	lost                               bool                  // it was out of reach once
	gone                               bool                  // Marathon has no record any more
	killing                            bool
	gated                              bool // has to show that it is ready
	ready                              bool
	alive                              map[int]bool    // the last results of checks, in this life of Marathon
	word                               map[string]bool // and what the agent says of its own
}

func newRules(w *World) *rules {
	return &rules{
		w: w, apps: map[string]marathon.SavedApp{}, deployments: map[string]marathon.Deployment{}, residences: map[string]marathon.Residence{},
		fellows: map[string]map[string]*fellow{}, byTask: map[string]*fellow{},
	}
}

// begins: after a restart nothing is known of anybody's health.
func (r *rules) begins() {
	for _, f := range r.byTask {
		clear(f.alive)
		clear(f.word)
	}
}

// heardOf: the master tells how a task does, or that there is no such task.
func (r *rules) heardOf(taskID string, s task.State) {
	if f := r.byTask[taskID]; f != nil {
		f.lost = f.lost || s == task.Unreachable
		if s.Terminal() || s == task.Unknown {
			f.over[taskID] = true
		}
	}
}

// reported: an agent tells how a task does.
func (r *rules) reported(taskID string, s task.State) {
	if f := r.byTask[taskID]; f != nil && s.Terminal() {
		f.over[taskID] = true
	}
}

// ended says whether nothing of the instance runs or will.
func (f *fellow) ended() bool { return len(f.over) == len(f.tasks) }

// heard is the state that the instance is in, as far as Marathon was told.
func (f *fellow) heard() task.State {
	out := task.Finished
	for _, s := range f.tasks {
		switch {
		case s == task.Unreachable || s.Terminal() && s != task.Finished:
			return s // what ends badly takes the others with it
		case !s.Terminal() && (out.Terminal() || s.Rank() < out.Rank()):
			out = s
		}
	}
	return out
}

// serves says whether Marathon has been told that the instance is well.
func (f *fellow) serves() bool {
	if f.gone || f.killing || f.heard() != task.Running || f.gated && !f.ready {
		return false
	}
	for n := range f.def.HealthChecks {
		if f.def.HealthChecks[n].Protocol == "COMMAND" {
			if !f.word[f.id] {
				return false
			}
		} else if !f.alive[n] {
			return false
		}
	}
	return f.podServes()
}

// podServes: the agent checks the containers of pods.
func (f *fellow) podServes() bool {
	if !f.def.IsPod() {
		return true
	}
	for id, s := range f.tasks {
		for i := range f.def.Pod.Containers {
			c := &f.def.Pod.Containers[i]
			if id == f.id+"."+c.Name+".1" && c.HealthCheck != nil && !s.Terminal() && !f.word[id] {
				return false
			}
		}
	}
	return true
}

// counts says whether the instance takes one of the places that an app has.
// One that was out of reach counts when Marathon knows that it is back.
func (f *fellow) counts() bool {
	if f.lost {
		return !f.ended() && !f.gone && f.heard() != task.Unreachable
	}
	return !f.ended()
}

// batch is what has changed with a commit.
type batch struct {
	versions map[string][]marathon.SavedApp // what apps were before they were saved
	plans    map[string]marathon.Deployment // before the batch
	serving  map[*fellow]bool
	back     map[*fellow]bool // out of reach before
	asked    map[string]bool
	built    map[string]bool // residences
	launched []*fellow
	killed   []*fellow
}

// committed follows a batch of Marathon that was saved.
func (r *rules) committed(inbox []request, fx []marathon.Effect) {
	b := &batch{back: map[*fellow]bool{}, asked: map[string]bool{}, built: map[string]bool{}, plans: r.deployments, serving: map[*fellow]bool{}, versions: map[string][]marathon.SavedApp{}}
	for _, in := range inbox {
		r.hears(b, in.told)
	}
	for _, e := range fx {
		if s, ok := e.(marathon.Save); ok {
			r.saved(b, s)
		}
	}
	for _, f := range b.launched {
		f.gated = len(f.def.Readiness) > 0 && r.changing(b.plans, f.app) && r.changing(r.deployments, f.app)
		r.mayLaunch(b, f)
	}
	r.release()
	for _, f := range b.killed {
		r.mayKill(b, f)
	}
	r.plans()
}

// hears takes one fact, as it was before a hook has changed it.
func (r *rules) hears(b *batch, in marathon.Input) {
	switch in := in.(type) {
	case marathon.Subscribed:
		r.subscribed(in.FrameworkID)
	case marathon.Updated:
		if f := r.byTask[in.TaskID]; f != nil {
			was := f.heard()
			f.hears(in)
			b.back[f] = b.back[f] || was == task.Unreachable && f.heard() != was
		}
	case marathon.Checked:
		if f := r.byTask[in.TaskID]; f != nil {
			f.alive[in.Index] = in.Alive
		}
	case marathon.CheckedReady:
		if f := r.byTask[in.TaskID]; f != nil && in.Status == 200 {
			f.ready = true
		}
	case marathon.KillTasks:
		for _, id := range in.IDs {
			b.asked[id] = true
		}
	}
}

// subscribed: the tasks of a framework that was removed are ended by their
// agents, and nobody is told.
func (r *rules) subscribed(framework string) {
	if framework != r.framework {
		for id, f := range r.byTask {
			f.over[id] = true
		}
	}
	r.framework = framework
}

// hears: states grow, but for what was out of reach.
func (f *fellow) hears(in marathon.Updated) {
	s, was := in.Status.State, f.tasks[in.TaskID]
	if s == task.Running {
		f.word[in.TaskID] = in.Status.Healthy != nil && *in.Status.Healthy
	}
	if s == task.Unknown {
		s = task.Gone
	}
	if s == task.Unreachable || was == task.Unreachable || s.Rank() > was.Rank() {
		f.tasks[in.TaskID] = s
	}
}

func (r *rules) saved(b *batch, s marathon.Save) {
	if s.Value == nil {
		r.removed(s.Key)
	}
	switch v := s.Value.(type) {
	case marathon.SavedApp:
		id := v.App.ID
		if old, known := r.apps[id]; known {
			b.versions[id] = append(b.versions[id], old)
		}
		r.apps[id] = v
	case *marathon.Deployment:
		r.deployments = maps.Clone(r.deployments)
		r.deployments[v.ID] = *v
	case *marathon.Residence:
		_, known := r.residences[v.ID]
		b.built[v.ID] = b.built[v.ID] || !known
		r.residences[v.ID] = *v
	case *marathon.Instance:
		r.savedInstance(b, v)
	}
}

func (r *rules) removed(key string) {
	if id, ok := cutKey(key, marathon.KeyDeployment); ok {
		r.deployments = maps.Clone(r.deployments)
		delete(r.deployments, id)
	}
	if id, ok := cutKey(key, marathon.KeyInstance); ok {
		for _, all := range r.fellows {
			if f := all[id]; f != nil {
				f.gone = true
				r.forget(f)
			}
		}
	}
	if id, ok := cutKey(key, marathon.KeyResidence); ok {
		delete(r.residences, id)
	}
	if id, ok := cutKey(key, marathon.KeyApp+"/"); ok {
		delete(r.apps, "/"+id)
	}
}

func cutKey(key, prefix string) (string, bool) {
	if len(key) <= len(prefix) || key[:len(prefix)] != prefix {
		return "", false
	}
	return key[len(prefix):], true
}

// forget drops what will be asked about no more.
func (r *rules) forget(f *fellow) {
	if f.gone && f.ended() {
		delete(r.fellows[f.app], f.id)
		for id := range f.tasks {
			delete(r.byTask, id)
		}
	}
}

func (r *rules) savedInstance(b *batch, i *marathon.Instance) {
	f := r.fellows[i.App][i.TaskID]
	if f == nil {
		f = r.meet(i)
		b.launched = append(b.launched, f)
	}
	switch {
	case f.killing && !i.Killing:
		r.w.failf("forgotten", "%s was being killed, and is wanted again", f.id)
	case !f.killing && i.Killing:
		b.serving[f] = f.serves()
		b.killed = append(b.killed, f)
		f.killing = true
	}
}

// meet makes the record of a new instance.
func (r *rules) meet(i *marathon.Instance) *fellow {
	f := &fellow{
		id: i.TaskID, app: i.App, version: i.Version, agent: i.Agent, residence: i.Residence, def: i.Definition(),
		tasks: map[string]task.State{}, over: map[string]bool{}, alive: map[int]bool{}, word: map[string]bool{},
	}
	ids := []string{i.TaskID}
	if len(i.Parts) > 0 {
		ids = nil
		for _, p := range i.Parts {
			ids = append(ids, p.TaskID)
		}
	}
	for _, id := range ids {
		f.tasks[id] = task.Staging
		r.byTask[id] = f
	}
	if r.fellows[i.App] == nil {
		r.fellows[i.App] = map[string]*fellow{}
	}
	r.fellows[i.App][i.TaskID] = f
	return f
}

// changing says whether a deployment changes an app.
func (r *rules) changing(plans map[string]marathon.Deployment, app string) bool {
	for _, d := range plans {
		if slices.Contains(d.Apps(), app) {
			return true
		}
	}
	return false
}

// release: when no deployment of an app is left, running and well is enough.
func (r *rules) release() {
	for id, all := range r.fellows {
		for _, f := range all {
			if f.gated && !r.changing(r.deployments, id) {
				f.gated = false
			}
		}
	}
}

// plans: Marathon goes on with all deployments that it has saved, and with no
// others.
func (r *rules) plans() {
	now := r.w.marathon.core.Deployments()
	for i := range now {
		if d, known := r.deployments[now[i].ID]; !known || d.Current != now[i].Current {
			r.w.failf("forgotten", "the deployment %s is at step %d, and saved at %d (%v)", now[i].ID, now[i].Current, d.Current, known)
		}
	}
	if len(now) != len(r.deployments) {
		r.w.failf("forgotten", "%d deployments are saved, and %d go on", len(r.deployments), len(now))
	}
}

// blocked says whether an app waits for an earlier step, before the batch and
// after it.
func (r *rules) blocked(b *batch, app string) bool {
	for id, d := range r.deployments {
		if was, known := b.plans[id]; known && waits(&was, app) && waits(&d, app) {
			return true
		}
	}
	return false
}

func waits(d *marathon.Deployment, app string) bool {
	last := -1
	for n, step := range d.Steps {
		for _, a := range step {
			if a.App != app {
				continue
			}
			if last = n; n == d.Current {
				return false
			}
		}
	}
	return last > d.Current
}

// within lists what an app was during the batch.
func (r *rules) within(b *batch, app string) []marathon.SavedApp {
	out := b.versions[app]
	if now, there := r.apps[app]; there {
		out = append(out[:len(out):len(out)], now)
	}
	return out
}

// goal is how many instances an app is to have, at most: of one that runs
// everywhere it is not known how many agents Marathon counts.
func (r *rules) goal(s *marathon.SavedApp) int {
	n := s.App.Instances
	if s.App.Everywhere {
		n *= len(r.w.agents)
	}
	if s.App.RunOnce && s.Runs.Version == s.App.ConfigVersion() {
		n = max(0, n-s.Runs.Finished)
	}
	return n
}

// most is how many instances there may be while more are launched: what the
// upgrade strategy allows, one more if nothing could be replaced otherwise, and
// the canaries.
func (r *rules) most(s *marathon.SavedApp) int {
	u, n := s.App.Upgrade, r.goal(s)
	most := int(math.Floor(float64(n) * (1 + u.MaximumOverCapacity)))
	if int(math.Ceil(float64(n)*u.MinimumHealthCapacity)) == most {
		most++
	}
	if s.App.Resident() {
		most = n
	}
	if s.App.Canary != nil {
		_, old := r.wanted(s)
		most = max(most, n+max(min(s.App.Canary.Instances, n), n-old))
	}
	return most
}

// wanted counts the instances that are not being killed.
func (r *rules) wanted(s *marathon.SavedApp) (fresh, old int) {
	for _, f := range r.fellows[s.App.ID] {
		switch {
		case f.gone || f.killing:
		case f.version == s.App.ConfigVersion():
			fresh++
		default:
			old++
		}
	}
	return fresh, old
}

func (r *rules) mayLaunch(b *batch, f *fellow) {
	most, total, goal := 0, 0, 0
	for _, s := range r.within(b, f.app) {
		most, goal = max(most, r.most(&s)), max(goal, r.goal(&s))
	}
	if b.built[f.residence] && r.homes(f.app) > goal {
		r.w.failf("resident", "%s is launched on new volumes, and %s has others", f.id, f.app)
	}
	for _, other := range r.fellows[f.app] {
		if other == f || other.counts() && !b.back[other] {
			total++
		}
		if other != f && !other.ended() {
			r.mayJoin(f, other)
		}
	}
	if total > most {
		r.w.failf("maximum", "%s is launched: %s has %d instances, and may have %d", f.id, f.app, total, most)
	}
	if r.blocked(b, f.app) {
		r.w.failf("order", "%s is launched, and waits for an earlier step", f.id)
	}
}

// homes counts the residences of an app that are to stay.
func (r *rules) homes(app string) (n int) {
	for _, x := range r.residences {
		if x.App == app && !x.Wipe {
			n++
		}
	}
	return n
}

// mayJoin: volumes have one task at a time, and what runs everywhere is once on
// each agent.
func (r *rules) mayJoin(f, other *fellow) {
	switch {
	case f.residence != "" && f.residence == other.residence && !r.nowhere(other):
		r.w.failf("resident", "%s is launched, and %s lives on its volumes", f.id, other.id)
	case f.def.Everywhere && f.agent == other.agent && f.version == other.version && other.counts():
		r.w.failf("everywhere", "%s is launched on the agent of %s", f.id, other.id)
	}
}

// nowhere says whether no agent runs an instance that Marathon has given up: it
// never came where it was to run, or its end was not told yet.
func (r *rules) nowhere(f *fellow) bool {
	if !f.gone {
		return false
	}
	for id := range f.tasks {
		for _, a := range r.w.agents {
			record, known := a.disk.tasks[task.Key{Framework: r.framework, ID: id}]
			if known && !record.State.Terminal() || a.dc.running(id) != nil {
				return false
			}
		}
	}
	return true
}

// mayKill: nobody is killed for a change as long as too few others serve, nor
// for nothing.
func (r *rules) mayKill(b *batch, f *fellow) {
	now, there := r.apps[f.app]
	if !there || now.Stopping || b.asked[f.id] || !b.serving[f] {
		return
	}
	fresh, old := r.wanted(&now)
	for _, other := range b.killed {
		if other.app == f.app && !b.asked[other.id] {
			if other.version == now.App.ConfigVersion() {
				fresh++
			} else {
				old++
			}
		}
	}
	least := math.MaxInt
	goal := math.MaxInt
	for _, s := range r.within(b, f.app) {
		least, goal = min(least, r.least(&s)), min(goal, r.goal(&s))
	}
	held := now.App.Canary != nil
	if f.version == now.App.ConfigVersion() {
		if !held && !now.App.Everywhere && fresh <= goal {
			r.w.failf("needless", "%s serves and is wanted, and is killed: %d of %d", f.id, fresh, goal)
		}
		return
	}
	if r.blocked(b, f.app) {
		r.w.failf("order", "%s is replaced, and waits for an earlier step", f.id)
	}
	if held && old > goal {
		return // it shrinks
	}
	if n := r.serving(f.app); n < least {
		r.w.failf("minimum", "%s is killed: %d instances of %s serve, and %d must", f.id, n, f.app, least)
	}
}

func (r *rules) serving(app string) (n int) {
	for _, f := range r.fellows[app] {
		if f.serves() {
			n++
		}
	}
	return n
}

// least is how many instances must serve while others are replaced.
func (r *rules) least(s *marathon.SavedApp) int {
	n := r.goal(s)
	if s.App.Everywhere {
		agents := map[string]bool{}
		for _, f := range r.fellows[s.App.ID] {
			if !f.gone && !f.killing && f.heard() != task.Unreachable {
				agents[f.agent] = true
			}
		}
		n = min(n, len(agents))
	}
	least := int(math.Ceil(float64(n) * s.App.Upgrade.MinimumHealthCapacity))
	if s.App.Resident() {
		least = min(least, max(0, n-1))
	}
	return least
}
