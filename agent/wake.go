package agent

import (
	"container/heap"
	"time"
)

// wakeHeap is the one heap of wake-ups for all tasks. Entries are never taken
// out early: one whose row no longer wants that time is skipped when it comes.
type wakeHeap struct{ items []wake }

type wake struct {
	at  time.Time
	row *row
}

func (h *wakeHeap) Len() int           { return len(h.items) }
func (h *wakeHeap) Less(i, j int) bool { return h.items[i].at.Before(h.items[j].at) }
func (h *wakeHeap) Swap(i, j int)      { h.items[i], h.items[j] = h.items[j], h.items[i] }
func (h *wakeHeap) Push(x any)         { h.items = append(h.items, x.(wake)) }
func (h *wakeHeap) Pop() any {
	last := len(h.items) - 1
	w := h.items[last]
	h.items[last] = wake{}
	h.items = h.items[:last]
	return w
}

func (h *wakeHeap) add(at time.Time, r *row) { heap.Push(h, wake{at, r}) }

func (h *wakeHeap) stale(w wake) bool {
	return !w.at.Equal(w.row.tryAt) && !w.at.Equal(w.row.resendAt)
}

func (h *wakeHeap) next() time.Time {
	for len(h.items) > 0 {
		if w := h.items[0]; !h.stale(w) {
			return w.at
		}
		heap.Pop(h)
	}
	return time.Time{}
}

// pop returns a row whose time has come, or nil.
func (h *wakeHeap) pop(now time.Time) *row {
	at := h.next()
	if at.IsZero() || at.After(now) {
		return nil
	}
	return heap.Pop(h).(wake).row
}
