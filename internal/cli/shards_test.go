package cli

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/viper"
	"google.golang.org/protobuf/proto"

	"github.com/mesopool/mesopool/agent"
	"github.com/mesopool/mesopool/mesos/libprocess"
	"github.com/mesopool/mesopool/mesos/messages"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/provider/memory"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// registrations collects what agents say to a master that admits each.
type registrations struct {
	node  *libprocess.Node
	inbox chan libprocess.Message
}

func newRegistrations(t *testing.T, p *peerTLS) *registrations {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener, dial := p.wrap(l)
	r := &registrations{inbox: make(chan libprocess.Message, 1000)}
	r.node = libprocess.NewNode(libprocess.Config{Listener: listener, Dial: dial})
	r.node.Handle("master", func(m libprocess.Message) {
		m.Body = append([]byte(nil), m.Body...)
		r.inbox <- m
	})
	inBackground(t, r.node.Run)
	return r
}

func inBackground(t *testing.T, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func newShards(t *testing.T, dir string, n int, m *registrations, change func(*agentRole)) *agentRole {
	t.Helper()
	at, err := listenAt("127.0.0.1", 0, "", 0, "agent", "")
	if err != nil {
		t.Fatal(err)
	}
	total, err := resources.Parse("cpus:10;mem:1000")
	if err != nil {
		t.Fatal(err)
	}
	r := &agentRole{
		owner: task.Owner{Cluster: "mesos", Agent: "agent"}, hostname: "dc", at: at, resources: total, overcommit: resources.Whole(1),
		provider: memory.New(memory.Config{}), core: agent.DefaultConfig(), workers: 2, log: slog.New(slog.DiscardHandler),
	}
	if r.ports, err = parsePorts("31000-31001"); err != nil {
		t.Fatal(err)
	}
	if r.domain, err = parseDomain("eu/eu-1"); err != nil {
		t.Fatal(err)
	}
	if r.master, err = findMaster(m.node.UPID("master").Addr.String()); err != nil {
		t.Fatal(err)
	}
	if err := r.openShards(dir, n); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(r)
	}
	return r
}

// next returns the next message of a type.
func next[T proto.Message](t *testing.T, m *registrations, into T) libprocess.Message {
	t.Helper()
	for limit := time.After(20 * time.Second); ; {
		select {
		case x := <-m.inbox:
			if x.Name != string(into.ProtoReflect().Descriptor().FullName()) {
				continue
			}
			if err := proto.Unmarshal(x.Body, into); err != nil {
				t.Fatal(err)
			}
			return x
		case <-limit:
			t.Fatalf("no %T came", into)
		}
	}
}

// Shards register apart, with their parts of all; each comes back as itself.
func TestShards(t *testing.T) {
	dir, m := t.TempDir(), newRegistrations(t, nil)
	r := newShards(t, dir, 3, m, nil)
	stop := inBackground(t, r.run)
	ids := map[string]string{}
	cpus := 0.0
	for len(ids) < 3 {
		in := &messages.RegisterSlaveMessage{}
		from := next(t, m, in)
		if ids[from.From.ID] != "" {
			continue
		}
		ids[from.From.ID] = "id-of-" + from.From.ID
		s := in.Slave
		if want := strings.Trim(from.From.ID, "slave()"); len(s.Attributes) != 1 || s.Attributes[0].GetName() != "shard" || s.Attributes[0].GetText().GetValue() != want {
			t.Errorf("%s: attributes %v", from.From.ID, s.Attributes)
		}
		if s.Domain.GetFaultDomain().GetZone().GetName() != "eu-1" {
			t.Errorf("domain %v", s.Domain)
		}
		for _, x := range s.Resources {
			switch x.GetName() {
			case "cpus":
				cpus += x.GetScalar().GetValue()
			case "ports":
				if x.Ranges.Range[0].GetBegin() != 31000 {
					t.Errorf("ports %v", x)
				}
			}
		}
		if err := m.node.SendProto("master", from.From, &messages.SlaveRegisteredMessage{SlaveId: &mesosv1.AgentID{Value: new(ids[from.From.ID])}}); err != nil {
			t.Fatal(err)
		}
		next(t, m, &messages.UpdateSlaveMessage{})
	}
	if cpus != 10 {
		t.Errorf("together they have %v cpus", cpus)
	}
	base := "http://" + r.at.advertise.String()
	for path, want := range map[string]string{"/state": "slave(1)", "/slave(2)/state": "slave(2)", "/slave(3)/state.json": "slave(3)"} {
		var state struct{ ID, PID string }
		getJSON(t, base+path, &state)
		if state.ID != ids[want] || !strings.HasPrefix(state.PID, want+"@") {
			t.Errorf("%s is %+v", path, state)
		}
	}
	if resp, err := http.Get(base + "/slave(4)/state"); err != nil || resp.StatusCode != http.StatusNotFound {
		t.Errorf("a fourth: %v, %v", resp, err)
	}
	stop()
	back := map[string]bool{}
	inBackground(t, newShards(t, dir, 3, m, nil).run)
	for len(back) < 3 {
		in := &messages.ReregisterSlaveMessage{}
		from := next(t, m, in)
		if in.Slave.GetId().GetValue() != ids[from.From.ID] {
			t.Fatalf("%s came back as %s", from.From.ID, in.Slave.GetId().GetValue())
		}
		back[from.From.ID] = true
	}
	if err := new(agentRole).openShards(dir, 2); err == nil || !strings.Contains(err.Error(), "there were more") {
		t.Errorf("fewer shards: %v", err)
	}
}

func getJSON(t *testing.T, url string, into any) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || json.Unmarshal(text, into) != nil {
		t.Fatalf("%s: %v: %s", url, err, text)
	}
}

// certificate makes one for 127.0.0.1 that is its own authority.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mesopool test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, block := range map[string]*pem.Block{"cert": {Type: "CERTIFICATE", Bytes: der}, "key": {Type: "EC PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "cert"), filepath.Join(dir, "key")
}

// With TLS messages go both ways, and those without a certificate get nowhere.
func TestTLS(t *testing.T) {
	cert, key := certificate(t)
	p, err := readTLS(cert, key, cert, true)
	if err != nil {
		t.Fatal(err)
	}
	m := newRegistrations(t, p)
	r := newShards(t, "", 1, m, func(r *agentRole) { r.tls = p })
	inBackground(t, r.run)
	from := next(t, m, &messages.RegisterSlaveMessage{})
	if err := m.node.SendProto("master", from.From, &messages.SlaveRegisteredMessage{SlaveId: &mesosv1.AgentID{Value: new("a1")}}); err != nil {
		t.Fatal(err)
	}
	next(t, m, &messages.UpdateSlaveMessage{})
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: p.client}}
	resp, err := client.Get("https://" + r.at.advertise.String() + "/health")
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("with a certificate: %v, %v", resp, err)
	}
	for _, scheme := range []string{"http", "https"} {
		if resp, err := http.Get(scheme + "://" + r.at.advertise.String() + "/health"); err == nil && resp.StatusCode == http.StatusOK {
			t.Errorf("%s without a certificate: %v", scheme, resp.Status)
		}
	}
}

func TestShapeFlags(t *testing.T) {
	for args, want := range map[string]string{
		"--synthetic-ports=x": "--synthetic-ports", "--synthetic-ports=1-70000": "--synthetic-ports", "--domain=eu": "--domain", "--overcommit=0": "--overcommit",
		"--tls-cert=none": "--tls-cert", "--shutdown-policy=maybe": "--shutdown-policy", "--shards=0": "--shards",
	} {
		var out strings.Builder
		if code := Main([]string{"agent", "--provider=memory", "--port=0", args}, io.Discard, &out); code != exitUsage || !strings.Contains(out.String(), want) {
			t.Errorf("%s: exit %d: %s", args, code, out.String())
		}
	}
	a, err := parseAttributes("rack:a;slots:4.5")
	if err != nil || a[0].GetText().GetValue() != "a" || a[1].GetScalar().GetValue() != 4.5 {
		t.Errorf("attributes %v, %v", a, err)
	}
	r := &agentRole{overcommit: 1500, ports: resources.Resources{}}
	if got := r.offered(resources.NewScalar("cpus", 2000)); fmt.Sprint(got) != "cpus:3" {
		t.Errorf("offered %s", got)
	}
}

// Resources of the configuration file can change while the agent runs; nonsense
// changes nothing, and a flag is above the file.
func TestResourcesAreReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("resources: cpus:4")
	v := viper.New()
	v.Set("config", path)
	v.Set("resources", "cpus:4")
	r := &agentRole{resources: resources.NewScalar("cpus", 4000), reread: rereader(v)}
	for text, want := range map[string]string{"resources: cpus:8": "cpus:8", "resources: nonsense": "", "{": "", "resources: cpus:2": "cpus:2"} {
		write(text)
		if got := r.has(t.Context()).String(); got != want {
			t.Errorf("%s: %q", text, got)
		}
	}
	v.Set("resources", "cpus:5")
	if rereader(v) != nil {
		t.Error("the file is above the flag")
	}
	backend := &agentRole{provider: memory.New(memory.Config{})}
	if got := backend.has(t.Context()); !got.Scalars().Contains(memory.DefaultTotal) {
		t.Errorf("of the backend: %s", got)
	}
}
