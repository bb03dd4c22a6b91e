package server

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/master/authz"
	"github.com/mesopool/mesopool/mesos/convert"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// The older endpoints' JSON. Names and shapes are those of
// master/readonly_handler.cpp and common/http.cpp.

func (s *Server) writeState(j *jsonWriter, q *query) {
	snap := q.snap
	j.object(func() {
		s.writeSelf(j, snap)
		if q.sees.any(authz.ViewFlags) {
			s.writeFlags(j)
		}
		j.key("slaves")
		j.array(func() { s.writeAgents(j, q, false) })
		s.writeRecovered(j, snap)
		writeFrameworks(j, q)
		j.key("orphan_tasks")
		j.array(func() {})
		j.key("unregistered_frameworks")
		j.array(func() {})
	})
}

func (s *Server) writeSelf(j *jsonWriter, snap *master.Snapshot) {
	j.member("version", s.cfg.Version)
	s.writeBuild(j)
	j.time("start_time", s.started)
	j.time("elected_time", s.elected)
	j.member("id", s.cfg.ID)
	j.member("pid", s.self.GetPid())
	j.member("hostname", s.self.GetHostname())
	j.texts("capabilities", []string{"AGENT_UPDATE", "AGENT_DRAINING", "QUOTA_V2"})
	active := 0
	for i := range snap.Agents {
		if snap.Agents[i].Active() {
			active++
		}
	}
	j.float("activated_slaves", float64(active))
	j.float("deactivated_slaves", float64(len(snap.Agents)-active))
	j.float("unreachable_slaves", float64(snap.Unreachable))
	if s.cfg.Cluster != "" {
		j.member("cluster", s.cfg.Cluster)
	}
	j.member("leader", s.self.GetPid())
	j.key("leader_info")
	j.object(func() {
		j.member("id", s.cfg.ID)
		j.member("pid", s.self.GetPid())
		j.int("port", int64(s.self.GetPort()))
		j.member("hostname", s.self.GetHostname())
	})
}

func (s *Server) writeBuild(j *jsonWriter) {
	b := s.cfg.Build
	if b.SHA != "" {
		j.member("git_sha", b.SHA)
	}
	if b.Branch != "" {
		j.member("git_branch", b.Branch)
	}
	if b.Tag != "" {
		j.member("git_tag", b.Tag)
	}
	j.member("build_date", b.Date.UTC().Format("2006-01-02 15:04:05 MST"))
	j.time("build_time", b.Date)
	j.member("build_user", b.User)
}

func (s *Server) writeVersion(j *jsonWriter, _ *query) {
	j.object(func() {
		s.writeBuild(j)
		j.member("version", s.cfg.Version)
	})
}

func (s *Server) writeFlags(j *jsonWriter) {
	j.key("flags")
	j.object(func() {
		for _, f := range s.flags() {
			j.member(f.GetName(), f.GetValue())
		}
	})
}

func (s *Server) writeFlagsOnly(j *jsonWriter, _ *query) { j.object(func() { s.writeFlags(j) }) }

// scalarNames are always printed.
var scalarNames = []string{"disk", "mem", "gpus", "cpus"}

// writeAmounts prints sums by name: reservations and other marks aside.
func writeAmounts(j *jsonWriter, name string, r resources.Resources) {
	j.key(name)
	j.buf = append(j.buf, '{')
	var sums [4]resources.Milli // of scalarNames
	plain := true
	for i := range r {
		k := -1
		if r[i].Kind == resources.KindScalar {
			k = slices.Index(scalarNames, r[i].Name)
		}
		if k < 0 {
			plain = false
			continue
		}
		sums[k] += r[i].Scalar
	}
	for k, n := range scalarNames {
		j.milli(n, sums[k])
	}
	if !plain {
		for _, x := range r.Scalars() {
			if !slices.Contains(scalarNames, x.Name) {
				j.milli(x.Name, x.Amount)
			}
		}
		writeOthers(j, r)
	}
	j.buf = append(j.buf, '}')
}

func writeOthers(j *jsonWriter, r resources.Resources) {
	ranges, sets := map[string]resources.Ranges{}, map[string][]string{}
	for i := range r {
		switch r[i].Kind {
		case resources.KindRanges:
			ranges[r[i].Name] = ranges[r[i].Name].Union(r[i].Ranges)
		case resources.KindSet:
			sets[r[i].Name] = append(sets[r[i].Name], r[i].Set...)
		}
	}
	for _, n := range sortedKeys(ranges) {
		j.member(n, ranges[n].String())
	}
	for _, n := range sortedKeys(sets) {
		j.member(n, "{"+strings.Join(sets[n], ", ")+"}")
	}
}

func reservedTo(r resources.Resources) map[string]resources.Resources {
	out := map[string]resources.Resources{}
	for i := range r {
		if role := r[i].ReservedTo(); len(r[i].Reservations) > 0 {
			out[role] = append(out[role], r[i])
		}
	}
	return out
}

func (s *Server) writeAgents(j *jsonWriter, q *query, full bool) {
	j.each(len(q.snap.Agents), func(j *jsonWriter, i int) {
		if a := &q.snap.Agents[i]; q.agent == "" || q.agent == a.ID {
			j.object(func() { s.writeAgent(j, q.sees, a, full) })
		}
	})
}

// writeAgent prints sums of all, and of single resources those that the viewer
// may see.
func (s *Server) writeAgent(j *jsonWriter, v *viewer, a *master.AgentView, full bool) {
	s.writeAgentInfo(j, &a.AgentInfo)
	j.member("pid", a.PID)
	j.time("registered_time", a.Registered)
	if !a.Reregister.IsZero() {
		j.time("reregistered_time", a.Reregister)
	}
	writeAmounts(j, "resources", a.Resources)
	writeAmounts(j, "used_resources", a.Used)
	writeAmounts(j, "offered_resources", a.Offered)
	reserved := reservedTo(v.resources(a.Resources))
	j.key("reserved_resources")
	j.object(func() {
		for _, role := range sortedKeys(reserved) {
			writeAmounts(j, role, reserved[role])
		}
	})
	writeAmounts(j, "unreserved_resources", a.Resources.Unreserved())
	j.bool("active", a.Active())
	j.bool("deactivated", a.Marks.Deactivated || a.Marks.Drain != nil)
	if d := a.Marks.Drain; d != nil {
		j.message("drain_info", drainInfo(d))
		j.time("estimated_drain_start_time", d.Since)
	}
	j.member("version", a.Version)
	j.texts("capabilities", a.CapabilityNames)
	if full {
		writeFull(j, v.agent(a), reserved)
	}
}

func writeFull(j *jsonWriter, a *master.AgentView, reserved map[string]resources.Resources) {
	j.key("reserved_resources_full")
	j.object(func() {
		for _, role := range sortedKeys(reserved) {
			writeResources(j, role, reserved[role])
		}
	})
	writeResources(j, "unreserved_resources_full", a.Resources.Unreserved())
	writeResources(j, "used_resources_full", a.Used)
	writeResources(j, "offered_resources_full", a.Offered)
}

func writeResources(j *jsonWriter, name string, list resources.Resources) {
	j.key(name)
	j.array(func() {
		for _, r := range convert.ResourcesTo(list, convert.Both) {
			j.element(r)
		}
	})
}

func (s *Server) writeAgentInfo(j *jsonWriter, a *master.AgentInfo) {
	j.member("id", a.ID)
	j.member("hostname", a.Hostname)
	j.int("port", int64(a.Port))
	j.key("attributes")
	j.object(func() {
		for _, x := range s.registry.agent(a.ID).attributes {
			writeAttribute(j, x)
		}
	})
}

func writeAttribute(j *jsonWriter, a *mesosv1.Attribute) {
	switch a.GetType() {
	case mesosv1.Value_SCALAR:
		j.float(a.GetName(), a.GetScalar().GetValue())
	case mesosv1.Value_RANGES:
		var list resources.Ranges
		for _, r := range a.GetRanges().GetRange() {
			list = append(list, resources.Range{Begin: r.GetBegin(), End: r.GetEnd()})
		}
		j.member(a.GetName(), list.String())
	case mesosv1.Value_SET:
		j.member(a.GetName(), "{"+strings.Join(a.GetSet().GetItem(), ", ")+"}")
	default:
		j.member(a.GetName(), a.GetText().GetValue())
	}
}

func (s *Server) writeRecovered(j *jsonWriter, snap *master.Snapshot) {
	j.key("recovered_slaves")
	j.array(func() {
		for i := range snap.Recovered {
			j.object(func() { s.writeAgentInfo(j, &snap.Recovered[i]) })
		}
	})
}

func (s *Server) writeSlaves(j *jsonWriter, q *query) {
	j.object(func() {
		j.key("slaves")
		j.array(func() { s.writeAgents(j, q, true) })
		s.writeRecovered(j, q.snap)
	})
}

func (s *Server) writeFrameworksOnly(j *jsonWriter, q *query) {
	j.object(func() {
		writeFrameworks(j, q)
		j.key("unregistered_frameworks")
		j.array(func() {})
	})
}

func writeFrameworks(j *jsonWriter, q *query) {
	for _, x := range []struct {
		name string
		list []master.FrameworkView
	}{{"frameworks", q.snap.Frameworks}, {"completed_frameworks", q.snap.Completed}} {
		j.key(x.name)
		j.array(func() {
			for i := range x.list {
				if q.framework == "" || q.framework == x.list[i].ID {
					j.object(func() { writeFramework(j, &x.list[i]) })
				}
			}
		})
	}
}

func usedBy(f *master.FrameworkView) resources.Resources {
	var used resources.Resources
	for _, t := range f.Tasks {
		if !t.State.Terminal() {
			used = addPlain(used, t.Resources)
		}
	}
	for _, e := range f.Executors {
		used = used.Add(e.Resources...)
	}
	return used
}

// addPlain is Add, in place and quick for plain scalars: sum is nobody else's.
func addPlain(sum, more resources.Resources) resources.Resources {
next:
	for i := range more {
		x := &more[i]
		for k := range sum {
			if s := &sum[k]; s.Name == x.Name && s.Role == x.Role && isPlain(s) && isPlain(x) {
				s.Scalar += x.Scalar
				continue next
			}
		}
		sum = sum.Add(*x)
	}
	return sum
}

func isPlain(r *resources.Resource) bool {
	return r.Kind == resources.KindScalar && len(r.Reservations) == 0 && r.Disk == nil && !r.Revocable && !r.Shared && r.Provider == ""
}

func offeredTo(f *master.FrameworkView) resources.Resources {
	var offered resources.Resources
	for _, o := range f.Offers {
		offered = offered.Add(o.Resources...)
	}
	return offered
}

func writeFrameworkSummary(j *jsonWriter, f *master.FrameworkView, used, offered resources.Resources) {
	j.member("id", f.ID)
	j.member("name", f.Name)
	writeAmounts(j, "used_resources", used)
	writeAmounts(j, "offered_resources", offered)
	info := originOf(f)
	j.key("capabilities")
	j.array(func() {
		for _, c := range info.GetCapabilities() {
			j.text(c.GetType().String())
		}
	})
	j.member("hostname", f.Hostname)
	if f.PID != "" {
		j.member("pid", f.PID)
	}
	j.member("webui_url", f.WebUI)
	j.bool("active", f.Active)
	j.bool("connected", f.Connected)
	j.bool("recovered", f.Recovered)
}

func originOf(f *master.FrameworkView) *mesosv1.FrameworkInfo {
	info, err := frameworkMessage(&f.FrameworkInfo)
	if err != nil {
		return &mesosv1.FrameworkInfo{}
	}
	return info
}

func writeFramework(j *jsonWriter, f *master.FrameworkView) {
	used, offered := usedBy(f), offeredTo(f)
	writeFrameworkSummary(j, f, used, offered)
	j.member("user", f.User)
	j.float("failover_timeout", f.FailoverTimeout.Seconds())
	j.bool("checkpoint", f.Checkpoint)
	j.time("registered_time", f.Registered)
	j.time("unregistered_time", f.Removed)
	if f.Principal != "" {
		j.member("principal", f.Principal)
	}
	writeAmounts(j, "resources", used.Add(offered...))
	if f.Capabilities.MultiRole {
		j.texts("roles", f.Roles)
	} else if len(f.Roles) > 0 {
		j.member("role", f.Roles[0])
	}
	writeTasks(j, "tasks", f.Tasks)
	writeTasks(j, "unreachable_tasks", f.Unreachable)
	writeTasks(j, "completed_tasks", f.Done)
	writeOffers(j, f)
	j.key("executors")
	j.array(func() {
		for _, e := range f.Executors {
			j.object(func() { writeExecutor(j, e) })
		}
	})
	if !f.Reregister.IsZero() {
		j.time("reregistered_time", f.Reregister)
	}
	if info := originOf(f); info.Labels != nil {
		writeLabels(j, info.Labels)
	}
	j.key("offer_constraints")
	j.object(func() {})
}

// writeExecutor prints an executor as its framework described it.
func writeExecutor(j *jsonWriter, e *master.Executor) {
	info := &mesosv1.ExecutorInfo{}
	if proto.Unmarshal(e.Origin, info) != nil {
		return
	}
	j.member("executor_id", e.ID)
	j.member("name", info.GetName())
	j.member("framework_id", e.Framework)
	j.message("command", info.GetCommand())
	writeAmounts(j, "resources", e.Resources)
	j.member("slave_id", e.Agent)
}

func writeLabels(j *jsonWriter, l *mesosv1.Labels) {
	j.key("labels")
	j.array(func() {
		for _, x := range l.Labels {
			j.element(x)
		}
	})
}

func writeOffers(j *jsonWriter, f *master.FrameworkView) {
	j.key("offers")
	j.array(func() {
		for _, o := range f.Offers {
			j.object(func() {
				j.member("id", o.ID)
				j.member("framework_id", o.Framework)
				j.message("allocation_info", &mesosv1.Resource_AllocationInfo{Role: &o.Role})
				j.member("slave_id", o.Agent)
				writeAmounts(j, "resources", o.Resources)
			})
		}
	})
}

func writeTasks(j *jsonWriter, name string, list []*master.Task) {
	j.key(name)
	j.array(func() {
		j.each(len(list), func(j *jsonWriter, i int) { j.object(func() { writeTask(j, list[i]) }) })
	})
}

func writeTask(j *jsonWriter, t *master.Task) {
	j.member("id", t.Key.ID)
	j.member("name", t.Name)
	j.member("framework_id", t.Key.Framework)
	j.member("executor_id", t.Executor)
	j.member("slave_id", t.Agent)
	j.member("state", t.State.String())
	writeAmounts(j, "resources", t.Resources)
	if role := t.Role(); role != "" {
		j.member("role", role)
	}
	j.key("statuses")
	j.array(func() {
		for i := range t.Statuses {
			j.object(func() { writeStatus(j, &t.Statuses[i]) })
		}
	})
	writeOrigin(j, t)
}

// numbers are those of the fields that the older endpoints print.
type numbers struct{ limits, user, labels, discovery, container, healthCheck protowire.Number }

func numbersOf(m proto.Message) numbers {
	n := func(name protoreflect.Name) protowire.Number {
		if f := m.ProtoReflect().Descriptor().Fields().ByName(name); f != nil {
			return f.Number()
		}
		return 0
	}
	return numbers{n("limits"), n("user"), n("labels"), n("discovery"), n("container"), n("health_check")}
}

var (
	taskNumbers = numbersOf(&mesosv1.Task{})

	statusFields    = (&mesosv1.TaskStatus{}).ProtoReflect().Descriptor().Fields()
	statusLabels    = statusFields.ByName("labels").Number()
	statusContainer = statusFields.ByName("container_status").Number()
	statusHealthy   = statusFields.ByName("healthy").Number()

	containerDesc = (&mesosv1.ContainerStatus{}).ProtoReflect().Descriptor()
	executorPID   = containerDesc.Fields().ByName("executor_pid").Number()

	labelsDesc    = (&mesosv1.Labels{}).ProtoReflect().Descriptor()
	discoveryDesc = (&mesosv1.DiscoveryInfo{}).ProtoReflect().Descriptor()
	infoDesc      = (&mesosv1.ContainerInfo{}).ProtoReflect().Descriptor()
	healthDesc    = (&mesosv1.HealthCheck{}).ProtoReflect().Descriptor()
)

func writeStatus(j *jsonWriter, st *master.Status) {
	j.member("state", st.State.String())
	j.time("timestamp", st.Time)
	p := partsOf(st.More)
	if labels := p[statusLabels]; labels != nil {
		j.labels(labels)
	}
	if c := p[statusContainer]; c != nil {
		if partsOf(c)[executorPID] != nil {
			c = without(c, 1<<executorPID)
		}
		j.wire("container_status", containerDesc, c)
	}
	if healthy := p[statusHealthy]; healthy != nil {
		j.bool("healthy", healthy[0] != 0)
	}
}

// writeOrigin prints what the framework said of the task.
func writeOrigin(j *jsonWriter, t *master.Task) {
	if j.again(t.More) { // it comes after other members, so the comma is right
		return
	}
	from := len(j.buf)
	defer func() { j.remember(t.More, from) }()
	n, p := &taskNumbers, partsOf(t.More)
	if p[n.limits] != nil {
		writeLimits(j, t)
	}
	if user := p[n.user]; user != nil {
		j.member("user", string(user))
	}
	if labels := p[n.labels]; labels != nil {
		j.labels(labels)
	}
	for _, x := range []struct {
		name string
		n    protowire.Number
		desc protoreflect.MessageDescriptor
	}{{"discovery", n.discovery, discoveryDesc}, {"container", n.container, infoDesc}, {"health_check", n.healthCheck, healthDesc}} {
		if part := p[x.n]; part != nil {
			j.wire(x.name, x.desc, part)
		}
	}
}

func writeLimits(j *jsonWriter, t *master.Task) {
	m := &mesosv1.Task{}
	if partialRead.Unmarshal(t.More, m) != nil {
		return
	}
	j.key("limits")
	j.object(func() {
		for _, n := range sortedKeys(m.Limits) {
			j.float(n, m.Limits[n].GetValue())
		}
	})
}

func (s *Server) writeTaskList(j *jsonWriter, q *query) {
	all := q.tasks()
	j.object(func() { writeTasks(j, "tasks", all) })
}

// tallyStates are the states that summaries count.
var tallyStates = []task.State{
	task.Staging, task.Starting, task.Running, task.Killing, task.Finished, task.Killed, task.Failed, task.Lost,
	task.Error, task.Dropped, task.Unreachable, task.Gone, task.GoneByOperator, task.Unknown,
}

// summary counts tasks by state and by what they have in common.
type summary struct {
	states map[task.State]int
	others map[string]bool // agents of a framework, or frameworks of an agent
}

func (m summaries) of(id string) *summary {
	if m[id] == nil {
		m[id] = &summary{map[task.State]int{}, map[string]bool{}}
	}
	return m[id]
}

type summaries map[string]*summary

func (m summaries) add(id, other string, s task.State) {
	x := m.of(id)
	x.states[s]++
	x.others[other] = true
}

func summarize(snap *master.Snapshot) (agents, frameworks summaries) {
	agents, frameworks = summaries{}, summaries{}
	for i := range snap.Frameworks {
		f := &snap.Frameworks[i]
		for _, list := range [][]*master.Task{f.Tasks, f.Unreachable, f.Done} {
			for _, t := range list {
				agents.add(t.Agent, f.ID, t.State)
				frameworks.add(f.ID, t.Agent, t.State)
			}
		}
	}
	return agents, frameworks
}

func writeSummary(j *jsonWriter, x *summary, others string) {
	for _, st := range tallyStates {
		j.int(st.String(), int64(x.states[st]))
	}
	j.texts(others, sortedKeys(x.others))
}

func (s *Server) writeStateSummary(j *jsonWriter, q *query) {
	agents, frameworks := summarize(q.snap)
	j.object(func() {
		j.member("hostname", s.self.GetHostname())
		if s.cfg.Cluster != "" {
			j.member("cluster", s.cfg.Cluster)
		}
		j.key("slaves")
		j.array(func() {
			for i := range q.snap.Agents {
				a := &q.snap.Agents[i]
				j.object(func() {
					s.writeAgent(j, q.sees, a, false)
					writeSummary(j, agents.of(a.ID), "framework_ids")
				})
			}
		})
		j.key("frameworks")
		j.array(func() {
			for i := range q.snap.Frameworks {
				f := &q.snap.Frameworks[i]
				j.object(func() {
					writeFrameworkSummary(j, f, usedBy(f), offeredTo(f))
					writeSummary(j, frameworks.of(f.ID), "slave_ids")
				})
			}
		})
	})
}

func (s *Server) writeRoles(j *jsonWriter, q *query) {
	j.object(func() {
		j.key("roles")
		j.array(func() {
			for i := range q.snap.Roles {
				j.object(func() { writeRole(j, q.snap, &q.snap.Roles[i]) })
			}
		})
	})
}

func writeRole(j *jsonWriter, snap *master.Snapshot, r *master.RoleView) {
	var offered, used, reserved resources.Resources
	for i := range snap.Agents {
		inRole := func(x *resources.Resource) bool { return x.Role == r.Name }
		offered = offered.Add(snap.Agents[i].Offered.Filter(inRole)...)
		used = used.Add(snap.Agents[i].Used.Filter(inRole)...)
		reserved = reserved.Add(snap.Agents[i].Resources.Filter(func(x *resources.Resource) bool {
			return len(x.Reservations) > 0 && x.ReservedTo() == r.Name
		})...)
	}
	j.member("name", r.Name)
	j.float("weight", r.Weight)
	j.texts("frameworks", r.Frameworks)
	writeAmounts(j, "resources", used.Add(offered...))
	writeAmounts(j, "allocated", used)
	writeAmounts(j, "offered", offered)
	writeAmounts(j, "reserved", reserved)
	j.key("quota")
	j.object(func() { writeRoleQuota(j, snap, r.Name) })
}

func writeRoleQuota(j *jsonWriter, snap *master.Snapshot, role string) {
	j.member("role", role)
	writeAmounts(j, "consumed", snap.Consumed[role].Resources())
	var q master.Quota
	if i := slices.IndexFunc(snap.Quotas, func(q master.Quota) bool { return q.Role == role }); i >= 0 {
		q = snap.Quotas[i]
	}
	j.key("guarantee")
	j.object(func() {
		for _, x := range q.Guarantees {
			j.float(x.Name, x.Amount.Float())
		}
	})
	j.key("limit")
	j.object(func() {
		for _, name := range sortedKeys(q.Limits) {
			j.float(name, q.Limits[name].Float())
		}
	})
}
