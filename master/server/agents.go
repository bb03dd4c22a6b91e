package server

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/mesos/convert"
	"github.com/mesopool/mesopool/mesos/libprocess"
	"github.com/mesopool/mesopool/mesos/messages"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// masterActor is the ID that agents know a master by.
const masterActor = "master"

// exited: the connection to an agent or a driver broke.
func (s *Server) exited(peer libprocess.UPID) {
	s.auth.forget(peer)
	if !s.driverExited(peer) {
		s.put(master.AgentExited{PID: peer.String()})
	}
}

// receive takes one message of an agent or a driver. What is not valid is
// dropped, as Mesos does: the sender tries again, and its log or ours says why.
func (s *Server) receive(m libprocess.Message) {
	if !s.leads() {
		s.tally.dropped.Add(1)
		return
	}
	if err := s.message(m); err != nil {
		s.tally.dropped.Add(1)
		s.log.Warn("dropped a message", "message", m.Name, "from", m.From.String(), "because", err)
	}
}

func (s *Server) message(m libprocess.Message) error {
	switch m.Name {
	case "mesos.internal.StatusUpdateMessage":
		return s.statusUpdate(m)
	case "mesos.internal.RegisterSlaveMessage":
		return s.admit(m, s.registerAgent)
	case "mesos.internal.ReregisterSlaveMessage":
		return s.admit(m, s.reregisterAgent)
	case "mesos.internal.UpdateSlaveMessage":
		return s.updateAgent(m)
	case "mesos.internal.UpdateOperationStatusMessage":
		return s.operationStatus(m)
	case "mesos.internal.UnregisterSlaveMessage":
		return s.unregisterAgent(m)
	case "mesos.internal.ExitedExecutorMessage":
		return s.exitedExecutor(m)
	case "mesos.internal.ExecutorToFrameworkMessage":
		return s.executorMessage(m)
	case "mesos.internal.AuthenticateMessage":
		return s.authenticate(m)
	default:
		return s.driverMessage(m)
	}
}

// registerAgent is master/validation.cpp, registerSlave.
func (s *Server) registerAgent(m libprocess.Message) error {
	s.tally.message(messageRegister)
	in := &messages.RegisterSlaveMessage{}
	if err := proto.Unmarshal(m.Body, in); err != nil {
		return err
	}
	info, err := agentInfo(m.From, in.Slave, in.CheckpointedResources, in.GetVersion(), in.AgentCapabilities, in.ResourceVersionUuid)
	if err != nil {
		return err
	}
	s.put(master.RegisterAgent{Agent: info})
	return nil
}

// agentInfo reads and checks what an agent says of itself.
func agentInfo(from libprocess.UPID, a *mesosv1.AgentInfo, kept []*mesosv1.Resource, version string, caps []*mesosv1.AgentInfo_Capability, uuid *mesosv1.UUID) (master.AgentInfo, error) {
	out := master.AgentInfo{ID: a.GetId().GetValue(), PID: from.String(), Hostname: a.GetHostname(), Port: uint16(a.GetPort()), Version: version, ResourceVersion: uuid.GetValue()}
	switch {
	case from.IsZero():
		return out, errors.New("its sender has no address to answer to")
	case out.Hostname == "":
		return out, errors.New("the agent has no hostname")
	case len(kept) > 0 && !a.GetCheckpoint():
		return out, errors.New("checkpointed resources provided when checkpointing is not enabled")
	}
	if err := checkVersion(version); err != nil {
		return out, err
	}
	var err error
	if out.Resources, err = totalResources(a.Resources, kept); err != nil {
		return out, err
	}
	setCapabilities(&out, caps)
	out.SyntheticPorts = slices.ContainsFunc(a.Attributes, func(x *mesosv1.Attribute) bool { return x.GetName() == syntheticAttribute })
	out.Region = a.GetDomain().GetFaultDomain().GetRegion().GetName()
	bare := proto.CloneOf(a)
	bare.Id = nil
	out.Origin, err = proto.Marshal(bare)
	return out, err
}

// syntheticAttribute is what an agent has whose ports are never a conflict.
const syntheticAttribute = "synthetic_ports"

// checkVersion refuses agents before 1.0.0 (master/constants.hpp,
// MINIMUM_AGENT_VERSION) and those that do not say.
func checkVersion(v string) error {
	core, _, _ := strings.Cut(v, "-")
	core, _, _ = strings.Cut(core, "+")
	parts := strings.Split(core, ".")
	if len(parts) != 3 {
		return fmt.Errorf("its version %q is not of the form 1.11.0", v)
	}
	for _, p := range parts {
		if _, err := strconv.ParseUint(p, 10, 32); err != nil {
			return fmt.Errorf("its version %q is not of the form 1.11.0", v)
		}
	}
	if parts[0] == "0" {
		return fmt.Errorf("its version %s is older than 1.0.0", v)
	}
	return nil
}

// totalResources puts the reservations and volumes that an agent kept in the
// place of the resources they were made of.
func totalResources(in, kept []*mesosv1.Resource) (resources.Resources, error) {
	total, err := convert.Resources(in)
	if err != nil {
		return nil, err
	}
	special, err := convert.Resources(kept)
	if err != nil {
		return nil, fmt.Errorf("checkpointed resources: %w", err)
	}
	for _, r := range special {
		plain := r
		plain.Disk = nil
		plain.Reservations = nil
		if n := len(r.Reservations); n > 0 && !r.Reservations[0].Dynamic {
			plain.Reservations = r.Reservations[:1]
		}
		if !total.Contains(resources.Resources{plain}) {
			return nil, fmt.Errorf("the checkpointed %s is not part of the agent's resources %s", r, total)
		}
		total = total.Sub(plain).Add(r)
	}
	return total, nil
}

func setCapabilities(a *master.AgentInfo, caps []*mesosv1.AgentInfo_Capability) {
	for _, c := range caps {
		a.CapabilityNames = append(a.CapabilityNames, c.GetType().String())
		switch c.GetType() {
		case mesosv1.AgentInfo_Capability_MULTI_ROLE:
			a.MultiRole = true
		case mesosv1.AgentInfo_Capability_RESOURCE_PROVIDER:
			a.ResourceProvider = true
		case mesosv1.AgentInfo_Capability_TASK_RESOURCE_LIMITS:
			a.TaskResourceLimits = true
		}
	}
}

func (s *Server) reregisterAgent(m libprocess.Message) error {
	s.tally.message(messageReregister)
	in := &messages.ReregisterSlaveMessage{}
	if err := proto.Unmarshal(m.Body, in); err != nil {
		return err
	}
	cmd, err := readReregistration(m.From, in)
	if err != nil {
		return err
	}
	s.put(cmd)
	return nil
}

// readReregistration is master/validation.cpp, reregisterSlave.
func readReregistration(from libprocess.UPID, in *messages.ReregisterSlaveMessage) (cmd master.ReregisterAgent, err error) {
	cmd.Agent, err = agentInfo(from, in.Slave, in.CheckpointedResources, in.GetVersion(), in.AgentCapabilities, in.ResourceVersionUuid)
	if err != nil {
		return cmd, err
	}
	if problem := idProblem(cmd.Agent.ID); problem != "" {
		return cmd, fmt.Errorf("agent ID: %s", problem)
	}
	if cmd.Frameworks, err = reportedFrameworks(in.Frameworks); err != nil {
		return cmd, err
	}
	cmd.Tasks, cmd.Executors, err = reportedTasks(in, cmd.Frameworks)
	return cmd, err
}

func reportedFrameworks(in []*mesosv1.FrameworkInfo) ([]master.FrameworkInfo, error) {
	seen := map[string]bool{}
	out := make([]master.FrameworkInfo, 0, len(in))
	for _, f := range in {
		info, err := frameworkInfo(f)
		if err != nil {
			return nil, err
		}
		if problem := idProblem(info.ID); problem != "" {
			return nil, fmt.Errorf("framework ID: %s", problem)
		}
		if problem := frameworkProblem(f, nil); problem != "" {
			return nil, fmt.Errorf("framework %s: %s", info.ID, problem)
		}
		if seen[info.ID] {
			return nil, fmt.Errorf("framework %s is listed twice", info.ID)
		}
		seen[info.ID] = true
		out = append(out, info)
	}
	return out, nil
}

func reportedTasks(in *messages.ReregisterSlaveMessage, frameworks []master.FrameworkInfo) ([]*master.Task, []*master.Executor, error) {
	role := map[string]string{}
	for i := range frameworks {
		role[frameworks[i].ID] = "*"
		if len(frameworks[i].Roles) > 0 {
			role[frameworks[i].ID] = frameworks[i].Roles[0]
		}
	}
	rows, err := reportedExecutors(in, role)
	if err != nil {
		return nil, nil, err
	}
	executors := map[task.Key]bool{}
	for _, e := range rows {
		executors[task.Key{Framework: e.Framework, ID: e.ID}] = true
	}
	seen := map[task.Key]bool{}
	out := make([]*master.Task, 0, len(in.Tasks))
	for _, t := range in.Tasks {
		row, err := reportedTask(t, in.Slave.GetId().GetValue(), role, executors)
		if err != nil {
			return nil, nil, fmt.Errorf("task %q: %w", t.GetTaskId().GetValue(), err)
		}
		if seen[row.Key] {
			return nil, nil, fmt.Errorf("task %q is listed twice", row.Key.ID)
		}
		seen[row.Key] = true
		out = append(out, row)
	}
	return out, rows, nil
}

func reportedExecutors(in *messages.ReregisterSlaveMessage, frameworks map[string]string) (rows []*master.Executor, err error) {
	out := map[task.Key]bool{}
	for _, e := range in.ExecutorInfos {
		key := task.Key{Framework: e.GetFrameworkId().GetValue(), ID: e.GetExecutorId().GetValue()}
		if _, known := frameworks[key.Framework]; !known {
			return nil, fmt.Errorf("executor %q: its framework %q is not listed", key.ID, key.Framework)
		}
		if out[key] {
			return nil, fmt.Errorf("executor %q is listed twice", key.ID)
		}
		out[key] = true
		allocate(e.Resources, frameworks[key.Framework])
		row := &master.Executor{ID: key.ID, Framework: key.Framework}
		if row.Resources, row.Origin, err = executorParts(e); err != nil {
			return nil, fmt.Errorf("executor %q: %w", key.ID, err)
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func reportedTask(t *mesosv1.Task, agent string, roles map[string]string, executors map[task.Key]bool) (*master.Task, error) {
	row := &master.Task{
		Key: task.Key{Framework: t.GetFrameworkId().GetValue(), ID: t.GetTaskId().GetValue()}, Name: t.GetName(), Agent: agent,
		Executor: t.GetExecutorId().GetValue(), State: task.State(t.GetState()), StatusState: task.State(t.GetStatusUpdateState()),
	}
	copy(row.StatusUUID[:], t.GetStatusUpdateUuid())
	role, known := roles[row.Key.Framework]
	switch problem := idProblem(row.Key.ID); {
	case problem != "":
		return nil, errors.New(problem)
	case t.GetAgentId().GetValue() != agent:
		return nil, fmt.Errorf("it is of agent %q", t.GetAgentId().GetValue())
	case !known:
		return nil, fmt.Errorf("its framework %q is not listed", row.Key.Framework)
	case row.Executor != "" && row.State == task.Running && !executors[task.Key{Framework: row.Key.Framework, ID: row.Executor}]:
		return nil, fmt.Errorf("its executor %q is not listed", row.Executor)
	}
	allocate(t.Resources, role)
	var err error
	if row.Resources, err = convert.Resources(t.Resources); err != nil {
		return nil, err
	}
	for _, st := range t.Statuses {
		one, err := status(st)
		if err != nil {
			return nil, err
		}
		row.Statuses = append(row.Statuses, one)
	}
	row.More, err = moreOfTask(t)
	return row, err
}

// status reads a status that an agent sent.
func status(st *mesosv1.TaskStatus) (master.Status, error) {
	wire, err := proto.Marshal(st)
	out := statusOf(st)
	out.More = moreOfStatus(wire)
	return out, err
}

func statusOf(st *mesosv1.TaskStatus) master.Status {
	out := master.Status{
		State: task.State(st.GetState()), Time: convert.Time(st.GetTimestamp()), Source: task.Source(st.GetSource()), Message: st.GetMessage(),
	}
	if st.Reason != nil {
		out.Reason = task.Reason(st.GetReason().String())
	}
	copy(out.UUID[:], st.Uuid)
	return out
}

// The fields on the way from a StatusUpdateMessage to its TaskStatus.
const (
	messageUpdateField = 1
	updateStatusField  = 4
)

// statusUpdate: the status goes to the framework as the agent wrote it, unless
// the update around it says something else.
func (s *Server) statusUpdate(m libprocess.Message) error {
	s.tally.message(messageStatusUpdate)
	in := &messages.StatusUpdateMessage{}
	if err := proto.Unmarshal(m.Body, in); err != nil {
		return err
	}
	up := in.Update
	if in.GetPid() == "" {
		return errors.New("it does not say where the acknowledgement goes")
	}
	if n := len(up.Uuid); n != 0 && n != len(task.UUID{}) {
		return fmt.Errorf("its uuid has %d bytes", n)
	}
	wire, err := statusWire(m.Body, up)
	if err != nil {
		return err
	}
	st := statusOf(up.Status)
	st.More = moreOfStatus(wire)
	cmd := master.StatusUpdate{
		Agent: up.GetSlaveId().GetValue(), Key: task.Key{Framework: up.FrameworkId.GetValue(), ID: up.Status.TaskId.GetValue()},
		Status: st, Latest: st.State, Event: wire,
	}
	if up.LatestState != nil {
		cmd.Latest = task.State(up.GetLatestState())
	}
	s.put(cmd)
	return nil
}

// statusWire returns the status as the framework gets it (internal/evolve.cpp,
// evolve of StatusUpdateMessage): agent, executor, time and uuid are those of
// the update. Mostly they are the same and the bytes can be used.
func statusWire(body []byte, up *messages.StatusUpdate) ([]byte, error) {
	st := up.Status
	same := up.SlaveId.GetValue() == st.AgentId.GetValue() && up.ExecutorId.GetValue() == st.ExecutorId.GetValue() &&
		up.GetTimestamp() == st.GetTimestamp() && string(up.Uuid) == string(st.Uuid)
	if same {
		if wire := field(field(body, messageUpdateField), updateStatusField); wire != nil {
			return append([]byte(nil), wire...), nil
		}
	}
	if up.SlaveId != nil {
		st.AgentId = up.SlaveId
	}
	if up.ExecutorId != nil {
		st.ExecutorId = up.ExecutorId
	}
	st.Timestamp, st.Uuid = up.Timestamp, up.Uuid
	if len(st.Uuid) == 0 {
		st.Uuid = nil
	}
	return proto.Marshal(st)
}

func (s *Server) updateAgent(m libprocess.Message) error {
	s.tally.message(messageUpdateAgent)
	in := &messages.UpdateSlaveMessage{}
	if err := proto.Unmarshal(m.Body, in); err != nil {
		return err
	}
	operations, err := reportedOperations(in.Operations.GetOperations())
	if err != nil {
		return err
	}
	s.put(master.UpdateAgent{
		PID: m.From.String(), Agent: in.SlaveId.GetValue(), ResourceVersion: in.ResourceVersionUuid.GetValue(),
		Operations: operations, Listed: in.Operations != nil,
	})
	return nil
}

func (s *Server) unregisterAgent(m libprocess.Message) error {
	s.tally.message(messageUnregister)
	in := &messages.UnregisterSlaveMessage{}
	if err := proto.Unmarshal(m.Body, in); err != nil {
		return err
	}
	s.put(master.UnregisterAgent{PID: m.From.String(), Agent: in.SlaveId.GetValue()})
	return nil
}

func (s *Server) exitedExecutor(m libprocess.Message) error {
	s.tally.message(messageExitedExecutor)
	in := &messages.ExitedExecutorMessage{}
	if err := proto.Unmarshal(m.Body, in); err != nil {
		return err
	}
	s.put(master.ExitedExecutor{
		Agent: in.SlaveId.GetValue(), Framework: in.FrameworkId.GetValue(), Executor: in.ExecutorId.GetValue(), Status: in.GetStatus(),
	})
	return nil
}

func (s *Server) executorMessage(m libprocess.Message) error {
	s.tally.message(messageExecutor)
	in := &messages.ExecutorToFrameworkMessage{}
	if err := proto.Unmarshal(m.Body, in); err != nil {
		return err
	}
	s.put(master.ExecutorMessage{
		Agent: in.SlaveId.GetValue(), Framework: in.FrameworkId.GetValue(), Executor: in.ExecutorId.GetValue(), Data: in.GetData(),
	})
	return nil
}
