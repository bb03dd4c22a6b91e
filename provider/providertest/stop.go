package providertest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/mesopool/mesopool/provider"
)

var stopTests = []subtest{
	{"Stop/Graceful", testStopGraceful},
	{"Stop/IgnoringTheWish", testStopDeaf},
	{"Stop/NotRunning", testStopNotRunning},
	{"Stop/Absent", testStopAbsent},
	{"Stop/Twice", testStopTwice},
	{"Remove/Exited", testRemove},
	{"Remove/Running", testRemoveRunning},
	{"Remove/Absent", testRemoveAbsent},
	{"Exit/Codes", testExitCodes},
}

func testStopGraceful(f *fixture) {
	c := f.launch(Program{Run: true})
	begin := time.Now()
	f.stop(c.ID, time.Minute)
	if took := time.Since(begin); took > 5*time.Second {
		f.Errorf("Stop waited %v; it takes the order and returns", took)
	}
	if got := f.inState(c.ID, provider.StateExited); got.Ended.Before(got.Started) {
		f.Errorf("ended %v before it started %v", got.Ended, got.Started)
	}
}

func testStopDeaf(f *fixture) {
	c := f.launch(Program{Run: true, Deaf: true, Lines: 1})
	f.awaitOutput(c.ID)
	begin := time.Now()
	f.stop(c.ID, 2*f.q.Grace)
	if took := time.Since(begin); took > 2*f.q.Grace {
		f.Errorf("Stop waited %v for a container that ignores it", took)
	}
	if got := f.inspect(c.ID); got.State != provider.StateUp && time.Since(begin) < f.q.Grace {
		f.Errorf("the container is %v before the grace is over", got.State)
	}
	got := f.inState(c.ID, provider.StateExited)
	if !f.q.NoExitCode && got.ExitCode != 137 {
		f.Errorf("a killed container's exit code is %d, want 137", got.ExitCode)
	}
}

// awaitOutput waits until the container has written something: its program is
// then past setting up.
func (f *fixture) awaitOutput(id string) {
	l, ok := provider.As[provider.Logger](f.Provider)
	if !ok {
		return
	}
	r, err := l.Logs(f.ctx, id, provider.LogOptions{Follow: true, Stdout: true})
	if err != nil {
		f.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Next(); err != nil {
		f.Fatalf("waiting for output: %v", err)
	}
}

func testStopNotRunning(f *fixture) {
	c := f.launch(Program{})
	f.inState(c.ID, provider.StateExited)
	f.stop(c.ID, f.q.Grace)
}

func testStopAbsent(f *fixture) {
	f.wantErr("Stop of what is not there", f.Provider.Stop(f.ctx, absentID, 0), provider.ErrNotFound)
}

// absentID has the form of every backend's identifiers and is nobody's.
const absentID = "00000000000000000000000000000000000000000000000000000000deadbeef"

func testStopTwice(f *fixture) {
	c := f.launch(Program{Run: true, Deaf: true, Lines: 1})
	f.awaitOutput(c.ID)
	f.stop(c.ID, 10*time.Minute)
	f.stop(c.ID, 0)
	f.inState(c.ID, provider.StateExited)
}

func testRemove(f *fixture) {
	c := f.launch(Program{})
	f.inState(c.ID, provider.StateExited)
	for range 2 {
		if err := f.Provider.Remove(f.ctx, c.ID); err != nil {
			f.Fatalf("Remove: %v", err)
		}
	}
	_, err := f.Provider.Inspect(f.ctx, c.ID)
	f.wantErr("Inspect after Remove", err, provider.ErrNotFound)
}

func testRemoveRunning(f *fixture) {
	c := f.launch(Program{Run: true})
	if err := f.Provider.Remove(f.ctx, c.ID); err == nil {
		f.Error("Remove of a running container succeeded")
	}
	if got := f.inspect(c.ID); got.State != provider.StateUp {
		f.Errorf("the refused Remove made it %v", got.State)
	}
}

func testRemoveAbsent(f *fixture) {
	if err := f.Provider.Remove(f.ctx, absentID); err != nil {
		f.Errorf("Remove of what is not there: %v", err)
	}
}

func testExitCodes(f *fixture) {
	for _, code := range []int{0, 1, 42, 255} {
		c := f.launch(Program{Exit: code})
		got := f.inState(c.ID, provider.StateExited)
		if f.q.NoExitCode {
			continue
		}
		if !got.HasExit || got.ExitCode != code || got.OOMKilled {
			f.Errorf("a container that ended with %d is told as %+v", code, got)
		}
	}
}

var inspectTests = []subtest{
	{"Inspect/Absent", testInspectAbsent},
	{"Inspect/ByName", testInspectByName},
	{"Inspect/Addresses", testInspectAddresses},
	{"Context/Cancelled", testCancelled},
}

func testInspectAbsent(f *fixture) {
	_, err := f.Provider.Inspect(f.ctx, absentID)
	f.wantErr("Inspect of what is not there", err, provider.ErrNotFound)
}

// After a lost answer the name is all that the caller knows.
func testInspectByName(f *fixture) {
	c := f.launch(Program{Run: true})
	if got := f.inspect(c.Name); got.ID != c.ID {
		f.Errorf("Inspect(%s) is %s, want %s", c.Name, got.ID, c.ID)
	}
}

func testInspectAddresses(f *fixture) {
	if f.q.NoAddress {
		f.Skip("containers of this backend have no address of their own")
	}
	seen := map[string]string{}
	for range 3 {
		c := f.launch(Program{Run: true})
		up := f.settled(c.ID, "up with an address", func(c provider.Container) bool { return len(c.Addresses) > 0 })
		if up.Network == "" {
			f.Errorf("address %s is of no network", up.Addresses[0])
		}
		if before, twice := seen[up.Addresses[0]]; twice {
			f.Errorf("%s and %s have the same address %s", before, up.Name, up.Addresses[0])
		}
		seen[up.Addresses[0]] = up.Name
	}
	for _, c := range f.list(f.Owner) {
		if len(c.Addresses) == 0 {
			f.Errorf("Watch tells %s, which is %v, without its address", c.Name, c.State)
		}
	}
}

func testCancelled(f *fixture) {
	c := f.launch(Program{Run: true})
	ctx, cancel := context.WithCancel(f.ctx)
	cancel()
	calls := map[string]func() error{
		"Capacity": func() error { _, err := f.Provider.Capacity(ctx); return err },
		"Inspect":  func() error { _, err := f.Provider.Inspect(ctx, c.ID); return err },
		"Stop":     func() error { return f.Provider.Stop(ctx, c.ID, time.Minute) },
		"Remove":   func() error { return f.Provider.Remove(ctx, c.ID) },
	}
	for name, call := range calls {
		f.Run(name, func(t *testing.T) {
			begin := time.Now()
			if err := call(); !errors.Is(err, context.Canceled) {
				t.Errorf("got error %v, want %v", err, context.Canceled)
			}
			if took := time.Since(begin); took > 2*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}
