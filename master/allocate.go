package master

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mesopool/mesopool/resources"
)

// filterKey is what a refusal is about.
type filterKey struct{ role, agent string }

// filter remembers refusals: nothing that a refused amount contains is offered
// until its time is over. A framework that refuses a part of a large agent gets
// twice as much the next time, up to all there is, so that a large task finds
// room in the end.
type filter struct {
	refusals []refusal
	doubled  int
	grown    time.Time // when doubled last changed
}

type refusal struct {
	amount resources.Resources
	until  time.Time
}

func (f *filter) holds(now time.Time, offer resources.Resources) bool {
	if f == nil {
		return false
	}
	return slices.ContainsFunc(f.refusals, func(r refusal) bool { return now.Before(r.until) && r.amount.Contains(offer) })
}

// add notes a refusal and forgets those that it makes needless; false if it is
// needless itself.
func (f *filter) add(now time.Time, r refusal) bool {
	f.refusals = slices.DeleteFunc(f.refusals, func(old refusal) bool {
		return !now.Before(old.until) || !old.until.After(r.until) && r.amount.Contains(old.amount)
	})
	if slices.ContainsFunc(f.refusals, func(old refusal) bool { return !old.until.Before(r.until) && old.amount.Contains(r.amount) }) {
		return false
	}
	f.refusals = append(f.refusals, r)
	return true
}

func (c *Core) refuseFor(now time.Time, f *framework, key filterKey, refused resources.Resources, d time.Duration) {
	flt := f.filters[key]
	if flt == nil {
		flt = &filter{}
		f.filters[key] = flt
	}
	if flt.grown.Before(c.lastRun) || flt.grown.IsZero() {
		flt.doubled, flt.grown = flt.doubled+1, now
	}
	until := now.Add(min(max(d, c.cfg.AllocationGap), 365*24*time.Hour))
	if flt.add(now, refusal{refused, until}) {
		c.timers.Add(until, timer{timerFilter, ""})
	}
}

// learnUsed: the parts are large enough again.
func (c *Core) learnUsed(f *framework, key filterKey) {
	if flt := f.filters[key]; flt != nil {
		flt.doubled = 0
	}
}

// allocate is one round of offers: whatever is free goes, part by part, to
// whoever has the smallest share and can use it.
func (c *Core) allocate(now time.Time, fx []Effect) []Effect {
	c.dirty, c.lastRun = false, now
	if c.paused() {
		return fx
	}
	c.count.AllocationRounds++
	made := map[string][]*Offer{}
	agents := c.sortedAgents()
	if len(agents) > 0 {
		c.turn = (c.turn + 1) % len(agents)
		agents = append(agents[c.turn:], agents[:c.turn]...)
	}
	extra := c.surplus()
	for _, sure := range []bool{true, false} {
		for _, a := range agents {
			if a.serves() && (!sure || extra != nil) {
				c.allocateAgent(now, a, sure, extra, made)
			}
		}
	}
	for _, f := range c.sortedFrameworks() {
		if list := made[f.ID]; len(list) > 0 {
			c.count.OffersSent += uint64(len(list))
			fx = c.tell(f, Offers{Offers: list}, fx)
		}
	}
	return c.askToLeave(now, fx)
}

// serves says whether the agent may get new work.
func (a *agent) serves() bool { return a.connected && !a.inactive }

// allocateAgent offers what is free of an agent; sure is the first stage, in
// which only roles that lack a part of their guarantee are served.
func (c *Core) allocateAgent(now time.Time, a *agent, sure bool, extra surplus, made map[string][]*Offer) {
	free := a.free()
	for len(free) > 0 {
		f, role, part := c.pick(now, a, free, sure, extra)
		if f == nil {
			return
		}
		c.spent(role, part, extra)
		o := c.offer(now, f, a, role, part)
		made[f.ID] = append(made[f.ID], o)
		free = free.Sub(a.passing(part)...)
	}
}

// pick finds who is served next from an agent, and with how much.
func (c *Core) pick(now time.Time, a *agent, free resources.Resources, sure bool, extra surplus) (*framework, string, resources.Resources) {
	for _, role := range c.roles.Sort() {
		usable := free.ReservableTo(role)
		if len(usable) == 0 || sure && !c.progress(role, usable) {
			continue
		}
		for _, id := range c.inRole[role].Sort() {
			f := c.frameworks[id]
			if f == nil || !f.wants(role, a) || c.remote(a) && !f.Capabilities.RegionAware {
				continue
			}
			mine := f.understands(usable)
			flt := f.filters[filterKey{role, a.ID}]
			part := c.withinQuota(role, c.cut(a, mine, flt), extra)
			if f.allocatable(c, role, part) && len(a.passing(part)) > 0 && (!sure || c.progress(role, part)) && !flt.holds(now, part) {
				return f, role, part
			}
		}
	}
	return nil, "", nil
}

func (f *framework) wants(role string, a *agent) bool {
	switch {
	case f.stream == "" || f.inactive || f.suppressed[role] || !slices.Contains(f.Roles, role):
		return false
	case f.Capabilities.MultiRole && !a.MultiRole || strings.Contains(role, "/") && !a.MultiRole:
		return false
	case !f.Capabilities.GPU && a.Resources.Amount("gpus") > 0:
		return false
	}
	return true
}

// understands leaves out what the framework's capabilities do not cover
// (hierarchical.cpp, stripIncapableResources).
func (f *framework) understands(r resources.Resources) resources.Resources {
	has := &f.Capabilities
	if !slices.ContainsFunc(r, func(x resources.Resource) bool { return x.Revocable || x.Shared || len(x.Reservations) > 1 }) {
		return r
	}
	return r.Filter(func(x *resources.Resource) bool {
		return (!x.Revocable || has.Revocable) && (!x.Shared || has.Shared) && (len(x.Reservations) < 2 || has.ReservationRefinement)
	})
}

// allocatable: any one of the smallest amounts makes an offer worth while.
func (c *Core) allocatable(r resources.Resources) bool {
	for _, least := range c.cfg.MinAllocatable {
		if r.Amount(least.Name) >= least.Amount {
			return true
		}
	}
	return len(c.cfg.MinAllocatable) == 0 && len(r) > 0
}

// allocatable: a framework may say for a role what makes an offer worth while
// (mesos.proto, OfferFilters).
func (f *framework) allocatable(c *Core, role string, r resources.Resources) bool {
	least, set := f.MinAllocatable[role]
	if !set {
		return c.allocatable(r)
	}
	has := r.Scalars()
	return len(r) > 0 && (len(least) == 0 || slices.ContainsFunc(least, has.Contains))
}

// cut takes one part of what is free: unreserved scalars are divided, all else
// goes along whole. Small agents are not divided.
func (c *Core) cut(a *agent, free resources.Resources, flt *filter) resources.Resources {
	parts := c.cfg.OfferParts
	if flt != nil {
		parts >>= min(flt.doubled, 30)
	}
	if parts <= 1 {
		return free
	}
	out := make(resources.Resources, 0, len(free))
	for _, r := range free {
		out = append(out, c.cutOne(a, r, parts))
	}
	if !c.allocatable(free.Sub(out...)) {
		return free
	}
	return out
}

func (c *Core) cutOne(a *agent, r resources.Resource, parts int) resources.Resource {
	if r.Kind != resources.KindScalar || len(r.Reservations) > 0 || r.Disk != nil || r.Revocable {
		return r
	}
	size := a.Resources.Amount(r.Name) / resources.Milli(parts)
	size = max(size, c.cfg.OfferFloor.Get(r.Name), 1)
	r.Scalar = min(r.Scalar, size)
	return r
}

func (c *Core) offer(now time.Time, f *framework, a *agent, role string, part resources.Resources) *Offer {
	o := &Offer{
		ID: fmt.Sprintf("%s-O%d", c.cfg.ID, c.nextOffer), Framework: f.ID, Agent: a.ID, Role: role,
		Resources: part.Allocated(role), Since: now, Unavailable: a.unavailable, Executors: a.executorIDs(f.ID),
	}
	c.nextOffer++
	c.offers[o.ID] = o
	f.offers[o.ID] = o
	a.offers[o.ID] = o
	a.offered = a.offered.Add(a.counted(o.Resources)...)
	c.share(f, o.Resources, true)
	if c.cfg.OfferTimeout > 0 {
		c.timers.Add(now.Add(c.cfg.OfferTimeout), timer{timerOffer, o.ID})
	}
	return o
}

// byOfferID orders O9 before O10.
func byOfferID(a, b *Offer) int {
	if len(a.ID) != len(b.ID) {
		return len(a.ID) - len(b.ID)
	}
	return strings.Compare(a.ID, b.ID)
}
