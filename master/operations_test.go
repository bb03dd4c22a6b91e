package master

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// capable is an agent that keeps the books of operations itself.
func capable(n int, text string) AgentInfo {
	a := agentOf(n, text)
	a.ResourceProvider = true
	a.ResourceVersion = []byte("version")
	a.CapabilityNames = []string{"HIERARCHICAL_ROLE", "RESERVATION_REFINEMENT", "RESOURCE_PROVIDER", "RESIZE_VOLUME", "AGENT_OPERATION_FEEDBACK"}
	return a
}

// reserved is an amount with a stack of dynamic reservations.
func reserved(text string, roles ...string) resources.Resources {
	out := amount(text)
	for i := range out {
		for _, role := range roles {
			out[i].Reservations = append(slices.Clone(out[i].Reservations), resources.Reservation{Dynamic: true, Role: role})
		}
	}
	return out
}

func volume(text, role, id string) resources.Resources {
	out := reserved(text, role)
	out[0].Disk = &resources.Disk{PersistenceID: id, ContainerPath: "data"}
	return out
}

func changeOf(id string, before int, kind resources.OperationKind, target resources.Resources) Change {
	return Change{ID: id, Before: before, Op: resources.Operation{Kind: kind, Target: target}, Wire: []byte(id)}
}

// one has an agent with a disk, and a framework that has got all of it offered.
func one(t testing.TB, agent AgentInfo) *script {
	s := newScript(t, nil)
	s.do(RegisterAgent{Agent: agent})
	s.do(Subscribe{Info: frameworkOf("f"), Stream: "s1"})
	return s
}

const large = "cpus:4;mem:4096;disk:1000"

func TestReserveCreateLaunch(t *testing.T) {
	s := one(t, capable(1, large))
	vol := volume("disk:100", "web", "v")
	l := launchOf("a", "m-S0", "cpus:1")
	l.Resources = reserved("cpus:1", "web").Add(vol...).Allocated("web")
	fx := s.do(Accept{
		Framework: "m-0000", Offers: []string{"m-O0"}, Refuse: time.Hour, Launches: []Launch{l},
		Changes: []Change{
			changeOf("r", 0, resources.OpReserve, reserved("cpus:2;disk:100", "web")), changeOf("c", 0, resources.OpCreate, vol),
			changeOf("late", 1, resources.OpUnreserve, reserved("cpus:1", "web")), changeOf("bad", 1, resources.OpUnreserve, reserved("cpus:9", "web")),
		},
	})
	expect(t, "all in one", fx, "m-S0 < ApplyOperation", "m-S0 < ApplyOperation", "m-S0 < run a", "m-S0 < ApplyOperation", "m-0000 < OperationUpdate")
	if want := amount("cpus:3;mem:4096;disk:900").Add(reserved("cpus:1", "web")...).Add(vol...); !s.core.agents["m-S0"].Resources.Equal(want) {
		t.Errorf("the agent has %s, want %s", s.core.agents["m-S0"].Resources, want)
	}
	if got := s.core.agents["m-S0"].used; !got.Equal(l.Resources) {
		t.Errorf("used: %s", got)
	}
}

// An agent without RESOURCE_PROVIDER is told all that it must keep, and gets it
// again when it comes back without.
func TestCheckpointResources(t *testing.T) {
	s := one(t, agentOf(1, large))
	kept := reserved("cpus:2", "web")
	fx := s.do(Accept{Framework: "m-0000", Offers: []string{"m-O0"}, Changes: []Change{changeOf("", 0, resources.OpReserve, kept)}})
	checkpointed := func(fx []Effect) (out []resources.Resources) {
		for _, e := range fx {
			if to, ok := e.(ToAgent); ok {
				if m, ok := to.Message.(CheckpointResources); ok {
					out = append(out, m.Resources)
				}
			}
		}
		return out
	}
	if got := checkpointed(fx); len(got) != 1 || !got[0].Equal(kept) {
		t.Errorf("told %v", got)
	}
	back := agentOf(1, large)
	back.ID = "m-S0"
	if got := checkpointed(s.do(ReregisterAgent{Agent: back})); len(got) != 1 || !got[0].Equal(kept) {
		t.Errorf("told again %v", got)
	}
	if got := s.core.agents["m-S0"].Resources.Checkpointed(); !got.Equal(kept) {
		t.Errorf("the master forgot %s", got)
	}
}

func TestRefusedChanges(t *testing.T) {
	noFeedback := capable(1, large)
	noFeedback.CapabilityNames = nil
	for _, x := range []struct {
		name  string
		agent AgentInfo
		ch    Change
		state OperationState
	}{
		{"more than offered", capable(1, large), changeOf("x", 0, resources.OpReserve, reserved("cpus:5", "web")), OperationError},
		{"invalid by itself", capable(1, large), Change{ID: "x", Invalid: "no"}, OperationError},
		{"no feedback", noFeedback, changeOf("x", 0, resources.OpReserve, reserved("cpus:1", "web")), OperationError},
		{"an ID in use", capable(1, large), changeOf("used", 0, resources.OpReserve, reserved("cpus:1", "web")), OperationError},
	} {
		s := one(t, x.agent)
		s.do(Accept{Framework: "m-0000", Offers: []string{"m-O0"}, Changes: []Change{changeOf("used", 0, resources.OpReserve, reserved("mem:1", "web"))}})
		before := s.core.agents["m-S0"].Resources
		fx := s.do(Accept{Framework: "m-0000", Offers: []string{"m-O1"}, Changes: []Change{x.ch}})
		u, ok := fx[0].(ToFramework).Event.(OperationUpdate)
		if !ok || u.State != x.state || u.Message == "" || !s.core.agents["m-S0"].Resources.Equal(before) {
			t.Errorf("%s: %v, %s", x.name, fx[0], s.core.agents["m-S0"].Resources)
		}
	}
	s := one(t, capable(1, large))
	fx := s.do(Accept{Framework: "m-0000", Offers: []string{"m-O9"}, Changes: []Change{changeOf("x", 0, resources.OpReserve, reserved("cpus:1", "web")), changeOf("", 0, resources.OpReserve, nil)}})
	expect(t, "invalid offers", fx, "m-0000 < OperationUpdate")
}

func statusOf(o *Operation, s OperationState) OperationStatus {
	return OperationStatus{Agent: o.Agent, Framework: o.Framework, ID: o.ID, UUID: o.UUID, Status: task.UUID{9, byte(s)}, State: s, Wire: []byte("w")}
}

func TestOperationFeedback(t *testing.T) {
	s := one(t, capable(1, large))
	s.do(Accept{Framework: "m-0000", Offers: []string{"m-O0"}, Changes: []Change{
		changeOf("named", 0, resources.OpReserve, reserved("cpus:1", "web")), changeOf("", 0, resources.OpReserve, reserved("mem:8", "web")),
	}})
	named := s.core.frameworks["m-0000"].operations["named"]
	var other *Operation
	for _, o := range s.core.agents["m-S0"].operations {
		if o != named {
			other = o
		}
	}
	expect(t, "one that nobody named is acknowledged by the master", s.do(statusOf(other, OperationFinished)), "m-S0 < AckOperation")
	expect(t, "again", s.do(statusOf(other, OperationFinished)), "m-S0 < AckOperation")
	expect(t, "a named one is told", s.do(statusOf(named, OperationFinished)), "m-0000 < OperationUpdate")
	expect(t, "it is known", s.do(ReconcileOperations{Framework: "m-0000"}), "m-0000 < OperationUpdate")
	expect(t, "a wrong acknowledgement", s.do(AcknowledgeOperation{Framework: "m-0000", ID: "named", Status: task.UUID{1}}))
	expect(t, "the right one", s.do(AcknowledgeOperation{Framework: "m-0000", ID: "named", Status: task.UUID{9, 2}}), "m-S0 < AckOperation")
	if n := len(s.core.agents["m-S0"].operations); n != 0 {
		t.Errorf("%d operations are left", n)
	}
	fx := s.do(ReconcileOperations{Framework: "m-0000", Operations: []ReconcileTask{{ID: "named", Agent: "m-S0"}, {ID: "x"}}})
	for _, e := range fx {
		if u := e.(ToFramework).Event.(OperationUpdate); u.State != OperationUnknown {
			t.Errorf("unknown: %+v", u)
		}
	}
}

// What the agent could not do makes it register again with what it has.
func TestOperationFails(t *testing.T) {
	s := one(t, capable(1, large))
	s.do(Accept{Framework: "m-0000", Offers: []string{"m-O0"}, Changes: []Change{changeOf("x", 0, resources.OpReserve, reserved("cpus:1", "web"))}})
	expect(t, "dropped", s.do(statusOf(s.core.frameworks["m-0000"].operations["x"], OperationDropped)), "m-0000 < OperationUpdate", "m-S0 < ping false")
	back := capable(1, large)
	back.ID = "m-S0"
	s.do(ReregisterAgent{Agent: back})
	if got := s.core.agents["m-S0"].Resources; !got.Equal(amount(large)) {
		t.Errorf("the agent has %s", got)
	}
}

// A registration from before the agent had the operation takes its effect out of
// the books; when the operation has ended the agent says anew what it has, and
// only if there is something new to say.
func TestOperationCrossesRegistration(t *testing.T) {
	for end, again := range map[OperationState]bool{OperationFinished: true, OperationDropped: false} {
		s := one(t, capable(1, large))
		s.do(Accept{Framework: "m-0000", Offers: []string{"m-O0"}, Changes: []Change{changeOf("x", 0, resources.OpReserve, reserved("cpus:1", "web"))}})
		back := capable(1, large)
		back.ID = "m-S0"
		s.do(ReregisterAgent{Agent: back})
		status := statusOf(s.core.frameworks["m-0000"].operations["x"], end)
		fx := text(s.do(status))
		if got := slices.Contains(fx, "m-S0 < ping false"); got != again {
			t.Errorf("%v: asked to register again is %v: %v", end, got, fx)
		}
		expect(t, "told again", s.do(status), "m-0000 < OperationUpdate")
		s.do(AcknowledgeOperation{Framework: "m-0000", ID: "x", Status: status.Status})
		if a := s.core.agents["m-S0"]; len(a.operations)+len(a.doubtful) > 0 {
			t.Errorf("%v: %d operations are left, %d in doubt", end, len(a.operations), len(a.doubtful))
		}
	}
}

func TestOperationsRestored(t *testing.T) {
	s := newScript(t, nil)
	info, f := capable(1, large), frameworkOf("f")
	info.ID, f.ID = "old-S0", "old-0000"
	s.do(Subscribe{Info: f, Stream: "s1"})
	s.do(ReregisterAgent{Agent: info, Frameworks: []FrameworkInfo{f}})
	named := &Operation{UUID: task.UUID{1}, Framework: f.ID, ID: "x", State: OperationFinished, StatusUUID: task.UUID{2}}
	s.do(UpdateAgent{PID: info.PID, Agent: info.ID, Listed: true, Operations: []*Operation{named}})
	u := statusOf(named, OperationFinished)
	u.Agent = info.ID
	expect(t, "told", s.do(u), "old-0000 < OperationUpdate")
	expect(t, "acknowledged", s.do(AcknowledgeOperation{Framework: f.ID, ID: "x", Status: u.Status}), "old-S0 < AckOperation")
	o := s.core.frameworks[f.ID].offers
	for id := range o {
		s.do(Accept{Framework: f.ID, Offers: []string{id}, Changes: []Change{changeOf("y", 0, resources.OpReserve, reserved("cpus:1", "web"))}})
	}
	expect(t, "the agent does not list one", s.do(UpdateAgent{PID: info.PID, Agent: info.ID, Listed: true}), "old-S0 < AskOperations")
	fx := s.do(Teardown{Framework: f.ID})
	if got := text(fx); slices.Contains(got, "old-S0 < AckOperation") {
		t.Errorf("an operation that has not ended is acknowledged: %v", got)
	}
	y := statusOf(s.core.operationsOf(s.core.agents[info.ID])[0], OperationFinished)
	expect(t, "the master acknowledges in place of the framework", s.do(y), "old-S0 < AckOperation")
}

func TestOperate(t *testing.T) {
	s := one(t, capable(1, large))
	op := func(ch Change) error {
		fx, err := s.core.Apply(s.now, Operate{Agent: "m-S0", Change: ch}, nil)
		if err != nil && len(fx) > 0 {
			t.Errorf("refused with effects %v", text(fx))
		}
		s.fx = fx
		return err
	}
	if err := op(changeOf("", 0, resources.OpReserve, reserved("cpus:5", "db"))); !errors.Is(err, ErrConflict) {
		t.Errorf("too much: %v", err)
	}
	if err := op(changeOf("", 0, resources.OpReserve, reserved("cpus:3", "db"))); err != nil {
		t.Error(err)
	}
	expect(t, "the offer goes", s.fx, "m-0000 < rescind m-O0", "m-S0 < ApplyOperation")
	fx := s.settle()
	if got := text(fx); got[len(got)-1] != "m-0000 < offers m-O1[m-S0 cpus:1; mem:4096; disk:1000]" {
		t.Errorf("what another role has reserved is offered: %v", got)
	}
	s.do(Accept{Framework: "m-0000", Offers: []string{"m-O1"}, Launches: []Launch{launchOf("a", "m-S0", "cpus:1")}})
	if err := op(changeOf("", 0, resources.OpReserve, reserved("cpus:1", "db"))); !errors.Is(err, ErrConflict) {
		t.Errorf("in use: %v", err)
	}
	if _, err := s.core.Apply(s.now, Operate{Agent: "nobody"}, nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("unknown agent: %v", err)
	}
}

// Reservations go to the role's subtree, refined ones only to those who know
// what they are.
func TestSubtree(t *testing.T) {
	s := newScript(t, nil)
	info := capable(1, "mem:100")
	info.Resources = info.Resources.Add(reserved("cpus:1", "eng")...).Add(reserved("cpus:2", "eng", "eng/web")...)
	s.do(RegisterAgent{Agent: info})
	for i, x := range []struct {
		role    string
		refines bool
		cpus    resources.Milli
	}{{"eng", true, 1000}, {"eng/web", true, 3000}, {"eng/web", false, 1000}, {"ops", true, 0}, {"eng/db/a", true, 1000}, {"eng/webx", true, 1000}} {
		f := frameworkOf("f")
		f.Roles, f.Capabilities.ReservationRefinement = []string{x.role}, x.refines
		s.do(Subscribe{Info: f, Stream: "s"})
		id := fmt.Sprintf("m-%04d", i)
		var got resources.Milli
		for _, o := range s.core.frameworks[id].offers {
			got += o.Resources.Amount("cpus")
		}
		if got != x.cpus {
			t.Errorf("%+v: is offered %v cpus", x, got)
		}
		s.do(Teardown{Framework: id})
	}
}

// TestOperationProperties: whatever is reserved, made and used, the agent's
// amounts stay what they were, and nothing is given twice.
func TestOperationProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := one(t, capable(1, large))
		tasks := 0
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			s.now = s.now.Add(time.Second)
			s.settle()
			a, f := s.core.agents["m-S0"], s.core.frameworks["m-0000"]
			var offers []string
			var pool resources.Resources
			for _, o := range s.core.offersOf(a) {
				offers, pool = append(offers, o.ID), pool.Add(o.Resources...)
			}
			cmd := Accept{Framework: f.ID, Offers: offers}
			for range rapid.IntRange(0, 4).Draw(rt, "operations") {
				n := rapid.IntRange(1, 3).Draw(rt, "amount")
				text := fmt.Sprintf("disk:%d", n*100)
				switch rapid.IntRange(0, 5).Draw(rt, "kind") {
				case 0:
					cmd.Changes = append(cmd.Changes, changeOf("", len(cmd.Launches), resources.OpReserve, reserved(text, "web")))
				case 1:
					cmd.Changes = append(cmd.Changes, changeOf("", len(cmd.Launches), resources.OpUnreserve, reserved(text, "web")))
				case 2:
					cmd.Changes = append(cmd.Changes, changeOf("", len(cmd.Launches), resources.OpCreate, volume(text, "web", fmt.Sprint(n))))
				case 3:
					cmd.Changes = append(cmd.Changes, changeOf("", len(cmd.Launches), resources.OpDestroy, volume(text, "web", fmt.Sprint(n))))
				case 4:
					tasks++
					l := launchOf(fmt.Sprintf("t%d", tasks), a.ID, "cpus:0.5")
					l.Resources = l.Resources.Add(rapid.SampledFrom([]resources.Resources{
						volume(text, "web", fmt.Sprint(n)), reserved(text, "web"), amount(text),
					}).Draw(rt, "disk").Allocated("web")...)
					cmd.Launches = append(cmd.Launches, l)
				default:
					if id, row := anyTask(f.tasks); row != nil && !row.State.Terminal() {
						s.do(updateOf(a.ID, f.ID, id, task.Finished))
					}
				}
			}
			s.do(cmd)
			if got := a.Resources.Stripped(); !got.Equal(amount(large)) {
				rt.Fatalf("the agent's amounts are %s", got)
			}
			if all := a.used.Add(a.offered...).Allocated(""); !a.Resources.Contains(all) {
				rt.Fatalf("%s is given of %s", all, a.Resources)
			}
		}
	})
}

func anyTask(tasks map[string]*Task) (string, *Task) {
	for _, t := range sortedTasks(tasks) {
		return t.Key.ID, t
	}
	return "", nil
}
