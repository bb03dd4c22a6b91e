package sim

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/mesopool/mesopool/marathon"
)

// The apps whose definitions say how they are changed: with readiness checks,
// canaries and limits of deployments, as a group with dependencies, as a pod,
// everywhere, once, and with volumes.
const (
	everywhereID = "/everywhere"
	onceID       = "/once"
	podID        = "/pod"
	volumesID    = "/volumes"
	groupID      = "/g"
)

var serviceIDs = []string{"/s", "/s", "/g/a", "/g/b", "/g/h/c", everywhereID, onceID, podID, volumesID}

// service draws the definition of an app that is not one of the plain ones.
func (u *users) service(rnd *rand.Rand, id string) *marathon.App {
	def := u.common(rnd, id)
	switch id {
	case everywhereID:
		def["everywhere"], def["instances"] = true, min(1, rnd.IntN(4))
		def["upgradeStrategy"] = map[string]any{"minimumHealthCapacity": oneOf(rnd, 0, 0.5), "maximumOverCapacity": oneOf(rnd, 0, 1)}
	case onceID:
		def["runOnce"] = true
		def["env"] = map[string]string{"MESOPOOL_SIM_RUN": oneOf(rnd, "2s", "20s", "2m"), "MESOPOOL_SIM_EXIT": "0"}
	case podID:
		return u.pod(rnd, def)
	case volumesID:
		if u.w.marathon.role == "*" {
			return nil // what is reserved, is reserved to a role
		}
		def["instances"], def["disk"] = 1+rnd.IntN(2), 0
		def["container"] = map[string]any{"type": "MESOS", "volumes": []any{map[string]any{"containerPath": "data", "mode": "RW", "persistent": map[string]int{"size": 64}}}}
		delete(def, "unreachableStrategy")
		def["upgradeStrategy"] = map[string]any{"minimumHealthCapacity": oneOf(rnd, 0, 0.5), "maximumOverCapacity": 0}
		u.checks(rnd, def)
	default:
		u.checks(rnd, def)
		u.limits(rnd, def)
	}
	return u.read(def)
}

func (u *users) common(rnd *rand.Rand, id string) map[string]any {
	def := map[string]any{
		"id": id, "cmd": "serve", "instances": 1 + rnd.IntN(3), "cpus": 0.1, "mem": 32, "maxLaunchDelaySeconds": 30, "backoffSeconds": oneOf(rnd, 0, 1, 5),
		"env":                 map[string]string{"V": oneOf(rnd, "1", "2", "3")},
		"upgradeStrategy":     map[string]any{"minimumHealthCapacity": oneOf(rnd, 0, 0.5, 0.75, 1), "maximumOverCapacity": oneOf(rnd, 0, 0.5, 1)},
		"unreachableStrategy": oneOf(rnd, map[string]int{"inactiveAfterSeconds": 0, "expungeAfterSeconds": 0}, map[string]int{"inactiveAfterSeconds": 30, "expungeAfterSeconds": 300}),
		"killSelection":       oneOf(rnd, "YOUNGEST_FIRST", "OLDEST_FIRST"),
	}
	if id == "/g/b" && rnd.IntN(2) == 0 {
		def["dependencies"] = []string{"/g/a"}
	}
	return def
}

// checks: some instances are ready late, and some configurations never well.
func (u *users) checks(rnd *rand.Rand, def map[string]any) {
	env := def["env"].(map[string]string)
	if rnd.IntN(2) == 0 {
		def["portDefinitions"] = []any{map[string]any{"port": 0, "name": "w"}}
		def["readinessChecks"] = []any{map[string]any{"portName": "w", "intervalSeconds": 10, "timeoutSeconds": 5}}
		env[simSlow] = oneOf(rnd, "0s", "20s", "90s")
	}
	if rnd.IntN(2) == 0 {
		def["healthChecks"] = []any{u.healthCheck(rnd)}
		if rnd.IntN(5) == 0 {
			env[simIll] = "1"
		}
	}
}

func (u *users) limits(rnd *rand.Rand, def map[string]any) {
	if rnd.IntN(3) == 0 {
		def["deployment"] = map[string]any{"deadlineSeconds": oneOf(rnd, 10, 40, 200), "maxRetries": rnd.IntN(3), "autoRevert": rnd.IntN(4) > 0}
	}
	if rnd.IntN(3) == 0 {
		def["canary"] = map[string]int{"instances": 1 + rnd.IntN(4)}
	}
}

func (u *users) pod(rnd *rand.Rand, def map[string]any) *marathon.App {
	container := func(name string) map[string]any {
		c := map[string]any{"name": name, "exec": map[string]any{"command": map[string]string{"shell": "serve"}}, "resources": map[string]any{"cpus": 0.1, "mem": 32}}
		if rnd.IntN(3) == 0 {
			c["healthCheck"] = map[string]any{"exec": map[string]any{"command": map[string]string{"shell": "true"}}, "gracePeriodSeconds": 60, "intervalSeconds": 20}
		}
		return c
	}
	text, err := json.Marshal(map[string]any{
		"id": podID, "containers": []any{container("one"), container("two")}, "environment": def["env"],
		"scaling": map[string]any{"kind": "fixed", "instances": 1 + rnd.IntN(2)},
		"scheduling": map[string]any{
			"upgrade": def["upgradeStrategy"], "unreachableStrategy": def["unreachableStrategy"], "backoff": map[string]any{"backoff": 1, "maxLaunchDelay": 30},
		},
	})
	if err != nil {
		panic(err)
	}
	app, err := marathon.ReadPod(text, u.w.marathon.role)
	if err != nil {
		u.w.failf("users", "%s: %v", text, err)
	}
	return app
}

func (u *users) read(def map[string]any) *marathon.App {
	text, err := json.Marshal(def)
	if err != nil {
		panic(err)
	}
	app, err := marathon.Read(text, u.w.marathon.role)
	if err != nil {
		u.w.failf("users", "%s: %v", text, err)
	}
	return app
}

// isService says whether service draws the app's definitions.
func isService(id string) bool { return slices.Contains(serviceIDs, id) }

// putService makes or changes one of the services.
func (w *World) putService(rnd *rand.Rand) {
	w.put(w.users.service(rnd, oneOf(rnd, serviceIDs...)), marathon.Change{Force: force(rnd)})
}

// group puts, scales or deletes the group of services.
func (w *World) group(rnd *rand.Rand) {
	in := marathon.ChangeGroup{DeploymentID: w.table.id("d"), ID: groupID, Force: force(rnd)}
	switch rnd.IntN(8) {
	case 0:
		w.ask(in)
		return
	case 1:
		in.Put = w.users.tree(map[string]any{"id": groupID, "scaleBy": oneOf(rnd, 0.5, 1.5)})
	default:
		in.Put = w.users.tree(w.users.groupOf(rnd))
	}
	if in.Put != nil {
		w.ask(in)
	}
}

// groupOf draws a group: b depends on a, and a group in it on both.
func (u *users) groupOf(rnd *rand.Rand) map[string]any {
	app := func(id string, dependencies ...string) map[string]any {
		def := u.common(rnd, id)
		u.checks(rnd, def)
		u.limits(rnd, def)
		delete(def, "canary")
		def["dependencies"] = dependencies
		return def
	}
	inner := map[string]any{"id": "h", "apps": []any{app("/g/h/c")}}
	if rnd.IntN(2) == 0 {
		inner["dependencies"] = []string{"/g/b"}
	}
	out := map[string]any{"id": groupID, "apps": []any{app("/g/a"), app("/g/b", "/g/a")}, "groups": []any{inner}}
	if rnd.IntN(4) == 0 {
		delete(out, "groups")
	}
	return out
}

func (u *users) tree(def map[string]any) *marathon.Tree {
	text, err := json.Marshal(def)
	if err != nil {
		panic(err)
	}
	t, err := marathon.ReadGroup(text, "/", u.w.marathon.role)
	if err != nil {
		u.w.failf("users", "%s: %v", text, err)
		return nil
	}
	return t
}

// promote lets the canaries of some app take over.
func (w *World) promote(rnd *rand.Rand) {
	if app := w.someApp(rnd); app != nil {
		w.ask(marathon.Promote{App: app.ID})
	}
}

// promoteAll is what remains to be done about canaries when the faults end.
func (u *users) promoteAll() {
	for _, v := range u.w.marathon.core.Summaries(u.w.now, func(a *marathon.App) bool { return a.Canary != nil }) {
		u.w.ask(marathon.Promote{App: v.App.ID})
	}
}

// dependsOnNothing says whether what an app, or a group that it is in, depends
// on is not there.
func (u *users) dependsOnNothing(app *marathon.App) bool {
	core := u.w.marathon.core
	ids := slices.Clone(app.Dependencies)
	groups, _ := core.Groups(groupID)
	for _, g := range groups {
		if len(app.ID) > len(g.ID) && app.ID[:len(g.ID)+1] == g.ID+"/" {
			ids = append(ids, g.Dependencies...)
		}
	}
	for _, id := range ids {
		if _, there := core.Definition(id); !there {
			return true
		}
	}
	return false
}

// behead kills the scheduler in the middle of a deployment, which is made if
// there is none.
func (w *World) behead(rnd *rand.Rand) {
	if !w.marathon.up {
		return
	}
	how, down := oneOf(rnd, uncommitted, undispatched, amidEffects), span(rnd, 100*time.Millisecond, 20*time.Second)
	if len(w.marathon.core.Deployments()) == 0 {
		w.restart(rnd)
	}
	w.marathon.inLife(span(rnd, 0, 10*time.Second), func() {
		w.logf("the scheduler is to die: %s", deathNames[how])
		w.marathon.doomed(how, down)
	})
}
