package drf

import (
	"cmp"
	"slices"
	"strings"

	"github.com/mesopool/mesopool/resources"
)

// Tree orders clients whose names are paths, such as eng/web: the children of
// each node are ordered by what they and all below them have, so a subtree with
// many clients gets no more than one with few (sorter/drf/sorter.cpp). The zero
// value is empty.
type Tree struct {
	total   resources.Scalars
	weights map[string]float64
	root    branch
}

// branch is a node: perhaps a client, perhaps with others below it, or both.
type branch struct {
	path     string
	children map[string]*branch
	client   bool
	own, all holding // of the client itself; with all below
}

// holding is what a client or a subtree has.
type holding struct {
	has   resources.Scalars
	count int // allocations
}

// Add makes a client known.
func (t *Tree) Add(path string) { t.walk(path, nil).client = true }

// walk goes down to a node, making it where it is missing, and calls visit on
// every node below the root on the way.
func (t *Tree) walk(path string, visit func(*branch)) *branch {
	b := &t.root
	for end := range len(path) + 1 {
		if end < len(path) && path[end] != '/' {
			continue
		}
		name := path[:end]
		next := b.children[name]
		if next == nil {
			if b.children == nil {
				b.children = map[string]*branch{}
			}
			next = &branch{path: name}
			b.children[name] = next
		}
		if b = next; visit != nil {
			visit(b)
		}
	}
	return b
}

// Remove forgets a client and what it has.
func (t *Tree) Remove(path string) {
	b := t.find(path)
	if b == nil || !b.client {
		return
	}
	own := b.own
	t.walk(path, func(x *branch) {
		x.all.has, x.all.count = x.all.has.Sub(own.has), x.all.count-own.count
	})
	b.client, b.own = false, holding{}
	t.prune(path)
}

func (t *Tree) prune(path string) {
	for path != "" {
		if b := t.find(path); b.client || len(b.children) > 0 {
			return
		}
		parent, _, _ := cutLast(path)
		up := &t.root
		if parent != "" {
			up = t.find(parent)
		}
		delete(up.children, path)
		path = parent
	}
}

func cutLast(path string) (parent, name string, found bool) {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i], path[i+1:], true
	}
	return "", path, false
}

func (t *Tree) find(path string) *branch {
	b := &t.root
	for end := range len(path) + 1 {
		if end < len(path) && path[end] != '/' {
			continue
		}
		if b = b.children[path[:end]]; b == nil {
			return nil
		}
	}
	return b
}

// SetWeight sets the weight of a path, known or not; 0 makes it 1 again.
func (t *Tree) SetWeight(path string, weight float64) {
	if t.weights == nil {
		t.weights = map[string]float64{}
	}
	if weight <= 0 || weight == 1 {
		delete(t.weights, path)
		return
	}
	t.weights[path] = weight
}

// Weight returns the weight of a path, 1 if none was set.
func (t *Tree) Weight(path string) float64 {
	if w := t.weights[path]; w > 0 {
		return w
	}
	return 1
}

// SetTotal says how much there is in all.
func (t *Tree) SetTotal(total resources.Scalars) { t.total = total }

// Allocate counts an amount as the client's, and as that of all above it.
func (t *Tree) Allocate(path string, amount resources.Scalars) {
	if b := t.find(path); b == nil || !b.client {
		return
	}
	b := t.walk(path, func(x *branch) { x.all.has, x.all.count = x.all.has.Add(amount), x.all.count+1 })
	b.own.has, b.own.count = b.own.has.Add(amount), b.own.count+1
}

// Release takes an amount back from the client.
func (t *Tree) Release(path string, amount resources.Scalars) {
	if b := t.find(path); b == nil || !b.client {
		return
	}
	b := t.walk(path, func(x *branch) { x.all.has = x.all.has.Sub(amount) })
	b.own.has = b.own.has.Sub(amount)
}

// Allocated returns what the client itself has.
func (t *Tree) Allocated(path string) resources.Scalars {
	if b := t.find(path); b != nil {
		return b.own.has
	}
	return nil
}

// AllocatedBelow returns what a path and all below it have.
func (t *Tree) AllocatedBelow(path string) resources.Scalars {
	if b := t.find(path); b != nil {
		return b.all.has
	}
	return nil
}

// Share returns the dominant share of a path and all below it, divided by its
// weight.
func (t *Tree) Share(path string) float64 {
	b := t.find(path)
	if b == nil {
		return 0
	}
	return t.share(b.all.has, t.Weight(path))
}

func (t *Tree) share(has resources.Scalars, weight float64) (share float64) {
	for _, x := range has {
		if all := t.total.Get(x.Name); all > 0 {
			share = max(share, float64(x.Amount)/float64(all)/weight)
		}
	}
	return share
}

// Sort returns the clients' paths, the one to serve first at the front.
func (t *Tree) Sort() []string { return t.sort(&t.root, nil) }

// rank is a child on its level. A node that is a client and has others below it
// stands among them with what is its own (its virtual leaf).
type rank struct {
	share float64
	count int
	path  string
	below *branch // nil for a client
}

func (t *Tree) sort(b *branch, out []string) []string {
	ranks := make([]rank, 0, len(b.children)+1)
	for _, x := range b.children {
		r := rank{t.share(x.all.has, t.Weight(x.path)), x.all.count, x.path, x}
		if len(x.children) == 0 {
			r.below = nil
		}
		ranks = append(ranks, r)
	}
	if b.client {
		ranks = append(ranks, rank{t.share(b.own.has, 1), b.own.count, b.path, nil})
	}
	slices.SortFunc(ranks, func(a, b rank) int {
		return cmp.Or(cmp.Compare(a.share, b.share), cmp.Compare(a.count, b.count), cmp.Compare(a.path, b.path))
	})
	for _, r := range ranks {
		if r.below == nil {
			out = append(out, r.path)
			continue
		}
		out = t.sort(r.below, out)
	}
	return out
}
