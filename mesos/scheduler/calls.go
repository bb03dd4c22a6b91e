package scheduler

import (
	"cmp"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/mesopool/mesopool/mesos/convert"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	schedulerv1 "github.com/mesopool/mesopool/mesos/v1/scheduler"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

func offerIDs(ids []string) []*mesosv1.OfferID {
	out := make([]*mesosv1.OfferID, len(ids))
	for i := range ids {
		out[i] = &mesosv1.OfferID{Value: &ids[i]}
	}
	return out
}

func filters(refuse time.Duration) *mesosv1.Filters {
	return &mesosv1.Filters{RefuseSeconds: new(refuse.Seconds())}
}

// Accept uses offers of one agent and role; the rest of them is refused for the
// time.
func (c *Client) Accept(offers []string, agent string, l task.Launch, refuse time.Duration) {
	var ops []*mesosv1.Offer_Operation
	for i := range l.Changes {
		ops = append(ops, convert.OperationTo(&l.Changes[i]))
	}
	if len(l.Tasks) > 0 {
		launch := &mesosv1.Offer_Operation_Launch{}
		for i := range l.Tasks {
			launch.TaskInfos = append(launch.TaskInfos, convert.TaskInfo(&l.Tasks[i], agent))
		}
		ops = append(ops, &mesosv1.Offer_Operation{Type: mesosv1.Offer_Operation_LAUNCH.Enum(), Launch: launch})
	}
	for i := range l.Groups {
		ops = append(ops, convert.LaunchGroup(&l.Groups[i], agent))
	}
	c.send(&schedulerv1.Call{Type: schedulerv1.Call_ACCEPT.Enum(), Accept: &schedulerv1.Call_Accept{
		OfferIds: offerIDs(offers), Filters: filters(refuse), Operations: ops,
	}})
}

// Decline gives offers back; the same is not offered again for the time.
func (c *Client) Decline(offers []string, refuse time.Duration) {
	c.send(&schedulerv1.Call{Type: schedulerv1.Call_DECLINE.Enum(), Decline: &schedulerv1.Call_Decline{
		OfferIds: offerIDs(offers), Filters: filters(refuse),
	}})
}

// Revive asks for offers again, all refusals forgotten.
func (c *Client) Revive() {
	c.send(&schedulerv1.Call{Type: schedulerv1.Call_REVIVE.Enum(), Revive: &schedulerv1.Call_Revive{}})
}

// Suppress asks for no more offers.
func (c *Client) Suppress() {
	c.send(&schedulerv1.Call{Type: schedulerv1.Call_SUPPRESS.Enum(), Suppress: &schedulerv1.Call_Suppress{}})
}

// Kill asks for a task's end; a nil grace is the task's own.
func (c *Client) Kill(taskID, agent string, grace *time.Duration) {
	k := &schedulerv1.Call_Kill{TaskId: &mesosv1.TaskID{Value: &taskID}}
	if agent != "" {
		k.AgentId = &mesosv1.AgentID{Value: &agent}
	}
	if grace != nil {
		k.KillPolicy = &mesosv1.KillPolicy{GracePeriod: &mesosv1.DurationInfo{Nanoseconds: new(int64(*grace))}}
	}
	c.send(&schedulerv1.Call{Type: schedulerv1.Call_KILL.Enum(), Kill: k})
}

// Acknowledge says that an update has arrived and need not be sent again.
func (c *Client) Acknowledge(taskID, agent string, uuid task.UUID) {
	c.send(&schedulerv1.Call{Type: schedulerv1.Call_ACKNOWLEDGE.Enum(), Acknowledge: &schedulerv1.Call_Acknowledge{
		AgentId: &mesosv1.AgentID{Value: &agent}, TaskId: &mesosv1.TaskID{Value: &taskID}, Uuid: uuid[:],
	}})
}

// Reconcile asks for the state of tasks, by ID with the agent (or ""); none
// means all that the master knows.
func (c *Client) Reconcile(tasks map[string]string) {
	r := &schedulerv1.Call_Reconcile{}
	for id, agent := range tasks {
		t := &schedulerv1.Call_Reconcile_Task{TaskId: &mesosv1.TaskID{Value: new(id)}}
		if agent != "" {
			t.AgentId = &mesosv1.AgentID{Value: new(agent)}
		}
		r.Tasks = append(r.Tasks, t)
	}
	c.send(&schedulerv1.Call{Type: schedulerv1.Call_RECONCILE.Enum(), Reconcile: r})
}

// Teardown ends the framework and all its tasks.
func (c *Client) Teardown() { c.send(&schedulerv1.Call{Type: schedulerv1.Call_TEARDOWN.Enum()}) }

func dispatch(e *schedulerv1.Event, h Handler) error {
	switch e.GetType() {
	case schedulerv1.Event_SUBSCRIBED:
		s := e.GetSubscribed()
		if err := h.Subscribed(s.GetFrameworkId().GetValue(), s.GetMasterInfo().GetId()); err != nil {
			return handlerError{err}
		}
	case schedulerv1.Event_OFFERS:
		h.Offers(offers(e.GetOffers().GetOffers()))
	case schedulerv1.Event_RESCIND:
		h.Rescinded(e.GetRescind().GetOfferId().GetValue())
	case schedulerv1.Event_UPDATE:
		s := e.GetUpdate().GetStatus()
		h.Update(s.GetTaskId().GetValue(), s.GetAgentId().GetValue(), convert.Status(s))
	case schedulerv1.Event_FAILURE:
		if f := e.GetFailure(); f.ExecutorId == nil {
			h.AgentLost(f.GetAgentId().GetValue())
		}
	case schedulerv1.Event_ERROR:
		return refusal(e.GetError().GetMessage())
	}
	return nil
}

// refusal: being displaced by another instance of the same framework is no
// reason to end for good, everything else is.
func refusal(message string) error {
	if strings.Contains(message, "failed over") {
		return fmt.Errorf("scheduler: %s", message)
	}
	return fmt.Errorf("%w: %s", ErrRefused, message)
}

func offers(in []*mesosv1.Offer) []task.Offer {
	out := make([]task.Offer, 0, len(in))
	for _, o := range in {
		r, err := convert.Resources(o.Resources)
		if err != nil {
			continue // an amount that makes no sense is none
		}
		offer := task.Offer{
			ID: o.GetId().GetValue(), Agent: o.GetAgentId().GetValue(), Hostname: o.GetHostname(), Role: o.GetAllocationInfo().GetRole(),
			Region: o.GetDomain().GetFaultDomain().GetRegion().GetName(), Zone: o.GetDomain().GetFaultDomain().GetZone().GetName(),
			Resources: r, URL: agentURL(o.GetUrl()),
		}
		for _, a := range o.Attributes {
			offer.Attributes = append(offer.Attributes, task.Label{Key: a.GetName(), Value: attribute(a)})
		}
		out = append(out, offer)
	}
	return out
}

// agentURL is where an agent answers, by its IP where it is told: its name need
// not be known here. "" is an address that makes no sense.
func agentURL(u *mesosv1.URL) string {
	host, port := cmp.Or(u.GetAddress().GetIp(), u.GetAddress().GetHostname()), u.GetAddress().GetPort()
	if s := u.GetScheme(); s != "http" && s != "https" || host == "" || port < 1 || port > 65535 {
		return ""
	}
	out := u.GetScheme() + "://" + net.JoinHostPort(host, strconv.Itoa(int(port)))
	if path := strings.Trim(u.GetPath(), "/"); path != "" {
		out += "/" + path // not escaped: libprocess knows slave(1) as that
	}
	return out
}

func attribute(a *mesosv1.Attribute) string {
	switch a.GetType() {
	case mesosv1.Value_SCALAR:
		if m, err := resources.FromFloat(a.GetScalar().GetValue()); err == nil {
			return m.String()
		}
		return ""
	case mesosv1.Value_SET:
		return strings.Join(a.GetSet().GetItem(), ",")
	default:
		return a.GetText().GetValue()
	}
}
