package convert

import (
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/task"
)

// LaunchGroup writes a group for the agent's default executor. What the tasks
// have of a network is the executor's, and so are their ports.
func LaunchGroup(g *task.Group, agent string) *mesosv1.Offer_Operation {
	out := &mesosv1.Offer_Operation_LaunchGroup{Executor: executorTo(&g.Pod), TaskGroup: &mesosv1.TaskGroupInfo{}}
	for i := range g.Tasks {
		s := &g.Tasks[i]
		t := TaskInfo(s, agent)
		t.Container = mesosContainer(s)
		out.TaskGroup.Tasks = append(out.TaskGroup.Tasks, t)
	}
	return &mesosv1.Offer_Operation{Type: mesosv1.Offer_Operation_LAUNCH_GROUP.Enum(), LaunchGroup: out}
}

func executorTo(s *task.Spec) *mesosv1.ExecutorInfo {
	n := &mesosv1.NetworkInfo{}
	if s.Network.Mode == task.NetworkUser {
		n.Name = &s.Network.Name
	}
	for _, p := range s.Ports {
		n.PortMappings = append(n.PortMappings, &mesosv1.NetworkInfo_PortMapping{
			HostPort: new(uint32(p.Host)), ContainerPort: new(uint32(p.Container)), Protocol: new(protocol(p)),
		})
	}
	return &mesosv1.ExecutorInfo{
		Type: mesosv1.ExecutorInfo_DEFAULT.Enum(), ExecutorId: &mesosv1.ExecutorID{Value: &s.Pod}, Name: &s.Name,
		Resources: ResourcesTo(s.Resources, Stack), Labels: LabelsTo(s.Labels),
		Container: &mesosv1.ContainerInfo{Type: mesosv1.ContainerInfo_MESOS.Enum(), NetworkInfos: []*mesosv1.NetworkInfo{n}},
	}
}

// mesosContainer: a task of a group has Mesos' own kind of container, nil when
// there is nothing to say of it.
func mesosContainer(s *task.Spec) *mesosv1.ContainerInfo {
	c := &mesosv1.ContainerInfo{Type: mesosv1.ContainerInfo_MESOS.Enum()}
	if s.Image != "" {
		c.Mesos = &mesosv1.ContainerInfo_MesosInfo{Image: &mesosv1.Image{
			Type: mesosv1.Image_DOCKER.Enum(), Cached: new(!s.ForcePull), Docker: &mesosv1.Image_Docker{Name: &s.Image},
		}}
	}
	if s.TTY {
		c.TtyInfo = &mesosv1.TTYInfo{}
	}
	for i := range s.Volumes {
		c.Volumes = append(c.Volumes, volumeTo(&s.Volumes[i]))
	}
	if c.Mesos == nil && c.TtyInfo == nil && len(c.Volumes) == 0 {
		return nil
	}
	return c
}
