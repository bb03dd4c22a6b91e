// Package gc decides which stopped containers go, when and why. It is a pure
// plan: it knows identities and times, and nothing of tasks, backends or
// clocks; the caller removes what Due names and says Removed.
//
//	var q gc.Queue
//	q.Release("c1", ended, now)         // its end is acknowledged: it may go
//	for _, id := range q.Due(policy, now) { remove(id) }
//	q.Removed("c1")                     // or q.Retry("c1", policy, now) after a failure
//	wake at q.Next(policy)
//
// A container that nobody released is never due: a stopped container is the
// durable record of an end that nobody has acknowledged yet.
package gc

import (
	"cmp"
	"slices"
	"time"
)

// Policy says how long stopped containers are kept.
type Policy struct {
	Keep    time.Duration // after the end, so that logs can be read; 0: not at all
	MaxKept int           // beyond this many released ones the oldest go at once; 0: no bound
	Batch   int           // at most this many are removed at a time; 0: 16
	Backoff time.Duration // after a failed removal, doubled up to 32 times; 0: 1s
}

func (p Policy) batch() int {
	if p.Batch <= 0 {
		return 16
	}
	return p.Batch
}

func (p Policy) backoff(failures int) time.Duration {
	b := p.Backoff
	if b <= 0 {
		b = time.Second
	}
	return b << min(failures-1, 5)
}

// Queue holds the released containers. The zero value is empty.
type Queue struct {
	items map[string]*item
	order []*item // by end, oldest first; those that are gone leave when they come first
	busy  int
}

type item struct {
	id       string
	ended    time.Time
	retryAt  time.Time
	failures int
	removing bool
	gone     bool
}

// Release puts a container on the list: its end has been acknowledged. Saying
// so again changes nothing.
func (q *Queue) Release(id string, ended time.Time) {
	if q.items == nil {
		q.items = make(map[string]*item)
	}
	if q.items[id] != nil {
		return
	}
	it := &item{id: id, ended: ended}
	q.items[id] = it
	i, _ := slices.BinarySearchFunc(q.order, it, byEnd)
	q.order = slices.Insert(q.order, i, it)
}

func byEnd(a, b *item) int {
	return cmp.Or(a.ended.Compare(b.ended), cmp.Compare(a.id, b.id))
}

// Due returns the containers to remove now, oldest first, and counts them as
// being removed until Removed or Retry is said of them.
func (q *Queue) Due(p Policy, now time.Time) []string {
	var out []string
	excess := q.excess(p)
	for _, it := range q.order {
		if q.busy >= p.batch() {
			break
		}
		if it.gone {
			continue
		}
		if excess--; excess < 0 && it.ended.Add(p.Keep).After(now) {
			break
		}
		if it.removing || it.retryAt.After(now) {
			continue
		}
		it.removing = true
		q.busy++
		out = append(out, it.id)
	}
	return out
}

// Next is when Due would name something; the zero time means not before
// something else happens.
func (q *Queue) Next(p Policy) time.Time {
	if q.busy >= p.batch() {
		return time.Time{}
	}
	var next time.Time
	excess := q.excess(p)
	for _, it := range q.order {
		if it.gone {
			continue
		}
		excess--
		if it.removing {
			continue
		}
		at := it.ended.Add(p.Keep)
		if excess >= 0 {
			at = it.ended
		}
		if it.retryAt.After(at) {
			at = it.retryAt
		}
		if next.IsZero() || at.Before(next) {
			next = at
		}
		if it.failures == 0 {
			break // all later ones end later
		}
	}
	return next
}

// Removed forgets a container that is gone.
func (q *Queue) Removed(id string) {
	it := q.items[id]
	if it == nil {
		return
	}
	q.settle(it)
	delete(q.items, id)
	it.gone = true
	for len(q.order) > 0 && q.order[0].gone {
		q.order[0] = nil
		q.order = q.order[1:]
	}
}

// excess is how many are kept beyond the bound.
func (q *Queue) excess(p Policy) int {
	if p.MaxKept <= 0 {
		return 0
	}
	return len(q.items) - p.MaxKept
}

// Retry says that a removal failed; it becomes due again after a back-off.
func (q *Queue) Retry(id string, p Policy, now time.Time) {
	it := q.items[id]
	if it == nil {
		return
	}
	q.settle(it)
	it.failures++
	it.retryAt = now.Add(p.backoff(it.failures))
}

func (q *Queue) settle(it *item) {
	if it.removing {
		it.removing = false
		q.busy--
	}
}

// Len is how many released containers wait or are being removed.
func (q *Queue) Len() int { return len(q.items) }
