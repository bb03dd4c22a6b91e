package master

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mesopool/mesopool/task"
)

func draining(n int) AgentInfo {
	a := agentOf(n, "cpus:4;mem:4096")
	a.CapabilityNames = []string{"AGENT_DRAINING"}
	return a
}

// busy has an agent that can be drained, with one task on it.
func busy(t testing.TB) *script {
	s := newScript(t, nil)
	s.do(RegisterAgent{Agent: draining(1)})
	s.do(Subscribe{Info: frameworkOf("f"), Stream: "s1"})
	s.do(Accept{Framework: "m-0000", Offers: []string{"m-O0"}, Launches: []Launch{launchOf("a", "m-S0", "cpus:1")}})
	return s
}

func (s *script) refused(cmd Command, want error) {
	s.t.Helper()
	before := state(s.core)
	fx, err := s.core.Apply(s.now, cmd, nil)
	if !errors.Is(err, want) || len(fx) > 0 || state(s.core) != before {
		s.t.Errorf("%+v: %v, %v", cmd, err, text(fx))
	}
}

func has(fx []Effect, want string) bool {
	return slices.ContainsFunc(text(fx), func(s string) bool { return strings.Contains(s, want) })
}

func TestDrain(t *testing.T) {
	s := busy(t)
	grace := time.Minute
	fx := s.do(DrainAgent{Agent: "m-S0", Grace: &grace})
	expect(t, "the offer goes and the agent is told", fx, "m-0000 < rescind m-O1", "m-S0 < DrainMessage")
	s.refused(ActivateAgent{Agent: "m-S0", Active: true}, ErrConflict)
	u := updateOf("m-S0", "m-0000", "a", task.Killed)
	expect(t, "no offers of what is free", s.do(u), "m-0000 < a TASK_KILLED")
	if s.core.marks["m-S0"].Drain.Drained {
		t.Error("drained before the end is acknowledged")
	}
	s.do(ackOf(u))
	if d := s.core.marks["m-S0"].Drain; d == nil || !d.Drained {
		t.Errorf("not drained: %+v", d)
	}
	if fx := s.do(ActivateAgent{Agent: "m-S0", Active: true}); !has(fx, "offers m-O2") {
		t.Errorf("active again: %v", text(fx))
	}
}

// A drain outlives the master, and goes on where the agent comes back.
// An agent is empty, too, when the framework whose tasks it had ends.
func TestDrainEndsWithFramework(t *testing.T) {
	s := busy(t)
	s.do(DrainAgent{Agent: "m-S0"})
	if s.core.marks["m-S0"].Drain.Drained {
		t.Fatal("drained with a task")
	}
	s.do(Teardown{Framework: "m-0000"})
	if !s.core.marks["m-S0"].Drain.Drained {
		t.Error("the agent waits for ever for tasks of a framework that is over")
	}
}

func TestDrainRestored(t *testing.T) {
	s := newScript(t, nil)
	s.do(Restore{Marks: map[string]Marks{"old-S0": {Drain: &Drain{MarkGone: true}}}})
	info, f := draining(1), frameworkOf("f")
	info.ID, f.ID = "old-S0", "old-0000"
	s.do(Subscribe{Info: f, Stream: "s"})
	row := &Task{Key: task.Key{Framework: f.ID, ID: "a"}, Resources: amount("cpus:1").Allocated("web"), State: task.Running}
	fx := s.do(ReregisterAgent{Agent: info, Tasks: []*Task{row}, Frameworks: []FrameworkInfo{f}})
	if !has(fx, "DrainMessage") || has(fx, "offers") {
		t.Errorf("back: %v", text(fx))
	}
	u := updateOf(info.ID, f.ID, "a", task.Killed)
	s.do(u)
	if fx := s.do(ackOf(u)); !has(fx, "old-S0 < Shutdown") || s.core.agents[info.ID] != nil {
		t.Errorf("empty: %v", text(fx))
	}
	expect(t, "a gone agent stays away", s.do(ReregisterAgent{Agent: info}), "old-S0 < Shutdown")
}

func TestGone(t *testing.T) {
	s := busy(t)
	s.refused(MarkAgentGone{Agent: "nobody"}, ErrUnknownAgent)
	fx := s.do(MarkAgentGone{Agent: "m-S0"})
	if !has(fx, "a TASK_GONE_BY_OPERATOR REASON_AGENT_REMOVED_BY_OPERATOR") || !has(fx, "m-S0 < Shutdown") || !has(fx, "persist m-S0 false") {
		t.Errorf("gone: %v", text(fx))
	}
	expect(t, "twice", s.do(MarkAgentGone{Agent: "m-S0"}))
	expect(t, "asked", s.do(Reconcile{Framework: "m-0000", Tasks: []ReconcileTask{{ID: "a", Agent: "m-S0"}}}), "m-0000 < a TASK_GONE_BY_OPERATOR REASON_RECONCILIATION")
}

func TestUnreachableGone(t *testing.T) {
	s := busy(t)
	s.wait(2 * time.Minute)
	expect(t, "gone", s.do(MarkAgentGone{Agent: "m-S0"}), "m-0000 < a TASK_GONE_BY_OPERATOR REASON_AGENT_REMOVED_BY_OPERATOR", "persist m-S0 false")
}

func TestDeactivate(t *testing.T) {
	s := busy(t)
	expect(t, "deactivated", s.do(ActivateAgent{Agent: "m-S0"}), "m-0000 < rescind m-O1")
	if v := s.core.Snapshot().Agents[0]; v.Active() || !v.Connected {
		t.Errorf("%+v", v)
	}
	if fx := s.do(ActivateAgent{Agent: "m-S0", Active: true}); !has(fx, "offers") {
		t.Errorf("reactivated: %v", text(fx))
	}
	s.refused(ActivateAgent{Agent: "nobody"}, ErrInvalid)
	s.refused(DrainAgent{Agent: "nobody"}, ErrInvalid)
	incapable := small(t)
	incapable.refused(DrainAgent{Agent: "m-S0"}, ErrInvalid)
}

func planOf(m ...Machine) UpdateSchedule {
	return UpdateSchedule{Windows: []Window{{Machines: m, Start: epoch.Add(time.Hour), Length: time.Hour}}}
}

func TestMaintenance(t *testing.T) {
	s := busy(t)
	m := Machine{Hostname: "h1", IP: "10.0.0.1"}
	s.refused(StartMaintenance{Machines: []Machine{m}}, ErrInvalid)
	s.refused(planOf(), ErrInvalid)
	s.refused(planOf(m, m), ErrInvalid)
	s.refused(planOf(Machine{}), ErrInvalid)
	fx := s.do(planOf(m))
	if !has(fx, "rescind m-O1") || !has(fx, "m-0000 < offers") || !has(fx, "m-0000 < InverseOffers") {
		t.Errorf("planned: %v", text(fx))
	}
	for _, o := range s.core.offers {
		if o.Unavailable == nil || !o.Unavailable.Start.Equal(epoch.Add(time.Hour)) {
			t.Errorf("an offer without what is planned: %+v", o)
		}
	}
	inverse := s.core.Snapshot().Inverse
	if len(inverse) != 1 || inverse[0].Agent != "m-S0" {
		t.Fatalf("inverse offers: %+v", inverse)
	}
	s.do(AnswerInverse{Framework: "m-0000", Offers: []string{inverse[0].ID}, Answer: InverseDeclined, Refuse: time.Minute})
	if got := s.core.Snapshot().Inverse[0]; got.Answer != InverseDeclined {
		t.Errorf("answer: %+v", got)
	}
	if fx := pingless(s, 30*time.Second); has(fx, "InverseOffers") {
		t.Errorf("asked again too early: %v", text(fx))
	}
	s.do(Pong{Agent: "m-S0"})
	if fx := pingless(s, 40*time.Second); !has(fx, "InverseOffers") {
		t.Errorf("not asked again: %v", text(fx))
	}
	fx = s.do(StartMaintenance{Machines: []Machine{m}})
	if !has(fx, "m-S0 < Shutdown") || !has(fx, "a TASK_LOST") || !has(fx, "RescindInverse") {
		t.Errorf("down: %v", text(fx))
	}
	expect(t, "its agents stay away", s.do(RegisterAgent{Agent: draining(1)}), " < Shutdown")
	s.refused(UpdateSchedule{}, ErrInvalid)
	s.refused(StartMaintenance{Machines: []Machine{m}}, ErrInvalid)
	s.do(StopMaintenance{Machines: []Machine{m}})
	if got := s.core.maintenance; len(got.Windows)+len(got.Down) != 0 {
		t.Errorf("up: %+v", got)
	}
	if fx := s.do(RegisterAgent{Agent: draining(1)}); !has(fx, "Registered") {
		t.Errorf("back: %v", text(fx))
	}
}

// Agents of another region are for those frameworks that ask for it.
func TestRegions(t *testing.T) {
	s := newScript(t, func(c *Config) { c.Region = "here" })
	for i, region := range []string{"", "here", "there"} {
		a := agentOf(i+1, "cpus:1;mem:64")
		a.Region = region
		s.do(RegisterAgent{Agent: a})
	}
	f := frameworkOf("f")
	s.do(Subscribe{Info: f, Stream: "s0"})
	if n := len(s.core.frameworks["m-0000"].offers); n != 2 {
		t.Errorf("offered %d agents", n)
	}
	f.Capabilities.RegionAware = true
	s.do(Subscribe{Info: f, Stream: "s1"})
	if n := len(s.core.frameworks["m-0001"].offers); n != 1 {
		t.Errorf("the aware one is offered %d agents", n)
	}
}

// TestRemovalRate: agents that all fall silent at once are given up one after
// the other, and one that is heard of in between is not.
func TestRemovalRate(t *testing.T) {
	s := newScript(t, func(c *Config) { c.RemovalEvery = time.Minute })
	for i := range 3 {
		s.do(RegisterAgent{Agent: agentOf(i, "cpus:1")})
	}
	s.wait(95 * time.Second)
	if n := len(s.core.lost); n != 1 {
		t.Errorf("%d given up at once", n)
	}
	for id := range s.core.agents {
		s.do(Pong{Agent: id})
	}
	s.wait(50 * time.Second)
	if n := len(s.core.lost); n != 1 {
		t.Errorf("%d given up though they were heard of", n)
	}
	s.wait(5 * time.Minute)
	if n := len(s.core.lost); n != 3 {
		t.Errorf("%d given up in the end", n)
	}
}
