package master

// timer is what to look at when its time has come.
type timer struct {
	kind timerKind
	id   string
}

type timerKind uint8

const (
	timerPing timerKind = iota
	timerRecovered
	timerFailover
	timerOffer
	timerFilter
	timerRemoval
)
