package resources

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Milli is a scalar in thousandths: 0.1 cpus is Milli(100).
type Milli int64

// MaxMilli bounds a scalar so that sums of many stay exact (Mesos refuses
// quotas above 1e12; doubles lose the third decimal above 9e12).
const MaxMilli Milli = 1e15

// FromFloat rounds to the nearest thousandth, half away from zero. It refuses
// what Mesos refuses: NaN, infinities, negative and too large values.
func FromFloat(v float64) (Milli, error) {
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return 0, fmt.Errorf("%v is not a number that can be an amount", v)
	case v < 0:
		return 0, fmt.Errorf("%v is negative; amounts start at 0", v)
	case v > float64(MaxMilli)/1000:
		return 0, fmt.Errorf("%v is too large; the most is %v", v, MaxMilli)
	}
	return Milli(math.Round(v * 1000)), nil
}

// Whole is n units.
func Whole(n int64) Milli { return Milli(n * 1000) }

// Float returns the amount in units.
func (m Milli) Float() float64 { return float64(m) / 1000 }

// String formats without trailing zeros: "0.1", "4".
func (m Milli) String() string {
	s := strconv.FormatFloat(m.Float(), 'f', 3, 64)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}
