package gc

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var t0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestKeepsForTheKeepTime(t *testing.T) {
	var q Queue
	p := Policy{Keep: KeepAll(time.Minute)}
	q.Release("b", t0.Add(time.Second), Failed)
	q.Release("a", t0, Failed)
	q.Release("a", t0, Killed)
	if got := q.Due(p, t0.Add(59*time.Second)); got != nil {
		t.Errorf("due too early: %v", got)
	}
	if got := q.Next(p); !got.Equal(t0.Add(time.Minute)) {
		t.Errorf("Next = %v", got)
	}
	if d := cmp.Diff([]string{"a"}, q.Due(p, t0.Add(time.Minute))); d != "" {
		t.Error(d)
	}
	if got := q.Due(p, t0.Add(time.Minute)); got != nil {
		t.Errorf("named again while being removed: %v", got)
	}
	q.Removed("a", p, t0.Add(time.Minute))
	if d := cmp.Diff([]string{"b"}, q.Due(p, t0.Add(time.Hour))); d != "" {
		t.Error(d)
	}
}

// A later end moves a container back; one of the same name and end that is gone
// stays out of the way.
func TestPostpone(t *testing.T) {
	var q Queue
	p := Policy{Keep: KeepAll(time.Minute)}
	for _, id := range []string{"0", "a"} {
		q.Release(id, t0, Failed)
	}
	q.Removed("a", p, t0)
	q.Release("a", t0, Failed)
	q.Release("b", t0.Add(time.Second), Failed)
	q.Postpone("a", t0.Add(2*time.Second))
	q.Postpone("a", t0.Add(time.Second))
	q.Postpone("stranger", t0.Add(time.Hour))
	for i, want := range []string{"0", "b", "a"} {
		at := t0.Add(time.Minute + time.Duration(i)*time.Second)
		if got := q.Next(p); !got.Equal(at) {
			t.Errorf("Next = %v, want %v", got, at)
		}
		if d := cmp.Diff([]string{want}, q.Due(p, at)); d != "" {
			t.Error(d)
		}
		q.Postpone(want, t0.Add(time.Hour)) // it is on its way out
		q.Removed(want, p, at)
	}
	if q.Len() > 0 {
		t.Errorf("left: %v", q.Explain(p, t0))
	}
}

func TestMaxKeptTakesTheOldest(t *testing.T) {
	var q Queue
	p := Policy{Keep: KeepAll(time.Hour), MaxKept: 2}
	for i := range 5 {
		q.Release(fmt.Sprint(i), t0.Add(time.Duration(i)*time.Second), Outcome(i%3))
	}
	if d := cmp.Diff([]string{"0", "1", "2"}, q.Due(p, t0.Add(10*time.Second))); d != "" {
		t.Error(d)
	}
}

func TestFailedRemovalBacksOff(t *testing.T) {
	var q Queue
	p := Policy{Backoff: time.Second}
	q.Release("a", t0, Succeeded)
	q.Due(p, t0)
	q.Retry("a", p, t0)
	if got := q.Due(p, t0.Add(999*time.Millisecond)); got != nil {
		t.Errorf("due during the back-off: %v", got)
	}
	if got := q.Next(p); !got.Equal(t0.Add(time.Second)) {
		t.Errorf("Next = %v, want the end of the back-off", got)
	}
	if d := cmp.Diff([]string{"a"}, q.Due(p, t0.Add(time.Second))); d != "" {
		t.Error(d)
	}
}

// Whatever the order of calls: never more than a batch at once, never named
// twice, nothing lost, and all goes in the end.
func TestQueueProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Policy{
			Keep: [3]time.Duration{seconds(t), seconds(t), seconds(t)}, Pace: rapid.IntRange(0, 3).Draw(t, "pace"), MaxKept: rapid.IntRange(0, 4).Draw(t, "max"),
			Batch: rapid.IntRange(1, 3).Draw(t, "batch"),
		}
		var q Queue
		now, released, removing, removed := t0, 0, map[string]bool{}, map[string]bool{}
		due := func() {
			for _, id := range q.Due(p, now) {
				if removing[id] || removed[id] {
					t.Fatalf("%s named twice", id)
				}
				removing[id] = true
			}
			if len(removing) > p.Batch {
				t.Fatalf("%d being removed at once, batch %d", len(removing), p.Batch)
			}
		}
		finish := func(ok bool) {
			for id := range removing {
				delete(removing, id)
				if ok {
					q.Removed(id, p, now)
					removed[id] = true
				} else {
					q.Retry(id, p, now)
				}
				return
			}
		}
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0:
				q.Release(fmt.Sprintf("c%d", released), now.Add(-time.Duration(rapid.IntRange(0, 3).Draw(t, "ago"))*time.Second), Outcome(rapid.IntRange(0, 2).Draw(t, "outcome")))
				released++
			case 1:
				due()
			case 2:
				finish(rapid.Bool().Draw(t, "ok"))
			case 3:
				now = now.Add(time.Second)
			case 4:
				q.Postpone(fmt.Sprintf("c%d", rapid.IntRange(0, 60).Draw(t, "which")), now)
			}
		}
		for i := 0; len(removed) < released; i++ {
			if i > 10_000 {
				t.Fatalf("%d of %d removed in the end", len(removed), released)
			}
			due()
			finish(true)
			now = now.Add(time.Second)
		}
		if q.Len() != 0 || !q.Next(p).IsZero() {
			t.Fatalf("left over: %d, next %v", q.Len(), q.Next(p))
		}
	})
}

func seconds(t *rapid.T) time.Duration {
	return time.Duration(rapid.IntRange(0, 5).Draw(t, "keep")) * time.Second
}

func TestKeepTimesByOutcome(t *testing.T) {
	var q Queue
	p := Policy{Keep: [3]time.Duration{Succeeded: time.Minute, Failed: time.Hour, Killed: 0}}
	q.Release("f", t0, Failed)
	q.Release("s", t0.Add(time.Second), Succeeded)
	q.Release("k", t0.Add(2*time.Second), Killed)
	if got := q.Next(p); !got.Equal(t0.Add(2 * time.Second)) {
		t.Errorf("Next = %v", got)
	}
	if d := cmp.Diff([]string{"k"}, q.Due(p, t0.Add(2*time.Second))); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"s"}, q.Due(p, t0.Add(61*time.Second))); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"f"}, q.Due(p, t0.Add(time.Hour))); d != "" {
		t.Error(d)
	}
}

// A removal that took long is followed by a pause, up to a bound.
func TestPace(t *testing.T) {
	var q Queue
	p := Policy{Batch: 1, Pace: 9}
	for _, id := range []string{"a", "b", "c"} {
		q.Release(id, t0, Succeeded)
	}
	q.Due(p, t0)
	q.Removed("a", p, t0.Add(2*time.Second))
	if got := q.Due(p, t0.Add(19*time.Second)); got != nil {
		t.Errorf("due in the pause: %v", got)
	}
	if got := q.Next(p); !got.Equal(t0.Add(20 * time.Second)) {
		t.Errorf("Next = %v", got)
	}
	now := t0.Add(20 * time.Second)
	if d := cmp.Diff([]string{"b"}, q.Due(p, now)); d != "" {
		t.Error(d)
	}
	now = now.Add(time.Hour)
	q.Removed("b", p, now)
	if got := q.Next(p); !got.Equal(now.Add(MaxPause)) {
		t.Errorf("Next = %v after an hour", got)
	}
}

func TestExplain(t *testing.T) {
	var q Queue
	p := Policy{Keep: [3]time.Duration{Succeeded: time.Minute, Failed: time.Hour}, MaxKept: 4}
	for i, o := range []Outcome{Failed, Succeeded, Failed, Killed, Succeeded} {
		q.Release(string(rune('a'+i)), t0.Add(time.Duration(i)*30*time.Second), o)
	}
	q.items["c"].failures, q.items["c"].retryAt = 2, t0.Add(time.Hour)
	now := t0.Add(130 * time.Second)
	got := map[string]string{}
	for _, v := range q.Explain(p, now) {
		got[v.ID] = v.Why
	}
	want := map[string]string{
		"a": "goes: more than 4 are kept and it is among the oldest", "b": "goes: the 1m0s after a success are over",
		"c": "stays until its removal is tried again: it failed 2 times", "d": "goes: the 0s after a kill are over",
		"e": "stays: it is kept for 1m0s after a success",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"a", "b", "d"}, q.Due(p, now)); d != "" {
		t.Errorf("Due does not do what Explain says: %s", d)
	}
}
