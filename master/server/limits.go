package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"sync/atomic"

	"golang.org/x/time/rate"
)

// Limits bound how fast frameworks may call, by principal. Nil bounds nothing.
// It may be used from any goroutine.
type Limits struct {
	of     map[string]*limit // nil: this principal is not limited
	others *limit            // shared by all that are not named; nil: they are not limited
}

// limit lets so many calls through a second, evenly; of those that must wait no
// more than capacity do (master.cpp, BoundedRateLimiter).
type limit struct {
	pace     *rate.Limiter
	capacity uint64
	waiting  atomic.Int64
}

// ParseLimits reads Mesos' --rate_limits: {"limits": [{"principal": "…", "qps":
// 10, "capacity": 100}], "aggregate_default_qps": 5, "aggregate_default_capacity":
// 50}. Without a qps nothing is limited, without a capacity any number may wait.
func ParseLimits(text []byte) (*Limits, error) {
	var in struct {
		Limits []struct {
			Principal *string  `json:"principal"`
			QPS       *float64 `json:"qps"`
			Capacity  *uint64  `json:"capacity"`
		} `json:"limits"`
		DefaultQPS      *float64 `json:"aggregate_default_qps"`
		DefaultCapacity *uint64  `json:"aggregate_default_capacity"`
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return nil, fmt.Errorf("rate limits: %w", err)
	}
	out := &Limits{of: map[string]*limit{}}
	var err error
	for i, l := range in.Limits {
		if l.Principal == nil {
			return nil, fmt.Errorf("rate limits: limits[%d] has no principal", i)
		}
		if _, twice := out.of[*l.Principal]; twice {
			return nil, fmt.Errorf("rate limits: Duplicate principal %s found in RateLimits configuration", *l.Principal)
		}
		if out.of[*l.Principal], err = newLimit(l.QPS, l.Capacity); err != nil {
			return nil, fmt.Errorf("rate limits: limits[%d]: %w", i, err)
		}
	}
	if out.others, err = newLimit(in.DefaultQPS, in.DefaultCapacity); err != nil {
		return nil, fmt.Errorf("rate limits: aggregate_default_qps: %w", err)
	}
	return out, nil
}

func newLimit(qps *float64, capacity *uint64) (*limit, error) {
	if qps == nil {
		return nil, nil
	}
	if *qps <= 0 {
		return nil, fmt.Errorf("invalid qps %v: it must be a positive number", *qps)
	}
	l := &limit{pace: rate.NewLimiter(rate.Limit(*qps), 1), capacity: math.MaxInt64}
	if capacity != nil {
		l.capacity = min(*capacity, math.MaxInt64)
	}
	return l, nil
}

// admit waits until a call of a principal may go through. An error says that too
// many wait already, or that the caller has left.
func (l *Limits) admit(ctx context.Context, principal string) error {
	if l == nil {
		return nil
	}
	one, named := l.of[principal]
	if !named || principal == "" {
		one = l.others
	}
	if one == nil {
		return nil
	}
	return one.admit(ctx)
}

func (l *limit) admit(ctx context.Context) error {
	if n := l.waiting.Add(1); uint64(n) > l.capacity {
		l.waiting.Add(-1)
		return failf(http.StatusTooManyRequests, "Message mesos.scheduler.Call dropped: capacity(%d) exceeded", l.capacity)
	}
	defer l.waiting.Add(-1)
	if err := l.pace.Wait(ctx); err != nil {
		return failf(http.StatusServiceUnavailable, "%v", errors.Join(errors.New("the call has waited in vain for its turn"), err))
	}
	return nil
}
