package docker

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/docker/docker/api/types/registry"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

func TestAPIVersions(t *testing.T) {
	tests := []struct{ engine, pinned, path, err string }{
		{"1.38", "", "", "speaks API 1.38 at most, 1.40 is needed"},
		{"1.40", "", "/v1.40/info", ""},
		{"1.60", "", "/v1.51/info", ""},
		{"1.24", "1.24", "/v1.24/info", ""},
	}
	for _, tt := range tests {
		t.Run(tt.engine, func(t *testing.T) {
			f := &fake{api: tt.engine}
			f.on("GET /info", info)
			_, err := newFake(t, f, Options{APIVersion: tt.pinned}).Capacity(t.Context())
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil || f.paths[0] != tt.path {
				t.Errorf("asked %v (%v), want %s", f.paths, err, tt.path)
			}
		})
	}
}

func TestCapacity(t *testing.T) {
	f := &fake{}
	f.on("GET /info", info)
	e := newFake(t, f, Options{Grant: resources.NewScalars(
		resources.Scalar{Name: "cpus", Amount: 2500}, resources.Scalar{Name: "gpus", Amount: 1000})})
	got, err := e.Capacity(t.Context())
	if want := "cpus:2.5; disk:102400; gpus:1; mem:8192"; err != nil || got.Total.String() != want {
		t.Errorf("got %v, %v, want %s", got.Total, err, want)
	}
}

// TestLaunchIsTwoCalls: the price of a launch is that of create and start.
func TestLaunchIsTwoCalls(t *testing.T) {
	f := &fake{}
	f.on("GET /networks/own", gives(http.StatusOK, map[string]string{"Name": "own"}))
	f.on("POST /containers/create", created("c1"))
	f.on("POST /containers/c1/start", started)
	e := newFake(t, f, Options{Network: "own"})
	for range 2 {
		c, err := e.Launch(t.Context(), someone, "web-1", appSpec())
		if err != nil || c.ID != "c1" || c.State != provider.StateUp || c.Key != appSpec().Key {
			t.Fatalf("%+v, %v", c, err)
		}
	}
	two := "POST /containers/create, POST /containers/c1/start"
	if want := "GET /networks/own, " + two + ", " + two; f.called() != want {
		t.Errorf("called %s, want %s", f.called(), want)
	}
}

func TestLaunchAfterALostAnswer(t *testing.T) {
	f := &fake{}
	f.on("POST /containers/create", inTurn(cutOff, says(http.StatusConflict, `Conflict. The container name "/web-1" is already in use`)))
	f.on("GET /containers/web-1/json", inspected("c1", "web-1", "created", ours()))
	f.on("POST /containers/c1/start", started)
	e := newFake(t, f, Options{})
	if _, err := e.Launch(t.Context(), someone, "web-1", appSpec()); err == nil || classified(err) {
		t.Fatalf("a cut connection: %v; want a temporary error", err)
	}
	c, err := e.Launch(t.Context(), someone, "web-1", appSpec())
	if err != nil || c.ID != "c1" || c.State != provider.StateUp {
		t.Errorf("the second launch: %+v, %v", c, err)
	}
}

func TestLaunchOfATakenName(t *testing.T) {
	docker := says(http.StatusConflict, `Conflict. The container name "/web-1" is already in use`)
	podman := says(http.StatusInternalServerError, `creating container storage: the container name "web-1" is already in use by c1`)
	tests := []struct {
		name     string
		conflict http.HandlerFunc
		inspect  http.HandlerFunc
		want     error
		state    provider.State
	}{
		{"ours up", docker, inspected("c1", "web-1", "running", ours()), nil, provider.StateUp},
		{"ours exited", docker, inspected("c1", "web-1", "exited", ours()), nil, provider.StateExited},
		{"podman", podman, inspected("c1", "web-1", "stopped", ours()), nil, provider.StateExited},
		{"podman created", podman, inspected("c1", "web-1", "configured", ours()), nil, provider.StateUp},
		{"foreign", docker, inspected("c1", "web-1", "running", nil), provider.ErrRejected, 0},
		{
			"other agent's", docker,
			inspected("c1", "web-1", "created", provider.Labels(task.Owner{Cluster: "mesos", Agent: "x"}, appSpec())), provider.ErrRejected, 0,
		},
		{"appears late", docker, inTurn(says(404, "No such container: web-1"), inspected("c1", "web-1", "running", ours())), nil, provider.StateUp},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := &fake{}
			f.on("POST /containers/create", tt.conflict)
			f.on("GET /containers/web-1/json", tt.inspect)
			f.on("POST /containers/c1/start", started)
			c, err := newFake(t, f, Options{}).Launch(t.Context(), someone, "web-1", appSpec())
			if !errors.Is(err, tt.want) || c.State != tt.state {
				t.Errorf("got %v, %v", c.State, err)
			}
			if tt.want != nil && strings.Contains(f.called(), "start") {
				t.Error("somebody else's container was started")
			}
		})
	}
}

func TestStartErrors(t *testing.T) {
	const remove = "DELETE /containers/c1"
	tests := []struct {
		name    string
		status  int
		message string
		want    error // nil: temporary
	}{
		{"no command", 400, `exec: "/x": stat /x: no such file or directory: unknown`, provider.ErrRejected},
		{"runtime", 500, "failed to create shim task: OCI runtime create failed: …", provider.ErrRejected},
		{"addresses", 500, "no available IPv4 addresses on this network's address pools: own", provider.ErrCapacity},
		{"disk", 500, "mkdir /var/lib/docker/x: no space left on device", provider.ErrCapacity},
		{"slow", 429, "too many requests", provider.ErrThrottle},
		{"forbidden", 403, "authorization denied by plugin", provider.ErrDenied},
		{"else", 500, "context deadline exceeded in containerd", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := &fake{}
			f.on("POST /containers/create", created("c1"))
			f.on("POST /containers/c1/start", says(tt.status, tt.message))
			f.on(remove, started)
			_, err := newFake(t, f, Options{}).Launch(t.Context(), someone, "web-1", appSpec())
			if err == nil || !strings.Contains(err.Error(), tt.message) || !strings.HasPrefix(err.Error(), "docker: launch web-1: ") {
				t.Fatalf("got %v, want the engine's words", err)
			}
			if tt.want == nil && classified(err) || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if removed := strings.Contains(f.called(), remove); removed != (tt.want == provider.ErrRejected) {
				t.Errorf("removed: %v; calls %s", removed, f.called())
			}
		})
	}
}

// TestLinks: kept where both are on the network, and no reason to fail.
func TestLinks(t *testing.T) {
	for _, network := range []string{"", "own"} {
		var sent struct {
			HostConfig       struct{ Links []string }
			NetworkingConfig struct {
				EndpointsConfig map[string]struct{ Links []string }
			}
		}
		f := &fake{}
		f.on("GET /networks/own", gives(http.StatusOK, map[string]string{"Name": "own"}))
		f.on("GET /containers/consul/json", gives(http.StatusOK, map[string]any{"Id": "c9", "NetworkSettings": map[string]any{
			"Networks": map[string]any{"own": map[string]any{}, "bridge": map[string]any{}},
		}}))
		f.on("POST /containers/create", func(w http.ResponseWriter, r *http.Request) {
			if err := json.NewDecoder(r.Body).Decode(&sent); err != nil {
				t.Error(err)
			}
			created("c1")(w, r)
		})
		f.on("POST /containers/c1/start", started)
		spec := appSpec()
		spec.Parameters = []task.Label{{Key: "link", Value: "consul:c"}, {Key: "link", Value: "none:n"}}
		if _, err := newFake(t, f, Options{Network: network}).Launch(t.Context(), someone, "web-1", spec); err != nil {
			t.Fatal(err)
		}
		got := append(sent.HostConfig.Links, sent.NetworkingConfig.EndpointsConfig["own"].Links...)
		if len(got) != 1 || got[0] != "consul:c" {
			t.Errorf("network %q: links %v", network, got)
		}
	}
}

// TestOnePullForAll: launches of an image that is missing wait for one pull.
func TestOnePullForAll(t *testing.T) {
	f, pulled, asked := &fake{}, make(chan bool), make(chan *http.Request, 9)
	f.on("POST /containers/create", func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-pulled:
			created("c1")(w, r)
		default:
			says(http.StatusNotFound, "No such image: hub.example/app:latest")(w, r)
		}
	})
	f.on("POST /containers/c1/start", started)
	f.on("POST /images/create", func(w http.ResponseWriter, r *http.Request) {
		asked <- r
		time.Sleep(200 * time.Millisecond)
		close(pulled)
		progress := func(n int) map[string]any {
			return map[string]any{"id": "l1", "status": "Downloading", "progressDetail": map[string]int{"current": n, "total": 3_000_000}}
		}
		streams(true, map[string]string{"status": "Pulling from app"}, progress(1_200_000), map[string]string{"id": "l1", "status": "Download complete"})(w, r)
	})
	config := filepath.Join(t.TempDir(), "config.json")
	text := `{"auths": {"https://hub.example/v2/": {"auth": "` + base64.StdEncoding.EncodeToString([]byte("me:pass:word")) + `"}}}`
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var said []string
	e := newFake(t, f, Options{DockerConfig: config, PullProgress: func(image, text string) { said = append(said, image+": "+text) }})
	spec := appSpec()
	spec.Image = "hub.example/app"
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			if _, err := e.Launch(t.Context(), someone, "web-1", spec); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(asked) != 1 {
		t.Errorf("%d pulls for 5 launches", len(asked))
	}
	r := <-asked
	var auth registry.AuthConfig
	if raw, err := base64.URLEncoding.DecodeString(r.Header.Get("X-Registry-Auth")); err != nil || json.Unmarshal(raw, &auth) != nil {
		t.Errorf("the header is %q", r.Header.Get("X-Registry-Auth"))
	}
	if q := r.URL.Query(); q.Get("fromImage") != "hub.example/app" || q.Get("tag") != "latest" || auth.Username != "me" || auth.Password != "pass:word" {
		t.Errorf("pulled %v as %+v", q, auth)
	}
	want := []string{"hub.example/app: Pulling from app", "hub.example/app: 1.2 of 3.0 MB", "hub.example/app: 3.0 of 3.0 MB"}
	if diff := cmp.Diff(want, said); diff != "" {
		t.Error(diff)
	}
}

func TestPullErrors(t *testing.T) {
	tests := []struct {
		message string
		want    error // nil: temporary
	}{
		{"manifest for app:1 not found: manifest unknown: manifest unknown", provider.ErrRejected},
		{"pull access denied for app, repository does not exist or may require 'docker login'", provider.ErrRejected},
		{"unauthorized: authentication required", provider.ErrRejected},
		{"no matching manifest for linux/arm64 in the manifest list entries", provider.ErrRejected},
		{"toomanyrequests: You have reached your pull rate limit", provider.ErrThrottle},
		{"write /var/lib/docker/tmp/x: no space left on device", provider.ErrCapacity},
		{`Get "https://hub.example/v2/": dial tcp: lookup hub.example: no such host`, nil},
		{"received unexpected HTTP status: 503 Service Unavailable", nil},
		{"something else", nil},
	}
	for _, tt := range tests {
		for how, answer := range map[string]http.HandlerFunc{
			"at once": says(http.StatusInternalServerError, tt.message),
			"later":   streams(true, map[string]string{"status": "Pulling"}, map[string]string{"error": tt.message}),
		} {
			t.Run(how+" "+tt.message, func(t *testing.T) {
				f := &fake{}
				f.on("POST /containers/create", says(http.StatusNotFound, "No such image: app:1"))
				f.on("POST /images/create", answer)
				_, err := newFake(t, f, Options{}).Launch(t.Context(), someone, "web-1", appSpec())
				if err == nil || !strings.Contains(err.Error(), "app:1") || !strings.Contains(err.Error(), tt.message) {
					t.Errorf("got %v, want the image and the registry's words", err)
				}
				if tt.want == nil && classified(err) || tt.want != nil && !errors.Is(err, tt.want) {
					t.Errorf("got %v, want %v", err, tt.want)
				}
			})
		}
	}
}

func TestTLS(t *testing.T) {
	right, wrong := certificates(t), certificates(t)
	f := &fake{api: "1.41"}
	f.on("GET /info", info)
	host := serveTLS(t, f, right)
	tests := []struct {
		name    string
		o       Options
		want    error
		message string
	}{
		{"right", Options{CertPath: right, TLSVerify: true}, nil, ""},
		{"wrong", Options{CertPath: wrong, TLSVerify: true}, provider.ErrDenied, "no trust between"},
		{"wrong, not verified: refused by the engine", Options{CertPath: wrong}, provider.ErrDenied, "no trust between"},
		{"none", Options{}, provider.ErrDenied, "wants TLS"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.o.Host = host
			e, err := New(tt.o)
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			_, err = e.Capacity(t.Context())
			if !errors.Is(err, tt.want) || err != nil && !strings.Contains(err.Error(), tt.message) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestEngineDown(t *testing.T) {
	e, err := New(Options{Host: "unix:///nonexistent/docker.sock"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = e.Inspect(t.Context(), "x")
	want := "docker: inspect x: no Docker engine answers at unix:///nonexistent/docker.sock: start it, or name another endpoint (DOCKER_HOST)"
	if err == nil || classified(err) || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	denied := e.explainConnection(&fs.PathError{Op: "dial", Path: "/x", Err: fs.ErrPermission})
	if !errors.Is(denied, provider.ErrDenied) || !strings.Contains(denied.Error(), "group") {
		t.Errorf("a closed socket: %v", denied)
	}
	if _, err := New(Options{Host: "ssh://me@host"}); err == nil || !strings.Contains(err.Error(), "forward the socket") {
		t.Errorf("ssh: %v", err)
	}
}

func TestOptionsFromEnv(t *testing.T) {
	env := map[string]string{
		"DOCKER_HOST": "tcp://h:2376", "DOCKER_TLS_VERIFY": "1", "HOME": "/home/me", "DOCKER_API_VERSION": "1.41", "DOCKER_CONFIG": "/cfg",
	}
	got := OptionsFromEnv(func(name string) string { return env[name] })
	want := Options{Host: "tcp://h:2376", TLSVerify: true, CertPath: "/home/me/.docker", APIVersion: "1.41", DockerConfig: "/cfg/config.json"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestPodmanInspection(t *testing.T) {
	f := &fake{}
	f.on("GET /containers/c1/json", gives(http.StatusOK, map[string]any{
		"Id": "c1", "Name": "web-1", "State": map[string]any{"Status": "running", "StartedAt": "2026-01-02T03:04:05Z", "FinishedAt": "0001-01-01T00:00:00Z"},
		"Config": map[string]any{"Labels": ours()}, "NetworkSettings": map[string]any{"IPAddress": "10.88.0.2"},
	}))
	c, err := newFake(t, f, Options{Network: "own"}).Inspect(t.Context(), "c1")
	if err != nil || c.Name != "web-1" || c.State != provider.StateUp || c.Started.IsZero() || !c.Ended.IsZero() {
		t.Errorf("%+v, %v", c, err)
	}
	if len(c.Addresses) != 1 || c.Addresses[0] != "10.88.0.2" || c.Network != "bridge" {
		t.Errorf("addresses %v of %s", c.Addresses, c.Network)
	}
}

func TestClusterNetworkComesFirst(t *testing.T) {
	f := &fake{}
	f.on("GET /containers/c1/json", gives(http.StatusOK, map[string]any{"Id": "c1", "NetworkSettings": map[string]any{"Networks": map[string]any{
		"a": map[string]string{"IPAddress": "10.1.0.1"}, "own": map[string]string{"IPAddress": "10.2.0.1", "GlobalIPv6Address": "fd00::1"},
	}}}))
	c, err := newFake(t, f, Options{Network: "own"}).Inspect(t.Context(), "c1")
	if want := "10.2.0.1 fd00::1 10.1.0.1"; err != nil || strings.Join(c.Addresses, " ") != want || c.Network != "own" {
		t.Errorf("%v of %s (%v), want %s", c.Addresses, c.Network, err, want)
	}
}

func event(action, id string) map[string]any {
	labels := ours()
	labels["name"] = "web-" + id
	return map[string]any{"Type": "container", "Action": action, "Actor": map[string]any{"ID": id, "Attributes": labels}}
}

// TestWatchOfPodman: other words for events, filters that let strangers
// through, and a stream that ends.
func TestWatchOfPodman(t *testing.T) {
	theirs := ours()
	theirs[provider.LabelAgent] = "another"
	f := &fake{}
	f.on("GET /info", info)
	f.on("GET /containers/x2/json", inspected("x2", "x2", "running", theirs))
	f.on("GET /containers/json", gives(http.StatusOK, []any{
		map[string]any{"Id": "c1", "Names": []string{"/web-c1"}, "State": "running", "Labels": ours()},
		map[string]any{"Id": "c0", "Names": []string{"/web-c0"}, "State": "exited", "Labels": ours()},
		map[string]any{"Id": "x1", "Names": []string{"/x1"}, "State": "running", "Labels": theirs},
	}))
	f.on("GET /containers/c0/json", says(http.StatusNotFound, "no such container"))
	f.on("GET /containers/c2/json", inspected("c2", "web-c2", "exited", ours()))
	f.on("GET /events", streams(true, event("exec_start", "c9"), event("died", "c2"), event("start", "x2"), event("remove", "c3")))
	var told []string
	for ev, err := range newFake(t, f, Options{}).Watch(t.Context(), someone) {
		switch {
		case err != nil:
			told = append(told, err.Error())
		case ev.Synced:
			told = append(told, "synced")
		default:
			told = append(told, ev.Container.ID+" "+ev.Container.State.String()+" "+ev.Container.Key.ID)
		}
	}
	want := []string{
		"c1 up t", "c0 gone t", "synced", "c2 exited t", "c3 gone t",
		"docker: watch mesos/dc-1: the engine ended the stream of events",
	}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Error(diff)
	}
}

// TestWatchOfABrokenListing: a failed listing tells nothing at all.
func TestWatchOfABrokenListing(t *testing.T) {
	f := &fake{}
	f.on("GET /info", info)
	f.on("GET /events", streams(false))
	f.on("GET /containers/json", says(http.StatusInternalServerError, "database is locked"))
	n := 0
	for ev, err := range newFake(t, f, Options{}).Watch(t.Context(), someone) {
		if n++; err == nil || !strings.Contains(err.Error(), "database is locked") {
			t.Errorf("told %+v, %v", ev, err)
		}
	}
	if n != 1 {
		t.Errorf("told %d times", n)
	}
}

func TestChangesCoalesce(t *testing.T) {
	c := newChanges()
	for range 1000 {
		c.add(change{id: "a"})
		c.add(change{id: "b"})
	}
	c.add(change{id: "a", gone: true})
	batch, err := c.take(t.Context())
	if err != nil || len(batch) != 2 || !batch[0].gone || batch[1].gone {
		t.Errorf("%+v, %v", batch, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.take(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestStopReturnsWhenTheOrderIsTaken(t *testing.T) {
	f, release := &fake{}, make(chan bool)
	f.on("POST /containers/c1/stop", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("t") != "2" {
			t.Errorf("a grace of 1.5 s is asked for as %s", r.URL.Query().Get("t"))
		}
		<-release
	})
	f.on("POST /containers/c2/stop", gives(http.StatusNotModified, nil))
	e := newFake(t, f, Options{})
	defer close(release)
	began := time.Now()
	if err := e.Stop(t.Context(), "c1", 1500*time.Millisecond); err != nil || time.Since(began) > time.Second {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
	if err := e.Stop(t.Context(), "c2", 0); err != nil {
		t.Errorf("what does not run: %v", err)
	}
	if err := e.Stop(t.Context(), "c3", 0); !errors.Is(err, provider.ErrNotFound) {
		t.Errorf("what is not there: %v", err)
	}
}
