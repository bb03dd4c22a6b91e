package api

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mesopool/mesopool/agent"
	"github.com/mesopool/mesopool/provider"
)

// Whoever asks what containers use has the backend asked for each of them, which
// with many containers is much. So a container is measured once a second at most,
// and only so many at a time, however many ask.
const (
	statsTime    = 5 * time.Second // for all that one request asks for; what was not measured by then has its limits only
	statsAtATime = 16
	statsFresh   = time.Second
)

// meter measures containers.
type meter struct {
	statser provider.Statser // nil: the backend cannot measure
	places  chan struct{}

	mu    sync.Mutex
	known map[string]*reading // by container
	swept time.Time
}

// reading is one measuring of a container, done or under way. What it found is
// not changed once done is closed.
type reading struct {
	begun time.Time
	done  chan struct{}
	stats provider.Stats
	err   error
}

func newMeter(p provider.Provider) *meter {
	statser, _ := provider.As[provider.Statser](p)
	return &meter{statser: statser, places: make(chan struct{}, statsAtATime), known: map[string]*reading{}}
}

// stats is what a container uses, as of a second ago at most.
func (m *meter) stats(ctx context.Context, id string) (provider.Stats, error) {
	r, mine := m.reading(id)
	if mine {
		if r.stats, r.err = m.measure(ctx, id); r.stats.Time.IsZero() {
			r.stats.Time = r.begun // or the age of what is told again would not be seen
		}
		close(r.done)
		return r.stats, r.err
	}
	select {
	case <-r.done:
		return r.stats, r.err
	case <-ctx.Done():
		return provider.Stats{}, ctx.Err()
	}
}

// reading is the one to wait for; mine is one that the caller has to make.
func (m *meter) reading(id string) (r *reading, mine bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if now.Sub(m.swept) >= statsFresh {
		m.sweep(now)
	}
	if r = m.known[id]; r != nil && !r.old(now) {
		return r, false
	}
	r = &reading{begun: now, done: make(chan struct{})}
	m.known[id] = r
	return r, true
}

// sweep forgets what nobody would be told any more.
func (m *meter) sweep(now time.Time) {
	m.swept = now
	for id, r := range m.known {
		if r.old(now) {
			delete(m.known, id)
		}
	}
}

// old says whether a reading must not be told any more: it is over for long, or it
// has found nothing.
func (r *reading) old(now time.Time) bool {
	select {
	case <-r.done:
		return r.err != nil || now.Sub(r.begun) >= statsFresh
	default:
		return false
	}
}

func (m *meter) measure(ctx context.Context, id string) (provider.Stats, error) {
	select {
	case m.places <- struct{}{}:
	case <-ctx.Done():
		return provider.Stats{}, ctx.Err()
	}
	defer func() { <-m.places }()
	return m.statser.Stats(ctx, id)
}

// asked picks the tasks that a query names: ?framework_id= and ?executor_prefix=,
// which may be there many times. Both are ours: without them all are told, as by a
// genuine agent, which takes no notice of them.
func asked(r *http.Request, all []agent.Task) []agent.Task {
	q := r.URL.Query()
	frameworks, prefixes := q["framework_id"], q["executor_prefix"]
	if len(frameworks)+len(prefixes) == 0 {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(t agent.Task) bool {
		begins := func(prefix string) bool { return strings.HasPrefix(t.Spec.Key.ID, prefix) }
		return len(frameworks) > 0 && !slices.Contains(frameworks, t.Spec.Key.Framework) || len(prefixes) > 0 && !slices.ContainsFunc(prefixes, begins)
	})
}
