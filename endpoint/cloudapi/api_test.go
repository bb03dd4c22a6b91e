package cloudapi

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/crypto/ssh"

	"github.com/mesopool/mesopool/endpoint"
	"github.com/mesopool/mesopool/endpoint/backend"
)

type rig struct {
	t     *testing.T
	cloud *endpoint.Cloud
	api   *API
	url   string
}

func newRig(t *testing.T, o Options) *rig {
	t.Helper()
	cloud, err := endpoint.Open(t.Context(), endpoint.Config{Dir: t.TempDir(), Backend: backend.NewMemory(backend.MemoryConfig{})})
	if err != nil {
		t.Fatal(err)
	}
	o.Docker, o.URL = "tcp://docker.example:2376", "https://cloudapi.example"
	r := &rig{t: t, cloud: cloud, api: New(cloud, o)}
	s := httptest.NewServer(r.api)
	t.Cleanup(s.Close)
	r.url = s.URL
	return r
}

// client signs its requests.
type client struct {
	*rig
	acct *endpoint.Account
	key  crypto.Signer
	id   string // of the key
	date time.Time
}

func (r *rig) tenant(login string, key crypto.Signer) *client {
	r.t.Helper()
	if _, err := r.cloud.Accounts().Add(login); err != nil {
		r.t.Fatal(err)
	}
	pub, err := ssh.NewPublicKey(key.Public())
	if err != nil {
		r.t.Fatal(err)
	}
	acct, err := r.cloud.Accounts().Change(login, func(a *endpoint.Account) error {
		k, err := endpoint.ParseKey("main", string(ssh.MarshalAuthorizedKey(pub)))
		a.Keys = append(a.Keys, k)
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return &client{rig: r, acct: acct, key: key, id: ssh.FingerprintLegacyMD5(pub)}
}

func newKey() *ecdsa.PrivateKey {
	k, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return k
}

func sign(t *testing.T, key crypto.Signer, algorithm, text string) string {
	t.Helper()
	_, name, _ := strings.Cut(algorithm, "-")
	hash, data := hashes[name], []byte(text)
	if _, plain := key.(ed25519.PrivateKey); plain {
		hash = 0
	} else {
		data = digest(hash, data)
	}
	out, err := key.Sign(rand.Reader, data, hash)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(out)
}

func (c *client) header(method, path string) http.Header {
	date := c.date
	if date.IsZero() {
		date = time.Now()
	}
	text := date.UTC().Format(http.TimeFormat)
	h := http.Header{"Date": {text}}
	h.Set("Authorization", fmt.Sprintf(`Signature keyId="/%s/keys/%s",algorithm="ecdsa-sha256",headers="date (request-target)",signature="%s"`,
		c.acct.Login, c.id, sign(c.t, c.key, "ecdsa-sha256", "date: "+text+"\n(request-target): "+strings.ToLower(method)+" "+path)))
	return h
}

type answer struct {
	status int
	header http.Header
	text   string
}

func (r *rig) send(method, path, body string, h http.Header) answer {
	r.t.Helper()
	req, err := http.NewRequest(method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header = h
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(text)}
}

func (c *client) want(status int, text, method, path, body string) answer {
	c.t.Helper()
	a := c.send(method, path, body, c.header(method, path))
	if a.status != status || !strings.Contains(a.text, text) {
		c.t.Errorf("%s %s: %d %s; want %d with %s", method, path, a.status, a.text, status, text)
	}
	return a
}

// container makes one as Docker's API does.
func (c *client) container(name, more string) *endpoint.Container {
	c.t.Helper()
	if err := c.cloud.Pull(c.t.Context(), c.acct, "run:1", "", io.Discard); err != nil {
		c.t.Fatal(err)
	}
	id, err := c.cloud.Create(c.t.Context(), c.acct, name, []byte(`{"Image":"run:1","HostConfig":{"Memory":1073741824}`+more+`}`))
	if err != nil {
		c.t.Fatal(err)
	}
	got, err := c.cloud.Container(c.acct, id)
	if err != nil {
		c.t.Fatal(err)
	}
	return got
}

func TestRule44CloudAPI(t *testing.T) {
	r := newRig(t, Options{Burst: 1000})
	c := r.tenant("a", newKey())
	m := c.container("web", `,"Labels":{"role":"db","triton.cns.services":"web","triton.cns.disable":"false"}`)
	packages := c.want(200, `"name":"sample-1G"`, "GET", "/a/packages", "")
	if strings.Contains(packages.text, "cpu_cap") || !strings.Contains(packages.text, `"vcpus":0`) {
		t.Error(packages.text)
	}
	if a := c.want(200, "", "GET", "/my/packages?name=sample-*M", ""); strings.Count(a.text, `"id"`) != 3 {
		t.Error(a.text)
	}
	c.want(200, "[]", "GET", "/a/limits", "")
	if _, err := r.cloud.Accounts().Change("a", func(a *endpoint.Account) error { a.Limits.RAM = 4096; return nil }); err != nil {
		t.Fatal(err)
	}
	c.want(200, `[{"by":"ram","used":1024,"value":4096}]`, "GET", "/a/limits", "")
	c.want(200, `"docker":"tcp://docker.example:2376"`, "GET", "/a/services", "")
	c.want(200, `{"mesopool":"https://cloudapi.example"}`, "GET", "/a/datacenters", "")
	c.want(200, `"fabric":true`, "GET", "/a/networks", "")
	c.want(200, `"default_network":"`, "GET", "/a/config", "")
	c.want(200, "[]", "GET", "/a/images", "")
	got := c.want(200, `"docker":true`, "GET", "/a/machines/"+m.UUID(), "")
	for _, part := range []string{
		`"brand":"lx"`, `"type":"smartmachine"`, `"state":"stopped"`, `"sdc_docker":true`, `"docker:label:role":"db"`, `"triton.cns.services":"web"`,
		`"triton.cns.disable":false`, `"primaryIp":"10.`, `"package":"sample-1G"`, `web.inst.a.mesopool.cns.mesopool`,
	} {
		if !strings.Contains(got.text, part) {
			t.Errorf("%s is not in %s", part, got.text)
		}
	}
	if h := got.header; h.Get("Request-Id") == "" || h.Get("Api-Version") == "" {
		t.Error(h)
	}
}

func TestMachines(t *testing.T) {
	r := newRig(t, Options{Burst: 1000})
	c := r.tenant("a", newKey())
	var last *endpoint.Container
	for i := range 5 {
		last = c.container(fmt.Sprintf("m%d", i), fmt.Sprintf(`,"Labels":{"n":"%d"}`, i))
	}
	count := func(query string, n int) {
		t.Helper()
		a := c.want(200, "", "GET", "/a/machines"+query, "")
		if got := strings.Count(a.text, `"brand"`); got != n {
			t.Errorf("%s: %d machines, want %d", query, got, n)
		}
	}
	count("", 5)
	count("?limit=2&offset=4", 1)
	count("?tag.docker:label:n=3&docker=true", 1)
	count("?tag.sdc_docker=true&state=stopped&memory=1024&brand=lx", 5)
	count("?name=m1", 1)
	count("?docker=false", 0)
	if a := c.want(200, "", "HEAD", "/a/machines?limit=2", ""); a.header.Get("x-resource-count") != "5" || a.header.Get("x-query-limit") != "2" || a.text != "" {
		t.Error(a)
	}
	for _, q := range []string{"limit=1001", "limit=0", "limit=x", "offset=-1"} {
		c.want(409, `"code":"InvalidArgument"`, "GET", "/a/machines?"+q, "")
	}
	at := "/a/machines/" + last.UUID()
	state := func(want string) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); ; {
			if strings.Contains(c.want(200, "", "GET", at, "").text, `"state":"`+want+`"`) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("never %s", want)
			}
		}
	}
	c.want(202, "", "POST", at+"?action=start", "")
	state("running")
	c.want(202, "", "POST", at, `{"action":"stop"}`)
	state("stopped")
	c.want(202, "", "POST", at+"?action=rename&name=other", "")
	c.want(200, `"name":"other"`, "GET", at, "")
	c.want(409, "InvalidArgument", "POST", at+"?action=resize", "")
	c.want(200, `"4"`, "GET", at+"/tags/docker:label:n", "")
	c.want(200, `"primary":true`, "GET", at+"/nics", "")
	c.want(204, "", "DELETE", at, "")
	c.want(410, "was deleted", "GET", at, "")
	c.want(404, "ResourceNotFound", "GET", "/a/machines/"+backend.UUIDOf("x"), "")
	c.want(404, "ResourceNotFound", "GET", "/a/machines/m1", "")
	c.want(400, "NotImplemented", "POST", "/a/machines", "{}")
	count("", 4)
}

func TestSignatures(t *testing.T) {
	r := newRig(t, Options{Burst: 1000})
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, _ := ed25519.GenerateKey(rand.Reader)
	a, b, e := r.tenant("a", rsaKey), r.tenant("b", newKey()), r.tenant("e", edKey)
	now := time.Now()
	tests := []struct {
		name      string
		c         *client
		key       crypto.Signer
		keyID     string
		algorithm string
		headers   string
		date      time.Time
		status    int
	}{
		{"rsa-sha256", a, rsaKey, "/a/keys/" + a.id, "rsa-sha256", "date", now, 200},
		{"rsa-sha1", a, rsaKey, "/a/keys/" + a.id, "rsa-sha1", "date", now, 200},
		{"by name", a, rsaKey, "/a/keys/main", "RSA-SHA512", "date", now, 200},
		{"without a list of headers", a, rsaKey, "/a/keys/main", "rsa-sha256", "", now, 200},
		{"ecdsa", b, b.key, "/b/keys/" + b.id, "ecdsa-sha256", "date", now, 200},
		{"ecdsa-sha384", b, b.key, "/b/keys/" + b.id, "ecdsa-sha384", "date", now, 200},
		{"ed25519", e, edKey, "/e/keys/" + e.id, "ed25519-sha512", "date", now, 200},
		{"299s late", a, rsaKey, "/a/keys/main", "rsa-sha256", "date", now.Add(-290 * time.Second), 200},
		{"310s late", a, rsaKey, "/a/keys/main", "rsa-sha256", "date", now.Add(-310 * time.Second), 401},
		{"310s early", a, rsaKey, "/a/keys/main", "rsa-sha256", "date", now.Add(310 * time.Second), 401},
		{"another's key", a, b.key, "/a/keys/" + b.id, "ecdsa-sha256", "date", now, 401},
		{"another's name", b, b.key, "/a/keys/main", "ecdsa-sha256", "date", now, 401},
		{"the wrong algorithm", b, b.key, "/b/keys/main", "rsa-sha256", "date", now, 401},
		{"nobody", a, rsaKey, "/nobody/keys/main", "rsa-sha256", "date", now, 401},
		{"a path", a, rsaKey, "/../keys/main", "rsa-sha256", "date", now, 401},
		{"a user", a, rsaKey, "/a/users/u/keys/main", "rsa-sha256", "date", now, 401},
		{"no date signed", a, rsaKey, "/a/keys/main", "rsa-sha256", "host", now, 401},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			date := tt.date.UTC().Format(http.TimeFormat)
			text := "date: " + date
			list := fmt.Sprintf(`,headers="%s"`, tt.headers)
			if tt.headers == "host" {
				text = "host: " + strings.TrimPrefix(r.url, "http://")
			} else if tt.headers == "" {
				list = ""
			}
			algorithm := strings.ToLower(tt.algorithm)
			h := http.Header{"Date": {date}, "Authorization": {fmt.Sprintf(`Signature keyId="%s",algorithm="%s"%s,signature="%s"`,
				tt.keyID, tt.algorithm, list, sign(t, tt.key, algorithm, text))}}
			if got := r.send("GET", "/my/limits", "", h); got.status != tt.status {
				t.Errorf("%v, want %d", got, tt.status)
			}
		})
	}
	if got := r.send("GET", "/a/limits", "", http.Header{}); got.status != 401 || !strings.Contains(got.text, `"code":"InvalidCredentials"`) {
		t.Error(got)
	}
}

// TestForeignMachines: nothing of another account's can be seen, named or
// touched, and what exists is answered as what does not.
func TestForeignMachines(t *testing.T) {
	r := newRig(t, Options{Burst: 1000})
	a, b := r.tenant("a", newKey()), r.tenant("b", newKey())
	m := a.container("secret", "")
	for _, p := range []string{"GET", "DELETE", "POST"} {
		own := b.want(404, "ResourceNotFound", p, "/b/machines/"+m.UUID()+"?action=stop", "")
		none := b.want(404, "ResourceNotFound", p, "/b/machines/"+backend.UUIDOf("x")+"?action=stop", "")
		if strings.ReplaceAll(own.text, m.UUID(), "") != strings.ReplaceAll(none.text, backend.UUIDOf("x"), "") {
			t.Errorf("%s tells apart what is another's: %s", own.text, none.text)
		}
	}
	exists := b.want(403, "NotAuthorized", "GET", "/a/machines", "")
	missing := b.want(403, "NotAuthorized", "GET", "/z/machines", "")
	if strings.ReplaceAll(exists.text, "/a", "") != strings.ReplaceAll(missing.text, "/z", "") {
		t.Errorf("%s tells apart what is another's: %s", exists.text, missing.text)
	}
	for _, p := range []string{"/a", "/a/keys", "/a/limits", "/a/machines/" + m.UUID(), "/a/changefeed", "/a/networks", "/a/config"} {
		b.want(403, "NotAuthorized", "GET", p, "")
	}
	if got := b.want(200, "[]", "GET", "/b/machines", ""); got.header.Get("x-resource-count") != "0" {
		t.Error(got)
	}
	if _, err := a.cloud.Container(a.acct, m.ID); err != nil {
		t.Error(err)
	}
}

func TestThrottleAndReadOnly(t *testing.T) {
	r := newRig(t, Options{Burst: 3, Rate: 1e-6})
	c := r.tenant("a", newKey())
	for range 3 {
		c.want(200, "", "GET", "/a/limits", "")
	}
	c.want(420, `"code":"RequestThrottled"`, "GET", "/a/limits", "")
	b := r.tenant("b", newKey())
	b.want(200, "", "GET", "/b/limits", "")
	r.api.SetReadOnly(true)
	b.want(503, "ServiceUnavailable", "DELETE", "/b/keys/main", "")
	b.want(200, "", "GET", "/b/limits", "")
}

func TestKeys(t *testing.T) {
	r := newRig(t, Options{Burst: 1000})
	c := r.tenant("a", newKey())
	pub, _ := ssh.NewPublicKey(newKey().Public())
	text, _ := json.Marshal(map[string]string{"name": "second", "key": string(ssh.MarshalAuthorizedKey(pub))})
	c.want(201, `"name":"second"`, "POST", "/a/keys", string(text))
	c.want(409, "InvalidArgument", "POST", "/a/keys", string(text))
	c.want(409, "InvalidArgument", "POST", "/a/keys", `{"key":"nonsense"}`)
	c.want(200, ssh.FingerprintLegacyMD5(pub), "GET", "/a/keys/second", "")
	c.want(204, "", "DELETE", "/a/keys/second", "")
	c.want(404, "", "DELETE", "/a/keys/second", "")
	c.want(200, `"login":"a"`, "GET", "/my", "")
	c.want(404, "ResourceNotFound", "GET", "/a/nosuch", "")
}

// TestChangefeed: own changes come, others' do not.
func TestChangefeed(t *testing.T) {
	r := newRig(t, Options{Burst: 1000})
	a, b := r.tenant("a", newKey()), r.tenant("b", newKey())
	ws, _, err := websocket.Dial(t.Context(), r.url+"/a/changefeed", &websocket.DialOptions{HTTPHeader: a.header("GET", "/a/changefeed")})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	for _, text := range []string{`nonsense`, `{"resource":"cn","subResources":["state"]}`, `{"resource":"vm","subResources":["state","alias","destroyed"]}`} {
		if err := ws.Write(t.Context(), websocket.MessageText, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	b.container("foreign", "")
	read := func(want string) {
		t.Helper()
		// A registration has no answer: changes before it are not told, so change on.
		_, text, err := ws.Read(t.Context())
		if err != nil || !regexp.MustCompile(want).Match(text) || strings.Contains(string(text), "foreign") {
			t.Errorf("%s, %v; want %s", text, err, want)
		}
	}
	told := make(chan struct{})
	go func() {
		defer close(told)
		read(`"resourceState":"`)
	}()
	m := a.container("mine", "")
	for n := 0; ; n++ {
		if err := a.cloud.Rename(t.Context(), a.acct, m.ID, fmt.Sprintf("mine-%d", n)); err != nil {
			t.Fatal(err)
		}
		select {
		case <-told:
		case <-time.After(time.Millisecond):
			continue
		}
		break
	}
	if err := a.cloud.Remove(t.Context(), a.acct, m.ID, true); err != nil {
		t.Fatal(err)
	}
	for {
		_, text, err := ws.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), `"destroyed"`) {
			break
		}
	}
}

func FuzzSignature(f *testing.F) {
	f.Add(`Signature keyId="/a/keys/b",algorithm="rsa-sha256",headers="date host",signature="AAAA"`)
	f.Add(`Signature keyId="/a/users/u/keys/b",algorithm="x",signature="="`)
	f.Add(`Signature ="",="`)
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseSignature(text)
		if err == nil && (s.account == "" || s.key == "" || len(s.value) == 0 || s.algorithm == "") {
			t.Errorf("%q became %+v", text, s)
		}
	})
}
