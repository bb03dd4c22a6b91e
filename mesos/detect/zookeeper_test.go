package detect

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
)

// zkServer is where Debian's package has its start script.
const zkServer = "/usr/share/zookeeper/bin/zkServer.sh"

// realZooKeeper returns a running server's address: that of MESOPOOL_ZOOKEEPER,
// or that of one which it starts where Debian's package is installed.
func realZooKeeper(t *testing.T) string {
	t.Helper()
	address := os.Getenv("MESOPOOL_ZOOKEEPER")
	if address == "" {
		if _, err := os.Stat(zkServer); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("%s needs a ZooKeeper: %v", t.Name(), err)
			}
			t.Skip("no ZooKeeper: install Debian's package zookeeper, or set MESOPOOL_ZOOKEEPER to the host:port of a server")
		}
		address = startZooKeeper(t)
	}
	c, events, err := zk.Connect([]string{address}, zkSession, zk.WithLogger(quiet{}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	limit := time.After(30 * time.Second)
	for state := zk.StateDisconnected; state != zk.StateHasSession; {
		select {
		case e := <-events:
			state = e.State
		case <-limit:
			t.Fatalf("no ZooKeeper answers at %s", address)
		}
	}
	return address
}

func startZooKeeper(t *testing.T) string {
	t.Helper()
	// No port of the kernel's own choice: a client that tries it may reach itself.
	address := net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 20_000 + rand.IntN(10_000)}
	dir := t.TempDir()
	config := filepath.Join(dir, "zoo.cfg")
	text := fmt.Sprintf("tickTime=500\ndataDir=%s\nclientPortAddress=127.0.0.1\nclientPort=%d\nadmin.enableServer=false\n", dir, address.Port)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(zkServer, "start-foreground", config)
	cmd.Env = append(os.Environ(), "ZOO_LOG_DIR="+dir, "ZOOPIDFILE="+filepath.Join(dir, "pid"), "JMXDISABLE=true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return address.String()
}

// Masters come and go in a real group, whose nodes only they may read.
func TestRealZooKeeper(t *testing.T) {
	address := realZooKeeper(t)
	path := fmt.Sprintf("/mesopool-%d", time.Now().UnixNano())
	d := detector(t, "zk://me:secret@"+address+path, Options{})
	noLeader(t, d, "list "+path)
	masters, _, err := zk.Connect([]string{address}, zkSession, zk.WithLogger(quiet{}))
	if err != nil {
		t.Fatal(err)
	}
	defer masters.Close()
	if err := masters.AddAuth("digest", []byte("me:secret")); err != nil {
		t.Fatal(err)
	}
	acl := zk.DigestACL(zk.PermAll, "me", "secret")
	if _, err := masters.Create(path, nil, 0, acl); err != nil {
		t.Fatal(err)
	}
	noLeader(t, d, "no master is in the group")
	var nodes []string
	for n := range 2 {
		info := fmt.Sprintf(`{"id":"%d","pid":"master@10.0.0.%d:5050"}`, n, n)
		node, err := masters.Create(path+"/json.info_", []byte(info), zk.FlagEphemeral|zk.FlagSequence, acl)
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, node)
	}
	eventually(t, d, "10.0.0.0:5050")
	if err := masters.Delete(nodes[0], -1); err != nil {
		t.Fatal(err)
	}
	eventually(t, d, "10.0.0.1:5050")
	other := detector(t, "zk://me:wrong@"+address+path, Options{})
	noLeader(t, other, zk.ErrNoAuth.Error())
}

func eventually(t *testing.T, d *Detector, want string) {
	t.Helper()
	var got string
	var err error
	for range 100 {
		if got, err = d.Address(t.Context()); got == want {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("leader %q, error %v; want %q", got, err, want)
}
