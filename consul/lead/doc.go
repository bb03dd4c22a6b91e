// Package lead lets one of several processes lead, by a lock in Consul, and
// keeps what the leader knows where the next one finds it: in Consul as well.
//
//	e, err := lead.New(lead.Config{Address: "consul:8500", Key: "mesopool/marathon", Self: "10.0.0.1:8080"})
//	err = e.Run(ctx, func(ctx context.Context, t *lead.Term) error {
//		s, err := t.Store(ctx) // what earlier leaders have kept
//		...                    // lead, until ctx ends
//	})
//
// Who leads holds a session (with a time to live) and with it the lock
// Key/leader. A session that is not renewed in time is over for its holder
// before it is for Consul, and what Consul ends by itself is not given to
// anybody else for the lock's delay, which is as long. Every write to the Store
// is a transaction that Consul refuses to all but the holder of the lock: a
// leader that was deposed without knowing changes nothing.
//
// The package knows nothing of what is led or kept.
package lead
