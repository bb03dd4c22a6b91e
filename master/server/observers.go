package server

import (
	"context"
	"net/http"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/mesos/convert"
	"github.com/mesopool/mesopool/mesos/recordio"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	masterv1 "github.com/mesopool/mesopool/mesos/v1/master"
	"github.com/mesopool/mesopool/task"
)

// maxObservers bounds the operators' event streams; the oldest makes room
// (master/constants.hpp, DEFAULT_MAX_OPERATOR_EVENT_STREAM_SUBSCRIBERS).
const maxObservers = 1000

// observers are the operators' event streams. Only the loop uses it.
type observers struct{ list []*stream }

func (o *observers) add(st *stream) {
	if len(o.list) >= maxObservers {
		o.list[0].end()
		o.list = slices.Delete(o.list, 0, 1)
	}
	o.list = append(o.list, st)
}

func (o *observers) remove(st *stream) {
	o.list = slices.DeleteFunc(o.list, func(x *stream) bool { return x == st })
}

func (o *observers) tell(n master.Note) {
	for _, st := range o.list {
		st.push(n)
	}
}

// observe serves SUBSCRIBE: the whole state, then what changes. The state is
// taken between two batches, so nothing is missed and nothing told twice.
func (s *Server) observe(w http.ResponseWriter, r *http.Request, json bool) error {
	st := newStream(&master.FrameworkInfo{Name: "operator"}, json, s.cfg.StreamQueue)
	err := s.View(r.Context(), func(core *master.Core) {
		core.Watch(true)
		s.observers.add(st)
		s.tally.observers.Store(int64(len(s.observers.list)))
		st.push(core.Collect())
	})
	if err != nil {
		return failf(http.StatusServiceUnavailable, "%v", err)
	}
	w.Header().Set("Content-Type", typeProtobuf)
	if json {
		w.Header().Set("Content-Type", typeJSON)
	}
	w.WriteHeader(http.StatusOK)
	http.NewResponseController(w).Flush()
	why := s.pump(r.Context(), st, &observerEncoder{s: s, st: st, out: newStreamWriter(w, st), sees: s.viewer(r.Context())})
	st.leave()
	s.log.Info("operator event stream ended", "because", why)
	return s.unobserve(st)
}

func (s *Server) unobserve(st *stream) error {
	err := s.View(context.Background(), func(core *master.Core) {
		s.observers.remove(st)
		s.tally.observers.Store(int64(len(s.observers.list)))
		core.Watch(len(s.observers.list) > 0)
	})
	if err != nil {
		s.log.Debug("the master stops before an operator's stream", "error", err)
	}
	return nil
}

// observerEncoder turns notes into records.
type observerEncoder struct {
	s    *Server
	st   *stream
	out  *streamWriter
	sees *viewer
}

func (e *observerEncoder) flush() error { return e.out.flush() }

func (e *observerEncoder) heartbeat() {
	e.message(&masterv1.Event{Type: masterv1.Event_HEARTBEAT.Enum()})
}

func (e *observerEncoder) event(event any) {
	var m *masterv1.Event
	var err error
	switch event := event.(type) {
	case *master.Snapshot:
		m, err = e.s.subscribedState(e.sees, event)
	case master.Note:
		note, visible := e.sees.note(event)
		if !visible {
			return
		}
		m, err = e.s.noteMessage(note)
	}
	if err != nil {
		e.s.log.Error("an operator event could not be encoded", "error", err)
		return
	}
	e.message(m)
}

func (e *observerEncoder) message(m *masterv1.Event) {
	wire, err := proto.Marshal(m)
	if err != nil {
		e.s.log.Error("an operator event could not be encoded", "type", m.GetType(), "error", err)
		return
	}
	record := wire
	if e.st.json {
		record = appendJSON(nil, m.ProtoReflect().Descriptor(), wire)
	}
	e.out.buf = recordio.Append(e.out.buf, record)
	e.out.written()
}

func (s *Server) subscribedState(v *viewer, snap *master.Snapshot) (*masterv1.Event, error) {
	snap.Finish()
	state, err := s.getState(v, v.snapshot(snap))
	if err != nil {
		return nil, err
	}
	return &masterv1.Event{Type: masterv1.Event_SUBSCRIBED.Enum(), Subscribed: &masterv1.Event_Subscribed{
		GetState: state, HeartbeatIntervalSeconds: new(s.cfg.Heartbeat.Seconds()),
	}}, nil
}

func (s *Server) noteMessage(n master.Note) (*masterv1.Event, error) {
	switch n := n.(type) {
	case master.TaskAdded:
		t, err := fullTask(n.Task)
		return &masterv1.Event{Type: masterv1.Event_TASK_ADDED.Enum(), TaskAdded: &masterv1.Event_TaskAdded{Task: t}}, err
	case master.TaskUpdated:
		status, err := noteStatus(&n)
		return &masterv1.Event{Type: masterv1.Event_TASK_UPDATED.Enum(), TaskUpdated: &masterv1.Event_TaskUpdated{
			FrameworkId: &mesosv1.FrameworkID{Value: &n.Task.Key.Framework}, Status: status, State: taskState(n.State),
		}}, err
	case master.AgentAdded:
		return &masterv1.Event{Type: masterv1.Event_AGENT_ADDED.Enum(), AgentAdded: &masterv1.Event_AgentAdded{Agent: agentEntry(&n.Agent)}}, nil
	case master.AgentRemoved:
		return &masterv1.Event{Type: masterv1.Event_AGENT_REMOVED.Enum(), AgentRemoved: &masterv1.Event_AgentRemoved{AgentId: &mesosv1.AgentID{Value: &n.Agent}}}, nil
	case master.FrameworkAdded:
		f, err := s.frameworkEntry(&n.Framework)
		return &masterv1.Event{Type: masterv1.Event_FRAMEWORK_ADDED.Enum(), FrameworkAdded: &masterv1.Event_FrameworkAdded{Framework: f}}, err
	case master.FrameworkChanged:
		f, err := s.frameworkEntry(&n.Framework)
		return &masterv1.Event{Type: masterv1.Event_FRAMEWORK_UPDATED.Enum(), FrameworkUpdated: &masterv1.Event_FrameworkUpdated{Framework: f}}, err
	case master.FrameworkRemoved:
		f, err := frameworkMessage(&n.Framework)
		return &masterv1.Event{Type: masterv1.Event_FRAMEWORK_REMOVED.Enum(), FrameworkRemoved: &masterv1.Event_FrameworkRemoved{FrameworkInfo: f}}, err
	}
	return &masterv1.Event{Type: masterv1.Event_UNKNOWN.Enum()}, nil
}

// noteStatus is the status as the agent sent it, or as the master made it.
func noteStatus(n *master.TaskUpdated) (*mesosv1.TaskStatus, error) {
	if len(n.Status.More) > 0 {
		return fullStatus(n.Task, &n.Status)
	}
	return convert.TaskStatus(n.Task.Key.ID, n.Task.Agent, &task.Status{
		State: n.Status.State, Source: n.Status.Source, Reason: n.Status.Reason, Message: n.Status.Message, Time: n.Status.Time,
	}), nil
}
