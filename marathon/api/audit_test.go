package api

import "testing"

func TestAudit(t *testing.T) {
	s := newSite(t)
	s.want("POST", "/v2/apps", `{"id":"/a","cmd":"x"}`, 201, "")
	s.settle()
	s.want("DELETE", "/v2/apps/a", "", 200, "")
	s.want("GET", "/v2/audit?id=a", "", 200, `"method":"DELETE","uri":"/v2/apps/a","deploymentId"`)
	s.want("GET", "/v2/audit?limit=1", "", 200, `"action":"StopApplication"`)
	s.want("GET", "/v2/audit?limit=0", "", 400, "above 0")
	s.want("GET", "/v2/audit?id=/b", "", 200, `{"audit":[]}`)
}
