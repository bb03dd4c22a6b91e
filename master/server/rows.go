package server

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/mesos/convert"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
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

// rowWriter serializes rows, for many of them.
type rowWriter struct {
	task, status []byte              // the last ones
	amounts      *resources.Resource // the first of those that are in wire
	wire         []byte
}

// The numbers of a Task's fields, and of a TaskStatus' that its row says.
const (
	taskName         = 1
	taskID           = 2
	taskFramework    = 3
	taskExecutor     = 4
	taskAgent        = 5
	taskStateField   = 6
	taskResources    = 7
	taskStatuses     = 8
	taskStatusState  = 9
	taskStatusUUID   = 10
	statusTaskField  = 1
	statusTextField  = 4
	statusAgentField = 5
	statusUUIDField  = 11
)

// taskOf returns a task with everything that is known of it. The bytes are good
// until the next one.
func (w *rowWriter) taskOf(t *master.Task) []byte {
	b := appendString(w.task[:0], taskName, t.Name)
	b = appendID(b, taskID, t.Key.ID)
	b = appendID(b, taskFramework, t.Key.Framework)
	if t.Executor != "" {
		b = appendID(b, taskExecutor, t.Executor)
	}
	b = appendID(b, taskAgent, t.Agent)
	b = appendState(b, taskStateField, t.State)
	w.resources(t.Resources)
	b = append(b, w.wire...)
	for i := range t.Statuses {
		b = appendBytes(b, taskStatuses, w.statusOf(t, &t.Statuses[i]))
	}
	if !t.StatusUUID.IsZero() {
		b = appendState(b, taskStatusState, t.StatusState)
		b = appendBytes(b, taskStatusUUID, t.StatusUUID[:])
	}
	w.task = append(b, t.More...)
	return w.task
}

// resources serializes what most tasks share with the one before.
func (w *rowWriter) resources(list resources.Resources) {
	if len(list) > 0 && &list[0] == w.amounts {
		return
	}
	w.amounts, w.wire = nil, w.wire[:0]
	for _, r := range convert.ResourcesTo(list, convert.Both) {
		w.wire = appendHead(w.wire, taskResources, proto.Size(r))
		w.wire, _ = partial.MarshalAppend(w.wire, r) // nothing that it could lack
	}
	if len(list) > 0 {
		w.amounts = &list[0]
	}
}

// statusOf returns a status as it was sent, without its data.
func (w *rowWriter) statusOf(t *master.Task, st *master.Status) []byte {
	b := appendID(w.status[:0], statusTaskField, t.Key.ID)
	if st.Message != "" {
		b = appendString(b, statusTextField, st.Message)
	}
	b = appendID(b, statusAgentField, t.Agent)
	if !st.UUID.IsZero() {
		b = appendBytes(b, statusUUIDField, st.UUID[:])
	}
	w.status = append(b, st.More...)
	return w.status
}

func appendState(dst []byte, n protowire.Number, s task.State) []byte {
	return protowire.AppendVarint(protowire.AppendTag(dst, n, protowire.VarintType), uint64(*taskState(s)))
}

// fullTask is a task with everything that is known of it.
func fullTask(t *master.Task) (*mesosv1.Task, error) {
	out := &mesosv1.Task{}
	return out, proto.Unmarshal(new(rowWriter).taskOf(t), out)
}

// fullStatus is a status as it was sent, without its data.
func fullStatus(t *master.Task, st *master.Status) (*mesosv1.TaskStatus, error) {
	out := &mesosv1.TaskStatus{}
	return out, proto.Unmarshal(new(rowWriter).statusOf(t, st), out)
}
