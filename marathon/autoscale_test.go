package marathon

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/mesopool/mesopool/marathon/autoscale"
)

// meters are the agents and instances of a world: they count what the apps of the
// world use.
type meters struct {
	w        *world
	cpu      map[string]float64 // of all instances of an app together, by its ID
	requests map[string]float64
	mem      map[string]float64 // of each, in MiB
	silent   map[string]bool    // agents and tasks that tell nothing
	at       time.Time
	used     map[string]float64 // since the start, by task
	served   map[string]float64
	asked    []Measure
}

func newMeters(w *world) *meters {
	m := &meters{
		w: w, cpu: map[string]float64{}, requests: map[string]float64{}, mem: map[string]float64{}, silent: map[string]bool{}, at: w.now,
		used: map[string]float64{}, served: map[string]float64{},
	}
	w.measure = m.answer
	return m
}

// pass has the tasks do what they do until now, all tasks of an app as much.
func (m *meters) pass() {
	passed := m.w.now.Sub(m.at).Seconds()
	m.at = m.w.now
	for id, f := range m.w.tasks {
		n := float64(len(m.w.live(f.app)))
		m.used[id] += m.cpu[f.app] / n * passed
		m.served[id] += m.requests[f.app] / n * passed
	}
}

func (m *meters) answer(e Measure) Measured {
	m.pass()
	m.asked = append(m.asked, e)
	out := Measured{Round: e.Round, Usage: map[string]TaskUsage{}, Requests: map[string]autoscale.Count{}, Failed: map[string]string{}}
	for _, a := range e.Agents {
		if m.silent[a.ID] {
			out.Failed[a.ID] = a.URL + " does not answer"
			continue
		}
		for id := range a.Tasks {
			if f := m.w.tasks[id]; f != nil && f.agent == a.ID && !m.silent[id] {
				out.Usage[id] = TaskUsage{At: m.w.now, CPU: new(m.used[id]), Mem: new(m.mem[f.app] * bytesPerMiB)}
			}
		}
	}
	for _, c := range e.Counters {
		if m.silent[c.TaskID] {
			out.Failed[c.TaskID] = c.Address + " does not answer"
			continue
		}
		out.Requests[c.TaskID] = autoscale.Count{At: m.w.now, Value: m.served[c.TaskID]}
	}
	return out
}

const scaled = `"autoscale":{"minInstances":2,"maxInstances":6,"cpu":0.5}`

// busyWorld has an app that is autoscaled between 2 and 6, at half a CPU each.
func busyWorld(t tb, more string) (*world, *meters) {
	w := newWorld(t)
	m := newMeters(w)
	w.subscribe()
	w.mustPut(define(t, "/a", scaled+more))
	w.run(10 * time.Second)
	w.wantRunning("/a", 2)
	return w, m
}

func (w *world) notesOf(app string) string {
	v, _ := w.core.App(w.now, app)
	return strings.Join(v.Notes, "\n")
}

func wantText(t tb, what, got string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(got, p) {
			t.Errorf("%s: %q lacks %q", what, got, p)
		}
	}
}

// A busy app grows step by step to its bound, an idle one shrinks to the other.
func TestAutoscale(t *testing.T) {
	w, m := busyWorld(t, "")
	wantText(t, "at first", w.notesOf("/a"), "nothing is measured yet")
	before := w.live("/a")
	m.cpu["/a"] = 2
	w.run(80 * time.Second) // the cool-down, and a round
	w.wantRunning("/a", 4)
	wantText(t, "notes", w.notesOf("/a"), "cpu is 1 on average, to be 0.5: from 2 to 4 instances")
	w.run(time.Hour)
	w.wantRunning("/a", 4)
	if !slices.Equal(before, slices.DeleteFunc(w.live("/a"), func(id string) bool { return !slices.Contains(before, id) })) {
		t.Errorf("%v were restarted: %v", before, w.live("/a"))
	}
	m.cpu["/a"] = 20
	w.run(2 * time.Minute)
	w.wantRunning("/a", 6)
	m.cpu["/a"] = 0.8
	w.run(4 * time.Minute)
	w.wantRunning("/a", 6) // not yet
	w.run(2 * time.Minute)
	w.wantRunning("/a", 3)
	w.run(6 * time.Minute)
	w.wantRunning("/a", 2)
	m.cpu["/a"] = 0
	w.run(time.Hour)
	w.wantRunning("/a", 2)

	audit := w.core.Audit("/a", 2)
	if len(audit) != 2 || audit[0].What != "autoscale" || audit[0].User != "autoscale" || audit[0].Deployment == "" || audit[0].Changes[0].Fields[0] != "/instances" {
		t.Errorf("audit %+v", audit)
	}
	wantText(t, "audit", audit[0].Why, "on average, to be 0.5: from 3 to 2 instances")
	if n := slices.IndexFunc(w.events, func(e Event) bool { return e.Type == "autoscale_event" && e.Body["from"] == 2 && e.Body["to"] == 4 }); n < 0 {
		t.Error("no event")
	}
	counts := w.core.MeasureCounts()
	if counts.Ups != 2 || counts.Downs != 2 || counts.Failures != 0 || counts.Rounds < 200 {
		t.Errorf("counts %+v", counts)
	}
	first := m.asked[0].Agents[0]
	if first.URL != "http://a1" || len(first.Tasks) != 2 || !slices.Equal(first.Prefixes, []string{"a.instance-"}) || m.asked[0].Framework != "fw" {
		t.Errorf("asked %+v", m.asked[0])
	}
	w.must(Change{DeploymentID: "d", Delete: []string{"/a"}})
	w.run(time.Minute)
	if left := w.left(); len(left) != 1 {
		t.Errorf("left in the store: %v", left)
	}
	if w.run(time.Hour); !w.core.Next().IsZero() && w.core.measuring.on {
		t.Error("it goes on measuring")
	}
}

func TestAutoscaleByMemoryAndRequests(t *testing.T) {
	w, m := newWorld(t), (*meters)(nil)
	m = newMeters(w)
	w.subscribe()
	m.mem["/m"], m.requests["/r"] = 24, 450
	w.mustPut(define(t, "/m", `"autoscale":{"maxInstances":4,"mem":0.5,"cooldownSeconds":0}`),
		define(t, "/r", `"autoscale":{"maxInstances":10,"requestsPerSecond":100,"requests":{"path":"/m"},"cooldownSeconds":0}`))
	w.run(5 * time.Minute)
	w.wantRunning("/m", 4) // however many there are: each uses as much
	w.wantRunning("/r", 5)
	last := m.asked[len(m.asked)-1]
	if c := last.Counters[0]; c.Address != "10.0.0.1:31000" || c.Path != "/m" || c.Metric != "http_requests_total" || !strings.HasPrefix(c.TaskID, "r.") {
		t.Errorf("asked for %+v", c)
	}
	for id := range last.Agents[0].Tasks {
		if strings.HasPrefix(id, "r.") {
			t.Errorf("the agent is asked about %s, which tells itself", id)
		}
	}
	m.silent[last.Counters[0].TaskID] = true
	w.run(time.Minute)
	wantText(t, "notes", w.notesOf("/r"), "1 of 5 instances could not be measured; the last: 10.0.0.1:31000 does not answer", "(4 of 5 instances measured)")
	w.wantRunning("/r", 5)
	if n := w.core.MeasureCounts().Failures; n < 3 {
		t.Errorf("%d failures", n)
	}
}

// What is not known moves nothing, in any direction, and is said.
func TestAutoscaleWithoutFigures(t *testing.T) {
	w, m := busyWorld(t, "")
	m.cpu["/a"] = 2
	m.silent["a1"] = true
	w.run(time.Hour)
	w.wantRunning("/a", 2)
	wantText(t, "a silent agent", w.notesOf("/a"), "cpu is not known of any of 2 instances", "2 of 2 instances could not be measured; the last: http://a1 does not answer")
	delete(m.silent, "a1")
	m.silent[w.live("/a")[0]] = true
	w.run(time.Hour)
	w.wantRunning("/a", 2) // one at twice its target, the other may be idle
	wantText(t, "a silent task", w.notesOf("/a"), "does not tell what a.instance-")
	clear(m.silent)
	w.run(2 * time.Minute)
	w.wantRunning("/a", 4)
	w.measure = nil // questions get lost
	m.cpu["/a"] = 0
	w.run(time.Hour)
	w.wantRunning("/a", 4)
	w.measure = m.answer
	w.run(10 * time.Minute)
	w.wantRunning("/a", 2)
}

// After a restart the address of the agent is known, also if it offers nothing,
// and the cool-down begins anew.
func TestAutoscaleSurvivesARestart(t *testing.T) {
	w, m := busyWorld(t, "")
	w.run(time.Minute)
	if w.saved[KeyAgent+"a1"] == nil {
		t.Fatal("the agent's address is not saved")
	}
	m.cpu["/a"] = 2
	w.agents["a1"].cpus = 2000
	w.crash()
	w.subscribe()
	w.run(55 * time.Second)
	w.wantRunning("/a", 2)
	w.run(30 * time.Second)
	v, _ := w.core.App(w.now, "/a")
	if v.App.Instances != 4 || v.Running != 2 || len(v.Deployments) != 1 {
		t.Fatalf("%d wanted, %d run, deployments %v; notes %v", v.App.Instances, v.Running, v.Deployments, v.Notes)
	}
	w.crash() // the deployment is one of ours afterwards too
	w.subscribe()
	m.cpu["/a"] = 0
	w.run(10 * time.Minute)
	w.wantRunning("/a", 2)
}

// Where nobody knows where an agent is, offers are asked for to learn it.
func TestAutoscaleLooksForAgents(t *testing.T) {
	w, m := busyWorld(t, "")
	m.cpu["/a"] = 2
	delete(w.saved, KeyAgent+"a1")
	w.crash()
	w.subscribe()
	w.suppressed = true // it had nothing to launch
	w.run(20 * time.Minute)
	w.wantRunning("/a", 4)
	if w.core.measuring.astray || !w.suppressed {
		t.Errorf("astray %v, suppressed %v", w.core.measuring.astray, w.suppressed)
	}
}

// A user's word counts, until the next decision; his deployments need not be
// forced past ours, and ours wait for his.
func TestAutoscaleAndUsers(t *testing.T) {
	w, m := busyWorld(t, "")
	m.cpu["/a"] = 1.25
	put := func(n int) error {
		def, _ := w.core.Definition("/a")
		def, err := Update(def, fmt.Appendf(nil, `{"instances":%d}`, n))
		if err != nil {
			return err
		}
		return w.put(def)
	}
	if err := put(5); err != nil {
		t.Fatal(err)
	}
	w.run(55 * time.Second)
	w.wantRunning("/a", 5)
	w.run(6 * time.Minute)
	w.wantRunning("/a", 3)
	var bad *BadDefinition
	if err := put(7); !errors.As(err, &bad) || bad.Problems[0].Path != "/instances" {
		t.Errorf("beyond the bounds: %v", err)
	}
	if err := w.batch(KillTasks{DeploymentID: "k", IDs: w.live("/a")[:2], Scale: true})[0]; !errors.As(err, &bad) {
		t.Errorf("killed below the bounds: %v", err)
	}
	if err := w.batch(ChangeGroup{DeploymentID: "g", Put: &Tree{Groups: []*Group{{ID: "/"}}, ScaleBy: new(3.0)}})[0]; !errors.As(err, &bad) {
		t.Errorf("a group beyond the bounds: %v", err)
	}
	w.wantRunning("/a", 3)

	w.agents["a1"].cpus = 4000
	m.cpu["/a"] = 3 // wants 6; there is room for 4
	w.run(90 * time.Second)
	if d := w.core.Deployments(); len(d) != 1 || !d[0].Auto {
		t.Fatalf("deployments %+v", d)
	}
	if err := put(4); err != nil { // without force
		t.Errorf("a user's change waits for ours: %v", err)
	}
	w.run(10 * time.Second)
	w.wantRunning("/a", 4)

	m.cpu["/a"] = 0
	def, _ := w.core.Definition("/a")
	next := *def
	next.Labels, w.agents["a1"].cpus, w.hold = map[string]string{"v": "2"}, 100000, true
	w.mustPut(&next)
	w.run(time.Hour)
	if d := w.core.Deployments(); len(d) != 1 || d[0].Auto {
		t.Fatalf("deployments %+v", d)
	}
	if def, _ := w.core.Definition("/a"); def.Instances != 4 {
		t.Errorf("scaled to %d in the midst of a deployment", def.Instances)
	}
	wantText(t, "while it deploys", w.notesOf("/a"), "waits for the end of the app's deployment")
	w.hold = false
	w.run(20 * time.Minute)
	w.wantRunning("/a", 2)
	if err := put(0); err != nil {
		t.Fatal(err)
	}
	m.cpu["/a"] = 9
	w.run(time.Hour)
	w.wantRunning("/a", 0)
	wantText(t, "suspended", w.notesOf("/a"), "suspended")
}

// A change of ours that finds no room is taken back when less is enough.
func TestAutoscaleTakesBack(t *testing.T) {
	w, m := busyWorld(t, "")
	w.agents["a1"].cpus = 3000
	m.cpu["/a"] = 2
	w.run(2 * time.Minute)
	if def, _ := w.core.Definition("/a"); def.Instances != 4 {
		t.Fatalf("%d instances are wanted", def.Instances)
	}
	m.cpu["/a"] = 9
	w.run(10 * time.Minute)
	if def, _ := w.core.Definition("/a"); def.Instances != 4 {
		t.Errorf("%d instances are wanted, though there is no room for 4", def.Instances)
	}
	m.cpu["/a"] = 0.2
	w.run(20 * time.Minute)
	w.wantRunning("/a", 2)
}

// Who does not say how many instances there shall be keeps those that there are.
func TestAutoscaleKeepsInstances(t *testing.T) {
	w, m := busyWorld(t, "")
	m.cpu["/a"] = 2
	w.run(2 * time.Minute)
	w.wantRunning("/a", 4)
	count := func() int { def, _ := w.core.Definition("/a"); return def.Instances }
	w.mustPut(define(t, "/a", scaled+`,"labels":{"v":"2"}`))
	w.run(30 * time.Second)
	w.wantRunning("/a", 4)
	old, _ := w.core.Definition("/a")
	tighter, err := Update(old, []byte(`{"autoscale":{"maxInstances":3,"cpu":0.5}}`))
	if err != nil {
		t.Fatal(err)
	}
	plan, err := w.core.PlanApp(Change{Put: []*App{tighter}})
	if err != nil || plan.Restarts || len(plan.Fields) != 2 || plan.Fields[1].After != 3.0 {
		t.Errorf("plan %+v, %v", plan, err)
	}
	w.mustPut(tighter)
	if count() != 3 {
		t.Errorf("%d in tighter bounds", count())
	}
	if err := w.batch(ChangeGroup{DeploymentID: "g", Put: readTree(t, `{"id":"/","apps":[{"id":"a","cmd":"x","cpus":1,"mem":32,"labels":{"v":"2"},"autoscale":{"maxInstances":3,"cpu":0.5}}]}`), Force: true})[0]; err != nil {
		t.Fatal(err)
	}
	if w.run(time.Minute); count() != 3 {
		t.Errorf("%d after a group was put", count())
	}
	zero, _ := w.core.Definition("/a")
	if zero, err = Update(zero, []byte(`{"instances":0}`)); err != nil {
		t.Fatal(err)
	}
	w.mustPut(zero)
	w.run(time.Minute)
	if zero, err = Update(zero, []byte(`{"labels":{"v":"3"}}`)); err != nil {
		t.Fatal(err)
	}
	w.mustPut(zero)
	if count() != 0 {
		t.Errorf("%d of a suspended app", count())
	}
}

func readTree(t tb, text string) *Tree {
	t.Helper()
	tree, err := ReadGroup([]byte(text), "/", "*")
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// Scaling by itself does not push out the versions that users have made.
func TestAutoscaleKeepsVersions(t *testing.T) {
	w, m := busyWorld(t, "")
	w.core.cfg.KeepVersions = 6
	for n := range 3 {
		w.mustPut(define(t, "/a", scaled+fmt.Sprintf(`,"labels":{"v":"%d"}`, n)))
		w.run(time.Minute)
	}
	for range 6 {
		m.cpu["/a"] = 2
		w.run(5 * time.Minute)
		m.cpu["/a"] = 0
		w.run(20 * time.Minute)
	}
	if n := w.core.MeasureCounts(); n.Ups < 6 || n.Downs < 6 {
		t.Fatalf("%+v", n)
	}
	list, _ := w.core.Versions("/a")
	configs := map[string]bool{}
	for _, v := range list {
		configs[v.Labels["v"]] = true
	}
	if len(list) != 6 || len(configs) != 4 {
		t.Errorf("%d versions, of the labels %v", len(list), slices.Sorted(maps.Keys(configs)))
	}
	if saved := w.versions("/a"); len(saved) != 6 {
		t.Errorf("%d versions are saved", len(saved))
	}
}

func TestAutoscaleProblems(t *testing.T) {
	for text, where := range map[string]string{
		`"autoscale":{"cpu":0.5}`:                                                                          "/autoscale/maxInstances",
		`"autoscale":{"cpu":0.5,"minInstances":3,"maxInstances":2}`:                                        "/autoscale/maxInstances",
		`"autoscale":{"cpu":0.5,"maxInstances":2000000}`:                                                   "/autoscale/maxInstances",
		`"autoscale":{"cpu":0.5,"minInstances":0,"maxInstances":2}`:                                        "/autoscale/minInstances",
		`"autoscale":{"maxInstances":2}`:                                                                   "/autoscale",
		`"autoscale":{"maxInstances":2,"cpu":-1}`:                                                          "/autoscale/cpu",
		`"autoscale":{"maxInstances":2,"cpu":70}`:                                                          "/autoscale/cpu",
		`"autoscale":{"maxInstances":2,"mem":11}`:                                                          "/autoscale/mem",
		`"autoscale":{"maxInstances":2,"mem":0.5},"mem":0`:                                                 "/autoscale/mem",
		`"autoscale":{"maxInstances":2,"requestsPerSecond":-1}`:                                            "/autoscale/requestsPerSecond",
		`"autoscale":{"maxInstances":2,"cpu":1,"requests":{}}`:                                             "/autoscale/requests",
		`"autoscale":{"maxInstances":2,"requestsPerSecond":1,"requests":{"portIndex":1}}`:                  "/autoscale/requests/portIndex",
		`"autoscale":{"maxInstances":2,"requestsPerSecond":1,"requests":{"path":"m"}}`:                     "/autoscale/requests/path",
		`"autoscale":{"maxInstances":2,"requestsPerSecond":1,"requests":{"path":"/ HTTP/1.1\r\nHost: x"}}`: "/autoscale/requests/path",
		`"autoscale":{"maxInstances":2,"requestsPerSecond":1,"requests":{"metric":"a{b}"}}`:                "/autoscale/requests/metric",
		`"autoscale":{"maxInstances":2,"cpu":1,"cooldownSeconds":-1}`:                                      "/autoscale/cooldownSeconds",
		`"autoscale":{"maxInstances":2,"cpu":1,"scaleDownAfterSeconds":-1}`:                                "/autoscale/scaleDownAfterSeconds",
		`"autoscale":{"maxInstances":2,"cpu":1},"instances":3`:                                             "/instances",
		`"autoscale":{"maxInstances":2,"minInstances":2,"cpu":1},"instances":1`:                            "/instances",
		`"autoscale":{"maxInstances":2,"cpu":1},"runOnce":true`:                                            "/autoscale",
		`"autoscale":{"maxInstances":2,"cpu":1},"everywhere":true`:                                         "/autoscale",
		`"autoscale":{"maxInstances":"2","cpu":1}`:                                                         "/autoscale/maxInstances",
		`"autoscale":{"maxInstances":2,"requestsPerSecond":1,"requests":{"portIndex":"x"}}`:                "/autoscale/requests/portIndex",
		`"autoscale":[]`: "/autoscale",
	} {
		_, err := Read([]byte(`{"id":"/a","cmd":"x",`+text+`}`), "*")
		var bad *BadDefinition
		if !errors.As(err, &bad) || len(bad.Problems) != 1 || bad.Problems[0].Path != where {
			t.Errorf("%s: %v, want one problem at %s", text, err, where)
		}
	}
	_, err := ReadPod([]byte(`{"id":"/p","containers":[{"name":"c","resources":{"cpus":1,"mem":32}}],"autoscale":{"maxInstances":2,"cpu":1}}`), "*")
	var bad *BadDefinition
	if !errors.As(err, &bad) || bad.Problems[0].Path != "/autoscale" {
		t.Errorf("a pod: %v", err)
	}
}

func TestAutoscaleDefaults(t *testing.T) {
	a := define(t, "/a", `"autoscale":{"maxInstances":9,"requestsPerSecond":5}`)
	want := &Autoscale{
		MinInstances: 1, MaxInstances: 9, RequestsPerSecond: 5, CooldownSeconds: 60, ScaleDownAfterSeconds: 300,
		Requests: &RequestCounter{Path: "/metrics", Metric: "http_requests_total"},
	}
	if d := cmp.Diff(want, a.Autoscale); d != "" {
		t.Error(d)
	}
	if b := define(t, "/a", ""); !sameConfig(a, b) {
		t.Error("autoscale restarts instances")
	}
	if b := define(t, "/b", `"autoscale":{"minInstances":3,"maxInstances":9,"cpu":1,"cooldownSeconds":0,"scaleDownAfterSeconds":0}`); b.Instances != 3 || b.Autoscale.CooldownSeconds != 0 {
		t.Errorf("%d instances, %+v", b.Instances, b.Autoscale)
	}
	if b := define(t, "/b", `"instances":0,"autoscale":{"minInstances":3,"maxInstances":9,"cpu":1}`); b.Instances != 0 {
		t.Errorf("%d instances of a suspended app", b.Instances)
	}
}

// Whatever happens: the bounds hold, changes are a cool-down apart, a suspended
// app stays so, and nothing changes without figures.
func TestAutoscaleProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, m := busyWorld(t, `,"labels":{"v":"0"}`)
		w.agents["a2"] = &fakeAgent{up: true, cpus: 3000}
		w.agents["a1"].cpus = int64(rapid.IntRange(2, 8).Draw(t, "room")) * 1000
		last, since := 2, t0
		var figures time.Time
		for range rapid.IntRange(1, 10).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"load", "load", "load", "silence", "crash", "kill", "user", "suspend", "lose"}).Draw(t, "what") {
			case "load":
				m.pass()
				m.cpu["/a"] = rapid.SampledFrom([]float64{0, 0.5, 1, 1.6, 2.5, 30}).Draw(t, "cpu")
				clear(m.silent)
				w.measure = m.answer
			case "silence":
				m.silent["a1"], m.silent["a2"] = rapid.Bool().Draw(t, "a1"), rapid.Bool().Draw(t, "a2")
			case "lose":
				w.measure = nil
			case "crash":
				w.crash()
				w.subscribe()
			case "kill":
				if ids := w.live("/a"); len(ids) > 0 {
					w.batch(KillTasks{IDs: ids[:1]})
				}
			case "user", "suspend":
				n := rapid.SampledFrom([]int{0, 2, 4, 6, 7}).Draw(t, "n")
				def, _ := w.core.Definition("/a")
				if next, err := Update(def, fmt.Appendf(nil, `{"instances":%d}`, n)); err == nil && w.put(next) == nil {
					if n != last {
						last, since = n, w.now
					}
				}
			}
			for range rapid.IntRange(1, 20).Draw(t, "rounds") {
				w.run(10 * time.Second)
				if w.measure != nil && (!m.silent["a1"] || !m.silent["a2"]) {
					figures = w.now
				}
				def, _ := w.core.Definition("/a")
				if def.Instances == last {
					continue
				}
				switch {
				case last == 0:
					t.Fatalf("a suspended app has %d instances", def.Instances)
				case def.Instances < 2 || def.Instances > 6:
					t.Fatalf("%d instances", def.Instances)
				case w.now.Sub(since) < 50*time.Second: // it is seen up to 10 s late
					t.Fatalf("from %d to %d %v after the last change", last, def.Instances, w.now.Sub(since))
				case w.now.Sub(figures) > 30*time.Second:
					t.Fatalf("from %d to %d, the last figures came %v ago", last, def.Instances, w.now.Sub(figures))
				}
				last, since = def.Instances, w.now
			}
		}
	})
}
