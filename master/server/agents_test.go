package server

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/mesopool/mesopool/internal/loop"
	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/mesos/libprocess"
	"github.com/mesopool/mesopool/mesos/messages"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/task"
)

// wireAgent is an agent that a test plays message by message.
type wireAgent struct {
	node *libprocess.Node
	to   libprocess.UPID
	got  chan proto.Message
	from chan string // who pinged
}

func startWireAgent(t *testing.T, m *testMaster) *wireAgent {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := &wireAgent{to: m.UPID(), got: make(chan proto.Message, 1000), from: make(chan string, 1000)}
	a.node = libprocess.NewNode(libprocess.Config{Listener: l})
	a.node.Handle("slave(1)", func(in libprocess.Message) {
		for _, out := range []proto.Message{
			&messages.SlaveRegisteredMessage{}, &messages.SlaveReregisteredMessage{}, &messages.RunTaskMessage{}, &messages.KillTaskMessage{},
			&messages.StatusUpdateAcknowledgementMessage{}, &messages.UpdateFrameworkMessage{}, &messages.ShutdownFrameworkMessage{},
			&messages.ShutdownExecutorMessage{}, &messages.FrameworkToExecutorMessage{}, &messages.AuthenticationErrorMessage{},
			&messages.PingSlaveMessage{},
		} {
			if string(out.ProtoReflect().Descriptor().FullName()) != in.Name {
				continue
			}
			if err := proto.Unmarshal(in.Body, out); err != nil {
				t.Errorf("%s: %v", in.Name, err)
			}
			if _, ping := out.(*messages.PingSlaveMessage); ping {
				a.from <- in.From.ID
				continue
			}
			a.got <- out
		}
	})
	start(t, func(ctx context.Context) error { return a.node.Run(ctx) })
	return a
}

func (a *wireAgent) send(t *testing.T, m proto.Message) {
	t.Helper()
	if err := a.node.SendProto("slave(1)", a.to, m); err != nil {
		t.Fatal(err)
	}
}

// receive waits for a message of a type.
func receive[M proto.Message](t *testing.T, a *wireAgent) M {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case m := <-a.got:
			if want, ok := m.(M); ok {
				return want
			}
		case <-timeout:
			var none M
			t.Fatalf("no %T came", none)
		}
	}
}

func registration() *messages.RegisterSlaveMessage {
	return &messages.RegisterSlaveMessage{
		Slave: &mesosv1.AgentInfo{
			Hostname: new("h1"), Port: new(int32(5051)), Checkpoint: new(true), Resources: []*mesosv1.Resource{scalar("cpus", 4), scalar("mem", 4096)},
		},
		Version:             new("1.11.0"),
		AgentCapabilities:   []*mesosv1.AgentInfo_Capability{{Type: mesosv1.AgentInfo_Capability_MULTI_ROLE.Enum()}},
		ResourceVersionUuid: &mesosv1.UUID{Value: []byte("0123456789abcdef")},
	}
}

// TestAgentMessages reads every message to an agent as an agent does.
func TestAgentMessages(t *testing.T) {
	m := startMaster(t, "", nil)
	a := startWireAgent(t, m)
	a.send(t, registration())
	reg := receive[*messages.SlaveRegisteredMessage](t, a)
	agent := reg.SlaveId.GetValue()
	if agent != m.ID()+"-S0" || reg.Connection.GetTotalPingTimeoutSeconds() != 75 {
		t.Errorf("registered: %v", reg)
	}
	if from := <-a.from; from != "slave-observer(1)" {
		t.Errorf("pinged by %s", from)
	}

	f := subscribe(t, m, jsonSubscribe("old", ""))
	id := f.next(t, "SUBSCRIBED").path("subscribed", "framework_id", "value").(string)
	if up := receive[*messages.UpdateFrameworkMessage](t, a); up.GetPid() != "@0.0.0.0:0" || up.FrameworkInfo.GetId().GetValue() != id {
		t.Errorf("update of the framework: %v", up)
	}
	oid := f.next(t, "OFFERS").path("offers", "offers", 0, "id", "value").(string)
	f.call(t, id, `{"type":"ACCEPT","framework_id":{"value":%q},"accept":{"offer_ids":[{"value":"`+oid+`"}],"operations":[{"type":"LAUNCH","launch":{"task_infos":[
		{"name":"t1","task_id":{"value":"t1"},"agent_id":{"value":"`+agent+`"},"command":{"value":"true"},"resources":[{"name":"cpus","type":"SCALAR","scalar":{"value":1}}]}]}}]}}`)
	run := receive[*messages.RunTaskMessage](t, a)
	want := &messages.RunTaskMessage{
		Framework: &mesosv1.FrameworkInfo{Id: &mesosv1.FrameworkID{Value: &id}, User: new("root"), Name: new("old"), FailoverTimeout: new(3600.0)},
		Task: &mesosv1.TaskInfo{
			Name: new("t1"), TaskId: &mesosv1.TaskID{Value: new("t1")}, AgentId: &mesosv1.AgentID{Value: &agent},
			Command: &mesosv1.CommandInfo{Value: new("true")}, Resources: []*mesosv1.Resource{scalar("cpus", 1)},
		},
		Pid: new("@0.0.0.0:0"), LaunchExecutor: new(true),
		ResourceVersionUuids: []*messages.ResourceVersionUUID{{Uuid: &mesosv1.UUID{Value: []byte("0123456789abcdef")}}},
	}
	allocate(want.Task.Resources, "*")
	if diff := cmp.Diff(want, run, protocmp.Transform()); diff != "" {
		t.Errorf("RunTask (-want +got):\n%s", diff)
	}

	uuid := []byte("fedcba9876543210")
	status := &mesosv1.TaskStatus{
		TaskId: run.Task.TaskId, State: mesosv1.TaskState_TASK_RUNNING.Enum(), AgentId: run.Task.AgentId, Timestamp: new(1.5), Uuid: []byte("other than this."),
		Data: []byte("data"), Source: mesosv1.TaskStatus_SOURCE_EXECUTOR.Enum(),
	}
	a.send(t, &messages.StatusUpdateMessage{Pid: new("slave(1)@" + a.node.UPID("").Addr.String()), Update: &messages.StatusUpdate{
		FrameworkId: run.Framework.Id, SlaveId: run.Task.AgentId, ExecutorId: &mesosv1.ExecutorID{Value: new("t1")}, Status: status, Timestamp: new(2.5), Uuid: uuid,
	}})
	got := value(f.next(t, "UPDATE").path("update", "status").(map[string]any))
	for k, want := range map[string]any{"uuid": "ZmVkY2JhOTg3NjU0MzIxMA==", "timestamp": 2.5, "data": "ZGF0YQ==", "state": "TASK_RUNNING"} {
		if got[k] != want {
			t.Errorf("update: %s = %v, want %v", k, got[k], want)
		}
	}
	snap := m.until(t, "the status", func(s *master.Snapshot) bool { return len(s.Frameworks[0].Tasks[0].Statuses) == 1 })
	row := snap.Frameworks[0].Tasks[0]
	kept, err := fullStatus(row, &row.Statuses[0])
	if err != nil || kept.Data != nil || kept.GetTimestamp() != 2.5 {
		t.Errorf("kept %v, %v", kept, err)
	}

	f.acknowledge(t, id, agent, value{"update": map[string]any{"status": map[string]any(got)}})
	ack := receive[*messages.StatusUpdateAcknowledgementMessage](t, a)
	wantAck := &messages.StatusUpdateAcknowledgementMessage{SlaveId: run.Task.AgentId, FrameworkId: run.Framework.Id, TaskId: run.Task.TaskId, Uuid: uuid}
	if diff := cmp.Diff(wantAck, ack, protocmp.Transform()); diff != "" {
		t.Errorf("acknowledgement (-want +got):\n%s", diff)
	}
	f.call(t, id, `{"type":"KILL","framework_id":{"value":%q},"kill":{"task_id":{"value":"t1"},"agent_id":{"value":"`+agent+`"},"kill_policy":{"grace_period":{"nanoseconds":7}}}}`)
	if kill := receive[*messages.KillTaskMessage](t, a); kill.GetKillPolicy().GetGracePeriod().GetNanoseconds() != 7 || kill.FrameworkId.GetValue() != id {
		t.Errorf("kill: %v", kill)
	}
	f.call(t, id, `{"type":"MESSAGE","framework_id":{"value":%q},"message":{"agent_id":{"value":"`+agent+`"},"executor_id":{"value":"e"},"data":"aGk="}}`)
	if msg := receive[*messages.FrameworkToExecutorMessage](t, a); string(msg.Data) != "hi" || msg.ExecutorId.GetValue() != "e" {
		t.Errorf("message: %v", msg)
	}
	f.call(t, id, `{"type":"SHUTDOWN","framework_id":{"value":%q},"shutdown":{"agent_id":{"value":"`+agent+`"},"executor_id":{"value":"e"}}}`)
	receive[*messages.ShutdownExecutorMessage](t, a)
	a.send(t, &messages.ExecutorToFrameworkMessage{SlaveId: run.Task.AgentId, FrameworkId: run.Framework.Id, ExecutorId: &mesosv1.ExecutorID{Value: new("e")}, Data: []byte("ho")})
	if msg := f.next(t, "MESSAGE"); msg.path("message", "data") != "aG8=" {
		t.Errorf("message: %v", msg)
	}
	a.send(t, &messages.ExitedExecutorMessage{SlaveId: run.Task.AgentId, FrameworkId: run.Framework.Id, ExecutorId: &mesosv1.ExecutorID{Value: new("e")}, Status: new(int32(9))})
	if lost := f.next(t, "FAILURE"); lost.path("failure", "status") != 9.0 {
		t.Errorf("failure: %v", lost)
	}
	f.call(t, id, `{"type":"TEARDOWN","framework_id":{"value":%q}}`)
	receive[*messages.ShutdownFrameworkMessage](t, a)
	a.send(t, &messages.AuthenticateMessage{Pid: new("slave(1)@127.0.0.1:1")})
	receive[*messages.AuthenticationErrorMessage](t, a)
	a.send(t, &messages.UnregisterSlaveMessage{SlaveId: run.Task.AgentId})
	m.until(t, "no agent", func(s *master.Snapshot) bool { return len(s.Agents) == 0 })
}

var testAddr = netip.MustParseAddrPort("127.0.0.1:5051")

// TestReregisterMissing: tasks that the agent did not bring are named.
func TestReregisterMissing(t *testing.T) {
	m := startMaster(t, "", nil)
	a := startWireAgent(t, m)
	a.send(t, registration())
	agent := receive[*messages.SlaveRegisteredMessage](t, a).SlaveId
	f := startFramework(t, m.addr, frameworkOf("marathon", nil))
	id := f.next(t, "subscribed").id
	f.launch(t, id, "t1")
	receive[*messages.RunTaskMessage](t, a)
	in := registration()
	in.Slave.Id = agent
	a.send(t, &messages.ReregisterSlaveMessage{Slave: in.Slave, Version: in.Version, AgentCapabilities: in.AgentCapabilities})
	got := receive[*messages.SlaveReregisteredMessage](t, a)
	if len(got.Reconciliations) != 1 || got.Reconciliations[0].Framework.GetName() != "marathon" || got.Reconciliations[0].Statuses[0].TaskId.GetValue() != "t1" {
		t.Errorf("reconciliations: %v", got.Reconciliations)
	}
}

func reregistration() *messages.ReregisterSlaveMessage {
	in := registration()
	in.Slave.Id = &mesosv1.AgentID{Value: new("S1")}
	f := frameworkOf("f", func(f *mesosv1.FrameworkInfo) { f.Id = &mesosv1.FrameworkID{Value: new("F1")} })
	cpus := []*mesosv1.Resource{scalar("cpus", 1)}
	return &messages.ReregisterSlaveMessage{
		Slave: in.Slave, Version: in.Version, AgentCapabilities: in.AgentCapabilities, Frameworks: []*mesosv1.FrameworkInfo{f},
		Tasks: []*mesosv1.Task{{
			Name: new("t1"), TaskId: &mesosv1.TaskID{Value: new("t1")}, FrameworkId: f.Id, AgentId: in.Slave.Id,
			State: mesosv1.TaskState_TASK_RUNNING.Enum(), Resources: cpus,
		}},
	}
}

// TestReregistrationChecked is master/validation.cpp, reregisterSlave: what is
// not valid is dropped without a word.
func TestReregistrationChecked(t *testing.T) {
	type message = *messages.ReregisterSlaveMessage
	for _, x := range []struct {
		name   string
		change func(message)
		want   string
	}{
		{"nothing", func(message) {}, ""},
		{"hostname", func(m message) { m.Slave.Hostname = new("") }, "no hostname"},
		{"no version", func(m message) { m.Version = nil }, `its version "" is not of the form`},
		{"old version", func(m message) { m.Version = new("0.28.2") }, "older than 1.0.0"},
		{"version with a tag", func(m message) { m.Version = new("1.11.0-0.10.0") }, ""},
		{"kept without checkpointing", func(m message) {
			m.CheckpointedResources, m.Slave.Checkpoint = []*mesosv1.Resource{scalar("cpus", 1)}, new(false)
		}, "checkpointing is not enabled"},
		{"kept that is not there", func(m message) {
			r := scalar("gpus", 1)
			r.Role = new("db")
			m.CheckpointedResources = []*mesosv1.Resource{r}
		}, "the checkpointed gpus(db):1 is not part"},
		{"resources", func(m message) { m.Slave.Resources[0].Scalar.Value = new(-1.0) }, "resource 0 (cpus): -1 is negative"},
		{"ID", func(m message) { m.Slave.Id.Value = new("a/b") }, "agent ID: 'a/b' contains invalid characters"},
		{"framework twice", func(m message) { m.Frameworks = append(m.Frameworks, m.Frameworks[0]) }, "framework F1 is listed twice"},
		{"framework without ID", func(m message) { m.Frameworks[0].Id = nil }, "framework ID: ID must not be empty"},
		{"task of nobody", func(m message) { m.Frameworks = nil }, `task "t1": its framework "F1" is not listed`},
		{"task of another agent", func(m message) { m.Tasks[0].AgentId = &mesosv1.AgentID{Value: new("S2")} }, `task "t1": it is of agent "S2"`},
		{"task twice", func(m message) { m.Tasks = append(m.Tasks, proto.CloneOf(m.Tasks[0])) }, `task "t1" is listed twice`},
		{"running without its executor", func(m message) { m.Tasks[0].ExecutorId = &mesosv1.ExecutorID{Value: new("e")} }, `task "t1": its executor "e" is not listed`},
		{"running with its executor", func(m message) {
			m.Tasks[0].ExecutorId = &mesosv1.ExecutorID{Value: new("e")}
			m.ExecutorInfos = []*mesosv1.ExecutorInfo{{ExecutorId: m.Tasks[0].ExecutorId, FrameworkId: m.Frameworks[0].Id}}
		}, ""},
		{"executor of nobody", func(m message) {
			m.ExecutorInfos = []*mesosv1.ExecutorInfo{{ExecutorId: &mesosv1.ExecutorID{Value: new("e")}}}
		}, `executor "e": its framework "" is not listed`},
	} {
		t.Run(x.name, func(t *testing.T) {
			in := reregistration()
			x.change(in)
			from := libprocess.UPID{ID: "slave(1)", Addr: testAddr}
			_, err := readReregistration(from, in)
			got := ""
			if err != nil {
				got = err.Error()
			}
			if x.want == "" && got != "" || !strings.Contains(got, x.want) {
				t.Errorf("got %q, want %q", got, x.want)
			}
		})
	}
	if _, err := readReregistration(libprocess.UPID{}, reregistration()); err == nil {
		t.Error("a message from nobody is taken")
	}
}

// TestKeptResources: reservations that an agent kept replace what they were
// made of.
func TestKeptResources(t *testing.T) {
	kept := scalar("cpus", 1)
	kept.Role, kept.Reservation = new("db"), &mesosv1.Resource_ReservationInfo{Principal: new("p")}
	got, err := totalResources([]*mesosv1.Resource{scalar("cpus", 4)}, []*mesosv1.Resource{kept})
	if err != nil || got.String() != "cpus:3; cpus(db):1" {
		t.Errorf("%v, %v", got, err)
	}
}

// TestRows: what is kept beside a row and the row make the message again.
func TestRows(t *testing.T) {
	sent := &mesosv1.TaskStatus{
		TaskId: &mesosv1.TaskID{Value: new("t")}, State: mesosv1.TaskState_TASK_LOST.Enum(), Data: []byte("x"), Healthy: new(true), Message: new("why"),
		AgentId: &mesosv1.AgentID{Value: new("a")}, ExecutorId: &mesosv1.ExecutorID{Value: new("e")}, Timestamp: new(2.5), Uuid: make([]byte, 16),
		Source: mesosv1.TaskStatus_SOURCE_AGENT.Enum(), Reason: mesosv1.TaskStatus_REASON_GC_ERROR.Enum(), UnreachableTime: &mesosv1.TimeInfo{Nanoseconds: new(int64(7))},
	}
	sent.Uuid[3] = 9
	st, err := status(sent)
	if err != nil {
		t.Fatal(err)
	}
	reported := &mesosv1.Task{
		Name: new("n"), TaskId: sent.TaskId, AgentId: sent.AgentId, FrameworkId: &mesosv1.FrameworkID{Value: new("f")}, ExecutorId: sent.ExecutorId,
		State: mesosv1.TaskState_TASK_RUNNING.Enum(), User: new("root"), Statuses: []*mesosv1.TaskStatus{sent}, Resources: []*mesosv1.Resource{scalar("cpus", 1)},
		Labels: &mesosv1.Labels{Labels: []*mesosv1.Label{{Key: new("k"), Value: new("v")}}}, Limits: map[string]*mesosv1.Value_Scalar{"mem": {Value: new(3.0)}},
	}
	whole := proto.CloneOf(reported)
	whole.Statuses[0].Data = nil
	row, err := reportedTask(reported, "a", map[string]string{"f": "r"}, map[task.Key]bool{{Framework: "f", ID: "e"}: true})
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(st.More, []byte("why")) || bytes.Contains(row.More, []byte("cpus")) {
		t.Errorf("kept twice: %q, %q", st.More, row.More)
	}
	got, err := fullTask(row)
	if err != nil {
		t.Fatal(err)
	}
	got.Resources, whole.Resources = nil, nil // they are in the form after reservation refinement
	if diff := cmp.Diff(whole, got, protocmp.Transform()); diff != "" {
		t.Errorf("the task (-sent +kept):\n%s", diff)
	}
	if got := field([]byte(mustMarshal(t, sent)), 1); string(got) != "\n\x01t" {
		t.Errorf("field = %q", got)
	}
}

// FuzzMessage: no message of an agent makes the master stumble.
func FuzzMessage(f *testing.F) {
	for _, m := range []proto.Message{registration(), reregistration(), &messages.PongSlaveMessage{}, &messages.StatusUpdateMessage{
		Pid: new("slave(1)@127.0.0.1:5051"), Update: &messages.StatusUpdate{
			FrameworkId: &mesosv1.FrameworkID{Value: new("F1")}, Timestamp: new(1.0),
			Status: &mesosv1.TaskStatus{TaskId: &mesosv1.TaskID{Value: new("t1")}, State: mesosv1.TaskState_TASK_LOST.Enum()},
		},
	}} {
		body, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(m.ProtoReflect().Descriptor().FullName()), body)
	}
	s := &Server{log: quiet()}
	s.inbox = loop.New[any]()
	core := master.NewCore(master.DefaultConfig())
	f.Fuzz(func(t *testing.T, name string, body []byte) {
		if name == "mesos.internal.AuthenticateMessage" {
			t.Skip("it is answered over the network")
		}
		s.receive(libprocess.Message{From: libprocess.UPID{ID: "slave(1)", Addr: testAddr}, To: masterActor, Name: name, Body: body})
		for _, in := range s.inbox.Take() {
			core.Apply(time.Now(), in.(master.Command), nil)
		}
	})
}

func TestStatusOfWire(t *testing.T) {
	in := &mesosv1.TaskStatus{State: mesosv1.TaskState_TASK_FAILED.Enum(), Reason: mesosv1.TaskStatus_REASON_EXECUTOR_TERMINATED.Enum(), Timestamp: new(3.25), Uuid: []byte("0123456789abcdef"), Data: []byte("x")}
	in.TaskId = &mesosv1.TaskID{Value: new("t")}
	got, err := status(in)
	if err != nil || got.State != task.Failed || got.Reason != task.ReasonExecutorTerminated || got.Time.UnixMilli() != 3250 || got.UUID != task.UUID([]byte("0123456789abcdef")) {
		t.Errorf("%+v, %v", got, err)
	}
}
