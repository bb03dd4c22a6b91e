package endpoint

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/docker/docker/api/types/container"
	only "github.com/docker/docker/api/types/filters"
	images "github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	engineclient "github.com/docker/docker/client"

	"github.com/mesopool/mesopool/endpoint/backend"
)

// The live engine's part of the tests: whatever they make there carries the
// run's own name and is removed at the end.
var live struct {
	once sync.Once
	err  error
	run  string
	cli  *engineclient.Client
}

func TestMain(m *testing.M) {
	code := m.Run()
	if live.cli != nil && live.err == nil {
		if err := clearEngine(); err != nil {
			fmt.Fprintln(os.Stderr, "clearing the engine:", err)
			code = 1
		}
	}
	os.Exit(code)
}

func clearEngine() error {
	ctx := context.Background()
	own := only.NewArgs(only.Arg("label", "mesopool.endpoint="+live.run))
	left, err := live.cli.ContainerList(ctx, container.ListOptions{All: true, Filters: own})
	for _, c := range left {
		err = errors.Join(err, live.cli.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true, RemoveVolumes: true}))
	}
	networks, e := live.cli.NetworkList(ctx, network.ListOptions{Filters: own})
	err = errors.Join(err, e)
	for _, n := range networks {
		err = errors.Join(err, live.cli.NetworkRemove(ctx, n.ID))
	}
	for _, name := range []string{live.run + ":1", live.run + "-secret:1"} {
		_, e := live.cli.ImageRemove(ctx, name, images.RemoveOptions{Force: true})
		err = errors.Join(err, e)
	}
	return err
}

// needEngine skips where there is no engine; in CI that is a failure.
func needEngine(t *testing.T) {
	t.Helper()
	live.once.Do(func() { live.err = prepareEngine() })
	if live.err == nil {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("no Docker engine for %s: %v", t.Name(), live.err)
	}
	t.Skipf("%s needs a Docker engine: %v", t.Name(), live.err)
}

func prepareEngine() error {
	cli, err := engineclient.NewClientWithOpts(engineclient.FromEnv, engineclient.WithAPIVersionNegotiation())
	if err != nil {
		return err
	}
	if _, err := cli.Info(context.Background()); err != nil {
		return err
	}
	var id [4]byte
	rand.Read(id[:])
	live.run, live.cli = "ep-test-"+hex.EncodeToString(id[:]), cli
	dir, err := os.MkdirTemp("", "mesopool")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command("go", "build", "-o", filepath.Join(dir, "helper"), "./testdata/helper")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-ldflags=-s")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the helper: %w: %s", err, out)
	}
	helper, err := os.ReadFile(filepath.Join(dir, "helper"))
	if err != nil {
		return err
	}
	// An image's labels and health check must not count for anything.
	return errors.Join(importImage(live.run+":1", helper, `LABEL mesopool.cluster=evil`, `LABEL mesopool.endpoint.id=evil`, `EXPOSE 80`,
		`HEALTHCHECK CMD ["/helper", "exit=1"]`, `CMD ["/helper", "run"]`), importImage(live.run+"-secret:1", helper, `CMD ["/helper", "run"]`))
}

// importImage makes an image of the helper and of some folders.
func importImage(ref string, helper []byte, changes ...string) error {
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, dir := range []string{"tmp/", "etc/", "data/"} {
		w.WriteHeader(&tar.Header{Name: dir, Mode: 0o777, Typeflag: tar.TypeDir})
	}
	w.WriteHeader(&tar.Header{Name: "name", Mode: 0o644, Size: int64(len(ref))})
	w.Write([]byte(ref))
	w.WriteHeader(&tar.Header{Name: "helper", Mode: 0o755, Size: int64(len(helper))})
	w.Write(helper)
	w.Close()
	r, err := live.cli.ImageImport(context.Background(), images.ImportSource{Source: &layer, SourceName: "-"}, ref, images.ImportOptions{Changes: changes})
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(io.Discard, r)
	return err
}

// engineRig is an endpoint on the live engine.
func engineRig(t *testing.T, dir string) *rig {
	t.Helper()
	needEngine(t)
	b, err := backend.NewEngine(t.Context(), backend.EngineConfig{Name: live.run})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, dir: dir}
	if r.cloud, err = Open(t.Context(), Config{Dir: dir, Backend: b}); err != nil {
		t.Fatal(err)
	}
	if r.server, err = New(r.cloud, Options{}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- r.server.Serve(ctx, l) }()
	go func() { ended <- r.cloud.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, <-ended); err != nil {
			t.Error(err)
		}
	})
	r.url = "https://" + l.Addr().String()
	return r
}

var logins int

// guest makes an account that may use the run's image.
func (r *rig) guest() *client {
	r.t.Helper()
	logins++
	c := r.tenant(fmt.Sprintf("t%d", logins))
	acct, err := r.cloud.Accounts().Change(c.acct.Login, func(a *Account) error { a.Images = []string{live.run + ":1"}; return nil })
	if err != nil {
		r.t.Fatal(err)
	}
	c.acct = acct
	return c
}

func (c *client) engineCreate(name string, host m, args ...string) string {
	c.r.t.Helper()
	return c.create(name, body(live.run+":1", host, m{"Cmd": append([]string{"/helper"}, args...)}))
}

func (c *client) engineStart(name string, host m, args ...string) string {
	c.r.t.Helper()
	id := c.engineCreate(name, host, args...)
	c.want(204, "", "POST", "/containers/"+id+"/start", nil)
	return id
}

// onEngine is what the engine itself knows of a container.
func onEngine(t *testing.T, id string) container.InspectResponse {
	t.Helper()
	all, err := live.cli.ContainerList(t.Context(), container.ListOptions{All: true, Filters: only.NewArgs(only.Arg("label", "mesopool.endpoint.id="+id))})
	if err != nil || len(all) != 1 {
		t.Fatalf("%d containers, %v", len(all), err)
	}
	in, err := live.cli.ContainerInspect(t.Context(), all[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func TestEngineLife(t *testing.T) {
	r := engineRig(t, t.TempDir())
	c := r.guest()
	id := c.engineStart("web", m{"PublishAllPorts": true, "Memory": 128 << 20}, "lines=2", "serve", "run")
	ip := c.ip(id)
	eventually(t, "the container answers at its address", func() bool {
		resp, err := http.Get("http://" + ip + "/")
		if err == nil {
			resp.Body.Close()
		}
		return err == nil
	})
	if a := c.want(200, "", "GET", "/containers/web/logs?tail=all", nil); !strings.Contains(a.text, "out 2\n") || !strings.Contains(a.text, "err 2\n") {
		t.Errorf("%q", a.text)
	}
	for _, order := range []string{"start", "restart", "stop?t=5", "stop", "start", "kill?signal=TERM"} {
		c.want(204, "", "POST", "/containers/web/"+order, nil)
	}
	if s := c.state(id); s["Running"] != false || s["ExitCode"] != -9.0 {
		t.Error(s)
	}
	c.want(204, "", "POST", "/containers/web/rename?name=other", nil)
	c.want(409, "(ValidationFailed)", "POST", "/containers/create?name=other", body(live.run+":1", nil))
	c.want(204, "", "DELETE", "/containers/other", nil)
	c.want(404, "", "GET", "/containers/"+id+"/json", nil)

	c.engineStart("ends", nil, "exit=3")
	if a := c.want(200, "", "POST", "/containers/ends/wait", nil); a.text != "{\"StatusCode\":3}\n" {
		t.Error(a)
	}
	c.engineStart("again", m{"RestartPolicy": m{"Name": "always"}}, "run")
	first := c.state("again")["StartedAt"]
	c.want(204, "", "POST", "/containers/again/kill", nil)
	eventually(t, "a killed container with restart=always is up again", func() bool {
		s := c.state("again")
		return s["Running"] == true && s["StartedAt"] != first
	})
}

func TestEngineStreams(t *testing.T) {
	r := engineRig(t, t.TempDir())
	c := r.guest()
	id := c.engineStart("x", nil, "run")
	var made struct{ ID string }
	a := c.want(200, "", "POST", "/containers/x/exec", m{"Cmd": []string{"/helper", "lines=1", "exit=5"}, "AttachStdout": true, "AttachStderr": true})
	json.Unmarshal([]byte(a.text), &made)
	if a := c.want(200, "", "POST", "/exec/"+made.ID+"/start", m{}); !strings.Contains(a.text, "out 1\n") {
		t.Errorf("%q", a.text)
	}
	if in := c.get("/exec/" + made.ID + "/json"); in["ExitCode"] != 5.0 {
		t.Error(in)
	}
	if got := c.get("/containers/x/top"); len(got["Processes"].([]any)) != 1 {
		t.Error(got)
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	w.WriteHeader(&tar.Header{Name: "hello", Mode: 0o644, Size: 2})
	w.Write([]byte("hi"))
	w.Close()
	c.want(200, "", "PUT", "/containers/x/archive?path=/data", archive.String())
	if a := c.do("HEAD", "/containers/x/archive?path=/data/hello", nil); a.status != 200 || a.header.Get(pathStat) == "" {
		t.Error(a, a.header)
	}
	if a := c.want(200, "hello", "GET", "/containers/x/archive?path=/data/hello", nil); !strings.Contains(a.text, "hi") {
		t.Errorf("%q", a.text)
	}
	c.want(404, "(ResourceNotFound)", "GET", "/containers/x/archive?path=/nosuch", nil)
	for _, query := range []string{"?stream=0", "?stream=0&one-shot=1"} { // the first one waits for a moment to compare with
		a := c.want(200, "", "GET", "/containers/"+id+"/stats"+query, nil)
		var s struct {
			CPU struct {
				Usage struct {
					Total uint64 `json:"total_usage"`
				} `json:"cpu_usage"`
			} `json:"cpu_stats"`
			Before struct {
				Usage struct {
					Total uint64 `json:"total_usage"`
				} `json:"cpu_usage"`
			} `json:"precpu_stats"`
		}
		if err := json.Unmarshal([]byte(a.text), &s); err != nil || s.CPU.Usage.Total == 0 || (s.Before.Usage.Total == 0) != strings.Contains(query, "one-shot") {
			t.Errorf("%s: %+v, %v: %s", query, s, err, a.text)
		}
	}
}

// TestEngineIsolation: a create call that asks for everything gets nothing of
// the host, and each tenant has a network of its own.
func TestEngineIsolation(t *testing.T) {
	r := engineRig(t, t.TempDir())
	a, b := r.guest(), r.guest()
	host := m{"Memory": 128 << 20, "UsernsMode": "host", "UTSMode": "host", "CapDrop": []string{"ALL"}, "Init": true, "Runtime": "x", "VolumeDriver": "local"}
	for k, v := range ignoredExample {
		host[k] = v
	}
	x := a.create("x", body(live.run+":1", host, m{"Cmd": []string{"/helper", "serve", "run"}, "Labels": m{"mesopool.cluster": "evil", "mesopool.endpoint.id": "evil"}}))
	a.want(204, "", "POST", "/containers/"+x+"/start", nil)
	in := onEngine(t, x)
	h := in.HostConfig
	if h.Privileged || len(h.CapAdd) > 0 || len(h.Binds) > 0 || len(h.Mounts) > 0 || len(h.Devices) > 0 || h.PidMode != "" || h.IpcMode.IsHost() ||
		h.UTSMode != "" || h.UsernsMode != "" || h.CgroupParent != "" || len(h.SecurityOpt) > 0 || len(h.Sysctls) > 0 || h.AutoRemove || len(in.Mounts) > 0 {
		t.Errorf("%+v", h)
	}
	if h.Memory != 128<<20 || h.NanoCPUs != 13e7 || h.PidsLimit == nil || *h.PidsLimit <= 0 {
		t.Errorf("memory %d, cpus %d, pids %v", h.Memory, h.NanoCPUs, h.PidsLimit)
	}
	if in.Config.Labels["mesopool.cluster"] != "" || in.Config.Labels["mesopool.endpoint.id"] != x || in.State.Health != nil && in.State.Health.Status != "none" {
		t.Errorf("%v %v", in.Config.Labels, in.State.Health)
	}
	for _, bind := range []string{"/:/host", "/var/run/docker.sock:/s"} {
		a.want(422, "(Validation) Invalid binds", "POST", "/containers/create", body(live.run+":1", m{"Binds": []string{bind}}))
	}
	a.want(500, "host volumes are not supported", "POST", "/containers/create", body(live.run+":1", m{"Binds": []string{"somebodys:/x"}}))
	for _, n := range []string{"host", "none", "container:" + x} {
		b.want(400, "(NotImplemented)", "POST", "/containers/create", body(live.run+":1", m{"NetworkMode": n}))
	}
	y := b.engineStart("y", nil, "serve", "run")
	for _, n := range []string{"bridge", live.run + "-" + a.acct.Key(), in.NetworkSettings.Networks[live.run+"-"+a.acct.Key()].NetworkID} {
		if n != "bridge" {
			b.want(404, "(ResourceNotFound) network", "POST", "/containers/create", body(live.run+":1", m{"NetworkMode": n}))
		}
	}
	if got := onEngine(t, y).NetworkSettings.Networks; len(got) != 1 || got[live.run+"-"+b.acct.Key()] == nil {
		t.Errorf("%v", got)
	}
	// From inside: the own neighbour answers, by name, and another tenant's does not.
	a.engineStart("z", nil, "run")
	reach := func(c *client, from, url string) float64 {
		t.Helper()
		var made struct{ ID string }
		json.Unmarshal([]byte(c.want(200, "", "POST", "/containers/"+from+"/exec", m{"Cmd": []string{"/helper", "get=" + url}, "AttachStdout": true}).text), &made)
		c.want(200, "", "POST", "/exec/"+made.ID+"/start", m{})
		return c.get("/exec/" + made.ID + "/json")["ExitCode"].(float64)
	}
	xip := a.ip(x)
	eventually(t, "a neighbour answers", func() bool { return reach(a, "z", "http://"+xip+"/") == 0 })
	cns := "x.inst." + a.acct.Login + ".mesopool.cns.mesopool"
	if code := reach(a, "z", "http://x/") + reach(a, "z", "http://"+cns+"/"); code != 0 {
		t.Error("a neighbour is not found by its names")
	}
	if reach(b, "y", "http://"+xip+"/") == 0 {
		t.Error("another tenant's container can be reached")
	}
	if reach(b, "y", "http://x/") == 0 || reach(b, "y", "http://"+cns+"/") == 0 {
		t.Error("another tenant's container is found by its name")
	}
}

// TestEngineRelations: links and shared volumes work within an account.
func TestEngineRelations(t *testing.T) {
	c := engineRig(t, t.TempDir()).guest()
	src := c.create("src", body(live.run+":1", nil, m{"Cmd": []string{"/helper", "serve", "run"}, "Volumes": m{"/vol": m{}}}))
	c.want(204, "", "POST", "/containers/"+src+"/start", nil)
	c.engineStart("dst", m{"Links": []string{"src:store"}, "VolumesFrom": []string{"src"}}, "run")
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	w.WriteHeader(&tar.Header{Name: "hello", Mode: 0o644, Size: 2})
	w.Write([]byte("hi"))
	w.Close()
	c.want(200, "", "PUT", "/containers/src/archive?path=/vol", archive.String())
	c.want(200, "hello", "GET", "/containers/dst/archive?path=/vol/hello", nil)
	said := ""
	defer func() {
		if t.Failed() {
			t.Logf("the last try said %q", said)
		}
	}()
	eventually(t, "the link leads to src", func() bool {
		var made struct{ ID string }
		json.Unmarshal([]byte(c.want(200, "", "POST", "/containers/dst/exec", m{"Cmd": []string{"/helper", "get=http://store/"}, "AttachStdout": true}).text), &made)
		said = c.want(200, "", "POST", "/exec/"+made.ID+"/start", m{}).text
		return c.get("/exec/" + made.ID + "/json")["ExitCode"] == 0.0
	})
	if got := fmt.Sprint(c.list("")[1]["Names"]); got != "[/src /dst/store]" {
		t.Error(got)
	}
	c.want(500, "Unable to delete container", "DELETE", "/containers/src?force=1", nil)
}

func TestEngineImages(t *testing.T) {
	r := engineRig(t, t.TempDir())
	c := r.guest()
	secret := live.run + "-secret:1"
	in, err := live.cli.ImageInspect(t.Context(), secret)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{secret, in.ID, strings.TrimPrefix(in.ID, "sha256:")[:12], "nosuch"} {
		c.want(404, "(ResourceNotFound) No such image", "POST", "/containers/create", body(name, nil))
		c.want(404, "(ResourceNotFound) No such image", "GET", "/images/"+name+"/json", nil)
		c.want(404, "(ResourceNotFound) No such image", "POST", "/images/"+name+"/tag?repo=mine&tag=1", nil)
		c.want(404, "(ResourceNotFound) No such image", "DELETE", "/images/"+name, nil)
	}
	a := c.want(200, "", "GET", "/images/json", nil)
	if !strings.Contains(a.text, live.run+":1") || strings.Contains(a.text, "secret") || strings.Count(a.text, "RepoTags") != 1 {
		t.Error(a.text)
	}
	if a := c.want(200, "", "POST", "/images/create?fromImage="+live.run+"-secret&tag=1", nil); !strings.Contains(a.text, `"error"`) {
		t.Errorf("pulled what only the engine has: %s", a.text)
	}
	c.want(404, "", "GET", "/images/"+secret+"/json", nil)
	c.want(201, "", "POST", "/images/"+live.run+":1/tag?repo=mine&tag=1", nil)
	c.engineStart("x", nil, "run")
	c.want(200, "", "DELETE", "/images/mine:1", nil)
	c.want(409, "", "DELETE", "/images/"+live.run+":1", nil)
	if _, err := live.cli.ImageInspect(t.Context(), live.run+":1"); err != nil {
		t.Error(err)
	}
}

// TestEngineOutlivesTheEndpoint: a new process finds what there is, also what
// changed behind its back.
func TestEngineOutlivesTheEndpoint(t *testing.T) {
	dir := t.TempDir()
	r := engineRig(t, dir)
	c := r.guest()
	id := c.engineStart("x", m{"Memory": 128 << 20}, "run")
	gone := c.engineStart("gone", nil, "run")
	c.want(204, "", "POST", "/containers/x/rename?name=renamed", nil)
	again := engineRig(t, dir)
	same := &client{again, c.acct, c.http}
	if in := same.get("/containers/renamed/json"); in["Id"] != id || in["State"].(m)["Running"] != true || in["HostConfig"].(m)["Memory"] != float64(128<<20) {
		t.Error(in)
	}
	same.want(409, "(ValidationFailed)", "POST", "/containers/create?name=renamed", body(live.run+":1", nil))
	if err := live.cli.ContainerRemove(t.Context(), onEngine(t, gone).ID, container.RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what the operator removed is gone", func() bool { return same.do("GET", "/containers/gone/json", nil).status == 404 })
	if got := again.cloud.Usage(c.acct); got.Machines != 1 {
		t.Error(got)
	}
	same.want(204, "", "DELETE", "/containers/renamed?force=1", nil)
}

// TestDockerCommand runs the plain docker command as a tenant does.
func TestDockerCommand(t *testing.T) {
	r := engineRig(t, t.TempDir())
	c := r.guest()
	sh := c.shell()
	certs := sh.certs
	docker := func(want string, args ...string) string {
		t.Helper()
		return sh.ok(want, strings.Join(args, " "))
	}
	docker("SDCAccount: "+c.acct.Login, "info")
	docker("1.9.0", "version")
	id := docker("", "run", "-d", "--name", "web", "-p", "80:80", "-m", "128m", live.run+":1", "/helper", "lines=1", "serve", "run")
	docker("web", "ps")
	docker(id[:12], "ps", "-a", "--filter", "name=web")
	eventually(t, "the log has a line", func() bool { return strings.Contains(docker("", "logs", "--tail", "all", "web"), "out 1") })
	docker("out 1", "exec", "web", "/helper", "lines=1")
	docker(`"IPAddress": "1`, "inspect", "web")
	docker(live.run, "images")
	docker(backend.FabricName, "network", "ls")
	file := filepath.Join(certs, "file")
	if err := os.WriteFile(file, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	docker("", "cp", file, "web:/data/file")
	docker("", "cp", "web:/data/file", file+"2")
	docker("web", "stop", "-t", "5", "web")
	docker("Exited", "ps", "-a")
	docker("web", "start", "web")
	docker("", "rename", "web", "other")
	docker("other", "rm", "-f", "other")
	if out := docker("", "ps", "-aq"); out != "" {
		t.Errorf("left: %s", out)
	}
}
