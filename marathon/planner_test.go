package marathon

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// What must be true of every change of an app, whatever its strategy and at
// whatever point somebody changes his mind.

// drawn is an app's definition by chance; v tells configurations apart.
func drawn(rt *rapid.T, id, v string) *App {
	more := fmt.Sprintf(`"instances":%d,"labels":{"v":%q},"upgradeStrategy":{"minimumHealthCapacity":%v,"maximumOverCapacity":%v}`,
		rapid.IntRange(1, 6).Draw(rt, "n"), v, rapid.SampledFrom([]float64{0, .5, .8, 1}).Draw(rt, "min"), rapid.SampledFrom([]float64{0, .3, 1}).Draw(rt, "over"))
	more += rapid.SampledFrom([]string{"", `,"healthChecks":[{"path":"/"}]`, `,"portDefinitions":[{"name":"w"}],"readinessChecks":[{"portName":"w"}]`}).Draw(rt, "checks")
	return define(rt, id, more)
}

// watched delivers one thing after another and looks at the bounds: what we end
// leaves enough that are healthy, and what we launch is not too much.
type watched struct {
	*world
	rt      *rapid.T
	id      string
	healthy int
	total   int
}

func (w *watched) counts() (healthy, total int) {
	a := w.core.apps[w.id]
	if a == nil {
		return 0, 0
	}
	return a.tally.healthy, a.tally.fresh + a.tally.old + a.tally.killing
}

func (w *watched) step() {
	if !w.deliverOne(w.rt) {
		at := w.next()
		if at.IsZero() {
			w.rt.Fatalf("nothing happens any more: %+v, %s", w.core.deployments, w.waiting(w.id))
		}
		w.now = at
	}
	w.look()
}

func (w *watched) look() {
	healthy, total := w.counts()
	if a := w.core.apps[w.id]; a != nil && !a.stopping {
		least, most := a.def.Upgrade.bounds(a.target(), total)
		if healthy < w.healthy && healthy < least {
			w.rt.Fatalf("%d were healthy, now %d are; at least %d must be", w.healthy, healthy, least)
		}
		if total > w.total && total > most {
			w.rt.Fatalf("there were %d, now there are %d; at most %d may be", w.total, total, most)
		}
	}
	w.healthy, w.total = healthy, total
}

// toTheEnd goes on until no deployment is left.
func (w *watched) toTheEnd() {
	for n := 0; len(w.core.deployments) > 0; n++ {
		if n > 3000 {
			w.rt.Fatalf("a deployment does not end: %+v (%s)", w.core.deployments[0], w.waiting(w.id))
		}
		w.step()
	}
}

func watch(rt *rapid.T, id string) *watched {
	w := &watched{world: newWorld(rt), rt: rt, id: id}
	w.subscribe()
	return w
}

// wantAll fails unless the app runs as defined, and nothing else of it.
func (w *watched) wantAll(def *App) {
	w.run(time.Minute)
	w.wantRunning(def.ID, def.Instances)
	for _, i := range w.core.apps[def.ID].instances {
		if i.def.Labels["v"] != def.Labels["v"] {
			w.rt.Fatalf("%s is of %v, wanted is %v", i.TaskID, i.def.Labels, def.Labels)
		}
	}
}

// amid begins with one configuration and stops somewhere on the way to another.
func amid(rt *rapid.T) (w *watched, first, second *App) {
	w, first, second = watch(rt, "/a"), drawn(rt, "/a", "1"), drawn(rt, "/a", "2")
	w.must(Change{DeploymentID: "first", Put: []*App{first}})
	w.toTheEnd()
	w.must(Change{DeploymentID: "second", Put: []*App{second}})
	w.look()
	for range rapid.IntRange(0, 40).Draw(rt, "steps") {
		if len(w.core.deployments) == 0 {
			break
		}
		w.step()
	}
	return w, first, second
}

// TestEveryChangeEndsWithinItsBounds also when the scheduler dies on the way.
func TestEveryChangeEndsWithinItsBounds(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w, _, second := amid(rt)
		if rapid.Bool().Draw(rt, "crash") {
			w.crash()
			w.subscribe()
			w.healthy, w.total = w.counts()
		}
		w.toTheEnd()
		w.wantAll(second)
	})
}

// TestASecondEditSupersedesTheFirst: at any point of a change another one may
// take over, with force only; the first one ends, and nothing of it stays.
func TestASecondEditSupersedesTheFirst(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w, _, second := amid(rt)
		under := len(w.core.deployments) > 0
		third := drawn(rt, "/a", rapid.SampledFrom([]string{"1", "2", "3"}).Draw(rt, "v"))
		if err := w.batch(Change{DeploymentID: "meek", Put: []*App{third}})[0]; (err != nil) != under {
			rt.Fatalf("under way %v: %v", under, err)
		} else if !under {
			w.look()
			w.toTheEnd()
			w.wantAll(third)
			return
		}
		if def, _ := w.core.Definition("/a"); def.Labels["v"] != second.Labels["v"] {
			rt.Fatal("what was refused has changed something")
		}
		w.must(Change{DeploymentID: "third", Put: []*App{third}, Force: true})
		if d := w.core.Deployments(); len(d) > 1 || len(d) == 1 && d[0].ID != "third" {
			rt.Fatalf("under way: %+v", d)
		}
		w.wantEvent("deployment_failed", true)
		w.look()
		w.toTheEnd()
		w.wantAll(third)
	})
}

// TestCancelAlwaysWorks: at any point a change can be stopped as it stands, or
// taken back; what still runs of the configuration before is not restarted then.
func TestCancelAlwaysWorks(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w, first, second := amid(rt)
		if len(w.core.deployments) == 0 {
			return
		}
		revert := rapid.Bool().Draw(rt, "revert")
		var kept []string
		for _, i := range w.core.apps["/a"].sorted() {
			if i.def.Labels["v"] == "1" && !i.Killing {
				kept = append(kept, i.TaskID)
			}
		}
		w.must(CancelDeployment{ID: "second", NewID: "back", Revert: revert})
		if d := w.core.Deployments(); len(d) > 0 && (!revert || d[0].ID != "back") {
			rt.Fatalf("under way: %+v", d)
		}
		if !revert {
			w.wantAll(second) // what is wanted stays, and is come to without a deployment
			return
		}
		w.look()
		w.toTheEnd()
		w.wantAll(first)
		for _, id := range kept[:min(len(kept), first.Instances)] {
			if len(kept) <= first.Instances && !slices.Contains(w.live("/a"), id) {
				rt.Fatalf("%s did not stay", id)
			}
		}
	})
}

// TestDependenciesAreKept: nothing of a group is changed before what it depends
// on has been.
func TestDependenciesAreKept(t *testing.T) {
	ids := []string{"/g/a", "/g/b", "/g/c", "/g/d"}
	rapid.Check(t, func(rt *rapid.T) {
		w := watch(rt, ids[0])
		defs := func(v string, all bool) (out []*App) {
			there := map[string]bool{}
			for n, id := range ids {
				def := drawn(rt, id, v)
				for _, on := range ids[:n] {
					if (all || there[on]) && rapid.IntRange(0, 2).Draw(rt, "depends") == 0 {
						def.Dependencies = append(def.Dependencies, on)
					}
				}
				if there[id] = all || rapid.IntRange(0, 3).Draw(rt, "new") > 0; there[id] {
					out = append(out, def)
				}
			}
			return out
		}
		before := defs("1", false)
		if len(before) > 0 {
			w.must(Change{DeploymentID: "first", Put: before})
			w.toTheEnd()
		}
		after := defs("2", true)
		w.must(Change{DeploymentID: "second", Put: after})
		begun := map[string]bool{}
		for n := 0; len(w.core.deployments) > 0; n++ {
			if n > 6000 {
				rt.Fatalf("it does not end: %+v", w.core.deployments[0])
			}
			w.step()
			for _, def := range after {
				if begun[def.ID] || !w.changedAnything(def.ID) {
					continue
				}
				begun[def.ID] = true
				for _, on := range def.Dependencies {
					if !w.core.apps[on].settled() {
						rt.Fatalf("%s is changed, and %s, on which it depends, is not done", def.ID, on)
					}
				}
			}
		}
		for _, def := range after {
			w.wantAll(def)
		}
	})
}

// changedAnything says whether an instance of the new configuration was launched
// or one of the old ended.
func (w *watched) changedAnything(id string) bool {
	for _, i := range w.core.apps[id].instances {
		if i.def.Labels["v"] == "2" || i.Killing {
			return true
		}
	}
	return false
}
