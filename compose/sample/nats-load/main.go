// Nats-load sends messages through a NATS cluster, from one node to another,
// and prints how many arrive a second. It finds the nodes through Consul, as
// nats-node does. RATE bounds the messages a second (default 20000).
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/mesopool/mesopool/compose/sample/catalog"
)

const (
	subject = "mesopool.load"
	tick    = 10 * time.Millisecond
	report  = 5 * time.Second
)

func main() {
	log.SetPrefix("nats-load: ")
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	rate, err := setting("RATE", 20000)
	if err != nil {
		return err
	}
	nodes := findNodes(ctx)
	if ctx.Err() != nil {
		return nil
	}
	log.Printf("found %v", nodes)
	sender, err := connect(nodes[0])
	if err != nil {
		return err
	}
	defer sender.Close()
	receiver, err := connect(nodes[len(nodes)-1])
	if err != nil {
		return err
	}
	defer receiver.Close()
	var arrived atomic.Int64
	if _, err := receiver.Subscribe(subject, func(*nats.Msg) { arrived.Add(1) }); err != nil {
		return err
	}
	if err := receiver.Flush(); err != nil {
		return err
	}
	go tell(ctx, &arrived, sender, receiver)
	return send(ctx, sender, rate)
}

// setting is a positive number from the environment.
func setting(name string, fallback int) (int, error) {
	text := os.Getenv(name)
	if text == "" {
		return fallback, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("%s=%q is no number of messages a second, such as 20000", name, text)
	}
	return n, nil
}

// findNodes waits until Consul knows nodes that are well.
func findNodes(ctx context.Context) []string {
	service := os.Getenv("NATS_SERVICE")
	if service == "" {
		service = "nats"
	}
	for ctx.Err() == nil {
		nodes, err := catalog.Instances(ctx, catalog.Consul(), service, "client", true)
		if err == nil && len(nodes) > 0 {
			return nodes
		}
		log.Printf("waiting for %s in Consul (%d nodes, error %v)", service, len(nodes), err)
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Second):
		}
	}
	return nil
}

func connect(node string) (*nats.Conn, error) {
	conn, err := nats.Connect("nats://"+node, nats.MaxReconnects(-1), nats.RetryOnFailedConnect(true),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { log.Printf("lost %s: %v", node, err) }),
		nats.ReconnectHandler(func(c *nats.Conn) { log.Printf("connected again, to %s", c.ConnectedAddr()) }))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", node, err)
	}
	return conn, nil
}

// send publishes rate messages a second until ctx ends.
func send(ctx context.Context, conn *nats.Conn, rate int) error {
	body := make([]byte, 128)
	each := max(1, rate/int(time.Second/tick))
	for t := time.NewTicker(tick); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		for range each {
			if err := conn.Publish(subject, body); err != nil {
				log.Printf("publish: %v", err)
				break
			}
		}
	}
}

// tell prints the throughput until ctx ends.
func tell(ctx context.Context, arrived *atomic.Int64, sender, receiver *nats.Conn) {
	for t := time.NewTicker(report); ; {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			log.Printf("%d messages/s from %s to %s", arrived.Swap(0)/int64(report/time.Second), sender.ConnectedAddr(), receiver.ConnectedAddr())
		}
	}
}
