package consul

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"github.com/hashicorp/consul/api"
)

// Service is one entry of the catalog. Entries of one name are instances of
// one service.
type Service struct {
	ID      string // unique in the Consul agent
	Name    string // DNS-safe
	Tags    []string
	Address string // where clients reach it
	Port    uint16 // 0: a service without a port

	// Inner is the address in the cluster's own network where that differs from
	// Address, because the backend publishes ports elsewhere. It becomes the
	// tagged address "lan"; Address is then "wan" too.
	Inner Endpoint

	Meta  map[string]string
	Check *Check // nil: no check, which Consul counts as passing
}

// Endpoint is an address with a port.
type Endpoint struct {
	Address string
	Port    uint16
}

// Check is a check that Consul makes: by HTTP if that is set, else by TCP.
type Check struct {
	Name     string
	HTTP     string // URL; any certificate is accepted
	TCP      string // host:port
	Interval time.Duration
	Timeout  time.Duration
}

// The bounds that Consul sets for a service's metadata, and the time after
// which it forgets a service that nobody keeps and that does not answer.
const (
	maxMetaValue    = 512
	forgetCritical  = 30 * time.Minute
	metaOwner       = "owner"
	metaDigest      = "digest"
	defaultInterval = 10 * time.Second
	defaultTimeout  = 5 * time.Second
)

// registration turns a service into Consul's own form, marked with its owner
// and with a digest of itself: checks cannot be read back, so the digest is
// what tells whether Consul holds the same.
func registration(s Service, mark string) *api.AgentServiceRegistration {
	reg := &api.AgentServiceRegistration{
		ID:      s.ID,
		Name:    s.Name,
		Tags:    s.Tags,
		Address: s.Address,
		Port:    int(s.Port),
		Meta:    make(map[string]string, len(s.Meta)+2),
	}
	maps.Copy(reg.Meta, s.Meta)
	reg.Meta[metaOwner] = mark
	if s.Inner != (Endpoint{}) {
		reg.TaggedAddresses = map[string]api.ServiceAddress{
			"lan": {Address: s.Inner.Address, Port: int(s.Inner.Port)},
			"wan": {Address: s.Address, Port: int(s.Port)},
		}
	}
	if s.Check != nil {
		reg.Checks = api.AgentServiceChecks{s.Check.agentCheck()}
	}
	reg.Meta[metaDigest] = digest(reg)
	return reg
}

func (c *Check) agentCheck() *api.AgentServiceCheck {
	a := &api.AgentServiceCheck{
		Name:                           c.Name,
		Interval:                       orDefault(c.Interval, defaultInterval).String(),
		Timeout:                        orDefault(c.Timeout, defaultTimeout).String(),
		DeregisterCriticalServiceAfter: forgetCritical.String(),
	}
	if c.HTTP != "" {
		a.HTTP, a.TLSSkipVerify = c.HTTP, true
	} else {
		a.TCP = c.TCP
	}
	return a
}

func orDefault(d, fallback time.Duration) time.Duration {
	if d <= 0 {
		return fallback
	}
	return d
}

// digest is a short hash of everything that will be sent.
func digest(reg *api.AgentServiceRegistration) string {
	text, err := json.Marshal(reg)
	if err != nil { // only strings and numbers are in it
		panic(fmt.Sprintf("consul: a registration does not marshal: %v", err))
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}
