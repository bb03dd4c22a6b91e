package master

import (
	"time"

	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// Command is one fact or wish that a Core is told.
type Command interface{ command() }

// Commands about agents.
type (
	// Recover tells of an agent that the store knows from before a restart.
	Recover struct{ Agent AgentInfo }

	// RegisterAgent is a new agent, or a repeated try of one.
	RegisterAgent struct{ Agent AgentInfo }

	// ReregisterAgent is an agent that has an ID, with all that it runs.
	ReregisterAgent struct {
		Agent      AgentInfo
		Tasks      []*Task
		Executors  []*Executor
		Frameworks []FrameworkInfo
	}

	// UnregisterAgent is an agent that goes for good.
	UnregisterAgent struct{ PID, Agent string }

	// AgentExited says that the connection to an address broke.
	AgentExited struct{ PID string }

	// Pong is an agent's answer to a ping.
	Pong struct{ Agent string }

	// UpdateAgent carries the agent's new resource version and, if Listed, the
	// operations whose end nobody has acknowledged.
	UpdateAgent struct {
		PID, Agent      string
		ResourceVersion []byte
		Operations      []*Operation
		Listed          bool
	}

	// OperationStatus is an agent's report about an operation. A zero Status
	// wants no acknowledgement.
	OperationStatus struct {
		Agent, Framework, ID string
		UUID, Status         task.UUID
		State                OperationState
		Wire                 []byte // the OperationStatus as sent
	}

	// StatusUpdate is an agent's report about a task.
	StatusUpdate struct {
		Agent  string
		Key    task.Key
		Status Status
		Latest task.State
		Event  []byte // the TaskStatus as sent, with its data, for the framework
	}

	// ExitedExecutor says that a custom executor ended.
	ExitedExecutor struct {
		Agent, Framework, Executor string
		Status                     int32
	}

	// ExecutorMessage goes from an executor to its framework.
	ExecutorMessage struct {
		Agent, Framework, Executor string
		Data                       []byte
	}
)

// Commands about frameworks.
type (
	// Subscribe connects a framework; an empty ID asks for a new one. PID is the
	// address of a scheduler driver, "" for what HTTP brought. Unless it uses Force
	// a driver cannot take a framework over from another.
	Subscribe struct {
		Info       FrameworkInfo
		Stream     string
		Suppressed []string
		PID        string
		Force      bool
	}

	// Deactivate ends offers to a framework until it subscribes again: its driver
	// has been aborted.
	Deactivate struct{ Framework string }

	// Disconnect says that a stream ended.
	Disconnect struct{ Framework, Stream string }

	// UpdateFramework changes what a framework says of itself.
	UpdateFramework struct {
		Info       FrameworkInfo
		Suppressed []string
	}

	// Teardown ends a framework and all its tasks.
	Teardown struct{ Framework string }

	// Accept uses offers; what the launches leave goes back. The changes are
	// done between the launches, in order.
	Accept struct {
		Framework string
		Offers    []string
		Launches  []Launch
		Changes   []Change
		Refuse    time.Duration
	}

	// Decline gives offers back, not to be repeated for a time.
	Decline struct {
		Framework string
		Offers    []string
		Refuse    time.Duration
	}

	// Revive ends all refusals (and suppression) of the roles; none means all.
	Revive struct {
		Framework string
		Roles     []string
	}

	// Suppress stops offers to the roles; none means all.
	Suppress struct {
		Framework string
		Roles     []string
	}

	// Kill asks for a task's end. Wire is the call's kill policy.
	Kill struct {
		Key   task.Key
		Agent string // "" when the framework does not say
		Wire  []byte
	}

	// ShutdownExecutor ends a custom executor.
	ShutdownExecutor struct{ Framework, Agent, Executor string }

	// Acknowledge says that a status update has arrived.
	Acknowledge struct {
		Key   task.Key
		Agent string
		UUID  task.UUID
	}

	// Reconcile asks for the state of tasks; none means all.
	Reconcile struct {
		Framework string
		Tasks     []ReconcileTask
	}

	// AcknowledgeOperation says that an operation's status has arrived.
	AcknowledgeOperation struct {
		Framework, ID string
		Status        task.UUID
	}

	// ReconcileOperations asks for the state of operations; none means all.
	ReconcileOperations struct {
		Framework  string
		Operations []ReconcileTask
	}

	// Operate is a change that an operator asks for.
	Operate struct {
		Agent  string
		Change Change
	}

	// Message goes from a framework to an executor.
	Message struct {
		Framework, Agent, Executor string
		Data                       []byte
	}

	// SetWeights sets the weights of roles.
	SetWeights struct{ Weights map[string]float64 }

	// SetQuotas replaces the quota of the roles that it names; an empty one is
	// no quota. Force leaves out whether it can be kept.
	SetQuotas struct {
		Quotas []Quota
		Force  bool
	}

	// RemoveQuota ends the quota of a role.
	RemoveQuota struct{ Role string }

	// Restore tells what operators have set before a restart. It comes before
	// all else.
	Restore struct {
		Quotas      []Quota
		Weights     map[string]float64
		Marks       map[string]Marks     // by agent
		Gone        map[string]time.Time // by agent
		Maintenance Maintenance
	}

	// DrainAgent empties an agent and keeps it empty. A nil Grace lets tasks
	// end in the time that they ask for.
	DrainAgent struct {
		Agent    string
		Grace    *time.Duration
		MarkGone bool
	}

	// ActivateAgent says whether an agent is offered. Active ends a drain that
	// is over.
	ActivateAgent struct {
		Agent  string
		Active bool
	}

	// MarkAgentGone ends an agent for good.
	MarkAgentGone struct{ Agent string }

	// UpdateSchedule replaces the plan of maintenance.
	UpdateSchedule struct{ Windows []Window }

	// StartMaintenance takes machines of the plan down.
	StartMaintenance struct{ Machines []Machine }

	// StopMaintenance brings machines up again.
	StopMaintenance struct{ Machines []Machine }

	// AnswerInverse is a framework's answer to inverse offers.
	AnswerInverse struct {
		Framework string
		Offers    []string
		Answer    InverseAnswer
		Refuse    time.Duration
	}

	// Tick is said when Next has come.
	Tick struct{}
)

// ReconcileTask is one task that a framework asks about.
type ReconcileTask struct {
	ID    string
	Agent string
}

func (Recover) command()              {}
func (RegisterAgent) command()        {}
func (ReregisterAgent) command()      {}
func (UnregisterAgent) command()      {}
func (AgentExited) command()          {}
func (Pong) command()                 {}
func (UpdateAgent) command()          {}
func (StatusUpdate) command()         {}
func (ExitedExecutor) command()       {}
func (ExecutorMessage) command()      {}
func (Subscribe) command()            {}
func (Disconnect) command()           {}
func (UpdateFramework) command()      {}
func (Teardown) command()             {}
func (Deactivate) command()           {}
func (Accept) command()               {}
func (Decline) command()              {}
func (Revive) command()               {}
func (Suppress) command()             {}
func (Kill) command()                 {}
func (ShutdownExecutor) command()     {}
func (Acknowledge) command()          {}
func (Reconcile) command()            {}
func (Message) command()              {}
func (OperationStatus) command()      {}
func (AcknowledgeOperation) command() {}
func (ReconcileOperations) command()  {}
func (Operate) command()              {}
func (SetWeights) command()           {}
func (SetQuotas) command()            {}
func (Restore) command()              {}
func (DrainAgent) command()           {}
func (ActivateAgent) command()        {}
func (MarkAgentGone) command()        {}
func (UpdateSchedule) command()       {}
func (StartMaintenance) command()     {}
func (StopMaintenance) command()      {}
func (AnswerInverse) command()        {}
func (RemoveQuota) command()          {}
func (Tick) command()                 {}

// Effect is one thing that the shell must do, after the Persists of the batch
// are committed.
type Effect interface{ effect() }

type (
	// Persist writes an admitted agent; a nil Agent forgets it.
	Persist struct {
		ID    string
		Agent *AgentInfo
	}

	// Save writes what an operator has set; a nil Value forgets it.
	Save struct {
		Kind  SavedKind
		Name  string
		Value any // JSON can hold it
	}

	// Noted tells operators who watch; there are none unless Watch asked.
	Noted struct{ Note Note }

	// ToFramework sends an event to a framework's stream.
	ToFramework struct {
		Framework string
		Stream    string
		Event     Event
	}

	// CloseStream ends a stream after what was sent to it before.
	CloseStream struct{ Stream string }

	// ToAgent sends a message to an agent.
	ToAgent struct {
		Agent   string
		PID     string
		Message AgentMessage
	}

	// Watch asks for AgentExited when the connection to the agent breaks, and
	// opens the actor that receives its Pongs.
	Watch struct{ Agent, PID string }

	// Unwatch ends that.
	Unwatch struct{ Agent, PID string }
)

func (Persist) effect()     {}
func (Save) effect()        {}
func (Noted) effect()       {}
func (ToFramework) effect() {}
func (CloseStream) effect() {}
func (ToAgent) effect()     {}
func (Watch) effect()       {}
func (Unwatch) effect()     {}

// SavedKind says what a Save is about. It is a part of the store's keys.
type SavedKind string

// The kinds: a Quota, a float64, Marks, a time.Time and a Maintenance.
const (
	SavedQuota       SavedKind = "quota"
	SavedWeight      SavedKind = "weight"
	SavedMarks       SavedKind = "agent"
	SavedGone        SavedKind = "gone"
	SavedMaintenance SavedKind = "maintenance"
)

// Event is what a framework is told.
type Event interface{ event() }

type (
	// Subscribed is the first event of a stream. A driver that repeats itself is
	// told once more. Again says that a driver was subscribed before, with the same
	// address.
	Subscribed struct {
		Framework string
		Again     bool
	}

	// Offers are new offers.
	Offers struct{ Offers []*Offer }

	// Rescind takes an offer back.
	Rescind struct{ Offer string }

	// Update is a task's status. Wire is set when an agent made it; otherwise
	// the shell encodes Status, Task and Agent.
	Update struct {
		Task   string
		Agent  string
		Status Status
		Wire   []byte
		// Unreachable is when the agent was lost, for the states that say so.
		Unreachable time.Time
	}

	// InverseOffers ask to leave agents.
	InverseOffers struct{ Offers []*InverseOffer }

	// RescindInverse takes an inverse offer back.
	RescindInverse struct{ Offer string }

	// OperationUpdate is an operation's status. Wire is set when an agent made
	// it; otherwise the shell encodes the rest.
	OperationUpdate struct {
		ID, Agent string
		State     OperationState
		Message   string
		Wire      []byte
	}

	// AgentLost says that an agent is gone, with its tasks.
	AgentLost struct{ Agent string }

	// ExecutorLost says that a custom executor ended.
	ExecutorLost struct {
		Agent, Executor string
		Status          int32
	}

	// FromExecutor is a message of an executor.
	FromExecutor struct {
		Agent, Executor string
		Data            []byte
	}

	// Failed ends a subscription with a reason.
	Failed struct{ Message string }
)

func (Subscribed) event()      {}
func (Offers) event()          {}
func (Rescind) event()         {}
func (Update) event()          {}
func (AgentLost) event()       {}
func (InverseOffers) event()   {}
func (RescindInverse) event()  {}
func (OperationUpdate) event() {}
func (ExecutorLost) event()    {}
func (FromExecutor) event()    {}
func (Failed) event()          {}

// AgentMessage is what an agent is told.
type AgentMessage interface{ agentMessage() }

type (
	// Registered answers a registration.
	Registered struct{}

	// Reregistered answers a re-registration; Missing are the tasks that the
	// master has and the agent did not report.
	Reregistered struct{ Missing []MissingTasks }

	// Ping asks for a sign of life.
	Ping struct{ Connected bool }

	// RunTask launches a task.
	RunTask struct {
		Framework *FrameworkInfo
		Task      []byte
		Version   []byte // the agent's resource version
		Runs      bool   // its executor runs already
	}

	// RunGroup launches the tasks of a group.
	RunGroup struct {
		Framework *FrameworkInfo
		Executor  []byte // as in Executor
		Tasks     [][]byte
		Version   []byte
		Runs      bool
	}

	// KillTask ends a task.
	KillTask struct {
		Key  task.Key
		Wire []byte
	}

	// AckUpdate acknowledges a status update.
	AckUpdate struct {
		Key  task.Key
		UUID task.UUID
	}

	// ApplyOperation has the agent change marks.
	ApplyOperation struct {
		Framework string // "" for an operator
		Wire      []byte
		UUID      task.UUID
		Version   []byte // the agent's resource version
	}

	// CheckpointResources names all that an agent must keep, which is one that
	// does not keep the books of operations itself.
	CheckpointResources struct{ Resources resources.Resources }

	// AckOperation acknowledges an operation's status.
	AckOperation struct{ UUID, Status task.UUID }

	// AskOperations names operations that the agent should know and did not list.
	AskOperations struct{ UUIDs []task.UUID }

	// ShutdownFramework ends all tasks of a framework.
	ShutdownFramework struct{ Framework string }

	// KillExecutor ends a custom executor.
	KillExecutor struct{ Framework, Executor string }

	// ToExecutor is a framework's message.
	ToExecutor struct {
		Framework, Executor string
		Data                []byte
	}

	// FrameworkUpdated refreshes what the agent knows of a framework.
	FrameworkUpdated struct{ Framework *FrameworkInfo }

	// DrainMessage makes the agent end its tasks and take no more.
	DrainMessage struct {
		Grace    *time.Duration
		MarkGone bool
	}

	// Shutdown makes the agent end everything.
	Shutdown struct{ Message string }
)

// MissingTasks are the tasks of one framework that an agent did not report.
type MissingTasks struct {
	Framework *FrameworkInfo
	Tasks     []*Task
}

func (Registered) agentMessage()          {}
func (Reregistered) agentMessage()        {}
func (Ping) agentMessage()                {}
func (RunTask) agentMessage()             {}
func (RunGroup) agentMessage()            {}
func (KillTask) agentMessage()            {}
func (AckUpdate) agentMessage()           {}
func (ShutdownFramework) agentMessage()   {}
func (KillExecutor) agentMessage()        {}
func (ToExecutor) agentMessage()          {}
func (FrameworkUpdated) agentMessage()    {}
func (Shutdown) agentMessage()            {}
func (DrainMessage) agentMessage()        {}
func (ApplyOperation) agentMessage()      {}
func (CheckpointResources) agentMessage() {}
func (AckOperation) agentMessage()        {}
func (AskOperations) agentMessage()       {}
