package libprocess

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	bufferMin  = 4 << 10  // of a quiet connection
	bufferMax  = 32 << 10 // of a busy one; a large message makes it grow beyond, for a while
	quietReads = 16       // after so many small reads a connection is quiet
	answerMax  = 32 << 10 // answers are written at the latest when there are so many bytes
)

// inbound reads messages from one connection. It has no time limits: a link
// stays open for as long as both sides live, and closing it says that we died.
type inbound struct {
	node *Node
	conn net.Conn
	ip   netip.Addr // of the other side

	buf        []byte
	start, end int  // of what is read and not yet parsed
	full       bool // the last read filled buf
	small      int  // so many reads in a row would have fitted into bufferMin

	answers  []byte
	accepted []byte // the usual answer, with the date of
	second   int64

	sender string // the last one, unparsed and parsed
	from   UPID
	name   string // the last one
}

func newInbound(n *Node, conn net.Conn) *inbound {
	c := &inbound{node: n, conn: conn, buf: make([]byte, bufferMin)}
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		c.ip = a.AddrPort().Addr().Unmap()
	}
	return c
}

// run takes messages until the connection ends or turns out to carry something
// else, in which case net/http takes over for good.
func (c *inbound) run() {
	defer c.node.release(c.conn)
	for {
		r, v := parse(c.buf[c.start:c.end])
		var err error
		switch v {
		case complete:
			c.message(r)
			c.start += r.size
			if len(c.answers) > answerMax {
				err = c.flush()
			}
		case partial:
			if err = c.fill(); err == nil && c.end-c.start > c.node.cfg.MaxMessage+maxHead {
				err = errTooLarge
				c.node.cfg.ErrorLog.Warn("connection given up: a message is too large", "peer", c.ip, "most", c.node.cfg.MaxMessage)
			}
		case unusual:
			if err = c.flush(); err == nil {
				c.node.plain.give(c.conn, c.buf[c.start:c.end])
				return
			}
		}
		if err != nil {
			c.conn.Close()
			return
		}
	}
}

// fill writes the answers so far and reads more.
func (c *inbound) fill() error {
	if err := c.flush(); err != nil {
		return err
	}
	c.makeRoom()
	n, err := c.conn.Read(c.buf[c.end:])
	c.end += n
	c.full = c.end == len(c.buf)
	if c.small++; n >= bufferMin {
		c.small = 0
	}
	if n > 0 {
		return nil
	}
	return err
}

// makeRoom moves what is left to the front, of a larger buffer if the last one
// was filled and of a small one if a large message is done with.
func (c *inbound) makeRoom() {
	left := c.buf[c.start:c.end]
	size := len(c.buf)
	switch {
	case len(left) == size:
		size *= 2
	case c.full && size < bufferMax:
		size *= 2
	case size > bufferMax && len(left) < bufferMax:
		size = bufferMax
	case c.small > quietReads && len(left) < bufferMin:
		size = bufferMin
	}
	to := c.buf
	if size != len(to) {
		to = make([]byte, size)
	}
	c.end = copy(to, left)
	c.start = 0
	c.buf = to
}

func (c *inbound) flush() error {
	if len(c.answers) == 0 {
		return nil
	}
	_, err := c.conn.Write(c.answers)
	if c.answers = c.answers[:0]; cap(c.answers) > bufferMin && !c.full {
		c.answers = nil
	}
	return err
}

// message delivers a message and notes the answer.
func (c *inbound) message(r request) {
	id, err := unescape(r.to)
	if err != nil {
		c.answer("500 Internal Server Error", "Failed to decode URL path: "+err.Error())
		return
	}
	c.setSender(r.from)
	if c.node.cfg.RequirePeerIP && c.from.Addr.Addr() != c.ip {
		c.answer("400 Bad Request", mismatch(c.from, c.ip))
		return
	}
	a := c.node.actor(id)
	if a == nil {
		c.answer("404 Not Found", notFoundText)
		return
	}
	if c.name != string(r.name) {
		c.name = string(r.name)
	}
	a.handle(Message{From: c.from, To: a.id, Name: c.name, Body: r.body})
	c.accept()
}

// unescape undoes percent-encoding, of which there mostly is none.
func unescape(s []byte) ([]byte, error) {
	if bytes.IndexByte(s, '%') < 0 {
		return s, nil
	}
	out, err := url.PathUnescape(string(s))
	return []byte(out), err
}

// setSender parses a sender unless it is the one before. Nonsense is nobody, as
// in libprocess.
func (c *inbound) setSender(text []byte) {
	if c.sender != string(text) {
		c.sender = string(text)
		c.from, _ = parseSender(c.sender)
	}
}

// accept notes the answer 202.
func (c *inbound) accept() {
	if now := time.Now(); now.Unix() != c.second {
		c.second = now.Unix()
		c.accepted = append(appendStatus(c.accepted[:0], "202 Accepted"), "Content-Length: 0\r\n\r\n"...)
	}
	c.answers = append(c.answers, c.accepted...)
}

func (c *inbound) answer(status, text string) {
	c.answers = appendStatus(c.answers, status)
	c.answers = append(c.answers, "Content-Type: text/plain; charset=utf-8\r\nContent-Length: "...)
	c.answers = strconv.AppendInt(c.answers, int64(len(text)), 10)
	c.answers = append(append(c.answers, "\r\n\r\n"...), text...)
}

func appendStatus(dst []byte, status string) []byte {
	dst = append(append(dst, "HTTP/1.1 "...), status...)
	dst = time.Now().UTC().AppendFormat(append(dst, "\r\nDate: "...), http.TimeFormat)
	return append(dst, "\r\n"...)
}

const notFoundText = "404 Not Found."

func notFound(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusNotFound, notFoundText) }

func text(w http.ResponseWriter, status int, s string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	io.WriteString(w, s)
}

func mismatch(from UPID, ip netip.Addr) string {
	return "UPID IP address validation failed: message from " + from.String() + " was sent from IP " + ip.String()
}

// handover is the listener of the http.Server: it yields connections of which
// something has been read already.
type handover struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newHandover(addr net.Addr) *handover {
	return &handover{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

// give passes a connection on, or closes it if the server is down.
func (h *handover) give(conn net.Conn, head []byte) {
	select {
	case h.conns <- &readAhead{Conn: conn, head: bytes.Clone(head)}:
	case <-h.done:
		conn.Close()
	}
}

func (h *handover) Accept() (net.Conn, error) {
	select {
	case conn := <-h.conns:
		return conn, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handover) Addr() net.Addr { return h.addr }

func (h *handover) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

// readAhead is a connection whose first bytes have been read.
type readAhead struct {
	net.Conn
	head []byte
}

func (c *readAhead) Read(p []byte) (int, error) {
	if len(c.head) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.head)
	if c.head = c.head[n:]; len(c.head) == 0 {
		c.head = nil
	}
	return n, nil
}

// serveHTTP serves what is no message in the usual form.
func (n *Node) serveHTTP(w http.ResponseWriter, r *http.Request) {
	if sender, ok := senderOf(r); ok {
		n.serveMessage(w, r, sender)
		return
	}
	n.cfg.HTTP.ServeHTTP(w, r)
}

// senderOf returns who a request is from, if it is a message.
func senderOf(r *http.Request) (string, bool) {
	if r.Method != http.MethodPost {
		return "", false
	}
	if from := r.Header.Values("Libprocess-From"); len(from) > 0 {
		return from[0], true
	}
	return strings.CutPrefix(r.UserAgent(), "libprocess/")
}

func (n *Node) serveMessage(w http.ResponseWriter, r *http.Request, sender string) {
	from, _ := parseSender(sender)
	ap, _ := netip.ParseAddrPort(r.RemoteAddr)
	if ip := ap.Addr().Unmap(); n.cfg.RequirePeerIP && from.Addr.Addr() != ip {
		text(w, http.StatusBadRequest, mismatch(from, ip))
		return
	}
	to, name, _ := strings.Cut(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/")
	id, err := url.PathUnescape(to)
	if err != nil {
		text(w, http.StatusInternalServerError, "Failed to decode URL path: "+err.Error())
		return
	}
	body, err := readBody(w, r, int64(n.cfg.MaxMessage))
	if err != nil {
		text(w, bodyStatus(err), "Failed to read the message: "+err.Error())
		return
	}
	a := n.actor([]byte(id))
	if a == nil {
		notFound(w, r)
		return
	}
	a.handle(Message{From: from, To: id, Name: name, Body: body})
	w.WriteHeader(http.StatusAccepted)
}

var errTooLarge = errors.New("it is too large")

func bodyStatus(err error) int {
	var limit *http.MaxBytesError
	if errors.As(err, &limit) || errors.Is(err, errTooLarge) {
		return http.StatusRequestEntityTooLarge
	}
	return http.StatusBadRequest
}

func readBody(w http.ResponseWriter, r *http.Request, most int64) ([]byte, error) {
	var body io.Reader = http.MaxBytesReader(w, r.Body, most)
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(body)
		if err != nil {
			return nil, err
		}
		body = z
	}
	out, err := io.ReadAll(io.LimitReader(body, most+1))
	if err == nil && int64(len(out)) > most {
		err = errTooLarge
	}
	return out, err
}
