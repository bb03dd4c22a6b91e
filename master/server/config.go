package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/mesopool/mesopool/internal/uuid"
	"github.com/mesopool/mesopool/master"
	"github.com/mesopool/mesopool/store"
)

// Config says what a Server is and where. Listener and Store have no default.
type Config struct {
	ID        string         // the master's UUID as text; "": a new one, as it should be at every start
	Listener  net.Listener   // Run closes it
	Advertise netip.AddrPort // what others reach it at; zero: the listener's address
	Hostname  string         // what people reach it at; "": the IP address
	Cluster   string         // a name for people; may be empty
	Store     store.Store    // keeps the admitted agents
	Core      master.Config  // the zero value is master.DefaultConfig; its ID is set from ID

	// Dial connects to agents; nil: plain TCP. Where Listener speaks TLS it should
	// too.
	Dial     func(ctx context.Context, addr string) (net.Conn, error)
	Auth     Auth     // who must prove who they are, and who may do what
	Limits   *Limits  // of frameworks' calls; nil: none
	Election Election // nil: this master leads from the start

	Version string            // the Mesos that is spoken; "": 1.11.0
	Build   Build             // what was built, for people
	Flags   map[string]string // shown by /flags and /state

	Heartbeat   time.Duration // between two heartbeats of an event stream; 0: 15s
	StreamQueue int           // bytes that may wait for a framework before it is cut off; 0: 512 MiB
	Pages       http.Handler  // serves every other path; nil: 404
	Log         *slog.Logger  // nil: slog.Default
}

// Build says which program this is.
type Build struct {
	Date   time.Time
	User   string
	SHA    string
	Branch string
	Tag    string
}

const (
	defaultVersion   = "1.11.0"
	defaultHeartbeat = 15 * time.Second
	// defaultQueue has room for the reconciliation of a million tasks.
	defaultQueue = 512 << 20
)

func (c Config) withDefaults() (Config, error) {
	if c.Listener == nil || c.Store == nil {
		return c, errors.New("server: a listener and a store are needed")
	}
	if c.ID == "" {
		c.ID = uuid.New().String()
	}
	if c.Core.PingLimit == 0 {
		c.Core = master.DefaultConfig()
	}
	c.Core.ID = c.ID
	if c.Version == "" {
		c.Version = defaultVersion
	}
	if c.Heartbeat <= 0 {
		c.Heartbeat = defaultHeartbeat
	}
	if c.StreamQueue <= 0 {
		c.StreamQueue = defaultQueue
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return c, nil
}
