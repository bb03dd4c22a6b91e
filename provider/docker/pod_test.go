package docker

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

func TestPodImages(t *testing.T) {
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		o    Options
		want string
	}{
		"named":      {Options{PodImage: "pause:3"}, ""},
		"no file":    {Options{PodBinary: "/nowhere"}, "name an image"},
		"no program": {Options{PodBinary: script}, "no Linux program"},
		"dynamic":    {Options{PodBinary: "/bin/sh"}, "not linked statically"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := newFake(t, &fake{}, x.o).Pod(t.Context(), task.Spec{Name: "pod"})
			switch {
			case x.want == "" && (err != nil || s.Image != "pause:3" || s.Command.Value != "" || s.Name != "pod"):
				t.Errorf("got %+v, %v", s, err)
			case x.want != "" && (!errors.Is(err, provider.ErrRejected) || !strings.Contains(err.Error(), x.want)):
				t.Errorf("got %v, want a refusal with %q", err, x.want)
			}
		})
	}
}
