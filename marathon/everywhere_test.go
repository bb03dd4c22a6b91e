package marathon

import (
	"testing"
	"time"
)

// on lists how many instances run on which agent.
func (w *world) on(app string) map[string]int {
	out := map[string]int{}
	for _, id := range w.live(app) {
		out[w.tasks[id].agent]++
	}
	return out
}

// There is one on each agent, also on one that comes later, and again after a
// restart of the scheduler or a new configuration; agents that go do not count.
func TestEverywhere(t *testing.T) {
	w := newWorld(t)
	w.agents["a2"] = &fakeAgent{up: true, cpus: 100000}
	w.agents["other"] = &fakeAgent{up: true, cpus: 100000, role: "web"}
	w.subscribe()
	want := func(what string, n int) {
		t.Helper()
		w.run(2 * time.Minute)
		w.wantRunning("/e", n)
		for agent, n := range w.on("/e") {
			if n != 1 || agent == "other" {
				t.Errorf("%s: %d on %s", what, n, agent)
			}
		}
	}
	w.mustPut(define(t, "/e", `"everywhere":true`))
	want("at first", 2)
	w.agents["a3"] = &fakeAgent{up: true, cpus: 100000}
	want("one comes", 3)
	w.crash()
	w.subscribe()
	w.agents["a4"] = &fakeAgent{up: true, cpus: 100000}
	want("after a restart", 4)
	w.mustPut(define(t, "/e", `"everywhere":true,"labels":{"v":"2"}`))
	want("a new configuration", 4)
	w.must(KillTasks{IDs: w.live("/e")[:1]})
	want("after a kill", 4)
	w.up("a4", false)
	w.run(time.Hour)
	if v, _ := w.core.App(w.now, "/e"); v.Running != 3 || v.Waiting != "" {
		t.Errorf("without one: %d running, waiting %q", v.Running, v.Waiting)
	}
	w.up("a4", true)
	want("it is back", 4)
	w.mustPut(define(t, "/e", `"everywhere":true,"instances":0,"labels":{"v":"2"}`))
	want("suspended", 0)
}
