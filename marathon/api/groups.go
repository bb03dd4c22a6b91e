package api

import (
	"cmp"
	"encoding/json"
	"errors"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/mesopool/mesopool/internal/uuid"
	"github.com/mesopool/mesopool/marathon"
)

// groupInfo is a part of the tree of apps.
type groupInfo struct {
	ID           string          `json:"id"`
	Apps         []appInfo       `json:"apps,omitzero"`
	Pods         []*marathon.Pod `json:"pods"`
	Groups       []*groupInfo    `json:"groups,omitzero"`
	Dependencies []string        `json:"dependencies"`
	Version      string          `json:"version"`
	EnforceRole  bool            `json:"enforceRole"`
}

// groups routes on the end of the path: IDs hold slashes.
func (a *API) groups(w http.ResponseWriter, r *http.Request, parts []string) error {
	n := len(parts)
	get := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch {
	case get && n > 0 && parts[n-1] == "apps":
		return a.groupApps(w, r, pathOf(parts[:n-1]))
	case get && n > 0 && parts[n-1] == "versions":
		return a.groupVersions(w, r, pathOf(parts[:n-1]))
	case get && n > 1 && parts[n-2] == "versions":
		return a.groupAsOf(w, r, pathOf(parts[:n-2]), parts[n-1])
	}
	id := pathOf(parts)
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return a.showGroup(w, r, id)
	case http.MethodPost, http.MethodPut:
		return a.putGroup(w, r, id)
	case http.MethodPatch:
		return a.patchGroup(w, r, id)
	case http.MethodDelete:
		return a.changeGroup(w, r, http.StatusOK, marathon.ChangeGroup{ID: id})
	}
	return notAllowed(r)
}

func groupNotFound(id string) error { return missing("Group '" + id + "' does not exist") }

// subtree is a group as it is now.
type subtree struct {
	views   []marathon.AppView // apps, then pods
	records []marathon.Group
	known   bool
}

func (a *API) subtree(r *http.Request, id string, embed func(string) bool) (subtree, error) {
	t, err := see(r, a, func(c *marathon.Core) (t subtree) {
		t.records, t.known = c.Groups(id)
		inside := below(id)
		t.views = appsOf(c, inside, embed)
		t.views = append(t.views, c.Summaries(time.Now(), func(d *marathon.App) bool { return d.IsPod() && inside(d) })...)
		return t
	})
	if err == nil && !t.known {
		err = groupNotFound(id)
	}
	return t, err
}

func (a *API) showGroup(w http.ResponseWriter, r *http.Request, id string) error {
	embed := embeds(r.URL.Query())
	t, err := a.subtree(r, id, embed)
	if err != nil {
		return err
	}
	g := tree(id, t.views, t.records, embed)
	g.prune(groupEmbeds(r.URL.Query()["embed"]))
	return a.whole(w, r, g)
}

func (a *API) groupApps(w http.ResponseWriter, r *http.Request, id string) error {
	embed := embeds(r.URL.Query())
	t, err := a.subtree(r, id, embed)
	if err != nil {
		return err
	}
	list := []appInfo{}
	for i := range t.views {
		if !t.views[i].App.IsPod() {
			list = append(list, describe(&t.views[i], embed))
		}
	}
	return a.whole(w, r, list)
}

// groupEmbeds says what of a group is to be shown; without a word of it, all.
func groupEmbeds(list []string) (apps, pods, groups bool) {
	named := false
	for _, e := range list {
		switch {
		case strings.HasPrefix(e, "group.apps"):
			apps, named = true, true
		case e == "group.groups":
			groups, named = true, true
		case strings.HasPrefix(e, "group.pods"):
			pods, named = true, true
		}
	}
	return apps || !named, pods || !named, groups || !named
}

func (g *groupInfo) prune(apps, pods, groups bool) {
	if !pods {
		g.Pods = []*marathon.Pod{}
	}
	if !apps {
		g.Apps = nil
	}
	for _, sub := range g.Groups {
		sub.prune(apps, pods, groups)
	}
	if !groups {
		g.Groups = nil
	}
}

func (a *API) groupVersions(w http.ResponseWriter, r *http.Request, id string) error {
	known := false
	list, err := see(r, a, func(c *marathon.Core) []string {
		list, ok := c.GroupVersions(id)
		known = ok
		return list
	})
	if err == nil && !known {
		err = groupNotFound(id)
	}
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, list)
}

// groupAsOf shows a group's apps as they were at a version.
func (a *API) groupAsOf(w http.ResponseWriter, r *http.Request, id, version string) error {
	known := false
	views, err := see(r, a, func(c *marathon.Core) []marathon.AppView {
		defs, ok := c.GroupAsOf(id, version)
		known = ok
		views := make([]marathon.AppView, len(defs))
		for i, def := range defs {
			views[i].App = def
		}
		return views
	})
	if err == nil && !known {
		err = missing("Group '" + id + "' does not exist in version " + version)
	}
	if err != nil {
		return err
	}
	g := tree(id, views, nil, embeds(nil))
	g.Version = version
	return answer(w, http.StatusOK, g)
}

// putGroup makes a group (POST) or replaces all that is in it (PUT).
func (a *API) putGroup(w http.ResponseWriter, r *http.Request, id string) error {
	text, err := body(r)
	if err != nil {
		return err
	}
	def, err := marathon.ReadGroup(text, id, a.cfg.Role)
	if err != nil {
		return err
	}
	in := marathon.ChangeGroup{Put: def, Create: r.Method == http.MethodPost}
	code := http.StatusOK
	if in.Create {
		code = http.StatusCreated
		w.Header().Set("Location", "http://"+a.cfg.Address+"/v2/groups"+def.ID())
	}
	return a.changeGroup(w, r, code, in)
}

func (a *API) changeGroup(w http.ResponseWriter, r *http.Request, code int, in marathon.ChangeGroup) error {
	dry, err := flag(r, "dryRun", false)
	if err != nil {
		return err
	}
	if in.Force, err = flag(r, "force", false); err != nil {
		return err
	}
	in.DeploymentID, in.Author = uuid.New().String(), author(r)
	if dry && r.Method == http.MethodPut {
		return a.planGroup(w, r, in)
	}
	if err := a.cfg.Runner.Do(r.Context(), in); err != nil {
		return groupError(w, in, err)
	}
	version, err := a.versionOf(r, in.DeploymentID)
	if err != nil {
		return err
	}
	return deployed(w, code, in.DeploymentID, version)
}

func groupError(w http.ResponseWriter, in marathon.ChangeGroup, err error) error {
	w.Header().Del("Location")
	if errors.Is(err, marathon.ErrExists) {
		return &status{http.StatusConflict, "Group " + in.Put.ID() + " is already created. Use PUT to change this group."}
	}
	return err
}

func (a *API) planGroup(w http.ResponseWriter, r *http.Request, in marathon.ChangeGroup) error {
	var refused error
	steps, err := see(r, a, func(c *marathon.Core) [][]marathon.Action {
		steps, err := c.PlanGroup(in)
		refused = err
		return steps
	})
	if err := cmp.Or(err, refused); err != nil {
		return groupError(w, in, err)
	}
	return answer(w, http.StatusOK, map[string]any{"steps": stepsOf(steps)})
}

// patchGroup changes whether the role of a top-level group is enforced.
func (a *API) patchGroup(w http.ResponseWriter, r *http.Request, id string) error {
	text, err := body(r)
	if err != nil {
		return err
	}
	var in struct {
		EnforceRole *bool `json:"enforceRole"`
	}
	if err := json.Unmarshal(text, &in); err != nil {
		return &marathon.BadDefinition{Syntax: true, Text: err.Error()}
	}
	if in.EnforceRole == nil {
		return &status{http.StatusUnprocessableEntity, "only enforceRole can be changed by PATCH"}
	}
	if err := a.cfg.Runner.Do(r.Context(), marathon.SetEnforceRole{ID: id, Enforce: *in.EnforceRole}); err != nil {
		return err
	}
	return a.showGroup(w, r, id)
}

func tree(root string, views []marathon.AppView, records []marathon.Group, embed func(string) bool) *groupInfo {
	groups := map[string]*groupInfo{}
	var get func(id string) *groupInfo
	get = func(id string) *groupInfo {
		if g := groups[id]; g != nil {
			return g
		}
		g := &groupInfo{ID: id, Apps: []appInfo{}, Pods: []*marathon.Pod{}, Groups: []*groupInfo{}, Dependencies: []string{}, Version: marathon.Timestamp(time.Unix(0, 0))}
		groups[id] = g
		if id != root {
			parent := get(path.Dir(id))
			parent.Groups = append(parent.Groups, g)
		}
		return g
	}
	top := get(root)
	for i := range views {
		g := get(path.Dir(views[i].App.ID))
		if views[i].App.IsPod() {
			g.Pods = append(g.Pods, views[i].App.PodDefinition())
		} else {
			g.Apps = append(g.Apps, describe(&views[i], embed))
		}
		g.Version = max(g.Version, views[i].App.Version)
		top.Version = max(top.Version, views[i].App.Version)
	}
	for i := range records {
		g := get(records[i].ID)
		g.Dependencies, g.EnforceRole = records[i].Dependencies, records[i].EnforceRole
		g.Version = max(g.Version, records[i].Version)
		top.Version = max(top.Version, g.Version)
	}
	for _, g := range groups {
		slices.SortFunc(g.Groups, func(a, b *groupInfo) int { return strings.Compare(a.ID, b.ID) })
	}
	return top
}
