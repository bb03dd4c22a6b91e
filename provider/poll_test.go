package provider

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mesopool/mesopool/task"
)

// shelf is a backend that can only be asked.
type shelf struct {
	listed map[string]Container // what a listing shows
	there  map[string]Container // what there is
	fail   error
	lists  int
}

func (s *shelf) list(context.Context, task.Owner) ([]Container, error) {
	s.lists++
	var out []Container
	for _, c := range s.listed {
		out = append(out, c)
	}
	return out, s.fail
}

func (s *shelf) inspect(_ context.Context, id string) (Container, error) {
	c, ok := s.there[id]
	if !ok {
		return c, ErrNotFound
	}
	return c, nil
}

func box(id string, st State) Container { return Container{ID: id, Name: id, State: st} }

// TestPoll: everything, Synced, changes; what is missing from a listing is gone
// only when it cannot be inspected either.
func TestPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := box("a", StateUp), box("b", StateUp)
		s := &shelf{listed: map[string]Container{"a": a}, there: map[string]Container{"a": a, "b": b}}
		p := Poll{List: s.list, Inspect: s.inspect, Every: time.Minute}
		broken := errors.New("broken")
		steps := []func(){
			func() { s.listed["b"] = b },     // b comes
			func() { delete(s.listed, "a") }, // a is not listed, and there
			func() { delete(s.there, "a") },  // a is gone
			func() { s.listed["b"], s.there["b"] = box("b", StateExited), box("b", StateExited) }, // b ends
			func() { s.fail = broken },
		}
		var got []string
		for ev, err := range p.Watch(t.Context(), task.Owner{}) {
			switch {
			case err != nil:
				got = append(got, err.Error())
			case ev.Synced:
				got = append(got, "synced")
			default:
				got = append(got, ev.Container.ID+" "+ev.Container.State.String())
			}
			if len(steps) > 0 && err == nil && (ev.Synced || len(got) > 2) {
				steps[0]()
				steps = steps[1:]
			}
		}
		want := []string{"a up", "synced", "b up", "a up", "a gone", "b exited", "broken"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	})
}

// TestPollHint: a hint ends the pause, and many hints do not make it list all
// the time.
func TestPollHint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hints := make(chan struct{}, 1)
		s := &shelf{}
		p := Poll{List: s.list, Inspect: s.inspect, Every: time.Hour, Hint: hints}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		done := make(chan struct{})
		go func() {
			defer close(done)
			for ctx.Err() == nil {
				select {
				case hints <- struct{}{}:
				default:
				}
				time.Sleep(time.Millisecond)
			}
		}()
		for range p.Watch(ctx, task.Owner{}) {
		}
		<-done
		if s.lists < 500 || s.lists > 610 {
			t.Errorf("listed %d times in a minute full of hints; the shortest pause is %v", s.lists, shortest)
		}
	})
}

// TestPollAfterLongLook: however long the first look at everything takes, the
// next listing comes in time.
func TestPollAfterLongLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{listed: map[string]Container{"a": box("a", StateUp)}, there: map[string]Container{"a": box("a", StateUp)}}
		slow := func(ctx context.Context, id string) (Container, error) {
			time.Sleep(time.Minute)
			return s.inspect(ctx, id)
		}
		p := Poll{List: s.list, Inspect: slow, Every: 10 * time.Second}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute+15*time.Second)
		defer cancel()
		for range p.Watch(ctx, task.Owner{}) {
		}
		if s.lists != 2 {
			t.Errorf("%d listings in the 15 s after a look of a minute, want the second", s.lists)
		}
	})
}
