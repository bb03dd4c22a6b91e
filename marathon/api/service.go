package api

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mesopool/mesopool/internal/uuid"
	"github.com/mesopool/mesopool/marathon"
	"github.com/mesopool/mesopool/marathon/runner"
	"github.com/mesopool/mesopool/task"
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
	Action    string                     `json:"action"`
	App       string                     `json:"app,omitempty"`
	Pod       string                     `json:"pod,omitempty"`
	Readiness []marathon.ReadinessResult `json:"readinessCheckResults"`
}

func stepsOf(steps [][]marathon.Action) []stepInfo {
	out := []stepInfo{}
	for _, s := range steps {
		out = append(out, stepInfo{s})
	}
	return out
}

func describeDeployment(d *marathon.Deployment, readiness func(app string) []marathon.ReadinessResult) deploymentInfo {
	out := deploymentInfo{
		ID: d.ID, Version: d.Version, AffectedApps: d.Touched(false), AffectedPods: d.Touched(true), Steps: stepsOf(d.Steps),
		CurrentActions: []actionInfo{}, CurrentStep: d.Current + 1, TotalSteps: len(d.Steps),
	}
	if d.Current < len(d.Steps) {
		for _, act := range d.Steps[d.Current] {
			out.CurrentActions = append(out.CurrentActions, describeAction(act, readiness))
		}
	}
	return out
}

func describeAction(act marathon.Action, readiness func(app string) []marathon.ReadinessResult) actionInfo {
	out := actionInfo{Action: act.Name(), App: act.App, Readiness: readiness(act.App)}
	if act.Pod {
		out.App, out.Pod = "", act.App
	}
	return out
}

func (a *API) deployments(w http.ResponseWriter, r *http.Request, parts []string) error {
	switch {
	case len(parts) == 0 && r.Method == http.MethodGet:
		out, err := see(r, a, func(c *marathon.Core) []deploymentInfo {
			list := c.Deployments()
			out := make([]deploymentInfo, len(list))
			for i := range list {
				out[i] = describeDeployment(&list[i], c.Readiness)
			}
			return out
		})
		if err != nil {
			return err
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
	back := uuid.New().String()
	err = a.cfg.Runner.Do(r.Context(), marathon.CancelDeployment{Author: author(r), ID: id, NewID: back, Revert: !force})
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
	App       *marathon.App  `json:"app,omitempty"`
	Pod       *marathon.Pod  `json:"pod,omitempty"`
	Count     int            `json:"count"`
	Role      string         `json:"role"`
	Delay     map[string]any `json:"delay"`
	Since     string         `json:"since"`
	Processed map[string]any `json:"processedOffersSummary"`
	Unused    []unusedOffer  `json:"lastUnusedOffers,omitzero"`
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
	offers := slices.Contains(r.URL.Query()["embed"], "lastUnusedOffers")
	for i := range views {
		if v := &views[i]; v.Need > 0 {
			list = append(list, queueItem{
				App: v.App, Count: v.Need, Role: v.App.Role, Since: marathon.Timestamp(v.Since), Waiting: v.Waiting,
				Delay:     map[string]any{"timeLeftSeconds": int(v.Delay.Seconds()), "overdue": v.Delay <= 0},
				Processed: processed(&v.Refused),
			})
			if v.App.IsPod() {
				list[len(list)-1].App, list[len(list)-1].Pod = nil, v.App.PodDefinition()
			}
			if offers {
				list[len(list)-1].Unused = unusedOffers(v.Refused.Unused)
			}
		}
	}
	return answer(w, http.StatusOK, map[string]any{"queue": list})
}

type unusedOffer struct {
	Offer  offerInfo `json:"offer"`
	Reason []string  `json:"reason"`
	Time   string    `json:"timestamp"`
}

type offerInfo struct {
	ID         string           `json:"id"`
	AgentID    string           `json:"agentId"`
	Hostname   string           `json:"hostname"`
	Resources  []offerResource  `json:"resources"`
	Attributes []map[string]any `json:"attributes"`
}

type offerResource struct {
	Name   string  `json:"name"`
	Role   string  `json:"role"`
	Scalar float64 `json:"scalar"`
}

func unusedOffers(list []marathon.UnusedOffer) []unusedOffer {
	out := []unusedOffer{}
	for i := range list {
		out = append(out, unusedOffer{describeOffer(&list[i].Offer), []string{list[i].Reason}, marathon.Timestamp(list[i].Time)})
	}
	return out
}

func describeOffer(o *task.Offer) offerInfo {
	out := offerInfo{ID: o.ID, AgentID: o.Agent, Hostname: o.Hostname, Resources: []offerResource{}, Attributes: []map[string]any{}}
	for _, name := range []string{"cpus", "mem", "disk", "gpus"} {
		if n := o.Resources.Amount(name); n > 0 {
			out.Resources = append(out.Resources, offerResource{name, o.Role, n.Float()})
		}
	}
	for _, l := range o.Attributes {
		out.Attributes = append(out.Attributes, map[string]any{"name": l.Key, "text": l.Value})
	}
	return out
}

// reasons are Marathon's names for what an offer may lack.
var reasons = [][2]string{{"cpus", "InsufficientCpus"}, {"mem", "InsufficientMemory"}, {"disk", "InsufficientDisk"}, {"gpus", "InsufficientGpus"}}

func processed(r *marathon.Refusals) map[string]any {
	list := []map[string]any{{"reason": "UnfulfilledConstraint", "declined": r.Unmet, "processed": r.Processed}}
	unused := r.Unmet
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
	case name == "leader" && len(rest) == 0:
		return a.leader(w, r)
	case name == "eventSubscriptions" && len(rest) == 0:
		return a.subscriptions(w, r)
	case name == "audit" && len(rest) == 0 && r.Method == http.MethodGet:
		return a.audit(w, r)
	case name == "plugins" && len(rest) == 0:
		return answer(w, http.StatusOK, map[string]any{"plugins": []any{}})
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
	out := a.cfg.about(a.cfg.Address)
	config := out["marathon_config"].(map[string]any)
	config["master"], config["connected"] = master, connected
	if framework != "" {
		out["frameworkId"] = framework
	}
	return answer(w, http.StatusOK, out)
}

// about is what a Marathon says of itself, leading or not.
func (c *Config) about(leader string) map[string]any {
	return map[string]any{
		"name": "marathon", "version": c.Version, "buildref": "mesopool", "elected": leader == c.Address, "leader": leader,
		"marathon_config": map[string]any{
			"framework_name": c.Framework, "hostname": c.Hostname, "mesos_leader_ui_url": c.MesosURL, "mesos_role": c.Role,
			"checkpoint": true, "ha": c.Abdicate != nil, "failover_timeout": 604800, "http_port": c.HTTPPort,
		},
		"zookeeper_config": map[string]any{}, "http_config": map[string]any{"http_port": c.HTTPPort, "https_port": 0},
	}
}

// leader says who leads; DELETE lets another one, and nothing is in backup and
// restore, as the state needs neither.
func (a *API) leader(w http.ResponseWriter, r *http.Request) error {
	switch {
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		return answer(w, http.StatusOK, map[string]string{"leader": a.cfg.Address})
	case r.Method != http.MethodDelete || a.cfg.Abdicate == nil:
		return notAllowed(r)
	}
	defer a.cfg.Abdicate()
	return answer(w, http.StatusOK, map[string]string{"message": "Leadership abdicated"})
}

// metrics are few and plain: what a dashboard wants to see.
func (a *API) metrics(w http.ResponseWriter, r *http.Request) error {
	var scaling marathon.MeasureCounts
	views, err := see(r, a, func(c *marathon.Core) []marathon.AppView {
		scaling = c.MeasureCounts()
		return c.Summaries(time.Now(), nil)
	})
	if err != nil {
		return err
	}
	var staged, running, healthy, unhealthy, waiting int
	for i := range views {
		staged, running = staged+views[i].Staged, running+views[i].Running
		healthy, unhealthy, waiting = healthy+views[i].Healthy, unhealthy+views[i].Unhealthy, waiting+views[i].Need
	}
	gauge := func(n int) map[string]int { return map[string]int{"value": n} }
	counter := func(n int) map[string]int { return map[string]int{"count": n} }
	return answer(w, http.StatusOK, map[string]any{
		"version": "3.0.0", "histograms": map[string]any{}, "meters": map[string]any{}, "timers": map[string]any{},
		"counters": map[string]any{
			"mesopool.marathon.autoscale.rounds": counter(scaling.Rounds), "mesopool.marathon.autoscale.failures": counter(scaling.Failures),
			"mesopool.marathon.autoscale.up": counter(scaling.Ups), "mesopool.marathon.autoscale.down": counter(scaling.Downs),
		},
		"gauges": map[string]any{
			"service.mesosphere.marathon.app.count": gauge(len(views)), "service.mesosphere.marathon.task.staged.count": gauge(staged),
			"service.mesosphere.marathon.task.running.count": gauge(running), "mesopool.marathon.task.healthy": gauge(healthy),
			"mesopool.marathon.task.unhealthy": gauge(unhealthy), "mesopool.marathon.task.lacking": gauge(waiting), "mesopool.marathon.leads": gauge(1),
		},
	})
}

// subscriptions are URLs that events are posted to, as before Marathon 1.5.
func (a *API) subscriptions(w http.ResponseWriter, r *http.Request) error {
	calls, url := a.cfg.Runner.Callbacks(), r.URL.Query().Get("callbackUrl")
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return answer(w, http.StatusOK, map[string]any{"callbackUrls": append([]string{}, calls.List()...)})
	}
	event := "subscribe_event"
	var err error
	switch r.Method {
	case http.MethodPost:
		err = calls.Add(r.Context(), url)
	case http.MethodDelete:
		event = "unsubscribe_event"
		_, err = calls.Remove(r.Context(), url)
	default:
		return notAllowed(r)
	}
	if errors.Is(err, runner.ErrBadCallback) {
		return &status{http.StatusUnprocessableEntity, err.Error()}
	}
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, map[string]string{"callbackUrl": url, "clientIp": clientIP(r), "eventType": event, "timestamp": marathon.Timestamp(time.Now())})
}

// events streams what happens, as server-sent events. Unlike Marathon's, they
// have IDs, and Last-Event-ID gets what was missed.
func (a *API) events(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet {
		return notAllowed(r)
	}
	if !strings.Contains(r.Header.Get("Accept"), "text/event-stream") && r.Header.Get("Accept") != "*/*" && r.Header.Get("Accept") != "" {
		return &status{http.StatusMethodNotAllowed, "the events are text/event-stream: the header Accept must allow that"}
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
