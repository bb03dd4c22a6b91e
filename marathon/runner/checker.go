package runner

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/mesopool/mesopool/marathon"
)

// mostChecks is how many health checks are made at a time
// (--max_concurrent_marathon_health_checks).
const mostChecks = 256

// checker makes the health checks that the core asks for.
type checker struct {
	runner *Runner
	queue  chan func(context.Context) marathon.Input
	http   *http.Client
}

func newChecker(r *Runner) *checker {
	transport := &http.Transport{
		DialContext:       dial,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // as Marathon: HTTPS checks do not look at certificates
		DisableKeepAlives: true,
	}
	noRedirect := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &checker{runner: r, queue: make(chan func(context.Context) marathon.Input, 64*mostChecks), http: &http.Client{Transport: transport, CheckRedirect: noRedirect}}
}

// publicKey holds, in a check's context, where else its target may be.
type publicKey struct{}

// patience is how long the address in the cluster's network has for itself.
const patience = 300 * time.Millisecond

// dial connects to a container, or, where its network cannot be reached from
// here, to where its port is published.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	public, _ := ctx.Value(publicKey{}).(string)
	var d net.Dialer
	if public == "" {
		return d.DialContext(ctx, network, address)
	}
	first, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if conn, err := d.DialContext(first, network, address); err == nil {
		return conn, nil
	}
	return d.DialContext(ctx, network, public)
}

// put never blocks: a check for which there is no room is made the next time.
func (c *checker) put(check func(context.Context) marathon.Input) {
	select {
	case c.queue <- check:
	default:
	}
}

func (c *checker) run(ctx context.Context) error {
	slots := make(chan struct{}, mostChecks)
	for {
		select {
		case <-ctx.Done():
			return nil
		case check := <-c.queue:
			slots <- struct{}{}
			go func() {
				defer func() { <-slots }()
				if result := check(ctx); ctx.Err() == nil {
					c.runner.post(message{in: result})
				}
			}()
		}
	}
}

// health makes a health check.
func (c *checker) health(e marathon.Check) func(context.Context) marathon.Input {
	return func(ctx context.Context) marathon.Input {
		err := c.check(ctx, e)
		result := marathon.Checked{TaskID: e.TaskID, Index: e.Index, Alive: err == nil}
		if err != nil {
			result.Cause = err.Error()
		}
		return result
	}
}

// mostAnswer is how much of an answer is read.
const mostAnswer = 4096

// ready makes a readiness check.
func (c *checker) ready(e marathon.CheckReady) func(context.Context) marathon.Input {
	return func(ctx context.Context) marathon.Input {
		ctx, cancel := context.WithTimeout(context.WithValue(ctx, publicKey{}, e.Public), e.Timeout)
		defer cancel()
		out := marathon.CheckedReady{TaskID: e.TaskID}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.URL, nil)
		if err != nil {
			return out
		}
		resp, err := c.http.Do(req)
		if err != nil {
			return out
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, mostAnswer)) // what there is of it
		out.ReadinessResponse = marathon.ReadinessResponse{Status: resp.StatusCode, ContentType: resp.Header.Get("Content-Type"), Body: string(text)}
		return out
	}
}

func (c *checker) check(ctx context.Context, e marathon.Check) error {
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, publicKey{}, e.Public), e.Timeout)
	defer cancel()
	if e.Kind == "TCP" {
		conn, err := dial(ctx, "tcp", e.Address)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.ToLower(e.Kind)+"://"+e.Address+"/"+strings.TrimPrefix(e.Path, "/"), nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "mesopool-marathon/health-check")
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 399 {
		return fmt.Errorf("%s answered %s", req.URL, resp.Status)
	}
	return nil
}
