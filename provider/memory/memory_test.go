package memory

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/provider/providertest"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

var owner = task.Owner{Cluster: "mesos", Agent: "dc-1"}

func script(p providertest.Program) string {
	var steps []string
	for i := 1; i <= p.Lines; i++ {
		steps = append(steps, fmt.Sprintf("echo out %d", i), fmt.Sprintf("echo err %d >&2", i))
	}
	if p.Deaf {
		steps = append(steps, "trap '' TERM")
	}
	end := fmt.Sprintf("exit %d", p.Exit)
	if p.Run {
		end = "sleep infinity"
	}
	return strings.Join(append(steps, end), "; ")
}

func setup(t *testing.T, cfg Config) providertest.Setup {
	cfg.Missing = map[string]bool{"no/such:image": true}
	p := New(cfg)
	return providertest.Setup{
		Provider: p,
		Owner:    owner,
		Missing:  "no/such:image",
		Spec: func(prog providertest.Program) task.Spec {
			return task.Spec{Image: "app:1", Command: task.Command{Shell: true, Value: script(prog)}}
		},
		Argv: func(prog providertest.Program) []string { return []string{"sh", "-c", script(prog)} },
		Foreign: func(_ *testing.T, name string) (id string) {
			p.Do(func(c *Core, now time.Time) { id = c.AddForeign(now, name) })
			return id
		},
		Create: func(t *testing.T, o task.Owner, name string, s task.Spec) {
			p.Do(func(c *Core, now time.Time) {
				if _, err := c.Result(c.Create(now, o, name, s)); err != nil {
					t.Fatal(err)
				}
			})
		},
		ReadFile: func(_ *testing.T, id, path string) (data []byte) {
			p.Do(func(c *Core, _ time.Time) { data, _ = c.File(id, path) })
			return data
		},
		Vanish: func(_ *testing.T, id string) { p.Do(func(c *Core, now time.Time) { c.Vanish(now, id) }) },
		Break:  func(*testing.T) { p.Do(func(c *Core, _ time.Time) { c.BreakFeeds(owner) }) },
	}
}

func TestConformance(t *testing.T) {
	t.Run("Immediate", func(t *testing.T) {
		providertest.Run(t, func(t *testing.T) providertest.Setup { return setup(t, Config{}) },
			providertest.Quirks{Grace: 100 * time.Millisecond})
	})
	t.Run("Slow", func(t *testing.T) {
		ms := Span{Min: time.Millisecond, Max: 20 * time.Millisecond}
		cfg := Config{Latency: ms, CallLatency: ms, ExitLatency: ms}
		providertest.Run(t, func(t *testing.T) providertest.Setup { return setup(t, cfg) },
			providertest.Quirks{Grace: 100 * time.Millisecond})
	})
}

func TestProgramOf(t *testing.T) {
	tests := []struct {
		name string
		spec task.Spec
		want string
	}{
		{"nothing", task.Spec{}, "forever"},
		{"unknown", task.Spec{Command: task.Command{Shell: true, Value: "python server.py"}}, "forever"},
		{"loop", task.Spec{Command: task.Command{Shell: true, Value: "while true; do echo x; sleep 1; done"}}, "forever"},
		{"sleep", task.Spec{Command: task.Command{Shell: true, Value: "sleep 2.5"}}, "2.5s exit 0"},
		{"steps", task.Spec{Command: task.Command{Shell: true, Value: "sleep 1 && sleep 2; exit 3; sleep 9"}}, "3s exit 3"},
		{"and", task.Spec{Command: task.Command{Shell: true, Value: "false && sleep 2"}}, "0s exit 1"},
		{"argv", task.Spec{Command: task.Command{Value: "/bin/sleep", Args: []string{"4"}}}, "4s exit 0"},
		{"sh", task.Spec{Command: task.Command{Args: []string{"/bin/sh", "-c", "exit 255"}}}, "0s exit 255"},
		{"too large", task.Spec{Command: task.Command{Shell: true, Value: "exit 256"}}, "forever"},
		{"env", task.Spec{Env: []task.Label{{Key: simRun, Value: "2s"}, {Key: simExit, Value: "3"}}}, "2s exit 3"},
		{"label", task.Spec{Labels: []task.Label{{Key: simExit, Value: "4"}}}, "0s exit 4"},
		{"label over command", task.Spec{Command: task.Command{Shell: true, Value: "sleep 9"}, Labels: []task.Label{{Key: simRun, Value: "1s"}}}, "1s exit 0"},
		{"deaf", task.Spec{Labels: []task.Label{{Key: simDeaf, Value: "1"}}}, "forever deaf"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := programOf(&tt.spec)
			got := "forever"
			if p.run != forever {
				got = fmt.Sprintf("%v exit %d", p.run, p.code)
			}
			if p.deaf {
				got += " deaf"
			}
			if got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func sized(text string) task.Spec {
	r, err := resources.Parse(text)
	if err != nil {
		panic(err)
	}
	return task.Spec{Key: task.Key{Framework: "f", ID: "t"}, Resources: r}
}

func TestCapacityComesBackAtTheEnd(t *testing.T) {
	now := time.Unix(100, 0)
	c := NewCore(Config{Total: resources.NewScalars(resources.Scalar{Name: "cpus", Amount: 1500})})
	first := c.Launch(now, owner, "a", sized("cpus:1;mem:1"))
	if first.Err != nil {
		t.Fatal(first.Err)
	}
	a := c.Launch(now, owner, "b", sized("cpus:1"))
	if !errors.Is(a.Err, provider.ErrCapacity) || !strings.Contains(a.Err.Error(), "1 cpus wanted, 0.5 of 1.5 free") {
		t.Fatalf("a launch beyond the capacity: %v", a.Err)
	}
	got, err := c.Result(first)
	if err != nil {
		t.Fatal(err)
	}
	c.Kill(now, got.ID, 9)
	if a := c.Launch(now, owner, "b", sized("cpus:1.5")); a.Err != nil {
		t.Errorf("after the end of the first: %v", a.Err)
	}
}

func TestAddressesRunOutAndComeBack(t *testing.T) {
	now := time.Unix(100, 0)
	c := NewCore(Config{CIDR: netip.MustParsePrefix("10.1.2.0/29")})
	var last Answer
	for _, want := range []string{"10.1.2.2", "10.1.2.3", "10.1.2.4", "10.1.2.5", "10.1.2.6"} {
		last = c.Launch(now, owner, "c"+want, task.Spec{})
		if got, _ := c.Result(last); got.Addresses[0] != want {
			t.Errorf("got address %v, want %s", got.Addresses, want)
		}
	}
	if a := c.Launch(now, owner, "more", task.Spec{}); !errors.Is(a.Err, provider.ErrCapacity) {
		t.Fatalf("a sixth container in a /29: %v", a.Err)
	}
	got, _ := c.Result(last)
	c.Vanish(now, got.ID)
	if got, err := c.Result(c.Launch(now, owner, "more", task.Spec{})); err != nil || got.Addresses[0] != "10.1.2.6" {
		t.Errorf("after a removal: %v, %v", got.Addresses, err)
	}
}

// TestVirtualLife drives a core as the simulator does.
func TestVirtualLife(t *testing.T) {
	now := time.Unix(100, 0)
	c := NewCore(Config{Latency: Span{Min: 3 * time.Second}, ExitLatency: Span{Min: time.Second}})
	feed := c.Subscribe(owner, nil)
	var told []string
	drain := func() {
		for ev, ok := feed.Next(); ok; ev, ok = feed.Next() {
			told = append(told, fmt.Sprintf("%v %v", ev.Synced, ev.Container.State))
		}
	}
	drain()
	a := c.Launch(now, owner, "a", sized("cpus:1"))
	if want := now.Add(3 * time.Second); !a.At.Equal(want) || !c.Next().Equal(want) {
		t.Fatalf("answered at %v, next at %v, want %v", a.At, c.Next(), want)
	}
	if again := c.Launch(now.Add(time.Second), owner, "a", sized("cpus:1")); !again.At.Equal(a.At) {
		t.Errorf("a second Launch is answered at %v, want with the first at %v", again.At, a.At)
	}
	drain()
	c.Advance(c.Next())
	drain()
	got, err := c.Result(a)
	if err != nil || c.Live(task.Key{Framework: "f", ID: "t"}) != 1 {
		t.Fatalf("%v, %d live", err, c.Live(got.Key))
	}
	c.Stop(a.At, got.ID, time.Minute)
	c.Advance(c.Next())
	c.Remove(a.At.Add(time.Minute), got.ID)
	drain()
	want := "true none, false created, false up, false gone"
	if s := strings.Join(told, ", "); s != want {
		t.Errorf("told %s, want %s", s, want)
	}
	if c.Len() != 0 || !c.Next().IsZero() || len(c.Doubles()) != 0 {
		t.Errorf("left: %d containers, next %v, doubles %v", c.Len(), c.Next(), c.Doubles())
	}
}

func TestDoublesAreSeen(t *testing.T) {
	now := time.Unix(100, 0)
	c := NewCore(Config{})
	c.Launch(now, owner, "a", sized("cpus:1"))
	c.Launch(now, owner, "b", sized("cpus:1"))
	if len(c.Doubles()) != 1 || c.Live(task.Key{Framework: "f", ID: "t"}) != 2 {
		t.Errorf("doubles %v", c.Doubles())
	}
}

func TestFaults(t *testing.T) {
	now := time.Unix(100, 0)
	tests := []struct {
		name   string
		faults Faults
		done   int // containers that exist afterwards
		err    error
		never  bool
	}{
		{"fail", Faults{Fail: 1}, 0, ErrFault, false},
		{"throttle", Faults{Throttle: 1}, 0, provider.ErrThrottle, false},
		{"lose", Faults{LoseReply: 1}, 1, ErrLost, false},
		{"hang", Faults{Hang: 1}, -1, nil, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := NewCore(Config{Faults: tt.faults})
			a := c.Launch(now, owner, "a", task.Spec{})
			if !errors.Is(a.Err, tt.err) || a.Never != tt.never || tt.done >= 0 && c.Len() != tt.done {
				t.Errorf("answer %+v, %d containers", a, c.Len())
			}
			c.SetFaults(Faults{})
			if got, err := c.Result(c.Launch(now, owner, "a", task.Spec{})); err != nil || got.State != provider.StateUp {
				t.Errorf("launching again: %v, %v", got.State, err)
			}
		})
	}
}

func TestDie(t *testing.T) {
	c := NewCore(Config{Faults: Faults{Die: 1, DieAfter: Span{Min: time.Second, Max: time.Minute}}})
	now := time.Unix(100, 0)
	a := c.Launch(now, owner, "a", task.Spec{})
	c.Advance(now.Add(time.Minute))
	if got, _ := c.Result(a); got.State != provider.StateExited || got.ExitCode != 1 {
		t.Errorf("got %v with code %d", got.State, got.ExitCode)
	}
}

// TestSameSeedSameRun: a core's behaviour depends on its inputs alone.
func TestSameSeedSameRun(t *testing.T) {
	run := func() string {
		c := NewCore(Config{
			Latency: Span{Min: 1, Max: time.Second}, Faults: Faults{Fail: 0.1, LoseReply: 0.1, Hang: 0.1, Die: 0.3, DieAfter: Span{Max: time.Minute}},
		})
		feed := c.Subscribe(owner, nil)
		var log strings.Builder
		now := time.Unix(100, 0)
		for i := range 300 {
			now = now.Add(time.Second)
			a := c.Launch(now, owner, fmt.Sprintf("c%d", i%100), task.Spec{})
			fmt.Fprintln(&log, a.At.UnixNano(), a.Never, a.Err)
			for ev, ok := feed.Next(); ok; ev, ok = feed.Next() {
				fmt.Fprintln(&log, ev.Container.Name, ev.Container.State, ev.Container.Ended.UnixNano())
			}
		}
		return log.String()
	}
	if first, second := run(), run(); first != second {
		t.Error("two runs of the same seed differ")
	}
}

func TestHungCallEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(Config{Faults: Faults{Hang: 1}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := p.Launch(ctx, owner, "a", task.Spec{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

// TestSlowWatcherDoesNotGrow: ten thousand changes of one container wait as one.
func TestSlowWatcherDoesNotGrow(t *testing.T) {
	c := NewCore(Config{})
	feed := c.Subscribe(owner, nil)
	now := time.Unix(100, 0)
	for range 10_000 {
		got, _ := c.Result(c.Launch(now, owner, "a", task.Spec{}))
		c.Kill(now, got.ID, 1)
	}
	if len(feed.queue) != 1 {
		t.Errorf("%d events wait, want 1", len(feed.queue))
	}
}

func BenchmarkLaunch(b *testing.B) {
	p := New(Config{})
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	synced := make(chan bool)
	go func() {
		for ev := range p.Watch(ctx, owner) {
			if ev.Synced {
				close(synced)
			}
		}
	}()
	<-synced
	names := make([]string, b.N)
	specs := make([]task.Spec, b.N)
	for i := range names {
		names[i] = fmt.Sprintf("web-%d", i)
		specs[i] = sized("cpus:0.1;mem:32")
		specs[i].Key.ID = names[i]
	}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	b.ResetTimer()
	for i := range b.N {
		if _, err := p.Launch(ctx, owner, names[i], specs[i]); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "launches/s")
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric((float64(after.HeapAlloc)-float64(before.HeapAlloc))/float64(b.N), "B/container")
	runtime.KeepAlive(specs)
	runtime.KeepAlive(p)
}
