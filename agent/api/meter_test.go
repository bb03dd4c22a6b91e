package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

// counting is a backend that counts how often each container is measured.
type counting struct {
	*shell
	mu     sync.Mutex
	times  map[string]int
	now    int
	most   int
	broken map[string]bool
	wait   time.Duration
}

func (c *counting) Stats(ctx context.Context, id string) (provider.Stats, error) {
	c.mu.Lock()
	c.times[id]++
	c.now++
	c.most = max(c.most, c.now)
	n, broken := c.times[id], c.broken[id]
	c.mu.Unlock()
	defer func() { c.mu.Lock(); c.now--; c.mu.Unlock() }()
	select {
	case <-time.After(c.wait):
	case <-ctx.Done():
		return provider.Stats{}, ctx.Err()
	}
	if broken {
		return provider.Stats{}, errors.New("the engine is not there")
	}
	return provider.Stats{UserCPU: time.Duration(n) * time.Second}, nil
}

// Whoever asks, and however many: a container is measured once a second, so many
// at a time, and what failed is asked again.
func TestMeterMeasuresOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counting{times: map[string]int{}, broken: map[string]bool{"c7": true}, wait: 10 * time.Millisecond}
		m := newMeter(c)
		begun := time.Now()
		round := func() (failed int) {
			var mu sync.Mutex
			var wait sync.WaitGroup
			for n := range 3 * 50 {
				wait.Go(func() {
					if s, err := m.stats(t.Context(), fmt.Sprint("c", n%50)); err != nil {
						mu.Lock()
						failed++
						mu.Unlock()
					} else if s.Time.Before(begun) {
						t.Errorf("measured at %v", s.Time)
					}
				})
			}
			wait.Wait()
			return failed
		}
		if failed := round(); failed == 0 || failed > 3 {
			t.Errorf("%d failed", failed)
		}
		time.Sleep(statsFresh / 2)
		round()
		if c.times["c0"] != 1 || c.times["c49"] != 1 || c.times["c7"] < 2 || c.most != statsAtATime {
			t.Errorf("measured %v, %d at a time", c.times, c.most)
		}
		if s, err := m.stats(t.Context(), "c0"); err != nil || s.UserCPU != time.Second || s.Time.After(begun.Add(statsFresh/2)) {
			t.Errorf("%+v, %v: not what was measured before", s, err)
		}
		time.Sleep(statsFresh)
		if s, err := m.stats(t.Context(), "c0"); err != nil || s.UserCPU != 2*time.Second {
			t.Errorf("%+v, %v: not measured again", s, err)
		}
		if len(m.known) != 1 {
			t.Errorf("%d readings are kept", len(m.known))
		}
		c.wait = time.Hour
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := m.stats(ctx, "c1"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a backend without an answer: %v", err)
		}
	})
}

// What a backend does not know is not told as 0.
func TestUnknownStatistics(t *testing.T) {
	var some, none mesosv1.ResourceStatistics
	measure(&some, &provider.Stats{SystemCPU: time.Millisecond, MemUsed: 1})
	measure(&none, &provider.Stats{Processes: 1})
	if some.CpusUserTimeSecs == nil || some.CpusSystemTimeSecs == nil || some.MemRssBytes == nil {
		t.Errorf("what is known: %v", &some)
	}
	if none.CpusUserTimeSecs != nil || none.CpusSystemTimeSecs != nil || none.MemRssBytes != nil || none.MemTotalBytes != nil {
		t.Errorf("what is not known: %v", &none)
	}
}

// Only what is asked for is measured; a container that cannot be has its limits.
func TestStatisticsOfSome(t *testing.T) {
	c := &counting{times: map[string]int{}, broken: map[string]bool{}}
	e := newEnv(t, func(s *shell) provider.Provider { c.shell = s; return c })
	for _, id := range []string{"web.instance-1", "web.instance-2", "db.instance-1"} {
		e.launch(id, "sleep infinity", "web:1", task.Running)
	}
	for query, want := range map[string][]string{
		"?framework_id=f1&executor_prefix=web.instance-": {"web.instance-1", "web.instance-2"},
		"?executor_prefix=web.instance-2":                {"web.instance-2"},
		"?executor_prefix=db.&executor_prefix=none":      {"db.instance-1"},
		"?framework_id=f2":                               nil,
		"?framework_id=f1":                               {"db.instance-1", "web.instance-1", "web.instance-2"},
		"":                                               {"db.instance-1", "web.instance-1", "web.instance-2"},
		"?jsonp=":                                        {"db.instance-1", "web.instance-1", "web.instance-2"},
	} {
		c.mu.Lock()
		clear(c.times)
		c.mu.Unlock()
		var got []string
		for _, x := range decode[[]struct {
			ID         string             `json:"executor_id"`
			Statistics map[string]float64 `json:"statistics"`
		}](t, e.get("/slave(1)/monitor/statistics"+query, 200)) {
			got = append(got, x.ID)
			if x.Statistics["cpus_user_time_secs"] == 0 || x.Statistics["cpus_limit"] == 0 || x.Statistics["timestamp"] == 0 {
				t.Errorf("%s: %+v", query, x)
			}
		}
		slices.Sort(got)
		diff(t, query, want, got)
		if len(c.times) > len(want) {
			t.Errorf("%s: measured %v", query, c.times)
		}
	}
	broken := &counting{times: map[string]int{}, broken: map[string]bool{"000000000001": true}}
	e = newEnv(t, func(s *shell) provider.Provider { broken.shell = s; return broken })
	e.launch("t1", "sleep infinity", "web:1", task.Running)
	got := decode[[]struct{ Statistics map[string]float64 }](t, e.get("/monitor/statistics", 200))
	if _, told := got[0].Statistics["cpus_user_time_secs"]; told || got[0].Statistics["cpus_limit"] == 0 {
		t.Errorf("what was not measured: %+v", got)
	}
}
