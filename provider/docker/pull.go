package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/docker/docker/api/types/image"

	"github.com/mesopool/mesopool/provider"
)

// pulls are the pulls under way, one for an image at a time.
type pulls struct {
	mu      sync.Mutex
	running map[wanted]*pull
}

// wanted is an image with the credentials that a task brings for it.
type wanted struct {
	ref    string
	config string // a config.json; "": the agent's own
}

// pull is a pull that several launches may wait for. It ends early when the
// last of them has given up.
type pull struct {
	done    chan struct{}
	err     error
	waiters int
	cancel  context.CancelFunc
}

// pull fetches the image, or waits for a pull of it that is under way.
func (e *Engine) pull(ctx context.Context, w wanted) error {
	p := e.joinPull(ctx, w)
	defer e.leavePull(w, p)
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return fmt.Errorf("pull %s: %w", w.ref, ctx.Err())
	}
}

func (e *Engine) joinPull(ctx context.Context, w wanted) *pull {
	e.pulls.mu.Lock()
	defer e.pulls.mu.Unlock()
	p, ok := e.pulls.running[w]
	if !ok {
		p = &pull{done: make(chan struct{})}
		ctx, p.cancel = context.WithCancel(context.WithoutCancel(ctx))
		e.pulls.running[w] = p
		go e.runPull(ctx, w, p)
	}
	p.waiters++
	return p
}

func (e *Engine) leavePull(w wanted, p *pull) {
	e.pulls.mu.Lock()
	defer e.pulls.mu.Unlock()
	if p.waiters--; p.waiters == 0 {
		p.cancel()
		e.forgetPull(w, p)
	}
}

// forgetPull lets the next launch pull anew. The caller holds the lock.
func (e *Engine) forgetPull(w wanted, p *pull) {
	if e.pulls.running[w] == p {
		delete(e.pulls.running, w)
	}
}

func (e *Engine) runPull(ctx context.Context, w wanted, p *pull) {
	err := e.fetch(ctx, w)
	e.pulls.mu.Lock()
	defer e.pulls.mu.Unlock()
	e.forgetPull(w, p)
	p.err = err
	close(p.done)
}

// fetch pulls and reads the progress to its end.
func (e *Engine) fetch(ctx context.Context, w wanted) error {
	ref := w.ref
	auth, err := e.credentials(ctx, w)
	if err != nil {
		return fmt.Errorf("pull %s: %w", ref, err)
	}
	stream, err := e.cli.ImagePull(ctx, withTag(ref), image.PullOptions{RegistryAuth: auth})
	if err == nil {
		err = e.follow(ref, stream)
		stream.Close()
	}
	return pullError(ref, err)
}

// pullLine is one line of a pull's progress.
type pullLine struct {
	ID       string `json:"id"`
	Status   string `json:"status"`
	Error    string `json:"error"`
	Progress struct {
		Current int64 `json:"current"`
		Total   int64 `json:"total"`
	} `json:"progressDetail"`
}

// follow reads the progress; the stream's end is the pull's.
func (e *Engine) follow(ref string, stream io.Reader) error {
	lines, layers, said := json.NewDecoder(stream), map[string]pullLine{}, ""
	for {
		var l pullLine
		err := lines.Decode(&l)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case l.Error != "":
			return errors.New(l.Error)
		}
		if text := progress(layers, l); text != said && e.o.PullProgress != nil {
			said = text
			e.o.PullProgress(ref, text)
		}
	}
}

// progress sums the downloads, or repeats the engine's line when there is none.
func progress(layers map[string]pullLine, l pullLine) string {
	if l.Status != "Downloading" && l.Status != "Download complete" || l.ID == "" {
		return l.Status
	}
	if l.Status == "Download complete" {
		l.Progress = layers[l.ID].Progress
		l.Progress.Current = l.Progress.Total
	}
	layers[l.ID] = l
	var current, total int64
	for _, layer := range layers {
		current += layer.Progress.Current
		total += layer.Progress.Total
	}
	return fmt.Sprintf("%.1f of %.1f MB", float64(current)/1e6, float64(total)/1e6)
}

// pullError sorts a pull's failure by what can be done about it.
func pullError(ref string, err error) error {
	switch {
	case err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return err
	case contains(err, "toomanyrequests"):
		return fmt.Errorf("%w: pull %s: %s", provider.ErrThrottle, ref, words(err))
	case contains(err, "no space left on device"):
		return fmt.Errorf("%w: pull %s: %s", provider.ErrCapacity, ref, words(err))
	case contains(err, "invalid reference format", "repository name must be"):
		return reject("%q is no image name: %s", ref, words(err))
	case unreachable(err):
		return fmt.Errorf("pull %s: its registry cannot be reached: %s", ref, words(err))
	case contains(err, "unauthorized", "denied", "authentication required", "no basic auth credentials"):
		return reject("the registry refuses the image %s: check its name, or run docker login for its registry: %s", ref, words(err))
	case contains(err, "not found", "unknown", "does not exist", "no matching manifest", "no such image"):
		return reject("there is no image %s: check its name and tag: %s", ref, words(err))
	}
	return fmt.Errorf("pull %s: %s", ref, words(err))
}

// unreachable says whether the registry, rather than the image, is the trouble.
func unreachable(err error) bool {
	return contains(err, "dial tcp", "connection refused", "no such host", "i/o timeout", "tls handshake", "connection reset",
		"unexpected eof", "client.timeout", "x509:", "server gave http response", "503 service", "502 bad", "received unexpected http status: 5")
}
