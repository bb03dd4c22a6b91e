package server

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/master/authz"
	"github.com/mesopool/mesopool/mesos/credentials"
	"github.com/mesopool/mesopool/mesos/recordio"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
)

const tokenKey = "the key of tokens"

// secure is a master where everybody must prove who they are: ops, dev, web and
// viewer, whose secrets are their names backwards.
func secure(t *testing.T, acls string) *testMaster {
	t.Helper()
	known, err := credentials.Parse([]byte("ops spo\ndev ved\nweb bew\nviewer reweiv\n"))
	if err != nil {
		t.Fatal(err)
	}
	auth := Auth{Known: known, TokenKey: []byte(tokenKey), ReadOnly: true, ReadWrite: true, Framework: true}
	if acls != "" {
		if auth.ACLs, err = authz.Parse([]byte(acls)); err != nil {
			t.Fatal(err)
		}
	}
	return startMaster(t, "", func(c *Config) { c.Auth = auth })
}

func basic(who string) string {
	secret := []byte(who)
	slices.Reverse(secret)
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(who+":"+string(secret)))
}

func bearer(claims string) string {
	b64 := base64.RawURLEncoding.EncodeToString
	text := b64([]byte(`{"alg":"HS256"}`)) + "." + b64([]byte(claims))
	mac := hmac.New(sha256.New, []byte(tokenKey))
	mac.Write([]byte(text))
	return "Bearer " + text + "." + b64(mac.Sum(nil))
}

// endpoints are all that a master serves, each with a request that is refused
// for nothing but who asks, or for what is in it.
var endpoints = []struct {
	method, path, body string
	in                 realm
}{
	{"GET", "/health", "", realmNone},
	{"GET", "/version", "", realmNone},
	{"GET", "/redirect", "", realmNone},
	{"GET", "/state", "", realmReadOnly},
	{"GET", "/master/state.json", "", realmReadOnly},
	{"GET", "/state-summary", "", realmReadOnly},
	{"GET", "/slaves", "", realmReadOnly},
	{"GET", "/slaves/x", "", realmReadOnly},
	{"GET", "/frameworks", "", realmReadOnly},
	{"GET", "/tasks/", "", realmReadOnly},
	{"GET", "/roles", "", realmReadOnly},
	{"GET", "/flags", "", realmReadOnly},
	{"GET", "/metrics/snapshot", "", realmReadOnly},
	{"GET", "/metrics", "", realmReadOnly},
	{"GET", "/maintenance/status", "", realmReadOnly},
	{"GET", "/", "", realmReadOnly},
	{"GET", "/no/such/page", "", realmReadOnly},
	{"GET", "/maintenance/schedule", "", realmReadWrite},
	{"POST", "/maintenance/schedule", "{}", realmReadWrite},
	{"GET", "/quota", "", realmReadWrite},
	{"POST", "/quota", "{}", realmReadWrite},
	{"DELETE", "/quota/x", "", realmReadWrite},
	{"GET", "/weights", "", realmReadWrite},
	{"PUT", "/weights", "[]", realmReadWrite},
	{"POST", "/machine/down", "[]", realmReadWrite},
	{"POST", "/machine/up", "[]", realmReadWrite},
	{"POST", "/teardown", "", realmReadWrite},
	{"POST", "/reserve", "", realmReadWrite},
	{"POST", "/unreserve", "", realmReadWrite},
	{"POST", "/create-volumes", "", realmReadWrite},
	{"POST", "/destroy-volumes", "", realmReadWrite},
	{"POST", "/api/v1", "{}", realmReadWrite},
	{"POST", "/master/api/v1", "{}", realmReadWrite},
	{"POST", "/api/v1/scheduler", "{}", realmFramework},
	{"POST", "/master/api/v1/scheduler", "{}", realmFramework},
}

// TestEveryEndpointAuthenticates is the table of endpoints and proofs.
func TestEveryEndpointAuthenticates(t *testing.T) {
	m := secure(t, "")
	for path := range m.handlers() {
		if !slices.ContainsFunc(endpoints, func(e struct {
			method, path, body string
			in                 realm
		},
		) bool {
			return plainPath(e.path) == path
		}) {
			t.Errorf("%s is not in the table", path)
		}
	}
	wrong := "Basic " + base64.StdEncoding.EncodeToString([]byte("ops:wrong"))
	for _, e := range endpoints {
		for name, x := range map[string]struct {
			proof string
			in    bool
		}{
			"nothing": {"", false}, "a wrong secret": {wrong, false}, "another scheme": {"Digest x", false}, "no base 64": {"Basic ???", false},
			"a forged token": {strings.TrimRight(bearer(`{"sub":"ops"}`), "=") + "x", false}, "an expired token": {bearer(`{"sub":"ops","exp":1}`), false},
			"a secret": {basic("ops"), true}, "a token": {bearer(`{"sub":"ops","exp":99999999999}`), true},
		} {
			header := []string{"Content-Type", typeJSON}
			if x.proof != "" {
				header = append(header, "Authorization", x.proof)
			}
			resp, text := m.ask(t, e.method, e.path, e.body, header...)
			if e.in == realmNone || x.in {
				if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden {
					t.Errorf("%s %s with %s: %s", e.method, e.path, name, resp.Status)
				}
				continue
			}
			challenge := resp.Header.Get("WWW-Authenticate")
			if resp.StatusCode != http.StatusUnauthorized || !strings.HasPrefix(challenge, `Basic realm="`+string(e.in)+`",Bearer realm="`+string(e.in)+`"`) || !strings.Contains(text, "401 Unauthorized.") {
				t.Errorf("%s %s with %s: %s %q %q", e.method, e.path, name, resp.Status, challenge, text)
			}
		}
	}
}

// TestChallenges: the words of one scheme and of two.
func TestChallenges(t *testing.T) {
	ask := func(a *Auth, proof string) (string, string) {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "/state", nil)
		if proof != "" {
			r.Header.Set("Authorization", proof)
		}
		_, refused := a.authenticate(r, realmReadOnly)
		answerUnauthorized(w, refused)
		return w.Header().Get("WWW-Authenticate"), w.Body.String()
	}
	if header, body := ask(&Auth{ReadOnly: true}, ""); header != `Basic realm="mesos-master-readonly"` || body != "401 Unauthorized." {
		t.Errorf("basic: %s\n%s", header, body)
	}
	two := &Auth{ReadOnly: true, TokenKey: []byte(tokenKey)}
	want := "\"basic\" authenticator returned:\n401 Unauthorized.\n\n\"jwt\" authenticator returned:\n401 Unauthorized."
	if header, body := ask(two, ""); header != `Basic realm="mesos-master-readonly",Bearer realm="mesos-master-readonly"` || body != want {
		t.Errorf("both: %s\n%s", header, body)
	}
	for proof, want := range map[string]string{
		"Bearer":        "Malformed 'Authorization' header",
		"Bearer a b":    "Malformed 'Authorization' header",
		"Basic x":       "Scheme 'Basic' unsupported",
		"Bearer x":      "Invalid JWT: Expected 3 components in token, got 1",
		"Be\x01rer x.y": "Scheme 'Be?rer' unsupported",
	} {
		if header, _ := ask(two, proof); !strings.Contains(header, `error="invalid_token", error_description="`+want+`"`) {
			t.Errorf("%q: %s", proof, header)
		}
	}
}

// TestRealmsApart: a realm that asks nobody takes everybody, whatever they bring.
func TestRealmsApart(t *testing.T) {
	known, err := credentials.Parse([]byte("ops spo"))
	if err != nil {
		t.Fatal(err)
	}
	m := startMaster(t, "", func(c *Config) { c.Auth = Auth{Known: known, ReadWrite: true} })
	if resp, _ := m.get(t, "/state", "Authorization", "Basic nonsense"); resp.StatusCode != http.StatusOK {
		t.Errorf("/state: %s", resp.Status)
	}
	if resp, _ := m.get(t, "/quota"); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("/quota: %s", resp.Status)
	}
	if resp, _ := m.ask(t, http.MethodOptions, "/quota", ""); resp.StatusCode != http.StatusOK || resp.Header.Get("Access-Control-Allow-Headers") == "" {
		t.Errorf("preflight: %s", resp.Status)
	}
	subscribe(t, m, jsonSubscribe("x", "")).next(t, "SUBSCRIBED")
}

// subscribeAs subscribes with what a description has besides name and user.
func (m *testMaster) subscribeAs(t *testing.T, who, info string) *jsonStream {
	t.Helper()
	resp := m.open(t, http.MethodPost, "/api/v1/scheduler", `{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"root","name":"x","failover_timeout":3600,`+info+`}}}`,
		"Content-Type", typeJSON, "Authorization", basic(who))
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("SUBSCRIBE as %s: %s", who, resp.Status)
	}
	return &jsonStream{testMaster: m, id: resp.Header.Get(streamHeader), body: resp.Body, records: recordio.NewReader(resp.Body, 4<<20)}
}

const multiRole = `"capabilities":[{"type":"MULTI_ROLE"}],`

// TestHostileFrameworks: nobody gets at a framework by its ID or another's name.
func TestHostileFrameworks(t *testing.T) {
	m := secure(t, "")
	f := m.subscribeAs(t, "web", `"role":"web"`)
	id := f.next(t, "SUBSCRIBED").path("subscribed", "framework_id", "value").(string)
	snap := m.until(t, "the framework", func(s *master.Snapshot) bool { return len(s.Frameworks) == 1 })
	if snap.Frameworks[0].Principal != "web" {
		t.Errorf("the framework got the principal %q", snap.Frameworks[0].Principal)
	}
	as := func(who string) []string {
		return []string{"Content-Type", typeJSON, "Authorization", basic(who), streamHeader, f.id}
	}
	for name, x := range map[string]struct {
		who, body string
		want      int
		text      string
	}{
		"another's principal": {
			"dev", `{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"root","name":"x","principal":"web"}}}`, 400,
			"Failed to validate scheduler::Call: Authenticated principal 'dev' does not match principal 'web' set in `FrameworkInfo`",
		},
		"another's stream": {
			"dev", `{"type":"TEARDOWN","framework_id":{"value":"` + id + `"}}`, 400,
			"Authenticated principal 'dev' does not match principal 'web' set in `FrameworkInfo`",
		},
		"another principal by UPDATE_FRAMEWORK": {
			"web", `{"type":"UPDATE_FRAMEWORK","framework_id":{"value":"` + id + `"},"update_framework":{"framework_info":{"user":"root","name":"x","role":"web","principal":"ops"}}}`, 400,
			"Changing framework's principal is not allowed",
		},
		"one's own": {"web", `{"type":"REVIVE","framework_id":{"value":"` + id + `"}}`, 202, ""},
	} {
		resp, text := m.post(t, "/api/v1/scheduler", x.body, as(x.who)...)
		if resp.StatusCode != x.want || !strings.Contains(text, x.text) {
			t.Errorf("%s: %s %q, want %d %q", name, resp.Status, text, x.want, x.text)
		}
	}
	body := `{"type":"SUBSCRIBE","framework_id":{"value":"` + id + `"},"subscribe":{"framework_info":{"user":"root","name":"x","role":"web","id":{"value":"` + id + `"}}}}`
	resp := m.open(t, http.MethodPost, "/api/v1/scheduler", body, "Content-Type", typeJSON, "Authorization", basic("dev"))
	thief := &jsonStream{testMaster: m, id: resp.Header.Get(streamHeader), body: resp.Body, records: recordio.NewReader(resp.Body, 4<<20)}
	if got := thief.next(t, "ERROR").path("error", "message"); !strings.Contains(got.(string), "principal") {
		t.Errorf("who takes over another's framework is told %q", got)
	}
	thief.end(t)
	if resp, _ := m.post(t, "/api/v1/scheduler", `{"type":"REVIVE","framework_id":{"value":"`+id+`"}}`, as("web")...); resp.StatusCode != http.StatusAccepted {
		t.Errorf("after all that the owner is told %s", resp.Status)
	}
	if resp, text := m.post(t, "/api/v1", `{"type":"GET_HEALTH"}`, "Content-Type", typeJSON, "Authorization", bearer(`{"cid":"c1"}`)); resp.StatusCode != 403 || text != nameless {
		t.Errorf("claims without a name: %s %q", resp.Status, text)
	}
}

// TestFrameworkACLs: roles and users.
func TestFrameworkACLs(t *testing.T) {
	m := secure(t, `{
		"register_frameworks": [
			{"principals": {"values": ["web"]}, "roles": {"values": ["web/%", "web"]}},
			{"principals": {"values": ["web"]}, "roles": {"type": "NONE"}}],
		"reserve_resources": [{"principals": {"type": "NONE"}, "roles": {"values": ["web"]}}],
		"run_tasks": [{"principals": {"values": ["web"]}, "users": {"values": ["www"]}}, {"principals": {"values": ["web"]}, "users": {"type": "NONE"}}]}`)
	startAgent(t, m, small)
	for role, want := range map[string]string{"web": "", "web/a": "", "db": "Not authorized to register framework  with roles { db }"} {
		f := m.subscribeAs(t, "web", multiRole+`"roles":["`+role+`"]`)
		if want == "" {
			f.next(t, "SUBSCRIBED")
			f.body.Close()
			continue
		}
		if got := f.next(t, "ERROR").path("error", "message"); got != want {
			t.Errorf("role %s: %q", role, got)
		}
	}
	f := m.subscribeAs(t, "web", multiRole+`"roles":["web"]`)
	id := f.next(t, "SUBSCRIBED").path("subscribed", "framework_id", "value").(string)
	call := func(body string) (*http.Response, string) {
		return m.post(t, "/api/v1/scheduler", body, "Content-Type", typeJSON, "Authorization", basic("web"), streamHeader, f.id)
	}
	update := `{"type":"UPDATE_FRAMEWORK","framework_id":{"value":"` + id + `"},"update_framework":{"framework_info":{"user":"root","name":"x",` + multiRole + `"roles":["db"]}}}`
	if resp, text := call(update); resp.StatusCode != 403 || !strings.Contains(text, "with roles { db }") {
		t.Errorf("another role by UPDATE_FRAMEWORK: %s %s", resp.Status, text)
	}
	offer := value(f.next(t, "OFFERS").path("offers", "offers", 0).(map[string]any))
	agent := offer.path("agent_id", "value").(string)
	task := func(id, user string) string {
		return `{"name":"` + id + `","task_id":{"value":"` + id + `"},"agent_id":{"value":"` + agent + `"},"resources":[{"name":"cpus","type":"SCALAR","scalar":{"value":0.1}}],"command":{"value":"true"` + user + `}}`
	}
	resp, text := call(`{"type":"ACCEPT","framework_id":{"value":"` + id + `"},"accept":{"offer_ids":[{"value":"` + offer.path("id", "value").(string) + `"}],"operations":[
		{"type":"RESERVE","id":{"value":"op"},"reserve":{"resources":[{"name":"mem","type":"SCALAR","scalar":{"value":1},"allocation_info":{"role":"web"},"reservations":[{"type":"DYNAMIC","role":"web","principal":"web"}]}]}},
		{"type":"LAUNCH","launch":{"task_infos":[` + task("root", "") + `,` + task("www", `,"user":"www"`) + `]}},
		{"type":"LAUNCH_GROUP","launch_group":{"executor":{"type":"DEFAULT","executor_id":{"value":"g"},"resources":[]},"task_group":{"tasks":[` +
		task("g1", `,"user":"www"`) + `,` + task("g2", "") + `]}}}]}}`)
	if resp.StatusCode != http.StatusAccepted {
		t.Fatalf("%s %s", resp.Status, text)
	}
	if op := f.next(t, "UPDATE_OPERATION_STATUS"); op.path("update_operation_status", "status", "state") != "OPERATION_ERROR" ||
		!strings.Contains(op.path("update_operation_status", "status", "message").(string), "not authorized to perform RESERVE") {
		t.Errorf("operation: %v", op)
	}
	refused := value(f.next(t, "UPDATE").path("update", "status").(map[string]any))
	if refused["state"] != "TASK_ERROR" || refused["reason"] != "REASON_TASK_UNAUTHORIZED" || refused.path("task_id", "value") != "root" ||
		refused["message"] != "Task 'root' is not authorized to launch task root of framework "+id+" under user 'root'" {
		t.Errorf("the task of root: %v", refused)
	}
	for range 2 {
		refused := value(f.next(t, "UPDATE").path("update", "status").(map[string]any))
		if refused["reason"] != "REASON_TASK_GROUP_UNAUTHORIZED" || !strings.HasPrefix(refused["message"].(string), "Task 'g2' is not authorized") {
			t.Errorf("the group with a task of root: %v", refused)
		}
	}
	m.until(t, "the task of www", func(s *master.Snapshot) bool {
		return slices.ContainsFunc(s.Frameworks, func(f master.FrameworkView) bool { return len(f.Tasks) == 1 && f.Tasks[0].Key.ID == "www" })
	})
}

// TestOperatorACLs is the table of actions: ops may, dev may not.
func TestOperatorACLs(t *testing.T) {
	only := func(action, object string) string {
		return `"` + action + `":[{"principals":{"values":["ops"]},"` + object + `":{"type":"ANY"}}]`
	}
	m := secure(t, `{"permissive": false,`+strings.Join([]string{
		only("register_frameworks", "roles"), only("teardown_frameworks", "framework_principals"), only("reserve_resources", "roles"), only("unreserve_resources", "reserver_principals"),
		only("create_volumes", "roles"), only("destroy_volumes", "creator_principals"), only("resize_volumes", "roles"), only("get_quotas", "roles"),
		only("update_quotas", "roles"), only("update_weights", "roles"), only("view_flags", "flags"), only("get_endpoints", "paths"),
		only("update_maintenance_schedules", "machines"), only("start_maintenances", "machines"), only("stop_maintenances", "machines"),
		only("drain_agents", "agents"), only("deactivate_agents", "agents"), only("reactivate_agents", "agents"), only("mark_agents_gone", "agents"),
	}, ",")+`}`)
	f := m.subscribeAs(t, "ops", `"role":"web"`)
	id := f.next(t, "SUBSCRIBED").path("subscribed", "framework_id", "value").(string)
	const cpus = `{"name":"cpus","type":"SCALAR","scalar":{"value":1},"reservations":[{"type":"DYNAMIC","role":"web","principal":"ops"}]}`
	const disk = `{"name":"disk","type":"SCALAR","scalar":{"value":1},"reservations":[{"type":"DYNAMIC","role":"web","principal":"ops"}],"disk":{"persistence":{"id":"v","principal":"ops"},"volume":{"mode":"RW","container_path":"p"}}}`
	const agent = `"agent_id":{"value":"no such agent"}`
	for name, x := range map[string]struct {
		method, path, body string
		notForbidden       int // what ops is told
	}{
		"TEARDOWN":            {"POST", "/api/v1", `{"type":"TEARDOWN","teardown":{"framework_id":{"value":"` + id + `"}}}`, 200},
		"/teardown":           {"POST", "/teardown?frameworkId=" + id, "", 200},
		"RESERVE_RESOURCES":   {"POST", "/api/v1", `{"type":"RESERVE_RESOURCES","reserve_resources":{` + agent + `,"resources":[` + cpus + `]}}`, 400},
		"UNRESERVE_RESOURCES": {"POST", "/api/v1", `{"type":"UNRESERVE_RESOURCES","unreserve_resources":{` + agent + `,"resources":[` + cpus + `]}}`, 400},
		"CREATE_VOLUMES":      {"POST", "/api/v1", `{"type":"CREATE_VOLUMES","create_volumes":{` + agent + `,"volumes":[` + disk + `]}}`, 400},
		"DESTROY_VOLUMES":     {"POST", "/api/v1", `{"type":"DESTROY_VOLUMES","destroy_volumes":{` + agent + `,"volumes":[` + disk + `]}}`, 400},
		"SHRINK_VOLUME":       {"POST", "/api/v1", `{"type":"SHRINK_VOLUME","shrink_volume":{` + agent + `,"volume":` + disk + `,"subtract":{"value":0.5}}}`, 400},
		"/reserve":            {"POST", "/reserve", "slaveId=x&resources=[" + strings.ReplaceAll(cpus, `"reservations":[{"type":"DYNAMIC","role":"web","principal":"ops"}]`, `"role":"web","reservation":{"principal":"ops"}`) + "]", 400},
		"UPDATE_QUOTA":        {"POST", "/api/v1", `{"type":"UPDATE_QUOTA","update_quota":{"quota_configs":[{"role":"web"}]}}`, 200},
		"SET_QUOTA":           {"POST", "/api/v1", `{"type":"SET_QUOTA","set_quota":{"quota_request":{"role":"web","force":true,"guarantee":[{"name":"cpus","type":"SCALAR","scalar":{"value":1}}]}}}`, 200},
		"REMOVE_QUOTA":        {"POST", "/api/v1", `{"type":"REMOVE_QUOTA","remove_quota":{"role":"none"}}`, 400},
		"DELETE /quota":       {"DELETE", "/quota/none", "", 400},
		"UPDATE_WEIGHTS":      {"POST", "/api/v1", `{"type":"UPDATE_WEIGHTS","update_weights":{"weight_infos":[{"role":"web","weight":2}]}}`, 200},
		"PUT /weights":        {"PUT", "/weights", `[{"role":"web","weight":2}]`, 200},
		"GET_FLAGS":           {"POST", "/api/v1", `{"type":"GET_FLAGS"}`, 200},
		"/flags":              {"GET", "/flags", "", 200},
		"/metrics/snapshot":   {"GET", "/metrics/snapshot", "", 200},
		"/metrics":            {"GET", "/metrics", "", 200},
		"schedule":            {"POST", "/api/v1", `{"type":"UPDATE_MAINTENANCE_SCHEDULE","update_maintenance_schedule":{"schedule":{}}}`, 200},
		"/maintenance":        {"POST", "/maintenance/schedule", `{}`, 200},
		"START_MAINTENANCE":   {"POST", "/api/v1", `{"type":"START_MAINTENANCE","start_maintenance":{"machines":[]}}`, 400},
		"/machine/down":       {"POST", "/machine/down", `[]`, 400},
		"STOP_MAINTENANCE":    {"POST", "/api/v1", `{"type":"STOP_MAINTENANCE","stop_maintenance":{"machines":[]}}`, 400},
		"DRAIN_AGENT":         {"POST", "/api/v1", `{"type":"DRAIN_AGENT","drain_agent":{` + agent + `}}`, 400},
		"DEACTIVATE_AGENT":    {"POST", "/api/v1", `{"type":"DEACTIVATE_AGENT","deactivate_agent":{` + agent + `}}`, 400},
		"REACTIVATE_AGENT":    {"POST", "/api/v1", `{"type":"REACTIVATE_AGENT","reactivate_agent":{` + agent + `}}`, 400},
		"MARK_AGENT_GONE":     {"POST", "/api/v1", `{"type":"MARK_AGENT_GONE","mark_agent_gone":{` + agent + `}}`, 404},
	} {
		header := []string{"Content-Type", typeJSON}
		if strings.HasPrefix(x.body, "slaveId") {
			header[1] = "application/x-www-form-urlencoded"
		}
		resp, text := m.ask(t, x.method, x.path, x.body, append(header, "Authorization", basic("dev"))...)
		if resp.StatusCode != http.StatusForbidden || text != "403 Forbidden." {
			t.Errorf("%s by dev: %s %q", name, resp.Status, text)
		}
		if x.notForbidden == 200 && (name == "TEARDOWN" || name == "/teardown") {
			continue // ends what the other needs
		}
		resp, text = m.ask(t, x.method, x.path, x.body, append(header, "Authorization", basic("ops"))...)
		if resp.StatusCode != x.notForbidden {
			t.Errorf("%s by ops: %s %q, want %d", name, resp.Status, text, x.notForbidden)
		}
	}
	if resp, text := m.post(t, "/teardown?frameworkId="+id, "", "Authorization", basic("ops")); resp.StatusCode != http.StatusOK {
		t.Errorf("teardown by ops: %s %s", resp.Status, text)
	}
	f.end(t)
}

// TestViewACLs: somebody who may see the framework of www and the role web sees
// nothing else, wherever it looks; ops sees all.
func TestViewACLs(t *testing.T) {
	only := func(action, object, value string) string {
		return `"` + action + `":[{"principals":{"values":["ops"]},"` + object + `":{"type":"ANY"}},{"principals":{"values":["viewer"]},"` + object + `":{"values":["` + value + `"]}}]`
	}
	m := secure(t, `{"permissive": false,"register_agents":[{"principals":{"type":"ANY"},"agents":{"type":"ANY"}}],"register_frameworks":[{"principals":{"type":"ANY"},"roles":{"type":"ANY"}}],"run_tasks":[{"principals":{"type":"ANY"},"users":{"type":"ANY"}}],
		"reserve_resources":[{"principals":{"type":"ANY"},"roles":{"type":"ANY"}}],"update_quotas":[{"principals":{"type":"ANY"},"roles":{"type":"ANY"}}],
		"update_weights":[{"principals":{"type":"ANY"},"roles":{"type":"ANY"}}],`+
		strings.Join([]string{only("view_frameworks", "users", "www"), only("view_tasks", "users", "www"), only("view_executors", "users", "www"), only("view_roles", "roles", "web"), only("get_quotas", "roles", "web")}, ",")+`}`)
	startAgent(t, m, small)
	post := func(body string) {
		t.Helper()
		if resp, text := m.post(t, "/api/v1", body, "Content-Type", typeJSON, "Authorization", basic("ops")); resp.StatusCode/100 != 2 {
			t.Fatalf("%s: %s %s", body, resp.Status, text)
		}
	}
	snap := m.until(t, "the agent", func(s *master.Snapshot) bool { return len(s.Agents) == 1 })
	agent := snap.Agents[0].ID
	for _, role := range []string{"web", "secret"} {
		post(`{"type":"UPDATE_QUOTA","update_quota":{"force":true,"quota_configs":[{"role":"` + role + `","limits":{"gpus":{"value":5}}}]}}`)
		post(`{"type":"UPDATE_WEIGHTS","update_weights":{"weight_infos":[{"role":"` + role + `","weight":2}]}}`)
	}
	launch := func(user, role, name string) *jsonStream {
		f := m.subscribeAs(t, "ops", `"name":"`+name+`","user":"`+user+`",`+multiRole+`"roles":["`+role+`"]`)
		return f
	}
	// The stream of somebody who watches from the start.
	watch := func(who string) *jsonStream {
		resp := m.open(t, http.MethodPost, "/api/v1", `{"type":"SUBSCRIBE"}`, "Content-Type", typeJSON, "Accept", typeJSON, "Authorization", basic(who))
		s := &jsonStream{testMaster: m, id: "", body: resp.Body, records: recordio.NewReader(resp.Body, 4<<20)}
		s.next(t, "SUBSCRIBED")
		return s
	}
	events := watch("viewer")
	for _, x := range []struct{ user, role, name string }{{"hidden", "secret", "secret-framework"}, {"www", "web", "web-framework"}} {
		f := launch(x.user, x.role, x.name)
		id := f.next(t, "SUBSCRIBED").path("subscribed", "framework_id", "value").(string)
		offer := value(f.next(t, "OFFERS").path("offers", "offers", 0).(map[string]any))
		resp, text := m.post(t, "/api/v1/scheduler", `{"type":"ACCEPT","framework_id":{"value":"`+id+`"},"accept":{"filters":{"refuse_seconds":1000},"offer_ids":[{"value":"`+offer.path("id", "value").(string)+`"}],"operations":[
			{"type":"LAUNCH","launch":{"task_infos":[{"name":"`+x.role+`-task","task_id":{"value":"`+x.role+`-task"},"agent_id":{"value":"`+agent+`"},"resources":[{"name":"cpus","type":"SCALAR","scalar":{"value":0.1}}],
			"container":{"type":"DOCKER","docker":{"image":"web:1"}},"command":{"value":"sleep"}}]}}]}}`,
			"Content-Type", typeJSON, "Authorization", basic("ops"), streamHeader, f.id)
		if resp.StatusCode != http.StatusAccepted {
			t.Fatalf("%s %s", resp.Status, text)
		}
	}
	m.until(t, "both tasks running", func(s *master.Snapshot) bool {
		n := 0
		for _, f := range s.Frameworks {
			for _, task := range f.Tasks {
				if len(task.Statuses) > 0 {
					n++
				}
			}
		}
		return n == 2
	})
	post(`{"type":"RESERVE_RESOURCES","reserve_resources":{"agent_id":{"value":"` + agent + `"},"resources":[{"name":"mem","type":"SCALAR","scalar":{"value":32},"reservations":[{"type":"DYNAMIC","role":"secret","principal":"ops"}]}]}}`)
	for name, x := range map[string]struct{ method, path, body, sees string }{
		"/state":          {"GET", "/state", "", "web-task"},
		"/state-summary":  {"GET", "/state-summary", "", "web-framework"},
		"/frameworks":     {"GET", "/frameworks", "", "web-framework"},
		"/tasks":          {"GET", "/tasks", "", "web-task"},
		"/tasks, by name": {"GET", "/tasks?task_id=secret-task", "", `"tasks":[`},
		"/roles":          {"GET", "/roles", "", `"web"`},
		"/slaves":         {"GET", "/slaves", "", agent},
		"/quota":          {"GET", "/quota", "", `"web"`},
		"/weights":        {"GET", "/weights", "", `"web"`},
		"GET_STATE":       {"POST", "/api/v1", "GET_STATE", "web-task"},
		"GET_FRAMEWORKS":  {"POST", "/api/v1", "GET_FRAMEWORKS", "web-framework"},
		"GET_TASKS":       {"POST", "/api/v1", "GET_TASKS", "web-task"},
		"GET_ROLES":       {"POST", "/api/v1", "GET_ROLES", `"web"`},
		"GET_AGENTS":      {"POST", "/api/v1", "GET_AGENTS", agent},
		"GET_QUOTA":       {"POST", "/api/v1", "GET_QUOTA", `"web"`},
		"GET_WEIGHTS":     {"POST", "/api/v1", "GET_WEIGHTS", `"web"`},
		"GET_EXECUTORS":   {"POST", "/api/v1", "GET_EXECUTORS", "get_executors"},
		"GET_OPERATIONS":  {"POST", "/api/v1", "GET_OPERATIONS", "get_operations"},
	} {
		body := ""
		if x.body != "" {
			body = `{"type":"` + x.body + `"}`
		}
		_, text := m.ask(t, x.method, x.path, body, "Content-Type", typeJSON, "Authorization", basic("viewer"))
		if !strings.Contains(text, x.sees) || strings.Contains(text, "secret") {
			t.Errorf("%s: the viewer is shown %s", name, text)
		}
		_, text = m.ask(t, x.method, x.path, body, "Content-Type", typeJSON, "Authorization", basic("ops"))
		if name != "GET_EXECUTORS" && name != "GET_OPERATIONS" && !strings.Contains(text, "secret") {
			t.Errorf("%s: ops is not shown what is secret: %s", name, text)
		}
	}
	if _, text := m.get(t, "/state", "Authorization", basic("viewer")); strings.Contains(text, `"flags"`) {
		t.Error("/state shows flags to one who may not see them")
	}
	if page := watch("viewer"); page == nil {
		t.Fatal("no stream")
	}
	for seen := ""; !strings.Contains(seen, "TASK_UPDATED"); {
		record, err := events.records.Next()
		if err != nil {
			t.Fatal(err)
		}
		if seen = string(record); strings.Contains(seen, "secret") {
			t.Fatalf("the viewer hears of %s", seen)
		}
	}
}

// TestAgentACL: agents that may not register are not heard.
func TestAgentACL(t *testing.T) {
	m := secure(t, `{"register_agents":[{"principals":{"type":"ANY"},"agents":{"type":"NONE"}}]}`)
	a := startGenuine(t, m)
	a.send(genuineRegistration())
	a.back("S1", nil)
	m.until(t, "two messages dropped", func(*master.Snapshot) bool { return m.tally.dropped.Load() == 2 })
	if snap, err := m.Snapshot(context.Background()); err != nil || len(snap.Agents) != 0 {
		t.Errorf("%d agents, %v", len(snap.Agents), err)
	}
}

// TestRateLimit: calls come evenly, and of those that wait no more than may do.
func TestRateLimit(t *testing.T) {
	l, err := ParseLimits([]byte(`{"limits":[{"principal":"slow","qps":2,"capacity":3},{"principal":"free"}],"aggregate_default_qps":1}`))
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		done := make(chan error, 10)
		for range 5 {
			go func() { done <- l.admit(context.Background(), "slow") }()
			synctest.Wait()
		}
		refused := 0
		for range 5 {
			if err := <-done; err != nil {
				refused++
				if !strings.Contains(err.Error(), "dropped: capacity(3) exceeded") {
					t.Error(err)
				}
			}
		}
		// One goes at once, three wait, one is one too many.
		if took := time.Since(start); refused != 1 || took != 1500*time.Millisecond {
			t.Errorf("%d refused, %v, want 1 and 1.5s", refused, took)
		}
		for range 1000 {
			if err := l.admit(context.Background(), "free"); err != nil {
				t.Fatal(err)
			}
		}
		start = time.Now()
		for _, who := range []string{"a", "", "b"} {
			if err := l.admit(context.Background(), who); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("three that are not named take %v, want 2s", took)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := l.admit(ctx, "slow"); err == nil {
			t.Error("one who has left is let through")
		}
	})
	var none *Limits
	if err := none.admit(context.Background(), "x"); err != nil {
		t.Error(err)
	}
}

func TestLimitErrors(t *testing.T) {
	for text, want := range map[string]string{
		"": "EOF", `{"limit":[]}`: "unknown field", `{"limits":[{"qps":1}]}`: "limits[0] has no principal",
		`{"limits":[{"principal":"a"},{"principal":"a"}]}`: "Duplicate principal a", `{"limits":[{"principal":"a","qps":0}]}`: "invalid qps 0",
		`{"aggregate_default_qps":-1}`: "invalid qps -1", `{"limits":[{"principal":"a","qps":1,"capacity":-1}]}`: "capacity",
	} {
		if _, err := ParseLimits([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// TestThrottled: a framework's calls are limited through the API.
func TestThrottled(t *testing.T) {
	limits, err := ParseLimits([]byte(`{"limits":[{"principal":"p","qps":1000000,"capacity":0}]}`))
	if err != nil {
		t.Fatal(err)
	}
	m := startMaster(t, "", func(c *Config) { c.Limits = limits })
	f := subscribe(t, m, `{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"root","name":"x","principal":"p"}}}`)
	id := f.next(t, "SUBSCRIBED").path("subscribed", "framework_id", "value").(string)
	resp, text := m.post(t, "/api/v1/scheduler", `{"type":"REVIVE","framework_id":{"value":"`+id+`"}}`, "Content-Type", typeJSON, streamHeader, f.id)
	if resp.StatusCode != http.StatusTooManyRequests || text != "Message mesos.scheduler.Call dropped: capacity(0) exceeded" {
		t.Errorf("%s %s", resp.Status, text)
	}
	_, text = m.get(t, "/metrics/snapshot")
	if v := parseJSON(t, text); v["frameworks/p/messages_received"] != 1.0 || v["frameworks/p/messages_processed"] != 0.0 {
		t.Errorf("received %v, processed %v", v["frameworks/p/messages_received"], v["frameworks/p/messages_processed"])
	}
}

// TestUserOf reads the user of a task as it was launched.
func TestUserOf(t *testing.T) {
	command := func(user *string) *mesosv1.CommandInfo { return &mesosv1.CommandInfo{User: user} }
	info := &mesosv1.TaskInfo{Name: new("n"), TaskId: &mesosv1.TaskID{Value: new("t")}, AgentId: &mesosv1.AgentID{Value: new("a")}}
	withCommand, withExecutor := proto.CloneOf(info), proto.CloneOf(info)
	withCommand.Command = command(new("www"))
	withExecutor.Executor = &mesosv1.ExecutorInfo{ExecutorId: &mesosv1.ExecutorID{Value: new("e")}, Command: command(new("exec"))}
	for want, info := range map[string]*mesosv1.TaskInfo{"": info, "www": withCommand, "exec": withExecutor} {
		row := &master.Task{More: launchOf(info, "").More}
		if got := userOf(row); got != want {
			t.Errorf("user %q, want %q", got, want)
		}
	}
}
