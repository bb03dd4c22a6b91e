package sim

import (
	"container/heap"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// Fleet is a master's core among agents, frameworks and operators that do what
// they like: it is about the master's books, where World is about what
// Marathon's users see. Everything follows from one seed.
//
//	err := sim.NewFleet(seed).Run(6 * time.Hour)  // nil: the books were right all the time
type Fleet struct {
	rnd    *rand.Rand
	now    time.Time
	seq    int
	queue  happenings
	seed   uint64
	calm   bool  // no new wishes, no new faults
	failed error // the first thing that was wrong
	Steps  int   // what has happened

	core    *master.Core
	masters int
	agents  []*member
	tenants []*tenant
	table   map[string]launched                 // by the origin of a task
	wires   map[string]resources.Operation      // by the wire form of an operation
	disk    map[string]master.AgentInfo         // what Persist wrote
	saved   map[master.SavedKind]map[string]any // what Save wrote
	due     time.Time                           // of the next Tick that is planned
}

// launched is what an agent must know of a task.
type launched struct {
	id     string
	amount resources.Resources
}

type happening struct {
	at  time.Time
	seq int
	do  func()
}

type happenings []happening

func (h happenings) Len() int { return len(h) }
func (h happenings) Less(i, j int) bool {
	return h[i].at.Before(h[j].at) || h[i].at.Equal(h[j].at) && h[i].seq < h[j].seq
}
func (h happenings) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *happenings) Push(x any)   { *h = append(*h, x.(happening)) }
func (h *happenings) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}

// fleetRoles are those of the frameworks.
var fleetRoles = []string{"web", "web/a", "db", "*"}

// NewFleet returns a fleet that has not started.
func NewFleet(seed uint64) *Fleet {
	f := &Fleet{
		rnd: rand.New(rand.NewPCG(seed, 5)), now: time.Unix(1_000_000, 0), seed: seed, table: map[string]launched{}, wires: map[string]resources.Operation{},
		disk: map[string]master.AgentInfo{}, saved: map[master.SavedKind]map[string]any{},
	}
	f.elect()
	for i := range 4 + f.rnd.IntN(8) {
		f.agents = append(f.agents, newMember(f, i))
	}
	for i := range 3 + f.rnd.IntN(8) {
		f.tenants = append(f.tenants, newTenant(f, i))
	}
	return f
}

// A fleet comes to rest within these rounds: the longest that something waits
// for is the failover time of a framework that nobody is any more.
const (
	settleRounds = 8
	settleTime   = 10 * time.Minute
)

// Run lets everybody do what they like for a time, then has them end what they
// have begun, and says what was wrong with the books, at any time or in the end.
func (f *Fleet) Run(d time.Duration) error {
	f.after(f.span(time.Second, time.Minute), f.operator)
	f.after(f.span(time.Minute, 10*time.Minute), f.fault)
	f.until(f.now.Add(d))
	f.calm = true
	f.restore()
	for range settleRounds { // what operators undo may wait for what frameworks end
		f.until(f.now.Add(settleTime))
		f.restore()
	}
	f.until(f.now.Add(settleTime))
	f.check()
	f.atRest()
	return f.failed
}

func (f *Fleet) until(end time.Time) {
	for f.failed == nil && len(f.queue) > 0 && !f.queue[0].at.After(end) {
		h := heap.Pop(&f.queue).(happening)
		f.now = h.at
		f.Steps++
		h.do()
	}
	f.now = end
}

func (f *Fleet) after(d time.Duration, do func()) {
	f.seq++
	heap.Push(&f.queue, happening{f.now.Add(d), f.seq, do})
}

func (f *Fleet) span(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(f.rnd.Int64N(int64(hi-lo)))
}

func (f *Fleet) chance(percent int) bool { return f.rnd.IntN(100) < percent }

func (f *Fleet) failf(format string, args ...any) {
	if f.failed == nil {
		f.failed = fmt.Errorf("seed %d, after %d steps: %s", f.seed, f.Steps, fmt.Sprintf(format, args...))
	}
}

// elect starts a master, from what the one before has saved.
func (f *Fleet) elect() {
	f.masters++
	cfg := master.DefaultConfig()
	cfg.ID = fmt.Sprintf("M%d", f.masters)
	cfg.OfferTimeout = time.Minute
	cfg.CompletedTasks, cfg.CompletedKept = 10, 5
	f.core, f.due = master.NewCore(cfg), time.Time{}
	restore := master.Restore{Weights: map[string]float64{}, Marks: map[string]master.Marks{}, Gone: map[string]time.Time{}}
	for _, kind := range slices.Sorted(maps.Keys(f.saved)) {
		for _, name := range slices.Sorted(maps.Keys(f.saved[kind])) {
			switch v := f.saved[kind][name].(type) {
			case master.Quota:
				restore.Quotas = append(restore.Quotas, v)
			case float64:
				restore.Weights[name] = v
			case master.Marks:
				restore.Marks[name] = v
			case time.Time:
				restore.Gone[name] = v
			case master.Maintenance:
				restore.Maintenance = v
			}
		}
	}
	f.apply(restore)
	for _, id := range slices.Sorted(maps.Keys(f.disk)) {
		f.apply(master.Recover{Agent: f.disk[id]})
	}
}

// apply gives the master a command, saves what it wants saved, and lets the rest
// leave.
func (f *Fleet) apply(cmd master.Command) error {
	fx, err := f.core.Apply(f.now, cmd, nil)
	if err != nil && len(fx) > 0 {
		f.failf("%T is refused and has effects", cmd)
	}
	for _, e := range fx {
		switch e := e.(type) {
		case master.Persist:
			if delete(f.disk, e.ID); e.Agent != nil {
				f.disk[e.ID] = *e.Agent
			}
		case master.Save:
			f.save(e)
		}
	}
	for _, e := range fx {
		f.dispatch(e)
	}
	f.plan()
	if f.Steps%64 == 0 {
		f.check()
	}
	return err
}

func (f *Fleet) save(e master.Save) {
	if f.saved[e.Kind] == nil {
		f.saved[e.Kind] = map[string]any{}
	}
	if delete(f.saved[e.Kind], e.Name); e.Value != nil {
		f.saved[e.Kind][e.Name] = e.Value
	}
}

// plan has the master woken when it wants to be.
func (f *Fleet) plan() {
	next := f.core.Next()
	if next.IsZero() || !f.due.IsZero() && !f.due.After(next) {
		return
	}
	core := f.core
	f.due = next
	f.after(max(0, next.Sub(f.now)), func() {
		if f.core == core && f.due.Equal(next) {
			f.due = time.Time{}
			f.apply(master.Tick{})
		}
	})
}

func (f *Fleet) dispatch(e master.Effect) {
	switch e := e.(type) {
	case master.ToAgent:
		for _, a := range f.agents {
			if a.pid == e.PID {
				a.arrive(e)
			}
		}
	case master.ToFramework:
		for _, t := range f.tenants {
			if t.stream == e.Stream {
				t.arrive(e.Event)
			}
		}
	case master.CloseStream:
		for _, t := range f.tenants {
			if t.stream == e.Stream {
				t.arrive(nil)
			}
		}
	}
}

// check compares the master's sums with what they are the sums of.
func (f *Fleet) check() {
	s := f.core.Snapshot()
	used, offered := map[string]resources.Resources{}, map[string]resources.Resources{}
	for i := range s.Frameworks {
		for _, t := range s.Frameworks[i].Tasks {
			if !t.State.Terminal() {
				used[t.Agent] = used[t.Agent].Add(t.Resources...)
			}
		}
		for _, o := range s.Frameworks[i].Offers {
			offered[o.Agent] = offered[o.Agent].Add(o.Resources...)
		}
	}
	allocated := map[string]resources.Scalars{}
	for i := range s.Agents {
		a := &s.Agents[i]
		if !a.Used.Equal(used[a.ID]) || !a.Offered.Equal(offered[a.ID]) {
			f.failf("agent %s: used %s, tasks use %s; offered %s, offers are %s", a.ID, a.Used, used[a.ID], a.Offered, offered[a.ID])
		}
		if given := a.Used.Add(a.Offered...).Allocated(""); !a.Resources.Contains(given) {
			f.failf("agent %s has %s and gives %s", a.ID, a.Resources, given)
		}
		for _, r := range a.Used.Add(a.Offered...) {
			allocated[r.Role] = allocated[r.Role].Add(resources.Resources{r}.Scalars())
		}
	}
	for _, r := range s.Roles {
		if !slices.Equal(r.Allocated, allocated[r.Name]) {
			f.failf("role %s: the sorter has %v, tasks and offers are %v", r.Name, r.Allocated, allocated[r.Name])
		}
	}
}

// atRest: nothing is used, reserved or under way, and master and agents have the
// same.
func (f *Fleet) atRest() {
	s := f.core.Snapshot()
	if len(s.Agents) != len(f.agents) || len(s.Recovered) > 0 {
		f.failf("the master has %d agents and waits for %d; there are %d", len(s.Agents), len(s.Recovered), len(f.agents))
	}
	for i := range s.Frameworks {
		left := s.Frameworks[i].Tasks
		for _, t := range s.Frameworks[i].Unreachable { // those of agents that are no more stay
			if slices.ContainsFunc(f.agents, func(m *member) bool { return m.id == t.Agent }) {
				left = append(left, t)
			}
		}
		if len(left) > 0 {
			f.failf("framework %s has %d tasks left, such as %v", s.Frameworks[i].ID, len(left), left[0])
		}
	}
	if len(s.Operations) > 0 {
		f.failf("%d operations are left, such as %+v", len(s.Operations), s.Operations[0])
	}
	for i := range s.Agents {
		a := &s.Agents[i]
		k := slices.IndexFunc(f.agents, func(m *member) bool { return m.id == a.ID })
		switch {
		case k < 0:
			f.failf("the master has the agent %s, which there is not", a.ID)
		case !a.Connected || !a.Active():
			f.failf("agent %s is connected: %v, marks: %+v %+v", a.ID, a.Connected, a.Marks, a.Marks.Drain)
		case len(f.agents[k].runs) > 0:
			f.failf("agent %s still has %d tasks, of which the master knows nothing", a.ID, len(f.agents[k].runs))
		case !a.Resources.Equal(f.agents[k].total):
			f.failf("agent %s has %s; the master thinks %s", a.ID, f.agents[k].total, a.Resources)
		case len(a.Used) > 0 || len(a.Resources.Checkpointed()) > 0:
			f.failf("agent %s: used %s, reserved %s", a.ID, a.Used, a.Resources.Checkpointed())
		}
	}
}

// operator is what operators do, again and again.
func (f *Fleet) operator() {
	if f.calm {
		return
	}
	f.after(f.span(5*time.Second, 2*time.Minute), f.operator)
	a := oneOf(f.rnd, f.agents...)
	role := oneOf(f.rnd, "web", "db")
	switch f.rnd.IntN(10) {
	case 0:
		q := master.Quota{Role: role, Guarantees: resources.NewScalar("cpus", resources.Whole(int64(f.rnd.IntN(20)))).Scalars(), Limits: map[string]resources.Milli{}}
		if f.chance(50) {
			q.Limits["cpus"] = resources.Whole(int64(20 + f.rnd.IntN(100)))
		}
		f.apply(master.SetQuotas{Quotas: []master.Quota{q}, Force: f.chance(50)})
	case 1:
		f.apply(master.SetWeights{Weights: map[string]float64{role: 0.5 + 3*f.rnd.Float64()}})
	case 2:
		f.apply(master.Operate{Agent: a.id, Change: f.change("", resources.OpReserve, reservedOf("cpus", int64(1+f.rnd.IntN(3)), role))})
	case 3:
		for _, r := range a.total.Checkpointed() {
			if r.Disk == nil {
				f.apply(master.Operate{Agent: a.id, Change: f.change("", resources.OpUnreserve, resources.Resources{r})})
			}
		}
	case 4:
		f.apply(master.DrainAgent{Agent: a.id})
	case 5:
		f.apply(master.ActivateAgent{Agent: a.id})
	case 6, 7:
		f.apply(master.ActivateAgent{Agent: a.id, Active: true})
	case 8:
		f.apply(master.UpdateSchedule{Windows: []master.Window{{Machines: []master.Machine{{Hostname: a.hostname}}, Start: f.now.Add(time.Minute), Length: time.Hour}}})
	case 9:
		f.apply(master.UpdateSchedule{})
	}
}

// fault is what goes wrong, again and again.
func (f *Fleet) fault() {
	if f.calm {
		return
	}
	f.after(f.span(5*time.Second, 5*time.Minute), f.fault)
	a, t := oneOf(f.rnd, f.agents...), oneOf(f.rnd, f.tenants...)
	switch f.rnd.IntN(12) {
	case 0:
		f.failover()
	case 1, 2, 3:
		a.cut(f.span(0, 20*time.Second))
	case 4, 5:
		a.cut(f.span(time.Minute, 20*time.Minute)) // long enough to be given up
	case 6:
		a.silent = f.now.Add(f.span(10*time.Second, 3*time.Minute))
	case 7, 8, 9:
		t.leave(f.span(0, 2*time.Minute))
	case 10:
		t.leave(t.info.FailoverTimeout + time.Minute)
	case 11:
		f.apply(master.MarkAgentGone{Agent: a.id})
	}
}

// failover replaces the master; everybody notices some time later.
func (f *Fleet) failover() {
	for _, t := range f.tenants {
		t.stream = ""
		t.leave(f.span(0, 10*time.Second))
	}
	for _, a := range f.agents {
		a.cut(f.span(0, 30*time.Second))
	}
	f.elect()
}

// restore undoes what operators have done, and ends what frameworks run.
func (f *Fleet) restore() {
	for _, role := range []string{"web", "db"} {
		f.apply(master.RemoveQuota{Role: role})
	}
	f.apply(master.UpdateSchedule{})
	for _, a := range f.agents {
		f.apply(master.ActivateAgent{Agent: a.id, Active: true})
		for _, kind := range []resources.OperationKind{resources.OpDestroy, resources.OpUnreserve} {
			for _, r := range a.total.Checkpointed() {
				if (r.Disk != nil) == (kind == resources.OpDestroy) {
					f.apply(master.Operate{Agent: a.id, Change: f.change("", kind, resources.Resources{r})})
				}
			}
		}
	}
	f.disown()
	for _, t := range f.tenants {
		t.finish()
	}
}

// disown tears down the frameworks that nobody is any more: their agents had not
// heard of their end when a new master took them back from those agents. As in
// Mesos they have no failover timer (master.cpp, recoverFramework).
func (f *Fleet) disown() {
	for _, fw := range f.core.Snapshot().Frameworks {
		if fw.Recovered && !slices.ContainsFunc(f.tenants, func(t *tenant) bool { return t.info.ID == fw.ID }) {
			f.apply(master.Teardown{Framework: fw.ID})
		}
	}
}

func reservedOf(name string, whole int64, role string) resources.Resources {
	r := resources.NewScalar(name, resources.Whole(whole))
	r[0].Reservations = []resources.Reservation{{Dynamic: true, Role: role}}
	return r
}

// change is an operation with a wire form that agents can look up.
func (f *Fleet) change(id string, kind resources.OperationKind, target resources.Resources) master.Change {
	f.seq++
	wire := fmt.Sprintf("op%d", f.seq)
	op := resources.Operation{Kind: kind, Target: target.Allocated("")}
	f.wires[wire] = op
	return master.Change{ID: id, Op: op, Wire: []byte(wire)}
}

func (f *Fleet) uuid() (u task.UUID) {
	for i := range u {
		u[i] = byte(f.rnd.Uint32())
	}
	return u
}
