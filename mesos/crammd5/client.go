package crammd5

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/mesos/libprocess"
	"github.com/mesopool/mesopool/mesos/messages"
)

// ErrRefused says that the master knows the principal under another secret, or
// not at all. Trying again does not help.
var ErrRefused = errors.New("the master refuses the credential")

var clients atomic.Int64

// Authenticate proves to a master who the actor self is. It returns when the
// master has answered, or when ctx ends. Errors other than ErrRefused are worth
// another attempt.
func Authenticate(ctx context.Context, node *libprocess.Node, self, master libprocess.UPID, c Credential) error {
	id := fmt.Sprintf("crammd5-authenticatee(%d)", clients.Add(1))
	inbox := make(chan libprocess.Message, 4)
	node.Handle(id, func(m libprocess.Message) {
		m.Body = slices.Clone(m.Body)
		select {
		case inbox <- m:
		default: // nobody honest sends so many
		}
	})
	defer node.Unhandle(id)
	a := &authenticatee{node: node, id: id, master: master, credential: c}
	if err := node.SendProto(id, master, &messages.AuthenticateMessage{Pid: new(self.String())}); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("crammd5: the master at %s does not answer: %w", master.Addr, ctx.Err())
		case m := <-inbox:
			if done, err := a.receive(m); done || err != nil {
				return err
			}
		}
	}
}

// authenticatee is the client's side of one exchange.
type authenticatee struct {
	node       *libprocess.Node
	id         string
	master     libprocess.UPID
	credential Credential
	started    bool
}

// receive takes one message; what is not from the master is nobody's business.
func (a *authenticatee) receive(m libprocess.Message) (done bool, err error) {
	if m.From.Addr != a.master.Addr {
		return false, nil
	}
	switch m.Name {
	case "mesos.internal.AuthenticationMechanismsMessage":
		return false, a.start(m)
	case "mesos.internal.AuthenticationStepMessage":
		return false, a.step(m)
	case "mesos.internal.AuthenticationCompletedMessage":
		return a.started, nil
	case "mesos.internal.AuthenticationFailedMessage":
		return true, fmt.Errorf("crammd5: %w of %q", ErrRefused, a.credential.Principal)
	case "mesos.internal.AuthenticationErrorMessage":
		var x messages.AuthenticationErrorMessage
		if err := proto.Unmarshal(m.Body, &x); err != nil {
			return false, nil
		}
		return true, fmt.Errorf("crammd5: the master at %s cannot authenticate: %s", a.master.Addr, x.GetError())
	}
	return false, nil
}

func (a *authenticatee) start(m libprocess.Message) error {
	var x messages.AuthenticationMechanismsMessage
	if err := proto.Unmarshal(m.Body, &x); err != nil || a.started {
		return nil
	}
	if !slices.Contains(x.Mechanisms, mechanism) {
		return fmt.Errorf("crammd5: the master at %s offers %q and not %s", a.master.Addr, x.Mechanisms, mechanism)
	}
	a.started = true
	return a.node.SendProto(a.id, m.From, &messages.AuthenticationStartMessage{Mechanism: new(mechanism)})
}

func (a *authenticatee) step(m libprocess.Message) error {
	var x messages.AuthenticationStepMessage
	if err := proto.Unmarshal(m.Body, &x); err != nil || !a.started {
		return nil
	}
	return a.node.SendProto(a.id, m.From, &messages.AuthenticationStepMessage{Data: a.credential.answer(x.Data)})
}
