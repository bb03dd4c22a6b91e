package providertest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/mesopool/mesopool/provider"
)

var streamTests = []subtest{
	{"Logs/All", testLogsAll},
	{"Logs/OneStream", testLogsOneStream},
	{"Logs/Tail", testLogsTail},
	{"Logs/FollowToTheEnd", testLogsFollow},
	{"Logs/FollowCancelled", testLogsCancelled},
	{"Logs/Absent", testLogsAbsent},
	{"Exec/ExitCode", testExecCode},
	{"Exec/Output", testExecOutput},
	{"Exec/Absent", testExecAbsent},
	{"Exec/Cancelled", testExecCancelled},
}

func (f *fixture) logger() provider.Logger {
	l, ok := provider.As[provider.Logger](f.Provider)
	f.need(ok, "read logs")
	return l
}

// read returns all that a container wrote to stdout and stderr.
func (f *fixture) read(id string, o provider.LogOptions) (out, errs string) {
	f.Helper()
	r, err := f.logger().Logs(f.ctx, id, o)
	if err != nil {
		f.Fatalf("Logs: %v", err)
	}
	defer r.Close()
	var streams [2]strings.Builder
	for {
		piece, err := r.Next()
		if errors.Is(err, io.EOF) {
			return streams[0].String(), streams[1].String()
		}
		if err != nil {
			f.Fatalf("reading logs: %v", err)
		}
		i := 0
		if piece.Stderr {
			i = 1
		}
		streams[i].Write(piece.Data)
	}
}

func (f *fixture) wantLogs(id string, o provider.LogOptions, wantOut, wantErr string) {
	f.Helper()
	if out, errs := f.read(id, o); out != wantOut || errs != wantErr {
		f.Errorf("Logs(%+v) gave %q and %q, want %q and %q", o, out, errs, wantOut, wantErr)
	}
}

func testLogsAll(f *fixture) {
	f.logger()
	c := f.launch(Program{Lines: 2})
	f.inState(c.ID, provider.StateExited)
	f.wantLogs(c.ID, provider.LogOptions{Stdout: true, Stderr: true}, "out 1\nout 2\n", "err 1\nerr 2\n")
}

func testLogsOneStream(f *fixture) {
	f.logger()
	c := f.launch(Program{Lines: 2})
	f.inState(c.ID, provider.StateExited)
	f.wantLogs(c.ID, provider.LogOptions{Stdout: true}, "out 1\nout 2\n", "")
	f.wantLogs(c.ID, provider.LogOptions{Stderr: true}, "", "err 1\nerr 2\n")
}

func testLogsTail(f *fixture) {
	f.logger()
	c := f.launch(Program{Lines: 20})
	f.inState(c.ID, provider.StateExited)
	out, errs := f.read(c.ID, provider.LogOptions{Stdout: true, Stderr: true, Tail: 2})
	if n := strings.Count(out+errs, "\n"); n != 2 {
		f.Errorf("the last 2 lines are %q and %q", out, errs)
	}
}

func testLogsFollow(f *fixture) {
	f.logger()
	c := f.launch(Program{Lines: 1, Run: true})
	f.awaitOutput(c.ID)
	stopped := make(chan error, 1)
	go func() {
		time.Sleep(50 * time.Millisecond)
		stopped <- f.Provider.Stop(f.ctx, c.ID, f.q.Grace)
	}()
	f.wantLogs(c.ID, provider.LogOptions{Follow: true, Stdout: true, Stderr: true}, "out 1\n", "err 1\n")
	if err := <-stopped; err != nil {
		f.Errorf("Stop: %v", err)
	}
	f.inState(c.ID, provider.StateExited)
}

func testLogsCancelled(f *fixture) {
	l := f.logger()
	c := f.launch(Program{Run: true})
	ctx, cancel := context.WithCancel(f.ctx)
	r, err := l.Logs(ctx, c.ID, provider.LogOptions{Follow: true, Stdout: true})
	if err != nil {
		f.Fatal(err)
	}
	defer r.Close()
	time.AfterFunc(50*time.Millisecond, cancel)
	begin := time.Now()
	if _, err := r.Next(); err == nil {
		f.Error("a cancelled follow went on")
	}
	if took := time.Since(begin); took > 5*time.Second {
		f.Errorf("a cancelled follow ended after %v", took)
	}
}

func testLogsAbsent(f *fixture) {
	_, err := f.logger().Logs(f.ctx, absentID, provider.LogOptions{Stdout: true})
	f.wantErr("Logs of what is not there", err, provider.ErrNotFound)
}

func (f *fixture) execer() provider.Execer {
	e, ok := provider.As[provider.Execer](f.Provider)
	f.need(ok && f.Argv != nil, "run further commands")
	return e
}

func testExecCode(f *fixture) {
	e := f.execer()
	c := f.launch(Program{Run: true})
	for _, want := range []int{0, 7} {
		got, err := e.Exec(f.ctx, c.ID, provider.ExecOptions{Argv: f.Argv(Program{Exit: want})})
		if err != nil || got != want {
			f.Errorf("Exec of what ends with %d: got %d, %v", want, got, err)
		}
	}
	if got := f.inspect(c.ID); got.State != provider.StateUp {
		f.Errorf("after Exec the container is %v", got.State)
	}
}

func testExecOutput(f *fixture) {
	e := f.execer()
	c := f.launch(Program{Run: true})
	var out, errs bytes.Buffer
	o := provider.ExecOptions{Argv: f.Argv(Program{Lines: 2}), Stdout: &out, Stderr: &errs}
	if code, err := e.Exec(f.ctx, c.ID, o); err != nil || code != 0 {
		f.Fatalf("Exec: %d, %v", code, err)
	}
	if out.String() != "out 1\nout 2\n" || errs.String() != "err 1\nerr 2\n" {
		f.Errorf("Exec wrote %q and %q", &out, &errs)
	}
}

func testExecAbsent(f *fixture) {
	_, err := f.execer().Exec(f.ctx, absentID, provider.ExecOptions{Argv: f.Argv(Program{})})
	f.wantErr("Exec in what is not there", err, provider.ErrNotFound)
}

func testExecCancelled(f *fixture) {
	e := f.execer()
	c := f.launch(Program{Run: true})
	ctx, cancel := context.WithTimeout(f.ctx, 200*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, err := e.Exec(ctx, c.ID, provider.ExecOptions{Argv: f.Argv(Program{Run: true})})
	f.wantErr("a cancelled Exec", err, context.DeadlineExceeded)
	if took := time.Since(begin); took > 5*time.Second {
		f.Errorf("a cancelled Exec ended after %v", took)
	}
}
