package agent

import (
	"time"

	"github.com/mesopool/mesopool/internal/timers"
)

// wakes is the one heap of wake-ups for all tasks. An entry whose row no longer
// wants that time is skipped when it comes.
type wakes struct{ heap timers.Heap[*row] }

func (w *wakes) add(at time.Time, r *row) { w.heap.Add(at, r) }

func (w *wakes) next() time.Time {
	for {
		at, r := w.heap.Next()
		if at.IsZero() || r.wants(at) {
			return at
		}
		w.heap.Pop(at)
	}
}

// wants says whether one of the row's times is this one.
func (r *row) wants(at time.Time) bool {
	return at.Equal(r.tryAt) || at.Equal(r.resendAt) || at.Equal(r.deadline) || at.Equal(r.checkAt) || at.Equal(r.watchAt) || at.Equal(r.connectBy)
}

func (r *row) sleep() {
	r.tryAt, r.resendAt, r.deadline = time.Time{}, time.Time{}, time.Time{}
	r.checkAt = time.Time{}
	if r.extra != nothing {
		r.watchAt, r.connectBy = time.Time{}, time.Time{}
	}
}

// due says whether a time that was set has come.
func due(at, now time.Time) bool { return !at.IsZero() && !at.After(now) }

// pop returns a row whose time has come, or nil.
func (w *wakes) pop(now time.Time) *row {
	if w.next().IsZero() {
		return nil
	}
	_, r, _ := w.heap.Pop(now)
	return r
}
