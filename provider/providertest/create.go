package providertest

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"strings"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

var createTests = []subtest{
	{"Create/ThenLaunch", testCreateLaunch},
	{"Create/Again", testCreateAgain},
	{"Create/AfterLaunch", testCreateLaunched},
	{"Create/UnknownImage", testCreateUnknownImage},
	{"Create/OtherOwnersName", testCreateOtherOwner},
	{"Create/Remove", testCreateRemove},
	{"CopyIn/BeforeTheStart", testCopyIn},
	{"CopyIn/Again", testCopyInAgain},
	{"CopyIn/Broken", testCopyInBroken},
	{"CopyIn/Absent", testCopyInAbsent},
	{"Volumes/OutliveContainers", testVolumeOutlives},
	{"Volumes/OtherOwner", testVolumeOtherOwner},
	{"Volumes/Absent", testVolumeAbsent},
}

func (f *fixture) creator() provider.Creator {
	c, ok := provider.As[provider.Creator](f.Provider)
	f.need(ok, "create without starting")
	return c
}

func (f *fixture) copier() provider.Copier {
	c, ok := provider.As[provider.Copier](f.Provider)
	f.need(ok && f.ReadFile != nil, "put files into a container")
	return c
}

func (f *fixture) create(name string, s task.Spec) provider.Container {
	f.Helper()
	c, err := f.creator().Create(f.ctx, f.Owner, name, s)
	if err != nil {
		f.Fatalf("Create(%s): %v", name, err)
	}
	if c.ID == "" || c.Name != name || c.Owner != f.Owner || c.Key != s.Key {
		f.Fatalf("Create(%s) returned %+v", name, c)
	}
	return c
}

func testCreateLaunch(f *fixture) {
	name, spec := f.name(), f.spec(Program{Run: true})
	made := f.create(name, spec)
	if got := f.inspect(made.ID); made.State != provider.StateCreated || got.State != provider.StateCreated || !got.Started.IsZero() {
		f.Errorf("Create returned %v, and it is %+v", made.State, got)
	}
	if up := f.launchAs(f.Owner, name, spec); up.ID != made.ID {
		f.Errorf("Launch returned %s, want %s", up.ID, made.ID)
	}
	f.inState(made.ID, provider.StateUp)
}

func testCreateAgain(f *fixture) {
	name, spec := f.name(), f.spec(Program{Run: true})
	first, second := f.create(name, spec), f.create(name, spec)
	if first.ID != second.ID || second.State != provider.StateCreated {
		f.Errorf("the second Create returned %s, %v; want %s, created", second.ID, second.State, first.ID)
	}
}

func testCreateLaunched(f *fixture) {
	name, spec := f.name(), f.spec(Program{})
	first := f.launchAs(f.Owner, name, spec)
	f.inState(first.ID, provider.StateExited)
	if second := f.create(name, spec); second.ID != first.ID || second.State != provider.StateExited {
		f.Errorf("Create after the end returned %s, %v; want %s, exited", second.ID, second.State, first.ID)
	}
}

func testCreateUnknownImage(f *fixture) {
	f.need(f.Missing != "", "name an image that is known to be missing")
	spec := f.spec(Program{Run: true})
	spec.Image = f.Missing
	_, err := f.creator().Create(f.ctx, f.Owner, f.name(), spec)
	f.wantErr("Create of an unknown image", err, provider.ErrRejected)
}

func testCreateOtherOwner(f *fixture) {
	c := f.creator()
	other := f.other(task.Owner{Cluster: f.Owner.Cluster, Agent: f.Owner.Agent + "-2"})
	name := f.name()
	f.launchAs(other, name, f.spec(Program{Run: true}))
	_, err := c.Create(f.ctx, f.Owner, name, f.spec(Program{Run: true}))
	f.wantErr("Create with another agent's name", err, provider.ErrRejected)
}

func testCreateRemove(f *fixture) {
	made := f.create(f.name(), f.spec(Program{Run: true}))
	if err := f.Provider.Remove(f.ctx, made.ID); err != nil {
		f.Fatalf("Remove: %v", err)
	}
	_, err := f.Provider.Inspect(f.ctx, made.ID)
	f.wantErr("Inspect of a created container that was removed", err, provider.ErrNotFound)
}

// archive is a tar stream of files, a directory before them.
func archive(files ...string) *bytes.Buffer {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "deep/", Mode: 0o755})
	for i := 0; i < len(files); i += 2 {
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: files[i], Mode: 0o644, Size: int64(len(files[i+1]))})
		w.Write([]byte(files[i+1]))
	}
	w.Close()
	return &b
}

func (f *fixture) wantFile(id, path, want string) {
	f.Helper()
	if got := f.ReadFile(f.T, id, path); string(got) != want {
		f.Errorf("%s holds %d bytes %.40q, want %d bytes %.40q", path, len(got), got, len(want), want)
	}
}

func testCopyIn(f *fixture) {
	c := f.copier()
	name, spec := f.name(), f.spec(Program{Run: true})
	made := f.create(name, spec)
	large := strings.Repeat("0123456789abcdef", 1<<16)
	if err := c.CopyIn(f.ctx, made.ID, "/mnt/new/place", archive("a", "one", "deep/b", large)); err != nil {
		f.Fatalf("CopyIn: %v", err)
	}
	f.launchAs(f.Owner, name, spec)
	f.inState(made.ID, provider.StateUp)
	f.wantFile(made.ID, "/mnt/new/place/a", "one")
	f.wantFile(made.ID, "/mnt/new/place/deep/b", large)
}

func testCopyInAgain(f *fixture) {
	c := f.copier()
	made := f.create(f.name(), f.spec(Program{Run: true}))
	for _, text := range []string{"one", "another"} {
		if err := c.CopyIn(f.ctx, made.ID, "/mnt", archive("a", text)); err != nil {
			f.Fatalf("CopyIn: %v", err)
		}
		f.wantFile(made.ID, "/mnt/a", text)
	}
}

func testCopyInBroken(f *fixture) {
	c := f.copier()
	made := f.create(f.name(), f.spec(Program{Run: true}))
	whole := archive("a", strings.Repeat("x", 10_000)).Bytes()
	if err := c.CopyIn(f.ctx, made.ID, "/mnt", bytes.NewReader(whole[:len(whole)/2])); err == nil || errors.Is(err, provider.ErrNotFound) {
		f.Errorf("CopyIn of half a stream: %v", err)
	}
}

func testCopyInAbsent(f *fixture) {
	err := f.copier().CopyIn(f.ctx, absentID, "/mnt", archive("a", "one"))
	f.wantErr("CopyIn into what is not there", err, provider.ErrNotFound)
}

func (f *fixture) volumes() provider.Volumes {
	v, ok := provider.As[provider.Volumes](f.Provider)
	f.need(ok, "keep volumes")
	return v
}

// persistent is a task with a persistent volume at data, and the volume's name.
func (f *fixture) persistent(o task.Owner) (task.Spec, string) {
	f.volumes()
	spec := f.spec(Program{Run: true})
	disk := resources.Resource{
		Name: "disk", Scalar: resources.Whole(32), Reservations: []resources.Reservation{{Dynamic: true, Role: "db"}},
		Disk: &resources.Disk{PersistenceID: f.name(), ContainerPath: "data"},
	}
	spec.Resources = spec.Resources.Add(disk)
	name := provider.VolumeName(o, disk.ReservedTo(), disk.Disk.PersistenceID)
	f.Cleanup(func() {
		if err := f.volumes().RemoveVolume(context.Background(), o, name); err != nil {
			f.Errorf("sweep: the volume: %v", err)
		}
	})
	return spec, name
}

func (f *fixture) end(id string) {
	f.Helper()
	f.stop(id, 0)
	f.inState(id, provider.StateExited)
	if err := f.Provider.Remove(f.ctx, id); err != nil {
		f.Fatalf("Remove: %v", err)
	}
}

func testVolumeOutlives(f *fixture) {
	v := f.volumes()
	spec, name := f.persistent(f.Owner)
	first := f.launchAs(f.Owner, f.name(), spec)
	if err := v.RemoveVolume(f.ctx, f.Owner, name); err == nil || errors.Is(err, provider.ErrRejected) {
		f.Errorf("RemoveVolume while a container has it: %v", err)
	}
	f.end(first.ID)
	spec.Key.ID += "-again"
	second := f.launchAs(f.Owner, f.name(), spec)
	if err := v.RemoveVolume(f.ctx, f.Owner, name); err == nil {
		f.Error("the second container has another volume")
	}
	f.end(second.ID)
	for range 2 {
		if err := v.RemoveVolume(f.ctx, f.Owner, name); err != nil {
			f.Errorf("RemoveVolume: %v", err)
		}
	}
}

func testVolumeOtherOwner(f *fixture) {
	v := f.volumes()
	other := f.other(task.Owner{Cluster: f.Owner.Cluster, Agent: f.Owner.Agent + "-2"})
	spec, name := f.persistent(other)
	c := f.launchAs(other, f.name(), spec)
	f.end(c.ID)
	f.wantErr("RemoveVolume of another agent's", v.RemoveVolume(f.ctx, f.Owner, name), provider.ErrRejected)
	f.wantErr("RemoveVolume of another agent's, again", v.RemoveVolume(f.ctx, f.Owner, name), provider.ErrRejected)
}

func testVolumeAbsent(f *fixture) {
	if err := f.volumes().RemoveVolume(f.ctx, f.Owner, f.name()); err != nil {
		f.Errorf("RemoveVolume of what is not there: %v", err)
	}
}
