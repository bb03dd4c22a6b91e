package api

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/mesopool/mesopool/task"
)

const smallPod = `{"id":"/g/p","containers":[{"name":"web","image":{"kind":"DOCKER","id":"web:1"},"resources":{"cpus":1,"mem":32},
	"endpoints":[{"name":"http","containerPort":80,"hostPort":0}]},{"name":"side","exec":{"command":{"shell":"x"}},"resources":{"cpus":1,"mem":32}}],
	"executorResources":{"cpus":0.1,"mem":32},"scaling":{"kind":"fixed","instances":2}}`

// podStatusOf waits until a pod is as it should be.
func (s *site) podStatusOf(id, want string) podStatus {
	s.t.Helper()
	var out podStatus
	for range 2000 {
		if err := json.Unmarshal([]byte(s.want("GET", "/v2/pods"+id+"::status", "", 200, "").text), &out); err != nil {
			s.t.Fatal(err)
		}
		if out.Status == want {
			return out
		}
	}
	s.t.Fatalf("%s is never %s: %+v", id, want, out)
	return out
}

func TestPods(t *testing.T) {
	s := newSite(t)
	s.want("HEAD", "/v2/pods", "", 200, "")
	s.want("POST", "/v2/pods", `{"id":"/g/p"}`, 422, `"path":"/containers"`)
	r := s.want("POST", "/v2/pods", smallPod, 201, `"instances":2`)
	if r.header.Get("Marathon-Deployment-Id") == "" || !strings.HasSuffix(r.header.Get("Location"), "/v2/pods/g/p") {
		t.Errorf("headers %v", r.header)
	}
	s.want("POST", "/v2/pods", smallPod, 409, "A pod with id [/g/p] already exists.")
	st := s.podStatusOf("/g/p", "STABLE")
	one := st.Instances[0]
	if len(st.Instances) != 2 || one.Status != "STABLE" || one.Networks[0].Addresses[0] != "10.0.0.9" || one.Containers[0].Name != "web" ||
		one.Containers[0].Status != task.Running.String() || *one.Containers[0].Endpoints[0].HostPort != 80 || one.Resources.CPUs != 2.1 {
		t.Errorf("status: %+v", st)
	}
	s.want("GET", "/v2/pods/::status", "", 200, `"status":"STABLE"`)
	s.want("GET", "/v2/pods", "", 200, `[{"id":"/g/p"`)
	s.want("GET", "/v2/groups", "", 200, `"pods":[{"id":"/g/p"`)
	for path, code := range map[string]int{"/v2/apps/g/p": 404, "/v2/apps/g/p/versions": 404, "/v2/pods/none": 404, "/v2/pods/none::status": 404, "/v2/pods/none::versions": 404} {
		s.want("GET", path, "", code, "does not exist")
	}
	s.want("GET", "/v2/apps", "", 200, `{"apps":[]}`)
	s.want("GET", "/v2/tasks", "", 200, `{"tasks":[]}`)
	s.want("DELETE", "/v2/apps/g/p", "", 404, "App '/g/p' does not exist")
}

func TestPodChanges(t *testing.T) {
	s := newSite(t)
	s.want("POST", "/v2/pods", smallPod, 201, "")
	before := s.podStatusOf("/g/p", "STABLE")
	s.want("PUT", "/v2/pods/g/p", strings.Replace(smallPod, "/g/p", "/g/q", 1), 400, "must match")
	s.want("PUT", "/v2/pods/none", strings.Replace(smallPod, "/g/p", "/none", 1), 404, "Pod '/none' does not exist")
	s.want("PUT", "/v2/pods/g/p", strings.Replace(smallPod, "web:1", "web:2", 1), 200, "web:2")
	after := s.podStatusOf("/g/p", "STABLE")
	if after.Instances[0].ID == before.Instances[0].ID || after.Spec.Version == before.Spec.Version {
		t.Errorf("after a change: %+v", after)
	}
	var versions []string
	if err := json.Unmarshal([]byte(s.want("GET", "/v2/pods/g/p::versions", "", 200, "").text), &versions); err != nil || len(versions) != 2 {
		t.Errorf("versions %v %v", versions, err)
	}
	s.want("GET", "/v2/pods/g/p::versions/"+versions[1], "", 200, "web:1")
	s.want("GET", "/v2/pods/g/p::versions/2000-01-01T00:00:00.000Z", "", 404, "in version")
	s.want("DELETE", "/v2/pods/g/p::instances/none", "", 404, "Instance 'none' does not exist")
	s.want("DELETE", "/v2/pods/g/p::instances", `{}`, 400, "")
	s.want("DELETE", "/v2/pods/g/p::instances/"+after.Instances[0].ID, "", 200, after.Instances[0].ID)
	s.want("DELETE", "/v2/pods/g/p::instances", `["`+after.Instances[1].ID+`"]`, 200, after.Instances[1].ID)
	if again := s.podStatusOf("/g/p", "STABLE"); again.Instances[0].ID == after.Instances[0].ID || again.Instances[1].ID == after.Instances[1].ID {
		t.Errorf("after the kills: %+v", again)
	}
	s.want("PUT", "/v2/groups", `{"id":"/h","pods":[`+strings.Replace(smallPod, "/g/p", "in", 1)+`]}`, 200, "")
	s.podStatusOf("/h/in", "STABLE")
	r := s.want("DELETE", "/v2/pods/g/p", "", 202, "")
	if id := r.header.Get("Marathon-Deployment-Id"); r.header.Get("Location") != "/v2/deployments/"+id {
		t.Errorf("headers %v", r.header)
	}
	s.want("GET", "/v2/pods/g/p", "", 404, "Pod '/g/p' does not exist")
}
