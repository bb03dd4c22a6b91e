package master

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/mesopool/mesopool/internal/recent"
	"github.com/mesopool/mesopool/internal/timers"
	"github.com/mesopool/mesopool/master/drf"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// Config is how a Core behaves. ID has no default.
type Config struct {
	ID                string            // the master's UUID as text, new at every start
	PingInterval      time.Duration     // --agent_ping_timeout
	PingLimit         int               // --max_agent_ping_timeouts
	ReregisterTimeout time.Duration     // --agent_reregister_timeout
	OfferTimeout      time.Duration     // --offer_timeout; 0: none
	AllocationGap     time.Duration     // shortest time between two rounds of offers
	MinAllocatable    resources.Scalars // any one of these amounts makes an offer worth while
	OfferParts        int               // a large agent's free resources are cut into so many offers
	OfferFloor        resources.Scalars // no part is smaller than this
	CompletedTasks    int               // kept per framework, for people
	CompletedKept     int               // completed frameworks kept
	Region            string            // where the master is; "" when agents' regions do not matter
	RemovalEvery      time.Duration     // --agent_removal_rate_limit: the least time between two agents given up; 0: none
}

// DefaultConfig has Mesos' values (master/constants.hpp) where Mesos has one.
func DefaultConfig() Config {
	amount := func(name string, m resources.Milli) resources.Scalar { return resources.Scalar{Name: name, Amount: m} }
	return Config{
		PingInterval: 15 * time.Second, PingLimit: 5, ReregisterTimeout: 10 * time.Minute,
		AllocationGap:  10 * time.Millisecond,
		MinAllocatable: resources.NewScalars(amount("cpus", 10), amount("mem", 32_000)),
		OfferParts:     16, OfferFloor: resources.NewScalars(amount("cpus", 8_000), amount("mem", 8_192_000)),
		CompletedTasks: 1000, CompletedKept: 50,
	}
}

// PingTimeout is how long an agent may stay silent.
func (c Config) PingTimeout() time.Duration { return time.Duration(c.PingLimit) * c.PingInterval }

// Why a command is refused. The shell turns them into HTTP codes.
var (
	ErrUnknownFramework = errors.New("the framework is not known")
	ErrNotSubscribed    = errors.New("the framework is not subscribed")
	ErrInvalid          = errors.New("the command is not valid")
	ErrIgnored          = errors.New("the message has no effect")
	ErrUnknownAgent     = errors.New("the agent is not known")
	ErrOvercommit       = errors.New("there is not enough capacity")
	ErrConflict         = errors.New("there is not enough that is free")
)

// Core is the master's brain. It is not safe for concurrent use.
type Core struct {
	cfg        Config
	agents     map[string]*agent
	byPID      map[string]*agent
	recovered  map[string]AgentInfo // admitted before a restart, not back yet
	lost       map[string]time.Time // unreachable agents
	frameworks map[string]*framework
	completed  []*framework // oldest first
	finished   map[string]bool
	offers     map[string]*Offer

	roles       drf.Tree               // by role
	inRole      map[string]*drf.Sorter // frameworks of each role
	weights     map[string]float64
	quotas      map[string]Quota
	consumed    map[string]resources.Scalars // by top-level role
	recoveries  int                          // agents known from before a restart
	marks       map[string]Marks             // by agent
	gone        map[string]time.Time         // agents that are never taken back
	maintenance Maintenance
	inverse     map[string]*InverseOffer
	nextRemoval time.Time
	total       resources.Scalars

	timers  timers.Heap[timer]
	watched bool // operators watch
	dirty   bool // an allocation round is due
	lastRun time.Time
	turn    int // which agent the next round starts with

	nextAgent, nextFramework, nextOffer, nextOperation int
	count                                              Counters

	amounts *recent.Values[resources.Resources] // of tasks
	said    *recent.Values[[]byte]              // their More
}

// Counters count what has happened since the start.
type Counters struct {
	AgentRegistrations, AgentReregistrations, AgentRemovals, AgentsUnreachable uint64
	OffersSent, OffersAccepted, OffersDeclined, OffersRescinded                uint64
	TasksLaunched, StatusUpdates, InvalidStatusUpdates, Acknowledgements       uint64
	Kills, Reconciliations, AllocationRounds                                   uint64
	Ended                                                                      map[task.State]uint64
}

type agent struct {
	AgentInfo
	connected   bool
	registered  time.Time
	reregister  time.Time
	pings       int // unanswered
	tasks       map[*Task]struct{}
	executors   map[executorKey]*Executor
	used        resources.Resources // by tasks and executors
	offered     resources.Resources
	offers      map[string]*Offer
	operations  map[task.UUID]*Operation
	doubtful    map[task.UUID]bool // operations whose effect may not be among the resources
	inactive    bool               // operators want no more work on it
	removing    bool               // waits for its turn to be given up
	unavailable *Unavailability
	inverse     map[string]*InverseOffer // by framework
}

type executorKey struct{ framework, executor string }

// free is what nobody uses and nobody has been offered.
func (a *agent) free() resources.Resources {
	return a.Resources.Sub(a.passing(a.used).Allocated("")...).Sub(a.passing(a.offered).Allocated("")...)
}

type framework struct {
	FrameworkInfo
	stream      string // "" while disconnected
	pid         string // its driver's, or the last one's; "": HTTP
	inactive    bool   // its driver was aborted
	subscribed  bool   // false: known only from agents
	suppressed  map[string]bool
	since       time.Time
	reconnected time.Time
	left        time.Time
	removed     time.Time
	tasks       map[string]*Task
	unreachable map[string]*Task
	done        []*Task // completed, oldest first
	offers      map[string]*Offer
	filters     map[filterKey]*filter
	operations  map[string]*Operation // by the framework's ID
}

// NewCore returns a master that knows nothing yet.
func NewCore(cfg Config) *Core {
	return &Core{
		cfg: cfg, agents: map[string]*agent{}, byPID: map[string]*agent{}, recovered: map[string]AgentInfo{},
		lost: map[string]time.Time{}, frameworks: map[string]*framework{}, finished: map[string]bool{},
		offers: map[string]*Offer{}, inRole: map[string]*drf.Sorter{}, weights: map[string]float64{}, quotas: map[string]Quota{}, marks: map[string]Marks{}, gone: map[string]time.Time{}, inverse: map[string]*InverseOffer{}, consumed: map[string]resources.Scalars{},
		count: Counters{Ended: map[task.State]uint64{}}, amounts: recent.New(resources.Resources.Equal), said: recent.New(bytes.Equal),
	}
}

// Apply carries a command out and appends what must be done about it. An error
// means that the command was refused and nothing has changed.
func (c *Core) Apply(now time.Time, cmd Command, fx []Effect) ([]Effect, error) {
	switch cmd := cmd.(type) {
	case Accept:
		return c.accept(now, cmd, fx)
	case Decline:
		return c.decline(now, cmd, fx)
	case Acknowledge:
		return c.acknowledge(now, cmd, fx)
	case StatusUpdate:
		return c.statusUpdate(now, cmd, fx)
	case Tick:
		return c.tick(now, fx), nil
	case OperationStatus, AcknowledgeOperation, ReconcileOperations, Operate:
		return c.applyOperation(now, cmd, fx)
	case Kill, Reconcile, Message, ShutdownExecutor, ExecutorMessage, ExitedExecutor:
		return c.applyTask(now, cmd, fx)
	case SetWeights, SetQuotas, RemoveQuota, Restore:
		return c.applySetting(cmd, fx)
	case DrainAgent, ActivateAgent, MarkAgentGone, UpdateSchedule, StartMaintenance, StopMaintenance, AnswerInverse:
		return c.applyMaintenance(now, cmd, fx)
	case Subscribe, Disconnect, UpdateFramework, Deactivate, Teardown, Revive, Suppress:
		return c.applyFramework(now, cmd, fx)
	default:
		return c.applyAgent(now, cmd, fx)
	}
}

func (c *Core) applyMaintenance(now time.Time, cmd Command, fx []Effect) ([]Effect, error) {
	switch cmd := cmd.(type) {
	case DrainAgent:
		return c.drainAgent(now, cmd, fx)
	case ActivateAgent:
		return c.activateAgent(cmd, fx)
	case MarkAgentGone:
		return c.markAgentGone(now, cmd, fx)
	case UpdateSchedule:
		return c.updateSchedule(cmd, fx)
	case StartMaintenance:
		return c.startMaintenance(now, cmd, fx)
	case StopMaintenance:
		return c.stopMaintenance(cmd, fx)
	case AnswerInverse:
		return c.answerInverse(now, cmd, fx)
	}
	return fx, nil
}

func (c *Core) applySetting(cmd Command, fx []Effect) ([]Effect, error) {
	switch cmd := cmd.(type) {
	case SetWeights:
		return c.setWeights(cmd, fx)
	case SetQuotas:
		return c.setQuotas(cmd, fx)
	case RemoveQuota:
		return c.removeQuota(cmd, fx)
	case Restore:
		return c.restore(cmd, fx)
	}
	return fx, nil
}

func (c *Core) applyOperation(now time.Time, cmd Command, fx []Effect) ([]Effect, error) {
	switch cmd := cmd.(type) {
	case OperationStatus:
		return c.operationStatus(now, cmd, fx)
	case AcknowledgeOperation:
		return c.acknowledgeOperation(now, cmd, fx)
	case ReconcileOperations:
		return c.reconcileOperations(cmd, fx)
	case Operate:
		return c.operate(cmd, fx)
	}
	return fx, nil
}

func (c *Core) applyTask(now time.Time, cmd Command, fx []Effect) ([]Effect, error) {
	switch cmd := cmd.(type) {
	case Kill:
		return c.kill(now, cmd, fx)
	case Reconcile:
		return c.reconcile(now, cmd, fx)
	case Message:
		return c.message(cmd, fx)
	case ShutdownExecutor:
		return c.shutdownExecutor(cmd, fx)
	case ExecutorMessage:
		return c.executorMessage(cmd, fx)
	case ExitedExecutor:
		return c.exitedExecutor(cmd, fx)
	}
	return fx, nil
}

func (c *Core) applyFramework(now time.Time, cmd Command, fx []Effect) ([]Effect, error) {
	switch cmd := cmd.(type) {
	case Subscribe:
		return c.subscribe(now, cmd, fx)
	case Disconnect:
		return c.disconnect(now, cmd, fx)
	case UpdateFramework:
		return c.updateFramework(cmd, fx)
	case Deactivate:
		return c.deactivate(cmd, fx)
	case Teardown:
		return c.teardown(now, cmd, fx)
	case Revive:
		return c.revive(cmd, fx)
	case Suppress:
		return c.suppress(cmd, fx)
	}
	return fx, nil
}

func (c *Core) applyAgent(now time.Time, cmd Command, fx []Effect) ([]Effect, error) {
	switch cmd := cmd.(type) {
	case Recover:
		return c.recoverAgent(now, cmd, fx)
	case RegisterAgent:
		return c.registerAgent(now, cmd, fx)
	case ReregisterAgent:
		return c.reregisterAgent(now, cmd, fx)
	case UnregisterAgent:
		return c.unregisterAgent(now, cmd, fx)
	case AgentExited:
		return c.agentExited(now, cmd, fx)
	case Pong:
		return c.pong(cmd, fx)
	case UpdateAgent:
		return c.updateAgent(now, cmd, fx)
	}
	return fx, fmt.Errorf("%w: %T", ErrInvalid, cmd)
}

// Next is when a Tick would do something; the zero time means not before
// another command.
func (c *Core) Next() time.Time {
	next, _ := c.timers.Next()
	if c.dirty {
		if run := c.lastRun.Add(c.cfg.AllocationGap); next.IsZero() || run.Before(next) {
			return run
		}
	}
	return next
}

func (c *Core) tick(now time.Time, fx []Effect) []Effect {
	for at, t, ok := c.timers.Pop(now); ok; at, t, ok = c.timers.Pop(now) {
		fx = c.expire(now, at, t, fx)
	}
	if c.dirty && !c.lastRun.Add(c.cfg.AllocationGap).After(now) {
		fx = c.allocate(now, fx)
	}
	return fx
}

// expire: a timer never needs to be stopped; the one that came too late finds
// nothing to do.
func (c *Core) expire(now, at time.Time, t timer, fx []Effect) []Effect {
	switch t.kind {
	case timerPing:
		return c.pingAgent(now, t.id, fx)
	case timerRecovered:
		return c.recoveredTimeout(now, t.id, fx)
	case timerFailover:
		return c.failoverTimeout(now, at, t.id, fx)
	case timerOffer:
		return c.offerTimeout(t.id, fx)
	case timerRemoval:
		return c.removalDue(now, t.id, fx)
	case timerFilter:
		c.dirty = true
	}
	return fx
}

func (c *Core) tell(f *framework, e Event, fx []Effect) []Effect {
	if f.stream == "" {
		return fx
	}
	return append(fx, ToFramework{Framework: f.ID, Stream: f.stream, Event: e})
}

func toAgent(a *agent, m AgentMessage, fx []Effect) []Effect {
	return append(fx, ToAgent{Agent: a.ID, PID: a.PID, Message: m})
}
