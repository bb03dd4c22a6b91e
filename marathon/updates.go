package marathon

import (
	"slices"
	"time"

	"github.com/mesopool/mesopool/task"
)

// updated takes a status. It is acknowledged whatever it says, after what it
// changes is saved.
func (c *Core) updated(now time.Time, in Updated, fx []Effect) []Effect {
	i := c.instances[in.TaskID]
	switch {
	case c.pods[in.TaskID] != nil:
		fx = c.partUpdated(now, c.pods[in.TaskID], in, fx)
	case i == nil:
		fx = c.stranger(in, fx)
	default:
		i.heard, i.told = now, true
		fx = c.instanceUpdate(now, i, in, fx)
	}
	if !in.Status.UUID.IsZero() {
		fx = append(fx, Acknowledge{TaskID: in.TaskID, Agent: in.Agent, UUID: in.Status.UUID})
	}
	return fx
}

// stranger: a task that no app wants is ended; one that is not there needs
// nothing.
func (c *Core) stranger(in Updated, fx []Effect) []Effect {
	switch in.Status.State {
	case task.Staging, task.Starting, task.Running:
		return append(fx, Kill{TaskID: in.TaskID, Agent: in.Agent})
	}
	return fx
}

func (c *Core) instanceUpdate(now time.Time, i *Instance, in Updated, fx []Effect) []Effect {
	s := in.Status.State
	switch {
	case s.Terminal() || s == task.Unknown:
		return c.instanceEnded(now, i, in, fx)
	case s == task.Unreachable:
		return c.instanceLost(now, i, in, fx)
	}
	before := *i
	i.Lost, i.inactive = time.Time{}, false
	if s == task.Running {
		i.healthy = in.Status.Healthy
	}
	i.takeAddresses(in.Status.Container)
	if s.Rank() > i.State.Rank() || i.State == task.Unreachable {
		i.State = s
	}
	if i.State == task.Running && before.State != task.Running {
		c.startInstance(now, i, in.Status.Time)
	}
	fx = c.settled(i, fx)
	if before.Health() != nil || i.healthy != nil {
		fx = c.tellHealth(now, i, before.Health(), fx)
	}
	if before.State != i.State || !slices.Equal(before.Addresses, i.Addresses) || !before.Lost.IsZero() {
		fx = append(fx, Save{Key: KeyInstance + i.TaskID, Value: i})
		fx = c.tellStatus(now, i, in.Status, fx)
	}
	c.touch(i)
	return fx
}

func (c *Core) startInstance(now time.Time, i *Instance, at time.Time) {
	if i.Started.IsZero() {
		i.Started = at
		if at.IsZero() {
			i.Started = now
		}
	}
	c.startChecks(now, i)
}

func (i *Instance) takeAddresses(k *task.ContainerStatus) {
	if k == nil || len(k.Addresses) == 0 {
		return
	}
	i.Addresses, i.Network, i.PublishIP, i.Published = k.Addresses, k.Network, k.PublishIP, nil
	for _, p := range k.Ports {
		if p.Host != 0 && k.PublishIP != "" {
			if i.Published == nil {
				i.Published = map[int]int{} // a new one: readers have the old
			}
			i.Published[int(p.Container)] = int(p.Host)
		}
	}
}

// instanceEnded: what ended without being asked to counts as a failure and
// slows the next launch down.
func (c *Core) instanceEnded(now time.Time, i *Instance, in Updated, fx []Effect) []Effect {
	i.State = in.Status.State
	fx = c.movedOut(now, i, c.forget(i, fx))
	fx = c.tellStatus(now, i, in.Status, fx)
	if a := c.apps[i.App]; a != nil && a.def.RunOnce && i.State == task.Finished {
		return c.finishRun(a, i, fx)
	} else if a != nil && !i.Killing && i.State != task.Killed {
		c.fail(now, a, i, in.Status.Message)
	}
	return fx
}

func (c *Core) forget(i *Instance, fx []Effect) []Effect {
	delete(c.instances, i.TaskID)
	for _, p := range i.Parts {
		delete(c.pods, p.TaskID)
	}
	if a := c.apps[i.App]; a != nil {
		delete(a.instances, i.TaskID)
	}
	c.touch(i)
	return append(fx, Save{Key: KeyInstance + i.TaskID})
}

// fail notes why an instance has ended or must end, and lets its successor wait.
func (c *Core) fail(now time.Time, a *app, i *Instance, message string) {
	a.failure = &Failure{
		AppID: i.App, Host: i.Host, Message: message, State: i.State.String(), TaskID: i.TaskID,
		AgentID: i.Agent, Timestamp: Timestamp(now), Version: i.Version,
	}
	if i.Version == a.def.ConfigVersion() {
		a.countFailure()
		c.backOff(now, a, i)
	}
}

// backOff makes the next launch wait: longer after every failure, and from the
// start again once the longest delay has passed without one, or an instance has
// run for as long (RateLimiter.scala).
func (c *Core) backOff(now time.Time, a *app, i *Instance) {
	longest := seconds(a.def.MaxLaunchDelaySeconds)
	switch {
	case a.delay == 0 || now.Sub(a.delayed) > longest || !i.Started.IsZero() && now.Sub(i.Started) > longest:
		a.delay = seconds(a.def.BackoffSeconds)
	default:
		a.delay = seconds(a.delay.Seconds() * a.def.BackoffFactor)
	}
	a.delay = min(a.delay, longest)
	a.delayed = now.Add(a.delay)
	c.timers.Add(a.delayed, timer{kind: timerApp, id: a.def.ID})
}

// instanceLost: an unreachable instance is replaced after the time its app
// says, and given up after another; one that comes back later is too many.
func (c *Core) instanceLost(now time.Time, i *Instance, in Updated, fx []Effect) []Effect {
	if i.State == task.Unreachable {
		return fx
	}
	i.State = task.Unreachable
	c.loseAgent(i.Agent)
	if i.Killing {
		return c.expunge(now, i, fx) // nobody waits for it any more
	}
	if a := c.apps[i.App]; a != nil && !a.def.Unreachable.Disabled {
		i.Lost = now
		c.lostTimers(i)
	}
	c.touch(i)
	fx = append(fx, Save{Key: KeyInstance + i.TaskID, Value: i})
	return c.tellStatus(now, i, in.Status, fx)
}

// lostTimers wake when a lost instance is to be replaced and when it is to be
// given up. The definition of then decides.
func (c *Core) lostTimers(i *Instance) {
	if a := c.apps[i.App]; a != nil {
		c.timers.Add(i.Lost.Add(seconds(a.def.Unreachable.InactiveAfterSeconds)), timer{kind: timerLost, id: i.TaskID})
		c.timers.Add(i.Lost.Add(seconds(a.def.Unreachable.ExpungeAfterSeconds)), timer{kind: timerLost, id: i.TaskID})
	}
}

func (c *Core) stillLost(now time.Time, id string, fx []Effect) []Effect {
	i := c.instances[id]
	if i == nil || i.Lost.IsZero() {
		return fx
	}
	a := c.apps[i.App]
	if a == nil || !now.Before(i.Lost.Add(seconds(a.def.Unreachable.ExpungeAfterSeconds))) {
		return c.expunge(now, i, fx)
	}
	i.inactive = a.givesUp(now, i)
	c.touch(i)
	return fx
}

// givesUp says whether a lost instance is to be replaced.
func (a *app) givesUp(now time.Time, i *Instance) bool {
	return !now.Before(i.Lost.Add(seconds(a.def.Unreachable.InactiveAfterSeconds)))
}

// expunge gives an unreachable instance up.
func (c *Core) expunge(now time.Time, i *Instance, fx []Effect) []Effect {
	return append(c.movedOut(now, i, c.forget(i, fx)), Event{Type: "instance_changed_event", Time: now, Body: map[string]any{
		"instanceId": i.ID, "condition": "UnreachableInactive", "runSpecId": i.App, "agentId": i.Agent, "host": i.Host, "runSpecVersion": i.Version,
	}})
}

// askStaged: a launch of which nobody has said anything may have been lost on
// the way.
func (c *Core) askStaged(now time.Time, id string, fx []Effect) []Effect {
	i := c.instances[id]
	if i == nil || i.State != task.Staging {
		return fx
	}
	c.timers.Add(now.Add(c.cfg.StagedLimit), timer{kind: timerStaged, id: id})
	if !c.connected || now.Sub(i.heard) < c.cfg.StagedLimit {
		return fx
	}
	ask := map[string]string{}
	i.ask(ask)
	return append(fx, Reconcile{Tasks: ask})
}

func (c *Core) tellStatus(now time.Time, i *Instance, s task.Status, fx []Effect) []Effect {
	if len(i.Parts) == 0 {
		fx = append(fx, Event{Type: "status_update_event", Time: now, Body: map[string]any{
			"slaveId": i.Agent, "taskId": i.TaskID, "taskStatus": i.State.String(), "message": s.Message, "appId": i.App,
			"host": i.Host, "ipAddresses": i.addresses(), "ports": i.Ports, "version": i.Version,
		}})
	}
	return append(fx, Event{Type: "instance_changed_event", Time: now, Body: map[string]any{
		"instanceId": i.ID, "condition": condition(i.State), "runSpecId": i.App, "agentId": i.Agent, "host": i.Host, "runSpecVersion": i.Version,
	}})
}

func (i *Instance) addresses() []map[string]string {
	out := make([]map[string]string, 0, len(i.Addresses))
	for _, a := range i.Addresses {
		out = append(out, map[string]string{"ipAddress": a, "protocol": IPProtocol(a)})
	}
	return out
}

// condition is Marathon's word for a state: TASK_RUNNING is Running.
func condition(s task.State) string {
	name := []byte(s.String()[len("TASK_"):])
	for n := 1; n < len(name); n++ {
		if name[n] != '_' && name[n-1] != '_' {
			name[n] |= 0x20
		}
	}
	return string(name)
}

// IPProtocol is IPv4 or IPv6.
func IPProtocol(address string) string {
	for _, r := range address {
		if r == ':' {
			return "IPv6"
		}
	}
	return "IPv4"
}
