package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/mesopool/mesopool/internal/uuid"
	"github.com/mesopool/mesopool/marathon"
	"github.com/mesopool/mesopool/task"
)

// taskInfo is a task as Marathon shows it. Every container has an address of
// its own: host and ports are where it can be reached.
type taskInfo struct {
	AppID        string        `json:"appId"`
	ID           string        `json:"id"`
	Host         string        `json:"host"`
	SlaveID      string        `json:"slaveId"`
	State        string        `json:"state"`
	StagedAt     string        `json:"stagedAt"`
	StartedAt    *string       `json:"startedAt"`
	Version      string        `json:"version"`
	Ports        []int         `json:"ports"`
	ServicePorts []int         `json:"servicePorts"`
	IPAddresses  []ipAddress   `json:"ipAddresses"`
	Health       []checkResult `json:"healthCheckResults,omitempty"`
	LocalVolumes []localVolume `json:"localVolumes"`
	Role         string        `json:"role"`
	Region       string        `json:"region,omitempty"`
	Zone         string        `json:"zone,omitempty"`
}

type ipAddress struct {
	IPAddress string `json:"ipAddress"`
	Protocol  string `json:"protocol"`
}

type checkResult struct {
	Alive        bool    `json:"alive"`
	Failures     int     `json:"consecutiveFailures"`
	FirstSuccess *string `json:"firstSuccess"`
	LastSuccess  *string `json:"lastSuccess"`
	LastFailure  *string `json:"lastFailure"`
	Cause        *string `json:"lastFailureCause"`
	InstanceID   string  `json:"instanceId"`
}

func timeOf(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	return new(marathon.Timestamp(t))
}

func tasksOf(v *marathon.AppView) []taskInfo {
	out := []taskInfo{}
	for _, i := range v.Instances {
		t := describeTask(i, v.App)
		for n := range v.Residences {
			if r := &v.Residences[n].Residence; i.Residence == r.ID {
				t.LocalVolumes = volumesOf(v.App.ID, r)
			}
		}
		out = append(out, t)
	}
	return out
}

func describeTask(i *marathon.Instance, app *marathon.App) taskInfo {
	t := taskInfo{
		AppID: i.App, ID: i.TaskID, Host: i.Host, SlaveID: i.Agent, State: i.State.String(), StagedAt: marathon.Timestamp(i.Staged),
		StartedAt: timeOf(i.Started), Version: i.Version, Ports: []int{}, ServicePorts: app.ServicePorts(), IPAddresses: []ipAddress{},
		LocalVolumes: []localVolume{}, Role: i.Role, Region: i.Region, Zone: i.Zone,
	}
	for n := range i.Ports {
		host, port := i.Address(n)
		if host == "" {
			port = i.Ports[n]
		}
		t.Ports = append(t.Ports, port)
	}
	for _, a := range i.Addresses {
		t.IPAddresses = append(t.IPAddresses, ipAddress{a, marathon.IPProtocol(a)})
	}
	if host, _ := i.Address(0); host != "" {
		t.Host = host
	} else if len(i.Addresses) > 0 {
		t.Host = i.Addresses[0]
	}
	checks := i.Checks()
	for n := range i.Definition().HealthChecks {
		if s := checks[n]; s != nil && s.Known {
			t.Health = append(t.Health, describeCheck(i, s))
		}
	}
	return t
}

func describeCheck(i *marathon.Instance, s *marathon.CheckState) checkResult {
	out := checkResult{
		Alive: s.Alive, Failures: s.Failures, FirstSuccess: timeOf(s.FirstSuccess), LastSuccess: timeOf(s.LastSuccess),
		LastFailure: timeOf(s.LastFailure), InstanceID: i.ID,
	}
	if s.Cause != "" {
		out.Cause = &s.Cause
	}
	return out
}

func (a *API) tasks(w http.ResponseWriter, r *http.Request, parts []string) error {
	switch {
	case len(parts) == 0 && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		return a.listTasks(w, r)
	case len(parts) == 1 && parts[0] == "delete" && r.Method == http.MethodPost:
		var in struct {
			IDs []string `json:"ids"`
		}
		text, err := body(r)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(text, &in); err != nil {
			return &marathon.BadDefinition{Syntax: true, Text: `expected {"ids":["…"]}: ` + err.Error()}
		}
		return a.kill(w, r, in.IDs, "tasks")
	}
	return notAllowed(r)
}

func (a *API) listTasks(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	return a.writeTasks(w, r, nil, append(q["status"], q["status[]"]...))
}

func (a *API) writeTasks(w http.ResponseWriter, r *http.Request, want func(*marathon.App) bool, states []string) error {
	views, err := see(r, a, func(c *marathon.Core) []marathon.AppView {
		return c.Apps(time.Now(), func(d *marathon.App) bool { return !d.IsPod() && (want == nil || want(d)) })
	})
	if err != nil {
		return err
	}
	list := []taskInfo{}
	for n := range views {
		for _, i := range views[n].Instances {
			if wanted(i, states) {
				list = append(list, describeTask(i, views[n].App))
			}
		}
	}
	return a.whole(w, r, map[string]any{"tasks": list})
}

func wanted(i *marathon.Instance, states []string) bool {
	if len(states) == 0 {
		return true
	}
	if i.State == task.Staging || i.State == task.Starting {
		return slices.Contains(states, "staging")
	}
	return i.State == task.Running && slices.Contains(states, "running")
}

func (a *API) appTasks(w http.ResponseWriter, r *http.Request, id string) error {
	v, err := a.view(r, id)
	if err != nil {
		return err
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return a.whole(w, r, map[string]any{"tasks": tasksOf(&v)})
	case http.MethodDelete:
		host := r.URL.Query().Get("host")
		var ids []string
		for _, t := range tasksOf(&v) {
			if host == "" || host == "*" || host == t.Host {
				ids = append(ids, t.ID)
			}
		}
		return a.kill(w, r, ids, "tasks")
	}
	return notAllowed(r)
}

// tasksBelow lists the tasks of all apps of a group.
func (a *API) tasksBelow(w http.ResponseWriter, r *http.Request, group string) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return notAllowed(r)
	}
	return a.writeTasks(w, r, below(group), nil)
}

func (a *API) appTask(w http.ResponseWriter, r *http.Request, app, id string) error {
	if r.Method != http.MethodDelete {
		return notAllowed(r)
	}
	v, err := a.view(r, app)
	if errors.Is(err, marathon.ErrNotFound) && app == appByTask(id) {
		return a.taskAlone(w, r, id, err)
	}
	if err != nil {
		return err
	}
	left := func(x marathon.ResidenceView) bool { return !x.Lived && x.TaskID() == id }
	if slices.ContainsFunc(v.Residences, left) {
		return a.kill(w, r, []string{id}, "tasks")
	}
	killed, err := a.infoOf(r, []string{id})
	if err != nil {
		return err
	}
	if len(killed) == 0 || killed[0].AppID != app {
		return missing("Task '" + id + "' does not exist")
	}
	return a.kill(w, r, []string{id}, "task")
}

// appByTask is what go-marathon takes for the app of a task: IDs were simpler
// when it was written (KillTask in its task.go).
func appByTask(id string) string {
	return "/" + strings.ReplaceAll(strings.ReplaceAll(id[:max(0, strings.LastIndex(id, "."))], "_", "/"), "//", "/")
}

// taskAlone ends a task whatever app the path names.
func (a *API) taskAlone(w http.ResponseWriter, r *http.Request, id string, none error) error {
	killed, err := a.infoOf(r, []string{id})
	if err != nil {
		return err
	}
	if len(killed) == 0 {
		return none
	}
	return a.kill(w, r, []string{id}, "task")
}

// kill ends tasks. With scale the answer is the deployment, else the tasks.
func (a *API) kill(w http.ResponseWriter, r *http.Request, ids []string, key string) error {
	scale, err := flag(r, "scale", false)
	if err != nil {
		return err
	}
	wipe, err := flag(r, "wipe", false)
	if err != nil {
		return err
	}
	force, err := flag(r, "force", false)
	if err != nil {
		return err
	}
	if scale && wipe {
		return &status{http.StatusBadRequest, "You cannot use scale and wipe at the same time."}
	}
	killed, err := a.infoOf(r, ids)
	if err != nil {
		return err
	}
	id := uuid.New().String()
	if err := a.cfg.Runner.Do(r.Context(), marathon.KillTasks{Author: author(r), DeploymentID: id, IDs: ids, Scale: scale, Force: force, Wipe: wipe}); err != nil {
		return err
	}
	if scale {
		version, err := a.versionOf(r, id)
		if err != nil {
			return err
		}
		return deployed(w, http.StatusOK, id, version)
	}
	if key == "task" && len(killed) == 1 {
		return answer(w, http.StatusOK, map[string]any{key: killed[0]})
	}
	return answer(w, http.StatusOK, map[string]any{"tasks": killed})
}

func (a *API) infoOf(r *http.Request, ids []string) ([]taskInfo, error) {
	return see(r, a, func(c *marathon.Core) []taskInfo {
		out := []taskInfo{}
		for _, id := range ids {
			if i, ok := c.Instance(id); ok {
				out = append(out, describeTask(i, i.Definition()))
			}
		}
		return out
	})
}
