package web

import (
	"bufio"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestMasterPage(t *testing.T) {
	view := &Cluster{
		Name: "demo", Master: "127.0.0.1:5050", Version: "1.11.0", Amounts: []Amount{{Name: "cpus", Total: 4, Used: 1, Offered: 2}},
		Counts: []Count{{Name: "running", N: 3}}, Agents: []Agent{{ID: "x-S0", Hostname: "host<1>", Connected: true, Amounts: []Amount{{Name: "cpus", Total: 4}}}},
		Tasks: []Task{{ID: "t1", Name: "web", State: "TASK_RUNNING", Address: "10.0.0.2"}}, TaskTotal: 5,
	}
	filter := ""
	h := MasterPage(func(_ context.Context, q string) (*Cluster, error) { filter = q; return view, nil })
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/?q=web", nil))
	body := w.Body.String()
	for _, want := range []string{"demo", "host&lt;1&gt;", "TASK_RUNNING", "width:25.0%", "width:50.0%", "The first 1 of 5"} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if filter != "web" || w.Code != http.StatusOK {
		t.Errorf("code %d, filter %q", w.Code, filter)
	}
}

func TestEmptyPages(t *testing.T) {
	pages := map[string]http.Handler{
		"No agent has registered": MasterPage(func(context.Context, string) (*Cluster, error) { return &Cluster{}, nil }),
		"No apps yet":             MarathonPage(func(context.Context) (*Services, error) { return &Services{}, nil }),
	}
	for want, h := range pages {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("an empty page does not say %q", want)
		}
	}
}

func TestAppBar(t *testing.T) {
	a := App{Wanted: 10, Running: 6, Healthy: 4, Unhealthy: 1, Staged: 2}
	var got []string
	sum := 0.0
	for _, p := range a.Parts() {
		got = append(got, p.Class)
		sum += p.Percent
	}
	if strings.Join(got, " ") != "healthy unknown unhealthy staged lacking" || sum < 99.9 || sum > 100.1 {
		t.Errorf("parts %v, in all %v%%", got, sum)
	}
	if parts := (App{}).Parts(); parts != nil {
		t.Errorf("a suspended app has parts: %v", parts)
	}
}

// The live stream sends the changing part at once, and again when it changed.
func TestLive(t *testing.T) {
	var n atomic.Int64
	srv := httptest.NewServer(MarathonPage(func(context.Context) (*Services, error) {
		return &Services{Connected: true, Apps: []App{{ID: "/web", Wanted: int(n.Load())}}}, nil
	}))
	defer srv.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, "GET", srv.URL+"/live", nil)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	find := func(want string) {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), want) {
				if !strings.HasPrefix(lines.Text(), "data: ") {
					t.Errorf("%q is no line of an event", lines.Text())
				}
				return
			}
		}
		t.Fatalf("the stream ended before %q: %v", want, lines.Err())
	}
	find("0 / 0")
	n.Store(7)
	find("0 / 7")
}
