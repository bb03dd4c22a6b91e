package agent

import (
	"fmt"
	"slices"
	"time"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

// A pod is what Mesos' default executor is: tasks that share one network. Here a
// container of its own holds the network; it has a row like any task, is silent,
// and lives as long as one of its tasks does. The container of a framework's own
// executor has such a row too, see executor.go.

// pod is the row that holds the network of a task's pod, nil for a task on its
// own.
func (c *Core) pod(r *row) *row {
	if !r.Spec.InPod() {
		return nil
	}
	return c.tasks[task.Key{Framework: r.key.Framework, ID: task.PodID(r.Spec.Pod)}]
}

// members are the tasks of a pod that have not ended.
func (c *Core) members(framework, pod string) (out []*row) {
	for _, r := range c.pods[task.Key{Framework: framework, ID: pod}] {
		if !r.State.Terminal() {
			out = append(out, r)
		}
	}
	return out
}

// joinPod and partPod keep the index of pods.
func (c *Core) joinPod(r *row) {
	if r.Spec.InPod() {
		key := task.Key{Framework: r.key.Framework, ID: r.Spec.Pod}
		c.pods[key] = append(c.pods[key], r)
	}
}

func (c *Core) partPod(r *row) {
	key := task.Key{Framework: r.key.Framework, ID: r.Spec.Pod}
	left := slices.DeleteFunc(c.pods[key], func(x *row) bool { return x == r })
	if c.pods[key] = left; len(left) == 0 {
		delete(c.pods, key)
	}
}

func (c *Core) launchGroup(now time.Time, in LaunchGroup, fx []Effect) []Effect {
	if len(in.Tasks) == 0 {
		return fx
	}
	for i := range in.Tasks {
		if c.tasks[in.Tasks[i].Key] != nil {
			return fx // all were saved together
		}
	}
	key := task.Key{Framework: in.Framework.ID, ID: task.PodID(in.Pod.Pod)}
	holder := c.tasks[key]
	if no := c.groupProblem(&in, holder); no != nil {
		return c.refuseGroup(now, in, *no, holder == nil, fx)
	}
	_, fx = c.framework(in.Framework, fx)
	if holder == nil {
		in.Pod.Key = key
		holder, fx = c.begin(now, in.Pod, fx)
	}
	rows := make([]*row, len(in.Tasks))
	for i, s := range in.Tasks {
		if s.Pod, s.Custom = in.Pod.Pod, in.Pod.Custom; !in.Single {
			s.Group = in.Tasks[0].Key.ID
		}
		rows[i], fx = c.begin(now, s, fx)
		if s.Custom {
			c.housed(holder, rows[i])
		}
	}
	fx = c.advance(now, holder, fx)
	if holder.Spec.Custom {
		return c.deliver(holder, fx)
	}
	for _, r := range rows {
		fx = c.update(now, r, task.Status{State: task.Starting, Source: task.SourceExecutor}, fx)
		fx = c.advance(now, r, fx)
	}
	return fx
}

// groupProblem says how a group ends that cannot be launched, nil if it can. One
// task that cannot is enough.
func (c *Core) groupProblem(in *LaunchGroup, holder *row) *Refuse {
	failed := func(why string) *Refuse {
		return &Refuse{State: task.Failed, Reason: task.ReasonContainerLaunchFailed, Message: why}
	}
	dropped := LostAs(in.Framework.PartitionAware, task.Dropped)
	switch {
	case c.drain != nil:
		return &Refuse{State: dropped, Reason: reasonDraining, Message: "The agent is draining and takes no tasks"}
	case c.cfg.NoPods != "" && !in.Pod.Custom:
		return failed("the task is one of a group, and " + c.cfg.NoPods)
	case c.cfg.NoExecutors != "" && in.Pod.Custom:
		return failed("the task has an executor of its framework's own, and " + c.cfg.NoExecutors)
	case holder != nil && holder.ending():
		return &Refuse{State: dropped, Reason: task.ReasonExecutorTerminated, Message: "The executor " + in.Pod.Pod + " is ending"}
	case in.New != nil && *in.New == (holder != nil): // slave.cpp, __run
		return &Refuse{State: dropped, Reason: task.ReasonExecutorTerminated, Message: unlike(holder != nil, in.Pod.Pod)}
	case holder != nil && holder.Spec.Custom != in.Pod.Custom:
		return failed("the executor " + in.Pod.Pod + " runs already, and is of another type")
	}
	if in.Pod.Custom {
		if why := c.unlaunchable(&in.Pod); why != "" {
			return failed("the executor cannot be launched: " + why)
		}
		return nil
	}
	for i := range in.Tasks {
		if why := c.unlaunchable(&in.Tasks[i]); why != "" {
			return failed("the task " + in.Tasks[i].Key.ID + " of the group cannot be launched: " + why)
		}
	}
	return nil
}

func (c *Core) refuseGroup(now time.Time, in LaunchGroup, no Refuse, gone bool, fx []Effect) []Effect {
	no.Framework = in.Framework
	for i := range in.Tasks {
		no.Key = in.Tasks[i].Key
		fx = c.refuse(now, no, fx)
	}
	if gone {
		fx = append(fx, ExecutorGone{Framework: in.Framework.ID, Executor: in.Pod.Pod, Status: noStatus})
	}
	return fx
}

func unlike(runs bool, executor string) string {
	if runs {
		return "The executor " + executor + " was to be new, and runs already"
	}
	return "The executor " + executor + " was to run already, and is not there"
}

// inNetwork is the spec to launch a task with. One of a pod waits until the
// pod's network is there.
func (c *Core) inNetwork(r *row) (*task.Spec, bool) {
	if !r.Spec.InPod() {
		return &r.Spec, true
	}
	holder := c.pod(r)
	if holder == nil || holder.seen != provider.StateUp {
		return nil, false
	}
	s := r.Spec
	s.Network = task.Network{Mode: task.NetworkContainer, Name: holder.Container.ID}
	return &s, true
}

// shareAddress: a task of a pod is reached where the pod is.
func (c *Core) shareAddress(r *row) {
	if holder := c.pod(r); holder != nil {
		k, from := &r.Container, &holder.Container
		k.Addresses, k.Network, k.Ports, k.PublishIP = from.Addresses, from.Network, from.Ports, from.PublishIP
	}
}

// podUp lets the tasks start that waited for the network.
func (c *Core) podUp(now time.Time, holder *row, fx []Effect) []Effect {
	for _, r := range c.members(holder.key.Framework, holder.Spec.Pod) {
		fx = c.advance(now, r, fx)
	}
	return fx
}

// memberEnded: a task that did not end well takes its group with it
// (launcher/default_executor.cpp, waited), and the last one the pod.
func (c *Core) memberEnded(now time.Time, r *row, fx []Effect) []Effect {
	holder := c.pod(r)
	switch {
	case holder == nil:
		return fx
	case holder.Spec.Custom:
		return c.hostedEnded(now, r, holder, fx)
	}
	for _, other := range c.members(r.key.Framework, r.Spec.Pod) {
		if r.State == task.Finished || other.Spec.Group != r.Spec.Group || other.Stop || other.State.Terminal() {
			continue
		}
		other.Cause = CauseGroup
		other.Why = fmt.Sprintf("The task %s of the same group has ended as %s", r.key.ID, r.State)
		fx = c.stop(now, other, nil, fx)
	}
	switch {
	case c.tasks[holder.key] != holder || len(c.members(r.key.Framework, r.Spec.Pod)) > 0:
		return fx
	case holder.State.Terminal():
		return c.podGone(now, holder, fx)
	case holder.Stop:
		return fx
	}
	return c.stop(now, holder, new(time.Duration(0)), fx)
}

// podEnded: without the network the tasks are no use. The row stays until they
// have ended, because a master insists on the executor of a task that runs.
func (c *Core) podEnded(now time.Time, holder *row, fx []Effect) []Effect {
	fx = append(fx, Save{Key: holder.key, Record: &holder.Record})
	left := c.members(holder.key.Framework, holder.Spec.Pod)
	if len(left) == 0 {
		return c.podGone(now, holder, fx)
	}
	if holder.Spec.Custom {
		return c.executorEnded(now, holder, left, fx)
	}
	for _, r := range left {
		if !r.State.Terminal() {
			fx = c.abandon(now, r, "The container that holds the pod's network has ended: "+holder.last, fx)
		}
	}
	return fx
}

func (c *Core) podGone(now time.Time, holder *row, fx []Effect) []Effect {
	return c.finish(now, holder, append(fx, ExecutorGone{
		Framework: holder.key.Framework, Executor: holder.Spec.Pod, Status: waitStatus(&holder.Container),
	}))
}

// abandon ends a task whose pod is no more.
func (c *Core) abandon(now time.Time, r *row, why string, fx []Effect) []Effect {
	if !r.Stop {
		r.Cause, r.Why = CausePod, why
	}
	return c.stop(now, r, new(time.Duration(0)), fx)
}

// recoverPods: a pod and its tasks are saved together, so one without the other
// is what somebody else has made of the store.
func (c *Core) recoverPods(now time.Time, fx []Effect) []Effect {
	for _, r := range c.sorted() {
		if r.Spec.InPod() && !r.State.Terminal() && c.pod(r) == nil {
			if r.Spec.Custom {
				fx = c.lostExecutor(now, r, "The record of the task's executor is lost", fx)
				continue
			}
			fx = c.abandon(now, r, "The record of the task's pod is lost", fx)
		}
	}
	return fx
}

func (c *Core) shutdownExecutor(now time.Time, in ShutdownExecutor, fx []Effect) []Effect {
	if holder := c.tasks[task.Key{Framework: in.Framework, ID: task.PodID(in.Executor)}]; holder != nil && holder.Spec.Custom {
		return c.shutExecutor(now, holder, fx)
	}
	for _, r := range c.members(in.Framework, in.Executor) {
		if !r.State.Terminal() {
			fx = c.stop(now, r, c.bounded(r, r.Grace), fx)
		}
	}
	return fx
}
