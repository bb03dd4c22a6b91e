package marathon

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func readGroup(t tb, text string) *Tree {
	t.Helper()
	g, err := ReadGroup([]byte(text), "/", "*")
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func (w *world) putGroup(text string) {
	w.t.Helper()
	w.must(ChangeGroup{DeploymentID: "d" + w.id(), Put: readGroup(w.t, text), Force: true})
}

func TestReadGroup(t *testing.T) {
	g := readGroup(t, `{"id":"g","dependencies":["base","../other"],"apps":[{"id":"a","cmd":"x","dependencies":["b"]}],"groups":[{"id":"h","apps":[{"id":"../h/c","cmd":"x"},{"id":"/g/h/d","cmd":"x"}]}]}`)
	var ids []string
	for _, a := range g.Apps {
		ids = append(ids, a.ID)
	}
	if !slices.Equal(ids, []string{"/g/a", "/g/h/c", "/g/h/d"}) || !slices.Equal(g.Apps[0].Dependencies, []string{"/g/b"}) {
		t.Errorf("%v, %v", ids, g.Apps[0].Dependencies)
	}
	if len(g.Groups) != 2 || g.ID() != "/g" || !slices.Equal(g.Groups[0].Dependencies, []string{"/base", "/other"}) {
		t.Errorf("%+v", g.Groups[0])
	}
}

// TestGroupDependency: an app waits for what its group depends on.
func TestGroupDependency(t *testing.T) {
	w := newWorld(t)
	w.subscribe()
	w.hold = true
	w.putGroup(`{"id":"/","apps":[],"groups":[{"id":"top","dependencies":["/base"],"apps":[{"id":"a","cmd":"x","cpus":1}]},{"id":"base","apps":[{"id":"b","cmd":"x","cpus":1}]}]}`)
	w.run(10 * time.Second)
	if len(w.live("/top/a")) != 0 || len(w.live("/base/b")) != 1 {
		t.Errorf("live: %v", w.live(""))
	}
	w.crash()
	w.subscribe()
	w.hold = false
	w.run(time.Minute)
	w.wantRunning("/top/a", 1)
	if got, ok := w.core.Groups("/top"); !ok || len(got) != 1 || got[0].Dependencies[0] != "/base" {
		t.Errorf("%v", got)
	}
	w.must(ChangeGroup{DeploymentID: "gone", ID: "/"})
	w.run(time.Minute)
	if len(w.tasks) > 0 || len(w.left()) != 1 {
		t.Errorf("left: %v", w.left())
	}
}

// TestGroupIsReverted: the records of groups go back too.
func TestGroupIsReverted(t *testing.T) {
	w := newWorld(t)
	w.subscribe()
	w.putGroup(`{"id":"/g","dependencies":["/x"],"apps":[{"id":"a","cmd":"x","cpus":1}]}`)
	w.must(ChangeGroup{DeploymentID: "wrong", Force: true, Put: readGroup(t, `{"id":"/g","groups":[{"id":"h"}],"apps":[{"id":"b","cmd":"x","cpus":1}]}`)})
	w.must(CancelDeployment{ID: "wrong", NewID: "back", Revert: true})
	got, _ := w.core.Groups("/g")
	if len(got) != 1 || !slices.Equal(got[0].Dependencies, []string{"/x"}) {
		t.Errorf("%+v", got)
	}
	if _, ok := w.core.Definition("/g/a"); !ok {
		t.Error("/g/a is not back")
	}
}

func TestPlanChangesNothing(t *testing.T) {
	w := newWorld(t)
	w.subscribe()
	w.putGroup(`{"id":"/g","apps":[{"id":"a","cmd":"x","cpus":1}]}`)
	before := len(w.saved)
	steps, err := w.core.PlanGroup(ChangeGroup{Put: readGroup(t, `{"id":"/g","apps":[{"id":"a","cmd":"y"},{"id":"b","cmd":"x"}]}`)})
	if err != nil || len(steps) != 2 || len(steps[1]) != 2 || steps[1][0].Action != ActionRestart {
		t.Errorf("%v, %v", steps, err)
	}
	def, _ := w.core.Definition("/g/a")
	if *def.Cmd != "x" || len(w.saved) != before || len(w.core.groups) != 1 {
		t.Error("a plan has changed something")
	}
}

func TestGroupCorpus(t *testing.T) {
	dir := "../../shared/corpus/marathon-groups"
	files, _ := filepath.Glob(dir + "/*.json")
	if len(files) == 0 {
		t.Skipf("the corpus of group definitions is not there: %s", dir)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		g, err := ReadGroup(text, "/", "*")
		if err == nil {
			w := newWorld(t)
			errs := w.batch(ChangeGroup{DeploymentID: "d", Put: g})
			t.Logf("%s: %d groups, %d apps, %v", filepath.Base(f), len(g.Groups), len(g.Apps), errs[0])
			continue
		}
		t.Logf("refused: %s: %v", filepath.Base(f), err)
		var bad *BadDefinition
		if !errors.As(err, &bad) || len(bad.Problems) == 0 || !strings.HasPrefix(bad.Problems[0].Path, "/") {
			t.Errorf("%s: %v tells its author nothing", f, err)
		}
	}
}

func FuzzReadGroup(f *testing.F) {
	f.Add([]byte(`{"id":"g","apps":[{"id":"a","cmd":"x"}],"groups":[{"id":"/g/h","dependencies":["../a"]}],"scaleBy":2}`))
	f.Add([]byte(`{"groups":[null,{"id":".."}],"apps":[null,[],{"id":1}],"pods":[1],"version":"v"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		g, err := ReadGroup(text, "/", "*")
		var bad *BadDefinition
		switch {
		case err != nil && (!errors.As(err, &bad) || err.Error() == ""):
			t.Errorf("%v", err)
		case err == nil:
			w := newWorld(t)
			w.batch(ChangeGroup{DeploymentID: "d", Put: g})
		}
	})
}
