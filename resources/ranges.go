package resources

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Range is the whole numbers from Begin to End, both included.
type Range struct {
	Begin uint64
	End   uint64
}

// Ranges are sorted, disjoint and not adjacent. Build them with NewRanges.
type Ranges []Range

// NewRanges sorts and joins. Ranges that end before they begin are refused.
func NewRanges(in ...Range) (Ranges, error) {
	for _, r := range in {
		if r.End < r.Begin {
			return nil, fmt.Errorf("range %d-%d ends before it begins", r.Begin, r.End)
		}
	}
	return joinRanges(slices.Clone(in)), nil
}

func joinRanges(in []Range) Ranges {
	slices.SortFunc(in, func(a, b Range) int {
		if a.Begin < b.Begin {
			return -1
		}
		if a.Begin > b.Begin {
			return 1
		}
		return 0
	})
	var out Ranges
	for _, r := range in {
		last := len(out) - 1
		if last >= 0 && (out[last].End == ^uint64(0) || r.Begin <= out[last].End+1) {
			out[last].End = max(out[last].End, r.End)
			continue
		}
		out = append(out, r)
	}
	return out
}

// Union is what either has.
func (r Ranges) Union(o Ranges) Ranges {
	return joinRanges(append(slices.Clone(r), o...))
}

// Subtract is what r has and o has not.
func (r Ranges) Subtract(o Ranges) Ranges {
	var out Ranges
	for _, a := range r {
		out = append(out, cutRange(a, o)...)
	}
	return out
}

// cutRange removes the sorted ranges o from one range.
func cutRange(a Range, o Ranges) Ranges {
	var out Ranges
	for _, b := range o {
		if b.End < a.Begin || b.Begin > a.End {
			continue
		}
		if b.Begin > a.Begin {
			out = append(out, Range{a.Begin, b.Begin - 1})
		}
		if b.End >= a.End {
			return out
		}
		a.Begin = b.End + 1
	}
	return append(out, a)
}

// Contains says whether r has all of o.
func (r Ranges) Contains(o Ranges) bool { return len(o.Subtract(r)) == 0 }

// String is Mesos' form: "[31000-32000, 40000-40001]".
func (r Ranges) String() string {
	var b strings.Builder
	b.WriteByte('[')
	for i, x := range r {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(strconv.FormatUint(x.Begin, 10))
		b.WriteByte('-')
		b.WriteString(strconv.FormatUint(x.End, 10))
	}
	b.WriteByte(']')
	return b.String()
}
