package marathon

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// parts are the tasks of a new instance of a pod.
func (a *App) parts(i *Instance) []*Part {
	var out []*Part
	for _, c := range a.Pod.Containers {
		out = append(out, &Part{Name: c.Name, TaskID: podTaskID(i.ID, c.Name), State: task.Staging, Since: i.Staged})
	}
	return out
}

// group is what an instance of a pod is launched as: from the part of the offer,
// the executor takes its share, and each container its own.
func (a *App) group(i *Instance, part resources.Resources, secrets map[string]string) task.Group {
	cut := func(r *PodResources) resources.Resources {
		own, _ := a.take(part, amountsOf(r.CPUs, r.Mem, r.Disk, float64(r.GPUs)), i.Role) // it is the sum of them
		part = part.Sub(own...)
		return own
	}
	g := task.Group{Pod: task.Spec{Name: taskName(a.ID), Pod: i.ID, Network: a.taskNetwork(), Resources: cut(a.Pod.ExecutorResources), Labels: labelsOf(a.Labels)}}
	for n := range a.Pod.Containers {
		c := &a.Pod.Containers[n]
		s := a.containerTask(i, i.Parts[n], c, secrets)
		s.Resources = cut(&c.Resources)
		for k := range c.Endpoints {
			e := &c.Endpoints[k]
			g.Pod.Ports = append(g.Pod.Ports, task.Port{Name: e.Name, Container: uint16(a.Pod.number(e)), Host: uint16(deref(e.HostPort)), Protocol: wireProtocol(e.Protocol[0])})
		}
		g.Tasks = append(g.Tasks, s)
	}
	return g
}

// wireProtocol: endpoints may name what is spoken over TCP.
func wireProtocol(p string) string {
	if p == "udp" {
		return p
	}
	return "tcp"
}

func labelsOf(in map[string]string) (out []task.Label) {
	for _, k := range slices.Sorted(maps.Keys(in)) {
		out = append(out, task.Label{Key: k, Value: in[k]})
	}
	return out
}

func (a *App) containerTask(i *Instance, part *Part, c *PodContainer, secrets map[string]string) task.Spec {
	s := task.Spec{
		Key: task.Key{ID: part.TaskID}, Name: c.Name, User: c.User, TTY: c.TTY, Env: a.containerEnv(i, part, c, secrets),
		Labels: labelsOf(c.Labels), Health: a.Pod.agentCheck(c.HealthCheck), Check: a.Pod.agentCheck(c.Check), Discovery: a.podDiscovery(c),
	}
	if s.User == "" {
		s.User = a.User
	}
	if c.Image != nil {
		s.Image, s.ForcePull = c.Image.ID, c.Image.ForcePull
	}
	if c.Exec != nil {
		s.Command = c.Exec.command()
	}
	if l := c.Lifecycle; l != nil && l.KillGraceSeconds != nil {
		s.KillGrace = new(seconds(*l.KillGraceSeconds))
	}
	for _, f := range c.Artifacts {
		s.Fetch = append(s.Fetch, f.uri())
	}
	for _, m := range c.VolumeMounts {
		v := task.Volume{Container: m.MountPath, ReadOnly: m.ReadOnly, Sandbox: m.Name}
		for _, of := range a.Pod.Volumes {
			if of.Name == m.Name && of.Host != "" {
				v.Sandbox, v.Host = "", of.Host
			}
		}
		s.Volumes = append(s.Volumes, v)
	}
	return s
}

func (e *PodExec) command() task.Command {
	if sh := e.Command.Shell; sh != nil && *sh != "" {
		return task.Command{Shell: true, Value: *sh}
	}
	return task.Command{Value: e.Command.Argv[0], Args: e.Command.Argv[1:]}
}

// agentCheck: the agent makes all checks of pods (the defaults are those of
// healthCheck.raml).
func (p *Pod) agentCheck(h *PodCheck) *task.HealthCheck {
	if h == nil {
		return nil
	}
	out := &task.HealthCheck{
		Delay: orSeconds(h.Delay, 15), Interval: orSeconds(h.Interval, 60), Timeout: orSeconds(h.Timeout, 20), Grace: orSeconds(h.Grace, 300), Failures: 3,
	}
	if h.MaxFailures != nil {
		out.Failures = uint32(*h.MaxFailures)
	}
	switch {
	case h.HTTP != nil:
		out.Type, out.Path, out.Scheme = task.CheckHTTP, h.HTTP.Path, strings.ToLower(h.HTTP.Scheme)
		out.Port = uint16(p.number(p.endpoint(h.HTTP.Endpoint)))
	case h.TCP != nil:
		out.Type, out.Port = task.CheckTCP, uint16(p.number(p.endpoint(h.TCP.Endpoint)))
	default:
		out.Type, out.Command = task.CheckCommand, h.Exec.command()
	}
	return out
}

func (a *App) podDiscovery(c *PodContainer) *task.Discovery {
	d := &task.Discovery{Name: taskName(a.ID), Visibility: 1}
	for k := range c.Endpoints {
		e := &c.Endpoints[k]
		p := task.Port{Name: e.Name, Container: uint16(a.Pod.number(e)), Protocol: wireProtocol(e.Protocol[0]), Labels: []task.Label{{Key: "network-scope", Value: "container"}}}
		p.Labels = append(p.Labels, labelsOf(e.Labels)...)
		d.Ports = append(d.Ports, p)
	}
	return d
}

// containerEnv is Marathon's environment of a pod's container; the user's own
// values win (TaskGroupBuilder.scala, computeContainerInfo and the functions it
// names).
func (a *App) containerEnv(i *Instance, part *Part, c *PodContainer, secrets map[string]string) []task.Label {
	env := environment{}
	env.set("MESOS_TASK_ID", part.TaskID)
	env.set("MESOS_EXECUTOR_ID", i.ID)
	env.set("MARATHON_APP_ID", a.ID)
	env.set("MARATHON_APP_VERSION", i.Version)
	env.set("MARATHON_CONTAINER_ID", c.Name)
	env.set("MARATHON_CONTAINER_RESOURCE_CPUS", number(c.Resources.CPUs))
	env.set("MARATHON_CONTAINER_RESOURCE_MEM", number(c.Resources.Mem))
	env.set("MARATHON_CONTAINER_RESOURCE_DISK", number(c.Resources.Disk))
	env.set("MARATHON_CONTAINER_RESOURCE_GPUS", strconv.Itoa(c.Resources.GPUs))
	env.set("HOST", i.Host)
	if c.Image != nil {
		env.set("MARATHON_APP_DOCKER_IMAGE", c.Image.ID)
	}
	a.labelEnv(&env)
	for n := range a.Pod.Containers {
		for k := range a.Pod.Containers[n].Endpoints {
			e := &a.Pod.Containers[n].Endpoints[k]
			port, name := strconv.Itoa(a.Pod.number(e)), envName(e.Name)
			env.set("ENDPOINT_"+name, port)
			env.set("EP_CONTAINER_"+name, port)
			if e.HostPort != nil {
				env.set("EP_HOST_"+name, port)
			}
		}
	}
	a.setEnv(&env, a.Env, secrets)
	a.setEnv(&env, c.Environment, secrets)
	return env.sorted()
}
