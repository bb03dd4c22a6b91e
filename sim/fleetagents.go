package sim

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// member is an agent of a Fleet. It does what a genuine one does with its tasks
// and its books, and survives everything but the master's order to end.
type member struct {
	f        *Fleet
	n        int
	id, pid  string
	hostname string
	books    bool // it keeps the books of operations itself (RESOURCE_PROVIDER)
	base     resources.Resources
	total    resources.Resources
	runs     map[task.Key]*running
	orders   map[task.UUID]*order
	epoch    int // of its connections: what an earlier one carried is lost
	away     time.Time
	silent   time.Time
	heard    time.Time // of the master
	arrivals time.Time // messages of the master come in order
}

// running is a task on a member, with what the master must still acknowledge.
type running struct {
	key       task.Key
	framework master.FrameworkInfo
	amount    resources.Resources
	state     task.State
	updates   []master.Status
}

// order is an operation whose end nobody has acknowledged.
type order struct {
	framework, id string
	status        task.UUID
	state         master.OperationState
	wire          []byte
}

func newMember(f *Fleet, n int) *member {
	m := &member{f: f, n: n, hostname: fmt.Sprintf("h%d", n), pid: fmt.Sprintf("slave(1)@10.0.0.%d:5051", n+1), books: f.chance(70)}
	r, err := resources.Parse(oneOf(f.rnd, "cpus:8;mem:8192;disk:100", "cpus:64;mem:65536;disk:1000", "cpus:200;mem:300000;disk:5000"))
	if err != nil {
		panic(err) // it is written above
	}
	m.base = r
	m.reset()
	f.after(f.span(0, 10*time.Second), m.lookAfter)
	return m
}

// reset makes a new agent of it.
func (m *member) reset() {
	m.id, m.total = "", m.base
	m.runs, m.orders = map[task.Key]*running{}, map[task.UUID]*order{}
}

func (m *member) info() master.AgentInfo {
	a := master.AgentInfo{ID: m.id, PID: m.pid, Hostname: m.hostname, Version: "1.11.0", Resources: m.total, MultiRole: true, ResourceProvider: m.books}
	a.CapabilityNames = []string{"HIERARCHICAL_ROLE", "RESERVATION_REFINEMENT", "AGENT_DRAINING"}
	if m.books {
		a.ResourceVersion = []byte("version")
		a.CapabilityNames = append(a.CapabilityNames, "RESOURCE_PROVIDER", "AGENT_OPERATION_FEEDBACK")
	}
	return a
}

// lookAfter registers when the master is silent, and sends again what nobody
// has acknowledged.
func (m *member) lookAfter() {
	m.f.after(10*time.Second, m.lookAfter)
	if m.f.now.Before(m.away) {
		return
	}
	if m.f.now.Sub(m.heard) > 60*time.Second {
		m.register()
		return
	}
	m.resend()
}

func (m *member) resend() {
	for _, key := range sortedKeysOf(m.runs) {
		m.report(m.runs[key])
	}
	for _, u := range sortedUUIDs(m.orders) {
		m.reportOrder(u)
	}
}

func sortedKeysOf(runs map[task.Key]*running) []task.Key {
	return slices.SortedFunc(maps.Keys(runs), func(a, b task.Key) int {
		if a.Framework != b.Framework {
			return compareText(a.Framework, b.Framework)
		}
		return compareText(a.ID, b.ID)
	})
}

func compareText(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func sortedUUIDs(orders map[task.UUID]*order) []task.UUID {
	return slices.SortedFunc(maps.Keys(orders), func(a, b task.UUID) int { return compareText(string(a[:]), string(b[:])) })
}

// tell sends the master a message; a broken connection loses it.
func (m *member) tell(cmd master.Command) {
	epoch, core := m.epoch, m.f.core
	m.f.after(m.f.span(time.Millisecond, 3*time.Millisecond), func() {
		if m.epoch == epoch && m.f.core == core {
			m.f.apply(cmd)
		}
	})
}

func (m *member) register() {
	m.heard = m.f.now
	if m.id == "" {
		m.tell(master.RegisterAgent{Agent: m.info()})
		return
	}
	cmd := master.ReregisterAgent{Agent: m.info()}
	listed := map[string]bool{}
	for _, key := range sortedKeysOf(m.runs) {
		r := m.runs[key]
		row := &master.Task{Key: key, Name: key.ID, Agent: m.id, Resources: r.amount, State: r.state}
		if len(r.updates) > 0 {
			row.StatusState, row.StatusUUID = r.updates[0].State, r.updates[0].UUID
		}
		if len(r.amount) == 0 {
			continue // it never ran here
		}
		cmd.Tasks = append(cmd.Tasks, row)
		if !listed[key.Framework] {
			listed[key.Framework] = true
			cmd.Frameworks = append(cmd.Frameworks, r.framework)
		}
	}
	m.tell(cmd)
}

// cut breaks the connections; the agent may come back after a time.
func (m *member) cut(away time.Duration) {
	m.epoch++
	m.away = m.f.now.Add(away)
	m.heard = time.Time{}
	core := m.f.core
	m.f.after(m.f.span(0, time.Second), func() {
		if m.f.core == core {
			m.f.apply(master.AgentExited{PID: m.pid})
		}
	})
	epoch := m.epoch
	m.f.after(away+m.f.span(0, 2*time.Second), func() {
		if m.epoch == epoch {
			m.register()
		}
	})
}

// arrive takes a message of the master on its way, in order.
func (m *member) arrive(e master.ToAgent) {
	epoch := m.epoch
	at := m.f.now.Add(m.f.span(time.Millisecond, 20*time.Millisecond))
	if at.Before(m.arrivals) {
		at = m.arrivals
	}
	m.arrivals = at
	m.f.after(at.Sub(m.f.now), func() {
		if m.epoch == epoch && !m.f.now.Before(m.away) {
			m.receive(e)
		}
	})
}

func (m *member) receive(e master.ToAgent) {
	if m.id != "" && e.Agent != m.id {
		if _, end := e.Message.(master.Shutdown); !end {
			return
		}
	}
	m.heard = m.f.now
	switch x := e.Message.(type) {
	case master.Registered:
		m.id = e.Agent
		m.list()
	case master.Reregistered:
		for _, g := range x.Missing {
			for _, t := range g.Tasks {
				m.missing(g.Framework, t.Key)
			}
		}
		m.resend()
		m.list()
	case master.Ping:
		m.pinged(x.Connected)
	case master.RunTask:
		m.run(x)
	case master.KillTask:
		m.kill(x.Key)
	case master.AckUpdate:
		m.acknowledged(x.Key, x.UUID)
	case master.ShutdownFramework:
		maps.DeleteFunc(m.runs, func(k task.Key, _ *running) bool { return k.Framework == x.Framework })
	case master.FrameworkUpdated:
		m.resend()
	case master.DrainMessage:
		for _, key := range sortedKeysOf(m.runs) {
			m.kill(key)
		}
	case master.ApplyOperation:
		m.operate(x)
	case master.CheckpointResources:
		m.keep(x.Resources)
	case master.AckOperation:
		if o := m.orders[x.UUID]; o != nil && o.status == x.Status {
			delete(m.orders, x.UUID)
		}
	case master.AskOperations:
		for _, u := range x.UUIDs {
			if m.orders[u] == nil {
				m.tell(master.OperationStatus{Agent: m.id, UUID: u, State: master.OperationDropped, Wire: []byte{}})
			}
		}
	case master.Shutdown:
		m.reset()
		m.cut(m.f.span(time.Second, time.Minute))
	}
}

func (m *member) pinged(connected bool) {
	if m.f.now.Before(m.silent) && !m.f.calm {
		return
	}
	if !connected {
		m.register()
	}
	m.tell(master.Pong{Agent: m.id})
}

// list tells which operations there are (UpdateSlaveMessage).
func (m *member) list() {
	if !m.books {
		return
	}
	cmd := master.UpdateAgent{PID: m.pid, Agent: m.id, ResourceVersion: []byte("version"), Listed: true}
	for _, u := range sortedUUIDs(m.orders) {
		o := m.orders[u]
		cmd.Operations = append(cmd.Operations, &master.Operation{UUID: u, Framework: o.framework, Agent: m.id, ID: o.id, Wire: o.wire, State: o.state, StatusUUID: o.status, Status: o.status[:]})
	}
	m.tell(cmd)
}

func (m *member) missing(f *master.FrameworkInfo, key task.Key) {
	if m.runs[key] != nil {
		return
	}
	r := &running{key: key, framework: *f}
	m.runs[key] = r
	m.move(r, task.Dropped)
}

func (m *member) run(x master.RunTask) {
	l := m.f.table[string(x.Task)]
	key := task.Key{Framework: x.Framework.ID, ID: l.id}
	if m.runs[key] != nil {
		m.f.failf("%s is launched twice on %s", key, m.id)
		return
	}
	r := &running{key: key, framework: *x.Framework, amount: l.amount, state: task.Staging}
	m.runs[key] = r
	steps := []task.State{task.Starting, task.Running, oneOf(m.f.rnd, task.Finished, task.Failed)}
	m.progress(r, steps)
}

// progress lets a task live.
func (m *member) progress(r *running, steps []task.State) {
	d := m.f.span(10*time.Millisecond, 5*time.Second)
	if len(steps) == 1 {
		d = m.f.span(time.Second, 20*time.Minute)
	}
	m.f.after(d, func() {
		if m.runs[r.key] != r || r.state.Terminal() {
			return
		}
		if m.move(r, steps[0]); len(steps) > 1 {
			m.progress(r, steps[1:])
		}
	})
}

// move puts a task into a state and has it reported, after the ones before.
func (m *member) move(r *running, s task.State) {
	r.state = s
	r.updates = append(r.updates, master.Status{State: s, Time: m.f.now, UUID: m.f.uuid()})
	if len(r.updates) == 1 {
		m.report(r)
	}
}

func (m *member) report(r *running) {
	if len(r.updates) == 0 {
		return
	}
	m.tell(master.StatusUpdate{Agent: m.id, Key: r.key, Status: r.updates[0], Latest: r.state, Event: []byte("e")})
}

func (m *member) kill(key task.Key) {
	r := m.runs[key]
	switch {
	case r == nil:
		r = &running{key: key}
		m.runs[key] = r
		m.move(r, task.Dropped)
	case !r.state.Terminal():
		m.move(r, task.Killed)
	}
}

func (m *member) acknowledged(key task.Key, u task.UUID) {
	r := m.runs[key]
	if r == nil || len(r.updates) == 0 || r.updates[0].UUID != u {
		return
	}
	if r.updates = r.updates[1:]; len(r.updates) == 0 && r.state.Terminal() {
		delete(m.runs, key)
		return
	}
	m.report(r)
}

func (m *member) operate(x master.ApplyOperation) {
	if m.orders[x.UUID] != nil {
		return
	}
	o := &order{framework: x.Framework, status: m.f.uuid(), state: master.OperationFinished, wire: x.Wire}
	total, err := m.total.Apply(m.f.wires[string(x.Wire)])
	if err != nil {
		o.state = master.OperationDropped
	} else {
		m.total = total
	}
	m.orders[x.UUID] = o
	m.reportOrder(x.UUID)
}

func (m *member) reportOrder(u task.UUID) {
	o := m.orders[u]
	m.tell(master.OperationStatus{Agent: m.id, Framework: o.framework, ID: o.id, UUID: u, Status: o.status, State: o.state, Wire: o.status[:]})
}

// keep is all that there is of reservations and volumes.
func (m *member) keep(kept resources.Resources) {
	m.total = m.base
	for _, r := range kept {
		plain := r
		plain.Disk, plain.Reservations = nil, nil
		m.total = m.total.Sub(plain).Add(r)
	}
}
