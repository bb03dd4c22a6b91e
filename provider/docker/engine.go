package docker

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/versions"
	"github.com/docker/docker/client"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/resources"
)

// Engine is a provider.Provider, provider.Logger and provider.Execer on one
// Docker engine.
type Engine struct {
	o          Options
	cli        *client.Client
	negotiated once
	network    once
	pulls      pulls
	stops      chan struct{} // orders under way at the engine
}

const (
	minAPI       = "1.40"
	maxIdleConns = 64  // kept for reuse
	maxStops     = 256 // stop orders that wait at the engine, a connection each
)

// New prepares an Engine and calls nothing; whether the engine answers shows
// at the first call.
func New(o Options) (*Engine, error) {
	o = o.withDefaults()
	if strings.HasPrefix(o.Host, "ssh://") {
		return nil, fmt.Errorf("docker: endpoint %s: ssh is not offered; forward the socket "+
			"(ssh -L /tmp/docker.sock:/var/run/docker.sock …) and use unix:///tmp/docker.sock", o.Host)
	}
	opts := []client.Opt{
		client.WithHTTPClient(&http.Client{Transport: newTransport(), CheckRedirect: client.CheckRedirect}),
		client.WithHost(o.Host),
		withDialer(o.Host),
		client.WithAPIVersionNegotiation(),
	}
	if o.CertPath != "" && !strings.HasPrefix(o.Host, "unix:") {
		opts = append(opts, withTLS(o))
	}
	if o.APIVersion != "" {
		opts = append(opts, client.WithVersion(o.APIVersion))
	}
	cli, err := client.NewClientWithOpts(opts...)
	if err != nil {
		return nil, fmt.Errorf("docker: endpoint %s: %w", o.Host, err)
	}
	e := &Engine{o: o, cli: cli, stops: make(chan struct{}, maxStops), negotiated: newOnce(), network: newOnce()}
	e.pulls.running = map[wanted]*pull{}
	return e, nil
}

func newTransport() *http.Transport {
	return &http.Transport{MaxIdleConns: maxIdleConns, MaxIdleConnsPerHost: maxIdleConns, IdleConnTimeout: time.Minute}
}

// withDialer makes dialling end with the call's context; the client's own
// dialers do not.
func withDialer(host string) client.Opt {
	d := &net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}
	path, unix := strings.CutPrefix(host, "unix://")
	return client.WithDialContext(func(ctx context.Context, network, addr string) (net.Conn, error) {
		if unix {
			network, addr = "unix", path
		}
		return d.DialContext(ctx, network, addr)
	})
}

func withTLS(o Options) client.Opt {
	ca, cert, key := filepath.Join(o.CertPath, "ca.pem"), filepath.Join(o.CertPath, "cert.pem"), filepath.Join(o.CertPath, "key.pem")
	return func(c *client.Client) error {
		if err := client.WithTLSClientConfig(ca, cert, key)(c); err != nil {
			return err
		}
		if tr, ok := c.HTTPClient().Transport.(*http.Transport); ok && !o.TLSVerify {
			tr.TLSClientConfig.InsecureSkipVerify = true
		}
		return nil
	}
}

// Close closes idle connections. Calls under way go on.
func (e *Engine) Close() error { return e.cli.Close() }

// once is a step that is done until it succeeded, by one caller at a time.
type once struct {
	lock chan struct{}
	done *atomic.Bool
}

func newOnce() once { return once{make(chan struct{}, 1), new(atomic.Bool)} }

func (o once) do(ctx context.Context, step func(context.Context) error) error {
	if o.done.Load() {
		return nil
	}
	select {
	case o.lock <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-o.lock }()
	if o.done.Load() {
		return nil
	}
	err := step(ctx)
	o.done.Store(err == nil)
	return err
}

func (o once) again() { o.done.Store(false) }

// ready negotiates the API's version at the first call.
func (e *Engine) ready(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return e.negotiated.do(ctx, func(ctx context.Context) error {
		ping, err := e.cli.Ping(ctx)
		if err != nil {
			return err
		}
		e.cli.NegotiateAPIVersionPing(ping)
		if v := e.cli.ClientVersion(); e.o.APIVersion == "" && versions.LessThan(v, minAPI) {
			return fmt.Errorf("the engine at %s speaks API %s at most, %s is needed (Docker 19.03 or newer); "+
				"set the API version explicitly to try all the same", e.o.Host, v, minAPI)
		}
		return nil
	})
}

// Capacity is part of provider.Provider.
func (e *Engine) Capacity(ctx context.Context) (provider.Capacity, error) {
	if err := e.ready(ctx); err != nil {
		return provider.Capacity{}, e.fail("read", "capacity", err)
	}
	info, err := e.cli.Info(ctx)
	if err != nil {
		return provider.Capacity{}, e.fail("read", "capacity", err)
	}
	total := resources.NewScalars(
		resources.Scalar{Name: "cpus", Amount: resources.Whole(int64(info.NCPU))},
		resources.Scalar{Name: "mem", Amount: resources.Whole(info.MemTotal >> 20)},
		resources.Scalar{Name: "disk", Amount: resources.Whole(DefaultDisk)},
	)
	for _, g := range e.o.Grant {
		total = total.Add(resources.Scalars{{Name: g.Name, Amount: g.Amount - total.Get(g.Name)}})
	}
	return provider.Capacity{Total: total}, nil
}

// Inspect is part of provider.Provider.
func (e *Engine) Inspect(ctx context.Context, id string) (provider.Container, error) {
	c, err := e.inspect(ctx, id)
	if err != nil {
		return c, e.fail("inspect", id, err)
	}
	return c, nil
}

// inspect also takes names.
func (e *Engine) inspect(ctx context.Context, id string) (provider.Container, error) {
	if err := e.ready(ctx); err != nil {
		return provider.Container{}, err
	}
	in, raw, err := e.cli.ContainerInspectWithRaw(ctx, id, false)
	if err != nil {
		return provider.Container{}, notFound(err)
	}
	return e.fromInspect(in, raw), nil
}

// taken is how long Stop waits for an answer. The engine answers only when the
// container has ended, but refuses at once.
const taken = 250 * time.Millisecond

// Stop is part of provider.Provider. Graces are rounded up to seconds.
func (e *Engine) Stop(ctx context.Context, id string, grace time.Duration) error {
	if err := e.ready(ctx); err != nil {
		return e.fail("stop", id, err)
	}
	select {
	case e.stops <- struct{}{}:
	case <-ctx.Done():
		return e.fail("stop", id, ctx.Err())
	}
	answer := make(chan error, 1)
	go func() {
		defer func() { <-e.stops }()
		answer <- e.stop(context.WithoutCancel(ctx), id, grace)
	}()
	select {
	case err := <-answer:
		return e.fail("stop", id, notFound(err))
	case <-ctx.Done():
		return e.fail("stop", id, ctx.Err())
	case <-time.After(taken):
		return nil
	}
}

// stop gives the order and waits for the end, in vain at most a minute more
// than the grace.
func (e *Engine) stop(ctx context.Context, id string, grace time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, grace+time.Minute)
	defer cancel()
	seconds := int((grace + time.Second - 1) / time.Second)
	return e.cli.ContainerStop(ctx, id, container.StopOptions{Timeout: &seconds})
}

// Remove is part of provider.Provider.
func (e *Engine) Remove(ctx context.Context, id string) error {
	err := e.ready(ctx)
	if err == nil {
		err = e.remove(ctx, id)
	}
	return e.fail("remove", id, err)
}

func (e *Engine) remove(ctx context.Context, id string) error {
	err := e.cli.ContainerRemove(ctx, id, container.RemoveOptions{RemoveVolumes: true})
	if errdefs.IsNotFound(err) || err != nil && strings.Contains(err.Error(), "already in progress") {
		return nil
	}
	return err
}

// fail adds the operation to an error, and what its reader can do about it.
func (e *Engine) fail(op, what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("docker: %s %s: %w", op, what, e.explain(err))
}

// notFound marks the engine's 404, and what Podman says while a container goes.
func notFound(err error) error {
	if errdefs.IsNotFound(err) || contains(err, "no such container") {
		return fmt.Errorf("%w: %s", provider.ErrNotFound, words(err))
	}
	return err
}
