package marathon

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/mesopool/mesopool/task"
)

func started(t *testing.T, defs ...*App) *world {
	t.Helper()
	w := newWorld(t)
	w.subscribe()
	if len(defs) > 0 {
		w.mustPut(defs...)
		w.run(20 * time.Second)
	}
	return w
}

func (w *world) eventTypes() []string {
	var out []string
	for _, e := range w.events {
		out = append(out, e.Type)
	}
	return out
}

func (w *world) wantEvent(kind string, want bool) {
	w.t.Helper()
	if slices.Contains(w.eventTypes(), kind) != want {
		w.t.Errorf("event %s: %v, want %v", kind, !want, want)
	}
}

func (w *world) waiting(app string) string {
	v, _ := w.core.App(w.now, app)
	return v.Waiting
}

func (w *world) delete(ids ...string) error {
	return w.batch(Change{DeploymentID: "d" + w.id(), Delete: ids, Force: true})[0]
}

func (w *world) restart(id string) {
	w.t.Helper()
	def, _ := w.core.Definition(id)
	w.must(Change{DeploymentID: "d" + w.id(), Put: []*App{def}, Restart: []string{id}})
}

func TestCreateScaleDelete(t *testing.T) {
	w := started(t, define(t, "/a", ""))
	w.wantRunning("/a", 1)
	first, _ := w.core.Definition("/a")
	for _, n := range []int{5, 2} {
		w.mustPut(define(t, "/a", fmt.Sprintf(`"instances":%d`, n)))
		w.run(20 * time.Second)
		w.wantRunning("/a", n)
	}
	now, _ := w.core.Definition("/a")
	if now.ConfigVersion() != first.ConfigVersion() || now.Version == first.Version || now.VersionInfo.LastScalingAt != now.Version {
		t.Errorf("scaling made %+v of %+v", now.VersionInfo, first.VersionInfo)
	}
	if len(w.launched) != 5 {
		t.Errorf("%d launches, want 5: scaling restarts nothing", len(w.launched))
	}
	if err := w.delete("/a"); err != nil {
		t.Fatal(err)
	}
	if _, ok := w.core.Definition("/a"); ok {
		t.Error("a deleted app is still shown")
	}
	w.run(20 * time.Second)
	w.wantRunning("/a", 0)
	if left := w.left(); len(left) != 1 || left[0] != KeyFramework {
		t.Errorf("left in the store: %v", left)
	}
	w.wantEvent("app_terminated_event", true)
}

func TestRefusals(t *testing.T) {
	w := started(t, define(t, "/a", ""), define(t, "/g/b", `"dependencies":["/a"]`))
	lockDef := define(t, "/lock", "")
	w.hold = true
	w.mustPut(lockDef)
	bad := func(err error) bool { return errors.As(err, new(*BadDefinition)) }
	locked := func(err error) bool { return errors.As(err, new(*Locked)) }
	is := func(want error) func(error) bool { return func(err error) bool { return errors.Is(err, want) } }
	for name, c := range map[string]struct {
		in   Input
		want func(error) bool
	}{
		"exists":          {Change{Put: []*App{define(t, "/a", "")}, Create: true}, is(ErrExists)},
		"group as app":    {Change{Put: []*App{define(t, "/g", "")}}, bad},
		"app as group":    {Change{Put: []*App{define(t, "/a/b", "")}}, bad},
		"both at once":    {Change{Put: []*App{define(t, "/n", ""), define(t, "/n/m", "")}}, bad},
		"twice":           {Change{Put: []*App{define(t, "/n", ""), define(t, "/n", "")}}, bad},
		"put and delete":  {Change{Put: []*App{define(t, "/a", "")}, Delete: []string{"/a"}, Force: true}, bad},
		"circle":          {Change{Put: []*App{define(t, "/a", `"dependencies":["/g/b"]`)}}, bad},
		"circle by group": {Change{Put: []*App{define(t, "/a", `"dependencies":["/g"]`)}}, bad},
		"new circle":      {Change{Put: []*App{define(t, "/x", `"dependencies":["/y"]`), define(t, "/y", `"dependencies":["/x"]`)}}, bad},
		"delete nothing":  {Change{Delete: []string{"/nothing"}}, is(ErrNotFound)},
		"locked":          {Change{Put: []*App{define(t, "/lock", `"instances":2`)}}, locked},
		"locked delete":   {Change{Delete: []string{"/lock"}}, locked},
		"no task":         {KillTasks{IDs: []string{"x"}}, is(ErrNotFound)},
		"no deployment":   {CancelDeployment{ID: "x", Revert: true}, is(ErrNotFound)},
		"no delay":        {ResetDelay{App: "/a"}, is(ErrNotFound)},
	} {
		before := fmt.Sprint(w.saved)
		if err := w.batch(c.in)[0]; !c.want(err) {
			t.Errorf("%s: %v", name, err)
		}
		if after := fmt.Sprint(w.saved); after != before {
			t.Errorf("%s changed the store:\n%s\n%s", name, before, after)
		}
	}
	if err := w.batch(Change{DeploymentID: "f", Put: []*App{define(t, "/lock", `"instances":2`)}, Force: true})[0]; err != nil {
		t.Errorf("force: %v", err)
	}
	w.wantEvent("deployment_failed", true)
	w.hold = false
	w.run(time.Minute)
	w.wantRunning("/lock", 2)
}

func TestBounds(t *testing.T) {
	for _, c := range []struct {
		n                int
		min, over        float64
		count            int
		minHealthy, most int
	}{
		{10, 1, 1, 10, 10, 20},
		{10, .5, .2, 10, 5, 12},
		{10, .9, 0, 10, 9, 10},
		{10, 1, 0, 10, 10, 11},
		{10, 1, 0, 9, 10, 10},
		{1, 1, 0, 1, 1, 2},
		{1, 0, 0, 1, 0, 1},
		{1, .5, .5, 1, 1, 2},
		{1, 1, 1, 1, 1, 2},
		{3, .5, .5, 3, 2, 4},
		{3, 0, 0, 3, 0, 3},
		{5, .9, .2, 5, 5, 6},
		{0, 1, 1, 0, 0, 1},
		{7, .33, .33, 7, 3, 9},
	} {
		minHealthy, most := UpgradeStrategy{c.min, c.over}.bounds(c.n, c.count)
		if minHealthy != c.minHealthy || most != c.most {
			t.Errorf("%+v: %d, %d", c, minHealthy, most)
		}
	}
}

// TestRollingKeepsBounds restarts healthy apps of all shapes, with a batch for
// every single thing that happens.
func TestRollingKeepsBounds(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 10).Draw(rt, "n")
		u := UpgradeStrategy{rapid.SampledFrom([]float64{0, .5, .9, 1}).Draw(rt, "min"), rapid.SampledFrom([]float64{0, .2, .5, 1}).Draw(rt, "over")}
		w := newWorld(rt)
		w.subscribe()
		more := fmt.Sprintf(`"instances":%d,"upgradeStrategy":{"minimumHealthCapacity":%v,"maximumOverCapacity":%v}`, n, u.MinimumHealthCapacity, u.MaximumOverCapacity)
		if rapid.Bool().Draw(rt, "checks") {
			more += `,"healthChecks":[{"path":"/"}]`
		}
		w.mustPut(define(rt, "/a", more))
		w.run(time.Minute)
		w.wantRunning("/a", n)
		after := define(rt, "/a", more+`,"labels":{"new":"one"}`)
		if rapid.Bool().Draw(rt, "adds a check") {
			after = define(rt, "/a", more+`,"labels":{"new":"one"},"healthChecks":[{"path":"/new"}]`)
		}
		w.mustPut(after)
		minHealthy, most := u.bounds(n, n)
		for i := 0; i < 2000 && len(w.core.deployments) > 0; i++ {
			if !w.deliverOne(rt) {
				w.now = w.next()
			}
			v, _ := w.core.App(w.now, "/a")
			healthy := w.core.apps["/a"].tally.healthy
			if healthy < minHealthy || len(v.Instances) > most {
				rt.Fatalf("%d healthy, %d in all; at least %d, at most %d are allowed", healthy, len(v.Instances), minHealthy, most)
			}
		}
		w.wantRunning("/a", n)
		for _, i := range w.core.instances {
			if i.Version != w.core.apps["/a"].def.ConfigVersion() {
				rt.Fatal("an old instance is left")
			}
		}
	})
}

// deliverOne delivers one thing that waits.
func (w *world) deliverOne(rt *rapid.T) bool {
	w.progress()
	if at := w.core.Next(); !at.IsZero() && !at.After(w.now) {
		w.must(Tick{})
		return true
	}
	if len(w.inbox) == 0 {
		return false
	}
	n := 1
	if rt != nil {
		n = rapid.IntRange(1, len(w.inbox)).Draw(rt, "batch")
	}
	in := w.inbox[:n]
	w.inbox = w.inbox[n:]
	w.must(in...)
	return true
}

func TestKilledInstanceIsReplaced(t *testing.T) {
	w := started(t, define(t, "/a", `"instances":2,"upgradeStrategy":{"minimumHealthCapacity":0,"maximumOverCapacity":0}`))
	victim := w.live("/a")[0]
	w.hold = true
	w.must(KillTasks{IDs: []string{victim, victim}})
	w.run(5 * time.Second)
	if got := len(w.launched); got != 2 {
		t.Errorf("%d launches while the killed one is still there, want 2", got)
	}
	w.hold = false
	w.run(time.Minute)
	w.wantRunning("/a", 2)
	if slices.Contains(w.live("/a"), victim) {
		t.Error("the killed one lives")
	}
	if v, _ := w.core.App(w.now, "/a"); v.LastFailure != nil || v.Delay != 0 {
		t.Errorf("a kill counts as a failure: %+v", v.LastFailure)
	}
	w.must(KillTasks{DeploymentID: "s", IDs: []string{w.live("/a")[0]}, Scale: true})
	w.run(time.Minute)
	w.wantRunning("/a", 1)
}

func TestKillIsRepeated(t *testing.T) {
	w := started(t, define(t, "/a", ""))
	victim := w.live("/a")[0]
	w.lose["Kill"] = 2
	w.must(KillTasks{IDs: []string{victim}})
	w.run(50 * time.Second)
	if !slices.Contains(w.live("/a"), victim) {
		t.Error("killed by a lost call")
	}
	w.run(time.Minute)
	w.wantRunning("/a", 1)
	if w.calls["Kill"] != 3 {
		t.Errorf("%d kills, want 3", w.calls["Kill"])
	}
}

func TestBackoff(t *testing.T) {
	w := started(t)
	broken := true
	w.fail = func(string) bool { return broken }
	w.mustPut(define(t, "/a", `"backoffSeconds":2,"backoffFactor":2,"maxLaunchDelaySeconds":10`))
	var gaps []int
	last, launches := w.now, 0
	for len(gaps) < 5 {
		if !w.deliver() {
			w.now = w.next()
		}
		if len(w.launched) > launches {
			gaps = append(gaps, int(w.now.Sub(last).Seconds()))
			last, launches = w.now, len(w.launched)
		}
	}
	if diff := cmp.Diff([]int{0, 2, 4, 8, 10}, gaps); diff != "" {
		t.Errorf("the launches' gaps: %s", diff)
	}
	w.run(time.Second)
	if got := w.waiting("/a"); !strings.Contains(got, "failed; the next launch is in") {
		t.Errorf("reason %q", got)
	}
	v, _ := w.core.App(w.now, "/a")
	if v.LastFailure == nil || v.LastFailure.State != "TASK_FAILED" || v.Delay <= 0 {
		t.Errorf("failure %+v, delay %v", v.LastFailure, v.Delay)
	}
	broken = false
	w.must(ResetDelay{App: "/a"})
	w.run(time.Second)
	w.wantRunning("/a", 1)
	w.run(11 * time.Second)
	w.report(w.live("/a")[0], task.Failed) // after it has run for longer than the longest delay
	w.deliver()
	if got := w.core.apps["/a"].delay; got != 2*time.Second {
		t.Errorf("delay %v after a long run, want 2s", got)
	}
}

func TestBackoffIsForgotten(t *testing.T) {
	w := started(t)
	w.fail = func(string) bool { return len(w.launched) < 4 }
	w.mustPut(define(t, "/a", `"maxLaunchDelaySeconds":60,"backoffFactor":3`))
	w.run(time.Hour)
	w.mustPut(define(t, "/a", `"maxLaunchDelaySeconds":60,"backoffFactor":3,"instances":2`))
	w.run(time.Second)
	for _, i := range w.core.instances {
		if w.now.Sub(i.Started) < 2*time.Second {
			w.report(i.TaskID, task.Failed)
			break
		}
	}
	w.deliver()
	if got := w.core.apps["/a"].delay; got != time.Second {
		t.Errorf("delay %v an hour after the last failure, want 1s", got)
	}
}

func TestDependencies(t *testing.T) {
	w := started(t)
	w.health = nil
	w.mustPut(define(t, "/g/db", `"healthChecks":[{"path":"/"}]`), define(t, "/web", `"dependencies":["/g"]`), define(t, "/late", `"dependencies":["/none"]`))
	w.run(time.Minute)
	if got := w.live("/web"); len(got) != 0 {
		t.Errorf("%v runs before what it depends on is healthy", got)
	}
	if got := w.waiting("/web"); got != "waits for an earlier step of its deployment" {
		t.Errorf("reason %q", got)
	}
	w.must(CancelDeployment{ID: w.core.deployments[0].ID}) // leaves the rule of dependencies alone
	if got := w.waiting("/web"); got != "waits for /g/db, on which it depends" {
		t.Errorf("reason %q", got)
	}
	if got := w.waiting("/late"); got != "waits for /none, on which it depends" {
		t.Errorf("reason %q", got)
	}
	w.health = func(string) bool { return true }
	w.run(time.Minute)
	w.wantRunning("/web", 1)
}

func TestStepsOfADeployment(t *testing.T) {
	w := started(t, define(t, "/old", ""))
	w.must(Change{DeploymentID: "d", Put: []*App{define(t, "/web", `"dependencies":["/db"]`), define(t, "/db", "")}, Delete: []string{"/old"}})
	want := [][]Action{
		{{ActionStop, "/old", false}}, {{ActionStart, "/web", false}, {ActionStart, "/db", false}}, {{ActionScale, "/db", false}}, {{ActionScale, "/web", false}},
	}
	if diff := cmp.Diff(want, w.core.deployments[0].Steps); diff != "" {
		t.Error(diff)
	}
	if got := w.core.VersionOf("d"); got == "" || got != w.core.apps["/db"].def.Version {
		t.Errorf("version %q", got)
	}
	w.run(time.Minute)
	w.wantRunning("/web", 1)
	w.wantRunning("/old", 0)
	if w.core.VersionOf("d") == "" {
		t.Error("the version of an ended deployment is forgotten")
	}
}

func TestCancel(t *testing.T) {
	w := started(t, define(t, "/a", `"instances":2`), define(t, "/other", ""))
	w.hold = true
	w.must(Change{DeploymentID: "d", Put: []*App{define(t, "/a", `"instances":4,"labels":{"x":"y"}`), define(t, "/new", "")}})
	w.must(Change{DeploymentID: "e", Put: []*App{define(t, "/other", `"instances":3`)}})
	w.must(CancelDeployment{ID: "d", NewID: "back", Revert: true})
	w.hold = false
	w.run(time.Minute)
	w.wantRunning("/a", 2)
	w.wantRunning("/other", 3)
	w.wantRunning("/new", 0)
	if def, _ := w.core.Definition("/a"); len(def.Labels) != 0 {
		t.Errorf("the labels are %v", def.Labels)
	}
}

func TestCancelStop(t *testing.T) {
	for _, revert := range []bool{false, true} {
		w := started(t, define(t, "/a", ""))
		w.hold = true
		w.must(Change{DeploymentID: "d", Delete: []string{"/a"}})
		w.must(CancelDeployment{ID: "d", NewID: "back", Revert: revert})
		w.hold = false
		w.run(time.Minute)
		if revert {
			w.wantRunning("/a", 1)
			continue
		}
		w.wantRunning("/a", 0)
		if len(w.core.apps) != 0 {
			t.Error("an app whose stop was cancelled stays half stopped for ever")
		}
	}
}

func TestUnmetResources(t *testing.T) {
	w := started(t)
	w.agents["a1"].cpus = 2500
	w.mustPut(define(t, "/a", `"cpus":4`))
	w.run(time.Second)
	if got := w.waiting("/a"); got != "needs 4 cpus; the largest offer had 2.5" {
		t.Errorf("reason %q", got)
	}
	v, _ := w.core.App(w.now, "/a")
	if v.Need != 1 || v.Refused.Processed == 0 || v.Refused.Lacking["cpus"] == 0 {
		t.Errorf("%+v", v)
	}
	w.agents["a1"].cpus = 10000
	w.run(10 * time.Second)
	w.wantRunning("/a", 1)
}

// TestWaitingSaysWhy: the sentence is about what the app may use.
func TestWaitingSaysWhy(t *testing.T) {
	w := started(t)
	for more, want := range map[string]string{
		`"acceptedResourceRoles":["public"]`:      "needs 1 cpus reserved to public; the largest offer had 0",
		`"role":"public"`:                         "waits for offers to the role public; this scheduler has the role *",
		`"constraints":[["rack","GROUP_BY","2"]]`: "no offer has a rack",
		`"constraints":[["rack","LIKE","a.*"]]`:   "no offer has rack like a.*",
	} {
		w.mustPut(define(t, "/a", more))
		w.run(time.Minute)
		if got := w.waiting("/a"); got != want {
			t.Errorf("%s: %q, want %q", more, got, want)
		}
		w.delete("/a")
		w.run(time.Minute)
	}
}

func TestSuppressAndRevive(t *testing.T) {
	w := started(t)
	w.run(time.Second)
	if !w.suppressed {
		t.Error("offers come though nothing is needed")
	}
	w.agents["a1"].cpus = 2500
	w.mustPut(define(t, "/big", `"cpus":4`))
	w.run(3 * time.Second) // the offer is declined for 5 s
	w.mustPut(define(t, "/small", ""))
	w.run(time.Second)
	w.wantLive("/small", 1)
	if w.calls["Revive"] != 2 {
		t.Errorf("%d revives, want 2", w.calls["Revive"])
	}
	if err := w.delete("/big"); err != nil {
		t.Fatal(err)
	}
	w.run(time.Second)
	if !w.suppressed {
		t.Error("offers come though nothing is needed any more")
	}
	w.lose["Revive"] = 1
	w.mustPut(define(t, "/c", ""))
	w.run(time.Minute)
	w.wantRunning("/c", 1)
}

func (w *world) wantLive(app string, n int) {
	w.t.Helper()
	if got := w.live(app); len(got) != n {
		w.t.Errorf("%s: live %v, want %d", app, got, n)
	}
}

func TestStrangerIsKilled(t *testing.T) {
	w := started(t)
	w.tasks["old.instance-1._app.1"] = &fakeTask{app: "/old", agent: "a1", state: task.Running, alive: true}
	w.run(11 * time.Minute) // the next question about all tasks
	w.wantLive("/old", 0)
}

func TestLostAccept(t *testing.T) {
	w := started(t)
	w.lose["Accept"] = 1
	w.mustPut(define(t, "/a", ""))
	w.run(29 * time.Second)
	w.wantLive("/a", 0)
	w.run(time.Minute)
	w.wantRunning("/a", 1)
}

func TestCrashAndDisconnect(t *testing.T) {
	w := started(t, define(t, "/a", `"instances":3`))
	ids := w.live("/a")
	w.mustPut(define(t, "/a", `"instances":6`))
	w.deliver()
	w.crash()
	w.run(time.Minute)
	w.subscribe()
	w.run(time.Minute)
	w.wantRunning("/a", 6)
	for _, id := range ids {
		if !slices.Contains(w.live("/a"), id) {
			t.Errorf("%s did not survive", id)
		}
	}
	w.disconnect()
	if got := w.waiting("/a"); got != "" {
		t.Errorf("reason %q", got)
	}
	w.mustPut(define(t, "/b", ""))
	if got := w.waiting("/b"); got != "there is no connection to a master" {
		t.Errorf("reason %q", got)
	}
	w.run(time.Hour)
	w.subscribe()
	w.run(time.Minute)
	w.wantRunning("/b", 1)
	w.wantRunning("/a", 6)
}

func TestUnreachable(t *testing.T) {
	for _, c := range []struct {
		name, strategy string
		after          time.Duration
		launched       int
	}{
		{"default: at once", `{"inactiveAfterSeconds":0,"expungeAfterSeconds":0}`, time.Second, 2},
		{"not yet", `{"inactiveAfterSeconds":60,"expungeAfterSeconds":600}`, 50 * time.Second, 1},
		{"replaced", `{"inactiveAfterSeconds":60,"expungeAfterSeconds":600}`, 70 * time.Second, 2},
		{"given up", `{"inactiveAfterSeconds":60,"expungeAfterSeconds":600}`, 700 * time.Second, 2},
		{"never", `"disabled"`, time.Hour, 1},
	} {
		for _, crash := range []bool{false, true} {
			w := started(t, define(t, "/a", `"unreachableStrategy":`+c.strategy))
			w.agents["a2"] = &fakeAgent{up: true, cpus: 5000}
			w.up("a1", false)
			w.deliver()
			if crash {
				w.crash()
				w.subscribe()
			}
			w.run(c.after)
			if len(w.launched) != c.launched {
				t.Errorf("%s (crash %v): %d launches, want %d", c.name, crash, len(w.launched), c.launched)
			}
			w.up("a1", true)
			w.run(11 * time.Minute)
			w.wantRunning("/a", 1)
		}
	}
}

func TestDeleteOnUnreachableAgent(t *testing.T) {
	w := started(t, define(t, "/a", `"unreachableStrategy":"disabled"`), define(t, "/b", `"unreachableStrategy":{"inactiveAfterSeconds":60,"expungeAfterSeconds":60000}`))
	w.up("a1", false)
	w.run(2 * time.Minute)
	if err := w.delete("/a", "/b"); err != nil {
		t.Fatal(err)
	}
	w.run(time.Second)
	if len(w.core.apps) != 0 || len(w.core.deployments) != 0 {
		t.Errorf("%d apps and %d deployments are left", len(w.core.apps), len(w.core.deployments))
	}
	w.up("a1", true)
	w.run(time.Minute)
	w.wantLive("", 0)
}

func TestHealthKill(t *testing.T) {
	for _, c := range []struct {
		name, check string
		killed      int // seconds after the start, about; 0: never
	}{
		{"after max+1", `{"gracePeriodSeconds":0,"intervalSeconds":10,"maxConsecutiveFailures":2}`, 21},
		{"after the grace period", `{"gracePeriodSeconds":60,"intervalSeconds":10,"maxConsecutiveFailures":0}`, 0},
		{"grace, then failures", `{"gracePeriodSeconds":60,"intervalSeconds":10,"maxConsecutiveFailures":1}`, 71},
		{"long interval", `{"gracePeriodSeconds":0,"intervalSeconds":60,"maxConsecutiveFailures":3}`, 181},
	} {
		w := started(t)
		w.health = func(string) bool { return false }
		w.mustPut(define(t, "/a", `"healthChecks":[`+c.check+`]`))
		start := w.now
		for w.calls["Kill"] == 0 && w.now.Sub(start) < 10*time.Minute {
			w.run(time.Second)
		}
		got := int(w.now.Sub(start).Seconds())
		if c.killed == 0 && w.calls["Kill"] > 0 || c.killed > 0 && (got < c.killed-2 || got > c.killed+3) {
			t.Errorf("%s: %d kills, the first after %d s, want %d", c.name, w.calls["Kill"], got, c.killed)
		}
		v, _ := w.core.App(w.now, "/a")
		if c.killed > 0 && (v.LastFailure == nil || !strings.Contains(v.LastFailure.Message, "health check")) {
			t.Errorf("%s: last failure %+v", c.name, v.LastFailure)
		}
		w.wantEvent("unhealthy_instance_kill_event", c.killed > 0)
	}
}

func TestUnknownIsNotHealthy(t *testing.T) {
	for name, check := range map[string]string{"ours": `{"path":"/"}`, "the agent's": `{"protocol":"COMMAND","command":{"value":"true"}}`} {
		w := started(t)
		w.health = nil
		w.mustPut(define(t, "/a", `"healthChecks":[`+check+`]`))
		w.run(time.Minute)
		v, _ := w.core.App(w.now, "/a")
		if len(w.core.deployments) != 1 || v.Healthy != 0 || v.Unhealthy != 0 || v.Running != 1 {
			t.Errorf("%s: %d deployments, healthy %d, unhealthy %d, running %d", name, len(w.core.deployments), v.Healthy, v.Unhealthy, v.Running)
		}
		i := v.Instances[0]
		w.must(Checked{TaskID: i.TaskID, Alive: true}, Updated{TaskID: i.TaskID, Agent: "a1", Status: task.Status{State: task.Running, Healthy: new(true)}})
		if v, _ = w.core.App(w.now, "/a"); v.Healthy != 1 || len(w.core.deployments) != 0 {
			t.Errorf("%s: not healthy after a result", name)
		}
		w.wantEvent("health_status_changed_event", true)
	}
}

// TestUnknownHealthKillsNothing: after a restart of the scheduler in the middle
// of a rolling restart nothing is known of anybody's health.
func TestUnknownHealthKillsNothing(t *testing.T) {
	w := started(t, define(t, "/a", `"instances":5,"healthChecks":[{"path":"/"}]`))
	w.restart("/a")
	w.health = nil
	w.crash()
	kills := w.calls["Kill"]
	w.subscribe()
	w.run(time.Minute)
	first := w.core.sortedInstances()[0]
	w.must(Checked{TaskID: first.TaskID, Alive: true})
	w.run(time.Minute)
	if got := w.calls["Kill"] - kills; got > 0 {
		t.Errorf("%d were killed of whose health nothing was known", got)
	}
	w.health = func(string) bool { return true }
	w.run(5 * time.Minute)
	w.wantRunning("/a", 5)
}

// TestAllOldUnhealthy: a new version gets its chance one by one.
func TestAllOldUnhealthy(t *testing.T) {
	good := false
	w := newWorld(t)
	w.subscribe()
	w.health = func(string) bool { return good }
	w.mustPut(define(t, "/a", `"instances":4,"upgradeStrategy":{"minimumHealthCapacity":1,"maximumOverCapacity":0},"healthChecks":[{"gracePeriodSeconds":5,"maxConsecutiveFailures":0}]`))
	w.run(3 * time.Minute)
	w.must(Change{DeploymentID: "x", Put: []*App{define(t, "/a", `"instances":4,"upgradeStrategy":{"minimumHealthCapacity":1,"maximumOverCapacity":0},"healthChecks":[{"gracePeriodSeconds":5,"maxConsecutiveFailures":0,"path":"/2"}]`)}, Force: true})
	if w.calls["Kill"] > 1 {
		t.Errorf("%d killed at once", w.calls["Kill"])
	}
	good = true
	w.run(10 * time.Minute)
	w.wantRunning("/a", 4)
}

// TestShrinkingAmidAChange: what goes because there are too many serves nobody
// any more, so nothing else goes for it.
func TestShrinkingAmidAChange(t *testing.T) {
	const more = `"upgradeStrategy":{"minimumHealthCapacity":1,"maximumOverCapacity":1},"healthChecks":[{"maxConsecutiveFailures":0}]`
	w := started(t, define(t, "/a", `"instances":2,`+more))
	old := w.live("/a")
	w.health = func(id string) bool { return slices.Contains(old, id) }
	w.mustPut(define(t, "/a", `"instances":2,"labels":{"v":"2"},`+more))
	w.run(10 * time.Second)
	fresh := slices.DeleteFunc(w.live("/a"), func(id string) bool { return slices.Contains(old, id) })
	w.must(Checked{TaskID: w.core.apps["/a"].victim(fresh), Alive: true}) // who goes first when it shrinks
	w.hold = true
	w.must(Change{DeploymentID: "shrink", Force: true, Put: []*App{define(t, "/a", `"instances":1,"labels":{"v":"2"},`+more)}})
	if n := w.core.apps["/a"].tally.healthy; n < 1 {
		t.Errorf("%d healthy instances are left", n)
	}
}

// victim is whom of the tasks an app ends first.
func (a *app) victim(ids []string) string {
	fresh, _ := a.members()
	for _, i := range fresh {
		if slices.Contains(ids, i.TaskID) {
			return i.TaskID
		}
	}
	return ""
}

func TestCheckInFlight(t *testing.T) {
	w := started(t)
	w.health = nil // no answers
	w.mustPut(define(t, "/a", `"healthChecks":[{"timeoutSeconds":20}]`))
	w.run(20 * time.Second)
	if got := w.calls["Check"]; got != 1 {
		t.Errorf("%d checks at a time, want 1", got)
	}
	w.run(20 * time.Second)
	if got := w.calls["Check"]; got != 2 {
		t.Errorf("%d checks after the first was lost, want 2", got)
	}
}

// TestViewsAreCopies: what a reader got does not change under it.
func TestViewsAreCopies(t *testing.T) {
	w := started(t, define(t, "/a", `"healthChecks":[{"path":"/"}]`))
	id := w.live("/a")[0]
	status := func(port uint16) Updated {
		k := &task.ContainerStatus{Addresses: []string{fmt.Sprintf("10.0.0.%d", port)}, PublishIP: "9.9.9.9", Ports: []task.Port{{Container: 31000, Host: port}}}
		return Updated{TaskID: id, Agent: "a1", Status: task.Status{State: task.Running, Container: k}}
	}
	w.must(status(7))
	v, _ := w.core.App(w.now, "/a")
	before, _ := json.Marshal(v.Instances)
	w.must(status(8), Checked{TaskID: id})
	if after, _ := json.Marshal(v.Instances); string(after) != string(before) {
		t.Errorf("%s became %s", before, after)
	}
	var saved Instance
	w.decode(KeyInstance+id, &saved)
	if saved.Published[31000] != 8 || saved.Addresses[0] != "10.0.0.8" {
		t.Errorf("saved: %+v", saved)
	}
}

func TestEmptyConfigWorks(t *testing.T) {
	c := NewCore(Config{})
	if diff := cmp.Diff(DefaultConfig(), c.cfg, cmp.Comparer(func(a, b func() string) bool { return true })); diff != "" {
		t.Error(diff)
	}
}

// TestEverythingHeals lets users change things while everything goes wrong.
// When that ends, every app gets what it wants, and nothing else is left.
func TestEverythingHeals(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := &chaos{world: newWorld(rt), rt: rt}
		c.agents["a1"].traits = []task.Label{{Key: "rack", Value: "r"}}
		c.agents["a3"] = &fakeAgent{up: true, cpus: 100000, role: "web"}
		c.agents["a2"] = &fakeAgent{up: true, cpus: 100000, traits: c.agents["a1"].traits}
		c.health = func(string) bool { return rapid.IntRange(0, 9).Draw(rt, "well") > 0 }
		c.ready = func(CheckReady) int { return rapid.SampledFrom([]int{200, 500}).Draw(rt, "ready") }
		c.subscribe()
		rt.Repeat(map[string]func(*rapid.T){
			"put": c.change, "delete": c.remove, "restart": c.again, "kill": c.killSome, "cancel": c.cancel, "group": c.group,
			"promote": c.promote, "lose": c.loseCalls, "crash": c.restartScheduler, "disconnect": c.reconnect, "agent": c.agent, "die": c.die, "duplicate": c.duplicate,
			"time": c.time, "work": func(rt *rapid.T) { c.deliverOne(rt) },
		})
		c.heal()
	})
}

type chaos struct {
	*world
	rt *rapid.T
}

var chaosApps = []string{"/a", "/b", "/c", "/g/x", "/p", "/r", "/e"}

func (c *chaos) pick(rt *rapid.T) string { return rapid.SampledFrom(chaosApps).Draw(rt, "app") }

func (c *chaos) change(rt *rapid.T) {
	id := c.pick(rt)
	n := rapid.IntRange(0, 5).Draw(rt, "n")
	more := fmt.Sprintf(`"instances":%d,"labels":{"v":"%d"}`, n, rapid.IntRange(0, 2).Draw(rt, "config"))
	more += rapid.SampledFrom([]string{"", `,"healthChecks":[{"gracePeriodSeconds":20,"maxConsecutiveFailures":1}]`}).Draw(rt, "check")
	more += rapid.SampledFrom([]string{"", `,"portDefinitions":[{"name":"w"}],"readinessChecks":[{"portName":"w"}]`}).Draw(rt, "readiness")
	more += rapid.SampledFrom([]string{"", `,"constraints":[["rack","CLUSTER"]]`, `,"constraints":[["hostname","GROUP_BY"]]`}).Draw(rt, "constraint")
	more += rapid.SampledFrom([]string{"", `,"upgradeStrategy":{"minimumHealthCapacity":1,"maximumOverCapacity":0}`, `,"upgradeStrategy":{"minimumHealthCapacity":0,"maximumOverCapacity":0}`}).Draw(rt, "upgrade")
	more += rapid.SampledFrom([]string{"", `,"unreachableStrategy":"disabled"`, `,"unreachableStrategy":{"inactiveAfterSeconds":30,"expungeAfterSeconds":300}`}).Draw(rt, "unreachable")
	more += rapid.SampledFrom([]string{"", `,"deployment":{"maxRetries":1,"deadlineSeconds":40,"autoRevert":true}`, `,"deployment":{"deadlineSeconds":10}`}).Draw(rt, "limits")
	more += rapid.SampledFrom([]string{"", `,"canary":{"instances":1}`, `,"canary":{"instances":5}`}).Draw(rt, "canary")
	if id == "/c" {
		more += `,"dependencies":["/a"]`
	}
	def := define(c.t, id, more)
	if id == "/p" {
		def = definePod(c.t, id, fmt.Sprintf(`,"scaling":{"kind":"fixed","instances":%d},"labels":{"v":"%d"}`, n, rapid.IntRange(0, 2).Draw(rt, "config")))
		def.Upgrade, def.Unreachable, def.Deployment = define(c.t, id, more).Upgrade, define(c.t, id, more).Unreachable, define(c.t, id, more).Deployment
	}
	if id == "/e" {
		def = define(c.t, id, fmt.Sprintf(`"instances":%d,"everywhere":true,"labels":{"v":"%d"}`, min(n, 1), rapid.IntRange(0, 2).Draw(rt, "config")))
	}
	if id == "/r" {
		def = define(c.t, id, fmt.Sprintf(`"instances":%d,"labels":{"v":"%d"},`, min(n, 3), rapid.IntRange(0, 2).Draw(rt, "config"))+residentFields)
		def.Deployment = define(c.t, id, more).Deployment
	}
	in := Change{DeploymentID: "d" + c.id(), Put: []*App{def}, Force: rapid.Bool().Draw(rt, "force"), Create: rapid.Bool().Draw(rt, "create"), Live: rapid.Bool().Draw(rt, "live")}
	c.batch(in)
}

func (c *chaos) group(rt *rapid.T) {
	in := ChangeGroup{DeploymentID: "d" + c.id(), ID: "/g", Force: rapid.Bool().Draw(rt, "force")}
	if text := rapid.SampledFrom([]string{
		"", `{"id":"/g","dependencies":["/b"],"apps":[{"id":"x","cmd":"x","cpus":1,"mem":32,"instances":2}]}`, `{"id":"/g","apps":[]}`,
		`{"id":"/g","scaleBy":0.5}`, `{"id":"/g","groups":[{"id":"h"}],"apps":[{"id":"x","cmd":"y","cpus":1,"mem":32}]}`,
	}).Draw(rt, "group"); text != "" {
		in.Put = readGroup(c.t, text)
	}
	c.batch(in)
}

func (c *chaos) remove(rt *rapid.T) {
	c.batch(Change{DeploymentID: "d" + c.id(), Delete: []string{c.pick(rt)}, Force: rapid.Bool().Draw(rt, "force")})
}

func (c *chaos) again(rt *rapid.T) {
	if def, ok := c.core.Definition(c.pick(rt)); ok {
		c.batch(Change{DeploymentID: "d" + c.id(), Put: []*App{def}, Restart: []string{def.ID}})
	}
}

func (c *chaos) killSome(rt *rapid.T) {
	if ids := c.live(""); len(ids) > 0 {
		id := rapid.SampledFrom(ids).Draw(rt, "task")
		if i := c.core.pods[id]; i != nil {
			id = i.ID
		}
		c.batch(KillTasks{DeploymentID: "d" + c.id(), IDs: []string{id}, Scale: rapid.Bool().Draw(rt, "scale"), Wipe: rapid.Bool().Draw(rt, "wipe"), Force: true})
	}
}

func (c *chaos) cancel(rt *rapid.T) {
	if d := c.core.Deployments(); len(d) > 0 {
		c.batch(CancelDeployment{ID: rapid.SampledFrom(d).Draw(rt, "deployment").ID, NewID: "d" + c.id(), Revert: rapid.Bool().Draw(rt, "revert")})
	}
}

func (c *chaos) promote(rt *rapid.T) { c.batch(Promote{App: c.pick(rt)}) }

func (c *chaos) loseCalls(rt *rapid.T) {
	kind := rapid.SampledFrom([]string{"Accept", "Kill", "Acknowledge", "Reconcile", "Revive", "Suppress", "Decline", "Update"}).Draw(rt, "kind")
	if kind == "Update" {
		c.loseUpdate++
		return
	}
	c.lose[kind]++
}

func (c *chaos) restartScheduler(rt *rapid.T) {
	c.crash()
	if rapid.Bool().Draw(rt, "subscribe") {
		c.subscribe()
	}
}

func (c *chaos) reconnect(rt *rapid.T) {
	if c.connected {
		c.disconnect()
		return
	}
	c.subscribe()
}

func (c *chaos) agent(rt *rapid.T) {
	id := rapid.SampledFrom([]string{"a1", "a2", "a3"}).Draw(rt, "agent")
	c.up(id, !c.agents[id].up)
}

func (c *chaos) die(rt *rapid.T) {
	ids := slices.DeleteFunc(c.live(""), func(id string) bool { return c.tasks[id].state != task.Running })
	if len(ids) > 0 {
		c.report(rapid.SampledFrom(ids).Draw(rt, "task"), rapid.SampledFrom([]task.State{task.Failed, task.Finished, task.Killed}).Draw(rt, "state"))
	}
}

// duplicate sends the oldest unacknowledged updates again.
func (c *chaos) duplicate(*rapid.T) {
	for _, f := range c.tasks {
		f.sent = time.Time{}
	}
}

func (c *chaos) time(rt *rapid.T) {
	c.run(rapid.SampledFrom([]time.Duration{time.Second, 10 * time.Second, time.Minute}).Draw(rt, "time"))
}

// heal ends all faults, lets the time pass, and looks at what is there.
func (c *chaos) heal() {
	clear(c.lose)
	c.loseUpdate = 0
	c.health, c.ready = func(string) bool { return true }, func(CheckReady) int { return 200 }
	c.up("a1", true)
	c.up("a2", true)
	c.up("a3", true)
	if !c.connected {
		c.subscribe()
	}
	_, ok := c.core.Definition("/a")
	if def, has := c.core.Definition("/c"); has && def.Instances > 0 && !ok {
		c.batch(Change{DeploymentID: "last", Put: []*App{define(c.t, "/a", "")}, Force: true}) // what /c waits for
	}
	_, ok = c.core.Definition("/b")
	if def, has := c.core.Definition("/g/x"); has && def.Instances > 0 && !ok {
		c.batch(Change{DeploymentID: "last too", Put: []*App{define(c.t, "/b", "")}, Force: true})
	}
	for range 3 { // some wait for others
		c.run(20 * time.Minute)
		for _, id := range chaosApps {
			c.batch(Promote{App: id})
		}
	}
	c.run(time.Hour)
	for _, id := range chaosApps {
		def, ok := c.core.Definition(id)
		if !ok {
			c.wantRunning(id, 0)
			continue
		}
		n := def.Instances
		if def.Everywhere {
			n *= 2 // agents of the role
		}
		c.wantRunning(id, n)
	}
	tasks := 0
	for _, i := range c.core.instances {
		tasks += len(i.live())
	}
	c.wantResidences("/r")
	if len(c.core.lacking) > 0 || len(c.tasks) != tasks {
		c.rt.Fatalf("lacking %v; %d tasks, %d instances", c.core.lacking, len(c.tasks), len(c.core.instances))
	}
}

func TestTaskSpec(t *testing.T) {
	a := mustRead(t, `{"id":"/g/web","cpus":0.5,"labels":{"my-label":"v"},"env":{"HOST":"mine","S":{"secret":"x"}},"secrets":{"x":{"source":"x"}},"taskKillGracePeriodSeconds":7,"user":"u",
		"container":{"docker":{"image":"nginx","network":"BRIDGE","parameters":[{"key":"link","value":"a:b"}],"portMappings":[{"containerPort":80,"hostPort":8080,"name":"http"},{"protocol":"udp"}]}},
		"fetch":[{"uri":"u","extract":false}]}`)
	i := &Instance{Host: "h", Version: "v1", Ports: a.assignPorts()}
	i.ID, i.TaskID = TaskIDOf(a.ID, "1")
	s := a.spec(i, nil, map[string]string{"x": "secret"})
	env := map[string]string{}
	for n, e := range s.Env {
		env[e.Key] = e.Value
		if n > 0 && s.Env[n-1].Key >= e.Key {
			t.Errorf("the environment is not sorted at %s", e.Key)
		}
	}
	want := map[string]string{
		"HOST": "mine", "S": "secret", "MARATHON_APP_DOCKER_IMAGE": "nginx", "MARATHON_APP_ENFORCE_GROUP_ROLE": "false", "MARATHON_APP_ID": "/g/web", "MARATHON_APP_LABELS": "MY_LABEL",
		"MARATHON_APP_LABEL_MY_LABEL": "v", "MARATHON_APP_RESOURCE_CPUS": "0.5", "MARATHON_APP_RESOURCE_DISK": "0.0", "MARATHON_APP_RESOURCE_GPUS": "0",
		"MARATHON_APP_RESOURCE_MEM": "128.0", "MARATHON_APP_VERSION": "v1", "MESOS_TASK_ID": "g_web.instance-1._app.1", "PORT": "80", "PORT0": "80", "PORT1": "31001",
		"PORTS": "80,31001", "PORT_31001": "31001", "PORT_80": "80", "PORT_HTTP": "80",
	}
	if diff := cmp.Diff(want, env); diff != "" {
		t.Error(diff)
	}
	if s.Name != "web.g" || s.Image != "nginx" || s.Ports[0].Host != 8080 || s.Ports[1].Protocol != "udp" || *s.KillGrace != 7*time.Second || s.Fetch[0].Extract || s.Parameters[0].Key != "link" || s.User != "u" {
		t.Errorf("%+v", s)
	}
}
