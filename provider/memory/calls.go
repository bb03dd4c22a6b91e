package memory

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

// The exit codes of stopped containers: 128 and the signal's number.
const (
	codeTerminated = 143
	codeKilled     = 137
)

// Launch creates and starts a container; it is up, and the answer is heard,
// after the configured latency.
func (c *Core) Launch(now time.Time, o task.Owner, name string, s task.Spec) Answer {
	c.Advance(now)
	v := c.judge()
	a := Answer{At: now.Add(c.cfg.Latency.draw(c.rnd)), Never: v.never, Err: v.err, launch: true}
	if v.skip {
		return a
	}
	b, err := c.named(now, o, name, &s)
	if err != nil {
		if a.Err == nil {
			a.Err = err
		}
		return a
	}
	a.id = b.id
	a.At = c.start(b, now, a.At)
	return a
}

// named is the owner's box of that name, created if there is none.
func (c *Core) named(now time.Time, o task.Owner, name string, s *task.Spec) (*box, error) {
	if b, ok := c.names[name]; ok {
		if b.group == nil || b.group.owner != o {
			return nil, fmt.Errorf("%w: the name %s is taken by somebody else's container", provider.ErrRejected, name)
		}
		return b, nil
	}
	if c.cfg.Missing[s.Image] {
		return nil, fmt.Errorf("%w: there is no image %s", provider.ErrRejected, s.Image)
	}
	if n := s.Network; n.Mode == task.NetworkContainer {
		if other, err := c.find(n.Name); err != nil || other.state != provider.StateUp {
			return nil, fmt.Errorf("the container %s, whose network is to be shared, is not running", n.Name)
		}
	}
	return c.create(now, o, name, s)
}

func (c *Core) create(now time.Time, o task.Owner, name string, s *task.Spec) (*box, error) {
	p := programOf(s)
	b := &box{
		name: name, key: s.Key, resources: s.Resources,
		created: now.UnixNano(), run: p.run, timer: -1, state: provider.StateCreated, code: p.code, deaf: p.deaf,
	}
	if len(p.output) > 0 {
		output := p.output
		b.output = &output
	}
	if err := c.take(b); err != nil {
		return nil, err
	}
	c.add(b)
	for _, v := range provider.PersistentVolumes(o, s) {
		c.mounts[b.id] = append(c.mounts[b.id], v.Name)
		c.disks[v.Name] = o
	}
	c.mayDie(b)
	c.groupOf(o).add(b)
	return b, nil
}

func (c *Core) add(b *box) {
	c.lastID++
	b.id = c.lastID
	c.names[b.name], c.ids[b.id] = b, b
}

// mayDie lets chance shorten the box's life.
func (c *Core) mayDie(b *box) {
	if !c.chance(c.cfg.Faults.Die) {
		return
	}
	after := max(c.cfg.Faults.DieAfter.draw(c.rnd), 1)
	if b.run == forever || after < b.run {
		b.run, b.code = after, 1
	}
}

// start sets a created box going, to be up at the given time; a start under
// way keeps its time. It returns when the box is up.
func (c *Core) start(b *box, now, at time.Time) time.Time {
	switch {
	case b.state != provider.StateCreated:
		return at
	case b.timer >= 0:
		return time.Unix(0, b.due)
	case !at.After(now):
		c.up(b, now.UnixNano())
	default:
		c.timers.set(b, at.UnixNano())
		c.changed(b)
	}
	return at
}

// Create creates a container and leaves its start to a Launch.
func (c *Core) Create(now time.Time, o task.Owner, name string, s task.Spec) Answer {
	a := c.call(now, 0, func() error {
		b, err := c.named(now, o, name, &s)
		if err == nil && b.state == provider.StateCreated {
			c.changed(b)
		}
		return err
	})
	if b := c.names[name]; b != nil {
		a.id, a.launch = b.id, true
	}
	return a
}

// CopyIn puts files into a container, by their absolute paths.
func (c *Core) CopyIn(now time.Time, id string, files map[string][]byte) Answer {
	return c.call(now, 0, func() error {
		b, err := c.find(id)
		if err != nil {
			return err
		}
		if c.files[b.id] == nil {
			c.files[b.id] = map[string][]byte{}
		}
		maps.Copy(c.files[b.id], files)
		return nil
	})
}

// File is the content of a file that was put into a container.
func (c *Core) File(id, path string) ([]byte, bool) {
	b, err := c.find(id)
	if err != nil {
		return nil, false
	}
	data, ok := c.files[b.id][path]
	return data, ok
}

// AddForeign makes a running container that is nobody's and returns its ID.
// It panics if the name is taken.
func (c *Core) AddForeign(now time.Time, name string) string {
	if _, taken := c.names[name]; taken {
		panic("memory: the name " + name + " is taken")
	}
	at := now.UnixNano()
	b := &box{name: name, created: at, started: at, run: forever, timer: -1, state: provider.StateUp}
	c.add(b)
	return formatID(b.id)
}

// Stop orders the end of a container: those that obey end after ExitLatency
// with code 143, the deaf after grace with code 137.
func (c *Core) Stop(now time.Time, id string, grace time.Duration) Answer {
	return c.call(now, 0, func() error {
		b, err := c.find(id)
		if err != nil || b.state != provider.StateUp {
			return err
		}
		after, code := c.cfg.ExitLatency.draw(c.rnd), uint8(codeTerminated)
		if b.deaf || after > grace {
			after, code = grace, codeKilled
		}
		c.endBy(b, now.Add(after).UnixNano(), code)
		c.Advance(now)
		return nil
	})
}

// endBy ends a running box at the given moment unless it ends before.
func (c *Core) endBy(b *box, due int64, code uint8) {
	if b.timer < 0 || due < b.due {
		b.code = code
		c.timers.set(b, due)
	}
}

// Remove deletes a container that is not running.
func (c *Core) Remove(now time.Time, id string) Answer {
	return c.call(now, 0, func() error {
		b, err := c.find(id)
		if err != nil {
			return nil
		}
		if b.state == provider.StateUp {
			return fmt.Errorf("container %s is running; stop it before removing it", b.name)
		}
		c.drop(b)
		return nil
	})
}

// RemoveVolume deletes a persistent volume that no container has.
func (c *Core) RemoveVolume(now time.Time, o task.Owner, name string) Answer {
	return c.call(now, 0, func() error {
		owner, ok := c.disks[name]
		if ok && owner != o {
			return fmt.Errorf("%w: the volume %s is not this agent's", provider.ErrRejected, name)
		}
		for id, names := range c.mounts {
			if slices.Contains(names, name) {
				return fmt.Errorf("the volume %s is in use by container %s", name, formatID(id))
			}
		}
		delete(c.disks, name)
		return nil
	})
}

// HasVolume says whether there is a persistent volume of that name.
func (c *Core) HasVolume(name string) bool {
	_, ok := c.disks[name]
	return ok
}

// Kill ends a running container now with the code, as if it died by itself.
// It says whether there was one.
func (c *Core) Kill(now time.Time, id string, code uint8) bool {
	c.Advance(now)
	b, err := c.find(id)
	if err != nil || b.state != provider.StateUp {
		return false
	}
	b.code = code
	c.end(b, now.UnixNano())
	return true
}

// Vanish removes a container, running or not, as an operator's rm -f would. It
// says whether there was one.
func (c *Core) Vanish(now time.Time, id string) bool {
	c.Advance(now)
	b, err := c.find(id)
	if err == nil {
		c.drop(b)
	}
	return err == nil
}

// Lookup finds a container by name.
func (c *Core) Lookup(name string) (provider.Container, bool) {
	b, ok := c.names[name]
	if !ok {
		return provider.Container{}, false
	}
	return c.view(b), true
}

// Len counts the containers, whatever their state and whosesoever they are.
func (c *Core) Len() int { return len(c.ids) }

// Live counts the containers of a task that run or are about to.
func (c *Core) Live(k task.Key) int { return int(c.live[k]) }

// Doubles lists the tasks that ever had a second live container, in the order
// of happening, each as often as it happened. It is empty while all is well.
func (c *Core) Doubles() []task.Key { return c.double }
