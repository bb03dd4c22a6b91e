package marathon

import (
	"encoding/json"
	"strings"
	"time"
)

// Pod is a pod's definition in Marathon's form. Inside the scheduler a pod is an
// App whose Pod is set: what apps and pods have in common is in the App only.
type Pod struct {
	ID                string              `json:"id"`
	Version           string              `json:"version,omitempty"` // set by the server
	Role              string              `json:"role,omitempty"`
	User              string              `json:"user,omitempty"`
	Labels            map[string]string   `json:"labels,omitempty"`
	Environment       map[string]EnvValue `json:"environment,omitempty"`
	Containers        []PodContainer      `json:"containers"`
	Secrets           map[string]Secret   `json:"secrets,omitempty"`
	Volumes           []PodVolume         `json:"volumes"`
	Networks          []Network           `json:"networks,omitempty"`
	Scaling           *PodScaling         `json:"scaling,omitempty"`
	Scheduling        *PodScheduling      `json:"scheduling,omitempty"`
	ExecutorResources *PodResources       `json:"executorResources,omitempty"`
	LinuxInfo         json.RawMessage     `json:"linuxInfo,omitempty"`
}

// PodContainer is one container of a pod; it becomes a task.
type PodContainer struct {
	Name           string              `json:"name"`
	Exec           *PodExec            `json:"exec,omitempty"`
	Resources      PodResources        `json:"resources"`
	ResourceLimits json.RawMessage     `json:"resourceLimits,omitempty"`
	Endpoints      []Endpoint          `json:"endpoints,omitempty"`
	Image          *PodImage           `json:"image,omitempty"`
	Environment    map[string]EnvValue `json:"environment,omitempty"`
	User           string              `json:"user,omitempty"`
	HealthCheck    *PodCheck           `json:"healthCheck,omitempty"`
	Check          *PodCheck           `json:"check,omitempty"`
	VolumeMounts   []VolumeMount       `json:"volumeMounts,omitempty"`
	Artifacts      []Fetch             `json:"artifacts,omitempty"`
	Labels         map[string]string   `json:"labels,omitempty"`
	Lifecycle      *PodLifecycle       `json:"lifecycle,omitempty"`
	TTY            bool                `json:"tty,omitempty"`
	LinuxInfo      json.RawMessage     `json:"linuxInfo,omitempty"`
}

// PodExec is what a container runs instead of its image's own command.
type PodExec struct {
	Command struct {
		Shell *string  `json:"shell,omitempty"`
		Argv  []string `json:"argv,omitempty"`
	} `json:"command"`
	OverrideEntrypoint *bool `json:"overrideEntrypoint,omitempty"`
}

// PodResources are amounts; MiB for memory and disk.
type PodResources struct {
	CPUs float64 `json:"cpus"`
	Mem  float64 `json:"mem"`
	Disk float64 `json:"disk"`
	GPUs int     `json:"gpus"`
}

// Endpoint is a port of a container.
type Endpoint struct {
	Name          string            `json:"name"`
	ContainerPort *int              `json:"containerPort,omitempty"`
	HostPort      *int              `json:"hostPort,omitempty"`
	Protocol      []string          `json:"protocol,omitempty"`
	Labels        map[string]string `json:"labels,omitempty"`
	NetworkNames  []string          `json:"networkNames,omitempty"`
}

// PodImage is a container's image.
type PodImage struct {
	Kind       string          `json:"kind"`
	ID         string          `json:"id"`
	ForcePull  bool            `json:"forcePull,omitempty"`
	PullConfig json.RawMessage `json:"pullConfig,omitempty"`
	Labels     json.RawMessage `json:"labels,omitempty"`
}

// PodCheck is a check that the agent makes: one of HTTP, TCP and Exec.
type PodCheck struct {
	HTTP *struct {
		Endpoint string `json:"endpoint"`
		Path     string `json:"path,omitempty"`
		Scheme   string `json:"scheme,omitempty"`
	} `json:"http,omitempty"`
	TCP *struct {
		Endpoint string `json:"endpoint"`
	} `json:"tcp,omitempty"`
	Exec        *PodExec `json:"exec,omitempty"`
	Grace       *float64 `json:"gracePeriodSeconds,omitempty"`
	Interval    *float64 `json:"intervalSeconds,omitempty"`
	MaxFailures *int     `json:"maxConsecutiveFailures,omitempty"`
	Timeout     *float64 `json:"timeoutSeconds,omitempty"`
	Delay       *float64 `json:"delaySeconds,omitempty"`
}

// PodLifecycle says how long a container may take to end.
type PodLifecycle struct {
	KillGraceSeconds *float64 `json:"killGracePeriodSeconds,omitempty"`
}

// PodVolume is a volume that containers mount by its name: without more, one
// that lives as long as the instance.
type PodVolume struct {
	Name       string          `json:"name"`
	Host       string          `json:"host,omitempty"`
	Persistent json.RawMessage `json:"persistent,omitempty"`
	Secret     string          `json:"secret,omitempty"`
}

// VolumeMount is where a container has a volume.
type VolumeMount struct {
	Name      string `json:"name"`
	MountPath string `json:"mountPath"`
	ReadOnly  bool   `json:"readOnly,omitempty"`
}

// PodScaling is how many instances there shall be.
type PodScaling struct {
	Kind      string `json:"kind"`
	Instances int    `json:"instances"`
}

// PodScheduling is how instances are placed, launched and replaced.
type PodScheduling struct {
	Backoff     *PodBackoff          `json:"backoff,omitempty"`
	Upgrade     *UpgradeStrategy     `json:"upgrade,omitempty"`
	Placement   *PodPlacement        `json:"placement,omitempty"`
	KillSelect  string               `json:"killSelection,omitempty"`
	Unreachable *UnreachableStrategy `json:"unreachableStrategy,omitempty"`
}

// PodBackoff is in seconds.
type PodBackoff struct {
	Backoff        float64 `json:"backoff"`
	Factor         float64 `json:"backoffFactor"`
	MaxLaunchDelay float64 `json:"maxLaunchDelay"`
}

// PodPlacement says where instances may be.
type PodPlacement struct {
	Constraints   []PodConstraint `json:"constraints"`
	AcceptedRoles []string        `json:"acceptedResourceRoles,omitempty"`
}

// PodConstraint is an app's constraint with names for its parts.
type PodConstraint struct {
	FieldName string `json:"fieldName"`
	Operator  string `json:"operator"`
	Value     string `json:"value,omitempty"`
}

// podExecutor is what the executor of an instance takes for itself when the
// definition does not say (PodDefinition.scala, DefaultExecutorResources).
var podExecutor = PodResources{CPUs: 0.1, Mem: 32, Disk: 10}

// ReadPod reads a pod's definition, defaults filled in.
func ReadPod(text []byte, role string) (*App, error) {
	fields, err := readFields(text)
	if err != nil {
		return nil, err
	}
	return buildPod(fields, role)
}

func buildPod(fields map[string]json.RawMessage, role string) (*App, error) {
	text, err := json.Marshal(fields)
	if err != nil {
		return nil, &BadDefinition{Syntax: true, Text: err.Error()}
	}
	if fields["autoscale"] != nil {
		return nil, problem("/autoscale", "is not there for pods, only for apps")
	}
	p := &Pod{}
	if err := json.Unmarshal(text, p); err != nil {
		return nil, &BadDefinition{Syntax: true, Text: err.Error(), Problems: wrongTypes[Pod](text)}
	}
	a := podApp(p, role)
	return a, a.validatePod()
}

// podApp moves what apps and pods have in common into an App.
func podApp(p *Pod, role string) *App {
	a := defaults()
	a.ID, a.Role, a.User, a.Pod = absolute(p.ID, "/"), p.Role, p.User, p
	if a.Role == "" {
		a.Role = role
	}
	if p.Labels != nil {
		a.Labels = p.Labels
	}
	if p.Environment != nil {
		a.Env = p.Environment
	}
	a.Secrets, a.Networks = p.Secrets, p.Networks
	if len(a.Networks) == 0 {
		a.Networks = []Network{{Mode: NetworkHost}}
	}
	for i := range a.Networks {
		if a.Networks[i].Mode == "" {
			a.Networks[i].Mode = NetworkContainer
		}
	}
	for i := range p.Containers {
		if image := p.Containers[i].Image; image != nil {
			image.Kind = strings.ToUpper(image.Kind)
		}
	}
	if p.Scaling != nil {
		a.Instances = p.Scaling.Instances
	}
	if p.Scheduling != nil {
		p.Scheduling.apply(a)
	}
	a.spellings()
	p.fill()
	a.CPUs, a.Mem, a.Disk, a.GPUs = p.total()
	p.ID, p.Role, p.User, p.Labels, p.Environment, p.Secrets, p.Networks, p.Scaling, p.Scheduling = "", "", "", nil, nil, nil, nil, nil, nil
	return a
}

func (s *PodScheduling) apply(a *App) {
	if b := s.Backoff; b != nil {
		a.BackoffSeconds, a.BackoffFactor, a.MaxLaunchDelaySeconds = b.Backoff, b.Factor, b.MaxLaunchDelay
		if b.Factor == 0 {
			a.BackoffFactor = defaults().BackoffFactor
		}
		if b.MaxLaunchDelay == 0 {
			a.MaxLaunchDelaySeconds = defaults().MaxLaunchDelaySeconds
		}
	}
	if s.Upgrade != nil {
		a.Upgrade = *s.Upgrade
	}
	if p := s.Placement; p != nil {
		a.AcceptedRoles = p.AcceptedRoles
		for _, c := range p.Constraints {
			one := []string{c.FieldName, c.Operator}
			if c.Value != "" {
				one = append(one, c.Value)
			}
			a.Constraints = append(a.Constraints, one)
		}
	}
	if s.KillSelect != "" {
		a.KillSelect = strings.ToUpper(s.KillSelect)
	}
	if s.Unreachable != nil {
		a.Unreachable = *s.Unreachable
	}
}

func (p *Pod) fill() {
	if p.ExecutorResources == nil {
		p.ExecutorResources = new(podExecutor)
	}
	if p.Volumes == nil {
		p.Volumes = []PodVolume{}
	}
	for i := range p.Containers {
		c := &p.Containers[i]
		if c.Resources == (PodResources{}) {
			c.Resources = PodResources{CPUs: 0.1, Mem: 32} // Resources.scala
		}
		for n := range c.Endpoints {
			if len(c.Endpoints[n].Protocol) == 0 {
				c.Endpoints[n].Protocol = []string{"tcp"}
			}
		}
	}
}

// total is what an instance takes, its executor with it.
func (p *Pod) total() (cpus, mem, disk float64, gpus int) {
	sum := *p.ExecutorResources
	for i := range p.Containers {
		r := &p.Containers[i].Resources
		sum.CPUs, sum.Mem, sum.Disk, sum.GPUs = sum.CPUs+r.CPUs, sum.Mem+r.Mem, sum.Disk+r.Disk, sum.GPUs+r.GPUs
	}
	return milli(sum.CPUs), milli(sum.Mem), milli(sum.Disk), sum.GPUs
}

// milli takes away what adding up floats has brought.
func milli(v float64) float64 { return float64(int64(v*1000+0.5)) / 1000 }

// IsPod says whether the definition is a pod's.
func (a *App) IsPod() bool { return a.Pod != nil }

// PodDefinition is a pod as people write it.
func (a *App) PodDefinition() *Pod {
	p := *a.Pod
	p.ID, p.Version, p.Role, p.User = a.ID, a.Version, a.Role, a.User
	p.Labels, p.Environment, p.Secrets, p.Networks = a.Labels, a.Env, a.Secrets, a.Networks
	p.Scaling = &PodScaling{Kind: "fixed", Instances: a.Instances}
	p.Scheduling = &PodScheduling{
		Backoff: &PodBackoff{Backoff: a.BackoffSeconds, Factor: a.BackoffFactor, MaxLaunchDelay: a.MaxLaunchDelaySeconds},
		Upgrade: &a.Upgrade, KillSelect: a.KillSelect, Unreachable: &a.Unreachable,
		Placement: &PodPlacement{Constraints: []PodConstraint{}, AcceptedRoles: a.AcceptedRoles},
	}
	for _, c := range a.Constraints {
		one := PodConstraint{FieldName: c[0], Operator: c[1]}
		if len(c) > 2 {
			one.Value = c[2]
		}
		p.Scheduling.Placement.Constraints = append(p.Scheduling.Placement.Constraints, one)
	}
	return &p
}

// container finds a pod's container by name, nil when there is none.
func (p *Pod) container(name string) *PodContainer {
	for i := range p.Containers {
		if p.Containers[i].Name == name {
			return &p.Containers[i]
		}
	}
	return nil
}

// number is where an endpoint is reached: every instance has an address of its
// own, so ports left open can be the same for all.
func (p *Pod) number(of *Endpoint) int {
	n := 0
	for i := range p.Containers {
		for k := range p.Containers[i].Endpoints {
			e := &p.Containers[i].Endpoints[k]
			if e == of || e.Name == of.Name {
				return e.fixed(firstFreePort + n)
			}
			n++
		}
	}
	return 0
}

// Number is the port that an endpoint is reached at, 0 when there is none of the
// name.
func (p *Pod) Number(endpoint string) int {
	if e := p.endpoint(endpoint); e != nil {
		return p.number(e)
	}
	return 0
}

// numbers are those of all endpoints, in their order.
func (p *Pod) numbers() (out []int) {
	for i := range p.Containers {
		for k := range p.Containers[i].Endpoints {
			out = append(out, p.number(&p.Containers[i].Endpoints[k]))
		}
	}
	return out
}

func (e *Endpoint) fixed(otherwise int) int {
	switch {
	case deref(e.ContainerPort) > 0:
		return *e.ContainerPort
	case e.ContainerPort == nil && deref(e.HostPort) > 0:
		return *e.HostPort
	}
	return otherwise
}

// endpoint finds an endpoint by its name, nil when there is none.
func (p *Pod) endpoint(name string) *Endpoint {
	for i := range p.Containers {
		for k := range p.Containers[i].Endpoints {
			if e := &p.Containers[i].Endpoints[k]; e.Name == name {
				return e
			}
		}
	}
	return nil
}

// seconds of a check that may leave them open (health checks' defaults, as in
// HealthCheck.raml).
func orSeconds(v *float64, otherwise float64) time.Duration {
	if v == nil {
		return seconds(otherwise)
	}
	return seconds(*v)
}

// podTaskID is the ID of a container's task in an instance.
func podTaskID(instance, container string) string { return instance + "." + container + ".1" }
