package cli

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/mesopool/mesopool/agent/fetch"
)

// fetching is where the agent keeps the files that tasks name by URI.
type fetching struct {
	dir   string // "": a folder that goes with the process
	cache int64  // bytes
}

// within chooses a folder in that for state, unless another was named.
func (f *fetching) within(state string) {
	if f.dir == "" && state != "" {
		f.dir = filepath.Join(state, "fetch")
	}
}

// open returns the fetcher and what is to be done in the end.
func (f *fetching) open() (*fetch.Fetcher, func(), error) {
	dir, clear := f.dir, func() {}
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "mesopool-fetch-"); err != nil {
			return nil, nil, fmt.Errorf("the folder for fetched files: %w", err)
		}
		clear = func() { os.RemoveAll(dir) }
	}
	files, err := fetch.New(fetch.Config{Dir: dir, Cache: f.cache})
	if err != nil {
		clear()
		return nil, nil, fmt.Errorf("%w; choose another --fetcher-cache-dir", err)
	}
	return files, clear, nil
}
