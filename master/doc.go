// Package master is the brain of a Mesos master: which agents and frameworks
// there are, who is offered what, which task runs where. Core is pure: a
// function from (time, command) to effects, owned by one goroutine, with no
// clock, I/O, randomness, logger or goroutine inside. It knows nothing of
// HTTP, protobuf or libprocess; master/server is the shell that does.
//
//	fx, err := core.Apply(now, cmd, fx[:0])  // err: refused, nothing changed
//	commit(persists(fx))                     // durable first
//	send(fx)                                 // then tell agents and frameworks
//	wake at core.Next() with Tick{}
//
// What frameworks and agents said of themselves travels through as opaque
// bytes (the Origin and Wire fields), so nothing of it is lost on the way.
package master
