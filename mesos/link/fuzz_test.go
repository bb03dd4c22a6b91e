package link

import (
	"context"
	"net"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/agent"
	"github.com/mesopool/mesopool/mesos/libprocess"
	"github.com/mesopool/mesopool/mesos/messages"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/store"
)

// sink is an agent that takes everything.
type sink struct{}

func (sink) Put(agent.Input) {}

func (sink) Roster(context.Context) (agent.Roster, error) { return agent.Roster{}, nil }

var received = []proto.Message{
	&messages.PingSlaveMessage{}, &messages.RunTaskMessage{}, &messages.RunTaskGroupMessage{}, &messages.KillTaskMessage{},
	&messages.StatusUpdateAcknowledgementMessage{}, &messages.SlaveRegisteredMessage{}, &messages.SlaveReregisteredMessage{},
	&messages.ShutdownFrameworkMessage{}, &messages.UpdateFrameworkMessage{}, &messages.CheckpointResourcesMessage{}, &messages.ApplyOperationMessage{},
	&messages.AcknowledgeOperationStatusMessage{}, &messages.ReconcileOperationsMessage{}, &messages.DrainSlaveMessage{}, &messages.ShutdownMessage{},
}

// Whatever a master sends, nothing breaks, and what is reserved still fits.
func FuzzReceive(f *testing.F) {
	total, err := resources.Parse("cpus:4;mem:1024;disk:1000")
	if err != nil {
		f.Fatal(err)
	}
	for i, m := range []proto.Message{
		&messages.PingSlaveMessage{Connected: new(false)}, runTask("t"),
		&messages.CheckpointResourcesMessage{Resources: wire(diskOf(5, "v"))},
		&messages.ApplyOperationMessage{
			OperationInfo: reserve(diskOf(5, "")), OperationUuid: id16("o"), ResourceVersionUuid: &messages.ResourceVersionUUID{Uuid: id16("version")},
		},
		&messages.ApplyOperationMessage{
			OperationInfo: destroy(diskOf(5, "v")), OperationUuid: id16("o"), ResourceVersionUuid: &messages.ResourceVersionUUID{Uuid: id16("version")},
		},
		&messages.ReconcileOperationsMessage{FrameworkId: frameworkID, Operations: []*messages.ReconcileOperationsMessage_Operation{{OperationId: &mesosv1.OperationID{Value: new("x")}}}},
	} {
		body, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), body)
		for n := range received {
			f.Add(uint8(n), body)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, body []byte) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Skip(err)
		}
		defer listener.Close()
		node := libprocess.NewNode(libprocess.Config{Listener: listener})
		master := node.UPID("master")
		l := New(Config{
			Node: node, Self: node.UPID("slave(1)"), Hostname: "x", Resources: total, Version: "1.11.0", Store: store.NewMemory(), Log: quiet,
			RemoveVolume: func(context.Context, string, string) error { return nil },
		})
		l.agent, l.master, l.id, l.registered, l.version = sink{}, master, agentID, true, id16("version").Value
		name := string(received[int(which)%len(received)].ProtoReflect().Descriptor().FullName())
		l.receive(libprocess.Message{From: master, To: "slave(1)", Name: name, Body: body})
		if kept := l.checkpointed(); !l.Total().Contains(kept.Stripped()) {
			t.Errorf("%s is kept of %s", kept, l.Total())
		}
		if _, err := l.sendRegistration(context.Background()); err != nil {
			t.Error(err)
		}
	})
}
