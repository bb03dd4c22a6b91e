package agent

import (
	"cmp"
	"strconv"
	"time"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

func (c *Core) recover(now time.Time, in Recover, fx []Effect) []Effect {
	for _, f := range in.Frameworks {
		c.frameworks[f.ID] = &framework{Framework: f}
	}
	for _, rec := range in.Tasks {
		r := &row{extra: nothing, Record: rec, key: rec.Spec.Key}
		c.add(r)
		c.limit(r)
		fx = c.announceAgain(r, fx)
		fx = c.resend(now, r, fx)
	}
	fx = c.recoverPods(now, fx)
	c.drain = in.Drain
	return c.endDrain(fx)
}

// announceAgain: the registry may still list the task from before the restart,
// so a stop must withdraw it even before the watch has told anything.
func (c *Core) announceAgain(r *row, fx []Effect) []Effect {
	if r.State != task.Running || r.Stop || r.Container.ID == "" || r.Spec.HoldsPod() {
		return fx
	}
	r.announced = true
	return append(fx, Announce{Key: r.key, Spec: &r.Spec, Container: r.Container})
}

func (c *Core) launch(now time.Time, in Launch, fx []Effect) []Effect {
	key := in.Spec.Key
	if c.tasks[key] != nil {
		return fx
	}
	if c.drain != nil {
		return c.refuse(now, Refuse{
			Framework: in.Framework, Key: key, State: LostAs(in.Framework.PartitionAware, task.Dropped),
			Reason: reasonDraining, Message: "The agent is draining and takes no tasks",
		}, fx)
	}
	if why := c.unlaunchable(&in.Spec); why != "" {
		return c.refuse(now, Refuse{
			Framework: in.Framework, Key: key, State: task.Failed, Reason: task.ReasonContainerLaunchFailed, Message: why,
		}, fx)
	}
	_, fx = c.framework(in.Framework, fx)
	r, fx := c.begin(now, in.Spec, fx)
	fx = c.update(now, r, task.Status{State: task.Starting, Source: task.SourceExecutor}, fx)
	return c.advance(now, r, fx)
}

// begin makes the row of a task that is to be launched.
func (c *Core) begin(now time.Time, s task.Spec, fx []Effect) (*row, []Effect) {
	r := &row{extra: nothing, key: s.Key, Record: Record{
		Spec: s, Name: ContainerName(c.cfg.Owner.Cluster, s.Key, s.Name), State: task.Staging, Since: now, Tried: true,
	}}
	r.Silent = s.HoldsPod()
	c.add(r)
	c.limit(r)
	return r, append(fx, Save{Key: r.key, Record: &r.Record, Spec: true})
}

func (c *Core) refuse(now time.Time, in Refuse, fx []Effect) []Effect {
	if c.tasks[in.Key] != nil {
		return fx
	}
	c.refusals[in.Reason]++
	_, fx = c.framework(in.Framework, fx)
	r := &row{extra: nothing, key: in.Key, Record: Record{Spec: task.Spec{Key: in.Key}, State: task.Staging, Since: now}}
	c.add(r)
	fx = append(fx, Save{Key: in.Key, Record: &r.Record, Spec: true})
	return c.update(now, r, task.Status{State: in.State, Source: task.SourceAgent, Reason: in.Reason, Message: in.Message}, fx)
}

// kill: an unknown task of a known framework is answered with its end, one of
// an unknown framework not at all (slave.cpp, killTask).
func (c *Core) kill(now time.Time, in Kill, fx []Effect) []Effect {
	r := c.tasks[in.Key]
	if r == nil {
		f := c.frameworks[in.Key.Framework]
		if f == nil {
			return fx
		}
		return c.refuse(now, Refuse{
			Framework: f.Framework, Key: in.Key, State: LostAs(f.PartitionAware, task.Dropped),
			Reason: task.ReasonExecutorTerminated, Message: "The agent does not know this task",
		}, fx)
	}
	if r.State.Terminal() || r.Cause == CauseMaxCompletion { // that one has no grace left to change
		return fx
	}
	return c.stop(now, r, c.bounded(r, in.Grace), fx)
}

// stop makes a task end, or end sooner.
func (c *Core) stop(now time.Time, r *row, grace *time.Duration, fx []Effect) []Effect {
	r.Stop, r.Grace, r.again, r.look, r.deadline = true, grace, true, false, time.Time{}
	fx = append(fx, Save{Key: r.key, Record: &r.Record})
	r.tryAt, r.failures = time.Time{}, 0
	if r.Spec.Hosted() {
		return c.stopHosted(now, r, fx)
	}
	return c.advance(now, r, c.cancel(r, fx))
}

// cancel gives up a launch that is under way, so that a long pull of an image
// delays no kill; what came of it is looked up by name.
func (c *Core) cancel(r *row, fx []Effect) []Effect {
	if r.inFlight != OpLaunch {
		return fx
	}
	return append(fx, Cancel{Key: r.key})
}

// LostAs is the state for frameworks that know it, and TASK_LOST for others.
func LostAs(partitionAware bool, s task.State) task.State {
	if partitionAware {
		return s
	}
	return task.Lost
}

func (c *Core) shutdownFramework(now time.Time, in ShutdownFramework, fx []Effect) []Effect {
	var executors []*row
	for _, r := range c.sorted() {
		if r.key.Framework != in.ID {
			continue
		}
		if r.Spec.HoldsExecutor() && !r.State.Terminal() {
			executors = append(executors, r)
			continue
		}
		r.Stop, r.Silent, r.Pending, r.resendAt = true, true, nil, time.Time{}
		if r.State.Terminal() {
			fx = c.finish(now, r, fx)
			continue
		}
		fx = append(fx, Save{Key: r.key, Record: &r.Record})
		r.tryAt, r.deadline = time.Time{}, time.Time{}
		fx = c.advance(now, r, c.cancel(r, fx))
	}
	for _, r := range executors {
		r.Cause = CauseFramework
		fx = c.shutExecutor(now, r, append(fx, Save{Key: r.key, Record: &r.Record}))
	}
	return fx
}

func (c *Core) updateFramework(now time.Time, in UpdateFramework, fx []Effect) []Effect {
	f := c.frameworks[in.Framework.ID]
	if f == nil {
		return fx
	}
	f.Framework = in.Framework
	fx = append(fx, SaveFramework{ID: f.ID, Framework: &in.Framework})
	for _, r := range c.sorted() {
		if r.key.Framework == in.Framework.ID {
			fx = c.resendNow(now, r, fx)
		}
	}
	return fx
}

func (c *Core) join(now time.Time, in Joined, fx []Effect) []Effect {
	c.joined = true
	for _, r := range c.sorted() {
		fx = c.resendNow(now, r, fx)
	}
	for _, m := range in.Missing {
		fx = c.refuse(now, Refuse{
			Framework: m.Framework, Key: m.Key, State: LostAs(m.Framework.PartitionAware, task.Dropped),
			Reason: task.ReasonReconciliation, Message: "The agent does not know this task",
		}, fx)
	}
	return fx
}

// advance is the table over want and seen: it starts the call that comes next,
// or reports what has become clear. At most one call per task is in flight.
func (c *Core) advance(now time.Time, r *row, fx []Effect) []Effect {
	if r.inFlight != OpNone || r.State.Terminal() && !r.orphan || r.Spec.Hosted() {
		return fx
	}
	if r.tryAt.After(now) {
		return fx
	}
	switch {
	case r.seen == provider.StateExited:
		return c.ended(now, r, fx)
	case r.seen == provider.StateGone:
		return c.vanished(now, r, fx)
	case r.look:
		return c.inspect(r, fx)
	case r.Stop:
		return c.advanceStop(now, r, fx)
	case r.seen == provider.StateUp:
		return c.up(now, r, fx)
	case r.Container.ID != "" && r.seen != provider.StateCreated:
		return fx // it has run before; the watch will tell where it is
	}
	return c.advanceLaunch(now, r, fx)
}

func (c *Core) advanceLaunch(now time.Time, r *row, fx []Effect) []Effect {
	if now.Sub(r.Since) >= c.cfg.LaunchTimeout && r.failures > 0 {
		why := "the launch did not succeed within " + c.cfg.LaunchTimeout.String()
		if n := len(r.troubles); n > 0 {
			why += ": " + r.troubles[n-1]
		}
		return c.launchFailed(now, r, why, fx)
	}
	s, ready := c.inNetwork(r)
	if !ready {
		return fx
	}
	return c.call(r, Call{Op: OpLaunch, Key: r.key, Name: r.Name, Spec: s}, fx)
}

func (c *Core) advanceStop(now time.Time, r *row, fx []Effect) []Effect {
	if r.seen == provider.StateUp {
		if until := c.lettingGo(now, r); until.After(now) {
			c.retryAt(r, until)
			return c.killing(now, r, c.withdraw(r, fx))
		}
		stop := Call{Op: OpStop, Key: r.key, ID: r.Container.ID, Grace: c.grace(r), Withdraw: r.announced}
		r.again, r.announced = false, false
		return c.call(r, stop, c.killing(now, r, fx))
	}
	if !r.Tried {
		return c.killed(now, r, fx)
	}
	// A launch may have gone through with its answer lost, or be about to: look.
	return c.inspect(r, fx)
}

// DrainLabel is the label that says how many seconds a task that is to end goes on
// after it was taken out of the registry, so that those who know it have time to
// turn away.
const (
	DrainLabel  = "MESOPOOL_DRAIN_SECONDS"
	longestWait = 10 * time.Minute
)

// lettingGo is until when a task that is to end goes on. One without a grace, or
// whose framework is gone, does not. A restart of the agent begins anew.
func (c *Core) lettingGo(now time.Time, r *row) time.Time {
	text, ok := r.Spec.Label(DrainLabel)
	n, err := strconv.Atoi(text)
	if !ok || err != nil || n <= 0 || r.State.Rank() < task.Running.Rank() || r.Silent || r.orphan || c.grace(r) == 0 {
		return time.Time{}
	}
	if r.goes.IsZero() {
		r.rare().goes = now.Add(min(time.Duration(n)*time.Second, longestWait))
	}
	return r.goes
}

// inspect looks a container up by ID, or by name while none is known.
func (c *Core) inspect(r *row, fx []Effect) []Effect {
	return c.call(r, Call{Op: OpInspect, Key: r.key, ID: r.lookedUp()}, fx)
}

// lookedUp is the container's ID, or its name as long as none was told.
func (r *row) lookedUp() string { return cmp.Or(r.Container.ID, r.Name) }

func (c *Core) grace(r *row) time.Duration {
	switch {
	case r.Grace != nil:
		return *r.Grace
	case r.Spec.KillGrace != nil:
		return *r.Spec.KillGrace
	default:
		return c.cfg.KillGrace
	}
}

func (c *Core) call(r *row, call Call, fx []Effect) []Effect {
	r.inFlight = call.Op
	r.tryAt = time.Time{}
	return append(fx, call)
}

// retryAt sets when the row is looked at again.
func (c *Core) retryAt(r *row, at time.Time) {
	r.tryAt = at
	c.wakes.add(at, r)
}

func (c *Core) backoff(r *row) time.Duration {
	r.failures++
	return min(c.cfg.RetryMin<<min(r.failures-1, 20), c.cfg.RetryMax)
}
