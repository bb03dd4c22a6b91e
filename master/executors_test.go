package master

import (
	"slices"
	"testing"

	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

func customOf(id, executor, text, origin string) Launch {
	l := launchOf(id, "m-S0", text)
	l.Executor, l.ExecutorResources, l.ExecutorOrigin = executor, amount("cpus:1;mem:32").Allocated("web"), []byte(origin)
	return l
}

// An executor is counted once, named in offers, and free when it has ended.
func TestExecutors(t *testing.T) {
	s := small(t)
	fx := s.do(Accept{Framework: "m-0000", Offers: []string{"m-O0"}, Launches: []Launch{
		customOf("a", "e", "cpus:1", "one"), customOf("b", "e", "cpus:1", "one"), customOf("c", "e", "cpus:0.5", "another"), customOf("d", "x", "cpus:1", ""),
	}})
	var runs []bool
	for _, e := range fx {
		if to, ok := e.(ToAgent); ok {
			if m, ok := to.Message.(RunTask); ok {
				runs = append(runs, m.Runs)
			}
		}
	}
	if want := []bool{false, true}; !slices.Equal(runs, want) || !has(fx, "c TASK_ERROR") || !has(fx, "d TASK_ERROR") {
		t.Errorf("launched: %v, %v", runs, text(fx))
	}
	if got := s.core.agents["m-S0"].used; !got.Equal(amount("cpus:3;mem:32").Allocated("web")) {
		t.Errorf("used: %s", got)
	}
	offer := s.core.frameworks["m-0000"].offers["m-O1"]
	if offer == nil || !slices.Equal(offer.Executors, []string{"e"}) {
		t.Errorf("offered with %+v", offer)
	}
	for _, id := range []string{"a", "b"} {
		s.do(updateOf("m-S0", "m-0000", id, task.Finished))
	}
	if got := s.core.agents["m-S0"].used; !got.Equal(amount("cpus:1;mem:32").Allocated("web")) {
		t.Errorf("used by the executor alone: %s", got)
	}
	s.do(ExitedExecutor{Agent: "m-S0", Framework: "m-0000", Executor: "e"})
	if got := s.core.agents["m-S0"].used; len(got) > 0 {
		t.Errorf("used by nobody: %s", got)
	}
}

// The executors are those that the agent reports.
func TestExecutorsReported(t *testing.T) {
	s := small(t)
	s.do(Accept{Framework: "m-0000", Offers: []string{"m-O0"}, Launches: []Launch{customOf("a", "gone", "cpus:1", "one")}})
	info, f := agentOf(1, "cpus:4;mem:4096"), frameworkOf("f")
	info.ID, f.ID = "m-S0", "m-0000"
	row := &Executor{ID: "here", Framework: f.ID, Resources: amount("cpus:0.5").Allocated("web")}
	task := *s.core.frameworks[f.ID].tasks["a"]
	cmd := ReregisterAgent{Agent: info, Tasks: []*Task{&task}, Executors: []*Executor{row}, Frameworks: []FrameworkInfo{f}}
	for _, what := range []string{"known", "after a restart"} {
		s.do(cmd)
		if got := s.core.agents["m-S0"].used; !got.Equal(amount("cpus:1.5").Allocated("web")) {
			t.Errorf("%s: used %s", what, got)
		}
		s = newScript(t, nil)
		s.do(Subscribe{Info: f, Stream: "s"})
		again := task
		cmd.Tasks = []*Task{&again}
	}
}

// Ports that are for show are offered whole each time, to each, and any number
// of tasks may have the same.
func TestSyntheticPorts(t *testing.T) {
	s := newScript(t, func(c *Config) { c.OfferParts, c.OfferFloor = 4, nil })
	info := agentOf(1, "cpus:4;mem:4096;ports:[1-9]")
	info.SyntheticPorts = true
	s.do(RegisterAgent{Agent: info})
	s.do(Subscribe{Info: frameworkOf("f"), Stream: "s1"})
	ports := func() (n int) {
		for _, o := range s.core.offers {
			if slices.ContainsFunc(o.Resources, func(r resources.Resource) bool { return r.Name == "ports" && r.Ranges.String() == "[1-9]" }) {
				n++
			}
		}
		return n
	}
	if n := ports(); n < 2 || n != len(s.core.offers) {
		t.Errorf("%d of %d offers have all ports", n, len(s.core.offers))
	}
	o := s.core.allOffers()[0]
	fx := s.do(Accept{Framework: "m-0000", Offers: []string{o.ID}, Launches: []Launch{
		launchOf("a", "m-S0", "cpus:0.1;mem:32;ports:[1-2]"), launchOf("b", "m-S0", "cpus:0.1;mem:32;ports:[2-3]"),
	}})
	if !has(fx, "run a") || !has(fx, "run b") || ports() != len(s.core.offers) {
		t.Errorf("%v; %d of %d offers have all ports", text(fx), ports(), len(s.core.offers))
	}
	var tasks []*Task
	for _, t := range sortedTasks(s.core.frameworks["m-0000"].tasks) {
		row := *t
		tasks = append(tasks, &row)
	}
	// One that changes its mind is counted anew.
	for _, show := range []bool{false, true} {
		info := s.core.agents["m-S0"].AgentInfo
		info.SyntheticPorts = show
		s.do(ReregisterAgent{Agent: info, Tasks: tasks, Frameworks: []FrameworkInfo{s.core.frameworks["m-0000"].FrameworkInfo}})
		want := "cpus:0.2; mem:64; ports:[1-3]"
		if show {
			want = "cpus:0.2; mem:64"
		}
		if got := s.core.agents["m-S0"].used.Allocated("").String(); got != want {
			t.Errorf("ports for show %v: %s is used, want %s", show, got, want)
		}
	}
}

// A shared volume is offered while it is used, and never destroyed under its
// users; revocable amounts go to those who know what they are.
func TestSharedAndRevocable(t *testing.T) {
	s := newScript(t, nil)
	info := capable(1, "cpus:4;mem:4096")
	vol := volume("disk:64", "web", "v")
	vol[0].Shared = true
	spare := amount("cpus:8")
	spare[0].Revocable = true
	info.Resources = info.Resources.Add(vol...).Add(spare...)
	s.do(RegisterAgent{Agent: info})
	s.do(Subscribe{Info: frameworkOf("plain"), Stream: "s0"})
	if got := s.held("m-0000"); !got.Equal(amount("cpus:4;mem:4096").Allocated("web")) {
		t.Errorf("the plain one is offered %s", got)
	}
	s.do(Teardown{Framework: "m-0000"})
	f := frameworkOf("able")
	f.Capabilities.Shared, f.Capabilities.Revocable = true, true
	s.do(Subscribe{Info: f, Stream: "s1"})
	if got := s.held("m-0001"); !got.Equal(info.Resources.Allocated("web")) {
		t.Errorf("the able one is offered %s", got)
	}
	var l []Launch
	for _, id := range []string{"a", "b"} {
		one := launchOf(id, "m-S0", "cpus:1")
		one.Resources = one.Resources.Add(vol.Allocated("web")...)
		l = append(l, one)
	}
	fx := s.do(Accept{Framework: "m-0001", Offers: []string{s.core.allOffers()[0].ID}, Launches: l})
	if !has(fx, "run a") || !has(fx, "run b") || !s.held("m-0001").Contains(vol.Allocated("web")) {
		t.Errorf("two users: %v; offered %s", text(fx), s.held("m-0001"))
	}
	s.refused(Operate{Agent: "m-S0", Change: changeOf("", 0, resources.OpDestroy, vol)}, ErrConflict)
}
