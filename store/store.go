// Package store is a tiny versioned key–value contract, with a memory and a
// bbolt implementation behind it (Consul's is in package consul/lead).
//
// It knows nothing of what it keeps. Every value is bytes; every key is a
// slash-separated path such as "agent/task/0001". A Commit is atomic: all of
// its operations hold after a crash or none does. All implementations pass
// the suite in store/storetest.
package store

import (
	"context"
	"errors"
)

// Store keeps values by key. It may be used concurrently.
type Store interface {
	// Get returns the entry, or ErrNotFound.
	Get(ctx context.Context, key string) (Entry, error)

	// List returns every entry whose key starts with prefix, sorted by key.
	List(ctx context.Context, prefix string) ([]Entry, error)

	// Commit applies all operations at once, durably, or none of them. It
	// fails with ErrConflict when an Op's If does not hold, and then nothing
	// changed. It keeps none of the operations' memory.
	Commit(ctx context.Context, ops []Op) error

	// Close releases what the store holds. Calls after it fail.
	Close() error
}

// Entry is a stored value with its version, which grows with every write of
// the key and is never 0.
type Entry struct {
	Key     string
	Value   []byte
	Version uint64
}

// Op is one write. A nil Value deletes the key; deleting what is not there
// succeeds.
type Op struct {
	Key   string
	Value []byte
	If    *uint64 // nil: always; 0: only if the key is absent; else only at this version
}

// The errors of a Store.
var (
	ErrNotFound = errors.New("store: no such key")
	ErrConflict = errors.New("store: the key has changed since it was read")
)
