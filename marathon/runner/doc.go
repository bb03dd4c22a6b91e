// Package runner is the shell around Marathon's core: one goroutine owns it,
// commits what it wants saved, and only then lets calls, checks and events
// leave. It is the framework that mesos/scheduler hands events to.
package runner
