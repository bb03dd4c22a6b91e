package agent

import (
	"time"

	"github.com/mesopool/mesopool/task"
)

// checked is what a status says of the task's check: its kind even before there
// is a result (checks/checker.cpp; launcher/executor.cpp, createTaskStatus).
func (r *row) checked() *task.CheckStatus {
	if r.Spec.Check == nil || r.Checked != nil {
		return r.Checked
	}
	return &task.CheckStatus{Type: r.Spec.Check.Type}
}

// startWatch begins the checks without consequences of a container that is up.
func (c *Core) startWatch(now time.Time, r *row) {
	if r.Spec.Check == nil || r.watching {
		return
	}
	r.rare().watching = true
	c.watchIn(now, r, r.Spec.Check.Delay)
}

func (c *Core) watchIn(now time.Time, r *row, d time.Duration) {
	r.rare().watchAt = now.Add(d)
	c.wakes.add(r.watchAt, r)
}

// watchable says whether the result of a check still matters to anybody.
func (r *row) watchable() bool {
	return r.watching && r.State == task.Running && !r.Stop && !r.Silent
}

func (c *Core) watch(r *row, fx []Effect) []Effect {
	r.rare().watchAt = time.Time{}
	if !r.watchable() {
		return fx
	}
	return append(fx, Probe{Key: r.key, ID: r.Container.ID, Address: checkAddress(r, r.Spec.Check), Check: r.Spec.Check, General: true})
}

// watched tells a result that differs from the last one.
func (c *Core) watched(now time.Time, in Probed, fx []Effect) []Effect {
	r := c.tasks[in.Key]
	if r == nil || r.Container.ID != in.ID || !r.watchable() || !r.watchAt.IsZero() {
		return fx
	}
	c.watchIn(now, r, max(r.Spec.Check.Interval, minInterval))
	if in.Check.Equal(r.checked()) {
		return fx
	}
	r.Checked = in.Check
	return c.repeat(now, r, task.Status{
		State: task.Running, Source: task.SourceExecutor, Reason: task.ReasonCheckStatus, Message: in.Cause, Healthy: r.Healthy,
	}, fx)
}
