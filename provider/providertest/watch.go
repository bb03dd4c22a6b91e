package providertest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

var watchTests = []subtest{
	{"Watch/AllThenSynced", testWatchAll},
	{"Watch/Empty", testWatchEmpty},
	{"Watch/Changes", testWatchChanges},
	{"Watch/GoneAfterRemove", testWatchRemoved},
	{"Watch/GoneAfterVanishing", testWatchVanished},
	{"Watch/Owners", testWatchOwners},
	{"Watch/Foreign", testWatchForeign},
	{"Watch/EndsWithContext", testWatchEnds},
	{"Watch/ConsumerLeaves", testWatchLeave},
	{"Watch/AgainAfterBreak", testWatchBreak},
	{"Watch/TwoWatchers", testWatchTwo},
	{"Watch/SlowConsumer", testWatchSlow},
}

// telling is a running Watch.
type telling struct {
	*fixture
	events chan provider.Event
	ended  chan error // the last pair's error, nil when there was none
	cancel context.CancelFunc
}

func (f *fixture) watch(o task.Owner) *telling {
	ctx, cancel := context.WithCancel(f.ctx)
	w := &telling{fixture: f, events: make(chan provider.Event, 10000), ended: make(chan error, 1), cancel: cancel}
	f.Cleanup(cancel)
	go func() {
		var last error
		for ev, err := range f.Provider.Watch(ctx, o) {
			if last = err; err == nil {
				w.events <- ev
			}
		}
		w.ended <- last
	}()
	return w
}

// until takes events until ok says yes, which must happen in the settle time.
func (w *telling) until(what string, ok func(provider.Event) bool) provider.Event {
	w.Helper()
	timeout := time.After(w.q.Settle)
	for {
		select {
		case ev := <-w.events:
			if ok(ev) {
				return ev
			}
		case err := <-w.ended:
			w.Fatalf("Watch ended before it told %s: %v", what, err)
		case <-timeout:
			w.Fatalf("Watch did not tell %s", what)
		}
	}
}

// synced takes events up to Synced and returns the containers told.
func (w *telling) synced() map[string]provider.Container {
	w.Helper()
	all := map[string]provider.Container{}
	w.until("that it is synced", func(ev provider.Event) bool {
		if !ev.Synced {
			all[ev.Container.ID] = ev.Container
		}
		return ev.Synced
	})
	return all
}

func (w *telling) state(id string, s provider.State) provider.Container {
	w.Helper()
	return w.until(id+" "+s.String(), func(ev provider.Event) bool {
		return ev.Container.ID == id && ev.Container.State == s
	}).Container
}

// end waits for the watch to end and returns its error.
func (w *telling) end() error {
	w.Helper()
	select {
	case err := <-w.ended:
		return err
	case <-time.After(w.q.Settle):
		w.Fatal("Watch did not end")
		return nil
	}
}

// list is what the owner has, by ID.
func (f *fixture) list(o task.Owner) map[string]provider.Container {
	f.Helper()
	w := f.watch(o)
	defer w.cancel()
	return w.synced()
}

func testWatchAll(f *fixture) {
	up, ended := f.launch(Program{Run: true}), f.launch(Program{Exit: 3})
	f.inState(ended.ID, provider.StateExited)
	all := f.list(f.Owner)
	want := map[string]provider.State{up.ID: provider.StateUp, ended.ID: provider.StateExited}
	got := map[string]provider.State{}
	for id, c := range all {
		got[id] = c.State
	}
	if !maps.Equal(got, want) {
		f.Errorf("told %v, want %v", got, want)
	}
	if c := all[ended.ID]; !f.q.NoExitCode && (!c.HasExit || c.ExitCode != 3) {
		f.Errorf("the exit code of a listed container is %d, %v; want 3", c.ExitCode, c.HasExit)
	}
}

func testWatchEmpty(f *fixture) {
	if all := f.list(f.Owner); len(all) != 0 {
		f.Errorf("an owner without containers has %v", all)
	}
}

func testWatchChanges(f *fixture) {
	w := f.watch(f.Owner)
	w.synced()
	c := f.launch(Program{Run: true})
	up := w.state(c.ID, provider.StateUp)
	if up.Owner != f.Owner || up.Name != c.Name || (len(up.Addresses) == 0 && !f.q.NoAddress) {
		f.Errorf("a started container is told as %+v", up)
	}
	f.stop(c.ID, f.q.Grace)
	down := w.state(c.ID, provider.StateExited)
	if !f.q.NoExitCode && !down.HasExit {
		f.Errorf("an ended container is told without its exit code: %+v", down)
	}
}

func testWatchRemoved(f *fixture) {
	w := f.watch(f.Owner)
	w.synced()
	c := f.launch(Program{})
	w.state(c.ID, provider.StateExited)
	if err := f.Provider.Remove(f.ctx, c.ID); err != nil {
		f.Fatal(err)
	}
	w.state(c.ID, provider.StateGone)
}

func testWatchVanished(f *fixture) {
	f.need(f.Vanish != nil, "make a container vanish")
	c := f.launch(Program{Run: true})
	w := f.watch(f.Owner)
	w.synced()
	f.Vanish(f.T, c.ID)
	if gone := w.state(c.ID, provider.StateGone); gone.Name != c.Name {
		f.Errorf("the vanished container is called %q, want %q", gone.Name, c.Name)
	}
}

func testWatchOwners(f *fixture) {
	owners := []task.Owner{
		f.Owner,
		f.other(task.Owner{Cluster: f.Owner.Cluster + "-2", Agent: f.Owner.Agent}),
		f.other(task.Owner{Cluster: f.Owner.Cluster, Agent: f.Owner.Agent + "-2"}),
	}
	before := f.launchAs(owners[0], f.name(), f.spec(Program{Run: true})).ID
	var watches []*telling
	for _, o := range owners {
		w := f.watch(o)
		w.synced()
		watches = append(watches, w)
	}
	own := []string{before}
	for i, o := range owners {
		id := f.launchAs(o, f.name(), f.spec(Program{Run: true})).ID
		watches[i].state(id, provider.StateUp)
		own = append(own, id)
	}
	for i, w := range watches {
		w.onlyTells(owners[i], own[i+1], before)
	}
}

// onlyTells drains what was told and fails at anything but the given IDs.
func (w *telling) onlyTells(o task.Owner, ids ...string) {
	w.Helper()
	time.Sleep(50 * time.Millisecond)
	for len(w.events) > 0 {
		if c := (<-w.events).Container; !slices.Contains(ids, c.ID) || c.Owner != o {
			w.Errorf("the watch of %v told %v's %s", o, c.Owner, c.Name)
		}
	}
}

func testWatchForeign(f *fixture) {
	f.need(f.Foreign != nil, "make a foreign container")
	f.Foreign(f.T, f.name())
	w := f.watch(f.Owner)
	if all := w.synced(); len(all) != 0 {
		f.Errorf("told foreign containers: %v", all)
	}
	f.Foreign(f.T, f.name())
	c := f.launch(Program{Run: true})
	w.until("the own container and nothing else", func(ev provider.Event) bool {
		if ev.Container.ID != c.ID {
			f.Errorf("told the foreign %s", ev.Container.Name)
		}
		return ev.Container.State == provider.StateUp
	})
}

func testWatchEnds(f *fixture) {
	w := f.watch(f.Owner)
	w.synced()
	w.cancel()
	if err := w.end(); err != nil && !errors.Is(err, context.Canceled) {
		f.Errorf("the watch ended with %v", err)
	}
}

func testWatchLeave(f *fixture) {
	f.launch(Program{Run: true})
	f.launch(Program{Run: true})
	done := make(chan bool)
	go func() {
		defer close(done)
		for range f.Provider.Watch(f.ctx, f.Owner) {
			break
		}
	}()
	select {
	case <-done:
	case <-time.After(f.q.Settle):
		f.Error("Watch goes on after its consumer left")
	}
}

func testWatchBreak(f *fixture) {
	f.need(f.Break != nil, "cut a watch")
	first := f.launch(Program{Run: true})
	w := f.watch(f.Owner)
	w.synced()
	f.Break(f.T)
	if err := w.end(); err == nil {
		f.Error("a cut watch ended without an error")
	}
	second, err := launchUntilDone(f.ctx, f.Provider, f.Owner, f.name(), f.spec(Program{Run: true}))
	if err != nil {
		f.Fatalf("Launch after the cut: %v", err)
	}
	all := f.list(f.Owner)
	for _, id := range []string{first.ID, second.ID} {
		if all[id].State != provider.StateUp {
			f.Errorf("watching again told %s as %v", id, all[id].State)
		}
	}
}

func testWatchTwo(f *fixture) {
	a, b := f.watch(f.Owner), f.watch(f.Owner)
	a.synced()
	b.synced()
	c := f.launch(Program{})
	a.state(c.ID, provider.StateExited)
	b.state(c.ID, provider.StateExited)
}

// testWatchSlow: a consumer that sleeps through changes is told how things are
// when it wakes up, and holds up nobody.
func testWatchSlow(f *fixture) {
	wake, told := make(chan bool), make(chan provider.State, 1000)
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	synced := make(chan bool)
	go func() {
		for ev, err := range f.Provider.Watch(ctx, f.Owner) {
			switch {
			case err != nil:
				return
			case ev.Synced:
				close(synced)
				<-wake
			default:
				told <- ev.Container.State
			}
		}
	}()
	<-synced
	c := f.launch(Program{})
	f.inState(c.ID, provider.StateExited)
	close(wake)
	timeout := time.After(f.q.Settle)
	for state := provider.StateNone; state != provider.StateExited; {
		select {
		case state = <-told:
		case <-timeout:
			f.Fatalf("the slow consumer was told %v last", state)
		}
	}
}
