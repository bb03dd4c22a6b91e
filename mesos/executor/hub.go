package executor

import (
	"context"
	"crypto/subtle"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/agent"
	"github.com/mesopool/mesopool/mesos/mesosjson"
	"github.com/mesopool/mesopool/mesos/recordio"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	executorv1 "github.com/mesopool/mesopool/mesos/v1/executor"
)

// Agent is what the hub needs of the agent: *agent.Runner is one.
type Agent interface {
	Put(agent.Input)
	Executor(ctx context.Context, framework, executor string) (agent.ExecutorView, error)
}

// Config describes the agent to its executors.
type Config struct {
	Info func() *mesosv1.AgentInfo // with the agent's ID
	Log  *slog.Logger              // nil: slog.Default
}

// Hub is where executors connect.
type Hub struct {
	cfg Config
	log *slog.Logger

	mu      sync.Mutex
	last    uint64 // session
	streams map[name]*stream
}

// NewHub returns a hub without executors.
func NewHub(cfg Config) *Hub {
	h := &Hub{cfg: cfg, log: cfg.Log, streams: map[name]*stream{}}
	if h.log == nil {
		h.log = slog.Default()
	}
	return h
}

// Send implements agent.Executors.
func (h *Hub) Send(e agent.ToExecutor) {
	h.mu.Lock()
	s := h.streams[name{e.Framework, e.Executor}]
	h.mu.Unlock()
	if s != nil && s.session == e.Session {
		s.push(e.Event)
	}
}

// open begins a session; a former one of the executor ends.
func (h *Hub) open(whose name) *stream {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	if old := h.streams[whose]; old != nil {
		old.end("The executor has subscribed again")
	}
	s := &stream{session: h.last, whose: whose, ready: make(chan struct{}, 1)}
	h.streams[whose] = s
	return s
}

func (h *Hub) close(s *stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.streams[s.whose] == s {
		delete(h.streams, s.whose)
	}
}

const (
	typeJSON     = "application/json"
	typeProtobuf = "application/x-protobuf"

	maxCall = 16 << 20 // bytes
)

// refusal is an answer other than success.
type refusal struct {
	status int
	text   string
}

func (r *refusal) write(w http.ResponseWriter) { http.Error(w, r.text, r.status) }

func bad(text string) *refusal { return &refusal{http.StatusBadRequest, text} }

// Serve returns the handler of the API's path.
func (h *Hub) Serve(a Agent) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			http.Error(w, "Expecting one of { 'POST' }, but received '"+r.Method+"'", http.StatusMethodNotAllowed)
			return
		}
		token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok {
			unauthorized(w, `Bearer realm="mesos-agent-executor"`, "The executor must send its "+agent.ExecutorToken)
			return
		}
		call, no := read(w, r)
		if no == nil {
			no = h.carryOut(a, w, r, token, call)
		}
		if no != nil {
			no.write(w)
		}
	})
}

func unauthorized(w http.ResponseWriter, challenge, text string) {
	w.Header().Set("WWW-Authenticate", challenge)
	http.Error(w, text, http.StatusUnauthorized)
}

// read takes a call in; what it says has a meaning afterwards.
func read(w http.ResponseWriter, r *http.Request) (*executorv1.Call, *refusal) {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case r.Header.Get("Content-Type") == "":
		return nil, bad("Expecting 'Content-Type' to be present")
	case kind != typeJSON && kind != typeProtobuf:
		return nil, &refusal{http.StatusUnsupportedMediaType, "Expecting 'Content-Type' of " + typeJSON + " or " + typeProtobuf}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxCall))
	if err != nil {
		return nil, &refusal{http.StatusRequestEntityTooLarge, "Failed to read the body: " + err.Error()}
	}
	call, err := decode(kind, body)
	if err != nil {
		return nil, bad("Failed to parse body into Call protobuf: " + err.Error())
	}
	if problem := problemOf(call); problem != "" {
		return nil, bad("Failed to validate Executor::Call: " + problem)
	}
	return call, nil
}

func decode(kind string, body []byte) (*executorv1.Call, error) {
	call := &executorv1.Call{}
	if kind == typeJSON {
		return call, mesosjson.Unmarshal(body, call)
	}
	return call, proto.Unmarshal(body, call)
}

// carryOut does what a call asks for, after it is clear who calls.
func (h *Hub) carryOut(a Agent, w http.ResponseWriter, r *http.Request, token string, c *executorv1.Call) *refusal {
	whose := name{c.GetFrameworkId().GetValue(), c.GetExecutorId().GetValue()}
	view, err := a.Executor(r.Context(), whose.framework, whose.executor)
	switch {
	case err != nil:
		return &refusal{http.StatusServiceUnavailable, err.Error()}
	case !view.Framework:
		return bad("Framework cannot be found")
	case view.Spec == nil:
		return bad("Executor cannot be found")
	case subtle.ConstantTimeCompare([]byte(token), []byte(view.Token())) != 1:
		return &refusal{http.StatusForbidden, "The token is not that of executor '" + whose.executor + "'"}
	case c.GetType() == executorv1.Call_SUBSCRIBE:
		return h.subscribe(a, w, r, whose, c.GetSubscribe())
	case !view.Connected:
		return &refusal{http.StatusForbidden, "Executor is not subscribed"}
	}
	in, err := input(whose, c)
	if err != nil {
		return bad(err.Error())
	}
	if in != nil {
		a.Put(in)
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// input is what a call tells the core; nil: nothing.
func input(whose name, c *executorv1.Call) (agent.Input, error) {
	switch c.GetType() {
	case executorv1.Call_UPDATE:
		s, err := status(c.GetUpdate())
		return agent.ExecutorUpdate{Framework: whose.framework, Executor: whose.executor, ExecutorStatus: s}, err
	case executorv1.Call_MESSAGE:
		return agent.ExecutorSaid{Framework: whose.framework, Executor: whose.executor, Data: c.GetMessage().GetData()}, nil
	}
	return nil, nil
}

// subscribe serves an executor's events for as long as it listens.
func (h *Hub) subscribe(a Agent, w http.ResponseWriter, r *http.Request, whose name, c *executorv1.Call_Subscribe) *refusal {
	json, ok := wantsJSON(r.Header.Values("Accept"))
	if !ok {
		return &refusal{http.StatusNotAcceptable, "Expecting 'Accept' to allow " + typeProtobuf + " or " + typeJSON}
	}
	s := h.open(whose)
	in := agent.Subscribe{Framework: whose.framework, Executor: whose.executor, Session: s.session}
	for _, t := range c.GetUnacknowledgedTasks() {
		in.Tasks = append(in.Tasks, t.GetTaskId().GetValue())
	}
	for _, u := range c.GetUnacknowledgedUpdates() {
		x, err := status(u)
		if err != nil {
			h.close(s)
			return bad(err.Error())
		}
		in.Updates = append(in.Updates, x)
	}
	w.Header().Set("Content-Type", map[bool]string{true: typeJSON, false: typeProtobuf}[json])
	out := &writer{out: recordio.NewWriter(w), control: http.NewResponseController(w), json: json}
	out.control.Flush()
	a.Put(in)
	why := h.pump(r.Context(), out, s)
	h.close(s)
	a.Put(agent.Unsubscribe{Framework: whose.framework, Executor: whose.executor, Session: s.session})
	h.log.Info("an executor's session has ended", "framework", whose.framework, "executor", whose.executor, "because", why)
	return nil
}

// wantsJSON chooses the form of the events: JSON unless only the other is
// accepted.
func wantsJSON(accept []string) (json, ok bool) {
	binary := false
	for _, value := range accept {
		for part := range strings.SplitSeq(value, ",") {
			switch kind, params, _ := mime.ParseMediaType(strings.TrimSpace(part)); {
			case params["q"] == "0":
			case kind == typeJSON || kind == "*/*" || kind == "application/*":
				json = true
			case kind == typeProtobuf:
				binary = true
			}
		}
	}
	json = json || len(accept) == 0
	return json, json || binary
}
