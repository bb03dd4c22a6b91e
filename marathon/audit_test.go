package marathon

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestAudit(t *testing.T) {
	w := started(t, define(t, "/g/a", `"env":{"PW":"hidden"}`))
	by := Author{ClientIP: "1.2.3.4", User: "ann", Method: "PUT", URI: "/v2/apps/g/a"}
	w.must(Change{DeploymentID: "d", Put: []*App{define(t, "/g/a", `"env":{"PW":"also hidden"},"instances":2`)}, Author: by})
	w.run(time.Minute)
	w.must(KillTasks{Author: by, IDs: w.live("/g/a")[:1]})
	w.mustPut(define(t, "/b", ""))
	w.crash()
	all := w.core.Audit("", 10)
	if len(all) != 4 || all[0].Actions[0].App != "/b" || all[1].What != "kill" || len(all[1].Tasks) != 1 {
		t.Fatalf("%+v", all)
	}
	e := all[2]
	if e.User != "ann" || e.ClientIP != "1.2.3.4" || e.Deployment != "d" || strings.Join(e.Changes[0].Fields, " ") != "/env /instances" || e.Actions[0].Action != ActionRestart {
		t.Errorf("%+v", e)
	}
	for key, text := range w.saved {
		if strings.HasPrefix(key, KeyAudit) && strings.Contains(string(text), "hidden") {
			t.Errorf("%s tells a value: %s", key, text)
		}
	}
	if got := w.core.Audit("/g", 10); len(got) != 3 {
		t.Errorf("of /g: %+v", got)
	}
	if got := w.core.Audit("/b", 10); len(got) != 1 {
		t.Errorf("of /b: %+v", got)
	}
}

// The trail has an end, in memory and in the store, and IDs sort, also when the
// clock goes back.
func TestAuditIsBounded(t *testing.T) {
	w := newWorld(t)
	last := ""
	for n := range keptAudit + 50 {
		if n%100 == 0 {
			w.now = w.now.Add(-time.Second)
		}
		fx := w.core.note(w.now, Author{}, AuditEntry{What: fmt.Sprint(n)}, nil)
		for _, e := range fx {
			w.commit(e.(Save))
		}
		if id := w.core.audit[len(w.core.audit)-1].ID; id <= last {
			t.Fatalf("%s follows %s", id, last)
		} else {
			last = id
		}
	}
	if len(w.core.audit) != keptAudit || len(w.saved) != keptAudit {
		t.Errorf("%d in memory, %d saved", len(w.core.audit), len(w.saved))
	}
}
