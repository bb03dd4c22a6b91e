package crammd5

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/mesos/libprocess"
	"github.com/mesopool/mesopool/mesos/messages"
)

// The example of RFC 2195, section 2.
func TestAnswer(t *testing.T) {
	got := Credential{"tim", "tanstaaftanstaaf"}.answer([]byte("<1896.697170952@postoffice.reston.mci.net>"))
	if want := "tim b913a602c7eda7a495b4e6e7334d3890"; string(got) != want {
		t.Errorf("answer %q, want %q", got, want)
	}
}

func TestParse(t *testing.T) {
	for text, want := range map[string]Credential{
		"agent secret\n": {"agent", "secret"}, ` {"principal": "a b", "secret": "s"}`: {"a b", "s"},
		"": {}, "agent": {}, "a b c": {}, "{": {}, `{"principal":"a"}`: {},
	} {
		got, err := Parse(text)
		if (err == nil) != (want.Secret != "") || err == nil && got != want {
			t.Errorf("%q: %+v, error %v", text, got, err)
		}
		if err != nil && !strings.Contains(err.Error(), "principal") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func secrets(p string) (string, bool) {
	s, ok := map[string]string{"agent": "secret", "no secret": ""}[p]
	return s, ok
}

func begun() *Session {
	s := NewSession(secrets)
	s.Receive(&messages.AuthenticationStartMessage{Mechanism: new("CRAM-MD5")})
	return s
}

func step(data []byte) proto.Message { return &messages.AuthenticationStepMessage{Data: data} }

func TestSession(t *testing.T) {
	for name, x := range map[string]struct {
		session func() *Session
		in      func(s *Session) proto.Message
		want    string
		who     string
	}{
		"right":             {begun, func(s *Session) proto.Message { return step(Credential{"agent", "secret"}.answer(s.challenge)) }, "Completed", "agent"},
		"a wrong secret":    {begun, func(s *Session) proto.Message { return step(Credential{"agent", "other"}.answer(s.challenge)) }, "Failed", ""},
		"a stranger":        {begun, func(s *Session) proto.Message { return step(Credential{"x", ""}.answer(s.challenge)) }, "Failed", ""},
		"an empty secret":   {begun, func(s *Session) proto.Message { return step(Credential{"no secret", ""}.answer(s.challenge)) }, "Failed", ""},
		"another challenge": {begun, func(*Session) proto.Message { return step(Credential{"agent", "secret"}.answer([]byte("x"))) }, "Failed", ""},
		"nothing":           {begun, func(*Session) proto.Message { return step(nil) }, "Failed", ""},
		"one word":          {begun, func(*Session) proto.Message { return step([]byte("agent")) }, "Failed", ""},
		"a step too early":  {func() *Session { return NewSession(secrets) }, func(*Session) proto.Message { return step(nil) }, "Error", ""},
		"started twice":     {begun, func(*Session) proto.Message { return &messages.AuthenticationStartMessage{Mechanism: new("CRAM-MD5")} }, "Error", ""},
		"another mechanism": {func() *Session { return NewSession(secrets) }, func(*Session) proto.Message { return &messages.AuthenticationStartMessage{Mechanism: new("PLAIN")} }, "Error", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := x.session()
			out := s.Receive(x.in(s))
			if out == nil || !strings.Contains(string(out.ProtoReflect().Descriptor().Name()), "Authentication"+x.want) {
				t.Errorf("answer %T, want %s", out, x.want)
			}
			if who, ok := s.Principal(); who != x.who || ok != (x.who != "") || !s.Done() {
				t.Errorf("principal %q, done %v", who, s.Done())
			}
			if again := s.Receive(step(nil)); again != nil {
				t.Errorf("an answer after the end: %T", again)
			}
		})
	}
}

func newNode(t *testing.T) *libprocess.Node {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := libprocess.NewNode(libprocess.Config{Listener: l})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return n
}

// serve is a master that authenticates, or answers with a message of its own.
func serve(t *testing.T, n *libprocess.Node, pid chan<- string, instead proto.Message) {
	s := NewSession(secrets)
	send := func(to libprocess.UPID, m proto.Message) {
		if m == nil {
			return
		}
		if err := n.SendProto("crammd5-authenticator-session(1)", to, m); err != nil {
			t.Error(err)
		}
	}
	n.Handle("master", func(m libprocess.Message) {
		var x messages.AuthenticateMessage
		if err := proto.Unmarshal(m.Body, &x); err != nil {
			t.Error(err)
		}
		pid <- x.GetPid()
		if instead != nil {
			send(m.From, instead)
			return
		}
		send(m.From, s.Mechanisms())
	})
	n.Handle("crammd5-authenticator-session(1)", func(m libprocess.Message) {
		var in proto.Message = &messages.AuthenticationStepMessage{}
		if strings.HasSuffix(m.Name, "StartMessage") {
			in = &messages.AuthenticationStartMessage{}
		}
		if err := proto.Unmarshal(m.Body, in); err != nil {
			t.Error(err)
		}
		send(m.From, s.Receive(in))
	})
}

func TestAuthenticate(t *testing.T) {
	for name, x := range map[string]struct {
		credential Credential
		instead    proto.Message
		words      string
		refused    bool
	}{
		"right":             {Credential{"agent", "secret"}, nil, "", false},
		"wrong":             {Credential{"agent", "x"}, nil, `refuses the credential of "agent"`, true},
		"no authenticator":  {Credential{"agent", "secret"}, &messages.AuthenticationErrorMessage{Error: new("No authenticator loaded")}, "No authenticator loaded", false},
		"other mechanisms":  {Credential{"agent", "secret"}, &messages.AuthenticationMechanismsMessage{Mechanisms: []string{"PLAIN"}}, `offers ["PLAIN"]`, false},
		"completed at once": {Credential{"agent", "secret"}, &messages.AuthenticationCompletedMessage{}, "does not answer", false},
		"a step at once":    {Credential{"agent", "secret"}, step([]byte{}), "does not answer", false},
	} {
		t.Run(name, func(t *testing.T) {
			master, agent := newNode(t), newNode(t)
			pid := make(chan string, 1)
			serve(t, master, pid, x.instead)
			limit := 10 * time.Second
			if x.words == "does not answer" {
				limit = 200 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			err := Authenticate(ctx, agent, agent.UPID("slave(1)"), master.UPID("master"), x.credential)
			if (err == nil) != (x.words == "") || err != nil && !strings.Contains(err.Error(), x.words) {
				t.Errorf("error %v, want %q", err, x.words)
			}
			if errors.Is(err, ErrRefused) != x.refused {
				t.Errorf("error %v, refused %v", err, x.refused)
			}
			if got := <-pid; got != agent.UPID("slave(1)").String() {
				t.Errorf("authenticated as %q", got)
			}
		})
	}
}
