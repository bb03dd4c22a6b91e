package docker

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"path"
	"strings"

	"github.com/docker/docker/api/types/container"

	"github.com/mesopool/mesopool/provider"
)

// CopyIn is part of provider.Copier.
func (e *Engine) CopyIn(ctx context.Context, id, dir string, files io.Reader) error {
	err := e.ready(ctx)
	if err == nil {
		err = e.copyIn(ctx, id, dir, files)
	}
	return e.fail("copy into", id, notFound(err))
}

// copyIn sends the files with their whole paths: the engine unpacks only where
// there is a directory, but makes those that a path goes through.
func (e *Engine) copyIn(ctx context.Context, id, dir string, files io.Reader) error {
	r, w := io.Pipe()
	moved := make(chan error, 1)
	go func() {
		err := move(w, files, dir)
		w.CloseWithError(err)
		moved <- err
	}()
	err := e.cli.CopyToContainer(ctx, id, "/", r, container.CopyToContainerOptions{})
	r.CloseWithError(errStopped)
	if broken := <-moved; broken != nil && !errors.Is(broken, errStopped) {
		return broken
	}
	if contains(err, "read-only") {
		return reject("the container's file system is read-only, so no files can be put into it: %s", words(err))
	}
	return err
}

var errStopped = errors.New("the engine reads no further")

// move copies a tar stream, with dir before each name.
func move(w io.Writer, files io.Reader, dir string) error {
	in, out := tar.NewReader(files), tar.NewWriter(w)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return out.Close()
		}
		if err != nil {
			return err
		}
		under := func(name string) string { return strings.TrimPrefix(path.Join(dir, path.Join("/", name)), "/") }
		if h.Name = under(h.Name); h.Typeflag == tar.TypeLink {
			h.Linkname = under(h.Linkname)
		}
		h.Format = tar.FormatUnknown
		if err := out.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(out, in); err != nil {
			return err
		}
	}
}

var (
	_ provider.Creator = (*Engine)(nil)
	_ provider.Copier  = (*Engine)(nil)
)
