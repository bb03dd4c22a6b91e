package limit

import (
	"sync/atomic"
	"time"
)

type kind int

const (
	capacity kind = iota
	launch
	stop
	remove
	inspect
	create
	copyIn
	removeVolume
	watch
)

func (k kind) String() string {
	return [...]string{"capacity", "launch", "stop", "remove", "inspect", "create", "copy", "remove volume", "watch"}[k]
}

// Stats are the calls so far, by method.
type Stats struct {
	Capacity, Launch, Stop, Remove, Inspect, Create, CopyIn, RemoveVolume, Watch Calls
}

// Calls counts the calls of one method. Repeats count as calls.
type Calls struct {
	Begun   uint64
	Failed  uint64
	Retried uint64
	Active  int64         // under way
	Waiting int64         // for a turn
	Total   time.Duration // all that the finished calls took, waiting apart
	Longest time.Duration
}

type counter struct {
	begun, failed, retried          atomic.Uint64
	active, waiting, total, longest atomic.Int64
}

func (c *counter) begin() {
	c.begun.Add(1)
	c.active.Add(1)
}

func (c *counter) end(took time.Duration, err error) {
	c.active.Add(-1)
	c.total.Add(int64(took))
	if err != nil {
		c.failed.Add(1)
	}
	for old := c.longest.Load(); int64(took) > old && !c.longest.CompareAndSwap(old, int64(took)); {
		old = c.longest.Load()
	}
}

func (c *counter) read() Calls {
	return Calls{
		Begun: c.begun.Load(), Failed: c.failed.Load(), Retried: c.retried.Load(),
		Active: c.active.Load(), Waiting: c.waiting.Load(),
		Total: time.Duration(c.total.Load()), Longest: time.Duration(c.longest.Load()),
	}
}

// Stats returns a snapshot; numbers of calls under way may differ by one
// between fields.
func (p *Provider) Stats() Stats {
	return Stats{
		Capacity: p.counts[capacity].read(), Launch: p.counts[launch].read(), Stop: p.counts[stop].read(),
		Remove: p.counts[remove].read(), Inspect: p.counts[inspect].read(),
		Create: p.counts[create].read(), CopyIn: p.counts[copyIn].read(), RemoveVolume: p.counts[removeVolume].read(), Watch: p.counts[watch].read(),
	}
}
