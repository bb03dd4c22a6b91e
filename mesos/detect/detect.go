package detect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mesopool/mesopool/mesos/libprocess"
)

// Options are what the text of --master does not say.
type Options struct {
	Scheme      string        // of masters that are asked: http or https; empty: http
	HTTP        *http.Client  // asks masters and Consul; nil: one with Timeout
	ConsulToken string        // for consul://
	Timeout     time.Duration // of one question; 0: 5s
}

// finder finds the leader's host:port; the host may be a name.
type finder interface {
	find(ctx context.Context) (string, error)
	io.Closer
}

// Detector finds the leading master, each time it is asked. Its methods may be
// called from any goroutine.
type Detector struct {
	finder
	timeout time.Duration
}

// New reads the text. An error says what is wrong with it.
func New(text string, o Options) (*Detector, error) {
	if o.Timeout <= 0 {
		o.Timeout = 5 * time.Second
	}
	if o.Scheme == "" {
		o.Scheme = "http"
	}
	if o.HTTP == nil {
		o.HTTP = &http.Client{Timeout: o.Timeout, Transport: &http.Transport{DisableKeepAlives: true}}
	}
	f, err := parse(strings.TrimSpace(text), o)
	if err != nil {
		return nil, err
	}
	return &Detector{f, o.Timeout}, nil
}

func parse(text string, o Options) (finder, error) {
	scheme, rest, ok := strings.Cut(text, "://")
	switch {
	case !ok:
		return parseList(text, o)
	case scheme == "zk":
		return parseZooKeeper(rest, o)
	case scheme == "consul":
		return parseConsul(rest, o)
	case scheme == "file":
		return parseFile(rest, o)
	}
	return nil, fmt.Errorf("detect: %q is no way to find a master; write host:port, a list of those, file:///path, zk://host:2181/path or consul://host:8500/mesos", text)
}

// Address returns the leader's host:port.
func (d *Detector) Address(ctx context.Context) (string, error) { return d.find(ctx) }

// UPID returns the leader's actor.
func (d *Detector) UPID(ctx context.Context) (libprocess.UPID, error) {
	address, err := d.find(ctx)
	if err != nil {
		return libprocess.UPID{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	at, err := resolve(ctx, address)
	return libprocess.UPID{ID: "master", Addr: at}, err
}

// resolve looks up the host of host:port; it prefers IPv4, as Mesos does.
func resolve(ctx context.Context, address string) (netip.AddrPort, error) {
	if at, err := netip.ParseAddrPort(address); err == nil {
		return netip.AddrPortFrom(at.Addr().Unmap(), at.Port()), nil
	}
	host, port, err := splitAddress(address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	var found []netip.Addr
	for _, network := range []string{"ip4", "ip"} {
		if found, err = net.DefaultResolver.LookupNetIP(ctx, network, host); err == nil && len(found) > 0 {
			return netip.AddrPortFrom(found[0].Unmap(), port), nil
		}
	}
	return netip.AddrPort{}, fmt.Errorf("detect: the master's name %q has no address: %w", host, err)
}

func splitAddress(address string) (string, uint16, error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil || host == "" {
		return "", 0, fmt.Errorf("detect: %q is no master's address; it must be host:port, as in 10.0.0.1:5050", address)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return "", 0, fmt.Errorf("detect: the port of %q must be from 1 to 65535", address)
	}
	return host, uint16(port), nil
}

// list is some masters, of which any knows the leader. A single one is taken at
// its word.
type list struct {
	addresses []string
	scheme    string
	client    *http.Client
}

func parseList(text string, o Options) (*list, error) {
	out := &list{scheme: o.Scheme, client: noRedirects(o.HTTP)}
	for a := range strings.SplitSeq(text, ",") {
		a = strings.TrimPrefix(strings.TrimSpace(a), "master@")
		if _, _, err := splitAddress(a); err != nil {
			return nil, err
		}
		out.addresses = append(out.addresses, a)
	}
	return out, nil
}

func noRedirects(c *http.Client) *http.Client {
	asking := *c
	asking.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &asking
}

func (l *list) Close() error { return nil }

func (l *list) find(ctx context.Context) (string, error) {
	if len(l.addresses) == 1 {
		return l.addresses[0], nil
	}
	var problems []error
	for _, a := range l.addresses {
		leader, err := l.ask(ctx, a)
		if err == nil {
			return leader, nil
		}
		problems = append(problems, err)
	}
	return "", fmt.Errorf("detect: no master answers: %w", errors.Join(problems...))
}

// ask a master who leads: it redirects there, also when it leads itself. One
// that knows no such question is taken for the leader.
func (l *list) ask(ctx context.Context, address string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.scheme+"://"+address+"/redirect", nil)
	if err != nil {
		return "", err
	}
	resp, err := l.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusServiceUnavailable:
		return "", fmt.Errorf("%s knows no leader", address)
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		return redirected(resp)
	}
	return address, nil
}

func redirected(resp *http.Response) (string, error) {
	to, err := url.Parse(resp.Header.Get("Location"))
	if err == nil {
		_, _, err = splitAddress(to.Host)
	}
	if err != nil {
		return "", fmt.Errorf("%s redirects to %q, which names no master", resp.Request.URL.Host, resp.Header.Get("Location"))
	}
	return to.Host, nil
}

// file holds any of the other forms, and may change.
type file struct {
	path string
	o    Options

	mu    sync.Mutex
	text  string
	inner finder
}

func parseFile(rest string, o Options) (*file, error) {
	if !strings.HasPrefix(rest, "/") {
		return nil, fmt.Errorf("detect: file://%s must have three slashes and an absolute path, as in file:///etc/mesos/zk", rest)
	}
	return &file{path: rest, o: o}, nil
}

func (f *file) find(ctx context.Context) (string, error) {
	inner, err := f.read()
	if err != nil {
		return "", err
	}
	return inner.find(ctx)
}

func (f *file) read() (finder, error) {
	raw, err := os.ReadFile(f.path)
	if err != nil {
		return nil, fmt.Errorf("detect: %w", err)
	}
	text := strings.TrimSpace(string(raw))
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.inner != nil && text == f.text {
		return f.inner, nil
	}
	if strings.HasPrefix(text, "file:") {
		return nil, fmt.Errorf("detect: %s names another file; it must name masters", f.path)
	}
	inner, err := parse(text, f.o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.path, err)
	}
	if f.inner != nil {
		f.inner.Close()
	}
	f.text, f.inner = text, inner
	return inner, nil
}

func (f *file) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.inner == nil {
		return nil
	}
	return f.inner.Close()
}
