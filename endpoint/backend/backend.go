package backend

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"time"
)

// Backend runs containers. Its methods may be called concurrently; IDs are the
// endpoint's (64 hexadecimal digits). After any error a call may be repeated.
type Backend interface {
	// Notify says who is told of states. It is called once, before all else;
	// f must not call the backend.
	Notify(f func(id string, s State))

	// Load returns the containers that an earlier process of this endpoint made.
	Load(ctx context.Context) ([]Found, error)

	// Run keeps the states current until ctx ends.
	Run(ctx context.Context) error

	// Network returns the account's own network, made at first use.
	Network(ctx context.Context, account string) (Network, error)

	// Create makes a container and does not start it. When it fails, nothing is
	// left. ErrCapacity says that there is no room.
	Create(ctx context.Context, s *Spec) error

	// Start, Stop and Kill are no error for a container that is in that state
	// already. Stop asks and kills after grace, and the container stays down;
	// one that is killed starts again if its restart policy says so.
	Start(ctx context.Context, id string) error
	Stop(ctx context.Context, id string, grace time.Duration) error
	Kill(ctx context.Context, id string, signal int) error

	// Rename changes a container's name; ErrNameTaken says that the account has
	// another one of that name.
	Rename(ctx context.Context, id, name string) error

	// Remove ends and deletes a container; one that is absent is no error.
	Remove(ctx context.Context, id string) error

	Streams
	Images
}

// Streams is what reads from and writes into containers.
type Streams interface {
	// Logs returns Docker's frames, or plain bytes for a container with a
	// terminal.
	Logs(ctx context.Context, id string, o LogOptions) (io.ReadCloser, error)

	// Attach connects to the container's own streams.
	Attach(ctx context.Context, id string, o AttachOptions) (Conn, error)

	// Exec prepares a further command.
	Exec(ctx context.Context, id string, o ExecOptions) (Exec, error)

	// Resize sets the size of the container's terminal.
	Resize(ctx context.Context, id string, height, width uint) error

	// Top lists processes: titles, then rows.
	Top(ctx context.Context, id string) (titles []string, rows [][]string, err error)

	// Stats returns JSON objects, one or a stream.
	Stats(ctx context.Context, id string, kind StatsKind) (io.ReadCloser, error)

	// Stat describes a path: the JSON of Docker's X-Docker-Container-Path-Stat.
	Stat(ctx context.Context, id, path string) ([]byte, error)

	// Get returns a path as a tar stream, with its description.
	Get(ctx context.Context, id, path string) (io.ReadCloser, []byte, error)

	// Put unpacks a tar stream into a folder.
	Put(ctx context.Context, id, path string, tar io.Reader) error
}

// Images is where images come from.
type Images interface {
	// Pull fetches an image and writes Docker's progress objects. auth is the
	// caller's X-Registry-Auth, nothing else is used.
	Pull(ctx context.Context, ref, auth string, progress io.Writer) (Image, error)

	// Local returns an image that is there already, or ErrNotFound.
	Local(ctx context.Context, ref string) (Image, error)

	// AllLocal returns the names of all images that are there already.
	AllLocal(ctx context.Context) ([]string, error)
}

// The errors that the endpoint tells apart.
var (
	ErrNotFound   = errors.New("not found")
	ErrCapacity   = errors.New("no room")
	ErrNameTaken  = errors.New("the name is taken")
	ErrNotRunning = errors.New("not running")
)

// Spec is a container as the endpoint decided it should be. It is never changed.
type Spec struct {
	ID      string // 64 hexadecimal digits; the first 32 are the instance's UUID
	Account string // the tenant's login
	Name    string
	Created time.Time

	Image      string // the image's ID
	ImageName  string // as the caller wrote it
	Cmd        []string
	Entrypoint []string
	Env        []string // the image's, then the caller's
	User       string
	WorkDir    string
	Hostname   string
	Domain     string
	TTY        bool
	OpenStdin  bool
	StdinOnce  bool

	Labels map[string]string // the image's under the caller's
	Tags   map[string]string // what came from triton.* labels

	Package   string // its name
	MemoryMiB int
	DiskMiB   int
	CPUCap    int // hundredths of a processor; 0: none
	CPUShares int

	Restart     Restart
	DNS         []string
	DNSSearch   []string
	ExtraHosts  []string
	Links       []Link
	Volumes     []string // anonymous, absolute paths
	VolumesFrom []Share
	LogDriver   string
	LogOptions  map[string]string

	Exposed    []string // "80/tcp", of the image
	Published  []string // "80/tcp"
	Public     bool     // it has a public address
	PublicNet  string   // the name of the public network, "" is the default
	NetAliases []string // names it is found by in its account's network
}

// Restart is when a container starts again by itself.
type Restart struct {
	Name string // "", always or on-failure
	Max  int    // of on-failure; 0: no bound
}

// Link is another container under a name.
type Link struct{ ID, Name, Alias string }

// Share is the volumes of another container.
type Share struct {
	ID       string
	ReadOnly bool
}

// Found is a container from before, with its state.
type Found struct {
	Spec  *Spec
	State State
}

// Phase is what a container does.
type Phase uint8

// The phases of a container.
const (
	Provisioning Phase = iota // being made
	Stopped                   // never started, or ended
	Running
)

// State is what is seen of a container.
type State struct {
	Phase    Phase
	Pid      int
	Started  time.Time // zero: never
	Finished time.Time // zero: not yet
	ExitCode int       // -n: ended by signal n
	HasExit  bool
	Restarts int
	Error    string
	NICs     []NIC // the primary first
	Gone     bool  // it vanished behind the endpoint's back
}

// NIC is an address of a container.
type NIC struct {
	Network string // the network's name
	Public  bool
	IP      netip.Addr
	Bits    int
	Gateway netip.Addr
	MAC     string
}

// Network is a network that containers are in.
type Network struct {
	Name    string
	UUID    string
	Subnet  netip.Prefix
	Gateway netip.Addr
	Public  bool
}

// Image is an image with what the endpoint needs of its configuration.
type Image struct {
	ID         string // sha256:…
	Names      []string
	Created    time.Time
	Size       int64
	Cmd        []string
	Entrypoint []string
	Env        []string
	Exposed    []string
	Volumes    []string
	Labels     map[string]string
	User       string
	WorkDir    string
}

// StatsKind is how statistics are wanted.
type StatsKind uint8

// The kinds of statistics.
const (
	StatsStream StatsKind = iota // one after the other
	StatsOnce                    // one, with what was a moment before, which takes that moment
	StatsAtOnce                  // one, without
)

// LogOptions chooses what to read; everything is told from its beginning unless
// Tail says otherwise.
type LogOptions struct {
	Follow     bool
	Timestamps bool
	Tail       int // lines; -1: all
}

// AttachOptions chooses the streams.
type AttachOptions struct {
	Stdin, Stdout, Stderr bool
	Logs, Stream          bool
}

// ExecOptions is a further command.
type ExecOptions struct {
	Cmd                   []string
	TTY                   bool
	User                  string
	Stdin, Stdout, Stderr bool
}

// Conn is a two-way stream whose writing half can be closed alone.
type Conn interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// Exec is a prepared command. It is started once.
type Exec interface {
	// Start runs it; detached returns no stream.
	Start(ctx context.Context, detach bool) (Conn, error)
	Resize(ctx context.Context, height, width uint) error
	// Result is the exit code so far.
	Result(ctx context.Context) (ExecResult, error)
}

// ExecResult is what is known of a command.
type ExecResult struct {
	Running  bool
	ExitCode int
	Pid      int
}
