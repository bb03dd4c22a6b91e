package link

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/agent"
	"github.com/mesopool/mesopool/mesos/messages"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/task"
)

func onExecutor(m *messages.RunTaskMessage) {
	m.Task.Command = nil
	m.Framework.Checkpoint = new(true)
	m.Task.Executor = &mesosv1.ExecutorInfo{
		ExecutorId: &mesosv1.ExecutorID{Value: new("e1")}, Type: mesosv1.ExecutorInfo_CUSTOM.Enum(), Resources: runTask("x").Task.Resources,
		Command: &mesosv1.CommandInfo{Value: new("/executor"), Environment: &mesosv1.Environment{Variables: []*mesosv1.Environment_Variable{
			{Name: new("MESOS_EXECUTOR_ID"), Value: new("mine")},
		}}},
		Container:           &mesosv1.ContainerInfo{Type: mesosv1.ContainerInfo_DOCKER.Enum(), Docker: &mesosv1.ContainerInfo_DockerInfo{Image: new("exec:1")}},
		ShutdownGracePeriod: &mesosv1.DurationInfo{Nanoseconds: new(int64(90 * time.Second))},
	}
	m.LaunchExecutor = new(true)
}

func TestRunsOnExecutors(t *testing.T) {
	e := registered(t)
	e.send(runTask("t", onExecutor))
	got := input[agent.LaunchGroup](e)
	if s := got.Tasks[0]; !got.Single || got.New == nil || !*got.New || s.Key.ID != "t" || s.Pod != "e1" || !s.Custom || len(s.Origin) == 0 {
		t.Errorf("tasks: %+v", got)
	}
	p := got.Pod
	if !p.HoldsExecutor() || p.Image != "exec:1" || p.Command.Value != "/executor" || *p.KillGrace != 90*time.Second ||
		p.Resources.Scalars().Get("cpus") != 2*got.Tasks[0].Resources.Scalars().Get("cpus") {
		t.Errorf("executor: %+v", p)
	}
	env := map[string]string{}
	for _, v := range p.Env {
		env[v.Key] = v.Value
	}
	token := env[agent.ExecutorToken]
	delete(env, agent.ExecutorToken)
	diff(t, "environment", map[string]string{
		"LIBPROCESS_PORT": "0", "MESOS_FRAMEWORK_ID": "f1", "MESOS_EXECUTOR_ID": "e1", "MESOS_SLAVE_ID": agentID,
		"MESOS_SLAVE_PID": e.node.UPID("slave(1)").String(), "MESOS_AGENT_ENDPOINT": e.node.UPID("slave(1)").Addr.String(), "MESOS_CHECKPOINT": "1",
		"MESOS_HTTP_COMMAND_EXECUTOR": "0", "MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD": "90secs",
		"MESOS_RECOVERY_TIMEOUT": "900secs", "MESOS_SUBSCRIPTION_BACKOFF_MAX": "2secs",
	}, env)
	if len(token) < 20 {
		t.Errorf("the token is %q", token)
	}
	for _, from := range []string{"master", "scheduler-1"} { // drivers write directly
		e.sendAs(from, &messages.FrameworkToExecutorMessage{
			SlaveId: &mesosv1.AgentID{Value: new(agentID)}, FrameworkId: &mesosv1.FrameworkID{Value: new("f1")},
			ExecutorId: &mesosv1.ExecutorID{Value: new("e1")}, Data: []byte(from),
		})
		if m := input[agent.FrameworkMessage](e); m.Executor != "e1" || m.Framework != "f1" || string(m.Data) != from {
			t.Errorf("message: %+v", m)
		}
	}
	e.link.ExecutorMessage(agent.ExecutorMessage{Framework: "f1", Executor: "e1", Data: []byte("ho")})
	if m, _ := expect(e.master, &messages.ExecutorToFrameworkMessage{}); string(m.Data) != "ho" || m.GetSlaveId().GetValue() != agentID {
		t.Errorf("message: %v", m)
	}
}

// An executor that runs already is not said to be gone when a task for it is
// refused.
func TestRefusalsLeaveExecutors(t *testing.T) {
	e := registered(t)
	m := runTask("t", onExecutor)
	m.LaunchExecutor = new(false)
	m.Task.Resources = append(m.Task.Resources, &mesosv1.Resource{
		Name: new("disk"), Type: mesosv1.Value_SCALAR.Enum(), Scalar: &mesosv1.Value_Scalar{Value: new(1.0)},
		Disk: &mesosv1.Resource_DiskInfo{Persistence: &mesosv1.Resource_DiskInfo_Persistence{Id: new("v")}, Volume: &mesosv1.Volume{Mode: mesosv1.Volume_RW.Enum(), ContainerPath: new("v")}},
	})
	e.send(m)
	if got := input[agent.Refuse](e); !strings.Contains(got.Message, "give it to the executor") {
		t.Errorf("refusal: %+v", got)
	}
	e.link.ExecutorGone(agent.ExecutorGone{Framework: "f1", Executor: "other", Status: 768})
	if x, _ := expect(e.master, &messages.ExitedExecutorMessage{}); x.GetExecutorId().GetValue() != "other" || x.GetStatus() != 768 {
		t.Errorf("an executor's end: %v", x)
	}
}

// A status is told in the executor's own words.
func TestReportsInTheExecutorsWords(t *testing.T) {
	e := registered(t)
	own := &mesosv1.TaskStatus{
		TaskId: &mesosv1.TaskID{Value: new("t")}, State: mesosv1.TaskState_TASK_RUNNING.Enum(),
		Labels: &mesosv1.Labels{Labels: []*mesosv1.Label{{Key: new("k"), Value: new("v")}}},
	}
	origin, err := proto.Marshal(own)
	if err != nil {
		t.Fatal(err)
	}
	s := task.Status{
		State: task.Running, Source: task.SourceExecutor, UUID: task.UUID{7}, Data: []byte("d"), Origin: origin,
		Container: &task.ContainerStatus{ID: "c1", Addresses: []string{"10.0.0.1"}},
	}
	e.link.Report(agent.Report{Key: task.Key{Framework: "f1", ID: "t"}, Executor: "e1", Status: s, Latest: task.Running})
	m, _ := expect(e.master, &messages.StatusUpdateMessage{})
	got := m.GetUpdate().GetStatus()
	if got.GetLabels().GetLabels()[0].GetValue() != "v" || got.Uuid[0] != 7 || string(got.Data) != "d" || got.GetExecutorId().GetValue() != "e1" ||
		got.GetContainerStatus().GetContainerId().GetValue() != "c1" || len(got.GetContainerStatus().GetNetworkInfos()) != 1 {
		t.Errorf("status: %v", got)
	}
}
