package master

import (
	"fmt"
	"slices"
	"time"
	"unique"

	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// use counts an amount as used by a framework on an agent.
func (c *Core) use(a *agent, f *framework, amount resources.Resources) {
	a.used = a.used.Add(a.counted(amount)...)
	c.share(f, amount, true)
}

// unuse is the inverse of use; the framework may be gone already.
func (c *Core) unuse(a *agent, frameworkID string, amount resources.Resources) {
	a.used = a.used.Sub(a.counted(amount)...)
	if f := c.frameworks[frameworkID]; f != nil {
		c.share(f, amount, false)
	}
	c.dirty = true
}

// share tells the sorters of the roles what was given or taken.
func (c *Core) share(f *framework, amount resources.Resources, add bool) {
	for len(amount) > 0 {
		role := amount[0].Role
		mine := amount.Filter(func(r *resources.Resource) bool { return r.Role == role })
		c.consume(topRole(role), countable(mine), add)
		part := mine.Scalars()
		amount = amount.Filter(func(r *resources.Resource) bool { return r.Role != role })
		if c.inRole[role] == nil || add {
			c.joinRole(f, role)
		}
		if add {
			c.roles.Allocate(role, part)
			c.inRole[role].Allocate(f.ID, part)
			continue
		}
		c.roles.Release(role, part)
		c.inRole[role].Release(f.ID, part)
	}
}

// addTask takes a new row, which says in common words what others say too.
func (c *Core) addTask(a *agent, f *framework, t *Task) {
	t.Key.Framework, t.Agent, t.Name = f.ID, a.ID, unique.Make(t.Name).Value()
	t.Resources, t.More = c.amounts.Same(t.Resources), c.said.Same(t.More)
	f.tasks[t.Key.ID] = t
	a.tasks[t] = struct{}{}
	if !t.State.Terminal() {
		c.use(a, f, t.Resources)
	}
}

// taskOn returns the row of a task on an agent, nil if there is none.
func (c *Core) taskOn(a *agent, k task.Key) *Task {
	f := c.frameworks[k.Framework]
	if f == nil {
		return nil
	}
	if t := f.tasks[k.ID]; t != nil && t.Agent == a.ID {
		return t
	}
	return nil
}

// replace puts a changed row in the place of the old one.
func (c *Core) replace(a *agent, old, t *Task) {
	delete(a.tasks, old)
	a.tasks[t] = struct{}{}
	if f := c.frameworks[t.Key.Framework]; f != nil {
		f.tasks[t.Key.ID] = t
	}
}

// setState moves a task to a state; its resources are free as soon as it is
// terminal, even while updates are still on the way. The agent may be nil.
func (c *Core) setState(a *agent, t *Task, s task.State) *Task {
	next := *t
	next.State = s
	if a == nil {
		return &next
	}
	c.replace(a, t, &next)
	if s.Terminal() && !t.State.Terminal() {
		c.count.Ended[s]++
		c.unuse(a, t.Key.Framework, t.Resources)
	}
	return &next
}

// dropTask takes a task off its agent.
func (c *Core) dropTask(a *agent, f *framework, t *Task) {
	delete(f.tasks, t.Key.ID)
	if a == nil {
		return
	}
	delete(a.tasks, t)
	if !t.State.Terminal() {
		c.unuse(a, f.ID, t.Resources)
	}
}

// completeTask turns a task into history.
func (c *Core) completeTask(a *agent, f *framework, t *Task) {
	c.dropTask(a, f, t)
	c.keepDone(f, t)
}

func (c *Core) keepDone(f *framework, t *Task) {
	f.done = append(f.done, t)
	if n := len(f.done) - c.cfg.CompletedTasks; n > 0 {
		f.done[0] = nil
		f.done = f.done[n:]
	}
}

// remember is keepDone for a task that may be history already.
func (c *Core) remember(f *framework, t *Task) {
	if !slices.ContainsFunc(f.done, func(old *Task) bool { return old.Key == t.Key }) {
		c.keepDone(f, t)
	}
}

// statusUpdate: an update of an agent goes on to its framework. Resources
// follow the newest state, which may be ahead of the update (master.cpp,
// updateTask).
func (c *Core) statusUpdate(_ time.Time, cmd StatusUpdate, fx []Effect) ([]Effect, error) {
	c.count.StatusUpdates++
	a := c.agents[cmd.Agent]
	if a == nil {
		c.count.InvalidStatusUpdates++
		return fx, fmt.Errorf("%w: a status update of the unknown agent %s", ErrIgnored, cmd.Agent)
	}
	f := c.frameworks[cmd.Key.Framework]
	if f == nil {
		c.count.InvalidStatusUpdates++
		return fx, fmt.Errorf("%w: a status update of the unknown framework %s", ErrIgnored, cmd.Key.Framework)
	}
	fx = c.tell(f, Update{Task: cmd.Key.ID, Agent: a.ID, Status: cmd.Status, Wire: cmd.Event}, fx)
	t := c.taskOn(a, cmd.Key)
	if t == nil {
		return askAgain(a, cmd.Latest, fx), nil
	}
	if !t.State.Terminal() {
		t = c.setState(a, t, cmd.Latest)
	}
	next := *t
	if f.stream != "" {
		next.StatusState, next.StatusUUID = cmd.Status.State, cmd.Status.UUID
	}
	next.Statuses = appendStatus(t.Statuses, cmd.Status)
	c.replace(a, t, &next)
	return c.noteUpdate(t, &next, cmd.Status, fx), nil
}

// askAgain makes an agent that runs a task unknown to us register again with all
// that it runs: a launch may have reached it late, after the agent was given up
// or after a restart of ours, and nobody could end such a task. The word for it
// is the one that a genuine agent understands (slave.cpp, ping).
func askAgain(a *agent, latest task.State, fx []Effect) []Effect {
	if latest.Terminal() || !a.connected {
		return fx
	}
	return toAgent(a, Ping{Connected: false}, fx)
}

// appendStatus keeps the last status of each consecutive state.
func appendStatus(list []Status, s Status) []Status {
	n := len(list)
	if n > 0 && list[n-1].State == s.State {
		list = list[: n-1 : n-1]
	}
	return append(slices.Clip(list), s)
}

// acknowledge passes on what a framework has received; the end of a terminal
// one is the end of the task.
func (c *Core) acknowledge(now time.Time, cmd Acknowledge, fx []Effect) ([]Effect, error) {
	f, err := c.subscribedFramework(cmd.Key.Framework)
	if err != nil {
		return fx, err
	}
	a := c.agents[cmd.Agent]
	if a == nil || !a.connected {
		return fx, nil // the agent sends the update again when it is back
	}
	c.count.Acknowledgements++
	if t := f.tasks[cmd.Key.ID]; t != nil && t.Agent == a.ID {
		if t.StatusUUID.IsZero() {
			return fx, nil // no update has passed through this master yet
		}
		if t.StatusUUID == cmd.UUID && t.StatusState.Terminal() {
			c.completeTask(a, f, t)
		}
	}
	return c.checkDrained(now, a, toAgent(a, AckUpdate{Key: cmd.Key, UUID: cmd.UUID}, fx)), nil
}

func (c *Core) kill(now time.Time, cmd Kill, fx []Effect) ([]Effect, error) {
	f, err := c.subscribedFramework(cmd.Key.Framework)
	if err != nil {
		return fx, err
	}
	c.count.Kills++
	t := f.tasks[cmd.Key.ID]
	if t == nil {
		return c.answer(now, f, ReconcileTask{ID: cmd.Key.ID, Agent: cmd.Agent}, fx), nil
	}
	a := c.agents[t.Agent]
	if a == nil || cmd.Agent != "" && cmd.Agent != t.Agent {
		return fx, nil
	}
	next := *t
	next.KillAsked = true
	c.replace(a, t, &next)
	if !a.connected {
		return fx, nil
	}
	return toAgent(a, KillTask{Key: cmd.Key, Wire: cmd.Wire}, fx), nil
}

// reconcile answers with what is known, by the table of master.cpp, reconcile.
func (c *Core) reconcile(now time.Time, cmd Reconcile, fx []Effect) ([]Effect, error) {
	f, err := c.subscribedFramework(cmd.Framework)
	if err != nil {
		return fx, err
	}
	c.count.Reconciliations++
	if len(cmd.Tasks) > 0 {
		for _, t := range cmd.Tasks {
			fx = c.answer(now, f, t, fx)
		}
		return fx, nil
	}
	for _, t := range sortedTasks(f.tasks) {
		fx = c.answerKnown(now, f, t, fx)
	}
	return fx, nil
}

func (c *Core) answerKnown(now time.Time, f *framework, t *Task, fx []Effect) []Effect {
	status := Status{State: t.State, Time: now, Source: task.SourceMaster, Reason: task.ReasonReconciliation, Message: "Reconciliation: Latest task state"}
	if !t.StatusUUID.IsZero() {
		status.State = t.StatusState
	}
	if n := len(t.Statuses); n > 0 {
		status.More = t.Statuses[n-1].More // for its container and health
	}
	return c.tell(f, Update{Task: t.Key.ID, Agent: t.Agent, Status: status}, fx)
}

func (c *Core) answer(now time.Time, f *framework, ask ReconcileTask, fx []Effect) []Effect {
	if t := f.tasks[ask.ID]; t != nil {
		return c.answerKnown(now, f, t, fx)
	}
	agentID := ask.Agent
	if t := f.unreachable[ask.ID]; t != nil && agentID == "" {
		agentID = t.Agent
	}
	if _, waiting := c.recovered[agentID]; waiting || agentID == "" && len(c.recovered) > 0 {
		return fx
	}
	status := Status{Time: now, Source: task.SourceMaster, Reason: task.ReasonReconciliation}
	update := Update{Task: ask.ID, Agent: agentID}
	lost, isLost := c.lost[agentID]
	_, gone := c.gone[agentID]
	switch {
	case c.agents[agentID] != nil:
		status.State, status.Message = lostAs(f, task.Gone), "Reconciliation: Task is unknown to the agent"
	case gone:
		status.State, status.Message = lostAs(f, task.GoneByOperator), "Reconciliation: Task is gone"
	case isLost:
		status.State, status.Message = lostAs(f, task.Unreachable), "Reconciliation: Task is unreachable"
		update.Unreachable = lost
	default:
		status.State, status.Message = lostAs(f, task.Unknown), "Reconciliation: Task is unknown"
	}
	update.Status = status
	return c.tell(f, update, fx)
}

func (c *Core) message(cmd Message, fx []Effect) ([]Effect, error) {
	if _, err := c.subscribedFramework(cmd.Framework); err != nil {
		return fx, err
	}
	a := c.agents[cmd.Agent]
	if a == nil || !a.connected {
		return fx, nil
	}
	return toAgent(a, ToExecutor{Framework: cmd.Framework, Executor: cmd.Executor, Data: cmd.Data}, fx), nil
}

func (c *Core) shutdownExecutor(cmd ShutdownExecutor, fx []Effect) ([]Effect, error) {
	if _, err := c.subscribedFramework(cmd.Framework); err != nil {
		return fx, err
	}
	a := c.agents[cmd.Agent]
	if a == nil {
		return fx, nil
	}
	return toAgent(a, KillExecutor{Framework: cmd.Framework, Executor: cmd.Executor}, fx), nil
}

func (c *Core) executorMessage(cmd ExecutorMessage, fx []Effect) ([]Effect, error) {
	f := c.frameworks[cmd.Framework]
	if f == nil {
		return fx, fmt.Errorf("%w: a message for the unknown framework %s", ErrIgnored, cmd.Framework)
	}
	return c.tell(f, FromExecutor{Agent: cmd.Agent, Executor: cmd.Executor, Data: cmd.Data}, fx), nil
}

func (c *Core) exitedExecutor(cmd ExitedExecutor, fx []Effect) ([]Effect, error) {
	a, f := c.agents[cmd.Agent], c.frameworks[cmd.Framework]
	if a == nil {
		return fx, fmt.Errorf("%w: the end of an executor on the unknown agent %s", ErrIgnored, cmd.Agent)
	}
	c.dropExecutor(a, executorKey{cmd.Framework, cmd.Executor})
	if f == nil {
		return fx, nil
	}
	return c.tell(f, ExecutorLost{Agent: cmd.Agent, Executor: cmd.Executor, Status: cmd.Status}, fx), nil
}
