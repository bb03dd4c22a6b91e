package agent

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

// onExecutor launches tasks on the executor e, one by one or as a group.
func onExecutor(single bool, ids ...string) LaunchGroup {
	g := LaunchGroup{Framework: aware, Pod: execSpec("f1", "e"), Single: single}
	g.Pod.Env = []task.Label{{Key: ExecutorToken, Value: "user's"}, {Key: ExecutorToken, Value: "secret"}}
	for _, id := range ids {
		g.Tasks = append(g.Tasks, spec(id))
	}
	return g
}

// executorIs is the executor's container as the backend shows it.
func executorIs(s provider.State, change ...func(*provider.Container)) provider.Container {
	k := container("x", s, change...)
	k.ID, k.Key = "c-e", task.Key{Framework: "f1", ID: task.PodID("e")}
	k.Name = ContainerName(owner.Cluster, k.Key, "pod")
	return k
}

func connects(session uint64, tasks ...string) Subscribe {
	return Subscribe{Framework: "f1", Executor: "e", Session: session, Tasks: tasks}
}

func says(id string, n byte, state task.State) ExecutorUpdate {
	return ExecutorUpdate{Framework: "f1", Executor: "e", ExecutorStatus: ExecutorStatus{
		Task: id, Status: task.Status{State: state, Source: task.SourceExecutor, Time: t0, UUID: task.UUID{n}, Origin: []byte{n}, Data: []byte("data")},
	}}
}

func eventText(e ExecutorEvent) string {
	switch e := e.(type) {
	case RunTask:
		return "run " + e.Spec.Key.ID
	case *RunGroup:
		var ids []string
		for _, s := range e.Specs {
			ids = append(ids, s.Key.ID)
		}
		return "run group " + strings.Join(ids, "+")
	case KillTask:
		return "kill " + e.ID
	case Acknowledged:
		return fmt.Sprintf("acknowledge %s %d", e.ID, e.UUID[0])
	case Message:
		return "message " + string(e.Data)
	case Cut:
		return "cut"
	}
	return strings.ToLower(strings.TrimPrefix(fmt.Sprintf("%T", e), "agent."))
}

func TestExecutorLife(t *testing.T) {
	up := answer{k: executorIs(provider.StateUp)}
	ended := Seen{Event: provider.Event{Container: executorIs(provider.StateExited, exit(3))}}
	launch := move{in: onExecutor(true, "a"), want: `launch pod\e`}
	begun := []move{launch, {in: up}, {in: connects(1), want: "1 subscribed; 1 run a"}}
	runs := append(slices.Clone(begun), move{in: says("a", 1, task.Running), want: "report RUNNING; 1 acknowledge a 1; announce 10.0.0.1"}, move{in: acked("a")})
	for name, moves := range map[string][]move{
		"a further task": {{in: onExecutor(true, "b"), want: "1 run b"}, {in: onExecutor(true, "b")}},
		"a group":        {{in: onExecutor(false, "b", "c"), want: "1 run group b+c"}},
		"told twice":     {{in: says("a", 1, task.Running), want: "1 acknowledge a 1"}},
		"told lower":     {{in: says("a", 2, task.Starting), want: "1 acknowledge a 2"}},
		"told again":     {{in: says("a", 2, task.Running), want: "report RUNNING; 1 acknowledge a 2"}},
		"of a stranger":  {{in: says("z", 2, task.Running), want: "1 acknowledge z 2"}},
		"kill":           {{in: Kill{Key: key("a")}, want: "1 kill a"}, {in: Kill{Key: key("a")}, want: "1 kill a"}, {in: says("a", 2, task.Killed), want: "withdraw; report KILLED; 1 acknowledge a 2"}, {in: acked("a")}},
		"its end":        {{in: ended, want: "withdraw; report FAILED; executor gone 768"}},
		"removed":        {{in: Seen{Event: provider.Event{Container: executorIs(provider.StateGone)}}, want: "withdraw; report FAILED; executor gone -1"}},
		"its end, alone": {{in: says("a", 2, task.Finished), want: "withdraw; report FINISHED; 1 acknowledge a 2"}, {in: ended, want: "executor gone 768"}, {in: acked("a")}},
		"shut down":      {{in: ShutdownExecutor{"f1", "e"}, want: "1 shutdown"}, {in: onExecutor(true, "b"), want: "report DROPPED"}, {wait: 5 * time.Second, want: "stop c-e 0s"}},
		"framework ends": {{in: ShutdownFramework{"f1"}, want: "1 shutdown"}, {in: ended, want: "executor gone 768"}},
		"messages":       {{in: FrameworkMessage{"f1", "e", []byte("hi")}, want: "1 message hi"}, {in: ExecutorSaid{"f1", "e", []byte("ho")}, want: "said ho"}},
		"another type":   {{in: group("e", "b"), want: "report FAILED"}},
		"was to be new":  {{in: with(onExecutor(true, "b"), true), want: "report DROPPED"}},
		"was to be old":  {{in: with(LaunchGroup{Framework: aware, Pod: execSpec("f1", "o"), Tasks: []task.Spec{spec("b")}}, false), want: "report DROPPED; executor gone -1"}},
		"drain":          {{in: Drain{}, want: "draining; 1 kill a"}, {in: says("a", 2, task.Killed), want: "withdraw; report KILLED; 1 shutdown; 1 acknowledge a 2"}},
		"a break": {
			{in: Unsubscribe{"f1", "e", 1}},
			{in: Kill{Key: key("a")}},
			{in: onExecutor(true, "b")},
			{wait: time.Hour},
			{in: Subscribe{Framework: "f1", Executor: "e", Session: 2, Updates: []ExecutorStatus{says("a", 1, task.Running).ExecutorStatus}}, want: "2 subscribed; 2 acknowledge a 1; 2 kill a; 2 run b"},
			{in: Unsubscribe{"f1", "e", 1}},
			{in: FrameworkMessage{"f1", "e", []byte("hi")}, want: "2 message hi"},
			{in: connects(1)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, testConfig())
			h.play([]move{{in: Joined{}}})
			h.play(runs)
			h.play(moves)
		})
	}
	for name, moves := range map[string][]move{
		"connects before it is seen": {launch, {in: connects(1), want: "1 subscribed"}, {in: up, want: "1 run a"}},
		"killed before":              {launch, {in: Kill{Key: key("a")}, want: `report KILLED; cancel pod\e`}, {in: up, want: "stop c-e 5s"}},
		"killed while it starts":     {launch, {in: up}, {in: Kill{Key: key("a")}, want: "report KILLED; stop c-e 5s"}},
		"a group is killed whole":    {{in: onExecutor(false, "a", "b"), want: `launch pod\e`}, {in: Kill{Key: key("b")}, want: `report KILLED; report KILLED; cancel pod\e`}},
		"does not connect":           {launch, {in: up}, {wait: time.Minute, want: "stop c-e 0s"}, {in: ended}, {in: answer{}, want: "report FAILED; executor gone 768"}},
		"cannot be launched":         {launch, {in: answer{err: provider.ErrRejected}, want: "report FAILED; executor gone -1"}},
		"not handed over":            {launch, {in: up}, {in: connects(1), want: "1 subscribed; 1 run a"}, {in: connects(2), want: "2 subscribed; report DROPPED"}},
		"not handed over, but known": {launch, {in: up}, {in: connects(1), want: "1 subscribed; 1 run a"}, {in: connects(2, "a"), want: "2 subscribed"}},
		"nobody":                     {{in: connects(1), want: "1 cut"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, testConfig())
			h.play([]move{{in: Joined{}}})
			h.play(moves)
		})
	}
}

func with(g LaunchGroup, fresh bool) LaunchGroup {
	g.New = &fresh
	return g
}

// What an executor has told survives a restart of the agent, word by word.
func TestExecutorRecovery(t *testing.T) {
	h := newHarness(t, testConfig())
	h.play([]move{
		{in: onExecutor(true, "a"), want: `launch pod\e`},
		{in: answer{k: executorIs(provider.StateUp)}},
		{in: connects(1), want: "1 subscribed; 1 run a"},
		{in: says("a", 1, task.Running), want: "1 acknowledge a 1; announce 10.0.0.1"},
	})
	saved := Recover{Frameworks: []Framework{aware}}
	for _, k := range []task.Key{key("a"), {Framework: "f1", ID: task.PodID("e")}} {
		r := h.core.tasks[k]
		again := reread(t, &r.Record)
		diff(t, "heard", r.Heard, again.Heard)
		if k == key("a") {
			diff(t, "pending", r.Pending, again.Pending)
		}
		saved.Tasks = append(saved.Tasks, again)
	}
	for name, moves := range map[string][]move{
		"comes back":  {{in: connects(1), want: "1 subscribed"}, {in: says("a", 1, task.Running), want: "1 acknowledge a 1"}, {wait: time.Hour}},
		"stays away":  {{wait: 15 * time.Minute, want: "stop c-e 0s"}, {in: Seen{Event: provider.Event{Container: executorIs(provider.StateExited)}}}, {in: answer{}, want: "withdraw; executor gone -1"}},
		"has ended":   {{in: Seen{Event: provider.Event{Container: executorIs(provider.StateExited, exit(0))}}, want: "withdraw; executor gone 0"}},
		"further one": {{in: onExecutor(true, "b")}, {in: connects(1), want: "1 subscribed; 1 run b"}},
	} {
		t.Run(name, func(t *testing.T) {
			again := newHarness(t, testConfig())
			again.play([]move{
				{in: saved, want: "announce 10.0.0.1"},
				{in: Seen{Event: provider.Event{Container: executorIs(provider.StateUp)}}},
				{in: synced, want: "all known"},
			})
			if roster := again.core.Roster(); len(roster.Executors) != 1 || roster.Executors[0].Connected {
				t.Errorf("executors: %+v", roster.Executors)
			}
			if v := again.core.Executor("f1", "e"); v.Spec == nil || v.Token() != "secret" || !v.Framework || v.Connected {
				t.Errorf("executor: %+v", v)
			}
			again.play(moves)
		})
	}
}
