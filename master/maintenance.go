package master

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/mesopool/mesopool/task"
)

// Marks are what operators have said of an agent. The zero value is an agent
// like any other.
type Marks struct {
	Deactivated bool   `json:",omitempty"`
	Drain       *Drain `json:",omitempty"`
}

// Drain is an agent that is emptied.
type Drain struct {
	Grace    *time.Duration `json:",omitempty"` // the longest that tasks get to end; nil: as they say
	MarkGone bool           `json:",omitempty"` // once it is empty
	Drained  bool           `json:",omitempty"`
	Since    time.Time
}

func (m *Marks) inactive() bool { return m.Deactivated || m.Drain != nil }

// Machine is where agents run. An empty field stands for any.
type Machine struct {
	Hostname string `json:",omitempty"`
	IP       string `json:",omitempty"`
}

// Window is a time in which machines are not there.
type Window struct {
	Machines []Machine
	Start    time.Time
	Length   time.Duration // 0: for good
}

// Maintenance is what operators plan.
type Maintenance struct {
	Windows []Window  `json:",omitempty"`
	Down    []Machine `json:",omitempty"`
}

// Unavailability is when an agent is not there.
type Unavailability struct {
	Start  time.Time
	Length time.Duration // 0: for good
}

// InverseOffer asks a framework to leave an agent.
type InverseOffer struct {
	ID        string
	Framework string
	Agent     string
	When      Unavailability
	Answer    InverseAnswer
	Answered  time.Time
	open      bool      // waits for an answer
	until     time.Time // not asked again before
}

// InverseAnswer is what a framework said; operators may look at it.
type InverseAnswer uint8

// The answers; the numbers are Mesos' (allocator.proto, InverseOfferStatus).
const (
	InverseUnknown InverseAnswer = iota + 1
	InverseAccepted
	InverseDeclined
)

// Covers says whether an agent runs on the machine.
func (m Machine) Covers(a *AgentInfo) bool {
	if m.Hostname != "" && !strings.EqualFold(m.Hostname, a.Hostname) {
		return false
	}
	return m.IP == "" || m.IP == hostOf(a.PID)
}

// hostOf is the IP address in id@ip:port.
func hostOf(pid string) string {
	_, addr, _ := strings.Cut(pid, "@")
	at, err := netip.ParseAddrPort(addr)
	if err != nil {
		return ""
	}
	return at.Addr().String()
}

func (c *Core) down(a *AgentInfo) bool {
	return slices.ContainsFunc(c.maintenance.Down, func(m Machine) bool { return m.Covers(a) })
}

func (c *Core) unavailability(a *AgentInfo) *Unavailability {
	for i := range c.maintenance.Windows {
		w := &c.maintenance.Windows[i]
		if slices.ContainsFunc(w.Machines, func(m Machine) bool { return m.Covers(a) }) {
			return &Unavailability{w.Start, w.Length}
		}
	}
	return nil
}

// known says whether there is such an agent, registered or not.
func (c *Core) known(id string) bool {
	_, waiting := c.recovered[id]
	_, lost := c.lost[id]
	return c.agents[id] != nil || waiting || lost
}

// mark changes what is said of an agent.
func (c *Core) mark(id string, m Marks, fx []Effect) []Effect {
	save := Save{Kind: SavedMarks, Name: id}
	if m.inactive() {
		c.marks[id], save.Value = m, m
	} else {
		delete(c.marks, id)
	}
	fx = append(fx, save)
	a := c.agents[id]
	if a == nil {
		return fx
	}
	a.inactive = m.inactive()
	c.dirty = true
	if a.inactive {
		fx = c.rescindAgent(a, fx)
	}
	return fx
}

// drainAgent empties an agent: nothing more is offered of it, and it ends its
// tasks itself (master.cpp, drainAgent).
func (c *Core) drainAgent(now time.Time, cmd DrainAgent, fx []Effect) ([]Effect, error) {
	a := c.agents[cmd.Agent]
	marks := c.marks[cmd.Agent]
	switch {
	case !c.known(cmd.Agent):
		return fx, fmt.Errorf("%w: Unknown agent", ErrInvalid)
	case a != nil && !slices.Contains(a.CapabilityNames, "AGENT_DRAINING"):
		return fx, fmt.Errorf("%w: Agent is not capable of draining", ErrInvalid)
	case a != nil && c.unavailability(&a.AgentInfo) != nil:
		return fx, fmt.Errorf("%w: Agent is part of a maintenance schedule", ErrInvalid)
	}
	marks.Drain = &Drain{Grace: cmd.Grace, MarkGone: cmd.MarkGone, Since: now}
	fx = c.mark(cmd.Agent, marks, fx)
	if a == nil {
		return fx, nil
	}
	fx = toAgent(a, DrainMessage{Grace: cmd.Grace, MarkGone: cmd.MarkGone}, fx)
	return c.checkDrained(now, a, fx), nil
}

// remindDrain tells an agent that comes back that it is being emptied.
func (c *Core) remindDrain(a *agent, fx []Effect) []Effect {
	d := c.marks[a.ID].Drain
	if d == nil || d.Drained {
		return fx
	}
	return toAgent(a, DrainMessage{Grace: d.Grace, MarkGone: d.MarkGone}, fx)
}

// checkDrained: an agent is empty when the master knows of no task and no
// operation of it (master.cpp, checkAndTransitionDrainingAgent).
func (c *Core) checkDrained(now time.Time, a *agent, fx []Effect) []Effect {
	m := c.marks[a.ID]
	if m.Drain == nil || m.Drain.Drained || len(a.tasks) > 0 || len(a.operations) > 0 || !a.connected {
		return fx
	}
	d := *m.Drain
	d.Drained = true
	m.Drain = &d
	fx = c.mark(a.ID, m, fx)
	if d.MarkGone {
		return c.goneByOperator(now, a.ID, fx)
	}
	return fx
}

func (c *Core) activateAgent(cmd ActivateAgent, fx []Effect) ([]Effect, error) {
	m := c.marks[cmd.Agent]
	switch {
	case !c.known(cmd.Agent):
		return fx, fmt.Errorf("%w: Unknown agent", ErrInvalid)
	case cmd.Active && m.Drain != nil && !m.Drain.Drained:
		return fx, fmt.Errorf("%w: Agent is still in the DRAINING state", ErrConflict)
	case cmd.Active:
		m = Marks{}
	default:
		m.Deactivated = true
	}
	return c.mark(cmd.Agent, m, fx), nil
}

func (c *Core) markAgentGone(now time.Time, cmd MarkAgentGone, fx []Effect) ([]Effect, error) {
	if _, already := c.gone[cmd.Agent]; already {
		return fx, nil
	}
	if !c.known(cmd.Agent) {
		return fx, fmt.Errorf("%w: Unknown agent", ErrUnknownAgent)
	}
	return c.goneByOperator(now, cmd.Agent, fx), nil
}

// maxGone bounds the agents of which is remembered that they are gone for good
// (master/flags.cpp, registry_max_agent_count).
const maxGone = 102_400

// goneByOperator ends an agent for good; it is not taken back (master.cpp,
// markGone).
func (c *Core) goneByOperator(now time.Time, id string, fx []Effect) []Effect {
	if c.gone[id] = now; len(c.gone) > maxGone {
		oldest := slices.MinFunc(slices.Collect(maps.Keys(c.gone)), func(a, b string) int { return c.gone[a].Compare(c.gone[b]) })
		delete(c.gone, oldest)
		fx = append(fx, Save{Kind: SavedGone, Name: oldest})
	}
	fx = append(fx, Save{Kind: SavedGone, Name: id, Value: now})
	fx = c.mark(id, Marks{}, fx)
	delete(c.recovered, id)
	delete(c.lost, id)
	if a := c.agents[id]; a != nil {
		fx = toAgent(a, Shutdown{Message: "Agent has been marked gone"}, fx)
		return c.endAgent(now, a, "marked gone by an operator", true, fx)
	}
	for _, f := range c.sortedFrameworks() {
		for _, t := range sortedTasks(f.unreachable) {
			if t.Agent == id {
				fx = c.unreachableGone(now, f, t, fx)
			}
		}
	}
	return append(fx, Persist{ID: id})
}

func (c *Core) unreachableGone(now time.Time, f *framework, t *Task, fx []Effect) []Effect {
	delete(f.unreachable, t.Key.ID)
	end := *t
	end.State = lostAs(f, task.GoneByOperator)
	c.count.Ended[end.State]++
	c.keepDone(f, &end)
	return c.tell(f, Update{Task: t.Key.ID, Agent: t.Agent, Status: Status{
		State: end.State, Time: now, Source: task.SourceMaster, Reason: goneReason(f), Message: "Agent has been marked gone",
	}}, fx)
}

func goneReason(f *framework) task.Reason {
	if f.Capabilities.PartitionAware {
		return task.ReasonAgentRemovedByOperator
	}
	return task.ReasonAgentRemoved
}

// updateSchedule replaces the plan. A machine that is down stays in it
// (master/maintenance.cpp, schedule).
func (c *Core) updateSchedule(cmd UpdateSchedule, fx []Effect) ([]Effect, error) {
	seen := map[Machine]bool{}
	for _, w := range cmd.Windows {
		if len(w.Machines) == 0 {
			return fx, fmt.Errorf("%w: List of machines in the maintenance window is empty", ErrInvalid)
		}
		if w.Length < 0 {
			return fx, fmt.Errorf("%w: Unavailability 'duration' is negative", ErrInvalid)
		}
		for _, m := range w.Machines {
			if m == (Machine{}) {
				return fx, fmt.Errorf("%w: Both 'hostname' and 'ip' for a machine are empty", ErrInvalid)
			}
			if seen[m] {
				return fx, fmt.Errorf("%w: Machine %s appears more than once in the schedule", ErrInvalid, m)
			}
			seen[m] = true
		}
	}
	for _, m := range c.maintenance.Down {
		if !seen[m] {
			return fx, fmt.Errorf("%w: Machine %s is deactivated and cannot be removed from the schedule", ErrInvalid, m)
		}
	}
	return c.planned(Maintenance{Windows: cmd.Windows, Down: c.maintenance.Down}, fx), nil
}

// String names a machine for people.
func (m Machine) String() string { return fmt.Sprintf("'%s' (%s)", m.Hostname, m.IP) }

// planned takes a new plan: offers of the agents that it is about go back, to be
// made again with what is planned.
func (c *Core) planned(m Maintenance, fx []Effect) []Effect {
	c.maintenance = m
	save := Save{Kind: SavedMaintenance, Name: "plan"}
	if len(m.Windows)+len(m.Down) > 0 {
		save.Value = m
	}
	fx = append(fx, save)
	for _, a := range c.sortedAgents() {
		when := c.unavailability(&a.AgentInfo)
		if same(when, a.unavailable) {
			continue
		}
		a.unavailable = when
		fx = c.rescindInverse(a, fx)
		fx = c.rescindAgent(a, fx)
	}
	c.dirty = true
	return fx
}

func same(a, b *Unavailability) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Start.Equal(b.Start) && a.Length == b.Length
}

// startMaintenance takes machines down: their agents are sent away and not taken
// back before the machines are up.
func (c *Core) startMaintenance(now time.Time, cmd StartMaintenance, fx []Effect) ([]Effect, error) {
	if err := c.checkMachines(cmd.Machines, false); err != nil {
		return fx, err
	}
	next := c.maintenance
	next.Down = append(slices.Clone(next.Down), cmd.Machines...)
	fx = c.planned(next, fx)
	for _, a := range c.sortedAgents() {
		if slices.ContainsFunc(cmd.Machines, func(m Machine) bool { return m.Covers(&a.AgentInfo) }) {
			fx = toAgent(a, Shutdown{Message: "Operator initiated 'Machine DOWN'"}, fx)
			fx = c.removeAgent(now, a, "operator initiated 'Machine DOWN'", fx)
		}
	}
	return fx, nil
}

func (c *Core) checkMachines(list []Machine, down bool) error {
	if len(list) == 0 {
		return fmt.Errorf("%w: List of machines is empty", ErrInvalid)
	}
	for i, m := range list {
		isDown := slices.Contains(c.maintenance.Down, m)
		switch {
		case m == Machine{}:
			return fmt.Errorf("%w: Both 'hostname' and 'ip' for a machine are empty", ErrInvalid)
		case slices.Contains(list[:i], m):
			return fmt.Errorf("%w: Machine %s appears more than once", ErrInvalid, m)
		case !slices.ContainsFunc(c.maintenance.Windows, func(w Window) bool { return slices.Contains(w.Machines, m) }):
			return fmt.Errorf("%w: Machine %s is not part of a maintenance schedule", ErrInvalid, m)
		case down && !isDown:
			return fmt.Errorf("%w: Machine %s is not in DOWN mode and cannot be brought up", ErrInvalid, m)
		case !down && isDown:
			return fmt.Errorf("%w: Machine %s is not in DRAINING mode and cannot be brought down", ErrInvalid, m)
		}
	}
	return nil
}

// stopMaintenance brings machines up again and takes them out of the plan.
func (c *Core) stopMaintenance(cmd StopMaintenance, fx []Effect) ([]Effect, error) {
	if err := c.checkMachines(cmd.Machines, true); err != nil {
		return fx, err
	}
	without := func(list []Machine) []Machine {
		return slices.DeleteFunc(slices.Clone(list), func(m Machine) bool { return slices.Contains(cmd.Machines, m) })
	}
	next := Maintenance{Down: without(c.maintenance.Down)}
	for _, w := range c.maintenance.Windows {
		if w.Machines = without(w.Machines); len(w.Machines) > 0 {
			next.Windows = append(next.Windows, w)
		}
	}
	return c.planned(next, fx), nil
}

// rescindInverse ends what was asked about an agent.
func (c *Core) rescindInverse(a *agent, fx []Effect) []Effect {
	for _, id := range slices.Sorted(maps.Keys(a.inverse)) {
		o := a.inverse[id]
		delete(a.inverse, id)
		delete(c.inverse, o.ID)
		if f := c.frameworks[id]; f != nil && o.open {
			fx = c.tell(f, RescindInverse{Offer: o.ID}, fx)
		}
	}
	return fx
}

// askToLeave makes the inverse offers of a round: one for each framework that
// has something on an agent that will not be there (hierarchical.cpp,
// generateInverseOffers).
func (c *Core) askToLeave(now time.Time, fx []Effect) []Effect {
	if len(c.maintenance.Windows) == 0 {
		return fx
	}
	made := map[string][]*InverseOffer{}
	for _, a := range c.sortedAgents() {
		if a.unavailable == nil || !a.connected {
			continue
		}
		for id := range c.present(a) {
			f := c.frameworks[id]
			o := a.inverse[id]
			if f == nil || f.stream == "" || o != nil && (o.open || now.Before(o.until)) {
				continue
			}
			made[id] = append(made[id], c.inverseOffer(a, id, o))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(made)) {
		fx = c.tell(c.frameworks[id], InverseOffers{Offers: made[id]}, fx)
	}
	return fx
}

// present are the frameworks that have something on an agent.
func (c *Core) present(a *agent) map[string]bool {
	out := map[string]bool{}
	for t := range a.tasks {
		out[t.Key.Framework] = true
	}
	for k := range a.executors {
		out[k.framework] = true
	}
	return out
}

func (c *Core) inverseOffer(a *agent, framework string, before *InverseOffer) *InverseOffer {
	o := &InverseOffer{
		ID: fmt.Sprintf("%s-O%d", c.cfg.ID, c.nextOffer), Framework: framework, Agent: a.ID, When: *a.unavailable, Answer: InverseUnknown, open: true,
	}
	if before != nil {
		o.Answer, o.Answered = before.Answer, before.Answered
		delete(c.inverse, before.ID)
	}
	c.nextOffer++
	c.inverse[o.ID], a.inverse[framework] = o, o
	return o
}

func (c *Core) answerInverse(now time.Time, cmd AnswerInverse, fx []Effect) ([]Effect, error) {
	if _, err := c.subscribedFramework(cmd.Framework); err != nil {
		return fx, err
	}
	for _, id := range cmd.Offers {
		o := c.inverse[id]
		if o == nil || o.Framework != cmd.Framework || !o.open {
			continue
		}
		next := *o
		next.Answer, next.Answered, next.open = cmd.Answer, now, false
		next.until = now.Add(max(cmd.Refuse, c.cfg.AllocationGap))
		c.inverse[id] = &next
		if a := c.agents[o.Agent]; a != nil {
			a.inverse[o.Framework] = &next
		}
		c.timers.Add(next.until, timer{timerFilter, ""})
	}
	return fx, nil
}

// leaveInverse forgets what a framework that goes was asked.
func (c *Core) leaveInverse(framework string) {
	for _, a := range c.agents {
		if o := a.inverse[framework]; o != nil {
			delete(a.inverse, framework)
			delete(c.inverse, o.ID)
		}
	}
}

// remote says whether an agent is in another region than the master.
func (c *Core) remote(a *agent) bool {
	return c.cfg.Region != "" && a.Region != "" && a.Region != c.cfg.Region
}

// giveUp marks an agent as unreachable, or puts it off: no more are given up
// than the limit of removals allows (master.cpp, SlaveObserver).
func (c *Core) giveUp(now time.Time, a *agent, fx []Effect) []Effect {
	if c.cfg.RemovalEvery <= 0 {
		return c.markUnreachable(now, a, fx)
	}
	if a.removing {
		return fx
	}
	a.removing = true
	c.timers.Add(c.removalSlot(now), timer{timerRemoval, a.ID})
	return fx
}

// removalSlot is when the next agent may be given up.
func (c *Core) removalSlot(now time.Time) time.Time {
	at := now
	if c.nextRemoval.After(now) {
		at = c.nextRemoval
	}
	c.nextRemoval = at.Add(c.cfg.RemovalEvery)
	return at
}

// removalDue: an agent that has been heard of in between stays.
func (c *Core) removalDue(now time.Time, id string, fx []Effect) []Effect {
	if _, waiting := c.recovered[id]; waiting {
		return c.giveUpRecovered(now, id, fx)
	}
	a := c.agents[id]
	if a == nil || !a.removing {
		return fx
	}
	a.removing = false
	if a.pings <= c.cfg.PingLimit {
		return fx
	}
	return c.markUnreachable(now, a, fx)
}

// markedAgent brings an agent that joins into the state that operators want.
func (c *Core) markedAgent(a *agent) {
	m := c.marks[a.ID]
	a.inactive, a.unavailable = m.inactive(), c.unavailability(&a.AgentInfo)
	a.inverse = map[string]*InverseOffer{}
}
