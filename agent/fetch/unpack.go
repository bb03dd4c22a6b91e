package fetch

import (
	"archive/tar"
	"archive/zip"
	"compress/bzip2"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
)

// unpacker puts the content of an archive into the bundle.
type unpacker func(b *bundle, file *os.File, size int64, name string) error

// unpackerOf goes by the end of the name; nil means no archive
// (launcher/fetcher.cpp, extract).
func unpackerOf(name string) unpacker {
	for _, kind := range []struct {
		end  string
		with unpacker
	}{
		{".tar", unpackTar(plain)},
		{".tgz", unpackTar(gunzip)},
		{".tar.gz", unpackTar(gunzip)},
		{".tbz2", unpackTar(bunzip)},
		{".tar.bz2", unpackTar(bunzip)},
		{".gz", unpackGzip},
		{".zip", unpackZip},
	} {
		if strings.HasSuffix(name, kind.end) {
			return kind.with
		}
	}
	return nil
}

// notUnpacked are kinds that Mesos unpacks with programs of its host.
func notUnpacked(name string) (string, bool) {
	for _, end := range []string{".txz", ".tar.xz"} {
		if strings.HasSuffix(name, end) {
			return end, true
		}
	}
	return "", false
}

type opener func(io.Reader) (io.Reader, error)

func plain(r io.Reader) (io.Reader, error)  { return r, nil }
func bunzip(r io.Reader) (io.Reader, error) { return bzip2.NewReader(r), nil }
func gunzip(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }

// unpacked gives an error of an archive's content a name: its bytes will not be
// others the next time.
func unpacked(err error) error {
	var refused refusal
	if err == nil || errors.As(err, &refused) {
		return err
	}
	var disk *fs.PathError
	if errors.As(err, &disk) {
		return err
	}
	return refuse("the archive cannot be unpacked: %v", err)
}

func unpackTar(open opener) unpacker {
	return func(b *bundle, file *os.File, _ int64, _ string) error {
		r, err := open(file)
		if err != nil {
			return unpacked(err)
		}
		in := tar.NewReader(r)
		for {
			h, err := in.Next()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err == nil {
				err = tarEntry(b, h, in)
			}
			if b.ctx.Err() != nil {
				return b.ctx.Err()
			}
			if err != nil {
				return unpacked(err)
			}
		}
	}
}

func tarEntry(b *bundle, h *tar.Header, r io.Reader) error {
	switch h.Typeflag {
	case tar.TypeDir:
		return b.dir(h.Name)
	case tar.TypeReg, tar.TypeGNUSparse:
		return b.file(h.Name, h.Mode, h.Size, r)
	case tar.TypeSymlink:
		return b.symlink(h.Name, h.Linkname)
	case tar.TypeLink:
		return b.link(h.Name, h.Linkname)
	case tar.TypeXGlobalHeader:
		return nil
	}
	return refuse("%q in the archive is a device or a pipe (type %q), which is not unpacked", h.Name, h.Typeflag)
}

// unpackGzip is for a single file that is compressed: it loses its .gz.
func unpackGzip(b *bundle, file *os.File, _ int64, name string) error {
	r, err := gzip.NewReader(file)
	if err != nil {
		return unpacked(err)
	}
	out, err := scratch(b.scratch)
	if err != nil {
		return err
	}
	defer out.Close()
	size, err := io.Copy(out, io.LimitReader(r, b.left+1))
	if err != nil {
		return unpacked(err)
	}
	if _, err := out.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return b.file(strings.TrimSuffix(name, ".gz"), 0o644, size, out)
}

func unpackZip(b *bundle, file *os.File, size int64, _ string) error {
	z, err := zip.NewReader(file, size)
	if err != nil {
		return unpacked(err)
	}
	if len(z.File) > b.files {
		return refuse("the archive holds %d files, which is too many", len(z.File))
	}
	for _, f := range z.File {
		err := zipEntry(b, f)
		if b.ctx.Err() != nil {
			return b.ctx.Err()
		}
		if err != nil {
			return unpacked(err)
		}
	}
	return nil
}

// maxTarget bounds the target of a symbolic link.
const maxTarget = 4096

func zipEntry(b *bundle, f *zip.File) error {
	mode := f.Mode()
	if mode.IsDir() {
		return b.dir(f.Name)
	}
	r, err := f.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	switch {
	case mode&fs.ModeSymlink != 0:
		target, err := io.ReadAll(io.LimitReader(r, maxTarget))
		if err != nil {
			return err
		}
		return b.symlink(f.Name, string(target))
	case !mode.IsRegular():
		return refuse("%q in the archive is a device or a pipe, which is not unpacked", f.Name)
	}
	perm := int64(mode.Perm()) &^ 0o022
	if perm == 0 { // made where there are no such bits
		perm = 0o644
	}
	return b.file(f.Name, perm, int64(f.UncompressedSize64), r)
}
