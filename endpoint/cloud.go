package endpoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/mesopool/mesopool/endpoint/backend"
)

// Config describes a data center.
type Config struct {
	Dir     string // accounts, certificates, lists of images
	Backend backend.Backend

	Packages   []Package // nil: DefaultPackages
	Prefix     string    // of packages chosen by memory; "": DefaultPrefix
	Datacenter string    // "": mesopool
	DNSSuffix  string    // of container names; "": cns.mesopool
	LogDrivers []string  // what containers may log to; nil: json-file (sdc-docker's default)

	// Strict refuses what Triton silently ignores.
	Strict bool

	// PublicNetworks are the networks that "triton.network.public" may name, the
	// default first; nil: external.
	PublicNetworks []backend.Network

	Log *slog.Logger // nil: the default one
}

// Cloud is the data center: accounts and what is theirs. Its methods may be
// called concurrently. Their errors are *Error where a caller is to blame.
type Cloud struct {
	cfg       Config
	accounts  *Accounts
	authority *Authority
	backend   backend.Backend
	started   time.Time
	images    *imageLists

	mu      sync.RWMutex
	tenants map[string]*tenant // by Account.Key
	owners  map[string]*tenant // by container ID, for what the backend tells

	work orders // calls that go on without their caller
}

// Open prepares a data center and learns what its backend has from before.
func Open(ctx context.Context, cfg Config) (*Cloud, error) {
	if cfg.Packages == nil {
		cfg.Packages = DefaultPackages()
	}
	if err := completePackages(cfg.Packages); err != nil {
		return nil, fmt.Errorf("endpoint: packages: %w", err)
	}
	cfg.Prefix = cmp.Or(cfg.Prefix, DefaultPrefix)
	cfg.Datacenter = cmp.Or(cfg.Datacenter, "mesopool")
	cfg.DNSSuffix = cmp.Or(cfg.DNSSuffix, "cns.mesopool")
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	if cfg.LogDrivers == nil {
		cfg.LogDrivers = []string{"json-file"}
	}
	if cfg.PublicNetworks == nil {
		cfg.PublicNetworks = []backend.Network{{Name: "external", UUID: backend.UUIDOf("network/external"), Public: true}}
	}
	c := &Cloud{cfg: cfg, backend: cfg.Backend, started: time.Now(), tenants: map[string]*tenant{}, owners: map[string]*tenant{}}
	var err error
	if c.accounts, err = OpenAccounts(cfg.Dir); err != nil {
		return nil, err
	}
	if c.authority, err = OpenAuthority(cfg.Dir); err != nil {
		return nil, err
	}
	c.images = &imageLists{accounts: c.accounts, lists: map[string]*imageList{}}
	return c, c.load(ctx)
}

// load adopts the backend's containers.
func (c *Cloud) load(ctx context.Context) error {
	c.backend.Notify(c.told)
	found, err := c.backend.Load(ctx)
	if err != nil {
		return fmt.Errorf("endpoint: what runs already: %w", err)
	}
	for _, f := range found {
		r := &record{spec: f.Spec, name: f.Spec.Name, state: f.State}
		t := c.tenantOf(f.Spec.Account)
		if err := t.add(r, Limits{}); err != nil {
			c.cfg.Log.Warn("a container from before is left alone", "account", f.Spec.Account, "name", f.Spec.Name, "error", err)
			continue
		}
		c.own(f.Spec.ID, t)
	}
	return nil
}

// Accounts are the tenants.
func (c *Cloud) Accounts() *Accounts { return c.accounts }

// Authority signs certificates.
func (c *Cloud) Authority() *Authority { return c.authority }

// Datacenter is the data center's name.
func (c *Cloud) Datacenter() string { return c.cfg.Datacenter }

// drain is how long Run waits for what is under way. What takes longer is cut
// off by the process's end, as by a crash: a backend that outlives it tells the
// next process how far it came.
const drain = 10 * time.Second

// Run keeps the states current until ctx ends, then waits a little for calls
// under way.
func (c *Cloud) Run(ctx context.Context) error {
	err := c.backend.Run(ctx)
	select {
	case <-c.work.idle():
	case <-time.After(drain):
		c.cfg.Log.Warn("orders are still under way; they end with the process")
	}
	return err
}

// tenantOf returns an account's containers; the index is made at first use.
func (c *Cloud) tenantOf(key string) *tenant {
	c.mu.RLock()
	t := c.tenants[key]
	c.mu.RUnlock()
	if t != nil {
		return t
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if t = c.tenants[key]; t == nil {
		t = newTenant(key)
		c.tenants[key] = t
	}
	return t
}

func (c *Cloud) own(id string, t *tenant) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.owners[id] = t
}

func (c *Cloud) disown(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.owners, id)
}

// told is what the backend calls with a container's state.
func (c *Cloud) told(id string, s backend.State) {
	c.mu.RLock()
	t := c.owners[id]
	c.mu.RUnlock()
	if t == nil {
		return // not adopted, or removed meanwhile
	}
	if s.Gone {
		c.disown(id)
	}
	t.update(id, s)
}

// detach does something that goes on when its caller is gone: as on Triton, a
// request that broke off may still be carried out.
func (c *Cloud) detach(ctx context.Context, do func(context.Context) error) error {
	done := make(chan error, 1)
	c.work.begin(func() { done <- do(context.WithoutCancel(ctx)) })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// orders counts what is under way. Unlike with a sync.WaitGroup, more may begin
// while somebody waits for the last to end.
type orders struct {
	mu   sync.Mutex
	n    int
	none chan struct{} // closed when n becomes 0; nil: nobody waits
}

func (o *orders) begin(do func()) {
	o.mu.Lock()
	o.n++
	o.mu.Unlock()
	go func() {
		defer o.end()
		do()
	}()
}

func (o *orders) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.n--; o.n == 0 && o.none != nil {
		close(o.none)
		o.none = nil
	}
}

// idle is closed as soon as nothing is under way.
func (o *orders) idle() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.none == nil {
		o.none = make(chan struct{})
	}
	none := o.none
	if o.n == 0 {
		close(none)
		o.none = nil
	}
	return none
}

// ErrCut says that a caller's time was over while the work goes on.
var ErrCut = errors.New("the connection was idle for too long")
