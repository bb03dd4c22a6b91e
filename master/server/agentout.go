package server

import (
	"bytes"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/mesos/libprocess"
	"github.com/mesopool/mesopool/mesos/messages"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/task"
)

// agentTable is the way to the agents. Only the loop uses it.
type agentTable struct {
	node     *libprocess.Node
	watched  map[string]watched         // by agent
	upids    map[string]libprocess.UPID // by their text
	observer int                        // the last one's number
	scratch  []byte
}

// watched is an agent that is linked, with the actor that its pongs go to.
type watched struct{ pid, observer string }

// stranger is who pings agents that are not registered yet; nobody listens to
// what they answer.
const stranger = "slave-observer(0)"

func (t *agentTable) init(node *libprocess.Node) {
	t.node, t.watched, t.upids = node, map[string]watched{}, map[string]libprocess.UPID{}
}

// watch links an agent. One that registers again may do so because a
// connection is dead, so it gets a new one.
func (s *Server) watch(e master.Watch) {
	t := &s.agents
	to, err := t.upid(e.PID)
	if err != nil {
		s.log.Error("an agent's address cannot be used", "agent", e.Agent, "pid", e.PID, "error", err)
		return
	}
	w, again := t.watched[e.Agent]
	if !again {
		t.observer++
		w.observer = fmt.Sprintf("slave-observer(%d)", t.observer)
		t.node.Handle(w.observer, func(m libprocess.Message) {
			if m.Name == "mesos.internal.PongSlaveMessage" {
				s.put(master.Pong{Agent: e.Agent})
			}
		})
	}
	w.pid = e.PID
	t.watched[e.Agent] = w
	if again {
		t.node.Relink(to)
		return
	}
	t.node.Link(to)
}

func (t *agentTable) unwatch(e master.Unwatch) {
	if w, ok := t.watched[e.Agent]; ok && w.pid == e.PID {
		t.node.Unhandle(w.observer)
		delete(t.watched, e.Agent)
		delete(t.upids, e.PID)
	}
}

func (t *agentTable) upid(pid string) (libprocess.UPID, error) {
	if u, ok := t.upids[pid]; ok {
		return u, nil
	}
	u, err := libprocess.ParseUPID(pid)
	if err == nil {
		t.upids[pid] = u
	}
	return u, err
}

// send sends a message to an agent; the frequent ones are put together from
// their pieces.
func (t *agentTable) send(e master.ToAgent, log *slog.Logger, silence time.Duration) {
	to, err := t.upid(e.PID)
	if err == nil {
		err = t.sendTo(to, &e, silence)
	}
	if err != nil {
		log.Error("a message could not be sent", "agent", e.Agent, "pid", e.PID, "message", fmt.Sprintf("%T", e.Message), "error", err)
	}
}

func (t *agentTable) sendTo(to libprocess.UPID, e *master.ToAgent, silence time.Duration) error {
	switch m := e.Message.(type) {
	case master.RunTask:
		t.scratch = appendRunTask(t.scratch[:0], &m)
		t.node.Send(masterActor, to, "mesos.internal.RunTaskMessage", t.scratch)
	case master.RunGroup:
		t.scratch = appendRunGroup(t.scratch[:0], &m)
		t.node.Send(masterActor, to, "mesos.internal.RunTaskGroupMessage", t.scratch)
	case master.AckUpdate:
		t.scratch = appendAck(t.scratch[:0], e.Agent, &m)
		t.node.Send(masterActor, to, "mesos.internal.StatusUpdateAcknowledgementMessage", t.scratch)
	case master.KillTask:
		t.scratch = appendKill(t.scratch[:0], &m)
		t.node.Send(masterActor, to, "mesos.internal.KillTaskMessage", t.scratch)
	case master.FrameworkUpdated:
		t.scratch = appendUpdateFramework(t.scratch[:0], &m)
		t.node.Send(masterActor, to, "mesos.internal.UpdateFrameworkMessage", t.scratch)
	case master.Ping:
		from := stranger
		if w, ok := t.watched[e.Agent]; ok {
			from = w.observer
		}
		return t.node.SendProto(from, to, &messages.PingSlaveMessage{Connected: &m.Connected})
	default:
		out, err := rareMessage(e, silence)
		if err != nil {
			return err
		}
		return t.node.SendProto(masterActor, to, out)
	}
	return nil
}

// noPID stands for frameworks that have no libprocess address.
var noPID = libprocess.UPID{}.String()

func appendRunTask(dst []byte, m *master.RunTask) []byte {
	dst = appendFramework(dst, 2, m.Framework)
	dst = appendString(dst, 3, noPID)
	dst = appendBytes(dst, 4, m.Task)
	return appendBool(appendVersion(dst, 5, m.Version), 6, !m.Runs)
}

func appendRunGroup(dst []byte, m *master.RunGroup) []byte {
	dst = appendFramework(dst, 1, m.Framework)
	// ExecutorInfo.framework_id is 8; what the core keeps is without it.
	dst = appendBytes(dst, 2, appendID(bytes.Clone(m.Executor), 8, m.Framework.ID))
	var tasks []byte
	for _, t := range m.Tasks {
		tasks = appendBytes(tasks, 1, t)
	}
	dst = appendBytes(dst, 3, tasks)
	return appendBool(appendVersion(dst, 4, m.Version), 5, !m.Runs)
}

// appendVersion writes ResourceVersionUUID{uuid: 2}, UUID{value: 1}; no provider:
// the agent's own.
func appendVersion(dst []byte, field protowire.Number, version []byte) []byte {
	n := len(version)
	if n == 0 {
		return dst
	}
	inner := appendBytes(make([]byte, 0, n+8), 1, version)
	return appendBytes(dst, field, appendBytes(make([]byte, 0, n+8), 2, inner))
}

func appendAck(dst []byte, agent string, m *master.AckUpdate) []byte {
	dst = appendID(dst, 1, agent)
	dst = appendID(dst, 2, m.Key.Framework)
	dst = appendID(dst, 3, m.Key.ID)
	return appendBytes(dst, 4, m.UUID[:])
}

func appendKill(dst []byte, m *master.KillTask) []byte {
	dst = appendID(dst, 1, m.Key.Framework)
	dst = appendID(dst, 2, m.Key.ID)
	if len(m.Wire) > 0 {
		dst = appendBytes(dst, 3, m.Wire)
	}
	return dst
}

func appendUpdateFramework(dst []byte, m *master.FrameworkUpdated) []byte {
	dst = appendID(dst, 1, m.Framework.ID)
	dst = appendString(dst, 2, noPID)
	return appendFramework(dst, 3, m.Framework)
}

func rareMessage(e *master.ToAgent, silence time.Duration) (proto.Message, error) {
	connection := &messages.MasterSlaveConnection{TotalPingTimeoutSeconds: new(silence.Seconds())}
	agent := &mesosv1.AgentID{Value: &e.Agent}
	switch m := e.Message.(type) {
	case master.Registered:
		return &messages.SlaveRegisteredMessage{SlaveId: agent, Connection: connection}, nil
	case master.Reregistered:
		out := &messages.SlaveReregisteredMessage{SlaveId: agent, Connection: connection}
		for i := range m.Missing {
			r, err := missingTasks(&m.Missing[i])
			if err != nil {
				return nil, err
			}
			out.Reconciliations = append(out.Reconciliations, r)
		}
		return out, nil
	case master.ShutdownFramework:
		return &messages.ShutdownFrameworkMessage{FrameworkId: &mesosv1.FrameworkID{Value: &m.Framework}}, nil
	case master.KillExecutor:
		return &messages.ShutdownExecutorMessage{
			ExecutorId: &mesosv1.ExecutorID{Value: &m.Executor}, FrameworkId: &mesosv1.FrameworkID{Value: &m.Framework},
		}, nil
	case master.ToExecutor:
		return &messages.FrameworkToExecutorMessage{
			SlaveId: agent, FrameworkId: &mesosv1.FrameworkID{Value: &m.Framework}, ExecutorId: &mesosv1.ExecutorID{Value: &m.Executor}, Data: m.Data,
		}, nil
	case master.Shutdown:
		return &messages.ShutdownMessage{Message: &m.Message}, nil
	}
	if m, ok := e.Message.(master.DrainMessage); ok {
		return drainMessage(m), nil
	}
	return operationMessage(e.Message)
}

// missingTasks names tasks that the agent did not report. The framework is in
// it, so that the agent knows which state to answer with.
func missingTasks(m *master.MissingTasks) (*messages.ReconcileTasksMessage, error) {
	info, err := frameworkMessage(m.Framework)
	if err != nil {
		return nil, err
	}
	out := &messages.ReconcileTasksMessage{FrameworkId: info.Id, Framework: info}
	for _, t := range m.Tasks {
		out.Statuses = append(out.Statuses, &mesosv1.TaskStatus{
			TaskId: &mesosv1.TaskID{Value: &t.Key.ID}, AgentId: &mesosv1.AgentID{Value: &t.Agent}, State: taskState(t.State),
			Source: mesosv1.TaskStatus_SOURCE_MASTER.Enum(), Reason: mesosv1.TaskStatus_REASON_RECONCILIATION.Enum(),
			Message: new("Reconciliation: Task is unknown to the agent"),
		})
	}
	return out, nil
}

// frameworkMessage is a framework's own description with its ID.
func frameworkMessage(f *master.FrameworkInfo) (*mesosv1.FrameworkInfo, error) {
	out := &mesosv1.FrameworkInfo{}
	if err := proto.Unmarshal(f.Origin, out); err != nil {
		return nil, fmt.Errorf("the description of framework %s: %w", f.ID, err)
	}
	out.Id = &mesosv1.FrameworkID{Value: &f.ID}
	return out, nil
}

func taskState(s task.State) *mesosv1.TaskState { return mesosv1.TaskState(s).Enum() }

func timeInfo(t time.Time) *mesosv1.TimeInfo {
	return &mesosv1.TimeInfo{Nanoseconds: new(t.UnixNano())}
}
