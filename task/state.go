package task

import "fmt"

// State is a task's state, with Mesos' numbers (mesos.proto, TaskState).
// States only grow along Rank: a task never leaves a terminal state.
type State uint8

// The states. The zero value is Starting, as on the wire; a task that nobody
// has reported yet is Staging.
const (
	Starting       State = 0
	Running        State = 1
	Finished       State = 2
	Failed         State = 3
	Killed         State = 4
	Lost           State = 5
	Staging        State = 6
	Error          State = 7
	Killing        State = 8
	Dropped        State = 9
	Unreachable    State = 10
	Gone           State = 11
	GoneByOperator State = 12
	Unknown        State = 13
)

var stateNames = [...]string{
	"TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_LOST", "TASK_STAGING",
	"TASK_ERROR", "TASK_KILLING", "TASK_DROPPED", "TASK_UNREACHABLE", "TASK_GONE", "TASK_GONE_BY_OPERATOR", "TASK_UNKNOWN",
}

// String returns Mesos' name, such as TASK_RUNNING.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("TASK_STATE_%d", uint8(s))
}

// ParseState is the inverse of String.
func ParseState(name string) (State, error) {
	for i, n := range stateNames {
		if n == name {
			return State(i), nil
		}
	}
	return 0, fmt.Errorf("task: %q is no task state; TASK_RUNNING is an example of one", name)
}

// Terminal says whether a task in this state has ended for good. Unreachable
// and Unknown are not ends: the task may come back.
func (s State) Terminal() bool {
	switch s {
	case Finished, Failed, Killed, Lost, Error, Dropped, Gone, GoneByOperator:
		return true
	default:
		return false
	}
}

// Rank orders the states of a task's life: Staging, Starting, Running,
// Killing, then every terminal one.
func (s State) Rank() int {
	switch s {
	case Staging:
		return 0
	case Starting:
		return 1
	case Running, Unreachable, Unknown:
		return 2
	case Killing:
		return 3
	default:
		return 4
	}
}
