package docker

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/go-connections/nat"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

// stateOf reads the engine's word. Podman has words of its own.
func stateOf(word string) provider.State {
	switch strings.ToLower(word) {
	case "created", "configured", "initialized":
		return provider.StateCreated
	case "running", "paused", "restarting", "stopping":
		return provider.StateUp
	default: // exited, dead, removing, stopped
		return provider.StateExited
	}
}

// owned fills in what the labels say.
func owned(c *provider.Container, labels map[string]string) {
	if owner, key, r, ok := provider.ParseLabels(labels); ok {
		c.Owner, c.Key, c.Resources = owner, key, r
	}
}

func (e *Engine) fromInspect(in container.InspectResponse, raw []byte) provider.Container {
	c := provider.Container{Raw: slices.Concat([]byte("["), raw, []byte("]"))}
	if in.Config != nil {
		owned(&c, in.Config.Labels)
	}
	if in.ContainerJSONBase != nil {
		c.ID, c.Name, c.Created = in.ID, strings.TrimPrefix(in.Name, "/"), moment(in.Created)
		fromState(&c, in.State)
	}
	if ns := in.NetworkSettings; ns != nil {
		e.connected(&c, ns.Networks)
		//lint:ignore SA1019 some Podman versions tell it nowhere else
		if addr := ns.IPAddress; len(c.Addresses) == 0 && addr != "" {
			c.Addresses, c.Network = []string{addr}, "bridge"
		}
		published(&c, ns.Ports)
	}
	return c
}

func fromState(c *provider.Container, s *container.State) {
	if s == nil {
		return
	}
	c.State, c.Started, c.Error, c.OOMKilled = stateOf(s.Status), moment(s.StartedAt), s.Error, s.OOMKilled
	if c.State == provider.StateExited {
		c.Ended, c.ExitCode, c.HasExit = moment(s.FinishedAt), s.ExitCode, true
	}
}

// fromList reads an entry of a listing. It has no exit code and no times but
// the creation's.
func (e *Engine) fromList(s container.Summary) provider.Container {
	c := provider.Container{ID: s.ID, State: stateOf(s.State), Created: time.Unix(s.Created, 0)}
	for _, name := range s.Names {
		if name = strings.TrimPrefix(name, "/"); !strings.Contains(name, "/") { // the rest are links to it
			c.Name = name
		}
	}
	owned(&c, s.Labels)
	if s.NetworkSettings != nil {
		e.connected(&c, s.NetworkSettings.Networks)
	}
	for _, p := range s.Ports {
		if p.PublicPort != 0 {
			c.PublishIP = cmp.Or(c.PublishIP, p.IP)
			c.Ports = append(c.Ports, task.Port{Container: p.PrivatePort, Host: p.PublicPort, Protocol: p.Type})
		}
	}
	sortPorts(c.Ports)
	return c
}

// connected takes the addresses, those in the cluster's network first.
func (e *Engine) connected(c *provider.Container, networks map[string]*network.EndpointSettings) {
	names := slices.SortedFunc(maps.Keys(networks), func(a, b string) int {
		if own := e.clusterNetwork(); (a == own) != (b == own) {
			return map[bool]int{true: -1, false: 1}[a == own]
		}
		return strings.Compare(a, b)
	})
	for _, name := range names {
		n := networks[name]
		if n == nil {
			continue
		}
		for _, addr := range []string{n.IPAddress, n.GlobalIPv6Address} {
			if addr != "" {
				c.Network = cmp.Or(c.Network, name)
				c.Addresses = append(c.Addresses, addr)
			}
		}
	}
}

func (e *Engine) clusterNetwork() string { return cmp.Or(e.o.Network, "bridge") }

func published(c *provider.Container, ports nat.PortMap) {
	for port, bindings := range ports {
		for _, b := range bindings {
			host, err := strconv.ParseUint(b.HostPort, 10, 16)
			if err != nil {
				continue
			}
			c.PublishIP = cmp.Or(c.PublishIP, b.HostIP)
			c.Ports = append(c.Ports, task.Port{Container: uint16(port.Int()), Host: uint16(host), Protocol: port.Proto()})
		}
	}
	sortPorts(c.Ports)
}

func sortPorts(ports []task.Port) {
	slices.SortFunc(ports, func(a, b task.Port) int {
		return cmp.Or(cmp.Compare(a.Container, b.Container), strings.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Host, b.Host))
	})
}

// moment reads a time of the engine; its year 1 means never.
func moment(text string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || t.Year() <= 1 {
		return time.Time{}
	}
	return t
}
