// Package scheduler is a framework's side of Mesos' v1 scheduler API: one
// stream of events, one connection for calls. Outwards it speaks the project's
// vocabulary; it decides nothing about tasks.
//
//	c := scheduler.New(scheduler.Config{Framework: …, Master: …})
//	go c.Run(ctx, handler) // subscribes, and again whenever the stream breaks
//	c.Accept(…)            // from the handler, or any goroutine
//
// Calls never block and are sent in order. A call that cannot be delivered ends
// the stream: after the next Subscribed the framework reconciles, which makes
// up for whatever was lost.
package scheduler
