package docker

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"

	"github.com/mesopool/mesopool/provider"
)

// Logs is part of provider.Logger. With a terminal, all is stdout.
func (e *Engine) Logs(ctx context.Context, id string, o provider.LogOptions) (provider.LogReader, error) {
	r, err := e.logs(ctx, id, o)
	if err != nil {
		return nil, e.fail("logs", id, notFound(err))
	}
	return r, nil
}

func (e *Engine) logs(ctx context.Context, id string, o provider.LogOptions) (provider.LogReader, error) {
	if err := e.ready(ctx); err != nil {
		return nil, err
	}
	in, err := e.cli.ContainerInspect(ctx, id)
	if err != nil {
		return nil, err
	}
	tail := "all"
	if o.Tail > 0 {
		tail = strconv.Itoa(o.Tail)
	}
	body, err := e.cli.ContainerLogs(ctx, id, container.LogsOptions{
		ShowStdout: o.Stdout, ShowStderr: o.Stderr, Follow: o.Follow, Tail: tail,
	})
	if err != nil {
		return nil, err
	}
	return &logReader{body: body, r: bufio.NewReader(body), tty: in.Config != nil && in.Config.Tty}, nil
}

// logReader takes the engine's frames apart: a byte that names the stream,
// three that mean nothing, the length in four, and the data.
type logReader struct {
	body   io.Closer
	r      *bufio.Reader
	tty    bool // no frames
	buf    [32 << 10]byte
	left   uint32 // of the frame
	stderr bool
}

// Next is part of provider.LogReader.
func (l *logReader) Next() (provider.LogPiece, error) {
	room := len(l.buf)
	if !l.tty {
		for l.left == 0 {
			if err := l.header(); err != nil {
				return provider.LogPiece{}, err
			}
		}
		room = min(room, int(l.left))
	}
	n, err := l.r.Read(l.buf[:room])
	if n == 0 && err != nil {
		return provider.LogPiece{}, err
	}
	l.left -= min(l.left, uint32(n))
	return provider.LogPiece{Stderr: l.stderr, Data: l.buf[:n]}, nil
}

func (l *logReader) header() error {
	var h [8]byte
	if _, err := io.ReadFull(l.r, h[:]); err != nil {
		return err
	}
	kind := stdcopy.StdType(h[0])
	if kind > stdcopy.Systemerr || h[1]|h[2]|h[3] != 0 {
		return fmt.Errorf("docker: logs: %x is no header of a frame", h)
	}
	l.stderr = kind != stdcopy.Stdout && kind != stdcopy.Stdin
	l.left = binary.BigEndian.Uint32(h[4:])
	return nil
}

// Close is part of provider.LogReader.
func (l *logReader) Close() error { return l.body.Close() }

// Exec is part of provider.Execer. When ctx ends, Exec returns; engines offer
// no way to end the command, which may run on. A Stdin that blocks is left to
// its caller to close.
func (e *Engine) Exec(ctx context.Context, id string, o provider.ExecOptions) (int, error) {
	code, err := e.exec(ctx, id, o)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return code, e.fail("exec", id, notFound(err))
}

func (e *Engine) exec(ctx context.Context, id string, o provider.ExecOptions) (int, error) {
	if err := e.ready(ctx); err != nil {
		return 0, err
	}
	made, err := e.cli.ContainerExecCreate(ctx, id, container.ExecOptions{
		Cmd: o.Argv, Tty: o.TTY, User: o.User, Env: o.Env,
		AttachStdin: o.Stdin != nil, AttachStdout: true, AttachStderr: true,
	})
	if err != nil {
		return 0, err
	}
	conn, err := e.cli.ContainerExecAttach(ctx, made.ID, container.ExecAttachOptions{Tty: o.TTY})
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, conn.Close)()
	ctx, ended := context.WithCancel(ctx)
	defer ended()
	go e.resize(ctx, made.ID, o)
	if err := attach(conn, o); err != nil {
		return 0, err
	}
	return e.exitCode(ctx, made.ID)
}

// attach moves the streams until the command closes its own.
func attach(conn types.HijackedResponse, o provider.ExecOptions) error {
	if o.Stdin != nil {
		go func() {
			_, err := io.Copy(conn.Conn, o.Stdin)
			if closed := conn.CloseWrite(); err == nil && closed != nil {
				conn.Close() // the command would wait for its input's end for ever
			}
		}()
	}
	out, errs := cmp.Or[io.Writer](o.Stdout, io.Discard), cmp.Or[io.Writer](o.Stderr, io.Discard)
	var err error
	if o.TTY {
		_, err = io.Copy(out, conn.Reader)
	} else {
		_, err = stdcopy.StdCopy(out, errs, conn.Reader)
	}
	return err
}

// resize follows the caller's terminal. A size that cannot be set is no reason
// to end the command.
func (e *Engine) resize(ctx context.Context, exec string, o provider.ExecOptions) {
	if !o.TTY || o.Resize == nil {
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case size, ok := <-o.Resize:
			if !ok {
				return
			}
			err := e.cli.ContainerExecResize(ctx, exec, container.ResizeOptions{Height: size[0], Width: size[1]})
			if err != nil {
				e.o.Log.Debug("a terminal could not be resized", "why", err)
			}
		}
	}
}

// exitCode waits for the end, which follows that of the output closely.
func (e *Engine) exitCode(ctx context.Context, exec string) (int, error) {
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		in, err := e.cli.ContainerExecInspect(ctx, exec)
		if err != nil || !in.Running {
			return in.ExitCode, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}
