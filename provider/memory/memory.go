package memory

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"path"
	"sync"
	"time"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

// Provider drives a Core with the real clock. It is a provider.Provider, a
// provider.Logger, Execer, Creator, Copier, Volumes and Pods. It has no goroutine of its own; a
// timer wakes it when containers start or end by themselves.
type Provider struct {
	mu    sync.Mutex
	core  *Core
	timer *time.Timer
	armed time.Time // when the timer fires; zero when it is not set
}

// New returns an empty data center.
func New(cfg Config) *Provider { return &Provider{core: NewCore(cfg)} }

// Do calls f with the core and the time, for tests that want what Provider
// does not offer, such as Kill. f must not keep the core.
func (p *Provider) Do(f func(c *Core, now time.Time)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(p.core, time.Now())
	p.arm()
}

// arm sets the timer to the core's next moment. The caller holds the lock.
func (p *Provider) arm() {
	next := p.core.Next()
	if next.IsZero() || !p.armed.IsZero() && !next.Before(p.armed) {
		return
	}
	p.armed = next
	wait := max(time.Until(next), 0)
	if p.timer == nil {
		p.timer = time.AfterFunc(wait, p.fire)
		return
	}
	p.timer.Reset(wait)
}

func (p *Provider) fire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed = time.Time{}
	p.core.Advance(time.Now())
	p.arm()
}

// ask makes one call on the core and waits for its answer to be heard.
func (p *Provider) ask(ctx context.Context, op, what string, call func(c *Core, now time.Time) Answer) (provider.Container, error) {
	if err := ctx.Err(); err != nil {
		return provider.Container{}, fmt.Errorf("memory: %s %s: %w", op, what, err)
	}
	var a Answer
	p.Do(func(c *Core, now time.Time) { a = call(c, now) })
	err := await(ctx, a)
	var got provider.Container
	if err == nil {
		p.Do(func(c *Core, now time.Time) {
			c.Advance(now)
			got, err = c.Result(a)
		})
	}
	if err != nil {
		return provider.Container{}, fmt.Errorf("memory: %s %s: %w", op, what, err)
	}
	return got, nil
}

// await waits until the answer is heard.
func await(ctx context.Context, a Answer) error {
	if a.Never {
		<-ctx.Done()
		return ctx.Err()
	}
	wait := time.Until(a.At)
	if wait <= 0 {
		return nil
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Capacity is part of provider.Provider.
func (p *Provider) Capacity(ctx context.Context) (provider.Capacity, error) {
	_, err := p.ask(ctx, "read", "capacity", (*Core).Capacity)
	if err != nil {
		return provider.Capacity{}, err
	}
	return provider.Capacity{Total: p.core.Total()}, nil
}

// Launch is part of provider.Provider.
func (p *Provider) Launch(ctx context.Context, o task.Owner, name string, s task.Spec) (provider.Container, error) {
	return p.ask(ctx, "launch", name, func(c *Core, now time.Time) Answer { return c.Launch(now, o, name, s) })
}

// Create is part of provider.Creator.
func (p *Provider) Create(ctx context.Context, o task.Owner, name string, s task.Spec) (provider.Container, error) {
	return p.ask(ctx, "create", name, func(c *Core, now time.Time) Answer { return c.Create(now, o, name, s) })
}

// maxCopied is how much one CopyIn may bring: it is kept in memory.
const maxCopied = 64 << 20

// CopyIn is part of provider.Copier. Only plain files are kept.
func (p *Provider) CopyIn(ctx context.Context, id, dir string, stream io.Reader) error {
	files := map[string][]byte{}
	for r := tar.NewReader(io.LimitReader(stream, maxCopied)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		var data []byte
		if err == nil && h.Typeflag == tar.TypeReg {
			data, err = io.ReadAll(r)
			files[path.Join(dir, path.Join("/", h.Name))] = data
		}
		if err != nil {
			return fmt.Errorf("memory: copy into %s: %w", id, err)
		}
	}
	_, err := p.ask(ctx, "copy into", id, func(c *Core, now time.Time) Answer { return c.CopyIn(now, id, files) })
	return err
}

// RemoveVolume is part of provider.Volumes.
func (p *Provider) RemoveVolume(ctx context.Context, o task.Owner, name string) error {
	_, err := p.ask(ctx, "remove the volume", name, func(c *Core, now time.Time) Answer { return c.RemoveVolume(now, o, name) })
	return err
}

// Pod is part of provider.Pods.
func (p *Provider) Pod(_ context.Context, s task.Spec) (task.Spec, error) {
	s.Image, s.Command = "pod", task.Command{Value: "sleep", Args: []string{"infinity"}}
	return s, nil
}

// Stop is part of provider.Provider.
func (p *Provider) Stop(ctx context.Context, id string, grace time.Duration) error {
	_, err := p.ask(ctx, "stop", id, func(c *Core, now time.Time) Answer { return c.Stop(now, id, grace) })
	return err
}

// Remove is part of provider.Provider.
func (p *Provider) Remove(ctx context.Context, id string) error {
	_, err := p.ask(ctx, "remove", id, func(c *Core, now time.Time) Answer { return c.Remove(now, id) })
	return err
}

// Inspect is part of provider.Provider.
func (p *Provider) Inspect(ctx context.Context, id string) (provider.Container, error) {
	return p.ask(ctx, "inspect", id, func(c *Core, now time.Time) Answer { return c.Inspect(now, id) })
}

// Watch is part of provider.Provider.
func (p *Provider) Watch(ctx context.Context, o task.Owner) iter.Seq2[provider.Event, error] {
	return func(yield func(provider.Event, error) bool) {
		ready := make(chan struct{}, 1)
		var feed *Feed
		p.Do(func(c *Core, _ time.Time) { feed = c.Subscribe(o, func() { wake(ready) }) })
		defer p.Do(func(*Core, time.Time) { feed.Close() })
		if err := p.tell(ctx, feed, ready, yield); err != nil {
			yield(provider.Event{}, fmt.Errorf("memory: watch %s: %w", o.Cluster, err))
		}
	}
}

func wake(ready chan<- struct{}) {
	select {
	case ready <- struct{}{}:
	default:
	}
}

// tell yields the feed's events until ctx or the feed ends, or nil when the
// consumer has left.
func (p *Provider) tell(ctx context.Context, f *Feed, ready <-chan struct{}, yield func(provider.Event, error) bool) error {
	var batch []provider.Event
	for {
		var err error
		batch, err = p.pull(f, batch[:0])
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		for _, ev := range batch {
			if !yield(ev, nil) {
				return nil
			}
		}
		if len(batch) > 0 {
			continue
		}
		select {
		case <-ready:
		case <-ctx.Done():
		}
	}
}

// pull takes up to 64 events at once.
func (p *Provider) pull(f *Feed, batch []provider.Event) ([]provider.Event, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(batch) < 64 {
		ev, ok := f.Next()
		if !ok {
			break
		}
		batch = append(batch, ev)
	}
	return batch, f.Err()
}
