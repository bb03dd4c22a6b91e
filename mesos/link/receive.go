package link

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/agent"
	"github.com/mesopool/mesopool/mesos/convert"
	"github.com/mesopool/mesopool/mesos/libprocess"
	"github.com/mesopool/mesopool/mesos/messages"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/store"
	"github.com/mesopool/mesopool/task"
)

// receive takes one message. Pings, which come from other actors, are answered
// to everybody, scheduler drivers may write to their executors without the
// master (sched.cpp, sendFrameworkMessage), and nothing else is believed but of
// the current master; a genuine agent believes a few more (slave.cpp,
// updateFramework, drain).
func (l *Link) receive(m libprocess.Message) {
	switch m.Name {
	case "mesos.internal.PingSlaveMessage":
		decode(l, m, new(messages.PingSlaveMessage), func(p *messages.PingSlaveMessage) { l.ping(m.From, p) })
		return
	case "mesos.internal.FrameworkToExecutorMessage":
		decode(l, m, new(messages.FrameworkToExecutorMessage), l.frameworkMessage)
		return
	}
	l.mu.Lock()
	master := l.master
	l.mu.Unlock()
	if m.From != master {
		l.drop("not from the master", "ignored a message that is not from the current master", "message", m.Name, "from", m.From.String(), "master", master.String())
		return
	}
	l.receiveFromMaster(m)
}

func (l *Link) receiveFromMaster(m libprocess.Message) {
	switch m.Name {
	case "mesos.internal.RunTaskMessage":
		decode(l, m, new(messages.RunTaskMessage), l.runTask)
	case "mesos.internal.StatusUpdateAcknowledgementMessage":
		decode(l, m, new(messages.StatusUpdateAcknowledgementMessage), l.acknowledge)
	case "mesos.internal.KillTaskMessage":
		decode(l, m, new(messages.KillTaskMessage), l.killTask)
	case "mesos.internal.SlaveRegisteredMessage":
		decode(l, m, new(messages.SlaveRegisteredMessage), l.slaveRegistered)
	case "mesos.internal.SlaveReregisteredMessage":
		decode(l, m, new(messages.SlaveReregisteredMessage), l.slaveReregistered)
	case "mesos.internal.RunTaskGroupMessage":
		decode(l, m, new(messages.RunTaskGroupMessage), l.runTaskGroup)
	case "mesos.internal.ShutdownExecutorMessage":
		decode(l, m, new(messages.ShutdownExecutorMessage), l.shutdownExecutor)
	case "mesos.internal.ShutdownFrameworkMessage":
		decode(l, m, new(messages.ShutdownFrameworkMessage), func(s *messages.ShutdownFrameworkMessage) {
			l.agent.Put(agent.ShutdownFramework{ID: s.GetFrameworkId().GetValue()})
		})
	case "mesos.internal.UpdateFrameworkMessage":
		decode(l, m, new(messages.UpdateFrameworkMessage), l.updateFramework)
	case "mesos.internal.CheckpointResourcesMessage":
		decode(l, m, new(messages.CheckpointResourcesMessage), l.checkpointResources)
	case "mesos.internal.ApplyOperationMessage":
		decode(l, m, new(messages.ApplyOperationMessage), l.applyOperation)
	case "mesos.internal.AcknowledgeOperationStatusMessage":
		decode(l, m, new(messages.AcknowledgeOperationStatusMessage), l.acknowledgeOperation)
	case "mesos.internal.ReconcileOperationsMessage":
		decode(l, m, new(messages.ReconcileOperationsMessage), l.reconcileOperations)
	case "mesos.internal.DrainSlaveMessage":
		decode(l, m, new(messages.DrainSlaveMessage), l.drain)
	case "mesos.internal.ShutdownMessage":
		decode(l, m, new(messages.ShutdownMessage), func(s *messages.ShutdownMessage) { l.post(eventShutdown{s.GetMessage()}) })
	default:
		l.drop("no use", "ignored a message that this agent has no use for", "message", m.Name)
	}
}

// decode drops what does not parse, as a genuine peer does.
func decode[T proto.Message](l *Link, m libprocess.Message, into T, then func(T)) {
	if err := proto.Unmarshal(m.Body, into); err != nil {
		l.drop("does not parse", "dropped a message that does not parse", "message", m.Name, "from", m.From.String(), "error", err)
		return
	}
	then(into)
}

// ping is answered in every state, to whoever asks.
func (l *Link) ping(from libprocess.UPID, p *messages.PingSlaveMessage) {
	if err := l.cfg.Node.SendProto(l.cfg.Self.ID, from, &messages.PongSlaveMessage{}); err != nil {
		l.log.Error("pong", "error", err)
	}
	l.mu.Lock()
	l.lastPing = time.Now()
	registered := l.registered
	l.mu.Unlock()
	if registered && !p.GetConnected() {
		l.post(eventReregister{"the master says that we are not connected"})
	}
}

func (l *Link) slaveRegistered(m *messages.SlaveRegisteredMessage) {
	id := m.GetSlaveId().GetValue()
	if old := l.AgentID(); old != "" && old != id {
		l.log.Error("ignored a registration under another ID", "have", old, "got", id)
		return
	}
	l.admitted(id, m.GetConnection(), nil)
}

func (l *Link) slaveReregistered(m *messages.SlaveReregisteredMessage) {
	if id := m.GetSlaveId().GetValue(); id != l.AgentID() {
		l.log.Error("ignored a re-registration under another ID", "have", l.AgentID(), "got", id)
		return
	}
	var missing []agent.Missing
	for _, r := range m.Reconciliations {
		f := framework(r.GetFramework())
		f.ID = r.GetFrameworkId().GetValue()
		for _, s := range r.Statuses {
			missing = append(missing, agent.Missing{Key: task.Key{Framework: f.ID, ID: s.GetTaskId().GetValue()}, Framework: f})
		}
	}
	l.admitted(m.GetSlaveId().GetValue(), m.GetConnection(), missing)
}

// admitted: the ID is durable before anything is done under it.
func (l *Link) admitted(id string, c *messages.MasterSlaveConnection, missing []agent.Missing) {
	if err := l.cfg.Store.Commit(context.Background(), []store.Op{{Key: idKey, Value: []byte(id)}}); err != nil {
		l.log.Error("the agent's ID could not be saved; the registration is tried again", "error", err)
		return
	}
	l.mu.Lock()
	first, master := !l.registered, l.master
	l.id, l.registered, l.lastPing = id, true, time.Now()
	if s := c.GetTotalPingTimeoutSeconds(); s > 0 {
		l.silence = time.Duration(s * float64(time.Second))
	}
	l.mu.Unlock()
	if first {
		l.log.Info("registered", "agent", id, "master", master.String())
	}
	l.sayAll()
	l.agent.Put(agent.Joined{Missing: missing})
	l.post(eventRegistered{})
}

// framework reads what the core wants to know; the message itself is kept.
func framework(f *mesosv1.FrameworkInfo) agent.Framework {
	out := agent.Framework{
		ID:             f.GetId().GetValue(),
		PartitionAware: convert.Has(f, mesosv1.FrameworkInfo_Capability_PARTITION_AWARE),
		KillingState:   convert.Has(f, mesosv1.FrameworkInfo_Capability_TASK_KILLING_STATE),
	}
	if origin, err := proto.Marshal(f); err == nil {
		out.Origin = origin
	}
	return out
}

func (l *Link) updateFramework(m *messages.UpdateFrameworkMessage) {
	if m.FrameworkInfo == nil {
		return
	}
	f := framework(m.FrameworkInfo)
	f.ID = m.GetFrameworkId().GetValue()
	l.agent.Put(agent.UpdateFramework{Framework: f})
}

func (l *Link) runTask(m *messages.RunTaskMessage) {
	f := framework(m.GetFramework())
	if f.ID == "" || m.GetTask().GetAgentId().GetValue() != l.AgentID() {
		l.log.Warn("ignored a task for another agent or of a nameless framework", "task", m.GetTask().GetTaskId().GetValue())
		return
	}
	if m.GetTask().Executor != nil {
		l.runOnExecutor(f, m)
		return
	}
	spec, err := convert.Spec(f.ID, m.GetTask())
	if err == nil {
		err = unsupported(&spec)
	}
	if err != nil {
		l.refuse(f, m.GetTask(), err.Error())
		return
	}
	spec.Origin, err = proto.Marshal(m.GetTask())
	if err != nil {
		l.refuse(f, m.GetTask(), err.Error())
		return
	}
	if why := l.unknown(spec.Resources); why != "" {
		l.agent.Put(agent.Refuse{
			Framework: f, Key: spec.Key, State: agent.LostAs(f.PartitionAware, task.Dropped), Reason: reasonResourcesUnknown, Message: why,
		})
		return
	}
	l.agent.Put(agent.Launch{Framework: f, Spec: spec})
}

const reasonResourcesUnknown task.Reason = "REASON_RESOURCES_UNKNOWN"

// unknown says which reserved resources of a task this agent does not have
// reserved, "" if none (slave.cpp, __run).
func (l *Link) unknown(r resources.Resources) string {
	wanted := r.Checkpointed().Allocated("")
	if len(wanted) == 0 || l.checkpointed().Contains(wanted) {
		return ""
	}
	return "The agent does not know of the reserved resources " + wanted.String()
}

// unsupported says what this agent would have to ignore silently.
func unsupported(s *task.Spec) error {
	for _, v := range s.Volumes {
		if v.Host != "" && !s.FromSandbox(&v) {
			return fmt.Errorf("the host path %s cannot be mounted at %s: tasks run on no particular host; use a named volume", v.Host, v.Container)
		}
	}
	return nil
}

func (l *Link) refuse(f agent.Framework, t *mesosv1.TaskInfo, why string) {
	l.agent.Put(agent.Refuse{
		Framework: f, Key: task.Key{Framework: f.ID, ID: t.GetTaskId().GetValue()},
		State: task.Failed, Reason: task.ReasonContainerLaunchFailed, Message: why,
	})
}

func (l *Link) runTaskGroup(m *messages.RunTaskGroupMessage) {
	f := framework(m.GetFramework())
	tasks := m.GetTaskGroup().GetTasks()
	if f.ID == "" || len(tasks) == 0 || tasks[0].GetAgentId().GetValue() != l.AgentID() {
		l.log.Warn("ignored a task group for another agent or of a nameless framework", "executor", m.GetExecutor().GetExecutorId().GetValue())
		return
	}
	read := group
	if e := m.GetExecutor(); e.GetType() != mesosv1.ExecutorInfo_DEFAULT && e.GetCommand() != nil {
		read = l.onExecutor
	}
	in, err := read(f, m)
	if err != nil {
		for _, t := range tasks {
			l.refuse(f, t, err.Error())
		}
		l.neverBegan(f.ID, m.GetExecutor(), m.LaunchExecutor)
		return
	}
	in.New = m.LaunchExecutor
	l.agent.Put(in)
}

// group reads a pod with all its tasks. One that cannot be had is enough to
// refuse them all.
func group(f agent.Framework, m *messages.RunTaskGroupMessage) (agent.LaunchGroup, error) {
	in := agent.LaunchGroup{Framework: f}
	var err error
	if in.Pod, err = convert.Pod(f.ID, m.GetExecutor()); err != nil {
		return in, err
	}
	if in.Pod.Origin, err = proto.Marshal(m.GetExecutor()); err != nil {
		return in, err
	}
	for _, t := range m.GetTaskGroup().GetTasks() {
		s, err := convert.GroupTask(f.ID, t)
		if err == nil {
			err = unsupported(&s)
		}
		if err == nil {
			s.Origin, err = proto.Marshal(t)
		}
		if err != nil {
			return in, fmt.Errorf("the task %s of the group cannot be launched: %w", t.GetTaskId().GetValue(), err)
		}
		in.Pod.Ports = append(in.Pod.Ports, s.Ports...)
		in.Tasks = append(in.Tasks, s)
	}
	return in, nil
}

// neverBegan is for an executor that the master believes to be here by this
// launch; one that was here before still is.
func (l *Link) neverBegan(framework string, e *mesosv1.ExecutorInfo, launched *bool) {
	if launched == nil || *launched {
		l.ExecutorGone(agent.ExecutorGone{Framework: framework, Executor: e.GetExecutorId().GetValue(), Status: -1})
	}
}

func (l *Link) shutdownExecutor(m *messages.ShutdownExecutorMessage) {
	l.agent.Put(agent.ShutdownExecutor{Framework: m.GetFrameworkId().GetValue(), Executor: m.GetExecutorId().GetValue()})
}

func (l *Link) killTask(m *messages.KillTaskMessage) {
	k := agent.Kill{Key: task.Key{Framework: m.GetFrameworkId().GetValue(), ID: m.GetTaskId().GetValue()}}
	if g := m.GetKillPolicy().GetGracePeriod(); g != nil {
		k.Grace = new(time.Duration(g.GetNanoseconds()))
	}
	l.agent.Put(k)
}

func (l *Link) drain(m *messages.DrainSlaveMessage) {
	d := agent.DrainConfig{MarkGone: m.GetConfig().GetMarkGone()}
	if g := m.GetConfig().GetMaxGracePeriod(); g != nil {
		d.MaxGrace = new(time.Duration(g.GetNanoseconds()))
	}
	l.log.Info("draining by the master's order", "mark gone", d.MarkGone)
	l.agent.Put(agent.Drain{Config: d})
}

func (l *Link) acknowledge(m *messages.StatusUpdateAcknowledgementMessage) {
	a := agent.Ack{Key: task.Key{Framework: m.GetFrameworkId().GetValue(), ID: m.GetTaskId().GetValue()}}
	copy(a.UUID[:], m.GetUuid())
	l.agent.Put(a)
}
