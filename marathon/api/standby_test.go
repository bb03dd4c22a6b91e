package api

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// What a standby answers for itself, and what it leaves to the leader.
func TestStandby(t *testing.T) {
	asked := make(chan string, 10)
	leader := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Method + " " + r.URL.Path
		io.WriteString(w, "of the leader")
	}))
	defer leader.Close()
	at := leader.Listener.Addr().String()
	for _, x := range []struct {
		leader, method, path string
		code                 int
		want                 string
	}{
		{at, "GET", "/ping", 200, "pong"},
		{at, "GET", "/v2/leader", 200, `{"leader":"` + at + `"}`},
		{at, "GET", "/v2/info", 200, `"elected":false`},
		{at, "GET", "/v2/info", 200, `"ha":true`},
		{at, "GET", "/v2/info", 200, `"leader":"` + at + `"`},
		{at, "GET", "/metrics", 200, `"mesopool.marathon.leads":{"value":0}`},
		{at, "GET", "/v2/apps", 200, "of the leader"},
		{at, "DELETE", "/v2/leader", 200, "of the leader"},
		{at, "GET", "/", 200, "of the leader"},
		{"", "GET", "/ping", 200, "pong"},
		{"", "GET", "/v2/leader", 404, `"There is no leader"`},
		{"me:1", "GET", "/v2/leader", 404, `"There is no leader"`},
	} {
		s := NewStandby(Config{Address: "me:1"}, func() string { return x.leader }, slog.New(slog.DiscardHandler))
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest(x.method, x.path, nil))
		if w.Code != x.code || !strings.Contains(w.Body.String(), x.want) {
			t.Errorf("%+v: %d %s", x, w.Code, w.Body)
		}
		if x.leader == at && strings.HasPrefix(x.path, "/v2/info") && w.Header().Get("X-Marathon-Leader") != "http://"+at {
			t.Errorf("%s: %v", x.path, w.Header())
		}
	}
	close(asked)
	var got []string
	for a := range asked {
		got = append(got, a)
	}
	if text := strings.Join(got, ", "); text != "GET /v2/apps, DELETE /v2/leader, GET /" {
		t.Errorf("the leader was asked: %s", text)
	}
}

// Nobody leads: a request waits a while, and is told so in Marathon's words.
func TestNobodyLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStandby(Config{Address: "me:1"}, func() string { return "me:1" }, slog.New(slog.DiscardHandler))
		w, begin := httptest.NewRecorder(), time.Now()
		s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v2/apps", nil))
		if w.Code != 503 || w.Body.String() != `{"message":"Could not determine the current leader"}` || time.Since(begin) != 2500*time.Millisecond {
			t.Errorf("%d %s after %s", w.Code, w.Body, time.Since(begin))
		}
	})
}

func TestAbdicate(t *testing.T) {
	s := newSite(t)
	s.want("DELETE", "/v2/leader", "", 405, "")
	left := make(chan bool, 1)
	a := New(Config{Runner: s.r, Address: "me:1", Abdicate: func() { left <- true }})
	w := httptest.NewRecorder()
	a.ServeHTTP(w, httptest.NewRequest(http.MethodDelete, "/v2/leader", nil))
	if w.Code != 200 || !strings.Contains(w.Body.String(), "Leadership abdicated") || len(left) != 1 {
		t.Errorf("%d %s, %d", w.Code, w.Body, len(left))
	}
}

func TestWhoseRequest(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = "10.0.0.1:999"
	r.Header.Set("X-Forwarded-For", "10.9.9.9")
	if got := clientIP(r); got != "10.0.0.1" {
		t.Error(got)
	}
	r.Header.Set(headerVia, "1.1 10.0.0.1:8080")
	if got := clientIP(r); got != "10.9.9.9 via 10.0.0.1" {
		t.Error(got)
	}
}
