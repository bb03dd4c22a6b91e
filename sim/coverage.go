package sim

import (
	"fmt"
	"strings"
	"sync"

	"github.com/mesopool/mesopool/provider"
)

// Coverage counts in which states of the cluster which faults have come. It may
// be used concurrently.
type Coverage struct {
	mu    sync.Mutex
	pairs map[string]map[string]int
}

func (c *Coverage) note(w *World, kind string) {
	states := w.states()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pairs == nil {
		c.pairs = map[string]map[string]int{}
	}
	if c.pairs[kind] == nil {
		c.pairs[kind] = map[string]int{}
	}
	for _, s := range states {
		c.pairs[kind][s]++
	}
}

// coverStates are the columns of the report.
var coverStates = []string{
	"staging", "starting", "running", "killing", "unreachable", "deploying", "pending", "stopped", "orphans", "agent-away", "marathon-away", "master-down", "cut",
}

// states names what of coverStates there is now.
func (w *World) states() (out []string) {
	has := map[string]bool{"master-down": !w.master.up, "marathon-away": !w.marathon.up || w.marathon.session == nil}
	for _, x := range w.wires {
		has["cut"] = has["cut"] || x.cut
	}
	for _, a := range w.agents {
		has["agent-away"] = has["agent-away"] || !a.up || !a.registered
		has["stopped"] = has["stopped"] || len(a.dc.containers(provider.StateExited)) > 0
		if a.up {
			r := a.core.Roster()
			has["orphans"] = has["orphans"] || r.Orphans > 0
			for _, t := range r.Tasks {
				has["pending"] = has["pending"] || t.Pending != nil
			}
		}
	}
	if w.marathon.up {
		has["deploying"] = len(w.marathon.core.Deployments()) > 0
		for _, v := range w.marathon.core.Apps(w.now, nil) {
			for _, i := range v.Instances {
				has[strings.ToLower(strings.TrimPrefix(i.State.String(), "TASK_"))] = true
				has["killing"] = has["killing"] || i.Killing
			}
		}
	}
	for _, s := range coverStates {
		if has[s] {
			out = append(out, s)
		}
	}
	return out
}

// String is a table of kinds by states, and how many pairs were reached.
func (c *Coverage) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "%-12s", "")
	for _, s := range coverStates {
		fmt.Fprintf(&b, " %13s", s)
	}
	reached, all := 0, 0
	for _, kind := range sortedKeys(actions) {
		fmt.Fprintf(&b, "\n%-12s", kind)
		for _, s := range coverStates {
			n := c.pairs[kind][s]
			fmt.Fprintf(&b, " %13d", n)
			all++
			if n > 0 {
				reached++
			}
		}
	}
	fmt.Fprintf(&b, "\n%d of %d pairs reached\n", reached, all)
	return b.String()
}

// Reached is how many pairs were reached, of how many.
func (c *Coverage) Reached() (reached, all int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, states := range c.pairs {
		reached += len(states)
	}
	return reached, len(actions) * len(coverStates)
}
