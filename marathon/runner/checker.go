package runner

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/mesopool/mesopool/marathon"
)

// mostChecks is how many health checks are made at a time
// (--max_concurrent_marathon_health_checks).
const mostChecks = 256

// checker makes the health checks that the core asks for.
type checker struct {
	runner *Runner
	queue  chan marathon.Check
	http   *http.Client
}

func newChecker(r *Runner) *checker {
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // as Marathon: HTTPS checks do not look at certificates
		DisableKeepAlives: true,
	}
	noRedirect := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &checker{runner: r, queue: make(chan marathon.Check, 64*mostChecks), http: &http.Client{Transport: transport, CheckRedirect: noRedirect}}
}

// put never blocks: a check for which there is no room is made the next time.
func (c *checker) put(e marathon.Check) {
	select {
	case c.queue <- e:
	default:
	}
}

func (c *checker) run(ctx context.Context) error {
	slots := make(chan struct{}, mostChecks)
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-c.queue:
			slots <- struct{}{}
			go func() {
				defer func() { <-slots }()
				err := c.check(ctx, e)
				if ctx.Err() != nil {
					return
				}
				result := marathon.Checked{TaskID: e.TaskID, Index: e.Index, Alive: err == nil}
				if err != nil {
					result.Cause = err.Error()
				}
				c.runner.post(message{in: result})
			}()
		}
	}
}

func (c *checker) check(ctx context.Context, e marathon.Check) error {
	ctx, cancel := context.WithTimeout(ctx, e.Timeout)
	defer cancel()
	if e.Kind == "TCP" {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", e.Address)
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
