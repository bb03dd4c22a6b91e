package api

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// shared reads a recording of genuine servers.
func shared(t *testing.T, file string) []byte {
	t.Helper()
	in, err := os.ReadFile(filepath.Join("..", "..", "..", "shared", "captures", file))
	if errors.Is(err, os.ErrNotExist) {
		t.Skipf("%s: no ../shared/captures/%s beside the repository", t.Name(), file)
	}
	if err != nil {
		t.Fatal(err)
	}
	return in
}
