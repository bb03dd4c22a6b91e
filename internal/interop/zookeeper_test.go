package interop

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	_ "github.com/mesos/mesos-go/api/v0/detector/zoo"
	"github.com/mesos/mesos-go/api/v0/mesosproto"
)

// zkServer is where Debian's package has its start script.
const zkServer = "/usr/share/zookeeper/bin/zkServer.sh"

// zookeeper starts a server and returns its address.
func zookeeper(t *testing.T) string {
	t.Helper()
	if _, err := os.Stat(zkServer); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%s needs a ZooKeeper: %v", t.Name(), err)
		}
		t.Skip("no ZooKeeper: install Debian's package zookeeper")
	}
	dir, port := t.TempDir(), 20_000+rand.IntN(10_000)
	text := fmt.Sprintf("tickTime=500\ndataDir=%s\nclientPortAddress=127.0.0.1\nclientPort=%d\nadmin.enableServer=false\n", dir, port)
	config := filepath.Join(dir, "zoo.cfg")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(zkServer, "start-foreground", config)
	cmd.Env = append(os.Environ(), "ZOO_LOG_DIR="+dir, "ZOOPIDFILE="+filepath.Join(dir, "pid"), "JMXDISABLE=true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	at := fmt.Sprintf("127.0.0.1:%d", port)
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		conn, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", at)
		if err == nil {
			conn.Close()
			return at
		}
		if time.Now().After(deadline) {
			t.Fatal("ZooKeeper does not answer")
		}
	}
}

// TestZooKeeper has two masters elect a leader in ZooKeeper, where an agent of
// ours and the driver of mesos-go find it; when it dies, the other one takes
// over, and the task goes on.
func TestZooKeeper(t *testing.T) {
	group := "zk://" + zookeeper(t) + "/mesos"
	master := func() *process {
		at := port(t)
		p := run(t, "master", "--ip", "127.0.0.1", "--port", at, "--work-dir", t.TempDir(), "--zk", group)
		await(t, "http://127.0.0.1:"+at+"/state") // by itself, or through the leader
		return p
	}
	first := master()
	master()
	run(t, "agent", "--ip", "127.0.0.1", "--port", port(t), "--master", group, "--provider", "memory", "--resources", "cpus:4;mem:4096;disk:4096")
	f, d := drive(t, group, "", nil)
	next(t, "registration", f.registered, f.errors)
	f.launch(t, d, "t1")
	f.state(t, "t1", mesosproto.TaskState_TASK_RUNNING)

	first.stop() // by a signal that nobody can catch
	next(t, "registration with the other master", f.registered, f.errors)
	killed := make(chan struct{})
	go func() { // again and again: what is asked before the agent is back is nobody's business
		for d.KillTask(&mesosproto.TaskID{Value: new("t1")}); ; d.KillTask(&mesosproto.TaskID{Value: new("t1")}) {
			select {
			case <-killed:
				return
			case <-time.After(time.Second):
			}
		}
	}()
	f.state(t, "t1", mesosproto.TaskState_TASK_KILLED)
	close(killed)
}
