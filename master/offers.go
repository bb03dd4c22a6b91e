package master

import (
	"fmt"
	"slices"
	"time"

	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// accept uses offers for launches; what is left over goes back. Offers that
// are not valid fail every launch of the call, and the valid ones go back
// whole (master.cpp, accept).
func (c *Core) accept(now time.Time, cmd Accept, fx []Effect) ([]Effect, error) {
	f, err := c.subscribedFramework(cmd.Framework)
	if err != nil {
		return fx, err
	}
	offers, problem := c.usable(f, cmd.Offers)
	pool, a := c.takeOffers(offers)
	switch {
	case problem != "":
		fx = c.failChanges(f, cmd.Changes, "", OperationError, "Operation attempted with invalid offers: "+problem, fx)
		fx = c.failLaunches(now, f, cmd.Launches, lostAs(f, task.Dropped), task.ReasonInvalidOffers, "Task launched with invalid offers: "+problem, fx)
	case !a.connected:
		fx = c.failChanges(f, cmd.Changes, a.ID, OperationDropped, "Agent "+a.Hostname+" disconnected", fx)
		fx = c.failLaunches(now, f, cmd.Launches, lostAs(f, task.Dropped), task.ReasonAgentDisconnected, "Agent "+a.Hostname+" disconnected", fx)
	default:
		pool, fx = c.perform(now, f, a, &cmd, offers[0].Role, pool, fx)
		c.count.OffersAccepted += uint64(len(offers))
	}
	if a != nil {
		c.giveBack(now, f, a, offers, pool, cmd.Refuse, len(cmd.Launches)+len(cmd.Changes) > 0)
	}
	return fx, nil
}

// usable returns the offers that exist and are the framework's, and what is
// wrong with the list as a whole.
func (c *Core) usable(f *framework, ids []string) (offers []*Offer, problem string) {
	seen := map[string]bool{}
	for _, id := range ids {
		o := f.offers[id]
		switch {
		case seen[id]:
			problem = fmt.Sprintf("Duplicate offer %s in offer list", id)
			continue
		case o == nil:
			problem = fmt.Sprintf("Offer %s is no longer valid", id)
			continue
		}
		seen[id] = true
		if len(offers) > 0 && problem == "" {
			problem = unlike(offers[0], o)
		}
		offers = append(offers, o)
	}
	if len(ids) == 0 {
		problem = "No offers specified"
	}
	return offers, problem
}

func unlike(a, b *Offer) string {
	switch {
	case a.Agent != b.Agent:
		return fmt.Sprintf("Aggregated offers must belong to one single agent. Offer %s uses agent %s and offer %s uses agent %s", a.ID, a.Agent, b.ID, b.Agent)
	case a.Role != b.Role:
		return fmt.Sprintf("Aggregated offers must be allocated to the same role. Offer %s uses role %s but another is using role %s", b.ID, b.Role, a.Role)
	}
	return ""
}

// takeOffers ends the offers and returns what they held. All of it stays
// counted as offered until giveBack. The agent is nil when there is no offer.
func (c *Core) takeOffers(offers []*Offer) (resources.Resources, *agent) {
	var pool resources.Resources
	var a *agent
	for _, o := range offers {
		if a == nil {
			a = c.agents[o.Agent]
		}
		if o.Agent == a.ID {
			pool = pool.Add(o.Resources...)
		}
	}
	return pool, a
}

// giveBack ends the offers; the amount that was not used is not offered to the
// framework again for the time of refuse.
func (c *Core) giveBack(now time.Time, f *framework, a *agent, offers []*Offer, left resources.Resources, refuse time.Duration, used bool) {
	for _, o := range offers {
		c.endOffer(o)
	}
	key := filterKey{offers[0].Role, a.ID}
	if used {
		c.learnUsed(f, key)
	}
	if len(left) > 0 && refuse > 0 {
		c.refuseFor(now, f, key, left.Allocated(""), refuse)
	}
	c.dirty = true
}

// endOffer takes an offer out of all books.
func (c *Core) endOffer(o *Offer) {
	delete(c.offers, o.ID)
	if f := c.frameworks[o.Framework]; f != nil {
		delete(f.offers, o.ID)
		c.share(f, o.Resources, false)
	}
	if a := c.agents[o.Agent]; a != nil {
		a.offered = a.offered.Sub(a.counted(o.Resources)...)
		delete(a.offers, o.ID)
	}
	c.dirty = true
}

// perform does the operations of an ACCEPT in order, each on what the ones
// before have left or made.
func (c *Core) perform(now time.Time, f *framework, a *agent, cmd *Accept, role string, pool resources.Resources, fx []Effect) (resources.Resources, []Effect) {
	done := 0
	for i := range cmd.Changes {
		ch := &cmd.Changes[i]
		pool, fx = c.launchAll(now, f, a, cmd.Launches[done:ch.Before], pool, fx)
		done = ch.Before
		pool, fx = c.change(f, a, ch, pool, role, fx)
	}
	return c.launchAll(now, f, a, cmd.Launches[done:], pool, fx)
}

func (c *Core) launchAll(now time.Time, f *framework, a *agent, launches []Launch, pool resources.Resources, fx []Effect) (resources.Resources, []Effect) {
	for len(launches) > 0 {
		var some []Launch
		some, launches = together(launches)
		refuse := c.refuseTask
		if some[0].Group != "" {
			refuse = c.refuseGroup
		}
		if why := refuse(f, a, some, pool); why != "" {
			fx = c.failLaunches(now, f, some, task.Error, refusalReason(some), why, fx)
			continue
		}
		pool = pool.Sub(a.passing(a.needs(f, some))...)
		fx = c.run(f, a, some, fx)
	}
	return pool, fx
}

// refusalReason is that of a task on its own or of a group.
func refusalReason(some []Launch) task.Reason {
	group := some[0].Group != ""
	unauthorized := slices.ContainsFunc(some, func(l Launch) bool { return l.Unauthorized })
	switch {
	case group && unauthorized:
		return task.ReasonTaskGroupUnauthorized
	case group:
		return task.ReasonTaskGroupInvalid
	case unauthorized:
		return task.ReasonTaskUnauthorized
	}
	return task.ReasonTaskInvalid
}

// run makes the tasks' rows and sends them to the agent.
func (c *Core) run(f *framework, a *agent, launches []Launch, fx []Effect) []Effect {
	first := &launches[0]
	runs := c.startExecutor(a, f, first)
	group := RunGroup{Framework: &f.FrameworkInfo, Executor: first.ExecutorOrigin, Version: a.ResourceVersion, Runs: runs}
	for i := range launches {
		l := &launches[i]
		t := &Task{Key: task.Key{ID: l.ID}, Name: l.Name, Executor: l.Executor, Resources: l.Resources, State: task.Staging, More: l.More}
		c.addTask(a, f, t)
		fx = c.noteTask(t, fx)
		c.count.TasksLaunched++
		group.Tasks = append(group.Tasks, l.Origin)
	}
	if first.Group == "" {
		return toAgent(a, RunTask{Framework: &f.FrameworkInfo, Task: first.Origin, Version: a.ResourceVersion, Runs: runs}, fx)
	}
	return toAgent(a, group, fx)
}

// refuseTask says why a task on its own is refused, "" if it is not.
func (c *Core) refuseTask(f *framework, a *agent, one []Launch, pool resources.Resources) string {
	l := &one[0]
	if why := c.refuseLaunch(f, a, l); why != "" {
		return why
	}
	switch total := a.needs(f, one); {
	case a.clashes(f, l):
		return fmt.Sprintf("Task has invalid ExecutorInfo (existing ExecutorInfo with same ExecutorID is not compatible): executor %s", l.Executor)
	case !pool.Contains(total):
		return fmt.Sprintf("Total resources %v required by task and its executor is more than available %v", total, pool)
	}
	return ""
}

func (c *Core) refuseLaunch(f *framework, a *agent, l *Launch) string {
	switch {
	case l.Invalid != "":
		return l.Invalid
	case f.tasks[l.ID] != nil || f.unreachable[l.ID] != nil:
		return "Task has duplicate ID: " + l.ID
	case l.Agent != a.ID:
		return fmt.Sprintf("Task uses invalid agent %s while agent %s is expected", l.Agent, a.ID)
	}
	return ""
}

func (c *Core) failLaunches(now time.Time, f *framework, launches []Launch, s task.State, reason task.Reason, message string, fx []Effect) []Effect {
	c.count.Ended[s] += uint64(len(launches))
	for _, l := range launches {
		fx = c.tell(f, Update{Task: l.ID, Agent: l.Agent, Status: Status{
			State: s, Time: now, Source: task.SourceMaster, Reason: reason, Message: message,
		}}, fx)
	}
	return fx
}

func (c *Core) decline(now time.Time, cmd Decline, fx []Effect) ([]Effect, error) {
	f, err := c.subscribedFramework(cmd.Framework)
	if err != nil {
		return fx, err
	}
	for _, id := range cmd.Offers {
		o := f.offers[id]
		if o == nil {
			continue
		}
		c.count.OffersDeclined++
		a := c.agents[o.Agent]
		c.giveBack(now, f, a, []*Offer{o}, o.Resources, cmd.Refuse, false)
	}
	return fx, nil
}

// rescindAgent takes all offers of an agent back.
func (c *Core) rescindAgent(a *agent, fx []Effect) []Effect {
	for _, o := range c.offersOf(a) {
		fx = c.rescind(o, fx)
	}
	return fx
}

func (c *Core) rescind(o *Offer, fx []Effect) []Effect {
	c.count.OffersRescinded++
	c.endOffer(o)
	if f := c.frameworks[o.Framework]; f != nil {
		fx = c.tell(f, Rescind{Offer: o.ID}, fx)
	}
	return fx
}

// discardOffers ends a framework's offers without a word to it.
func (c *Core) discardOffers(f *framework, fx []Effect) []Effect {
	for _, o := range f.offers {
		c.endOffer(o)
	}
	return fx
}

func (c *Core) offerTimeout(id string, fx []Effect) []Effect {
	o := c.offers[id]
	if o == nil {
		return fx
	}
	return c.rescind(o, fx)
}
