package fetch

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

// Config is where a Fetcher keeps files and what it bounds.
type Config struct {
	Dir      string            // for the cache and for files under way; no other process's
	Cache    int64             // bytes of all files that are kept for later; 0: 2 GiB, as --fetcher_cache_size
	Download int64             // bytes of one URI as it comes; 0: 4 GiB
	Total    int64             // bytes of a task's files when they are unpacked; 0: 16 GiB
	Files    int               // number of a task's files; 0: 200 000
	Stall    time.Duration     // a server that sends nothing for so long is given up; 0: 1 minute, as --fetcher_stall_timeout
	Network  http.RoundTripper // nil: the network, through the proxy of the environment
}

func (c Config) withDefaults() Config {
	c.Cache, c.Download, c.Total = cmp.Or(c.Cache, 2<<30), cmp.Or(c.Download, 4<<30), cmp.Or(c.Total, 16<<30)
	c.Files, c.Stall = cmp.Or(c.Files, 200_000), cmp.Or(c.Stall, time.Minute)
	if c.Network == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.DisableCompression, t.ResponseHeaderTimeout = true, c.Stall // a .gz is wanted as it is
		c.Network = t
	}
	return c
}

// Fetcher fetches. It may be used concurrently; files with Cache are fetched
// once.
type Fetcher struct {
	cfg    Config
	client *http.Client
	cache  *cache
}

// New returns a Fetcher and clears what an earlier one left half done.
func New(cfg Config) (*Fetcher, error) {
	cfg = cfg.withDefaults()
	c, err := openCache(cfg.Dir, cfg.Cache)
	if err != nil {
		return nil, fmt.Errorf("fetch: the folder for fetched files: %w", err)
	}
	return &Fetcher{cfg: cfg, cache: c, client: &http.Client{Transport: cfg.Network, CheckRedirect: redirected}}, nil
}

// Fetch returns the files as a tar stream whose names are relative to the
// sandbox. They belong to the user where that is a number, else to root. An
// error that trying again cannot mend is a provider.ErrRejected.
func (f *Fetcher) Fetch(ctx context.Context, uris []task.URI, user string) (io.ReadCloser, error) {
	plans := make([]plan, len(uris))
	for i, u := range uris {
		var err error
		if plans[i], err = planOf(u); err != nil {
			return nil, err
		}
	}
	spool, err := scratch(f.cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("fetch: %w", err)
	}
	if err := f.fill(ctx, spool, plans, user); err != nil {
		spool.Close()
		return nil, err
	}
	return spool, nil
}

func (f *Fetcher) fill(ctx context.Context, spool *os.File, plans []plan, user string) error {
	b := newBundle(ctx, spool, user, f.cfg)
	if err := b.dir("."); err != nil {
		return err
	}
	for _, p := range plans {
		if err := f.add(ctx, b, p); err != nil {
			return fmt.Errorf("failed to fetch %s: %w", p.shown, err)
		}
	}
	if err := b.w.Close(); err != nil {
		return err
	}
	_, err := spool.Seek(0, io.SeekStart)
	return err
}

func (f *Fetcher) add(ctx context.Context, b *bundle, p plan) error {
	file, err := f.open(ctx, p)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if p.unpack != nil {
		return p.unpack(b, file, info.Size(), p.name)
	}
	mode := int64(0o644)
	if p.executable {
		mode = 0o755
	}
	return b.file(p.name, mode, info.Size(), file)
}

// open returns the downloaded file, from the cache if it may.
func (f *Fetcher) open(ctx context.Context, p plan) (*os.File, error) {
	load := func(ctx context.Context, into *os.File) error { return f.download(ctx, p, into) }
	if p.cached {
		return f.cache.get(ctx, p.source, load)
	}
	file, err := scratch(f.cfg.Dir)
	if err != nil {
		return nil, err
	}
	if err := load(ctx, file); err != nil {
		file.Close()
		return nil, err
	}
	_, err = file.Seek(0, io.SeekStart)
	return file, err
}

// scratch is a file without a name: it is gone when it is closed, or the
// process is.
func scratch(dir string) (*os.File, error) {
	file, err := os.CreateTemp(dir, underWay+"*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(file.Name()); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// underWay begins the names of files that are not complete.
const underWay = "tmp-"

// refusal is an error that trying again cannot mend.
type refusal string

func (r refusal) Error() string        { return string(r) }
func (r refusal) Is(target error) bool { return target == provider.ErrRejected }

func refuse(format string, args ...any) error { return refusal(fmt.Sprintf(format, args...)) }

// leftovers are the names of files that a dead process did not complete.
func leftovers(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	var out []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), underWay) {
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	return out, err
}
