package sim

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/mesopool/mesopool/internal/timers"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// QuietTime is how long after the last fault a cluster may take to become what
// its users want.
const QuietTime = 45 * time.Minute

// epoch is when every run begins.
var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// Options choose how a World runs.
type Options struct {
	Hooks    Hooks
	Trace    bool      // keep a line per event
	Coverage *Coverage // count fault × state pairs; nil: do not
}

// Failure is a check that did not hold.
type Failure struct {
	Seed    uint64
	Checker string // which check
	Text    string
	At      time.Duration
}

// Error is a sentence.
func (f *Failure) Error() string {
	return fmt.Sprintf("seed %d: %s after %s: %s", f.Seed, f.Checker, f.At.Round(time.Millisecond), f.Text)
}

// World is a cluster in virtual time. It is not safe for concurrent use.
type World struct {
	opt   Options
	seed  uint64
	rnd   *rand.Rand
	now   time.Time
	heap  timers.Heap[func()]
	steps int

	shape     shape
	master    *masterNode
	agents    []*agentNode
	marathon  *marathonNode
	processes []*process
	wires     []*wire
	table     table
	check     *checker
	users     *users

	calm    bool // no more faults
	idle    bool // the last stretch: nothing may happen any more
	failure *Failure
	trace   []string
}

// shape is what differs from cluster to cluster.
type shape struct {
	agents   int
	cpus     int64         // of each agent
	latency  time.Duration // the longest of an undisturbed message
	stall    time.Duration // the longest a shell takes to begin a batch
	failover time.Duration // the framework's failover timeout
	killing  bool          // the framework wants TASK_KILLING
	offers   time.Duration // the master's offer timeout
}

// New returns a cluster that has not started.
func New(seed uint64, opt Options) *World {
	w := &World{opt: opt, seed: seed, rnd: rand.New(rand.NewPCG(seed, 1)), now: epoch}
	w.check = newChecker(w)
	w.table.init()
	w.shape = w.drawShape()
	w.users = &users{w: w}
	w.master = newMasterNode(w)
	for i := range w.shape.agents {
		w.agents = append(w.agents, newAgentNode(w, i))
	}
	w.marathon = newMarathonNode(w)
	w.connect()
	return w
}

func (w *World) drawShape() shape {
	s := shape{agents: 1 + w.rnd.IntN(2), cpus: 6 + w.rnd.Int64N(20), failover: 7 * 24 * time.Hour, killing: w.chance(0.5)}
	s.latency = oneOf(w.rnd, time.Millisecond, 5*time.Millisecond, 100*time.Millisecond)
	s.stall = oneOf(w.rnd, 0, time.Millisecond, 20*time.Millisecond)
	if w.chance(0.1) {
		s.failover = 40 * time.Second
	}
	if w.chance(0.2) {
		s.offers = 30 * time.Second
	}
	return s
}

// connect lays a wire between every two nodes that talk.
func (w *World) connect() {
	m := &w.master.process
	for _, a := range w.agents {
		w.wires = append(w.wires, newWire(w, m, &a.process))
	}
	w.wires = append(w.wires, newWire(w, m, &w.marathon.process))
}

// Run lets the cluster live through the scenario and settle; nil means that
// every check held.
func (w *World) Run(s Scenario) *Failure {
	w.boot()
	var end time.Duration
	for _, e := range s {
		w.at(epoch.Add(e.At), func() { w.apply(e) })
		end = max(end, e.At)
	}
	w.runUntil(epoch.Add(end + time.Second))
	w.endFaults()
	w.settle()
	return w.failure
}

func (w *World) boot() {
	w.master.start()
	for _, a := range w.agents {
		w.after(w.upTo(3*time.Second), func() { a.start() })
	}
	w.after(w.upTo(3*time.Second), func() { w.marathon.start() })
}

// lastDeaths is until when containers may die of faults that have ended.
const lastDeaths = 3 * time.Minute

// settle gives the cluster its quiet time, and then watches that it stays as
// it is.
func (w *World) settle() {
	began := w.now
	w.runUntil(w.now.Add(lastDeaths))
	for w.failure == nil {
		w.runUntil(w.now.Add(30 * time.Second))
		why := w.unsettled()
		if why == "" {
			break
		}
		if w.now.Sub(began) >= QuietTime {
			w.failf("settled", "%s", why)
		}
	}
	if w.failure != nil {
		return
	}
	w.idle = true
	w.runUntil(w.now.Add(12 * time.Minute))
	if w.unsettled() != "" { // offers that Marathon has looked through are on their way back
		w.runUntil(w.now.Add(5 * time.Second))
	}
	if why := w.unsettled(); why != "" && w.failure == nil {
		w.failf("stays", "%s", why)
	}
}

// mostSteps bounds the events of a run: more means that something spins.
const mostSteps = 500_000

func (w *World) runUntil(end time.Time) {
	for w.failure == nil {
		at, dc := w.next()
		if at.IsZero() || at.After(end) {
			w.now = end
			return
		}
		w.now = later(at, w.now)
		w.guard(func() { w.step(at, dc) })
		w.check.always()
		if w.steps++; w.steps > mostSteps {
			w.failf("livelock", "more than %d events", mostSteps)
		}
	}
}

// next is when something next happens, as planned or in a data center by
// itself.
func (w *World) next() (at time.Time, dc *dataCenter) {
	at, _ = w.heap.Next()
	for _, a := range w.agents {
		if due := a.dc.mem.Next(); !due.IsZero() && (at.IsZero() || due.Before(at)) {
			at, dc = due, a.dc
		}
	}
	return at, dc
}

func (w *World) step(at time.Time, dc *dataCenter) {
	if dc != nil {
		dc.mem.Advance(w.now)
		return
	}
	_, do, _ := w.heap.Pop(at)
	do()
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a.UTC()
}

// guard turns a panic of a core into a failure.
func (w *World) guard(do func()) {
	defer func() {
		if r := recover(); r != nil {
			w.failf("panic", "%v\n%s", r, debug.Stack())
		}
	}()
	do()
}

func (w *World) failf(checker, format string, args ...any) {
	if w.failure != nil {
		return
	}
	w.failure = &Failure{Seed: w.seed, Checker: checker, Text: fmt.Sprintf(format, args...), At: w.now.Sub(epoch)}
	w.logf("FAILURE %s: %s", checker, w.failure.Text)
}

func (w *World) logf(format string, args ...any) {
	if w.opt.Trace {
		w.trace = append(w.trace, fmt.Sprintf("%13.6f ", w.now.Sub(epoch).Seconds())+fmt.Sprintf(format, args...))
	}
}

// Trace returns what happened, a line per event.
func (w *World) Trace() []string { return w.trace }

// TraceHash is a digest of the trace.
func (w *World) TraceHash() uint64 {
	h := fnv.New64a()
	for _, line := range w.trace {
		h.Write([]byte(line))
	}
	return h.Sum64()
}

// Steps is how many events there were.
func (w *World) Steps() int { return w.steps }

func (w *World) at(at time.Time, do func()) { w.heap.Add(at, do) }

func (w *World) after(d time.Duration, do func()) { w.at(w.now.Add(d), do) }

func (w *World) chance(share float64) bool { return w.rnd.Float64() < share }

// upTo is a random duration below d.
func (w *World) upTo(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return time.Duration(w.rnd.Int64N(int64(d)))
}

func (w *World) between(lo, hi time.Duration) time.Duration { return lo + w.upTo(hi-lo) }

func oneOf[T any](rnd *rand.Rand, choice ...T) T { return choice[rnd.IntN(len(choice))] }

func (w *World) agentNamed(name string) *agentNode {
	i := slices.IndexFunc(w.agents, func(a *agentNode) bool { return a.name == name })
	if i < 0 {
		return nil
	}
	return w.agents[i]
}

// table holds the values that travel as opaque bytes through the master.
type table struct {
	specs      map[string]task.Spec
	statuses   map[string]task.Status
	operations map[string]resources.Operation
	uuids      uint64
	ids        int
}

func (t *table) init() {
	t.specs, t.statuses, t.operations = map[string]task.Spec{}, map[string]task.Status{}, map[string]resources.Operation{}
}

// putOperation returns the handle of an operation.
func (t *table) putOperation(op resources.Operation) []byte {
	h := fmt.Sprintf("operation %d", len(t.operations))
	t.operations[h] = op
	return []byte(h)
}

// putSpec returns the handle of a launch's description.
func (t *table) putSpec(s *task.Spec, agent string) []byte {
	h := agent + " " + s.Key.ID
	t.specs[h] = *s
	return []byte(h)
}

// putPod is putSpec of the container that holds a pod's network.
func (t *table) putPod(s *task.Spec, agent string) []byte {
	h := agent + " " + task.PodID(s.Pod)
	t.specs[h] = *s
	return []byte(h)
}

// putStatus returns the handle of a status.
func (t *table) putStatus(s *task.Status) []byte {
	h := "status " + s.UUID.String()
	t.statuses[h] = *s
	return []byte(h)
}

func (t *table) uuid() (u task.UUID) {
	t.uuids++
	for i := range 8 {
		u[15-i] = byte(t.uuids >> (8 * i))
	}
	return u
}

func (t *table) id(prefix string) string {
	t.ids++
	return fmt.Sprintf("%s%d", prefix, t.ids)
}

func splitHandle(h []byte) (agent, id string) {
	agent, id, _ = strings.Cut(string(h), " ")
	return agent, id
}
