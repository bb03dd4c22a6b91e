package master

import (
	"testing"

	"github.com/mesopool/mesopool/task"
)

func groupOf(group, executor, origin string, ids ...string) (out []Launch) {
	for _, id := range ids {
		l := customOf(id, executor, "cpus:1", origin)
		l.Group = group
		out = append(out, l)
	}
	return out
}

// used is what the agent's tasks and executors take.
func (s *script) used() string { return s.core.agents["m-S0"].used.Scalars().String() }

// The executor of a group is charged once, for all that it runs, until the agent
// tells its end.
func TestGroups(t *testing.T) {
	s := small(t)
	expect(t, "a group", s.do(Accept{Framework: "m-0000", Offers: []string{"m-O0"}, Launches: groupOf("g", "e", "info", "a", "b")}),
		"m-S0 < run a+b on a new info", "m-0000 < offers m-O1[m-S0 cpus:1; mem:4064]")
	expect(t, "one more, on the same", s.do(Accept{Framework: "m-0000", Offers: []string{"m-O1"}, Launches: groupOf("g", "e", "info", "c")}),
		"m-S0 < run c on info", "m-0000 < offers m-O2[m-S0 mem:4064]")
	s.do(updateOf("m-S0", "m-0000", "a", task.Failed))
	if got := s.used(); got != "cpus:3; mem:32" {
		t.Errorf("used: %s", got)
	}
	for range 2 {
		s.do(ExitedExecutor{Agent: "m-S0", Framework: "m-0000", Executor: "e"})
		if got := s.used(); got != "cpus:2" {
			t.Errorf("used: %s", got)
		}
	}
}

func TestGroupsAreRefusedWhole(t *testing.T) {
	wrong, unfit := groupOf("g", "e", "info", "a", "b"), groupOf("g", "e", "info", "a", "b")
	wrong[1].Invalid, unfit[0].GroupInvalid = "no", "no"
	for name, x := range map[string]struct {
		before, launches []Launch
		want             string
	}{
		"a task is wrong":  {nil, wrong, "Task 'b' is invalid: no"},
		"the group is":     {nil, unfit, "no"},
		"twice":            {nil, groupOf("g", "e", "info", "a", "a"), "Task 'a' is invalid: Task has duplicate ID: a"},
		"known already":    {groupOf("f", "e", "info", "a"), groupOf("g", "e", "info", "b", "a"), "Task 'a' is invalid: Task has duplicate ID: a"},
		"too large":        {nil, groupOf("g", "e", "info", "a", "b", "c", "d"), "Total resources cpus:5; mem:32 required by task group and its executor are more than available cpus:4; mem:4096"},
		"another executor": {groupOf("f", "e", "info", "z"), groupOf("g", "e", "other", "a"), "ExecutorInfo is not compatible with existing ExecutorInfo with same ExecutorID 'e'"},
	} {
		t.Run(name, func(t *testing.T) {
			s := small(t)
			n := 0
			for _, fx := range s.do(Accept{Framework: "m-0000", Offers: []string{"m-O0"}, Launches: append(x.before, x.launches...)}) {
				to, ok := fx.(ToFramework)
				if !ok {
					continue
				}
				if u, ok := to.Event.(Update); ok {
					n++
					if u.Status.State != task.Error || u.Status.Reason != task.ReasonTaskGroupInvalid || u.Status.Message != x.want {
						t.Errorf("%+v", u)
					}
				}
			}
			if n != len(x.launches) {
				t.Errorf("%d of %d tasks are refused", n, len(x.launches))
			}
			if got := len(s.core.agents["m-S0"].tasks); got != len(x.before) {
				t.Errorf("%d tasks run", got)
			}
		})
	}
}
