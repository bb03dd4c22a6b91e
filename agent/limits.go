package agent

import (
	"fmt"
	"time"

	"github.com/mesopool/mesopool/task"
)

// limit sets when a task must have ended. The time runs from the launch
// (docker/executor.cpp, taskCompletionTimeout), and on while the agent is away.
func (c *Core) limit(r *row) {
	if !r.Shut.IsZero() && !r.Stop {
		r.deadline = r.Shut
		c.wakes.add(r.deadline, r)
		return
	}
	if r.Spec.MaxCompletion <= 0 || r.Stop || r.State.Terminal() || r.Spec.Hosted() { // an executor keeps its tasks' time
		return
	}
	r.deadline = r.Since.Add(r.Spec.MaxCompletion)
	c.wakes.add(r.deadline, r)
}

// expire ends a task that took too long, at once. One that is being killed
// anyway is left to its grace.
func (c *Core) expire(now time.Time, r *row, fx []Effect) []Effect {
	r.deadline = time.Time{}
	switch {
	case r.Stop || r.State.Terminal():
		return fx
	case !r.Shut.IsZero():
		return c.stop(now, r, new(time.Duration(0)), fx)
	}
	r.Cause, r.Why = CauseMaxCompletion, fmt.Sprintf("The task did not end within its max_completion_time of %v", r.Spec.MaxCompletion)
	return c.stop(now, r, new(time.Duration(0)), fx)
}

// caused adds to a status that ends a task, or says that it is about to end,
// what the agent's own cause for it was.
func (r *row) caused(s task.Status) task.Status {
	switch r.Cause {
	case CauseMaxCompletion:
		s.Reason = task.ReasonMaxCompletionTime
		if s.State == task.Killed {
			s.State = task.Failed
		}
	case CauseGroup:
	case CausePod:
		s.Reason = task.ReasonExecutorTerminated
		if s.State == task.Killed {
			s.State = task.Failed
		}
	case CauseUnhealthy:
		s.Healthy = new(false)
	default:
		return s
	}
	if s.Message != "" {
		s.Message = r.Why + ": " + s.Message
	} else {
		s.Message = r.Why
	}
	return s
}
