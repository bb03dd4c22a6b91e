package master

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// script drives a core and keeps what it did.
type script struct {
	t    testing.TB
	core *Core
	now  time.Time
	fx   []Effect // of the last step
}

func newScript(t testing.TB, change func(*Config)) *script {
	cfg := DefaultConfig()
	cfg.ID = "m"
	if change != nil {
		change(&cfg)
	}
	return &script{t: t, core: NewCore(cfg), now: epoch}
}

// do applies a command that must be taken, then lets time run to the end of
// what follows at once.
func (s *script) do(cmd Command) []Effect {
	s.t.Helper()
	var err error
	if s.fx, err = s.core.Apply(s.now, cmd, nil); err != nil {
		s.t.Fatalf("%T: %v", cmd, err)
	}
	return s.settle()
}

func (s *script) settle() []Effect {
	for next := s.core.Next(); !next.IsZero() && !next.After(s.now.Add(20*time.Millisecond)); next = s.core.Next() {
		if next.After(s.now) {
			s.now = next
		}
		s.fx, _ = s.core.Apply(s.now, Tick{}, s.fx)
	}
	return s.fx
}

// wait lets time pass, timer by timer.
func (s *script) wait(d time.Duration) []Effect {
	s.fx = nil
	end := s.now.Add(d)
	for next := s.core.Next(); !next.IsZero() && !next.After(end); next = s.core.Next() {
		if next.After(s.now) {
			s.now = next
		}
		s.fx, _ = s.core.Apply(s.now, Tick{}, s.fx)
	}
	s.now = end
	return s.fx
}

// text is what effects look like in tests.
func text(fx []Effect) []string {
	out := []string{}
	for _, e := range fx {
		switch e := e.(type) {
		case ToFramework:
			out = append(out, e.Framework+" < "+eventText(e.Event))
		case ToAgent:
			out = append(out, e.Agent+" < "+messageText(e.Message))
		case Persist:
			out = append(out, fmt.Sprintf("persist %s %v", e.ID, e.Agent != nil))
		case CloseStream:
			out = append(out, "close "+e.Stream)
		case Watch:
			out = append(out, "watch "+e.Agent)
		case Unwatch:
			out = append(out, "unwatch "+e.Agent)
		}
	}
	return out
}

func eventText(e Event) string {
	switch e := e.(type) {
	case Subscribed:
		return "subscribed"
	case Offers:
		var parts []string
		for _, o := range e.Offers {
			parts = append(parts, fmt.Sprintf("%s[%s %s]", o.ID, o.Agent, o.Resources))
		}
		return "offers " + strings.Join(parts, " ")
	case Rescind:
		return "rescind " + e.Offer
	case Update:
		out := fmt.Sprintf("%s %s", e.Task, e.Status.State)
		if e.Status.Reason != "" {
			out += " " + string(e.Status.Reason)
		}
		if !e.Unreachable.IsZero() {
			out += " since " + e.Unreachable.Sub(epoch).String()
		}
		return out
	case Failed:
		return "failed: " + e.Message
	default:
		return strings.TrimPrefix(fmt.Sprintf("%T", e), "master.")
	}
}

func messageText(m AgentMessage) string {
	switch m := m.(type) {
	case Ping:
		return fmt.Sprintf("ping %v", m.Connected)
	case Reregistered:
		n := 0
		for _, x := range m.Missing {
			n += len(x.Tasks)
		}
		return fmt.Sprintf("reregistered, %d missing", n)
	case RunTask:
		return "run " + string(m.Task)
	case RunGroup:
		return fmt.Sprintf("run %s on %s%s", bytes.Join(m.Tasks, []byte("+")), map[bool]string{false: "a new "}[m.Runs], m.Executor)
	case KillTask:
		return "kill " + m.Key.ID
	case AckUpdate:
		return "ack " + m.Key.ID
	case ShutdownFramework:
		return "shutdown framework " + m.Framework
	default:
		return strings.TrimPrefix(fmt.Sprintf("%T", m), "master.")
	}
}

func expect(t testing.TB, what string, fx []Effect, want ...string) {
	t.Helper()
	got := slices.DeleteFunc(text(fx), func(s string) bool { return strings.Contains(s, "ping true") })
	if want == nil {
		want = []string{}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func amount(text string) resources.Resources {
	r, err := resources.Parse(text)
	if err != nil {
		panic(err)
	}
	return r
}

func agentOf(n int, text string) AgentInfo {
	return AgentInfo{PID: fmt.Sprintf("slave(1)@10.0.0.%d:5051", n), Hostname: fmt.Sprintf("h%d", n), Version: "1.11.0", Resources: amount(text), MultiRole: true}
}

func frameworkOf(name string) FrameworkInfo {
	return FrameworkInfo{
		Name: name, Roles: []string{"web"}, FailoverTimeout: time.Hour,
		Capabilities: Capabilities{PartitionAware: true, MultiRole: true, ReservationRefinement: true},
	}
}

func launchOf(id, agent, text string) Launch {
	return Launch{ID: id, Name: id, Agent: agent, Resources: amount(text).Allocated("web"), Origin: []byte(id)}
}

func updateOf(agent, framework, id string, s task.State) StatusUpdate {
	uuid := task.UUID{1, byte(s)}
	return StatusUpdate{Agent: agent, Key: task.Key{Framework: framework, ID: id}, Latest: s, Status: Status{State: s, UUID: uuid}, Event: []byte(id)}
}

func ackOf(u StatusUpdate) Acknowledge {
	return Acknowledge{Key: u.Key, Agent: u.Agent, UUID: u.Status.UUID}
}

// small has one agent of 4 cpus and one framework that has got them offered.
func small(t testing.TB) *script {
	s := newScript(t, nil)
	s.do(RegisterAgent{Agent: agentOf(1, "cpus:4;mem:4096")})
	s.do(Subscribe{Info: frameworkOf("f"), Stream: "s1"})
	return s
}

func TestSubscribeAndOffers(t *testing.T) {
	s := newScript(t, nil)
	expect(t, "register", s.do(RegisterAgent{Agent: agentOf(1, "cpus:4;mem:4096")}), "persist m-S0 true", "watch m-S0", "m-S0 < Registered")
	expect(t, "register again", s.do(RegisterAgent{Agent: agentOf(1, "cpus:4;mem:4096")}), "m-S0 < Registered")
	expect(t, "subscribe", s.do(Subscribe{Info: frameworkOf("f"), Stream: "s1"}),
		"m-0000 < subscribed", "m-S0 < FrameworkUpdated", "m-0000 < offers m-O0[m-S0 cpus:4; mem:4096]")
}

func TestDeclineAndRevive(t *testing.T) {
	s := small(t)
	expect(t, "decline", s.do(Decline{Framework: "m-0000", Offers: []string{"m-O0"}, Refuse: 5 * time.Second}))
	expect(t, "within the time", s.wait(4*time.Second))
	expect(t, "after it", s.wait(2*time.Second), "m-0000 < offers m-O1[m-S0 cpus:4; mem:4096]")
	expect(t, "decline for long", s.do(Decline{Framework: "m-0000", Offers: []string{"m-O1"}, Refuse: time.Hour}))
	expect(t, "revive", s.do(Revive{Framework: "m-0000"}), "m-0000 < offers m-O2[m-S0 cpus:4; mem:4096]")
	s.do(Decline{Framework: "m-0000", Offers: []string{"m-O2"}})
	expect(t, "suppress", s.do(Suppress{Framework: "m-0000"}))
}

// TestFilterOfEachRefusal: a refusal of one amount must not end, nor be
// prolonged by, that of another.
func TestFilterOfEachRefusal(t *testing.T) {
	s := small(t)
	s.do(Accept{Framework: "m-0000", Offers: []string{"m-O0"}, Refuse: time.Minute, Launches: []Launch{launchOf("a", "m-S0", "cpus:1;mem:4000")}})
	u := updateOf("m-S0", "m-0000", "a", task.Finished)
	s.do(u)
	expect(t, "more than refused", s.settle(), "m-0000 < a TASK_FINISHED", "m-0000 < offers m-O1[m-S0 cpus:4; mem:4096]")
	s.do(Accept{Framework: "m-0000", Offers: []string{"m-O1"}, Refuse: time.Hour, Launches: []Launch{launchOf("b", "m-S0", "cpus:3.9;mem:96")}})
	u = updateOf("m-S0", "m-0000", "b", task.Finished)
	u.Status.UUID[2] = 9
	expect(t, "more than either", s.do(u), "m-0000 < b TASK_FINISHED", "m-0000 < offers m-O2[m-S0 cpus:4; mem:4096]")
	f := s.core.frameworks["m-0000"].filters[filterKey{"web", "m-S0"}]
	if len(f.refusals) != 2 {
		t.Fatalf("refusals: %+v", f.refusals)
	}
	for _, x := range []struct {
		after time.Duration
		offer string
		want  bool
	}{{0, "cpus:3;mem:96", true}, {0, "cpus:0.1;mem:4000", true}, {0, "cpus:1;mem:1000", false}, {2 * time.Minute, "cpus:3;mem:96", false}, {2 * time.Minute, "cpus:0.1;mem:4000", true}} {
		if got := f.holds(s.now.Add(x.after), amount(x.offer)); got != x.want {
			t.Errorf("after %v, %s: %v, want %v", x.after, x.offer, got, x.want)
		}
	}
}

func TestTaskLife(t *testing.T) {
	s := small(t)
	expect(t, "launch", s.do(Accept{Framework: "m-0000", Offers: []string{"m-O0"}, Launches: []Launch{launchOf("a", "m-S0", "cpus:1;mem:96")}}),
		"m-S0 < run a", "m-0000 < offers m-O1[m-S0 cpus:3; mem:4000]")
	running := updateOf("m-S0", "m-0000", "a", task.Running)
	expect(t, "running", s.do(running), "m-0000 < a TASK_RUNNING")
	expect(t, "ack", s.do(ackOf(running)), "m-S0 < ack a")
	expect(t, "kill", s.do(Kill{Key: running.Key, Agent: "m-S0"}), "m-S0 < kill a")
	killed := updateOf("m-S0", "m-0000", "a", task.Killed)
	expect(t, "killed", s.do(killed), "m-0000 < a TASK_KILLED", "m-0000 < offers m-O2[m-S0 cpus:1; mem:96]")
	expect(t, "last ack", s.do(ackOf(killed)), "m-S0 < ack a")
	if f := s.core.frameworks["m-0000"]; len(f.tasks) != 0 || len(f.done) != 1 || f.done[0].State != task.Killed {
		t.Errorf("tasks %v, done %v", f.tasks, f.done)
	}
}

func TestInvalidLaunches(t *testing.T) {
	for _, x := range []struct {
		name   string
		accept Accept
		want   []string
	}{
		{"unknown offer", Accept{Offers: []string{"m-O7"}, Launches: []Launch{launchOf("b", "m-S0", "cpus:1")}}, []string{"m-0000 < b TASK_DROPPED REASON_INVALID_OFFERS"}},
		{
			"the same offer twice",
			Accept{Offers: []string{"m-O0", "m-O0"}, Launches: []Launch{launchOf("b", "m-S0", "cpus:1")}},
			[]string{"m-0000 < b TASK_DROPPED REASON_INVALID_OFFERS", "m-0000 < offers m-O1[m-S0 cpus:4; mem:4096]"},
		},
		{"no offer", Accept{Launches: []Launch{launchOf("b", "m-S0", "cpus:1")}}, []string{"m-0000 < b TASK_DROPPED REASON_INVALID_OFFERS"}},
		{
			"invalid by itself",
			Accept{Offers: []string{"m-O0"}, Launches: []Launch{{ID: "b", Agent: "m-S0", Invalid: "no"}}},
			[]string{"m-0000 < b TASK_ERROR REASON_TASK_INVALID", "m-0000 < offers m-O1[m-S0 cpus:4; mem:4096]"},
		},
		{
			"group",
			Accept{Offers: []string{"m-O0"}, Launches: []Launch{{ID: "b", Agent: "m-S0", Invalid: "no", Group: "g"}}},
			[]string{"m-0000 < b TASK_ERROR REASON_TASK_GROUP_INVALID", "m-0000 < offers m-O1[m-S0 cpus:4; mem:4096]"},
		},
		{
			"duplicate ID",
			Accept{Offers: []string{"m-O0"}, Launches: []Launch{launchOf("b", "m-S0", "cpus:1"), launchOf("b", "m-S0", "cpus:1")}},
			[]string{"m-S0 < run b", "m-0000 < b TASK_ERROR REASON_TASK_INVALID", "m-0000 < offers m-O1[m-S0 cpus:3; mem:4096]"},
		},
		{
			"other agent",
			Accept{Offers: []string{"m-O0"}, Launches: []Launch{launchOf("b", "m-S9", "cpus:1")}},
			[]string{"m-0000 < b TASK_ERROR REASON_TASK_INVALID", "m-0000 < offers m-O1[m-S0 cpus:4; mem:4096]"},
		},
		{
			"too much",
			Accept{Offers: []string{"m-O0"}, Launches: []Launch{launchOf("b", "m-S0", "cpus:3"), launchOf("c", "m-S0", "cpus:2")}},
			[]string{"m-S0 < run b", "m-0000 < c TASK_ERROR REASON_TASK_INVALID", "m-0000 < offers m-O1[m-S0 cpus:1; mem:4096]"},
		},
	} {
		t.Run(x.name, func(t *testing.T) {
			s := small(t)
			x.accept.Framework = "m-0000"
			expect(t, x.name, s.do(x.accept), x.want...)
			if n := s.core.count.Ended; n[task.Dropped]+n[task.Error] != 1 {
				t.Errorf("counted as ended: %v", n)
			}
		})
	}
}

func TestFailover(t *testing.T) {
	s := small(t)
	s.do(Accept{Framework: "m-0000", Offers: []string{"m-O0"}, Launches: []Launch{launchOf("a", "m-S0", "cpus:4;mem:4096")}})
	info := frameworkOf("f")
	info.ID = "m-0000"
	expect(t, "displaced", s.do(Subscribe{Info: info, Stream: "s2"}),
		"m-0000 < failed: Framework failed over", "close s1", "m-0000 < subscribed", "m-S0 < FrameworkUpdated")
	expect(t, "the old stream's end", s.do(Disconnect{Framework: "m-0000", Stream: "s1"}))
	expect(t, "the new stream's end", s.do(Disconnect{Framework: "m-0000", Stream: "s2"}))
	expect(t, "back in time", pingless(s, 59*time.Minute))
	s.do(Subscribe{Info: info, Stream: "s3"})
	s.do(Disconnect{Framework: "m-0000", Stream: "s3"})
	expect(t, "the first timeout means nothing", pingless(s, 2*time.Minute))
	expect(t, "too late", pingless(s, time.Hour), "m-S0 < shutdown framework m-0000")
	expect(t, "gone", s.do(Subscribe{Info: info, Stream: "s4"}), " < failed: Framework has been removed", "close s4")
}

// pingless lets time pass with an agent that answers pings.
func pingless(s *script, d time.Duration) []Effect {
	var all []Effect
	for ; d > 0; d -= 15 * time.Second {
		s.do(Pong{Agent: "m-S0"})
		all = append(all, s.wait(15*time.Second)...)
	}
	return all
}

func TestUnreachableAndBack(t *testing.T) {
	s := small(t)
	s.do(Accept{Framework: "m-0000", Offers: []string{"m-O0"}, Launches: []Launch{launchOf("a", "m-S0", "cpus:1;mem:96")}})
	expect(t, "exited", s.do(AgentExited{PID: agentOf(1, "").PID}), "m-0000 < rescind m-O1")
	fx := s.wait(2 * time.Minute)
	fx = slices.DeleteFunc(fx, func(e Effect) bool { return strings.HasPrefix(text([]Effect{e})[0], "m-S0 < ping") })
	expect(t, "silence", fx, "m-0000 < a TASK_UNREACHABLE REASON_AGENT_REMOVED since 1m30s", "unwatch m-S0", "m-0000 < AgentLost")

	info := agentOf(1, "cpus:4;mem:4096")
	info.ID = "m-S0"
	f := frameworkOf("f")
	f.ID = "m-0000"
	row := &Task{Key: task.Key{Framework: "m-0000", ID: "a"}, Resources: amount("cpus:1;mem:96").Allocated("web"), State: task.Running}
	expect(t, "back", s.do(ReregisterAgent{Agent: info, Tasks: []*Task{row}, Frameworks: []FrameworkInfo{f}}),
		"persist m-S0 true", "watch m-S0", "m-S0 < reregistered, 0 missing",
		"m-0000 < a TASK_RUNNING REASON_AGENT_REREGISTERED", "m-S0 < FrameworkUpdated", "m-0000 < offers m-O2[m-S0 cpus:3; mem:4000]")
}

func TestReregisterKnown(t *testing.T) {
	s := small(t)
	s.do(Accept{Framework: "m-0000", Offers: []string{"m-O0"}, Launches: []Launch{launchOf("a", "m-S0", "cpus:1;mem:96"), launchOf("b", "m-S0", "cpus:1")}})
	s.do(AgentExited{PID: agentOf(1, "").PID})
	s.do(Kill{Key: task.Key{Framework: "m-0000", ID: "b"}})
	info := agentOf(1, "cpus:4;mem:4096")
	info.ID = "m-S0"
	row := &Task{Key: task.Key{Framework: "m-0000", ID: "b"}, Resources: amount("cpus:1").Allocated("web"), State: task.Running}
	f := frameworkOf("f")
	f.ID = "m-0000"
	expect(t, "back", s.do(ReregisterAgent{Agent: info, Tasks: []*Task{row}, Frameworks: []FrameworkInfo{f}}),
		"persist m-S0 true", "watch m-S0", "m-S0 < reregistered, 1 missing", "m-S0 < kill b", "m-S0 < FrameworkUpdated",
		"m-0000 < offers m-O2[m-S0 cpus:2; mem:4000]")
	info.Hostname = "other"
	expect(t, "another host", s.do(ReregisterAgent{Agent: info}), "m-S0 < Shutdown")
}

func TestRecovered(t *testing.T) {
	s := newScript(t, nil)
	info := agentOf(1, "cpus:4;mem:4096")
	info.ID = "old-S0"
	expect(t, "recover", s.do(Recover{Agent: info}), "old-S0 < ping false")
	f := frameworkOf("f")
	f.ID = "old-0000"
	s.do(Subscribe{Info: f, Stream: "s1"})
	expect(t, "no answer while it may come back", s.do(Reconcile{Framework: "old-0000", Tasks: []ReconcileTask{{ID: "a"}, {ID: "a", Agent: "old-S0"}}}))
	expect(t, "never back", s.wait(11*time.Minute), "old-0000 < AgentLost")
	expect(t, "unreachable then", s.do(Reconcile{Framework: "old-0000", Tasks: []ReconcileTask{{ID: "a", Agent: "old-S0"}}}),
		"old-0000 < a TASK_UNREACHABLE REASON_RECONCILIATION since 10m0s")
}

func TestReconcile(t *testing.T) {
	for _, aware := range []bool{true, false} {
		s := newScript(t, nil)
		s.do(RegisterAgent{Agent: agentOf(1, "cpus:4;mem:4096")})
		info := frameworkOf("f")
		info.Capabilities.PartitionAware = aware
		s.do(Subscribe{Info: info, Stream: "s1"})
		s.do(Accept{Framework: "m-0000", Offers: []string{"m-O0"}, Launches: []Launch{launchOf("a", "m-S0", "cpus:4;mem:4096")}})
		s.do(updateOf("m-S0", "m-0000", "a", task.Running))
		want := []string{"m-0000 < a TASK_RUNNING REASON_RECONCILIATION", "m-0000 < x TASK_GONE REASON_RECONCILIATION", "m-0000 < y TASK_UNKNOWN REASON_RECONCILIATION"}
		if !aware {
			want = []string{"m-0000 < a TASK_RUNNING REASON_RECONCILIATION", "m-0000 < x TASK_LOST REASON_RECONCILIATION", "m-0000 < y TASK_LOST REASON_RECONCILIATION"}
		}
		expect(t, "explicit", s.do(Reconcile{Framework: "m-0000", Tasks: []ReconcileTask{{ID: "a"}, {ID: "x", Agent: "m-S0"}, {ID: "y", Agent: "gone"}}}), want...)
		expect(t, "implicit", s.do(Reconcile{Framework: "m-0000"}), want[0])
		expect(t, "kill of the unknown", s.do(Kill{Key: task.Key{Framework: "m-0000", ID: "x"}, Agent: "m-S0"}), want[1])
	}
}

func TestRefusals(t *testing.T) {
	s := small(t)
	for _, cmd := range []Command{
		Accept{Framework: "nobody"},
		Decline{Framework: "nobody"},
		Kill{Key: task.Key{Framework: "nobody"}},
		Teardown{Framework: "nobody"},
		UpdateFramework{Info: FrameworkInfo{ID: "m-0000", User: "other"}},
		SetWeights{map[string]float64{"web": -1}},
		StatusUpdate{Agent: "nobody"},
		UnregisterAgent{Agent: "m-S0", PID: "someone else"},
		UpdateAgent{Agent: "m-S0", PID: "someone else"},
	} {
		before := state(s.core)
		if fx, err := s.core.Apply(s.now, cmd, nil); err == nil || len(fx) > 0 {
			t.Errorf("%T: %v, %v", cmd, err, fx)
		}
		if diff := cmp.Diff(before, state(s.core)); diff != "" {
			t.Errorf("%T changed something: %s", cmd, diff)
		}
	}
}

// state is all that a snapshot shows but the counters.
func state(c *Core) string {
	snap := c.Snapshot()
	snap.Count = Counters{}
	out, err := json.Marshal(snap)
	if err != nil {
		panic(err)
	}
	return string(out)
}

// world draws commands and checks what must always hold.
type world struct {
	*rapid.T
	core    *Core
	now     time.Time
	streams int
	offered map[string]bool
	ended   map[task.Key]task.State
	refused []refused
}

type refused struct {
	framework, role, agent string
	refusal
}

func TestProperties(t *testing.T) { rapid.Check(t, anySequence) }

// FuzzCommands is TestProperties for a fuzzer: no sequence of commands makes the
// core stumble or its books wrong.
func FuzzCommands(f *testing.F) { f.Fuzz(rapid.MakeFuzz(anySequence)) }

func anySequence(rt *rapid.T) {
	cfg := DefaultConfig()
	cfg.ID = "m"
	cfg.CompletedTasks, cfg.CompletedKept = 3, 2
	cfg.OfferTimeout = rapid.SampledFrom([]time.Duration{0, time.Minute}).Draw(rt, "offer timeout")
	w := &world{T: rt, core: NewCore(cfg), now: epoch, offered: map[string]bool{}, ended: map[task.Key]task.State{}}
	for range rapid.IntRange(1, 80).Draw(rt, "steps") {
		w.step()
	}
}

func (w *world) step() {
	switch rapid.IntRange(0, 11).Draw(w.T, "what") {
	case 0, 1:
		w.pass()
	case 2:
		w.apply(w.agentCommand())
	case 3:
		w.apply(w.frameworkCommand())
	case 4, 5, 6:
		w.answer()
	case 7, 8, 9:
		w.progress()
	default:
		w.apply(w.taskCommand())
	}
}

// pass lets time pass, timer by timer.
func (w *world) pass() {
	end := w.now.Add(time.Duration(rapid.IntRange(0, 40_000).Draw(w.T, "milliseconds")) * time.Millisecond)
	for next := w.core.Next(); !next.IsZero() && !next.After(end); next = w.core.Next() {
		if next.After(w.now) {
			w.now = next
		}
		w.apply(Tick{})
	}
	w.now = end
}

func pickOne[V any](w *world, m map[string]V, what string) (string, V) {
	keys := slices.Sorted(func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	})
	if len(keys) == 0 {
		var none V
		return "", none
	}
	k := rapid.SampledFrom(keys).Draw(w.T, what)
	return k, m[k]
}

func (w *world) agentCommand() Command {
	info := agentOf(rapid.IntRange(1, 3).Draw(w.T, "agent"), rapid.SampledFrom([]string{"cpus:4;mem:4096;ports:[1-9]", "cpus:200;mem:300000"}).Draw(w.T, "size"))
	info.SyntheticPorts = info.Hostname == "h3"
	id, a := pickOne(w, w.core.agents, "known agent")
	switch rapid.IntRange(0, 5).Draw(w.T, "about agents") {
	case 0:
		if a != nil {
			return AgentExited{PID: a.PID}
		}
	case 1:
		if a != nil {
			return UnregisterAgent{PID: a.PID, Agent: id}
		}
	case 2:
		if a != nil {
			return w.reregister(a.AgentInfo)
		}
	case 3:
		if lost, _ := pickOne(w, w.core.lost, "lost agent"); lost != "" {
			info.ID, info.Resources = lost, amount("cpus:200;mem:300000;ports:[1-9]")
			return w.reregister(info)
		}
	case 4:
		if a != nil {
			return Pong{Agent: id}
		}
	}
	return RegisterAgent{Agent: info}
}

// reregister brings back what the agent had, or a part of it.
func (w *world) reregister(info AgentInfo) Command {
	cmd := ReregisterAgent{Agent: info}
	for _, f := range w.core.sortedFrameworks() {
		listed := false
		for _, rows := range []map[string]*Task{f.tasks, f.unreachable} {
			for _, t := range sortedTasks(rows) {
				if t.Agent != info.ID || rapid.IntRange(0, 4).Draw(w.T, "forgotten") == 0 {
					continue
				}
				row := *t
				if f.unreachable[t.Key.ID] == t {
					row.State = task.Running
				}
				cmd.Tasks, listed = append(cmd.Tasks, &row), true
			}
		}
		if listed {
			cmd.Frameworks = append(cmd.Frameworks, f.FrameworkInfo)
		}
	}
	return cmd
}

func (w *world) frameworkCommand() Command {
	id, f := pickOne(w, w.core.frameworks, "framework")
	w.streams++
	stream := fmt.Sprintf("s%d", w.streams)
	info := frameworkOf(fmt.Sprintf("f%d", w.streams))
	info.Capabilities.PartitionAware = rapid.Bool().Draw(w.T, "partition aware")
	info.FailoverTimeout = rapid.SampledFrom([]time.Duration{0, time.Minute, time.Hour}).Draw(w.T, "failover timeout")
	info.Roles = rapid.SampledFrom([][]string{{"web"}, {"*"}, {"web", "db"}}).Draw(w.T, "roles")
	if f == nil {
		return Subscribe{Info: info, Stream: stream}
	}
	switch rapid.IntRange(0, 8).Draw(w.T, "about frameworks") {
	case 0:
		return Teardown{Framework: id}
	case 1:
		return Disconnect{Framework: id, Stream: f.stream}
	case 2, 3:
		info.ID = id
		return Subscribe{Info: info, Stream: stream}
	case 4:
		return Revive{Framework: id}
	case 5:
		return Suppress{Framework: id, Roles: []string{"web"}}
	case 6:
		info.ID = id
		return UpdateFramework{Info: info}
	case 7:
		return SetWeights{map[string]float64{"web": rapid.Float64Range(0.1, 4).Draw(w.T, "weight")}}
	}
	return Subscribe{Info: info, Stream: stream}
}

// answer accepts or declines some offers.
func (w *world) answer() {
	id, f := pickOne(w, w.core.frameworks, "framework")
	if f == nil {
		return
	}
	var offers []*Offer
	for range rapid.IntRange(0, 2).Draw(w.T, "offers") {
		if _, o := pickOne(w, f.offers, "offer"); o != nil {
			offers = append(offers, o)
		}
	}
	var ids []string
	for _, o := range offers {
		ids = append(ids, o.ID)
	}
	if rapid.IntRange(0, 9).Draw(w.T, "wrong") == 0 {
		ids = append(ids, "m-O999999")
	}
	refuse := rapid.SampledFrom([]time.Duration{0, 5 * time.Second, time.Hour}).Draw(w.T, "refuse")
	if rapid.Bool().Draw(w.T, "decline") {
		if f.stream != "" {
			w.noteRefusals(id, offers, refuse)
		}
		w.apply(Decline{Framework: id, Offers: ids, Refuse: refuse})
		return
	}
	cmd := Accept{Framework: id, Offers: ids, Refuse: refuse}
	for range rapid.IntRange(0, 3).Draw(w.T, "launches") {
		l := launchOf(fmt.Sprintf("t%d", rapid.IntRange(0, 5).Draw(w.T, "task")), "m-S0", rapid.SampledFrom([]string{"cpus:0.5;mem:64", "cpus:3", "cpus:1;mem:32;ports:[2-3]"}).Draw(w.T, "amount"))
		if len(offers) > 0 {
			l.Agent = offers[0].Agent
			l.Resources = l.Resources.Allocated(offers[0].Role)
		}
		cmd.Launches = append(cmd.Launches, l)
	}
	w.apply(cmd)
}

func (w *world) noteRefusals(id string, offers []*Offer, d time.Duration) {
	if d == 0 {
		return
	}
	for i, o := range offers {
		if !slices.Contains(offers[:i], o) {
			w.refused = append(w.refused, refused{id, o.Role, o.Agent, refusal{o.Resources.Allocated(""), w.now.Add(d)}})
		}
	}
}

// progress moves a task on, or acknowledges.
func (w *world) progress() {
	id, f := pickOne(w, w.core.frameworks, "framework")
	if f == nil {
		return
	}
	name, t := pickOne(w, f.tasks, "task")
	if t == nil {
		return
	}
	if rapid.Bool().Draw(w.T, "ack") {
		w.apply(Acknowledge{Key: t.Key, Agent: t.Agent, UUID: t.StatusUUID})
		return
	}
	u := updateOf(t.Agent, id, name, rapid.SampledFrom([]task.State{task.Starting, task.Running, task.Killing, task.Finished, task.Failed}).Draw(w.T, "state"))
	if rapid.Bool().Draw(w.T, "ahead") {
		u.Latest = task.Finished
	}
	w.apply(u)
}

func (w *world) taskCommand() Command {
	id, f := pickOne(w, w.core.frameworks, "framework")
	name := "t9"
	if f != nil {
		name, _ = pickOne(w, f.tasks, "task")
	}
	switch rapid.IntRange(0, 2).Draw(w.T, "about tasks") {
	case 0:
		return Kill{Key: task.Key{Framework: id, ID: name}}
	case 1:
		return Reconcile{Framework: id}
	default:
		return Reconcile{Framework: id, Tasks: []ReconcileTask{{ID: name}, {ID: "nothing"}}}
	}
}

// apply carries a command out and checks everything.
func (w *world) apply(cmd Command) {
	before := state(w.core)
	fx, err := w.core.Apply(w.now, cmd, nil)
	if err != nil && (len(fx) > 0 || before != state(w.core)) {
		w.Fatalf("%T was refused (%v) and changed something", cmd, err)
	}
	switch cmd := cmd.(type) {
	case Revive:
		w.forgetRefusals(cmd.Framework)
	case Subscribe:
		w.forgetRefusals(cmd.Info.ID)
	case UpdateFramework:
		w.forgetRefusals(cmd.Info.ID)
	}
	w.checkEffects(fx)
	w.checkBooks()
	w.checkStates()
}

func (w *world) forgetRefusals(framework string) {
	w.refused = slices.DeleteFunc(w.refused, func(r refused) bool { return r.framework == framework })
}

func (w *world) checkEffects(fx []Effect) {
	for _, e := range fx {
		to, ok := e.(ToFramework)
		if !ok {
			continue
		}
		list, ok := to.Event.(Offers)
		if !ok {
			continue
		}
		for _, o := range list.Offers {
			if w.offered[o.ID] {
				w.Fatalf("offer %s was made twice", o.ID)
			}
			w.offered[o.ID] = true
			for _, r := range w.refused {
				if r.framework == o.Framework && r.role == o.Role && r.agent == o.Agent && w.now.Before(r.until) && r.amount.Contains(o.Resources.Allocated("")) {
					w.Fatalf("offer %s of %s is within the refused %s", o.ID, o.Resources, r.amount)
				}
			}
		}
	}
}

// checkBooks compares every sum with what it is the sum of.
func (w *world) checkBooks() {
	used, offered := map[string]resources.Resources{}, map[string]resources.Resources{}
	shares := map[[2]string]resources.Scalars{}
	count := func(sum map[string]resources.Resources, agent, framework string, r resources.Resources) {
		sum[agent] = sum[agent].Add(w.core.agents[agent].counted(r)...)
		for i := range r {
			k := [2]string{r[i].Role, framework}
			shares[k] = shares[k].Add(resources.Resources{r[i]}.Scalars())
		}
	}
	for _, f := range w.core.frameworks {
		for _, t := range f.tasks {
			a := w.core.agents[t.Agent]
			if a == nil {
				w.Fatalf("task %s is on the unknown agent %s", t.Key, t.Agent)
			}
			if _, there := a.tasks[t]; !there {
				w.Fatalf("task %s is not with its agent %s", t.Key, t.Agent)
			}
			if !t.State.Terminal() {
				count(used, t.Agent, f.ID, t.Resources)
			}
		}
		for _, o := range f.offers {
			count(offered, o.Agent, f.ID, o.Resources)
		}
	}
	for id, a := range w.core.agents {
		for t := range a.tasks {
			if w.core.taskOn(a, t.Key) != t {
				w.Fatalf("agent %s has a row of %s that its framework does not have", id, t.Key)
			}
		}
		if !a.used.Equal(used[id]) || !a.offered.Equal(offered[id]) {
			w.Fatalf("agent %s: used %s, not %s; offered %s, not %s", id, a.used, used[id], a.offered, offered[id])
		}
		if all := a.passing(a.used.Add(a.offered...)).Allocated(""); !a.Resources.Contains(all) {
			w.Fatalf("agent %s has %s and gives %s", id, a.Resources, all)
		}
		w.checkPorts(a)
	}
	w.checkSorters(shares)
}

// checkPorts: those that are for show are in every offer, whole.
func (w *world) checkPorts(a *agent) {
	isPorts := func(r *resources.Resource) bool { return r.Name == "ports" }
	all := a.Resources.Filter(isPorts)
	for _, o := range a.offers {
		if got := o.Resources.Filter(isPorts).Allocated(""); a.SyntheticPorts && !got.Equal(all) {
			w.Fatalf("agent %s has the ports %s for show and offers %s", a.ID, all, got)
		}
	}
}

func (w *world) checkSorters(shares map[[2]string]resources.Scalars) {
	byRole := map[string]resources.Scalars{}
	for k, v := range shares {
		byRole[k[0]] = byRole[k[0]].Add(v)
	}
	for role, s := range w.core.inRole {
		if got := w.core.roles.Allocated(role); !slices.Equal(got, byRole[role]) {
			w.Fatalf("role %s: the sorter has %v, tasks and offers are %v", role, got, byRole[role])
		}
		delete(byRole, role)
		for _, id := range s.Sort() {
			if got := s.Allocated(id); !slices.Equal(got, shares[[2]string{role, id}]) {
				w.Fatalf("%s in role %s: the sorter has %v, tasks and offers are %v", id, role, got, shares[[2]string{role, id}])
			}
		}
	}
	for role, sum := range byRole {
		if len(sum) > 0 {
			w.Fatalf("role %s has %v and no sorter", role, sum)
		}
	}
}

// checkStates: a task that has ended stays as it ended for as long as it is
// listed.
func (w *world) checkStates() {
	listed := map[task.Key]bool{}
	for _, f := range w.core.frameworks {
		for _, t := range f.tasks {
			listed[t.Key] = true
			if end, ok := w.ended[t.Key]; ok && end != t.State {
				w.Fatalf("task %s was %s and is %s", t.Key, end, t.State)
			}
			if t.State.Terminal() {
				w.ended[t.Key] = t.State
			}
		}
	}
	for k := range w.ended {
		if !listed[k] {
			delete(w.ended, k)
		}
	}
}

// A launch that reached its agent only after the agent had been given up and
// was back (simulated, seed 106) is learned of with the agent's next
// registration, so that it can be ended.
func TestLateLaunch(t *testing.T) {
	s := small(t)
	u := updateOf("m-S0", "m-0000", "late", task.Starting)
	expect(t, "an update of an unknown task", s.do(u), "m-0000 < late TASK_STARTING", "m-S0 < ping false")
	info := agentOf(1, "cpus:4;mem:4096")
	info.ID = "m-S0"
	row := &Task{Key: u.Key, Name: "late", Resources: amount("cpus:1;mem:64").Allocated("web"), State: task.Starting}
	s.do(ReregisterAgent{Agent: info, Tasks: []*Task{row}, Frameworks: []FrameworkInfo{func() FrameworkInfo { f := frameworkOf("f"); f.ID = "m-0000"; return f }()}})
	expect(t, "it can be ended", s.do(Kill{Key: u.Key}), "m-S0 < kill late")
	expect(t, "the end of an unknown task needs nothing", s.do(updateOf("m-S0", "m-0000", "other", task.Failed)), "m-0000 < other TASK_FAILED")
}

// A registration that crosses the acknowledgement of a task's end (simulated,
// seed 106) leaves no row that nobody would ever end.
func TestRegistrationCrossesAcknowledgement(t *testing.T) {
	s := small(t)
	s.do(Accept{Framework: "m-0000", Offers: []string{"m-O0"}, Launches: []Launch{launchOf("t", "m-S0", "cpus:1;mem:64")}})
	u := updateOf("m-S0", "m-0000", "t", task.Finished)
	s.do(u)
	s.do(ackOf(u))
	info, f := agentOf(1, "cpus:4;mem:4096"), frameworkOf("f")
	info.ID, f.ID = "m-S0", "m-0000"
	row := &Task{Key: u.Key, Resources: amount("cpus:1;mem:64").Allocated("web"), State: task.Finished, StatusState: task.Finished, StatusUUID: u.Status.UUID}
	s.do(ReregisterAgent{Agent: info, Tasks: []*Task{row}, Frameworks: []FrameworkInfo{f}})
	view := s.core.Snapshot().Frameworks[0]
	if len(view.Tasks) != 0 || len(view.Done) != 1 {
		t.Errorf("%d tasks, %d done", len(view.Tasks), len(view.Done))
	}
	expect(t, "an acknowledgement that was lost", s.do(u), "m-0000 < t TASK_FINISHED")
	expect(t, "is passed on the second time", s.do(ackOf(u)), "m-S0 < ack t")
}
