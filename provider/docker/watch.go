package docker

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"golang.org/x/sync/errgroup"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

const (
	maxInspects = 8   // at once, for each watch
	maxBatch    = 256 // changed containers that are looked at before they are told
)

// Watch is part of provider.Provider. In the first listing, running containers
// have no start time and no ports' host address but the engine's own; what is
// told later comes from an inspection. That a container was only created is
// not told as a change.
func (e *Engine) Watch(ctx context.Context, o task.Owner) iter.Seq2[provider.Event, error] {
	return func(yield func(provider.Event, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		w := &watch{e: e, owner: o, yield: yield, changes: newChanges(), told: map[string]bool{}}
		err := w.run(ctx, ownedBy(o), cancel)
		if err != nil && !errors.Is(err, errLeft) {
			yield(provider.Event{}, e.fail("watch", o.Cluster+"/"+o.Agent, err))
		}
	}
}

func ownedBy(o task.Owner) filters.Args {
	return filters.NewArgs(
		filters.Arg("label", provider.LabelCluster+"="+o.Cluster),
		filters.Arg("label", provider.LabelAgent+"="+o.Agent),
	)
}

// errLeft: the consumer wants no more.
var errLeft = errors.New("the consumer left")

type watch struct {
	e       *Engine
	owner   task.Owner
	yield   func(provider.Event, error) bool
	changes *changes
	told    map[string]bool // the owner's containers, by ID
}

// tell yields a container, if it is the owner's: some engines (Podman) take
// several labels of a filter as alternatives. A container that is gone may have
// no labels any more; it is the owner's if it was before.
func (w *watch) tell(c provider.Container) error {
	if c.Owner != w.owner && !(c.State == provider.StateGone && w.told[c.ID]) {
		return nil
	}
	c.Owner = w.owner
	if w.told[c.ID] = true; c.State == provider.StateGone {
		delete(w.told, c.ID)
	}
	if !w.yield(provider.Event{Container: c}, nil) {
		return errLeft
	}
	return nil
}

// run listens first and lists then, so that no change falls between.
func (w *watch) run(ctx context.Context, own filters.Args, cancel context.CancelFunc) error {
	defer cancel()
	if err := w.e.ready(ctx); err != nil {
		return err
	}
	since, err := w.e.clock(ctx)
	if err != nil {
		return err
	}
	listen := own.Clone()
	listen.Add("type", "container")
	messages, errs := w.e.cli.Events(ctx, events.ListOptions{Filters: listen, Since: since})
	listening := make(chan struct{})
	go func() {
		defer close(listening)
		w.changes.collect(messages, errs)
	}()
	defer func() { cancel(); <-listening }()
	if err := w.list(ctx, own); err != nil {
		return err
	}
	if !w.yield(provider.Event{Synced: true}, nil) {
		return errLeft
	}
	return w.follow(ctx)
}

// clock is a moment just before now by the engine's own clock.
func (e *Engine) clock(ctx context.Context) (string, error) {
	info, err := e.cli.Info(ctx)
	if err != nil {
		return "", err
	}
	now := moment(info.SystemTime)
	if now.IsZero() {
		now = time.Now().Add(-time.Minute)
	}
	return now.Add(-time.Second).Format(time.RFC3339Nano), nil
}

// list tells all that there is. Only ended containers are looked at: a listing
// has no exit codes.
func (w *watch) list(ctx context.Context, own filters.Args) error {
	all, err := w.e.cli.ContainerList(ctx, container.ListOptions{All: true, Filters: own})
	if err != nil {
		return err
	}
	var ended []change
	for _, s := range all {
		c := w.e.fromList(s)
		if c.State == provider.StateExited {
			ended = append(ended, change{id: c.ID, labels: s.Labels})
		} else if err := w.tell(c); err != nil {
			return err
		}
		if len(ended) == maxBatch {
			if err := w.look(ctx, ended); err != nil {
				return err
			}
			ended = ended[:0]
		}
	}
	return w.look(ctx, ended)
}

// follow tells changes until the stream ends.
func (w *watch) follow(ctx context.Context) error {
	for {
		batch, err := w.changes.take(ctx)
		if err != nil {
			return err
		}
		if err := w.look(ctx, batch); err != nil {
			return err
		}
	}
}

// look inspects containers, several at once, and tells them.
func (w *watch) look(ctx context.Context, batch []change) error {
	found := make([]provider.Container, len(batch))
	var g errgroup.Group
	g.SetLimit(maxInspects)
	for i, ch := range batch {
		g.Go(func() (err error) {
			found[i], err = w.e.see(ctx, ch)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, c := range found {
		if err := w.tell(c); err != nil {
			return err
		}
	}
	return nil
}

// see looks at a changed container. The engine's word that it is gone is
// enough.
func (e *Engine) see(ctx context.Context, ch change) (provider.Container, error) {
	if !ch.gone {
		c, err := e.inspect(ctx, ch.id)
		if !errors.Is(err, provider.ErrNotFound) {
			return c, err
		}
	}
	c := provider.Container{ID: ch.id, Name: ch.labels["name"], State: provider.StateGone}
	owned(&c, ch.labels)
	return c, nil
}

// change is a container to look at, with what the event said of it.
type change struct {
	id     string
	gone   bool
	labels map[string]string
}

// changes collects events, each container once, so that a slow consumer makes
// neither the engine wait nor the memory grow.
type changes struct {
	mu      sync.Mutex
	waiting map[string]change
	order   []string
	err     error
	ready   chan struct{}
}

func newChanges() *changes {
	return &changes{waiting: map[string]change{}, ready: make(chan struct{}, 1)}
}

// collect reads events until the stream ends.
func (c *changes) collect(messages <-chan events.Message, errs <-chan error) {
	for {
		select {
		case m := <-messages:
			if ch, ok := changeOf(m); ok {
				c.add(ch)
			}
		case err := <-errs:
			c.end(err)
			return
		}
	}
}

// changeOf picks the events after which a container is another. Podman has
// words of its own.
func changeOf(m events.Message) (change, bool) {
	ch := change{id: m.Actor.ID, labels: m.Actor.Attributes}
	switch m.Action {
	case events.ActionDestroy, events.ActionRemove:
		ch.gone = true
	case events.ActionStart, events.ActionDie, events.ActionOOM, events.ActionRename, "died":
	default:
		return ch, false
	}
	return ch, ch.id != ""
}

func (c *changes) add(ch change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old, waits := c.waiting[ch.id]
	ch.gone = ch.gone || old.gone
	c.waiting[ch.id] = ch
	if !waits {
		c.order = append(c.order, ch.id)
	}
	c.wake()
}

func (c *changes) end(err error) {
	if err == nil || errors.Is(err, io.EOF) {
		err = errors.New("the engine ended the stream of events")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	c.wake()
}

func (c *changes) wake() {
	select {
	case c.ready <- struct{}{}:
	default:
	}
}

// take waits for changes and returns the oldest, or the stream's end.
func (c *changes) take(ctx context.Context) ([]change, error) {
	for {
		if batch, err := c.pop(); len(batch) > 0 || err != nil {
			return batch, err
		}
		select {
		case <-c.ready:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (c *changes) pop() ([]change, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := min(len(c.order), maxBatch)
	batch := make([]change, n)
	for i, id := range c.order[:n] {
		batch[i] = c.waiting[id]
		delete(c.waiting, id)
	}
	c.order = c.order[n:]
	if n == 0 {
		return nil, c.err
	}
	return batch, nil
}
