package sim

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/mesopool/mesopool/agent"
	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/provider/memory"
	"github.com/mesopool/mesopool/task"
)

// dataCenter is an agent's backend, the workers that call it, and Consul: what
// of the agent is not in its process.
type dataCenter struct {
	w         *World
	agent     *agentNode
	mem       *memory.Core
	feed      *memory.Feed
	pause     time.Duration // before the watch is started again
	pulling   bool
	listing   bool // the feed has not synced
	faulty    bool // listings may lack something
	faults    memory.Faults
	launches  map[task.Key]*launching // waiting or under way, in this life
	announced map[task.Key]bool
	heard     map[task.Key]bool // announced in this life
	others    []string          // containers that are not ours
	names     []string          // of all containers that were ever wanted
	keys      map[string]task.Key
}

// launching is a launch that can be cancelled.
type launching struct{ taken, canceled bool }

const (
	callTime   = 30 * time.Second
	launchTime = 2 * time.Minute
)

func newDataCenter(w *World, a *agentNode) *dataCenter {
	d := &dataCenter{w: w, agent: a, announced: map[task.Key]bool{}, keys: map[string]task.Key{}}
	d.mem = memory.NewCore(memory.Config{
		Rand: rand.New(rand.NewPCG(w.seed, w.rnd.Uint64())), Latency: memory.Span{Max: oneOf(w.rnd, time.Second, 9*time.Second)},
		CallLatency: memory.Span{Max: oneOf(w.rnd, 20*time.Millisecond, 2*time.Second)}, ExitLatency: memory.Span{Max: 3 * time.Second},
		Missing: map[string]bool{"missing": true},
	})
	d.mem.AddForeign(w.now, "foreign")
	d.mem.Launch(w.now, task.Owner{Cluster: "other", Agent: a.name}, "other-1", task.Spec{Key: task.Key{Framework: "fx", ID: "other"}})
	d.mem.Advance(w.now.Add(10 * time.Second))
	d.others = []string{"foreign", "other-1"}
	return d
}

func (d *dataCenter) revive() {
	d.pause = time.Second
	d.closeFeed()
	d.heard, d.launches = map[task.Key]bool{}, map[task.Key]*launching{}
}

// call does to the backend what the agent asks for. A request that is on its
// way may arrive after the agent has died.
func (d *dataCenter) call(c agent.Call) {
	if c.Withdraw {
		delete(d.announced, c.Key)
	}
	d.w.check.called(d, c)
	life := d.agent.life
	l := &launching{}
	if c.Op == agent.OpLaunch {
		d.launches[c.Key] = l
	}
	d.w.after(d.w.upTo(50*time.Millisecond), func() {
		if !l.canceled && (d.agent.up && d.agent.life == life || d.w.chance(0.3)) {
			l.taken = true
			d.perform(c, life, l)
		}
	})
}

// cancel ends the wait for a launch, or takes it out of the queue.
func (d *dataCenter) cancel(k task.Key) {
	l := d.launches[k]
	if l == nil || l.canceled {
		return
	}
	l.canceled = true
	delete(d.launches, k)
	d.agent.put(agent.Done{Call: agent.Call{Op: agent.OpLaunch, Key: k}, Err: context.Canceled})
}

// probe makes a health check of the agent's.
func (d *dataCenter) probe(p agent.Probe) {
	d.agent.inLife(d.w.upTo(time.Second), func() {
		_, k, found := d.byID(p.ID)
		in := agent.Probed{Key: p.Key, ID: p.ID, Healthy: found && k.State == provider.StateUp && d.w.healthy(p.Key.ID)}
		if !in.Healthy {
			in.Cause = "no answer"
		}
		if p.General {
			in.Check = &task.CheckStatus{Type: p.Check.Type}
			if in.Healthy {
				in.Check.Value = new(int32(1))
			}
		}
		d.agent.put(in)
	})
}

func (d *dataCenter) perform(c agent.Call, life int, l *launching) {
	limit := callTime
	var ans memory.Answer
	switch c.Op {
	case agent.OpLaunch:
		limit = launchTime
		d.note(c)
		s := *c.Spec
		if s.HoldsPod() {
			s.Image, s.Command = "pod", task.Command{Value: "sleep", Args: []string{"infinity"}}
		}
		ans = d.mem.Launch(d.w.now, d.agent.cfg.Owner, c.Name, s)
	case agent.OpStop:
		ans = d.mem.Stop(d.w.now, c.ID, c.Grace)
	case agent.OpInspect:
		ans = d.mem.Inspect(d.w.now, d.byName(c.ID))
	default:
		d.w.check.removes(d, c)
		ans = d.mem.Remove(d.w.now, c.ID)
	}
	at := ans.At
	if ans.Never || at.Sub(d.w.now) > limit {
		ans.Never, at = true, d.w.now.Add(limit)
	}
	d.w.logf("%s: the backend does %s %s %s%s: %v never=%v", d.agent.name, c.Op, c.Key, c.Name, c.ID, ans.Err, ans.Never)
	d.w.at(at, func() { d.answer(c, ans, life, l) })
	d.ready()
}

func (d *dataCenter) note(c agent.Call) {
	if _, known := d.keys[c.Name]; !known {
		d.names = append(d.names, c.Name)
		d.keys[c.Name] = c.Key
	}
}

func (d *dataCenter) answer(c agent.Call, ans memory.Answer, life int, l *launching) {
	d.mem.Advance(d.w.now)
	d.ready()
	if !d.agent.up || d.agent.life != life || l.canceled {
		return
	}
	if d.launches[c.Key] == l {
		delete(d.launches, c.Key)
	}
	done := agent.Done{Call: c, Err: context.DeadlineExceeded}
	if !ans.Never {
		done.Container, done.Err = d.mem.Result(ans)
	}
	d.agent.put(done)
}

// byName finds a container's ID by its name, as engines do.
func (d *dataCenter) byName(id string) string {
	if k, ok := d.mem.Lookup(id); ok {
		return k.ID
	}
	return id
}

// byID finds a container of ours without asking the backend.
func (d *dataCenter) byID(id string) (task.Key, provider.Container, bool) {
	for _, name := range d.names {
		if k, ok := d.mem.Lookup(name); ok && k.ID == id {
			return d.keys[name], k, true
		}
	}
	return task.Key{}, provider.Container{}, false
}

func (d *dataCenter) watch() {
	d.agent.put(agent.WatchStarted{})
	d.feed, d.listing = d.mem.Subscribe(d.agent.cfg.Owner, d.ready), true
	d.ready()
}

func (d *dataCenter) closeFeed() {
	if d.feed != nil {
		d.feed.Close()
		d.feed = nil
	}
}

// breakWatch cuts the watch; it starts again after a pause.
func (d *dataCenter) breakWatch() {
	if d.feed == nil {
		return
	}
	d.w.logf("%s: the watch breaks", d.agent.name)
	d.mem.BreakFeeds(d.agent.cfg.Owner)
	d.feed = nil
	d.agent.inLife(d.pause, d.watch)
	d.pause = min(2*d.pause, 30*time.Second)
}

// ready plans to tell what the feed has.
func (d *dataCenter) ready() {
	if d.pulling || d.feed == nil {
		return
	}
	d.pulling = true
	d.w.after(d.w.upTo(200*time.Millisecond), func() {
		d.pulling = false
		d.pull()
	})
}

func (d *dataCenter) pull() {
	d.mem.Advance(d.w.now)
	for d.feed != nil && d.agent.up {
		ev, ok := d.feed.Next()
		if !ok {
			return
		}
		switch {
		case ev.Synced:
			d.listing, d.pause = false, time.Second
		case d.listing && d.faulty && d.w.chance(0.05):
			d.breakWatch()
			return
		case d.listing && d.faulty && d.w.chance(0.05) && ev.Container.State == provider.StateUp:
			d.w.logf("%s: the listing lacks %s", d.agent.name, ev.Container.Name)
			continue
		}
		d.agent.put(agent.Seen{Event: ev})
	}
}

// listed says whether a task can be found. What an earlier life of the agent
// has announced may stay until the watch has told everything.
func (d *dataCenter) listed(k task.Key) bool { return d.announced[k] && d.heard[k] }

// allKnown: what was not announced by now is not there.
func (d *dataCenter) allKnown() {
	for k := range d.announced {
		if !d.heard[k] {
			delete(d.announced, k)
		}
	}
}

// running is the container in which a task runs, nil when there is none.
func (d *dataCenter) running(taskID string) *provider.Container {
	for _, name := range d.names {
		if d.keys[name].ID != taskID {
			continue
		}
		if k, ok := d.mem.Lookup(name); ok && k.State == provider.StateUp {
			return &k
		}
	}
	return nil
}

// containers lists ours that are in a state.
func (d *dataCenter) containers(state provider.State) (out []provider.Container) {
	for _, name := range d.names {
		if k, ok := d.mem.Lookup(name); ok && k.State == state {
			out = append(out, k)
		}
	}
	return out
}
