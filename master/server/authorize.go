package server

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/master/authz"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/resources"
)

// frameworkSubject is who a framework is to the lists: the principal that it has
// named, which is the one that it has proven where it had to
// (framework.cpp, createObjectApprovers).
func frameworkSubject(f *master.FrameworkInfo) authz.Subject { return authz.Subject{Name: f.Principal} }

// principalProblem: who has proven to be somebody does not call itself somebody
// else (master/validation.cpp, scheduler::call::validate).
func principalProblem(who authz.Subject, f *mesosv1.FrameworkInfo) string {
	if who.Name == "" || f == nil || f.Principal == nil || f.GetPrincipal() == who.Name {
		return ""
	}
	return fmt.Sprintf("Authenticated principal '%s' does not match principal '%s' set in `FrameworkInfo`", who.Name, f.GetPrincipal())
}

// adoptPrincipal gives a framework the principal that it has proven, where it names none
// (master/http.cpp, scheduler).
func adoptPrincipal(who authz.Subject, f *mesosv1.FrameworkInfo) {
	if who.Name != "" && f.Principal == nil {
		f.Principal = &who.Name
	}
}

// registrationProblem says which roles a framework may not have.
func (s *Server) registrationProblem(f *master.FrameworkInfo) string {
	if s.cfg.Auth.ACLs.Registers(frameworkSubject(f), f.Roles) {
		return ""
	}
	return fmt.Sprintf("Not authorized to register framework %s with roles { %s }", f.ID, strings.Join(f.Roles, ", "))
}

// forbidLaunches refuses the launches as users that a framework may not run
// tasks as; of a group all, if it may not run one. The users are those of the
// launches, before their executors are filled in.
func (s *Server) forbidLaunches(f *master.FrameworkInfo, users []string, launches []master.Launch) {
	acls := s.cfg.Auth.ACLs
	if acls == nil {
		return
	}
	for i, user := range users {
		if acls.Allows(frameworkSubject(f), authz.RunTask, user) {
			continue
		}
		id := launches[i].ID
		why := fmt.Sprintf("Task '%s' is not authorized to launch task %s of framework %s under user '%s'", id, id, f.ID, user)
		launches[i].Invalid, launches[i].Unauthorized = why, true
	}
}

// usersOf are whom tasks will run as.
func usersOf(tasks []*mesosv1.TaskInfo, frameworkUser string) []string {
	out := make([]string, len(tasks))
	for i, t := range tasks {
		out[i] = frameworkUser
		switch {
		case t.GetCommand() != nil && t.Command.User != nil:
			out[i] = t.Command.GetUser()
		case t.GetExecutor().GetCommand() != nil && t.Executor.Command.User != nil:
			out[i] = t.Executor.Command.GetUser()
		}
	}
	return out
}

// forbidden says whether somebody may not do an operation
// (master/authorization.cpp).
func (s *Server) forbidden(who authz.Subject, ch *master.Change) bool {
	action, objects := operationObjects(&ch.Op)
	return !s.cfg.Auth.ACLs.Allows(who, action, objects...)
}

// operationObjects are what an operation is about; none where nothing names it.
func operationObjects(op *resources.Operation) (action authz.Action, objects []string) {
	role := func(r *resources.Resource) string { return r.ReservedTo() }
	creator := func(r *resources.Resource) string {
		if r.Disk == nil {
			return ""
		}
		return r.Disk.Principal
	}
	reserver := func(r *resources.Resource) string {
		if n := len(r.Reservations); n > 0 {
			return r.Reservations[n-1].Principal
		}
		return ""
	}
	object := role
	switch op.Kind {
	case resources.OpReserve:
		action = authz.ReserveResources
	case resources.OpUnreserve:
		action, object = authz.UnreserveResources, reserver
	case resources.OpCreate:
		action = authz.CreateVolume
	case resources.OpDestroy:
		action, object = authz.DestroyVolume, creator
	default:
		return authz.ResizeVolume, []string{role(&op.Volume)}
	}
	for i := range op.Target {
		o := object(&op.Target[i])
		if o == "" && op.Kind == resources.OpUnreserve {
			return action, nil // reserved by nobody in particular: who may for any
		}
		objects = append(objects, o)
	}
	return action, objects
}

// mayEnd says whether the one who asks may end a framework, and that there is
// one.
func (s *Server) mayEnd(ctx context.Context, framework string) error {
	if s.cfg.Auth.ACLs == nil {
		return nil
	}
	var principal string
	var known bool
	if err := s.View(ctx, func(core *master.Core) { principal, known = core.Principal(framework) }); err != nil {
		return failf(http.StatusServiceUnavailable, "%v", err)
	}
	if !known {
		return failf(http.StatusBadRequest, "No framework found with specified ID %q", framework)
	}
	return s.allowed(ctx, authz.TeardownFramework, principal)
}
