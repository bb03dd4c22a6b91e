package mesos_test

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The committed code is what the committed .proto files give.
func TestGenerated(t *testing.T) {
	if testing.Short() {
		t.Skip("TestGenerated: builds and runs the generator; not with -short")
	}
	dir := t.TempDir()
	if out, err := exec.Command("../scripts/generate.sh", dir).CombinedOutput(); err != nil {
		t.Fatalf("scripts/generate.sh: %v\n%s", err, out)
	}
	want, got := generated(t, filepath.Join(dir, "mesos")), generated(t, ".")
	if len(want) == 0 {
		t.Fatal("the generator wrote nothing")
	}
	for name := range want {
		if !bytes.Equal(want[name], got[name]) {
			t.Errorf("%s differs from what scripts/generate.sh writes", name)
		}
	}
	if diff := cmp.Diff(names(want), names(got)); diff != "" {
		t.Errorf("generated files (-generator +committed):\n%s", diff)
	}
}

func generated(t *testing.T, root string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := fs.WalkDir(os.DirFS(root), ".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".pb.go") {
			return err
		}
		files[path], err = os.ReadFile(filepath.Join(root, path))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func names(files map[string][]byte) map[string]bool {
	set := map[string]bool{}
	for name := range files {
		set[name] = true
	}
	return set
}
