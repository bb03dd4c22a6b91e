package limit

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"time"

	"golang.org/x/time/rate"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

// Provider bounds the calls to the provider that it wraps. Watch passes
// through. Optional powers, such as provider.Logger, are the inner provider's:
// find them with provider.As. Those that change something (provider.Creator,
// Copier and Volumes) are bounded too.
type Provider struct {
	inner    provider.Provider
	o        Options
	launches chan struct{}
	others   chan struct{}
	rate     *rate.Limiter
	counts   [watch + 1]counter
}

// New wraps p.
func New(p provider.Provider, o Options) *Provider {
	o = o.withDefaults()
	l := rate.NewLimiter(rate.Inf, 0)
	if o.Rate > 0 {
		l = rate.NewLimiter(rate.Limit(o.Rate), o.Burst)
	}
	return &Provider{
		inner: p, o: o, rate: l,
		launches: make(chan struct{}, o.Launches), others: make(chan struct{}, o.Others),
	}
}

// Unwrap returns the provider inside.
func (p *Provider) Unwrap() provider.Provider { return p.inner }

// Capacity is part of provider.Provider.
func (p *Provider) Capacity(ctx context.Context) (c provider.Capacity, err error) {
	err = p.repeat(ctx, capacity, func(ctx context.Context) error {
		c, err = p.inner.Capacity(ctx)
		return err
	})
	return c, err
}

// Launch is part of provider.Provider.
func (p *Provider) Launch(ctx context.Context, o task.Owner, name string, s task.Spec) (c provider.Container, err error) {
	err = p.once(ctx, launch, func(ctx context.Context) error {
		c, err = p.inner.Launch(ctx, o, name, s)
		return err
	})
	return c, err
}

// Stop is part of provider.Provider.
func (p *Provider) Stop(ctx context.Context, id string, grace time.Duration) error {
	return p.repeat(ctx, stop, func(ctx context.Context) error { return p.inner.Stop(ctx, id, grace) })
}

// Remove is part of provider.Provider.
func (p *Provider) Remove(ctx context.Context, id string) error {
	return p.repeat(ctx, remove, func(ctx context.Context) error { return p.inner.Remove(ctx, id) })
}

// Inspect is part of provider.Provider.
func (p *Provider) Inspect(ctx context.Context, id string) (c provider.Container, err error) {
	err = p.repeat(ctx, inspect, func(ctx context.Context) error {
		c, err = p.inner.Inspect(ctx, id)
		return err
	})
	return c, err
}

// Watch is part of provider.Provider. It takes no lane and has no timeout.
func (p *Provider) Watch(ctx context.Context, o task.Owner) iter.Seq2[provider.Event, error] {
	return func(yield func(provider.Event, error) bool) {
		n := &p.counts[watch]
		n.begin()
		began := time.Now()
		var last error
		defer func() { n.end(time.Since(began), last) }()
		for ev, err := range p.inner.Watch(ctx, o) {
			last = err
			if !yield(ev, err) {
				return
			}
		}
	}
}

// repeat calls until the error is not temporary or the repeats are used up.
func (p *Provider) repeat(ctx context.Context, k kind, call func(context.Context) error) error {
	wait := p.o.RetryWait
	for n := 0; ; n++ {
		err := p.once(ctx, k, call)
		if n >= p.o.Retries || !temporary(err) || !sleep(ctx, wait/2+rand.N(wait)) {
			return err
		}
		p.counts[k].retried.Add(1)
		wait *= 2
	}
}

// temporary says whether a repeat may help. A call that took its whole time
// is not repeated: its caller has waited long enough.
func temporary(err error) bool {
	for _, final := range []error{
		nil, context.Canceled, context.DeadlineExceeded,
		provider.ErrNotFound, provider.ErrRejected, provider.ErrCapacity, provider.ErrDenied,
	} {
		if errors.Is(err, final) {
			return false
		}
	}
	return true
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// once makes one call in a lane, at the rate, with its timeout.
func (p *Provider) once(ctx context.Context, k kind, call func(context.Context) error) error {
	lane, timeout := p.others, p.o.CallTimeout
	if k == launch || k == create || k == copyIn {
		lane, timeout = p.launches, p.o.LaunchTimeout
	}
	n := &p.counts[k]
	if err := p.enter(ctx, n, lane); err != nil {
		return fmt.Errorf("%s: waiting for a turn: %w", k, err)
	}
	defer func() { <-lane }()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	n.begin()
	began := time.Now()
	err := call(ctx)
	n.end(time.Since(began), err)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s: no answer within %v: %w (%w)", k, timeout, context.DeadlineExceeded, err)
	}
	return err
}

// enter waits for a lane and then for the rate.
func (p *Provider) enter(ctx context.Context, n *counter, lane chan struct{}) error {
	n.waiting.Add(1)
	defer n.waiting.Add(-1)
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case lane <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := p.rate.Wait(ctx); err != nil {
		<-lane
		return errors.Join(ctx.Err(), err)
	}
	return nil
}
