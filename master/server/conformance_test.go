package server

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/mesos/messages"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
)

// The tests named after numbers are the items of our list of what genuine
// agents (10B) and frameworks (10C) expect of a master, one each.

// genuine is an agent as a genuine one looks on the wire: it writes its messages
// on one connection, byte for byte as libprocess does, and takes the master's on
// a listener.
type genuine struct {
	t      *testing.T
	master string
	pid    string
	out    net.Conn
	codes  chan string  // of the answers to its messages
	got    chan message // all but pings
	pings  chan message
	silent atomic.Bool // does not answer pings

	mu sync.Mutex
	in []net.Conn
}

// message is one message of a master.
type message struct {
	path, name, from string
	header           http.Header
	length           int64 // -1: chunked
	body             []byte
}

func startGenuine(t *testing.T, m *testMaster) *genuine {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	a := &genuine{
		t: t, master: m.addr, pid: "slave(1)@" + l.Addr().String(),
		codes: make(chan string, 1000), got: make(chan message, 1000), pings: make(chan message, 1000),
	}
	a.connect()
	go a.accept(l)
	return a
}

func (a *genuine) connect() {
	a.t.Helper()
	out, err := net.Dial("tcp", a.master)
	if err != nil {
		a.t.Fatal(err)
	}
	a.mu.Lock()
	a.out = out
	a.mu.Unlock()
	a.t.Cleanup(func() { out.Close() })
	go func() {
		r := bufio.NewReader(out)
		for {
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				return
			}
			io.Copy(io.Discard, resp.Body)
			a.codes <- resp.Status
		}
	}()
}

func (a *genuine) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		a.mu.Lock()
		a.in = append(a.in, conn)
		a.mu.Unlock()
		go a.receive(conn)
	}
}

// cut breaks the connections that the master has to the agent.
func (a *genuine) cut() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.in {
		c.Close()
	}
	a.in = nil
}

func (a *genuine) receive(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		m := message{path: req.RequestURI, from: req.Header.Get("Libprocess-From"), header: req.Header, length: req.ContentLength}
		if m.body, err = io.ReadAll(req.Body); err != nil {
			return
		}
		m.name = m.path[strings.LastIndexByte(m.path, '/')+1:]
		io.WriteString(conn, "HTTP/1.1 202 Accepted\r\nDate: Sat, 21 Nov 2026 14:00:00 GMT\r\nContent-Length: 0\r\n\r\n")
		if m.name != "mesos.internal.PingSlaveMessage" {
			a.got <- m
			continue
		}
		a.pings <- m
		if !a.silent.Load() {
			observer, _, _ := strings.Cut(m.from, "@")
			a.write(observer, "mesos.internal.PongSlaveMessage", nil)
		}
	}
}

// write sends a message as libprocess/src/encoder.hpp does: no length of an
// empty body, one chunk of any other.
func (a *genuine) write(to, name string, body []byte) {
	var b strings.Builder
	fmt.Fprintf(&b, "POST /%s/%s HTTP/1.1\r\nUser-Agent: libprocess/%s\r\nLibprocess-From: %s\r\nConnection: Keep-Alive\r\nHost: %s\r\n", to, name, a.pid, a.pid, a.master)
	if len(body) > 0 {
		fmt.Fprintf(&b, "Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n", len(body), body)
	}
	b.WriteString("\r\n")
	a.mu.Lock()
	defer a.mu.Unlock()
	io.WriteString(a.out, b.String()) // whether it arrives is what the tests see
}

func (a *genuine) send(m proto.Message) {
	a.t.Helper()
	body, err := proto.Marshal(m)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write("master", string(m.ProtoReflect().Descriptor().FullName()), body)
}

// nextMessage waits for the next message of the type of m, reads it into m and
// returns it as it came. Required fields must be there.
func (a *genuine) nextMessage(m proto.Message) message {
	a.t.Helper()
	want := string(m.ProtoReflect().Descriptor().FullName())
	timeout := time.After(patience)
	for {
		select {
		case got := <-a.got:
			if got.name != want {
				continue
			}
			if err := proto.Unmarshal(got.body, m); err != nil {
				a.t.Fatalf("%s: %v", want, err)
			}
			return got
		case <-timeout:
			a.t.Fatalf("no %s came", want)
		}
	}
}

// pinged waits for a ping that says whether the agent is connected.
func (a *genuine) pinged(connected bool) message {
	a.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case got := <-a.pings:
			ping := &messages.PingSlaveMessage{}
			if err := proto.Unmarshal(got.body, ping); err != nil {
				a.t.Fatal(err)
			}
			if ping.GetConnected() == connected {
				return got
			}
		case <-timeout:
			a.t.Fatalf("no ping with connected=%v came", connected)
		}
	}
}

// register registers the agent and returns its ID.
func (a *genuine) register() string {
	a.t.Helper()
	a.send(genuineRegistration())
	reg := &messages.SlaveRegisteredMessage{}
	a.nextMessage(reg)
	return reg.SlaveId.GetValue()
}

// version is the agent's resource version in these tests.
const version = "0123456789abcdef"

// genuineRegistration has what a genuine agent 1.11 claims.
func genuineRegistration() *messages.RegisterSlaveMessage {
	in := registration()
	in.AgentCapabilities = nil
	for c := mesosv1.AgentInfo_Capability_MULTI_ROLE; c <= mesosv1.AgentInfo_Capability_TASK_RESOURCE_LIMITS; c++ {
		in.AgentCapabilities = append(in.AgentCapabilities, &mesosv1.AgentInfo_Capability{Type: c.Enum()})
	}
	in.Slave.Resources = append(in.Slave.Resources, scalar("disk", 1024))
	return in
}

// back registers an agent again with tasks of a framework that runs here.
func (a *genuine) back(id string, f *mesosv1.FrameworkInfo, tasks ...*mesosv1.Task) {
	a.t.Helper()
	in := genuineRegistration()
	in.Slave.Id = &mesosv1.AgentID{Value: &id}
	m := &messages.ReregisterSlaveMessage{
		Slave: in.Slave, Version: in.Version, AgentCapabilities: in.AgentCapabilities, ResourceVersionUuid: in.ResourceVersionUuid, Tasks: tasks,
	}
	if f != nil {
		m.Frameworks = []*mesosv1.FrameworkInfo{f}
	}
	a.send(m)
}

// listed is a task as an agent lists it.
func listed(run *messages.RunTaskMessage, state mesosv1.TaskState) *mesosv1.Task {
	t := run.Task
	return &mesosv1.Task{Name: t.Name, TaskId: t.TaskId, FrameworkId: run.Framework.Id, AgentId: t.AgentId, State: &state, Resources: t.Resources}
}

// update reports a state of a task.
func (a *genuine) update(run *messages.RunTaskMessage, state mesosv1.TaskState, uuid string) {
	a.t.Helper()
	a.send(&messages.StatusUpdateMessage{Pid: &a.pid, Update: &messages.StatusUpdate{
		FrameworkId: run.Framework.Id, SlaveId: run.Task.AgentId, Timestamp: new(1.0), Uuid: []byte(uuid), LatestState: &state,
		Status: &mesosv1.TaskStatus{
			TaskId: run.Task.TaskId, AgentId: run.Task.AgentId, State: &state, Uuid: []byte(uuid), Timestamp: new(1.0),
			Source: mesosv1.TaskStatus_SOURCE_EXECUTOR.Enum(),
		},
	}})
}
