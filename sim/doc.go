// Package sim runs whole clusters in virtual time: the real cores of the
// master, of agents on simulated data centers (provider/memory) and of
// Marathon, each in a small shell that behaves as the real one does: it takes
// what has come in, applies it, commits, and only then lets effects leave.
//
// Everything that happens follows from one seed: latencies, users, faults, the
// moments of crashes. A run is repeated by its seed, event by event.
//
//	w := sim.New(seed, sim.Options{})
//	failure := w.Run(sim.Generate(seed))  // nil: every check held
//
// After every event what must always hold is checked (checker); after every
// commit of Marathon, what it promises of apps, pods and groups that are being
// changed (rules): never more instances than the upgrade strategy allows, none
// killed for a change while too few serve, volumes with one task at a time, steps
// in their order, nothing forgotten over a restart.
//
// Faults end after a while. Then, within QuietTime of virtual time, the cluster
// must be what its users want: see (*World).unsettled.
//
// Between nodes travel the cores' own commands and inputs, without an encoding:
// what mesos/link, mesos/scheduler, master/server and the runners do beside
// encoding is repeated here. Origins and wire forms are handles to the values.
package sim
