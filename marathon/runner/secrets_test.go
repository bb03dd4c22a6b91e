package runner

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mesopool/mesopool/marathon"
)

func TestFileSecrets(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(dir, "plain"), "value\n")
	write(filepath.Join(dir, "inner"), "a\nb\r\n")
	write(filepath.Join(outside, "secret"), "not yours")
	write(filepath.Join(dir, "zero"), "a\x00b")
	write(filepath.Join(dir, "large"), strings.Repeat("x", MostSecret+1))
	if err := os.Symlink(filepath.Join(outside, "secret"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	r := &Runner{cfg: Config{Secrets: FileSecrets{Dir: dir}}}
	for source, want := range map[string]string{"plain": "value", "/plain": "value", "inner": "a\nb"} {
		if got, err := r.secret(t.Context(), source); got != want || err != nil {
			t.Errorf("%s: %q %v", source, got, err)
		}
	}
	for source, why := range map[string]string{
		"none": "no such secret", "../" + filepath.Base(outside) + "/secret": "no path below", "link": "no path below", "folder": "no regular file",
		"": "", "zero": "zero byte", "large": "more than",
	} {
		if got, err := r.secret(t.Context(), source); err == nil || !strings.Contains(err.Error(), why) || strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %q %v", source, got, err)
		}
	}
}

type noSecrets map[string]string

func (n noSecrets) Secret(_ context.Context, source string) (string, error) { return n[source], nil }

func TestAskedSecrets(t *testing.T) {
	ask := marathon.AskSecrets{App: "/a", Sources: []string{"x", "y"}}
	r := &Runner{log: slog.New(slog.DiscardHandler), cfg: Config{Secrets: noSecrets{"x": "1", "y": "2"}}}
	if got := r.secrets(ask)(t.Context()).(marathon.GotSecrets); got.Error != "" || got.App != "/a" || got.Values["y"] != "2" {
		t.Errorf("%+v", got)
	}
	r.cfg.Secrets = nil
	if got := r.secrets(ask)(t.Context()).(marathon.GotSecrets); !strings.Contains(got.Error, "--secrets") || got.Values != nil {
		t.Errorf("%+v", got)
	}
}
