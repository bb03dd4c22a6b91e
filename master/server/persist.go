package server

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/store"
)

// agentPrefix is where the admitted agents are kept, by ID.
const agentPrefix = "master/agent/"

// storeOp is what an effect makes durable; ok is false for those that leave the
// master.
func storeOp(e master.Effect) (op store.Op, ok bool, err error) {
	switch e := e.(type) {
	case master.Persist:
		op, err = agentOp(e)
		return op, true, err
	case master.Save:
		op, err = settingOp(e)
		return op, true, err
	}
	return op, false, nil
}

func agentOp(p master.Persist) (store.Op, error) {
	op := store.Op{Key: agentPrefix + p.ID}
	if p.Agent == nil {
		return op, nil
	}
	var err error
	if op.Value, err = json.Marshal(p.Agent); err != nil {
		return op, fmt.Errorf("server: save agent %s: %w", p.ID, err)
	}
	return op, nil
}

func loadAgents(ctx context.Context, st store.Store) ([]master.AgentInfo, error) {
	entries, err := st.List(ctx, agentPrefix)
	if err != nil {
		return nil, fmt.Errorf("server: load the agents: %w", err)
	}
	out := make([]master.AgentInfo, len(entries))
	for i, e := range entries {
		if err := json.Unmarshal(e.Value, &out[i]); err != nil {
			return nil, fmt.Errorf("server: the saved agent %s cannot be read: %w", e.Key, err)
		}
	}
	return out, nil
}
