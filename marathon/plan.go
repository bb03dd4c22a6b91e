package marathon

import (
	"maps"
	"path"
	"slices"
)

// Plan says which steps a change would take, and changes nothing. A lock is no
// reason to refuse to tell.
func (c *Core) Plan(in Change) ([][]Action, error) {
	in.Force = true
	c.fill(&in)
	if err := c.mayChange(in); err != nil {
		return nil, err
	}
	return c.steps(in), nil
}

// steps are those of a change, as Marathon orders them (DeploymentPlan.scala):
// stops, starts, and then what depends on nothing before what depends on it.
func (c *Core) steps(in Change) [][]Action {
	var steps [][]Action
	var stops, starts, layers []Action
	for _, id := range in.Delete {
		stops = append(stops, Action{ActionStop, id, c.apps[id].def.IsPod()})
	}
	for _, def := range in.Put {
		action := c.actionFor(def, &in)
		switch {
		case action == ActionStart:
			starts = append(starts, Action{ActionStart, def.ID, def.IsPod()})
			action = ActionScale
		case action == ActionRestart && def.Instances == 0:
			action = ActionScale
		}
		if action != "" {
			layers = append(layers, Action{action, def.ID, def.IsPod()})
		}
	}
	for _, step := range [][]Action{stops, starts} {
		if len(step) > 0 {
			steps = append(steps, step)
		}
	}
	return append(steps, c.after(in).layered(layers)...)
}

// actionFor is what a definition makes necessary: a start, scaling, a restart
// of all instances, or nothing.
func (c *Core) actionFor(def *App, in *Change) string {
	known := c.apps[def.ID]
	switch {
	case known == nil || known.stopping:
		return ActionStart
	case slices.Contains(in.Restart, def.ID) || !sameConfig(known.def, def) && !(in.Live && sameTask(known.def, def)):
		return ActionRestart
	case known.def.Instances != def.Instances:
		return ActionScale
	}
	return ""
}

// outlook is what the tree of apps will be once a change is made.
type outlook struct {
	core   *Core
	apps   map[string]*App
	groups map[string]*Group
	gone   map[string]bool // apps and groups
}

func (c *Core) after(in Change) *outlook {
	o := &outlook{core: c, apps: map[string]*App{}, groups: map[string]*Group{}, gone: map[string]bool{}}
	for _, a := range in.Put {
		o.apps[a.ID] = a
	}
	for _, g := range in.Groups {
		o.groups[g.ID] = g
	}
	for _, id := range slices.Concat(in.Delete, in.DeleteGroups) {
		o.gone[id] = true
	}
	return o
}

// app is a definition, nil when there is none.
func (o *outlook) app(id string) *App {
	if def := o.apps[id]; def != nil || o.gone[id] {
		return def
	}
	if known := o.core.apps[id]; known != nil && !known.stopping {
		return known.def
	}
	return nil
}

func (o *outlook) group(id string) *Group {
	if g := o.groups[id]; g != nil || o.gone[id] {
		return g
	}
	return o.core.groups[id]
}

// below lists the apps of a group.
func (o *outlook) below(group string) []string {
	out := slices.DeleteFunc(o.core.below(group), func(id string) bool { return o.gone[id] || o.apps[id] != nil })
	for id := range o.apps {
		if inGroup(id, group) {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// dependencies are an app's own and those of the groups that it is in.
func (o *outlook) dependencies(def *App) []string {
	out := def.Dependencies
	if len(o.groups)+len(o.core.groups) == 0 {
		return out
	}
	for g := path.Dir(def.ID); ; g = path.Dir(g) {
		if rec := o.group(g); rec != nil && len(rec.Dependencies) > 0 {
			out = slices.Concat(out, rec.Dependencies)
		}
		if g == "/" {
			return out
		}
	}
}

// circular says whether an app depends on itself, over others or not.
func (o *outlook) circular(a *App) bool {
	seen := map[string]bool{}
	var walk func(ids []string) bool
	walk = func(ids []string) bool {
		for _, id := range ids {
			if id == a.ID || inGroup(a.ID, id) {
				return true
			}
			if seen[id] {
				continue
			}
			seen[id] = true
			def := o.app(id)
			if def != nil && walk(o.dependencies(def)) || def == nil && walk(o.below(id)) {
				return true
			}
		}
		return false
	}
	return walk(o.dependencies(a))
}

// layered orders actions so that what an app depends on comes before it.
func (o *outlook) layered(actions []Action) [][]Action {
	depth := map[string]int{}
	byDepth := map[int][]Action{}
	for _, a := range actions {
		d := o.depth(a.App, depth)
		byDepth[d] = append(byDepth[d], a)
	}
	var out [][]Action
	for _, d := range slices.Sorted(maps.Keys(byDepth)) {
		out = append(out, byDepth[d])
	}
	return out
}

// depth is the length of the longest way down from an app or group; known has
// those that were measured before.
func (o *outlook) depth(id string, known map[string]int) int {
	if d, ok := known[id]; ok {
		return d
	}
	known[id] = 0
	deepest := 0
	if def := o.app(id); def != nil {
		for _, dep := range o.dependencies(def) {
			deepest = max(deepest, o.depth(dep, known)+1)
		}
	} else {
		for _, app := range o.below(id) {
			deepest = max(deepest, o.depth(app, known))
		}
	}
	known[id] = deepest
	return deepest
}
