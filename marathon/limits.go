package marathon

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// DeploymentLimits say when a deployment that changes the app has failed. They
// are ours: without them it goes on for ever, as Marathon's do.
type DeploymentLimits struct {
	DeadlineSeconds float64 `json:"deadlineSeconds,omitempty"` // from when the app's step begins; 0: none
	MaxRetries      *int    `json:"maxRetries,omitempty"`      // failed instances that are put up with; nil: any number
	AutoRevert      bool    `json:"autoRevert,omitempty"`      // go back to what last worked
}

func (c *checker) limits(l *DeploymentLimits) {
	if l == nil {
		return
	}
	c.must(l.DeadlineSeconds >= 0, "/deployment/deadlineSeconds", "got %v, expected 0 or more", l.DeadlineSeconds)
	c.must(deref(l.MaxRetries) >= 0, "/deployment/maxRetries", "got %d, expected 0 or more", deref(l.MaxRetries))
	c.must(!l.AutoRevert || l.DeadlineSeconds > 0 || l.MaxRetries != nil, "/deployment/autoRevert", "needs deadlineSeconds or maxRetries")
}

// stepBegins has the deadlines of a step's apps looked at in time.
func (c *Core) stepBegins(d *Deployment) {
	if d.Current >= len(d.Steps) {
		return
	}
	for _, act := range d.Steps[d.Current] {
		if a := c.apps[act.App]; a != nil && a.def.Deployment != nil && a.def.Deployment.DeadlineSeconds > 0 {
			c.timers.Add(d.Since.Add(seconds(a.def.Deployment.DeadlineSeconds)), timer{kind: timerApp, id: act.App})
		}
	}
}

// countFailure notes that an instance of what is being deployed has failed.
func (a *app) countFailure() {
	for _, d := range a.changes {
		if d.failures == nil {
			d.failures = map[string]int{}
		}
		d.failures[a.def.ID]++
	}
}

// overLimit names the apps for which a deployment has failed, with the first
// reason; none while it has not.
func (c *Core) overLimit(now time.Time, d *Deployment) (failed []string, reason string) {
	for _, act := range d.Steps[d.Current] {
		a := c.apps[act.App]
		if a == nil || a.stopping || a.def.Deployment == nil || c.stepDone([]Action{act}) {
			continue
		}
		if why := a.def.Deployment.over(now, d, act.App); why != "" {
			failed, reason = append(failed, act.App), cmp.Or(reason, why)
		}
	}
	return failed, reason
}

func (l *DeploymentLimits) over(now time.Time, d *Deployment, app string) string {
	if l.DeadlineSeconds > 0 && !now.Before(d.Since.Add(seconds(l.DeadlineSeconds))) {
		return fmt.Sprintf("%s was not ready after %v seconds", app, l.DeadlineSeconds)
	}
	if n := d.failures[app]; l.MaxRetries != nil && n > *l.MaxRetries {
		return fmt.Sprintf("%d instances of %s have failed; %d are allowed", n, app, *l.MaxRetries)
	}
	return ""
}

// failDeployment ends a deployment that is over the limits of some apps. With
// autoRevert they go back to what last worked, and so does what has not begun;
// what goes on beside them stays on its way.
func (c *Core) failDeployment(now time.Time, d *Deployment, failed []string, reason string, fx []Effect) []Effect {
	back := Change{Force: true, Author: Author{URI: "/v2/deployments/" + d.ID}}
	wanted := func(id string) bool { return c.apps[id].def.Deployment.AutoRevert }
	if !d.Reverts && slices.ContainsFunc(failed, wanted) {
		c.wayBack(d, failed, &back)
	}
	if len(back.Put)+len(back.Delete) == 0 {
		return c.endDeployment(now, d, "deployment_failed", reason, fx)
	}
	back.DeploymentID, back.reverts = c.cfg.NewID(), true
	fx = c.endDeployment(now, d, "deployment_failed", reason+"; going back to what last worked", fx)
	fx, _ = c.change(now, back, fx) // refused if what was does not fit any more: then it stays as it is
	return fx
}

// wayBack is that of the failed apps and of those that have not begun. A new
// app has nothing to go back to: it stays, unless it has not begun.
func (c *Core) wayBack(d *Deployment, failed []string, back *Change) {
	for _, id := range d.Apps() {
		a, at := c.apps[id], d.at[id]
		begun := at[len(at)-1] <= d.Current
		if a == nil || a.stopping || begun && !slices.Contains(failed, id) {
			continue
		}
		was := d.Before[id]
		if a.good != nil {
			was = a.good
		}
		switch {
		case was != nil:
			back.Put = append(back.Put, was)
		case !begun:
			back.Delete = append(back.Delete, id)
		}
	}
}

// worked notes that what a deployment has brought works.
func (c *Core) worked(d *Deployment, fx []Effect) []Effect {
	for _, id := range d.Apps() {
		if a := c.apps[id]; a != nil && !a.stopping && a.good != a.def {
			a.good = a.def
			fx = append(fx, Save{Key: KeyApp + id, Value: a.record()})
		}
	}
	return fx
}

// record is what is saved of an app.
func (a *app) record() SavedApp {
	out := SavedApp{App: a.def, Stopping: a.stopping, Runs: a.runs, Promoted: a.promoted}
	if a.good != nil {
		out.Good = a.good.Version
	}
	return out
}

// versionCalled finds a version that is kept, nil when it is not.
func (a *app) versionCalled(version string) *App {
	for _, v := range a.versions {
		if v.Version == version {
			return v
		}
	}
	return nil
}
