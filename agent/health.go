package agent

import (
	"cmp"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/mesopool/mesopool/task"
)

// checker is how a task's health check stands (checks/health_checker.cpp).
type checker struct {
	since    time.Time // the grace period counts from here
	asked    bool      // a probe is under way
	untested bool      // no success yet
	failures uint32    // since the last success
}

// minInterval is the shortest pause between two probes of a task.
const minInterval = 100 * time.Millisecond

// uncheckable says why a task's health cannot be checked here, "" if it can.
func (c *Core) uncheckable(s *task.Spec) string {
	return cmp.Or(c.unprobeable("health check", s.Health), c.unprobeable("check", s.Check))
}

func (c *Core) unprobeable(what string, h *task.HealthCheck) string {
	switch {
	case h == nil:
		return ""
	case h.Type == 0:
		return "the " + what + " has no type; it must be COMMAND, HTTP or TCP"
	case h.Type == task.CheckCommand && c.cfg.NoExec:
		return "the " + what + " is a command, and this agent's backend cannot run commands in a container: use an HTTP or TCP check"
	case h.Type == task.CheckCommand && h.Command.Value == "" && len(h.Command.Args) == 0:
		return "the " + what + " is a command and names none"
	case h.Type != task.CheckCommand && h.Port == 0:
		return "the " + what + " names no port; it must be from 1 to 65535"
	}
	return ""
}

// startChecks begins the checks of a container that has come up, or that was up
// when the agent started: then a task that was healthy is believed to be.
func (c *Core) startChecks(now time.Time, r *row) {
	if r.Spec.Health == nil || r.check != nil {
		return
	}
	r.check = &checker{since: now, untested: r.Healthy == nil || !*r.Healthy}
	c.checkIn(now, r, r.Spec.Health.Delay)
}

func (c *Core) checkIn(now time.Time, r *row, d time.Duration) {
	r.checkAt = now.Add(d)
	c.wakes.add(r.checkAt, r)
}

// checkable says whether the task's health still matters to anybody.
func (r *row) checkable() bool {
	return r.check != nil && r.State == task.Running && !r.Stop && !r.Silent
}

func (c *Core) probe(r *row, fx []Effect) []Effect {
	r.checkAt = time.Time{}
	if !r.checkable() {
		return fx
	}
	r.check.asked = true
	return append(fx, Probe{Key: r.key, ID: r.Container.ID, Address: checkAddress(r, r.Spec.Health), Check: r.Spec.Health})
}

// checkAddress is where the port of the check can be reached: where it is
// published, else at the container's own address; "" if neither is known.
func checkAddress(r *row, h *task.HealthCheck) string {
	k := &r.Container
	if h.Type == task.CheckCommand {
		return ""
	}
	if ip := net.ParseIP(k.PublishIP); !h.IPv6 && ip != nil && !ip.IsUnspecified() {
		for _, p := range k.Ports {
			if p.Container == h.Port && p.Host != 0 && p.Protocol != "udp" {
				return net.JoinHostPort(k.PublishIP, strconv.Itoa(int(p.Host)))
			}
		}
	}
	for _, a := range k.Addresses {
		if !h.IPv6 || strings.Contains(a, ":") {
			return net.JoinHostPort(a, strconv.Itoa(int(h.Port)))
		}
	}
	return ""
}

func (c *Core) probed(now time.Time, in Probed, fx []Effect) []Effect {
	if in.Check != nil {
		return c.watched(now, in, fx)
	}
	r := c.tasks[in.Key]
	if r == nil || r.check == nil || !r.check.asked || r.Container.ID != in.ID {
		return fx
	}
	r.check.asked = false
	if !r.checkable() {
		return fx
	}
	c.checkIn(now, r, max(r.Spec.Health.Interval, minInterval))
	if in.Healthy {
		return c.passed(now, r, fx)
	}
	return c.failed(now, r, in.Cause, fx)
}

// passed tells the first success, and the first one after failures.
func (c *Core) passed(now time.Time, r *row, fx []Effect) []Effect {
	news := r.check.untested || r.check.failures > 0
	r.check.untested, r.check.failures = false, 0
	if !news {
		return fx
	}
	return c.tellHealth(now, r, true, "", fx)
}

// failed tells every failure but those in the grace period, which ends with the
// first success, and ends the task after too many.
func (c *Core) failed(now time.Time, r *row, cause string, fx []Effect) []Effect {
	h := r.Spec.Health
	if r.check.untested && h.Grace > 0 && now.Sub(r.check.since) <= h.Grace {
		return fx
	}
	r.check.failures++
	fx = c.tellHealth(now, r, false, cause, fx)
	if r.check.failures < h.Failures {
		return fx
	}
	r.Cause = CauseUnhealthy
	r.Why = fmt.Sprintf("The health check failed %d times in a row (%s)", r.check.failures, cause)
	return c.stop(now, r, nil, fx)
}

func (c *Core) tellHealth(now time.Time, r *row, healthy bool, cause string, fx []Effect) []Effect {
	r.Healthy = &healthy
	return c.repeat(now, r, task.Status{
		State: task.Running, Source: task.SourceExecutor, Reason: task.ReasonHealthCheckStatus, Message: cause, Healthy: &healthy,
	}, fx)
}
