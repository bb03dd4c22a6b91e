package memory

import (
	"errors"
	"slices"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

// ErrBroken is how a feed ends that BreakFeeds cut.
var ErrBroken = errors.New("the watch was cut")

// Feed tells one watcher what an owner has and what changes, as
// provider.Provider.Watch does. A container that changes several times before
// it is told is told once, so a feed never holds more than its containers.
type Feed struct {
	core    *Core
	group   *group
	queue   []*box
	queued  map[*box]struct{}
	initial int // boxes of the queue to tell before Synced; -1 after it
	err     error
	onReady func()
}

// Subscribe starts a feed. onReady, unless it is nil, is called whenever the
// feed has something to tell after it had nothing, from inside the call on the
// core that made it so; it must not call the core. Close the feed in the end.
func (c *Core) Subscribe(o task.Owner, onReady func()) *Feed {
	g := c.groupOf(o)
	f := &Feed{
		core: c, group: g, queue: slices.Clone(g.boxes), queued: make(map[*box]struct{}, len(g.boxes)),
		initial: len(g.boxes), onReady: onReady,
	}
	for _, b := range g.boxes {
		f.queued[b] = struct{}{}
	}
	g.feeds = append(g.feeds, f)
	return f
}

// Next returns the next event; false when there is nothing to tell now.
func (f *Feed) Next() (provider.Event, bool) {
	if f.initial == 0 {
		f.initial = -1
		return provider.Event{Synced: true}, true
	}
	if len(f.queue) == 0 {
		return provider.Event{}, false
	}
	b := f.queue[0]
	f.queue[0] = nil
	f.queue = f.queue[1:]
	delete(f.queued, b)
	if f.initial > 0 {
		f.initial--
	}
	return provider.Event{Container: f.core.view(b)}, true
}

// Err is why the feed will tell no more, nil while it does.
func (f *Feed) Err() error { return f.err }

// Close ends the feed.
func (f *Feed) Close() {
	f.group.feeds = slices.DeleteFunc(f.group.feeds, func(x *Feed) bool { return x == f })
	f.core.tidy(f.group)
}

func (f *Feed) note(b *box) {
	if _, waiting := f.queued[b]; waiting {
		return
	}
	f.queued[b] = struct{}{}
	f.queue = append(f.queue, b)
	if len(f.queue) == 1 {
		f.ready()
	}
}

func (f *Feed) ready() {
	if f.onReady != nil {
		f.onReady()
	}
}

// BreakFeeds cuts all feeds of the owner: they end with ErrBroken.
func (c *Core) BreakFeeds(o task.Owner) {
	g, ok := c.groups[o]
	if !ok {
		return
	}
	for _, f := range g.feeds {
		f.err, f.queue, f.initial = ErrBroken, nil, -1
		f.ready()
	}
	g.feeds = nil
	c.tidy(g)
}

// changed tells the box to its owner's feeds.
func (c *Core) changed(b *box) {
	if b.group == nil {
		return
	}
	for _, f := range b.group.feeds {
		f.note(b)
	}
	if b.state == provider.StateGone {
		c.tidy(b.group)
	}
}

func (c *Core) groupOf(o task.Owner) *group {
	g, ok := c.groups[o]
	if !ok {
		g = &group{owner: o}
		c.groups[o] = g
	}
	return g
}

// tidy forgets an owner of nothing whom nobody watches.
func (c *Core) tidy(g *group) {
	if len(g.boxes) == 0 && len(g.feeds) == 0 {
		delete(c.groups, g.owner)
	}
}
