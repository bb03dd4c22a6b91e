package marathon

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// firstFreePort is where the ports begin that an app leaves to us. Every
// instance has its own address, so they can be the same for all.
const firstFreePort = 31000

// assignPorts picks the port numbers of an instance: those of the definition,
// and the next free one for every 0.
func (a *App) assignPorts() []int {
	var out []int
	if a.IsPod() {
		return a.Pod.numbers()
	}
	for n, p := range a.ports() {
		number := p.number
		if number == 0 {
			number = firstFreePort + n
		}
		out = append(out, number)
	}
	return out
}

// spec is the task of an instance; secrets are values by their source.
func (a *App) spec(i *Instance, part resources.Resources, secrets map[string]string) task.Spec {
	s := task.Spec{
		Key: task.Key{ID: i.TaskID}, Name: taskName(a.ID), Resources: part, User: a.User, TTY: a.TTY,
		Env: a.taskEnv(i, secrets), Network: a.taskNetwork(), Command: a.taskCommand(), Discovery: a.discovery(i),
	}
	for _, k := range slices.Sorted(maps.Keys(a.Labels)) {
		s.Labels = append(s.Labels, task.Label{Key: k, Value: a.Labels[k]})
	}
	for n, p := range a.ports() {
		s.Ports = append(s.Ports, task.Port{Name: p.name, Container: uint16(i.Ports[n]), Host: uint16(p.host), Protocol: firstProtocol(p.protocol)})
	}
	for _, f := range a.Fetch {
		s.Fetch = append(s.Fetch, f.uri())
	}
	if a.KillGraceSeconds != nil {
		s.KillGrace = new(seconds(*a.KillGraceSeconds))
	}
	a.containerSpec(&s, i)
	s.Health = a.agentCheck()
	return s
}

func (f *Fetch) uri() task.URI {
	return task.URI{Value: f.URI, Output: f.DestPath, Executable: f.Executable, Extract: f.Extract == nil || *f.Extract, Cache: f.Cache}
}

// taskName is Marathon's: the parts of the path, the last first.
func taskName(id string) string {
	parts := strings.Split(strings.TrimPrefix(id, "/"), "/")
	slices.Reverse(parts)
	return strings.Join(parts, ".")
}

func firstProtocol(p string) string {
	first, _, _ := strings.Cut(p, ",")
	return first
}

func (a *App) taskCommand() task.Command {
	if a.Cmd != nil && *a.Cmd != "" {
		return task.Command{Shell: true, Value: *a.Cmd}
	}
	return task.Command{Args: a.Args}
}

// taskNetwork: host and bridge networking both become the cluster's own
// network, where every container has an address and no port is ever taken.
func (a *App) taskNetwork() task.Network {
	if a.mode() == NetworkContainer && a.Networks[0].Name != "" {
		return task.Network{Mode: task.NetworkUser, Name: a.Networks[0].Name}
	}
	return task.Network{Mode: task.NetworkBridge}
}

func (a *App) containerSpec(s *task.Spec, i *Instance) {
	if a.Container == nil {
		return
	}
	if d := a.Container.Docker; d != nil {
		s.Image, s.ForcePull, s.Privileged = d.Image, d.ForcePull, d.Privileged
		for _, p := range d.Parameters {
			s.Parameters = append(s.Parameters, task.Label{Key: p.Key, Value: p.Value})
		}
		s.Parameters = append(s.Parameters, task.Label{Key: "label", Value: "MESOS_TASK_ID=" + i.TaskID})
	}
	for _, v := range a.Container.Volumes {
		if v.Persistent != nil {
			continue // it is one of the resources
		}
		out := task.Volume{Container: v.ContainerPath, Host: v.HostPath, ReadOnly: v.Mode == "RO"}
		if v.External != nil {
			out.Name, out.Driver = v.External.Name, v.External.Options["dvdi/driver"]
		}
		s.Volumes = append(s.Volumes, out)
	}
}

// agentCheck is the check that only the agent can make: a command.
func (a *App) agentCheck() *task.HealthCheck {
	for _, h := range a.HealthChecks {
		if h.byScheduler() {
			continue
		}
		return &task.HealthCheck{
			Type: task.CheckCommand, Command: task.Command{Shell: true, Value: h.Command.Value}, Delay: seconds(h.Delay),
			Interval: seconds(h.Interval), Timeout: seconds(h.Timeout), Grace: seconds(h.GraceSeconds), Failures: uint32(h.MaxFailures),
		}
	}
	return nil
}

// discovery tells others how to find the task. The check that Consul copies is
// found by the port it names.
func (a *App) discovery(i *Instance) *task.Discovery {
	d := &task.Discovery{Name: taskName(a.ID), Visibility: 1}
	for n, p := range a.ports() {
		scope := "container"
		if a.mode() == NetworkHost {
			scope = "host"
		}
		port := task.Port{Name: p.name, Container: uint16(i.Ports[n]), Protocol: firstProtocol(p.protocol), Labels: []task.Label{{Key: "network-scope", Value: scope}}}
		for _, k := range slices.Sorted(maps.Keys(p.labels)) {
			port.Labels = append(port.Labels, task.Label{Key: k, Value: p.labels[k]})
		}
		d.Ports = append(d.Ports, port)
	}
	return d
}

// environment is a list of variables; the last of a name wins.
type environment []task.Label

func (e *environment) set(k, v string) { *e = append(*e, task.Label{Key: k, Value: v}) }

// sorted returns every variable once, by name.
func (e environment) sorted() []task.Label {
	slices.SortStableFunc(e, func(a, b task.Label) int { return strings.Compare(a.Key, b.Key) })
	out := e[:0]
	for n := range e {
		if n+1 == len(e) || e[n+1].Key != e[n].Key {
			out = append(out, e[n])
		}
	}
	return out
}

// taskEnv is Marathon's environment; the user's own values win
// (TaskBuilder.scala, EnvironmentHelper.scala).
func (a *App) taskEnv(i *Instance, secrets map[string]string) []task.Label {
	env := make(environment, 0, 16+len(a.Env)+len(a.Labels)+3*len(i.Ports))
	env.set("MESOS_TASK_ID", i.TaskID)
	env.set("MARATHON_APP_ID", a.ID)
	env.set("MARATHON_APP_VERSION", i.Version)
	env.set("HOST", i.Host)
	env.set("MARATHON_APP_RESOURCE_CPUS", number(a.CPUs))
	env.set("MARATHON_APP_RESOURCE_MEM", number(a.Mem))
	env.set("MARATHON_APP_RESOURCE_DISK", number(a.Disk))
	env.set("MARATHON_APP_RESOURCE_GPUS", strconv.Itoa(a.GPUs))
	env.set("MARATHON_APP_ENFORCE_GROUP_ROLE", "false")
	if d := a.docker(); d != nil {
		env.set("MARATHON_APP_DOCKER_IMAGE", d.Image)
	}
	a.labelEnv(&env)
	a.portEnv(&env, i)
	a.setEnv(&env, a.Env, secrets)
	return env.sorted()
}

// number formats as the JVM does: 1 is 1.0.
func number(v float64) string {
	s := strconv.FormatFloat(v, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

func (a *App) labelEnv(env *environment) {
	var names []string
	for _, k := range slices.Sorted(maps.Keys(a.Labels)) {
		name := envName(k)
		if len(name)+len(a.Labels[k]) >= 512 {
			continue
		}
		env.set("MARATHON_APP_LABEL_"+name, a.Labels[k])
		names = append(names, name)
	}
	env.set("MARATHON_APP_LABELS", strings.Join(names, " "))
}

func envName(k string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' {
			return r
		}
		return '_'
	}, strings.ToUpper(k))
}

func (a *App) portEnv(env *environment, i *Instance) {
	var all []string
	for n, p := range a.ports() {
		text := strconv.Itoa(i.Ports[n])
		all = append(all, text)
		env.set("PORT"+strconv.Itoa(n), text)
		env.set("PORT_"+text, text)
		if p.name != "" {
			env.set("PORT_"+envName(p.name), text)
		}
	}
	if len(all) > 0 {
		env.set("PORT", all[0])
		env.set("PORTS", strings.Join(all, ","))
	}
}
