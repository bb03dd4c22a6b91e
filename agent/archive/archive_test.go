package archive

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

type pieces []provider.LogPiece

func (p *pieces) Next() (provider.LogPiece, error) {
	if len(*p) == 0 {
		return provider.LogPiece{}, io.EOF
	}
	x := (*p)[0]
	*p = (*p)[1:]
	return x, nil
}
func (p *pieces) Close() error { return nil }

func opener(list ...provider.LogPiece) func() (provider.LogReader, error) {
	return func() (provider.LogReader, error) { p := pieces(list); return &p, nil }
}

func read(t *testing.T, f *Folder, k task.Key, stderr bool) string {
	t.Helper()
	r, err := f.Open(k, stderr)
	if errors.Is(err, fs.ErrNotExist) {
		return "none"
	}
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestSavesTheEnd(t *testing.T) {
	f := &Folder{Dir: t.TempDir(), Keep: time.Hour, MaxEach: 10}
	k := task.Key{Framework: "..", ID: "a/../b"}
	var list []provider.LogPiece
	for range 100 {
		list = append(list, provider.LogPiece{Data: []byte("0123456")})
	}
	list = append(list, provider.LogPiece{Stderr: true, Data: []byte("oh\n")})
	if err := f.Save(t.Context(), k, opener(list...)); err != nil {
		t.Fatal(err)
	}
	if got := read(t, f, k, false); got != "4560123456" {
		t.Errorf("stdout %q", got)
	}
	if got := read(t, f, k, true); got != "oh\n" {
		t.Errorf("stderr %q", got)
	}
	outside, err := os.ReadDir(filepath.Dir(f.Dir))
	if err != nil || len(outside) != 1 {
		t.Errorf("beside the folder: %v, %v", outside, err)
	}
	want := errors.New("the engine is away")
	if err := f.Save(t.Context(), k, func() (provider.LogReader, error) { return nil, want }); !errors.Is(err, want) {
		t.Errorf("error %v", err)
	}
}

func TestPrunes(t *testing.T) {
	f := &Folder{Dir: t.TempDir(), Keep: time.Hour, MaxAll: 250}
	now := time.Now()
	for i, age := range []time.Duration{2 * time.Hour, 30 * time.Minute, 20 * time.Minute, time.Minute} {
		k := task.Key{Framework: "f", ID: string(rune('a' + i))}
		if err := f.Save(t.Context(), k, opener(provider.LogPiece{Data: []byte(strings.Repeat("x", 100))})); err != nil {
			t.Fatal(err)
		}
		for _, n := range []string{"stdout", "stderr"} {
			if err := os.Chtimes(filepath.Join(f.folder(k), n), now, now.Add(-age)); err != nil {
				t.Fatal(err)
			}
		}
	}
	f.prune(now.Add(2 * pruneEvery))
	got := ""
	for _, id := range []string{"a", "b", "c", "d"} {
		if read(t, f, task.Key{Framework: "f", ID: id}, false) != "none" {
			got += id
		}
	}
	if got != "cd" {
		t.Errorf("left are %q", got)
	}
	if _, err := os.Stat(f.folder(task.Key{Framework: "f", ID: "a"})); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty folder is left: %v", err)
	}
}
