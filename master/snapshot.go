package master

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// Snapshot is everything a master knows at one moment. It shares immutable
// rows with the core and must not be changed.
type Snapshot struct {
	ID          string
	Agents      []AgentView
	Recovered   []AgentInfo
	Unreachable int
	Frameworks  []FrameworkView
	Completed   []FrameworkView
	Total       resources.Scalars
	Used        resources.Scalars
	Offered     resources.Scalars
	Roles       []RoleView
	Operations  []*Operation // by agent
	Executors   []*Executor  // by agent
	Maintenance Maintenance
	Inverse     []*InverseOffer // by ID
	Quotas      []Quota         // by role
	Weights     map[string]float64
	Consumed    map[string]resources.Scalars // by top-level role: what quota counts
	Count       Counters
	Config      Config
}

// AgentView is an agent in a snapshot.
type AgentView struct {
	AgentInfo
	Connected  bool
	Registered time.Time
	Reregister time.Time // zero when it never re-registered
	Marks      Marks
	Used       resources.Resources
	Offered    resources.Resources
}

// Active says whether it is there and operators let it work.
func (a *AgentView) Active() bool { return a.Connected && !a.Marks.inactive() }

// FrameworkView is a framework in a snapshot.
type FrameworkView struct {
	FrameworkInfo
	PID         string // its driver's; "": HTTP
	Connected   bool
	Active      bool // is offered what it wants
	Recovered   bool // known only from agents
	Suppressed  []string
	Registered  time.Time
	Reregister  time.Time
	Left        time.Time
	Removed     time.Time
	Tasks       []*Task
	Unreachable []*Task
	Done        []*Task
	Executors   []*Executor
	Offers      []*Offer
}

// RoleView is a role in a snapshot.
type RoleView struct {
	Name       string
	Weight     float64
	Frameworks []string
	Allocated  resources.Scalars
}

// Counters returns what has happened since the start.
func (c *Core) Counters() Counters {
	out := c.count
	out.Ended = maps.Clone(c.count.Ended)
	return out
}

// Snapshot copies what a reader may want, in the order of IDs.
func (c *Core) Snapshot() *Snapshot {
	s := c.Collect()
	s.Finish()
	return s
}

// Collect is Snapshot without the order and the sums, which take longer: Finish
// makes them, and can be called outside the goroutine that owns the core.
func (c *Core) Collect() *Snapshot {
	s := &Snapshot{ID: c.cfg.ID, Unreachable: len(c.lost), Total: c.total, Count: c.Counters(), Config: c.cfg}
	s.Agents = make([]AgentView, 0, len(c.agents))
	for _, a := range c.agents {
		s.Agents = append(s.Agents, c.agentView(a))
		if len(a.executors)+len(a.operations) == 0 {
			continue // as is usual
		}
		s.Executors = slices.AppendSeq(s.Executors, maps.Values(a.executors))
		s.Operations = slices.AppendSeq(s.Operations, maps.Values(a.operations))
	}
	for _, id := range slices.Sorted(maps.Keys(c.recovered)) {
		s.Recovered = append(s.Recovered, c.recovered[id])
	}
	for _, f := range c.sortedFrameworks() {
		s.Frameworks = append(s.Frameworks, f.view())
	}
	for _, f := range c.completed {
		s.Completed = append(s.Completed, f.view())
	}
	s.Roles = c.roleViews()
	for _, role := range slices.Sorted(maps.Keys(c.quotas)) {
		s.Quotas = append(s.Quotas, c.quotas[role])
	}
	s.Maintenance = c.maintenance
	for _, id := range slices.Sorted(maps.Keys(c.inverse)) {
		s.Inverse = append(s.Inverse, c.inverse[id])
	}
	s.Weights, s.Consumed = maps.Clone(c.weights), maps.Clone(c.consumed)
	return s
}

func (c *Core) agentView(a *agent) AgentView {
	return AgentView{
		AgentInfo: a.AgentInfo, Connected: a.connected, Marks: c.marks[a.ID], Registered: a.registered, Reregister: a.reregister,
		Used: a.used, Offered: a.offered,
	}
}

// Finish puts everything in the order of IDs and sums up what is used.
func (s *Snapshot) Finish() {
	slices.SortFunc(s.Agents, func(a, b AgentView) int { return strings.Compare(a.ID, b.ID) })
	slices.SortFunc(s.Executors, byExecutor)
	slices.SortFunc(s.Operations, func(a, b *Operation) int {
		return cmp.Or(strings.Compare(a.Agent, b.Agent), slices.Compare(a.UUID[:], b.UUID[:]))
	})
	for i := range s.Agents {
		s.Used = s.Used.Add(s.Agents[i].Used.Scalars())
		s.Offered = s.Offered.Add(s.Agents[i].Offered.Scalars())
	}
	at := map[string]*FrameworkView{}
	for i := range s.Frameworks {
		f := &s.Frameworks[i]
		at[f.ID] = f
		sortRows(f.Tasks)
		sortRows(f.Unreachable)
	}
	for _, e := range s.Executors {
		if f := at[e.Framework]; f != nil {
			f.Executors = append(f.Executors, e)
		}
	}
	for _, f := range s.Completed {
		sortRows(f.Unreachable)
	}
}

func byExecutor(a, b *Executor) int {
	return cmp.Or(strings.Compare(a.Agent, b.Agent), strings.Compare(a.Framework, b.Framework), strings.Compare(a.ID, b.ID))
}

func sortRows(rows []*Task) {
	slices.SortFunc(rows, func(a, b *Task) int { return strings.Compare(a.Key.ID, b.Key.ID) })
}

func (c *Core) roleViews() []RoleView {
	var out []RoleView
	for _, role := range slices.Sorted(maps.Keys(c.inRole)) {
		v := RoleView{Name: role, Weight: 1, Frameworks: c.inRole[role].Sort(), Allocated: c.roles.Allocated(role)}
		if w := c.weights[role]; w > 0 {
			v.Weight = w
		}
		out = append(out, v)
	}
	return out
}

func (f *framework) view() FrameworkView {
	v := FrameworkView{
		FrameworkInfo: f.FrameworkInfo, PID: f.pid, Connected: f.stream != "", Active: f.stream != "" && !f.inactive, Recovered: !f.subscribed,
		Suppressed: slices.Sorted(maps.Keys(f.suppressed)), Registered: f.since, Reregister: f.reconnected, Left: f.left, Removed: f.removed,
		Tasks: rows(f.tasks), Unreachable: rows(f.unreachable), Done: slices.Clone(f.done),
	}
	for _, o := range f.offers {
		v.Offers = append(v.Offers, o)
	}
	slices.SortFunc(v.Offers, byOfferID)
	return v
}

func rows(in map[string]*Task) []*Task {
	out := make([]*Task, 0, len(in))
	for _, t := range in {
		out = append(out, t)
	}
	return out
}

// Task finds one task, nil when there is none.
func (c *Core) Task(key task.Key) *Task {
	if f := c.frameworks[key.Framework]; f != nil {
		return f.tasks[key.ID]
	}
	return nil
}
