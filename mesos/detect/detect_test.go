package detect

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"google.golang.org/protobuf/proto"

	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
)

func detector(t *testing.T, text string, o Options) *Detector {
	t.Helper()
	d, err := New(text, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func address(t *testing.T, d *Detector, want string) {
	t.Helper()
	if got, err := d.Address(t.Context()); got != want || err != nil {
		t.Errorf("leader %q, error %v; want %q", got, err, want)
	}
}

func noLeader(t *testing.T, d *Detector, words string) {
	t.Helper()
	if got, err := d.Address(t.Context()); err == nil || !strings.Contains(err.Error(), words) {
		t.Errorf("leader %q, error %v; want one with %q", got, err, words)
	}
}

func TestBadTexts(t *testing.T) {
	for text, words := range map[string]string{
		"":                       "host:port",
		"host":                   "host:port",
		":5050":                  "host:port",
		"host:0":                 "from 1 to 65535",
		"host:99999":             "from 1 to 65535",
		"a:1,,b:2":               "host:port",
		"http://host:5050":       "no way to find a master",
		"file://etc/mesos":       "three slashes",
		"zk://host:2181":         "the path of the masters",
		"zk://host:2181/":        "the path of the masters",
		"zk://me@host/mesos":     "user:password",
		"zk://host:x/mesos":      "no ZooKeeper server",
		"zk:///mesos":            "no ZooKeeper server",
		"consul:///mesos":        "consul://host:8500/service",
		"consul://host:x/mesos":  "consul://host:8500/service",
		"consul://host:1/me/sos": "consul://host:8500/service",
	} {
		if _, err := New(text, Options{}); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%q: error %v, want one with %q", text, err, words)
		}
	}
}

func TestSingleAddress(t *testing.T) {
	d := detector(t, " 10.0.0.1:5050\n", Options{})
	address(t, d, "10.0.0.1:5050")
	for text, want := range map[string]string{
		"10.0.0.1:5050": "master@10.0.0.1:5050", "master@10.0.0.1:5050": "master@10.0.0.1:5050",
		"localhost:5050": "master@127.0.0.1:5050", "[::1]:5050": "master@[::1]:5050",
	} {
		if got, err := detector(t, text, Options{}).UPID(t.Context()); err != nil || got.String() != want {
			t.Errorf("%s is %v, error %v; want %s", text, got, err, want)
		}
	}
	if _, err := detector(t, "no.such.host.invalid:5050", Options{}).UPID(t.Context()); err == nil || !strings.Contains(err.Error(), "no.such.host.invalid") {
		t.Errorf("error %v", err)
	}
}

// member is a master that redirects to the leader; "" answers 503.
func member(t *testing.T, leader *string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path != "/redirect":
			http.NotFound(w, r)
		case *leader == "":
			http.Error(w, "nobody", http.StatusServiceUnavailable)
		case *leader == "none such":
			http.NotFound(w, r)
		default:
			w.Header().Set("Location", *leader)
			w.WriteHeader(http.StatusTemporaryRedirect)
		}
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func TestList(t *testing.T) {
	var one, two string
	a, b := member(t, &one), member(t, &two)
	d := detector(t, "127.0.0.1:1, "+a+","+b, Options{})
	noLeader(t, d, "knows no leader")
	one = "//10.0.0.3:5050"
	address(t, d, "10.0.0.3:5050")
	one, two = "", "//"+b
	address(t, d, b)
	one = "none such"
	address(t, d, a)
	one, two = "//nowhere", "/x"
	noLeader(t, d, `redirects to "//nowhere", which names no master`)
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "master")
	d := detector(t, "file://"+path, Options{})
	noLeader(t, d, "no such file")
	for _, x := range []struct{ text, want, problem string }{
		{"10.0.0.1:5050\n", "10.0.0.1:5050", ""},
		{"10.0.0.2:5050", "10.0.0.2:5050", ""},
		{"", "", path},
		{"file:///other", "", "names another file"},
	} {
		if err := os.WriteFile(path, []byte(x.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if x.problem != "" {
			noLeader(t, d, x.problem)
		} else {
			address(t, d, x.want)
		}
	}
}

func TestConsul(t *testing.T) {
	var body string
	status := http.StatusOK
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.URL.String(); got != "/v1/health/service/mesos?passing=1&tag=leader" || r.Header.Get("X-Consul-Token") != "secret" {
			t.Errorf("asked %s with token %q", got, r.Header.Get("X-Consul-Token"))
		}
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}))
	defer s.Close()
	d := detector(t, "consul://"+strings.TrimPrefix(s.URL, "http://"), Options{ConsulToken: "secret"})
	body = "[]"
	noLeader(t, d, "no passing service mesos with the tag leader")
	body = `[{"Node":{"Address":"10.0.0.9"},"Service":{"Address":"","Port":5050}}]`
	address(t, d, "10.0.0.9:5050")
	body = `[{"Node":{"Address":"10.0.0.9"},"Service":{"Address":"master.example","Port":0}},{"Service":{"Address":"10.0.0.1","Port":5051}}]`
	address(t, d, "10.0.0.1:5051")
	status, body = http.StatusForbidden, "ACL not found"
	noLeader(t, d, "403 Forbidden: ACL not found")
}

// group is a ZooKeeper with one group of masters.
type group struct {
	nodes   map[string]string
	err     error
	hang    bool
	asked   int
	changed chan zk.Event
	closed  bool
}

func (g *group) ChildrenW(string) ([]string, *zk.Stat, <-chan zk.Event, error) {
	g.asked++
	if g.hang {
		select {}
	}
	g.changed = make(chan zk.Event, 1)
	var names []string
	for n := range g.nodes {
		names = append(names, n)
	}
	return names, nil, g.changed, g.err
}

func (g *group) Get(path string) ([]byte, *zk.Stat, error) {
	data, ok := g.nodes[strings.TrimPrefix(path, "/mesos/")]
	if !ok {
		return nil, nil, zk.ErrNoNode
	}
	return []byte(data), nil, nil
}

func (g *group) Close() { g.closed = true }

func joined(t *testing.T, g *group, o Options) *Detector {
	t.Helper()
	d := detector(t, "zk://me:p@ss/word@a,b:2182,[::1]/mesos", o)
	z := d.finder.(*zookeeper)
	if got := strings.Join(z.servers, " "); got != "a:2181 b:2182 [::1]:2181" || z.auth != "me:p@ss/word" || z.path != "/mesos" {
		t.Errorf("servers %s, credentials %s, path %s", got, z.auth, z.path)
	}
	z.connect = func([]string, string) (conn, error) { return g, nil }
	return d
}

const infoJSON = `{"address":{"hostname":"m1","ip":"10.0.0.1","port":5050},"id":"u","ip":16777226,"pid":"master@10.0.0.1:5050","port":5050}`

func TestZooKeeper(t *testing.T) {
	binary, err := proto.Marshal(&mesosv1.MasterInfo{Id: new("u"), Ip: new(uint32(1)), Port: new(uint32(5050)), Pid: new("master@10.0.0.2:5050")})
	if err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		nodes map[string]string
		want  string // or the error's words
	}{
		"json":               {map[string]string{"json.info_0000000007": infoJSON, "log_replicas": "", "json.info_0000000010": "{}"}, "10.0.0.1:5050"},
		"binary":             {map[string]string{"info_0000000003": string(binary), "json.info_0000000004": infoJSON}, "10.0.0.2:5050"},
		"a bare pid":         {map[string]string{"0000000002": "master@10.0.0.3:5050"}, "10.0.0.3:5050"},
		"nobody":             {map[string]string{"log_replicas": "", "json.info_x": ""}, "no master is in the group /mesos"},
		"nonsense":           {map[string]string{"json.info_0000000001": "{"}, "holds no JSON"},
		"no pid":             {map[string]string{"json.info_0000000001": "{}"}, "which is not master@ip:port"},
		"binary nonsense":    {map[string]string{"info_0000000001": "\xff"}, "holds no description"},
		"a pid without port": {map[string]string{"0000000002": "master@10.0.0.3"}, "host:port"},
	} {
		t.Run(name, func(t *testing.T) {
			d := joined(t, &group{nodes: x.nodes}, Options{})
			if strings.HasPrefix(x.want, "10.") {
				address(t, d, x.want)
			} else {
				noLeader(t, d, x.want)
			}
		})
	}
}

// The group is read again only after it has changed.
// The lowest number leads, whatever it was written with: facts/mesos-protocol.md
// §10A, number 14. That only its messages count is the link's business.
func Test10A_14_TheLowestNumberLeads(t *testing.T) {
	g := &group{nodes: map[string]string{
		"json.info_0000000012": `{"pid":"master@10.0.0.12:5050"}`, "json.info_0000000009": `{"pid":"master@10.0.0.9:5050"}`,
		"json.info_0000000100": `{"pid":"master@10.0.1.0:5050"}`, "log_replicas": "",
	}}
	address(t, joined(t, g, Options{}), "10.0.0.9:5050")
}

func TestZooKeeperWatches(t *testing.T) {
	g := &group{nodes: map[string]string{"json.info_0000000007": infoJSON, "0000000008": "master@10.0.0.8:5050"}}
	d := joined(t, g, Options{})
	for range 3 {
		address(t, d, "10.0.0.1:5050")
	}
	delete(g.nodes, "json.info_0000000007")
	g.changed <- zk.Event{Type: zk.EventNodeChildrenChanged}
	for range 3 {
		address(t, d, "10.0.0.8:5050")
	}
	if g.asked != 2 {
		t.Errorf("asked %d times, want 2", g.asked)
	}
	g.changed <- zk.Event{Type: zk.EventNotWatching}
	g.err = zk.ErrNoAuth
	noLeader(t, d, zk.ErrNoAuth.Error())
	g.err = nil
	address(t, d, "10.0.0.8:5050")
	d.Close()
	if !g.closed {
		t.Error("the session is still open")
	}
}

// A ZooKeeper that does not answer delays nobody for long, and is asked over a
// new session.
func TestZooKeeperHangs(t *testing.T) {
	g := &group{hang: true}
	d := joined(t, g, Options{Timeout: 50 * time.Millisecond})
	noLeader(t, d, "does not answer")
	if !g.closed {
		t.Error("the session is still open")
	}
	d.finder.(*zookeeper).connect = func([]string, string) (conn, error) { return nil, errors.New("no route") }
	noLeader(t, d, "no route")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d = joined(t, &group{hang: true}, Options{})
	if _, err := d.Address(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}
