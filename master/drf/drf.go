// Package drf orders clients by their weighted dominant share: the largest
// part that a client has of any resource, divided by its weight. Whoever has
// the smallest comes first.
//
// It knows names, amounts and weights, and nothing of roles, frameworks,
// agents or offers. Equal shares are ordered by the number of allocations,
// then by name, as Mesos' sorter does (sorter/drf/sorter.cpp, compareDRF), so
// the order never depends on chance.
package drf

import (
	"cmp"
	"slices"

	"github.com/mesopool/mesopool/resources"
)

// Sorter keeps what each client has. The zero value is empty.
type Sorter struct {
	total   resources.Scalars
	clients map[string]*client
}

type client struct {
	name   string
	weight float64
	has    resources.Scalars
	count  int // allocations since it came
	share  float64
	stale  bool
}

// Add makes a client known with its weight; a weight of 0 counts as 1. Adding
// it again sets the weight.
func (s *Sorter) Add(name string, weight float64) {
	if s.clients == nil {
		s.clients = make(map[string]*client)
	}
	if weight <= 0 {
		weight = 1
	}
	c := s.clients[name]
	if c == nil {
		c = &client{name: name}
		s.clients[name] = c
	}
	c.weight, c.stale = weight, true
}

// Remove forgets a client and what it has.
func (s *Sorter) Remove(name string) { delete(s.clients, name) }

// SetTotal says how much there is in all.
func (s *Sorter) SetTotal(total resources.Scalars) {
	s.total = total
	for _, c := range s.clients {
		c.stale = true
	}
}

// Allocate counts an amount as the client's.
func (s *Sorter) Allocate(name string, amount resources.Scalars) {
	if c := s.clients[name]; c != nil {
		c.has, c.count, c.stale = c.has.Add(amount), c.count+1, true
	}
}

// Release takes an amount back from the client.
func (s *Sorter) Release(name string, amount resources.Scalars) {
	if c := s.clients[name]; c != nil {
		c.has, c.stale = c.has.Sub(amount), true
	}
}

// Allocated returns what the client has.
func (s *Sorter) Allocated(name string) resources.Scalars {
	if c := s.clients[name]; c != nil {
		return c.has
	}
	return nil
}

// Share returns the client's dominant share divided by its weight.
func (s *Sorter) Share(name string) float64 {
	c := s.clients[name]
	if c == nil {
		return 0
	}
	return s.share(c)
}

func (s *Sorter) share(c *client) float64 {
	if !c.stale {
		return c.share
	}
	c.share, c.stale = 0, false
	for _, x := range c.has {
		if all := s.total.Get(x.Name); all > 0 {
			c.share = max(c.share, float64(x.Amount)/float64(all)/c.weight)
		}
	}
	return c.share
}

// Sort returns the clients' names, the one to serve first at the front.
func (s *Sorter) Sort() []string {
	all := make([]*client, 0, len(s.clients))
	for _, c := range s.clients {
		s.share(c)
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b *client) int {
		return cmp.Or(cmp.Compare(a.share, b.share), cmp.Compare(a.count, b.count), cmp.Compare(a.name, b.name))
	})
	names := make([]string, len(all))
	for i, c := range all {
		names[i] = c.name
	}
	return names
}
