// Package catalog asks Consul where the instances of a service are. The sample
// programs use it as any program would that knows nothing of the cluster it
// runs in: over HTTP.
package catalog

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"time"
)

// Consul is the address of a Consul agent, from the variable CONSUL.
func Consul() string {
	if address := os.Getenv("CONSUL"); address != "" {
		return address
	}
	return "consul:8500"
}

// entry is what is needed of Consul's answer. The tagged address "lan" is the
// one inside the cluster's network where that is not the address for people.
type entry struct {
	Service struct {
		Address         string
		Port            int
		TaggedAddresses map[string]struct {
			Address string
			Port    int
		}
	}
}

// Instances returns host:port of a service's instances that carry the tag,
// sorted; only those whose checks pass if passing is set.
func Instances(ctx context.Context, consul, service, tag string, passing bool) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	query := url.Values{"tag": {tag}}
	if passing {
		query.Set("passing", "1")
	}
	address := "http://" + consul + "/v1/health/service/" + url.PathEscape(service) + "?" + query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("consul at %s answers %s", consul, res.Status)
	}
	var entries []entry
	if err := json.NewDecoder(res.Body).Decode(&entries); err != nil {
		return nil, fmt.Errorf("consul at %s: %w", consul, err)
	}
	return addresses(entries), nil
}

func addresses(entries []entry) []string {
	var out []string
	for _, e := range entries {
		host, port := e.Service.Address, e.Service.Port
		if lan, ok := e.Service.TaggedAddresses["lan"]; ok {
			host, port = lan.Address, lan.Port
		}
		out = append(out, net.JoinHostPort(host, strconv.Itoa(port)))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// OwnIP is this container's first address that is not the loopback.
func OwnIP() (string, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return "", err
	}
	for _, a := range all {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil && !ip.IP.IsLoopback() {
			return ip.IP.String(), nil
		}
	}
	return "", fmt.Errorf("no interface has an IPv4 address besides the loopback")
}
