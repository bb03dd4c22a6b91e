package link

import (
	"maps"
	"sync"
)

// refusals counts what was not believed, by kind. The kinds are ours, so there
// are few.
type refusals struct {
	mu     sync.Mutex
	counts map[string]uint64
}

// count returns how often it has been so, this time included.
func (r *refusals) count(kind string) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts == nil {
		r.counts = map[string]uint64{}
	}
	r.counts[kind]++
	return r.counts[kind]
}

// drop counts something that is not done, and logs it the first, the tenth, the
// hundredth time: whoever floods us does not flood the log.
func (l *Link) drop(kind, text string, args ...any) {
	n := l.refused.count(kind)
	for n > 1 && n%10 == 0 {
		n /= 10
	}
	if n == 1 {
		l.log.Warn(text, args...)
	}
}

// Refused says how many messages were not believed, by kind.
func (l *Link) Refused() map[string]uint64 {
	l.refused.mu.Lock()
	defer l.refused.mu.Unlock()
	return maps.Clone(l.refused.counts)
}
