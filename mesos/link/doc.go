// Package link connects an agent to a Mesos master: it speaks the agent's side
// of the internal protocol (libprocess messages, package mesos.internal) and
// turns messages into the agent's inputs, and the agent's reports into
// messages. It knows nothing of containers.
//
// The protocol's facts are Mesos': master.cpp and slave.cpp, named where a
// quirk is kept.
package link
