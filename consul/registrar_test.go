package consul

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/consul/api"

	"github.com/mesopool/mesopool/task"
)

// logBook is a log that a test can read.
type logBook struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBook) lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Split(strings.TrimSpace(l.b.String()), "\n")
}

// running makes a Registrar that runs until the test ends.
func running(t *testing.T, cfg Config) (*Registrar, *logBook) {
	t.Helper()
	book := new(logBook)
	if cfg.Role == "" {
		cfg.Role = "agent"
	}
	cfg.Owner = testOwner
	cfg.Log = slog.New(slog.NewTextHandler(book, nil))
	cfg.RetryMin, cfg.RetryMax = 5*time.Millisecond, 20*time.Millisecond
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run returned %v, want nil", err)
		}
	})
	return r, book
}

func service(id string) Service {
	return Service{ID: id, Name: "web", Address: "10.0.0.1", Port: 80}
}

// eventually waits for a condition that must come true soon.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if is() {
			return
		}
	}
	t.Fatalf("not within 20 s: %s", what)
}

func holds(t *testing.T, f *fakeConsul, want ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("Consul holds just %v", want), func() bool { return slices.Equal(f.ids(), want) })
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestPutAndDrop(t *testing.T) {
	f := newFake(t)
	f.start(t)
	r, _ := running(t, Config{Address: f.address})
	r.Put("a", []Service{service("a1"), service("a2")})
	r.Put("b", []Service{service("b1")})
	holds(t, f, "a1", "a2", "b1")
	f.take()

	r.Put("b", []Service{service("b1")}) // nothing new
	changed := service("a2")
	changed.Tags = []string{"new"}
	r.Put("a", []Service{changed}) // a1 is gone, a2 changed
	holds(t, f, "a2", "b1")
	eventually(t, "a2 was registered again", func() bool {
		var tags []string
		f.edit(func() { tags = f.services["a2"].Tags })
		return len(tags) == 1
	})
	calls := f.take()
	slices.Sort(calls)
	if d := cmp.Diff([]string{"deregister a1", "register a2"}, calls); d != "" {
		t.Errorf("calls (-want +got):\n%s", d)
	}

	if err := r.Drop(within(t, 10*time.Second), "a"); err != nil {
		t.Fatal(err)
	}
	if got := f.ids(); !slices.Equal(got, []string{"b1"}) {
		t.Errorf("when Drop had returned, Consul held %v, want b1 only", got)
	}
	if err := r.Drop(within(t, 10*time.Second), "never put"); err != nil {
		t.Errorf("dropping what is not there: %v", err)
	}
}

// foreign puts services into the fake that are not of the test's owner, and
// one that is, from an earlier life.
func foreign(f *fakeConsul) {
	f.edit(func() {
		f.services["theirs"] = &api.AgentService{ID: "theirs", Service: "db"}
		f.services["teamb"] = &api.AgentService{ID: "teamb", Meta: map[string]string{"owner": "mesopool/teamb/agent/agent"}}
		f.services["master"] = &api.AgentService{ID: "master", Meta: map[string]string{"owner": "mesopool/teama/master/agent"}}
		f.services["old"] = &api.AgentService{ID: "old", Meta: map[string]string{"owner": "mesopool/teama/agent/agent"}}
	})
}

func TestReconcileWaitsForSynced(t *testing.T) {
	f := newFake(t)
	f.start(t)
	foreign(f)
	r, _ := running(t, Config{Address: f.address, Reconcile: 10 * time.Millisecond})
	r.Put("a", []Service{service("a1")})
	holds(t, f, "a1", "master", "old", "teamb", "theirs")
	time.Sleep(50 * time.Millisecond) // several comparisons
	holds(t, f, "a1", "master", "old", "teamb", "theirs")
	r.Synced()
	holds(t, f, "a1", "master", "teamb", "theirs")
}

func TestReconcileRepairs(t *testing.T) {
	f := newFake(t)
	f.start(t)
	r, _ := running(t, Config{Address: f.address, Reconcile: 10 * time.Millisecond})
	r.Put("a", []Service{service("a1")})
	r.Put("b", []Service{service("b1")})
	r.Synced()
	holds(t, f, "a1", "b1")
	f.edit(func() {
		delete(f.services, "a1")
		f.services["b1"].Address = "10.9.9.9"
		f.services["extra"] = &api.AgentService{ID: "extra", Meta: map[string]string{"owner": r.mark}}
	})
	holds(t, f, "a1", "b1")
	eventually(t, "b1 has its address again", func() bool {
		var address string
		f.edit(func() { address = f.services["b1"].Address })
		return address == "10.0.0.1"
	})
	f.take()
	time.Sleep(50 * time.Millisecond)
	if calls := f.take(); len(calls) > 0 {
		t.Errorf("nothing differs, yet there were calls: %v", calls)
	}
}

func TestConsulDownAtStart(t *testing.T) {
	f := newFake(t)
	r, book := running(t, Config{Address: f.address})
	r.Put("a", []Service{service("a1")})
	r.Put("b", []Service{service("b1")})
	r.Synced()
	eventually(t, "the Registrar knows that Consul is down", r.isDown)
	begin := time.Now()
	if err := r.Drop(within(t, time.Minute), "b"); !errors.Is(err, ErrUnreachable) {
		t.Errorf("Drop without Consul: %v, want ErrUnreachable", err)
	}
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("Drop without Consul took %v: it must not hold up the kill", d)
	}
	time.Sleep(100 * time.Millisecond) // several tries
	foreign(f)
	f.start(t)
	holds(t, f, "a1", "master", "teamb", "theirs")
	eventually(t, "the log says that Consul is back", func() bool { return len(book.lines()) == 2 })

	f.stop()
	r.Put("c", []Service{service("c1")})
	eventually(t, "the Registrar knows that Consul is down again", r.isDown)
	f.edit(func() { clear(f.services) }) // it lost everything meanwhile
	f.start(t)
	holds(t, f, "a1", "c1")
	eventually(t, "the log says that Consul is back again", func() bool { return len(book.lines()) == 4 })
}

func TestOneBadServiceDoesNotHoldUpOthers(t *testing.T) {
	f := newFake(t)
	f.fail = func(call string) int {
		switch call {
		case "register bad":
			return http.StatusInternalServerError
		case "register wrong":
			return http.StatusBadRequest
		}
		return 0
	}
	f.start(t)
	r, book := running(t, Config{Address: f.address, Reconcile: 10 * time.Millisecond})
	r.Put("bad", []Service{service("bad")})
	r.Put("wrong", []Service{service("wrong")})
	var want []string
	for i := range 20 {
		id := fmt.Sprintf("s%02d", i)
		r.Put(id, []Service{service(id)})
		want = append(want, id)
	}
	holds(t, f, want...)
	eventually(t, "the bad one is tried again", func() bool {
		return strings.Count(strings.Join(f.takeKeep(), "\n"), "register bad") > 3
	})
	if n := strings.Count(strings.Join(f.takeKeep(), "\n"), "register wrong"); n != 1 {
		t.Errorf("what Consul refuses for good was tried %d times, want once", n)
	}
	if got := book.lines(); len(got) != 2 {
		t.Errorf("%d log lines, want one for each kind of trouble:\n%s", len(got), strings.Join(got, "\n"))
	}
	for range 20 {
		if r.isDown() {
			t.Fatal("one bad service, and all of Consul counts as down")
		}
		time.Sleep(time.Millisecond)
	}
	r.Put("wrong", nil)
	f.edit(func() { f.fail = nil })
	holds(t, f, append([]string{"bad"}, want...)...)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.refused) > 0 {
		t.Errorf("what is not wanted any more is still remembered as refused: %v", r.refused)
	}
}

// takeKeep returns all calls so far.
func (f *fakeConsul) takeKeep() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

func TestConsulThatHangs(t *testing.T) {
	f := newFake(t)
	f.start(t)
	r, _ := running(t, Config{Address: f.address, Timeout: 200 * time.Millisecond})
	r.Put("a", []Service{service("a1")})
	holds(t, f, "a1")
	hang := make(chan struct{})
	f.edit(func() { f.hang = hang })
	if err := r.Drop(within(t, 20*time.Millisecond), "a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Drop with a Consul that hangs: %v, want the context's end", err)
	}
	eventually(t, "the Registrar knows", r.isDown)
	if err := r.Drop(context.Background(), "a"); err != nil {
		t.Errorf("dropping again what is not wanted any more: %v", err)
	}
	f.edit(func() { f.hang = nil })
	close(hang)
	holds(t, f)
}

func TestDropDuringRegistration(t *testing.T) {
	f := newFake(t)
	hang := make(chan struct{})
	f.start(t)
	r, _ := running(t, Config{Address: f.address})
	r.Put("first", []Service{service("first")})
	holds(t, f, "first")
	f.edit(func() { f.hang = hang })
	r.Put("a", []Service{service("a1")})
	eventually(t, "a1 is being registered", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return len(r.put) == 0 })
	dropped := make(chan error, 1)
	go func() { dropped <- r.Drop(context.Background(), "a") }()
	eventually(t, "the order to drop is there", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return len(r.drop) == 1 })
	close(hang)
	if err := <-dropped; err != nil {
		t.Fatal(err)
	}
	if got := f.ids(); !slices.Equal(got, []string{"first"}) {
		t.Errorf("when Drop had returned, Consul held %v", got)
	}
}

func TestTenThousandServices(t *testing.T) {
	f := newFake(t)
	f.start(t)
	r, _ := running(t, Config{Address: f.address})
	const n = 10_000
	for i := range n {
		id := fmt.Sprint(i)
		r.Put(id, []Service{service(id)})
	}
	eventually(t, "one of them is there", func() bool { return len(f.ids()) > 0 })
	begin := time.Now()
	if err := r.Drop(within(t, 10*time.Second), "5000"); err != nil {
		t.Error(err)
	}
	if d := time.Since(begin); d > 2*time.Second {
		t.Errorf("a Drop waited %v behind registrations", d)
	}
	eventually(t, "all others are there", func() bool { return len(f.ids()) == n-1 })
	for i := range n {
		r.Put(fmt.Sprint(i), nil)
	}
	holds(t, f)
	r.mu.Lock()
	defer r.mu.Unlock()
	if left := len(r.want) + len(r.services) + len(r.put) + len(r.drop) + len(r.waiters) + len(r.refused); left != 0 {
		t.Errorf("%d entries are kept of services that are gone", left)
	}
}

func TestNewRefusesNonsense(t *testing.T) {
	_, err := New(Config{Address: "ftp://consul:21"})
	if err == nil || !strings.Contains(err.Error(), "ftp://consul:21") {
		t.Errorf("error %v, want one that names the address", err)
	}
}

func TestSelf(t *testing.T) {
	got := Self(Role{Name: "mesos", Tags: []string{"master", "leader"}, Address: "10.0.0.2", Port: 5050, Path: "/health"},
		task.Owner{Cluster: "teama", Agent: "m1"})
	want := []Service{{
		ID: "mesopool:teama:mesos:10.0.0.2:5050", Name: "mesos", Tags: []string{"master", "leader"},
		Address: "10.0.0.2", Port: 5050, Meta: map[string]string{"cluster": "teama"},
		Check: &Check{Name: "GET /health", HTTP: "http://10.0.0.2:5050/health"},
	}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("services (-want +got):\n%s", d)
	}
}
