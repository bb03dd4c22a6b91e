package detect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"
	"google.golang.org/protobuf/proto"

	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
)

const zkSession = 10 * time.Second

// conn is what is used of a ZooKeeper client.
type conn interface {
	ChildrenW(path string) ([]string, *zk.Stat, <-chan zk.Event, error)
	Get(path string) ([]byte, *zk.Stat, error)
	Close()
}

// zookeeper reads the group of masters: ephemeral nodes with sequence numbers,
// of which the lowest leads (zookeeper/group.cpp, detector.cpp). What was read
// holds until the watch says that the group has changed.
type zookeeper struct {
	servers []string
	auth    string // user:password
	path    string
	timeout time.Duration
	connect func(servers []string, auth string) (conn, error)

	mu      sync.Mutex
	conn    conn
	leader  string
	changed <-chan zk.Event
}

// parseZooKeeper reads [user:password@]host[:port],…/path.
func parseZooKeeper(rest string, o Options) (*zookeeper, error) {
	z := &zookeeper{timeout: o.Timeout, connect: dialZooKeeper}
	hosts, path, _ := strings.Cut(rest, "/")
	if at := strings.LastIndex(rest, "@"); at >= 0 {
		z.auth = rest[:at]
		hosts, path, _ = strings.Cut(rest[at+1:], "/")
	}
	z.path = "/" + strings.Trim(path, "/")
	if z.path == "/" {
		return nil, errors.New("detect: a zk:// address must end with the path of the masters, as in zk://host:2181/mesos")
	}
	if z.auth != "" && !strings.Contains(z.auth, ":") {
		return nil, errors.New("detect: the credentials in a zk:// address must be user:password")
	}
	for h := range strings.SplitSeq(hosts, ",") {
		if _, _, err := net.SplitHostPort(h); err != nil {
			h = net.JoinHostPort(strings.Trim(h, "[]"), "2181")
		}
		if _, _, err := splitAddress(h); err != nil {
			return nil, fmt.Errorf("detect: %q is no ZooKeeper server; a zk:// address is zk://host:2181,host:2181/path", h)
		}
		z.servers = append(z.servers, h)
	}
	return z, nil
}

type quiet struct{}

func (quiet) Printf(string, ...any) {}

func dialZooKeeper(servers []string, auth string) (conn, error) {
	c, _, err := zk.Connect(servers, zkSession, zk.WithLogger(quiet{}))
	if err != nil || auth == "" {
		return c, err
	}
	go c.AddAuth("digest", []byte(auth)) // waits for the connection; kept for later ones
	return c, nil
}

func (z *zookeeper) Close() error {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.drop()
	return nil
}

func (z *zookeeper) drop() {
	if z.conn != nil {
		z.conn.Close()
	}
	z.conn, z.changed = nil, nil
}

func (z *zookeeper) find(ctx context.Context) (string, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.changed != nil {
		select {
		case <-z.changed:
			z.changed = nil
		default:
			return z.leader, nil
		}
	}
	if z.conn == nil {
		c, err := z.connect(z.servers, z.auth)
		if err != nil {
			return "", fmt.Errorf("detect: ZooKeeper at %s: %w", strings.Join(z.servers, ","), err)
		}
		z.conn = c
	}
	return z.read(ctx)
}

type found struct {
	leader  string
	changed <-chan zk.Event
	err     error
}

// read asks ZooKeeper, which may not answer: then the session is given up.
func (z *zookeeper) read(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, z.timeout)
	defer cancel()
	answer, c := make(chan found, 1), z.conn
	go func() { answer <- z.look(c) }()
	select {
	case <-ctx.Done():
		z.drop()
		return "", fmt.Errorf("detect: ZooKeeper at %s does not answer: %w", strings.Join(z.servers, ","), ctx.Err())
	case f := <-answer:
		if f.err != nil {
			return "", fmt.Errorf("detect: ZooKeeper at %s: %w", strings.Join(z.servers, ","), f.err)
		}
		z.leader, z.changed = f.leader, f.changed
		return f.leader, nil
	}
}

func (z *zookeeper) look(c conn) found {
	names, _, changed, err := c.ChildrenW(z.path)
	if err != nil {
		return found{err: fmt.Errorf("list %s: %w", z.path, err)}
	}
	name, ok := lowest(names)
	if !ok {
		return found{err: fmt.Errorf("no master is in the group %s", z.path)}
	}
	data, _, err := c.Get(z.path + "/" + name)
	if err != nil {
		return found{err: fmt.Errorf("read %s/%s: %w", z.path, name, err)}
	}
	leader, err := masterAddress(name, data)
	return found{leader, changed, err}
}

// lowest finds the leader's node: label_<ten digits>, or the digits alone.
// Others, such as log_replicas, are no masters.
func lowest(names []string) (string, bool) {
	best, least := "", uint64(0)
	for _, n := range names {
		label, digits := "", n
		if i := strings.LastIndexByte(n, '_'); i >= 0 {
			label, digits = n[:i], n[i+1:]
		}
		if label != "" && label != "json.info" && label != "info" || len(digits) != 10 {
			continue
		}
		seq, err := strconv.ParseUint(digits, 10, 64)
		if err == nil && (best == "" || seq < least) {
			best, least = n, seq
		}
	}
	return best, best != ""
}

// masterAddress reads a node: JSON, or as older masters wrote it the MasterInfo
// itself or the bare actor's name.
func masterAddress(name string, data []byte) (string, error) {
	pid := string(data)
	switch {
	case strings.HasPrefix(name, "json.info_"):
		var info struct{ Pid string }
		if err := json.Unmarshal(data, &info); err != nil {
			return "", fmt.Errorf("%s holds no JSON of a master: %w", name, err)
		}
		pid = info.Pid
	case strings.HasPrefix(name, "info_"):
		var info mesosv1.MasterInfo
		if err := proto.Unmarshal(data, &info); err != nil {
			return "", fmt.Errorf("%s holds no description of a master: %w", name, err)
		}
		pid = info.GetPid()
	}
	_, address, ok := strings.Cut(pid, "@")
	if !ok {
		return "", fmt.Errorf("%s names the master %q, which is not master@ip:port", name, pid)
	}
	_, _, err := splitAddress(address)
	return address, err
}
