// Package libprocess carries messages between actors as Mesos masters, agents
// and drivers do: each message is an HTTP/1.1 request on a connection to the
// receiver, one connection per direction, and the answers mean nothing.
//
//	node := libprocess.NewNode(libprocess.Config{Listener: l, HTTP: api, Exited: lost})
//	node.Handle("master", func(m libprocess.Message) { … })
//	node.Link(agent)                                // Exited(agent) when the connection breaks
//	err := node.SendProto("master", agent, message) // queued; in order
//	return node.Run(ctx)
//
// Messages and plain HTTP share the port. Messages in the form that Mesos sends
// are parsed here; at the first request of any other form, plain HTTP above
// all, the connection goes over to an http.Server, which also understands
// messages, only slower.
//
// What a peer says of itself is believed: a sender is who its header claims.
// The package knows nothing of what messages mean. The protocol is that of
// libprocess in Mesos 1.11: encoder.hpp:MessageEncoder, process.cpp:parse and
// ProcessManager::handle, and SocketManager for connections.
package libprocess
