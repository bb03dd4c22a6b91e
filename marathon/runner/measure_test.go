package runner

import (
	"encoding/json"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mesopool/mesopool/marathon"
	"github.com/mesopool/mesopool/store"
	"github.com/mesopool/mesopool/task"
)

// genuine is an answer as a genuine agent gives it (slave/http.cpp,
// STATISTICS_HELP), with tasks of others and one that is not measured.
const genuine = `[{"executor_id":"a.instance-1._app.1","executor_name":"Command Executor","framework_id":"fw","source":"a.instance-1._app.1",
  "statistics":{"cpus_limit":8.25,"cpus_nr_periods":769021,"cpus_system_time_secs":34501.45,"cpus_user_time_secs":96348.84,"cpus_throttled_time_secs":352.597023453,
  "mem_anon_bytes":4845449216,"mem_limit_bytes":7650410496,"mem_rss_bytes":5105614848,"timestamp":1388534400.5}},
 {"executor_id":"a.instance-2._app.1","framework_id":"other","statistics":{"timestamp":1388534400.0,"cpus_user_time_secs":1,"cpus_system_time_secs":1}},
 {"executor_id":"a.instance-3._app.1","framework_id":"fw","statistics":{"timestamp":1388534400.0,"cpus_limit":1,"mem_limit_bytes":1,"cpus_user_time_secs":1}},
 {"executor_id":"a.instance-4._app.1","framework_id":"fw","statistics":{"cpus_user_time_secs":1,"cpus_system_time_secs":1,"mem_rss_bytes":1}},
 {"executor_id":"a.instance-5._app.1","framework_id":"fw","statistics":{"timestamp":1e300,"mem_rss_bytes":1}},
 {"executor_id":"b.instance-6._app.1","framework_id":"fw","statistics":{"timestamp":1388534400.0,"mem_rss_bytes":1}}]`

func TestReadStatistics(t *testing.T) {
	tasks := map[string]bool{}
	for n := range 6 {
		tasks[fmt.Sprintf("a.instance-%d._app.1", n)] = true
	}
	got, err := readStatistics(strings.NewReader(genuine), "fw", tasks)
	want := map[string]marathon.TaskUsage{
		"a.instance-1._app.1": {At: time.Unix(1388534400, 5e8), CPU: new(34501.45 + 96348.84), Mem: new(5105614848.0)},
		"a.instance-3._app.1": {At: time.Unix(1388534400, 0)},
	}
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Errorf("%v\n%s", err, d)
	}
	for text, words := range map[string]string{
		"": "EOF", "{}": "no JSON array", "null": "no JSON array", `[{"executor_id":1}]`: "cannot unmarshal", genuine[:len(genuine)-1]: "EOF", genuine[:500]: "EOF",
		`[` + strings.Repeat(" ", mostStatistics) + `]`: "longer than 64 MiB",
	} {
		if got, err := readStatistics(strings.NewReader(text), "fw", tasks); err == nil || !strings.Contains(err.Error(), words) || got != nil {
			t.Errorf("%.20q: %v, %v; want %q", text, got, err, words)
		}
	}
}

func FuzzReadStatistics(f *testing.F) {
	f.Add(genuine)
	f.Add(`[{"executor_id":"t","framework_id":"fw","statistics":{"timestamp":1,"cpus_user_time_secs":-1,"cpus_system_time_secs":0,"mem_rss_bytes":-1}}]`)
	f.Fuzz(func(t *testing.T, text string) {
		got, err := readStatistics(strings.NewReader(text), "fw", map[string]bool{"t": true, "a.instance-1._app.1": true})
		if err != nil && got != nil {
			t.Errorf("both %v and %v", got, err)
		}
		for id, u := range got {
			if u.At.Unix() < 0 || u.CPU != nil && *u.CPU < 0 || u.Mem != nil && *u.Mem < 0 {
				t.Errorf("%s uses %+v", id, u)
			}
		}
	})
}

const exposition = `# HELP http_requests_total All "requests".
# TYPE http_requests_total counter
http_requests_total{code="200",method="get"} 1027 1395066363000
http_requests_total{code="400",method="a\nb # TYPE x"}    3
http_requests_total_more{a="b"} 5
# TYPE http_requests gauge
http_requests 7
# TYPE latency histogram
latency_bucket{le="1"} 4
latency_bucket{le="+Inf"} 6
latency_sum 3.5
latency_count 6
# TYPE nothing counter
untyped 4e3
bad -1
# TYPE worse counter
worse NaN
twice 1
twice 1
garbled{ 1
# TYPE wrong gauge
wrong 1
`

func TestReadCounter(t *testing.T) {
	for metric, want := range map[string]any{
		"http_requests_total": 1030.0, "latency_count": 6.0, "untyped": 4000.0, "http_requests": "is a GAUGE", "latency": "no metric latency",
		"nothing": "no metric nothing", "none": "no metric none", "bad": "is -1", "worse": "is NaN", "garbled": "cannot be read", "wrong": "is a GAUGE",
		"latency_bucket": 10.0, "twice": 2.0,
	} {
		got, err := readCounter(strings.NewReader(exposition), metric)
		if n, ok := want.(float64); ok && (err != nil || got != n) {
			t.Errorf("%s: %v, %v; want %v", metric, got, err, n)
		} else if words, ok := want.(string); ok && (err == nil || !strings.Contains(err.Error(), words)) {
			t.Errorf("%s: %v, %v; want %q", metric, got, err, words)
		}
	}
	for what, text := range map[string]string{
		"a long line": "x{a=\"" + strings.Repeat("y", mostLine) + "\"} 1\n", "too much": strings.Repeat("# a comment that goes on and on\n", mostMetrics/32+1),
		"many samples": strings.Repeat("x 1\n", mostCounter/4+1),
	} {
		if got, err := readCounter(strings.NewReader(text), "x"); err == nil {
			t.Errorf("%s: %v", what, got)
		}
	}
}

func FuzzReadCounter(f *testing.F) {
	f.Add(exposition, "http_requests_total")
	f.Add("x{a=\"b\",} 1 2\nx +Inf\n", "x")
	f.Fuzz(func(t *testing.T, text, metric string) {
		v, err := readCounter(strings.NewReader(text), metric)
		if math.IsNaN(v) || math.IsInf(v, 0) || v < 0 || err != nil && v != 0 {
			t.Errorf("%v, %v", v, err)
		}
	})
}

// busyAgent answers as an agent does whose containers use so many CPUs each; its
// clock is ten seconds on with each answer.
type busyAgent struct {
	*httptest.Server
	mu      sync.Mutex
	cpus    float64
	used    float64
	asked   int
	queries []string
	tasks   func() []string
}

func newBusyAgent(t *testing.T, tasks func() []string) *busyAgent {
	a := &busyAgent{tasks: tasks}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /slave(1)/monitor/statistics", a.statistics)
	a.Server = httptest.NewServer(mux)
	t.Cleanup(a.Close)
	return a
}

func (a *busyAgent) statistics(w http.ResponseWriter, r *http.Request) {
	tasks := a.tasks()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked++
	a.used += 10 * a.cpus
	a.queries = append(a.queries, r.URL.RawQuery)
	out := []map[string]any{}
	for _, id := range tasks {
		out = append(out, map[string]any{"framework_id": "fw", "executor_id": id, "statistics": map[string]float64{
			"timestamp": 1.8e9 + 10*float64(a.asked), "cpus_user_time_secs": a.used, "cpus_system_time_secs": 1, "mem_rss_bytes": 1 << 20,
		}})
	}
	json.NewEncoder(w).Encode(out)
}

func (a *busyAgent) use(cpus float64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cpus = cpus
}

// TestAutoscale goes the whole way: a fake agent tells what containers use, and a
// fake instance its requests; the apps grow, and shrink again.
func TestAutoscale(t *testing.T) {
	var served float64 = 1e6
	var mu sync.Mutex
	begun := time.Now()
	rate := func(perSecond float64) float64 {
		mu.Lock()
		defer mu.Unlock()
		served += time.Since(begun).Seconds() * perSecond
		begun = time.Now()
		return served
	}
	instance := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "# TYPE hits_total counter\nhits_total{code=\"200\"} %v\nhits_total{code=\"500\"} 7\n", rate(900))
	}))
	defer instance.Close()
	_, port, _ := net.SplitHostPort(instance.Listener.Addr().String())
	s := store.NewMemory()
	r, d, stop := start(t, s, map[string]task.State{})
	agent := newBusyAgent(t, d.ids)
	agent.use(2)
	d.mu.Lock()
	d.url = agent.URL + "/slave(1)"
	d.mu.Unlock()
	if err := r.Subscribed("fw", "m"); err != nil {
		t.Fatal(err)
	}
	put(t, r, `{"id":"/c","cmd":"x","cpus":1,"autoscale":{"minInstances":2,"maxInstances":6,"cpu":0.5,"cooldownSeconds":0,"scaleDownAfterSeconds":0}}`)
	put(t, r, `{"id":"/r","cmd":"x","portDefinitions":[{"port":`+port+`}],"autoscale":{"maxInstances":3,"requestsPerSecond":100,
		"requests":{"path":"/metrics?x=1","metric":"hits_total"},"cooldownSeconds":0}}`)
	until(t, r, "busy", runs("/c", 6))
	until(t, r, "many requests", runs("/r", 3))
	agent.use(0)
	until(t, r, "idle", runs("/c", 2))
	var notes string
	r.View(t.Context(), func(c *marathon.Core) { v, _ := c.App(time.Now(), "/r"); notes = strings.Join(v.Notes, "\n") })
	if !strings.Contains(notes, "requests per second is ") {
		t.Errorf("notes: %s", notes)
	}
	agent.mu.Lock()
	if q := agent.queries[0]; q != "executor_prefix=c.instance-&framework_id=fw" {
		t.Errorf("the agent was asked for %s", q)
	}
	agent.mu.Unlock()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	saved, err := load(t.Context(), s)
	if err != nil || len(saved.Addresses) != 1 || *saved.Addresses[0] != (marathon.AgentAddress{ID: "a", URL: agent.URL + "/slave(1)"}) {
		t.Errorf("addresses %v, %v", saved.Addresses, err)
	}
}

// What cannot be measured is said by its agent or task, and keeps nothing else
// from being measured.
func TestMeasureFailures(t *testing.T) {
	h := http.NewServeMux()
	h.HandleFunc("/closed/monitor/statistics", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	h.HandleFunc("/moved/monitor/statistics", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/good/monitor/statistics", http.StatusFound)
	})
	h.HandleFunc("/bad/monitor/statistics", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") })
	h.HandleFunc("/good/monitor/statistics", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, genuine) })
	h.HandleFunc("/cut", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "99")
		fmt.Fprint(w, "x 1\n")
	})
	h.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "x 1\n") })
	server := httptest.NewServer(h)
	defer server.Close()
	gone := httptest.NewServer(h)
	gone.Close()
	here, away := server.Listener.Addr().String(), gone.Listener.Addr().String()
	tasks := map[string]bool{"a.instance-1._app.1": true}
	e := marathon.Measure{Round: 3, Framework: "fw"}
	for _, id := range []string{"closed", "moved", "bad", "good", "none"} {
		e.Agents = append(e.Agents, marathon.AgentToMeasure{ID: id, URL: server.URL + "/" + id, Tasks: tasks, Prefixes: slices.Repeat([]string{"a.instance-"}, 2*mostPrefixes)})
	}
	e.Agents = append(e.Agents, marathon.AgentToMeasure{ID: "gone", URL: gone.URL}, marathon.AgentToMeasure{ID: "odd", URL: "http://[::1"})
	e.Counters = []marathon.CounterToRead{
		{TaskID: "t-good", Address: here, Path: "/metrics", Metric: "x"},
		{TaskID: "t-public", Address: away, Public: here, Path: "/metrics", Metric: "x"},
		{TaskID: "t-gone", Address: away, Path: "/metrics", Metric: "x"},
		{TaskID: "t-other", Address: here, Path: "/metrics", Metric: "y"},
		{TaskID: "t-cut", Address: here, Path: "/cut", Metric: "x"},
		{TaskID: "t-none", Address: here, Path: "/none", Metric: "x"},
	}
	got := newChecker(nil).measure(e)(t.Context()).(marathon.Measured)
	if got.Round != 3 || len(got.Usage) != 1 || len(got.Requests) != 2 || got.Requests["t-public"].Value != 1 || got.Requests["t-good"].At.IsZero() {
		t.Errorf("measured %+v", got)
	}
	want := map[string]string{
		"closed": "answered 401", "moved": "answered 302", "bad": "cannot be read", "none": "answered 404", "gone": "refused", "odd": "missing ']'",
		"t-gone": "refused", "t-other": "no metric y", "t-cut": "unexpected EOF", "t-none": "answered 404",
	}
	for id, words := range want {
		if !strings.Contains(got.Failed[id], words) {
			t.Errorf("%s: %q lacks %q", id, got.Failed[id], words)
		}
	}
	if len(got.Failed) != len(want) {
		t.Errorf("failed: %v", got.Failed)
	}
}
