package memory

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/mesopool/mesopool/provider"
)

// poll is how often a log that is followed looks for more.
const poll = 5 * time.Millisecond

// Logs is part of provider.Logger: what echo wrote.
func (p *Provider) Logs(ctx context.Context, id string, o provider.LogOptions) (provider.LogReader, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b, err := p.core.find(id)
	if err != nil {
		return nil, fmt.Errorf("memory: logs: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &logReader{p: p, b: b, ctx: ctx, cancel: cancel, o: o}
	if n, _ := b.written(time.Now()); o.Tail > 0 {
		r.next = max(0, n-o.Tail)
	}
	return r, nil
}

// written is how many lines the box has written until now, and whether more
// may come.
func (b *box) written(now time.Time) (int, bool) {
	until := now.UnixNano()
	if b.ended != 0 {
		until = b.ended
	}
	n := 0
	if b.output != nil && b.started != 0 {
		for n < len(*b.output) && b.started+int64((*b.output)[n].after) <= until {
			n++
		}
	}
	return n, b.state == provider.StateCreated || b.state == provider.StateUp
}

type logReader struct {
	p      *Provider
	b      *box
	ctx    context.Context
	cancel context.CancelFunc
	o      provider.LogOptions
	next   int
}

// Next is part of provider.LogReader.
func (r *logReader) Next() (provider.LogPiece, error) {
	for {
		if err := r.ctx.Err(); err != nil {
			return provider.LogPiece{}, err
		}
		l, state := r.step()
		switch {
		case state == logEnd:
			return provider.LogPiece{}, io.EOF
		case state == logWait:
			time.Sleep(poll)
		case l.stderr && r.o.Stderr || !l.stderr && r.o.Stdout:
			return provider.LogPiece{Stderr: l.stderr, Data: []byte(l.text)}, nil
		}
	}
}

type logState int

const (
	logLine logState = iota
	logWait
	logEnd
)

func (r *logReader) step() (line, logState) {
	r.p.mu.Lock()
	defer r.p.mu.Unlock()
	n, more := r.b.written(time.Now())
	switch {
	case r.next < n:
		r.next++
		return (*r.b.output)[r.next-1], logLine
	case more && r.o.Follow:
		return line{}, logWait
	}
	return line{}, logEnd
}

// Close is part of provider.LogReader.
func (r *logReader) Close() error {
	r.cancel()
	return nil
}

// Exec is part of provider.Execer. It understands what programs understand;
// any other command is not found: exit code 127.
func (p *Provider) Exec(ctx context.Context, id string, o provider.ExecOptions) (int, error) {
	c, err := p.Inspect(ctx, id)
	if err != nil {
		return 0, err
	}
	if c.State != provider.StateUp {
		return 0, fmt.Errorf("memory: exec: container %s is not running", id)
	}
	prog, known := parseArgv(o.Argv)
	if !known {
		err := write(o.Stderr, strings.Join(o.Argv, " ")+": the simulated backend knows no such command\n")
		return 127, err
	}
	for _, l := range prog.output {
		w := o.Stdout
		if l.stderr {
			w = o.Stderr
		}
		if err := write(w, l.text); err != nil {
			return 0, fmt.Errorf("memory: exec: %w", err)
		}
	}
	return int(prog.code), await(ctx, Answer{Never: prog.run == forever, At: time.Now().Add(prog.run)})
}

func write(w io.Writer, text string) error {
	if w == nil {
		return nil
	}
	_, err := io.WriteString(w, text)
	return err
}
