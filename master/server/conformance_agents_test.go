package server

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/mesos/libprocess"
	"github.com/mesopool/mesopool/mesos/messages"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/store"
)

// runs registers a genuine agent and has a framework launch t1 on it.
func runs(t *testing.T, m *testMaster) (a *genuine, f *testFramework, agent string, run *messages.RunTaskMessage) {
	t.Helper()
	a = startGenuine(t, m)
	agent = a.register()
	f = startFramework(t, m.addr, frameworkOf("marathon", nil))
	f.launch(t, f.next(t, "subscribed").id, "t1")
	run = &messages.RunTaskMessage{}
	a.nextMessage(run)
	return a, f, agent, run
}

// Every order comes from the actor "master" at the address that agents know.
func Test10B_01_MessagesComeFromMaster(t *testing.T) {
	m := startMaster(t, "", nil)
	a := startGenuine(t, m)
	want := "master@" + m.addr
	check := func(got message) {
		t.Helper()
		if got.from != want || got.header.Get("User-Agent") != "libprocess/"+want || !strings.HasPrefix(got.path, "/slave(1)/mesos.internal.") {
			t.Errorf("%s comes from %q, %q", got.path, got.from, got.header.Get("User-Agent"))
		}
		if got.length != -1 || got.header.Get("Connection") == "close" {
			t.Errorf("%s: length %d, %v; libprocess sends one chunk on a connection that stays", got.name, got.length, got.header)
		}
	}
	a.send(genuineRegistration())
	reg := &messages.SlaveRegisteredMessage{}
	check(a.nextMessage(reg))
	agent := reg.SlaveId.GetValue()
	f := startFramework(t, m.addr, frameworkOf("marathon", nil))
	id := f.next(t, "subscribed").id
	f.launch(t, id, "t1")
	run := &messages.RunTaskMessage{}
	check(a.nextMessage(run))
	a.update(run, mesosv1.TaskState_TASK_RUNNING, version)
	check(a.nextMessage(&messages.StatusUpdateAcknowledgementMessage{}))
	f.Kill("t1", agent, nil)
	check(a.nextMessage(&messages.KillTaskMessage{}))
	a.back(agent, run.Framework, listed(run, mesosv1.TaskState_TASK_RUNNING))
	check(a.nextMessage(&messages.SlaveReregisteredMessage{}))
	f.Teardown()
	check(a.nextMessage(&messages.ShutdownFrameworkMessage{}))
	if resp, text := m.post(t, "/api/v1", `{"type":"MARK_AGENT_GONE","mark_agent_gone":{"agent_id":{"value":"`+agent+`"}}}`, "Content-Type", typeJSON); resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s", resp.Status, text)
	}
	check(a.nextMessage(&messages.ShutdownMessage{}))
}

// Messages are taken in every form that libprocess has, on a connection that
// stays; the master dials back to the address that the sender names.
func Test10B_03_MessagesAreTaken(t *testing.T) {
	m := startMaster(t, "", nil)
	a := startGenuine(t, m)
	expect := func(what, want string) {
		t.Helper()
		select {
		case got := <-a.codes:
			if got != want {
				t.Errorf("%s: %s, want %s", what, got, want)
			}
		case <-time.After(patience):
			t.Fatalf("%s: no answer", what)
		}
	}
	a.silent.Store(true)
	a.send(genuineRegistration())
	expect("a registration in one chunk", "202 Accepted")
	a.nextMessage(&messages.SlaveRegisteredMessage{})
	observer, _, _ := strings.Cut(a.pinged(true).from, "@")
	a.write(observer, "mesos.internal.PongSlaveMessage", nil)
	expect("a message without a body or a length", "202 Accepted")
	a.write(strings.NewReplacer("(", "%28", ")", "%29").Replace(observer), "mesos.internal.PongSlaveMessage", nil)
	expect("an escaped actor", "202 Accepted")
	a.write("master", "mesos.internal.NoSuchMessage", []byte("x"))
	expect("a message that nobody knows", "202 Accepted")
	a.write("master", "mesos.internal.RegisterSlaveMessage", []byte("x"))
	expect("a body that cannot be read", "202 Accepted")
	a.write("nobody", "mesos.internal.RegisterSlaveMessage", []byte("x"))
	expect("an actor that is not there", "404 Not Found")
	a.send(genuineRegistration())
	expect("one more on the same connection", "202 Accepted")
}

// An agent keeps its ID while it runs, and is told "registered" only when it
// asks.
func Test10B_04_OneIDForARunningAgent(t *testing.T) {
	m := startMaster(t, "", func(c *Config) {
		c.Core = master.DefaultConfig()
		c.Core.PingInterval, c.Core.PingLimit = 100*time.Millisecond, 50
	})
	a := startGenuine(t, m)
	reg := &messages.SlaveRegisteredMessage{}
	a.send(genuineRegistration())
	a.nextMessage(reg)
	if reg.SlaveId.GetValue() != m.ID()+"-S0" || reg.Connection.GetTotalPingTimeoutSeconds() != 5 {
		t.Errorf("registered: %v", reg)
	}
	for range 3 {
		a.send(genuineRegistration())
		again := &messages.SlaveRegisteredMessage{}
		if a.nextMessage(again); again.SlaveId.GetValue() != reg.SlaveId.GetValue() {
			t.Errorf("registered again as %s", again.SlaveId.GetValue())
		}
	}
	// An agent that restarts is silent until it has recovered: it must hear
	// nothing but pings.
	a.cut()
	a.pinged(false)
	a.pinged(false)
	select {
	case got := <-a.got:
		t.Errorf("an agent in recovery is sent %s", got.name)
	default:
	}
	a.back(reg.SlaveId.GetValue(), nil)
	again := &messages.SlaveReregisteredMessage{}
	if a.nextMessage(again); again.SlaveId.GetValue() != reg.SlaveId.GetValue() || again.Connection.GetTotalPingTimeoutSeconds() != 5 {
		t.Errorf("back as %v", again)
	}
	a.pinged(true)
}

// Pings come from an observer of the agent's own, at once and then in time, and
// say whether it is connected; also to agents that a restarted master knows.
func Test10B_05_Pings(t *testing.T) {
	st := store.NewMemory()
	quick := func(c *Config) {
		c.Store, c.Core = st, master.DefaultConfig()
		c.Core.PingInterval, c.Core.PingLimit = 50*time.Millisecond, 100
	}
	m := startMaster(t, "", quick)
	a := startGenuine(t, m)
	id := a.register()
	for range 3 {
		if from := a.pinged(true).from; !regexp.MustCompile(`^slave-observer\([1-9]\d*\)@` + regexp.QuoteMeta(m.addr) + `$`).MatchString(from) {
			t.Errorf("pinged by %s", from)
		}
	}
	a.cut()
	a.pinged(false)
	a.back(id, nil)
	a.nextMessage(&messages.SlaveReregisteredMessage{})
	a.pinged(true)

	m.stop()
	startMaster(t, m.addr, quick)
	a.pinged(false)
	a.connect()
	a.back(id, nil)
	a.nextMessage(&messages.SlaveReregisteredMessage{})
	a.pinged(true)
}

// A launch has all that a genuine agent would end itself over if it lacked.
func Test10B_06_RunTask(t *testing.T) {
	m := startMaster(t, "", nil)
	a := startGenuine(t, m)
	agent := a.register()
	f := subscribe(t, m, `{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"root","name":"x","roles":["web","db"],"capabilities":[{"type":"MULTI_ROLE"}]}}}`)
	id := f.next(t, "SUBSCRIBED").path("subscribed", "framework_id", "value").(string)
	offer := value(f.next(t, "OFFERS").path("offers", "offers", 0).(map[string]any))
	role := offer.path("allocation_info", "role").(string)
	info := func(id, how string) string {
		return `{"name":"` + id + `","task_id":{"value":"` + id + `"},"agent_id":{"value":"` + agent + `"},"resources":[{"name":"cpus","type":"SCALAR","scalar":{"value":0.1}}],` + how + `}`
	}
	executor := `"executor":{"type":"CUSTOM","executor_id":{"value":"e"},"command":{"value":"run"},"resources":[{"name":"cpus","type":"SCALAR","scalar":{"value":0.1}}]}`
	f.call(t, id, `{"type":"ACCEPT","framework_id":{"value":%q},"accept":{"offer_ids":[{"value":"`+offer.path("id", "value").(string)+`"}],"operations":[{"type":"LAUNCH","launch":{"task_infos":[`+
		info("t1", `"command":{"value":"true"},"health_check":{"command":{"value":"true"}}`)+","+info("t2", executor)+","+info("t3", executor)+`]}}]}}`)
	for i, want := range []struct{ command, launch bool }{{true, true}, {false, true}, {false, false}} {
		run := &messages.RunTaskMessage{}
		a.nextMessage(run)
		if run.Framework.GetId().GetValue() != id || run.GetPid() != "@0.0.0.0:0" || run.Task.AgentId.GetValue() != agent {
			t.Errorf("t%d: framework %v, pid %q, agent %v", i+1, run.Framework.GetId(), run.GetPid(), run.Task.AgentId)
		}
		if (run.Task.Command != nil) != want.command || (run.Task.Executor != nil) == want.command || run.GetLaunchExecutor() != want.launch {
			t.Errorf("t%d: %v, launch_executor %v", i+1, run.Task, run.GetLaunchExecutor())
		}
		if e := run.Task.Executor; e != nil && e.FrameworkId.GetValue() != id {
			t.Errorf("t%d: its executor is of framework %q", i+1, e.FrameworkId.GetValue())
		}
		if h := run.Task.HealthCheck; h != nil && h.GetType() != mesosv1.HealthCheck_COMMAND {
			t.Errorf("t%d: health check %v", i+1, h)
		}
		for _, r := range append(run.Task.Resources, run.Task.GetExecutor().GetResources()...) {
			if r.GetAllocationInfo().GetRole() != role || r.Role != nil || r.Reservation != nil {
				t.Errorf("t%d: resource %v", i+1, r)
			}
		}
		if v := run.ResourceVersionUuids; len(v) != 1 || v[0].ResourceProviderId != nil || string(v[0].GetUuid().GetValue()) != version {
			t.Errorf("t%d: resource versions %v", i+1, v)
		}
	}

	// The version is the one that the agent named last.
	a.send(&messages.UpdateSlaveMessage{
		SlaveId: &mesosv1.AgentID{Value: &agent}, UpdateOversubscribedResources: new(false),
		ResourceVersionUuid: &mesosv1.UUID{Value: []byte("fedcba9876543210")}, Operations: &messages.UpdateSlaveMessage_Operations{},
	})
	f.call(t, id, `{"type":"REVIVE","framework_id":{"value":%q}}`)
	oid := f.next(t, "OFFERS").path("offers", "offers", 0, "id", "value").(string)
	f.call(t, id, `{"type":"ACCEPT","framework_id":{"value":%q},"accept":{"offer_ids":[{"value":"`+oid+`"}],"operations":[{"type":"LAUNCH","launch":{"task_infos":[`+info("t4", `"command":{"value":"true"}`)+`]}}]}}`)
	run := &messages.RunTaskMessage{}
	if a.nextMessage(run); string(run.ResourceVersionUuids[0].GetUuid().GetValue()) != "fedcba9876543210" {
		t.Errorf("resource versions after an update: %v", run.ResourceVersionUuids)
	}
}

// Acknowledgements go through the master, and only to agents that are there: one
// that is away would drop it, so it is not told and tries again.
func Test10B_07_Acknowledgements(t *testing.T) {
	m := startMaster(t, "", nil)
	a := startGenuine(t, m)
	agent := a.register()
	f := subscribe(t, m, jsonSubscribe("x", ""))
	id := f.next(t, "SUBSCRIBED").path("subscribed", "framework_id", "value").(string)
	f.launchOne(t, id)
	run := &messages.RunTaskMessage{}
	a.nextMessage(run)
	a.update(run, mesosv1.TaskState_TASK_RUNNING, version)
	update := f.next(t, "UPDATE")
	a.cut()
	m.until(t, "the agent disconnected", func(s *master.Snapshot) bool { return !s.Agents[0].Connected })
	f.acknowledge(t, id, agent, update)
	a.back(agent, run.Framework, listed(run, mesosv1.TaskState_TASK_RUNNING))
	a.nextMessage(&messages.UpdateFrameworkMessage{})
	a.update(run, mesosv1.TaskState_TASK_RUNNING, version)
	update = f.next(t, "UPDATE")
	select {
	case got := <-a.got:
		t.Errorf("before the second acknowledgement came %s", got.name)
	default:
	}
	f.acknowledge(t, id, agent, update)
	ack := &messages.StatusUpdateAcknowledgementMessage{}
	if got := a.nextMessage(ack); string(ack.Uuid) != version || ack.TaskId.GetValue() != "t1" || ack.SlaveId.GetValue() != agent || got.from != "master@"+m.addr {
		t.Errorf("acknowledged %v from %s", ack, got.from)
	}
}

// Agents that keep the books of operations get them as ApplyOperationMessage and
// their reports are acknowledged: by the framework if it gave an ID, else by the
// master.
func Test10B_08_Operations(t *testing.T) {
	m := startMaster(t, "", nil)
	a := startGenuine(t, m)
	agent := a.register()
	reserve := `{"type":"RESERVE_RESOURCES","reserve_resources":{"agent_id":{"value":"` + agent + `"},"resources":[{"name":"cpus","type":"SCALAR","scalar":{"value":1},"reservations":[{"type":"DYNAMIC","role":"web"}]}]}}`
	if resp, text := m.post(t, "/api/v1", reserve, "Content-Type", typeJSON); resp.StatusCode != http.StatusAccepted {
		t.Fatalf("%s %s", resp.Status, text)
	}
	apply := &messages.ApplyOperationMessage{}
	a.nextMessage(apply)
	if apply.FrameworkId != nil || len(apply.OperationUuid.GetValue()) != 16 || string(apply.ResourceVersionUuid.GetUuid().GetValue()) != version || apply.OperationInfo.GetType() != mesosv1.Offer_Operation_RESERVE {
		t.Errorf("apply: %v", apply)
	}
	finished := func(apply *messages.ApplyOperationMessage, status string) {
		a.send(&messages.UpdateOperationStatusMessage{
			FrameworkId: apply.FrameworkId, SlaveId: &mesosv1.AgentID{Value: &agent}, OperationUuid: apply.OperationUuid,
			Status: &mesosv1.OperationStatus{
				State: mesosv1.OperationState_OPERATION_FINISHED.Enum(), OperationId: apply.OperationInfo.Id, Uuid: &mesosv1.UUID{Value: []byte(status)},
				AgentId: &mesosv1.AgentID{Value: &agent},
			},
		})
	}
	finished(apply, "an operator's on") // 16 bytes, as a UUID has
	ack := &messages.AcknowledgeOperationStatusMessage{}
	a.nextMessage(ack)
	if string(ack.StatusUuid.GetValue()) != "an operator's on" || string(ack.OperationUuid.GetValue()) != string(apply.OperationUuid.GetValue()) {
		t.Errorf("the master acknowledges %v", ack)
	}

	f := subscribe(t, m, `{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"root","name":"x","roles":["web"],"capabilities":[{"type":"MULTI_ROLE"},{"type":"RESERVATION_REFINEMENT"}]}}}`)
	id := f.next(t, "SUBSCRIBED").path("subscribed", "framework_id", "value").(string)
	oid := f.next(t, "OFFERS").path("offers", "offers", 0, "id", "value").(string)
	f.call(t, id, `{"type":"ACCEPT","framework_id":{"value":%q},"accept":{"offer_ids":[{"value":"`+oid+`"}],"operations":[{"type":"RESERVE","id":{"value":"op"},"reserve":{"resources":[
		{"name":"mem","type":"SCALAR","scalar":{"value":64},"allocation_info":{"role":"web"},"reservations":[{"type":"DYNAMIC","role":"web"}]}]}}]}}`)
	apply = &messages.ApplyOperationMessage{}
	if a.nextMessage(apply); apply.FrameworkId.GetValue() != id || apply.OperationInfo.GetId().GetValue() != "op" {
		t.Errorf("apply: %v", apply)
	}
	finished(apply, "a framework's on")
	status := f.next(t, "UPDATE_OPERATION_STATUS")
	if status.path("update_operation_status", "status", "state") != "OPERATION_FINISHED" {
		t.Errorf("told %v", status)
	}
	uuid := status.path("update_operation_status", "status", "uuid", "value").(string)
	f.call(t, id, `{"type":"ACKNOWLEDGE_OPERATION_STATUS","framework_id":{"value":%q},"acknowledge_operation_status":{"agent_id":{"value":"`+agent+`"},"operation_id":{"value":"op"},"uuid":"`+uuid+`"}}`)
	ack = &messages.AcknowledgeOperationStatusMessage{}
	if a.nextMessage(ack); string(ack.StatusUuid.GetValue()) != "a framework's on" {
		t.Errorf("the framework acknowledges %v", ack)
	}
}

// What the master asks of its own accord about operations names them by UUID;
// a genuine agent ends itself over one without.
func Test10B_09_ReconcileOperationsByUUID(t *testing.T) {
	m := startMaster(t, "", nil)
	a := startGenuine(t, m)
	agent := a.register()
	m.post(t, "/api/v1", `{"type":"RESERVE_RESOURCES","reserve_resources":{"agent_id":{"value":"`+agent+`"},"resources":[{"name":"cpus","type":"SCALAR","scalar":{"value":1},"reservations":[{"type":"DYNAMIC","role":"web"}]}]}}`, "Content-Type", typeJSON)
	apply := &messages.ApplyOperationMessage{}
	a.nextMessage(apply)
	a.send(&messages.UpdateSlaveMessage{
		SlaveId: &mesosv1.AgentID{Value: &agent}, UpdateOversubscribedResources: new(false),
		ResourceVersionUuid: &mesosv1.UUID{Value: []byte(version)}, Operations: &messages.UpdateSlaveMessage_Operations{},
	})
	ask := &messages.ReconcileOperationsMessage{}
	a.nextMessage(ask)
	if len(ask.Operations) != 1 || string(ask.Operations[0].OperationUuid.GetValue()) != string(apply.OperationUuid.GetValue()) {
		t.Errorf("asks about %v, want %x", ask, apply.OperationUuid.GetValue())
	}
}

// A re-registered agent is told which tasks it did not bring, by framework, and
// of no others.
func Test10B_10_Reconciliations(t *testing.T) {
	m := startMaster(t, "", nil)
	a, f, agent, run := runs(t, m)
	f.launch(t, run.Framework.Id.GetValue(), "t2")
	second := &messages.RunTaskMessage{}
	a.nextMessage(second)
	a.back(agent, run.Framework, listed(run, mesosv1.TaskState_TASK_RUNNING))
	got := &messages.SlaveReregisteredMessage{}
	a.nextMessage(got)
	if len(got.Reconciliations) != 1 {
		t.Fatalf("reconciliations: %v", got.Reconciliations)
	}
	r := got.Reconciliations[0]
	if r.FrameworkId.GetValue() != run.Framework.Id.GetValue() || r.Framework.GetName() != "marathon" || len(r.Framework.Capabilities) == 0 {
		t.Errorf("of framework %v", r.Framework)
	}
	if len(r.Statuses) != 1 || r.Statuses[0].TaskId.GetValue() != "t2" {
		t.Errorf("about %v, want t2", r.Statuses)
	}
	a.back(agent, run.Framework, listed(run, mesosv1.TaskState_TASK_RUNNING), listed(second, mesosv1.TaskState_TASK_RUNNING))
	if a.nextMessage(got); len(got.Reconciliations) != 0 {
		t.Errorf("all are there, and yet: %v", got.Reconciliations)
	}
}

// Each re-registration ends with the frameworks, upon which the agent sends its
// updates again.
func Test10B_11_UpdateFrameworkAfterReregistration(t *testing.T) {
	m := startMaster(t, "", nil)
	a, _, agent, run := runs(t, m)
	for range 2 {
		a.back(agent, run.Framework, listed(run, mesosv1.TaskState_TASK_RUNNING))
		a.nextMessage(&messages.SlaveReregisteredMessage{})
		up := &messages.UpdateFrameworkMessage{}
		a.nextMessage(up)
		if up.FrameworkId.GetValue() != run.Framework.Id.GetValue() || up.GetPid() != "@0.0.0.0:0" || up.FrameworkInfo.GetId().GetValue() != up.FrameworkId.GetValue() {
			t.Errorf("update of %v, pid %q", up.FrameworkInfo, up.GetPid())
		}
	}
}

// A storm of agents, each of which tries again before it is answered, ends with
// each of them registered once.
func Test10B_13_RegistrationStorm(t *testing.T) {
	m := startMaster(t, "", nil)
	a := startWireAgent(t, m)
	const agents = 200
	ids := make(chan string, 10*agents)
	for i := range agents {
		a.node.Handle(fmt.Sprintf("slave(%d)", i+2), func(in libprocess.Message) {
			reg := &messages.SlaveRegisteredMessage{}
			if in.Name == "mesos.internal.SlaveRegisteredMessage" && proto.Unmarshal(in.Body, reg) == nil {
				ids <- in.To + " " + reg.SlaveId.GetValue()
			}
		})
	}
	for range 3 {
		for i := range agents {
			if err := a.node.SendProto(fmt.Sprintf("slave(%d)", i+2), a.to, genuineRegistration()); err != nil {
				t.Fatal(err)
			}
		}
	}
	known := map[string]bool{}
	for range 3 * agents {
		select {
		case id := <-ids:
			known[id] = true
		case <-time.After(patience):
			t.Fatal("not every try is answered")
		}
	}
	if len(known) != agents {
		t.Errorf("%d agents have %d names", agents, len(known))
	}
	if snap := m.until(t, "all", func(s *master.Snapshot) bool { return len(s.Agents) >= agents }); len(snap.Agents) != agents {
		t.Errorf("%d agents, want %d", len(snap.Agents), agents)
	}
}
