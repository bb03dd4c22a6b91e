package audit

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// Cluster is a cluster as all its parts tell it, each of its own.
type Cluster struct {
	Framework  string      // of Marathon; "" while it has none
	Containers []Container // of the cluster, whoever's agent's they are
	Registered []task.Key  // tasks that the registry lists; nil: nobody was asked
	Agents     []Agent
	Master     Master
	Apps       []App
	Deploying  []string // the deployments under way, in words
}

// Container is one container of the backend.
type Container struct {
	Name  string
	Key   task.Key
	State provider.State
}

// Agent is what an agent says of itself.
type Agent struct {
	Name       string
	Registered bool
	Kept       int // stopped containers that wait for their removal
	Orphans    int
	Tasks      []Task
}

// Task is a task as an agent or the master has it.
type Task struct {
	Key       task.Key
	Agent     string // the agent's ID; the master tells it
	State     task.State
	Resources resources.Scalars // the master tells them
	Pending   string            // the update that waits for its acknowledgement, in words; the agent tells it
}

// Master is what the master has.
type Master struct {
	Agents     []Books
	Waiting    int // agents from before a restart, and lost ones
	Frameworks []Framework
	Tasks      []Task // of all frameworks
}

// Books are what the master has on an agent.
type Books struct {
	ID                   string
	Connected            bool
	Total, Used, Offered resources.Scalars
}

// Framework is a framework as the master has it.
type Framework struct {
	ID        string
	Connected bool
	Offers    []Offer
	Executors []Offer // what they have, not their tasks
}

// Offer is an offer that is out.
type Offer struct {
	Agent     string
	Resources resources.Scalars
}

// App is what Marathon wants and has of an app.
type App struct {
	ID        string
	Want      int
	Checked   bool // it has health checks
	Healthy   int
	Waiting   string // why instances are missing, in Marathon's words
	Instances []Instance
}

// Instance is one instance of an app.
type Instance struct {
	Task    string
	State   task.State
	Killing bool
	Old     bool // of a configuration that is not wanted any more
}

// Broken lists what must never be, also while things fail: two live containers
// of one task, and books that do not balance.
func (c *Cluster) Broken() []string { return append(c.doubles(), c.Master.Unbalanced()...) }

func (c *Cluster) doubles() []string {
	var out []string
	live := map[task.Key]string{}
	for _, k := range c.Containers {
		if k.State != provider.StateUp || k.Key == (task.Key{}) {
			continue
		}
		if other, double := live[k.Key]; double {
			out = append(out, fmt.Sprintf("task %s has two live containers, %s and %s", k.Key, other, k.Name))
		}
		live[k.Key] = k.Name
	}
	return out
}

// Unbalanced lists where the master's books of an agent differ from its tasks
// and offers, or are more than the agent has.
func (m *Master) Unbalanced() []string {
	used, offered := map[string]resources.Scalars{}, map[string]resources.Scalars{}
	for i := range m.Tasks {
		if t := &m.Tasks[i]; !t.State.Terminal() {
			used[t.Agent] = used[t.Agent].Add(t.Resources)
		}
	}
	for _, f := range m.Frameworks {
		for _, e := range f.Executors {
			used[e.Agent] = used[e.Agent].Add(e.Resources)
		}
		for _, o := range f.Offers {
			offered[o.Agent] = offered[o.Agent].Add(o.Resources)
		}
	}
	var out []string
	for i := range m.Agents {
		b := &m.Agents[i]
		out = append(out, b.differs(used[b.ID], offered[b.ID])...)
		delete(used, b.ID)
		delete(offered, b.ID)
	}
	if len(used)+len(offered) > 0 {
		out = append(out, fmt.Sprintf("there are tasks or offers of agents that are not there: %v %v", used, offered))
	}
	return out
}

func (b *Books) differs(used, offered resources.Scalars) (out []string) {
	say := func(format string, args ...any) { out = append(out, b.ID+": "+fmt.Sprintf(format, args...)) }
	if !slices.Equal(b.Used, used) {
		say("%s is booked as used, its tasks have %s", b.Used, used)
	}
	if !slices.Equal(b.Offered, offered) {
		say("%s is booked as offered, its offers have %s", b.Offered, offered)
	}
	if !b.Total.Contains(b.Used.Add(b.Offered)) {
		say("%s used and %s offered of %s", b.Used, b.Offered, b.Total)
	}
	for _, s := range slices.Concat(b.Used, b.Offered) {
		if s.Amount < 0 {
			say("%s %s", s.Amount, s.Name)
		}
	}
	return out
}

// Unsettled says what is not yet as users want it; "" when everything is: every
// app has all its instances running and healthy, what runs is what everybody
// thinks, and nothing is on its way anywhere.
func (c *Cluster) Unsettled() string {
	for _, why := range []func() string{c.appsUnsettled, c.masterUnsettled, c.agentsUnsettled, c.setsDiffer} {
		if text := why(); text != "" {
			return text
		}
	}
	return ""
}

func (c *Cluster) appsUnsettled() string {
	if len(c.Deploying) > 0 {
		return "a deployment is under way: " + c.Deploying[0]
	}
	for i := range c.Apps {
		if why := c.Apps[i].unsettled(); why != "" {
			return c.Apps[i].ID + " " + why
		}
	}
	return ""
}

func (a *App) unsettled() string {
	if len(a.Instances) != a.Want {
		return strings.TrimSuffix(fmt.Sprintf("has %d instances and wants %d: %s", len(a.Instances), a.Want, a.Waiting), ": ")
	}
	if a.Checked && a.Healthy != a.Want {
		return fmt.Sprintf("has %d healthy instances and wants %d", a.Healthy, a.Want)
	}
	for _, i := range a.Instances {
		switch {
		case i.State != task.Running:
			return fmt.Sprintf("has %s %s", i.Task, i.State)
		case i.Killing:
			return fmt.Sprintf("is still killing %s", i.Task)
		case i.Old:
			return fmt.Sprintf("has %s of an old configuration", i.Task)
		}
	}
	return ""
}

func (c *Cluster) masterUnsettled() string {
	m := &c.Master
	if len(m.Agents) != len(c.Agents) || m.Waiting > 0 {
		return fmt.Sprintf("the master has %d agents of %d and waits for %d", len(m.Agents), len(c.Agents), m.Waiting)
	}
	for i := range m.Agents {
		if !m.Agents[i].Connected {
			return "the master has lost its connection to " + m.Agents[i].ID
		}
	}
	subscribed := false
	for _, f := range m.Frameworks {
		if f.ID != c.Framework {
			continue
		}
		subscribed = f.Connected
		if len(f.Offers) > 0 {
			return fmt.Sprintf("Marathon holds %d offers", len(f.Offers))
		}
	}
	if !subscribed {
		return "Marathon is not subscribed"
	}
	return ""
}

func (c *Cluster) agentsUnsettled() string {
	for i := range c.Agents {
		a := &c.Agents[i]
		switch {
		case !a.Registered:
			return a.Name + " is not registered"
		case a.Kept+a.Orphans > 0:
			return fmt.Sprintf("%s keeps %d containers and has %d orphans", a.Name, a.Kept, a.Orphans)
		}
		for _, t := range a.Tasks {
			if t.Pending != "" {
				return fmt.Sprintf("%s: the update %s of %s is not acknowledged", a.Name, t.Pending, t.Key)
			}
		}
	}
	return ""
}

// setsDiffer compares what runs with what everybody thinks.
func (c *Cluster) setsDiffer() string {
	var up []string
	for _, k := range c.Containers {
		if k.State != provider.StateUp {
			return fmt.Sprintf("container %s is %s and was not removed", k.Name, k.State)
		}
		up = append(up, k.Key.String())
	}
	slices.Sort(up)
	for _, other := range c.told() {
		if missing, extra := difference(up, other.keys); len(missing)+len(extra) > 0 {
			return fmt.Sprintf("%s lacks %v that run, and has %v that do not", other.who, missing, extra)
		}
	}
	for _, t := range c.Master.Tasks {
		if t.State != task.Running {
			return fmt.Sprintf("the master has %s as %s", t.Key, t.State)
		}
	}
	return ""
}

type told struct {
	who  string
	keys []string
}

func (c *Cluster) told() []told {
	agents, atMaster, marathon := told{who: "the agent"}, told{who: "the master"}, told{who: "Marathon"}
	for _, a := range c.Agents {
		for _, t := range a.Tasks {
			agents.keys = append(agents.keys, t.Key.String())
		}
	}
	for _, t := range c.Master.Tasks {
		atMaster.keys = append(atMaster.keys, t.Key.String())
	}
	for _, a := range c.Apps {
		for _, i := range a.Instances {
			marathon.keys = append(marathon.keys, task.Key{Framework: c.Framework, ID: i.Task}.String())
		}
	}
	all := []told{agents, atMaster, marathon}
	if c.Registered != nil {
		registry := told{who: "the registry"}
		for _, k := range c.Registered {
			registry.keys = append(registry.keys, k.String())
		}
		all = append(all, registry)
	}
	return all
}

// difference compares a sorted list with one in any order.
func difference(up, other []string) (missing, extra []string) {
	slices.Sort(other)
	for _, k := range up {
		if _, found := slices.BinarySearch(other, k); !found {
			missing = append(missing, k)
		}
	}
	for i, k := range other {
		if _, found := slices.BinarySearch(up, k); !found || i > 0 && other[i-1] == k {
			extra = append(extra, k)
		}
	}
	return missing, extra
}
