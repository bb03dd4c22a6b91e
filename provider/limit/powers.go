package limit

import (
	"context"
	"io"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

// Decorate bounds the calls of the powers that change something, see
// provider.As.
func (p *Provider) Decorate(power any) any { return bounded{p, power} }

// bounded is a power of the inner provider whose calls take their turn.
type bounded struct {
	p     *Provider
	power any
}

// Create is part of provider.Creator.
func (b bounded) Create(ctx context.Context, o task.Owner, name string, s task.Spec) (c provider.Container, err error) {
	err = b.p.once(ctx, create, func(ctx context.Context) error {
		c, err = b.power.(provider.Creator).Create(ctx, o, name, s)
		return err
	})
	return c, err
}

// CopyIn is part of provider.Copier. It is not repeated: the stream is used up.
func (b bounded) CopyIn(ctx context.Context, id, dir string, tar io.Reader) error {
	return b.p.once(ctx, copyIn, func(ctx context.Context) error {
		return b.power.(provider.Copier).CopyIn(ctx, id, dir, tar)
	})
}

// RemoveVolume is part of provider.Volumes.
func (b bounded) RemoveVolume(ctx context.Context, o task.Owner, name string) error {
	return b.p.repeat(ctx, removeVolume, func(ctx context.Context) error {
		return b.power.(provider.Volumes).RemoveVolume(ctx, o, name)
	})
}
