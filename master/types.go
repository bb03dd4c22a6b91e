package master

import (
	"time"

	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// FrameworkInfo is what a framework says of itself.
type FrameworkInfo struct {
	ID              string
	Name            string
	User            string
	Principal       string
	Hostname        string
	WebUI           string
	Roles           []string // at least one
	FailoverTimeout time.Duration
	Checkpoint      bool
	Capabilities    Capabilities
	// MinAllocatable are, by role, the amounts any of which makes an offer worth
	// while; roles that are not in it go by the master's own.
	MinAllocatable map[string][]resources.Scalars `json:",omitempty"`
	Origin         []byte                         // the message it came in, with the ID set by the shell on the way out
}

// Capabilities are the framework capabilities that change what the master
// does (mesos.proto, FrameworkInfo.Capability).
type Capabilities struct {
	Revocable             bool
	KillingState          bool
	GPU                   bool
	Shared                bool
	PartitionAware        bool
	MultiRole             bool
	ReservationRefinement bool
	RegionAware           bool
}

// AgentInfo is what an agent says of itself.
type AgentInfo struct {
	ID                 string
	PID                string // libprocess address, id@ip:port
	Hostname           string
	Port               uint16
	Version            string
	Resources          resources.Resources
	MultiRole          bool
	ResourceProvider   bool
	ResourceVersion    []byte // the UUID's 16 bytes, empty when the agent names none
	TaskResourceLimits bool
	CapabilityNames    []string
	SyntheticPorts     bool   `json:",omitempty"` // its ports are for show: each may be given any number of times
	Region             string `json:",omitempty"` // of the agent's domain, "" without one
	Origin             []byte // the agent's own description, without the ID
}

// Task is one row. Rows are never changed: every change makes a new one, so a
// snapshot is a copy of pointers.
type Task struct {
	Key       task.Key
	Name      string
	Agent     string
	Executor  string // custom executor's ID, "" for command tasks
	Resources resources.Resources

	State       task.State // the newest the agent knows
	StatusState task.State // of the update that was last forwarded
	StatusUUID  task.UUID
	Statuses    []Status // the last of each consecutive state, oldest first
	KillAsked   bool

	// More is a Task message with what this row does not say itself.
	More []byte
}

// Role is what the task's resources are allocated to, "" without any.
func (t *Task) Role() string {
	if len(t.Resources) == 0 {
		return ""
	}
	return t.Resources[0].Role
}

// Status is one status of a task, for listings and reconciliation.
type Status struct {
	State  task.State
	Source task.Source
	Time   time.Time
	Reason task.Reason
	UUID   task.UUID
	// More is a TaskStatus message with what is not said here and by the task's
	// row, and without data; empty for statuses that the master made.
	More    []byte
	Message string
}

// Offer is a part of an agent offered to a framework in a role.
type Offer struct {
	ID        string
	Framework string
	Agent     string
	Role      string
	Resources resources.Resources // allocated to Role
	Since     time.Time
	// Unavailable is when the agent will not be there; nil when nothing is
	// planned.
	Unavailable *Unavailability
	Executors   []string // of the framework on the agent
}

// Launch is one task of an ACCEPT, checked by the shell as far as that needs
// no state; Invalid says what is wrong with it.
type Launch struct {
	ID        string
	Name      string
	Agent     string
	Executor  string
	Resources resources.Resources // allocated to the offer's role
	// ExecutorResources are counted when the executor does not run yet.
	ExecutorResources resources.Resources
	ExecutorOrigin    []byte // as in Executor
	Origin            []byte // the TaskInfo for the agent
	More              []byte // as in Task
	Invalid           string
	Unauthorized      bool // that is what is wrong with it

	Group        string // tasks that follow each other with the same one are a group; "": on its own
	GroupInvalid string // what is wrong with the group as a whole, said by its first task
}
