package marathon

import (
	"maps"
	"slices"
	"time"

	"github.com/mesopool/mesopool/marathon/autoscale"
)

type (
	// Measure asks what instances of autoscaled apps use, and is answered with
	// Measured, whatever comes of it.
	Measure struct {
		Round     int
		Framework string           // whose tasks they are
		Agents    []AgentToMeasure // by ID
		Counters  []CounterToRead  // by task ID
	}

	// AgentToMeasure is an agent that tells what its containers use, and the tasks
	// there that are asked about.
	AgentToMeasure struct {
		ID, URL  string
		Tasks    map[string]bool
		Prefixes []string // with which their IDs begin
	}

	// CounterToRead is a counter that an instance tells.
	CounterToRead struct {
		TaskID  string
		Address string // host:port in the cluster's network
		Public  string // host:port for the outside, "" when it is not published
		Path    string
		Metric  string
	}

	// Measured is what has come of a Measure. What it says nothing of was not
	// measured.
	Measured struct {
		Round    int
		Usage    map[string]TaskUsage       // by task
		Requests map[string]autoscale.Count // by task, since its start
		Failed   map[string]string          // why not, by agent and by task
	}

	// TaskUsage is what a container uses; nil: nobody knows.
	TaskUsage struct {
		At  time.Time // of the agent's clock
		CPU *float64  // seconds since its start
		Mem *float64  // bytes
	}

	// AgentAddress is where an agent answers.
	AgentAddress struct{ ID, URL string }
)

func (Measure) effect() {}
func (Measured) input() {}

// measuring is what the core needs to measure instances of autoscaled apps.
// Where agents answer is learned from their offers; the addresses that are needed
// are saved, as an agent that is full offers nothing.
type measuring struct {
	on      bool              // a timer runs
	round   int               // the last one
	asked   time.Time         // it, while it has no answer; else zero
	apps    []string          // of it
	tasks   map[string]bool   // of it
	seen    map[string]string // agents' URLs, by ID
	saved   map[string]string // those of them that are in the store
	astray  bool              // some agent that is needed does not answer, or nobody knows where
	counted MeasureCounts
}

// MeasureCounts count what measuring has come to since the start.
type MeasureCounts struct {
	Rounds   int // of measuring
	Failures int // agents and instances that did not answer, or not well
	Ups      int // decisions for more instances
	Downs    int
}

// MeasureCounts returns the counts.
func (c *Core) MeasureCounts() MeasureCounts { return c.measuring.counted }

// lateMeasure is when a round without an answer is given up.
const lateMeasure = time.Minute

// mostSeen bounds the agents whose addresses are remembered without need.
const mostSeen = 1 << 16

// seeAddresses notes where agents answer.
func (c *Core) seeAddresses(pools []*pool) {
	m := &c.measuring
	for _, p := range pools {
		if p.first.URL == "" {
			continue
		}
		if len(m.seen) >= mostSeen && m.seen[p.first.Agent] == "" {
			m.seen = maps.Clone(m.saved)
		}
		m.seen[p.first.Agent] = p.first.URL
	}
}

// recoverMeasuring takes up the addresses that were saved.
func (c *Core) recoverMeasuring(now time.Time, known []*AgentAddress) {
	for _, a := range known {
		c.measuring.seen[a.ID], c.measuring.saved[a.ID] = a.URL, a.URL
	}
	for _, id := range slices.Sorted(maps.Keys(c.apps)) {
		c.apps[id].rescale(now, nil)
	}
	c.keepMeasuring(now)
}

// keepMeasuring sees to it that a timer runs while there is something to measure,
// or to forget.
func (c *Core) keepMeasuring(now time.Time) {
	if m := &c.measuring; !m.on && (c.autoscales() || len(m.saved) > 0) {
		m.on = true
		c.timers.Add(now.Add(c.cfg.MeasureEach), timer{kind: timerMeasure})
	}
}

func (c *Core) autoscales() bool {
	for _, a := range c.apps {
		if a.scaling != nil && !a.stopping {
			return true
		}
	}
	return false
}

// measure begins a round, unless the last one goes on.
func (c *Core) measure(now time.Time, fx []Effect) []Effect {
	m := &c.measuring
	m.on = false
	if m.asked.IsZero() || now.Sub(m.asked) >= lateMeasure {
		e := c.nextRound()
		fx = c.saveAddresses(&e, fx)
		m.asked = time.Time{}
		if len(m.apps) > 0 {
			m.asked = now
			m.counted.Rounds++
			fx = append(fx, e)
		}
	}
	c.keepMeasuring(now)
	return fx
}

// nextRound asks for all that can be measured now.
func (c *Core) nextRound() Measure {
	m := &c.measuring
	m.round++
	m.apps, m.tasks = nil, map[string]bool{}
	out := Measure{Round: m.round, Framework: c.frameworkID}
	agents := map[string]*AgentToMeasure{}
	for _, id := range slices.Sorted(maps.Keys(c.apps)) {
		a := c.apps[id]
		if !a.scales() {
			continue
		}
		m.apps = append(m.apps, id)
		for _, i := range a.measurable() {
			m.tasks[i.TaskID] = true
			if s := a.def.Autoscale; s.CPU > 0 || s.Mem > 0 {
				c.askAgent(agents, i)
			}
			if r := a.def.Autoscale.Requests; r != nil {
				out.Counters = append(out.Counters, i.counter(r)...)
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(agents)) {
		out.Agents = append(out.Agents, *agents[id])
	}
	return out
}

func (c *Core) askAgent(agents map[string]*AgentToMeasure, i *Instance) {
	url := c.measuring.seen[i.Agent]
	if url == "" {
		return
	}
	a := agents[i.Agent]
	if a == nil {
		a = &AgentToMeasure{ID: i.Agent, URL: url, Tasks: map[string]bool{}}
		agents[i.Agent] = a
	}
	a.Tasks[i.TaskID] = true
	app, _ := TaskIDOf(i.App, "")
	if n := len(a.Prefixes); n == 0 || a.Prefixes[n-1] != app { // apps come one after the other
		a.Prefixes = append(a.Prefixes, app)
	}
}

// counter is where an instance tells of its requests, none while nobody knows.
func (i *Instance) counter(r *RequestCounter) []CounterToRead {
	if r.PortIndex >= len(i.Ports) || i.inside(i.Ports[r.PortIndex]) == "" {
		return nil
	}
	port := i.Ports[r.PortIndex]
	return []CounterToRead{{TaskID: i.TaskID, Address: i.inside(port), Public: i.public(port), Path: r.Path, Metric: r.Metric}}
}

// saveAddresses keeps the addresses of the agents that are asked, and forgets
// those of agents without instances that are autoscaled.
func (c *Core) saveAddresses(e *Measure, fx []Effect) []Effect {
	m := &c.measuring
	for _, a := range e.Agents {
		if m.saved[a.ID] != a.URL {
			m.saved[a.ID] = a.URL
			fx = append(fx, Save{Key: KeyAgent + a.ID, Value: AgentAddress{a.ID, a.URL}})
		}
	}
	used := map[string]bool{}
	for _, a := range c.apps {
		if a.scaling == nil {
			continue
		}
		for _, i := range a.instances {
			used[i.Agent] = true
		}
	}
	for _, id := range slices.Sorted(maps.Keys(m.saved)) {
		if !used[id] {
			delete(m.saved, id)
			fx = append(fx, Save{Key: KeyAgent + id})
		}
	}
	return fx
}

// measured takes what was measured, and decides.
func (c *Core) measured(now time.Time, in Measured, fx []Effect) []Effect {
	m := &c.measuring
	if in.Round != m.round || m.asked.IsZero() {
		return fx // given up
	}
	m.asked = time.Time{}
	m.counted.Failures += len(in.Failed)
	astray := false
	for _, id := range m.apps {
		a := c.apps[id]
		if a == nil || !a.scales() {
			continue // meanwhile
		}
		loads, lost := a.loads(&in)
		astray = astray || lost
		fx = c.rescaleTo(now, a, loads, fx)
	}
	if astray && !m.astray {
		c.lookAround = time.Time{}
	}
	m.astray = astray
	return fx
}
