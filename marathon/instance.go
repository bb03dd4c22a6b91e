package marathon

import (
	"slices"
	"strings"
	"time"

	"github.com/mesopool/mesopool/task"
)

// Instance is one task of an app, from the launch to the end. The exported
// fields are what is saved.
type Instance struct {
	ID        string // Marathon's instance ID
	TaskID    string
	App       string
	Version   string // the configuration it was launched with
	Role      string
	Agent     string
	Host      string // the agent's host name
	State     task.State
	Staged    time.Time
	Started   time.Time
	Addresses []string
	Network   string
	Ports     []int       // as told to the task
	Published map[int]int `json:",omitempty"` // container port to the port of PublishIP
	PublishIP string      `json:",omitempty"`
	Killing   bool        `json:",omitempty"`
	Lost      time.Time   // when it became unreachable

	killedAt time.Time // when the kill was sent last
	heard    time.Time // when the master last said anything of it
	told     bool      // the master has said something of it since the last start
	healthy  *bool     // what the agent says of its own checks
	checks   map[int]*CheckState
}

// CheckState is how an instance does in one health check.
type CheckState struct {
	Alive        bool
	Known        bool // there was a result
	Failures     int  // consecutive
	FirstSuccess time.Time
	LastSuccess  time.Time
	LastFailure  time.Time
	Cause        string
}

// TaskIDOf builds a task's ID in Marathon's form: the app's path with
// underscores, the instance's UUID, the incarnation.
func TaskIDOf(app, uuid string) (instance, taskID string) {
	flat := strings.ReplaceAll(strings.TrimPrefix(app, "/"), "/", "_")
	instance = flat + ".instance-" + uuid
	return instance, instance + "._app.1"
}

// healthy says whether an instance counts as well: it runs, and all checks
// that the scheduler makes have passed. Without checks, running is well.
func (c *Core) healthyInstance(i *Instance, a *App) bool {
	if i.State != task.Running || i.Killing || i.healthy != nil && !*i.healthy {
		return false
	}
	for n := range a.HealthChecks {
		if a.HealthChecks[n].byScheduler() && (i.checks[n] == nil || !i.checks[n].Alive) {
			return false
		}
	}
	return true
}

// Health is what is known of an instance: nil when there is no check or no
// result yet.
func (i *Instance) Health(a *App) *bool {
	known := i.healthy
	for n := range a.HealthChecks {
		s := i.checks[n]
		if s == nil || !s.Known {
			continue
		}
		if known == nil || *known {
			known = new(s.Alive)
		}
	}
	return known
}

// byScheduler: the agent makes COMMAND checks; we make all others, because
// every task has an address that we can reach.
func (h *HealthCheck) byScheduler() bool { return h.Protocol != "COMMAND" }

// active says whether an instance counts towards the target.
func (i *Instance) active() bool { return !i.Killing && i.Lost.IsZero() }

// victims orders instances by who is to go first: those that do not run yet,
// then the youngest or the oldest.
func victims(in []*Instance, selection string) []*Instance {
	out := slices.Clone(in)
	slices.SortStableFunc(out, func(a, b *Instance) int {
		if d := a.State.Rank() - b.State.Rank(); d != 0 {
			return d
		}
		d := b.Staged.Compare(a.Staged)
		if selection == "OLDEST_FIRST" {
			d = -d
		}
		if d != 0 {
			return d
		}
		return strings.Compare(a.TaskID, b.TaskID)
	})
	return out
}

// Address is where port n of the instance can be reached, "" while unknown.
func (i *Instance) Address(n int) (host string, port int) {
	if n >= len(i.Ports) {
		return "", 0
	}
	port = i.Ports[n]
	if public, ok := i.Published[port]; ok && i.PublishIP != "" {
		return i.PublishIP, public
	}
	if len(i.Addresses) == 0 {
		return "", 0
	}
	return i.Addresses[0], port
}
