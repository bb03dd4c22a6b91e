// Package timers is the one heap of wake-ups that a pure core keeps. Timers are
// never stopped: whoever is woken too late finds nothing to do. Equal times
// come in the order they were added, so runs repeat.
package timers

import (
	"container/heap"
	"time"
)

// Heap holds values with times. The zero value is empty.
type Heap[T any] struct {
	items items[T]
	seq   uint64
}

type item[T any] struct {
	at    time.Time
	seq   uint64
	value T
}

type items[T any] []item[T]

func (h items[T]) Len() int { return len(h) }
func (h items[T]) Less(i, j int) bool {
	if h[i].at.Equal(h[j].at) {
		return h[i].seq < h[j].seq
	}
	return h[i].at.Before(h[j].at)
}
func (h items[T]) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *items[T]) Push(x any)   { *h = append(*h, x.(item[T])) }
func (h *items[T]) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	(*h)[last] = item[T]{}
	*h = (*h)[:last]
	return x
}

// Add wakes value at a time.
func (h *Heap[T]) Add(at time.Time, value T) {
	h.seq++
	heap.Push(&h.items, item[T]{at, h.seq, value})
}

// Next returns the earliest time and its value; the zero time when empty.
func (h *Heap[T]) Next() (time.Time, T) {
	if len(h.items) == 0 {
		var none T
		return time.Time{}, none
	}
	return h.items[0].at, h.items[0].value
}

// Pop takes out the earliest value whose time has come.
func (h *Heap[T]) Pop(now time.Time) (at time.Time, value T, ok bool) {
	if len(h.items) == 0 || h.items[0].at.After(now) {
		return at, value, false
	}
	x := heap.Pop(&h.items).(item[T])
	return x.at, x.value, true
}

// Len is how many timers wait.
func (h *Heap[T]) Len() int { return len(h.items) }
