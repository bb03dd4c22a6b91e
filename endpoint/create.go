package endpoint

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/mesopool/mesopool/endpoint/backend"
	"github.com/mesopool/mesopool/internal/uuid"
)

func sorted(set map[string]bool) []string { return slices.Sorted(maps.Keys(set)) }

// newID makes a container's ID: the instance's UUID without dashes, then as
// many random digits (sdc-docker: lib/backends/sdc/containers.js).
func newID() string {
	var tail [16]byte
	rand.Read(tail[:])
	return strings.ReplaceAll(uuid.New().String(), "-", "") + hex.EncodeToString(tail[:])
}

// Create makes a container of a create call's body and returns its ID. It
// returns when the container is provisioned.
func (c *Cloud) Create(ctx context.Context, a *Account, name string, body []byte) (string, error) {
	r, err := decodeCreate(body)
	if err != nil {
		return "", err
	}
	name = strings.TrimPrefix(name, "/")
	if c.cfg.Strict {
		if err := r.strict(name); err != nil {
			return "", err
		}
	}
	s, err := c.specify(ctx, a, name, r)
	if err != nil {
		return "", err
	}
	return s.ID, c.provision(ctx, a, s)
}

// specify turns a request into what the backend is to make.
func (c *Cloud) specify(ctx context.Context, a *Account, name string, r *request) (*backend.Spec, error) {
	s := &backend.Spec{ID: newID(), Account: a.Key(), Name: name, Created: time.Now()}
	if s.Name == "" {
		s.Name = s.ID[:shortID]
	}
	if !nameForm.MatchString(s.Name) || len(s.Name) > MaxName {
		return nil, invalidAlias("(Invalid): must match " + nameForm.String())
	}
	near, err := r.takeAffinities()
	if err != nil {
		return nil, err
	}
	i, err := c.Image(ctx, a, r.image)
	if err != nil {
		return nil, err
	}
	steps := []func() error{
		func() error { return runOf(s, r, i) },
		func() error { return identityOf(s, r) },
		func() error { return c.size(a, r, s, i) },
		func() error { return c.checkLog(r) },
		func() (err error) { s.Published, err = r.publish(i.Exposed); return },
		func() error { return c.attachTo(ctx, a, r, s) },
		func() error { return storageOf(s, r, i) },
		func() error { return c.relate(a, r, s) },
		func() error { return c.place(a, near) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, err
		}
	}
	s.LogDriver, s.LogOptions = r.logDriver, r.logOptions
	s.NetAliases = append([]string{hostLabel(s.Name)}, c.dnsNames(a, s, s.Name, true)...)
	s.DNS, s.ExtraHosts = r.dns, r.extraHosts
	s.DNSSearch = append(slices.Clone(r.dnsSearch), "inst."+a.UUID+"."+c.cfg.Datacenter+"."+c.cfg.DNSSuffix)
	return s, nil
}

type spec = backend.Spec

// runOf decides what is run: an entrypoint of the caller's hides the image's
// command.
func runOf(s *spec, r *request, i backend.Image) error {
	s.Image, s.ImageName = i.ID, r.image
	s.Cmd, s.Entrypoint = r.cmd, r.entrypoint
	if len(s.Entrypoint) == 0 {
		s.Entrypoint = i.Entrypoint
		if len(s.Cmd) == 0 {
			s.Cmd = i.Cmd
		}
	}
	if len(s.Cmd) == 0 && len(s.Entrypoint) == 0 {
		return internal("No command specified")
	}
	s.Env = append(slices.Clone(i.Env), r.env...)
	s.User, s.WorkDir = r.user, r.workDir
	if s.User == "" {
		s.User = i.User
	}
	if s.WorkDir == "" {
		s.WorkDir = i.WorkDir
	}
	s.TTY, s.OpenStdin, s.StdinOnce, s.Exposed = r.tty, r.openStdin, r.stdinOnce, i.Exposed
	switch r.restartName {
	case "always", "on-failure": // others are silently dropped
		s.Restart = backend.Restart{Name: r.restartName, Max: max(r.restartMax, 0)}
	}
	return nil
}

// hostForm is that of host names (sdc-vmapi: lib/common/validation.js).
var hostForm = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)*$`)

func identityOf(s *spec, r *request) error {
	s.Hostname, s.Domain = r.hostname, r.domain
	if s.Hostname == "" {
		s.Hostname = s.ID[:shortID]
	}
	if len(s.Hostname) > 64 || !hostForm.MatchString(s.Hostname) {
		return conflict("ValidationFailed", `problem creating container: Invalid VM parameters: "hostname" (Invalid): %s`, s.Hostname)
	}
	if len(s.Domain) > 255 {
		return conflict("ValidationFailed", `problem creating container: Invalid VM parameters: "dns_domain" (Invalid): too long`)
	}
	return nil
}

// size chooses the package and keeps the labels.
func (c *Cloud) size(a *Account, r *request, s *spec, i backend.Image) (err error) {
	if s.Labels, s.Tags, err = splitLabels(i.Labels, r.labels); err != nil {
		return err
	}
	label, labelled := r.labels[PackageLabel]
	if !labelled {
		label, labelled = i.Labels[PackageLabel]
	}
	p, err := c.choosePackage(a, label, labelled, r.memory)
	if err != nil {
		return err
	}
	s.Package, s.MemoryMiB, s.DiskMiB, s.CPUCap, s.CPUShares = p.Name, p.MemoryMiB, p.DiskMiB, p.CPUCap, p.CPUShares
	return nil
}

// volumeForm is that of volumes' names.
var volumeForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// The bounds of volumes (sdc-docker: lib/backends/sdc/containers.js).
const (
	maxVolumes     = 8
	maxVolumesFrom = 2
)

func storageOf(s *spec, r *request, i backend.Image) error {
	for _, b := range r.binds {
		if err := checkBind(b); err != nil {
			return err
		}
	}
	if len(r.binds) > 0 {
		return internal("host volumes are not supported")
	}
	all := map[string]bool{}
	for _, v := range slices.Concat(i.Volumes, r.volumes) {
		if !strings.HasPrefix(v, "/") {
			return internal("AssertionError: volume path %q must be absolute", v)
		}
		all[path.Clean(v)] = true
	}
	if len(all) > maxVolumes {
		return internal("too many data volumes: max %d", maxVolumes)
	}
	s.Volumes = sorted(all)
	return nil
}

// checkBind accepts a volume's name, a path, and a flag; a path of a host is
// never accepted.
func checkBind(text string) error {
	parts := strings.Split(text, ":")
	bad := len(parts) < 2 || len(parts) > 3 || !volumeForm.MatchString(parts[0]) || !strings.HasPrefix(parts[1], "/") || path.Clean(parts[1]) == "/"
	if bad || len(parts) == 3 && parts[2] != "ro" && parts[2] != "rw" {
		return validation("Invalid binds: %s", text)
	}
	return nil
}

// relate finds the containers that this one wants of: all must be the account's.
func (c *Cloud) relate(a *Account, r *request, s *spec) error {
	if len(r.volumesFrom) > maxVolumesFrom {
		return internal("too many volumes-from: max %d", maxVolumesFrom)
	}
	for _, text := range r.volumesFrom {
		name, mode, _ := strings.Cut(text, ":")
		if mode != "" && mode != "ro" && mode != "rw" {
			return validation("Invalid volumes-from: %s", text)
		}
		got, err := c.Container(a, name)
		if err != nil {
			return err
		}
		s.VolumesFrom = append(s.VolumesFrom, backend.Share{ID: got.ID, ReadOnly: mode == "ro"})
	}
	for _, text := range r.links {
		name, alias, named := strings.Cut(text, ":")
		if !named {
			alias = path.Base(name)
		}
		if !nameForm.MatchString(alias) {
			return validation("Invalid links: %s", text)
		}
		got, err := c.Container(a, name)
		if err != nil {
			return err
		}
		s.Links = append(s.Links, backend.Link{ID: got.ID, Name: got.Name, Alias: alias})
		s.Env = append(s.Env, linkEnv(s, got, alias)...)
	}
	return nil
}

// linkEnv are the variables of a link, as Docker's legacy links have them.
func linkEnv(s *spec, to *Container, alias string) []string {
	prefix := strings.ToUpper(strings.ReplaceAll(alias, "-", "_"))
	env := []string{prefix + "_NAME=/" + s.Name + "/" + alias}
	if len(to.NICs) == 0 {
		return env
	}
	addr := to.NICs[len(to.NICs)-1].IP.String()
	for n, p := range to.Exposed {
		port, proto, _ := strings.Cut(p, "/")
		url := proto + "://" + addr + ":" + port
		if n == 0 {
			env = append(env, prefix+"_PORT="+url)
		}
		at := prefix + "_PORT_" + port + "_" + strings.ToUpper(proto)
		env = append(env, at+"="+url, at+"_ADDR="+addr, at+"_PORT="+port, at+"_PROTO="+proto)
	}
	return env
}
