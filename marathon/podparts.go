package marathon

import (
	"slices"
	"time"

	"github.com/mesopool/mesopool/task"
)

// Part is one task of a pod's instance.
type Part struct {
	Name    string // the container's
	TaskID  string
	State   task.State
	Since   time.Time // when it came into its state
	Healthy *bool     `json:",omitempty"` // what the agent says of its check
	Message string    `json:",omitempty"` // of the last status
	ID      string    `json:",omitempty"` // the container's, as the agent knows it

	told bool // the master has said something of it since the last start
}

// know takes an instance into the index of tasks.
func (c *Core) know(i *Instance) {
	c.instances[i.TaskID] = i
	for _, p := range i.Parts {
		c.pods[p.TaskID] = i
	}
}

// live are the tasks of an instance that have not ended.
func (i *Instance) live() []string {
	if len(i.Parts) == 0 {
		return []string{i.TaskID}
	}
	var out []string
	for _, p := range i.Parts {
		if !p.State.Terminal() {
			out = append(out, p.TaskID)
		}
	}
	return out
}

// ask adds the tasks of an instance of which the master has not told.
func (i *Instance) ask(into map[string]string) {
	for _, id := range i.live() {
		into[id] = i.Agent
	}
}

func (i *Instance) forgetTold() {
	i.told = false
	for _, p := range i.Parts {
		p.told = false
	}
}

func (i *Instance) part(taskID string) *Part {
	for _, p := range i.Parts {
		if p.TaskID == taskID {
			return p
		}
	}
	return nil
}

// partUpdated takes the status of one task of a pod. The instance is what its
// tasks are together; one that did not end well takes the others with it, and
// the last one the instance.
func (c *Core) partUpdated(now time.Time, i *Instance, in Updated, fx []Effect) []Effect {
	p := i.part(in.TaskID)
	p.told, i.heard = true, now
	was := *p
	p.take(now, in.Status)
	i.told = true
	for _, other := range i.Parts {
		i.told = i.told && (other.told || other.State.Terminal())
	}
	if was.State != p.State {
		fx = c.tellPart(now, i, p, append(fx, Save{Key: KeyInstance + i.TaskID, Value: i}))
	}
	together := in
	together.TaskID, together.Status.State, together.Status.Healthy = i.TaskID, i.together(), i.healthyParts()
	if p.State == task.Unreachable {
		together.Status.State = task.Unreachable
	}
	bad := was.State != p.State && p.State.Terminal() && p.State != task.Finished
	if len(i.live()) > 0 && bad && !i.Killing {
		if a := c.apps[i.App]; a != nil && p.State != task.Killed {
			c.fail(now, a, i, "container "+p.Name+": "+in.Status.Message)
		}
		return c.killInstance(now, i, fx)
	}
	return c.instanceUpdate(now, i, together, fx)
}

// take brings a status in; states only grow, but for what was out of reach.
func (p *Part) take(now time.Time, s task.Status) {
	p.Message = s.Message
	if k := s.Container; k != nil && k.ID != "" {
		p.ID = k.ID
	}
	next := s.State
	switch {
	case next == task.Unknown:
		next = task.Gone
	case next == task.Running:
		p.Healthy = s.Healthy
	}
	if p.State.Terminal() || next != task.Unreachable && p.State != task.Unreachable && next.Rank() <= p.State.Rank() {
		return
	}
	p.State, p.Since = next, now
}

// together is the state of an instance: that of the task that is least far, or,
// when all have ended, of the one that ended worst.
func (i *Instance) together() task.State {
	var out task.State
	for n, p := range i.Parts {
		live, first := !p.State.Terminal(), n == 0 || out.Terminal()
		switch {
		case live && (first || p.State.Rank() < out.Rank()):
			out = p.State
		case !live && (n == 0 || out.Terminal() && (out == task.Finished || out == task.Killed)):
			out = p.State
		}
	}
	return out
}

// checkedParts says whether the agent checks any container of an instance that
// has not ended.
func (i *Instance) checkedParts() bool {
	return slices.ContainsFunc(i.Parts, func(p *Part) bool {
		c := i.def.container(p.Name)
		return c != nil && c.HealthCheck != nil && !p.State.Terminal()
	})
}

// healthyParts: nil while a check has no result.
func (i *Instance) healthyParts() *bool {
	var out *bool
	for _, p := range i.Parts {
		c := i.def.container(p.Name)
		switch {
		case c == nil || c.HealthCheck == nil || p.State.Terminal():
		case p.Healthy == nil:
			return nil
		case out == nil || *out:
			out = p.Healthy
		}
	}
	return out
}

func (a *App) container(name string) *PodContainer {
	if a == nil || a.Pod == nil {
		return nil
	}
	return a.Pod.container(name)
}

func (c *Core) tellPart(now time.Time, i *Instance, p *Part, fx []Effect) []Effect {
	return append(fx, Event{Type: "status_update_event", Time: now, Body: map[string]any{
		"slaveId": i.Agent, "taskId": p.TaskID, "taskStatus": p.State.String(), "message": p.Message, "appId": i.App,
		"host": i.Host, "ipAddresses": i.addresses(), "ports": i.Ports, "version": i.Version,
	}})
}
