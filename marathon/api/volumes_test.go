package api

import (
	"strings"
	"testing"
)

func TestVolumes(t *testing.T) {
	s := newSite(t)
	s.mu.Lock()
	s.role = "web"
	s.mu.Unlock()
	const def = `{"id":"/db","cmd":"x","role":"web","container":{"docker":{"image":"i"},"volumes":[{"containerPath":"data","mode":"RW","persistent":{"size":64}}]}`
	s.want("POST", "/v2/apps", strings.Replace(def, `"web"`, `"*"`, 1)+`}`, 422, "--mesos-role")
	s.want("POST", "/v2/apps", def+`}`, 201, `"persistent":{"type":"root","size":64}`)
	s.settle()
	r := s.want("GET", "/v2/apps/db", "", 200, `"containerPath":"data"`)
	task := r.body["app"].(map[string]any)["tasks"].([]any)[0].(map[string]any)["id"].(string)
	s.want("PUT", "/v2/apps/db", strings.Replace(def, "64", "65", 1)+`}`, 422, "persistent volumes cannot be changed")
	s.want("PUT", "/v2/apps/db", `{"instances":0}`, 200, "")
	s.settle()
	s.want("GET", "/v2/apps/db", "", 200, `"detachedVolumes":[{"taskId":"`+task+`"`)
	s.want("DELETE", "/v2/apps/db/tasks/"+task, "", 404, "Task '"+task+"' does not exist")
	s.want("DELETE", "/v2/apps/db/tasks/"+task+"?scale=true&wipe=true", "", 400, "")
	s.want("DELETE", "/v2/apps/db/tasks/"+task+"?wipe=true", "", 200, "")
	if r := s.want("GET", "/v2/apps/db", "", 200, ""); strings.Contains(r.text, "detached") {
		t.Errorf("after it was wiped: %s", r.text)
	}
}
