package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mesopool/mesopool/agent"
	"github.com/mesopool/mesopool/marathon"
	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

// checker knows what is true and looks at everything that happens.
type checker struct {
	w       *World
	ledgers map[task.Key]*ledger
	gone    map[string]bool   // frameworks that a master has removed
	ended   map[task.Key]bool // tasks that this master has seen end
	agents  map[string]bool   // that this master knows
	rules   *rules
}

// ledger is the history of a task's updates, as its agent told it first.
type ledger struct {
	updates []*update
	state   task.State
	missed  bool // the agent has said that it does not know the task
}

type update struct {
	uuid   task.UUID
	state  task.State
	seen   bool // Marathon has had it
	acked  bool // Marathon has acknowledged it
	passed bool // the agent has had the acknowledgement
}

func newChecker(w *World) *checker {
	return &checker{w: w, ledgers: map[task.Key]*ledger{}, gone: map[string]bool{}, rules: newRules(w)}
}

func (c *checker) masterBegins() { c.ended, c.agents = map[task.Key]bool{}, map[string]bool{} }

func (c *checker) ledger(k task.Key) *ledger {
	l := c.ledgers[k]
	if l == nil {
		l = &ledger{state: task.Staging}
		c.ledgers[k] = l
	}
	return l
}

func (l *ledger) find(u task.UUID) (int, *update) {
	for i, x := range l.updates {
		if x.uuid == u {
			return i, x
		}
	}
	return -1, nil
}

// over says whether the framework has acknowledged the task's end.
func (l *ledger) over() bool {
	n := len(l.updates)
	return n > 0 && l.updates[n-1].state.Terminal() && l.updates[n-1].acked
}

// reported: states grow, and a new update comes only after all earlier ones
// were acknowledged. Of a task that its agent did not know when the master asked
// for it, the launch may still come, over an older connection.
func (c *checker) reported(a *agentNode, r agent.Report) {
	c.idle("%s reports %s", a.name, r.Key)
	l, s := c.ledger(r.Key), r.Status
	c.rules.reported(r.Key.ID, r.Latest)
	if _, u := l.find(s.UUID); u != nil {
		if u.state != s.State {
			c.w.failf("updates", "%s: update %s was %s and is %s", r.Key, short(s.UUID), u.state, s.State)
		}
		return
	}
	switch n := len(l.updates); {
	case s.UUID.IsZero():
		c.w.failf("updates", "%s: %s has no UUID", r.Key, s.State)
	case s.State == task.Dropped && l.over() && l.updates[n-1].passed: // a late kill or question about a task that is forgotten
	case l.state.Terminal() && !l.missed:
		c.w.failf("terminal", "%s: the agent reports %s after %s", r.Key, s.State, l.state)
	case !l.missed && (s.State.Rank() < l.state.Rank() || s.State.Rank() == l.state.Rank() && !repeats(&s)):
		c.w.failf("updates", "%s: %s after %s", r.Key, s.State, l.state)
	case n > 0 && !l.updates[n-1].passed:
		c.w.failf("updates", "%s: %s is reported before %s was acknowledged", r.Key, s.State, l.state)
	case r.Latest.Rank() < s.State.Rank():
		c.w.failf("updates", "%s: the latest state %s is behind %s", r.Key, r.Latest, s.State)
	}
	if s.State.Terminal() && a.dc.listed(r.Key) {
		c.w.failf("registry", "%s has ended and can still be found", r.Key)
	}
	l.missed = l.missed || s.Reason == task.ReasonReconciliation && s.State.Terminal()
	l.updates, l.state = append(l.updates, &update{uuid: s.UUID, state: s.State}), s.State
}

// repeats says whether an update may tell a state once more: it has news of its
// health, or of what hinders the launch.
func repeats(s *task.Status) bool {
	return s.Healthy != nil || s.State == task.Starting && s.Message != ""
}

// agentInput: an acknowledgement comes from the framework.
func (c *checker) agentInput(_ *agentNode, in agent.Input) {
	ack, ok := in.(agent.Ack)
	if !ok {
		return
	}
	_, u := c.ledger(ack.Key).find(ack.UUID)
	switch {
	case u == nil:
		c.w.failf("acknowledged", "%s: the agent never sent %s", ack.Key, short(ack.UUID))
	case !u.acked:
		c.w.failf("acknowledged", "%s: nobody has acknowledged %s (%s)", ack.Key, short(ack.UUID), u.state)
	default:
		u.passed = true
	}
}

// told: what a framework is told was sent by an agent, or made by the master.
func (c *checker) told(in marathon.Updated, fromAgent bool) {
	c.rules.heardOf(in.TaskID, in.Status.State)
	if fromAgent == in.Status.UUID.IsZero() {
		c.w.failf("invented", "%s: %s with update %s, of an agent: %v", in.TaskID, in.Status.State, short(in.Status.UUID), fromAgent)
	}
}

// marathonInput: every update that Marathon sees is one that the agent sent,
// and it has seen all before it.
func (c *checker) marathonInput(in marathon.Input) {
	x, ok := in.(marathon.Updated)
	if !ok || x.Status.UUID.IsZero() {
		return
	}
	key := task.Key{Framework: c.w.marathon.framework, ID: x.TaskID}
	l := c.ledger(key)
	i, u := l.find(x.Status.UUID)
	switch {
	case u == nil:
		c.w.failf("invented", "%s: Marathon hears %s, which no agent sent", key, x.Status.State)
	case u.state != x.Status.State:
		c.w.failf("invented", "%s: Marathon hears %s for %s", key, x.Status.State, u.state)
	case i > 0 && !l.updates[i-1].seen:
		c.w.failf("updates", "%s: Marathon hears %s and has missed %s", key, u.state, l.updates[i-1].state)
	default:
		u.seen = true
	}
}

// marathonEffect: an update is acknowledged after what it changes is saved.
func (c *checker) marathonEffect(e marathon.Effect) {
	m := c.w.marathon
	switch e := e.(type) {
	case marathon.Acknowledge:
		_, u := c.ledger(task.Key{Framework: m.framework, ID: e.TaskID}).find(e.UUID)
		if u == nil || !u.seen {
			c.w.failf("acknowledged", "Marathon acknowledges an update of %s that it never had", e.TaskID)
			return
		}
		_, saved := m.disk[marathon.KeyInstance+e.TaskID]
		if u.state.Terminal() && saved {
			c.w.failf("saved", "Marathon acknowledges the end of %s before it is saved", e.TaskID)
		}
		u.acked = true
	case marathon.Accept:
		c.idle("Marathon launches %d", len(e.Launch.Tasks))
		for i := range e.Launch.Tasks {
			if _, saved := m.disk[marathon.KeyInstance+e.Launch.Tasks[i].Key.ID]; !saved {
				c.w.failf("saved", "the launch of %s leaves before it is saved", e.Launch.Tasks[i].Key.ID)
			}
		}
	case marathon.Kill:
		c.idle("Marathon kills %s", e.TaskID)
	}
}

// called: before a launch leaves, the agent has it on record.
func (c *checker) called(d *dataCenter, call agent.Call) {
	c.idle("%s calls %s %s", d.agent.name, call.Op, call.Key)
	if _, saved := d.agent.disk.tasks[call.Key]; call.Op == agent.OpLaunch && !saved {
		c.w.failf("saved", "the launch of %s leaves %s before it is saved", call.Key, d.agent.name)
	}
	if call.Op == agent.OpStop && d.listed(call.Key) {
		c.w.failf("registry", "%s is stopped while it can be found", call.Key)
	}
}

// lateStart is how long after its task's end a container may still start and
// end: a launch was under way. Its keep time counts from the task's end.
const lateStart = 20 * time.Second

// removes: no container goes before the end of its task was acknowledged, nor
// before its keep time is over.
func (c *checker) removes(d *dataCenter, call agent.Call) {
	key, k, found := d.byID(call.ID)
	if !found || c.gone[key.Framework] {
		return
	}
	keep := slices.Min(d.agent.cfg.GC.Keep[:]) - lateStart
	switch l := c.ledger(key); {
	case !l.over() && !strings.HasPrefix(key.ID, task.PodID("")): // what holds a pod's network has no updates
		c.w.failf("collected", "%s's container %s (%s) is removed, and its end is not acknowledged", key, k.Name, k.State)
	case k.State == provider.StateExited && c.w.now.Before(k.Ended.Add(keep)) && len(d.names) <= d.agent.cfg.GC.MaxKept:
		c.w.failf("collected", "%s's container %s is removed %s after its end", key, k.Name, c.w.now.Sub(k.Ended))
	}
}

// toAgent notes what only a master decides.
func (c *checker) toAgent(_ *agentNode, e master.ToAgent) {
	switch m := e.Message.(type) {
	case master.ShutdownFramework:
		c.gone[m.Framework] = true
	case master.RunTask, master.KillTask, master.AckUpdate:
		c.idle("the master sends %T", m)
	}
}

// idle: in the last stretch nothing happens any more.
func (c *checker) idle(format string, args ...any) {
	if c.w.idle {
		c.w.failf("idle", format, args...)
	}
}

// always holds after every event.
func (c *checker) always() {
	for _, a := range c.w.agents {
		if d := a.dc.mem.Doubles(); len(d) > 0 {
			c.w.failf("double", "two live containers of %s at %s", d[0], a.name)
		}
		for _, name := range a.dc.others {
			if k, ok := a.dc.mem.Lookup(name); !ok || k.State != provider.StateUp {
				c.w.failf("foreign", "%s of %s is %s", name, a.name, k.State)
			}
		}
	}
}

// master: the books of every agent balance, and what has ended stays so.
func (c *checker) master(core *master.Core) {
	snap := core.Snapshot()
	for i := range snap.Frameworks {
		for _, t := range snap.Frameworks[i].Tasks {
			c.row(t)
		}
	}
	clear(c.agents)
	for i := range snap.Agents {
		c.agents[snap.Agents[i].ID] = true
	}
	books := auditMaster(snap)
	for _, wrong := range books.Unbalanced() {
		c.w.failf("accounting", "%s", wrong)
	}
}

func (c *checker) row(t *master.Task) {
	switch {
	case t.State.Terminal():
		c.ended[t.Key] = true
	case c.ended[t.Key] && !c.ledger(t.Key).missed:
		c.w.failf("terminal", "the master has %s as %s, and it had ended", t.Key, t.State)
	}
}

// beforeCommand digests the core if the command is likely to be refused.
func (c *checker) beforeCommand(core *master.Core, cmd master.Command) (digest string, suspect bool) {
	away := func(id string) bool { at, known := core.Stream(id); return !known || at == "" }
	switch cmd := cmd.(type) {
	case master.Accept:
		suspect = away(cmd.Framework)
	case master.Decline:
		suspect = away(cmd.Framework)
	case master.Acknowledge:
		suspect = away(cmd.Key.Framework)
	case master.Kill:
		suspect = away(cmd.Key.Framework)
	case master.Reconcile:
		suspect = away(cmd.Framework)
	case master.Revive:
		suspect = away(cmd.Framework)
	case master.Suppress:
		suspect = away(cmd.Framework)
	case master.StatusUpdate:
		_, known := core.Stream(cmd.Key.Framework)
		suspect = !known || !c.agents[cmd.Agent]
	}
	if suspect {
		digest = digestMaster(core)
	}
	return digest, suspect
}

func (c *checker) refused(core *master.Core, cmd master.Command, before string, suspect, effects bool) {
	if effects {
		c.w.failf("refused", "%s was refused and had effects", masterText(cmd))
	}
	if suspect && digestMaster(core) != before {
		c.w.failf("refused", "%s was refused and changed something", masterText(cmd))
	}
}

func digestMaster(core *master.Core) string {
	var b strings.Builder
	snap := core.Snapshot()
	for i := range snap.Agents {
		a := &snap.Agents[i]
		fmt.Fprintln(&b, a.ID, a.PID, a.Connected, a.Used, a.Offered)
	}
	for i := range snap.Frameworks {
		f := &snap.Frameworks[i]
		fmt.Fprintln(&b, f.ID, f.Connected, f.Suppressed, len(f.Unreachable), len(f.Done), offerIDs(f.Offers))
		for _, t := range f.Tasks {
			fmt.Fprintln(&b, t.Key, t.State, t.StatusState, t.StatusUUID, t.KillAsked, len(t.Statuses))
		}
	}
	return b.String()
}

// beforeInput digests Marathon if a user may be refused.
func (c *checker) beforeInput(core *marathon.Core, in marathon.Input) string {
	switch in.(type) {
	case marathon.Change, marathon.ChangeGroup, marathon.Promote, marathon.KillTasks, marathon.CancelDeployment:
		return c.digestMarathon(core)
	}
	return ""
}

func (c *checker) refusedInput(core *marathon.Core, in marathon.Input, before string, effects bool) {
	if effects || before != c.digestMarathon(core) {
		c.w.failf("refused", "%s was refused and changed something", marathonText(in))
	}
}

func (c *checker) digestMarathon(core *marathon.Core) string {
	var b strings.Builder
	for _, v := range core.Apps(c.w.now, nil) {
		fmt.Fprintln(&b, v.App.ID, v.App.Version, v.App.Instances, v.Need, v.Deployments)
		for _, i := range v.Instances {
			fmt.Fprintln(&b, i.TaskID, i.State, i.Killing)
		}
	}
	for _, d := range core.Deployments() {
		fmt.Fprintln(&b, d.ID, d.Current, d.Steps)
	}
	return b.String()
}
