package sim

import "time"

// death is how a batch of a shell ends.
type death uint8

const (
	alive        death = iota
	uncommitted        // mid-batch: what was applied is lost
	undispatched       // after the commit, before any effect leaves
	amidEffects        // some effects have left
	betweenTwo         // between two batches
)

var deathNames = [...]string{"", "uncommitted", "undispatched", "amid-effects", "between"}

// process is what all nodes have in common: a life that ends at any moment and
// a shell that takes what is waiting, a batch at a time.
type process struct {
	w       *World
	name    string
	addr    string // where others reach it
	up      bool
	life    int
	doom    death // how the next batch with effects ends
	waking  bool
	wakeAt  time.Time
	slow    time.Time // until then batches begin late
	run     func()    // one batch
	begin   func()    // a new life from what was committed
	cease   func()    // what ends with the process
	nextAct func() time.Time
}

func (p *process) init(w *World, name string) {
	p.w, p.name, p.addr = w, name, name+":1"
	w.processes = append(w.processes, p)
}

// inLife is World.after, unless the process has died until then.
func (p *process) inLife(d time.Duration, do func()) {
	life := p.life
	p.w.after(d, func() {
		if p.up && p.life == life {
			do()
		}
	})
}

func (p *process) start() {
	if p.up {
		return
	}
	p.life++
	p.up, p.doom, p.waking, p.wakeAt = true, alive, false, time.Time{}
	p.w.logf("%s starts, life %d", p.name, p.life)
	p.begin()
}

// kick plans a batch.
func (p *process) kick() {
	if !p.up || p.waking {
		return
	}
	p.waking = true
	stall := p.w.upTo(p.w.shape.stall)
	if p.w.now.Before(p.slow) {
		stall += p.w.upTo(2 * time.Second)
	}
	p.inLife(stall, func() {
		p.waking = false
		p.run()
		p.arm()
	})
}

// arm plans the wake-up that the core asks for.
func (p *process) arm() {
	if !p.up {
		return
	}
	next := p.nextAct()
	if next.IsZero() || !p.wakeAt.IsZero() && !next.Before(p.wakeAt) {
		return
	}
	p.wakeAt = next
	p.inLife(max(next.Sub(p.w.now), 0), func() {
		if p.wakeAt.Equal(next) {
			p.wakeAt = time.Time{}
			p.kick()
		}
	})
}

// crash ends the process now; it starts again after a while.
func (p *process) crash(why string, down time.Duration) {
	if !p.up {
		return
	}
	p.w.logf("%s dies: %s; down for %s", p.name, why, down)
	p.up = false
	p.cease()
	for _, wire := range p.w.wires {
		wire.processDied(p)
	}
	p.w.after(down, p.start)
}

// doomed arms a death in the next batch that has effects, or soon.
func (p *process) doomed(how death, down time.Duration) {
	if !p.up {
		return
	}
	if how == betweenTwo {
		p.crash(deathNames[how], down)
		return
	}
	p.doom = how
	p.inLife(10*time.Second, func() {
		if p.doom == how {
			p.crash("overdue", down)
		}
	})
}

// leaving is how many of n effects leave before the process dies, and whether
// they are committed.
func (p *process) leaving(n int) (leave int, commit, dies bool) {
	if n == 0 {
		return 0, true, false
	}
	switch p.doom {
	case uncommitted:
		return 0, false, true
	case undispatched:
		return 0, true, true
	case amidEffects:
		return p.w.rnd.IntN(n), true, true
	}
	return n, true, false
}

func (p *process) die(how death) {
	p.crash(deathNames[how], p.w.between(500*time.Millisecond, 20*time.Second))
}
