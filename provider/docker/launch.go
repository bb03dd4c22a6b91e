package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

// Launch is part of provider.Provider: create and start, and nothing more
// where all goes well. What it returns has no address yet; Watch tells it.
func (e *Engine) Launch(ctx context.Context, o task.Owner, name string, s task.Spec) (provider.Container, error) {
	c, req, err := e.make(ctx, o, name, &s)
	if err == nil && c.State == provider.StateCreated {
		err = e.start(ctx, c.ID, req)
		c.State, c.Raw, c.Error = provider.StateUp, nil, ""
	}
	if err != nil {
		return provider.Container{}, e.fail("launch", name, err)
	}
	return c, nil
}

// Create is part of provider.Creator.
func (e *Engine) Create(ctx context.Context, o task.Owner, name string, s task.Spec) (provider.Container, error) {
	c, _, err := e.make(ctx, o, name, &s)
	if err != nil {
		return provider.Container{}, e.fail("create", name, err)
	}
	return c, nil
}

// Translation is what a task says in the engine's words.
type Translation struct {
	Config *container.Config
	Host   *container.HostConfig
	Net    *network.NetworkingConfig // nil: the default network
	Links  []string
	Notes  []string // what is ignored, and why
}

// Translate says what Launch would ask for. What would be lost silently is
// refused.
func (e *Engine) Translate(o task.Owner, name string, s *task.Spec) (Translation, error) {
	r, err := e.request(o, name, s)
	if err != nil {
		return Translation{}, err
	}
	return Translation{Config: r.config, Host: r.host, Net: r.net, Links: r.links, Notes: r.notes}, nil
}

// Pull fetches the image of a task.
func (e *Engine) Pull(ctx context.Context, s *task.Spec) error {
	if err := e.ready(ctx); err != nil {
		return err
	}
	return e.pull(ctx, wanted{cmp.Or(s.Image, e.o.DefaultImage), string(s.PullConfig)})
}

// Client is the engine's own client, for backends that are almost an engine.
func (e *Engine) Client() *client.Client { return e.cli }

// make creates the container, or finds the one that has the name already.
func (e *Engine) make(ctx context.Context, o task.Owner, name string, s *task.Spec) (c provider.Container, req *request, err error) {
	if err := e.ready(ctx); err != nil {
		return c, nil, err
	}
	if req, err = e.request(o, name, s); err != nil {
		return c, nil, err
	}
	if err := e.prepare(ctx, name, req); err != nil {
		return c, nil, err
	}
	id, err := e.create(ctx, name, req, s.ForcePull)
	if nameTaken(err) {
		c, err = e.existing(ctx, o, name)
		return c, req, err
	}
	return provider.Container{
		ID: id, Name: name, State: provider.StateCreated, Owner: o, Key: s.Key, Resources: s.Resources,
	}, req, err
}

// prepare sees to the network and tells what was ignored.
func (e *Engine) prepare(ctx context.Context, name string, req *request) error {
	for _, note := range req.notes {
		e.o.Log.Warn("a parameter of the task is ignored", "container", name, "why", note)
	}
	if req.cluster {
		if err := e.ensureNetwork(ctx); err != nil {
			return err
		}
	}
	for _, l := range req.links {
		if err := e.link(ctx, name, req, l); err != nil {
			return err
		}
	}
	return nil
}

// create creates the container, pulling its image if need be.
func (e *Engine) create(ctx context.Context, name string, req *request, force bool) (string, error) {
	var pulled error
	if force {
		if pulled = e.pull(ctx, req.wanted()); final(pulled) {
			return "", pulled
		}
	}
	id, err := e.tryCreate(ctx, name, req)
	switch {
	case missingImage(err) && pulled != nil:
		return "", pulled
	case missingImage(err):
		if err := e.pull(ctx, req.wanted()); err != nil {
			return "", err
		}
		id, err = e.tryCreate(ctx, name, req)
	case err == nil && pulled != nil:
		e.o.Log.Warn("the image could not be pulled; the engine's copy runs, which may be old",
			"container", name, "image", req.config.Image, "why", pulled)
	}
	switch {
	case err == nil || nameTaken(err):
	case contains(err, "reference format", "repository name"):
		return "", reject("%q is no image name: %s", req.config.Image, words(err))
	case finalAtCreate(err):
		return "", reject("%s", words(err))
	}
	return id, err
}

// final says whether a failed pull, or its context's end, ends the launch.
func final(err error) bool {
	return errors.Is(err, provider.ErrRejected) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// tryCreate creates, once more if the cluster's network was gone.
func (e *Engine) tryCreate(ctx context.Context, name string, req *request) (string, error) {
	resp, err := e.cli.ContainerCreate(ctx, req.config, req.host, req.net, nil, name)
	if missingNetwork(err) && req.cluster {
		if err := e.renewNetwork(ctx); err != nil {
			return "", err
		}
		resp, err = e.cli.ContainerCreate(ctx, req.config, req.host, req.net, nil, name)
	}
	return resp.ID, err
}

// start starts a container of ours that never ran. If the engine refuses it
// for good, the container is removed again.
func (e *Engine) start(ctx context.Context, id string, req *request) error {
	err := e.cli.ContainerStart(ctx, id, container.StartOptions{})
	if missingNetwork(err) && req.cluster {
		if err := e.renewNetwork(ctx); err != nil {
			return err
		}
		err = e.cli.ContainerStart(ctx, id, container.StartOptions{})
	}
	switch {
	case err == nil:
		return nil
	case finalAtStart(err) || missingNetwork(err):
		return errors.Join(reject("%s", words(err)), e.remove(ctx, id))
	}
	return err
}

// existing is the container that has the name already, if it is the owner's.
func (e *Engine) existing(ctx context.Context, o task.Owner, name string) (provider.Container, error) {
	c, err := e.inspectNamed(ctx, name)
	if err == nil && c.Owner != o {
		return c, reject("the name %s is taken by somebody else's container %.12s; remove or rename that one", name, c.ID)
	}
	return c, err
}

// inspectNamed inspects a container that another call may be creating: its
// name is taken a moment before it can be seen.
func (e *Engine) inspectNamed(ctx context.Context, name string) (provider.Container, error) {
	for wait := 20 * time.Millisecond; ; wait *= 2 {
		c, err := e.inspect(ctx, name)
		if !errors.Is(err, provider.ErrNotFound) {
			return c, err
		}
		if wait > 500*time.Millisecond {
			return c, fmt.Errorf("the name %s was taken and is free again", name)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return c, ctx.Err()
		}
	}
}

// link keeps a link to a container of the cluster's network; others cannot be
// reached from there, and are noted.
func (e *Engine) link(ctx context.Context, name string, req *request, l string) error {
	target, err := e.cli.ContainerInspect(ctx, linkTarget(l))
	if err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	own := e.clusterNetwork()
	switch {
	case !req.cluster || target.NetworkSettings == nil || target.NetworkSettings.Networks[own] == nil:
		e.o.Log.Warn("a link of the task is ignored: the two are not both on the cluster's network",
			"container", name, "link", l, "network", own)
	case req.net == nil:
		req.host.Links = append(req.host.Links, l)
	default:
		endpoint := req.net.EndpointsConfig[own]
		endpoint.Links = append(endpoint.Links, l)
	}
	return nil
}

// ensureNetwork makes the cluster's network exist.
func (e *Engine) ensureNetwork(ctx context.Context) error {
	if e.o.Network == "" {
		return nil
	}
	return e.network.do(ctx, e.makeNetwork)
}

func (e *Engine) renewNetwork(ctx context.Context) error {
	e.network.again()
	return e.ensureNetwork(ctx)
}

func (e *Engine) makeNetwork(ctx context.Context) error {
	_, err := e.cli.NetworkInspect(ctx, e.o.Network, network.InspectOptions{})
	if !errdefs.IsNotFound(err) {
		return err
	}
	_, err = e.cli.NetworkCreate(ctx, e.o.Network, network.CreateOptions{
		Driver: "bridge", Labels: map[string]string{provider.LabelCluster: e.o.Cluster},
	})
	if err != nil && !contains(err, "already exists") {
		return fmt.Errorf("create the network %s: %w", e.o.Network, err)
	}
	return nil
}
