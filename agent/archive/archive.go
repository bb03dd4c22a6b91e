// Package archive keeps what containers wrote, in a folder, for a while after
// their removal. It is bounded in time and space, and knows nothing of tasks
// but their names.
//
//	a := archive.Folder{Dir: dir, Keep: 24 * time.Hour}
//	err := a.Save(ctx, key, open)
//	r, err := a.Open(key, stderr)
package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

// Folder is an archive. Its methods may be called from any goroutine.
type Folder struct {
	Dir     string
	Keep    time.Duration // after it was saved
	MaxEach int           // bytes that are kept of each stream, its end; 0: 1 MiB
	MaxAll  int64         // bytes that all may take, beyond which the oldest go; 0: 1 GiB

	mu     sync.Mutex
	pruned time.Time
}

// between two looks for what is too old
const pruneEvery = time.Minute

// folder is where a task's logs are. The prefixes keep names such as ".." from
// meaning anything.
func (f *Folder) folder(k task.Key) string {
	return filepath.Join(f.Dir, "f-"+url.PathEscape(k.Framework), "t-"+url.PathEscape(k.ID))
}

func name(stderr bool) string {
	if stderr {
		return "stderr"
	}
	return "stdout"
}

// tail keeps the end of what is written.
type tail struct {
	most int
	data []byte
}

func (t *tail) add(p []byte) {
	t.data = append(t.data, p...)
	if len(t.data) > 2*t.most {
		t.data = slices.Clone(t.data[len(t.data)-t.most:])
	}
}

func (t *tail) bytes() []byte { return t.data[max(0, len(t.data)-t.most):] }

// Save is part of agent.Archive.
func (f *Folder) Save(_ context.Context, key task.Key, open func() (provider.LogReader, error)) error {
	r, err := open()
	if err != nil {
		return err
	}
	defer r.Close()
	most := cmp.Or(f.MaxEach, 1<<20)
	out := map[bool]*tail{false: {most: most}, true: {most: most}}
	for {
		piece, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		out[piece.Stderr].add(piece.Data)
	}
	dir := f.folder(key)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	for _, stderr := range []bool{false, true} {
		if err := replace(filepath.Join(dir, name(stderr)), out[stderr].bytes()); err != nil {
			return fmt.Errorf("archive: %w", err)
		}
	}
	f.prune(time.Now())
	return nil
}

// replace writes a file whole or not at all.
func replace(path string, data []byte) error {
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// Open reads what was saved of a task; fs.ErrNotExist: nothing was.
func (f *Folder) Open(key task.Key, stderr bool) (io.ReadCloser, error) {
	return os.Open(filepath.Join(f.folder(key), name(stderr)))
}

type saved struct {
	path string
	at   time.Time
	size int64
}

// prune removes what is too old, and the oldest of what is too much.
func (f *Folder) prune(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now.Sub(f.pruned) < pruneEvery {
		return
	}
	f.pruned = now
	var all []saved
	var sum int64
	filepath.WalkDir(f.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			all = append(all, saved{path, info.ModTime(), info.Size()})
			sum += info.Size()
		}
		return nil
	})
	slices.SortFunc(all, func(a, b saved) int { return a.at.Compare(b.at) })
	for _, x := range all {
		if now.Sub(x.at) < f.Keep && sum <= cmp.Or(f.MaxAll, 1<<30) {
			return
		}
		os.Remove(x.path)
		os.Remove(filepath.Dir(x.path)) // once it is empty, and so its framework's
		os.Remove(filepath.Dir(filepath.Dir(x.path)))
		sum -= x.size
	}
}
