package server

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mesopool/mesopool/internal/uuid"
	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/mesos/libprocess"
)

// stream is one framework's event stream, from its SUBSCRIBE to its end. The
// loop pushes events, the request's goroutine encodes and writes them.
type stream struct {
	id    string // a UUID as text
	json  bool
	max   int // bytes that may wait
	ready chan struct{}
	info  atomic.Pointer[master.FrameworkInfo] // without an ID until it is subscribed
	tally *frameworkTally                      // set before the first event

	driver libprocess.UPID    // who gets messages instead of an HTTP answer; zero: nobody
	life   context.Context    // of a driver
	hangUp context.CancelFunc // its link broke

	mu        sync.Mutex
	framework string // once subscribed
	queue     []any  // master.Event, or *schedulerv1.Event
	bytes     int    // of queue, roughly
	ended     bool   // nothing comes after queue
	overflow  bool
	gone      bool          // the other side has left
	writer    *streamWriter // nil: a driver's, or not there yet
}

func newStream(info *master.FrameworkInfo, json bool, limit int) *stream {
	st := &stream{id: uuid.New().String(), json: json, max: limit, ready: make(chan struct{}, 1)}
	st.info.Store(info)
	return st
}

// eventCost is about what an event takes besides its bytes.
const eventCost = 256

func cost(e any) int {
	switch e := e.(type) {
	case master.Update:
		return eventCost + len(e.Wire) // what it repeats of the task's row costs nothing
	case master.Offers:
		return eventCost * (1 + 2*len(e.Offers))
	case master.FromExecutor:
		return eventCost + len(e.Data)
	}
	return eventCost
}

// push adds an event. If more waits than the stream may hold, the stream ends
// there and then: its framework subscribes again and reconciles.
func (st *stream) push(e any) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.ended || st.gone {
		return
	}
	st.bytes += cost(e)
	if st.bytes > st.max && len(st.queue) > 0 {
		st.ended, st.overflow, st.queue = true, true, nil
		st.writer.abort()
	} else {
		st.queue = append(st.queue, e)
	}
	st.wake()
}

func (st *stream) wake() {
	select {
	case st.ready <- struct{}{}:
	default:
	}
}

// end closes the stream after what has been pushed.
func (st *stream) end() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.ended = true
	st.wake()
}

// subscribed notes the framework; false if the other side has left meanwhile.
func (st *stream) subscribed(framework string) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.framework = framework
	return !st.gone
}

// leave says that nobody reads any more, and returns whose stream it was.
func (st *stream) leave() (framework string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.gone, st.queue = true, nil
	return st.framework
}

// take returns what waits, and whether the stream ends after it.
func (st *stream) take() (events []any, ended, overflow bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	events = st.queue
	st.queue, st.bytes = nil, 0
	return events, st.ended, st.overflow
}

// writeLimit is how long a framework may take to read one batch.
const writeLimit = time.Minute

// serveStream writes events until the stream or its reader ends.
func (s *Server) serveStream(ctx context.Context, st *stream, out eventWriter) {
	why := s.pump(ctx, st, out)
	framework := st.leave()
	s.registry.disconnect(st)
	if framework != "" {
		s.put(master.Disconnect{Framework: framework, Stream: st.id})
	}
	s.log.Info("event stream ended", "framework", framework, "name", st.info.Load().Name, "because", why)
}

// eventWriter encodes the events of one kind of stream and sends them at the
// latest when flushed, from where an error ends the stream.
type eventWriter interface {
	event(any)
	heartbeat()
	flush() error
}

func (s *Server) pump(ctx context.Context, st *stream, out eventWriter) string {
	heartbeat := time.NewTicker(s.cfg.Heartbeat)
	defer heartbeat.Stop()
	for {
		select {
		case <-ctx.Done():
			return "the reader closed the connection"
		case <-s.stopped:
			return "the master stops"
		case <-heartbeat.C:
			out.heartbeat()
		case <-st.ready:
		}
		events, ended, overflow := st.take()
		if overflow {
			s.log.Warn("a reader of events is too slow and is cut off", "framework", st.framework, "name", st.info.Load().Name, "limit_bytes", st.max)
			return errTooSlow.Error()
		}
		for _, e := range events {
			out.event(e)
		}
		if err := out.flush(); err != nil {
			return err.Error()
		}
		if ended {
			return "the master closed it"
		}
	}
}

// newStreamWriter makes the writer of a stream.
func newStreamWriter(w http.ResponseWriter, st *stream) *streamWriter {
	out := &streamWriter{w: w, control: http.NewResponseController(w), json: st.json}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.writer = out
	return out
}

// streamWriter collects records and writes them in few pieces: protobuf by the
// batch, JSON one by one, for simple readers take a chunk for a record.
type streamWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	json    bool
	aborted atomic.Bool
	buf     []byte
	err     error
}

var errTooSlow = errors.New("it read too slowly")

// abort ends a write that waits for its reader, and all that come after it. It
// does nothing to no writer.
func (w *streamWriter) abort() {
	if w != nil {
		w.aborted.Store(true)
		w.control.SetWriteDeadline(time.Now())
	}
}

// pieceSize is how much is written at once.
const pieceSize = 256 << 10

// written is called after each record.
func (w *streamWriter) written() {
	if w.json || len(w.buf) >= pieceSize {
		w.flush()
	}
}

func (w *streamWriter) flush() error {
	if w.err != nil || len(w.buf) == 0 {
		return w.err
	}
	w.control.SetWriteDeadline(time.Now().Add(writeLimit))
	if w.aborted.Load() { // now or before; what comes later finds the deadline set
		w.err = errTooSlow
		return w.err
	}
	_, w.err = w.w.Write(w.buf)
	if w.err == nil {
		w.err = w.control.Flush()
	}
	if w.buf = w.buf[:0]; cap(w.buf) > 2*pieceSize {
		w.buf = nil
	}
	return w.err
}

// toFramework puts an event on a stream, after the registry knows of what the
// framework will do next.
func (s *Server) toFramework(e master.ToFramework) {
	st := s.registry.stream(e.Stream)
	if st == nil {
		if _, late := e.Event.(master.Subscribed); late {
			s.put(master.Disconnect{Framework: e.Framework, Stream: e.Stream})
		}
		return
	}
	switch event := e.Event.(type) {
	case master.Subscribed:
		s.subscribed(st, event.Framework)
	case master.Offers:
		s.registry.offered(e.Framework, event.Offers)
	case master.Rescind:
		s.registry.rescinded(e.Framework, event.Offer)
	}
	st.push(e.Event)
}

func (s *Server) subscribed(st *stream, framework string) {
	if now, _ := s.registry.caller(framework); now == st {
		return // a driver is told once more
	}
	if !st.subscribed(framework) {
		s.put(master.Disconnect{Framework: framework, Stream: st.id})
		return
	}
	st.tally = s.tally.framework(framework)
	s.registry.connect(framework, st)
}
