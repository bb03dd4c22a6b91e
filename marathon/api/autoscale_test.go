package api

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mesopool/mesopool/marathon"
)

// busyAgent has the site's tasks use so many CPUs, in tenths, by a clock that is ten
// seconds on with each answer. Below 0 it does not answer.
func (s *site) busyAgent(app string, tenths *atomic.Int64) {
	asked, used := 0.0, 0.0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var ids []string
		s.r.View(r.Context(), func(c *marathon.Core) {
			v, _ := c.App(time.Now(), app)
			for _, i := range v.Instances {
				ids = append(ids, i.TaskID)
			}
		})
		cpus := float64(tenths.Load()) / 10
		if cpus < 0 {
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		asked, used = asked+1, used+10*cpus
		list := []any{}
		for _, id := range ids {
			list = append(list, map[string]any{"framework_id": "fw", "executor_id": id, "statistics": map[string]float64{
				"timestamp": 1.8e9 + 10*asked, "cpus_user_time_secs": used, "cpus_system_time_secs": 0,
			}})
		}
		json.NewEncoder(w).Encode(list)
	}))
	s.t.Cleanup(server.Close)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.agent = server.URL
}

// shows waits until an answer has a text.
func (s *site) shows(path, part string) string {
	s.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		text := s.do("GET", path, "").text
		if strings.Contains(text, part) {
			return text
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s never shows %s: %.600s", path, part, text)
		}
	}
}

func TestAutoscale(t *testing.T) {
	s := newSite(t)
	var cpus atomic.Int64
	cpus.Store(5)
	s.busyAgent("/a", &cpus)
	s.want("POST", "/v2/apps", `{"id":"/a","cmd":"x","autoscale":{"maxInstances":3,"cpu":7,"mem":70}}`, 422,
		`{"details":[{"path":"/autoscale/mem","errors":["got 70, expected 0.01 to 10: the part of what an instance asks for"]}],"message":"Object is not valid"}`)
	s.want("POST", "/v2/apps", `{"id":"/a","cmd":"x","autoscale":{"maxInstances":"3","cpu":1}}`, 400, `"path":"/autoscale/maxInstances","errors":["expected a whole number, got string"]`)
	s.want("POST", "/v2/pods", `{"id":"/p","containers":[{"name":"c","resources":{"cpus":1,"mem":32}}],"autoscale":{}}`, 422, `"path":"/autoscale"`)
	const scaled = `{"id":"/a","cmd":"x","autoscale":{"minInstances":2,"maxInstances":4,"cpu":0.5,"cooldownSeconds":0,"scaleDownAfterSeconds":0}}`
	s.want("POST", "/v2/apps", scaled, 201, `"instances":2`)
	s.settle()
	s.want("GET", "/v2/apps/a", "", 200, `"autoscale":{"minInstances":2,"maxInstances":4,"cpu":0.5,"cooldownSeconds":0,"scaleDownAfterSeconds":0}`)
	s.shows("/v2/apps/a", `"notes":["autoscale: cpu is 0.5 on average, to be 0.5"]`)
	before := s.tasks("/a")
	cpus.Store(20)
	s.shows("/v2/apps/a", `"instances":4`)
	s.settle()
	s.shows("/v2/apps/a", "cpu is 2 on average, to be 0.5: from 2 to 4 instances")
	if now := strings.Join(s.tasks("/a"), " "); !strings.Contains(now, before[0]) || !strings.Contains(now, before[1]) {
		t.Errorf("%v were restarted: %v", before, now)
	}
	s.want("GET", "/v2/audit?id=/a&limit=1", "", 200, `"user":"autoscale","what":"autoscale","uri":"/v2/apps/a","why":"cpu is 2 on average, to be 0.5: from 2 to 4 instances","deploymentId":"`)

	s.want("PUT", "/v2/apps/a?dryRun=true", `{"autoscale":{"maxInstances":3,"cpu":0.5}}`, 200, `"path":"/instances","before":4,"after":3,"restarts":false`)
	s.want("PUT", "/v2/apps/a", `{"instances":5}`, 422, `"path":"/instances","errors":["got 5, expected 2 to 4 (the bounds of autoscale), or 0 to suspend the app"]`)
	s.want("PUT", "/v2/groups", `{"scaleBy":2}`, 422, `/a: got 8, expected 2 to 4`)
	s.want("PUT", "/v2/apps/a?partialUpdate=false", strings.Replace(scaled, `"cmd":"x"`, `"cmd":"y"`, 1), 200, "")
	s.settle()
	s.want("GET", "/v2/apps/a", "", 200, `"instances":4`)
	cpus.Store(-1)
	s.shows("/v2/apps/a", "4 of 4 instances could not be measured; the last: ")
	s.want("GET", "/v2/apps/a", "", 200, "answered 401 Unauthorized")
	s.shows("/metrics", `"mesopool.marathon.autoscale.up":{"count":1}`)
	if text := s.do("GET", "/metrics", "").text; strings.Contains(text, `"mesopool.marathon.autoscale.failures":{"count":0}`) {
		t.Errorf("no failures: %s", text)
	}
	s.want("PUT", "/v2/apps/a", `{"instances":0}`, 200, "")
	s.settle()
	cpus.Store(20)
	s.want("GET", "/v2/apps/a", "", 200, `it stays so until somebody scales it`)
}
