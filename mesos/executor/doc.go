// Package executor is the agent's side of the v1 executor HTTP API: frameworks'
// own executors connect here from their containers.
//
// A Hub holds the event streams. It decides nothing: what an executor says
// becomes an input of the agent's core, and what the core wants said is queued
// for the executor's newest stream.
//
//	hub := executor.NewHub(executor.Config{…})
//	runner := agent.NewRunner(agent.Options{Executors: hub, …})
//	hub.Serve(runner) // an http.Handler for /api/v1/executor
//
// Words and codes are Mesos' (slave/http.cpp, executor; slave/validation.cpp).
// Unlike there, the token is always required.
package executor
