// Package standby is the HTTP side of several processes of which one leads: who
// leads answers, and all others send what comes to the leader, streams included.
//
//	h := standby.New(standby.Config{Self: "10.0.0.2:8080", Leader: election.Leader, Via: "X-Marathon-Via", Own: own, Fail: fail})
//	go http.Serve(listener, h)
//	h.Lead(ctx, api) // requests are ours until ctx ends
//
// It knows nothing of how a leader is found, nor of what is asked.
package standby

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"sync/atomic"
	"time"
)

// Config is who does not lead, and what it says then.
type Config struct {
	Self   string        // host:port that the others reach this process at
	Leader func() string // host:port of who leads, "" while nobody is known to

	// Via is the header in which each standby on the way signs, so that nothing
	// goes round in circles.
	Via string

	// Own answers what every process answers for itself, and says whether it did.
	Own func(http.ResponseWriter, *http.Request) bool

	// Fail answers what could not be sent to the leader.
	Fail func(w http.ResponseWriter, code int, message string)

	// Patience is how long a request waits while nobody leads. 0: 2.5 s, as
	// Marathon's.
	Patience time.Duration

	Log *slog.Logger
}

// What is said, as LeaderProxyFilter.scala does.
const (
	nobody  = "Could not determine the current leader"
	circle  = "Detected proxying loop."
	refused = "Connection to leader refused."
	late    = "Connection to leader timed out."
	broken  = "Failed to successfully establish a connection to the leader."
)

const (
	glance = 50 * time.Millisecond
	// answerTime is how long the leader may take to begin its answer.
	answerTime = time.Minute
)

// Handler answers, or lets the leader answer.
type Handler struct {
	cfg   Config
	proxy *httputil.ReverseProxy
	term  atomic.Pointer[term]
}

// term is the time in which requests are our own.
type term struct {
	ctx     context.Context
	handler http.Handler
}

// New returns a handler that follows.
func New(cfg Config) *Handler {
	if cfg.Patience == 0 {
		cfg.Patience = 2500 * time.Millisecond
	}
	h := &Handler{cfg: cfg}
	h.proxy = &httputil.ReverseProxy{
		Rewrite: h.rewrite, ModifyResponse: h.sign, ErrorHandler: h.failed, FlushInterval: -1, // nothing is held back
		ErrorLog: slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug), // listeners come and go
		Transport: &http.Transport{
			DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext, DisableCompression: true,
			ResponseHeaderTimeout: answerTime, MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute,
		},
	}
	return h
}

// Lead lets handler answer until ctx ends; then the requests that it still
// answers are ended too.
func (h *Handler) Lead(ctx context.Context, handler http.Handler) {
	t := &term{ctx, handler}
	h.term.Store(t)
	context.AfterFunc(ctx, func() { h.term.CompareAndSwap(t, nil) })
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if t := h.term.Load(); t != nil {
		t.serve(w, r)
		return
	}
	if h.cfg.Own(w, r) {
		return
	}
	if slices.Contains(r.Header.Values(h.cfg.Via), h.signature()) {
		h.cfg.Fail(w, http.StatusBadGateway, circle)
		return
	}
	t, leader := h.await(r.Context())
	switch {
	case t != nil:
		t.serve(w, r)
	case leader != "":
		h.proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), leaderKey{}, leader)))
	default:
		h.cfg.Fail(w, http.StatusServiceUnavailable, nobody)
	}
}

// serve ends with the term, as far as the handler looks at its context.
func (t *term) serve(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(t.ctx, cancel)()
	t.handler.ServeHTTP(w, r.WithContext(ctx))
}

// await waits a while for somebody to lead: another, or this process.
func (h *Handler) await(ctx context.Context) (*term, string) {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.Patience)
	defer cancel()
	tick := time.NewTicker(glance)
	defer tick.Stop()
	for {
		if t := h.term.Load(); t != nil {
			return t, ""
		}
		if leader := h.cfg.Leader(); leader != "" && leader != h.cfg.Self {
			return nil, leader
		}
		select {
		case <-ctx.Done():
			return nil, ""
		case <-tick.C:
		}
	}
}

type leaderKey struct{}

func (h *Handler) signature() string { return "1.1 " + h.cfg.Self }

// rewrite makes the request that goes to the leader.
func (h *Handler) rewrite(p *httputil.ProxyRequest) {
	leader, _ := p.In.Context().Value(leaderKey{}).(string)
	p.SetURL(&url.URL{Scheme: "http", Host: leader})
	p.Out.URL.RawQuery = p.In.URL.RawQuery // as it came: what it means is the leader's business
	p.Out.Header["X-Forwarded-For"] = p.In.Header["X-Forwarded-For"]
	p.SetXForwarded()
	p.Out.Header.Add(h.cfg.Via, h.signature())
}

func (h *Handler) sign(r *http.Response) error {
	r.Header.Add(h.cfg.Via, h.signature())
	return nil
}

// failed answers for a leader that does not.
func (h *Handler) failed(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return // nobody listens
	}
	h.cfg.Log.Warn("the leader does not answer", "leader", r.Context().Value(leaderKey{}), "error", err)
	var timeout net.Error
	var dial *net.OpError
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		h.cfg.Fail(w, http.StatusGatewayTimeout, late)
	case errors.As(err, &dial) && dial.Op == "dial":
		h.cfg.Fail(w, http.StatusBadGateway, refused)
	default:
		h.cfg.Fail(w, http.StatusBadGateway, broken)
	}
}
