package server

import (
	"strings"
	"testing"

	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/provider/memory"
	"github.com/mesopool/mesopool/store"
)

// TestDrainOwnAgent empties our own agent, over a restart of the master.
func TestDrainOwnAgent(t *testing.T) {
	st := store.NewMemory()
	m := startMaster(t, "", func(c *Config) { c.Store = st })
	a := startAgentOn(t, m.addr, small, store.NewMemory(), memory.New(memory.Config{}))
	f := startFramework(t, m.addr, frameworkOf("f", nil))
	id := f.next(t, "subscribed").id
	o := f.launch(t, id, "t1")
	f.state(t, "t1", 1) // TASK_RUNNING
	a.untilContainers(t, 1)
	call := func(body string, status int, want string) {
		t.Helper()
		resp, text := m.post(t, "/api/v1", body, "Content-Type", typeJSON)
		if resp.StatusCode != status || !strings.Contains(text, want) {
			t.Errorf("%s: %s %q, want %d %q", body, resp.Status, text, status, want)
		}
	}
	who := `"agent_id":{"value":"` + o.Agent + `"}`
	call(`{"type":"DRAIN_AGENT","drain_agent":{"agent_id":{"value":"x"}}}`, 400, "Unknown agent")
	call(`{"type":"MARK_AGENT_GONE","mark_agent_gone":{"agent_id":{"value":"x"}}}`, 404, "Unknown agent")
	call(`{"type":"DRAIN_AGENT","drain_agent":{`+who+`,"max_grace_period":{"seconds":1,"nanos":0}}}`, 200, "")
	a.untilContainers(t, 0)
	m.until(t, "an empty agent", func(s *master.Snapshot) bool {
		return len(s.Agents) == 1 && s.Agents[0].Marks.Drain != nil && s.Agents[0].Marks.Drain.Drained
	})
	m.stop()
	m = startMaster(t, m.addr, func(c *Config) { c.Store = st })
	m.until(t, "the agent again", func(s *master.Snapshot) bool { return len(s.Agents) == 1 })
	f.next(t, "subscribed")
	_, text := m.post(t, "/api/v1", `{"type":"GET_AGENTS"}`, "Content-Type", typeJSON)
	got := parseJSON(t, text)
	if got.path("get_agents", "agents", 0, "drain_info", "state") != "DRAINED" || got.path("get_agents", "agents", 0, "deactivated") != true {
		t.Errorf("GET_AGENTS: %s", text)
	}
	call(`{"type":"REACTIVATE_AGENT","reactivate_agent":{`+who+`}}`, 200, "")
	f.offered = nil
	f.offer(t)
	call(`{"type":"DEACTIVATE_AGENT","deactivate_agent":{`+who+`}}`, 200, "")
	f.next(t, "rescinded")
	call(`{"type":"MARK_AGENT_GONE","mark_agent_gone":{`+who+`}}`, 200, "")
	f.next(t, "lost")
}

func TestMaintenanceEndpoints(t *testing.T) {
	st := store.NewMemory()
	m := startMaster(t, "", func(c *Config) { c.Store = st })
	window := `{"windows":[{"machine_ids":[{"hostname":"h","ip":"10.0.0.1"}],"unavailability":{"start":{"nanoseconds":1000},"duration":{"nanoseconds":2000}}}]}`
	machine := `[{"hostname":"h","ip":"10.0.0.1"}]`
	for _, x := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"POST", "/machine/down", machine, 400, "not part of a maintenance schedule"},
		{"POST", "/maintenance/schedule", `{"windows":[{"machine_ids":[{"ip":"x"}],"unavailability":{"start":{"nanoseconds":1}}}]}`, 400, "Invalid machine"},
		{"POST", "/maintenance/schedule", `{"windows":`, 400, "JSON"},
		{"POST", "/maintenance/schedule", window, 200, ""},
		{"GET", "/maintenance/schedule", "", 200, window},
		{"GET", "/master/maintenance/status", "", 200, `{"draining_machines":[{"id":{"hostname":"h","ip":"10.0.0.1"}}]}`},
		{"POST", "/machine/down", machine, 200, ""},
		{"POST", "/machine/down", `{`, 400, "Failed to parse"},
		{"GET", "/machine/down", ``, 405, "POST"},
		{"GET", "/maintenance/status", "", 200, `{"down_machines":[{"hostname":"h","ip":"10.0.0.1"}]}`},
		{"POST", "/api/v1", `{"type":"GET_MAINTENANCE_SCHEDULE"}`, 200, window},
		{"POST", "/api/v1", `{"type":"GET_MAINTENANCE_STATUS"}`, 200, `"down_machines"`},
		{"POST", "/api/v1", `{"type":"START_MAINTENANCE","start_maintenance":{"machines":` + machine + `}}`, 400, "cannot be brought down"},
	} {
		resp, text := m.ask(t, x.method, x.path, x.body, "Content-Type", typeJSON)
		if resp.StatusCode != x.status || !strings.Contains(text, x.want) {
			t.Errorf("%s %s %s: %s %q, want %d %q", x.method, x.path, x.body, resp.Status, text, x.status, x.want)
		}
	}
	m.stop()
	m = startMaster(t, m.addr, func(c *Config) { c.Store = st })
	if _, text := m.get(t, "/maintenance/status"); !strings.Contains(text, "down_machines") {
		t.Errorf("after a restart: %s", text)
	}
	resp, text := m.post(t, "/api/v1", `{"type":"STOP_MAINTENANCE","stop_maintenance":{"machines":`+machine+`}}`, "Content-Type", typeJSON)
	if _, left := m.get(t, "/maintenance/schedule"); resp.StatusCode != 200 || left != "{}" {
		t.Errorf("up: %s %s; %s", resp.Status, text, left)
	}
}
