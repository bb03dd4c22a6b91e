package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/agent"
	"github.com/mesopool/mesopool/mesos/mesosjson"
	"github.com/mesopool/mesopool/mesos/recordio"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	agentv1 "github.com/mesopool/mesopool/mesos/v1/agent"
	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

// post sends a call and returns the answer's status and body.
func (e *env) post(kind, accept string, body []byte) (int, []byte) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "POST", e.server.URL+"/slave(1)/api/v1", bytes.NewReader(body))
	if err != nil {
		e.t.Fatal(err)
	}
	req.Header.Set("Content-Type", kind)
	req.Header.Set("Accept", accept)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err != nil {
		e.t.Fatal(err)
	}
	return resp.StatusCode, out
}

// call makes a call in both forms; the answers must say the same.
func (e *env) call(c *agentv1.Call) *agentv1.Response {
	e.t.Helper()
	out := &agentv1.Response{}
	status, text := e.post(typeJSON, typeJSON, mesosjson.Marshal(c))
	if status != http.StatusOK {
		e.t.Fatalf("%s: %d: %s", c.GetType(), status, text)
	}
	if err := mesosjson.Unmarshal(text, out); len(text) > 0 && err != nil {
		e.t.Fatalf("%s: %v: %s", c.GetType(), err, text)
	}
	body, err := proto.Marshal(c)
	if err != nil {
		e.t.Fatal(err)
	}
	if status, text = e.post(typeProtobuf, typeProtobuf, body); status != http.StatusOK {
		e.t.Fatalf("%s as protobuf: %d: %s", c.GetType(), status, text)
	}
	if err := proto.Unmarshal(text, &agentv1.Response{}); err != nil {
		e.t.Fatal(err)
	}
	return out
}

func of(kind agentv1.Call_Type) *agentv1.Call { return &agentv1.Call{Type: &kind} }

const sandbox = "/var/lib/mesos/slaves/a1/frameworks/f1/executors/t1/runs/"

func (e *env) file(query string, status int) map[string]any {
	e.t.Helper()
	body := e.get("/files/read?"+query, status)
	if status != http.StatusOK {
		return nil
	}
	return decode[map[string]any](e.t, body)
}

func TestFiles(t *testing.T) {
	e := newEnv(t, nil)
	e.launch("t1", "echo hello; echo oh >&2; sleep infinity", "web:1", task.Running)
	for _, run := range []string{"latest", "000000000001"} {
		p := "path=" + sandbox + run
		diff(t, "size", map[string]any{"offset": 6.0, "data": ""}, e.file(p+"/stdout", 200))
		diff(t, "size", map[string]any{"offset": 6.0, "data": ""}, e.file(p+"/stdout&offset=-1", 200))
		diff(t, "all", map[string]any{"offset": 0.0, "data": "hello\n"}, e.file(p+"/stdout&offset=0", 200))
		diff(t, "a part", map[string]any{"offset": 1.0, "data": "ell"}, e.file(p+"/stdout&offset=1&length=3", 200))
		diff(t, "beyond", map[string]any{"offset": 60.0, "data": ""}, e.file(p+"/stdout&offset=60&length=3", 200))
		diff(t, "stderr", map[string]any{"offset": 0.0, "data": "oh\n"}, e.file(p+"/stderr&offset=0&length=-1", 200))
		list := decode[[]map[string]any](t, e.get("/files/browse?"+p, 200))
		if len(list) != 2 || list[1]["path"] != sandbox+run+"/stdout" || list[1]["size"] != 6.0 || list[1]["mode"] != "-rw-r--r--" {
			t.Errorf("browse: %v", list)
		}
		diff(t, "download", "hello\n", string(e.get("/files/download?"+p+"/stdout", 200)))
	}
	if got := string(e.get("/files/read?path="+sandbox+"latest/stdout&offset=0&jsonp=cb", 200)); !strings.HasPrefix(got, "cb({") || !strings.HasSuffix(got, ");") {
		t.Errorf("jsonp: %s", got)
	}
	e.get("/files/read?path="+sandbox+"latest/stdout&jsonp=alert(1)", 400)
	fmt.Fprint(e.log, "one\ntwo\n")
	diff(t, "the agent's log", map[string]any{"offset": 4.0, "data": "two\n"}, e.file("path=/slave/log&offset=4", 200))
	if got := decode[map[string]string](t, e.get("/files/debug", 200)); got[sandbox+"000000000001"] == "" {
		t.Errorf("debug: %v", got)
	}
}

// A path leads to what it names or nowhere.
func TestPathTricks(t *testing.T) {
	e := newEnv(t, nil)
	e.launch("t1", "echo hello; sleep infinity", "web:1", task.Running)
	for path, status := range map[string]int{
		"": 400, "/etc/passwd": 404, "/": 404, "/slave/log/": 404, "/slave/../slave/log": 404, sandbox + "latest/../latest/stdout": 404,
		sandbox + "latest//stdout": 404, sandbox + "./latest/stdout": 404, sandbox + "latest/stdin": 404, sandbox + "latest/stdout/": 200,
		sandbox + "latest/stdout/x": 404, sandbox + "latest": 400, sandbox + "other/stdout": 404, "var/lib/mesos": 404,
		strings.Replace(sandbox, "f1", "f2", 1) + "latest/stdout": 404, strings.Replace(sandbox, "a1", "a2", 1) + "latest/stdout": 404,
		sandbox + "latest/std\x00out": 404, sandbox + strings.Repeat("x", 5000): 404, sandbox + "..%2f..%2flatest/stdout": 404,
	} {
		e.get("/files/read?path="+url.QueryEscape(path), status)
	}
	for _, query := range []string{"&offset=-2", "&offset=x", "&length=-2", "&offset=99999999999999999999"} {
		e.get("/files/read?path="+sandbox+"latest/stdout"+query, 400)
	}
	e.get("/files/browse", 400)
	e.get("/files/browse?path=/slave/log", 404)
	e.get("/slave(1)/../state", 404)
	e.get("/slave(x)/state", 404)
}

func FuzzSplitPath(f *testing.F) {
	for _, s := range []string{sandbox + "latest/stdout", "/var/lib/mesos/../x", "/slave/log", "/var/lib/mesos/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		parts, ok := splitPath(s)
		if ok && filesRoot+"/"+strings.Join(parts, "/") != strings.TrimSuffix(s, "/") {
			t.Errorf("%q became %q", s, parts)
		}
		for _, p := range parts {
			if p == "" || p == "." || p == ".." || strings.Contains(p, "/") {
				t.Errorf("%q has the part %q", s, p)
			}
		}
	})
}

// An endless log costs one page of memory, and after a while an answer.
func TestEndlessLog(t *testing.T) {
	e := newEnv(t, func(s *shell) provider.Provider { return endless{s} })
	e.launch("t1", "sleep infinity", "web:1", task.Running)
	got := e.file("path="+sandbox+"latest/stdout&offset=1000000&length=10000000", 200)
	if n := len(got["data"].(string)); n != maxRead {
		t.Errorf("%d bytes in one answer", n)
	}
}

type endless struct{ *shell }

func (endless) Logs(context.Context, string, provider.LogOptions) (provider.LogReader, error) {
	return zeros{}, nil
}

type zeros struct{}

func (zeros) Next() (provider.LogPiece, error) {
	return provider.LogPiece{Data: bytes.Repeat([]byte("x"), 100)}, nil
}
func (zeros) Close() error { return nil }

func TestLogBufferIsBounded(t *testing.T) {
	b := &LogBuffer{}
	line := strings.Repeat("x", 99) + "\n"
	for range 100_000 {
		fmt.Fprint(b, line)
	}
	var out strings.Builder
	size, err := b.copy(10_000_000-100, 1000, &out)
	if err != nil || size != 10_000_000 || out.String() != line || len(b.data) > logMost {
		t.Errorf("size %d, kept %d, read %q, %v", size, len(b.data), out.String(), err)
	}
	out.Reset()
	if _, err := b.copy(0, 5, &out); err != nil || out.String() != "\n\n\n\n\n" {
		t.Errorf("what is gone reads as %q, %v", out.String(), err)
	}
}

// Every call of the agent API is done or refused in words.
func TestAllCalls(t *testing.T) {
	e := newEnv(t, nil)
	e.launch("t1", "sleep infinity", "web:1", task.Running)
	for number, name := range agentv1.Call_Type_name {
		if number == 0 {
			continue
		}
		status, text := e.post(typeJSON, typeJSON, []byte(`{"type":"`+name+`"}`))
		switch {
		case status == http.StatusOK && len(text) > 0:
		case status >= 400 && status < 500 || status == http.StatusNotImplemented && strings.Contains(string(text), "this agent") || strings.Contains(string(text), "backend"):
		default:
			t.Errorf("%s: %d: %s", name, status, text)
		}
	}
	for body, want := range map[string]int{`{}`: 400, `{"type":`: 400, `{"type":"NO_SUCH"}`: 400, `[]`: 400} {
		if status, text := e.post(typeJSON, typeJSON, []byte(body)); status != want {
			t.Errorf("%s: %d: %s", body, status, text)
		}
	}
	if status, _ := e.post("text/plain", typeJSON, nil); status != http.StatusUnsupportedMediaType {
		t.Errorf("plain text: %d", status)
	}
	if status, _ := e.post(typeJSON, "text/html", []byte(`{"type":"GET_HEALTH"}`)); status != http.StatusNotAcceptable {
		t.Errorf("HTML wanted: %d", status)
	}
	if status, _ := e.post(typeJSON, typeJSON, bytes.Repeat([]byte(" "), maxCall+1)); status != http.StatusRequestEntityTooLarge {
		t.Errorf("a huge call: %d", status)
	}
}

func TestReadingCalls(t *testing.T) {
	e := newEnv(t, nil)
	e.launch("t1", "echo hello; sleep infinity", "web:1", task.Running)
	if !e.call(of(agentv1.Call_GET_HEALTH)).GetHealth.GetHealthy() || e.call(of(agentv1.Call_GET_VERSION)).GetVersion.VersionInfo.GetVersion() != "1.11.0" {
		t.Error("health or version")
	}
	if f := e.call(of(agentv1.Call_GET_FLAGS)).GetFlags.Flags; len(f) != 1 || f[0].GetValue() != "5051" {
		t.Errorf("flags %v", f)
	}
	if m := e.call(of(agentv1.Call_GET_METRICS)).GetMetrics.Metrics; len(m) < 40 {
		t.Errorf("%d metrics", len(m))
	}
	if c := e.call(of(agentv1.Call_GET_CONTAINERS)).GetContainers.Containers; len(c) != 1 || c[0].ContainerId.GetValue() != "000000000001" {
		t.Errorf("containers %v", c)
	}
	s := e.call(of(agentv1.Call_GET_STATE)).GetState
	if len(s.GetFrameworks.Frameworks) != 1 || len(s.GetExecutors.Executors) != 1 {
		t.Errorf("state %v", s)
	}
	if a := e.call(of(agentv1.Call_GET_AGENT)).GetAgent.AgentInfo; a.GetId().GetValue() != "a1" || len(a.Resources) != 2 {
		t.Errorf("agent %v", a)
	}
	list := of(agentv1.Call_LIST_FILES)
	list.ListFiles = &agentv1.Call_ListFiles{Path: new(sandbox + "latest")}
	if f := e.call(list).ListFiles.FileInfos; len(f) != 2 || f[1].GetSize() != 6 {
		t.Errorf("files %v", f)
	}
	read := of(agentv1.Call_READ_FILE)
	read.ReadFile = &agentv1.Call_ReadFile{Path: new(sandbox + "latest/stdout"), Offset: new(uint64(1)), Length: new(uint64(3))}
	if r := e.call(read).ReadFile; string(r.Data) != "ell" || r.GetSize() != 6 {
		t.Errorf("read %v", r)
	}
	log := of(agentv1.Call_READ_LOG)
	log.ReadLog = &agentv1.Call_ReadLog{Source: agentv1.Call_ReadLog_CONTAINER.Enum(), ContainerId: &mesosv1.ContainerID{Value: new("000000000001")}, StdoutOffset: new(uint64(4))}
	if r := e.call(log).ReadLog; string(r.Stdout.Data) != "o\n" || r.Stderr.GetSize() != 0 {
		t.Errorf("log %v", r)
	}
}

func TestLoggingLevelComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, l := new(slog.LevelVar), levels{}
		l.set(v, slog.LevelDebug, time.Minute)
		time.Sleep(30 * time.Second)
		l.set(v, slog.LevelDebug, time.Minute)
		time.Sleep(45 * time.Second)
		if v.Level() != slog.LevelDebug {
			t.Error("it came back too early")
		}
		time.Sleep(16 * time.Second)
		if v.Level() != slog.LevelInfo {
			t.Error("it did not come back")
		}
	})
}

func nested(id string) *mesosv1.ContainerID {
	return &mesosv1.ContainerID{Value: &id, Parent: &mesosv1.ContainerID{Value: new("000000000001")}}
}

// launch of a session as a CLI does it: JSON records in an answer of RecordIO.
func (e *env) session(id string, tty bool, argv ...string) (*http.Response, *recordio.Reader) {
	e.t.Helper()
	c := of(agentv1.Call_LAUNCH_NESTED_CONTAINER_SESSION)
	c.LaunchNestedContainerSession = &agentv1.Call_LaunchNestedContainerSession{
		ContainerId: nested(id), Command: &mesosv1.CommandInfo{Value: &argv[0], Arguments: argv, Shell: new(false)},
	}
	if tty {
		c.LaunchNestedContainerSession.Container = &mesosv1.ContainerInfo{Type: mesosv1.ContainerInfo_MESOS.Enum(), TtyInfo: &mesosv1.TTYInfo{
			WindowSize: &mesosv1.TTYInfo_WindowSize{Rows: new(uint32(24)), Columns: new(uint32(80))},
		}}
	}
	req, err := http.NewRequestWithContext(e.t.Context(), "POST", e.server.URL+"/api/v1", bytes.NewReader(mesosjson.Marshal(c)))
	if err != nil {
		e.t.Fatal(err)
	}
	req.Header.Set("Content-Type", typeJSON)
	req.Header.Set("Accept", typeRecordIO)
	req.Header.Set("Message-Accept", typeJSON)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { resp.Body.Close() })
	return resp, recordio.NewReader(resp.Body, 0)
}

func output(t *testing.T, r *recordio.Reader) (stdout, stderr string) {
	t.Helper()
	for {
		record, err := r.Next()
		if errors.Is(err, io.EOF) {
			return stdout, stderr
		}
		if err != nil {
			t.Fatal(err)
		}
		m := &agentv1.ProcessIO{}
		if err := mesosjson.Unmarshal(record, m); err != nil {
			t.Fatal(err)
		}
		if m.Data.GetType() == agentv1.ProcessIO_Data_STDERR {
			stderr += string(m.Data.Data)
		} else {
			stdout += string(m.Data.Data)
		}
	}
}

func TestSessions(t *testing.T) {
	e := running(t)
	resp, r := e.session("s1", false, "sh", "-c", "echo hello; echo oh >&2; exit 5")
	if resp.Header.Get("Content-Type") != typeRecordIO || resp.Header.Get("Message-Content-Type") != typeJSON {
		t.Errorf("headers %v", resp.Header)
	}
	stdout, stderr := output(t, r)
	diff(t, "output", [2]string{"hello\n", "oh\n"}, [2]string{stdout, stderr})
	wait := of(agentv1.Call_WAIT_CONTAINER)
	wait.WaitContainer = &agentv1.Call_WaitContainer{ContainerId: nested("s1")}
	if got := e.call(wait).WaitContainer.GetExitStatus(); got != 5<<8 {
		t.Errorf("exit status %d", got)
	}
	if resp, _ := e.session("s1", false, "true"); resp.StatusCode != http.StatusConflict {
		t.Errorf("the same ID again: %s", resp.Status)
	}
	remove := of(agentv1.Call_REMOVE_CONTAINER)
	remove.RemoveContainer = &agentv1.Call_RemoveContainer{ContainerId: nested("s1")}
	e.call(remove)
	if status, _ := e.post(typeJSON, typeJSON, mesosjson.Marshal(wait)); status != http.StatusNotFound {
		t.Errorf("waiting for what was removed: %d", status)
	}
}

// The input comes in a call of its own, and reaches the command whole.
func TestSessionInput(t *testing.T) {
	e := running(t)
	_, r := e.session("s1", true, "cat", "-n")
	var body []byte
	add := func(c *agentv1.Call_AttachContainerInput) {
		call := of(agentv1.Call_ATTACH_CONTAINER_INPUT)
		call.AttachContainerInput = c
		body = recordio.Append(body, mesosjson.Marshal(call))
	}
	io := func(m *agentv1.ProcessIO) {
		add(&agentv1.Call_AttachContainerInput{Type: agentv1.Call_AttachContainerInput_PROCESS_IO.Enum(), ProcessIo: m})
	}
	add(&agentv1.Call_AttachContainerInput{Type: agentv1.Call_AttachContainerInput_CONTAINER_ID.Enum(), ContainerId: nested("s1")})
	io(&agentv1.ProcessIO{Type: agentv1.ProcessIO_CONTROL.Enum(), Control: &agentv1.ProcessIO_Control{Type: agentv1.ProcessIO_Control_HEARTBEAT.Enum()}})
	big := strings.Repeat("x", 600_000)
	io(data(agentv1.ProcessIO_Data_STDIN, []byte(big)))
	io(data(agentv1.ProcessIO_Data_STDIN, nil))
	req, err := http.NewRequestWithContext(t.Context(), "POST", e.server.URL+"/slave(1)/api/v1", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", typeRecordIO)
	req.Header.Set("Message-Content-Type", typeJSON)
	done := make(chan int, 1)
	go func() {
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Error(err)
			done <- 0
			return
		}
		resp.Body.Close()
		done <- resp.StatusCode
	}()
	stdout, stderr := output(t, r)
	if stdout != big || stderr != "[cat -n] tty=true user=" {
		t.Errorf("%d bytes came back, stderr %q", len(stdout), stderr)
	}
	if status := <-done; status != http.StatusOK {
		t.Errorf("the input's answer is %d", status)
	}
}

// A session ends with its connection, or when it is killed.
func TestSessionsEnd(t *testing.T) {
	for _, how := range []string{"hang up", "kill"} {
		e := running(t)
		resp, r := e.session("s1", false, "wait")
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		if how == "kill" {
			kill := of(agentv1.Call_KILL_NESTED_CONTAINER)
			kill.KillNestedContainer = &agentv1.Call_KillNestedContainer{ContainerId: nested("s1")}
			e.call(kill)
		} else {
			resp.Body.Close()
		}
		select {
		case err := <-e.shell.waited:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", how, err)
			}
		case <-time.After(limit):
			t.Errorf("%s: the command goes on", how)
		}
	}
}

// A detached command keeps the end of what it writes for whoever comes.
func TestNestedContainers(t *testing.T) {
	e := running(t)
	c := of(agentv1.Call_LAUNCH_NESTED_CONTAINER)
	c.LaunchNestedContainer = &agentv1.Call_LaunchNestedContainer{ContainerId: nested("n1"), Command: &mesosv1.CommandInfo{Value: new("echo late")}}
	if status, text := e.post(typeJSON, typeJSON, mesosjson.Marshal(c)); status != http.StatusOK {
		t.Fatalf("%d: %s", status, text)
	}
	out := of(agentv1.Call_ATTACH_CONTAINER_OUTPUT)
	out.AttachContainerOutput = &agentv1.Call_AttachContainerOutput{ContainerId: nested("n1")}
	status, body := e.post(typeJSON, typeRecordIO, mesosjson.Marshal(out))
	stdout, _ := output(t, recordio.NewReader(bytes.NewReader(body), 0))
	if status != http.StatusOK || stdout != "late\n" {
		t.Errorf("%d, output %q", status, stdout)
	}
	b := newBacklog(false)
	for range 100 {
		b.put(agentv1.ProcessIO_Data_STDOUT, make([]byte, 10_000))
	}
	if b.bytes > maxBacklog {
		t.Errorf("%d bytes wait", b.bytes)
	}
	s := newSessions()
	for i := range maxSessions {
		if err := s.add(fmt.Sprint(i), &session{done: make(chan struct{})}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.add("more", &session{}); !errors.Is(err, errFull) {
		t.Errorf("one more than all: %v", err)
	}
	close(s.byID["7"].done)
	if err := s.add("more", &session{}); err != nil || s.byID["7"] != nil {
		t.Errorf("in the place of one that has ended: %v", err)
	}
}

func TestAttachToATask(t *testing.T) {
	e := newEnv(t, nil)
	e.launch("t1", "echo a; echo b >&2; sleep 0.2", "web:1", task.Running)
	out := of(agentv1.Call_ATTACH_CONTAINER_OUTPUT)
	out.AttachContainerOutput = &agentv1.Call_AttachContainerOutput{ContainerId: &mesosv1.ContainerID{Value: new("000000000001")}}
	_, body := e.post(typeJSON, typeRecordIO, mesosjson.Marshal(out))
	stdout, stderr := output(t, recordio.NewReader(bytes.NewReader(body), 0))
	diff(t, "output", [2]string{"a\n", "b\n"}, [2]string{stdout, stderr})
	wait := of(agentv1.Call_WAIT_CONTAINER)
	wait.WaitContainer = &agentv1.Call_WaitContainer{ContainerId: &mesosv1.ContainerID{Value: new("000000000001")}}
	if got := e.call(wait).WaitContainer; got.GetExitStatus() != 0 || got.GetState() != mesosv1.TaskState_TASK_FINISHED {
		t.Errorf("end %v", got)
	}
}

// measuring is a backend that measures, and changes limits.
type measuring struct {
	*shell
	limits chan uint64
}

func (measuring) Stats(context.Context, string) (provider.Stats, error) {
	return provider.Stats{Time: time.Unix(1_800_000_000, 0), UserCPU: 1500 * time.Millisecond, MemUsed: 12 << 20, MemLimit: 64 << 20, NetSend: provider.NetStats{Bytes: 7}}, nil
}

func (m measuring) UpdateMemory(_ context.Context, _ string, mib uint64) error {
	if mib > 1000 {
		return fmt.Errorf("%w: too much", provider.ErrRejected)
	}
	m.limits <- mib
	return nil
}

func TestStatisticsAndMemory(t *testing.T) {
	limits := make(chan uint64, 2)
	e := newEnv(t, func(s *shell) provider.Provider { return measuring{s, limits} })
	e.launch("t1", "sleep infinity", "web:1", task.Running)
	got := decode[[]struct {
		ExecutorID string `json:"executor_id"`
		Statistics map[string]float64
	}](t, e.get("/monitor/statistics", 200))
	if len(got) != 1 || got[0].ExecutorID != "t1" {
		t.Fatalf("statistics %+v", got)
	}
	for name, want := range map[string]float64{"cpus_user_time_secs": 1.5, "mem_rss_bytes": 12 << 20, "mem_limit_bytes": 64 << 20, "net_tx_bytes": 7, "cpus_limit": 0.5, "timestamp": 1.8e9} {
		if got[0].Statistics[name] != want {
			t.Errorf("%s = %v, want %v", name, got[0].Statistics[name], want)
		}
	}
	c := of(agentv1.Call_UPDATE_CONTAINER_MEMORY_LIMIT)
	for mib, want := range map[float64]int{96: 200, 5000: 400, 0: 400} {
		c.UpdateContainerMemoryLimit = &agentv1.Call_UpdateContainerMemoryLimit{
			ContainerId: &mesosv1.ContainerID{Value: new("000000000001")}, MemoryLimit: &mesosv1.Value_Scalar{Value: &mib},
		}
		if status, text := e.post(typeJSON, typeJSON, mesosjson.Marshal(c)); status != want {
			t.Errorf("%v MiB: %d: %s", mib, status, text)
		}
	}
	if got := <-limits; got != 96 {
		t.Errorf("limit %d", got)
	}
}

// A genuine agent's /state has no key that ours lacks, but for what builds.
func TestStateHasAllKeys(t *testing.T) {
	e := newEnv(t, nil)
	e.launch("t1", "sleep infinity", "web:1", task.Running)
	var genuine map[string]json.RawMessage
	if err := json.Unmarshal(shared(t, "agent-state.json"), &genuine); err != nil {
		t.Fatal(err)
	}
	ours := decode[map[string]json.RawMessage](t, e.get("/slave(1)/state", 200))
	for key := range genuine {
		if _, ok := ours[key]; !ok && !strings.HasPrefix(key, "git_") && !strings.HasPrefix(key, "build_") {
			t.Errorf("/state lacks %s", key)
		}
	}
	if text := string(e.get("/metrics", 200)); !strings.Contains(text, `mesopool_agent{name="slave/tasks_running"} 1`) {
		t.Error("no metrics for Prometheus")
	}
}

func FuzzCalls(f *testing.F) {
	f.Add([]byte(`{"type":"READ_FILE","read_file":{"path":"/slave/log","offset":0}}`), true)
	f.Add([]byte{8, 1}, false)
	f.Fuzz(func(t *testing.T, body []byte, asJSON bool) {
		kind := typeProtobuf
		if asJSON {
			kind = typeJSON
		}
		call := &agentv1.Call{}
		if decodeAs(kind, body, call) != nil {
			return
		}
		// What was read can be looked at without a panic.
		id := containerOf(call)
		_ = sessionID(id)
		_ = argv(call.GetLaunchNestedContainer().GetCommand())
		_, _ = splitPath(call.GetReadFile().GetPath())
	})
}

// What was saved of a removed container is read in its place.
func TestSavedLogs(t *testing.T) {
	a := &api{cfg: Config{Provider: bare{}, Saved: func(k task.Key, stderr bool) (io.ReadCloser, error) {
		if stderr {
			return nil, errors.New("not there")
		}
		return io.NopCloser(strings.NewReader("of " + k.ID)), nil
	}}, readers: make(chan struct{}, 1)}
	f := file{task: &agent.Task{Spec: &task.Spec{Key: task.Key{ID: "t1"}}}}
	if data, _, err := a.read(t.Context(), f, 1, 4); err != nil || string(data) != "f t1" {
		t.Errorf("%q, %v", data, err)
	}
	f.stderr = true
	if _, _, err := a.read(t.Context(), f, 0, 4); !errors.Is(err, errNoFile) {
		t.Errorf("error %v", err)
	}
}

func TestGarbage(t *testing.T) {
	e := newEnv(t, nil)
	e.launch("t1", "exit 3", "web:1", task.Failed)
	got := decode[[]disposal](t, e.get("/garbage", 200))
	if len(got) != 1 || got[0].Task != "t1" || got[0].Why != "stays: the end of its task is not acknowledged" || got[0].Ended == "" {
		t.Errorf("garbage %+v", got)
	}
}
