package server

import (
	"sync"
	"sync/atomic"

	schedulerv1 "github.com/mesopool/mesopool/mesos/v1/scheduler"
)

// tally counts what goes through the shell and the core does not see.
type tally struct {
	dropped   atomic.Uint64 // messages of agents that were not valid
	observers atomic.Int64  // operators that watch
	messages  [messageKinds]atomic.Uint64
	calls     [callKinds]atomic.Uint64

	mu         sync.Mutex
	frameworks map[string]*frameworkTally
}

const (
	callKinds  = int(schedulerv1.Call_UPDATE_FRAMEWORK) + 1
	eventKinds = int(schedulerv1.Event_UPDATE_OPERATION_STATUS) + 1
)

// messageKind is a message of an agent.
type messageKind int

const (
	messageRegister messageKind = iota
	messageReregister
	messageUnregister
	messageUpdateAgent
	messageStatusUpdate
	messageExitedExecutor
	messageExecutor
	messageAuthenticate
	messageKinds int = iota
)

// frameworkTally counts the calls and events of one framework. Nil counts
// nothing.
type frameworkTally struct {
	calls  [callKinds]atomic.Uint64
	events [eventKinds]atomic.Uint64

	offersSent, offersAccepted, offersDeclined, launches atomic.Uint64
	received, processed                                  atomic.Uint64 // calls, before and after they wait for their turn
}

func (t *tally) framework(id string) *frameworkTally {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.frameworks == nil {
		t.frameworks = map[string]*frameworkTally{}
	}
	f := t.frameworks[id]
	if f == nil {
		f = &frameworkTally{}
		t.frameworks[id] = f
	}
	return f
}

// spareTallies are kept of frameworks that nobody knows any more.
const spareTallies = 100

// forget drops the counters of frameworks that nobody knows, if there are more
// than limit in all.
func (t *tally) forget(limit int, known func(id string) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.frameworks) <= limit {
		return
	}
	for id := range t.frameworks {
		if !known(id) {
			delete(t.frameworks, id)
		}
	}
}

func (t *tally) message(k messageKind) { t.messages[k].Add(1) }

func (t *tally) call(k schedulerv1.Call_Type) {
	if int(k) < callKinds {
		t.calls[k].Add(1)
	}
}

func (t *frameworkTally) call(k schedulerv1.Call_Type) {
	if t != nil && int(k) < callKinds {
		t.calls[k].Add(1)
	}
}

func (t *frameworkTally) event(k schedulerv1.Event_Type) {
	if t != nil && int(k) < eventKinds {
		t.events[k].Add(1)
	}
}

// accepted counts an ACCEPT; one that launches nothing is a refusal.
func (t *frameworkTally) accepted(offers, launches int) {
	if launches == 0 {
		t.declined(offers)
		return
	}
	t.offersAccepted.Add(uint64(offers))
	t.launches.Add(1)
}

func (t *frameworkTally) declined(offers int) { t.offersDeclined.Add(uint64(offers)) }
