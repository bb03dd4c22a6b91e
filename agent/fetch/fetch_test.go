package fetch

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

// web serves files by path and counts the requests.
type web struct {
	files map[string]string
	asked atomic.Int64
	url   string
}

func serve(t *testing.T, files map[string]string) *web {
	w := &web{files: files}
	s := httptest.NewServer(w)
	t.Cleanup(s.Close)
	w.url = s.URL
	return w
}

func (w *web) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	w.asked.Add(1)
	switch {
	case r.URL.Path == "/loop":
		http.Redirect(out, r, "/loop", http.StatusFound)
	case r.URL.Path == "/away":
		http.Redirect(out, r, "file:///etc/passwd", http.StatusFound)
	case r.URL.Path == "/moved":
		http.Redirect(out, r, "/a.txt", http.StatusFound)
	case r.URL.Path == "/busy":
		http.Error(out, "busy", http.StatusServiceUnavailable)
	case r.URL.Path == "/short":
		out.Header().Set("Content-Length", "100")
		io.WriteString(out, "half")
	default:
		text, ok := w.files[r.URL.Path]
		if !ok {
			http.NotFound(out, r)
			return
		}
		io.WriteString(out, text)
	}
}

func fetcher(t *testing.T, change func(*Config)) *Fetcher {
	t.Helper()
	c := Config{Dir: t.TempDir()}
	if change != nil {
		change(&c)
	}
	f, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// listing shows a tar stream: name, mode, owner, and content or target.
func listing(t *testing.T, r io.Reader) (out []string) {
	t.Helper()
	for in := tar.NewReader(r); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("%s %c %o %d:%d %s%s", h.Name, h.Typeflag, h.Mode, h.Uid, h.Gid, data, h.Linkname))
	}
}

func gz(text string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	io.WriteString(w, text)
	w.Close()
	return b.String()
}

func tarOf(headers ...tar.Header) string {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		content := h.Uname // carries the content of files
		h.Uname = ""
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			panic(err)
		}
		io.WriteString(w, content)
	}
	w.Close()
	return b.String()
}

func zipOf(files ...string) string {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		h := &zip.FileHeader{Name: files[i], Method: zip.Deflate}
		switch name := files[i]; {
		case strings.HasPrefix(name, "link"):
			h.SetMode(fs.ModeSymlink | 0o777)
		case strings.HasSuffix(name, ".sh"):
			h.SetMode(0o755)
		}
		f, err := w.CreateHeader(h)
		if err != nil {
			panic(err)
		}
		io.WriteString(f, files[i+1])
	}
	w.Close()
	return b.String()
}

// bz2 is "hello\n" in a tar, compressed by bzip2.
const bz2 = "QlpoOTFBWSZTWV5qvfMAAHJ7hMmQAERAAHUAAEBi5Z4AAACACCAAVDSjanqaeo0HqGjanqCSp6NRoNAA0FPtr4QQgk4CRHGwyui5OpJAwdsQozSdJMZC/gGy7oWy1rbuEN3umGD+6WjAQsIREB+LuSKcKEgvNV75gA=="

func TestFetch(t *testing.T) {
	archive := tarOf(
		tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o700}, tar.Header{Typeflag: tar.TypeDir, Name: "bin/", Mode: 0o755},
		tar.Header{Name: "bin/run", Mode: 0o4755, Uname: "#!"}, tar.Header{Name: "/abs", Mode: 0o600, Uname: "x"},
		tar.Header{Typeflag: tar.TypeSymlink, Name: "now", Linkname: "/usr/bin"}, tar.Header{Typeflag: tar.TypeLink, Name: "twin", Linkname: "./bin/run"},
	)
	unpacked := []string{
		"./ 5 755 0:0 ", "./ 5 755 0:0 ", "bin/ 5 755 0:0 ", "bin/run 0 755 0:0 #!", "abs 0 600 0:0 x", "now 2 777 0:0 /usr/bin", "twin 1 644 0:0 bin/run",
	}
	w := serve(t, map[string]string{
		"/a.txt": "text", "/b.tar": archive, "/b.tgz": gz(archive), "/c.gz": gz("plain"), "/d.zip": zipOf("dir/", "", "dir/a", "1", "go.sh", "2", "link", "dir/a"),
	})
	for name, x := range map[string]struct {
		uris []task.URI
		user string
		want []string
	}{
		"as it is":           {uris: []task.URI{{Value: "/a.txt", Extract: true}}, want: []string{"./ 5 755 0:0 ", "a.txt 0 644 0:0 text"}},
		"executable":         {uris: []task.URI{{Value: "/b.tgz", Extract: true, Executable: true}}, want: []string{"./ 5 755 0:0 ", "b.tgz 0 755 0:0 " + gz(archive)}},
		"not extracted":      {uris: []task.URI{{Value: "/c.gz"}}, want: []string{"./ 5 755 0:0 ", "c.gz 0 644 0:0 " + gz("plain")}},
		"elsewhere, another": {uris: []task.URI{{Value: "/a.txt?x=1", Output: "etc/conf"}, {Value: "/moved", Output: "b"}}, user: "1000:7", want: []string{"./ 5 755 1000:7 ", "etc/conf 0 644 1000:7 text", "b 0 644 1000:7 text"}},
		"by name":            {uris: []task.URI{{Value: "/a.txt"}}, user: "nobody", want: []string{"./ 5 755 0:0 ", "a.txt 0 644 0:0 text"}},
		"tar":                {uris: []task.URI{{Value: "/b.tar", Extract: true}}, want: unpacked},
		"tar.gz":             {uris: []task.URI{{Value: "/b.tgz", Extract: true}}, want: unpacked},
		"renamed":            {uris: []task.URI{{Value: "/b.tgz", Extract: true, Output: "x.tar.gz"}}, want: unpacked},
		"gz":                 {uris: []task.URI{{Value: "/c.gz", Extract: true}}, want: []string{"./ 5 755 0:0 ", "c 0 644 0:0 plain"}},
		"zip":                {uris: []task.URI{{Value: "/d.zip", Extract: true}}, want: []string{"./ 5 755 0:0 ", "dir/ 5 755 0:0 ", "dir/a 0 644 0:0 1", "go.sh 0 755 0:0 2", "link 2 777 0:0 dir/a"}},
	} {
		t.Run(name, func(t *testing.T) {
			for i := range x.uris {
				x.uris[i].Value = w.url + x.uris[i].Value
			}
			f := fetcher(t, nil)
			got, err := f.Fetch(t.Context(), x.uris, x.user)
			if err != nil {
				t.Fatal(err)
			}
			defer got.Close()
			want := x.want
			for i := range want {
				want[i] = strings.Replace(want[i], "./ 5", ". 5", 1)
				want[i] = strings.Replace(want[i], "/ 5", " 5", 1)
			}
			if d := cmp.Diff(want, listing(t, got)); d != "" {
				t.Error(d)
			}
			if left, _ := os.ReadDir(f.cfg.Dir); len(left) != 0 {
				t.Errorf("files are left: %v", left)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	w := serve(t, map[string]string{
		"/page.tgz": "<html>", "/big": strings.Repeat("x", 5000), "/bomb.gz": gz(strings.Repeat("0", 100_000)),
		"/up.tar":      tarOf(tar.Header{Name: "../etc/passwd", Mode: 0o644, Uname: "x"}),
		"/through.tar": tarOf(tar.Header{Typeflag: tar.TypeSymlink, Name: "out", Linkname: "/etc"}, tar.Header{Name: "out/passwd", Uname: "x"}),
		"/hard.tar":    tarOf(tar.Header{Typeflag: tar.TypeLink, Name: "x", Linkname: "/etc/shadow"}),
		"/dev.tar":     tarOf(tar.Header{Typeflag: tar.TypeChar, Name: "null"}),
		"/many.zip":    zipOf("a", "", "b", "", "c", "", "d", "", "e", "", "f", "", "g", ""),
		"/up.zip":      zipOf("a/../../b", "x"), "/cut.zip": zipOf("a", "xyz")[:40], "/link.zip": zipOf("link", "/etc", "link/x", "1"),
		"/large.zip": zipOf("a", strings.Repeat("0", 100_000)), "/dir.tar": tarOf(tar.Header{Typeflag: tar.TypeDir, Name: "d"}, tar.Header{Name: "d", Uname: "x"}),
		"/cut.tgz": gz(tarOf(tar.Header{Name: "a", Uname: strings.Repeat("x", 600)}))[:40],
	})
	for name, x := range map[string]struct {
		uri  task.URI
		want string
	}{
		"path":          {task.URI{Value: "/etc/passwd"}, "no particular host"},
		"file":          {task.URI{Value: "file:///etc/passwd"}, "no particular host"},
		"empty":         {task.URI{}, "is no URI"},
		"hdfs":          {task.URI{Value: "hdfs://n/x"}, "the scheme hdfs is not supported"},
		"ftp":           {task.URI{Value: "FTP://n/x"}, "the scheme ftp is not supported"},
		"s3":            {task.URI{Value: "s3://bucket/x"}, "the scheme s3 is not supported"},
		"unknown":       {task.URI{Value: "gopher://x/y"}, "the scheme gopher is unknown"},
		"no host":       {task.URI{Value: "http:///x"}, "names no host"},
		"no name":       {task.URI{Value: w.url}, "names no file"},
		"output up":     {task.URI{Value: w.url + "/big", Output: "../x"}, "not within the sandbox"},
		"output abs":    {task.URI{Value: w.url + "/big", Output: "/x"}, "not within the sandbox"},
		"xz":            {task.URI{Value: w.url + "/x.tar.xz", Extract: true}, ".tar.xz"},
		"absent":        {task.URI{Value: w.url + "/absent?token=secret"}, w.url + "/absent: the server answered 404"},
		"loop":          {task.URI{Value: w.url + "/loop"}, "redirects more than 10"},
		"away":          {task.URI{Value: w.url + "/away"}, "redirects to file:///etc/passwd"},
		"large":         {task.URI{Value: w.url + "/big"}, "larger than"},
		"no archive":    {task.URI{Value: w.url + "/page.tgz", Extract: true}, "cannot be unpacked"},
		"cut":           {task.URI{Value: w.url + "/cut.tgz", Extract: true}, "cannot be unpacked"},
		"cut zip":       {task.URI{Value: w.url + "/cut.zip", Extract: true}, "cannot be unpacked"},
		"bomb":          {task.URI{Value: w.url + "/bomb.gz", Extract: true}, "take more than"},
		"zip bomb":      {task.URI{Value: w.url + "/large.zip", Extract: true}, "take more than"},
		"up":            {task.URI{Value: w.url + "/up.tar", Extract: true}, "leads out of the sandbox"},
		"up zip":        {task.URI{Value: w.url + "/up.zip", Extract: true}, "leads out of the sandbox"},
		"through":       {task.URI{Value: w.url + "/through.tar", Extract: true}, `placed through "out"`},
		"through zip":   {task.URI{Value: w.url + "/link.zip", Extract: true}, `placed through "link"`},
		"hard link":     {task.URI{Value: w.url + "/hard.tar", Extract: true}, "no file before it"},
		"device":        {task.URI{Value: w.url + "/dev.tar", Extract: true}, "a device or a pipe"},
		"many":          {task.URI{Value: w.url + "/many.zip", Extract: true}, "too many"},
		"file for dir":  {task.URI{Value: w.url + "/dir.tar", Extract: true}, "directory and something else"},
		"control bytes": {task.URI{Value: "http://h/\x00"}, "is no URI"},
	} {
		t.Run(name, func(t *testing.T) {
			f := fetcher(t, func(c *Config) { c.Download, c.Total, c.Files = 4000, 10_000, 5 })
			_, err := f.Fetch(t.Context(), []task.URI{x.uri}, "")
			if !errors.Is(err, provider.ErrRejected) || !strings.Contains(err.Error(), x.want) {
				t.Errorf("got %v, want a refusal with %q", err, x.want)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error tells a secret: %v", err)
			}
			if left, _ := os.ReadDir(f.cfg.Dir); len(left) != 0 {
				t.Errorf("files are left: %v", left)
			}
		})
	}
}

func TestWorthAnotherTry(t *testing.T) {
	w := serve(t, nil)
	for _, uri := range []string{w.url + "/busy", w.url + "/short", "http://127.0.0.1:1/x"} {
		_, err := fetcher(t, nil).Fetch(t.Context(), []task.URI{{Value: uri, Cache: true}}, "")
		if err == nil || errors.Is(err, provider.ErrRejected) || !strings.Contains(err.Error(), uri) {
			t.Errorf("%s: %v", uri, err)
		}
	}
}

func TestBzip2(t *testing.T) {
	data, err := base64.StdEncoding.DecodeString(bz2)
	if err != nil {
		t.Fatal(err)
	}
	w := serve(t, map[string]string{"/a.tbz2": string(data)})
	got, err := fetcher(t, nil).Fetch(t.Context(), []task.URI{{Value: w.url + "/a.tbz2", Extract: true}}, "")
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	if d := cmp.Diff([]string{". 5 755 0:0 ", "greeting 0 644 0:0 hello\n"}, listing(t, got)); d != "" {
		t.Error(d)
	}
}

func TestCache(t *testing.T) {
	w := serve(t, map[string]string{"/a": "aaaa", "/b": "bbbb", "/c": "cccc", "/huge": "0123456789abc"})
	dir := t.TempDir()
	f := fetcher(t, func(c *Config) { c.Dir, c.Cache = dir, 10 })
	get := func(path string) {
		t.Helper()
		got, err := f.Fetch(t.Context(), []task.URI{{Value: w.url + path, Cache: true}}, "")
		if err != nil {
			t.Fatal(err)
		}
		defer got.Close()
		if all := listing(t, got); !strings.HasSuffix(all[1], w.files[path]) {
			t.Errorf("%s: %v", path, all)
		}
	}
	asked := func(want int64) {
		t.Helper()
		if got := w.asked.Swap(0); got != want {
			t.Errorf("the server was asked %d times, want %d", got, want)
		}
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { get("/a") })
	}
	wg.Wait()
	asked(1)
	get("/b")
	get("/a")
	get("/c") // the least used, b, makes room
	asked(2)
	get("/a")
	asked(0)
	get("/b")
	asked(1)
	get("/huge")
	get("/huge")
	asked(2)
	if err := os.WriteFile(filepath.Join(dir, "tmp-dead"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	f = fetcher(t, func(c *Config) { c.Dir, c.Cache = dir, 10 })
	get("/b")
	asked(0)
	kept, err := os.ReadDir(dir)
	if err != nil || len(kept) != 2 {
		t.Errorf("the folder holds %v, %v; want the two files that fit", kept, err)
	}
	for _, k := range kept {
		os.Remove(filepath.Join(dir, k.Name()))
	}
	get("/b")
	asked(1)
}

// silent answers and then sends nothing more until it is given up.
type silent struct{}

func (silent) RoundTrip(r *http.Request) (*http.Response, error) {
	in, out := io.Pipe()
	go func() {
		io.WriteString(out, "some")
		<-r.Context().Done()
		out.CloseWithError(r.Context().Err())
	}()
	return &http.Response{StatusCode: http.StatusOK, Body: in, Request: r, ContentLength: -1}, nil
}

func TestStall(t *testing.T) {
	f := fetcher(t, func(c *Config) { c.Network = silent{} })
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		_, err := f.Fetch(t.Context(), []task.URI{{Value: "http://h/x"}}, "")
		if !errors.Is(err, errStall) || time.Since(begin) != time.Minute {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
	})
}

func TestCancelled(t *testing.T) {
	f := fetcher(t, func(c *Config) { c.Network = silent{} })
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := f.Fetch(ctx, []task.URI{{Value: "http://h/x", Cache: true}}, "")
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
	if left, _ := os.ReadDir(f.cfg.Dir); len(left) != 0 {
		t.Errorf("files are left: %v", left)
	}
}

// FuzzUnpack: whatever an archive holds, nothing is placed outside the sandbox
// or through a link, and the bounds hold.
func FuzzUnpack(f *testing.F) {
	f.Add("a.tar", []byte(tarOf(tar.Header{Typeflag: tar.TypeSymlink, Name: "l", Linkname: ".."}, tar.Header{Name: "l/x", Uname: "1"})))
	f.Add("a.zip", []byte(zipOf("link", "/", "link/x", "1")))
	f.Add("a.tgz", []byte(gz(tarOf(tar.Header{Name: "a/b", Uname: "1"}))))
	f.Add("a.gz", []byte(gz("x")))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		with := unpackerOf(name)
		if with == nil {
			return
		}
		name, err := inside(name)
		if err != nil {
			return
		}
		file, err := scratch(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		file.Write(data)
		file.Seek(0, io.SeekStart)
		var out bytes.Buffer
		b := newBundle(t.Context(), &out, "", Config{Dir: dir, Total: 1 << 16, Files: 10})
		if with(b, file, int64(len(data)), name) != nil {
			return
		}
		b.w.Close()
		links, total := map[string]bool{}, int64(0)
		for in := tar.NewReader(&out); ; {
			h, err := in.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			total += h.Size
			clean := filepath.Clean(h.Name)
			if !filepath.IsLocal(clean) {
				t.Fatalf("%q is placed outside", h.Name)
			}
			for up := filepath.Dir(clean); up != "."; up = filepath.Dir(up) {
				if links[up] {
					t.Fatalf("%q is placed through a link", h.Name)
				}
			}
			links[clean] = h.Typeflag == tar.TypeSymlink
		}
		if total > 1<<16 {
			t.Fatalf("%d bytes", total)
		}
	})
}
