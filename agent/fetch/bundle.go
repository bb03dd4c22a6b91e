package fetch

import (
	"archive/tar"
	"context"
	"io"
	"path"
	"strconv"
	"strings"
)

// bundle is the tar stream in the making. Whatever goes in is checked here:
// names, links, number and size.
type bundle struct {
	ctx      context.Context
	w        *tar.Writer
	scratch  string // folder for files of unknown size
	uid, gid int
	left     int64 // bytes that may still come
	files    int   // entries that may still come
	most     int64
	kinds    map[string]byte // by name; 0: nothing of that name
}

func newBundle(ctx context.Context, w io.Writer, user string, c Config) *bundle {
	b := &bundle{ctx: ctx, w: tar.NewWriter(w), scratch: c.Dir, left: c.Total, files: c.Files, most: c.Total, kinds: map[string]byte{}}
	b.uid, b.gid = owner(user)
	return b
}

// owner reads "uid" or "uid:gid". Names mean something only in the container:
// then the files are root's, and everybody may read them.
func owner(user string) (uid, gid int) {
	first, second, _ := strings.Cut(user, ":")
	uid, err := strconv.Atoi(first)
	if err != nil || uid < 0 {
		return 0, 0
	}
	if gid, err = strconv.Atoi(second); err != nil || gid < 0 {
		gid = 0
	}
	return uid, gid
}

func (b *bundle) dir(name string) error {
	return b.put(&tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}, nil)
}

func (b *bundle) file(name string, mode, size int64, r io.Reader) error {
	return b.put(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: size}, r)
}

// symlink may point anywhere in the container; nothing is placed through it.
func (b *bundle) symlink(name, target string) error {
	return b.put(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, nil)
}

// link is a second name of a file that came before.
func (b *bundle) link(name, target string) error {
	target, err := inside(strings.TrimLeft(target, "/"))
	if err != nil {
		return err
	}
	if kind := b.kinds[target]; kind != tar.TypeReg && kind != tar.TypeLink {
		return refuse("the link %q points to %q, which is no file before it", name, target)
	}
	return b.put(&tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o644}, nil)
}

func (b *bundle) put(h *tar.Header, r io.Reader) error {
	var err error
	if h.Name, err = inside(strings.TrimLeft(h.Name, "/")); err != nil {
		return err
	}
	if err := b.admit(h); err != nil {
		return err
	}
	h.Mode &= 0o777 // no set-user-ID
	h.Uid, h.Gid = b.uid, b.gid
	if err := b.w.WriteHeader(h); err != nil {
		return refuse("%q cannot be packed: %v", h.Name, err)
	}
	if r == nil {
		return nil
	}
	_, err = io.Copy(b.w, r)
	return err
}

// admit counts an entry and looks at its place.
func (b *bundle) admit(h *tar.Header) error {
	if err := b.ctx.Err(); err != nil {
		return err
	}
	b.files--
	b.left -= h.Size
	switch {
	case h.Size < 0 || b.left < 0:
		return refuse("the task's files take more than %d MiB when they are unpacked", b.most>>20)
	case b.files < 0:
		return refuse("the task has too many files to fetch; %q is one too many", h.Name)
	}
	for dir := path.Dir(h.Name); dir != "."; dir = path.Dir(dir) {
		if kind := b.kinds[dir]; kind != 0 && kind != tar.TypeDir {
			return refuse("%q would be placed through %q, which is no directory", h.Name, dir)
		}
	}
	if old := b.kinds[h.Name]; old == tar.TypeDir && h.Typeflag != tar.TypeDir {
		return refuse("%q is a directory and something else", h.Name)
	}
	b.kinds[h.Name] = h.Typeflag
	return nil
}
