package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/mesopool/mesopool/marathon"
	"github.com/mesopool/mesopool/marathon/runner"
)

// Config is what the API shows of itself.
type Config struct {
	Runner    *runner.Runner
	Version   string
	Role      string // of apps that name none
	Address   string // host:port that clients reach us at
	MesosURL  string // the master's pages, for /v2/info
	Hostname  string
	Pages     http.Handler // everything that is no API; nil answers 404
	HTTPPort  int
	Framework string // the framework's name

	// Abdicate lets another process lead, soon; nil: there is no other.
	Abdicate func()
}

// API serves Marathon's REST API.
type API struct {
	cfg    Config
	pieces *pieces
}

// New returns the handler.
func New(cfg Config) *API { return &API{cfg: cfg, pieces: newPieces()} }

// mostBody bounds a definition.
const mostBody = 16 << 20

// ServeHTTP routes on the raw path: IDs hold slashes, escaped or doubled.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	commonHeader(w.Header(), a.cfg.Address)
	r.Body = http.MaxBytesReader(w, r.Body, mostBody)
	parts, err := split(r.URL.EscapedPath())
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	if err := a.route(w, r, parts); err != nil {
		writeError(w, err)
	}
}

// commonHeader is in every answer (LeaderProxyFilter.scala,
// CacheDisablingFilter.scala); leader may be "".
func commonHeader(h http.Header, leader string) {
	if leader != "" {
		h.Set("X-Marathon-Leader", "http://"+leader)
	}
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Pragma", "no-cache")
	h.Set("Expires", "0")
}

// split cuts a path into its unescaped parts; empty ones do not count.
func split(path string) ([]string, error) {
	var parts []string
	for p := range strings.SplitSeq(path, "/") {
		text, err := url.PathUnescape(p)
		if err != nil {
			return nil, fmt.Errorf("the path %q is not well escaped", path)
		}
		for piece := range strings.SplitSeq(text, "/") { // %2F
			if piece != "" {
				parts = append(parts, piece)
			}
		}
	}
	return parts, nil
}

func (a *API) route(w http.ResponseWriter, r *http.Request, parts []string) error {
	switch {
	case len(parts) == 1 && parts[0] == "ping":
		return pong(w)
	case len(parts) == 1 && parts[0] == "metrics":
		return a.metrics(w, r)
	case len(parts) < 2 || parts[0] != "v2":
		return a.page(w, r)
	}
	rest := parts[2:]
	switch parts[1] {
	case "apps":
		return a.apps(w, r, rest)
	case "tasks":
		return a.tasks(w, r, rest)
	case "deployments":
		return a.deployments(w, r, rest)
	case "queue":
		return a.queue(w, r, rest)
	case "pods":
		return a.pods(w, r, rest)
	case "groups":
		return a.groups(w, r, rest)
	case "events":
		return a.events(w, r)
	}
	return a.service(w, r, parts[1], rest)
}

func pong(w http.ResponseWriter) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, err := io.WriteString(w, "pong\n")
	return err
}

func (a *API) page(w http.ResponseWriter, r *http.Request) error {
	if a.cfg.Pages == nil {
		return &status{http.StatusNotFound, "URI not found"}
	}
	a.cfg.Pages.ServeHTTP(w, r)
	return nil
}

// status is an error with its HTTP code.
type status struct {
	code    int
	message string
}

func (s *status) Error() string { return s.message }

// missing is what does not exist, in Marathon's words.
type missing string

func (m missing) Error() string        { return string(m) }
func (m missing) Is(target error) bool { return target == marathon.ErrNotFound }

func notAllowed(r *http.Request) error {
	return &status{http.StatusMethodNotAllowed, "HTTP method " + r.Method + " is not allowed here"}
}

func fail(w http.ResponseWriter, code int, message string) {
	answer(w, code, map[string]any{"message": message})
}

// writeError maps errors as MarathonExceptionMapper.scala does.
func writeError(w http.ResponseWriter, err error) {
	var bad *marathon.BadDefinition
	var locked *marathon.Locked
	var st *status
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &bad):
		writeBad(w, bad)
	case errors.As(err, &locked):
		ids := make([]idRef, len(locked.Deployments))
		for i, id := range locked.Deployments {
			ids[i] = idRef{id}
		}
		answer(w, http.StatusConflict, map[string]any{"message": locked.Error(), "deployments": ids})
	case errors.As(err, &st):
		fail(w, st.code, st.message)
	case errors.As(err, &large):
		fail(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is larger than %d bytes", large.Limit))
	case errors.Is(err, marathon.ErrStale):
		fail(w, http.StatusPreconditionFailed, err.Error())
	case errors.Is(err, marathon.ErrNotFound):
		fail(w, http.StatusNotFound, err.Error())
	case errors.Is(err, runner.ErrStopped) || errors.Is(err, context.DeadlineExceeded):
		fail(w, http.StatusServiceUnavailable, err.Error())
	default:
		fail(w, http.StatusInternalServerError, err.Error())
	}
}

func writeBad(w http.ResponseWriter, bad *marathon.BadDefinition) {
	code, message := http.StatusUnprocessableEntity, "Object is not valid"
	if bad.Syntax {
		code, message = http.StatusBadRequest, "Invalid JSON"
	}
	var details any = bad.Problems
	if len(bad.Problems) == 0 {
		details = bad.Text
	}
	answer(w, code, map[string]any{"message": message, "details": details})
}

func answer(w http.ResponseWriter, code int, body any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, err = w.Write(text)
	return err
}

type idRef struct {
	ID string `json:"id"`
}

// deployed answers a change.
func deployed(w http.ResponseWriter, code int, id string, version string) error {
	w.Header().Set("Marathon-Deployment-Id", id)
	return answer(w, code, map[string]string{"version": version, "deploymentId": id})
}

func flag(r *http.Request, name string, otherwise bool) (bool, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		if r.URL.Query().Has(name) {
			return true, nil
		}
		return otherwise, nil
	}
	v, err := strconv.ParseBool(text)
	if err != nil {
		return false, &status{http.StatusBadRequest, fmt.Sprintf("the parameter %s is %q; it must be true or false", name, text)}
	}
	return v, nil
}

func body(r *http.Request) ([]byte, error) {
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	return text, nil
}

// author is who makes a request, as far as it says so.
func author(r *http.Request) marathon.Author {
	user, _, _ := r.BasicAuth()
	return marathon.Author{ClientIP: clientIP(r), User: user, Method: r.Method, URI: r.URL.Path}
}

// clientIP is where a request comes from. What a standby says of whose request it
// sends on is told with the standby, as anybody may say it.
func clientIP(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	if whose := r.Header.Get("X-Forwarded-For"); whose != "" && r.Header.Get(headerVia) != "" {
		return fmt.Sprintf("%.200s via %s", whose, host)
	}
	return host
}

// see reads from the core.
func see[T any](r *http.Request, a *API, look func(*marathon.Core) T) (T, error) {
	var out, none T
	if err := a.cfg.Runner.View(r.Context(), func(c *marathon.Core) { out = look(c) }); err != nil {
		return none, err // look may still be running
	}
	return out, nil
}

// versionOf finds the version that a deployment has given.
func (a *API) versionOf(r *http.Request, id string) (string, error) {
	return see(r, a, func(c *marathon.Core) string { return c.VersionOf(id) })
}
