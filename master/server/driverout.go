package server

import (
	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/mesos/messages"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	schedulerv1 "github.com/mesopool/mesopool/mesos/v1/scheduler"
)

// driverEncoder sends a stream's events as messages. What a driver has no
// message for (inverse offers, operations) it is not told; heartbeats there are
// none, for the link does their work.
type driverEncoder struct {
	s  *Server
	st *stream
}

func (*driverEncoder) heartbeat() {}

func (*driverEncoder) flush() error { return nil }

func (e *driverEncoder) event(event any) {
	kind, m := e.message(event)
	if m == nil {
		return
	}
	e.st.tally.event(kind)
	e.s.toDriver(e.st.driver, m)
}

func (e *driverEncoder) message(event any) (schedulerv1.Event_Type, proto.Message) {
	switch event := event.(type) {
	case master.Update:
		return schedulerv1.Event_UPDATE, e.update(&event)
	case master.Offers:
		return schedulerv1.Event_OFFERS, e.offers(event.Offers)
	case master.Subscribed:
		return schedulerv1.Event_SUBSCRIBED, e.subscribed(event)
	case master.Rescind:
		return schedulerv1.Event_RESCIND, &messages.RescindResourceOfferMessage{OfferId: &mesosv1.OfferID{Value: &event.Offer}}
	case master.AgentLost:
		return schedulerv1.Event_FAILURE, &messages.LostSlaveMessage{SlaveId: &mesosv1.AgentID{Value: &event.Agent}}
	case master.ExecutorLost:
		return schedulerv1.Event_FAILURE, &messages.ExitedExecutorMessage{
			SlaveId: &mesosv1.AgentID{Value: &event.Agent}, FrameworkId: e.framework(),
			ExecutorId: &mesosv1.ExecutorID{Value: &event.Executor}, Status: &event.Status,
		}
	case master.FromExecutor:
		return schedulerv1.Event_MESSAGE, &messages.ExecutorToFrameworkMessage{
			SlaveId: &mesosv1.AgentID{Value: &event.Agent}, FrameworkId: e.framework(),
			ExecutorId: &mesosv1.ExecutorID{Value: &event.Executor}, Data: event.Data,
		}
	case master.Failed:
		return schedulerv1.Event_ERROR, &messages.FrameworkErrorMessage{Message: &event.Message}
	}
	return schedulerv1.Event_UNKNOWN, nil
}

func (e *driverEncoder) framework() *mesosv1.FrameworkID {
	return &mesosv1.FrameworkID{Value: &e.st.info.Load().ID}
}

// subscribed: only a driver that this master knew already, and that does not
// take over from another, is re-registered (master.cpp, _subscribe).
func (e *driverEncoder) subscribed(event master.Subscribed) proto.Message {
	id := &mesosv1.FrameworkID{Value: &event.Framework}
	if event.Again {
		return &messages.FrameworkReregisteredMessage{FrameworkId: id, MasterInfo: e.s.self}
	}
	return &messages.FrameworkRegisteredMessage{FrameworkId: id, MasterInfo: e.s.self}
}

// offers come with the addresses of their agents, for messages that go to
// executors without a detour.
func (e *driverEncoder) offers(list []*master.Offer) proto.Message {
	e.st.tally.offersSent.Add(uint64(len(list)))
	out := &messages.ResourceOffersMessage{}
	for _, o := range list {
		out.Offers = append(out.Offers, e.s.registry.offerMessage(o, &e.st.info.Load().Capabilities))
		out.Pids = append(out.Pids, e.s.registry.agent(o.Agent).pid)
	}
	return out
}

// update: what an agent sent is to be acknowledged, which the driver does if it
// has an address and a uuid; what the master made has neither (sched.cpp,
// statusUpdate).
func (e *driverEncoder) update(u *master.Update) proto.Message {
	status := &mesosv1.TaskStatus{}
	if u.Wire == nil {
		status = statusMessage(u)
	} else if err := proto.Unmarshal(u.Wire, status); err != nil {
		e.s.log.Error("a status could not be read", "task", u.Task, "error", err)
		return nil
	}
	up := &messages.StatusUpdate{
		FrameworkId: e.framework(), ExecutorId: status.ExecutorId, SlaveId: status.AgentId, Status: status, Timestamp: new(status.GetTimestamp()),
	}
	out := &messages.StatusUpdateMessage{Update: up}
	if len(status.Uuid) > 0 {
		up.Uuid = status.Uuid
		out.Pid = new(e.s.registry.agent(u.Agent).pid)
	}
	return out
}
