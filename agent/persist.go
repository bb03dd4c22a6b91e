package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/mesopool/mesopool/store"
	"github.com/mesopool/mesopool/task"
)

// The agent's keys in its store. Framework and task IDs never hold a slash.
//
//	agent/framework/<framework>      Framework
//	agent/spec/<framework>/<task>    task.Spec, written once
//	agent/task/<framework>/<task>    Record without its Spec
const (
	frameworkPrefix = "agent/framework/"
	specPrefix      = "agent/spec/"
	taskPrefix      = "agent/task/"
)

func keyPath(k task.Key) string { return k.Framework + "/" + k.ID }

// saveOps turns the effects that concern the store into its operations.
func saveOps(fx []Effect) ([]store.Op, error) {
	var ops []store.Op
	for _, e := range fx {
		var err error
		switch e := e.(type) {
		case Save:
			ops, err = saveTask(ops, e)
		case SaveFramework:
			ops, err = saveValue(ops, frameworkPrefix+e.ID, e.Framework == nil, e.Framework)
		}
		if err != nil {
			return nil, fmt.Errorf("agent: encode state: %w", err)
		}
	}
	return ops, nil
}

func saveTask(ops []store.Op, e Save) ([]store.Op, error) {
	path := keyPath(e.Key)
	if e.Record == nil {
		return append(ops, store.Op{Key: specPrefix + path}, store.Op{Key: taskPrefix + path}), nil
	}
	if e.Spec {
		var err error
		if ops, err = saveValue(ops, specPrefix+path, false, &e.Record.Spec); err != nil {
			return nil, err
		}
	}
	lean := *e.Record
	lean.Pending = withoutData(lean.Pending)
	return saveValue(ops, taskPrefix+path, false, &lean)
}

// withoutData: the inspect output can be had again from the backend.
func withoutData(in []task.Status) []task.Status {
	out := make([]task.Status, len(in))
	for i, s := range in {
		s.Data = nil
		out[i] = s
	}
	return out
}

func saveValue(ops []store.Op, key string, gone bool, value any) ([]store.Op, error) {
	if gone {
		return append(ops, store.Op{Key: key}), nil
	}
	text, err := json.Marshal(value)
	return append(ops, store.Op{Key: key, Value: text}), err
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
	out.Tasks, err = loadTasks(ctx, s)
	return out, err
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
		var rec Record
		if err := json.Unmarshal(state.Value, &rec); err != nil {
			return nil, fmt.Errorf("agent: the record %s cannot be read: %w", state.Key, err)
		}
		if err := json.Unmarshal(e.Value, &rec.Spec); err != nil {
			return nil, fmt.Errorf("agent: the record %s cannot be read: %w", e.Key, err)
		}
		out = append(out, rec)
	}
	return out, nil
}
