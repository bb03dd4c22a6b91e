package server

import (
	"context"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/master/authz"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	maintenancev1 "github.com/mesopool/mesopool/mesos/v1/maintenance"
	"github.com/mesopool/mesopool/resources"
)

// viewer is what somebody may see. It is not safe for concurrent use: it
// remembers what the lists have said.
type viewer struct {
	acls *authz.ACLs // nil: everything
	who  authz.Subject
	said map[seen]bool
}

type seen struct {
	action authz.Action
	object string
}

func (s *Server) viewer(ctx context.Context) *viewer {
	return &viewer{acls: s.cfg.Auth.ACLs, who: subject(ctx), said: map[seen]bool{}}
}

func (v *viewer) sees(action authz.Action, object string) bool {
	if v.acls == nil {
		return true
	}
	key := seen{action, object}
	ok, known := v.said[key]
	if !known {
		ok = v.acls.Allows(v.who, action, object)
		v.said[key] = ok
	}
	return ok
}

// any says whether the viewer may see what has no objects to tell apart.
func (v *viewer) any(action authz.Action) bool { return v.acls.Allows(v.who, action) }

func (v *viewer) task(t *master.Task, frameworkUser string) bool {
	if v.acls == nil {
		return true
	}
	user := userOf(t)
	if user == "" {
		user = frameworkUser
	}
	return v.sees(authz.ViewTask, user)
}

// The fields on the way from an ExecutorInfo and a Task to the user.
const (
	executorInfoCommand = 7
	commandInfoUser     = 5
	taskUser            = 14
)

// userOf is the user that a task itself names, "" when it names none.
func userOf(t *master.Task) string { return string(field(t.More, taskUser)) }

func (v *viewer) executor(e *master.Executor, frameworkUser string) bool {
	if v.acls == nil {
		return true
	}
	user := string(field(field(e.Origin, executorInfoCommand), commandInfoUser))
	if user == "" {
		user = frameworkUser
	}
	return v.sees(authz.ViewExecutor, user)
}

// resource: one that is reserved or allocated to roles is seen by those who see
// them (common/http.hpp, approved of VIEW_ROLE).
func (v *viewer) resource(r *resources.Resource) bool {
	if v.acls == nil {
		return true
	}
	if len(r.Reservations) > 0 && !v.sees(authz.ViewRole, r.ReservedTo()) {
		return false
	}
	return r.Role == "" || v.sees(authz.ViewRole, r.Role)
}

func (v *viewer) resources(list resources.Resources) resources.Resources {
	if v.acls == nil {
		return list
	}
	return list.Filter(v.resource)
}

// snapshot is what the viewer may see of a snapshot: the same one, or a copy
// without the rest.
func (v *viewer) snapshot(s *master.Snapshot) *master.Snapshot {
	if v.acls == nil {
		return s
	}
	out := *s
	user := map[string]string{}
	out.Frameworks, out.Completed = v.frameworks(s.Frameworks, user), v.frameworks(s.Completed, user)
	out.Executors = kept(s.Executors, func(e *master.Executor) bool {
		u, visible := user[e.Framework]
		return visible && v.executor(e, u)
	})
	out.Roles = kept(s.Roles, func(r master.RoleView) bool { return v.sees(authz.ViewRole, r.Name) })
	out.Quotas = kept(s.Quotas, func(q master.Quota) bool { return v.sees(authz.GetQuota, q.Role) })
	out.Operations = kept(s.Operations, v.operation)
	out.Weights = map[string]float64{}
	for role, w := range s.Weights {
		if v.sees(authz.ViewRole, role) {
			out.Weights[role] = w
		}
	}
	return &out
}

// frameworks are those that the viewer may see; their users are noted by ID.
func (v *viewer) frameworks(list []master.FrameworkView, users map[string]string) []master.FrameworkView {
	var out []master.FrameworkView
	for _, f := range list {
		if !v.sees(authz.ViewFramework, f.User) {
			continue
		}
		users[f.ID] = f.User
		see := func(t *master.Task) bool { return v.task(t, f.User) }
		f.Tasks, f.Unreachable, f.Done = kept(f.Tasks, see), kept(f.Unreachable, see), kept(f.Done, see)
		f.Executors = kept(f.Executors, func(e *master.Executor) bool { return v.executor(e, f.User) })
		out = append(out, f)
	}
	return out
}

// operation: those on resources of roles that the viewer sees.
func (v *viewer) operation(o *master.Operation) bool {
	for _, role := range rolesIn(o.Wire) {
		if !v.sees(authz.ViewRole, role) {
			return false
		}
	}
	return true
}

// maintenance is how machines stand, for those who may know.
func (v *viewer) maintenance(s *master.Snapshot) *maintenancev1.ClusterStatus {
	if !v.any(authz.GetMaintenanceStatus) {
		return &maintenancev1.ClusterStatus{}
	}
	return statusMessageOf(s)
}

// schedule is the plan, for those who may know.
func (v *viewer) schedule(s *master.Snapshot) *maintenancev1.Schedule {
	if !v.any(authz.GetMaintenanceSchedule) {
		return &maintenancev1.Schedule{}
	}
	return scheduleMessage(s)
}

// agent is an agent with the resources that the viewer may see.
func (v *viewer) agent(a *master.AgentView) *master.AgentView {
	if v.acls == nil {
		return a
	}
	out := *a
	out.Resources, out.Used, out.Offered = v.resources(a.Resources), v.resources(a.Used), v.resources(a.Offered)
	return &out
}

// note says whether the viewer may hear of something, and what of it.
func (v *viewer) note(n master.Note) (master.Note, bool) {
	if v.acls == nil {
		return n, true
	}
	switch n := n.(type) {
	case master.TaskAdded:
		return n, v.sees(authz.ViewFramework, n.User) && v.task(n.Task, n.User)
	case master.TaskUpdated:
		return n, v.sees(authz.ViewFramework, n.User) && v.task(n.Task, n.User)
	case master.FrameworkAdded:
		return n, v.sees(authz.ViewFramework, n.Framework.User)
	case master.FrameworkChanged:
		return n, v.sees(authz.ViewFramework, n.Framework.User)
	case master.FrameworkRemoved:
		return n, v.sees(authz.ViewFramework, n.Framework.User)
	case master.AgentAdded:
		return master.AgentAdded{Agent: *v.agent(&n.Agent)}, true
	}
	return n, true
}

// rolesIn are the roles that an operation's resources are reserved or allocated
// to.
func rolesIn(wire []byte) (roles []string) {
	op := &mesosv1.Offer_Operation{}
	if proto.Unmarshal(wire, op) != nil {
		return nil
	}
	for _, list := range operationResources(op) {
		for _, r := range list {
			if n := len(r.Reservations); n > 0 {
				roles = append(roles, r.Reservations[n-1].GetRole())
			}
			if r.AllocationInfo != nil {
				roles = append(roles, r.AllocationInfo.GetRole())
			}
		}
	}
	return roles
}

// kept is a new list of what keep says.
func kept[T any](list []T, keep func(T) bool) []T {
	return slices.DeleteFunc(slices.Clone(list), func(x T) bool { return !keep(x) })
}
