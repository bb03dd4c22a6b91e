package resources

import (
	"fmt"
	"strconv"
	"strings"
)

// Parse reads Mesos' flag form: "cpus:4;mem:1024;ports:[31000-32000];zone:{a,b}",
// with an optional static reservation: "cpus(prod):2".
func Parse(text string) (Resources, error) {
	var out Resources
	for part := range strings.SplitSeq(text, ";") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		r, err := parseOne(part)
		if err != nil {
			return nil, fmt.Errorf("resources: %q: %w", part, err)
		}
		out = out.Add(r)
	}
	return out, nil
}

func parseOne(part string) (Resource, error) {
	name, value, ok := strings.Cut(part, ":")
	if !ok {
		return Resource{}, fmt.Errorf("want name:value, as in cpus:4")
	}
	r := Resource{Name: strings.TrimSpace(name)}
	if open := strings.IndexByte(r.Name, '('); open >= 0 {
		role, closed := strings.CutSuffix(r.Name[open+1:], ")")
		if !closed || role == "" {
			return r, fmt.Errorf("want name(role):value")
		}
		r.Name = r.Name[:open]
		if role != "*" {
			r.Reservations = []Reservation{{Role: role}}
		}
	}
	if r.Name == "" {
		return r, fmt.Errorf("the name is missing")
	}
	return parseValue(r, strings.TrimSpace(value))
}

func parseValue(r Resource, value string) (Resource, error) {
	switch {
	case strings.HasPrefix(value, "[") && strings.HasSuffix(value, "]"):
		ranges, err := parseRanges(value[1 : len(value)-1])
		r.Kind, r.Ranges = KindRanges, ranges
		return r, err
	case strings.HasPrefix(value, "{") && strings.HasSuffix(value, "}"):
		r.Kind = KindSet
		for item := range strings.SplitSeq(value[1:len(value)-1], ",") {
			if item = strings.TrimSpace(item); item != "" {
				r.Set = unionSet(r.Set, []string{item})
			}
		}
		return r, nil
	}
	f, err := strconv.ParseFloat(value, 64)
	if err != nil {
		return r, fmt.Errorf("%q is neither a number, nor [a-b], nor {x,y}", value)
	}
	r.Scalar, err = FromFloat(f)
	return r, err
}

func parseRanges(text string) (Ranges, error) {
	var in []Range
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		from, to, ok := strings.Cut(item, "-")
		if !ok {
			return nil, fmt.Errorf("%q is no range; want 31000-32000", item)
		}
		begin, err1 := strconv.ParseUint(strings.TrimSpace(from), 10, 64)
		end, err2 := strconv.ParseUint(strings.TrimSpace(to), 10, 64)
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("%q is no range of whole numbers", item)
		}
		in = append(in, Range{begin, end})
	}
	return NewRanges(in...)
}

// String is the form that Parse reads, with "; " between.
func (r Resources) String() string {
	parts := make([]string, len(r))
	for i := range r {
		parts[i] = r[i].String()
	}
	return strings.Join(parts, "; ")
}

// String is the form that Parse reads.
func (r Resource) String() string {
	name := r.Name
	if to := r.ReservedTo(); to != "*" {
		name += "(" + to + ")"
	}
	switch r.Kind {
	case KindRanges:
		return name + ":" + r.Ranges.String()
	case KindSet:
		return name + ":{" + strings.Join(r.Set, ",") + "}"
	default:
		return name + ":" + r.Scalar.String()
	}
}
