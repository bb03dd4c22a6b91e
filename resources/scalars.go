package resources

import (
	"slices"
	"strings"
)

// Scalar is an amount with its name.
type Scalar struct {
	Name   string
	Amount Milli
}

// Scalars are amounts by name, sorted by name, each once, none 0. It is the
// light form for sums and shares, without roles and reservations.
type Scalars []Scalar

// NewScalars sorts, adds up equal names and drops zeros.
func NewScalars(in ...Scalar) Scalars {
	var out Scalars
	for _, s := range in {
		out = out.with(s.Name, s.Amount)
	}
	return out
}

// Get returns the amount, 0 when absent.
func (s Scalars) Get(name string) Milli {
	for _, x := range s {
		if x.Name == name {
			return x.Amount
		}
	}
	return 0
}

func (s Scalars) find(name string) (int, bool) {
	return slices.BinarySearchFunc(s, name, func(x Scalar, n string) int { return strings.Compare(x.Name, n) })
}

// with adds in place where it can; the caller owns s.
func (s Scalars) with(name string, amount Milli) Scalars {
	i, found := s.find(name)
	switch {
	case found && s[i].Amount+amount == 0:
		return slices.Delete(s, i, i+1)
	case found:
		s[i].Amount += amount
		return s
	case amount == 0:
		return s
	}
	return slices.Insert(s, i, Scalar{name, amount})
}

// Add returns the sum.
func (s Scalars) Add(o Scalars) Scalars {
	out := slices.Clone(s)
	for _, x := range o {
		out = out.with(x.Name, x.Amount)
	}
	return out
}

// Sub returns the difference; amounts may become negative.
func (s Scalars) Sub(o Scalars) Scalars {
	out := slices.Clone(s)
	for _, x := range o {
		out = out.with(x.Name, -x.Amount)
	}
	return out
}

// Contains says whether s has at least o of everything.
func (s Scalars) Contains(o Scalars) bool {
	for _, x := range o {
		if s.Get(x.Name) < x.Amount {
			return false
		}
	}
	return true
}

// String is "cpus:4; mem:1024".
func (s Scalars) String() string {
	parts := make([]string, len(s))
	for i, x := range s {
		parts[i] = x.Name + ":" + x.Amount.String()
	}
	return strings.Join(parts, "; ")
}

// Resources turns the amounts into unreserved, unallocated resources.
func (s Scalars) Resources() Resources {
	out := make(Resources, len(s))
	for i, x := range s {
		out[i] = Resource{Name: x.Name, Kind: KindScalar, Scalar: x.Amount}
	}
	return out
}
