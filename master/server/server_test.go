package server

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/mesopool/mesopool/master"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/provider/memory"
	"github.com/mesopool/mesopool/store"
	"github.com/mesopool/mesopool/task"
)

const small = "cpus:4;mem:4096;disk:10000"

func TestTaskLife(t *testing.T) {
	m := startMaster(t, "", nil)
	startAgent(t, m, small)
	f := startFramework(t, m.addr, frameworkOf("marathon", nil))
	id := f.next(t, "subscribed").id

	o := f.launch(t, id, "t1")
	if o.Hostname != "dc.example" || o.Role != "web" || len(o.Attributes) != 1 || o.Attributes[0].Value != "r1" {
		t.Errorf("offer = %+v", o)
	}
	up := f.state(t, "t1", task.Running)
	if up.agent != o.Agent || up.status.UUID.IsZero() || up.status.Container == nil || len(up.status.Container.Addresses) == 0 {
		t.Errorf("running: %+v", up)
	}
	m.until(t, "the task running", func(s *master.Snapshot) bool {
		return len(s.Frameworks) == 1 && len(s.Frameworks[0].Tasks) == 1 && s.Frameworks[0].Tasks[0].StatusState == task.Running
	})
	f.Kill("t1", o.Agent, nil)
	f.state(t, "t1", task.Killed)
	m.until(t, "the task as history", func(s *master.Snapshot) bool {
		return len(s.Frameworks[0].Tasks) == 0 && len(s.Frameworks[0].Done) == 1 && len(s.Used) == 0
	})
}

func TestReconcileAndTeardown(t *testing.T) {
	m := startMaster(t, "", nil)
	a := startAgent(t, m, small)
	f := startFramework(t, m.addr, frameworkOf("marathon", nil))
	id := f.next(t, "subscribed").id
	o := f.launch(t, id, "t1")
	f.state(t, "t1", task.Running)

	f.Reconcile(nil)
	known := f.state(t, "t1", task.Running)
	if known.status.Reason != task.ReasonReconciliation || !known.status.UUID.IsZero() || known.status.Container == nil {
		t.Errorf("reconciled: %+v", known.status)
	}
	f.Reconcile(map[string]string{"t2": o.Agent})
	if gone := f.next(t, "update"); gone.id != "t2" || gone.status.State != task.Gone {
		t.Errorf("unknown task: %+v", gone)
	}
	f.Teardown()
	m.until(t, "the framework as history", func(s *master.Snapshot) bool {
		return len(s.Frameworks) == 0 && len(s.Completed) == 1 && s.Completed[0].Done[0].State == task.Killed
	})
	a.untilContainers(t, 0)
}

// TestRestart: the master comes back at the same address with what it stored.
// The agent brings its tasks, the framework subscribes again, and nobody loses
// anything.
func TestRestart(t *testing.T) {
	st := store.NewMemory()
	m := startMaster(t, "", func(c *Config) { c.Store = st })
	a := startAgent(t, m, small)
	f := startFramework(t, m.addr, frameworkOf("marathon", nil))
	id := f.next(t, "subscribed").id
	o := f.launch(t, id, "t1", "t2")
	f.state(t, "t1", task.Running)
	m.until(t, "both running", func(s *master.Snapshot) bool { return s.Count.Acknowledgements >= 2 })
	m.stop()
	f.next(t, "disconnected")
	f.offered = nil

	m = startMaster(t, m.addr, func(c *Config) { c.Store = st })
	again := f.next(t, "subscribed")
	if again.id != id || again.agent != m.ID() {
		t.Errorf("subscribed again as %+v, want framework %s of master %s", again, id, m.ID())
	}
	snap := m.until(t, "the agent with its tasks", func(s *master.Snapshot) bool {
		return len(s.Agents) == 1 && len(s.Frameworks) == 1 && len(s.Frameworks[0].Tasks) == 2 && s.Frameworks[0].Connected
	})
	if snap.Agents[0].ID != o.Agent || snap.Agents[0].Used.Amount("mem") != 64_000 || len(snap.Recovered) != 0 {
		t.Errorf("agent: %+v", snap.Agents[0])
	}
	f.launch(t, id, "t3")
	f.state(t, "t3", task.Running)
	f.Kill("t1", o.Agent, nil)
	f.state(t, "t1", task.Killed)
	a.untilContainers(t, 2)
}

// TestFailover: another instance of the same framework takes over.
func TestFailover(t *testing.T) {
	m := startMaster(t, "", nil)
	startAgent(t, m, small)
	first := startFramework(t, m.addr, frameworkOf("marathon", nil))
	id := first.next(t, "subscribed").id
	o := first.launch(t, id, "t1")
	first.state(t, "t1", task.Running)
	first.silent = true
	first.cancel()
	info := frameworkOf("marathon", func(f *mesosv1.FrameworkInfo) { f.Id = &mesosv1.FrameworkID{Value: &id} })
	second := startFramework(t, m.addr, info)
	if got := second.next(t, "subscribed").id; got != id {
		t.Fatalf("the second instance is %s, want %s", got, id)
	}
	second.Kill("t1", o.Agent, nil)
	second.state(t, "t1", task.Killed)
	second.launch(t, id, "t2")
	second.state(t, "t2", task.Running)
}

// TestDisplaced: two instances at once; the older one is told and let go.
func TestDisplaced(t *testing.T) {
	m := startMaster(t, "", nil)
	old := subscribe(t, m, jsonSubscribe("probe", ""))
	id := old.next(t, "SUBSCRIBED").path("subscribed", "framework_id", "value").(string)
	subscribe(t, m, jsonSubscribe("probe", id)).next(t, "SUBSCRIBED")
	if got := old.next(t, "ERROR").path("error", "message"); got != "Framework failed over" {
		t.Errorf("the old stream is told %q", got)
	}
	old.end(t)
}

func TestAgentGoesAndComesBack(t *testing.T) {
	m := startMaster(t, "", nil)
	st, data := store.NewMemory(), memory.New(memory.Config{})
	a := startAgentOn(t, m.addr, small, st, data)
	f := startFramework(t, m.addr, frameworkOf("marathon", nil))
	id := f.next(t, "subscribed").id
	o := f.launch(t, id, "t1")
	f.state(t, "t1", task.Running)
	f.offer(t) // it may have come before the update
	m.until(t, "the acknowledgement", func(s *master.Snapshot) bool { return s.Count.Acknowledgements > 0 })
	a.stop()
	f.next(t, "rescinded")
	m.until(t, "the agent disconnected", func(s *master.Snapshot) bool { return !s.Agents[0].Connected })
	f.offered = nil

	startAgentOn(t, m.addr, small, st, data)
	snap := m.until(t, "the agent back", func(s *master.Snapshot) bool { return s.Agents[0].Connected })
	if snap.Agents[0].ID != o.Agent || len(snap.Frameworks[0].Tasks) != 1 {
		t.Errorf("back as %s with %d tasks, want %s with 1", snap.Agents[0].ID, len(snap.Frameworks[0].Tasks), o.Agent)
	}
	f.launch(t, id, "t2")
	f.state(t, "t2", task.Running)
	f.Kill("t1", "", nil)
	f.state(t, "t1", task.Killed)
}

// TestUnreachable: an agent that answers no pings is given up, and taken back.
func TestUnreachable(t *testing.T) {
	m := startMaster(t, "", func(c *Config) {
		c.Core = master.DefaultConfig()
		c.Core.PingInterval, c.Core.PingLimit = 50*time.Millisecond, 2
	})
	st, data := store.NewMemory(), memory.New(memory.Config{})
	a := startAgentOn(t, m.addr, small, st, data)
	f := startFramework(t, m.addr, frameworkOf("marathon", nil))
	id := f.next(t, "subscribed").id
	f.launch(t, id, "t1")
	f.state(t, "t1", task.Running)
	a.stop()
	lost := f.state(t, "t1", task.Unreachable)
	if lost.status.Reason != task.ReasonAgentRemoved {
		t.Errorf("lost: %+v", lost.status)
	}
	f.next(t, "lost")
	startAgentOn(t, m.addr, small, st, data)
	if back := f.state(t, "t1", task.Running); back.status.Reason != task.ReasonAgentReregistered {
		t.Errorf("back: %+v", back.status)
	}
}

// TestSlowConsumer: who does not read is cut off, and nobody waits for it.
func TestSlowConsumer(t *testing.T) {
	m := startMaster(t, "", func(c *Config) { c.StreamQueue = 1 << 20 })
	f := subscribe(t, m, jsonSubscribe("slow", ""))
	id := f.next(t, "SUBSCRIBED").path("subscribed", "framework_id", "value").(string)
	tasks := strings.TrimSuffix(strings.Repeat(`{"task_id":{"value":"some task that nobody knows"}},`, 2000), ",")
	body := `{"type":"RECONCILE","framework_id":{"value":"` + id + `"},"reconcile":{"tasks":[` + tasks + `]}}`
	for range 1000 {
		resp, _ := m.post(t, "/api/v1/scheduler", body, "Content-Type", typeJSON, streamHeader, f.id)
		if resp.StatusCode == http.StatusForbidden {
			m.until(t, "the framework disconnected", func(s *master.Snapshot) bool { return !s.Frameworks[0].Connected })
			return
		}
	}
	t.Error("a framework that does not read is never cut off")
}

// TestStoreFails: what cannot be made durable is not done, and the master ends.
func TestStoreFails(t *testing.T) {
	broken := &brokenStore{Store: store.NewMemory()}
	m := startMaster(t, "", func(c *Config) { c.Store = broken })
	startAgent(t, m, small)
	if err := m.wait(); !errors.Is(err, errBroken) {
		t.Errorf("Run = %v, want %v", err, errBroken)
	}
	if err := m.View(context.Background(), func(*master.Core) {}); !errors.Is(err, errStopped) {
		t.Errorf("View = %v, want %v", err, errStopped)
	}
}

var errBroken = errors.New("the disk is full")

type brokenStore struct{ store.Store }

func (*brokenStore) Commit(context.Context, []store.Op) error { return errBroken }
