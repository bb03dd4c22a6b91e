package runner

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/mesopool/mesopool/marathon"
	"github.com/mesopool/mesopool/store"
)

// saveOps turns what is to be saved into one commit; of several values for one
// key only the last counts.
func saveOps(fx []marathon.Effect) ([]store.Op, error) {
	last := map[string]any{}
	var keys []string
	for _, e := range fx {
		if s, ok := e.(marathon.Save); ok {
			if _, again := last[s.Key]; !again {
				keys = append(keys, s.Key)
			}
			last[s.Key] = s.Value
		}
	}
	ops := make([]store.Op, len(keys))
	for n, key := range keys {
		ops[n].Key = key
		if last[key] == nil {
			continue
		}
		text, err := json.Marshal(last[key])
		if err != nil {
			return nil, fmt.Errorf("marathon: encode %s: %w", key, err)
		}
		ops[n].Value = text
	}
	return ops, nil
}

// load reads everything that was saved before the last stop.
func load(ctx context.Context, s store.Store) (marathon.Recover, error) {
	var out marathon.Recover
	ids, err := read[string](ctx, s, marathon.KeyFramework)
	if err != nil {
		return out, err
	}
	if len(ids) > 0 {
		out.FrameworkID = *ids[0]
	}
	apps, err := read[marathon.SavedApp](ctx, s, marathon.KeyApp+"/")
	if err != nil {
		return out, err
	}
	for _, a := range apps {
		out.Apps = append(out.Apps, *a)
	}
	if err := loadVersions(ctx, s, out.Apps); err != nil {
		return out, err
	}
	if out.Groups, err = read[marathon.Group](ctx, s, marathon.KeyGroup+"/"); err != nil {
		return out, err
	}
	if out.Instances, err = read[marathon.Instance](ctx, s, marathon.KeyInstance); err != nil {
		return out, err
	}
	if out.Audit, err = read[marathon.AuditEntry](ctx, s, marathon.KeyAudit); err != nil {
		return out, err
	}
	if out.Residences, err = read[marathon.Residence](ctx, s, marathon.KeyResidence); err != nil {
		return out, err
	}
	if out.Addresses, err = read[marathon.AgentAddress](ctx, s, marathon.KeyAgent); err != nil {
		return out, err
	}
	out.Deployments, err = read[marathon.Deployment](ctx, s, marathon.KeyDeployment)
	return out, err
}

func loadVersions(ctx context.Context, s store.Store, apps []marathon.SavedApp) error {
	versions, err := read[marathon.App](ctx, s, marathon.KeyVersion)
	if err != nil {
		return err
	}
	byApp := map[string][]*marathon.App{}
	for _, v := range versions {
		byApp[v.ID] = append(byApp[v.ID], v)
	}
	for n := range apps {
		list := byApp[apps[n].App.ID]
		slices.SortFunc(list, func(a, b *marathon.App) int { return strings.Compare(b.Version, a.Version) })
		apps[n].Versions = list
	}
	return nil
}

func read[T any](ctx context.Context, s store.Store, prefix string) ([]*T, error) {
	entries, err := s.List(ctx, prefix)
	if err != nil {
		return nil, fmt.Errorf("marathon: read state: %w", err)
	}
	out := make([]*T, 0, len(entries))
	for _, e := range entries {
		v := new(T)
		if err := json.Unmarshal(e.Value, v); err != nil {
			return nil, fmt.Errorf("marathon: the record %s cannot be read: %w", e.Key, err)
		}
		out = append(out, v)
	}
	return out, nil
}
