package marathon

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mesopool/mesopool/task"
)

func TestRules(t *testing.T) {
	at := place{host: "h1", zone: "z", traits: []task.Label{{Key: "rack", Value: "a1"}, {Key: "level", Value: "2.000"}}}
	for _, c := range []struct {
		constraint string
		counts     map[string]int
		want       int
		ok         bool
	}{
		{"hostname UNIQUE", nil, 1, true},
		{"@hostname UNIQUE", map[string]int{"h1": 1}, 2, false},
		{"hostname UNIQUE", map[string]int{"h2": 1}, 2, true},
		{"rack CLUSTER", nil, 1, true},
		{"rack CLUSTER", map[string]int{"a1": 3}, 4, true},
		{"rack CLUSTER", map[string]int{"b": 1}, 4, false},
		{"rack CLUSTER", map[string]int{"a1": 1, "b": 1}, 4, false},
		{"rack CLUSTER a1", nil, 1, true},
		{"rack CLUSTER b", nil, 1, false},
		{"@zone IS z", nil, 1, true},
		{"@region IS z", nil, 1, false},
		{"@region UNLIKE z", nil, 1, true},
		{"level IS 2", nil, 1, true},
		{"level IS 2.0004", nil, 1, true},
		{"level IS 2.001", nil, 1, false},
		{"rack LIKE a.", nil, 1, true},
		{"rack LIKE a", nil, 1, false},
		{"rack LIKE b|a1", nil, 1, true},
		{"rack UNLIKE a.", nil, 1, false},
		{"rack UNLIKE a", nil, 1, true},
		{"none UNIQUE", nil, 1, false},
		{"none UNLIKE x", nil, 1, true},
		{"hostname MAX_PER 2", map[string]int{"h1": 1}, 9, true},
		{"hostname MAX_PER 2", map[string]int{"h1": 2}, 9, false},
		{"rack GROUP_BY", map[string]int{"a1": 1, "b": 1}, 9, true},
		{"rack GROUP_BY", map[string]int{"a1": 2, "b": 1}, 9, false},
		{"rack GROUP_BY", map[string]int{"b": 5}, 9, true},
		{"rack GROUP_BY 3", map[string]int{"a1": 2}, 7, true},
		{"rack GROUP_BY 3", map[string]int{"a1": 2, "b": 3}, 7, false},
		{"rack GROUP_BY 3", map[string]int{"a1": 3}, 7, false},
		{"rack GROUP_BY 3", map[string]int{"a1": 2}, 6, false},
		{"rack SOMETHING", nil, 1, false},
	} {
		r := rulesOf([][]string{strings.Fields(c.constraint)})[0]
		if got := r.allows(&at, c.counts, c.want); got != c.ok {
			t.Errorf("%s with %v of %d: %v", c.constraint, c.counts, c.want, got)
		}
		if r.sentence(&at, c.counts) == "" {
			t.Errorf("%s: no reason", c.constraint)
		}
	}
}

func TestConstraintsAreValidated(t *testing.T) {
	for con, part := range map[string]string{
		`["a"]`: "2 or 3 fields", `["a","UNIQUE","x"]`: "not used", `["a","LIKE","("]`: "regular expression", `["a","LIKE"]`: "regular expression",
		`["a","MAX_PER"]`: "whole number", `["a","MAX_PER","0"]`: "whole number", `["a","GROUP_BY","x"]`: "whole number", `["a","IS"]`: "needs a value",
		`["a","NEAR"]`: "one of the following",
	} {
		_, err := Read([]byte(`{"id":"/a","cmd":"x","constraints":[["b","UNIQUE"],`+con+`]}`), "*")
		if err == nil || !strings.Contains(err.Error(), "/constraints(1): ") || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: %v", con, err)
		}
	}
}

// racks is a world of n hosts in racks a and b, by turns.
func racks(t tb, n int) *world {
	w := newWorld(t)
	delete(w.agents, "a1")
	for i := range n {
		id := fmt.Sprint("a", i)
		w.agents[id] = &fakeAgent{up: true, cpus: 100000, zone: fmt.Sprint("z", i), traits: []task.Label{{Key: "rack", Value: string(rune('a' + i%2))}}}
	}
	w.subscribe()
	return w
}

// perHost counts an app's instances by host.
func perHost(w *world, app string) []int {
	counts := map[string]int{}
	v, _ := w.core.App(w.now, app)
	for _, i := range v.Instances {
		counts[i.Host]++
	}
	var out []int
	for _, n := range counts {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

func TestPlacement(t *testing.T) {
	w := racks(t, 4)
	w.mustPut(
		define(t, "/unique", `"instances":4,"constraints":[["hostname","UNIQUE"]]`), define(t, "/max", `"instances":8,"constraints":[["@zone","MAX_PER","2"]]`),
		define(t, "/spread", `"instances":6,"constraints":[["hostname","GROUP_BY","4"]]`), define(t, "/rack", `"instances":5,"constraints":[["rack","LIKE","a.*"]]`),
		define(t, "/pinned", `"instances":3,"constraints":[["hostname","CLUSTER"]]`),
	)
	w.run(time.Minute)
	for app, want := range map[string][]int{"/unique": {1, 1, 1, 1}, "/max": {2, 2, 2, 2}, "/spread": {1, 1, 2, 2}, "/pinned": {3}} {
		if got := perHost(w, app); !slices.Equal(got, want) {
			t.Errorf("%s: %v", app, got)
		}
	}
	v, _ := w.core.App(w.now, "/rack")
	for _, i := range v.Instances {
		if i.Traits[0].Value != "a" {
			t.Errorf("%s is on %s", i.TaskID, i.Host)
		}
	}
	w.mustPut(define(t, "/spread", `"instances":4,"constraints":[["hostname","GROUP_BY","4"]]`))
	w.run(time.Minute)
	if got := perHost(w, "/spread"); !slices.Equal(got, []int{1, 1, 1, 1}) {
		t.Errorf("after scaling down: %v", got)
	}
	w.mustPut(define(t, "/unique", `"instances":4,"labels":{"v":"2"},"constraints":[["hostname","UNIQUE"]]`))
	w.run(time.Minute)
	w.wantRunning("/unique", 4)
}

func TestUnmetConstraint(t *testing.T) {
	w := racks(t, 2)
	w.mustPut(define(t, "/a", `"constraints":[["rack","LIKE","c.*"]]`))
	w.mustPut(define(t, "/u", `"instances":3,"constraints":[["rack","UNIQUE"]]`))
	w.run(time.Minute)
	v, _ := w.core.App(w.now, "/a")
	if v.Waiting != "no offer has rack like c.*" || v.Refused.Unmet == 0 {
		t.Errorf("%q, %d", v.Waiting, v.Refused.Unmet)
	}
	w.crash() // where instances are is remembered
	w.subscribe()
	w.run(time.Minute)
	v, _ = w.core.App(w.now, "/u")
	if v.Waiting != "no offer has a rack without an instance (in use: a, b)" || v.Running != 2 || len(v.Notes) > 0 {
		t.Errorf("%q, %d running, %v", v.Waiting, v.Running, v.Notes)
	}
}

// TestVirtualAgent: where all offers come from one host, rules per host are met.
func TestVirtualAgent(t *testing.T) {
	w := newWorld(t)
	w.subscribe()
	w.mustPut(define(t, "/a", `"instances":5,"constraints":[["hostname","UNIQUE"],["@hostname","MAX_PER","1"],["hostname","GROUP_BY","3"]]`))
	w.run(5 * time.Second)
	if v, _ := w.core.App(w.now, "/a"); v.Running != 1 || len(v.Notes) != 0 || v.Waiting == "" {
		t.Errorf("early: %d running, %v, %q", v.Running, v.Notes, v.Waiting)
	}
	w.run(time.Minute)
	w.wantRunning("/a", 5)
	if v, _ := w.core.App(w.now, "/a"); len(v.Notes) != 3 || !strings.Contains(v.Notes[0], "a1.example") {
		t.Errorf("notes %v", v.Notes)
	}
	w.agents["a2"] = &fakeAgent{up: true, cpus: 100000}
	w.mustPut(define(t, "/a", `"instances":6,"constraints":[["hostname","UNIQUE"]]`))
	w.run(time.Minute)
	if v, _ := w.core.App(w.now, "/a"); len(v.Notes) != 0 {
		t.Errorf("with two hosts: %v", v.Notes)
	}
}

// TestFullHosts: hosts that have nothing to offer are known by what runs there.
func TestFullHosts(t *testing.T) {
	w := racks(t, 2)
	w.mustPut(define(t, "/a", `"instances":3,"constraints":[["hostname","UNIQUE"]]`))
	w.run(time.Minute)
	w.crash()
	w.agents["a1"].cpus = 1000
	w.subscribe()
	w.run(10 * time.Minute)
	if got := perHost(w, "/a"); !slices.Equal(got, []int{1, 1}) {
		t.Errorf("%v", got)
	}
}
