package agent

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/store"
	"github.com/mesopool/mesopool/task"
)

// reread is a record after a restart.
func reread(t testing.TB, r *Record) Record {
	t.Helper()
	text, err := appendRecord(nil, r)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := json.Marshal(&r.Spec)
	if err != nil {
		t.Fatal(err)
	}
	again, err := readRecord(store.Entry{Key: "spec", Value: spec}, store.Entry{Key: "task", Value: text})
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return again
}

// Every record that has to be kept is read as it was written.
func TestRecordsAreReadAsWritten(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		want := anyRecord(rt)
		if d := cmp.Diff(want, reread(t, &want), cmpopts.EquateEmpty()); d != "" {
			rt.Fatal(d)
		}
	})
}

func anyRecord(rt *rapid.T) Record {
	text := func(name string) string {
		return rapid.OneOf(rapid.Just(""), rapid.String(), rapid.Just(`"<\\&>`)).Draw(rt, name)
	}
	flag := func(name string) bool { return rapid.Bool().Draw(rt, name) }
	when := func(name string) time.Time {
		return time.Unix(rapid.Int64Range(0, 1<<33).Draw(rt, name), rapid.Int64Range(0, 999_999_999).Draw(rt, "ns")).UTC()
	}
	r := Record{
		Spec: task.Spec{Key: task.Key{Framework: "f", ID: "t"}, Pod: text("pod"), Custom: flag("custom")},
		Name: text("name"), Stop: flag("stop"), Cause: Cause(text("cause")), Why: text("why"), Silent: flag("silent"), Tried: flag("tried"),
		State: task.State(rapid.IntRange(0, int(task.Unknown)).Draw(rt, "state")), Since: when("since"), Handed: flag("handed"), Shut: when("shut"),
	}
	if flag("checked") {
		r.Healthy, r.Grace, r.Heard = new(flag("healthy")), new(time.Second), []task.UUID{{1}, {2}}
		r.Checked = &task.CheckStatus{Type: task.CheckHTTP, Value: new(int32(200))}
	}
	if id := text("container"); id != "" {
		r.Container = provider.Container{
			ID: id, Name: r.Name, Key: r.Spec.Key, Network: text("network"), PublishIP: text("publish"), Started: when("started"),
			Addresses: rapid.SliceOfN(rapid.String(), 0, 2).Draw(rt, "addresses"),
		}
		if len(r.Container.Addresses) == 0 {
			r.Container.Addresses = nil
		}
		if flag("published") {
			r.Container.Ports = []task.Port{{Container: 80, Host: 8080}}
		}
	}
	for range rapid.IntRange(0, 3).Draw(rt, "statuses") {
		s := task.Status{
			State: task.State(rapid.IntRange(0, int(task.Unknown)).Draw(rt, "state")), Source: task.SourceAgent, Reason: task.Reason(text("reason")),
			Message: text("message"), Time: when("time"), Container: containerStatus(&row{Record: r}),
		}
		if flag("whole") {
			s.UUID, s.Healthy, s.Check, s.Origin = task.UUID{7}, r.Healthy, r.Checked, []byte{1, 2}
		}
		r.History = append(r.History, s)
	}
	if n := rapid.IntRange(0, len(r.History)).Draw(rt, "pending"); n > 0 {
		r.Pending = append(r.Pending, r.History[len(r.History)-n:]...)
		if r.Spec.Hosted() {
			r.Pending[0].Data = []byte("data")
		}
	}
	return r
}
