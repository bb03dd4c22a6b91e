package api

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// TestWaitingIsExplained: what no offer meets is told where people look.
func TestWaitingIsExplained(t *testing.T) {
	s := newSite(t)
	s.want("POST", "/v2/apps", `{"id":"/a","cmd":"x","constraints":[["rack","LIKE","a.*"]]}`, 201, "")
	s.eventually("GET", "/v2/queue?embed=lastUnusedOffers", `"waiting":"no offer has rack like a.*"`)
	q := s.want("GET", "/v2/queue?embed=lastUnusedOffers", "", 200, `"lastUnusedOffers":[{"offer":{"id":"o`)
	for _, part := range []string{`"reason":["UnfulfilledConstraint"]`, `{"name":"cpus","role":"*","scalar":100}`, `"hostname":"h"`} {
		if !strings.Contains(q.text, part) {
			t.Errorf("%s is not in %s", part, q.text)
		}
	}
	if strings.Contains(q.text, `"declined":0,"processed":1,"reason":"UnfulfilledConstraint"`) || !strings.Contains(q.text, `"reason":"UnfulfilledConstraint"`) {
		t.Errorf("%s", q.text)
	}
	if strings.Contains(s.do("GET", "/v2/queue", "").text, "lastUnusedOffers") {
		t.Error("unused offers were not asked for")
	}
	s.want("GET", "/v2/apps/a", "", 200, `"waiting":"no offer has rack like a.*"`)
}

// eventually repeats a request until its body has a text.
func (s *site) eventually(method, path, part string) {
	s.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		r := s.do(method, path, "")
		if strings.Contains(r.text, part) {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s %s: no %s in %s", method, path, part, r.text)
		}
	}
}

func TestTaskStats(t *testing.T) {
	s := newSite(t)
	s.post(`{"id":"/a","cmd":"x","instances":2}`)
	r := s.want("GET", "/v2/apps/a?embed=app.taskStats", "", 200, `"withLatestConfig":{"stats":{"counts":{"staged":0,"running":2,"healthy":0,"unhealthy":0},"lifeTime":{"averageSeconds":`)
	if strings.Contains(r.text, "withOutdatedConfig") || !strings.Contains(r.text, "totalSummary") || !strings.Contains(r.text, "startedAfterLastScaling") {
		t.Errorf("%s", r.text)
	}
	s.want("GET", "/v2/groups?embed=group.apps&embed=group.apps.taskStats", "", 200, "taskStats")
	if got := *lifeOf([]float64{3, 1, 2, 10}); got.Average != 4 || got.Median != 2.5 {
		t.Errorf("%+v", got)
	}
}

func TestVersionStandsAlone(t *testing.T) {
	s := newSite(t)
	s.post(`{"id":"/a","cmd":"x"}`)
	version := s.do("GET", "/v2/apps/a/versions", "").body["versions"].([]any)[0].(string)
	s.want("PUT", "/v2/apps/a", `{"id":"/a","version":"`+version+`","instances":3}`, 422, `{"path":"/version","errors":["The 'version' field may only be combined with the 'id' field."]}`)
	s.want("PUT", "/v2/apps/a", `{"id":"/a","version":"`+version+`"}`, 200, "deploymentId")
}

func TestSubscriptions(t *testing.T) {
	s := newSite(t)
	got := make(chan string, 100)
	fails := 1
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		if fails > 0 {
			fails--
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		got <- string(text)
	}))
	defer hook.Close()
	at := "/v2/eventSubscriptions?callbackUrl=" + url.QueryEscape(hook.URL+"/hook")
	s.want("GET", "/v2/eventSubscriptions", "", 200, `{"callbackUrls":[]}`)
	for range 2 {
		s.want("POST", at, "", 200, `"eventType":"subscribe_event"`)
	}
	s.want("GET", "/v2/eventSubscriptions", "", 200, `{"callbackUrls":["`+hook.URL+`/hook"]}`)
	s.want("POST", "/v2/eventSubscriptions", "", 422, "http://")
	s.want("POST", "/v2/eventSubscriptions?callbackUrl=ftp://x", "", 422, "http://")
	s.want("PUT", at, "", 405, "")
	s.post(`{"id":"/a","cmd":"x"}`)
	select {
	case text := <-got:
		if !strings.Contains(text, `"eventType":"api_post_event"`) {
			t.Errorf("the first is %s", text) // although its first try failed
		}
	case <-time.After(10 * time.Second):
		t.Fatal("no event was posted")
	}
	s.want("DELETE", at, "", 200, `"eventType":"unsubscribe_event"`)
	s.want("GET", "/v2/eventSubscriptions", "", 200, `{"callbackUrls":[]}`)
}

func TestPlanOfAnApp(t *testing.T) {
	s := newSite(t)
	s.post(`{"id":"/a","cmd":"x","labels":{"k":"1"}}`)
	s.want("PUT", "/v2/apps/a?dryRun=true", `{"labels":{"k":"2"},"instances":3}`, 200, `{"diff":[{"path":"/instances","before":1,"after":3,"restarts":false},{"path":"/labels","before":{"k":"1"},"after":{"k":"2"},"restarts":false}],"restarts":true,"steps":[{"actions":[{"action":"RestartApplication","app":"/a"}]}]}`)
	s.want("PUT", "/v2/apps/a?dryRun=true&restart=auto", `{"labels":{"k":"2"},"instances":3}`, 200, `"restarts":false,"steps":[{"actions":[{"action":"ScaleApplication","app":"/a"}]}]`)
	s.want("PUT", "/v2/apps/new?dryRun=true", `{"cmd":"x"}`, 200, "StartApplication")
	s.want("PUT", "/v2/apps/a?dryRun=true", `{"instances":-1}`, 422, "/instances")
	s.want("GET", "/v2/apps/new", "", 404, "")
	s.want("GET", "/v2/apps/a/versions", "", 200, "")
	tasks := s.tasks("/a")
	s.want("PUT", "/v2/apps/a?restart=auto", `{"labels":{"k":"3"}}`, 200, "deploymentId")
	s.settle()
	s.want("GET", "/v2/apps/a", "", 200, `"labels":{"k":"3"}`)
	if got := s.tasks("/a"); len(got) != 1 || got[0] != tasks[0] {
		t.Errorf("%v, before %v", got, tasks)
	}
	s.want("PUT", "/v2/apps/a?restart=never", `{}`, 400, "always or auto")
}

func TestIfMatch(t *testing.T) {
	s := newSite(t)
	s.post(`{"id":"/a","cmd":"x"}`)
	tag := s.do("GET", "/v2/apps/a", "").header.Get("ETag")
	try := func(method, path, body, tag string, want int) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("If-Match", tag)
		resp, err := s.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s %s with %s: %d, want %d", method, path, tag, resp.StatusCode, want)
		}
	}
	try("PUT", "/v2/apps/a", `{"instances":2}`, `"2001-01-01T00:00:00.000Z"`, 412)
	try("PUT", "/v2/apps/a", `{"instances":2}`, tag, 200)
	s.settle()
	try("PUT", "/v2/apps/a", `{"instances":3}`, tag, 412)
	try("PUT", "/v2/apps/new", `{"cmd":"x"}`, "*", 412)
	try("POST", "/v2/apps/a/restart", "", tag, 412)
	try("DELETE", "/v2/apps/a", "", tag, 412)
	try("DELETE", "/v2/apps/a", "", "*", 200)
}
