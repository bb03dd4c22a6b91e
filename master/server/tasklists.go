package server

import (
	"net/http"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/master"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	masterv1 "github.com/mesopool/mesopool/mesos/v1/master"
)

// The answers with all tasks leave in pieces, so that those of a large cluster
// are never in memory as a whole.

// taskList is a list of a GetTasks.
type taskList struct {
	number protowire.Number
	name   string
	rows   [][]*master.Task // of each framework
}

func taskLists(snap *master.Snapshot) []taskList {
	tasks, completed, unreachable := taskList{number: 2, name: "tasks"}, taskList{number: 3, name: "completed_tasks"}, taskList{number: 5, name: "unreachable_tasks"}
	for _, list := range [][]master.FrameworkView{snap.Frameworks, snap.Completed} {
		for i := range list {
			tasks.rows = append(tasks.rows, list[i].Tasks)
			completed.rows = append(completed.rows, list[i].Done)
			unreachable.rows = append(unreachable.rows, list[i].Unreachable)
		}
	}
	return []taskList{tasks, completed, unreachable}
}

func (l *taskList) empty() bool {
	for _, rows := range l.rows {
		if len(rows) > 0 {
			return false
		}
	}
	return true
}

type rowPart struct {
	rowWriter
	buf []byte
}

// wireOf prints all tasks as the fields of a GetTasks, in pieces. It does so in
// the same way every time.
func wireOf(lists []taskList, take func([]byte)) {
	for _, l := range lists {
		for _, rows := range l.rows {
			inOrder(len(rows), func(p *rowPart, from, to int) {
				p.buf = p.buf[:0]
				for _, t := range rows[from:to] {
					p.buf = appendBytes(p.buf, l.number, p.taskOf(t))
				}
			}, func(p *rowPart) { take(p.buf) })
		}
	}
}

// wireSize is the length of all pieces, which comes before the first. To print
// twice is quicker than to keep everything.
func wireSize(lists []taskList) (n int) {
	wireOf(lists, func(b []byte) { n += len(b) })
	return n
}

// getTasks puts serialized tasks into a message: to its reader they are the same
// as others.
func getTasks(snap *master.Snapshot) *masterv1.Response_GetTasks {
	lists := taskLists(snap)
	wire := make([]byte, 0, wireSize(lists))
	wireOf(lists, func(b []byte) { wire = append(wire, b...) })
	out := &masterv1.Response_GetTasks{}
	out.ProtoReflect().SetUnknown(wire)
	return out
}

// besideTasks is a GetState without the tasks.
func (s *Server) besideTasks(v *viewer, snap *master.Snapshot) (*masterv1.Response_GetState, error) {
	frameworks, err := s.getFrameworks(snap)
	if err != nil {
		return nil, err
	}
	executors, err := getExecutors(snap)
	if err != nil {
		return nil, err
	}
	return &masterv1.Response_GetState{GetFrameworks: frameworks, GetAgents: s.getAgents(v, snap), GetExecutors: executors}, nil
}

// listsTasks says whether the answer to a call has all tasks.
func listsTasks(kind masterv1.Call_Type) bool {
	return kind == masterv1.Call_GET_TASKS || kind == masterv1.Call_GET_STATE
}

// answerTasks answers GET_TASKS and GET_STATE.
func (s *Server) answerTasks(w http.ResponseWriter, r *http.Request, kind masterv1.Call_Type, json bool) error {
	snap, err := s.Snapshot(r.Context())
	if err != nil {
		return failf(http.StatusServiceUnavailable, "%v", err)
	}
	v := s.viewer(r.Context())
	return s.sendTasks(w, r, kind, v, v.snapshot(snap), json)
}

func (s *Server) sendTasks(w http.ResponseWriter, r *http.Request, kind masterv1.Call_Type, v *viewer, snap *master.Snapshot, json bool) (err error) {
	var beside *masterv1.Response_GetState
	if kind == masterv1.Call_GET_STATE {
		if beside, err = s.besideTasks(v, snap); err != nil {
			return err
		}
	}
	if !json {
		return sendWire(w, taskLists(snap), beside)
	}
	w.Header().Set("Content-Type", typeJSON)
	j := newJSONWriter(w, r)
	j.tasks(taskLists(snap), beside)
	j.close()
	return nil
}

var (
	responseFields = (&masterv1.Response{}).ProtoReflect().Descriptor().Fields()
	tasksOfAnswer  = responseFields.ByName("get_tasks").Number()
	stateOfAnswer  = responseFields.ByName("get_state").Number()
	tasksOfState   = (&masterv1.Response_GetState{}).ProtoReflect().Descriptor().Fields().ByName("get_tasks").Number()
	taskDesc       = (&mesosv1.Task{}).ProtoReflect().Descriptor()
)

// sendWire sends a GET_TASKS, or a GET_STATE with what is beside the tasks.
func sendWire(w http.ResponseWriter, lists []taskList, beside *masterv1.Response_GetState) error {
	rest, err := proto.Marshal(beside)
	if err != nil {
		return err
	}
	size := wireSize(lists)
	out := &masterv1.Response{Type: masterv1.Response_GET_TASKS.Enum()}
	inner := appendHead(nil, tasksOfAnswer, size)
	if beside != nil {
		out.Type = masterv1.Response_GET_STATE.Enum()
		state := appendHead(nil, tasksOfState, size)
		inner = append(appendHead(nil, stateOfAnswer, len(state)+size+len(rest)), state...)
	}
	head, err := proto.Marshal(out)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", typeProtobuf)
	w.Header().Set("Content-Length", strconv.Itoa(len(head)+len(inner)+size+len(rest)))
	w.Write(append(head, inner...)) // whoever does not listen any more does not need the rest
	wireOf(lists, func(b []byte) { w.Write(b) })
	w.Write(rest)
	return nil
}

// appendHead is what comes before a field of that many bytes.
func appendHead(dst []byte, n protowire.Number, size int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(dst, n, protowire.BytesType), uint64(size))
}

// tasks prints the same answer.
func (j *jsonWriter) tasks(lists []taskList, beside *masterv1.Response_GetState) {
	j.object(func() {
		if beside == nil {
			j.member("type", masterv1.Response_GET_TASKS.String())
			j.taskLists(lists)
			return
		}
		j.member("type", masterv1.Response_GET_STATE.String())
		j.key("get_state")
		j.object(func() {
			j.taskLists(lists)
			j.serialized("get_executors", beside.GetExecutors)
			j.serialized("get_frameworks", beside.GetFrameworks)
			j.serialized("get_agents", beside.GetAgents)
		})
	})
}

func (j *jsonWriter) taskLists(lists []taskList) {
	j.key("get_tasks")
	j.object(func() {
		for _, l := range lists {
			if l.empty() {
				continue
			}
			j.key(l.name)
			j.array(func() {
				for _, rows := range l.rows {
					j.each(len(rows), func(j *jsonWriter, i int) {
						j.comma()
						j.buf = appendJSON(j.buf, taskDesc, j.rows.taskOf(rows[i]))
						j.room()
					})
				}
			})
		}
	})
}
