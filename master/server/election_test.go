package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/mesos/messages"
	"github.com/mesopool/mesopool/store"
)

// vote is an election whose outcome a test decides.
type vote struct {
	leader  string
	info    chan []byte
	elected chan struct{} // closed: this master is
	deposed chan error
}

func newVote() *vote {
	return &vote{info: make(chan []byte, 1), elected: make(chan struct{}), deposed: make(chan error, 1)}
}

func (v *vote) Leader() string { return v.leader }

func (v *vote) Run(ctx context.Context, info []byte, elected func()) error {
	v.info <- info
	select {
	case <-v.elected:
		elected()
	case <-ctx.Done():
		return nil
	}
	select {
	case err := <-v.deposed:
		return err
	case <-ctx.Done():
		return nil
	}
}

// Test10B_02_MasterInfo: what a master puts into the group is what genuine agents
// and drivers look for (mesos.proto, MasterInfo).
func Test10B_02_MasterInfo(t *testing.T) {
	v := newVote()
	m := startMaster(t, "", func(c *Config) { c.Election, c.Hostname = v, "m1.example" })
	var got map[string]any
	if err := json.Unmarshal(<-v.info, &got); err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(m.addr, ":")
	var number float64
	fmt.Sscan(port, &number)
	want := map[string]any{
		"id": m.ID(), "ip": 16777343.0, "port": number, "pid": "master@" + m.addr, "hostname": "m1.example", "version": "1.11.0",
		"address":      map[string]any{"hostname": "m1.example", "ip": "127.0.0.1", "port": number},
		"capabilities": []any{map[string]any{"type": "AGENT_UPDATE"}, map[string]any{"type": "AGENT_DRAINING"}, map[string]any{"type": "QUOTA_V2"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("MasterInfo (-want +got):\n%s", diff)
	}
}

// Only the leader serves; who does not lead sends others to it, and who leads no
// longer ends.
func TestElection(t *testing.T) {
	nobody, other := newVote(), newVote()
	other.leader = "10.9.8.7:5050"
	alone := startMaster(t, "", func(c *Config) { c.Election = nobody })
	m := startMaster(t, "", func(c *Config) { c.Election = other })
	follow := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for _, x := range []struct {
		master         *testMaster
		path, location string
		status         int
	}{
		{alone, "/health", "", 200},
		{alone, "/metrics/snapshot", "", 200},
		{m, "/master/version", "", 200},
		{m, "/flags", "", 200},
		{alone, "/state", "", 503},
		{alone, "/master/redirect", "", 503},
		{m, "/health", "", 200},
		{m, "/master/redirect", "//10.9.8.7:5050", 307},
		{m, "/master/state?jsonp=a", "//10.9.8.7:5050/master/state?jsonp=a", 307},
		{m, "/api/v1/scheduler", "//10.9.8.7:5050/api/v1/scheduler", 307},
		{m, "/", "//10.9.8.7:5050/", 307},
	} {
		resp, err := follow.Get("http://" + x.master.addr + x.path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != x.status || resp.Header.Get("Location") != x.location {
			t.Errorf("%s: %s to %q, want %d to %q", x.path, resp.Status, resp.Header.Get("Location"), x.status, x.location)
		}
	}
	if _, text := m.get(t, "/metrics/snapshot"); !strings.Contains(text, `"master/elected":0.0`) {
		t.Errorf("metrics of a master that follows: %s", text)
	}
	a := startWireAgent(t, m)
	a.send(t, registration())
	for deadline := time.Now().Add(patience); m.tally.dropped.Load() == 0; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("who does not lead takes an agent")
		}
	}

	close(other.elected)
	<-m.Leading()
	a.send(t, registration())
	receive[*messages.SlaveRegisteredMessage](t, a)
	m.until(t, "the agent", func(snap *master.Snapshot) bool { return len(snap.Agents) == 1 })
	if _, text := m.get(t, "/metrics/snapshot"); !strings.Contains(text, `"master/elected":1.0`) {
		t.Errorf("metrics of a master that leads: %s", text)
	}
	deposed := errors.New("deposed")
	other.deposed <- deposed
	if err := m.wait(); !errors.Is(err, deposed) {
		t.Errorf("a master that leads no longer ends with %v", err)
	}
}

// What cannot be recovered ends the master, elected or not.
func TestElectionWithBrokenStore(t *testing.T) {
	v := newVote()
	close(v.elected)
	m := startMaster(t, "", func(c *Config) { c.Election, c.Store = v, unreadable{c.Store} })
	if err := m.wait(); !errors.Is(err, errBroken) {
		t.Errorf("it ends with %v", err)
	}
}

type unreadable struct{ store.Store }

func (unreadable) List(context.Context, string) ([]store.Entry, error) { return nil, errBroken }
