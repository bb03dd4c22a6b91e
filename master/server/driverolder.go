package server

import (
	"errors"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/mesos/messages"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	schedulerv1 "github.com/mesopool/mesopool/mesos/v1/scheduler"
)

// older are the messages that drivers sent before there were calls, and some
// clients still do, each with the call that it is (master.cpp, initialize).
var older = map[string]func(body []byte) (call *schedulerv1.Call, force bool, err error){
	"mesos.internal.RegisterFrameworkMessage":           decoded(registerFramework),
	"mesos.internal.ReregisterFrameworkMessage":         decoded(reregisterFramework),
	"mesos.internal.UnregisterFrameworkMessage":         decoded(unregisterFramework),
	"mesos.internal.ResourceRequestMessage":             decoded(resourceRequest),
	"mesos.internal.LaunchTasksMessage":                 decoded(launchTasks),
	"mesos.internal.ReviveOffersMessage":                decoded(reviveOffers),
	"mesos.internal.KillTaskMessage":                    decoded(killTask),
	"mesos.internal.StatusUpdateAcknowledgementMessage": decoded(acknowledgeUpdate),
	"mesos.internal.FrameworkToExecutorMessage":         decoded(toExecutor),
	"mesos.internal.ReconcileTasksMessage":              decoded(reconcileTasks),
}

// olderCall reads a message that stands for a call.
func olderCall(name string, body []byte) (call *schedulerv1.Call, force bool, err error) {
	read, known := older[name]
	if !known {
		return nil, false, errors.New("this master has no use for it")
	}
	return read(body)
}

// message is a pointer to a message that can be made.
type protoOf[T any] interface {
	*T
	proto.Message
}

func decoded[T any, M protoOf[T]](call func(M) (*schedulerv1.Call, bool)) func([]byte) (*schedulerv1.Call, bool, error) {
	return func(body []byte) (*schedulerv1.Call, bool, error) {
		in := M(new(T))
		if err := proto.Unmarshal(body, in); err != nil {
			return nil, false, err
		}
		out, force := call(in)
		return out, force, nil
	}
}

func callOf(kind schedulerv1.Call_Type, framework *mesosv1.FrameworkID) *schedulerv1.Call {
	return &schedulerv1.Call{Type: &kind, FrameworkId: framework}
}

func registerFramework(m *messages.RegisterFrameworkMessage) (*schedulerv1.Call, bool) {
	out := callOf(schedulerv1.Call_SUBSCRIBE, m.Framework.Id)
	out.Subscribe = &schedulerv1.Call_Subscribe{FrameworkInfo: m.Framework}
	return out, false
}

func reregisterFramework(m *messages.ReregisterFrameworkMessage) (*schedulerv1.Call, bool) {
	out := callOf(schedulerv1.Call_SUBSCRIBE, m.Framework.Id)
	out.Subscribe = &schedulerv1.Call_Subscribe{FrameworkInfo: m.Framework}
	return out, m.GetFailover()
}

func unregisterFramework(m *messages.UnregisterFrameworkMessage) (*schedulerv1.Call, bool) {
	return callOf(schedulerv1.Call_TEARDOWN, m.FrameworkId), false
}

func resourceRequest(m *messages.ResourceRequestMessage) (*schedulerv1.Call, bool) {
	out := callOf(schedulerv1.Call_REQUEST, m.FrameworkId)
	out.Request = &schedulerv1.Call_Request{Requests: m.Requests}
	return out, false
}

// launchTasks without tasks is how offers were declined.
func launchTasks(m *messages.LaunchTasksMessage) (*schedulerv1.Call, bool) {
	out := callOf(schedulerv1.Call_ACCEPT, m.FrameworkId)
	out.Accept = &schedulerv1.Call_Accept{OfferIds: m.OfferIds, Filters: m.Filters}
	if len(m.Tasks) > 0 {
		out.Accept.Operations = []*mesosv1.Offer_Operation{{
			Type: mesosv1.Offer_Operation_LAUNCH.Enum(), Launch: &mesosv1.Offer_Operation_Launch{TaskInfos: m.Tasks},
		}}
	}
	return out, false
}

func reviveOffers(m *messages.ReviveOffersMessage) (*schedulerv1.Call, bool) {
	out := callOf(schedulerv1.Call_REVIVE, m.FrameworkId)
	out.Revive = &schedulerv1.Call_Revive{Roles: m.Roles}
	return out, false
}

func killTask(m *messages.KillTaskMessage) (*schedulerv1.Call, bool) {
	out := callOf(schedulerv1.Call_KILL, m.FrameworkId)
	out.Kill = &schedulerv1.Call_Kill{TaskId: m.TaskId, KillPolicy: m.KillPolicy}
	return out, false
}

func acknowledgeUpdate(m *messages.StatusUpdateAcknowledgementMessage) (*schedulerv1.Call, bool) {
	out := callOf(schedulerv1.Call_ACKNOWLEDGE, m.FrameworkId)
	out.Acknowledge = &schedulerv1.Call_Acknowledge{AgentId: m.SlaveId, TaskId: m.TaskId, Uuid: m.Uuid}
	return out, false
}

func toExecutor(m *messages.FrameworkToExecutorMessage) (*schedulerv1.Call, bool) {
	out := callOf(schedulerv1.Call_MESSAGE, m.FrameworkId)
	out.Message = &schedulerv1.Call_Message{AgentId: m.SlaveId, ExecutorId: m.ExecutorId, Data: m.Data}
	return out, false
}

func reconcileTasks(m *messages.ReconcileTasksMessage) (*schedulerv1.Call, bool) {
	out := callOf(schedulerv1.Call_RECONCILE, m.FrameworkId)
	out.Reconcile = &schedulerv1.Call_Reconcile{}
	for _, st := range m.Statuses {
		out.Reconcile.Tasks = append(out.Reconcile.Tasks, &schedulerv1.Call_Reconcile_Task{TaskId: st.TaskId, AgentId: st.AgentId})
	}
	return out, false
}
