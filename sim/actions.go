package sim

import (
	"math/rand/v2"
	"time"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/provider/memory"
)

// The kinds of events.
var (
	userKinds  = []string{"create", "scale", "scale", "restart", "config", "delete", "kill", "cancel", "service", "service", "group", "promote"}
	faultKinds = []string{
		"crash", "crash", "behead", "cut", "reset", "spike", "slow", "throttle", "fail", "lose-reply", "hang", "mortal",
		"die", "vanish", "host-loss", "watch-break", "bad-listing", "sick",
	}
)

// actions is what each kind does.
var actions = map[string]func(*World, *rand.Rand){
	"create": (*World).create, "scale": (*World).scale, "restart": (*World).restart, "config": (*World).config,
	"delete": (*World).deleteApp, "kill": (*World).killTasks, "cancel": (*World).cancel,
	"service": (*World).putService, "group": (*World).group, "promote": (*World).promote,
	"crash": (*World).crash, "behead": (*World).behead, "cut": (*World).cutWire, "reset": (*World).resetWire, "spike": (*World).spikeWire, "slow": (*World).slowShell,
	"throttle":   backendFault(func(f *memory.Faults, share float64) { f.Throttle = share }),
	"fail":       backendFault(func(f *memory.Faults, share float64) { f.Fail = share }),
	"lose-reply": backendFault(func(f *memory.Faults, share float64) { f.LoseReply = share }),
	"hang":       backendFault(func(f *memory.Faults, share float64) { f.Hang = share }),
	"mortal":     backendFault(func(f *memory.Faults, share float64) { f.Die, f.DieAfter = share, memory.Span{Max: time.Minute} }),
	"die":        (*World).killContainer, "vanish": (*World).vanishContainer, "host-loss": (*World).loseHost,
	"watch-break": (*World).breakWatch, "bad-listing": (*World).badListing, "sick": (*World).sicken,
}

func (w *World) apply(e Event) {
	w.logf("EVENT %s %d", e.Kind, e.N)
	if w.opt.Coverage != nil {
		w.opt.Coverage.note(w, e.Kind)
	}
	actions[e.Kind](w, rand.New(rand.NewPCG(uint64(e.N), 3)))
}

func span(rnd *rand.Rand, lo, hi time.Duration) time.Duration {
	return lo + time.Duration(rnd.Int64N(int64(hi-lo)))
}

func (w *World) crash(rnd *rand.Rand) {
	p := oneOf(rnd, w.processes...)
	how := oneOf(rnd, uncommitted, undispatched, amidEffects, betweenTwo)
	p.doomed(how, oneOf(rnd, span(rnd, 100*time.Millisecond, 3*time.Second), span(rnd, time.Second, 3*time.Minute)))
}

func (w *World) cutWire(rnd *rand.Rand) {
	x, d := oneOf(rnd, w.wires...), oneOf(rnd, span(rnd, time.Second, 30*time.Second), span(rnd, 10*time.Second, 5*time.Minute))
	w.logf("the wire between %s and %s is cut for %s", x.a.name, x.b.name, d)
	x.sever(d)
}

func (w *World) resetWire(rnd *rand.Rand) { oneOf(rnd, w.wires...).resetAll() }

func (w *World) spikeWire(rnd *rand.Rand) {
	oneOf(rnd, w.wires...).spike = w.now.Add(span(rnd, time.Second, time.Minute))
}

func (w *World) slowShell(rnd *rand.Rand) {
	oneOf(rnd, w.processes...).slow = w.now.Add(span(rnd, time.Second, 30*time.Second))
}

// backendFault makes a share of the calls of one data center go wrong for a
// time.
func backendFault(set func(*memory.Faults, float64)) func(*World, *rand.Rand) {
	return func(w *World, rnd *rand.Rand) {
		dc := oneOf(rnd, w.agents...).dc
		set(&dc.faults, oneOf(rnd, 0.1, 0.3, 0.7, 1))
		dc.mem.SetFaults(dc.faults)
		w.after(span(rnd, 5*time.Second, 2*time.Minute), func() {
			set(&dc.faults, 0)
			dc.mem.SetFaults(dc.faults)
		})
	}
}

func (w *World) someContainer(rnd *rand.Rand) (*dataCenter, provider.Container, bool) {
	dc := oneOf(rnd, w.agents...).dc
	all := dc.containers(provider.StateUp)
	if rnd.IntN(4) == 0 {
		all = append(all, dc.containers(provider.StateExited)...)
		all = append(all, dc.containers(provider.StateCreated)...)
	}
	if len(all) == 0 {
		return dc, provider.Container{}, false
	}
	return dc, oneOf(rnd, all...), true
}

func (w *World) killContainer(rnd *rand.Rand) {
	if dc, k, ok := w.someContainer(rnd); ok {
		w.logf("%s: container %s dies", dc.agent.name, k.Name)
		dc.mem.Kill(w.now, k.ID, uint8(rnd.IntN(3)))
	}
}

func (w *World) vanishContainer(rnd *rand.Rand) {
	if dc, k, ok := w.someContainer(rnd); ok {
		w.logf("%s: container %s vanishes", dc.agent.name, k.Name)
		dc.mem.Vanish(w.now, k.ID)
	}
}

func (w *World) loseHost(rnd *rand.Rand) {
	dc := oneOf(rnd, w.agents...).dc
	for _, state := range []provider.State{provider.StateUp, provider.StateExited, provider.StateCreated} {
		for _, k := range dc.containers(state) {
			if rnd.IntN(2) == 0 {
				w.logf("%s: container %s vanishes with its host", dc.agent.name, k.Name)
				dc.mem.Vanish(w.now, k.ID)
			}
		}
	}
}

func (w *World) breakWatch(rnd *rand.Rand) { oneOf(rnd, w.agents...).dc.breakWatch() }

// badListing breaks a watch, and the listings that follow may break off or lack
// something.
func (w *World) badListing(rnd *rand.Rand) {
	dc := oneOf(rnd, w.agents...).dc
	dc.faulty = true
	dc.breakWatch()
	w.after(time.Minute, func() {
		if dc.faulty {
			dc.faulty = false
			dc.breakWatch() // what a listing kept back is told now
		}
	})
}

func (w *World) sicken(rnd *rand.Rand) {
	if _, k, ok := w.someContainer(rnd); ok {
		w.logf("%s is sick", k.Name)
		w.marathon.sick[k.Key.ID] = w.now.Add(span(rnd, 5*time.Second, 2*time.Minute))
	}
}

// endFaults makes everything whole.
func (w *World) endFaults() {
	w.logf("the faults end")
	w.calm = true
	for _, x := range w.wires {
		x.spike = time.Time{}
		x.heal()
	}
	for _, p := range w.processes {
		p.slow, p.doom = time.Time{}, alive
	}
	for _, a := range w.agents {
		a.dc.faults = memory.Faults{}
		a.dc.mem.SetFaults(a.dc.faults)
		a.dc.faulty = false
		a.dc.breakWatch()
	}
	w.users.leave()
}
