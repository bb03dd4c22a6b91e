package agent

import (
	"time"
	"unique"

	"github.com/mesopool/mesopool/task"
)

// Rows are many, and much of what they say is the same: it is kept once.

// extra is what few rows need. Most have nothing of it, and share that: whoever
// writes asks rare for one of the row's own.
type extra struct {
	failing  time.Time // since when each launch was answered with a failure
	troubles []string  // what the framework was told about its launch

	watchAt  time.Time // of the next check without consequences
	watching bool      // such checks have begun

	goes time.Time // until when a task that is to end is let go on

	last string // what the last status said, for a row that is silent

	session   uint64    // an executor's; 0: it is not connected
	connectBy time.Time // when an executor must have connected
	met       bool      // an executor: it has been connected since the agent started
}

var nothing = &extra{}

func (r *row) rare() *extra {
	if r.extra == nothing {
		r.extra = &extra{}
	}
	return r.extra
}

// share lets a new row say in common words what others say too.
func (c *Core) share(r *row) {
	s := &r.Spec
	s.Key.Framework, s.Image = unique.Make(s.Key.Framework).Value(), unique.Make(s.Image).Value()
	r.key = s.Key
	if len(s.Resources) > 0 {
		s.Resources = c.amounts.Same(s.Resources)
	}
	r.slim()
}

// slim leaves out of a row's container what the row says itself.
func (r *row) slim() {
	k := &r.Container
	if k.ID == "" || r.orphan {
		return
	}
	k.Owner, k.Resources, k.Key = task.Owner{}, nil, r.key
	if k.Name == r.Name {
		k.Name = r.Name
	}
	k.Network = unique.Make(k.Network).Value()
}
