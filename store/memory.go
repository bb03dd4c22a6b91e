package store

import (
	"context"
	"slices"
	"strings"
	"sync"
)

// Memory keeps everything in memory; nothing survives the process.
type Memory struct {
	mu      sync.Mutex
	entries map[string]Entry
	version uint64
}

// NewMemory returns an empty store.
func NewMemory() *Memory { return &Memory{entries: make(map[string]Entry)} }

// Get implements Store.
func (m *Memory) Get(_ context.Context, key string) (Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.entries[key]
	if !ok {
		return Entry{}, ErrNotFound
	}
	return e, nil
}

// List implements Store.
func (m *Memory) List(_ context.Context, prefix string) ([]Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Entry
	for k, e := range m.entries {
		if strings.HasPrefix(k, prefix) {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b Entry) int { return strings.Compare(a.Key, b.Key) })
	return out, nil
}

// Commit implements Store.
func (m *Memory) Commit(_ context.Context, ops []Op) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, op := range ops {
		if op.If != nil && m.entries[op.Key].Version != *op.If {
			return ErrConflict
		}
	}
	for _, op := range ops {
		if op.Value == nil {
			delete(m.entries, op.Key)
			continue
		}
		m.version++
		m.entries[op.Key] = Entry{Key: op.Key, Value: slices.Clone(op.Value), Version: m.version}
	}
	return nil
}

// Close implements Store. A closed Memory keeps what it has, so that tests can
// open it again.
func (m *Memory) Close() error { return nil }
