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
	}

	// Launch asks for a task. Asking again changes nothing.
	Launch struct {
		Framework Framework
		Spec      task.Spec
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

	// Tick is said when Next has come.
	Tick struct{}
)

// Missing is a task that only the master knows.
type Missing struct {
	Key       task.Key
	Framework Framework
}

func (Recover) input()           {}
func (Launch) input()            {}
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

		Withdraw bool // Stop: take the task out of the registry first
	}

	// Report sends a status update to the master. Latest is the task's newest
	// state, which may be ahead of the update in the queue.
	Report struct {
		Key    task.Key
		Status task.Status
		Latest task.State
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

func (Call) effect()          {}
func (Report) effect()        {}
func (Save) effect()          {}
func (SaveFramework) effect() {}
func (Announce) effect()      {}
func (AllKnown) effect()      {}
func (Withdraw) effect()      {}

// Record is what must survive a restart of the agent.
type Record struct {
	Spec      task.Spec
	Name      string
	Stop      bool // the master wants the task's end
	Silent    bool // its framework is gone: no updates
	Grace     *time.Duration
	Tried     bool // a launch may have reached the provider
	State     task.State
	Container provider.Container
	Pending   []task.Status // not acknowledged, oldest first: the end of the history
	History   []task.Status // the last status of each state, oldest first, without data
	Since     time.Time     // when the launch was asked for
}
