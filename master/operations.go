package master

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// OperationState is where an operation stands; names and numbers are Mesos'
// (mesos.proto, OperationState).
type OperationState uint8

// The states that this master meets.
const (
	OperationPending        OperationState = 1
	OperationFinished       OperationState = 2
	OperationFailed         OperationState = 3
	OperationError          OperationState = 4
	OperationDropped        OperationState = 5
	OperationUnreachable    OperationState = 6
	OperationGoneByOperator OperationState = 7
	OperationRecovering     OperationState = 8
	OperationUnknown        OperationState = 9
)

// Terminal says whether the operation is over.
func (s OperationState) Terminal() bool {
	switch s {
	case OperationFinished, OperationFailed, OperationError, OperationDropped, OperationGoneByOperator:
		return true
	}
	return false
}

// Change is one operation on the marks of resources, checked by the shell as
// far as that needs no state.
type Change struct {
	// Before is the number of launches of the same ACCEPT that come first.
	Before  int
	ID      string // the framework's name for it; "" wants no feedback
	Op      resources.Operation
	Wire    []byte // the Offer.Operation as the agent gets it
	Invalid string // what is wrong with it
}

// Operation is one row: a change that an agent was sent and whose end nobody
// has acknowledged. Rows are never changed.
type Operation struct {
	UUID       task.UUID
	Framework  string // "" when an operator asked for it
	Agent      string
	ID         string
	Wire       []byte // the Offer.Operation
	State      OperationState
	StatusUUID task.UUID // of the newest status; zero before the first
	Status     []byte    // the newest OperationStatus as the agent sent it, nil before the first
	Message    string
}

// change carries one operation of an ACCEPT out on what is offered. The agent's
// total changes with it; what was offered is counted until the offers end.
func (c *Core) change(f *framework, a *agent, ch *Change, pool resources.Resources, role string, fx []Effect) (resources.Resources, []Effect) {
	why := c.refuseChange(f, a, ch)
	var left, total resources.Resources
	var err error
	if why == "" {
		if left, err = pool.Allocated("").Apply(ch.Op); err == nil {
			total, err = a.Resources.Apply(ch.Op)
		}
		if why = c.volumeClash(a, &ch.Op); err != nil {
			why = err.Error()
		}
	}
	if why != "" {
		return pool, c.failChange(f, ch, a.ID, OperationError, why, fx)
	}
	return left.Allocated(role), c.carryOut(a, f.ID, ch, total, fx)
}

// refuseChange is what master/validation.cpp, operation::validate, and
// master.cpp, accept, check that needs to know agent and framework.
func (c *Core) refuseChange(f *framework, a *agent, ch *Change) string {
	switch {
	case ch.Invalid != "":
		return ch.Invalid
	case ch.ID != "" && !a.feedback():
		return "Operation requested feedback on agent default resources, but agent " + a.ID + " does not support it"
	case ch.ID != "" && f.operations[ch.ID] != nil:
		return "Operation has duplicate ID: " + ch.ID
	}
	return a.incapable(&ch.Op)
}

// feedback says whether the end of operations is reported (master.cpp, accept).
func (a *agent) feedback() bool {
	return a.ResourceProvider && slices.Contains(a.CapabilityNames, "AGENT_OPERATION_FEEDBACK")
}

func (a *agent) incapable(op *resources.Operation) string {
	can := func(name string) bool { return slices.Contains(a.CapabilityNames, name) }
	if (op.Kind == resources.OpGrow || op.Kind == resources.OpShrink) && !can("RESIZE_VOLUME") {
		return fmt.Sprintf("Volume resizing is not supported: agent %s lacks the RESIZE_VOLUME capability", a.ID)
	}
	for i := range op.Target {
		x := &op.Target[i]
		if len(x.Reservations) > 1 && !can("RESERVATION_REFINEMENT") {
			return fmt.Sprintf("Resource %s with reservation refinement cannot be used: agent %s lacks the RESERVATION_REFINEMENT capability", x, a.ID)
		}
		if strings.Contains(x.ReservedTo(), "/") && !can("HIERARCHICAL_ROLE") {
			return fmt.Sprintf("Resource %s with reservation for hierarchical role cannot be reserved: agent %s lacks the HIERARCHICAL_ROLE capability", x, a.ID)
		}
	}
	return ""
}

// volumeClash: the ID of a volume is its role's only one on the agent, and what
// tasks share is not destroyed under them.
func (c *Core) volumeClash(a *agent, op *resources.Operation) string {
	for i := range op.Target {
		v := &op.Target[i]
		switch {
		case op.Kind == resources.OpCreate && slices.ContainsFunc(a.Resources, func(x resources.Resource) bool {
			return x.Persistent() && x.ReservedTo() == v.ReservedTo() && x.Disk.PersistenceID == v.Disk.PersistenceID
		}):
			return fmt.Sprintf("Persistent volume with ID %s exists already", v.Disk.PersistenceID)
		case op.Kind == resources.OpDestroy && a.used.Allocated("").Contains(resources.Resources{*v}):
			return fmt.Sprintf("Persistent volume %s is in use", v.Disk.PersistenceID)
		}
	}
	return ""
}

// carryOut changes the agent's total and tells the agent: one that keeps its
// own books gets the operation, another the whole of what it must keep
// (master.cpp, _apply).
func (c *Core) carryOut(a *agent, framework string, ch *Change, total resources.Resources, fx []Effect) []Effect {
	before := a.Resources
	a.Resources = total
	c.totalChanged(before, total)
	if !a.ResourceProvider {
		return toAgent(a, CheckpointResources{Resources: total.Checkpointed()}, fx)
	}
	c.nextOperation++
	o := &Operation{UUID: c.operationUUID(), Framework: framework, Agent: a.ID, ID: ch.ID, Wire: ch.Wire, State: OperationPending}
	c.keepOperation(a, o)
	return toAgent(a, ApplyOperation{Framework: framework, Wire: ch.Wire, UUID: o.UUID, Version: a.ResourceVersion}, fx)
}

// operationUUID makes one of the master's own, which is new at each start.
func (c *Core) operationUUID() (u task.UUID) {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/operation/%d", c.cfg.ID, c.nextOperation))
	copy(u[:], sum[:])
	return u
}

func (c *Core) keepOperation(a *agent, o *Operation) {
	a.operations[o.UUID] = o
	if f := c.frameworks[o.Framework]; f != nil && o.ID != "" {
		f.operations[o.ID] = o
	}
}

func (c *Core) dropOperation(a *agent, o *Operation) {
	delete(a.operations, o.UUID)
	delete(a.doubtful, o.UUID)
	if f := c.frameworks[o.Framework]; f != nil && f.operations[o.ID] == o {
		delete(f.operations, o.ID)
	}
}

// doubtPending: the agent's word on its resources may be older than the
// operations that it was sent.
func (a *agent) doubtPending() {
	clear(a.doubtful)
	for u, o := range a.operations {
		if !o.State.Terminal() {
			a.doubtful[u] = true
		}
	}
}

// astray says whether the end of an operation makes the books here wrong: they
// count on success, but where a registration may have crossed the operation.
func (a *agent) astray(o *Operation, end OperationState) bool {
	return end.Terminal() && !o.State.Terminal() && (end == OperationFinished) == a.doubtful[o.UUID]
}

// failChange: one with an ID gets an answer, one without gets none.
func (c *Core) failChange(f *framework, ch *Change, agent string, s OperationState, why string, fx []Effect) []Effect {
	if ch.ID == "" {
		return fx
	}
	return c.tell(f, OperationUpdate{ID: ch.ID, Agent: agent, State: s, Message: why}, fx)
}

func (c *Core) failChanges(f *framework, list []Change, agent string, s OperationState, why string, fx []Effect) []Effect {
	for i := range list {
		fx = c.failChange(f, &list[i], agent, s, why, fx)
	}
	return fx
}

// operate is what an operator asks for: on what is free, taking back the offers
// that hold what is needed (master/http.cpp, _operation).
func (c *Core) operate(cmd Operate, fx []Effect) ([]Effect, error) {
	a := c.agents[cmd.Agent]
	if a == nil {
		return fx, fmt.Errorf("%w: No agent found with specified ID", ErrInvalid)
	}
	why := cmd.Change.Invalid
	if why == "" {
		why = a.incapable(&cmd.Change.Op)
	}
	if why != "" {
		return fx, fmt.Errorf("%w: %s", ErrInvalid, why)
	}
	total, err := a.Resources.Apply(cmd.Change.Op)
	if err != nil {
		return fx, fmt.Errorf("%w: %w", ErrConflict, err)
	}
	if why := c.volumeClash(a, &cmd.Change.Op); why != "" {
		return fx, fmt.Errorf("%w: %s", ErrConflict, why)
	}
	if fx, err = c.freeFor(a, &cmd.Change.Op, fx); err != nil {
		return fx, err
	}
	return c.carryOut(a, "", &cmd.Change, total, fx), nil
}

// freeFor takes offers of the agent back until the operation finds what it
// needs; when all of them were not enough, none is.
func (c *Core) freeFor(a *agent, op *resources.Operation, fx []Effect) ([]Effect, error) {
	free := a.free()
	var rescind []*Offer
	for _, o := range c.offersOf(a) {
		if _, err := free.Apply(*op); err == nil {
			break
		}
		free, rescind = free.Add(o.Resources.Allocated("")...), append(rescind, o)
	}
	if _, err := free.Apply(*op); err != nil {
		return fx, fmt.Errorf("%w: %w", ErrConflict, err)
	}
	for _, o := range rescind {
		fx = c.rescind(o, fx)
	}
	return fx, nil
}

// operationStatus takes what an agent says of an operation. Whoever asked for it
// acknowledges; nobody to ask means the master does (master.cpp,
// updateOperationStatus).
func (c *Core) operationStatus(now time.Time, cmd OperationStatus, fx []Effect) ([]Effect, error) {
	a := c.agents[cmd.Agent]
	if a == nil {
		return fx, fmt.Errorf("%w: an operation status of the unknown agent %s", ErrIgnored, cmd.Agent)
	}
	o := a.operations[cmd.UUID]
	f := c.frameworks[cmd.Framework]
	if o == nil {
		return c.strangeOperation(a, f, &cmd, fx), nil
	}
	astray := a.astray(o, cmd.State)
	next := *o
	next.State, next.StatusUUID, next.Status = cmd.State, cmd.Status, cmd.Wire
	c.keepOperation(a, &next)
	fx = c.answerOperation(a, f, &next, fx)
	if cmd.Status.IsZero() && cmd.State.Terminal() {
		c.dropOperation(a, &next)
	}
	if astray && a.connected {
		// It registers again with all that it has (slave.cpp, ping).
		fx = toAgent(a, Ping{Connected: false}, fx)
	}
	return c.checkDrained(now, a, fx), nil
}

// answerOperation passes a status on, or acknowledges it in place of whoever is
// gone or did not want to know.
func (c *Core) answerOperation(a *agent, f *framework, o *Operation, fx []Effect) []Effect {
	if o.ID != "" && f != nil {
		return c.tell(f, OperationUpdate{ID: o.ID, Agent: a.ID, State: o.State, Wire: o.Status}, fx)
	}
	if o.StatusUUID.IsZero() {
		return fx
	}
	if o.State.Terminal() {
		c.dropOperation(a, o)
	}
	return toAgent(a, AckOperation{UUID: o.UUID, Status: o.StatusUUID}, fx)
}

// strangeOperation is one from before a restart of the master that the agent has
// not told of yet, or the answer to a framework's question.
func (c *Core) strangeOperation(a *agent, f *framework, cmd *OperationStatus, fx []Effect) []Effect {
	if f != nil && cmd.ID != "" {
		return c.tell(f, OperationUpdate{ID: cmd.ID, Agent: a.ID, State: cmd.State, Wire: cmd.Wire}, fx)
	}
	if cmd.Status.IsZero() || cmd.UUID.IsZero() {
		return fx
	}
	return toAgent(a, AckOperation{UUID: cmd.UUID, Status: cmd.Status}, fx)
}

// acknowledgeOperation passes on what a framework has received; the end of a
// terminal one is the end of the row.
func (c *Core) acknowledgeOperation(now time.Time, cmd AcknowledgeOperation, fx []Effect) ([]Effect, error) {
	f, err := c.subscribedFramework(cmd.Framework)
	if err != nil {
		return fx, err
	}
	o := f.operations[cmd.ID]
	if o == nil {
		return fx, nil
	}
	a := c.agents[o.Agent]
	if a == nil || !a.connected || o.StatusUUID != cmd.Status {
		return fx, nil // the agent tells it again
	}
	if o.State.Terminal() {
		c.dropOperation(a, o)
	}
	return c.checkDrained(now, a, toAgent(a, AckOperation{UUID: o.UUID, Status: cmd.Status}, fx)), nil
}

// agentOperations compares the operations that an agent lists with those known:
// the agent is asked for what it does not list and answers that they were
// dropped; what is new is taken over (master.cpp, updateSlave).
func (c *Core) agentOperations(a *agent, listed []*Operation, fx []Effect) []Effect {
	seen := map[task.UUID]bool{}
	for _, o := range listed {
		seen[o.UUID] = true
		if a.operations[o.UUID] != nil {
			continue
		}
		row := *o
		row.Agent = a.ID
		a.doubtful[o.UUID] = !o.State.Terminal()
		c.keepOperation(a, &row)
	}
	var missing []task.UUID
	for _, o := range c.operationsOf(a) {
		if !seen[o.UUID] && !o.State.Terminal() {
			missing = append(missing, o.UUID)
		}
	}
	if len(missing) == 0 {
		return fx
	}
	return toAgent(a, AskOperations{UUIDs: missing}, fx)
}

func (c *Core) operationsOf(a *agent) []*Operation {
	out := make([]*Operation, 0, len(a.operations))
	for _, o := range a.operations {
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b *Operation) int { return slices.Compare(a.UUID[:], b.UUID[:]) })
	return out
}

// reconcileOperations answers with what is known (master.cpp,
// reconcileOperations).
func (c *Core) reconcileOperations(cmd ReconcileOperations, fx []Effect) ([]Effect, error) {
	f, err := c.subscribedFramework(cmd.Framework)
	if err != nil {
		return fx, err
	}
	if len(cmd.Operations) > 0 {
		for _, ask := range cmd.Operations {
			fx = c.answerAsked(f, ask, fx)
		}
		return fx, nil
	}
	list := make([]*Operation, 0, len(f.operations))
	for _, o := range f.operations {
		list = append(list, o)
	}
	slices.SortFunc(list, func(a, b *Operation) int { return cmp.Compare(a.ID, b.ID) })
	for _, o := range list {
		fx = c.tell(f, OperationUpdate{ID: o.ID, Agent: o.Agent, State: o.State, Message: "Reconciliation: Latest operation state"}, fx)
	}
	return fx, nil
}

func (c *Core) answerAsked(f *framework, ask ReconcileTask, fx []Effect) []Effect {
	out := OperationUpdate{ID: ask.ID, Agent: ask.Agent}
	_, waiting := c.recovered[ask.Agent]
	_, lost := c.lost[ask.Agent]
	_, gone := c.gone[ask.Agent]
	switch o := f.operations[ask.ID]; {
	case o != nil:
		out.Agent, out.State, out.Message = o.Agent, o.State, "Reconciliation: Latest operation state"
	case waiting:
		out.State, out.Message = OperationRecovering, "Reconciliation: Agent is recovered but has not re-registered"
	case gone:
		out.State, out.Message = OperationGoneByOperator, "Reconciliation: Agent is gone"
	case lost:
		out.State, out.Message = OperationUnreachable, "Reconciliation: Agent is unreachable"
	default:
		out.State, out.Message = OperationUnknown, "Reconciliation: Operation is unknown"
	}
	return c.tell(f, out, fx)
}

// endOperations forgets the operations of an agent that goes.
func (c *Core) endOperations(a *agent, s OperationState, why string, fx []Effect) []Effect {
	for _, o := range c.operationsOf(a) {
		if f := c.frameworks[o.Framework]; f != nil && o.ID != "" && !o.State.Terminal() {
			fx = c.tell(f, OperationUpdate{ID: o.ID, Agent: a.ID, State: s, Message: why}, fx)
		}
		c.dropOperation(a, o)
	}
	return fx
}

// orphanOperations: the framework is gone, so the master acknowledges what it
// no longer will.
func (c *Core) orphanOperations(f *framework, fx []Effect) []Effect {
	for _, a := range c.sortedAgents() {
		for _, o := range c.operationsOf(a) {
			if o.Framework == f.ID {
				fx = c.answerOperation(a, nil, o, fx)
			}
		}
	}
	return fx
}

// takeMarks keeps the reservations and volumes of an agent that does not keep
// them itself: a message about the last ones may be lost (master.cpp,
// ___reregisterSlave).
func takeMarks(before, now resources.Resources) resources.Resources {
	kept := before.Checkpointed()
	plain := now.Stripped()
	if !plain.Contains(kept.Stripped()) {
		return now
	}
	return plain.Sub(kept.Stripped()...).Add(kept...)
}

// offersOf returns the agent's offers in the order they were made.
func (c *Core) offersOf(a *agent) []*Offer {
	out := make([]*Offer, 0, len(a.offers))
	for _, o := range a.offers {
		out = append(out, o)
	}
	slices.SortFunc(out, byOfferID)
	return out
}
