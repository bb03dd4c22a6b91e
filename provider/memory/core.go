package memory

import (
	"container/heap"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// Core is a simulated data center in virtual time. It is not safe for
// concurrent use. Every call with a time first does what is due until then;
// times must not go back.
type Core struct {
	cfg    Config
	rnd    *rand.Rand
	names  map[string]*box
	ids    map[uint64]*box
	live   map[task.Key]int32
	double []task.Key
	groups map[task.Owner]*group
	timers timers
	pool   addresses
	mounts map[uint64][]string          // the persistent volumes of a box
	disks  map[string]task.Owner        // the volumes, by name
	files  map[uint64]map[string][]byte // what was copied in, by the box's ID
	used   []resources.Milli            // in the order of cfg.Total
	lastID uint64
}

// NewCore returns an empty data center.
func NewCore(cfg Config) *Core {
	cfg = cfg.withDefaults()
	return &Core{
		cfg:    cfg,
		rnd:    cfg.Rand,
		names:  map[string]*box{},
		ids:    map[uint64]*box{},
		live:   map[task.Key]int32{},
		groups: map[task.Owner]*group{},
		mounts: map[uint64][]string{},
		disks:  map[string]task.Owner{},
		files:  map[uint64]map[string][]byte{},
		pool:   newAddresses(cfg.CIDR),
		used:   make([]resources.Milli, len(cfg.Total)),
	}
}

// Answer is what a call will have said. What it did is done already.
type Answer struct {
	At    time.Time // when the caller hears it
	Never bool      // the call hangs; the caller gives up by its own timeout
	Err   error     // the call failed, or its answer was lost

	id     uint64 // the container to look at, 0 when the call tells none
	launch bool
}

// The errors of injected faults; both are temporary.
var (
	ErrFault = errors.New("injected fault: nothing was done")
	ErrLost  = errors.New("injected fault: the answer was lost")
)

// SetFaults changes the faults from now on.
func (c *Core) SetFaults(f Faults) { c.cfg.Faults = f }

// verdict is what chance says of a call.
type verdict struct {
	skip  bool // do nothing
	never bool
	err   error
}

func (c *Core) judge() verdict {
	f := &c.cfg.Faults
	switch {
	case c.chance(f.Fail):
		return verdict{skip: true, err: ErrFault}
	case c.chance(f.Throttle):
		return verdict{skip: true, err: fmt.Errorf("injected fault: %w", provider.ErrThrottle)}
	case c.chance(f.LoseReply):
		return verdict{err: ErrLost}
	case c.chance(f.Hang):
		return verdict{skip: c.chance(0.5), never: true}
	}
	return verdict{}
}

func (c *Core) chance(share float64) bool { return share > 0 && c.rnd.Float64() < share }

// call is a call other than Launch: do's error is the answer unless a fault
// hides it.
func (c *Core) call(now time.Time, id uint64, do func() error) Answer {
	c.Advance(now)
	v := c.judge()
	a := Answer{At: now.Add(c.cfg.CallLatency.draw(c.rnd)), Never: v.never, Err: v.err, id: id}
	if v.skip {
		return a
	}
	if err := do(); a.Err == nil {
		a.Err = err
	}
	return a
}

// Total is the capacity.
func (c *Core) Total() resources.Scalars { return c.cfg.Total }

// Capacity asks for the capacity: it is Total when Result has no error.
func (c *Core) Capacity(now time.Time) Answer {
	return c.call(now, 0, func() error { return nil })
}

// Inspect asks for a container by ID or name, as it is when the answer is heard.
func (c *Core) Inspect(now time.Time, id string) Answer {
	if b := c.names[id]; b != nil {
		id = formatID(b.id)
	}
	n, _ := parseID(id)
	return c.call(now, n, func() error {
		_, err := c.find(id)
		return err
	})
}

// Result is what the caller of an answered call gets, at a.At. Only Launch and
// Inspect tell a container.
func (c *Core) Result(a Answer) (provider.Container, error) {
	if a.Err != nil || a.id == 0 {
		return provider.Container{}, a.Err
	}
	b, ok := c.ids[a.id]
	switch {
	case !ok && a.launch:
		return provider.Container{}, fmt.Errorf("container %s vanished while it started", formatID(a.id))
	case !ok:
		return provider.Container{}, fmt.Errorf("container %s: %w", formatID(a.id), provider.ErrNotFound)
	}
	return c.view(b), nil
}

// Next is when something next happens by itself; zero when nothing will.
func (c *Core) Next() time.Time {
	if len(c.timers) == 0 {
		return time.Time{}
	}
	return time.Unix(0, c.timers[0].due)
}

// Advance does all that is due until now: containers start and end. Feeds tell
// what changed.
func (c *Core) Advance(now time.Time) {
	for until := now.UnixNano(); len(c.timers) > 0 && c.timers[0].due <= until; {
		b := heap.Pop(&c.timers).(*box)
		if b.state == provider.StateCreated {
			c.up(b, b.due)
		} else {
			c.end(b, b.due)
		}
	}
}

// up starts a created box.
func (c *Core) up(b *box, at int64) {
	b.state, b.started = provider.StateUp, at
	switch {
	case b.run == 0:
		c.end(b, at)
		return
	case b.run > 0:
		c.timers.set(b, at+int64(b.run))
	}
	c.changed(b)
}

// end ends a running box with its code.
func (c *Core) end(b *box, at int64) {
	c.timers.clear(b)
	b.state, b.ended = provider.StateExited, at
	c.release(b)
	c.changed(b)
}

// take charges a new box's resources, or says what is short.
func (c *Core) take(b *box) error {
	for i, t := range c.cfg.Total {
		want := b.resources.Amount(t.Name)
		if c.used[i]+want > t.Amount {
			return fmt.Errorf("%w: %s %s wanted, %s of %s free",
				provider.ErrCapacity, want, t.Name, t.Amount-c.used[i], t.Amount)
		}
	}
	addr, err := c.pool.take()
	if err != nil {
		return err
	}
	for i, t := range c.cfg.Total {
		c.used[i] += b.resources.Amount(t.Name)
	}
	b.addr, b.charge = addr, true
	c.count(b.key)
	return nil
}

func (c *Core) count(k task.Key) {
	if k == (task.Key{}) {
		return
	}
	c.live[k]++
	if c.live[k] == 2 {
		c.double = append(c.double, k)
	}
}

// release gives the resources back; the address stays until the removal.
func (c *Core) release(b *box) {
	if !b.charge {
		return
	}
	b.charge = false
	for i, t := range c.cfg.Total {
		c.used[i] -= b.resources.Amount(t.Name)
	}
	if c.live[b.key] > 1 {
		c.live[b.key]--
	} else {
		delete(c.live, b.key)
	}
}

// drop makes a box that is not charged any more disappear.
func (c *Core) drop(b *box) {
	c.timers.clear(b)
	c.release(b)
	c.pool.put(b.addr)
	delete(c.names, b.name)
	delete(c.ids, b.id)
	delete(c.files, b.id)
	delete(c.mounts, b.id)
	b.state = provider.StateGone
	if b.group != nil {
		b.group.drop(b)
	}
	c.changed(b)
}

func (c *Core) find(id string) (*box, error) {
	if n, ok := parseID(id); ok {
		if b := c.ids[n]; b != nil {
			return b, nil
		}
	}
	return nil, fmt.Errorf("container %s: %w", id, provider.ErrNotFound)
}

// Identifiers are numbers in 12 hexadecimal digits.
func formatID(n uint64) string {
	const zeros = "000000000000"
	s := strconv.FormatUint(n, 16)
	return zeros[min(len(s), 12):] + s
}

func parseID(id string) (uint64, bool) {
	if len(id) != 12 {
		return 0, false
	}
	n, err := strconv.ParseUint(id, 16, 64)
	return n, err == nil
}

// view is the box as callers see it.
func (c *Core) view(b *box) provider.Container {
	v := provider.Container{
		ID: formatID(b.id), Name: b.name, State: b.state, Key: b.key, Resources: b.resources,
		Created: moment(b.created), Started: moment(b.started), Ended: moment(b.ended),
	}
	if b.group != nil {
		v.Owner = b.group.owner
	}
	if b.state == provider.StateUp {
		v.Addresses, v.Network = []string{addressText(b.addr)}, c.cfg.Network
	}
	if b.ended != 0 {
		v.ExitCode, v.HasExit = int(b.code), true
	}
	return v
}

func moment(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}
