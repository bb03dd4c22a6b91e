package marathon

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Canary says that a new configuration is tried with a few instances beside the
// old ones, until someone, or time, promotes it. With as many as the app has and
// a maximumOverCapacity of 1 it is a blue/green deployment.
type Canary struct {
	Instances           int     `json:"instances"`
	PromoteAfterSeconds float64 `json:"promoteAfterSeconds,omitempty"` // of health; 0: only on someone's word
}

// ErrNotReady refuses to promote canaries that are not all well.
var ErrNotReady = errors.New("not all canaries are healthy; use ?force=true to promote them all the same")

// Promote lets a deployment replace the rest of the instances. Without Force its
// canaries must be healthy.
type Promote struct {
	Deployment string
	Force      bool
}

func (Promote) input() {}

func (c *checker) canary(a *App) {
	if a.Deployment == nil || a.Deployment.Canary == nil {
		return
	}
	k := a.Deployment.Canary
	c.must(k.Instances > 0, "/deployment/canary/instances", "got %d, expected 1 or more", k.Instances)
	c.must(k.PromoteAfterSeconds >= 0, "/deployment/canary/promoteAfterSeconds", "got %v, expected 0 or more", k.PromoteAfterSeconds)
	room := a.Upgrade.most(a.Instances)
	c.must(a.Instances == 0 || k.Instances < room, "/deployment/canary/instances",
		"got %d, but the upgrade strategy allows %d instances in all, so no old one would be left to compare with", k.Instances, room)
}

// trials are the apps of a change that begin with canaries: those that get a new
// configuration, and those that were in trial when the change came.
func (c *Core) trials(in *Change) []string {
	var out []string
	if in.reverts {
		return nil
	}
	for _, def := range in.Put {
		if def.Deployment == nil || def.Deployment.Canary == nil {
			continue
		}
		known := c.apps[def.ID]
		if c.actionFor(def, in) == ActionRestart || known != nil && known.trial() != nil {
			out = append(out, def.ID)
		}
	}
	return out
}

// trial is the deployment in which the app's new configuration is being tried,
// nil when none is. Without old instances there is nothing to compare with.
func (a *app) trial() *Deployment {
	if a.stopping || a.tally.old == 0 || a.def.Deployment == nil || a.def.Deployment.Canary == nil {
		return nil
	}
	for _, d := range a.changes {
		if slices.Contains(d.Canaries, a.def.ID) && slices.Contains(d.at[a.def.ID], d.Current) {
			return d
		}
	}
	return nil
}

// wanted is how many instances of the current configuration there should be now.
// Canaries also stand in for old instances that are lost.
func (a *app) wanted() int {
	if a.trial() == nil {
		return a.target()
	}
	return min(a.target(), max(a.def.Deployment.Canary.Instances, a.target()-a.tally.old))
}

// kept is how many old instances stay during a trial.
func (a *app) kept() int {
	if a.trial() == nil {
		return 0
	}
	return max(1, min(a.target(), a.def.Upgrade.most(a.target())-a.def.Deployment.Canary.Instances))
}

// tried says whether all canaries are there and healthy.
func (a *app) tried() bool {
	if a.tally.fresh < a.wanted() {
		return false
	}
	for _, i := range a.instances {
		if i.counted.fresh > 0 && i.counted.healthy == 0 {
			return false
		}
	}
	return true
}

// watchTrial notes since when the canaries are healthy, and promotes them when
// that has been so for long enough. After a restart of ours the time counts anew.
func (c *Core) watchTrial(now time.Time, a *app, fx []Effect) []Effect {
	d := a.trial()
	if d == nil || !a.tried() {
		a.triedSince = time.Time{}
		return fx
	}
	after := seconds(a.def.Deployment.Canary.PromoteAfterSeconds)
	if a.triedSince.IsZero() {
		a.triedSince = now
		fx = append(fx, Event{Type: "canaries_ready_event", Time: now, Body: map[string]any{"appId": a.def.ID, "id": d.ID}})
		if after > 0 {
			c.timers.Add(now.Add(after), timer{kind: timerApp, id: a.def.ID})
		}
	}
	if after == 0 || now.Before(a.triedSince.Add(after)) {
		return fx
	}
	return c.endTrials(now, d, []string{a.def.ID}, fx)
}

func (c *Core) promote(now time.Time, in Promote, fx []Effect) ([]Effect, error) {
	i := slices.IndexFunc(c.deployments, func(d *Deployment) bool { return d.ID == in.Deployment })
	if i < 0 {
		return fx, fmt.Errorf("DeploymentPlan %s %w", in.Deployment, ErrNotFound)
	}
	d := c.deployments[i]
	trying := slices.DeleteFunc(slices.Clone(d.Canaries), func(id string) bool { return c.apps[id] == nil || c.apps[id].trial() != d })
	for _, id := range trying {
		if !in.Force && !c.apps[id].tried() {
			return fx, fmt.Errorf("App '%s': %w", id, ErrNotReady)
		}
	}
	if len(trying) == 0 {
		return fx, fmt.Errorf("canaries of deployment %s: %w", in.Deployment, ErrNotFound)
	}
	return c.endTrials(now, d, trying, fx), nil
}

// endTrials has the rest of the apps' instances replaced. Their deadlines count
// from now.
func (c *Core) endTrials(now time.Time, d *Deployment, apps []string, fx []Effect) []Effect {
	d.Canaries = slices.DeleteFunc(slices.Clone(d.Canaries), func(id string) bool { return slices.Contains(apps, id) })
	d.Since = now
	c.stepBegins(d)
	for _, id := range apps {
		c.changed[id] = true
		c.apps[id].triedSince = time.Time{}
		fx = append(fx, Event{Type: "canaries_promoted_event", Time: now, Body: map[string]any{"appId": id, "id": d.ID}})
	}
	return append(fx, Save{Key: KeyDeployment + d.ID, Value: d})
}

// Trials says how the canaries of a deployment do, by app: "starting" or "ready".
func (c *Core) Trials(d *Deployment) map[string]string {
	out := map[string]string{}
	for _, id := range d.Canaries {
		a := c.apps[id]
		if a == nil || a.trial() == nil {
			continue
		}
		if out[id] = "starting"; a.tried() {
			out[id] = "ready"
		}
	}
	return out
}
