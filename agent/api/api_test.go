package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mesopool/mesopool/agent"
	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/provider/memory"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/store"
	"github.com/mesopool/mesopool/task"
)

const limit = 10 * time.Second // for whatever must come

// shell is a provider whose Exec is a small program: "cat" copies its input,
// "size" tells two sizes of its terminal, "wait" ends with its context, "deaf"
// ends without reading, "exit" ends with 7.
type shell struct {
	*memory.Provider
	waited chan error
}

func (s *shell) Exec(ctx context.Context, id string, o provider.ExecOptions) (int, error) {
	switch o.Argv[0] {
	case "cat":
		_, err := io.Copy(o.Stdout, o.Stdin)
		fmt.Fprintf(o.Stderr, "%v tty=%v user=%s", o.Argv, o.TTY, o.User)
		return 3, err
	case "size":
		for range 2 {
			size := <-o.Resize
			fmt.Fprintf(o.Stdout, "%dx%d\n", size[0], size[1])
		}
		return 0, nil
	case "wait":
		io.WriteString(o.Stdout, "waiting")
		<-ctx.Done()
		s.waited <- ctx.Err()
		return 0, ctx.Err()
	case "deaf":
		return 0, nil
	case "fail":
		return 0, errors.New("the engine is not there")
	}
	return s.Provider.Exec(ctx, id, o)
}

// bare is a provider without optional powers.
type bare struct{ provider.Provider }

type noLink struct{}

func (noLink) Report(agent.Report) {}

func (noLink) ExecutorGone(agent.ExecutorGone)       {}
func (noLink) ExecutorMessage(agent.ExecutorMessage) {}

type env struct {
	t      *testing.T
	server *httptest.Server
	runner *agent.Runner
	shell  *shell
	log    *LogBuffer
	level  *slog.LevelVar
}

func newEnv(t *testing.T, wrap func(*shell) provider.Provider) *env {
	t.Helper()
	s := &shell{memory.New(memory.Config{Missing: map[string]bool{"none": true}}), make(chan error, 1)}
	cfg := agent.DefaultConfig()
	cfg.Owner = task.Owner{Cluster: "mesos", Agent: "dc-1"}
	cfg.NewUUID = func() task.UUID { return task.UUID{1} }
	var p provider.Provider = s
	if wrap != nil {
		p = wrap(s)
	}
	e := &env{t: t, shell: s, log: &LogBuffer{}, level: new(slog.LevelVar)}
	e.runner = agent.NewRunner(agent.Options{Core: cfg, Provider: p, Store: store.NewMemory(), Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.runner.Run(ctx, noLink{}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	total, err := resources.Parse("cpus:4;mem:1024")
	if err != nil {
		t.Fatal(err)
	}
	e.server = httptest.NewServer(New(Config{
		Runner: e.runner, Provider: p, ID: func() string { return "a1" }, Master: func() (string, bool) { return "10.0.0.1:5050", true },
		PID: "slave(1)@10.0.0.2:5051", Hostname: "dc-1", Version: "1.11.0", Total: func() resources.Resources { return total },
		Log: e.log, Level: e.level, Flags: map[string]string{"port": "5051"}, Started: time.Now().Add(-time.Minute),
	}))
	t.Cleanup(e.server.Close)
	return e
}

// launch runs a shell line as a task and waits until the task is in the state.
func (e *env) launch(id, line, image string, s task.State) {
	e.t.Helper()
	r, err := resources.Parse("cpus:0.5;mem:64")
	if err != nil {
		e.t.Fatal(err)
	}
	e.runner.Put(agent.Launch{Framework: agent.Framework{ID: "f1"}, Spec: task.Spec{
		Key: task.Key{Framework: "f1", ID: id}, Name: "web", Image: image, Resources: r, Command: task.Command{Shell: true, Value: line},
	}})
	for end := time.Now().Add(limit); ; time.Sleep(time.Millisecond) {
		roster, err := e.runner.Roster(e.t.Context())
		if err != nil || time.Now().After(end) {
			e.t.Fatalf("%s never was %s; error %v", id, s, err)
		}
		for _, x := range roster.Tasks {
			if x.Spec.Key.ID == id && x.State == s {
				return
			}
		}
	}
}

func (e *env) get(path string, status int) []byte {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", e.server.URL+path, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != status {
		e.t.Fatalf("GET %s: %s, error %v: %s", path, resp.Status, err, body)
	}
	return body
}

func decode[T any](t *testing.T, body []byte) (out T) {
	t.Helper()
	if err := json.Unmarshal(body, &out); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return out
}

func diff(t *testing.T, what string, want, got any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func TestState(t *testing.T) {
	e := newEnv(t, nil)
	type state struct {
		ID, PID, Hostname, Version string
		MasterHostname             string `json:"master_hostname"`
		Resources                  map[string]float64
		Frameworks                 []struct {
			ID        string
			Executors []struct {
				ID, Name, Source, Container, Directory string
				Tasks                                  []struct {
					ID, Name, State string
					FrameworkID     string  `json:"framework_id"`
					ExecutorID      *string `json:"executor_id"`
					SlaveID         string  `json:"slave_id"`
					Resources       map[string]float64
				}
			}
		}
	}
	empty := decode[map[string]any](t, e.get("/state", http.StatusOK))
	diff(t, "no frameworks", []any{}, empty["frameworks"])
	e.launch("t1", "sleep infinity", "web:1", task.Running)
	for _, path := range []string{"/state", "/state.json", "/slave(1)/state", "/slave(1)/state.json"} {
		got := decode[state](t, e.get(path, http.StatusOK))
		if got.ID != "a1" || got.PID != "slave(1)@10.0.0.2:5051" || got.Hostname != "dc-1" || got.Version != "1.11.0" || got.MasterHostname != "10.0.0.1:5050" {
			t.Errorf("%s: %+v", path, got)
		}
		diff(t, "resources", map[string]float64{"cpus": 4, "mem": 1024, "disk": 0, "gpus": 0}, got.Resources)
		if len(got.Frameworks) != 1 || got.Frameworks[0].ID != "f1" || len(got.Frameworks[0].Executors) != 1 {
			t.Fatalf("%s: %+v", path, got.Frameworks)
		}
		x := got.Frameworks[0].Executors[0]
		if x.ID != "t1" || x.Source != "t1" || x.Directory == "" || x.Container != "000000000001" || len(x.Tasks) != 1 {
			t.Fatalf("executor: %+v", x)
		}
		if y := x.Tasks[0]; y.ID != "t1" || y.State != "TASK_RUNNING" || y.FrameworkID != "f1" || y.SlaveID != "a1" || y.ExecutorID == nil || *y.ExecutorID != "" || y.Resources["cpus"] != 0.5 {
			t.Errorf("task: %+v", y)
		}
	}
}

func TestContainersAndMetrics(t *testing.T) {
	e := newEnv(t, nil)
	diff(t, "no containers", "[]\n", string(e.get("/containers", http.StatusOK)))
	e.launch("t1", "sleep infinity", "web:1", task.Running)
	e.launch("t2", "exit 3", "web:1", task.Failed)
	got := decode[[]map[string]any](t, e.get("/containers", http.StatusOK))
	if len(got) != 1 || got[0]["executor_id"] != "t1" || got[0]["container_id"] != "000000000001" || got[0]["status"] == nil || got[0]["statistics"] == nil {
		t.Errorf("containers: %v", got)
	}
	m := decode[map[string]float64](t, e.get("/metrics/snapshot", http.StatusOK))
	for name, want := range map[string]float64{
		"slave/tasks_running": 1, "slave/tasks_failed": 1, "slave/tasks_starting": 0, "slave/frameworks_active": 1, "slave/registered": 1,
		"mesopool/orphans": 0, "mesopool/containers_kept": 0,
	} {
		if got, ok := m[name]; !ok || got != want {
			t.Errorf("%s = %v, want %v", name, got, want)
		}
	}
	if m["slave/uptime_secs"] < 60 {
		t.Errorf("uptime %v", m["slave/uptime_secs"])
	}
	diff(t, "version", map[string]string{"version": "1.11.0"}, decode[map[string]string](t, e.get("/version", http.StatusOK)))
	e.get("/health", http.StatusOK)
	e.get("/nothing", http.StatusNotFound)
}

func TestStoppedAgent(t *testing.T) {
	r := agent.NewRunner(agent.Options{Store: store.NewMemory()})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := httptest.NewRecorder()
	New(Config{Runner: r}).ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", "/state", nil))
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("status %d", w.Code)
	}
}

// logs reads frames up to the stream's end.
func logs(t *testing.T, r io.Reader) (stdout, stderr string) {
	t.Helper()
	for {
		kind, data, err := ReadFrame(r)
		switch {
		case errors.Is(err, io.EOF):
			return stdout, stderr
		case err != nil:
			t.Fatal(err)
		case kind == FrameStdout:
			stdout += string(data)
		case kind == FrameStderr:
			stderr += string(data)
		default:
			t.Fatalf("frame %d: %s", kind, data)
		}
	}
}

func TestLogs(t *testing.T) {
	e := newEnv(t, nil)
	e.launch("t1", "echo a; echo b; echo c >&2; echo d; sleep infinity", "web:1", task.Running)
	for query, want := range map[string][2]string{"": {"a\nb\nd\n", "c\n"}, "&tail=2": {"d\n", "c\n"}, "&tail=x": {"a\nb\nd\n", "c\n"}} {
		stdout, stderr := logs(t, bytes.NewReader(e.get("/logs?task=t1"+query, http.StatusOK)))
		diff(t, "logs"+query, want, [2]string{stdout, stderr})
	}
}

func TestLogsAreFollowed(t *testing.T) {
	e := newEnv(t, nil)
	e.launch("t1", "echo a; sleep 0.2; echo b; sleep 0.2", "web:1", task.Running)
	stdout, _ := logs(t, bytes.NewReader(e.get("/logs?task=t1&follow=true", http.StatusOK)))
	diff(t, "logs", "a\nb\n", stdout)
}

func TestLogsEndWithTheReader(t *testing.T) {
	e := newEnv(t, nil)
	e.launch("t1", "echo a; sleep infinity", "web:1", task.Running)
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "GET", e.server.URL+"/logs?task=t1&follow=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if _, data, err := ReadFrame(resp.Body); err != nil || string(data) != "a\n" {
		t.Errorf("first frame %q, error %v", data, err)
	}
	cancel()
	resp.Body.Close()
	e.server.Close() // waits for the handler
}

func TestNoSuchTask(t *testing.T) {
	e := newEnv(t, nil)
	e.launch("refused", "true", "none", task.Failed)
	for query, status := range map[string]int{"task=x": http.StatusNotFound, "": http.StatusNotFound, "task=refused": http.StatusConflict} {
		e.get("/logs?"+query, status)
		resp, err := http.Post(e.server.URL+"/exec?arg=true&"+query, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != status {
			t.Errorf("exec %s: %s", query, resp.Status)
		}
	}
	resp, err := http.Post(e.server.URL+"/exec?task=refused", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("exec of nothing: %s", resp.Status)
	}
}

func TestBackendWithoutPowers(t *testing.T) {
	e := newEnv(t, func(s *shell) provider.Provider { return bare{s.Provider} })
	e.launch("t1", "sleep infinity", "web:1", task.Running)
	e.get("/logs?task=t1", http.StatusNotImplemented)
	resp, err := http.Post(e.server.URL+"/exec?task=t1&arg=true", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusNotImplemented {
		t.Errorf("exec: %s", resp.Status)
	}
}

// exec opens a session.
func (e *env) exec(query string, args ...string) (net.Conn, *bufio.Reader) {
	e.t.Helper()
	conn, err := net.Dial("tcp", e.server.Listener.Addr().String())
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(limit))
	q := url.Values{"task": {"t1"}, "arg": args}
	fmt.Fprintf(conn, "POST /exec?%s&%s HTTP/1.1\r\nHost: agent\r\nConnection: Upgrade\r\nUpgrade: x\r\nContent-Length: 0\r\n\r\n", q.Encode(), query)
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		e.t.Fatalf("exec: %v, error %v", resp, err)
	}
	return conn, r
}

// session reads frames up to the one that is the last.
func ended(t *testing.T, r io.Reader) (stdout, stderr, end string) {
	t.Helper()
	for {
		kind, data, err := ReadFrame(r)
		if err != nil {
			t.Fatalf("after %q and %q: %v", stdout, stderr, err)
		}
		switch kind {
		case FrameStdout:
			stdout += string(data)
		case FrameStderr:
			stderr += string(data)
		case FrameExit:
			return stdout, stderr, "exit " + string(data)
		case FrameError:
			return stdout, stderr, "error " + string(data)
		}
	}
}

func write(t *testing.T, w io.Writer, kind byte, data string) {
	t.Helper()
	if err := WriteFrame(w, kind, []byte(data)); err != nil {
		t.Fatal(err)
	}
}

func running(t *testing.T) *env {
	t.Helper()
	e := newEnv(t, nil)
	e.launch("t1", "sleep infinity", "web:1", task.Running)
	return e
}

func TestExec(t *testing.T) {
	e := running(t)
	_, r := e.exec("", "sh", "-c", "echo hello; echo oh >&2; exit 5")
	stdout, stderr, end := ended(t, r)
	diff(t, "session", [3]string{"hello\n", "oh\n", "exit 5"}, [3]string{stdout, stderr, end})
	_, r = e.exec("", "fail")
	if _, _, end = ended(t, r); end != "error the engine is not there" {
		t.Errorf("end: %s", end)
	}
}

func TestExecStdin(t *testing.T) {
	e := running(t)
	conn, r := e.exec("tty=true&user=root", "cat", "-n")
	big := strings.Repeat("x", 300_000)
	write(t, conn, FrameStdin, "hello ")
	write(t, conn, FrameStdin, big)
	write(t, conn, FrameStdin, "")
	stdout, stderr, end := ended(t, r)
	diff(t, "session", [3]string{"hello " + big, "[cat -n] tty=true user=root", "exit 3"}, [3]string{stdout, stderr, end})
}

func TestExecResize(t *testing.T) {
	e := running(t)
	conn, r := e.exec("tty=true", "size")
	size := func(height, width uint16) string {
		return string(binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, height), width))
	}
	write(t, conn, FrameResize, size(24, 80))
	_, data, err := ReadFrame(r)
	diff(t, "first", "24x80\n", string(data))
	if err != nil {
		t.Fatal(err)
	}
	write(t, conn, FrameResize, "bad")
	write(t, conn, FrameResize, size(50, 132))
	stdout, _, end := ended(t, r)
	diff(t, "second", [2]string{"50x132\n", "exit 0"}, [2]string{stdout, end})
}

// Of the sizes that nobody has taken, the newest counts.
func TestNewestSizeCounts(t *testing.T) {
	pr, pw := io.Pipe()
	in := newInput(bufio.NewReadWriter(bufio.NewReader(pr), nil), func() {})
	for i := range uint16(5) {
		write(t, pw, FrameResize, string(binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, i), 1)))
	}
	write(t, pw, FrameStdin, "") // has been read when this was written and the next is, too
	write(t, pw, FrameStdin, "")
	diff(t, "size", [2]uint{4, 1}, <-in.resize)
	pw.Close()
}

// A client that hangs up ends its command.
func TestExecHangUp(t *testing.T) {
	e := running(t)
	conn, r := e.exec("", "wait")
	if _, data, err := ReadFrame(r); err != nil || string(data) != "waiting" {
		t.Fatalf("first frame %q, error %v", data, err)
	}
	conn.Close()
	select {
	case err := <-e.shell.waited:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the command ended with %v", err)
		}
	case <-time.After(limit):
		t.Error("the command goes on")
	}
}

// Input that the command does not read keeps nobody waiting.
func TestExecUnreadInput(t *testing.T) {
	e := running(t)
	conn, r := e.exec("", "deaf")
	write(t, conn, FrameStdin, "hello")
	if _, _, end := ended(t, r); end != "exit 0" {
		t.Errorf("end: %s", end)
	}
	if _, _, err := ReadFrame(r); err == nil {
		t.Error("the connection is still open")
	}
	pr, pw := io.Pipe()
	ended := make(chan struct{})
	in := newInput(bufio.NewReadWriter(bufio.NewReader(pr), nil), func() { close(ended) })
	write(t, pw, FrameStdin, "nobody reads this")
	in.stdin.Close()
	pw.Close()
	select {
	case <-ended:
	case <-time.After(limit):
		t.Error("the input is still being passed on")
	}
}

func TestFrames(t *testing.T) {
	var b bytes.Buffer
	write(t, &b, FrameStderr, "x")
	diff(t, "bytes", []byte{FrameStderr, 0, 0, 0, 1, 'x'}, b.Bytes())
	if kind, data, err := ReadFrame(&b); kind != FrameStderr || string(data) != "x" || err != nil {
		t.Errorf("frame %d %q, error %v", kind, data, err)
	}
	for name, in := range map[string]string{"cut head": "\x01\x00", "no data": "\x01\x00\x00\x00\x02", "cut data": "\x01\x00\x00\x00\x02x", "too large": "\x01\xff\xff\xff\xff"} {
		if _, _, err := ReadFrame(strings.NewReader(in)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}
