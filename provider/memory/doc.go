// Package memory is the reference backend: containers that exist only in
// memory. It is also the simulated data center of simulations and benchmarks.
//
// Core is the whole behaviour in virtual time: no goroutine, no clock, no
// randomness but the generator it is given. Provider is the thin shell that
// drives a Core with the real clock and offers it as a provider.Provider.
//
// A simulator drives the core itself:
//
//	core := memory.NewCore(memory.Config{Rand: rnd, Latency: memory.Span{Min: time.Second, Max: 9 * time.Second}})
//	feed := core.Subscribe(owner, nil)
//	a := core.Launch(now, owner, "web-1", spec)
//	// at a.At, unless a.Never, the caller hears: c, err := core.Result(a)
//	for next := core.Next(); !next.IsZero(); next = core.Next() {
//		core.Advance(next)
//		for ev, ok := feed.Next(); ok; ev, ok = feed.Next() {
//			deliver(ev) // the same events that Watch yields
//		}
//	}
//
// What a container does is read from its task. Simple commands are understood
// (sleep N, exit N, true, false, echo TEXT, and a trap that ignores TERM,
// joined by ; or &&); the labels or variables MESOPOOL_SIM_RUN=2s,
// MESOPOOL_SIM_EXIT=3 and MESOPOOL_SIM_DEAF=1 override them. Anything else runs
// until it is stopped.
package memory
