// Package consultest starts a real Consul for a test.
package consultest

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Start starts the Consul that tools/consul pins, in development mode and with
// sessions as short as a second, and returns its host:port. It ends with the test.
// Without a Consul the test is skipped, but in CI, where it is built.
func Start(t *testing.T) string {
	t.Helper()
	program := binary(t)
	ports := freePorts(t, 4)
	cmd := exec.Command(program, "agent", "-dev", "-log-level=err", "-bind=127.0.0.1", "-client=127.0.0.1",
		"-http-port="+ports[0], "-server-port="+ports[1], "-serf-lan-port="+ports[2], "-serf-wan-port="+ports[3],
		"-grpc-port=-1", "-grpc-tls-port=-1", "-dns-port=-1", "-hcl", `session_ttl_min = "1s"`)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	address := "127.0.0.1:" + ports[0]
	for end := time.Now().Add(time.Minute); !leads(address); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("Consul has no leader after a minute")
		}
	}
	return address
}

func leads(address string) bool {
	resp, err := http.Get("http://" + address + "/v1/catalog/nodes?consistent")
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// binary asks scripts/consul.sh, which is in a folder above the test's.
func binary(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(dir, "scripts", "consul.sh")
	for _, err := os.Stat(script); err != nil && dir != filepath.Dir(dir); _, err = os.Stat(script) {
		dir = filepath.Dir(dir)
		script = filepath.Join(dir, "scripts", "consul.sh")
	}
	args := []string{script}
	if os.Getenv("CI") == "" {
		args = append(args, "--cached")
	}
	out, err := exec.Command("bash", args...).Output()
	if err != nil && os.Getenv("CI") == "" {
		t.Skip("SKIPPED: there is no Consul here; build it once with scripts/consul.sh")
	}
	if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	return strings.TrimSpace(string(out))
}

func freePorts(t *testing.T, n int) (ports []string) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // when all are chosen
		_, port, _ := net.SplitHostPort(l.Addr().String())
		ports = append(ports, port)
	}
	return ports
}
