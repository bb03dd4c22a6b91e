package libprocess

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"
)

// Message is a message for a local actor.
type Message struct {
	From UPID   // as the sender claims; zero if it made no sense
	To   string // the local actor's ID
	Name string // full name of the protobuf message
	Body []byte // serialized; valid only until the Handler returns
}

// Handler takes the messages for one actor. The messages of one connection come
// one after the other, those of different connections and local ones at the
// same time. While it runs, nothing more is read from that connection.
type Handler func(Message)

// Config says where a Node is and what it does beside messages.
type Config struct {
	// Listener takes connections; Run closes it. For TLS, tls.NewListener; HTTP
	// then sees requests without their TLS state.
	Listener net.Listener
	// Advertise is the ip:port that others reach this node at, and part of all
	// its UPIDs. Zero means the listener's own address, which must then not be
	// an unspecified one such as 0.0.0.0.
	Advertise netip.AddrPort
	// HTTP serves requests that are no messages. Nil answers 404 to all.
	HTTP http.Handler
	// Exited is called once for every link that breaks, or never came to be,
	// from a goroutine of the node that holds no locks. Nil ignores it.
	Exited func(UPID)
	// Dial opens a connection, for instance with tls.Dialer. Nil is TCP with a
	// limit of 10 s.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
	// MaxQueue is how many bytes may wait for a peer, or for the local actors.
	// Zero is DefaultMaxQueue. A message that finds the queue empty is taken at
	// any size.
	MaxQueue int
	// MaxMessage is how large a message may be, in bytes; a connection that brings
	// a larger one is given up. Zero is 1 GiB, which has room for the largest
	// re-registration of an agent.
	MaxMessage int
	// RequirePeerIP answers 400 to messages whose sender claims another IP
	// address than that of its connection.
	RequirePeerIP bool
	// ErrorLog gets what nobody else is told. Nil discards it.
	ErrorLog *slog.Logger
}

// DefaultMaxQueue has room for the largest re-registration of an agent.
const DefaultMaxQueue = 256 << 20

const dialTime = 10 * time.Second

// Node is one address with its actors and its connections. All methods may be
// called at any time, from any goroutine; messages and links from before Run
// wait for it.
type Node struct {
	cfg    Config
	addr   netip.AddrPort
	host   string // addr as text
	actors atomic.Pointer[map[string]*actor]
	local  localQueue
	plain  *handover
	idle   time.Duration // idleTime, but in tests

	mu      sync.Mutex
	ctx     context.Context // nil before Run
	stopped bool
	peers   map[netip.AddrPort]*peer
	inbound map[net.Conn]bool
	running sync.WaitGroup
}

type actor struct {
	id     string
	handle Handler
}

// NewNode returns a node that does nothing before Run.
func NewNode(cfg Config) *Node {
	if cfg.HTTP == nil {
		cfg.HTTP = http.HandlerFunc(notFound)
	}
	if cfg.Exited == nil {
		cfg.Exited = func(UPID) {}
	}
	if cfg.ErrorLog == nil {
		cfg.ErrorLog = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxMessage <= 0 || cfg.MaxMessage > maxMessage {
		cfg.MaxMessage = maxMessage
	}
	if cfg.MaxQueue == 0 {
		cfg.MaxQueue = DefaultMaxQueue
	}
	if cfg.Dial == nil {
		cfg.Dial = dialTCP
	}
	n := &Node{cfg: cfg, addr: advertised(cfg), idle: idleTime, peers: map[netip.AddrPort]*peer{}, inbound: map[net.Conn]bool{}}
	n.host = n.addr.String()
	n.local.init(cfg.MaxQueue)
	n.plain = newHandover(cfg.Listener.Addr())
	n.actors.Store(&map[string]*actor{})
	return n
}

func dialTCP(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTime}
	return d.DialContext(ctx, "tcp", addr)
}

func advertised(cfg Config) netip.AddrPort {
	if cfg.Advertise.IsValid() {
		return cfg.Advertise
	}
	if a, ok := cfg.Listener.Addr().(*net.TCPAddr); ok {
		ap := a.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return nobody
}

// UPID returns the address of a local actor.
func (n *Node) UPID(id string) UPID { return UPID{ID: id, Addr: n.addr} }

// Handle sets the handler of a local actor, from the next message on.
func (n *Node) Handle(id string, h Handler) {
	n.setActors(func(m map[string]*actor) { m[id] = &actor{id, h} })
}

// Unhandle ends an actor: messages to it are answered 404. A call of its
// handler may still be under way.
func (n *Node) Unhandle(id string) {
	n.setActors(func(m map[string]*actor) { delete(m, id) })
}

func (n *Node) setActors(change func(map[string]*actor)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := maps.Clone(*n.actors.Load())
	change(m)
	n.actors.Store(&m)
}

// actor returns the actor with the ID, or nil.
func (n *Node) actor(id []byte) *actor { return (*n.actors.Load())[string(id)] }

// Send queues a message from a local actor and returns at once; body may be
// used again. Messages to one address arrive in order as long as one connection
// lasts. Nobody is told of a message that is lost because the connection breaks
// or cannot be made, except through the Exited of a link. If more than MaxQueue
// bytes are waiting, the connection is given up, with all that waits.
func (n *Node) Send(from string, to UPID, name string, body []byte) {
	if to.Addr == n.addr {
		n.sendLocal(from, to, name, body)
		return
	}
	n.withPeer(to.Addr, func(p *peer) bool { return p.send(from, to.ID, name, body) })
}

// withPeer uses the connection to an address. If it ended just now, which use
// says by false, it takes a new one.
func (n *Node) withPeer(addr netip.AddrPort, use func(*peer) bool) {
	for {
		p := n.peer(addr)
		if use(p) {
			return
		}
		n.forget(p)
	}
}

// SendProto sends m under its full name. The error is that of proto.Marshal:
// a required field is missing.
func (n *Node) SendProto(from string, to UPID, m proto.Message) error {
	name := m.ProtoReflect().Descriptor().FullName()
	body, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("libprocess: send %s to %s: %w", name, to, err)
	}
	n.Send(from, to, string(name), body)
	return nil
}

func (n *Node) sendLocal(from string, to UPID, name string, body []byte) {
	if !n.local.push(Message{From: n.UPID(from), To: to.ID, Name: name, Body: body}) {
		n.cfg.ErrorLog.Error("message to own actor dropped: too many are waiting", "to", to.ID, "name", name)
	}
}

// Link asks for one Exited(to): when the connection to that address breaks or
// cannot be made. It makes the connection if there is none, and keeps it open.
// Linking twice is linking once; after Exited there is no link. A link to an
// actor that is not there, at an address that is, holds; so does one to the
// node's own address.
func (n *Node) Link(to UPID) {
	if to.Addr == n.addr {
		return
	}
	n.withPeer(to.Addr, func(p *peer) bool { return p.link(to) })
}

// Relink is Link over a new connection. It takes over what the old one, which
// may be dead without knowing, had linked and not yet written.
func (n *Node) Relink(to UPID) {
	n.mu.Lock()
	old := n.peers[to.Addr]
	delete(n.peers, to.Addr)
	n.mu.Unlock()
	if old != nil {
		queue, links := old.abandon()
		n.withPeer(to.Addr, func(p *peer) bool { return p.inherit(queue, links) })
	}
	n.Link(to)
}

// peer returns the connection to an address, perhaps a new one.
func (n *Node) peer(addr netip.AddrPort) *peer {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.peers[addr]
	if p == nil {
		p = newPeer(n, addr)
		n.peers[addr] = p
		n.start(p)
	}
	return p
}

// start runs p if the node runs. The caller holds n.mu.
func (n *Node) start(p *peer) {
	if n.ctx != nil && !n.stopped {
		n.running.Go(func() { p.run(n.ctx) })
	}
}

// forget removes p, if it is still the connection to its address.
func (n *Node) forget(p *peer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.peers[p.addr] == p {
		delete(n.peers, p.addr)
	}
}

// Run serves until ctx ends, then gives waiting messages a second to leave,
// waits for handlers that are under way, and returns nil. An error is that of
// the listener, or the lack of an address. It can be called once.
func (n *Node) Run(ctx context.Context) error {
	if n.addr.Addr().IsUnspecified() || n.addr.Port() == 0 {
		return fmt.Errorf("libprocess: nobody can answer to %s: an address to advertise is needed", n.addr)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer n.running.Wait()
	defer n.stop()
	defer cancel()
	n.begin(ctx)
	context.AfterFunc(ctx, n.stop)
	err := n.accept(ctx)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (n *Node) begin(ctx context.Context) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ctx = ctx
	for _, p := range n.peers {
		n.start(p)
	}
	server := &http.Server{Handler: http.HandlerFunc(n.serveHTTP), ErrorLog: slog.NewLogLogger(n.cfg.ErrorLog.Handler(), slog.LevelWarn)}
	context.AfterFunc(ctx, func() { server.Close() })
	n.running.Go(func() { server.Serve(n.plain) })
	n.running.Go(func() { n.local.run(ctx, n.deliverLocal) })
}

func (n *Node) deliverLocal(m Message) {
	if a := n.actor([]byte(m.To)); a != nil {
		a.handle(m)
	}
}

const acceptPause = 50 * time.Millisecond

// accept takes connections until the listener is closed.
func (n *Node) accept(ctx context.Context) error {
	for {
		conn, err := n.cfg.Listener.Accept()
		switch {
		case err == nil:
			n.serve(conn)
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return fmt.Errorf("libprocess: accept: %w", err)
		default: // no more files, say: others will be closed
			n.cfg.ErrorLog.Warn("accept failed", "error", err)
			time.Sleep(acceptPause)
		}
	}
}

// serve starts reading from a connection.
func (n *Node) serve(conn net.Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stopped {
		conn.Close()
		return
	}
	n.inbound[conn] = true
	n.running.Go(func() { newInbound(n, conn).run() })
}

// release forgets a connection; the caller closes it or gives it away.
func (n *Node) release(conn net.Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.inbound, conn)
}

// stop closes what is incoming and lets nothing new begin.
func (n *Node) stop() {
	n.cfg.Listener.Close()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stopped = true
	for conn := range n.inbound {
		conn.Close()
	}
}
