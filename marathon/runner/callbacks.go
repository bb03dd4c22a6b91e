package runner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/mesopool/mesopool/marathon"
	"github.com/mesopool/mesopool/store"
)

// keyCallback is where the URLs are kept that events are posted to; what
// follows is the escaped URL.
const keyCallback = "marathon/callback/"

// mostCallbacks bounds the URLs, as each holds a queue.
const mostCallbacks = 32

// callbackTries are the waits after the failed tries to post an event, which is
// then left out.
var callbackTries = []time.Duration{time.Second, 5 * time.Second, 0}

// ErrBadCallback is a URL that events cannot be posted to.
var ErrBadCallback = errors.New("no callback")

// Callbacks posts every event to URLs, each in its own order: what Marathon
// before 1.5 did for those who had subscribed.
type Callbacks struct {
	store  store.Store
	bus    *Bus
	log    *slog.Logger
	client *http.Client

	mu    sync.Mutex
	ctx   context.Context // while Run works
	wg    sync.WaitGroup
	ended map[string]context.CancelFunc // by URL; nil when it does not work yet
}

func loadCallbacks(ctx context.Context, s store.Store, bus *Bus, log *slog.Logger) (*Callbacks, error) {
	c := &Callbacks{store: s, bus: bus, log: log, client: &http.Client{Timeout: 5 * time.Second}, ended: map[string]context.CancelFunc{}}
	urls, err := read[string](ctx, s, keyCallback)
	for _, u := range urls {
		c.ended[*u] = nil
	}
	return c, err
}

// callbackOp keeps a URL, or with nil forgets it.
func callbackOp(callback string, value any) ([]store.Op, error) {
	return saveOps([]marathon.Effect{marathon.Save{Key: keyCallback + url.QueryEscape(callback), Value: value}})
}

// List returns the URLs, sorted.
func (c *Callbacks) List() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.ended))
}

// Add subscribes a URL, for good. One that is known already stays as it is.
func (c *Callbacks) Add(ctx context.Context, callback string) error {
	u, err := url.Parse(callback)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("%w: %q is no URL that begins with http:// or https://", ErrBadCallback, callback)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.ended[callback]; known {
		return nil
	}
	if len(c.ended) >= mostCallbacks {
		return fmt.Errorf("%w: there are %d already; use /v2/events", ErrBadCallback, mostCallbacks)
	}
	ops, err := callbackOp(callback, callback)
	if err != nil {
		return err
	}
	if err := c.store.Commit(ctx, ops); err != nil {
		return err
	}
	c.begin(callback)
	return nil
}

// Remove ends the subscription of a URL, and says whether there was one.
func (c *Callbacks) Remove(ctx context.Context, callback string) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	end, known := c.ended[callback]
	if !known {
		return false, nil
	}
	ops, err := callbackOp(callback, nil)
	if err != nil {
		return true, err
	}
	if err := c.store.Commit(ctx, ops); err != nil {
		return true, err
	}
	delete(c.ended, callback)
	if end != nil {
		end()
	}
	return true, nil
}

// run posts until ctx ends.
func (c *Callbacks) run(ctx context.Context) error {
	c.mu.Lock()
	c.ctx = ctx
	for u := range c.ended {
		c.begin(u)
	}
	c.mu.Unlock()
	<-ctx.Done()
	c.mu.Lock()
	c.ctx = nil
	c.mu.Unlock()
	c.wg.Wait()
	return nil
}

// begin starts the posting to a URL, if Run works; the lock is held.
func (c *Callbacks) begin(callback string) {
	c.ended[callback] = nil
	if c.ctx == nil {
		return
	}
	ctx, cancel := context.WithCancel(c.ctx)
	c.ended[callback] = cancel
	l := c.bus.Listen(0)
	c.wg.Go(func() { c.follow(ctx, callback, l) })
}

// follow posts what a listener gets. One that was cut off because its URL is
// slow goes on with what is still kept.
func (c *Callbacks) follow(ctx context.Context, callback string, l *Listener) {
	last := uint64(0)
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case e, open := <-l.C:
			if !open {
				l = c.bus.Listen(last)
				continue
			}
			last = e.ID
			c.deliver(ctx, callback, e)
		}
	}
	l.Close()
}

func (c *Callbacks) deliver(ctx context.Context, callback string, e Event) {
	for _, wait := range callbackTries {
		err := c.post(ctx, callback, e)
		if err == nil || ctx.Err() != nil {
			return
		}
		c.log.Warn("an event was not taken", "callback", callback, "event", e.Type, "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

func (c *Callbacks) post(ctx context.Context, callback string, e Event) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, callback, bytes.NewReader(e.Data))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.client.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s answered %s", callback, resp.Status)
	}
	return nil
}
