package marathon

import (
	"time"

	"github.com/mesopool/mesopool/task"
)

// updated takes a status. It is acknowledged whatever it says, after what it
// changes is saved.
func (c *Core) updated(now time.Time, in Updated, fx []Effect) []Effect {
	i := c.instances[in.TaskID]
	if i == nil {
		fx = c.stranger(in, fx)
	} else {
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
	i.Lost = time.Time{}
	i.healthy = in.Status.Healthy
	i.takeAddresses(in.Status.Container)
	if s.Rank() > i.State.Rank() || i.State == task.Unreachable {
		i.State = s
	}
	if i.State == task.Running && before.State != task.Running {
		i.Started = in.Status.Time
		c.startChecks(now, i)
	}
	c.changed[i.App] = true
	if before.State != i.State || len(before.Addresses) != len(i.Addresses) || !before.Lost.IsZero() {
		fx = append(fx, Save{Key: KeyInstance + i.TaskID, Value: i})
		fx = c.tellStatus(now, i, in.Status, fx)
	}
	return fx
}

func (i *Instance) takeAddresses(k *task.ContainerStatus) {
	if k == nil || len(k.Addresses) == 0 {
		return
	}
	i.Addresses, i.Network, i.PublishIP = k.Addresses, k.Network, k.PublishIP
	for _, p := range k.Ports {
		if p.Host != 0 && k.PublishIP != "" {
			if i.Published == nil {
				i.Published = map[int]int{}
			}
			i.Published[int(p.Container)] = int(p.Host)
		}
	}
}

// instanceEnded: what ended without being asked to counts as a failure and
// slows the next launch down.
func (c *Core) instanceEnded(now time.Time, i *Instance, in Updated, fx []Effect) []Effect {
	i.State = in.Status.State
	delete(c.instances, i.TaskID)
	fx = append(fx, Save{Key: KeyInstance + i.TaskID})
	fx = c.tellStatus(now, i, in.Status, fx)
	a := c.apps[i.App]
	if a == nil {
		return fx
	}
	delete(a.instances, i.TaskID)
	c.changed[i.App] = true
	if i.Killing || in.Status.State == task.Killed {
		return fx
	}
	a.failure = &Failure{
		AppID: i.App, Host: i.Host, Message: in.Status.Message, State: in.Status.State.String(), TaskID: i.TaskID,
		AgentID: i.Agent, Timestamp: Timestamp(now), Version: i.Version,
	}
	if i.Version == a.def.ConfigVersion() {
		c.backOff(now, a, i)
	}
	return fx
}

// backOff makes the next launch wait: longer after every failure, and from the
// start again once an instance has run for longer than the longest delay.
func (c *Core) backOff(now time.Time, a *app, i *Instance) {
	longest := seconds(a.def.MaxLaunchDelaySeconds)
	switch {
	case a.delay == 0 || !i.Started.IsZero() && now.Sub(i.Started) > longest:
		a.delay = seconds(a.def.BackoffSeconds)
	default:
		a.delay = time.Duration(float64(a.delay) * a.def.BackoffFactor)
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
	a := c.apps[i.App]
	if a == nil || a.def.Unreachable.Disabled {
		return append(fx, Save{Key: KeyInstance + i.TaskID, Value: i})
	}
	i.Lost = now
	c.changed[i.App] = true
	c.lostTimer(i)
	fx = append(fx, Save{Key: KeyInstance + i.TaskID, Value: i})
	return c.tellStatus(now, i, in.Status, fx)
}

func (c *Core) lostTimer(i *Instance) {
	if a := c.apps[i.App]; a != nil {
		c.timers.Add(i.Lost.Add(seconds(a.def.Unreachable.ExpungeAfterSeconds)), timer{kind: timerLost, id: i.TaskID})
	}
}

func (c *Core) expunge(now time.Time, id string, fx []Effect) []Effect {
	i := c.instances[id]
	if i == nil || i.Lost.IsZero() {
		return fx
	}
	a := c.apps[i.App]
	if a != nil && now.Before(i.Lost.Add(seconds(a.def.Unreachable.ExpungeAfterSeconds))) {
		return fx
	}
	delete(c.instances, id)
	if a != nil {
		delete(a.instances, id)
		c.changed[i.App] = true
	}
	return append(fx, Save{Key: KeyInstance + id}, Event{Type: "instance_changed_event", Time: now, Body: map[string]any{
		"instanceId": i.ID, "condition": "UnreachableInactive", "runSpecId": i.App, "agentId": i.Agent, "host": i.Host, "runSpecVersion": i.Version,
	}})
}

// askStaged: a launch of which nobody has said anything may have been lost on
// the way.
func (c *Core) askStaged(now time.Time, id string, fx []Effect) []Effect {
	i := c.instances[id]
	if i == nil || i.State != task.Staging || !c.connected {
		return fx
	}
	c.timers.Add(now.Add(c.cfg.StagedLimit), timer{kind: timerStaged, id: id})
	if now.Sub(i.heard) < c.cfg.StagedLimit {
		return fx
	}
	return append(fx, Reconcile{Tasks: map[string]string{id: i.Agent}})
}

func (c *Core) tellStatus(now time.Time, i *Instance, s task.Status, fx []Effect) []Effect {
	addresses := make([]map[string]string, 0, len(i.Addresses))
	for _, a := range i.Addresses {
		addresses = append(addresses, map[string]string{"ipAddress": a, "protocol": IPProtocol(a)})
	}
	return append(fx, Event{Type: "status_update_event", Time: now, Body: map[string]any{
		"slaveId": i.Agent, "taskId": i.TaskID, "taskStatus": i.State.String(), "message": s.Message, "appId": i.App,
		"host": i.Host, "ipAddresses": addresses, "ports": i.Ports, "version": i.Version,
	}}, Event{Type: "instance_changed_event", Time: now, Body: map[string]any{
		"instanceId": i.ID, "condition": condition(i.State), "runSpecId": i.App, "agentId": i.Agent, "host": i.Host, "runSpecVersion": i.Version,
	}})
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
