package api

import "testing"

func TestAudit(t *testing.T) {
	s := newSite(t)
	s.want("POST", "/v2/apps", `{"id":"/a","cmd":"x"}`, 201, "")
	s.settle()
	s.want("POST", "/v2/apps/a/promote", "", 409, "no canary waits")
	s.want("POST", "/v2/apps/none/promote", "", 404, "App '/none' does not exist")
	s.want("PUT", "/v2/apps/a", `{"canary":{"instances":1},"labels":{"v":"2"}}`, 200, "")
	s.want("POST", "/v2/apps/a/promote", "", 200, `{"promoted":"/a"}`)
	s.settle()
	s.want("GET", "/v2/audit?id=a&limit=1", "", 200, `"what":"promote"`)
	s.want("DELETE", "/v2/apps/a", "", 200, "")
	s.want("GET", "/v2/audit?id=a", "", 200, `"method":"DELETE","uri":"/v2/apps/a","deploymentId"`)
	s.want("GET", "/v2/audit?limit=1", "", 200, `"action":"StopApplication"`)
	s.want("GET", "/v2/audit?limit=0", "", 400, "above 0")
	s.want("GET", "/v2/audit?id=/b", "", 200, `{"audit":[]}`)
}
