package api

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mesopool/mesopool/marathon"
)

// fresh is how a list of apps is encoded without any piece that is kept.
func fresh(t *testing.T, s *site, key string, want func(*marathon.App) bool, embed func(string) bool) string {
	t.Helper()
	list := []appInfo{}
	err := s.r.View(t.Context(), func(c *marathon.Core) {
		views := c.Apps(time.Now(), func(d *marathon.App) bool { return !d.IsPod() && (want == nil || want(d)) })
		for i := range views {
			list = append(list, describe(&views[i], embed))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]any{key: list})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// lists are the requests whose answers are made of pieces, with what is wanted.
var lists = []struct {
	path, query string
	want        func(*marathon.App) bool
}{
	{"/v2/apps", "", nil},
	{"/v2/apps", "embed=apps.tasks", nil},
	{"/v2/apps", "embed=apps.counts&embed=apps.deployments", nil},
	{"/v2/apps", "embed=app.tasks&embed=lastTaskFailure&embed=app.readiness", nil},
	{"/v2/apps", "embed=apps.failures", nil},
	{"/v2/apps", "label=k", func(d *marathon.App) bool { _, ok := d.Labels["k"]; return ok }},
	{"/v2/apps", "id=A&embed=tasks", func(d *marathon.App) bool { return strings.Contains(strings.ToLower(d.ID), "a") }},
	{"/v2/apps", "cmd=sleep", func(d *marathon.App) bool { return d.Cmd != nil && strings.Contains(*d.Cmd, "sleep") }},
	{"/v2/apps/g/*", "embed=apps.tasks", func(d *marathon.App) bool { return strings.HasPrefix(d.ID, "/g/") }},
}

// sameAsFresh asks for every list twice, so that the second one is of pieces
// that were kept.
func sameAsFresh(t *testing.T, s *site) {
	t.Helper()
	for _, l := range lists {
		q, err := url.ParseQuery(l.query)
		if err != nil {
			t.Fatal(err)
		}
		key := "apps"
		if strings.HasSuffix(l.path, "*") {
			key = "*"
		}
		for kept := range 2 {
			got, want := stable(t, s, l.path+"?"+l.query, func() string { return fresh(t, s, key, l.want, embeds(q)) })
			if got != want {
				t.Fatalf("%s?%s, kept %d:\n%s", l.path, l.query, kept, cmp.Diff(want, got))
			}
		}
	}
}

// stable reads while nothing changes: health checks go on.
func stable(t *testing.T, s *site, path string, fresh func() string) (got, want string) {
	t.Helper()
	for range 50 {
		want = fresh()
		got = s.do("GET", path, "").text
		if fresh() == want {
			return got, want
		}
	}
	t.Fatal("it never stands still")
	return "", ""
}

// Everything that people have written is answered as it was without pieces,
// whatever happens to it.
func TestPiecesAreWhatTheyStandFor(t *testing.T) {
	s := newSite(t)
	sameAsFresh(t, s)
	ids := []string{}
	for _, text := range corpus(t) {
		def, err := marathon.Read(text, "*")
		if err != nil || len(ids) > 150 {
			continue
		}
		if s.do("POST", "/v2/apps", string(text)).code == 201 {
			ids = append(ids, def.ID)
		}
	}
	for n, id := range []string{"/a", "/g/b", "/g/c"} {
		s.want("POST", "/v2/apps", fmt.Sprintf(`{"id":%q,"cmd":"sleep %d","labels":{"k":"v"},"instances":2,"healthChecks":[{"port":1}]}`, id, n), 201, "")
		ids = append(ids, id)
	}
	sameAsFresh(t, s)
	for n, id := range ids {
		switch n % 5 {
		case 0:
			s.do("PUT", "/v2/apps"+id+"?force=true", `{"instances":3}`)
		case 1:
			s.do("DELETE", "/v2/apps"+id+"/tasks", "")
		case 2:
			s.do("POST", "/v2/apps"+id+"/restart?force=true", "")
		case 3:
			s.do("PUT", "/v2/apps"+id+"?force=true&restart=auto", `{"labels":{"k":"<&>"}}`)
		case 4:
			s.do("DELETE", "/v2/apps"+id, "")
		}
		if n%50 == 0 {
			sameAsFresh(t, s)
		}
	}
	var task string
	if err := s.r.View(t.Context(), func(c *marathon.Core) {
		v, _ := c.App(time.Now(), "/g/b")
		if len(v.Instances) > 0 {
			task = v.Instances[0].TaskID
		}
	}); err != nil {
		t.Fatal(err)
	}
	for _, in := range []marathon.Input{
		marathon.Checked{TaskID: task, Alive: true},
		marathon.Checked{TaskID: task, Alive: true},
		marathon.Checked{TaskID: task, Cause: "no"},
		marathon.Disconnected{},
		marathon.Subscribed{FrameworkID: "fw", MasterID: "m2"},
	} {
		if err := s.r.Do(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		sameAsFresh(t, s)
	}
}

// corpus are definitions of apps, as people wrote them.
func corpus(t *testing.T) (out [][]byte) {
	t.Helper()
	files, err := filepath.Glob("../../../shared/corpus/marathon-apps/*.json")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Log("without the corpus: it is not here")
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, text)
	}
	return out
}

// Whatever changes of a view either changes its sum, or nothing of what is shown.
func TestSumCoversWhatIsShown(t *testing.T) {
	s := newSite(t)
	s.want("POST", "/v2/apps", `{"id":"/a","cmd":"x","healthChecks":[{"port":1},{"port":2}]}`, 201, "")
	s.eventually("GET", "/v2/apps/a/tasks", "TASK_RUNNING")
	task := s.tasks("/a")[0]
	var v marathon.AppView
	now := time.Now()
	for _, in := range []marathon.Input{marathon.Checked{TaskID: task, Alive: true}, nil} {
		if in != nil {
			if err := s.r.Do(t.Context(), in); err != nil {
				t.Fatal(err)
			}
		}
		s.r.View(t.Context(), func(c *marathon.Core) { v, _ = c.App(now, "/a") })
	}
	if s := v.Instances[0].Checks()[0]; s == nil || !s.Known {
		t.Fatal("no result of a check to change")
	}
	v.LastFailure = &marathon.Failure{AppID: "/a"}
	p := newPieces()
	all := embeds(url.Values{"embed": {"failures"}})
	k := kindOf(all)
	changed := 0
	look := func(name string, field reflect.Value) {
		if !field.CanSet() || !vary(field) {
			return
		}
		text, sum := encoded(t, &v, all), p.sum(&v, k)
		vary(field)
		if encoded(t, &v, all) != text {
			changed++
			if lasting(&v, k) && p.sum(&v, k) == sum {
				t.Errorf("%s is shown, and not in the sum", name)
			}
		}
	}
	for name, x := range map[string]any{"AppView": &v, "Instance": v.Instances[0], "CheckState": v.Instances[0].Checks()[0], "Failure": v.LastFailure} {
		x := reflect.ValueOf(x).Elem()
		for i := range x.NumField() {
			if field := x.Type().Field(i); field.IsExported() && field.Name != "App" || name == "Failure" {
				look(name+"."+x.Type().Field(i).Name, x.Field(i))
			}
		}
	}
	if changed < 25 {
		t.Errorf("only %d fields are shown", changed)
	}
}

func encoded(t *testing.T, v *marathon.AppView, embed func(string) bool) string {
	t.Helper()
	text, err := json.Marshal(describe(v, embed))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// vary gives a field another value, if it knows how to.
func vary(f reflect.Value) bool {
	switch f.Interface().(type) {
	case time.Time:
		f.Set(reflect.ValueOf(f.Interface().(time.Time).Add(time.Hour)))
		return true
	case []string:
		f.Set(reflect.Append(f, reflect.ValueOf(fmt.Sprint("10.0.0.", f.Len()))))
		return true
	case []int:
		f.Set(reflect.Append(f, reflect.ValueOf(f.Len()+1)))
		return true
	case map[int]int:
		return false
	}
	switch f.Kind() {
	case reflect.String:
		f.SetString(f.String() + "x")
	case reflect.Int, reflect.Int64:
		f.SetInt(f.Int() + 1)
	case reflect.Uint8:
		f.SetUint(f.Uint() + 1)
	case reflect.Bool:
		f.SetBool(!f.Bool())
	default:
		return false
	}
	return true
}

// ask makes a request with headers, and leaves the body as it comes.
func (s *site) ask(method, path, body string, header ...string) (*http.Response, []byte) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.URL+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for n := 0; n < len(header); n += 2 {
		r.Header.Add(header[n], header[n+1])
	}
	resp, err := (&http.Transport{DisableCompression: true}).RoundTrip(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp, text
}

func TestConditionalReads(t *testing.T) {
	s := newSite(t)
	s.post(`{"id":"/a","cmd":"x"}`)
	s.post(`{"id":"/b","cmd":"x"}`)
	s.post(`{"id":"/g/c","cmd":"x"}`)
	s.settle()
	for _, path := range []string{"/v2/apps", "/v2/apps?embed=apps.tasks", "/v2/apps/a", "/v2/apps/a?embed=app.counts", "/v2/apps/*", "/v2/tasks", "/v2/apps/b/tasks", "/v2/groups", "/v2/groups/apps"} {
		resp, text := s.ask("GET", path, "")
		tag := resp.Header.Get("ETag")
		if resp.StatusCode != 200 || tag == "" || len(text) == 0 {
			t.Fatalf("%s: %d %q", path, resp.StatusCode, tag)
		}
		for _, known := range []string{tag, "W/" + tag, `"x", ` + tag, "*"} {
			if resp, text := s.ask("GET", path, "", "If-None-Match", known); resp.StatusCode != 304 || len(text) > 0 || resp.Header.Get("ETag") != tag {
				t.Errorf("%s with %s: %d %s", path, known, resp.StatusCode, text)
			}
		}
		if resp, _ := s.ask("HEAD", path, "", "If-None-Match", `"other"`); resp.StatusCode != 200 || resp.ContentLength != int64(len(text)) {
			t.Errorf("HEAD %s: %d, %d bytes of %d", path, resp.StatusCode, resp.ContentLength, len(text))
		}
		s.kill(s.tasks("/a")[0])
		s.settle()
		resp, _ = s.ask("GET", path, "", "If-None-Match", tag)
		if shows := strings.Contains(path, "tasks") && path != "/v2/apps/b/tasks" || strings.HasPrefix(path, "/v2/apps/a"); (resp.StatusCode == 200) != shows {
			t.Errorf("%s after a task was replaced: %d", path, resp.StatusCode)
		}
		// It is also what a change can be made from, however the tasks change.
		if strings.HasPrefix(path, "/v2/apps/a") {
			if resp, text := s.ask("PUT", "/v2/apps/a", `{"labels":{"p":"`+url.QueryEscape(path)+`"}}`, "If-Match", tag); resp.StatusCode != 200 {
				t.Errorf("PUT with %s: %d %s", tag, resp.StatusCode, text)
			}
			s.settle()
			if resp, _ := s.ask("PUT", "/v2/apps/a", `{"instances":1}`, "If-Match", tag); resp.StatusCode != 412 {
				t.Errorf("PUT with the old %s: %d", tag, resp.StatusCode)
			}
			bare := `"` + s.do("GET", "/v2/apps/a", "").body["app"].(map[string]any)["version"].(string) + `"`
			if resp, text := s.ask("PUT", "/v2/apps/a?dryRun=true", `{"instances":1}`, "If-Match", bare); resp.StatusCode != 200 {
				t.Errorf("PUT with the bare version %s: %d %s", bare, resp.StatusCode, text)
			}
		}
	}
	if resp, text := s.ask("PATCH", "/v2/groups/g", `{"enforceRole":true}`, "If-None-Match", "*"); resp.StatusCode == 304 {
		t.Errorf("a change: %d %s", resp.StatusCode, text)
	}
	if resp, _ := s.ask("GET", "/v2/apps/nosuch", "", "If-None-Match", "*"); resp.StatusCode != 404 {
		t.Errorf("what does not exist: %d", resp.StatusCode)
	}
}

func (s *site) kill(task string) {
	s.t.Helper()
	s.want("POST", "/v2/tasks/delete", `{"ids":["`+task+`"]}`, 200, "")
}

func TestCompressedReads(t *testing.T) {
	s := newSite(t)
	for n := range 20 {
		s.post(fmt.Sprintf(`{"id":"/app-%d","cmd":"echo '<&>ü'","instances":3}`, n))
	}
	s.settle()
	for _, path := range []string{"/v2/apps?embed=apps.tasks", "/v2/apps", "/v2/apps/*", "/v2/tasks", "/v2/groups"} {
		plain, text := s.ask("GET", path, "")
		if plain.Header.Get("Content-Encoding") != "" || plain.ContentLength != int64(len(text)) {
			t.Errorf("%s: %v", path, plain.Header)
		}
		for range 2 { // compressed for this answer, and kept from the last one
			packed, body := s.ask("GET", path, "", "Accept-Encoding", "br, gzip;q=0.5")
			if packed.Header.Get("Content-Encoding") != "gzip" || packed.ContentLength != int64(len(body)) || len(body) > len(text)/2 || packed.Header.Get("ETag") != "W/"+plain.Header.Get("ETag") {
				t.Errorf("%s: %d bytes of %d, %v", path, len(body), len(text), packed.Header)
			}
			z, err := gzip.NewReader(bytes.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			z.Multistream(false) // for clients that know of no second member
			got, err := io.ReadAll(z)
			if err != nil || string(got) != string(text) {
				t.Errorf("%s: %v\n%s", path, err, cmp.Diff(string(text), string(got)))
			}
			foreignGunzip(t, body, text)
		}
	}
	if resp, body := s.ask("GET", "/v2/apps/app-1", "", "Accept-Encoding", "gzip"); resp.Header.Get("Content-Encoding") != "" || !json.Valid(body) {
		t.Errorf("a small answer: %v", resp.Header)
	}
}

// foreignGunzip reads with gzip(1), where there is one.
func foreignGunzip(t *testing.T, packed, want []byte) {
	t.Helper()
	path, err := exec.LookPath("gzip")
	if err != nil {
		t.Log("without gzip(1): it is not here")
		return
	}
	cmd := exec.Command(path, "-dc")
	cmd.Stdin = bytes.NewReader(packed)
	if got, err := cmd.Output(); err != nil || !bytes.Equal(got, want) {
		t.Errorf("gzip -dc: %d bytes of %d, %v", len(got), len(want), err)
	}
}

func TestAcceptsGzip(t *testing.T) {
	for header, want := range map[string]bool{
		"": false, "gzip": true, "GZIP": true, "deflate, gzip;q=1.0, *;q=0.5": true, "gzip;q=0": false, "gzip; q=0.0": false, "identity": false, "x-gzip": true, "gzip;q=x": false,
	} {
		if got := acceptsGzip([]string{header}); got != want {
			t.Errorf("%q: %v", header, got)
		}
	}
}

// Pieces of few kinds are kept, and none of apps that are gone.
func TestPiecesAreBounded(t *testing.T) {
	s := newSite(t)
	a := s.Config.Handler.(*API)
	s.post(`{"id":"/a","cmd":"x"}`)
	s.post(`{"id":"/b","cmd":"x"}`)
	for _, q := range []string{"", "embed=tasks", "embed=failures", "embed=readiness", "embed=lastTaskFailure", "embed=taskStats"} {
		s.want("GET", "/v2/apps?"+q, "", 200, "")
	}
	if len(a.pieces.kept) != mostKinds || len(a.pieces.kinds) != mostKinds {
		t.Errorf("%d kinds", len(a.pieces.kept))
	}
	s.want("GET", "/v2/apps?embed=tasks", "", 200, "")
	s.want("DELETE", "/v2/apps/a", "", 200, "")
	s.settle()
	s.post(`{"id":"/c","cmd":"x"}`)
	s.want("GET", "/v2/apps?embed=tasks", "", 200, "")
	if kept := a.pieces.of(kind{tasks: true}); len(kept) != 2 || kept["/a"] != nil {
		t.Errorf("kept: %v", kept)
	}
	// Also for who never asks for all.
	for n := range 20 {
		id := fmt.Sprintf("/one-%d", n)
		s.post(`{"id":"` + id + `","cmd":"x"}`)
		s.want("GET", "/v2/apps?embed=tasks&id=one", "", 200, id)
		s.want("DELETE", "/v2/apps"+id, "", 200, "")
		s.settle()
	}
	if kept := a.pieces.of(kind{tasks: true}); len(kept) > 10 {
		t.Errorf("%d kept of 2 apps", len(kept))
	}
}
