package marathon

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// inTrial starts an app and gives it a new configuration with canaries.
func inTrial(t *testing.T, instances, more string) (w *world, before []string) {
	w = newWorld(t)
	w.subscribe()
	w.mustPut(define(t, "/a", instances))
	w.run(time.Minute)
	before = w.live("/a")
	w.mustPut(define(t, "/a", instances+`,"labels":{"v":"2"},`+more))
	w.run(time.Minute)
	return w, before
}

func (w *world) staying(before []string) int {
	n := 0
	for _, id := range w.live("/a") {
		if slices.Contains(before, id) {
			n++
		}
	}
	return n
}

func (w *world) wantTrial(want string) {
	w.t.Helper()
	got := ""
	for _, d := range w.core.Deployments() {
		got += w.core.Trials(&d)["/a"]
	}
	if got != want {
		w.t.Fatalf("the trial is %q, want %q", got, want)
	}
}

const oneCanary = `"deployment":{"canary":{"instances":1}}`

func TestCanaryWaitsForPromotion(t *testing.T) {
	w, before := inTrial(t, `"instances":3,"upgradeStrategy":{"maximumOverCapacity":0}`, oneCanary)
	w.wantTrial("ready")
	w.wantLive("/a", 3)
	if n := w.staying(before); n != 2 {
		t.Fatalf("%d of the old instances stay, want 2", n)
	}
	w.wantEvent("canaries_ready_event", true)
	w.crash()
	w.subscribe()
	w.run(time.Hour)
	w.wantTrial("ready")
	w.must(Promote{Deployment: w.core.Deployments()[0].ID})
	w.run(time.Minute)
	w.wantRunning("/a", 3)
	if n := w.staying(before); n != 0 || len(w.core.Deployments()) != 0 {
		t.Errorf("%d of the old instances are left, %d deployments", n, len(w.core.Deployments()))
	}
}

func TestCanaryIsTakenBack(t *testing.T) {
	w, before := inTrial(t, `"instances":3,"upgradeStrategy":{"maximumOverCapacity":1}`, oneCanary)
	w.wantLive("/a", 4)
	d := w.core.Deployments()[0].ID
	w.must(CancelDeployment{ID: d, NewID: "back", Revert: true})
	w.run(time.Minute)
	if !slices.Equal(w.live("/a"), before) || len(w.core.Deployments()) != 0 {
		t.Errorf("%v, before %v", w.live("/a"), before)
	}
}

func TestBlueGreen(t *testing.T) {
	w, before := inTrial(t, `"instances":3,"upgradeStrategy":{"maximumOverCapacity":1}`, `"deployment":{"canary":{"instances":3}}`)
	w.wantLive("/a", 6)
	w.wantTrial("ready")
	w.must(Promote{Deployment: w.core.Deployments()[0].ID})
	w.run(time.Minute)
	w.wantRunning("/a", 3)
	if w.staying(before) != 0 {
		t.Error("blue is still there")
	}
}

func TestCanaryPromotesItself(t *testing.T) {
	w, before := inTrial(t, `"instances":3`, `"deployment":{"canary":{"instances":1,"promoteAfterSeconds":300}}`)
	w.wantTrial("ready")
	w.run(3 * time.Minute)
	w.wantTrial("ready")
	w.run(2 * time.Minute)
	if w.staying(before) != 0 || len(w.core.Deployments()) != 0 {
		t.Error("nothing was promoted")
	}
}

// TestUnwellCanary: one that fails is not promoted, and its failures end the
// deployment as they do elsewhere.
func TestUnwellCanary(t *testing.T) {
	w := newWorld(t)
	w.subscribe()
	base := `"instances":2,"backoffSeconds":1,"maxLaunchDelaySeconds":5`
	w.mustPut(define(t, "/a", base))
	w.run(time.Minute)
	before := w.live("/a")
	w.fail = func(string) bool { return true }
	w.mustPut(define(t, "/a", base+`,"labels":{"v":"2"},"deployment":{"maxRetries":3,"autoRevert":true,"canary":{"instances":1,"promoteAfterSeconds":1}}`))
	w.run(2 * time.Second)
	w.wantTrial("starting")
	d := w.core.Deployments()[0].ID
	if _, err := w.core.Apply(w.now, Promote{Deployment: d}, nil); !errors.Is(err, ErrNotReady) {
		t.Errorf("promoting: %v", err)
	}
	w.run(10 * time.Minute)
	if !slices.Equal(w.live("/a"), before) || len(w.core.Deployments()) != 0 {
		t.Errorf("%v, before %v", w.live("/a"), before)
	}
	if _, err := w.core.Apply(w.now, Promote{Deployment: d}, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("promoting what has ended: %v", err)
	}
}

// TestTrialOutlivesForce: scaling an app in trial does not promote it.
func TestTrialOutlivesForce(t *testing.T) {
	w, before := inTrial(t, `"instances":3,"upgradeStrategy":{"maximumOverCapacity":0}`, oneCanary)
	def, _ := w.core.Definition("/a")
	more := *def
	more.Instances = 5
	w.must(Change{DeploymentID: "scale", Put: []*App{&more}, Force: true})
	w.run(time.Minute)
	w.wantTrial("ready")
	w.wantLive("/a", 5)
	if n := w.staying(before); n != 2 {
		t.Errorf("%d of the old instances stay, want 2", n)
	}
}

func TestCanariesAreValidated(t *testing.T) {
	for canary, part := range map[string]string{
		`{"instances":0}`:                          "/deployment/canary/instances",
		`{"instances":3}`:                          "no old one would be left",
		`{"instances":1,"promoteAfterSeconds":-1}`: "/deployment/canary/promoteAfterSeconds",
	} {
		_, err := Read([]byte(`{"id":"/a","cmd":"x","instances":3,"upgradeStrategy":{"minimumHealthCapacity":1,"maximumOverCapacity":0},"deployment":{"canary":`+canary+`}}`), "*")
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: %v", canary, err)
		}
	}
}
