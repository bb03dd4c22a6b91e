package consul

import (
	"net"
	"strconv"

	"github.com/mesopool/mesopool/task"
)

// SelfID is the id under which a role puts itself into its Registrar.
const SelfID = "self"

// Role is how a role of the cluster wants to be seen in the catalog.
type Role struct {
	Name    string   // the service: "mesos", "mesos-agent", "marathon"
	Tags    []string // for a master "master" and, while it leads, "leader"
	Address string   // where clients, and Consul's check, reach it
	Port    uint16
	Path    string // of the check: "/health", "/ping"
	Version string // the program's version; may be empty
}

// Self is the service of a role itself.
func Self(r Role, owner task.Owner) []Service {
	meta := map[string]string{"cluster": owner.Cluster}
	if r.Version != "" {
		meta["version"] = clip(r.Version, maxMetaValue)
	}
	at := net.JoinHostPort(r.Address, strconv.Itoa(int(r.Port)))
	return []Service{{
		ID:      "mesopool:" + owner.Cluster + ":" + r.Name + ":" + at,
		Name:    r.Name,
		Tags:    r.Tags,
		Address: r.Address,
		Port:    r.Port,
		Meta:    meta,
		Check:   &Check{Name: "GET " + r.Path, HTTP: "http://" + at + r.Path},
	}}
}
