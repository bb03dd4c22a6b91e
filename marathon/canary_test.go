package marathon

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// generations counts the running instances of the current and of older
// configurations.
func (w *world) generations(app string) (fresh, old int) {
	t := w.core.apps[app].tally
	return t.fresh, t.old
}

func TestCanary(t *testing.T) {
	canary := func(n, more string) string { return `"instances":4,"canary":{"instances":` + n + `}` + more }
	w := started(t, define(t, "/a", canary("1", "")))
	w.run(time.Minute)
	w.wantRunning("/a", 4) // a new app does not wait
	if err := w.batch(Promote{App: "/a"})[0]; !errors.Is(err, ErrNotHeld) {
		t.Errorf("promoted: %v", err)
	}
	for _, x := range []struct {
		label, n   string
		fresh, old int
	}{{"one", "1", 1, 4}, {"blue/green", "4", 4, 4}} {
		w.mustPut(define(t, "/a", canary(x.n, `,"labels":{"v":"`+x.label+`"}`)))
		w.run(time.Hour)
		w.crash()
		w.subscribe()
		w.run(time.Minute)
		if fresh, old := w.generations("/a"); fresh != x.fresh || old != x.old {
			t.Errorf("%s: %d of the new, %d old", x.label, fresh, old)
		}
		if v, _ := w.core.App(w.now, "/a"); !strings.Contains(v.Waiting, "/v2/apps/a/promote") || len(w.core.deployments) != 1 {
			t.Errorf("%s: waiting %q", x.label, v.Waiting)
		}
		w.must(Promote{App: "/a"})
		w.run(time.Minute)
		w.wantRunning("/a", 4)
		if fresh, old := w.generations("/a"); fresh != 4 || old != 0 {
			t.Errorf("%s, promoted: %d of the new, %d old", x.label, fresh, old)
		}
	}
}

// What is canceled, or not promoted in time, goes back and ends no old instance.
func TestCanaryGoesBack(t *testing.T) {
	const limits = `,"deployment":{"deadlineSeconds":600,"autoRevert":true}`
	w := started(t, define(t, "/a", `"instances":2,"canary":{"instances":1}`))
	w.run(time.Minute)
	before := strings.Join(w.live("/a"), " ")
	w.must(Change{DeploymentID: "d", Put: []*App{define(t, "/a", `"instances":2,"canary":{"instances":1},"labels":{"v":"2"}`)}})
	w.run(time.Minute)
	w.must(CancelDeployment{ID: "d", NewID: "back", Revert: true})
	w.run(time.Minute)
	w.wantRunning("/a", 2)
	w.mustPut(define(t, "/a", `"instances":2,"canary":{"instances":1},"labels":{"v":"3"}`+limits))
	w.run(5 * time.Minute)
	if n := len(w.live("/a")); n != 3 {
		t.Errorf("%d run while a canary does", n)
	}
	w.run(20 * time.Minute)
	w.wantRunning("/a", 2)
	if after := strings.Join(w.live("/a"), " "); after != before {
		t.Errorf("%s run, before it were %s", after, before)
	}
}

// Old instances that are lost are replaced by new ones, which stay when the
// scheduler starts again.
func TestCanaryForTheLost(t *testing.T) {
	const def = `"instances":3,"canary":{"instances":1},"unreachableStrategy":{"inactiveAfterSeconds":60,"expungeAfterSeconds":6000}`
	w := started(t, define(t, "/a", def))
	w.agents["a2"] = &fakeAgent{up: true, cpus: 9000}
	w.up("a1", false)
	w.mustPut(define(t, "/a", def+`,"labels":{"v":"2"}`))
	w.run(2 * time.Minute)
	before := w.live("/a")
	if fresh, old := w.generations("/a"); fresh != 3 || old != 0 {
		t.Fatalf("%d of the new, %d old", fresh, old)
	}
	w.crash()
	w.subscribe()
	w.run(time.Minute)
	if got := w.live("/a"); !slices.Equal(got, before) {
		t.Errorf("%v live after a restart, and %v did before", got, before)
	}
}

// An old instance that dies while a canary is out is replaced by one of the new
// configuration: the old one cannot be launched any more.
func TestCanaryKeepsTheNumber(t *testing.T) {
	w := started(t, define(t, "/a", `"instances":3,"canary":{"instances":1}`))
	w.run(time.Minute)
	first := w.live("/a")
	w.mustPut(define(t, "/a", `"instances":3,"canary":{"instances":1},"labels":{"v":"2"}`))
	w.run(time.Minute)
	w.must(KillTasks{IDs: first[:2]})
	w.run(time.Minute)
	if fresh, old := w.generations("/a"); fresh != 2 || old != 1 {
		t.Errorf("%d of the new, %d old", fresh, old)
	}
}
