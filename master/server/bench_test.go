package server

import (
	"bytes"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/mesopool/mesopool/internal/recent"
	"github.com/mesopool/mesopool/master"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	masterv1 "github.com/mesopool/mesopool/mesos/v1/master"
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

// largeState is a snapshot with tasks as frameworks launch them on our agents,
// two statuses each.
func largeState(b testing.TB, tasks int) *master.Snapshot {
	amount := parse(b, "cpus:0.1;mem:32;disk:4").Allocated("web")
	info := mustMarshal(b, &mesosv1.FrameworkInfo{User: new("root"), Name: new("marathon")})
	f := master.FrameworkView{FrameworkInfo: master.FrameworkInfo{Origin: []byte(info), ID: "m-0000", Name: "marathon", User: "root", Roles: []string{"web"}}}
	said := recent.New(bytes.Equal)
	for i := range tasks {
		id := "app-web.instance-" + strconv.Itoa(1_000_000+i) + "._app.1"
		more := launchOf(&mesosv1.TaskInfo{
			Name: new("web.app"), TaskId: &mesosv1.TaskID{Value: &id}, AgentId: &mesosv1.AgentID{Value: new("m-S0")}, Resources: []*mesosv1.Resource{scalar("cpus", 0.1), scalar("mem", 32)},
			Command: &mesosv1.CommandInfo{Value: new("sleep infinity"), User: new("root")}, Container: &mesosv1.ContainerInfo{
				Type: mesosv1.ContainerInfo_DOCKER.Enum(), Docker: &mesosv1.ContainerInfo_DockerInfo{Image: new("web:1")},
			},
			Labels: &mesosv1.Labels{Labels: []*mesosv1.Label{{Key: new("team"), Value: new("shop")}}},
		}, "").More
		row := &master.Task{
			Key: task.Key{Framework: "m-0000", ID: id}, Name: "web.app", Agent: "m-S0", Resources: amount, State: task.Running,
			StatusState: task.Running, StatusUUID: task.UUID{1}, More: said.Same(more),
		}
		for k, state := range []task.State{task.Starting, task.Running} {
			at := time.Unix(1_700_000_000+int64(i), int64(k)*123_456_000)
			wire := mustMarshal(b, &mesosv1.TaskStatus{
				TaskId: &mesosv1.TaskID{Value: &id}, State: taskState(state), AgentId: &mesosv1.AgentID{Value: new("m-S0")}, Timestamp: new(float64(at.UnixMicro()) / 1e6),
				Uuid: make([]byte, 16), Source: mesosv1.TaskStatus_SOURCE_EXECUTOR.Enum(), ContainerStatus: &mesosv1.ContainerStatus{
					ContainerId:  &mesosv1.ContainerID{Value: new("0123456789abcdef0123456789abcdef")},
					NetworkInfos: []*mesosv1.NetworkInfo{{IpAddresses: []*mesosv1.NetworkInfo_IPAddress{{IpAddress: new("10.0.0.1")}}}},
				},
			})
			row.Statuses = append(row.Statuses, master.Status{State: state, Time: at, UUID: task.UUID{1}, More: moreOfStatus([]byte(wire))})
		}
		f.Tasks = append(f.Tasks, row)
	}
	return &master.Snapshot{ID: "m", Frameworks: []master.FrameworkView{f}}
}

// discard is an answer that nobody reads.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(p []byte) (int, error) { return len(p), nil }
func (d discard) WriteHeader(int)             {}

// BenchmarkState is /state and GET_STATE of 100 000 tasks, without the network.
func BenchmarkState(b *testing.B) {
	m := startMaster(b, "", nil)
	snap := largeState(b, 100_000)
	v := m.viewer(b.Context())
	b.Run("state", func(b *testing.B) {
		for b.Loop() {
			j := newJSONWriter(discard{http.Header{}}, &http.Request{Header: http.Header{}})
			m.writeState(j, &query{snap: snap, whole: snap, sees: v})
			j.close()
		}
	})
	for _, json := range []bool{false, true} {
		b.Run("GET_STATE json="+strconv.FormatBool(json), func(b *testing.B) {
			for b.Loop() {
				if err := m.sendTasks(discard{http.Header{}}, &http.Request{Header: http.Header{}}, masterv1.Call_GET_STATE, v, snap, json); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
