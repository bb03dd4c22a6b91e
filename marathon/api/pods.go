package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/mesopool/mesopool/internal/uuid"
	"github.com/mesopool/mesopool/marathon"
	"github.com/mesopool/mesopool/task"
)

// podStatus is a pod with what goes on (podStatus.raml).
type podStatus struct {
	ID           string        `json:"id"`
	Spec         *marathon.Pod `json:"spec"`
	Status       string        `json:"status"`
	StatusSince  string        `json:"statusSince"`
	Message      string        `json:"message,omitempty"`
	Instances    []podInstance `json:"instances"`
	Terminations []termination `json:"terminationHistory"`
	LastUpdated  string        `json:"lastUpdated"`
	LastChanged  string        `json:"lastChanged"`
}

type podInstance struct {
	ID            string                `json:"id"`
	Status        string                `json:"status"`
	StatusSince   string                `json:"statusSince"`
	AgentHostname string                `json:"agentHostname,omitempty"`
	AgentID       string                `json:"agentId,omitempty"`
	Region        string                `json:"agentRegion,omitempty"`
	Zone          string                `json:"agentZone,omitempty"`
	Resources     marathon.PodResources `json:"resources"`
	Networks      []podNetwork          `json:"networks"`
	Containers    []podContainer        `json:"containers"`
	LocalVolumes  []any                 `json:"localVolumes"`
	SpecReference string                `json:"specReference"`
	Role          string                `json:"role,omitempty"`
	LastUpdated   string                `json:"lastUpdated"`
	LastChanged   string                `json:"lastChanged"`
}

type podNetwork struct {
	Name      string   `json:"name,omitempty"`
	Addresses []string `json:"addresses"`
}

type podContainer struct {
	Name        string                `json:"name"`
	Status      string                `json:"status"`
	StatusSince string                `json:"statusSince"`
	ContainerID string                `json:"containerId"`
	Message     string                `json:"message,omitempty"`
	Conditions  []podCondition        `json:"conditions"`
	Endpoints   []podEndpoint         `json:"endpoints"`
	Resources   marathon.PodResources `json:"resources"`
	LastUpdated string                `json:"lastUpdated"`
	LastChanged string                `json:"lastChanged"`
}

type podCondition struct {
	Name        string `json:"name"`
	Value       string `json:"value"`
	LastUpdated string `json:"lastUpdated"`
	LastChanged string `json:"lastChanged"`
}

type podEndpoint struct {
	Name     string `json:"name"`
	HostPort *int   `json:"allocatedHostPort,omitempty"`
	Healthy  *bool  `json:"healthy,omitempty"`
}

type termination struct {
	InstanceID   string `json:"instanceID"`
	StartedAt    string `json:"startedAt"`
	TerminatedAt string `json:"terminatedAt"`
	Message      string `json:"message"`
	Containers   []any  `json:"containers"`
}

func podNotFound(id string) error { return missing("Pod '" + id + "' does not exist") }

// pods routes on what follows the ID: /v2/pods/a/b::status.
func (a *API) pods(w http.ResponseWriter, r *http.Request, parts []string) error {
	id, view, special := strings.Cut(strings.Join(parts, "/"), "::")
	id = "/" + strings.Trim(id, "/")
	what, more, _ := strings.Cut(view, "/")
	get := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch {
	case !special && id == "/":
		return a.podList(w, r)
	case !special:
		return a.pod(w, r, id)
	case what == "status" && get:
		return a.podStatus(w, r, id)
	case what == "versions" && get:
		return a.podVersions(w, r, id, more)
	case what == "instances" && r.Method == http.MethodDelete:
		return a.killPods(w, r, id, more)
	}
	return notAllowed(r)
}

func (a *API) podList(w http.ResponseWriter, r *http.Request) error {
	switch r.Method {
	case http.MethodHead:
		return nil
	case http.MethodPost:
		return a.putPod(w, r, "")
	case http.MethodGet:
		views, err := a.podViews(r, nil)
		if err != nil {
			return err
		}
		out := make([]*marathon.Pod, len(views))
		for i := range views {
			out[i] = views[i].App.PodDefinition()
		}
		return answer(w, http.StatusOK, out)
	}
	return notAllowed(r)
}

// podViews lists pods; a nil filter wants all.
func (a *API) podViews(r *http.Request, want func(*marathon.App) bool) ([]marathon.AppView, error) {
	return see(r, a, func(c *marathon.Core) []marathon.AppView {
		return c.Apps(time.Now(), func(d *marathon.App) bool { return d.IsPod() && (want == nil || want(d)) })
	})
}

func (a *API) podView(r *http.Request, id string) (*marathon.AppView, error) {
	list, err := a.podViews(r, func(d *marathon.App) bool { return d.ID == id })
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, podNotFound(id)
	}
	return &list[0], nil
}

func (a *API) pod(w http.ResponseWriter, r *http.Request, id string) error {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		v, err := a.podView(r, id)
		if err != nil {
			return err
		}
		return answer(w, http.StatusOK, v.App.PodDefinition())
	case http.MethodPut:
		return a.putPod(w, r, id)
	case http.MethodDelete:
		if _, err := a.podView(r, id); err != nil {
			return err
		}
		change := marathon.Change{DeploymentID: uuid.New().String(), Delete: []string{id}}
		if err := a.change(r, change); err != nil {
			return err
		}
		w.Header().Set("Marathon-Deployment-Id", change.DeploymentID)
		w.Header().Set("Location", "/v2/deployments/"+change.DeploymentID)
		w.WriteHeader(http.StatusAccepted)
		return nil
	}
	return notAllowed(r)
}

// putPod makes a pod, when no ID is given, or replaces one.
func (a *API) putPod(w http.ResponseWriter, r *http.Request, id string) error {
	text, err := body(r)
	if err != nil {
		return err
	}
	def, err := marathon.ReadPod(text, a.cfg.Role)
	if err != nil {
		return err
	}
	code := http.StatusCreated
	if id != "" {
		code = http.StatusOK
		if def.ID != id {
			return &status{http.StatusBadRequest, fmt.Sprintf("'%s' definition must match the ID of the path, '%s'", def.ID, id)}
		}
		if _, err := a.podView(r, id); err != nil {
			return err
		}
	}
	change := marathon.Change{DeploymentID: uuid.New().String(), Put: []*marathon.App{def}, Create: id == ""}
	if id != "" {
		change.Expect = ifMatch(r, id)
	}
	if err := a.change(r, change); err != nil {
		if errors.Is(err, marathon.ErrExists) {
			return &status{http.StatusConflict, fmt.Sprintf("A pod with id [%s] already exists.", def.ID)}
		}
		return err
	}
	v, err := a.podView(r, def.ID)
	if err != nil {
		return err
	}
	w.Header().Set("Marathon-Deployment-Id", change.DeploymentID)
	if id == "" {
		w.Header().Set("Location", "http://"+a.cfg.Address+"/v2/pods"+def.ID)
	}
	return answer(w, code, v.App.PodDefinition())
}

func (a *API) podStatus(w http.ResponseWriter, r *http.Request, id string) error {
	if id == "/" {
		views, err := a.podViews(r, nil)
		if err != nil {
			return err
		}
		out := make([]podStatus, len(views))
		for i := range views {
			out[i] = describePod(&views[i], time.Now())
		}
		return answer(w, http.StatusOK, out)
	}
	v, err := a.podView(r, id)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, describePod(v, time.Now()))
}

func (a *API) podVersions(w http.ResponseWriter, r *http.Request, id, version string) error {
	if _, err := a.podView(r, id); err != nil {
		return err
	}
	list, err := see(r, a, func(c *marathon.Core) []*marathon.App {
		list, _ := c.Versions(id)
		return list
	})
	if err != nil {
		return err
	}
	names := make([]string, len(list))
	for i, v := range list {
		if names[i] = v.Version; v.Version == version {
			return answer(w, http.StatusOK, v.PodDefinition())
		}
	}
	if version != "" {
		return missing("Pod '" + id + "' does not exist in version " + version)
	}
	return answer(w, http.StatusOK, names)
}

// killPods ends instances: one by its ID in the path, or those of a body.
func (a *API) killPods(w http.ResponseWriter, r *http.Request, id, one string) error {
	ids := []string{one}
	if one == "" {
		text, err := body(r)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(text, &ids); err != nil {
			return &marathon.BadDefinition{Syntax: true, Text: "an array of instance IDs is expected: " + err.Error()}
		}
	}
	if _, err := flag(r, "wipe", false); err != nil {
		return err
	}
	v, err := a.podView(r, id)
	if err != nil {
		return err
	}
	known, out := map[string]podInstance{}, []podInstance{}
	for _, i := range describePod(v, time.Now()).Instances {
		known[i.ID] = i
	}
	for _, i := range ids {
		if known[i].ID == "" {
			return missing(fmt.Sprintf("Instance '%s' does not exist", i))
		}
		out = append(out, known[i])
	}
	if err := a.cfg.Runner.Do(r.Context(), marathon.KillTasks{Author: author(r), IDs: ids}); err != nil {
		return err
	}
	if one != "" {
		return answer(w, http.StatusOK, out[0])
	}
	return answer(w, http.StatusOK, out)
}

func describePod(v *marathon.AppView, now time.Time) podStatus {
	stamp := marathon.Timestamp(now)
	out := podStatus{
		ID: v.App.ID, Spec: v.App.PodDefinition(), Status: "DEGRADED", StatusSince: v.App.Version, Message: v.Waiting,
		Instances: []podInstance{}, Terminations: []termination{}, LastUpdated: stamp, LastChanged: v.App.Version,
	}
	stable := 0
	for _, i := range v.Instances {
		one := describePodInstance(i, stamp)
		if one.Status == "STABLE" && i.Version == v.App.ConfigVersion() {
			stable++
		}
		out.StatusSince = max(out.StatusSince, one.StatusSince)
		out.Instances = append(out.Instances, one)
	}
	if stable == v.App.Instances && stable == len(v.Instances) {
		out.Status = "STABLE"
	}
	out.LastChanged = out.StatusSince
	if f := v.LastFailure; f != nil {
		out.Terminations = append(out.Terminations, termination{
			InstanceID: f.TaskID, StartedAt: f.Version, TerminatedAt: f.Timestamp, Message: f.Message, Containers: []any{},
		})
	}
	return out
}

// conditionOf says how an instance is (podInstanceState.raml).
func conditionOf(i *marathon.Instance) string {
	switch {
	case i.Killing || i.State.Terminal():
		return "TERMINAL"
	case i.State == task.Staging || i.State == task.Starting:
		return "STAGING"
	case i.State != task.Running || !i.Serves():
		return "DEGRADED"
	}
	return "STABLE"
}

func describePodInstance(i *marathon.Instance, stamp string) podInstance {
	def := i.Definition()
	since := i.Staged
	if i.Started.After(since) {
		since = i.Started
	}
	out := podInstance{
		ID: i.ID, Status: conditionOf(i), StatusSince: marathon.Timestamp(since), AgentHostname: i.Host, AgentID: i.Agent, Region: i.Region, Zone: i.Zone,
		Resources: marathon.PodResources{CPUs: def.CPUs, Mem: def.Mem, Disk: def.Disk, GPUs: def.GPUs}, Networks: []podNetwork{}, LocalVolumes: []any{},
		SpecReference: fmt.Sprintf("/v2/pods%s::versions/%s", i.App, i.Version), Role: i.Role, LastUpdated: stamp, LastChanged: marathon.Timestamp(since),
	}
	if len(i.Addresses) > 0 {
		out.Networks = append(out.Networks, podNetwork{Name: i.Network, Addresses: i.Addresses})
	}
	for _, p := range i.Parts {
		out.Containers = append(out.Containers, describeContainer(def.Pod, p, stamp))
	}
	return out
}

func describeContainer(def *marathon.Pod, p *marathon.Part, stamp string) podContainer {
	since := marathon.Timestamp(p.Since)
	out := podContainer{
		Name: p.Name, Status: p.State.String(), StatusSince: since, ContainerID: p.TaskID, Message: p.Message,
		Conditions: []podCondition{}, Endpoints: []podEndpoint{}, LastUpdated: stamp, LastChanged: since,
	}
	if p.Healthy != nil {
		out.Conditions = append(out.Conditions, podCondition{Name: "healthy", Value: fmt.Sprint(*p.Healthy), LastUpdated: stamp, LastChanged: since})
	}
	for _, c := range def.Containers {
		if c.Name != p.Name {
			continue
		}
		out.Resources = c.Resources
		for _, e := range c.Endpoints {
			one := podEndpoint{Name: e.Name, Healthy: p.Healthy}
			if e.HostPort != nil {
				one.HostPort = new(def.Number(e.Name))
			}
			out.Endpoints = append(out.Endpoints, one)
		}
	}
	return out
}
