package marathon

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mesopool/mesopool/task"
)

const limited = `"instances":3,"backoffSeconds":1,"maxLaunchDelaySeconds":5,"deployment":{"maxRetries":2,"autoRevert":true}`

// ended lists the reasons of the deployments that have failed.
func (w *world) ended() []string {
	var out []string
	for _, e := range w.events {
		if e.Type == "deployment_failed" {
			out = append(out, e.Body["reason"].(string))
		}
	}
	return out
}

// TestAutoRevert: a deployment whose instances fail goes back, and what still
// runs of the last good version is not restarted.
func TestAutoRevert(t *testing.T) {
	w := newWorld(t)
	w.subscribe()
	w.mustPut(define(t, "/a", limited))
	w.mustPut(define(t, "/other", ""))
	w.run(time.Minute)
	w.wantRunning("/a", 3)
	before := w.live("/a")
	w.crash() // what was good is remembered
	w.subscribe()
	w.fail = func(app string) bool { return app == "/a" }
	w.mustPut(define(t, "/a", limited+`,"labels":{"v":"bad"}`), define(t, "/other", `"labels":{"v":"2"}`))
	w.run(10 * time.Minute)
	w.wantRunning("/a", 3)
	def, _ := w.core.Definition("/a")
	if def.Labels["v"] != "" || !slices.Equal(w.live("/a"), before) {
		t.Errorf("%v; %v, before %v", def.Labels, w.live("/a"), before)
	}
	if def, _ := w.core.Definition("/other"); def.Labels["v"] != "2" {
		t.Error("an app that was well has gone back too")
	}
	if got := w.ended(); len(got) != 1 || !strings.Contains(got[0], "instances of /a have failed; 2 are allowed; going back") {
		t.Errorf("%v", got)
	}
}

// TestDeadline: a deployment that takes too long has failed, and leaves things
// as they are unless it is to go back.
func TestDeadline(t *testing.T) {
	w := newWorld(t)
	w.subscribe()
	w.mustPut(define(t, "/a", `"instances":1,"deployment":{"deadlineSeconds":60}`))
	w.run(5 * time.Minute)
	w.hold = true
	w.mustPut(define(t, "/a", `"instances":1,"labels":{"v":"2"},"deployment":{"deadlineSeconds":60}`))
	w.run(59 * time.Second)
	if len(w.ended()) != 0 {
		t.Fatalf("early: %v", w.ended())
	}
	w.crash()
	w.subscribe()
	w.run(2 * time.Second)
	if got := w.ended(); len(got) != 1 || got[0] != "/a was not ready after 60 seconds" {
		t.Errorf("%v", got)
	}
	if def, _ := w.core.Definition("/a"); def.Labels["v"] != "2" || len(w.core.Deployments()) != 0 {
		t.Error("it has gone back")
	}
	w.hold = false
	w.run(time.Minute)
	w.wantRunning("/a", 1)
}

// TestReadyTooLate: when the new instances are ready and the deadline is over at
// once, the old ones are not ended for a change that is taken back.
func TestReadyTooLate(t *testing.T) {
	w := newWorld(t)
	w.subscribe()
	const def = `"instances":2,"deployment":{"deadlineSeconds":60,"autoRevert":true}`
	w.mustPut(define(t, "/a", def))
	w.run(time.Minute)
	before := w.live("/a")
	w.hold = true
	w.mustPut(define(t, "/a", def+`,"labels":{"v":"2"}`))
	w.run(50 * time.Second)
	w.now = w.now.Add(11 * time.Second)
	for _, id := range w.live("/a") {
		if !slices.Contains(before, id) {
			w.report(id, task.Running)
		}
	}
	w.inbox = nil
	w.tell()
	if len(w.inbox) != 2 {
		t.Fatalf("%d instances are new", len(w.inbox))
	}
	w.must(append(w.inbox, Tick{})...)
	w.inbox, w.hold = nil, false
	w.run(time.Minute)
	if got := w.live("/a"); !slices.Equal(got, before) {
		t.Errorf("%v serve, and %v did before", got, before)
	}
	if got := w.ended(); len(got) != 1 {
		t.Errorf("failed: %v", got)
	}
}

// TestRevertOfLaterSteps: what the deployment has not begun goes back too, and
// a new app that fails stays.
func TestRevertOfLaterSteps(t *testing.T) {
	w := newWorld(t)
	w.subscribe()
	w.fail = func(app string) bool { return app == "/a" }
	w.mustPut(define(t, "/b", ""))
	w.run(time.Minute)
	w.mustPut(define(t, "/a", limited), define(t, "/b", `"dependencies":["/a"]`), define(t, "/new", `"dependencies":["/a"]`))
	w.run(10 * time.Minute)
	if b, _ := w.core.Definition("/b"); len(b.Dependencies) != 0 {
		t.Errorf("/b depends on %v", b.Dependencies)
	}
	if _, ok := w.core.Definition("/new"); ok {
		t.Error("/new is still there")
	}
	if _, ok := w.core.Definition("/a"); !ok || len(w.core.Deployments()) != 0 {
		t.Error("/a is gone, or a deployment is left")
	}
}

func TestLimitsAreValidated(t *testing.T) {
	for limits, part := range map[string]string{
		`{"deadlineSeconds":-1}`: "/deployment/deadlineSeconds", `{"maxRetries":-1}`: "/deployment/maxRetries", `{"autoRevert":true}`: "/deployment/autoRevert",
		`{"maxRetries":"x"}`: "/deployment/maxRetries",
	} {
		_, err := Read([]byte(`{"id":"/a","cmd":"x","deployment":`+limits+`}`), "*")
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: %v", limits, err)
		}
	}
}

// TestLiveEdit: what does not concern running instances is changed under them,
// if it is asked for.
func TestLiveEdit(t *testing.T) {
	w := newWorld(t)
	w.subscribe()
	w.mustPut(define(t, "/a", `"instances":2`))
	w.run(time.Minute)
	before := w.live("/a")
	checked := `"instances":2,"labels":{"k":"v"},"backoffSeconds":3,"healthChecks":[{"gracePeriodSeconds":20}]`
	live := func(more string) {
		w.must(Change{DeploymentID: "d" + w.id(), Put: []*App{define(t, "/a", more)}, Live: true})
		w.run(time.Minute)
	}
	live(checked)
	v, _ := w.core.App(w.now, "/a")
	if !slices.Equal(w.live("/a"), before) || v.Healthy != 2 || v.App.Labels["k"] != "v" {
		t.Errorf("%v, before %v; %d healthy", w.live("/a"), before, v.Healthy)
	}
	w.crash()
	w.subscribe()
	w.run(time.Minute)
	if v, _ := w.core.App(w.now, "/a"); v.Healthy != 2 {
		t.Errorf("%d healthy after a restart of ours", v.Healthy)
	}
	live(`"instances":3,"labels":{"k":"w"}`)
	if v, _ := w.core.App(w.now, "/a"); v.Healthy != 0 || v.Running != 3 || !slices.Contains(w.live("/a"), before[0]) {
		t.Errorf("%d healthy, %d running", v.Healthy, v.Running)
	}
	w.mustPut(define(t, "/a", `"instances":3,"labels":{"k":"x"}`)) // as Marathon does it
	w.run(time.Minute)
	if slices.Contains(w.live("/a"), before[0]) {
		t.Error("a change without live has restarted nothing")
	}
	before = w.live("/a")
	live(`"instances":3,"labels":{"k":"x"},"upgradeStrategy":{"minimumHealthCapacity":0,"maximumOverCapacity":0},"healthChecks":[{"protocol":"COMMAND","command":{"value":"true"}}]`)
	if slices.Contains(w.live("/a"), before[0]) {
		t.Error("the agent cannot get to know of a check without a restart")
	}
}

func TestStaleChange(t *testing.T) {
	w := newWorld(t)
	w.subscribe()
	w.mustPut(define(t, "/a", ""))
	def, _ := w.core.Definition("/a")
	for version, ok := range map[string]bool{def.Version: true, "*": true, "2001": false} {
		_, err := w.core.Plan(Change{Put: []*App{define(t, "/a", `"instances":2`)}, Expect: map[string]string{"/a": version}})
		if (err == nil) != ok || err != nil && !errors.Is(err, ErrStale) {
			t.Errorf("%s: %v", version, err)
		}
	}
}

func TestDifference(t *testing.T) {
	old, next := define(t, "/a", `"labels":{"a":"b"},"user":"u"`), define(t, "/a", `"mem":64,"healthChecks":[{"protocol":"TCP"}]`)
	var got []string
	for _, f := range difference(old, next) {
		path := f.Path
		if f.Restarts {
			path += "!"
		}
		got = append(got, path)
	}
	if want := []string{"/healthChecks", "/labels", "/mem!", "/user!"}; !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if got := difference(&App{}, next); len(got) < 10 {
		t.Errorf("a new app has %d fields", len(got))
	}
}
