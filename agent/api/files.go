package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mesopool/mesopool/agent"
	"github.com/mesopool/mesopool/provider"
)

// The virtual files of the agent. There is no sandbox on any disk: stdout and
// stderr come from the backend, and when the container is gone from what was
// saved of it.
//
//	/slave/log                                          what the agent itself wrote
//	<root>/slaves/<agent>/frameworks/<framework>/executors/<task>/runs/<container>/stdout
//	<root>/slaves/<agent>/frameworks/<framework>/executors/<task>/runs/latest/stderr
const (
	filesRoot = "/var/lib/mesos"
	agentLog  = "/slave/log"
)

const (
	maxRead     = 16 * 4096        // of one /files/read (files.cpp, _read)
	maxPath     = 4096             // longer ones are nobody's
	readTime    = 30 * time.Second // for one look into a log, however long that is
	readersMost = 16               // logs that are read at a time
)

// errNoFile says that a path names nothing.
var errNoFile = errors.New("no such file or directory")

// directory is the virtual sandbox of a task.
func (a *api) directory(t *agent.Task) string {
	return path.Join(filesRoot, "slaves", a.cfg.ID(), "frameworks", t.Spec.Key.Framework, "executors", t.Spec.Key.ID, "runs", cmp.Or(t.Container.ID, t.Name))
}

// file is something to read.
type file struct {
	name   string // stdout, stderr or log
	task   *agent.Task
	stderr bool
	log    *LogBuffer
}

// lookup finds a file, or with only a directory named its two files.
func (a *api) lookup(ctx context.Context, name string) (files []file, dir bool, err error) {
	if name == agentLog && a.cfg.Log != nil {
		return []file{{name: "log", log: a.cfg.Log}}, false, nil
	}
	parts, ok := splitPath(name)
	if !ok || len(parts) < 8 || len(parts) > 9 || parts[0] != "slaves" || parts[2] != "frameworks" || parts[4] != "executors" || parts[6] != "runs" {
		return nil, false, errNoFile
	}
	if parts[1] != a.cfg.ID() {
		return nil, false, errNoFile
	}
	t, err := a.taskOf(ctx, parts[3], parts[5], parts[7])
	if err != nil {
		return nil, false, err
	}
	both := []file{{name: "stderr", task: t, stderr: true}, {name: "stdout", task: t}}
	if len(parts) == 8 {
		return both, true, nil
	}
	for _, f := range both {
		if f.name == parts[8] {
			return []file{f}, false, nil
		}
	}
	return nil, false, errNoFile
}

// splitPath takes a path below the root apart. Anything but a clean absolute
// path is refused, whatever it might lead to.
func splitPath(name string) ([]string, bool) {
	rest, ok := strings.CutPrefix(name, filesRoot+"/")
	if !ok || len(name) > maxPath || strings.ContainsRune(name, 0) {
		return nil, false
	}
	parts := strings.Split(strings.TrimSuffix(rest, "/"), "/")
	if slices.ContainsFunc(parts, func(p string) bool { return p == "" || p == "." || p == ".." }) {
		return nil, false
	}
	return parts, true
}

// taskOf finds a task that runs, or has run, here; its newest run is "latest".
func (a *api) taskOf(ctx context.Context, framework, id, run string) (*agent.Task, error) {
	roster, err := a.cfg.Runner.Roster(ctx)
	if err != nil {
		return nil, err
	}
	fits := func(t *agent.Task) bool {
		return t.Spec.Key.Framework == framework && t.Spec.Key.ID == id && (run == "latest" || run == t.Container.ID || run == t.Name)
	}
	for i := range roster.Tasks {
		if fits(&roster.Tasks[i]) {
			return &roster.Tasks[i], nil
		}
	}
	for i := len(roster.Completed) - 1; i >= 0; i-- {
		if fits(&roster.Completed[i].Task) {
			return &roster.Completed[i].Task, nil
		}
	}
	return nil, errNoFile
}

// stream writes a file from an offset on, at most so many bytes, and returns the
// file's whole size, or as much of it as had to be read: with a negative length
// all of it.
func (a *api) stream(ctx context.Context, f file, offset, length int64, w io.Writer) (size int64, err error) {
	if f.log != nil {
		return f.log.copy(offset, length, w)
	}
	select {
	case a.readers <- struct{}{}:
		defer func() { <-a.readers }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	next, end, err := a.pieces(ctx, f)
	if err != nil {
		return 0, err
	}
	defer end()
	for length < 0 || size < offset+length {
		piece, err := next()
		if errors.Is(err, io.EOF) {
			return size, nil
		}
		if err != nil {
			return size, err
		}
		if err := part(w, piece, size, offset, length); err != nil {
			return size, err
		}
		size += int64(len(piece))
	}
	return size, nil
}

// part writes what of a piece lies within the range.
func part(w io.Writer, piece []byte, at, offset, length int64) error {
	from := min(max(offset-at, 0), int64(len(piece)))
	to := int64(len(piece))
	if length >= 0 {
		to = min(max(offset+length-at, from), to)
	}
	_, err := w.Write(piece[from:to])
	return err
}

// pieces reads a task's output from its beginning: from the backend, or from
// what was saved.
func (a *api) pieces(ctx context.Context, f file) (next func() ([]byte, error), end func(), err error) {
	logger, ok := provider.As[provider.Logger](a.cfg.Provider)
	if ok && f.task.Container.ID != "" {
		r, err := logger.Logs(ctx, f.task.Container.ID, provider.LogOptions{Stdout: !f.stderr, Stderr: f.stderr})
		if err == nil {
			return func() ([]byte, error) { p, err := r.Next(); return p.Data, err }, func() { r.Close() }, nil
		}
		if !errors.Is(err, provider.ErrNotFound) {
			return nil, nil, err
		}
	}
	if a.cfg.Saved == nil {
		return func() ([]byte, error) { return nil, io.EOF }, func() {}, nil
	}
	r, err := a.cfg.Saved(f.task.Spec.Key, f.stderr)
	if err != nil {
		return nil, nil, errNoFile
	}
	buf := make([]byte, 32<<10)
	return func() ([]byte, error) { n, err := r.Read(buf); return buf[:n], err }, func() { r.Close() }, nil
}

// read is one page of a file and the file's size as far as it is known.
func (a *api) read(ctx context.Context, f file, offset, length int64) (data []byte, size int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	var b strings.Builder
	size, err = a.stream(ctx, f, offset, min(length, maxRead), &b)
	return []byte(b.String()), size, err
}

func (a *api) size(ctx context.Context, f file) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	return a.stream(ctx, f, 0, -1, io.Discard)
}

// filesRead is /files/read?path=&offset=&length=: {"offset", "data"}. Without an
// offset, or with -1, it tells the size.
func (a *api) filesRead(w http.ResponseWriter, r *http.Request) {
	f, ok := a.named(w, r)
	if !ok {
		return
	}
	offset, err1 := number(r, "offset", -1)
	length, err2 := number(r, "length", -1)
	if err := errors.Join(err1, err2); err != nil {
		http.Error(w, err.Error()+".\n", http.StatusBadRequest)
		return
	}
	if length == -1 {
		length = maxRead
	}
	var data []byte
	var err error
	if offset == -1 {
		offset, err = a.size(r.Context(), f)
	} else {
		data, _, err = a.read(r.Context(), f, offset, length)
	}
	if err != nil {
		fileError(w, err)
		return
	}
	a.answer(w, r, map[string]any{"offset": offset, "data": strings.ToValidUTF8(string(data), "\uFFFD")})
}

// number reads a query parameter that must be -1 or more.
func number(r *http.Request, name string, unset int64) (int64, error) {
	text := r.FormValue(name)
	if text == "" {
		return unset, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < -1 {
		return 0, fmt.Errorf("%s is %q; it must be a number of bytes, or -1", name, text)
	}
	return n, nil
}

// named finds the one file that a request names, or answers why not.
func (a *api) named(w http.ResponseWriter, r *http.Request) (file, bool) {
	name := r.FormValue("path")
	if name == "" {
		http.Error(w, "Expecting 'path=value' in query.\n", http.StatusBadRequest)
		return file{}, false
	}
	files, dir, err := a.lookup(r.Context(), name)
	if err != nil {
		fileError(w, err)
		return file{}, false
	}
	if dir {
		http.Error(w, "Cannot read a directory.\n", http.StatusBadRequest)
		return file{}, false
	}
	return files[0], true
}

func fileError(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, errNoFile):
		http.Error(w, "No such file or directory.\n", http.StatusNotFound)
	case errors.Is(err, context.DeadlineExceeded):
		http.Error(w, "The log is too long to be read to this place; read it from the backend itself.\n", http.StatusServiceUnavailable)
	default:
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	}
}

// fileInfo is what /files/browse says of a file.
type fileInfo struct {
	Path  string  `json:"path"`
	Nlink int     `json:"nlink"`
	Size  int64   `json:"size"`
	Mtime float64 `json:"mtime"`
	Mode  string  `json:"mode"`
	UID   string  `json:"uid"`
	GID   string  `json:"gid"`
}

func (a *api) browse(ctx context.Context, name string) ([]fileInfo, error) {
	files, dir, err := a.lookup(ctx, name)
	if err != nil || !dir {
		return nil, cmp.Or(err, errNoFile)
	}
	out := []fileInfo{}
	for _, f := range files {
		size, err := a.size(ctx, f)
		if err != nil && !errors.Is(err, errNoFile) {
			return nil, err
		}
		k := &f.task.Container
		changed := k.Ended
		if changed.IsZero() {
			changed = time.Now()
		}
		out = append(out, fileInfo{path.Join(name, f.name), 1, size, float64(changed.Unix()), "-rw-r--r--", "root", "root"})
	}
	return out, nil
}

func (a *api) filesBrowse(w http.ResponseWriter, r *http.Request) {
	name := r.FormValue("path")
	if name == "" {
		http.Error(w, "Expecting 'path=value' in query.\n", http.StatusBadRequest)
		return
	}
	list, err := a.browse(r.Context(), name)
	if err != nil {
		fileError(w, err)
		return
	}
	a.answer(w, r, list)
}

func (a *api) filesDownload(w http.ResponseWriter, r *http.Request) {
	f, ok := a.named(w, r)
	if !ok {
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", "attachment; filename="+f.name)
	if _, err := a.stream(r.Context(), f, 0, -1, w); err != nil {
		panic(http.ErrAbortHandler) // the client must not take half a file for a whole one
	}
}

// filesDebug lists what can be read.
func (a *api) filesDebug(w http.ResponseWriter, r *http.Request) {
	roster, ok := a.roster(w, r)
	if !ok {
		return
	}
	out := map[string]string{agentLog: "the agent's log"}
	for i := range roster.Tasks {
		out[a.directory(&roster.Tasks[i])] = roster.Tasks[i].Name
	}
	a.answer(w, r, out)
}

// LogBuffer keeps the end of what an agent logs, for /files/read?path=/slave/log.
// It is an io.Writer for a log handler; the zero value is empty.
type LogBuffer struct {
	mu    sync.Mutex
	start int64 // offset of the first byte that is kept
	data  []byte
}

const logMost = 4 << 20

// Write never fails.
func (b *LogBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.data = append(b.data, p...)
	if len(b.data) > logMost {
		cut := len(b.data) - logMost/2
		b.start += int64(cut)
		b.data = slices.Clone(b.data[cut:])
	}
	return len(p), nil
}

// copy is stream; what is no longer kept reads as newlines.
func (b *LogBuffer) copy(offset, length int64, w io.Writer) (int64, error) {
	b.mu.Lock()
	data, start := slices.Clone(b.data), b.start
	b.mu.Unlock()
	size := start + int64(len(data))
	if gap := start - offset; gap > 0 && length != 0 {
		n := min(gap, maxRead)
		if length >= 0 {
			n = min(n, length)
		}
		if _, err := w.Write(bytesOf('\n', n)); err != nil {
			return size, err
		}
		if length >= 0 {
			length -= n
		}
	}
	return size, part(w, data, start, max(offset, start), length)
}

func bytesOf(c byte, n int64) []byte { return []byte(strings.Repeat(string(c), int(n))) }

// encode is JSON; what cannot be written is null.
func encode(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		return []byte("null")
	}
	return text
}
