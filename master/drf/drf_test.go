package drf

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/mesopool/mesopool/resources"
)

func amounts(cpus, mem int64) resources.Scalars {
	return resources.NewScalars(resources.Scalar{Name: "cpus", Amount: resources.Whole(cpus)}, resources.Scalar{Name: "mem", Amount: resources.Whole(mem)})
}

// The example of the DRF paper (Ghodsi and others, NSDI 2011, section 4.1): 9
// cpus and 18 GB; A wants <1, 4>, B wants <3, 1>: A ends with 3 tasks, B with 2.
func TestPaperExample(t *testing.T) {
	var s Sorter
	s.SetTotal(amounts(9, 18))
	s.Add("a", 1)
	s.Add("b", 1)
	wants := map[string]resources.Scalars{"a": amounts(1, 4), "b": amounts(3, 1)}
	tasks := map[string]int{}
	free := amounts(9, 18)
	for range 10 {
		first := s.Sort()[0]
		if !free.Contains(wants[first]) {
			break
		}
		free = free.Sub(wants[first])
		s.Allocate(first, wants[first])
		tasks[first]++
	}
	if d := cmp.Diff(map[string]int{"a": 3, "b": 2}, tasks); d != "" {
		t.Errorf("tasks (-want +got):\n%s", d)
	}
}

func TestWeightsAndTies(t *testing.T) {
	var s Sorter
	s.SetTotal(amounts(10, 10))
	for _, n := range []string{"c", "b", "a"} {
		s.Add(n, 1)
	}
	if d := cmp.Diff([]string{"a", "b", "c"}, s.Sort()); d != "" {
		t.Error(d)
	}
	s.Allocate("a", amounts(2, 0))
	s.Allocate("b", amounts(2, 0))
	s.Add("b", 4)
	if d := cmp.Diff([]string{"c", "b", "a"}, s.Sort()); d != "" {
		t.Error(d)
	}
	s.Release("a", amounts(2, 0))
	if d := cmp.Diff([]string{"c", "a", "b"}, s.Sort()); d != "" {
		t.Errorf("a gave all back but was served once, c never:\n%s", d)
	}
}

func TestLowestShareFirst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s Sorter
		s.SetTotal(amounts(100, 100))
		n := rapid.IntRange(1, 6).Draw(t, "clients")
		for i := range n {
			s.Add(fmt.Sprint(i), float64(rapid.IntRange(1, 4).Draw(t, "weight")))
		}
		for range rapid.IntRange(0, 30).Draw(t, "steps") {
			name := fmt.Sprint(rapid.IntRange(0, n-1).Draw(t, "client"))
			amount := amounts(rapid.Int64Range(0, 5).Draw(t, "cpus"), rapid.Int64Range(0, 5).Draw(t, "mem"))
			if s.Allocated(name).Contains(amount) && rapid.Bool().Draw(t, "release") {
				s.Release(name, amount)
			} else {
				s.Allocate(name, amount)
			}
		}
		order := s.Sort()
		for i := 1; i < len(order); i++ {
			if s.Share(order[i-1]) > s.Share(order[i]) {
				t.Fatalf("%s (%v) before %s (%v)", order[i-1], s.Share(order[i-1]), order[i], s.Share(order[i]))
			}
		}
	})
}
