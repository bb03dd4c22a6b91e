package executor

import (
	"context"
	"net/http"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/agent"
	"github.com/mesopool/mesopool/mesos/mesosjson"
	"github.com/mesopool/mesopool/mesos/recordio"
	executorv1 "github.com/mesopool/mesopool/mesos/v1/executor"
)

// stream is one session of an executor.
type stream struct {
	session uint64
	whose   name
	ready   chan struct{}

	mu    sync.Mutex
	queue []agent.ExecutorEvent
	bytes int    // of the queue, roughly
	over  string // why nothing comes after the queue; "" while something may
}

type name struct{ framework, executor string }

const (
	maxQueue   = 16 << 20 // bytes that may wait for an executor
	eventCost  = 256      // of an event besides its bytes
	writeLimit = time.Minute
	heartbeat  = 30 * time.Minute // slave/constants.hpp, DEFAULT_EXECUTOR_HEARTBEAT_INTERVAL
)

func cost(e agent.ExecutorEvent) int {
	switch e := e.(type) {
	case agent.RunTask:
		return eventCost + len(e.Spec.Origin)
	case *agent.RunGroup:
		n := eventCost
		for _, s := range e.Specs {
			n += len(s.Origin)
		}
		return n
	case agent.Message:
		return eventCost + len(e.Data)
	}
	return eventCost
}

// push adds an event. If more waits than may, the stream ends there and then: the
// executor subscribes again and gets what it lacks.
func (s *stream) push(e agent.ExecutorEvent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over != "" {
		return
	}
	if cut, ok := e.(agent.Cut); ok {
		s.over = cut.Why
	} else if s.bytes += cost(e); s.bytes > maxQueue && len(s.queue) > 0 {
		s.over, s.queue = "The executor reads its events too slowly", nil
	} else {
		s.queue = append(s.queue, e)
	}
	s.wake()
}

// end closes the stream after what waits.
func (s *stream) end(why string) { s.push(agent.Cut{Why: why}) }

func (s *stream) wake() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

func (s *stream) take() (events []agent.ExecutorEvent, over string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	events = s.queue
	s.queue, s.bytes = nil, 0
	return events, s.over
}

// writer writes events as records.
type writer struct {
	out     *recordio.Writer
	control *http.ResponseController
	json    bool
}

func (w *writer) event(e *executorv1.Event) error {
	body, err := mesosjson.Marshal(e), error(nil)
	if !w.json {
		body, err = proto.Marshal(e)
	}
	if err == nil {
		err = w.out.WriteRecord(body)
	}
	return err
}

// pump writes what comes until the stream or its reader ends; it says why.
func (h *Hub) pump(ctx context.Context, w *writer, s *stream) string {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		var events []agent.ExecutorEvent
		var over string
		var err error
		select {
		case <-ctx.Done():
			return "the executor has closed the connection"
		case <-beat.C:
			w.control.SetWriteDeadline(time.Now().Add(writeLimit))
			err = w.event(&executorv1.Event{Type: executorv1.Event_HEARTBEAT.Enum()})
		case <-s.ready:
			events, over = s.take()
			w.control.SetWriteDeadline(time.Now().Add(writeLimit))
		}
		for _, e := range events {
			m, wrong := h.event(e)
			if wrong != nil {
				return wrong.Error()
			}
			if err = w.event(m); err != nil {
				break
			}
		}
		if err == nil {
			err = w.control.Flush()
		}
		if err != nil {
			return err.Error()
		}
		if over != "" {
			return over
		}
	}
}
