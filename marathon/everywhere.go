package marathon

import (
	"time"
)

// An app that runs everywhere has one instance on each agent, also on those that
// come later. What agents there are is learned from their offers, so offers are
// never suppressed while there is such an app.

// forgotten is how long an agent counts that offers nothing and on which nothing
// of ours runs.
const forgotten = 10 * time.Minute

// seeAgents notes who has offered something.
func (c *Core) seeAgents(now time.Time, pools []*pool) {
	for _, p := range pools {
		role := p.first.Role
		if c.agents[p.first.Agent] == nil {
			c.agents[p.first.Agent] = map[string]time.Time{}
			c.touchEverywhere()
		} else if _, known := c.agents[p.first.Agent][role]; !known {
			c.touchEverywhere()
		}
		c.agents[p.first.Agent][role] = now
	}
	for id, roles := range c.agents {
		for role, at := range roles {
			if now.Sub(at) >= forgotten {
				delete(roles, role)
				c.touchEverywhere()
			}
		}
		if len(roles) == 0 {
			delete(c.agents, id)
		}
	}
}

// loseAgent forgets an agent that cannot be reached.
func (c *Core) loseAgent(id string) {
	if c.agents[id] != nil {
		delete(c.agents, id)
		c.touchEverywhere()
	}
}

func (c *Core) touchEverywhere() {
	for id := range c.wide {
		c.changed[id] = true
	}
}

// noteWide notes whether an app runs everywhere.
func (c *Core) noteWide(a *app) {
	if a.def.Everywhere && !a.stopping {
		c.wide[a.def.ID] = true
		return
	}
	delete(c.wide, a.def.ID)
}

// looksAround says whether offers are wanted for what they tell of agents.
func (c *Core) looksAround() bool { return c.measuring.astray || len(c.wide) > 0 }

// places are the agents that an app is to be on: those that offer to its role,
// and those where it runs.
func (a *app) places() int {
	set := map[string]bool{}
	for id, roles := range a.core.agents {
		for role := range roles {
			set[id] = set[id] || a.def.acceptsRole(role)
		}
	}
	for _, i := range a.instances {
		if !i.inactive && !i.Killing {
			set[i.Agent] = true
		}
	}
	n := 0
	for _, is := range set {
		if is {
			n++
		}
	}
	return n
}

// isOn says whether an instance of the app's configuration is on an agent
// already.
func (a *app) isOn(agent string) bool {
	for _, i := range a.instances {
		if i.Agent == agent && i.Version == a.def.ConfigVersion() {
			return true
		}
	}
	return false
}

func (c *checker) everywhere(a *App) {
	if !a.Everywhere {
		return
	}
	c.must(a.Instances <= 1, "/instances", "got %d, expected 1 or 0: an app that runs everywhere has one instance on each agent", a.Instances)
	c.must(!a.Resident() && !a.RunOnce && a.Canary == nil, "/everywhere", "cannot be had with persistent volumes, runOnce or canary")
}
