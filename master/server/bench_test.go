package server

import (
	"strconv"
	"testing"

	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/task"
)

// BenchmarkTasks takes tasks all the way: ACCEPT through the v1 API, the
// agent's protocol, a simulated data center, RUNNING and its acknowledgement
// back at the agent. All sides are in this process, over loopback.
func BenchmarkTasks(b *testing.B) {
	m := startMaster(b, "", nil)
	startAgent(b, m, "cpus:1000000;mem:1000000000;disk:1000000000")
	f := startFramework(b, m.addr, frameworkOf("bench", nil))
	id := f.next(b, "subscribed").id
	f.next(b, "offers")
	const batch = 100
	launched, running := 0, 0
	b.ResetTimer()
	for running < b.N {
		for len(f.offered) > 0 && launched < b.N && launched-running < 4000 {
			o := f.offered[0]
			f.offered = f.offered[1:]
			var specs []task.Spec
			for range min(batch, b.N-launched) {
				launched++
				specs = append(specs, sleeper(b, id, "task-"+strconv.Itoa(launched), o.Role))
			}
			f.Accept([]string{o.ID}, o.Agent, task.Launch{Tasks: specs}, 0)
		}
		e := <-f.events
		switch e.kind {
		case "update":
			if e.status.State == task.Running {
				running++
			}
		case "offers":
			f.offered = append(f.offered, e.offers...)
		}
	}
	m.until(b, "all acknowledged", func(s *master.Snapshot) bool { return s.Count.Acknowledgements >= uint64(b.N) })
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
}
