package api

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/agent"
	"github.com/mesopool/mesopool/mesos/convert"
	"github.com/mesopool/mesopool/mesos/mesosjson"
	"github.com/mesopool/mesopool/mesos/recordio"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	agentv1 "github.com/mesopool/mesopool/mesos/v1/agent"
	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// levels puts the log's level back after a while.
type levels struct {
	mu     sync.Mutex
	normal slog.Level
	timer  *time.Timer
}

func (l *levels) set(v *slog.LevelVar, level slog.Level, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer == nil {
		l.normal = v.Level()
	} else {
		l.timer.Stop()
	}
	v.Set(level)
	l.timer = time.AfterFunc(d, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		v.Set(l.normal)
		l.timer = nil
	})
}

func agentResources(r resources.Resources) []*mesosv1.Resource {
	return convert.ResourcesTo(r, convert.Both)
}

type streamingCall func(http.ResponseWriter, *http.Request, *agentv1.Call) error

func (a *api) streaming() map[agentv1.Call_Type]streamingCall {
	return map[agentv1.Call_Type]streamingCall{
		agentv1.Call_LAUNCH_NESTED_CONTAINER_SESSION: a.launchSession,
		agentv1.Call_ATTACH_CONTAINER_OUTPUT:         a.attachOutput,
		agentv1.Call_ATTACH_CONTAINER_INPUT: func(http.ResponseWriter, *http.Request, *agentv1.Call) error {
			return refuse(http.StatusUnsupportedMediaType, "Expecting 'Content-Type' of %s for ATTACH_CONTAINER_INPUT", typeRecordIO)
		},
	}
}

// byContainer finds the task of a container, or of the outermost parent of a
// nested one; its ID is the backend's, or the container's name.
func (a *api) byContainer(ctx context.Context, id *mesosv1.ContainerID, ended bool) (*agent.Task, error) {
	for id.GetParent() != nil {
		id = id.Parent
	}
	roster, err := a.cfg.Runner.Roster(ctx)
	if err != nil {
		return nil, err
	}
	for i := range roster.Tasks {
		if t := &roster.Tasks[i]; id.GetValue() != "" && (t.Container.ID == id.GetValue() || t.Name == id.GetValue()) {
			return t, nil
		}
	}
	for i := len(roster.Completed) - 1; ended && i >= 0; i-- {
		if t := &roster.Completed[i].Task; id.GetValue() != "" && (t.Container.ID == id.GetValue() || t.Name == id.GetValue()) {
			return t, nil
		}
	}
	return nil, refuse(http.StatusNotFound, "Container %s cannot be found", id.GetValue())
}

// sessionID names a nested container in the table; "" for a task's own.
func sessionID(id *mesosv1.ContainerID) string {
	if id.GetParent() == nil {
		return ""
	}
	text := id.GetValue()
	for id = id.Parent; id != nil; id = id.Parent {
		text = id.GetValue() + "." + text
	}
	return text
}

// begin runs a command in the container of a task.
func (a *api) begin(ctx context.Context, id *mesosv1.ContainerID, c *mesosv1.CommandInfo, k *mesosv1.ContainerInfo, whole bool) (*session, error) {
	execer, ok := provider.As[provider.Execer](a.cfg.Provider)
	if !ok {
		return nil, refuse(http.StatusNotImplemented, "this agent's backend cannot run commands in containers")
	}
	name := sessionID(id)
	if name == "" || id.GetValue() == "" || len(name) > maxPath {
		return nil, refuse(http.StatusBadRequest, "Expecting 'container_id.parent' to be present, and a value of a sensible length")
	}
	t, err := a.byContainer(ctx, id, false)
	if err != nil {
		return nil, err
	}
	if t.Container.ID == "" || t.State.Terminal() {
		return nil, refuse(http.StatusConflict, "the container of task %s does not run; it is %s", t.Spec.Key.ID, t.State)
	}
	opt := provider.ExecOptions{Argv: argv(c), TTY: k.GetTtyInfo() != nil, User: c.GetUser()}
	if len(opt.Argv) == 0 {
		return nil, refuse(http.StatusBadRequest, "Expecting 'command' to name something to run")
	}
	for _, v := range c.GetEnvironment().GetVariables() {
		opt.Env = append(opt.Env, v.GetName()+"="+v.GetValue())
	}
	x := &session{resize: make(chan [2]uint, 1), done: make(chan struct{}), out: newBacklog(whole)}
	run, cancel := context.WithCancel(context.Background())
	x.cancel = cancel
	stdin, w := io.Pipe()
	x.stdin = w
	if err := a.sessions.add(name, x); err != nil {
		cancel()
		return nil, refuse(http.StatusConflict, "%v", err)
	}
	if size := k.GetTtyInfo().GetWindowSize(); size != nil {
		x.resize <- [2]uint{uint(size.GetRows()), uint(size.GetColumns())}
	}
	opt.Stdin, opt.Stdout, opt.Stderr, opt.Resize = stdin, stream{x.out, agentv1.ProcessIO_Data_STDOUT}, stream{x.out, agentv1.ProcessIO_Data_STDERR}, x.resize
	go func() {
		code, err := execer.Exec(run, t.Container.ID, opt)
		stdin.Close()
		cancel()
		x.mu.Lock()
		x.code, x.err = code, err
		x.mu.Unlock()
		close(x.done)
		x.out.close()
	}()
	return x, nil
}

func argv(c *mesosv1.CommandInfo) []string {
	switch {
	case c == nil:
		return nil
	case c.GetShell() && c.Value != nil:
		return []string{"/bin/sh", "-c", c.GetValue()}
	case c.Value == nil:
		return c.Arguments
	case len(c.Arguments) > 0: // the first argument is the program's own name for itself
		return append([]string{c.GetValue()}, c.Arguments[1:]...)
	}
	return []string{c.GetValue()}
}

// launchSession runs a command whose output is the answer; it ends with the
// connection.
func (a *api) launchSession(w http.ResponseWriter, r *http.Request, c *agentv1.Call) error {
	q := c.LaunchNestedContainerSession
	write, err := records(w, r)
	if err != nil {
		return err
	}
	x, err := a.begin(r.Context(), q.GetContainerId(), q.GetCommand(), q.GetContainer(), true)
	if err != nil {
		return err
	}
	defer x.cancel()
	defer x.out.close()
	http.NewResponseController(w).Flush() // the client sends input only when it has the answer's head
	return x.follow(r.Context(), write)
}

func (a *api) launchNested(ctx context.Context, c *agentv1.Call) (*agentv1.Response, error) {
	q := c.LaunchNestedContainer
	_, err := a.begin(ctx, q.GetContainerId(), q.GetCommand(), q.GetContainer(), false)
	return nil, err
}

// follow writes what the command writes until its end.
func (x *session) follow(ctx context.Context, write func(*agentv1.ProcessIO) error) error {
	stop := context.AfterFunc(ctx, x.out.wake)
	defer stop()
	for {
		pieces, more := x.out.take(func() bool { return ctx.Err() != nil })
		if !more {
			return nil
		}
		for _, p := range pieces {
			if write(data(p.stream, p.data)) != nil {
				return nil // the client is gone
			}
		}
	}
}

func data(kind agentv1.ProcessIO_Data_Type, b []byte) *agentv1.ProcessIO {
	return &agentv1.ProcessIO{Type: agentv1.ProcessIO_DATA.Enum(), Data: &agentv1.ProcessIO_Data{Type: &kind, Data: b}}
}

// records begins an answer that is a stream of records, in the form that the
// client wants. Its first write sends the headers, so an error before it can
// still be told.
func records(w http.ResponseWriter, r *http.Request) (func(*agentv1.ProcessIO) error, error) {
	accept, inner := r.Header.Values("Accept"), r.Header.Values("Message-Accept")
	kind, marshal := typeJSON, func(m proto.Message) ([]byte, error) { return mesosjson.Marshal(m), nil }
	content := kind
	switch {
	case acceptable(accept, typeRecordIO):
		content = typeRecordIO
		if !acceptable(inner, typeJSON) {
			kind, marshal = typeProtobuf, proto.Marshal
		}
	case acceptable(accept, typeJSON):
	case acceptable(accept, typeProtobuf):
		kind, marshal = typeProtobuf, proto.Marshal
		content = kind
	default:
		return nil, refuse(http.StatusNotAcceptable, "Expecting 'Accept' to allow %s", typeRecordIO)
	}
	flush, out := http.NewResponseController(w), recordio.NewWriter(w)
	w.Header().Set("Content-Type", content)
	if content == typeRecordIO {
		w.Header().Set("Message-Content-Type", kind)
	}
	return func(m *agentv1.ProcessIO) error {
		body, err := marshal(m)
		if err != nil {
			return err
		}
		return cmp.Or(out.WriteRecord(body), flush.Flush())
	}, nil
}

// attachOutput streams what a task writes from now on, or what a command in it
// does.
func (a *api) attachOutput(w http.ResponseWriter, r *http.Request, c *agentv1.Call) error {
	id := c.AttachContainerOutput.GetContainerId()
	write, err := records(w, r)
	if err != nil {
		return err
	}
	if name := sessionID(id); name != "" {
		x := a.sessions.get(name)
		if x == nil {
			return refuse(http.StatusNotFound, "Container %s cannot be found", id.GetValue())
		}
		http.NewResponseController(w).Flush()
		return x.follow(r.Context(), write)
	}
	t, err := a.byContainer(r.Context(), id, false)
	if err != nil {
		return err
	}
	logger, ok := provider.As[provider.Logger](a.cfg.Provider)
	if !ok {
		return refuse(http.StatusNotImplemented, "this agent's backend keeps no logs")
	}
	reader, err := logger.Logs(r.Context(), t.Container.ID, provider.LogOptions{Follow: true, Tail: 100, Stdout: true, Stderr: true})
	if err != nil {
		return err
	}
	defer reader.Close()
	http.NewResponseController(w).Flush()
	for {
		piece, err := reader.Next()
		if err != nil {
			return nil // the end, or a client that is gone: the headers are out
		}
		kind := agentv1.ProcessIO_Data_STDOUT
		if piece.Stderr {
			kind = agentv1.ProcessIO_Data_STDERR
		}
		if write(data(kind, piece.Data)) != nil {
			return nil
		}
	}
}

// attachInput reads a streamed call: first which container, then what goes to
// its standard input.
func (a *api) attachInput(r *http.Request) error {
	in := recordio.NewReader(r.Body, maxCall)
	kind := cmp.Or(r.Header.Get("Message-Content-Type"), typeJSON)
	first, err := nextInput(in, kind)
	if err != nil {
		return err
	}
	id := first.GetContainerId()
	if first.GetType() != agentv1.Call_AttachContainerInput_CONTAINER_ID || id == nil {
		return refuse(http.StatusBadRequest, "Expecting the first record to name the container")
	}
	x := a.sessions.get(sessionID(id))
	if x == nil {
		if _, err := a.byContainer(r.Context(), id, false); err == nil && id.Parent == nil {
			return refuse(http.StatusNotImplemented, "the standard input of a task's own process cannot be reached; launch a session in the container")
		}
		return refuse(http.StatusNotFound, "Container %s cannot be found", id.GetValue())
	}
	defer x.stdin.Close()
	for {
		m, err := nextInput(in, kind)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if !x.input(m.GetProcessIo()) {
			return nil
		}
	}
}

func nextInput(in *recordio.Reader, kind string) (*agentv1.Call_AttachContainerInput, error) {
	record, err := in.Next()
	if errors.Is(err, io.EOF) {
		return nil, io.EOF
	}
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "Failed to read a record: %v", err)
	}
	call := &agentv1.Call{}
	if err := decodeAs(kind, bytes.Clone(record), call); err != nil {
		return nil, err
	}
	if call.GetType() != agentv1.Call_ATTACH_CONTAINER_INPUT || call.AttachContainerInput == nil {
		return nil, refuse(http.StatusBadRequest, "Expecting records of type ATTACH_CONTAINER_INPUT")
	}
	return call.AttachContainerInput, nil
}

// input takes one record; false when the command takes no more.
func (x *session) input(m *agentv1.ProcessIO) bool {
	switch {
	case m.GetType() == agentv1.ProcessIO_DATA && m.GetData().GetType() == agentv1.ProcessIO_Data_STDIN:
		if len(m.Data.Data) == 0 {
			x.stdin.Close() // as the end of the input is told
			return true
		}
		_, err := x.stdin.Write(m.Data.Data)
		return err == nil
	case m.GetControl().GetTtyInfo().GetWindowSize() != nil:
		size := m.Control.TtyInfo.WindowSize
		select {
		case <-x.resize: // an older one that nobody has taken
		default:
		}
		x.resize <- [2]uint{uint(size.GetRows()), uint(size.GetColumns())}
	}
	return true
}

func containerOf(c *agentv1.Call) *mesosv1.ContainerID {
	for _, id := range []*mesosv1.ContainerID{
		c.GetWaitContainer().GetContainerId(), c.GetWaitNestedContainer().GetContainerId(), c.GetKillContainer().GetContainerId(),
		c.GetKillNestedContainer().GetContainerId(), c.GetRemoveContainer().GetContainerId(), c.GetRemoveNestedContainer().GetContainerId(),
	} {
		if id != nil {
			return id
		}
	}
	return nil
}

// wait answers at the end of a command, or of a task.
func (a *api) wait(ctx context.Context, c *agentv1.Call) (*agentv1.Response, error) {
	id := containerOf(c)
	out := &agentv1.Response_WaitContainer{}
	if x := a.sessions.get(sessionID(id)); x != nil {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-x.done:
		}
		status, text := x.result()
		out.ExitStatus = &status
		if text != "" {
			out.Message = &text
		}
	} else if err := a.waitForTask(ctx, id, out); err != nil {
		return nil, err
	}
	if c.GetType() == agentv1.Call_WAIT_CONTAINER {
		return &agentv1.Response{Type: agentv1.Response_WAIT_CONTAINER.Enum(), WaitContainer: out}, nil
	}
	return &agentv1.Response{Type: agentv1.Response_WAIT_NESTED_CONTAINER.Enum(), WaitNestedContainer: &agentv1.Response_WaitNestedContainer{
		ExitStatus: out.ExitStatus, State: out.State, Reason: out.Reason, Message: out.Message,
	}}, nil
}

func (a *api) waitForTask(ctx context.Context, id *mesosv1.ContainerID, out *agentv1.Response_WaitContainer) error {
	if id.GetParent() != nil {
		return refuse(http.StatusNotFound, "Container %s cannot be found", id.GetValue())
	}
	for {
		t, err := a.byContainer(ctx, id, true)
		if err != nil {
			return err
		}
		if t.State.Terminal() {
			tellEnd(t, out)
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func tellEnd(t *agent.Task, out *agentv1.Response_WaitContainer) {
	if t.Container.HasExit {
		out.ExitStatus = new(int32(t.Container.ExitCode) << 8)
	}
	out.State = mesosv1.TaskState(t.State).Enum()
	if n := len(t.History); n > 0 {
		s := convert.TaskStatus(t.Spec.Key.ID, "", &t.History[n-1])
		out.Reason, out.Message = s.Reason, s.Message
	}
}

// kill ends a command. A task is ended by its framework.
func (a *api) kill(ctx context.Context, c *agentv1.Call) (*agentv1.Response, error) {
	id := containerOf(c)
	x := a.sessions.get(sessionID(id))
	if x == nil {
		if _, err := a.byContainer(ctx, id, false); err != nil || id.GetParent() != nil {
			return nil, refuse(http.StatusNotFound, "Container %s cannot be found", id.GetValue())
		}
		return nil, refuse(http.StatusForbidden, "the container is a task's; kill the task through its framework")
	}
	x.cancel()
	return nil, nil
}

// remove forgets a command that has ended.
func (a *api) remove(ctx context.Context, c *agentv1.Call) (*agentv1.Response, error) {
	id := containerOf(c)
	if id.GetParent() == nil {
		return nil, refuse(http.StatusForbidden, "a task's container is removed when its end is acknowledged and its keep time is over")
	}
	if !a.sessions.remove(sessionID(id)) {
		return nil, refuse(http.StatusConflict, "the container still runs")
	}
	return nil, nil
}

// updateMemory is ClusterD's live change of a task's memory limit. It lasts as
// long as the container.
func (a *api) updateMemory(ctx context.Context, c *agentv1.Call) (*agentv1.Response, error) {
	q := c.UpdateContainerMemoryLimit
	updater, ok := provider.As[provider.MemoryUpdater](a.cfg.Provider)
	if !ok {
		return nil, refuse(http.StatusNotImplemented, "this agent's backend cannot change the memory of a container that runs")
	}
	t, err := a.byContainer(ctx, q.GetContainerId(), false)
	if err != nil {
		return nil, err
	}
	limit, err := resources.FromFloat(q.GetMemoryLimit().GetValue())
	if err != nil || limit < resources.Whole(1) || t.State != task.Running {
		return nil, refuse(http.StatusBadRequest, "the limit must be 1 MiB or more, and the task must run; it is %s", t.State)
	}
	if err := updater.UpdateMemory(ctx, t.Container.ID, uint64(limit/1000)); err != nil {
		if errors.Is(err, provider.ErrRejected) {
			return nil, refuse(http.StatusBadRequest, "%v", err)
		}
		return nil, err
	}
	return nil, nil
}
