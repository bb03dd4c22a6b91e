package convert

import (
	"math"
	"time"

	"google.golang.org/protobuf/proto"

	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/task"
)

// publishLabel marks the address of the machine that publishes a container's
// ports, where container addresses cannot be reached.
const publishLabel = "mesopool.publish-ip"

// Seconds is Mesos' form of a time.
func Seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixNano()) / 1e9
}

// Time reads Mesos' form of a time, to the microsecond.
func Time(seconds float64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	whole, part := math.Modf(seconds)
	return time.Unix(int64(whole), int64(math.Round(part*1e6))*1000).UTC()
}

// TaskStatus writes a status about a task. The agent may be "".
func TaskStatus(id, agent string, s *task.Status) *mesosv1.TaskStatus {
	t := &mesosv1.TaskStatus{
		TaskId: &mesosv1.TaskID{Value: &id}, State: mesosv1.TaskState(s.State).Enum(), Source: mesosv1.TaskStatus_Source(s.Source).Enum(),
		Timestamp: new(Seconds(s.Time)), Healthy: s.Healthy, Data: s.Data, ContainerStatus: containerStatusTo(s.Container),
		CheckStatus: checkStatusTo(s.Check),
	}
	if agent != "" {
		t.AgentId = &mesosv1.AgentID{Value: &agent}
	}
	if s.Message != "" {
		t.Message = &s.Message
	}
	if r, ok := mesosv1.TaskStatus_Reason_value[string(s.Reason)]; ok {
		t.Reason = mesosv1.TaskStatus_Reason(r).Enum()
	}
	if !s.UUID.IsZero() {
		t.Uuid = s.UUID[:]
	}
	return t
}

// ToldStatus writes a status that an executor has told: in its own words, but
// for what the agent knows better (slave.cpp, statusUpdate).
func ToldStatus(id, agent string, s *task.Status) *mesosv1.TaskStatus {
	ours, out := TaskStatus(id, agent, s), &mesosv1.TaskStatus{}
	if len(s.Origin) == 0 || proto.Unmarshal(s.Origin, out) != nil {
		return ours
	}
	out.TaskId, out.AgentId, out.State, out.Source, out.Timestamp = ours.TaskId, ours.AgentId, ours.State, ours.Source, ours.Timestamp
	out.Uuid, out.Data, out.Reason = ours.Uuid, ours.Data, ours.Reason
	switch k := ours.ContainerStatus; {
	case k == nil:
	case out.ContainerStatus == nil:
		out.ContainerStatus = k
	default:
		out.ContainerStatus.ContainerId = k.ContainerId
		if len(out.ContainerStatus.NetworkInfos) == 0 {
			out.ContainerStatus.NetworkInfos = k.NetworkInfos
		}
	}
	return out
}

// FromExecutor reads a status that an executor tells; its own words are kept.
func FromExecutor(t *mesosv1.TaskStatus) (task.Status, error) {
	s := Status(t)
	s.Container, s.Source = nil, task.SourceExecutor
	own := proto.CloneOf(t)
	own.Data, own.Uuid = nil, nil
	var err error
	s.Origin, err = proto.Marshal(own)
	return s, err
}

func containerStatusTo(c *task.ContainerStatus) *mesosv1.ContainerStatus {
	if c == nil {
		return nil
	}
	out := &mesosv1.ContainerStatus{ContainerId: &mesosv1.ContainerID{Value: &c.ID}}
	if len(c.Addresses) == 0 {
		return out
	}
	n := &mesosv1.NetworkInfo{}
	if c.Network != "" {
		n.Name = &c.Network
	}
	for _, a := range c.Addresses {
		n.IpAddresses = append(n.IpAddresses, &mesosv1.NetworkInfo_IPAddress{IpAddress: &a})
	}
	for _, p := range c.Ports {
		n.PortMappings = append(n.PortMappings, &mesosv1.NetworkInfo_PortMapping{
			HostPort: new(uint32(p.Host)), ContainerPort: new(uint32(p.Container)), Protocol: new(protocol(p)),
		})
	}
	if c.PublishIP != "" {
		n.Labels = LabelsTo([]task.Label{{Key: publishLabel, Value: c.PublishIP}})
	}
	out.NetworkInfos = []*mesosv1.NetworkInfo{n}
	return out
}

// Status reads a status.
func Status(t *mesosv1.TaskStatus) task.Status {
	s := task.Status{
		State: task.State(t.GetState()), Source: task.Source(t.GetSource()), Message: t.GetMessage(),
		Time: Time(t.GetTimestamp()), Healthy: t.Healthy, Data: t.GetData(), Container: containerStatus(t.GetContainerStatus()),
		Check: checkStatus(t.GetCheckStatus()),
	}
	if t.Reason != nil {
		s.Reason = task.Reason(t.GetReason().String())
	}
	copy(s.UUID[:], t.GetUuid())
	return s
}

func containerStatus(c *mesosv1.ContainerStatus) *task.ContainerStatus {
	if c == nil {
		return nil
	}
	out := &task.ContainerStatus{ID: c.GetContainerId().GetValue()}
	for _, n := range c.NetworkInfos {
		out.Network = n.GetName()
		for _, a := range n.IpAddresses {
			out.Addresses = append(out.Addresses, a.GetIpAddress())
		}
		for _, p := range n.PortMappings {
			out.Ports = append(out.Ports, task.Port{Container: uint16(p.GetContainerPort()), Host: uint16(p.GetHostPort()), Protocol: p.GetProtocol()})
		}
		for _, l := range n.GetLabels().GetLabels() {
			if l.GetKey() == publishLabel {
				out.PublishIP = l.GetValue()
			}
		}
	}
	return out
}

// checkStatusTo sets the part of the check's type always, and what is in it
// only when there is a result (mesos.proto, CheckStatusInfo).
func checkStatusTo(s *task.CheckStatus) *mesosv1.CheckStatusInfo {
	if s == nil {
		return nil
	}
	out := &mesosv1.CheckStatusInfo{Type: checkType(s.Type)}
	switch s.Type {
	case task.CheckHTTP:
		if out.Http = (&mesosv1.CheckStatusInfo_Http{}); s.Value != nil {
			out.Http.StatusCode = new(uint32(*s.Value))
		}
	case task.CheckTCP:
		if out.Tcp = (&mesosv1.CheckStatusInfo_Tcp{}); s.Value != nil {
			out.Tcp.Succeeded = new(*s.Value != 0)
		}
	default:
		out.Command = &mesosv1.CheckStatusInfo_Command{ExitCode: s.Value}
	}
	return out
}

func checkStatus(c *mesosv1.CheckStatusInfo) *task.CheckStatus {
	if c == nil {
		return nil
	}
	out := &task.CheckStatus{Type: task.CheckType(c.GetType())}
	switch {
	case c.Command != nil:
		out.Value = c.Command.ExitCode
	case c.GetHttp() != nil && c.Http.StatusCode != nil:
		out.Value = new(int32(c.Http.GetStatusCode()))
	case c.GetTcp() != nil && c.Tcp.Succeeded != nil:
		out.Value = new(int32(0))
		if c.Tcp.GetSucceeded() {
			*out.Value = 1
		}
	}
	return out
}

// Has says whether a framework claims the capability.
func Has(f *mesosv1.FrameworkInfo, want mesosv1.FrameworkInfo_Capability_Type) bool {
	for _, c := range f.GetCapabilities() {
		if c.GetType() == want {
			return true
		}
	}
	return false
}
