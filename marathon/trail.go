package marathon

import (
	"fmt"
	"slices"
	"time"
)

// Origin says where a wish comes from.
type Origin struct {
	ClientIP string `json:"clientIp,omitempty"`
	User     string `json:"user,omitempty"` // the name that the request gives; who it is was not verified here
	Method   string `json:"method,omitempty"`
	URI      string `json:"uri,omitempty"`
}

// TrailEntry is one change that was made, and by whom.
type TrailEntry struct {
	ID   uint64    `json:"id"` // 1, 2, 3 …
	Time time.Time `json:"time"`
	Origin
	Action     string        `json:"action"` // deploy, revert, cancel, promote or kill
	Deployment string        `json:"deploymentId,omitempty"`
	Apps       []TrailChange `json:"apps,omitempty"`
	Killed     []string      `json:"killedTasks,omitempty"`
}

// TrailChange says which version of an app or pod became which; "" is none.
type TrailChange struct {
	ID   string `json:"id"`
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
}

// The actions of the trail.
const (
	TrailDeploy  = "deploy"
	TrailRevert  = "revert"
	TrailCancel  = "cancel"
	TrailPromote = "promote"
	TrailKill    = "kill"
)

// KeyTrail is followed by the number of the entry, so that they sort.
const KeyTrail = "marathon/trail/"

func trailKey(id uint64) string { return fmt.Sprintf("%s%020d", KeyTrail, id) }

// note adds an entry to the trail, and lets the oldest go.
func (c *Core) note(now time.Time, e TrailEntry, fx []Effect) []Effect {
	c.lastTrail++
	e.ID, e.Time = c.lastTrail, now
	c.trail = append(c.trail, e)
	fx = append(fx, Save{Key: trailKey(e.ID), Value: e})
	for len(c.trail) > c.cfg.KeepTrail {
		fx = append(fx, Save{Key: trailKey(c.trail[0].ID)})
		c.trail = c.trail[1:]
	}
	return fx
}

// noteChange is note for what a deployment changes.
func (c *Core) noteChange(now time.Time, in *Change, d *Deployment, fx []Effect) []Effect {
	e := TrailEntry{Origin: in.Origin, Action: TrailDeploy, Deployment: d.ID}
	if in.reverts {
		e.Action = TrailRevert
	}
	for _, def := range in.Put {
		e.Apps = append(e.Apps, TrailChange{def.ID, versionBefore(d, def.ID), d.Version})
	}
	for _, id := range in.Delete {
		e.Apps = append(e.Apps, TrailChange{ID: id, From: versionBefore(d, id)})
	}
	return c.note(now, e, fx)
}

func versionBefore(d *Deployment, id string) string {
	if was := d.Before[id]; was != nil {
		return was.Version
	}
	return ""
}

func (c *Core) recoverTrail(saved []*TrailEntry) {
	for _, e := range saved {
		c.trail = append(c.trail, *e)
		c.lastTrail = max(c.lastTrail, e.ID)
	}
	slices.SortFunc(c.trail, func(a, b TrailEntry) int { return int(int64(a.ID - b.ID)) })
}

// Trail returns the last changes, newest first: those of one app, or of all for
// "".
func (c *Core) Trail(app string, limit int) []TrailEntry {
	out := []TrailEntry{}
	for _, e := range slices.Backward(c.trail) {
		if len(out) == limit {
			break
		}
		if app == "" || slices.ContainsFunc(e.Apps, func(x TrailChange) bool { return x.ID == app }) {
			out = append(out, e)
		}
	}
	return out
}
