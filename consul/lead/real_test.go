package lead

import (
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/consul/api"

	"github.com/mesopool/mesopool/store"
)

// realConsul starts the Consul that tools/consul pins, with sessions as short as
// a second, and returns its address. Without one the test is skipped, but in CI.
func realConsul(t *testing.T) string {
	t.Helper()
	args := []string{"../../scripts/consul.sh"}
	if os.Getenv("CI") == "" {
		args = append(args, "--cached")
	}
	out, err := exec.Command("bash", args...).Output()
	if err != nil && os.Getenv("CI") == "" {
		t.Skip("SKIPPED: there is no Consul here; build it once with scripts/consul.sh")
	}
	if err != nil {
		t.Fatalf("scripts/consul.sh: %v", err)
	}
	ports := freePorts(t, 4)
	cmd := exec.Command(strings.TrimSpace(string(out)), "agent", "-dev", "-log-level=err", "-bind=127.0.0.1", "-client=127.0.0.1",
		"-http-port="+ports[0], "-server-port="+ports[1], "-serf-lan-port="+ports[2], "-serf-wan-port="+ports[3],
		"-grpc-port=-1", "-grpc-tls-port=-1", "-dns-port=-1", "-hcl", `session_ttl_min = "1s"`)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	address := "127.0.0.1:" + ports[0]
	client, err := api.NewClient(&api.Config{Address: address})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "Consul has a leader", func() bool {
		leader, err := client.Status().Leader()
		return err == nil && leader != ""
	})
	return address
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

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

func TestRealConsul(t *testing.T) {
	address := realConsul(t)
	on := func(key string) func(t *testing.T) *Term {
		return func(t *testing.T) *Term {
			return term(t, Config{Address: address, Key: key + "/" + strings.ReplaceAll(t.Name(), "/", "-"), Self: "a", TTL: 5 * time.Second})
		}
	}
	t.Run("Store", func(t *testing.T) { contract(t, on("contract")) })
	t.Run("Large", func(t *testing.T) {
		a := on("large")(t)
		s := open(t, a)
		odd := []store.Op{{Key: "a b/c?d%2Fe#f/ü", Value: []byte("odd")}, {Key: "most", Value: big(mostValue, 9)}}
		if err := s.Commit(t.Context(), odd); err != nil {
			t.Fatal(err)
		}
		if err := s.Commit(t.Context(), many()); err != nil {
			t.Fatal(err)
		}
		want := wantMany(t)
		for _, op := range odd {
			want[op.Key] = string(op.Value)
		}
		if d := cmp.Diff(want, contents(t, open(t, a))); d != "" {
			t.Errorf("-want +got:\n%.2000s", d)
		}
		if e, err := s.Get(t.Context(), odd[0].Key); err != nil || string(e.Value) != "odd" {
			t.Errorf("Get: %+v %v", e, err)
		}
	})
	t.Run("Fence", func(t *testing.T) {
		a := on("fence")(t)
		s := open(t, a)
		if err := s.Commit(t.Context(), []store.Op{{Key: "k", Value: []byte("v")}}); err != nil {
			t.Fatal(err)
		}
		if _, err := a.election.client.Session().Destroy(a.session.id, nil); err != nil {
			t.Fatal(err)
		}
		if err := s.Commit(t.Context(), []store.Op{{Key: "k", Value: []byte("w")}}); err == nil {
			t.Error("a deposed leader has written")
		}
		eventually(t, "it knows", func() bool { return a.Check() != nil })
	})
}
