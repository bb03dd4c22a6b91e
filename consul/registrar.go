package consul

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/mesopool/mesopool/task"
)

// ErrUnreachable says that Consul did not take an order now. The order stands:
// it is carried out when Consul answers again.
var ErrUnreachable = errors.New("no answer from Consul")

// Config says which Consul to talk to, and for whom.
type Config struct {
	// Address of one Consul agent: host, host:port or a URL with http or https.
	// Empty means CONSUL_HTTP_ADDR or 127.0.0.1:8500.
	Address string
	Token   string // ACL token; empty means CONSUL_HTTP_TOKEN or none

	// Role and Owner make the owner mark. No other Registrar may have the same
	// three: each would take the other's services for leftovers of its own.
	Role  string // "agent", "master", "marathon"
	Owner task.Owner

	Log *slog.Logger // nil: the default logger

	Timeout   time.Duration // of one call; 0 means 5 s (listings have twice that)
	Reconcile time.Duration // between full comparisons; 0 means a minute
	RetryMin  time.Duration // first pause after a failure; 0 means half a second
	RetryMax  time.Duration // longest pause; 0 means 5 s
}

// Registrar makes Consul hold what its owner wants. Its methods may be called
// concurrently; none but Drop waits for Consul.
type Registrar struct {
	cfg    Config
	client *api.Client
	mark   string
	log    *slog.Logger
	kick   chan struct{} // something changed; holds one

	mu       sync.Mutex
	want     map[string]wanted   // by service ID
	services map[string][]string // service IDs by the owner's id
	known    map[string]string   // digests of what Consul holds of ours, by service ID
	put      map[string]struct{} // service IDs to register
	drop     map[string]struct{} // service IDs to deregister, which come first
	refused  map[string]string   // digests that Consul refused for good
	waiters  map[string][]chan<- error
	compared time.Time // when everything was last compared
	synced   bool      // the owner has put everything that it has
	due      bool      // compare everything in the next round, whatever the time
	down     bool      // Consul did not answer the last time
	ailing   bool      // something did not work the last time
}

// wanted is a service that should be in Consul.
type wanted struct {
	id     string // the owner's
	reg    *api.AgentServiceRegistration
	digest string
}

// New makes a Registrar. It does not talk to Consul yet: Run does.
func New(cfg Config) (*Registrar, error) {
	cfg.Timeout = orDefault(cfg.Timeout, 5*time.Second)
	cfg.Reconcile = orDefault(cfg.Reconcile, time.Minute)
	cfg.RetryMin = orDefault(cfg.RetryMin, 500*time.Millisecond)
	cfg.RetryMax = max(cfg.RetryMin, orDefault(cfg.RetryMax, 5*time.Second))
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	client, err := api.NewClient(&api.Config{Address: withPort(cfg.Address), Token: cfg.Token})
	if err != nil {
		return nil, fmt.Errorf("consul: %q is no address of a Consul agent (host:port or a URL): %w", cfg.Address, err)
	}
	return &Registrar{
		cfg:      cfg,
		client:   client,
		mark:     clip(strings.Join([]string{"mesopool", cfg.Owner.Cluster, cfg.Role, cfg.Owner.Agent}, "/"), maxMetaValue),
		log:      cfg.Log.With("consul", cfg.Address),
		kick:     make(chan struct{}, 1),
		want:     make(map[string]wanted),
		services: make(map[string][]string),
		known:    make(map[string]string),
		put:      make(map[string]struct{}),
		drop:     make(map[string]struct{}),
		refused:  make(map[string]string),
		waiters:  make(map[string][]chan<- error),
		due:      true,
	}, nil
}

// withPort adds Consul's port to a bare host.
func withPort(address string) string {
	if address == "" || strings.Contains(address, ":") {
		return address
	}
	return address + ":8500"
}

// Put says that id is these services from now on: others that it was are
// deregistered. An empty list is the same as dropping id without waiting.
func (r *Registrar) Put(id string, services []Service) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.services[id]
	if len(services) == 0 {
		delete(r.services, id)
	} else {
		r.services[id] = make([]string, 0, len(services))
	}
	for _, s := range services {
		r.services[id] = append(r.services[id], s.ID)
		r.wish(id, s)
	}
	for _, sid := range before {
		if w := r.want[sid]; w.id == id && !slices.Contains(r.services[id], sid) {
			r.unwish(sid)
		}
	}
	r.wake()
}

// Drop deregisters what id is and returns when Consul has taken that. It gives
// up when ctx ends, or with ErrUnreachable at once while Consul is known not to
// answer; the services are no longer wanted all the same and go when it does.
// Dropping what was never put succeeds. Before Run, Drop waits for ctx.
func (r *Registrar) Drop(ctx context.Context, id string) error {
	done, n, err := r.order(id)
	if err != nil {
		return fmt.Errorf("consul: deregister %s: %w", id, err)
	}
	for range n {
		select {
		case err := <-done:
			if err != nil {
				return fmt.Errorf("consul: deregister %s: %w", id, err)
			}
		case <-ctx.Done():
			return fmt.Errorf("consul: deregister %s: %w", id, ctx.Err())
		}
	}
	return nil
}

// order takes id out of what is wanted, and says how many answers to wait for.
func (r *Registrar) order(id string) (<-chan error, int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids := r.services[id]
	delete(r.services, id)
	done := make(chan error, len(ids))
	n := 0
	for _, sid := range ids {
		if r.want[sid].id != id {
			continue
		}
		r.unwish(sid)
		if !r.down {
			r.waiters[sid] = append(r.waiters[sid], done)
			n++
		}
	}
	if r.down && len(ids) > 0 {
		return nil, 0, ErrUnreachable
	}
	r.wake()
	return done, n, nil
}

// Synced says that everything the owner has was put. Until then nothing of an
// earlier life is deregistered: it may still be wanted.
func (r *Registrar) Synced() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.synced {
		return
	}
	r.synced, r.due = true, true
	r.wake()
}

// wish notes a wanted service. The caller holds the lock.
func (r *Registrar) wish(id string, s Service) {
	reg := registration(s, r.mark)
	w := wanted{id: id, reg: reg, digest: reg.Meta[metaDigest]}
	if old, ok := r.want[s.ID]; ok && old.digest == w.digest {
		r.want[s.ID] = w
		return
	}
	r.want[s.ID] = w
	delete(r.drop, s.ID)
	r.put[s.ID] = struct{}{}
}

// unwish notes that a service is not wanted. The caller holds the lock.
func (r *Registrar) unwish(sid string) {
	delete(r.want, sid)
	delete(r.put, sid)
	delete(r.refused, sid)
	r.drop[sid] = struct{}{}
}

func (r *Registrar) wake() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// Run keeps Consul in step until ctx ends, and then returns nil. What is
// registered stays: the tasks run on. Run once.
func (r *Registrar) Run(ctx context.Context) error {
	defer r.stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	pause := r.cfg.RetryMin
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-r.kick:
			if r.isDown() {
				continue // the timer says when to try again
			}
		}
		err := r.round(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			pause = r.cfg.RetryMin
			timer.Reset(r.cfg.Reconcile)
		default:
			timer.Reset(pause)
			pause = min(2*pause, r.cfg.RetryMax)
		}
	}
}

func (r *Registrar) isDown() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.down
}

// stop lets nobody wait for what will not happen any more.
func (r *Registrar) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = true
	r.answerAll(ErrUnreachable)
}

// answer tells those who wait for a service how it went, answerAll tells all.
// The caller holds the lock.
func (r *Registrar) answer(sid string, err error) {
	for _, w := range r.waiters[sid] {
		w <- err
	}
	delete(r.waiters, sid)
}

func (r *Registrar) answerAll(err error) {
	for sid := range r.waiters {
		r.answer(sid, err)
	}
}

// final says whether Consul understood a call and will refuse it again. A
// refused token is not final: it can be given rights at any time.
func final(err error) bool {
	var status api.StatusError
	return errors.As(err, &status) && status.Code >= 400 && status.Code < 500 &&
		status.Code != http.StatusForbidden && status.Code != http.StatusTooManyRequests
}

// answered says whether Consul answered at all, if with an error.
func answered(err error) bool {
	var status api.StatusError
	return errors.As(err, &status)
}

// absent says that what was to be deregistered is not there. Old servers say so
// with a 500.
func absent(err error) bool {
	var status api.StatusError
	return errors.As(err, &status) && (status.Code == http.StatusNotFound || strings.Contains(status.Body, "Unknown service"))
}
