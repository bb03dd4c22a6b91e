package agent

import (
	"testing"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

func watched(value *int32) Input {
	return Probed{Key: key("t"), ID: "c-t", Check: &task.CheckStatus{Type: task.CheckHTTP, Value: value}}
}

func statusCheck(s *task.Spec) {
	s.Check = &task.HealthCheck{Type: task.CheckHTTP, Port: 81, Delay: 15 * second, Interval: 10 * second, Timeout: 20 * second}
}

const aCheck = "probe c-t 10.0.0.1:81"

var checkTable = map[string][]move{
	"news only, and no consequences": of(
		asking(statusCheck, true),
		move{wait: 15*second - 1},
		move{wait: 1, want: aCheck},
		move{in: watched(nil)}, // as before the first result
		move{wait: 10*second - 1},
		move{wait: 1, want: aCheck},
		move{wait: 3 * second, in: watched(new(int32(200))), want: "report RUNNING"},
		move{in: acked("t")},
		move{in: watched(new(int32(500)))}, // nobody asked
		move{wait: 10 * second, want: aCheck},
		move{in: watched(new(int32(200)))},
		move{wait: 10 * second, want: aCheck},
		move{in: watched(new(int32(500))), want: "report RUNNING"},
		move{in: acked("t")},
		move{wait: 10 * second, want: aCheck},
		move{in: watched(nil), want: "report RUNNING"},
		move{in: acked("t")},
		move{wait: 10 * second, want: aCheck},
	),
	"beside a health check": of(
		asking(func(s *task.Spec) { checked()(s); statusCheck(s) }, true),
		move{wait: 15 * second, want: aProbe + "; " + aCheck},
		move{in: watched(new(int32(200))), want: "report RUNNING"},
		move{in: acked("t")},
		move{in: probed(true), want: healthy},
		move{in: acked("t")},
		move{wait: 10 * second, want: aProbe + "; " + aCheck},
	),
	"no more after a kill": of(
		asking(statusCheck, true),
		move{wait: 15 * second, want: aCheck},
		move{in: killT, want: "stop c-t 5s withdraw"},
		move{in: watched(new(int32(200)))},
	),
}

func TestChecks(t *testing.T) {
	for name, moves := range checkTable {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, testConfig())
			h.play(moves)
		})
	}
}

// Every status of a task with a check says of what kind it is, and its last
// result, also after a restart.
func TestEveryStatusHasTheCheck(t *testing.T) {
	h := newHarness(t, testConfig())
	h.play(checkTable["news only, and no consequences"][:7])
	want := &task.CheckStatus{Type: task.CheckHTTP}
	r := h.core.tasks[key("t")]
	for i := range r.History {
		s := r.History[i]
		if s.Reason == task.ReasonCheckStatus {
			want = &task.CheckStatus{Type: task.CheckHTTP, Value: new(int32(200))}
		}
		diff(t, short(s.State), want, s.Check)
	}
	saved := reread(t, &r.Record)
	again := newHarness(t, testConfig())
	again.step(Recover{Tasks: []Record{saved}, Frameworks: []Framework{aware}})
	again.step(seen(container("t", provider.StateExited, exit(0))))
	last := again.core.tasks[key("t")].History
	diff(t, "the end", want, last[len(last)-1].Check)
}

func TestChecksThatNobodyCanMake(t *testing.T) {
	for want, check := range map[string]*task.HealthCheck{
		"the check has no type":                 {},
		"the check names no port":               {Type: task.CheckTCP},
		"the check is a command and names none": {Type: task.CheckCommand},
	} {
		c := NewCore(testConfig())
		s := spec("t")
		s.Check = check
		c.Step(t0, Launch{Framework: aware, Spec: s}, nil)
		if got := c.tasks[s.Key].History[0]; got.State != task.Failed || got.Message[:len(want)] != want {
			t.Errorf("%s: %+v", want, got)
		}
	}
}
