// Package loop is what all shells around a core share: an inbox that never
// blocks who puts something in, and a goroutine that takes whatever has come,
// in order, or is woken at the time the core names. It knows nothing of cores.
package loop

import (
	"context"
	"sync"
	"time"
)

// Inbox holds what waits for the goroutine of Run. The zero value is not
// usable; see New.
type Inbox[T any] struct {
	mu     sync.Mutex
	queue  []T
	spare  []T // the memory of an earlier batch
	wakeup chan struct{}
}

// New returns an empty inbox.
func New[T any]() *Inbox[T] { return &Inbox[T]{wakeup: make(chan struct{}, 1)} }

// Put adds something; it never blocks.
func (b *Inbox[T]) Put(x T) {
	b.mu.Lock()
	b.queue = append(b.queue, x)
	b.mu.Unlock()
	select {
	case b.wakeup <- struct{}{}:
	default:
	}
}

// Take empties the inbox.
func (b *Inbox[T]) Take() []T {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := b.queue
	b.queue, b.spare = b.spare, nil
	return all
}

// maxSpare is how many things the memory that is kept for the next batch holds.
const maxSpare = 1 << 14

// reuse keeps a batch's memory for one to come.
func (b *Inbox[T]) reuse(batch []T) {
	if cap(batch) > maxSpare {
		return
	}
	clear(batch)
	b.mu.Lock()
	b.spare = batch[:0]
	b.mu.Unlock()
}

// Run calls batch with everything that has come in, and with nothing when the
// time has come that next names (the zero time is never). The slice is batch's
// until it returns. It returns nil when
// ctx ends, or the first error of batch.
func (b *Inbox[T]) Run(ctx context.Context, next func() time.Time, batch func([]T) error) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var tick <-chan time.Time
		if at := next(); !at.IsZero() {
			timer.Reset(time.Until(at))
			tick = timer.C
		}
		select {
		case <-ctx.Done():
			return nil
		case <-b.wakeup:
		case <-tick:
		}
		all := b.Take()
		if err := batch(all); err != nil && ctx.Err() == nil {
			return err
		}
		b.reuse(all)
	}
}
