package master

import (
	"fmt"
	"testing"
	"time"

	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// busyCore is a core with agents that run tasks of one framework.
func busyCore(b testing.TB, agents, each int) *Core {
	c := NewCore(DefaultConfig())
	now := time.Unix(1_000_000, 0)
	share, err := resources.Parse("cpus(*):0.01;mem(*):32")
	if err != nil {
		b.Fatal(err)
	}
	share = share.Allocated("*")
	for i := range agents {
		a := capable(i%200, large)
		a.ID, a.PID, a.Hostname = fmt.Sprintf("old-S%d", i), fmt.Sprintf("slave(1)@10.0.%d.%d:5051", i/200, i%200), fmt.Sprint("h", i)
		f := frameworkOf("f")
		f.ID = "old-0000"
		var tasks []*Task
		for k := range each {
			id := fmt.Sprintf("t-%d-%d", i, k)
			tasks = append(tasks, &Task{Key: task.Key{Framework: f.ID, ID: id}, Name: id, Agent: a.ID, Resources: share, State: task.Running})
		}
		if _, err := c.Apply(now, ReregisterAgent{Agent: a, Frameworks: []FrameworkInfo{f}, Tasks: tasks}, nil); err != nil {
			b.Fatal(err)
		}
	}
	return c
}

// BenchmarkCollect is what a reader's snapshot costs the loop.
func BenchmarkCollect(b *testing.B) {
	c := busyCore(b, 10_000, 10)
	if s := c.Collect(); len(s.Agents) != 10_000 || len(s.Frameworks) != 1 || len(s.Frameworks[0].Tasks) != 100_000 {
		b.Fatalf("%d agents, %d frameworks", len(s.Agents), len(s.Frameworks))
	}
	for b.Loop() {
		c.Collect()
	}
}
