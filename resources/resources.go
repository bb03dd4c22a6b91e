package resources

import (
	"slices"
	"strings"
)

// Kind is the type of a resource's value.
type Kind uint8

// The kinds of values (mesos.proto, Value.Type without TEXT).
const (
	KindScalar Kind = iota
	KindRanges
	KindSet
)

// Label is a name with a value on a reservation.
type Label struct {
	Key   string
	Value string
}

// Reservation is one layer of a reservation stack.
type Reservation struct {
	Dynamic   bool    `json:",omitzero"`
	Role      string  `json:",omitzero"`
	Principal string  `json:",omitzero"`
	Labels    []Label `json:",omitzero"`
}

// Disk marks a resource as part of a volume or of a special disk. Resources
// with different marks are never added up.
type Disk struct {
	PersistenceID string `json:",omitzero"` // "" when no persistent volume
	Principal     string `json:",omitzero"`
	ContainerPath string `json:",omitzero"`
	ReadOnly      bool   `json:",omitzero"`
	Source        string `json:",omitzero"` // canonical text of the disk's source, "" for the root disk
}

// Resource is one amount with the marks that keep it apart from others.
type Resource struct {
	Name   string   `json:",omitzero"`
	Kind   Kind     `json:",omitzero"`
	Scalar Milli    `json:",omitzero"`
	Ranges Ranges   `json:",omitzero"`
	Set    []string `json:",omitzero"` // sorted, each once

	Reservations []Reservation `json:",omitzero"` // outermost first; empty: unreserved
	Role         string        `json:",omitzero"` // the role it is allocated to; "" when it is not
	Disk         *Disk         `json:",omitzero"`
	Provider     string        `json:",omitzero"`
	Revocable    bool          `json:",omitzero"`
	Shared       bool          `json:",omitzero"`
}

// Resources is a set of amounts in which no two could be added up. The zero
// value is empty. Operations return new values and leave their operands.
type Resources []Resource

// Scalar returns a Resources of one unreserved amount.
func NewScalar(name string, amount Milli) Resources {
	return Resources{}.Add(Resource{Name: name, Kind: KindScalar, Scalar: amount})
}

// ReservedTo returns the role of the innermost reservation, "*" when there is
// none.
func (r *Resource) ReservedTo() string {
	if n := len(r.Reservations); n > 0 {
		return r.Reservations[n-1].Role
	}
	return "*"
}

// Persistent says whether the resource is a persistent volume.
func (r *Resource) Persistent() bool { return r.Disk != nil && r.Disk.PersistenceID != "" }

func (r *Resource) empty() bool {
	switch r.Kind {
	case KindRanges:
		return len(r.Ranges) == 0
	case KindSet:
		return len(r.Set) == 0
	default:
		return r.Scalar <= 0
	}
}

// sameMarks says whether two amounts differ in nothing but their value.
func sameMarks(a, b *Resource) bool {
	return a.Name == b.Name && a.Kind == b.Kind && a.Role == b.Role && a.Provider == b.Provider &&
		a.Revocable == b.Revocable && a.Shared == b.Shared && sameDisk(a.Disk, b.Disk) &&
		slices.EqualFunc(a.Reservations, b.Reservations, sameReservation)
}

func sameReservation(a, b Reservation) bool {
	return a.Dynamic == b.Dynamic && a.Role == b.Role && a.Principal == b.Principal && slices.Equal(a.Labels, b.Labels)
}

func sameDisk(a, b *Disk) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

// addable: persistent volumes are whole things, never parts of a sum
// (resources.cpp, addable).
func addable(a, b *Resource) bool { return !a.Persistent() && sameMarks(a, b) }

func addValue(a, b Resource) Resource {
	switch a.Kind {
	case KindRanges:
		a.Ranges = a.Ranges.Union(b.Ranges)
	case KindSet:
		a.Set = unionSet(a.Set, b.Set)
	default:
		a.Scalar += b.Scalar
	}
	return a
}

func subValue(a, b Resource) Resource {
	switch a.Kind {
	case KindRanges:
		a.Ranges = a.Ranges.Subtract(b.Ranges)
	case KindSet:
		a.Set = subtractSet(a.Set, b.Set)
	default:
		a.Scalar -= b.Scalar
	}
	return a
}

func hasValue(a, b *Resource) bool {
	switch a.Kind {
	case KindRanges:
		return a.Ranges.Contains(b.Ranges)
	case KindSet:
		return len(subtractSet(b.Set, a.Set)) == 0
	default:
		return a.Scalar >= b.Scalar
	}
}

func unionSet(a, b []string) []string {
	out := append(slices.Clone(a), b...)
	slices.Sort(out)
	return slices.Compact(out)
}

func subtractSet(a, b []string) []string {
	var out []string
	for _, x := range a {
		if !slices.Contains(b, x) {
			out = append(out, x)
		}
	}
	return out
}

// Add returns r and the others together. Empty amounts are dropped.
func (r Resources) Add(others ...Resource) Resources {
	out := make(Resources, len(r), len(r)+r.unlike(others))
	copy(out, r)
	for _, o := range others {
		out = out.put(o)
	}
	return out
}

// unlike counts what cannot be added to any of r: results are kept for long, and
// are no larger than they must be.
func (r Resources) unlike(others []Resource) (n int) {
	for i := range others {
		if !slices.ContainsFunc(r, func(x Resource) bool { return addable(&x, &others[i]) }) {
			n++
		}
	}
	return n
}

// put adds in place; the caller owns r.
func (r Resources) put(o Resource) Resources {
	if o.empty() {
		return r
	}
	for i := range r {
		if addable(&r[i], &o) {
			r[i] = addValue(r[i], o)
			return r
		}
	}
	return append(r, o)
}

// Sub returns r without the others. What r does not have is ignored for ranges
// and sets; scalars never go below nothing. Check Contains first where it
// matters.
func (r Resources) Sub(others ...Resource) Resources {
	out := slices.Clone(r)
	for _, o := range others {
		out = out.take(o)
	}
	return out
}

func (r Resources) take(o Resource) Resources {
	for i := range r {
		if !sameMarks(&r[i], &o) || r[i].Persistent() && r[i].Scalar != o.Scalar {
			continue
		}
		r[i] = subValue(r[i], o)
		if r[i].empty() {
			return slices.Delete(r, i, i+1)
		}
		return r
	}
	return r
}

// Contains says whether r has all of o at once.
func (r Resources) Contains(o Resources) bool {
	if allDiffer(o) { // as nearly always: none takes from what another needs
		for i := range o {
			if !r.containsOne(&o[i]) {
				return false
			}
		}
		return true
	}
	left := slices.Clone(r)
	for i := range o {
		if !left.containsOne(&o[i]) {
			return false
		}
		left = left.take(o[i])
	}
	return true
}

// allDiffer says whether no two could be added up.
func allDiffer(o Resources) bool {
	for i := range o {
		for j := range o[:i] {
			if sameMarks(&o[i], &o[j]) {
				return false
			}
		}
	}
	return true
}

func (r Resources) containsOne(o *Resource) bool {
	if o.empty() {
		return true
	}
	for i := range r {
		if sameMarks(&r[i], o) && (r[i].Persistent() && r[i].Scalar == o.Scalar || !r[i].Persistent() && hasValue(&r[i], o)) {
			return true
		}
	}
	return false
}

// Filter returns the amounts that keep says yes to: r itself if that is all.
func (r Resources) Filter(keep func(*Resource) bool) Resources {
	for i := range r {
		if !keep(&r[i]) {
			return r[i+1:].filterOnto(slices.Clip(r[:i]), keep)
		}
	}
	return slices.Clip(r)
}

func (r Resources) filterOnto(out Resources, keep func(*Resource) bool) Resources {
	for i := range r {
		if keep(&r[i]) {
			out = append(out, r[i])
		}
	}
	return out
}

// Allocated returns r with every amount allocated to role; "" takes the
// allocation away.
func (r Resources) Allocated(role string) Resources {
	out := make(Resources, 0, len(r))
	for _, x := range r {
		x.Role = role
		out = out.put(x)
	}
	return out
}

// ReservableTo returns what may be offered to role: the unreserved, and what
// is reserved to it or to one of its ancestors in the role tree.
func (r Resources) ReservableTo(role string) Resources {
	return r.Filter(func(x *Resource) bool {
		to := x.ReservedTo()
		return to == "*" || to == role || strings.HasPrefix(role, to+"/")
	})
}

// Unreserved returns what no role has reserved.
func (r Resources) Unreserved() Resources {
	return r.Filter(func(x *Resource) bool { return len(x.Reservations) == 0 })
}

// Scalars sums the scalar amounts by name, marks aside.
func (r Resources) Scalars() Scalars {
	var out Scalars
	for i := range r {
		if r[i].Kind == KindScalar {
			out = out.with(r[i].Name, r[i].Scalar)
		}
	}
	return out
}

// Amount is the sum of one scalar by name, marks aside.
func (r Resources) Amount(name string) Milli {
	var sum Milli
	for i := range r {
		if r[i].Kind == KindScalar && r[i].Name == name {
			sum += r[i].Scalar
		}
	}
	return sum
}

// Equal says whether both have the same, in any order.
func (r Resources) Equal(o Resources) bool { return r.Contains(o) && o.Contains(r) }

// Split deals r out in n shares: scalars in equal parts, what does not divide to
// the first; ranges and sets whole to each, for they are names and no amounts.
func (r Resources) Split(n int) []Resources {
	out := make([]Resources, n)
	for i := range r {
		x := r[i]
		part := x.Scalar / Milli(n)
		for j := range out {
			if x.Kind == KindScalar {
				x.Scalar = part
				if j == 0 {
					x.Scalar = r[i].Scalar - part*Milli(n-1)
				}
			}
			out[j] = out[j].Add(x)
		}
	}
	return out
}

// Times returns r with the unreserved amounts of the names times a factor of
// thousandths.
func (r Resources) Times(factor Milli, names ...string) Resources {
	out := slices.Clone(r)
	for i := range out {
		if x := &out[i]; x.Kind == KindScalar && len(x.Reservations) == 0 && slices.Contains(names, x.Name) {
			x.Scalar = Milli(float64(x.Scalar) * factor.Float())
		}
	}
	return out
}
