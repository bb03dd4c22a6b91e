package marathon

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// App is an app's definition, in Marathon's canonical form since 1.5. It is
// also what is stored and what the REST API shows.
type App struct {
	ID        string              `json:"id"`
	Cmd       *string             `json:"cmd,omitempty"`
	Args      []string            `json:"args,omitempty"`
	User      string              `json:"user,omitempty"`
	Env       map[string]EnvValue `json:"env"`
	Instances int                 `json:"instances"`
	CPUs      float64             `json:"cpus"`
	Mem       float64             `json:"mem"`  // MiB
	Disk      float64             `json:"disk"` // MiB
	GPUs      int                 `json:"gpus"`
	Executor  string              `json:"executor"`
	TTY       bool                `json:"tty,omitempty"`

	Constraints  [][]string          `json:"constraints"`
	Fetch        []Fetch             `json:"fetch"`
	Secrets      map[string]Secret   `json:"secrets,omitempty"`
	Labels       map[string]string   `json:"labels"`
	Dependencies []string            `json:"dependencies"`
	Container    *Container          `json:"container,omitempty"`
	Networks     []Network           `json:"networks"`
	Ports        []PortDefinition    `json:"portDefinitions,omitzero"` // host networking only; empty is not the same as absent
	RequirePorts bool                `json:"requirePorts"`
	HealthChecks []HealthCheck       `json:"healthChecks"`
	Readiness    []ReadinessCheck    `json:"readinessChecks"`
	Upgrade      UpgradeStrategy     `json:"upgradeStrategy"`
	KillSelect   string              `json:"killSelection"`
	Unreachable  UnreachableStrategy `json:"unreachableStrategy"`

	BackoffSeconds        float64  `json:"backoffSeconds"`
	BackoffFactor         float64  `json:"backoffFactor"`
	MaxLaunchDelaySeconds float64  `json:"maxLaunchDelaySeconds"`
	KillGraceSeconds      *float64 `json:"taskKillGracePeriodSeconds,omitempty"`
	Role                  string   `json:"role"`
	AcceptedRoles         []string `json:"acceptedResourceRoles,omitempty"`

	Deployment  *DeploymentLimits `json:"deployment,omitempty"`  // ours
	HealthBrake *HealthBrake      `json:"healthBrake,omitempty"` // ours

	Canary *Canary `json:"canary,omitempty"` // ours

	Autoscale *Autoscale `json:"autoscale,omitempty"` // ours

	// Everywhere says that there is one instance on each agent. It is ours.
	Everywhere bool `json:"everywhere,omitempty"`

	// RunOnce says that an instance that has finished is not replaced: the app is
	// Instances runs to their end. It is ours.
	RunOnce bool `json:"runOnce,omitempty"`

	// Pod is set when the definition is a pod's: what only pods have. It is part
	// of what is stored and of no answer.
	Pod *Pod `json:"pod,omitempty"`

	Version     string       `json:"version,omitempty"` // set by the server
	VersionInfo *VersionInfo `json:"versionInfo,omitempty"`

	open bool // Instances was not given; see leftOpen
}

// VersionInfo says when an app was scaled and when it was otherwise changed.
type VersionInfo struct {
	LastScalingAt      string `json:"lastScalingAt"`
	LastConfigChangeAt string `json:"lastConfigChangeAt"`
}

// Fetch is a file to have in the sandbox.
type Fetch struct {
	URI        string `json:"uri"`
	Extract    *bool  `json:"extract,omitempty"` // nil: true
	Executable bool   `json:"executable"`
	Cache      bool   `json:"cache"`
	DestPath   string `json:"destPath,omitempty"`
}

// Secret names where a secret comes from.
type Secret struct {
	Source string `json:"source"`
}

var errNoEnvValue = errors.New(`an environment value is a text or {"secret":"name"}`)

// EnvValue is a text or the name of a secret.
type EnvValue struct {
	Text   string
	Secret string
}

// MarshalJSON writes "text" or {"secret":"name"}.
func (e EnvValue) MarshalJSON() ([]byte, error) {
	if e.Secret != "" {
		return json.Marshal(map[string]string{"secret": e.Secret})
	}
	return json.Marshal(e.Text)
}

// UnmarshalJSON reads what MarshalJSON writes; numbers and booleans, which old
// files have, are taken as their text.
func (e *EnvValue) UnmarshalJSON(text []byte) error {
	switch text[0] {
	case '{':
		var s struct {
			Secret string `json:"secret"`
		}
		if err := json.Unmarshal(text, &s); err != nil || s.Secret == "" {
			return errNoEnvValue
		}
		e.Secret = s.Secret
		return nil
	case '[', 'n':
		return errNoEnvValue
	case '"':
		return json.Unmarshal(text, &e.Text)
	}
	e.Text = string(text)
	return nil
}

// Container is how an app's image runs.
type Container struct {
	Type         string        `json:"type"`
	Docker       *Docker       `json:"docker,omitempty"`
	Volumes      []Volume      `json:"volumes"`
	PortMappings []PortMapping `json:"portMappings,omitzero"` // empty is not the same as absent
}

// Docker is the image and its flags.
type Docker struct {
	Image      string      `json:"image"`
	ForcePull  bool        `json:"forcePullImage"`
	Privileged bool        `json:"privileged"`
	Parameters []Parameter `json:"parameters"`
}

// Parameter is a Docker command-line flag.
type Parameter struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Volume is a host path, or an external volume by name.
type Volume struct {
	ContainerPath string            `json:"containerPath"`
	HostPath      string            `json:"hostPath,omitempty"`
	Mode          string            `json:"mode,omitempty"`
	Persistent    *PersistentVolume `json:"persistent,omitempty"`
	External      *ExternalVolume   `json:"external,omitempty"`
	Secret        string            `json:"secret,omitempty"`
}

// ExternalVolume is a volume of a Docker volume driver.
type ExternalVolume struct {
	Name     string            `json:"name"`
	Provider string            `json:"provider,omitempty"`
	Size     int               `json:"size,omitempty"`
	Options  map[string]string `json:"options,omitempty"`
}

// PortMapping is a port of a container with a network of its own.
type PortMapping struct {
	ContainerPort int               `json:"containerPort"`
	HostPort      *int              `json:"hostPort,omitempty"`
	ServicePort   int               `json:"servicePort"`
	Protocol      string            `json:"protocol,omitempty"`
	Name          string            `json:"name,omitempty"`
	Labels        map[string]string `json:"labels,omitempty"`
	NetworkNames  []string          `json:"networkNames,omitempty"`
}

// PortDefinition is a port of an app on the host's network.
type PortDefinition struct {
	Port     int               `json:"port"`
	Protocol string            `json:"protocol,omitempty"`
	Name     string            `json:"name,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
}

// Network modes.
const (
	NetworkHost      = "host"
	NetworkBridge    = "container/bridge"
	NetworkContainer = "container"
)

// Network is one network of an app.
type Network struct {
	Mode   string            `json:"mode"`
	Name   string            `json:"name,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
}

// HealthCheck decides whether an instance is well.
type HealthCheck struct {
	Protocol      string   `json:"protocol"`
	Path          string   `json:"path,omitempty"`
	PortIndex     *int     `json:"portIndex,omitempty"`
	Port          *int     `json:"port,omitempty"`
	Command       *Command `json:"command,omitempty"`
	GraceSeconds  float64  `json:"gracePeriodSeconds"`
	Interval      float64  `json:"intervalSeconds"`
	Timeout       float64  `json:"timeoutSeconds"`
	MaxFailures   int      `json:"maxConsecutiveFailures"`
	Delay         float64  `json:"delaySeconds"`
	IgnoreHTTP1xx bool     `json:"ignoreHttp1xx"`
	IPProtocol    string   `json:"ipProtocol,omitempty"`
}

// Command is a shell line.
type Command struct {
	Value string `json:"value"`
}

// ReadinessCheck says when a new instance may take over.
type ReadinessCheck struct {
	Name          string  `json:"name"`
	Protocol      string  `json:"protocol"`
	Path          string  `json:"path"`
	PortName      string  `json:"portName"`
	Interval      float64 `json:"intervalSeconds"`
	Timeout       float64 `json:"timeoutSeconds"`
	ReadyCodes    []int   `json:"httpStatusCodesForReady"`
	PreserveReply bool    `json:"preserveLastResponse"`
}

// UpgradeStrategy bounds how far an app may shrink and grow during a change.
type UpgradeStrategy struct {
	MinimumHealthCapacity float64 `json:"minimumHealthCapacity"`
	MaximumOverCapacity   float64 `json:"maximumOverCapacity"`
}

// UnreachableStrategy says when a lost instance is replaced and given up.
type UnreachableStrategy struct {
	Disabled             bool
	InactiveAfterSeconds float64
	ExpungeAfterSeconds  float64
}

// MarshalJSON writes "disabled" or the two times.
func (u UnreachableStrategy) MarshalJSON() ([]byte, error) {
	if u.Disabled {
		return []byte(`"disabled"`), nil
	}
	return fmt.Appendf(nil, `{"inactiveAfterSeconds":%v,"expungeAfterSeconds":%v}`, u.InactiveAfterSeconds, u.ExpungeAfterSeconds), nil
}

// UnmarshalJSON reads what MarshalJSON writes.
func (u *UnreachableStrategy) UnmarshalJSON(text []byte) error {
	if string(text) == "null" {
		return nil
	}
	if string(text) == `"disabled"` {
		*u = UnreachableStrategy{Disabled: true}
		return nil
	}
	var v struct {
		InactiveAfterSeconds, ExpungeAfterSeconds float64
	}
	if err := json.Unmarshal(text, &v); err != nil {
		return errors.New(`unreachableStrategy is "disabled" or {"inactiveAfterSeconds":n,"expungeAfterSeconds":n}`)
	}
	*u = UnreachableStrategy{InactiveAfterSeconds: v.InactiveAfterSeconds, ExpungeAfterSeconds: v.ExpungeAfterSeconds}
	return nil
}

// ConfigVersion is the version that running instances are compared with:
// scaling does not change it.
func (a *App) ConfigVersion() string {
	if a.VersionInfo != nil {
		return a.VersionInfo.LastConfigChangeAt
	}
	return a.Version
}

// sameConfig says whether two definitions differ in nothing but the number of
// instances (and what the server sets).
func sameConfig(a, b *App) bool {
	x, y := *a, *b
	for _, d := range []*App{&x, &y} {
		d.Instances, d.Version, d.VersionInfo, d.Deployment, d.HealthBrake, d.Canary, d.Autoscale = 0, "", nil, nil, nil, nil, nil
	}
	left, err1 := json.Marshal(&x)
	right, err2 := json.Marshal(&y)
	return err1 == nil && err2 == nil && string(left) == string(right)
}

// Timestamp is Marathon's form of a time: UTC, milliseconds.
func Timestamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// mostSeconds is a hundred years: more than that is taken as that.
const mostSeconds = 100 * 365 * 24 * 3600

func seconds(s float64) time.Duration {
	return time.Duration(min(s, mostSeconds) * float64(time.Second))
}
