package audit

import (
	"strings"
	"testing"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

func cpus(n int64) resources.Scalars {
	return resources.NewScalars(resources.Scalar{Name: "cpus", Amount: resources.Whole(n)})
}

// settled is a cluster of one agent and one app with two instances.
func settled() *Cluster {
	c := &Cluster{
		Framework: "f", Registered: []task.Key{},
		Agents: []Agent{{Name: "a", Registered: true}},
		Master: Master{
			Agents:     []Books{{ID: "S0", Connected: true, Total: cpus(8), Used: cpus(2)}},
			Frameworks: []Framework{{ID: "f", Connected: true}},
		},
		Apps: []App{{ID: "/web", Want: 2, Checked: true, Healthy: 2}},
	}
	for _, id := range []string{"web.1", "web.2"} {
		k := task.Key{Framework: "f", ID: id}
		c.Containers = append(c.Containers, Container{Name: id, Key: k, State: provider.StateUp})
		c.Registered = append(c.Registered, k)
		c.Agents[0].Tasks = append(c.Agents[0].Tasks, Task{Key: k, State: task.Running})
		c.Master.Tasks = append(c.Master.Tasks, Task{Key: k, Agent: "S0", State: task.Running, Resources: cpus(1)})
		c.Apps[0].Instances = append(c.Apps[0].Instances, Instance{Task: id, State: task.Running})
	}
	return c
}

func TestSettled(t *testing.T) {
	c := settled()
	if b, why := c.Broken(), c.Unsettled(); len(b) > 0 || why != "" {
		t.Errorf("a settled cluster is broken %v, unsettled %q", b, why)
	}
}

// TestFound spoils one thing at a time.
func TestFound(t *testing.T) {
	key := task.Key{Framework: "f", ID: "web.1"}
	for want, spoil := range map[string]func(*Cluster){
		"broken: two live containers": func(c *Cluster) {
			c.Containers = append(c.Containers, Container{Name: "twin", Key: key, State: provider.StateUp})
		},
		"broken: booked as used":          func(c *Cluster) { c.Master.Agents[0].Used = cpus(3) },
		"broken: booked as offered":       func(c *Cluster) { c.Master.Agents[0].Offered = cpus(1) },
		"broken: used and":                func(c *Cluster) { c.Master.Agents[0].Total = cpus(1) },
		"broken: -1 cpus":                 func(c *Cluster) { c.Master.Agents[0].Offered = cpus(-1) },
		"broken: agents that are not the": func(c *Cluster) { c.Master.Tasks[0].Agent = "S9" },
		"deployment is under way: d1":     func(c *Cluster) { c.Deploying = []string{"d1"} },
		"wants 3: needs 4 cpus":           func(c *Cluster) { c.Apps[0].Want, c.Apps[0].Waiting = 3, "needs 4 cpus" },
		"1 healthy instances":             func(c *Cluster) { c.Apps[0].Healthy = 1 },
		"has web.1 TASK_STAGING":          func(c *Cluster) { c.Apps[0].Instances[0].State = task.Staging },
		"still killing web.1":             func(c *Cluster) { c.Apps[0].Instances[0].Killing = true },
		"of an old configuration":         func(c *Cluster) { c.Apps[0].Instances[0].Old = true },
		"waits for 1":                     func(c *Cluster) { c.Master.Waiting = 1 },
		"connection to S0":                func(c *Cluster) { c.Master.Agents[0].Connected = false },
		"not subscribed":                  func(c *Cluster) { c.Master.Frameworks[0].Connected = false },
		"a is not registered":             func(c *Cluster) { c.Agents[0].Registered = false },
		"keeps 2 containers":              func(c *Cluster) { c.Agents[0].Kept = 2 },
		"is not acknowledged":             func(c *Cluster) { c.Agents[0].Tasks[0].Pending = "TASK_RUNNING" },
		"was not removed":                 func(c *Cluster) { c.Containers[0].State = provider.StateExited },
		"the agent lacks [f/web.1]":       func(c *Cluster) { c.Agents[0].Tasks = c.Agents[0].Tasks[1:] },
		"the registry lacks [f/web.1]":    func(c *Cluster) { c.Registered = c.Registered[1:] },
		"the master lacks [f/web.2]":      func(c *Cluster) { c.Master.Tasks, c.Master.Agents[0].Used = c.Master.Tasks[:1], cpus(1) },
		"and has [f/web.1]":               func(c *Cluster) { c.Containers = c.Containers[1:] },
		"the master has f/web.1 as TASK_": func(c *Cluster) { c.Master.Tasks[0].State = task.Starting },
	} {
		c := settled()
		spoil(c)
		got := c.Unsettled()
		if strings.HasPrefix(want, "broken: ") {
			got = "broken: " + strings.Join(c.Broken(), "; ")
		}
		if !strings.Contains(strings.Replace(got, "broken: ", "", 1), strings.TrimPrefix(want, "broken: ")) {
			t.Errorf("%q was to be found; got %q", want, got)
		}
	}
}
