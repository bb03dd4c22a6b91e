package marathon

import (
	"fmt"
	"slices"
	"time"

	"github.com/mesopool/mesopool/marathon/autoscale"
	"github.com/mesopool/mesopool/task"
)

// scaling is what is known of an app that is autoscaled. It is in no record: after
// a restart of the scheduler, cool-down and window begin anew.
type scaling struct {
	scaler  autoscale.Scaler
	gauges  map[string]*gauges // by task
	trouble string             // what could not be measured the last time, as a sentence
	state   string             // what the last measuring came to, as a sentence
	last    string             // the last change, as a sentence
}

// gauges are those of one instance.
type gauges struct{ cpu, requests autoscale.Gauge }

// rescale follows a change of the app's definition, which was old; nil: there was
// none, or nobody knows.
func (a *app) rescale(now time.Time, old *App) {
	s := a.def.Autoscale
	if s == nil {
		a.scaling = nil
		return
	}
	if a.scaling == nil {
		a.scaling, old = &scaling{gauges: map[string]*gauges{}}, nil
	}
	if old == nil || old.Instances != a.def.Instances || old.ConfigVersion() != a.def.ConfigVersion() || !s.same(old.Autoscale) {
		a.scaling.scaler.Restart(now)
		a.scaling.state = ""
	}
}

func (s *Autoscale) same(o *Autoscale) bool {
	if o == nil || (s.Requests == nil) != (o.Requests == nil) || s.Requests != nil && *s.Requests != *o.Requests {
		return false
	}
	x, y := *s, *o
	x.Requests, y.Requests = nil, nil
	return x == y
}

func (s *Autoscale) rules() autoscale.Rules {
	return autoscale.Rules{Min: s.MinInstances, Max: s.MaxInstances, Cooldown: seconds(s.CooldownSeconds), DownAfter: seconds(s.ScaleDownAfterSeconds)}
}

// scales says whether the app may be scaled now: not while it is suspended, or
// somebody else changes it.
func (a *app) scales() bool {
	return a.scaling != nil && !a.stopping && a.def.Instances > 0 && !a.held() && !slices.ContainsFunc(a.changes, func(d *Deployment) bool { return !d.Auto })
}

// measurable lists the instances whose use counts: those that serve.
func (a *app) measurable() []*Instance {
	return slices.DeleteFunc(a.sorted(), func(i *Instance) bool {
		return i.Killing || i.State != task.Running || i.Version != a.def.ConfigVersion() || !i.Serves()
	})
}

// loads are what the app's instances use. astray: some agent did not tell, or
// nobody knows where it is.
func (a *app) loads(in *Measured) (out []autoscale.Load, astray bool) {
	s := a.def.Autoscale
	cpu := autoscale.Load{Name: "cpu", Target: s.CPU}
	mem := autoscale.Load{Name: "mem", Target: s.Mem}
	requests := autoscale.Load{Name: "requests per second", Target: s.RequestsPerSecond}
	before := a.scaling.gauges
	a.scaling.gauges = map[string]*gauges{}
	for _, i := range a.measurable() {
		g := before[i.TaskID]
		if g == nil {
			g = &gauges{}
		}
		a.scaling.gauges[i.TaskID] = g
		if u, ok := in.Usage[i.TaskID]; ok && u.CPU != nil {
			if v, known := g.cpu.Rate(autoscale.Count{At: u.At, Value: *u.CPU}); known {
				cpu.Used = append(cpu.Used, a.def.cpuShare(v))
			}
		}
		if u, ok := in.Usage[i.TaskID]; ok && u.Mem != nil {
			mem.Used = append(mem.Used, a.def.memShare(*u.Mem))
		}
		if n, ok := in.Requests[i.TaskID]; ok {
			if v, known := g.requests.Rate(n); known {
				requests.Used = append(requests.Used, v)
			}
		}
	}
	a.scaling.trouble, astray = a.troubleIn(in)
	return slices.DeleteFunc([]autoscale.Load{cpu, mem, requests}, func(l autoscale.Load) bool { return l.Target == 0 }), astray
}

// troubleIn says what could not be measured, "" when all could.
func (a *app) troubleIn(in *Measured) (why string, astray bool) {
	n, s := 0, a.def.Autoscale
	asked := a.core.measuring.tasks
	all := slices.DeleteFunc(a.measurable(), func(i *Instance) bool { return !asked[i.TaskID] })
	for _, i := range all {
		one := ""
		_, told := in.Usage[i.TaskID]
		switch asks := s.CPU > 0 || s.Mem > 0; {
		case asks && a.core.measuring.seen[i.Agent] == "":
			one, astray = fmt.Sprintf("it is not known where agent %s answers; its next offer tells", i.Agent), true
		case asks && in.Failed[i.Agent] != "":
			one, astray = in.Failed[i.Agent], true
		case asks && (!told || in.Usage[i.TaskID].CPU == nil && s.CPU > 0 || in.Usage[i.TaskID].Mem == nil && s.Mem > 0):
			one = fmt.Sprintf("agent %s does not tell what %s uses", i.Agent, i.TaskID)
		case in.Failed[i.TaskID] != "":
			one = in.Failed[i.TaskID]
		case s.Requests != nil && len(i.counter(s.Requests)) == 0:
			one = fmt.Sprintf("%s has no address", i.TaskID)
		}
		if one != "" {
			n, why = n+1, one
		}
	}
	if n > 0 {
		why = fmt.Sprintf("%d of %d instances could not be measured; the last: %s", n, len(all), why)
	}
	return why, astray
}

// rescaleTo decides, and if need be makes the change as a user would, never with
// force. While a change of its own is under way it only takes back.
func (c *Core) rescaleTo(now time.Time, a *app, loads []autoscale.Load, fx []Effect) []Effect {
	s, n := a.scaling, a.def.Instances
	advice := s.scaler.Decide(now, a.def.Autoscale.rules(), n, loads)
	s.state = advice.Why
	if advice.Wanted != n && advice.Instances == n {
		s.state += fmt.Sprintf("; %d instances would do, %d stay for now", advice.Wanted, n)
	}
	if advice.Instances == n || len(a.changes) > 0 && advice.Instances > n {
		return fx
	}
	why := fmt.Sprintf("%s: from %d to %d instances", advice.Why, n, advice.Instances)
	def := *a.def
	def.Instances = advice.Instances
	change := Change{DeploymentID: c.cfg.NewID(), Put: []*App{&def}, Author: Author{User: scaler, URI: "/v2/apps" + def.ID}, auto: why}
	fx, err := c.change(now, change, fx)
	if err != nil {
		s.state = fmt.Sprintf("%s is refused: %v", why, err)
		return fx
	}
	if s.last = fmt.Sprintf("%s, %s", Timestamp(now), why); advice.Instances > n {
		c.measuring.counted.Ups++
	} else {
		c.measuring.counted.Downs++
	}
	body := map[string]any{"appId": def.ID, "from": n, "to": advice.Instances, "reason": why, "deploymentId": change.DeploymentID}
	return append(fx, Event{Type: "autoscale_event", Time: now, Body: body})
}

// scaler is the user that scales by itself.
const scaler = "autoscale"

// scalingNotes say how the app is scaled.
func (a *app) scalingNotes() (out []string) {
	s := a.scaling
	if s == nil {
		return nil
	}
	switch {
	case a.def.Instances == 0:
		out = append(out, "autoscale: the app is suspended; it stays so until somebody scales it")
	case !a.scales():
		out = append(out, "autoscale: waits for the end of the app's deployment")
	case s.state == "":
		out = append(out, "autoscale: nothing is measured yet")
	default:
		out = append(out, "autoscale: "+s.state)
	}
	for _, more := range []string{s.trouble, s.last} {
		if more != "" {
			out = append(out, "autoscale: "+more)
		}
	}
	return out
}
