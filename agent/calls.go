package agent

import (
	"context"
	"slices"
	"sync"

	"github.com/mesopool/mesopool/task"
)

// callQueue holds the calls that no worker has taken. Stops and looks overtake
// launches and removals, and these never have all workers, so that neither a
// mass launch nor a slow download delays a kill.
type callQueue struct {
	mu       sync.Mutex
	ready    sync.Cond
	urgent   []*job
	later    []*job
	most     int               // of the later ones under way at once
	slow     int               // of them are under way
	launches map[task.Key]*job // waiting or under way
	closed   bool
}

// job is a call with the context to make it in.
type job struct {
	Call
	ctx    context.Context
	cancel context.CancelFunc
}

func (j *job) slow() bool { return j.Op == OpLaunch || j.Op == OpRemove }

func newCallQueue(workers int) *callQueue {
	q := &callQueue{launches: map[task.Key]*job{}, most: max(1, workers-workers/4)}
	q.ready.L = &q.mu
	return q
}

func (q *callQueue) put(ctx context.Context, c Call) {
	q.mu.Lock()
	defer q.mu.Unlock()
	j := &job{c, ctx, func() {}}
	if c.Op == OpLaunch {
		j.ctx, j.cancel = context.WithCancel(ctx)
		q.launches[c.Key] = j
	}
	if j.slow() {
		q.later = append(q.later, j)
	} else {
		q.urgent = append(q.urgent, j)
	}
	q.ready.Signal()
}

// get waits for a call; it says no when the queue is closed. done must be
// called after it.
func (q *callQueue) get() (*job, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.closed {
		if j, ok := pop(&q.urgent); ok {
			return j, true
		}
		if q.slow < q.most {
			if j, ok := pop(&q.later); ok {
				q.slow++
				return j, true
			}
		}
		q.ready.Wait()
	}
	return nil, false
}

func (q *callQueue) done(j *job) {
	j.cancel()
	q.mu.Lock()
	defer q.mu.Unlock()
	if j.slow() {
		q.slow--
		q.ready.Signal()
	}
	if q.launches[j.Key] == j {
		delete(q.launches, j.Key)
	}
}

// cancel ends a task's launch. One that no worker had taken is returned.
func (q *callQueue) cancel(k task.Key) *job {
	q.mu.Lock()
	defer q.mu.Unlock()
	j := q.launches[k]
	if j == nil {
		return nil
	}
	j.cancel()
	i := slices.Index(q.later, j)
	if i < 0 {
		return nil
	}
	q.later = slices.Delete(q.later, i, i+1)
	delete(q.launches, k)
	return j
}

func pop[T any](list *[]T) (T, bool) {
	var none T
	if len(*list) == 0 {
		return none, false
	}
	x := (*list)[0]
	(*list)[0] = none
	*list = (*list)[1:]
	if len(*list) == 0 {
		*list = nil
	}
	return x, true
}

func (q *callQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.ready.Broadcast()
}
