package convert

import (
	"testing"

	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/task"
)

// What a framework asks for in a group is what the agent reads.
func TestGroups(t *testing.T) {
	g := task.Group{Pod: task.Spec{
		Name: "p", Pod: "pod-1", Resources: parse(t, "cpus:0.1;mem:32").Allocated("web"), Labels: []task.Label{{Key: "l", Value: "v"}},
		Network: task.Network{Mode: task.NetworkUser, Name: "dcn"}, Ports: []task.Port{{Container: 80, Host: 8080, Protocol: "tcp"}},
	}}
	s := fullSpec(t)
	s.Key.Framework, s.Hostname, s.Network, s.Ports, s.Parameters, s.Privileged = "", "", task.Network{}, nil, nil, false
	g.Tasks = []task.Spec{s, {Key: task.Key{ID: "bare"}, Name: "bare", Resources: s.Resources, Command: task.Command{Shell: true, Value: "x"}}}
	op := wire(t, LaunchGroup(&g, "a1"), &mesosv1.Offer_Operation{})
	pod, err := Pod("f1", op.LaunchGroup.Executor)
	if err != nil {
		t.Fatal(err)
	}
	g.Pod.Key = task.Key{Framework: "f1", ID: task.PodID("pod-1")}
	diff(t, "the pod", g.Pod, pod)
	for i, info := range op.LaunchGroup.TaskGroup.Tasks {
		if info.GetAgentId().GetValue() != "a1" {
			t.Errorf("of agent %v", info.AgentId)
		}
		info.Executor = op.LaunchGroup.Executor // as a master sets it
		got, err := GroupTask("f1", info)
		if err != nil {
			t.Fatal(err)
		}
		want := g.Tasks[i]
		want.Key.Framework, want.Pod = "f1", "pod-1"
		diff(t, want.Name, want, got)
	}
	g.Tasks[0].Volumes = []task.Volume{{Container: "data", Sandbox: "shared"}}
	v := LaunchGroup(&g, "a1").LaunchGroup.TaskGroup.Tasks[0].Container.Volumes[0]
	if v.Source.GetType() != mesosv1.Volume_Source_SANDBOX_PATH || v.Source.SandboxPath.GetPath() != "volumes/shared" || v.Source.SandboxPath.GetType() != mesosv1.Volume_Source_SandboxPath_PARENT {
		t.Errorf("a shared directory: %v", v)
	}
}
