package server

import (
	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/master"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
)

// A master has very many tasks. What their rows say is left out of the messages
// that are kept beside them, and put back by who needs them whole.

var (
	partial     = proto.MarshalOptions{AllowPartial: true}
	partialRead = proto.UnmarshalOptions{AllowPartial: true}
)

// taskOf is what a launched task's row does not say (common/protobuf_utils.cpp,
// createTask).
func taskOf(t *mesosv1.TaskInfo) *mesosv1.Task {
	user := t.GetExecutor().GetCommand().GetUser()
	if t.Command != nil && t.Command.User != nil {
		user = t.Command.GetUser()
	}
	out := &mesosv1.Task{
		Labels: t.Labels, Discovery: t.Discovery, Container: t.Container, HealthCheck: t.HealthCheck, KillPolicy: t.KillPolicy, Limits: t.Limits,
	}
	if user != "" {
		out.User = &user
	}
	return out
}

// taskInRow are the fields of a Task that its row says: from name to
// status_update_uuid.
const taskInRow = 1<<11 - 1<<1

// moreOfTask is what the row of a reported task does not say.
func moreOfTask(t *mesosv1.Task) ([]byte, error) {
	t.Resources, t.Statuses = nil, nil
	wire, err := proto.Marshal(t)
	return without(wire, taskInRow), err
}

// statusInRow are the fields of a TaskStatus that a task's row says, and its data,
// which only the framework wants: task_id, data, message, agent_id and uuid.
const statusInRow = 1<<1 | 1<<3 | 1<<4 | 1<<5 | 1<<11

func moreOfStatus(wire []byte) []byte { return without(wire, statusInRow) }

// fullStatus is a status as it was sent, without its data.
func fullStatus(t *master.Task, st *master.Status) (*mesosv1.TaskStatus, error) {
	out := &mesosv1.TaskStatus{}
	if err := partialRead.Unmarshal(st.More, out); err != nil {
		return nil, err
	}
	out.TaskId, out.AgentId = &mesosv1.TaskID{Value: &t.Key.ID}, &mesosv1.AgentID{Value: &t.Agent}
	if st.Message != "" {
		out.Message = &st.Message
	}
	if !st.UUID.IsZero() {
		out.Uuid = st.UUID[:]
	}
	return out, nil
}
