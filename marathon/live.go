package marathon

import (
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/mesopool/mesopool/task"
)

// ErrStale is a change of an app that is not in the version any more that the
// change was made from.
var ErrStale = errors.New("has changed meanwhile")

// withoutLive is a definition without what running instances need not be
// restarted for: it concerns only us, or only what is launched from now on.
func (a *App) withoutLive() *App {
	out := *a
	out.Labels, out.Constraints, out.Dependencies, out.Readiness = nil, nil, nil, nil
	out.Upgrade, out.KillSelect, out.Unreachable = UpgradeStrategy{}, "", UnreachableStrategy{}
	out.BackoffSeconds, out.BackoffFactor, out.MaxLaunchDelaySeconds = 0, 0, 0
	out.HealthChecks = slices.DeleteFunc(slices.Clone(a.HealthChecks), func(h HealthCheck) bool { return h.byScheduler() })
	if len(out.HealthChecks) == 0 {
		out.HealthChecks = []HealthCheck{}
	}
	return &out
}

// sameTask says whether two definitions differ in nothing that a running
// instance has to be restarted for.
func sameTask(a, b *App) bool { return sameConfig(a.withoutLive(), b.withoutLive()) }

// redefine gives running instances the definition that now is in force for
// their configuration. Health checks that differ begin anew.
func (a *app) redefine() {
	for _, i := range a.instances {
		if i.Version != a.def.ConfigVersion() || i.def == a.def {
			continue
		}
		if !reflect.DeepEqual(i.def.HealthChecks, a.def.HealthChecks) {
			for n, s := range i.checks {
				i.checks[n] = &CheckState{running: s.running, sent: s.sent}
			}
		}
		i.def = a.def
	}
}

// recheck begins the health checks that running instances have come to have.
func (c *Core) recheck(now time.Time, a *app) {
	for _, i := range a.sorted() {
		if i.State == task.Running && !i.Killing {
			c.startChecks(now, i)
		}
	}
}

// FieldChange is one field that differs between two definitions; nil is a field
// that is not there.
type FieldChange struct {
	Path     string `json:"path"`
	Before   any    `json:"before"`
	After    any    `json:"after"`
	Restarts bool   `json:"restarts"` // a running instance must be restarted for it
}

// PlannedChange is what a new definition of an app would do.
type PlannedChange struct {
	Steps    [][]Action
	Fields   []FieldChange
	Restarts bool // all instances would be restarted
}

// PlanApp says what a change of one app would do, and changes nothing.
func (c *Core) PlanApp(in Change) (PlannedChange, error) {
	steps, err := c.Plan(in)
	if err != nil {
		return PlannedChange{}, err
	}
	def, old := c.filled(in.Put[0]), &App{}
	if known := c.apps[def.ID]; known != nil && !known.stopping {
		old = known.def
	}
	out := PlannedChange{Steps: steps, Fields: difference(old, def), Restarts: c.actionFor(def, &in) == ActionRestart}
	return out, nil
}

// difference lists the fields that differ, by path, but for what only the
// server sets.
func difference(old, next *App) []FieldChange {
	before, after := fieldsOf(old), fieldsOf(next)
	keys := map[string]bool{}
	for _, m := range []map[string]any{before, after} {
		for k := range m {
			keys[k] = true
		}
	}
	out := []FieldChange{}
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		if k == "version" || k == "versionInfo" || reflect.DeepEqual(before[k], after[k]) {
			continue
		}
		out = append(out, FieldChange{Path: "/" + k, Before: before[k], After: after[k], Restarts: restartsFor(k, old, next)})
	}
	return out
}

func fieldsOf(a *App) map[string]any {
	var out map[string]any
	if text, err := json.Marshal(a); err == nil && a.ID != "" {
		json.Unmarshal(text, &out) // what was just written
	}
	return out
}

// liveFields are those that running instances need not be restarted for.
var liveFields = []string{
	"instances", "labels", "constraints", "dependencies", "readinessChecks", "upgradeStrategy", "killSelection", "unreachableStrategy",
	"backoffSeconds", "backoffFactor", "maxLaunchDelaySeconds", "deployment", "healthBrake", "canary", "autoscale",
}

func restartsFor(field string, old, next *App) bool {
	if field == "healthChecks" {
		return !sameTask(&App{HealthChecks: old.HealthChecks}, &App{HealthChecks: next.HealthChecks})
	}
	return !slices.Contains(liveFields, field)
}
