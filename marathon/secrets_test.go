package marathon

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

const withSecret = `"env":{"PW":{"secret":"pw"},"A":"b"},"secrets":{"pw":{"source":"db/password"}}`

func TestSecretsAreDeclared(t *testing.T) {
	for text, where := range map[string]string{
		`"env":{"PW":{"secret":"none"}}`:   "/env/PW",
		`"secrets":{"pw":{"source":""}}`:   "/secrets/pw/source",
		`"secrets":{"pw":{"source":7}}`:    "/secrets/pw/source",
		`"env":{"PW":{"secret":["none"]}}`: "/env/PW",
	} {
		_, err := Read([]byte(`{"id":"/a","cmd":"x",`+text+`}`), "*")
		var bad *BadDefinition
		if !errors.As(err, &bad) || !slices.ContainsFunc(bad.Problems, func(p Problem) bool { return p.Path == where }) {
			t.Errorf("%s: %v, want a problem at %s", text, err, where)
		}
	}
}

// asked lists what the core has asked for since the last look.
func (w *world) askedFor() (out []AskSecrets) {
	out, w.asked = w.asked, nil
	return out
}

// An app waits for its secrets, says so, and is launched with them; they are in
// no record, and are asked for anew the next time.
func TestSecrets(t *testing.T) {
	w := started(t, define(t, "/a", withSecret))
	if got := w.askedFor(); len(got) != 2 || got[0].App != "/a" || !slices.Equal(got[0].Sources, []string{"db/password"}) {
		t.Fatalf("asked %+v", got)
	}
	waiting := func() string {
		v, _ := w.core.App(w.now, "/a")
		return v.Waiting
	}
	if got := waiting(); got != "waits for its secrets" {
		t.Error(got)
	}
	w.must(GotSecrets{App: "/a", Error: "db/password: no such secret"})
	if got := waiting(); !strings.Contains(got, "a secret cannot be read: db/password: no such secret") {
		t.Error(got)
	}
	w.must(GotSecrets{App: "/a", Values: map[string]string{"other": "x"}})
	w.run(time.Second)
	w.wantNone("/a")
	w.must(GotSecrets{App: "/a", Values: map[string]string{"db/password": "hidden"}})
	w.run(time.Minute)
	w.wantRunning("/a", 1)
	if env := w.environment; env["PW"] != "hidden" || env["A"] != "b" {
		t.Errorf("launched with %v", env)
	}
	for key, text := range w.saved {
		if strings.Contains(string(text), "hidden") {
			t.Errorf("%s has the secret: %s", key, text)
		}
	}
	if text, err := json.Marshal(w.events); err != nil || strings.Contains(string(text), "hidden") {
		t.Errorf("an event has the secret, %v", err)
	}
	if w.core.apps["/a"].secrets.values != nil {
		t.Error("a secret is kept while nobody needs it")
	}
	w.askedFor()
	w.must(KillTasks{DeploymentID: "k", IDs: w.live("/a")})
	w.run(time.Second)
	if got := w.askedFor(); len(got) != 1 {
		t.Errorf("asked %+v", got)
	}
}

func (w *world) wantNone(app string) {
	w.t.Helper()
	if live := w.live(app); len(live) > 0 {
		w.t.Fatalf("%v run", live)
	}
}
