package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/provider/memory"
	"github.com/mesopool/mesopool/store"
	"github.com/mesopool/mesopool/task"
)

// world is an agent's core between a model master and a simulated data center,
// in virtual time. What the runner does, it does step by step: it takes what is
// waiting, steps, commits, and only then lets effects leave; and it dies where
// the test says.
type world struct {
	t     *rapid.T
	rnd   *rand.Rand
	now   time.Time
	mem   *memory.Core
	disk  *store.Memory
	cfg   Config
	core  *Core
	inbox []Input
	death int // how the next batch ends: see flush

	feed    *memory.Feed
	listing bool // the feed has not synced
	calls   []inFlight
	timers  []timer
	life    int // counts the agent's starts

	faulty  bool
	joined  bool
	tasks   map[task.Key]*modelTask
	order   []task.Key
	shut    bool // framework f2 is gone
	drained bool // the agent was drained once
	foreign []string

	executors map[task.Key]*modelExecutor // by their containers' keys
	sessions  uint64
	uuids     uint64 // of executors' updates

	strays []string
	trace  []string
}

type inFlight struct {
	call     Call
	ans      memory.Answer
	at       time.Time
	canceled bool
	broken   error // a launch that created its container and broke off
}

type timer struct {
	at time.Time
	do func()
}

// modelTask is what the master knows of a task, and what is true of it.
type modelTask struct {
	key      task.Key
	killed   bool
	silent   bool
	state    task.State
	uuids    map[task.UUID]task.State
	ended    bool // a terminal update arrived
	acked    bool // and was acknowledged
	vanished bool
	missing  bool // the master told the agent that it should know it
	checked  bool // it has a health check
	sick     bool // and its probes may fail
	drained  bool // it was launched when the agent may have drained
	limit    time.Duration
	since    time.Time
	pod      string
	group    []*modelTask

	executor    string // its framework's own
	told        *told
	groupKilled bool
}

const patience = 30 * time.Second // what a call may take; launches four times as long

var stray = task.Key{Framework: "f9", ID: "stray"}

func newWorld(t *rapid.T) *world {
	seed := rapid.Uint64().Draw(t, "seed")
	w := &world{
		t: t, rnd: rand.New(rand.NewPCG(seed, 1)), now: t0, disk: store.NewMemory(), cfg: testConfig(),
		tasks: map[task.Key]*modelTask{}, faulty: true, executors: map[task.Key]*modelExecutor{},
	}
	w.mem = memory.NewCore(memory.Config{
		Rand: rand.New(rand.NewPCG(seed, 2)), Latency: memory.Span{Max: 9 * time.Second},
		CallLatency: memory.Span{Max: 2 * time.Second}, ExitLatency: memory.Span{Max: 3 * time.Second},
		Missing: map[string]bool{"none": true},
	})
	w.foreign = append(w.foreign, w.mem.AddForeign(w.now, "foreign"))
	a := w.mem.Launch(w.now, task.Owner{Cluster: "other", Agent: "dc-1"}, "other-1", task.Spec{Key: task.Key{Framework: "fx", ID: "other"}})
	w.mem.Advance(a.At)
	w.now = a.At
	k, _ := w.mem.Lookup("other-1")
	w.foreign = append(w.foreign, k.ID)
	w.start()
	return w
}

func (w *world) log(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%9v ", w.now.Sub(t0).Round(time.Millisecond))+fmt.Sprintf(format, args...))
}

func (w *world) fatalf(format string, args ...any) {
	w.t.Helper()
	from := max(0, len(w.trace)-200)
	w.t.Fatalf("%s\n%s", fmt.Sprintf(format, args...), strings.Join(w.trace[from:], "\n"))
}

func (w *world) chance(share float64) bool { return w.rnd.Float64() < share }

func oneOf[T any](w *world, choice ...T) T { return choice[w.rnd.IntN(len(choice))] }

func (w *world) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(w.rnd.Int64N(int64(hi-lo)))
}

func (w *world) after(d time.Duration, do func()) {
	w.timers = append(w.timers, timer{w.now.Add(d), do})
	slices.SortStableFunc(w.timers, func(a, b timer) int { return a.at.Compare(b.at) })
}

// inLife is after, unless the agent has died until then.
func (w *world) inLife(d time.Duration, do func()) {
	life := w.life
	w.after(d, func() {
		if w.life == life {
			do()
		}
	})
}

// start begins a life of the agent with what was saved in the one before.
func (w *world) start() {
	w.life++
	w.log("the agent starts")
	w.core, w.inbox, w.calls, w.joined, w.death = NewCore(w.cfg), nil, nil, false, 0
	w.closeFeed()
	saved, err := loadState(context.Background(), w.disk)
	if err != nil {
		w.fatalf("load: %v", err)
	}
	w.put(saved)
	w.inLife(w.between(1, 3*time.Second), w.watch)
	w.inLife(w.between(1, 6*time.Second), w.join)
}

func (w *world) put(in Input) { w.inbox = append(w.inbox, in) }

// flush is Runner.batch, with its possible deaths: 1 before the commit, 2 after
// it, 3 amid the effects.
func (w *world) flush() {
	if len(w.inbox) == 0 {
		return
	}
	var fx []Effect
	for _, in := range w.inbox {
		fx = w.core.Step(w.now, in, fx)
	}
	w.inbox = nil
	if len(fx) == 0 {
		return
	}
	death := w.death
	if death == 1 {
		w.log("death before the commit")
		w.start()
		return
	}
	ops, err := newWriter().write(fx)
	if err == nil {
		err = w.disk.Commit(context.Background(), ops)
	}
	if err != nil {
		w.fatalf("save: %v", err)
	}
	leave := len(fx)
	if death == 2 {
		leave = 0
	} else if death == 3 {
		leave = w.rnd.IntN(len(fx))
	}
	for _, e := range fx[:leave] {
		w.dispatch(e)
	}
	if death != 0 {
		w.log("death after %d of %d effects", leave, len(fx))
		w.start()
	}
}

func (w *world) dispatch(e Effect) {
	switch e := e.(type) {
	case Call:
		w.call(e)
	case Cancel:
		w.cancel(e.Key)
	case Probe:
		w.probe(e)
	case ToExecutor:
		w.toExecutor(e)
	case Report:
		if w.joined && !(w.faulty && w.chance(0.1)) {
			w.receive(e)
		}
	}
}

// cancel gives up the wait for a launch: its answer is lost.
func (w *world) cancel(k task.Key) {
	for i, f := range w.calls {
		if f.call.Op == OpLaunch && f.call.Key == k {
			w.log("cancel the launch of %v", k)
			w.calls[i].canceled, w.calls[i].at = true, w.now
		}
	}
}

func (w *world) probe(p Probe) {
	m := w.tasks[p.Key]
	if k, ok := w.mem.Lookup(nameIn(p.Key)); ok && k.ID != p.ID {
		w.fatalf("%v: a probe of %s, which is not its container", p.Key, p.ID)
	}
	in := Probed{Key: p.Key, ID: p.ID, Healthy: !m.sick || w.chance(0.2), Cause: "sick"}
	w.inLife(w.between(1, 5*time.Second), func() { w.put(in) })
}

// call does to the data center at once what the call asks for; the answer comes
// later, or the caller gives up.
func (w *world) call(c Call) {
	for _, f := range w.calls {
		if c.Op != OpRemove && f.call.Op != OpRemove && f.call.Key == c.Key && f.call.ID == c.ID {
			w.fatalf("%s while %s is in flight", callText(c), callText(f.call))
		}
	}
	var a memory.Answer
	var broken error
	limit := patience
	switch c.Op {
	case OpLaunch:
		limit *= 4
		if w.faulty && w.chance(0.1) {
			a = w.mem.Create(w.now, owner, c.Name, *c.Spec)
			broken = oneOf(w, errors.New("a fetch broke off"), fmt.Errorf("a fetch failed: %w", provider.ErrRejected))
			break
		}
		a = w.mem.Launch(w.now, owner, c.Name, *c.Spec)
	case OpStop:
		a = w.mem.Stop(w.now, c.ID, c.Grace)
	case OpInspect:
		a = w.mem.Inspect(w.now, w.byName(c.ID))
	default:
		w.mayRemove(c.ID)
		a = w.mem.Remove(w.now, c.ID)
	}
	at := a.At
	if a.Never || at.Sub(w.now) > limit {
		a.Never, at = true, w.now.Add(limit)
	}
	w.log("call %s: %v", callText(c), a.Err)
	w.calls = append(w.calls, inFlight{call: c, ans: a, at: at, broken: broken})
}

// byName finds a container's ID by its name, as engines do.
func (w *world) byName(id string) string {
	if k, ok := w.mem.Lookup(id); ok {
		return k.ID
	}
	return id
}

// mayRemove: no container goes before its task's end has been acknowledged.
func (w *world) mayRemove(id string) {
	for _, key := range w.order {
		k, ok := w.mem.Lookup(nameIn(key))
		if m := w.tasks[key]; ok && k.ID == id && !m.acked && !m.silent {
			w.fatalf("%v's container %s is to be removed while its end is not acknowledged", key, id)
		}
	}
}

func nameIn(k task.Key) string { return ContainerName(owner.Cluster, k, "web") }

func (w *world) answer(f inFlight) {
	d := Done{Call: f.call, Err: context.DeadlineExceeded}
	if f.canceled {
		d.Err = context.Canceled
	} else if !f.ans.Never {
		d.Container, d.Err = w.mem.Result(f.ans)
	}
	if f.broken != nil && d.Err == nil && d.Container.State == provider.StateCreated {
		d.Err = f.broken
	}
	w.log("answer to %s: %s %v", callText(f.call), d.Container.State, d.Err)
	w.put(d)
}

func (w *world) watch() {
	w.log("watch")
	w.put(WatchStarted{})
	w.feed, w.listing = w.mem.Subscribe(owner, nil), true
}

func (w *world) closeFeed() {
	if w.feed != nil {
		w.feed.Close()
		w.feed = nil
	}
}

func (w *world) breakWatch() {
	if w.feed != nil {
		w.log("the watch breaks")
		w.closeFeed()
		w.inLife(w.between(time.Second, 30*time.Second), w.watch)
	}
}

// pull takes what the watch tells. A listing may lack what is there: the agent
// must then look itself.
func (w *world) pull() {
	for w.feed != nil {
		ev, ok := w.feed.Next()
		if !ok {
			return
		}
		m := w.tasks[ev.Container.Key]
		switch {
		case ev.Synced:
			w.listing = false
		case w.listing && w.faulty && w.chance(0.05):
			w.breakWatch()
			return
		case w.listing && w.faulty && m != nil && w.chance(0.2) && !w.core.tasks[m.key].ended():
			w.log("the listing lacks %v", m.key)
			continue
		}
		w.log("told %v %s synced=%v", ev.Container.Key, ev.Container.State, ev.Synced)
		w.put(Seen{Event: ev})
	}
}

func (r *row) ended() bool { return r == nil || r.State.Terminal() }

// join is the master's side of a (re-)registration.
func (w *world) join() {
	w.flush()
	known := map[task.Key]bool{}
	for _, x := range w.core.Roster().Tasks {
		known[x.Spec.Key] = true
	}
	var missing []Missing
	for _, key := range w.order {
		if m := w.tasks[key]; !known[key] && !m.ended && !m.silent {
			m.missing = true
			missing = append(missing, Missing{Key: key, Framework: frameworkOf(key)})
		}
	}
	w.log("joined, missing %v", missing)
	w.joined = true
	w.put(Joined{Missing: missing})
	for _, key := range w.order {
		if m := w.tasks[key]; m.killed && !m.ended && !m.silent {
			w.put(Kill{Key: key})
		}
	}
	if w.shut {
		w.put(ShutdownFramework{ID: "f2"})
	}
}

func frameworkOf(k task.Key) Framework {
	return Framework{ID: k.Framework, PartitionAware: true, KillingState: k.Framework == "f1"}
}

// receive is the master taking an update: each must make sense.
func (w *world) receive(r Report) {
	m := w.tasks[r.Key]
	if m == nil {
		w.fatalf("a report on %v, which nobody launched", r.Key)
	}
	s := r.Status
	w.log("report %v %s", r.Key, s.State)
	if m.silent {
		return // the agent may not have heard of the framework's end yet
	}
	if old, again := m.uuids[s.UUID]; again {
		if old != s.State {
			w.fatalf("%v: update %v was %v and is %v", r.Key, s.UUID, old, s.State)
		}
	} else {
		w.fresh(m, r)
	}
	w.acknowledge(m, s)
}

func (w *world) fresh(m *modelTask, r Report) {
	s := r.Status
	news := s.State == task.Running && s.Reason == task.ReasonHealthCheckStatus || s.State == task.Starting && s.Message != ""
	if m.ended || s.State.Rank() <= m.state.Rank() && (s.State != m.state || !news) {
		w.fatalf("%v: %v after %v", m.key, s.State, m.state)
	}
	if r.Latest.Rank() < s.State.Rank() {
		w.fatalf("%v: the latest state %v is behind %v", m.key, r.Latest, s.State)
	}
	if why := w.invented(m, s); why != "" {
		w.fatalf("%v: %v (%s) is invented: %s", m.key, s.State, s.Message, why)
	}
	m.uuids[s.UUID], m.state, m.ended = s.State, s.State, s.State.Terminal()
}

// invented says why an update cannot be true.
func (w *world) invented(m *modelTask, s task.Status) string {
	if m.executor != "" {
		return w.inventedHosted(m, s)
	}
	k, exists := w.mem.Lookup(nameIn(m.key))
	switch {
	case m.pod != "" && (s.Reason == task.ReasonExecutorTerminated || s.State == task.Killed || s.State == task.Killing):
		return "" // because of its group or its pod; settled looks at them
	case s.Reason == task.ReasonMaxCompletionTime && (m.limit == 0 || w.now.Sub(m.since) < m.limit):
		return "it had time left"
	case s.Healthy != nil && (!m.checked || !*s.Healthy && !m.sick):
		return "its health is another"
	case s.Reason == task.ReasonMaxCompletionTime || s.Healthy != nil && s.State != task.Running && m.sick:
		return ""
	case s.State == task.Running && exists && k.Started.IsZero():
		return "it never started"
	case s.State == task.Finished && exists && (k.State != provider.StateExited || k.ExitCode != 0):
		return fmt.Sprintf("its container is %v", k)
	case s.State == task.Failed && s.Source == task.SourceExecutor && exists && (k.State != provider.StateExited || k.ExitCode == 0):
		return fmt.Sprintf("its container is %v", k)
	case (s.State == task.Killed || s.State == task.Killing) && !m.killed:
		return "nobody killed it"
	case s.State == task.Gone && !m.vanished:
		return "nobody removed it"
	case s.State == task.GoneByOperator && !m.killed:
		return "nobody drained the agent"
	case (s.State == task.Dropped || s.State == task.Lost) && !m.missing && !(m.drained && s.Reason == reasonDraining):
		return "nobody missed it"
	}
	return ""
}

// acknowledge: at once, late, twice, or not this time.
func (w *world) acknowledge(m *modelTask, s task.Status) {
	ack := func() {
		if !w.joined || m.silent {
			return
		}
		if s.State.Terminal() {
			m.acked = true
		}
		w.put(Ack{Key: m.key, UUID: s.UUID})
	}
	switch n := w.rnd.IntN(10); {
	case !w.faulty || n < 4:
		w.inLife(0, ack)
	case n < 6:
		w.inLife(w.between(time.Second, time.Minute), ack)
	case n < 8:
		w.inLife(0, ack)
		w.inLife(w.between(time.Second, time.Minute), ack)
	}
}

// run lets virtual time pass.
func (w *world) run(d time.Duration) {
	until := w.now.Add(d)
	for n := 0; ; n++ {
		w.flush()
		if w.pull(); len(w.inbox) > 0 {
			continue
		}
		next := w.next()
		if next.IsZero() || next.After(until) {
			break
		}
		if n > 200_000 {
			w.fatalf("no end of work at %v", next)
		}
		w.advance(next)
	}
	w.now = until
	w.mem.Advance(w.now)
}

func (w *world) next() (next time.Time) {
	times := []time.Time{w.mem.Next(), w.core.Next()}
	for _, c := range w.calls {
		times = append(times, c.at)
	}
	if len(w.timers) > 0 {
		times = append(times, w.timers[0].at)
	}
	for _, at := range times {
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next
}

func (w *world) advance(next time.Time) {
	if next.After(w.now) {
		w.now = next
	}
	w.mem.Advance(w.now)
	if at := w.core.Next(); !at.IsZero() && !at.After(w.now) {
		w.put(Tick{})
	}
	calls := w.calls
	w.calls = nil
	for _, c := range calls {
		if c.at.After(w.now) {
			w.calls = append(w.calls, c)
		} else {
			w.answer(c)
		}
	}
	for len(w.timers) > 0 && !w.timers[0].at.After(w.now) {
		do := w.timers[0].do
		w.timers = w.timers[1:]
		do()
	}
}

// What tests do to the world.

func (w *world) launch(*rapid.T) {
	if !w.joined || len(w.order) > 40 {
		return
	}
	key := task.Key{Framework: oneOf(w, []string{"f1", "f1", "f2"}...), ID: fmt.Sprintf("t%d", len(w.order))}
	if key.Framework == "f2" && w.shut {
		return
	}
	s := task.Spec{Key: key, Name: "web", Image: oneOf(w, []string{"web", "web", "web", "none"}...)}
	for _, name := range []string{"MESOPOOL_SIM_RUN", "MESOPOOL_SIM_EXIT", "MESOPOOL_SIM_DEAF"} {
		value := map[string][]string{
			"MESOPOOL_SIM_RUN":  {"", "", "0s", "3s", "2m"},
			"MESOPOOL_SIM_EXIT": {"", "", "", "0", "3"},
			"MESOPOOL_SIM_DEAF": {"", "", "1"},
		}[name]
		if v := oneOf(w, value...); v != "" {
			s.Env = append(s.Env, task.Label{Key: name, Value: v})
		}
	}
	w.log("launch %v %v %v", key, s.Image, s.Env)
	w.tasks[key] = &modelTask{key: key, state: task.Staging, uuids: map[task.UUID]task.State{}, since: w.now, drained: w.drained}
	w.demand(w.tasks[key], &s)
	w.order = append(w.order, key)
	w.put(Launch{Framework: frameworkOf(key), Spec: s})
	if w.chance(0.3) {
		w.put(Launch{Framework: frameworkOf(key), Spec: s})
	}
}

// launchGroup launches tasks that share a network, at times in a pod that is
// there.
func (w *world) launchGroup(*rapid.T) {
	if !w.joined || len(w.order) > 40 {
		return
	}
	f := oneOf(w, "f1", "f1", "f2")
	if f == "f2" && w.shut {
		return
	}
	in := LaunchGroup{Framework: frameworkOf(task.Key{Framework: f}), Pod: podSpec(fmt.Sprintf("p%d", w.rnd.IntN(6)))}
	in.Pod.Key.Framework = f
	var group []*modelTask
	for range 1 + w.rnd.IntN(3) {
		key := task.Key{Framework: f, ID: fmt.Sprintf("t%d", len(w.order))}
		s := task.Spec{Key: key, Name: "web", Image: oneOf(w, "web", "web", "web", "web", "none")}
		if v := oneOf(w, "", "", "0s", "3s", "2m"); v != "" {
			s.Env = []task.Label{{Key: "MESOPOOL_SIM_RUN", Value: v}, {Key: "MESOPOOL_SIM_EXIT", Value: oneOf(w, "0", "0", "3")}}
		}
		m := &modelTask{key: key, state: task.Staging, uuids: map[task.UUID]task.State{}, since: w.now, drained: w.drained, pod: in.Pod.Pod}
		w.demand(m, &s)
		w.tasks[key] = m
		w.order = append(w.order, key)
		in.Tasks, group = append(in.Tasks, s), append(group, m)
	}
	for _, m := range group {
		m.group = group
		w.log("launch %v in %s, a group of %d", m.key, m.pod, len(group))
	}
	w.put(in)
	if w.chance(0.3) {
		w.put(in)
	}
}

// container is the name of a task's container, or at times that of its pod's.
func (w *world) container(m *modelTask) string {
	if m.executor != "" {
		return ContainerName(owner.Cluster, task.Key{Framework: m.key.Framework, ID: task.PodID(m.executor)}, "pod")
	}
	if m.pod != "" && w.chance(0.3) {
		return holderOf(m)
	}
	return nameIn(m.key)
}

func holderOf(m *modelTask) string {
	return ContainerName(owner.Cluster, task.Key{Framework: m.key.Framework, ID: task.PodID(m.pod)}, "pod")
}

// demand gives some tasks a health check or a time to end.
func (w *world) demand(m *modelTask, s *task.Spec) {
	if m.checked = w.chance(0.3); m.checked {
		s.Health = &task.HealthCheck{
			Type: task.CheckTCP, Port: 80, Delay: time.Second, Interval: 3 * time.Minute, Grace: 10 * time.Second, Failures: 2,
		}
	}
	if w.chance(0.1) {
		m.limit = oneOf(w, 5*time.Second, 10*time.Minute)
		s.MaxCompletion = m.limit
	}
}

func (w *world) sicken(*rapid.T) {
	if m := w.pick(); m != nil && m.checked {
		w.log("%v is sick", m.key)
		m.sick = true
	}
}

func (w *world) pick() *modelTask {
	if len(w.order) == 0 {
		return nil
	}
	return w.tasks[oneOf(w, w.order...)]
}

func (w *world) kill(*rapid.T) {
	m := w.pick()
	if m == nil || m.silent {
		return
	}
	w.log("kill %v", m.key)
	if !m.ended {
		m.killed = true
		for _, x := range m.group {
			x.groupKilled = m.executor != ""
		}
	}
	if w.joined && !m.ended {
		grace := oneOf(w, []time.Duration{0, time.Second, time.Minute}...)
		w.put(Kill{Key: m.key, Grace: &grace})
	}
}

func (w *world) die(*rapid.T) {
	if m := w.pick(); m != nil {
		if k, ok := w.mem.Lookup(w.container(m)); ok && w.mem.Kill(w.now, k.ID, 9) {
			w.log("%v dies", m.key)
		}
	}
}

func (w *world) vanish(*rapid.T) {
	if m := w.pick(); m != nil {
		if k, ok := w.mem.Lookup(w.container(m)); ok {
			w.log("%v vanishes, %s", m.key, k.State)
			m.vanished = true
			w.mem.Vanish(w.now, k.ID)
		}
	}
}

func (w *world) leave(*rapid.T) {
	if w.joined {
		w.log("parted")
		w.joined = false
		w.put(Parted{})
		w.inLife(w.between(time.Second, 5*time.Minute), w.join)
	}
}

func (w *world) rejoin(*rapid.T) {
	if w.joined {
		w.join()
	}
}

func (w *world) faults(*rapid.T) {
	share := func() float64 { return oneOf(w, 0, 0, 0.2, 0.5) }
	f := memory.Faults{
		Fail: share(), Throttle: share(), LoseReply: share(), Hang: share(),
		Die: share(), DieAfter: memory.Span{Max: time.Minute},
	}
	w.log("faults %+v", f)
	w.mem.SetFaults(f)
}

func (w *world) shutdown(*rapid.T) {
	if w.shut || w.chance(0.7) {
		return
	}
	w.log("f2 ends")
	w.flush()
	w.shut = true
	for _, key := range w.order {
		if key.Framework == "f2" {
			w.tasks[key].silent = true
		}
	}
	if w.joined {
		w.put(ShutdownFramework{ID: "f2"})
		w.death = 0
		w.flush()
	}
}

func (w *world) drain(*rapid.T) {
	if !w.joined || w.chance(0.7) {
		return
	}
	w.flush()
	if !w.joined { // it has died
		return
	}
	w.log("drain")
	w.drained = true
	for _, m := range w.tasks {
		m.killed = m.killed || !m.ended
	}
	w.put(Drain{Config: DrainConfig{MaxGrace: new(time.Second), MarkGone: w.chance(0.5)}})
	w.death = 0
	w.flush()
}

func (w *world) addStray(*rapid.T) {
	if len(w.strays) > 0 {
		return
	}
	w.mem.SetFaults(memory.Faults{})
	name := oneOf(w, []string{"stray-up", "stray-created"}...)
	w.strays = append(w.strays, name)
	if name == "stray-up" {
		w.mem.Launch(w.now, owner, name, task.Spec{Key: stray})
	} else if err := w.mem.Create(w.now, owner, name, task.Spec{Key: stray}).Err; err != nil {
		w.fatalf("create: %v", err)
	}
}

func (w *world) pass(*rapid.T) {
	w.run(oneOf(w, []time.Duration{
		time.Millisecond, time.Second, 3 * time.Second, 10 * time.Second, time.Minute, 11 * time.Minute,
	}...))
}

func (w *world) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"launch": w.launch, "launch too": w.launch, "launch group": w.launchGroup, "launch hosted": w.launchHosted, "launch some": func(t *rapid.T) { w.launch(t); w.launch(t); w.launch(t) }, "kill": w.kill, "sicken": w.sicken, "die": w.die, "vanish": w.vanish, "part": w.leave, "join": w.rejoin,
		"faults": w.faults, "shutdown": w.shutdown, "drain": w.drain, "stray": w.addStray, "pass": w.pass, "pass too": w.pass, "pass again": w.pass, "now": func(*rapid.T) { w.run(0) },
		"crash":       func(*rapid.T) { w.death = 1 + w.rnd.IntN(3) },
		"break watch": func(*rapid.T) { w.breakWatch() },
		"":            func(*rapid.T) { w.check() },
	}
}

// check is what always holds.
func (w *world) check() {
	if d := w.mem.Doubles(); len(d) > 0 {
		w.fatalf("two live containers of %v", d)
	}
	for _, id := range w.foreign {
		a := w.mem.Inspect(w.now, id)
		if k, err := w.mem.Result(a); err == nil && k.State != provider.StateUp {
			w.fatalf("a foreign container is %v", k.State)
		}
	}
	if k, ok := w.mem.Lookup("foreign"); !ok || k.State != provider.StateUp {
		w.fatalf("the foreign container is %v", k.State)
	}
	if k, ok := w.mem.Lookup("other-1"); !ok || k.State != provider.StateUp {
		w.fatalf("the other cluster's container is %v", k.State)
	}
}

// settle ends all faults and waits: then all is as it should be.
func (w *world) settle() {
	w.log("faults end")
	w.faulty, w.death = false, 0
	w.mem.SetFaults(memory.Faults{})
	if !w.joined {
		w.join()
	}
	w.breakWatch() // what a listing kept from the agent is told now
	w.run(45 * time.Minute)
	w.check()
	for _, key := range w.order {
		if m := w.tasks[key]; m.executor != "" {
			w.settledHosted(m)
			continue
		}
		w.settled(w.tasks[key])
		w.settledPod(w.tasks[key])
	}
	w.settledExecutors()
	for _, name := range w.strays {
		if _, ok := w.mem.Lookup(name); ok {
			w.fatalf("%s is still there", name)
		}
	}
	for _, r := range w.core.tasks {
		r.checkAt = time.Time{} // checks go on
	}
	if n := w.core.Next(); !n.IsZero() && n.Before(w.now.Add(time.Hour)) {
		w.fatalf("the core still wants something, in %v", n.Sub(w.now))
	}
	w.cleared()
}

func (w *world) settled(m *modelTask) {
	k, exists := w.mem.Lookup(nameIn(m.key))
	r := w.core.tasks[m.key]
	switch over := m.acked || m.silent; {
	case over && (exists || w.mem.Live(m.key) > 0):
		w.fatalf("%v is over and its container is %v", m.key, k.State)
	case over && r != nil:
		w.fatalf("%v is over and not forgotten: %+v", m.key, r)
	case over:
	case m.killed || m.limit > 0 || m.sick && m.checked:
		w.fatalf("%v was killed and is %v, its container %v", m.key, m.state, k.State)
	case m.state != task.Running || k.State != provider.StateUp:
		w.fatalf("%v is %v, its container %v", m.key, m.state, k.State)
	case r == nil || len(r.Pending) > 0 || r.inFlight != OpNone:
		w.fatalf("%v is not at rest: %+v", m.key, r)
	}
}

// settledPod: a group lives or has ended as one, and its network is there for as
// long as somebody needs it.
func (w *world) settledPod(m *modelTask) {
	if m.pod == "" || m.silent {
		return
	}
	live := 0
	for _, key := range w.order {
		if x := w.tasks[key]; x.pod == m.pod && key.Framework == m.key.Framework && !x.ended {
			live++
		}
	}
	for _, x := range m.group {
		if x.ended && x.state != task.Finished && !m.ended {
			w.fatalf("%v has ended as %v, and %v of its group has not", x.key, x.state, m.key)
		}
	}
	k, exists := w.mem.Lookup(holderOf(m))
	if up := exists && k.State == provider.StateUp; up != (live > 0) || exists != up {
		w.fatalf("%d tasks of %s live, and its network's container is %v (%v)", live, m.pod, k.State, exists)
	}
}

// cleared: nothing is saved but what runs.
func (w *world) cleared() {
	saved, err := loadState(context.Background(), w.disk)
	if err != nil {
		w.fatalf("load: %v", err)
	}
	frameworks := map[string]bool{}
	for _, r := range saved.Tasks {
		frameworks[r.Spec.Key.Framework] = true
		if r.Spec.HoldsPod() {
			continue // settledPod has looked at it
		}
		if m := w.tasks[r.Spec.Key]; m.acked || m.silent {
			w.fatalf("%v is over and still saved", m.key)
		}
	}
	if saved.Drain != nil && len(saved.Tasks) == 0 {
		w.fatalf("still draining")
	}
	if len(saved.Frameworks) != len(frameworks) {
		w.fatalf("saved frameworks %v, tasks of %v", saved.Frameworks, frameworks)
	}
	if len(w.core.kept)+len(w.core.orphans)+w.core.gc.Len() > 0 {
		w.fatalf("kept %v, orphans %v", w.core.kept, w.core.orphans)
	}
}

// Whatever the backend, the network and the operator do, and wherever the agent
// dies: every task ends up as the master was told, once.
func TestWorld(t *testing.T) {
	for i := range 10 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				w := newWorld(t)
				w.run(10 * time.Second)
				t.Repeat(w.actions())
				w.settle()
			})
		})
	}
}
