package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

// noFetch says why this agent cannot bring a task's URIs, "" if it can.
func noFetch(o *Options) string {
	_, creates := provider.As[provider.Creator](o.Provider)
	_, copies := provider.As[provider.Copier](o.Provider)
	switch {
	case o.Core.NoFetch != "":
		return o.Core.NoFetch
	case o.Fetcher == nil:
		return "this agent does not fetch URIs: put the files into the image"
	case !creates || !copies:
		return "this agent's backend cannot put files into a container before it starts: put them into the image"
	}
	return ""
}

// launch starts a task's container. One with URIs is created, gets its files
// and starts then. Whatever breaks off is repeated whole, by the same name. A
// container that was created comes back along with the error.
func (r *Runner) launch(ctx context.Context, call Call) (provider.Container, error) {
	p, owner, s := r.opt.Provider, r.opt.Core.Owner, *call.Spec
	if pods, ok := provider.As[provider.Pods](p); ok && s.HoldsPod() && !s.Custom {
		var err error
		if s, err = pods.Pod(ctx, s); err != nil {
			return provider.Container{}, err
		}
	}
	if s.HoldsExecutor() {
		s.Env = append(slices.Clip(s.Env), task.Label{Key: "MESOS_DIRECTORY", Value: provider.Sandbox})
	}
	if len(s.Fetch) == 0 {
		return p.Launch(ctx, owner, call.Name, s)
	}
	creator, _ := provider.As[provider.Creator](p)
	made, err := creator.Create(ctx, owner, call.Name, s)
	if err != nil || made.State != provider.StateCreated {
		return made, err
	}
	if err := r.fill(ctx, made.ID, s); err != nil {
		return made, err
	}
	up, err := p.Launch(ctx, owner, call.Name, s)
	switch {
	case err != nil:
		return made, err
	case up.ID != made.ID:
		lost := fmt.Errorf("the container %s was replaced while its files were fetched; the other one is stopped", call.Name)
		return up, errors.Join(lost, p.Stop(ctx, up.ID, 0))
	}
	return up, nil
}

// fill puts the task's files into its container.
func (r *Runner) fill(ctx context.Context, id string, s task.Spec) error {
	if most := r.opt.Core.LaunchTimeout; most > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, most)
		defer cancel()
	}
	files, err := r.opt.Fetcher.Fetch(ctx, s.Fetch, s.User)
	if err != nil {
		return err
	}
	defer files.Close()
	copier, _ := provider.As[provider.Copier](r.opt.Provider)
	return copier.CopyIn(ctx, id, provider.Sandbox, files)
}

// left keeps in mind a container that a launch made and did not start, so that
// it goes with the task.
func (r *row) left(k provider.Container) {
	if k.State == provider.StateCreated && r.seen <= provider.StateCreated {
		k.Raw = nil
		r.seen, r.Container = k.State, k
		r.slim()
	}
}

// unlaunchable says why a task cannot be launched here, "" if it can.
func (c *Core) unlaunchable(s *task.Spec) string {
	if len(s.Fetch) > 0 && c.cfg.NoFetch != "" {
		return fmt.Sprintf("the task has URIs (%s …), and %s", s.Fetch[0].Value, c.cfg.NoFetch)
	}
	return c.uncheckable(s)
}
