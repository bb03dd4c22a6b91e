package api

import (
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/mesopool/mesopool/marathon"
)

// groupInfo is a part of the tree of apps.
type groupInfo struct {
	ID           string       `json:"id"`
	Apps         []appInfo    `json:"apps"`
	Pods         []any        `json:"pods"`
	Groups       []*groupInfo `json:"groups"`
	Dependencies []string     `json:"dependencies"`
	Version      string       `json:"version"`
	EnforceRole  bool         `json:"enforceRole"`
}

// groups shows the tree and deletes parts of it; changing groups as such is not
// here yet.
func (a *API) groups(w http.ResponseWriter, r *http.Request, parts []string) error {
	switch r.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		return &status{http.StatusNotImplemented, "groups cannot be created or changed yet; post their apps to /v2/apps"}
	}
	id, embed := pathOf(parts), embeds(r.URL.Query())
	views, err := see(r, a, func(c *marathon.Core) []marathon.AppView { return appsOf(c, below(id), embed) })
	if err != nil {
		return err
	}
	if len(views) == 0 && id != "/" {
		return &status{http.StatusNotFound, "Group '" + id + "' does not exist"}
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return answer(w, http.StatusOK, tree(id, views, embed))
	case http.MethodDelete:
		change := marathon.Change{}
		for i := range views {
			change.Delete = append(change.Delete, views[i].App.ID)
		}
		return a.deploy(w, r, change)
	}
	return notAllowed(r)
}

func tree(root string, views []marathon.AppView, embed func(string) bool) *groupInfo {
	groups := map[string]*groupInfo{}
	var get func(id string) *groupInfo
	get = func(id string) *groupInfo {
		if g := groups[id]; g != nil {
			return g
		}
		g := &groupInfo{ID: id, Apps: []appInfo{}, Pods: []any{}, Groups: []*groupInfo{}, Dependencies: []string{}, Version: marathon.Timestamp(time.Unix(0, 0))}
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
		g.Apps = append(g.Apps, describe(&views[i], embed))
		g.Version = max(g.Version, views[i].App.Version)
		top.Version = max(top.Version, views[i].App.Version)
	}
	for _, g := range groups {
		slices.SortFunc(g.Groups, func(a, b *groupInfo) int { return strings.Compare(a.ID, b.ID) })
	}
	return top
}
