package marathon

import (
	"net"
	"slices"
	"strconv"
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
	Host      string       // the agent's host name
	Region    string       `json:",omitempty"`
	Zone      string       `json:",omitempty"`
	Traits    []task.Label `json:",omitempty"` // the agent's attributes
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
	Unready   bool        `json:",omitempty"` // has yet to pass its readiness check
	Residence string      `json:",omitempty"` // where it has its volumes
	Parts     []*Part     `json:",omitempty"` // of a pod: its tasks; TaskID is no task's then

	def       *App      // what it was launched with
	inactive  bool      // lost for so long that it is replaced
	counted   tally     // how it is counted in its app's
	killedAt  time.Time // when the kill was sent last
	heard     time.Time // when the master last said anything of it
	told      bool      // the master has said something of it since the last start
	healthy   *bool     // what the agent says of its own checks
	checks    map[int]*CheckState
	readying  bool             // a timer for the next readiness check runs
	readySent time.Time        // when the one without an answer was made; zero: none
	readiness *ReadinessResult // never changed, only replaced
}

// CheckState is how an instance does in one health check.
type CheckState struct {
	Alive        bool
	Known        bool      // there was a result
	Failures     int       // consecutive
	running      bool      // a timer for the next check runs
	sent         time.Time // when the check without an answer was made; zero: none
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

// fitness is whether an instance can serve.
type fitness uint8

const (
	untold fitness = iota // nothing is known yet
	fit
	unfit
)

// fitness: an instance is fit when it runs, all its checks have passed, and it
// is ready; without checks, running is enough.
func (i *Instance) fitness() fitness {
	if i.State != task.Running {
		return unfit
	}
	out := fit
	if i.healthy != nil && !*i.healthy {
		return unfit
	}
	if i.healthy == nil && i.checkedParts() {
		out = untold
	}
	for n := range i.def.HealthChecks {
		known, well := i.result(n)
		if known && !well {
			return unfit
		}
		if !known {
			out = untold
		}
	}
	if i.Unready {
		return untold
	}
	return out
}

// Serves says whether an instance runs, is well and ready.
func (i *Instance) Serves() bool { return i.fitness() == fit }

// result is what is known of check n.
func (i *Instance) result(n int) (known, well bool) {
	if !i.def.HealthChecks[n].byScheduler() {
		return i.healthy != nil, i.healthy != nil && *i.healthy
	}
	s := i.checks[n]
	return s != nil && s.Known, s != nil && s.Alive
}

// Health is what is known of an instance: nil when there is no check or no
// result yet.
func (i *Instance) Health() *bool {
	known := i.healthy
	if i.def == nil {
		return known
	}
	for n := range i.def.HealthChecks {
		if has, well := i.result(n); has && (known == nil || *known) {
			known = new(well)
		}
	}
	return known
}

// Definition is what the instance was launched with.
func (i *Instance) Definition() *App { return i.def }

// byScheduler: the agent makes COMMAND checks; we make all others, because
// every task has an address that we can reach.
func (h *HealthCheck) byScheduler() bool { return h.Protocol != "COMMAND" }

// victims sorts instances by who is to go first: the unreachable, those that do
// not run yet, then the youngest or the oldest.
func victims(out []*Instance, selection string) []*Instance {
	rank := func(i *Instance) int {
		if i.State == task.Unreachable {
			return -1
		}
		return i.State.Rank()
	}
	slices.SortFunc(out, func(a, b *Instance) int {
		if d := rank(a) - rank(b); d != 0 {
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

// inside is where a port of the instance is in the cluster's own network, ""
// while unknown; public is where it is published for the outside, "" when it is
// not. Whoever checks it may reach only one of the two.
func (i *Instance) inside(port int) string {
	if len(i.Addresses) == 0 {
		return ""
	}
	return net.JoinHostPort(i.Addresses[0], strconv.Itoa(port))
}

func (i *Instance) public(port int) string {
	if p, ok := i.Published[port]; ok && i.PublishIP != "" {
		return net.JoinHostPort(i.PublishIP, strconv.Itoa(p))
	}
	return ""
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
