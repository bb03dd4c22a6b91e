package bench

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/internal/uuid"
	"github.com/mesopool/mesopool/mesos/libprocess"
	"github.com/mesopool/mesopool/mesos/messages"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
)

// fleet is many hosts' agents behind one address: each speaks the whole agent
// protocol, and its tasks run at once.
type fleet struct {
	node       *libprocess.Node
	master     atomic.Pointer[libprocess.UPID]
	hosts      []*host
	registered atomic.Int64
	launched   func(task string) // a RunTaskMessage has come in
}

// host is one agent of a fleet.
type host struct {
	fleet *fleet
	actor string

	mu    sync.Mutex
	info  *mesosv1.AgentInfo
	tasks map[string]*mesosv1.Task
	owner map[string]*mesosv1.FrameworkInfo
}

func newFleet(hosts, room int, launched func(string)) (*fleet, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f := &fleet{node: libprocess.NewNode(libprocess.Config{Listener: l}), launched: launched}
	for n := range hosts {
		h := &host{
			fleet: f, actor: fmt.Sprintf("slave(%d)", n+1), info: hostInfo(f.node, n, room),
			tasks: map[string]*mesosv1.Task{}, owner: map[string]*mesosv1.FrameworkInfo{},
		}
		f.hosts = append(f.hosts, h)
		f.node.Handle(h.actor, h.receive)
	}
	return f, nil
}

// hostInfo describes a host with room for a number of tasks.
func hostInfo(n *libprocess.Node, number, room int) *mesosv1.AgentInfo {
	return &mesosv1.AgentInfo{
		Hostname: new("host-" + strconv.Itoa(number)), Port: new(int32(n.UPID("").Addr.Port())), Checkpoint: new(true),
		Resources: []*mesosv1.Resource{amount("cpus", float64(room)), amount("mem", float64(room*1024))},
	}
}

func amount(name string, v float64) *mesosv1.Resource {
	return &mesosv1.Resource{Name: &name, Type: mesosv1.Value_SCALAR.Enum(), Scalar: &mesosv1.Value_Scalar{Value: &v}, Role: new("*")}
}

func (f *fleet) run(ctx context.Context) error { return f.node.Run(ctx) }

// join (re-)registers everybody with a master.
func (f *fleet) join(master libprocess.UPID) {
	f.master.Store(&master)
	f.registered.Store(0)
	for _, h := range f.hosts {
		h.register()
	}
}

func (h *host) send(m proto.Message) {
	// What a bench sends can be encoded.
	_ = h.fleet.node.SendProto(h.actor, *h.fleet.master.Load(), m)
}

func (h *host) register() {
	h.mu.Lock()
	defer h.mu.Unlock()
	version := &mesosv1.UUID{Value: []byte("0123456789abcdef")}
	capabilities := []*mesosv1.AgentInfo_Capability{{Type: mesosv1.AgentInfo_Capability_MULTI_ROLE.Enum()}}
	if h.info.Id == nil {
		h.send(&messages.RegisterSlaveMessage{
			Slave: h.info, Version: new("1.11.0"), AgentCapabilities: capabilities, ResourceVersionUuid: version,
		})
		return
	}
	m := &messages.ReregisterSlaveMessage{Slave: h.info, Version: new("1.11.0"), AgentCapabilities: capabilities, ResourceVersionUuid: version}
	for _, t := range h.tasks {
		m.Tasks = append(m.Tasks, t)
	}
	for _, f := range h.owner {
		m.Frameworks = append(m.Frameworks, f)
	}
	h.send(m)
}

func (h *host) receive(m libprocess.Message) {
	switch m.Name {
	case "mesos.internal.PingSlaveMessage":
		h.answer(m.From)
	case "mesos.internal.SlaveRegisteredMessage":
		var r messages.SlaveRegisteredMessage
		if proto.Unmarshal(m.Body, &r) == nil {
			h.admitted(r.SlaveId)
		}
	case "mesos.internal.SlaveReregisteredMessage":
		h.fleet.registered.Add(1)
	case "mesos.internal.RunTaskMessage":
		var r messages.RunTaskMessage
		if proto.Unmarshal(m.Body, &r) == nil {
			h.runTask(&r)
		}
	}
}

func (h *host) answer(from libprocess.UPID) {
	_ = h.fleet.node.SendProto(h.actor, from, &messages.PongSlaveMessage{})
}

func (h *host) admitted(id *mesosv1.AgentID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.info.Id == nil {
		h.info.Id = id
		h.fleet.registered.Add(1)
	}
}

// runTask reports a task as running at once.
func (h *host) runTask(r *messages.RunTaskMessage) {
	id := r.Task.TaskId.GetValue()
	h.fleet.launched(id)
	h.mu.Lock()
	h.owner[r.Framework.Id.GetValue()] = r.Framework
	t := &mesosv1.Task{
		Name: r.Task.Name, TaskId: r.Task.TaskId, FrameworkId: r.Framework.Id, AgentId: h.info.Id, Resources: r.Task.Resources,
		State: mesosv1.TaskState_TASK_RUNNING.Enum(),
	}
	h.tasks[id] = t
	h.mu.Unlock()
	h.update(t)
}

// update reports a task's state, once more or for the first time.
func (h *host) update(t *mesosv1.Task) {
	id := uuid.New()
	at := float64(time.Now().UnixMicro()) / 1e6
	status := &mesosv1.TaskStatus{
		TaskId: t.TaskId, State: t.State, AgentId: t.AgentId, Timestamp: &at, Uuid: id[:], Source: mesosv1.TaskStatus_SOURCE_EXECUTOR.Enum(),
	}
	h.send(&messages.StatusUpdateMessage{
		Update: &messages.StatusUpdate{
			FrameworkId: t.FrameworkId, SlaveId: t.AgentId, Status: status, Timestamp: &at, Uuid: id[:], LatestState: t.State,
		},
		Pid: new(h.actor + "@" + h.fleet.node.UPID("").Addr.String()),
	})
}

// updateAll reports every task once more.
func (f *fleet) updateAll() {
	for _, h := range f.hosts {
		h.mu.Lock()
		tasks := make([]*mesosv1.Task, 0, len(h.tasks))
		for _, t := range h.tasks {
			tasks = append(tasks, t)
		}
		h.mu.Unlock()
		for _, t := range tasks {
			h.update(t)
		}
	}
}

// forget drops what the agents know of their tasks.
func (f *fleet) forget() {
	for _, h := range f.hosts {
		h.mu.Lock()
		h.tasks, h.owner = nil, nil
		h.mu.Unlock()
	}
}
