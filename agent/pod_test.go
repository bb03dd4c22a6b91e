package agent

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/image"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/provider/docker"
	"github.com/mesopool/mesopool/provider/memory"
	"github.com/mesopool/mesopool/store"
	"github.com/mesopool/mesopool/task"
)

func podSpec(name string) task.Spec {
	return task.Spec{Key: task.Key{Framework: "f1", ID: task.PodID(name)}, Pod: name, Name: "pod", Origin: []byte("executor")}
}

func group(pod string, ids ...string) LaunchGroup {
	g := LaunchGroup{Framework: aware, Pod: podSpec(pod)}
	for _, id := range ids {
		g.Tasks = append(g.Tasks, spec(id))
	}
	return g
}

func podName(pod string) string {
	return ContainerName(owner.Cluster, task.Key{Framework: "f1", ID: task.PodID(pod)}, "pod")
}

// pods plays groups on the simulated data center.
type pods struct {
	t *testing.T
	p *memory.Provider
	m *master
	o Options
	*live
}

func playPods(t *testing.T, cfg memory.Config, play func(x *pods)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		x := &pods{t: t, p: memory.New(cfg), m: newMaster(t)}
		x.o = Options{Core: coreConfig(), Provider: x.p, Store: store.NewMemory()}
		x.live = run(x.o, x.m)
		play(x)
		x.stop(t)
	})
}

func (x *pods) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (x *pods) want(id, history string) {
	x.t.Helper()
	if got := x.m.history(id); got != history {
		x.t.Errorf("%s: %s, want %s", id, got, history)
	}
}

// end ends a container as if by itself.
func (x *pods) end(name string, code uint8) {
	x.t.Helper()
	x.p.Do(func(c *memory.Core, now time.Time) {
		k, ok := c.Lookup(name)
		if !ok || !c.Kill(now, k.ID, code) {
			x.t.Errorf("there is no running container %s", name)
		}
	})
	synctest.Wait()
}

func (x *pods) state(name string) (s provider.State) {
	x.p.Do(func(c *memory.Core, _ time.Time) {
		if k, ok := c.Lookup(name); ok {
			s = k.State
		}
	})
	return s
}

func (x *pods) executors() (out []string) {
	roster, err := x.Roster(x.t.Context())
	if err != nil {
		x.t.Fatal(err)
	}
	for _, e := range roster.Executors {
		out = append(out, e.Spec.Pod)
	}
	return out
}

func TestPodLife(t *testing.T) {
	playPods(t, memory.Config{Latency: memory.Span{Min: time.Second, Max: 2 * time.Second}}, func(x *pods) {
		x.Put(group("pod", "a", "b"))
		x.Put(group("pod", "a", "b")) // the master repeats itself
		x.pass(time.Minute)
		x.want("a", "STARTING RUNNING")
		x.want("b", "STARTING RUNNING")
		a, b := x.m.status("a").Container, x.m.status("b").Container
		if a.ID == b.ID || len(a.Addresses) != 1 || !slices.Equal(a.Addresses, b.Addresses) {
			t.Errorf("the tasks are in %+v and %+v", a, b)
		}
		if got := x.executors(); !slices.Equal(got, []string{"pod"}) {
			t.Errorf("executors %v", got)
		}
		x.Put(group("pod", "c")) // a further group in the same pod
		x.pass(time.Minute)
		x.want("c", "STARTING RUNNING")
		x.end(nameOf("a"), 0)
		x.pass(time.Minute)
		x.want("a", "STARTING RUNNING FINISHED")
		x.want("b", "STARTING RUNNING") // nothing has failed
		x.end(nameOf("b"), 3)
		x.pass(time.Minute)
		x.want("b", "STARTING RUNNING FAILED")
		x.want("c", "STARTING RUNNING") // of another group
		if x.state(podName("pod")) != provider.StateUp || x.m.gone != nil {
			t.Errorf("the pod is %v, gone are %v", x.state(podName("pod")), x.m.gone)
		}
		x.kill("c")
		x.pass(time.Minute)
		x.want("c", "STARTING RUNNING KILLING KILLED")
		if !slices.Equal(x.m.gone, []string{"pod"}) || x.executors() != nil {
			t.Errorf("gone are %v, there are %v", x.m.gone, x.executors())
		}
		x.pass(10 * time.Minute)
		if n := containers(x.p); n != 0 {
			t.Errorf("%d containers are left", n)
		}
		if left, err := x.o.Store.List(t.Context(), "agent/"); err != nil || len(left) != 0 {
			t.Errorf("the store holds %v, %v", left, err)
		}
	})
}

func TestAFailedTaskTakesItsGroupWithIt(t *testing.T) {
	playPods(t, memory.Config{}, func(x *pods) {
		x.Put(group("pod", "a", "b", "c"))
		x.pass(time.Minute)
		x.end(nameOf("b"), 3)
		x.pass(time.Minute)
		x.want("b", "STARTING RUNNING FAILED")
		for _, id := range []string{"a", "c"} {
			x.want(id, "STARTING RUNNING KILLING KILLED")
			if s := x.m.status(id); !strings.Contains(s.Message, "The task b of the same group has ended as TASK_FAILED") {
				t.Errorf("%s: %q", id, s.Message)
			}
		}
		if !slices.Equal(x.m.gone, []string{"pod"}) {
			t.Errorf("gone are %v", x.m.gone)
		}
	})
}

func TestAGroupIsNotStartedInPart(t *testing.T) {
	playPods(t, memory.Config{Missing: map[string]bool{"none:1": true}}, func(x *pods) {
		g := group("pod", "a", "b")
		g.Tasks[1].Image = "none:1"
		x.Put(g)
		x.pass(time.Minute)
		x.want("b", "STARTING FAILED")
		if got := x.m.history("a"); !strings.HasSuffix(got, " KILLED") {
			t.Errorf("a: %s", got)
		}
		x.pass(10 * time.Minute)
		if n := containers(x.p); n != 0 || !slices.Equal(x.m.gone, []string{"pod"}) {
			t.Errorf("%d containers are left, gone are %v", n, x.m.gone)
		}
	})
}

func TestAPodThatCannotStart(t *testing.T) {
	playPods(t, memory.Config{Missing: map[string]bool{"pod": true}}, func(x *pods) {
		x.Put(group("pod", "a", "b"))
		x.pass(time.Minute)
		for _, id := range []string{"a", "b"} {
			x.want(id, "STARTING FAILED")
			if s := x.m.status(id); s.Reason != task.ReasonExecutorTerminated || !strings.Contains(s.Message, "there is no image pod") {
				t.Errorf("%s: %+v", id, s)
			}
		}
		if !slices.Equal(x.m.gone, []string{"pod"}) {
			t.Errorf("gone are %v", x.m.gone)
		}
	})
}

func TestTheTasksOfAPodEndWithItsNetwork(t *testing.T) {
	playPods(t, memory.Config{ExitLatency: memory.Span{Min: time.Second, Max: time.Second}}, func(x *pods) {
		x.Put(group("pod", "a", "b"))
		x.pass(time.Minute)
		x.p.Do(func(c *memory.Core, now time.Time) {
			k, _ := c.Lookup(podName("pod"))
			c.Vanish(now, k.ID)
		})
		synctest.Wait()
		x.pass(time.Minute)
		for _, id := range []string{"a", "b"} {
			if s, got := x.m.status(id), x.m.history(id); !strings.HasSuffix(got, " FAILED") || s.Reason != task.ReasonExecutorTerminated || !strings.Contains(s.Message, "removed from outside") {
				t.Errorf("%s: %s, %+v", id, got, s)
			}
		}
		if x.executors() != nil || !slices.Equal(x.m.gone, []string{"pod"}) {
			t.Errorf("gone are %v, there are %v", x.m.gone, x.executors())
		}
	})
}

// TestPodsAcrossRestarts: whenever the agent dies, its next life finds the pod.
func TestPodsAcrossRestarts(t *testing.T) {
	for _, after := range []time.Duration{0, 500 * time.Millisecond, 1500 * time.Millisecond, 2500 * time.Millisecond, 10 * time.Second} {
		playPods(t, memory.Config{Latency: memory.Span{Min: time.Second, Max: time.Second}}, func(x *pods) {
			x.Put(group("pod", "a", "b"))
			synctest.Wait()
			x.pass(after)
			x.stop(t)
			x.live = run(x.o, x.m)
			x.pass(time.Minute)
			x.want("a", "STARTING RUNNING")
			x.want("b", "STARTING RUNNING")
			if n := containers(x.p); n != 3 {
				t.Errorf("after %v there are %d containers", after, n)
			}
			x.stop(t)
			x.end(podName("pod"), 1) // while nobody looks
			x.live = run(x.o, x.m)
			x.pass(time.Minute)
			for _, id := range []string{"a", "b"} {
				if got := x.m.history(id); !strings.HasSuffix(got, " FAILED") {
					t.Errorf("after %v, %s: %s", after, id, got)
				}
			}
			x.pass(10 * time.Minute)
			if n := containers(x.p); n != 0 {
				t.Errorf("after %v, %d containers are left", after, n)
			}
		})
	}
}

func TestKilledBeforeThePodIsUp(t *testing.T) {
	playPods(t, memory.Config{Latency: memory.Span{Min: 10 * time.Second, Max: 10 * time.Second}}, func(x *pods) {
		x.Put(group("pod", "a", "b"))
		x.pass(time.Second)
		x.Put(ShutdownExecutor{Framework: "f1", Executor: "pod"})
		x.pass(time.Minute)
		for _, id := range []string{"a", "b"} {
			x.want(id, "STARTING KILLED")
		}
		x.pass(10 * time.Minute)
		if n := containers(x.p); n != 0 || !slices.Equal(x.m.gone, []string{"pod"}) {
			t.Errorf("%d containers are left, gone are %v", n, x.m.gone)
		}
	})
}

func TestPodsOfAFrameworkThatEnds(t *testing.T) {
	playPods(t, memory.Config{}, func(x *pods) {
		x.Put(group("pod", "a", "b"))
		x.pass(time.Minute)
		x.Put(ShutdownFramework{ID: "f1"})
		x.pass(10 * time.Minute)
		x.want("a", "STARTING RUNNING")
		if n := containers(x.p); n != 0 {
			t.Errorf("%d containers are left", n)
		}
		if left, err := x.o.Store.List(t.Context(), "agent/"); err != nil || len(left) != 0 {
			t.Errorf("the store holds %v, %v", left, err)
		}
	})
}

func TestGroupsAreRefusedWhole(t *testing.T) {
	for name, x := range map[string]struct {
		change func(*Core, *LaunchGroup)
		state  task.State
		why    string
	}{
		"no pods":     {func(c *Core, _ *LaunchGroup) { c.cfg.NoPods = "no such thing here" }, task.Failed, "no such thing here"},
		"a bad check": {func(_ *Core, g *LaunchGroup) { g.Tasks[1].Check = &task.HealthCheck{} }, task.Failed, "the task b of the group"},
		"draining": {func(c *Core, _ *LaunchGroup) {
			c.Step(t0, Launch{Framework: aware, Spec: spec("x")}, nil)
			c.Step(t0, Drain{}, nil)
		}, task.Dropped, "draining"},
	} {
		t.Run(name, func(t *testing.T) {
			c, g, gone := NewCore(testConfig()), group("pod", "a", "b"), 0
			x.change(c, &g)
			for _, e := range c.Step(t0, g, nil) {
				switch e.(type) {
				case ExecutorGone:
					gone++
				case Call:
					t.Errorf("a call: %+v", e)
				}
			}
			for _, id := range []string{"a", "b"} {
				if r := c.tasks[key(id)]; r == nil || r.State != x.state || !strings.Contains(r.History[0].Message, x.why) {
					t.Errorf("%s: %+v", id, r)
				}
			}
			if gone != 1 {
				t.Errorf("the executor was gone %d times", gone)
			}
		})
	}
}

// TestPodOnEngine: two containers of an engine talk over their own loopback; the
// container between them is made of the program itself.
func TestPodOnEngine(t *testing.T) {
	e := newEngine(t)
	program := filepath.Join(t.TempDir(), "mesopool")
	build := exec.Command("go", "build", "-o", program, "../cmd/mesopool")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	o := docker.OptionsFromEnv(os.Getenv)
	o.Cluster, o.Log, o.PodBinary = e.name, slog.New(slog.DiscardHandler), program
	p, err := docker.New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	cfg := coreConfig()
	cfg.Owner, cfg.GC.Keep = task.Owner{Cluster: e.name, Agent: "dc-1"}, [3]time.Duration{}
	m := newMaster(t)
	opt := Options{Core: cfg, Provider: p, Store: store.NewMemory()}
	r := run(opt, m)
	g := group("pod", "a", "b")
	g.Pod.Labels = []task.Label{{Key: testLabel, Value: e.name}}
	for i, id := range []string{"a", "b"} {
		g.Tasks[i] = e.spec(id)
	}
	g.Tasks[0].Command.Args = []string{"serve", "run"}
	// b's check finds the server of a: the two have one network.
	g.Tasks[1].Health = &task.HealthCheck{Type: task.CheckHTTP, Port: 80, Interval: 100 * time.Millisecond, Timeout: time.Second, Grace: time.Minute, Failures: 1}
	r.Put(g)
	eventually(t, "both run, and b is healthy", func() bool {
		return m.history("a") == "STARTING RUNNING" && m.history("b") == "STARTING RUNNING RUNNING" && *m.status("b").Healthy
	})
	r.stop(t)
	r = run(opt, m)
	name := func(id string) string { return ContainerName(e.name, key(id), "web") }
	if err := e.cli.ContainerKill(t.Context(), name("a"), "KILL"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both have ended", func() bool {
		return m.status("a").State == task.Failed && m.status("b").State == task.Killed
	})
	holder := ContainerName(e.name, g.Pod.Key, "pod")
	for _, left := range []string{name("a"), name("b"), holder} {
		eventually(t, left+" is removed", func() bool { return e.state(left) == "absent" })
	}
	r.stop(t)
	if !slices.Contains(m.gone, "pod") {
		t.Errorf("gone are %v", m.gone)
	}
	made, err := p.Pod(t.Context(), g.Pod)
	if err == nil {
		_, err = e.cli.ImageRemove(t.Context(), made.Image, image.RemoveOptions{Force: true})
	}
	if err != nil {
		t.Error(err)
	}
}
