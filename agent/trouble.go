package agent

import (
	"context"
	"errors"
	"net"
	"slices"
	"time"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

// maxTroubles bounds how many messages a framework gets about one launch:
// some backends put a new number into each.
const maxTroubles = 8

// overdue says why a launch that has failed again is given up, "" if it is not.
func (c *Core) overdue(now time.Time, r *row, err error) string {
	if !answered(err) {
		r.rare().failing = time.Time{}
	} else if r.failing.IsZero() {
		r.rare().failing = now
	}
	switch retry := c.cfg.LaunchRetry; {
	case r.Stop:
		return ""
	case now.Sub(r.Since) >= c.cfg.LaunchTimeout:
		return "no success within " + c.cfg.LaunchTimeout.String() + ": " + err.Error()
	case retry > 0 && !r.failing.IsZero() && now.Sub(r.failing) >= retry:
		return "the backend has failed each time for " + retry.String() + ": " + err.Error()
	}
	return ""
}

// answered says whether the backend has spoken and it was a failure: neither a
// call for patience, nor a denial, nor silence.
func answered(err error) bool {
	var none net.Error
	switch {
	case errors.Is(err, provider.ErrThrottle), errors.Is(err, provider.ErrDenied):
		return false
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return false
	}
	return !errors.As(err, &none)
}

// trouble tells the framework why its task does not start yet: each message
// once.
func (c *Core) trouble(now time.Time, r *row, err error, fx []Effect) []Effect {
	text := err.Error()
	if r.Stop || len(r.troubles) >= maxTroubles || slices.Contains(r.troubles, text) {
		return fx
	}
	r.rare().troubles = append(r.troubles, text)
	return c.repeat(now, r, task.Status{
		State: task.Starting, Source: task.SourceExecutor, Message: "not started yet, trying again: " + text,
	}, fx)
}
