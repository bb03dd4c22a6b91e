package task

import (
	"path"
	"slices"
	"time"

	"github.com/mesopool/mesopool/resources"
)

// Key names a task: its ID is unique within its framework.
type Key struct {
	Framework string `json:",omitzero"`
	ID        string `json:",omitzero"`
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
	Key   string `json:",omitzero"`
	Value string `json:",omitzero"`
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
	Key       Key                 `json:",omitzero"`
	Name      string              `json:",omitzero"` // for people; not unique
	Resources resources.Resources `json:",omitzero"`
	Limits    resources.Scalars   `json:",omitzero"` // cpus and mem above the request; absent names: no own limit; MaxMilli: none at all

	Image      string  `json:",omitzero"` // empty: the agent's default image, or refused
	PullConfig []byte  `json:",omitzero"` // a Docker config.json with the image's credentials; nil: the agent's own
	Command    Command `json:",omitzero"`
	Env        []Label `json:",omitzero"` // in order; a later name wins
	User       string  `json:",omitzero"`
	WorkDir    string  `json:",omitzero"`
	Hostname   string  `json:",omitzero"`

	Network    Network  `json:",omitzero"`
	Ports      []Port   `json:",omitzero"`
	Volumes    []Volume `json:",omitzero"`
	Parameters []Label  `json:",omitzero"` // Docker command-line flags by their long names

	Labels    []Label      `json:",omitzero"`
	Discovery *Discovery   `json:",omitzero"`
	Health    *HealthCheck `json:",omitzero"`
	Check     *HealthCheck `json:",omitzero"` // its results are told and have no consequences: Grace and Failures are unused
	Fetch     []URI        `json:",omitzero"`

	KillGrace     *time.Duration `json:",omitzero"` // nil: the agent's default
	MaxCompletion time.Duration  `json:",omitzero"` // 0: no bound

	// Pod is the executor whose tasks share one network, "" for a task on its
	// own. The tasks that were launched together have the same Group.
	Pod   string `json:",omitzero"`
	Group string `json:",omitzero"`

	ForcePull  bool `json:",omitzero"`
	TTY        bool `json:",omitzero"`
	Privileged bool `json:",omitzero"`

	// Custom says that the executor is the framework's own program: it runs in the
	// container that is the pod's, and the tasks run within it.
	Custom bool `json:",omitzero"`

	// Origin is the launching protocol's own message. It is opaque to all but
	// the link that received it, which needs it to re-register the task whole.
	Origin []byte `json:",omitzero"`
}

// PodID is the ID under which the container is known that holds a pod's
// network. No task of a framework can have it: it has a backslash
// (common/validation.cpp, validateID).
func PodID(executor string) string { return `pod\` + executor }

// HoldsPod says whether this is the container that holds a pod's network.
func (s *Spec) HoldsPod() bool { return s.Pod != "" && s.Key.ID == PodID(s.Pod) }

// FromSandbox says whether a volume of the task is one of its persistent ones, by
// its path in the sandbox: a relative host path is one there (docker/docker.cpp,
// RunOptions::create).
func (s *Spec) FromSandbox(v *Volume) bool {
	return v.Host != "" && !path.IsAbs(v.Host) && slices.ContainsFunc(s.Resources, func(r resources.Resource) bool {
		return r.Persistent() && r.Disk.ContainerPath == v.Host
	})
}

// InPod says whether this is a task of a pod.
func (s *Spec) InPod() bool { return s.Pod != "" && !s.HoldsPod() }

// HoldsExecutor says whether this is the container of a framework's own
// executor.
func (s *Spec) HoldsExecutor() bool { return s.Custom && s.HoldsPod() }

// Hosted says whether this task runs within a framework's own executor, and so
// has no container of its own.
func (s *Spec) Hosted() bool { return s.Custom && s.InPod() }

// Command is what runs in the container.
type Command struct {
	Shell bool     `json:",omitzero"` // run Value with /bin/sh -c
	Value string   `json:",omitzero"` // the shell line, or argv[0] override; empty: the image's own command
	Args  []string `json:",omitzero"` // without Shell: arguments after the image's entrypoint (and after Value)
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
	NetworkUser      // the user-defined network called Name
	NetworkContainer // that of the container with the ID Name, which must be running
)

// Network is the network a task asks for.
type Network struct {
	Mode    NetworkMode `json:",omitzero"`
	Name    string      `json:",omitzero"`
	Aliases []string    `json:",omitzero"`
}

// Port is one port of a task. HostPort is accepted from old definitions and
// never a conflict: every container has its own address.
type Port struct {
	Name      string  `json:",omitzero"`
	Container uint16  `json:",omitzero"`
	Host      uint16  `json:",omitzero"`
	Protocol  string  `json:",omitzero"` // "tcp" or "udp"; empty means tcp
	Labels    []Label `json:",omitzero"`
}

// Volume is storage of a task. Paths of a host are refused by backends that
// have no hosts.
type Volume struct {
	Container string  `json:",omitzero"` // path in the container
	Host      string  `json:",omitzero"` // path on a host; refused by virtual agents
	Name      string  `json:",omitzero"` // a named volume of the backend
	Sandbox   string  `json:",omitzero"` // a directory that the tasks of a group share, by its name
	Driver    string  `json:",omitzero"`
	Options   []Label `json:",omitzero"`
	ReadOnly  bool    `json:",omitzero"`
}

// Discovery is how a task wants to be found (mesos.proto, DiscoveryInfo).
type Discovery struct {
	Name       string `json:",omitzero"`
	Visibility int32  `json:",omitzero"`
	Ports      []Port `json:",omitzero"` // Container is the advertised number
}

// HealthCheck is a check that the agent makes (mesos.proto, HealthCheck).
type HealthCheck struct {
	Type     CheckType     `json:",omitzero"`
	Port     uint16        `json:",omitzero"`
	Scheme   string        `json:",omitzero"` // http or https
	Path     string        `json:",omitzero"`
	IPv6     bool          `json:",omitzero"` // of the container's addresses, take one of these
	Command  Command       `json:",omitzero"`
	User     string        `json:",omitzero"` // who runs the command; "": the task's user
	Env      []Label       `json:",omitzero"` // for the command, beside the task's
	Delay    time.Duration `json:",omitzero"`
	Interval time.Duration `json:",omitzero"`
	Timeout  time.Duration `json:",omitzero"`
	Grace    time.Duration `json:",omitzero"`
	Failures uint32        `json:",omitzero"` // consecutive failures that end the task
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
	Value      string `json:",omitzero"`
	Output     string `json:",omitzero"`
	Executable bool   `json:",omitzero"`
	Extract    bool   `json:",omitzero"`
	Cache      bool   `json:",omitzero"`
}
