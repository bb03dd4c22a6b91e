package store_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/mesopool/mesopool/store"
	"github.com/mesopool/mesopool/store/storetest"
)

func TestMemory(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store { return store.NewMemory() }, nil)
}

func TestBolt(t *testing.T) {
	path := ""
	open := func(t *testing.T) store.Store {
		b, err := store.OpenBolt(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		return b
	}
	fresh := func(t *testing.T) store.Store {
		path = filepath.Join(t.TempDir(), "sub", "state.db")
		return open(t)
	}
	storetest.Run(t, fresh, func(t *testing.T, s store.Store) store.Store {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return open(t)
	})
}

func TestBoltInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	first, err := store.OpenBolt(path)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if _, err := store.OpenBolt(path); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("second open: %v, want a sentence that says the file is in use", err)
	}
}
