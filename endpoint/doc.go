// Package endpoint is a Triton-style, multi-tenant Docker remote API: many
// accounts share one data center, and each sees, names and touches only its
// own. It follows sdc-docker, also where that surprises; the numbered rules
// are in docs/triton.md.
//
// Cloud is what there is: accounts, packages, networks, containers. Server is
// the Docker API in front of it; endpoint/cloudapi is the other view. A
// backend.Backend runs the containers:
//
//	cloud, err := endpoint.Open(ctx, endpoint.Config{Dir: dir, Backend: backend.NewMemory(backend.MemoryConfig{})})
//	server, err := endpoint.New(cloud, endpoint.Options{})
//	go cloud.Run(ctx)                // keeps the states current
//	err = server.Serve(ctx, listener) // TLS, one account per client certificate
//
// An account is a tenant. Its containers are in an index of its own, with a
// lock of its own: no request looks at another tenant's.
package endpoint
