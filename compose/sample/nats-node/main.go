// Nats-node is one node of a NATS cluster. The nodes find one another through
// Consul: each asks for the service NATS_SERVICE (default "nats") with the tag
// "cluster", which the cluster registers for every running instance, and keeps
// its routes in step with the answer.
package main

import (
	"context"
	"log"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/mesopool/mesopool/compose/sample/catalog"
)

const (
	clientPort  = 4222
	clusterPort = 6222
	monitorPort = 8222
	lookEvery   = 3 * time.Second
)

func main() {
	log.SetPrefix("nats-node: ")
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	ip, err := catalog.OwnIP()
	if err != nil {
		return err
	}
	service := os.Getenv("NATS_SERVICE")
	if service == "" {
		service = "nats"
	}
	node, err := server.NewServer(options(ip, service, nil))
	if err != nil {
		return err
	}
	node.ConfigureLogger()
	go node.Start()
	follow(ctx, node, ip, service)
	node.Shutdown()
	node.WaitForShutdown()
	return nil
}

// options are the node's settings with routes to these peers.
func options(ip, service string, peers []string) *server.Options {
	o := &server.Options{
		ServerName: "nats-" + strings.ReplaceAll(ip, ".", "-"),
		Host:       "0.0.0.0", Port: clientPort, HTTPHost: "0.0.0.0", HTTPPort: monitorPort,
		NoSigs: true,
	}
	o.Cluster.Name, o.Cluster.Host, o.Cluster.Port = service, ip, clusterPort
	for _, p := range peers {
		o.Routes = append(o.Routes, &url.URL{Scheme: "nats-route", Host: p})
	}
	return o
}

// follow keeps the routes as Consul tells the peers, until ctx ends. When
// Consul does not answer, the routes stay as they are.
func follow(ctx context.Context, node *server.Server, ip, service string) {
	var peers []string
	well := true
	for ; ctx.Err() == nil; sleep(ctx, lookEvery) {
		found, err := catalog.Instances(ctx, catalog.Consul(), service, "cluster", false)
		if (err == nil) != well {
			well = err == nil
			log.Printf("asking Consul for the peers: %v", answer(err))
		}
		if err != nil {
			continue
		}
		found = slices.DeleteFunc(found, func(p string) bool { return strings.HasPrefix(p, ip+":") })
		if slices.Equal(found, peers) {
			continue
		}
		log.Printf("peers are now %v", found)
		if err := node.ReloadOptions(options(ip, service, found)); err != nil {
			log.Printf("new routes: %v", err)
			continue
		}
		peers = found
	}
}

func answer(err error) any {
	if err == nil {
		return "works again"
	}
	return err
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
