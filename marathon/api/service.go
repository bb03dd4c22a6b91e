package api

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/mesopool/mesopool/marathon"
	"github.com/mesopool/mesopool/marathon/runner"
)

type deploymentInfo struct {
	ID             string       `json:"id"`
	Version        string       `json:"version"`
	AffectedApps   []string     `json:"affectedApps"`
	AffectedPods   []string     `json:"affectedPods"`
	Steps          []stepInfo   `json:"steps"`
	CurrentActions []actionInfo `json:"currentActions"`
	CurrentStep    int          `json:"currentStep"`
	TotalSteps     int          `json:"totalSteps"`
}

type stepInfo struct {
	Actions []marathon.Action `json:"actions"`
}

type actionInfo struct {
	marathon.Action
	Readiness []any `json:"readinessCheckResults"`
}

func describeDeployment(d *marathon.Deployment) deploymentInfo {
	out := deploymentInfo{
		ID: d.ID, Version: d.Version, AffectedApps: d.Apps(), AffectedPods: []string{}, Steps: []stepInfo{},
		CurrentActions: []actionInfo{}, CurrentStep: d.Current + 1, TotalSteps: len(d.Steps),
	}
	for _, s := range d.Steps {
		out.Steps = append(out.Steps, stepInfo{s})
	}
	if d.Current < len(d.Steps) {
		for _, act := range d.Steps[d.Current] {
			out.CurrentActions = append(out.CurrentActions, actionInfo{act, []any{}})
		}
	}
	return out
}

func (a *API) deployments(w http.ResponseWriter, r *http.Request, parts []string) error {
	switch {
	case len(parts) == 0 && r.Method == http.MethodGet:
		list, err := see(r, a, func(c *marathon.Core) []marathon.Deployment { return c.Deployments() })
		if err != nil {
			return err
		}
		out := make([]deploymentInfo, len(list))
		for i := range list {
			out[i] = describeDeployment(&list[i])
		}
		return answer(w, http.StatusOK, out)
	case len(parts) == 1 && r.Method == http.MethodDelete:
		return a.cancel(w, r, parts[0])
	}
	return notAllowed(r)
}

// cancel reverts a deployment by a new one, or with force leaves it where it
// is.
func (a *API) cancel(w http.ResponseWriter, r *http.Request, id string) error {
	force, err := flag(r, "force", false)
	if err != nil {
		return err
	}
	back := NewID()
	err = a.cfg.Runner.Do(r.Context(), marathon.CancelDeployment{ID: id, NewID: back, Revert: !force})
	if err != nil {
		return err
	}
	if force {
		w.WriteHeader(http.StatusAccepted)
		return nil
	}
	version, err := a.versionOf(r, back)
	if err != nil {
		return err
	}
	return deployed(w, http.StatusOK, back, version)
}

type queueItem struct {
	App       *marathon.App  `json:"app"`
	Count     int            `json:"count"`
	Role      string         `json:"role"`
	Delay     map[string]any `json:"delay"`
	Since     string         `json:"since"`
	Processed map[string]any `json:"processedOffersSummary"`
	Waiting   string         `json:"waiting"` // ours: the reason in a sentence
}

func (a *API) queue(w http.ResponseWriter, r *http.Request, parts []string) error {
	n := len(parts)
	switch {
	case n == 0 && r.Method == http.MethodGet:
		return a.listQueue(w, r)
	case n >= 2 && parts[n-1] == "delay" && r.Method == http.MethodDelete:
		id := pathOf(parts[:n-1])
		err := a.cfg.Runner.Do(r.Context(), marathon.ResetDelay{App: id})
		if err != nil && !errors.Is(err, marathon.ErrNotFound) {
			return err
		}
		if err != nil {
			return &status{http.StatusNotFound, fmt.Sprintf("Application %s not found in tasks queue.", id)}
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return notAllowed(r)
}

func (a *API) listQueue(w http.ResponseWriter, r *http.Request) error {
	views, err := see(r, a, func(c *marathon.Core) []marathon.AppView { return c.Summaries(time.Now(), nil) })
	if err != nil {
		return err
	}
	list := []queueItem{}
	for i := range views {
		if v := &views[i]; v.Need > 0 {
			list = append(list, queueItem{
				App: v.App, Count: v.Need, Role: v.App.Role, Since: marathon.Timestamp(v.Since), Waiting: v.Waiting,
				Delay:     map[string]any{"timeLeftSeconds": int(v.Delay.Seconds()), "overdue": v.Delay <= 0},
				Processed: processed(&v.Refused),
			})
		}
	}
	return answer(w, http.StatusOK, map[string]any{"queue": list})
}

// reasons are Marathon's names for what an offer may lack.
var reasons = [][2]string{{"cpus", "InsufficientCpus"}, {"mem", "InsufficientMemory"}, {"disk", "InsufficientDisk"}, {"gpus", "InsufficientGpus"}}

func processed(r *marathon.Refusals) map[string]any {
	list := []map[string]any{}
	unused := 0
	for _, reason := range reasons {
		n := r.Lacking[reason[0]]
		unused += n
		list = append(list, map[string]any{"reason": reason[1], "declined": n, "processed": r.Processed})
	}
	return map[string]any{
		"processedOffersCount": r.Processed, "unusedOffersCount": unused, "lastUnusedOfferAt": timeOf(r.LastSeen),
		"lastUsedOfferAt": timeOf(r.LastUsed), "rejectSummaryLastOffers": list, "rejectSummaryLaunchAttempt": list,
	}
}

// service answers what is about Marathon itself.
func (a *API) service(w http.ResponseWriter, r *http.Request, name string, rest []string) error {
	switch {
	case name == "info" && len(rest) == 0:
		return a.info(w, r)
	case name == "leader" && r.Method != http.MethodGet && r.Method != http.MethodHead:
		return notAllowed(r)
	case name == "leader" && len(rest) == 0:
		return answer(w, http.StatusOK, map[string]string{"leader": a.cfg.Address})
	case name == "plugins" && len(rest) == 0:
		return answer(w, http.StatusOK, map[string]any{"plugins": []any{}})
	case name == "pods" && len(rest) == 0 && r.Method == http.MethodGet:
		return answer(w, http.StatusOK, []any{})
	case name == "pods":
		return &status{http.StatusNotFound, "Pods are not supported"}
	}
	return &status{http.StatusNotFound, "URI not found"}
}

func (a *API) info(w http.ResponseWriter, r *http.Request) error {
	var framework, master string
	var connected bool
	err := a.cfg.Runner.View(r.Context(), func(c *marathon.Core) { framework, master, connected = c.Info() })
	if err != nil {
		return err
	}
	out := map[string]any{
		"name": "marathon", "version": a.cfg.Version, "buildref": "mesopool", "elected": true, "leader": a.cfg.Address,
		"marathon_config": map[string]any{
			"framework_name": a.cfg.Framework, "hostname": a.cfg.Hostname, "mesos_leader_ui_url": a.cfg.MesosURL, "mesos_role": a.cfg.Role,
			"checkpoint": true, "ha": false, "failover_timeout": 604800, "master": master, "http_port": a.cfg.HTTPPort, "connected": connected,
		},
		"zookeeper_config": map[string]any{}, "http_config": map[string]any{"http_port": a.cfg.HTTPPort, "https_port": 0},
	}
	if framework != "" {
		out["frameworkId"] = framework
	}
	return answer(w, http.StatusOK, out)
}

// metrics are few and plain: what a dashboard wants to see.
func (a *API) metrics(w http.ResponseWriter, r *http.Request) error {
	views, err := see(r, a, func(c *marathon.Core) []marathon.AppView { return c.Summaries(time.Now(), nil) })
	if err != nil {
		return err
	}
	var staged, running, healthy, unhealthy, waiting int
	for i := range views {
		staged, running = staged+views[i].Staged, running+views[i].Running
		healthy, unhealthy, waiting = healthy+views[i].Healthy, unhealthy+views[i].Unhealthy, waiting+views[i].Need
	}
	gauge := func(n int) map[string]int { return map[string]int{"value": n} }
	return answer(w, http.StatusOK, map[string]any{
		"version": "3.0.0", "counters": map[string]any{}, "histograms": map[string]any{}, "meters": map[string]any{}, "timers": map[string]any{},
		"gauges": map[string]any{
			"service.mesosphere.marathon.app.count": gauge(len(views)), "service.mesosphere.marathon.task.staged.count": gauge(staged),
			"service.mesosphere.marathon.task.running.count": gauge(running), "mesopool.marathon.task.healthy": gauge(healthy),
			"mesopool.marathon.task.unhealthy": gauge(unhealthy), "mesopool.marathon.task.lacking": gauge(waiting),
		},
	})
}

// events streams what happens, as server-sent events. Unlike Marathon's, they
// have IDs, and Last-Event-ID gets what was missed.
func (a *API) events(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet {
		return notAllowed(r)
	}
	if !strings.Contains(r.Header.Get("Accept"), "text/event-stream") && r.Header.Get("Accept") != "*/*" && r.Header.Get("Accept") != "" {
		return &status{http.StatusNotAcceptable, "the events are text/event-stream"}
	}
	after, _ := strconv.ParseUint(r.Header.Get("Last-Event-ID"), 10, 64)
	l := a.cfg.Runner.Events().Listen(after)
	defer l.Close()
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	w.WriteHeader(http.StatusOK)
	attached := fmt.Sprintf("event: event_stream_attached\ndata: {\"eventType\":\"event_stream_attached\",\"remoteAddress\":%q,\"timestamp\":%q}\n\n", clientIP(r), marathon.Timestamp(time.Now()))
	if err := send(w, attached); err != nil {
		return nil
	}
	return stream(w, r, l, r.URL.Query()["event_type"])
}

// stream writes events until the client or the bus hangs up.
func stream(w http.ResponseWriter, r *http.Request, l *runner.Listener, types []string) error {
	alive := time.NewTicker(15 * time.Second)
	defer alive.Stop()
	for {
		select {
		case <-r.Context().Done():
			return nil
		case <-alive.C:
			if send(w, "\n") != nil {
				return nil
			}
		case e, open := <-l.C:
			if !open {
				return nil
			}
			if !listens(types, e.Type) {
				continue
			}
			if send(w, fmt.Sprintf("event: %s\nid: %d\ndata: %s\n\n", e.Type, e.ID, e.Data)) != nil {
				return nil
			}
		}
	}
}

func listens(types []string, kind string) bool {
	for _, t := range types {
		if t == kind {
			return true
		}
	}
	return len(types) == 0
}

func send(w http.ResponseWriter, text string) error {
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(patience)) // where it can be set
	if _, err := w.Write([]byte(text)); err != nil {
		return err
	}
	return http.NewResponseController(w).Flush()
}

// patience is how long a listener may take to read an event.
const patience = 30 * time.Second
