package link

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/agent"
	"github.com/mesopool/mesopool/mesos/convert"
	"github.com/mesopool/mesopool/mesos/messages"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/store"
	"github.com/mesopool/mesopool/task"
)

// diskOf is a disk of role db, reserved by an operation; with an ID a volume.
func diskOf(mib int64, id string) resources.Resource {
	x := resources.Resource{Name: "disk", Scalar: resources.Whole(mib), Role: "db"}
	x.Reservations = []resources.Reservation{{Dynamic: true, Role: "db", Principal: "ops"}}
	if id != "" {
		x.Disk = &resources.Disk{PersistenceID: id, ContainerPath: "data"}
	}
	return x
}

func wire(r ...resources.Resource) []*mesosv1.Resource { return convert.ResourcesTo(r, convert.Stack) }

func reserve(r ...resources.Resource) *mesosv1.Offer_Operation {
	return &mesosv1.Offer_Operation{
		Type: mesosv1.Offer_Operation_RESERVE.Enum(), Id: &mesosv1.OperationID{Value: new("my-op")}, Reserve: &mesosv1.Offer_Operation_Reserve{Resources: wire(r...)},
	}
}

func create(r ...resources.Resource) *mesosv1.Offer_Operation {
	return &mesosv1.Offer_Operation{Type: mesosv1.Offer_Operation_CREATE.Enum(), Create: &mesosv1.Offer_Operation_Create{Volumes: wire(r...)}}
}

func destroy(r ...resources.Resource) *mesosv1.Offer_Operation {
	return &mesosv1.Offer_Operation{Type: mesosv1.Offer_Operation_DESTROY.Enum(), Destroy: &mesosv1.Offer_Operation_Destroy{Volumes: wire(r...)}}
}

func id16(text string) *mesosv1.UUID {
	b := make([]byte, 16)
	copy(b, text)
	return &mesosv1.UUID{Value: b}
}

// apply orders an operation at the newest version of the resources.
func (e *env) apply(id string, op *mesosv1.Offer_Operation) {
	e.t.Helper()
	e.send(&messages.ApplyOperationMessage{
		FrameworkId: frameworkID, OperationInfo: op, OperationUuid: id16(id),
		ResourceVersionUuid: &messages.ResourceVersionUUID{Uuid: &mesosv1.UUID{Value: e.link.resourceVersion()}},
	})
}

// told returns the next status of the operation.
func (e *env) told(id string) *messages.UpdateOperationStatusMessage {
	e.t.Helper()
	for {
		m, _ := expect(e.master, &messages.UpdateOperationStatusMessage{})
		if string(m.OperationUuid.GetValue()) == string(id16(id).Value) {
			return m
		}
	}
}

func (e *env) finished(id string) *messages.UpdateOperationStatusMessage {
	e.t.Helper()
	m := e.told(id)
	if m.Status.GetState() != mesosv1.OperationState_OPERATION_FINISHED || m.GetSlaveId().GetValue() != agentID || len(m.Status.Uuid.GetValue()) != 16 {
		e.t.Fatalf("operation %s: %v", id, m)
	}
	return m
}

func (e *env) acknowledgeOperation(m *messages.UpdateOperationStatusMessage) {
	e.send(&messages.AcknowledgeOperationStatusMessage{StatusUuid: m.Status.Uuid, OperationUuid: m.OperationUuid})
}

// withDisk is a registered link that has a disk, and sends ends again soon.
func withDisk(t *testing.T, tune ...func(*Link)) *env {
	t.Helper()
	e := newEnv(t)
	e.tune = func(l *Link) {
		l.cfg.Resources = l.cfg.Resources.Add(resources.NewScalar("disk", resources.Whole(1000))...)
		l.resendMin = 40 * time.Millisecond
		for _, f := range tune {
			f(l)
		}
	}
	e.start()
	expect(e.master, &messages.RegisterSlaveMessage{})
	e.admit(75)
	return e
}

func Test10A_06_SaysAllAfterEachRegistration(t *testing.T) {
	e := newEnv(t)
	e.start()
	first, _ := expect(e.master, &messages.RegisterSlaveMessage{})
	has := map[mesosv1.AgentInfo_Capability_Type]bool{}
	for _, c := range first.AgentCapabilities {
		has[c.GetType()] = true
	}
	if len(has) != 8 || !has[mesosv1.AgentInfo_Capability_RESOURCE_PROVIDER] {
		t.Fatalf("capabilities %v", first.AgentCapabilities)
	}
	e.admit(75)
	m, _ := expect(e.master, &messages.UpdateSlaveMessage{})
	if m.UpdateOversubscribedResources == nil || m.GetUpdateOversubscribedResources() || m.Operations == nil || len(m.GetResourceProviders().GetProviders()) != 0 ||
		string(m.ResourceVersionUuid.GetValue()) != string(first.ResourceVersionUuid.GetValue()) || m.GetSlaveId().GetValue() != agentID {
		t.Errorf("after the registration: %v", m)
	}
	e.sendAs("slave-observer(1)", &messages.PingSlaveMessage{Connected: new(false)})
	again, _ := expect(e.master, &messages.ReregisterSlaveMessage{})
	e.send(&messages.SlaveReregisteredMessage{SlaveId: again.Slave.Id})
	m, _ = expect(e.master, &messages.UpdateSlaveMessage{})
	if string(m.ResourceVersionUuid.GetValue()) != string(again.ResourceVersionUuid.GetValue()) {
		t.Error("another version than in the re-registration")
	}
}

// What is reserved is on disk before it is told, comes back with every
// registration, and is never above the total.
func Test10A_09_KeepsWhatIsReserved(t *testing.T) {
	e := withDisk(t)
	e.apply("r", reserve(diskOf(600, "")))
	e.finished("r")
	if text, err := e.store.Get(context.Background(), checkpointKey); err != nil || len(text.Value) == 0 {
		t.Fatalf("told before it was saved: %v", err)
	}
	e.stop()
	e.tune = nil // the new total has no disk at all
	e.start()
	m, _ := expect(e.master, &messages.ReregisterSlaveMessage{})
	kept, err := convert.Resources(m.CheckpointedResources)
	if err != nil || kept.Amount("disk") != resources.Whole(600) || kept[0].ReservedTo() != "db" {
		t.Errorf("kept %v, %v", kept, err)
	}
	total, err := convert.Resources(m.Slave.Resources)
	if err != nil || !total.Contains(kept.Stripped()) {
		t.Errorf("the total %v does not contain %v", total, kept)
	}
}

func TestOperationsOfALife(t *testing.T) {
	e := withDisk(t)
	e.apply("r", reserve(diskOf(600, "")))
	r := e.finished("r")
	if r.Status.GetOperationId().GetValue() != "my-op" || r.FrameworkId.GetValue() != "f1" || r.LatestStatus == nil {
		t.Errorf("end: %v", r)
	}
	e.apply("c", create(diskOf(500, "v")))
	e.apply("g", &mesosv1.Offer_Operation{Type: mesosv1.Offer_Operation_GROW_VOLUME.Enum(), GrowVolume: &mesosv1.Offer_Operation_GrowVolume{
		Volume: wire(diskOf(500, "v"))[0], Addition: wire(diskOf(100, ""))[0],
	}})
	e.apply("s", &mesosv1.Offer_Operation{Type: mesosv1.Offer_Operation_SHRINK_VOLUME.Enum(), ShrinkVolume: &mesosv1.Offer_Operation_ShrinkVolume{
		Volume: wire(diskOf(600, "v"))[0], Subtract: &mesosv1.Value_Scalar{Value: new(200.0)},
	}})
	for _, id := range []string{"c", "g", "s"} {
		e.finished(id)
	}
	want := resources.Resources{diskOf(200, ""), diskOf(400, "v")}.Allocated("")
	if got := e.link.checkpointed(); !got.Equal(want) {
		t.Errorf("kept %s, want %s", got, want)
	}
	e.apply("d", destroy(diskOf(400, "v")))
	e.finished("d")
	e.apply("u", &mesosv1.Offer_Operation{Type: mesosv1.Offer_Operation_UNRESERVE.Enum(), Unreserve: &mesosv1.Offer_Operation_Unreserve{Resources: wire(diskOf(600, ""))}})
	e.finished("u")
	if got := e.link.checkpointed(); len(got) != 0 {
		t.Errorf("kept %s", got)
	}
	again := e.finished("r") // until it is acknowledged, by its own UUID
	stale := proto.CloneOf(again)
	stale.Status.Uuid = id16("another")
	e.acknowledgeOperation(stale)
	if len(e.link.Operations()) != 6 {
		t.Errorf("%d operations", len(e.link.Operations()))
	}
	e.acknowledgeOperation(again)
	e.noInput()
	for _, op := range e.link.Operations() {
		if string(op.Uuid.GetValue()) == string(id16("r").Value) {
			t.Error("an acknowledged operation is still there")
		}
	}
	e.stop()
	e.start()
	expect(e.master, &messages.ReregisterSlaveMessage{})
	e.send(&messages.SlaveReregisteredMessage{SlaveId: &mesosv1.AgentID{Value: new(agentID)}})
	m, _ := expect(e.master, &messages.UpdateSlaveMessage{})
	if len(m.Operations.Operations) != 5 {
		t.Errorf("after a restart there are %d operations", len(m.Operations.Operations))
	}
	e.finished("d")
}

// What cannot be done ends so, and the books are put right by registering again.
func TestOperationsThatAreNotDone(t *testing.T) {
	for name, x := range map[string]struct {
		op      *mesosv1.Offer_Operation
		version string
		state   mesosv1.OperationState
		why     string
	}{
		"too much":      {reserve(diskOf(2000, "")), "", mesosv1.OperationState_OPERATION_ERROR, "RESERVE needs"},
		"no such":       {destroy(diskOf(5, "v")), "", mesosv1.OperationState_OPERATION_ERROR, "DESTROY needs"},
		"a launch":      {&mesosv1.Offer_Operation{Type: mesosv1.Offer_Operation_LAUNCH.Enum()}, "", mesosv1.OperationState_OPERATION_ERROR, "type LAUNCH"},
		"a disk":        {&mesosv1.Offer_Operation{Type: mesosv1.Offer_Operation_CREATE_DISK.Enum()}, "", mesosv1.OperationState_OPERATION_ERROR, "type CREATE_DISK"},
		"of before":     {reserve(diskOf(1, "")), "an older version", mesosv1.OperationState_OPERATION_DROPPED, "before the agent registered anew"},
		"empty":         {reserve(), "", mesosv1.OperationState_OPERATION_ERROR, "names no resources"},
		"no amount":     {reserve(resources.Resource{Name: "disk", Scalar: 1}), "", mesosv1.OperationState_OPERATION_ERROR, "no dynamic reservation"},
		"without a set": {&mesosv1.Offer_Operation{Type: mesosv1.Offer_Operation_GROW_VOLUME.Enum()}, "", mesosv1.OperationState_OPERATION_ERROR, "it is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			e := withDisk(t)
			version := e.link.resourceVersion()
			if x.version != "" {
				version = []byte(x.version)
			}
			e.send(&messages.ApplyOperationMessage{
				OperationInfo: x.op, OperationUuid: id16("o"), ResourceVersionUuid: &messages.ResourceVersionUUID{Uuid: &mesosv1.UUID{Value: version}},
			})
			if m := e.told("o"); m.Status.GetState() != x.state || !strings.Contains(m.Status.GetMessage(), x.why) || m.FrameworkId != nil {
				t.Errorf("end: %v", m)
			}
			if got := e.link.checkpointed(); len(got) != 0 {
				t.Errorf("kept %s", got)
			}
			e.readmit()
		})
	}
}

// An operation that cannot be saved is not done and not told.
func TestOperationsAreSavedFirst(t *testing.T) {
	e := withDisk(t)
	broken := &brokenStore{Store: e.store}
	e.link.cfg.Store = broken
	broken.set(errors.New("the disk is full"))
	e.apply("r", reserve(diskOf(1, "")))
	expect(e.master, &messages.ReregisterSlaveMessage{})
	broken.set(nil)
	if len(e.link.checkpointed()) != 0 || len(e.link.Operations()) != 0 {
		t.Error("it was done all the same")
	}
	e.readmit()
}

type brokenStore struct {
	store.Store
	mu  sync.Mutex
	err error
}

func (b *brokenStore) set(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
}

func (b *brokenStore) Commit(ctx context.Context, ops []store.Op) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return b.err
	}
	return b.Store.Commit(ctx, ops)
}

func TestReconcilesOperations(t *testing.T) {
	e := withDisk(t)
	e.apply("r", reserve(diskOf(1, "")))
	end := e.finished("r")
	e.acknowledgeOperation(end)
	e.apply("s", reserve(diskOf(2, "")))
	e.finished("s")
	e.send(&messages.ReconcileOperationsMessage{Operations: []*messages.ReconcileOperationsMessage_Operation{
		{OperationUuid: id16("s")}, {OperationUuid: id16("lost")}, {},
	}})
	for {
		if m := e.told("lost"); m.Status.GetState() == mesosv1.OperationState_OPERATION_DROPPED && m.Status.Uuid == nil && m.SlaveId != nil {
			break
		}
	}
	e.send(&messages.ReconcileOperationsMessage{FrameworkId: frameworkID, Operations: []*messages.ReconcileOperationsMessage_Operation{
		{OperationId: &mesosv1.OperationID{Value: new("nobody's")}}, {OperationId: &mesosv1.OperationID{Value: new("my-op")}},
	}})
	want := map[string]mesosv1.OperationState{"nobody's": mesosv1.OperationState_OPERATION_UNKNOWN, "my-op": mesosv1.OperationState_OPERATION_FINISHED}
	for len(want) > 0 {
		m, _ := expect(e.master, &messages.UpdateOperationStatusMessage{})
		id := m.Status.GetOperationId().GetValue()
		if m.OperationUuid != nil { // sent again
			continue
		}
		if state, ok := want[id]; !ok || m.Status.GetState() != state || m.Status.Uuid != nil || m.FrameworkId == nil {
			t.Errorf("answer: %v", m)
		}
		delete(want, id)
	}
}

// A destroyed volume is removed by the backend, after all if it does not succeed
// at once, and after a restart; until then none of its name can be made.
func TestDestroyedVolumesAreRemoved(t *testing.T) {
	removed, fail := make(chan string, 100), make(chan bool, 1)
	fail <- true
	remover := func(_ context.Context, role, id string) error {
		select {
		case broken := <-fail:
			fail <- broken
			if broken {
				return errors.New("the engine is away")
			}
		default:
		}
		removed <- role + "/" + id
		return nil
	}
	e := withDisk(t, func(l *Link) { l.cfg.RemoveVolume = remover })
	e.apply("r", reserve(diskOf(600, "")))
	e.apply("c", create(diskOf(500, "v")))
	e.apply("d", destroy(diskOf(500, "v")))
	e.finished("d")
	e.apply("c2", create(diskOf(500, "v")))
	if m := e.told("c2"); !strings.Contains(m.Status.GetMessage(), "still being removed") {
		t.Errorf("made over the former one: %v", m)
	}
	e.readmit()
	e.stop()
	e.start()
	<-fail
	fail <- false
	select {
	case got := <-removed:
		if got != "db/v" {
			t.Errorf("removed %s", got)
		}
	case <-time.After(limit):
		t.Fatal("not removed")
	}
	e.readmit()
	for i := 0; ; i++ { // its record goes right after
		op := string(rune('A' + i))
		e.apply(op, create(diskOf(500, "v")))
		if m := e.told(op); m.Status.GetState() == mesosv1.OperationState_OPERATION_FINISHED {
			break
		}
		e.readmit()
	}
	if list, err := e.store.List(context.Background(), volumePrefix); err != nil || len(list) != 0 {
		t.Errorf("records of volumes: %v, %v", list, err)
	}
}

// A task that wants what this agent has not reserved does not run.
func TestTasksOnReservedResources(t *testing.T) {
	e := withDisk(t)
	wants := func(m *messages.RunTaskMessage) {
		m.Task.Resources = append(m.Task.Resources, wire(diskOf(100, ""))...)
	}
	e.send(runTask("t", wants))
	if got := input[agent.Refuse](e); got.State != task.Dropped || got.Reason != reasonResourcesUnknown || !strings.Contains(got.Message, "disk(db):100") {
		t.Errorf("refusal: %+v", got)
	}
	e.apply("r", reserve(diskOf(600, "")))
	e.finished("r")
	e.send(runTask("u", wants))
	if got := input[agent.Launch](e); got.Spec.Key.ID != "u" {
		t.Errorf("launch: %+v", got.Spec.Key)
	}
}

// A total that changes is told by registering again; nothing is said to tasks,
// and what is reserved stays in it.
func TestTotalChangesWhileRunning(t *testing.T) {
	e := withDisk(t)
	e.apply("r", reserve(diskOf(600, "")))
	e.finished("r")
	smaller, err := resources.Parse("cpus:1;mem:100;disk:10")
	if err != nil {
		t.Fatal(err)
	}
	e.link.SetTotal(smaller)
	input[agent.Parted](e)
	m, _ := expect(e.master, &messages.ReregisterSlaveMessage{})
	total, err := convert.Resources(m.Slave.Resources)
	if err != nil || total.Amount("cpus") != 1000 || total.Amount("disk") != resources.Whole(600) {
		t.Errorf("total %v, %v", total, err)
	}
	e.send(&messages.SlaveReregisteredMessage{SlaveId: m.Slave.Id})
	input[agent.Joined](e)
	e.link.SetTotal(smaller)
	e.noInput()
}
