package agent

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mesopool/mesopool/gc"
	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

var (
	t0    = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	owner = task.Owner{Cluster: "mesos", Agent: "dc-1"}
	fw    = Framework{ID: "f1"}
	aware = Framework{ID: "f1", PartitionAware: true, KillingState: true}
)

func counter() func() task.UUID {
	var n uint64
	return func() (u task.UUID) {
		n++
		binary.BigEndian.PutUint64(u[8:], n)
		return u
	}
}

func testConfig() Config {
	cfg := DefaultConfig()
	cfg.Owner, cfg.NewUUID = owner, counter()
	cfg.GC = gc.Policy{Keep: gc.KeepAll(5 * time.Minute), MaxKept: 1000}
	return cfg
}

func key(id string) task.Key { return task.Key{Framework: "f1", ID: id} }

func spec(id string) task.Spec { return task.Spec{Key: key(id), Name: "web"} }

func nameOf(id string) string { return ContainerName(owner.Cluster, key(id), "web") }

// container is task id's container as the backend shows it.
func container(id string, s provider.State, change ...func(*provider.Container)) provider.Container {
	k := provider.Container{ID: "c-" + id, Name: nameOf(id), State: s, Owner: owner, Key: key(id)}
	if s == provider.StateUp {
		k.Addresses, k.Network = []string{"10.0.0.1"}, "net"
	}
	for _, f := range change {
		f(&k)
	}
	return k
}

func noAddress(k *provider.Container) { k.Addresses, k.Network = nil, "" }

func exit(code int) func(*provider.Container) {
	return func(k *provider.Container) { k.ExitCode, k.HasExit = code, true }
}

func seen(k provider.Container) Input { return Seen{Event: provider.Event{Container: k}} }

var synced = Seen{Event: provider.Event{Synced: true}}

// answer is the reply to the oldest call in flight.
type answer struct {
	k   provider.Container
	err error
}

func (answer) input() {}

// acked acknowledges the last report of a task.
type acked string

func (acked) input() {}

// move is one input (or none) after some time, and the effects until then,
// those that save left out.
type move struct {
	wait time.Duration
	in   Input
	want string
}

type harness struct {
	t      testing.TB
	core   *Core
	now    time.Time
	calls  []Call
	last   map[string]task.UUID
	silent bool // leave Saves out
}

func newHarness(t testing.TB, cfg Config) *harness {
	return &harness{t: t, core: NewCore(cfg), now: t0, last: map[string]task.UUID{}, silent: true}
}

func (h *harness) play(moves []move) {
	h.t.Helper()
	for i, m := range moves {
		got := strings.Join(h.move(m), "; ")
		if got != m.want {
			h.t.Fatalf("move %d, %T at %v:\n got: %s\nwant: %s", i, m.in, h.now.Sub(t0), got, m.want)
		}
	}
}

func (h *harness) move(m move) (out []string) {
	h.t.Helper()
	until := h.now.Add(m.wait)
	for n := 0; ; n++ {
		next := h.core.Next()
		if next.IsZero() || next.After(until) {
			break
		}
		if n > 1000 {
			h.t.Fatalf("a tick at %v leads nowhere", next)
		}
		if next.After(h.now) {
			h.now = next
		}
		out = append(out, h.step(Tick{})...)
	}
	h.now = until
	if m.in != nil {
		out = append(out, h.step(m.in)...)
	}
	return out
}

func (h *harness) step(in Input) (out []string) {
	h.t.Helper()
	switch x := in.(type) {
	case answer:
		if len(h.calls) == 0 {
			h.t.Fatal("no call is in flight")
		}
		in = Done{Call: h.calls[0], Container: x.k, Err: x.err}
		h.calls = h.calls[1:]
	case acked:
		in = Ack{Key: key(string(x)), UUID: h.last[string(x)]}
	}
	for _, e := range h.core.Step(h.now, in, nil) {
		if text := h.take(e); text != "" {
			out = append(out, text)
		}
	}
	return out
}

func (h *harness) take(e Effect) string {
	switch e := e.(type) {
	case Call:
		h.calls = append(h.calls, e)
		return callText(e)
	case Report:
		h.last[e.Key.ID] = e.Status.UUID
		text := "report " + short(e.Status.State)
		if e.Status.Healthy != nil {
			text += map[bool]string{true: " healthy", false: " unhealthy"}[*e.Status.Healthy]
		}
		if e.Status.State == task.Starting && e.Status.Message != "" {
			text += " (" + e.Status.Message + ")"
		}
		if e.Latest != e.Status.State {
			text += " latest " + short(e.Latest)
		}
		return text
	case Announce:
		return strings.TrimSpace("announce " + strings.Join(e.Container.Addresses, ","))
	case Withdraw:
		return "withdraw"
	case AllKnown:
		return "all known"
	case SaveDrain:
		return map[bool]string{true: "draining", false: "drained"}[e.Config != nil]
	case Cancel:
		return "cancel " + e.Key.ID
	case ToExecutor:
		return fmt.Sprintf("%d %s", e.Session, eventText(e.Event))
	case ExecutorMessage:
		return "said " + string(e.Data)
	case ExecutorGone:
		return fmt.Sprintf("executor gone %d", e.Status)
	case Probe:
		return strings.TrimSpace("probe " + e.ID + " " + e.Address)
	}
	if h.silent {
		return ""
	}
	return saveText(e)
}

func saveText(e Effect) string {
	switch e := e.(type) {
	case Save:
		if e.Record == nil {
			return "forget " + e.Key.ID
		}
		return fmt.Sprintf("save %s spec=%v", e.Key.ID, e.Spec)
	case SaveFramework:
		if e.Framework == nil {
			return "forget " + e.ID
		}
		return "save " + e.ID
	}
	return fmt.Sprintf("%T", e)
}

func callText(c Call) string {
	switch c.Op {
	case OpLaunch:
		return "launch " + c.Key.ID
	case OpStop:
		text := fmt.Sprintf("stop %s %v", c.ID, c.Grace)
		if c.Withdraw {
			text += " withdraw"
		}
		return text
	case OpInspect:
		return "inspect " + strings.Replace(c.ID, nameOf(c.Key.ID), "by name", 1)
	default:
		return c.Op.String() + " " + c.ID
	}
}

func short(s task.State) string { return strings.TrimPrefix(s.String(), "TASK_") }

func diff(t testing.TB, what string, want, got any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}
