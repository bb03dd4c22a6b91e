package sim

import (
	"fmt"
	"maps"
	"slices"

	"github.com/mesopool/mesopool/agent"
	"github.com/mesopool/mesopool/internal/audit"
	"github.com/mesopool/mesopool/marathon"
	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// unsettled says what is not yet as users want it; "" when everything is.
func (w *World) unsettled() string {
	for _, p := range w.processes {
		if !p.up {
			return p.name + " is down"
		}
	}
	if _, _, connected := w.marathon.core.Info(); !connected || w.marathon.session == nil {
		return "Marathon is not subscribed"
	}
	c := w.audit()
	if why := c.Unsettled(); why != "" {
		return why
	}
	for _, why := range []func() string{w.leftOver, w.restless, w.unsaved, w.unkept} {
		if text := why(); text != "" {
			return text
		}
	}
	return ""
}

// leftOver: what the users have removed is gone, and what runs once has.
func (w *World) leftOver() string {
	for _, v := range w.marathon.core.Apps(w.now, nil) {
		if v.App.ID == finite {
			return "the batch app is still there"
		}
		if v.App.RunOnce && v.Finished < v.App.Instances {
			return fmt.Sprintf("%s has finished %d of %d runs", v.App.ID, v.Finished, v.App.Instances)
		}
	}
	return ""
}

// restless: no agent wants to do anything any more, but to check healths.
func (w *World) restless() string {
	for _, a := range w.agents {
		probes := false
		for _, t := range a.core.Roster().Tasks {
			probes = probes || t.Spec.Health != nil
		}
		if next := a.core.Next(); !next.IsZero() && !probes {
			return fmt.Sprintf("%s wants to do something in %s", a.name, next.Sub(w.now))
		}
	}
	return ""
}

// unsaved: the agents have on record what they have in memory.
func (w *World) unsaved() string {
	for _, a := range w.agents {
		if r := a.core.Roster(); len(r.Tasks)+len(r.Executors) != len(a.disk.tasks) {
			n := len(r.Tasks) + len(r.Executors)
			return fmt.Sprintf("%s has %d tasks and %d on record", a.name, n, len(a.disk.tasks))
		}
	}
	return ""
}

// unkept: Marathon has what it has saved of apps and groups.
func (w *World) unkept() string {
	c := w.marathon
	for _, a := range read[marathon.SavedApp](c, marathon.KeyApp+"/") {
		if def, there := c.core.Definition(a.App.ID); !there || def.Version != a.App.Version {
			return fmt.Sprintf("%s is saved in version %s, and Marathon has not got that", a.App.ID, a.App.Version)
		}
	}
	groups, _ := c.core.Groups("/")
	if saved := read[marathon.Group](c, marathon.KeyGroup+"/"); len(saved) != len(groups) {
		return fmt.Sprintf("%d records of groups are saved, and Marathon has %d", len(saved), len(groups))
	}
	return ""
}

// audit gathers what all parts have.
func (w *World) audit() audit.Cluster {
	c := audit.Cluster{Framework: w.marathon.framework, Master: auditMaster(w.master.core.Snapshot()), Apps: w.auditApps()}
	for _, a := range w.agents {
		pods := a.core.Roster().Executors
		for _, state := range []provider.State{provider.StateUp, provider.StateExited, provider.StateCreated} {
			for _, k := range a.dc.containers(state) {
				if state == provider.StateUp && slices.ContainsFunc(pods, func(e agent.Executor) bool { return e.Spec.Key == k.Key }) {
					continue // it holds the network of a pod that has tasks
				}
				c.Containers = append(c.Containers, audit.Container{Name: k.Name, Key: k.Key, State: k.State})
			}
		}
		c.Registered = append(c.Registered, slices.Collect(maps.Keys(a.dc.announced))...)
		c.Agents = append(c.Agents, a.audit())
	}
	for _, d := range w.marathon.core.Deployments() {
		c.Deploying = append(c.Deploying, fmt.Sprintf("%s is at step %d of %v", d.ID, d.Current, d.Steps))
	}
	return c
}

func (a *agentNode) audit() audit.Agent {
	r := a.core.Roster()
	out := audit.Agent{Name: a.name, Registered: a.registered, Kept: r.Kept, Orphans: r.Orphans}
	for _, t := range r.Tasks {
		row := audit.Task{Key: t.Spec.Key, State: t.State}
		if t.Pending != nil {
			row.Pending = t.Pending.State.String()
		}
		out.Tasks = append(out.Tasks, row)
	}
	return out
}

func auditMaster(snap *master.Snapshot) audit.Master {
	m := audit.Master{Waiting: len(snap.Recovered) + snap.Unreachable}
	for i := range snap.Agents {
		a := &snap.Agents[i]
		m.Agents = append(m.Agents, audit.Books{
			ID: a.ID, Connected: a.Connected, Total: withLost(a).Scalars(), Used: a.Used.Scalars(), Offered: a.Offered.Scalars(),
		})
	}
	for i := range snap.Frameworks {
		f := &snap.Frameworks[i]
		out := audit.Framework{ID: f.ID, Connected: f.Connected}
		for _, o := range f.Offers {
			out.Offers = append(out.Offers, audit.Offer{Agent: o.Agent, Resources: o.Resources.Scalars()})
		}
		for _, e := range f.Executors {
			out.Executors = append(out.Executors, audit.Offer{Agent: e.Agent, Resources: e.Resources.Scalars()})
		}
		m.Frameworks = append(m.Frameworks, out)
		for _, t := range f.Tasks {
			m.Tasks = append(m.Tasks, audit.Task{Key: t.Key, Agent: t.Agent, State: t.State, Resources: t.Resources.Scalars()})
		}
	}
	return m
}

// withLost is an agent's total with what tasks use that it has not: an operation
// was lost on the way, and with it the tasks that it was made for. Nobody gets
// that, and it is gone when the agent has said so.
func withLost(a *master.AgentView) resources.Resources {
	out := a.Resources
	for _, x := range a.Used.Checkpointed().Allocated("") {
		if one := (resources.Resources{x}); !out.Contains(one) {
			out = out.Add(one...)
		}
	}
	return out
}

func (w *World) auditApps() []audit.App {
	var out []audit.App
	for _, v := range w.marathon.core.Apps(w.now, nil) {
		out = append(out, w.auditApp(&v))
	}
	return out
}

func (w *World) auditApp(v *marathon.AppView) audit.App {
	a := audit.App{ID: v.App.ID, Want: v.App.Instances, Checked: len(v.App.HealthChecks) > 0, Healthy: v.Healthy, Waiting: fmt.Sprint(v.Waiting)}
	switch {
	case v.App.Everywhere:
		a.Want *= len(w.agents)
	case v.App.RunOnce:
		a.Want = max(0, a.Want-v.Finished)
	case v.App.IsPod(): // its tasks are counted
		a.Want *= len(v.App.Pod.Containers)
	}
	for _, i := range v.Instances {
		one := audit.Instance{Task: i.TaskID, State: i.State, Killing: i.Killing, Old: i.Version != v.App.ConfigVersion()}
		if len(i.Parts) == 0 {
			a.Instances = append(a.Instances, one)
		}
		for _, p := range i.Parts {
			if one.Task, one.State = p.TaskID, p.State; p.State == task.Finished {
				a.Want-- // it leaves the others
				continue
			}
			a.Instances = append(a.Instances, one)
		}
	}
	return a
}
