package marathon

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// AuditEntry is one wish of a user that was carried out: who asked for what, and
// what came of it.
type AuditEntry struct {
	ID         string        `json:"id"` // sorts by time
	Time       string        `json:"timestamp"`
	ClientIP   string        `json:"clientIp"`
	User       string        `json:"user,omitempty"`
	What       string        `json:"what"` // such as "change" or "kill"
	Method     string        `json:"method,omitempty"`
	URI        string        `json:"uri"`
	Why        string        `json:"why,omitempty"` // of a change that the scheduler makes by itself
	Deployment string        `json:"deploymentId,omitempty"`
	Actions    []Action      `json:"actions,omitempty"`
	Tasks      []string      `json:"tasks,omitempty"` // that were ended
	Changes    []AuditChange `json:"changes,omitempty"`
}

// AuditChange is what a wish has changed of one app: the paths of the fields, not
// their values, which may be nobody else's business.
type AuditChange struct {
	App    string   `json:"app"`
	Fields []string `json:"fields"`
}

// Author is who wants something.
type Author struct {
	ClientIP string
	User     string // as the request says; "" when it does not
	Method   string
	URI      string
}

const (
	keptAudit = 1000 // entries
	mostNamed = 100  // apps, fields or tasks in one entry
)

// note keeps an entry; the oldest ones go.
func (c *Core) note(now time.Time, by Author, e AuditEntry, fx []Effect) []Effect {
	e.ClientIP, e.User, e.Method, e.URI = by.ClientIP, by.User, by.Method, by.URI
	e.Time, e.ID = Timestamp(now), c.auditID(now)
	c.audit = append(c.audit, &e)
	fx = append(fx, Save{Key: KeyAudit + e.ID, Value: &e})
	for len(c.audit) > keptAudit {
		fx = append(fx, Save{Key: KeyAudit + c.audit[0].ID})
		c.audit = c.audit[1:]
	}
	return fx
}

// auditID is a time with a number, so that IDs sort as the entries came, also
// when a clock goes back.
func (c *Core) auditID(now time.Time) string {
	at, n := Timestamp(now), 0
	if len(c.audit) > 0 {
		last := c.audit[len(c.audit)-1].ID
		if text, count, ok := strings.Cut(last, "#"); ok && text >= at {
			at = text
			n, _ = strconv.Atoi(count) // ours
			n++
		}
	}
	return fmt.Sprintf("%s#%06d", at, n)
}

// noteChange keeps what a change of apps has brought.
func (c *Core) noteChange(now time.Time, in *Change, d *Deployment, before map[string]*App, fx []Effect) []Effect {
	e := AuditEntry{What: "change", Deployment: d.ID, Actions: cut(slices.Concat(d.Steps...))}
	if in.reverts {
		e.What = "revert"
	}
	if e.Why = in.auto; in.auto != "" {
		e.What = "autoscale"
	}
	for _, def := range in.Put {
		if len(e.Changes) == mostNamed {
			break
		}
		var fields []string
		if old := before[def.ID]; old != nil {
			for _, f := range difference(old, c.apps[def.ID].def) {
				fields = append(fields, f.Path)
			}
		}
		if len(fields) > 0 {
			e.Changes = append(e.Changes, AuditChange{App: def.ID, Fields: cut(fields)})
		}
	}
	return c.note(now, in.Author, e, fx)
}

func cut[T any](list []T) []T {
	if len(list) > mostNamed {
		return list[:mostNamed]
	}
	return list
}

// Audit lists what users have done, the newest first: at most limit entries, of
// one app and all below it when it is not "".
func (c *Core) Audit(app string, limit int) []AuditEntry {
	out := []AuditEntry{}
	for _, e := range slices.Backward(c.audit) {
		if len(out) == limit {
			break
		}
		if app == "" || app == "/" || e.concerns(app) {
			out = append(out, *e)
		}
	}
	return out
}

func (e *AuditEntry) concerns(app string) bool {
	if slices.ContainsFunc(e.Actions, func(a Action) bool { return a.App == app || inGroup(a.App, app) }) {
		return true
	}
	if slices.ContainsFunc(e.Changes, func(x AuditChange) bool { return x.App == app || inGroup(x.App, app) }) {
		return true
	}
	flat := strings.ReplaceAll(strings.TrimPrefix(app, "/"), "/", "_")
	return slices.ContainsFunc(e.Tasks, func(id string) bool { return strings.HasPrefix(id, flat+".") || strings.HasPrefix(id, flat+"_") })
}
