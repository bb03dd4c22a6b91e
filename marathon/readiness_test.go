package marathon

import (
	"strings"
	"testing"
	"time"
)

const withReadiness = `"instances":2,"portDefinitions":[{"name":"web"}],"readinessChecks":[{"portName":"web","path":"ok","httpStatusCodesForReady":[204],"preserveLastResponse":true}]`

// TestReadinessGates: an old instance stays until a new one is ready.
func TestReadinessGates(t *testing.T) {
	w := newWorld(t)
	status, url := 204, ""
	w.ready = func(e CheckReady) int { url = e.URL; return status }
	w.subscribe()
	w.mustPut(define(t, "/a", withReadiness))
	w.run(time.Minute)
	w.wantRunning("/a", 2)
	if url != "http://10.0.0.1:31000/ok" {
		t.Errorf("asked %s", url)
	}
	status = 200
	asked := w.calls["CheckReady"]
	w.run(10 * time.Minute)
	if w.calls["CheckReady"] != asked {
		t.Error("it was asked without a deployment")
	}
	w.mustPut(define(t, "/a", withReadiness+`,"labels":{"v":"2"}`))
	for range 2 {
		w.run(10 * time.Minute)
		v, _ := w.core.App(w.now, "/a")
		if len(w.live("/a")) != 4 || len(v.Deployments) != 1 || !strings.Contains(v.Waiting, "2 of the new instances") {
			t.Fatalf("%d live, %v, %q", len(w.live("/a")), v.Deployments, v.Waiting)
		}
		if r := v.Readiness; len(r) != 2 || r[0].Ready || r[0].LastResponse.Status != 200 {
			t.Errorf("%+v", r)
		}
		w.crash()
		w.subscribe()
	}
	status = 204
	w.run(2 * time.Minute)
	w.wantRunning("/a", 2)
	if v, _ := w.core.App(w.now, "/a"); v.Waiting != "" || len(v.Readiness) != 0 {
		t.Errorf("%q, %v", v.Waiting, v.Readiness)
	}
}

// TestReadinessEndsWithItsDeployment: what was not ready counts once no
// deployment is left, and a deployment that takes over goes on waiting.
func TestReadinessEndsWithItsDeployment(t *testing.T) {
	w := newWorld(t)
	w.ready = func(CheckReady) int { return 500 }
	w.subscribe()
	w.mustPut(define(t, "/a", withReadiness))
	w.run(time.Minute)
	w.must(Change{DeploymentID: "more", Put: []*App{define(t, "/a", strings.Replace(withReadiness, ":2", ":3", 1))}, Force: true})
	w.run(time.Minute)
	if d := w.core.Deployments(); len(d) != 1 || d[0].ID != "more" {
		t.Fatalf("%+v", d)
	}
	w.must(CancelDeployment{ID: "more"})
	w.run(time.Minute)
	w.wantRunning("/a", 3)
	if v, _ := w.core.App(w.now, "/a"); v.Waiting != "" || w.core.apps["/a"].tally.healthy != 3 {
		t.Errorf("%q, %+v", v.Waiting, w.core.apps["/a"].tally)
	}
}

func TestReadinessIsValidated(t *testing.T) {
	for check, part := range map[string]string{
		`{"portName":"none"}`:                                         "/readinessChecks(0)/portName: there is no port",
		`{"portName":"web","timeoutSeconds":30}`:                      "/readinessChecks(0)/timeoutSeconds",
		`{"portName":"web","protocol":"TCP"}`:                         "/readinessChecks(0)/protocol",
		`{"portName":"web"},{"portName":"web"}`:                       "at most one",
		`{"portName":"web","intervalSeconds":-1,"timeoutSeconds":-2}`: "/readinessChecks(0)/timeoutSeconds",
	} {
		_, err := Read([]byte(`{"id":"/a","cmd":"x","portDefinitions":[{"name":"web"}],"readinessChecks":[`+check+`]}`), "*")
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: %v", check, err)
		}
	}
}
