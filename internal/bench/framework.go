package bench

import (
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// driver is the framework's side of the scheduler API.
type driver interface {
	Accept(offers []string, agent string, l task.Launch, refuse time.Duration)
	Decline(offers []string, refuse time.Duration)
	Acknowledge(taskID, agent string, uuid task.UUID)
	Kill(taskID, agent string, grace *time.Duration)
	Revive()
	Suppress()
}

// framework launches a number of equal tasks, never more than inFlight that do
// not run yet, acknowledges every update, and notes the times.
type framework struct {
	driver   driver
	spec     task.Spec
	total    int
	inFlight int
	prefix   string                  // of the tasks' IDs
	accepted func(specs []task.Spec) // called before each ACCEPT; may be nil

	mu       sync.Mutex
	launched int
	running  map[string]string // task to agent
	sent     map[string]time.Time
	took     []time.Duration // from the ACCEPT to the RUNNING
	failed   string          // why the first task that failed did
	failures int
	ended    int
	first    time.Time
	last     time.Time
	allUp    chan struct{}
	allDown  chan struct{}
	holding  []task.Offer // offers for which there is no room in flight yet
}

func newFramework(spec task.Spec, total, inFlight int) *framework {
	return &framework{
		spec: spec, total: total, inFlight: inFlight, prefix: "bench-", running: map[string]string{}, sent: map[string]time.Time{},
		allUp: make(chan struct{}), allDown: make(chan struct{}),
	}
}

// Subscribed implements scheduler.Handler.
func (f *framework) Subscribed(string, string) error { return nil }

// Offers implements scheduler.Handler.
func (f *framework) Offers(offers []task.Offer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.holding = append(f.holding, offers...)
	f.fill()
}

// fill launches as many tasks as may be in flight on the offers at hand.
func (f *framework) fill() {
	for len(f.holding) > 0 {
		room := min(f.total-f.launched, f.inFlight-len(f.sent))
		if f.launched == f.total {
			f.giveUp()
			return
		}
		if room <= 0 {
			return
		}
		o := f.holding[0]
		f.holding = f.holding[1:]
		f.use(o, room)
	}
}

func (f *framework) giveUp() {
	ids := make([]string, len(f.holding))
	for i, o := range f.holding {
		ids[i] = o.ID
	}
	f.holding = nil
	f.driver.Decline(ids, time.Hour)
	f.driver.Suppress()
}

func (f *framework) use(o task.Offer, room int) {
	want := f.spec.Resources.Allocated(o.Role)
	left := o.Resources
	now := time.Now()
	specs := make([]task.Spec, 0, room)
	for len(specs) < room && left.Contains(want) {
		left = left.Sub(want...)
		s := f.spec
		s.Key.ID = f.prefix + strconv.Itoa(f.launched)
		s.Resources = want
		f.launched++
		f.sent[s.Key.ID] = now
		specs = append(specs, s)
	}
	if len(specs) == 0 {
		f.driver.Decline([]string{o.ID}, time.Second)
		return
	}
	if f.first.IsZero() {
		f.first = now
	}
	if f.accepted != nil {
		f.accepted(specs)
	}
	f.driver.Accept([]string{o.ID}, o.Agent, task.Launch{Tasks: specs}, 0)
}

// Update implements scheduler.Handler.
func (f *framework) Update(id, agent string, s task.Status) {
	if !s.UUID.IsZero() {
		f.driver.Acknowledge(id, agent, s.UUID)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case s.State == task.Running:
		f.up(id, agent)
	case s.State.Terminal():
		f.down(id, s)
	}
	f.fill()
}

func (f *framework) up(id, agent string) {
	sent, waiting := f.sent[id]
	if !waiting {
		return
	}
	delete(f.sent, id)
	f.last = time.Now()
	f.took = append(f.took, f.last.Sub(sent))
	f.running[id] = agent
	f.settled()
}

func (f *framework) down(id string, s task.Status) {
	if _, was := f.running[id]; was {
		delete(f.running, id)
		if f.ended++; len(f.running) == 0 {
			select {
			case <-f.allUp:
				close(f.allDown)
			default:
			}
		}
		return
	}
	if _, waiting := f.sent[id]; waiting {
		delete(f.sent, id)
		f.failures++
		if f.failed == "" {
			f.failed = s.State.String() + ": " + s.Message
		}
		f.settled()
	}
}

// settled: every task has either run or failed.
func (f *framework) settled() {
	if len(f.took)+f.failures == f.total {
		close(f.allUp)
	}
}

// Rescinded implements scheduler.Handler.
func (f *framework) Rescinded(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.holding = slices.DeleteFunc(f.holding, func(o task.Offer) bool { return o.ID == id })
}

// AgentLost implements scheduler.Handler.
func (f *framework) AgentLost(string) {}

// Disconnected implements scheduler.Handler.
func (f *framework) Disconnected() {}

// progress is how many tasks have come up.
func (f *framework) progress() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.took)
}

// forget drops all that is known of the tasks.
func (f *framework) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running, f.sent, f.took = map[string]string{}, map[string]time.Time{}, nil
}

// killAll ends what runs.
func (f *framework) killAll() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	none := time.Duration(0)
	for id, agent := range f.running {
		f.driver.Kill(id, agent, &none)
	}
	return len(f.running)
}

// Result is what a run has shown.
type Result struct {
	Name      string        `json:"name"`
	Tasks     int           `json:"tasks"`
	Failed    int           `json:"failed"`
	FirstFail string        `json:"first_failure,omitempty"`
	AtOnce    int           `json:"at_once"` // launches at a time
	Elapsed   time.Duration `json:"elapsed_ns"`
	PerSecond float64       `json:"per_second"`
	P50       time.Duration `json:"p50_ns"`
	P99       time.Duration `json:"p99_ns"`

	Acknowledged time.Duration `json:"acknowledged_ns,omitempty"` // until the last update was acknowledged
	CPUPerTask   time.Duration `json:"cpu_per_task_ns,omitempty"` // of all roles and the load
	Idle         float64       `json:"idle_cores,omitempty"`      // cores in use with all tasks running
	Recovery     Recovery      `json:"recovery,omitzero"`
	Usage        Usage         `json:"usage,omitzero"` // with all tasks running
}

func (f *framework) result(name string) Result {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := summarize(name, f.took, f.last.Sub(f.first))
	r.AtOnce, r.Failed, r.FirstFail = f.inFlight, f.failures, f.failed
	return r
}

func summarize(name string, took []time.Duration, elapsed time.Duration) Result {
	r := Result{Name: name, Tasks: len(took), Elapsed: elapsed}
	if len(took) == 0 || elapsed <= 0 {
		return r
	}
	sorted := slices.Sorted(slices.Values(took))
	r.P50, r.P99 = sorted[len(sorted)/2], sorted[len(sorted)*99/100]
	r.PerSecond = float64(len(took)) / elapsed.Seconds()
	return r
}

// one is what a benchmark task needs.
func one() resources.Resources {
	r, err := resources.Parse("cpus:0.001;mem:1")
	if err != nil {
		panic(err) // a constant
	}
	return r
}
