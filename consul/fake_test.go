package consul

import (
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/consul/api"
)

// fakeConsul is a small Consul agent that can be told to misbehave.
type fakeConsul struct {
	server  *http.Server
	address string

	mu       sync.Mutex
	services map[string]*api.AgentService
	calls    []string // "register ID", "deregister ID", "list"
	fail     func(call string) (status int)
	hang     chan struct{} // not nil: calls wait until it is closed
}

// newFake makes a fake that nobody can reach before start.
func newFake(t *testing.T) *fakeConsul {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeConsul{address: l.Addr().String(), services: make(map[string]*api.AgentService)}
	l.Close()
	return f
}

// start lets the fake answer on its address until stop or the test's end.
func (f *fakeConsul) start(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", f.address)
	if err != nil {
		t.Fatal(err)
	}
	f.server = &http.Server{Handler: f}
	server := f.server
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
}

func (f *fakeConsul) stop() { f.server.Close() }

func (f *fakeConsul) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	var reg api.AgentServiceRegistration
	call := "list"
	if id, ok := strings.CutPrefix(req.URL.Path, "/v1/agent/service/deregister/"); ok {
		call, reg.ID = "deregister "+id, id
	} else if strings.HasSuffix(req.URL.Path, "/register") {
		if err := json.Unmarshal(body, &reg); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		call = "register " + reg.ID
	}
	f.mu.Lock()
	hang := f.hang
	f.mu.Unlock()
	if hang != nil {
		<-hang
	}
	f.answer(w, call, &reg)
}

func (f *fakeConsul) answer(w http.ResponseWriter, call string, reg *api.AgentServiceRegistration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, call)
	if f.fail != nil {
		if status := f.fail(call); status != 0 {
			http.Error(w, "told to fail", status)
			return
		}
	}
	switch {
	case call == "list": // ignores the filter, as a proxy might
		json.NewEncoder(w).Encode(f.services)
	case strings.HasPrefix(call, "register "):
		f.services[reg.ID] = &api.AgentService{
			ID: reg.ID, Service: reg.Name, Tags: reg.Tags, Meta: reg.Meta, Port: reg.Port, Address: reg.Address,
		}
	case f.services[reg.ID] == nil:
		http.Error(w, "Unknown service ID", http.StatusNotFound)
	default:
		delete(f.services, reg.ID)
	}
}

// ids are the IDs of the services that the fake holds, sorted.
func (f *fakeConsul) ids() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.services))
}

// take returns the calls since the last take, without listings.
func (f *fakeConsul) take() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls := slices.DeleteFunc(f.calls, func(c string) bool { return c == "list" })
	f.calls = nil
	return calls
}

// edit changes the fake under its lock.
func (f *fakeConsul) edit(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}
