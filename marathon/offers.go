package marathon

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// Refusals count why offers did not do for an app since it waits.
type Refusals struct {
	Processed int
	Lacking   map[string]int             // by resource name
	Largest   map[string]resources.Milli // the largest amount seen of it
	Unmet     int                        // offers that no constraint of the app allows
	Rule      string                     // what the last of them lacked, as a sentence
	LastUsed  time.Time
	LastSeen  time.Time
	Unused    []UnusedOffer // the last ones, one per agent and role
}

// UnusedOffer is an offer that did not do.
type UnusedOffer struct {
	Offer  task.Offer
	Reason string // Marathon's word for it
	Time   time.Time
}

// keptUnused is how many unused offers are remembered per app.
const keptUnused = 5

// reasons are Marathon's words for the resource of which there is too little.
var reasons = map[string]string{"cpus": "InsufficientCpus", "mem": "InsufficientMemory", "disk": "InsufficientDisk", "gpus": "InsufficientGpus"}

func (r *Refusals) unused(now time.Time, o *task.Offer, reason string) {
	r.Unused = slices.DeleteFunc(r.Unused, func(u UnusedOffer) bool { return u.Offer.Agent == o.Agent && u.Offer.Role == o.Role })
	r.Unused = append(r.Unused, UnusedOffer{Offer: *o, Reason: reason, Time: now})
	if len(r.Unused) > keptUnused {
		r.Unused = slices.Delete(r.Unused, 0, 1)
	}
}

// pool is what the offers of one agent in one role hold together.
type pool struct {
	offers []string
	first  task.Offer
	left   resources.Resources
	launch task.Launch
}

// offered launches what is lacking on what is offered and gives the rest back.
func (c *Core) offered(now time.Time, in Offered, fx []Effect) []Effect {
	pools := poolsOf(in.Offers)
	c.hosts.note(now, in.Offers)
	c.seeAgents(now, pools)
	c.seeAddresses(pools)
	fx = c.clean(now, pools, fx)
	for _, a := range c.waiting(now) {
		fx = c.place(now, a, pools, fx)
	}
	for _, p := range pools {
		refuse := time.Hour // until the next revive
		if len(c.lacking) > 0 || c.cleaning(now) {
			refuse = c.cfg.Hold
		}
		if p.launch.Empty() {
			fx = append(fx, Decline{Offers: p.offers, Refuse: refuse})
			continue
		}
		fx = append(fx, Accept{Offers: p.offers, Agent: p.first.Agent, Launch: p.launch, Refuse: 0})
	}
	return fx
}

func poolsOf(offers []task.Offer) []*pool {
	type place struct{ agent, role string }
	byPlace := map[place]*pool{}
	var out []*pool
	for _, o := range offers {
		key := place{o.Agent, o.Role}
		p := byPlace[key]
		if p == nil {
			p = &pool{first: o}
			byPlace[key] = p
			out = append(out, p)
		}
		p.offers = append(p.offers, o.ID)
		p.left = p.left.Add(o.Resources...)
	}
	return out
}

// waiting lists the apps that could launch now, those that wait longest first.
func (c *Core) waiting(now time.Time) []*app {
	if c.queue == nil {
		c.queue = slices.SortedFunc(maps.Values(c.lacking), func(a, b *app) int {
			return cmp.Or(a.since.Compare(b.since), strings.Compare(a.def.ID, b.def.ID))
		})
	}
	out := make([]*app, 0, len(c.queue))
	for _, a := range c.queue {
		if a.delayed.After(now) || a.lacksSecrets() || c.unmet(a) != "" {
			a.asked = 0 // offers that come meanwhile go away unused
			continue
		}
		out = append(out, a)
	}
	return out
}

// unmet names a dependency that is not up yet, "" when there is none. To depend
// on a group is to depend on all its apps.
func (c *Core) unmet(a *app) string {
	for _, id := range (&outlook{core: c}).dependencies(a.def) {
		apps := []string{id}
		if c.apps[id] == nil {
			if apps = c.below(id); len(apps) == 0 && !c.hasGroup(id) {
				return id
			}
		}
		for _, one := range apps {
			if !c.apps[one].serves() {
				return one
			}
		}
	}
	return ""
}

// serves says whether enough instances are healthy for others to depend on.
func (a *app) serves() bool {
	least, _ := a.bounds()
	return !a.stopping && a.tally.healthy >= max(least, min(1, a.target()))
}

// place launches as many instances of an app as fit.
func (c *Core) place(now time.Time, a *app, pools []*pool, fx []Effect) []Effect {
	need := c.need(a)
	want := a.def.amounts()
	for _, p := range pools {
		if need == 0 || !a.def.acceptsRole(p.first.Role) {
			continue
		}
		a.seen.Processed++
		a.seen.LastSeen = now
		for need > 0 {
			if a.def.Everywhere && a.isOn(p.first.Agent) {
				break
			}
			if a.def.Resident() {
				var ok bool
				if fx, ok = c.settle(now, a, p, fx); !ok {
					break
				}
				need--
				continue
			}
			if !c.allows(now, a, &p.first) {
				a.seen.unused(now, &p.first, "UnfulfilledConstraint")
				break
			}
			part, lacking := a.def.take(p.left, want, p.first.Role)
			if lacking != "" {
				a.seen.note(lacking, a.def.acceptable(p.left).Amount(lacking))
				a.seen.unused(now, &p.first, reasons[lacking])
				break
			}
			p.left = p.left.Sub(part...)
			fx = c.launch(now, a, p, part, nil, fx)
			a.seen.LastUsed = now
			need--
		}
	}
	return fx
}

func (r *Refusals) note(name string, had resources.Milli) {
	if r.Lacking == nil {
		r.Lacking, r.Largest = map[string]int{}, map[string]resources.Milli{}
	}
	r.Lacking[name]++
	r.Largest[name] = max(r.Largest[name], had)
}

// amounts is what one instance needs.
func (a *App) amounts() resources.Scalars {
	return amountsOf(a.CPUs, a.Mem, a.Disk, float64(a.GPUs))
}

func amountsOf(cpus, mem, disk, gpus float64) resources.Scalars {
	amount := func(name string, v float64) resources.Scalar {
		m, _ := resources.FromFloat(v) // validated
		return resources.Scalar{Name: name, Amount: m}
	}
	return resources.NewScalars(amount("cpus", cpus), amount("mem", mem), amount("disk", disk), amount("gpus", gpus))
}

// acceptsRole: masters tell no role to frameworks that have only one.
func (a *App) acceptsRole(role string) bool { return role == "" || a.Role == role }

// acceptsReserved says whether the app may use what is reserved to a role, *
// for what is not (acceptedResourceRoles).
func (a *App) acceptsReserved(to string) bool {
	return len(a.AcceptedRoles) == 0 || slices.Contains(a.AcceptedRoles, to)
}

// acceptable is what of an offer the app may use.
func (a *App) acceptable(from resources.Resources) resources.Resources {
	return from.Filter(func(r *resources.Resource) bool { return a.acceptsPart(r) })
}

func (a *App) acceptsPart(r *resources.Resource) bool {
	return r.Disk == nil && !r.Revocable && !r.Shared && !isMarked(r) && a.acceptsReserved(r.ReservedTo())
}

// take cuts an amount out of what is there, reserved parts first; lacking names
// the resource of which there is too little.
func (a *App) take(from resources.Resources, want resources.Scalars, role string) (part resources.Resources, lacking string) {
	for _, w := range want {
		left := w.Amount
		for _, reserved := range []bool{true, false} {
			for i := range from {
				r := &from[i]
				if left == 0 || r.Name != w.Name || r.Kind != resources.KindScalar || reserved != (len(r.Reservations) > 0) {
					continue
				}
				if !a.acceptsPart(r) {
					continue
				}
				piece := *r
				piece.Scalar, piece.Role = min(left, r.Scalar), cmp.Or(r.Role, role)
				left -= piece.Scalar
				part = part.Add(piece)
			}
		}
		if left > 0 {
			return nil, w.Name
		}
	}
	return part, ""
}

// launch makes a new instance; it is saved before its launch leaves.
func (c *Core) launch(now time.Time, a *app, p *pool, part resources.Resources, r *Residence, fx []Effect) []Effect {
	o := &p.first
	i := &Instance{
		App: a.def.ID, Version: a.def.ConfigVersion(), Role: o.Role, Agent: o.Agent, Host: o.Hostname,
		Region: o.Region, Zone: o.Zone, Traits: o.Attributes,
		State: task.Staging, Staged: now, heard: now, def: a.def,
	}
	if r != nil {
		i.ID, i.TaskID, i.Residence = r.ID, r.TaskID(), r.ID
	} else {
		i.ID, i.TaskID = TaskIDOf(a.def.ID, c.cfg.NewID())
	}
	i.Ports, i.Unready = a.def.assignPorts(), a.gates()
	a.gated = a.gated || i.Unready
	if a.def.IsPod() {
		i.TaskID, i.Parts = i.ID, a.def.parts(i)
		p.launch.Groups = append(p.launch.Groups, a.def.group(i, part, a.secrets.values))
	} else {
		p.launch.Tasks = append(p.launch.Tasks, a.def.spec(i, part, a.secrets.values))
	}
	c.know(i)
	a.instances[i.TaskID] = i
	c.touch(i)
	c.timers.Add(now.Add(c.cfg.StagedLimit), timer{kind: timerStaged, id: i.TaskID})
	return append(fx, Save{Key: KeyInstance + i.TaskID, Value: i})
}

// askForOffers revives when more is needed than was asked for, or nothing has
// come of it for long, and suppresses when nothing is.
func (c *Core) askForOffers(now time.Time, fx []Effect) []Effect {
	switch {
	case !c.connected:
		return fx
	case !c.lookAround.After(now) && c.looksAround():
		c.lookAround, c.suppressed, c.lastRevive = now.Add(c.cfg.ReconcileEach), false, now
		c.wakeToRevive(c.lookAround)
		return append(fx, Revive{})
	case len(c.lacking) == 0 && !c.cleaning(now) && !c.suppressed && !c.looksAround():
		c.suppressed = true
		return append(fx, Suppress{})
	case len(c.lacking) == 0 && !c.cleaning(now):
		return fx
	}
	waiting := c.waiting(now)
	if len(waiting) == 0 && !c.cleaning(now) {
		return fx
	}
	at := c.lastRevive.Add(c.cfg.ReviveEach)
	if c.cleaning(now) && !c.cleanAsked || slices.ContainsFunc(waiting, func(a *app) bool { return c.need(a) > a.asked }) {
		at = c.lastRevive.Add(c.cfg.ReviveGap)
	}
	if at.After(now) {
		c.wakeToRevive(at)
		return fx
	}
	for _, a := range waiting {
		a.asked = c.need(a)
	}
	c.lastRevive, c.suppressed, c.cleanAsked = now, false, c.cleaning(now)
	c.wakeToRevive(now.Add(c.cfg.ReviveEach))
	return append(fx, Revive{})
}

// wakeToRevive sees to it that a timer wakes at the time or before.
func (c *Core) wakeToRevive(at time.Time) {
	if c.reviveWait.IsZero() || at.Before(c.reviveWait) {
		c.reviveWait = at
		c.timers.Add(at, timer{kind: timerRevive})
	}
}

// reason says in a sentence why an app does not have all its instances yet, ""
// when nothing is lacking.
func (c *Core) reason(now time.Time, a *app) string {
	switch need := c.need(a); {
	case a.blocked():
		return "waits for an earlier step of its deployment"
	case need == 0:
		return ""
	case !c.connected:
		return "there is no connection to a master"
	case c.unmet(a) != "":
		return fmt.Sprintf("waits for %s, on which it depends", c.unmet(a))
	case a.delayed.After(now):
		return fmt.Sprintf("an instance failed; the next launch is in %s%s", a.delayed.Sub(now).Round(time.Second), a.cause())
	case a.lacksSecrets():
		return a.waitsForSecrets()
	}
	if a.def.Resident() && c.awaited(a) != "" {
		return c.awaited(a)
	}
	for _, w := range a.def.amounts() {
		if a.seen.Lacking[w.Name] > 0 {
			return fmt.Sprintf("needs %s %s%s; the largest offer had %s", w.Amount, w.Name, a.def.onlyOf(), a.seen.Largest[w.Name])
		}
	}
	if a.seen.Rule != "" {
		return a.seen.Rule
	}
	if a.seen.Processed == 0 && a.def.Role != c.cfg.Role {
		return fmt.Sprintf("waits for offers to the role %s; this scheduler has the role %s", a.def.Role, c.cfg.Role)
	}
	return "waits for offers; none has come yet"
}

// cause is why the last instance failed, in brackets, "" when nothing was said.
func (a *app) cause() string {
	if a.failure == nil || a.failure.Message == "" {
		return ""
	}
	return " (" + a.failure.Message + ")"
}

// onlyOf says what the app is to be made of, "" when that is anything
// (acceptedResourceRoles).
func (a *App) onlyOf() string {
	if len(a.AcceptedRoles) == 0 || slices.Contains(a.AcceptedRoles, "*") {
		return ""
	}
	return " reserved to " + strings.Join(a.AcceptedRoles, " or ")
}
