// Package gc decides which stopped containers go, when and why. It is a pure
// plan: it knows identities and times, and nothing of tasks, backends or
// clocks; the caller removes what Due names and says Removed.
//
//	var q gc.Queue
//	q.Release("c1", ended, gc.Failed)   // its end is acknowledged: it may go
//	for _, id := range q.Due(policy, now) { remove(id) }
//	q.Removed("c1", policy, now)        // or q.Retry("c1", policy, now) after a failure
//	wake at q.Next(policy)
//
// A container that nobody released is never due: a stopped container is the
// durable record of an end that nobody has acknowledged yet.
package gc

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Outcome is how a container ended, as far as its keep time goes.
type Outcome uint8

// The outcomes.
const (
	Succeeded Outcome = iota
	Failed
	Killed
	outcomes // how many there are
)

// String is a word for people.
func (o Outcome) String() string { return [...]string{"success", "failure", "kill"}[o] }

// Policy says how long stopped containers are kept after their end, so that
// their logs can be read, and how fast they go.
type Policy struct {
	Keep    [3]time.Duration // by Outcome; 0: not at all
	MaxKept int              // beyond this many released ones the oldest go at once; 0: no bound
	Batch   int              // at most this many are removed at a time; 0: 16
	Backoff time.Duration    // after a failed removal, doubled up to 32 times; 0: 1s
	Pace    int              // after a removal none begins for so many times what it took, up to MaxPause; 0: at once
}

// MaxPause bounds the pause that a slow removal brings about.
const MaxPause = time.Minute

// KeepAll is the same keep time for all outcomes.
func KeepAll(d time.Duration) [3]time.Duration { return [3]time.Duration{d, d, d} }

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
	items  map[string]*item
	order  [outcomes][]*item // by end, oldest first; those that are gone leave when they come first
	busy   int
	paused time.Time // no removal begins before
}

type item struct {
	id       string
	outcome  Outcome
	ended    time.Time
	began    time.Time // of the removal
	retryAt  time.Time
	failures int
	removing bool
	gone     bool
}

// Release puts a container on the list: its end has been acknowledged. Saying
// so again changes nothing.
func (q *Queue) Release(id string, ended time.Time, how Outcome) {
	if q.items == nil {
		q.items = make(map[string]*item)
	}
	if q.items[id] != nil {
		return
	}
	it := &item{id: id, outcome: how, ended: ended}
	q.items[id] = it
	q.insert(it)
}

func (q *Queue) insert(it *item) {
	list := &q.order[it.outcome]
	i, _ := slices.BinarySearchFunc(*list, it, byEnd)
	*list = slices.Insert(*list, i, it)
}

// Postpone says that a released container ended later than was known then: its
// keep time counts from there.
func (q *Queue) Postpone(id string, ended time.Time) {
	it := q.items[id]
	if it == nil || it.removing || !ended.After(it.ended) {
		return
	}
	list := &q.order[it.outcome]
	i, _ := slices.BinarySearchFunc(*list, it, byEnd)
	i += slices.Index((*list)[i:], it) // after those of its name and end that are gone
	*list = slices.Delete(*list, i, i+1)
	it.ended = ended
	q.insert(it)
}

func byEnd(a, b *item) int {
	return cmp.Or(a.ended.Compare(b.ended), cmp.Compare(a.id, b.id))
}

// oldest yields what is not gone, of all outcomes, by its end.
func (q *Queue) oldest(yield func(*item) bool) {
	var at [outcomes]int
	for {
		var next *item
		for o := range q.order {
			for at[o] < len(q.order[o]) && q.order[o][at[o]].gone {
				at[o]++
			}
			if at[o] < len(q.order[o]) && (next == nil || byEnd(q.order[o][at[o]], next) < 0) {
				next = q.order[o][at[o]]
			}
		}
		if next == nil || !yield(next) {
			return
		}
		at[next.outcome]++
	}
}

// Due returns the containers to remove now, oldest first, and counts them as
// being removed until Removed or Retry is said of them.
func (q *Queue) Due(p Policy, now time.Time) []string {
	if q.paused.After(now) {
		return nil
	}
	var out []string
	var waiting [outcomes]bool
	left, excess := outcomes, q.excess(p)
	for it := range q.oldest {
		if q.busy >= p.batch() || left == 0 && excess <= 0 {
			break
		}
		excess--
		if excess < 0 && it.ended.Add(p.Keep[it.outcome]).After(now) {
			if !waiting[it.outcome] {
				waiting[it.outcome] = true // and so do all of the outcome that ended later
				left--
			}
			continue
		}
		if it.removing || it.retryAt.After(now) {
			continue
		}
		it.removing, it.began = true, now
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
	var settled [outcomes]bool
	left, excess := outcomes, q.excess(p)
	for it := range q.oldest {
		excess--
		if left == 0 && excess < 0 {
			break
		}
		if it.removing || settled[it.outcome] && excess < 0 {
			continue
		}
		at := it.due(p, excess >= 0)
		if next.IsZero() || at.Before(next) {
			next = at
		}
		if it.failures == 0 && excess < 0 { // all later ones of the outcome end later
			settled[it.outcome] = true
			left--
		}
	}
	if !next.IsZero() && next.Before(q.paused) {
		return q.paused
	}
	return next
}

func (it *item) due(p Policy, surplus bool) time.Time {
	at := it.ended.Add(p.Keep[it.outcome])
	if surplus {
		at = it.ended
	}
	if it.retryAt.After(at) {
		at = it.retryAt
	}
	return at
}

// Removed forgets a container that is gone, and paces the next by what this one
// took.
func (q *Queue) Removed(id string, p Policy, now time.Time) {
	it := q.items[id]
	if it == nil {
		return
	}
	if it.removing && p.Pace > 0 {
		if until := now.Add(min(now.Sub(it.began)*time.Duration(p.Pace), MaxPause)); until.After(q.paused) {
			q.paused = until
		}
	}
	q.settle(it)
	delete(q.items, id)
	it.gone = true
	for list := q.order[it.outcome]; len(list) > 0 && list[0].gone; {
		list[0] = nil
		list = list[1:]
		q.order[it.outcome] = list
	}
}

// Verdict is what becomes of a released container, and why.
type Verdict struct {
	ID   string
	At   time.Time // when it goes
	Ends time.Time // when it ended
	Why  string
}

// Explain says of each released container, oldest first, why it goes or stays.
// It changes nothing.
func (q *Queue) Explain(p Policy, now time.Time) []Verdict {
	out := []Verdict{}
	excess := q.excess(p)
	for it := range q.oldest {
		excess--
		v := Verdict{ID: it.id, At: it.due(p, excess >= 0), Ends: it.ended}
		switch keep := p.Keep[it.outcome]; {
		case it.removing:
			v.Why = "is being removed"
		case it.failures > 0 && it.retryAt.After(now):
			v.Why = fmt.Sprintf("stays until its removal is tried again: it failed %d times", it.failures)
		case excess >= 0:
			v.Why = fmt.Sprintf("goes: more than %d are kept and it is among the oldest", p.MaxKept)
		case v.At.After(now):
			v.Why = fmt.Sprintf("stays: it is kept for %v after a %s", keep, it.outcome)
		case q.paused.After(now):
			v.At, v.Why = q.paused, "goes after a pause: the last removal took long"
		default:
			v.Why = fmt.Sprintf("goes: the %v after a %s are over", keep, it.outcome)
		}
		out = append(out, v)
	}
	return out
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

// Failures is how often the removal of a container has failed.
func (q *Queue) Failures(id string) int {
	if it := q.items[id]; it != nil {
		return it.failures
	}
	return 0
}

// Len is how many released containers wait or are being removed.
func (q *Queue) Len() int { return len(q.items) }
