package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/store"
	"github.com/mesopool/mesopool/task"
)

// The agent's keys in its store. Framework and task IDs never hold a slash.
//
//	agent/framework/<framework>      Framework
//	agent/spec/<framework>/<task>    task.Spec, written once
//	agent/task/<framework>/<task>    Record without its Spec
//	agent/drain                      DrainConfig, while draining
const (
	frameworkPrefix = "agent/framework/"
	specPrefix      = "agent/spec/"
	taskPrefix      = "agent/task/"
	drainKey        = "agent/drain"
)

func keyPath(k task.Key) string { return k.Framework + "/" + k.ID }

// savedRecord is a Record on disk: what the container's labels, its state or
// the specification tell anyway is left out, and the pending updates are the
// last ones of the history.
type savedRecord struct {
	Name      string
	Stop      bool              `json:",omitzero"`
	Cause     Cause             `json:",omitzero"`
	Why       string            `json:",omitzero"`
	Healthy   *bool             `json:",omitzero"`
	Checked   *task.CheckStatus `json:",omitzero"`
	Silent    bool              `json:",omitzero"`
	Grace     *time.Duration    `json:",omitzero"`
	Tried     bool              `json:",omitzero"`
	State     task.State
	Since     time.Time
	Started   time.Time             `json:",omitzero"`
	Container *task.ContainerStatus `json:",omitzero"` // nil: none was seen
	History   []task.Status         `json:",omitzero"`
	Pending   int                   `json:",omitzero"`
	Data      [][]byte              `json:",omitzero"` // of the pending updates, where an executor has told some
	Handed    bool                  `json:",omitzero"`
	Shut      time.Time             `json:",omitzero"`
	Heard     []task.UUID           `json:",omitzero"`
}

// pendingData is what the updates carry; nil when none carries any.
func pendingData(pending []task.Status) [][]byte {
	if !slices.ContainsFunc(pending, func(s task.Status) bool { return len(s.Data) > 0 }) {
		return nil
	}
	out := make([][]byte, len(pending))
	for i := range pending {
		out[i] = pending[i].Data
	}
	return out
}

// full is the inverse of appendRecord. Earlier statuses get the container as it was
// known last.
func (s *savedRecord) full(spec task.Spec) (Record, error) {
	r := Record{
		Spec: spec, Name: s.Name, Stop: s.Stop, Cause: s.Cause, Why: s.Why, Healthy: s.Healthy, Checked: s.Checked, Silent: s.Silent, Grace: s.Grace,
		Tried: s.Tried, State: s.State, Since: s.Since, History: s.History,
		Handed: s.Handed, Shut: s.Shut, Heard: s.Heard,
	}
	if s.Pending > len(s.History) || len(s.Data) > s.Pending {
		return r, fmt.Errorf("agent: the record of task %s has %d pending updates and a history of %d", spec.Key, s.Pending, len(s.History))
	}
	if c := s.Container; c != nil {
		r.Container = provider.Container{
			ID: c.ID, Name: s.Name, Key: spec.Key, Addresses: c.Addresses, Network: c.Network, Ports: c.Ports, PublishIP: c.PublishIP, Started: s.Started,
		}
	}
	container := containerStatus(&row{Record: r})
	for i := range r.History {
		r.History[i].Container = container
	}
	r.Pending = slices.Clone(r.History[len(r.History)-s.Pending:])
	for i, data := range s.Data {
		r.Pending[i].Data = data
	}
	return r, nil
}

// writer turns the effects that concern the store into its operations. It keeps
// its memory from batch to batch.
type writer struct {
	marks map[task.Key]saveMark
	ops   []store.Op
	text  []byte // what the operations hold
}

// saveMark is what a batch wants saved of a task.
type saveMark struct {
	last int  // the effect that says so last
	spec bool // the specification too
}

func newWriter() *writer { return &writer{marks: map[task.Key]saveMark{}} }

// write: of several saves of one task in a batch only the last is written: all
// point to the same record, which by now is what the last one means. What it
// returns holds until the next call.
func (w *writer) write(fx []Effect) ([]store.Op, error) {
	clear(w.marks)
	for i, e := range fx {
		if e, ok := e.(Save); ok {
			w.marks[e.Key] = saveMark{i, e.Record != nil && (w.marks[e.Key].spec || e.Spec)}
		}
	}
	clear(w.ops)
	w.ops, w.text = w.ops[:0], w.text[:0]
	var err error
	for i, e := range fx {
		switch e := e.(type) {
		case Save:
			if mark := w.marks[e.Key]; mark.last == i {
				err = w.task(e, mark.spec)
			}
		case SaveDrain:
			err = w.value(drainKey, e.Config == nil, e.Config)
		case SaveFramework:
			err = w.value(frameworkPrefix+e.ID, e.Framework == nil, e.Framework)
		}
		if err != nil {
			return nil, fmt.Errorf("agent: encode state: %w", err)
		}
	}
	return w.ops, nil
}

func (w *writer) task(e Save, spec bool) (err error) {
	path := keyPath(e.Key)
	if e.Record == nil {
		w.ops = append(w.ops, store.Op{Key: specPrefix + path}, store.Op{Key: taskPrefix + path})
		return nil
	}
	if spec {
		if err := w.value(specPrefix+path, false, &e.Record.Spec); err != nil {
			return err
		}
	}
	begin := len(w.text)
	w.text, err = appendRecord(w.text, e.Record)
	w.ops = append(w.ops, store.Op{Key: taskPrefix + path, Value: w.text[begin:]})
	return err
}

func (w *writer) value(key string, gone bool, value any) error {
	if gone {
		w.ops = append(w.ops, store.Op{Key: key})
		return nil
	}
	text, err := json.Marshal(value)
	w.ops = append(w.ops, store.Op{Key: key, Value: text})
	return err
}

// loadState reads what was saved before the last stop.
func loadState(ctx context.Context, s store.Store) (Recover, error) {
	var out Recover
	frameworks, err := s.List(ctx, frameworkPrefix)
	if err != nil {
		return out, fmt.Errorf("agent: read state: %w", err)
	}
	for _, e := range frameworks {
		var f Framework
		if err := json.Unmarshal(e.Value, &f); err != nil {
			return out, fmt.Errorf("agent: the record %s cannot be read: %w", e.Key, err)
		}
		out.Frameworks = append(out.Frameworks, f)
	}
	if out.Drain, err = loadDrain(ctx, s); err != nil {
		return out, err
	}
	out.Tasks, err = loadTasks(ctx, s)
	return out, err
}

func loadDrain(ctx context.Context, s store.Store) (*DrainConfig, error) {
	e, err := s.Get(ctx, drainKey)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("agent: read state: %w", err)
	}
	var d DrainConfig
	if err := json.Unmarshal(e.Value, &d); err != nil {
		return nil, fmt.Errorf("agent: the record %s cannot be read: %w", e.Key, err)
	}
	return &d, nil
}

func loadTasks(ctx context.Context, s store.Store) ([]Record, error) {
	specs, err := s.List(ctx, specPrefix)
	if err != nil {
		return nil, fmt.Errorf("agent: read state: %w", err)
	}
	out := make([]Record, 0, len(specs))
	for _, e := range specs {
		state, err := s.Get(ctx, taskPrefix+strings.TrimPrefix(e.Key, specPrefix))
		if err != nil {
			return nil, fmt.Errorf("agent: read state of %s: %w", e.Key, err)
		}
		rec, err := readRecord(e, state)
		if err != nil {
			return nil, err
		}
		out = append(out, rec)
	}
	return out, nil
}

func readRecord(spec, state store.Entry) (Record, error) {
	var saved savedRecord
	if err := json.Unmarshal(state.Value, &saved); err != nil {
		return Record{}, fmt.Errorf("agent: the record %s cannot be read: %w", state.Key, err)
	}
	var s task.Spec
	if err := json.Unmarshal(spec.Value, &s); err != nil {
		return Record{}, fmt.Errorf("agent: the record %s cannot be read: %w", spec.Key, err)
	}
	return saved.full(s)
}
