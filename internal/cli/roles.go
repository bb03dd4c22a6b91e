package cli

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mesopool/mesopool/agent"
	agentapi "github.com/mesopool/mesopool/agent/api"
	"github.com/mesopool/mesopool/agent/archive"
	"github.com/mesopool/mesopool/agent/fetch"
	"github.com/mesopool/mesopool/consul"
	"github.com/mesopool/mesopool/consul/lead"
	"github.com/mesopool/mesopool/internal/uuid"
	"github.com/mesopool/mesopool/marathon"
	marathonapi "github.com/mesopool/mesopool/marathon/api"
	"github.com/mesopool/mesopool/marathon/runner"
	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/master/server"
	"github.com/mesopool/mesopool/mesos/crammd5"
	"github.com/mesopool/mesopool/mesos/detect"
	"github.com/mesopool/mesopool/mesos/libprocess"
	"github.com/mesopool/mesopool/mesos/link"
	"github.com/mesopool/mesopool/mesos/scheduler"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/store"
	"github.com/mesopool/mesopool/task"
	"github.com/mesopool/mesopool/web"
)

// masterRole is a master with all it needs.
type masterRole struct {
	cluster  string
	hostname string
	at       *address
	store    store.Store
	core     master.Config
	election server.Election // nil: there is one master
	auth     server.Auth
	limits   *server.Limits
	tls      *peerTLS
	consul   string
	log      *slog.Logger
}

func (r *masterRole) run(ctx context.Context) error {
	defer r.store.Close()
	var s *server.Server
	started := time.Now()
	pages := web.MasterPage(func(ctx context.Context, filter string) (*web.Cluster, error) {
		snapshot, err := s.Visible(ctx)
		if err != nil {
			return nil, err
		}
		return clusterView(snapshot, r.cluster, r.at.advertise.String(), started, filter), nil
	})
	listener, dial := r.tls.wrap(r.at.listener)
	s, err := server.New(server.Config{
		Listener: listener, Dial: dial, Auth: r.auth, Limits: r.limits, Advertise: r.at.advertise, Hostname: r.hostname, Cluster: r.cluster, Store: r.store,
		Core: r.core, Version: mesosVersion, Log: r.log, Pages: pages, Election: r.election,
	})
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	r.log.Info("the master listens", "address", r.at.listener.Addr(), "advertised", r.at.advertise, "cluster", r.cluster)
	g.Go(func() error { return s.Run(ctx) })
	whenLeading(ctx, s, func() {
		announceSelf(ctx, g, r.consul, "master", task.Owner{Cluster: r.cluster, Agent: "master"}, r.log, consul.Role{
			Name: "mesos", Tags: []string{"master", "leader"}, Address: r.at.advertise.Addr().String(), Port: r.at.advertise.Port(), Path: "/health", Version: Version,
		})
	})
	return g.Wait()
}

// announceSelf registers a role in Consul for as long as it runs. An address
// that is none is told once; Consul being down is no reason to end.
func announceSelf(ctx context.Context, g *errgroup.Group, address, role string, owner task.Owner, log *slog.Logger, self consul.Role) {
	if address == "" {
		return
	}
	reg, err := consul.New(consul.Config{Address: address, Role: role, Owner: owner, Log: log})
	if err != nil {
		log.Error("not registered in Consul", "error", err)
		return
	}
	reg.Put(consul.SelfID, consul.Self(self, owner))
	reg.Synced()
	g.Go(func() error { return reg.Run(ctx) })
}

// recheck is how often the agent asks again who leads.
const recheck = 10 * time.Second

// maxToAgent is more than any message of a master to an agent: they name tasks,
// or bring one.
const maxToAgent = 64 << 20

// agentRole is a virtual agent with all it needs.
type agentRole struct {
	owner      task.Owner
	hostname   string
	at         *address
	master     *detect.Detector
	secret     *crammd5.Credential // nil: none is wanted
	provider   provider.Provider
	reread     func() resources.Resources // the resources of the configuration file, again; nil: they are from elsewhere
	resources  resources.Resources        // nil: what the provider has
	ports      resources.Resources        // that are offered and never a conflict
	overcommit resources.Milli            // 1000: what there is
	attrs      []*mesosv1.Attribute
	domain     *mesosv1.DomainInfo
	tls        *peerTLS
	stores     []store.Store // one for each shard
	core       agent.Config
	shutdown   link.ShutdownPolicy
	keepLogs   time.Duration
	logs       *archive.Folder   // nil: logs go with their containers
	toldAll    atomic.Int32      // the shards that have told all that they knew
	flags      map[string]string // what it was started with, for its pages
	workers    int
	fetch      fetching
	files      *fetch.Fetcher
	consul     string
	log        *slog.Logger
}

func (r *agentRole) run(ctx context.Context) error {
	for _, st := range r.stores {
		defer st.Close()
	}
	defer r.master.Close()
	logged := &agentapi.LogBuffer{}
	r.log = slog.New(slog.NewMultiHandler(r.log.Handler(), slog.NewTextHandler(logged, &slog.HandlerOptions{Level: verbosity})))
	pool, err := r.capacity(ctx)
	if err != nil {
		return err
	}
	if err := link.CheckTotal(pool); err != nil {
		return exit(exitUsage, "--resources: %w", err)
	}
	var clear func()
	if r.files, clear, err = r.fetch.open(); err != nil {
		return err
	}
	defer clear()
	g, ctx := errgroup.WithContext(ctx)
	reg := r.registrar(ctx, g)
	var shards []*shard
	pages := &lateHandler{}
	listener, dial := r.tls.wrap(r.at.listener)
	node := libprocess.NewNode(libprocess.Config{
		Listener: listener, Dial: dial, Advertise: r.at.advertise, HTTP: pages, ErrorLog: r.log, MaxMessage: maxToAgent,
		Exited: func(u libprocess.UPID) {
			for _, s := range shards {
				s.link.Exited(u)
			}
		},
	})
	shares := pool.Split(len(r.stores))
	for i := range r.stores {
		shards = append(shards, r.shard(i, node, shares[i], reg, logged))
	}
	pages.set(shardPages(shards))
	r.log.Info("the agent listens", "address", r.at.listener.Addr(), "advertised", r.at.advertise, "resources", pool.String(), "shards", len(shards))
	g.Go(func() error { return node.Run(ctx) })
	for _, s := range shards {
		g.Go(func() error { return s.runner.Run(ctx, s.link) })
		g.Go(func() error { return s.link.Run(ctx, s.runner) })
	}
	g.Go(func() error { r.resize(ctx, shards); return nil })
	return g.Wait()
}

// volumeRemover removes persistent volumes; nil where the backend has none.
func (r *agentRole) volumeRemover(owner task.Owner) func(ctx context.Context, role, id string) error {
	remover, ok := provider.As[provider.Volumes](r.provider)
	if !ok {
		return nil
	}
	return func(ctx context.Context, role, id string) error {
		return remover.RemoveVolume(ctx, owner, provider.VolumeName(owner, role, id))
	}
}

// capacity is what there is to offer: what was configured, or what the provider
// says once it answers, with what is added to either.
func (r *agentRole) capacity(ctx context.Context) (resources.Resources, error) {
	if r.resources != nil {
		return r.offered(r.resources), nil
	}
	for {
		c, err := r.provider.Capacity(ctx)
		if err == nil {
			return r.offered(c.Total.Resources()), nil
		}
		r.log.Warn("the backend does not say what it has; trying again in 2s", "error", err)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(2 * time.Second):
		}
	}
}

func (r *agentRole) offered(has resources.Resources) resources.Resources {
	return has.Times(r.overcommit, "cpus", "mem").Add(r.ports...)
}

// between two looks at what the backend has
const capacityEvery = time.Minute

// resize follows a backend that grows or shrinks, or the configuration file.
// Tasks stay whatever it says; what does not answer, or makes no sense, changes
// nothing.
func (r *agentRole) resize(ctx context.Context, shards []*shard) {
	for r.resources == nil || r.reread != nil {
		select {
		case <-ctx.Done():
			return
		case <-time.After(capacityEvery):
		}
		has := r.has(ctx)
		pool := r.offered(has)
		if len(has) == 0 || link.CheckTotal(pool) != nil {
			continue
		}
		for i, share := range pool.Split(len(shards)) {
			shards[i].link.SetTotal(share)
		}
	}
}

// has is what there is now; empty: nobody says.
func (r *agentRole) has(ctx context.Context) resources.Resources {
	if r.resources != nil {
		return r.reread()
	}
	c, err := r.provider.Capacity(ctx)
	if err != nil {
		return nil
	}
	return c.Total.Resources()
}

// registrar registers the agent in Consul, and through registries its tasks; nil
// without Consul.
func (r *agentRole) registrar(ctx context.Context, g *errgroup.Group) *consul.Registrar {
	if r.consul == "" {
		return nil
	}
	reg, err := consul.New(consul.Config{Address: r.consul, Role: "agent", Owner: r.owner, Log: r.log})
	if err != nil {
		r.log.Error("tasks are not registered in Consul", "error", err)
		return nil
	}
	reg.Put(consul.SelfID, consul.Self(consul.Role{
		Name: "mesos-agent", Address: r.at.advertise.Addr().String(), Port: r.at.advertise.Port(), Path: "/health", Version: Version,
	}, r.owner))
	g.Go(func() error { return reg.Run(ctx) })
	return reg
}

// registry is an agent's registry in Consul.
type registry struct {
	reg     *consul.Registrar
	owner   task.Owner
	agentID func() string
	known   func() // says that this agent has told all that it knew
}

// Announce implements agent.Registry.
func (r *registry) Announce(spec *task.Spec, c provider.Container) {
	r.reg.Put(spec.Key.String(), consul.TaskServices(*spec, task.ContainerStatus{
		ID: c.ID, Addresses: c.Addresses, Network: c.Network, Ports: c.Ports, PublishIP: c.PublishIP,
	}, r.owner, r.agentID()))
}

// Withdraw implements agent.Registry.
func (r *registry) Withdraw(ctx context.Context, key task.Key) error {
	return r.reg.Drop(ctx, key.String())
}

// AllKnown implements agent.Registry.
func (r *registry) AllKnown() { r.known() }

// lateHandler serves once it is set; the node needs it before the rest exists.
type lateHandler struct{ h http.Handler }

func (l *lateHandler) set(h http.Handler) { l.h = h }

func (l *lateHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) { l.h.ServeHTTP(w, r) }

// marathonRole is a service scheduler with all it needs.
type marathonRole struct {
	cluster  string
	name     string // of the framework
	hostname string
	role     string
	at       *address
	master   *detect.Detector
	mesosUI  string
	webUI    string
	store    store.Store  // nil with an election: the state is in Consul
	elect    *lead.Config // nil: this is the only one
	workDir  string       // with an election: where the state was before
	core     marathon.Config
	self     identity    // to the master
	tls      *tls.Config // to the master; nil: plain text
	consul   string
	secrets  runner.Secrets // nil: none
	log      *slog.Logger
}

func (r *marathonRole) run(ctx context.Context) error {
	defer r.master.Close()
	r.core.NewID, r.core.Role = func() string { return uuid.New().String() }, r.role
	r.log.Info("marathon listens", "address", r.at.listener.Addr())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if r.elect != nil {
			return r.contend(ctx)
		}
		return r.lead(ctx, marathonTerm{store: r.store, serve: func(ctx context.Context, api http.Handler) error { return serve(ctx, r.at.listener, api) }})
	})
	announceSelf(ctx, g, r.consul, "marathon", task.Owner{Cluster: r.cluster, Agent: "marathon"}, r.log, consul.Role{
		Name: "marathon", Address: r.at.advertise.Addr().String(), Port: r.at.advertise.Port(), Path: "/ping", Version: Version,
	})
	return g.Wait()
}

// marathonTerm is a time in which a scheduler works.
type marathonTerm struct {
	store    store.Store
	check    func() error // whether it leads; nil: always
	abdicate func()       // nil: there is no other
	serve    func(context.Context, http.Handler) error
}

// lead works until ctx ends.
func (r *marathonRole) lead(ctx context.Context, t marathonTerm) error {
	defer t.store.Close()
	run, err := runner.New(ctx, runner.Config{Core: r.core, Store: t.store, Log: r.log, Secrets: r.secrets, Fence: t.check})
	if err != nil {
		return err
	}
	client := scheduler.New(scheduler.Config{
		Framework: r.framework(run.FrameworkID()), Master: t.guard(r.master.Address), Log: r.log,
		Principal: r.self.principal, Secret: r.self.secret, Dial: dialer(r.tls),
	})
	cfg := r.api()
	cfg.Runner, cfg.Abdicate = run, t.abdicate
	cfg.Pages = web.MarathonPage(func(ctx context.Context) (*web.Services, error) {
		return servicesView(ctx, run, r.cluster, r.at.advertise.String(), r.mesosUI)
	})
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return run.Run(ctx, client) })
	g.Go(func() error { return client.Run(ctx, run) })
	g.Go(func() error { return t.serve(ctx, marathonapi.New(cfg)) })
	return g.Wait()
}

// api is what all schedulers show of themselves.
func (r *marathonRole) api() marathonapi.Config {
	return marathonapi.Config{
		Version: mesosVersion, Role: r.role, Address: r.at.advertise.String(), MesosURL: r.mesosUI, Hostname: r.hostname,
		HTTPPort: int(r.at.advertise.Port()), Framework: r.name,
	}
}

func (r *marathonRole) framework(id string) *mesosv1.FrameworkInfo {
	f := &mesosv1.FrameworkInfo{
		User: new("root"), Name: &r.name, Hostname: &r.hostname, Checkpoint: new(true), FailoverTimeout: new(float64(7 * 24 * 3600)),
		Roles: []string{r.role}, WebuiUrl: new(cmp.Or(r.webUI, "http://"+r.at.advertise.String())),
	}
	if r.self.principal != "" {
		f.Principal = &r.self.principal
	}
	if id != "" {
		f.Id = &mesosv1.FrameworkID{Value: &id}
	}
	for _, c := range []mesosv1.FrameworkInfo_Capability_Type{
		mesosv1.FrameworkInfo_Capability_TASK_KILLING_STATE, mesosv1.FrameworkInfo_Capability_PARTITION_AWARE,
		mesosv1.FrameworkInfo_Capability_MULTI_ROLE, mesosv1.FrameworkInfo_Capability_RESERVATION_REFINEMENT,
	} {
		f.Capabilities = append(f.Capabilities, &mesosv1.FrameworkInfo_Capability{Type: c.Enum()})
	}
	return f
}

// parseAttributes reads Mesos' flag form, "rack:a;zone:b;slots:4": what is a
// number is a scalar, all else text (common/attributes.cpp, parse).
func parseAttributes(text string) ([]*mesosv1.Attribute, error) {
	var out []*mesosv1.Attribute
	for part := range strings.SplitSeq(text, ";") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		name, value, ok := strings.Cut(part, ":")
		if !ok || name == "" {
			return nil, exit(exitUsage, "--attributes has %q; it must be name:value, as in rack:a;zone:b", part)
		}
		if n, err := strconv.ParseFloat(value, 64); err == nil && !math.IsNaN(n) && !math.IsInf(n, 0) {
			out = append(out, &mesosv1.Attribute{Name: &name, Type: mesosv1.Value_SCALAR.Enum(), Scalar: &mesosv1.Value_Scalar{Value: &n}})
			continue
		}
		out = append(out, &mesosv1.Attribute{Name: &name, Type: mesosv1.Value_TEXT.Enum(), Text: &mesosv1.Value_Text{Value: &value}})
	}
	return out, nil
}

// within gives the host of a role's address that this machine can use.
func within(at *address) string {
	if at.advertise.Addr().IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", fmt.Sprint(at.advertise.Port()))
	}
	return at.advertise.String()
}
