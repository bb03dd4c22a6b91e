package cli

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const corpusDir = "../../../shared/corpus/"

// wild is a definition that somebody has written.
type wild struct {
	kind string // apps, groups or pods
	file string
	body []byte
	ids  []string // of its apps or pods
}

// wholeCluster is a whole one in a process of its own, on the simulated data center.
type wholeCluster struct {
	t        *testing.T
	marathon string
}

func startCluster(t *testing.T, args ...string) *wholeCluster {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "mesopool") // which the test binary is by this name, see TestMain
	if err := os.Symlink(self, name); err != nil {
		t.Fatal(err)
	}
	var ports []string
	for range 3 {
		port, err := freePort()
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, port)
	}
	cmd := exec.Command(name, append([]string{
		"up", "--provider", "memory", "--work-dir", "-", "--sim-latency", "1ms", "--keep-succeeded", "0s", "--keep-failed", "0s", "--keep-killed", "0s",
		"--master-port", ports[0], "--agent-port", ports[1], "--marathon-port", ports[2],
	}, args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the cluster: %v\n%s", err, out.String())
		}
	})
	c := &wholeCluster{t: t, marathon: "http://127.0.0.1:" + ports[2]}
	c.until("the scheduler answers", func() bool { code, _ := c.try(http.MethodGet, "/ping", nil); return code == http.StatusOK })
	return c
}

func (c *wholeCluster) try(method, where string, body []byte) (int, []byte) {
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.marathon+where, bytes.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil
	}
	return resp.StatusCode, text
}

func (c *wholeCluster) until(what string, done func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatalf("it never came that %s", what)
		}
	}
}

// service is what is said of an app or a pod.
type service struct {
	ID, Waiting     string
	Instances       int
	TasksRunning    int
	LastTaskFailure *struct{ Message string }
}

// services lists the apps and pods by ID.
func (c *wholeCluster) services() map[string]service {
	c.t.Helper()
	var apps struct{ Apps []service }
	var pods []struct {
		ID, Message string
		Spec        struct{ Scaling struct{ Instances int } }
		Instances   []struct {
			Containers []struct{ Status string }
		}
		LastTaskFailure *struct{ Message string }
	}
	c.read("/v2/apps?embed=apps.lastTaskFailure&embed=apps.counts", &apps)
	c.read("/v2/pods/::status", &pods)
	out := map[string]service{}
	for _, a := range apps.Apps {
		out[a.ID] = a
	}
	for _, p := range pods {
		s := service{ID: p.ID, Waiting: p.Message, Instances: p.Spec.Scaling.Instances, LastTaskFailure: p.LastTaskFailure}
		for _, i := range p.Instances {
			running := len(i.Containers) > 0
			for _, k := range i.Containers {
				running = running && k.Status == "TASK_RUNNING"
			}
			if running {
				s.TasksRunning++
			}
		}
		out[p.ID] = s
	}
	return out
}

func (c *wholeCluster) read(where string, into any) {
	c.t.Helper()
	if code, text := c.try(http.MethodGet, where, nil); code != http.StatusOK || json.Unmarshal(text, into) != nil {
		c.t.Fatalf("%s: %d %s", where, code, text)
	}
}

// readWild reads a part of the corpus. What it fetches comes from the test's own
// server: no other is asked.
func readWild(t *testing.T, kind, server string) (out []*wild) {
	t.Helper()
	files, _ := filepath.Glob(corpusDir + "marathon-" + kind + "/*.json")
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var def any
		if err := json.Unmarshal(text, &def); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		redirect(def, server)
		w := &wild{kind: kind, file: filepath.Base(f)}
		w.body, _ = json.Marshal(def) // it was read from JSON
		out = append(out, w)
	}
	return out
}

// redirect points all files to fetch to a server.
func redirect(def any, server string) {
	switch def := def.(type) {
	case []any:
		for _, x := range def {
			redirect(x, server)
		}
	case map[string]any:
		for key, x := range def {
			text, isText := x.(string)
			list, isList := x.([]any)
			switch {
			case key == "uri" && isText:
				def[key] = server + path.Base(text)
			case key == "uris" && isList:
				for n := range list {
					if text, ok := list[n].(string); ok {
						list[n] = server + path.Base(text)
					}
				}
			default:
				redirect(x, server)
			}
		}
	}
}

// tarBz2 is an archive that holds a small file.
const tarBz2 = "QlpoOTFBWSZTWaynDeIAAG57gMmAAAFAAGUAAARjJB5ACAggAFQ0gAANDQSRQPRNNDIaYrA6EHmaEInekDTjVAhgYo4nYRV0XYH2YGtUKGrGzPvvIiVIiA+LuSKcKEhWU4bxAA=="

// archives serves an archive with a small file under every name.
func archives(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch name := r.URL.Path; {
		case strings.HasSuffix(name, ".zip"):
			z := zip.NewWriter(w)
			if f, err := z.Create("file"); err == nil {
				io.WriteString(f, "text")
			}
			z.Close()
		case strings.HasSuffix(name, ".bz2"):
			text, _ := base64.StdEncoding.DecodeString(tarBz2)
			w.Write(text)
		case strings.HasSuffix(name, ".tgz"), strings.HasSuffix(name, ".gz"):
			g := gzip.NewWriter(w)
			a := tar.NewWriter(g)
			a.WriteHeader(&tar.Header{Name: "file", Mode: 0o644, Size: 4})
			io.WriteString(a, "text")
			a.Close()
			g.Close()
		default:
			io.WriteString(w, "text")
		}
	}))
	t.Cleanup(s.Close)
	return s.URL + "/"
}

// TestCorpusIsDeployed puts every definition that the scheduler takes into a
// whole cluster, and sees its instances run, or a sentence that says why they
// cannot.
func TestCorpusIsDeployed(t *testing.T) {
	if _, err := os.Stat(corpusDir); err != nil {
		t.Skipf("the corpus of definitions is not there: %s", corpusDir)
	}
	c := startCluster(t, "--mesos-role", "services")
	server := archives(t)
	reasons := wildReasons(t)
	met := map[string]bool{}
	for _, kind := range []string{"apps", "groups", "pods"} {
		todo := readWild(t, kind, server)
		for len(todo) > 0 {
			todo = c.wave(todo, reasons, met)
		}
	}
	for file := range reasons {
		if !met[file] {
			t.Errorf("%s is told to wait for a reason, and does not", file)
		}
	}
}

// wave deploys as many definitions as do not clash by their IDs, and returns the
// others.
func (c *wholeCluster) wave(todo []*wild, reasons map[string]string, met map[string]bool) (left []*wild) {
	c.t.Helper()
	var put []*wild
	known := map[string]bool{}
	for _, w := range todo {
		method := http.MethodPost
		if w.kind == "groups" { // some are the root, which there always is
			method = http.MethodPut
		}
		if w.kind == "groups" && len(put) > 0 {
			left = append(left, w)
			continue
		}
		code, text := c.try(method, "/v2/"+w.kind+"?force=true", w.body)
		switch {
		case code == http.StatusConflict || code == http.StatusUnprocessableEntity && bytes.Contains(text, []byte("cannot share an ID")):
			left = append(left, w)
			continue
		case code == http.StatusBadRequest || code == http.StatusUnprocessableEntity:
			continue // TestCorpusTable is about these
		case code != http.StatusCreated && code != http.StatusOK:
			c.t.Fatalf("%s: %d %s", w.file, code, text)
		}
		for id := range c.services() {
			if !known[id] {
				w.ids = append(w.ids, id)
			}
			known[id] = true
		}
		put = append(put, w)
	}
	if len(put) == 0 && len(left) > 0 {
		c.t.Fatalf("%s clashes with nothing", left[0].file)
	}
	for _, w := range put {
		c.explained(w, reasons[w.file], met)
	}
	c.try(http.MethodDelete, "/v2/groups?force=true", nil)
	c.until("everything is gone", func() bool { return len(c.services()) == 0 && c.idle() })
	return left
}

func (c *wholeCluster) idle() bool {
	var d []any
	c.read("/v2/deployments", &d)
	return len(d) == 0
}

// explained waits until a definition's instances run, or say the reason.
func (c *wholeCluster) explained(w *wild, reason string, met map[string]bool) {
	c.t.Helper()
	said := ""
	for deadline := time.Now().Add(explainTime); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		all := c.services()
		running := true
		said = ""
		for _, id := range w.ids {
			s := all[id]
			running = running && s.TasksRunning == s.Instances
			said += s.Waiting
			if s.LastTaskFailure != nil {
				said += " / " + s.LastTaskFailure.Message
			}
		}
		if reason != "" && strings.Contains(said, reason) {
			met[w.file] = true
			return
		}
		if reason == "" && running {
			return
		}
	}
	c.t.Errorf("%s %v: it does not run, and says %q; expected %q", w.file, w.ids, said, reason)
}

const explainTime = 30 * time.Second

// wildRow is a row of docs/marathon.md about a definition: its file, what is
// said of it, and more.
var wildRow = regexp.MustCompile("(?m)^\\| `([^`|]+\\.json)` \\| ([^|]+) \\|")

// wildReasons are those of the table in docs/marathon.md.
func wildReasons(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/marathon.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(text), "#### Taken, and waiting")
	if !found {
		t.Fatal("docs/marathon.md says nothing of definitions that wait")
	}
	table, _, _ = strings.Cut(table, "\n#")
	out := map[string]string{}
	for _, row := range wildRow.FindAllStringSubmatch(table, -1) {
		out[row[1]] = strings.Trim(row[2], "`")
	}
	return out
}
