package endpoint

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mesopool/mesopool/internal/uuid"
)

// Options are the ways of the Docker API. The zero value is Triton's.
type Options struct {
	// IdleCut is how long a request may say nothing before its connection is
	// closed, while the work goes on; 0: two minutes (sdc-docker issue 113),
	// negative: never.
	IdleCut time.Duration

	// HonourKillSignal sends the signal that kill names. Triton's never arrives.
	HonourKillSignal bool

	// AttachWait is how long attach waits for a container to run; 0: a minute.
	AttachWait time.Duration

	// Hosts are the names and addresses of the server's certificate.
	Hosts []string
}

// Mode is a state of the whole server.
type Mode struct {
	ReadOnly   bool      // whatever would change something is a 503
	RetryAfter time.Time // told with it, unless zero
	Degraded   bool      // everything is a 503

	// LoseAnswer is the share of changing requests, 0 to 1, that are carried
	// out and whose connection is then closed without an answer.
	LoseAnswer float64
}

// Server is the Docker remote API of a cloud.
type Server struct {
	cloud *Cloud
	opt   Options
	mode  atomic.Pointer[Mode]

	mu    sync.Mutex
	execs map[string]*execution
	kept  map[string][]string // their IDs by account, the oldest first
}

// The versions of the API (sdc-docker: lib/constants.js).
const (
	apiVersion    = "1.21"
	apiMinVersion = "1.20"
	engineVersion = "1.9.0"
	serverName    = "Triton/" + engineVersion + " (linux)"
)

// New returns the Docker API of a cloud.
func New(c *Cloud, o Options) (*Server, error) {
	o.IdleCut = cmp.Or(o.IdleCut, 2*time.Minute)
	o.AttachWait = cmp.Or(o.AttachWait, time.Minute)
	s := &Server{cloud: c, opt: o, execs: map[string]*execution{}, kept: map[string][]string{}}
	s.SetMode(Mode{})
	return s, nil
}

// SetMode changes the mode from now on.
func (s *Server) SetMode(m Mode) { s.mode.Store(&m) }

// Serve serves TLS on a listener until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	return ServeTLS(ctx, l, s.cloud.authority, s.opt.Hosts, s, s.cloud.cfg.Log)
}

// ServeTLS serves a handler with a certificate of the authority until ctx ends.
func ServeTLS(ctx context.Context, l net.Listener, a *Authority, hosts []string, h http.Handler, log *slog.Logger) error {
	cfg, err := a.TLS(hosts...)
	if err != nil {
		return err
	}
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := srv.Serve(tls.NewListener(l, cfg)); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		return srv.Close()
	})
	return g.Wait()
}

// call is one request on its way.
type call struct {
	s    *Server
	w    http.ResponseWriter
	r    *http.Request
	id   string // of the request
	acct *Account
	args []string // what the route's pattern captured
}

// timed sets x-response-time when the answer begins.
type timed struct {
	http.ResponseWriter
	began time.Time
	told  bool
}

func (t *timed) WriteHeader(status int) {
	if !t.told {
		t.told = true
		t.Header().Set("x-response-time", strconv.FormatInt(time.Since(t.began).Milliseconds(), 10))
	}
	t.ResponseWriter.WriteHeader(status)
}

func (t *timed) Write(p []byte) (int, error) {
	if !t.told {
		t.WriteHeader(http.StatusOK)
	}
	return t.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (t *timed) Unwrap() http.ResponseWriter { return t.ResponseWriter }

var versionForm = regexp.MustCompile(`^/v([0-9][0-9.]*)(/.*)$`)

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{s: s, w: &timed{ResponseWriter: w, began: time.Now()}, r: r, id: uuid.New().String()}
	w.Header().Set("Server", serverName)
	path, version := r.URL.Path, apiVersion
	if m := versionForm.FindStringSubmatch(path); m != nil {
		version, path = m[1], m[2]
	}
	if strings.HasPrefix(path, "/containers//") { // the docker command cleans names so
		path = "/containers/" + strings.TrimPrefix(path, "/containers//")
	}
	found, args, allow := route(r.Method, path)
	if found == nil {
		c.unrouted(allow)
		return
	}
	w.Header().Set("x-request-id", c.id)
	c.args = args
	err := c.serve(found, version)
	if err == nil {
		return
	}
	if errors.Is(err, ErrCut) || r.Context().Err() != nil {
		panic(http.ErrAbortHandler) // the connection closes without an answer
	}
	c.refuse(err)
}

// unrouted answers what no route takes; these answers have no x-request-id.
func (c *call) unrouted(allow string) {
	if allow == "" {
		c.refuse(notFound("%s does not exist", c.r.URL.Path))
		return
	}
	c.w.Header().Set("Allow", allow)
	c.refuse(plain(http.StatusMethodNotAllowed, "%s is not allowed", c.r.Method))
}

// serve checks what all routes have in common. Versions are compared as texts
// (sdc-docker: lib/common.js reqClientApiVersion).
func (c *call) serve(to *routed, version string) error {
	if version < apiMinVersion {
		return &Error{http.StatusBadRequest, "InvalidVersion", "client API version (" + version +
			") is less than the minimum required API version (" + apiMinVersion + ")"}
	}
	mode := c.s.mode.Load()
	if err := c.available(mode); err != nil {
		return err
	}
	if !to.open {
		acct, err := c.identify()
		if err != nil {
			return err
		}
		c.acct = acct
	}
	c.r.Body = http.MaxBytesReader(c.w, c.r.Body, to.limit())
	if c.changes() && mode.LoseAnswer > 0 && rand.Float64() < mode.LoseAnswer {
		real := c.w
		c.w = &lost{header: http.Header{}}
		err := to.do(c)
		c.w = real
		c.s.cloud.cfg.Log.Debug("injected fault: the answer is lost", "error", err)
		return ErrCut
	}
	return to.do(c)
}

// lost is where lost answers go.
type lost struct{ header http.Header }

func (l *lost) Header() http.Header         { return l.header }
func (l *lost) Write(p []byte) (int, error) { return len(p), nil }
func (l *lost) WriteHeader(int)             {}

func (c *call) changes() bool { return c.r.Method != http.MethodGet && c.r.Method != http.MethodHead }

// available is sdc-docker's lib/common.js checkReadonlyMode and checkServices.
func (c *call) available(m *Mode) error {
	const code, text = "ServiceUnavailableError", "service is currently unavailable"
	switch {
	case m.Degraded:
		return &Error{http.StatusServiceUnavailable, code, text}
	case m.ReadOnly && c.changes():
		if !m.RetryAfter.IsZero() {
			c.w.Header().Set("Retry-After", m.RetryAfter.UTC().Format(http.TimeFormat))
		}
		return &Error{http.StatusServiceUnavailable, code, text}
	}
	return nil
}

func (c *call) identify() (*Account, error) {
	var cert *x509.Certificate
	if t := c.r.TLS; t != nil && len(t.PeerCertificates) > 0 {
		cert = t.PeerCertificates[0]
	}
	return c.s.cloud.Identify(cert)
}

// refuse answers an error as text.
func (c *call) refuse(err error) {
	var e *Error
	if !errors.As(err, &e) {
		e = internal("%v", err)
		c.s.cloud.cfg.Log.Warn("a request failed", "path", c.r.URL.Path, "request", c.id, "error", err)
	}
	c.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	c.w.WriteHeader(e.Status)
	if c.r.Method != http.MethodHead {
		io.WriteString(c.w, e.Error()+" ("+c.id+")")
	}
}

// body reads the whole body.
func (c *call) body() ([]byte, error) {
	text, err := io.ReadAll(c.r.Body)
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return nil, &Error{http.StatusRequestEntityTooLarge, "RequestEntityTooLarge", "the body is larger than " + strconv.FormatInt(large.Limit, 10) + " bytes"}
	}
	return text, err
}

// give answers with JSON.
func (c *call) give(v any) error {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	c.w.Header().Set("Content-Type", "application/json")
	c.w.Header().Set("Content-Length", strconv.Itoa(out.Len()))
	_, err := c.w.Write(out.Bytes())
	return ignore(err)
}

// ignore drops the error of an answer that the client did not take.
func ignore(error) error { return nil }

func (c *call) done() error {
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

// soon bounds a request's time by the idle cut.
func (c *call) soon(do func(ctx context.Context) error) error {
	if c.s.opt.IdleCut < 0 {
		return do(c.r.Context())
	}
	ctx, cancel := context.WithTimeoutCause(c.r.Context(), c.s.opt.IdleCut, ErrCut)
	defer cancel()
	err := do(ctx)
	if err != nil && errors.Is(context.Cause(ctx), ErrCut) && errors.Is(err, context.DeadlineExceeded) {
		return ErrCut
	}
	return err
}
