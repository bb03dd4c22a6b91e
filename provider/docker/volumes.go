package docker

import (
	"context"

	"github.com/containerd/errdefs"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

// RemoveVolume is part of provider.Volumes.
func (e *Engine) RemoveVolume(ctx context.Context, o task.Owner, name string) error {
	err := e.ready(ctx)
	if err == nil {
		err = e.removeVolume(ctx, o, name)
	}
	return e.fail("remove the volume", name, err)
}

func (e *Engine) removeVolume(ctx context.Context, o task.Owner, name string) error {
	v, err := e.cli.VolumeInspect(ctx, name)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for label, want := range provider.OwnerLabels(o) {
		if got, ok := v.Labels[label]; !ok || got != want {
			return reject("the volume %s is not this agent's (its label %s is %q); it stays", name, label, got)
		}
	}
	if err := e.cli.VolumeRemove(ctx, name, false); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	return nil
}

var _ provider.Volumes = (*Engine)(nil)
