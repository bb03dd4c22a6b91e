// Package consul shows a cluster in a Consul catalog: every running task, and
// the roles themselves, with address, port, tags and a check.
//
// TaskServices decides, as a pure function, which services a task is. A
// Registrar makes Consul agree with what its owner wants:
//
//	r, err := consul.New(consul.Config{Address: "consul:8500", Role: "agent", Owner: owner})
//	go r.Run(ctx)
//	r.Put("self", consul.Self(...))          // whenever it changes
//	r.Put(key.String(), consul.TaskServices(...)) // task runs
//	r.Synced()                               // everything that runs has been put
//	r.Drop(ctx, key.String())                // before the task is stopped
//
// A Registrar is level-triggered: it compares what is wanted with what Consul
// holds, when something changes, when Consul comes back and every minute. It
// only ever touches services that carry its own owner mark, so several
// clusters, and things that are no cluster's, can share one Consul. Without
// Consul the cluster works on; the Registrar catches up later.
//
// The package knows nothing of Mesos messages, of the agent or of Docker.
package consul
