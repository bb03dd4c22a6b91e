package scheduler

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	schedulerv1 "github.com/mesopool/mesopool/mesos/v1/scheduler"
)

// caller sends calls over one connection, pipelined: it does not wait for an
// answer before the next call. Whatever goes wrong with the connection ends
// the session.
type caller struct {
	master string
	header string
	dial   func(ctx context.Context, network, addr string) (net.Conn, error)
	log    *slog.Logger
	fail   context.CancelFunc

	mu      sync.Mutex
	ready   sync.Cond
	queue   []*schedulerv1.Call
	unacked []schedulerv1.Call_Type // calls without an answer yet, oldest first
	id      *mesosv1.FrameworkID
	conn    net.Conn
	closed  bool
}

func newCaller(master, stream string, cfg *Config, fail context.CancelFunc) *caller {
	c := &caller{master: master, dial: cfg.Dial, log: cfg.Log, fail: fail}
	c.ready.L = &c.mu
	c.header = "POST " + apiPath + " HTTP/1.1\r\nHost: " + master + "\r\nContent-Type: " + contentType +
		"\r\nMesos-Stream-Id: " + stream + "\r\nContent-Length: "
	if proof := cfg.proof(); proof != "" {
		c.header = strings.Replace(c.header, "\r\nContent-Length: ", "\r\nAuthorization: "+proof+"\r\nContent-Length: ", 1)
	}
	return c
}

// start begins to send, as the framework that the master knows by now.
func (c *caller) start(ctx context.Context, id *mesosv1.FrameworkID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.id != nil {
		return
	}
	c.id = id
	go c.run(ctx)
}

func (c *caller) put(call *schedulerv1.Call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	call.FrameworkId = c.id
	c.queue = append(c.queue, call)
	c.ready.Signal()
}

// take waits for calls; nil means that the caller is closed.
func (c *caller) take() []*schedulerv1.Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.queue) == 0 && !c.closed {
		c.ready.Wait()
	}
	if c.closed {
		return nil
	}
	batch := c.queue
	c.queue = nil
	for _, call := range batch {
		c.unacked = append(c.unacked, call.GetType())
	}
	return batch
}

func (c *caller) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.ready.Broadcast()
	if c.conn != nil {
		c.conn.Close()
	}
}

func (c *caller) run(ctx context.Context) {
	err := c.pump(ctx)
	if err != nil && ctx.Err() == nil {
		c.log.Warn("the connection for calls broke; subscribing again", "master", c.master, "error", err)
	}
	c.fail()
}

func (c *caller) pump(ctx context.Context) error {
	conn, err := c.dial(ctx, "tcp", c.master)
	if err != nil {
		return err
	}
	defer conn.Close()
	c.mu.Lock()
	c.conn = conn
	c.mu.Unlock()
	go c.readAnswers(conn)
	w := bufio.NewWriterSize(conn, 64<<10)
	for batch := c.take(); batch != nil; batch = c.take() {
		for _, call := range batch {
			if err := c.write(w, call); err != nil {
				return err
			}
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return nil
}

func (c *caller) write(w *bufio.Writer, call *schedulerv1.Call) error {
	body, err := proto.Marshal(call)
	if err != nil {
		return err
	}
	w.WriteString(c.header)
	w.WriteString(strconv.Itoa(len(body)))
	w.WriteString("\r\n\r\n")
	_, err = w.Write(body)
	return err
}

// readAnswers checks that every call was taken. A refused one is told and, as
// it means that the two sides no longer agree, ends the session.
func (c *caller) readAnswers(conn net.Conn) {
	defer c.fail()
	r := bufio.NewReader(conn)
	for {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return
		}
		kind := c.answered()
		if resp.StatusCode/100 == 2 {
			io.Copy(io.Discard, resp.Body)
			continue
		}
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		c.log.Error("the master refused a call", "call", kind.String(), "status", resp.Status, "why", fmt.Sprintf("%q", text))
		return
	}
}

func (c *caller) answered() schedulerv1.Call_Type {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.unacked) == 0 {
		return schedulerv1.Call_UNKNOWN
	}
	kind := c.unacked[0]
	c.unacked = c.unacked[1:]
	return kind
}
