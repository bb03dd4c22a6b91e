package sim

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/mesopool/mesopool/agent"
	"github.com/mesopool/mesopool/marathon"
	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

// mutant is a deliberate bug. The hooks are made anew for each run, because some
// remember what they have seen.
type mutant struct {
	name  string
	hooks func() Hooks
}

// keep returns what of the effects the bug lets through.
func keep[T any](fx []T, let func(T) bool) []T {
	out := make([]T, 0, len(fx))
	for _, e := range fx {
		if let(e) {
			out = append(out, e)
		}
	}
	return out
}

func mutateAgent(change func(agent.Effect) []agent.Effect) Hooks {
	return Hooks{AgentOut: func(_ *World, fx []agent.Effect) (out []agent.Effect) {
		for _, e := range fx {
			out = append(out, change(e)...)
		}
		return out
	}}
}

var mutants = []mutant{
	{"the master acknowledges before the framework does", func() Hooks {
		return Hooks{MasterOut: func(w *World, fx []master.Effect) []master.Effect {
			for _, e := range fx {
				f, _ := e.(master.ToFramework)
				if u, ok := f.Event.(master.Update); ok && u.Wire != nil {
					for _, a := range w.agents {
						if a.disk.id == u.Agent {
							fx = append(fx, master.ToAgent{Agent: u.Agent, PID: a.addr, Message: master.AckUpdate{Key: task.Key{Framework: f.Framework, ID: u.Task}, UUID: u.Status.UUID}})
						}
					}
				}
			}
			return fx
		}}
	}},
	{"Marathon acknowledges before it has saved", func() Hooks { return Hooks{LeaveFirst: "marathon"} }},
	{"the agent acts before it has saved", func() Hooks { return Hooks{LeaveFirst: "agent"} }},
	{"the agent saves nothing", func() Hooks { return Hooks{LoseSaves: "agent"} }},
	{"Marathon saves nothing", func() Hooks { return Hooks{LoseSaves: "marathon"} }},
	{"the agent sends no update twice", func() Hooks {
		sent := map[task.UUID]bool{}
		return mutateAgent(func(e agent.Effect) []agent.Effect {
			if r, ok := e.(agent.Report); ok {
				if sent[r.Status.UUID] {
					return nil
				}
				sent[r.Status.UUID] = true
			}
			return []agent.Effect{e}
		})
	}},
	{"the agent removes a container as soon as it has ended", func() Hooks {
		return mutateAgent(func(e agent.Effect) []agent.Effect {
			if r, ok := e.(agent.Report); ok && r.Status.State.Terminal() && r.Status.Container != nil {
				return []agent.Effect{e, agent.Call{Op: agent.OpRemove, ID: r.Status.Container.ID}}
			}
			return []agent.Effect{e}
		})
	}},
	{"the agent keeps no stopped container", func() Hooks {
		last := map[task.Key]string{}
		return mutateAgent(func(e agent.Effect) []agent.Effect {
			switch x := e.(type) {
			case agent.Report:
				if x.Status.Container != nil {
					last[x.Key] = x.Status.Container.ID
				}
			case agent.Save:
				if id := last[x.Key]; x.Record == nil && id != "" {
					return []agent.Effect{e, agent.Call{Op: agent.OpRemove, ID: id}}
				}
			}
			return []agent.Effect{e}
		})
	}},
	{"the agent reports the newest state instead of the oldest", func() Hooks {
		return mutateAgent(func(e agent.Effect) []agent.Effect {
			if r, ok := e.(agent.Report); ok {
				r.Status.State = r.Latest
				return []agent.Effect{r}
			}
			return []agent.Effect{e}
		})
	}},
	{"the agent launches again under a new name", func() Hooks {
		tries := map[task.Key]int{}
		return mutateAgent(func(e agent.Effect) []agent.Effect {
			if c, ok := e.(agent.Call); ok && c.Op == agent.OpLaunch {
				if tries[c.Key]++; tries[c.Key] > 1 {
					c.Name += fmt.Sprintf("-%d", tries[c.Key])
				}
				return []agent.Effect{c}
			}
			return []agent.Effect{e}
		})
	}},
	{"the agent never takes a task out of the registry", func() Hooks {
		return mutateAgent(func(e agent.Effect) []agent.Effect {
			switch e := e.(type) {
			case agent.Withdraw:
				return nil
			case agent.Call:
				e.Withdraw = false
				return []agent.Effect{e}
			}
			return []agent.Effect{e}
		})
	}},
	{"the agent ignores which tasks it has missed", func() Hooks {
		return Hooks{AgentIn: func(_ *World, in agent.Input) []agent.Input {
			if _, ok := in.(agent.Joined); ok {
				return []agent.Input{agent.Joined{}}
			}
			return []agent.Input{in}
		}}
	}},
	{"the agent takes a failed inspection for a missing container", func() Hooks {
		return Hooks{AgentIn: func(_ *World, in agent.Input) []agent.Input {
			if d, ok := in.(agent.Done); ok && d.Call.Op == agent.OpInspect && d.Err != nil {
				d.Err = provider.ErrNotFound
				return []agent.Input{d}
			}
			return []agent.Input{in}
		}}
	}},
	{"the agent forgets that a kill was asked for after a failed stop", func() Hooks {
		return Hooks{AgentIn: func(_ *World, in agent.Input) []agent.Input {
			if d, ok := in.(agent.Done); ok && d.Call.Op == agent.OpStop && d.Err != nil {
				return nil
			}
			return []agent.Input{in}
		}}
	}},
	{"the agent ignores the end of a framework", func() Hooks {
		return Hooks{AgentIn: func(_ *World, in agent.Input) []agent.Input {
			if _, ok := in.(agent.ShutdownFramework); ok {
				return nil
			}
			return []agent.Input{in}
		}}
	}},
	{"the agent stops whatever it sees", func() Hooks {
		return mutateAgent(func(e agent.Effect) []agent.Effect {
			if _, ok := e.(agent.AllKnown); ok {
				return []agent.Effect{e, agent.Call{Op: agent.OpStop, ID: "000000000001"}}
			}
			return []agent.Effect{e}
		})
	}},
	{"the master forgets that an offer was declined", func() Hooks {
		return Hooks{MasterIn: func(_ *World, cmd master.Command) []master.Command {
			if _, ok := cmd.(master.Decline); ok {
				return nil
			}
			return []master.Command{cmd}
		}}
	}},
	{"the master takes every accept twice", func() Hooks {
		return Hooks{MasterIn: func(_ *World, cmd master.Command) []master.Command {
			if _, ok := cmd.(master.Accept); ok {
				return []master.Command{cmd, cmd}
			}
			return []master.Command{cmd}
		}}
	}},
	{"the master does not hear pongs", func() Hooks {
		return Hooks{MasterIn: func(_ *World, cmd master.Command) []master.Command {
			if _, ok := cmd.(master.Pong); ok {
				return nil
			}
			return []master.Command{cmd}
		}}
	}},
	{"the master does not ask agents for tasks it does not know", func() Hooks {
		return Hooks{MasterOut: func(_ *World, fx []master.Effect) []master.Effect {
			return keep(fx, func(e master.Effect) bool {
				a, _ := e.(master.ToAgent)
				p, ok := a.Message.(master.Ping)
				return !ok || p.Connected
			})
		}}
	}},
	{"Marathon never reconciles", func() Hooks {
		return Hooks{MarathonOut: func(_ *World, fx []marathon.Effect) []marathon.Effect {
			return keep(fx, func(e marathon.Effect) bool { _, ok := e.(marathon.Reconcile); return !ok })
		}}
	}},
	{"Marathon kills only once", func() Hooks {
		killed := map[string]bool{}
		return Hooks{MarathonOut: func(_ *World, fx []marathon.Effect) []marathon.Effect {
			return keep(fx, func(e marathon.Effect) bool {
				k, ok := e.(marathon.Kill)
				again := killed[k.TaskID]
				if ok {
					killed[k.TaskID] = true
				}
				return !ok || !again
			})
		}}
	}},
	{"Marathon acknowledges only what runs", func() Hooks {
		return Hooks{MarathonOut: func(w *World, fx []marathon.Effect) []marathon.Effect {
			return keep(fx, func(e marathon.Effect) bool {
				a, ok := e.(marathon.Acknowledge)
				_, known := w.marathon.core.Instance(a.TaskID)
				return !ok || known
			})
		}}
	}},
	{"Marathon launches everything twice", func() Hooks {
		return Hooks{MarathonOut: func(_ *World, fx []marathon.Effect) []marathon.Effect {
			for i, e := range fx {
				if a, ok := e.(marathon.Accept); ok {
					a.Launch.Tasks = append(a.Launch.Tasks[:len(a.Launch.Tasks):len(a.Launch.Tasks)], a.Launch.Tasks...)
					fx[i] = a
				}
			}
			return fx
		}}
	}},
	{"Marathon asks for offers only once", func() Hooks {
		asked := 0
		return Hooks{MarathonOut: func(_ *World, fx []marathon.Effect) []marathon.Effect {
			return keep(fx, func(e marathon.Effect) bool {
				if _, ok := e.(marathon.Revive); ok {
					asked++
					return asked == 1
				}
				return true
			})
		}}
	}},
}

// restarted changes what Marathon is given back at a start.
func restarted(change func(*marathon.Recover)) func() Hooks {
	return func() Hooks {
		return Hooks{MarathonIn: func(_ *World, in marathon.Input) []marathon.Input {
			if r, ok := in.(marathon.Recover); ok {
				change(&r)
				return []marathon.Input{r}
			}
			return []marathon.Input{in}
		}}
	}
}

func eachApp(change func(*marathon.SavedApp)) func() Hooks {
	return restarted(func(r *marathon.Recover) {
		for i := range r.Apps {
			change(&r.Apps[i])
		}
	})
}

func eachInstance(change func(*marathon.Instance)) func() Hooks {
	return restarted(func(r *marathon.Recover) {
		for _, i := range r.Instances {
			change(i)
		}
	})
}

func marathonOut(change func(*World, marathon.Effect) []marathon.Effect) func() Hooks {
	return func() Hooks {
		return Hooks{MarathonOut: func(w *World, fx []marathon.Effect) (out []marathon.Effect) {
			for _, e := range fx {
				out = append(out, change(w, e)...)
			}
			return out
		}}
	}
}

// deployMutants are deliberate bugs in how Marathon changes apps.
var deployMutants = []mutant{
	{"Marathon forgets its deployments at a restart", restarted(func(r *marathon.Recover) { r.Deployments = nil })},
	{"Marathon goes on with the last step after a restart", restarted(func(r *marathon.Recover) {
		for _, d := range r.Deployments {
			d.Current = len(d.Steps) - 1
		}
	})},
	{"Marathon forgets at a restart what it was killing", eachInstance(func(i *marathon.Instance) { i.Killing = false })},
	{"Marathon takes everything for ready after a restart", eachInstance(func(i *marathon.Instance) { i.Unready = false })},
	{"Marathon forgets at a restart how many must be healthy", eachApp(func(a *marathon.SavedApp) { a.App.Upgrade.MinimumHealthCapacity = 0 })},
	{"Marathon forgets at a restart how many there may be", eachApp(func(a *marathon.SavedApp) { a.App.Upgrade.MaximumOverCapacity = 2 })},
	{"Marathon forgets at a restart which runs are over", eachApp(func(a *marathon.SavedApp) { a.Runs = marathon.Runs{} })},
	{"Marathon forgets its residences at a restart", restarted(func(r *marathon.Recover) { r.Residences = nil })},
	{"Marathon forgets the records of groups at a restart", restarted(func(r *marathon.Recover) { r.Groups = nil })},
	{"Marathon takes a kill that it has sent for the end", marathonOut(func(w *World, e marathon.Effect) []marathon.Effect {
		if k, ok := e.(marathon.Kill); ok {
			w.marathon.put(marathon.Updated{TaskID: k.TaskID, Agent: k.Agent, Status: task.Status{State: task.Killed}}, nil)
		}
		return []marathon.Effect{e}
	})},
	{"Marathon sends no kills", marathonOut(func(_ *World, e marathon.Effect) []marathon.Effect {
		if _, ok := e.(marathon.Kill); ok {
			return nil
		}
		return []marathon.Effect{e}
	})},
	{"Marathon makes no readiness checks", marathonOut(func(_ *World, e marathon.Effect) []marathon.Effect {
		if _, ok := e.(marathon.CheckReady); ok {
			return nil
		}
		return []marathon.Effect{e}
	})},
	{"Marathon takes any answer to a readiness check for a good one", func() Hooks {
		return Hooks{MarathonIn: func(_ *World, in marathon.Input) []marathon.Input {
			if c, ok := in.(marathon.CheckedReady); ok {
				c.Status = 200
				return []marathon.Input{c}
			}
			return []marathon.Input{in}
		}}
	}},
	{"Marathon takes what runs for healthy", func() Hooks {
		return Hooks{MarathonIn: func(_ *World, in marathon.Input) []marathon.Input {
			if u, ok := in.(marathon.Updated); ok && u.Status.State == task.Running {
				return []marathon.Input{in, marathon.Checked{TaskID: u.TaskID, Alive: true}}
			}
			return []marathon.Input{in}
		}}
	}},
	{"Marathon takes a pod's network for all of the pod", func() Hooks {
		return Hooks{MarathonIn: func(_ *World, in marathon.Input) []marathon.Input {
			if u, ok := in.(marathon.Updated); ok && strings.HasSuffix(u.TaskID, ".one.1") && u.Status.State == task.Running {
				u.TaskID = strings.TrimSuffix(u.TaskID, "one.1") + "two.1"
				u.Status.UUID = task.UUID{}
				return []marathon.Input{in, u}
			}
			return []marathon.Input{in}
		}}
	}},
	{"Marathon kills one instance more than it has to", marathonOut(func(w *World, e marathon.Effect) []marathon.Effect {
		k, ok := e.(marathon.Kill)
		if !ok {
			return []marathon.Effect{e}
		}
		i, known := w.marathon.core.Instance(k.TaskID)
		if !known || i.Killing && len(i.App) == 0 {
			return []marathon.Effect{e}
		}
		for _, v := range w.marathon.core.Apps(w.now, func(a *marathon.App) bool { return a.ID == i.App }) {
			for _, other := range v.Instances {
				if !other.Killing && other.TaskID != i.TaskID {
					other.Killing = true
					return []marathon.Effect{marathon.Save{Key: marathon.KeyInstance + other.TaskID, Value: other}, e, marathon.Kill{TaskID: other.TaskID, Agent: other.Agent}}
				}
			}
		}
		return []marathon.Effect{e}
	})},
}

// mostMutantSeeds is within how many seeds every mutant must be caught.
const mostMutantSeeds = 600

// TestMutants: every deliberate bug is caught.
func TestMutants(t *testing.T) {
	var mu sync.Mutex
	report := map[string]string{}
	all := slices.Concat(mutants, deployMutants)
	parallel(func(i int) bool {
		if i >= len(all) {
			return false
		}
		text := catch(&all[i])
		mu.Lock()
		defer mu.Unlock()
		report[all[i].name] = text
		return true
	})
	for _, m := range all {
		t.Logf("%-62s %s", m.name, report[m.name])
		if report[m.name] == "" {
			t.Errorf("%s: not caught within %d seeds", m.name, mostMutantSeeds)
		}
	}
}

func catch(m *mutant) string {
	for seed := uint64(1); seed <= mostMutantSeeds; seed++ {
		if f := New(seed, Options{Hooks: m.hooks()}).Run(Generate(seed)); f != nil {
			return fmt.Sprintf("seed %d, %s", seed, f.Checker)
		}
	}
	return ""
}
