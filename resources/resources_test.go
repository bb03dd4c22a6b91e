package resources

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestFromFloatRoundsAsMesos(t *testing.T) {
	cases := []struct {
		in   float64
		want Milli
		text string
	}{
		{0.1, 100, "0.1"}, {0.0005, 1, "0.001"}, {0.0004, 0, "0"}, {1.0015, 1002, "1.002"}, {4, 4000, "4"}, {0.0625, 63, "0.063"},
	}
	for _, c := range cases {
		got, err := FromFloat(c.in)
		if err != nil || got != c.want || got.String() != c.text {
			t.Errorf("FromFloat(%v) = %d %q, %v; want %d %q", c.in, got, got, err, c.want, c.text)
		}
	}
}

func TestParse(t *testing.T) {
	r, err := Parse("cpus:4;mem:1024.5; ports:[31000-32000,32001-32005] ;zone:{b,a};cpus(prod):2;cpus:1")
	if err != nil {
		t.Fatal(err)
	}
	want := "cpus:5; mem:1024.5; ports:[31000-32005]; zone:{a,b}; cpus(prod):2"
	if r.String() != want {
		t.Errorf("got  %s\nwant %s", r, want)
	}
	again, err := Parse(r.String())
	if err != nil || !again.Equal(r) {
		t.Errorf("String does not parse back: %v, %v", again, err)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{"cpus", "cpus:-1", "cpus:NaN", "cpus:x", ":4", "ports:[5-4]", "ports:[a-b]", "cpus(:4", "cpus():4", "mem:1e300"} {
		if r, err := Parse(text); err == nil {
			t.Errorf("Parse(%q) = %v, want an error", text, r)
		}
	}
}

func TestMarksKeepAmountsApart(t *testing.T) {
	reserved := Resource{Name: "cpus", Scalar: 2000, Reservations: []Reservation{{Role: "prod"}}}
	volume := Resource{Name: "disk", Scalar: 5000, Disk: &Disk{PersistenceID: "v"}}
	r := NewScalar("cpus", 1000).Add(reserved, volume)
	if r.Contains(NewScalar("cpus", 1001)) {
		t.Error("a reserved amount counted as unreserved")
	}
	part := volume
	part.Scalar = 1000
	if r.Contains(Resources{part}) {
		t.Error("a part of a persistent volume was contained")
	}
	if got := r.Amount("cpus"); got != 3000 {
		t.Errorf("Amount = %v", got)
	}
	if got := r.ReservableTo("prod/web").Amount("cpus"); got != 3000 {
		t.Errorf("prod/web may be offered %v cpus, want 3", got)
	}
	if got := r.ReservableTo("dev").Amount("cpus"); got != 1000 {
		t.Errorf("dev may be offered %v cpus, want 1", got)
	}
}

func drawResources(t *rapid.T, label string) Resources {
	var out Resources
	for range rapid.IntRange(0, 6).Draw(t, label+" n") {
		r := Resource{Name: rapid.SampledFrom([]string{"cpus", "mem", "disk"}).Draw(t, "name")}
		switch rapid.IntRange(0, 3).Draw(t, "kind") {
		case 0:
			r.Name, r.Kind = "ports", KindRanges
			begin := rapid.Uint64Range(0, 50).Draw(t, "begin")
			r.Ranges = Ranges{{begin, begin + rapid.Uint64Range(0, 10).Draw(t, "len")}}
		case 1:
			r.Reservations = []Reservation{{Role: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "role")}}
			fallthrough
		default:
			r.Scalar = Milli(rapid.Int64Range(0, 5000).Draw(t, "amount"))
		}
		out = out.Add(r)
	}
	return out
}

func TestAddThenSubIsNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawResources(t, "a"), drawResources(t, "b")
		sum := a.Add(b...)
		if !sum.Contains(a) || !sum.Contains(b) {
			t.Fatalf("%v + %v = %v lacks a part", a, b, sum)
		}
		if d := cmp.Diff(a.Scalars().Add(b.Scalars()), sum.Scalars()); d != "" {
			t.Fatalf("scalars are not conserved:\n%s", d)
		}
		left := sum.Sub(b...)
		if !a.Scalars().Contains(left.Scalars()) || !left.Scalars().Contains(a.Scalars()) {
			t.Fatalf("(%v + %v) - b = %v", a, b, left)
		}
		if len(sum.Sub(sum...)) != 0 {
			t.Fatalf("x - x = %v", sum.Sub(sum...))
		}
	})
}

func TestRangesAgreeWithSets(t *testing.T) {
	members := func(r Ranges) map[uint64]bool {
		m := map[uint64]bool{}
		for _, x := range r {
			for i := x.Begin; i <= x.End; i++ {
				m[i] = true
			}
		}
		return m
	}
	draw := func(t *rapid.T) Ranges {
		var in []Range
		for range rapid.IntRange(0, 5).Draw(t, "n") {
			b := rapid.Uint64Range(0, 40).Draw(t, "b")
			in = append(in, Range{b, b + rapid.Uint64Range(0, 8).Draw(t, "l")})
		}
		r, err := NewRanges(in...)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := draw(t), draw(t)
		union, diff := members(a.Union(b)), members(a.Subtract(b))
		contains := true
		for i := uint64(0); i < 60; i++ {
			inA, inB := members(a)[i], members(b)[i]
			if union[i] != (inA || inB) || diff[i] != (inA && !inB) {
				t.Fatalf("%v and %v disagree on %d: union %v, difference %v", a, b, i, a.Union(b), a.Subtract(b))
			}
			contains = contains && (inA || !inB)
		}
		if a.Contains(b) != contains {
			t.Fatalf("%v contains %v: %v", a, b, a.Contains(b))
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add("cpus:4;mem:1024;ports:[1-2]")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := Parse(text)
		if err != nil {
			return
		}
		for i := range r {
			if r[i].empty() {
				t.Errorf("Parse(%q) kept an empty amount: %v", text, r)
			}
		}
	})
}
