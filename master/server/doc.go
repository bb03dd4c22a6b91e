// Package server is the shell around a master's core: it speaks the agents'
// protocol over libprocess, the v1 scheduler API to frameworks, and the v1
// operator API and the older JSON endpoints to people and their tools, all on
// one port.
//
//	s, err := server.New(server.Config{Listener: l, Store: st, Core: master.DefaultConfig()})
//	err = s.Run(ctx) // until ctx ends, or the store fails
//
// One goroutine owns the core. It takes whatever waits, applies it, commits
// what must be durable, and only then lets events and messages leave. Readers
// get a snapshot and render it by themselves.
//
// The package decides nothing about tasks, offers or agents: that is package
// master. It checks what can be checked without state, and keeps the order of
// the calls of one connection.
package server
