package marathon

import (
	"fmt"
	"slices"
	"time"

	"github.com/mesopool/mesopool/task"
)

// HealthBrake keeps health checks from ending an app when it is rather they that
// are in trouble: a network, or a service that all instances need. It is ours;
// without it every instance that fails its checks is replaced, as in Marathon.
type HealthBrake struct {
	// MaxUnhealthy is the part of the running instances, 0 to 1, above which none is
	// ended for its health; nil: no bound.
	MaxUnhealthy *float64 `json:"maxUnhealthy,omitempty"`
	// MaxKillsPerMinute bounds how many are ended for it; nil: no bound.
	MaxKillsPerMinute *int `json:"maxKillsPerMinute,omitempty"`
}

// brakeWindow is what MaxKillsPerMinute counts over.
const brakeWindow = time.Minute

func (c *checker) brake(b *HealthBrake) {
	if b == nil {
		return
	}
	c.must(b.MaxUnhealthy == nil || *b.MaxUnhealthy >= 0 && *b.MaxUnhealthy <= 1, "/healthBrake/maxUnhealthy", "got %v, expected 0 to 1", derefFloat(b.MaxUnhealthy))
	c.must(deref(b.MaxKillsPerMinute) >= 0, "/healthBrake/maxKillsPerMinute", "got %d, expected 0 or more", deref(b.MaxKillsPerMinute))
}

func derefFloat(p *float64) float64 {
	if p == nil {
		return 0
	}
	return *p
}

// braked says in a sentence why no instance of the app is ended for its health
// now, "" when one may be.
func (a *app) braked(now time.Time) string {
	b := a.def.HealthBrake
	if b == nil {
		return ""
	}
	running, unhealthy := a.illness()
	if b.MaxUnhealthy != nil && float64(unhealthy) > *b.MaxUnhealthy*float64(running) {
		return fmt.Sprintf("%d of %d instances fail their health checks; none is ended for it (healthBrake)", unhealthy, running)
	}
	if n := a.endedLately(now); b.MaxKillsPerMinute != nil && n >= *b.MaxKillsPerMinute && unhealthy > 0 {
		return fmt.Sprintf("%d instances were ended for their health within a minute; no more are for now (healthBrake)", n)
	}
	return ""
}

func (a *app) illness() (running, unhealthy int) {
	for _, i := range a.instances {
		if i.Killing || i.State != task.Running {
			continue
		}
		running++
		if h := i.Health(); h != nil && !*h {
			unhealthy++
		}
	}
	return running, unhealthy
}

func (a *app) endedLately(now time.Time) int {
	a.ended = slices.DeleteFunc(a.ended, func(at time.Time) bool { return now.Sub(at) >= brakeWindow })
	return len(a.ended)
}
