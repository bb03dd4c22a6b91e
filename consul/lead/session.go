package lead

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/hashicorp/consul/api"
)

// The reasons why somebody leads no longer.
var (
	// ErrDeposed is in every error that comes of not leading (any more).
	ErrDeposed = errors.New("this process leads no longer")

	errSilent   = fmt.Errorf("%w: Consul has not renewed the session in time", ErrDeposed)
	errGone     = fmt.Errorf("%w: Consul has ended the session", ErrDeposed)
	errTaken    = fmt.Errorf("%w: the lock was taken away", ErrDeposed)
	errResigned = fmt.Errorf("%w: it has resigned", ErrDeposed)
)

// session is one of Consul's, renewed until close. Its context ends, with the
// reason, when it may be over.
type session struct {
	id     string
	client *api.Client
	ttl    time.Duration
	lease  *lease
	log    *slog.Logger
	ctx    context.Context
	end    context.CancelCauseFunc
	kept   chan struct{} // closed when nobody renews it any more
}

// newSession makes a session that outlives ctx: what is wound down after the end
// of ctx is still led. One whose making had no answer ends by itself.
func (e *Election) newSession(ctx context.Context) (*session, error) {
	asked := time.Now()
	c, cancel := context.WithTimeout(ctx, e.cfg.TTL/2)
	defer cancel()
	// No checks: that Consul's agent restarts is no reason to lead no longer.
	id, _, err := e.client.Session().CreateNoChecks(&api.SessionEntry{
		Name: e.cfg.Name, TTL: e.cfg.TTL.String(), LockDelay: e.cfg.TTL, Behavior: api.SessionBehaviorRelease,
	}, new(api.WriteOptions).WithContext(c))
	if err != nil {
		return nil, fmt.Errorf("make a session: %w", err)
	}
	s := &session{id: id, client: e.client, ttl: e.cfg.TTL, log: e.log, kept: make(chan struct{})}
	s.ctx, s.end = context.WithCancelCause(context.WithoutCancel(ctx))
	// Consul ends a session no earlier than its TTL after the last renewal, and the
	// lock's delay, as long, protects from what ends it before. The last fifth is
	// for winding down.
	s.lease = newLease(s.ttl*4/5, asked, func() { s.end(errSilent) })
	go s.keep()
	return s, nil
}

// keep renews the session until it is over.
func (s *session) keep() {
	defer close(s.kept)
	pause := s.ttl / 4
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(pause):
		}
		if pause = s.ttl / 4; !s.renew() {
			pause = s.ttl / 20
		}
	}
}

// renew says whether Consul has answered.
func (s *session) renew() bool {
	asked := time.Now()
	c, cancel := context.WithTimeout(s.ctx, s.ttl/4)
	defer cancel()
	entry, _, err := s.client.Session().Renew(s.id, new(api.WriteOptions).WithContext(c))
	switch {
	case s.ctx.Err() != nil:
	case err != nil:
		s.log.Warn("the session was not renewed; trying again", "error", err)
		return false
	case entry == nil:
		s.end(errGone)
	default:
		s.lease.extend(asked)
	}
	return true
}

// check returns nil while the session is surely ours.
func (s *session) check() error {
	if err := context.Cause(s.ctx); err != nil {
		return err
	}
	if !s.lease.holds() {
		s.end(errSilent)
		return errSilent
	}
	return nil
}

// close ends the session, and frees its lock at once if it holds it. What Consul
// does not hear of ends by itself.
func (s *session) close(lock string) {
	s.lease.stop()
	held := context.Cause(s.ctx) == nil
	s.end(ErrDeposed)
	<-s.kept
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), goodbye)
	defer cancel()
	o := new(api.WriteOptions).WithContext(ctx)
	if held { // the end of a session that holds the lock would delay the next leader
		if _, _, err := s.client.KV().Release(&api.KVPair{Key: lock, Session: s.id}, o); err != nil {
			s.log.Warn("the lock was not released; others wait until the session is over", "error", err)
		}
	}
	if _, err := s.client.Session().Destroy(s.id, o); err != nil {
		s.log.Debug("the session ends by itself", "error", err)
	}
}

// goodbye is how long the end of a session may take.
const goodbye = 3 * time.Second
