package detect

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-zookeeper/zk"
	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/mesos/mesosjson"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
)

// ensemble is a ZooKeeper in memory with as many clients as want to.
type ensemble struct {
	mu       sync.Mutex
	nodes    map[string]*znode
	next     int
	watchers []chan zk.Event
	clients  []*zclient
	lose     int // answers to creations that get lost
}

type znode struct {
	data  []byte
	acl   []zk.ACL
	owner *zclient
}

// zclient is one session.
type zclient struct {
	e      *ensemble
	events chan zk.Event
	over   bool
}

func newEnsemble() *ensemble { return &ensemble{nodes: map[string]*znode{}} }

func (e *ensemble) join([]string, string) (groupConn, <-chan zk.Event, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := &zclient{e, make(chan zk.Event, 10), false}
	c.events <- zk.Event{State: zk.StateHasSession}
	e.clients = append(e.clients, c)
	return c, c.events, nil
}

func (e *ensemble) changed() {
	for _, w := range e.watchers {
		w <- zk.Event{}
	}
	e.watchers = nil
}

func (c *zclient) Exists(path string) (bool, *zk.Stat, error) {
	c.e.mu.Lock()
	defer c.e.mu.Unlock()
	return c.e.nodes[path] != nil, nil, c.alive()
}

func (c *zclient) alive() error {
	if c.over {
		return zk.ErrClosing
	}
	return nil
}

func (c *zclient) Create(path string, data []byte, flags int32, acl []zk.ACL) (string, error) {
	c.e.mu.Lock()
	defer c.e.mu.Unlock()
	parent := path[:strings.LastIndexByte(path, '/')]
	switch {
	case c.over:
		return "", zk.ErrClosing
	case parent != "" && c.e.nodes[parent] == nil:
		return "", zk.ErrNoNode
	}
	n := &znode{data: data, acl: acl}
	if flags&zk.FlagEphemeral != 0 {
		n.owner = c
	}
	if flags&zk.FlagSequence != 0 {
		path += fmt.Sprintf("%010d", c.e.next)
		c.e.next++
	}
	if c.e.nodes[path] != nil {
		return "", zk.ErrNodeExists
	}
	c.e.nodes[path] = n
	c.e.changed()
	if c.e.lose > 0 && n.owner != nil {
		c.e.lose--
		return "", zk.ErrConnectionClosed
	}
	return path, nil
}

func (c *zclient) ChildrenW(path string) ([]string, *zk.Stat, <-chan zk.Event, error) {
	c.e.mu.Lock()
	defer c.e.mu.Unlock()
	w := make(chan zk.Event, 1)
	c.e.watchers = append(c.e.watchers, w)
	return c.e.children(path), nil, w, c.alive()
}

func (e *ensemble) children(path string) (names []string) {
	for p := range e.nodes {
		if name, ok := strings.CutPrefix(p, path+"/"); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (c *zclient) Get(path string) ([]byte, *zk.Stat, error) {
	c.e.mu.Lock()
	defer c.e.mu.Unlock()
	if n := c.e.nodes[path]; n != nil {
		return n.data, nil, c.alive()
	}
	return nil, nil, zk.ErrNoNode
}

func (c *zclient) Close() { c.end() }

func (c *zclient) end() {
	c.e.mu.Lock()
	defer c.e.mu.Unlock()
	c.over = true
	for p, n := range c.e.nodes {
		if n.owner == c {
			delete(c.e.nodes, p)
		}
	}
	c.e.changed()
}

// members are the nodes of the group.
func (e *ensemble) members() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.children("/mesos/masters")
}

// drop removes a node, as an operator can.
func (e *ensemble) drop(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.nodes, "/mesos/masters/"+name)
	e.changed()
}

func (e *ensemble) session(i int) *zclient {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.clients[i]
}

// candidate is a contender that runs.
type candidate struct {
	*Contender
	elected chan struct{}
	done    chan error
	cancel  context.CancelFunc
}

func masterJSON(n int) []byte {
	pid := fmt.Sprintf("master@10.0.0.%d:5050", n)
	return mesosjson.Marshal(&mesosv1.MasterInfo{Id: new(fmt.Sprint(n)), Ip: new(uint32(n)), Port: new(uint32(5050)), Pid: &pid})
}

func contend(t *testing.T, e *ensemble, n int) *candidate {
	t.Helper()
	c, err := NewContender("zk://me:secret@a:2181/mesos/masters", nil)
	if err != nil {
		t.Fatal(err)
	}
	c.join = e.join
	return run(t, c, n)
}

func run(t *testing.T, c *Contender, n int) *candidate {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	out := &candidate{c, make(chan struct{}), make(chan error, 1), cancel}
	go func() { out.done <- c.Run(ctx, masterJSON(n), func() { close(out.elected) }) }()
	t.Cleanup(cancel)
	return out
}

func (c *candidate) leads() bool {
	select {
	case <-c.elected:
		return true
	default:
		return false
	}
}

func TestContenders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEnsemble()
		first := contend(t, e, 1)
		synctest.Wait()
		second := contend(t, e, 2)
		synctest.Wait()
		if !first.leads() || second.leads() || second.Leader() != "10.0.0.1:5050" || first.Leader() != second.Leader() {
			t.Fatalf("the first leads=%v, the second leads=%v and follows %q", first.leads(), second.leads(), second.Leader())
		}
		if got := e.members(); !slices.Equal(got, []string{"json.info_0000000000", "json.info_0000000001"}) {
			t.Errorf("members %v", got)
		}
		e.mu.Lock()
		acl := e.nodes["/mesos/masters/json.info_0000000000"].acl
		e.mu.Unlock()
		if len(acl) != 2 || acl[0].Scheme != "world" || acl[0].Perms != zk.PermRead || acl[1].Scheme != "auth" || acl[1].Perms != zk.PermAll {
			t.Errorf("access %v", acl)
		}
		e.session(0).events <- zk.Event{State: zk.StateExpired}
		synctest.Wait()
		if err := <-first.done; !errors.Is(err, ErrDeposed) {
			t.Errorf("the first ends with %v", err)
		}
		if !second.leads() || second.Leader() != "10.0.0.2:5050" {
			t.Errorf("the second leads=%v and knows %q", second.leads(), second.Leader())
		}
		second.cancel()
		if err := <-second.done; err != nil || len(e.members()) > 0 {
			t.Errorf("it ends with %v and leaves %v", err, e.members())
		}
	})
}

// A leader without a connection stops when its session may be over, and not
// before.
func TestContenderIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEnsemble()
		c := contend(t, e, 1)
		synctest.Wait()
		e.session(0).events <- zk.Event{State: zk.StateDisconnected}
		time.Sleep(zkSession - time.Millisecond)
		e.session(0).events <- zk.Event{State: zk.StateHasSession}
		synctest.Wait()
		time.Sleep(time.Hour)
		select {
		case err := <-c.done:
			t.Fatalf("it ends with %v", err)
		default:
		}
		e.session(0).events <- zk.Event{State: zk.StateDisconnected}
		time.Sleep(zkSession)
		if err := <-c.done; !errors.Is(err, ErrDeposed) || !strings.Contains(err.Error(), "no ZooKeeper server answers") {
			t.Errorf("it ends with %v", err)
		}
	})
}

// Whoever only follows comes back; a node that a lost answer leaves behind goes
// with its session.
func TestContenderComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEnsemble()
		e.lose = 2
		first := contend(t, e, 1)
		time.Sleep(5 * time.Second)
		second := contend(t, e, 2)
		synctest.Wait()
		if got := e.members(); !first.leads() || !slices.Equal(got, []string{"json.info_0000000002", "json.info_0000000003"}) {
			t.Fatalf("the first leads=%v, members %v", first.leads(), got)
		}
		e.drop("json.info_0000000003")
		time.Sleep(5 * time.Second)
		if got := e.members(); second.leads() || !slices.Equal(got, []string{"json.info_0000000002", "json.info_0000000004"}) {
			t.Fatalf("the second leads=%v, members %v", second.leads(), got)
		}
		e.drop("json.info_0000000002")
		if err := <-first.done; !errors.Is(err, ErrDeposed) {
			t.Errorf("the first ends with %v", err)
		}
		synctest.Wait()
		if !second.leads() {
			t.Error("the second does not lead")
		}
		second.cancel()
		<-second.done
	})
}

func TestContenderTexts(t *testing.T) {
	for _, text := range []string{"", "a:2181/mesos", "zk://a:2181", "zk://me@a/mesos", "file:///x"} {
		if _, err := NewContender(text, nil); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

// Masters of ours in a real group, found as agents and drivers find them.
func TestRealContenders(t *testing.T) {
	text := fmt.Sprintf("zk://me:secret@%s/mesopool-%d/masters", realZooKeeper(t), time.Now().UnixNano())
	d := detector(t, text, Options{})
	var all []*candidate
	for n := range 2 {
		c, err := NewContender(text, nil)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, run(t, c, n+1))
		if n == 0 {
			<-all[0].elected
		}
	}
	eventually(t, d, "10.0.0.1:5050")
	for deadline := time.Now().Add(20 * time.Second); all[1].Leader() != "10.0.0.1:5050"; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the second follows %q", all[1].Leader())
		}
	}
	all[0].cancel()
	if err := <-all[0].done; err != nil {
		t.Error(err)
	}
	<-all[1].elected
	eventually(t, d, "10.0.0.2:5050")
	data, _, err := d.finder.(*zookeeper).conn.Get(d.finder.(*zookeeper).path + "/json.info_0000000001")
	if err != nil {
		t.Fatal(err)
	}
	info := &mesosv1.MasterInfo{}
	if err := mesosjson.Unmarshal(data, info); err != nil || !proto.Equal(info, &mesosv1.MasterInfo{Id: new("2"), Ip: new(uint32(2)), Port: new(uint32(5050)), Pid: new("master@10.0.0.2:5050")}) {
		t.Errorf("published %s, error %v", data, err)
	}
}
