package provider

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// Provider runs containers. Its methods may be called concurrently, return
// early when ctx ends, and may be repeated after any error: none does harm the
// second time.
type Provider interface {
	// Capacity reports everything the backend could run at once, or the amount
	// that the operator granted where the backend cannot say.
	Capacity(ctx context.Context) (Capacity, error)

	// Launch creates and starts the container called name, owned by owner (the
	// owner's labels are on it from its first moment). If the owner's container
	// of that name exists, Launch starts it unless it already ran, and returns
	// it. A container of that name that is somebody else's is ErrRejected and
	// stays untouched.
	Launch(ctx context.Context, owner task.Owner, name string, s task.Spec) (Container, error)

	// Stop asks the container to end and kills it after grace. It returns when
	// the backend has taken the order; Watch tells the end. Stopping what is
	// not running succeeds; what is not there is ErrNotFound.
	Stop(ctx context.Context, id string, grace time.Duration) error

	// Remove deletes a container that is not running, with its anonymous
	// volumes. Removing what is not there succeeds.
	Remove(ctx context.Context, id string) error

	// Inspect returns one container, by its ID or its name, or ErrNotFound.
	Inspect(ctx context.Context, idOrName string) (Container, error)

	// Watch yields every container of the owner, then one event with Synced,
	// then each container again whenever it changed, until ctx ends or the
	// stream breaks; the last pair then holds the error. Events repeat, and
	// states between may be skipped: each event carries the whole container.
	// A container that vanished is told as StateGone. Absence from a listing
	// alone is never told: only what the backend confirmed.
	Watch(ctx context.Context, owner task.Owner) iter.Seq2[Event, error]
}

// Capacity is what a backend can run.
type Capacity struct {
	Total resources.Scalars // cpus, mem (MiB), disk (MiB)
}

// State is what is seen of a container; it only grows.
type State uint8

// The states of a container.
const (
	StateNone    State = iota // never seen
	StateCreated              // exists, never started
	StateUp                   // running
	StateExited               // ran and ended
	StateGone                 // confirmed absent
)

// String names the state for logs.
func (s State) String() string {
	return [...]string{"none", "created", "up", "exited", "gone"}[s]
}

// Container is a backend's container as seen at one moment.
type Container struct {
	ID    string
	Name  string
	State State

	Owner     task.Owner
	Key       task.Key
	Resources resources.Resources // from the label; what the agent charged

	Addresses []string    // in the cluster's network; empty while unknown
	Network   string      // the network of the addresses
	Ports     []task.Port // published ports (Host set), where the backend publishes
	PublishIP string      // the host address of published ports, "" when none

	Created time.Time
	Started time.Time
	Ended   time.Time

	ExitCode  int  // meaningful when HasExit
	HasExit   bool // some backends never tell
	OOMKilled bool
	Error     string // the backend's own words on why it did not start or ended

	// Raw is the backend's description as a JSON array, as `docker inspect`
	// prints it; nil where a backend has none, and in listings.
	Raw []byte
}

// Event is one thing that Watch tells.
type Event struct {
	Synced    bool // everything that existed at the start has been told
	Container Container
}

// The closed list of errors that decide a task's fate. Anything else is
// temporary: the caller repeats with the same name.
var (
	ErrNotFound = errors.New("no such container")
	ErrRejected = errors.New("refused by the backend")      // final: the task fails with the backend's words
	ErrCapacity = errors.New("the backend has no room")     // final for this launch
	ErrThrottle = errors.New("the backend asks to go slow") // later, same name
	ErrDenied   = errors.New("the backend denies access")   // later, same name; nothing new is offered meanwhile
)

// Logger is a Provider that can read what a container wrote.
type Logger interface {
	// Logs yields stdout and stderr, told apart by Stream. With Follow it goes
	// on until the container ends or ctx does. The caller closes it.
	Logs(ctx context.Context, id string, o LogOptions) (LogReader, error)
}

// LogOptions chooses what to read.
type LogOptions struct {
	Follow bool
	Tail   int // last lines; 0 means all
	Stdout bool
	Stderr bool
}

// LogReader is a stream of log pieces.
type LogReader interface {
	// Next returns the next piece, or io.EOF after the last.
	Next() (LogPiece, error)
	io.Closer
}

// LogPiece is some bytes of one stream.
type LogPiece struct {
	Stderr bool
	Data   []byte // valid until the next call
}

// Execer is a Provider that can run a further command in a container.
type Execer interface {
	// Exec runs argv in the container until it ends and returns its exit code.
	Exec(ctx context.Context, id string, o ExecOptions) (int, error)
}

// ExecOptions is what to run and where its streams go; nil streams are unused.
type ExecOptions struct {
	Argv   []string
	TTY    bool
	User   string
	Env    []string
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer      // unused with TTY
	Resize <-chan [2]uint // height, width; only with TTY
}

// Sandbox is where a task finds its files (MESOS_SANDBOX). Nothing of a host is
// mounted there.
const Sandbox = "/mnt/mesos/sandbox"

// Creator is a Provider that can create a container without starting it, so
// that something can be put into it before.
type Creator interface {
	// Create makes the container called name as Launch does, and leaves its
	// start to a Launch of the same name. If the owner's container of that name
	// exists, whatever its state, Create returns it.
	Create(ctx context.Context, owner task.Owner, name string, s task.Spec) (Container, error)
}

// Copier is a Provider that can put files into a container that has not
// started: how URIs reach a sandbox that is no mount.
type Copier interface {
	// CopyIn unpacks a tar stream at the absolute path dir, which it makes if
	// need be. Files that are there already are replaced, so a repeat does no
	// harm. A container that is not there is ErrNotFound.
	CopyIn(ctx context.Context, id, dir string, tar io.Reader) error
}

// Statser is a Provider that can measure what a container uses.
type Statser interface {
	// Stats measures one running container, now.
	Stats(ctx context.Context, id string) (Stats, error)
}

// Stats is what a container uses; amounts that a backend does not know are 0.
type Stats struct {
	Time       time.Time
	UserCPU    time.Duration // since the start
	SystemCPU  time.Duration
	Throttled  time.Duration
	Periods    uint32 // of CPU shares, and those in which it had to wait
	Waited     uint32
	MemUsed    uint64 // bytes, without what is only cached
	MemCached  uint64
	MemLimit   uint64
	Processes  uint32
	NetReceive NetStats
	NetSend    NetStats
}

// NetStats is one direction of a container's network.
type NetStats struct{ Bytes, Packets, Errors, Dropped uint64 }

// MemoryUpdater is a Provider that can change the memory limit of a container
// that runs.
type MemoryUpdater interface {
	// UpdateMemory sets the limit, in MiB. ErrRejected: the backend refuses it.
	UpdateMemory(ctx context.Context, id string, mib uint64) error
}

// Volumes is a Provider that keeps named volumes, which outlive containers. A
// launch makes the persistent volumes of its task's resources, see
// PersistentVolumes, with the owner's labels on them.
type Volumes interface {
	// RemoveVolume deletes a volume of the owner with all that is in it. What is
	// not there is success; what is not the owner's is ErrRejected and stays; one
	// that a container still has, running or not, is a temporary error.
	RemoveVolume(ctx context.Context, owner task.Owner, name string) error
}

// Pods is a Provider whose containers can share a network (NetworkContainer).
type Pods interface {
	// Pod completes the spec of a container that holds a pod's network and does
	// nothing but wait: its image and command.
	Pod(ctx context.Context, s task.Spec) (task.Spec, error)
}

// Sizer is a Provider that sells resources in packages only.
type Sizer interface {
	// Size rounds a wish up to the package it will be billed as.
	Size(ctx context.Context, s task.Spec) (resources.Scalars, error)
}
