package master

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

func (c *Core) recoverAgent(now time.Time, cmd Recover, fx []Effect) ([]Effect, error) {
	c.recovered[cmd.Agent.ID] = cmd.Agent
	c.recoveries++
	c.timers.Add(now.Add(c.cfg.ReregisterTimeout), timer{timerRecovered, cmd.Agent.ID})
	// A genuine agent with a fixed master address notices a new master only
	// after its ping timeout, unless it is told "you are not connected"
	// (slave.cpp, ping).
	return append(fx, ToAgent{Agent: cmd.Agent.ID, PID: cmd.Agent.PID, Message: Ping{Connected: false}}), nil
}

func (c *Core) recoveredTimeout(now time.Time, id string, fx []Effect) []Effect {
	if _, waiting := c.recovered[id]; !waiting {
		return fx
	}
	if c.cfg.RemovalEvery > 0 {
		c.timers.Add(c.removalSlot(now), timer{timerRemoval, id})
		return fx
	}
	return c.giveUpRecovered(now, id, fx)
}

// giveUpRecovered: an agent has not come back since the master's start.
func (c *Core) giveUpRecovered(now time.Time, id string, fx []Effect) []Effect {
	delete(c.recovered, id)
	c.lost[id] = now
	c.dirty = c.dirty || len(c.quotas) > 0
	c.count.AgentsUnreachable++
	return c.tellAll(AgentLost{Agent: id}, fx)
}

// registerAgent: the same address again means that the answer was lost; the
// same address while the old agent is disconnected means a new agent in its
// place (master.cpp, _registerSlave).
func (c *Core) registerAgent(now time.Time, cmd RegisterAgent, fx []Effect) ([]Effect, error) {
	if c.down(&cmd.Agent) {
		return refuseAgent(&cmd.Agent, machineDown, fx), nil
	}
	if old := c.byPID[cmd.Agent.PID]; old != nil {
		if old.connected {
			return toAgent(old, Registered{}, fx), nil
		}
		fx = c.removeAgent(now, old, "a new agent registered at the same address", fx)
	}
	info := cmd.Agent
	info.ID = fmt.Sprintf("%s-S%d", c.cfg.ID, c.nextAgent)
	c.nextAgent++
	c.count.AgentRegistrations++
	a := c.admit(now, info)
	fx = append(fx, Persist{ID: a.ID, Agent: &a.AgentInfo}, Watch{Agent: a.ID, PID: a.PID})
	fx = c.noteAgent(a, fx)
	fx = toAgent(a, Registered{}, fx)
	return c.startPings(now, a, fx), nil
}

const machineDown = "Machine is `DOWN`"

// refuseAgent makes an agent end that may not join.
func refuseAgent(info *AgentInfo, why string, fx []Effect) []Effect {
	return append(fx, ToAgent{Agent: info.ID, PID: info.PID, Message: Shutdown{Message: why}})
}

func (c *Core) admit(now time.Time, info AgentInfo) *agent {
	a := &agent{
		AgentInfo: info, connected: true, registered: now,
		tasks: map[*Task]struct{}{}, executors: map[executorKey]*Executor{},
		offers: map[string]*Offer{}, operations: map[task.UUID]*Operation{}, doubtful: map[task.UUID]bool{},
	}
	c.markedAgent(a)
	c.agents[a.ID] = a
	c.byPID[a.PID] = a
	delete(c.recovered, a.ID)
	delete(c.lost, a.ID)
	c.totalChanged(nil, a.Resources)
	return a
}

func (c *Core) startPings(now time.Time, a *agent, fx []Effect) []Effect {
	a.pings = 0
	c.timers.Add(now.Add(c.cfg.PingInterval), timer{timerPing, a.ID})
	return toAgent(a, Ping{Connected: true}, fx)
}

func (c *Core) pingAgent(now time.Time, id string, fx []Effect) []Effect {
	a := c.agents[id]
	if a == nil {
		return fx
	}
	if a.pings++; a.pings > c.cfg.PingLimit {
		fx = c.giveUp(now, a, fx)
		if c.agents[id] == nil {
			return fx
		}
	}
	c.timers.Add(now.Add(c.cfg.PingInterval), timer{timerPing, id})
	return toAgent(a, Ping{Connected: a.connected}, fx)
}

func (c *Core) pong(cmd Pong, fx []Effect) ([]Effect, error) {
	if a := c.agents[cmd.Agent]; a != nil {
		a.pings = 0
	}
	return fx, nil
}

// agentExited: the connection broke. Tasks stay; the agent must come back
// before the pings run out.
func (c *Core) agentExited(_ time.Time, cmd AgentExited, fx []Effect) ([]Effect, error) {
	a := c.byPID[cmd.PID]
	if a == nil || !a.connected {
		return fx, nil
	}
	a.connected = false
	return c.rescindAgent(a, fx), nil
}

func (c *Core) updateAgent(now time.Time, cmd UpdateAgent, fx []Effect) ([]Effect, error) {
	a := c.agents[cmd.Agent]
	if a == nil || a.PID != cmd.PID {
		return fx, fmt.Errorf("%w: an update of the unknown agent %s", ErrIgnored, cmd.Agent)
	}
	a.ResourceVersion = cmd.ResourceVersion
	if cmd.Listed {
		fx = c.agentOperations(a, cmd.Operations, fx)
	}
	return c.checkDrained(now, a, fx), nil
}

func (c *Core) unregisterAgent(now time.Time, cmd UnregisterAgent, fx []Effect) ([]Effect, error) {
	a := c.agents[cmd.Agent]
	if a == nil || a.PID != cmd.PID {
		return fx, fmt.Errorf("%w: unknown agent %s at %s", ErrIgnored, cmd.Agent, cmd.PID)
	}
	return c.removeAgent(now, a, "the agent unregistered", fx), nil
}

// reregisterAgent has three ways in (master.cpp, _reregisterSlave): the agent
// is registered, it is known from before a restart, or it was given up.
func (c *Core) reregisterAgent(now time.Time, cmd ReregisterAgent, fx []Effect) ([]Effect, error) {
	if _, gone := c.gone[cmd.Agent.ID]; gone {
		return refuseAgent(&cmd.Agent, "Agent has been marked gone", fx), nil
	}
	if c.down(&cmd.Agent) {
		return refuseAgent(&cmd.Agent, machineDown, fx), nil
	}
	c.count.AgentReregistrations++
	if other := c.byPID[cmd.Agent.PID]; other != nil && other.ID != cmd.Agent.ID {
		fx = c.removeAgent(now, other, "a new agent registered at the same address", fx)
	}
	if a := c.agents[cmd.Agent.ID]; a != nil {
		return c.reregisterKnown(now, a, cmd, fx), nil
	}
	_, wasRecovered := c.recovered[cmd.Agent.ID]
	a := c.admit(now, cmd.Agent)
	a.reregister = now
	fx = append(fx, Persist{ID: a.ID, Agent: &a.AgentInfo}, Watch{Agent: a.ID, PID: a.PID})
	fx = c.noteAgent(a, fx)
	fx = c.remindDrain(a, fx)
	fx = toAgent(a, Reregistered{}, fx)
	fx = c.recoverFrameworks(now, cmd.Frameworks, fx)
	for _, t := range cmd.Tasks {
		fx = c.takeTask(now, a, t, !wasRecovered, fx)
	}
	c.settleUnreachable(a.ID)
	c.takeExecutors(a, cmd.Executors)
	fx = c.agentFrameworks(a, cmd.Frameworks, fx)
	fx = c.startPings(now, a, fx)
	return c.checkDrained(now, a, fx), nil
}

func (c *Core) recoverFrameworks(now time.Time, infos []FrameworkInfo, fx []Effect) []Effect {
	for _, info := range infos {
		if c.frameworks[info.ID] == nil && !c.finished[info.ID] {
			c.frameworks[info.ID] = newFramework(info, now)
			fx = c.noteFramework(c.frameworks[info.ID], true, fx)
		}
	}
	return fx
}

// takeTask adds a task that an agent brought along. One that has ended is
// history at once: the acknowledgement may be on its way to the agent already,
// and nothing would ever end the row. Updates pass through without one.
func (c *Core) takeTask(now time.Time, a *agent, t *Task, back bool, fx []Effect) []Effect {
	f := c.frameworks[t.Key.Framework]
	if f == nil || f.tasks[t.Key.ID] != nil {
		return fx
	}
	delete(f.unreachable, t.Key.ID)
	t.Agent = a.ID
	if t.State.Terminal() {
		c.remember(f, t)
	} else {
		c.addTask(a, f, t)
		fx = c.noteTask(t, fx)
	}
	if !back {
		return fx
	}
	return c.tell(f, Update{Task: t.Key.ID, Agent: a.ID, Status: Status{
		State: t.State, Time: now, Source: task.SourceMaster, Reason: task.ReasonAgentReregistered, Message: "The agent is back",
	}}, fx)
}

// settleUnreachable ends what an agent has not brought back that was lost with
// it: whoever asks for it is told that it is gone.
func (c *Core) settleUnreachable(agent string) {
	for _, f := range c.sortedFrameworks() {
		for _, t := range sortedTasks(f.unreachable) {
			if t.Agent == agent {
				delete(f.unreachable, t.Key.ID)
				end := *t
				end.State = lostAs(f, task.Gone)
				c.remember(f, &end)
			}
		}
	}
}

// maxUnreachable is how many unreachable tasks of a framework are kept, the
// newest (master/flags.cpp, max_unreachable_tasks_per_framework, which is 1000
// there: an agent here may have many more).
const maxUnreachable = 100_000

func (c *Core) boundUnreachable(f *framework) {
	n := len(f.unreachable) - maxUnreachable
	if n <= 0 {
		return
	}
	all := slices.SortedFunc(maps.Values(f.unreachable), func(a, b *Task) int {
		return cmp.Or(c.lost[a.Agent].Compare(c.lost[b.Agent]), strings.Compare(a.Key.ID, b.Key.ID))
	})
	for _, t := range all[:n] {
		delete(f.unreachable, t.Key.ID)
		c.keepDone(f, t)
	}
}

// agentFrameworks shuts down what is finished and refreshes the rest; the
// refresh makes the agent send its pending updates at once.
func (c *Core) agentFrameworks(a *agent, infos []FrameworkInfo, fx []Effect) []Effect {
	for _, info := range infos {
		if f := c.frameworks[info.ID]; f != nil {
			fx = toAgent(a, FrameworkUpdated{Framework: &f.FrameworkInfo}, fx)
			continue
		}
		fx = toAgent(a, ShutdownFramework{Framework: info.ID}, fx)
	}
	return fx
}

// reregisterKnown takes an agent back. Its hostname must be the same; unlike a
// genuine master's, its address may be another, as it is after the restart of
// a container.
func (c *Core) reregisterKnown(now time.Time, a *agent, cmd ReregisterAgent, fx []Effect) []Effect {
	if a.Hostname != cmd.Agent.Hostname {
		return append(fx, ToAgent{Agent: a.ID, PID: cmd.Agent.PID, Message: Shutdown{
			Message: fmt.Sprintf("Agent attempted to reregister with a different hostname: %s instead of %s", cmd.Agent.Hostname, a.Hostname),
		}})
	}
	if a.PID != cmd.Agent.PID {
		fx = append(fx, Unwatch{Agent: a.ID, PID: a.PID})
		delete(c.byPID, a.PID)
	}
	before, brought, show := a.Resources, cmd.Agent.Resources.Checkpointed(), a.SyntheticPorts
	if cmd.Agent.ResourceProvider {
		a.doubtPending()
	} else {
		cmd.Agent.Resources = takeMarks(before, cmd.Agent.Resources)
	}
	a.AgentInfo, a.connected, a.pings, a.reregister = cmd.Agent, true, 0, now
	a.unavailable = c.unavailability(&a.AgentInfo)
	c.byPID[a.PID] = a
	c.totalChanged(before, a.Resources)
	fx = append(fx, Persist{ID: a.ID, Agent: &a.AgentInfo}, Watch{Agent: a.ID, PID: a.PID})
	fx = c.recoverFrameworks(now, cmd.Frameworks, fx)
	if fx = c.rescindAgent(a, fx); a.SyntheticPorts != show {
		a.recount()
	}
	missing, fx := c.reconcileAgent(now, a, cmd.Tasks, fx)
	c.takeExecutors(a, cmd.Executors)
	fx = toAgent(a, Reregistered{Missing: missing}, fx)
	for _, t := range c.tasksOf(a) {
		if t.KillAsked && !t.State.Terminal() {
			fx = toAgent(a, KillTask{Key: t.Key}, fx)
		}
	}
	fx = c.remindDrain(a, fx)
	fx = c.agentFrameworks(a, cmd.Frameworks, fx)
	if kept := a.Resources.Checkpointed(); !a.ResourceProvider && !kept.Equal(brought) {
		fx = toAgent(a, CheckpointResources{Resources: kept}, fx)
	}
	return c.checkDrained(now, a, fx)
}

// reconcileAgent compares what the agent reports with what is known: unknown
// tasks are added, states taken over, missing ones named.
func (c *Core) reconcileAgent(now time.Time, a *agent, reported []*Task, fx []Effect) ([]MissingTasks, []Effect) {
	seen := map[task.Key]bool{}
	for _, t := range reported {
		seen[t.Key] = true
		known := c.taskOn(a, t.Key)
		if known == nil {
			fx = c.takeTask(now, a, t, false, fx)
			continue
		}
		if t.State != known.State && !known.State.Terminal() {
			c.setState(a, known, t.State)
		}
	}
	var out []MissingTasks
	for _, t := range c.tasksOf(a) {
		f := c.frameworks[t.Key.Framework]
		if seen[t.Key] || t.State.Terminal() || f == nil {
			continue
		}
		if n := len(out); n == 0 || out[n-1].Framework.ID != f.ID {
			out = append(out, MissingTasks{Framework: &f.FrameworkInfo})
		}
		out[len(out)-1].Tasks = append(out[len(out)-1].Tasks, t)
	}
	return out, fx
}

// tasksOf returns the agent's tasks in a repeatable order.
func (c *Core) tasksOf(a *agent) []*Task {
	return slices.SortedFunc(maps.Keys(a.tasks), func(x, y *Task) int {
		return cmp.Or(strings.Compare(x.Key.Framework, y.Key.Framework), strings.Compare(x.Key.ID, y.Key.ID))
	})
}

// sortedTasks returns tasks by their IDs.
func sortedTasks(in map[string]*Task) []*Task {
	return slices.SortedFunc(maps.Values(in), func(x, y *Task) int { return strings.Compare(x.Key.ID, y.Key.ID) })
}

// markUnreachable gives an agent up for the time being: it may come back with
// its tasks.
func (c *Core) markUnreachable(now time.Time, a *agent, fx []Effect) []Effect {
	c.lost[a.ID] = now
	c.count.AgentsUnreachable++
	fx = c.rescindAgent(a, fx)
	fx = c.endOperations(a, OperationUnreachable, "Agent "+a.Hostname+" is unreachable", fx)
	for _, t := range c.tasksOf(a) {
		f := c.frameworks[t.Key.Framework]
		if f == nil {
			continue
		}
		state := lostAs(f, task.Unreachable)
		status := Status{State: state, Time: now, Source: task.SourceMaster, Reason: task.ReasonAgentRemoved, Message: "Agent " + a.Hostname + " is unreachable"}
		if t.State.Terminal() {
			c.completeTask(a, f, t)
			continue
		}
		fx = c.tell(f, Update{Task: t.Key.ID, Agent: a.ID, Status: status, Unreachable: now}, fx)
		fx = c.noteLost(t, status, fx)
		c.dropTask(a, f, t)
		gone := *t
		gone.State = state
		f.unreachable[t.Key.ID] = &gone
	}
	for _, f := range c.sortedFrameworks() {
		c.boundUnreachable(f)
	}
	return c.forgetAgent(a, fx)
}

func lostAs(f *framework, s task.State) task.State {
	if f.Capabilities.PartitionAware {
		return s
	}
	return task.Lost
}

// removeAgent ends an agent for good; its tasks are lost.
func (c *Core) removeAgent(now time.Time, a *agent, why string, fx []Effect) []Effect {
	return c.endAgent(now, a, why, false, fx)
}

func (c *Core) endAgent(now time.Time, a *agent, why string, gone bool, fx []Effect) []Effect {
	c.count.AgentRemovals++
	fx = c.rescindAgent(a, fx)
	fx = c.endOperations(a, OperationGoneByOperator, "Agent removed: "+why, fx)
	for _, t := range c.tasksOf(a) {
		f := c.frameworks[t.Key.Framework]
		if f == nil {
			continue
		}
		if !t.State.Terminal() {
			status := Status{State: task.Lost, Time: now, Source: task.SourceMaster, Reason: task.ReasonAgentRemoved, Message: "Agent removed: " + why}
			if gone {
				status.State, status.Reason = lostAs(f, task.GoneByOperator), goneReason(f)
			}
			fx = c.tell(f, Update{Task: t.Key.ID, Agent: a.ID, Status: status}, fx)
			fx = c.noteLost(t, status, fx)
			t = c.setState(a, t, status.State)
		}
		c.completeTask(a, f, t)
	}
	fx = append(fx, Persist{ID: a.ID})
	fx = c.noteGone(a, fx)
	return c.forgetAgent(a, fx)
}

func (c *Core) forgetAgent(a *agent, fx []Effect) []Effect {
	fx = c.rescindInverse(a, fx)
	for k := range a.executors {
		c.dropExecutor(a, k)
	}
	delete(c.agents, a.ID)
	if c.byPID[a.PID] == a {
		delete(c.byPID, a.PID)
	}
	c.totalChanged(a.Resources, nil)
	fx = append(fx, Unwatch{Agent: a.ID, PID: a.PID})
	return c.tellAll(AgentLost{Agent: a.ID}, fx)
}

func (c *Core) tellAll(e Event, fx []Effect) []Effect {
	for _, f := range c.sortedFrameworks() {
		fx = c.tell(f, e, fx)
	}
	return fx
}

// totalChanged keeps the sum of all agents, which shares are parts of.
func (c *Core) totalChanged(before, after resources.Resources) {
	c.total = c.total.Sub(before.Scalars()).Add(after.Scalars())
	for top, amount := range reservedBy(before) {
		c.consume(top, amount, false)
	}
	for top, amount := range reservedBy(after) {
		c.consume(top, amount, true)
	}
	if slices.Equal(before.Scalars(), after.Scalars()) {
		c.dirty = true
		return
	}
	c.roles.SetTotal(c.total)
	for _, s := range c.inRole {
		s.SetTotal(c.total)
	}
	c.dirty = true
}
