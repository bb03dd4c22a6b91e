package triton

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"golang.org/x/crypto/ssh"

	"github.com/mesopool/mesopool/endpoint"
	"github.com/mesopool/mesopool/endpoint/backend"
	"github.com/mesopool/mesopool/endpoint/cloudapi"
	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/provider/docker"
	"github.com/mesopool/mesopool/provider/providertest"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// rig is a data center with its two APIs and one account.
type rig struct {
	t      *testing.T
	cloud  *endpoint.Cloud
	server *endpoint.Server
	api    *cloudapi.API
	mem    *backend.Memory // nil: the backend is another
	acct   *endpoint.Account
	opt    Options
}

func newRig(t *testing.T, cfg backend.MemoryConfig) *rig {
	t.Helper()
	mem := backend.NewMemory(cfg)
	r := newRigOn(t, mem)
	r.mem = mem
	return r
}

func newRigOn(t *testing.T, b backend.Backend) *rig {
	t.Helper()
	r := &rig{t: t}
	var err error
	if r.cloud, err = endpoint.Open(t.Context(), endpoint.Config{Dir: t.TempDir(), Backend: b}); err != nil {
		t.Fatal(err)
	}
	if r.server, err = endpoint.New(r.cloud, endpoint.Options{Hosts: []string{"127.0.0.1"}}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 2)
	go func() { served <- r.server.Serve(ctx, l) }()
	go func() { served <- r.cloud.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-served, <-served); err != nil {
			t.Error(err)
		}
	})
	r.account("team")
	api := r.cloudAPI()
	certs := t.TempDir()
	if err := r.cloud.Authority().WriteCerts(r.acct, certs); err != nil {
		t.Fatal(err)
	}
	r.opt = Options{
		Docker: docker.Options{Host: "tcp://" + l.Addr().String(), CertPath: certs, TLSVerify: true},
		Cloud:  api, Poll: 50 * time.Millisecond,
	}
	return r
}

// account makes an account with an SSH key, whose file it writes.
func (r *rig) account(login string) {
	if _, err := r.cloud.Accounts().Add(login); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) cloudAPI() CloudOptions {
	t := r.t
	pub, key, _ := ed25519.GenerateKey(rand.Reader)
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "id")
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	line, _ := ssh.NewPublicKey(pub)
	r.acct, err = r.cloud.Accounts().Change("team", func(a *endpoint.Account) error {
		k, err := endpoint.ParseKey("main", string(ssh.MarshalAuthorizedKey(line)))
		a.Keys = append(a.Keys, k)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	r.api = cloudapi.New(r.cloud, cloudapi.Options{Burst: 1000, Rate: 1000})
	s := httptest.NewServer(r.api)
	t.Cleanup(s.Close)
	signer, err := KeyFromFile("team", file)
	if err != nil {
		t.Fatal(err)
	}
	return CloudOptions{URL: s.URL, Account: "team", Key: signer}
}

func (r *rig) datacenter() *Datacenter {
	r.t.Helper()
	d, err := New(r.opt)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { d.Close() })
	return d
}

var owner = task.Owner{Cluster: "mesos", Agent: "dc-1"}

func script(p providertest.Program) string {
	var steps []string
	for i := 1; i <= p.Lines; i++ {
		steps = append(steps, fmt.Sprintf("echo out %d", i), fmt.Sprintf("echo err %d >&2", i))
	}
	if p.Deaf {
		steps = append(steps, "trap '' TERM")
	}
	end := fmt.Sprintf("exit %d", p.Exit)
	if p.Run {
		end = "sleep infinity"
	}
	return strings.Join(append(steps, end), "; ")
}

func (r *rig) setup(t *testing.T) providertest.Setup {
	d := r.datacenter()
	return providertest.Setup{
		Provider: d, Owner: owner, Missing: "no/such:image",
		Spec: func(p providertest.Program) task.Spec {
			return task.Spec{Image: "app:1", Command: task.Command{Shell: true, Value: script(p)}}
		},
		Argv: func(p providertest.Program) []string { return []string{"sh", "-c", script(p)} },
		Foreign: func(t *testing.T, name string) string {
			img, cmd := "app:1", []string{"sleep", "infinity"}
			if r.mem == nil {
				img, cmd = r.acct.Images[0], helperArgs(providertest.Program{Run: true})
			}
			resp, err := d.cli.ContainerCreate(t.Context(), &container.Config{Image: img, Cmd: cmd}, &container.HostConfig{}, nil, nil, name)
			if err != nil {
				t.Fatal(err)
			}
			if err := d.cli.ContainerStart(t.Context(), resp.ID, container.StartOptions{}); err != nil {
				t.Fatal(err)
			}
			return resp.ID
		},
		Create: func(t *testing.T, o task.Owner, name string, s task.Spec) {
			if _, err := d.Create(t.Context(), o, name, s); err != nil {
				t.Fatal(err)
			}
		},
		Vanish: func(t *testing.T, id string) {
			if err := r.cloud.Remove(t.Context(), r.acct, id, true); err != nil {
				t.Fatal(err)
			}
		},
	}
}

func shop() map[string]backend.Image {
	return map[string]backend.Image{"app:1": {Cmd: []string{"/bin/sh"}}}
}

// TestConformance runs the contract of all backends, on a data center that
// provisions at once and on one that takes its time.
func TestConformance(t *testing.T) {
	for name, cfg := range map[string]backend.MemoryConfig{
		"Immediate": {Catalog: shop()},
		"Slow":      {Catalog: shop(), Provision: 100 * time.Millisecond, Pull: 50 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			providertest.Run(t, func(t *testing.T) providertest.Setup {
				r := newRig(t, cfg)
				if err := r.cloud.Pull(t.Context(), r.acct, "app:1", "", discard{}); err != nil {
					t.Fatal(err)
				}
				return r.setup(t)
			}, providertest.Quirks{})
		})
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func spec(id string) task.Spec {
	return task.Spec{
		Key: task.Key{Framework: "f", ID: id}, Name: "Web_1.shop", Image: "app:1", Command: task.Command{Shell: true, Value: "sleep infinity"},
		Resources: resources.NewScalar("cpus", 100).Add(resources.NewScalar("mem", resources.Whole(700))...),
	}
}

func TestLaunchPullsNamesAndSizes(t *testing.T) {
	r := newRig(t, backend.MemoryConfig{Catalog: shop()})
	d := r.datacenter()
	c, err := d.Launch(t.Context(), owner, "web-1", spec("web.1"))
	if err != nil {
		t.Fatal(err)
	}
	_, raw, err := d.cli.ContainerInspectWithRaw(t.Context(), c.ID, false)
	if err != nil {
		t.Fatal(err)
	}
	size, err := d.Size(t.Context(), spec("web.1"))
	if err != nil {
		t.Fatal(err)
	}
	if size.Get("mem") < resources.Whole(700) || size.Get("cpus") < 100 {
		t.Errorf("700 MiB are billed as %s", size)
	}
	p, err := d.choose(t.Context(), new(spec("web.1")))
	if err != nil || !strings.Contains(string(raw), `"`+p.name+`"`) {
		t.Errorf("package %v (%v) was chosen; the container is\n%s", p, err, raw)
	}
	m, err := r.cloud.Container(r.acct, c.ID)
	if err != nil || m.Tags[servicesLabel] != "web-1-shop" {
		t.Errorf("tags %v, %v", m.Tags, err)
	}
}

// TestRefused: what Triton would ignore, or cannot do, fails the task with the
// reason, before anything is made.
func TestRefused(t *testing.T) {
	r := newRig(t, backend.MemoryConfig{Catalog: shop()})
	d := r.datacenter()
	with := func(change func(*task.Spec)) task.Spec {
		s := spec("x")
		change(&s)
		return s
	}
	parameter := func(k, v string) task.Spec {
		return with(func(s *task.Spec) { s.Parameters = []task.Label{{Key: k, Value: v}} })
	}
	for want, s := range map[string]task.Spec{
		"ignore the parameter ulimit":   parameter("ulimit", "nofile=1024"),
		"ignore the parameter cap-add":  parameter("cap-add", "NET_ADMIN"),
		"ignore the parameter tmpfs":    parameter("tmpfs", "/tmp"),
		"ignore the parameter shm-size": parameter("shm-size", "64m"),
		"gives every container a netwo": with(func(s *task.Spec) { s.Network.Mode = task.NetworkNone }),
		"every task has an address":     with(func(s *task.Spec) { s.Network.Mode = task.NetworkHost }),
		"host path /etc":                with(func(s *task.Spec) { s.Volumes = []task.Volume{{Container: "/x", Host: "/etc"}} }),
		"no volumes that outlive":       with(func(s *task.Spec) { s.Volumes = []task.Volume{{Container: "/x", Name: "data"}} }),
		"no package fits":               with(func(s *task.Spec) { s.Resources = resources.NewScalar("mem", resources.Whole(1<<20)) }),
		`no package "gigantic"`:         with(func(s *task.Spec) { s.Labels = []task.Label{{Key: packageLabel, Value: "gigantic"}} }),
		"Unrecognized special triton":   with(func(s *task.Spec) { s.Labels = []task.Label{{Key: "triton.nonsense", Value: "1"}} }),
		"no/such":                       with(func(s *task.Spec) { s.Image = "no/such:image" }),
	} {
		_, err := d.Launch(t.Context(), owner, "refused", s)
		if !errors.Is(err, provider.ErrRejected) || !strings.Contains(err.Error(), want) {
			t.Errorf("want ErrRejected with %q, got %v", want, err)
		}
	}
	if all, err := d.list(t.Context(), owner); err != nil || len(all) != 0 {
		t.Errorf("left over: %v, %v", all, err)
	}
}

// TestFaults: no room is final for this launch, an outage passes, and what was
// made with its answer lost is found by its name.
func TestFaults(t *testing.T) {
	r := newRig(t, backend.MemoryConfig{Catalog: shop()})
	d := r.datacenter()
	launch := func(name string) (provider.Container, error) {
		return d.Launch(t.Context(), owner, name, spec(name))
	}
	r.mem.SetFaults(backend.Faults{NoCapacity: 1})
	if _, err := launch("a"); !errors.Is(err, provider.ErrCapacity) {
		t.Errorf("no room: %v", err)
	}
	r.mem.SetFaults(backend.Faults{Provision: 1})
	if _, err := launch("a"); err == nil || errors.Is(err, provider.ErrRejected) || errors.Is(err, provider.ErrCapacity) {
		t.Errorf("failed provisioning, which passes: %v", err)
	}
	r.mem.SetFaults(backend.Faults{})
	r.server.SetMode(endpoint.Mode{ReadOnly: true})
	if _, err := launch("a"); !errors.Is(err, provider.ErrThrottle) {
		t.Errorf("read-only: %v", err)
	}
	r.server.SetMode(endpoint.Mode{LoseAnswer: 1})
	if _, err := launch("a"); err == nil {
		t.Error("every answer is lost, and the launch succeeds")
	}
	r.server.SetMode(endpoint.Mode{})
	var c provider.Container
	for n := 0; ; n++ {
		var err error
		if c, err = launch("a"); err == nil {
			break
		}
		if n == 100 {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	all, err := d.list(t.Context(), owner)
	if err != nil || len(all) != 1 || all[0].ID != c.ID || all[0].State != provider.StateUp {
		t.Errorf("after all that: %+v, %v", all, err)
	}
}

func TestCapacity(t *testing.T) {
	r := newRig(t, backend.MemoryConfig{Catalog: shop()})
	r.opt.Docker.Grant = resources.NewScalars(resources.Scalar{Name: "cpus", Amount: resources.Whole(7)})
	c, err := r.datacenter().Capacity(t.Context())
	if err != nil || c.Total.Get("cpus") != resources.Whole(7) || c.Total.Get("mem") != demo.Get("mem") {
		t.Errorf("%v, %v", c.Total, err)
	}
	got := bounded(demo, []limit{{By: "ram", Value: 1024}, {By: "quota", Value: 2}, {By: "machines", Value: 3}, {By: "ram", Value: 0}})
	if got.Get("mem") != resources.Whole(1024) || got.Get("disk") != resources.Whole(2048) || got.Get("cpus") != demo.Get("cpus") {
		t.Errorf("bounded to %s", got)
	}
	r.opt.Docker.CertPath, r.opt.Docker.TLSVerify = "", false
	r.opt.Docker.Host = strings.Replace(r.opt.Docker.Host, "tcp://", "tcp://", 1)
	if _, err := r.datacenter().Capacity(t.Context()); err == nil {
		t.Error("a client without a certificate reads the capacity")
	}
}

// TestExitCodes: a signal is told as a negative number, and an exit that nobody
// has seen is no success.
func TestExitCodes(t *testing.T) {
	for text, want := range map[string]struct {
		state   provider.State
		code    int
		hasExit bool
	}{
		"Up 3 minutes":               {provider.StateUp, 0, false},
		"Exited (0) 2 seconds ago":   {provider.StateExited, 0, true},
		"Exited (-9) 2 seconds ago":  {provider.StateExited, 137, true},
		"Exited (3) 2 seconds ago":   {provider.StateExited, 3, true},
		"Exited":                     {provider.StateExited, 0, false},
		"Provisioning 12 seconds":    {provider.StateCreated, 0, false},
		"Created":                    {provider.StateCreated, 0, false},
		"":                           {provider.StateCreated, 0, false},
		"Exited (nonsense) some ago": {provider.StateExited, 0, false},
	} {
		if s, code, has := status(text); s != want.state || code != want.code || has != want.hasExit {
			t.Errorf("%q: %v %d %v", text, s, code, has)
		}
	}
}

func TestCNSNames(t *testing.T) {
	for name, want := range map[string]string{
		"Web_1.shop": "web-1-shop", "/sample/nats": "sample-nats", "9lives": "lives", "": "", "--": "", "ÄÖ": "",
		strings.Repeat("a", 70): strings.Repeat("a", 63),
	} {
		if got := cnsName(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}
