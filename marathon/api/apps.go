package api

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/mesopool/mesopool/internal/uuid"
	"github.com/mesopool/mesopool/marathon"
)

// appInfo is an app with what goes on around it.
type appInfo struct {
	*marathon.App
	TasksStaged     int                         `json:"tasksStaged"`
	TasksRunning    int                         `json:"tasksRunning"`
	TasksHealthy    int                         `json:"tasksHealthy"`
	TasksUnhealthy  int                         `json:"tasksUnhealthy"`
	TasksFinished   int                         `json:"tasksFinished,omitempty"` // ours: of an app that runs once
	Deployments     []idRef                     `json:"deployments"`
	Tasks           *[]taskInfo                 `json:"tasks,omitempty"`
	LastTaskFailure *marathon.Failure           `json:"lastTaskFailure,omitempty"`
	Readiness       *[]marathon.ReadinessResult `json:"readinessCheckResults,omitempty"`
	TaskStats       *taskStats                  `json:"taskStats,omitempty"`
	// Waiting says in a sentence why there are too few instances. It is ours.
	Waiting string `json:"waiting,omitempty"`
	// Detached are the volumes in which no task lives. They are ours.
	Detached []detached `json:"detachedVolumes,omitempty"`
	// Notes say what of the definition means something else here. They are ours.
	Notes []string `json:"notes,omitempty"`
}

// detached is what an instance has left behind; its task is the last one that
// lived there, and a DELETE of it with wipe=true gives all back.
type detached struct {
	TaskID       string        `json:"taskId"`
	Host         string        `json:"host"`
	SlaveID      string        `json:"slaveId"`
	LocalVolumes []localVolume `json:"localVolumes"`
}

// localVolume is Marathon's (localVolume.raml).
type localVolume struct {
	RunSpecID     string  `json:"runSpecId"`
	ContainerPath string  `json:"containerPath"`
	UUID          string  `json:"uuid"`
	PersistenceID string  `json:"persistenceId"`
	Size          float64 `json:"size"` // ours
}

func volumesOf(app string, r *marathon.Residence) []localVolume {
	out := []localVolume{}
	for _, v := range r.Volumes {
		out = append(out, localVolume{RunSpecID: app, ContainerPath: v.Path, UUID: r.ID, PersistenceID: v.ID, Size: v.Size})
	}
	return out
}

func describe(v *marathon.AppView, embed func(string) bool) appInfo {
	out := appInfo{
		App: v.App, TasksStaged: v.Staged, TasksRunning: v.Running, TasksHealthy: v.Healthy, TasksUnhealthy: v.Unhealthy,
		Deployments: []idRef{}, Waiting: v.Waiting, TasksFinished: v.Finished, Notes: v.Notes,
	}
	for _, r := range v.Residences {
		if !r.Lived {
			out.Detached = append(out.Detached, detached{TaskID: r.TaskID(), Host: r.Host, SlaveID: r.Agent, LocalVolumes: volumesOf(v.App.ID, &r.Residence)})
		}
	}
	for _, id := range v.Deployments {
		out.Deployments = append(out.Deployments, idRef{id})
	}
	if embed("tasks") || embed("failures") {
		out.Tasks = new(tasksOf(v))
	}
	if embed("readiness") || embed("failures") {
		out.Readiness = &v.Readiness
	}
	if embed("taskStats") {
		out.TaskStats = statsOf(v, time.Now())
	}
	if embed("lastTaskFailure") || embed("failures") {
		out.LastTaskFailure = v.LastFailure
	}
	return out
}

// embeds reads the embed parameters; apps., app. and group.apps. are the same
// prefix (InfoEmbedResolver.scala).
func embeds(q url.Values) func(string) bool {
	var list []string
	for _, e := range q["embed"] {
		e = strings.TrimPrefix(e, "group.")
		e = strings.TrimPrefix(strings.TrimPrefix(e, "apps."), "app.")
		list = append(list, e)
	}
	return func(name string) bool { return slices.Contains(list, name) }
}

// oneApp is what an app shows by itself, and what is asked for.
func oneApp(q url.Values) func(string) bool {
	more := embeds(q)
	return func(name string) bool { return name == "tasks" || name == "lastTaskFailure" || more(name) }
}

func (a *API) apps(w http.ResponseWriter, r *http.Request, parts []string) error {
	if len(parts) == 0 {
		return a.appList(w, r)
	}
	n := len(parts)
	switch last := parts[n-1]; {
	case last == "*" && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		return a.appsBelow(w, r, pathOf(parts[:n-1]))
	case last == "promote" && n >= 2 && r.Method == http.MethodPost:
		return a.promote(w, r, pathOf(parts[:n-1]))
	case last == "restart" && r.Method == http.MethodPost:
		return a.restart(w, r, pathOf(parts[:n-1]))
	case last == "tasks" && n >= 2 && parts[n-2] == "*":
		return a.tasksBelow(w, r, pathOf(parts[:n-2]))
	case last == "tasks":
		return a.appTasks(w, r, pathOf(parts[:n-1]))
	case n >= 3 && parts[n-2] == "tasks":
		return a.appTask(w, r, pathOf(parts[:n-2]), last)
	case last == "versions" && r.Method == http.MethodGet:
		return a.versions(w, r, pathOf(parts[:n-1]), "")
	case n >= 3 && parts[n-2] == "versions" && r.Method == http.MethodGet:
		return a.versions(w, r, pathOf(parts[:n-2]), last)
	}
	return a.app(w, r, pathOf(parts))
}

func pathOf(parts []string) string { return "/" + strings.Join(parts, "/") }

func (a *API) appList(w http.ResponseWriter, r *http.Request) error {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return a.listApps(w, r)
	case http.MethodPost:
		return a.createApp(w, r)
	case http.MethodPut, http.MethodPatch:
		return a.changeApps(w, r)
	}
	return notAllowed(r)
}

func (a *API) listApps(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	labels, err := parseSelector(q.Get("label"))
	if err != nil {
		return &status{http.StatusUnprocessableEntity, err.Error()}
	}
	cmd, id := q.Get("cmd"), strings.ToLower(q.Get("id"))
	if cmd == "" && id == "" && q.Get("label") == "" {
		return a.writeApps(w, r, "apps", nil, embeds(q))
	}
	want := func(d *marathon.App) bool {
		return (cmd == "" || d.Cmd != nil && strings.Contains(*d.Cmd, cmd)) && strings.Contains(strings.ToLower(d.ID), id) && labels(d.Labels)
	}
	return a.writeApps(w, r, "apps", want, embeds(q))
}

func (a *API) writeApps(w http.ResponseWriter, r *http.Request, key string, want func(*marathon.App) bool, embed func(string) bool) error {
	list, err := a.list(r, want, embed)
	if err != nil {
		return err
	}
	c := content{head: `{"` + key + `":[`, tail: "]}", pieces: list}
	return c.write(w, r, a.pieces.sumOf(list), a.pieces.seed)
}

// appsOf copies the instances only if they are to be shown.
func appsOf(c *marathon.Core, wanted func(*marathon.App) bool, embed func(string) bool) []marathon.AppView {
	want := func(d *marathon.App) bool { return !d.IsPod() && (wanted == nil || wanted(d)) }
	if embed("tasks") || embed("failures") || embed("taskStats") {
		return c.Apps(time.Now(), want)
	}
	return c.Summaries(time.Now(), want)
}

func (a *API) appsBelow(w http.ResponseWriter, r *http.Request, group string) error {
	return a.writeApps(w, r, "*", below(group), embeds(r.URL.Query()))
}

// below wants the apps of a group.
func below(group string) func(*marathon.App) bool {
	return func(d *marathon.App) bool { return group == "/" || strings.HasPrefix(d.ID, group+"/") }
}

func (a *API) createApp(w http.ResponseWriter, r *http.Request) error {
	text, err := body(r)
	if err != nil {
		return err
	}
	def, err := marathon.Read(text, a.cfg.Role)
	if err != nil {
		return err
	}
	id := uuid.New().String()
	if err := a.change(r, marathon.Change{DeploymentID: id, Put: []*marathon.App{def}, Create: true}); err != nil {
		if errors.Is(err, marathon.ErrExists) {
			return &status{http.StatusConflict, fmt.Sprintf("An app with id [%s] already exists.", def.ID)}
		}
		return err
	}
	w.Header().Set("Marathon-Deployment-Id", id)
	w.Header().Set("Location", "http://"+a.cfg.Address+"/v2/apps"+def.ID)
	made, err := a.definition(r, def.ID)
	if err != nil {
		return err
	}
	// As it was a moment ago: clients wait for the deployment that they find here.
	return answer(w, http.StatusCreated, appInfo{App: made, Deployments: []idRef{{id}}, Tasks: &[]taskInfo{}})
}

func (a *API) view(r *http.Request, id string) (marathon.AppView, error) {
	found := false
	v, err := see(r, a, func(c *marathon.Core) marathon.AppView {
		v, ok := c.App(time.Now(), id)
		found = ok && !v.App.IsPod()
		return v
	})
	if err == nil && !found {
		err = appNotFound(id)
	}
	return v, err
}

func appNotFound(id string) error {
	return missing("App '" + id + "' does not exist")
}

// change adds what every change carries; the request decides about force, if it
// says something about it.
func (a *API) change(r *http.Request, c marathon.Change) error {
	force, err := flag(r, "force", c.Force)
	if err != nil {
		return err
	}
	c.Force, c.Author = force, author(r)
	return a.cfg.Runner.Do(r.Context(), c)
}

// changeApps takes an array of changes as one deployment; PATCH creates
// nothing.
func (a *API) changeApps(w http.ResponseWriter, r *http.Request) error {
	text, err := body(r)
	if err != nil {
		return err
	}
	var list []json.RawMessage
	if err := json.Unmarshal(text, &list); err != nil {
		return &marathon.BadDefinition{Syntax: true, Text: "an array of app definitions is expected: " + err.Error()}
	}
	change := marathon.Change{DeploymentID: uuid.New().String()}
	for i, item := range list {
		def, err := a.merged(r, "", item)
		if err != nil {
			return atIndex(err, i)
		}
		change.Put = append(change.Put, def)
	}
	if err := a.change(r, change); err != nil {
		return err
	}
	version, err := a.versionOf(r, change.DeploymentID)
	if err != nil {
		return err
	}
	return deployed(w, http.StatusOK, change.DeploymentID, version)
}

func atIndex(err error, i int) error {
	var bad *marathon.BadDefinition
	if errors.As(err, &bad) {
		for n := range bad.Problems {
			bad.Problems[n].Path = fmt.Sprintf("(%d)%s", i, bad.Problems[n].Path)
		}
	}
	return err
}

// merged reads a change of one app: merged into the existing one, unless the
// request asks for a replacement, or a definition of a new one. A body with
// nothing but a version goes back to that version.
func (a *API) merged(r *http.Request, id string, text []byte) (*marathon.App, error) {
	var head struct {
		ID      string  `json:"id"`
		Version *string `json:"version"`
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil || fields == nil {
		return nil, &marathon.BadDefinition{Syntax: true, Text: fmt.Sprintf("an app definition is an object: %v", err)}
	}
	json.Unmarshal(fields["id"], &head.ID)
	json.Unmarshal(fields["version"], &head.Version)
	if id == "" {
		id = "/" + strings.Trim(head.ID, "/ ")
	}
	if !strings.HasSuffix(id, "/"+strings.TrimPrefix(strings.TrimRight(head.ID, "/"), "/")) && head.ID != "" {
		return nil, &status{http.StatusUnprocessableEntity, fmt.Sprintf("the body is about %s, the path about %s", head.ID, id)}
	}
	fields["id"], _ = json.Marshal(id)
	if head.Version != nil && len(fields) > 2 {
		return nil, &marathon.BadDefinition{Problems: []marathon.Problem{{Path: "/version", Errors: []string{"The 'version' field may only be combined with the 'id' field."}}}}
	}
	onlyVersion := head.Version != nil && len(fields) == 2
	old, err := a.definition(r, id)
	switch {
	case err == nil && onlyVersion:
		return a.earlier(r, id, *head.Version)
	case err == nil:
		return update(r, old, fields, a.cfg.Role)
	case !errors.Is(err, marathon.ErrNotFound) || r.Method == http.MethodPatch || onlyVersion:
		return nil, err
	}
	return readFrom(fields, a.cfg.Role)
}

func (a *API) definition(r *http.Request, id string) (*marathon.App, error) {
	def, err := see(r, a, func(c *marathon.Core) *marathon.App {
		def, _ := c.Definition(id)
		return def
	})
	if err == nil && (def == nil || def.IsPod()) {
		return nil, appNotFound(id)
	}
	return def, err
}

func update(r *http.Request, old *marathon.App, fields map[string]json.RawMessage, role string) (*marathon.App, error) {
	partial, err := flag(r, "partialUpdate", true)
	if err != nil {
		return nil, err
	}
	if !partial && r.Method == http.MethodPut {
		return readFrom(fields, role)
	}
	text, err := json.Marshal(fields)
	if err != nil {
		return nil, err
	}
	return marathon.Update(old, text)
}

func readFrom(fields map[string]json.RawMessage, role string) (*marathon.App, error) {
	text, err := json.Marshal(fields)
	if err != nil {
		return nil, err
	}
	return marathon.Read(text, role)
}

func (a *API) earlier(r *http.Request, id, version string) (*marathon.App, error) {
	versions, err := see(r, a, func(c *marathon.Core) []*marathon.App {
		list, _ := c.Versions(id)
		return list
	})
	if err != nil {
		return nil, err
	}
	for _, v := range versions {
		if v.Version == version {
			return v, nil
		}
	}
	return nil, missing("App '" + id + "' does not exist in version " + version)
}

func (a *API) app(w http.ResponseWriter, r *http.Request, id string) error {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return a.showApp(w, r, id)
	case http.MethodPut, http.MethodPatch:
		return a.putApp(w, r, id)
	case http.MethodDelete:
		if _, err := a.definition(r, id); err != nil {
			return err
		}
		return a.deploy(w, r, marathon.Change{Delete: []string{id}, Force: true, Expect: ifMatch(r, id)}) // as AppsResource.scala has it
	}
	return notAllowed(r)
}

// showApp answers with an app. The tag is its version, by which it can be changed
// with If-Match, and after a tilde what else is shown of it.
func (a *API) showApp(w http.ResponseWriter, r *http.Request, id string) error {
	v, err := a.view(r, id)
	if err != nil {
		return err
	}
	text, err := json.Marshal(describe(&v, oneApp(r.URL.Query())))
	if err != nil {
		return err
	}
	c, tag := a.single(`{"app":`, v.App, text)
	return c.write(w, r, tag, a.pieces.seed)
}

func (a *API) putApp(w http.ResponseWriter, r *http.Request, id string) error {
	text, err := body(r)
	if err != nil {
		return err
	}
	_, err = a.definition(r, id)
	created := errors.Is(err, marathon.ErrNotFound)
	def, err := a.merged(r, id, text)
	if err != nil {
		return err
	}
	change := marathon.Change{DeploymentID: uuid.New().String(), Put: []*marathon.App{def}, Expect: ifMatch(r, id)}
	if change.Live, err = liveEdit(r); err != nil {
		return err
	}
	if dry, err := flag(r, "dryRun", false); dry || err != nil {
		return cmp.Or(err, a.planApp(w, r, change))
	}
	if err := a.change(r, change); err != nil {
		return err
	}
	version, err := a.versionOf(r, change.DeploymentID)
	if err != nil {
		return err
	}
	code := http.StatusOK
	if created {
		code = http.StatusCreated
		w.Header().Set("Location", "http://"+a.cfg.Address+"/v2/apps"+id)
	}
	return deployed(w, code, change.DeploymentID, version)
}

// ifMatch is the version that a request was made from, if it says so: alone, or in
// the tag of an app that was read. That its tasks have changed since is no matter.
func ifMatch(r *http.Request, id string) map[string]string {
	tag := strings.TrimPrefix(r.Header.Get("If-Match"), "W/")
	if tag == "" {
		return nil
	}
	version, _, _ := strings.Cut(strings.Trim(tag, `"`), "~")
	return map[string]string{id: version}
}

// liveEdit reads the parameter restart: always, as Marathon does, or auto.
func liveEdit(r *http.Request) (bool, error) {
	switch how := r.URL.Query().Get("restart"); how {
	case "", "always":
		return false, nil
	case "auto":
		return true, nil
	default:
		return false, &status{http.StatusBadRequest, fmt.Sprintf("the parameter restart is %q; it must be always or auto", how)}
	}
}

// planApp says what a change of an app would do.
func (a *API) planApp(w http.ResponseWriter, r *http.Request, change marathon.Change) error {
	var refused error
	plan, err := see(r, a, func(c *marathon.Core) marathon.PlannedChange {
		plan, err := c.PlanApp(change)
		refused = err
		return plan
	})
	if err := cmp.Or(err, refused); err != nil {
		return err
	}
	return answer(w, http.StatusOK, map[string]any{"steps": stepsOf(plan.Steps), "diff": plan.Fields, "restarts": plan.Restarts})
}

// deploy carries a change out and answers with its deployment.
func (a *API) deploy(w http.ResponseWriter, r *http.Request, change marathon.Change) error {
	change.DeploymentID = uuid.New().String()
	if err := a.change(r, change); err != nil {
		return err
	}
	version, err := a.versionOf(r, change.DeploymentID)
	if err != nil {
		return err
	}
	return deployed(w, http.StatusOK, change.DeploymentID, version)
}

func (a *API) restart(w http.ResponseWriter, r *http.Request, id string) error {
	def, err := a.definition(r, id)
	if err != nil {
		return err
	}
	return a.deploy(w, r, marathon.Change{Put: []*marathon.App{def}, Restart: []string{id}, Expect: ifMatch(r, id)})
}

// promote lets the canaries of an app take over. It is ours.
func (a *API) promote(w http.ResponseWriter, r *http.Request, id string) error {
	if _, err := a.definition(r, id); err != nil {
		return err
	}
	err := a.cfg.Runner.Do(r.Context(), marathon.Promote{Author: author(r), App: id})
	if errors.Is(err, marathon.ErrNotHeld) {
		return &status{http.StatusConflict, err.Error()}
	}
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, map[string]string{"promoted": id})
}

func (a *API) versions(w http.ResponseWriter, r *http.Request, id, version string) error {
	if _, err := a.definition(r, id); err != nil {
		return err
	}
	if version != "" {
		def, err := a.earlier(r, id, version)
		if err != nil {
			return err
		}
		return answer(w, http.StatusOK, def)
	}
	known := false
	list, err := see(r, a, func(c *marathon.Core) []*marathon.App {
		var list []*marathon.App
		list, known = c.Versions(id)
		return list
	})
	if err != nil {
		return err
	}
	if !known {
		return appNotFound(id)
	}
	names := make([]string, len(list))
	for i, v := range list {
		names[i] = v.Version
	}
	return answer(w, http.StatusOK, map[string]any{"versions": names})
}
