package marathon

import (
	"math"
	"time"

	"github.com/mesopool/mesopool/task"
)

// census counts an app's instances as the rolling arithmetic needs them.
type census struct {
	target  int
	fresh   []*Instance // of the current configuration, wanted
	old     []*Instance // of an earlier one, not being killed
	healthy int         // fresh and old
}

func (c *Core) census(a *app) census {
	n := census{target: a.def.Instances}
	if a.stopping {
		n.target = 0
	}
	for _, i := range a.instances {
		if !i.active() {
			continue
		}
		if i.Version == a.def.ConfigVersion() {
			n.fresh = append(n.fresh, i)
		} else {
			n.old = append(n.old, i)
		}
		if c.healthyInstance(i, a.def) {
			n.healthy++
		}
	}
	return n
}

// bounds are how few healthy instances there must be and how many instances
// there may be at most during a restart (TaskReplaceActor.scala,
// computeRestartStrategy).
func (n *census) bounds(u UpgradeStrategy) (minHealthy, most int) {
	minHealthy = int(math.Ceil(float64(n.target) * u.MinimumHealthCapacity))
	most = int(math.Floor(float64(n.target) * (1 + u.MaximumOverCapacity)))
	if minHealthy == most && most <= len(n.old)+len(n.fresh) {
		most++
	}
	return minHealthy, most
}

// need is how many instances an app lacks right now.
func (c *Core) need(a *app) int {
	if a.stopping || c.blocked(a.def.ID) {
		return 0
	}
	n := c.census(a)
	lack := n.target - len(n.fresh)
	if len(n.old) > 0 {
		_, most := n.bounds(a.def.Upgrade)
		lack = min(lack, most-len(n.old)-len(n.fresh))
	}
	return max(lack, 0)
}

// settled says whether an app is what it should be: all instances of the
// current configuration and healthy, none too many.
func (c *Core) settled(a *app) bool {
	n := c.census(a)
	if len(n.old) > 0 || len(n.fresh) != n.target || len(a.instances) != n.target {
		return false
	}
	return n.healthy >= n.target
}

// converge ends what is too much and notes what is too little, which is
// launched when offers come.
func (c *Core) converge(now time.Time, a *app, fx []Effect) []Effect {
	if !c.blocked(a.def.ID) {
		n := c.census(a)
		for _, i := range c.surplus(a, &n) {
			fx = c.killInstance(now, i, fx)
		}
	}
	if need := c.need(a); need > 0 {
		if c.lacking[a.def.ID] == nil {
			a.since, a.asked, a.seen = now, 0, Refusals{}
		}
		c.lacking[a.def.ID] = a
		a.asked = min(a.asked, need)
		return fx
	}
	delete(c.lacking, a.def.ID)
	return fx
}

// surplus picks the instances to end: all of a stopped app, those above the
// target, and during a restart as many old ones as the healthy ones allow.
func (c *Core) surplus(a *app, n *census) []*Instance {
	if a.stopping {
		return append(n.fresh, n.old...)
	}
	var out []*Instance
	if over := len(n.fresh) - n.target; over > 0 {
		out = victims(n.fresh, a.def.KillSelect)[:over]
	}
	if len(n.old) == 0 {
		return out
	}
	return append(out, c.outdated(a, n)...)
}

// outdated picks the old instances that can go: those that do not run, as many
// healthy ones as can be spared, and unhealthy ones once a new one is up or
// when there is no room for a new one otherwise.
func (c *Core) outdated(a *app, n *census) []*Instance {
	minHealthy, most := n.bounds(a.def.Upgrade)
	spare := n.healthy - minHealthy
	crowded := (n.target - len(n.fresh)) - (most - len(n.old) - len(n.fresh))
	var out []*Instance
	for _, i := range victims(n.old, a.def.KillSelect) {
		switch {
		case c.healthyInstance(i, a.def):
			if spare <= 0 {
				continue
			}
			spare--
		case i.State == task.Running && n.target > 0 && n.healthy == 0:
			if crowded <= 0 {
				continue
			}
			crowded--
		}
		out = append(out, i)
	}
	return out
}

func (c *Core) killInstance(now time.Time, i *Instance, fx []Effect) []Effect {
	if i.Killing {
		return fx
	}
	i.Killing = true
	c.changed[i.App] = true
	fx = append(fx, Save{Key: KeyInstance + i.TaskID, Value: i})
	return c.sendKill(now, i, fx)
}

func (c *Core) sendKill(now time.Time, i *Instance, fx []Effect) []Effect {
	if !c.connected {
		return fx
	}
	i.killedAt = now
	c.timers.Add(now.Add(c.cfg.KillRetry), timer{kind: timerKill, id: i.TaskID})
	return append(fx, Kill{TaskID: i.TaskID, Agent: i.Agent})
}

func (c *Core) killAgain(now time.Time, id string, fx []Effect) []Effect {
	i := c.instances[id]
	if i == nil || !i.Killing || now.Sub(i.killedAt) < c.cfg.KillRetry {
		return fx
	}
	return c.sendKill(now, i, fx)
}

// killTasks ends instances on a user's word.
func (c *Core) killTasks(now time.Time, in KillTasks, fx []Effect) ([]Effect, error) {
	lost := map[string]int{}
	for _, id := range in.IDs {
		i := c.instances[id]
		if i == nil {
			return fx, notFound("Task", id)
		}
		if !i.Killing {
			lost[i.App]++
		}
	}
	if in.Scale {
		change := Change{DeploymentID: in.DeploymentID, Force: in.Force}
		for id, n := range lost {
			a := c.apps[id]
			if a == nil || a.stopping {
				continue
			}
			def := *a.def
			def.Instances = max(0, def.Instances-n)
			change.Put = append(change.Put, &def)
		}
		var err error
		if fx, err = c.change(now, change, fx); err != nil {
			return fx, err
		}
	}
	for _, id := range in.IDs {
		fx = c.killInstance(now, c.instances[id], fx)
	}
	return fx, nil
}
