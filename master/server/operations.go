package server

import (
	"errors"
	"fmt"
	"net/http"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/mesos/convert"
	"github.com/mesopool/mesopool/mesos/libprocess"
	"github.com/mesopool/mesopool/mesos/mesosjson"
	"github.com/mesopool/mesopool/mesos/messages"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	masterv1 "github.com/mesopool/mesopool/mesos/v1/master"
	schedulerv1 "github.com/mesopool/mesopool/mesos/v1/scheduler"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// requester is who asks for an operation. The zero value is an operator whom
// nobody knows.
type requester struct {
	framework *master.FrameworkInfo
	role      string // that the offers are for
	operator  string // who has proven to be one
}

func (q *requester) principal() string {
	if q.framework != nil {
		return q.framework.Principal
	}
	return q.operator
}

// change reads and checks an operation, and writes it as its agent will get it.
func (q *requester) change(op *mesosv1.Offer_Operation) master.Change {
	ch := master.Change{ID: op.GetId().GetValue()}
	if ch.Invalid = formProblem(op); ch.Invalid != "" {
		return ch
	}
	lists := operationResources(op)
	for _, list := range lists {
		for _, r := range list {
			upgrade(r)
			if q.framework != nil && r.AllocationInfo == nil {
				r.AllocationInfo = &mesosv1.Resource_AllocationInfo{Role: &q.role}
			}
		}
	}
	var err error
	if ch.Op, err = convert.Operation(op); err != nil {
		ch.Invalid = "Invalid resources: " + err.Error()
		return ch
	}
	if ch.Invalid = q.problem(&ch.Op); ch.Invalid != "" {
		return ch
	}
	if ch.Wire, err = proto.Marshal(op); err != nil {
		ch.Invalid = err.Error()
	}
	return ch
}

// formProblem says which part of an operation is missing.
func formProblem(op *mesosv1.Offer_Operation) string {
	missing := ""
	switch op.GetType() {
	case mesosv1.Offer_Operation_RESERVE:
		if op.Reserve == nil {
			missing = "reserve"
		}
	case mesosv1.Offer_Operation_UNRESERVE:
		if op.Unreserve == nil {
			missing = "unreserve"
		}
	case mesosv1.Offer_Operation_CREATE:
		if op.Create == nil {
			missing = "create"
		}
	case mesosv1.Offer_Operation_DESTROY:
		if op.Destroy == nil {
			missing = "destroy"
		}
	case mesosv1.Offer_Operation_GROW_VOLUME:
		if op.GrowVolume == nil {
			missing = "grow_volume"
		}
	case mesosv1.Offer_Operation_SHRINK_VOLUME:
		if op.ShrinkVolume == nil {
			missing = "shrink_volume"
		}
	default:
		return "operations of type " + op.GetType().String() + " need a resource provider, and this master has none"
	}
	if missing == "" {
		return ""
	}
	return "Expecting '" + missing + "' to be present"
}

func operationResources(op *mesosv1.Offer_Operation) [][]*mesosv1.Resource {
	one := func(r *mesosv1.Resource) []*mesosv1.Resource {
		if r == nil {
			return nil
		}
		return []*mesosv1.Resource{r}
	}
	return [][]*mesosv1.Resource{
		op.GetReserve().GetSource(), op.GetReserve().GetResources(), op.GetUnreserve().GetResources(),
		op.GetCreate().GetVolumes(), op.GetDestroy().GetVolumes(),
		one(op.GetGrowVolume().GetVolume()), one(op.GetGrowVolume().GetAddition()), one(op.GetShrinkVolume().GetVolume()),
	}
}

// problem is master/validation.cpp, operation::validate, as far as it needs no
// state.
func (q *requester) problem(op *resources.Operation) string {
	for i := range op.Target {
		x := &op.Target[i]
		if problem := reservationsProblem(x); problem != "" {
			return "Invalid resources: " + problem
		}
		if x.Provider != "" {
			return fmt.Sprintf("Resource %s is of a resource provider, and this master has none", x)
		}
		problem := ""
		switch op.Kind {
		case resources.OpReserve:
			problem = q.reserveProblem(op, x)
		case resources.OpUnreserve:
			problem = unreserveProblem(x)
		case resources.OpCreate:
			problem = q.createProblem(x)
		case resources.OpDestroy:
			problem = volumeMarkProblem(x)
		}
		if problem != "" {
			return problem
		}
	}
	switch op.Kind {
	case resources.OpGrow, resources.OpShrink:
		return resizeProblem(op)
	case resources.OpReserve:
		if q.framework != nil && len(op.Source) > 0 {
			return "The `source` field of RESERVE cannot be set by frameworks"
		}
	}
	if len(op.Target) == 0 {
		return "Invalid resources: the operation names none"
	}
	return ""
}

// reservationsProblem: only the outermost reservation may be one that the agent
// was started with, and each refines the one before (resources.cpp, validate).
func reservationsProblem(x *resources.Resource) string {
	for i, v := range x.Reservations {
		if problem := roleProblem(v.Role); problem != "" {
			return fmt.Sprintf("Invalid role '%s' in reservation: %s", v.Role, problem)
		}
		if v.Role == "*" {
			return "Invalid reservation: role \"*\" cannot be reserved"
		}
		if i == 0 {
			continue
		}
		outer := x.Reservations[i-1].Role
		if !v.Dynamic || len(v.Role) <= len(outer)+1 || v.Role[:len(outer)+1] != outer+"/" {
			return fmt.Sprintf("Invalid refined reservation for role '%s' of a resource reserved to '%s'", v.Role, outer)
		}
	}
	return ""
}

func (q *requester) reserveProblem(op *resources.Operation, x *resources.Resource) string {
	n := len(x.Reservations)
	switch {
	case n == 0 || !x.Reservations[n-1].Dynamic:
		return fmt.Sprintf("Resource %s is not dynamically reserved", x)
	case x.Revocable:
		return fmt.Sprintf("Resource %s is revocable and cannot be reserved", x)
	case x.Persistent() && len(op.Source) == 0:
		return fmt.Sprintf("A persistent volume %s must already be reserved", x)
	case q.framework != nil && x.ReservedTo() != q.role:
		return fmt.Sprintf("A reserve operation was attempted for role '%s' of a resource that is allocated to role '%s'", x.ReservedTo(), q.role)
	case n > 1 && q.framework != nil && !q.framework.Capabilities.ReservationRefinement:
		return fmt.Sprintf("Resource %s refines a reservation, and the framework lacks the RESERVATION_REFINEMENT capability", x)
	}
	return q.principalProblem("A reserve operation was attempted", "reserved resource in the request", "ReservationInfo", x.Reservations[n-1].Principal)
}

func (q *requester) principalProblem(what, thing, field, principal string) string {
	want := q.principal()
	switch {
	case want == "" || want == principal:
		return ""
	case principal == "":
		return fmt.Sprintf("%s by principal '%s', but there is a %s with no principal set in `%s`", what, want, thing, field)
	}
	return fmt.Sprintf("%s by principal '%s', but there is a %s with principal '%s' set in `%s`", what, want, thing, principal, field)
}

func unreserveProblem(x *resources.Resource) string {
	n := len(x.Reservations)
	switch {
	case n == 0 || !x.Reservations[n-1].Dynamic:
		return fmt.Sprintf("Resource %s is not dynamically reserved", x)
	case x.Persistent():
		return fmt.Sprintf("A dynamically reserved persistent volume %s cannot be unreserved directly. Please destroy the persistent volume first then unreserve the resource", x)
	}
	return ""
}

func (q *requester) createProblem(x *resources.Resource) string {
	if problem := volumeMarkProblem(x); problem != "" {
		return problem
	}
	if x.Shared && q.framework != nil && !q.framework.Capabilities.Shared {
		return fmt.Sprintf("Create volume operation for '%s' has been attempted by framework '%s' with no SHARED_RESOURCES capability", x, q.framework.ID)
	}
	return q.principalProblem("Create volume operation has been attempted", "volume in the operation", "DiskInfo.Persistence", x.Disk.Principal)
}

// volumeMarkProblem is master/validation.cpp, resource::validatePersistentVolume.
func volumeMarkProblem(x *resources.Resource) string {
	problem := ""
	switch {
	case x.Disk == nil:
		problem = fmt.Sprintf("Resource %s does not have DiskInfo", x)
	case !x.Persistent():
		problem = "'persistence' not set in DiskInfo"
	case x.Disk.ContainerPath == "":
		problem = "Expecting 'volume' to be set for persistent volume"
	case len(x.Reservations) == 0:
		problem = "Persistent volumes cannot be created from unreserved resources"
	case x.Revocable:
		problem = fmt.Sprintf("Persistent volume %s cannot be created from revocable resources", x)
	default:
		problem = idProblem(x.Disk.PersistenceID)
	}
	return prefixed("Not a persistent volume: ", problem)
}

func resizeProblem(op *resources.Operation) string {
	v := &op.Volume
	if problem := volumeMarkProblem(v); problem != "" {
		return problem
	}
	switch {
	case v.Shared:
		return fmt.Sprintf("Resizing a shared persistent volume is not supported: %s", v)
	case op.Kind == resources.OpShrink && (op.Subtract <= 0 || op.Subtract >= v.Scalar):
		return "The size of volume field `subtract` must be above 0 and below the size of the volume"
	case op.Kind == resources.OpGrow && op.Addition.Scalar <= 0:
		return "The size of volume field `addition` must be above 0"
	case op.Kind == resources.OpGrow && op.Addition.Persistent():
		return "The field `addition` must not be a persistent volume"
	}
	return ""
}

// operationEnd is what a framework is told of an operation.
func operationEnd(u *master.OperationUpdate) *schedulerv1.Event {
	status := &mesosv1.OperationStatus{}
	if u.Wire != nil && proto.Unmarshal(u.Wire, status) == nil {
		return operationEvent(status)
	}
	status = &mesosv1.OperationStatus{State: mesosv1.OperationState(u.State).Enum()}
	status.OperationId = &mesosv1.OperationID{Value: &u.ID}
	if u.Message != "" {
		status.Message = &u.Message
	}
	if u.Agent != "" {
		status.AgentId = &mesosv1.AgentID{Value: &u.Agent}
	}
	return operationEvent(status)
}

func operationEvent(status *mesosv1.OperationStatus) *schedulerv1.Event {
	return &schedulerv1.Event{
		Type:                  schedulerv1.Event_UPDATE_OPERATION_STATUS.Enum(),
		UpdateOperationStatus: &schedulerv1.Event_UpdateOperationStatus{Status: status},
	}
}

func (s *Server) acknowledgeOperation(framework string, a *schedulerv1.Call_AcknowledgeOperationStatus) {
	cmd := master.AcknowledgeOperation{Framework: framework, ID: a.GetOperationId().GetValue()}
	copy(cmd.Status[:], a.GetUuid())
	s.put(cmd)
}

func (s *Server) reconcileOperations(framework string, r *schedulerv1.Call_ReconcileOperations) {
	cmd := master.ReconcileOperations{Framework: framework}
	for _, o := range r.GetOperations() {
		cmd.Operations = append(cmd.Operations, master.ReconcileTask{ID: o.GetOperationId().GetValue(), Agent: o.GetAgentId().GetValue()})
	}
	s.put(cmd)
}

// operationStatus takes an agent's report. What a genuine master would end
// itself over is dropped (master.cpp, updateOperationStatus).
func (s *Server) operationStatus(m libprocess.Message) error {
	in := &messages.UpdateOperationStatusMessage{}
	if err := proto.Unmarshal(m.Body, in); err != nil {
		return err
	}
	newest := in.Status
	if in.LatestStatus != nil && in.LatestStatus.Uuid == nil == (newest.Uuid == nil) {
		newest = in.LatestStatus
	}
	uuids := [2]task.UUID{}
	for i, u := range []*mesosv1.UUID{in.OperationUuid, in.Status.Uuid} {
		if n := len(u.GetValue()); u != nil && n != len(task.UUID{}) {
			return fmt.Errorf("a uuid in it has %d bytes", n)
		}
		copy(uuids[i][:], u.GetValue())
	}
	wire, err := proto.Marshal(in.Status)
	if err != nil {
		return err
	}
	s.put(master.OperationStatus{
		Agent: in.SlaveId.GetValue(), Framework: in.FrameworkId.GetValue(), ID: in.Status.OperationId.GetValue(),
		UUID: uuids[0], Status: uuids[1], State: master.OperationState(newest.GetState()), Wire: wire,
	})
	return nil
}

// reportedOperations are those that an agent lists.
func reportedOperations(in []*mesosv1.Operation) ([]*master.Operation, error) {
	out := make([]*master.Operation, 0, len(in))
	for _, o := range in {
		if n := len(o.Uuid.GetValue()); n != len(task.UUID{}) {
			return nil, fmt.Errorf("the uuid of an operation has %d bytes", n)
		}
		row := &master.Operation{
			UUID: task.UUID(o.Uuid.GetValue()), Framework: o.FrameworkId.GetValue(), ID: o.Info.GetId().GetValue(),
			State: master.OperationState(o.LatestStatus.GetState()),
		}
		copy(row.StatusUUID[:], o.LatestStatus.Uuid.GetValue())
		var err error
		if row.Wire, err = proto.Marshal(o.Info); err != nil {
			return nil, err
		}
		if row.Status, err = proto.Marshal(o.LatestStatus); err != nil {
			return nil, err
		}
		out = append(out, row)
	}
	return out, nil
}

// operationMessage is one of the messages to agents that are about operations.
func operationMessage(m master.AgentMessage) (proto.Message, error) {
	uuid := func(u []byte) *mesosv1.UUID { return &mesosv1.UUID{Value: u} }
	switch m := m.(type) {
	case master.ApplyOperation:
		out := &messages.ApplyOperationMessage{
			OperationInfo: &mesosv1.Offer_Operation{}, OperationUuid: uuid(m.UUID[:]),
			ResourceVersionUuid: &messages.ResourceVersionUUID{Uuid: uuid(m.Version)},
		}
		if m.Framework != "" {
			out.FrameworkId = &mesosv1.FrameworkID{Value: &m.Framework}
		}
		return out, proto.Unmarshal(m.Wire, out.OperationInfo)
	case master.CheckpointResources:
		return &messages.CheckpointResourcesMessage{Resources: convert.CheckpointedTo(m.Resources)}, nil
	case master.AckOperation:
		return &messages.AcknowledgeOperationStatusMessage{OperationUuid: uuid(m.UUID[:]), StatusUuid: uuid(m.Status[:])}, nil
	case master.AskOperations:
		out := &messages.ReconcileOperationsMessage{}
		for _, u := range m.UUIDs {
			out.Operations = append(out.Operations, &messages.ReconcileOperationsMessage_Operation{OperationUuid: uuid(u[:])})
		}
		return out, nil
	}
	return nil, fmt.Errorf("there is no message for %T", m)
}

func getOperations(_ *viewer, snap *master.Snapshot) (*masterv1.Response, error) {
	out := &masterv1.Response_GetOperations{}
	for _, o := range snap.Operations {
		m, err := operationRow(o)
		if err != nil {
			return nil, err
		}
		out.Operations = append(out.Operations, m)
	}
	return &masterv1.Response{Type: masterv1.Response_GET_OPERATIONS.Enum(), GetOperations: out}, nil
}

func operationRow(o *master.Operation) (*mesosv1.Operation, error) {
	status := &mesosv1.OperationStatus{}
	if o.Status == nil {
		status.State = mesosv1.OperationState(o.State).Enum()
	} else if err := proto.Unmarshal(o.Status, status); err != nil {
		return nil, err
	}
	m := &mesosv1.Operation{
		AgentId: &mesosv1.AgentID{Value: &o.Agent}, Info: &mesosv1.Offer_Operation{}, Uuid: &mesosv1.UUID{Value: o.UUID[:]},
		LatestStatus: status, Statuses: []*mesosv1.OperationStatus{status},
	}
	if o.Framework != "" {
		m.FrameworkId = &mesosv1.FrameworkID{Value: &o.Framework}
	}
	return m, proto.Unmarshal(o.Wire, m.Info)
}

// operatorChange is the operation that an operator's call asks for, nil for
// other calls.
func operatorChange(c *masterv1.Call) (agent string, op *mesosv1.Offer_Operation) {
	kind := func(k mesosv1.Offer_Operation_Type) *mesosv1.Offer_Operation {
		return &mesosv1.Offer_Operation{Type: k.Enum()}
	}
	switch c.GetType() {
	case masterv1.Call_RESERVE_RESOURCES:
		op = kind(mesosv1.Offer_Operation_RESERVE)
		if x := c.ReserveResources; x != nil {
			op.Reserve, agent = &mesosv1.Offer_Operation_Reserve{Source: x.Source, Resources: x.Resources}, x.AgentId.GetValue()
		}
	case masterv1.Call_UNRESERVE_RESOURCES:
		op = kind(mesosv1.Offer_Operation_UNRESERVE)
		if x := c.UnreserveResources; x != nil {
			op.Unreserve, agent = &mesosv1.Offer_Operation_Unreserve{Resources: x.Resources}, x.AgentId.GetValue()
		}
	case masterv1.Call_CREATE_VOLUMES:
		op = kind(mesosv1.Offer_Operation_CREATE)
		if x := c.CreateVolumes; x != nil {
			op.Create, agent = &mesosv1.Offer_Operation_Create{Volumes: x.Volumes}, x.AgentId.GetValue()
		}
	case masterv1.Call_DESTROY_VOLUMES:
		op = kind(mesosv1.Offer_Operation_DESTROY)
		if x := c.DestroyVolumes; x != nil {
			op.Destroy, agent = &mesosv1.Offer_Operation_Destroy{Volumes: x.Volumes}, x.AgentId.GetValue()
		}
	case masterv1.Call_GROW_VOLUME:
		op = kind(mesosv1.Offer_Operation_GROW_VOLUME)
		if x := c.GrowVolume; x != nil {
			op.GrowVolume, agent = &mesosv1.Offer_Operation_GrowVolume{Volume: x.Volume, Addition: x.Addition}, x.AgentId.GetValue()
		}
	case masterv1.Call_SHRINK_VOLUME:
		op = kind(mesosv1.Offer_Operation_SHRINK_VOLUME)
		if x := c.ShrinkVolume; x != nil {
			op.ShrinkVolume, agent = &mesosv1.Offer_Operation_ShrinkVolume{Volume: x.Volume, Subtract: x.Subtract}, x.AgentId.GetValue()
		}
	}
	return agent, op
}

// operateOn carries an operator's operation out.
func (s *Server) operateOn(r *http.Request, agent string, op *mesosv1.Offer_Operation) error {
	if problem := formProblem(op); problem != "" {
		return failf(http.StatusBadRequest, "Failed to validate master::Call: %s", problem)
	}
	ch := (&requester{operator: subject(r.Context()).Name}).change(op)
	if s.forbidden(subject(r.Context()), &ch) {
		return errForbidden()
	}
	err := s.do(r.Context(), master.Operate{Agent: agent, Change: ch})
	s.snapshot.expire()
	switch {
	case errors.Is(err, master.ErrConflict):
		return failf(http.StatusConflict, "Invalid operation: %v", err)
	case errors.Is(err, master.ErrInvalid):
		return failf(http.StatusBadRequest, "Invalid %s operation on agent %s: %v", op.GetType(), agent, err)
	case err != nil:
		return failf(http.StatusServiceUnavailable, "%v", err)
	}
	return nil
}

// olderOperation serves the forms from before the operator API: an agent's ID
// and a JSON array in fields of the body (master/http.cpp, _reserve).
func (s *Server) olderOperation(kind mesosv1.Offer_Operation_Type, param string) http.HandlerFunc {
	return s.older(func(r *http.Request) error {
		agent, text := r.PostForm.Get("slaveId"), r.PostForm.Get(param)
		switch {
		case agent == "":
			return failf(http.StatusBadRequest, "Missing 'slaveId' query parameter in the request body")
		case text == "":
			return failf(http.StatusBadRequest, "Missing '%s' query parameter in the request body", param)
		}
		call := &masterv1.Call_ReserveResources{}
		if err := mesosjson.Unmarshal([]byte(`{"agent_id":{"value":"-"},"resources":`+text+`}`), call); err != nil {
			return failf(http.StatusBadRequest, "Error in parsing '%s' query parameter in the request body: %v", param, err)
		}
		op := &mesosv1.Offer_Operation{Type: kind.Enum()}
		switch kind {
		case mesosv1.Offer_Operation_RESERVE:
			op.Reserve = &mesosv1.Offer_Operation_Reserve{Resources: call.Resources}
		case mesosv1.Offer_Operation_UNRESERVE:
			op.Unreserve = &mesosv1.Offer_Operation_Unreserve{Resources: call.Resources}
		case mesosv1.Offer_Operation_CREATE:
			op.Create = &mesosv1.Offer_Operation_Create{Volumes: call.Resources}
		case mesosv1.Offer_Operation_DESTROY:
			op.Destroy = &mesosv1.Offer_Operation_Destroy{Volumes: call.Resources}
		}
		return s.operateOn(r, agent, op)
	}, http.StatusAccepted)
}

// older serves a form that changes something.
func (s *Server) older(do func(*http.Request) error, status int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		err := error(nil)
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		switch {
		case r.Method != http.MethodPost:
			w.Header().Set("Allow", http.MethodPost)
			err = failf(http.StatusMethodNotAllowed, "Expecting one of { 'POST' }, but received '%s'", r.Method)
		case r.ParseForm() != nil:
			err = failf(http.StatusBadRequest, "Unable to decode the body")
		default:
			err = do(r)
		}
		if err != nil {
			answerError(w, err)
			return
		}
		w.WriteHeader(status)
	}
}
