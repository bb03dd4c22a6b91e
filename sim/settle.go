package sim

import (
	"fmt"
	"slices"

	"github.com/mesopool/mesopool/marathon"
	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

// unsettled says what is not yet as users want it; "" when everything is: every
// app has all its instances running and healthy, what runs is what the master
// and Marathon think, and nothing is on its way anywhere.
func (w *World) unsettled() string {
	for _, p := range w.processes {
		if !p.up {
			return p.name + " is down"
		}
	}
	for _, why := range []func() string{w.appsUnsettled, w.masterUnsettled, w.agentsUnsettled, w.setsDiffer} {
		if text := why(); text != "" {
			return text
		}
	}
	return ""
}

func (w *World) appsUnsettled() string {
	core := w.marathon.core
	if _, _, connected := core.Info(); !connected || w.marathon.session == nil {
		return "Marathon is not subscribed"
	}
	if all := core.Deployments(); len(all) > 0 {
		return fmt.Sprintf("deployment %s is at step %d of %v", all[0].ID, all[0].Current, all[0].Steps)
	}
	for _, v := range core.Apps(w.now, nil) {
		if v.App.ID == finite {
			return "the batch app is still there"
		}
		if why := appUnsettled(&v); why != "" {
			return v.App.ID + " " + why
		}
	}
	return ""
}

func appUnsettled(v *marathon.AppView) string {
	if len(v.Instances) != v.App.Instances {
		return fmt.Sprintf("has %d instances and wants %d: %s", len(v.Instances), v.App.Instances, v.Waiting)
	}
	if len(v.App.HealthChecks) > 0 && v.Healthy != v.App.Instances {
		return fmt.Sprintf("has %d healthy instances and wants %d", v.Healthy, v.App.Instances)
	}
	for _, i := range v.Instances {
		switch {
		case i.State != task.Running:
			return fmt.Sprintf("has %s %s", i.TaskID, i.State)
		case i.Killing:
			return fmt.Sprintf("is still killing %s", i.TaskID)
		case i.Version != v.App.ConfigVersion():
			return fmt.Sprintf("has %s of an old configuration", i.TaskID)
		}
	}
	return ""
}

func (w *World) masterUnsettled() string {
	snap := w.master.core.Snapshot()
	switch {
	case len(snap.Agents) != len(w.agents):
		return fmt.Sprintf("the master has %d agents", len(snap.Agents))
	case len(snap.Recovered) > 0 || snap.Unreachable > 0:
		return fmt.Sprintf("the master waits for %d agents and has lost %d", len(snap.Recovered), snap.Unreachable)
	}
	for i := range snap.Agents {
		if !snap.Agents[i].Connected {
			return "the master has lost its connection to " + snap.Agents[i].ID
		}
	}
	for i := range snap.Frameworks {
		f := &snap.Frameworks[i]
		switch {
		case f.ID != w.marathon.framework:
			if len(f.Tasks) > 0 {
				return fmt.Sprintf("framework %s has %d tasks", f.ID, len(f.Tasks))
			}
		case !f.Connected:
			return "the framework is not connected"
		case len(f.Offers) > 0:
			return fmt.Sprintf("the framework holds %d offers", len(f.Offers))
		}
	}
	return ""
}

func (w *World) agentsUnsettled() string {
	for _, a := range w.agents {
		r := a.core.Roster()
		switch {
		case !a.registered:
			return a.name + " is not registered"
		case r.Kept+r.Orphans > 0:
			return fmt.Sprintf("%s keeps %d containers and has %d orphans", a.name, r.Kept, r.Orphans)
		}
		probes := false
		for _, t := range r.Tasks {
			probes = probes || t.Spec.Health != nil
			if t.Pending != nil {
				return fmt.Sprintf("%s: the update %s of %s is not acknowledged", a.name, t.Pending.State, t.Spec.Key)
			}
		}
		if next := a.core.Next(); !next.IsZero() && !probes {
			return fmt.Sprintf("%s wants to do something in %s", a.name, next.Sub(w.now))
		}
	}
	return ""
}

// setsDiffer compares what runs with what everybody thinks.
func (w *World) setsDiffer() string {
	var up, found, saved, atMaster, atMarathon []string
	for _, a := range w.agents {
		for _, k := range a.dc.containers(provider.StateUp) {
			up = append(up, k.Key.String())
		}
		for _, state := range []provider.State{provider.StateExited, provider.StateCreated} {
			if left := a.dc.containers(state); len(left) > 0 {
				return fmt.Sprintf("%s: container %s is %s and was not removed", a.name, left[0].Name, state)
			}
		}
		for k := range a.dc.announced {
			found = append(found, k.String())
		}
		for k := range a.disk.tasks {
			saved = append(saved, k.String())
		}
	}
	for _, f := range w.master.core.Snapshot().Frameworks {
		for _, t := range f.Tasks {
			atMaster = append(atMaster, t.Key.String())
			if t.State != task.Running {
				return fmt.Sprintf("the master has %s as %s", t.Key, t.State)
			}
		}
	}
	for _, v := range w.marathon.core.Apps(w.now, nil) {
		for _, i := range v.Instances {
			atMarathon = append(atMarathon, w.marathon.framework+"/"+i.TaskID)
		}
	}
	for _, other := range []struct {
		what string
		list []string
	}{{"the registry", found}, {"the agents' records", saved}, {"the master", atMaster}, {"Marathon", atMarathon}} {
		slices.Sort(up)
		slices.Sort(other.list)
		if !slices.Equal(up, other.list) {
			return fmt.Sprintf("containers %v run, %s has %v", up, other.what, other.list)
		}
	}
	return ""
}
