package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"
)

const maxRedirects = 10

func redirected(req *http.Request, via []*http.Request) error {
	switch {
	case len(via) >= maxRedirects:
		return refuse("the server redirects more than %d times", maxRedirects)
	case unfetchable(req.URL) != "":
		return refuse("the server redirects to %s: %s", shown(req.URL), unfetchable(req.URL))
	}
	return nil
}

// errStall ends a download whose server has fallen silent.
var errStall = errors.New("the server sent nothing for too long")

// download writes what the URI holds. Errors carry no URL: it may have secrets.
func (f *Fetcher) download(ctx context.Context, p plan, into *os.File) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(f.cfg.Stall, func() { cancel(errStall) })
	defer watch.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.source, nil)
	if err != nil {
		return refuse("it makes no request: %v", err)
	}
	resp, err := f.client.Do(req)
	if err != nil {
		return failed(ctx, err)
	}
	defer resp.Body.Close()
	if err := acceptable(resp, f.cfg.Download); err != nil {
		return err
	}
	body := &lively{r: io.LimitReader(resp.Body, f.cfg.Download+1), alive: func() { watch.Reset(f.cfg.Stall) }}
	n, err := io.Copy(into, body)
	if err != nil {
		return failed(ctx, err)
	}
	if n > f.cfg.Download {
		return tooLarge(f.cfg.Download)
	}
	return nil
}

// failed is an error of the network, as text: it is worth another try however
// it came about.
func failed(ctx context.Context, err error) error {
	var refused refusal
	var outer *url.Error
	switch {
	case errors.As(err, &refused):
		return refused
	case errors.Is(context.Cause(ctx), errStall):
		return errStall
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &outer):
		err = outer.Err
	}
	return errors.New(err.Error())
}

func tooLarge(most int64) error {
	return refuse("it is larger than %d MiB, the most that is fetched", most>>20)
}

// acceptable: what a server says of the request itself is final, what it says
// of its own state is not.
func acceptable(resp *http.Response, most int64) error {
	code := resp.StatusCode
	switch {
	case code == http.StatusOK && resp.ContentLength > most:
		return tooLarge(most)
	case code == http.StatusOK:
		return nil
	case code >= 500, code == http.StatusTooManyRequests, code == http.StatusRequestTimeout:
		return fmt.Errorf("the server answered %s", resp.Status)
	}
	return refuse("the server answered %s", resp.Status)
}

// lively tells whenever something was read.
type lively struct {
	r     io.Reader
	alive func()
}

func (l *lively) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	l.alive()
	return n, err
}
