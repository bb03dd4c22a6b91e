package detect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-zookeeper/zk"
)

// ErrDeposed is the end of a contender that led and leads no more.
var ErrDeposed = errors.New("detect: this master leads no longer")

// candidacy is how the node of a master's description begins.
const candidacy = "json.info_"

// groupConn is what is used of a ZooKeeper client to be in a group.
type groupConn interface {
	conn
	Exists(path string) (bool, *zk.Stat, error)
	Create(path string, data []byte, flags int32, acl []zk.ACL) (string, error)
}

// Contender puts a master into the group of a zk:// address and finds out when
// it leads (zookeeper/group.cpp, master/contender/zookeeper.cpp): its node is
// ephemeral and has a number, and the lowest number leads. Who leads stays the
// leader as long as its session lasts. Run is called once.
type Contender struct {
	group  *zookeeper
	join   func(servers []string, auth string) (groupConn, <-chan zk.Event, error)
	log    *slog.Logger
	retry  time.Duration
	leader atomic.Pointer[string]
}

// NewContender reads a zk:// address. log may be nil.
func NewContender(text string, log *slog.Logger) (*Contender, error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(text), "zk://")
	if !ok {
		return nil, fmt.Errorf("detect: %q is no group of masters; write zk://host:2181,host:2181/path", text)
	}
	group, err := parseZooKeeper(rest, Options{})
	if err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Contender{group: group, join: dialMember, log: log, retry: time.Second}, nil
}

func dialMember(servers []string, auth string) (groupConn, <-chan zk.Event, error) {
	c, events, err := zk.Connect(servers, zkSession, zk.WithLogger(quiet{}))
	if err != nil || auth == "" {
		return c, events, err
	}
	go c.AddAuth("digest", []byte(auth)) // waits for the connection; kept for later ones
	return c, events, nil
}

// Leader returns the host:port of the master that leads, "" while none is known.
func (c *Contender) Leader() string {
	if at := c.leader.Load(); at != nil {
		return *at
	}
	return ""
}

// Run contends with a MasterInfo as JSON until ctx ends, which is no error, and
// calls elected once when this master leads. Whoever has led and loses that gets
// ErrDeposed and must stop at once; who has only followed tries again.
func (c *Contender) Run(ctx context.Context, info []byte, elected func()) error {
	for ctx.Err() == nil {
		led, err := c.session(ctx, info, elected)
		c.leader.Store(nil)
		switch {
		case ctx.Err() != nil:
		case led:
			return fmt.Errorf("%w: %w", ErrDeposed, err)
		default:
			c.log.Warn("not in the group of masters; trying again", "zookeeper", strings.Join(c.group.servers, ","), "path", c.group.path, "error", err)
			wait(ctx, c.retry)
		}
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	<-ctx.Done()
}

// session is the life of one session: a member's node ends with it, also one
// whose creation had no answer.
func (c *Contender) session(ctx context.Context, info []byte, elected func()) (led bool, err error) {
	m, events, err := c.join(c.group.servers, c.group.auth)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	leave := sync.OnceFunc(m.Close)
	defer leave()                 // waits for the one below, so that the node is gone at the return
	context.AfterFunc(ctx, leave) // which ends what waits for an answer
	go watchSession(ctx, events, cancel)
	led, err = c.compete(ctx, m, info, elected)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return led, err
}

// watchSession ends a session that is over, or that has been without a
// connection for so long that the servers may have ended it.
func watchSession(ctx context.Context, events <-chan zk.Event, end context.CancelCauseFunc) {
	away := time.NewTimer(zkSession)
	defer away.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-away.C:
			end(fmt.Errorf("no ZooKeeper server answers for %s", zkSession))
			return
		case e, ok := <-events:
			switch {
			case !ok:
				return
			case e.State == zk.StateExpired || e.State == zk.StateAuthFailed:
				end(fmt.Errorf("the session is over: %s", e.State))
				return
			case e.State == zk.StateHasSession:
				away.Stop()
			case e.State == zk.StateDisconnected:
				away.Reset(zkSession)
			}
		}
	}
}

// compete joins the group and watches it until something goes wrong.
func (c *Contender) compete(ctx context.Context, m groupConn, info []byte, elected func()) (led bool, err error) {
	if err := c.makePath(m); err != nil {
		return false, err
	}
	node, err := m.Create(c.group.path+"/"+candidacy, info, zk.FlagEphemeral|zk.FlagSequence, c.acl())
	if err != nil {
		return false, fmt.Errorf("create %s/%s: %w", c.group.path, candidacy, err)
	}
	own := node[strings.LastIndexByte(node, '/')+1:]
	c.log.Info("in the group of masters", "node", node)
	for {
		changed, leads, err := c.look(m, own)
		if err != nil {
			return led, err
		}
		if leads && !led {
			led = true
			c.log.Info("this master leads", "node", node)
			elected()
		}
		select {
		case <-ctx.Done():
			return led, ctx.Err()
		case <-changed:
		}
	}
}

// look finds out who leads, and whether it is this master. A leader that went
// between two questions is a change that the watch tells.
func (c *Contender) look(m groupConn, own string) (changed <-chan zk.Event, leads bool, err error) {
	names, _, changed, err := m.ChildrenW(c.group.path)
	if err != nil {
		return nil, false, fmt.Errorf("list %s: %w", c.group.path, err)
	}
	first, mine := "", false
	for _, name := range names {
		mine = mine || name == own
	}
	if first, _ = lowest(names); !mine {
		return nil, false, fmt.Errorf("the node %s/%s is gone", c.group.path, own)
	}
	data, _, err := m.Get(c.group.path + "/" + first)
	if err != nil && !errors.Is(err, zk.ErrNoNode) {
		return nil, false, fmt.Errorf("read %s/%s: %w", c.group.path, first, err)
	}
	if err == nil {
		c.note(first, data)
	}
	return changed, first == own, nil
}

func (c *Contender) note(name string, data []byte) {
	at, err := masterAddress(name, data)
	if err != nil {
		c.log.Warn("the leader's description makes no sense", "error", err)
		c.leader.Store(nil)
		return
	}
	c.leader.Store(&at)
}

// makePath makes the group's node with all above it.
func (c *Contender) makePath(m groupConn) error {
	path := ""
	for part := range strings.SplitSeq(strings.TrimPrefix(c.group.path, "/"), "/") {
		path += "/" + part
		there, _, err := m.Exists(path)
		if err == nil && !there {
			_, err = m.Create(path, nil, 0, c.acl())
		}
		if err != nil && !errors.Is(err, zk.ErrNodeExists) {
			return fmt.Errorf("create %s: %w", path, err)
		}
	}
	return nil
}

// acl: with credentials only who has them may change what all may read
// (zookeeper/zookeeper.cpp, EVERYONE_READ_CREATOR_ALL).
func (c *Contender) acl() []zk.ACL {
	if c.group.auth == "" {
		return zk.WorldACL(zk.PermAll)
	}
	return append(zk.WorldACL(zk.PermRead), zk.AuthACL(zk.PermAll)...)
}
