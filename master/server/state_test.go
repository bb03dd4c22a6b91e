package server

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/mesos/mesosjson"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	masterv1 "github.com/mesopool/mesopool/mesos/v1/master"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// captured reads an answer of a genuine master.
func captured(t testing.TB, name string) value {
	t.Helper()
	text, err := os.ReadFile("../../../shared/captures/" + name)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("%s is not here: the reference data is not part of a clone", name)
	}
	if err != nil {
		t.Fatal(err)
	}
	return parseJSON(t, string(text))
}

// cluster is a master with an agent, an old framework that is over and one
// that runs task t1.
type cluster struct {
	*testMaster
	framework, agent string
}

func startCluster(t testing.TB) *cluster {
	t.Helper()
	m := startMaster(t, "", func(c *Config) {
		c.Build = Build{Date: time.Unix(1_700_000_000, 0), SHA: "5ce2c80b", Branch: "refs/heads/main"}
		c.Cluster = ""
		c.Pages = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "a page") })
	})
	startAgent(t, m, "cpus:2;mem:2048;disk:4096;ports:[31000-32000]")
	old := func(f *mesosv1.FrameworkInfo) {
		f.Capabilities, f.Roles = f.Capabilities[:1], nil
	}
	over := startFramework(t, m.addr, frameworkOf("over", old))
	id := over.next(t, "subscribed").id
	over.launch(t, id, "t0")
	over.state(t, "t0", task.Running)
	over.Teardown()
	over.next(t, "disconnected")
	over.stop()
	f := startFramework(t, m.addr, frameworkOf("mesos-execute instance", old))
	id = f.next(t, "subscribed").id
	o := f.launch(t, id, "t1")
	f.state(t, "t1", task.Running)
	m.until(t, "t1 running and the rest offered", func(s *master.Snapshot) bool {
		return len(s.Frameworks) == 1 && len(s.Frameworks[0].Tasks) == 1 && s.Count.Acknowledgements >= 2 && len(s.Frameworks[0].Offers) == 1
	})
	return &cluster{m, id, o.Agent}
}

// shape lists the paths of a document with the types of their values. Names
// that are data, not structure, become *.
func shape(out map[string]string, path string, v any) {
	switch x := v.(type) {
	case map[string]any:
		for k, v := range x {
			if path == ".flags" || strings.HasSuffix(path, ".attributes") || strings.HasSuffix(path, "reserved_resources") && !strings.Contains(path, "unreserved") {
				k = "*"
			}
			shape(out, path+"."+k, v)
		}
	case []any:
		for _, v := range x {
			shape(out, path+"[]", v)
		}
	case string:
		out[path] = "string"
	case bool:
		out[path] = "bool"
	case float64:
		out[path] = "number"
	}
}

// TestStateLikeCaptured compares /state with that of a genuine master: the
// same names with values of the same types, but for what the clusters differ in.
func TestStateLikeCaptured(t *testing.T) {
	want, got := map[string]string{}, map[string]string{}
	shape(want, "", map[string]any(captured(t, "master-state.json")))
	c := startCluster(t)
	_, text := c.get(t, "/state")
	shape(got, "", map[string]any(parseJSON(t, text)))
	for _, absent := range []string{
		".slaves[].reregistered_time", // that agent had been restarted
	} {
		delete(want, absent)
	}
	maps.DeleteFunc(got, func(path, _ string) bool {
		return strings.Contains(path, ".offers[].") || // nothing was offered at that moment
			strings.Contains(path, ".container") || strings.Contains(path, "offered_resources.ports") || strings.HasSuffix(path, "[].resources.ports")
	})
	maps.DeleteFunc(want, func(path, _ string) bool {
		return strings.Contains(path, ".container") || strings.HasSuffix(path, "[].resources.ports")
	})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-genuine +ours:\n%s", diff)
	}
}

func TestStateValues(t *testing.T) {
	c := startCluster(t)
	_, text := c.get(t, "/master/state")
	v := parseJSON(t, text)
	for _, x := range []struct {
		path []any
		want any
	}{
		{[]any{"leader"}, "master@" + c.addr},
		{[]any{"slaves", 0, "id"}, c.agent},
		{[]any{"slaves", 0, "attributes", "rack"}, "r1"},
		{[]any{"slaves", 0, "resources", "ports"}, "[31000-32000]"},
		{[]any{"slaves", 0, "used_resources", "cpus"}, 0.1},
		{[]any{"slaves", 0, "offered_resources", "cpus"}, 1.9},
		{[]any{"frameworks", 0, "id"}, c.framework},
		{[]any{"frameworks", 0, "role"}, "*"},
		{[]any{"frameworks", 0, "offers", 0, "resources", "mem"}, 2016.0},
		{[]any{"frameworks", 0, "tasks", 0, "state"}, "TASK_RUNNING"},
		{[]any{"frameworks", 0, "tasks", 0, "executor_id"}, ""},
		{[]any{"frameworks", 0, "tasks", 0, "container", "docker", "image"}, "web:1"},
		{[]any{"completed_frameworks", 0, "completed_tasks", 0, "state"}, "TASK_KILLED"},
	} {
		if got := v.path(x.path...); got != x.want {
			t.Errorf("%v = %v, want %v", x.path, got, x.want)
		}
	}
	statuses := v.path("frameworks", 0, "tasks", 0, "statuses").([]any)
	running := value(statuses[len(statuses)-1].(map[string]any))
	if running["state"] != "TASK_RUNNING" || running.path("container_status", "network_infos", 0, "ip_addresses", 0, "ip_address") == nil {
		t.Errorf("the last status is %v", running)
	}
	if !strings.Contains(text, `"activated_slaves":1.0,`) {
		t.Error("counts of agents are not printed as doubles")
	}
}

// TestMetricsLikeCaptured: exporters ask for exact names.
func TestMetricsLikeCaptured(t *testing.T) {
	want := captured(t, "metrics.json")
	c := startCluster(t)
	_, text := c.get(t, "/metrics/snapshot")
	got := parseJSON(t, text)
	var genuine string
	for k := range want {
		if rest, ok := strings.CutPrefix(k, "master/frameworks/"); ok && strings.HasSuffix(k, "-0004/subscribed") {
			genuine = "master/frameworks/" + strings.TrimSuffix(rest, "subscribed")
		}
	}
	ours := "master/frameworks/mesos-execute%20instance/" + c.framework + "/"
	var missing []string
	for k := range want {
		name, ofFramework := strings.CutPrefix(k, genuine)
		switch {
		case ofFramework:
			k = ours + name
		case strings.HasPrefix(k, "master/frameworks/"), strings.Contains(k, "/reason_executor_terminated"), strings.Contains(k, "/quota/roles/"):
			continue // of that cluster
		}
		if _, ok := got[k].(float64); !ok {
			missing = append(missing, k)
		}
	}
	if slices.Sort(missing); len(missing) > 0 {
		t.Errorf("missing:\n%s", strings.Join(missing, "\n"))
	}
	for name, want := range map[string]float64{
		"master/tasks_running": 1, "master/slaves_active": 1, "master/frameworks_active": 1, "master/outstanding_offers": 1,
		"master/cpus_total": 2, "master/cpus_used": 0.1, "master/slave_registrations": 1, "master/tasks_killed": 1,
		ours + "subscribed": 1, ours + "tasks/active/task_running": 1, ours + "calls/subscribe": 0, ours + "events/subscribed": 1, ours + "operations/launch": 1,
	} {
		if got[name] != want {
			t.Errorf("%s = %v, want %v", name, got[name], want)
		}
	}
}

func TestEndpoints(t *testing.T) {
	c := startCluster(t)
	for _, x := range []struct {
		path string
		key  []any
		want any
	}{
		{"/slaves", []any{"slaves", 0, "unreserved_resources_full", 0, "role"}, "*"},
		{"/slaves/" + c.agent, []any{"slaves", 0, "id"}, c.agent},
		{"/slaves?slave_id=other", []any{"slaves", 0}, nil},
		{"/master/frameworks/", []any{"frameworks", 0, "id"}, c.framework},
		{"/frameworks?framework_id=other&order=dsc&limit=-1", []any{"frameworks", 0}, nil},
		{"/tasks", []any{"tasks", 1, "id"}, "t0"},
		{"/tasks?order=asc&limit=-1", []any{"tasks", 1, "id"}, "t1"},
		{"/tasks?limit=1", []any{"tasks", 1}, nil},
		{"/tasks?offset=1&limit=5", []any{"tasks", 0, "id"}, "t0"},
		{"/tasks/?task_id=t1&framework_id=" + c.framework, []any{"tasks", 0, "id"}, "t1"},
		{"/tasks?task_id=t2", []any{"tasks", 0}, nil},
		{"/roles", []any{"roles", 0, "name"}, "*"},
		{"/master/state.json", []any{"hostname"}, "127.0.0.1"},
		{"/state-summary", []any{"slaves", 0, "TASK_RUNNING"}, 1.0},
		{"/state-summary", []any{"frameworks", 0, "slave_ids", 0}, c.agent},
		{"/version", []any{"version"}, "1.11.0"},
		{"/flags", []any{"flags", "agent_ping_timeout"}, "15secs"},
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			resp, text := c.ask(t, method, x.path, "")
			if resp.StatusCode != http.StatusOK || resp.Header.Get("Access-Control-Allow-Origin") != "*" {
				t.Errorf("%s %s: %s %v", method, x.path, resp.Status, resp.Header)
				continue
			}
			if got := parseJSON(t, text).path(x.key...); got != x.want {
				t.Errorf("%s %s: %v = %v, want %v", method, x.path, x.key, got, x.want)
			}
		}
	}
}

func TestPlainEndpoints(t *testing.T) {
	c := startCluster(t)
	for _, x := range []struct {
		method, path string
		status       int
		body         string
	}{
		{"GET", "/health", 200, ""},
		{"GET", "/master/health", 200, ""},
		{"GET", "/master/redirect", 307, ""},
		{"GET", "/", 200, "a page"},
		{"GET", "/redirect/more", 200, "a page"},
		{"GET", "/a/../b", 404, "404 Not Found."},
		{"GET", "/state?jsonp=alert(1)", 400, `The jsonp callback "alert(1)" is not a name`},
		{"OPTIONS", "/state", 200, ""},
		{"GET", "/teardown", 405, "Expecting one of { 'POST' }, but received 'GET'"},
		{"POST", "/master/teardown", 400, "Missing 'frameworkId' query parameter"},
		{"POST", "/master/teardown?frameworkId=x", 400, `No framework found with specified ID "x"`},
	} {
		resp, text := c.ask(t, x.method, x.path, "")
		if resp.StatusCode != x.status || text != x.body {
			t.Errorf("%s %s: %s %q, want %d %q", x.method, x.path, resp.Status, text, x.status, x.body)
		}
	}
	if resp, _ := c.get(t, "/redirect"); resp.Header.Get("Location") != "//"+c.addr {
		t.Errorf("redirected to %q", resp.Header.Get("Location"))
	}
	if _, text := c.get(t, "/metrics"); !strings.Contains(text, `mesopool_master_tasks{state="running"} 1`) {
		t.Errorf("no running task in\n%s", text)
	}
	if resp, text := c.get(t, "/master/state?jsonp=angular.callbacks._0"); !strings.HasPrefix(text, "angular.callbacks._0({") || !strings.HasSuffix(text, "});") || resp.Header.Get("Content-Type") != "text/javascript" {
		t.Errorf("jsonp: %v %.40q", resp.Header, text)
	}
}

func TestGzip(t *testing.T) {
	c := startCluster(t)
	resp, zipped := c.get(t, "/state", "Accept-Encoding", "gzip, deflate")
	if resp.Header.Get("Content-Encoding") != "gzip" {
		t.Fatalf("headers: %v", resp.Header)
	}
	z, err := gzip.NewReader(strings.NewReader(zipped))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if _, err := io.Copy(&out, z); err != nil || !json.Valid(out.Bytes()) {
		t.Errorf("%v in %s", err, out.String())
	}
	if resp, _ := c.get(t, "/version", "Accept-Encoding", "gzip"); resp.Header.Get("Content-Encoding") != "" {
		t.Error("a small answer is compressed")
	}
}

func TestOperator(t *testing.T) {
	c := startCluster(t)
	j := []string{"Content-Type", typeJSON}
	for _, x := range []struct {
		call string
		path []any
		want any
	}{
		{"GET_HEALTH", []any{"get_health", "healthy"}, true},
		{"GET_VERSION", []any{"get_version", "version_info", "version"}, "1.11.0"},
		{"GET_MASTER", []any{"get_master", "master_info", "pid"}, "master@" + c.addr},
		{"GET_AGENTS", []any{"get_agents", "agents", 0, "total_resources", 0, "role"}, "*"},
		{"GET_AGENTS", []any{"get_agents", "agents", 0, "agent_info", "id", "value"}, c.agent},
		{"GET_FRAMEWORKS", []any{"get_frameworks", "frameworks", 0, "framework_info", "id", "value"}, c.framework},
		{"GET_FRAMEWORKS", []any{"get_frameworks", "completed_frameworks", 0, "active"}, false},
		{"GET_TASKS", []any{"get_tasks", "tasks", 0, "state"}, "TASK_RUNNING"},
		{"GET_TASKS", []any{"get_tasks", "completed_tasks", 0, "task_id", "value"}, "t0"},
		{"GET_STATE", []any{"get_state", "get_tasks", "tasks", 0, "name"}, "t1"},
		{"GET_ROLES", []any{"get_roles", "roles", 0, "name"}, "*"},
		{"GET_EXECUTORS", []any{"type"}, "GET_EXECUTORS"},
		{"GET_OPERATIONS", []any{"type"}, "GET_OPERATIONS"},
		{"GET_FLAGS", []any{"get_flags", "flags", 0, "name"}, "agent_ping_timeout"},
		{"GET_METRICS", []any{"get_metrics", "metrics", 0, "name"}, "allocator/event_queue_dispatches"},
	} {
		resp, text := c.post(t, "/api/v1", `{"type":"`+x.call+`"}`, j...)
		if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != typeJSON {
			t.Errorf("%s: %s %s", x.call, resp.Status, text)
			continue
		}
		if got := parseJSON(t, text).path(x.path...); got != x.want {
			t.Errorf("%s: %v = %v, want %v", x.call, x.path, got, x.want)
		}
		_, text = c.post(t, "/master/api/v1", mustMarshal(t, &masterv1.Call{Type: masterv1.Call_Type(masterv1.Call_Type_value[x.call]).Enum()}), "Content-Type", typeProtobuf, "Accept", typeProtobuf)
		out := &masterv1.Response{}
		if err := proto.Unmarshal([]byte(text), out); err != nil || out.GetType().String() != x.call {
			t.Errorf("%s as protobuf: %v, %v", x.call, err, out.GetType())
		}
	}
}

func TestOperatorCodes(t *testing.T) {
	c := startCluster(t)
	for _, x := range []struct {
		name, body string
		header     []string
		status     int
		text       string
	}{
		{"no content type", "{}", nil, 400, "Expecting 'Content-Type' to be present"},
		{"no type", `{"type":"NOPE"}`, []string{"Content-Type", typeJSON}, 400, "Failed to validate master::Call: Expecting 'type' to be present"},
		{"nothing acceptable", `{"type":"GET_HEALTH"}`, []string{"Content-Type", typeJSON, "Accept", "text/html"}, 406, "Expecting 'Accept' to allow"},
		{"later", `{"type":"READ_LOG"}`, []string{"Content-Type", typeJSON}, 501, "This master does not have the call READ_LOG"},
		{"teardown of nothing", `{"type":"TEARDOWN"}`, []string{"Content-Type", typeJSON}, 400, "Expecting 'teardown' to be present"},
		{"teardown of nobody", `{"type":"TEARDOWN","teardown":{"framework_id":{"value":"x"}}}`, []string{"Content-Type", typeJSON}, 400, "No framework found"},
		{"teardown", `{"type":"TEARDOWN","teardown":{"framework_id":{"value":"` + c.framework + `"}}}`, []string{"Content-Type", typeJSON}, 200, ""},
	} {
		resp, text := c.post(t, "/api/v1", x.body, x.header...)
		if resp.StatusCode != x.status || !strings.Contains(text, x.text) {
			t.Errorf("%s: %s %q, want %d %q", x.name, resp.Status, text, x.status, x.text)
		}
	}
	c.until(t, "both frameworks over", func(s *master.Snapshot) bool { return len(s.Frameworks) == 0 && len(s.Completed) == 2 })
}

// TestNotModified: a reader who has the newest state does not get it again.
func TestNotModified(t *testing.T) {
	m := startMaster(t, "", nil)
	m.until(t, "anything", func(*master.Snapshot) bool { return true })
	resp, _ := m.get(t, "/state")
	tag := resp.Header.Get("Etag")
	if resp, text := m.get(t, "/state", "If-None-Match", tag); tag == "" || resp.StatusCode != http.StatusNotModified || text != "" {
		t.Errorf("with the tag %s: %s %q", tag, resp.Status, text)
	}
	resp, _ = m.ask(t, http.MethodPut, "/weights", `[{"role":"b","weight":3}]`)
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	if resp, text := m.get(t, "/state", "If-None-Match", tag); resp.StatusCode != http.StatusOK || text == "" {
		t.Errorf("after a change: %s %q", resp.Status, text)
	}
}

// TestMilli: thousandths are printed as the doubles that they are.
func TestMilli(t *testing.T) {
	for _, m := range []resources.Milli{0, 1, 10, 100, 101, 110, 999, 1000, 1001, 12_340, 1_000_000_000_123, 999_999_999_999_999, 1e15, 1e15 + 1, -1, -1500} {
		j := &jsonWriter{}
		j.milli("x", m)
		if want := `"x":` + string(mesosjson.AppendFloat(nil, m.Float())); string(j.buf) != want {
			t.Errorf("%d: %s, want %s", m, j.buf, want)
		}
	}
}

// TestUsedBy: the quick sum is the sum.
func TestUsedBy(t *testing.T) {
	f := &master.FrameworkView{}
	var want resources.Resources
	for i, text := range []string{"cpus:1;mem:32", "cpus:2;ports:[1-2]", "cpus(web):1;mem:1", "cpus:3;x:{a}", "cpus:0.5;mem:8;ports:[4-5]"} {
		r := parse(t, text).Allocated([]string{"a", "b"}[i%2])
		want = want.Add(r...)
		f.Tasks = append(f.Tasks, &master.Task{Resources: r, State: task.Running}, &master.Task{Resources: r, State: task.Finished})
	}
	if got := usedBy(f); !got.Equal(want) || len(got) != len(want) {
		t.Errorf("used %s, want %s", got, want)
	}
	if r := f.Tasks[0].Resources; r.Amount("cpus") != 1000 {
		t.Errorf("a task's own resources became %s", r)
	}
}

// TestLongLists: what several goroutines print is in order and whole.
func TestLongLists(t *testing.T) {
	m := startMaster(t, "", nil)
	m.get(t, "/state") // it leads
	for _, n := range []int{0, 1, 2*together - 1, 2 * together, 2*together + 1, 7*together + 3} {
		snap := largeState(t, n)
		w := httptest.NewRecorder()
		j := newJSONWriter(w, &http.Request{Header: http.Header{}})
		m.writeState(j, &query{snap: snap, whole: snap, sees: m.viewer(t.Context())})
		j.close()
		v := parseJSON(t, w.Body.String())
		list, _ := v.path("frameworks", 0, "tasks").([]any)
		if len(list) != n {
			t.Fatalf("%d tasks, want %d", len(list), n)
		}
		for i, row := range snap.Frameworks[0].Tasks {
			if got := value(list[i].(map[string]any)); got["id"] != row.Key.ID || got.path("container", "docker", "image") != "web:1" ||
				got.path("labels", 0, "value") != "shop" || got["user"] != "root" ||
				got.path("statuses", 1, "container_status", "network_infos", 0, "ip_addresses", 0, "ip_address") != "10.0.0.1" {
				t.Fatalf("task %d: %v", i, got)
			}
		}
	}
}
