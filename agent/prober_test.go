package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/provider/memory"
	"github.com/mesopool/mesopool/store"
	"github.com/mesopool/mesopool/task"
)

// shell is an Execer whose commands say what they are told to.
type shell struct {
	provider.Provider
	run func(ctx context.Context, id string, o provider.ExecOptions) (int, error)
}

func (s shell) Exec(ctx context.Context, id string, o provider.ExecOptions) (int, error) {
	return s.run(ctx, id, o)
}

func TestProbes(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ok":
		case "/moved":
			http.Redirect(w, r, "/broken", http.StatusFound)
		case "/slow":
			<-r.Context().Done()
		default:
			http.Error(w, "no", http.StatusInternalServerError)
		}
	}))
	defer web.Close()
	secure := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer secure.Close()
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := dead.Addr().String()
	dead.Close()
	q := newProber(shell{run: func(ctx context.Context, id string, o provider.ExecOptions) (int, error) {
		switch text := strings.Join(o.Argv, " "); text {
		case "/bin/sh -c exit 0", "/bin/check -q":
			return 0, nil
		case "hang":
			select {} // a backend that forgets its context
		case "broken":
			return 0, errors.New("exec is broken")
		default:
			fmt.Fprint(o.Stderr, strings.Repeat("bad ", 100))
			return 3, nil
		}
	}})
	at := strings.TrimPrefix(web.URL, "http://")
	command := func(c task.Command) task.HealthCheck { return task.HealthCheck{Type: task.CheckCommand, Command: c} }
	for name, x := range map[string]struct {
		address string
		check   task.HealthCheck
		cause   string // "": healthy
	}{
		"http":            {at, task.HealthCheck{Type: task.CheckHTTP, Path: "/ok"}, ""},
		"a redirect":      {at, task.HealthCheck{Type: task.CheckHTTP, Path: "moved"}, ""},
		"500":             {at, task.HealthCheck{Type: task.CheckHTTP, Path: "/broken"}, "answered 500"},
		"slow":            {at, task.HealthCheck{Type: task.CheckHTTP, Path: "/slow"}, "no answer within 200ms"},
		"https":           {strings.TrimPrefix(secure.URL, "https://"), task.HealthCheck{Type: task.CheckHTTP, Scheme: "https"}, ""},
		"http nobody":     {closed, task.HealthCheck{Type: task.CheckHTTP}, "refused"},
		"no address":      {"", task.HealthCheck{Type: task.CheckHTTP}, "no address"},
		"a strange path":  {at, task.HealthCheck{Type: task.CheckHTTP, Path: "/%zz"}, "invalid URL"},
		"tcp":             {at, task.HealthCheck{Type: task.CheckTCP}, ""},
		"tcp nobody":      {closed, task.HealthCheck{Type: task.CheckTCP}, "refused"},
		"command, shell":  {"", command(task.Command{Shell: true, Value: "exit 0"}), ""},
		"command, argv":   {"", command(task.Command{Value: "/bin/check", Args: []string{"-q"}}), ""},
		"command fails":   {"", command(task.Command{Value: "false"}), "status 3: bad bad"},
		"command hangs":   {"", command(task.Command{Value: "hang"}), "no answer within 200ms"},
		"exec is refused": {"", command(task.Command{Value: "broken"}), "exec is broken"},
	} {
		t.Run(name, func(t *testing.T) {
			x.check.Timeout = 200 * time.Millisecond
			if x.cause == "" {
				x.check.Timeout = 10 * time.Second
			}
			got := q.probe(t.Context(), Probe{ID: "c", Address: x.address, Check: &x.check})
			if got.Healthy != (x.cause == "") || !strings.Contains(got.Cause, x.cause) || len(got.Cause) > 400 || got.ID != "c" {
				t.Errorf("probed: %+v", got)
			}
			if got.Check != nil {
				t.Errorf("a health check has a result: %+v", got.Check)
			}
		})
	}
}

// The result of a check is told whatever it is; nothing is told of one that
// could not be made.
func TestCheckResults(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusTeapot) }))
	defer web.Close()
	at := strings.TrimPrefix(web.URL, "http://")
	q := newProber(shell{run: func(ctx context.Context, _ string, o provider.ExecOptions) (int, error) {
		switch o.Argv[0] {
		case "hang":
			<-ctx.Done()
			return 0, ctx.Err()
		case "broken":
			return 0, errors.New("exec is broken")
		}
		return 7, nil
	}})
	for name, x := range map[string]struct {
		address string
		check   task.HealthCheck
		want    *int32
	}{
		"http":        {at, task.HealthCheck{Type: task.CheckHTTP}, new(int32(http.StatusTeapot))},
		"http nobody": {"127.0.0.1:1", task.HealthCheck{Type: task.CheckHTTP}, nil},
		"tcp":         {at, task.HealthCheck{Type: task.CheckTCP}, new(int32(1))},
		"tcp nobody":  {"127.0.0.1:1", task.HealthCheck{Type: task.CheckTCP}, new(int32(0))},
		"no address":  {"", task.HealthCheck{Type: task.CheckTCP}, nil},
		"command":     {"", task.HealthCheck{Type: task.CheckCommand, Command: task.Command{Value: "x"}}, new(int32(7))},
		"hang":        {"", task.HealthCheck{Type: task.CheckCommand, Command: task.Command{Value: "hang"}}, nil},
		"broken":      {"", task.HealthCheck{Type: task.CheckCommand, Command: task.Command{Value: "broken"}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			x.check.Timeout = 200 * time.Millisecond
			got := q.probe(t.Context(), Probe{ID: "c", Address: x.address, Check: &x.check, General: true})
			diff(t, "result", &task.CheckStatus{Type: x.check.Type, Value: x.want}, got.Check)
		})
	}
}

// A task whose command check fails is killed, no more than the bound are under
// way at a time, and a backend that cannot run commands says so.
func TestHealthInTheRunner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most, sick atomic.Int32
		p := shell{Provider: memory.New(memory.Config{}), run: func(ctx context.Context, _ string, _ provider.ExecOptions) (int, error) {
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			time.Sleep(100 * time.Millisecond)
			return int(sick.Load()), nil
		}}
		m := newMaster(t)
		r := run(Options{Core: coreConfig(), Provider: p, Store: store.NewMemory(), Probes: 3}, m)
		for _, id := range ids(20) {
			s := spec(id)
			s.Health = &task.HealthCheck{Type: task.CheckCommand, Command: task.Command{Value: "x"}, Interval: time.Minute, Timeout: time.Second, Failures: 2}
			r.Put(Launch{Framework: fw, Spec: s})
		}
		time.Sleep(5 * time.Minute)
		if got := m.history("t7"); got != "STARTING RUNNING RUNNING" || m.status("t7").Healthy == nil || !*m.status("t7").Healthy {
			t.Errorf("history %s, last %+v", got, m.status("t7"))
		}
		sick.Store(1)
		time.Sleep(5 * time.Minute)
		last := m.status("t7")
		if got := m.history("t7"); got != "STARTING RUNNING RUNNING RUNNING RUNNING KILLED" || last.Healthy == nil || *last.Healthy {
			t.Errorf("history %s, last %+v", got, last)
		}
		if most.Load() != 3 {
			t.Errorf("%d probes at a time, want 3", most.Load())
		}
		r.stop(t)
	})
	if r := NewRunner(Options{Core: coreConfig(), Provider: struct{ provider.Provider }{memory.New(memory.Config{})}}); !r.opt.Core.NoExec {
		t.Error("a backend that runs no commands is not known as such")
	}
}

// A kill does not wait for a pull that takes an hour, nor for its turn.
func TestKillDuringALongLaunch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &spy{Provider: memory.New(memory.Config{}), before: func(ctx context.Context, op, what string) {
			if op == "launch" && what != "last" {
				select {
				case <-ctx.Done():
				case <-time.After(time.Hour):
				}
			}
		}}
		m := newMaster(t)
		o := Options{Core: coreConfig(), Provider: canceled{s}, Store: store.NewMemory(), Workers: 2}
		r := run(o, m)
		r.launch("first", "second", "queued")
		time.Sleep(time.Minute)
		r.kill("queued", "first")
		time.Sleep(time.Second)
		for _, id := range []string{"queued", "first"} {
			if got := m.history(id); got != "STARTING KILLED" {
				t.Errorf("%s: %s", id, got)
			}
		}
		r.launch("last")
		time.Sleep(time.Second)
		if got := m.history("last"); got != "STARTING RUNNING" {
			t.Errorf("last: %s", got)
		}
		if got := strings.Join(s.list(), " "); strings.Contains(got, "queued") {
			t.Errorf("calls: %s", got)
		}
		r.kill("second")
		time.Sleep(time.Second)
		r.stop(t)
		if len(r.calls.launches) != 0 {
			t.Errorf("launches that are over are remembered: %v", r.calls.launches)
		}
	})
}

// canceled is a backend that gives up a launch whose context has ended.
type canceled struct{ *spy }

func (c canceled) Launch(ctx context.Context, o task.Owner, name string, x task.Spec) (provider.Container, error) {
	c.told(ctx, "launch", x.Key.ID)
	if ctx.Err() != nil {
		return provider.Container{}, ctx.Err()
	}
	return c.Provider.Launch(ctx, o, name, x)
}
