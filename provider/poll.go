package provider

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/mesopool/mesopool/task"
)

// Poll makes a Watch of a backend that can only be asked. It keeps what a
// Watch promises: everything first, then Synced, then what has changed; a
// container that is missing from a listing is gone only when Inspect says so.
type Poll struct {
	// List returns all of the owner's containers, as far as a listing shows them.
	List func(ctx context.Context, o task.Owner) ([]Container, error)
	// Inspect looks at one container of whose listing something has changed.
	Inspect func(ctx context.Context, id string) (Container, error)
	// Every is the usual pause between two listings.
	Every time.Duration
	// Hint, when something comes from it, ends the pause early, though never
	// before listing is less than a tenth of the time. It may be nil.
	Hint <-chan struct{}
}

// Watch yields what Provider.Watch does. A failed listing ends it: to act on a
// part of what there is would be worse.
func (p Poll) Watch(ctx context.Context, o task.Owner) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		w := &polled{Poll: p, owner: o, yield: yield, known: map[string]Container{}}
		if err := w.run(ctx); err != nil && !errors.Is(err, errLeft) {
			yield(Event{}, err)
		}
	}
}

// errLeft: the consumer wants no more.
var errLeft = errors.New("the consumer left")

// polled is one watch.
type polled struct {
	Poll
	owner task.Owner
	yield func(Event, error) bool
	known map[string]Container // by ID, as last listed
}

func (w *polled) run(ctx context.Context) error {
	for first := true; ; first = false {
		took, err := w.round(ctx)
		if err != nil {
			return err
		}
		if first && !w.yield(Event{Synced: true}, nil) {
			return errLeft
		}
		if err := w.rest(ctx, took); err != nil {
			return err
		}
	}
}

// shortest is the pause between two listings at least.
const shortest = 100 * time.Millisecond

// rest waits until the next listing is due, after one that took so long. What
// the inspections after it took does not count: they are for what has changed,
// and after a long first look at everything the next listing must not be late.
func (w *polled) rest(ctx context.Context, took time.Duration) error {
	least := max(shortest, 9*took)
	if err := sleep(ctx, least, nil); err != nil {
		return err
	}
	return sleep(ctx, w.Every-least, w.Hint)
}

func sleep(ctx context.Context, d time.Duration, hint <-chan struct{}) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-hint:
	case <-t.C:
	}
	return nil
}

// round lists once, which took so long, and tells what is new, what has changed
// and what is gone.
func (w *polled) round(ctx context.Context) (took time.Duration, err error) {
	begin := time.Now()
	list, err := w.List(ctx, w.owner)
	took = time.Since(begin)
	if err != nil {
		return took, err
	}
	var changed []Container
	listed := make(map[string]bool, len(list))
	for _, c := range list {
		listed[c.ID] = true
		if before, known := w.known[c.ID]; !known || !reflect.DeepEqual(before, c) {
			changed = append(changed, c)
		}
	}
	for id, c := range w.known {
		if !listed[id] {
			changed = append(changed, c)
		}
	}
	for part := range slices.Chunk(changed, maxLooks*8) {
		if err := w.look(ctx, part); err != nil {
			return took, err
		}
	}
	return took, nil
}

// maxLooks bounds the inspections at a time.
const maxLooks = 16

// look inspects containers whose listing differs from the last, and tells them.
func (w *polled) look(ctx context.Context, listed []Container) error {
	found, failed := make([]Container, len(listed)), make([]error, len(listed))
	var wait sync.WaitGroup
	room := make(chan struct{}, maxLooks)
	for i := range listed {
		room <- struct{}{}
		wait.Go(func() {
			defer func() { <-room }()
			found[i], failed[i] = w.Inspect(ctx, listed[i].ID)
		})
	}
	wait.Wait()
	for i := range listed {
		if err := w.tell(listed[i], found[i], failed[i]); err != nil {
			return err
		}
	}
	return nil
}

func (w *polled) tell(listed, now Container, err error) error {
	switch {
	case errors.Is(err, ErrNotFound):
		delete(w.known, listed.ID)
		now = listed
		now.State, now.Addresses = StateGone, nil
	case err != nil:
		return fmt.Errorf("look at %s: %w", listed.Name, err)
	default:
		w.known[listed.ID] = listed
	}
	if !w.yield(Event{Container: now}, nil) {
		return errLeft
	}
	return nil
}
