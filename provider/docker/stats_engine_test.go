package docker

import (
	"errors"
	"testing"

	"github.com/mesopool/mesopool/provider"
)

func TestStatsAndMemoryOnEngine(t *testing.T) {
	e := newEngine(t, nil)
	c, err := run(t, e, "stats", helperSpec("run"))
	if err != nil {
		t.Fatal(err)
	}
	before, err := e.Stats(t.Context(), c.ID)
	if err != nil || before.Time.IsZero() || before.MemLimit == 0 || before.Processes == 0 {
		t.Fatalf("stats %+v, %v", before, err)
	}
	if err := e.UpdateMemory(t.Context(), c.ID, 96); err != nil {
		t.Fatal(err)
	}
	if after, err := e.Stats(t.Context(), c.ID); err != nil || after.MemLimit != 96<<20 {
		t.Errorf("after the update %+v, %v", after, err)
	}
	if err := e.UpdateMemory(t.Context(), c.ID, 1); !errors.Is(err, provider.ErrRejected) {
		t.Errorf("a limit of 1 MiB: %v", err)
	}
	if _, err := e.Stats(t.Context(), "none-such"); !errors.Is(err, provider.ErrNotFound) {
		t.Errorf("stats of nothing: %v", err)
	}
}
