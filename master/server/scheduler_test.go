package server

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/internal/loop"
	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/mesos/recordio"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	schedulerv1 "github.com/mesopool/mesopool/mesos/v1/scheduler"
)

// TestSchedulerCodes is the table of master/http.cpp, scheduler.
func TestSchedulerCodes(t *testing.T) {
	m := startMaster(t, "", nil)
	f := subscribe(t, m, jsonSubscribe("probe", ""))
	id := f.next(t, "SUBSCRIBED").path("subscribed", "framework_id", "value").(string)
	away := subscribe(t, m, jsonSubscribe("away", ""))
	awayID := away.next(t, "SUBSCRIBED").path("subscribed", "framework_id", "value").(string)
	away.body.Close()
	m.until(t, "one framework away", func(s *master.Snapshot) bool { return !s.Frameworks[1].Connected })

	revive := func(id string) string { return `{"type":"REVIVE","framework_id":{"value":"` + id + `"}}` }
	protobuf := mustMarshal(t, &schedulerv1.Call{Type: schedulerv1.Call_REVIVE.Enum(), FrameworkId: &mesosv1.FrameworkID{Value: &id}})
	const other = "9a93295b-ae6c-443f-9828-32b67b426140"
	j := func(more ...string) []string { return append([]string{"Content-Type", typeJSON}, more...) }
	for _, x := range []struct {
		name, method, body string
		header             []string
		status             int
		text               string
	}{
		{"GET", "GET", "", nil, 405, "Expecting one of { 'POST' }, but received 'GET'"},
		{"no content type", "POST", "{}", nil, 400, "Expecting 'Content-Type' to be present"},
		{"a content type with parameters", "POST", "{}", []string{"Content-Type", "application/json; charset=utf-8"}, 415, "Expecting 'Content-Type' of"},
		{"no JSON", "POST", "{", j(), 400, "Failed to parse body into Call protobuf"},
		{"no protobuf", "POST", "{", []string{"Content-Type", typeProtobuf}, 400, "Failed to parse body into Call protobuf"},
		{"no type", "POST", "{}", j(), 400, "Failed to validate scheduler::Call: Expecting 'type' to be present"},
		{"unknown type", "POST", `{"type":"DANCE"}`, j(), 400, "Expecting 'type' to be present"},
		{"no framework", "POST", `{"type":"REVIVE"}`, j(), 400, "Expecting 'framework_id' to be present"},
		{"no accept", "POST", strings.Replace(revive(id), "REVIVE", "ACCEPT", 1), j(), 400, "Expecting 'accept' to be present"},
		{"short uuid", "POST", `{"type":"ACKNOWLEDGE","framework_id":{"value":"x"},"acknowledge":{"agent_id":{"value":"a"},"task_id":{"value":"t"},"uuid":"YQ=="}}`, j(), 400, "Not a valid UUID"},
		{"subscribe with two IDs", "POST", `{"type":"SUBSCRIBE","framework_id":{"value":"x"},"subscribe":{"framework_info":{"user":"u","name":"n"}}}`, j(), 400, "'framework_id' differs from 'subscribe.framework_info.id'"},
		{"nothing acceptable", "POST", jsonSubscribe("x", ""), j("Accept", "text/html"), 406, "Expecting 'Accept' to allow"},
		{"subscribe with a stream ID", "POST", jsonSubscribe("x", ""), j(streamHeader, other), 400, "Subscribe calls should not include"},
		{"unknown framework", "POST", revive("x"), j(streamHeader, f.id), 400, "Framework cannot be found"},
		{"not subscribed", "POST", revive(awayID), j(streamHeader, away.id), 403, "Framework is not subscribed"},
		{"no stream ID", "POST", revive(id), j(), 400, "All non-subscribe calls should include the 'Mesos-Stream-Id' header"},
		{"wrong stream ID", "POST", revive(id), j(streamHeader, other), 400, "didn't match the stream ID currently associated"},
		{"UNKNOWN", "POST", strings.Replace(revive(id), "REVIVE", "UNKNOWN", 1), j(streamHeader, f.id), 501, ""},
		{"taken", "POST", revive(id), j(streamHeader, f.id, "Accept", "text/html"), 202, ""},
		{"taken as protobuf", "POST", protobuf, []string{"Content-Type", typeProtobuf, streamHeader, f.id}, 202, ""},
		{"REQUEST", "POST", `{"type":"REQUEST","framework_id":{"value":"` + id + `"},"request":{"requests":[]}}`, j(streamHeader, f.id), 202, ""},
		{"inverse offers", "POST", `{"type":"DECLINE_INVERSE_OFFERS","framework_id":{"value":"` + id + `"},"decline_inverse_offers":{"inverse_offer_ids":[]}}`, j(streamHeader, f.id), 202, ""},
		{"update", "POST", `{"type":"UPDATE_FRAMEWORK","framework_id":{"value":"` + id + `"},"update_framework":{"framework_info":{"user":"root","name":"new","id":{"value":"` + id + `"}}}}`, j(streamHeader, f.id), 200, ""},
		{"update of the user", "POST", `{"type":"UPDATE_FRAMEWORK","framework_id":{"value":"` + id + `"},"update_framework":{"framework_info":{"user":"other","name":"new"}}}`, j(streamHeader, f.id), 400, "'FrameworkInfo.user' is unsupported"},
		{"update with a bad role", "POST", `{"type":"UPDATE_FRAMEWORK","framework_id":{"value":"` + id + `"},"update_framework":{"framework_info":{"user":"root","name":"new","role":"/x"}}}`, j(streamHeader, f.id), 400, "Supplied FrameworkInfo is not valid: Role '/x' cannot start with a slash"},
	} {
		t.Run(x.name, func(t *testing.T) {
			resp, text := m.ask(t, x.method, "/api/v1/scheduler", x.body, x.header...)
			if resp.StatusCode != x.status || !strings.Contains(text, x.text) {
				t.Errorf("%s %q, want %d %q", resp.Status, text, x.status, x.text)
			}
		})
	}
	m.until(t, "the new name", func(s *master.Snapshot) bool { return s.Frameworks[0].Name == "new" })
}

func TestSubscribeRefused(t *testing.T) {
	m := startMaster(t, "", nil)
	f := subscribe(t, m, `{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"root","name":"x","role":"a//b"}}}`)
	if got := f.next(t, "ERROR").path("error", "message"); got != "Role 'a//b' cannot contain two adjacent slashes" {
		t.Errorf("told %q", got)
	}
	f.end(t)
	f = subscribe(t, m, jsonSubscribe("x", ""))
	id := f.next(t, "SUBSCRIBED").path("subscribed", "framework_id", "value").(string)
	f.call(t, id, `{"type":"TEARDOWN","framework_id":{"value":%q}}`)
	f.end(t)
	f = subscribe(t, m, jsonSubscribe("x", id))
	if got := f.next(t, "ERROR").path("error", "message"); got != "Framework has been removed" {
		t.Errorf("told %q", got)
	}
	f.end(t)
}

// TestOldJSONFramework is a framework without any capability, by plain HTTP:
// its offers have no allocation, and what it launches gets one.
func TestOldJSONFramework(t *testing.T) {
	m := startMaster(t, "", nil)
	startAgent(t, m, small)
	f := subscribe(t, m, jsonSubscribe("old", ""))
	sub := f.next(t, "SUBSCRIBED")
	id := sub.path("subscribed", "framework_id", "value").(string)
	if got := sub.path("subscribed", "master_info", "pid"); got != "master@"+m.addr || sub.path("subscribed", "heartbeat_interval_seconds") != 15.0 {
		t.Errorf("subscribed: %v", sub)
	}
	f.next(t, "HEARTBEAT")
	offer := value(f.next(t, "OFFERS").path("offers", "offers", 0).(map[string]any))
	if offer["allocation_info"] != nil || offer.path("resources", 0, "allocation_info") != nil || offer.path("resources", 0, "role") != "*" {
		t.Errorf("an old framework is offered %v", offer)
	}
	if offer.path("url", "path") != "/slave(1)" || offer["hostname"] != "dc.example" || offer.path("attributes", 0, "text", "value") != "r1" {
		t.Errorf("offer: %v", offer)
	}
	agent, oid := offer.path("agent_id", "value").(string), offer.path("id", "value").(string)
	f.call(t, id, `{"type":"ACCEPT","framework_id":{"value":%q},"accept":{"offer_ids":[{"value":"`+oid+`"}],"filters":null,"operations":[{"type":"LAUNCH","launch":{"task_infos":[
		{"name":"t1","task_id":{"value":"t1"},"agent_id":{"value":"`+agent+`"},"labels":null,"executor":null,"command":{"shell":true,"value":"sleep infinity"},
		 "container":{"type":"DOCKER","docker":{"image":"web:1"}},"resources":[{"name":"cpus","type":"SCALAR","scalar":{"value":0.1},"role":"*","ranges":null}]}]}}]}}`)
	update := f.next(t, "UPDATE")
	for update.path("update", "status", "state") != "TASK_RUNNING" {
		f.acknowledge(t, id, agent, update)
		update = f.next(t, "UPDATE")
	}
	if update.path("update", "status", "container_status", "network_infos", 0, "ip_addresses", 0, "ip_address") == nil {
		t.Errorf("running without an address: %v", update)
	}
	f.acknowledge(t, id, agent, update)
	snap := m.until(t, "the task", func(s *master.Snapshot) bool { return s.Count.Acknowledgements > 0 })
	kept, err := fullTask(snap.Frameworks[0].Tasks[0])
	if err != nil {
		t.Fatal(err)
	}
	if r := kept.Resources[0]; r.GetAllocationInfo().GetRole() != "*" || kept.Container.GetDocker().GetImage() != "web:1" {
		t.Errorf("the master has %v", kept)
	}
	f.call(t, id, `{"type":"KILL","framework_id":{"value":%q},"kill":{"task_id":{"value":"t1"},"kill_policy":{"grace_period":{"nanoseconds":0}}}}`)
	for update.path("update", "status", "state") != "TASK_KILLED" {
		update = f.next(t, "UPDATE")
		f.acknowledge(t, id, agent, update)
	}
}

func (s *jsonStream) acknowledge(t testing.TB, id, agent string, update value) {
	t.Helper()
	if uuid, ok := update.path("update", "status", "uuid").(string); ok {
		s.call(t, id, `{"type":"ACKNOWLEDGE","framework_id":{"value":%q},"acknowledge":{"agent_id":{"value":"`+agent+`"},"task_id":{"value":"t1"},"uuid":"`+uuid+`"}}`)
	}
}

// TestOperations: what this master does not have is refused in words, and
// nobody waits for ever.
func TestOperations(t *testing.T) {
	m := startMaster(t, "", nil)
	startAgent(t, m, small)
	f := subscribe(t, m, jsonSubscribe("old", ""))
	id := f.next(t, "SUBSCRIBED").path("subscribed", "framework_id", "value").(string)
	offer := value(f.next(t, "OFFERS").path("offers", "offers", 0).(map[string]any))
	agent, oid := offer.path("agent_id", "value").(string), offer.path("id", "value").(string)
	group := `{"type":"LAUNCH_GROUP","launch_group":{"executor":{"executor_id":{"value":"e"},"type":"DEFAULT"},"task_group":{"tasks":[
		{"name":"g1","task_id":{"value":"g1"},"agent_id":{"value":"` + agent + `"},"command":{"value":"true"}}]}}}`
	f.call(t, id, `{"type":"ACCEPT","framework_id":{"value":%q},"accept":{"offer_ids":[{"value":"`+oid+`"}],"operations":[
		{"type":"RESERVE","id":{"value":"op1"},"reserve":{"resources":[]}},{"type":"CREATE","create":{"volumes":[]}},`+group+`]}}`)
	op := f.next(t, "UPDATE_OPERATION_STATUS")
	if op.path("update_operation_status", "status", "state") != "OPERATION_ERROR" || op.path("update_operation_status", "status", "operation_id", "value") != "op1" {
		t.Errorf("operation: %v", op)
	}
	status := value(f.next(t, "UPDATE").path("update", "status").(map[string]any))
	if status["state"] != "TASK_ERROR" || status["reason"] != "REASON_TASK_GROUP_INVALID" || !strings.Contains(status["message"].(string), "Task uses no resources") || status["uuid"] != nil {
		t.Errorf("group task: %v", status)
	}
	f.call(t, id, `{"type":"RECONCILE_OPERATIONS","framework_id":{"value":%q},"reconcile_operations":{"operations":[{"operation_id":{"value":"op2"}}]}}`)
	if op := f.next(t, "UPDATE_OPERATION_STATUS"); op.path("update_operation_status", "status", "state") != "OPERATION_UNKNOWN" {
		t.Errorf("unknown operation: %v", op)
	}
}

// TestCallsBeforeSubscribe: some clients reconcile and suppress before they
// subscribe; they are told so and may go on.
func TestCallsBeforeSubscribe(t *testing.T) {
	m := startMaster(t, "", nil)
	for _, body := range []string{`{"type":"RECONCILE","reconcile":{"tasks":[]}}`, `{"type":"SUPPRESS","framework_id":null,"suppress":null}`} {
		if resp, _ := m.post(t, "/api/v1/scheduler", body, "Content-Type", typeJSON); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %s", body, resp.Status)
		}
	}
	subscribe(t, m, jsonSubscribe("early", "")).next(t, "SUBSCRIBED")
}

// TestBodies: what is too large is refused by what it says it will be, and takes
// no memory before it is there.
func TestBodies(t *testing.T) {
	m := startMaster(t, "", nil)
	for _, path := range []string{"/api/v1/scheduler", "/api/v1", "/quota", "/maintenance/schedule", "/machine/down"} {
		conn, err := net.Dial("tcp", m.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", path, int64(maxBody)+1)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if text, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusBadRequest || !strings.Contains(string(text), "larger than 256 MiB") {
			t.Errorf("%s: %s %s", path, resp.Status, text)
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 20 {
		conn, err := net.Dial("tcp", m.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "POST /api/v1 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n{", maxBody)
	}
	m.get(t, "/health")
	runtime.ReadMemStats(&after)
	if took := int64(after.TotalAlloc - before.TotalAlloc); took > 64<<20 {
		t.Errorf("20 claims of %d MiB took %d MiB", maxBody>>20, took>>20)
	}
	if resp, _ := m.post(t, "/api/v1", `{"type":"GET_HEALTH"}`+strings.Repeat(" ", 2*claimed), "Content-Type", typeJSON); resp.StatusCode != http.StatusOK {
		t.Errorf("a large body: %s", resp.Status)
	}
}

// FuzzCalls: no sequence of calls of a framework that has offers and a task makes
// the master stumble, or gives away what is not there. Each call is framed as the
// events are.
func FuzzCalls(f *testing.F) {
	id := &mesosv1.FrameworkID{Value: new("m-0000")}
	cpus := scalar("cpus", 1)
	cpus.Reservations = []*mesosv1.Resource_ReservationInfo{{Type: mesosv1.Resource_ReservationInfo_DYNAMIC.Enum(), Role: new("web")}}
	operations := []*mesosv1.Offer_Operation{
		{Type: mesosv1.Offer_Operation_RESERVE.Enum(), Reserve: &mesosv1.Offer_Operation_Reserve{Resources: []*mesosv1.Resource{cpus}}},
		{Type: mesosv1.Offer_Operation_LAUNCH.Enum(), Launch: &mesosv1.Offer_Operation_Launch{TaskInfos: []*mesosv1.TaskInfo{{
			Name: new("t"), TaskId: &mesosv1.TaskID{Value: new("t")}, AgentId: &mesosv1.AgentID{Value: new("m-S0")},
			Resources: []*mesosv1.Resource{scalar("cpus", 1)}, Command: &mesosv1.CommandInfo{Value: new("true")},
		}}}},
	}
	for _, calls := range [][]*schedulerv1.Call{
		{{Type: schedulerv1.Call_REVIVE.Enum()}, {Type: schedulerv1.Call_TEARDOWN.Enum()}},
		{{Type: schedulerv1.Call_ACCEPT.Enum(), Accept: &schedulerv1.Call_Accept{OfferIds: []*mesosv1.OfferID{{Value: new("m-O0")}}, Operations: operations}}},
		{{Type: schedulerv1.Call_DECLINE.Enum(), Decline: &schedulerv1.Call_Decline{OfferIds: []*mesosv1.OfferID{{Value: new("m-O0")}}}}, {Type: schedulerv1.Call_KILL.Enum(), Kill: &schedulerv1.Call_Kill{TaskId: &mesosv1.TaskID{Value: new("t")}}}},
	} {
		var seed []byte
		for _, c := range calls {
			c.FrameworkId = id
			seed = recordio.Append(seed, []byte(mustMarshal(f, c)))
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		now := time.Unix(1000, 0)
		cfg := master.DefaultConfig()
		cfg.ID = "m"
		core := master.NewCore(cfg)
		s := &Server{log: quiet()}
		s.registry.init()
		s.inbox = loop.New[any]()
		apply := func(cmd master.Command) {
			fx, _ := core.Apply(now, cmd, nil)
			now = now.Add(time.Second)
			fx, _ = core.Apply(now, master.Tick{}, fx)
			for _, e := range fx {
				if to, ok := e.(master.ToAgent); ok {
					if _, run := to.Message.(master.RunTask); !run {
						operationMessage(to.Message)
					}
				}
			}
		}
		total := parse(t, "cpus:4;mem:4096;ports:[1-9]")
		apply(master.RegisterAgent{Agent: master.AgentInfo{PID: "slave(1)@127.0.0.1:1", Hostname: "h", MultiRole: true, ResourceProvider: true, Resources: total}})
		info := master.FrameworkInfo{Name: "f", Roles: []string{"web"}, Capabilities: master.Capabilities{MultiRole: true, ReservationRefinement: true}}
		apply(master.Subscribe{Info: info, Stream: "s"})
		info.ID = "m-0000"
		st := newStream(&info, false, 1<<20)
		st.tally = s.tally.framework(info.ID)
		s.registry.connect(info.ID, st)
		records := recordio.NewReader(bytes.NewReader(data), 1<<16)
		for {
			record, err := records.Next()
			if err != nil {
				break
			}
			call := &schedulerv1.Call{}
			if proto.Unmarshal(record, call) != nil || callProblem(call) != "" {
				continue
			}
			call.FrameworkId = id
			s.take(st, call)
			for _, in := range s.inbox.Take() {
				apply(in.(master.Command))
			}
		}
		for _, a := range core.Snapshot().Agents {
			if given := a.Used.Add(a.Offered...).Allocated(""); !a.Resources.Contains(given) {
				t.Errorf("of %s it gives %s", a.Resources, given)
			}
			if !a.Resources.Scalars().Contains(total.Scalars()) || !total.Scalars().Contains(a.Resources.Scalars()) {
				t.Errorf("what it has became %s", a.Resources)
			}
		}
	})
}
