package runner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mesopool/mesopool/marathon"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/store"
	"github.com/mesopool/mesopool/task"
)

// fakeDriver is a master that runs everything at once.
type fakeDriver struct {
	mu     sync.Mutex
	runner *Runner
	tasks  map[string]task.State
	calls  []string
	offers int
	mute   bool   // tasks are taken and nothing is said of them
	url    string // of the agent
}

func (d *fakeDriver) note(call string) {
	d.calls = append(d.calls, call)
}

func (d *fakeDriver) Accept(_ []string, agent string, l task.Launch, _ time.Duration) {
	specs := l.Tasks
	for _, g := range l.Groups {
		specs = append(specs, g.Tasks...)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.note("accept")
	for i := range specs {
		d.tasks[specs[i].Key.ID] = task.Running
		if !d.mute {
			d.tell(specs[i].Key.ID, agent, task.Running)
		}
	}
	d.offer()
}

func (d *fakeDriver) tell(id, agent string, s task.State) {
	status := task.Status{State: s, Time: time.Now(), UUID: task.UUID{1}, Container: &task.ContainerStatus{Addresses: []string{"127.0.0.1"}}}
	d.runner.Update(id, agent, status)
}

func (d *fakeDriver) offer() {
	d.offers++
	o := task.Offer{ID: fmt.Sprint("o", d.offers), Agent: "a", Hostname: "h", Role: "*", URL: d.url}
	o.Resources = resources.NewScalar("cpus", resources.Whole(100)).Add(resources.NewScalar("mem", resources.Whole(1e5))...)
	d.runner.Offers([]task.Offer{o})
}

func (d *fakeDriver) Decline([]string, time.Duration) {}

func (d *fakeDriver) Kill(id, agent string, _ *time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.note("kill")
	delete(d.tasks, id)
	d.tell(id, agent, task.Killed)
}

func (d *fakeDriver) Acknowledge(string, string, task.UUID) {}

func (d *fakeDriver) Reconcile(tasks map[string]string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, agent := range tasks {
		s, ok := d.tasks[id]
		if !ok {
			s = task.Gone
		}
		d.runner.Update(id, agent, task.Status{State: s, Time: time.Now(), Container: &task.ContainerStatus{Addresses: []string{"127.0.0.1"}}})
	}
}

func (d *fakeDriver) Revive() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.note("revive")
	d.offer()
}

func (d *fakeDriver) Suppress() {}

func (d *fakeDriver) ids() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.tasks))
}

var lastID atomic.Int64

func newID() string { return fmt.Sprintf("id-%d", lastID.Add(1)) }

// start runs a runner on a store until stop is called.
func start(t *testing.T, s store.Store, tasks map[string]task.State) (r *Runner, d *fakeDriver, stop func() error) {
	t.Helper()
	core := marathon.DefaultConfig()
	core.NewID, core.ReviveGap, core.MeasureEach = newID, time.Millisecond, 100*time.Millisecond
	r, err := New(t.Context(), Config{Core: core, Store: s, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	d = &fakeDriver{runner: r, tasks: tasks}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx, d) }()
	stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { stop() })
	return r, d, stop
}

func put(t *testing.T, r *Runner, text string) {
	t.Helper()
	def, err := marathon.Read([]byte(text), "*")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Do(t.Context(), marathon.Change{DeploymentID: newID(), Put: []*marathon.App{def}}); err != nil {
		t.Fatal(err)
	}
}

// until waits for a view of the core to be as wanted.
func until(t *testing.T, r *Runner, what string, ok func(*marathon.Core) bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	l := r.Events().Listen(0)
	defer l.Close()
	for {
		good := false
		if err := r.View(t.Context(), func(c *marathon.Core) { good = ok(c) }); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if good {
			return
		}
		select {
		case <-l.C:
		case <-time.After(20 * time.Millisecond): // not everything is told of by an event
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not in 10 s", what)
		}
	}
}

func runs(id string, n int) func(*marathon.Core) bool {
	return func(c *marathon.Core) bool {
		v, ok := c.App(time.Now(), id)
		return ok && v.Running == n && len(v.Deployments) == 0
	}
}

func TestRestartGoesOn(t *testing.T) {
	s := store.NewMemory()
	tasks := map[string]task.State{}
	r, d, stop := start(t, s, tasks)
	if err := r.Subscribed("fw-1", "m"); err != nil {
		t.Fatal(err)
	}
	put(t, r, `{"id":"/a","cmd":"x","instances":3}`)
	until(t, r, "first three", runs("/a", 3))
	d.mu.Lock()
	d.mute = true
	d.mu.Unlock()
	put(t, r, `{"id":"/a","cmd":"x","instances":5}`)
	until(t, r, "launched", func(c *marathon.Core) bool { v, _ := c.App(time.Now(), "/a"); return len(v.Instances) == 5 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	before := d.ids()

	r, d, stop = start(t, s, tasks)
	if got := r.FrameworkID(); got != "fw-1" {
		t.Errorf("framework ID %q", got)
	}
	if err := r.Subscribed("fw-1", "m"); err != nil {
		t.Fatal(err)
	}
	until(t, r, "five after the restart", runs("/a", 5))
	if got := d.ids(); !slices.Equal(got, before) {
		t.Errorf("tasks %v, before %v", got, before)
	}
	var versions []*marathon.App
	r.View(t.Context(), func(c *marathon.Core) { versions, _ = c.Versions("/a") })
	if len(versions) != 2 || versions[0].Instances != 5 {
		t.Errorf("versions %v", versions)
	}
	if err := r.Do(t.Context(), marathon.Change{DeploymentID: "del", Delete: []string{"/a"}}); err != nil {
		t.Fatal(err)
	}
	until(t, r, "gone", func(c *marathon.Core) bool { return len(c.Deployments()) == 0 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	left, _ := s.List(t.Context(), "")
	left = slices.DeleteFunc(left, func(e store.Entry) bool { return strings.HasPrefix(e.Key, marathon.KeyAudit) })
	if len(left) != 1 {
		t.Errorf("left in the store: %v", left)
	}
	if err := r.Do(context.Background(), marathon.Tick{}); !errors.Is(err, ErrStopped) {
		t.Errorf("after the stop: %v", err)
	}
}

// brokenStore fails when it should.
type brokenStore struct {
	*store.Memory
	broken atomic.Bool
}

var errDisk = errors.New("disk full")

func (b *brokenStore) Commit(ctx context.Context, ops []store.Op) error {
	if b.broken.Load() {
		return errDisk
	}
	return b.Memory.Commit(ctx, ops)
}

func TestNothingLeavesUncommitted(t *testing.T) {
	s := &brokenStore{Memory: store.NewMemory()}
	r, d, stop := start(t, s, map[string]task.State{})
	if err := r.Subscribed("fw", "m"); err != nil {
		t.Fatal(err)
	}
	l := r.Events().Listen(0)
	d.mu.Lock()
	calls := len(d.calls)
	d.mu.Unlock()
	s.broken.Store(true)
	def, _ := marathon.Read([]byte(`{"id":"/a","cmd":"x"}`), "*")
	if err := r.Do(t.Context(), marathon.Change{DeploymentID: "d", Put: []*marathon.App{def}}); !errors.Is(err, ErrStopped) {
		t.Errorf("the wish: %v", err)
	}
	if err := stop(); !errors.Is(err, errDisk) || !strings.Contains(err.Error(), "nothing was done") {
		t.Errorf("Run: %v", err)
	}
	if len(d.calls) != calls || len(l.C) > 0 {
		t.Errorf("calls %v, %d events", d.calls[calls:], len(l.C))
	}
}

// A deposed leader lets nothing leave, not even what needs no save.
func TestNothingLeavesOfADeposedLeader(t *testing.T) {
	errDeposed := errors.New("deposed")
	var deposed atomic.Bool
	core := marathon.DefaultConfig()
	core.NewID, core.ReviveGap = newID, time.Millisecond
	r, err := New(t.Context(), Config{Core: core, Store: store.NewMemory(), Log: slog.New(slog.DiscardHandler), Fence: func() error {
		if deposed.Load() {
			return errDeposed
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	d := &fakeDriver{runner: r, tasks: map[string]task.State{}}
	done := make(chan error, 1)
	go func() { done <- r.Run(t.Context(), d) }()
	if err := r.Subscribed("fw", "m"); err != nil {
		t.Fatal(err)
	}
	put(t, r, `{"id":"/a","cmd":"x"}`)
	until(t, r, "one", runs("/a", 1))
	d.mu.Lock()
	calls := len(d.calls)
	d.mu.Unlock()
	deposed.Store(true)
	if err := r.Do(t.Context(), marathon.KillTasks{DeploymentID: "k", IDs: d.ids()}); !errors.Is(err, ErrStopped) {
		t.Errorf("the wish: %v", err)
	}
	if err := <-done; !errors.Is(err, errDeposed) {
		t.Errorf("Run: %v", err)
	}
	if len(d.calls) != calls {
		t.Errorf("calls %v", d.calls[calls:])
	}
}

func TestUnreadableRecord(t *testing.T) {
	s := store.NewMemory()
	s.Commit(t.Context(), []store.Op{{Key: marathon.KeyInstance + "x", Value: []byte("{")}})
	if _, err := New(t.Context(), Config{Store: s}); err == nil || !strings.Contains(err.Error(), marathon.KeyInstance+"x") {
		t.Errorf("%v", err)
	}
}

func TestSaveOpsKeepsTheLast(t *testing.T) {
	ops, err := saveOps([]marathon.Effect{
		marathon.Save{Key: "a", Value: 1}, marathon.Kill{}, marathon.Save{Key: "b", Value: 2}, marathon.Save{Key: "a"}, marathon.Save{Key: "b", Value: 3},
	})
	if err != nil || len(ops) != 2 || ops[0].Key != "a" || ops[0].Value != nil || string(ops[1].Value) != "3" {
		t.Errorf("%v %v", ops, err)
	}
}

func TestBus(t *testing.T) {
	b := newBus()
	say := func(n int) {
		for range n {
			b.publish(marathon.Event{Type: "x", Time: time.Unix(0, 0), Body: map[string]any{"k": "v"}})
		}
	}
	say(3)
	l := b.Listen(1)
	say(1)
	for want := uint64(2); want <= 4; want++ {
		if e := <-l.C; e.ID != want || string(e.Data) != `{"eventType":"x","k":"v","timestamp":"1970-01-01T00:00:00.000Z"}` {
			t.Errorf("event %d: %d %s", want, e.ID, e.Data)
		}
	}
	if now := b.Listen(0); len(now.C) != 0 {
		t.Errorf("0 begins with %d old events", len(now.C))
	}
	if future := b.Listen(1000); len(future.C) != 0 {
		t.Error("an ID from another life gets old events")
	}
	l.Close()
	l.Close()
	if _, open := <-l.C; open {
		t.Error("a closed listener still hears")
	}

	slow, quick := b.Listen(0), b.Listen(0)
	for range 3 * keptEvents {
		say(1)
		<-quick.C
	}
	n := 0
	for range slow.C {
		n++
	}
	if n >= 3*keptEvents {
		t.Errorf("a slow listener got all %d", n)
	}
	say(1)
	if e, open := <-quick.C; !open || e.ID != b.last {
		t.Errorf("the quick one: %v %v", e, open)
	}
	if late := b.Listen(5); len(late.C) < keptEvents {
		t.Errorf("%d kept, want %d or more", len(late.C), keptEvents)
	}
}

func TestChecks(t *testing.T) {
	release := make(chan struct{})
	h := http.NewServeMux()
	h.HandleFunc("/ok", func(http.ResponseWriter, *http.Request) {})
	h.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/missing", http.StatusFound) })
	h.HandleFunc("/broken", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	h.HandleFunc("/slow", func(http.ResponseWriter, *http.Request) { <-release })
	plain, secure := httptest.NewServer(h), httptest.NewTLSServer(h)
	defer plain.Close()
	defer secure.Close()
	defer close(release)
	address := plain.Listener.Addr().String()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	c := newChecker(nil)
	for _, k := range []struct {
		kind, address, path string
		timeout             time.Duration
		want                string // "" is well
	}{
		{"HTTP", address, "/ok", time.Minute, ""},
		{"HTTP", address, "ok", time.Minute, ""},
		{"HTTP", address, "/moved", time.Minute, ""},
		{"HTTP", address, "/missing", time.Minute, "404"},
		{"HTTP", address, "/broken", time.Minute, "500"},
		{"HTTP", address, "/slow", 20 * time.Millisecond, "deadline exceeded"},
		{"HTTPS", secure.Listener.Addr().String(), "/ok", time.Minute, ""},
		{"TCP", address, "", time.Minute, ""},
		{"TCP", closed.Addr().String(), "", time.Minute, "refused"},
		{"HTTP", closed.Addr().String(), "/ok", time.Minute, "refused"},
	} {
		err := c.check(t.Context(), marathon.Check{Kind: k.kind, Address: k.address, Path: k.path, Timeout: k.timeout})
		if (err == nil) != (k.want == "") || err != nil && !strings.Contains(err.Error(), k.want) {
			t.Errorf("%s %s: %v, want %q", k.kind, k.path, err, k.want)
		}
	}
}

// TestCheckedHealth goes the whole way: the core asks, the checker looks, the
// core hears.
func TestCheckedHealth(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	r, _, _ := start(t, store.NewMemory(), map[string]task.State{})
	if err := r.Subscribed("fw", "m"); err != nil {
		t.Fatal(err)
	}
	put(t, r, `{"id":"/a","cmd":"x","healthChecks":[{"port":`+port+`}]}`)
	until(t, r, "healthy", func(c *marathon.Core) bool { v, _ := c.App(time.Now(), "/a"); return v.Healthy == 1 })
}

// TestReadinessAnswer: the checker tells what was answered, or that nothing was.
func TestReadinessAnswer(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprint(w, strings.Repeat("x", 2*mostAnswer))
	}))
	c := newChecker(nil)
	e := marathon.CheckReady{TaskID: "t", URL: server.URL, Timeout: time.Second}
	got := c.ready(e)(t.Context()).(marathon.CheckedReady)
	if got.TaskID != "t" || got.Status != 503 || len(got.Body) != mostAnswer || got.ContentType == "" {
		t.Errorf("%d, %d bytes, %q", got.Status, len(got.Body), got.ContentType)
	}
	server.Close()
	if got := c.ready(e)(t.Context()).(marathon.CheckedReady); got.Status != 0 {
		t.Errorf("%+v", got)
	}
}

// Where the containers' network cannot be reached, a check goes to the
// published port; where it can, it does not.
func TestCheckOfAPublishedPort(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer srv.Close()
	open := srv.Listener.Addr().String()
	closed, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	shut := closed.Addr().String()
	closed.Close()
	c := newChecker(nil)
	for _, x := range []struct {
		inside, public string
		want           bool
	}{{open, "", true}, {open, shut, true}, {shut, open, true}, {shut, "", false}, {shut, shut, false}} {
		for _, kind := range []string{"HTTP", "TCP"} {
			err := c.check(t.Context(), marathon.Check{Kind: kind, Address: x.inside, Public: x.public, Path: "/", Timeout: 5 * time.Second})
			if (err == nil) != x.want {
				t.Errorf("%s check of %s, published at %q: %v", kind, x.inside, x.public, err)
			}
		}
	}
}
