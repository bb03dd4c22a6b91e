package endpoint

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/mesopool/mesopool/endpoint/backend"
)

// flow copies a stream to the client, each piece at once.
func (c *call) flow(in io.ReadCloser) error {
	defer in.Close()
	defer context.AfterFunc(c.r.Context(), func() { in.Close() })()
	out := http.NewResponseController(c.w)
	buf := make([]byte, 32<<10)
	for {
		n, err := in.Read(buf)
		if n > 0 {
			if _, err := c.w.Write(buf[:n]); err != nil {
				return nil
			}
			out.Flush()
		}
		if err != nil {
			return nil // errors after the header are lost, as on Triton
		}
	}
}

// containerLogs answers with a raw stream that ends with its connection. tail
// must be "all" or a number: an empty one, which Docker's Go client sends, is 0
// and yields nothing. stdout, stderr, since and until have no effect (sdc-docker:
// lib/endpoints/containers.js; sdc-cn-agent: lib/docker-stdio.js).
func (c *call) containerLogs() error {
	q := c.r.URL.Query()
	o := backend.LogOptions{Follow: truth(q.Get("follow")), Timestamps: truth(q.Get("timestamps")), Tail: -1}
	if q.Has("tail") && q.Get("tail") != "all" {
		n, _ := strconv.Atoi(q.Get("tail"))
		o.Tail = max(n, 0)
	}
	for _, name := range []string{"since", "until"} {
		if err := c.strictQuery(name); err != nil && q.Get(name) != "0" {
			return err
		}
	}
	got, err := c.settled(c.args[0])
	if err != nil {
		return err
	}
	in, err := c.s.cloud.backend.Logs(c.r.Context(), got.ID, o)
	if err != nil {
		return failure("reading the logs of", err)
	}
	c.w.Header().Set("Content-Type", "application/octet-stream")
	c.w.Header().Set("Transfer-Encoding", "identity") // no chunks: the connection's end is the end
	c.w.WriteHeader(http.StatusOK)
	http.NewResponseController(c.w).Flush()
	return c.flow(in)
}

func (c *call) containerStats() error {
	got, err := c.settled(c.args[0])
	if err != nil {
		return err
	}
	q := c.r.URL.Query()
	kind := backend.StatsStream
	switch v := q.Get("stream"); {
	case v != "" && !truth(v) && truth(q.Get("one-shot")):
		kind = backend.StatsAtOnce
	case v != "" && !truth(v):
		kind = backend.StatsOnce
	}
	in, err := c.s.cloud.backend.Stats(c.r.Context(), got.ID, kind)
	if err != nil {
		return failure("reading the statistics of", err)
	}
	c.w.Header().Set("Content-Type", "application/json")
	return c.flow(in)
}

// hijacked takes the connection over and answers as Docker does.
func (c *call) hijacked(do func(ctx context.Context, client backend.Conn) error) error {
	conn, buf, err := http.NewResponseController(c.w).Hijack()
	if err != nil {
		return err
	}
	defer conn.Close()
	head := "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"
	if c.r.Header.Get("Upgrade") != "" {
		head = "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
	}
	conn.SetDeadline(time.Time{})
	if _, err := io.WriteString(conn, head); err != nil {
		return nil
	}
	client := &clientConn{Reader: buf.Reader, Writer: conn, Closer: conn, conn: conn}
	if err := do(c.r.Context(), client); err != nil {
		c.s.cloud.cfg.Log.Debug("a stream ended", "request", c.id, "error", err)
	}
	return nil
}

// clientConn is a hijacked connection.
type clientConn struct {
	io.Reader
	io.Writer
	io.Closer
	conn any
}

// CloseWrite ends the client's input and keeps its output.
func (c *clientConn) CloseWrite() error {
	if half, ok := c.conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

// join moves bytes both ways until the backend's side ends, or the client is
// gone. A client that only ended its input still gets what comes.
func join(client, inner backend.Conn) {
	defer inner.Close()
	go func() {
		if _, err := io.Copy(inner, client); err != nil {
			inner.Close() // the client is gone, not only its input
			return
		}
		inner.CloseWrite()
	}()
	io.Copy(client, inner)
}

// containerAttach waits for a container that does not run yet (sdc-cn-agent:
// docker_exec.js), and then tells what it missed.
func (c *call) containerAttach() error {
	got, err := c.settled(c.args[0])
	if err != nil {
		return err
	}
	q := c.r.URL.Query()
	o := backend.AttachOptions{
		Stdin: truth(q.Get("stdin")), Stdout: truth(q.Get("stdout")), Stderr: truth(q.Get("stderr")),
		Logs: truth(q.Get("logs")), Stream: truth(q.Get("stream")),
	}
	return c.hijacked(func(ctx context.Context, client backend.Conn) error {
		if got.Phase != backend.Running {
			o.Logs = true
			if !c.awaitStart(ctx, got) {
				return nil
			}
		}
		inner, err := c.s.cloud.backend.Attach(ctx, got.ID, o)
		if err != nil {
			return err
		}
		join(client, inner)
		return nil
	})
}

// awaitStart waits until a container was started since.
func (c *call) awaitStart(ctx context.Context, since *Container) bool {
	ctx, cancel := context.WithTimeout(ctx, c.s.opt.AttachWait)
	defer cancel()
	for {
		got, changed := c.s.cloud.tenantOf(c.acct.Key()).watch(since.ID)
		switch {
		case got == nil:
			return false
		case got.Phase == backend.Running || !got.Started.Equal(since.Started):
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

func (c *call) size() (height, width uint, err error) {
	q := c.r.URL.Query()
	h, err1 := strconv.ParseUint(q.Get("h"), 10, 16)
	w, err2 := strconv.ParseUint(q.Get("w"), 10, 16)
	if err1 != nil || err2 != nil {
		return 0, 0, validation(`"h" and "w" must be numbers`)
	}
	return uint(h), uint(w), nil
}

func (c *call) containerResize() error {
	h, w, err := c.size()
	if err != nil {
		return err
	}
	got, err := c.settled(c.args[0])
	if err != nil {
		return err
	}
	if err := c.s.cloud.backend.Resize(c.r.Context(), got.ID, h, w); err != nil {
		return failure("resizing", err)
	}
	return nil
}

// execution is a prepared command. It is kept in memory, and the inspection
// that follows its end consumes it.
type execution struct {
	backend.Exec
	owner     string // account key
	container string
	o         backend.ExecOptions
	mu        sync.Mutex
	started   bool
	detached  bool
}

// maxExecs bounds the commands that are kept of one account; its oldest goes.
const maxExecs = 1000

func (s *Server) keepExec(e *execution) string {
	id := newID()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.execs[id] = e
	kept := append(s.kept[e.owner], id)
	for len(kept) > maxExecs {
		delete(s.execs, kept[0])
		kept = kept[1:]
	}
	s.kept[e.owner] = kept
	return id
}

// exec finds a command of the account's; another's is as unknown as none.
func (c *call) exec() (*execution, error) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if e := c.s.execs[c.args[0]]; e != nil && e.owner == c.acct.Key() {
		return e, nil
	}
	return nil, notFound("No such exec instance: %s", c.args[0])
}

func (c *call) execCreate() error {
	body, err := c.body()
	if err != nil {
		return err
	}
	f := fields{}
	if json.Unmarshal(body, &f) != nil {
		return &Error{400, "InvalidContent", "Invalid JSON: the body must be an object"}
	}
	e := &execution{owner: c.acct.Key()}
	err = first(
		f.texts("Cmd", &e.o.Cmd), f.flag("Tty", &e.o.TTY), f.text("User", &e.o.User), f.flag("AttachStdin", &e.o.Stdin),
		f.flag("AttachStdout", &e.o.Stdout), f.flag("AttachStderr", &e.o.Stderr),
	)
	if err != nil {
		return err
	}
	if len(e.o.Cmd) == 0 {
		return validation(`"Cmd" must be an array of strings`)
	}
	if ignored := notHonoured("", f, []string{"Privileged", "Env", "WorkingDir", "ConsoleSize"}); c.s.cloud.cfg.Strict && len(ignored) > 0 {
		return &Error{422, "Strict", "Triton ignores " + ignored[0] + " of a command; leave it out"}
	}
	got, err := c.running(c.args[0], func(got *Container) error {
		return &Error{409, "", "Container " + got.ID + " is not running"}
	})
	if err != nil {
		return err
	}
	e.container = got.ID
	if e.Exec, err = c.s.cloud.backend.Exec(c.r.Context(), got.ID, e.o); err != nil {
		return failure("running a command in", err)
	}
	return c.give(map[string]string{"Id": c.s.keepExec(e)})
}

func (c *call) execStart() error {
	body, err := c.body()
	if err != nil {
		return err
	}
	f, detach := fields{}, false
	if len(body) > 0 && json.Unmarshal(body, &f) != nil {
		return &Error{400, "InvalidContent", "Invalid JSON: the body must be an object"}
	}
	if err := f.flag("Detach", &detach); err != nil {
		return err
	}
	e, err := c.exec()
	if err != nil {
		return err
	}
	e.mu.Lock()
	already := e.started
	e.started, e.detached = true, detach
	e.mu.Unlock()
	if already {
		return &Error{409, "", "exec " + c.args[0] + " has been started already"}
	}
	if detach {
		_, err := e.Start(c.r.Context(), true)
		return err
	}
	return c.hijacked(func(ctx context.Context, client backend.Conn) error {
		inner, err := e.Start(ctx, false)
		if err != nil {
			return err
		}
		join(client, inner)
		return nil
	})
}

func (c *call) execResize() error {
	h, w, err := c.size()
	if err != nil {
		return err
	}
	e, err := c.exec()
	if err != nil {
		return err
	}
	return e.Resize(c.r.Context(), h, w)
}

// execInspect consumes what it tells, and Running is whether the command was
// detached (sdc-docker: lib/endpoints/exec.js).
func (c *call) execInspect() error {
	e, err := c.exec()
	if err != nil {
		return err
	}
	c.s.mu.Lock()
	delete(c.s.execs, c.args[0])
	c.s.mu.Unlock()
	r, err := e.Result(c.r.Context())
	if err != nil {
		return failure("asking for a command of", err)
	}
	e.mu.Lock()
	running := e.detached
	e.mu.Unlock()
	return c.give(map[string]any{
		"ID": c.args[0], "Running": running, "ExitCode": r.ExitCode, "OpenStdin": e.o.Stdin, "OpenStdout": e.o.Stdout, "OpenStderr": e.o.Stderr,
		"ContainerID": e.container, "ProcessConfig": map[string]any{
			"tty": e.o.TTY, "entrypoint": e.o.Cmd[0], "arguments": append([]string{}, e.o.Cmd[1:]...), "privileged": false, "user": e.o.User,
		},
	})
}

const pathStat = "X-Docker-Container-Path-Stat"

func (c *call) archiveStat() error {
	got, path, err := c.atPath()
	if err != nil {
		return err
	}
	stat, err := c.s.cloud.backend.Stat(c.r.Context(), got.ID, path)
	if err != nil {
		return pathFailure(path, err)
	}
	c.w.Header().Set(pathStat, base64.StdEncoding.EncodeToString(stat))
	c.w.WriteHeader(http.StatusOK)
	return nil
}

func (c *call) archiveGet() error {
	got, path, err := c.atPath()
	if err != nil {
		return err
	}
	return c.archive(got, path)
}

func (c *call) archive(got *Container, path string) error {
	in, stat, err := c.s.cloud.backend.Get(c.r.Context(), got.ID, path)
	if err != nil {
		return pathFailure(path, err)
	}
	c.w.Header().Set(pathStat, base64.StdEncoding.EncodeToString(stat))
	c.w.Header().Set("Content-Type", "application/x-tar")
	return c.flow(in)
}

func (c *call) archivePut() error {
	got, path, err := c.atPath()
	if err != nil {
		return err
	}
	if err := c.s.cloud.backend.Put(c.r.Context(), got.ID, path, c.r.Body); err != nil {
		return pathFailure(path, err)
	}
	c.w.WriteHeader(http.StatusOK)
	return nil
}

// containerCopy is the older way to read files.
func (c *call) containerCopy() error {
	body, err := c.body()
	if err != nil {
		return err
	}
	f, path := fields{}, ""
	if json.Unmarshal(body, &f) != nil || f.text("Resource", &path) != nil || path == "" {
		return validation(`"Resource" must be a string`)
	}
	got, err := c.settled(c.args[0])
	if err != nil {
		return err
	}
	return c.archive(got, path)
}
