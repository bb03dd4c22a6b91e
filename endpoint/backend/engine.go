package backend

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"
	"golang.org/x/sync/errgroup"
)

// EngineConfig says which engine runs the containers.
type EngineConfig struct {
	Host string // "": DOCKER_HOST, or the local engine
	Name string // of the endpoint: what is its own on the engine is named after it; "": mesopool
	Log  *slog.Logger
}

// Engine runs containers on a real Docker engine. It keeps no state of its own:
// what it needs to know is in labels of the engine's containers, and in their
// names. Labels of tenants do not reach the engine.
type Engine struct {
	cli    *client.Client
	name   string
	log    *slog.Logger
	notify func(string, State)

	networks sync.Mutex // one is made at a time
	cpus     int        // of the engine's host

	mu    sync.Mutex
	boxes map[string]*engineBox
}

// engineBox is a container of the engine.
type engineBox struct {
	spec   *Spec
	engine string // the engine's ID
	mu     sync.Mutex
}

// The labels of what is the endpoint's own on an engine.
const (
	labelEndpoint = "mesopool.endpoint"
	labelSpec     = "mesopool.endpoint.spec"
	labelID       = "mesopool.endpoint.id"
)

// maxPids bounds the processes of a container (packages have 4000 lwps).
const maxPids = 4000

// NewEngine connects to an engine.
func NewEngine(ctx context.Context, cfg EngineConfig) (*Engine, error) {
	opts := []client.Opt{client.FromEnv, client.WithAPIVersionNegotiation()}
	if cfg.Host != "" {
		opts = append(opts, client.WithHost(cfg.Host))
	}
	cli, err := client.NewClientWithOpts(opts...)
	if err != nil {
		return nil, fmt.Errorf("endpoint: engine: %w", err)
	}
	info, err := cli.Info(ctx)
	if err != nil {
		return nil, fmt.Errorf("endpoint: no Docker engine answers at %s: %w", cli.DaemonHost(), err)
	}
	return &Engine{
		cli: cli, name: cmp.Or(cfg.Name, "mesopool"), log: cmp.Or(cfg.Log, slog.Default()), notify: func(string, State) {}, cpus: info.NCPU,
		boxes: map[string]*engineBox{},
	}, nil
}

// Notify is part of Backend.
func (e *Engine) Notify(f func(string, State)) { e.notify = f }

func (e *Engine) own() filters.Args {
	return filters.NewArgs(filters.Arg("label", labelEndpoint+"="+e.name))
}

// containerName is unique on the engine; the tenant's own name is its end.
func (e *Engine) containerName(s *Spec, name string) string {
	return e.name + "." + s.Account + "." + name
}

// Load is part of Backend.
func (e *Engine) Load(ctx context.Context) ([]Found, error) {
	list, err := e.cli.ContainerList(ctx, container.ListOptions{All: true, Filters: e.own()})
	if err != nil {
		return nil, err
	}
	var all []Found
	for _, c := range list {
		s := &Spec{}
		if err := json.Unmarshal([]byte(c.Labels[labelSpec]), s); err != nil || len(s.ID) != 64 {
			e.log.Warn("a container has the endpoint's label and is not its own; it is left alone", "id", c.ID, "error", err)
			continue
		}
		in, err := e.cli.ContainerInspect(ctx, c.ID)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		s.Name = strings.TrimPrefix(strings.TrimPrefix(in.Name, "/"), e.containerName(s, "")) // it may have been renamed
		e.keep(s, c.ID)
		all = append(all, Found{s, stateOf(s, &in)})
	}
	return all, nil
}

func (e *Engine) keep(s *Spec, engine string) *engineBox {
	e.mu.Lock()
	defer e.mu.Unlock()
	b := &engineBox{spec: s, engine: engine}
	e.boxes[s.ID] = b
	return b
}

func (e *Engine) forget(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.boxes, id)
}

func (e *Engine) find(id string) (*engineBox, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if b := e.boxes[id]; b != nil {
		return b, nil
	}
	return nil, fmt.Errorf("container %.12s: %w", id, ErrNotFound)
}

// refresh tells a container's state as the engine has it.
func (e *Engine) refresh(ctx context.Context, id string) error {
	b, err := e.find(id)
	if err != nil {
		return nil // not the endpoint's any more
	}
	b.mu.Lock() // an older answer must not come after a newer one
	defer b.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	in, err := e.cli.ContainerInspect(ctx, b.engine)
	if errdefs.IsNotFound(err) {
		e.forget(id)
		e.notify(id, State{Gone: true})
		return nil
	}
	if err != nil {
		return err
	}
	e.notify(id, stateOf(b.spec, &in))
	return nil
}

// stateOf reads the engine's description. An engine tells an end by signal as
// 128+n; Triton tells it as -n.
func stateOf(s *Spec, in *container.InspectResponse) State {
	out := State{Phase: Stopped, Restarts: in.RestartCount}
	if in.State == nil {
		return out
	}
	out.Started, out.Error = engineTime(in.State.StartedAt), in.State.Error
	if in.State.Running && !in.State.Restarting {
		out.Phase, out.Pid = Running, in.State.Pid
	} else if !out.Started.IsZero() {
		out.Finished, out.HasExit, out.ExitCode = engineTime(in.State.FinishedAt), true, in.State.ExitCode
		if n := out.ExitCode - 128; n > 0 && n < 32 {
			out.ExitCode = -n
		}
	}
	if in.NetworkSettings != nil {
		for _, n := range in.NetworkSettings.Networks {
			out.NICs = append(out.NICs, engineNIC(s, n)...)
		}
	}
	return out
}

func engineTime(text string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || t.Year() < 1970 {
		return time.Time{}
	}
	return t
}

// engineNIC is the address in the account's network. It is also the public one:
// the engine's host, and whatever routes to it, reaches every port of it.
func engineNIC(s *Spec, n *network.EndpointSettings) []NIC {
	ip, err := netip.ParseAddr(n.IPAddress)
	if err != nil {
		return nil // not running
	}
	gateway, _ := netip.ParseAddr(n.Gateway)
	return []NIC{{Network: FabricName, Public: s.Public, IP: ip, Bits: n.IPPrefixLen, Gateway: gateway, MAC: n.MacAddress}}
}

// lookAgain is how often everything is asked for, and askTime how long one
// answer may take.
const (
	lookAgain = time.Minute
	askTime   = 30 * time.Second
)

// Run is part of Backend: it follows the engine's events, and asks for
// everything again whenever it may have missed some.
func (e *Engine) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := e.follow(ctx); err != nil && ctx.Err() == nil {
			e.log.Warn("the engine's events broke off; trying again", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return nil
}

func (e *Engine) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f := e.own()
	f.Add("type", string(events.ContainerEventType))
	told, broken := e.cli.Events(ctx, events.ListOptions{Filters: f})
	if err := e.refreshAll(ctx); err != nil {
		return err
	}
	again := time.NewTicker(lookAgain)
	defer again.Stop()
	for {
		select {
		case <-again.C: // a connection may be dead and not say so
			if err := e.refreshAll(ctx); err != nil {
				return err
			}
		case err := <-broken:
			return err
		case ev := <-told:
			if strings.HasPrefix(string(ev.Action), "exec_") {
				continue
			}
			if err := e.refresh(ctx, ev.Actor.Attributes[labelID]); err != nil {
				return err
			}
		}
	}
}

func (e *Engine) refreshAll(ctx context.Context) error {
	e.mu.Lock()
	var ids []string
	for id := range e.boxes {
		ids = append(ids, id)
	}
	e.mu.Unlock()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, id := range ids {
		g.Go(func() error { return e.refresh(ctx, id) })
	}
	return g.Wait()
}

// networkName is that of an account's network on the engine.
func (e *Engine) networkName(account string) string { return e.name + "-" + account }

// Network is part of Backend: every account has a bridge of its own, and the
// engine lets nothing pass from one bridge to another.
func (e *Engine) Network(ctx context.Context, account string) (Network, error) {
	e.networks.Lock()
	defer e.networks.Unlock()
	name := e.networkName(account)
	in, err := e.cli.NetworkInspect(ctx, name, network.InspectOptions{})
	if errdefs.IsNotFound(err) {
		_, err = e.cli.NetworkCreate(ctx, name, network.CreateOptions{
			Driver: "bridge", Labels: map[string]string{labelEndpoint: e.name, "mesopool.endpoint.account": account},
		})
		if err == nil {
			in, err = e.cli.NetworkInspect(ctx, name, network.InspectOptions{})
		}
	}
	if err != nil {
		return Network{}, fmt.Errorf("network %s: %w", name, err)
	}
	if in.Name != name || in.Labels[labelEndpoint] != e.name {
		return Network{}, fmt.Errorf("the engine's network %s is not the endpoint's own; remove it, or give the endpoint another name", name)
	}
	out := Network{Name: FabricName, UUID: UUIDOf("network/" + account)}
	for _, c := range in.IPAM.Config {
		if p, err := netip.ParsePrefix(c.Subnet); err == nil && p.Addr().Is4() {
			out.Subnet, out.Gateway = p, p.Masked().Addr().Next()
		}
	}
	return out, nil
}
