package sim

import "time"

// wire is the network between two processes. All pipes over it share its
// faults.
type wire struct {
	w     *World
	a, b  *process
	cut   bool
	cuts  int // counts the cuts
	spike time.Time
	pipes []*pipe
}

func newWire(w *World, a, b *process) *wire { return &wire{w: w, a: a, b: b} }

func (w *World) wireTo(p *process) *wire {
	for _, x := range w.wires {
		if x.b == p {
			return x
		}
	}
	return nil
}

func (x *wire) latency() time.Duration {
	d := x.w.upTo(x.w.shape.latency) + time.Microsecond
	if x.w.now.Before(x.spike) {
		d += x.w.upTo(3 * time.Second)
	}
	return d
}

// pipe is one direction of a connection: messages arrive in order or not at
// all.
type pipe struct {
	wire     *wire
	from, to *process
	addr     string
	toLife   int
	open     bool
	dead     bool // what is sent goes nowhere, though the sender may not know
	closed   bool // the sender is done with it
	stalled  bool
	pumping  bool
	msgs     []message
	last     time.Time
	learn    func() // tells the sender that the connection broke
	lost     func() // tells the receiver
}

type message struct {
	at   time.Time
	what string
	do   func()
}

const dialTime = 10 * time.Second

// dial opens a pipe; learn is called once, in the sender's life, if it cannot
// be opened or breaks.
func (x *wire) dial(from, to *process, addr string, learn func()) *pipe {
	p := &pipe{wire: x, from: from, to: to, addr: addr, learn: learn}
	x.add(p)
	begun := x.w.now
	x.w.after(x.latency(), func() { p.connect(begun) })
	return p
}

func (x *wire) add(p *pipe) {
	kept := x.pipes[:0]
	for _, q := range x.pipes {
		if !q.over() {
			kept = append(kept, q)
		}
	}
	x.pipes = append(kept, p)
}

func (p *pipe) over() bool { return (p.closed || p.dead) && len(p.msgs) == 0 }

// accepted is a pipe back over a connection that the receiver made.
func (x *wire) accepted(from, to *process, learn, lost func()) *pipe {
	p := &pipe{wire: x, from: from, to: to, addr: to.addr, toLife: to.life, open: true, learn: learn, lost: lost}
	x.add(p)
	return p
}

func (p *pipe) connect(begun time.Time) {
	x := p.wire
	switch {
	case p.dead || p.closed && len(p.msgs) == 0:
		return
	case x.cut && x.w.now.Sub(begun) >= dialTime:
		p.breaks("cannot be dialled", 0)
	case x.cut:
		x.w.after(500*time.Millisecond, func() { p.connect(begun) })
	case !p.to.up || p.to.addr != p.addr:
		p.breaks("refused", 0)
	default:
		p.open, p.toLife = true, p.to.life
		p.pump()
	}
}

// send puts a message on the way.
func (p *pipe) send(what string, do func()) {
	if p.dead || p.closed {
		return
	}
	p.push(what, do)
}

func (p *pipe) push(what string, do func()) {
	at := p.wire.w.now.Add(p.wire.latency())
	if at.Before(p.last) {
		at = p.last
	}
	p.last = at
	p.msgs = append(p.msgs, message{at, what, do})
	p.pump()
}

func (p *pipe) pump() {
	if !p.open || p.pumping || p.stalled || len(p.msgs) == 0 {
		return
	}
	p.pumping = true
	p.wire.w.at(p.msgs[0].at, p.deliver)
}

func (p *pipe) deliver() {
	p.pumping = false
	switch {
	case len(p.msgs) == 0:
	case p.wire.cut:
		p.stalled = true
	case !p.to.up || p.to.life != p.toLife:
		p.msgs = nil
	default:
		m := p.msgs[0]
		p.msgs = p.msgs[1:]
		if p.wire.w.opt.Trace && m.what != "" {
			p.wire.w.logf("%s > %s: %s", p.from.name, p.to.name, m.what)
		}
		m.do()
		p.pump()
	}
}

// breaks loses what is on the way and tells the sender after a while.
func (p *pipe) breaks(why string, after time.Duration) {
	if p.dead || p.closed {
		return
	}
	p.dead, p.msgs = true, nil
	p.wire.w.logf("the connection from %s to %s: %s", p.from.name, p.to.name, why)
	p.tellSender(after)
}

func (p *pipe) tellSender(after time.Duration) {
	if p.learn == nil {
		return
	}
	learn := p.learn
	p.learn = nil
	p.from.inLife(after, learn)
}

// reset is a broken connection of which some messages have still arrived.
func (p *pipe) reset(keep bool, after time.Duration) {
	if p.dead || p.closed {
		return
	}
	left := p.msgs
	if keep {
		left = left[:p.wire.w.rnd.IntN(len(left)+1)]
	} else {
		left = nil
	}
	p.breaks("reset", after)
	p.msgs = left
	p.finish()
}

// finish lets the receiver know of the end, after what is still on the way.
func (p *pipe) finish() {
	if p.lost != nil && p.open {
		p.push("", p.lost)
	} else {
		p.pump()
	}
}

// close is the sender's own end of it: what was sent still arrives.
func (p *pipe) close() {
	if p.closed || p.dead {
		return
	}
	p.closed, p.learn = true, nil
	p.finish()
}

// processDied: what is on the way to a dead process is lost, and its peers
// learn of its end; what it sent before may still arrive.
func (x *wire) processDied(dead *process) {
	for _, p := range x.pipes {
		switch {
		case p.to == dead && p.open && p.toLife == dead.life:
			after := x.latency()
			if x.cut {
				after = x.w.between(10*time.Second, 2*time.Minute)
			}
			p.breaks("its end died", after)
		case p.from == dead && !p.closed && !p.dead:
			if x.w.chance(0.3) || x.cut {
				p.msgs = p.msgs[:x.w.rnd.IntN(len(p.msgs)+1)]
			}
			p.close()
		}
	}
}

// sever cuts the wire for a time. Whoever waits too long gives up.
func (x *wire) sever(d time.Duration) {
	if x.cut {
		return
	}
	x.cut = true
	x.cuts++
	n := x.cuts
	for _, p := range x.pipes {
		x.w.after(x.w.between(20*time.Second, 3*time.Minute), func() {
			if x.cut && x.cuts == n {
				p.reset(false, 0)
			}
		})
	}
	x.w.after(d, func() {
		if x.cut && x.cuts == n {
			x.heal()
		}
	})
}

func (x *wire) heal() {
	if !x.cut {
		return
	}
	x.cut = false
	x.w.logf("the wire between %s and %s is whole again", x.a.name, x.b.name)
	for _, p := range x.pipes {
		if p.stalled && len(p.msgs) > 0 {
			p.msgs[0].at = x.w.now.Add(x.latency())
			p.last = later(p.last, p.msgs[0].at)
		}
		p.stalled = false
		p.pump()
	}
}

// resetAll breaks every connection over the wire.
func (x *wire) resetAll() {
	for _, p := range append([]*pipe(nil), x.pipes...) {
		p.reset(x.w.chance(0.5), x.w.upTo(2*time.Second))
	}
}
