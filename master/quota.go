package master

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/mesopool/mesopool/resources"
)

// Quota is what a top-level role, with all below it, is sure to get and the
// most that it may have. A resource without a limit has none; a limit of 0 is
// one.
type Quota struct {
	Role       string
	Guarantees resources.Scalars          `json:",omitempty"`
	Limits     map[string]resources.Milli `json:",omitempty"`
}

func (q *Quota) empty() bool { return len(q.Guarantees) == 0 && len(q.Limits) == 0 }

// topRole is the root of a role's tree.
func topRole(role string) string {
	top, _, _ := strings.Cut(role, "/")
	return top
}

// countable are the amounts that quota is about: no reservations, for they are
// counted whether used or not, and nothing revocable.
func countable(r resources.Resources) resources.Scalars {
	return r.Filter(func(x *resources.Resource) bool { return len(x.Reservations) == 0 && !x.Revocable }).Scalars()
}

// reservedBy are the amounts that each top-level role has reserved.
func reservedBy(r resources.Resources) map[string]resources.Scalars {
	var out map[string]resources.Scalars
	for i := range r {
		if x := &r[i]; len(x.Reservations) > 0 && !x.Revocable {
			if out == nil {
				out = map[string]resources.Scalars{}
			}
			top := topRole(x.ReservedTo())
			out[top] = out[top].Add(resources.Resources{*x}.Scalars())
		}
	}
	return out
}

// consume keeps what each top-level role has: its reservations, used or not, and
// what else is allocated in it (allocator/mesos/hierarchical.cpp).
func (c *Core) consume(top string, amount resources.Scalars, add bool) {
	if len(amount) == 0 {
		return
	}
	has := c.consumed[top]
	if add {
		has = has.Add(amount)
	} else {
		has = has.Sub(amount)
	}
	c.consumed[top] = has
	if len(has) == 0 {
		delete(c.consumed, top)
	}
}

// wanting is what a role's guarantee still lacks.
func (c *Core) wanting(q *Quota) (out resources.Scalars) {
	has := c.consumed[q.Role]
	for _, x := range q.Guarantees {
		if less := x.Amount - has.Get(x.Name); less > 0 {
			out = out.Add(resources.NewScalars(resources.Scalar{Name: x.Name, Amount: less}))
		}
	}
	return out
}

// surplus is what may be given beyond the guarantees that are not met yet. It is
// valid for one round.
type surplus map[string]resources.Milli

func (c *Core) surplus() surplus {
	if !c.guaranteed() {
		return nil
	}
	out := surplus{}
	for _, a := range c.agents {
		if a.serves() {
			for _, x := range countable(a.free()) {
				out[x.Name] += x.Amount
			}
		}
	}
	for _, q := range c.quotas {
		for _, x := range c.wanting(&q) {
			out[x.Name] -= x.Amount
		}
	}
	return out
}

func (c *Core) guaranteed() bool {
	for _, q := range c.quotas {
		if len(q.Guarantees) > 0 {
			return true
		}
	}
	return false
}

// allowed is how much more of a resource a role may get; the second result is
// false when nothing bounds it.
func (c *Core) allowed(role, name string, extra surplus) (resources.Milli, bool) {
	top := topRole(role)
	q, has := c.quotas[top]
	most, bounded := resources.Milli(0), false
	if extra != nil {
		most, bounded = max(0, extra[name]), true
		if has {
			most += max(0, q.Guarantees.Get(name)-c.consumed[top].Get(name))
		}
	}
	if limit, set := q.Limits[name]; set {
		left := max(0, limit-c.consumed[top].Get(name))
		if !bounded || left < most {
			most, bounded = left, true
		}
	}
	return most, bounded
}

// withinQuota shrinks unreserved amounts to what the role may get; all else goes
// along whole.
func (c *Core) withinQuota(role string, part resources.Resources, extra surplus) resources.Resources {
	if len(c.quotas) == 0 {
		return part
	}
	out := make(resources.Resources, 0, len(part))
	left := map[string]resources.Milli{}
	for _, x := range part {
		if x.Kind != resources.KindScalar || len(x.Reservations) > 0 || x.Revocable {
			out = append(out, x)
			continue
		}
		most, bounded := c.allowed(role, x.Name, extra)
		if !bounded {
			out = append(out, x)
			continue
		}
		if _, seen := left[x.Name]; !seen {
			left[x.Name] = most
		}
		x.Scalar = min(x.Scalar, left[x.Name])
		if left[x.Name] -= x.Scalar; x.Scalar > 0 {
			out = append(out, x)
		}
	}
	return out
}

// spent notes what an offer takes from the surplus, before it is counted as
// consumed.
func (c *Core) spent(role string, part resources.Resources, extra surplus) {
	if extra == nil {
		return
	}
	top := topRole(role)
	q := c.quotas[top]
	for _, x := range countable(part) {
		sure := max(0, q.Guarantees.Get(x.Name)-c.consumed[top].Get(x.Name))
		extra[x.Name] -= max(0, x.Amount-sure)
	}
}

// progress says whether an amount brings a role nearer to its guarantee.
func (c *Core) progress(role string, part resources.Resources) bool {
	q := c.quotas[topRole(role)]
	has := countable(part)
	return slices.ContainsFunc(c.wanting(&q), func(x resources.Scalar) bool { return has.Get(x.Name) > 0 })
}

// setQuotas replaces the quota of roles (master/quota_handler.cpp, update). All
// are checked before any is taken.
func (c *Core) setQuotas(cmd SetQuotas, fx []Effect) ([]Effect, error) {
	next := maps.Clone(c.quotas)
	for _, q := range cmd.Quotas {
		if err := c.checkQuota(&q, cmd.Force); err != nil {
			return fx, err
		}
		if next[q.Role] = q; q.empty() {
			delete(next, q.Role)
		}
	}
	if err := c.checkCapacity(next); err != nil && !cmd.Force {
		return fx, err
	}
	c.quotas = next
	for _, q := range cmd.Quotas {
		save := Save{Kind: SavedQuota, Name: q.Role}
		if !q.empty() {
			save.Value = q
		}
		fx = append(fx, save)
		fx = c.rescindOver(&q, fx)
	}
	c.dirty = true
	return c.rescindFor(fx), nil
}

func (c *Core) removeQuota(cmd RemoveQuota, fx []Effect) ([]Effect, error) {
	if _, set := c.quotas[cmd.Role]; !set {
		return fx, fmt.Errorf("%w: Failed to remove quota: Role '%s' has no quota set", ErrInvalid, cmd.Role)
	}
	delete(c.quotas, cmd.Role)
	c.dirty = true
	return append(fx, Save{Kind: SavedQuota, Name: cmd.Role}), nil
}

// maxQuota is Mesos' bound of each amount (master/quota.cpp, validate).
const maxQuota = resources.Milli(1e15)

func (c *Core) checkQuota(q *Quota, force bool) error {
	if strings.Contains(q.Role, "/") {
		return fmt.Errorf("%w: Invalid QuotaConfig: setting quota on nested role '%s' is not supported", ErrInvalid, q.Role)
	}
	for _, x := range q.Guarantees {
		if limit, set := q.Limits[x.Name]; set && limit < x.Amount {
			return fmt.Errorf("%w: Invalid QuotaConfig: 'guarantees' of %s (%s) exceed its 'limits' (%s)", ErrInvalid, x.Name, x.Amount, limit)
		}
		if x.Amount < 0 || x.Amount > maxQuota {
			return fmt.Errorf("%w: Invalid QuotaConfig: the guarantee of %s (%s) is negative or above %s", ErrInvalid, x.Name, x.Amount, maxQuota)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(q.Limits)) {
		limit, has := q.Limits[name], c.consumed[q.Role].Sub(c.offeredIn(q.Role)).Get(name)
		switch {
		case limit < 0 || limit > maxQuota:
			return fmt.Errorf("%w: Invalid QuotaConfig: the limit of %s (%s) is negative or above %s", ErrInvalid, name, limit, maxQuota)
		case has > limit && !force:
			return fmt.Errorf("%w: Invalid QuotaConfig: role '%s' is already consuming %s:%s; this is more than the requested limit %s. You can force the update", ErrInvalid, q.Role, name, has, limit)
		}
	}
	return nil
}

func (c *Core) offeredIn(top string) (out resources.Scalars) {
	for _, o := range c.offers {
		if topRole(o.Role) == top {
			out = out.Add(countable(o.Resources))
		}
	}
	return out
}

// checkCapacity: more is not guaranteed than there is.
func (c *Core) checkCapacity(quotas map[string]Quota) error {
	var sum, total resources.Scalars
	for _, q := range quotas {
		sum = sum.Add(q.Guarantees)
	}
	for _, a := range c.agents {
		total = total.Add(a.Resources.Filter(func(x *resources.Resource) bool { return !x.Revocable }).Scalars())
	}
	if total.Contains(sum) {
		return nil
	}
	return fmt.Errorf("%w: Not enough available cluster capacity to reasonably satisfy quota guarantees: %s are asked for and there are %s; the force flag can be used to override this check", ErrOvercommit, sum, total)
}

// rescindOver takes offers back that are more than a role's limit.
func (c *Core) rescindOver(q *Quota, fx []Effect) []Effect {
	for _, o := range c.allOffers() {
		over := false
		for name, limit := range q.Limits {
			over = over || c.consumed[q.Role].Get(name) > limit
		}
		if over && topRole(o.Role) == q.Role && len(countable(o.Resources)) > 0 {
			fx = c.rescind(o, fx)
		}
	}
	return fx
}

// rescindFor takes offers back until the guarantees can be met, as far as that
// helps.
func (c *Core) rescindFor(fx []Effect) []Effect {
	for _, o := range c.allOffers() {
		lacking := false
		for name, left := range c.surplus() {
			lacking = lacking || left < 0 && countable(o.Resources).Get(name) > 0
		}
		if q := c.quotas[topRole(o.Role)]; lacking && len(q.Guarantees) == 0 {
			fx = c.rescind(o, fx)
		}
	}
	return fx
}

func (c *Core) allOffers() []*Offer {
	out := slices.Collect(maps.Values(c.offers))
	slices.SortFunc(out, byOfferID)
	return out
}

// paused: after a failover quota can only be kept when most of the agents are
// back; the rest are given up when their time is over (hierarchical.cpp,
// recover).
func (c *Core) paused() bool {
	return len(c.quotas) > 0 && 5*len(c.recovered) > c.recoveries
}

// setWeights replaces the weights of roles; offers go back, so that the new ones
// count at once (master/weights_handler.cpp).
func (c *Core) setWeights(cmd SetWeights, fx []Effect) ([]Effect, error) {
	for role, w := range cmd.Weights {
		if !(w > 0) {
			return fx, fmt.Errorf("%w: Invalid weight '%v' for role '%s': Weights must be positive", ErrInvalid, w, role)
		}
	}
	for _, role := range slices.Sorted(maps.Keys(cmd.Weights)) {
		c.weigh(role, cmd.Weights[role])
		fx = append(fx, Save{Kind: SavedWeight, Name: role, Value: cmd.Weights[role]})
	}
	for _, o := range c.allOffers() {
		fx = c.rescind(o, fx)
	}
	return fx, nil
}

func (c *Core) weigh(role string, w float64) {
	c.weights[role] = w
	c.roles.SetWeight(role, w)
	c.dirty = true
}

// restore takes what operators set before a restart.
func (c *Core) restore(cmd Restore, fx []Effect) ([]Effect, error) {
	for _, q := range cmd.Quotas {
		c.quotas[q.Role] = q
	}
	for role, w := range cmd.Weights {
		c.weigh(role, w)
	}
	for id, m := range cmd.Marks {
		c.marks[id] = m
	}
	for id, at := range cmd.Gone {
		c.gone[id] = at
	}
	c.maintenance = cmd.Maintenance
	return fx, nil
}
