package triton

import (
	"context"
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

// inspected is what sdc-docker's inspection has (sdc-docker:
// lib/backends/sdc/utils.js, vmobjToInspect): no State.Status, no Networks.
type inspected struct {
	ID    string `json:"Id"`
	Name  string
	State struct {
		Running    bool
		OOMKilled  bool
		ExitCode   int
		Error      string
		StartedAt  time.Time
		FinishedAt time.Time
	}
	Created json.RawMessage // a time, or 0
	Config  struct {
		Labels map[string]string
	}
	NetworkSettings struct {
		IPAddress string
		Ports     map[string][]struct{ HostPort string }
	}
}

// inspect also takes names.
func (d *Datacenter) inspect(ctx context.Context, id string) (provider.Container, error) {
	_, raw, err := d.cli.ContainerInspectWithRaw(ctx, id, false)
	if err != nil {
		return provider.Container{}, notFound(err)
	}
	var in inspected
	if err := json.Unmarshal(raw, &in); err != nil {
		return provider.Container{}, err
	}
	c := in.container(raw)
	if c.State == provider.StateExited && c.ExitCode == 0 {
		return c, d.exitStatus(ctx, &c)
	}
	return c, nil
}

func (in *inspected) container(raw []byte) provider.Container {
	c := provider.Container{
		ID: in.ID, Name: strings.TrimPrefix(in.Name, "/"), Created: in.created(), Started: moment(in.State.StartedAt),
		OOMKilled: in.State.OOMKilled, Error: in.State.Error, Raw: []byte("[" + string(raw) + "]"),
	}
	if owner, key, r, ok := provider.ParseLabels(in.Config.Labels); ok {
		c.Owner, c.Key, c.Resources = owner, key, r
	}
	switch {
	case in.State.Running:
		c.State = provider.StateUp
		if in.NetworkSettings.IPAddress != "" {
			c.Addresses, c.Network = []string{in.NetworkSettings.IPAddress}, networkName
		}
	case c.Started.IsZero():
		c.State = provider.StateCreated
	default:
		c.State, c.Ended = provider.StateExited, moment(in.State.FinishedAt)
		c.ExitCode, c.HasExit = exitCode(in.State.ExitCode), true
	}
	return c
}

// networkName is what the account's own network is called in statuses: an
// inspection does not name it.
const networkName = "triton"

func (in *inspected) created() time.Time {
	var t time.Time
	if json.Unmarshal(in.Created, &t) != nil {
		return time.Time{}
	}
	return moment(t)
}

// moment: the year 1 means never.
func moment(t time.Time) time.Time {
	if t.Year() <= 1 {
		return time.Time{}
	}
	return t
}

// exitCode turns the signal that ended a container, told as a negative number,
// into what Docker tells (smartos-live: vmload).
func exitCode(code int) int {
	if code < 0 {
		return 128 - code
	}
	return code
}

// exitStatus: an inspection shows an exit status that nobody knows as 0, a
// listing tells them apart. Success that nobody has seen is none.
func (d *Datacenter) exitStatus(ctx context.Context, c *provider.Container) error {
	list, err := d.cli.ContainerList(ctx, container.ListOptions{
		All: true, Filters: filters.NewArgs(filters.Arg("name", "^"+regexp.QuoteMeta(c.Name)+"$")),
	})
	if err != nil {
		return err
	}
	for _, s := range list {
		if s.ID == c.ID {
			_, _, c.HasExit = status(s.Status)
		}
	}
	return nil
}

var exitedStatus = regexp.MustCompile(`^Exited \((-?\d+)\)`)

// status reads the text that a listing has instead of a state (sdc-docker:
// lib/backends/sdc/utils.js, _containerStatusFromVmobj).
func status(text string) (s provider.State, code int, hasExit bool) {
	switch {
	case strings.HasPrefix(text, "Up"):
		return provider.StateUp, 0, false
	case strings.HasPrefix(text, "Exited"):
		if m := exitedStatus.FindStringSubmatch(text); m != nil {
			code, _ = strconv.Atoi(m[1])
			return provider.StateExited, exitCode(code), true
		}
		return provider.StateExited, 0, false
	default: // Provisioning …, Created, or nothing
		return provider.StateCreated, 0, false
	}
}

// list is all that the owner has. A listing's own words would change all the
// time ("Up 3 minutes"), so only what they mean is kept. What is still being
// provisioned is not there yet: if that fails it vanishes without a trace, and
// whoever had been told of it would take its task for lost.
func (d *Datacenter) list(ctx context.Context, o task.Owner) ([]provider.Container, error) {
	all, err := d.cli.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(
		filters.Arg("label", provider.LabelCluster+"="+o.Cluster), filters.Arg("label", provider.LabelAgent+"="+o.Agent),
	)})
	if err != nil {
		return nil, fail("list", o.Cluster+"/"+o.Agent, err)
	}
	var out []provider.Container
	for _, s := range all {
		owner, key, r, ok := provider.ParseLabels(s.Labels)
		if !ok || owner != o || strings.HasPrefix(s.Status, "Provisioning") {
			continue
		}
		c := provider.Container{ID: s.ID, Owner: owner, Key: key, Resources: r}
		c.State, c.ExitCode, c.HasExit = status(s.Status)
		if len(s.Names) > 0 {
			c.Name = strings.TrimPrefix(s.Names[0], "/")
		}
		out = append(out, c)
	}
	return out, nil
}
