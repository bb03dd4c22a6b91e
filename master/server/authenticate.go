package server

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/master/authz"
	"github.com/mesopool/mesopool/mesos/crammd5"
	"github.com/mesopool/mesopool/mesos/libprocess"
	"github.com/mesopool/mesopool/mesos/messages"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
)

// Agents and scheduler drivers prove over libprocess who they are, by CRAM-MD5.

// authenticator is the actor that the steps of all exchanges go to. Mesos has
// one for each, from whose name clients conclude nothing.
const authenticator = "crammd5-authenticator"

// Mesos' time for an exchange (--authentication_v0_timeout), and our bounds.
const (
	authenticationTime = 15 * time.Second
	maxExchanges       = 20_000
	maxAuthenticated   = 100_000
)

// authentications are those that agents and drivers have passed or are about to.
// An address that breaks its connection has to pass again.
type authentications struct {
	mu         sync.Mutex
	principals map[libprocess.UPID]string    // by who has proven it
	byClient   map[libprocess.UPID]*exchange // by the actor that speaks for it
	byPID      map[libprocess.UPID]*exchange // by who is to be trusted
}

// exchange is one attempt of pid, for whom client speaks.
type exchange struct {
	pid, client libprocess.UPID
	timeout     *time.Timer
	waiting     *libprocess.Message // what pid sent meanwhile, nil for nothing

	mu      sync.Mutex
	session *crammd5.Session
}

func (a *authentications) init() {
	a.principals = map[libprocess.UPID]string{}
	a.byClient, a.byPID = map[libprocess.UPID]*exchange{}, map[libprocess.UPID]*exchange{}
}

// principal returns who is at an address, if that has been proven.
func (a *authentications) principal(pid libprocess.UPID) (string, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p, ok := a.principals[pid]
	return p, ok
}

func (a *authentications) forget(pid libprocess.UPID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.principals, pid)
}

// hold keeps a message of somebody who is just proving who he is until that is
// over; only the last counts. It says whether it does.
func (a *authentications) hold(m *libprocess.Message) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	x := a.byPID[m.From]
	if x == nil {
		return false
	}
	kept := *m
	kept.Body = slices.Clone(m.Body)
	x.waiting = &kept
	return true
}

// begin takes the place of an earlier exchange of the same address, in which
// nobody is interested any more.
func (a *authentications) begin(x *exchange) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.principals, x.pid)
	for _, old := range []*exchange{a.byPID[x.pid], a.byClient[x.client]} {
		if old != nil {
			a.drop(old)
		}
	}
	if len(a.byPID) >= maxExchanges {
		return fmt.Errorf("%d others are authenticating", len(a.byPID))
	}
	a.byPID[x.pid], a.byClient[x.client] = x, x
	return nil
}

func (a *authentications) drop(x *exchange) {
	if x.timeout != nil {
		x.timeout.Stop()
	}
	if a.byPID[x.pid] == x {
		delete(a.byPID, x.pid)
	}
	if a.byClient[x.client] == x {
		delete(a.byClient, x.client)
	}
}

// end ends an exchange and returns what waited for that.
func (a *authentications) end(x *exchange, principal string, proven bool) *libprocess.Message {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.byPID[x.pid] != x {
		return nil // another one has taken its place
	}
	a.drop(x)
	if proven {
		for other := range a.principals {
			if len(a.principals) < maxAuthenticated {
				break
			}
			delete(a.principals, other) // it will have to prove itself again
		}
		a.principals[x.pid] = principal
	}
	return x.waiting
}

// authenticate begins an exchange (master.cpp, authenticate).
func (s *Server) authenticate(m libprocess.Message) error {
	s.tally.message(messageAuthenticate)
	if m.From.IsZero() {
		return errors.New("its sender has no address to answer to")
	}
	in := &messages.AuthenticateMessage{}
	if err := proto.Unmarshal(m.Body, in); err != nil {
		return err
	}
	pid, err := libprocess.ParseUPID(in.GetPid())
	if err != nil {
		return err
	}
	if s.cfg.Auth.Known.Len() == 0 {
		s.auth.forget(pid)
		return s.node.SendProto(masterActor, m.From, &messages.AuthenticationErrorMessage{Error: new("No authenticator loaded")})
	}
	x := &exchange{pid: pid, client: m.From, session: crammd5.NewSession(s.cfg.Auth.Known.Secret)}
	x.timeout = time.AfterFunc(authenticationTime, func() { s.authenticated(x) })
	if err := s.auth.begin(x); err != nil {
		x.timeout.Stop()
		return err
	}
	return s.node.SendProto(authenticator, x.client, x.session.Mechanisms())
}

// authenticationStep takes a client's part of an exchange.
func (s *Server) authenticationStep(m libprocess.Message) {
	s.auth.mu.Lock()
	x := s.auth.byClient[m.From]
	s.auth.mu.Unlock()
	if x == nil {
		return
	}
	var in proto.Message
	switch m.Name {
	case "mesos.internal.AuthenticationStartMessage":
		in = &messages.AuthenticationStartMessage{}
	case "mesos.internal.AuthenticationStepMessage":
		in = &messages.AuthenticationStepMessage{}
	default:
		return
	}
	if err := proto.Unmarshal(m.Body, in); err != nil {
		s.log.Warn("dropped a message", "message", m.Name, "from", m.From.String(), "because", err)
		return
	}
	s.answerStep(x, in)
}

// answerStep: who is told that he has proven himself is known already.
func (s *Server) answerStep(x *exchange, in proto.Message) {
	x.mu.Lock()
	answer, done := x.session.Receive(in), x.session.Done()
	x.mu.Unlock()
	if done {
		s.authenticated(x)
	}
	if answer == nil {
		return
	}
	if err := s.node.SendProto(authenticator, x.client, answer); err != nil {
		s.log.Error("an answer could not be encoded", "to", x.client.String(), "error", err)
	}
}

// authenticated ends an exchange: it has succeeded, failed or taken too long.
func (s *Server) authenticated(x *exchange) {
	x.mu.Lock()
	principal, proven := x.session.Principal()
	x.mu.Unlock()
	waiting := s.auth.end(x, principal, proven)
	if proven {
		s.log.Info("authenticated", "pid", x.pid.String(), "principal", principal)
	} else {
		s.log.Info("not authenticated", "pid", x.pid.String())
	}
	if waiting != nil {
		s.receive(*waiting)
	}
}

// admit registers an agent if it has proven what it must and may be one.
func (s *Server) admit(m libprocess.Message, register func(libprocess.Message) error) error {
	if s.auth.hold(&m) {
		return nil
	}
	principal, known := s.auth.principal(m.From)
	if s.cfg.Auth.Agents && !known {
		return errors.New("the agent is not authenticated")
	}
	if !s.cfg.Auth.ACLs.Allows(authz.Subject{Name: principal}, authz.RegisterAgent) {
		return fmt.Errorf("not authorized to register an agent as %q", principal)
	}
	return register(m)
}

// identityProblem says why a driver may not subscribe as who it says (master.cpp,
// validateFrameworkAuthentication).
func (s *Server) identityProblem(from libprocess.UPID, f *mesosv1.FrameworkInfo) string {
	principal, known := s.auth.principal(from)
	switch {
	case s.cfg.Auth.Drivers && !known:
		return fmt.Sprintf("Framework at %s is not authenticated", from)
	case known && f.Principal != nil && f.GetPrincipal() != principal:
		return fmt.Sprintf("Framework principal '%s' does not match authenticated principal '%s'", f.GetPrincipal(), principal)
	}
	return ""
}
