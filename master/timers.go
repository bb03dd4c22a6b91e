package master

import (
	"container/heap"
	"time"
)

type timerKind uint8

const (
	timerPing timerKind = iota
	timerRecovered
	timerFailover
	timerOffer
	timerFilter
)

type timer struct {
	at   time.Time
	kind timerKind
	id   string
	seq  uint64 // keeps equal times in order
}

// timerHeap is the one heap of all timers.
type timerHeap struct {
	items []timer
	seq   uint64
}

func (h *timerHeap) Len() int { return len(h.items) }
func (h *timerHeap) Less(i, j int) bool {
	if h.items[i].at.Equal(h.items[j].at) {
		return h.items[i].seq < h.items[j].seq
	}
	return h.items[i].at.Before(h.items[j].at)
}
func (h *timerHeap) Swap(i, j int) { h.items[i], h.items[j] = h.items[j], h.items[i] }
func (h *timerHeap) Push(x any)    { h.items = append(h.items, x.(timer)) }
func (h *timerHeap) Pop() any {
	last := len(h.items) - 1
	t := h.items[last]
	h.items = h.items[:last]
	return t
}

func (h *timerHeap) add(at time.Time, kind timerKind, id string) {
	h.seq++
	heap.Push(h, timer{at, kind, id, h.seq})
}

func (h *timerHeap) next() time.Time {
	if len(h.items) == 0 {
		return time.Time{}
	}
	return h.items[0].at
}

func (h *timerHeap) pop(now time.Time) (timer, bool) {
	if len(h.items) == 0 || h.items[0].at.After(now) {
		return timer{}, false
	}
	return heap.Pop(h).(timer), true
}
