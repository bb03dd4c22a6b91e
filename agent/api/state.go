package api

import (
	"cmp"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/agent"
	"github.com/mesopool/mesopool/mesos/convert"
	"github.com/mesopool/mesopool/mesos/link"
	"github.com/mesopool/mesopool/mesos/mesosjson"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/resources"
)

// amounts are resources as the older JSON has them: the four scalars always,
// ranges and sets as text.
func amounts(r resources.Resources) map[string]any {
	out := map[string]any{"cpus": 0.0, "mem": 0.0, "disk": 0.0, "gpus": 0.0}
	for _, s := range r.Scalars() {
		out[s.Name] = s.Amount.Float()
	}
	for i := range r {
		switch r[i].Kind {
		case resources.KindRanges:
			out[r[i].Name] = strings.ReplaceAll(r[i].Ranges.String(), ",", ", ")
		case resources.KindSet:
			out[r[i].Name] = "{" + strings.Join(r[i].Set, ", ") + "}"
		}
	}
	return out
}

func message(m proto.Message) json.RawMessage { return mesosjson.Marshal(m) }

func full(r resources.Resources) []json.RawMessage {
	out := []json.RawMessage{}
	for _, x := range convert.ResourcesTo(r, convert.Both) {
		out = append(out, message(x))
	}
	return out
}

func reserved(r resources.Resources) (byRole map[string]any, whole map[string]any) {
	lists := map[string]resources.Resources{}
	for i := range r {
		if role := r[i].ReservedTo(); role != "*" {
			lists[role] = lists[role].Add(r[i])
		}
	}
	byRole, whole = map[string]any{}, map[string]any{}
	for role, list := range lists {
		byRole[role], whole[role] = amounts(list), full(list)
	}
	return byRole, whole
}

// used is what the tasks that have not ended take.
func used(roster agent.Roster) resources.Resources {
	var out resources.Resources
	for i := range roster.Tasks {
		if t := &roster.Tasks[i]; !t.State.Terminal() {
			out = out.Add(t.Spec.Resources.Allocated("")...)
		}
	}
	return out
}

// taskJSON is a task as /state has it (common/http.cpp, json(Task)).
func (a *api) taskJSON(t *agent.Task) map[string]any {
	out := map[string]any{
		"id": t.Spec.Key.ID, "name": t.Spec.Name, "framework_id": t.Spec.Key.Framework, "executor_id": "", "slave_id": a.cfg.ID(),
		"state": t.State.String(), "resources": amounts(t.Spec.Resources), "role": role(t), "statuses": []any{},
	}
	m, err := link.TaskMessage(t, a.cfg.ID())
	if err != nil || m == nil {
		return out
	}
	statuses := []any{}
	for _, s := range m.Statuses {
		x := map[string]any{"state": s.GetState().String(), "timestamp": s.GetTimestamp()}
		if s.ContainerStatus != nil {
			x["container_status"] = message(s.ContainerStatus)
		}
		if s.Healthy != nil {
			x["healthy"] = *s.Healthy
		}
		statuses = append(statuses, x)
	}
	out["statuses"] = statuses
	if m.Labels != nil {
		out["labels"] = json.RawMessage(encode(labels(m.Labels)))
	}
	if m.Discovery != nil {
		out["discovery"] = message(m.Discovery)
	}
	if m.Container != nil {
		out["container"] = message(m.Container)
	}
	if m.HealthCheck != nil {
		out["health_check"] = message(m.HealthCheck)
	}
	return out
}

func labels(in *mesosv1.Labels) []map[string]string {
	out := []map[string]string{}
	for _, l := range in.Labels {
		out = append(out, map[string]string{"key": l.GetKey(), "value": l.GetValue()})
	}
	return out
}

func role(t *agent.Task) string {
	if len(t.Spec.Resources) == 0 {
		return "*"
	}
	return cmp.Or(t.Spec.Resources[0].Role, "*")
}

// executorJSON: every task is its own executor, as for a genuine agent's command
// tasks.
func (a *api) executorJSON(t *agent.Task, done bool) map[string]any {
	now, before := []any{a.taskJSON(t)}, []any{}
	if done || t.State.Terminal() {
		now, before = before, now
	}
	id := t.Spec.Key.ID
	return map[string]any{
		"id": id, "name": "Command Executor (Task: " + id + ")", "source": id, "container": cmp.Or(t.Container.ID, t.Name), "directory": a.directory(t),
		"resources": amounts(t.Spec.Resources), "role": role(t), "tasks": now, "queued_tasks": []any{}, "completed_tasks": before,
	}
}

// frameworkJSON is a framework without its executors.
func frameworkJSON(f *agent.Framework) map[string]any {
	info := frameworkInfo(f)
	out := map[string]any{
		"id": f.ID, "name": info.GetName(), "user": info.GetUser(), "failover_timeout": info.GetFailoverTimeout(), "checkpoint": info.GetCheckpoint(),
		"hostname": info.GetHostname(), "executors": []any{}, "completed_executors": []any{},
	}
	if info.Principal != nil {
		out["principal"] = info.GetPrincipal()
	}
	if len(info.Roles) > 0 {
		out["roles"] = info.Roles
	} else {
		out["role"] = info.GetRole()
	}
	return out
}

func frameworkInfo(f *agent.Framework) *mesosv1.FrameworkInfo {
	info := &mesosv1.FrameworkInfo{}
	if proto.Unmarshal(f.Origin, info) != nil || len(f.Origin) == 0 {
		info = &mesosv1.FrameworkInfo{User: new(""), Name: new("")}
	}
	info.Id = &mesosv1.FrameworkID{Value: &f.ID}
	return info
}

// frameworks are those with tasks, and those that only have had some.
func (a *api) frameworks(roster agent.Roster) (active, completed []any) {
	active, completed = []any{}, []any{}
	byID := map[string]map[string]any{}
	for i := range roster.Frameworks {
		f := frameworkJSON(&roster.Frameworks[i])
		byID[roster.Frameworks[i].ID] = f
		active = append(active, f)
	}
	for i := range roster.Tasks {
		t := &roster.Tasks[i]
		if f := byID[t.Spec.Key.Framework]; f != nil {
			f["executors"] = append(f["executors"].([]any), a.executorJSON(t, false))
		}
	}
	for i := range roster.Completed {
		t := &roster.Completed[i]
		f := byID[t.Spec.Key.Framework]
		if f == nil {
			f = frameworkJSON(&t.Framework)
			f["id"] = t.Spec.Key.Framework
			byID[t.Spec.Key.Framework] = f
			completed = append(completed, f)
		}
		f["completed_executors"] = append(f["completed_executors"].([]any), a.executorJSON(&t.Task, true))
	}
	return active, completed
}

// unacknowledged counts the tasks with an update that waits for its
// acknowledgement.
func unacknowledged(roster agent.Roster) int {
	n := 0
	for i := range roster.Tasks {
		if roster.Tasks[i].Pending != nil {
			n++
		}
	}
	return n
}

// state is Mesos' /state (slave/http.cpp, state).
func (a *api) state(w http.ResponseWriter, r *http.Request) {
	roster, ok := a.roster(w, r)
	if !ok {
		return
	}
	total := a.cfg.Total()
	byRole, whole := reserved(total)
	active, completed := a.frameworks(roster)
	master, registered := a.cfg.Master()
	attributes := map[string]any{}
	for _, x := range a.cfg.Attributes {
		attributes[x.GetName()] = x.GetText().GetValue()
		if x.Scalar != nil {
			attributes[x.GetName()] = x.Scalar.GetValue()
		}
	}
	out := map[string]any{
		"version": a.cfg.Version, "id": a.cfg.ID(), "pid": a.cfg.PID, "hostname": a.cfg.Hostname, "capabilities": link.CapabilityNames(),
		"resources": amounts(total), "reserved_resources": byRole, "reserved_resources_full": whole,
		"unreserved_resources": amounts(total.Unreserved()), "unreserved_resources_full": full(total.Unreserved()),
		"reserved_resources_allocated": map[string]any{}, "unreserved_resources_allocated": amounts(used(roster)), "resource_providers": []any{},
		"master_hostname": master, "registered": registered, "start_time": float64(a.cfg.Started.UnixNano()) / 1e9,
		"attributes": attributes, "frameworks": active, "completed_frameworks": completed, "flags": a.cfg.Flags,
		"kept_containers": roster.Kept, "orphans": roster.Orphans, "unacknowledged_updates": unacknowledged(roster),
	}
	if a.cfg.Domain != nil {
		out["domain"] = message(a.cfg.Domain)
	}
	if roster.Drain != nil {
		out["drain_config"] = message(drainConfig(roster.Drain))
	}
	if a.cfg.Log != nil {
		out["external_log_file"] = agentLog
	}
	a.answer(w, r, out)
}

func drainConfig(d *agent.DrainConfig) *mesosv1.DrainConfig {
	out := &mesosv1.DrainConfig{MarkGone: &d.MarkGone}
	if d.MaxGrace != nil {
		out.MaxGracePeriod = &mesosv1.DurationInfo{Nanoseconds: new(int64(*d.MaxGrace / time.Nanosecond))}
	}
	return out
}
