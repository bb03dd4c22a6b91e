package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/agent"
	"github.com/mesopool/mesopool/mesos/link"
	"github.com/mesopool/mesopool/mesos/mesosjson"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	agentv1 "github.com/mesopool/mesopool/mesos/v1/agent"
	"github.com/mesopool/mesopool/provider"
)

const (
	typeJSON     = "application/json"
	typeProtobuf = "application/x-protobuf"
	typeRecordIO = "application/recordio"

	maxCall = 4 << 20 // bytes of one call, or of one record of a streamed one
)

// refused is an answer other than 200.
type refused struct {
	status int
	text   string
}

func (r refused) Error() string { return r.text }

func refuse(status int, format string, args ...any) error {
	return refused{status, fmt.Sprintf(format, args...)}
}

func answerError(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	var r refused
	switch {
	case errors.As(err, &r):
		status = r.status
	case errors.Is(err, errNoFile), errors.Is(err, provider.ErrNotFound):
		status = http.StatusNotFound
	case errors.Is(err, context.DeadlineExceeded):
		status = http.StatusServiceUnavailable
	}
	http.Error(w, err.Error(), status)
}

// operator is Mesos' v1 agent API (slave/http.cpp, api).
func (a *api) operator(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "Expecting one of { 'POST' }, but received '"+r.Method+"'", http.StatusMethodNotAllowed)
		return
	}
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if kind == typeRecordIO {
		if err := a.attachInput(r); err != nil {
			answerError(w, err)
		}
		return
	}
	call := &agentv1.Call{}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxCall))
	if err != nil {
		err = refuse(http.StatusRequestEntityTooLarge, "Failed to read the body: %v", err)
	} else {
		err = decodeAs(kind, body, call)
	}
	if err == nil && call.Type == nil {
		err = refuse(http.StatusBadRequest, "Failed to validate agent::Call: Expecting 'type' to be present")
	}
	if err == nil {
		err = a.call(w, r, call)
	}
	if err != nil {
		answerError(w, err)
	}
}

// decodeAs reads a message in the form that a header names.
func decodeAs(kind string, body []byte, into proto.Message) error {
	var err error
	switch kind {
	case "":
		return refuse(http.StatusBadRequest, "Expecting 'Content-Type' to be present")
	case typeJSON:
		err = mesosjson.Unmarshal(body, into)
	case typeProtobuf:
		err = proto.Unmarshal(body, into)
	default:
		return refuse(http.StatusUnsupportedMediaType, "Expecting 'Content-Type' of %s or %s or %s", typeJSON, typeProtobuf, typeRecordIO)
	}
	if err != nil {
		return refuse(http.StatusBadRequest, "Failed to parse body into Call protobuf: %v", err)
	}
	return nil
}

// acceptable says whether a header allows a kind; a missing one allows all.
func acceptable(header []string, kind string) bool {
	for _, value := range header {
		for part := range strings.SplitSeq(value, ",") {
			name, params, err := mime.ParseMediaType(strings.TrimSpace(part))
			if err == nil && params["q"] != "0" && (name == kind || name == "application/*" || name == "*/*") {
				return true
			}
		}
	}
	return len(header) == 0
}

// call carries a call out: one that streams itself, one that only reads, or one
// that this agent does not have.
func (a *api) call(w http.ResponseWriter, r *http.Request, c *agentv1.Call) error {
	if do := a.streaming()[c.GetType()]; do != nil {
		return do(w, r, c)
	}
	do := a.plain()[c.GetType()]
	if do == nil {
		return refuse(http.StatusNotImplemented, "%s: %s", c.GetType(), notDone(c.GetType()))
	}
	out, err := do(r.Context(), c)
	if err != nil || out == nil {
		return err
	}
	header := r.Header.Values("Accept")
	switch {
	case acceptable(header, typeJSON):
		w.Header().Set("Content-Type", typeJSON)
		_, err = w.Write(mesosjson.Marshal(out))
	case acceptable(header, typeProtobuf):
		var body []byte
		if body, err = proto.Marshal(out); err == nil {
			w.Header().Set("Content-Type", typeProtobuf)
			_, err = w.Write(body)
		}
	default:
		return refuse(http.StatusNotAcceptable, "Expecting 'Accept' to allow %s or %s", typeProtobuf, typeJSON)
	}
	return err
}

// notDone says why a call is not carried out.
func notDone(c agentv1.Call_Type) string {
	switch c {
	case agentv1.Call_LAUNCH_CONTAINER:
		return "this agent runs tasks only: launch one through a framework"
	case agentv1.Call_PRUNE_IMAGES:
		return "images belong to the backend: prune them there"
	case agentv1.Call_ADD_RESOURCE_PROVIDER_CONFIG, agentv1.Call_UPDATE_RESOURCE_PROVIDER_CONFIG, agentv1.Call_REMOVE_RESOURCE_PROVIDER_CONFIG, agentv1.Call_MARK_RESOURCE_PROVIDER_GONE:
		return "this agent has no resource providers"
	}
	return "this agent does not have the call"
}

type plainCall func(context.Context, *agentv1.Call) (*agentv1.Response, error)

func (a *api) plain() map[agentv1.Call_Type]plainCall {
	return map[agentv1.Call_Type]plainCall{
		agentv1.Call_GET_HEALTH: func(context.Context, *agentv1.Call) (*agentv1.Response, error) {
			return &agentv1.Response{Type: agentv1.Response_GET_HEALTH.Enum(), GetHealth: &agentv1.Response_GetHealth{Healthy: new(true)}}, nil
		},
		agentv1.Call_GET_VERSION: func(context.Context, *agentv1.Call) (*agentv1.Response, error) {
			return &agentv1.Response{Type: agentv1.Response_GET_VERSION.Enum(), GetVersion: &agentv1.Response_GetVersion{VersionInfo: &mesosv1.VersionInfo{Version: &a.cfg.Version}}}, nil
		},
		agentv1.Call_GET_FLAGS: a.getFlags, agentv1.Call_GET_METRICS: a.getMetrics,
		agentv1.Call_GET_LOGGING_LEVEL: a.getLevel, agentv1.Call_SET_LOGGING_LEVEL: a.setLevel,
		agentv1.Call_LIST_FILES: a.listFiles, agentv1.Call_READ_FILE: a.readFile, agentv1.Call_READ_LOG: a.readLog,
		agentv1.Call_GET_STATE: a.getState, agentv1.Call_GET_CONTAINERS: a.getContainers, agentv1.Call_GET_FRAMEWORKS: a.getFrameworks,
		agentv1.Call_GET_EXECUTORS: a.getExecutors, agentv1.Call_GET_TASKS: a.getTasks, agentv1.Call_GET_OPERATIONS: a.getOperations,
		agentv1.Call_GET_AGENT: a.getAgent,
		agentv1.Call_GET_RESOURCE_PROVIDERS: func(context.Context, *agentv1.Call) (*agentv1.Response, error) {
			return &agentv1.Response{Type: agentv1.Response_GET_RESOURCE_PROVIDERS.Enum(), GetResourceProviders: &agentv1.Response_GetResourceProviders{}}, nil
		},
		agentv1.Call_LAUNCH_NESTED_CONTAINER: a.launchNested,
		agentv1.Call_WAIT_NESTED_CONTAINER:   a.wait, agentv1.Call_WAIT_CONTAINER: a.wait,
		agentv1.Call_KILL_NESTED_CONTAINER: a.kill, agentv1.Call_KILL_CONTAINER: a.kill,
		agentv1.Call_REMOVE_NESTED_CONTAINER: a.remove, agentv1.Call_REMOVE_CONTAINER: a.remove,
		agentv1.Call_UPDATE_CONTAINER_MEMORY_LIMIT: a.updateMemory,
	}
}

func (a *api) getFlags(context.Context, *agentv1.Call) (*agentv1.Response, error) {
	out := &agentv1.Response_GetFlags{}
	for _, name := range sortedKeys(a.cfg.Flags) {
		out.Flags = append(out.Flags, &mesosv1.Flag{Name: new(name), Value: new(a.cfg.Flags[name])})
	}
	return &agentv1.Response{Type: agentv1.Response_GET_FLAGS.Enum(), GetFlags: out}, nil
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func (a *api) getMetrics(ctx context.Context, _ *agentv1.Call) (*agentv1.Response, error) {
	roster, err := a.cfg.Runner.Roster(ctx)
	if err != nil {
		return nil, err
	}
	all, out := a.snapshot(roster), &agentv1.Response_GetMetrics{}
	for _, name := range sortedKeys(all) {
		out.Metrics = append(out.Metrics, &mesosv1.Metric{Name: new(name), Value: new(all[name])})
	}
	return &agentv1.Response{Type: agentv1.Response_GET_METRICS.Enum(), GetMetrics: out}, nil
}

// getLevel: verbosity 0 is normal, everything above is debugging.
func (a *api) getLevel(context.Context, *agentv1.Call) (*agentv1.Response, error) {
	level := uint32(0)
	if a.cfg.Level != nil && a.cfg.Level.Level() < slog.LevelInfo {
		level = 1
	}
	return &agentv1.Response{Type: agentv1.Response_GET_LOGGING_LEVEL.Enum(), GetLoggingLevel: &agentv1.Response_GetLoggingLevel{Level: &level}}, nil
}

// setLevel is for a while; then the level is what it was at the first call.
func (a *api) setLevel(_ context.Context, c *agentv1.Call) (*agentv1.Response, error) {
	if a.cfg.Level == nil || c.SetLoggingLevel == nil {
		return nil, refuse(http.StatusBadRequest, "the level cannot be set, or 'set_logging_level' is missing")
	}
	d := time.Duration(c.SetLoggingLevel.Duration.GetNanoseconds())
	if d <= 0 || d > 24*time.Hour {
		return nil, refuse(http.StatusBadRequest, "the duration is %v; it must be above 0 and at most a day", d)
	}
	level := slog.LevelInfo
	if c.SetLoggingLevel.GetLevel() > 0 {
		level = slog.LevelDebug
	}
	a.levels.set(a.cfg.Level, level, d)
	return nil, nil
}

func (a *api) listFiles(ctx context.Context, c *agentv1.Call) (*agentv1.Response, error) {
	list, err := a.browse(ctx, c.ListFiles.GetPath())
	if err != nil {
		return nil, err
	}
	out := &agentv1.Response_ListFiles{}
	for _, f := range list {
		out.FileInfos = append(out.FileInfos, &mesosv1.FileInfo{
			Path: &f.Path, Nlink: new(int32(f.Nlink)), Size: new(uint64(f.Size)), Mode: new(uint32(0o100644)), Uid: &f.UID, Gid: &f.GID,
			Mtime: &mesosv1.TimeInfo{Nanoseconds: new(int64(f.Mtime * 1e9))},
		})
	}
	return &agentv1.Response{Type: agentv1.Response_LIST_FILES.Enum(), ListFiles: out}, nil
}

// page reads for calls that name an offset and perhaps a length, and tells the
// whole size.
func (a *api) page(ctx context.Context, f file, offset uint64, length *uint64) (data []byte, size uint64, err error) {
	most := uint64(maxRead)
	if length != nil {
		most = min(most, *length)
	}
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	var b limited
	b.from, b.most = int64(min(offset, 1<<62)), int64(most)
	n, err := a.stream(ctx, f, 0, -1, &b)
	return b.data, uint64(n), err
}

// limited keeps a part of what is written.
type limited struct {
	from, most, at int64
	data           []byte
}

func (l *limited) Write(p []byte) (int, error) {
	w := sliceWriter{&l.data}
	err := part(w, p, l.at, l.from, l.most)
	l.at += int64(len(p))
	return len(p), err
}

type sliceWriter struct{ to *[]byte }

func (s sliceWriter) Write(p []byte) (int, error) {
	*s.to = append(*s.to, p...)
	return len(p), nil
}

func (a *api) readFile(ctx context.Context, c *agentv1.Call) (*agentv1.Response, error) {
	files, dir, err := a.lookup(ctx, c.ReadFile.GetPath())
	if err != nil {
		return nil, err
	}
	if dir {
		return nil, refuse(http.StatusBadRequest, "Cannot read a directory")
	}
	data, size, err := a.page(ctx, files[0], c.ReadFile.GetOffset(), c.ReadFile.Length)
	if err != nil {
		return nil, err
	}
	return &agentv1.Response{Type: agentv1.Response_READ_FILE.Enum(), ReadFile: &agentv1.Response_ReadFile{Size: &size, Data: notNil(data)}}, nil
}

func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// readLog is ClusterD's: of the agent, or of a task's container.
func (a *api) readLog(ctx context.Context, c *agentv1.Call) (*agentv1.Response, error) {
	q := c.ReadLog
	out := &agentv1.Response_ReadLog{}
	read := func(f file, offset uint64) (*agentv1.Response_ReadLog_Data, error) {
		data, size, err := a.page(ctx, f, offset, q.Length)
		return &agentv1.Response_ReadLog_Data{Size: &size, Data: notNil(data)}, err
	}
	var err error
	switch q.GetSource() {
	case agentv1.Call_ReadLog_AGENT:
		if a.cfg.Log == nil {
			return nil, errNoFile
		}
		out.Stdout, err = read(file{log: a.cfg.Log}, q.GetStdoutOffset())
	case agentv1.Call_ReadLog_CONTAINER:
		var t *agent.Task
		if t, err = a.byContainer(ctx, q.ContainerId, true); err != nil {
			return nil, err
		}
		if out.Stdout, err = read(file{task: t}, q.GetStdoutOffset()); err == nil {
			out.Stderr, err = read(file{task: t, stderr: true}, q.GetStderrOffset())
		}
	default:
		return nil, refuse(http.StatusBadRequest, "the source must be AGENT or CONTAINER")
	}
	return &agentv1.Response{Type: agentv1.Response_READ_LOG.Enum(), ReadLog: out}, err
}

func (a *api) getContainers(ctx context.Context, _ *agentv1.Call) (*agentv1.Response, error) {
	roster, err := a.cfg.Runner.Roster(ctx)
	if err != nil {
		return nil, err
	}
	return &agentv1.Response{Type: agentv1.Response_GET_CONTAINERS.Enum(), GetContainers: &agentv1.Response_GetContainers{Containers: a.measured(ctx, roster)}}, nil
}

func frameworkList(roster agent.Roster) *agentv1.Response_GetFrameworks {
	out, known := &agentv1.Response_GetFrameworks{}, map[string]bool{}
	for i := range roster.Frameworks {
		known[roster.Frameworks[i].ID] = true
		out.Frameworks = append(out.Frameworks, &agentv1.Response_GetFrameworks_Framework{FrameworkInfo: frameworkInfo(&roster.Frameworks[i])})
	}
	for i := range roster.Completed {
		f := roster.Completed[i].Framework
		if id := roster.Completed[i].Spec.Key.Framework; !known[id] {
			known[id], f.ID = true, id
			out.CompletedFrameworks = append(out.CompletedFrameworks, &agentv1.Response_GetFrameworks_Framework{FrameworkInfo: frameworkInfo(&f)})
		}
	}
	return out
}

func executorInfo(t *agent.Task) *agentv1.Response_GetExecutors_Executor {
	return &agentv1.Response_GetExecutors_Executor{ExecutorInfo: &mesosv1.ExecutorInfo{
		ExecutorId: &mesosv1.ExecutorID{Value: &t.Spec.Key.ID}, FrameworkId: &mesosv1.FrameworkID{Value: &t.Spec.Key.Framework},
		Name: new("Command Executor (Task: " + t.Spec.Key.ID + ")"), Source: &t.Spec.Key.ID,
	}}
}

func executorList(roster agent.Roster) *agentv1.Response_GetExecutors {
	out := &agentv1.Response_GetExecutors{}
	for i := range roster.Tasks {
		out.Executors = append(out.Executors, executorInfo(&roster.Tasks[i]))
	}
	for i := range roster.Completed {
		out.CompletedExecutors = append(out.CompletedExecutors, executorInfo(&roster.Completed[i].Task))
	}
	return out
}

func (a *api) taskList(roster agent.Roster) (*agentv1.Response_GetTasks, error) {
	out := &agentv1.Response_GetTasks{}
	for i := range roster.Tasks {
		m, err := link.TaskMessage(&roster.Tasks[i], a.cfg.ID())
		switch {
		case err != nil:
			return nil, err
		case m == nil:
		case roster.Tasks[i].State.Terminal():
			out.TerminatedTasks = append(out.TerminatedTasks, m)
		default:
			out.LaunchedTasks = append(out.LaunchedTasks, m)
		}
	}
	for i := range roster.Completed {
		if m, err := link.TaskMessage(&roster.Completed[i].Task, a.cfg.ID()); err == nil && m != nil {
			out.CompletedTasks = append(out.CompletedTasks, m)
		}
	}
	return out, nil
}

func (a *api) getFrameworks(ctx context.Context, _ *agentv1.Call) (*agentv1.Response, error) {
	roster, err := a.cfg.Runner.Roster(ctx)
	return &agentv1.Response{Type: agentv1.Response_GET_FRAMEWORKS.Enum(), GetFrameworks: frameworkList(roster)}, err
}

func (a *api) getExecutors(ctx context.Context, _ *agentv1.Call) (*agentv1.Response, error) {
	roster, err := a.cfg.Runner.Roster(ctx)
	return &agentv1.Response{Type: agentv1.Response_GET_EXECUTORS.Enum(), GetExecutors: executorList(roster)}, err
}

func (a *api) getTasks(ctx context.Context, _ *agentv1.Call) (*agentv1.Response, error) {
	roster, err := a.cfg.Runner.Roster(ctx)
	if err != nil {
		return nil, err
	}
	list, err := a.taskList(roster)
	return &agentv1.Response{Type: agentv1.Response_GET_TASKS.Enum(), GetTasks: list}, err
}

func (a *api) getState(ctx context.Context, _ *agentv1.Call) (*agentv1.Response, error) {
	roster, err := a.cfg.Runner.Roster(ctx)
	if err != nil {
		return nil, err
	}
	list, err := a.taskList(roster)
	return &agentv1.Response{Type: agentv1.Response_GET_STATE.Enum(), GetState: &agentv1.Response_GetState{
		GetTasks: list, GetExecutors: executorList(roster), GetFrameworks: frameworkList(roster),
	}}, err
}

func (a *api) getOperations(context.Context, *agentv1.Call) (*agentv1.Response, error) {
	out := &agentv1.Response_GetOperations{}
	if a.cfg.Operations != nil {
		out.Operations = a.cfg.Operations()
	}
	return &agentv1.Response{Type: agentv1.Response_GET_OPERATIONS.Enum(), GetOperations: out}, nil
}

func (a *api) getAgent(ctx context.Context, _ *agentv1.Call) (*agentv1.Response, error) {
	roster, err := a.cfg.Runner.Roster(ctx)
	if err != nil {
		return nil, err
	}
	out := &agentv1.Response_GetAgent{AgentInfo: &mesosv1.AgentInfo{
		Hostname: &a.cfg.Hostname, Id: &mesosv1.AgentID{Value: new(a.cfg.ID())}, Attributes: a.cfg.Attributes, Domain: a.cfg.Domain,
		Resources: agentResources(a.cfg.Total()), Checkpoint: new(true),
	}}
	if roster.Drain != nil {
		out.DrainConfig = drainConfig(roster.Drain)
	}
	return &agentv1.Response{Type: agentv1.Response_GET_AGENT.Enum(), GetAgent: out}, nil
}
