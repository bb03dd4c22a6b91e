package triton

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/go-connections/nat"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/provider/docker"
	"github.com/mesopool/mesopool/task"
)

func reject(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{provider.ErrRejected}, args...)...)
}

// request is what sdc-docker is asked for.
type request struct {
	config *container.Config
	host   *container.HostConfig
	notes  []string
}

// translate says a task in the words of sdc-docker.
func (d *Datacenter) translate(ctx context.Context, o task.Owner, name string, s *task.Spec) (*request, error) {
	t, err := d.engine.Translate(o, name, s)
	if err != nil {
		return nil, err
	}
	if err := ignored(&t); err != nil {
		return nil, err
	}
	r := &request{config: t.Config, host: t.Host, notes: t.Notes}
	r.host.Links = t.Links
	steps := []func(*task.Spec) error{r.network, d.storage(r), d.ports(r), d.serviceName(r)}
	for _, step := range steps {
		if err := step(s); err != nil {
			return nil, err
		}
	}
	p, err := d.choose(ctx, s)
	if err != nil {
		return nil, err
	}
	r.sized(p)
	return r, nil
}

// ignored refuses what sdc-docker takes and forgets (sdc-docker:
// lib/backends/sdc/containers.js reads none of it).
func ignored(t *docker.Translation) error {
	h, c := t.Host, t.Config
	for _, x := range []struct {
		flag string
		set  bool
	}{
		{"privileged", h.Privileged},
		{"cap-add", len(h.CapAdd) > 0},
		{"device", len(h.Devices) > 0},
		{"security-opt", len(h.SecurityOpt) > 0},
		{"cgroup-parent", h.CgroupParent != ""},
		{"ipc", h.IpcMode != "" && h.IpcMode != "private"},
		{"pid", h.PidMode != ""},
		{"uts", h.UTSMode != ""},
		{"userns", h.UsernsMode != ""},
		{"runtime", h.Runtime != ""},
		{"shm-size", h.ShmSize != 0},
		{"tmpfs", len(h.Tmpfs) > 0},
		{"sysctl", len(h.Sysctls) > 0},
		{"ulimit", len(h.Ulimits) > 0},
		{"group-add", len(h.GroupAdd) > 0},
		{"dns-opt", len(h.DNSOptions) > 0},
		{"stop-signal", c.StopSignal != ""},
		{"health-cmd", c.Healthcheck != nil},
		{"read-only", h.ReadonlyRootfs},
	} {
		if x.set {
			return reject("Triton would ignore the parameter %s without a word: leave it out", x.flag)
		}
	}
	return nil
}

// network: a container is on the account's own network or on one that is named;
// addresses and aliases cannot be chosen.
func (r *request) network(s *task.Spec) error {
	if r.host.NetworkMode == "none" {
		return reject("Triton gives every container a network; NONE is not offered")
	}
	for _, alias := range s.Network.Aliases {
		r.notes = append(r.notes, "the alias "+alias+": Triton's name service lists tasks under their service name")
	}
	return nil
}

// storage: volumes are NFS volumes by name, where the operator has turned them
// on (sdc-docker: docs/api/features/volumes.md).
func (d *Datacenter) storage(r *request) func(*task.Spec) error {
	return func(*task.Spec) error {
		for _, m := range r.host.Mounts {
			if !d.o.Volumes {
				return reject("the volume %s: this Triton has no volumes that outlive a container (its operator has not turned them on)", cmp.Or(m.Source, m.Target))
			}
			if m.Type != mount.TypeVolume || m.Source == "" {
				return reject("the volume at %s needs a name on Triton", m.Target)
			}
			bind := m.Source + ":" + m.Target
			if m.ReadOnly {
				bind += ":ro"
			}
			r.host.Binds = append(r.host.Binds, bind)
		}
		r.host.Mounts = nil
		return nil
	}
}

// maxPublished is how many ports of a protocol one container can open
// (sdc-docker: test/integration/api-invalid.test.js).
const maxPublished = 128

// ports opens each at its own number: Triton gives the container a public
// address of its own and remaps nothing.
func (d *Datacenter) ports(r *request) func(*task.Spec) error {
	return func(*task.Spec) error {
		exposed := r.config.ExposedPorts
		r.config.ExposedPorts, r.host.PortBindings = nil, nil
		if !d.o.Publish {
			return nil
		}
		count := map[string]int{}
		r.host.PortBindings = nat.PortMap{}
		for p := range exposed {
			if count[p.Proto()]++; count[p.Proto()] > maxPublished {
				return reject("Triton opens at most %d ports of a protocol", maxPublished)
			}
			r.host.PortBindings[p] = []nat.PortBinding{{HostPort: p.Port()}}
		}
		return nil
	}
}

const servicesLabel = "triton.cns.services"

// serviceName lists the task in Triton's name service: as what its discovery
// information says, or under the first part of its own name.
func (d *Datacenter) serviceName(r *request) func(*task.Spec) error {
	return func(s *task.Spec) error {
		if _, own := r.config.Labels[servicesLabel]; own || d.o.NoCNS {
			return nil
		}
		name := s.Name
		if s.Discovery != nil && s.Discovery.Name != "" {
			name = s.Discovery.Name
		}
		if name = cnsName(name); name != "" {
			r.config.Labels[servicesLabel] = name
		}
		return nil
	}
}

var notCNS = regexp.MustCompile(`[^a-z0-9]+`)

// cnsName is a name of Triton's name service: lower case, a letter first, 63
// characters at most (triton-cns: docs/metadata.md). "" is none.
func cnsName(name string) string {
	name = notCNS.ReplaceAllString(strings.ToLower(name), "-")
	name = strings.TrimLeft(name, "-0123456789")
	return strings.TrimRight(name[:min(len(name), 63)], "-")
}

// sized asks for a package; without one, sdc-docker chooses by memory. A package
// has everything else.
func (r *request) sized(p *pack) {
	if p != nil {
		r.config.Labels[packageLabel] = p.name
	}
	memory := r.host.Memory
	r.host.Resources = container.Resources{Memory: memory}
	r.config.Env = slices.Clone(r.config.Env)
}
