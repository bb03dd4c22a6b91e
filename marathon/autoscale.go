package marathon

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strings"
)

// Autoscale lets the scheduler choose the number of instances, within bounds, by
// what the instances use. It is ours; without it only users scale. At least one
// of CPU, Mem and RequestsPerSecond is given; the one that asks for the most
// instances decides.
type Autoscale struct {
	MinInstances int `json:"minInstances"` // at least 1
	MaxInstances int `json:"maxInstances"`

	CPU               float64 `json:"cpu,omitempty"`               // part of the app's cpus that an instance should use; 0: does not count
	Mem               float64 `json:"mem,omitempty"`               // part of its mem
	RequestsPerSecond float64 `json:"requestsPerSecond,omitempty"` // that an instance should serve

	// Requests is the counter for RequestsPerSecond, which instances tell themselves.
	Requests *RequestCounter `json:"requests,omitempty"`

	CooldownSeconds       float64 `json:"cooldownSeconds"`       // no change so long after the last one
	ScaleDownAfterSeconds float64 `json:"scaleDownAfterSeconds"` // so long fewer must have been enough
}

// RequestCounter is where an instance says how many requests it has served since
// its start: in Prometheus' text format, over HTTP. All values of the metric are
// added up.
type RequestCounter struct {
	PortIndex int    `json:"portIndex"`
	Path      string `json:"path"`
	Metric    string `json:"metric"`
}

// UnmarshalJSON fills in the defaults for which 0 is a value of its own.
func (s *Autoscale) UnmarshalJSON(text []byte) error {
	if string(text) == "null" {
		return errors.New("autoscale is an object, not null")
	}
	type plain Autoscale
	v := plain{MinInstances: 1, CooldownSeconds: 60, ScaleDownAfterSeconds: 300}
	if err := json.Unmarshal(text, &v); err != nil {
		return err
	}
	*s = Autoscale(v)
	return nil
}

func (s *Autoscale) setDefaults() {
	if s.RequestsPerSecond != 0 && s.Requests == nil {
		s.Requests = &RequestCounter{}
	}
	if r := s.Requests; r != nil {
		if r.Path == "" {
			r.Path = "/metrics"
		}
		if r.Metric == "" {
			r.Metric = "http_requests_total"
		}
	}
}

// leftOpen says that the definition does not say how many instances there are
// to be: what there is stays, or a new app begins with the fewest.
func (a *App) leftOpen(fields map[string]json.RawMessage) {
	if _, said := fields["instances"]; a.Autoscale != nil && !said {
		a.Instances, a.open = a.Autoscale.MinInstances, true
	}
}

// keepOpen has a change that does not say how many instances there are to be
// keep those that there are when it is made, not those that its author saw.
func keepOpen(fields, change map[string]json.RawMessage) {
	if _, said := change["instances"]; !said && fields["autoscale"] != nil {
		delete(fields, "instances")
	}
}

// filled is a definition with its number of instances, if it was left open:
// those that there are, within the bounds.
func (c *Core) filled(def *App) *App {
	known := c.apps[def.ID]
	if !def.open || known == nil || known.stopping {
		return def
	}
	out := *def
	out.Instances, out.open = known.def.Instances, false
	if s := out.Autoscale; out.Instances > 0 {
		out.Instances = min(max(out.Instances, s.MinInstances), s.MaxInstances)
	}
	return &out
}

// fill is filled for all definitions of a change.
func (c *Core) fill(in *Change) {
	put := make([]*App, len(in.Put))
	for i, def := range in.Put {
		put[i] = c.filled(def)
	}
	in.Put = put
}

// outOfBounds says in a sentence why an app cannot have its number of instances,
// "" when it can.
func (a *App) outOfBounds() string {
	s := a.Autoscale
	if s == nil || a.Instances == 0 || a.Instances >= s.MinInstances && a.Instances <= s.MaxInstances {
		return ""
	}
	return fmt.Sprintf("got %d, expected %d to %d (the bounds of autoscale), or 0 to suspend the app", a.Instances, s.MinInstances, s.MaxInstances)
}

var metricName = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*$`)

func (c *checker) autoscale(a *App) {
	s := a.Autoscale
	if s == nil {
		return
	}
	c.must(s.MinInstances >= 1, "/autoscale/minInstances", "got %d, expected 1 or more", s.MinInstances)
	bounded := s.MaxInstances >= max(s.MinInstances, 1) && s.MaxInstances <= mostInstances
	c.must(bounded, "/autoscale/maxInstances", "got %d, expected %d to %d", s.MaxInstances, max(s.MinInstances, 1), mostInstances)
	why := a.outOfBounds()
	c.must(!bounded || why == "", "/instances", "%s", why)
	c.must(s.CPU != 0 || s.Mem != 0 || s.RequestsPerSecond != 0, "/autoscale", "needs at least one of cpu, mem and requestsPerSecond")
	c.share("/autoscale/cpu", s.CPU)
	c.share("/autoscale/mem", s.Mem)
	c.must(s.Mem == 0 || a.Mem > 0, "/autoscale/mem", "is a part of the app's mem, which is 0")
	c.must(s.RequestsPerSecond >= 0 && s.RequestsPerSecond <= 1e9, "/autoscale/requestsPerSecond", "got %v, expected above 0, to 1000000000", s.RequestsPerSecond)
	c.requests(a, s)
	c.must(s.CooldownSeconds >= 0, "/autoscale/cooldownSeconds", "got %v, expected 0 or more", s.CooldownSeconds)
	c.must(s.ScaleDownAfterSeconds >= 0, "/autoscale/scaleDownAfterSeconds", "got %v, expected 0 or more", s.ScaleDownAfterSeconds)
	c.must(!a.RunOnce && !a.Everywhere, "/autoscale", "cannot be had with runOnce or everywhere")
}

// share: a container may use more than it asked for, and it may be meant to.
func (c *checker) share(where string, v float64) {
	c.must(v == 0 || v >= 0.01 && v <= 10, where, "got %v, expected 0.01 to 10: the part of what an instance asks for", v)
}

func (c *checker) requests(a *App, s *Autoscale) {
	r := s.Requests
	if r == nil {
		return
	}
	where := "/autoscale/requests"
	c.must(s.RequestsPerSecond != 0, where, "needs requestsPerSecond")
	c.must(r.PortIndex >= 0 && r.PortIndex < len(a.ports()), where+"/portIndex", "there is no port of index %d; the app has %d ports", r.PortIndex, len(a.ports()))
	c.must(strings.HasPrefix(r.Path, "/") && !strings.ContainsFunc(r.Path, isControl), where+"/path", "got %q, expected a path that begins with /", r.Path)
	c.must(metricName.MatchString(r.Metric), where+"/metric", "got %q, expected the name of a counter, such as http_requests_total", r.Metric)
}

func isControl(r rune) bool { return r <= ' ' || r == 0x7f }

const bytesPerMiB = 1 << 20

// cpuShare and memShare are what is used as a part of what the app asks for.
func (a *App) cpuShare(cpus float64) float64 { return cpus / math.Max(a.CPUs, 0.001) }

func (a *App) memShare(bytes float64) float64 { return bytes / (math.Max(a.Mem, 0.001) * bytesPerMiB) }
