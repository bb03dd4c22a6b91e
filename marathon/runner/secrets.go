package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/mesopool/mesopool/marathon"
)

// Secrets is where the values of secrets are.
type Secrets interface {
	// Secret returns the value of a source, which is a name of the backend's own.
	// It may be called from several goroutines, and an error is told to users.
	Secret(ctx context.Context, source string) (string, error)
}

// MostSecret bounds a secret: it becomes a variable of an environment.
const MostSecret = 64 << 10

const secretTime = 10 * time.Second

var errNoSecrets = errors.New("this scheduler has no secrets; start it with --secrets")

// secrets reads all that an app waits for.
func (r *Runner) secrets(e marathon.AskSecrets) func(context.Context) marathon.Input {
	return func(ctx context.Context) marathon.Input {
		ctx, cancel := context.WithTimeout(ctx, secretTime)
		defer cancel()
		out := marathon.GotSecrets{App: e.App, Values: map[string]string{}}
		for _, source := range e.Sources {
			value, err := r.secret(ctx, source)
			if err != nil {
				r.log.Warn("a secret cannot be read", "app", e.App, "source", source, "error", err)
				return marathon.GotSecrets{App: e.App, Error: fmt.Sprintf("%s: %v", source, err)}
			}
			out.Values[source] = value
		}
		return out
	}
}

func (r *Runner) secret(ctx context.Context, source string) (string, error) {
	if r.cfg.Secrets == nil {
		return "", errNoSecrets
	}
	value, err := r.cfg.Secrets.Secret(ctx, source)
	switch {
	case err != nil:
		return "", err
	case len(value) > MostSecret:
		return "", fmt.Errorf("it has more than %d bytes", MostSecret)
	case strings.Contains(value, "\x00"):
		return "", errors.New("it has a zero byte, which no variable can have")
	}
	return value, nil
}

// FileSecrets are the files below a folder; a source is a path in it. The line
// break that editors put at the end of a file is no part of the secret.
type FileSecrets struct{ Dir string }

// Secret implements Secrets. No path, and no link in the folder, leads out of it.
func (f FileSecrets) Secret(_ context.Context, source string) (string, error) {
	root, err := os.OpenRoot(f.Dir)
	if err != nil {
		return "", errors.New("the folder of secrets cannot be opened")
	}
	defer root.Close()
	name := strings.TrimPrefix(source, "/")
	info, err := root.Stat(name) // before it is opened: a pipe would make us wait
	if err != nil {
		return "", fileProblem(err)
	}
	if !info.Mode().IsRegular() {
		return "", errors.New("it is no regular file")
	}
	file, err := root.Open(name)
	if err != nil {
		return "", fileProblem(err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, MostSecret+2))
	if err != nil {
		return "", errors.New("it cannot be read")
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r"), nil
}

// fileProblem says no more than what is wrong: the folder's own path is nobody's
// business.
func fileProblem(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("there is no such secret")
	case errors.Is(err, fs.ErrPermission):
		return errors.New("the scheduler may not read it")
	}
	return errors.New("it is no path below the folder of secrets")
}
