package agent

import (
	"strings"
	"testing"
	"time"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/store"
	"github.com/mesopool/mesopool/task"
)

// drainOf is a task of a framework that is up when the agent is to drain.
func drainOf(f Framework, kill *time.Duration, more ...move) []move {
	s := spec("t")
	s.KillGrace = kill
	return append([]move{
		{in: Joined{}},
		{in: Launch{Framework: f, Spec: s}, want: started},
		{in: acked("t")},
		{in: answer{k: container("t", provider.StateUp)}, want: "report RUNNING; announce 10.0.0.1"},
		{in: acked("t")},
	}, more...)
}

func drain(grace *time.Duration, gone bool) Input {
	return Drain{Config: DrainConfig{MaxGrace: grace, MarkGone: gone}}
}

func TestDrain(t *testing.T) {
	minute := time.Minute
	other := Launch{Framework: aware, Spec: spec("u")}
	for name, moves := range map[string][]move{
		"nothing to drain": {
			{in: drain(nil, true)},
			{in: other, want: "launch u"},
		},
		"a whole drain": drainOf(
			aware, nil,
			move{in: drain(&second, false), want: "draining; report KILLING; stop c-t 1s withdraw"},
			move{in: acked("t")},
			move{in: other, want: "report DROPPED"},
			move{in: acked("u")},
			move{in: answer{}},
			move{in: exited(143), want: "report KILLED"},
			move{in: acked("t"), want: "drained"},
			move{in: other, want: "report STARTING; launch u"},
		),
		"for good": drainOf(
			aware, nil,
			move{in: drain(nil, true), want: "draining; report KILLING; stop c-t 5s withdraw"},
			move{in: acked("t")},
			move{in: answer{}},
			move{in: exited(143), want: "report GONE_BY_OPERATOR"},
			move{in: acked("t"), want: "drained"},
		),
		"for good, of a framework that knows only the old states": drainOf(
			fw, nil,
			move{in: drain(nil, true), want: "draining; stop c-t 5s withdraw"},
			move{in: Launch{Framework: fw, Spec: spec("u")}, want: "report LOST"},
			move{in: answer{}},
			move{in: exited(143), want: "report KILLED"},
		),
		"the task's grace is longer":  drainOf(fw, &minute, move{in: drain(&second, false), want: "draining; stop c-t 1s withdraw"}),
		"the task's grace is shorter": drainOf(fw, &second, move{in: drain(&minute, false), want: "draining; stop c-t 1s withdraw"}),
		"a kill does not lengthen it": drainOf(
			fw, nil,
			move{in: drain(&second, false), want: "draining; stop c-t 1s withdraw"},
			move{in: killIn(time.Minute)},
			move{in: answer{}, want: "stop c-t 1s"},
		),
		"during a launch": {
			{in: Joined{}},
			{in: Launch{Framework: fw, Spec: spec("t")}, want: started},
			{in: drain(nil, false), want: "draining; cancel t"},
		},
	} {
		t.Run(name, func(t *testing.T) { newHarness(t, testConfig()).play(moves) })
	}
}

func TestDrainSaysWhy(t *testing.T) {
	h := newHarness(t, testConfig())
	h.play(drainOf(aware, nil, move{in: drain(nil, false), want: "draining; report KILLING; stop c-t 5s withdraw"}))
	h.play([]move{{in: Launch{Framework: aware, Spec: spec("u")}, want: "report DROPPED"}})
	if got := h.core.tasks[key("t")].Pending[0]; got.Reason != reasonDraining {
		t.Errorf("killing: %+v", got)
	}
	if got := h.core.tasks[key("u")].Pending[0]; got.Reason != reasonDraining || !strings.Contains(got.Message, "draining") {
		t.Errorf("dropped: %+v", got)
	}
	if h.core.Roster().Drain == nil {
		t.Error("the roster does not tell")
	}
}

// Draining goes on after a restart, as long as there is something to drain.
func TestDrainIsRemembered(t *testing.T) {
	h := newHarness(t, testConfig())
	var fx []Effect
	for _, in := range []Input{Launch{Framework: fw, Spec: spec("t")}, drain(&second, true)} {
		fx = h.core.Step(t0, in, fx)
	}
	ops, err := newWriter().write(fx)
	if err != nil {
		t.Fatal(err)
	}
	s := store.NewMemory()
	if err := s.Commit(t.Context(), ops); err != nil {
		t.Fatal(err)
	}
	saved, err := loadState(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	diff(t, "drain", &DrainConfig{MaxGrace: &second, MarkGone: true}, saved.Drain)
	h = newHarness(t, testConfig())
	h.play([]move{
		{in: saved},
		{in: Joined{}, want: "report STARTING"},
		{in: Launch{Framework: fw, Spec: spec("u")}, want: "report LOST"},
	})
	if got := h.core.tasks[key("u")].State; got != task.Lost {
		t.Errorf("state %v", got)
	}
	newHarness(t, testConfig()).play([]move{{in: Recover{Drain: saved.Drain}, want: "drained"}})
}
