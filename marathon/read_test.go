package marathon

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func mustRead(t *testing.T, text string) *App {
	t.Helper()
	a, err := Read([]byte(text), "*")
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return a
}

// wantJSON compares some fields of an app's JSON.
func wantJSON(t *testing.T, name string, a *App, want string) {
	t.Helper()
	text, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	var got, wanted map[string]any
	json.Unmarshal(text, &got)
	if err := json.Unmarshal([]byte(want), &wanted); err != nil {
		t.Fatal(err)
	}
	for k := range got {
		if _, ok := wanted[k]; !ok {
			delete(got, k)
		}
	}
	if diff := cmp.Diff(wanted, got); diff != "" {
		t.Errorf("%s: %s", name, diff)
	}
}

func TestNormalize(t *testing.T) {
	mapping := `{"containerPort":80,"hostPort":0,"servicePort":0,"protocol":"tcp"}`
	for _, c := range []struct{ name, in, want string }{
		{"defaults", `{"id":"a","cmd":"x"}`, `{"id":"/a","instances":1,"cpus":1,"mem":128,"disk":0,"networks":[{"mode":"host"}],"role":"*",
			"portDefinitions":[{"port":0,"protocol":"tcp","name":"default"}],"maxLaunchDelaySeconds":300,"killSelection":"YOUNGEST_FIRST",
			"upgradeStrategy":{"minimumHealthCapacity":1,"maximumOverCapacity":1},"unreachableStrategy":{"inactiveAfterSeconds":0,"expungeAfterSeconds":0}}`},
		{"uris", `{"id":"/a","cmd":"x","uris":["http://h/f.tgz"]}`, `{"fetch":[{"uri":"http://h/f.tgz","executable":false,"cache":false}]}`},
		{"uris and fetch of an answer", `{"id":"/a","cmd":"x","uris":["u"],"fetch":[{"uri":"u","cache":true}]}`, `{"fetch":[{"uri":"u","executable":false,"cache":true}]}`},
		{"ports", `{"id":"/a","cmd":"x","ports":[8080,0]}`, `{"portDefinitions":[{"port":8080,"protocol":"tcp"},{"port":0,"protocol":"tcp"}]}`},
		{"ports and definitions of an answer", `{"id":"/a","cmd":"x","ports":[8080],"portDefinitions":[{"port":8080,"name":"w"}]}`, `{"portDefinitions":[{"port":8080,"protocol":"tcp","name":"w"}]}`},
		{"no ports", `{"id":"/a","cmd":"x","ports":[]}`, `{"portDefinitions":[]}`},
		{
			"bridge", `{"id":"/a","container":{"docker":{"image":"i","network":"BRIDGE","portMappings":[{"containerPort":80}]}}}`,
			`{"networks":[{"mode":"container/bridge"}],"container":{"type":"DOCKER","volumes":[],"docker":{"image":"i","forcePullImage":false,"privileged":false,"parameters":[]},"portMappings":[` + mapping + `]}}`,
		},
		{
			"bridge without mappings", `{"id":"/a","container":{"docker":{"image":"i","network":"bridge","portMappings":null}}}`,
			`{"container":{"type":"DOCKER","volumes":[],"docker":{"image":"i","forcePullImage":false,"privileged":false,"parameters":[]},"portMappings":[{"containerPort":0,"hostPort":0,"servicePort":0,"protocol":"tcp","name":"default"}]}}`,
		},
		{
			"bridge with none", `{"id":"/a","container":{"docker":{"image":"i","network":"BRIDGE","portMappings":[]}}}`,
			`{"container":{"type":"DOCKER","volumes":[],"docker":{"image":"i","forcePullImage":false,"privileged":false,"parameters":[]},"portMappings":[]}}`,
		},
		{"user network", `{"id":"/a","ipAddress":{"networkName":"n"},"container":{"docker":{"image":"i","network":"USER"}}}`, `{"networks":[{"mode":"container","name":"n"}]}`},
		{
			"ip address", `{"id":"/a","cmd":"x","ipAddress":{"discovery":{"ports":[{"number":80,"name":"w","protocol":"tcp"}]}}}`,
			`{"networks":[{"mode":"container"}],"container":{"type":"MESOS","volumes":null,"portMappings":[{"containerPort":80,"servicePort":0,"protocol":"tcp","name":"w"}]}}`,
		},
		{"network without mode", `{"id":"/a","cmd":"x","networks":[{"name":"n"}]}`, `{"networks":[{"mode":"container","name":"n"}]}`},
		{
			"nulls at any depth", `{"id":"/a","cmd":"x","env":{"A":null,"B":"b"},"labels":{"l":null},"healthChecks":[{"path":null,"command":null,"gracePeriodSeconds":null}],"unreachableStrategy":null}`,
			`{"env":{"B":"b"},"labels":{},"healthChecks":[{"protocol":"HTTP","path":"/","portIndex":0,"gracePeriodSeconds":300,"intervalSeconds":60,"timeoutSeconds":20,"maxConsecutiveFailures":3,"delaySeconds":15,"ignoreHttp1xx":false}]}`,
		},
		{"numbers", `{"id":"/a","cmd":"x","instances":2.0,"env":{"N":1.0,"T":true,"S":{"secret":"s"}},"secrets":{"s":{"source":"s"}}}`, `{"instances":2,"env":{"N":"1.0","T":"true","S":{"secret":"s"}}}`},
		{
			"explicit zeros", `{"id":"/a","cmd":"x","healthChecks":[{"gracePeriodSeconds":0,"maxConsecutiveFailures":0,"delaySeconds":0}]}`,
			`{"healthChecks":[{"protocol":"HTTP","path":"/","portIndex":0,"gracePeriodSeconds":0,"intervalSeconds":60,"timeoutSeconds":20,"maxConsecutiveFailures":0,"delaySeconds":0,"ignoreHttp1xx":false}]}`,
		},
		{"dependencies", `{"id":"/g/a","cmd":"x","dependencies":["b","../c","/d"]}`, `{"dependencies":["/g/b","/g/c","/d"]}`},
		{"id", `{"id":"//g/a/","cmd":"x","version":"2015-01-01T00:00:00Z","versionInfo":7,"tasks":[]}`, `{"id":"/g/a"}`},
		{
			"spellings", `{"id":"/a","cmd":"x","killSelection":"oldest_first","constraints":[["rack","unlike","a"]],"networks":[{"mode":"Host"}],"portDefinitions":[{"name":"w"}],"readinessChecks":[{"portName":"w","protocol":"https"}]}`,
			`{"killSelection":"OLDEST_FIRST","constraints":[["rack","UNLIKE","a"]],"networks":[{"mode":"host"}],"readinessChecks":[{"name":"readinessCheck","protocol":"HTTPS","path":"/","portName":"w","intervalSeconds":30,"timeoutSeconds":10,"httpStatusCodesForReady":[200],"preserveLastResponse":false}]}`,
		},
		{
			"spellings in a container", `{"id":"/a","cmd":"x","role":"r","container":{"type":"mesos","volumes":[{"containerPath":"d","mode":"rw","persistent":{"size":1,"type":"ROOT"}}]}}`,
			`{"container":{"type":"MESOS","volumes":[{"containerPath":"d","mode":"RW","persistent":{"size":1,"type":"root"}}]}}`,
		},
		{"unreachable", `{"id":"/a","cmd":"x","unreachableStrategy":"disabled"}`, `{"unreachableStrategy":"disabled"}`},
	} {
		wantJSON(t, c.name, mustRead(t, c.in), strings.ReplaceAll(c.want, `"volumes":null`, `"volumes":[]`))
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		in     string
		syntax bool
		path   string // of the problem; "": by the parser's words
	}{
		{`{`, true, ""},
		{`null`, true, ""},
		{`[]`, true, ""},
		{`"a"`, true, ""},
		{`{"id":"/a","cmd":"x","cpus":"1"}`, true, "/cpus"},
		{`{"id":"/a","cmd":"x","instances":1.5}`, true, "/instances"},
		{`{"id":"/a","cmd":"x","instances":99999999999999999999}`, true, "/instances"},
		{`{"id":"/a","cmd":["x"]}`, true, "/cmd"},
		{`{"id":"/a","cmd":"x","env":{"A":["b"]}}`, true, "/env/A"},
		{`{"id":"/a","cmd":"x","labels":{"A":1}}`, true, "/labels/A"},
		{`{"id":"/a","cmd":"x","healthChecks":[{},{"portIndex":"a"}]}`, true, "/healthChecks(1)/portIndex"},
		{`{"id":"/a","cmd":"x","healthChecks":[null]}`, true, "/healthChecks(0)"},
		{`{"id":"/a","container":{"docker":{"image":7}}}`, true, "/container/docker/image"},
		{`{"id":"/a","container":{"docker":{"image":"i","portMappings":[{"containerPort":"80"}]}}}`, true, "/container/docker/portMappings(0)/containerPort"},
		{`{"id":"/a","cmd":"x","ports":[["80"]]}`, true, "/ports(0)"},
		{`{"id":"/a","cmd":"x","constraints":[["a","MAX_PER",3]]}`, true, "/constraints(0)(2)"},
		{`{"id":"/a","cmd":"x","unreachableStrategy":"never"}`, true, "/unreachableStrategy"},
		{`{"cmd":"x"}`, false, "/id"},
		{`{"id":"/","cmd":"x"}`, false, "/id"},
		{`{"id":"/A","cmd":"x"}`, false, "/id"},
		{`{"id":"/a/tasks","cmd":"x"}`, false, "/id"},
		{`{"id":"/a_b","cmd":"x"}`, false, "/id"},
		{`{"id":"/a"}`, false, "/"},
		{`{"id":"/a","cmd":" "}`, false, "/"},
		{`{"id":"/a","cmd":"x","args":["y"]}`, false, "/"},
		{`{"id":"/a","cmd":"x","instances":-1}`, false, "/instances"},
		{`{"id":"/a","cmd":"x","instances":1000001}`, false, "/instances"},
		{`{"id":"/a","cmd":"x","cpus":-1}`, false, "/cpus"},
		{`{"id":"/a","cmd":"x","cpus":0.0001}`, false, "/cpus"},
		{`{"id":"/a","cmd":"x","cpus":0}`, false, "/cpus"},
		{`{"id":"/a","cmd":"x","mem":1e300}`, false, "/mem"},
		{`{"id":"/a","cmd":"x","disk":-5}`, false, "/disk"},
		{`{"id":"/a","cmd":"x","gpus":-5}`, false, "/gpus"},
		{`{"id":"/a","cmd":"x","ports":[70000]}`, false, "/portDefinitions(0)"},
		{`{"id":"/a","container":{"docker":{"image":"i","network":"BRIDGE","portMappings":[{"hostPort":70000}]}}}`, false, "/container/portMappings(0)/hostPort"},
		{`{"id":"/a","container":{"docker":{"image":"i","network":"FOO"}}}`, false, "/container/docker/network"},
		{`{"id":"/a","container":{"docker":{"image":""}}}`, false, "/"},
		{`{"id":"/a","cmd":"x","healthChecks":[{"portIndex":1}]}`, false, "/healthChecks(0)/portIndex"},
		{`{"id":"/a","cmd":"x","healthChecks":[{"port":70000}]}`, false, "/healthChecks(0)/port"},
		{`{"id":"/a","cmd":"x","healthChecks":[{"protocol":"COMMAND"}]}`, false, "/healthChecks(0)/command"},
		{`{"id":"/a","cmd":"x","healthChecks":[{"intervalSeconds":-1}]}`, false, "/healthChecks(0)"},
		{`{"id":"/a","cmd":"x","upgradeStrategy":{"minimumHealthCapacity":1.5}}`, false, "/upgradeStrategy/minimumHealthCapacity"},
		{`{"id":"/a","cmd":"x","backoffFactor":0.5}`, false, "/backoffFactor"},
		{`{"id":"/a","cmd":"x","constraints":[["hostname"]]}`, false, "/constraints(0)"},
		{`{"id":"/a","cmd":"x","constraints":[["a","LIKE","("]]}`, false, "/constraints(0)"},
		{`{"id":"/a","cmd":"x","dependencies":["/a"]}`, false, "/dependencies(0)"},
		{`{"id":"/a","cmd":"x","uris":["u"],"fetch":[{"uri":"v"}]}`, false, "/uris(0)"},
		{`{"id":"/a","cmd":"x","unreachableStrategy":{"inactiveAfterSeconds":9,"expungeAfterSeconds":1}}`, false, "/unreachableStrategy"},
	} {
		_, err := Read([]byte(c.in), "*")
		var bad *BadDefinition
		switch {
		case !errors.As(err, &bad):
			t.Errorf("%s: %v", c.in, err)
		case bad.Syntax != c.syntax:
			t.Errorf("%s: syntax is %v: %v", c.in, bad.Syntax, bad)
		case c.path == "" && (len(bad.Problems) > 0 || bad.Text == ""):
			t.Errorf("%s: %+v", c.in, bad)
		case c.path != "" && (len(bad.Problems) == 0 || bad.Problems[0].Path != c.path):
			t.Errorf("%s: %+v, want the path %s", c.in, bad.Problems, c.path)
		}
	}
}

func TestUpdate(t *testing.T) {
	bridge := `{"id":"/a","container":{"docker":{"image":"i","network":"BRIDGE","portMappings":[{"containerPort":80}]}}}`
	for _, c := range []struct{ name, old, change, want string }{
		{"merge", `{"id":"/a","cmd":"x","cpus":2,"labels":{"a":"b"}}`, `{"instances":3,"mem":null}`, `{"cpus":2,"instances":3,"mem":128,"cmd":"x","labels":{"a":"b"}}`},
		{"maps are replaced", `{"id":"/a","cmd":"x","labels":{"a":"b"}}`, `{"labels":{"c":"d"}}`, `{"labels":{"c":"d"}}`},
		{"args for cmd", `{"id":"/a","cmd":"x"}`, `{"args":["y"]}`, `{"args":["y"]}`},
		{"uris for fetch", `{"id":"/a","cmd":"x","fetch":[{"uri":"u"}]}`, `{"uris":["v"]}`, `{"fetch":[{"uri":"v","executable":false,"cache":false}]}`},
		{"ports for definitions", `{"id":"/a","cmd":"x","ports":[1,2]}`, `{"ports":[3]}`, `{"portDefinitions":[{"port":3,"protocol":"tcp"}]}`},
		{"no ports stay none", `{"id":"/a","cmd":"x","ports":[]}`, `{"instances":2}`, `{"portDefinitions":[]}`},
		{"default ports stay", `{"id":"/a","cmd":"x"}`, `{"instances":2}`, `{"portDefinitions":[{"port":0,"protocol":"tcp","name":"default"}]}`},
		{"network of a legacy container", bridge, `{"container":{"docker":{"image":"j","network":"HOST"}}}`, `{"networks":[{"mode":"host"}]}`},
		{"network stays", bridge, `{"cpus":3}`, `{"networks":[{"mode":"container/bridge"}],"cpus":3}`},
		{"ip address for networks", `{"id":"/a","cmd":"x"}`, `{"ipAddress":{"networkName":"n"}}`, `{"networks":[{"mode":"container","name":"n"}]}`},
	} {
		old := mustRead(t, c.old)
		before, _ := json.Marshal(old)
		got, err := Update(old, []byte(c.change))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		wantJSON(t, c.name, got, c.want)
		if after, _ := json.Marshal(old); string(after) != string(before) {
			t.Errorf("%s: the old definition has changed", c.name)
		}
	}
	none := mustRead(t, `{"id":"/a","container":{"docker":{"image":"i","network":"BRIDGE","portMappings":[]}}}`)
	if got, err := Update(none, []byte(`{}`)); err != nil || !sameConfig(none, got) {
		t.Errorf("an empty update changes %+v to %+v, %v", none, got, err)
	}
}

// TestBundledTasks: the definitions of the demo, unchanged.
func TestBundledTasks(t *testing.T) {
	files, err := filepath.Glob("../compose/tasks/*.json")
	if err != nil || len(files) < 6 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		a, err := Read(text, "*")
		if err != nil {
			t.Errorf("%s: %v", f, err)
			continue
		}
		wantRoundTrip(t, f, a)
		switch filepath.Base(f) {
		case "nginx.json":
			wantJSON(t, f, a, `{"id":"/nginx","cpus":0.0625,"networks":[{"mode":"container/bridge"}]}`)
		case "couchbase.json":
			if len(a.ports()) != 7 || *a.Container.PortMappings[0].HostPort != 8091 || a.Instances != 5 || len(a.Container.Docker.Parameters) != 2 {
				t.Errorf("%s: %+v", f, a)
			}
		}
	}
}

func wantRoundTrip(t *testing.T, name string, a *App) {
	t.Helper()
	text, err := json.Marshal(a)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	again, err := Read(text, "*")
	if err != nil {
		t.Errorf("%s: its own JSON is refused: %v", name, err)
		return
	}
	if !sameConfig(a, again) {
		t.Errorf("%s: changed by a round trip: %s", name, cmp.Diff(a, again))
	}
	updated, err := Update(a, []byte(`{}`))
	if err != nil || !sameConfig(a, updated) {
		t.Errorf("%s: changed by an empty update: %v %s", name, err, cmp.Diff(a, updated))
	}
}

// TestCorpus reads what people wrote. It is no part of the repository.
func TestCorpus(t *testing.T) {
	dir := "../../shared/corpus/marathon-apps"
	files, _ := filepath.Glob(dir + "/*.json")
	if len(files) == 0 {
		t.Skipf("the corpus of app definitions is not there: %s", dir)
	}
	read, refused := 0, 0
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		a, err := Read(text, "*")
		if err == nil {
			read++
			wantRoundTrip(t, f, a)
			continue
		}
		refused++
		var bad *BadDefinition
		if !errors.As(err, &bad) || len(bad.Problems) == 0 && !(bad.Syntax && bad.Text != "") {
			t.Errorf("%s: %v tells its author nothing", f, err)
			continue
		}
		for _, p := range bad.Problems {
			if !strings.HasPrefix(p.Path, "/") || len(p.Errors) == 0 {
				t.Errorf("%s: %+v", f, p)
			}
		}
		t.Logf("refused: %s: %v", filepath.Base(f), err)
	}
	t.Logf("%d read, %d refused", read, refused)
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"id":"/a","cmd":"x","container":{"docker":{"image":"i","network":"BRIDGE"}},"env":{"a":null}}`))
	f.Add([]byte(`{"id":"/a","cmd":"x","ipAddress":{},"ports":[1],"healthChecks":[{}],"constraints":[["a","UNIQUE"]]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		a, err := Read(text, "*")
		if err != nil {
			if !errors.As(err, new(*BadDefinition)) || err.Error() == "" {
				t.Errorf("%v", err)
			}
			return
		}
		i := &Instance{Ports: a.assignPorts()}
		a.spec(i, nil, nil)
		wantRoundTrip(t, string(text), a)
	})
}
