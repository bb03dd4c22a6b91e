package agent

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

// asking is running, or launched, of a task with wishes.
func asking(change func(*task.Spec), up bool) []move {
	s := spec("t")
	change(&s)
	moves := []move{
		{in: Joined{}},
		{in: WatchStarted{}},
		{in: synced, want: joinedAll},
		{in: Launch{Framework: fw, Spec: s}, want: started},
		{in: acked("t")},
	}
	if up {
		moves = append(moves, move{in: answer{k: container("t", provider.StateUp)}, want: "report RUNNING; announce 10.0.0.1"}, move{in: acked("t")})
	}
	return moves
}

func atMost(d time.Duration) func(*task.Spec) {
	return func(s *task.Spec) { s.MaxCompletion = d }
}

var limitTable = map[string][]move{
	"the time is over": of(
		asking(atMost(time.Minute), true),
		move{wait: time.Minute - 1},
		move{wait: 1, want: "stop c-t 0s withdraw"},
		move{in: answer{}},
		move{in: exited(137), want: "report FAILED"},
	),
	"it ended in time": of(
		asking(atMost(time.Minute), true),
		move{in: exited(0), want: "withdraw; report FINISHED"},
		move{in: acked("t")},
		move{wait: 4 * time.Minute},
	),
	"it was being killed": of(
		asking(atMost(time.Minute), true),
		move{in: killIn(time.Hour), want: "stop c-t 1h0m0s withdraw"},
		move{in: answer{}},
		move{wait: 59 * time.Minute},
		move{in: exited(137), want: "report KILLED"},
	),
	"a kill does not lengthen it": of(
		asking(atMost(time.Minute), true),
		move{wait: time.Minute, want: "stop c-t 0s withdraw"},
		move{in: killIn(time.Hour)},
		move{in: answer{}},
		move{in: exited(137), want: "report FAILED"},
	),
	"during the launch": of(
		asking(atMost(time.Minute), false),
		move{wait: time.Minute, want: "cancel t"},
		move{in: answer{err: errLater}, want: "inspect by name"},
		move{in: answer{err: errAbsent}, want: "report FAILED"},
	),
	"it counts while the agent is away": {
		{in: Recover{Tasks: []Record{{
			Spec: task.Spec{Key: key("t"), Name: "web", MaxCompletion: time.Hour}, Name: nameOf("t"), State: task.Running,
			Container: container("t", provider.StateUp), Since: t0.Add(-2 * time.Hour), Tried: true,
		}}, Frameworks: []Framework{fw}}, want: "announce 10.0.0.1"},
		{in: Joined{}, want: "inspect c-t"},
		{in: answer{k: container("t", provider.StateUp)}, want: "stop c-t 0s withdraw"},
	},
}

func TestMaxCompletion(t *testing.T) {
	for name, moves := range limitTable {
		t.Run(name, func(t *testing.T) { newHarness(t, testConfig()).play(moves) })
	}
}

func TestMaxCompletionSaysWhy(t *testing.T) {
	h := newHarness(t, testConfig())
	h.play(limitTable["the time is over"])
	got := h.core.tasks[key("t")].Pending[0]
	if got.Reason != task.ReasonMaxCompletionTime || !strings.Contains(got.Message, "max_completion_time of 1m0s") || !strings.Contains(got.Message, "status 137") {
		t.Errorf("status: %+v", got)
	}
}

func checked(change ...func(*task.HealthCheck)) func(*task.Spec) {
	return func(s *task.Spec) {
		s.Health = &task.HealthCheck{
			Type: task.CheckTCP, Port: 80, Delay: 15 * second, Interval: 10 * second, Timeout: 20 * second, Grace: 20 * second, Failures: 3,
		}
		for _, f := range change {
			f(s.Health)
		}
	}
}

func probed(healthy bool) Input {
	return Probed{Key: key("t"), ID: "c-t", Healthy: healthy, Cause: "refused"}
}

const (
	aProbe    = "probe c-t 10.0.0.1:80"
	healthy   = "report RUNNING healthy"
	unhealthy = "report RUNNING unhealthy"
)

var healthTable = map[string][]move{
	"first success, then silence, then failures": of(
		asking(checked(), true),
		move{wait: 15*second - 1},
		move{wait: 1, want: aProbe},
		move{wait: 2 * second, in: probed(true), want: healthy},
		move{in: acked("t")},
		move{wait: 10*second - 1},
		move{wait: 1, want: aProbe},
		move{in: probed(true)},
		move{wait: 10 * second, want: aProbe},
		move{in: probed(false), want: unhealthy},
		move{in: acked("t")},
		move{wait: 10 * second, want: aProbe},
		move{in: probed(false), want: unhealthy},
		move{in: acked("t")},
		move{wait: 10 * second, want: aProbe},
		move{in: probed(true), want: healthy},
		move{in: acked("t")},
		move{wait: 10 * second, want: aProbe},
		move{in: probed(false), want: unhealthy},
	),
	"failures in the grace period count for nothing": of(
		asking(checked(), true),
		move{wait: 15 * second, want: aProbe},
		move{in: probed(false)},
		move{wait: 10 * second, want: aProbe},
		move{in: probed(false), want: unhealthy},
	),
	"the grace period ends with the first success": of(
		asking(checked(func(h *task.HealthCheck) { h.Grace = time.Hour }), true),
		move{wait: 15 * second, want: aProbe},
		move{in: probed(true), want: healthy},
		move{in: acked("t")},
		move{wait: 10 * second, want: aProbe},
		move{in: probed(false), want: unhealthy},
	),
	"too many failures": of(
		asking(checked(func(h *task.HealthCheck) { h.Grace, h.Failures = 0, 2 }), true),
		move{wait: 15 * second, want: aProbe},
		move{in: probed(false), want: unhealthy},
		move{in: acked("t")},
		move{wait: 10 * second, want: aProbe},
		move{in: probed(false), want: unhealthy + "; stop c-t 5s withdraw"},
		move{in: acked("t")},
		move{in: answer{}},
		move{in: exited(0), want: "report KILLED unhealthy"},
	),
	"answers that are not asked for": of(
		asking(checked(), true),
		move{in: probed(false)},
		move{in: Probed{Key: key("x"), Healthy: true}},
		move{wait: 15 * second, want: aProbe},
		move{in: Probed{Key: key("t"), ID: "c-former"}},
		move{in: probed(true), want: healthy},
		move{in: probed(false)},
	),
	"no probe of what is killed": of(
		asking(checked(), true),
		move{wait: 15 * second, want: aProbe},
		move{in: killT, want: "stop c-t 5s withdraw"},
		move{in: probed(false)},
		move{in: answer{}},
		move{in: exited(143), want: "report KILLED"},
		move{in: acked("t")},
		move{wait: time.Minute},
	),
	"a published port": of(
		asking(checked(), false),
		move{in: answer{k: container("t", provider.StateUp, func(k *provider.Container) {
			k.PublishIP, k.Ports = "9.9.9.9", []task.Port{{Container: 80, Host: 3080}}
		})}, want: "report RUNNING; announce 10.0.0.1"},
		move{in: acked("t")},
		move{wait: 15 * second, want: "probe c-t 9.9.9.9:3080"},
	),
	"a command": of(
		asking(checked(func(h *task.HealthCheck) { h.Type, h.Command.Value = task.CheckCommand, "true" }), true),
		move{wait: 15 * second, want: "probe c-t"},
	),
}

func TestHealth(t *testing.T) {
	for name, moves := range healthTable {
		t.Run(name, func(t *testing.T) { newHarness(t, testConfig()).play(moves) })
	}
}

// Updates that nobody acknowledges do not grow without bound, and the history
// has the last one of each state.
func TestRepeatedUpdatesAreBounded(t *testing.T) {
	h := newHarness(t, testConfig())
	h.play(asking(checked(func(h *task.HealthCheck) { h.Grace, h.Failures = 0, 1000 }), true))
	h.play([]move{{in: Parted{}}})
	for range 100 {
		h.move(move{wait: 15 * second})
		h.move(move{in: probed(false)})
	}
	r := h.core.tasks[key("t")]
	if len(r.Pending) != maxPending {
		t.Errorf("%d updates wait, want %d", len(r.Pending), maxPending)
	}
	full := reread(t, &r.Record)
	if len(full.Pending) != maxPending || full.Pending[0].UUID != r.Pending[0].UUID || full.Healthy == nil || *full.Healthy {
		t.Errorf("saved: %d pending, healthy %v", len(full.Pending), full.Healthy)
	}
	h.move(move{in: Joined{}})
	for range maxPending {
		h.move(move{in: acked("t")})
	}
	if n := len(r.History); n != 2 || len(r.Pending) != 0 || r.History[1].Healthy == nil || *r.History[1].Healthy {
		t.Errorf("history: %+v", r.History)
	}
}

// What a roster has given away stays as it was.
func TestRosterIsNotWritten(t *testing.T) {
	h := newHarness(t, testConfig())
	h.play(asking(checked(), true))
	before := h.core.Roster().Tasks[0].History
	want := fmt.Sprintf("%+v", before)
	h.play([]move{{wait: 15 * second, want: aProbe}, {in: probed(true), want: healthy}, {in: acked("t")}})
	if got := fmt.Sprintf("%+v", before); got != want {
		t.Errorf("the history was %s and is %s", want, got)
	}
}

// A task that was healthy before the agent's restart still is.
func TestHealthIsRemembered(t *testing.T) {
	for was, want := range map[bool]string{true: "", false: healthy} {
		s := spec("t")
		checked()(&s)
		newHarness(t, testConfig()).play([]move{
			{in: Recover{Tasks: []Record{{
				Spec: s, Name: nameOf("t"), State: task.Running, Container: container("t", provider.StateUp), Since: t0, Healthy: &was,
			}}, Frameworks: []Framework{fw}}, want: "announce 10.0.0.1"},
			{in: Joined{}},
			{in: up, want: "announce 10.0.0.1"},
			{wait: 15 * second, want: aProbe},
			{in: probed(true), want: want},
		})
	}
}

func TestChecksThatCannotBeMade(t *testing.T) {
	cfg := testConfig()
	cfg.NoExec = true
	for word, h := range map[string]task.HealthCheck{
		"cannot run commands": {Type: task.CheckCommand, Command: task.Command{Value: "true"}},
		"names no port":       {Type: task.CheckHTTP},
	} {
		s := spec("t")
		s.Health = &h
		c := newHarness(t, cfg)
		c.play([]move{{in: Joined{}}, {in: Launch{Framework: fw, Spec: s}, want: "report FAILED"}})
		if got := c.core.tasks[key("t")].Pending[0].Message; !strings.Contains(got, word) {
			t.Errorf("message: %s", got)
		}
	}
}

// A launch in trouble tells each reason once, and no more than a few.
func TestTroubleIsTold(t *testing.T) {
	h := newHarness(t, testConfig())
	h.play(starting())
	for _, err := range []error{errLater, errThrottle} {
		h.play([]move{{in: answer{err: err}, want: again(err)}, {in: acked("t")}})
		h.move(move{wait: 40 * second})
		h.play([]move{{in: answer{err: err}}})
		h.move(move{wait: 40 * second})
	}
	told := 0
	for i := range 50 {
		h.step(answer{err: fmt.Errorf("%w: %d", provider.ErrThrottle, i)})
		r := h.core.tasks[key("t")]
		if r.State.Terminal() {
			break
		}
		if len(r.Pending) > 0 {
			told++
			h.step(acked("t"))
		}
		h.move(move{wait: 40 * second})
	}
	if told == 0 || told > maxTroubles-1 {
		t.Errorf("%d further messages", told)
	}
}

// Who fails with an answer each time is given up sooner than who is busy or
// does not answer.
func TestLaunchesThatKeepFailing(t *testing.T) {
	dial := &net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded}
	for err, want := range map[error]time.Duration{
		errLater: 2 * time.Minute, errThrottle: 10 * time.Minute, errDenied: 10 * time.Minute, dial: 10 * time.Minute,
	} {
		h := newHarness(t, testConfig())
		h.play(starting())
		r := h.core.tasks[key("t")]
		for !r.State.Terminal() {
			h.step(answer{err: err})
			h.move(move{wait: 30 * second})
		}
		if took := h.now.Sub(t0); took < want || took > want+time.Minute {
			t.Errorf("%v: given up after %v, want %v", err, took, want)
		}
		if last := r.Pending[len(r.Pending)-1]; !strings.Contains(last.Message, err.Error()) || last.State != task.Failed {
			t.Errorf("%v: %+v", err, last)
		}
	}
}
