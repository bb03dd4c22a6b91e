package sim

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mesopool/mesopool/agent"
	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// agentNode is agent.Runner and mesos/link around an agent.Core.
type agentNode struct {
	process
	cfg   agent.Config
	core  *agent.Core
	inbox []any // agent.Input or func()
	disk  agentDisk
	dc    *dataCenter
	moves int // counts the addresses it has had

	id         string // that the master gave, as saved
	versions   int    // counts the states of its resources
	master     *pipe
	round      int // counts the registrations
	staying    bool
	registered bool
	most       time.Duration // the longest pause between two attempts
	lastPing   time.Time
}

// agentDisk is what the agent's store holds.
type agentDisk struct {
	id         string
	frameworks map[string]agent.Framework
	tasks      map[task.Key]agent.Record
	kept       resources.Resources // what operations have reserved
}

const (
	registerBackoff = time.Second
	masterSilence   = 75 * time.Second
	keepTime        = 5 * time.Minute
)

func newAgentNode(w *World, n int) *agentNode {
	a := &agentNode{}
	a.init(w, fmt.Sprintf("agent%d", n+1))
	a.disk.frameworks, a.disk.tasks = map[string]agent.Framework{}, map[task.Key]agent.Record{}
	a.cfg = agent.DefaultConfig()
	a.cfg.Owner = task.Owner{Cluster: "sim", Agent: a.name}
	a.cfg.NewUUID = w.table.uuid
	for how := range a.cfg.GC.Keep {
		a.cfg.GC.Keep[how] = keepTime
	}
	a.dc = newDataCenter(w, a)
	a.run, a.begin, a.cease = a.batch, a.revive, a.vanish
	a.nextAct = func() time.Time { return a.core.Next() }
	return a
}

// agentAt finds the agent that has, or had, an address.
func (w *World) agentAt(addr string) *agentNode {
	name, _, _ := strings.Cut(addr, ":")
	return w.agentNamed(name)
}

func (a *agentNode) revive() {
	a.core, a.inbox = agent.NewCore(a.cfg), nil
	a.versions++
	a.id, a.registered, a.staying, a.master = a.disk.id, false, false, nil
	a.dc.revive()
	var saved agent.Recover
	for _, id := range sortedKeys(a.disk.frameworks) {
		saved.Frameworks = append(saved.Frameworks, a.disk.frameworks[id])
	}
	for _, key := range slices.SortedFunc(maps.Keys(a.disk.tasks), compareKeys) {
		r := a.disk.tasks[key]
		saved.Tasks = append(saved.Tasks, savedRecord(&r))
	}
	a.put(saved)
	a.inLife(0, a.dc.watch)
	a.inLife(0, a.register)
}

// vanish: the next life may have another address.
func (a *agentNode) vanish() {
	a.dc.closeFeed()
	if a.w.chance(0.3) {
		a.moves++
		a.addr = a.name + ":" + strconv.Itoa(a.moves+1)
	}
}

func (a *agentNode) put(in agent.Input) {
	for _, x := range hooked(a.w, a.w.opt.Hooks.AgentIn, in) {
		a.inbox = append(a.inbox, x)
	}
	a.kick()
}

// batch is Runner.batch.
func (a *agentNode) batch() {
	if next := a.core.Next(); !next.IsZero() && !next.After(a.w.now) {
		a.inbox = append(a.inbox, agent.Tick{})
	}
	var fx []agent.Effect
	var views []func()
	for _, in := range a.inbox {
		switch in := in.(type) {
		case agent.Input:
			a.w.logf("%s: %s", a.name, a.w.text(in))
			a.w.check.agentInput(a, in)
			fx = a.core.Step(a.w.now, in, fx)
		case func():
			views = append(views, in)
		}
	}
	a.inbox = nil
	fx = outbound(a.w, a.w.opt.Hooks.AgentOut, fx)
	leave, commit, dies := a.leaving(len(fx))
	if a.w.opt.Hooks.LeaveFirst == "agent" {
		leave, commit = len(fx), !dies
	}
	if commit && a.w.opt.Hooks.LoseSaves != "agent" {
		a.commit(fx)
	}
	for _, e := range fx[:leave] {
		a.dispatch(e)
	}
	if dies {
		a.die(a.doom)
		return
	}
	for _, view := range views {
		view()
	}
}

func (a *agentNode) commit(fx []agent.Effect) {
	for _, e := range fx {
		switch e := e.(type) {
		case agent.Save:
			if e.Record == nil {
				delete(a.disk.tasks, e.Key)
			} else {
				a.disk.tasks[e.Key] = savedRecord(e.Record)
			}
		case agent.SaveFramework:
			if e.Framework == nil {
				delete(a.disk.frameworks, e.ID)
			} else {
				a.disk.frameworks[e.ID] = *e.Framework
			}
		}
	}
}

// savedRecord is what is left of a record that was written and read again
// (agent/persist.go, lean and full).
func savedRecord(r *agent.Record) agent.Record {
	out := *r
	out.Container = provider.Container{}
	if k := &r.Container; k.ID != "" {
		out.Container = provider.Container{
			ID: k.ID, Name: r.Name, Key: r.Spec.Key, Addresses: k.Addresses, Network: k.Network, Ports: k.Ports, PublishIP: k.PublishIP, Started: k.Started,
		}
	}
	out.History = slices.Clone(r.History)
	for i := range out.History {
		out.History[i].Container = savedStatus(&out)
	}
	out.Pending = slices.Clone(out.History[len(out.History)-len(r.Pending):])
	return out
}

func savedStatus(r *agent.Record) *task.ContainerStatus {
	id := r.Container.ID
	if id == "" {
		id = r.Name
	}
	if id == "" {
		return nil
	}
	return &task.ContainerStatus{
		ID: id, Addresses: r.Container.Addresses, Network: r.Container.Network, Ports: r.Container.Ports, PublishIP: r.Container.PublishIP,
	}
}

func (a *agentNode) dispatch(e agent.Effect) {
	switch e := e.(type) {
	case agent.Report:
		a.report(e)
	case agent.Call:
		a.dc.call(e)
	case agent.Cancel:
		a.dc.cancel(e.Key)
	case agent.Probe:
		a.dc.probe(e)
	case agent.Announce:
		a.dc.announced[e.Key], a.dc.heard[e.Key] = true, true
	case agent.Withdraw:
		delete(a.dc.announced, e.Key)
	case agent.AllKnown:
		a.dc.allKnown()
	case agent.ExecutorGone:
		cmd := master.ExitedExecutor{Agent: a.id, Framework: e.Framework, Executor: e.Executor, Status: e.Status}
		a.toMaster("ExitedExecutor "+e.Executor, func() { a.w.master.put(cmd) })
	}
}

// report is Link.Report.
func (a *agentNode) report(r agent.Report) {
	a.w.check.reported(a, r)
	if !a.registered || a.master == nil {
		return
	}
	wire := a.w.table.putStatus(&r.Status)
	s := r.Status
	cmd := master.StatusUpdate{
		Agent: a.id, Key: r.Key, Latest: r.Latest, Event: wire,
		Status: master.Status{State: s.State, Time: s.Time, Source: s.Source, Reason: s.Reason, UUID: s.UUID, Message: s.Message, More: wire},
	}
	a.toMaster(a.w.text(cmd), func() { a.w.master.put(cmd) })
}

func (a *agentNode) toMaster(what string, do func()) {
	if a.master == nil || a.master.dead || a.master.closed {
		a.link()
	}
	a.master.send(what, do)
}

// link makes a connection to the master if there is none.
func (a *agentNode) link() {
	if a.master != nil && !a.master.dead && !a.master.closed {
		return
	}
	m := a.w.master
	var p *pipe
	p = a.w.wireTo(&a.process).dial(&a.process, &m.process, m.addr, func() {
		if a.master == p {
			a.master = nil
			a.exited()
		}
	})
	a.master = p
}

// register is Link.register: attempts with a growing pause.
func (a *agentNode) register() {
	a.round++
	round := a.round
	a.most = registerBackoff
	a.inLife(a.w.upTo(a.most/4), func() { a.attempt(round) })
}

func (a *agentNode) attempt(round int) {
	if a.round != round || a.staying {
		return
	}
	a.link()
	a.sendRegistration(func() {
		wait := a.most/2 + a.w.upTo(a.most/2)
		a.most = min(2*a.most, time.Minute)
		a.inLife(wait, func() { a.attempt(round) })
	})
}

// sendRegistration registers a new agent, or an old one with all that it runs.
func (a *agentNode) sendRegistration(then func()) {
	if a.id == "" {
		cmd := master.RegisterAgent{Agent: a.info()}
		a.toMaster(a.w.text(cmd), func() { a.w.master.put(cmd) })
		then()
		return
	}
	a.inbox = append(a.inbox, func() {
		cmd := a.reregistration()
		all := master.UpdateAgent{PID: a.addr, Agent: a.id, ResourceVersion: cmd.Agent.ResourceVersion, Listed: true} // no operation is ever under way
		a.toMaster(a.w.text(cmd), func() {
			a.w.master.put(cmd)
			a.w.master.put(all)
		})
		then()
	})
	a.kick()
}

func (a *agentNode) info() master.AgentInfo {
	total := resources.NewScalar("cpus", resources.Whole(a.w.shape.cpus)).Add(resources.NewScalar("mem", resources.Whole(a.w.shape.cpus*1024))...)
	total = total.Add(resources.NewScalar("disk", resources.Whole(10_000))...)
	return master.AgentInfo{
		ID: a.id, PID: a.addr, Hostname: a.name, Port: 5051, Version: "1.11.0", Resources: total.Sub(a.disk.kept.Stripped()...).Add(a.disk.kept...), MultiRole: true, TaskResourceLimits: true,
		ResourceProvider: true, ResourceVersion: a.version(),
	}
}

func (a *agentNode) reregistration() master.ReregisterAgent {
	roster := a.core.Roster()
	cmd := master.ReregisterAgent{Agent: a.info()}
	for _, f := range roster.Frameworks {
		if len(f.Origin) > 0 {
			info := a.w.marathon.info()
			info.ID = f.ID
			cmd.Frameworks = append(cmd.Frameworks, info)
		}
	}
	for i := range roster.Executors {
		s := roster.Executors[i].Spec
		cmd.Executors = append(cmd.Executors, &master.Executor{ID: s.Pod, Framework: s.Key.Framework, Agent: a.id, Resources: s.Resources, Origin: s.Origin})
	}
	for i := range roster.Tasks {
		if t := &roster.Tasks[i]; len(t.Spec.Origin) > 0 {
			cmd.Tasks = append(cmd.Tasks, a.reported(t))
		}
	}
	return cmd
}

// reported is a task as a re-registration describes it (mesos/link, TaskMessage).
func (a *agentNode) reported(t *agent.Task) *master.Task {
	row := &master.Task{
		Key: t.Spec.Key, Name: t.Spec.Name, Agent: a.id, Resources: t.Spec.Resources, State: t.State, Executor: t.Spec.Pod,
	}
	for i := range t.History {
		s := t.History[i]
		row.Statuses = append(row.Statuses, master.Status{
			State: s.State, Time: s.Time, Source: s.Source, Reason: s.Reason, UUID: s.UUID, Message: s.Message, More: a.w.table.putStatus(&s),
		})
	}
	told := t.Pending
	if n := len(t.History); told == nil && n > 0 {
		told = &t.History[n-1]
	}
	if told != nil {
		row.StatusState, row.StatusUUID = told.State, told.UUID
	}
	return row
}

// admitted: the ID is durable before anything is done under it.
func (a *agentNode) admitted(id string, again bool, missing []agent.Missing) {
	if again && id != a.id || !again && a.id != "" && a.id != id {
		a.w.logf("%s is %s and ignores a registration as %s", a.name, a.id, id)
		return
	}
	a.disk.id = id
	a.id, a.registered, a.lastPing = id, true, a.w.now
	a.put(agent.Joined{Missing: missing})
	if !a.staying {
		a.staying = true
		a.round++
		a.link()
		a.watchdog(a.round)
	}
}

// pinged: a ping is answered in every state, to whoever asks.
func (a *agentNode) pinged(_ string, observer int, connected bool) {
	a.toMaster("pong", func() { a.w.master.pong(observer) })
	a.lastPing = a.w.now
	if a.registered && !connected && a.staying {
		a.leave("the master says that we are not connected")
	}
}

// watchdog registers again after too long a silence.
func (a *agentNode) watchdog(round int) {
	at := a.lastPing.Add(masterSilence + time.Second)
	a.inLife(at.Sub(a.w.now), func() {
		switch {
		case a.round != round:
		case a.w.now.Sub(a.lastPing) > masterSilence:
			a.leave("the master has not pinged")
		default:
			a.watchdog(round)
		}
	})
}

// exited: the connection to the master broke.
func (a *agentNode) exited() {
	if a.staying {
		a.leave("the connection to the master broke")
		return
	}
	a.most = min(a.most, 4*registerBackoff)
}

func (a *agentNode) leave(why string) {
	a.w.logf("%s registers again: %s", a.name, why)
	a.versions++
	a.staying, a.registered = false, false
	a.put(agent.Parted{})
	a.register()
}

// version names a state of the agent's resources.
func (a *agentNode) version() []byte { return []byte(a.name + "-" + strconv.Itoa(a.versions)) }

// operate is Link.applyOperation. What the master has believed to be possible and
// is not has the agent register again, which puts its books right.
func (a *agentNode) operate(framework string, id task.UUID, version []byte, op resources.Operation) {
	end := master.OperationDropped
	if bytes.Equal(version, a.version()) {
		if after, err := a.info().Resources.Apply(op); err == nil {
			a.disk.kept, end = after.Checkpointed(), master.OperationFinished
		}
	}
	a.operated(framework, id, end)
	if end != master.OperationFinished && a.staying {
		a.leave("the master's books differ")
	}
}

// operated tells the end of an operation; one that the master asks about is
// over.
func (a *agentNode) operated(framework string, id task.UUID, end master.OperationState) {
	cmd := master.OperationStatus{Agent: a.id, Framework: framework, UUID: id, State: end}
	a.toMaster(fmt.Sprintf("OperationStatus %d", end), func() { a.w.master.put(cmd) })
}

// runTask is Link.runTask.
func (a *agentNode) runTask(f agent.Framework, handle string) {
	id, _ := splitHandle([]byte(handle))
	if f.ID == "" || id != a.id {
		a.w.logf("%s ignores a task for %s", a.name, id)
		return
	}
	s := a.w.table.specs[handle]
	s.Key.Framework, s.Origin = f.ID, []byte(handle)
	if wanted := s.Resources.Checkpointed().Allocated(""); !a.disk.kept.Contains(wanted) {
		a.put(agent.Refuse{Framework: f, Key: s.Key, State: agent.LostAs(f.PartitionAware, task.Dropped), Message: "The agent does not know of the reserved resources"})
		return
	}
	a.put(agent.Launch{Framework: f, Spec: s})
}

// runGroup is Link.runTaskGroup.
func (a *agentNode) runGroup(f agent.Framework, pod string, tasks []string, fresh bool) {
	id, _ := splitHandle([]byte(pod))
	if f.ID == "" || id != a.id {
		a.w.logf("%s ignores a task group for %s", a.name, id)
		return
	}
	in := agent.LaunchGroup{Framework: f, Pod: a.w.table.specs[pod], New: &fresh}
	in.Pod.Origin = []byte(pod)
	for _, h := range tasks {
		s := a.w.table.specs[h]
		s.Key.Framework, s.Origin = f.ID, []byte(h)
		in.Tasks = append(in.Tasks, s)
	}
	a.put(in)
}
