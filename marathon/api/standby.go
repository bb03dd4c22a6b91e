package api

import (
	"log/slog"
	"net/http"

	"github.com/mesopool/mesopool/internal/standby"
)

// headerVia is where standbys sign (LeaderProxyFilter.scala).
const headerVia = "X-Marathon-Via"

// NewStandby returns what answers for a Marathon while it does not lead: /ping,
// /v2/info, /v2/leader and /metrics of itself, and the leader all else. Its Lead
// is given an API when this one leads. cfg needs no Runner and no Pages; leader
// returns the host:port of who leads, "" while nobody does.
func NewStandby(cfg Config, leader func() string, log *slog.Logger) *standby.Handler {
	s := &follower{cfg, leader}
	return standby.New(standby.Config{Self: cfg.Address, Leader: leader, Via: headerVia, Own: s.own, Fail: fail, Log: log})
}

type follower struct {
	cfg    Config
	leader func() string
}

// own answers what is about this process.
func (s *follower) own(w http.ResponseWriter, r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	about := map[string]func(http.ResponseWriter) error{"/ping": pong, "/metrics": s.metrics, "/v2/info": s.info, "/v2/leader": s.leading}[r.URL.Path]
	if about == nil {
		return false
	}
	commonHeader(w.Header(), s.other())
	if err := about(w); err != nil {
		writeError(w, err)
	}
	return true
}

// other is who leads in this one's place. While this one begins to lead it is
// nobody.
func (s *follower) other() string {
	if at := s.leader(); at != s.cfg.Address {
		return at
	}
	return ""
}

func (s *follower) info(w http.ResponseWriter) error {
	out := s.cfg.about(s.other())
	out["marathon_config"].(map[string]any)["ha"] = true
	return answer(w, http.StatusOK, out)
}

func (s *follower) leading(w http.ResponseWriter) error {
	if at := s.other(); at != "" {
		return answer(w, http.StatusOK, map[string]string{"leader": at})
	}
	return missing("There is no leader")
}

// metrics has no gauges: there are no apps and tasks where nobody leads.
func (s *follower) metrics(w http.ResponseWriter) error {
	return answer(w, http.StatusOK, map[string]any{
		"version": "3.0.0", "counters": map[string]any{}, "histograms": map[string]any{}, "meters": map[string]any{}, "timers": map[string]any{},
		"gauges": map[string]any{"mesopool.marathon.leads": map[string]int{"value": 0}},
	})
}
