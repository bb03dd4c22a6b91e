package link

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/mesopool/mesopool/agent"
	"github.com/mesopool/mesopool/mesos/convert"
	"github.com/mesopool/mesopool/mesos/messages"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

func diff(t *testing.T, what string, want, got any) {
	t.Helper()
	if d := cmp.Diff(want, got, protocmp.Transform()); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func TestRegistration(t *testing.T) {
	e := newEnv(t)
	e.start()
	var first *messages.RegisterSlaveMessage
	for range 3 { // repeated until it is answered
		m, from := expect(e.master, &messages.RegisterSlaveMessage{})
		if from.From != e.link.cfg.Self {
			t.Errorf("sent by %v", from.From)
		}
		if first == nil {
			first = m
		}
		diff(t, "the repeated message", first, m)
	}
	if first.Slave.Id != nil || first.Slave.GetHostname() != "dc-1.example" || first.Slave.GetPort() != int32(e.link.cfg.Self.Addr.Port()) ||
		!first.Slave.GetCheckpoint() || first.GetVersion() != "1.11.0" || len(first.GetResourceVersionUuid().GetValue()) != 16 {
		t.Errorf("registration: %v", first)
	}
	for _, r := range first.Slave.Resources {
		if r.GetRole() != "*" || len(r.Reservations) > 0 {
			t.Errorf("not in the oldest format: %v", r)
		}
	}
	if _, ok := e.link.Master(); ok || e.link.AgentID() != "" {
		t.Error("registered before the answer")
	}
	e.admit(75)
	e.admit(75) // a duplicate is taken too
	if _, ok := e.link.Master(); !ok || e.link.AgentID() != agentID {
		t.Error("not registered after the answer")
	}
	e.send(&messages.SlaveRegisteredMessage{SlaveId: &mesosv1.AgentID{Value: new("another")}})
	e.noInput()
	if e.link.AgentID() != agentID {
		t.Error("the ID has changed")
	}
}

// The pause between attempts grows.
func TestRegistrationBacksOff(t *testing.T) {
	e := newEnv(t)
	e.start()
	var at []time.Time
	for range 5 {
		expect(e.master, &messages.RegisterSlaveMessage{})
		at = append(at, time.Now())
	}
	// The last pause is at least half of 8 times the first's most.
	if got := at[4].Sub(at[3]); got < 75*time.Millisecond {
		t.Errorf("the fourth pause was %v", got)
	}
}

func TestAwaitsAMaster(t *testing.T) {
	e := newEnv(t)
	m := e.master
	e.lead(nil)
	e.start()
	e.lead(m)
	expect(e.master, &messages.RegisterSlaveMessage{})
}

func TestPong(t *testing.T) {
	e := newEnv(t)
	e.start()
	expect(e.master, &messages.RegisterSlaveMessage{})
	e.sendAs("slave-observer(1)", &messages.PingSlaveMessage{Connected: new(true)}) // in every state
	_, to := expect(e.master, &messages.PongSlaveMessage{})
	if to.To != "slave-observer(1)" {
		t.Errorf("the answer went to %s", to.To)
	}
	e.admit(75)
	for i := range 2000 { // busy
		e.send(runTask(fmt.Sprintf("t%d", i)))
	}
	e.sendAs("slave-observer(1)", &messages.PingSlaveMessage{Connected: new(true)})
	e.pong()
}

func TestRegistersAgain(t *testing.T) {
	t.Run("not connected", func(t *testing.T) {
		e := registered(t)
		e.sendAs("slave-observer(1)", &messages.PingSlaveMessage{Connected: new(false)})
		input[agent.Parted](e)
		e.readmit()
	})
	t.Run("the master restarts", func(t *testing.T) {
		e := registered(t)
		address := e.master.upid().Addr.String()
		e.master.stop()
		input[agent.Parted](e)
		e.lead(newMaster(t, address))
		e.readmit()
	})
	t.Run("another master leads", func(t *testing.T) {
		e := registered(t)
		old := e.master
		old.stop()
		input[agent.Parted](e) // and tries the old one, until another is found
		e.lead(newMaster(t, "127.0.0.1:0"))
		e.readmit()
	})
	t.Run("silence", func(t *testing.T) {
		e := newEnv(t)
		e.start()
		expect(e.master, &messages.RegisterSlaveMessage{})
		e.admit(0.1)
		input[agent.Parted](e)
		e.readmit()
	})
	t.Run("the agent restarts", func(t *testing.T) {
		e := registered(t)
		e.stop()
		e.start()
		e.readmit()
	})
}

// A registration that came twice does not count for the next one.
func TestStaleRegistration(t *testing.T) {
	e := registered(t)
	e.sendAs("slave-observer(1)", &messages.PingSlaveMessage{Connected: new(false)})
	input[agent.Parted](e)
	e.link.post(eventRegistered{})
	for range 3 {
		expect(e.master, &messages.ReregisterSlaveMessage{})
	}
	e.readmit()
}

func TestOnlyTheMasterIsBelieved(t *testing.T) {
	e := registered(t)
	for _, m := range []proto.Message{
		runTask("t"), &messages.ShutdownMessage{Message: new("go")}, &messages.ShutdownFrameworkMessage{FrameworkId: frameworkID},
		&messages.SlaveRegisteredMessage{SlaveId: &mesosv1.AgentID{Value: new(agentID)}},
		&messages.KillTaskMessage{FrameworkId: frameworkID, TaskId: taskID("t")},
	} {
		e.sendAs("impostor", m)
	}
	e.noInput()
	e.send(runTask("t"))
	input[agent.Launch](e)
}

func TestGarbageIsDropped(t *testing.T) {
	e := registered(t)
	for _, name := range []string{
		"RunTaskMessage", "PingSlaveMessage", "SlaveRegisteredMessage", "SlaveReregisteredMessage", "KillTaskMessage", "RunTaskGroupMessage",
		"CheckpointResourcesMessage", "UpdateFrameworkMessage", "ShutdownMessage", "NoSuchMessage",
	} {
		e.master.node.Send("master", e.link.cfg.Self, "mesos.internal."+name, []byte{0xff})
	}
	for _, m := range []proto.Message{
		&messages.UpdateFrameworkMessage{FrameworkId: frameworkID},
		&messages.SlaveReregisteredMessage{SlaveId: &mesosv1.AgentID{Value: new("another")}},
		runTask("t", func(m *messages.RunTaskMessage) { m.Task.AgentId.Value = new("another") }),
		runTask("t", func(m *messages.RunTaskMessage) { m.Framework.Id = nil }),
		&messages.RunTaskGroupMessage{
			Framework: &mesosv1.FrameworkInfo{User: new("root"), Name: new("f")}, TaskGroup: &mesosv1.TaskGroupInfo{},
			Executor: &mesosv1.ExecutorInfo{ExecutorId: &mesosv1.ExecutorID{Value: new("e")}},
		},
	} {
		e.send(m)
	}
	e.noInput()
}

var frameworkID = &mesosv1.FrameworkID{Value: new("f1")}

func taskID(id string) *mesosv1.TaskID { return &mesosv1.TaskID{Value: &id} }

func frameworkInfo() *mesosv1.FrameworkInfo {
	return &mesosv1.FrameworkInfo{User: new("root"), Name: new("marathon"), Id: frameworkID, Capabilities: []*mesosv1.FrameworkInfo_Capability{
		{Type: mesosv1.FrameworkInfo_Capability_PARTITION_AWARE.Enum()}, {Type: mesosv1.FrameworkInfo_Capability_TASK_KILLING_STATE.Enum()},
	}}
}

func runTask(id string, change ...func(*messages.RunTaskMessage)) *messages.RunTaskMessage {
	cpus := &mesosv1.Resource{
		Name: new("cpus"), Type: mesosv1.Value_SCALAR.Enum(), Scalar: &mesosv1.Value_Scalar{Value: new(0.5)},
		AllocationInfo: &mesosv1.Resource_AllocationInfo{Role: new("web")},
	}
	m := &messages.RunTaskMessage{
		Framework: frameworkInfo(), Pid: new("@0.0.0.0:0"),
		Task: &mesosv1.TaskInfo{
			Name: new("web"), TaskId: taskID(id), AgentId: &mesosv1.AgentID{Value: new(agentID)}, Resources: []*mesosv1.Resource{cpus},
			Command: &mesosv1.CommandInfo{Value: new("sleep 1")},
			Labels:  convert.LabelsTo([]task.Label{{Key: "a", Value: "b"}}),
		},
	}
	for _, f := range change {
		f(m)
	}
	return m
}

func TestRunTask(t *testing.T) {
	e := registered(t)
	m := runTask("t")
	e.send(m)
	got := input[agent.Launch](e)
	if got.Spec.Key != (task.Key{Framework: "f1", ID: "t"}) || got.Spec.Command.Value != "sleep 1" || got.Spec.Resources[0].Role != "web" {
		t.Errorf("spec: %+v", got.Spec)
	}
	if f := got.Framework; f.ID != "f1" || !f.PartitionAware || !f.KillingState {
		t.Errorf("framework: %+v", f)
	}
	info, origin := &mesosv1.FrameworkInfo{}, &mesosv1.TaskInfo{}
	if err := proto.Unmarshal(got.Framework.Origin, info); err != nil {
		t.Error(err)
	}
	if err := proto.Unmarshal(got.Spec.Origin, origin); err != nil {
		t.Error(err)
	}
	diff(t, "the kept framework", m.Framework, info)
	diff(t, "the kept task", m.Task, origin)
}

func TestRefusals(t *testing.T) {
	volume := func(v *mesosv1.Volume) func(*messages.RunTaskMessage) {
		return func(m *messages.RunTaskMessage) {
			v.Mode = mesosv1.Volume_RW.Enum()
			m.Task.Container = &mesosv1.ContainerInfo{
				Type: mesosv1.ContainerInfo_DOCKER.Enum(), Docker: &mesosv1.ContainerInfo_DockerInfo{Image: new("web:1")}, Volumes: []*mesosv1.Volume{v},
			}
		}
	}
	for name, x := range map[string]struct {
		change func(*messages.RunTaskMessage)
		want   string
	}{
		"executor": {func(m *messages.RunTaskMessage) {
			m.Task.Command = nil
			m.Task.Executor = &mesosv1.ExecutorInfo{ExecutorId: &mesosv1.ExecutorID{Value: new("e1")}, Type: mesosv1.ExecutorInfo_DEFAULT.Enum()}
		}, "the type CUSTOM"},
		"host volume":    {volume(&mesosv1.Volume{ContainerPath: new("/data"), HostPath: new("/srv")}), "the host path /srv"},
		"sandbox volume": {volume(&mesosv1.Volume{ContainerPath: new("/data"), HostPath: new("data")}), "the host path data"},
		"nowhere volume": {volume(&mesosv1.Volume{ContainerPath: new("/data")}), "volume source is required"},
		"host source":    {volume(&mesosv1.Volume{ContainerPath: new("/d"), Source: &mesosv1.Volume_Source{Type: mesosv1.Volume_Source_HOST_PATH.Enum(), HostPath: &mesosv1.Volume_Source_HostPath{Path: new("/x")}}}), "the host path /x"},
		"secret": {func(m *messages.RunTaskMessage) {
			m.Task.Command.Environment = &mesosv1.Environment{Variables: []*mesosv1.Environment_Variable{{Name: new("PW"), Type: mesosv1.Environment_Variable_SECRET.Enum()}}}
		}, "the variable PW is a secret"},
		"negative amount": {func(m *messages.RunTaskMessage) { m.Task.Resources[0].Scalar.Value = new(-1.0) }, "cpus"},
	} {
		t.Run(name, func(t *testing.T) {
			e := registered(t)
			m := runTask("t", x.change)
			e.send(m)
			got := input[agent.Refuse](e)
			if got.Key != (task.Key{Framework: "f1", ID: "t"}) || got.State != task.Failed || got.Reason != task.ReasonContainerLaunchFailed ||
				!strings.Contains(got.Message, x.want) || got.Framework.ID != "f1" {
				t.Errorf("refusal: %+v", got)
			}
			if m.Task.Executor != nil {
				exited, _ := expect(e.master, &messages.ExitedExecutorMessage{})
				if exited.GetExecutorId().GetValue() != "e1" || exited.GetFrameworkId().GetValue() != "f1" || exited.GetSlaveId().GetValue() != agentID {
					t.Errorf("the executor's end: %v", exited)
				}
			}
			e.noInput()
		})
	}
}

func TestRefusesGroups(t *testing.T) {
	e := registered(t)
	e.send(&messages.RunTaskGroupMessage{
		Framework: frameworkInfo(), Executor: &mesosv1.ExecutorInfo{ExecutorId: &mesosv1.ExecutorID{Value: new("pod")}, Type: mesosv1.ExecutorInfo_CUSTOM.Enum()},
		TaskGroup: &mesosv1.TaskGroupInfo{Tasks: []*mesosv1.TaskInfo{runTask("a").Task, runTask("b").Task}},
	})
	for _, id := range []string{"a", "b"} {
		if got := input[agent.Refuse](e); got.Key.ID != id || got.State != task.Failed || !strings.Contains(got.Message, "default executor") {
			t.Errorf("refusal: %+v", got)
		}
	}
	exited, _ := expect(e.master, &messages.ExitedExecutorMessage{})
	if exited.GetExecutorId().GetValue() != "pod" {
		t.Errorf("the executor's end: %v", exited)
	}
}

func TestRunsGroups(t *testing.T) {
	e := registered(t)
	executor := &mesosv1.ExecutorInfo{
		ExecutorId: &mesosv1.ExecutorID{Value: new("pod")}, Type: mesosv1.ExecutorInfo_DEFAULT.Enum(), Resources: runTask("x").Task.Resources,
		Container: &mesosv1.ContainerInfo{Type: mesosv1.ContainerInfo_MESOS.Enum(), NetworkInfos: []*mesosv1.NetworkInfo{{Name: new("dcn")}}},
	}
	m := &messages.RunTaskGroupMessage{Framework: frameworkInfo(), Executor: executor, TaskGroup: &mesosv1.TaskGroupInfo{}}
	for _, id := range []string{"a", "b"} {
		x := runTask(id).Task
		x.Executor = executor
		m.TaskGroup.Tasks = append(m.TaskGroup.Tasks, x)
	}
	e.send(m)
	got := input[agent.LaunchGroup](e)
	if len(got.Tasks) != 2 || got.Tasks[1].Key.ID != "b" || got.Tasks[1].Pod != "pod" || len(got.Tasks[1].Origin) == 0 || got.Framework.ID != "f1" {
		t.Errorf("tasks: %+v", got.Tasks)
	}
	if p := got.Pod; !p.HoldsPod() || p.Pod != "pod" || p.Network.Name != "dcn" || len(p.Resources) == 0 || len(p.Origin) == 0 {
		t.Errorf("pod: %+v", p)
	}
	m.TaskGroup.Tasks[1].Container = &mesosv1.ContainerInfo{Type: mesosv1.ContainerInfo_MESOS.Enum(), Hostname: new("me")}
	e.send(m)
	for _, id := range []string{"a", "b"} {
		if got := input[agent.Refuse](e); got.Key.ID != id || !strings.Contains(got.Message, "the task b of the group cannot be launched: a task of a group has the host name") {
			t.Errorf("refusal: %+v", got)
		}
	}
	expect(e.master, &messages.ExitedExecutorMessage{})
	e.send(&messages.ShutdownExecutorMessage{FrameworkId: frameworkID, ExecutorId: executor.ExecutorId})
	diff(t, "the executor's end", agent.ShutdownExecutor{Framework: "f1", Executor: "pod"}, input[agent.ShutdownExecutor](e))
}

func TestOrders(t *testing.T) {
	e := registered(t)
	key := task.Key{Framework: "f1", ID: "t"}
	e.send(&messages.KillTaskMessage{FrameworkId: frameworkID, TaskId: taskID("t")})
	diff(t, "kill", agent.Kill{Key: key}, input[agent.Kill](e))
	e.send(&messages.KillTaskMessage{FrameworkId: frameworkID, TaskId: taskID("t"), KillPolicy: &mesosv1.KillPolicy{
		GracePeriod: &mesosv1.DurationInfo{Nanoseconds: new(int64(3 * time.Second))},
	}})
	diff(t, "kill with a grace", agent.Kill{Key: key, Grace: new(3 * time.Second)}, input[agent.Kill](e))
	e.send(&messages.DrainSlaveMessage{Config: &mesosv1.DrainConfig{}})
	diff(t, "drain", agent.Drain{}, input[agent.Drain](e))
	e.send(&messages.DrainSlaveMessage{Config: &mesosv1.DrainConfig{
		MaxGracePeriod: &mesosv1.DurationInfo{Nanoseconds: new(int64(time.Minute))}, MarkGone: new(true),
	}})
	diff(t, "drain for good", agent.Drain{Config: agent.DrainConfig{MaxGrace: new(time.Minute), MarkGone: true}}, input[agent.Drain](e))
	u := task.UUID{1, 2, 3, 15: 4}
	e.send(&messages.StatusUpdateAcknowledgementMessage{
		FrameworkId: frameworkID, TaskId: taskID("t"), SlaveId: &mesosv1.AgentID{Value: new(agentID)}, Uuid: u[:],
	})
	diff(t, "acknowledgement", agent.Ack{Key: key, UUID: u}, input[agent.Ack](e))
	e.send(&messages.ShutdownFrameworkMessage{FrameworkId: frameworkID})
	diff(t, "framework's end", agent.ShutdownFramework{ID: "f1"}, input[agent.ShutdownFramework](e))
	e.send(&messages.UpdateFrameworkMessage{FrameworkId: frameworkID, Pid: new("@0.0.0.0:0"), FrameworkInfo: frameworkInfo()})
	if got := input[agent.UpdateFramework](e).Framework; got.ID != "f1" || !got.PartitionAware || len(got.Origin) == 0 {
		t.Errorf("framework: %+v", got)
	}
}

// A master that orders the agent to end is obeyed by the process, which leaves
// the containers alone.
func TestShutdown(t *testing.T) {
	for _, when := range []string{"registering", "registered"} {
		t.Run(when, func(t *testing.T) {
			e := newEnv(t)
			e.start()
			expect(e.master, &messages.RegisterSlaveMessage{})
			if when == "registered" {
				e.admit(75)
			}
			e.send(&messages.ShutdownMessage{Message: new("Agent has been marked gone")})
			select {
			case err := <-e.done:
				if err == nil || !strings.Contains(err.Error(), `"Agent has been marked gone"; its containers were left running`) {
					t.Errorf("Run: %v", err)
				}
				e.done <- nil
			case <-time.After(limit):
				t.Fatal("Run goes on")
			}
			select {
			case in := <-e.agent.inputs:
				t.Errorf("the agent was told %T", in)
			default:
			}
		})
	}
}

func reserved(t *testing.T) []*mesosv1.Resource {
	t.Helper()
	r, err := resources.Parse("disk:100")
	if err != nil {
		t.Fatal(err)
	}
	r[0].Reservations = []resources.Reservation{{Dynamic: true, Role: "db", Principal: "ops"}}
	return convert.ResourcesTo(r, convert.Role)
}

// What the master wants kept survives a restart, and comes back with every
// registration.
func TestCheckpointedResources(t *testing.T) {
	e := registered(t)
	want := reserved(t)
	e.send(&messages.CheckpointResourcesMessage{Resources: want})
	e.noInput()
	e.stop()
	e.start()
	m, _ := expect(e.master, &messages.ReregisterSlaveMessage{})
	diff(t, "echo", want, m.CheckpointedResources)
	e.send(&messages.SlaveReregisteredMessage{SlaveId: m.Slave.Id})
	input[agent.Joined](e)
	e.send(&messages.CheckpointResourcesMessage{})
	e.sendAs("slave-observer(1)", &messages.PingSlaveMessage{Connected: new(false)})
	if m, _ = expect(e.master, &messages.ReregisterSlaveMessage{}); len(m.CheckpointedResources) != 0 {
		t.Errorf("echo of nothing: %v", m.CheckpointedResources)
	}
}

// roster has tasks in all states, of two frameworks, and one that was refused.
func roster(t *testing.T) agent.Roster {
	t.Helper()
	out := agent.Roster{}
	for i, f := range []string{"f1", "f1", "f2", "f1"} {
		m := runTask(fmt.Sprintf("t%d", i))
		m.Framework.Id = &mesosv1.FrameworkID{Value: &f}
		spec, err := convert.Spec(f, m.Task)
		if err != nil {
			t.Fatal(err)
		}
		spec.Origin, _ = proto.Marshal(m.Task)
		states := []task.State{task.Starting, task.Running, task.Failed, task.Killing}
		x := agent.Task{Spec: &spec, State: states[i]}
		x.History = []task.Status{{State: task.Starting, UUID: task.UUID{byte(i), 1}}, {State: x.State, UUID: task.UUID{byte(i), 2}}}
		switch i {
		case 0:
			x.History = nil
		case 2:
			x.Pending = &x.History[1]
		}
		out.Tasks = append(out.Tasks, x)
		if i == 0 || i == 2 {
			out.Frameworks = append(out.Frameworks, framework(m.Framework))
		}
	}
	refused := &task.Spec{Key: task.Key{Framework: "f3", ID: "r"}}
	out.Tasks = append(out.Tasks, agent.Task{Spec: refused, State: task.Dropped})
	out.Frameworks = append(out.Frameworks, agent.Framework{ID: "f3"})
	return out
}

func TestReregistrationIsValid(t *testing.T) {
	e := registered(t)
	e.setRoster(roster(t))
	e.sendAs("slave-observer(1)", &messages.PingSlaveMessage{Connected: new(false)})
	m, _ := expect(e.master, &messages.ReregisterSlaveMessage{})
	validate(t, m)
	if len(m.Tasks) != 4 || len(m.Frameworks) != 2 || len(m.ExecutorInfos) != 0 || m.GetVersion() != "1.11.0" {
		t.Errorf("message: %v", m)
	}
	if got := m.Tasks[2]; got.GetState() != mesosv1.TaskState_TASK_FAILED || got.GetStatusUpdateState() != mesosv1.TaskState_TASK_FAILED || got.StatusUpdateUuid[1] != 2 {
		t.Errorf("a task with a pending update: %v", got)
	}
	if got := m.Tasks[0]; got.StatusUpdateState != nil || len(got.Statuses) != 0 || got.GetName() != "web" || len(got.GetLabels().GetLabels()) != 1 {
		t.Errorf("a task without updates: %v", got)
	}
}

// The tasks of a pod name its executor, which is listed.
func TestReregistrationWithPods(t *testing.T) {
	e := registered(t)
	all := roster(t)
	all.Tasks[1].Spec.Pod = "pod"
	origin, err := proto.Marshal(&mesosv1.ExecutorInfo{ExecutorId: &mesosv1.ExecutorID{Value: new("pod")}, Type: mesosv1.ExecutorInfo_DEFAULT.Enum()})
	if err != nil {
		t.Fatal(err)
	}
	all.Executors = []agent.Executor{{Spec: &task.Spec{Key: task.Key{Framework: "f1", ID: task.PodID("pod")}, Pod: "pod", Origin: origin}}}
	e.setRoster(all)
	e.sendAs("slave-observer(1)", &messages.PingSlaveMessage{Connected: new(false)})
	m, _ := expect(e.master, &messages.ReregisterSlaveMessage{})
	validate(t, m)
	if len(m.ExecutorInfos) != 1 || m.Tasks[1].GetExecutorId().GetValue() != "pod" || m.Tasks[0].ExecutorId != nil {
		t.Errorf("message: %v", m)
	}
}

// validate does what a genuine master does (master/validation.cpp,
// reregisterSlave; master.cpp, Slave::addTask, acknowledge).
func validate(t *testing.T, m *messages.ReregisterSlaveMessage) {
	t.Helper()
	frameworks, tasks := map[string]bool{}, map[string]bool{}
	for _, f := range m.Frameworks {
		if id := f.GetId().GetValue(); id == "" || frameworks[id] {
			t.Errorf("framework %q is nameless or listed twice", id)
		}
		frameworks[f.GetId().GetValue()] = true
	}
	executors := map[string]bool{}
	for _, x := range m.ExecutorInfos {
		id := x.GetFrameworkId().GetValue() + "/" + x.GetExecutorId().GetValue()
		if executors[id] || !frameworks[x.GetFrameworkId().GetValue()] {
			t.Errorf("executor %q is listed twice, or its framework is not listed", id)
		}
		executors[id] = true
	}
	for _, x := range m.Tasks {
		id := x.GetFrameworkId().GetValue() + "/" + x.GetTaskId().GetValue()
		if tasks[id] || x.GetTaskId().GetValue() == "" {
			t.Errorf("task %q is nameless or listed twice", id)
		}
		tasks[id] = true
		if !frameworks[x.GetFrameworkId().GetValue()] {
			t.Errorf("task %s: its framework is not listed", id)
		}
		if x.GetAgentId().GetValue() != m.Slave.GetId().GetValue() || x.ExecutorId != nil && !executors[x.GetFrameworkId().GetValue()+"/"+x.ExecutorId.GetValue()] || x.GetState() == mesosv1.TaskState_TASK_UNREACHABLE {
			t.Errorf("task %s: %v", id, x)
		}
		if (x.StatusUpdateState == nil) != (x.StatusUpdateUuid == nil) || x.StatusUpdateUuid != nil && len(x.StatusUpdateUuid) != 16 {
			t.Errorf("task %s: only one of the update's state and UUID is set", id)
		}
		for _, r := range x.Resources {
			if r.GetAllocationInfo().GetRole() == "" {
				t.Errorf("task %s: %v is allocated to nobody", id, r)
			}
		}
		if _, err := convert.Resources(x.Resources); err != nil || len(x.Resources) == 0 {
			t.Errorf("task %s: resources %v: %v", id, x.Resources, err)
		}
	}
}

func TestReconciliation(t *testing.T) {
	e := registered(t)
	e.sendAs("slave-observer(1)", &messages.PingSlaveMessage{Connected: new(false)})
	m, _ := expect(e.master, &messages.ReregisterSlaveMessage{})
	status := &mesosv1.TaskStatus{TaskId: taskID("x"), State: mesosv1.TaskState_TASK_RUNNING.Enum()}
	e.send(&messages.SlaveReregisteredMessage{SlaveId: m.Slave.Id, Reconciliations: []*messages.ReconcileTasksMessage{
		{FrameworkId: frameworkID, Framework: frameworkInfo(), Statuses: []*mesosv1.TaskStatus{status}},
		{FrameworkId: &mesosv1.FrameworkID{Value: new("f2")}, Statuses: []*mesosv1.TaskStatus{status, status}},
	}})
	got := input[agent.Joined](e).Missing
	if len(got) != 3 || got[0].Key != (task.Key{Framework: "f1", ID: "x"}) || !got[0].Framework.PartitionAware || got[1].Framework.ID != "f2" {
		t.Errorf("missing: %+v", got)
	}
}

func TestReport(t *testing.T) {
	e := registered(t)
	at := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	r := agent.Report{
		Key: task.Key{Framework: "f1", ID: "t"}, Latest: task.Failed,
		Status: task.Status{
			State: task.Running, Source: task.SourceExecutor, Time: at, UUID: task.UUID{7, 15: 7}, Data: []byte("[{}]"),
			Container: &task.ContainerStatus{ID: "c1", Addresses: []string{"10.0.0.1"}, Network: "net"},
		},
	}
	e.link.Report(r)
	m, _ := expect(e.master, &messages.StatusUpdateMessage{})
	u := m.Update
	if m.GetPid() != e.link.cfg.Self.String() || u.GetLatestState() != mesosv1.TaskState_TASK_FAILED || u.GetSlaveId().GetValue() != agentID ||
		u.GetExecutorId().GetValue() != "t" || u.GetTimestamp() != convert.Seconds(at) || u.GetFrameworkId().GetValue() != "f1" {
		t.Errorf("message: %v", m)
	}
	if string(u.Uuid) != string(r.Status.UUID[:]) || string(u.Status.Uuid) != string(u.Uuid) {
		t.Errorf("the UUIDs differ: %v", m)
	}
	back := convert.Status(u.Status)
	diff(t, "status", r.Status, back)

	e.master.stop()
	input[agent.Parted](e)
	e.link.Report(r) // goes nowhere, and waits for nobody
}
