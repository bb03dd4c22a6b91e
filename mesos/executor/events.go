package executor

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/agent"
	"github.com/mesopool/mesopool/mesos/convert"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	executorv1 "github.com/mesopool/mesopool/mesos/v1/executor"
	"github.com/mesopool/mesopool/task"
)

// problemOf says what is wrong with a call, "" if nothing is
// (slave/validation.cpp, executor::call::validate).
func problemOf(c *executorv1.Call) string {
	switch c.GetType() {
	case executorv1.Call_SUBSCRIBE:
		if c.Subscribe == nil {
			return "Expecting 'subscribe' to be present"
		}
		for _, u := range c.Subscribe.UnacknowledgedUpdates {
			if problem := updateProblem(c, u); problem != "" {
				return problem
			}
		}
	case executorv1.Call_UPDATE:
		if c.Update == nil {
			return "Expecting 'update' to be present"
		}
		return updateProblem(c, c.Update)
	case executorv1.Call_MESSAGE:
		if c.Message == nil {
			return "Expecting 'message' to be present"
		}
	case executorv1.Call_HEARTBEAT:
	default:
		if c.Type == nil {
			return "Expecting 'type' to be present"
		}
		return "Unknown call type"
	}
	return ""
}

func updateProblem(c *executorv1.Call, u *executorv1.Call_Update) string {
	s := u.GetStatus()
	switch id := s.GetExecutorId(); {
	case len(s.GetUuid()) == 0:
		return "Expecting 'uuid' to be present"
	case len(s.GetUuid()) != len(task.UUID{}):
		return fmt.Sprintf("Not a valid UUID: it has %d bytes", len(s.GetUuid()))
	case id != nil && id.GetValue() != c.GetExecutorId().GetValue():
		return fmt.Sprintf("ExecutorID in Call: %s does not match ExecutorID in TaskStatus: %s", c.GetExecutorId().GetValue(), id.GetValue())
	case s.GetSource() != mesosv1.TaskStatus_SOURCE_EXECUTOR:
		return fmt.Sprintf("Received Call from executor %s of framework %s with invalid source, expecting 'SOURCE_EXECUTOR'",
			c.GetExecutorId().GetValue(), c.GetFrameworkId().GetValue())
	case s.GetState() == mesosv1.TaskState_TASK_STAGING:
		return fmt.Sprintf("Received TASK_STAGING from executor %s of framework %s which is not allowed",
			c.GetExecutorId().GetValue(), c.GetFrameworkId().GetValue())
	}
	return ""
}

func status(u *executorv1.Call_Update) (agent.ExecutorStatus, error) {
	s, err := convert.FromExecutor(u.GetStatus())
	return agent.ExecutorStatus{Task: u.GetStatus().GetTaskId().GetValue(), Status: s}, err
}

// event writes what the core wants said.
func (h *Hub) event(e agent.ExecutorEvent) (*executorv1.Event, error) {
	switch e := e.(type) {
	case agent.Subscribed:
		return h.subscribed(e)
	case agent.RunTask:
		t, err := taskInfo(e.Spec)
		return &executorv1.Event{Type: executorv1.Event_LAUNCH.Enum(), Launch: &executorv1.Event_Launch{Task: t}}, err
	case *agent.RunGroup:
		g := &mesosv1.TaskGroupInfo{}
		for _, s := range e.Specs {
			t, err := taskInfo(s)
			if err != nil {
				return nil, err
			}
			g.Tasks = append(g.Tasks, t)
		}
		return &executorv1.Event{Type: executorv1.Event_LAUNCH_GROUP.Enum(), LaunchGroup: &executorv1.Event_LaunchGroup{TaskGroup: g}}, nil
	case agent.KillTask:
		kill := &executorv1.Event_Kill{TaskId: &mesosv1.TaskID{Value: &e.ID}}
		if e.Grace != nil {
			kill.KillPolicy = &mesosv1.KillPolicy{GracePeriod: &mesosv1.DurationInfo{Nanoseconds: new(int64(*e.Grace))}}
		}
		return &executorv1.Event{Type: executorv1.Event_KILL.Enum(), Kill: kill}, nil
	case agent.Acknowledged:
		return &executorv1.Event{Type: executorv1.Event_ACKNOWLEDGED.Enum(), Acknowledged: &executorv1.Event_Acknowledged{
			TaskId: &mesosv1.TaskID{Value: &e.ID}, Uuid: e.UUID[:],
		}}, nil
	case agent.Message:
		return &executorv1.Event{Type: executorv1.Event_MESSAGE.Enum(), Message: &executorv1.Event_Message{Data: append([]byte{}, e.Data...)}}, nil
	case agent.ShutDown:
		return &executorv1.Event{Type: executorv1.Event_SHUTDOWN.Enum()}, nil
	}
	return nil, fmt.Errorf("executor: there is no event for %T", e)
}

func (h *Hub) subscribed(e agent.Subscribed) (*executorv1.Event, error) {
	out := &executorv1.Event_Subscribed{
		ExecutorInfo: &mesosv1.ExecutorInfo{}, FrameworkInfo: &mesosv1.FrameworkInfo{}, AgentInfo: h.cfg.Info(),
		ContainerId: &mesosv1.ContainerID{Value: &e.Container},
	}
	err := errors.Join(proto.Unmarshal(e.Spec.Origin, out.ExecutorInfo), proto.Unmarshal(e.Framework.Origin, out.FrameworkInfo))
	out.ExecutorInfo.FrameworkId = &mesosv1.FrameworkID{Value: &e.Spec.Key.Framework}
	out.FrameworkInfo.Id = &mesosv1.FrameworkID{Value: &e.Spec.Key.Framework}
	if err != nil {
		return nil, fmt.Errorf("executor: the saved description of %s cannot be read: %w", e.Spec.Key, err)
	}
	return &executorv1.Event{Type: executorv1.Event_SUBSCRIBED.Enum(), Subscribed: out}, nil
}

func taskInfo(s *task.Spec) (*mesosv1.TaskInfo, error) {
	t := &mesosv1.TaskInfo{}
	if err := proto.Unmarshal(s.Origin, t); err != nil {
		return nil, fmt.Errorf("executor: the saved description of task %s cannot be read: %w", s.Key, err)
	}
	return t, nil
}
