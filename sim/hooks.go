package sim

import (
	"github.com/mesopool/mesopool/agent"
	"github.com/mesopool/mesopool/marathon"
	"github.com/mesopool/mesopool/master"
)

// Hooks change what goes into the cores and what comes out of them: deliberate
// bugs, put on from outside, that the checkers must find. A nil hook changes
// nothing.
type Hooks struct {
	AgentIn     func(*World, agent.Input) []agent.Input
	AgentOut    func(*World, []agent.Effect) []agent.Effect
	MasterIn    func(*World, master.Command) []master.Command
	MasterOut   func(*World, []master.Effect) []master.Effect
	MarathonIn  func(*World, marathon.Input) []marathon.Input
	MarathonOut func(*World, []marathon.Effect) []marathon.Effect

	LeaveFirst string // the node, without its number, whose effects leave before the commit
	LoseSaves  string // the node whose commits are lost
}

func hooked[T any](w *World, hook func(*World, T) []T, in T) []T {
	if hook == nil {
		return []T{in}
	}
	return hook(w, in)
}

func outbound[T any](w *World, hook func(*World, []T) []T, fx []T) []T {
	if hook == nil {
		return fx
	}
	return hook(w, fx)
}
