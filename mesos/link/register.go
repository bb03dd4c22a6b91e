package link

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/agent"
	"github.com/mesopool/mesopool/mesos/convert"
	"github.com/mesopool/mesopool/mesos/messages"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// capabilities are claimed only where what they oblige to is done. With
// RESOURCE_PROVIDER the agent itself carries out operations, see operations.go;
// it has no resource providers, and says so by listing none.
func capabilities() []*mesosv1.AgentInfo_Capability {
	var out []*mesosv1.AgentInfo_Capability
	for _, c := range []mesosv1.AgentInfo_Capability_Type{
		mesosv1.AgentInfo_Capability_MULTI_ROLE, mesosv1.AgentInfo_Capability_HIERARCHICAL_ROLE,
		mesosv1.AgentInfo_Capability_RESERVATION_REFINEMENT, mesosv1.AgentInfo_Capability_RESOURCE_PROVIDER,
		mesosv1.AgentInfo_Capability_RESIZE_VOLUME, mesosv1.AgentInfo_Capability_AGENT_OPERATION_FEEDBACK,
		mesosv1.AgentInfo_Capability_AGENT_DRAINING, mesosv1.AgentInfo_Capability_TASK_RESOURCE_LIMITS,
	} {
		out = append(out, &mesosv1.AgentInfo_Capability{Type: c.Enum()})
	}
	return out
}

// mostAmount is the largest amount that all of Mesos can count (quota.cpp,
// validate): sums stay exact in thousandths.
const mostAmount = 1_000_000_000_000

// CheckTotal refuses totals that a master could not count.
func CheckTotal(total resources.Resources) error {
	for _, s := range total.Scalars() {
		if s.Amount > resources.Whole(mostAmount) {
			return fmt.Errorf("link: %s of %s is more than masters can count; offer at most %d", s.Amount, s.Name, int64(mostAmount))
		}
	}
	return nil
}

// Info is what a master was told of the agent, with the ID that it gave.
func (l *Link) Info() *mesosv1.AgentInfo {
	out := l.info()
	out.Id = &mesosv1.AgentID{Value: new(l.AgentID())}
	return out
}

func (l *Link) info() *mesosv1.AgentInfo {
	return &mesosv1.AgentInfo{
		Hostname: &l.cfg.Hostname, Port: new(int32(l.cfg.Self.Addr.Port())), Checkpoint: new(true),
		Resources: convert.ResourcesTo(l.Total(), convert.Role), Attributes: l.cfg.Attributes, Domain: l.cfg.Domain,
	}
}

// sendRegistration registers a new agent, or an old one with all that it runs,
// and returns how many tasks it told of.
func (l *Link) sendRegistration(ctx context.Context) (tasks int, err error) {
	l.mu.Lock()
	l.told = l.cfg.Resources
	l.mu.Unlock()
	version, kept := &mesosv1.UUID{Value: l.resourceVersion()}, convert.CheckpointedTo(l.checkpointed())
	id := l.AgentID()
	if id == "" {
		l.send(&messages.RegisterSlaveMessage{
			Slave: l.info(), CheckpointedResources: kept, Version: &l.cfg.Version,
			AgentCapabilities: capabilities(), ResourceVersionUuid: version,
		})
		return 0, nil
	}
	roster, err := l.agent.Roster(ctx)
	if err != nil {
		return 0, err
	}
	m := &messages.ReregisterSlaveMessage{
		Slave: l.info(), CheckpointedResources: kept, Version: &l.cfg.Version,
		AgentCapabilities: capabilities(), ResourceVersionUuid: version,
	}
	m.Slave.Id = &mesosv1.AgentID{Value: &id}
	if err := describe(m, roster, id); err != nil {
		return 0, err
	}
	l.send(m)
	return len(m.Tasks), nil
}

// describe lists the tasks and, as a genuine master insists (master/validation.cpp,
// reregisterSlave), the framework of every one of them.
func describe(m *messages.ReregisterSlaveMessage, roster agent.Roster, id string) error {
	for _, f := range roster.Frameworks {
		if len(f.Origin) == 0 { // known by its ID only; it has no tasks here but refused ones
			continue
		}
		info := &mesosv1.FrameworkInfo{}
		if err := proto.Unmarshal(f.Origin, info); err != nil {
			return fmt.Errorf("link: the saved description of framework %s cannot be read: %w", f.ID, err)
		}
		m.Frameworks = append(m.Frameworks, info)
	}
	for i := range roster.Executors {
		info, err := ExecutorInfo(roster.Executors[i].Spec)
		if err != nil {
			return err
		}
		m.ExecutorInfos = append(m.ExecutorInfos, info)
	}
	for i := range roster.Tasks {
		t, err := TaskMessage(&roster.Tasks[i], id)
		if err != nil {
			return err
		}
		if t != nil {
			m.Tasks = append(m.Tasks, t)
		}
	}
	return nil
}

// ExecutorInfo is an executor as its framework described it.
func ExecutorInfo(s *task.Spec) (*mesosv1.ExecutorInfo, error) {
	info := &mesosv1.ExecutorInfo{}
	if err := proto.Unmarshal(s.Origin, info); err != nil {
		return nil, fmt.Errorf("link: the saved description of executor %s cannot be read: %w", s.Pod, err)
	}
	info.FrameworkId = &mesosv1.FrameworkID{Value: &s.Key.Framework}
	return info, nil
}

// TaskMessage writes a task as a master keeps it; nil for one that never had
// resources here, of which only the updates are left. The executor ID of a
// command task stays unset, and the two status_update fields are both set or
// both not.
func TaskMessage(t *agent.Task, id string) (*mesosv1.Task, error) {
	if len(t.Spec.Origin) == 0 {
		return nil, nil
	}
	info := &mesosv1.TaskInfo{}
	if err := proto.Unmarshal(t.Spec.Origin, info); err != nil {
		return nil, fmt.Errorf("link: the saved description of task %s cannot be read: %w", t.Spec.Key, err)
	}
	out := &mesosv1.Task{
		Name: info.Name, TaskId: info.TaskId, FrameworkId: &mesosv1.FrameworkID{Value: &t.Spec.Key.Framework},
		AgentId: &mesosv1.AgentID{Value: &id}, State: mesosv1.TaskState(t.State).Enum(), Resources: info.Resources,
		Labels: info.Labels, Discovery: info.Discovery, Container: info.Container, HealthCheck: info.HealthCheck,
		KillPolicy: info.KillPolicy, Limits: info.Limits,
	}
	if t.Spec.Pod != "" {
		out.ExecutorId = &mesosv1.ExecutorID{Value: &t.Spec.Pod}
	}
	if info.GetCommand().User != nil {
		out.User = info.Command.User
	}
	for i := range t.History {
		out.Statuses = append(out.Statuses, convert.ToldStatus(t.Spec.Key.ID, id, &t.History[i]))
	}
	if s := lastTold(t); s != nil {
		out.StatusUpdateState, out.StatusUpdateUuid = mesosv1.TaskState(s.State).Enum(), s.UUID[:]
	}
	return out, nil
}

// lastTold is the update that was sent last: the pending one, or the last that
// was acknowledged.
func lastTold(t *agent.Task) *task.Status {
	if t.Pending != nil {
		return t.Pending
	}
	if n := len(t.History); n > 0 {
		return &t.History[n-1]
	}
	return nil
}

// CapabilityNames lists what the agent claims, for pages.
func CapabilityNames() []string {
	var out []string
	for _, c := range capabilities() {
		out = append(out, c.GetType().String())
	}
	return out
}
