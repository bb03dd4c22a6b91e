package marathon

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// world is a master with its agents, in memory and in virtual time, and the
// shell around a core: it commits, and only then lets effects reach the master.
type world struct {
	t     tb
	core  *Core
	now   time.Time
	saved map[string][]byte
	ids   int

	connected  bool
	suppressed bool
	agents     map[string]*fakeAgent
	tasks      map[string]*fakeTask
	offers     map[string]string // outstanding, to the agent
	inbox      []Input
	lose       map[string]int // how many of the next effects of a kind get lost
	loseUpdate int
	fail       func(app string) bool  // a task of the app fails when it should run
	health     func(task string) bool // nil: no check is answered
	ready      func(CheckReady) int   // the status that is answered
	measure    func(Measure) Measured // nil: the question gets lost
	hold       bool                   // tasks do not get on by themselves

	events      []Event
	asked       []AskSecrets
	environment map[string]string // of what was launched last
	calls       map[string]int
	launched    map[string]bool
	before      map[string]int // how many instances an app had before the batch
	away        map[string]int // and how many of them were lost
}

// tb is a testing.T, a testing.B or a rapid.T.
type tb interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

type fakeAgent struct {
	up     bool
	cpus   int64
	filter time.Time
	host   string // "": its ID and .example
	zone   string
	traits []task.Label
	role   string              // "": *
	kept   resources.Resources // reservations and volumes
}

type fakeTask struct {
	app, agent string
	state      task.State
	group      string              // the pod's instance
	holds      resources.Resources // of what the agent keeps
	kill       bool
	alive      bool // on the agent
	queue      []Updated
	sent       time.Time
}

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func newWorld(t tb) *world {
	w := &world{
		t: t, now: t0, saved: map[string][]byte{}, agents: map[string]*fakeAgent{"a1": {up: true, cpus: 100000}}, tasks: map[string]*fakeTask{},
		offers: map[string]string{}, lose: map[string]int{}, calls: map[string]int{}, launched: map[string]bool{}, before: map[string]int{}, away: map[string]int{},
		health: func(string) bool { return true }, ready: func(CheckReady) int { return 200 },
	}
	w.core = NewCore(w.config())
	return w
}

func (w *world) config() Config { return Config{NewID: w.id} }

func (w *world) id() string {
	w.ids++
	return fmt.Sprintf("%08d", w.ids)
}

// subscribe connects the core to the master.
func (w *world) subscribe() {
	w.connected, w.suppressed = true, false
	for _, a := range w.agents {
		a.filter = time.Time{}
	}
	clear(w.offers)
	w.must(Subscribed{FrameworkID: "fw", MasterID: "m"})
}

func (w *world) disconnect() {
	w.connected = false
	w.inbox = nil
	clear(w.offers)
	w.must(Disconnected{})
}

// crash starts a new core from what was committed.
func (w *world) crash() {
	w.connected = false
	w.inbox = nil
	clear(w.offers)
	w.core = NewCore(w.config())
	w.must(w.load())
}

func (w *world) load() Recover {
	var in Recover
	for _, k := range slices.Sorted(maps.Keys(w.saved)) {
		switch {
		case k == KeyFramework:
			w.decode(k, &in.FrameworkID)
		case strings.HasPrefix(k, KeyInstance):
			i := new(Instance)
			w.decode(k, i)
			in.Instances = append(in.Instances, i)
		case strings.HasPrefix(k, KeyDeployment):
			d := new(Deployment)
			w.decode(k, d)
			in.Deployments = append(in.Deployments, d)
		case strings.HasPrefix(k, KeyAudit):
			e := new(AuditEntry)
			w.decode(k, e)
			in.Audit = append(in.Audit, e)
		case strings.HasPrefix(k, KeyResidence):
			r := new(Residence)
			w.decode(k, r)
			in.Residences = append(in.Residences, r)
		case strings.HasPrefix(k, KeyAgent):
			a := new(AgentAddress)
			w.decode(k, a)
			in.Addresses = append(in.Addresses, a)
		case strings.HasPrefix(k, KeyGroup+"/"):
			g := new(Group)
			w.decode(k, g)
			in.Groups = append(in.Groups, g)
		case strings.HasPrefix(k, KeyApp+"/"):
			var a SavedApp
			w.decode(k, &a)
			a.Versions = w.versions(a.App.ID)
			in.Apps = append(in.Apps, a)
		}
	}
	return in
}

// left are the keys in the store, but for what is to stay there.
func (w *world) left() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(w.saved)), func(k string) bool { return strings.HasPrefix(k, KeyAudit) })
}

func (w *world) versions(id string) []*App {
	var out []*App
	for _, k := range slices.Sorted(maps.Keys(w.saved)) {
		if strings.HasPrefix(k, KeyVersion) && strings.HasSuffix(k, "Z"+id) {
			a := new(App)
			w.decode(k, a)
			out = append([]*App{a}, out...)
		}
	}
	return out
}

func (w *world) decode(k string, v any) {
	if err := json.Unmarshal(w.saved[k], v); err != nil {
		w.t.Fatalf("decode %s: %v", k, err)
	}
}

func (w *world) must(in ...Input) {
	w.t.Helper()
	for _, err := range w.batch(in...) {
		if err != nil {
			w.t.Fatalf("refused: %v", err)
		}
	}
}

// batch is what the runner does: apply, settle, commit, let the effects leave.
func (w *world) batch(in ...Input) []error {
	w.t.Helper()
	var fx []Effect
	errs := make([]error, len(in))
	for n := range in {
		was := len(fx)
		fx, errs[n] = w.core.Apply(w.now, in[n], fx)
		if errs[n] != nil && len(fx) != was {
			w.t.Fatalf("%T was refused (%v) and had effects: %v", in[n], errs[n], fx[was:])
		}
	}
	fx = w.core.Settle(w.now, fx)
	for _, e := range fx {
		if s, ok := e.(Save); ok {
			w.commit(s)
		}
	}
	w.checkCore()
	for _, e := range fx {
		w.checkEffect(e)
		w.leave(e)
	}
	for _, u := range in {
		w.checkAcknowledged(u, fx)
	}
	return errs
}

func (w *world) commit(s Save) {
	if s.Value == nil {
		delete(w.saved, s.Key)
		return
	}
	text, err := json.Marshal(s.Value)
	if err != nil {
		w.t.Fatalf("encode %s: %v", s.Key, err)
	}
	w.saved[s.Key] = text
}

// checkAcknowledged: an update with a UUID is acknowledged in its batch.
func (w *world) checkAcknowledged(in Input, fx []Effect) {
	u, ok := in.(Updated)
	if !ok || u.Status.UUID.IsZero() {
		return
	}
	for _, e := range fx {
		if a, ok := e.(Acknowledge); ok && a.UUID == u.Status.UUID && a.TaskID == u.TaskID {
			return
		}
	}
	w.t.Fatalf("the update %v of %s was not acknowledged", u.Status.State, u.TaskID)
}

// checkEffect: what leaves must have been saved before.
func (w *world) checkEffect(e Effect) {
	switch e := e.(type) {
	case Accept:
		if w.saved[KeyFramework] == nil {
			w.t.Fatal("a launch left before the framework's ID was saved")
		}
		for _, id := range launched(e) {
			if w.launched[id] {
				w.t.Fatalf("%s was launched twice", id)
			}
			w.launched[id] = true
			if w.saved[KeyInstance+id] == nil {
				w.t.Fatalf("the launch of %s left before it was saved", id)
			}
		}
	case Acknowledge:
		i := w.core.instances[e.TaskID]
		if i == nil {
			i = w.core.pods[e.TaskID]
		}
		id := e.TaskID
		if i != nil {
			id = i.TaskID
		}
		text := w.saved[KeyInstance+id]
		if (i == nil) != (text == nil) {
			w.t.Fatalf("%s was acknowledged; known: %v, saved: %s", e.TaskID, i != nil, text)
		}
		if i != nil {
			var was Instance
			w.decode(KeyInstance+id, &was)
			if was.State != i.State || was.Killing != i.Killing || len(i.Parts) > 0 && was.part(e.TaskID).State != i.part(e.TaskID).State {
				w.t.Fatalf("%s was acknowledged as %v, saved as %v", e.TaskID, i.State, was.State)
			}
		}
	}
}

// launched are the instances that an Accept launches.
func launched(e Accept) (ids []string) {
	for _, s := range e.Launch.Tasks {
		ids = append(ids, s.Key.ID)
	}
	for _, g := range e.Launch.Groups {
		ids = append(ids, g.Pod.Pod)
	}
	return ids
}

// checkCore compares what the core keeps up to date with a count from nothing,
// and the number of instances with its bound.
func (w *world) checkCore() {
	for id, a := range w.core.apps {
		var want tally
		for _, i := range a.instances {
			want.add(a.count(i), 1)
		}
		if want != a.tally {
			w.t.Fatalf("%s is counted as %+v, but has %+v", id, a.tally, want)
		}
		if (w.core.need(a) > 0) != (w.core.lacking[id] != nil) {
			w.t.Fatalf("%s needs %d, lacking: %v", id, w.core.need(a), w.core.lacking[id] != nil)
		}
		total := want.fresh + want.old + want.killing
		_, most := a.bounds()
		if !a.held() && !a.def.Resident() {
			_, most = a.def.Upgrade.bounds(a.target(), want.fresh+want.old+want.killing)
		}
		if total > max(most+w.away[id], w.before[id]) { // lost ones may have come back beside those that were launched for them
			w.t.Fatalf("%s has %+v; at most %d are allowed, %d were there, %d were lost", id, want, most, w.before[id], w.away[id])
		}
		w.before[id], w.away[id] = total+lost(a), lost(a)
	}
	if len(w.core.changed) > 0 {
		w.t.Fatalf("not settled: %v", w.core.changed)
	}
}

func lost(a *app) int {
	n := 0
	for _, i := range a.instances {
		if i.inactive {
			n++
		}
	}
	return n
}

func (w *world) leave(e Effect) {
	kind := fmt.Sprintf("%T", e)[len("marathon."):]
	w.calls[kind]++
	switch e := e.(type) {
	case Save:
		return
	case Event:
		w.events = append(w.events, e)
		return
	case AskSecrets:
		w.asked = append(w.asked, e)
		return
	case CheckReady:
		w.inbox = append(w.inbox, CheckedReady{TaskID: e.TaskID, ReadinessResponse: ReadinessResponse{Status: w.ready(e)}})
		return
	case Measure:
		if w.measure != nil {
			w.inbox = append(w.inbox, w.measure(e))
		}
		return
	case Check:
		if w.health != nil {
			w.inbox = append(w.inbox, Checked{TaskID: e.TaskID, Index: e.Index, Alive: w.health(e.TaskID), Cause: "no"})
		}
		return
	}
	if !w.connected {
		return
	}
	if w.lose[kind] > 0 {
		w.lose[kind]--
		w.rescind(e)
		return
	}
	w.call(e)
}

// rescind takes back what nobody has answered for.
func (w *world) rescind(e Effect) {
	var ids []string
	switch e := e.(type) {
	case Accept:
		ids = e.Offers
	case Decline:
		ids = e.Offers
	}
	for _, o := range ids {
		if a := w.agents[w.offers[o]]; a != nil {
			a.filter = w.now.Add(5 * time.Second)
		}
		delete(w.offers, o)
	}
}

func (w *world) call(e Effect) {
	switch e := e.(type) {
	case Accept:
		w.accept(e)
	case Decline:
		for _, o := range e.Offers {
			if a := w.agents[w.offers[o]]; a != nil {
				a.filter = w.now.Add(e.Refuse)
			}
			delete(w.offers, o)
		}
	case Revive:
		w.suppressed = false
		for _, a := range w.agents {
			a.filter = time.Time{}
		}
	case Suppress:
		w.suppressed = true
	case Kill:
		if f := w.tasks[e.TaskID]; f != nil && w.agents[f.agent].up {
			f.kill = true
		} else {
			w.answer(e.TaskID, e.Agent)
		}
	case Reconcile:
		w.reconcile(e)
	case Acknowledge:
		w.acknowledge(e)
	}
}

func (w *world) accept(e Accept) {
	valid := true
	for _, o := range e.Offers {
		valid = valid && w.offers[o] == e.Agent
		delete(w.offers, o)
	}
	valid = valid && w.agents[e.Agent].up
	if valid {
		w.operate(e)
	}
	specs, groups := slices.Clone(e.Launch.Tasks), map[string]string{}
	for _, g := range e.Launch.Groups {
		for _, s := range g.Tasks {
			groups[s.Key.ID] = g.Pod.Pod
			specs = append(specs, s)
		}
	}
	for _, s := range specs {
		if !valid {
			w.update(s.Key.ID, e.Agent, task.Status{State: task.Dropped, Reason: task.ReasonInvalidOffers})
			continue
		}
		w.environment = map[string]string{}
		for _, v := range s.Env {
			w.environment[v.Key] = v.Value
		}
		flat, _, _ := strings.Cut(s.Key.ID, ".instance-")
		w.tasks[s.Key.ID] = &fakeTask{app: "/" + flat, agent: e.Agent, group: groups[s.Key.ID], holds: w.takes(e.Agent, &s), state: task.Staging, alive: true}
	}
}

// operate changes what an agent keeps; what cannot be done is the core's fault.
func (w *world) operate(e Accept) {
	a := w.agents[e.Agent]
	for _, op := range e.Launch.Changes {
		for _, id := range slices.Sorted(maps.Keys(w.tasks)) {
			f := w.tasks[id]
			if op.Kind != resources.OpReserve && op.Kind != resources.OpCreate && f.alive && f.agent == e.Agent && len(f.holds) > 0 && f.holds.Contains(op.Target.Allocated("")) {
				w.t.Fatalf("%s of what %s lives on: %s", op.Kind, id, op.Target)
			}
		}
		plain := plenty()
		all, err := plain.Add(a.kept...).Apply(op)
		if err != nil {
			w.t.Fatalf("%s: %v", op.Kind, err)
		}
		a.kept = all.Filter(func(r *resources.Resource) bool { return len(r.Reservations) > 0 })
	}
}

// takes is what a task takes of what its agent keeps.
func (w *world) takes(agent string, s *task.Spec) resources.Resources {
	holds := s.Resources.Filter(func(r *resources.Resource) bool { return len(r.Reservations) > 0 }).Allocated("")
	if free := w.free(agent); !free.Contains(holds) {
		w.t.Fatalf("%s is launched on %s; there is %s", s.Key.ID, holds, free)
	}
	return holds
}

// free is what an agent keeps and no task has.
func (w *world) free(agent string) resources.Resources {
	out := w.agents[agent].kept
	for _, id := range slices.Sorted(maps.Keys(w.tasks)) {
		if f := w.tasks[id]; f.agent == agent && f.alive {
			out = out.Sub(f.holds...)
		}
	}
	return out
}

func plenty() resources.Resources {
	r, err := resources.Parse("cpus:100;mem:1000000;disk:1000000")
	if err != nil {
		panic(err) // a constant
	}
	return r
}

func (w *world) update(id, agent string, s task.Status) {
	w.inbox = append(w.inbox, Updated{TaskID: id, Agent: agent, Status: s})
}

// answer is a master's, to a question about one task.
func (w *world) answer(id, agent string) {
	f, s := w.tasks[id], task.Status{Reason: task.ReasonReconciliation}
	a := w.agents[agent]
	switch {
	case f != nil && w.agents[f.agent].up:
		s.State, s.Container = f.state, addressOf(f)
	case f != nil || a != nil && !a.up:
		s.State = task.Unreachable
	case a != nil:
		s.State = task.Gone
	default:
		s.State = task.Unknown
	}
	w.update(id, agent, s)
}

func (w *world) reconcile(e Reconcile) {
	if len(e.Tasks) > 0 {
		for _, id := range slices.Sorted(maps.Keys(e.Tasks)) {
			w.answer(id, e.Tasks[id])
		}
		return
	}
	for _, id := range slices.Sorted(maps.Keys(w.tasks)) {
		if w.agents[w.tasks[id].agent].up {
			w.answer(id, w.tasks[id].agent)
		}
	}
}

func (w *world) acknowledge(e Acknowledge) {
	f := w.tasks[e.TaskID]
	if f == nil || len(f.queue) == 0 || f.queue[0].Status.UUID != e.UUID {
		return
	}
	last := f.queue[0]
	f.queue, f.sent = f.queue[1:], time.Time{}
	if last.Status.State.Terminal() {
		delete(w.tasks, e.TaskID)
	}
}

func addressOf(f *fakeTask) *task.ContainerStatus {
	if f.state != task.Running {
		return nil
	}
	return &task.ContainerStatus{Addresses: []string{"10.0.0.1"}}
}

// report changes a task's state; the agent tells until it is acknowledged.
func (w *world) report(id string, s task.State) {
	f := w.tasks[id]
	f.state = s
	if s.Terminal() {
		f.alive = false
	}
	w.ids++
	u := Updated{TaskID: id, Agent: f.agent, Status: task.Status{State: s, Time: w.now, Container: addressOf(f), Source: task.SourceExecutor}}
	binary.BigEndian.PutUint64(u.Status.UUID[:], uint64(w.ids))
	f.queue = append(f.queue, u)
	if !s.Terminal() || s == task.Finished || f.group == "" {
		return
	}
	for _, other := range slices.Sorted(maps.Keys(w.tasks)) {
		if o := w.tasks[other]; o.group == f.group && !o.state.Terminal() { // it takes its group with it
			w.report(other, task.Killed)
		}
	}
}

// progress lets the agents and the master work until they wait.
func (w *world) progress() {
	for _, id := range slices.Sorted(maps.Keys(w.tasks)) {
		f := w.tasks[id]
		if !w.agents[f.agent].up || w.hold {
			continue
		}
		switch {
		case f.state.Terminal():
		case f.kill:
			w.report(id, task.Killed)
		case f.state == task.Staging:
			w.report(id, task.Starting)
			if w.fail != nil && w.fail(f.app) {
				w.report(id, task.Failed)
			} else {
				w.report(id, task.Running)
			}
		}
	}
	if w.connected {
		w.tell()
		w.offer()
	}
}

func (w *world) tell() {
	for _, id := range slices.Sorted(maps.Keys(w.tasks)) {
		f := w.tasks[id]
		if !w.agents[f.agent].up || len(f.queue) == 0 || !f.sent.IsZero() && w.now.Before(f.sent.Add(10*time.Second)) {
			continue
		}
		f.sent = w.now
		if w.loseUpdate > 0 {
			w.loseUpdate--
			continue
		}
		w.inbox = append(w.inbox, f.queue[0])
	}
}

func (w *world) offer() {
	if w.suppressed {
		return
	}
	var in Offered
	for _, id := range slices.Sorted(maps.Keys(w.agents)) {
		a := w.agents[id]
		out := slices.Contains(slices.Collect(maps.Values(w.offers)), id)
		free := a.cpus
		for _, f := range w.tasks {
			if f.agent == id && f.alive {
				free -= 1000
			}
		}
		if !a.up || out || a.filter.After(w.now) || free <= 0 {
			continue
		}
		o := task.Offer{ID: "o" + w.id(), Agent: id, Hostname: cmp.Or(a.host, id+".example"), URL: "http://" + id, Role: cmp.Or(a.role, "*"), Zone: a.zone, Attributes: a.traits}
		o.Resources = resources.NewScalar("cpus", resources.Milli(free)).Add(resources.NewScalar("mem", resources.Whole(1e6))...).Allocated(o.Role)
		if a.role != "" {
			o.Resources = plenty().Add(w.free(id)...).Allocated(a.role)
		}
		w.offers[o.ID] = id
		in.Offers = append(in.Offers, o)
	}
	if len(in.Offers) > 0 {
		w.inbox = append(w.inbox, in)
	}
}

// next is when the master or an agent does something by itself.
func (w *world) next() time.Time {
	var at time.Time
	sooner := func(t time.Time) {
		if t.After(w.now) && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	sooner(w.core.Next())
	for _, a := range w.agents {
		sooner(a.filter)
	}
	for _, f := range w.tasks {
		if len(f.queue) > 0 && w.agents[f.agent].up && w.connected {
			sooner(f.sent.Add(10 * time.Second))
		}
	}
	return at
}

// deliver gives the core everything that waits for it, as one batch.
func (w *world) deliver() bool {
	w.t.Helper()
	w.progress()
	in := w.inbox
	w.inbox = nil
	if at := w.core.Next(); !at.IsZero() && !at.After(w.now) {
		in = append(in, Tick{})
	}
	if len(in) == 0 {
		return false
	}
	w.must(in...)
	return true
}

// run lets the time pass.
func (w *world) run(d time.Duration) {
	w.t.Helper()
	until := w.now.Add(d)
	for n := 0; ; n++ {
		if n > 200000 {
			w.t.Fatal("the world does not come to rest")
		}
		if w.deliver() {
			continue
		}
		at := w.next()
		if at.IsZero() || at.After(until) {
			w.now = until
			return
		}
		w.now = at
	}
}

// up makes agents reachable or not, and the master say so.
func (w *world) up(agent string, up bool) {
	w.agents[agent].up = up
	for o, a := range w.offers {
		if a == agent {
			delete(w.offers, o)
		}
	}
	if !w.connected {
		return
	}
	for _, id := range slices.Sorted(maps.Keys(w.tasks)) {
		f := w.tasks[id]
		switch {
		case f.agent != agent || f.state.Terminal():
		case up:
			w.update(id, agent, task.Status{State: f.state, Container: addressOf(f), Reason: task.ReasonAgentReregistered})
		default:
			w.update(id, agent, task.Status{State: task.Unreachable, Reason: task.ReasonAgentRemoved})
		}
	}
}

// live lists the tasks of an app that run or will, on the agents.
func (w *world) live(app string) []string {
	var out []string
	for _, id := range slices.Sorted(maps.Keys(w.tasks)) {
		if f := w.tasks[id]; f.alive && (app == "" || f.app == strings.ReplaceAll("/"+strings.ReplaceAll(app[1:], "/", "_"), "//", "/")) {
			out = append(out, id)
		}
	}
	return out
}

// app is a small definition with some fields.
func define(t tb, id, more string) *App {
	t.Helper()
	if more != "" {
		more = "," + more
	}
	a, err := Read([]byte(`{"id":"`+id+`","cmd":"x","cpus":1,"mem":32`+more+`}`), "*")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// definePod is a small pod of two containers.
func definePod(t tb, id, more string) *App {
	t.Helper()
	a, err := ReadPod([]byte(`{"id":"`+id+`","containers":[{"name":"one","exec":{"command":{"shell":"x"}},"resources":{"cpus":1,"mem":32}},
		{"name":"two","image":{"kind":"DOCKER","id":"i"},"resources":{"cpus":0.5,"mem":32},"endpoints":[{"name":"web","containerPort":0}]}],"executorResources":{"cpus":0.1,"mem":32}`+more+`}`), "*")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (w *world) put(defs ...*App) error {
	w.t.Helper()
	return w.batch(Change{DeploymentID: "d" + w.id(), Put: defs})[0]
}

func (w *world) mustPut(defs ...*App) {
	w.t.Helper()
	if err := w.put(defs...); err != nil {
		w.t.Fatal(err)
	}
}

// wantRunning fails unless the app has so many running instances, in the core
// and in the world, and nothing goes on.
func (w *world) wantRunning(app string, n int) {
	w.t.Helper()
	v, _ := w.core.App(w.now, app)
	live := n
	if v.App != nil && v.App.IsPod() {
		live = 0
		for _, i := range v.Instances {
			live += len(i.live())
		}
	}
	if v.Running != n || len(w.live(app)) != live || len(v.Instances) != n {
		w.t.Fatalf("%s: %d running, %d known, %d live; want %d (waiting: %q)", app, v.Running, len(v.Instances), len(w.live(app)), n, v.Waiting)
	}
	if d := w.core.Deployments(); len(d) > 0 {
		w.t.Fatalf("%d deployments are left: %+v", len(d), d)
	}
}
