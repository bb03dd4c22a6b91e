package sim

import (
	"cmp"
	"encoding/json"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/mesopool/mesopool/marathon"
	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// marathonNode is marathon/runner and mesos/scheduler around a marathon.Core.
type marathonNode struct {
	process
	cfg   marathon.Config
	core  *marathon.Core
	inbox []request
	disk  map[string][]byte
	role  string

	framework string // the ID that the client subscribes with
	session   *session
	pause     time.Duration // before the next attempt to subscribe
	sick      map[string]time.Time
	slow      map[string]time.Duration // how long after its start a task is ready
	commits   int                      // batches with something to save, in all lives
	deadly    int                      // the commit that ends its life; 0: none
	manner    death                    // and how
}

// request is an input with who waits until it is done.
type request struct {
	in   marathon.Input
	told marathon.Input // what was said before a hook has changed it
	done func(error)
}

// session is one subscription: the request with its stream of events, and the
// connection for calls.
type session struct {
	w       *World
	wire    *wire
	request *pipe
	calls   *pipe
	events  *pipe
	stream  string
	begun   time.Time
	last    time.Time
	known   bool // subscribed
	holding bool // until the framework's ID is saved
	held    []marathon.Input
	over    bool
}

const eventSilence = 75 * time.Second

func newMarathonNode(w *World) *marathonNode {
	c := &marathonNode{disk: map[string][]byte{}, role: oneOf(w.rnd, "*", "web"), sick: map[string]time.Time{}, slow: map[string]time.Duration{}}
	c.init(w, "marathon")
	c.cfg = marathon.DefaultConfig()
	c.cfg.Role, c.cfg.NewID = c.role, func() string { return w.table.id("i") }
	c.run, c.begin, c.cease = c.batch, c.revive, func() {}
	c.nextAct = func() time.Time { return c.core.Next() }
	return c
}

// info is what the framework says of itself.
func (c *marathonNode) info() master.FrameworkInfo {
	return master.FrameworkInfo{
		ID: c.framework, Name: "marathon", User: "root", Roles: []string{c.role}, FailoverTimeout: c.w.shape.failover, Checkpoint: true, Origin: []byte("marathon"),
		Capabilities: master.Capabilities{PartitionAware: true, MultiRole: true, KillingState: c.w.shape.killing, ReservationRefinement: true},
	}
}

func (c *marathonNode) revive() {
	c.core, c.inbox, c.session = marathon.NewCore(c.cfg), nil, nil
	c.w.check.rules.begins()
	saved := c.load()
	c.framework, c.pause = saved.FrameworkID, 100*time.Millisecond
	c.put(saved, nil)
	c.inLife(0, c.subscribe)
}

func (c *marathonNode) put(in marathon.Input, done func(error)) {
	told := in
	for _, x := range hooked(c.w, c.w.opt.Hooks.MarathonIn, in) {
		c.inbox = append(c.inbox, request{x, told, done})
		told, done = nil, nil
	}
	c.kick()
}

// batch is Runner.batch.
func (c *marathonNode) batch() {
	if next := c.core.Next(); !next.IsZero() && !next.After(c.w.now) {
		c.inbox = append(c.inbox, request{in: marathon.Tick{}})
	}
	var fx []marathon.Effect
	inbox := c.inbox
	c.inbox = nil
	refused := make([]error, len(inbox))
	for n, r := range inbox {
		c.w.logf("marathon: %s", c.w.text(r.in))
		c.w.check.marathonInput(r.in)
		before := c.w.check.beforeInput(c.core, r.in)
		had := len(fx)
		fx, refused[n] = c.core.Apply(c.w.now, r.in, fx)
		if refused[n] != nil {
			c.w.logf("marathon refuses: %v", refused[n])
			c.w.check.refusedInput(c.core, r.in, before, len(fx) > had)
		}
	}
	fx = c.core.Settle(c.w.now, fx)
	fx = outbound(c.w, c.w.opt.Hooks.MarathonOut, fx)
	c.fate(fx)
	leave, commit, dies := c.leaving(len(fx))
	if c.w.opt.Hooks.LeaveFirst == "marathon" {
		leave, commit = len(fx), !dies
	}
	if commit && c.w.opt.Hooks.LoseSaves != "marathon" {
		c.commit(fx)
		c.w.check.rules.committed(inbox, fx)
	}
	for _, e := range fx[:leave] {
		c.dispatch(e)
	}
	if dies {
		c.die(c.doom)
		return
	}
	for n, r := range inbox {
		if r.done != nil {
			r.done(refused[n])
		}
	}
}

// fate ends the node's life at the commit that it is to die at.
func (c *marathonNode) fate(fx []marathon.Effect) {
	saves := slices.ContainsFunc(fx, func(e marathon.Effect) bool { _, ok := e.(marathon.Save); return ok })
	if !saves {
		return
	}
	if c.commits++; c.commits == c.deadly {
		c.doom = c.manner
	}
}

// commit writes the last value of each key.
func (c *marathonNode) commit(fx []marathon.Effect) {
	last := map[string]any{}
	for _, e := range fx {
		if s, ok := e.(marathon.Save); ok {
			last[s.Key] = s.Value
		}
	}
	for _, key := range sortedKeys(last) {
		if last[key] == nil {
			delete(c.disk, key)
			continue
		}
		text, err := json.Marshal(last[key])
		if err != nil {
			c.w.failf("shell", "encode %s: %v", key, err)
		}
		c.disk[key] = text
	}
}

// load is what is read at a start (marathon/runner, load).
func (c *marathonNode) load() (out marathon.Recover) {
	if ids := read[string](c, marathon.KeyFramework); len(ids) > 0 {
		out.FrameworkID = *ids[0]
	}
	byApp := map[string][]*marathon.App{}
	for _, v := range read[marathon.App](c, marathon.KeyVersion) {
		byApp[v.ID] = append(byApp[v.ID], v)
	}
	for _, a := range read[marathon.SavedApp](c, marathon.KeyApp+"/") {
		a.Versions = byApp[a.App.ID]
		slices.SortFunc(a.Versions, func(x, y *marathon.App) int { return strings.Compare(y.Version, x.Version) })
		out.Apps = append(out.Apps, *a)
	}
	out.Instances = read[marathon.Instance](c, marathon.KeyInstance)
	out.Deployments = read[marathon.Deployment](c, marathon.KeyDeployment)
	out.Groups = read[marathon.Group](c, marathon.KeyGroup+"/")
	out.Residences = read[marathon.Residence](c, marathon.KeyResidence)
	return out
}

func read[T any](c *marathonNode, prefix string) (out []*T) {
	for _, key := range sortedKeys(c.disk) {
		if !strings.HasPrefix(key, prefix) {
			continue
		}
		v := new(T)
		if err := json.Unmarshal(c.disk[key], v); err != nil {
			c.w.failf("shell", "decode %s: %v", key, err)
		}
		out = append(out, v)
	}
	return out
}

func (c *marathonNode) dispatch(e marathon.Effect) {
	c.w.check.marathonEffect(e)
	f := c.framework
	switch e := e.(type) {
	case marathon.Accept:
		c.send(e, master.Accept{Framework: f, Offers: e.Offers, Changes: c.changes(e), Launches: c.launches(e), Refuse: e.Refuse})
	case marathon.Decline:
		c.send(e, master.Decline{Framework: f, Offers: e.Offers, Refuse: e.Refuse})
	case marathon.Acknowledge:
		c.send(e, master.Acknowledge{Key: task.Key{Framework: f, ID: e.TaskID}, Agent: e.Agent, UUID: e.UUID})
	case marathon.Kill:
		c.send(e, master.Kill{Key: task.Key{Framework: f, ID: e.TaskID}, Agent: e.Agent})
	case marathon.Reconcile:
		cmd := master.Reconcile{Framework: f}
		for _, id := range sortedKeys(e.Tasks) {
			cmd.Tasks = append(cmd.Tasks, master.ReconcileTask{ID: id, Agent: e.Tasks[id]})
		}
		c.send(e, cmd)
	case marathon.Revive:
		c.send(e, master.Revive{Framework: f})
	case marathon.Suppress:
		c.send(e, master.Suppress{Framework: f})
	case marathon.Check:
		c.look(e)
	case marathon.CheckReady:
		c.lookReady(e)
	}
}

// changes are the operations of an ACCEPT; its launches come after them.
func (c *marathonNode) changes(e marathon.Accept) (out []master.Change) {
	for _, op := range e.Launch.Changes {
		out = append(out, master.Change{Op: op, Wire: c.w.table.putOperation(op)})
	}
	return out
}

// launches are the tasks as the master takes them from an ACCEPT.
func (c *marathonNode) launches(e marathon.Accept) (out []master.Launch) {
	for i := range e.Launch.Tasks {
		out = append(out, c.launch(&e.Launch.Tasks[i], e.Agent))
	}
	for i := range e.Launch.Groups {
		g := &e.Launch.Groups[i]
		g.Pod.Resources = c.allocated(g.Pod.Resources)
		origin := c.w.table.putPod(&g.Pod, e.Agent)
		for k := range g.Tasks {
			l := c.launch(&g.Tasks[k], e.Agent)
			l.Group, l.Executor, l.ExecutorResources, l.ExecutorOrigin = g.Pod.Pod, g.Pod.Pod, g.Pod.Resources, origin
			out = append(out, l)
		}
	}
	return out
}

func (c *marathonNode) allocated(in resources.Resources) resources.Resources {
	out := slices.Clone(in)
	for n := range out {
		out[n].Role = cmp.Or(out[n].Role, c.role)
	}
	return out
}

func (c *marathonNode) launch(s *task.Spec, agent string) master.Launch {
	s.Resources = c.allocated(s.Resources)
	c.temper(s)
	return master.Launch{ID: s.Key.ID, Name: s.Name, Agent: agent, Resources: s.Resources, Origin: c.w.table.putSpec(s, agent)}
}

// What the environment of a task says of its service: it is ready only so long
// after its start, or not well before the faults end.
const (
	simSlow = "MESOPOOL_SIM_SLOW"
	simIll  = "MESOPOOL_SIM_ILL"
)

// temper notes how a task's service will behave.
func (c *marathonNode) temper(s *task.Spec) {
	for _, v := range s.Env {
		switch v.Key {
		case simSlow:
			c.slow[s.Key.ID], _ = time.ParseDuration(v.Value)
		case simIll:
			c.sick[s.Key.ID] = c.w.now.Add(1000 * time.Hour)
		}
	}
}

// send drops calls while there is no stream.
func (c *marathonNode) send(e marathon.Effect, cmd master.Command) {
	s := c.session
	if s == nil || !s.known || s.calls == nil {
		return
	}
	f := c.framework
	s.calls.send(c.w.text(e), func() {
		if !c.w.master.call(f, s.stream, cmd) {
			c.w.logf("the master refuses a call over %s", s.stream)
			c.inLife(s.wire.latency(), func() { c.end(s, "a call was refused") })
		}
	})
}

// subscribe is Client.session.
func (c *marathonNode) subscribe() {
	m := c.w.master
	s := &session{w: c.w, wire: c.w.wireTo(&c.process), begun: c.w.now, last: c.w.now}
	c.session = s
	info := c.info()
	s.request = s.wire.dial(&c.process, &m.process, m.addr, s.broken)
	s.request.send("SUBSCRIBE "+info.ID, func() { m.subscribe(s, info) })
	c.watchdog(s)
}

// answered: the master has taken the request; the stream has an ID.
func (s *session) answered(stream string, events *pipe) { s.stream, s.events = stream, events }

// broken: the request's connection is no more.
func (s *session) broken() { s.w.marathon.end(s, "the event stream ended") }

// heard: something has come over the stream.
func (s *session) heard() { s.last = s.w.now }

// watchdog ends a session that has been silent for too long.
func (c *marathonNode) watchdog(s *session) {
	c.inLife(max(s.last.Add(eventSilence).Sub(c.w.now), time.Millisecond), func() {
		switch {
		case s.over:
		case c.w.now.Sub(s.last) >= eventSilence:
			c.end(s, "the master is silent")
		default:
			c.watchdog(s)
		}
	})
}

// end is the end of a session; another attempt follows.
func (c *marathonNode) end(s *session, why string) {
	if s.over || !c.up || c.session != s {
		return
	}
	c.w.logf("marathon's session ends: %s", why)
	s.over, c.session = true, nil
	s.request.close()
	if s.calls != nil {
		s.calls.close()
	}
	if s.known {
		c.put(marathon.Disconnected{}, nil)
	}
	if c.w.now.Sub(s.begun) > 10*time.Second {
		c.pause = 100 * time.Millisecond
	}
	c.inLife(c.pause/2+c.w.upTo(c.pause), c.subscribe)
	c.pause = min(2*c.pause, 5*time.Second)
}

// subscribed is the first event: its handler returns when the ID is saved.
func (c *marathonNode) subscribed(s *session, framework, masterID string) {
	if s.over || c.session != s {
		return
	}
	s.heard()
	m := c.w.master
	c.framework, s.known, s.holding = framework, true, true
	s.calls = s.wire.dial(&c.process, &m.process, m.addr, func() { c.end(s, "the connection for calls broke") })
	c.put(marathon.Subscribed{FrameworkID: framework, MasterID: masterID}, func(error) {
		s.holding = false
		for _, in := range s.held {
			c.take(s, in)
		}
		s.held = nil
	})
}

// hear takes a later event; nil is one that needs nothing.
func (c *marathonNode) hear(s *session, in marathon.Input) {
	if s.over || c.session != s {
		return
	}
	s.heard()
	if s.holding {
		s.held = append(s.held, in)
		return
	}
	c.take(s, in)
}

func (c *marathonNode) take(s *session, in marathon.Input) {
	if in != nil && !s.over {
		c.put(in, nil)
	}
}

// failedBy: being displaced is no reason to end for good. Of a framework that
// the master has removed, the operator makes a new one.
func (c *marathonNode) failedBy(s *session, message string) {
	if s.over || c.session != s {
		return
	}
	if strings.Contains(message, "failed over") {
		c.end(s, message)
		return
	}
	if c.w.shape.failover > time.Hour {
		c.w.failf("refused", "the master refuses the framework: %s", message)
		return
	}
	delete(c.disk, marathon.KeyFramework)
	c.crash("refused: "+message, 5*time.Second)
}

// look makes a health check.
func (c *marathonNode) look(e marathon.Check) {
	c.inLife(c.w.upTo(500*time.Millisecond), func() {
		if !c.w.calm && c.w.chance(0.01) {
			return // it never comes to an answer
		}
		in := marathon.Checked{TaskID: e.TaskID, Index: e.Index, Alive: c.well(e)}
		if !in.Alive {
			in.Cause = "no answer"
		}
		c.put(in, nil)
	})
}

func (c *marathonNode) well(e marathon.Check) bool {
	host, _, _ := net.SplitHostPort(e.Address)
	k := c.running(e.TaskID)
	return k != nil && slices.Contains(k.Addresses, host) && c.w.healthy(e.TaskID)
}

// running is the container in which a task runs, nil when there is none.
func (c *marathonNode) running(taskID string) *provider.Container {
	for _, a := range c.w.agents {
		if k := a.dc.running(taskID); k != nil {
			return k
		}
	}
	return nil
}

// lookReady makes a readiness check.
func (c *marathonNode) lookReady(e marathon.CheckReady) {
	c.inLife(c.w.upTo(500*time.Millisecond), func() {
		if !c.w.calm && c.w.chance(0.01) {
			return // it never comes to an answer
		}
		in := marathon.CheckedReady{TaskID: e.TaskID}
		switch k := c.running(e.TaskID); {
		case k == nil:
		case c.w.now.Sub(k.Started) < c.slow[e.TaskID]:
			in.Status = 503
		default:
			in.Status = 200
		}
		c.put(in, nil)
	})
}

// healthy says whether a task's service works.
func (w *World) healthy(taskID string) bool { return w.calm || !w.now.Before(w.marathon.sick[taskID]) }
