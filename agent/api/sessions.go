package api

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"

	agentv1 "github.com/mesopool/mesopool/mesos/v1/agent"
)

// sessions are the commands that run, or have just run, in tasks' containers:
// what Mesos calls nested containers.
type sessions struct {
	mu    sync.Mutex
	byID  map[string]*session
	order []string // oldest first
}

const (
	maxSessions = 1000      // that are remembered
	maxBacklog  = 256 << 10 // bytes of output that wait for a reader of a detached one
)

func newSessions() *sessions { return &sessions{byID: map[string]*session{}} }

// session is one command.
type session struct {
	cancel context.CancelFunc
	stdin  *io.PipeWriter
	resize chan [2]uint
	done   chan struct{} // closed at the end
	out    *backlog

	mu   sync.Mutex // of what follows; settled when done is closed
	code int
	err  error
}

var (
	errTwice = errors.New("there is a container with this ID already")
	errFull  = errors.New("too many commands run in containers")
)

// add takes a session in; the oldest that has ended makes room.
func (s *sessions) add(id string, x *session) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID[id] != nil {
		return errTwice
	}
	for i := 0; len(s.order) >= maxSessions; i++ {
		if i == len(s.order) {
			return errFull
		}
		old := s.byID[s.order[i]]
		select {
		case <-old.done:
			delete(s.byID, s.order[i])
			s.order = append(s.order[:i], s.order[i+1:]...)
			i--
		default:
		}
	}
	s.byID[id] = x
	s.order = append(s.order, id)
	return nil
}

func (s *sessions) get(id string) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byID[id]
}

// remove forgets one that has ended; false if it still runs.
func (s *sessions) remove(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.byID[id]
	if x == nil {
		return true
	}
	select {
	case <-x.done:
	default:
		return false
	}
	delete(s.byID, id)
	for i, o := range s.order {
		if o == id {
			s.order = append(s.order[:i], s.order[i+1:]...)
			break
		}
	}
	return true
}

// backlog is the output of a command on its way to a reader. A command that
// nobody reads from keeps only the end of what it writes.
type backlog struct {
	mu     sync.Mutex
	ready  sync.Cond
	pieces []outputPiece
	bytes  int
	closed bool
	whole  bool // somebody reads, and must get all: the command waits
}

type outputPiece struct {
	stream agentv1.ProcessIO_Data_Type
	data   []byte
}

func newBacklog(whole bool) *backlog {
	b := &backlog{whole: whole}
	b.ready.L = &b.mu
	return b
}

func (b *backlog) put(stream agentv1.ProcessIO_Data_Type, data []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.whole && b.bytes > maxBacklog && !b.closed {
		b.ready.Wait()
	}
	b.pieces = append(b.pieces, outputPiece{stream, append([]byte(nil), data...)})
	b.bytes += len(data)
	for !b.whole && b.bytes > maxBacklog && len(b.pieces) > 1 {
		b.bytes -= len(b.pieces[0].data)
		b.pieces = b.pieces[1:]
	}
	b.ready.Broadcast()
}

func (b *backlog) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.ready.Broadcast()
}

// take waits for output; no means that there will be none. A reader that went
// away is woken by wake.
func (b *backlog) take(gone func() bool) ([]outputPiece, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.pieces) == 0 && !b.closed && !gone() {
		b.ready.Wait()
	}
	out := b.pieces
	b.pieces, b.bytes = nil, 0
	b.ready.Broadcast()
	return out, len(out) > 0
}

func (b *backlog) wake() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ready.Broadcast()
}

// stream is one of a command's outputs.
type stream struct {
	b    *backlog
	kind agentv1.ProcessIO_Data_Type
}

// Write never fails.
func (s stream) Write(p []byte) (int, error) {
	s.b.put(s.kind, p)
	return len(p), nil
}

// result is a command's end as Mesos tells it: a wait status.
func (x *session) result() (status int32, message string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.err != nil && !errors.Is(x.err, context.Canceled) {
		return 255 << 8, strings.TrimSpace(x.err.Error())
	}
	return int32(x.code) << 8, ""
}
