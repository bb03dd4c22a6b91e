package agent

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/mesopool/mesopool/gc"
	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/provider/memory"
	"github.com/mesopool/mesopool/store"
	"github.com/mesopool/mesopool/task"
)

func TestGarbageSaysWhy(t *testing.T) {
	cfg := testConfig()
	cfg.GC.Keep[gc.Failed] = time.Hour
	h := newHarness(t, cfg)
	h.step(Joined{})
	h.step(WatchStarted{})
	for _, id := range []string{"run", "wait", "fail"} {
		h.step(Launch{Framework: aware, Spec: spec(id)})
		h.step(Ack{Key: key(id), UUID: h.last[id]})
		h.move(move{in: answer{k: container(id, provider.StateUp)}})
		h.step(Ack{Key: key(id), UUID: h.last[id]})
	}
	for _, id := range []string{"wait", "fail"} {
		h.step(seen(container(id, provider.StateExited, exit(1), func(k *provider.Container) { k.Ended = h.now })))
	}
	h.step(Ack{Key: key("fail"), UUID: h.last["fail"]})
	stray := container("stray", provider.StateUp)
	h.step(seen(stray))
	got := map[string]string{}
	for _, d := range h.core.Garbage(h.now) {
		got[d.Key.ID] = d.Why
	}
	diff(t, "garbage", map[string]string{
		"wait": "stays: the end of its task is not acknowledged", "fail": "stays: it is kept for 1h0m0s after a failure",
		"stray": "runs until its grace is over: it belongs to no task",
	}, got)
}

// saver counts what it is asked to save, and fails a few times.
type saver struct {
	mu    sync.Mutex
	fails int
	saved []string
	tries int
}

func (s *saver) Save(_ context.Context, k task.Key, open func() (provider.LogReader, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tries++
	if s.tries <= s.fails {
		return errors.New("the disk is full")
	}
	r, err := open()
	if err != nil {
		return err
	}
	defer r.Close()
	p, err := r.Next()
	if err != nil {
		return err
	}
	s.saved = append(s.saved, k.ID+": "+string(p.Data))
	return nil
}

// Logs are saved before the container goes; a disk that stays full does not
// keep containers for ever.
func TestLogsAreSavedBeforeTheRemoval(t *testing.T) {
	for fails, want := range map[int][]string{0: {"t: hello\n"}, 2: {"t: hello\n"}, 100: nil} {
		a := &saver{fails: fails}
		cfg := coreConfig()
		cfg.GC = gc.Policy{Backoff: time.Millisecond}
		m := newMaster(t)
		p := memory.New(memory.Config{})
		l := run(Options{Core: cfg, Provider: p, Store: store.NewMemory(), Archive: a, Log: slog.New(slog.DiscardHandler)}, m)
		m.with(l.Runner)
		s := spec("t")
		s.Image, s.Command = "web:1", task.Command{Shell: true, Value: "echo hello; exit 0"}
		l.Put(Launch{Framework: aware, Spec: s})
		eventually(t, "the container is gone", func() bool {
			r, err := l.Roster(t.Context())
			return err == nil && len(r.Completed) == 1 && r.Kept == 0
		})
		l.stop(t)
		diff(t, "saved", want, a.saved)
	}
}
