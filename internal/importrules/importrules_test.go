package importrules

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/mesopool/mesopool/"

type pkg struct {
	ImportPath string
	Imports    []string
	Standard   bool
}

// list returns the project's packages with what they import, tests apart.
func list(t *testing.T) map[string][]string {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	all := map[string][]string{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimPrefix(p.ImportPath, module)] = p.Imports
	}
}

// own lists, for the packages with rules, the project's packages that they may
// import. "x/..." is x and all below it.
var own = map[string][]string{
	"resources":          {},
	"task":               {"resources"},
	"gc":                 {},
	"store":              {},
	"internal/timers":    {},
	"internal/recent":    {},
	"internal/uuid":      {"task"},
	"internal/loop":      {},
	"internal/standby":   {},
	"provider":           {"task", "resources"},
	"provider/docker":    {"provider", "task", "resources"},
	"provider/triton":    {"provider", "provider/docker", "task", "resources"},
	"provider/memory":    {"provider", "task", "resources"},
	"provider/limit":     {"provider", "task", "resources"},
	"agent":              {"task", "provider", "store", "gc", "resources", "internal/timers", "internal/loop", "internal/recent"},
	"agent/archive":      {"provider", "task"},
	"agent/fetch":        {"provider", "task"},
	"agent/api":          {"agent", "provider", "resources", "task", "mesos/..."},
	"master":             {"task", "resources", "master/drf", "internal/timers", "internal/recent"},
	"master/drf":         {"resources"},
	"master/authz":       {},
	"master/server":      {"internal/loop", "internal/uuid", "master", "master/authz", "task", "resources", "store", "mesos/..."},
	"marathon":           {"task", "resources", "internal/timers", "marathon/autoscale"},
	"marathon/autoscale": {},
	"marathon/runner":    {"internal/loop", "marathon", "marathon/autoscale", "task", "store"},
	"marathon/api":       {"internal/standby", "internal/uuid", "marathon", "marathon/runner", "task"},
	"consul":             {"task", "store"},
	"consul/lead":        {"internal/uuid", "store"},
	"endpoint":           {"endpoint/backend", "internal/uuid"},
	"endpoint/backend":   {"provider/memory", "task"},
	"endpoint/cloudapi":  {"endpoint", "endpoint/backend", "internal/uuid"},
	"mesos":              {},
	"mesos/convert":      {"mesos/...", "task", "resources"},
	"mesos/credentials":  {},
	"mesos/libprocess":   {},
	"mesos/recordio":     {},
	"mesos/mesosjson":    {},
	"mesos/executor":     {"agent", "mesos/...", "task"},
	"mesos/link":         {"internal/uuid", "mesos/...", "agent", "task", "resources", "store"},
	"mesos/scheduler":    {"mesos/...", "task", "resources"},
	"web":                {},
	"cmd/mesopool":       {"internal/cli"},
	"internal/audit":     {"provider", "resources", "task"},
	"sim":                {"internal/audit", "agent", "master", "marathon", "provider", "provider/memory", "resources", "task", "internal/timers"},
	"internal/bench":     nil, // wires a whole cluster
	"internal/cli":       nil, // wires everything
}

// pure packages are cores: no network, no protobuf, no third party, no clock of
// their own beyond the time package's types.
var pure = []string{"resources", "task", "gc", "internal/timers", "master", "master/drf", "master/authz", "marathon", "marathon/autoscale"}

func TestOwnImports(t *testing.T) {
	for name, imports := range list(t) {
		allowed, ruled := own[name]
		if !ruled && !strings.HasPrefix(name, "mesos/") && !strings.HasSuffix(name, "test") {
			if name != "internal/importrules" {
				t.Errorf("%s has no rule; add it to the table and to docs/architecture.md", name)
			}
			continue
		}
		if allowed == nil {
			continue
		}
		for _, i := range imports {
			if rest, mine := strings.CutPrefix(i, module); mine && !permitted(allowed, rest) {
				t.Errorf("%s must not import %s", name, rest)
			}
		}
	}
}

func permitted(allowed []string, name string) bool {
	return slices.ContainsFunc(allowed, func(a string) bool {
		below, tree := strings.CutSuffix(a, "/...")
		return a == name || tree && (name == below || strings.HasPrefix(name, below+"/"))
	})
}

func TestCoresArePure(t *testing.T) {
	all := list(t)
	for _, name := range pure {
		imports, known := all[name]
		if !known {
			t.Errorf("%s is not there any more; take it out of the list", name)
		}
		for _, i := range imports {
			third := strings.Contains(strings.Split(i, "/")[0], ".") && !strings.HasPrefix(i, module)
			if third || i == "net/http" || i == "os" || i == "log/slog" || strings.HasPrefix(i, "math/rand") || i == "crypto/rand" {
				t.Errorf("%s is a pure core; it must not import %s", name, i)
			}
		}
	}
}

func TestNobodyImportsTheCommandLine(t *testing.T) {
	for name, imports := range list(t) {
		for _, i := range imports {
			if i == module+"internal/cli" && name != "cmd/mesopool" {
				t.Errorf("%s must not import internal/cli", name)
			}
		}
	}
}

func TestOnlyTheEdgeSeesProtobuf(t *testing.T) {
	for name, imports := range list(t) {
		if strings.HasPrefix(name, "mesos/") || slices.Contains([]string{"master/server", "agent/api", "internal/cli", "internal/bench"}, name) {
			continue
		}
		for _, i := range imports {
			if strings.HasPrefix(i, "google.golang.org/protobuf") || strings.HasPrefix(i, module+"mesos/v1") || i == module+"mesos/messages" {
				t.Errorf("%s must not see protobuf (%s)", name, i)
			}
		}
	}
}
