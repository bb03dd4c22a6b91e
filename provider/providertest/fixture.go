package providertest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// fixture is one subtest's backend with what the tests do to it.
type fixture struct {
	*testing.T
	Setup
	q   Quirks
	ctx context.Context
}

func newFixture(t *testing.T, s Setup, q Quirks) *fixture {
	ctx, cancel := context.WithTimeout(t.Context(), 10*q.Settle)
	t.Cleanup(cancel)
	f := &fixture{T: t, Setup: s, q: q, ctx: ctx}
	f.sweepAfter(s.Owner)
	return f
}

var names atomic.Int64

// name returns a container name that no other call returned.
func (f *fixture) name() string {
	return fmt.Sprintf("conf-%x-%d", time.Now().UnixNano(), names.Add(1))
}

// spec is a complete spec that does as p says.
func (f *fixture) spec(p Program) task.Spec {
	s := f.Spec(p)
	s.Key = task.Key{Framework: "framework-0001", ID: fmt.Sprintf("task.%d", names.Add(1))}
	s.Resources = resources.NewScalars(
		resources.Scalar{Name: "cpus", Amount: 100}, resources.Scalar{Name: "mem", Amount: resources.Whole(32)}).Resources()
	return s
}

func (f *fixture) launch(p Program) provider.Container {
	f.Helper()
	return f.launchAs(f.Owner, f.name(), f.spec(p))
}

func (f *fixture) launchAs(o task.Owner, name string, s task.Spec) provider.Container {
	f.Helper()
	c, err := f.Provider.Launch(f.ctx, o, name, s)
	if err != nil {
		f.Fatalf("Launch(%s): %v", name, err)
	}
	if c.ID == "" || c.Name != name {
		f.Fatalf("Launch(%s) returned ID %q, name %q", name, c.ID, c.Name)
	}
	return c
}

func (f *fixture) inspect(id string) provider.Container {
	f.Helper()
	c, err := f.Provider.Inspect(f.ctx, id)
	if err != nil {
		f.Fatalf("Inspect(%s): %v", id, err)
	}
	return c
}

// settled inspects until ok says yes, for at most the settle time.
func (f *fixture) settled(id, what string, ok func(provider.Container) bool) provider.Container {
	f.Helper()
	end := time.Now().Add(f.q.Settle)
	for {
		c := f.inspect(id)
		if ok(c) {
			return c
		}
		if time.Now().After(end) {
			f.Fatalf("container %s never was %s; it is %+v", id, what, c)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (f *fixture) inState(id string, s provider.State) provider.Container {
	f.Helper()
	return f.settled(id, s.String(), func(c provider.Container) bool { return c.State == s })
}

func (f *fixture) stop(id string, grace time.Duration) {
	f.Helper()
	if err := f.Provider.Stop(f.ctx, id, grace); err != nil {
		f.Fatalf("Stop(%s): %v", id, err)
	}
}

// wantErr fails unless err is want.
func (f *fixture) wantErr(what string, err, want error) {
	f.Helper()
	if !errors.Is(err, want) {
		f.Fatalf("%s: got error %v, want %v", what, err, want)
	}
}

// other returns a further owner whose containers are removed after the test.
func (f *fixture) other(o task.Owner) task.Owner {
	f.sweepAfter(o)
	return o
}

// sweepAfter stops and removes all that the owner has when the test ends.
func (f *fixture) sweepAfter(o task.Owner) {
	f.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 3*f.q.Settle)
		defer cancel()
		for ev, err := range f.Provider.Watch(ctx, o) {
			if err != nil {
				f.Errorf("sweep: %v", err)
			}
			if err != nil || ev.Synced {
				break
			}
			f.sweep(ctx, ev.Container.ID)
		}
	})
}

func (f *fixture) sweep(ctx context.Context, id string) {
	if err := f.Provider.Stop(ctx, id, 0); err != nil && !errors.Is(err, provider.ErrNotFound) {
		f.Errorf("sweep: stop: %v", err)
	}
	for f.Provider.Remove(ctx, id) != nil {
		if ctx.Err() != nil {
			f.Errorf("sweep: container %s cannot be removed", id)
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// need skips the test, by name, where the environment lacks something.
func (f *fixture) need(ok bool, what string) {
	f.Helper()
	if !ok {
		f.Skipf("the backend's environment offers no way to %s", what)
	}
}
