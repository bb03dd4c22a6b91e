package server

import (
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/mesos/convert"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	schedulerv1 "github.com/mesopool/mesopool/mesos/v1/scheduler"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// take turns a call into a command.
func (s *Server) take(st *stream, c *schedulerv1.Call) {
	id := c.GetFrameworkId().GetValue()
	switch c.GetType() {
	case schedulerv1.Call_ACKNOWLEDGE:
		s.acknowledge(id, c.Acknowledge)
	case schedulerv1.Call_ACCEPT:
		s.accept(st, id, c.Accept)
	case schedulerv1.Call_DECLINE:
		s.registry.answered(st.info.Load(), c.Decline.OfferIds)
		st.tally.declined(len(c.Decline.OfferIds))
		s.put(master.Decline{Framework: id, Offers: offerIDs(c.Decline.OfferIds), Refuse: refuseTime(c.Decline.Filters)})
	case schedulerv1.Call_ACCEPT_INVERSE_OFFERS:
		s.answerInverse(id, c.AcceptInverseOffers.InverseOfferIds, c.AcceptInverseOffers.Filters, master.InverseAccepted)
	case schedulerv1.Call_DECLINE_INVERSE_OFFERS:
		s.answerInverse(id, c.DeclineInverseOffers.InverseOfferIds, c.DeclineInverseOffers.Filters, master.InverseDeclined)
	case schedulerv1.Call_KILL:
		s.kill(id, c.Kill)
	case schedulerv1.Call_RECONCILE:
		s.reconcile(id, c.Reconcile)
	case schedulerv1.Call_RECONCILE_OPERATIONS:
		s.reconcileOperations(id, c.ReconcileOperations)
	case schedulerv1.Call_ACKNOWLEDGE_OPERATION_STATUS:
		s.acknowledgeOperation(id, c.AcknowledgeOperationStatus)
	case schedulerv1.Call_REVIVE:
		s.put(master.Revive{Framework: id, Roles: c.GetRevive().GetRoles()})
	case schedulerv1.Call_SUPPRESS:
		s.put(master.Suppress{Framework: id, Roles: c.GetSuppress().GetRoles()})
	case schedulerv1.Call_TEARDOWN:
		s.put(master.Teardown{Framework: id})
	case schedulerv1.Call_SHUTDOWN:
		s.put(master.ShutdownExecutor{Framework: id, Agent: c.Shutdown.GetAgentId().GetValue(), Executor: c.Shutdown.GetExecutorId().GetValue()})
	case schedulerv1.Call_MESSAGE:
		m := c.Message
		s.put(master.Message{Framework: id, Agent: m.GetAgentId().GetValue(), Executor: m.GetExecutorId().GetValue(), Data: m.GetData()})
	}
}

func (s *Server) acknowledge(framework string, a *schedulerv1.Call_Acknowledge) {
	s.put(master.Acknowledge{
		Key: task.Key{Framework: framework, ID: a.GetTaskId().GetValue()}, Agent: a.GetAgentId().GetValue(), UUID: task.UUID(a.GetUuid()),
	})
}

func (s *Server) kill(framework string, k *schedulerv1.Call_Kill) {
	cmd := master.Kill{Key: task.Key{Framework: framework, ID: k.GetTaskId().GetValue()}, Agent: k.GetAgentId().GetValue()}
	if k.KillPolicy != nil {
		cmd.Wire, _ = proto.Marshal(k.KillPolicy) // it was unmarshalled: nothing is missing
	}
	s.put(cmd)
}

func (s *Server) reconcile(framework string, r *schedulerv1.Call_Reconcile) {
	cmd := master.Reconcile{Framework: framework}
	for _, t := range r.GetTasks() {
		cmd.Tasks = append(cmd.Tasks, master.ReconcileTask{ID: t.GetTaskId().GetValue(), Agent: t.GetAgentId().GetValue()})
	}
	s.put(cmd)
}

func offerIDs(in []*mesosv1.OfferID) []string {
	out := make([]string, len(in))
	for i := range in {
		out[i] = in[i].GetValue()
	}
	return out
}

// Mesos' bounds of a refusal (allocator/mesos/hierarchical.cpp).
const (
	defaultRefuse = 5 * time.Second
	maxRefuse     = 365 * 24 * time.Hour
)

func refuseTime(f *mesosv1.Filters) time.Duration {
	s := f.GetRefuseSeconds()
	switch {
	case f == nil || math.IsNaN(s) || s < 0:
		return defaultRefuse
	case s > maxRefuse.Seconds():
		return maxRefuse
	}
	return seconds(s)
}

// accept collects the launches and changes of all operations, in order.
func (s *Server) accept(st *stream, framework string, a *schedulerv1.Call_Accept) {
	info := st.info.Load()
	role := s.registry.answered(info, a.OfferIds)
	cmd := master.Accept{Framework: framework, Offers: offerIDs(a.OfferIds), Refuse: refuseTime(a.Filters)}
	for _, op := range a.Operations {
		switch op.GetType() {
		case mesosv1.Offer_Operation_LAUNCH:
			tasks, n := op.GetLaunch().GetTaskInfos(), len(cmd.Launches)
			users := usersOf(tasks, info.User)
			complete(tasks)
			cmd.Launches = s.launches(framework, cmd.Launches, op, role)
			s.forbidLaunches(info, users, cmd.Launches[n:])
		case mesosv1.Offer_Operation_LAUNCH_GROUP:
			n := len(cmd.Launches)
			users := usersOf(op.GetLaunchGroup().GetTaskGroup().GetTasks(), info.User)
			cmd.Launches = s.group(framework, cmd.Launches, op, role)
			s.forbidLaunches(info, users, cmd.Launches[n:])
		default:
			ch := (&requester{framework: info, role: role}).change(op)
			if ch.Invalid == "" && s.forbidden(frameworkSubject(info), &ch) {
				ch.Invalid = fmt.Sprintf("Principal '%s' is not authorized to perform %s", info.Principal, op.GetType())
			}
			ch.Before = len(cmd.Launches)
			cmd.Changes = append(cmd.Changes, ch)
		}
	}
	st.tally.accepted(len(a.OfferIds), len(cmd.Launches)+len(cmd.Changes))
	s.put(cmd)
}

func (s *Server) launches(framework string, list []master.Launch, op *mesosv1.Offer_Operation, role string) []master.Launch {
	tasks := op.GetLaunch().GetTaskInfos()
	if list == nil {
		list = make([]master.Launch, 0, len(tasks))
	}
	for _, t := range tasks {
		l := s.launch(framework, t, role)
		if op.Id != nil {
			l.Invalid = "The `id` field cannot be set on LAUNCH operations"
		}
		list = append(list, l)
	}
	return list
}

// complete fills in what older frameworks leave out and agents insist on
// (master.cpp, accept).
func complete(tasks []*mesosv1.TaskInfo) {
	for _, t := range tasks {
		h := t.HealthCheck
		switch {
		case h == nil || h.Type != nil:
		case h.Command != nil && h.Http == nil:
			h.Type = mesosv1.HealthCheck_COMMAND.Enum()
		case h.Http != nil && h.Command == nil:
			h.Type = mesosv1.HealthCheck_HTTP.Enum()
		}
	}
}

// launch checks a task and writes it as its agent will get it: resources as a
// stack of reservations, allocated to the offer's role.
func (s *Server) launch(framework string, t *mesosv1.TaskInfo, role string) master.Launch {
	allocate(t.Resources, role)
	allocate(t.GetExecutor().GetResources(), role)
	problem := taskProblem(t, s.registry.agent(t.GetAgentId().GetValue()).limits)
	if problem == "" {
		problem = adopt(framework, t.Executor)
	}
	l := launchOf(t, problem)
	if l.Invalid == "" {
		l.Invalid = setExecutor(&l, t.Executor)
	}
	return l
}

// launchOf writes a task in which nothing is wrong but the problem.
func launchOf(t *mesosv1.TaskInfo, problem string) master.Launch {
	l := master.Launch{ID: t.GetTaskId().GetValue(), Name: t.GetName(), Agent: t.GetAgentId().GetValue(), Invalid: problem}
	if problem != "" {
		return l
	}
	var err error
	if l.Resources, err = convert.Resources(t.Resources); err != nil {
		l.Invalid = "Task uses invalid resources: " + err.Error()
	} else if l.Origin, err = proto.Marshal(t); err != nil {
		l.Invalid = err.Error()
	} else if l.More, err = partial.Marshal(taskOf(t)); err != nil {
		l.Invalid = err.Error()
	}
	return l
}

// adopt gives an executor its framework's ID, which agents rely on
// (master.cpp, accept), and says what is wrong with the one that it has.
func adopt(framework string, e *mesosv1.ExecutorInfo) string {
	if e == nil {
		return ""
	}
	if id := e.FrameworkId; id != nil && id.GetValue() != framework {
		return fmt.Sprintf("ExecutorInfo has an invalid FrameworkID (Actual: %s vs Expected: %s)", id.GetValue(), framework)
	}
	e.FrameworkId = &mesosv1.FrameworkID{Value: &framework}
	return ""
}

// setExecutor says what is wrong with an executor's resources.
func setExecutor(l *master.Launch, e *mesosv1.ExecutorInfo) string {
	var err error
	l.Executor = e.GetExecutorId().GetValue()
	if l.ExecutorResources, l.ExecutorOrigin, err = executorParts(e); err != nil {
		return "Executor uses invalid resources: " + err.Error()
	}
	return ""
}

// executorParts are what the core keeps of an executor; nothing of none.
func executorParts(e *mesosv1.ExecutorInfo) (resources.Resources, []byte, error) {
	if e == nil {
		return nil, nil, nil
	}
	amount, err := convert.Resources(e.Resources)
	if err != nil {
		return nil, nil, err
	}
	bare := proto.CloneOf(e)
	bare.FrameworkId = nil
	origin, err := proto.MarshalOptions{Deterministic: true}.Marshal(bare)
	return amount, origin, err
}

// allocate brings resources into the form that is used between masters and
// agents, in place (common/resources_utils.cpp, upgradeResource).
func allocate(list []*mesosv1.Resource, role string) {
	for _, r := range list {
		upgrade(r)
		if r.AllocationInfo == nil {
			r.AllocationInfo = &mesosv1.Resource_AllocationInfo{Role: &role}
		}
	}
}

func upgrade(r *mesosv1.Resource) {
	if len(r.Reservations) == 0 && r.GetRole() != "*" {
		one := &mesosv1.Resource_ReservationInfo{Type: mesosv1.Resource_ReservationInfo_STATIC.Enum(), Role: r.Role}
		if r.Reservation != nil {
			one.Type = mesosv1.Resource_ReservationInfo_DYNAMIC.Enum()
			one.Principal, one.Labels = r.Reservation.Principal, r.Reservation.Labels
		}
		r.Reservations = []*mesosv1.Resource_ReservationInfo{one}
	}
	r.Role, r.Reservation = nil, nil
}
