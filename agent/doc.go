// Package agent is the virtual agent: it turns "run this task" into a
// container of a provider and tells how the task fares until somebody has
// acknowledged it.
//
// Core is the brain: a pure function from (time, input) to effects, without
// clock, I/O, randomness or goroutine. It knows tasks and containers, and
// nothing of Mesos messages, Docker or HTTP. Runner is the shell around it:
// one goroutine that owns the core, commits what the core wants saved, and only
// then lets calls and reports leave. A Link (mesos/link) connects it to a
// master.
//
//	core.Step(now, Launch{…})  →  Save, Call{Launch}, Report{STARTING}
//	core.Step(now, Seen{…})    →  Save, Announce, Report{RUNNING}
//	core.Step(now, Ack{…})     →  Report of the next update, or Forget
//
// Each task has three small variables with one writer each: want (the master),
// seen (the provider), and the queue of updates (this package). What to do
// next is a table over them, see (*Core).advance.
package agent
