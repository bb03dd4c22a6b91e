package agent

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

// modelExecutor is a framework's own executor in the world: it lives as long as
// its container does.
type modelExecutor struct {
	key      task.Key // of its container
	id       string
	life     string // the container of this life, "" before the first
	session  uint64 // 0: not connected
	agent    int    // the agent's life of the session
	tasks    map[string]bool
	known    map[string]bool // and none of their updates is acknowledged
	unacked  []ExecutorStatus
	leaving  bool
	lonesome bool // it does not connect
}

// told is what executors have said of a task, in all their lives.
type told struct {
	got    int // how often a task was handed over
	states map[task.UUID]task.State
	ended  bool
	handed bool // to an executor that lives
}

func execSpec(framework, id string) task.Spec {
	return task.Spec{Key: task.Key{Framework: framework, ID: task.PodID(id)}, Pod: id, Custom: true, Name: "pod", Image: "web", Origin: []byte("executor")}
}

// launchHosted launches a task, or a group of them, on an executor.
func (w *world) launchHosted(*rapid.T) {
	if !w.joined || len(w.order) > 40 {
		return
	}
	f := oneOf(w, "f1", "f1", "f2")
	if f == "f2" && w.shut {
		return
	}
	in := LaunchGroup{Framework: frameworkOf(task.Key{Framework: f}), Pod: execSpec(f, fmt.Sprintf("e%d", w.rnd.IntN(3))), Single: w.chance(0.7)}
	if w.executors[in.Pod.Key] == nil {
		w.executors[in.Pod.Key] = &modelExecutor{key: in.Pod.Key, id: in.Pod.Pod, lonesome: w.chance(0.1)}
		w.after(time.Second, func() { w.drive(w.executors[in.Pod.Key]) })
	}
	var group []*modelTask
	n := 1
	if !in.Single {
		n += w.rnd.IntN(3)
	}
	for range n {
		key := task.Key{Framework: f, ID: fmt.Sprintf("t%d", len(w.order))}
		m := &modelTask{
			key: key, state: task.Staging, uuids: map[task.UUID]task.State{}, since: w.now, drained: w.drained,
			executor: in.Pod.Pod, told: &told{states: map[task.UUID]task.State{}},
		}
		w.tasks[key], w.order = m, append(w.order, key)
		in.Tasks = append(in.Tasks, task.Spec{Key: key, Name: "web"})
		group = append(group, m)
		w.log("launch %v on %s", key, m.executor)
	}
	for _, m := range group {
		m.group = group
	}
	w.put(in)
	if w.chance(0.3) {
		w.put(in)
	}
}

// drive is an executor's own life, a step every few seconds.
func (w *world) drive(x *modelExecutor) {
	w.after(w.between(time.Second, 4*time.Second), func() { w.drive(x) })
	k, exists := w.mem.Lookup(ContainerName(owner.Cluster, x.key, "pod"))
	if !exists || k.State != provider.StateUp {
		w.endExecutor(x)
		return
	}
	if x.life != k.ID {
		w.endExecutor(x)
		*x = modelExecutor{key: x.key, id: x.id, lonesome: x.lonesome, life: k.ID, tasks: map[string]bool{}, known: map[string]bool{}}
	}
	switch {
	case x.session == 0 || x.agent != w.life:
		w.connect(x)
	case w.faulty && w.chance(0.05):
		w.log("%v loses its connection", x.key)
		w.put(Unsubscribe{Framework: x.key.Framework, Executor: x.id, Session: x.session})
		x.session = 0
	case w.faulty && w.chance(0.1):
		w.endOne(x)
	}
}

func (w *world) endExecutor(x *modelExecutor) {
	if x.life == "" {
		return
	}
	x.life, x.session, x.unacked = "", 0, nil
	for id := range x.tasks {
		w.tasks[task.Key{Framework: x.key.Framework, ID: id}].told.handed = false
	}
	clear(x.tasks)
}

func (w *world) connect(x *modelExecutor) {
	if x.lonesome && w.faulty {
		return
	}
	w.sessions++
	x.session, x.agent = w.sessions, w.life
	in := Subscribe{Framework: x.key.Framework, Executor: x.id, Session: x.session, Updates: slices.Clone(x.unacked)}
	for id := range x.known {
		in.Tasks = append(in.Tasks, id)
	}
	w.log("%v connects as %d with %d updates", x.key, x.session, len(x.unacked))
	w.put(in)
}

// endOne: a task of the executor ends by itself.
func (w *world) endOne(x *modelExecutor) {
	ids := make([]string, 0, len(x.tasks))
	for id := range x.tasks {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	if len(ids) > 0 {
		w.tell(x, oneOf(w, ids...), oneOf(w, task.Finished, task.Failed))
	}
}

// tell sends a status, which is kept until it is acknowledged.
func (w *world) tell(x *modelExecutor, id string, state task.State) {
	w.uuids++
	s := task.Status{State: state, Source: task.SourceExecutor, Time: w.now}
	s.UUID[0] = 0xee
	binary.BigEndian.PutUint64(s.UUID[8:], w.uuids)
	if state.Terminal() {
		delete(x.tasks, id)
	}
	t := w.tasks[task.Key{Framework: x.key.Framework, ID: id}].told
	t.states[s.UUID], t.ended = state, t.ended || state.Terminal()
	u := ExecutorStatus{Task: id, Status: s}
	x.unacked = append(x.unacked, u)
	if x.session != 0 && x.agent == w.life {
		w.put(ExecutorUpdate{Framework: x.key.Framework, Executor: x.id, ExecutorStatus: u})
	}
}

// toExecutor is what the hub does: an event for another session is lost, and
// at times one breaks the connection.
func (w *world) toExecutor(e ToExecutor) {
	x := w.executors[task.Key{Framework: e.Framework, ID: task.PodID(e.Executor)}]
	if x == nil || x.session != e.Session || x.agent != w.life || x.life == "" {
		return
	}
	if _, cut := e.Event.(Cut); cut || w.faulty && w.chance(0.03) {
		w.log("%v is cut off before %T", x.key, e.Event)
		x.session = 0
		w.put(Unsubscribe{Framework: e.Framework, Executor: e.Executor, Session: e.Session})
		return
	}
	life, session := x.life, x.session
	w.after(0, func() {
		if x.life == life && x.session == session {
			w.hears(x, e.Event)
		}
	})
}

func (w *world) hears(x *modelExecutor, e ExecutorEvent) {
	switch e := e.(type) {
	case RunTask:
		w.handed(x, e.Spec)
	case *RunGroup:
		for _, s := range e.Specs {
			w.handed(x, s)
		}
	case KillTask:
		if x.tasks[e.ID] {
			w.tell(x, e.ID, task.Killed)
		}
	case Acknowledged:
		delete(x.known, e.ID)
		x.unacked = slices.DeleteFunc(x.unacked, func(u ExecutorStatus) bool { return u.Status.UUID == e.UUID })
	case ShutDown:
		if w.chance(0.7) && !x.leaving { // or it is deaf
			x.leaving = true
			w.mem.Kill(w.now, x.life, 0)
		}
	}
}

func (w *world) handed(x *modelExecutor, s *task.Spec) {
	t := w.tasks[s.Key].told
	if t.got++; t.got > 1 {
		w.fatalf("%v was handed over %d times", s.Key, t.got)
	}
	t.handed = true
	x.tasks[s.Key.ID], x.known[s.Key.ID] = true, true
	w.tell(x, s.Key.ID, task.Running)
}

// inventedHosted says why a status of an executor's task cannot be true.
func (w *world) inventedHosted(m *modelTask, s task.Status) string {
	state, said := m.told.states[s.UUID]
	k, exists := w.mem.Lookup(ContainerName(owner.Cluster, task.Key{Framework: m.key.Framework, ID: task.PodID(m.executor)}, "pod"))
	switch {
	case said && state != s.State && (state != task.Killed || s.State != task.GoneByOperator):
		return "its executor said " + state.String()
	case said:
		return ""
	case s.Source != task.SourceAgent:
		return "its executor has not said so"
	case s.State == task.Killed && s.Reason == task.ReasonKilledDuringLaunch, s.State == task.GoneByOperator:
		if !m.killed && !m.groupKilled || m.told.got > 0 {
			return "nobody killed it, or it was handed over"
		}
	case s.Reason == task.ReasonAgentRestarted && m.told.got > 0:
		return "its executor has it"
	case s.Reason == task.ReasonExecutorTerminated && s.State == task.Failed && exists && k.State == provider.StateUp && m.told.handed:
		return "its executor lives"
	}
	return ""
}

func (w *world) settledHosted(m *modelTask) {
	r := w.core.tasks[m.key]
	switch over := m.acked || m.silent; {
	case over && r != nil:
		w.fatalf("%v is over and not forgotten: %+v", m.key, r)
	case over:
	case m.killed || m.state != task.Running || !m.told.handed || m.told.ended:
		w.fatalf("%v is %v: %+v, killed %v", m.key, m.state, m.told, m.killed)
	case r == nil || len(r.Pending) > 0:
		w.fatalf("%v is not at rest: %+v", m.key, r)
	}
}

// settledExecutors: one that is no more has left nothing, and of a framework
// that is gone none is left.
func (w *world) settledExecutors() {
	for key, x := range w.executors {
		r := w.core.tasks[key]
		k, exists := w.mem.Lookup(ContainerName(owner.Cluster, key, "pod"))
		up := exists && k.State == provider.StateUp
		if up != (r != nil) || exists != up || up && (r.session == 0 || r.session != x.session) {
			w.fatalf("the executor %v: container %v (%v), row %+v", key, k.State, exists, r)
		}
		if up && w.shut && key.Framework == "f2" {
			w.fatalf("%v outlives its framework", key)
		}
	}
}
