package autoscale

import (
	"math"
	"time"
)

// Count is a counter as it stood at a time on the clock of whoever counts.
type Count struct {
	At    time.Time
	Value float64
}

// The times between two counts that make a rate: of shorter ones it would be
// noise, of longer ones it would be of another time.
const (
	shortest = time.Second
	longest  = 2 * time.Minute
)

// Gauge makes rates of the counts of one counter. The zero value has seen none.
type Gauge struct{ last Count }

// Rate takes the next count and returns how much was counted per second since the
// last one. It is not known for the first count, after a counter or a clock has
// gone back or stood still, and after a gap.
func (g *Gauge) Rate(c Count) (perSecond float64, known bool) {
	if math.IsNaN(c.Value) || math.IsInf(c.Value, 0) || c.Value < 0 {
		*g = Gauge{}
		return 0, false
	}
	last, passed := g.last, c.At.Sub(g.last.At)
	switch {
	case last.At.IsZero() || passed < 0 || passed > longest || c.Value < last.Value:
		g.last = c
		return 0, false
	case passed < shortest:
		return 0, false // the last count stays, for the next one
	}
	g.last = c
	return (c.Value - last.Value) / passed.Seconds(), true
}
