package memory

import (
	"container/heap"
	"time"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// box is one container, kept small: a data center has a million of them.
// Moments are Unix nanoseconds, 0 when they have not come.
type box struct {
	name      string
	key       task.Key
	group     *group // nil: nobody's
	resources resources.Resources
	output    *[]line // nil: none

	id                      uint64
	created, started, ended int64
	run                     time.Duration // after the start; forever: until stopped
	due                     int64         // when the timer fires

	timer int32 // index among the core's timers, -1 without one
	place int32 // index in the group
	addr  uint32

	state  provider.State
	code   uint8 // the exit code, once it has ended or when the timer ends it
	deaf   bool
	charge bool // its resources and its address are taken
}

// group is what one owner has.
type group struct {
	owner task.Owner
	boxes []*box
	feeds []*Feed
}

func (g *group) add(b *box) {
	b.group, b.place = g, int32(len(g.boxes))
	g.boxes = append(g.boxes, b)
}

// drop fills the place with the last box.
func (g *group) drop(b *box) {
	last := len(g.boxes) - 1
	g.boxes[b.place] = g.boxes[last]
	g.boxes[b.place].place = b.place
	g.boxes[last] = nil
	g.boxes = g.boxes[:last]
}

// timers is a heap of the boxes that change by themselves, soonest first; at
// the same moment, older boxes first.
type timers []*box

func (t timers) Len() int { return len(t) }
func (t timers) Less(i, j int) bool {
	return t[i].due < t[j].due || t[i].due == t[j].due && t[i].id < t[j].id
}

func (t timers) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].timer, t[j].timer = int32(i), int32(j)
}

// Push is part of heap.Interface.
func (t *timers) Push(x any) {
	b := x.(*box)
	b.timer = int32(len(*t))
	*t = append(*t, b)
}

// Pop is part of heap.Interface.
func (t *timers) Pop() any {
	last := len(*t) - 1
	b := (*t)[last]
	(*t)[last] = nil
	*t = (*t)[:last]
	b.timer = -1
	return b
}

// set sets or moves the box's timer.
func (t *timers) set(b *box, due int64) {
	b.due = due
	if b.timer < 0 {
		heap.Push(t, b)
		return
	}
	heap.Fix(t, int(b.timer))
}

func (t *timers) clear(b *box) {
	if b.timer >= 0 {
		heap.Remove(t, int(b.timer))
	}
}
