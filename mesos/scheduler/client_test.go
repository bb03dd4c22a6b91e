package scheduler

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/mesos/convert"
	"github.com/mesopool/mesopool/mesos/recordio"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	schedulerv1 "github.com/mesopool/mesopool/mesos/v1/scheduler"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

const limit = 10 * time.Second // for whatever must come

// fakeMaster takes subscriptions and calls; the test writes the events.
type fakeMaster struct {
	t      *testing.T
	server *httptest.Server
	subs   chan *stream
	calls  chan received
	answer func(*schedulerv1.Call) int // 0: 202

	mu     sync.Mutex
	status int    // of subscriptions; 0: 200
	leader string // redirect subscriptions there
	n      int
}

type received struct {
	call   *schedulerv1.Call
	stream string
	conn   string
}

// stream is one subscription.
type stream struct {
	t    *testing.T
	id   string
	call *schedulerv1.Call
	open bool
	text chan []byte // to be written
	end  chan struct{}
	gone <-chan struct{} // the client has left
}

func newMaster(t *testing.T) *fakeMaster {
	m := &fakeMaster{t: t, subs: make(chan *stream, 100), calls: make(chan received, 1000)}
	m.server = httptest.NewServer(m)
	t.Cleanup(func() { m.server.CloseClientConnections(); m.server.Close() })
	return m
}

func (m *fakeMaster) address() string { return m.server.Listener.Addr().String() }

func (m *fakeMaster) set(status int, leader string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.status, m.leader = status, leader
}

func (m *fakeMaster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	call := &schedulerv1.Call{}
	if err == nil {
		err = proto.Unmarshal(body, call)
	}
	if err != nil || r.Method != http.MethodPost || r.URL.Path != "/api/v1/scheduler" || r.Header.Get("Content-Type") != "application/x-protobuf" {
		m.t.Errorf("%s %s, error %v, headers %v", r.Method, r.URL, err, r.Header)
	}
	if call.GetType() != schedulerv1.Call_SUBSCRIBE {
		m.calls <- received{call, r.Header.Get("Mesos-Stream-Id"), r.RemoteAddr}
		status := http.StatusAccepted
		if m.answer != nil {
			if s := m.answer(call); s != 0 {
				status = s
			}
		}
		w.WriteHeader(status)
		return
	}
	m.subscribe(w, r, call)
}

func (m *fakeMaster) subscribe(w http.ResponseWriter, r *http.Request, call *schedulerv1.Call) {
	m.mu.Lock()
	m.n++
	s := &stream{t: m.t, id: fmt.Sprintf("stream-%d", m.n), call: call, text: make(chan []byte), end: make(chan struct{}), gone: r.Context().Done()}
	status, leader := m.status, m.leader
	m.mu.Unlock()
	switch {
	case leader != "":
		w.Header().Set("Location", "//"+leader+r.URL.Path)
		w.WriteHeader(http.StatusTemporaryRedirect)
		return
	case status != 0:
		http.Error(w, "not now", status)
		m.subs <- s
		return
	}
	w.Header().Set("Mesos-Stream-Id", s.id)
	w.Header().Set("Content-Type", "application/x-protobuf")
	w.WriteHeader(http.StatusOK)
	http.NewResponseController(w).Flush()
	s.open = true
	m.subs <- s
	for {
		select {
		case text := <-s.text:
			w.Write(text)
			http.NewResponseController(w).Flush()
		case <-s.end:
			return
		case <-s.gone:
			return
		}
	}
}

func (s *stream) write(text []byte) {
	select {
	case s.text <- text:
	case <-s.gone:
	}
}

// next returns the next subscription.
func (m *fakeMaster) next() *stream {
	m.t.Helper()
	return receive(m.t, m.subs, "subscription")
}

func receive[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case x := <-c:
		return x
	case <-time.After(limit):
		t.Fatalf("no %s came", what)
		panic("unreachable")
	}
}

func (s *stream) event(e *schedulerv1.Event) {
	s.t.Helper()
	body, err := proto.Marshal(e)
	if err != nil {
		s.t.Fatal(err)
	}
	s.write(recordio.Append(nil, body))
}

func (s *stream) subscribed(heartbeat float64) {
	s.t.Helper()
	s.event(&schedulerv1.Event{Type: schedulerv1.Event_SUBSCRIBED.Enum(), Subscribed: &schedulerv1.Event_Subscribed{
		FrameworkId: &mesosv1.FrameworkID{Value: new("f1")}, HeartbeatIntervalSeconds: &heartbeat,
		MasterInfo: &mesosv1.MasterInfo{Id: new("m1"), Ip: new(uint32(1)), Port: new(uint32(5050))},
	}})
}

// handler tells the test of every event, as a line.
type handler struct {
	told       chan string
	subscribed func() error
}

func (h *handler) Subscribed(framework, master string) error {
	h.told <- "subscribed " + framework + " " + master
	if h.subscribed != nil {
		return h.subscribed()
	}
	return nil
}

func (h *handler) Offers(list []task.Offer) {
	for _, o := range list {
		h.told <- fmt.Sprintf("offer %s %s %s %s %s %s/%s %v %v", o.ID, o.Agent, o.Hostname, o.URL, o.Role, o.Region, o.Zone, o.Attributes, o.Resources)
	}
}
func (h *handler) Rescinded(id string) { h.told <- "rescinded " + id }
func (h *handler) Update(id, agent string, s task.Status) {
	h.told <- fmt.Sprintf("update %s %s %s %s", id, agent, s.State, s.UUID)
}
func (h *handler) AgentLost(id string) { h.told <- "agent lost " + id }
func (h *handler) Disconnected()       { h.told <- "disconnected" }

type client struct {
	*Client
	t    *testing.T
	h    *handler
	done chan error
}

func start(t *testing.T, m *fakeMaster, change func(*handler)) *client {
	t.Helper()
	c := &client{t: t, h: &handler{told: make(chan string, 1000)}, done: make(chan error, 1)}
	if change != nil {
		change(c.h)
	}
	c.Client = New(Config{
		Framework: &mesosv1.FrameworkInfo{User: new("root"), Name: new("test")}, Retry: 50 * time.Millisecond, Log: slog.New(slog.DiscardHandler),
		Master: func(context.Context) (string, error) { return m.address(), nil },
	})
	ctx, cancel := context.WithCancel(context.Background())
	go func() { c.done <- c.Run(ctx, c.h) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-c.done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(limit):
			t.Error("Run does not end")
		}
	})
	return c
}

// ended returns why Run ended by itself.
func (c *client) ended() error {
	c.t.Helper()
	err := receive(c.t, c.done, "end of Run")
	c.done <- nil
	return err
}

func (c *client) hears(want ...string) {
	c.t.Helper()
	for _, w := range want {
		if got := receive(c.t, c.h.told, "event "+w); got != w {
			c.t.Fatalf("heard %q, want %q", got, w)
		}
	}
}

// quiet fails if anything was told beside what the test has heard.
func (c *client) quiet() {
	c.t.Helper()
	select {
	case got := <-c.h.told:
		c.t.Fatalf("heard %q", got)
	default:
	}
}

func TestEvents(t *testing.T) {
	m := newMaster(t)
	c := start(t, m, nil)
	s := m.next()
	if s.call.GetSubscribe().GetFrameworkInfo().GetName() != "test" || s.call.FrameworkId != nil {
		t.Errorf("subscription: %v", s.call)
	}
	s.subscribed(15)
	total, _ := resources.Parse("cpus:1")
	text := func(name, v string) *mesosv1.Attribute {
		return &mesosv1.Attribute{Name: &name, Type: mesosv1.Value_TEXT.Enum(), Text: &mesosv1.Value_Text{Value: &v}}
	}
	s.event(&schedulerv1.Event{Type: schedulerv1.Event_OFFERS.Enum(), Offers: &schedulerv1.Event_Offers{Offers: []*mesosv1.Offer{{
		Id: &mesosv1.OfferID{Value: new("o1")}, FrameworkId: &mesosv1.FrameworkID{Value: new("f1")}, AgentId: &mesosv1.AgentID{Value: new("a1")},
		Hostname: new("h1"), Url: agentAt("http", "10.0.0.1", 5051), AllocationInfo: &mesosv1.Resource_AllocationInfo{Role: new("web")},
		Domain: &mesosv1.DomainInfo{FaultDomain: &mesosv1.DomainInfo_FaultDomain{
			Region: &mesosv1.DomainInfo_FaultDomain_RegionInfo{Name: new("r")}, Zone: &mesosv1.DomainInfo_FaultDomain_ZoneInfo{Name: new("z")},
		}},
		Attributes: []*mesosv1.Attribute{
			text("rack", "1"),
			{Name: new("size"), Type: mesosv1.Value_SCALAR.Enum(), Scalar: &mesosv1.Value_Scalar{Value: new(2.5)}},
			{Name: new("set"), Type: mesosv1.Value_SET.Enum(), Set: &mesosv1.Value_Set{Item: []string{"a", "b"}}},
		},
		Resources: convert.ResourcesTo(total.Allocated("web"), convert.Stack),
	}}}})
	s.event(&schedulerv1.Event{Type: schedulerv1.Event_HEARTBEAT.Enum()})
	s.event(&schedulerv1.Event{Type: schedulerv1.Event_RESCIND.Enum(), Rescind: &schedulerv1.Event_Rescind{OfferId: &mesosv1.OfferID{Value: new("o1")}}})
	s.event(&schedulerv1.Event{Type: schedulerv1.Event_UPDATE.Enum(), Update: &schedulerv1.Event_Update{
		Status: convert.TaskStatus("t1", "a1", &task.Status{State: task.Running, UUID: task.UUID{1}}),
	}})
	s.event(&schedulerv1.Event{Type: schedulerv1.Event_FAILURE.Enum(), Failure: &schedulerv1.Event_Failure{
		AgentId: &mesosv1.AgentID{Value: new("a1")}, ExecutorId: &mesosv1.ExecutorID{Value: new("e")},
	}})
	s.event(&schedulerv1.Event{Type: schedulerv1.Event_FAILURE.Enum(), Failure: &schedulerv1.Event_Failure{AgentId: &mesosv1.AgentID{Value: new("a1")}}})
	s.event(&schedulerv1.Event{}) // from a later version
	close(s.end)
	c.hears(
		"subscribed f1 m1",
		fmt.Sprintf("offer o1 a1 h1 http://10.0.0.1:5051/slave(1) web r/z [{rack 1} {size 2.5} {set a,b}] %v", total.Allocated("web")),
		"rescinded o1",
		"update t1 a1 TASK_RUNNING "+task.UUID{1}.String(),
		"agent lost a1",
		"disconnected",
	)
	s = m.next() // and again, as whom the master knows
	if s.call.GetFrameworkId().GetValue() != "f1" || s.call.GetSubscribe().GetFrameworkInfo().GetId().GetValue() != "f1" {
		t.Errorf("subscription: %v", s.call)
	}
	c.quiet()
}

func TestCalls(t *testing.T) {
	m := newMaster(t)
	c := start(t, m, nil)
	c.Revive() // without a stream: void
	s := m.next()
	s.subscribed(15)
	c.hears("subscribed f1 m1")
	c.Accept([]string{"o1", "o2"}, "a1", task.Launch{Tasks: []task.Spec{{Key: task.Key{Framework: "f1", ID: "t1"}, Name: "n"}}}, 5*time.Second)
	c.Decline([]string{"o3"}, time.Hour)
	c.Kill("t1", "a1", new(3*time.Second))
	c.Kill("t2", "", nil)
	c.Acknowledge("t1", "a1", task.UUID{1, 15: 2})
	c.Reconcile(map[string]string{"t1": "a1"})
	c.Suppress()
	for i := range 200 {
		c.Decline([]string{fmt.Sprintf("x%d", i)}, 0)
	}
	c.Teardown()
	var got []*schedulerv1.Call
	conns := map[string]bool{}
	for range 208 {
		r := receive(t, m.calls, "call")
		if r.stream != s.id || r.call.GetFrameworkId().GetValue() != "f1" {
			t.Fatalf("stream %q, call %v", r.stream, r.call)
		}
		conns[r.conn] = true
		got = append(got, r.call)
	}
	if len(conns) != 1 {
		t.Errorf("%d connections", len(conns))
	}
	a := got[0].GetAccept()
	if len(a.OfferIds) != 2 || a.GetFilters().GetRefuseSeconds() != 5 || a.Operations[0].GetLaunch().TaskInfos[0].GetTaskId().GetValue() != "t1" {
		t.Errorf("accept: %v", a)
	}
	if got[2].GetKill().GetKillPolicy().GetGracePeriod().GetNanoseconds() != 3e9 || got[3].GetKill().AgentId != nil {
		t.Errorf("kills: %v %v", got[2], got[3])
	}
	if u := got[4].GetAcknowledge().GetUuid(); len(u) != 16 || u[15] != 2 {
		t.Errorf("acknowledgement: %v", got[4])
	}
	if r := got[5].GetReconcile().Tasks; len(r) != 1 || r[0].GetAgentId().GetValue() != "a1" {
		t.Errorf("reconcile: %v", got[5])
	}
	for i := range 200 {
		if id := got[7+i].GetDecline().OfferIds[0].GetValue(); id != fmt.Sprintf("x%d", i) {
			t.Fatalf("call %d is about %s", i, id)
		}
	}
	if got[207].GetType() != schedulerv1.Call_TEARDOWN {
		t.Errorf("the last call: %v", got[207])
	}
}

// Calls do not wait for the answers of earlier ones.
func TestCallsArePipelined(t *testing.T) {
	m := newMaster(t)
	release := make(chan struct{})
	defer close(release)
	m.answer = func(*schedulerv1.Call) int { <-release; return 0 }
	c := start(t, m, nil)
	m.next().subscribed(15)
	c.hears("subscribed f1 m1")
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for range 1000 {
			c.Revive()
		}
	}()
	receive(t, sent, "end of sending")
	receive(t, m.calls, "call")
}

func TestRedirect(t *testing.T) {
	m, leader := newMaster(t), newMaster(t)
	m.set(0, leader.address())
	c := start(t, m, nil)
	leader.next().subscribed(15)
	c.hears("subscribed f1 m1")
	c.Revive()
	receive(t, leader.calls, "call") // goes to the leader, too
	if len(m.calls) > 0 {
		t.Error("the first master got a call")
	}
}

func TestRedirectsInACircle(t *testing.T) {
	m := newMaster(t)
	m.set(0, m.address())
	start(t, m, nil)
	deadline := time.Now().Add(limit)
	for n := 0; n < 20; { // two rounds of nine, and on
		m.mu.Lock()
		n = m.n
		m.mu.Unlock()
		if time.Now().After(deadline) {
			t.Fatalf("only %d subscriptions", n)
		}
		time.Sleep(time.Millisecond)
	}
	m.set(0, "")
	m.next()
}

func TestNotNow(t *testing.T) {
	m := newMaster(t)
	m.set(http.StatusServiceUnavailable, "")
	c := start(t, m, nil)
	m.next()
	m.next()
	m.set(0, "")
	for {
		s := m.next()
		if s.open {
			s.subscribed(15)
			break
		}
	}
	c.hears("subscribed f1 m1")
}

func TestRefusedCallEndsTheSession(t *testing.T) {
	m := newMaster(t)
	m.answer = func(c *schedulerv1.Call) int {
		if c.GetType() == schedulerv1.Call_KILL {
			return http.StatusBadRequest
		}
		return 0
	}
	c := start(t, m, nil)
	first := m.next()
	first.subscribed(15)
	c.hears("subscribed f1 m1")
	c.Revive()
	c.Kill("t", "", nil)
	c.hears("disconnected")
	second := m.next()
	second.subscribed(15)
	c.hears("subscribed f1 m1")
	c.Suppress()
	for {
		r := receive(t, m.calls, "call")
		if r.call.GetType() == schedulerv1.Call_SUPPRESS {
			if r.stream != second.id {
				t.Errorf("the new call went to %s", r.stream)
			}
			break
		}
	}
	receive(t, first.gone, "end of the first stream")
	c.quiet()
}

func TestBrokenStreams(t *testing.T) {
	for name, end := range map[string]func(*stream){
		"end":      func(s *stream) { close(s.end) },
		"garbage":  func(s *stream) { s.write([]byte("x\n")) },
		"no event": func(s *stream) { s.write([]byte("1\n\xff")) },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMaster(t)
			c := start(t, m, nil)
			s := m.next()
			s.subscribed(15)
			c.hears("subscribed f1 m1")
			end(s)
			c.hears("disconnected")
			m.next().subscribed(15)
			c.hears("subscribed f1 m1")
			c.quiet()
		})
	}
}

// A stream that says nothing for five heartbeats is given up, from the first
// event on.
func TestSilence(t *testing.T) {
	m := newMaster(t)
	c := start(t, m, nil)
	s := m.next()
	s.subscribed(0.02)
	c.hears("subscribed f1 m1", "disconnected")
	m.next()
	c.quiet()
}

// Who was never subscribed is not told that this has ended.
func TestDisconnectedOnlyIfSubscribed(t *testing.T) {
	m := newMaster(t)
	c := start(t, m, nil)
	close(m.next().end)
	m.next().subscribed(15)
	c.hears("subscribed f1 m1")
}

func TestRefused(t *testing.T) {
	m := newMaster(t)
	c := start(t, m, nil)
	s := m.next()
	s.subscribed(15)
	s.event(&schedulerv1.Event{Type: schedulerv1.Event_ERROR.Enum(), Error: &schedulerv1.Event_Error{Message: new("Framework has been removed")}})
	err := c.ended()
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "Framework has been removed") {
		t.Errorf("Run: %v", err)
	}
	c.hears("subscribed f1 m1", "disconnected")
	c.quiet()
}

// Another instance of the framework took over: this one tries again.
func TestFailedOver(t *testing.T) {
	m := newMaster(t)
	c := start(t, m, nil)
	s := m.next()
	s.subscribed(15)
	s.event(&schedulerv1.Event{Type: schedulerv1.Event_ERROR.Enum(), Error: &schedulerv1.Event_Error{Message: new("Framework failed over")}})
	m.next()
	c.hears("subscribed f1 m1", "disconnected")
}

// A framework that cannot keep its ID must not go on.
func TestHandlerEndsTheClient(t *testing.T) {
	m := newMaster(t)
	full := errors.New("no space left on device")
	c := start(t, m, func(h *handler) { h.subscribed = func() error { return full } })
	m.next().subscribed(15)
	if err := c.ended(); !errors.Is(err, full) {
		t.Errorf("Run: %v", err)
	}
	c.hears("subscribed f1 m1", "disconnected")
	if d := cmp.Diff(0, len(m.subs)); d != "" {
		t.Error("it subscribed again")
	}
}
