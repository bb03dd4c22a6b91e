package crammd5

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/mesos/messages"
)

// Session is the master's side of one exchange. It is not safe for concurrent
// use, and the caller ends it after some time (Mesos: 15 s).
type Session struct {
	secrets   func(principal string) (secret string, ok bool)
	challenge []byte
	started   bool
	done      bool
	principal string // set when it is proven
}

// NewSession returns a session that asks secrets for what it needs to know.
func NewSession(secrets func(principal string) (string, bool)) *Session {
	b := make([]byte, 16)
	rand.Read(b)
	return &Session{secrets: secrets, challenge: []byte("<" + hex.EncodeToString(b) + "@mesopool>")}
}

// Mechanisms is the session's first message.
func (s *Session) Mechanisms() proto.Message {
	return &messages.AuthenticationMechanismsMessage{Mechanisms: []string{mechanism}}
}

// Receive takes a message of the client and returns the answer, nil for none.
func (s *Session) Receive(m proto.Message) proto.Message {
	if s.done {
		return nil
	}
	switch m := m.(type) {
	case *messages.AuthenticationStartMessage:
		return s.start(m)
	case *messages.AuthenticationStepMessage:
		return s.step(m)
	}
	return nil
}

// Done says whether the exchange is over, one way or another.
func (s *Session) Done() bool { return s.done }

// Principal returns who the client has proven to be.
func (s *Session) Principal() (string, bool) { return s.principal, s.principal != "" }

func (s *Session) start(m *messages.AuthenticationStartMessage) proto.Message {
	switch {
	case s.started:
		return s.fail("the authentication has started already")
	case m.GetMechanism() != mechanism:
		return s.fail(fmt.Sprintf("the mechanism %.40q is not offered; %s is", m.GetMechanism(), mechanism))
	}
	s.started = true
	return &messages.AuthenticationStepMessage{Data: s.challenge}
}

func (s *Session) fail(why string) proto.Message {
	s.done = true
	return &messages.AuthenticationErrorMessage{Error: &why}
}

// step compares in constant time, also for those that nobody knows. The
// principal may have spaces, its proof has none.
func (s *Session) step(m *messages.AuthenticationStepMessage) proto.Message {
	if !s.started {
		return s.fail("the authentication has not started")
	}
	s.done = true
	text := string(m.GetData())
	i := max(strings.LastIndexByte(text, ' '), 0)
	principal, proof := text[:i], strings.TrimPrefix(text[i:], " ")
	secret, known := s.secrets(principal)
	equal := subtle.ConstantTimeCompare([]byte(proof), []byte(digest(secret, s.challenge))) == 1
	if principal == "" || !known || secret == "" || !equal {
		return &messages.AuthenticationFailedMessage{}
	}
	s.principal = principal
	return &messages.AuthenticationCompletedMessage{}
}
