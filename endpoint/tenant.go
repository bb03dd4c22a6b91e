package endpoint

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mesopool/mesopool/endpoint/backend"
)

// shortID is how many digits of an ID are indexed: those that docker prints.
const shortID = 12

// Container is a container at one moment.
type Container struct {
	*backend.Spec
	backend.State

	Name     string // the current one
	Modified time.Time
	Linked   []string // names that other containers have for it: parent/alias
}

// UUID is the instance's.
func (c *Container) UUID() string { return UUIDOfID(c.ID) }

// UUIDOfID gives the instance's UUID of a container's ID: its first 32 digits
// (sdc-docker: lib/common.js dockerIdToUuid).
func UUIDOfID(id string) string {
	return id[:8] + "-" + id[8:12] + "-" + id[12:16] + "-" + id[16:20] + "-" + id[20:32]
}

// record is a container in its tenant's index, whose lock guards it.
type record struct {
	spec       *backend.Spec
	name       string
	state      backend.State
	modified   time.Time
	reserved   bool // its provisioning or removal is under way
	renaming   bool
	dependents []*record
	changed    chan struct{} // closed at the next change; nil: nobody waits
	prev, next *record       // by age
}

// tenant is one account's containers.
type tenant struct {
	key string

	mu     sync.Mutex
	ids    map[string]*record
	names  map[string]*record
	shorts map[string][]*record // by the first digits of the ID
	newest *record
	used   Usage
	feeds  map[*Feed]struct{}
	gone   []string // IDs that left lately
}

// maxGone bounds what is remembered of what left.
const maxGone = 1000

// Usage is what an account has.
type Usage struct{ Machines, RAM, Disk int } // MiB

func newTenant(key string) *tenant {
	return &tenant{key: key, ids: map[string]*record{}, names: map[string]*record{}, shorts: map[string][]*record{}, feeds: map[*Feed]struct{}{}}
}

var errQuota = &Error{http.StatusUnauthorized, "", "Quota exceeded; to have your limits raised please contact Support"}

// add puts a record into the index if its name is free and the limits allow it.
func (t *tenant) add(r *record, l Limits) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.names[r.name] != nil {
		return errDuplicateAlias
	}
	after := Usage{t.used.Machines + 1, t.used.RAM + r.spec.MemoryMiB, t.used.Disk + r.spec.DiskMiB}
	if over(after.Machines, l.Machines) || over(after.RAM, l.RAM) || over(after.Disk, l.Quota*1024) {
		return errQuota
	}
	t.used = after
	short := r.spec.ID[:shortID]
	t.ids[r.spec.ID], t.names[r.name], t.shorts[short] = r, r, append(t.shorts[short], r)
	if r.next = t.newest; r.next != nil {
		r.next.prev = r
	}
	t.newest = r
	for _, other := range t.dependencies(r) {
		other.dependents = append(other.dependents, r)
	}
	t.touch(r)
	return nil
}

func over(n, limit int) bool { return limit > 0 && n > limit }

// dependencies are the containers that r links to or shares volumes of, each once.
func (t *tenant) dependencies(r *record) []*record {
	var all []*record
	add := func(id string) {
		if other := t.ids[id]; other != nil && !slices.Contains(all, other) {
			all = append(all, other)
		}
	}
	for _, l := range r.spec.Links {
		add(l.ID)
	}
	for _, s := range r.spec.VolumesFrom {
		add(s.ID)
	}
	return all
}

// drop takes a record out of the index. The caller holds the lock.
func (t *tenant) drop(r *record) {
	if t.ids[r.spec.ID] != r {
		return
	}
	short := r.spec.ID[:shortID]
	delete(t.ids, r.spec.ID)
	delete(t.names, r.name)
	if left := slices.DeleteFunc(t.shorts[short], func(x *record) bool { return x == r }); len(left) > 0 {
		t.shorts[short] = left
	} else {
		delete(t.shorts, short)
	}
	if r.prev != nil {
		r.prev.next = r.next
	} else {
		t.newest = r.next
	}
	if r.next != nil {
		r.next.prev = r.prev
	}
	for _, other := range t.dependencies(r) {
		other.dependents = slices.DeleteFunc(other.dependents, func(x *record) bool { return x == r })
	}
	t.used = Usage{t.used.Machines - 1, t.used.RAM - r.spec.MemoryMiB, t.used.Disk - r.spec.DiskMiB}
	r.state.Gone = true
	t.gone = append(t.gone[max(0, len(t.gone)+1-maxGone):], r.spec.ID)
	t.touch(r)
}

// touch tells who waits, and the feeds, that a record changed.
func (t *tenant) touch(r *record) {
	r.modified = time.Now()
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
	for f := range t.feeds {
		if !f.put(t.view(r)) {
			delete(t.feeds, f)
		}
	}
}

// update takes over what the backend tells.
func (t *tenant) update(id string, s backend.State) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.ids[id]
	switch {
	case r == nil:
	case s.Gone:
		t.drop(r)
	case r.state.Phase == backend.Provisioning && r.reserved:
		r.state.NICs = s.NICs // Create's end makes it visible
	default:
		r.state = s
		t.touch(r)
	}
}

// view is a record as callers see it. The caller holds the lock.
func (t *tenant) view(r *record) *Container {
	c := &Container{Spec: r.spec, State: r.state, Name: r.name, Modified: r.modified}
	for _, d := range r.dependents {
		for _, l := range d.spec.Links {
			if l.ID == r.spec.ID {
				c.Linked = append(c.Linked, d.name+"/"+l.Alias)
			}
		}
	}
	return c
}

// lookup finds a record by full ID, exact name, or an ID's beginning that only
// one has (sdc-docker: lib/backends/sdc/containers.js). The caller holds the lock.
func (t *tenant) lookup(name string) *record {
	if len(name) == 64 {
		if r := t.ids[name]; r != nil {
			return r
		}
	}
	if r := t.names[name]; r != nil {
		return r
	}
	var found []*record
	if len(name) >= shortID {
		for _, r := range t.shorts[name[:shortID]] {
			if strings.HasPrefix(r.spec.ID, name) {
				found = append(found, r)
			}
		}
	} else if name != "" {
		for r := t.newest; r != nil && len(found) < 2; r = r.next {
			if strings.HasPrefix(r.spec.ID, name) {
				found = append(found, r)
			}
		}
	}
	if len(found) == 1 {
		return found[0]
	}
	return nil
}

// find is lookup for callers without the lock: the record may change at once.
func (t *tenant) find(name string) (*record, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.lookup(strings.TrimPrefix(name, "/")); r != nil {
		return r, nil
	}
	return nil, noContainer(name)
}

func (t *tenant) get(name string) (*Container, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.lookup(strings.TrimPrefix(name, "/")); r != nil {
		return t.view(r), nil
	}
	return nil, noContainer(name)
}

// list returns the containers that keep wants, the newest first.
func (t *tenant) list(keep func(*Container) bool) []*Container {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []*Container
	for r := t.newest; r != nil; r = r.next {
		if c := t.view(r); keep == nil || keep(c) {
			all = append(all, c)
		}
	}
	return all
}

// watch returns a container with a channel that closes when it changes.
func (t *tenant) watch(id string) (*Container, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.ids[id]
	if r == nil {
		return nil, nil
	}
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	return t.view(r), r.changed
}

// feedLimit bounds what waits for a slow reader.
const feedLimit = 10000

// Feed is told of every change of an account's containers.
type Feed struct {
	t  *tenant
	ch chan *Container
}

// C yields containers as they change, State.Gone for those that left. It is
// closed when its reader is too slow.
func (f *Feed) C() <-chan *Container { return f.ch }

// Close ends the feed.
func (f *Feed) Close() {
	f.t.mu.Lock()
	defer f.t.mu.Unlock()
	delete(f.t.feeds, f)
}

// put never blocks; false says that the feed is over.
func (f *Feed) put(c *Container) bool {
	select {
	case f.ch <- c:
		return true
	default:
		close(f.ch)
		return false
	}
}

// maxFeeds bounds the feeds of an account.
const maxFeeds = 100

// Subscribe makes a feed of the account's changes from now on; false says that
// it has too many.
func (c *Cloud) Subscribe(a *Account) (*Feed, bool) {
	t := c.tenantOf(a.Key())
	f := &Feed{t, make(chan *Container, feedLimit)}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.feeds) >= maxFeeds {
		return nil, false
	}
	t.feeds[f] = struct{}{}
	return f, true
}
