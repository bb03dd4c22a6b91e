package lead

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"
)

// Config says by which key of which Consul somebody leads.
type Config struct {
	Address string       // of a Consul agent: host, host:port or a URL; "": CONSUL_HTTP_ADDR or 127.0.0.1:8500
	Token   string       // "": CONSUL_HTTP_TOKEN or none
	HTTP    *http.Client // nil: Consul's own

	// Key is the folder of all: Key/leader is the lock, Key/state/ has what the
	// leader keeps, Key/journal and Key/parts/ what is too large for it.
	Key  string
	Self string // what others read while this process leads: host:port
	Name string // of the sessions, for people; "": mesopool

	// TTL is how long a session lives without renewal, and how long nobody gets the
	// lock after a session that has ended by itself. 0: 10 s, the least that Consul
	// takes unless its session_ttl_min says otherwise; at most a minute. Consul may
	// take twice the time to see that a session is over.
	TTL time.Duration

	Log *slog.Logger // nil: slog.Default
}

// Election is a process that leads or follows. Its methods may be called
// concurrently.
type Election struct {
	cfg    Config
	client *api.Client
	log    *slog.Logger
	leader atomic.Pointer[string]
}

// New checks the configuration; Run talks to Consul.
func New(cfg Config) (*Election, error) {
	if cfg.TTL == 0 {
		cfg.TTL = 10 * time.Second
	}
	if cfg.TTL < time.Second || cfg.TTL > time.Minute {
		return nil, fmt.Errorf("lead: a session of %s is not possible; it must be between 1s and 1m", cfg.TTL)
	}
	if cfg.Key != strings.Trim(cfg.Key, "/") || cfg.Key == "" || strings.Contains(cfg.Key, "//") {
		return nil, fmt.Errorf("lead: %q is no folder of Consul's key–value store; write it without slashes at its ends, as in mesopool/marathon", cfg.Key)
	}
	if cfg.Name == "" {
		cfg.Name = "mesopool"
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Address != "" && !strings.Contains(cfg.Address, ":") {
		cfg.Address += ":8500"
	}
	client, err := api.NewClient(&api.Config{Address: cfg.Address, Token: cfg.Token, HttpClient: cfg.HTTP})
	if err != nil {
		return nil, fmt.Errorf("lead: %q is no address of a Consul agent (host:port or a URL): %w", cfg.Address, err)
	}
	return &Election{cfg: cfg, client: client, log: cfg.Log.With("lock", cfg.Key+"/leader")}, nil
}

// Leader returns what the leader says of itself, "" while nobody leads. While
// Consul does not answer it is the last that was known.
func (e *Election) Leader() string {
	if at := e.leader.Load(); at != nil {
		return *at
	}
	return ""
}

func (e *Election) lock() string { return e.cfg.Key + "/leader" }

// Run contends until ctx ends, which is no error. Whenever this process leads it
// calls serve, whose ctx ends when it must stop leading: then serve must return
// soon, and another may lead from then on. An error of serve while it led ends
// Run; one that is deposed, or resigns, contends again.
func (e *Election) Run(ctx context.Context, serve func(context.Context, *Term) error) error {
	var notBefore time.Time
	for ctx.Err() == nil {
		err := e.round(ctx, notBefore, serve)
		switch {
		case ctx.Err() != nil && (errors.Is(err, ErrDeposed) || errors.Is(err, context.Canceled)):
			return nil // what was cut off by the end is no failure
		case errors.Is(err, errResigned):
			e.log.Info("resigned; somebody else may lead now")
			notBefore = time.Now().Add(e.cfg.TTL / 4) // for others to be quicker
		case errors.Is(err, ErrDeposed):
			e.log.Warn("leads no longer", "why", err)
		case errors.Is(err, errContend):
			e.log.Warn("cannot contend; trying again", "error", err)
			wait(ctx, time.Second)
		default:
			return err
		}
	}
	return nil
}

var errContend = errors.New("no session or lock from Consul")

func wait(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	<-ctx.Done()
}

// round is the life of one session.
func (e *Election) round(ctx context.Context, notBefore time.Time, serve func(context.Context, *Term) error) error {
	s, err := e.newSession(ctx)
	if err != nil {
		return unlessOver(ctx, fmt.Errorf("%w: %w", errContend, err))
	}
	defer s.close(e.lock())
	if err := e.acquire(ctx, s, notBefore); err != nil {
		return unlessOver(ctx, fmt.Errorf("%w: %v", errContend, err))
	}
	return e.lead(ctx, s, serve)
}

// unlessOver: what fails because ctx has ended is no failure.
func unlessOver(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// both returns a context that ends with ctx or with the session, and then has
// the session's reason as its cause.
func both(ctx context.Context, s *session) (context.Context, context.CancelCauseFunc) {
	out, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.ctx, func() { cancel(context.Cause(s.ctx)) })
	return out, func(cause error) { stop(); cancel(cause) }
}

// acquire returns when the session holds the lock. What Consul shows is the
// truth: an answer that was lost makes no difference.
func (e *Election) acquire(ctx context.Context, s *session, notBefore time.Time) error {
	ctx, done := both(ctx, s)
	defer done(nil)
	var index uint64
	for ctx.Err() == nil {
		pair, next, err := e.look(ctx, index)
		switch {
		case err != nil:
			e.log.Warn("Consul does not say who leads; asking again", "error", err)
			index = 0
			wait(ctx, e.cfg.TTL/10)
		case pair != nil && pair.Session == s.id:
			return s.check()
		case pair != nil && pair.Session != "":
			index = next
		case time.Now().Before(notBefore) || !e.take(ctx, s):
			index = 0
			wait(ctx, e.cfg.TTL/10) // the lock's delay, perhaps
		}
	}
	return context.Cause(ctx)
}

// look reads the lock, once it has changed since index, and notes who leads.
func (e *Election) look(ctx context.Context, index uint64) (*api.KVPair, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*e.cfg.TTL)
	defer cancel()
	o := &api.QueryOptions{WaitIndex: index, WaitTime: e.cfg.TTL, RequireConsistent: true}
	pair, meta, err := e.client.KV().Get(e.lock(), o.WithContext(ctx))
	if err != nil {
		return nil, 0, err
	}
	leader := ""
	if pair != nil && pair.Session != "" {
		leader = string(pair.Value)
	}
	e.leader.Store(&leader)
	next := meta.LastIndex
	if next < index { // Consul was restored from a snapshot
		next = 0
	}
	return pair, next, nil
}

// take tries to get the lock; whether it is ours shows the next look.
func (e *Election) take(ctx context.Context, s *session) bool {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.TTL/4)
	defer cancel()
	pair := &api.KVPair{Key: e.lock(), Value: []byte(e.cfg.Self), Session: s.id}
	ok, _, err := e.client.KV().Acquire(pair, new(api.WriteOptions).WithContext(ctx))
	if err != nil && ctx.Err() == nil {
		e.log.Warn("the lock was not acquired; trying again", "error", err)
	}
	return ok
}

// lead serves as long as the session holds the lock.
func (e *Election) lead(ctx context.Context, s *session, serve func(context.Context, *Term) error) error {
	term, end := both(ctx, s)
	defer end(nil)
	watching, stop := context.WithCancel(s.ctx)
	watched := make(chan struct{})
	go func() { defer close(watched); e.watch(watching, s) }()
	e.log.Info("leads")
	err := serve(term, &Term{election: e, session: s, resign: func() { end(errResigned) }})
	cause := context.Cause(term)
	stop()
	<-watched
	e.leader.Store(new(""))
	if over := context.Cause(s.ctx); over != nil {
		cause = over
	}
	switch {
	case !errors.Is(cause, ErrDeposed) || errors.Is(err, ErrDeposed):
		return err
	case err != nil && ctx.Err() == nil:
		return fmt.Errorf("%w (%v)", cause, err)
	}
	return cause
}

// watch ends the session when its lock is somebody else's, or nobody's.
func (e *Election) watch(ctx context.Context, s *session) {
	var index uint64
	for ctx.Err() == nil {
		pair, next, err := e.look(ctx, index)
		switch {
		case err != nil:
			index = 0
			wait(ctx, e.cfg.TTL/10) // the renewals decide whether it lasts
		case pair == nil || pair.Session != s.id:
			s.end(errTaken)
		default:
			index = next
		}
	}
}
