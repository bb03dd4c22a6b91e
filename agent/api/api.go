package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/mesopool/mesopool/agent"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// Config is what the pages show and where they look.
type Config struct {
	Runner     *agent.Runner
	Provider   provider.Provider
	ID         func() string // the agent's ID, "" before the registration
	Master     func() (address string, registered bool)
	PID        string
	Hostname   string
	Version    string
	Total      func() resources.Resources // what is offered, now
	Attributes []*mesosv1.Attribute
	Domain     *mesosv1.DomainInfo // nil: none
	Flags      map[string]string
	Started    time.Time

	Operations func() []*mesosv1.Operation                            // nil: none
	Refused    func() map[string]uint64                               // messages that were not believed, by kind; nil: not counted
	Executors  http.Handler                                           // the executor API; nil: there is none
	Log        *LogBuffer                                             // what the agent logs; nil: not kept
	Level      *slog.LevelVar                                         // of the log; nil: it cannot be changed
	Saved      func(key task.Key, stderr bool) (io.ReadCloser, error) // what was saved of an output; nil: nothing is
}

// New returns the handler. Paths may begin with the actor's name, as in
// /slave(1)/state, and end with a slash or ".json", as old tools write them.
// What is served to GET is served to POST too.
func New(cfg Config) http.Handler {
	a := &api{cfg: cfg, readers: make(chan struct{}, readersMost), sessions: newSessions(), meter: newMeter(cfg.Provider)}
	handlers := a.handlers()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := handlers[plainPath(r.URL.Path)]
		switch {
		case h == nil || strings.Contains(r.URL.Path, "/.."):
			http.Error(w, "404 Not Found.", http.StatusNotFound)
		case r.Method == http.MethodOptions:
			preflight(w)
		default:
			w.Header().Set("Access-Control-Allow-Origin", "*")
			h(w, r)
		}
	})
}

func (a *api) handlers() map[string]http.HandlerFunc {
	out := map[string]http.HandlerFunc{
		"/health": func(http.ResponseWriter, *http.Request) {},
		"/version": func(w http.ResponseWriter, r *http.Request) {
			a.answer(w, r, map[string]string{"version": a.cfg.Version})
		},
		"/flags":              func(w http.ResponseWriter, r *http.Request) { a.answer(w, r, map[string]any{"flags": a.cfg.Flags}) },
		"/state":              a.state,
		"/containers":         a.containers,
		"/monitor/statistics": a.statistics,
		"/metrics/snapshot":   a.metrics,
		"/metrics":            a.prometheus().ServeHTTP,
		"/files/browse":       a.filesBrowse,
		"/files/browse/":      a.filesBrowse,
		"/files/read":         a.filesRead,
		"/files/download":     a.filesDownload,
		"/files/debug":        a.filesDebug,
		"/api/v1":             a.operator,
		"/garbage":            a.garbage,
		"/logs":               a.logs,
		"/exec":               postOnly(a.exec),
	}
	if a.cfg.Executors != nil {
		out["/api/v1/executor"] = a.cfg.Executors.ServeHTTP
	}
	return out
}

func plainPath(path string) string {
	path = strings.TrimRight(path, "/")
	if rest, ok := strings.CutPrefix(path, "/slave("); ok {
		if n, below, found := strings.Cut(rest, ")"); found && len(n) > 0 && strings.Trim(n, "0123456789") == "" {
			path = below
		}
	}
	return strings.TrimSuffix(path, ".json")
}

func postOnly(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			http.Error(w, "Expecting one of { 'POST' }, but received '"+r.Method+"'", http.StatusMethodNotAllowed)
			return
		}
		h(w, r)
	}
}

// preflight lets pages of other origins read.
func preflight(w http.ResponseWriter) {
	w.Header().Set("Access-Control-Allow-Origin", "*")
	w.Header().Set("Access-Control-Allow-Methods", "GET, POST, HEAD, OPTIONS")
	w.Header().Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Accept, Message-Accept, Message-Content-Type")
	w.WriteHeader(http.StatusOK)
}

type api struct {
	cfg      Config
	readers  chan struct{} // a place for each log that is being read
	sessions *sessions
	meter    *meter
	levels   levels
}

// answer writes JSON, or with ?jsonp= a script that hands it over.
func (a *api) answer(w http.ResponseWriter, r *http.Request, body any) {
	text := encode(body)
	callback := r.FormValue("jsonp")
	switch {
	case strings.ContainsFunc(callback, notInName):
		http.Error(w, fmt.Sprintf("The jsonp callback %q is not a name", callback), http.StatusBadRequest)
		return
	case callback != "":
		w.Header().Set("Content-Type", "text/javascript")
		fmt.Fprintf(w, "%s(%s);", callback, text)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(append(text, '\n'))
}

// notInName keeps scripts out of the name of a callback.
func notInName(c rune) bool {
	return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("_$.[]", c)
}

// roster answers 503 itself when the agent is shutting down.
func (a *api) roster(w http.ResponseWriter, r *http.Request) (agent.Roster, bool) {
	roster, err := a.cfg.Runner.Roster(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	}
	return roster, err == nil
}

// disposal is what /garbage says of a container.
type disposal struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Framework string `json:"framework_id"`
	Task      string `json:"task_id"`
	Ended     string `json:"ended,omitempty"` // RFC 3339
	At        string `json:"at,omitempty"`    // when something is done
	Why       string `json:"why"`
}

// garbage says of each stopped container why it goes or stays.
func (a *api) garbage(w http.ResponseWriter, r *http.Request) {
	list, err := a.cfg.Runner.Garbage(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	out := []disposal{}
	for _, d := range list {
		out = append(out, disposal{d.ID, d.Name, d.Key.Framework, d.Key.ID, stamp(d.Ended), stamp(d.At), d.Why})
	}
	a.answer(w, r, out)
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
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
