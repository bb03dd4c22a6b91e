package docker

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/versions"
	"github.com/docker/go-connections/nat"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// minMemory is the least that an engine is asked for (docker.cpp, Docker::run).
const minMemory = 32 << 20

// request is a create call in the making.
type request struct {
	config  *container.Config
	host    *container.HostConfig
	net     *network.NetworkingConfig
	cluster bool     // it joins the cluster's network
	links   []string // wishes, name or name:alias
	notes   []string // what is ignored, and why

	pullConfig string

	o       *Options
	owner   task.Owner
	aliases []string
	mac, ip string
	// macPerNetwork: since API 1.44 a MAC address belongs to the network.
	macPerNetwork bool
	driver        string // of volumes that name none
	networks      []string
}

// request translates a task (mesos: docker.cpp, RunOptions::create). Whatever
// would be lost silently is refused.
func (e *Engine) request(o task.Owner, name string, s *task.Spec) (*request, error) {
	r := &request{
		config: &container.Config{Image: s.Image, User: s.User, WorkingDir: s.WorkDir, Hostname: s.Hostname, Tty: s.TTY},
		host:   &container.HostConfig{Privileged: s.Privileged},
		o:      &e.o,

		macPerNetwork: versions.GreaterThanOrEqualTo(e.cli.ClientVersion(), "1.44"),
	}
	r.config.Labels = provider.Labels(o, *s)
	r.owner, r.pullConfig = o, string(s.PullConfig)
	steps := []func(*task.Spec) error{
		r.image, r.command, r.limits, r.ports, r.parameters, r.privileges, r.volumes, r.connect,
	}
	for _, step := range steps {
		if err := step(s); err != nil {
			return nil, err
		}
	}
	maps.Copy(r.config.Labels, provider.Labels(o, task.Spec{Key: s.Key, Resources: s.Resources}))
	r.env(name, s)
	return r, nil
}

// image: a task without one is a command that expects to run in its sandbox.
func (r *request) image(s *task.Spec) error {
	if s.Image == "" {
		r.config.Image = r.o.DefaultImage
		r.config.WorkingDir = cmp.Or(s.WorkDir, provider.Sandbox)
	}
	if r.config.Image == "" {
		return reject("the task names no image, and no default image is set")
	}
	return nil
}

// wanted is the image to pull.
func (r *request) wanted() wanted { return wanted{r.config.Image, r.pullConfig} }

func (r *request) privileges(*task.Spec) error {
	if r.host.Privileged && !r.o.AllowPrivileged {
		return reject("privileged containers are not allowed here")
	}
	return nil
}

func (r *request) command(s *task.Spec) error {
	c := s.Command
	switch {
	case c.Shell:
		r.config.Entrypoint, r.config.Cmd = []string{"/bin/sh"}, []string{"-c", c.Value}
	case c.Value != "":
		r.config.Cmd = append([]string{c.Value}, c.Args...)
	default:
		r.config.Cmd = c.Args
	}
	return nil
}

// env puts Mesos' variables after the task's: they win.
func (r *request) env(name string, s *task.Spec) {
	var env []string
	for _, v := range s.Env {
		env = append(env, v.Key+"="+v.Value)
	}
	own := []string{"MESOS_SANDBOX=" + provider.Sandbox, "MESOS_CONTAINER_NAME=" + name}
	if len(s.Resources) > 0 && s.Resources[0].Role != "" {
		own = append(own, "MESOS_ALLOCATION_ROLE="+s.Resources[0].Role)
	}
	r.config.Env = slices.Concat(env, r.config.Env, own)
}

// limits gives shares of the processors, which bind only under contention, and
// a bound on memory. A bound on processors comes from Limits alone.
func (r *request) limits(s *task.Spec) error {
	want := s.Resources.Scalars()
	if cpus := want.Get("cpus"); cpus > 0 {
		r.host.CPUShares = max(2, int64(cpus)*1024/1000)
	}
	if cpus := s.Limits.Get("cpus"); cpus > 0 && cpus < resources.MaxMilli {
		r.host.CPUPeriod, r.host.CPUQuota = 100_000, int64(cpus)*100
	}
	mem, limit := mib(want.Get("mem")), mib(s.Limits.Get("mem"))
	switch {
	case limit > 0:
		r.host.MemoryReservation = mem
		if s.Limits.Get("mem") < resources.MaxMilli {
			r.host.Memory = max(minMemory, limit)
		}
	case mem > 0:
		r.host.Memory = max(minMemory, mem)
	}
	return nil
}

// mib converts an amount in MiB to bytes.
func mib(m resources.Milli) int64 {
	if m >= resources.MaxMilli {
		return 1 << 62
	}
	return int64(m) * (1 << 20) / 1000
}

func (r *request) ports(s *task.Spec) error {
	for _, p := range s.Ports {
		if p.Container == 0 {
			continue
		}
		proto := strings.ToLower(p.Protocol)
		if proto == "" {
			proto = "tcp"
		}
		r.expose(nat.Port(strconv.Itoa(int(p.Container)) + "/" + proto))
	}
	return nil
}

// expose declares a port, and publishes it where that is wanted.
func (r *request) expose(port nat.Port) {
	if r.config.ExposedPorts == nil {
		r.config.ExposedPorts = nat.PortSet{}
	}
	r.config.ExposedPorts[port] = struct{}{}
	if !r.o.PublishLoopback {
		return
	}
	if r.host.PortBindings == nil {
		r.host.PortBindings = nat.PortMap{}
	}
	r.host.PortBindings[port] = []nat.PortBinding{{HostIP: "127.0.0.1"}}
}

func (r *request) volumes(s *task.Spec) error {
	for i, v := range s.Volumes {
		if s.FromSandbox(&v) {
			continue // with its resource
		}
		if err := r.volume(v); err != nil {
			return fmt.Errorf("volumes[%d]: %w", i, err)
		}
	}
	if err := r.persistent(s); err != nil {
		return err
	}
	for i := range r.host.Mounts {
		if m := &r.host.Mounts[i]; r.driver != "" && m.VolumeOptions == nil {
			m.VolumeOptions = &mount.VolumeOptions{DriverConfig: &mount.Driver{Name: r.driver}}
		}
	}
	return nil
}

// persistent mounts the volumes of the task's resources. They are the engine's
// own, whatever driver other volumes have, and carry their owner's labels from
// their first moment.
func (r *request) persistent(s *task.Spec) error {
	for _, v := range provider.PersistentVolumes(r.owner, s) {
		if err := r.volume(v); err != nil {
			return fmt.Errorf("the persistent volume %s: %w", v.Name, err)
		}
		r.host.Mounts[len(r.host.Mounts)-1].VolumeOptions = &mount.VolumeOptions{Labels: provider.OwnerLabels(r.owner)}
	}
	return nil
}

func (r *request) volume(v task.Volume) error {
	switch {
	case v.Host != "":
		return reject("the host path %s cannot be mounted: tasks run on no particular host; use a named volume", v.Host)
	case v.Container == "":
		return reject("the path in the container is missing")
	}
	target := v.Container
	if !path.IsAbs(target) {
		target = path.Join(provider.Sandbox, target)
	}
	m := mount.Mount{Type: mount.TypeVolume, Source: v.Name, Target: target, ReadOnly: v.ReadOnly}
	if v.Driver != "" || len(v.Options) > 0 {
		m.VolumeOptions = &mount.VolumeOptions{DriverConfig: &mount.Driver{Name: v.Driver, Options: pairs(v.Options)}}
	}
	r.host.Mounts = append(r.host.Mounts, m)
	return nil
}

func pairs(labels []task.Label) map[string]string {
	out := make(map[string]string, len(labels))
	for _, l := range labels {
		out[l.Key] = l.Value
	}
	return out
}

// connect chooses the network. A parameter beats the task's own choice, as in
// Mesos.
func (r *request) connect(s *task.Spec) error {
	n := s.Network
	if len(r.networks) > 0 && n.Mode != task.NetworkContainer {
		n = networkNamed(r.networks[len(r.networks)-1])
		n.Aliases = s.Network.Aliases
	}
	r.aliases = append(r.aliases, n.Aliases...)
	switch n.Mode {
	case task.NetworkHost:
		return reject("the host's network is not offered: every task has an address of its own; use BRIDGE or USER")
	case task.NetworkNone:
		r.host.NetworkMode, r.config.ExposedPorts, r.host.PortBindings = "none", nil, nil
		return nil
	case task.NetworkUser:
		return r.join(n.Name)
	case task.NetworkContainer: // the other one has the ports and the names
		r.host.NetworkMode, r.config.ExposedPorts, r.host.PortBindings = container.NetworkMode("container:"+n.Name), nil, nil
		return nil
	default:
		return r.join(r.o.Network)
	}
}

func networkNamed(name string) task.Network {
	switch name {
	case "", "bridge", "default":
		return task.Network{Mode: task.NetworkBridge}
	case "host":
		return task.Network{Mode: task.NetworkHost}
	case "none":
		return task.Network{Mode: task.NetworkNone}
	}
	return task.Network{Mode: task.NetworkUser, Name: name}
}

// join connects to a network by its name; "" is the engine's default one.
func (r *request) join(name string) error {
	if name == "host" || strings.HasPrefix(name, "container:") {
		return reject("the network %s is not offered: every task has an address of its own", name)
	}
	r.cluster = name == r.o.Network
	if name == "" {
		return r.joinDefault()
	}
	endpoint := &network.EndpointSettings{Aliases: r.aliases}
	if r.macPerNetwork {
		endpoint.MacAddress = r.mac
	} else {
		//lint:ignore SA1019 the only place before API 1.44
		r.config.MacAddress = r.mac
	}
	if r.ip != "" {
		endpoint.IPAMConfig = &network.EndpointIPAMConfig{IPv4Address: r.ip}
	}
	r.host.NetworkMode = container.NetworkMode(name)
	r.net = &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{name: endpoint}}
	return nil
}

// joinDefault connects to the engine's default network, which has no names and
// gives no choice.
func (r *request) joinDefault() error {
	if r.mac != "" || r.ip != "" {
		return reject("mac-address and ip need a network of the cluster's own; none is set")
	}
	for _, alias := range r.aliases {
		r.notes = append(r.notes, "the alias "+alias+": the engine's default network has no names")
	}
	return nil
}

func linkTarget(l string) string {
	target, _, _ := strings.Cut(l, ":")
	return strings.TrimPrefix(target, "/")
}
