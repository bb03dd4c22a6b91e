package executor

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/agent"
	"github.com/mesopool/mesopool/internal/uuid"
	"github.com/mesopool/mesopool/mesos/mesosjson"
	"github.com/mesopool/mesopool/mesos/recordio"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	executorv1 "github.com/mesopool/mesopool/mesos/v1/executor"
	"github.com/mesopool/mesopool/provider/memory"
	"github.com/mesopool/mesopool/store"
	"github.com/mesopool/mesopool/task"
)

// master acknowledges what it is told.
type master struct {
	mu     sync.Mutex
	runner *agent.Runner
	news   chan string
}

func (m *master) Report(r agent.Report) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.runner.Put(agent.Ack{Key: r.Key, UUID: r.Status.UUID})
	m.news <- fmt.Sprintf("%s %s %s", r.Key.ID, r.Status.State, r.Status.Data)
}

func (m *master) ExecutorGone(e agent.ExecutorGone) {
	m.news <- fmt.Sprintf("gone %s %d", e.Executor, e.Status)
}
func (m *master) ExecutorMessage(e agent.ExecutorMessage) { m.news <- "message " + string(e.Data) }

// env is an agent on a simulated data center, with its executor API served.
type env struct {
	t      *testing.T
	p      *memory.Provider
	store  store.Store
	master *master
	url    string
	stop   func()
}

const token = "secret"

func marshal(t *testing.T, m proto.Message) []byte {
	t.Helper()
	out, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func newEnv(t *testing.T) *env {
	e := &env{t: t, p: memory.New(memory.Config{}), store: store.NewMemory(), master: &master{news: make(chan string, 100)}}
	e.start()
	return e
}

// start begins a life of the agent.
func (e *env) start() {
	quiet := slog.New(slog.DiscardHandler)
	hub := NewHub(Config{Log: quiet, Info: func() *mesosv1.AgentInfo {
		return &mesosv1.AgentInfo{Hostname: new("dc"), Id: &mesosv1.AgentID{Value: new("S0")}}
	}})
	cfg := agent.DefaultConfig()
	cfg.Owner, cfg.NewUUID = task.Owner{Cluster: "test", Agent: "agent"}, uuid.New
	r := agent.NewRunner(agent.Options{Core: cfg, Provider: e.p, Store: e.store, Executors: hub, Log: quiet})
	server := httptest.NewServer(hub.Serve(r))
	ctx, cancel := contextWithCancel(e.t)
	e.master.mu.Lock()
	e.master.runner, e.url = r, server.URL
	e.master.mu.Unlock()
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx, e.master) }()
	r.Put(agent.Joined{})
	e.stop = sync.OnceFunc(func() {
		server.CloseClientConnections()
		cancel()
		server.Close()
		if err := <-done; err != nil {
			e.t.Error(err)
		}
	})
	e.t.Cleanup(e.stop)
}

func (e *env) launch(ids ...string) {
	e.t.Helper()
	in := agent.LaunchGroup{Single: len(ids) == 1, Framework: agent.Framework{ID: "f1", PartitionAware: true}}
	in.Framework.Origin = marshal(e.t, &mesosv1.FrameworkInfo{User: new("u"), Name: new("n")})
	in.Pod = task.Spec{
		Key: task.Key{Framework: "f1", ID: task.PodID("e")}, Pod: "e", Custom: true, Name: "e", Image: "x", Env: []task.Label{{Key: agent.ExecutorToken, Value: token}},
		Origin: marshal(e.t, &mesosv1.ExecutorInfo{ExecutorId: &mesosv1.ExecutorID{Value: new("e")}}),
	}
	for _, id := range ids {
		in.Tasks = append(in.Tasks, task.Spec{Key: task.Key{Framework: "f1", ID: id}, Origin: marshal(e.t, taskOf(id))})
	}
	e.master.runner.Put(in)
}

func taskOf(id string) *mesosv1.TaskInfo {
	return &mesosv1.TaskInfo{Name: new("n"), TaskId: &mesosv1.TaskID{Value: &id}, AgentId: &mesosv1.AgentID{Value: new("S0")}, Data: []byte("for " + id)}
}

func (e *env) news(want string) {
	e.t.Helper()
	select {
	case got := <-e.master.news:
		if got != want {
			e.t.Fatalf("the master was told %q, want %q", got, want)
		}
	case <-time.After(10 * time.Second):
		e.t.Fatalf("the master was not told %q", want)
	}
}

// executor is a small one, which speaks JSON or protobuf.
type executor struct {
	e    *env
	kind string
	body io.Closer
	r    *recordio.Reader
}

func call(kind executorv1.Call_Type) *executorv1.Call {
	return &executorv1.Call{Type: &kind, ExecutorId: &mesosv1.ExecutorID{Value: new("e")}, FrameworkId: &mesosv1.FrameworkID{Value: new("f1")}}
}

func (e *env) post(kind string, body []byte, change ...func(*http.Request)) *http.Response {
	e.t.Helper()
	r, err := http.NewRequest(http.MethodPost, e.url+"/api/v1/executor", bytes.NewReader(body))
	if err != nil {
		e.t.Fatal(err)
	}
	r.Header.Set("Content-Type", kind)
	r.Header.Set("Accept", kind)
	r.Header.Set("Authorization", "Bearer "+token)
	for _, f := range change {
		f(r)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		e.t.Fatal(err)
	}
	return resp
}

func (x *executor) send(c *executorv1.Call) *http.Response {
	x.e.t.Helper()
	if x.kind == typeJSON {
		return x.e.post(x.kind, mesosjson.Marshal(c))
	}
	return x.e.post(x.kind, marshal(x.e.t, c))
}

func (e *env) connect(kind string, s *executorv1.Call_Subscribe) *executor {
	e.t.Helper()
	x := &executor{e: e, kind: kind}
	c := call(executorv1.Call_SUBSCRIBE)
	c.Subscribe = s
	resp := x.send(c)
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != kind {
		e.t.Fatalf("SUBSCRIBE: %s", resp.Status)
	}
	x.body, x.r = resp.Body, recordio.NewReader(resp.Body, 0)
	e.t.Cleanup(func() { resp.Body.Close() })
	sub := x.next(executorv1.Event_SUBSCRIBED).Subscribed
	if sub.AgentInfo.GetId().GetValue() != "S0" || sub.FrameworkInfo.GetId().GetValue() != "f1" || sub.ExecutorInfo.GetExecutorId().GetValue() != "e" || sub.ContainerId.GetValue() == "" {
		e.t.Errorf("SUBSCRIBED: %v", sub)
	}
	return x
}

func (x *executor) next(want executorv1.Event_Type) *executorv1.Event {
	x.e.t.Helper()
	record, err := x.r.Next()
	if err != nil {
		x.e.t.Fatalf("waiting for %v: %v", want, err)
	}
	ev := &executorv1.Event{}
	if x.kind == typeJSON {
		err = mesosjson.Unmarshal(record, ev)
	} else {
		err = proto.Unmarshal(record, ev)
	}
	if err != nil || ev.GetType() != want {
		x.e.t.Fatalf("%v (%v), want %v", ev, err, want)
	}
	return ev
}

func updateOf(id string, state mesosv1.TaskState, n byte) *executorv1.Call_Update {
	return &executorv1.Call_Update{Status: &mesosv1.TaskStatus{
		TaskId: &mesosv1.TaskID{Value: &id}, State: &state, Source: mesosv1.TaskStatus_SOURCE_EXECUTOR.Enum(), Uuid: bytes.Repeat([]byte{n}, 16), Data: []byte("d"),
	}}
}

func (x *executor) update(id string, state mesosv1.TaskState, n byte) {
	x.e.t.Helper()
	c := call(executorv1.Call_UPDATE)
	c.Update = updateOf(id, state, n)
	if resp := x.send(c); resp.StatusCode != http.StatusAccepted {
		text, _ := io.ReadAll(resp.Body)
		x.e.t.Fatalf("UPDATE: %s %s", resp.Status, text)
	}
	if a := x.next(executorv1.Event_ACKNOWLEDGED).Acknowledged; a.GetTaskId().GetValue() != id || a.Uuid[3] != n {
		x.e.t.Errorf("ACKNOWLEDGED %v", a)
	}
}

// An executor gets its tasks, tells how they fare, and finds the agent again
// after its restart with nothing lost or doubled.
func TestExecutor(t *testing.T) {
	for _, kind := range []string{typeJSON, typeProtobuf} {
		t.Run(kind, func(t *testing.T) {
			e := newEnv(t)
			e.launch("a")
			untilThere(e)
			x := e.connect(kind, &executorv1.Call_Subscribe{})
			if got := x.next(executorv1.Event_LAUNCH).Launch.Task; got.GetTaskId().GetValue() != "a" || string(got.Data) != "for a" {
				t.Errorf("LAUNCH: %v", got)
			}
			x.update("a", mesosv1.TaskState_TASK_RUNNING, 1)
			e.news("a TASK_RUNNING d")
			e.launch("b", "c")
			if got := x.next(executorv1.Event_LAUNCH_GROUP).LaunchGroup.TaskGroup.Tasks; len(got) != 2 || got[1].GetTaskId().GetValue() != "c" {
				t.Errorf("LAUNCH_GROUP: %v", got)
			}
			e.master.runner.Put(agent.FrameworkMessage{Framework: "f1", Executor: "e", Data: []byte("hi")})
			if got := x.next(executorv1.Event_MESSAGE).Message; string(got.Data) != "hi" {
				t.Errorf("MESSAGE: %v", got)
			}
			c := call(executorv1.Call_MESSAGE)
			c.Message = &executorv1.Call_Message{Data: []byte("ho")}
			if resp := x.send(c); resp.StatusCode != http.StatusAccepted {
				t.Errorf("MESSAGE: %s", resp.Status)
			}
			e.news("message ho")
			if resp := x.send(call(executorv1.Call_HEARTBEAT)); resp.StatusCode != http.StatusAccepted {
				t.Errorf("HEARTBEAT: %s", resp.Status)
			}
			e.stop()
			e.start()
			untilThere(e)
			x = e.connect(kind, &executorv1.Call_Subscribe{
				UnacknowledgedTasks:   []*mesosv1.TaskInfo{taskOf("b")},
				UnacknowledgedUpdates: []*executorv1.Call_Update{updateOf("a", mesosv1.TaskState_TASK_RUNNING, 1), updateOf("b", mesosv1.TaskState_TASK_FINISHED, 2)},
			})
			x.next(executorv1.Event_ACKNOWLEDGED)
			x.next(executorv1.Event_ACKNOWLEDGED)
			e.news("b TASK_FINISHED d")
			e.news("c TASK_DROPPED ") // the executor does not know it
			e.master.runner.Put(agent.Kill{Key: task.Key{Framework: "f1", ID: "a"}, Grace: new(time.Second)})
			if k := x.next(executorv1.Event_KILL).Kill; k.GetTaskId().GetValue() != "a" || k.GetKillPolicy().GetGracePeriod().GetNanoseconds() != 1e9 {
				t.Errorf("KILL: %v", k)
			}
			old := x
			x = e.connect(kind, &executorv1.Call_Subscribe{})
			x.next(executorv1.Event_KILL)
			if _, err := old.r.Next(); err == nil {
				t.Error("the former connection goes on")
			}
			x.update("a", mesosv1.TaskState_TASK_KILLED, 3)
			e.news("a TASK_KILLED d")
			e.master.runner.Put(agent.ShutdownExecutor{Framework: "f1", Executor: "e"})
			x.next(executorv1.Event_SHUTDOWN)
			e.p.Do(func(c *memory.Core, now time.Time) {
				if k, ok := c.Lookup(containerName()); !ok || !c.Kill(now, k.ID, 7) {
					t.Error("there is no container")
				}
			})
			e.news("gone e 1792")
		})
	}
}

func containerName() string {
	return agent.ContainerName("test", task.Key{Framework: "f1", ID: task.PodID("e")}, "e")
}

// Calls are refused as Mesos refuses them, and nobody speaks for another.
func TestRefusals(t *testing.T) {
	e := newEnv(t)
	e.launch("a")
	untilThere(e)
	ids := `"executor_id":{"value":"e"},"framework_id":{"value":"f1"}`
	id16 := base64.StdEncoding.EncodeToString(make([]byte, 16))
	status := func(rest string) string {
		return `{"type":"UPDATE",` + ids + `,"update":{"status":{"task_id":{"value":"a"},` + rest + `}}}`
	}
	for name, x := range map[string]struct {
		body   string
		change func(*http.Request)
		status int
		text   string
	}{
		"no token":          {`{}`, func(r *http.Request) { r.Header.Del("Authorization") }, 401, "MESOS_EXECUTOR_AUTHENTICATION_TOKEN"},
		"another token":     {`{"type":"HEARTBEAT",` + ids + `}`, func(r *http.Request) { r.Header.Set("Authorization", "Bearer x") }, 403, "not that of executor 'e'"},
		"not a POST":        {``, func(r *http.Request) { r.Method = http.MethodGet }, 405, "Expecting one of { 'POST' }"},
		"no content type":   {`{}`, func(r *http.Request) { r.Header.Del("Content-Type") }, 400, "Expecting 'Content-Type' to be present"},
		"content type":      {`{}`, func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }, 415, "Expecting 'Content-Type' of"},
		"accept":            {`{"type":"SUBSCRIBE",` + ids + `,"subscribe":{}}`, func(r *http.Request) { r.Header.Set("Accept", "text/plain") }, 406, "Expecting 'Accept'"},
		"garbage":           {`{`, nil, 400, "Failed to parse body into Call protobuf"},
		"no type":           {`{` + ids + `}`, nil, 400, "Expecting 'type' to be present"},
		"no subscribe":      {`{"type":"SUBSCRIBE",` + ids + `}`, nil, 400, "Expecting 'subscribe' to be present"},
		"no update":         {`{"type":"UPDATE",` + ids + `}`, nil, 400, "Expecting 'update' to be present"},
		"no message":        {`{"type":"MESSAGE",` + ids + `}`, nil, 400, "Expecting 'message' to be present"},
		"no uuid":           {status(`"state":"TASK_RUNNING","source":"SOURCE_EXECUTOR"`), nil, 400, "Expecting 'uuid' to be present"},
		"short uuid":        {status(`"state":"TASK_RUNNING","source":"SOURCE_EXECUTOR","uuid":"AAAA"`), nil, 400, "Not a valid UUID"},
		"source":            {status(`"state":"TASK_RUNNING","source":"SOURCE_AGENT","uuid":"` + id16 + `"`), nil, 400, "invalid source"},
		"staging":           {status(`"state":"TASK_STAGING","source":"SOURCE_EXECUTOR","uuid":"` + id16 + `"`), nil, 400, "TASK_STAGING"},
		"for another":       {status(`"state":"TASK_RUNNING","source":"SOURCE_EXECUTOR","uuid":"` + id16 + `","executor_id":{"value":"z"}`), nil, 400, "does not match ExecutorID"},
		"unknown framework": {`{"type":"HEARTBEAT","executor_id":{"value":"e"},"framework_id":{"value":"z"}}`, nil, 400, "Framework cannot be found"},
		"unknown executor":  {`{"type":"HEARTBEAT","executor_id":{"value":"z"},"framework_id":{"value":"f1"}}`, nil, 400, "Executor cannot be found"},
		"not subscribed":    {`{"type":"HEARTBEAT",` + ids + `}`, nil, 403, "Executor is not subscribed"},
	} {
		t.Run(name, func(t *testing.T) {
			change := x.change
			if change == nil {
				change = func(*http.Request) {}
			}
			resp := e.post(typeJSON, []byte(x.body), change)
			text, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != x.status || !strings.Contains(string(text), x.text) {
				t.Errorf("%s: %s", resp.Status, text)
			}
		})
	}
}

// An executor that does not read is cut off; what waits for it is bounded.
func TestSlowExecutor(t *testing.T) {
	s := &stream{ready: make(chan struct{}, 1)}
	for range 20 {
		s.push(agent.Message{Data: make([]byte, 1<<20)})
	}
	if events, over := s.take(); len(events) != 0 || !strings.Contains(over, "too slowly") {
		t.Errorf("%d events wait, %q", len(events), over)
	}
	s.push(agent.ShutDown{})
	if events, _ := s.take(); len(events) != 0 {
		t.Errorf("%d events after the end", len(events))
	}
}

func FuzzCall(f *testing.F) {
	f.Add(typeJSON, []byte(`{"type":"HEARTBEAT","executor_id":{"value":"e"},"framework_id":{"value":"f1"}}`))
	f.Add(typeJSON, []byte(`{"type":"SUBSCRIBE","executor_id":{"value":"e"},"framework_id":{"value":"f1"},"subscribe":{}}`))
	f.Add(typeProtobuf, []byte{0x0a, 0x03, 0x0a, 0x01, 'e', 0x12, 0x03, 0x0a, 0x01, 'f', 0x18, 0x04})
	f.Fuzz(func(t *testing.T, kind string, body []byte) {
		c, err := decode(kind, body)
		if err != nil || problemOf(c) != "" {
			return
		}
		if c.GetType() == executorv1.Call_UPDATE {
			s, err := status(c.Update)
			if err != nil || s.Status.UUID.IsZero() && len(c.Update.Status.Uuid) != 16 {
				t.Errorf("%v: %v %v", c, s, err)
			}
		}
		if _, err := input(name{"f", "e"}, c); err != nil {
			t.Error(err)
		}
	})
}

func contextWithCancel(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithCancel(context.WithoutCancel(t.Context()))
}

// untilThere waits for the agent to know the executor.
func untilThere(e *env) {
	e.t.Helper()
	for range 1000 {
		v, err := e.master.runner.Executor(e.t.Context(), "f1", "e")
		if err != nil {
			e.t.Fatal(err)
		}
		if v.Spec != nil {
			return
		}
	}
	e.t.Fatal("there is no executor")
}
