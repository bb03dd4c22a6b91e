package triton

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/client"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/provider/docker"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// Datacenter is a provider.Provider, Logger, Execer, Creator, Copier and Sizer
// on a Triton data center.
type Datacenter struct {
	o       Options
	engine  *docker.Engine // what sdc-docker does as any engine
	cli     *client.Client
	cloud   *cloud // nil: none
	catalog catalog
	hints   chan struct{}
}

// New prepares a Datacenter and calls nothing.
func New(o Options) (*Datacenter, error) {
	o = o.withDefaults()
	engine, err := docker.New(o.Docker)
	if err != nil {
		return nil, err
	}
	d := &Datacenter{o: o, engine: engine, cli: engine.Client(), hints: make(chan struct{}, 1)}
	if o.Cloud.URL != "" {
		d.cloud, err = newCloud(o.Cloud)
	}
	return d, err
}

// Close closes idle connections. Calls under way go on.
func (d *Datacenter) Close() error { return d.engine.Close() }

// Capacity is part of provider.Provider. No API tells how much a data center
// has left: it is what the operator grants, or what the demo of 2015 offered,
// and never more than the limits of the account.
func (d *Datacenter) Capacity(ctx context.Context) (provider.Capacity, error) {
	total := demo
	for _, g := range d.o.Docker.Grant {
		total = total.Add(resources.Scalars{{Name: g.Name, Amount: g.Amount - total.Get(g.Name)}})
	}
	if _, err := d.cli.Info(ctx); err != nil { // a certificate that is not valid shows here
		return provider.Capacity{}, fail("read", "capacity", err)
	}
	if d.cloud == nil {
		return provider.Capacity{Total: total}, nil
	}
	limits, err := d.cloud.limits(ctx)
	if err != nil {
		return provider.Capacity{}, err
	}
	return provider.Capacity{Total: bounded(total, limits)}, nil
}

// bounded cuts the amounts to the account's limits (sdc-cloudapi:
// docs/index.md, GetProvisioningLimits): 0 is none, quota is in GiB.
func bounded(total resources.Scalars, limits []limit) resources.Scalars {
	for _, l := range limits {
		name, unit := "", int64(1)
		switch l.By {
		case "ram":
			name = "mem"
		case "quota":
			name, unit = "disk", 1024
		}
		if most := resources.Whole(max(0, l.Value) * unit); name != "" && l.Value != 0 && most < total.Get(name) {
			total = total.Add(resources.Scalars{{Name: name, Amount: most - total.Get(name)}})
		}
	}
	return total
}

// Inspect is part of provider.Provider.
func (d *Datacenter) Inspect(ctx context.Context, id string) (provider.Container, error) {
	c, err := d.inspect(ctx, id)
	if err != nil {
		return c, fail("inspect", id, err)
	}
	return c, nil
}

// Stop is part of provider.Provider. A stop with no time at all would be one
// with ten seconds here (smartos-live: VM.js), so that is a kill.
func (d *Datacenter) Stop(ctx context.Context, id string, grace time.Duration) error {
	defer d.poke()
	if grace > 0 {
		return d.engine.Stop(ctx, id, grace)
	}
	return fail("stop", id, notFound(d.cli.ContainerKill(ctx, id, "SIGKILL")))
}

// Remove is part of provider.Provider.
func (d *Datacenter) Remove(ctx context.Context, id string) error {
	err := d.engine.Remove(ctx, id)
	d.poke()
	return err
}

// Logs is part of provider.Logger. sdc-docker tells both streams whichever are
// asked for, and takes an empty number of lines for none.
func (d *Datacenter) Logs(ctx context.Context, id string, o provider.LogOptions) (provider.LogReader, error) {
	r, err := d.engine.Logs(ctx, id, o)
	if err != nil || o.Stdout && o.Stderr {
		return r, err
	}
	return &oneStream{r, o}, nil
}

// oneStream leaves out the pieces that nobody asked for.
type oneStream struct {
	provider.LogReader
	o provider.LogOptions
}

// Next is part of provider.LogReader.
func (s *oneStream) Next() (provider.LogPiece, error) {
	for {
		p, err := s.LogReader.Next()
		if err != nil || p.Stderr && s.o.Stderr || !p.Stderr && s.o.Stdout {
			return p, err
		}
	}
}

// Exec is part of provider.Execer.
func (d *Datacenter) Exec(ctx context.Context, id string, o provider.ExecOptions) (int, error) {
	return d.engine.Exec(ctx, id, o)
}

// Stats is part of provider.Statser, as far as sdc-docker fills it in
// (docs/api/commands/stats.md).
func (d *Datacenter) Stats(ctx context.Context, id string) (provider.Stats, error) {
	return d.engine.Stats(ctx, id)
}

// CopyIn is part of provider.Copier. Whether a container that never started
// takes files depends on the platform of its server.
func (d *Datacenter) CopyIn(ctx context.Context, id, dir string, files io.Reader) error {
	err := d.engine.CopyIn(ctx, id, dir, files)
	if errdefs.IsConflict(err) || says(err, "stopped container", "NotSupported") {
		return reject("this data center puts no files into a container before its start: %s", words(errors.Unwrap(err)))
	}
	return err
}

// Watch is part of provider.Provider: sdc-docker has no events, so it lists
// again and again, sooner when something has happened here or CloudAPI's feed
// says so.
func (d *Datacenter) Watch(ctx context.Context, o task.Owner) iter.Seq2[provider.Event, error] {
	return func(yield func(provider.Event, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		if d.cloud != nil {
			go d.follow(ctx)
		}
		p := provider.Poll{List: d.list, Inspect: d.Inspect, Every: d.o.Poll, Hint: d.hints}
		for ev, err := range p.Watch(ctx, o) {
			if !yield(ev, err) {
				return
			}
		}
	}
}

// follow keeps to the feed of changes; it is a hint only, so its loss costs no
// more than the wait for the next listing.
func (d *Datacenter) follow(ctx context.Context) {
	pause := time.Second
	for ctx.Err() == nil {
		begin := time.Now()
		err := d.cloud.follow(ctx, d.poke)
		if time.Since(begin) > time.Minute {
			pause = time.Second
		}
		if ctx.Err() == nil {
			d.o.Docker.Log.Debug("CloudAPI's feed of changes broke; listing meanwhile", "error", err, "again in", pause)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, time.Minute)
	}
}

// poke ends the pause before the next listing.
func (d *Datacenter) poke() {
	select {
	case d.hints <- struct{}{}:
	default:
	}
}

var (
	_ provider.Provider = (*Datacenter)(nil)
	_ provider.Logger   = (*Datacenter)(nil)
	_ provider.Execer   = (*Datacenter)(nil)
	_ provider.Creator  = (*Datacenter)(nil)
	_ provider.Copier   = (*Datacenter)(nil)
	_ provider.Sizer    = (*Datacenter)(nil)
)

// String names the data center for logs.
func (d *Datacenter) String() string {
	return fmt.Sprintf("Triton at %s", cmp.Or(d.o.Docker.Host, d.o.Cloud.URL))
}
