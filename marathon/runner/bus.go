package runner

import (
	"encoding/json"
	"sync"

	"github.com/mesopool/mesopool/marathon"
)

// Event is one thing that happened, as listeners get it.
type Event struct {
	ID   uint64 // grows by one with every event
	Type string
	Data []byte // JSON, with eventType and timestamp
}

// keptEvents is how many events a listener may have missed and still get.
const keptEvents = 4096

// Bus tells events to everybody who listens. A listener that falls too far
// behind is cut off.
type Bus struct {
	mu        sync.Mutex
	last      uint64
	kept      []Event
	listeners map[*Listener]bool
}

// Listener receives events from C until C is closed.
type Listener struct {
	C   <-chan Event
	c   chan Event
	bus *Bus
}

func newBus() *Bus { return &Bus{listeners: map[*Listener]bool{}} }

func (b *Bus) publish(e marathon.Event) {
	body := map[string]any{"eventType": e.Type, "timestamp": marathon.Timestamp(e.Time)}
	for k, v := range e.Body {
		body[k] = v
	}
	data, err := json.Marshal(body)
	if err != nil {
		return // bodies are made of plain values
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last++
	out := Event{ID: b.last, Type: e.Type, Data: data}
	b.kept = append(b.kept, out)
	if len(b.kept) > 2*keptEvents {
		b.kept = append([]Event(nil), b.kept[keptEvents:]...)
	}
	for l := range b.listeners {
		select {
		case l.c <- out:
		default:
			b.drop(l)
		}
	}
}

// Listen begins with the first event after the one called after that is still
// kept; 0 begins with the next.
func (b *Bus) Listen(after uint64) *Listener {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := make(chan Event, 2*keptEvents+1024)
	l := &Listener{C: c, c: c, bus: b}
	if after > 0 && after <= b.last {
		for _, e := range b.kept {
			if e.ID > after {
				c <- e
			}
		}
	}
	b.listeners[l] = true
	return l
}

// Close ends the listening.
func (l *Listener) Close() {
	l.bus.mu.Lock()
	defer l.bus.mu.Unlock()
	l.bus.drop(l)
}

func (b *Bus) drop(l *Listener) {
	if b.listeners[l] {
		delete(b.listeners, l)
		close(l.c)
	}
}
