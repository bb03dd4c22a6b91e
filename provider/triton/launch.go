package triton

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

// Launch is part of provider.Provider. Creating takes as long as the data
// center takes to provision the container: seconds to minutes.
func (d *Datacenter) Launch(ctx context.Context, o task.Owner, name string, s task.Spec) (provider.Container, error) {
	c, err := d.make(ctx, o, name, &s)
	if err == nil && c.State == provider.StateCreated {
		err = d.start(ctx, &c)
	}
	if err != nil {
		return provider.Container{}, fail("launch", name, err)
	}
	return c, nil
}

// Create is part of provider.Creator.
func (d *Datacenter) Create(ctx context.Context, o task.Owner, name string, s task.Spec) (provider.Container, error) {
	c, err := d.make(ctx, o, name, &s)
	if err != nil {
		return provider.Container{}, fail("create", name, err)
	}
	return c, nil
}

// make creates the container, or finds the one that has the name already: after
// a lost answer that is ours, perhaps still being provisioned.
func (d *Datacenter) make(ctx context.Context, o task.Owner, name string, s *task.Spec) (provider.Container, error) {
	r, err := d.translate(ctx, o, name, s)
	if err != nil {
		return provider.Container{}, err
	}
	for _, note := range r.notes {
		d.o.Docker.Log.Warn("a parameter of the task is ignored", "container", name, "why", note)
	}
	id, err := d.create(ctx, name, r, s)
	switch {
	case nameTaken(err):
		return d.existing(ctx, o, name)
	case err != nil:
		return provider.Container{}, err
	}
	d.poke()
	return provider.Container{ID: id, Name: name, State: provider.StateCreated, Owner: o, Key: s.Key, Resources: s.Resources}, nil
}

// create creates, and pulls the image first if the account does not have it.
func (d *Datacenter) create(ctx context.Context, name string, r *request, s *task.Spec) (string, error) {
	if s.ForcePull {
		if err := d.engine.Pull(ctx, s); err != nil {
			return "", err
		}
	}
	resp, err := d.cli.ContainerCreate(ctx, r.config, r.host, nil, nil, name)
	if noImage(err) {
		if err := d.engine.Pull(ctx, s); err != nil {
			return "", err
		}
		resp, err = d.cli.ContainerCreate(ctx, r.config, r.host, nil, nil, name)
	}
	if err != nil && !nameTaken(err) && !noRoom(err) && refused(err) {
		return "", reject("%s", words(err))
	}
	return resp.ID, err
}

// existing finds the container that has the name. The names of an account are
// shared by all kinds of instances, of which Docker shows only its own.
func (d *Datacenter) existing(ctx context.Context, o task.Owner, name string) (provider.Container, error) {
	c, err := d.inspect(ctx, name)
	switch {
	case errors.Is(err, provider.ErrNotFound):
		return c, fmt.Errorf("the name %s is taken by an instance of the account that is no container, or that is just going", name)
	case err != nil:
		return c, err
	case c.Owner != o:
		return c, reject("the account has another container called %s, which is not this agent's", name)
	}
	return c, nil
}

// start starts a container that never ran, as soon as it is provisioned: the
// call that made it may be another one that is still under way.
func (d *Datacenter) start(ctx context.Context, c *provider.Container) error {
	err := d.cli.ContainerStart(ctx, c.ID, container.StartOptions{})
	for pause := 50 * time.Millisecond; provisioning(err); pause = min(2*pause, 2*time.Second) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		err = d.cli.ContainerStart(ctx, c.ID, container.StartOptions{})
	}
	switch {
	case errdefs.IsNotFound(err):
		return errors.New("the container vanished while it was provisioned")
	case err != nil:
		return err
	}
	d.poke()
	c.State, c.Raw, c.Error = provider.StateUp, nil, ""
	return nil
}
