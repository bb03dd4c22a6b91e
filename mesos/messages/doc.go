// Package messages is the generated code of what masters, agents, executors
// and the older scheduler driver send each other over libprocess: proto
// package mesos.internal, and mesos.scheduler.Call (here Call). The messages
// refer to the types of package mesosv1, whose bytes are the same.
package messages
