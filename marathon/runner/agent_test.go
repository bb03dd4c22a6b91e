package runner

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mesopool/mesopool/agent"
	"github.com/mesopool/mesopool/agent/api"
	"github.com/mesopool/mesopool/marathon"
	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/provider/memory"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/store"
	"github.com/mesopool/mesopool/task"
)

// measured is a backend whose containers have used so many seconds.
type measured struct {
	provider.Provider
	seconds atomic.Int64 // below 0: it cannot be measured
}

func (m *measured) Stats(context.Context, string) (provider.Stats, error) {
	n := m.seconds.Load()
	if n < 0 {
		return provider.Stats{}, provider.ErrNotFound
	}
	return provider.Stats{Time: time.Unix(1_800_000_000+n, 0), UserCPU: time.Duration(n) * time.Second, SystemCPU: time.Second, MemUsed: 32 << 20}, nil
}

type noLink struct{}

func (noLink) Report(agent.Report)                   {}
func (noLink) ExecutorGone(agent.ExecutorGone)       {}
func (noLink) ExecutorMessage(agent.ExecutorMessage) {}

// Our own agent tells what a scheduler asks for, and nothing rather than 0 of
// what its backend does not measure.
func TestMeasureOurAgent(t *testing.T) {
	p := &measured{Provider: memory.New(memory.Config{})}
	p.seconds.Store(40)
	cfg := agent.DefaultConfig()
	cfg.Owner = task.Owner{Cluster: "mesos", Agent: "dc-1"}
	cfg.NewUUID = func() task.UUID { return task.UUID{1} }
	r := agent.NewRunner(agent.Options{Core: cfg, Provider: p, Store: store.NewMemory(), Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx, noLink{}) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	total, err := resources.Parse("cpus:4;mem:1024")
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(api.New(api.Config{
		Runner: r, Provider: p, ID: func() string { return "a1" }, Master: func() (string, bool) { return "", false },
		Hostname: "dc-1", Total: func() resources.Resources { return total }, Started: time.Now(),
	}))
	defer server.Close()
	for _, id := range []string{"web.instance-1._app.1", "db.instance-1._app.1"} {
		r.Put(agent.Launch{Framework: agent.Framework{ID: "fw"}, Spec: task.Spec{
			Key: task.Key{Framework: "fw", ID: id}, Name: "web", Image: "web:1", Resources: total, Command: task.Command{Shell: true, Value: "sleep infinity"},
		}})
	}
	ask := marathon.Measure{Framework: "fw", Agents: []marathon.AgentToMeasure{{
		ID: "a1", URL: server.URL + "/slave(1)", Tasks: map[string]bool{"web.instance-1._app.1": true}, Prefixes: []string{"web.instance-"},
	}}}
	round := func() (marathon.TaskUsage, bool) {
		got := newChecker(nil).measure(ask)(t.Context()).(marathon.Measured)
		if len(got.Failed) > 0 {
			t.Fatalf("failed: %v", got.Failed)
		}
		u, ok := got.Usage["web.instance-1._app.1"]
		if len(got.Usage) > 1 {
			t.Fatalf("more than was asked for: %v", got.Usage)
		}
		return u, ok
	}
	for end := time.Now().Add(10 * time.Second); ; { // until its container runs
		u, ok := round()
		if ok && u.CPU != nil && u.Mem != nil {
			if *u.CPU != 41 || *u.Mem != 32<<20 || !u.At.Equal(time.Unix(1_800_000_040, 0)) {
				t.Errorf("it uses %v s and %v bytes at %v", *u.CPU, *u.Mem, u.At)
			}
			break
		}
		if time.Now().After(end) {
			t.Fatal("it is not measured in 10 s")
		}
	}
	p.seconds.Store(-1)
	for end := time.Now().Add(10 * time.Second); ; { // until what was measured is not told any more
		if u, ok := round(); ok && u.CPU == nil && u.Mem == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("it is told what it was 10 s ago")
		}
	}
}
