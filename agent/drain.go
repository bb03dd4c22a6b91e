package agent

import (
	"time"

	"github.com/mesopool/mesopool/task"
)

// DrainConfig is how the agent is emptied for maintenance (mesos.proto,
// DrainConfig).
type DrainConfig struct {
	MaxGrace *time.Duration `json:",omitzero"` // bounds the tasks' own; nil: those
	MarkGone bool           `json:",omitzero"` // the agent will not come back
}

const reasonDraining task.Reason = "REASON_AGENT_DRAINING"

// startDrain ends all tasks; until the last is acknowledged nothing is launched.
// An agent without tasks has nothing to drain (slave.cpp, drain).
func (c *Core) startDrain(now time.Time, in Drain, fx []Effect) []Effect {
	if len(c.tasks) == 0 {
		return fx
	}
	c.drain = &in.Config
	fx = append(fx, SaveDrain{Config: c.drain})
	for _, r := range c.sorted() {
		if r.State.Terminal() || r.Cause == CauseMaxCompletion {
			continue
		}
		if r.Spec.HoldsPod() { // it ends with its tasks
			fx = c.endIdle(now, r, fx)
			continue
		}
		fx = c.stop(now, r, c.bounded(r, r.Grace), fx)
	}
	return fx
}

// bounded is the grace of a kill, or of the task, unless draining leaves less.
func (c *Core) bounded(r *row, grace *time.Duration) *time.Duration {
	if c.drain == nil || c.drain.MaxGrace == nil {
		return grace
	}
	own := grace
	if own == nil {
		own = r.Spec.KillGrace
	}
	if own == nil || *own > *c.drain.MaxGrace {
		return c.drain.MaxGrace
	}
	return grace
}

// drained marks the ends that draining brings (slave.cpp, statusUpdate).
func (c *Core) drained(r *row, s task.Status) task.Status {
	if c.drain == nil || s.State != task.Killing && s.State != task.Killed {
		return s
	}
	s.Reason = reasonDraining
	if s.State == task.Killed && c.drain.MarkGone && c.partitionAware(r.key.Framework) {
		s.State = task.GoneByOperator
	}
	return s
}

// endDrain: when nothing is left, the agent is as new.
func (c *Core) endDrain(fx []Effect) []Effect {
	if c.drain == nil || len(c.tasks) > 0 {
		return fx
	}
	c.drain = nil
	return append(fx, SaveDrain{})
}
