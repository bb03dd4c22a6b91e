package convert

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// Spec reads what a task should be. An error is final and says in a sentence
// what this kind of agent cannot do.
func Spec(framework string, t *mesosv1.TaskInfo) (task.Spec, error) {
	s := task.Spec{Key: task.Key{Framework: framework, ID: t.GetTaskId().GetValue()}, Name: t.GetName()}
	var err error
	if s.Resources, err = Resources(t.Resources); err != nil {
		return s, err
	}
	if s.Limits, err = limits(t.Limits); err != nil {
		return s, err
	}
	if err := readCommand(&s, t.GetCommand()); err != nil {
		return s, err
	}
	if err := readContainer(&s, t.GetContainer()); err != nil {
		return s, err
	}
	if err := noSource(&s); err != nil {
		return s, err
	}
	s.Labels = Labels(t.GetLabels())
	s.Discovery = discovery(t.GetDiscovery())
	s.Health, s.Check = health(t.GetHealthCheck()), check(t.GetCheck())
	if err := readCheckCommand(s.Health, t.GetHealthCheck().GetCommand()); err != nil {
		return s, err
	}
	if err := readCheckCommand(s.Check, t.GetCheck().GetCommand().GetCommand()); err != nil {
		return s, err
	}
	if k := t.GetKillPolicy().GetGracePeriod(); k != nil {
		s.KillGrace = new(time.Duration(k.GetNanoseconds()))
	}
	s.MaxCompletion = time.Duration(t.GetMaxCompletionTime().GetNanoseconds())
	return s, nil
}

// GroupTask reads what a task of a group should be. Its network is the pod's.
func GroupTask(framework string, t *mesosv1.TaskInfo) (task.Spec, error) {
	own := proto.CloneOf(t)
	own.Executor = nil
	s, err := Spec(framework, own)
	s.Pod = t.GetExecutor().GetExecutorId().GetValue()
	s.Network = task.Network{}
	if err == nil && s.Hostname != "" {
		err = errors.New("a task of a group has the host name of its executor; give that one the name " + s.Hostname)
	}
	return s, err
}

// HostedTask reads what the agent must know of a task that its framework's own
// executor runs; all else is between the two.
func HostedTask(framework string, t *mesosv1.TaskInfo) (task.Spec, error) {
	s := task.Spec{
		Key: task.Key{Framework: framework, ID: t.GetTaskId().GetValue()}, Name: t.GetName(), Pod: t.GetExecutor().GetExecutorId().GetValue(), Custom: true,
		Labels: Labels(t.GetLabels()), Discovery: discovery(t.GetDiscovery()),
	}
	var err error
	if s.Resources, err = Resources(t.Resources); err != nil {
		return s, err
	}
	for i := range s.Resources {
		if s.Resources[i].Disk != nil {
			return s, errors.New("a volume of a task cannot be brought into its executor, which runs already; give it to the executor")
		}
	}
	if k := t.GetKillPolicy().GetGracePeriod(); k != nil {
		s.KillGrace = new(time.Duration(k.GetNanoseconds()))
	}
	return s, nil
}

// Executor reads what the container of a framework's own executor should be.
// Its tasks come and go, so its memory has no bound.
func Executor(framework string, e *mesosv1.ExecutorInfo) (task.Spec, error) {
	id := e.GetExecutorId().GetValue()
	s := task.Spec{
		Key: task.Key{Framework: framework, ID: task.PodID(id)}, Pod: id, Custom: true, Name: cmp.Or(e.GetName(), "executor"), Labels: Labels(e.GetLabels()),
		Limits: resources.NewScalars(resources.Scalar{Name: "mem", Amount: resources.MaxMilli}),
	}
	if id == "" || e.GetType() == mesosv1.ExecutorInfo_DEFAULT || e.GetCommand() == nil {
		return s, fmt.Errorf("the executor must have an ID, a command and the type CUSTOM; this one is %v", e.GetType())
	}
	var err error
	if s.Resources, err = Resources(e.Resources); err != nil {
		return s, fmt.Errorf("the executor's %w", err)
	}
	if err := noSource(&s); err != nil {
		return s, err
	}
	if err := readCommand(&s, e.GetCommand()); err != nil {
		return s, err
	}
	if g := e.GetShutdownGracePeriod(); g != nil {
		s.KillGrace = new(time.Duration(g.GetNanoseconds()))
	}
	s.Discovery = discovery(e.GetDiscovery())
	return s, readContainer(&s, e.GetContainer())
}

// noSource refuses disks that this agent does not have.
func noSource(s *task.Spec) error {
	for i := range s.Resources {
		if d := s.Resources[i].Disk; d != nil && d.Source != "" {
			return errors.New("disks with a source (a path, a mount, a block device) are not supported by this agent")
		}
	}
	return nil
}

// Pod reads what the container should be that holds the network of a default
// executor's tasks.
func Pod(framework string, e *mesosv1.ExecutorInfo) (task.Spec, error) {
	id := e.GetExecutorId().GetValue()
	s := task.Spec{Key: task.Key{Framework: framework, ID: task.PodID(id)}, Pod: id, Name: cmp.Or(e.GetName(), "pod"), Labels: Labels(e.GetLabels())}
	if id == "" || e.GetType() != mesosv1.ExecutorInfo_DEFAULT {
		return s, fmt.Errorf("task groups need the default executor (type DEFAULT); this one is %v", e.GetType())
	}
	var err error
	if s.Resources, err = Resources(e.Resources); err != nil {
		return s, fmt.Errorf("the executor's %w", err)
	}
	c := e.GetContainer()
	if len(c.GetVolumes()) > 0 {
		return s, errors.New("volumes of the executor are not supported by this agent; give them to the tasks")
	}
	return s, readContainer(&s, c)
}

func limits(in map[string]*mesosv1.Value_Scalar) (resources.Scalars, error) {
	var list []resources.Scalar
	for name, v := range in {
		m, err := resources.FromFloat(v.GetValue())
		switch {
		case v.GetValue() > 1e300: // infinite
			m = resources.MaxMilli
		case err != nil:
			return nil, fmt.Errorf("limit of %s: %w", name, err)
		}
		list = append(list, resources.Scalar{Name: name, Amount: m})
	}
	return resources.NewScalars(list...), nil
}

func readCommand(s *task.Spec, c *mesosv1.CommandInfo) error {
	s.Command = command(c)
	s.User = c.GetUser()
	for _, v := range c.GetEnvironment().GetVariables() {
		x, err := variable(v)
		if err != nil {
			return err
		}
		s.Env = append(s.Env, x)
	}
	for _, u := range c.GetUris() {
		s.Fetch = append(s.Fetch, task.URI{
			Value: u.GetValue(), Output: u.GetOutputFile(), Executable: u.GetExecutable(), Extract: u.GetExtract(), Cache: u.GetCache(),
		})
	}
	return nil
}

// variable reads a variable of the environment. A secret must bring its value
// along.
func variable(v *mesosv1.Environment_Variable) (task.Label, error) {
	out := task.Label{Key: v.GetName(), Value: v.GetValue()}
	if v.GetType() == mesosv1.Environment_Variable_SECRET {
		if v.GetSecret().GetType() != mesosv1.Secret_VALUE {
			return out, fmt.Errorf("the variable %s is a secret, which this agent cannot resolve; give it a value", v.GetName())
		}
		out.Value = string(v.GetSecret().GetValue().GetData())
	}
	return out, nil
}

func command(c *mesosv1.CommandInfo) task.Command {
	if c == nil {
		return task.Command{}
	}
	return task.Command{Shell: c.GetShell() && c.Value != nil, Value: c.GetValue(), Args: c.GetArguments()}
}

func readContainer(s *task.Spec, c *mesosv1.ContainerInfo) error {
	if c == nil {
		return nil
	}
	s.Hostname, s.TTY = c.GetHostname(), c.TtyInfo != nil
	switch c.GetType() {
	case mesosv1.ContainerInfo_DOCKER:
		readDocker(s, c.GetDocker())
	default:
		if err := readImage(s, c.GetMesos().GetImage()); err != nil {
			return err
		}
	}
	if err := readLinux(s, c); err != nil {
		return err
	}
	if len(c.NetworkInfos) > 1 {
		return fmt.Errorf("the task asks for %d networks; this agent offers one to a task", len(c.NetworkInfos))
	}
	for _, n := range c.NetworkInfos {
		if len(n.Groups) > 0 {
			return fmt.Errorf("network groups (%s) are not supported by this agent; use a network of its own", strings.Join(n.Groups, ", "))
		}
		if n.GetName() != "" {
			s.Network = task.Network{Mode: task.NetworkUser, Name: n.GetName()}
		}
		for _, ip := range n.IpAddresses {
			if ip.GetIpAddress() != "" {
				s.Parameters = append(s.Parameters, task.Label{Key: "ip", Value: ip.GetIpAddress()})
			}
		}
		for _, p := range n.PortMappings {
			s.Ports = append(s.Ports, task.Port{Container: uint16(p.GetContainerPort()), Host: uint16(p.GetHostPort()), Protocol: p.GetProtocol()})
		}
	}
	for i, v := range c.Volumes {
		out, err := volume(v, c.GetDocker().GetVolumeDriver())
		if err != nil {
			return fmt.Errorf("volume %d (%s): %w", i, v.GetContainerPath(), err)
		}
		s.Volumes = append(s.Volumes, out)
	}
	return nil
}

// readImage reads an image for Mesos' own containers.
func readImage(s *task.Spec, i *mesosv1.Image) error {
	if i == nil {
		return nil
	}
	if i.GetType() != mesosv1.Image_DOCKER {
		return fmt.Errorf("images of type %v are not supported by this agent; use a Docker image", i.GetType())
	}
	s.Image, s.ForcePull = i.GetDocker().GetName(), !i.GetCached()
	if i.GetDocker().GetCredential() != nil {
		return errors.New("credentials in the image (Image.Docker.credential) are not supported, as in Mesos; give its config")
	}
	if secret := i.GetDocker().GetConfig(); secret != nil {
		if secret.GetType() != mesosv1.Secret_VALUE {
			return errors.New("the image's config is a reference to a secret, which this agent cannot resolve; give it a value")
		}
		s.PullConfig = secret.GetValue().GetData()
	}
	return nil
}

var networkModes = map[mesosv1.ContainerInfo_DockerInfo_Network]task.NetworkMode{
	mesosv1.ContainerInfo_DockerInfo_HOST: task.NetworkHost, mesosv1.ContainerInfo_DockerInfo_BRIDGE: task.NetworkBridge,
	mesosv1.ContainerInfo_DockerInfo_NONE: task.NetworkNone, mesosv1.ContainerInfo_DockerInfo_USER: task.NetworkUser,
}

func readDocker(s *task.Spec, d *mesosv1.ContainerInfo_DockerInfo) {
	s.Image, s.ForcePull, s.Privileged = d.GetImage(), d.GetForcePullImage(), d.GetPrivileged()
	if d.GetNetwork() != mesosv1.ContainerInfo_DockerInfo_HOST || d != nil && d.Network != nil {
		s.Network.Mode = networkModes[d.GetNetwork()]
	}
	for _, p := range d.GetPortMappings() {
		s.Ports = append(s.Ports, task.Port{Container: uint16(p.GetContainerPort()), Host: uint16(p.GetHostPort()), Protocol: p.GetProtocol()})
	}
	for _, p := range d.GetParameters() {
		s.Parameters = append(s.Parameters, task.Label{Key: p.GetKey(), Value: p.GetValue()})
	}
}

func volume(v *mesosv1.Volume, driver string) (task.Volume, error) {
	out := task.Volume{Container: v.GetContainerPath(), Host: v.GetHostPath(), ReadOnly: v.GetMode() == mesosv1.Volume_RO}
	switch src := v.GetSource(); {
	case v.Image != nil:
		return out, errors.New("volumes of an image are not supported by this agent; put the files into the task's image, or fetch them by URI")
	case src == nil && out.Host == "":
		return out, errors.New("host path or volume source is required")
	case src == nil:
		if driver != "" { // a driver makes the host path a volume's name
			out.Name, out.Driver, out.Host = out.Host, driver, ""
		}
	case src.GetType() == mesosv1.Volume_Source_DOCKER_VOLUME:
		out.Name, out.Driver = src.GetDockerVolume().GetName(), src.GetDockerVolume().GetDriver()
		for _, p := range src.GetDockerVolume().GetDriverOptions().GetParameter() {
			out.Options = append(out.Options, task.Label{Key: p.GetKey(), Value: p.GetValue()})
		}
	case src.GetType() == mesosv1.Volume_Source_HOST_PATH:
		out.Host = src.GetHostPath().GetPath()
	default:
		return out, fmt.Errorf("volumes of type %v are not supported by this agent", src.GetType())
	}
	return out, nil
}

// Labels reads labels in their order.
func Labels(in *mesosv1.Labels) []task.Label {
	var out []task.Label
	for _, l := range in.GetLabels() {
		out = append(out, task.Label{Key: l.GetKey(), Value: l.GetValue()})
	}
	return out
}

// LabelsTo writes labels; none gives nil.
func LabelsTo(in []task.Label) *mesosv1.Labels {
	if len(in) == 0 {
		return nil
	}
	out := &mesosv1.Labels{}
	for _, l := range in {
		out.Labels = append(out.Labels, &mesosv1.Label{Key: new(l.Key), Value: new(l.Value)})
	}
	return out
}

func discovery(d *mesosv1.DiscoveryInfo) *task.Discovery {
	if d == nil {
		return nil
	}
	out := &task.Discovery{Name: d.GetName(), Visibility: int32(d.GetVisibility())}
	for _, p := range d.GetPorts().GetPorts() {
		out.Ports = append(out.Ports, task.Port{
			Name: p.GetName(), Container: uint16(p.GetNumber()), Protocol: p.GetProtocol(), Labels: Labels(p.GetLabels()),
		})
	}
	return out
}

func health(h *mesosv1.HealthCheck) *task.HealthCheck {
	if h == nil {
		return nil
	}
	out := &task.HealthCheck{
		Delay: seconds(h.GetDelaySeconds()), Interval: seconds(h.GetIntervalSeconds()), Timeout: seconds(h.GetTimeoutSeconds()),
		Grace: seconds(h.GetGracePeriodSeconds()), Failures: h.GetConsecutiveFailures(),
	}
	switch kind := h.GetType(); {
	case kind == mesosv1.HealthCheck_HTTP || kind == mesosv1.HealthCheck_UNKNOWN && h.Http != nil:
		out.Type, out.Port, out.Scheme, out.Path = task.CheckHTTP, uint16(h.GetHttp().GetPort()), h.GetHttp().GetScheme(), h.GetHttp().GetPath()
		out.IPv6 = h.GetHttp().GetProtocol() == mesosv1.NetworkInfo_IPv6
	case kind == mesosv1.HealthCheck_TCP || kind == mesosv1.HealthCheck_UNKNOWN && h.Tcp != nil:
		out.Type, out.Port = task.CheckTCP, uint16(h.GetTcp().GetPort())
		out.IPv6 = h.GetTcp().GetProtocol() == mesosv1.NetworkInfo_IPv6
	default:
		out.Type, out.Command = task.CheckCommand, command(h.GetCommand())
	}
	return out
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// check reads a check without consequences; one without a type stays without.
func check(c *mesosv1.CheckInfo) *task.HealthCheck {
	if c == nil {
		return nil
	}
	out := &task.HealthCheck{Delay: seconds(c.GetDelaySeconds()), Interval: seconds(c.GetIntervalSeconds()), Timeout: seconds(c.GetTimeoutSeconds())}
	switch c.GetType() {
	case mesosv1.CheckInfo_COMMAND:
		out.Type, out.Command = task.CheckCommand, command(c.GetCommand().GetCommand())
	case mesosv1.CheckInfo_HTTP:
		out.Type, out.Port, out.Path = task.CheckHTTP, uint16(c.GetHttp().GetPort()), c.GetHttp().GetPath()
	case mesosv1.CheckInfo_TCP:
		out.Type, out.Port = task.CheckTCP, uint16(c.GetTcp().GetPort())
	}
	return out
}

// readCheckCommand takes what a check's command says beside what to run.
func readCheckCommand(h *task.HealthCheck, c *mesosv1.CommandInfo) error {
	if h == nil || c == nil {
		return nil
	}
	if len(c.Uris) > 0 {
		return fmt.Errorf("the command of a check has URIs (%s …); give them to the task", c.Uris[0].GetValue())
	}
	h.User = c.GetUser()
	for _, v := range c.GetEnvironment().GetVariables() {
		x, err := variable(v)
		if err != nil {
			return err
		}
		h.Env = append(h.Env, x)
	}
	return nil
}

// checkCommandTo is the inverse of command and readCheckCommand.
func checkCommandTo(h *task.HealthCheck) *mesosv1.CommandInfo {
	c := &mesosv1.CommandInfo{Shell: &h.Command.Shell, Value: &h.Command.Value, Arguments: slices.Clone(h.Command.Args), Environment: environmentTo(h.Env)}
	if h.User != "" {
		c.User = &h.User
	}
	return c
}

func environmentTo(env []task.Label) *mesosv1.Environment {
	if len(env) == 0 {
		return nil
	}
	out := &mesosv1.Environment{}
	for _, v := range env {
		out.Variables = append(out.Variables, &mesosv1.Environment_Variable{Name: new(v.Key), Value: new(v.Value)})
	}
	return out
}

func checkTo(h *task.HealthCheck) *mesosv1.CheckInfo {
	if h == nil {
		return nil
	}
	out := &mesosv1.CheckInfo{
		Type: checkType(h.Type), DelaySeconds: new(h.Delay.Seconds()), IntervalSeconds: new(h.Interval.Seconds()), TimeoutSeconds: new(h.Timeout.Seconds()),
	}
	switch h.Type {
	case task.CheckHTTP:
		out.Http = &mesosv1.CheckInfo_Http{Port: new(uint32(h.Port)), Path: &h.Path}
	case task.CheckTCP:
		out.Tcp = &mesosv1.CheckInfo_Tcp{Port: new(uint32(h.Port))}
	default:
		out.Command = &mesosv1.CheckInfo_Command{Command: checkCommandTo(h)}
	}
	return out
}

func checkType(t task.CheckType) *mesosv1.CheckInfo_Type {
	return mesosv1.CheckInfo_Type(t).Enum() // the same numbers
}

// TaskInfo writes a task for a launch on the agent.
func TaskInfo(s *task.Spec, agent string) *mesosv1.TaskInfo {
	t := &mesosv1.TaskInfo{
		Name: &s.Name, TaskId: &mesosv1.TaskID{Value: &s.Key.ID}, AgentId: &mesosv1.AgentID{Value: &agent},
		Resources: ResourcesTo(s.Resources, Stack), Command: commandTo(s), Labels: LabelsTo(s.Labels),
		Discovery: discoveryTo(s.Discovery), HealthCheck: healthTo(s.Health), Check: checkTo(s.Check),
	}
	if s.Image != "" {
		t.Container = containerTo(s)
	}
	if s.KillGrace != nil {
		t.KillPolicy = &mesosv1.KillPolicy{GracePeriod: durationTo(*s.KillGrace)}
	}
	if s.MaxCompletion > 0 {
		t.MaxCompletionTime = durationTo(s.MaxCompletion)
	}
	for _, l := range s.Limits {
		if t.Limits == nil {
			t.Limits = map[string]*mesosv1.Value_Scalar{}
		}
		limit := l.Amount.Float()
		if l.Amount >= resources.MaxMilli {
			limit = math.Inf(1)
		}
		t.Limits[l.Name] = &mesosv1.Value_Scalar{Value: &limit}
	}
	return t
}

func durationTo(d time.Duration) *mesosv1.DurationInfo {
	return &mesosv1.DurationInfo{Nanoseconds: new(int64(d))}
}

func commandTo(s *task.Spec) *mesosv1.CommandInfo {
	c := &mesosv1.CommandInfo{Shell: &s.Command.Shell, Arguments: s.Command.Args}
	if s.Command.Value != "" {
		c.Value = &s.Command.Value
	}
	if s.User != "" {
		c.User = &s.User
	}
	c.Environment = environmentTo(s.Env)
	for _, u := range s.Fetch {
		uri := &mesosv1.CommandInfo_URI{Value: new(u.Value), Executable: new(u.Executable), Extract: new(u.Extract), Cache: new(u.Cache)}
		if u.Output != "" {
			uri.OutputFile = new(u.Output)
		}
		c.Uris = append(c.Uris, uri)
	}
	return c
}

func containerTo(s *task.Spec) *mesosv1.ContainerInfo {
	d := &mesosv1.ContainerInfo_DockerInfo{Image: &s.Image, ForcePullImage: &s.ForcePull, Privileged: &s.Privileged}
	for mode, ours := range networkModes {
		if ours == s.Network.Mode {
			d.Network = new(mode)
		}
	}
	if d.Network == nil {
		d.Network = mesosv1.ContainerInfo_DockerInfo_BRIDGE.Enum()
	}
	for _, p := range s.Ports {
		d.PortMappings = append(d.PortMappings, &mesosv1.ContainerInfo_DockerInfo_PortMapping{
			HostPort: new(uint32(p.Host)), ContainerPort: new(uint32(p.Container)), Protocol: new(protocol(p)),
		})
	}
	for _, p := range s.Parameters {
		d.Parameters = append(d.Parameters, &mesosv1.Parameter{Key: new(p.Key), Value: new(p.Value)})
	}
	c := &mesosv1.ContainerInfo{Type: mesosv1.ContainerInfo_DOCKER.Enum(), Docker: d}
	if s.Hostname != "" {
		c.Hostname = &s.Hostname
	}
	if s.TTY {
		c.TtyInfo = &mesosv1.TTYInfo{}
	}
	if s.Network.Mode == task.NetworkUser {
		c.NetworkInfos = []*mesosv1.NetworkInfo{{Name: &s.Network.Name}}
	}
	for i := range s.Volumes {
		c.Volumes = append(c.Volumes, volumeTo(&s.Volumes[i]))
	}
	return c
}

func protocol(p task.Port) string {
	if p.Protocol == "" {
		return "tcp"
	}
	return strings.ToLower(p.Protocol)
}

func volumeTo(v *task.Volume) *mesosv1.Volume {
	out := &mesosv1.Volume{ContainerPath: &v.Container, Mode: mesosv1.Volume_RW.Enum()}
	if v.ReadOnly {
		out.Mode = mesosv1.Volume_RO.Enum()
	}
	if v.Sandbox != "" {
		out.Source = &mesosv1.Volume_Source{Type: mesosv1.Volume_Source_SANDBOX_PATH.Enum(), SandboxPath: &mesosv1.Volume_Source_SandboxPath{
			Type: mesosv1.Volume_Source_SandboxPath_PARENT.Enum(), Path: new("volumes/" + v.Sandbox),
		}}
		return out
	}
	if v.Name == "" {
		out.HostPath = &v.Host
		return out
	}
	dv := &mesosv1.Volume_Source_DockerVolume{Name: &v.Name}
	if v.Driver != "" {
		dv.Driver = &v.Driver
	}
	if len(v.Options) > 0 {
		dv.DriverOptions = &mesosv1.Parameters{}
	}
	for _, o := range v.Options {
		dv.DriverOptions.Parameter = append(dv.DriverOptions.Parameter, &mesosv1.Parameter{Key: new(o.Key), Value: new(o.Value)})
	}
	out.Source = &mesosv1.Volume_Source{Type: mesosv1.Volume_Source_DOCKER_VOLUME.Enum(), DockerVolume: dv}
	return out
}

func discoveryTo(d *task.Discovery) *mesosv1.DiscoveryInfo {
	if d == nil {
		return nil
	}
	out := &mesosv1.DiscoveryInfo{Visibility: mesosv1.DiscoveryInfo_Visibility(d.Visibility).Enum(), Name: &d.Name}
	for _, p := range d.Ports {
		if out.Ports == nil {
			out.Ports = &mesosv1.Ports{}
		}
		port := &mesosv1.Port{Number: new(uint32(p.Container)), Protocol: new(protocol(p)), Labels: LabelsTo(p.Labels)}
		if p.Name != "" {
			port.Name = new(p.Name)
		}
		out.Ports.Ports = append(out.Ports.Ports, port)
	}
	return out
}

func healthTo(h *task.HealthCheck) *mesosv1.HealthCheck {
	if h == nil {
		return nil
	}
	out := &mesosv1.HealthCheck{
		DelaySeconds: new(h.Delay.Seconds()), IntervalSeconds: new(h.Interval.Seconds()), TimeoutSeconds: new(h.Timeout.Seconds()),
		GracePeriodSeconds: new(h.Grace.Seconds()), ConsecutiveFailures: &h.Failures,
	}
	switch h.Type {
	case task.CheckHTTP:
		out.Type = mesosv1.HealthCheck_HTTP.Enum()
		out.Http = &mesosv1.HealthCheck_HTTPCheckInfo{Port: new(uint32(h.Port)), Scheme: &h.Scheme, Path: &h.Path, Protocol: checkProtocol(h)}
	case task.CheckTCP:
		out.Type = mesosv1.HealthCheck_TCP.Enum()
		out.Tcp = &mesosv1.HealthCheck_TCPCheckInfo{Port: new(uint32(h.Port)), Protocol: checkProtocol(h)}
	default:
		out.Type = mesosv1.HealthCheck_COMMAND.Enum()
		out.Command = checkCommandTo(h)
	}
	return out
}

func checkProtocol(h *task.HealthCheck) *mesosv1.NetworkInfo_Protocol {
	if h.IPv6 {
		return mesosv1.NetworkInfo_IPv6.Enum()
	}
	return nil
}
