package agent

import (
	"fmt"
	"slices"
	"time"

	"github.com/mesopool/mesopool/gc"
	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

// update records a new state and queues its report. States only grow: a lower
// one, or anything after the end, is refused silently.
func (c *Core) update(now time.Time, r *row, s task.Status, fx []Effect) []Effect {
	if r.orphan || r.State.Terminal() || s.State.Rank() <= r.State.Rank() {
		return fx
	}
	s = c.drained(r, s)
	r.State = s.State
	if !s.State.Terminal() {
		return c.queue(now, r, s, fx)
	}
	c.endings[s.State]++
	fx = c.queue(now, r, s, c.withdraw(r, fx))
	return c.memberEnded(now, r, fx)
}

// repeat reports the state that a task is in once more, with news in it.
func (c *Core) repeat(now time.Time, r *row, s task.Status, fx []Effect) []Effect {
	if r.orphan || r.State.Terminal() || r.State != s.State {
		return fx
	}
	return c.queue(now, r, s, fx)
}

// maxPending bounds the updates that wait for their acknowledgement: beyond it a
// repeated state takes the place of its predecessor.
const maxPending = 16

// queue adds a status to the history and to those that are to be acknowledged.
// What a Roster has given away is never written.
func (c *Core) queue(now time.Time, r *row, s task.Status, fx []Effect) []Effect {
	if r.Silent {
		r.rare().last = s.Message
		return c.afterSilent(now, r, fx)
	}
	s.Container = containerStatus(r)
	if s.UUID.IsZero() { // else it is an executor's
		s.Time, s.UUID, s.Check = now, c.cfg.NewUUID(), r.checked()
	}
	n, waiting := len(r.History), len(r.Pending)
	if n > 0 && r.History[n-1].State == s.State && (waiting == 0 || waiting >= maxPending) {
		r.History = r.History[: n-1 : n-1]
		r.Pending = r.Pending[:max(waiting-1, 0):max(waiting-1, 0)]
	}
	r.Pending = append(r.Pending, s)
	kept := s
	kept.Data = nil
	r.History = append(r.History, kept)
	fx = append(fx, Save{Key: r.key, Record: &r.Record})
	if len(r.Pending) == 1 {
		fx = c.resend(now, r, fx)
	}
	return fx
}

func (c *Core) afterSilent(now time.Time, r *row, fx []Effect) []Effect {
	switch {
	case !r.State.Terminal():
		return append(fx, Save{Key: r.key, Record: &r.Record})
	case r.Spec.HoldsPod():
		return c.podEnded(now, r, fx)
	}
	return c.finish(now, r, fx)
}

func containerStatus(r *row) *task.ContainerStatus {
	if r.Container.ID == "" && r.Name == "" {
		return nil
	}
	id := r.Container.ID
	if id == "" {
		id = r.Name
	}
	return &task.ContainerStatus{
		ID: id, Addresses: r.Container.Addresses, Network: r.Container.Network,
		Ports: r.Container.Ports, PublishIP: r.Container.PublishIP,
	}
}

// resend sends the oldest pending update and sets when it is sent again.
func (c *Core) resend(now time.Time, r *row, fx []Effect) []Effect {
	r.resendAt = time.Time{}
	if len(r.Pending) == 0 || !c.joined {
		return fx
	}
	pause := min(c.cfg.ResendMin<<min(r.resends, 20), c.cfg.ResendMax)
	r.resends++
	r.resendAt = now.Add(pause)
	c.wakes.add(r.resendAt, r)
	return append(fx, Report{Key: r.key, Executor: r.Spec.Pod, Status: r.Pending[0], Latest: r.State})
}

func (c *Core) resendNow(now time.Time, r *row, fx []Effect) []Effect {
	r.resends = 0
	return c.resend(now, r, fx)
}

func (c *Core) ack(now time.Time, in Ack, fx []Effect) []Effect {
	r := c.tasks[in.Key]
	if r == nil || len(r.Pending) == 0 || r.Pending[0].UUID != in.UUID {
		return fx
	}
	ended := r.Pending[0].State.Terminal()
	r.forgetRepeated()
	r.Pending = slices.Clone(r.Pending[1:])
	if ended {
		return c.finish(now, r, fx)
	}
	fx = append(fx, Save{Key: r.key, Record: &r.Record})
	return c.resendNow(now, r, fx)
}

// forgetRepeated: of a state that was reported more than once the history keeps
// the last status (master.cpp, updateTask), and all that is not acknowledged.
func (r *row) forgetRepeated() {
	front := len(r.History) - len(r.Pending)
	if front >= 0 && front+1 < len(r.History) && r.History[front].State == r.History[front+1].State {
		r.History = slices.Delete(slices.Clone(r.History), front, front+1)
	}
}

// finish forgets a task whose end is acknowledged and lets its container go,
// unless it started after all: then it goes after its own end.
func (c *Core) finish(now time.Time, r *row, fx []Effect) []Effect {
	c.remember(r)
	fx = c.drop(r, fx)
	if c.orphans[r.Container.ID] == nil && (r.seen == provider.StateExited || r.seen == provider.StateCreated) {
		c.release(now, r.Container, outcome(r.State))
	}
	return c.collect(now, fx)
}

func (c *Core) release(now time.Time, k provider.Container, how gc.Outcome) {
	ended := k.Ended
	if ended.IsZero() || ended.After(now) {
		ended = now
	}
	c.kept[k.ID] = kept{key: k.Key, name: k.Name}
	c.gc.Release(k.ID, ended, how)
}

func (c *Core) withdraw(r *row, fx []Effect) []Effect {
	if !r.announced {
		return fx
	}
	r.announced = false
	return append(fx, Withdraw{Key: r.key})
}

// up: the container runs. RUNNING waits a little for the address, which some
// backends tell late and which clients read unguarded.
func (c *Core) up(now time.Time, r *row, fx []Effect) []Effect {
	if r.orphan {
		return fx
	}
	if r.lacksAddress() && r.failures < 6 {
		if r.failures > 0 {
			return c.inspect(r, fx)
		}
		c.retryAt(r, now.Add(c.backoff(r)))
		return fx
	}
	r.failures = 0
	c.startChecks(now, r)
	c.startWatch(now, r)
	fx = c.update(now, r, task.Status{State: task.Running, Source: task.SourceExecutor, Data: r.Container.Raw}, fx)
	switch {
	case r.Spec.HoldsExecutor():
		return c.executorUp(now, r, fx)
	case r.Spec.HoldsPod():
		return c.podUp(now, r, fx)
	}
	return c.announce(r, fx)
}

func (c *Core) announce(r *row, fx []Effect) []Effect {
	if has := len(r.Container.Addresses) > 0; !r.announced || has && !r.addressed {
		r.announced, r.addressed = true, has
		fx = append(fx, Announce{Key: r.key, Spec: &r.Spec, Container: r.Container})
	}
	return fx
}

func (r *row) lacksAddress() bool {
	return len(r.Container.Addresses) == 0 && r.Spec.Network.Mode != task.NetworkNone
}

func (c *Core) killing(now time.Time, r *row, fx []Effect) []Effect {
	if f := c.frameworks[r.key.Framework]; f != nil && f.KillingState && !r.orphan {
		fx = c.update(now, r, r.caused(task.Status{State: task.Killing, Source: task.SourceExecutor}), fx)
	}
	return fx
}

// killed ends a task that never started.
func (c *Core) killed(now time.Time, r *row, fx []Effect) []Effect {
	return c.update(now, r, r.caused(task.Status{
		State: task.Killed, Source: task.SourceAgent, Reason: task.ReasonKilledDuringLaunch, Message: "Killed before it was started",
	}), fx)
}

func (c *Core) launchFailed(now time.Time, r *row, message string, fx []Effect) []Effect {
	if r.Stop {
		return c.killed(now, r, fx)
	}
	c.refusals[task.ReasonContainerLaunchFailed]++
	return c.update(now, r, task.Status{
		State: task.Failed, Source: task.SourceAgent, Reason: task.ReasonContainerLaunchFailed, Message: message,
	}, fx)
}

// ended: the container has run and stopped. A task that was to stop is KILLED
// whatever its exit code (docker/executor.cpp, reaped).
func (c *Core) ended(now time.Time, r *row, fx []Effect) []Effect {
	if r.orphan {
		return c.endedOrphan(now, r, fx)
	}
	s := task.Status{State: task.Failed, Source: task.SourceExecutor, Message: exitMessage(r.Container)}
	switch {
	case r.Stop:
		s.State = task.Killed
		s = r.caused(s)
	case r.Container.HasExit && r.Container.ExitCode == 0:
		s.State = task.Finished
	}
	return c.update(now, r, s, fx)
}

// endedOrphan lets the container go. One that came up after its task's end, as a
// late launch may bring about, waits with the task for the acknowledgement.
func (c *Core) endedOrphan(now time.Time, r *row, fx []Effect) []Effect {
	delete(c.orphans, r.Container.ID)
	t := c.tasks[r.key]
	if t != nil && t.State.Terminal() && t.Name == r.Name && (t.Container.ID == "" || t.Container.ID == r.Container.ID) {
		t.seen, t.Container = r.seen, r.Container
		return fx
	}
	c.release(now, r.Container, byExit(&r.Container))
	return c.collect(now, fx)
}

func exitMessage(k provider.Container) string {
	text := "Container ended; the backend does not tell its exit status"
	switch {
	case k.HasExit && k.ExitCode > 128 && k.ExitCode < 160:
		text = fmt.Sprintf("Container exited with status %d (signal %d)", k.ExitCode, k.ExitCode-128)
	case k.HasExit:
		text = fmt.Sprintf("Container exited with status %d", k.ExitCode)
	}
	if k.OOMKilled {
		text += ": out of memory"
	}
	if k.Error != "" {
		text += ": " + k.Error
	}
	return text
}

// vanished: the backend has confirmed that the container is not there.
func (c *Core) vanished(now time.Time, r *row, fx []Effect) []Effect {
	if r.orphan {
		delete(c.orphans, r.Container.ID)
		return fx
	}
	s := task.Status{
		State: LostAs(c.partitionAware(r.key.Framework), task.Gone), Source: task.SourceAgent,
		Reason: task.ReasonExecutorTerminated, Message: "The container " + r.Name + " was removed from outside",
	}
	if r.Stop {
		s.State, s.Source, s.Reason = task.Killed, task.SourceExecutor, ""
		s = r.caused(s)
	}
	return c.update(now, r, s, fx)
}
