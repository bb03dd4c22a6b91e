package marathon

import (
	"maps"
	"math"
	"slices"
	"time"

	"github.com/mesopool/mesopool/task"
)

// tally counts an app's instances as the rolling arithmetic needs them. It is
// kept up to date by touch, so that nothing has to be counted over and over.
type tally struct {
	fresh   int // of the current configuration, wanted
	old     int // of an earlier one, wanted until it is replaced
	killing int // on their way out, but maybe still there
	healthy int // fresh and old
}

func (t *tally) add(o tally, times int) {
	t.fresh += times * o.fresh
	t.old += times * o.old
	t.killing += times * o.killing
	t.healthy += times * o.healthy
}

// touch counts an instance anew and has its app looked at. It follows every
// change of an instance.
func (c *Core) touch(i *Instance) {
	a := c.apps[i.App]
	if a == nil {
		return
	}
	c.changed[i.App] = true
	a.tally.add(i.counted, -1)
	i.counted = a.count(i)
	a.tally.add(i.counted, 1)
}

func (a *app) count(i *Instance) tally {
	switch {
	case a.instances[i.TaskID] != i || i.inactive:
		return tally{}
	case i.Killing:
		return tally{killing: 1}
	}
	var t tally
	if t.fresh = 1; i.Version != a.def.ConfigVersion() {
		t.fresh, t.old = 0, 1
	}
	if i.fitness() == fit {
		t.healthy = 1
	}
	return t
}

// target is how many instances an app should have.
func (a *app) target() int {
	if a.stopping {
		return 0
	}
	if a.def.Everywhere {
		return a.def.Instances * a.places()
	}
	return max(0, a.def.Instances-a.finished())
}

// bounds are how few healthy instances there must be and how many instances
// there may be at most (TaskReplaceActor.scala, computeRestartStrategy).
func (a *app) bounds() (minHealthy, most int) {
	minHealthy, most = a.def.Upgrade.bounds(a.target(), a.tally.fresh+a.tally.old)
	if a.held() {
		return minHealthy, a.target() + a.canaries()
	}
	if a.def.Resident() { // the old one goes first: there is no room for another
		most = min(most, a.target())
		minHealthy = min(minHealthy, max(0, most-1))
	}
	return minHealthy, most
}

func (u UpgradeStrategy) bounds(target, count int) (minHealthy, most int) {
	minHealthy = int(math.Ceil(float64(target) * u.MinimumHealthCapacity))
	most = int(math.Floor(float64(target) * (1 + u.MaximumOverCapacity)))
	if minHealthy == most && most <= count {
		most++ // nothing could be replaced otherwise
	}
	return minHealthy, most
}

// need is how many instances an app lacks and may launch right now. Those that
// are being killed count until they have ended.
func (c *Core) need(a *app) int {
	if a.stopping || a.blocked() {
		return 0
	}
	t := &a.tally
	_, most := a.bounds()
	want := a.target()
	if a.held() {
		want = a.canaries()
	}
	return max(0, min(want-t.fresh, most-t.fresh-t.old-t.killing))
}

// settled says whether an app is what it should be: all instances of the
// current configuration and healthy, none too many.
func (a *app) settled() bool {
	return a.tally == tally{fresh: a.target(), healthy: a.target()}
}

// converge ends what is too much and notes what is too little, which is
// launched when offers come. A stopped app goes with its last instance.
func (c *Core) converge(now time.Time, a *app, fx []Effect) []Effect {
	fx = c.release(a, fx)
	if !a.blocked() {
		for _, i := range a.surplus() {
			fx = c.killInstance(now, i, fx)
		}
	}
	if a.stopping && len(a.instances) == 0 {
		fx = c.forgetApp(now, a, fx)
	}
	need := c.need(a)
	known := c.lacking[a.def.ID] != nil
	switch {
	case need > 0 && !known:
		a.since, a.asked, a.seen, a.secrets = now, 0, Refusals{}, secretsOf{}
		c.lacking[a.def.ID], c.queue = a, nil
	case need == 0 && known:
		delete(c.lacking, a.def.ID)
		c.queue, a.secrets = nil, secretsOf{}
	}
	if need > 0 {
		fx = c.askSecrets(now, a, fx)
	}
	a.asked = min(a.asked, need)
	return fx
}

// surplus picks the instances to end: all of a stopped app, those above the
// target, and during a restart the old ones that can be spared.
func (a *app) surplus() []*Instance {
	over := a.tally.fresh - a.target()
	if a.held() {
		fresh, old := a.members()
		return append(a.uneven(fresh, max(0, a.tally.fresh-a.canaries())), old[:min(len(old), max(0, a.tally.old-a.target()))]...)
	}
	if !a.stopping && over <= 0 && a.tally.old == 0 {
		return nil
	}
	fresh, old := a.members()
	if a.stopping {
		return append(fresh, old...)
	}
	going := a.uneven(fresh, max(over, 0))
	return append(going, a.outdated(old, going)...)
}

// members lists the wanted instances of the current and of earlier
// configurations, who is to go first at the front. The lost ones of a stopped
// app are among them.
func (a *app) members() (fresh, old []*Instance) {
	for _, i := range a.instances {
		switch {
		case i.Killing || i.inactive && !a.stopping:
		case i.Version == a.def.ConfigVersion():
			fresh = append(fresh, i)
		default:
			old = append(old, i)
		}
	}
	return victims(fresh, a.def.KillSelect), victims(old, a.def.KillSelect)
}

// outdated picks the old instances that can go: those that do not run, as many
// as there are healthy ones to spare, and unhealthy ones once another is
// healthy. If none is, and there is no room for a new one, one makes room. Of
// whose health nothing is known yet, it is not assumed that it is bad. Those that
// are going do not count any more.
func (a *app) outdated(old, going []*Instance) []*Instance {
	minHealthy, most := a.bounds()
	t := a.tally
	for _, i := range going {
		t.add(i.counted, -1)
		t.killing++
	}
	spare := t.healthy - minHealthy
	room := most - t.fresh - t.old - t.killing
	var out []*Instance
	for _, i := range old {
		switch f := i.fitness(); {
		case i.State != task.Running:
		case f != unfit:
			if spare <= 0 && minHealthy > 0 {
				continue
			}
			spare--
		case minHealthy > 0 && t.healthy == 0:
			if room > 0 || t.killing > 0 {
				continue
			}
			room++
		}
		out = append(out, i)
	}
	return out
}

// killInstance ends an instance. One on an agent that cannot be reached is
// given up; should it come back, it is a stranger and ended as one.
func (c *Core) killInstance(now time.Time, i *Instance, fx []Effect) []Effect {
	switch {
	case i.Killing:
		return fx
	case i.State == task.Unreachable:
		return c.expunge(now, i, fx)
	}
	i.Killing = true
	c.touch(i)
	fx = append(fx, Save{Key: KeyInstance + i.TaskID, Value: i})
	return c.sendKill(now, i, fx)
}

func (c *Core) sendKill(now time.Time, i *Instance, fx []Effect) []Effect {
	if !c.connected {
		return fx
	}
	i.killedAt = now
	c.timers.Add(now.Add(c.cfg.KillRetry), timer{kind: timerKill, id: i.TaskID})
	for _, id := range i.live() {
		fx = append(fx, Kill{TaskID: id, Agent: i.Agent})
	}
	return fx
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
	ids := slices.Compact(slices.Sorted(slices.Values(in.IDs)))
	lost := map[string]int{}
	for _, id := range ids {
		i := c.instances[id]
		if i == nil && in.Wipe && c.emptyResidence(id) != nil {
			continue
		}
		if i == nil {
			return fx, notFound("Task", id)
		}
		if !i.Killing {
			lost[i.App]++
		}
	}
	change := c.shrink(in, lost)
	if in.Scale {
		if err := c.mayChange(change); err != nil {
			return fx, err
		}
	}
	for _, id := range ids {
		i := c.instances[id]
		if i == nil {
			fx = c.vacate(now, c.emptyResidence(id).ID, fx)
			continue
		}
		if in.Wipe {
			fx = c.vacate(now, i.Residence, fx)
		}
		fx = c.killInstance(now, i, fx)
	}
	what := "kill"
	if in.Wipe {
		what = "wipe"
	}
	fx = c.note(now, in.Author, AuditEntry{What: what, Tasks: cut(ids)}, fx)
	if !in.Scale {
		return fx, nil
	}
	return c.change(now, change, fx) // after the kills: they are not counted any more
}

// shrink is the change that takes the lost instances off their apps.
func (c *Core) shrink(in KillTasks, lost map[string]int) Change {
	change := Change{DeploymentID: in.DeploymentID, Force: in.Force, Author: in.Author}
	for _, id := range slices.Sorted(maps.Keys(lost)) {
		if a := c.apps[id]; a != nil && !a.stopping {
			def := *a.def
			def.Instances = max(0, def.Instances-lost[id])
			change.Put = append(change.Put, &def)
		}
	}
	return change
}
