package backend

import (
	"time"

	"github.com/mesopool/mesopool/provider/memory"
)

// maxLines bounds what a simulated container remembers of its earlier runs.
const maxLines = 1000

// box is a simulated container. The Memory's lock guards it.
type box struct {
	m        *Memory
	spec     *Spec
	name     string
	what     memory.Behaviour
	state    State
	nics     []NIC
	autoboot bool
	delays   int // restarts in a row that came soon
	timer    *time.Timer
	run      int           // counts starts and halts: a timer of an earlier one does nothing
	changed  chan struct{} // closed at the next change
	past     []logLine     // of earlier runs
	lost     int           // lines before past
	files    map[string][]byte
	bytes    int
	gone     bool
}

func newBox(m *Memory, s *Spec) *box {
	argv := append(append([]string{}, s.Entrypoint...), s.Cmd...)
	what, _ := memory.Understand(argv, s.Env)
	return &box{m: m, spec: s, name: s.Name, what: what, state: State{Phase: Stopped}, changed: make(chan struct{})}
}

// tell says what the box is now.
func (b *box) tell() {
	close(b.changed)
	b.changed = make(chan struct{})
	b.state.NICs = b.nics
	b.m.notify(b.spec.ID, b.state)
}

// halt forgets what was about to happen.
func (b *box) halt() {
	b.run++
	if b.timer != nil {
		b.timer.Stop()
	}
}

// after does something later unless the box was halted.
func (b *box) after(d time.Duration, do func()) {
	run := b.run
	b.timer = time.AfterFunc(d, func() {
		b.m.mu.Lock()
		defer b.m.mu.Unlock()
		if b.run == run {
			do()
		}
	})
}

func (b *box) start() {
	b.m.pids++
	s := &b.state
	s.Phase, s.Pid, s.Started, s.ExitCode, s.HasExit = Running, 1000+b.m.pids, time.Now(), 0, false
	b.tell()
	if !b.what.Forever {
		b.after(b.what.Run, func() { b.exit(int(b.what.Code)) })
	}
}

// exit ends a running box; it starts again when its policy says so.
func (b *box) exit(code int) {
	b.halt()
	b.past = append(b.past, b.written(time.Now())...)
	over := max(0, len(b.past)-maxLines)
	b.past, b.lost = b.past[over:], b.lost+over
	s := &b.state
	s.Phase, s.Pid, s.Finished, s.ExitCode, s.HasExit = Stopped, 0, time.Now(), code, true
	b.tell()
	if !b.restarts(code) {
		return
	}
	if s.Finished.Sub(s.Started) > b.m.cfg.RestartReset {
		b.delays = 0
	}
	delay := b.m.cfg.RestartDelay << min(b.delays, 20)
	b.delays++
	b.after(delay, func() {
		b.state.Restarts++
		b.start()
	})
}

// restarts follows the policy (SmartOS: vmadmd.js; sdc-docker: docs/api/features/restart.md).
func (b *box) restarts(code int) bool {
	r := b.spec.Restart
	switch {
	case !b.autoboot:
		return false
	case r.Name == "always":
		return true
	}
	return r.Name == "on-failure" && code != 0 && (r.Max == 0 || b.state.Restarts < r.Max)
}

// logLine is a line with its time.
type logLine struct {
	at     time.Time
	stderr bool
	text   string
}

// written is what the current run has written until now.
func (b *box) written(now time.Time) []logLine {
	var out []logLine
	if b.state.Phase != Running {
		return nil
	}
	for _, l := range b.what.Output {
		at := b.state.Started.Add(l.After)
		if at.After(now) {
			break
		}
		out = append(out, logLine{at, l.Stderr, l.Text})
	}
	return out
}

// nextLine is when the current run writes again; zero when it does not.
func (b *box) nextLine(now time.Time) time.Time {
	if b.state.Phase == Running {
		for _, l := range b.what.Output {
			if at := b.state.Started.Add(l.After); at.After(now) {
				return at
			}
		}
	}
	return time.Time{}
}
