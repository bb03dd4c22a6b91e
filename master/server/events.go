package server

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/mesos/convert"
	"github.com/mesopool/mesopool/mesos/mesosjson"
	"github.com/mesopool/mesopool/mesos/recordio"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	schedulerv1 "github.com/mesopool/mesopool/mesos/v1/scheduler"
	"github.com/mesopool/mesopool/task"
)

// encoder turns a stream's events into records.
type encoder struct {
	s      *Server
	st     *stream
	out    *streamWriter
	record []byte
}

// event writes one event, as one record or, for many offers, several.
func (e *encoder) event(event any) {
	switch event := event.(type) {
	case master.Update:
		e.update(&event)
	case master.Offers:
		e.offers(event.Offers)
	case master.Subscribed:
		e.message(&schedulerv1.Event{Type: schedulerv1.Event_SUBSCRIBED.Enum(), Subscribed: &schedulerv1.Event_Subscribed{
			FrameworkId: &mesosv1.FrameworkID{Value: &event.Framework}, MasterInfo: e.s.self,
			HeartbeatIntervalSeconds: new(e.s.cfg.Heartbeat.Seconds()),
		}})
		e.heartbeat()
	case master.InverseOffers:
		e.message(e.s.inverseOffers(event.Offers))
	case *schedulerv1.Event:
		e.message(event)
	case master.Event:
		e.message(rareEvent(event))
	}
}

func (e *encoder) flush() error { return e.out.flush() }

func (e *encoder) heartbeat() {
	e.message(&schedulerv1.Event{Type: schedulerv1.Event_HEARTBEAT.Enum()})
}

func rareEvent(event master.Event) *schedulerv1.Event {
	switch event := event.(type) {
	case master.RescindInverse:
		return &schedulerv1.Event{Type: schedulerv1.Event_RESCIND_INVERSE_OFFER.Enum(), RescindInverseOffer: &schedulerv1.Event_RescindInverseOffer{InverseOfferId: &mesosv1.OfferID{Value: &event.Offer}}}
	case master.OperationUpdate:
		return operationEnd(&event)
	case master.Rescind:
		return &schedulerv1.Event{Type: schedulerv1.Event_RESCIND.Enum(), Rescind: &schedulerv1.Event_Rescind{OfferId: &mesosv1.OfferID{Value: &event.Offer}}}
	case master.AgentLost:
		return &schedulerv1.Event{Type: schedulerv1.Event_FAILURE.Enum(), Failure: &schedulerv1.Event_Failure{AgentId: &mesosv1.AgentID{Value: &event.Agent}}}
	case master.ExecutorLost:
		return &schedulerv1.Event{Type: schedulerv1.Event_FAILURE.Enum(), Failure: &schedulerv1.Event_Failure{
			AgentId: &mesosv1.AgentID{Value: &event.Agent}, ExecutorId: &mesosv1.ExecutorID{Value: &event.Executor}, Status: &event.Status,
		}}
	case master.FromExecutor:
		return &schedulerv1.Event{Type: schedulerv1.Event_MESSAGE.Enum(), Message: &schedulerv1.Event_Message{
			AgentId: &mesosv1.AgentID{Value: &event.Agent}, ExecutorId: &mesosv1.ExecutorID{Value: &event.Executor}, Data: event.Data,
		}}
	case master.Failed:
		return failedEvent(event.Message)
	}
	return &schedulerv1.Event{Type: schedulerv1.Event_UNKNOWN.Enum()}
}

func failedEvent(message string) *schedulerv1.Event {
	return &schedulerv1.Event{Type: schedulerv1.Event_ERROR.Enum(), Error: &schedulerv1.Event_Error{Message: &message}}
}

// message writes one event.
func (e *encoder) message(event *schedulerv1.Event) {
	e.st.tally.event(event.GetType())
	e.record = e.record[:0]
	if e.st.json {
		e.record = mesosjson.Append(e.record, event)
	} else {
		var err error
		if e.record, err = (proto.MarshalOptions{}).MarshalAppend(e.record, event); err != nil {
			e.s.log.Error("an event could not be encoded", "type", event.GetType(), "error", err)
			return
		}
	}
	e.write()
}

func (e *encoder) write() {
	e.out.buf = recordio.Append(e.out.buf, e.record)
	e.out.written()
}

// The fields of Event and of Event.Update.
const (
	eventTypeField   = 1
	eventUpdateField = 5
	updateStatus     = 1
)

// update writes a task's status. One that an agent sent goes on as it is.
func (e *encoder) update(u *master.Update) {
	wire := u.Wire
	if wire == nil {
		var err error
		if wire, err = proto.Marshal(statusMessage(u)); err != nil {
			e.s.log.Error("a status could not be encoded", "task", u.Task, "error", err)
			return
		}
	}
	if e.st.json {
		status := &mesosv1.TaskStatus{}
		if err := proto.Unmarshal(wire, status); err != nil {
			e.s.log.Error("a status could not be read", "task", u.Task, "error", err)
			return
		}
		e.message(&schedulerv1.Event{Type: schedulerv1.Event_UPDATE.Enum(), Update: &schedulerv1.Event_Update{Status: status}})
		return
	}
	e.st.tally.event(schedulerv1.Event_UPDATE)
	e.record = protowire.AppendVarint(protowire.AppendTag(e.record[:0], eventTypeField, protowire.VarintType), uint64(schedulerv1.Event_UPDATE))
	e.record = protowire.AppendTag(e.record, eventUpdateField, protowire.BytesType)
	e.record = protowire.AppendVarint(e.record, uint64(protowire.SizeTag(updateStatus)+protowire.SizeBytes(len(wire))))
	e.record = appendBytes(e.record, updateStatus, wire)
	e.write()
}

// statusMessage writes a status that the master made. What it repeats of an
// agent's status is what people and balancers look for: container and health.
func statusMessage(u *master.Update) *mesosv1.TaskStatus {
	out := convert.TaskStatus(u.Task, u.Agent, &task.Status{
		State: u.Status.State, Source: u.Status.Source, Reason: u.Status.Reason, Message: u.Status.Message,
		Time: u.Status.Time, UUID: u.Status.UUID,
	})
	if !u.Unreachable.IsZero() {
		out.UnreachableTime = timeInfo(u.Unreachable)
	}
	if len(u.Status.More) > 0 {
		said := &mesosv1.TaskStatus{}
		if partialRead.Unmarshal(u.Status.More, said) == nil {
			out.ContainerStatus, out.Healthy, out.CheckStatus = said.ContainerStatus, said.Healthy, said.CheckStatus
			out.Labels, out.ExecutorId = said.Labels, said.ExecutorId
		}
	}
	return out
}

// maxOffersSize keeps an event well below the 4 MiB that some readers take.
const maxOffersSize = 3 << 20

func (e *encoder) offers(list []*master.Offer) {
	e.st.tally.offersSent.Add(uint64(len(list)))
	event := &schedulerv1.Event_Offers{}
	size := 0
	for _, o := range list {
		offer := e.offer(o)
		n := e.size(offer)
		if size+n > maxOffersSize && size > 0 {
			e.message(&schedulerv1.Event{Type: schedulerv1.Event_OFFERS.Enum(), Offers: event})
			event, size = &schedulerv1.Event_Offers{}, 0
		}
		event.Offers = append(event.Offers, offer)
		size += n
	}
	if len(event.Offers) > 0 {
		e.message(&schedulerv1.Event{Type: schedulerv1.Event_OFFERS.Enum(), Offers: event})
	}
}

func (e *encoder) size(o *mesosv1.Offer) int {
	if !e.st.json {
		return proto.Size(o)
	}
	e.record = mesosjson.Append(e.record[:0], o)
	return len(e.record)
}

// offer writes an offer for this framework: one without MULTI_ROLE knows
// nothing of allocations, and would find nothing of what it looks for.
func (e *encoder) offer(o *master.Offer) *mesosv1.Offer {
	return e.s.registry.offerMessage(o, &e.st.info.Load().Capabilities)
}

// resourceFormat is how a framework wants its resources (master.cpp, offer).
func resourceFormat(c *master.Capabilities) convert.Format {
	if c.ReservationRefinement {
		return convert.Stack
	}
	return convert.Role
}

func (r *registry) offerMessage(o *master.Offer, caps *master.Capabilities) *mesosv1.Offer {
	card := r.agent(o.Agent)
	out := &mesosv1.Offer{
		Id: &mesosv1.OfferID{Value: &o.ID}, FrameworkId: &mesosv1.FrameworkID{Value: &o.Framework}, AgentId: &mesosv1.AgentID{Value: &o.Agent},
		Hostname: &card.hostname, Url: card.url, Attributes: card.attributes, Domain: card.domain,
		Resources: convert.ResourcesTo(o.Resources, resourceFormat(caps)),
	}
	for _, id := range o.Executors {
		out.ExecutorIds = append(out.ExecutorIds, &mesosv1.ExecutorID{Value: &id})
	}
	if o.Unavailable != nil {
		out.Unavailability = unavailabilityMessage(o.Unavailable.Start, o.Unavailable.Length)
	}
	if caps.MultiRole {
		out.AllocationInfo = &mesosv1.Resource_AllocationInfo{Role: &o.Role}
		return out
	}
	for _, r := range out.Resources {
		r.AllocationInfo = nil
	}
	return out
}
