package sim

import (
	"slices"
	"time"

	"github.com/mesopool/mesopool/agent"
	"github.com/mesopool/mesopool/marathon"
	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// masterNode is master/server around a master.Core.
type masterNode struct {
	process
	cfg   master.Config
	core  *master.Core
	inbox []master.Command
	disk  map[string]master.AgentInfo

	peers     map[string]*pipe // by the address of the other side
	linked    map[string]bool  // who wants to be told of that connection's end
	observed  map[string]observed
	observers int
	streams   map[string]*stream
	callers   map[string]string // framework to stream, "" while it is away
}

// observed is an agent that is watched, with the actor that its pongs go to.
type observed struct {
	addr     string
	observer int
}

// stream is the master's end of a framework's event stream.
type stream struct {
	id        string
	session   *session // the other end
	framework string
	gone      bool
	events    *pipe
}

const heartbeatEach = 15 * time.Second

func newMasterNode(w *World) *masterNode {
	m := &masterNode{disk: map[string]master.AgentInfo{}}
	m.init(w, "master")
	m.cfg = master.DefaultConfig()
	m.cfg.OfferTimeout = w.shape.offers
	m.cfg.OfferParts, m.cfg.OfferFloor = oneOf(w.rnd, 1, 4), resources.NewScalars(resources.Scalar{Name: "cpus", Amount: resources.Whole(2)})
	m.run, m.begin, m.cease = m.batch, m.revive, m.vanish
	m.nextAct = func() time.Time { return m.core.Next() }
	return m
}

func (m *masterNode) revive() {
	m.cfg.ID = m.w.table.id("M")
	m.core, m.inbox = master.NewCore(m.cfg), nil
	m.peers, m.linked, m.observed = map[string]*pipe{}, map[string]bool{}, map[string]observed{}
	m.streams, m.callers = map[string]*stream{}, map[string]string{}
	m.w.check.masterBegins()
	for _, id := range sortedKeys(m.disk) {
		m.put(master.Recover{Agent: m.disk[id]})
	}
}

func (m *masterNode) vanish() {}

func (m *masterNode) put(cmd master.Command) {
	m.inbox = append(m.inbox, hooked(m.w, m.w.opt.Hooks.MasterIn, cmd)...)
	m.kick()
}

// batch is server.batch.
func (m *masterNode) batch() {
	var fx []master.Effect
	var touched []string
	inbox := m.inbox
	m.inbox = nil
	for _, cmd := range inbox {
		fx = m.apply(cmd, fx)
		touched = append(touched, touchedBy(cmd)...)
	}
	if next := m.core.Next(); !next.IsZero() && !next.After(m.w.now) {
		fx = m.apply(master.Tick{}, fx)
		touched = append(touched, m.away()...)
	}
	if len(fx) > 0 || !routineOnly(inbox) {
		m.w.check.master(m.core)
	}
	fx = outbound(m.w, m.w.opt.Hooks.MasterOut, fx)
	leave, commit, dies := m.leaving(len(fx))
	if commit && m.w.opt.Hooks.LoseSaves != "master" {
		m.commit(fx)
	}
	for _, e := range fx[:leave] {
		m.dispatch(e)
	}
	if dies {
		m.die(m.doom)
		return
	}
	m.refresh(touched)
}

// routineOnly: pongs without an effect have changed nothing that is looked at.
func routineOnly(inbox []master.Command) bool {
	return !slices.ContainsFunc(inbox, func(cmd master.Command) bool { _, pong := cmd.(master.Pong); return !pong })
}

// apply: a refusal changes nothing.
func (m *masterNode) apply(cmd master.Command, fx []master.Effect) []master.Effect {
	m.w.logf("master: %s", m.w.text(cmd))
	before, suspect := m.w.check.beforeCommand(m.core, cmd)
	n := len(fx)
	fx, err := m.core.Apply(m.w.now, cmd, fx)
	if err != nil {
		m.w.logf("master refuses: %v", err)
		m.w.check.refused(m.core, cmd, before, suspect, len(fx) > n)
	}
	return fx
}

func touchedBy(cmd master.Command) []string {
	switch cmd := cmd.(type) {
	case master.Disconnect:
		return []string{cmd.Framework}
	case master.Teardown:
		return []string{cmd.Framework}
	case master.ReregisterAgent:
		var ids []string
		for i := range cmd.Frameworks {
			ids = append(ids, cmd.Frameworks[i].ID)
		}
		return ids
	}
	return nil
}

func (m *masterNode) away() []string {
	var out []string
	for _, id := range sortedKeys(m.callers) {
		if m.callers[id] == "" {
			out = append(out, id)
		}
	}
	return out
}

// refresh is registry.refresh: what requests know follows the core.
func (m *masterNode) refresh(ids []string) {
	for _, id := range ids {
		now, known := m.core.Stream(id)
		switch was, had := m.callers[id]; {
		case !known:
			delete(m.callers, id)
		case !had:
			m.callers[id] = ""
		case was != now:
			m.callers[id] = ""
		}
	}
}

func (m *masterNode) commit(fx []master.Effect) {
	for _, e := range fx {
		if p, ok := e.(master.Persist); ok {
			if p.Agent == nil {
				delete(m.disk, p.ID)
				continue
			}
			m.disk[p.ID] = *p.Agent
		}
	}
}

func (m *masterNode) dispatch(e master.Effect) {
	switch e := e.(type) {
	case master.ToFramework:
		m.toFramework(e)
	case master.ToAgent:
		m.toAgent(e)
	case master.CloseStream:
		if st := m.streams[e.Stream]; st != nil {
			m.forgetStream(st)
			st.events.close()
		}
	case master.Watch:
		m.watch(e)
	case master.Unwatch:
		if o, ok := m.observed[e.Agent]; ok && o.addr == e.PID {
			delete(m.observed, e.Agent)
		}
	}
}

// watch links an agent; one that registers again gets a new connection, which
// takes over what the old one had not written yet.
func (m *masterNode) watch(e master.Watch) {
	o, again := m.observed[e.Agent]
	if !again {
		m.observers++
		o.observer = m.observers
	}
	o.addr = e.PID
	m.observed[e.Agent] = o
	if old := m.peers[e.PID]; again && old != nil {
		delete(m.peers, e.PID)
		m.relink(old, m.peer(e.PID))
	}
	m.linked[e.PID] = true
	m.peer(e.PID)
}

func (m *masterNode) relink(old, fresh *pipe) {
	old.learn = nil
	if fresh == nil {
		return
	}
	if !old.open && !old.dead {
		for _, x := range old.msgs {
			fresh.send(x.what, x.do)
		}
		old.msgs = nil
	}
	old.close()
}

// peer is the connection to an address, perhaps a new one; nil when nobody has
// ever been there.
func (m *masterNode) peer(addr string) *pipe {
	if p := m.peers[addr]; p != nil {
		return p
	}
	a := m.w.agentAt(addr)
	if a == nil {
		return nil
	}
	wire := m.w.wireTo(&a.process)
	var p *pipe
	p = wire.dial(&m.process, &a.process, addr, func() {
		if m.peers[addr] != p {
			return
		}
		delete(m.peers, addr)
		if m.linked[addr] {
			delete(m.linked, addr)
			m.put(master.AgentExited{PID: addr})
		}
	})
	m.peers[addr] = p
	return p
}

func (m *masterNode) toAgent(e master.ToAgent) {
	a, p := m.w.agentAt(e.PID), m.peer(e.PID)
	if a == nil || p == nil {
		m.w.failf("shell", "a message to %s, where nobody ever was", e.PID)
		return
	}
	m.w.check.toAgent(a, e)
	do := m.deliver(a, e)
	p.send(m.w.text(e.Message), do)
}

// deliver is what the agent will do with the message. Nothing in it may point
// into the master's core any more.
func (m *masterNode) deliver(a *agentNode, e master.ToAgent) func() {
	switch x := e.Message.(type) {
	case master.Registered:
		return func() { a.admitted(e.Agent, false, nil) }
	case master.Reregistered:
		missing := missingOf(x.Missing)
		return func() { a.admitted(e.Agent, true, missing) }
	case master.Ping:
		observer := m.observed[e.Agent].observer
		return func() { a.pinged(e.Agent, observer, x.Connected) }
	case master.RunTask:
		f, handle := agentFramework(x.Framework), string(x.Task)
		return func() { a.runTask(f, handle) }
	case master.RunGroup:
		f, pod, tasks, fresh := agentFramework(x.Framework), string(x.Executor), handles(x.Tasks), !x.Runs
		return func() { a.runGroup(f, pod, tasks, fresh) }
	case master.ApplyOperation:
		op := m.w.table.operations[string(x.Wire)]
		return func() { a.operate(x.Framework, x.UUID, x.Version, op) }
	case master.AskOperations:
		return func() {
			for _, id := range x.UUIDs {
				a.operated("", id, master.OperationDropped)
			}
		}
	case master.KillTask:
		return func() { a.put(agent.Kill{Key: x.Key}) }
	case master.AckUpdate:
		return func() { a.put(agent.Ack{Key: x.Key, UUID: x.UUID}) }
	case master.ShutdownFramework:
		return func() { a.put(agent.ShutdownFramework{ID: x.Framework}) }
	case master.FrameworkUpdated:
		f := agentFramework(x.Framework)
		return func() { a.put(agent.UpdateFramework{Framework: f}) }
	case master.Shutdown:
		return func() { m.w.failf("shutdown", "the master orders %s to end: %s", a.name, x.Message) }
	}
	return func() {}
}

func handles(in [][]byte) (out []string) {
	for _, h := range in {
		out = append(out, string(h))
	}
	return out
}

func missingOf(in []master.MissingTasks) (out []agent.Missing) {
	for _, g := range in {
		for _, t := range g.Tasks {
			out = append(out, agent.Missing{Key: t.Key, Framework: agentFramework(g.Framework)})
		}
	}
	return out
}

func agentFramework(f *master.FrameworkInfo) agent.Framework {
	return agent.Framework{
		ID: f.ID, PartitionAware: f.Capabilities.PartitionAware, KillingState: f.Capabilities.KillingState, Origin: f.Origin,
	}
}

// pong comes from an agent, to the actor that pinged it.
func (m *masterNode) pong(observer int) {
	for _, id := range sortedKeys(m.observed) {
		if m.observed[id].observer == observer {
			m.put(master.Pong{Agent: id})
		}
	}
}

// subscribe is the request that opens a stream.
func (m *masterNode) subscribe(s *session, info master.FrameworkInfo) {
	st := &stream{id: m.w.table.id("stream"), session: s}
	m.streams[st.id] = st
	leave := func() { m.streamEnds(st) }
	st.events = s.wire.accepted(&m.process, &m.w.marathon.process, leave, s.broken)
	s.request.lost = leave
	s.answered(st.id, st.events)
	m.beat(s, st)
	m.put(master.Subscribe{Info: info, Stream: st.id})
}

func (m *masterNode) beat(s *session, st *stream) {
	m.inLife(heartbeatEach, func() {
		if !st.gone && !st.events.closed {
			st.events.send("heartbeat", s.heard)
			m.beat(s, st)
		}
	})
}

// streamEnds: nobody reads any more.
func (m *masterNode) streamEnds(st *stream) {
	if st.gone {
		return
	}
	st.gone = true
	st.events.close()
	m.forgetStream(st)
	if st.framework != "" {
		m.put(master.Disconnect{Framework: st.framework, Stream: st.id})
	}
}

func (m *masterNode) forgetStream(st *stream) {
	delete(m.streams, st.id)
	for _, id := range sortedKeys(m.callers) {
		if m.callers[id] == st.id {
			m.callers[id] = ""
		}
	}
}

func (m *masterNode) toFramework(e master.ToFramework) {
	st := m.streams[e.Stream]
	if st == nil {
		if _, late := e.Event.(master.Subscribed); late {
			m.put(master.Disconnect{Framework: e.Framework, Stream: e.Stream})
		}
		return
	}
	if s, ok := e.Event.(master.Subscribed); ok {
		st.framework = s.Framework
		m.callers[s.Framework] = st.id
	}
	st.events.send(m.w.text(e.Event), m.eventFor(st.session, e.Event))
}

// eventFor is what Marathon's client does with an event.
func (m *masterNode) eventFor(s *session, e master.Event) func() {
	c := m.w.marathon
	id := m.cfg.ID
	switch e := e.(type) {
	case master.Subscribed:
		return func() { c.subscribed(s, e.Framework, id) }
	case master.Offers:
		offers := make([]task.Offer, len(e.Offers))
		for i, o := range e.Offers {
			offers[i] = task.Offer{ID: o.ID, Agent: o.Agent, Hostname: "host-" + o.Agent, Role: o.Role, Resources: slices.Clone(o.Resources)}
		}
		return func() { c.hear(s, marathon.Offered{Offers: offers}) }
	case master.Update:
		in := marathon.Updated{TaskID: e.Task, Agent: e.Agent, Status: m.statusFor(&e)}
		m.w.check.told(in, e.Wire != nil)
		return func() { c.hear(s, in) }
	case master.Failed:
		return func() { c.failedBy(s, e.Message) }
	default:
		return func() { c.hear(s, nil) }
	}
}

// statusFor is the status as the framework reads it.
func (m *masterNode) statusFor(e *master.Update) task.Status {
	if e.Wire != nil {
		return m.w.table.statuses[string(e.Wire)]
	}
	s := task.Status{State: e.Status.State, Source: e.Status.Source, Reason: e.Status.Reason, Message: e.Status.Message, Time: e.Status.Time, UUID: e.Status.UUID}
	if len(e.Status.More) > 0 {
		said := m.w.table.statuses[string(e.Status.More)]
		s.Container, s.Healthy = said.Container, said.Healthy
	}
	return s
}

// call takes a framework's call if it comes over its stream; false refuses it.
func (m *masterNode) call(framework, stream string, cmd master.Command) bool {
	if at, known := m.callers[framework]; !known || at == "" || at != stream {
		return false
	}
	m.put(cmd)
	return true
}
