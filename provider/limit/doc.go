// Package limit is a decorator that keeps a backend from being asked too much
// at once or too fast, gives every call an end, and counts.
//
// Launches have their own lanes, so a thousand waiting launches never hold up a
// stop. Launch is not repeated here: its caller does that, by name.
package limit

import "time"

// Options bound the calls. The zero value is a sensible bound for one engine.
type Options struct {
	Launches int // launches at once; 0 means 4
	Others   int // other calls at once, apart from Watch; 0 means 16

	// Rate is how many calls may begin per second, launches included; 0 means
	// no bound. At most Launches waiting launches are ahead of a stop.
	Rate  float64
	Burst int // calls that may begin at once; 0 means 1

	LaunchTimeout time.Duration // 0 means 15 min: a launch may pull an image
	CallTimeout   time.Duration // of any other call but Watch; 0 means 30 s

	Retries   int           // repeats after a temporary error, not of Launch; 0 means 2, negative none
	RetryWait time.Duration // before the first repeat, doubled for each further one; 0 means 200 ms
}

func (o Options) withDefaults() Options {
	orElse(&o.Launches, 4)
	orElse(&o.Others, 16)
	orElse(&o.Burst, 1)
	orElse(&o.LaunchTimeout, 15*time.Minute)
	orElse(&o.CallTimeout, 30*time.Second)
	orElse(&o.Retries, 2)
	orElse(&o.RetryWait, 200*time.Millisecond)
	return o
}

func orElse[T int | time.Duration](v *T, def T) {
	if *v == 0 {
		*v = def
	}
}
