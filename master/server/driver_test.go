package server

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/mesopool/mesopool/internal/uuid"
	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/master/authz"
	"github.com/mesopool/mesopool/mesos/crammd5"
	"github.com/mesopool/mesopool/mesos/credentials"
	"github.com/mesopool/mesopool/mesos/libprocess"
	"github.com/mesopool/mesopool/mesos/messages"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	schedulerv1 "github.com/mesopool/mesopool/mesos/v1/scheduler"
)

// driver is what libmesos' MesosSchedulerDriver is on the wire: an actor with a
// name of its own at an address that the master connects back to.
type driver struct {
	*running
	t      *testing.T
	node   *libprocess.Node
	self   libprocess.UPID
	to     libprocess.UPID
	got    chan proto.Message
	id     string
	offers []*mesosv1.Offer  // not used yet
	pids   map[string]string // of agents, by offer
}

func startDriver(t *testing.T, m *testMaster) *driver {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &driver{t: t, to: m.UPID(), got: make(chan proto.Message, 10_000), pids: map[string]string{}}
	d.node = libprocess.NewNode(libprocess.Config{Listener: l})
	d.self = d.node.UPID("scheduler-" + uuid.New().String())
	d.node.Handle(d.self.ID, d.receive)
	d.running = start(t, d.node.Run)
	return d
}

// receive takes what the master sends; a driver drops what others do.
func (d *driver) receive(in libprocess.Message) {
	kind, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(in.Name))
	if err != nil || in.From != d.to {
		d.t.Errorf("%s from %s: %v", in.Name, in.From, err)
		return
	}
	m := kind.New().Interface()
	if err := proto.Unmarshal(in.Body, m); err != nil {
		d.t.Errorf("%s: %v", in.Name, err)
	}
	d.got <- m
}

func (d *driver) send(m proto.Message) {
	d.t.Helper()
	if err := d.node.SendProto(d.self.ID, d.to, m); err != nil {
		d.t.Fatal(err)
	}
}

func (d *driver) call(c *messages.Call) {
	d.t.Helper()
	if d.id != "" {
		c.FrameworkId = &mesosv1.FrameworkID{Value: &d.id}
	}
	d.send(c)
}

// told waits for a message of a type. Others pass by, but errors.
func told[M proto.Message](d *driver) M {
	d.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case m := <-d.got:
			if o, ok := m.(*messages.ResourceOffersMessage); ok {
				d.keep(o)
			}
			if want, ok := m.(M); ok {
				return want
			}
			if e, ok := m.(*messages.FrameworkErrorMessage); ok {
				d.t.Fatalf("error: %s", e.GetMessage())
			}
		case <-timeout:
			var none M
			d.t.Fatalf("no %T came", none)
		}
	}
}

// keep notes offers, whose agents' addresses are parallel to them.
func (d *driver) keep(o *messages.ResourceOffersMessage) {
	d.t.Helper()
	if len(o.Offers) != len(o.Pids) {
		d.t.Fatalf("%d offers with %d addresses", len(o.Offers), len(o.Pids))
	}
	for i := range o.Offers {
		d.offers = append(d.offers, o.Offers[i])
		d.pids[o.Offers[i].Id.GetValue()] = o.Pids[i]
	}
}

func (d *driver) refused(want string) {
	d.t.Helper()
	if got := told[*messages.FrameworkErrorMessage](d).GetMessage(); got != want {
		d.t.Errorf("refused with %q, want %q", got, want)
	}
}

// oldFramework has what drivers send without being told otherwise: one role and
// no capabilities.
func oldFramework(id string) *mesosv1.FrameworkInfo {
	f := &mesosv1.FrameworkInfo{User: new("root"), Name: new("old"), FailoverTimeout: new(3600.0), Checkpoint: new(true)}
	if id != "" {
		f.Id = &mesosv1.FrameworkID{Value: &id}
	}
	return f
}

func subscribeCall(f *mesosv1.FrameworkInfo, force bool) *messages.Call {
	c := &messages.Call{Type: schedulerv1.Call_SUBSCRIBE.Enum(), FrameworkId: f.Id, Subscribe: &messages.Call_Subscribe{FrameworkInfo: f}}
	if f.Id != nil {
		c.Subscribe.Force = &force
	}
	return c
}

// register subscribes a framework that is new.
func (d *driver) register() string {
	d.t.Helper()
	d.send(subscribeCall(oldFramework(""), false))
	d.id = told[*messages.FrameworkRegisteredMessage](d).FrameworkId.GetValue()
	return d.id
}

// offer waits for an offer that has not been used.
func (d *driver) offer() *mesosv1.Offer {
	d.t.Helper()
	for len(d.offers) == 0 {
		told[*messages.ResourceOffersMessage](d)
	}
	o := d.offers[0]
	d.offers = d.offers[1:]
	return o
}

func taskOn(o *mesosv1.Offer, id string) *mesosv1.TaskInfo {
	return &mesosv1.TaskInfo{
		Name: &id, TaskId: &mesosv1.TaskID{Value: &id}, AgentId: o.AgentId, Resources: []*mesosv1.Resource{scalar("cpus", 0.1), scalar("mem", 32)},
		Command: &mesosv1.CommandInfo{Value: new("sleep infinity")},
		Container: &mesosv1.ContainerInfo{
			Type: mesosv1.ContainerInfo_DOCKER.Enum(), Docker: &mesosv1.ContainerInfo_DockerInfo{Image: new("web:1")},
		},
	}
}

func (d *driver) launch(id string) *mesosv1.Offer {
	d.t.Helper()
	o := d.offer()
	d.call(&messages.Call{Type: schedulerv1.Call_ACCEPT.Enum(), Accept: &schedulerv1.Call_Accept{
		Filters: &mesosv1.Filters{RefuseSeconds: new(0.0)}, OfferIds: []*mesosv1.OfferID{o.Id}, Operations: []*mesosv1.Offer_Operation{{
			Type: mesosv1.Offer_Operation_LAUNCH.Enum(), Launch: &mesosv1.Offer_Operation_Launch{TaskInfos: []*mesosv1.TaskInfo{taskOn(o, id)}},
		}},
	}})
	return o
}

// state waits for a state of a task. As a driver does it acknowledges what has
// an address and a uuid.
func (d *driver) state(id string, want mesosv1.TaskState) *messages.StatusUpdateMessage {
	d.t.Helper()
	for {
		m := told[*messages.StatusUpdateMessage](d)
		up := m.Update
		if m.GetPid() != "" && len(up.Uuid) > 0 {
			d.call(&messages.Call{Type: schedulerv1.Call_ACKNOWLEDGE.Enum(), Acknowledge: &schedulerv1.Call_Acknowledge{
				AgentId: up.SlaveId, TaskId: up.Status.TaskId, Uuid: up.Uuid,
			}})
		}
		if up.Status.TaskId.GetValue() == id && up.Status.GetState() == want {
			return m
		}
	}
}

func (d *driver) kill(id string) {
	d.t.Helper()
	d.call(&messages.Call{Type: schedulerv1.Call_KILL.Enum(), Kill: &schedulerv1.Call_Kill{TaskId: &mesosv1.TaskID{Value: &id}}})
}

// connected waits until the framework is connected, or not.
func (d *driver) connected(m *testMaster, want bool) *master.FrameworkView {
	d.t.Helper()
	var out master.FrameworkView
	m.until(d.t, fmt.Sprintf("the framework with connected=%v", want), func(snap *master.Snapshot) bool {
		i := slices.IndexFunc(snap.Frameworks, func(f master.FrameworkView) bool { return f.ID == d.id && f.Connected == want })
		if i >= 0 {
			out = snap.Frameworks[i]
		}
		return i >= 0
	})
	return &out
}

// Test10C_09_Driver: calls come in as messages, events go out as messages; offers
// come with the addresses of their agents, updates of agents with that and a
// uuid, updates of the master with neither; the link is what keeps a framework
// connected.
func Test10C_09_Driver(t *testing.T) {
	m := startMaster(t, "", nil)
	a := startAgent(t, m, "cpus:4;mem:1024")
	d := startDriver(t, m)
	d.send(subscribeCall(oldFramework(""), false))
	reg := told[*messages.FrameworkRegisteredMessage](d)
	d.id = reg.FrameworkId.GetValue()
	if d.id != m.ID()+"-0000" || reg.MasterInfo.GetPid() != m.UPID().String() {
		t.Errorf("registered: %v", reg)
	}
	o := d.launch("t1")
	if o.AllocationInfo != nil || o.GetHostname() != "dc.example" {
		t.Errorf("offer: %v", o)
	}
	up := d.state("t1", mesosv1.TaskState_TASK_RUNNING)
	if up.Update.FrameworkId.GetValue() != d.id || string(up.Update.Uuid) != string(up.Update.Status.Uuid) || len(up.Update.Uuid) != 16 ||
		!strings.HasPrefix(up.GetPid(), "slave(1)@") || up.Update.SlaveId.GetValue() != o.AgentId.GetValue() {
		t.Errorf("update: %v", up)
	}
	a.untilContainers(t, 1)
	if f := d.connected(m, true); f.PID != d.self.String() {
		t.Errorf("the master has the driver %s, want %s", f.PID, d.self)
	}

	none := &messages.Call{Type: schedulerv1.Call_RECONCILE.Enum(), Reconcile: &schedulerv1.Call_Reconcile{}}
	d.call(none)
	if up := d.state("t1", mesosv1.TaskState_TASK_RUNNING); up.GetPid() != "" || len(up.Update.Uuid) > 0 || len(up.Update.Status.Uuid) > 0 {
		t.Errorf("update of the master: %v", up)
	}
	d.kill("t1")
	d.state("t1", mesosv1.TaskState_TASK_KILLED)
	a.untilContainers(t, 0)
	m.until(t, "the end acknowledged", func(snap *master.Snapshot) bool { return len(snap.Frameworks[0].Done) == 1 })
	d.call(&messages.Call{Type: schedulerv1.Call_TEARDOWN.Enum()})
	m.until(t, "the framework's end", func(snap *master.Snapshot) bool { return len(snap.Completed) == 1 })
}

func TestDriverOffersHavePIDs(t *testing.T) {
	m := startMaster(t, "", nil)
	a := startWireAgent(t, m)
	a.send(t, registration())
	receive[*messages.SlaveRegisteredMessage](t, a)
	d := startDriver(t, m)
	d.register()
	if o := d.offer(); d.pids[o.Id.GetValue()] != a.node.UPID("slave(1)").String() {
		t.Errorf("offer %v of an agent at %v", o.Id, d.pids)
	}
}

// What a driver repeats because it has heard nothing gives it no second
// framework, and takes nothing from the one it has.
func TestDriverRepeatsItself(t *testing.T) {
	m := startMaster(t, "", nil)
	startAgent(t, m, "cpus:4;mem:1024")
	d := startDriver(t, m)
	id := d.register()
	o := d.offer()
	if again := d.register(); again != id {
		t.Fatalf("it is %s, and %s when it asks again", id, again)
	}
	d.offers = append(d.offers, o)
	d.launch("t1")
	d.state("t1", mesosv1.TaskState_TASK_RUNNING)

	o = d.offer()
	d.send(subscribeCall(oldFramework(id), false))
	if got := told[*messages.RescindResourceOfferMessage](d).OfferId.GetValue(); got != o.Id.GetValue() {
		t.Errorf("offer %s is taken back, want %s", got, o.Id.GetValue())
	}
	if got := told[*messages.FrameworkReregisteredMessage](d).FrameworkId.GetValue(); got != id {
		t.Errorf("re-registered as %s, want %s", got, id)
	}
	d.kill("t1")
	d.state("t1", mesosv1.TaskState_TASK_KILLED)
	if snap := m.until(t, "one framework", func(snap *master.Snapshot) bool { return len(snap.Frameworks) == 1 }); !snap.Frameworks[0].Connected {
		t.Error("it is disconnected")
	}
}

// An address is a driver's as long as the link holds: what starts there anew, and
// brings no ID, is a new framework.
func TestDriverStartsAnew(t *testing.T) {
	m := startMaster(t, "", nil)
	d := startDriver(t, m)
	first := d.register()
	m.exited(d.self)
	d.refused("Framework disconnected")
	if second := d.register(); second == first {
		t.Errorf("it is %s again", first)
	}
	d.send(subscribeCall(oldFramework(first), true)) // while it is the second: not heard
	d.call(&messages.Call{Type: schedulerv1.Call_TEARDOWN.Enum()})
	m.until(t, "the second's end", func(snap *master.Snapshot) bool { return len(snap.Completed) == 1 })
	d.id = first
	d.send(subscribeCall(oldFramework(first), true))
	if again := told[*messages.FrameworkRegisteredMessage](d).FrameworkId.GetValue(); again != first {
		t.Errorf("registered as %s, want %s", again, first)
	}
}

func TestDriverFailover(t *testing.T) {
	m := startMaster(t, "", nil)
	a := startAgent(t, m, "cpus:4;mem:1024")
	first, second, third := startDriver(t, m), startDriver(t, m), startDriver(t, m)
	id := first.register()
	first.launch("t1")
	first.state("t1", mesosv1.TaskState_TASK_RUNNING)

	third.send(subscribeCall(oldFramework(id), false))
	third.refused("Framework failed over")
	second.send(subscribeCall(oldFramework(id), true))
	second.id = told[*messages.FrameworkRegisteredMessage](second).FrameworkId.GetValue()
	if second.id != id {
		t.Errorf("registered as %s, want %s", second.id, id)
	}
	first.refused("Framework failed over")
	first.kill("t1") // it is not the framework any more
	second.call(&messages.Call{Type: schedulerv1.Call_RECONCILE.Enum(), Reconcile: &schedulerv1.Call_Reconcile{Tasks: []*schedulerv1.Call_Reconcile_Task{{TaskId: &mesosv1.TaskID{Value: new("t1")}}}}})
	second.state("t1", mesosv1.TaskState_TASK_RUNNING)
	first.stop() // nor does its end matter
	second.launch("t2")
	second.state("t2", mesosv1.TaskState_TASK_RUNNING)
	a.untilContainers(t, 2)
	if f := second.connected(m, true); f.PID != second.self.String() {
		t.Errorf("its driver is %s, want %s", f.PID, second.self)
	}
}

// A framework goes on over the other API with the ID that it has.
func TestDriverAndHTTP(t *testing.T) {
	m := startMaster(t, "", nil)
	d := startDriver(t, m)
	id := d.register()
	s := subscribe(t, m, jsonSubscribe("old", id))
	s.next(t, "SUBSCRIBED")
	d.refused("Framework failed over")
	d.send(subscribeCall(oldFramework(id), false))
	d.refused("Framework failed over")
	d.send(subscribeCall(oldFramework(id), true))
	told[*messages.FrameworkRegisteredMessage](d)
	s.next(t, "ERROR")
	s.end(t)
}

// A broken link is a disconnection; the framework's tasks live until its time
// is over.
func TestDriverLinkBreaks(t *testing.T) {
	m := startMaster(t, "", nil)
	a := startAgent(t, m, "cpus:4;mem:1024")
	d := startDriver(t, m)
	id := d.register()
	d.launch("t1")
	d.state("t1", mesosv1.TaskState_TASK_RUNNING)
	d.offer()
	d.stop()
	if f := d.connected(m, false); len(f.Offers) > 0 || f.Active {
		t.Errorf("disconnected, with %d offers", len(f.Offers))
	}
	a.untilContainers(t, 1)

	next := startDriver(t, m)
	brief := oldFramework(id)
	brief.FailoverTimeout = new(0.05)
	next.send(subscribeCall(brief, true))
	next.id = told[*messages.FrameworkRegisteredMessage](next).FrameworkId.GetValue()
	next.connected(m, true)
	next.stop()
	m.until(t, "the framework's end", func(snap *master.Snapshot) bool { return len(snap.Completed) == 1 })
	a.untilContainers(t, 0)
}

// A driver that is alive does not notice that only the master's link to it has
// broken: it is told.
func TestDriverIsToldOfItsBrokenLink(t *testing.T) {
	m := startMaster(t, "", nil)
	d := startDriver(t, m)
	d.register()
	m.exited(d.self)
	d.refused("Framework disconnected")
	d.connected(m, false)
	d.call(&messages.Call{Type: schedulerv1.Call_REVIVE.Enum()})
	d.refused("Framework disconnected")
}

func TestDriverAborts(t *testing.T) {
	m := startMaster(t, "", nil)
	startAgent(t, m, "cpus:4;mem:1024")
	d := startDriver(t, m)
	id := d.register()
	o := d.offer()
	d.send(&messages.DeactivateFrameworkMessage{FrameworkId: &mesosv1.FrameworkID{Value: &id}})
	if got := told[*messages.RescindResourceOfferMessage](d).OfferId.GetValue(); got != o.Id.GetValue() {
		t.Errorf("offer %s is taken back, want %s", got, o.Id.GetValue())
	}
	if f := d.connected(m, true); f.Active || len(f.Offers) > 0 {
		t.Errorf("it is active=%v, with %d offers", f.Active, len(f.Offers))
	}
	d.send(subscribeCall(oldFramework(id), true))
	told[*messages.FrameworkRegisteredMessage](d)
	d.offers = nil
	d.offer()
}

func TestDriverIsRefused(t *testing.T) {
	m := startMaster(t, "", nil)
	for _, x := range []struct {
		change func(*mesosv1.FrameworkInfo)
		want   string
	}{
		{func(f *mesosv1.FrameworkInfo) { f.Role = new("/a") }, "Role '/a' cannot start with a slash"},
		{func(f *mesosv1.FrameworkInfo) { f.Roles = []string{"a"} }, "'FrameworkInfo.roles' must not be set when the framework is not MULTI_ROLE capable"},
		{func(f *mesosv1.FrameworkInfo) { f.FailoverTimeout = new(-1.0) }, "The framework failover_timeout (-1) is invalid: Invalid negative duration"},
	} {
		d := startDriver(t, m)
		f := oldFramework("")
		x.change(f)
		d.send(subscribeCall(f, false))
		d.refused(x.want)
	}
	d := startDriver(t, m)
	id := d.register()
	other := oldFramework(id)
	other.Principal = new("somebody")
	d.send(subscribeCall(other, true))
	d.refused("Changing framework's principal is not allowed.")
	other = oldFramework(id)
	other.User = new("other")
	d.call(&messages.Call{Type: schedulerv1.Call_UPDATE_FRAMEWORK.Enum(), UpdateFramework: &schedulerv1.Call_UpdateFramework{FrameworkInfo: other}})
	if got := told[*messages.FrameworkErrorMessage](d).GetMessage(); !strings.Contains(got, "'FrameworkInfo.user'") {
		t.Errorf("refused with %q", got)
	}
	other = oldFramework(id)
	other.WebuiUrl = new("http://here")
	d.call(&messages.Call{Type: schedulerv1.Call_UPDATE_FRAMEWORK.Enum(), UpdateFramework: &schedulerv1.Call_UpdateFramework{FrameworkInfo: other}})
	m.until(t, "the update", func(snap *master.Snapshot) bool {
		return slices.ContainsFunc(snap.Frameworks, func(f master.FrameworkView) bool { return f.WebUI == "http://here" })
	})
}

// No driver hears of the end of an operation, so none may ask for it.
func TestDriverOperationID(t *testing.T) {
	m := startMaster(t, "", nil)
	startAgent(t, m, "cpus:4;mem:1024")
	d := startDriver(t, m)
	d.register()
	o := d.offer()
	d.call(&messages.Call{Type: schedulerv1.Call_ACCEPT.Enum(), Accept: &schedulerv1.Call_Accept{
		OfferIds: []*mesosv1.OfferID{o.Id}, Operations: []*mesosv1.Offer_Operation{{
			Type: mesosv1.Offer_Operation_RESERVE.Enum(), Id: &mesosv1.OperationID{Value: new("op")}, Reserve: &mesosv1.Offer_Operation_Reserve{},
		}},
	}})
	d.refused(noFeedback)
}

// Executors' messages and ends, and lost agents.
func TestDriverExecutors(t *testing.T) {
	m := startMaster(t, "", func(c *Config) {
		c.Core = master.DefaultConfig()
		c.Core.PingInterval, c.Core.PingLimit = 50*time.Millisecond, 1
	})
	a := startWireAgent(t, m)
	a.send(t, registration())
	agent := receive[*messages.SlaveRegisteredMessage](t, a).SlaveId
	d := startDriver(t, m)
	framework := &mesosv1.FrameworkID{Value: new(d.register())}
	executor := &mesosv1.ExecutorID{Value: new("e1")}
	o := d.offer()
	task := taskOn(o, "t1")
	task.Command, task.Container = nil, nil
	task.Executor = &mesosv1.ExecutorInfo{ExecutorId: executor, FrameworkId: framework, Command: &mesosv1.CommandInfo{Value: new("run")}}
	d.call(&messages.Call{Type: schedulerv1.Call_ACCEPT.Enum(), Accept: &schedulerv1.Call_Accept{
		OfferIds: []*mesosv1.OfferID{o.Id}, Operations: []*mesosv1.Offer_Operation{{
			Type: mesosv1.Offer_Operation_LAUNCH.Enum(), Launch: &mesosv1.Offer_Operation_Launch{TaskInfos: []*mesosv1.TaskInfo{task}},
		}},
	}})
	if run := receive[*messages.RunTaskMessage](t, a); run.Task.Executor.ExecutorId.GetValue() != "e1" {
		t.Errorf("launched: %v", run)
	}
	d.call(&messages.Call{Type: schedulerv1.Call_MESSAGE.Enum(), Message: &schedulerv1.Call_Message{AgentId: agent, ExecutorId: executor, Data: []byte("to")}})
	if got := receive[*messages.FrameworkToExecutorMessage](t, a); string(got.Data) != "to" {
		t.Errorf("to the executor: %v", got)
	}
	a.send(t, &messages.ExecutorToFrameworkMessage{SlaveId: agent, FrameworkId: framework, ExecutorId: executor, Data: []byte("from")})
	if got := told[*messages.ExecutorToFrameworkMessage](d); string(got.Data) != "from" || got.FrameworkId.GetValue() != d.id {
		t.Errorf("from the executor: %v", got)
	}
	a.send(t, &messages.ExitedExecutorMessage{SlaveId: agent, FrameworkId: framework, ExecutorId: executor, Status: new(int32(9))})
	if got := told[*messages.ExitedExecutorMessage](d); got.GetStatus() != 9 || got.ExecutorId.GetValue() != "e1" || got.FrameworkId.GetValue() != d.id {
		t.Errorf("the executor's end: %v", got)
	}
	if got := told[*messages.LostSlaveMessage](d); got.SlaveId.GetValue() != agent.GetValue() { // it answers no pings
		t.Errorf("lost: %v", got)
	}
}

// The messages from before there were calls.
func TestDriverOlderMessages(t *testing.T) {
	m := startMaster(t, "", nil)
	a := startAgent(t, m, "cpus:4;mem:1024")
	d := startDriver(t, m)
	d.send(&messages.RegisterFrameworkMessage{Framework: oldFramework("")})
	d.id = told[*messages.FrameworkRegisteredMessage](d).FrameworkId.GetValue()
	id := &mesosv1.FrameworkID{Value: &d.id}
	d.send(&messages.ResourceRequestMessage{FrameworkId: id})
	o := d.offer()
	d.send(&messages.LaunchTasksMessage{
		FrameworkId: id, OfferIds: []*mesosv1.OfferID{o.Id}, Filters: &mesosv1.Filters{RefuseSeconds: new(3600.0)}, Tasks: []*mesosv1.TaskInfo{taskOn(o, "t1")},
	})
	up := told[*messages.StatusUpdateMessage](d)
	for up.Update.Status.GetState() != mesosv1.TaskState_TASK_RUNNING {
		d.send(&messages.StatusUpdateAcknowledgementMessage{SlaveId: up.Update.SlaveId, FrameworkId: id, TaskId: up.Update.Status.TaskId, Uuid: up.Update.Uuid})
		up = told[*messages.StatusUpdateMessage](d)
	}
	d.send(&messages.StatusUpdateAcknowledgementMessage{SlaveId: up.Update.SlaveId, FrameworkId: id, TaskId: up.Update.Status.TaskId, Uuid: up.Update.Uuid})
	d.send(&messages.ReconcileTasksMessage{FrameworkId: id, Statuses: []*mesosv1.TaskStatus{{TaskId: &mesosv1.TaskID{Value: new("none")}, State: mesosv1.TaskState_TASK_RUNNING.Enum()}}})
	d.state("none", mesosv1.TaskState_TASK_LOST)
	d.send(&messages.FrameworkToExecutorMessage{SlaveId: up.Update.SlaveId, FrameworkId: id, ExecutorId: &mesosv1.ExecutorID{Value: new("e")}, Data: []byte("x")})
	d.offers = nil
	d.send(&messages.ReviveOffersMessage{FrameworkId: id})
	d.offer()
	d.send(&messages.KillTaskMessage{FrameworkId: id, TaskId: &mesosv1.TaskID{Value: new("t1")}})
	d.state("t1", mesosv1.TaskState_TASK_KILLED)
	a.untilContainers(t, 0)
	d.send(&messages.ReregisterFrameworkMessage{Framework: oldFramework(d.id), Failover: new(false)})
	told[*messages.FrameworkReregisteredMessage](d)
	d.send(&messages.UnregisterFrameworkMessage{FrameworkId: id})
	m.until(t, "the framework's end", func(snap *master.Snapshot) bool { return len(snap.Completed) == 1 })
}

// What a stranger says in the name of a framework is dropped, and counted.
func TestDriverStrangers(t *testing.T) {
	m := startMaster(t, "", nil)
	d, stranger := startDriver(t, m), startDriver(t, m)
	stranger.id = d.register()
	id := &mesosv1.FrameworkID{Value: &d.id}
	stranger.call(&messages.Call{Type: schedulerv1.Call_TEARDOWN.Enum()})
	stranger.send(&messages.DeactivateFrameworkMessage{FrameworkId: id})
	stranger.send(&messages.UnregisterFrameworkMessage{FrameworkId: id})
	stranger.call(&messages.Call{Type: schedulerv1.Call_KILL.Enum()})                    // what to kill?
	stranger.call(&messages.Call{})                                                      // no type
	stranger.node.Send(stranger.self.ID, stranger.to, "mesos.scheduler.Call", []byte{7}) // no call at all
	stranger.node.Send(stranger.self.ID, stranger.to, "mesos.internal.None", nil)
	stranger.id = "none"
	stranger.call(&messages.Call{Type: schedulerv1.Call_REVIVE.Enum()})
	for deadline := time.Now().Add(patience); m.tally.dropped.Load() != 8; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d messages are dropped, want 8", m.tally.dropped.Load())
		}
	}
	if f := d.connected(m, true); !f.Active {
		t.Error("the framework was deactivated")
	}
}

func knows(t testing.TB, principal, secret string) credentials.Known {
	t.Helper()
	known, err := credentials.Parse([]byte(principal + " " + secret))
	if err != nil {
		t.Fatal(err)
	}
	return known
}

func (d *driver) authenticate(principal, secret string) error {
	return crammd5.Authenticate(d.t.Context(), d.node, d.self, d.to, crammd5.Credential{Principal: principal, Secret: secret})
}

func TestDriverAuthenticates(t *testing.T) {
	m := startMaster(t, "", func(c *Config) {
		c.Auth = Auth{Known: knows(t, "marathon", "s3cret"), Drivers: true}
	})
	d := startDriver(t, m)
	d.send(subscribeCall(oldFramework(""), false))
	d.refused("Framework at " + d.self.String() + " is not authenticated")
	if err := d.authenticate("marathon", "wrong"); err == nil {
		t.Fatal("a wrong secret is right")
	}
	d.send(subscribeCall(oldFramework(""), false))
	d.refused("Framework at " + d.self.String() + " is not authenticated")
	if err := d.authenticate("marathon", "s3cret"); err != nil {
		t.Fatal(err)
	}
	f := oldFramework("")
	f.Principal = new("somebody")
	d.send(subscribeCall(f, false))
	d.refused("Framework principal 'somebody' does not match authenticated principal 'marathon'")
	d.register()
	if f := d.connected(m, true); f.Principal != "marathon" {
		t.Errorf("its principal is %q", f.Principal)
	}
	m.exited(d.self)
	d.refused("Framework disconnected")
	d.send(subscribeCall(oldFramework(d.id), true))
	d.refused("Framework at " + d.self.String() + " is not authenticated") // once more, please
}

// What a driver sends while it proves who it is waits for that.
func TestDriverAuthenticationHoldsItsSubscription(t *testing.T) {
	m := startMaster(t, "", func(c *Config) {
		c.Auth = Auth{Known: knows(t, "marathon", "s3cret"), Drivers: true}
	})
	d := startDriver(t, m)
	client := d.node.UPID("authenticatee")
	from := make(chan libprocess.Message, 10)
	d.node.Handle(client.ID, func(m libprocess.Message) {
		m.Body = slices.Clone(m.Body)
		from <- m
	})
	say := func(to string, m proto.Message) {
		if err := d.node.SendProto(client.ID, libprocess.UPID{ID: to, Addr: d.to.Addr}, m); err != nil {
			t.Fatal(err)
		}
	}
	say("master", &messages.AuthenticateMessage{Pid: new(d.self.String())})
	session := (<-from).From.ID
	d.send(subscribeCall(oldFramework(""), false))
	say(session, &messages.AuthenticationStartMessage{Mechanism: new("CRAM-MD5")})
	step := &messages.AuthenticationStepMessage{}
	if err := proto.Unmarshal((<-from).Body, step); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-d.got:
		t.Fatalf("it is told %v", got)
	default:
	}
	say(session, &messages.AuthenticationStepMessage{Data: []byte("marathon wrong")})
	if got := (<-from).Name; got != "mesos.internal.AuthenticationFailedMessage" {
		t.Errorf("the answer is %s", got)
	}
	d.refused("Framework at " + d.self.String() + " is not authenticated")
}

// Test10B_12_Authentication: agents with a credential prove who they are before
// they register; where it is required, others are not heard.
func Test10B_12_Authentication(t *testing.T) {
	m := startMaster(t, "", func(c *Config) {
		c.Auth = Auth{Known: knows(t, "agent", "s3cret"), Agents: true}
	})
	a := startWireAgent(t, m)
	a.send(t, registration())
	for deadline := time.Now().Add(patience); m.tally.dropped.Load() == 0; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("an agent registers without having proven who it is")
		}
	}
	self := a.node.UPID("slave(1)")
	if err := crammd5.Authenticate(t.Context(), a.node, self, a.to, crammd5.Credential{Principal: "agent", Secret: "s3cret"}); err != nil {
		t.Fatal(err)
	}
	a.send(t, registration())
	receive[*messages.SlaveRegisteredMessage](t, a)
	m.exited(self) // whoever breaks the connection proves himself anew
	if _, known := m.auth.principal(self); known {
		t.Error("it is still believed after its connection broke")
	}
}

// What the lists deny is denied whichever way it is asked for.
func TestDriverObeysTheLists(t *testing.T) {
	acls, err := authz.Parse([]byte(`{"permissive": false,
		"register_agents": [{"principals": {"values": ["agent"]}, "agents": {"type": "ANY"}}],
		"register_frameworks": [{"principals": {"type": "ANY"}, "roles": {"values": ["web"]}}],
		"run_tasks": [{"principals": {"type": "ANY"}, "users": {"values": ["nobody"]}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	m := startMaster(t, "", func(c *Config) { c.Auth = Auth{Known: knows(t, "agent", "s3cret"), ACLs: acls} })
	a := startWireAgent(t, m)
	a.send(t, registration())
	if err := crammd5.Authenticate(t.Context(), a.node, a.node.UPID("slave(1)"), a.to, crammd5.Credential{Principal: "agent", Secret: "s3cret"}); err != nil {
		t.Fatal(err)
	}
	if m.tally.dropped.Load() != 1 {
		t.Error("an agent that is nobody may register")
	}
	a.send(t, registration())
	receive[*messages.SlaveRegisteredMessage](t, a)
	d := startDriver(t, m)
	f := oldFramework("")
	f.Role = new("other")
	d.send(subscribeCall(f, false))
	d.refused("Not authorized to register framework  with roles { other }")
	f.Role = new("web")
	d.send(subscribeCall(f, false))
	d.id = told[*messages.FrameworkRegisteredMessage](d).FrameworkId.GetValue()
	d.launch("t1")
	if up := d.state("t1", mesosv1.TaskState_TASK_ERROR); up.Update.Status.GetReason() != mesosv1.TaskStatus_REASON_TASK_UNAUTHORIZED {
		t.Errorf("update: %v", up)
	}
}

// Calls that come too fast wait.
func TestDriverIsLimited(t *testing.T) {
	limits, err := ParseLimits([]byte(`{"limits": [{"principal": "slow", "qps": 0.001}]}`))
	if err != nil {
		t.Fatal(err)
	}
	m := startMaster(t, "", func(c *Config) { c.Limits = limits })
	d := startDriver(t, m)
	f := oldFramework("")
	f.Principal = new("slow")
	d.send(subscribeCall(f, false))
	d.id = told[*messages.FrameworkRegisteredMessage](d).FrameworkId.GetValue()
	none := &messages.Call{Type: schedulerv1.Call_RECONCILE.Enum(), Reconcile: &schedulerv1.Call_Reconcile{Tasks: []*schedulerv1.Call_Reconcile_Task{{TaskId: &mesosv1.TaskID{Value: new("none")}}}}}
	d.call(none)
	d.state("none", mesosv1.TaskState_TASK_LOST)
	d.call(none)
	for deadline := time.Now().Add(patience); limits.of["slow"].waiting.Load() != 1; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing waits")
		}
	}
}

// A master without secrets says so, to agents that insist.
func TestNoAuthenticator(t *testing.T) {
	m := startMaster(t, "", nil)
	d := startDriver(t, m)
	err := d.authenticate("a", "b")
	if err == nil || !strings.Contains(err.Error(), "No authenticator loaded") {
		t.Errorf("error %v", err)
	}
}

func TestAuthenticationsAreBounded(t *testing.T) {
	var a authentications
	a.init()
	pid := func(i int) libprocess.UPID { return libprocess.UPID{ID: fmt.Sprint(i)} }
	for i := range maxExchanges {
		if err := a.begin(&exchange{pid: pid(i), client: pid(-i - 1)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.begin(&exchange{pid: pid(maxExchanges), client: pid(-maxExchanges - 1)}); err == nil {
		t.Error("there is no bound")
	}
	last := &exchange{pid: pid(0), client: pid(-1)} // the same once more takes its own place
	if err := a.begin(last); err != nil {
		t.Error(err)
	}
	a.end(last, "p", true)
	if p, ok := a.principal(pid(0)); !ok || p != "p" || len(a.byPID) != maxExchanges-1 || len(a.byClient) != len(a.byPID) {
		t.Errorf("principal %q, %d exchanges", p, len(a.byPID))
	}
}

// FuzzDriver sends a master what claims to come from a driver: it must live.
func FuzzDriver(f *testing.F) {
	names := []string{"mesos.scheduler.Call", "mesos.internal.DeactivateFrameworkMessage", "mesos.internal.AuthenticateMessage"}
	names = append(names, sortedKeys(older)...)
	seed := func(kind byte, m proto.Message) {
		body, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(kind, body)
	}
	offer := &mesosv1.Offer{Id: &mesosv1.OfferID{Value: new("o")}, AgentId: &mesosv1.AgentID{Value: new("a")}}
	seed(0, subscribeCall(oldFramework(""), false))
	seed(0, subscribeCall(oldFramework("f"), true))
	seed(0, &messages.Call{Type: schedulerv1.Call_ACCEPT.Enum(), FrameworkId: &mesosv1.FrameworkID{Value: new("f")}, Accept: &schedulerv1.Call_Accept{
		OfferIds: []*mesosv1.OfferID{offer.Id}, Operations: []*mesosv1.Offer_Operation{{
			Type: mesosv1.Offer_Operation_LAUNCH.Enum(), Launch: &mesosv1.Offer_Operation_Launch{TaskInfos: []*mesosv1.TaskInfo{taskOn(offer, "t")}},
		}},
	}})
	seed(1, &messages.DeactivateFrameworkMessage{FrameworkId: &mesosv1.FrameworkID{Value: new("f")}})
	seed(2, &messages.AuthenticateMessage{Pid: new("scheduler@127.0.0.1:1")})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { l.Close() })
	from, err := libprocess.ParseUPID("scheduler@" + l.Addr().String())
	if err != nil {
		f.Fatal(err)
	}
	m := startMaster(f, "", func(c *Config) { c.Auth.Known = knows(f, "p", "s") })
	f.Fuzz(func(t *testing.T, kind byte, body []byte) {
		name := names[int(kind)%len(names)]
		if bytes.Contains(body, []byte("@")) && name == "mesos.internal.AuthenticateMessage" && !bytes.Contains(body, []byte("@127.")) {
			t.Skip("names are looked up")
		}
		m.receive(libprocess.Message{From: from, To: masterActor, Name: name, Body: body})
		if err := m.View(context.Background(), func(*master.Core) {}); err != nil {
			t.Fatal(err)
		}
	})
}

// TestDriverObeysRateLimits: as over HTTP.
func TestDriverObeysRateLimits(t *testing.T) {
	limits, err := ParseLimits([]byte(`{"aggregate_default_qps":1000000,"aggregate_default_capacity":0}`))
	if err != nil {
		t.Fatal(err)
	}
	d := startDriver(t, startMaster(t, "", func(c *Config) { c.Limits = limits }))
	d.register()
	d.call(&messages.Call{Type: schedulerv1.Call_REVIVE.Enum()})
	d.refused("Message mesos.scheduler.Call dropped: capacity(0) exceeded")
}
