package link

import (
	"crypto/rand"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/agent"
	"github.com/mesopool/mesopool/mesos/convert"
	"github.com/mesopool/mesopool/mesos/messages"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/task"
)

// runOnExecutor launches a task that names an executor of its framework's own.
func (l *Link) runOnExecutor(f agent.Framework, m *messages.RunTaskMessage) {
	t := m.GetTask()
	in, err := l.onExecutor(f, &messages.RunTaskGroupMessage{
		Framework: m.Framework, Executor: t.Executor, TaskGroup: &mesosv1.TaskGroupInfo{Tasks: []*mesosv1.TaskInfo{t}},
	})
	if err != nil {
		l.refuse(f, t, err.Error())
		l.neverBegan(f.ID, t.Executor, m.LaunchExecutor)
		return
	}
	if why := l.unknown(in.Tasks[0].Resources); why != "" {
		l.agent.Put(agent.Refuse{
			Framework: f, Key: in.Tasks[0].Key, State: agent.LostAs(f.PartitionAware, task.Dropped), Reason: reasonResourcesUnknown, Message: why,
		})
		l.neverBegan(f.ID, t.Executor, m.LaunchExecutor)
		return
	}
	in.Single, in.New = true, m.LaunchExecutor
	l.agent.Put(in)
}

// onExecutor reads an executor of a framework's own, with tasks for it. The
// container begins with what its first tasks need (slave.cpp, launchExecutor).
func (l *Link) onExecutor(f agent.Framework, m *messages.RunTaskGroupMessage) (agent.LaunchGroup, error) {
	in := agent.LaunchGroup{Framework: f}
	var err error
	if in.Pod, err = convert.Executor(f.ID, m.GetExecutor()); err == nil {
		err = unsupported(&in.Pod)
	}
	if err != nil {
		return in, err
	}
	if in.Pod.Origin, err = proto.Marshal(m.GetExecutor()); err != nil {
		return in, err
	}
	for _, t := range m.GetTaskGroup().GetTasks() {
		s, err := convert.HostedTask(f.ID, t)
		if err == nil {
			s.Origin, err = proto.Marshal(t)
		}
		if err != nil {
			return in, fmt.Errorf("the task %s cannot be launched: %w", t.GetTaskId().GetValue(), err)
		}
		s.Pod = in.Pod.Pod
		in.Pod.Resources = in.Pod.Resources.Add(s.Resources...)
		in.Tasks = append(in.Tasks, s)
	}
	in.Pod.Env = append(in.Pod.Env, l.executorEnvironment(&in.Pod, m.GetFramework().GetCheckpoint())...)
	return in, nil
}

// executorEnvironment is what an executor is told to find its agent (slave.cpp,
// executorEnvironment). Whoever has the token speaks for the executor.
func (l *Link) executorEnvironment(s *task.Spec, checkpoint bool) []task.Label {
	grace := l.cfg.ExecutorGrace
	if s.KillGrace != nil {
		grace = *s.KillGrace
	}
	env := []task.Label{
		{Key: "LIBPROCESS_PORT", Value: "0"},
		{Key: "MESOS_FRAMEWORK_ID", Value: s.Key.Framework},
		{Key: "MESOS_EXECUTOR_ID", Value: s.Pod},
		{Key: "MESOS_SLAVE_ID", Value: l.AgentID()},
		{Key: "MESOS_SLAVE_PID", Value: l.cfg.Self.String()},
		{Key: "MESOS_AGENT_ENDPOINT", Value: l.cfg.Self.Addr.String()},
		{Key: "MESOS_CHECKPOINT", Value: strconv.Itoa(map[bool]int{true: 1}[checkpoint])},
		{Key: "MESOS_HTTP_COMMAND_EXECUTOR", Value: "0"},
		{Key: "MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD", Value: seconds(grace)},
		{Key: agent.ExecutorToken, Value: rand.Text()},
	}
	if checkpoint {
		env = append(env, task.Label{Key: "MESOS_RECOVERY_TIMEOUT", Value: seconds(l.cfg.Recovery)},
			task.Label{Key: "MESOS_SUBSCRIPTION_BACKOFF_MAX", Value: seconds(subscriptionBackoff)})
	}
	return env
}

// subscriptionBackoff is Mesos' (slave/constants.hpp).
const subscriptionBackoff = 2 * time.Second

// seconds is a duration as Mesos reads it.
func seconds(d time.Duration) string {
	return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "secs"
}

func (l *Link) frameworkMessage(m *messages.FrameworkToExecutorMessage) {
	l.agent.Put(agent.FrameworkMessage{Framework: m.GetFrameworkId().GetValue(), Executor: m.GetExecutorId().GetValue(), Data: m.GetData()})
}
