// Package provider is the boundary to what runs containers: a Docker engine, a
// Triton data center, a simulated one.
//
// It knows tasks and resources and nothing of Mesos, masters or frameworks.
// The agent declares here what it needs; every backend passes the suite in
// provider/providertest.
//
// The caller's loop:
//
//	go func() {
//		for ev, err := range p.Watch(ctx, owner) {
//			if err != nil { … } // the stream broke: start over
//			if ev.Synced { … }  // everything that exists has been told
//			see(ev.Container)   // the whole container, again whenever it changed
//		}
//	}()
//	c, err := p.Launch(ctx, name, spec) // repeat with the same name after any error
package provider
