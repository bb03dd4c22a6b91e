package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mesopool/mesopool/consul/consultest"
	"github.com/mesopool/mesopool/store"
)

// process is a mesopool of its own.
type process struct {
	cmd  *exec.Cmd
	at   string
	done chan error
	log  strings.Builder
}

func launch(t *testing.T, port string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command("mesopool", args...), at: "127.0.0.1:" + port, done: make(chan error, 1)}
	p.cmd.Stderr = &p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.done <- p.cmd.Wait() }()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		p.done <- <-p.done
		if t.Failed() {
			t.Logf("%v:\n%s", args[:1], p.log.String())
		}
	})
	return p
}

// end ends a process with a signal, and waits for its end.
func (p *process) end(s os.Signal) {
	p.cmd.Process.Signal(s)
	p.done <- <-p.done
}

func ask(method, url, body string) (int, http.Header, string) {
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return 0, nil, err.Error()
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, nil, err.Error()
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, string(text)
}

func soon(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// taskIDs are the running tasks that a scheduler shows, sorted.
func taskIDs(at string) (ids []string) {
	var in struct {
		Tasks []struct{ ID, State string }
	}
	_, _, text := ask("GET", "http://"+at+"/v2/tasks", "")
	json.Unmarshal([]byte(text), &in)
	for _, t := range in.Tasks {
		if t.State == "TASK_RUNNING" {
			ids = append(ids, t.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

func value(at, path, field string) any {
	_, _, text := ask("GET", "http://"+at+path, "")
	var in map[string]any
	json.Unmarshal([]byte(text), &in)
	return in[field]
}

func ports(t *testing.T, n int) (out []string) {
	t.Helper()
	for range n {
		p, err := freePort()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

// Two schedulers: all is asked of the one that follows, and the one that leads is
// killed, abdicates, and is ended in order. Apps, tasks and the framework stay.
func TestSchedulersFollowEachOther(t *testing.T) {
	at := consultest.Start(t)
	p := ports(t, 4)
	launch(t, p[0], "master", "--port", p[0])
	launch(t, p[1], "agent", "--provider", "memory", "--port", p[1], "--master", "127.0.0.1:"+p[0])
	scheduler := func(port string) *process {
		return launch(t, port, "marathon", "--port", port, "--master", "127.0.0.1:"+p[0], "--consul", at, "--elect", "consul:test/marathon", "--elect-ttl", "2s")
	}
	leads := func(x *process) func() bool { return func() bool { return value(x.at, "/v2/info", "elected") == true } }
	a := scheduler(p[2])
	soon(t, "the first one leads", leads(a))
	b := scheduler(p[3])
	soon(t, "the second one follows", func() bool { return value(b.at, "/v2/leader", "leader") == a.at })
	if value(b.at, "/v2/info", "elected") != false {
		t.Error("both lead")
	}

	stream, leave := context.WithCancel(t.Context())
	defer leave()
	heard := hear(stream, t, b.at)
	code, header, text := ask("POST", "http://"+b.at+"/v2/apps", `{"id":"/web","cmd":"sleep 1000","instances":3,"cpus":0.1,"mem":16,"container":{"docker":{"image":"any"}}}`)
	if code != http.StatusCreated || header.Get("X-Marathon-Leader") != "http://"+a.at || header.Get("X-Marathon-Via") != "1.1 "+b.at {
		t.Fatalf("POST to the one that follows: %d %v %s", code, header, text)
	}
	if e := <-heard; !strings.Contains(e, "event_stream_attached") {
		t.Errorf("first event: %s", e)
	}
	for e := range heard {
		if strings.Contains(e, "deployment_success") {
			break
		}
	}
	soon(t, "three tasks", func() bool { return len(taskIDs(b.at)) == 3 })
	tasks, framework := taskIDs(b.at), value(a.at, "/v2/info", "frameworkId")

	a.end(os.Kill)
	soon(t, "the second one leads", leads(b))
	same := func(x, leader *process) {
		t.Helper()
		soon(t, "all tasks are known", func() bool { return len(taskIDs(x.at)) == 3 })
		if d := cmp.Diff(tasks, taskIDs(x.at)); d != "" || value(leader.at, "/v2/info", "frameworkId") != framework {
			t.Errorf("framework %v, tasks -before +now:\n%s", value(leader.at, "/v2/info", "frameworkId"), d)
		}
	}
	same(b, b)

	c := scheduler(p[2])
	soon(t, "the third one follows", func() bool { return value(c.at, "/v2/leader", "leader") == b.at })
	if code, _, text := ask("DELETE", "http://"+c.at+"/v2/leader", ""); code != http.StatusOK || !strings.Contains(text, "Leadership abdicated") {
		t.Errorf("%d %s", code, text)
	}
	soon(t, "the third one leads", leads(c))
	soon(t, "the second one follows again", func() bool { return value(b.at, "/v2/leader", "leader") == c.at })
	same(b, c)

	c.end(os.Interrupt)
	soon(t, "the second one leads again", leads(b))
	same(b, b)
	if code, _, text := ask("PUT", "http://"+b.at+"/v2/apps/web", `{"instances":4}`); code != http.StatusOK {
		t.Errorf("%d %s", code, text)
	}
	soon(t, "four tasks", func() bool { return len(taskIDs(b.at)) == 4 })
	// One that stood still until another led does nothing when it goes on.
	d := scheduler(p[2])
	soon(t, "the fourth one follows", func() bool { return value(d.at, "/v2/leader", "leader") == b.at })
	b.cmd.Process.Signal(syscall.SIGSTOP)
	soon(t, "the fourth one leads", leads(d))
	tasks = taskIDs(d.at)
	b.cmd.Process.Signal(syscall.SIGCONT)
	soon(t, "who stood still follows", func() bool { return value(b.at, "/v2/leader", "leader") == d.at })
	if code, _, text := ask("PUT", "http://"+b.at+"/v2/apps/web", `{"instances":5}`); code != http.StatusOK {
		t.Errorf("%d %s", code, text)
	}
	soon(t, "five tasks", func() bool { return len(taskIDs(b.at)) == 5 })
	for _, id := range tasks {
		if !slices.Contains(taskIDs(b.at), id) {
			t.Errorf("%s is gone", id)
		}
	}
	// What the master knows is no more than that.
	_, _, state := ask("GET", "http://127.0.0.1:"+p[0]+"/tasks?limit=1000", "")
	if n := strings.Count(state, `"TASK_RUNNING"`); !strings.Contains(state, tasks[0]) || n < 5 {
		t.Errorf("the master: %s", state)
	}
	var known struct {
		Tasks []struct{ ID string }
	}
	json.Unmarshal([]byte(state), &known)
	if len(known.Tasks) != 5 {
		t.Errorf("the master knows %d tasks", len(known.Tasks))
	}
}

// hear follows the events of a scheduler.
func hear(ctx context.Context, t *testing.T, at string) <-chan string {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at+"/v2/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "text/event-stream")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	out := make(chan string, 1000)
	go func() {
		defer close(out)
		defer resp.Body.Close()
		for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
			if name, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
				out <- name
			}
		}
	}()
	return out
}

// The state of a scheduler that was alone moves into an empty one, once.
func TestAdopt(t *testing.T) {
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	path := filepath.Join(dir, "marathon.db")
	file := func(value string) {
		b, err := store.OpenBolt(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Commit(t.Context(), []store.Op{{Key: "a", Value: []byte(value)}, {Key: "b/c", Value: []byte("2")}}); err != nil {
			t.Fatal(err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	to := store.NewMemory()
	for _, dir := range []string{"", dir} {
		if err := adopt(t.Context(), to, dir, log); err != nil {
			t.Fatal(err)
		}
	}
	file("1")
	if err := adopt(t.Context(), to, dir, log); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the file is still there")
	}
	file("other")
	if err := adopt(t.Context(), to, dir, log); err != nil {
		t.Fatal(err)
	}
	list, err := to.List(t.Context(), "")
	if got := fmt.Sprintf("%s=%s %s=%s", list[0].Key, list[0].Value, list[1].Key, list[1].Value); len(list) != 2 || got != "a=1 b/c=2" || err != nil {
		t.Errorf("%s %v", got, err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error("a file that was not taken is gone")
	}
}
