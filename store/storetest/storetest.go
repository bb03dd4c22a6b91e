// Package storetest is the suite that every store.Store passes.
package storetest

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mesopool/mesopool/store"
)

// Run tests the contract on stores made by open. When reopen is not nil it
// closes a store and opens the same data again.
func Run(t *testing.T, open func(t *testing.T) store.Store, reopen func(t *testing.T, s store.Store) store.Store) {
	t.Run("GetAndList", func(t *testing.T) { getAndList(t, open(t)) })
	t.Run("CompareAndSet", func(t *testing.T) { compareAndSet(t, open(t)) })
	t.Run("AllOrNothing", func(t *testing.T) { allOrNothing(t, open(t)) })
	t.Run("VersionsGrow", func(t *testing.T) { versionsGrow(t, open(t)) })
	t.Run("ValuesAreCopies", func(t *testing.T) { valuesAreCopies(t, open(t)) })
	if reopen != nil {
		t.Run("Durable", func(t *testing.T) { durable(t, open(t), reopen) })
	}
}

func put(key, value string) store.Op { return store.Op{Key: key, Value: []byte(value)} }

func commit(t *testing.T, s store.Store, ops ...store.Op) {
	t.Helper()
	if err := s.Commit(context.Background(), ops); err != nil {
		t.Fatalf("Commit: %v", err)
	}
}

func list(t *testing.T, s store.Store, prefix string) map[string]string {
	t.Helper()
	entries, err := s.List(context.Background(), prefix)
	if err != nil {
		t.Fatalf("List(%q): %v", prefix, err)
	}
	out := map[string]string{}
	last := ""
	for _, e := range entries {
		if e.Key <= last && last != "" {
			t.Errorf("List is not sorted: %q after %q", e.Key, last)
		}
		if e.Version == 0 {
			t.Errorf("%q has version 0", e.Key)
		}
		last = e.Key
		out[e.Key] = string(e.Value)
	}
	return out
}

func getAndList(t *testing.T, s store.Store) {
	if _, err := s.Get(context.Background(), "a/1"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Get of an absent key: %v, want ErrNotFound", err)
	}
	commit(t, s, put("a/2", "two"), put("a/1", "one"), put("b/1", "other"), put("a", "root"))
	want := map[string]string{"a/1": "one", "a/2": "two"}
	if d := cmp.Diff(want, list(t, s, "a/")); d != "" {
		t.Errorf("List(a/) (-want +got):\n%s", d)
	}
	commit(t, s, store.Op{Key: "a/1"}, store.Op{Key: "never/there"})
	if d := cmp.Diff(map[string]string{"a/2": "two"}, list(t, s, "a/")); d != "" {
		t.Errorf("after the delete (-want +got):\n%s", d)
	}
	e, err := s.Get(context.Background(), "b/1")
	if err != nil || string(e.Value) != "other" || e.Key != "b/1" {
		t.Errorf("Get(b/1) = %+v, %v", e, err)
	}
}

func compareAndSet(t *testing.T, s store.Store) {
	absent := uint64(0)
	commit(t, s, store.Op{Key: "k", Value: []byte("1"), If: &absent})
	if err := s.Commit(context.Background(), []store.Op{{Key: "k", Value: []byte("2"), If: &absent}}); !errors.Is(err, store.ErrConflict) {
		t.Errorf("create of an existing key: %v, want ErrConflict", err)
	}
	e, err := s.Get(context.Background(), "k")
	if err != nil {
		t.Fatal(err)
	}
	commit(t, s, store.Op{Key: "k", Value: []byte("2"), If: &e.Version})
	if err := s.Commit(context.Background(), []store.Op{{Key: "k", If: &e.Version}}); !errors.Is(err, store.ErrConflict) {
		t.Errorf("delete at an old version: %v, want ErrConflict", err)
	}
}

func allOrNothing(t *testing.T, s store.Store) {
	commit(t, s, put("k", "1"))
	wrong := uint64(1 << 60)
	err := s.Commit(context.Background(), []store.Op{put("new", "x"), {Key: "k", Value: []byte("2"), If: &wrong}, put("new2", "y")})
	if !errors.Is(err, store.ErrConflict) {
		t.Errorf("Commit: %v, want ErrConflict", err)
	}
	if d := cmp.Diff(map[string]string{"k": "1"}, list(t, s, "")); d != "" {
		t.Errorf("a refused commit changed something (-want +got):\n%s", d)
	}
}

func versionsGrow(t *testing.T, s store.Store) {
	var last uint64
	for range 3 {
		commit(t, s, store.Op{Key: "k"}, put("k", "again"))
		e, err := s.Get(context.Background(), "k")
		if err != nil || e.Version <= last {
			t.Fatalf("version %d after %d (%v): versions must grow, even over a delete", e.Version, last, err)
		}
		last = e.Version
	}
}

func valuesAreCopies(t *testing.T, s store.Store) {
	v := []byte("mine")
	commit(t, s, store.Op{Key: "k", Value: v})
	v[0] = 'X'
	e, err := s.Get(context.Background(), "k")
	if err != nil || string(e.Value) != "mine" {
		t.Errorf("Get = %q, %v: the store kept the caller's slice", e.Value, err)
	}
}

func durable(t *testing.T, s store.Store, reopen func(*testing.T, store.Store) store.Store) {
	commit(t, s, put("a", "1"), put("b", "2"))
	commit(t, s, store.Op{Key: "b"})
	s = reopen(t, s)
	if d := cmp.Diff(map[string]string{"a": "1"}, list(t, s, "")); d != "" {
		t.Errorf("after opening again (-want +got):\n%s", d)
	}
}
