package endpoint

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"github.com/mesopool/mesopool/endpoint/backend"
)

// NetworkID is a network's ID in the Docker API: its UUID without dashes, twice
// (sdc-docker: lib/backends/sdc/networks.js).
func NetworkID(n *backend.Network) string {
	hex := strings.ReplaceAll(n.UUID, "-", "")
	return hex + hex
}

// Networks are the account's own and the public ones.
func (c *Cloud) Networks(ctx context.Context, a *Account) ([]backend.Network, error) {
	own, err := c.backend.Network(ctx, a.Key())
	if err != nil {
		return nil, err
	}
	return append([]backend.Network{own}, c.cfg.PublicNetworks...), nil
}

// Network finds one by ID, name or beginning of an ID.
func (c *Cloud) Network(ctx context.Context, a *Account, name string) (*backend.Network, error) {
	all, err := c.Networks(ctx, a)
	if err != nil {
		return nil, err
	}
	var found *backend.Network
	matches := 0
	for i := range all {
		n := &all[i]
		if n.Name == name || NetworkID(n) == name || n.UUID == name {
			return n, nil
		}
		if name != "" && strings.HasPrefix(NetworkID(n), name) {
			found = n
			matches++
		}
	}
	if matches != 1 {
		return nil, notFound("network %s not found", name)
	}
	return found, nil
}

// attachTo decides on the public address and its network.
func (c *Cloud) attachTo(ctx context.Context, a *Account, r *request, s *backend.Spec) error {
	var err error
	if s.PublicNet, err = c.publicNetwork(s.Tags, len(s.Published) > 0); err != nil {
		return err
	}
	s.Public = len(s.Published) > 0
	switch mode := r.networkMode; {
	case mode == "" || mode == "bridge" || mode == "default":
		return nil
	case mode == "host" || mode == "none":
		return notImplemented("NetworkMode " + mode + " is not supported")
	case strings.HasPrefix(mode, "container:"):
		return notImplemented("Container networking is not supported")
	}
	n, err := c.Network(ctx, a, r.networkMode)
	if err != nil {
		return err
	}
	if len(r.links) > 0 {
		return &Error{http.StatusBadRequest, "NotImplemented", "links on a named network is not implemented"}
	}
	if n.Public {
		s.Public, s.PublicNet = true, n.Name
	}
	return nil
}

// maxPublished is how many ports of one protocol a container publishes.
const maxPublished = 128

// publish checks the ports: each is published as itself (sdc-docker:
// lib/backends/sdc/containers.js).
func (r *request) publish(exposed []string) ([]string, error) {
	ports := map[string]bool{}
	for key, b := range r.bindings {
		port, proto, ok := parsePort(key)
		if !ok {
			return nil, validation("invalid port binding: %q must be <1-65535>/<tcp|udp>", key)
		}
		if len(b) > 0 && b[0].HostPort != "" && b[0].HostPort != port {
			return nil, internal("publish port: remapping of port numbers not allowed")
		}
		ports[port+"/"+proto] = true
	}
	if r.publishAll {
		for _, p := range exposed {
			ports[p] = true
		}
	}
	perProto := map[string]int{}
	for p := range ports {
		_, proto, _ := strings.Cut(p, "/")
		if perProto[proto]++; perProto[proto] > maxPublished {
			return nil, internal("publish port: only support exposing %d %s ports", maxPublished, strings.ToUpper(proto))
		}
	}
	return sorted(ports), nil
}

func parsePort(key string) (port, proto string, ok bool) {
	port, proto, ok = strings.Cut(key, "/")
	n, err := strconv.Atoi(port)
	ok = ok && err == nil && n >= 1 && n <= 65535 && strconv.Itoa(n) == port && (proto == "tcp" || proto == "udp")
	return port, proto, ok
}
