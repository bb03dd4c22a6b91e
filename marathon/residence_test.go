package marathon

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

const residentFields = `"role":"web","container":{"docker":{"image":"i"},"volumes":[{"containerPath":"data","mode":"RW","persistent":{"size":64}}]}`

// wantResidences: what agents keep is what the residences say, and no app has
// more than it may.
func (w *world) wantResidences(app string) {
	w.t.Helper()
	var want resources.Resources
	for _, r := range w.core.residences {
		want = want.Add(w.core.volumesOf(r, "")...)
	}
	var kept resources.Resources
	for _, a := range w.agents {
		kept = kept.Add(a.kept.Filter(func(r *resources.Resource) bool { return r.Disk != nil })...)
	}
	if !kept.Equal(want) {
		w.t.Fatalf("the agents keep %s, the residences are %s", kept, want)
	}
	if w.core.cleaning(w.now) {
		w.t.Fatal("some residence is still to go")
	}
	if _, ok := w.core.Definition(app); !ok && len(w.core.residencesOf(app)) > 0 {
		w.t.Fatalf("%s is gone, its residences are not", app)
	}
}

func resident(t *testing.T, more string) *world {
	t.Helper()
	w := newWorld(t)
	w.agents["a1"].role = "web"
	w.subscribe()
	w.mustPut(define(t, "/r", more+residentFields))
	w.run(time.Minute)
	return w
}

func (w *world) volume(app string) string {
	w.t.Helper()
	v, _ := w.core.App(w.now, app)
	if len(v.Instances) == 0 {
		w.t.Fatalf("%s has no instance", app)
	}
	return v.Instances[0].Residence
}

func (w *world) residences(app string) []ResidenceView {
	v, _ := w.core.App(w.now, app)
	return v.Residences
}

// A task that ends is followed by another on the same volume; so is one of an
// older configuration, after a restart of the scheduler too.
func TestResidence(t *testing.T) {
	w := resident(t, "")
	w.wantRunning("/r", 1)
	w.wantResidences("/r")
	home := w.volume("/r")
	first := w.live("/r")[0]
	if !strings.HasSuffix(first, "._app.1") || !strings.HasPrefix(first, home) {
		t.Errorf("task %s of %s", first, home)
	}
	w.report(first, task.Failed)
	w.run(time.Minute)
	w.wantRunning("/r", 1)
	if got := w.live("/r")[0]; got != home+"._app.2" {
		t.Errorf("task %s, want the second of %s", got, home)
	}
	w.mustPut(define(t, "/r", `"labels":{"a":"b"},`+residentFields))
	w.run(time.Minute)
	w.crash()
	w.subscribe()
	w.run(time.Minute)
	w.wantRunning("/r", 1)
	if got := w.live("/r")[0]; got != home+"._app.3" {
		t.Errorf("task %s, want the third of %s", got, home)
	}
	if kept := w.agents["a1"].kept; kept.Amount("cpus") != 1000 || kept.Amount("disk") != resources.Whole(64) {
		t.Errorf("kept: %s", kept)
	}
}

// Volumes stay when an app shrinks, and are used when it grows again; they go
// with a kill that says so, and with the app.
func TestResidencesGo(t *testing.T) {
	w := resident(t, `"instances":2,`)
	w.wantRunning("/r", 2)
	w.mustPut(define(t, "/r", residentFields))
	w.run(time.Minute)
	w.wantRunning("/r", 1)
	all := w.residences("/r")
	if len(all) != 2 || all[0].Lived == all[1].Lived {
		t.Fatalf("residences %+v", all)
	}
	empty := all[slices.IndexFunc(all, func(r ResidenceView) bool { return !r.Lived })]
	w.must(KillTasks{IDs: []string{empty.TaskID()}, Wipe: true})
	w.run(time.Minute)
	w.wantResidences("/r")
	if all := w.residences("/r"); len(all) != 1 {
		t.Errorf("after one was wiped: %+v", all)
	}
	before := w.volume("/r")
	w.must(KillTasks{IDs: w.live("/r"), Wipe: true})
	w.run(time.Minute)
	w.wantRunning("/r", 1)
	w.wantResidences("/r")
	if w.volume("/r") == before {
		t.Error("a wiped instance came back on its volume")
	}
	w.must(Change{DeploymentID: "gone", Delete: []string{"/r"}})
	w.run(time.Minute)
	w.wantResidences("/r")
	if kept := w.agents["a1"].kept; len(kept) > 0 || len(w.core.residences) > 0 || !w.core.suppressed {
		t.Errorf("kept %s, residences %v", kept, w.core.residences)
	}
}

// What is reserved for an instance that nobody knows is given back, and a launch
// that never came to be leaves nothing.
func TestResidencesThatNeverWere(t *testing.T) {
	w := newWorld(t)
	w.agents["a1"].role = "web"
	w.subscribe()
	w.lose["Accept"] = 1
	w.mustPut(define(t, "/r", residentFields))
	w.run(20 * time.Minute)
	w.wantRunning("/r", 1)
	w.wantResidences("/r")
	stray := Residence{ID: "stray", Role: "web", Volumes: []LocalVolume{{ID: "v", Path: "p", Size: 8}}}
	w.agents["a1"].kept = w.agents["a1"].kept.Add(w.core.volumesOf(&stray, "")...)
	w.mustPut(define(t, "/other", `"role":"web"`)) // offers come
	w.run(time.Minute)
	w.wantResidences("/r")
}

// TestVolumesOutliveTheFramework: under another ID of the framework the volumes
// are the same.
func TestVolumesOutliveTheFramework(t *testing.T) {
	w := resident(t, "")
	was := w.core.apps["/r"].sorted()[0].Residence
	w.disconnect()
	clear(w.tasks) // the master has removed the framework
	w.connected = true
	w.must(Subscribed{FrameworkID: "another", MasterID: "m"})
	w.run(time.Minute)
	w.wantRunning("/r", 1)
	if now := w.core.apps["/r"].sorted()[0].Residence; now != was {
		t.Errorf("%s lives on other volumes than %s", now, was)
	}
}

func TestResidentRules(t *testing.T) {
	w := resident(t, "")
	for text, where := range map[string]string{
		strings.Replace(residentFields, `"web"`, `"*"`, 1):                                        "/role",
		`"upgradeStrategy":{"maximumOverCapacity":1,"minimumHealthCapacity":1},` + residentFields: "/upgradeStrategy/maximumOverCapacity",
		strings.Replace(residentFields, `"data"`, `"/data"`, 1):                                   "/container/volumes(0)/containerPath",
		strings.Replace(residentFields, `64`, `0`, 1):                                             "/container/volumes(0)/persistent/size",
		strings.Replace(residentFields, `64`, `64,"type":"mount"`, 1):                             "/container/volumes(0)/persistent/type",
	} {
		_, err := Read([]byte(`{"id":"/x",`+text+`}`), "*")
		var bad *BadDefinition
		if !errors.As(err, &bad) || !slices.ContainsFunc(bad.Problems, func(p Problem) bool { return p.Path == where }) {
			t.Errorf("%s: %v, want a problem at %s", text, err, where)
		}
	}
	for _, next := range []*App{define(t, "/r", strings.Replace(residentFields, "64", "65", 1)), define(t, "/r", `"disk":5,`+residentFields), define(t, "/r", `"role":"web"`)} {
		if err := w.put(next); err == nil {
			t.Errorf("%+v was taken", next)
		}
	}
	w.up("a1", false)
	w.run(time.Hour)
	if live := w.core.apps["/r"].instances; len(live) != 1 {
		t.Errorf("an instance that is out of reach was replaced: %+v", live)
	}
}
