package authz

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// list says how the entries of an action's list are written.
type list struct {
	object string   // the name of the part about objects
	roles  bool     // they may be of the form eng/%
	whole  string   // the message's name, of those that are about any or none
	among  []string // values that are allowed
}

// lists are all of acls.proto. What is an agent's business is read, so that one
// file serves all, and then not used.
var lists = map[string]list{
	"register_frameworks": {object: "roles", roles: true}, "reserve_resources": {object: "roles", roles: true},
	"create_volumes": {object: "roles", roles: true}, "resize_volumes": {object: "roles", roles: true},
	"get_quotas": {object: "roles", roles: true}, "update_quotas": {object: "roles", roles: true},
	"update_weights": {object: "roles", roles: true}, "view_roles": {object: "roles", roles: true},
	"create_block_disks": {object: "roles", roles: true}, "destroy_block_disks": {object: "roles", roles: true},
	"create_mount_disks": {object: "roles", roles: true}, "destroy_mount_disks": {object: "roles", roles: true},
	"destroy_raw_disks": {object: "roles", roles: true},

	"run_tasks": {object: "users"}, "view_frameworks": {object: "users"}, "view_tasks": {object: "users"}, "view_executors": {object: "users"},
	"access_sandboxes": {object: "users"}, "launch_nested_containers_as_user": {object: "users"},
	"launch_nested_containers_under_parent_with_user": {object: "users"}, "launch_nested_container_sessions_as_user": {object: "users"},
	"launch_nested_container_sessions_under_parent_with_user": {object: "users"}, "attach_containers_input": {object: "users"},
	"attach_containers_output": {object: "users"}, "kill_nested_containers": {object: "users"}, "wait_nested_containers": {object: "users"},
	"remove_nested_containers": {object: "users"}, "view_containers": {object: "users"}, "launch_standalone_containers": {object: "users"},
	"kill_standalone_containers": {object: "users"}, "wait_standalone_containers": {object: "users"},
	"remove_standalone_containers": {object: "users"}, "view_standalone_containers": {object: "users"},

	"teardown_frameworks": {object: "framework_principals"}, "unreserve_resources": {object: "reserver_principals"},
	"destroy_volumes": {object: "creator_principals"},
	"get_endpoints": {object: "paths", among: []string{
		"/containers", "/containerizer/debug", "/files/debug", "/logging/toggle", "/metrics/snapshot", "/monitor/statistics",
	}},

	"access_mesos_logs": {object: "logs", whole: "AccessMesosLog"}, "view_flags": {object: "flags", whole: "ViewFlags"},
	"set_log_level": {object: "level", whole: "SetLogLevel"}, "register_agents": {object: "agents", whole: "RegisterAgent"},
	"update_maintenance_schedules": {object: "machines", whole: "UpdateMaintenanceSchedule"},
	"get_maintenance_schedules":    {object: "machines", whole: "GetMaintenanceSchedule"},
	"start_maintenances":           {object: "machines", whole: "StartMaintenance"},
	"stop_maintenances":            {object: "machines", whole: "StopMaintenance"},
	"get_maintenance_statuses":     {object: "machines", whole: "GetMaintenanceStatus"},
	"drain_agents":                 {object: "agents", whole: "DrainAgent"}, "deactivate_agents": {object: "agents", whole: "DeactivateAgent"},
	"reactivate_agents": {object: "agents", whole: "ReactivateAgent"}, "mark_agents_gone": {object: "agents", whole: "MarkAgentGone"},
	"modify_resource_provider_configs": {object: "resource_providers", whole: "ModifyResourceProviderConfig"},
	"mark_resource_providers_gone":     {object: "resource_providers", whole: "MarkResourceProvidersGone"},
	"view_resource_providers":          {object: "resource_providers", whole: "ViewResourceProvider"},
	"prune_images":                     {object: "images", whole: "PruneImages"},
}

// Parse reads ACLs in Mesos' JSON, {"permissive": false, "run_tasks":
// [{"principals": {"type": "ANY"}, "users": {"values": ["www"]}}]}. A name that
// is not known is an error: a rule that is not read protects nothing.
func Parse(text []byte) (*ACLs, error) {
	var file map[string]json.RawMessage
	if err := json.Unmarshal(text, &file); err != nil || file == nil {
		return nil, errors.Join(errors.New(`acls: no JSON of the form {"permissive": true, "run_tasks": [{"principals": {…}, "users": {…}}]}`), err)
	}
	a := &ACLs{permissive: true, rules: map[Action][]rule{}}
	for name, value := range file {
		switch l, known := lists[name]; {
		case string(value) == "null":
		case name == "permissive":
			if err := json.Unmarshal(value, &a.permissive); err != nil {
				return nil, fmt.Errorf("acls: permissive is %s; it must be true or false", value)
			}
		case !known:
			return nil, fmt.Errorf("acls: %q is no list of ACLs; those of Mesos have names such as run_tasks and view_frameworks", name)
		default:
			rules, err := l.rules(name, value)
			if err != nil {
				return nil, fmt.Errorf("acls: %w", err)
			}
			a.rules[Action(name)] = rules
		}
	}
	return a, nil
}

func (l *list) rules(name string, text []byte) ([]rule, error) {
	var entries []map[string]json.RawMessage
	if err := json.Unmarshal(text, &entries); err != nil {
		return nil, fmt.Errorf("%s is no list of objects", name)
	}
	var out []rule
	for i, e := range entries {
		path := fmt.Sprintf("%s[%d]", name, i)
		for part := range e {
			if part != "principals" && part != l.object {
				return nil, fmt.Errorf("%s has %q; it must have principals and %s", path, part, l.object)
			}
		}
		principals, err := readEntity(path+".principals", e["principals"])
		if err != nil {
			return nil, err
		}
		objects, err := readEntity(path+"."+l.object, e[l.object])
		if err != nil {
			return nil, err
		}
		if err := l.check(path+"."+l.object, objects); err != nil {
			return nil, err
		}
		out = append(out, l.split(principals, objects)...)
	}
	return out, nil
}

// check is LocalAuthorizer::validate.
func (l *list) check(path string, objects entity) error {
	if l.whole != "" && objects.kind == some {
		return fmt.Errorf("%s: ACL.%s type must be either NONE or ANY", path, l.whole)
	}
	for _, v := range objects.values {
		if l.among != nil && objects.kind == some && !slices.Contains(l.among, v) {
			return fmt.Errorf("%s: Path: '%s' is not an authorizable path; those are %s", path, v, strings.Join(l.among, ", "))
		}
	}
	return nil
}

// split makes rules of their own of roles that stand for all below them, which
// come first (authorizer.cpp, createHierarchicalRoleACLs).
func (l *list) split(principals, objects entity) (out []rule) {
	if !l.roles || objects.kind != some {
		return []rule{{principals: principals, objects: objects}}
	}
	plain := entity{}
	for _, v := range objects.values {
		if parent, ok := strings.CutSuffix(v, "/%"); ok {
			out = append(out, rule{principals: principals, below: parent + "/"})
		} else {
			plain.values = append(plain.values, v)
		}
	}
	if len(plain.values) > 0 {
		out = append(out, rule{principals: principals, objects: plain})
	}
	return out
}

func readEntity(path string, text []byte) (entity, error) {
	if text == nil {
		return entity{}, fmt.Errorf(`%s is missing; it must be {"type": "ANY"}, {"type": "NONE"} or {"values": ["…"]}`, path)
	}
	var in struct {
		Type   *string  `json:"type"`
		Values []string `json:"values"`
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return entity{}, fmt.Errorf(`%s is %s; it must be {"type": "ANY"}, {"type": "NONE"} or {"values": ["…"]}`, path, text)
	}
	switch {
	case in.Type == nil || *in.Type == "SOME":
		return entity{values: in.Values}, nil
	case *in.Type == "ANY":
		return entity{kind: anything}, nil
	case *in.Type == "NONE":
		return entity{kind: nothing}, nil
	}
	return entity{}, fmt.Errorf("%s.type is %q; it must be SOME, ANY or NONE", path, *in.Type)
}
