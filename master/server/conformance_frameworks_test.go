package server

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/mesos/libprocess"
	"github.com/mesopool/mesopool/mesos/messages"
	"github.com/mesopool/mesopool/mesos/recordio"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	schedulerv1 "github.com/mesopool/mesopool/mesos/v1/scheduler"
	"github.com/mesopool/mesopool/store"
	"github.com/mesopool/mesopool/task"
)

var uuidText = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// protoStream is an event stream as mesos-go reads it: protobuf, frames of at
// most 4 MiB.
type protoStream struct {
	*testMaster
	id      string
	records *recordio.Reader
}

const mesosGoFrame = 4 << 20

func subscribeProto(t *testing.T, m *testMaster, path string, f *mesosv1.FrameworkInfo) *protoStream {
	t.Helper()
	call := &schedulerv1.Call{Type: schedulerv1.Call_SUBSCRIBE.Enum(), FrameworkId: f.Id, Subscribe: &schedulerv1.Call_Subscribe{FrameworkInfo: f}}
	resp := m.open(t, http.MethodPost, path, mustMarshal(t, call), "Content-Type", typeProtobuf, "Accept", typeProtobuf, "Accept-Encoding", "gzip")
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != typeProtobuf {
		t.Fatalf("%s: %s %v", path, resp.Status, resp.Header)
	}
	if resp.Header.Get("Content-Encoding") != "" || !uuidText.MatchString(resp.Header.Get(streamHeader)) {
		t.Errorf("%s: %v", path, resp.Header)
	}
	return &protoStream{m, resp.Header.Get(streamHeader), recordio.NewReader(resp.Body, mesosGoFrame)}
}

// read returns the next event. That all required fields are there is what
// Unmarshal checks.
func (s *protoStream) read(t *testing.T) *schedulerv1.Event {
	t.Helper()
	record, err := s.records.Next()
	if err != nil {
		t.Fatal(err)
	}
	e := &schedulerv1.Event{}
	if err := proto.Unmarshal(record, e); err != nil {
		t.Fatal(err)
	}
	return e
}

func (s *protoStream) next(t *testing.T, kind schedulerv1.Event_Type) *schedulerv1.Event {
	t.Helper()
	for {
		if e := s.read(t); e.GetType() == kind {
			return e
		}
	}
}

func (s *protoStream) call(t *testing.T, c *schedulerv1.Call) {
	t.Helper()
	resp, text := s.post(t, "/api/v1/scheduler", mustMarshal(t, c), "Content-Type", typeProtobuf, streamHeader, s.id)
	if resp.StatusCode != http.StatusAccepted || text != "" || resp.Header.Get("Content-Length") != "0" {
		t.Fatalf("%s: %s %q %v", c.GetType(), resp.Status, text, resp.Header)
	}
}

// SUBSCRIBE is answered with the negotiated form and a UUID; SUBSCRIBED comes
// first, then heartbeats.
func Test10C_01_Subscribe(t *testing.T) {
	m := startMaster(t, "", nil)
	s := subscribeProto(t, m, "/api/v1/scheduler", frameworkOf("x", nil))
	first := s.read(t)
	if sub := first.GetSubscribed(); first.GetType() != schedulerv1.Event_SUBSCRIBED || sub.GetHeartbeatIntervalSeconds() != 15 || sub.FrameworkId.GetValue() != m.ID()+"-0000" || sub.MasterInfo.GetId() != m.ID() {
		t.Errorf("first: %v", first)
	}
	if second := s.read(t); second.GetType() != schedulerv1.Event_HEARTBEAT {
		t.Errorf("second: %v", second)
	}
	quick := startMaster(t, "", func(c *Config) { c.Heartbeat = 20 * time.Millisecond })
	for _, accept := range []string{typeJSON, "*/*", "", typeProtobuf + ", " + typeJSON} {
		header := []string{"Content-Type", typeJSON}
		if accept != "" {
			header = append(header, "Accept", accept)
		}
		resp := quick.open(t, http.MethodPost, "/api/v1/scheduler", jsonSubscribe("x", ""), header...)
		if resp.Header.Get("Content-Type") != typeJSON || !uuidText.MatchString(resp.Header.Get(streamHeader)) {
			t.Errorf("Accept %q: %v", accept, resp.Header)
		}
		j := &jsonStream{quick, "", resp.Body, recordio.NewReader(resp.Body, mesosGoFrame)}
		if got := j.next(t, "SUBSCRIBED").path("subscribed", "heartbeat_interval_seconds"); got != 0.02 {
			t.Errorf("a heartbeat every %v s", got)
		}
		for range 4 {
			j.next(t, "HEARTBEAT")
		}
	}
}

// Every call but SUBSCRIBE is answered 202 with nothing; /redirect names the
// leader without a scheme. The refusals are TestSchedulerCodes.
func Test10C_02_Calls(t *testing.T) {
	m := startMaster(t, "", nil)
	startAgent(t, m, small)
	s := subscribeProto(t, m, "/api/v1/scheduler", frameworkOf("x", nil))
	id := s.next(t, schedulerv1.Event_SUBSCRIBED).Subscribed.FrameworkId
	agent := s.next(t, schedulerv1.Event_OFFERS).Offers.Offers[0].AgentId
	tid := &mesosv1.TaskID{Value: new("t1")}
	for _, c := range []*schedulerv1.Call{
		{Accept: &schedulerv1.Call_Accept{}},
		{Decline: &schedulerv1.Call_Decline{OfferIds: []*mesosv1.OfferID{{Value: new("no such offer")}}}},
		{Revive: &schedulerv1.Call_Revive{}},
		{Kill: &schedulerv1.Call_Kill{TaskId: tid, AgentId: agent}},
		{Shutdown: &schedulerv1.Call_Shutdown{ExecutorId: &mesosv1.ExecutorID{Value: new("e")}, AgentId: agent}},
		{Acknowledge: &schedulerv1.Call_Acknowledge{AgentId: agent, TaskId: tid, Uuid: []byte(version)}},
		{Reconcile: &schedulerv1.Call_Reconcile{}},
		{Message: &schedulerv1.Call_Message{AgentId: agent, ExecutorId: &mesosv1.ExecutorID{Value: new("e")}, Data: []byte("x")}},
		{Request: &schedulerv1.Call_Request{}},
		{Suppress: &schedulerv1.Call_Suppress{}},
		{AcceptInverseOffers: &schedulerv1.Call_AcceptInverseOffers{}},
		{DeclineInverseOffers: &schedulerv1.Call_DeclineInverseOffers{}},
		{AcknowledgeOperationStatus: &schedulerv1.Call_AcknowledgeOperationStatus{Uuid: []byte(version), OperationId: &mesosv1.OperationID{Value: new("o")}}},
		{ReconcileOperations: &schedulerv1.Call_ReconcileOperations{}},
		{Type: schedulerv1.Call_TEARDOWN.Enum()},
	} {
		if c.Type == nil {
			c.Type = typeOf(t, c)
		}
		c.FrameworkId = id
		s.call(t, c)
	}
	resp, _ := m.get(t, "/redirect")
	if at := resp.Header.Get("Location"); resp.StatusCode != http.StatusTemporaryRedirect || at != "//"+m.addr {
		t.Errorf("/redirect: %s to %q", resp.Status, at)
	}
	if resp, _ := m.get(t, "/master/redirect/state"); resp.StatusCode != http.StatusNotFound {
		t.Errorf("below /redirect: %s", resp.Status)
	}
}

// typeOf is the type of a call by the part that is set.
func typeOf(t *testing.T, c *schedulerv1.Call) *schedulerv1.Call_Type {
	t.Helper()
	for kind, number := range schedulerv1.Call_Type_value {
		try := &schedulerv1.Call{Type: schedulerv1.Call_Type(number).Enum()}
		part := c.ProtoReflect().Descriptor().Fields().ByJSONName(jsonName(kind))
		if part != nil && c.ProtoReflect().Has(part) {
			return try.Type
		}
	}
	t.Fatalf("%v has no part", c)
	return nil
}

// jsonName makes camel case of SCREAMING_SNAKE_CASE.
func jsonName(kind string) string {
	words := strings.Split(strings.ToLower(kind), "_")
	for i, w := range words[1:] {
		words[i+1] = strings.ToUpper(w[:1]) + w[1:]
	}
	return strings.Join(words, "")
}

// Both paths are served, the stream is never zipped (subscribeProto looks), and
// calls on a second connection may be written without waiting for the answers.
func Test10C_03_PathsAndPipelining(t *testing.T) {
	m := startMaster(t, "", nil)
	s := subscribeProto(t, m, "/api/v1/scheduler", frameworkOf("a", nil))
	id := s.next(t, schedulerv1.Event_SUBSCRIBED).Subscribed.FrameworkId.GetValue()
	subscribeProto(t, m, "/master/api/v1/scheduler", frameworkOf("b", nil)).next(t, schedulerv1.Event_SUBSCRIBED)

	conn, err := net.Dial("tcp", m.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const calls = 50
	body := `{"type":"REVIVE","framework_id":{"value":"` + id + `"}}`
	for range calls {
		fmt.Fprintf(conn, "POST /master/api/v1/scheduler HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nMesos-Stream-Id: %s\r\nContent-Length: %d\r\n\r\n%s", m.addr, s.id, len(body), body)
	}
	r := bufio.NewReader(conn)
	for i := range calls {
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != http.StatusAccepted {
			t.Fatalf("call %d: %v %v", i, resp, err)
		}
		io.Copy(io.Discard, resp.Body)
	}
}

// What proto2 requires is there, in every event of a task's life.
func Test10C_04_RequiredFields(t *testing.T) {
	m := startMaster(t, "", nil)
	startAgent(t, m, small)
	s := subscribeProto(t, m, "/api/v1/scheduler", frameworkOf("x", nil))
	sub := s.next(t, schedulerv1.Event_SUBSCRIBED).Subscribed
	if i := sub.MasterInfo; i.Ip == nil || i.GetIp() == 0 || i.Port == nil || i.GetPid() != "master@"+m.addr || i.GetAddress().GetPort() == 0 || i.GetVersion() == "" {
		t.Errorf("master: %v", i)
	}
	offer := s.next(t, schedulerv1.Event_OFFERS).Offers.Offers[0]
	for _, have := range []string{offer.Id.GetValue(), offer.FrameworkId.GetValue(), offer.AgentId.GetValue(), offer.GetHostname()} {
		if have == "" {
			t.Errorf("offer: %v", offer)
		}
	}
	s.call(t, &schedulerv1.Call{Type: schedulerv1.Call_RECONCILE.Enum(), FrameworkId: sub.FrameworkId, Reconcile: &schedulerv1.Call_Reconcile{
		Tasks: []*schedulerv1.Call_Reconcile_Task{{TaskId: &mesosv1.TaskID{Value: new("t")}}},
	}})
	if st := s.next(t, schedulerv1.Event_UPDATE).Update.Status; st.State == nil || st.TaskId.GetValue() != "t" {
		t.Errorf("status: %v", st)
	}
}

// A subscription that fails is told so on the stream, which then ends; so is one
// that another takes over.
func Test10C_05_SubscriptionErrors(t *testing.T) {
	m := startMaster(t, "", nil)
	refused := subscribe(t, m, strings.Replace(jsonSubscribe("x", ""), `"roles":null`, `"role":"/"`, 1))
	if got := refused.next(t, "ERROR").path("error", "message"); got != "Role '/' cannot start with a slash" {
		t.Errorf("refused with %q", got)
	}
	refused.end(t)
	old := subscribe(t, m, jsonSubscribe("x", ""))
	id := old.next(t, "SUBSCRIBED").path("subscribed", "framework_id", "value").(string)
	subscribe(t, m, jsonSubscribe("x", id)).next(t, "SUBSCRIBED")
	if got := old.next(t, "ERROR").path("error", "message"); got != "Framework failed over" {
		t.Errorf("displaced with %q", got)
	}
	old.end(t)
}

// Updates of agents have a uuid, those that the master makes have none, and an
// acknowledgement may come twice.
func Test10C_06_UpdatesAndAcknowledgements(t *testing.T) {
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
	if update.path("update", "status", "uuid") != "MDEyMzQ1Njc4OWFiY2RlZg==" {
		t.Errorf("update: %v", update)
	}
	f.acknowledge(t, id, agent, update)
	f.acknowledge(t, id, agent, update)
	ack := &messages.StatusUpdateAcknowledgementMessage{}
	a.nextMessage(ack)
	f.call(t, id, `{"type":"RECONCILE","framework_id":{"value":%q},"reconcile":{}}`)
	known := f.next(t, "UPDATE")
	if known.path("update", "status", "state") != "TASK_RUNNING" || known.path("update", "status", "uuid") != nil {
		t.Errorf("the master's update: %v", known)
	}
	f.call(t, id, `{"type":"ACKNOWLEDGE","framework_id":{"value":%q},"acknowledge":{"agent_id":{"value":"`+agent+`"},"task_id":{"value":"no such task"},"uuid":"MDEyMzQ1Njc4OWFiY2RlZg=="}}`)
	m.until(t, "a living framework", func(s *master.Snapshot) bool { return s.Frameworks[0].Connected })
}

// The JSON is Mesos', not protobuf's: names with underscores, numbers as
// numbers, bytes in base 64, defaults that are written out.
func Test10C_07_JSON(t *testing.T) {
	m := startMaster(t, "", nil)
	a := startGenuine(t, m)
	in := genuineRegistration()
	ports := uint64(1) << 40
	in.Slave.Resources = append(in.Slave.Resources, &mesosv1.Resource{Name: new("ports"), Type: mesosv1.Value_RANGES.Enum(), Ranges: &mesosv1.Value_Ranges{
		Range: []*mesosv1.Value_Range{{Begin: new(uint64(31000)), End: &ports}},
	}})
	a.send(in)
	f := subscribe(t, m, jsonSubscribe("x", ""))
	id := f.next(t, "SUBSCRIBED").path("subscribed", "framework_id", "value").(string)
	for {
		record, err := f.records.Next()
		if err != nil {
			t.Fatal(err)
		}
		text := string(record)
		if !strings.Contains(text, `"type":"OFFERS"`) {
			continue
		}
		for _, want := range []string{`"agent_id":{"value":`, `"type":"RANGES"`, `"begin":31000`, `"end":1099511627776`, `"role":"*"`, `"scalar":{"value":4.0}`} {
			if !strings.Contains(text, want) {
				t.Errorf("no %s in %s", want, text)
			}
		}
		break
	}
	f.call(t, id, `{"type":"RECONCILE","framework_id":{"value":%q},"no_such_field":[1],"reconcile":{"tasks":[{"task_id":{"value":"t"},"agent_id":null}]}}`)
	if got := f.next(t, "UPDATE").path("update", "status", "state"); got != "TASK_LOST" {
		t.Errorf("reconciled: %v", got)
	}
}

// No frame of offers is larger than what mesos-go reads.
func Test10C_08_Frames(t *testing.T) {
	m := startMaster(t, "", nil)
	a := startWireAgent(t, m)
	const agents, attribute = 50, 128 << 10
	for i := range agents {
		in := genuineRegistration()
		in.Slave.Attributes = []*mesosv1.Attribute{{Name: new("a"), Type: mesosv1.Value_TEXT.Enum(), Text: &mesosv1.Value_Text{Value: new(strings.Repeat("x", attribute))}}}
		name := fmt.Sprintf("slave(%d)", i+2)
		a.node.Handle(name, func(libprocess.Message) {})
		if err := a.node.SendProto(name, a.to, in); err != nil {
			t.Fatal(err)
		}
	}
	m.until(t, "all agents", func(s *master.Snapshot) bool { return len(s.Agents) == agents })
	s := subscribeProto(t, m, "/api/v1/scheduler", frameworkOf("x", nil))
	seen := map[string]bool{}
	for len(seen) < agents {
		for _, o := range s.next(t, schedulerv1.Event_OFFERS).Offers.Offers {
			seen[o.AgentId.GetValue()] = true
		}
	}
	f := subscribe(t, m, jsonSubscribe("y", "")) // reads 4 MiB at most
	f.next(t, "HEARTBEAT")
}

// Offers say where the agent is and for whom they are; frameworks that do not
// know of roles are not told of them.
func Test10C_10_Offers(t *testing.T) {
	m := startMaster(t, "", nil)
	a := startGenuine(t, m)
	agent := a.register()
	s := subscribeProto(t, m, "/api/v1/scheduler", frameworkOf("new", nil))
	id := s.next(t, schedulerv1.Event_SUBSCRIBED).Subscribed.FrameworkId
	o := s.next(t, schedulerv1.Event_OFFERS).Offers.Offers[0]
	if o.AgentId.GetValue() != agent || o.GetHostname() != "h1" || o.AllocationInfo.GetRole() != "web" || o.FrameworkId.GetValue() != id.GetValue() {
		t.Errorf("offer: %v", o)
	}
	addr := strings.TrimPrefix(a.pid, "slave(1)@")
	if u := o.Url; u.GetScheme() != "http" || u.GetPath() != "/slave(1)" || net.JoinHostPort(u.GetAddress().GetIp(), fmt.Sprint(u.GetAddress().GetPort())) != addr {
		t.Errorf("url: %v", o.Url)
	}
	for _, r := range o.Resources {
		if r.AllocationInfo.GetRole() != "web" || r.Role != nil {
			t.Errorf("resource: %v", r)
		}
	}
	s.call(t, &schedulerv1.Call{Type: schedulerv1.Call_TEARDOWN.Enum(), FrameworkId: id})
	old := subscribe(t, m, jsonSubscribe("old", ""))
	got := value(old.next(t, "OFFERS").path("offers", "offers", 0).(map[string]any))
	if got["allocation_info"] != nil || got.path("resources", 0, "allocation_info") != nil || got.path("resources", 0, "reservations") != nil || got.path("resources", 0, "role") != "*" {
		t.Errorf("an old framework is offered %v", got)
	}
}

// Reconciliation: the table of what is said of tasks that the master knows or
// not, on agents that it knows or not; nothing while an agent may come back.
func Test10C_11_Reconciliation(t *testing.T) {
	st := store.NewMemory()
	quick := func(c *Config) {
		c.Store, c.Core = st, master.DefaultConfig()
		c.Core.PingInterval, c.Core.PingLimit = 50*time.Millisecond, 4
	}
	m := startMaster(t, "", quick)
	here, lost, gone := startGenuine(t, m), startGenuine(t, m), startGenuine(t, m)
	hereID := here.register()
	aware := startFramework(t, m.addr, frameworkOf("aware", nil))
	id := aware.next(t, "subscribed").id
	aware.launch(t, id, "t1")
	run := &messages.RunTaskMessage{}
	here.nextMessage(run)
	here.update(run, mesosv1.TaskState_TASK_RUNNING, version)
	aware.state(t, "t1", task.Running)
	lostID, goneID := lost.register(), gone.register()
	if resp, text := m.post(t, "/api/v1", `{"type":"MARK_AGENT_GONE","mark_agent_gone":{"agent_id":{"value":"`+goneID+`"}}}`, "Content-Type", typeJSON); resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s", resp.Status, text)
	}
	lost.silent = true
	m.until(t, "an unreachable agent", func(s *master.Snapshot) bool { return s.Unreachable == 1 })
	old := startFramework(t, m.addr, frameworkOf("old", func(f *mesosv1.FrameworkInfo) {
		f.Capabilities = []*mesosv1.FrameworkInfo_Capability{{Type: mesosv1.FrameworkInfo_Capability_MULTI_ROLE.Enum()}}
	}))
	old.next(t, "subscribed")
	for _, x := range []struct {
		task, agent string
		want        task.State
	}{
		{"t1", hereID, task.Running},
		{"t1", "", task.Running},
		{"t2", hereID, task.Gone},
		{"t2", lostID, task.Unreachable},
		{"t2", goneID, task.GoneByOperator},
		{"t2", "no such agent", task.Unknown},
		{"t2", "", task.Unknown},
	} {
		aware.Reconcile(map[string]string{x.task: x.agent})
		if got := aware.next(t, "update"); got.status.State != x.want || got.id != x.task || got.status.Reason != task.ReasonReconciliation || !got.status.UUID.IsZero() || got.status.Source != task.SourceMaster {
			t.Errorf("%s on %q: %+v, want %v", x.task, x.agent, got, x.want)
		}
		if x.task == "t1" {
			continue
		}
		old.Reconcile(map[string]string{x.task: x.agent})
		if got := old.next(t, "update"); got.status.State != task.Lost {
			t.Errorf("without PARTITION_AWARE, %s on %q: %v", x.task, x.agent, got.status.State)
		}
	}
	aware.Reconcile(nil)
	if got := aware.next(t, "update"); got.id != "t1" || got.status.State != task.Running {
		t.Errorf("all: %+v", got)
	}

	m.stop()
	m = startMaster(t, m.addr, quick)
	aware.next(t, "subscribed")
	aware.Reconcile(map[string]string{"t1": hereID})
	aware.Reconcile(map[string]string{"t2": ""})
	m.until(t, "both questions", func(s *master.Snapshot) bool { return s.Count.Reconciliations >= 2 })
	here.connect()
	here.back(hereID, run.Framework, listed(run, mesosv1.TaskState_TASK_RUNNING))
	here.nextMessage(&messages.SlaveReregisteredMessage{})
	aware.Reconcile(map[string]string{"t2": hereID})
	if got := aware.next(t, "update"); got.id != "t2" || got.agent != hereID || got.status.State != task.Gone {
		t.Errorf("while agents recover came %+v", got)
	}
}

// launchOne launches t1 on the next offer of a framework without roles.
func (s *jsonStream) launchOne(t *testing.T, id string) {
	t.Helper()
	offer := value(s.next(t, "OFFERS").path("offers", "offers", 0).(map[string]any))
	s.call(t, id, `{"type":"ACCEPT","framework_id":{"value":%q},"accept":{"offer_ids":[{"value":"`+offer.path("id", "value").(string)+`"}],"operations":[{"type":"LAUNCH","launch":{"task_infos":[
		{"name":"t1","task_id":{"value":"t1"},"agent_id":{"value":"`+offer.path("agent_id", "value").(string)+`"},"command":{"value":"true"},"resources":[{"name":"cpus","type":"SCALAR","scalar":{"value":0.1}}]}]}}]}}`)
}
