package task

import (
	"time"

	"github.com/mesopool/mesopool/resources"
)

// Key names a task: its ID is unique within its framework.
type Key struct {
	Framework string
	ID        string
}

// String joins the parts for logs.
func (k Key) String() string { return k.Framework + "/" + k.ID }

// Owner says whose a container is. Nothing without the owner's labels is ever
// listed, stopped or removed.
type Owner struct {
	Cluster string // the cluster's name, such as "mesos"
	Agent   string // the stable name of the virtual agent within the cluster
}

// Label is a name with an optional value.
type Label struct {
	Key   string
	Value string
}

// Label returns the value of the first label with the key.
func (s *Spec) Label(key string) (string, bool) {
	for _, l := range s.Labels {
		if l.Key == key {
			return l.Value, true
		}
	}
	return "", false
}

// Spec is what a task should be. Backends read it and never change it.
type Spec struct {
	Key       Key
	Name      string // for people; not unique
	Resources resources.Resources
	Limits    resources.Scalars // cpus and mem above the request; absent names: no own limit

	Image     string // empty: the agent's default image, or refused
	ForcePull bool
	Command   Command
	Env       []Label // in order; a later name wins
	User      string
	WorkDir   string
	Hostname  string
	TTY       bool

	Network    Network
	Ports      []Port
	Volumes    []Volume
	Parameters []Label // Docker command-line flags by their long names
	Privileged bool

	Labels    []Label
	Discovery *Discovery
	Health    *HealthCheck
	Fetch     []URI

	KillGrace     *time.Duration // nil: the agent's default
	MaxCompletion time.Duration  // 0: no bound

	// Origin is the launching protocol's own message. It is opaque to all but
	// the link that received it, which needs it to re-register the task whole.
	Origin []byte
}

// Command is what runs in the container.
type Command struct {
	Shell bool     // run Value with /bin/sh -c
	Value string   // the shell line, or argv[0] override; empty: the image's own command
	Args  []string // without Shell: arguments after the image's entrypoint (and after Value)
}

// NetworkMode chooses how a container is connected.
type NetworkMode uint8

// The network modes (mesos.proto, ContainerInfo.DockerInfo.Network). Host is
// refused where a container must have an address of its own.
const (
	NetworkDefault NetworkMode = iota // the cluster's own network
	NetworkBridge                     // treated as the cluster's own network
	NetworkHost
	NetworkNone
	NetworkUser // the user-defined network called Name
)

// Network is the network a task asks for.
type Network struct {
	Mode    NetworkMode
	Name    string
	Aliases []string
}

// Port is one port of a task. HostPort is accepted from old definitions and
// never a conflict: every container has its own address.
type Port struct {
	Name      string
	Container uint16
	Host      uint16
	Protocol  string // "tcp" or "udp"; empty means tcp
	Labels    []Label
}

// Volume is storage of a task. Paths of a host are refused by backends that
// have no hosts.
type Volume struct {
	Container string // path in the container
	Host      string // path on a host; refused by virtual agents
	Name      string // a named volume of the backend
	Driver    string
	Options   []Label
	ReadOnly  bool
}

// Discovery is how a task wants to be found (mesos.proto, DiscoveryInfo).
type Discovery struct {
	Name       string
	Visibility int32
	Ports      []Port // Container is the advertised number
}

// HealthCheck is a check that the agent makes (mesos.proto, HealthCheck).
type HealthCheck struct {
	Type     CheckType
	Port     uint16
	Scheme   string // http or https
	Path     string
	Command  Command
	Delay    time.Duration
	Interval time.Duration
	Timeout  time.Duration
	Grace    time.Duration
	Failures uint32 // consecutive failures that end the task
}

// CheckType is the kind of a health check.
type CheckType uint8

// The kinds of checks.
const (
	CheckCommand CheckType = iota + 1
	CheckHTTP
	CheckTCP
)

// URI is a file to have in the sandbox before the start.
type URI struct {
	Value      string
	Output     string
	Executable bool
	Extract    bool
	Cache      bool
}
