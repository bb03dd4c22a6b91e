package limit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/provider/memory"
	"github.com/mesopool/mesopool/provider/providertest"
	"github.com/mesopool/mesopool/task"
)

var owner = task.Owner{Cluster: "mesos", Agent: "dc-1"}

func script(p providertest.Program) string {
	var steps []string
	for i := 1; i <= p.Lines; i++ {
		steps = append(steps, fmt.Sprintf("echo out %d; echo err %d >&2", i, i))
	}
	if p.Deaf {
		steps = append(steps, "trap '' TERM")
	}
	if p.Run {
		return strings.Join(append(steps, "sleep infinity"), ";")
	}
	return strings.Join(append(steps, fmt.Sprintf("exit %d", p.Exit)), ";")
}

func TestConformance(t *testing.T) {
	providertest.Run(t, func(t *testing.T) providertest.Setup {
		m := memory.New(memory.Config{Missing: map[string]bool{"none:1": true}})
		return providertest.Setup{
			Provider: New(m, Options{}),
			Owner:    owner,
			Missing:  "none:1",
			Spec: func(p providertest.Program) task.Spec {
				return task.Spec{Command: task.Command{Shell: true, Value: script(p)}}
			},
			Argv: func(p providertest.Program) []string { return []string{"sh", "-c", script(p)} },
			Foreign: func(_ *testing.T, name string) (id string) {
				m.Do(func(c *memory.Core, now time.Time) { id = c.AddForeign(now, name) })
				return id
			},
			Create: func(t *testing.T, o task.Owner, name string, s task.Spec) {
				m.Do(func(c *memory.Core, now time.Time) {
					if _, err := c.Result(c.Create(now, o, name, s)); err != nil {
						t.Fatal(err)
					}
				})
			},
			ReadFile: func(_ *testing.T, id, path string) (data []byte) {
				m.Do(func(c *memory.Core, _ time.Time) { data, _ = c.File(id, path) })
				return data
			},
			Vanish: func(_ *testing.T, id string) { m.Do(func(c *memory.Core, now time.Time) { c.Vanish(now, id) }) },
			Break: func(*testing.T) {
				m.Do(func(c *memory.Core, _ time.Time) { c.BreakFeeds(owner) })
			},
		}
	}, providertest.Quirks{Grace: 100 * time.Millisecond})
}

// scripted is a provider whose calls do what the test says.
type scripted struct {
	provider.Provider
	call func(ctx context.Context, op string) error
}

func (s scripted) Launch(ctx context.Context, _ task.Owner, _ string, _ task.Spec) (provider.Container, error) {
	return provider.Container{}, s.call(ctx, "launch")
}

func (s scripted) Stop(ctx context.Context, _ string, _ time.Duration) error {
	return s.call(ctx, "stop")
}

func (s scripted) Inspect(ctx context.Context, _ string) (provider.Container, error) {
	return provider.Container{}, s.call(ctx, "inspect")
}

func TestStopsOvertakeLaunches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(scripted{call: func(ctx context.Context, op string) error {
			if op == "launch" {
				time.Sleep(time.Hour)
			}
			return nil
		}}, Options{Launches: 2, LaunchTimeout: 2 * time.Hour})
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() { p.Launch(t.Context(), owner, "a", task.Spec{}) })
		}
		synctest.Wait()
		if s := p.Stats().Launch; s.Active != 2 || s.Waiting != 8 {
			t.Errorf("%d launches active, %d waiting; want 2, 8", s.Active, s.Waiting)
		}
		began := time.Now()
		if err := p.Stop(t.Context(), "x", 0); err != nil || time.Since(began) != 0 {
			t.Errorf("a stop took %v behind launches: %v", time.Since(began), err)
		}
		wg.Wait()
	})
}

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(scripted{call: func(context.Context, string) error { return nil }}, Options{Rate: 10, Burst: 1})
		began := time.Now()
		for range 11 {
			if _, err := p.Launch(t.Context(), owner, "a", task.Spec{}); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began).Round(time.Millisecond); took != time.Second {
			t.Errorf("11 calls at 10 a second took %v, want 1s", took)
		}
	})
}

func TestHungCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(scripted{call: func(ctx context.Context, _ string) error {
			<-ctx.Done()
			return errors.New("connection closed")
		}}, Options{CallTimeout: time.Minute})
		began := time.Now()
		_, err := p.Inspect(t.Context(), "x")
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Minute {
			t.Errorf("a hung call ended after %v with %v", time.Since(began), err)
		}
	})
}

func TestRepeats(t *testing.T) {
	broken := errors.New("connection reset")
	tests := []struct {
		op    string
		fails int
		with  error
		calls uint64
		want  error
	}{
		{"inspect", 1, broken, 2, nil},
		{"inspect", 9, broken, 3, broken},
		{"inspect", 9, provider.ErrNotFound, 1, provider.ErrNotFound},
		{"stop", 2, provider.ErrThrottle, 3, nil},
		{"stop", 9, provider.ErrDenied, 1, provider.ErrDenied},
		{"launch", 1, broken, 1, broken},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s %d %v", tt.op, tt.fails, tt.with), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				left := tt.fails
				p := New(scripted{call: func(context.Context, string) error {
					if left--; left >= 0 {
						return tt.with
					}
					return nil
				}}, Options{})
				calls, err := run(t, p, tt.op)
				if !errors.Is(err, tt.want) || calls.Begun != tt.calls || calls.Retried != tt.calls-1 {
					t.Errorf("got %v after %+v", err, calls)
				}
			})
		})
	}
}

func run(t *testing.T, p *Provider, op string) (Calls, error) {
	switch op {
	case "launch":
		_, err := p.Launch(t.Context(), owner, "a", task.Spec{})
		return p.Stats().Launch, err
	case "stop":
		err := p.Stop(t.Context(), "x", 0)
		return p.Stats().Stop, err
	default:
		_, err := p.Inspect(t.Context(), "x")
		return p.Stats().Inspect, err
	}
}

func TestStatsTellTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		waits := []time.Duration{3 * time.Second, time.Second}
		p := New(scripted{call: func(context.Context, string) error {
			time.Sleep(waits[0])
			waits = waits[1:]
			return provider.ErrNotFound
		}}, Options{})
		p.Inspect(t.Context(), "x")
		p.Inspect(t.Context(), "x")
		want := Calls{Begun: 2, Failed: 2, Total: 4 * time.Second, Longest: 3 * time.Second}
		if got := p.Stats().Inspect; got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}
