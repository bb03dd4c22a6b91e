package agent

import "sync"

// callQueue holds the calls that no worker has taken. Stops and looks overtake
// launches and removals, so that a mass launch never delays a kill.
type callQueue struct {
	mu     sync.Mutex
	ready  sync.Cond
	urgent []Call
	later  []Call
	closed bool
}

func newCallQueue() *callQueue {
	q := &callQueue{}
	q.ready.L = &q.mu
	return q
}

func (q *callQueue) put(c Call) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if c.Op == OpLaunch || c.Op == OpRemove {
		q.later = append(q.later, c)
	} else {
		q.urgent = append(q.urgent, c)
	}
	q.ready.Signal()
}

// get waits for a call; it says no when the queue is closed.
func (q *callQueue) get() (Call, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.closed {
		if c, ok := pop(&q.urgent); ok {
			return c, true
		}
		if c, ok := pop(&q.later); ok {
			return c, true
		}
		q.ready.Wait()
	}
	return Call{}, false
}

func pop(list *[]Call) (Call, bool) {
	if len(*list) == 0 {
		return Call{}, false
	}
	c := (*list)[0]
	(*list)[0] = Call{}
	*list = (*list)[1:]
	if len(*list) == 0 {
		*list = nil
	}
	return c, true
}

func (q *callQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.ready.Broadcast()
}
