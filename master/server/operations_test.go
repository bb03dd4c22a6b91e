package server

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/provider/memory"
	"github.com/mesopool/mesopool/store"
)

const (
	webSubscribe = `{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"root","name":"web","roles":["web"],"principal":"p","failover_timeout":3600,
		"capabilities":[{"type":"MULTI_ROLE"},{"type":"RESERVATION_REFINEMENT"},{"type":"PARTITION_AWARE"}]}}}`
	webReservation = `"reservations":[{"type":"DYNAMIC","role":"web","principal":"p"}]`
	webVolume      = `{"name":"disk","type":"SCALAR","scalar":{"value":64},` + webReservation +
		`,"disk":{"persistence":{"id":"v1","principal":"p"},"volume":{"container_path":"data","mode":"RW"}}}`
)

func webAmount(name, value string) string {
	return `{"name":"` + name + `","type":"SCALAR","scalar":{"value":` + value + `},` + webReservation + `}`
}

// TestOperationsOnAgent does a reservation, a volume and a launch on both in
// one call, against our own agent, and finds them again after a restart.
func TestOperationsOnAgent(t *testing.T) {
	m := startMaster(t, "", nil)
	st := store.NewMemory()
	data := memory.New(memory.Config{})
	startAgentOn(t, m.addr, "cpus:4;mem:4096;disk:1000", st, data)
	f := subscribe(t, m, webSubscribe)
	id := f.next(t, "SUBSCRIBED").path("subscribed", "framework_id", "value").(string)
	offer := value(f.next(t, "OFFERS").path("offers", "offers", 0).(map[string]any))
	agent, oid := offer.path("agent_id", "value").(string), offer.path("id", "value").(string)
	f.call(t, id, `{"type":"ACCEPT","framework_id":{"value":%q},"accept":{"offer_ids":[{"value":"`+oid+`"}],"operations":[
		{"type":"RESERVE","id":{"value":"r"},"reserve":{"resources":[`+webAmount("cpus", "1")+`,`+webAmount("disk", "64")+`]}},
		{"type":"CREATE","id":{"value":"c"},"create":{"volumes":[`+webVolume+`]}},
		{"type":"LAUNCH","launch":{"task_infos":[{"name":"t","task_id":{"value":"t"},"agent_id":{"value":"`+agent+`"},
			"container":{"type":"DOCKER","docker":{"image":"web:1"}},"command":{"value":"sleep 1"},
			"resources":[`+webAmount("cpus", "0.5")+`,{"name":"mem","type":"SCALAR","scalar":{"value":64}},`+webVolume+`]}]}},
		{"type":"RESERVE","id":{"value":"foreign"},"reserve":{"resources":[`+strings.ReplaceAll(webAmount("cpus", "1"), `"p"`, `"q"`)+`]}}
		]}}`)
	seen := map[string]any{}
	for len(seen) < 3 {
		status := value(f.next(t, "UPDATE_OPERATION_STATUS").path("update_operation_status", "status").(map[string]any))
		op := status.path("operation_id", "value").(string)
		seen[op] = status["state"]
		if op == "foreign" {
			if text, _ := status["message"].(string); !strings.Contains(text, "by principal 'p'") {
				t.Errorf("foreign principal: %v", status)
			}
			continue
		}
		f.call(t, id, `{"type":"ACKNOWLEDGE_OPERATION_STATUS","framework_id":{"value":%q},"acknowledge_operation_status":{"operation_id":{"value":"`+op+
			`"},"agent_id":{"value":"`+agent+`"},"uuid":"`+status.path("uuid", "value").(string)+`"}}`)
	}
	if seen["r"] != "OPERATION_FINISHED" || seen["c"] != "OPERATION_FINISHED" || seen["foreign"] != "OPERATION_ERROR" {
		t.Fatalf("operations: %v", seen)
	}
	m.until(t, "no operation left, and the task", func(s *master.Snapshot) bool {
		return len(s.Operations) == 0 && len(s.Frameworks) == 1 && len(s.Frameworks[0].Tasks) == 1
	})
	_, text := m.get(t, "/slaves")
	if got := parseJSON(t, text).path("slaves", 0, "reserved_resources_full", "web"); got == nil || !strings.Contains(text, `"id":"v1"`) {
		t.Errorf("/slaves: %s", text)
	}
	m.stop()
	m2 := startMaster(t, m.addr, nil)
	snap := m2.until(t, "the agent with its reservations", func(s *master.Snapshot) bool { return len(s.Agents) == 1 })
	if kept := snap.Agents[0].Resources.Checkpointed(); kept.Amount("disk").Float() != 64 || kept.Amount("cpus").Float() != 1 {
		t.Errorf("after the restart: %s", kept)
	}
}

func TestOperatorOperations(t *testing.T) {
	m := startMaster(t, "", nil)
	startAgent(t, m, "cpus:4;mem:4096;disk:1000")
	agent := m.until(t, "an agent", func(s *master.Snapshot) bool { return len(s.Agents) == 1 }).Agents[0].ID
	who := `"agent_id":{"value":"` + agent + `"}`
	grown := strings.Replace(webVolume, `"value":64`, `"value":100`, 1)
	for _, x := range []struct {
		name, body string
		status     int
		want       string
	}{
		{"part missing", `{"type":"RESERVE_RESOURCES"}`, 400, "Expecting 'reserve_resources' to be present"},
		{"not reserved", `{"type":"RESERVE_RESOURCES","reserve_resources":{` + who + `,"resources":[{"name":"cpus","type":"SCALAR","scalar":{"value":1}}]}}`, 400, "is not dynamically reserved"},
		{"unknown agent", `{"type":"RESERVE_RESOURCES","reserve_resources":{"agent_id":{"value":"x"},"resources":[` + webAmount("cpus", "1") + `]}}`, 400, "No agent found"},
		{"too much", `{"type":"RESERVE_RESOURCES","reserve_resources":{` + who + `,"resources":[` + webAmount("cpus", "5") + `]}}`, 409, "RESERVE needs"},
		{"reserve", `{"type":"RESERVE_RESOURCES","reserve_resources":{` + who + `,"resources":[` + webAmount("disk", "100") + `]}}`, 202, ""},
		{"create", `{"type":"CREATE_VOLUMES","create_volumes":{` + who + `,"volumes":[` + webVolume + `]}}`, 202, ""},
		{"create again", `{"type":"CREATE_VOLUMES","create_volumes":{` + who + `,"volumes":[` + webVolume + `]}}`, 409, ""},
		{"unreserve a volume", `{"type":"UNRESERVE_RESOURCES","unreserve_resources":{` + who + `,"resources":[` + webVolume + `]}}`, 400, "destroy the persistent volume first"},
		{"grow", `{"type":"GROW_VOLUME","grow_volume":{` + who + `,"volume":` + webVolume + `,"addition":` + webAmount("disk", "36") + `}}`, 202, ""},
		{"shrink too far", `{"type":"SHRINK_VOLUME","shrink_volume":{` + who + `,"volume":` + grown + `,"subtract":{"value":100}}}`, 400, "subtract"},
		{"shrink", `{"type":"SHRINK_VOLUME","shrink_volume":{` + who + `,"volume":` + grown + `,"subtract":{"value":36}}}`, 202, ""},
		{"destroy", `{"type":"DESTROY_VOLUMES","destroy_volumes":{` + who + `,"volumes":[` + webVolume + `]}}`, 202, ""},
		{"unreserve", `{"type":"UNRESERVE_RESOURCES","unreserve_resources":{` + who + `,"resources":[` + webAmount("disk", "100") + `]}}`, 202, ""},
	} {
		resp, text := m.post(t, "/api/v1", x.body, "Content-Type", typeJSON)
		if resp.StatusCode != x.status || !strings.Contains(text, x.want) {
			t.Errorf("%s: %s %q, want %d %q", x.name, resp.Status, text, x.status, x.want)
		}
	}
	form := func(path, field, list string) (int, string) {
		resp, text := m.post(t, path, url.Values{"slaveId": {agent}, field: {list}}.Encode(), "Content-Type", "application/x-www-form-urlencoded")
		return resp.StatusCode, text
	}
	for _, x := range []struct {
		path, field, list string
		status            int
	}{
		{"/reserve", "resources", "[" + webAmount("disk", "100") + "]", 202},
		{"/master/create-volumes", "volumes", "[" + webVolume + "]", 202},
		{"/destroy-volumes", "volumes", "[" + webVolume + "]", 202},
		{"/unreserve", "resources", "[" + webAmount("disk", "100") + "]", 202},
		{"/unreserve", "resources", "[" + webAmount("disk", "100") + "]", 409},
		{"/unreserve", "resources", "[", 400},
		{"/unreserve", "volumes", "[]", 400},
	} {
		if status, text := form(x.path, x.field, x.list); status != x.status {
			t.Errorf("%s: %d %s, want %d", x.path, status, text, x.status)
		}
	}
	if resp, _ := m.get(t, "/reserve"); resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET /reserve: %s", resp.Status)
	}
	m.until(t, "every operation acknowledged", func(s *master.Snapshot) bool { return len(s.Operations) == 0 })
	snap := m.until(t, "an agent without marks", func(s *master.Snapshot) bool { return len(s.Agents[0].Resources.Checkpointed()) == 0 })
	if !snap.Agents[0].Resources.Equal(parse(t, "cpus:4;mem:4096;disk:1000")) {
		t.Errorf("the agent has %s", snap.Agents[0].Resources)
	}
}
