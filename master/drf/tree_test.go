package drf

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/mesopool/mesopool/resources"
)

func cpus(n int64) resources.Scalars {
	return resources.NewScalars(resources.Scalar{Name: "cpus", Amount: resources.Whole(n)})
}

func TestTreeOrder(t *testing.T) {
	var tr Tree
	tr.SetTotal(cpus(100))
	for _, p := range []string{"a", "a/x", "a/y", "b/z", "c"} {
		tr.Add(p)
	}
	check := func(what string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, tr.Sort()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	check("nobody has anything", "a", "a/x", "a/y", "b/z", "c")
	tr.Allocate("a/x", cpus(10))
	check("all of a goes back", "b/z", "c", "a", "a/y", "a/x")
	tr.Allocate("c", cpus(20))
	check("c has more", "b/z", "a", "a/y", "a/x", "c")
	tr.SetWeight("c", 4)
	check("but weighs more", "b/z", "c", "a", "a/y", "a/x")
	tr.Release("a/x", cpus(10))
	check("a has nothing", "b/z", "a", "a/y", "a/x", "c")
	tr.Remove("a")
	check("a is no client", "b/z", "a/y", "a/x", "c")
	tr.Remove("b/z")
	check("b is gone with its only child", "a/y", "a/x", "c")
	if tr.find("b") != nil {
		t.Error("an empty node is left")
	}
}

// TestTreeProperties: every node has what its clients below have, and of two
// children the one with the lower share comes first, with all below it.
func TestTreeProperties(t *testing.T) {
	paths := []string{"a", "a/b", "a/b/c", "a/d", "e", "e/f", "g/h", "g/i/j"}
	rapid.Check(t, func(rt *rapid.T) {
		var tr Tree
		tr.SetTotal(cpus(1000))
		has := map[string]int64{}
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			p := rapid.SampledFrom(paths).Draw(rt, "path")
			_, known := has[p]
			switch n := int64(rapid.IntRange(1, 20).Draw(rt, "amount")); rapid.IntRange(0, 4).Draw(rt, "what") {
			case 0:
				tr.Add(p)
				has[p] += 0
			case 1:
				tr.Remove(p)
				delete(has, p)
			case 2:
				tr.SetWeight(p, float64(n)/4)
			case 3:
				if known {
					tr.Allocate(p, cpus(n))
					has[p] += n
				}
			default:
				if n = min(n, has[p]); known && n > 0 {
					tr.Release(p, cpus(n))
					has[p] -= n
				}
			}
			checkTree(rt, &tr, has)
		}
	})
}

func checkTree(t *rapid.T, tr *Tree, has map[string]int64) {
	sums := map[string]int64{}
	for p, n := range has {
		for end := range len(p) + 1 {
			if end == len(p) || p[end] == '/' {
				sums[p[:end]] += n
			}
		}
	}
	order := tr.Sort()
	if len(order) != len(has) {
		t.Fatalf("%v are sorted of %v", order, has)
	}
	first := map[string]int{}
	for i, p := range order {
		if _, ok := has[p]; !ok {
			t.Fatalf("%s is no client", p)
		}
		for end := range len(p) + 1 {
			if end == len(p) || p[end] == '/' {
				if at, seen := first[p[:end]]; seen && !strings.HasPrefix(order[i-1], p[:end]) {
					t.Fatalf("%s is torn apart in %v (at %d)", p[:end], order, at)
				} else if !seen {
					first[p[:end]] = i
				}
			}
		}
	}
	for p, n := range sums {
		if got := tr.AllocatedBelow(p).Get("cpus"); got != resources.Whole(n) {
			t.Fatalf("%s has %v, its clients %d", p, got, n)
		}
	}
	for a := range sums {
		for b := range sums {
			if up, _, _ := cutLast(a); a != b && !strings.HasPrefix(a, b+"/") && fmt.Sprint(cutParent(b)) == up && first[a] < first[b] && tr.Share(a) > tr.Share(b) {
				t.Fatalf("%s (%v) comes before %s (%v) in %v", a, tr.Share(a), b, tr.Share(b), order)
			}
		}
	}
	if once := slices.Compact(slices.Sorted(slices.Values(order))); len(once) != len(order) {
		t.Fatalf("a path is there twice in %v", order)
	}
}

func cutParent(p string) string {
	up, _, _ := cutLast(p)
	return up
}
