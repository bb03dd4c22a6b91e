package detect

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// consul asks a Consul agent for the service that masters register, with the
// tag "leader" and passing checks.
type consul struct {
	address string
	service string
	o       Options
}

func parseConsul(rest string, o Options) (*consul, error) {
	address, service, _ := strings.Cut(rest, "/")
	if service == "" {
		service = "mesos"
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		address = net.JoinHostPort(address, "8500")
	}
	if _, _, err := splitAddress(address); err != nil || strings.Contains(service, "/") {
		return nil, fmt.Errorf("detect: consul://%s must be consul://host:8500/service, as in consul://127.0.0.1:8500/mesos", rest)
	}
	return &consul{address, service, o}, nil
}

func (c *consul) Close() error { return nil }

type consulEntry struct {
	Node    struct{ Address string }
	Service struct {
		Address string
		Port    int
	}
}

func (c *consul) find(ctx context.Context) (string, error) {
	entries, err := c.ask(ctx)
	if err != nil {
		return "", fmt.Errorf("detect: ask Consul at %s for the service %s: %w", c.address, c.service, err)
	}
	for _, e := range entries {
		host := e.Service.Address
		if host == "" {
			host = e.Node.Address
		}
		if host != "" && e.Service.Port > 0 {
			return net.JoinHostPort(host, strconv.Itoa(e.Service.Port)), nil
		}
	}
	return "", fmt.Errorf("detect: Consul at %s knows no passing service %s with the tag leader", c.address, c.service)
}

func (c *consul) ask(ctx context.Context) ([]consulEntry, error) {
	at := "http://" + c.address + "/v1/health/service/" + url.PathEscape(c.service) + "?passing=1&tag=leader"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, err
	}
	if c.o.ConsulToken != "" {
		req.Header.Set("X-Consul-Token", c.o.ConsulToken)
	}
	resp, err := c.o.HTTP.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %.200s", resp.Status, strings.TrimSpace(string(body)))
	}
	var out []consulEntry
	return out, json.Unmarshal(body, &out)
}
