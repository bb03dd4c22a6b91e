package task

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"time"
)

// UUID identifies one status update. The zero value means "none": the update
// needs no acknowledgement.
type UUID [16]byte

// String formats the UUID as RFC 4122 text.
func (u UUID) String() string {
	b := make([]byte, 36)
	hex.Encode(b[0:8], u[0:4])
	hex.Encode(b[9:13], u[4:6])
	hex.Encode(b[14:18], u[6:8])
	hex.Encode(b[19:23], u[8:10])
	hex.Encode(b[24:36], u[10:16])
	b[8], b[13], b[18], b[23] = '-', '-', '-', '-'
	return string(b)
}

// MarshalText is String, for records and logs.
func (u UUID) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (u *UUID) UnmarshalText(text []byte) error {
	n, err := hex.Decode(u[:], bytes.ReplaceAll(text, []byte("-"), nil))
	if err != nil || n != len(u) {
		return fmt.Errorf("task: %q is no UUID", text)
	}
	return nil
}

// IsZero reports whether there is no UUID.
func (u UUID) IsZero() bool { return u == UUID{} }

// Source says who made a status (mesos.proto, TaskStatus.Source).
type Source uint8

// The sources of a status update.
const (
	SourceMaster   Source = 0
	SourceAgent    Source = 1
	SourceExecutor Source = 2
)

// Reason is Mesos' name for why a status was sent, such as
// REASON_RECONCILIATION; empty means none was given.
type Reason string

// The reasons that Mesopool itself gives (mesos.proto, TaskStatus.Reason).
const (
	ReasonCheckStatus            Reason = "REASON_TASK_CHECK_STATUS_UPDATED"
	ReasonContainerLaunchFailed  Reason = "REASON_CONTAINER_LAUNCH_FAILED"
	ReasonExecutorRegistration   Reason = "REASON_EXECUTOR_REGISTRATION_TIMEOUT"
	ReasonExecutorRecovery       Reason = "REASON_EXECUTOR_REREGISTRATION_TIMEOUT"
	ReasonExecutorTerminated     Reason = "REASON_EXECUTOR_TERMINATED"
	ReasonFrameworkRemoved       Reason = "REASON_FRAMEWORK_REMOVED"
	ReasonHealthCheckStatus      Reason = "REASON_TASK_HEALTH_CHECK_STATUS_UPDATED"
	ReasonInvalidOffers          Reason = "REASON_INVALID_OFFERS"
	ReasonKilledDuringLaunch     Reason = "REASON_TASK_KILLED_DURING_LAUNCH"
	ReasonMaxCompletionTime      Reason = "REASON_MAX_COMPLETION_TIME_REACHED"
	ReasonReconciliation         Reason = "REASON_RECONCILIATION"
	ReasonAgentDisconnected      Reason = "REASON_AGENT_DISCONNECTED"
	ReasonAgentRemoved           Reason = "REASON_AGENT_REMOVED"
	ReasonAgentRemovedByOperator Reason = "REASON_AGENT_REMOVED_BY_OPERATOR"
	ReasonAgentReregistered      Reason = "REASON_AGENT_REREGISTERED"
	ReasonAgentRestarted         Reason = "REASON_AGENT_RESTARTED"
	ReasonTaskGroupInvalid       Reason = "REASON_TASK_GROUP_INVALID"
	ReasonTaskInvalid            Reason = "REASON_TASK_INVALID"
	ReasonTaskUnauthorized       Reason = "REASON_TASK_UNAUTHORIZED"
	ReasonTaskGroupUnauthorized  Reason = "REASON_TASK_GROUP_UNAUTHORIZED"
)

// Status is one report about a task.
type Status struct {
	State   State     `json:",omitzero"`
	Source  Source    `json:",omitzero"`
	Reason  Reason    `json:",omitzero"`
	Message string    `json:",omitzero"` // for people; may be empty
	Time    time.Time `json:",omitzero"` // when the state was seen
	UUID    UUID      `json:",omitzero"` // zero when no acknowledgement is wanted
	Healthy *bool     `json:",omitzero"` // nil when there is no health check or no result yet

	// Check is what the task's check said last, nil when it has none.
	Check *CheckStatus `json:",omitzero"`

	// Container is the container behind the task, nil while there is none.
	Container *ContainerStatus `json:",omitzero"`

	// Origin is the status in the words of the framework's own executor, without
	// data; nil when the status is the agent's. It is opaque to all but the link.
	Origin []byte `json:",omitzero"`

	// Data is free-form; Docker agents put the inspect JSON (an array) here.
	Data []byte `json:",omitzero"`
}

// CheckStatus is the result of a check of its type (mesos.proto,
// CheckStatusInfo). Without a value there is none yet, or the check itself failed.
type CheckStatus struct {
	Type  CheckType `json:",omitzero"`
	Value *int32    `json:",omitzero"` // the exit code, the HTTP status, or whether a connection came about (1, 0)
}

// Equal says whether two results, which may be nil, are the same.
func (s *CheckStatus) Equal(o *CheckStatus) bool {
	if s == nil || o == nil {
		return s == o
	}
	same := s.Value == nil && o.Value == nil || s.Value != nil && o.Value != nil && *s.Value == *o.Value
	return s.Type == o.Type && same
}

// ContainerStatus is what a status says about the task's container.
type ContainerStatus struct {
	ID        string   `json:",omitzero"`
	Addresses []string `json:",omitzero"` // IPv4 or IPv6, the first is the one to use
	Network   string   `json:",omitzero"` // name of the network of the addresses
	Ports     []Port   `json:",omitzero"` // how the task's ports can be reached (HostPort 0: as they are)
	PublishIP string   `json:",omitzero"` // host address of published ports, "" when none is published
}
