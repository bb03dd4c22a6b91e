package libprocess

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	idleTime  = 5 * time.Second // an idle connection without links is closed
	drainTime = time.Second     // for the last messages of a node that stops
	keepSize  = 16 << 20        // larger buffers are not used again
)

var (
	errOverflow = errors.New("too many bytes are waiting")
	errClosed   = errors.New("the other side closed the connection")
)

// peer is an outgoing connection, from the wish to have it to its end. It makes
// one attempt and lives once: after its end the next message makes another one.
type peer struct {
	node *Node
	addr netip.AddrPort
	host string // addr as text
	wake chan struct{}
	quit chan struct{} // closed when ended by others

	mu    sync.Mutex
	ended bool
	cause error // why ended by others
	queue []byte
	spare []byte
	links map[UPID]bool
}

func newPeer(n *Node, addr netip.AddrPort) *peer {
	return &peer{node: n, addr: addr, host: addr.String(), wake: make(chan struct{}, 1), quit: make(chan struct{})}
}

// send queues a message; false if the connection has ended.
func (p *peer) send(from, to, name string, body []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return false
	}
	waiting := len(p.queue)
	if waiting > 0 && waiting+len(body) > p.node.cfg.MaxQueue {
		p.end(errOverflow)
		return true
	}
	p.queue = appendMessage(p.queue, p.host, from, p.node.host, to, name, body)
	if waiting == 0 {
		signal(p.wake)
	}
	return true
}

// link notes that Exited(to) is wanted; false if the connection has ended.
func (p *peer) link(to UPID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return false
	}
	if p.links == nil {
		p.links = map[UPID]bool{}
	}
	p.links[to] = true
	return true
}

// end makes run return. The caller holds p.mu.
func (p *peer) end(cause error) {
	if !p.ended {
		p.ended, p.cause = true, cause
		p.queue = nil
		close(p.quit)
	}
}

// abandon ends the connection without an Exited and returns what it had.
func (p *peer) abandon() (queue []byte, links map[UPID]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return nil, nil
	}
	queue, links = p.queue, p.links
	p.links = nil
	p.end(nil)
	return queue, links
}

// inherit takes over what another connection to the same address had; false if
// this one has ended.
func (p *peer) inherit(queue []byte, links map[UPID]bool) bool {
	for to := range links {
		p.link(to)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return false
	}
	p.queue = append(queue, p.queue...)
	if len(p.queue) > 0 {
		signal(p.wake)
	}
	return true
}

// run lives the life of the connection and tells of its end.
func (p *peer) run(ctx context.Context) {
	err := p.connect(ctx)
	p.node.forget(p)
	p.mu.Lock()
	p.end(err)
	links, err := p.links, p.cause
	p.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		p.node.cfg.ErrorLog.Debug("connection ended", "peer", p.host, "error", err)
	}
	for _, to := range slices.SortedFunc(maps.Keys(links), compareUPID) {
		p.node.cfg.Exited(to)
	}
}

func (p *peer) connect(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dialed := make(chan struct{})
	go func() {
		select {
		case <-p.quit:
			cancel()
		case <-dialed:
		}
	}()
	conn, err := p.node.cfg.Dial(ctx, p.host)
	close(dialed)
	if err != nil {
		return err
	}
	return p.serve(ctx, conn)
}

// serve writes what is queued until the connection is of no more use.
func (p *peer) serve(ctx context.Context, conn net.Conn) error {
	gone := make(chan struct{})
	go func() { defer close(gone); discard(conn) }()
	go func() {
		select {
		case <-p.quit:
			conn.Close() // a write may be waiting for a peer that does not read
		case <-gone:
		}
	}()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now().Add(drainTime)) })
	defer stop()
	defer func() { conn.Close(); <-gone }()
	idle := time.NewTicker(p.node.idle)
	defer idle.Stop()
	for used := true; ; {
		select {
		case <-ctx.Done():
			return p.drain(conn, gone)
		case <-p.quit:
			return nil
		case <-gone:
			return errClosed
		case <-idle.C:
			if !used && p.retire() {
				return nil
			}
			used = false
		case <-p.wake:
			used = true
			if err := p.flush(conn); err != nil {
				return err
			}
		}
	}
}

// flush writes all that is queued, each batch in one write.
func (p *peer) flush(conn net.Conn) error {
	for {
		batch := p.take()
		if len(batch) == 0 {
			return nil
		}
		if _, err := conn.Write(batch); err != nil {
			return err
		}
		p.giveBack(batch)
	}
}

func (p *peer) take() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	batch := p.queue
	p.queue, p.spare = p.spare, nil
	return batch
}

// giveBack keeps a written batch's memory for the next one.
func (p *peer) giveBack(batch []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if cap(batch) <= keepSize {
		p.spare = batch[:0]
	}
}

// retire gives up the memory of a connection that has been idle, for a cluster
// has many such, and ends it if nobody has linked it; true if so.
func (p *peer) retire() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) > 0 {
		return false
	}
	p.queue, p.spare = nil, nil
	if len(p.links) == 0 {
		p.end(nil)
	}
	return p.ended
}

// drain writes what is left when the node stops. It waits for the other side to
// close: unread answers would turn the close into a reset, and a reset takes
// with it what has not yet been read there.
func (p *peer) drain(conn net.Conn, gone <-chan struct{}) error {
	if err := p.flush(conn); err != nil {
		return err
	}
	if c, ok := conn.(interface{ CloseWrite() error }); ok && c.CloseWrite() == nil {
		<-gone
	}
	return nil
}

const (
	discardMin = 512
	discardMax = 32 << 10
)

// discard reads answers, which mean nothing, until the connection breaks, and
// closes it, so that a blocked write ends too.
func discard(conn net.Conn) {
	defer conn.Close()
	for buf := make([]byte, discardMin); ; {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		if n == len(buf) && n < discardMax {
			buf = make([]byte, 2*n)
		}
	}
}
