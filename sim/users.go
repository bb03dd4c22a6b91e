package sim

import (
	"math/rand/v2"
	"time"

	"github.com/mesopool/mesopool/marathon"
	"github.com/mesopool/mesopool/master"
)

// users are those who want something of Marathon. Their requests reach it while
// it is up, and only the answer of a refusal comes back.
type users struct{ w *World }

var appIDs = []string{"/a", "/b", "/c/d", "/c/e"}

// finite is the app whose tasks end by themselves; it goes with the faults.
const finite = "/batch"

// definition draws an app.
func (u *users) definition(rnd *rand.Rand, id string) *marathon.App {
	if isService(id) {
		return u.service(rnd, id)
	}
	def := map[string]any{
		"id": id, "cmd": "serve", "instances": rnd.IntN(5), "cpus": oneOf(rnd, 0.1, 0.3), "mem": 32,
		"maxLaunchDelaySeconds": 30, "backoffSeconds": oneOf(rnd, 0, 1, 5), "env": u.env(rnd, id),
		"upgradeStrategy":     map[string]any{"minimumHealthCapacity": oneOf(rnd, 0, 0.5, 1), "maximumOverCapacity": oneOf(rnd, 0, 0.5, 1)},
		"unreachableStrategy": oneOf(rnd, map[string]int{"inactiveAfterSeconds": 0, "expungeAfterSeconds": 0}, map[string]int{"inactiveAfterSeconds": 30, "expungeAfterSeconds": 300}),
		"killSelection":       oneOf(rnd, "YOUNGEST_FIRST", "OLDEST_FIRST"),
	}
	if id == finite {
		def["instances"], def["backoffSeconds"] = 1+rnd.IntN(3), 1
		def["container"] = map[string]any{"type": "DOCKER", "docker": map[string]string{"image": oneOf(rnd, "job", "job", "missing")}}
	} else if rnd.IntN(2) == 0 {
		def["healthChecks"] = []any{u.healthCheck(rnd)}
	}
	if id == "/b" && rnd.IntN(3) == 0 {
		def["dependencies"] = []string{"/a"}
	}
	if rnd.IntN(3) == 0 {
		def["taskKillGracePeriodSeconds"] = oneOf(rnd, 1, 20)
	}
	return u.read(def)
}

func (u *users) healthCheck(rnd *rand.Rand) map[string]any {
	h := map[string]any{
		"protocol": oneOf(rnd, "TCP", "MESOS_HTTP", "COMMAND"), "gracePeriodSeconds": oneOf(rnd, 5, 60), "intervalSeconds": 20, "timeoutSeconds": 5,
		"maxConsecutiveFailures": oneOf(rnd, 0, 1, 3),
	}
	if h["protocol"] == "COMMAND" {
		h["command"] = map[string]string{"value": "true"}
	}
	return h
}

func (u *users) env(rnd *rand.Rand, id string) map[string]string {
	env := map[string]string{}
	if rnd.IntN(6) == 0 {
		env["MESOPOOL_SIM_DEAF"] = "1"
	}
	if id == finite {
		env["MESOPOOL_SIM_RUN"] = oneOf(rnd, "0s", "2s", "1m")
		env["MESOPOOL_SIM_EXIT"] = oneOf(rnd, "0", "0", "3")
	}
	return env
}

// ask sends a wish to Marathon, if it is there.
func (w *World) ask(in marathon.Input) {
	if w.marathon.up {
		w.marathon.put(in, nil)
	}
}

func (w *World) put(app *marathon.App, change marathon.Change) {
	if app == nil {
		return
	}
	change.DeploymentID, change.Put = w.table.id("d"), []*marathon.App{app}
	w.ask(change)
}

// someApp is one that there is.
func (w *World) someApp(rnd *rand.Rand) *marathon.App {
	if !w.marathon.up {
		return nil
	}
	all := w.marathon.core.Summaries(w.now, nil)
	if len(all) == 0 {
		return nil
	}
	return all[rnd.IntN(len(all))].App
}

func force(rnd *rand.Rand) bool { return rnd.IntN(2) == 0 }

func (w *World) create(rnd *rand.Rand) {
	id := oneOf(rnd, appIDs...)
	if rnd.IntN(8) == 0 {
		id = finite
	}
	w.put(w.users.definition(rnd, id), marathon.Change{Create: true})
}

func (w *World) scale(rnd *rand.Rand) {
	if app := w.someApp(rnd); app != nil {
		next := *app
		next.Instances = rnd.IntN(5)
		if next.Everywhere {
			next.Instances = min(1, next.Instances)
		}
		w.put(&next, marathon.Change{Force: force(rnd)})
	}
}

func (w *World) restart(rnd *rand.Rand) {
	if app := w.someApp(rnd); app != nil {
		w.put(app, marathon.Change{Restart: []string{app.ID}, Force: force(rnd)})
	}
}

func (w *World) config(rnd *rand.Rand) {
	if app := w.someApp(rnd); app != nil {
		w.put(w.users.definition(rnd, app.ID), marathon.Change{Force: force(rnd)})
	}
}

func (w *World) deleteApp(rnd *rand.Rand) {
	if app := w.someApp(rnd); app != nil {
		w.ask(marathon.Change{DeploymentID: w.table.id("d"), Delete: []string{app.ID}, Force: force(rnd)})
	}
}

func (w *World) killTasks(rnd *rand.Rand) {
	if !w.marathon.up {
		return
	}
	var ids []string
	for _, v := range w.marathon.core.Apps(w.now, nil) {
		for _, i := range v.Instances {
			ids = append(ids, i.TaskID)
		}
	}
	if len(ids) == 0 {
		return
	}
	rnd.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	ids = ids[:1+rnd.IntN(min(3, len(ids)))]
	w.ask(marathon.KillTasks{DeploymentID: w.table.id("d"), IDs: ids, Scale: rnd.IntN(4) == 0, Force: force(rnd), Wipe: rnd.IntN(8) == 0})
}

func (w *World) cancel(rnd *rand.Rand) {
	if !w.marathon.up {
		return
	}
	if all := w.marathon.core.Deployments(); len(all) > 0 {
		w.ask(marathon.CancelDeployment{ID: all[rnd.IntN(len(all))].ID, NewID: w.table.id("d"), Revert: rnd.IntN(3) > 0})
	}
}

// tearDown is the operator's: a framework that one master has removed, and the
// next knows again from an agent that was away, ends by hand only (as in Mesos).
func (u *users) tearDown() {
	if !u.w.master.up {
		return
	}
	snap := u.w.master.core.Snapshot()
	for i := range snap.Frameworks {
		if f := &snap.Frameworks[i]; f.Recovered && f.ID != u.w.marathon.framework {
			u.w.master.put(master.Teardown{Framework: f.ID})
		}
	}
	u.markGone()
}

// markGone is the operator's too: an agent that has died before it had its ID
// registers as a new one, and nobody is the first one any more.
func (u *users) markGone() {
	own := map[string]bool{}
	for _, a := range u.w.agents {
		if !a.up || !a.registered {
			return // its ID may be on the way
		}
		own[a.disk.id] = true
	}
	for _, id := range sortedKeys(u.w.master.disk) {
		if !own[id] {
			u.w.master.put(master.MarkAgentGone{Agent: id})
		}
	}
}

// leave deletes what would never come to rest, as often as it takes.
func (u *users) leave() {
	w := u.w
	if w.marathon.up {
		u.promoteAll()
		for _, id := range u.hopeless() {
			w.ask(marathon.Change{DeploymentID: w.table.id("d"), Delete: []string{id}, Force: true})
		}
	}
	u.tearDown()
	w.after(20*time.Second, func() {
		if !w.idle {
			u.leave()
		}
	})
}

// hopeless lists the apps that would never come to rest: those that end by
// themselves, and those that depend on what is not there.
func (u *users) hopeless() (out []string) {
	core := u.w.marathon.core
	for _, v := range core.Summaries(u.w.now, nil) {
		if v.App.ID == finite || u.dependsOnNothing(v.App) {
			out = append(out, v.App.ID)
		}
	}
	return out
}
