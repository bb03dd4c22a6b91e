package marathon

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"strings"
	"time"
)

// Group is what is kept of a group besides its apps. A group without a record
// exists while there are apps in it.
type Group struct {
	ID           string   `json:"id"`
	Dependencies []string `json:"dependencies"`
	EnforceRole  bool     `json:"enforceRole"`
	Version      string   `json:"version"`
}

// Tree is the definition of a group with all that is in it, flat.
type Tree struct {
	Groups  []*Group // the root first
	Apps    []*App
	Version string   // not "": go back to it, and nothing else counts
	ScaleBy *float64 // not nil: multiply the instances, and nothing else counts
}

// ID is the root's.
func (t *Tree) ID() string { return t.Groups[0].ID }

// groupFields is a group as people write it.
type groupFields struct {
	ID           string            `json:"id"`
	Apps         []json.RawMessage `json:"apps"`
	Groups       []json.RawMessage `json:"groups"`
	Pods         []json.RawMessage `json:"pods"`
	Dependencies []string          `json:"dependencies"`
	EnforceRole  bool              `json:"enforceRole"`
	Version      string            `json:"version"`
	ScaleBy      *float64          `json:"scaleBy"`
}

// ReadGroup reads a group's definition: IDs in it are relative to the group
// they are in, or absolute and below it. base is the group that the root is
// relative to, and the root itself when the definition has no ID; role is the
// one for apps that name none.
func ReadGroup(text []byte, base, role string) (*Tree, error) {
	t := &Tree{}
	g := groupReader{tree: t, role: role, seen: map[string]bool{}}
	g.read(text, base, "", true)
	if g.failed != nil {
		return nil, g.failed
	}
	return t, nil
}

type groupReader struct {
	tree   *Tree
	role   string
	seen   map[string]bool // IDs
	failed *BadDefinition
}

// fail keeps what is wrong, with the path of the part that it is in.
func (r *groupReader) fail(err error, where string) {
	var bad *BadDefinition
	if !errors.As(err, &bad) {
		bad = problem("", "%v", err)
	}
	if len(bad.Problems) == 0 {
		bad.Problems = []Problem{{Errors: []string{bad.Text}}}
	}
	if r.failed == nil {
		r.failed = &BadDefinition{Syntax: bad.Syntax}
	}
	for _, p := range bad.Problems {
		path := where + p.Path
		if path == "" {
			path = "/"
		}
		r.failed.Problems = append(r.failed.Problems, Problem{Path: path, Errors: p.Errors})
	}
}

func (r *groupReader) read(text []byte, base, where string, root bool) {
	var f groupFields
	if string(text) == "null" {
		r.fail(problem("", "a group is an object, not null"), where)
		return
	}
	if err := json.Unmarshal(text, &f); err != nil {
		r.fail(&BadDefinition{Syntax: true, Text: typeError(err), Problems: wrongTypes[groupFields](text)}, where)
		return
	}
	id := base
	if f.ID != "" || !root {
		id = r.child(f.ID, base, where+"/id")
	}
	if root {
		if r.tree.ScaleBy = f.ScaleBy; f.Apps == nil && f.Pods == nil && f.Groups == nil { // else it is an answer of ours, sent back
			r.tree.Version = f.Version
		}
	}
	if f.ScaleBy != nil && *f.ScaleBy < 0 {
		r.fail(problem("/scaleBy", "got %v, expected 0 or more", *f.ScaleBy), where)
	}
	r.tree.Groups = append(r.tree.Groups, &Group{ID: id, Dependencies: dependenciesOf(f.Dependencies, id), EnforceRole: f.EnforceRole})
	for n, a := range f.Apps {
		r.app(a, id, fmt.Sprintf("%s/apps(%d)", where, n), build)
	}
	for n, p := range f.Pods {
		r.app(p, id, fmt.Sprintf("%s/pods(%d)", where, n), buildPod)
	}
	for n, g := range f.Groups {
		r.read(g, id, fmt.Sprintf("%s/groups(%d)", where, n), false)
	}
}

// dependenciesOf: a bare name is a neighbour, dots go up from the group itself.
func dependenciesOf(list []string, id string) []string {
	out := []string{}
	for _, d := range list {
		base := path.Dir(id)
		if strings.HasPrefix(strings.TrimSpace(d), ".") {
			base = id
		}
		out = append(out, absolute(d, base))
	}
	return out
}

// child makes an ID absolute; it must be below the group that it is in.
func (r *groupReader) child(id, base, where string) string {
	full := absolute(id, base)
	var c checker
	inside := base == "/" || strings.HasPrefix(full, base+"/") || full == base && where == "/id"
	if full != "/" || where != "/id" {
		c.id("", full)
	}
	c.must(inside, "", "identifier %s is not child of %s", full, base)
	c.must(!r.seen[full], "", "%s is there twice", full)
	r.seen[full] = true
	if len(c.problems) > 0 {
		r.fail(&BadDefinition{Problems: c.problems}, where)
	}
	return full
}

func (r *groupReader) app(text []byte, base, where string, build func(map[string]json.RawMessage, string) (*App, error)) {
	fields, err := readFields(text)
	if err != nil {
		r.fail(err, where)
		return
	}
	var id string
	if err := json.Unmarshal(fields["id"], &id); err != nil {
		r.fail(problem("/id", "must be a text"), where)
		return
	}
	fields["id"], _ = json.Marshal(r.child(id, base, where+"/id"))
	a, err := build(fields, r.role)
	if err != nil {
		r.fail(err, where)
		return
	}
	r.tree.Apps = append(r.tree.Apps, a)
}

// ChangeGroup is a wish about a group and all that is in it, as one deployment.
// Without Put the group is deleted.
type ChangeGroup struct {
	DeploymentID string
	ID           string // of the group to delete
	Put          *Tree
	Force        bool
	Create       bool // must not exist
	Author
}

func (ChangeGroup) input() {}

// SetEnforceRole is a group's only property that changes without a deployment.
type SetEnforceRole struct {
	ID      string
	Enforce bool
}

func (SetEnforceRole) input() {}

func (c *Core) changeGroup(now time.Time, in ChangeGroup, fx []Effect) ([]Effect, error) {
	change, err := c.groupChange(in)
	if err != nil {
		return fx, err
	}
	id := in.ID
	if in.Put != nil {
		id = in.Put.ID()
	}
	fx, err = c.change(now, change, fx)
	if err != nil {
		return fx, err
	}
	return append(fx, Event{Type: "group_change_success", Time: now, Body: map[string]any{"groupId": id, "version": c.VersionOf(in.DeploymentID)}}), nil
}

// groupChange is what a wish about a group means for its apps.
func (c *Core) groupChange(in ChangeGroup) (Change, error) {
	out := Change{DeploymentID: in.DeploymentID, Force: in.Force, Author: in.Author}
	if in.Put == nil {
		if !c.hasGroup(in.ID) {
			return out, notFound("Group", in.ID)
		}
		out.Delete, out.DeleteGroups = c.below(in.ID), c.groupsFrom(in.ID)
		return out, nil
	}
	id := in.Put.ID()
	switch {
	case in.Create && c.hasGroup(id):
		return out, ErrExists
	case in.Put.Version != "":
		return c.groupBack(out, id, in.Put.Version)
	case in.Put.ScaleBy != nil:
		return c.groupScaled(out, id, *in.Put.ScaleBy)
	}
	c.replaceGroup(&out, in.Put)
	return out, nil
}

// replaceGroup puts what differs, and deletes what is no more.
func (c *Core) replaceGroup(out *Change, t *Tree) {
	named := map[string]bool{}
	for _, a := range t.Apps {
		named[a.ID] = true
		if a = c.filled(a); c.actionFor(a, out) != "" {
			out.Put = append(out.Put, a)
		}
	}
	out.Delete = slices.DeleteFunc(c.below(t.ID()), func(id string) bool { return named[id] })
	for _, g := range t.Groups {
		named[g.ID] = true
	}
	out.Groups = t.Groups
	out.DeleteGroups = slices.DeleteFunc(c.groupsFrom(t.ID()), func(id string) bool { return named[id] })
}

func (c *Core) groupScaled(out Change, id string, factor float64) (Change, error) {
	if !c.hasGroup(id) {
		return out, notFound("Group", id)
	}
	for _, app := range c.below(id) {
		def := *c.apps[app].def
		n := math.Ceil(float64(def.Instances) * factor)
		if n > mostInstances {
			return out, problem("/scaleBy", "%s would have %.0f instances, expected %d or less", app, n, mostInstances)
		}
		if def.Instances = int(n); def.Instances != c.apps[app].def.Instances {
			out.Put = append(out.Put, &def)
		}
	}
	return out, nil
}

// groupBack goes back to what the apps of the group were at a version, as far
// as their versions are kept; those that were not there yet are deleted.
func (c *Core) groupBack(out Change, id, version string) (Change, error) {
	versions, ok := c.GroupVersions(id)
	if !ok {
		return out, notFound("Group", id)
	}
	if !slices.Contains(versions, version) {
		return out, fmt.Errorf("Group '%s' %w in version %s", id, ErrNotFound, version)
	}
	for _, app := range c.below(id) {
		was := c.apps[app].asOf(version)
		switch {
		case was == nil:
			out.Delete = append(out.Delete, app)
		case c.actionFor(was, &out) != "":
			out.Put = append(out.Put, was)
		}
	}
	return out, nil
}

// asOf is the app's definition that was in force at a version, nil when it was
// not there.
func (a *app) asOf(version string) *App {
	for _, v := range a.versions {
		if v.Version <= version {
			return v
		}
	}
	return nil
}

// hasGroup says whether there is a group: the root, one with a record at or
// below it, or one with apps.
func (c *Core) hasGroup(id string) bool {
	return id == "/" || len(c.groupsFrom(id)) > 0 || len(c.below(id)) > 0
}

// groupsFrom lists the groups with records at and below an ID.
func (c *Core) groupsFrom(id string) []string {
	var out []string
	for g := range c.groups {
		if g == id || inGroup(g, id) {
			out = append(out, g)
		}
	}
	slices.Sort(out)
	return out
}

// inGroup says whether an ID is below a group's.
func inGroup(id, group string) bool {
	return group == "/" && id != "/" || len(id) > len(group) && id[len(group)] == '/' && id[:len(group)] == group
}

// putGroups makes and removes the records.
func (c *Core) putGroups(in Change, d *Deployment, fx []Effect) []Effect {
	note := func(id string) {
		if d.Groups == nil {
			d.Groups = map[string]*Group{}
		}
		d.Groups[id] = c.groups[id]
	}
	for _, g := range in.Groups {
		note(g.ID)
		next := *g
		next.Version = d.Version
		c.groups[g.ID] = &next
		fx = append(fx, Save{Key: KeyGroup + g.ID, Value: &next})
	}
	for _, id := range in.DeleteGroups {
		note(id)
		delete(c.groups, id)
		fx = append(fx, Save{Key: KeyGroup + id})
	}
	return fx
}

func (c *Core) setEnforceRole(in SetEnforceRole, fx []Effect) ([]Effect, error) {
	if !c.hasGroup(in.ID) {
		return fx, notFound("Group", in.ID)
	}
	if path.Dir(in.ID) != "/" || in.ID == "/" {
		return fx, problem("/enforceRole", "can only be changed for top-level groups, not for %s", in.ID)
	}
	next := Group{ID: in.ID, Dependencies: []string{}}
	if known := c.groups[in.ID]; known != nil {
		next = *known
	}
	next.EnforceRole = in.Enforce
	c.groups[in.ID] = &next
	return append(fx, Save{Key: KeyGroup + in.ID, Value: &next}), nil
}

// Groups returns copies of the records at and below an ID, and whether there is
// such a group at all.
func (c *Core) Groups(id string) ([]Group, bool) {
	var out []Group
	for _, g := range c.groupsFrom(id) {
		out = append(out, *c.groups[g])
	}
	return out, c.hasGroup(id)
}

// GroupVersions lists the versions of all that is in a group, newest first.
func (c *Core) GroupVersions(id string) ([]string, bool) {
	out := []string{}
	for _, app := range c.below(id) {
		for _, v := range c.apps[app].versions {
			out = append(out, v.Version)
		}
	}
	for _, g := range c.groupsFrom(id) {
		if v := c.groups[g].Version; v != "" {
			out = append(out, v)
		}
	}
	slices.Sort(out)
	out = slices.Compact(out)
	slices.Reverse(out)
	return out, c.hasGroup(id)
}

// GroupAsOf lists the definitions of a group's apps at one of its versions.
func (c *Core) GroupAsOf(id, version string) ([]*App, bool) {
	versions, _ := c.GroupVersions(id)
	var out []*App
	for _, app := range c.below(id) {
		if was := c.apps[app].asOf(version); was != nil {
			out = append(out, was)
		}
	}
	return out, slices.Contains(versions, version)
}

// PlanGroup says which steps a wish about a group would take, and changes
// nothing.
func (c *Core) PlanGroup(in ChangeGroup) ([][]Action, error) {
	change, err := c.groupChange(in)
	if err != nil {
		return nil, err
	}
	return c.Plan(change)
}
