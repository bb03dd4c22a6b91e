package fetch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// cache keeps files by the hash of their URI, those used last. What was once
// fetched is not asked for again (docs/fetcher.md).
type cache struct {
	dir  string
	most int64

	mu      sync.Mutex
	entries map[string]*entry
	total   int64
	locks   map[string]*lock
}

type entry struct {
	size int64
	used time.Time
}

// lock lets one load a file at a time; it goes with the last who wants it.
type lock struct {
	turn chan struct{}
	want int
}

func openCache(dir string, most int64) (*cache, error) {
	c := &cache{dir: dir, most: most, entries: map[string]*entry{}, locks: map[string]*lock{}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	old, err := leftovers(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range old {
		if err := os.Remove(name); err != nil {
			return nil, err
		}
	}
	return c, c.read()
}

// read takes stock of what earlier processes kept.
func (c *cache) read() error {
	files, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		info, err := f.Info()
		if sum, bad := hex.DecodeString(f.Name()); bad != nil || len(sum) != sha256.Size || err != nil || !info.Mode().IsRegular() {
			continue // not ours
		}
		c.entries[f.Name()] = &entry{info.Size(), info.ModTime()}
		c.total += info.Size()
	}
	return c.shrink("")
}

// get opens the file of a URI; load brings it if it is not there.
func (c *cache) get(ctx context.Context, uri string, load func(context.Context, *os.File) error) (*os.File, error) {
	sum := sha256.Sum256([]byte(uri))
	key := hex.EncodeToString(sum[:])
	release, err := c.acquire(ctx, key)
	if err != nil {
		return nil, err
	}
	defer release()
	if file := c.open(key); file != nil {
		return file, nil
	}
	file, err := os.CreateTemp(c.dir, underWay+"*")
	if err != nil {
		return nil, err
	}
	if err = load(ctx, file); err == nil {
		err = c.keep(key, file)
	}
	if err != nil {
		file.Close()
		os.Remove(file.Name())
		return nil, err
	}
	return file, nil
}

func (c *cache) acquire(ctx context.Context, key string) (func(), error) {
	c.mu.Lock()
	l := c.locks[key]
	if l == nil {
		l = &lock{turn: make(chan struct{}, 1)}
		c.locks[key] = l
	}
	l.want++
	c.mu.Unlock()
	leave := func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if l.want--; l.want == 0 {
			delete(c.locks, key)
		}
	}
	select {
	case l.turn <- struct{}{}:
		return func() { <-l.turn; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}

// open returns a kept file, or nil. An open file outlives its removal.
func (c *cache) open(key string) *os.File {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[key]
	if e == nil {
		return nil
	}
	name := filepath.Join(c.dir, key)
	file, err := os.Open(name)
	if err != nil { // removed from outside: fetched again
		c.forget(key)
		return nil
	}
	e.used = time.Now()
	_ = os.Chtimes(name, e.used, e.used) // only the order of a later process's removals hangs on it
	return file
}

// keep gives a complete file its name, and makes room for it. One that is too
// large for the cache is used this once.
func (c *cache) keep(key string, file *os.File) error {
	size, err := file.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		return err
	}
	if size > c.most {
		return os.Remove(file.Name())
	}
	if err := file.Sync(); err != nil { // a name must not outlive its content
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := os.Rename(file.Name(), filepath.Join(c.dir, key)); err != nil {
		return err
	}
	c.entries[key] = &entry{size, time.Now()}
	c.total += size
	return c.shrink(key)
}

// shrink removes the files that were used longest ago, but not spare. The caller
// holds the lock.
func (c *cache) shrink(spare string) error {
	for c.total > c.most {
		oldest := ""
		for key, e := range c.entries {
			if key != spare && (oldest == "" || e.used.Before(c.entries[oldest].used)) {
				oldest = key
			}
		}
		if oldest == "" {
			return nil
		}
		if err := os.Remove(filepath.Join(c.dir, oldest)); err != nil && !os.IsNotExist(err) {
			return err
		}
		c.forget(oldest)
	}
	return nil
}

func (c *cache) forget(key string) {
	c.total -= c.entries[key].size
	delete(c.entries, key)
}
