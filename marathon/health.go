package marathon

import (
	"strings"
	"time"

	"github.com/mesopool/mesopool/task"
)

// startChecks makes the first checks of a new instance at once, so that it can
// serve soon.
func (c *Core) startChecks(now time.Time, i *Instance) {
	if i.def == nil {
		return
	}
	c.startReadiness(now, i)
	for n := range i.def.HealthChecks {
		if s := i.check(n); i.def.HealthChecks[n].byScheduler() && !s.running {
			s.running = true
			c.timers.Add(now.Add(time.Second), timer{kind: timerCheck, id: i.TaskID, index: n})
		}
	}
}

// check is the state of check n, which the first call makes.
func (i *Instance) check(n int) *CheckState {
	if i.checks == nil {
		i.checks = map[int]*CheckState{}
	}
	if i.checks[n] == nil {
		i.checks[n] = &CheckState{}
	}
	return i.checks[n]
}

// check makes a check that is due. One without an answer yet is not made again.
func (c *Core) check(now time.Time, t timer, fx []Effect) []Effect {
	i := c.instances[t.id]
	if i == nil {
		return fx
	}
	if t.index >= len(i.def.HealthChecks) || !i.def.HealthChecks[t.index].byScheduler() { // taken away meanwhile
		delete(i.checks, t.index)
		return fx
	}
	s := i.check(t.index)
	s.running = i.State == task.Running && !i.Killing
	if !s.running {
		return fx
	}
	h := &i.def.HealthChecks[t.index]
	c.timers.Add(now.Add(i.pace(now, s, h)), t)
	if !s.sent.IsZero() && now.Before(s.sent.Add(seconds(h.Timeout)+lateAnswer)) {
		return fx
	}
	port, known := i.checkPort(h)
	if !known || i.inside(port) == "" {
		return c.checked(now, Checked{TaskID: i.TaskID, Index: t.index, Cause: "the instance has no address"}, fx)
	}
	s.sent = now
	return append(fx, Check{
		TaskID: i.TaskID, Index: t.index, Kind: strings.TrimPrefix(h.Protocol, "MESOS_"), Address: i.inside(port), Public: i.public(port),
		Path: h.Path, Timeout: seconds(h.Timeout), Ignore1: h.IgnoreHTTP1xx,
	})
}

const (
	lateAnswer  = 5 * time.Second        // a check that has no answer so long after its time was lost
	fastestPace = 100 * time.Millisecond // of checks
)

// pace: during the grace period, until the first success, a check is made more
// often than its interval, so that a deployment does not wait for it.
func (i *Instance) pace(now time.Time, s *CheckState, h *HealthCheck) time.Duration {
	pace := max(seconds(h.Interval), fastestPace)
	if i.inGrace(now, s, h) {
		return min(pace, 2*time.Second)
	}
	return pace
}

func (i *Instance) inGrace(now time.Time, s *CheckState, h *HealthCheck) bool {
	return s.FirstSuccess.IsZero() && now.Sub(i.Started) < seconds(h.GraceSeconds)
}

func (i *Instance) checkPort(h *HealthCheck) (port int, ok bool) {
	if h.Port != nil {
		return *h.Port, true
	}
	n := deref(h.PortIndex)
	if n >= len(i.Ports) {
		return 0, false
	}
	return i.Ports[n], true
}

// checked takes a result. Failures count from the first success or the end of
// the grace period on; one more than the limit ends the instance
// (HealthCheckActor.scala).
func (c *Core) checked(now time.Time, in Checked, fx []Effect) []Effect {
	i := c.instances[in.TaskID]
	if i == nil || i.def == nil || in.Index < 0 || in.Index >= len(i.def.HealthChecks) {
		return fx
	}
	s := i.check(in.Index)
	s.sent = time.Time{}
	if i.State != task.Running || i.Killing {
		return fx
	}
	before := i.Health()
	if in.Alive {
		s.succeed(now)
	} else {
		fx = c.failCheck(now, i, s, &i.def.HealthChecks[in.Index], in.Cause, fx)
	}
	c.touch(i)
	return c.tellHealth(now, i, before, fx)
}

// tellHealth tells of a change of health.
func (c *Core) tellHealth(now time.Time, i *Instance, before *bool, fx []Effect) []Effect {
	after := i.Health()
	if after == nil || before != nil && *before == *after {
		return fx
	}
	return append(fx, Event{Type: "health_status_changed_event", Time: now, Body: map[string]any{
		"appId": i.App, "instanceId": i.ID, "taskId": i.TaskID, "version": i.Version, "alive": *after,
	}}, Event{Type: "instance_health_changed_event", Time: now, Body: map[string]any{
		"instanceId": i.ID, "runSpecId": i.App, "healthy": *after, "runSpecVersion": i.Version,
	}})
}

func (s *CheckState) succeed(now time.Time) {
	if s.FirstSuccess.IsZero() {
		s.FirstSuccess = now
	}
	s.Alive, s.Known, s.Failures, s.LastSuccess, s.Cause = true, true, 0, now, ""
}

func (c *Core) failCheck(now time.Time, i *Instance, s *CheckState, h *HealthCheck, cause string, fx []Effect) []Effect {
	s.LastFailure, s.Cause = now, cause
	if i.inGrace(now, s, h) {
		return fx
	}
	s.Alive, s.Known = false, true
	s.Failures++
	fx = append(fx, Event{Type: "failed_health_check_event", Time: now, Body: map[string]any{"appId": i.App, "instanceId": i.ID, "taskId": i.TaskID, "healthCheck": h}})
	if h.MaxFailures == 0 || s.Failures <= h.MaxFailures {
		return fx
	}
	if a := c.apps[i.App]; a != nil {
		if a.braked(now) != "" {
			return fx // the next check that fails asks again
		}
		if a.def.HealthBrake != nil {
			a.ended = append(a.ended, now)
		}
		c.fail(now, a, i, "it was killed because a health check failed: "+cause)
	}
	fx = append(fx, Event{Type: "unhealthy_instance_kill_event", Time: now, Body: map[string]any{
		"appId": i.App, "taskId": i.TaskID, "instanceId": i.ID, "version": i.Version, "reason": cause, "host": i.Host, "slaveId": i.Agent,
	}})
	return c.killInstance(now, i, fx)
}
