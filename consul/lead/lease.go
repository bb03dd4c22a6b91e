package lead

import (
	"sync"
	"time"
)

// lease says until when a session is surely ours. It is told by two clocks,
// because the monotonic one may stand still while a machine sleeps and the other
// may be set: whichever says first that the time is over is believed.
type lease struct {
	length time.Duration
	over   func() // is called when the time is over, perhaps late

	mu    sync.Mutex
	until time.Time
	timer *time.Timer
}

// newLease begins at the time at which the session was asked for.
func newLease(length time.Duration, asked time.Time, over func()) *lease {
	l := &lease{length: length, over: over, until: asked.Add(length)}
	l.timer = time.AfterFunc(time.Until(l.until), over)
	return l
}

// extend counts from when a renewal was asked for, not from its answer.
func (l *lease) extend(asked time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.valid(time.Now()) { // what is over stays over
		l.until = asked.Add(l.length)
		l.timer.Reset(time.Until(l.until))
	}
}

func (l *lease) holds() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.valid(time.Now())
}

func (l *lease) valid(now time.Time) bool {
	return now.Before(l.until) && now.Round(0).Before(l.until.Round(0))
}

func (l *lease) stop() { l.timer.Stop() }
