package marathon

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// Visit shows the apps that the filter wants, by ID, and copies none of their
// instances: those of the views are the core's own, in no order, and look must
// keep nothing of them unless it calls Keep.
func (c *Core) Visit(now time.Time, want func(*App) bool, look func(*AppView)) {
	var live []*Instance
	for _, id := range slices.Sorted(maps.Keys(c.apps)) {
		a := c.apps[id]
		if a.stopping || want != nil && !want(a.def) {
			continue
		}
		v := c.view(now, a)
		live = live[:0]
		for _, i := range a.instances {
			live = append(live, i)
		}
		v.Instances = live
		look(&v)
	}
}

// Keep makes of a view that is shown by Visit one of its own, with copies of the
// instances by task ID.
func (v *AppView) Keep() {
	own := slices.Clone(v.Instances)
	slices.SortFunc(own, func(a, b *Instance) int { return strings.Compare(a.TaskID, b.TaskID) })
	for n, i := range own {
		own[n] = i.clone()
	}
	v.Instances = own
}
