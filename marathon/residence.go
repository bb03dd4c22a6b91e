package marathon

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// A residence is what an instance with persistent volumes has reserved on an
// agent. It outlives its tasks: the next one is launched on it, and it is given
// back only when somebody says so.

// Residence is what is saved of one.
type Residence struct {
	ID      string // of the instance
	App     string
	Role    string
	Agent   string
	Host    string
	Number  int // of the task that lives there, or lived there last
	Volumes []LocalVolume
	Settled bool      `json:",omitempty"` // the agent has shown that it has it
	Wipe    bool      `json:",omitempty"` // to be given back once no task lives there
	Left    time.Time // since when it is to be

	swept bool // it was on offer, and was given back
}

// LocalVolume is a volume of a residence.
type LocalVolume struct {
	ID       string // the persistence ID
	Path     string
	Size     float64 // MiB
	ReadOnly bool    `json:",omitempty"`
}

// PersistentVolume is the part of a volume that makes it persistent
// (persistentVolumeInfo.raml).
type PersistentVolume struct {
	Type        string          `json:"type"`
	Size        float64         `json:"size"` // MiB
	MaxSize     *float64        `json:"maxSize,omitempty"`
	ProfileName string          `json:"profileName,omitempty"`
	Constraints json.RawMessage `json:"constraints,omitempty"`
}

// persistent lists the persistent volumes of an app.
func (a *App) persistent() (out []Volume) {
	if a.Container == nil {
		return nil
	}
	for _, v := range a.Container.Volumes {
		if v.Persistent != nil {
			out = append(out, v)
		}
	}
	return out
}

// Resident says whether the app's instances have volumes that outlive their
// tasks.
func (a *App) Resident() bool { return len(a.persistent()) > 0 }

// residentDefaults are those of apps with persistent volumes
// (AppNormalization.scala, UpgradeStrategy.forResidentTasks).
func (a *App) residentDefaults(given map[string]json.RawMessage) {
	if !a.Resident() {
		return
	}
	if given["upgradeStrategy"] == nil {
		a.Upgrade = UpgradeStrategy{MinimumHealthCapacity: 0.5}
	}
	if given["unreachableStrategy"] == nil {
		a.Unreachable = UnreachableStrategy{Disabled: true}
	}
	for i := range a.Container.Volumes {
		if p := a.Container.Volumes[i].Persistent; p != nil && p.Type == "" {
			p.Type = "root"
		}
	}
}

func (c *checker) residence(a *App) {
	if !a.Resident() {
		return
	}
	c.must(a.Role != "*", "/role", "persistent volumes need a role other than *: what is reserved, is reserved to a role; start the scheduler with --mesos-role")
	c.must(a.Upgrade.MaximumOverCapacity == 0, "/upgradeStrategy/maximumOverCapacity", "got %v, expected 0: an app with persistent volumes cannot have more instances than volumes", a.Upgrade.MaximumOverCapacity)
	paths := map[string]bool{}
	for i, v := range a.Container.Volumes {
		p := v.Persistent
		if p == nil {
			continue
		}
		where := fmt.Sprintf("/container/volumes(%d)", i)
		c.must(!strings.Contains(v.ContainerPath, "/"), where+"/containerPath", "must not contain slashes: it is a folder in the sandbox")
		c.must(!paths[v.ContainerPath], where+"/containerPath", "must be unique; %q is there twice", v.ContainerPath)
		paths[v.ContainerPath] = true
		c.must(p.Type == "root", where+"/persistent/type", "got %q, expected root: agents have no other disks here", p.Type)
		c.amount(where+"/persistent/size", p.Size)
		c.must(p.Size > 0, where+"/persistent/size", "got %v, expected more than 0", p.Size)
	}
}

// staysResident refuses changes that would leave volumes or reservations behind
// (AppDefinition.scala, residentUpdateIsValid).
func staysResident(old, next *App) error {
	if !old.Resident() && !next.Resident() {
		return nil
	}
	if !reflect.DeepEqual(old.persistent(), next.persistent()) {
		return problem("/container/volumes", "persistent volumes cannot be changed; delete the app, or give it another ID")
	}
	if old.CPUs != next.CPUs || old.Mem != next.Mem || old.Disk != next.Disk || old.GPUs != next.GPUs || old.Role != next.Role {
		return problem("/", "an app with persistent volumes cannot change its resources or its role: they are reserved")
	}
	return nil
}

// The labels of a reservation, as Marathon has them (TaskLabels.scala).
const (
	labelFramework = "marathon_framework_id"
	labelInstance  = "marathon_instance_id"
)

// mark is the reservation of a residence.
func (c *Core) mark(r *Residence) []resources.Reservation {
	return []resources.Reservation{{Dynamic: true, Role: r.Role, Labels: []resources.Label{{Key: labelFramework, Value: c.frameworkID}, {Key: labelInstance, Value: r.ID}}}}
}

// markedFor is the residence that a resource is reserved for; "" when it is none
// of ours. One that is known is ours also when it was made under another ID of
// the framework.
func (c *Core) markedFor(r *resources.Resource) string {
	n := len(r.Reservations)
	if n == 0 {
		return ""
	}
	own, id := false, ""
	for _, l := range r.Reservations[n-1].Labels {
		own = own || l.Key == labelFramework && l.Value == c.frameworkID
		if l.Key == labelInstance {
			id = l.Value
		}
	}
	if !own && c.residences[id] == nil {
		return ""
	}
	return id
}

// isMarked says whether a resource is reserved for an instance of some scheduler
// like us.
func isMarked(r *resources.Resource) bool {
	n := len(r.Reservations)
	return n > 0 && slices.ContainsFunc(r.Reservations[n-1].Labels, func(l resources.Label) bool { return l.Key == labelFramework })
}

// marked is what of an offer is reserved for a residence.
func (c *Core) marked(from resources.Resources, id string) resources.Resources {
	return from.Filter(func(r *resources.Resource) bool { return c.markedFor(r) == id })
}

// occupied are the residences in which a task lives.
func (a *app) occupied() map[string]bool {
	out := map[string]bool{}
	for _, i := range a.instances {
		out[i.Residence] = true
	}
	return out
}

// residencesOf lists those of an app that are to stay, by ID.
func (c *Core) residencesOf(app string) (out []*Residence) {
	for _, id := range slices.Sorted(maps.Keys(c.residences)) {
		if r := c.residences[id]; r.App == app && !r.Wipe {
			out = append(out, r)
		}
	}
	return out
}

// settle launches one instance of a resident app from a pool: on a residence
// that is free, or on a new one as long as there are too few.
func (c *Core) settle(now time.Time, a *app, p *pool, fx []Effect) ([]Effect, bool) {
	all, taken := c.residencesOf(a.def.ID), a.occupied()
	for _, r := range all {
		if taken[r.ID] || r.Agent != p.first.Agent {
			continue
		}
		if part, ok := c.moveIn(a.def, r, p.left); ok {
			r.Number++
			return c.occupy(now, a, r, p, part, fx), true
		}
	}
	if len(all) >= a.target() || !c.allows(now, a, &p.first) {
		return fx, false
	}
	return c.build(now, a, p, fx)
}

// moveIn is what a task takes of a residence, when all of it is on offer.
func (c *Core) moveIn(def *App, r *Residence, from resources.Resources) (part resources.Resources, ok bool) {
	here := c.marked(from, r.ID)
	for _, w := range def.amounts() {
		left := w.Amount
		for i := range here {
			if x := here[i]; x.Name == w.Name && x.Disk == nil {
				x.Scalar = min(left, x.Scalar)
				left -= x.Scalar
				part = part.Add(x)
			}
		}
		if left > 0 {
			return nil, false
		}
	}
	for _, v := range r.Volumes {
		n := slices.IndexFunc(here, func(x resources.Resource) bool { return x.Disk != nil && x.Disk.PersistenceID == v.ID })
		if n < 0 {
			return nil, false
		}
		part = part.Add(here[n])
	}
	return part, true
}

// build reserves a new residence, makes its volumes and launches on it, all in
// one call.
func (c *Core) build(now time.Time, a *app, p *pool, fx []Effect) ([]Effect, bool) {
	want := a.def.amounts()
	for _, v := range a.def.persistent() {
		want = want.Add(amountsOf(0, 0, v.Persistent.Size, 0))
	}
	plain := p.left.Filter(func(r *resources.Resource) bool { return len(r.Reservations) == 0 })
	taken, lacking := a.def.take(plain, want, p.first.Role)
	if lacking != "" {
		a.seen.note(lacking, plain.Amount(lacking))
		a.seen.unused(now, &p.first, reasons[lacking])
		return fx, false
	}
	r := &Residence{App: a.def.ID, Role: a.def.Role, Agent: p.first.Agent, Host: p.first.Hostname, Number: 1}
	r.ID, _ = TaskIDOf(a.def.ID, c.cfg.NewID())
	for _, v := range a.def.persistent() {
		r.Volumes = append(r.Volumes, LocalVolume{
			ID: fmt.Sprintf("%s#%s#%s", taskName(a.def.ID), v.ContainerPath, r.ID[strings.LastIndex(r.ID, "instance-")+len("instance-"):]), Path: v.ContainerPath,
			Size: v.Persistent.Size, ReadOnly: v.Mode == "RO",
		})
	}
	c.residences[r.ID] = r
	reserved := slices.Clone(taken)
	for i := range reserved {
		reserved[i].Reservations = c.mark(r)
	}
	volumes := c.volumesOf(r, p.first.Role)
	p.launch.Changes = append(p.launch.Changes, resources.Operation{Kind: resources.OpReserve, Target: reserved}, resources.Operation{Kind: resources.OpCreate, Target: volumes})
	p.left = p.left.Sub(taken...).Add(reserved.Sub(bare(volumes)...).Add(volumes...)...)
	part, _ := c.moveIn(a.def, r, p.left)
	return c.occupy(now, a, r, p, part, fx), true
}

// volumesOf are the volumes of a residence as resources.
func (c *Core) volumesOf(r *Residence, role string) (out resources.Resources) {
	for _, v := range r.Volumes {
		size, _ := resources.FromFloat(v.Size) // validated
		out = out.Add(resources.Resource{
			Name: "disk", Kind: resources.KindScalar, Scalar: size, Reservations: c.mark(r), Role: role,
			Disk: &resources.Disk{PersistenceID: v.ID, ContainerPath: v.Path, ReadOnly: v.ReadOnly},
		})
	}
	return out
}

// bare is the disk that volumes were made of.
func bare(volumes resources.Resources) (out resources.Resources) {
	for _, v := range volumes {
		v.Disk = nil
		out = out.Add(v)
	}
	return out
}

// occupy launches the residence's next task.
func (c *Core) occupy(now time.Time, a *app, r *Residence, p *pool, part resources.Resources, fx []Effect) []Effect {
	p.left = p.left.Sub(part...)
	a.seen.LastUsed = now
	fx = append(fx, Save{Key: KeyResidence + r.ID, Value: r})
	return c.launch(now, a, p, part, r, fx)
}

// movedOut notes what the end of its task says about a residence.
func (c *Core) movedOut(now time.Time, i *Instance, fx []Effect) []Effect {
	r := c.residences[i.Residence]
	if r == nil {
		return fx
	}
	switch i.State {
	case task.GoneByOperator: // with its agent
		delete(c.residences, r.ID)
		return append(fx, Save{Key: KeyResidence + r.ID})
	case task.Error, task.Dropped, task.Lost, task.Unknown, task.Unreachable, task.Gone:
		if !r.Settled { // it may never have come to be
			return c.vacate(now, r.ID, fx)
		}
	default:
		r.Settled = true
	}
	return append(fx, Save{Key: KeyResidence + r.ID, Value: r})
}

func (c *Core) settled(i *Instance, fx []Effect) []Effect {
	r := c.residences[i.Residence]
	if r == nil || r.Settled || i.State != task.Running {
		return fx
	}
	r.Settled = true
	return append(fx, Save{Key: KeyResidence + r.ID, Value: r})
}

// vacate has a residence given back as soon as no task lives there.
func (c *Core) vacate(now time.Time, id string, fx []Effect) []Effect {
	r := c.residences[id]
	if r == nil || r.Wipe {
		return fx
	}
	r.Wipe, r.Left, c.cleanAsked = true, now, false
	return append(fx, Save{Key: KeyResidence + r.ID, Value: r})
}

func (c *Core) vacateAll(now time.Time, app string, fx []Effect) []Effect {
	for _, r := range c.residencesOf(app) {
		fx = c.vacate(now, r.ID, fx)
	}
	return fx
}

// lives says whether a task lives in a residence.
func (c *Core) lives(r *Residence) bool {
	i := c.instances[r.TaskID()]
	return i != nil && i.Residence == r.ID
}

// cleaning says whether offers are needed to give residences back. One whose
// agent does not come is not asked for for ever, but still given back when it
// comes.
func (c *Core) cleaning(now time.Time) bool {
	for _, r := range c.residences {
		if r.Wipe && !c.lives(r) && now.Sub(r.Left) < 2*c.cfg.ReconcileEach {
			return true
		}
	}
	return false
}

// clean gives back what is reserved for residences that are to go, or of which
// nobody knows. A record goes once its agent offers nothing of it any more; one
// that was never on offer may be held by a task that has yet to end, so it is
// waited for.
func (c *Core) clean(now time.Time, pools []*pool, fx []Effect) []Effect {
	agents, found := map[string]bool{}, map[string]bool{}
	for _, p := range pools {
		agents[p.first.Agent] = true
		for _, id := range c.litter(p.left) {
			found[id] = true
			c.tearDown(p, id)
			if r := c.residences[id]; r != nil {
				r.swept = true
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(c.residences)) {
		r := c.residences[id]
		over := r.swept || now.Sub(r.Left) >= c.cfg.ReconcileEach
		if r.Wipe && over && agents[r.Agent] && !found[id] && !c.lives(r) {
			delete(c.residences, id)
			fx = append(fx, Save{Key: KeyResidence + id})
		}
	}
	return fx
}

// litter lists the residences of an offer that are to go.
func (c *Core) litter(from resources.Resources) (out []string) {
	for i := range from {
		id := c.markedFor(&from[i])
		if id == "" || slices.Contains(out, id) {
			continue
		}
		if r := c.residences[id]; r == nil || r.Wipe && !c.lives(r) {
			out = append(out, id)
		}
	}
	return out
}

func (c *Core) tearDown(p *pool, id string) {
	all := c.marked(p.left, id)
	p.left = p.left.Sub(all...)
	volumes := all.Filter(func(r *resources.Resource) bool { return r.Disk != nil })
	if len(volumes) > 0 {
		p.launch.Changes = append(p.launch.Changes, resources.Operation{Kind: resources.OpDestroy, Target: volumes})
		all = all.Sub(volumes...).Add(bare(volumes)...)
	}
	p.launch.Changes = append(p.launch.Changes, resources.Operation{Kind: resources.OpUnreserve, Target: all})
}

// emptyResidence finds the residence that a task lived in last, nil when there is
// none or a task lives there.
func (c *Core) emptyResidence(taskID string) *Residence {
	for _, r := range c.residences {
		if !r.Wipe && (r.TaskID() == taskID || r.ID == taskID) && !c.lives(r) {
			return r
		}
	}
	return nil
}

// awaited says where the free residences are that an app waits for.
func (c *Core) awaited(a *app) string {
	taken := a.occupied()
	for _, r := range c.residencesOf(a.def.ID) {
		if !taken[r.ID] {
			return "waits for an offer of " + r.Host + " with its volumes of " + r.ID
		}
	}
	return ""
}

// TaskID is the ID of the task that lives there, or lived there last.
func (r *Residence) TaskID() string { return r.ID + "._app." + strconv.Itoa(r.Number) }
