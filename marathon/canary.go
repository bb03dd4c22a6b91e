package marathon

import (
	"fmt"
	"time"
)

// Canary holds a new configuration of an app at a few instances beside all the
// old ones, until somebody promotes it. It is ours; without it a deployment goes
// on by itself.
type Canary struct {
	Instances int `json:"instances"` // of the new configuration; as many as the app has is blue/green
}

func (c *checker) canary(a *App) {
	if a.Canary == nil {
		return
	}
	c.must(a.Canary.Instances >= 1, "/canary/instances", "got %d, expected 1 or more", a.Canary.Instances)
	c.must(!a.Resident(), "/canary", "an app with persistent volumes cannot have more instances than volumes")
	c.must(!a.RunOnce, "/canary", "an app that runs once has no old instances to keep")
}

// held says whether the app's new configuration waits to be promoted.
func (a *app) held() bool {
	return a.def.Canary != nil && !a.stopping && a.promoted != a.def.ConfigVersion()
}

// canaries is how many instances of the new configuration there are to be
// meanwhile: more than was said where old ones have gone.
func (a *app) canaries() int {
	return max(min(a.def.Canary.Instances, a.target()), a.target()-a.tally.old)
}

// decideCanary says at the moment of a change whether it is held: a new app is not,
// nor is one of which nothing runs, nor a way back.
func (a *app) decideCanary(action string, old *App, waited bool, d *Deployment) {
	same := old != nil && old.ConfigVersion() == a.def.ConfigVersion()
	if action == ActionStart || d.Reverts || old == nil || old.Instances == 0 || a.def.Canary == nil || same && !waited {
		a.promoted = a.def.ConfigVersion()
	}
}

// Promote lets a held configuration take over.
type Promote struct {
	Author
	App string
}

func (Promote) input() {}

// ErrNotHeld is a promotion of what waits for none.
var ErrNotHeld = fmt.Errorf("no canary waits to be promoted")

func (c *Core) promote(now time.Time, in Promote, fx []Effect) ([]Effect, error) {
	a := c.apps[in.App]
	if a == nil || a.stopping {
		return fx, notFound("App", in.App)
	}
	if !a.held() {
		return fx, fmt.Errorf("App '%s': %w", in.App, ErrNotHeld)
	}
	a.promoted = a.def.ConfigVersion()
	c.changed[in.App] = true
	fx = c.note(now, in.Author, AuditEntry{What: "promote", Changes: []AuditChange{{App: in.App}}}, fx)
	return append(fx, Save{Key: KeyApp + in.App, Value: a.record()}), nil
}

// waitsForPromotion is what a held app waits for, once its canaries are well; ""
// before.
func (a *app) waitsForPromotion() string {
	if !a.held() || a.tally.fresh < a.canaries() {
		return ""
	}
	return fmt.Sprintf("%d instances of the new configuration run beside %d old ones; promote it by POST /v2/apps%s/promote, or cancel the deployment", a.tally.fresh, a.tally.old, a.def.ID)
}
