package server

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/master/authz"
	"github.com/mesopool/mesopool/mesos/convert"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	masterv1 "github.com/mesopool/mesopool/mesos/v1/master"
)

// operator serves the v1 operator API.
func (s *Server) operator(w http.ResponseWriter, r *http.Request) {
	call := &masterv1.Call{}
	if err := readCall(w, r, call); err != nil {
		answerError(w, err)
		return
	}
	json, err := acceptsJSON(r)
	if err == nil && call.Type == nil {
		err = failf(http.StatusBadRequest, "Failed to validate master::Call: Expecting 'type' to be present")
	}
	if err == nil {
		err = partMissing(call)
	}
	var out *masterv1.Response
	if err == nil && call.GetType() == masterv1.Call_SUBSCRIBE {
		if err = s.observe(w, r, json); err == nil {
			return
		}
	}
	if err == nil && listsTasks(call.GetType()) {
		if err = s.answerTasks(w, r, call.GetType(), json); err == nil {
			return
		}
	}
	if err == nil {
		out, err = s.operate(r, call)
	}
	if err != nil {
		answerError(w, err)
		return
	}
	if _, op := operatorChange(call); op != nil {
		w.WriteHeader(http.StatusAccepted)
		return
	}
	answer(w, out, json)
}

// partMissing: what changes something says how, in a part named like the call
// (master/validation.cpp, master::call::validate).
func partMissing(c *masterv1.Call) error {
	name := strings.ToLower(c.GetType().String())
	m := c.ProtoReflect()
	part := m.Descriptor().Fields().ByName(protoreflect.Name(name))
	if part == nil || strings.HasPrefix(name, "get_") || name == "read_log" || m.Has(part) {
		return nil
	}
	return failf(http.StatusBadRequest, "Failed to validate master::Call: Expecting '%s' to be present", name)
}

// answer writes a response; nil is an empty one.
func answer(w http.ResponseWriter, out *masterv1.Response, json bool) {
	if out == nil {
		w.WriteHeader(http.StatusOK)
		return
	}
	kind := typeProtobuf
	body, err := proto.Marshal(out)
	if err != nil {
		answerError(w, failf(http.StatusInternalServerError, "The answer could not be encoded: %v", err))
		return
	}
	if json {
		kind, body = typeJSON, appendJSON(make([]byte, 0, 4*len(body)), out.ProtoReflect().Descriptor(), body)
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Write(body)
}

// operate carries one call out.
func (s *Server) operate(r *http.Request, c *masterv1.Call) (*masterv1.Response, error) {
	switch c.GetType() {
	case masterv1.Call_GET_HEALTH:
		return &masterv1.Response{Type: masterv1.Response_GET_HEALTH.Enum(), GetHealth: &masterv1.Response_GetHealth{Healthy: new(true)}}, nil
	case masterv1.Call_GET_VERSION:
		return &masterv1.Response{Type: masterv1.Response_GET_VERSION.Enum(), GetVersion: &masterv1.Response_GetVersion{VersionInfo: s.versionInfo()}}, nil
	case masterv1.Call_GET_FLAGS:
		if err := s.allowed(r.Context(), authz.ViewFlags); err != nil {
			return nil, err
		}
		return &masterv1.Response{Type: masterv1.Response_GET_FLAGS.Enum(), GetFlags: &masterv1.Response_GetFlags{Flags: s.flags()}}, nil
	case masterv1.Call_GET_MASTER:
		return &masterv1.Response{Type: masterv1.Response_GET_MASTER.Enum(), GetMaster: &masterv1.Response_GetMaster{
			MasterInfo: s.self, StartTime: new(convert.Seconds(s.started)), ElectedTime: new(convert.Seconds(s.elected)),
		}}, nil
	case masterv1.Call_TEARDOWN:
		return nil, s.end(r, c.Teardown.FrameworkId.GetValue())
	}
	if agent, op := operatorChange(c); op != nil {
		return nil, s.operateOn(r, agent, op)
	}
	if taken, err := s.operateSetting(r.Context(), c); taken {
		return nil, err
	}
	if taken, err := s.operateAgents(r.Context(), c); taken {
		return nil, err
	}
	return s.operateOnSnapshot(r, c.GetType())
}

func (s *Server) operateOnSnapshot(r *http.Request, kind masterv1.Call_Type) (*masterv1.Response, error) {
	build := s.snapshotCalls()[kind]
	if build == nil {
		return nil, failf(http.StatusNotImplemented, "This master does not have the call %s", kind)
	}
	snap, err := s.Snapshot(r.Context())
	if err != nil {
		return nil, failf(http.StatusServiceUnavailable, "%v", err)
	}
	v := s.viewer(r.Context())
	if kind == masterv1.Call_GET_METRICS {
		return build(v, snap)
	}
	return build(v, v.snapshot(snap))
}

// snapshotCalls are the calls that a snapshot answers.
func (s *Server) snapshotCalls() map[masterv1.Call_Type]func(*viewer, *master.Snapshot) (*masterv1.Response, error) {
	return map[masterv1.Call_Type]func(*viewer, *master.Snapshot) (*masterv1.Response, error){
		masterv1.Call_GET_AGENTS: func(v *viewer, snap *master.Snapshot) (*masterv1.Response, error) {
			return &masterv1.Response{Type: masterv1.Response_GET_AGENTS.Enum(), GetAgents: s.getAgents(v, snap)}, nil
		},
		masterv1.Call_GET_FRAMEWORKS: func(v *viewer, snap *master.Snapshot) (*masterv1.Response, error) {
			out, err := s.getFrameworks(snap)
			return &masterv1.Response{Type: masterv1.Response_GET_FRAMEWORKS.Enum(), GetFrameworks: out}, err
		},
		masterv1.Call_GET_EXECUTORS: func(v *viewer, snap *master.Snapshot) (*masterv1.Response, error) {
			out, err := getExecutors(snap)
			return &masterv1.Response{Type: masterv1.Response_GET_EXECUTORS.Enum(), GetExecutors: out}, err
		},
		masterv1.Call_GET_OPERATIONS:           getOperations,
		masterv1.Call_GET_ROLES:                getRoles,
		masterv1.Call_GET_MAINTENANCE_SCHEDULE: getSchedule,
		masterv1.Call_GET_MAINTENANCE_STATUS:   getMaintenance,
		masterv1.Call_GET_QUOTA:                getQuota,
		masterv1.Call_GET_WEIGHTS:              getWeights,
		masterv1.Call_GET_METRICS:              s.getMetrics,
	}
}

func (s *Server) versionInfo() *mesosv1.VersionInfo {
	b := s.cfg.Build
	out := &mesosv1.VersionInfo{
		Version: &s.cfg.Version, BuildDate: new(b.Date.UTC().Format("2006-01-02 15:04:05 MST")),
		BuildTime: new(convert.Seconds(b.Date)), BuildUser: &b.User,
	}
	for _, x := range []struct {
		to   **string
		text string
	}{{&out.GitSha, b.SHA}, {&out.GitBranch, b.Branch}, {&out.GitTag, b.Tag}} {
		if x.text != "" {
			*x.to = &x.text
		}
	}
	return out
}

// flags are the configured ones and those that the core's behaviour shows.
func (s *Server) flags() []*mesosv1.Flag {
	all := map[string]string{
		"agent_ping_timeout": mesosDuration(s.cfg.Core.PingInterval), "max_agent_ping_timeouts": strconv.Itoa(s.cfg.Core.PingLimit),
		"agent_reregister_timeout": mesosDuration(s.cfg.Core.ReregisterTimeout), "allocator": "hierarchical",
		"max_completed_frameworks":          strconv.Itoa(s.cfg.Core.CompletedKept),
		"max_completed_tasks_per_framework": strconv.Itoa(s.cfg.Core.CompletedTasks),
		"hostname":                          s.self.GetHostname(), "port": strconv.Itoa(int(s.self.GetPort())),
		"framework_sorter": "drf", "role_sorter": "drf",
	}
	for k, v := range s.cfg.Flags {
		all[k] = v
	}
	var out []*mesosv1.Flag
	for _, name := range sortedKeys(all) {
		out = append(out, &mesosv1.Flag{Name: new(name), Value: new(all[name])})
	}
	return out
}

// mesosDuration prints 15s as 15secs.
func mesosDuration(d time.Duration) string {
	for _, u := range []struct {
		size time.Duration
		name string
	}{{24 * time.Hour, "days"}, {time.Hour, "hrs"}, {time.Minute, "mins"}, {time.Second, "secs"}, {time.Millisecond, "ms"}} {
		if d >= u.size && d%u.size == 0 {
			return strconv.FormatInt(int64(d/u.size), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(d), 10) + "ns"
}

func (s *Server) getAgents(v *viewer, snap *master.Snapshot) *masterv1.Response_GetAgents {
	out := &masterv1.Response_GetAgents{}
	for i := range snap.Agents {
		out.Agents = append(out.Agents, agentEntry(v.agent(&snap.Agents[i])))
	}
	for i := range snap.Recovered {
		out.RecoveredAgents = append(out.RecoveredAgents, agentMessage(&snap.Recovered[i]))
	}
	return out
}

func agentEntry(a *master.AgentView) *masterv1.Response_GetAgents_Agent {
	x := &masterv1.Response_GetAgents_Agent{
		AgentInfo: agentMessage(&a.AgentInfo), Active: new(a.Active()), Deactivated: new(a.Marks.Deactivated || a.Marks.Drain != nil), DrainInfo: drainInfo(a.Marks.Drain), Version: &a.Version, Pid: &a.PID,
		RegisteredTime: timeInfo(a.Registered), TotalResources: convert.ResourcesTo(a.Resources, convert.Both),
		AllocatedResources: convert.ResourcesTo(a.Used, convert.Both), OfferedResources: convert.ResourcesTo(a.Offered, convert.Both),
	}
	if a.Marks.Drain != nil {
		x.EstimatedDrainStartTime = timeInfo(a.Marks.Drain.Since)
	}
	if !a.Reregister.IsZero() {
		x.ReregisteredTime = timeInfo(a.Reregister)
	}
	for _, name := range a.CapabilityNames {
		c := mesosv1.AgentInfo_Capability_Type(mesosv1.AgentInfo_Capability_Type_value[name])
		x.Capabilities = append(x.Capabilities, &mesosv1.AgentInfo_Capability{Type: &c})
	}
	return x
}

// agentMessage is an agent's own description with its ID.
func agentMessage(a *master.AgentInfo) *mesosv1.AgentInfo {
	out := &mesosv1.AgentInfo{}
	if proto.Unmarshal(a.Origin, out) != nil {
		out = &mesosv1.AgentInfo{Hostname: &a.Hostname}
	}
	for _, r := range out.Resources {
		upgrade(r)
	}
	out.Id = &mesosv1.AgentID{Value: &a.ID}
	return out
}

func (s *Server) getFrameworks(snap *master.Snapshot) (*masterv1.Response_GetFrameworks, error) {
	out := &masterv1.Response_GetFrameworks{}
	for i := range snap.Frameworks {
		f, err := s.frameworkEntry(&snap.Frameworks[i])
		if err != nil {
			return nil, err
		}
		out.Frameworks = append(out.Frameworks, f)
	}
	for i := range snap.Completed {
		f, err := s.frameworkEntry(&snap.Completed[i])
		if err != nil {
			return nil, err
		}
		out.CompletedFrameworks = append(out.CompletedFrameworks, f)
	}
	return out, nil
}

func (s *Server) frameworkEntry(f *master.FrameworkView) (*masterv1.Response_GetFrameworks_Framework, error) {
	info, err := frameworkMessage(&f.FrameworkInfo)
	if err != nil {
		return nil, err
	}
	out := &masterv1.Response_GetFrameworks_Framework{
		FrameworkInfo: info, Active: &f.Active, Connected: &f.Connected, Recovered: &f.Recovered, RegisteredTime: timeInfo(f.Registered),
		AllocatedResources: convert.ResourcesTo(usedBy(f), convert.Both), OfferedResources: convert.ResourcesTo(offeredTo(f), convert.Both),
	}
	if !f.Reregister.IsZero() {
		out.ReregisteredTime = timeInfo(f.Reregister)
	}
	if !f.Removed.IsZero() {
		out.UnregisteredTime = timeInfo(f.Removed)
	}
	for _, o := range f.Offers {
		out.Offers = append(out.Offers, s.registry.offerMessage(o, &master.Capabilities{MultiRole: true, ReservationRefinement: true}))
	}
	return out, nil
}

// getState is the whole in one message.
func (s *Server) getState(v *viewer, snap *master.Snapshot) (*masterv1.Response_GetState, error) {
	out, err := s.besideTasks(v, snap)
	if err == nil {
		out.GetTasks = getTasks(snap)
	}
	return out, err
}

func getExecutors(snap *master.Snapshot) (*masterv1.Response_GetExecutors, error) {
	out := &masterv1.Response_GetExecutors{}
	for _, e := range snap.Executors {
		info := &mesosv1.ExecutorInfo{}
		if err := proto.Unmarshal(e.Origin, info); err != nil {
			return nil, err
		}
		info.FrameworkId = &mesosv1.FrameworkID{Value: &e.Framework}
		out.Executors = append(out.Executors, &masterv1.Response_GetExecutors_Executor{ExecutorInfo: info, AgentId: &mesosv1.AgentID{Value: &e.Agent}})
	}
	return out, nil
}

func getRoles(_ *viewer, snap *master.Snapshot) (*masterv1.Response, error) {
	out := &masterv1.Response_GetRoles{}
	for i := range snap.Roles {
		r := &snap.Roles[i]
		role := &mesosv1.Role{Name: &r.Name, Weight: &r.Weight}
		for _, id := range r.Frameworks {
			role.Frameworks = append(role.Frameworks, &mesosv1.FrameworkID{Value: new(id)})
		}
		role.Resources = convert.ResourcesTo(r.Allocated.Resources(), convert.Both)
		out.Roles = append(out.Roles, role)
	}
	return &masterv1.Response{Type: masterv1.Response_GET_ROLES.Enum(), GetRoles: out}, nil
}

func (s *Server) getMetrics(_ *viewer, snap *master.Snapshot) (*masterv1.Response, error) {
	out := &masterv1.Response_GetMetrics{}
	all := s.metrics(snap)
	for _, name := range sortedKeys(all) {
		out.Metrics = append(out.Metrics, &mesosv1.Metric{Name: new(name), Value: new(all[name])})
	}
	return &masterv1.Response{Type: masterv1.Response_GET_METRICS.Enum(), GetMetrics: out}, nil
}
