// Package authz decides who may do what: Mesos' access control lists
// (acls.proto, authorizer/local/authorizer.cpp). It is a pure function of the
// lists, who asks, and what about; it knows nothing of how people prove who they
// are, nor what is done with the answer.
//
//	acls, err := authz.Parse(text)
//	ok := acls.Allows(who, authz.RunTask, "root")
package authz

import (
	"slices"
	"strings"
)

// Subject is who asks. The zero value is anybody.
type Subject struct {
	Name string // the principal; "" when nobody has proven anything
	// Nameless is somebody who has proven claims without a name among them. There
	// is nothing in the lists to allow them anything.
	Nameless bool
}

// Action is what ACLs are about: the name of its list in Mesos' JSON.
type Action string

// The actions of a master, and what their objects are.
const (
	RegisterFramework         Action = "register_frameworks"          // roles
	RegisterAgent             Action = "register_agents"              // any
	RunTask                   Action = "run_tasks"                    // the task's user
	TeardownFramework         Action = "teardown_frameworks"          // the framework's principal
	ReserveResources          Action = "reserve_resources"            // roles
	UnreserveResources        Action = "unreserve_resources"          // the reserver's principal
	CreateVolume              Action = "create_volumes"               // roles
	DestroyVolume             Action = "destroy_volumes"              // the creator's principal
	ResizeVolume              Action = "resize_volumes"               // roles
	GetQuota                  Action = "get_quotas"                   // roles
	UpdateQuota               Action = "update_quotas"                // roles
	UpdateWeight              Action = "update_weights"               // roles
	ViewRole                  Action = "view_roles"                   // roles
	ViewFramework             Action = "view_frameworks"              // the framework's user
	ViewTask                  Action = "view_tasks"                   // the task's user
	ViewExecutor              Action = "view_executors"               // the executor's user
	ViewFlags                 Action = "view_flags"                   // any
	GetEndpoint               Action = "get_endpoints"                // paths
	SetLogLevel               Action = "set_log_level"                // any
	UpdateMaintenanceSchedule Action = "update_maintenance_schedules" // any
	GetMaintenanceSchedule    Action = "get_maintenance_schedules"    // any
	GetMaintenanceStatus      Action = "get_maintenance_statuses"     // any
	StartMaintenance          Action = "start_maintenances"           // any
	StopMaintenance           Action = "stop_maintenances"            // any
	DrainAgent                Action = "drain_agents"                 // any
	DeactivateAgent           Action = "deactivate_agents"            // any
	ReactivateAgent           Action = "reactivate_agents"            // any
	MarkAgentGone             Action = "mark_agents_gone"             // any
)

// ACLs are the lists. Nil allows everything. They do not change after Parse.
type ACLs struct {
	permissive bool // what happens where no rule matches
	rules      map[Action][]rule
}

// rule is one entry of a list; the first that matches decides.
type rule struct {
	principals, objects entity
	below               string // "eng/": the roles below eng, in place of objects
}

type kind int

const (
	some kind = iota
	anything
	nothing
)

// entity is whom or what a rule is about. NONE matches all, to refuse them.
type entity struct {
	kind   kind
	values []string
}

// request is whom or what somebody asks about: any, or one value.
type request struct {
	any   bool
	value string
}

// The two matrices of authorizer.cpp, matches and allows, without its requests
// for NONE, which nobody makes.

func (e *entity) matches(r request) bool {
	switch e.kind {
	case some:
		return !r.any && slices.Contains(e.values, r.value)
	default:
		return true
	}
}

func (e *entity) allows(r request) bool {
	switch e.kind {
	case anything:
		return true
	case some:
		return !r.any && slices.Contains(e.values, r.value)
	default:
		return false
	}
}

// Allows says whether somebody may do something with all of the objects; none
// are any.
func (a *ACLs) Allows(who Subject, action Action, objects ...string) bool {
	switch {
	case a == nil:
		return true
	case who.Nameless:
		return false
	case len(objects) == 0:
		return a.decide(who, action, request{any: true})
	}
	for _, o := range objects {
		if !a.decide(who, action, request{value: o}) {
			return false
		}
	}
	return true
}

// Registers says whether a framework may have the roles. One without roles may
// register where nothing forbids it.
func (a *ACLs) Registers(who Subject, roles []string) bool {
	if a != nil && len(roles) == 0 && !who.Nameless {
		return a.permissive
	}
	return a.Allows(who, RegisterFramework, roles...)
}

func (a *ACLs) decide(who Subject, action Action, object request) bool {
	subject := request{value: who.Name, any: who.Name == ""}
	for i := range a.rules[action] {
		r := &a.rules[action][i]
		if !r.principals.matches(subject) {
			continue
		}
		if r.below != "" {
			if !object.any && strings.HasPrefix(object.value, r.below) {
				return r.principals.allows(subject)
			}
			continue
		}
		if r.objects.matches(object) {
			return r.principals.allows(subject) && r.objects.allows(object)
		}
	}
	return a.permissive
}
