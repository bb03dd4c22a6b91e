package endpoint

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/mesopool/mesopool/endpoint/backend"
)

// rig is an endpoint on a simulated data center, served over TLS.
type rig struct {
	t      *testing.T
	dir    string
	cloud  *Cloud
	server *Server
	mem    *backend.Memory
	url    string
}

func image(cmd ...string) backend.Image { return backend.Image{Cmd: cmd} }

var catalog = map[string]backend.Image{
	"run:latest":     image("/bin/server"),
	"exit:latest":    image("sh", "-c", "echo out; echo err >&2; exit 3"),
	"empty:latest":   {},
	"web:latest":     {Cmd: []string{"/bin/server"}, Exposed: []string{"80/tcp", "443/tcp"}, Env: []string{"A=1"}, Labels: map[string]string{"from": "image"}},
	"deaf:latest":    image("sh", "-c", "trap '' TERM; sleep infinity"),
	"private:latest": image("/bin/server"),
}

func newRig(t *testing.T, cfg Config, mem backend.MemoryConfig, o Options) *rig {
	t.Helper()
	if mem.Catalog == nil {
		mem.Catalog = catalog
	}
	r := &rig{t: t, dir: t.TempDir(), mem: backend.NewMemory(mem)}
	cfg.Dir, cfg.Backend = r.dir, r.mem
	var err error
	if r.cloud, err = Open(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if r.server, err = New(r.cloud, o); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- r.server.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	r.url = "https://" + l.Addr().String()
	return r
}

func plainRig(t *testing.T) *rig {
	return newRig(t, Config{}, backend.MemoryConfig{}, Options{})
}

// tenant is an account's client.
type client struct {
	r    *rig
	acct *Account
	http *http.Client
}

func (r *rig) with(certs ...tls.Certificate) *http.Client {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(r.cloud.Authority().PEM())
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if len(certs) == 0 {
			return &tls.Certificate{}, nil
		}
		return &certs[0], nil
	}}}
	r.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func (r *rig) tenant(login string) *client {
	r.t.Helper()
	acct, err := r.cloud.Accounts().Add(login)
	if err != nil {
		r.t.Fatal(err)
	}
	cert, key, err := r.cloud.Authority().Issue(acct)
	if err != nil {
		r.t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		r.t.Fatal(err)
	}
	c := &client{r, acct, r.with(pair)}
	return c
}

// newTenant makes an account that has pulled every image.
func (r *rig) newTenant(login string) *client {
	r.t.Helper()
	c := r.tenant(login)
	for name := range catalog {
		if a := c.do("POST", "/images/create?fromImage="+strings.TrimSuffix(name, ":latest")+"&tag=latest", nil); a.status != 200 {
			r.t.Fatalf("pull %s: %v", name, a)
		}
	}
	return c
}

type answer struct {
	status int
	header http.Header
	text   string
	err    error
}

func (a answer) String() string { return fmt.Sprintf("%d %s %v", a.status, a.text, a.err) }

func send(h *http.Client, method, url string, body any) answer {
	var in io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		in = strings.NewReader(b)
	default:
		text, _ := json.Marshal(b)
		in = bytes.NewReader(text)
	}
	req, err := http.NewRequest(method, url, in)
	if err != nil {
		return answer{err: err}
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := h.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(text), err}
}

func (c *client) do(method, path string, body any) answer {
	return send(c.http, method, c.r.url+"/v1.24"+path, body)
}

// want checks a status and what the text begins with.
func (c *client) want(status int, text, method, path string, body any) answer {
	c.r.t.Helper()
	a := c.do(method, path, body)
	if a.err != nil || a.status != status || !strings.HasPrefix(a.text, text) {
		c.r.t.Errorf("%s %s: %v; want %d %s", method, path, a, status, text)
	}
	return a
}

type m = map[string]any

// body makes a create call's body; fields of HostConfig are given as host.
func body(image string, host m, more ...m) m {
	b := m{"Image": image, "HostConfig": m{}, "Labels": m{}}
	if host != nil {
		b["HostConfig"] = host
	}
	for _, x := range more {
		for k, v := range x {
			b[k] = v
		}
	}
	return b
}

// create makes a container and returns its ID.
func (c *client) create(name string, b m) string {
	c.r.t.Helper()
	a := c.want(200, `{"Id":"`, "POST", "/containers/create?name="+name, b)
	var out struct{ ID string }
	json.Unmarshal([]byte(a.text), &out)
	return out.ID
}

func (c *client) start(name, image string, host m) string {
	c.r.t.Helper()
	id := c.create(name, body(image, host))
	c.want(204, "", "POST", "/containers/"+id+"/start", nil)
	return id
}

// get reads JSON.
func (c *client) get(path string) m {
	c.r.t.Helper()
	var out m
	a := c.want(200, "{", "GET", path, nil)
	if err := json.Unmarshal([]byte(a.text), &out); err != nil {
		c.r.t.Fatal(err)
	}
	return out
}

func (c *client) list(query string) []m {
	c.r.t.Helper()
	var out []m
	a := c.want(200, "[", "GET", "/containers/json?"+query, nil)
	if err := json.Unmarshal([]byte(a.text), &out); err != nil {
		c.r.t.Fatalf("%v: %s", err, a.text)
	}
	return out
}

func (c *client) state(id string) m { return c.get("/containers/" + id + "/json")["State"].(m) }

// eventually repeats until ok; a real container ends on a clock of its own.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 10s", what)
		}
	}
}

func TestRule01Ping(t *testing.T) {
	r := plainRig(t)
	h := r.with()
	if a := send(h, "HEAD", r.url+"/_ping", nil); a.status != 405 || a.header.Get("Allow") != "GET" {
		t.Errorf("HEAD: %v", a)
	}
	a := send(h, "GET", r.url+"/_ping", nil)
	if a.status != 200 || a.text != "OK" || a.header.Get("Api-Version") != "" || a.header.Get("Ostype") != "" {
		t.Errorf("GET: %v %v", a, a.header)
	}
}

func TestRule02Versions(t *testing.T) {
	r := plainRig(t)
	c := r.tenant("a")
	for path, status := range map[string]int{"/v1.14": 400, "/v1.19": 400, "": 200, "/v1.20": 200, "/v1.24": 200, "/v1.51": 200, "/v9.99": 200, "/v1.9": 200, "/v1.100": 400} {
		a := send(c.http, "GET", r.url+path+"/info", nil)
		if a.status != status || status == 400 && !strings.HasPrefix(a.text, "(InvalidVersion) client API version (") {
			t.Errorf("%s: %v; want %d", path, a, status)
		}
	}
}

var withID = regexp.MustCompile(`^(\([A-Za-z]+\) )?.+ \(([0-9a-f-]{36})\)$`)

func TestRule03Headers(t *testing.T) {
	r := plainRig(t)
	c := r.tenant("a")
	a := c.want(404, "(ResourceNotFound) No such container: x (", "GET", "/containers/x/json", nil)
	m := withID.FindStringSubmatch(a.text)
	if m == nil || m[2] != a.header.Get("x-request-id") || a.header.Get("Server") != "Triton/1.9.0 (linux)" || a.header.Get("x-response-time") == "" {
		t.Errorf("%v %v", a, a.header)
	}
	if !strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") {
		t.Error(a.header)
	}
}

func TestRule05InfoAndVersion(t *testing.T) {
	c := plainRig(t).tenant("teama")
	info := c.get("/info")
	for _, k := range []string{"NCPU", "MemTotal", "Labels", "ServerVersion", "ContainersRunning"} {
		if _, there := info[k]; there {
			t.Errorf("/info has %s", k)
		}
	}
	if info["Driver"] != "sdc" || fmt.Sprint(info["DriverStatus"]) != "[[SDCAccount teama]]" || info["Name"] != "mesopool" {
		t.Error(info)
	}
	v := c.get("/version")
	if len(v) != 7 || v["ApiVersion"] != "1.21" || v["Version"] != "1.9.0" || v["Os"] != "solaris" {
		t.Error(v)
	}
}

func TestRule06NotImplemented(t *testing.T) {
	r := plainRig(t)
	if a := send(r.with(), "GET", r.url+"/v1.24/events", nil); a.status != 400 || !strings.HasPrefix(a.text, "(NotImplemented) events is not implemented (") {
		t.Errorf("events without a certificate: %v", a)
	}
	c := r.tenant("a")
	for _, p := range []string{"POST /containers/x/pause", "POST /containers/x/unpause", "GET /containers/x/export", "GET /containers/x/changes", "POST /networks/create"} {
		method, path, _ := strings.Cut(p, " ")
		c.want(400, "(NotImplemented) ", method, path, nil)
	}
}

func TestRule07Unrouted(t *testing.T) {
	c := plainRig(t).tenant("a")
	a := c.want(404, "(ResourceNotFound) /v1.24/containers/x/update does not exist (", "POST", "/containers/x/update", nil)
	if a.header.Get("x-request-id") != "" || !withID.MatchString(a.text) {
		t.Errorf("%v %v", a, a.header)
	}
	c.want(404, "(ResourceNotFound) /v1.24/system/df does not exist (", "GET", "/system/df", nil)
	c.want(405, "POST is not allowed (", "POST", "/containers/prune", nil)
}

func TestRule08Modes(t *testing.T) {
	r := plainRig(t)
	c := r.tenant("a")
	r.server.SetMode(Mode{ReadOnly: true, RetryAfter: time.Now().Add(time.Hour)})
	if a := c.want(503, "(ServiceUnavailableError) ", "POST", "/containers/x/start", nil); a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	c.get("/info")
	r.server.SetMode(Mode{Degraded: true})
	c.want(503, "(ServiceUnavailableError) service is currently unavailable (", "GET", "/info", nil)
}

func TestRule09Create(t *testing.T) {
	c := plainRig(t).newTenant("a")
	a := c.want(200, "", "POST", "/containers/create?name=x", body("run", nil))
	if !regexp.MustCompile(`^\{"Id":"[0-9a-f]{64}","Warnings":\[\]\}\n$`).MatchString(a.text) {
		t.Error(a)
	}
	got, err := c.r.cloud.Container(c.acct, "x")
	if err != nil || strings.ReplaceAll(got.UUID(), "-", "") != got.ID[:32] {
		t.Error(got, err)
	}
}

func TestRule10Provisioning(t *testing.T) {
	c := newRig(t, Config{}, backend.MemoryConfig{Provision: 300 * time.Millisecond}, Options{}).newTenant("a")
	made := make(chan answer, 1)
	go func() { made <- c.do("POST", "/containers/create?name=x", body("run", nil)) }()
	var seen []m
	eventually(t, "x is visible", func() bool { seen = c.list("all=1"); return len(seen) == 1 })
	if !strings.HasPrefix(seen[0]["Status"].(string), "Provisioning ") || len(c.list(url.Values{"filters": {`{"status":["created"]}`}}.Encode())) != 1 {
		t.Error(seen)
	}
	c.want(409, "(ValidationFailed) problem starting container", "POST", "/containers/x/start", nil)
	c.want(409, "(ValidationFailed) problem stopping container", "POST", "/containers/x/stop", nil)
	c.want(500, `Container state "provisioning" not allowed for this command (`, "DELETE", "/containers/x?force=1", nil)
	c.want(409, `(ValidationFailed) problem creating container: Invalid VM parameters: "alias" (Duplicate)`, "POST", "/containers/create?name=x", body("run", nil))
	if a := <-made; a.status != 200 {
		t.Error(a)
	}
	c.want(204, "", "POST", "/containers/x/start", nil)
}

func TestRule11FailedProvision(t *testing.T) {
	r := plainRig(t)
	c := r.newTenant("a")
	r.mem.SetFaults(backend.Faults{Provision: 1})
	c.want(500, "problem creating container", "POST", "/containers/create?name=x", body("run", nil))
	c.want(404, "(ResourceNotFound) ", "GET", "/containers/x/json", nil)
	r.mem.SetFaults(backend.Faults{})
	c.create("x", body("run", nil))
}

func TestRule12NoImage(t *testing.T) {
	c := plainRig(t).tenant("a")
	c.want(404, "(ResourceNotFound) No such image: run (", "POST", "/containers/create", body("run", nil))
	a := c.want(200, "", "POST", "/images/create?fromImage=nosuch&tag=1", nil)
	if !strings.Contains(a.text, `"error":"image nosuch:1`) {
		t.Error(a)
	}
	c.want(400, "(NotImplemented) ", "POST", "/images/create?fromImage=run", nil)
}

func TestRule13Types(t *testing.T) {
	c := plainRig(t).newTenant("a")
	tests := []struct {
		status     int
		text, body string
	}{
		{422, `(Validation) "HostConfig" must be an object`, `{"Image":"run"}`},
		{422, `(Validation) "HostConfig" must be an object`, `{"Image":"run","HostConfig":[]}`},
		{422, `(Validation) "HostConfig" must be an object`, `{"Image":"run","HostConfig":"x"}`},
		{500, `TypeError`, `{"Image":"run","HostConfig":null}`},
		{422, `(Validation) "Image"`, `{"Image":3,"HostConfig":{}}`},
		{422, `(Validation) "Cmd"`, `{"Image":"run","Cmd":"x","HostConfig":{}}`},
		{422, `(Validation) "Env"`, `{"Image":"run","Env":{"a":"b"},"HostConfig":{}}`},
		{422, `(Validation) "Entrypoint"`, `{"Image":"run","Entrypoint":["x",1],"HostConfig":{}}`},
		{422, `(Validation) "Entrypoint"`, `{"Image":"run","Entrypoint":[null],"HostConfig":{}}`},
		{400, `(InvalidContent)`, `{"Image":`},
		{400, `(InvalidContent)`, `null`},
	}
	for _, tt := range tests {
		c.want(tt.status, tt.text, "POST", "/containers/create", tt.body)
	}
	c.create("ok", body("run", nil, m{"Cmd": nil, "Env": nil, "Entrypoint": nil}))
}

func TestRule14Networks(t *testing.T) {
	c := plainRig(t).newTenant("a")
	refused := func(mode string, status int, text string) {
		t.Helper()
		c.want(status, text, "POST", "/containers/create", body("run", m{"NetworkMode": mode}))
	}
	refused("host", 400, "(NotImplemented) NetworkMode host is not supported is not implemented (")
	refused("none", 400, "(NotImplemented) NetworkMode none is not supported is not implemented (")
	refused("container:x", 400, "(NotImplemented) Container networking is not supported is not implemented (")
	refused("nosuch", 404, "(ResourceNotFound) network nosuch not found (")
	own := c.get("/networks/" + url.PathEscape(backend.FabricName))
	for _, mode := range []string{"", "bridge", "default", own["Id"].(string), own["Id"].(string)[:8], backend.FabricName} {
		c.create("", body("run", m{"NetworkMode": mode}))
	}
}

func TestRule15Binds(t *testing.T) {
	c := plainRig(t).newTenant("a")
	for _, b := range []string{"/etc:/etc", "../x:/x", "data:/x:rx", "data", "data:x", "data:/x:ro:z", "data:/", "/:/host"} {
		c.want(422, "(Validation) Invalid binds: "+b, "POST", "/containers/create", body("run", m{"Binds": []string{b}}))
	}
	c.want(500, "host volumes are not supported (", "POST", "/containers/create", body("run", m{"Binds": []string{"data:/x:ro"}}))
}

func TestRule16Volumes(t *testing.T) {
	c := plainRig(t).newTenant("a")
	volumes := m{}
	for i := range 9 {
		volumes[fmt.Sprintf("/v%d", i)] = m{}
	}
	c.want(500, "too many data volumes: max 8 (", "POST", "/containers/create", body("run", nil, m{"Volumes": volumes}))
	delete(volumes, "/v8")
	c.create("src", body("run", nil, m{"Volumes": volumes}))
	c.want(500, "AssertionError", "POST", "/containers/create", body("run", nil, m{"Volumes": m{"x": m{}}}))
	c.want(500, "too many volumes-from", "POST", "/containers/create", body("run", m{"VolumesFrom": []string{"src", "src", "src"}}))
	c.create("dst", body("run", m{"VolumesFrom": []string{"src:ro"}}))
	c.want(500, "Unable to delete container", "DELETE", "/containers/src", nil)
	c.want(204, "", "DELETE", "/containers/dst", nil)
	c.want(204, "", "DELETE", "/containers/src", nil)
}

func ports(keys ...string) m {
	all := m{}
	for _, k := range keys {
		all[k] = []m{{"HostIp": "", "HostPort": ""}}
	}
	return all
}

func TestRule17Ports(t *testing.T) {
	c := plainRig(t).newTenant("a")
	for _, k := range []string{"80", "0/tcp", "65536/tcp", "80/sctp", "x/tcp", "080/tcp"} {
		c.want(422, "(Validation) ", "POST", "/containers/create", body("run", m{"PortBindings": ports(k)}))
	}
	c.want(500, "publish port: remapping of port numbers not allowed (", "POST", "/containers/create",
		body("run", m{"PortBindings": m{"80/tcp": []m{{"HostPort": "8080"}}}}))
	many := m{}
	for i := range 129 {
		many[fmt.Sprintf("%d/tcp", 1000+i)] = []m{}
	}
	c.want(500, "publish port: only support exposing 128 TCP ports (", "POST", "/containers/create", body("run", m{"PortBindings": many}))
	for _, name := range []string{"one", "two"} {
		c.start(name, "run", m{"PortBindings": m{"80/tcp": []m{{"HostPort": "80"}}}})
	}
}

func (c *client) ip(id string) string {
	c.r.t.Helper()
	ip, _ := c.get("/containers/" + id + "/json")["NetworkSettings"].(m)["IPAddress"].(string)
	return ip
}

func TestRule18PublicAddress(t *testing.T) {
	c := plainRig(t).newTenant("a")
	c.create("private", body("web", nil, m{"ExposedPorts": m{"8080/tcp": m{}}}))
	c.create("bound", body("web", m{"PortBindings": ports("80/tcp")}))
	c.create("all", body("web", m{"PublishAllPorts": true}))
	for name, want := range map[string]string{"private": "10.", "bound": "100.64.", "all": "100.64."} {
		if ip := c.ip(name); !strings.HasPrefix(ip, want) {
			t.Errorf("%s has %s, want %s…", name, ip, want)
		}
	}
	if got := fmt.Sprint(c.get("/containers/all/json")["NetworkSettings"].(m)["Ports"]); !strings.Contains(got, "HostPort:443") || !strings.Contains(got, "HostPort:80") {
		t.Error(got)
	}
	if got := fmt.Sprint(c.get("/containers/private/json")["NetworkSettings"].(m)["Ports"]); got != "map[443/tcp:<nil> 80/tcp:<nil>]" {
		t.Error(got)
	}
}

func TestRule19TritonLabels(t *testing.T) {
	c := plainRig(t).newTenant("a")
	for label, text := range map[string]string{
		`{"triton.network.public":"external"}`:  `(Validation) `,
		`{"triton.nosuch":"x"}`:                 `(Validation) invalid label: Unrecognized special triton tag "triton.nosuch"`,
		`{"triton.cns.disable":"maybe"}`:        `(Validation) `,
		`{"triton.cns.services":"Upper"}`:       `(Validation) `,
		`{"x":1}`:                               `(Validation) "Labels"`,
		`{"x":null}`:                            `(Validation) "Labels"`,
		`{"triton.cns.services":"a:80:x=1,-b"}`: `(Validation) `,
	} {
		c.want(422, text, "POST", "/containers/create", `{"Image":"run","HostConfig":{},"Labels":`+label+`}`)
	}
	c.create("ok", body("web", m{"PublishAllPorts": true}, m{"Labels": m{"triton.network.public": "external", "triton.cns.services": "web:80:p=1,db", "triton.cns.disable": "false"}}))
}

func TestRule20Packages(t *testing.T) {
	c := plainRig(t).newTenant("a")
	gib := int64(1 << 30)
	for _, tt := range []struct {
		memory int64
		want   float64
	}{{0, 1 << 30}, {1, 128 << 20}, {128 << 20, 128 << 20}, {128<<20 + 1, 256 << 20}, {3 * gib, 4 << 30}} {
		id := c.create("", body("run", m{"Memory": tt.memory, "CpuShares": 7}))
		in := c.get("/containers/" + id + "/json")
		if got := in["HostConfig"].(m)["Memory"]; got != tt.want || in["Config"].(m)["Memory"] != tt.want || in["HostConfig"].(m)["CpuShares"] == 7.0 {
			t.Errorf("%d: %v", tt.memory, got)
		}
	}
	c.want(422, "(NoSufficientPackage) no package supports the given container constraints: memory=65g (", "POST", "/containers/create", body("run", m{"Memory": 65 * gib}))
	label := func(v string) m { return m{"Labels": m{"com.joyent.package": v}} }
	id := c.create("", body("run", m{"Memory": gib}, label("sample-128M")))
	if got := c.get("/containers/" + id + "/json")["HostConfig"].(m)["Memory"]; got != float64(128<<20) {
		t.Error(got)
	}
	c.want(500, "invalid value for com.joyent.package: a--b (", "POST", "/containers/create", body("run", nil, label("a--b")))
	c.want(500, "no packages match parameters (", "POST", "/containers/create", body("run", nil, label("nosuch")))
	c.create("", body("run", nil, label(backend.UUIDOf("package/sample-2G")[:8])))
}

var ignoredExample = m{
	"CpuShares": 5, "Privileged": true, "CapAdd": []string{"ALL"}, "Devices": []m{{"PathOnHost": "/dev/sda"}}, "Ulimits": []m{{"Name": "nofile"}}, "PidMode": "host",
	"IpcMode": "host", "CgroupParent": "/x", "ReadonlyRootfs": true, "Tmpfs": m{"/t": ""}, "Mounts": []m{{"Type": "bind", "Source": "/", "Target": "/h"}},
	"AutoRemove": true, "ShmSize": 9, "Sysctls": m{"a": "b"}, "SecurityOpt": []string{"x"},
}

func TestRule21Ignored(t *testing.T) {
	c := plainRig(t).newTenant("a")
	a := c.want(200, "", "POST", "/containers/create?name=x", body("run", ignoredExample, m{"Healthcheck": m{"Test": []string{"x"}}, "NetworkingConfig": m{"EndpointsConfig": m{"x": m{"Aliases": []string{"y"}}}}}))
	if !strings.Contains(a.text, `"Warnings":[]`) {
		t.Error(a)
	}
	text := c.want(200, "", "GET", "/containers/x/json", nil).text
	for _, k := range []string{"Privileged", "CapAdd", "Ulimits", "PidMode", "Mounts", "Healthcheck", "Tmpfs", `"/dev/sda"`, "AutoRemove", "ShmSize"} {
		if strings.Contains(text, k) {
			t.Errorf("inspect has %s", k)
		}
	}
}

func TestRule21Strict(t *testing.T) {
	c := newRig(t, Config{Strict: true}, backend.MemoryConfig{}, Options{}).newTenant("a")
	for k, v := range ignoredExample {
		a := c.want(422, "(Strict) Triton ignores HostConfig."+k, "POST", "/containers/create", body("run", m{k: v}))
		if a.status == 200 {
			t.Error(k)
		}
	}
	c.want(422, "(Strict) ", "POST", "/containers/create", body("run", m{"RestartPolicy": m{"Name": "unless-stopped"}}))
	c.want(422, "(Strict) Triton ignores ExposedPorts", "POST", "/containers/create", body("run", nil, m{"ExposedPorts": m{"80/tcp": m{}}}))
	c.want(422, "(Strict) ", "POST", "/containers/create?name=Upper", body("run", nil))
	c.start("ok", "run", m{"MemorySwappiness": -1, "Privileged": false, "CapAdd": nil})
	c.want(422, "(Strict) Triton ignores signal=TERM", "POST", "/containers/ok/kill?signal=TERM", nil)
	c.want(422, "(Strict) ", "POST", "/containers/ok/restart?t=1", nil)
	c.want(204, "", "POST", "/containers/ok/kill?signal=SIGKILL", nil)
}

func TestRule22Logs(t *testing.T) {
	c := plainRig(t).newTenant("a")
	log := func(kind string, o m) m { return body("run", m{"LogConfig": m{"Type": kind, "Config": o}}) }
	c.want(422, "(Validation) unsupported log driver: syslog (", "POST", "/containers/create", log("syslog", nil))
	c.want(422, "(Validation) unknown option", "POST", "/containers/create", log("json-file", m{"nosuch": "1"}))
	c.create("a", log("", nil))
	c.create("b", log("json-file", m{"max-size": "1m"}))
	d := newRig(t, Config{LogDrivers: []string{"gelf"}}, backend.MemoryConfig{}, Options{}).newTenant("a")
	d.want(422, "(Validation) missing option for log driver gelf: gelf-address (", "POST", "/containers/create", log("gelf", nil))
}

func TestRule23UnlessStopped(t *testing.T) {
	c := plainRig(t).newTenant("a")
	for asked, want := range map[string]string{"unless-stopped": "", "always": "always", "on-failure": "on-failure", "no": "", "nonsense": ""} {
		id := c.create("", body("run", m{"RestartPolicy": m{"Name": asked, "MaximumRetryCount": 2}}))
		if got := c.get("/containers/" + id + "/json")["HostConfig"].(m)["RestartPolicy"].(m)["Name"]; got != want {
			t.Errorf("%s became %v", asked, got)
		}
	}
}

func TestRule24Names(t *testing.T) {
	c := plainRig(t).newTenant("a")
	c.create("Web_1.x-", body("run", nil))
	c.want(409, `(ValidationFailed) problem creating container: Invalid VM parameters: "alias" (Duplicate) Already exists for this owner_uuid (`, "POST", "/containers/create?name=/Web_1.x-", body("run", nil))
	for _, n := range []string{"-x", "a%20b", "_x", strings.Repeat("x", 190)} {
		c.want(409, `(ValidationFailed) problem creating container: Invalid VM parameters: "alias" (Invalid)`, "POST", "/containers/create?name="+n, body("run", nil))
	}
	c.create(strings.Repeat("x", 189), body("run", nil))
	c.create("y", body("run", nil))
	c.want(409, "(ValidationFailed) ", "POST", "/containers/y/rename?name=z", nil) // stricter than create
	c.want(409, "(ValidationFailed) ", "POST", "/containers/y/rename?name=Web_1.x-", nil)
	c.want(204, "", "POST", "/containers/y/rename?name=zz", nil)
	c.want(404, "", "GET", "/containers/y/json", nil)
	c.create("y", body("run", nil))
}

func TestRule25Hostnames(t *testing.T) {
	c := plainRig(t).newTenant("a")
	for _, h := range []string{"a_b", strings.Repeat("h", 65), "-a"} {
		c.want(409, "(ValidationFailed) ", "POST", "/containers/create", body("run", nil, m{"Hostname": h}))
	}
	id := c.create("", body("run", nil))
	if got := c.get("/containers/" + id + "/json")["Config"].(m)["Hostname"]; got != id[:12] {
		t.Error(got)
	}
}

func TestRule26NoCommand(t *testing.T) {
	c := plainRig(t).newTenant("a")
	c.want(500, "No command specified (", "POST", "/containers/create", body("empty", nil))
	c.create("", body("empty", nil, m{"Cmd": []string{"x"}}))
}

func TestRule27CapacityAndQuota(t *testing.T) {
	r := newRig(t, Config{}, backend.MemoryConfig{MemoryMiB: 1500}, Options{})
	c := r.newTenant("a")
	c.create("x", body("run", nil))
	const full = "(NoAllocatableServersError) problem creating container: No compute resources available"
	c.want(409, full, "POST", "/containers/create?name=y", body("run", nil))
	r.mem.SetFaults(backend.Faults{NoCapacity: 1})
	c.want(409, full, "POST", "/containers/create", body("run", m{"Memory": 1}))
	r.mem.SetFaults(backend.Faults{})
	change := func(f func(*Account)) {
		if _, err := r.cloud.Accounts().Change("a", func(a *Account) error { f(a); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	const quota = "Quota exceeded; to have your limits raised please contact Support ("
	for _, l := range []Limits{{Machines: 1}, {RAM: 1100}, {Quota: 26}} {
		change(func(a *Account) { a.Limits = l })
		c.want(401, quota, "POST", "/containers/create", body("run", m{"Memory": 128 << 20}))
	}
	change(func(a *Account) { a.Limits = Limits{Machines: 2} })
	c.create("z", body("run", m{"Memory": 128 << 20}))
	change(func(a *Account) { a.Unapproved = true })
	c.want(403, "(NotAuthorized) a does not have permission to pull or provision (", "POST", "/containers/create", body("run", nil))
}

func TestRule28Affinity(t *testing.T) {
	c := plainRig(t).newTenant("a")
	c.create("db", body("run", nil, m{"Labels": m{"role": "db"}}))
	near := func(env ...string) m { return body("run", nil, m{"Env": env}) }
	id := c.create("", near("A=1", "affinity:container==db", "affinity:role==/^d/", "affinity:container!=nosuch", "affinity:container==~nosuch"))
	if got := fmt.Sprint(c.get("/containers/" + id + "/json")["Config"].(m)["Env"]); got != "[A=1]" {
		t.Error(got)
	}
	c.want(422, "(Validation) ", "POST", "/containers/create", near("affinity:container=db"))
	c.want(422, "(Validation) ", "POST", "/containers/create", near("affinity:container==/(/"))
	c.want(409, "(NoAllocatableServersError) problem creating container", "POST", "/containers/create", near("affinity:container==nosuch"))
	c.want(409, "(NoAllocatableServersError) ", "POST", "/containers/create", body("run", nil, m{"Labels": m{"com.docker.swarm.affinities": `["role==web"]`}}))
	b := near("affinity:container==db")
	b["Labels"] = nil
	c.want(500, "TypeError", "POST", "/containers/create", b)
}

func TestRule29Idempotent(t *testing.T) {
	c := plainRig(t).newTenant("a")
	id := c.create("x", body("run", nil))
	for _, order := range []string{"stop", "kill", "start", "start", "stop", "stop", "kill", "restart"} {
		c.want(204, "", "POST", "/containers/"+id+"/"+order, nil)
	}
	for _, order := range []string{"stop", "kill", "start", "restart"} {
		c.want(404, "(ResourceNotFound) No such container: nosuch (", "POST", "/containers/nosuch/"+order, nil)
	}
}

func TestRule30Stop(t *testing.T) {
	c := plainRig(t).newTenant("a")
	id := c.start("x", "deaf", nil)
	c.want(422, "(Validation) ", "POST", "/containers/x/stop?t=abc", nil)
	c.want(204, "", "POST", "/containers/x/stop?t=1", nil)
	if s := c.state(id); s["Running"] != false || s["ExitCode"] != -9.0 {
		t.Error(s)
	}
	c.start("y", "run", nil)
	c.want(204, "", "POST", "/containers/y/stop?t=0", nil)
	if s := c.state("y"); s["ExitCode"] != -15.0 {
		t.Errorf("t=0 is the default, which asks first: %v", s)
	}
}

func TestRule31KillIgnoresSignal(t *testing.T) {
	c := plainRig(t).newTenant("a")
	id := c.start("x", "deaf", nil)
	c.want(204, "", "POST", "/containers/x/kill?signal=TERM", nil)
	if s := c.state(id); s["ExitCode"] != -9.0 {
		t.Error(s)
	}
	d := newRig(t, Config{}, backend.MemoryConfig{}, Options{HonourKillSignal: true}).newTenant("a")
	d.start("x", "run", nil)
	d.want(204, "", "POST", "/containers/x/kill?signal=SIGUSR1", nil)
	d.want(422, "(Validation) ", "POST", "/containers/x/kill?signal=nonsense", nil)
	if s := d.state("x"); s["ExitCode"] != -10.0 {
		t.Error(s)
	}
}

func TestRule32ExitCodes(t *testing.T) {
	c := plainRig(t).newTenant("a")
	c.start("x", "run", nil)
	c.want(204, "", "POST", "/containers/x/kill", nil)
	if got := c.list("all=1")[0]["Status"].(string); !strings.HasPrefix(got, "Exited (-9) ") {
		t.Error(got)
	}
}

func TestRule33Wait(t *testing.T) {
	c := newRig(t, Config{}, backend.MemoryConfig{}, Options{IdleCut: 100 * time.Millisecond}).newTenant("a")
	id := c.start("x", "exit", nil)
	if a := c.want(200, "", "POST", "/containers/"+id+"/wait", nil); a.text != "{\"StatusCode\":3}\n" {
		t.Error(a)
	}
	c.create("never", body("run", nil))
	if a := c.want(200, "", "POST", "/containers/never/wait", nil); a.text != "{}\n" {
		t.Error(a)
	}
	c.start("long", "deaf", nil)
	if a := c.do("POST", "/containers/long/wait", nil); a.err == nil {
		t.Errorf("an idle wait was answered: %v", a)
	}
	if a := c.do("POST", "/containers/long/stop?t=1", nil); a.err == nil {
		t.Errorf("an idle stop was answered: %v", a)
	}
	eventually(t, "the stop is carried out", func() bool { return c.state("long")["Running"] == false })
}

func TestRule34Delete(t *testing.T) {
	c := plainRig(t).newTenant("a")
	c.start("x", "run", nil)
	c.want(500, "Conflict, You cannot remove a running container", "DELETE", "/containers/x", nil)
	c.want(500, "", "DELETE", "/containers/x?link=1", nil)
	c.want(204, "", "DELETE", "/containers/x?force=1", nil)
	c.want(404, "(ResourceNotFound) No such container: x (", "DELETE", "/containers/x", nil)
	c.create("x", body("run", nil))
}

func TestRule35Restart(t *testing.T) {
	c := newRig(t, Config{}, backend.MemoryConfig{RestartDelay: time.Millisecond}, Options{}).newTenant("a")
	count := func(id string) int { return int(c.get("/containers/" + id + "/json")["RestartCount"].(float64)) }
	always := m{"RestartPolicy": m{"Name": "always"}}
	c.start("ends", "exit", always)
	eventually(t, "three restarts", func() bool { return count("ends") >= 3 })
	c.want(204, "", "POST", "/containers/ends/stop", nil)
	if s := c.state("ends"); s["Running"] != false {
		t.Error(s)
	}
	n := count("ends")
	c.start("killed", "run", always)
	c.want(204, "", "POST", "/containers/killed/kill", nil)
	eventually(t, "up again", func() bool { return c.state("killed")["Running"] == true && count("killed") == 1 })
	c.start("twice", "exit", m{"RestartPolicy": m{"Name": "on-failure", "MaximumRetryCount": 2}})
	eventually(t, "two restarts", func() bool { return count("twice") == 2 && c.state("twice")["Running"] == false })
	if count("ends") != n {
		t.Error("a stopped container started again")
	}
}

func TestRule36Logs(t *testing.T) {
	c := plainRig(t).newTenant("a")
	c.start("x", "exit", nil)
	eventually(t, "x ends", func() bool { return c.state("x")["Running"] == false })
	both := "\x01\x00\x00\x00\x00\x00\x00\x04out\n\x02\x00\x00\x00\x00\x00\x00\x04err\n"
	for query, want := range map[string]string{
		"": both, "tail=all": both, "tail=": "", "tail=1": both[12:], "stdout=0&stderr=0&since=9999999999": both, "follow=1&tail=all": both,
	} {
		a := c.want(200, "", "GET", "/containers/x/logs?"+query, nil)
		if a.text != want || a.header.Get("Content-Length") != "" {
			t.Errorf("%s: %q %v", query, a.text, a.header)
		}
	}
}

func TestRule37Exec(t *testing.T) {
	c := plainRig(t).newTenant("a")
	id := c.start("x", "run", nil)
	var made struct{ ID string }
	a := c.want(200, `{"Id":"`, "POST", "/containers/x/exec", m{"Cmd": []string{"sh", "-c", "echo hi; exit 5"}, "AttachStdout": true})
	json.Unmarshal([]byte(a.text), &made)
	if a := c.want(200, "", "POST", "/exec/"+made.ID+"/start", m{}); a.text != "\x01\x00\x00\x00\x00\x00\x00\x03hi\n" {
		t.Errorf("%q", a.text)
	}
	if in := c.get("/exec/" + made.ID + "/json"); in["ExitCode"] != 5.0 || in["ContainerID"] != id {
		t.Error(in)
	}
	c.want(404, "(ResourceNotFound) ", "GET", "/exec/"+made.ID+"/json", nil)
	c.want(204, "", "POST", "/containers/x/stop", nil)
	c.want(409, "Container "+id+" is not running (", "POST", "/containers/x/exec", m{"Cmd": []string{"true"}})
}

func TestRule38Top(t *testing.T) {
	c := plainRig(t).newTenant("a")
	c.create("x", body("run", nil))
	c.want(500, `Container state "stopped" not allowed for this command (`, "GET", "/containers/x/top", nil)
	c.want(204, "", "POST", "/containers/x/start", nil)
	if got := c.get("/containers/x/top"); fmt.Sprint(got["Titles"]) != "[PID USER TIME COMMAND]" {
		t.Error(got)
	}
}

func TestRule39ListAndInspect(t *testing.T) {
	c := plainRig(t).newTenant("a")
	c.start("x", "run", nil)
	item := c.list("")[0]
	if len(item) != 8 || item["State"] != nil || !strings.HasPrefix(item["Status"].(string), "Up ") || fmt.Sprint(item["Names"]) != "[/x]" {
		t.Error(item)
	}
	in := c.get("/containers/x/json")
	_, health := in["State"].(m)["Status"]
	_, networks := in["NetworkSettings"].(m)["Networks"]
	_, mounts := in["Mounts"]
	if health || networks || mounts || len(in["State"].(m)) != 9 || in["HostConfig"].(m)["NetworkMode"] != "bridge" {
		t.Error(in)
	}
	c.create("linked", body("run", m{"Links": []string{"x:db"}}))
	if got := fmt.Sprint(c.list("")[0]["Names"]); got != "[/x /linked/db]" {
		t.Error(got)
	}
}

func TestRule40Filters(t *testing.T) {
	c := plainRig(t).newTenant("a")
	c.create("web-1", body("run", nil, m{"Labels": m{"a": "1", "eq": "x=y", "triton.cns.services": "web"}}))
	c.start("web-2", "run", nil)
	c.start("gone", "exit", nil)
	eventually(t, "gone ends", func() bool { return c.state("gone")["Running"] == false })
	tests := []struct{ filter, want string }{
		{`{"name":["web"]}`, "web-2 web-1"},
		{`{"name":["^web-1$"]}`, "web-1"},
		{`{"name":["^/web"]}`, ""},
		{`{"name":{"gone":true}}`, "gone"},
		{`{"label":["a"]}`, "web-1"},
		{`{"label":["a=1"]}`, "web-1"},
		{`{"label":["a=2"]}`, ""},
		{`{"label":["a=1","nosuch"]}`, ""},
		{`{"label":["eq=x=y"]}`, ""},
		{`{"label":["triton.cns.services"]}`, ""},
		{`{"label":["com.joyent.package=sample-1G"]}`, "gone web-2 web-1"},
		{`{"status":["running"]}`, "web-2"},
		{`{"status":["exited"]}`, "gone web-1"},
		{`{"status":["exited","running"]}`, ""},
		{`{"status":["created"]}`, ""},
		{`{"exited":["3"]}`, "gone"},
		{`{"nosuch":["x"]}`, "gone web-2 web-1"},
		{`{"before":["gone"],"since":["web-1"]}`, "web-2"},
	}
	names := func(all []m) string {
		var out []string
		for _, i := range all {
			out = append(out, strings.TrimPrefix(i["Names"].([]any)[0].(string), "/"))
		}
		return strings.Join(out, " ")
	}
	for _, tt := range tests {
		if got := names(c.list("all=1&filters=" + url.QueryEscape(tt.filter))); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.filter, got, tt.want)
		}
	}
	if got := names(c.list("")); got != "web-2" {
		t.Errorf("by default: %q", got)
	}
	if got := names(c.list("limit=2")); got != "gone web-2" {
		t.Errorf("the newest two: %q", got)
	}
	c.want(500, "Unrecognised filter value for status: dead (", "GET", "/containers/json?filters="+url.QueryEscape(`{"status":["dead"]}`), nil)
}

func TestRule41PackageLabel(t *testing.T) {
	c := plainRig(t).newTenant("a")
	c.create("x", body("web", m{"Memory": 1}))
	listed := c.list("all=1")[0]["Labels"].(m)
	if listed["com.joyent.package"] != "sample-128M" || listed["from"] != "image" {
		t.Error(listed)
	}
	if got := c.get("/containers/x/json")["Config"].(m)["Labels"].(m)["com.joyent.package"]; got != "sample-128M" {
		t.Error(got)
	}
}

func TestRule42Lookup(t *testing.T) {
	c := plainRig(t).newTenant("a")
	id := c.create("name", body("run", nil))
	other := c.create(id[:12], body("run", nil)) // a name wins over a beginning
	for _, by := range []string{id, "name", id[:13], id[:40]} {
		if got := c.get("/containers/" + by + "/json")["Id"]; got != id {
			t.Errorf("%s is %v", by, got)
		}
	}
	if got := c.get("/containers/" + id[:12] + "/json")["Id"]; got != other {
		t.Error(got)
	}
	got, _ := c.r.cloud.Container(c.acct, id)
	for _, by := range []string{"Name", got.UUID(), id[:63] + "g", " "} {
		c.want(404, "(ResourceNotFound) ", "GET", "/containers/"+url.PathEscape(by)+"/json", nil)
	}
	firsts := map[byte]bool{id[0]: true}
	for !firsts[other[0]] { // until two begin alike
		firsts[other[0]] = true
		other = c.create("", body("run", nil))
	}
	c.want(404, "(ResourceNotFound) No such container", "GET", "/containers/"+other[:1]+"/json", nil)
}

func TestRule43Tenants(t *testing.T) {
	r := plainRig(t)
	a, b := r.newTenant("a"), r.newTenant("b")
	id := a.start("x", "run", nil)
	b.start("x", "run", nil)
	if got := b.list("all=1"); len(got) != 1 || got[0]["Id"] == id {
		t.Error(got)
	}
	b.want(404, "(ResourceNotFound) No such container", "GET", "/containers/"+id+"/json", nil)
	if info := b.get("/info"); info["Containers"] != 1.0 {
		t.Error(info)
	}
}

// TestLostAnswers: an order whose answer is lost was carried out.
func TestLostAnswers(t *testing.T) {
	r := plainRig(t)
	c := r.newTenant("a")
	r.server.SetMode(Mode{LoseAnswer: 1})
	if a := c.do("POST", "/containers/create?name=x", body("run", nil)); a.err == nil {
		t.Error(a)
	}
	r.server.SetMode(Mode{})
	c.want(200, "", "GET", "/containers/x/json", nil)
}

// TestStateOutlivesTheProcess: accounts, certificates and lists of images are
// on disk, and nothing there is readable by others.
func TestStateOutlivesTheProcess(t *testing.T) {
	r := plainRig(t)
	c := r.newTenant("a")
	again, err := Open(t.Context(), Config{Dir: r.dir, Backend: backend.NewMemory(backend.MemoryConfig{Catalog: catalog})})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.Authority().PEM(), r.cloud.Authority().PEM()) {
		t.Error("another authority")
	}
	if _, err := again.Image(t.Context(), c.acct, "web"); err != nil {
		t.Error(err)
	}
	err = filepath.Walk(r.dir, func(name string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().Perm()&0o077 != 0 && name != r.dir {
			t.Errorf("%s is %v", name, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
