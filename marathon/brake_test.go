package marathon

import (
	"errors"
	"strings"
	"testing"
	"time"
)

const checkedApp = `"instances":4,"upgradeStrategy":{"minimumHealthCapacity":0.5},"healthChecks":[{"protocol":"HTTP","gracePeriodSeconds":1,"intervalSeconds":5,"maxConsecutiveFailures":1}]`

// While too many fail, none is ended; when few do, they are, in their turn.
func TestHealthBrake(t *testing.T) {
	w := newWorld(t)
	ill := map[string]bool{}
	w.health = func(id string) bool { return !ill[id] }
	w.subscribe()
	w.mustPut(define(t, "/a", checkedApp+`,"healthBrake":{"maxUnhealthy":0.5}`))
	w.run(time.Minute)
	w.wantRunning("/a", 4)
	before := w.live("/a")
	for _, id := range before[:3] {
		ill[id] = true
	}
	w.run(5 * time.Minute)
	if got := strings.Join(w.live("/a"), " "); got != strings.Join(before, " ") {
		t.Errorf("%s run, want all of %v", got, before)
	}
	v, _ := w.core.App(w.now, "/a")
	if notes := strings.Join(v.Notes, "\n"); !strings.Contains(notes, "3 of 4 instances fail their health checks") {
		t.Errorf("notes: %s", notes)
	}
	delete(ill, before[0])
	w.run(time.Minute)
	w.wantRunning("/a", 4)
	left := w.live("/a")
	if strings.Contains(strings.Join(left, " "), before[1]) || strings.Contains(strings.Join(left, " "), before[2]) {
		t.Errorf("%v run; %v were to be replaced", left, before[1:3])
	}
}

func TestHealthBrakePerMinute(t *testing.T) {
	w := newWorld(t)
	ill := map[string]bool{}
	w.health = func(id string) bool { return !ill[id] }
	w.subscribe()
	w.mustPut(define(t, "/a", checkedApp+`,"healthBrake":{"maxKillsPerMinute":1}`))
	w.run(time.Minute)
	for _, id := range w.live("/a") {
		ill[id] = true
	}
	ended := func() (n int) {
		for _, e := range w.events {
			if e.Type == "unhealthy_instance_kill_event" {
				n++
			}
		}
		return n
	}
	w.run(40 * time.Second)
	if n := ended(); n != 1 {
		t.Errorf("%d were ended at once", n)
	}
	w.run(5 * time.Minute)
	if n := ended(); n != 4 {
		t.Errorf("%d were ended in all", n)
	}
	w.wantRunning("/a", 4)
}

func TestHealthBrakeProblems(t *testing.T) {
	for text, where := range map[string]string{`{"maxUnhealthy":2}`: "/healthBrake/maxUnhealthy", `{"maxKillsPerMinute":-1}`: "/healthBrake/maxKillsPerMinute"} {
		_, err := Read([]byte(`{"id":"/a","cmd":"x","healthBrake":`+text+`}`), "*")
		var bad *BadDefinition
		if !errors.As(err, &bad) || bad.Problems[0].Path != where {
			t.Errorf("%s: %v", text, err)
		}
	}
	a, b := define(t, "/a", ""), define(t, "/a", `"healthBrake":{"maxUnhealthy":0.5}`)
	if !sameConfig(a, b) {
		t.Error("the brake restarts instances")
	}
}
