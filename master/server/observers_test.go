package server

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/mesos/recordio"
	masterv1 "github.com/mesopool/mesopool/mesos/v1/master"
)

// observe opens an operator's stream.
func observe(t testing.TB, m *testMaster) *jsonStream {
	t.Helper()
	resp := m.open(t, http.MethodPost, "/api/v1", `{"type":"SUBSCRIBE"}`, "Content-Type", typeJSON, "Accept", typeJSON)
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != typeJSON {
		t.Fatalf("SUBSCRIBE: %s", resp.Status)
	}
	return &jsonStream{testMaster: m, id: "", body: resp.Body, records: recordio.NewReader(resp.Body, 64<<20)}
}

// TestOperatorEvents watches a cluster from nothing to nothing.
func TestOperatorEvents(t *testing.T) {
	m := startMaster(t, "", func(c *Config) { c.Heartbeat = 300 * time.Millisecond })
	ev := observe(t, m)
	first := ev.next(t, "SUBSCRIBED")
	if first.path("subscribed", "get_state", "get_agents") == nil || first.path("subscribed", "heartbeat_interval_seconds") != 0.3 {
		t.Errorf("SUBSCRIBED: %v", first)
	}
	ev.next(t, "HEARTBEAT")
	startAgent(t, m, small)
	added := ev.next(t, "AGENT_ADDED")
	agent := added.path("agent_added", "agent", "agent_info", "id", "value").(string)
	f := startFramework(t, m.addr, frameworkOf("f", nil))
	id := f.next(t, "subscribed").id
	if got := ev.next(t, "FRAMEWORK_ADDED").path("framework_added", "framework", "framework_info", "id", "value"); got != id {
		t.Errorf("FRAMEWORK_ADDED: %v", got)
	}
	f.launch(t, id, "t1")
	if got := ev.next(t, "TASK_ADDED"); got.path("task_added", "task", "task_id", "value") != "t1" || got.path("task_added", "task", "state") != "TASK_STAGING" {
		t.Errorf("TASK_ADDED: %v", got)
	}
	f.state(t, "t1", 1)
	for want := "TASK_RUNNING"; ; {
		up := ev.next(t, "TASK_UPDATED")
		if up.path("task_updated", "state") == want && up.path("task_updated", "status", "task_id", "value") == "t1" {
			break
		}
	}
	later := m.open(t, http.MethodPost, "/api/v1", mustMarshal(t, &masterv1.Call{Type: masterv1.Call_SUBSCRIBE.Enum()}), "Content-Type", typeProtobuf, "Accept", typeProtobuf)
	record, err := recordio.NewReader(later.Body, 64<<20).Next()
	event := &masterv1.Event{}
	if err == nil {
		err = proto.Unmarshal(record, event)
	}
	if err != nil || len(event.GetSubscribed().GetGetState().GetGetTasks().GetTasks()) != 1 {
		t.Errorf("a later reader, as protobuf: %v %v", err, event)
	}
	f.stop()
	ev.next(t, "FRAMEWORK_UPDATED")
	m.post(t, "/api/v1", `{"type":"TEARDOWN","teardown":{"framework_id":{"value":"`+id+`"}}}`, "Content-Type", typeJSON)
	if got := ev.next(t, "TASK_UPDATED").path("task_updated", "state"); got != "TASK_KILLED" {
		t.Errorf("TASK_UPDATED: %v", got)
	}
	if got := ev.next(t, "FRAMEWORK_REMOVED").path("framework_removed", "framework_info", "name"); got != "f" {
		t.Errorf("FRAMEWORK_REMOVED: %v", got)
	}
	m.post(t, "/api/v1", `{"type":"MARK_AGENT_GONE","mark_agent_gone":{"agent_id":{"value":"`+agent+`"}}}`, "Content-Type", typeJSON)
	if got := ev.next(t, "AGENT_REMOVED").path("agent_removed", "agent_id", "value"); got != agent {
		t.Errorf("AGENT_REMOVED: %v", got)
	}
}

// TestObserversBounded: the oldest makes room, one who does not read is cut off,
// and nobody left means nothing is collected.
func TestObserversBounded(t *testing.T) {
	var o observers
	one := newStream(&master.FrameworkInfo{}, false, 10*eventCost)
	o.add(one)
	for range maxObservers {
		o.add(newStream(&master.FrameworkInfo{}, false, 1))
	}
	if _, ended, _ := one.take(); !ended || len(o.list) != maxObservers {
		t.Errorf("the oldest: ended %v; %d are left", ended, len(o.list))
	}
	slow := newStream(&master.FrameworkInfo{}, false, 10*eventCost)
	o.list = nil
	o.add(slow)
	for range 12 {
		o.tell(master.AgentRemoved{Agent: "a"})
	}
	if events, ended, overflow := slow.take(); len(events) != 0 || !ended || !overflow {
		t.Errorf("the slow one: %d events, ended %v, overflow %v", len(events), ended, overflow)
	}
	o.remove(slow)
	if len(o.list) != 0 {
		t.Error("it is still there")
	}
}

// TestEveryOperatorCall: each call of the protocol is done, or refused in words.
func TestEveryOperatorCall(t *testing.T) {
	m := startMaster(t, "", nil)
	for number, name := range masterv1.Call_Type_name {
		if name == "SUBSCRIBE" {
			continue
		}
		call := &masterv1.Call{Type: masterv1.Call_Type(number).Enum()}
		fillPart(call, name)
		resp, text := m.post(t, "/api/v1", mustMarshal(t, call), "Content-Type", typeProtobuf)
		switch refused := resp.StatusCode == http.StatusNotImplemented; {
		case refused && !strings.Contains(text, name):
			t.Errorf("%s is refused without a word: %q", name, text)
		case refused != notHere[name]:
			t.Errorf("%s: %s %s", name, resp.Status, text)
		case resp.StatusCode >= 500 && !refused:
			t.Errorf("%s: %s %s", name, resp.Status, text)
		}
	}
}

// fillPart gives a call the part that it needs, with every required field.
func fillPart(c *masterv1.Call, name string) {
	m := c.ProtoReflect()
	if part := m.Descriptor().Fields().ByName(protoreflect.Name(strings.ToLower(name))); part != nil {
		fillRequired(m.Mutable(part).Message())
	}
}

func fillRequired(m protoreflect.Message) {
	for i := range m.Descriptor().Fields().Len() {
		switch f := m.Descriptor().Fields().Get(i); {
		case f.Cardinality() != protoreflect.Required:
		case f.Message() != nil:
			fillRequired(m.Mutable(f).Message())
		case f.Kind() == protoreflect.EnumKind:
			m.Set(f, protoreflect.ValueOfEnum(0))
		default:
			m.Set(f, f.Default())
		}
	}
}

// notHere are the calls that this master has nothing to do for.
var notHere = map[string]bool{
	"UNKNOWN": true, "READ_LOG": true, "LIST_FILES": true, "READ_FILE": true, "GET_LOGGING_LEVEL": true, "SET_LOGGING_LEVEL": true,
}
