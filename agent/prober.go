package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

// prober makes health probes, a bounded number at a time.
type prober struct {
	exec   provider.Execer // nil: commands fail
	client *http.Client

	mu      sync.Mutex
	ready   sync.Cond
	waiting []Probe
	closed  bool
}

func newProber(p provider.Provider) *prober {
	q := &prober{client: probeClient()}
	q.exec, _ = provider.As[provider.Execer](p)
	q.ready.L = &q.mu
	return q
}

// probeClient follows no redirects, which are healthy as they are, and checks no
// certificates, as Mesos does (checks/checker_process.cpp: curl -k).
func probeClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func (q *prober) put(p Probe) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = append(q.waiting, p)
	q.ready.Signal()
}

func (q *prober) get() (Probe, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.closed {
		if p, ok := pop(&q.waiting); ok {
			return p, true
		}
		q.ready.Wait()
	}
	return Probe{}, false
}

func (q *prober) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.ready.Broadcast()
}

// work answers probes until the queue is closed.
func (q *prober) work(ctx context.Context, answer func(Input)) {
	for {
		p, ok := q.get()
		if !ok {
			return
		}
		in := q.probe(ctx, p)
		if ctx.Err() != nil {
			return
		}
		answer(in)
	}
}

func (q *prober) probe(ctx context.Context, p Probe) Probed {
	limited := ctx
	if p.Check.Timeout > 0 {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeout(ctx, p.Check.Timeout)
		defer cancel()
	}
	value, err := q.check(limited, p)
	in := Probed{Key: p.Key, ID: p.ID, Healthy: err == nil}
	switch {
	case err == nil:
	case errors.Is(limited.Err(), context.DeadlineExceeded):
		in.Cause, value = fmt.Sprintf("no answer within %v", p.Check.Timeout), nil
	default:
		in.Cause = err.Error()
	}
	if p.General {
		in.Check = &task.CheckStatus{Type: p.Check.Type, Value: value}
	}
	return in
}

// check returns what a check is after, nil if it could not be had, and why that
// is not healthy.
func (q *prober) check(ctx context.Context, p Probe) (*int32, error) {
	switch {
	case p.Check.Type == task.CheckCommand:
		return q.command(ctx, p)
	case p.Address == "":
		return nil, errors.New("the container has no address to check")
	case p.Check.Type == task.CheckTCP:
		err := connect(ctx, p.Address)
		if err != nil {
			return new(int32(0)), err
		}
		return new(int32(1)), nil
	}
	return q.http(ctx, p)
}

// command runs the check in the container. A backend that does not return in
// time is not waited for.
func (q *prober) command(ctx context.Context, p Probe) (*int32, error) {
	if q.exec == nil {
		return nil, errors.New("this agent's backend cannot run commands in a container")
	}
	type result struct {
		code int
		err  error
	}
	answer, out := make(chan result, 1), &head{most: 200}
	go func() {
		code, err := q.exec.Exec(ctx, p.ID, provider.ExecOptions{Argv: argv(p.Check.Command), User: p.Check.User, Env: env(p.Check.Env), Stdout: out, Stderr: out})
		answer <- result{code, err}
	}()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case r := <-answer:
		if r.err != nil {
			return nil, r.err
		}
		code := int32(r.code)
		if code == 0 {
			return &code, nil
		}
		return &code, fmt.Errorf("the command exited with status %d%s", r.code, out.text())
	}
}

func argv(c task.Command) []string {
	switch {
	case c.Shell:
		return []string{"/bin/sh", "-c", c.Value}
	case c.Value == "":
		return c.Args
	}
	return append([]string{c.Value}, c.Args...)
}

func env(list []task.Label) (out []string) {
	for _, v := range list {
		out = append(out, v.Key+"="+v.Value)
	}
	return out
}

// head keeps the beginning of what is written.
type head struct {
	most int
	mu   sync.Mutex
	b    []byte
}

func (h *head) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.b = append(h.b, p[:min(len(p), h.most-len(h.b))]...)
	return len(p), nil
}

func (h *head) text() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	text := strings.TrimSpace(strings.ToValidUTF8(string(h.b), "?"))
	if text != "" {
		text = ": " + text
	}
	return text
}

func connect(ctx context.Context, address string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// http asks the container by HTTP: 200 to 399 is healthy.
func (q *prober) http(ctx context.Context, p Probe) (*int32, error) {
	scheme, path := p.Check.Scheme, p.Check.Path
	if scheme == "" {
		scheme = "http"
	}
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+p.Address+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := q.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	io.CopyN(io.Discard, resp.Body, 4096)
	status := int32(resp.StatusCode)
	if resp.StatusCode < 200 || resp.StatusCode > 399 {
		return &status, fmt.Errorf("%s answered %s", req.URL, resp.Status)
	}
	return &status, nil
}
