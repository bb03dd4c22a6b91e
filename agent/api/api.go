package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/mesopool/mesopool/agent"
	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/resources"
)

// Config is what the pages show and where they look.
type Config struct {
	Runner    *agent.Runner
	Provider  provider.Provider
	ID        func() string // the agent's ID, "" before the registration
	Master    func() (address string, registered bool)
	PID       string
	Hostname  string
	Version   string
	Resources resources.Resources
	Started   time.Time
}

// New returns the handler. Paths may begin with the actor's name, as in
// /slave(1)/state, and end with ".json", as old tools write them.
func New(cfg Config) http.Handler {
	a := &api{cfg: cfg}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) { answer(w, map[string]string{"version": cfg.Version}) })
	mux.HandleFunc("GET /state", a.state)
	mux.HandleFunc("GET /containers", a.containers)
	mux.HandleFunc("GET /metrics/snapshot", a.metrics)
	mux.HandleFunc("GET /logs", a.logs)
	mux.HandleFunc("POST /exec", a.exec)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.Path = strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/slave(1)"), ".json")
		r.URL.RawPath = ""
		mux.ServeHTTP(w, r)
	})
}

type api struct{ cfg Config }

func answer(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(body)
}

// roster answers 503 itself when the agent is shutting down.
func (a *api) roster(w http.ResponseWriter, r *http.Request) (agent.Roster, bool) {
	roster, err := a.cfg.Runner.Roster(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	}
	return roster, err == nil
}

func scalars(r resources.Resources) map[string]float64 {
	out := map[string]float64{"cpus": 0, "mem": 0, "disk": 0, "gpus": 0}
	for _, s := range r.Scalars() {
		out[s.Name] = s.Amount.Float()
	}
	return out
}

// state has the fields of Mesos' /state that tell what runs. Every task is its
// own executor, as for a genuine agent's command tasks.
func (a *api) state(w http.ResponseWriter, r *http.Request) {
	roster, ok := a.roster(w, r)
	if !ok {
		return
	}
	byFramework := map[string][]map[string]any{}
	pending := 0
	for i := range roster.Tasks {
		t := &roster.Tasks[i]
		if t.Pending != nil {
			pending++
		}
		id := t.Spec.Key.ID
		byFramework[t.Spec.Key.Framework] = append(byFramework[t.Spec.Key.Framework], map[string]any{
			"id": id, "name": t.Spec.Name, "source": id, "container": t.Name, "directory": "/tasks/" + id, "resources": scalars(t.Spec.Resources),
			"tasks": []map[string]any{{
				"id": id, "name": t.Spec.Name, "state": t.State.String(), "framework_id": t.Spec.Key.Framework, "executor_id": "",
				"slave_id": a.cfg.ID(), "resources": scalars(t.Spec.Resources),
			}},
			"queued_tasks": []any{}, "completed_tasks": []any{},
		})
	}
	frameworks := []map[string]any{}
	for _, f := range roster.Frameworks {
		frameworks = append(frameworks, map[string]any{"id": f.ID, "executors": byFramework[f.ID], "completed_executors": []any{}})
	}
	master, registered := a.cfg.Master()
	answer(w, map[string]any{
		"version": a.cfg.Version, "id": a.cfg.ID(), "pid": a.cfg.PID, "hostname": a.cfg.Hostname, "resources": scalars(a.cfg.Resources),
		"master_hostname": master, "registered": registered, "start_time": float64(a.cfg.Started.UnixNano()) / 1e9,
		"attributes": map[string]any{}, "frameworks": frameworks, "completed_frameworks": []any{}, "flags": map[string]string{},
		"kept_containers": roster.Kept, "orphans": roster.Orphans, "unacknowledged_updates": pending,
	})
}

func (a *api) containers(w http.ResponseWriter, r *http.Request) {
	roster, ok := a.roster(w, r)
	if !ok {
		return
	}
	out := []map[string]any{}
	for i := range roster.Tasks {
		t := &roster.Tasks[i]
		out = append(out, map[string]any{
			"framework_id": t.Spec.Key.Framework, "executor_id": t.Spec.Key.ID, "executor_name": t.Spec.Name, "source": t.Spec.Key.ID,
			"container_id": t.Container.ID, "name": t.Name, "state": t.State.String(), "addresses": t.Container.Addresses,
		})
	}
	answer(w, out)
}

func (a *api) metrics(w http.ResponseWriter, r *http.Request) {
	roster, ok := a.roster(w, r)
	if !ok {
		return
	}
	out := map[string]float64{
		"slave/uptime_secs": time.Since(a.cfg.Started).Seconds(), "slave/frameworks_active": float64(len(roster.Frameworks)), "slave/registered": 0,
		"slave/tasks_staging": 0, "slave/tasks_starting": 0, "slave/tasks_running": 0, "slave/tasks_killing": 0,
		"mesopool/containers_kept": float64(roster.Kept), "mesopool/orphans": float64(roster.Orphans),
	}
	if _, registered := a.cfg.Master(); registered {
		out["slave/registered"] = 1
	}
	for i := range roster.Tasks {
		out["slave/tasks_"+strings.ToLower(strings.TrimPrefix(roster.Tasks[i].State.String(), "TASK_"))]++
	}
	answer(w, out)
}

// find looks a task up by its ID; the query names it.
func (a *api) find(w http.ResponseWriter, r *http.Request) (*agent.Task, bool) {
	id := r.URL.Query().Get("task")
	roster, ok := a.roster(w, r)
	if !ok {
		return nil, false
	}
	for i := range roster.Tasks {
		if t := &roster.Tasks[i]; t.Spec.Key.ID == id {
			if t.Container.ID == "" {
				http.Error(w, fmt.Sprintf("task %s has no container yet; it is %s", id, t.State), http.StatusConflict)
				return nil, false
			}
			return t, true
		}
	}
	http.Error(w, fmt.Sprintf("there is no task %q on this agent", id), http.StatusNotFound)
	return nil, false
}

// logs streams what a task wrote: ?task=ID&tail=N&follow=true. The answer is
// frames, see WriteFrame.
func (a *api) logs(w http.ResponseWriter, r *http.Request) {
	logger, ok := provider.As[provider.Logger](a.cfg.Provider)
	if !ok {
		http.Error(w, "this agent's backend keeps no logs", http.StatusNotImplemented)
		return
	}
	t, ok := a.find(w, r)
	if !ok {
		return
	}
	q := r.URL.Query()
	tail, _ := strconv.Atoi(q.Get("tail"))
	reader, err := logger.Logs(r.Context(), t.Container.ID, provider.LogOptions{Follow: q.Get("follow") == "true", Tail: tail, Stdout: true, Stderr: true})
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer reader.Close()
	w.Header().Set("Content-Type", frameType)
	flush := http.NewResponseController(w)
	flush.Flush()
	for {
		piece, err := reader.Next()
		if err != nil {
			if !errors.Is(err, io.EOF) && r.Context().Err() == nil {
				WriteFrame(w, FrameError, []byte(err.Error()))
			}
			return
		}
		kind := FrameStdout
		if piece.Stderr {
			kind = FrameStderr
		}
		if WriteFrame(w, kind, piece.Data) != nil {
			return
		}
		flush.Flush()
	}
}

// exec runs a command in a task's container:
// ?task=ID&arg=…&arg=…&tty=true. The connection is upgraded; both sides then
// send frames, see WriteFrame.
func (a *api) exec(w http.ResponseWriter, r *http.Request) {
	execer, ok := provider.As[provider.Execer](a.cfg.Provider)
	if !ok {
		http.Error(w, "this agent's backend cannot run commands in containers", http.StatusNotImplemented)
		return
	}
	q := r.URL.Query()
	if len(q["arg"]) == 0 {
		http.Error(w, "name the command by arg parameters", http.StatusBadRequest)
		return
	}
	t, ok := a.find(w, r)
	if !ok {
		return
	}
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+frameType+"\r\n\r\n"); err != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	in := newInput(buf, cancel)
	defer in.stdin.Close()
	out := &frames{w: conn}
	code, err := execer.Exec(ctx, t.Container.ID, provider.ExecOptions{
		Argv: q["arg"], TTY: q.Get("tty") == "true", User: q.Get("user"),
		Stdin: in.stdin, Stdout: out.stream(FrameStdout), Stderr: out.stream(FrameStderr), Resize: in.resize,
	})
	if err != nil && !errors.Is(err, context.Canceled) {
		out.write(FrameError, []byte(err.Error()))
		return
	}
	out.write(FrameExit, []byte(strconv.Itoa(code)))
}
