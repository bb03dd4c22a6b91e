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
		if at.IsZero() || at.Equal(r.tryAt) || at.Equal(r.resendAt) {
			return at
		}
		w.heap.Pop(at)
	}
}

// pop returns a row whose time has come, or nil.
func (w *wakes) pop(now time.Time) *row {
	if w.next().IsZero() {
		return nil
	}
	_, r, _ := w.heap.Pop(now)
	return r
}
