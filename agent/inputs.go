package agent

import (
	"time"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

// Input is one fact that a Core is told.
type Input interface{ input() }

// Framework is what the agent knows of a framework that has tasks here.
type Framework struct {
	ID             string
	PartitionAware bool   // gets TASK_GONE, TASK_DROPPED … instead of TASK_LOST
	KillingState   bool   // wants TASK_KILLING
	Origin         []byte // the master's own description, opaque to the core
}

type (
	// Recover gives back what was saved before a restart; it comes first.
	Recover struct {
		Tasks      []Record
		Frameworks []Framework
		Drain      *DrainConfig
	}

	// Drain ends all tasks and refuses new ones until the last is gone.
	Drain struct{ Config DrainConfig }

	// Launch asks for a task. Asking again changes nothing.
	Launch struct {
		Framework Framework
		Spec      task.Spec
	}

	// LaunchGroup asks for tasks of an executor, all or none. Pod is its container,
	// which holds the tasks' network or runs the framework's own program, with the
	// executor's ID as its Pod; one that runs already takes the tasks in. Asking
	// again changes nothing.
	LaunchGroup struct {
		Framework Framework
		Pod       task.Spec
		Tasks     []task.Spec
		Single    bool  // one task, which is no group
		New       *bool // whether the master believes the executor to be new; nil: not said
	}

	// ShutdownExecutor ends an executor with all its tasks.
	ShutdownExecutor struct{ Framework, Executor string }

	// Subscribe says that a framework's own executor has connected, under a number
	// that grows. Tasks are those that it knows and that none of its updates was
	// acknowledged for; Updates are what was not acknowledged.
	Subscribe struct {
		Framework, Executor string
		Session             uint64
		Tasks               []string
		Updates             []ExecutorStatus
	}

	// Unsubscribe says that a session is over; the executor may come back.
	Unsubscribe struct {
		Framework, Executor string
		Session             uint64
	}

	// ExecutorUpdate is a status of a task as its executor tells it, with a UUID.
	ExecutorUpdate struct {
		Framework, Executor string
		ExecutorStatus
	}

	// FrameworkMessage is for an executor, from its framework.
	FrameworkMessage struct {
		Framework, Executor string
		Data                []byte
	}

	// ExecutorSaid is for a framework, from its executor.
	ExecutorSaid struct {
		Framework, Executor string
		Data                []byte
	}

	// Refuse tells the core that a task cannot be launched here and why; it
	// ends as State at once.
	Refuse struct {
		Framework Framework
		Key       task.Key
		State     task.State
		Reason    task.Reason
		Message   string
	}

	// Kill asks for a task's end. A nil Grace means the task's own.
	Kill struct {
		Key   task.Key
		Grace *time.Duration
	}

	// Ack says that the update has reached its framework.
	Ack struct {
		Key  task.Key
		UUID task.UUID
	}

	// ShutdownFramework ends all tasks of a framework; nobody wants their
	// updates any more.
	ShutdownFramework struct{ ID string }

	// UpdateFramework refreshes a framework; pending updates go out at once.
	UpdateFramework struct{ Framework Framework }

	// Joined says that a master has (re-)registered the agent. Missing are the
	// tasks that the master knows and the agent did not mention.
	Joined struct{ Missing []Missing }

	// Parted says that there is no master; updates wait.
	Parted struct{}

	// WatchStarted precedes the first event of a (new) watch.
	WatchStarted struct{}

	// Seen is one event of the provider's watch.
	Seen struct{ Event provider.Event }

	// Done is the answer to a Call.
	Done struct {
		Call      Call
		Container provider.Container
		Err       error
	}

	// Probed is the answer to a Probe. Cause says in words why the container
	// is not healthy.
	Probed struct {
		Key     task.Key
		ID      string
		Healthy bool
		Cause   string
		Check   *task.CheckStatus // the result of a check; nil: it was a health check
	}

	// Tick is said when Next has come.
	Tick struct{}
)

// ExecutorStatus is one status of an executor's task.
type ExecutorStatus struct {
	Task   string
	Status task.Status
}

// Missing is a task that only the master knows.
type Missing struct {
	Key       task.Key
	Framework Framework
}

func (Recover) input()           {}
func (Launch) input()            {}
func (LaunchGroup) input()       {}
func (ShutdownExecutor) input()  {}
func (Subscribe) input()         {}
func (Unsubscribe) input()       {}
func (ExecutorUpdate) input()    {}
func (FrameworkMessage) input()  {}
func (ExecutorSaid) input()      {}
func (Refuse) input()            {}
func (Kill) input()              {}
func (Ack) input()               {}
func (ShutdownFramework) input() {}
func (UpdateFramework) input()   {}
func (Joined) input()            {}
func (Parted) input()            {}
func (WatchStarted) input()      {}
func (Seen) input()              {}
func (Done) input()              {}
func (Probed) input()            {}
func (Drain) input()             {}
func (Tick) input()              {}

// Effect is one thing that the shell must do. All Saves of a batch are
// committed before any other effect of it leaves.
type Effect interface{ effect() }

// Op is what a Call asks of the provider.
type Op uint8

// The operations.
const (
	OpNone Op = iota
	OpLaunch
	OpStop
	OpInspect
	OpRemove
)

// String names the operation for logs and errors.
func (o Op) String() string { return [...]string{"none", "launch", "stop", "inspect", "remove"}[o] }

type (
	// Call asks the provider for something; the answer comes back as Done. At
	// most one call per task is in flight.
	Call struct {
		Op    Op
		Key   task.Key
		Name  string     // Launch: the container's name
		Spec  *task.Spec // Launch: read only
		ID    string     // Stop, Inspect, Remove
		Grace time.Duration
		Tries int // Remove: how often it has failed

		Withdraw bool // Stop: take the task out of the registry first
	}

	// Cancel ends the wait for a task's launch that is under way, or takes it
	// out of the queue. Its answer comes as Done all the same.
	Cancel struct{ Key task.Key }

	// Probe asks whether a container is healthy, at Address (host:port, empty
	// for a command and while none is known), within Check.Timeout. The answer
	// comes back as Probed. At most one probe of each kind is under way per task.
	Probe struct {
		Key     task.Key
		ID      string
		Address string
		Check   *task.HealthCheck // read only
		General bool              // a check whose result is all that matters
	}

	// Report sends a status update to the master. Latest is the task's newest
	// state, which may be ahead of the update in the queue.
	Report struct {
		Key      task.Key
		Executor string // the pod's; "" for a task on its own
		Status   task.Status
		Latest   task.State
	}

	// ExecutorGone says that an executor has ended, or never began. Status is a wait
	// status; -1: none is known.
	ExecutorGone struct {
		Framework, Executor string
		Status              int32
	}

	// ToExecutor is for an executor that has connected as Session.
	ToExecutor struct {
		Framework, Executor string
		Session             uint64
		Event               ExecutorEvent
	}

	// ExecutorMessage takes an executor's message to its framework; it may be lost.
	ExecutorMessage struct {
		Framework, Executor string
		Data                []byte
	}

	// Save makes a task's record durable; a nil Record deletes it. Spec says
	// that the specification is new as well.
	Save struct {
		Key    task.Key
		Record *Record
		Spec   bool
	}

	// SaveFramework makes a framework durable; a nil Framework deletes it.
	SaveFramework struct {
		ID        string
		Framework *Framework
	}

	// SaveDrain makes it durable that the agent drains; a nil Config that it
	// does not.
	SaveDrain struct{ Config *DrainConfig }

	// Announce says that a task can be reached now.
	Announce struct {
		Key       task.Key
		Spec      *task.Spec
		Container provider.Container
	}

	// AllKnown says that everything the backend has was told once: what is not
	// announced by now is not there.
	AllKnown struct{}

	// Withdraw says that a task cannot be reached any more: it ended by itself.
	Withdraw struct{ Key task.Key }
)

func (Call) effect()            {}
func (Cancel) effect()          {}
func (Probe) effect()           {}
func (Report) effect()          {}
func (ExecutorGone) effect()    {}
func (ToExecutor) effect()      {}
func (ExecutorMessage) effect() {}
func (Save) effect()            {}
func (SaveFramework) effect()   {}
func (SaveDrain) effect()       {}
func (Announce) effect()        {}
func (AllKnown) effect()        {}
func (Withdraw) effect()        {}

// Cause is why the agent itself ends a task; empty where nobody or a master does.
type Cause string

// The causes.
const (
	CauseMaxCompletion Cause = "max completion time"
	CauseUnhealthy     Cause = "unhealthy"
	CauseGroup         Cause = "group"                 // another task of the group has failed
	CausePod           Cause = "pod"                   // the pod's network is gone
	CauseRegistration  Cause = "executor registration" // the executor has not connected in time
	CauseRecovery      Cause = "executor recovery"     // nor again after a restart of the agent
	CauseFramework     Cause = "framework"             // an executor's, which is gone
)

// Record is what must survive a restart of the agent.
type Record struct {
	Spec      task.Spec
	Name      string
	Cause     Cause
	Why       string            // the cause's own words
	Healthy   *bool             // what the last health check said; nil before
	Checked   *task.CheckStatus // what the last check said; nil before
	Grace     *time.Duration
	Container provider.Container // without what the record says itself
	Pending   []task.Status      // not acknowledged, oldest first: the end of the history
	History   []task.Status      // the last status of each state, oldest first, without data
	Since     time.Time          // when the launch was asked for
	Shut      time.Time          // an executor was told to end, and is stopped then
	Heard     []task.UUID        // of the executor's last updates

	State  task.State
	Stop   bool // the master wants the task's end
	Silent bool // its framework is gone: no updates
	Tried  bool // a launch may have reached the provider
	Handed bool // a task: its executor was told of it; an executor: of a task
}
