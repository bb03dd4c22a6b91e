// Package marathon keeps services running: apps in, tasks out, compatible with
// Marathon's definitions. Core is pure: a function from (time, input) to
// effects, owned by one goroutine. It is a framework like any other and knows
// nothing of Mesos messages, HTTP or disks; marathon/api is its REST surface,
// mesos/scheduler its line to a master, and Runner the shell that owns a Core.
//
//	fx, err := core.Apply(now, input, fx[:0]) // err: refused, nothing changed
//	fx = core.Settle(now, fx)                 // once after a batch of inputs
//	commit(saves(fx))                         // durable first
//	send(fx)                                  // then calls and events leave
//	wake at core.Next() with Tick{}
//
// The core is level-triggered: after every batch it compares what an app wants
// with the instances there are (see (*Core).Settle), so that a restart at
// any moment goes on where it was.
package marathon
