package marathon

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mesopool/mesopool/task"
)

// ReadinessResult is the last word of an instance on whether it can take over.
type ReadinessResult struct {
	Name         string             `json:"name"`
	TaskID       string             `json:"taskId"`
	Ready        bool               `json:"ready"`
	LastResponse *ReadinessResponse `json:"lastResponse,omitempty"` // if the check says that it is to be preserved
}

// ReadinessResponse is an answer to a readiness check.
type ReadinessResponse struct {
	Status      int    `json:"status"`
	ContentType string `json:"contentType"`
	Body        string `json:"body"`
}

type (
	// CheckReady makes a readiness check and answers with CheckedReady.
	CheckReady struct {
		TaskID  string
		URL     string
		Public  string // host:port for the outside, "" when it is not published
		Timeout time.Duration
	}

	// CheckedReady is the answer to a readiness check; Status is 0 when there
	// was none.
	CheckedReady struct {
		TaskID string
		ReadinessResponse
	}
)

func (CheckReady) effect()  {}
func (CheckedReady) input() {}

// mostResponse is how much of an answer is kept.
const mostResponse = 4096

func (c *checker) readiness(a *App) {
	c.must(len(a.Readiness) <= 1, "/readinessChecks", "at most one is allowed")
	for n := range a.Readiness {
		r := &a.Readiness[n]
		where := fmt.Sprintf("/readinessChecks(%d)", n)
		c.must(r.Protocol == "HTTP" || r.Protocol == "HTTPS", where+"/protocol", "got %q, expected HTTP or HTTPS", r.Protocol)
		c.must(r.Interval > 0 && r.Timeout > 0 && r.Timeout < r.Interval, where+"/timeoutSeconds", "Timeout (%v seconds) must be less than the interval (%v seconds)", r.Timeout, r.Interval)
		c.must(a.portNamed(r.PortName) >= 0, where+"/portName", "there is no port called %q", r.PortName)
	}
}

// portNamed is the index of a port, -1 when there is none.
func (a *App) portNamed(name string) int {
	return slices.IndexFunc(a.ports(), func(p port) bool { return p.name == name })
}

// gates says whether a new instance of the app must show that it is ready:
// only while a deployment is under way.
func (a *app) gates() bool {
	return len(a.changes) > 0 && len(a.def.Readiness) > 0 && a.def.portNamed(a.def.Readiness[0].PortName) >= 0
}

// startReadiness makes the first check of an instance soon.
func (c *Core) startReadiness(now time.Time, i *Instance) {
	if i.Unready && !i.readying {
		i.readying = true
		c.timers.Add(now.Add(time.Second), timer{kind: timerReady, id: i.TaskID})
	}
}

func (c *Core) checkReady(now time.Time, id string, fx []Effect) []Effect {
	i := c.instances[id]
	if i == nil {
		return fx
	}
	i.readying = i.Unready && i.State == task.Running && !i.Killing && len(i.def.Readiness) > 0
	if !i.readying {
		return fx
	}
	r := &i.def.Readiness[0]
	c.timers.Add(now.Add(max(seconds(r.Interval), fastestPace)), timer{kind: timerReady, id: id})
	n := max(0, i.def.portNamed(r.PortName))
	if n >= len(i.Ports) || len(i.Addresses) == 0 || !i.readySent.IsZero() && now.Before(i.readySent.Add(seconds(r.Timeout)+lateAnswer)) {
		return fx
	}
	i.readySent = now
	url := strings.ToLower(r.Protocol) + "://" + i.inside(i.Ports[n]) + "/" + strings.TrimPrefix(r.Path, "/")
	return append(fx, CheckReady{TaskID: id, URL: url, Public: i.public(i.Ports[n]), Timeout: seconds(r.Timeout)})
}

func (c *Core) checkedReady(in CheckedReady, fx []Effect) []Effect {
	i := c.instances[in.TaskID]
	if i == nil || !i.Unready || len(i.def.Readiness) == 0 {
		return fx
	}
	r := &i.def.Readiness[0]
	i.readySent = time.Time{}
	result := &ReadinessResult{Name: r.Name, TaskID: i.TaskID, Ready: slices.Contains(r.ReadyCodes, in.Status)}
	if r.PreserveReply && in.Status != 0 {
		last := in.ReadinessResponse
		last.Body = last.Body[:min(len(last.Body), mostResponse)]
		result.LastResponse = &last
	}
	i.readiness = result
	if !result.Ready {
		return fx
	}
	return c.ready(i, fx)
}

func (c *Core) ready(i *Instance, fx []Effect) []Effect {
	i.Unready = false
	c.touch(i)
	return append(fx, Save{Key: KeyInstance + i.TaskID, Value: i})
}

// release lets instances count that still had to show that they are ready: the
// deployment for which they had to is over.
func (c *Core) release(a *app, fx []Effect) []Effect {
	if !a.gated || len(a.changes) > 0 {
		return fx
	}
	a.gated = false
	for _, i := range a.sorted() {
		if i.Unready {
			fx = c.ready(i, fx)
		}
	}
	return fx
}

// unready counts the instances that have yet to show that they are ready.
func (a *app) unready() int {
	n := 0
	if !a.gated {
		return 0
	}
	for _, i := range a.instances {
		if i.Unready && !i.Killing {
			n++
		}
	}
	return n
}

// Readiness lists what the instances of an app that is being changed have said
// of their readiness.
func (c *Core) Readiness(id string) []ReadinessResult {
	out := []ReadinessResult{}
	a := c.apps[id]
	if a == nil || len(a.changes) == 0 || len(a.def.Readiness) == 0 {
		return out
	}
	for _, i := range a.sorted() {
		if i.readiness != nil && i.Version == a.def.ConfigVersion() {
			out = append(out, *i.readiness)
		}
	}
	return out
}

func (a *app) sorted() []*Instance {
	out := make([]*Instance, 0, len(a.instances))
	for _, i := range a.instances {
		out = append(out, i)
	}
	slices.SortFunc(out, func(a, b *Instance) int { return strings.Compare(a.TaskID, b.TaskID) })
	return out
}
