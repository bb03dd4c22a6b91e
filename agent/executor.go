package agent

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

// A framework's own executor is a program in a container, which connects to the
// agent and runs tasks within itself. Its row is silent and holds the container;
// the tasks have rows without one, whose states are what the executor tells.

// ExecutorEvent is one thing that an executor is told.
type ExecutorEvent interface{ executorEvent() }

// The events (executor.proto, Event). Specs are read only.
type (
	// Subscribed is the first one of a session.
	Subscribed struct {
		Framework Framework
		Spec      *task.Spec
		Container string // its ID, or its name while no ID is known
	}
	// RunTask hands over a task on its own.
	RunTask struct{ Spec *task.Spec }
	// RunGroup hands over the tasks of a group.
	RunGroup struct{ Specs []*task.Spec }
	// KillTask asks for a task's end; a nil Grace is the task's own.
	KillTask struct {
		ID    string
		Grace *time.Duration
	}
	// Acknowledged says that an update is safe with the agent.
	Acknowledged struct {
		ID   string
		UUID task.UUID
	}
	// Message is the framework's.
	Message struct{ Data []byte }
	// ShutDown asks for the executor's end.
	ShutDown struct{}
	// Cut ends the session; the executor may come back at once.
	Cut struct{ Why string }
)

func (Subscribed) executorEvent()   {}
func (RunTask) executorEvent()      {}
func (RunGroup) executorEvent()     {}
func (KillTask) executorEvent()     {}
func (Acknowledged) executorEvent() {}
func (Message) executorEvent()      {}
func (ShutDown) executorEvent()     {}
func (Cut) executorEvent()          {}

// ExecutorToken is the variable of an executor's environment by which it proves
// itself.
const ExecutorToken = "MESOS_EXECUTOR_AUTHENTICATION_TOKEN"

// Token is what the executor must prove itself by.
func (v *ExecutorView) Token() string {
	for _, e := range slices.Backward(v.Spec.Env) {
		if e.Key == ExecutorToken {
			return e.Value
		}
	}
	return ""
}

const (
	noStatus = int32(-1) // Mesos' word for an exit status that is not known (slave.cpp, sendExitedExecutorMessage)

	// maxHeard bounds the updates of an executor that are known again, and
	// maxTold those of a task that wait for the framework.
	maxHeard = 256
	maxTold  = 256
)

// waitStatus is an exit code as a parent process is told it.
func waitStatus(k *provider.Container) int32 {
	if !k.HasExit {
		return noStatus
	}
	return int32(k.ExitCode) << 8
}

// ending: an executor that takes no more tasks.
func (r *row) ending() bool { return r.Stop || r.State.Terminal() || !r.Shut.IsZero() }

// holder is the row of a framework's own executor, nil if there is none.
func (c *Core) holder(framework, executor string) *row {
	r := c.tasks[task.Key{Framework: framework, ID: task.PodID(executor)}]
	if r == nil || !r.Spec.Custom {
		return nil
	}
	return r
}

func (c *Core) say(holder *row, e ExecutorEvent, fx []Effect) []Effect {
	if holder.session == 0 {
		return fx
	}
	return append(fx, ToExecutor{Framework: holder.key.Framework, Executor: holder.Spec.Pod, Session: holder.session, Event: e})
}

// executorUp: from now on the executor has its time to connect.
func (c *Core) executorUp(now time.Time, holder *row, fx []Effect) []Effect {
	for _, r := range c.members(holder.key.Framework, holder.Spec.Pod) {
		c.housed(holder, r)
	}
	if !holder.met && holder.connectBy.IsZero() && !holder.ending() {
		holder.rare().connectBy = now.Add(c.patience(holder))
		c.wakes.add(holder.connectBy, holder)
	}
	return c.deliver(holder, fx)
}

// patience is for an executor that is new, or that was there before the agent
// started.
func (c *Core) patience(holder *row) time.Duration {
	if holder.Handed {
		return c.cfg.Recovery
	}
	return c.cfg.Registration
}

// notConnected ends an executor that has not connected in time (slave.cpp,
// registerExecutorTimeout and reregisterExecutorTimeout).
func (c *Core) notConnected(now time.Time, holder *row, fx []Effect) []Effect {
	holder.rare().connectBy = time.Time{}
	if holder.session != 0 || holder.ending() {
		return fx
	}
	holder.Cause, holder.Why = CauseRegistration, fmt.Sprintf("Executor did not register within %v", c.patience(holder))
	if holder.Handed {
		holder.Cause, holder.Why = CauseRecovery, fmt.Sprintf("Executor did not reregister within %v", c.patience(holder))
	}
	return c.stop(now, holder, new(time.Duration(0)), fx)
}

// housed: a task is where its executor is.
func (c *Core) housed(holder, r *row) {
	r.Name, r.Container = holder.Name, holder.Container
	r.Container.Raw = nil
}

// subscribe greets an executor, hears what it has to tell, and hands it what it
// does not have (slave.cpp, subscribe).
func (c *Core) subscribe(now time.Time, in Subscribe, fx []Effect) []Effect {
	h := c.holder(in.Framework, in.Executor)
	if h == nil || h.State.Terminal() {
		return append(fx, ToExecutor{Framework: in.Framework, Executor: in.Executor, Session: in.Session, Event: Cut{"Executor cannot be found"}})
	}
	if in.Session <= h.session { // a later one has overtaken it
		return fx
	}
	own := h.rare()
	own.session, own.met, own.connectBy = in.Session, true, time.Time{}
	if h.ending() {
		return c.say(h, ShutDown{}, fx)
	}
	hello := Subscribed{Spec: &h.Spec, Container: cmp.Or(h.Container.ID, h.Name)}
	if f := c.frameworks[in.Framework]; f != nil {
		hello.Framework = f.Framework
	}
	fx = c.say(h, hello, fx)
	for _, u := range in.Updates {
		fx = c.executorUpdate(now, ExecutorUpdate{Framework: in.Framework, Executor: in.Executor, ExecutorStatus: u}, fx)
	}
	fx = c.undelivered(now, h, in.Tasks, fx)
	fx = c.deliver(h, fx)
	if !h.Handed && len(c.members(in.Framework, in.Executor)) == 0 { // all were killed before it came
		return c.shutExecutor(now, h, fx)
	}
	return fx
}

// undelivered: a task that the executor was to be told of, and does not know,
// ends; one that it does not know to be killed it is told again.
func (c *Core) undelivered(now time.Time, h *row, known []string, fx []Effect) []Effect {
	for _, r := range c.members(h.key.Framework, h.Spec.Pod) {
		switch {
		case r.State.Terminal() || !r.Handed:
		case r.State == task.Staging && !slices.Contains(known, r.key.ID):
			fx = c.update(now, r, task.Status{
				State: LostAs(c.partitionAware(r.key.Framework), task.Dropped), Source: task.SourceAgent, Reason: task.ReasonAgentRestarted,
				Message: "The executor was not told of the task before its connection or the agent ended",
			}, fx)
		case r.Stop:
			fx = c.say(h, KillTask{r.key.ID, r.Grace}, fx)
		}
	}
	return fx
}

func (c *Core) unsubscribe(in Unsubscribe, fx []Effect) []Effect {
	if h := c.holder(in.Framework, in.Executor); h != nil && h.session == in.Session {
		h.rare().session = 0
	}
	return fx
}

// deliver hands over what waits. It is saved first, so that what has been said
// is never said again. Nothing is said before the container is known to be up:
// until then a launch may be repeated, and bring about another executor.
func (c *Core) deliver(h *row, fx []Effect) []Effect {
	if h.session == 0 || h.ending() || h.State != task.Running {
		return fx
	}
	groups := map[string]*RunGroup{} // they grow after they are said
	for _, r := range c.members(h.key.Framework, h.Spec.Pod) {
		if r.Handed || r.Stop {
			continue
		}
		if !h.Handed {
			h.Handed = true
			fx = append(fx, Save{Key: h.key, Record: &h.Record})
		}
		r.Handed = true
		c.housed(h, r)
		fx = append(fx, Save{Key: r.key, Record: &r.Record})
		switch g := groups[r.Spec.Group]; {
		case r.Spec.Group == "":
			fx = c.say(h, RunTask{&r.Spec}, fx)
		case g != nil:
			g.Specs = append(g.Specs, &r.Spec)
		default:
			g = &RunGroup{Specs: []*task.Spec{&r.Spec}}
			groups[r.Spec.Group] = g
			fx = c.say(h, g, fx)
		}
	}
	return fx
}

// stopHosted: how a task ends is its executor's business, once it has it. A task
// that it does not have takes its group along.
func (c *Core) stopHosted(now time.Time, r *row, fx []Effect) []Effect {
	h := c.pod(r)
	switch {
	case r.State.Terminal():
		return fx
	case h == nil:
		return c.lostExecutor(now, r, "The record of the task's executor is lost", fx)
	case r.Handed:
		return c.say(h, KillTask{r.key.ID, r.Grace}, fx)
	}
	for _, other := range c.members(r.key.Framework, r.Spec.Pod) {
		if !other.Handed && (other == r || r.Spec.Group != "" && other.Spec.Group == r.Spec.Group) {
			other.Stop = true
			fx = c.update(now, other, task.Status{
				State: task.Killed, Source: task.SourceAgent, Reason: task.ReasonKilledDuringLaunch,
				Message: "A kill was received before the task was handed to the executor",
			}, fx)
		}
	}
	return fx
}

// executorUpdate takes what an executor tells. It is acknowledged once it is
// saved; what was heard before, or is of no use, is acknowledged too, so that it
// is not told for ever.
func (c *Core) executorUpdate(now time.Time, in ExecutorUpdate, fx []Effect) []Effect {
	h := c.holder(in.Framework, in.Executor)
	if h == nil {
		return fx
	}
	r, s := c.tasks[task.Key{Framework: in.Framework, ID: in.Task}], in.Status
	ack := Acknowledged{in.Task, s.UUID}
	if r == nil || !r.Spec.Hosted() || r.Spec.Pod != in.Executor || slices.Contains(r.Heard, s.UUID) {
		return c.say(h, ack, fx)
	}
	if len(r.Pending) >= maxTold && !s.State.Terminal() {
		return c.cut(h, fmt.Sprintf("%d updates of the task %s wait for their acknowledgement by the framework", maxTold, in.Task), fx)
	}
	r.hear(s.UUID)
	r.Handed = true // whatever we know: it does
	if r.Silent {
		s.Origin, s.Data = nil, nil
	}
	if s.State == r.State {
		fx = c.repeat(now, r, s, fx)
	} else {
		fx = c.update(now, r, s, fx)
	}
	fx = c.say(h, ack, fx)
	if r.State == task.Running && !r.Stop && !r.Silent && r.Container.ID != "" {
		return c.announce(r, fx)
	}
	return fx
}

// cut ends an executor's session.
func (c *Core) cut(h *row, why string, fx []Effect) []Effect {
	fx = c.say(h, Cut{why}, fx)
	h.rare().session = 0
	return fx
}

func (r *row) hear(u task.UUID) {
	r.Heard = append(slices.Clone(r.Heard[max(0, len(r.Heard)-maxHeard+1):]), u)
}

// hostedEnded: an executor decides itself when it ends, unless it was never told
// of a task, or the agent is draining.
func (c *Core) hostedEnded(now time.Time, r, h *row, fx []Effect) []Effect {
	if c.tasks[h.key] != h || len(c.members(r.key.Framework, r.Spec.Pod)) > 0 {
		return fx
	}
	switch {
	case h.State.Terminal():
		return c.podGone(now, h, fx)
	case !h.Handed || c.drain != nil:
		return c.shutExecutor(now, h, fx)
	}
	return fx
}

// endIdle: draining leaves no executor behind.
func (c *Core) endIdle(now time.Time, h *row, fx []Effect) []Effect {
	if !h.Spec.Custom || len(c.members(h.key.Framework, h.Spec.Pod)) > 0 {
		return fx
	}
	return c.shutExecutor(now, h, fx)
}

// shutExecutor asks an executor to end; after its grace its container is
// stopped, which one that is not connected is at once.
func (c *Core) shutExecutor(now time.Time, h *row, fx []Effect) []Effect {
	switch {
	case h.ending():
		return fx
	case h.session == 0 || h.seen != provider.StateUp:
		return c.stop(now, h, c.bounded(h, nil), fx)
	}
	h.Grace = c.bounded(h, nil)
	h.Shut = now.Add(c.grace(h))
	c.limit(h)
	fx = append(fx, Save{Key: h.key, Record: &h.Record})
	return c.say(h, ShutDown{}, fx)
}

// executorEnded: its tasks have ended with it (slave.cpp,
// sendExecutorTerminatedStatusUpdate).
func (c *Core) executorEnded(now time.Time, h *row, left []*row, fx []Effect) []Effect {
	s := task.Status{State: task.Failed, Source: task.SourceAgent, Reason: task.ReasonExecutorTerminated, Message: "The executor has ended: " + h.last}
	switch {
	case h.Cause == CauseRegistration:
		s.Reason, s.Message = task.ReasonExecutorRegistration, h.Why
	case h.Cause == CauseRecovery:
		s.Reason, s.Message = task.ReasonExecutorRecovery, h.Why
	case h.Container.ID == "" && !h.Stop:
		s.Reason = task.ReasonContainerLaunchFailed
	}
	for _, r := range left {
		if r.Silent {
			r.State = task.Killed
			fx = c.finish(now, r, fx)
			continue
		}
		fx = c.update(now, r, s, fx)
	}
	if c.tasks[h.key] == h && len(c.members(h.key.Framework, h.Spec.Pod)) == 0 {
		return c.podGone(now, h, fx)
	}
	return fx
}

// lostExecutor ends a task whose executor nobody knows.
func (c *Core) lostExecutor(now time.Time, r *row, why string, fx []Effect) []Effect {
	return c.update(now, r, task.Status{State: task.Failed, Source: task.SourceAgent, Reason: task.ReasonExecutorTerminated, Message: why}, fx)
}

// frameworkMessage is dropped when the executor is not there (slave.cpp,
// schedulerMessage).
func (c *Core) frameworkMessage(in FrameworkMessage, fx []Effect) []Effect {
	if h := c.holder(in.Framework, in.Executor); h != nil {
		return c.say(h, Message{in.Data}, fx)
	}
	return fx
}

func (c *Core) executorSaid(in ExecutorSaid, fx []Effect) []Effect {
	if h := c.holder(in.Framework, in.Executor); h != nil && h.Cause != CauseFramework {
		return append(fx, ExecutorMessage(in))
	}
	return fx
}

// ExecutorView is what an executor's connection must know of it.
type ExecutorView struct {
	Spec      *task.Spec // nil: there is no such executor
	Framework bool       // the framework is known
	Connected bool
}

// Executor looks a framework's own executor up.
func (c *Core) Executor(framework, executor string) ExecutorView {
	out := ExecutorView{Framework: c.frameworks[framework] != nil}
	if h := c.holder(framework, executor); h != nil && !h.State.Terminal() {
		out.Spec, out.Connected = &h.Spec, h.session != 0
	}
	return out
}
