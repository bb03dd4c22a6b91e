package interop

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
)

// document reads a JSON document.
func document(t *testing.T, url string) (out any) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil {
		err = json.Unmarshal(text, &out)
	}
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, resp.Status, err)
	}
	return out
}

// lines reads a list of names; # begins a remark.
func lines(t *testing.T, file string) (out []string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if line := s.Text(); line != "" && line[0] != '#' {
			out = append(out, line)
		}
	}
	if len(out) == 0 {
		t.Fatalf("%s has no names", file)
	}
	return out
}

// at walks into a document: names into objects, 0 into lists.
func at(doc any, path string) any {
	for step := range strings.SplitSeq(path, ".") {
		switch x := doc.(type) {
		case map[string]any:
			doc = x[step]
		case []any:
			if len(x) == 0 {
				return nil
			}
			doc = x[0]
		default:
			return nil
		}
	}
	return doc
}

// TestExporterKeys: mesos_exporter finds every name that it asks for, as the
// type that it decodes it into, on a master and an agent with one task.
func TestExporterKeys(t *testing.T) {
	addr, _ := cluster(t)
	f := startFramework(t, addr, "")
	f.subscribed()
	f.launch("t1")
	f.state("t1", mesos.TASK_RUNNING)
	f.launch("t2")
	f.state("t2", mesos.TASK_RUNNING)
	state := document(t, "http://"+addr+"/state")
	_, agent, _ := strings.Cut(fmt.Sprint(at(state, "slaves.0.pid")), "@")

	for file, url := range map[string]string{
		"testdata/mesos_exporter_master.txt": "http://" + addr + "/metrics/snapshot",
		"testdata/mesos_exporter_agent.txt":  "http://" + agent + "/metrics/snapshot",
	} {
		metrics := document(t, url).(map[string]any)
		for _, name := range lines(t, file) {
			if _, ok := metrics[name].(float64); !ok {
				t.Errorf("%s: %s is %v", url, name, metrics[name])
			}
		}
	}
	metrics := document(t, "http://"+addr+"/metrics/snapshot").(map[string]any)
	for _, pattern := range []string{ // by which it finds the names that are not fixed
		`^master/slave_removals/reason_(.*?)$`, `^allocator/mesos/offer_filters/roles/web/active$`, `^allocator/mesos/roles/web/shares/dominant$`,
	} {
		found := false
		for name := range metrics {
			found = found || regexp.MustCompile(pattern).MatchString(name)
		}
		if !found {
			t.Errorf("no metric matches %s", pattern)
		}
	}
	statistics := document(t, "http://"+agent+"/monitor/statistics")
	agentState := document(t, "http://"+agent+"/slave(1)/state")
	for _, x := range []struct {
		doc   any
		paths string
		want  any
	}{
		{state, "slaves.0.pid frameworks.0.tasks.0.id frameworks.0.tasks.0.name frameworks.0.tasks.0.framework_id frameworks.0.tasks.0.executor_id frameworks.0.tasks.0.slave_id frameworks.0.tasks.0.state frameworks.0.tasks.0.statuses.0.state", ""},
		{state, "slaves.0.resources.cpus slaves.0.resources.mem slaves.0.resources.disk slaves.0.used_resources.cpus slaves.0.unreserved_resources.mem frameworks.0.tasks.0.resources.cpus frameworks.0.tasks.0.statuses.0.timestamp", 0.0},
		{state, "slaves.0.attributes", map[string]any{}},
		{state, "frameworks.0.active", true},
		{state, "frameworks.0.completed_tasks", []any{}},
		{statistics, "0.executor_id 0.executor_name 0.framework_id 0.source", ""},
		{statistics, "0.statistics", map[string]any{}},
		{agentState, "frameworks.0.id frameworks.0.executors.0.id frameworks.0.executors.0.name frameworks.0.executors.0.source frameworks.0.executors.0.tasks.0.id", ""},
		{agentState, "attributes", map[string]any{}},
	} {
		for path := range strings.SplitSeq(x.paths, " ") {
			if got := at(x.doc, path); fmt.Sprintf("%T", got) != fmt.Sprintf("%T", x.want) {
				t.Errorf("%s is %v (%T), want %T", path, got, got, x.want)
			}
		}
	}
}
