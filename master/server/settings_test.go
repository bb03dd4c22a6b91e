package server

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/store"
)

// TestQuotaAndWeights: set over both APIs, refused in words, and there after a
// restart.
func TestQuotaAndWeights(t *testing.T) {
	st := store.NewMemory()
	m := startMaster(t, "", func(c *Config) { c.Store = st })
	startAgent(t, m, small)
	m.until(t, "an agent", func(s *master.Snapshot) bool { return len(s.Agents) == 1 })
	scalarOf := func(name, value string) string {
		return `{"name":"` + name + `","type":"SCALAR","scalar":{"value":` + value + `}}`
	}
	for _, x := range []struct {
		name, method, path, body string
		status                   int
		want                     string
	}{
		{"quota", "POST", "/api/v1", `{"type":"UPDATE_QUOTA","update_quota":{"quota_configs":[{"role":"a","guarantees":{"cpus":{"value":1}},"limits":{"cpus":{"value":2},"gpus":{"value":0}}}]}}`, 200, ""},
		{"too much", "POST", "/api/v1", `{"type":"UPDATE_QUOTA","update_quota":{"quota_configs":[{"role":"b","guarantees":{"cpus":{"value":4}}}]}}`, 400, "Not enough available cluster capacity"},
		{"by force", "POST", "/api/v1", `{"type":"UPDATE_QUOTA","update_quota":{"force":true,"quota_configs":[{"role":"b","guarantees":{"cpus":{"value":4}}}]}}`, 200, ""},
		{"nested", "POST", "/api/v1", `{"type":"UPDATE_QUOTA","update_quota":{"quota_configs":[{"role":"a/b"}]}}`, 400, "nested role"},
		{"negative", "POST", "/api/v1", `{"type":"UPDATE_QUOTA","update_quota":{"quota_configs":[{"role":"a","limits":{"cpus":{"value":-1}}}]}}`, 400, "limit of cpus"},
		{"removed", "POST", "/api/v1", `{"type":"REMOVE_QUOTA","remove_quota":{"role":"b"}}`, 200, ""},
		{"removed twice", "POST", "/api/v1", `{"type":"REMOVE_QUOTA","remove_quota":{"role":"b"}}`, 400, "no quota set"},
		{"older form", "POST", "/quota", `{"role":"c","guarantee":[` + scalarOf("mem", "64") + `]}`, 200, ""},
		{"older form, too much", "POST", "/master/quota", `{"role":"d","guarantee":[` + scalarOf("mem", "64000") + `]}`, 409, "Not enough"},
		{"older form, empty", "POST", "/quota", `{"role":"d"}`, 400, "guarantee"},
		{"set by call", "POST", "/api/v1", `{"type":"SET_QUOTA","set_quota":{"quota_request":{"role":"d","guarantee":[` + scalarOf("cpus", "1") + `]}}}`, 200, ""},
		{"deleted", "DELETE", "/quota/d", "", 200, ""},
		{"no longer there", "DELETE", "/quota/d", "", 400, "no quota set"},
		{"weights", "POST", "/api/v1", `{"type":"UPDATE_WEIGHTS","update_weights":{"weight_infos":[{"role":"a/x","weight":2.5}]}}`, 200, ""},
		{"weight 0", "POST", "/api/v1", `{"type":"UPDATE_WEIGHTS","update_weights":{"weight_infos":[{"role":"a/x","weight":0}]}}`, 400, "must be positive"},
		{"weight of no role", "PUT", "/weights", `[{"role":"/x","weight":1}]`, 400, "slash"},
		{"older weights", "PUT", "/weights", `[{"role":"b","weight":3}]`, 200, ""},
		{"not a list", "PUT", "/weights", `{`, 400, "Failed to parse"},
		{"another method", "PATCH", "/weights", ``, 405, "Expecting one of"},
	} {
		resp, text := m.ask(t, x.method, x.path, x.body, "Content-Type", typeJSON)
		if resp.StatusCode != x.status || !strings.Contains(text, x.want) {
			t.Errorf("%s: %s %q, want %d %q", x.name, resp.Status, text, x.status, x.want)
		}
	}
	m.stop()
	m = startMaster(t, m.addr, func(c *Config) { c.Store = st })
	_, text := m.get(t, "/quota")
	if diff := cmp.Diff(parseJSON(t, `{"infos":[{"role":"a","guarantee":[{"name":"cpus","type":"SCALAR","scalar":{"value":1.0},"role":"*"}]},
		{"role":"c","guarantee":[{"name":"mem","type":"SCALAR","scalar":{"value":64.0},"role":"*"}]}],
		"configs":[{"role":"a","guarantees":{"cpus":{"value":1.0}},"limits":{"cpus":{"value":2.0},"gpus":{"value":0.0}}},
		{"role":"c","guarantees":{"mem":{"value":64.0}},"limits":{"mem":{"value":64.0}}}]}`), parseJSON(t, text)); diff != "" {
		t.Errorf("/quota after a restart (-want +got):\n%s", diff)
	}
	if _, text := m.get(t, "/weights"); text != `[{"weight":2.5,"role":"a/x"},{"weight":3.0,"role":"b"}]` {
		t.Errorf("/weights: %s", text)
	}
	_, text = m.post(t, "/api/v1", `{"type":"GET_QUOTA"}`, "Content-Type", typeJSON)
	if got := parseJSON(t, text).path("get_quota", "status", "configs", 1, "role"); got != "c" {
		t.Errorf("GET_QUOTA: %s", text)
	}
	_, text = m.post(t, "/api/v1", `{"type":"GET_WEIGHTS"}`, "Content-Type", typeJSON)
	if got := parseJSON(t, text).path("get_weights", "weight_infos", 0, "weight"); got != 2.5 {
		t.Errorf("GET_WEIGHTS: %s", text)
	}
}
