package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mesopool/mesopool/internal/uuid"
	"github.com/mesopool/mesopool/marathon"
	"github.com/mesopool/mesopool/marathon/runner"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/store"
	"github.com/mesopool/mesopool/task"
)

// site is the API with a real runner and a master that runs everything at once.
type site struct {
	*httptest.Server
	t *testing.T
	r *runner.Runner

	mu     sync.Mutex
	offers int
	deaf   bool   // kills are not answered
	role   string // of the offers
	agent  string // its URL in them
}

func newID() string { return uuid.New().String() }

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, role: "*"}
	core := marathon.DefaultConfig()
	core.NewID, core.ReviveGap, core.MeasureEach = newID, time.Millisecond, 50*time.Millisecond
	var err error
	if s.r, err = runner.New(t.Context(), runner.Config{Core: core, Store: store.NewMemory(), Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.r.Run(ctx, s) }()
	s.Server = httptest.NewServer(New(Config{Runner: s.r, Version: "1.11.0", Role: "*", Address: "me:8080", Framework: "marathon", HTTPPort: 8080}))
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		s.Server.CloseClientConnections()
		s.Server.Close()
	})
	if err := s.r.Subscribed("fw", "m"); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *site) Accept(_ []string, agent string, l task.Launch, _ time.Duration) {
	specs := l.Tasks
	for _, g := range l.Groups {
		specs = append(specs, g.Tasks...)
	}
	for i := range specs {
		s.r.Update(specs[i].Key.ID, agent, task.Status{State: task.Running, Time: time.Now(), Container: &task.ContainerStatus{Addresses: []string{"10.0.0.9"}}})
	}
	s.Revive()
}

func (s *site) Revive() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offers++
	o := task.Offer{ID: fmt.Sprint("o", s.offers), Agent: "agent-1", Hostname: "h", URL: s.agent, Role: s.role}
	o.Resources = resources.NewScalar("cpus", resources.Whole(100)).Add(resources.NewScalar("mem", resources.Whole(1e5))...).Add(resources.NewScalar("disk", resources.Whole(1e5))...).Allocated(o.Role)
	s.r.Offers([]task.Offer{o})
}

func (s *site) Kill(id, agent string, _ *time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.deaf {
		s.r.Update(id, agent, task.Status{State: task.Killed, Time: time.Now()})
	}
}

func (s *site) ignoreKills(deaf bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deaf = deaf
}

func (s *site) Decline([]string, time.Duration)       {}
func (s *site) Acknowledge(string, string, task.UUID) {}
func (s *site) Reconcile(map[string]string)           {}
func (s *site) Suppress()                             {}

type reply struct {
	code   int
	header http.Header
	text   string
	body   map[string]any // nil when it is no object
}

func (s *site) do(method, path, body string) reply {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.URL+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := s.Client().Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	out := reply{code: resp.StatusCode, header: resp.Header, text: string(text)}
	json.Unmarshal(text, &out.body)
	return out
}

// want makes a request and checks its status and that its body has a text.
func (s *site) want(method, path, body string, code int, part string) reply {
	s.t.Helper()
	r := s.do(method, path, body)
	if r.code != code || !strings.Contains(r.text, part) {
		s.t.Errorf("%s %s %s: %d %.400s\nwant %d %s", method, path, body, r.code, r.text, code, part)
	}
	return r
}

// settle waits until no deployment is left.
func (s *site) settle() {
	s.t.Helper()
	l := s.r.Events().Listen(0)
	defer l.Close()
	deadline := time.After(10 * time.Second)
	for s.do("GET", "/v2/deployments", "").text != "[]" {
		select {
		case <-l.C:
		case <-deadline:
			s.t.Fatal("the deployments do not end")
		}
	}
}

func (s *site) post(body string) {
	s.t.Helper()
	s.want("POST", "/v2/apps", body, 201, "")
	s.settle()
}

func (s *site) tasks(app string) []string {
	s.t.Helper()
	var out []string
	for _, t := range s.do("GET", "/v2/apps"+app+"/tasks", "").body["tasks"].([]any) {
		out = append(out, t.(map[string]any)["id"].(string))
	}
	return out
}

func TestApps(t *testing.T) {
	s := newSite(t)
	s.want("GET", "/v2/apps", "", 200, `{"apps":[]}`)
	r := s.want("POST", "/v2/apps", `{"id":"/g/web","cmd":"x","labels":{"env":"prod"}}`, 201, `"id":"/g/web"`)
	if r.header.Get("Marathon-Deployment-Id") == "" || r.header.Get("Location") != "http://me:8080/v2/apps/g/web" || len(r.body["deployments"].([]any)) != 1 || r.body["version"] == "" {
		t.Errorf("created: %v %s", r.header, r.text)
	}
	s.settle()
	s.want("POST", "/v2/apps", `{"id":"/g/web","cmd":"x"}`, 409, `An app with id [/g/web] already exists.`)
	s.want("POST", "/v2/apps", `{"id":"/g","cmd":"x"}`, 422, `"path":"/id"`)
	s.want("POST", "/v2/apps", `{"id":"/bad","cmd":"x","instances":-1}`, 422, `{"details":[{"path":"/instances","errors":["got -1, expected 0 or more"]}],"message":"Object is not valid"}`)
	s.want("POST", "/v2/apps", `{"id":`, 400, `"message":"Invalid JSON"`)
	s.want("POST", "/v2/apps", `{"id":"/a","cmd":"x","cpus":"1"}`, 400, `{"details":[{"path":"/cpus","errors":["expected a number, got string"]}],"message":"Invalid JSON"}`)
	s.want("DELETE", "/v2/apps", "", 405, "message")

	for _, path := range []string{"/v2/apps/g/web", "/v2/apps//g/web", "/v2/apps/%2Fg%2Fweb", "/v2/apps/%2Fg/web/", "/v2/apps/g/web/"} {
		s.want("GET", path, "", 200, `"id":"/g/web"`)
	}
	s.want("GET", "/v2/apps/none", "", 404, `{"message":"App '/none' does not exist"}`)
	s.want("GET", "/v2/apps/g/*", "", 200, `{"*":[{"id":"/g/web"`)
	s.want("GET", "/v2/apps/g/*/tasks", "", 200, `"appId":"/g/web"`)
	s.want("GET", "/v2/none", "", 404, "message")

	s.want("PATCH", "/v2/apps/none", `{"cmd":"x"}`, 404, "")
	s.want("PUT", "/v2/apps/new", `{"cmd":"x"}`, 201, `"deploymentId"`)
	s.settle()
	s.want("PUT", "/v2/apps/new", `{"id":"/other","cmd":"x"}`, 422, "/other")
	s.want("PUT", "/v2/apps/else", `{"id":"/other","cmd":"x"}`, 422, "/other")
	s.want("PUT", "/v2/apps/g/web", `{"id":"web","cmd":"x"}`, 200, "")
	s.settle()
	s.want("PUT", "/v2/apps/none", `{"version":"2020-01-01T00:00:00.000Z"}`, 404, "")
	s.want("PUT", "/v2/apps/new", `[]`, 400, "Invalid JSON")
	s.want("DELETE", "/v2/apps/new", "", 200, `"deploymentId"`)
	s.want("DELETE", "/v2/apps/new", "", 404, "App '/new' does not exist")
	s.want("DELETE", "/v2/apps/g/web/", "", 200, `"version"`)
}

func TestPutMergesAndRollsBack(t *testing.T) {
	s := newSite(t)
	s.post(`{"id":"/a","cmd":"x","labels":{"k":"1"},"mem":64}`)
	first := s.do("GET", "/v2/apps/a", "").body["app"].(map[string]any)
	r := s.want("PUT", "/v2/apps/a", `{"instances":2,"labels":null}`, 200, "version")
	s.settle()
	now := s.do("GET", "/v2/apps/a", "").body["app"].(map[string]any)
	if now["mem"] != 64.0 || now["instances"] != 2.0 || now["version"] != r.body["version"] || now["labels"].(map[string]any)["k"] != "1" {
		t.Errorf("merged: %v, answered %v", now, r.body)
	}
	if len(s.tasks("/a")) != 2 {
		t.Error("tasks:", s.tasks("/a"))
	}
	s.want("PUT", "/v2/apps/a?partialUpdate=false", `{"cmd":"y"}`, 200, "")
	s.settle()
	s.want("GET", "/v2/apps/a", "", 200, `"mem":128`)
	s.want("PUT", "/v2/apps/a", fmt.Sprintf(`{"version":%q}`, first["version"]), 200, "")
	s.settle()
	s.want("GET", "/v2/apps/a", "", 200, `"mem":64`)
	s.want("PUT", "/v2/apps/a", `{"version":"2001-01-01T00:00:00.000Z"}`, 404, "App '/a' does not exist in version 2001")
	versions := s.want("GET", "/v2/apps/a/versions", "", 200, "versions").body["versions"].([]any)
	if len(versions) != 4 || versions[3] != first["version"] || !slices.IsSortedFunc(versions, func(a, b any) int { return strings.Compare(b.(string), a.(string)) }) {
		t.Errorf("versions %v", versions)
	}
	s.want("GET", "/v2/apps/a/versions/"+versions[3].(string), "", 200, `{"id":"/a"`)
	s.want("GET", "/v2/apps/a/versions/2001", "", 404, "")
	s.want("GET", "/v2/apps/none/versions", "", 404, "")
	before := s.tasks("/a")
	s.want("POST", "/v2/apps/a/restart", "", 200, "deploymentId")
	s.settle()
	for _, id := range s.tasks("/a") {
		if slices.Contains(before, id) {
			t.Errorf("%s was not restarted", id)
		}
	}
	s.want("POST", "/v2/apps/none/restart", "", 404, "")
	s.want("PUT", "/v2/apps/a?force=perhaps", `{"cpus":2}`, 400, "force")
}

func TestManyAtOnce(t *testing.T) {
	s := newSite(t)
	s.want("PATCH", "/v2/apps", `[{"id":"/a","cmd":"x"}]`, 404, "")
	s.want("PUT", "/v2/apps", `[{"id":"/a","cmd":"x"},{"id":"/b","cmd":"y","dependencies":["/a"]}]`, 200, "deploymentId")
	s.settle()
	s.want("PATCH", "/v2/apps", `[{"id":"/a","instances":2}]`, 200, "")
	s.settle()
	s.want("PUT", "/v2/apps", `[{"id":"/a"},{"id":"/b","instances":-2}]`, 422, `"path":"(1)/instances"`)
	s.want("PUT", "/v2/apps", `{}`, 400, "array")
	s.want("GET", "/v2/apps", "", 200, `"tasksRunning":2`)
}

func TestLockedIsNotExists(t *testing.T) {
	s := newSite(t)
	s.want("POST", "/v2/apps", `{"id":"/a","cmd":"x","cpus":1000}`, 201, "") // never fits
	r := s.want("PUT", "/v2/apps/a", `{"mem":5}`, 409, "App is locked by one or more deployments. Override with the option '?force=true'.")
	if r.body["deployments"] == nil {
		t.Errorf("locked, without the deployments: %s", r.text)
	}
	if r := s.want("POST", "/v2/apps", `{"id":"/a","cmd":"x"}`, 409, "exists"); r.body["deployments"] != nil {
		t.Errorf("exists, with deployments: %s", r.text)
	}
	s.want("DELETE", "/v2/apps/a?force=false", "", 409, "deployments")
	s.want("DELETE", "/v2/groups", "", 409, "deployments")
	s.want("PUT", "/v2/apps/a?force=true", `{"mem":5}`, 200, "")
	s.want("DELETE", "/v2/apps/a", "", 200, "")
	s.settle()
}

func TestDeploymentsAndQueue(t *testing.T) {
	s := newSite(t)
	s.want("POST", "/v2/apps", `{"id":"/g/a","cmd":"x","cpus":1000}`, 201, "")
	var list []map[string]any
	json.Unmarshal([]byte(s.do("GET", "/v2/deployments/", "").text), &list)
	if len(list) != 1 {
		t.Fatalf("deployments %v", list)
	}
	keys := slices.Sorted(maps.Keys(list[0]))
	if diff := cmp.Diff([]string{"affectedApps", "affectedPods", "currentActions", "currentStep", "id", "steps", "totalSteps", "version"}, keys); diff != "" {
		t.Error(diff)
	}
	item := s.want("GET", "/v2/queue", "", 200, "needs 1000 cpus; the largest offer had 100").body["queue"].([]any)[0].(map[string]any)
	if diff := cmp.Diff([]string{"app", "count", "delay", "processedOffersSummary", "role", "since", "waiting"}, slices.Sorted(maps.Keys(item))); diff != "" {
		t.Error(diff)
	}
	s.want("GET", "/v2/apps", "", 200, `"waiting":"needs 1000 cpus`)
	s.want("DELETE", "/v2/queue//g/a/delay", "", 204, "")
	s.want("DELETE", "/v2/queue/none/delay", "", 404, "Application /none not found in tasks queue.")
	s.want("DELETE", "/v2/deployments/none", "", 404, `{"message":"DeploymentPlan none does not exist"}`)
	id := list[0]["id"].(string)
	s.want("DELETE", "/v2/deployments/"+id, "", 200, "deploymentId")
	s.settle()
	s.want("GET", "/v2/apps/g/a", "", 404, "")
	s.post(`{"id":"/b","cmd":"x"}`)
	s.want("PUT", "/v2/apps/b", `{"cpus":1000}`, 200, "")
	json.Unmarshal([]byte(s.do("GET", "/v2/deployments", "").text), &list)
	s.want("DELETE", "/v2/deployments/"+list[0]["id"].(string)+"?force=true", "", 202, "")
	s.settle()
	s.want("GET", "/v2/apps/b", "", 200, `"cpus":1000`)
}

func TestTasks(t *testing.T) {
	s := newSite(t)
	s.post(`{"id":"/a","cmd":"x","instances":4}`)
	one := s.do("GET", "/v2/tasks", "").body["tasks"].([]any)[0].(map[string]any)
	want := []string{"appId", "host", "id", "ipAddresses", "localVolumes", "ports", "role", "servicePorts", "slaveId", "stagedAt", "startedAt", "state", "version"}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(one))); diff != "" {
		t.Error(diff)
	}
	if one["host"] != "10.0.0.9" || one["state"] != "TASK_RUNNING" || one["slaveId"] != "agent-1" {
		t.Errorf("%v", one)
	}
	s.want("GET", "/v2/tasks?status=staging", "", 200, `{"tasks":[]}`)
	s.want("GET", "/v2/tasks/?status[]=running", "", 200, one["id"].(string))
	ids := s.tasks("/a")
	s.want("DELETE", "/v2/apps/a/tasks/none", "", 404, `{"message":"Task 'none' does not exist"}`)
	s.want("DELETE", "/v2/apps/none/tasks/"+ids[0], "", 404, "App '/none' does not exist")
	s.post(`{"id":"/other","cmd":"x"}`)
	s.want("DELETE", "/v2/apps/other/tasks/"+ids[0], "", 404, "Task")
	s.want("DELETE", "/v2/apps/a/tasks/"+ids[0]+"?scale=true&wipe=true", "", 400, `{"message":"You cannot use scale and wipe at the same time."}`)
	s.want("DELETE", "/v2/apps/a/tasks/"+ids[0], "", 200, `{"task":{"appId":"/a","id":"`+ids[0])
	s.want("DELETE", "/v2/apps/a/tasks/"+ids[1]+"?scale=true", "", 200, "deploymentId")
	s.settle()
	if got := s.tasks("/a"); len(got) != 3 || slices.Contains(got, ids[1]) {
		t.Errorf("tasks %v", got)
	}
	s.want("POST", "/v2/tasks/delete", `{"ids":["none"]}`, 404, "Task 'none' does not exist")
	s.want("POST", "/v2/tasks/delete", `[]`, 400, "ids")
	s.want("POST", "/v2/tasks/delete?scale=true", fmt.Sprintf(`{"ids":[%q]}`, s.tasks("/a")[0]), 200, "deploymentId")
	s.settle()
	s.want("DELETE", "/v2/apps/a/tasks?host=elsewhere", "", 200, `{"tasks":[]}`)
	s.want("DELETE", "/v2/apps/a/tasks?scale=true", "", 200, "deploymentId")
	s.settle()
	s.want("GET", "/v2/apps/a", "", 200, `"instances":0`)
	s.want("GET", "/v2/apps/none/tasks", "", 404, "")
}

// TestKeys: an app has the keys that clients of Marathon know.
func TestKeys(t *testing.T) {
	s := newSite(t)
	s.post(`{"id":"/a","container":{"docker":{"image":"i","network":"BRIDGE","portMappings":[{"containerPort":80}]}},"healthChecks":[]}`)
	app := s.do("GET", "/v2/apps/a", "").body["app"].(map[string]any)
	want := strings.Fields(`backoffFactor backoffSeconds constraints container cpus dependencies deployments disk env executor fetch gpus healthChecks id
		instances killSelection labels maxLaunchDelaySeconds mem networks readinessChecks requirePorts role tasks tasksHealthy tasksRunning tasksStaged
		tasksUnhealthy unreachableStrategy upgradeStrategy version versionInfo`)
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(app))); diff != "" {
		t.Error(diff)
	}
	if ports := app["tasks"].([]any)[0].(map[string]any)["ports"]; !cmp.Equal(ports, []any{80.0}) {
		t.Errorf("ports %v", ports)
	}
}

func TestSelectors(t *testing.T) {
	labels := map[string]string{"env": "prod", "tier": "web", "empty": "", "a,b": "x=y"}
	for text, want := range map[string]bool{
		"": true, "env": true, "none": false, "empty": true, "env==prod": true, "env == prod": true, "env==test": false, "env!=test": true, "env!=prod": false,
		"none!=x": false, "env in (prod,test)": true, "env in ( test , prod )": true, "env in (test)": false, "env notin (test)": true, "env notin (prod)": false,
		"none notin (x)": false, "env==prod,tier==web": true, "env==prod, tier in (db)": false, "env,none": false, "empty==": true,
		`a\,b`: true, `a\,b==x\=y`: true, `a\,b in (z,x\=y)`: true, `a\,b==x`: false,
	} {
		match, err := parseSelector(text)
		if err != nil || match(labels) != want {
			t.Errorf("%q: %v, %v", text, !want, err)
		}
	}
	for _, text := range []string{"a==b==c", "a in x", "a in (b", "(a)", "a=", "==b"} {
		if _, err := parseSelector(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

func TestListing(t *testing.T) {
	s := newSite(t)
	s.post(`{"id":"/web","cmd":"run web","labels":{"consul":"web"}}`)
	s.post(`{"id":"/db","cmd":"run db"}`)
	ids := func(query string) []string {
		var out []string
		for _, a := range s.want("GET", "/v2/apps/?"+query, "", 200, "apps").body["apps"].([]any) {
			out = append(out, a.(map[string]any)["id"].(string))
		}
		return out
	}
	for query, want := range map[string][]string{
		"": {"/db", "/web"}, "label=consul": {"/web"}, "label=" + url.QueryEscape("consul in (web)"): {"/web"}, "cmd=db": {"/db"}, "id=WE": {"/web"}, "id=x": nil,
		"embed=apps.tasks&label=consul": {"/web"},
	} {
		if got := ids(query); !slices.Equal(got, want) {
			t.Errorf("%s: %v", query, got)
		}
	}
	s.want("GET", "/v2/apps?label="+url.QueryEscape("a in"), "", 422, "label selector")
	for query, tasks := range map[string]bool{"": false, "embed=apps.tasks": true, "embed=app.tasks": true, "embed=group.apps.tasks": true, "embed=unknown": false} {
		if got := strings.Contains(s.do("GET", "/v2/apps?"+query, "").text, `"tasks":[`); got != tasks {
			t.Errorf("%q: tasks %v", query, got)
		}
	}
}

func TestGroups(t *testing.T) {
	s := newSite(t)
	s.want("GET", "/v2/groups", "", 200, `"id":"/"`)
	s.post(`{"id":"/g/h/a","cmd":"x"}`)
	s.post(`{"id":"/g/b","cmd":"x"}`)
	s.post(`{"id":"/top","cmd":"x"}`)
	r := s.want("GET", "/v2/groups/?embed=group.groups&embed=group.apps", "", 200, "/g/h/a")
	if got := slices.Sorted(maps.Keys(r.body)); !slices.Equal(got, []string{"apps", "dependencies", "enforceRole", "groups", "id", "pods", "version"}) {
		t.Errorf("keys %v", got)
	}
	g := s.want("GET", "/v2/groups//g", "", 200, `"id":"/g/h"`)
	if len(g.body["apps"].([]any)) != 1 || len(g.body["groups"].([]any)) != 1 {
		t.Errorf("%s", g.text)
	}
	s.want("GET", "/v2/groups/none", "", 404, `{"message":"Group '/none' does not exist"}`)
	s.want("DELETE", "/v2/groups/g", "", 200, "deploymentId")
	s.settle()
	s.want("GET", "/v2/apps?embed=none", "", 200, `{"apps":[{"id":"/top"`)
	s.want("DELETE", "/v2/groups/?force=true", "", 200, "version")
	s.settle()
	s.want("GET", "/v2/apps", "", 200, `{"apps":[]}`)
}

func TestReadinessIsShown(t *testing.T) {
	s := newSite(t)
	s.want("POST", "/v2/apps", `{"id":"/a","cmd":"x","portDefinitions":[{"name":"web"}],"readinessChecks":[{"portName":"none","timeoutSeconds":40}]}`, 422, `{"path":"/readinessChecks(0)/portName","errors":["there is no port called \"none\""]}`)
	s.want("POST", "/v2/apps", `{"id":"/a","cmd":"x","portDefinitions":[{"name":"web"}],"readinessChecks":[{"portName":"web"}]}`, 201, "")
	s.want("GET", "/v2/apps/a?embed=app.readiness", "", 200, `"readinessCheckResults":[]`)
	s.want("GET", "/v2/apps?embed=apps.readiness", "", 200, `"readinessCheckResults":[]`)
	s.want("GET", "/v2/deployments", "", 200, `"currentActions":[{"action":"ScaleApplication","app":"/a","readinessCheckResults":[]}]`)
}

func TestGroupChanges(t *testing.T) {
	s := newSite(t)
	shop := `{"id":"/shop","dependencies":["/base"],"apps":[{"id":"web","cmd":"x","instances":2,"dependencies":["db"]},{"id":"db","cmd":"x"}],"groups":[{"id":"in","apps":[{"id":"/shop/in/a","cmd":"x"}]}]}`
	s.want("POST", "/v2/groups", `{"id":"/base","apps":[{"id":"a","cmd":"x"}]}`, 201, "deploymentId")
	r := s.want("POST", "/v2/groups?force=true", shop, 201, "version")
	if r.header.Get("Marathon-Deployment-Id") == "" || !strings.HasSuffix(r.header.Get("Location"), "/v2/groups/shop") {
		t.Errorf("%v", r.header)
	}
	s.settle()
	s.want("POST", "/v2/groups", shop, 409, `{"message":"Group /shop is already created. Use PUT to change this group."}`)
	s.want("POST", "/v2/groups", `{"apps":[]}`, 409, "Group / is already created")
	s.want("GET", "/v2/groups/shop", "", 200, `"dependencies":["/base"]`)
	s.want("GET", "/v2/groups/shop/apps", "", 200, `[{"id":"/shop/db"`)
	s.want("GET", "/v2/groups/none/apps", "", 404, "Group '/none' does not exist")
	if got := s.do("GET", "/v2/groups/shop?embed=group.groups", ""); got.body["apps"] != nil || got.body["groups"] == nil {
		t.Errorf("%s", got.text)
	}
	var versions []string
	json.Unmarshal([]byte(s.want("GET", "/v2/groups/shop/versions", "", 200, "").text), &versions)
	if len(versions) != 1 {
		t.Fatalf("%v", versions)
	}
	s.want("GET", "/v2/groups/none/versions", "", 404, "")

	s.want("PUT", "/v2/groups/shop?dryRun=true", `{"scaleBy":1.5}`, 200, `{"steps":[{"actions":[{"action":"ScaleApplication","app":"/shop/db"},{"action":"ScaleApplication","app":"/shop/in/a"}]},{"actions":[{"action":"ScaleApplication","app":"/shop/web"}]}]}`)
	s.want("GET", "/v2/apps/shop/web", "", 200, `"instances":2`)
	s.want("PUT", "/v2/groups/shop", `{"scaleBy":1.5}`, 200, "deploymentId")
	s.settle()
	s.want("GET", "/v2/apps/shop/web", "", 200, `"instances":3`)
	s.want("GET", "/v2/apps/shop/db", "", 200, `"instances":2`)
	s.want("GET", "/v2/groups/shop/versions/"+versions[0], "", 200, `"instances":2`)
	s.want("GET", "/v2/groups/shop/versions/no", "", 404, "in version no")
	s.want("PUT", "/v2/groups/shop?dryRun=true", `{"id":"/shop","apps":[{"id":"new","cmd":"y"}]}`, 200, `{"steps":[{"actions":[{"action":"StopApplication","app":"/shop/db"},{"action":"StopApplication","app":"/shop/in/a"},{"action":"StopApplication","app":"/shop/web"}]},{"actions":[{"action":"StartApplication","app":"/shop/new"}]},{"actions":[{"action":"ScaleApplication","app":"/shop/new"}]}]}`)
	s.want("PUT", "/v2/groups/shop", `{"version":"`+versions[0]+`"}`, 200, "deploymentId")
	s.settle()
	s.want("GET", "/v2/apps/shop/web", "", 200, `"instances":2`)
	s.want("PUT", "/v2/groups/shop", `{"version":"no"}`, 404, "Group '/shop' does not exist in version no")

	s.want("PUT", "/v2/groups/shop", `{"apps":[{"id":"db","cmd":"x"}]}`, 200, "deploymentId")
	s.settle()
	s.want("GET", "/v2/apps?embed=none", "", 200, `{"apps":[{"id":"/base/a"`)
	s.want("GET", "/v2/apps/shop/web", "", 404, "")
	s.want("PUT", "/v2/groups/made/of", `{}`, 200, "deploymentId")
	s.want("GET", "/v2/groups/made", "", 200, `"id":"/made/of"`)
	s.want("POST", "/v2/apps", `{"id":"/made/of","cmd":"x"}`, 422, "group")
	s.want("PATCH", "/v2/groups/made", `{"enforceRole":true}`, 200, `"enforceRole":true`)
	s.want("PATCH", "/v2/groups/made/of", `{"enforceRole":true}`, 422, "top-level")
	s.want("PATCH", "/v2/groups/made", `{}`, 422, "enforceRole")
	s.want("DELETE", "/v2/groups/made", "", 200, "deploymentId")
	s.want("DELETE", "/v2/groups/made", "", 404, "Group '/made' does not exist")
}

func TestGroupsAreRefused(t *testing.T) {
	s := newSite(t)
	s.post(`{"id":"/x","cmd":"x"}`)
	for body, part := range map[string]string{
		`{"id":"/g","apps":[{"id":"/other/a","cmd":"x"}]}`:               `{"path":"/apps(0)/id","errors":["identifier /other/a is not child of /g"]}`,
		`{"id":"/g","groups":[{"id":"/h"}]}`:                             `"path":"/groups(0)/id"`,
		`{"id":"/g","groups":[{"apps":[{"id":"a"}]}]}`:                   `"path":"/groups(0)/id"`,
		`{"id":"/g","groups":[{"id":"h","apps":[{"id":"a"}]}]}`:          `"path":"/groups(0)/apps(0)/"`,
		`{"id":"/g","apps":[{"id":"a","cmd":"x"},{"id":"a","cmd":"y"}]}`: "twice",
		`{"id":"/x"}`: "an app and a group cannot share an ID",
		`{"id":"/g","apps":[{"id":"a","cmd":"x","dependencies":["b"]},{"id":"b","cmd":"x","dependencies":["a"]}]}`:                                   "circle",
		`{"id":"/g","groups":[{"id":"h","dependencies":["../a"],"apps":[{"id":"b","cmd":"x"}]}],"apps":[{"id":"a","cmd":"x","dependencies":["h"]}]}`: "circle",
		`{"id":"/g","pods":[{"id":"a"}]}`: `"path":"/pods(0)/containers"`,
		`{"id":"/g","scaleBy":-1}`:        "/scaleBy",
	} {
		s.want("PUT", "/v2/groups", body, 422, part)
	}
	s.want("PUT", "/v2/groups", `{"id":"/g","apps":{}}`, 400, `"path":"/apps"`)
	s.want("PUT", "/v2/groups", `{`, 400, "Invalid JSON")
	s.want("PUT", "/v2/groups/none", `{"scaleBy":2}`, 404, "Group '/none' does not exist")
	s.want("PUT", "/v2/groups/g?dryRun=perhaps", `{}`, 400, "dryRun")
	s.want("GET", "/v2/apps", "", 200, `{"apps":[{"id":"/x"`)
}

func TestService(t *testing.T) {
	s := newSite(t)
	r := s.want("GET", "/v2/info/", "", 200, `"frameworkId":"fw"`)
	for _, key := range []string{"name", "version", "elected", "leader", "marathon_config", "zookeeper_config", "http_config"} {
		if r.body[key] == nil {
			t.Errorf("info has no %s", key)
		}
	}
	if r.header.Get("X-Marathon-Leader") != "http://me:8080" || !strings.Contains(r.header.Get("Cache-Control"), "no-store") {
		t.Errorf("headers %v", r.header)
	}
	s.want("GET", "/v2/leader", "", 200, `{"leader":"me:8080"}`)
	s.want("DELETE", "/v2/leader", "", 405, "")
	s.want("GET", "/ping", "", 200, "pong")
	s.want("GET", "/v2/plugins", "", 200, `{"plugins":[]}`)
	s.want("GET", "/v2/pods/", "", 200, "[]")
	s.want("HEAD", "/v2/pods", "", 200, "")
	s.want("GET", "/metrics", "", 200, `"service.mesosphere.marathon.app.count"`)
	s.want("GET", "/", "", 404, "URI not found")
	s.want("POST", "/v2/events", "", 405, "")
}

// frame is one server-sent event.
type frame struct{ event, id, data string }

func (s *site) stream(query, last string) <-chan frame {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), "GET", s.URL+"/v2/events"+query, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Last-Event-ID", last)
	resp, err := s.Client().Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	if resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		s.t.Fatalf("%d %v", resp.StatusCode, resp.Header)
	}
	out := make(chan frame, 1000)
	go func() {
		defer close(out)
		defer resp.Body.Close()
		var f frame
		for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
			key, value, _ := strings.Cut(lines.Text(), ": ")
			switch key {
			case "event":
				f.event = value
			case "id":
				f.id = value
			case "data":
				f.data = value
			case "":
				out <- f
				f = frame{}
			}
		}
	}()
	if f := <-out; f.event != "event_stream_attached" {
		s.t.Errorf("first %+v", f)
	}
	return out
}

func next(t *testing.T, c <-chan frame) frame {
	t.Helper()
	select {
	case f := <-c:
		return f
	case <-time.After(10 * time.Second):
		t.Fatal("no event in 10 s")
	}
	return frame{}
}

func TestEvents(t *testing.T) {
	s := newSite(t)
	all, some := s.stream("", ""), s.stream("?event_type=deployment_success&event_type=api_post_event", "")
	s.post(`{"id":"/a","cmd":"x"}`)
	var last uint64
	seen := map[string]bool{}
	for !seen["deployment_success"] {
		f := next(t, all)
		seen[f.event] = true
		var id uint64
		fmt.Sscan(f.id, &id)
		var body map[string]any
		if err := json.Unmarshal([]byte(f.data), &body); err != nil || body["eventType"] != f.event || body["timestamp"] == nil || last != 0 && id != last+1 {
			t.Errorf("%+v after %d: %v", f, last, err)
		}
		last = id
	}
	for _, kind := range []string{"api_post_event", "deployment_info", "status_update_event", "instance_changed_event", "deployment_step_success"} {
		if !seen[kind] {
			t.Errorf("no %s", kind)
		}
	}
	first, second := next(t, some), next(t, some)
	if first.event != "api_post_event" || second.event != "deployment_success" || !strings.Contains(first.data, `"appDefinition"`) {
		t.Errorf("filtered: %+v %+v", first, second)
	}
	again := s.stream("?event_type=deployment_success", first.id)
	if f := next(t, again); f != second {
		t.Errorf("replayed %+v, want %+v", f, second)
	}
	req, _ := http.NewRequest("GET", s.URL+"/v2/events", nil)
	req.Header.Set("Accept", "application/json")
	if resp, err := s.Client().Do(req); err != nil || resp.StatusCode != 405 {
		t.Errorf("%v %v", resp, err)
	}
}

func TestDeletedIsGoneFromLists(t *testing.T) {
	s := newSite(t)
	s.post(`{"id":"/a","cmd":"x"}`)
	s.ignoreKills(true)
	s.want("DELETE", "/v2/apps/a", "", 200, "")
	s.want("GET", "/v2/apps", "", 200, `{"apps":[]}`)
	s.want("GET", "/v2/apps/a", "", 404, "")
	r := s.want("POST", "/v2/apps", `{"id":"/a","cmd":"x"}`, 409, "locked")
	if r.body["deployments"] == nil {
		t.Error("no deployments")
	}
}

// BenchmarkList asks for a thousand apps with ten tasks each.
func BenchmarkList(b *testing.B) {
	core := marathon.NewCore(marathon.Config{NewID: newID})
	var fx []marathon.Effect
	apply := func(in marathon.Input) {
		var err error
		if fx, err = core.Apply(time.Now(), in, nil); err != nil {
			b.Fatal(err)
		}
		fx = core.Settle(time.Now(), fx)
	}
	apply(marathon.Subscribed{FrameworkID: "f"})
	for i := range 1000 {
		def, err := marathon.Read(fmt.Appendf(nil, `{"id":"/app-%d","cmd":"x","instances":10}`, i), "*")
		if err != nil {
			b.Fatal(err)
		}
		apply(marathon.Change{DeploymentID: fmt.Sprint(i), Put: []*marathon.App{def}})
	}
	o := task.Offer{ID: "o", Agent: "a", Role: "*", Resources: resources.NewScalar("cpus", resources.Whole(1e5)).Add(resources.NewScalar("mem", resources.Whole(1e8))...)}
	apply(marathon.Offered{Offers: []task.Offer{o}})
	for _, embed := range []bool{false, true} {
		b.Run(fmt.Sprintf("tasks=%v", embed), func(b *testing.B) {
			for b.Loop() {
				views := appsOf(core, nil, func(string) bool { return embed })
				list := make([]appInfo, len(views))
				for i := range views {
					list[i] = describe(&views[i], func(string) bool { return embed })
				}
				if text, err := json.Marshal(list); err != nil || len(text) < 1000 {
					b.Fatal(err)
				}
			}
		})
	}
}
