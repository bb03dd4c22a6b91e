package memory

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/mesopool/mesopool/resources"
)

// Config is what a simulated data center is like. The zero value is large,
// immediate and faultless.
type Config struct {
	Total   resources.Scalars // all that runs at once; nil means DefaultTotal
	CIDR    netip.Prefix      // where addresses come from; zero means 10.64.0.0/10
	Network string            // the name of the containers' network; "" means "sim"
	Missing map[string]bool   // images that do not exist; all others do

	Latency     Span // from Launch to running, and to Launch's answer
	CallLatency Span // until the answer of any other call
	ExitLatency Span // from the wish to stop to the end of those that obey

	Faults Faults
	Rand   *rand.Rand // all chance is drawn from it; nil means a fixed seed
}

// DefaultTotal is a data center of a million small containers.
var DefaultTotal = resources.NewScalars(
	resources.Scalar{Name: "cpus", Amount: resources.Whole(1 << 20)},
	resources.Scalar{Name: "mem", Amount: resources.Whole(1 << 32)},
	resources.Scalar{Name: "disk", Amount: resources.Whole(1 << 39)},
)

// Span is a duration between Min and Max, each as likely.
type Span struct{ Min, Max time.Duration }

func (s Span) draw(rnd *rand.Rand) time.Duration {
	if s.Max <= s.Min {
		return s.Min
	}
	return s.Min + time.Duration(rnd.Int64N(int64(s.Max-s.Min)))
}

// Faults are shares between 0 and 1 of the calls (or containers) that go wrong.
type Faults struct {
	Fail      float64 // nothing is done, and the call says so
	Throttle  float64 // nothing is done; ErrThrottle
	LoseReply float64 // it is done, but the call ends with an error
	Hang      float64 // it is done or not, as likely, and the call never returns
	Die       float64 // containers that end by themselves with exit code 1 …
	DieAfter  Span    // … this long after their start
}

func (c Config) withDefaults() Config {
	if c.Total == nil {
		c.Total = DefaultTotal
	}
	if !c.CIDR.IsValid() {
		c.CIDR = netip.MustParsePrefix("10.64.0.0/10")
	}
	if c.Network == "" {
		c.Network = "sim"
	}
	if c.Rand == nil {
		c.Rand = rand.New(rand.NewPCG(1, 1))
	}
	return c
}
