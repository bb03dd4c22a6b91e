package marathon

import (
	"fmt"

	"github.com/mesopool/mesopool/task"
)

// HealthBrake says how many instances may be missing at once because their
// health checks failed. Without one each is killed when its checks say so, be it
// all at the same time, as when something fails that they all depend on.
type HealthBrake struct {
	MaxUnavailable int `json:"maxUnavailable"`
}

func (c *checker) brake(b *HealthBrake) {
	if b != nil {
		c.must(b.MaxUnavailable > 0, "/healthBrake/maxUnavailable", "got %d, expected 1 or more", b.MaxUnavailable)
	}
}

// braked says whether one more unhealthy instance has to wait for its end. Those
// that are killed and those that have yet to show how they are count as missing;
// one that is unhealthy stands, and may still serve some.
func (a *app) braked() bool {
	if a.def.HealthBrake == nil || a.stopping {
		return false
	}
	standing := 0
	for _, i := range a.instances {
		if !i.Killing && i.State == task.Running && i.fitness() != untold {
			standing++
		}
	}
	return a.target()-standing >= a.def.HealthBrake.MaxUnavailable
}

// overdue counts the instances that the brake keeps.
func (a *app) overdue() int {
	n := 0
	for _, i := range a.instances {
		if i.overdue && !i.Killing {
			n++
		}
	}
	return n
}

func (a *app) brakeNote() []string {
	n := a.overdue()
	if n == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%d unhealthy instances wait to be replaced: healthBrake lets %d be missing at a time", n, a.def.HealthBrake.MaxUnavailable)}
}
