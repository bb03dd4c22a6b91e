package backend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
)

// engineError is an engine's error in the endpoint's words.
func engineError(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errdefs.IsNotFound(err):
		return fmt.Errorf("%s: %w", what, ErrNotFound)
	}
	return errors.New(words(err))
}

// Logs is part of Streams.
func (e *Engine) Logs(ctx context.Context, id string, o LogOptions) (io.ReadCloser, error) {
	b, err := e.find(id)
	if err != nil {
		return nil, err
	}
	tail := "all"
	if o.Tail >= 0 {
		tail = strconv.Itoa(o.Tail)
	}
	r, err := e.cli.ContainerLogs(ctx, b.engine, container.LogsOptions{
		ShowStdout: true, ShowStderr: true, Follow: o.Follow, Timestamps: o.Timestamps, Tail: tail,
	})
	return r, engineError("logs", err)
}

// hijack is an engine's two-way stream.
type hijack struct{ types.HijackedResponse }

func (h *hijack) Read(p []byte) (int, error)  { return h.Reader.Read(p) }
func (h *hijack) Write(p []byte) (int, error) { return h.Conn.Write(p) }
func (h *hijack) Close() error                { return h.Conn.Close() }

// Attach is part of Streams.
func (e *Engine) Attach(ctx context.Context, id string, o AttachOptions) (Conn, error) {
	b, err := e.find(id)
	if err != nil {
		return nil, err
	}
	r, err := e.cli.ContainerAttach(context.WithoutCancel(ctx), b.engine, container.AttachOptions{
		Stream: o.Stream, Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, Logs: o.Logs,
	})
	if err != nil {
		return nil, engineError("attach", err)
	}
	return &hijack{r}, nil
}

// Resize is part of Streams.
func (e *Engine) Resize(ctx context.Context, id string, height, width uint) error {
	b, err := e.find(id)
	if err != nil {
		return err
	}
	return engineError("resize", e.cli.ContainerResize(ctx, b.engine, container.ResizeOptions{Height: height, Width: width}))
}

// Exec is part of Streams. A command has no more privileges than its container.
func (e *Engine) Exec(ctx context.Context, id string, o ExecOptions) (Exec, error) {
	b, err := e.find(id)
	if err != nil {
		return nil, err
	}
	made, err := e.cli.ContainerExecCreate(ctx, b.engine, container.ExecOptions{
		Cmd: o.Cmd, Tty: o.TTY, User: o.User, AttachStdin: o.Stdin, AttachStdout: o.Stdout, AttachStderr: o.Stderr,
	})
	if errdefs.IsConflict(err) {
		return nil, fmt.Errorf("container %.12s: %w", id, ErrNotRunning)
	}
	if err != nil {
		return nil, engineError("exec", err)
	}
	return &engineExec{e, made.ID, o.TTY}, nil
}

type engineExec struct {
	e   *Engine
	id  string
	tty bool
}

func (x *engineExec) Start(ctx context.Context, detach bool) (Conn, error) {
	if detach {
		return nil, engineError("exec", x.e.cli.ContainerExecStart(ctx, x.id, container.ExecStartOptions{Detach: true, Tty: x.tty}))
	}
	r, err := x.e.cli.ContainerExecAttach(context.WithoutCancel(ctx), x.id, container.ExecAttachOptions{Tty: x.tty})
	if err != nil {
		return nil, engineError("exec", err)
	}
	return &hijack{r}, nil
}

func (x *engineExec) Resize(ctx context.Context, height, width uint) error {
	return engineError("exec", x.e.cli.ContainerExecResize(ctx, x.id, container.ResizeOptions{Height: height, Width: width}))
}

// Result waits a little: an engine learns of an end after the stream's.
func (x *engineExec) Result(ctx context.Context) (ExecResult, error) {
	for tries := 0; ; tries++ {
		in, err := x.e.cli.ContainerExecInspect(ctx, x.id)
		if err != nil || !in.Running || tries == 50 {
			return ExecResult{in.Running, in.ExitCode, in.Pid}, engineError("exec", err)
		}
		if err := wait(ctx, 10*time.Millisecond); err != nil {
			return ExecResult{}, err
		}
	}
}

// Top is part of Streams.
func (e *Engine) Top(ctx context.Context, id string) ([]string, [][]string, error) {
	b, err := e.find(id)
	if err != nil {
		return nil, nil, err
	}
	top, err := e.cli.ContainerTop(ctx, b.engine, nil)
	return top.Titles, top.Processes, engineError("top", err)
}

// Stats is part of Streams.
func (e *Engine) Stats(ctx context.Context, id string, kind StatsKind) (io.ReadCloser, error) {
	b, err := e.find(id)
	if err != nil {
		return nil, err
	}
	if kind == StatsAtOnce {
		r, err := e.cli.ContainerStatsOneShot(ctx, b.engine)
		return r.Body, engineError("stats", err)
	}
	r, err := e.cli.ContainerStats(ctx, b.engine, kind == StatsStream)
	return r.Body, engineError("stats", err)
}

// Stat is part of Streams.
func (e *Engine) Stat(ctx context.Context, id, path string) ([]byte, error) {
	b, err := e.find(id)
	if err != nil {
		return nil, err
	}
	stat, err := e.cli.ContainerStatPath(ctx, b.engine, path)
	if err != nil {
		return nil, engineError(path, err)
	}
	return json.Marshal(stat)
}

// Get is part of Streams.
func (e *Engine) Get(ctx context.Context, id, path string) (io.ReadCloser, []byte, error) {
	b, err := e.find(id)
	if err != nil {
		return nil, nil, err
	}
	r, stat, err := e.cli.CopyFromContainer(ctx, b.engine, path)
	if err != nil {
		return nil, nil, engineError(path, err)
	}
	text, err := json.Marshal(stat)
	return r, text, err
}

// Put is part of Streams.
func (e *Engine) Put(ctx context.Context, id, path string, tar io.Reader) error {
	b, err := e.find(id)
	if err != nil {
		return err
	}
	return engineError(path, e.cli.CopyToContainer(ctx, b.engine, path, tar, container.CopyToContainerOptions{}))
}

// Pull is part of Images. The engine asks the registry with the caller's
// credentials even where it has the image already.
func (e *Engine) Pull(ctx context.Context, ref, auth string, progress io.Writer) (Image, error) {
	r, err := e.cli.ImagePull(ctx, ref, image.PullOptions{RegistryAuth: auth})
	if err != nil {
		return Image{}, engineError("image "+ref, err)
	}
	defer r.Close()
	for d := json.NewDecoder(r); ; {
		var line json.RawMessage
		if err := d.Decode(&line); errors.Is(err, io.EOF) {
			return e.Local(ctx, ref)
		} else if err != nil {
			return Image{}, err
		}
		var failed struct{ Error string }
		if json.Unmarshal(line, &failed) == nil && failed.Error != "" {
			return Image{}, errors.New(failed.Error)
		}
		if _, err := progress.Write(append(line, '\n')); err != nil {
			return Image{}, err
		}
	}
}

// Local is part of Images.
func (e *Engine) Local(ctx context.Context, ref string) (Image, error) {
	in, err := e.cli.ImageInspect(ctx, ref)
	if err != nil {
		return Image{}, engineError("image "+ref, err)
	}
	i := Image{ID: in.ID, Names: []string{ref}, Created: engineTime(in.Created), Size: in.Size}
	if c := in.Config; c != nil {
		i.Cmd, i.Entrypoint, i.Env, i.Labels, i.User, i.WorkDir = c.Cmd, c.Entrypoint, c.Env, c.Labels, c.User, c.WorkingDir
		for p := range c.ExposedPorts {
			i.Exposed = append(i.Exposed, p)
		}
		for v := range c.Volumes {
			i.Volumes = append(i.Volumes, v)
		}
		slices.Sort(i.Exposed)
		slices.Sort(i.Volumes)
	}
	return i, nil
}

// AllLocal is part of Images.
func (e *Engine) AllLocal(ctx context.Context) ([]string, error) {
	list, err := e.cli.ImageList(ctx, image.ListOptions{})
	var all []string
	for _, i := range list {
		for _, name := range i.RepoTags {
			if name != "<none>:<none>" {
				all = append(all, name)
			}
		}
	}
	slices.Sort(all)
	return all, err
}
