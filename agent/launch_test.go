package agent

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mesopool/mesopool/agent/fetch"
	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/provider/limit"
	"github.com/mesopool/mesopool/provider/memory"
	"github.com/mesopool/mesopool/store"
	"github.com/mesopool/mesopool/task"
)

// files is a Fetcher of one file that holds the URI.
type files func(ctx context.Context, uri string) error

func (f files) Fetch(ctx context.Context, uris []task.URI, _ string) (io.ReadCloser, error) {
	if err := f(ctx, uris[0].Value); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "file", Size: int64(len(uris[0].Value))})
	io.WriteString(w, uris[0].Value)
	w.Close()
	return io.NopCloser(&b), nil
}

func (l *live) fetching(id string) {
	s := spec(id)
	s.Fetch = []task.URI{{Value: "http://h/" + id}}
	l.Put(Launch{Framework: aware, Spec: s})
}

// sandboxFile is what a task's container has got.
func sandboxFile(p *memory.Provider, id string) (text string) {
	p.Do(func(c *memory.Core, _ time.Time) {
		if k, ok := c.Lookup(nameOf(id)); ok {
			data, _ := c.File(k.ID, provider.Sandbox+"/file")
			text = string(data)
		}
	})
	return text
}

func containers(p *memory.Provider) (n int) {
	p.Do(func(c *memory.Core, _ time.Time) { n = c.Len() })
	return n
}

func TestURIsAreThereBeforeTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, m := memory.New(memory.Config{}), newMaster(t)
		before := "unset"
		o := Options{Core: coreConfig(), Provider: limit.New(p, limit.Options{}), Store: store.NewMemory(), Fetcher: files(func(context.Context, string) error {
			k, err := p.Inspect(t.Context(), nameOf("t0"))
			before = fmt.Sprint(k.State, err)
			return nil
		})}
		r := run(o, m)
		r.fetching("t0")
		synctest.Wait()
		time.Sleep(time.Second)
		synctest.Wait()
		if got := m.history("t0"); got != "STARTING RUNNING" || before != "created <nil>" {
			t.Errorf("%s; while it was fetched the container was %s", got, before)
		}
		if got := sandboxFile(p, "t0"); got != "http://h/t0" {
			t.Errorf("the sandbox holds %q", got)
		}
		r.stop(t)
	})
}

func TestAFailedFetchEndsTheTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, m := memory.New(memory.Config{}), newMaster(t)
		o := Options{Core: coreConfig(), Provider: p, Store: store.NewMemory(), Fetcher: files(func(context.Context, string) error {
			return fmt.Errorf("failed to fetch it: %w", provider.ErrRejected)
		})}
		r := run(o, m)
		r.fetching("t0")
		time.Sleep(time.Second)
		synctest.Wait()
		s := m.status("t0")
		if got := m.history("t0"); got != "STARTING FAILED" || s.Reason != task.ReasonContainerLaunchFailed || s.Source != task.SourceAgent || !strings.Contains(s.Message, "failed to fetch it") {
			t.Errorf("%s, %+v", got, s)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := containers(p); n != 0 {
			t.Errorf("%d containers are left", n)
		}
		r.stop(t)
	})
}

func TestAFetchIsTriedAgainAndThenGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, m, tries := memory.New(memory.Config{}), newMaster(t), map[string]int{}
		o := Options{Core: coreConfig(), Provider: p, Store: store.NewMemory(), Workers: 1, Fetcher: files(func(_ context.Context, uri string) error {
			if tries[uri]++; uri == "http://h/never" || tries[uri] < 3 {
				return errors.New("the server is busy")
			}
			return nil
		})}
		r := run(o, m)
		r.fetching("soon")
		r.fetching("never")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := m.history("soon"); got != "STARTING STARTING RUNNING" || sandboxFile(p, "soon") == "" {
			t.Errorf("soon: %s", got)
		}
		time.Sleep(15 * time.Minute)
		synctest.Wait()
		if got := m.history("never"); got != "STARTING STARTING FAILED" || !strings.Contains(m.status("never").Message, "busy") {
			t.Errorf("never: %s, %+v", got, m.status("never"))
		}
		if n := containers(p); n != 1 {
			t.Errorf("there are %d containers, want 1", n)
		}
		r.stop(t)
	})
}

func TestAKillEndsAFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, m := memory.New(memory.Config{}), newMaster(t)
		o := Options{Core: coreConfig(), Provider: p, Store: store.NewMemory(), Fetcher: files(func(ctx context.Context, _ string) error {
			<-ctx.Done()
			return ctx.Err()
		})}
		r := run(o, m)
		r.fetching("t0")
		time.Sleep(time.Second)
		r.kill("t0")
		time.Sleep(time.Second)
		synctest.Wait()
		if got := m.history("t0"); got != "STARTING KILLED" {
			t.Errorf("%s", got)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := containers(p); n != 0 {
			t.Errorf("%d containers are left", n)
		}
		r.stop(t)
	})
}

// Fetches that take their time delay no kill, and end with the launch's time.
func TestSlowFetchesDelayNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, m := memory.New(memory.Config{}), newMaster(t)
		o := Options{Core: coreConfig(), Provider: p, Store: store.NewMemory(), Workers: 4, Fetcher: files(func(ctx context.Context, _ string) error {
			<-ctx.Done()
			return ctx.Err()
		})}
		r := run(o, m)
		r.launch("t0")
		time.Sleep(time.Second)
		for _, id := range ids(20)[10:] {
			r.fetching(id)
		}
		time.Sleep(time.Second)
		r.kill("t0")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := m.history("t0"); got != "STARTING RUNNING KILLING KILLED" {
			t.Errorf("t0: %s", got)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		for _, id := range ids(20)[10:] {
			if got := m.history(id); !strings.HasSuffix(got, " FAILED") {
				t.Errorf("%s: %s", id, got)
			}
		}
		r.stop(t)
	})
}

// TestARestartFetchesAgain: an agent that dies while a task's files are fetched
// finds the container by its name and begins anew.
func TestARestartFetchesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, m, hang := memory.New(memory.Config{}), newMaster(t), true
		o := Options{Core: coreConfig(), Provider: p, Store: store.NewMemory(), Fetcher: files(func(ctx context.Context, _ string) error {
			if hang {
				<-ctx.Done()
			}
			return ctx.Err()
		})}
		r := run(o, m)
		r.fetching("t0")
		time.Sleep(time.Second)
		r.stop(t)
		made, err := p.Inspect(t.Context(), nameOf("t0"))
		if err != nil || made.State != provider.StateCreated {
			t.Fatalf("after the first life: %+v, %v", made, err)
		}
		hang = false
		r = run(o, m)
		time.Sleep(time.Second)
		synctest.Wait()
		if got := m.status("t0"); m.history("t0") != "STARTING RUNNING" || got.Container.ID != made.ID || sandboxFile(p, "t0") == "" {
			t.Errorf("%s, %+v", m.history("t0"), got)
		}
		r.stop(t)
	})
}

func TestURIsAreRefusedWhereTheyCannotBeHad(t *testing.T) {
	for name, x := range map[string]struct {
		o    Options
		want string
	}{
		"no fetcher": {Options{Provider: memory.New(memory.Config{})}, "this agent does not fetch URIs"},
		"no copier":  {Options{Provider: &spy{Provider: memory.New(memory.Config{})}, Fetcher: files(nil)}, "cannot put files into a container"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMaster(t)
				x.o.Core, x.o.Store = coreConfig(), store.NewMemory()
				r := run(x.o, m)
				r.fetching("t0")
				synctest.Wait()
				if s := m.status("t0"); m.history("t0") != "FAILED" || !strings.Contains(s.Message, x.want) || !strings.Contains(s.Message, "http://h/t0") {
					t.Errorf("%s, %+v", m.history("t0"), s)
				}
				r.stop(t)
			})
		})
	}
}

// TestFetchOnEngine: a program that is not in the image is fetched, and runs from
// the sandbox.
func TestFetchOnEngine(t *testing.T) {
	e := newEngine(t)
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "bin/helper", Mode: 0o755, Size: int64(len(e.helper))})
	w.Write(e.helper)
	w.Close()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(archive.Bytes()) }))
	defer web.Close()
	f, err := fetch.New(fetch.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	cfg := coreConfig()
	cfg.Owner, cfg.GC.Keep = task.Owner{Cluster: e.name, Agent: "dc-1"}, [3]time.Duration{}
	m := newMaster(t)
	r := run(Options{Core: cfg, Provider: limit.New(e.provider(), limit.Options{}), Store: store.NewMemory(), Fetcher: f}, m)
	s := e.spec("t0")
	s.Command = task.Command{Value: provider.Sandbox + "/bin/helper", Args: []string{"run"}}
	s.Fetch = []task.URI{{Value: web.URL + "/p.tar", Extract: true, Cache: true}}
	r.Put(Launch{Framework: aware, Spec: s})
	bad := e.spec("t1")
	bad.Fetch = []task.URI{{Value: web.URL + "/p.tgz", Extract: true}}
	r.Put(Launch{Framework: aware, Spec: bad})
	eventually(t, "t0 runs", func() bool { return m.history("t0") == "STARTING RUNNING" })
	eventually(t, "t1 fails", func() bool { return m.history("t1") == "STARTING FAILED" })
	if got := m.status("t1"); !strings.Contains(got.Message, "cannot be unpacked") {
		t.Errorf("t1: %q", got.Message)
	}
	r.kill("t0")
	for _, id := range []string{"t0", "t1"} {
		eventually(t, id+" is removed", func() bool { return e.state(ContainerName(e.name, key(id), "web")) == "absent" })
	}
	r.stop(t)
}

// TestTheWatchOvertakesTheLaunch: the watch may overtake the launch's answer,
// which has none.
func TestTheWatchOvertakesTheLaunch(t *testing.T) {
	h := newHarness(t, testConfig())
	h.play([]move{{in: Launch{Framework: fw, Spec: spec("t")}, want: "launch t"}})
	h.step(seen(container("t", provider.StateUp, func(k *provider.Container) { k.Raw = []byte("[{}]") })))
	var told []task.Status
	for _, e := range h.core.Step(h.now, Done{Call: h.calls[0], Container: container("t", provider.StateUp, noAddress)}, nil) {
		if s, ok := e.(Save); ok {
			told = s.Record.Pending
		}
	}
	if n := len(told); n == 0 || told[n-1].State != task.Running || string(told[n-1].Data) != "[{}]" {
		t.Errorf("reported %+v", told)
	}
}
