package marathon

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

func (w *world) wantTrail(app string, want ...string) {
	w.t.Helper()
	var got []string
	for _, e := range w.core.Trail(app, 100) {
		text := fmt.Sprintf("%d %s by %s", e.ID, e.Action, e.User)
		for _, x := range e.Apps {
			text += fmt.Sprintf(" %s %t→%t", x.ID, x.From != "", x.To != "")
		}
		if n := len(e.Killed); n > 0 {
			text += fmt.Sprintf(" killed %d", n)
		}
		got = append(got, text)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		w.t.Fatalf("the trail is\n%q, want\n%q", got, want)
	}
}

// left are the keys in the store without those of the trail.
func (w *world) left() []string {
	trail := func(k string) bool { return strings.HasPrefix(k, KeyTrail) }
	return slices.DeleteFunc(slices.Sorted(maps.Keys(w.saved)), trail)
}

// TestTrail: every change is noted with who made it, over restarts, and refused
// ones are not.
func TestTrail(t *testing.T) {
	w := newWorld(t)
	w.subscribe()
	by := func(user string) Origin { return Origin{User: user} }
	w.must(Change{DeploymentID: "d1", Put: []*App{define(t, "/a", `"instances":2`), define(t, "/b", "")}, Origin: by("ann")})
	w.run(time.Minute)
	w.must(KillTasks{IDs: w.live("/b"), Origin: by("bob")})
	if _, err := w.core.Apply(w.now, Change{DeploymentID: "no", Delete: []string{"/none"}, Origin: by("eve")}, nil); err == nil {
		t.Fatal("what does not exist was deleted")
	}
	w.crash()
	w.subscribe()
	w.run(time.Minute)
	w.hold = true
	w.must(Change{DeploymentID: "d2", Put: []*App{define(t, "/a", `"labels":{"v":"2"}`)}, Origin: by("ann")})
	w.must(CancelDeployment{ID: "d2", NewID: "d3", Revert: true, Origin: by("bob")})
	w.must(CancelDeployment{ID: "d3", Origin: by("ann")})
	w.must(Change{DeploymentID: "d4", Delete: []string{"/a"}, Origin: by("ann")})
	w.wantTrail("", "6 deploy by ann /a true→false", "5 cancel by ann", "4 revert by bob /a true→true", "3 deploy by ann /a true→true",
		"2 kill by bob killed 1", "1 deploy by ann /a false→true /b false→true")
	w.wantTrail("/b", "1 deploy by ann /a false→true /b false→true")
}

func TestTrailIsBounded(t *testing.T) {
	w := newWorld(t)
	w.core.cfg.KeepTrail = 2
	w.subscribe()
	for n := range 4 {
		w.must(Change{DeploymentID: fmt.Sprint(n), Put: []*App{define(t, "/a", fmt.Sprintf(`"instances":%d`, n))}, Force: true})
	}
	w.crash()
	w.wantTrail("", "4 deploy by  /a true→true", "3 deploy by  /a true→true")
}
