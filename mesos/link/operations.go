package link

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/internal/uuid"
	"github.com/mesopool/mesopool/mesos/convert"
	"github.com/mesopool/mesopool/mesos/messages"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/store"
)

// Store keys of operations.
//
//	link/checkpointed-resources   CheckpointResourcesMessage: what is reserved, and the volumes
//	link/operation/<uuid>         mesos.v1.Operation, until its end is acknowledged
//	link/volume/<role>/<id>       destroyedVolume, until the backend has removed it
const (
	checkpointKey   = "link/checkpointed-resources"
	operationPrefix = "link/operation/"
	volumePrefix    = "link/volume/"
)

// maxOperations bounds the operations whose end nobody has acknowledged.
const maxOperations = 10_000

// ledger is what operations have made of the agent's resources. It is the only
// copy after a master's failover, so all of it is saved before it is told.
type ledger struct {
	mu      sync.Mutex
	kept    resources.Resources // reserved by operations, and persistent volumes
	ops     map[string]*operation
	volumes map[string]destroyedVolume // by store key
	wake    chan struct{}              // a volume is to be removed
}

type operation struct {
	*mesosv1.Operation
	sends int
	due   time.Time // of the next send
}

// destroyedVolume is a volume that the backend still has.
type destroyedVolume struct {
	Role string
	ID   string
}

func (v destroyedVolume) key() string { return volumePrefix + v.Role + "/" + v.ID }

func newLedger() *ledger {
	return &ledger{ops: map[string]*operation{}, volumes: map[string]destroyedVolume{}, wake: make(chan struct{}, 1)}
}

func operationKey(id []byte) string { return operationPrefix + hex.EncodeToString(id) }

// loadLedger reads what was saved before the last stop.
func (l *Link) loadLedger(ctx context.Context) error {
	g := l.ledger
	g.mu.Lock()
	defer g.mu.Unlock()
	kept, err := l.cfg.Store.List(ctx, checkpointKey)
	if err != nil {
		return fmt.Errorf("link: read the reserved resources: %w", err)
	}
	for _, e := range kept {
		if g.kept, err = readCheckpoint(e.Value); err != nil {
			return fmt.Errorf("link: the saved reserved resources cannot be read: %w", err)
		}
	}
	ops, err := l.cfg.Store.List(ctx, operationPrefix)
	if err != nil {
		return fmt.Errorf("link: read the operations: %w", err)
	}
	for _, e := range ops {
		op := &mesosv1.Operation{}
		if err := proto.Unmarshal(e.Value, op); err != nil {
			return fmt.Errorf("link: the saved operation %s cannot be read: %w", e.Key, err)
		}
		g.ops[string(op.Uuid.GetValue())] = &operation{Operation: op}
	}
	return l.loadVolumes(ctx)
}

func (l *Link) loadVolumes(ctx context.Context) error {
	list, err := l.cfg.Store.List(ctx, volumePrefix)
	if err != nil {
		return fmt.Errorf("link: read the destroyed volumes: %w", err)
	}
	for _, e := range list {
		var v destroyedVolume
		if err := json.Unmarshal(e.Value, &v); err != nil {
			return fmt.Errorf("link: the record %s cannot be read: %w", e.Key, err)
		}
		l.ledger.volumes[e.Key] = v
	}
	return nil
}

func readCheckpoint(text []byte) (resources.Resources, error) {
	var m messages.CheckpointResourcesMessage
	if err := proto.Unmarshal(text, &m); err != nil {
		return nil, err
	}
	return convert.Resources(m.Resources)
}

func checkpointOp(kept resources.Resources) (store.Op, error) {
	text, err := proto.Marshal(&messages.CheckpointResourcesMessage{Resources: convert.CheckpointedTo(kept)})
	return store.Op{Key: checkpointKey, Value: text}, err
}

// checkpointed is what every registration echoes.
func (l *Link) checkpointed() resources.Resources {
	l.ledger.mu.Lock()
	defer l.ledger.mu.Unlock()
	return l.ledger.kept
}

// Total is what the agent has, with at least what is reserved on it: a genuine
// master ends itself over a total that does not contain that (master.cpp,
// Slave::Slave). Then what was reserved in better times counts as there.
func (l *Link) Total() resources.Resources {
	l.mu.Lock()
	total := l.cfg.Resources
	l.mu.Unlock()
	return atLeast(total, l.checkpointed().Stripped())
}

// atLeast is total, with no amount below what it must contain.
func atLeast(total, least resources.Resources) resources.Resources {
	for _, x := range least {
		if !total.Contains(resources.Resources{x}) {
			total = total.Sub(x).Add(x)
		}
	}
	return total
}

// checkpointResources takes the complete set from a master that keeps the
// books itself (master.cpp, _apply, for agents without RESOURCE_PROVIDER).
func (l *Link) checkpointResources(m *messages.CheckpointResourcesMessage) {
	kept, err := convert.Resources(m.Resources)
	if err != nil {
		l.log.Error("the reserved resources cannot be read; the former ones stay", "error", err)
		return
	}
	g := l.ledger
	g.mu.Lock()
	defer g.mu.Unlock()
	commit, err := checkpointOp(kept)
	if err == nil {
		err = l.cfg.Store.Commit(context.Background(), []store.Op{commit})
	}
	if err != nil {
		l.log.Error("the reserved resources could not be saved", "error", err)
		return
	}
	g.kept = kept
}

// applyOperation carries an operation out, saves it with its end, and only then
// tells the end. What the master has believed to be possible and is not makes us
// register again: that puts its books right.
func (l *Link) applyOperation(m *messages.ApplyOperationMessage) {
	g := l.ledger
	g.mu.Lock()
	defer g.mu.Unlock()
	if known := g.ops[string(m.OperationUuid.GetValue())]; known != nil {
		l.tellOperation(known)
		return
	}
	if len(m.OperationUuid.GetValue()) != 16 || len(g.ops) >= maxOperations {
		l.drop("operation", "an operation without a UUID, or too many whose end nobody acknowledges", "unacknowledged", len(g.ops))
		return
	}
	state, why, ops, then := l.decide(m)
	op := l.ended(m, state, why)
	text, err := proto.Marshal(op.Operation)
	if err == nil {
		err = l.cfg.Store.Commit(context.Background(), append(ops, store.Op{Key: operationKey(op.Uuid.GetValue()), Value: text}))
	}
	if err != nil {
		l.log.Error("an operation could not be saved, so it was not done", "error", err)
		l.post(eventReregister{"an operation could not be saved"})
		return
	}
	g.ops[string(op.Uuid.GetValue())] = op
	then()
	l.tellOperation(op)
	if state != mesosv1.OperationState_OPERATION_FINISHED {
		l.log.Warn("an operation was not done", "type", m.OperationInfo.GetType(), "state", state, "because", why)
		l.post(eventReregister{"the master's books differ from ours: " + why})
	}
}

// decide says how an operation ends, what must be saved for it, and what is then
// different.
func (l *Link) decide(m *messages.ApplyOperationMessage) (mesosv1.OperationState, string, []store.Op, func()) {
	none := func() {}
	if v := m.ResourceVersionUuid.GetUuid().GetValue(); !bytes.Equal(v, l.resourceVersion()) {
		return mesosv1.OperationState_OPERATION_DROPPED, "the operation was sent before the agent registered anew", nil, none
	}
	if m.ResourceVersionUuid.ResourceProviderId != nil {
		return mesosv1.OperationState_OPERATION_ERROR, "this agent has no resource providers", nil, none
	}
	op, err := convert.Operation(m.OperationInfo)
	if err != nil {
		return mesosv1.OperationState_OPERATION_ERROR, err.Error(), nil, none
	}
	kept, ops, volumes, err := l.change(op)
	if err != nil {
		return mesosv1.OperationState_OPERATION_ERROR, err.Error(), nil, none
	}
	return mesosv1.OperationState_OPERATION_FINISHED, "", ops, func() {
		l.ledger.kept = kept
		for _, v := range volumes {
			l.ledger.volumes[v.key()] = v
			select {
			case l.ledger.wake <- struct{}{}:
			default:
			}
		}
	}
}

// change is what an operation makes of the ledger. The caller holds its lock.
func (l *Link) change(op resources.Operation) (kept resources.Resources, ops []store.Op, volumes []destroyedVolume, err error) {
	g := l.ledger
	l.mu.Lock()
	total := l.cfg.Resources
	l.mu.Unlock()
	plain := g.kept.Stripped()
	after, err := atLeast(total, plain).Sub(plain...).Add(g.kept...).Apply(op)
	if err != nil {
		return nil, nil, nil, err
	}
	kept = after.Checkpointed()
	commit, err := checkpointOp(kept)
	if err != nil {
		return nil, nil, nil, err
	}
	ops = append(ops, commit)
	if op.Kind == resources.OpCreate {
		return kept, ops, nil, g.free(op.Target)
	}
	if op.Kind == resources.OpDestroy {
		volumes = l.destroyed(op.Target)
	}
	for _, v := range volumes {
		text, err := json.Marshal(v)
		if err != nil {
			return nil, nil, nil, err
		}
		ops = append(ops, store.Op{Key: v.key(), Value: text})
	}
	return kept, ops, volumes, nil
}

// free says whether volumes can be made: not while former ones of the same name,
// with their data, are still there.
func (g *ledger) free(volumes resources.Resources) error {
	for i := range volumes {
		v := destroyedVolume{volumes[i].ReservedTo(), volumes[i].Disk.PersistenceID}
		if _, leaving := g.volumes[v.key()]; leaving {
			return fmt.Errorf("the former volume %s of role %s is still being removed; create it again later", v.ID, v.Role)
		}
	}
	return nil
}

// destroyed are the volumes that the backend must remove.
func (l *Link) destroyed(target resources.Resources) []destroyedVolume {
	if l.cfg.RemoveVolume == nil {
		return nil
	}
	var out []destroyedVolume
	for i := range target {
		out = append(out, destroyedVolume{target[i].ReservedTo(), target[i].Disk.PersistenceID})
	}
	return out
}

// ended is the record of an operation with its end.
func (l *Link) ended(m *messages.ApplyOperationMessage, state mesosv1.OperationState, why string) *operation {
	id := uuid.New()
	status := &mesosv1.OperationStatus{
		OperationId: m.OperationInfo.GetId(), State: &state, Uuid: &mesosv1.UUID{Value: id[:]}, AgentId: &mesosv1.AgentID{Value: new(l.AgentID())},
	}
	if why != "" {
		status.Message = &why
	}
	return &operation{Operation: &mesosv1.Operation{
		FrameworkId: m.FrameworkId, AgentId: status.AgentId, Info: m.OperationInfo, LatestStatus: status,
		Statuses: []*mesosv1.OperationStatus{status}, Uuid: m.OperationUuid,
	}}
}

// tellOperation sends the end of an operation, and sets when it is sent again.
func (l *Link) tellOperation(op *operation) {
	pause := min(l.resendMin<<min(op.sends, 20), l.resendMax)
	op.sends++
	op.due = time.Now().Add(pause)
	if _, registered := l.Master(); !registered {
		return
	}
	l.send(&messages.UpdateOperationStatusMessage{
		FrameworkId: op.FrameworkId, SlaveId: &mesosv1.AgentID{Value: new(l.AgentID())},
		Status: op.LatestStatus, LatestStatus: op.LatestStatus, OperationUuid: op.Uuid,
	})
}

// resendOperations tells again what nobody has acknowledged.
func (l *Link) resendOperations(ctx context.Context) {
	for pause(ctx, min(l.resendMin/4, time.Second)) == nil {
		g := l.ledger
		g.mu.Lock()
		now := time.Now()
		for _, op := range g.sorted() {
			if !op.due.After(now) {
				l.tellOperation(op)
			}
		}
		g.mu.Unlock()
	}
}

func (g *ledger) sorted() []*operation {
	out := make([]*operation, 0, len(g.ops))
	for _, op := range g.ops {
		out = append(out, op)
	}
	slices.SortFunc(out, func(a, b *operation) int {
		return cmp.Or(a.due.Compare(b.due), bytes.Compare(a.Uuid.GetValue(), b.Uuid.GetValue()))
	})
	return out
}

func (l *Link) acknowledgeOperation(m *messages.AcknowledgeOperationStatusMessage) {
	g := l.ledger
	g.mu.Lock()
	defer g.mu.Unlock()
	op := g.ops[string(m.OperationUuid.GetValue())]
	if op == nil || !bytes.Equal(op.LatestStatus.Uuid.GetValue(), m.StatusUuid.GetValue()) {
		return
	}
	if err := l.cfg.Store.Commit(context.Background(), []store.Op{{Key: operationKey(op.Uuid.GetValue())}}); err != nil {
		l.log.Error("an acknowledged operation could not be forgotten; its end is told again", "error", err)
		return
	}
	delete(g.ops, string(op.Uuid.GetValue()))
}

// reconcileOperations answers for what it does not know: to a framework with
// OPERATION_UNKNOWN, to the master itself with OPERATION_DROPPED (slave.cpp,
// reconcileOperations). These answers wait for no acknowledgement.
func (l *Link) reconcileOperations(m *messages.ReconcileOperationsMessage) {
	g := l.ledger
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, asked := range m.Operations {
		known := g.find(asked, m.FrameworkId)
		if known != nil && m.FrameworkId == nil || m.FrameworkId == nil && asked.OperationUuid == nil {
			continue
		}
		status := &mesosv1.OperationStatus{OperationId: asked.OperationId, State: mesosv1.OperationState_OPERATION_DROPPED.Enum()}
		switch {
		case known != nil:
			status = proto.CloneOf(known.LatestStatus)
			status.Uuid = nil
		case m.FrameworkId != nil:
			status.State = mesosv1.OperationState_OPERATION_UNKNOWN.Enum()
		}
		status.AgentId = &mesosv1.AgentID{Value: new(l.AgentID())}
		l.send(&messages.UpdateOperationStatusMessage{
			FrameworkId: m.FrameworkId, SlaveId: status.AgentId, Status: status, LatestStatus: status, OperationUuid: asked.OperationUuid,
		})
	}
}

func (g *ledger) find(asked *messages.ReconcileOperationsMessage_Operation, framework *mesosv1.FrameworkID) *operation {
	if op := g.ops[string(asked.OperationUuid.GetValue())]; op != nil || asked.OperationUuid != nil {
		return op
	}
	for _, op := range g.ops {
		if id := op.LatestStatus.OperationId; id != nil && id.GetValue() == asked.OperationId.GetValue() && op.FrameworkId.GetValue() == framework.GetValue() {
			return op
		}
	}
	return nil
}

// Operations are those whose end nobody has acknowledged, for people to see.
func (l *Link) Operations() []*mesosv1.Operation {
	l.ledger.mu.Lock()
	defer l.ledger.mu.Unlock()
	var out []*mesosv1.Operation
	for _, op := range l.ledger.sorted() {
		out = append(out, op.Operation)
	}
	return out
}

// sayAll tells the master what an agent with RESOURCE_PROVIDER must after each
// registration: its operations, and that nothing of it is revocable.
func (l *Link) sayAll() {
	all := &messages.UpdateSlaveMessage_Operations{Operations: l.Operations()}
	l.send(&messages.UpdateSlaveMessage{
		SlaveId: &mesosv1.AgentID{Value: new(l.AgentID())}, UpdateOversubscribedResources: new(false), Operations: all,
		ResourceVersionUuid: &mesosv1.UUID{Value: l.resourceVersion()},
	})
	l.tellOperations()
}

func (l *Link) tellOperations() {
	l.ledger.mu.Lock()
	defer l.ledger.mu.Unlock()
	for _, op := range l.ledger.sorted() {
		op.sends = 0
		l.tellOperation(op)
	}
}

// removeVolumes has the backend remove the volumes that were destroyed, until
// it has.
func (l *Link) removeVolumes(ctx context.Context) {
	for wait := l.resendMin / 10; ; {
		if l.removeOnce(ctx) {
			wait = l.resendMin / 10
			select {
			case <-ctx.Done():
				return
			case <-l.ledger.wake:
			}
			continue
		}
		if pause(ctx, wait) != nil {
			return
		}
		wait = min(2*wait, l.resendMax)
	}
}

// removeOnce tries each; it says yes when none is left.
func (l *Link) removeOnce(ctx context.Context) bool {
	g := l.ledger
	g.mu.Lock()
	var list []destroyedVolume
	for _, v := range g.volumes {
		list = append(list, v)
	}
	g.mu.Unlock()
	all := true
	for _, v := range list {
		err := l.cfg.RemoveVolume(ctx, v.Role, v.ID)
		if err == nil {
			err = l.cfg.Store.Commit(ctx, []store.Op{{Key: v.key()}})
		}
		if err != nil {
			all = false
			l.log.Warn("a destroyed volume is still there; trying again", "volume", v.ID, "role", v.Role, "error", err)
			continue
		}
		g.mu.Lock()
		delete(g.volumes, v.key())
		g.mu.Unlock()
	}
	return all
}
