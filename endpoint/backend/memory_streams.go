package backend

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mesopool/mesopool/provider/memory"
)

// maxFiles bounds the bytes put into one simulated container.
const maxFiles = 1 << 20

// frame writes text as Docker frames it, or plainly for a terminal: the stream
// in a byte, three zeros, the length in four.
func frame(w io.Writer, tty, stderr bool, text string) error {
	if !tty {
		var h [8]byte
		h[0] = 1
		if stderr {
			h[0] = 2
		}
		binary.BigEndian.PutUint32(h[4:], uint32(len(text)))
		if _, err := w.Write(h[:]); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, text)
	return err
}

// Logs is part of Streams.
func (m *Memory) Logs(ctx context.Context, id string, o LogOptions) (io.ReadCloser, error) {
	b, err := m.find(id)
	if err != nil {
		m.mu.Unlock()
		return nil, err
	}
	lines := append(slices.Clone(b.past), b.written(time.Now())...)
	defer m.mu.Unlock()
	skip := b.lost
	if o.Tail >= 0 {
		skip += max(0, len(lines)-o.Tail)
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(m.follow(ctx, b, skip, o, w)) }()
	return r, nil
}

// follow writes the lines after the first skip ones that the box ever wrote.
func (m *Memory) follow(ctx context.Context, b *box, skip int, o LogOptions, w io.Writer) error {
	for {
		m.mu.Lock()
		now := time.Now()
		lines := append(slices.Clone(b.past), b.written(now)...)
		lines = lines[min(len(lines), max(0, skip-b.lost)):]
		skip = max(skip, b.lost) + len(lines)
		next, changed, more := b.nextLine(now), b.changed, b.state.Phase == Running && !b.gone
		m.mu.Unlock()
		for _, l := range lines {
			if err := l.write(w, b.spec.TTY, o.Timestamps); err != nil {
				return err
			}
		}
		if !o.Follow || !more {
			return nil
		}
		if err := until(ctx, next, changed); err != nil {
			return err
		}
	}
}

func (l logLine) write(w io.Writer, tty, timestamps bool) error {
	text := l.text
	if timestamps {
		text = l.at.UTC().Format("2006-01-02T15:04:05.000000000Z07:00") + " " + text
	}
	return frame(w, tty, l.stderr, text)
}

// until waits for a time (zero: never) or for a change.
func until(ctx context.Context, at time.Time, changed <-chan struct{}) error {
	var tick <-chan time.Time
	if !at.IsZero() {
		t := time.NewTimer(time.Until(at))
		defer t.Stop()
		tick = t.C
	}
	select {
	case <-tick:
	case <-changed:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// duplex is the endpoint's end of a simulated two-way stream.
type duplex struct {
	in    *io.PipeWriter
	out   *io.PipeReader
	close func()
}

func newDuplex(ctx context.Context, run func(ctx context.Context, in io.Reader, out io.Writer) error) *duplex {
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		outW.CloseWithError(run(ctx, inR, outW))
		inR.Close()
	}()
	return &duplex{in: inW, out: outR, close: cancel}
}

func (d *duplex) Read(p []byte) (int, error)  { return d.out.Read(p) }
func (d *duplex) Write(p []byte) (int, error) { return d.in.Write(p) }
func (d *duplex) CloseWrite() error           { return d.in.Close() }
func (d *duplex) Close() error {
	d.close()
	return errors.Join(d.in.Close(), d.out.Close())
}

// Attach is part of Streams. What is written to a simulated container is read
// and forgotten.
func (m *Memory) Attach(ctx context.Context, id string, o AttachOptions) (Conn, error) {
	b, err := m.find(id)
	if err != nil {
		m.mu.Unlock()
		return nil, err
	}
	skip := 0
	if !o.Logs {
		skip = b.lost + len(b.past) + len(b.written(time.Now()))
	}
	m.mu.Unlock()
	return newDuplex(context.WithoutCancel(ctx), func(ctx context.Context, in io.Reader, out io.Writer) error {
		go io.Copy(io.Discard, in)
		return m.follow(ctx, b, skip, LogOptions{Follow: o.Stream}, out)
	}), nil
}

// Resize is part of Streams.
func (m *Memory) Resize(_ context.Context, id string, _, _ uint) error {
	_, err := m.find(id)
	m.mu.Unlock()
	return err
}

// Exec is part of Streams. It understands what containers understand, and cat;
// any other command is not found.
func (m *Memory) Exec(_ context.Context, id string, o ExecOptions) (Exec, error) {
	b, err := m.find(id)
	defer m.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if b.state.Phase != Running {
		return nil, fmt.Errorf("container %.12s: %w", id, ErrNotRunning)
	}
	return &memoryExec{o: o}, nil
}

type memoryExec struct {
	o      ExecOptions
	mu     sync.Mutex
	result ExecResult
}

func (e *memoryExec) Start(ctx context.Context, detach bool) (Conn, error) {
	e.set(ExecResult{Running: true, Pid: 1})
	d := newDuplex(context.WithoutCancel(ctx), func(ctx context.Context, in io.Reader, out io.Writer) error {
		code, err := e.run(ctx, in, out)
		e.set(ExecResult{ExitCode: code})
		return err
	})
	if detach {
		go io.Copy(io.Discard, d)
		return nil, nil
	}
	return d, nil
}

func (e *memoryExec) run(ctx context.Context, in io.Reader, out io.Writer) (int, error) {
	if len(e.o.Cmd) == 1 && path.Base(e.o.Cmd[0]) == "cat" {
		return 0, e.cat(in, out)
	}
	what, known := memory.Understand(e.o.Cmd, nil)
	if !known {
		return 127, frame(out, e.o.TTY, true, strings.Join(e.o.Cmd, " ")+": the simulated backend knows no such command\n")
	}
	started := time.Now()
	for _, l := range what.Output {
		if err := wait(ctx, time.Until(started.Add(l.After))); err != nil {
			return 0, err
		}
		if err := frame(out, e.o.TTY, l.Stderr, l.Text); err != nil {
			return 0, err
		}
	}
	if what.Forever {
		<-ctx.Done()
		return -9, nil
	}
	return int(what.Code), wait(ctx, time.Until(started.Add(what.Run)))
}

func (e *memoryExec) cat(in io.Reader, out io.Writer) error {
	buf := make([]byte, 4096)
	for {
		n, err := in.Read(buf)
		if n > 0 {
			if err := frame(out, e.o.TTY, false, string(buf[:n])); err != nil {
				return err
			}
		}
		if err != nil {
			return nil // the end of the input
		}
	}
}

func (e *memoryExec) set(r ExecResult) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.result = r
}

func (e *memoryExec) Resize(context.Context, uint, uint) error { return nil }

func (e *memoryExec) Result(context.Context) (ExecResult, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.result, nil
}

// Top is part of Streams.
func (m *Memory) Top(_ context.Context, id string) ([]string, [][]string, error) {
	b, err := m.find(id)
	defer m.mu.Unlock()
	if err != nil {
		return nil, nil, err
	}
	command := strings.Join(append(append([]string{}, b.spec.Entrypoint...), b.spec.Cmd...), " ")
	return []string{"PID", "USER", "TIME", "COMMAND"}, [][]string{{fmt.Sprint(b.state.Pid), "root", "0:00", command}}, nil
}

// Stats is part of Streams: a simulated container uses half of its memory.
func (m *Memory) Stats(ctx context.Context, id string, kind StatsKind) (io.ReadCloser, error) {
	b, err := m.find(id)
	m.mu.Unlock()
	if err != nil {
		return nil, err
	}
	r, w := io.Pipe()
	go func() {
		for err := error(nil); err == nil; err = wait(ctx, time.Second) {
			bytes := int64(b.spec.MemoryMiB) << 20
			err = json.NewEncoder(w).Encode(map[string]any{
				"read": time.Now().UTC(), "memory_stats": map[string]int64{"usage": bytes / 2, "limit": bytes},
			})
			if err != nil || kind != StatsStream {
				break
			}
		}
		w.Close()
	}()
	return r, nil
}

// Files of a simulated container are whatever was put into it.

// Stat is part of Streams.
func (m *Memory) Stat(_ context.Context, id, name string) ([]byte, error) {
	b, err := m.find(id)
	defer m.mu.Unlock()
	if err != nil {
		return nil, err
	}
	name = path.Clean("/" + name)
	if text, there := b.files[name]; there {
		return json.Marshal(map[string]any{"name": path.Base(name), "size": len(text), "mode": 0o644, "mtime": b.spec.Created, "linkTarget": ""})
	}
	for f := range b.files {
		if name == "/" || strings.HasPrefix(f, name+"/") {
			return json.Marshal(map[string]any{"name": path.Base(name), "size": 0, "mode": uint32(1<<31 | 0o755), "mtime": b.spec.Created, "linkTarget": ""})
		}
	}
	return nil, fmt.Errorf("%s: %w", name, ErrNotFound)
}

// Get is part of Streams.
func (m *Memory) Get(ctx context.Context, id, name string) (io.ReadCloser, []byte, error) {
	stat, err := m.Stat(ctx, id, name)
	if err != nil {
		return nil, nil, err
	}
	b, err := m.find(id)
	defer m.mu.Unlock()
	if err != nil {
		return nil, nil, err
	}
	name = path.Clean("/" + name)
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for f, text := range b.files {
		if rest, below := strings.CutPrefix(f, strings.TrimSuffix(name, "/")); below && (rest == "" || rest[0] == '/') {
			w.WriteHeader(&tar.Header{Name: path.Base(name) + rest, Mode: 0o644, Size: int64(len(text)), ModTime: b.spec.Created})
			w.Write(text)
		}
	}
	w.Close() // neither can fail: it is written into memory
	return io.NopCloser(&out), stat, nil
}

// Put is part of Streams.
func (m *Memory) Put(_ context.Context, id, dir string, in io.Reader) error {
	files := map[string][]byte{}
	total := 0
	for r := tar.NewReader(in); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("the archive cannot be read: %w", err)
		}
		text, err := io.ReadAll(io.LimitReader(r, maxFiles+1))
		if err != nil {
			return fmt.Errorf("the archive cannot be read: %w", err)
		}
		if total += len(text); total > maxFiles {
			return fmt.Errorf("%w: a simulated container holds %d bytes of files", ErrCapacity, maxFiles)
		}
		if h.Typeflag == tar.TypeReg {
			files[path.Join("/", dir, path.Clean("/"+h.Name))] = text
		}
	}
	return m.keep(id, files, total)
}

func (m *Memory) keep(id string, files map[string][]byte, total int) error {
	b, err := m.find(id)
	defer m.mu.Unlock()
	if err != nil {
		return err
	}
	if b.bytes += total; b.bytes > maxFiles {
		b.bytes -= total
		return fmt.Errorf("%w: a simulated container holds %d bytes of files", ErrCapacity, maxFiles)
	}
	if b.files == nil {
		b.files = map[string][]byte{}
	}
	for name, text := range files {
		b.files[name] = text
	}
	return nil
}
