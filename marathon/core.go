package marathon

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mesopool/mesopool/internal/timers"
	"github.com/mesopool/mesopool/task"
)

// Config is how a Core behaves.
type Config struct {
	NewID         func() string // UUIDs as text, for instances
	Role          string        // of apps that name none; "": *
	KeepVersions  int           // per app
	ReviveGap     time.Duration // shortest time between two revives
	Hold          time.Duration // how long an offer that does not fit now is refused
	KillRetry     time.Duration // a kill without an answer is sent again
	StagedLimit   time.Duration // no word of a launched task for so long: ask
	ReconcileEach time.Duration // all tasks are asked about
	ReviveEach    time.Duration // offers are asked for again while some are needed
	OneHostAfter  time.Duration // all offers came from one host for so long: it is a virtual agent
	MeasureEach   time.Duration // what instances of autoscaled apps use
}

// DefaultConfig has Marathon's values where it has one. NewCore takes them for
// what a Config leaves at zero.
func DefaultConfig() Config {
	return Config{
		Role: "*", KeepVersions: 50, ReviveGap: 500 * time.Millisecond, Hold: 5 * time.Second,
		KillRetry: 30 * time.Second, StagedLimit: 30 * time.Second, ReconcileEach: 10 * time.Minute,
		ReviveEach: 30 * time.Second, OneHostAfter: 10 * time.Second, MeasureEach: 15 * time.Second,
	}
}

// Core is Marathon's brain. It is not safe for concurrent use.
type Core struct {
	cfg         Config
	frameworkID string
	masterID    string
	connected   bool
	apps        map[string]*app
	groups      map[string]*Group // those that have a record
	residences  map[string]*Residence
	agents      map[string]map[string]time.Time // who has offered, by role, when last
	wide        map[string]bool                 // apps that run everywhere, while they are not stopped
	lookAround  time.Time                       // when offers are asked for to learn of agents; zero: at once
	audit       []*AuditEntry                   // oldest first
	cleanAsked  bool                            // offers were asked for to give residences back
	instances   map[string]*Instance            // by task ID; pods' by their own
	pods        map[string]*Instance            // by the IDs of their tasks
	deployments []*Deployment                   // oldest first
	timers      timers.Heap[timer]

	suppressed  bool
	lastRevive  time.Time
	reviveWait  time.Time // when a timer for the next revive wakes; zero: there is none
	lastVersion string
	session     int             // counts the subscriptions
	changed     map[string]bool // apps to look at when the batch ends
	lacking     map[string]*app // apps with fewer instances than they should have
	queue       []*app          // the lacking ones, those that wait longest first; nil: to be sorted
	ended       []*Deployment   // the last ones, for VersionOf
	hosts       hosts           // where offers come from
	measuring   measuring
}

type app struct {
	core      *Core
	def       *App
	versions  []*App // newest first, the current one among them
	good      *App   // the last one whose deployment succeeded, nil when there is none
	instances map[string]*Instance
	tally     tally         // of the instances
	changes   []*Deployment // that touch it, oldest first
	stopping  bool          // deleted; goes when its instances have
	failure   *Failure
	delay     time.Duration // before the next launch after a failure
	delayed   time.Time     // no launch before
	since     time.Time     // lacking instances since
	asked     int           // the need that offers were asked for
	seen      Refusals      // what was wrong with the offers meanwhile
	runs      Runs
	promoted  string // the configuration that need not wait; see Canary
	secrets   secretsOf
	ended     []time.Time // instances, for their health, within the last minute
	gated     bool        // some instance may have yet to show that it is ready
	ruled     *App        // the definition that rules belong to
	rules     []rule      // its constraints
	scaling   *scaling    // nil: it is not autoscaled
}

// Failure is how the last instance that failed ended.
type Failure struct {
	AppID     string `json:"appId"`
	Host      string `json:"host"`
	Message   string `json:"message"`
	State     string `json:"state"`
	TaskID    string `json:"taskId"`
	AgentID   string `json:"slaveId"`
	Timestamp string `json:"timestamp"`
	Version   string `json:"version"`
}

// SavedApp is an app in the store.
type SavedApp struct {
	App      *App
	Stopping bool
	Good     string `json:",omitempty"` // the last version whose deployment succeeded
	Runs     Runs   `json:",omitzero"`
	Promoted string `json:",omitempty"`
	Versions []*App `json:"-"`
}

type timerKind uint8

const (
	timerApp timerKind = iota // look at an app again
	timerRevive
	timerKill
	timerStaged
	timerCheck
	timerReconcile
	timerLost
	timerReady
	timerMeasure
)

type timer struct {
	kind  timerKind
	id    string
	index int
}

// The store's keys. IDs of apps hold slashes; nothing else follows them.
const (
	KeyFramework  = "marathon/framework-id"
	KeyApp        = "marathon/app"         // + id
	KeyVersion    = "marathon/version/"    // + timestamp + id
	KeyInstance   = "marathon/instance/"   // + task ID
	KeyDeployment = "marathon/deployment/" // + id
	KeyGroup      = "marathon/group"       // + id
	KeyAudit      = "marathon/audit/"      // + id
	KeyResidence  = "marathon/residence/"  // + id
	KeyAgent      = "marathon/agent/"      // + id
)

// NewCore returns a core without apps.
func NewCore(cfg Config) *Core {
	cfg.fill(DefaultConfig())
	return &Core{cfg: cfg, apps: map[string]*app{}, groups: map[string]*Group{}, instances: map[string]*Instance{}, pods: map[string]*Instance{}, residences: map[string]*Residence{}, agents: map[string]map[string]time.Time{}, wide: map[string]bool{}, changed: map[string]bool{}, lacking: map[string]*app{}, measuring: measuring{seen: map[string]string{}, saved: map[string]string{}}}
}

func (c *Config) fill(d Config) {
	c.Role = cmp.Or(c.Role, d.Role)
	c.KeepVersions = cmp.Or(c.KeepVersions, d.KeepVersions)
	c.ReviveGap, c.ReviveEach = cmp.Or(c.ReviveGap, d.ReviveGap), cmp.Or(c.ReviveEach, d.ReviveEach)
	c.Hold, c.KillRetry = cmp.Or(c.Hold, d.Hold), cmp.Or(c.KillRetry, d.KillRetry)
	c.OneHostAfter, c.MeasureEach = cmp.Or(c.OneHostAfter, d.OneHostAfter), cmp.Or(c.MeasureEach, d.MeasureEach)
	c.StagedLimit, c.ReconcileEach = cmp.Or(c.StagedLimit, d.StagedLimit), cmp.Or(c.ReconcileEach, d.ReconcileEach)
}

// Apply tells the core one input and appends what must be done about it. An
// error means that a wish was refused and nothing has changed. After a batch of
// inputs comes one Settle.
func (c *Core) Apply(now time.Time, in Input, fx []Effect) ([]Effect, error) {
	switch in := in.(type) {
	case Offered:
		return c.offered(now, in, fx), nil
	case Updated:
		return c.updated(now, in, fx), nil
	case Checked:
		return c.checked(now, in, fx), nil
	case Promote:
		return c.promote(now, in, fx)
	case GotSecrets:
		return c.gotSecrets(in, fx), nil
	case CheckedReady:
		return c.checkedReady(in, fx), nil
	case Measured:
		return c.measured(now, in, fx), nil
	case Tick:
		return c.tick(now, fx), nil
	case Subscribed:
		return c.subscribed(now, in, fx), nil
	case Disconnected:
		c.connected = false
		return append(fx, Event{Type: "scheduler_disconnected_event", Time: now, Body: map[string]any{}}), nil
	case Recover:
		return c.recover(now, in, fx), nil
	case Change:
		return c.change(now, in, fx)
	case ChangeGroup:
		return c.changeGroup(now, in, fx)
	case SetEnforceRole:
		return c.setEnforceRole(in, fx)
	case CancelDeployment:
		return c.cancelDeployment(now, in, fx)
	case KillTasks:
		return c.killTasks(now, in, fx)
	case ResetDelay:
		return c.resetDelay(in, fx)
	}
	return fx, nil
}

// Next is when a Tick would do something; the zero time means not before
// another input.
func (c *Core) Next() time.Time {
	at, _ := c.timers.Next()
	return at
}

func (c *Core) tick(now time.Time, fx []Effect) []Effect {
	for at, t, ok := c.timers.Pop(now); ok; at, t, ok = c.timers.Pop(now) {
		switch t.kind {
		case timerApp:
			c.changed[t.id] = true
		case timerRevive:
			if at.Equal(c.reviveWait) {
				c.reviveWait = time.Time{}
			}
		case timerKill:
			fx = c.killAgain(now, t.id, fx)
		case timerStaged:
			fx = c.askStaged(now, t.id, fx)
		case timerCheck:
			fx = c.check(now, t, fx)
		case timerReconcile:
			if t.index == c.session {
				fx = c.reconcileAll(now, fx)
			}
		case timerLost:
			fx = c.stillLost(now, t.id, fx)
		case timerReady:
			fx = c.checkReady(now, t.id, fx)
		case timerMeasure:
			fx = c.measure(now, fx)
		}
	}
	return fx
}

// Settle looks at every app that may have something to do, moves deployments
// on, and asks for offers if some are needed.
func (c *Core) Settle(now time.Time, fx []Effect) []Effect {
	if len(c.changed) > 0 {
		fx = c.advanceDeployments(now, fx) // nothing is ended for one that has failed
	}
	for len(c.changed) > 0 {
		ids := slices.Sorted(maps.Keys(c.changed))
		clear(c.changed)
		for _, id := range ids {
			if a := c.apps[id]; a != nil {
				fx = c.converge(now, a, fx)
			}
		}
		fx = c.advanceDeployments(now, fx)
	}
	return c.askForOffers(now, fx)
}

func (c *Core) recover(now time.Time, in Recover, fx []Effect) []Effect {
	c.frameworkID = in.FrameworkID
	for _, s := range in.Apps {
		c.apps[s.App.ID] = &app{core: c, def: s.App, versions: s.Versions, stopping: s.Stopping, instances: map[string]*Instance{}, since: now}
		c.apps[s.App.ID].good = c.apps[s.App.ID].versionCalled(s.Good)
		c.apps[s.App.ID].runs, c.apps[s.App.ID].promoted = s.Runs, s.Promoted
		c.changed[s.App.ID] = true
		c.noteWide(c.apps[s.App.ID])
		c.lastVersion = max(c.lastVersion, s.App.Version)
	}
	for _, i := range in.Instances {
		if c.apps[i.App] == nil {
			fx = append(fx, Save{Key: KeyInstance + i.TaskID}) // a stranger now, ended when it is heard of
			continue
		}
		c.recoverInstance(now, i)
	}
	for _, g := range in.Groups {
		c.groups[g.ID] = g
		c.lastVersion = max(c.lastVersion, g.Version)
	}
	for _, r := range in.Residences {
		c.residences[r.ID] = r
	}
	c.audit = in.Audit
	c.deployments = in.Deployments
	slices.SortFunc(c.deployments, func(a, b *Deployment) int { return strings.Compare(a.Version, b.Version) })
	for _, d := range c.deployments {
		c.link(d)
		c.stepBegins(d)
	}
	c.recoverMeasuring(now, in.Addresses)
	return fx
}

func (c *Core) recoverInstance(now time.Time, i *Instance) {
	i.heard = now
	for _, p := range i.Parts {
		p.Healthy = nil // it may be otherwise by now
	}
	c.hosts.see(i.Host)
	c.know(i)
	a := c.apps[i.App]
	a.instances[i.TaskID] = i
	i.def = a.definition(i.Version)
	a.gated = a.gated || i.Unready
	switch {
	case i.State == task.Running:
		c.startChecks(now, i)
	case i.State == task.Staging:
		c.timers.Add(now.Add(c.cfg.StagedLimit), timer{kind: timerStaged, id: i.TaskID})
	case !i.Lost.IsZero():
		i.inactive = a.givesUp(now, i)
		c.lostTimers(i)
	}
	c.touch(i)
}

// definition is the app's in a configuration, or what is nearest to it.
func (a *app) definition(config string) *App {
	for _, v := range a.versions {
		if v.ConfigVersion() == config {
			return v
		}
	}
	return a.def
}

func (c *Core) subscribed(now time.Time, in Subscribed, fx []Effect) []Effect {
	event := "scheduler_registered_event"
	if c.frameworkID != "" {
		event = "scheduler_reregistered_event"
	}
	if c.frameworkID != in.FrameworkID {
		c.frameworkID = in.FrameworkID
		fx = append(fx, Save{Key: KeyFramework, Value: in.FrameworkID})
	}
	c.session++
	c.masterID, c.connected, c.suppressed = in.MasterID, true, false
	fx = append(fx, Event{Type: event, Time: now, Body: map[string]any{"frameworkId": in.FrameworkID, "master": in.MasterID}})
	for _, i := range c.sortedInstances() {
		i.forgetTold()
		if i.Killing {
			fx = c.sendKill(now, i, fx)
		}
	}
	c.lastRevive, c.reviveWait, c.cleanAsked, c.lookAround = time.Time{}, time.Time{}, false, time.Time{}
	for _, a := range c.lacking {
		a.asked = 0 // who knows what the master still knows
	}
	return c.reconcileAll(now, fx)
}

// reconcileAll asks about every task by name, and then for all that the master
// knows; the timer asks again, soon while some have had no answer.
func (c *Core) reconcileAll(now time.Time, fx []Effect) []Effect {
	if !c.connected {
		return fx
	}
	ask := map[string]string{}
	for _, i := range c.instances {
		if !i.told {
			i.ask(ask)
		}
	}
	if len(ask) > 0 {
		fx = append(fx, Reconcile{Tasks: ask})
		c.timers.Add(now.Add(15*time.Second), timer{kind: timerReconcile, index: c.session})
		return fx
	}
	for _, i := range c.instances {
		i.forgetTold()
	}
	c.timers.Add(now.Add(c.cfg.ReconcileEach), timer{kind: timerReconcile, index: c.session})
	return append(fx, Reconcile{})
}

func (c *Core) sortedInstances() []*Instance {
	out := make([]*Instance, 0, len(c.instances))
	for _, i := range c.instances {
		out = append(out, i)
	}
	slices.SortFunc(out, func(a, b *Instance) int { return strings.Compare(a.TaskID, b.TaskID) })
	return out
}

// version is a new version: the time, made unique.
func (c *Core) version(now time.Time) string {
	v := Timestamp(now)
	if v <= c.lastVersion {
		last, err := time.Parse(time.RFC3339, c.lastVersion)
		if err == nil {
			v = Timestamp(last.Add(time.Millisecond))
		}
	}
	c.lastVersion = v
	return v
}

func (c *Core) resetDelay(in ResetDelay, fx []Effect) ([]Effect, error) {
	a := c.apps[in.App]
	if a == nil || c.need(a) == 0 {
		return fx, notFound("Application", in.App)
	}
	a.delay, a.delayed = 0, time.Time{}
	c.changed[in.App] = true
	return fx, nil
}
