package master

import (
	"time"

	"github.com/mesopool/mesopool/task"
)

// Note is one thing that operators who watch are told.
type Note interface{ note() }

type (
	// TaskAdded is a task that is new to the master. User is its framework's.
	TaskAdded struct {
		Task *Task
		User string
	}

	// TaskUpdated is a task in a new state. User is its framework's.
	TaskUpdated struct {
		Task   *Task
		User   string
		Status Status
		State  task.State
	}

	// AgentAdded is an agent that has joined, or is back.
	AgentAdded struct{ Agent AgentView }

	// AgentRemoved is an agent that is gone for good.
	AgentRemoved struct{ Agent string }

	// FrameworkAdded is a framework that is new to the master.
	FrameworkAdded struct{ Framework FrameworkView }

	// FrameworkChanged is one that came back, went away or describes itself
	// otherwise.
	FrameworkChanged struct{ Framework FrameworkView }

	// FrameworkRemoved is one that is over.
	FrameworkRemoved struct{ Framework FrameworkInfo }
)

func (TaskAdded) note()        {}
func (TaskUpdated) note()      {}
func (AgentAdded) note()       {}
func (AgentRemoved) note()     {}
func (FrameworkAdded) note()   {}
func (FrameworkChanged) note() {}
func (FrameworkRemoved) note() {}

// Watch says whether somebody wants Noted effects.
func (c *Core) Watch(on bool) { c.watched = on }

func (c *Core) noteTask(t *Task, fx []Effect) []Effect {
	if !c.watched {
		return fx
	}
	return append(fx, Noted{TaskAdded{t, c.userOf(t)}})
}

// noteUpdate tells of a state. The same once more is told only when a check has
// found something out (master.cpp, updateTask).
func (c *Core) noteUpdate(before, t *Task, s Status, fx []Effect) []Effect {
	if !c.watched {
		return fx
	}
	if n := len(before.Statuses); n > 0 && before.Statuses[n-1].State == s.State && s.Reason != task.ReasonCheckStatus && s.Reason != task.ReasonHealthCheckStatus {
		return fx
	}
	return append(fx, Noted{TaskUpdated{t, c.userOf(t), s, t.State}})
}

// userOf is the user of a task's framework, "" when that is gone.
func (c *Core) userOf(t *Task) string {
	if f := c.frameworks[t.Key.Framework]; f != nil {
		return f.User
	}
	return ""
}

func (c *Core) noteLost(t *Task, s Status, fx []Effect) []Effect {
	if !c.watched || t.State.Terminal() {
		return fx
	}
	return append(fx, Noted{TaskUpdated{t, c.userOf(t), s, s.State}})
}

func (c *Core) noteAgent(a *agent, fx []Effect) []Effect {
	if !c.watched {
		return fx
	}
	return append(fx, Noted{AgentAdded{c.agentView(a)}})
}

func (c *Core) noteGone(a *agent, fx []Effect) []Effect {
	if !c.watched {
		return fx
	}
	return append(fx, Noted{AgentRemoved{a.ID}})
}

// noteFramework tells of a framework without its tasks, which have events of
// their own.
func (c *Core) noteFramework(f *framework, isNew bool, fx []Effect) []Effect {
	switch {
	case !c.watched:
		return fx
	case isNew:
		return append(fx, Noted{FrameworkAdded{f.view()}})
	}
	return append(fx, Noted{FrameworkChanged{f.view()}})
}

func (c *Core) noteEnd(f *framework, fx []Effect) []Effect {
	if !c.watched {
		return fx
	}
	return append(fx, Noted{FrameworkRemoved{f.FrameworkInfo}})
}

// killedStatus is that of the tasks of a framework that ends.
func killedStatus(now time.Time) Status {
	return Status{State: task.Killed, Time: now, Source: task.SourceMaster, Reason: task.ReasonFrameworkRemoved, Message: "Framework removed"}
}
