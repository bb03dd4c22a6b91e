package agent

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

var (
	errLater    = errors.New("no route to host")
	errRejected = fmt.Errorf("%w: no such image", provider.ErrRejected)
	errCapacity = fmt.Errorf("%w: no memory", provider.ErrCapacity)
	errThrottle = fmt.Errorf("%w: busy", provider.ErrThrottle)
	errDenied   = fmt.Errorf("%w: bad key", provider.ErrDenied)
	errAbsent   = fmt.Errorf("container: %w", provider.ErrNotFound)
)

const (
	joinedAll = "all known"
	started   = "report STARTING; launch t"
)

// again is the report that a launch is tried again, and why.
func again(err error) string {
	return "report STARTING (not started yet, trying again: " + err.Error() + ")"
}

// launched brings the task t to the launch's call, running brings it up.
func launched() []move {
	return []move{
		{in: Joined{}},
		{in: WatchStarted{}},
		{in: synced, want: joinedAll},
		{in: Launch{Framework: fw, Spec: spec("t")}, want: started},
	}
}

func starting() []move { return append(launched(), move{in: acked("t")}) }

func running() []move {
	return append(
		starting(),
		move{in: answer{k: container("t", provider.StateUp)}, want: "report RUNNING; announce 10.0.0.1"},
		move{in: acked("t")},
	)
}

// killedCreated is a task whose container was made and, as far as is known, not
// started; it is to stop, and its container is looked up.
func killedCreated() []move {
	return append(
		starting(),
		move{in: seen(container("t", provider.StateCreated))},
		move{in: answer{err: errLater}, want: again(errLater)},
		move{in: acked("t")},
		move{in: killT, want: "inspect c-t"},
	)
}

// lingering is running, of a task that goes on for 20 s after it was withdrawn.
func lingering() []move {
	out := running()
	s := spec("t")
	s.Labels = append(s.Labels, task.Label{Key: DrainLabel, Value: "20"})
	out[3].in = Launch{Framework: fw, Spec: s}
	return out
}

func of(before []move, more ...move) []move { return append(before, more...) }

var (
	second  = time.Second
	exited  = func(code int) Input { return seen(container("t", provider.StateExited, exit(code))) }
	up      = seen(container("t", provider.StateUp))
	gone    = seen(container("t", provider.StateGone))
	killT   = Kill{Key: key("t")}
	killIn  = func(d time.Duration) Input { return Kill{Key: key("t"), Grace: &d} }
	shutOff = ShutdownFramework{ID: "f1"}
)

var table = map[string][]move{
	"launch, the watch tells first": of(
		starting(),
		move{in: seen(container("t", provider.StateCreated))},
		move{in: up},
		move{in: answer{k: container("t", provider.StateUp)}, want: "report RUNNING; announce 10.0.0.1"},
		move{in: up},
	),
	"a late address": of(
		starting(),
		move{in: answer{k: container("t", provider.StateUp, noAddress)}},
		move{wait: 500 * time.Millisecond, want: "inspect c-t"},
		move{in: answer{k: container("t", provider.StateUp, noAddress)}},
		move{wait: 900 * time.Millisecond, in: up, want: "report RUNNING; announce 10.0.0.1"},
		move{wait: time.Hour, want: strings.Repeat("report RUNNING; ", 10)[:10*16-2]},
	),
	"an address later than anybody waits": of(
		starting(),
		move{in: answer{k: container("t", provider.StateUp, noAddress)}},
		move{wait: 500 * time.Millisecond, want: "inspect c-t"},
		move{in: answer{k: container("t", provider.StateUp, noAddress)}},
		move{wait: 1 * second, want: "inspect c-t"},
		move{in: answer{err: errLater}},
		move{wait: 2 * second, want: "inspect c-t"},
		move{in: answer{k: container("t", provider.StateUp, noAddress)}},
		move{wait: 4 * second, want: "inspect c-t"},
		move{in: answer{k: container("t", provider.StateUp, noAddress)}},
		move{wait: 8 * second, want: "inspect c-t"},
		move{in: answer{k: container("t", provider.StateUp, noAddress)}},
		move{wait: 16 * second, want: "report RUNNING; announce"},
		move{in: up, want: "announce 10.0.0.1"},
		move{in: up},
	),
	"exit 0": of(running(), move{in: exited(0), want: "withdraw; report FINISHED"}),
	"exit 3": of(running(), move{in: exited(3), want: "withdraw; report FAILED"}),
	"exit unknown": of(
		running(),
		move{in: seen(container("t", provider.StateExited)), want: "withdraw; report FAILED"},
	),
	"ended before the launch was answered": of(
		launched(),
		move{in: up},
		move{in: exited(0)},
		move{in: answer{k: container("t", provider.StateUp)}},
		move{in: acked("t"), want: "report FINISHED"},
	),
	"kill before anything was tried again": of(
		starting(),
		move{in: answer{err: errThrottle}, want: again(errThrottle)},
		move{in: acked("t")},
		move{in: killT, want: "inspect by name"},
		move{in: answer{err: errAbsent}, want: "report KILLED"},
	),
	"kill during the launch": of(
		starting(),
		move{in: killT, want: "cancel t"},
		move{in: answer{k: container("t", provider.StateUp)}, want: "stop c-t 5s"},
		move{in: answer{}},
		move{in: exited(143), want: "report KILLED"},
	),
	"kill during a launch that fails": of(
		starting(),
		move{in: killT, want: "cancel t"},
		move{in: answer{err: errRejected}, want: "report KILLED"},
	),
	"kill during a launch whose answer is lost": of(
		starting(),
		move{in: killT, want: "cancel t"},
		move{in: answer{err: errLater}, want: "inspect by name"},
		move{in: answer{err: errLater}},
		move{wait: 1 * second, want: "inspect by name"},
		move{in: answer{k: container("t", provider.StateUp)}, want: "stop c-t 5s"},
	),
	"kill of what only the name of is known, and which is another's": of(
		starting(),
		move{in: killT, want: "cancel t"},
		move{in: answer{err: errLater}, want: "inspect by name"},
		move{in: answer{k: container("t", provider.StateUp, func(k *provider.Container) { k.Owner.Cluster = "other" })}, want: "report KILLED"},
	),
	"kill of what was created and never started": of(
		killedCreated(),
		move{in: answer{k: container("t", provider.StateCreated)}, want: "report KILLED"},
		move{in: acked("t")},
		move{wait: 5 * time.Minute, want: "remove c-t"},
	),
	"starts after its end, which is acknowledged while it runs": of(
		killedCreated(),
		move{in: answer{k: container("t", provider.StateCreated)}, want: "report KILLED"},
		move{in: up, want: "stop c-t 5s"},
		move{in: acked("t")},
		move{in: answer{}},
		move{wait: 9 * second},
		move{in: exited(143)},
		move{wait: 5*time.Minute - second},
		move{wait: second, want: "remove c-t"},
	),
	"starts and ends unseen after its acknowledged end": of(
		killedCreated(),
		move{in: answer{k: container("t", provider.StateCreated)}, want: "report KILLED"},
		move{in: acked("t")},
		move{wait: 40 * second},
		move{in: seen(container("t", provider.StateExited, exit(143), func(k *provider.Container) { k.Ended = t0.Add(30 * second) }))},
		move{wait: 5*time.Minute - 11*second},
		move{wait: second, want: "remove c-t"},
	),
	"another container is told while the former one is looked up": of(
		killedCreated(),
		move{in: seen(container("t", provider.StateUp, func(k *provider.Container) { k.ID = "c-2" }))},
		move{in: answer{err: errAbsent}, want: "stop c-2 5s"},
		move{in: answer{}},
		move{in: seen(container("t", provider.StateExited, exit(143), func(k *provider.Container) { k.ID = "c-2" })), want: "report KILLED"},
	),
	"kill of what was created and started meanwhile": of(
		killedCreated(),
		move{in: answer{k: container("t", provider.StateUp)}, want: "stop c-t 5s"},
	),
	"kill while up": of(
		running(),
		move{in: killT, want: "stop c-t 5s withdraw"},
		move{in: answer{}},
		move{in: exited(0), want: "report KILLED"},
	),
	"the end comes before the stop's answer": of(
		running(),
		move{in: killT, want: "stop c-t 5s withdraw"},
		move{in: exited(143)},
		move{in: answer{}, want: "report KILLED"},
	),
	"the end comes before the stop's error": of(
		running(),
		move{in: killT, want: "stop c-t 5s withdraw"},
		move{in: exited(143)},
		move{in: answer{err: errLater}, want: "report KILLED"},
	),
	"kill of what is let go on": of(
		lingering(),
		move{in: killT, want: "withdraw"},
		move{in: killT},
		move{wait: 19 * second},
		move{wait: 1 * second, want: "stop c-t 5s"},
		move{in: exited(143)},
		move{in: answer{}, want: "report KILLED"},
	),
	"what is let go on ends by itself": of(
		lingering(),
		move{in: killT, want: "withdraw"},
		move{wait: 5 * second, in: exited(0), want: "report KILLED"},
	),
	"kill without a grace of what is let go on": of(
		lingering(),
		move{in: killT, want: "withdraw"},
		move{wait: 1 * second, in: killIn(0), want: "stop c-t 0s"},
	),
	"kill again with a shorter grace": of(
		running(),
		move{in: killIn(time.Minute), want: "stop c-t 1m0s withdraw"},
		move{in: killIn(2 * second)},
		move{in: answer{}, want: "stop c-t 2s"},
		move{in: answer{}},
		move{in: killIn(0), want: "stop c-t 0s"},
		move{in: answer{}},
		move{in: exited(137), want: "report KILLED"},
	),
	"a stop without effect is looked after": of(
		running(),
		move{in: killT, want: "stop c-t 5s withdraw"},
		move{in: answer{}},
		move{wait: 15 * second, want: "inspect c-t"},
		move{in: answer{k: container("t", provider.StateUp)}, want: "stop c-t 5s"},
		move{in: answer{}},
		move{wait: 15 * second, want: "inspect c-t"},
		move{in: answer{k: container("t", provider.StateExited, exit(137))}, want: "report KILLED"},
	),
	"a stop that fails is tried again": of(
		running(),
		move{in: killT, want: "stop c-t 5s withdraw"},
		move{in: answer{err: errLater}},
		move{wait: 500 * time.Millisecond, want: "stop c-t 5s"},
		move{in: answer{err: errLater}},
		move{wait: 1 * second, want: "stop c-t 5s"},
	),
	"stop of what is gone": of(
		running(),
		move{in: killT, want: "stop c-t 5s withdraw"},
		move{in: answer{err: errAbsent}, want: "inspect c-t"},
		move{in: answer{err: errAbsent}, want: "report KILLED"},
	),
	"rejected": of(
		starting(),
		move{in: answer{err: errRejected}, want: "report FAILED"},
		move{in: killT},
	),
	"rejected after it was created and removed": of(
		starting(),
		move{in: gone},
		move{in: answer{err: errRejected}, want: "report FAILED"},
	),
	"no capacity": of(starting(), move{in: answer{err: errCapacity}, want: "report FAILED"}),
	"throttle, denied and others are tried again": of(
		starting(),
		move{in: answer{err: errThrottle}, want: again(errThrottle)},
		move{in: acked("t")},
		move{wait: 500 * time.Millisecond, want: "launch t"},
		move{in: answer{err: errDenied}, want: again(errDenied)},
		move{in: acked("t")},
		move{wait: 999 * time.Millisecond},
		move{wait: time.Millisecond, want: "launch t"},
		move{in: answer{err: context.DeadlineExceeded}, want: again(context.DeadlineExceeded)},
		move{in: acked("t")},
		move{wait: 2 * second, want: "launch t"},
		move{in: answer{k: container("t", provider.StateUp)}, want: "report RUNNING; announce 10.0.0.1"},
	),
	"no success in time": of(
		starting(),
		move{in: answer{err: errThrottle}, want: again(errThrottle)},
		move{in: acked("t")},
		move{wait: 500 * time.Millisecond, want: "launch t"},
		move{wait: 10 * time.Minute, in: answer{err: errThrottle}, want: "report FAILED"},
	),
	"a lost answer": of(
		starting(),
		move{in: answer{err: errLater}, want: again(errLater)},
		move{in: acked("t")},
		move{in: up, want: "report RUNNING; announce 10.0.0.1"},
		move{wait: second},
	),
	"an answer that never came, after the time, of a container that is up": of(
		starting(),
		move{in: up},
		move{wait: 15 * time.Minute, in: answer{err: context.DeadlineExceeded}, want: "report RUNNING; announce 10.0.0.1"},
	),
	"removed from outside": of(
		running(),
		move{in: gone, want: "withdraw; report LOST"},
		move{in: acked("t")},
		move{wait: time.Hour},
	),
	"how it ended says more than that it is gone": of(
		starting(),
		move{in: up},
		move{in: exited(0)},
		move{in: gone},
		move{in: answer{k: container("t", provider.StateUp)}, want: "report FINISHED"},
	),
	"the framework's end is silent": of(
		running(),
		move{in: shutOff, want: "stop c-t 5s withdraw"},
		move{in: answer{}},
		move{in: exited(143)},
		move{wait: 5 * time.Minute, want: "remove c-t"},
		move{in: answer{}},
		move{wait: time.Hour},
	),
	"the framework's end forgets what nobody will acknowledge": of(
		running(),
		move{in: exited(1), want: "withdraw; report FAILED"},
		move{in: shutOff},
		move{wait: 5 * time.Minute, want: "remove c-t"},
	),
	"the framework's end during the launch": of(
		launched(),
		move{in: shutOff, want: "cancel t"},
		move{in: answer{k: container("t", provider.StateUp)}, want: "stop c-t 5s"},
		move{in: answer{}},
		move{in: exited(143)},
	),
	"launched twice": of(
		running(),
		move{in: Launch{Framework: fw, Spec: spec("t")}},
	),
	"acknowledged twice, and by strangers": of(
		launched(),
		move{in: Ack{Key: key("t"), UUID: task.UUID{9}}},
		move{in: Ack{Key: key("x"), UUID: task.UUID{15: 1}}},
		move{in: answer{k: container("t", provider.StateUp)}, want: "announce 10.0.0.1"},
		move{in: Ack{Key: key("t"), UUID: task.UUID{15: 1}}, want: "report RUNNING"},
		move{in: Ack{Key: key("t"), UUID: task.UUID{15: 1}}},
	),
	"sent again, ever more rarely": of(
		launched(),
		move{wait: 10 * second, want: "report STARTING"},
		move{wait: 19 * second},
		move{wait: 1 * second, want: "report STARTING"},
		move{wait: 40 * second, want: "report STARTING"},
		move{wait: 80 * second, want: "report STARTING"},
		move{wait: 160 * second, want: "report STARTING"},
		move{wait: 320 * second, want: "report STARTING"},
		move{wait: 599 * second},
		move{wait: 1 * second, want: "report STARTING"},
		move{wait: 600 * second, want: "report STARTING"},
		move{in: Joined{}, want: "report STARTING"},
		move{wait: 10 * second, want: "report STARTING"},
		move{in: UpdateFramework{Framework: fw}, want: "report STARTING"},
		move{wait: 10 * second, want: "report STARTING"},
	),
	"waits without a master": of(
		launched(),
		move{in: Parted{}},
		move{wait: time.Hour},
		move{in: answer{k: container("t", provider.StateUp)}, want: "announce 10.0.0.1"},
		move{in: Joined{}, want: "report STARTING latest RUNNING"},
	),
	"missing from a new listing, found by a look": of(
		running(),
		move{in: WatchStarted{}},
		move{in: synced, want: "inspect c-t"},
		move{in: answer{k: container("t", provider.StateUp)}},
	),
	"missing from a new listing, and not found": of(
		running(),
		move{in: WatchStarted{}},
		move{in: synced, want: "inspect c-t"},
		move{in: answer{err: errAbsent}, want: "withdraw; report LOST"},
	),
	"missing from a new listing, and the look fails": of(
		running(),
		move{in: WatchStarted{}},
		move{in: synced, want: "inspect c-t"},
		move{in: answer{err: errThrottle}},
		move{wait: 500 * time.Millisecond, want: "inspect c-t"},
		move{in: answer{err: errThrottle}},
		move{wait: 1 * second, want: "inspect c-t"},
		move{in: answer{err: errAbsent}, want: "withdraw; report LOST"},
	),
	"missing from a new listing while it is being stopped": of(
		running(),
		move{in: killT, want: "stop c-t 5s withdraw"},
		move{in: WatchStarted{}},
		move{in: synced},
		move{in: answer{}},
		move{wait: 15 * second, want: "inspect c-t"},
		move{in: answer{err: errAbsent}, want: "report KILLED"},
	),
	"told by a new listing": of(
		running(),
		move{in: WatchStarted{}},
		move{in: up},
		move{in: synced},
	),
	"a stop before the listing is complete": of(
		running(),
		move{in: WatchStarted{}},
		move{in: killT, want: "stop c-t 5s withdraw"},
		move{in: exited(143)},
		move{in: synced},
		move{in: answer{}, want: "report KILLED"},
	),
	"up after its end": of(
		starting(),
		move{in: killT, want: "cancel t"},
		move{in: answer{err: errLater}, want: "inspect by name"},
		move{in: answer{err: errAbsent}, want: "report KILLED"},
		move{in: up, want: "stop c-t 5s"},
		move{in: up},
		move{in: answer{}},
		move{in: exited(143)},
		move{wait: 9 * second},
		move{in: acked("t")},
		move{wait: 5 * time.Minute, want: "remove c-t"},
	),
	"removal waits for the acknowledgement": of(
		running(),
		move{in: exited(0), want: "withdraw; report FINISHED"},
		move{wait: 40 * time.Second, want: "report FINISHED; report FINISHED"},
		move{in: acked("t")},
		move{wait: 5*time.Minute - second},
		move{wait: second, want: "remove c-t"},
		move{in: answer{err: errLater}},
		move{wait: second, want: "remove c-t"},
		move{in: answer{}},
		move{wait: time.Hour},
	),
	"removed by others while it was kept": of(
		running(),
		move{in: exited(0), want: "withdraw; report FINISHED"},
		move{in: acked("t")},
		move{in: gone},
		move{wait: time.Hour},
	),
	"the same ID again, while the former container is kept": of(
		running(),
		move{in: exited(3), want: "withdraw; report FAILED"},
		move{in: acked("t")},
		move{in: Launch{Framework: fw, Spec: spec("t")}, want: started},
		move{in: exited(3)},
		move{in: answer{k: container("t", provider.StateExited, exit(3))}, want: "remove c-t"},
		move{in: answer{}},
		move{in: gone},
		move{wait: 500 * time.Millisecond, want: "launch t"},
		move{in: answer{k: container("t", provider.StateUp, func(k *provider.Container) { k.ID = "c-2" })}, want: "announce 10.0.0.1"},
		move{in: acked("t"), want: "report RUNNING"},
	),
	"the same ID again, while the former container runs": {
		{in: Joined{}},
		{in: WatchStarted{}},
		{in: up},
		{in: synced, want: joinedAll},
		{in: Launch{Framework: fw, Spec: spec("t")}, want: started},
		{in: answer{k: container("t", provider.StateUp)}, want: "stop c-t 5s"},
		{in: answer{}},
		{in: exited(143)},
		{wait: 500 * time.Millisecond, want: "launch t"},
		{in: answer{k: container("t", provider.StateExited, exit(143))}, want: "remove c-t"},
		{in: answer{}},
		{wait: 1 * second, want: "launch t"},
		{in: answer{k: container("t", provider.StateUp, func(k *provider.Container) { k.ID = "c-2" })}, want: "announce 10.0.0.1"},
	},
	"an orphan that runs": {
		{in: WatchStarted{}},
		{in: up},
		{in: synced, want: joinedAll},
		{wait: time.Minute, want: "stop c-t 5s"},
		{in: answer{err: errLater}},
		{wait: 500 * time.Millisecond, want: "stop c-t 5s"},
		{in: answer{}},
		{in: exited(143)},
		{wait: 5 * time.Minute, want: "remove c-t"},
		{in: answer{}},
	},
	"an orphan that vanishes": {
		{in: WatchStarted{}},
		{in: up},
		{in: synced, want: joinedAll},
		{in: gone},
		{wait: time.Hour},
	},
	"orphans that do not run": {
		{in: WatchStarted{}},
		{in: exited(0)},
		{in: seen(container("u", provider.StateCreated))},
		{in: synced, want: joinedAll},
		{wait: 5 * time.Minute, want: "remove c-t; remove c-u"},
	},
	"another container with the task's key": of(
		running(),
		move{in: seen(container("t", provider.StateUp, func(k *provider.Container) { k.ID, k.Name = "c-x", "stray" }))},
		move{wait: time.Minute, want: "stop c-x 5s"},
		move{in: answer{}},
		move{in: seen(container("t", provider.StateExited, exit(143), func(k *provider.Container) { k.ID, k.Name = "c-x", "stray" }))},
		move{wait: 5 * time.Minute, want: "remove c-x"},
		move{in: answer{}},
		move{in: exited(0), want: "withdraw; report FINISHED"},
	),
	"refused": {
		{in: Joined{}},
		{in: Refuse{Framework: fw, Key: key("t"), State: task.Failed, Reason: task.ReasonTaskInvalid, Message: "no"}, want: "report FAILED"},
		{in: Refuse{Framework: fw, Key: key("t"), State: task.Failed}},
		{in: Launch{Framework: fw, Spec: spec("t")}},
		{in: killT},
		{in: acked("t")},
		{wait: time.Hour},
	},
	"kill of an unknown task of an unknown framework": {
		{in: Joined{}},
		{in: killT},
	},
	"kill of an unknown task": of(
		running(),
		move{in: Kill{Key: key("x")}, want: "report LOST"},
	),
	"a master that knows more": {
		{in: Joined{Missing: []Missing{{Key: key("t"), Framework: fw}, {Key: key("u"), Framework: fw}}}, want: "report LOST; report LOST"},
	},
	"a master that knows more, of a framework that knows all states": {
		{in: Joined{Missing: []Missing{{Key: key("t"), Framework: aware}}}, want: "report DROPPED"},
	},
	"a master that does not know yet": of(
		launched(),
		move{in: Joined{Missing: []Missing{{Key: key("t"), Framework: fw}}}, want: "report STARTING"},
	),
}

func TestTable(t *testing.T) {
	for name, moves := range table {
		t.Run(name, func(t *testing.T) { newHarness(t, testConfig()).play(moves) })
	}
}

func TestKillingIsToldOnlyToThoseThatKnowIt(t *testing.T) {
	newHarness(t, testConfig()).play([]move{
		{in: Joined{}},
		{in: Launch{Framework: aware, Spec: spec("t")}, want: started},
		{in: acked("t")},
		{in: answer{k: container("t", provider.StateUp)}, want: "report RUNNING; announce 10.0.0.1"},
		{in: acked("t")},
		{in: killT, want: "report KILLING; stop c-t 5s withdraw"},
		{in: killIn(0)},
		{in: answer{}, want: "stop c-t 0s"},
		{in: answer{}},
		{in: exited(0)},
		{in: acked("t"), want: "report KILLED"},
		{in: acked("t")},
	})
}

func TestPartitionAwareHearsGone(t *testing.T) {
	newHarness(t, testConfig()).play([]move{
		{in: Joined{}},
		{in: Launch{Framework: aware, Spec: spec("t")}, want: started},
		{in: answer{k: container("t", provider.StateUp)}, want: "announce 10.0.0.1"},
		{in: gone, want: "withdraw"},
		{in: acked("t"), want: "report RUNNING latest GONE"},
		{in: acked("t"), want: "report GONE"},
	})
}

// The grace is the kill's, else the task's, else the agent's.
func TestGrace(t *testing.T) {
	s := spec("t")
	s.KillGrace = new(30 * time.Second)
	newHarness(t, testConfig()).play([]move{
		{in: Launch{Framework: fw, Spec: s}, want: "launch t"},
		{in: answer{k: container("t", provider.StateUp)}, want: "announce 10.0.0.1"},
		{in: killIn(time.Minute), want: "stop c-t 1m0s withdraw"},
		{in: killT},
		{in: answer{}, want: "stop c-t 30s"},
	})
}

// What the statuses say beside the state.
func TestStatuses(t *testing.T) {
	for _, x := range []struct {
		name  string
		moves []move
		want  task.Status
	}{
		{"starting", launched(), task.Status{State: task.Starting, Source: task.SourceExecutor}},
		{
			"oom", of(running(), move{in: seen(container("t", provider.StateExited, exit(137), func(k *provider.Container) { k.OOMKilled = true })), want: "withdraw; report FAILED"}),
			task.Status{State: task.Failed, Source: task.SourceExecutor, Message: "Container exited with status 137 (signal 9): out of memory"},
		},
		{
			"unknown exit", of(running(), move{in: seen(container("t", provider.StateExited, func(k *provider.Container) { k.Error = "disk full" })), want: "withdraw; report FAILED"}),
			task.Status{State: task.Failed, Source: task.SourceExecutor, Message: "Container ended; the backend does not tell its exit status: disk full"},
		},
		{
			"rejected", of(starting(), move{in: answer{err: errRejected}, want: "report FAILED"}),
			task.Status{State: task.Failed, Source: task.SourceAgent, Reason: task.ReasonContainerLaunchFailed, Message: errRejected.Error()},
		},
		{
			"killed before the start", of(starting(), move{in: killT, want: "cancel t"}, move{in: answer{err: errRejected}, want: "report KILLED"}),
			task.Status{State: task.Killed, Source: task.SourceAgent, Reason: task.ReasonKilledDuringLaunch, Message: "Killed before it was started"},
		},
		{
			"removed", of(running(), move{in: gone, want: "withdraw; report LOST"}),
			task.Status{State: task.Lost, Source: task.SourceAgent, Reason: task.ReasonExecutorTerminated, Message: "The container " + nameOf("t") + " was removed from outside"},
		},
	} {
		t.Run(x.name, func(t *testing.T) {
			h := newHarness(t, testConfig())
			h.play(x.moves)
			got := h.core.tasks[key("t")].Pending[0]
			if got.UUID.IsZero() || !got.Time.Equal(h.now) {
				t.Errorf("UUID %v, time %v", got.UUID, got.Time)
			}
			if got.Container == nil || got.Container.ID == "" {
				t.Errorf("the status names no container: %+v", got.Container)
			}
			got.UUID, got.Time, got.Container = task.UUID{}, time.Time{}, nil
			diff(t, "status", x.want, got)
		})
	}
}

// RUNNING carries the address and the backend's own description, but neither
// what is kept nor what is saved does.
func TestRunningCarriesTheDescription(t *testing.T) {
	h := newHarness(t, testConfig())
	h.play(starting())
	h.play([]move{{in: answer{k: container("t", provider.StateUp, func(k *provider.Container) { k.Raw = []byte("[{}]") })}, want: "report RUNNING; announce 10.0.0.1"}})
	r := h.core.tasks[key("t")]
	diff(t, "data", "[{}]", string(r.Pending[0].Data))
	diff(t, "addresses", []string{"10.0.0.1"}, r.Pending[0].Container.Addresses)
	if r.Container.Raw != nil || r.History[1].Data != nil || reread(t, &r.Record).History[1].Data != nil {
		t.Error("the description is kept")
	}
}

// The order of effects over one task's life: saved before all else of a step
// leaves, see Runner; and nothing that was saved is left in the end.
func TestGoldenLife(t *testing.T) {
	h := newHarness(t, testConfig())
	h.silent = false
	h.play([]move{
		{in: Recover{}},
		{in: Joined{}},
		{in: WatchStarted{}},
		{in: synced, want: "all known"},
		{in: Launch{Framework: aware, Spec: spec("t")}, want: "save f1; save t spec=true; save t spec=false; report STARTING; launch t"},
		{in: acked("t"), want: "save t spec=false"},
		{in: answer{k: container("t", provider.StateUp)}, want: "save t spec=false; report RUNNING; announce 10.0.0.1"},
		{in: acked("t"), want: "save t spec=false"},
		{in: killT, want: "save t spec=false; save t spec=false; report KILLING; stop c-t 5s withdraw"},
		{in: acked("t"), want: "save t spec=false"},
		{in: answer{}},
		{in: exited(143), want: "save t spec=false; report KILLED"},
		{in: acked("t"), want: "forget t; forget f1"},
		{wait: 5 * time.Minute, want: "remove c-t"},
		{in: answer{}},
		{in: gone},
		{wait: 24 * time.Hour},
	})
	if n := h.core.Next(); !n.IsZero() || len(h.core.kept) != 0 || h.core.gc.Len() != 0 {
		t.Errorf("something is left: next %v, kept %v", n, h.core.kept)
	}
}

func TestRecover(t *testing.T) {
	record := func(id string, change func(*Record)) Record {
		r := Record{Spec: spec(id), Name: nameOf(id), State: task.Starting, Tried: true, Since: t0.Add(-time.Hour)}
		change(&r)
		return r
	}
	ran := func(r *Record) { r.State, r.Container = task.Running, container(r.Spec.Key.ID, provider.StateUp) }
	pending := func(s task.State) []task.Status { return []task.Status{{State: s, UUID: task.UUID{1}}} }
	for name, x := range map[string]struct {
		rec   Record
		moves []move
	}{
		"never launched": {record("t", func(*Record) {}), []move{{in: synced, want: "all known; launch t"}}},
		"launched, not saved as up": {record("t", func(*Record) {}), []move{
			{in: up, want: "report RUNNING; announce 10.0.0.1"}, {in: synced, want: joinedAll},
		}},
		"still up":                {record("t", ran), []move{{in: up, want: "announce 10.0.0.1"}, {in: synced, want: joinedAll}}},
		"killed before the watch": {record("t", ran), []move{{in: Kill{Key: key("t")}, want: "inspect c-t"}, {in: answer{k: container("t", provider.StateUp)}, want: "stop c-t 5s withdraw"}}},
		"ended meanwhile":         {record("t", ran), []move{{in: exited(7), want: "withdraw; report FAILED"}, {in: synced, want: joinedAll}}},
		"removed meanwhile":       {record("t", ran), []move{{in: synced, want: "all known; inspect c-t"}, {in: answer{err: errAbsent}, want: "withdraw; report LOST"}}},
		"not launched again":      {record("t", ran), []move{{wait: time.Hour}}},
		"to stop, still up":       {record("t", func(r *Record) { ran(r); r.Stop = true }), []move{{in: up, want: "stop c-t 5s"}}},
		"to stop, not launched":   {record("t", func(r *Record) { r.Stop = true }), []move{{in: synced, want: "all known; inspect by name"}, {in: answer{err: errAbsent}, want: "report KILLED"}}},
		"ended, to be told":       {record("t", func(r *Record) { ran(r); r.State, r.Pending = task.Failed, pending(task.Failed) }), []move{{in: Joined{}, want: "report FAILED"}, {in: exited(3)}, {in: acked("t")}, {wait: 5 * time.Minute, want: "remove c-t"}}},
		"ended, told too early":   {record("t", func(r *Record) { ran(r); r.State, r.Pending = task.Failed, pending(task.Failed) }), []move{{in: Joined{}, want: "report FAILED"}, {in: acked("t")}, {in: exited(3)}, {wait: 5 * time.Minute, want: "remove c-t"}}},
		"a launch that is tried":  {record("t", func(*Record) {}), []move{{in: synced, want: "all known; launch t"}, {in: answer{err: errLater}, want: "report FAILED"}}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, testConfig())
			moves := []move{{in: Recover{Tasks: []Record{x.rec}, Frameworks: []Framework{fw}}}}
			if x.rec.State == task.Running && !x.rec.Stop {
				moves[0].want = "announce 10.0.0.1"
			}
			if _, joins := x.moves[0].in.(Joined); !joins {
				moves = append(moves, move{in: Joined{}})
			}
			h.play(append(append(moves, move{in: WatchStarted{}}), x.moves...))
		})
	}
}

func TestRoster(t *testing.T) {
	h := newHarness(t, testConfig())
	other := spec("u")
	other.Key.Framework = "f2"
	h.play(running())
	h.play([]move{
		{wait: second, in: Launch{Framework: Framework{ID: "f2"}, Spec: other}, want: "report STARTING; launch u"},
		{in: seen(container("x", provider.StateUp))},
	})
	got := h.core.Roster()
	if len(got.Tasks) != 2 || got.Tasks[0].Spec.Key.ID != "t" || got.Tasks[1].Spec.Key.ID != "u" || got.Orphans != 1 {
		t.Fatalf("roster: %+v", got)
	}
	diff(t, "frameworks", []Framework{{ID: "f1"}, {ID: "f2"}}, got.Frameworks)
	if got.Tasks[0].Pending != nil || got.Tasks[1].Pending == nil || len(got.Tasks[0].History) != 2 {
		t.Errorf("updates: %+v", got.Tasks)
	}
	h.play([]move{{in: ShutdownFramework{ID: "f2"}, want: "cancel u"}})
	if got = h.core.Roster(); len(got.Tasks) != 1 || len(got.Frameworks) != 1 {
		t.Errorf("a framework that was shut down is still shown: %+v", got)
	}
}

func TestContainerNames(t *testing.T) {
	valid := regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,60}[a-z0-9]$`)
	names := map[string]string{}
	for _, cluster := range []string{"mesos", "Mesos_2", strings.Repeat("c", 100), "ünïcode", ""} {
		for _, framework := range []string{"f", "f1", "9a93295b-ae6c-443f-9828-32b67b426140-0000"} {
			for _, id := range []string{"a", "A", "1a", "web.instance-1", strings.Repeat("x", 255), "é", "a_b", "a.b"} {
				for _, name := range []string{"", "web", "WEB app!", strings.Repeat("y", 100), "--", "日本"} {
					k := task.Key{Framework: framework, ID: id}
					got := ContainerName(cluster, k, name)
					if !valid.MatchString(got) || strings.Contains(got, "--") {
						t.Errorf("ContainerName(%q, %v, %q) = %q", cluster, k, name, got)
					}
					if again := ContainerName(cluster, k, name); again != got {
						t.Errorf("%q is %q the second time", got, again)
					}
					of := fmt.Sprintf("%q %q %q %q", cluster, framework, id, name)
					if names[got] != "" && !strings.HasPrefix(names[got], fmt.Sprintf("%q %q %q", cluster, framework, id)) {
						t.Errorf("%s and %s are both called %s", names[got], of, got)
					}
					names[got] = of
				}
			}
		}
	}
}

// An update is sent again after 10 s, then after twice as long, up to 10 min,
// until it is acknowledged by its own UUID; meanwhile nothing else is said of
// the task (facts/mesos-protocol.md §10A, number 8).
func Test10A_08_SendsAgain(t *testing.T) {
	h := newHarness(t, testConfig())
	h.step(Joined{})
	h.step(Launch{Framework: aware, Spec: spec("t")})
	h.move(move{in: answer{k: container("t", provider.StateUp)}})
	sent, front := h.now, h.last["t"]
	for i, want := range []time.Duration{10, 20, 40, 80, 160, 320, 600, 600} {
		h.step(Ack{Key: key("t"), UUID: task.UUID{9}}) // of nothing that was sent
		var reports []Report
		for len(reports) == 0 {
			h.now = h.core.Next()
			for _, e := range h.core.Step(h.now, Tick{}, nil) {
				if r, ok := e.(Report); ok {
					reports = append(reports, r)
				}
			}
		}
		if d := h.now.Sub(sent); d != want*time.Second || len(reports) != 1 || reports[0].Status.UUID != front || reports[0].Latest != task.Running {
			t.Fatalf("send %d after %v: %+v", i, d, reports)
		}
		sent = h.now
	}
	got := h.core.Step(h.now, Ack{Key: key("t"), UUID: front}, nil)
	if r, ok := got[len(got)-1].(Report); !ok || r.Status.State != task.Running {
		t.Errorf("after the acknowledgement: %+v", got)
	}
}
