// Package backend is what runs the containers of an endpoint: a small
// interface, a simulated data center in memory, and a real Docker engine.
//
// It knows nothing of HTTP, of packages, quota or names that tenants choose;
// it gets specifications that the endpoint has checked already:
//
//	b.Notify(func(id string, s backend.State) { … })   // first, once
//	found, err := b.Load(ctx)                          // what there is from before
//	err = b.Create(ctx, spec)                          // slow: this is the provisioning
//	err = b.Start(ctx, spec.ID)
//
// Every change of a container's state is told through Notify before the call
// that caused it returns, and later whenever a container changes by itself.
package backend
