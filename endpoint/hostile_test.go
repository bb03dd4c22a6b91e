package endpoint

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"
)

// TestHostileTenant: whatever a tenant tries with another's things is answered
// as if they were not there, word for word, and has no effect.
func TestHostileTenant(t *testing.T) {
	r := plainRig(t)
	a, b := r.newTenant("victim"), r.newTenant("hostile")
	if _, err := r.cloud.Accounts().Change("victim", func(a *Account) error { a.Images = []string{"private"}; return nil }); err != nil {
		t.Fatal(err)
	}
	id := a.start("secret", "run", nil)
	own := b.start("own", "run", nil)
	var made struct{ ID string }
	json.Unmarshal([]byte(a.want(200, "", "POST", "/containers/secret/exec", m{"Cmd": []string{"true"}}).text), &made)
	victimNet := a.get("/networks/My-Fabric-Network")["Id"].(string)

	// Each path has @ for what is named: once the victim's, once what is nowhere.
	hex := func(s string) string { return strings.Repeat("0", len(s)) }
	type try struct {
		method, path string
		body         any
	}
	containers := []try{
		{"GET", "/containers/@/json", nil},
		{"GET", "/containers/@/top", nil},
		{"GET", "/containers/@/logs?tail=all", nil},
		{"GET", "/containers/@/stats", nil},
		{"POST", "/containers/@/start", nil},
		{"POST", "/containers/@/stop", nil},
		{"POST", "/containers/@/restart", nil},
		{"POST", "/containers/@/kill", nil},
		{"POST", "/containers/@/attach?stream=1", nil},
		{"POST", "/containers/@/wait", nil},
		{"POST", "/containers/@/rename?name=mine", nil},
		{"POST", "/containers/@/resize?h=1&w=1", nil},
		{"POST", "/containers/@/exec", m{"Cmd": []string{"x"}}},
		{"POST", "/containers/@/copy", m{"Resource": "/"}},
		{"HEAD", "/containers/@/archive?path=/", nil},
		{"GET", "/containers/@/archive?path=/", nil},
		{"PUT", "/containers/@/archive?path=/", "x"},
		{"DELETE", "/containers/@?force=1", nil},
		{"GET", "/containers/json?all=1&filters=" + url.QueryEscape(`{"before":["@"]}`), nil},
		{"GET", "/containers/json?since=@", nil},
		{"POST", "/containers/create?name=mine", body("run", m{"Links": []string{"@:db"}})},
		{"POST", "/containers/create?name=mine", body("run", m{"VolumesFrom": []string{"@"}})},
		{"POST", "/containers/create?name=mine", body("run", m{"NetworkMode": "container:@"})},
		{"POST", "/containers/create?name=mine", body("run", nil, m{"Env": []string{"affinity:container==@"}})},
	}
	check := func(all []try, theirs, nowhere string) {
		t.Helper()
		for _, x := range all {
			run := func(name string) answer {
				path, in := strings.ReplaceAll(x.path, "@", name), x.body
				path = strings.ReplaceAll(path, "%40", name)
				if text, err := json.Marshal(in); err == nil && in != nil {
					in = strings.ReplaceAll(string(text), "@", name)
				}
				got := b.do(x.method, path, in)
				got.text = strings.ReplaceAll(strings.ReplaceAll(got.text, got.header.Get("x-request-id"), ""), name, "@")
				return got
			}
			got, want := run(theirs), run(nowhere)
			if got.err != nil || got.status < 400 || got.status != want.status || got.text != want.text {
				t.Errorf("%s %s: %v; what is nowhere: %v", x.method, x.path, got, want)
			}
		}
	}
	check(containers, id, hex(id))
	check(containers, id[:12], hex(id[:12]))
	check(containers, id[:32], hex(id[:32]))
	check(containers, "secret", "nowhere")
	check([]try{{"GET", "/exec/@/json", nil}, {"POST", "/exec/@/start", m{}}, {"POST", "/exec/@/resize?h=1&w=1", nil}}, made.ID, hex(made.ID))
	check([]try{{"GET", "/networks/@", nil}, {"POST", "/containers/create?name=mine", body("run", m{"NetworkMode": "@"})}}, victimNet, hex(victimNet))

	// The victim is as it was, and names are not taken across tenants.
	if s := a.state(id); s["Running"] != true || s["ExitCode"] != 0.0 {
		t.Error(s)
	}
	if got := a.get("/exec/" + made.ID + "/json"); got["ContainerID"] != id {
		t.Error(got)
	}
	if got := b.list("all=1"); len(got) != 1 || got[0]["Id"] != own {
		t.Error(got)
	}
	b.create("secret", body("run", nil))
	if got := b.list("all=1&filters=" + url.QueryEscape(`{"name":["."]}`)); len(got) != 2 {
		t.Error(got)
	}
}

// TestHostileImages: an image of another's list, or that only another was let
// use, is nowhere.
func TestHostileImages(t *testing.T) {
	r := plainRig(t)
	a, b := r.newTenant("victim"), r.tenant("hostile")
	i, err := r.cloud.Image(t.Context(), a.acct, "private")
	if err != nil {
		t.Fatal(err)
	}
	a.want(201, "", "POST", "/images/private/tag?repo=renamed&tag=1", nil)
	for _, name := range []string{"private", "renamed:1", i.ID, i.ID[7:19]} {
		for _, p := range []string{"GET /images/@/json", "GET /images/@/history", "DELETE /images/@", "POST /images/@/tag?repo=x", "POST /containers/create"} {
			method, path, _ := strings.Cut(p, " ")
			b.want(404, "(ResourceNotFound) No such image: "+name+" (", method, strings.ReplaceAll(path, "@", name), body(name, nil))
		}
	}
	if got := b.want(200, "[]", "GET", "/images/json", nil); got.text != "[]\n" {
		t.Error(got)
	}
	a.want(200, "", "GET", "/images/renamed:1/json", nil)
}

// TestHostileNames: names that are paths, templates or other trickery reach
// neither files nor other tenants' names.
func TestHostileNames(t *testing.T) {
	r := plainRig(t)
	r.newTenant("victim").create("x", body("run", nil))
	b := r.newTenant("hostile")
	for _, n := range []string{"../victim/x", "..%2fvictim%2fx", "victim.x%00", "x%0d%0aSet-Cookie:a", "%2f%2fx", "victim/x"} {
		got := b.do("GET", "/containers/"+n+"/json", nil)
		if got.err == nil && (got.status < 400 || got.header.Get("Set-Cookie") != "") {
			t.Errorf("%s: %v", n, got)
		}
		if got := b.do("POST", "/containers/create?name="+n, body("run", nil)); got.err == nil && got.status != 409 {
			t.Errorf("create %s: %v", n, got)
		}
	}
	if _, err := r.cloud.Accounts().Add("../x"); err == nil {
		t.Error("a login that is a path was taken")
	}
}

// TestLargeBody: what is held in memory is bounded.
func TestLargeBody(t *testing.T) {
	c := plainRig(t).newTenant("a")
	c.want(413, "(RequestEntityTooLarge)", "POST", "/containers/create", `{"Image":"`+strings.Repeat("x", maxBody)+`"}`)
}

func FuzzCreate(f *testing.F) {
	for _, s := range []string{
		`{"Image":"run","HostConfig":{}}`, `{"Image":"run","HostConfig":null}`,
		`{"Image":"web","Cmd":["a"],"Env":["affinity:container==~/x/"],"Labels":{"triton.cns.services":"a:80"},"HostConfig":{"PortBindings":{"80/tcp":[{}]},"Binds":["a:/b:ro"],"Memory":1e9}}`,
		`{"Image":"web","Volumes":{"/x":{}},"HostConfig":{"VolumesFrom":["y:ro"],"Links":["a:b"],"NetworkMode":"x","LogConfig":{"Type":"gelf"},"RestartPolicy":{"Name":"always"}}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := decodeCreate(text)
		if err != nil {
			if _, known := err.(*Error); !known {
				t.Errorf("%v is no answer", err)
			}
			return
		}
		r.strict("x")
		near, _ := r.takeAffinities()
		for _, a := range near {
			a.matches(&Container{Spec: &spec{ID: strings.Repeat("0", 64)}})
		}
		published, err := r.publish([]string{"80/tcp"})
		if err == nil && len(published) > 2*maxPublished {
			t.Errorf("%d ports", len(published))
		}
		for _, b := range r.binds {
			if name, _, _ := strings.Cut(b, ":"); checkBind(b) == nil && strings.Contains(name, "/") {
				t.Errorf("a host's path was taken: %q", b)
			}
		}
	})
}

func FuzzFilters(f *testing.F) {
	for _, s := range []string{`{"name":["a"]}`, `{"label":{"a=b":true}}`, `{"status":["created"],"exited":["1"]}`, `[]`, `{"id":["("]}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		parsed, err := parseFilters(text)
		if err != nil {
			return
		}
		c := &call{}
		for _, from := range []func(filters) ([]match, error){patterns, c.labels, statuses, exits} {
			all, err := from(parsed)
			if err != nil {
				continue
			}
			for _, m := range all {
				m(&Container{Spec: &spec{}})
			}
		}
	})
}
