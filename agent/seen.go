package agent

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

func (c *Core) see(now time.Time, in Seen, fx []Effect) []Effect {
	if in.Event.Synced {
		return c.sync(now, fx)
	}
	k := in.Event.Container
	if k.State == provider.StateGone {
		c.removed(now, k.ID)
	}
	c.unkeep(now, k)
	if r := c.orphans[k.ID]; r != nil {
		return c.observe(now, r, k, fx)
	}
	if _, kept := c.kept[k.ID]; kept { // it is waiting for its removal, whatever its key says
		c.endedLater(now, k)
		return fx
	}
	r := c.tasks[k.Key]
	if r == nil || !r.mayBe(k) {
		return c.adoptOrphan(now, k, c.cfg.OrphanGrace, fx)
	}
	if k.State == provider.StateGone && (r.Container.ID == "" || r.seen <= provider.StateCreated && r.inFlight == OpLaunch) {
		return fx // of an earlier task of the key, or of a launch that is tried again
	}
	if r.State.Terminal() && k.State == provider.StateUp {
		return c.adoptOrphan(now, k, 0, fx)
	}
	return c.observe(now, r, k, fx)
}

// endedLater: what was let go before it had run is kept from its real end.
func (c *Core) endedLater(now time.Time, k provider.Container) {
	if k.State == provider.StateExited && !k.Ended.After(now) {
		c.gc.Postpone(k.ID, k.Ended)
	}
}

// mayBe says whether a container with the task's key is the task's. One of
// another ID is, if it has the name that the task's had before it ever ran: that
// one is gone, and a launch has made the other.
func (r *row) mayBe(k provider.Container) bool {
	if k.Name != "" && k.Name != r.Name {
		return false
	}
	anew := k.Name != "" && k.State != provider.StateGone && r.seen <= provider.StateCreated && r.State.Rank() <= task.Starting.Rank()
	return r.Container.ID == "" || r.Container.ID == k.ID || anew
}

// observe takes what the provider shows; what is seen only grows.
func (c *Core) observe(now time.Time, r *row, k provider.Container, fx []Effect) []Effect {
	r.epoch = c.epoch
	if k.State < r.seen || r.seen == provider.StateExited && k.State == provider.StateGone {
		return c.advance(now, r, fx) // how it ended says more than that it is gone
	}
	if k.State == provider.StateGone {
		k = keepKnown(r.Container, k)
	}
	if r.seen != k.State || len(r.Container.Addresses) == 0 && len(k.Addresses) > 0 {
		r.tryAt, r.failures = time.Time{}, 0
	}
	r.seen = k.State
	if k.Raw == nil {
		k.Raw = r.Container.Raw // told before, by a watch that overtook the launch's answer
	}
	if len(k.Addresses) == 0 { // an ended container has none; its last ones stay told
		k.Addresses, k.Network = r.Container.Addresses, r.Container.Network
	}
	r.Container = k
	r.slim()
	c.shareAddress(r)
	fx = c.advance(now, r, fx)
	if r.State.Rank() >= task.Running.Rank() { // it is large, and only that update carries it
		r.Container.Raw = nil
	}
	return fx
}

// keepKnown: of a container that is gone the backend tells little more.
func keepKnown(known, gone provider.Container) provider.Container {
	if known.ID == "" {
		return gone
	}
	known.State = provider.StateGone
	return known
}

// adoptOrphan takes charge of a container that carries our labels and belongs
// to no task: one that runs is stopped after a grace, one that does not run is
// collected.
func (c *Core) adoptOrphan(now time.Time, k provider.Container, grace time.Duration, fx []Effect) []Effect {
	switch k.State {
	case provider.StateGone:
		return fx
	case provider.StateUp:
		r := &row{extra: nothing, key: k.Key, orphan: true, seen: k.State, epoch: c.epoch, Record: Record{Name: k.Name, Stop: true, Container: k}}
		c.orphans[k.ID] = r
		if grace > 0 {
			c.retryAt(r, now.Add(grace))
		}
		return c.advance(now, r, fx)
	default:
		c.release(now, k, byExit(&k))
		return c.collect(now, fx)
	}
}

// sync: everything that exists has been told. What was not told is looked up
// one by one, because absence from a list is no evidence.
func (c *Core) sync(now time.Time, fx []Effect) []Effect {
	if !c.synced {
		c.synced = true
		fx = append(fx, AllKnown{})
	}
	for _, r := range c.sorted() {
		if r.epoch == c.epoch || r.State.Terminal() {
			continue
		}
		if r.Container.ID != "" {
			r.look, r.tryAt = true, time.Time{}
		}
		fx = c.advance(now, r, fx)
	}
	return fx
}

func (c *Core) done(now time.Time, in Done, fx []Effect) []Effect {
	if in.Call.Op == OpRemove {
		return c.doneRemove(now, in, fx)
	}
	r := c.orphans[in.Call.ID]
	if r == nil {
		r = c.tasks[in.Call.Key]
	}
	if r == nil || r.inFlight != in.Call.Op {
		if in.Call.Op == OpLaunch && in.Container.ID != "" { // forgotten while it was launched
			return c.adoptOrphan(now, in.Container, 0, fx)
		}
		return fx
	}
	r.inFlight = OpNone
	switch in.Call.Op {
	case OpLaunch:
		return c.doneLaunch(now, r, in, fx)
	case OpStop:
		return c.doneStop(now, r, in, fx)
	default:
		return c.doneInspect(now, r, in, fx)
	}
}

func (c *Core) doneRemove(now time.Time, in Done, fx []Effect) []Effect {
	if in.Err != nil {
		c.gc.Retry(in.Call.ID, c.cfg.GC, now)
		return fx
	}
	c.removed(now, in.Call.ID)
	return c.collect(now, fx)
}

func (c *Core) removed(now time.Time, id string) {
	delete(c.kept, id)
	c.gc.Removed(id, c.cfg.GC, now)
}

// unkeep: what runs is no longer to be removed.
func (c *Core) unkeep(now time.Time, k provider.Container) {
	if k.State == provider.StateUp {
		c.removed(now, k.ID)
	}
}

func (c *Core) doneLaunch(now time.Time, r *row, in Done, fx []Effect) []Effect {
	final := errors.Is(in.Err, provider.ErrRejected) || errors.Is(in.Err, provider.ErrCapacity)
	if in.Err != nil {
		r.left(in.Container)
	}
	switch {
	case in.Err == nil && c.former(in.Container):
		return c.clear(now, r, in.Container.ID, fx)
	case in.Err == nil:
		r.look = false
		c.unkeep(now, in.Container)
		return c.observe(now, r, in.Container, fx)
	case r.seen == provider.StateUp || r.seen == provider.StateExited || r.seen == provider.StateGone && !final:
		return c.advance(now, r, fx) // the answer was lost, but the watch told
	case final:
		r.Tried = false
		return c.launchFailed(now, r, in.Err.Error(), fx)
	}
	return c.launchAgain(now, r, in.Err, fx)
}

// launchAgain: the launch may have gone through all the same, so a task that is
// to stop is looked up.
func (c *Core) launchAgain(now time.Time, r *row, err error, fx []Effect) []Effect {
	if why := c.overdue(now, r, err); why != "" {
		return c.launchFailed(now, r, why, fx)
	}
	c.retryAt(r, now.Add(c.backoff(r)))
	if r.Stop {
		r.tryAt = time.Time{}
		return c.advance(now, r, fx)
	}
	return c.trouble(now, r, err, fx)
}

// former says whether the container is what an earlier task of the same key has
// left: its end would be taken for that of the new task.
func (c *Core) former(k provider.Container) bool {
	_, kept := c.kept[k.ID]
	return c.orphans[k.ID] != nil || kept && k.State == provider.StateExited
}

// clear makes the name free for a task that found a former container there.
func (c *Core) clear(now time.Time, r *row, id string, fx []Effect) []Effect {
	c.retryAt(r, now.Add(c.backoff(r)))
	if old := c.orphans[id]; old != nil {
		old.tryAt = time.Time{}
		return c.advance(now, old, fx)
	}
	return append(fx, c.removal(id))
}

func (c *Core) doneStop(now time.Time, r *row, in Done, fx []Effect) []Effect {
	switch {
	case r.seen > provider.StateUp: // told before the answer
		return c.advance(now, r, fx)
	case in.Err == nil && !r.again:
		r.look = true // the watch should tell the end long before
		c.retryAt(r, now.Add(c.grace(r)+10*time.Second))
		return fx
	case errors.Is(in.Err, provider.ErrNotFound):
		return c.inspect(r, fx)
	case in.Err != nil:
		c.retryAt(r, now.Add(c.backoff(r)))
		return fx
	}
	return c.advance(now, r, fx)
}

func (c *Core) doneInspect(now time.Time, r *row, in Done, fx []Effect) []Effect {
	absent := errors.Is(in.Err, provider.ErrNotFound) || in.Err == nil && r.Container.ID == "" && !c.owns(r, in.Container)
	switch {
	case in.Call.ID != r.lookedUp(): // another one was told meanwhile
		return c.advance(now, r, fx)
	case absent && r.Container.ID == "":
		return c.absent(now, r, fx)
	case absent:
		r.look = false
		return c.observe(now, r, provider.Container{State: provider.StateGone, Key: r.key, Name: r.Name}, fx)
	case r.seen > provider.StateUp: // told before the answer
		return c.advance(now, r, fx)
	case in.Err == nil:
		r.look = false
		if in.Container.State == provider.StateCreated && r.Stop {
			r.Tried = false // nothing is about to start it
		}
		if in.Container.State == provider.StateUp && len(in.Container.Addresses) == 0 && !r.Stop && r.lacksAddress() {
			c.retryAt(r, now.Add(c.backoff(r)))
		}
		return c.observe(now, r, in.Container, fx)
	}
	c.retryAt(r, now.Add(c.backoff(r)))
	return fx
}

// owns says whether a container that was looked up by its name is the task's.
func (c *Core) owns(r *row, k provider.Container) bool {
	return k.Owner == c.cfg.Owner && k.Key == r.key && !c.former(k)
}

// absent: no container of the task's name was ever seen, and none is there.
func (c *Core) absent(now time.Time, r *row, fx []Effect) []Effect {
	r.Tried = false
	return c.advance(now, r, fx)
}

// Task is what a Roster says of one task.
type Task struct {
	Spec      *task.Spec
	Name      string // the container's
	State     task.State
	Pending   *task.Status // sent and not acknowledged, nil when none
	History   []task.Status
	Container provider.Container
}

// Roster is everything that the agent has, for a registration or a page.
type Roster struct {
	Frameworks []Framework
	Tasks      []Task
	Executors  []Executor // of the pods that have tasks, and of frameworks' own executors
	Ending     int        // tasks of frameworks that are gone, which are being killed
	Kept       int        // stopped containers that wait for their removal
	Orphans    int
	Drain      *DrainConfig           // nil: not draining
	Completed  []Completed            // the last ones that were forgotten since the start, oldest first
	Ended      Counts                 // how tasks have ended since the start
	Refused    map[task.Reason]uint64 // tasks that did not run here since the start, by why
}

// Executor is what a Roster says of an executor: of the container that holds a
// pod's network, or that runs a framework's own program.
type Executor struct {
	Spec      *task.Spec
	Name      string // the container's
	State     task.State
	Container provider.Container
	Connected bool // only of a framework's own
}

// Completed is a task whose end is acknowledged.
type Completed struct {
	Task
	Framework Framework
}

// Counts is how many tasks have ended, by their last state.
type Counts [16]uint64

// maxCompleted bounds the completed tasks that are remembered.
const maxCompleted = 1000

// remember keeps a task for people to look at.
func (c *Core) remember(r *row) {
	if r.Silent {
		return
	}
	done := Completed{Task: r.task()}
	if f := c.frameworks[r.key.Framework]; f != nil {
		done.Framework = f.Framework
	}
	if len(c.completed) >= maxCompleted {
		c.completed = slices.Delete(c.completed, 0, maxCompleted/4)
	}
	c.completed = append(c.completed, done)
}

func (r *row) task() Task {
	t := Task{Spec: &r.Spec, Name: r.Name, State: r.State, History: r.History, Container: r.Container}
	if len(r.Pending) > 0 {
		t.Pending = &r.Pending[0]
	}
	return t
}

// Roster lists all tasks, oldest first. The contents must not be changed.
func (c *Core) Roster() Roster {
	out := Roster{Kept: c.gc.Len(), Orphans: len(c.orphans), Drain: c.drain, Completed: slices.Clone(c.completed), Ended: c.endings, Refused: maps.Clone(c.refusals)}
	used, pods := map[string]bool{}, map[*row]bool{}
	for _, r := range c.sorted() {
		lone := r.Spec.HoldsExecutor() && !r.State.Terminal() && r.Cause != CauseFramework
		if r.Silent {
			out.Ending++
		}
		if r.Silent && !lone {
			continue
		}
		pod := r
		if !lone {
			pod = c.pod(r)
			out.Tasks = append(out.Tasks, r.task())
		}
		if pod != nil && !pods[pod] {
			pods[pod] = true
			out.Executors = append(out.Executors, pod.executor())
		}
		if f := c.frameworks[r.key.Framework]; f != nil && !used[f.ID] {
			used[f.ID] = true
			out.Frameworks = append(out.Frameworks, f.Framework)
		}
	}
	return out
}

func (r *row) executor() Executor {
	return Executor{Spec: &r.Spec, Name: r.Name, State: r.State, Container: r.Container, Connected: r.session != 0}
}
