package marathon

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// nameOf is what containers, endpoints and volumes are called
// (PodsValidation.scala, podContainer.raml).
var nameOf = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)

const longestName = 63

// validatePod refuses a pod whole, with every problem by its path.
func (a *App) validatePod() error {
	var c checker
	p := a.Pod
	c.id("/id", a.ID)
	c.must(len(p.Containers) > 0, "/containers", "must not be empty")
	c.must(a.Instances >= 0 && a.Instances <= mostInstances, "/scaling/instances", "got %d, expected 0 to %d", a.Instances, mostInstances)
	for i, n := range a.Networks {
		known := n.Mode == NetworkHost || n.Mode == NetworkBridge || n.Mode == NetworkContainer
		c.must(known, fmt.Sprintf("/networks(%d)/mode", i), "got %q, expected host, container or container/bridge", n.Mode)
	}
	c.must(len(a.Networks) == 1, "/networks", "got %d, expected one: an instance has one address", len(a.Networks))
	c.podVolumes(p)
	names := map[string]bool{}
	for i := range p.Containers {
		c.podContainer(a, i, names)
	}
	c.secrets(a)
	c.strategies(a)
	for i, con := range a.Constraints {
		c.constraint(fmt.Sprintf("/scheduling/placement/constraints(%d)", i), con)
	}
	c.podAmounts("/executorResources", p.ExecutorResources)
	if len(c.problems) > 0 {
		return &BadDefinition{Problems: c.problems}
	}
	return nil
}

func (c *checker) name(where, name string, seen map[string]bool) {
	c.must(nameOf.MatchString(name) && len(name) <= longestName, where, "must fully match regular expression '%s' and have at most %d characters: %q does not", nameOf, longestName, name)
	c.must(!seen[name], where, "must be unique; %q is there twice", name)
	seen[name] = true
}

func (c *checker) podVolumes(p *Pod) {
	seen := map[string]bool{}
	for i, v := range p.Volumes {
		where := fmt.Sprintf("/volumes(%d)", i)
		c.name(where+"/name", v.Name, seen)
		kinds := 0
		for _, has := range []bool{v.Host != "", len(v.Persistent) > 0, v.Secret != ""} {
			if has {
				kinds++
			}
		}
		c.must(kinds <= 1, where, "needs at most one of host, persistent, secret")
		c.must(len(v.Persistent) == 0, where+"/persistent", "persistent volumes of pods are not supported; give the volume to an app")
		c.must(v.Secret == "", where+"/secret", "volumes of secrets are not supported; give the secret by an environment variable")
	}
}

func (c *checker) podContainer(a *App, i int, names map[string]bool) {
	p, x := a.Pod, &a.Pod.Containers[i]
	where := fmt.Sprintf("/containers(%d)", i)
	c.name(where+"/name", x.Name, names)
	c.podAmounts(where+"/resources", &x.Resources)
	if x.Image != nil {
		c.must(x.Image.Kind == "DOCKER", where+"/image/kind", "got %q, expected DOCKER", x.Image.Kind)
		c.must(x.Image.ID != "", where+"/image/id", "must not be empty")
	}
	c.must(x.Image != nil || x.Exec != nil, where, "needs an image or exec")
	c.podExec(where+"/exec", x.Exec)
	for n := range x.Endpoints {
		c.podEndpoint(fmt.Sprintf("%s/endpoints(%d)", where, n), p, &x.Endpoints[n])
	}
	for n, m := range x.VolumeMounts {
		at := fmt.Sprintf("%s/volumeMounts(%d)", where, n)
		c.must(m.MountPath != "", at+"/mountPath", "must not be empty")
		known := slices.ContainsFunc(p.Volumes, func(v PodVolume) bool { return v.Name == m.Name })
		c.must(known, at+"/name", "there is no volume called %q", m.Name)
	}
	c.podCheck(where+"/healthCheck", p, x.HealthCheck)
	c.podCheck(where+"/check", p, x.Check)
}

func (c *checker) podAmounts(where string, r *PodResources) {
	c.amount(where+"/cpus", r.CPUs)
	c.must(r.CPUs < 0 || r.CPUs >= 0.001, where+"/cpus", "got %v, expected 0.001 or more", r.CPUs)
	c.amount(where+"/mem", r.Mem)
	c.amount(where+"/disk", r.Disk)
	c.must(r.GPUs >= 0, where+"/gpus", "got %d, expected 0 or more", r.GPUs)
}

func (c *checker) podExec(where string, e *PodExec) {
	if e == nil {
		return
	}
	shell := e.Command.Shell != nil && *e.Command.Shell != ""
	c.must(shell != (len(e.Command.Argv) > 0), where+"/command", "needs exactly one of shell and argv")
}

func (c *checker) podEndpoint(where string, p *Pod, e *Endpoint) {
	c.must(nameOf.MatchString(e.Name) && len(e.Name) <= longestName, where+"/name", "must fully match regular expression '%s': %q does not", nameOf, e.Name)
	c.must(p.endpoint(e.Name) == e, where+"/name", "endpoint names must be unique in a pod; %q is there twice", e.Name)
	c.portNumber(where+"/containerPort", e.ContainerPort)
	c.portNumber(where+"/hostPort", e.HostPort)
	c.must(e.ContainerPort != nil || e.HostPort != nil, where, "needs a containerPort or a hostPort")
}

func (c *checker) portNumber(where string, port *int) {
	c.must(deref(port) >= 0 && deref(port) <= 65535, where, "got %d, expected a port from 0 to 65535", deref(port))
}

func (c *checker) podCheck(where string, p *Pod, h *PodCheck) {
	if h == nil {
		return
	}
	kinds, endpoint := 0, ""
	if h.HTTP != nil {
		kinds, endpoint = kinds+1, h.HTTP.Endpoint
		c.must(h.HTTP.Path == "" || strings.HasPrefix(h.HTTP.Path, "/"), where+"/http/path", "must start with /")
		c.must(slices.Contains([]string{"", "HTTP", "HTTPS"}, strings.ToUpper(h.HTTP.Scheme)), where+"/http/scheme", "got %q, expected HTTP or HTTPS", h.HTTP.Scheme)
	}
	if h.TCP != nil {
		kinds, endpoint = kinds+1, h.TCP.Endpoint
	}
	if h.Exec != nil {
		kinds++
		c.podExec(where+"/exec", h.Exec)
	}
	c.must(kinds == 1, where, "needs exactly one of http, tcp and exec")
	c.must(h.Exec != nil || p.endpoint(endpoint) != nil, where, "there is no endpoint called %q", endpoint)
	for _, v := range []*float64{h.Grace, h.Interval, h.Timeout, h.Delay} {
		c.must(v == nil || *v >= 0, where, "times must not be negative")
	}
	c.must(deref(h.MaxFailures) >= 0, where+"/maxConsecutiveFailures", "must not be negative")
}
