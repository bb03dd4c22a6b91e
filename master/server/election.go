package server

import (
	"context"
	"net/http"

	"github.com/mesopool/mesopool/mesos/mesosjson"
)

// Election decides which of several masters leads. Only that one serves; all
// others drop messages, and send HTTP requests to it.
type Election interface {
	// Run contends with the master's description, a MasterInfo as JSON, until ctx
	// ends, and calls elected once when this master leads. It returns an error when
	// it leads no longer, and nil when ctx ends.
	Run(ctx context.Context, info []byte, elected func()) error

	// Leader returns the host:port of the master that leads, "" while none is
	// known. It may be called at any time.
	Leader() string
}

// Leading returns a channel that is closed when this master leads and has
// recovered.
func (s *Server) Leading() <-chan struct{} { return s.leading }

func (s *Server) leads() bool {
	if s.cfg.Election == nil {
		return true // nobody is served before it has recovered
	}
	select {
	case <-s.leading:
		return true
	default:
		return false
	}
}

// awaitElection returns when this master leads, or when ctx ends.
func (s *Server) awaitElection(ctx context.Context, begin func(func() error)) error {
	elected := make(chan struct{})
	begin(func() error { return s.cfg.Election.Run(ctx, mesosjson.Marshal(s.self), func() { close(elected) }) })
	select {
	case <-elected:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// aboutItself is what every master answers by itself. There is nothing in the
// cluster of one that follows.
var aboutItself = map[string]bool{"/health": true, "/version": true, "/flags": true, "/metrics": true, "/metrics/snapshot": true}

// whileFollowing answers for a master that does not lead (yet): in its place
// the leader does (master/http.cpp, redirect).
func (s *Server) whileFollowing(w http.ResponseWriter, r *http.Request) {
	leader := s.cfg.Election.Leader()
	switch path := plainPath(r.URL.Path); {
	case leader == "" || leader == s.UPID().Addr.String():
		answerError(w, failf(http.StatusServiceUnavailable, "No leader elected"))
	case path == "/redirect":
		w.Header().Set("Location", "//"+leader)
		w.WriteHeader(http.StatusTemporaryRedirect)
	default:
		w.Header().Set("Location", "//"+leader+r.URL.RequestURI())
		w.WriteHeader(http.StatusTemporaryRedirect)
	}
}
