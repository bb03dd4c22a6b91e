package scheduler

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/mesos/recordio"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	schedulerv1 "github.com/mesopool/mesopool/mesos/v1/scheduler"
	"github.com/mesopool/mesopool/task"
)

// Handler is told what happens, from one goroutine, in order. Its methods
// should return soon.
type Handler interface {
	// Subscribed comes first on every stream. The ID must be durable when it
	// returns; an error ends the client.
	Subscribed(frameworkID, masterID string) error
	Offers([]task.Offer)
	Rescinded(offerID string)
	// Update reports a task. An update with a UUID wants an Acknowledge.
	Update(taskID, agentID string, s task.Status)
	AgentLost(agentID string)
	// Disconnected says that the stream ended; offers are void.
	Disconnected()
}

// Config is who subscribes and where.
type Config struct {
	Framework *mesosv1.FrameworkInfo // with its ID once it has one
	// Master finds the leading master, as host:port.
	Master func(context.Context) (string, error)
	Log    *slog.Logger // nil: slog.Default
	// Principal and Secret prove who the framework is (HTTP basic); "": it proves
	// nothing.
	Principal, Secret string
	// Dial connects to a master; nil: plain TCP.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Retry is the longest pause between attempts to subscribe. 0: 5s.
	Retry time.Duration
}

const (
	apiPath     = "/api/v1/scheduler"
	contentType = "application/x-protobuf"
	// maxRecord is a guard, not a limit of the protocol.
	maxRecord = 256 << 20
	// answerTime is how long a master may take to answer a subscription.
	answerTime = 30 * time.Second
)

// handlerError is what a Handler ends the client with.
type handlerError struct{ error }

// ErrRefused is why Run ends: the master does not want this framework.
var ErrRefused = errors.New("the master refuses the subscription")

// Client is a framework's connection to the masters.
type Client struct {
	cfg  Config
	log  *slog.Logger
	http *http.Client

	mu    sync.Mutex
	calls *caller // nil while not subscribed
}

// proof is the header that says who the framework is, "" for none.
func (c *Config) proof() string {
	if c.Principal == "" {
		return ""
	}
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(c.Principal+":"+c.Secret))
}

// New returns a client that has not started.
func New(cfg Config) *Client {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Retry <= 0 {
		cfg.Retry = 5 * time.Second
	}
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
	}
	noRedirect := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	transport := &http.Transport{
		DisableCompression: true, DialContext: cfg.Dial, ResponseHeaderTimeout: answerTime,
	}
	return &Client{cfg: cfg, log: cfg.Log, http: &http.Client{Transport: transport, CheckRedirect: noRedirect}}
}

// Run subscribes and hands out events until ctx ends or the master refuses the
// framework for good.
func (c *Client) Run(ctx context.Context, h Handler) error {
	pause := 100 * time.Millisecond
	told := false
	for ctx.Err() == nil {
		started := time.Now()
		err := c.session(ctx, h)
		if ctx.Err() != nil {
			return nil
		}
		if own := (handlerError{}); errors.As(err, &own) {
			return own.error
		}
		if errors.Is(err, ErrRefused) {
			return err
		}
		if time.Since(started) > 10*time.Second {
			pause, told = 100*time.Millisecond, false
		}
		if !told {
			c.log.Warn("not subscribed to a master; trying again", "error", err)
			told = true
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + rand.N(pause)):
		}
		pause = min(2*pause, c.cfg.Retry)
	}
	return nil
}

// session is one subscription, from the first byte to the end of its stream.
func (c *Client) session(ctx context.Context, h Handler) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer c.http.CloseIdleConnections()
	master, err := c.cfg.Master(ctx)
	if err != nil {
		return err
	}
	resp, master, err := c.subscribe(ctx, master)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	calls := newCaller(master, resp.Header.Get("Mesos-Stream-Id"), &c.cfg, cancel)
	defer calls.close()
	return c.read(ctx, resp.Body, calls, h)
}

// subscribe follows redirects to the leader.
func (c *Client) subscribe(ctx context.Context, master string) (*http.Response, string, error) {
	body, err := proto.Marshal(&schedulerv1.Call{
		Type: schedulerv1.Call_SUBSCRIBE.Enum(), FrameworkId: c.cfg.Framework.Id,
		Subscribe: &schedulerv1.Call_Subscribe{FrameworkInfo: c.cfg.Framework},
	})
	if err != nil {
		return nil, "", err
	}
	for range 9 {
		resp, err := c.post(ctx, master, body)
		if err != nil {
			return nil, "", err
		}
		switch resp.StatusCode {
		case http.StatusOK:
			return resp, master, nil
		case http.StatusTemporaryRedirect:
			resp.Body.Close()
			if master, err = leader(resp); err != nil {
				return nil, "", err
			}
		default:
			return nil, "", failure(master, resp)
		}
	}
	return nil, "", errors.New("scheduler: the masters redirect in a circle")
}

func (c *Client) post(ctx context.Context, master string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+master+apiPath, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("scheduler: %q is no address of a master: %w", master, err)
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Accept", contentType)
	if proof := c.cfg.proof(); proof != "" {
		req.Header.Set("Authorization", proof)
	}
	return c.http.Do(req)
}

// leader reads the address out of a redirect, which has no scheme.
func leader(resp *http.Response) (string, error) {
	u, err := url.Parse(resp.Header.Get("Location"))
	if err != nil || u.Host == "" {
		return "", fmt.Errorf("scheduler: the redirect %q names no master", resp.Header.Get("Location"))
	}
	return u.Host, nil
}

func failure(master string, resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
	resp.Body.Close()
	return fmt.Errorf("scheduler: %s answered %s: %s", master, resp.Status, strings.TrimSpace(string(text)))
}

// read hands events out until the stream ends. A stream that stays silent for
// several heartbeats is broken.
func (c *Client) read(ctx context.Context, body io.ReadCloser, calls *caller, h Handler) error {
	silence := 75 * time.Second
	watchdog := time.AfterFunc(silence, func() { body.Close() })
	defer watchdog.Stop()
	records := recordio.NewReader(body, maxRecord)
	subscribed := false
	defer func() {
		c.setCalls(nil)
		if subscribed {
			h.Disconnected()
		}
	}()
	for {
		record, err := records.Next()
		if err != nil {
			return fmt.Errorf("scheduler: the event stream ended: %w", err)
		}
		var e schedulerv1.Event
		if err := proto.Unmarshal(record, &e); err != nil {
			return fmt.Errorf("scheduler: an event does not parse: %w", err)
		}
		if e.GetType() == schedulerv1.Event_SUBSCRIBED {
			if s := e.GetSubscribed().GetHeartbeatIntervalSeconds(); s > 0 {
				silence = time.Duration(5 * s * float64(time.Second))
			}
			c.cfg.Framework.Id = e.GetSubscribed().GetFrameworkId()
			calls.start(ctx, c.cfg.Framework.Id)
			c.setCalls(calls)
			subscribed = true
		}
		watchdog.Reset(silence)
		if err := dispatch(&e, h); err != nil {
			return err
		}
	}
}

func (c *Client) setCalls(calls *caller) {
	c.mu.Lock()
	c.calls = calls
	c.mu.Unlock()
}

// send drops calls while there is no stream: what they were about is void then.
func (c *Client) send(call *schedulerv1.Call) {
	c.mu.Lock()
	calls := c.calls
	c.mu.Unlock()
	if calls != nil {
		calls.put(call)
	}
}
