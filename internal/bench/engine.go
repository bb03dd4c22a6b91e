package bench

import (
	"archive/tar"
	"context"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"
)

// bareLoop is the name of the loop that the cluster is compared with.
const bareLoop = "bare client loop"

// Engine is a Docker engine as the bare loop drives it: the least that creates
// and starts a container on a network of its own.
type Engine struct {
	Client  *client.Client
	Image   string
	Network string
	Label   string // a label on everything, so that nothing foreign is touched
}

// Import makes an image out of a static program, without any registry. The
// program is at /program.
func (e *Engine) Import(ctx context.Context, program string) error {
	if err := static(program); err != nil {
		return err
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(pack(w, program)) }()
	answer, err := e.Client.ImageImport(ctx, image.ImportSource{Source: r, SourceName: "-"}, e.Image, image.ImportOptions{})
	if err != nil {
		return fmt.Errorf("import the benchmark's image: %w", err)
	}
	defer answer.Close()
	_, err = io.Copy(io.Discard, answer)
	return err
}

// static refuses a program that needs libraries, which its image would not have.
func static(program string) error {
	file, err := elf.Open(program)
	if err != nil {
		return fmt.Errorf("%s is no Linux program for an image: %w", program, err)
	}
	defer file.Close()
	for _, part := range file.Progs {
		if part.Type == elf.PT_INTERP {
			return fmt.Errorf("%s is not linked statically and cannot run in an image of its own; build it with CGO_ENABLED=0", program)
		}
	}
	return nil
}

func pack(w io.Writer, program string) error {
	f, err := os.Open(program)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	t := tar.NewWriter(w)
	if err := t.WriteHeader(&tar.Header{Name: "program", Mode: 0o755, Size: info.Size(), Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	if _, err := io.Copy(t, f); err != nil {
		return err
	}
	return t.Close()
}

// Remove takes the image away.
func (e *Engine) Remove(ctx context.Context) error {
	_, err := e.Client.ImageRemove(ctx, e.Image, image.RemoveOptions{Force: true})
	return err
}

// Loop creates and starts containers at a concurrency, and removes them.
func (e *Engine) Loop(ctx context.Context, argv []string, total, atOnce int) (Result, error) {
	var mu sync.Mutex
	var took []time.Duration
	var ids []string
	var failed error
	next := make(chan int)
	var wg sync.WaitGroup
	begin := time.Now()
	for range atOnce {
		wg.Go(func() {
			for n := range next {
				start := time.Now()
				id, err := e.launch(ctx, fmt.Sprintf("%s-bare-%d", e.Label, n), argv)
				mu.Lock()
				took, ids = append(took, time.Since(start)), append(ids, id)
				if err != nil && failed == nil {
					failed = err
				}
				mu.Unlock()
			}
		})
	}
	for n := range total {
		next <- n
	}
	close(next)
	wg.Wait()
	r := summarize(bareLoop, took, time.Since(begin))
	r.AtOnce = atOnce
	for _, id := range ids {
		if id != "" {
			e.Client.ContainerRemove(context.WithoutCancel(ctx), id, container.RemoveOptions{Force: true, RemoveVolumes: true})
		}
	}
	return r, failed
}

func (e *Engine) launch(ctx context.Context, name string, argv []string) (string, error) {
	c, err := e.Client.ContainerCreate(ctx,
		&container.Config{Image: e.Image, Cmd: argv, Labels: map[string]string{e.Label: "bare"}},
		&container.HostConfig{NetworkMode: container.NetworkMode(e.Network)},
		&network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{e.Network: {}}}, nil, name)
	if err != nil {
		return "", err
	}
	return c.ID, e.Client.ContainerStart(ctx, c.ID, container.StartOptions{})
}
