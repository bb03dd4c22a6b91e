package server

import (
	"runtime"
	"sync"
)

// together is how many elements one goroutine prints at a time; fewer are not
// worth another.
const together = 500

// inOrder prints the elements of a list in stretches, on all processors, each
// into a part, and takes the parts in order. While some are taken the next are
// printed; a part that was taken is printed into again.
func inOrder[P any](n int, print func(p *P, from, to int), take func(*P)) {
	now, next := newBatch[P](), newBatch[P]()
	now.begin(0, n, print)
	for from := 0; from < n; from += now.span() {
		now.Wait()
		next.begin(from+now.span(), n, print)
		for i := range now.used {
			take(&now.parts[i])
		}
		now, next = next, now
	}
}

// batch is a part for each processor.
type batch[P any] struct {
	sync.WaitGroup
	parts []P
	used  int // of parts
}

func newBatch[P any]() *batch[P] { return &batch[P]{parts: make([]P, runtime.GOMAXPROCS(0))} }

func (b *batch[P]) span() int { return together * len(b.parts) }

// begin begins to print the elements from one on.
func (b *batch[P]) begin(from, n int, print func(p *P, from, to int)) {
	b.used = 0
	for i := range b.parts {
		first := from + i*together
		if first >= n {
			return
		}
		b.used++
		b.Go(func() { print(&b.parts[i], first, min(first+together, n)) })
	}
}
