package cloudapi

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/mesopool/mesopool/endpoint"
	"github.com/mesopool/mesopool/internal/uuid"
)

// Options are what the API tells, and its throttle.
type Options struct {
	URL    string // of this API, told as a data center's
	Docker string // of the Docker API: tcp://host:port

	// Rate and Burst are requests a second of one account; 0: 10 and 30
	// (sdc-cloudapi: sapi_manifests/cloudapi/template).
	Rate  rate.Limit
	Burst int

	// LimitsOff answers an empty list of limits, as operators without the
	// plugin do.
	LimitsOff bool
}

// API is the CloudAPI of a cloud.
type API struct {
	cloud    *endpoint.Cloud
	opt      Options
	mux      *http.ServeMux
	readOnly atomic.Bool

	mu       sync.Mutex
	throttle map[string]*rate.Limiter // by account; accounts are few
}

// version is what this API is like.
const version = "9.19.0"

// New returns the CloudAPI of a cloud.
func New(c *endpoint.Cloud, o Options) *API {
	o.Rate, o.Burst = cmp.Or(o.Rate, 10), cmp.Or(o.Burst, 30)
	a := &API{cloud: c, opt: o, mux: http.NewServeMux(), throttle: map[string]*rate.Limiter{}}
	a.routes()
	return a
}

// SetReadOnly makes everything that would change something a 503.
func (a *API) SetReadOnly(on bool) { a.readOnly.Store(on) }

// refusal is an error with CloudAPI's code.
type refusal struct {
	status        int
	Code, Message string
}

func (r *refusal) Error() string { return r.Message }

func refuse(status int, code, message string) *refusal { return &refusal{status, code, message} }

func absent(what string) *refusal {
	return refuse(http.StatusNotFound, "ResourceNotFound", what+" does not exist")
}

func invalid(message string) *refusal {
	return refuse(http.StatusConflict, "InvalidArgument", message)
}

// call is one request of an account.
type call struct {
	*http.Request
	w    http.ResponseWriter
	api  *API
	acct *endpoint.Account
}

// maxBody bounds bodies.
const maxBody = 1 << 20

// ServeHTTP answers one request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Server", "cloudapi/"+version)
	h.Set("Api-Version", version)
	h.Set("Request-Id", uuid.New().String())
	h.Set("Triton-Datacenter-Name", a.cloud.Datacenter())
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	a.mux.ServeHTTP(w, r)
}

// handle adds a route of signed requests. Its pattern has {account} first.
func (a *API) handle(pattern string, do func(*call) error) {
	a.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		c := &call{Request: r, w: w, api: a}
		err := c.admit()
		if err == nil {
			err = do(c)
		}
		if err != nil {
			c.refuse(err)
		}
	})
}

// admit checks who asks, whose things are asked for, and how often.
func (c *call) admit() error {
	acct, err := c.api.authenticate(c.Request)
	if err != nil {
		return err
	}
	if name := c.PathValue("account"); name != acct.Login && name != "my" {
		return refuse(http.StatusForbidden, "NotAuthorized", "You do not have permission to access /"+name)
	}
	c.acct = acct
	if !c.api.limiter(acct).Allow() {
		return refuse(420, "RequestThrottled", "You have exceeded your request rate; slow down")
	}
	if c.api.readOnly.Load() && c.Method != http.MethodGet && c.Method != http.MethodHead {
		return refuse(http.StatusServiceUnavailable, "ServiceUnavailable", "The data center is being maintained")
	}
	return nil
}

func (a *API) limiter(acct *endpoint.Account) *rate.Limiter {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.throttle[acct.Key()]
	if l == nil {
		l = rate.NewLimiter(a.opt.Rate, a.opt.Burst)
		a.throttle[acct.Key()] = l
	}
	return l
}

// authenticate checks the signature. Unknown accounts, unknown keys and wrong
// signatures have one answer.
func (a *API) authenticate(r *http.Request) (*endpoint.Account, error) {
	bad := func(why string) error { return refuse(http.StatusUnauthorized, "InvalidCredentials", why) }
	s, err := parseSignature(r.Header.Get("Authorization"))
	if err != nil {
		return nil, bad(err.Error())
	}
	if err := s.fresh(r, time.Now()); err != nil {
		return nil, bad(err.Error())
	}
	const wrong = "The credentials provided are invalid"
	acct, err := a.cloud.Accounts().Get(s.account)
	if err != nil {
		return nil, bad(wrong)
	}
	key, there := acct.FindKey(s.key)
	if !there || s.verify(r, key) != nil {
		return nil, bad(wrong)
	}
	if acct.Disabled {
		return nil, refuse(http.StatusForbidden, "NotAuthorized", "The account is disabled")
	}
	return acct, nil
}

// refuse answers an error as JSON.
func (c *call) refuse(err error) {
	var own *refusal
	var e *endpoint.Error
	switch {
	case errors.As(err, &own):
	case errors.As(err, &e):
		own = refuse(e.Status, cmp.Or(e.Code, "InternalError"), e.Message)
	default:
		own = refuse(http.StatusInternalServerError, "InternalError", err.Error())
	}
	c.give(own.status, map[string]string{"code": own.Code, "message": own.Message})
}

// give answers with JSON; a HEAD request gets the header only.
func (c *call) give(status int, v any) error {
	c.w.Header().Set("Content-Type", "application/json")
	c.w.WriteHeader(status)
	if c.Method == http.MethodHead {
		return nil
	}
	json.NewEncoder(c.w).Encode(v) // a client that is gone is no error
	return nil
}

// read decodes a body, and takes what forms and queries have.
func (c *call) read() (map[string]string, error) {
	in := map[string]string{}
	for k, v := range c.URL.Query() {
		in[k] = v[0]
	}
	text, err := io.ReadAll(c.Body)
	if err != nil {
		return nil, refuse(http.StatusRequestEntityTooLarge, "RequestTooLarge", "the body is too large")
	}
	if len(text) == 0 {
		return in, nil
	}
	var body map[string]any
	if json.Unmarshal(text, &body) != nil {
		return nil, refuse(http.StatusBadRequest, "InvalidContent", "the body must be a JSON object")
	}
	for k, v := range body {
		if s, ok := v.(string); ok {
			in[k] = s
		}
	}
	return in, nil
}

// page cuts a list as limit and offset say, and tells its length.
func page[T any](c *call, all []T) ([]T, error) {
	limit, offset := 1000, 0
	q := c.URL.Query()
	for name, n := range map[string]*int{"limit": &limit, "offset": &offset} {
		if v := q.Get(name); v != "" {
			i, err := strconv.Atoi(v)
			if err != nil || i < 0 || name == "limit" && (i == 0 || i > 1000) {
				return nil, invalid(name + " is " + strconv.Quote(v) + "; a limit is 1 to 1000, an offset 0 or more")
			}
			*n = i
		}
	}
	c.w.Header().Set("x-query-limit", strconv.Itoa(limit))
	c.w.Header().Set("x-resource-count", strconv.Itoa(len(all)))
	all = all[min(offset, len(all)):]
	return all[:min(limit, len(all))], nil
}

func (a *API) routes() {
	a.mux.HandleFunc("GET /--ping", func(w http.ResponseWriter, r *http.Request) {
		c := &call{Request: r, w: w}
		c.give(http.StatusOK, map[string]any{"ping": "pong", "pid": 1, "cloudapi": map[string]any{"versions": []string{version}}})
	})
	a.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		c := &call{Request: r, w: w, api: a}
		c.refuse(c.unknown())
	})
	a.accountRoutes()
	a.machineRoutes()
}

// unknown answers for paths that no route has: only to who signed.
func (c *call) unknown() error {
	if _, err := c.api.authenticate(c.Request); err != nil {
		return err
	}
	return absent(strings.TrimSuffix(c.URL.Path, "/"))
}
