package providertest

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

var launchTests = []subtest{
	{"Capacity", testCapacity},
	{"Launch/Up", testLaunchUp},
	{"Launch/AgainWhileUp", testLaunchAgain},
	{"Launch/AgainAfterExit", testLaunchExited},
	{"Launch/AgainAfterCreateOnly", testLaunchCreated},
	{"Launch/ConcurrentSameName", testLaunchConcurrent},
	{"Launch/ForeignName", testLaunchForeign},
	{"Launch/OtherOwnersName", testLaunchOtherOwner},
	{"Launch/UnknownImage", testLaunchUnknownImage},
	{"Launch/LongLowerCaseName", testLaunchLongName},
	{"Launch/LabelsRoundTrip", testLaunchLabels},
	{"Launch/CancelledContext", testLaunchCancelled},
}

func testCapacity(f *fixture) {
	c, err := f.Provider.Capacity(f.ctx)
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range []string{"cpus", "mem"} {
		if c.Total.Get(name) <= 0 {
			f.Errorf("capacity %v has no %s", c.Total, name)
		}
	}
}

func testLaunchUp(f *fixture) {
	c := f.launch(Program{Run: true})
	if c.State != provider.StateUp {
		f.Errorf("Launch returned a container that is %v", c.State)
	}
	up := f.inState(c.ID, provider.StateUp)
	if up.Name != c.Name || up.Owner != f.Owner || up.Started.IsZero() || up.HasExit {
		f.Errorf("a running container is %+v", up)
	}
}

func testLaunchAgain(f *fixture) {
	name, spec := f.name(), f.spec(Program{Run: true})
	first := f.launchAs(f.Owner, name, spec)
	second := f.launchAs(f.Owner, name, spec)
	if second.ID != first.ID || second.State != provider.StateUp {
		f.Errorf("the second Launch returned %s, %v; want %s, up", second.ID, second.State, first.ID)
	}
}

func testLaunchExited(f *fixture) {
	name, spec := f.name(), f.spec(Program{})
	first := f.launchAs(f.Owner, name, spec)
	ended := f.inState(first.ID, provider.StateExited)
	second := f.launchAs(f.Owner, name, spec)
	if second.ID != first.ID || second.State != provider.StateExited {
		f.Errorf("Launch after the end returned %s, %v; want %s, exited", second.ID, second.State, first.ID)
	}
	if again := f.inspect(first.ID); !again.Started.Equal(ended.Started) {
		f.Errorf("the container was started again: %v, then %v", ended.Started, again.Started)
	}
}

func testLaunchCreated(f *fixture) {
	f.need(f.Create != nil, "leave a container created and not started")
	name, spec := f.name(), f.spec(Program{Run: true})
	f.Create(f.T, f.Owner, name, spec)
	c := f.launchAs(f.Owner, name, spec)
	if got := f.inState(c.ID, provider.StateUp); got.Key != spec.Key {
		f.Errorf("its key is %v, want %v", got.Key, spec.Key)
	}
}

func testLaunchConcurrent(f *fixture) {
	name, spec := f.name(), f.spec(Program{Run: true})
	var wg sync.WaitGroup
	ids := make([]string, 8)
	for i := range ids {
		wg.Go(func() {
			c, err := launchUntilDone(f.ctx, f.Provider, f.Owner, name, spec)
			if err != nil {
				f.Errorf("concurrent Launch: %v", err)
			}
			ids[i] = c.ID
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			f.Fatalf("one name gave several containers: %v", ids)
		}
	}
	if n := len(f.list(f.Owner)); n != 1 {
		f.Errorf("the owner has %d containers, want 1", n)
	}
}

// launchUntilDone repeats Launch as the contract asks, a few times.
func launchUntilDone(ctx context.Context, p provider.Provider, o task.Owner, name string, s task.Spec) (c provider.Container, err error) {
	for range 5 {
		if c, err = p.Launch(ctx, o, name, s); err == nil {
			return c, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return c, err
}

func testLaunchForeign(f *fixture) {
	f.need(f.Foreign != nil, "make a foreign container")
	name := f.name()
	id := f.Foreign(f.T, name)
	_, err := f.Provider.Launch(f.ctx, f.Owner, name, f.spec(Program{Run: true}))
	f.wantErr("Launch with a foreign container's name", err, provider.ErrRejected)
	if c := f.inspect(id); c.State != provider.StateUp || c.Owner != (task.Owner{}) {
		f.Errorf("the foreign container is now %+v", c)
	}
}

func testLaunchOtherOwner(f *fixture) {
	other := f.other(task.Owner{Cluster: f.Owner.Cluster, Agent: f.Owner.Agent + "-2"})
	name := f.name()
	theirs := f.launchAs(other, name, f.spec(Program{Run: true}))
	_, err := f.Provider.Launch(f.ctx, f.Owner, name, f.spec(Program{Run: true}))
	f.wantErr("Launch with another agent's name", err, provider.ErrRejected)
	if c := f.inspect(theirs.ID); c.State != provider.StateUp || c.Owner != other {
		f.Errorf("the other agent's container is now %+v", c)
	}
}

func testLaunchUnknownImage(f *fixture) {
	f.need(f.Missing != "", "name an image that is known to be missing")
	spec := f.spec(Program{Run: true})
	spec.Image = f.Missing
	_, err := f.Provider.Launch(f.ctx, f.Owner, f.name(), spec)
	f.wantErr("Launch of an unknown image", err, provider.ErrRejected)
	if !strings.Contains(err.Error(), f.Missing) {
		f.Errorf("the error does not name the image %s: %v", f.Missing, err)
	}
	if got := f.list(f.Owner); len(got) != 0 {
		f.Errorf("the refused Launch left %v", got)
	}
}

func testLaunchLongName(f *fixture) {
	name := (f.name() + "-" + strings.Repeat("x9-", 20))[:61] + "z"
	f.launchAs(f.Owner, name, f.spec(Program{Run: true}))
	for _, c := range f.list(f.Owner) {
		if c.Name != name {
			f.Errorf("the container called %s is listed as %s", name, c.Name)
		}
	}
}

func testLaunchLabels(f *fixture) {
	spec := f.spec(Program{Run: true})
	spec.Key = task.Key{Framework: "20260101-1.2.3.4:5050-0000 ö", ID: `ct:1700000000000:0:"odd" job=ü/x,y;{}`}
	spec.Resources = spec.Resources.Allocated("web/eu")
	spec.Labels = []task.Label{{Key: "team", Value: "a=b c"}, {Key: provider.LabelCluster, Value: "evil"}}
	c := f.launchAs(f.Owner, f.name(), spec)
	for how, got := range map[string]provider.Container{"Launch": c, "Inspect": f.inspect(c.ID), "Watch": f.list(f.Owner)[c.ID]} {
		if got.Owner != f.Owner || got.Key != spec.Key || !got.Resources.Equal(spec.Resources) {
			f.Errorf("%s tells owner %v, key %v, resources %v", how, got.Owner, got.Key, got.Resources)
		}
	}
}

func testLaunchCancelled(f *fixture) {
	ctx, cancel := context.WithCancel(f.ctx)
	cancel()
	name, spec := f.name(), f.spec(Program{Run: true})
	begin := time.Now()
	if _, err := f.Provider.Launch(ctx, f.Owner, name, spec); err == nil {
		f.Error("Launch with an ended context succeeded")
	}
	if took := time.Since(begin); took > 2*time.Second {
		f.Errorf("Launch with an ended context took %v", took)
	}
	f.launchAs(f.Owner, name, spec)
}
