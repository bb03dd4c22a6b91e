package standby

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func follower(t *testing.T, leader func() string) (*Handler, *httptest.Server) {
	t.Helper()
	return patient(t, leader, time.Minute)
}

func patient(t *testing.T, leader func() string, patience time.Duration) (*Handler, *httptest.Server) {
	t.Helper()
	srv := httptest.NewUnstartedServer(nil)
	h := New(Config{
		Self: srv.Listener.Addr().String(), Leader: leader, Via: "X-Test-Via", Patience: patience, Log: slog.New(slog.DiscardHandler),
		Own: func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/ping" {
				return false
			}
			fmt.Fprint(w, "pong")
			return true
		},
		Fail: func(w http.ResponseWriter, code int, message string) { http.Error(w, message, code) },
	})
	srv.Config.Handler = h
	srv.Start()
	t.Cleanup(srv.Close)
	return h, srv
}

func to(address string) func() string { return func() string { return address } }

func get(t *testing.T, url string, header ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(header); n += 2 {
		r.Header.Add(header[n], header[n+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, strings.TrimSpace(string(text))
}

// All of a request gets to the leader, and all of the answer back.
func TestProxy(t *testing.T) {
	leader := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Test-Leader", "me")
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprintf(w, "%s %s %s via %s for %s host %s", r.Method, r.RequestURI, text, r.Header.Values("X-Test-Via"), r.Header.Get("X-Forwarded-For"), r.Host)
	}))
	defer leader.Close()
	at := leader.Listener.Addr().String()
	_, srv := follower(t, to(at))
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, srv.URL+"/v2/apps//a%2Fb?x=1;2&y", strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Forwarded-For", "10.9.8.7")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	self := srv.Listener.Addr().String()
	want := fmt.Sprintf("PUT /v2/apps//a%%2Fb?x=1;2&y body via [1.1 %s] for 10.9.8.7, 127.0.0.1 host %s", self, at)
	if string(text) != want || resp.StatusCode != http.StatusTeapot || resp.Header.Get("X-Test-Leader") != "me" || resp.Header.Get("X-Test-Via") != "1.1 "+self {
		t.Errorf("%d %v\n%s\n%s", resp.StatusCode, resp.Header, text, want)
	}
	if _, text := get(t, srv.URL+"/ping"); text != "pong" {
		t.Errorf("its own answer is %q", text)
	}
}

// Every event of a stream arrives before the next one is made, and a client that
// leaves is seen by the leader.
func TestStreams(t *testing.T) {
	said, left := make(chan string), make(chan bool)
	leader := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		http.NewResponseController(w).Flush()
		for {
			select {
			case text := <-said:
				fmt.Fprintf(w, "data: %s\n", text)
				http.NewResponseController(w).Flush()
			case <-r.Context().Done():
				close(left)
				return
			}
		}
	}))
	defer leader.Close()
	_, srv := follower(t, to(leader.Listener.Addr().String()))
	ctx, leave := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+"/v2/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for n := range 5 {
		said <- fmt.Sprint(n)
		if !lines.Scan() || lines.Text() != fmt.Sprintf("data: %d", n) {
			t.Fatalf("%q, %v", lines.Text(), lines.Err())
		}
	}
	leave()
	<-left
}

func TestWhoCannotAnswer(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	_, gone := follower(t, to(closed.Addr().String()))
	if resp, text := get(t, gone.URL+"/v2/apps"); resp.StatusCode != http.StatusBadGateway || text != refused {
		t.Errorf("a leader that is gone: %d %s", resp.StatusCode, text)
	}
	_, none := patient(t, to(""), time.Millisecond)
	if resp, text := get(t, none.URL+"/v2/apps"); resp.StatusCode != http.StatusServiceUnavailable || text != nobody {
		t.Errorf("no leader: %d %s", resp.StatusCode, text)
	}
	var a, b *httptest.Server
	_, a = follower(t, func() string { return b.Listener.Addr().String() })
	_, b = follower(t, func() string { return a.Listener.Addr().String() })
	if resp, text := get(t, a.URL+"/v2/apps"); resp.StatusCode != http.StatusBadGateway || text != circle {
		t.Errorf("a circle: %d %s", resp.StatusCode, text)
	}
	rude := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	defer rude.Close()
	_, srv := follower(t, to(rude.Listener.Addr().String()))
	if resp, text := get(t, srv.URL+"/v2/apps"); resp.StatusCode != http.StatusBadGateway || text != broken {
		t.Errorf("a leader that hangs up: %d %s", resp.StatusCode, text)
	}
}

// Who begins to lead answers, also those who wait; what it still answers when it
// leads no longer is ended.
func TestLead(t *testing.T) {
	asked := make(chan bool, 1)
	h, srv := follower(t, func() string {
		select {
		case asked <- true:
		default:
		}
		return ""
	})
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan bool)
	mine := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "mine")
		if r.URL.Path == "/stream" {
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
			close(ended)
		}
	})
	go func() { <-asked; h.Lead(ctx, mine) }()
	if _, text := get(t, srv.URL+"/v2/apps"); text != "mine" {
		t.Errorf("who waited got %q", text)
	}
	go func() { // not before the stream is open
		resp, err := http.Get(srv.URL + "/stream")
		if err == nil {
			resp.Body.Read(make([]byte, 4))
		}
		end()
	}()
	<-ended
	h.cfg.Patience = time.Millisecond
	if resp, _ := get(t, srv.URL+"/v2/apps"); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("after the end: %d", resp.StatusCode)
	}
}
