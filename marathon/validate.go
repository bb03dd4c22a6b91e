package marathon

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/mesopool/mesopool/resources"
)

// checker gathers everything that is wrong, so that one answer names it all.
type checker struct{ problems []Problem }

func (c *checker) must(ok bool, path, format string, args ...any) {
	if ok {
		return
	}
	text := fmt.Sprintf(format, args...)
	for i := range c.problems {
		if c.problems[i].Path == path {
			c.problems[i].Errors = append(c.problems[i].Errors, text)
			return
		}
	}
	c.problems = append(c.problems, Problem{Path: path, Errors: []string{text}})
}

var (
	segment  = regexp.MustCompile(`^(([a-z0-9]|[a-z0-9][a-z0-9-]*[a-z0-9])\.)*([a-z0-9]|[a-z0-9][a-z0-9-]*[a-z0-9])$`)
	reserved = []string{"restart", "tasks", "versions", ".", ".."}
)

// ValidID says whether an absolute app ID is one.
func ValidID(id string) error {
	var c checker
	c.id("/id", id)
	if len(c.problems) > 0 {
		return &BadDefinition{Problems: c.problems}
	}
	return nil
}

func (c *checker) id(where, id string) {
	if id == "" || id == "/" {
		c.must(false, where, "must not be empty")
		return
	}
	for s := range strings.SplitSeq(strings.TrimPrefix(id, "/"), "/") {
		c.must(segment.MatchString(s), where, "must fully match regular expression '%s': %q does not (lower-case letters, digits, dashes, dots)", segment, s)
	}
	c.must(!slices.Contains(reserved, path.Base(id)), where, "must not end with %q: that is a part of the API", path.Base(id))
}

// validate refuses a definition whole, with every problem by its path.
func (a *App) validate() error {
	var c checker
	c.id("/id", a.ID)
	c.amounts(a)
	c.command(a)
	c.network(a)
	c.checks(a)
	c.strategies(a)
	c.limits(a.Deployment)
	c.brake(a.HealthBrake)
	c.canary(a)
	c.autoscale(a)
	c.everywhere(a)
	c.secrets(a)
	c.residence(a)
	for i, con := range a.Constraints {
		c.constraint(fmt.Sprintf("/constraints(%d)", i), con)
	}
	for i, d := range a.Dependencies {
		c.must(d != a.ID, fmt.Sprintf("/dependencies(%d)", i), "an app cannot depend on itself")
	}
	for name := range a.Env {
		c.must(name != "", "/env", "a name must not be empty")
	}
	if len(c.problems) > 0 {
		return &BadDefinition{Problems: c.problems}
	}
	return nil
}

// mostInstances bounds what one app may ask for.
const mostInstances = 1_000_000

func (c *checker) amounts(a *App) {
	c.must(a.Instances >= 0, "/instances", "got %d, expected 0 or more", a.Instances)
	c.must(a.Instances <= mostInstances, "/instances", "got %d, expected %d or less", a.Instances, mostInstances)
	c.amount("/cpus", a.CPUs)
	c.must(a.CPUs < 0 || a.CPUs >= 0.001 || a.CPUs == 0 && a.Instances == 0, "/cpus", "got %v, expected 0.001 or more", a.CPUs)
	c.amount("/mem", a.Mem)
	c.amount("/disk", a.Disk)
	c.must(a.GPUs >= 0, "/gpus", "got %d, expected 0 or more", a.GPUs)
	c.must(a.GPUs == 0 || a.docker() == nil || a.Container.Type != "DOCKER", "/gpus", "GPUs are not available to Docker containers")
}

func (c *checker) amount(where string, v float64) {
	_, err := resources.FromFloat(v)
	c.must(err == nil, where, "%v", err)
}

func (c *checker) command(a *App) {
	image := a.docker() != nil && a.docker().Image != ""
	hasCmd := a.Cmd != nil && strings.TrimSpace(*a.Cmd) != ""
	c.must(hasCmd || len(a.Args) > 0 || image, "/", "AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'.")
	c.must(a.Cmd == nil || len(a.Args) == 0, "/", "cmd and args may not both be set")
	c.must(a.Cmd == nil || hasCmd || image, "/cmd", "must not be empty")
	if a.Container == nil {
		return
	}
	c.must(a.Container.Type == "DOCKER" || a.Container.Type == "MESOS", "/container/type", "got %q, expected DOCKER or MESOS", a.Container.Type)
	c.must(a.Container.Type != "DOCKER" || a.Container.Docker != nil, "/container/docker", "not defined")
	c.must(a.Container.Docker == nil || image, "/container/docker/image", "must not be empty")
	for i, v := range a.Container.Volumes {
		c.volume(fmt.Sprintf("/container/volumes(%d)", i), v)
	}
}

func (c *checker) volume(where string, v Volume) {
	c.must(v.ContainerPath != "", where+"/containerPath", "must not be empty")
	c.must(v.Mode == "" || v.Mode == "RW" || v.Mode == "RO", where+"/mode", "got %q, expected RW or RO", v.Mode)
	kinds := 0
	for _, has := range []bool{v.HostPath != "", v.Persistent != nil, v.External != nil, v.Secret != ""} {
		if has {
			kinds++
		}
	}
	c.must(kinds == 1, where, "needs exactly one of hostPath, external, persistent, secret")
}

func (c *checker) network(a *App) {
	for i, n := range a.Networks {
		known := n.Mode == NetworkHost || n.Mode == NetworkBridge || n.Mode == NetworkContainer
		c.must(known, fmt.Sprintf("/networks(%d)/mode", i), "got %q, expected host, container or container/bridge", n.Mode)
		c.must(n.Mode == a.mode(), "/networks", "must all have the same mode")
	}
	names := map[string]bool{}
	for i, p := range a.ports() {
		where := a.portPath(i)
		c.must(p.host >= 0 && p.host <= 65535, where+"/hostPort", "got %d, expected a port from 0 to 65535", p.host)
		c.must(p.number >= 0 && p.number <= 65535, where, "got %d, expected a port from 0 to 65535", p.number)
		for proto := range strings.SplitSeq(p.protocol, ",") {
			c.must(proto == "tcp" || proto == "udp", where+"/protocol", "got %q, expected tcp, udp or udp,tcp", p.protocol)
		}
		c.must(p.name == "" || !names[p.name], where+"/name", "port names must be unique; %q is there twice", p.name)
		names[p.name] = true
	}
}

func (c *checker) checks(a *App) {
	known := []string{"HTTP", "HTTPS", "TCP", "COMMAND", "MESOS_HTTP", "MESOS_HTTPS", "MESOS_TCP"}
	ports, commands := len(a.ports()), 0
	for i, h := range a.HealthChecks {
		where := fmt.Sprintf("/healthChecks(%d)", i)
		c.must(slices.Contains(known, h.Protocol), where+"/protocol", "got %q, expected one of %s", h.Protocol, strings.Join(known, ", "))
		if !h.byScheduler() {
			commands++
		}
		c.must(h.Port == nil || *h.Port > 0 && *h.Port <= 65535, where+"/port", "got %d, expected a port from 1 to 65535", deref(h.Port))
		c.must(h.Protocol != "COMMAND" || h.Command != nil && h.Command.Value != "", where+"/command", "not defined")
		c.must(h.PortIndex == nil || h.Port != nil || *h.PortIndex >= 0 && *h.PortIndex < ports, where+"/portIndex", "there is no port of index %d; the app has %d ports", deref(h.PortIndex), ports)
		c.must(h.Interval > 0 && h.Timeout > 0, where, "intervalSeconds and timeoutSeconds must be above 0")
		c.must(h.MaxFailures >= 0 && h.GraceSeconds >= 0, where, "maxConsecutiveFailures and gracePeriodSeconds must not be negative")
	}
	c.must(commands <= 1, "/healthChecks", "at most one COMMAND check is allowed: the agent makes only one")
	c.readiness(a)
}

func deref(p *int) int {
	if p == nil {
		return 0
	}
	return *p
}

func (c *checker) strategies(a *App) {
	in01 := func(v float64) bool { return v >= 0 && v <= 1 }
	c.must(in01(a.Upgrade.MinimumHealthCapacity), "/upgradeStrategy/minimumHealthCapacity", "got %v, expected 0 to 1", a.Upgrade.MinimumHealthCapacity)
	c.must(in01(a.Upgrade.MaximumOverCapacity), "/upgradeStrategy/maximumOverCapacity", "got %v, expected 0 to 1", a.Upgrade.MaximumOverCapacity)
	c.must(a.BackoffSeconds >= 0, "/backoffSeconds", "must not be negative")
	c.must(a.BackoffFactor >= 1, "/backoffFactor", "got %v, expected 1 or more", a.BackoffFactor)
	c.must(a.MaxLaunchDelaySeconds >= 0, "/maxLaunchDelaySeconds", "must not be negative")
	c.must(a.KillSelect == "YOUNGEST_FIRST" || a.KillSelect == "OLDEST_FIRST", "/killSelection", "got %q, expected YOUNGEST_FIRST or OLDEST_FIRST", a.KillSelect)
	c.must(a.KillGraceSeconds == nil || *a.KillGraceSeconds >= 0, "/taskKillGracePeriodSeconds", "must not be negative")
	u := a.Unreachable
	c.must(u.InactiveAfterSeconds >= 0 && u.ExpungeAfterSeconds >= u.InactiveAfterSeconds, "/unreachableStrategy", "expungeAfterSeconds must be at least inactiveAfterSeconds, and neither negative")
}

// port is a port of an app in any shape.
type port struct {
	number   int
	host     int
	service  int
	protocol string
	name     string
	labels   map[string]string
}

// ports lists an app's ports in their order: PORT0 is the first.
func (a *App) ports() []port {
	var out []port
	if a.mode() == NetworkHost {
		for _, p := range a.Ports {
			out = append(out, port{p.Port, 0, p.Port, p.Protocol, p.Name, p.Labels})
		}
		return out
	}
	if a.Container == nil {
		return nil
	}
	for _, p := range a.Container.PortMappings {
		out = append(out, port{p.ContainerPort, deref(p.HostPort), p.ServicePort, p.Protocol, p.Name, p.Labels})
	}
	return out
}

func (a *App) portPath(i int) string {
	if a.mode() == NetworkHost {
		return fmt.Sprintf("/portDefinitions(%d)", i)
	}
	return fmt.Sprintf("/container/portMappings(%d)", i)
}

// ServicePorts lists the app's service ports, which load balancers use.
func (a *App) ServicePorts() []int {
	out := []int{}
	for _, p := range a.ports() {
		out = append(out, p.service)
	}
	return out
}
