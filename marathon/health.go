package marathon

import (
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/mesopool/mesopool/task"
)

// startChecks makes the first checks of a new instance at once, so that it can
// serve soon.
func (c *Core) startChecks(now time.Time, i *Instance) {
	a := c.apps[i.App]
	if a == nil {
		return
	}
	for n := range a.def.HealthChecks {
		if a.def.HealthChecks[n].byScheduler() {
			c.timers.Add(now.Add(time.Second), timer{kind: timerCheck, id: i.TaskID, index: n})
		}
	}
}

func (c *Core) check(now time.Time, t timer, fx []Effect) []Effect {
	i := c.instances[t.id]
	if i == nil || i.State != task.Running || i.Killing {
		return fx
	}
	a := c.apps[i.App]
	if a == nil || t.index >= len(a.def.HealthChecks) || i.Version != a.def.ConfigVersion() {
		return fx // it is on its way out
	}
	h := &a.def.HealthChecks[t.index]
	c.timers.Add(now.Add(c.pace(i, t.index, h)), t)
	host, port := c.checkTarget(i, h)
	if host == "" {
		return fx
	}
	return append(fx, Check{
		TaskID: i.TaskID, Index: t.index, Kind: strings.TrimPrefix(h.Protocol, "MESOS_"), Address: net.JoinHostPort(host, strconv.Itoa(port)),
		Path: h.Path, Timeout: seconds(h.Timeout), Ignore1: h.IgnoreHTTP1xx,
	})
}

// pace: until the first success a check is made more often than its interval,
// so that a deployment does not wait for it.
func (c *Core) pace(i *Instance, n int, h *HealthCheck) time.Duration {
	s := i.checks[n]
	if s == nil || s.FirstSuccess.IsZero() {
		return min(seconds(h.Interval), 2*time.Second)
	}
	return seconds(h.Interval)
}

func (c *Core) checkTarget(i *Instance, h *HealthCheck) (string, int) {
	if h.Port != nil {
		host, _ := i.Address(0)
		if host == "" && len(i.Addresses) > 0 {
			host = i.Addresses[0]
		}
		return host, *h.Port
	}
	return i.Address(deref(h.PortIndex))
}

// checked takes a result. Failures count from the first success or the end of
// the grace period on; one more than the limit ends the instance
// (HealthCheckActor.scala).
func (c *Core) checked(now time.Time, in Checked, fx []Effect) []Effect {
	i := c.instances[in.TaskID]
	if i == nil {
		return fx
	}
	a := c.apps[i.App]
	if a == nil || in.Index >= len(a.def.HealthChecks) {
		return fx
	}
	if i.checks == nil {
		i.checks = map[int]*CheckState{}
	}
	s := i.checks[in.Index]
	if s == nil {
		s = &CheckState{}
		i.checks[in.Index] = s
	}
	h := &a.def.HealthChecks[in.Index]
	was, known := s.Alive, s.Known
	if in.Alive {
		s.succeed(now)
	} else {
		grace := s.FirstSuccess.IsZero() && now.Sub(i.Started) < seconds(h.GraceSeconds)
		fx = c.failCheck(now, i, s, h, grace, in.Cause, fx)
	}
	if s.Alive != was || !known {
		c.changed[i.App] = true
		fx = append(fx, Event{Type: "health_status_changed_event", Time: now, Body: map[string]any{
			"appId": i.App, "instanceId": i.ID, "taskId": i.TaskID, "version": i.Version, "alive": s.Alive,
		}})
	}
	return fx
}

func (s *CheckState) succeed(now time.Time) {
	if s.FirstSuccess.IsZero() {
		s.FirstSuccess = now
	}
	s.Alive, s.Known, s.Failures, s.LastSuccess, s.Cause = true, true, 0, now, ""
}

func (c *Core) failCheck(now time.Time, i *Instance, s *CheckState, h *HealthCheck, grace bool, cause string, fx []Effect) []Effect {
	s.LastFailure, s.Cause = now, cause
	if grace {
		return fx
	}
	s.Alive, s.Known = false, true
	s.Failures++
	fx = append(fx, Event{Type: "failed_health_check_event", Time: now, Body: map[string]any{"appId": i.App, "instanceId": i.ID, "taskId": i.TaskID, "healthCheck": h}})
	if h.MaxFailures == 0 || s.Failures <= h.MaxFailures || i.Killing {
		return fx
	}
	fx = append(fx, Event{Type: "unhealthy_instance_kill_event", Time: now, Body: map[string]any{
		"appId": i.App, "taskId": i.TaskID, "instanceId": i.ID, "version": i.Version, "reason": cause, "host": i.Host, "slaveId": i.Agent,
	}})
	return c.killInstance(now, i, fx)
}
