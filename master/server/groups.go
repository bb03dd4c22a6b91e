package server

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/internal/uuid"
	"github.com/mesopool/mesopool/master"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
)

// group reads the tasks of a LAUNCH_GROUP. Each gets the group's executor, as
// its agent expects it (master.cpp, _accept).
func (s *Server) group(framework string, list []master.Launch, op *mesosv1.Offer_Operation, role string) []master.Launch {
	g := op.GetLaunchGroup()
	tasks, e := g.GetTaskGroup().GetTasks(), g.GetExecutor()
	for _, t := range tasks {
		allocate(t.Resources, role)
		allocate(t.GetExecutor().GetResources(), role)
	}
	allocate(e.GetResources(), role)
	problem := groupProblem(framework, op)
	var on master.Launch
	if problem == "" {
		problem = setExecutor(&on, e)
	}
	id := uuid.New().String()
	for i, t := range tasks {
		wrong := groupTaskProblem(t, s.registry.agent(t.GetAgentId().GetValue()).limits)
		t.Executor = e
		l := launchOf(t, wrong)
		l.Group, l.Executor, l.ExecutorResources, l.ExecutorOrigin = id, on.Executor, on.ExecutorResources, on.ExecutorOrigin
		if i == 0 {
			l.GroupInvalid = problem
		}
		list = append(list, l)
	}
	return list
}

// groupTaskProblem is what is wrong with one task of a group
// (master/validation.cpp, task::group::internal::validateTask).
func groupTaskProblem(t *mesosv1.TaskInfo, limits bool) string {
	own := proto.CloneOf(t)
	if own.Executor = nil; own.Command == nil { // the image's own
		own.Command = &mesosv1.CommandInfo{}
	}
	switch problem := taskProblem(own, limits); {
	case problem != "":
		return problem
	case t.Container != nil && t.Container.GetType() == mesosv1.ContainerInfo_DOCKER:
		return "Docker ContainerInfo is not supported on the task"
	case len(t.GetContainer().GetNetworkInfos()) > 0:
		return "NetworkInfos must not be set on the task"
	}
	return ""
}

// The least that the executor of a group has (slave/constants.hpp, MIN_CPUS and
// MIN_MEM).
const (
	minExecutorCPUs = 0.01
	minExecutorMem  = 32 // MiB
)

// groupProblem is what is wrong with a group as a whole, in Mesos' order
// (master/validation.cpp, task::group::validate).
func groupProblem(framework string, op *mesosv1.Offer_Operation) string {
	if op.Id != nil {
		return "The `id` field cannot be set on LAUNCH_GROUP operations"
	}
	g := op.LaunchGroup
	for _, check := range []func(*mesosv1.Offer_Operation_LaunchGroup) string{
		groupExecutorProblem,
		func(g *mesosv1.Offer_Operation_LaunchGroup) string { return adopt(framework, g.Executor) },
		groupAmountProblem, groupResourcesProblem,
	} {
		if problem := check(g); problem != "" {
			return problem
		}
	}
	return ""
}

func groupExecutorProblem(g *mesosv1.Offer_Operation_LaunchGroup) string {
	e := g.GetExecutor()
	if problem := executorProblem(e); problem != "" {
		return problem
	}
	switch {
	case e.Type == nil:
		return "'ExecutorInfo.type' must be set"
	case e.GetType() == mesosv1.ExecutorInfo_UNKNOWN:
		return "Unknown executor type"
	}
	for _, t := range g.GetTaskGroup().GetTasks() {
		if t.Executor != nil && !proto.Equal(t.Executor, e) {
			return fmt.Sprintf("The `ExecutorInfo` of task '%s' is different from executor '%s'", t.GetTaskId().GetValue(), e.GetExecutorId().GetValue())
		}
	}
	return ""
}

func groupAmountProblem(g *mesosv1.Offer_Operation_LaunchGroup) string {
	e := g.GetExecutor()
	id := e.GetExecutorId().GetValue()
	has := func(name string) (float64, string) {
		sum := amountOf(e.Resources, name)
		if sum > 0 {
			return sum, fmt.Sprint(sum)
		}
		return 0, "None"
	}
	if cpus, text := has("cpus"); cpus < minExecutorCPUs {
		return fmt.Sprintf("Executor '%s' uses less CPUs (%s) than the minimum required (%v)", id, text, minExecutorCPUs)
	}
	if mem, text := has("mem"); mem < minExecutorMem {
		return fmt.Sprintf("Executor '%s' uses less memory (%s) than the minimum required (%vMB)", id, text, minExecutorMem)
	}
	if disk, _ := has("disk"); disk <= 0 {
		return fmt.Sprintf("Executor '%s' uses no disk", id)
	}
	return ""
}

// groupResourcesProblem checks what tasks and executor use together.
func groupResourcesProblem(g *mesosv1.Offer_Operation_LaunchGroup) string {
	all := g.GetExecutor().GetResources()
	for _, t := range g.GetTaskGroup().GetTasks() {
		all = append(all[:len(all):len(all)], t.Resources...)
	}
	return prefixed("Task group and executor use invalid resources: ", resourcesProblem(all))
}
