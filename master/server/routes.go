package server

import (
	"cmp"
	"maps"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/master/authz"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
)

// routes finds a request's handler. Paths come bare or below /master, with or
// without a slash at the end or the .json of old clients; what Mesos serves to
// GET is served to POST too, for there are clients that ask so.
func (s *Server) routes() http.Handler {
	handlers := s.handlers()
	guards := map[realm]http.Handler{}
	for _, in := range []realm{realmNone, realmReadOnly, realmReadWrite, realmFramework} {
		guards[in] = s.guard(in, s.route(handlers))
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		guards[realmOf(plainPath(r.URL.Path))].ServeHTTP(w, r)
	})
}

func (s *Server) route(handlers map[string]http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := plainPath(r.URL.Path)
		if !s.leads() && !aboutItself[path] {
			s.whileFollowing(w, r)
			return
		}
		h := handlers[path]
		if dir, _, ok := strings.Cut(strings.TrimPrefix(path, "/"), "/"); h == nil && ok && (dir == "slaves" || dir == "quota") {
			h = handlers["/"+dir]
		}
		switch {
		case strings.Contains(r.URL.Path, "/.."):
			notFound(w)
		case h != nil:
			h(w, r)
		case s.cfg.Pages != nil:
			s.cfg.Pages.ServeHTTP(w, r)
		default:
			notFound(w)
		}
	})
}

func (s *Server) handlers() map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"/api/v1/scheduler":     s.scheduler,
		"/api/v1":               s.operator,
		"/health":               withCORS(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }),
		"/redirect":             s.redirect,
		"/teardown":             s.teardown,
		"/machine/down":         s.machine(startCommand),
		"/machine/up":           s.machine(stopCommand),
		"/maintenance/schedule": s.schedule,
		"/maintenance/status":   s.read(func(j *jsonWriter, q *query) { j.element(q.sees.maintenance(q.snap)) }),
		"/quota":                s.quota,
		"/weights":              s.weights,
		"/reserve":              s.olderOperation(mesosv1.Offer_Operation_RESERVE, "resources"),
		"/unreserve":            s.olderOperation(mesosv1.Offer_Operation_UNRESERVE, "resources"),
		"/create-volumes":       s.olderOperation(mesosv1.Offer_Operation_CREATE, "volumes"),
		"/destroy-volumes":      s.olderOperation(mesosv1.Offer_Operation_DESTROY, "volumes"),
		"/metrics":              s.ifAllowed(s.prometheus().ServeHTTP, authz.GetEndpoint, "/metrics/snapshot"),
		"/metrics/snapshot":     s.ifAllowed(s.read(s.writeMetrics), authz.GetEndpoint, "/metrics/snapshot"),
		"/version":              s.read(s.writeVersion),
		"/flags":                s.ifAllowed(s.read(s.writeFlagsOnly), authz.ViewFlags),
		"/state":                s.read(s.writeState),
		"/state-summary":        s.read(s.writeStateSummary),
		"/slaves":               s.read(s.writeSlaves),
		"/frameworks":           s.read(s.writeFrameworksOnly),
		"/tasks":                s.read(s.writeTaskList),
		"/roles":                s.read(s.writeRoles),
	}
}

// ifAllowed serves those who may see it.
func (s *Server) ifAllowed(h http.HandlerFunc, action authz.Action, objects ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := s.allowed(r.Context(), action, objects...); err != nil && r.Method != http.MethodOptions {
			answerError(w, err)
			return
		}
		h(w, r)
	}
}

func plainPath(path string) string {
	path = strings.TrimRight(path, "/")
	if rest, ok := strings.CutPrefix(path, "/master"); ok && (rest == "" || rest[0] == '/') {
		path = rest
	}
	return strings.TrimSuffix(path, ".json")
}

func notFound(w http.ResponseWriter) { answerError(w, failf(http.StatusNotFound, "404 Not Found.")) }

// withCORS lets pages of other origins read, and answers their preflight. What
// changes something is not open to them.
func withCORS(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		if r.Method != http.MethodOptions {
			h(w, r)
			return
		}
		w.Header().Set("Access-Control-Allow-Methods", "GET, POST, HEAD, OPTIONS")
		w.Header().Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Accept")
		w.WriteHeader(http.StatusOK)
	}
}

// query is what a reader asks for, with the snapshot to answer from.
type query struct {
	snap      *master.Snapshot // what the reader may see
	whole     *master.Snapshot // all, for sums
	sees      *viewer
	values    url.Values
	framework string
	agent     string
}

// read serves a JSON document, or with ?jsonp= a script that hands it over.
func (s *Server) read(write func(*jsonWriter, *query)) http.HandlerFunc {
	return withCORS(func(w http.ResponseWriter, r *http.Request) {
		q, err := s.query(r)
		if err != nil {
			answerError(w, err)
			return
		}
		if tag := s.tag(q.snap); tag != "" && plainPath(r.URL.Path) != "/metrics/snapshot" {
			w.Header().Set("Etag", tag)
			if r.Header.Get("If-None-Match") == tag {
				w.WriteHeader(http.StatusNotModified)
				return
			}
		}
		j := newJSONWriter(w, r)
		callback := q.values.Get("jsonp")
		w.Header().Set("Content-Type", typeJSON)
		if callback != "" {
			w.Header().Set("Content-Type", "text/javascript")
			j.buf = append(append(j.buf, callback...), '(')
		}
		write(j, q)
		if callback != "" {
			j.buf = append(j.buf, ");"...)
		}
		j.close()
	})
}

func (s *Server) query(r *http.Request) (*query, error) {
	if err := r.ParseForm(); err != nil {
		return nil, failf(http.StatusBadRequest, "Failed to parse the query: %v", err)
	}
	q := &query{values: r.Form, framework: r.Form.Get("framework_id"), agent: r.Form.Get("slave_id")}
	if strings.ContainsFunc(q.values.Get("jsonp"), notInName) {
		return nil, failf(http.StatusBadRequest, "The jsonp callback %q is not a name", q.values.Get("jsonp"))
	}
	if rest, ok := strings.CutPrefix(plainPath(r.URL.Path), "/slaves/"); ok {
		q.agent = rest
	}
	var err error
	if q.whole, err = s.Snapshot(r.Context()); err != nil {
		return nil, failf(http.StatusServiceUnavailable, "%v", err)
	}
	q.sees = s.viewer(r.Context())
	q.snap = q.sees.snapshot(q.whole)
	return q, nil
}

// notInName keeps scripts out of the name of a callback.
func notInName(c rune) bool {
	return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("_$.[]", c)
}

// defaultTasks is how many tasks /tasks lists unless told otherwise.
const defaultTasks = 100

func (q *query) number(name string, unset int) int {
	n, err := strconv.Atoi(q.values.Get(name))
	switch {
	case err != nil:
		return unset
	case n < 0: // as the size_t that Mesos makes of it: all
		return math.MaxInt
	}
	return n
}

// tasks selects what /tasks lists: by framework and ID, from offset, the
// newest first unless order=asc.
func (q *query) tasks() []*master.Task {
	var out []*master.Task
	id := q.values.Get("task_id")
	for _, list := range [][]master.FrameworkView{q.snap.Frameworks, q.snap.Completed} {
		for i := range list {
			f := &list[i]
			if q.framework == "" || q.framework == f.ID {
				out = appendTasks(out, id, f.Tasks, f.Unreachable, f.Done)
			}
		}
	}
	sortTasks(out, q.values.Get("order") == "asc")
	from := min(q.number("offset", 0), len(out))
	return out[from : from+min(q.number("limit", defaultTasks), len(out)-from)]
}

func appendTasks(out []*master.Task, id string, lists ...[]*master.Task) []*master.Task {
	for _, list := range lists {
		if id == "" {
			out = append(out, list...)
			continue
		}
		for _, t := range list {
			if t.Key.ID == id {
				out = append(out, t)
			}
		}
	}
	return out
}

// sortTasks orders by the first status; tasks without one are the oldest.
func sortTasks(list []*master.Task, ascending bool) {
	slices.SortStableFunc(list, func(a, b *master.Task) int {
		order := cmp.Compare(len(a.Statuses), 0) - cmp.Compare(len(b.Statuses), 0)
		if order == 0 && len(a.Statuses) > 0 {
			order = a.Statuses[0].Time.Compare(b.Statuses[0].Time)
		}
		if ascending {
			return order
		}
		return -order
	})
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// redirect sends to the leader, which is this master; what is below it is not
// there (master/http.cpp, redirect).
func (s *Server) redirect(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Location", "//"+s.self.GetHostname()+":"+strconv.Itoa(int(s.self.GetPort())))
	w.WriteHeader(http.StatusTemporaryRedirect)
}

// teardown is the older form of the operator API's TEARDOWN.
func (s *Server) teardown(w http.ResponseWriter, r *http.Request) {
	id := r.FormValue("frameworkId")
	switch {
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		answerError(w, failf(http.StatusMethodNotAllowed, "Expecting one of { 'POST' }, but received '%s'", r.Method))
	case id == "":
		answerError(w, failf(http.StatusBadRequest, "Missing 'frameworkId' query parameter"))
	default:
		if err := s.end(r, id); err != nil {
			answerError(w, err)
			return
		}
		w.WriteHeader(http.StatusOK)
	}
}

// end ends a framework for good.
func (s *Server) end(r *http.Request, framework string) error {
	if err := s.mayEnd(r.Context(), framework); err != nil {
		return err
	}
	if err := s.do(r.Context(), master.Teardown{Framework: framework}); err != nil {
		return failf(http.StatusBadRequest, "No framework found with specified ID %q", framework)
	}
	return nil
}
