package sim

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// tenant is a framework of a Fleet: it takes what it likes.
type tenant struct {
	f        *Fleet
	n        int
	info     master.FrameworkInfo
	stream   string
	streams  int
	tasks    map[string]string // that it has launched and not seen end; the agent of each
	launched int
	ending   bool
	arrivals time.Time
}

func newTenant(f *Fleet, n int) *tenant {
	t := &tenant{f: f, n: n, tasks: map[string]string{}}
	t.info = master.FrameworkInfo{
		Name: fmt.Sprintf("f%d", n), User: "root", Roles: []string{oneOf(f.rnd, fleetRoles...)}, Checkpoint: true,
		FailoverTimeout: oneOf(f.rnd, time.Minute, time.Hour),
		Capabilities:    master.Capabilities{PartitionAware: f.chance(70), MultiRole: true, ReservationRefinement: true},
	}
	if f.chance(30) {
		t.info.Roles = []string{"web", "db"}
	}
	f.after(f.span(0, 20*time.Second), t.subscribe)
	f.after(f.span(10*time.Second, time.Minute), t.act)
	return t
}

func (t *tenant) subscribe() {
	if t.stream != "" {
		return
	}
	t.streams++
	t.stream = fmt.Sprintf("s%d-%d", t.n, t.streams)
	t.tell(master.Subscribe{Info: t.info, Stream: t.stream})
}

// leave breaks the stream; the framework subscribes again after a time.
func (t *tenant) leave(away time.Duration) {
	if t.stream != "" {
		t.tell(master.Disconnect{Framework: t.info.ID, Stream: t.stream})
		t.stream = ""
	}
	t.f.after(away, t.subscribe)
}

func (t *tenant) tell(cmd master.Command) {
	core := t.f.core
	t.f.after(t.f.span(time.Millisecond, 3*time.Millisecond), func() {
		if t.f.core == core {
			t.f.apply(cmd)
		}
	})
}

func (t *tenant) arrive(e master.Event) {
	stream := t.stream
	at := t.f.now.Add(t.f.span(time.Millisecond, 20*time.Millisecond))
	if at.Before(t.arrivals) {
		at = t.arrivals
	}
	t.arrivals = at
	t.f.after(at.Sub(t.f.now), func() {
		if t.stream == stream {
			t.receive(e)
		}
	})
}

func (t *tenant) receive(e master.Event) {
	switch e := e.(type) {
	case nil, master.Failed: // the master does not know it any more, or nobody else has it
		t.stream, t.info.ID = "", ""
		t.tasks = map[string]string{}
		t.f.after(t.f.span(time.Second, time.Minute), t.subscribe)
	case master.Subscribed:
		t.info.ID = e.Framework
		t.tell(master.Reconcile{Framework: t.info.ID, Tasks: t.asked()})
		t.tell(master.ReconcileOperations{Framework: t.info.ID})
	case master.Offers:
		for _, o := range e.Offers {
			t.offered(o)
		}
	case master.Update:
		t.updated(e)
	case master.OperationUpdate:
		if len(e.Wire) == len(task.UUID{}) {
			t.tell(master.AcknowledgeOperation{Framework: t.info.ID, ID: e.ID, Status: task.UUID(e.Wire)})
		}
	case master.InverseOffers:
		for _, o := range e.Offers {
			t.tell(master.AnswerInverse{Framework: t.info.ID, Offers: []string{o.ID}, Answer: oneOf(t.f.rnd, master.InverseAccepted, master.InverseDeclined), Refuse: time.Minute})
		}
	}
}

func (t *tenant) asked() (out []master.ReconcileTask) {
	for _, id := range slices.Sorted(maps.Keys(t.tasks)) {
		out = append(out, master.ReconcileTask{ID: id, Agent: t.tasks[id]})
	}
	return out
}

func (t *tenant) updated(u master.Update) {
	switch u.Status.State {
	case task.Staging, task.Starting, task.Running, task.Killing:
		t.tasks[u.Task] = u.Agent // perhaps once more, after it was given up
	case task.Unreachable:
	default:
		delete(t.tasks, u.Task)
	}
	if u.Wire != nil && !t.f.chance(2) { // the agent tries again
		t.tell(master.Acknowledge{Key: task.Key{Framework: t.info.ID, ID: u.Task}, Agent: u.Agent, UUID: u.Status.UUID})
	}
	if t.ending && u.Wire != nil && !u.Status.State.Terminal() {
		t.tell(master.Kill{Key: task.Key{Framework: t.info.ID, ID: u.Task}})
	}
}

// offered answers an offer, some time or never.
func (t *tenant) offered(o *master.Offer) {
	stream := t.stream
	if t.f.chance(5) && !t.f.calm {
		return
	}
	t.f.after(t.f.span(time.Millisecond, oneOf(t.f.rnd, 50*time.Millisecond, 20*time.Second)), func() {
		if t.stream != stream {
			return
		}
		if t.ending || t.f.chance(30) {
			refuse := t.f.span(0, time.Minute)
			if t.ending {
				refuse = time.Hour
			}
			t.tell(master.Decline{Framework: t.info.ID, Offers: []string{o.ID}, Refuse: refuse})
			return
		}
		t.accept(o)
	})
}

func (t *tenant) accept(o *master.Offer) {
	cmd := master.Accept{Framework: t.info.ID, Offers: []string{o.ID}, Refuse: t.f.span(0, 20*time.Second)}
	left := o.Resources.Unreserved()
	id := func() string {
		if t.f.chance(50) {
			return ""
		}
		return fmt.Sprintf("op%d", t.f.seq)
	}
	if o.Role != "*" && t.f.chance(15) {
		want := reservedOf("cpus", 1, o.Role)
		if left.Amount("cpus") >= 1000 {
			cmd.Changes = append(cmd.Changes, t.f.change(id(), resources.OpReserve, want))
			left = left.Sub(resources.NewScalar("cpus", 1000).Allocated(o.Role)...)
		}
	}
	for _, r := range o.Resources {
		if r.ReservedTo() == o.Role && len(r.Reservations) > 0 && r.Reservations[0].Dynamic && t.f.chance(30) {
			cmd.Changes = append(cmd.Changes, t.f.change(id(), resources.OpUnreserve, resources.Resources{r}.Allocated("")))
		}
	}
	for range t.f.rnd.IntN(4) {
		amount := append(resources.NewScalar("cpus", resources.Milli(100+100*t.f.rnd.IntN(20))), resources.NewScalar("mem", resources.Whole(int64(32+t.f.rnd.IntN(512))))...).Allocated(o.Role)
		if !left.Contains(amount) && !t.f.chance(3) { // now and then it asks for more than there is
			break
		}
		left = left.Sub(amount...)
		t.launched++
		name := fmt.Sprintf("t%d-%d", t.n, t.launched)
		origin := fmt.Sprintf("o%d", len(t.f.table))
		t.f.table[origin] = launched{name, amount}
		t.tasks[name] = o.Agent
		cmd.Launches = append(cmd.Launches, master.Launch{ID: name, Name: name, Agent: o.Agent, Resources: amount, Origin: []byte(origin)})
	}
	for i := range cmd.Changes {
		cmd.Changes[i].Before = t.f.rnd.IntN(len(cmd.Launches) + 1)
	}
	slices.SortFunc(cmd.Changes, func(a, b master.Change) int { return a.Before - b.Before })
	t.tell(cmd)
}

// act is what a framework does unasked, again and again.
func (t *tenant) act() {
	if !t.f.calm {
		t.f.after(t.f.span(5*time.Second, time.Minute), t.act)
	}
	if t.stream == "" || t.info.ID == "" {
		return
	}
	switch t.f.rnd.IntN(8) {
	case 0, 1, 2:
		for _, id := range slices.Sorted(maps.Keys(t.tasks)) {
			if t.f.chance(30) {
				t.tell(master.Kill{Key: task.Key{Framework: t.info.ID, ID: id}})
			}
		}
	case 3:
		t.tell(master.Reconcile{Framework: t.info.ID})
	case 4:
		t.tell(master.Suppress{Framework: t.info.ID})
	case 5, 6:
		t.tell(master.Revive{Framework: t.info.ID})
	case 7:
		if !t.f.calm && t.f.chance(10) {
			t.tell(master.Teardown{Framework: t.info.ID})
		}
	}
}

// finish ends all that it runs and takes nothing more.
func (t *tenant) finish() {
	t.ending = true
	if t.stream == "" || t.info.ID == "" {
		return
	}
	for _, id := range slices.Sorted(maps.Keys(t.tasks)) {
		t.tell(master.Kill{Key: task.Key{Framework: t.info.ID, ID: id}})
	}
	t.tell(master.Reconcile{Framework: t.info.ID})
}
