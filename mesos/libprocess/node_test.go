package libprocess

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mesopool/mesopool/mesos/messages"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
)

// patience is how long a test waits for what must happen, grace how long it
// looks for what must not.
const (
	patience = 10 * time.Second
	grace    = 100 * time.Millisecond
)

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// start runs a node until the test ends or the returned function is called.
func start(t testing.TB, n *Node) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	var once atomic.Bool
	stop = func() {
		if cancel(); once.Swap(true) {
			return
		}
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func newNode(t testing.TB, cfg Config) *Node {
	t.Helper()
	if cfg.Listener == nil {
		cfg.Listener = listen(t)
	}
	return NewNode(cfg)
}

// collect is a Handler that keeps messages, as "from name body".
func collect(c chan<- string) Handler {
	return func(m Message) { c <- fmt.Sprintf("%s %s %s", m.From.ID, m.Name, m.Body) }
}

func next[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatal("waited in vain")
		panic("not reached")
	}
}

func never[T any](t *testing.T, c <-chan T) {
	t.Helper()
	select {
	case v := <-c:
		t.Fatalf("did not expect %v", v)
	case <-time.After(grace):
	}
}

func TestOrder(t *testing.T) {
	const count = 20000
	a, b := newNode(t, Config{}), newNode(t, Config{})
	got := make(chan string, count)
	b.Handle("to", collect(got))
	start(t, b)
	for i := range count / 2 { // the first half waits for Run
		a.Send("from", b.UPID("to"), "n", []byte(strconv.Itoa(i)))
	}
	start(t, a)
	for i := count / 2; i < count; i++ {
		a.Send("from", b.UPID("to"), "n", []byte(strconv.Itoa(i)))
	}
	for i := range count {
		if m, want := next(t, got), fmt.Sprintf("from n %d", i); m != want {
			t.Fatalf("%q, want %q", m, want)
		}
	}
}

func TestLocal(t *testing.T) {
	a := newNode(t, Config{})
	got := make(chan string, 10)
	a.Handle("to", func(m Message) {
		if m.Name == "first" { // sending from a handler must not block
			a.Send("to", a.UPID("to"), "second", nil)
		}
		collect(got)(m)
	})
	start(t, a)
	body := []byte("x")
	a.Send("me", a.UPID("to"), "first", body)
	body[0] = 'y'
	a.Send("me", a.UPID("nobody"), "lost", nil)
	if m := next(t, got); m != "me first x" {
		t.Errorf("%q", m)
	}
	if m := next(t, got); m != "to second " {
		t.Errorf("%q", m)
	}
}

func TestSendProto(t *testing.T) {
	a, b := newNode(t, Config{}), newNode(t, Config{})
	got := make(chan string, 1)
	b.Handle("master", collect(got))
	start(t, a)
	start(t, b)
	if err := a.SendProto("slave(1)", b.UPID("master"), &messages.UnregisterSlaveMessage{}); err == nil {
		t.Error("sent without an agent ID")
	}
	id := "t"
	if err := a.SendProto("slave(1)", b.UPID("master"), &messages.UnregisterSlaveMessage{SlaveId: &mesosv1.AgentID{Value: &id}}); err != nil {
		t.Fatal(err)
	}
	if m := next(t, got); !strings.HasPrefix(m, "slave(1) mesos.internal.UnregisterSlaveMessage ") {
		t.Errorf("%q", m)
	}
}

func TestExitedWithoutConnection(t *testing.T) {
	l := listen(t)
	to := UPID{"master", l.Addr().(*net.TCPAddr).AddrPort()}
	l.Close()
	exited := make(chan UPID, 10)
	a := newNode(t, Config{Exited: func(u UPID) { exited <- u }})
	start(t, a)
	a.Link(to)
	if got := next(t, exited); got != to {
		t.Errorf("exited %v, want %v", got, to)
	}
	a.Send("me", to, "n", nil) // not linked any more
	never(t, exited)
	a.Link(to)
	next(t, exited)
}

func TestExitedOnEOF(t *testing.T) {
	exited := make(chan UPID, 10)
	a := newNode(t, Config{Exited: func(u UPID) { exited <- u }})
	start(t, a)
	b := newNode(t, Config{})
	got := make(chan string, 1)
	b.Handle("slave(1)", collect(got))
	stop := start(t, b)
	for _, id := range []string{"slave(2)", "slave(1)", "slave(1)"} {
		a.Link(b.UPID(id)) // slave(2) is not there, which is no matter
	}
	a.Send("master", b.UPID("slave(1)"), "n", nil)
	next(t, got)
	never(t, exited)
	stop()
	if x, y := next(t, exited), next(t, exited); x != b.UPID("slave(1)") || y != b.UPID("slave(2)") {
		t.Errorf("exited %v, %v", x, y)
	}
	never(t, exited)
}

// peerOf accepts connections by hand.
type rawPeer struct {
	net.Listener
	upid UPID
}

func newRawPeer(t *testing.T) rawPeer {
	l := listen(t)
	t.Cleanup(func() { l.Close() })
	return rawPeer{l, UPID{"raw", l.Addr().(*net.TCPAddr).AddrPort()}}
}

func (p rawPeer) accept(t *testing.T) net.Conn {
	t.Helper()
	conn, err := p.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn
}

func TestIdle(t *testing.T) {
	raw := newRawPeer(t)
	exited := make(chan UPID, 1)
	a := newNode(t, Config{Exited: func(u UPID) { exited <- u }})
	a.idle = grace / 5
	start(t, a)
	a.Send("me", raw.upid, "n", nil)
	conn := raw.accept(t)
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Fatalf("unlinked and idle, but not closed: %v", err)
	}
	a.Link(raw.upid)
	linked := raw.accept(t)
	never(t, exited)
	linked.SetDeadline(time.Now().Add(grace))
	if _, err := linked.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Fatalf("linked and idle: %v", err)
	}
	linked.Close()
	next(t, exited)
}

func TestRelink(t *testing.T) {
	raw := newRawPeer(t)
	exited := make(chan UPID, 10)
	a := newNode(t, Config{Exited: func(u UPID) { exited <- u }})
	start(t, a)
	other := UPID{"other", raw.upid.Addr}
	a.Link(other)
	first := raw.accept(t)
	a.Relink(raw.upid)
	second := raw.accept(t)
	if _, err := first.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("old connection: %v", err)
	}
	never(t, exited)
	second.Close()
	if x, y := next(t, exited), next(t, exited); x != other || y != raw.upid {
		t.Errorf("exited %v, %v", x, y)
	}
}

func TestOverflow(t *testing.T) {
	raw := newRawPeer(t)
	exited := make(chan UPID, 1)
	a := newNode(t, Config{MaxQueue: 1 << 20, Exited: func(u UPID) { exited <- u }})
	start(t, a)
	a.Link(raw.upid)
	raw.accept(t) // and does not read
	body := make([]byte, 1<<20)
	for range 100 {
		a.Send("me", raw.upid, "n", body)
	}
	next(t, exited)
}

// The last messages before a node stops arrive.
func TestStop(t *testing.T) {
	b := newNode(t, Config{})
	got := make(chan string, 1)
	b.Handle("master", collect(got))
	start(t, b)
	a := newNode(t, Config{})
	stop := start(t, a)
	a.Link(b.UPID("master"))
	time.Sleep(grace) // connected
	a.Send("slave(1)", b.UPID("master"), "bye", nil)
	stop()
	if m := next(t, got); m != "slave(1) bye " {
		t.Errorf("%q", m)
	}
	a.Send("slave(1)", b.UPID("master"), "late", nil)
	never(t, got)
}

func TestAdvertise(t *testing.T) {
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := NewNode(Config{Listener: l}).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "advertise") {
		t.Errorf("Run: %v", err)
	}
	n := NewNode(Config{Listener: l, Advertise: netip.MustParseAddrPort("10.0.0.7:5051")})
	if got := n.UPID("slave(1)").String(); got != "slave(1)@10.0.0.7:5051" {
		t.Error(got)
	}
}

// exchange sends raw requests over one connection and returns the answers.
func exchange(t *testing.T, n *Node, requests ...string) (answers []string, closed bool) {
	t.Helper()
	conn, err := net.Dial("tcp4", n.cfg.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	go io.WriteString(conn, strings.Join(requests, ""))
	in := bufio.NewReader(conn)
	for range requests {
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatalf("answer %d: %v", len(answers)+1, err)
		}
		body, _ := io.ReadAll(res.Body)
		if _, err := http.ParseTime(res.Header.Get("Date")); err != nil {
			t.Errorf("answer %d: %v", len(answers)+1, err)
		}
		answers = append(answers, strings.TrimSpace(res.Status+" "+string(body)))
	}
	conn.SetDeadline(time.Now().Add(grace))
	_, err = in.Peek(1)
	return answers, err == io.EOF
}

// What genuine nodes answer, recorded from ClusterD 1.11.
func TestAnswers(t *testing.T) {
	got := make(chan string, 100)
	n := newNode(t, Config{HTTP: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "plain %s %s", r.URL.Path, body)
	})})
	n.Handle("slave(1)", collect(got))
	start(t, n)
	req := func(to, headers, body string) string {
		return "POST /" + to + " HTTP/1.1\r\nHost: x\r\n" + headers + "\r\n" + body
	}
	const from = "Libprocess-From: p@127.0.0.1:1\r\n"
	const agent = "User-Agent: libprocess/p@127.0.0.1:1\r\n"
	for _, tt := range []struct {
		name, request, answer, message string
		closed                         bool
	}{
		{"both headers", req("slave(1)/n", from+agent, ""), "202 Accepted", "p n ", false},
		{"only From", req("slave(1)/n", from, ""), "202 Accepted", "p n ", false},
		{"only User-Agent", req("slave(1)/n", agent, ""), "202 Accepted", "p n ", false},
		{"other User-Agent", req("slave(1)/n", from+"User-Agent: curl/7\r\n", ""), "202 Accepted", "p n ", false},
		{"content length", req("slave(1)/n", from+"Content-Length: 3\r\n", "abc"), "202 Accepted", "p n abc", false},
		{"one chunk", req("slave(1)/n", from+"Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n"), "202 Accepted", "p n abc", false},
		{"two chunks", req("slave(1)/n", from+"Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"), "202 Accepted", "p n abcdef", false},
		{"gzip", req("slave(1)/n", from+"Content-Encoding: gzip\r\nContent-Length: "+strconv.Itoa(len(zipped("abc")))+"\r\n", zipped("abc")), "202 Accepted", "p n abc", false},
		{"not gzip", req("slave(1)/n", from+"Content-Encoding: gzip\r\nContent-Length: 3\r\n", "abc"), "400 Bad Request Failed to read the message: unexpected EOF", "", false},
		{"encoded actor", req("slave%281%29/n", from, ""), "202 Accepted", "p n ", false},
		{"encoded actor, unusual", req("slave%281%29/n", from+"X: y\r\n", ""), "202 Accepted", "p n ", false},
		{"badly encoded actor", req("slave%2/n", from, ""), `500 Internal Server Error Failed to decode URL path: invalid URL escape "%2"`, "", false},
		{"bad sender", req("slave(1)/n", "Libprocess-From: garbage\r\n", ""), "202 Accepted", " n ", false},
		{"unknown actor", req("slave(2)/n", from, ""), "404 Not Found 404 Not Found.", "", false},
		{"unknown actor, unusual", req("slave(2)/n", from+"X: y\r\n", ""), "404 Not Found 404 Not Found.", "", false},
		{"no actor", req("n", from, ""), "404 Not Found 404 Not Found.", "", false},
		{"connection close", req("slave(1)/n", from+"Connection: close\r\n", ""), "202 Accepted", "p n ", true},
		{"HTTP/1.0", strings.Replace(req("slave(1)/n", from, ""), "/1.1", "/1.0", 1), "202 Accepted", "p n ", true},
		{"neither header", req("slave(1)/n", "Content-Length: 2\r\n", "{}"), "200 OK plain /slave(1)/n {}", "", false},
		{"GET", "GET /state HTTP/1.1\r\nHost: x\r\n" + from + "\r\n", "200 OK plain /state", "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			answers, closed := exchange(t, n, tt.request)
			if diff := cmp.Diff([]string{tt.answer}, answers); diff != "" || closed != tt.closed {
				t.Errorf("closed %v (-want +got):\n%s", closed, diff)
			}
			if tt.message == "" {
				never(t, got)
			} else if m := next(t, got); m != tt.message {
				t.Errorf("message %q, want %q", m, tt.message)
			}
		})
	}
}

func zipped(s string) string {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	io.WriteString(z, s)
	z.Close()
	return out.String()
}

// Messages and plain requests, sent at once over one connection, are answered
// in order and leave it open.
func TestPipeline(t *testing.T) {
	got := make(chan string, 10)
	n := newNode(t, Config{HTTP: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.URL.Path)
	})})
	n.Handle("a", collect(got))
	start(t, n)
	msg := func(to, name string) string {
		return string(appendMessage(nil, "x", "p", "127.0.0.1:1", to, name, []byte("body")))
	}
	get := "GET /state HTTP/1.1\r\nHost: x\r\n\r\n"
	answers, closed := exchange(t, n, msg("a", "1"), msg("b", "2"), get, msg("a", "3"), get, msg("a", "4"))
	want := []string{"202 Accepted", "404 Not Found 404 Not Found.", "200 OK /state", "202 Accepted", "200 OK /state", "202 Accepted"}
	if diff := cmp.Diff(want, answers); diff != "" || closed {
		t.Errorf("closed %v (-want +got):\n%s", closed, diff)
	}
	for _, name := range []string{"1", "3", "4"} {
		if m := next(t, got); m != "p "+name+" body" {
			t.Errorf("message %q", m)
		}
	}
}

func TestLargeMessages(t *testing.T) {
	a, b := newNode(t, Config{}), newNode(t, Config{})
	sizes := make(chan int, 10)
	b.Handle("to", func(m Message) {
		if bytes.Count(m.Body, []byte{7}) != len(m.Body) {
			t.Error("body damaged")
		}
		sizes <- len(m.Body)
	})
	start(t, a)
	start(t, b)
	for _, n := range []int{10 << 20, 1, bufferMax, 0, 3 << 20, 100} {
		a.Send("me", b.UPID("to"), "n", bytes.Repeat([]byte{7}, n))
		if got := next(t, sizes); got != n {
			t.Errorf("%d bytes, want %d", got, n)
		}
	}
}

func TestRequirePeerIP(t *testing.T) {
	n := newNode(t, Config{RequirePeerIP: true})
	got := make(chan string, 10)
	n.Handle("a", collect(got))
	start(t, n)
	const head, unusual = "POST /a/n HTTP/1.1\r\nHost: x\r\nLibprocess-From: p@", ":1\r\nX: y\r\n\r\n"
	answers, _ := exchange(t, n, head+"127.0.0.1:1\r\n\r\n", head+"10.0.0.7:1\r\n\r\n", head+"10.0.0.7"+unusual, head+"127.0.0.1"+unusual)
	const refused = "400 Bad Request UPID IP address validation failed: message from p@10.0.0.7:1 was sent from IP 127.0.0.1"
	if diff := cmp.Diff([]string{"202 Accepted", refused, refused, "202 Accepted"}, answers); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestUnhandle(t *testing.T) {
	n := newNode(t, Config{})
	n.Handle("a", func(Message) {})
	n.Unhandle("a")
	start(t, n)
	answers, _ := exchange(t, n, "POST /a/n HTTP/1.1\r\nHost: x\r\nLibprocess-From: p@127.0.0.1:1\r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if diff := cmp.Diff([]string{"404 Not Found 404 Not Found.", "404 Not Found 404 Not Found."}, answers); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func BenchmarkSend(b *testing.B) {
	for _, size := range []int{0, 300, 4000} {
		b.Run(fmt.Sprintf("body=%d", size), func(b *testing.B) { benchmarkSend(b, size) })
	}
}

// benchmarkSend counts messages from Send to Handler over loopback.
func benchmarkSend(b *testing.B, size int) {
	from, to := newNode(b, Config{}), newNode(b, Config{})
	const window = 1000 // so many may be under way
	var arrived atomic.Int64
	tokens := make(chan struct{}, 8)
	to.Handle("to", func(Message) {
		if arrived.Add(1)%window == 0 {
			tokens <- struct{}{}
		}
	})
	start(b, from)
	start(b, to)
	from.Link(to.UPID("to"))
	upid, body := to.UPID("to"), make([]byte, size)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if i >= 4*window && i%window == 0 {
			<-tokens
		}
		from.Send("from", upid, "mesos.internal.StatusUpdateMessage", body)
	}
	for arrived.Load() < int64(b.N) {
		time.Sleep(time.Microsecond * 50)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
}

// A message that is larger than allowed costs no more than what is allowed, in
// whatever form it comes.
func TestTooLargeMessages(t *testing.T) {
	got := make(chan string, 10)
	n := newNode(t, Config{MaxMessage: 100_000})
	n.Handle("a", func(m Message) { got <- fmt.Sprint(len(m.Body)) })
	start(t, n)
	post := func(head string, body []byte) (answer string) {
		conn, err := net.Dial("tcp", n.addr.String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		go func() {
			io.WriteString(conn, "POST /a/m HTTP/1.1\r\nLibprocess-From: x@127.0.0.1:1\r\nHost: x\r\n"+head+"\r\n\r\n")
			conn.Write(body)
		}()
		line, _ := bufio.NewReader(conn).ReadString('\n')
		return strings.TrimSpace(line)
	}
	big := bytes.Repeat([]byte("x"), 1_000_000)
	if got := post("Content-Length: 1000000", big); strings.Contains(got, "202") {
		t.Errorf("a large message: %q", got)
	}
	if got := post("X-Other: header\r\nContent-Length: 1000000", big); !strings.Contains(got, "413") {
		t.Errorf("a large message over net/http: %q", got)
	}
	if got := post("Content-Length: 100000", big[:100_000]); !strings.Contains(got, "202") {
		t.Errorf("the largest: %q", got)
	}
	if n := next(t, got); n != "100000" {
		t.Errorf("%s bytes came", n)
	}
}
