package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"fmt"
	"io"
	"os"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/task"
)

// Pod is part of provider.Pods.
func (e *Engine) Pod(ctx context.Context, s task.Spec) (task.Spec, error) {
	if s.Image = e.o.PodImage; s.Image != "" {
		return s, nil
	}
	err := e.ready(ctx)
	if err == nil {
		s.Image, err = e.podImage(ctx)
	}
	s.Command = task.Command{Value: podProgram, Args: []string{"pause"}}
	return s, e.fail("make the image of", "pods", err)
}

// podProgram is where the program is in the image that is made for pods.
const podProgram = "/mesopool"

// podImage makes the image if the engine has none of this program.
func (e *Engine) podImage(ctx context.Context) (string, error) {
	program, err := e.podBinary()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(program)
	ref := "mesopool-pod:" + hex.EncodeToString(sum[:6])
	_, err = e.cli.ImageInspect(ctx, ref)
	if errdefs.IsNotFound(err) {
		err = e.importProgram(ctx, ref, program)
	}
	return ref, err
}

// podBinary reads the program, which must need nothing else in its image.
func (e *Engine) podBinary() ([]byte, error) {
	name := e.o.PodBinary
	if name == "" {
		var err error
		if name, err = os.Executable(); err != nil {
			return nil, reject("the image of pods cannot be made, because this program's file is not known (%v); name an image", err)
		}
	}
	program, err := os.ReadFile(name)
	if err != nil {
		return nil, reject("the image of pods cannot be made: %v; name an image", err)
	}
	file, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return nil, reject("the image of pods cannot be made of %s, which is no Linux program: %v; name an image", name, err)
	}
	for _, part := range file.Progs {
		if part.Type == elf.PT_INTERP {
			return nil, reject("the image of pods cannot be made of %s, which is not linked statically; name an image, or build with CGO_ENABLED=0", name)
		}
	}
	return program, nil
}

func (e *Engine) importProgram(ctx context.Context, ref string, program []byte) error {
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	err := w.WriteHeader(&tar.Header{Name: podProgram[1:], Mode: 0o755, Size: int64(len(program))})
	if err == nil {
		_, err = w.Write(program)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return fmt.Errorf("pack %s: %w", podProgram, err)
	}
	stream, err := e.cli.ImageImport(ctx, image.ImportSource{Source: &layer, SourceName: "-"}, ref, image.ImportOptions{})
	if err != nil {
		return err
	}
	defer stream.Close()
	_, err = io.Copy(io.Discard, stream)
	return err
}

var _ provider.Pods = (*Engine)(nil)
