package mesosjson

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	masterv1 "github.com/mesopool/mesopool/mesos/v1/master"
	schedulerv1 "github.com/mesopool/mesopool/mesos/v1/scheduler"
)

// checkWire: what AppendWire prints is what Append prints of the message.
func checkWire(t *testing.T, m proto.Message, wire []byte) {
	t.Helper()
	if (proto.UnmarshalOptions{AllowPartial: true}).Unmarshal(wire, m) != nil {
		return
	}
	got, ok := AppendWire([]byte("x"), m.ProtoReflect().Descriptor(), wire)
	if want := Append([]byte("x"), m); !ok || string(got) != string(want) {
		t.Errorf("%x:\n%s, %v, want\n%s", wire, got, ok, want)
	}
}

func TestAppendWire(t *testing.T) {
	task := &mesosv1.TaskInfo{
		Name: new("näme\"\n"), TaskId: &mesosv1.TaskID{Value: new("t")}, AgentId: &mesosv1.AgentID{Value: new("")},
		Resources: []*mesosv1.Resource{
			{Name: new("cpus"), Type: mesosv1.Value_SCALAR.Enum(), Scalar: &mesosv1.Value_Scalar{Value: new(0.1)}, Role: new("*")},
			{Name: new("ports"), Type: mesosv1.Value_RANGES.Enum(), Ranges: &mesosv1.Value_Ranges{Range: []*mesosv1.Value_Range{{Begin: new(uint64(1)), End: new(uint64(1) << 60)}}}},
		},
		HealthCheck: &mesosv1.HealthCheck{Type: mesosv1.HealthCheck_HTTP.Enum(), Http: &mesosv1.HealthCheck_HTTPCheckInfo{Port: new(uint32(80)), Statuses: []uint32{200, 201}}},
		Labels:      &mesosv1.Labels{Labels: []*mesosv1.Label{{Key: new("a")}, {Key: new("b"), Value: new("")}}},
		Data:        []byte{0, 255}, KillPolicy: &mesosv1.KillPolicy{GracePeriod: &mesosv1.DurationInfo{Nanoseconds: new(int64(-7))}},
	}
	wire, err := proto.Marshal(task)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := AppendWire(nil, task.ProtoReflect().Descriptor(), wire); !ok {
		t.Error("an ordinary task is not printed")
	}
	checkWire(t, &mesosv1.TaskInfo{}, wire)
	checkWire(t, &mesosv1.TaskInfo{}, nil)
	checkWire(t, &mesosv1.TaskInfo{}, append(wire, 0x0a, 1, 'x')) // the name once more
	status, err := proto.Marshal(&mesosv1.TaskStatus{State: mesosv1.TaskState(99).Enum(), Healthy: new(false), Timestamp: new(1e-9), Uuid: []byte("u")})
	if err == nil {
		t.Error("a status without its task can be serialized")
	}
	checkWire(t, &mesosv1.TaskStatus{}, status)
	checkWire(t, &mesosv1.TaskInfo{}, []byte{0x12, 0, 0x12, 0}) // a message in two parts
	checkWire(t, &mesosv1.TaskInfo{}, []byte{0x08, 1})          // a string as a number
	limits, err := proto.MarshalOptions{AllowPartial: true}.Marshal(&masterv1.Response_GetTasks{Tasks: []*mesosv1.Task{
		{Name: new("a"), Limits: map[string]*mesosv1.Value_Scalar{"mem": {Value: new(1.5)}}}, {Name: new("b")},
	}})
	if err != nil {
		t.Fatal(err)
	}
	checkWire(t, &masterv1.Response_GetTasks{}, limits) // a map, deep within
	for name, odd := range map[string][]byte{"half a tag": {0x80}, "half a string": {0x0a, 5, 'x'}, "a group": {0x0b}} {
		if got, ok := AppendWire([]byte("x"), task.ProtoReflect().Descriptor(), odd); ok || string(got) != "x" {
			t.Errorf("%s: %s, %v", name, got, ok)
		}
	}
}

// TestNumbersFound: no field of Mesos is beyond those that are looked up.
func TestNumbersFound(t *testing.T) {
	seen := map[protoreflect.FullName]bool{}
	var look func(protoreflect.MessageDescriptor)
	look = func(d protoreflect.MessageDescriptor) {
		if seen[d.FullName()] {
			return
		}
		seen[d.FullName()] = true
		for i := range d.Fields().Len() {
			f := d.Fields().Get(i)
			if f.Number() >= maxNumber {
				t.Errorf("%s has the number %d", f.FullName(), f.Number())
			}
			if f.Message() != nil {
				look(f.Message())
			}
		}
	}
	for _, m := range []proto.Message{&masterv1.Response{}, &masterv1.Event{}, &schedulerv1.Event{}} {
		look(m.ProtoReflect().Descriptor())
	}
}

func FuzzAppendWire(f *testing.F) {
	wire, err := proto.Marshal(&mesosv1.TaskStatus{
		TaskId: &mesosv1.TaskID{Value: new("t")}, State: mesosv1.TaskState_TASK_RUNNING.Enum(), Timestamp: new(1.5), Healthy: new(true),
		ContainerStatus: &mesosv1.ContainerStatus{NetworkInfos: []*mesosv1.NetworkInfo{{IpAddresses: []*mesosv1.NetworkInfo_IPAddress{{IpAddress: new("10.0.0.1")}}}}},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(wire)
	f.Fuzz(func(t *testing.T, wire []byte) {
		checkWire(t, &mesosv1.TaskStatus{}, wire)
		checkWire(t, &mesosv1.TaskInfo{}, wire)
		checkWire(t, &mesosv1.Task{}, wire)
	})
}
