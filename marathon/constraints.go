package marathon

import (
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mesopool/mesopool/task"
)

// The operators of constraints (Constraints.scala).
const (
	opUnique  = "UNIQUE"
	opCluster = "CLUSTER"
	opGroupBy = "GROUP_BY"
	opLike    = "LIKE"
	opUnlike  = "UNLIKE"
	opMaxPer  = "MAX_PER"
	opIs      = "IS"
)

var operators = []string{opUnique, opCluster, opGroupBy, opLike, opUnlike, opMaxPer, opIs}

func (c *checker) constraint(where string, con []string) {
	if len(con) < 2 || len(con) > 3 {
		c.must(false, where, "Each constraint must have either 2 or 3 fields")
		return
	}
	op, value := con[1], valueOf(con)
	c.must(slices.Contains(operators, op), where, "Constraint operator must be one of the following: %s", strings.Join(operators, ", "))
	c.must(op != opUnique || len(con) == 2, where, "Value specified but not used")
	switch op {
	case opLike, opUnlike:
		_, err := fullMatch(value)
		c.must(len(con) == 3 && err == nil, where, "%s needs a regular expression", op)
	case opMaxPer:
		c.must(isCount(value), where, "%s needs a whole number above 0, got %q", op, value)
	case opGroupBy:
		c.must(value == "" || isCount(value), where, "%s takes a whole number above 0 (how many values there are), or nothing; got %q", op, value)
	case opIs:
		c.must(value != "", where, "%s needs a value", op)
	}
}

func valueOf(con []string) string {
	if len(con) < 3 {
		return ""
	}
	return con[2]
}

func isCount(text string) bool {
	n, err := strconv.Atoi(text)
	return err == nil && n > 0
}

// fullMatch compiles an expression that must match the whole text, as Java's
// matches does.
func fullMatch(text string) (*regexp.Regexp, error) { return regexp.Compile(`^(?:` + text + `)$`) }

// place is where an instance is or would be, as constraints see it.
type place struct {
	host, region, zone string
	traits             []task.Label
}

func placeOf(o *task.Offer) place { return place{o.Hostname, o.Region, o.Zone, o.Attributes} }

func (i *Instance) place() place { return place{i.Host, i.Region, i.Zone, i.Traits} }

func isHostname(field string) bool { return field == "hostname" || field == "@hostname" }

// value is that of a field: the host's name, @region, @zone, or an attribute of
// the agent.
func (p *place) value(field string) (string, bool) {
	switch {
	case isHostname(field):
		return p.host, true
	case field == "@region":
		return p.region, p.region != ""
	case field == "@zone":
		return p.zone, p.zone != ""
	}
	for _, l := range p.traits {
		if l.Key == field {
			return l.Value, true
		}
	}
	return "", false
}

// rule is a constraint made ready. Those that were written before a rule of
// their form existed may be malformed: they allow nothing.
type rule struct {
	field, op, value string
	number           int // of value, 0 when it is none
	expression       *regexp.Regexp
}

func rulesOf(constraints [][]string) []rule {
	var out []rule
	for _, con := range constraints {
		if len(con) < 2 {
			continue
		}
		r := rule{field: con[0], op: con[1], value: valueOf(con)}
		r.number, _ = strconv.Atoi(r.value)
		if r.op == opLike || r.op == opUnlike {
			r.expression, _ = fullMatch(r.value)
		}
		out = append(out, r)
	}
	return out
}

// allows says whether one more instance may go to a place: counts tells how
// many instances there are by value, want how many there shall be.
func (r *rule) allows(at *place, counts map[string]int, want int) bool {
	v, ok := at.value(r.field)
	if !ok {
		return r.op == opUnlike
	}
	switch r.op {
	case opUnique:
		return counts[v] == 0
	case opCluster:
		return (r.value == "" || r.value == v) && len(counts) == min(counts[v], 1)
	case opGroupBy:
		return r.spreads(v, counts, want)
	case opMaxPer:
		return counts[v] < r.number
	case opLike:
		return r.expression != nil && r.expression.MatchString(v)
	case opUnlike:
		return r.expression != nil && !r.expression.MatchString(v)
	case opIs:
		return sameValue(v, r.value)
	}
	return false
}

// spreads: with a number of values each may have its part of the instances, and
// the remainder goes to as many of them as it counts; without one only the
// values seen so far are known, and the least used of them is next.
func (r *rule) spreads(v string, counts map[string]int, want int) bool {
	if r.number == 0 {
		for _, n := range counts {
			if counts[v] > n {
				return false
			}
		}
		return true
	}
	part, rest := want/r.number, want%r.number
	if counts[v] != part {
		return counts[v] < part
	}
	above := 0
	for _, n := range counts {
		if n > part {
			above++
		}
	}
	return above < rest
}

// sameValue compares as text, and numbers by their first three decimals.
func sameValue(a, b string) bool {
	x, err1 := strconv.ParseFloat(a, 64)
	y, err2 := strconv.ParseFloat(b, 64)
	return a == b || err1 == nil && err2 == nil && math.Abs(x-y) < 0.0005
}

// sentence says what is wrong with all offers that the rule refuses.
func (r *rule) sentence(at *place, counts map[string]int) string {
	if _, has := at.value(r.field); !has && r.counts() && (r.op != opCluster || r.value == "") {
		return "no offer has a " + r.field
	}
	used := strings.Join(slices.Sorted(maps.Keys(counts)), ", ")
	switch r.op {
	case opUnique:
		return fmt.Sprintf("no offer has a %s without an instance (in use: %s)", r.field, used)
	case opCluster:
		if r.value == "" {
			return fmt.Sprintf("no offer has %s %s, where the other instances are", r.field, used)
		}
	case opGroupBy:
		return fmt.Sprintf("no offer has a %s whose turn it is to get an instance (in use: %s)", r.field, used)
	case opMaxPer:
		return fmt.Sprintf("no offer has a %s with less than %s instances (in use: %s)", r.field, r.value, used)
	case opLike, opUnlike:
		return fmt.Sprintf("no offer has %s %s %s", r.field, strings.ToLower(r.op), r.value)
	}
	return fmt.Sprintf("no offer has %s %s", r.field, r.value)
}

// countBy counts the instances of the current configuration by the value of a
// field. Those of an earlier one do not count: they go.
func (a *app) countBy(field string) map[string]int {
	out := map[string]int{}
	for _, i := range a.instances {
		if i.inactive || i.Version != a.def.ConfigVersion() {
			continue
		}
		at := i.place()
		if v, ok := at.value(field); ok {
			out[v]++
		}
	}
	return out
}

// allows says whether the app's constraints let one more instance go where an
// offer is, and notes why not.
func (c *Core) allows(now time.Time, a *app, o *task.Offer) bool {
	if a.ruled != a.def {
		a.ruled, a.rules = a.def, rulesOf(a.def.Constraints)
	}
	if len(a.rules) == 0 {
		return true
	}
	at := placeOf(o)
	for n := range a.rules {
		r := &a.rules[n]
		if r.perHost() && c.hosts.one(now, c.cfg.OneHostAfter) {
			continue
		}
		var counts map[string]int
		if r.counts() {
			counts = a.countBy(r.field)
		}
		if !r.allows(&at, counts, a.target()) {
			a.seen.Unmet++
			a.seen.Rule = r.sentence(&at, counts)
			return false
		}
	}
	return true
}

// counts says whether a rule looks at the other instances.
func (r *rule) counts() bool {
	return r.op == opUnique || r.op == opCluster || r.op == opGroupBy || r.op == opMaxPer
}

// perHost says whether a rule limits how many instances a host gets.
func (r *rule) perHost() bool {
	return isHostname(r.field) && (r.op == opUnique || r.op == opMaxPer || r.op == opGroupBy)
}

// hosts remembers where offers come from. When all come from one host for a
// while it is a virtual agent, which stands for a whole data center: every
// container there is a host of its own, with an address of its own, and rules
// per host are met. A second host ends that for good.
type hosts struct {
	name  string
	many  bool
	since time.Time
}

func (h *hosts) note(now time.Time, offers []task.Offer) {
	for i := range offers {
		h.see(offers[i].Hostname)
		if h.since.IsZero() {
			h.since = now
		}
	}
}

// see notes a host of which no offer may have come: instances run there.
func (h *hosts) see(name string) {
	if h.name == "" {
		h.name = name
	}
	h.many = h.many || name != h.name
}

func (h *hosts) one(now time.Time, after time.Duration) bool {
	return !h.many && !h.since.IsZero() && !now.Before(h.since.Add(after))
}

// notes say what of an app's definition means something else on a virtual
// agent.
func (c *Core) notes(now time.Time, a *app) []string {
	if !c.hosts.one(now, c.cfg.OneHostAfter) {
		return nil
	}
	var out []string
	for _, con := range a.def.Constraints {
		r := rule{field: con[0], op: con[1]}
		if r.perHost() {
			out = append(out, fmt.Sprintf("the constraint %s is met by every placement: all offers come from the host %s, where each container has an address of its own", strings.Join(con, " "), c.hosts.name))
		}
	}
	return out
}

// uneven picks n of the instances to end, who is first in the list first; with
// GROUP_BY, those go first whose value has the most instances.
func (a *app) uneven(from []*Instance, n int) []*Instance {
	i := slices.IndexFunc(a.def.Constraints, func(con []string) bool { return con[1] == opGroupBy })
	if i < 0 || n == 0 || n >= len(from) {
		return from[:min(n, len(from))]
	}
	field := a.def.Constraints[i][0]
	value := func(i *Instance) string { at := i.place(); v, _ := at.value(field); return v }
	counts := map[string]int{}
	for _, i := range from {
		counts[value(i)]++
	}
	var out []*Instance
	from = slices.Clone(from)
	for range n {
		most := 0
		for k, i := range from {
			if counts[value(i)] > counts[value(from[most])] {
				most = k
			}
		}
		counts[value(from[most])]--
		out = append(out, from[most])
		from = slices.Delete(from, most, most+1)
	}
	return out
}
