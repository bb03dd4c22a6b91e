package link

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/agent"
	"github.com/mesopool/mesopool/mesos/crammd5"
	"github.com/mesopool/mesopool/mesos/libprocess"
	"github.com/mesopool/mesopool/mesos/messages"
)

const sessionID = "crammd5-authenticator-session(1)"

func withCredential(t *testing.T, secret string) *env {
	t.Helper()
	e := newEnv(t)
	e.tune = func(l *Link) {
		l.cfg.Credential, l.patient = &crammd5.Credential{Principal: "agent", Secret: secret}, 300*time.Millisecond
	}
	return e
}

// authenticate is the master's side of one exchange.
func (e *env) authenticate() {
	e.t.Helper()
	inbox := make(chan libprocess.Message, 10)
	e.master.node.Handle(sessionID, func(m libprocess.Message) {
		m.Body = append([]byte(nil), m.Body...)
		inbox <- m
	})
	s := crammd5.NewSession(func(string) (string, bool) { return "secret", true })
	m, raw := expect(e.master, &messages.AuthenticateMessage{})
	if m.GetPid() != e.link.cfg.Self.String() {
		e.t.Errorf("authenticates %s", m.GetPid())
	}
	for out := s.Mechanisms(); ; {
		if err := e.master.node.SendProto(sessionID, raw.From, out); err != nil {
			e.t.Fatal(err)
		}
		if s.Done() {
			return
		}
		var in proto.Message = &messages.AuthenticationStartMessage{}
		x := <-inbox
		if strings.HasSuffix(x.Name, "StepMessage") {
			in = &messages.AuthenticationStepMessage{}
		}
		if err := proto.Unmarshal(x.Body, in); err != nil {
			e.t.Fatal(err)
		}
		out = s.Receive(in)
	}
}

// Each registration is authenticated anew; attempts without an answer, and a
// master that cannot, are tried again.
func TestAuthenticates(t *testing.T) {
	e := withCredential(t, "secret")
	e.start()
	expect(e.master, &messages.AuthenticateMessage{})
	_, raw := expect(e.master, &messages.AuthenticateMessage{})
	if err := e.master.node.SendProto("master", raw.From, &messages.AuthenticationErrorMessage{Error: new("No authenticator loaded")}); err != nil {
		t.Fatal(err)
	}
	e.authenticate()
	expect(e.master, &messages.RegisterSlaveMessage{})
	e.admit(75)
	e.send(&messages.PingSlaveMessage{Connected: new(false)})
	e.authenticate()
	e.readmit()
}

func TestARefusedCredentialEndsTheLink(t *testing.T) {
	e := withCredential(t, "wrong")
	e.start()
	e.authenticate()
	select {
	case err := <-e.done:
		if err == nil || !strings.Contains(err.Error(), `refuses the credential of "agent"`) || !strings.Contains(err.Error(), e.master.upid().Addr.String()) {
			t.Errorf("Run: %v", err)
		}
		e.done <- nil // for stop
	case <-time.After(limit):
		t.Fatal("Run goes on")
	}
}

// A new leader is followed although the old master still answers.
func TestFollowsAnotherLeader(t *testing.T) {
	e := newEnv(t)
	e.tune = func(l *Link) { l.cfg.Recheck = 20 * time.Millisecond }
	e.start()
	expect(e.master, &messages.RegisterSlaveMessage{})
	e.admit(75)
	old := e.master
	e.lead(nil) // nobody is no news
	time.Sleep(100 * time.Millisecond)
	if _, ok := e.link.Master(); !ok {
		t.Error("left its master for nobody")
	}
	e.lead(newMaster(t, "127.0.0.1:0"))
	input[agent.Parted](e)
	e.readmit()
	if m, _ := e.link.Master(); m != e.master.upid() || m == old.upid() {
		t.Errorf("registered with %v", m)
	}
}
