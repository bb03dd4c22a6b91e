package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mesopool/mesopool/marathon"
	"github.com/mesopool/mesopool/marathon/autoscale"
)

// How a round of measuring is bounded. What was not measured in its time was not
// measured.
const (
	measureTime    = 20 * time.Second
	counterTime    = 5 * time.Second
	measureAtATime = 32
	mostStatistics = 64 << 20 // of an agent's answer
	mostPrefixes   = 50       // in a request
)

// measurement is a round under way.
type measurement struct {
	http *http.Client
	mu   sync.Mutex
	out  marathon.Measured
}

// measure makes a round of measuring: it asks each agent once, and each instance
// that tells its requests itself.
func (c *checker) measure(e marathon.Measure) func(context.Context) marathon.Input {
	return func(ctx context.Context) marathon.Input {
		ctx, cancel := context.WithTimeout(ctx, measureTime)
		defer cancel()
		m := &measurement{http: c.http, out: marathon.Measured{
			Round: e.Round, Usage: map[string]marathon.TaskUsage{}, Requests: map[string]autoscale.Count{}, Failed: map[string]string{},
		}}
		var g errgroup.Group
		g.SetLimit(measureAtATime)
		for i := range e.Agents {
			g.Go(func() error { m.agent(ctx, &e.Agents[i], e.Framework); return nil })
		}
		for i := range e.Counters {
			g.Go(func() error { m.counter(ctx, &e.Counters[i]); return nil })
		}
		g.Wait() // none fails: what goes wrong is in the answer
		return m.out
	}
}

func (m *measurement) agent(ctx context.Context, a *marathon.AgentToMeasure, framework string) {
	usage, err := m.usage(ctx, a, framework)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		m.out.Failed[a.ID] = err.Error()
		return
	}
	maps.Copy(m.out.Usage, usage)
}

func (m *measurement) counter(ctx context.Context, c *marathon.CounterToRead) {
	count, err := m.count(ctx, c)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		m.out.Failed[c.TaskID] = err.Error()
		return
	}
	m.out.Requests[c.TaskID] = count
}

// usage asks an agent what the tasks there use: GET /monitor/statistics
// (slave/http.cpp, Http::statistics). Our agent measures only what the query
// names; a genuine one takes no notice of it and tells of everything.
func (m *measurement) usage(ctx context.Context, a *marathon.AgentToMeasure, framework string) (map[string]marathon.TaskUsage, error) {
	q := url.Values{"framework_id": {framework}}
	if len(a.Prefixes) <= mostPrefixes {
		q["executor_prefix"] = a.Prefixes
	}
	body, err := m.get(ctx, strings.TrimRight(a.URL, "/")+"/monitor/statistics?"+q.Encode(), "application/json")
	if err != nil {
		return nil, err
	}
	defer body.Close()
	out, err := readStatistics(body, framework, a.Tasks)
	if err != nil {
		return nil, fmt.Errorf("the statistics of %s cannot be read: %w", a.URL, err)
	}
	return out, nil
}

// count reads an instance's counter.
func (m *measurement) count(ctx context.Context, c *marathon.CounterToRead) (autoscale.Count, error) {
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, publicKey{}, c.Public), counterTime)
	defer cancel()
	where := "http://" + c.Address + c.Path
	body, err := m.get(ctx, where, "text/plain; version=0.0.4")
	if err != nil {
		return autoscale.Count{}, err
	}
	defer body.Close()
	v, err := readCounter(body, c.Metric)
	if err != nil {
		return autoscale.Count{}, fmt.Errorf("%s: %w", where, err)
	}
	return autoscale.Count{At: time.Now(), Value: v}, nil
}

func (m *measurement) get(ctx context.Context, where, accept string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, where, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", accept)
	req.Header.Set("User-Agent", "mesopool-marathon/autoscale")
	resp, err := m.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("%s answered %s", where, resp.Status)
	}
	return resp.Body, nil
}

// statistics is one entry of /monitor/statistics; what an agent does not know is
// not there (mesos.proto, ResourceStatistics).
type statistics struct {
	Framework  string `json:"framework_id"`
	Executor   string `json:"executor_id"` // of a task without an executor of its own: the task's
	Statistics struct {
		Timestamp *float64 `json:"timestamp"` // seconds since 1970
		User      *float64 `json:"cpus_user_time_secs"`
		System    *float64 `json:"cpus_system_time_secs"`
		RSS       *float64 `json:"mem_rss_bytes"`
	} `json:"statistics"`
}

// readStatistics picks the tasks out of an agent's answer, entry by entry.
func readStatistics(r io.Reader, framework string, tasks map[string]bool) (map[string]marathon.TaskUsage, error) {
	limited := &io.LimitedReader{R: r, N: mostStatistics}
	out := map[string]marathon.TaskUsage{}
	err := readEntries(json.NewDecoder(limited), func(s *statistics) {
		if u, ok := s.usage(); ok && s.Framework == framework && tasks[s.Executor] {
			out[s.Executor] = u
		}
	})
	if err != nil && limited.N == 0 {
		return nil, fmt.Errorf("they are longer than %d MiB", mostStatistics>>20)
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

var errNoList = errors.New("they are no JSON array")

func readEntries(d *json.Decoder, take func(*statistics)) error {
	first, err := d.Token()
	if err != nil {
		return err
	}
	if first != json.Delim('[') {
		return errNoList
	}
	for d.More() {
		var s statistics
		if err := d.Decode(&s); err != nil {
			return err
		}
		take(&s)
	}
	_, err = d.Token()
	return err
}

// usage is false for what has no sensible time.
func (s *statistics) usage() (u marathon.TaskUsage, ok bool) {
	at := s.Statistics.Timestamp
	if at == nil || *at <= 0 || *at > math.MaxInt32*2 {
		return u, false
	}
	whole, part := math.Modf(*at)
	u.At = time.Unix(int64(whole), int64(part*float64(time.Second)))
	if user, system := s.Statistics.User, s.Statistics.System; user != nil && system != nil && *user >= 0 && *system >= 0 {
		u.CPU = new(*user + *system)
	}
	if rss := s.Statistics.RSS; rss != nil && *rss >= 0 {
		u.Mem = rss
	}
	return u, true
}
