package runner

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mesopool/mesopool/marathon"
	"github.com/mesopool/mesopool/store"
)

// TestCallbacksAreKept: who has subscribed is subscribed after a restart.
func TestCallbacksAreKept(t *testing.T) {
	s := store.NewMemory()
	log := slog.New(slog.DiscardHandler)
	got := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.URL.Path }))
	defer server.Close()
	c, err := loadCallbacks(t.Context(), s, newBus(), log)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Add(t.Context(), server.URL+"/a?b=c/d"); err != nil {
		t.Fatal(err)
	}
	bus := newBus()
	if c, err = loadCallbacks(t.Context(), s, bus, log); err != nil || !slices.Equal(c.List(), []string{server.URL + "/a?b=c/d"}) {
		t.Fatalf("%v, %v", c.List(), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- c.run(ctx) }()
	for posted := false; !posted; {
		bus.publish(marathon.Event{Type: "x", Time: time.Now()})
		select {
		case path := <-got:
			posted = path == "/a"
		case <-time.After(5 * time.Millisecond):
		}
	}
	cancel()
	go func() {
		for range got { // what is on its way
		}
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if known, err := c.Remove(t.Context(), server.URL+"/a?b=c/d"); !known || err != nil {
		t.Error(known, err)
	}
	if known, _ := c.Remove(t.Context(), "http://never"); known {
		t.Error("what was never there was removed")
	}
	if left, _ := s.List(t.Context(), ""); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestCallbacksAreBounded(t *testing.T) {
	c, err := loadCallbacks(t.Context(), store.NewMemory(), newBus(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for n := range mostCallbacks + 1 {
		err = c.Add(t.Context(), "http://x/"+strings.Repeat("x", n))
	}
	if err == nil || len(c.List()) != mostCallbacks {
		t.Errorf("%d, %v", len(c.List()), err)
	}
}
