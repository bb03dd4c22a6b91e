package libprocess

import (
	"bytes"
	"context"
	"sync"
)

// localQueue holds messages between actors of one node, so that sending to
// oneself neither blocks nor calls back.
type localQueue struct {
	mu    sync.Mutex
	queue []Message
	bytes int // of queue, roughly
	max   int
	wake  chan struct{}
}

func (q *localQueue) init(limit int) {
	q.max = limit
	q.wake = make(chan struct{}, 1)
}

// messageCost is about what a message takes besides its body.
const messageCost = 128

// push adds a message, with a copy of its body; false if there is no room.
func (q *localQueue) push(m Message) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.bytes > 0 && q.bytes+len(m.Body)+messageCost > q.max {
		return false
	}
	m.Body = bytes.Clone(m.Body)
	q.queue = append(q.queue, m)
	q.bytes += len(m.Body) + messageCost
	if len(q.queue) == 1 {
		signal(q.wake)
	}
	return true
}

func (q *localQueue) take() []Message {
	q.mu.Lock()
	defer q.mu.Unlock()
	batch := q.queue
	q.queue, q.bytes = nil, 0
	return batch
}

// run delivers messages in order until ctx ends.
func (q *localQueue) run(ctx context.Context, deliver func(Message)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-q.wake:
		}
		for _, m := range q.take() {
			deliver(m)
		}
	}
}

// signal wakes whoever waits on a channel of capacity one.
func signal(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}
