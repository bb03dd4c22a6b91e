package marathon

import (
	"fmt"
	"testing"
	"time"

	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// BenchmarkStorm launches 10 000 tasks, each with its two updates, in batches
// of 500 inputs: what a core costs in a launch storm.
func BenchmarkStorm(b *testing.B) {
	for _, c := range []struct{ apps, instances int }{{1, 10000}, {1000, 10}, {1, 40000}} {
		b.Run(fmt.Sprintf("apps=%d/instances=%d", c.apps, c.instances), func(b *testing.B) {
			for b.Loop() {
				storm(b, c.apps, c.instances)
			}
			b.ReportMetric(float64(c.apps*c.instances*b.N)/b.Elapsed().Seconds(), "tasks/s")
		})
	}
}

// storm does not use world: only the core is measured.
func storm(b *testing.B, apps, instances int) {
	n := 0
	core := NewCore(Config{NewID: func() string { n++; return fmt.Sprintf("%012d", n) }})
	now := t0
	inbox := []Input{Subscribed{FrameworkID: "f", MasterID: "m"}}
	for i := range apps {
		def := define(b, fmt.Sprintf("/app-%d", i), fmt.Sprintf(`"instances":%d`, instances))
		inbox = append(inbox, Change{DeploymentID: fmt.Sprint("d", i), Put: []*App{def}})
	}
	running, offers := 0, 0
	for running < apps*instances || len(inbox) > 0 {
		if len(inbox) == 0 {
			b.Fatalf("%d of %d run", running, apps*instances)
		}
		batch := inbox[:min(500, len(inbox))]
		inbox = inbox[len(batch):]
		now = now.Add(time.Millisecond)
		var fx []Effect
		for _, in := range batch {
			var err error
			if fx, err = core.Apply(now, in, fx); err != nil {
				b.Fatal(err)
			}
			if u, ok := in.(Updated); ok && u.Status.State == task.Running {
				running++
			}
		}
		fx = core.Settle(now, fx)
		offered := false
		for _, e := range fx {
			switch e := e.(type) {
			case Accept:
				for i := range e.Launch.Tasks {
					for _, s := range []task.State{task.Starting, task.Running} {
						u := Updated{TaskID: e.Launch.Tasks[i].Key.ID, Agent: e.Agent, Status: task.Status{State: s, Time: now}}
						u.Status.UUID[0] = byte(s) + 1
						inbox = append(inbox, u)
					}
				}
				offered = true
			case Revive:
				offered = true
			}
		}
		if offered { // an offer has room for 500 tasks
			offers++
			o := task.Offer{ID: fmt.Sprint("o", offers), Agent: "a", Hostname: "h", Role: "*"}
			o.Resources = resources.NewScalar("cpus", resources.Whole(500)).Add(resources.NewScalar("mem", resources.Whole(1e6))...)
			inbox = append(inbox, Offered{Offers: []task.Offer{o}})
		}
	}
}
