package master

import (
	"fmt"
	"slices"

	"github.com/mesopool/mesopool/resources"
)

// together cuts launches into those that are one: a task on its own, or a group.
func together(launches []Launch) (first, rest []Launch) {
	n := 1
	for n < len(launches) && launches[0].Group != "" && launches[n].Group == launches[0].Group {
		n++
	}
	return launches[:n], launches[n:]
}

// refuseGroup: one task that is wrong is enough to refuse all of its group
// (master/validation.cpp, task::group::validate).
func (c *Core) refuseGroup(f *framework, a *agent, group []Launch, pool resources.Resources) string {
	for i := range group {
		l := &group[i]
		why := c.refuseLaunch(f, a, l)
		if why == "" && slices.ContainsFunc(group[:i], func(other Launch) bool { return other.ID == l.ID }) {
			why = "Task has duplicate ID: " + l.ID
		}
		switch {
		case why != "" && l.Unauthorized:
			return why
		case why != "":
			return "Task '" + l.ID + "' is invalid: " + why
		}
	}
	first := &group[0]
	switch total := a.needs(f, group); {
	case first.GroupInvalid != "":
		return first.GroupInvalid
	case a.clashes(f, first):
		return fmt.Sprintf("ExecutorInfo is not compatible with existing ExecutorInfo with same ExecutorID '%s'", first.Executor)
	case !pool.Contains(total):
		return fmt.Sprintf("Total resources %v required by task group and its executor are more than available %v", total, pool)
	}
	return ""
}
