package server

import (
	"strings"
	"testing"

	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/mesos/mesosjson"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/store"
)

const podResources = `[{"name":"cpus","type":"SCALAR","scalar":{"value":0.1}},{"name":"mem","type":"SCALAR","scalar":{"value":32}},{"name":"disk","type":"SCALAR","scalar":{"value":1}}]`

func groupText(agent string, ids ...string) string {
	var tasks []string
	for _, id := range ids {
		tasks = append(tasks, `{"name":"web","task_id":{"value":"`+id+`"},"agent_id":{"value":"`+agent+`"},"command":{"shell":true,"value":"sleep infinity"},
			"container":{"type":"MESOS","mesos":{"image":{"type":"DOCKER","docker":{"name":"web:1"}}}},
			"resources":[{"name":"cpus","type":"SCALAR","scalar":{"value":0.5}}]}`)
	}
	return `{"type":"LAUNCH_GROUP","launch_group":{"executor":{"executor_id":{"value":"pod"},"type":"DEFAULT","resources":` + podResources + `},
		"task_group":{"tasks":[` + strings.Join(tasks, ",") + `]}}}`
}

func (s *jsonStream) acceptGroup(t testing.TB, id string, ids ...string) (agent string) {
	t.Helper()
	if s.offers == nil {
		s.offers = s.next(t, "OFFERS")
	}
	offer := value(s.offers.path("offers", "offers", 0).(map[string]any))
	s.offers = nil
	agent = offer.path("agent_id", "value").(string)
	s.call(t, id, `{"type":"ACCEPT","framework_id":{"value":%q},"accept":{"offer_ids":[{"value":"`+offer.path("id", "value").(string)+
		`"}],"filters":{"refuse_seconds":0},"operations":[`+groupText(agent, ids...)+`]}}`)
	return agent
}

// follow acknowledges updates until each task is in its state. Offers that come
// meanwhile are for the next group.
func (s *jsonStream) follow(t testing.TB, id, agent string, want map[string]string) {
	t.Helper()
	for len(want) > 0 {
		update := s.next(t, "UPDATE", "OFFERS")
		if update["type"] == "OFFERS" {
			s.offers = update
			continue
		}
		name := update.path("update", "status", "task_id", "value").(string)
		if uuid, ok := update.path("update", "status", "uuid").(string); ok {
			s.call(t, id, `{"type":"ACKNOWLEDGE","framework_id":{"value":%q},"acknowledge":{"agent_id":{"value":"`+agent+`"},"task_id":{"value":"`+name+`"},"uuid":"`+uuid+`"}}`)
		}
		state := update.path("update", "status", "state").(string)
		if executor := update.path("update", "status", "executor_id", "value"); executor != "pod" {
			t.Errorf("%s of executor %v", state, executor)
		}
		if want[name] == state {
			delete(want, name)
		} else if strings.Contains("TASK_FAILED TASK_ERROR TASK_DROPPED TASK_LOST", state) {
			t.Fatalf("%v", update)
		}
	}
}

// showsPod: those who look at the cluster see the executor.
func (m *testMaster) showsPod(t testing.TB, framework, agent string) {
	t.Helper()
	_, text := m.get(t, "/state")
	if e := value(parseJSON(t, text).path("frameworks", 0, "executors", 0).(map[string]any)); e["executor_id"] != "pod" || e["slave_id"] != agent {
		t.Errorf("/state: %v", e)
	}
	for call, way := range map[string][]any{"GET_EXECUTORS": {"get_executors"}, "GET_STATE": {"get_state", "get_executors"}} {
		_, text := m.post(t, "/api/v1", `{"type":"`+call+`"}`, "Content-Type", typeJSON, "Accept", typeJSON)
		e, ok := parseJSON(t, text).path(append(way, "executors", 0)...).(map[string]any)
		info := value(e)
		if !ok || info.path("executor_info", "executor_id", "value") != "pod" || info.path("executor_info", "framework_id", "value") != framework || info.path("agent_id", "value") != agent {
			t.Errorf("%s: %s", call, text)
		}
	}
}

// A pod of two tasks runs, takes a third, sees a new master, is killed and ends;
// then nothing is charged any more.
func TestPod(t *testing.T) {
	st := store.NewMemory()
	m := startMaster(t, "", func(c *Config) { c.Store = st })
	startAgent(t, m, "cpus:8;mem:8192;disk:1000")
	f := subscribe(t, m, jsonSubscribe("pods", ""))
	id := f.next(t, "SUBSCRIBED").path("subscribed", "framework_id", "value").(string)
	agent := f.acceptGroup(t, id, "a", "b")
	f.follow(t, id, agent, map[string]string{"a": "TASK_RUNNING", "b": "TASK_RUNNING"})
	f.acceptGroup(t, id, "c")
	f.follow(t, id, agent, map[string]string{"c": "TASK_RUNNING"})
	for range 2 {
		m.until(t, "what the pod takes", func(s *master.Snapshot) bool { return s.Used.String() == "cpus:1.6; disk:1; mem:32" })
		m.showsPod(t, id, agent)
		m.stop()
		m = startMaster(t, m.addr, func(c *Config) { c.Store = st })
		f = subscribe(t, m, jsonSubscribe("pods", id))
	}
	m.until(t, "the agent", func(s *master.Snapshot) bool { return len(s.Agents) == 1 })
	for _, name := range []string{"a", "c"} { // b goes with a
		f.call(t, id, `{"type":"KILL","framework_id":{"value":%q},"kill":{"task_id":{"value":"`+name+`"},"kill_policy":{"grace_period":{"nanoseconds":0}}}}`)
	}
	f.follow(t, id, agent, map[string]string{"a": "TASK_KILLED", "b": "TASK_KILLED", "c": "TASK_KILLED"})
	failure := f.next(t, "FAILURE")
	if failure.path("failure", "executor_id", "value") != "pod" {
		t.Errorf("the pod's end: %v", failure)
	}
	m.until(t, "nothing that is used", func(s *master.Snapshot) bool { return s.Used.String() == "" })
}

func TestGroupProblems(t *testing.T) {
	read := func() *mesosv1.Offer_Operation {
		op := &mesosv1.Offer_Operation{}
		if err := mesosjson.Unmarshal([]byte(groupText("S0", "a", "b")), op); err != nil {
			t.Fatal(err)
		}
		return op
	}
	if problem := groupProblem("f", read()); problem != "" {
		t.Fatal(problem)
	}
	for want, change := range map[string]func(*mesosv1.ExecutorInfo, *mesosv1.TaskInfo){
		"Executor's ID is invalid":                        func(e *mesosv1.ExecutorInfo, _ *mesosv1.TaskInfo) { e.ExecutorId.Value = new("a/b") },
		"'ExecutorInfo.type' must be set":                 func(e *mesosv1.ExecutorInfo, _ *mesosv1.TaskInfo) { e.Type = nil },
		"'ExecutorInfo.command' must not be set":          func(e *mesosv1.ExecutorInfo, _ *mesosv1.TaskInfo) { e.Command = &mesosv1.CommandInfo{} },
		"'ExecutorInfo.command' must be set for 'CUSTOM'": func(e *mesosv1.ExecutorInfo, _ *mesosv1.TaskInfo) { e.Type = mesosv1.ExecutorInfo_CUSTOM.Enum() },
		"'ExecutorInfo.container.type' must be 'MESOS'": func(e *mesosv1.ExecutorInfo, _ *mesosv1.TaskInfo) {
			e.Container = &mesosv1.ContainerInfo{Type: mesosv1.ContainerInfo_DOCKER.Enum(), Docker: &mesosv1.ContainerInfo_DockerInfo{Image: new("x")}}
		},
		"'ExecutorInfo.container.mesos.image' must not be set": func(e *mesosv1.ExecutorInfo, t *mesosv1.TaskInfo) { e.Container = t.Container },
		"The `ExecutorInfo` of task 'a' is different":          func(_ *mesosv1.ExecutorInfo, t *mesosv1.TaskInfo) { t.Executor = &mesosv1.ExecutorInfo{} },
		"uses less CPUs (0.001) than the minimum required":     func(e *mesosv1.ExecutorInfo, _ *mesosv1.TaskInfo) { e.Resources[0].Scalar.Value = new(0.001) },
		"uses less memory (None) than the minimum required":    func(e *mesosv1.ExecutorInfo, _ *mesosv1.TaskInfo) { e.Resources[1].Name = new("x") },
		"ExecutorInfo has an invalid FrameworkID (Actual: g vs Expected: f)": func(e *mesosv1.ExecutorInfo, _ *mesosv1.TaskInfo) {
			e.FrameworkId = &mesosv1.FrameworkID{Value: new("g")}
		},
		"must be non-negative": func(e *mesosv1.ExecutorInfo, _ *mesosv1.TaskInfo) {
			e.ShutdownGracePeriod = &mesosv1.DurationInfo{Nanoseconds: new(int64(-1))}
		},
		"Cannot use both revocable and non-revocable 'cpus'": func(_ *mesosv1.ExecutorInfo, t *mesosv1.TaskInfo) {
			t.Resources[0].Revocable = &mesosv1.Resource_RevocableInfo{}
		},
		"Executor 'pod' uses no disk": func(e *mesosv1.ExecutorInfo, _ *mesosv1.TaskInfo) { e.Resources = e.Resources[:2] },
	} {
		op := read()
		change(op.LaunchGroup.Executor, op.LaunchGroup.TaskGroup.Tasks[0])
		if problem := groupProblem("f", op); !strings.Contains(problem, want) {
			t.Errorf("%q, want %q", problem, want)
		}
	}
	for want, change := range map[string]func(*mesosv1.TaskInfo){
		"Docker ContainerInfo is not supported on the task": func(t *mesosv1.TaskInfo) {
			t.Container = &mesosv1.ContainerInfo{Type: mesosv1.ContainerInfo_DOCKER.Enum(), Docker: &mesosv1.ContainerInfo_DockerInfo{Image: new("x")}}
		},
		"NetworkInfos must not be set on the task": func(t *mesosv1.TaskInfo) { t.Container.NetworkInfos = []*mesosv1.NetworkInfo{{}} },
		"Task uses no resources":                   func(t *mesosv1.TaskInfo) { t.Resources = nil },
	} {
		x := read().LaunchGroup.TaskGroup.Tasks[0]
		change(x)
		if problem := groupTaskProblem(x, true); problem != want {
			t.Errorf("%q, want %q", problem, want)
		}
	}
}
