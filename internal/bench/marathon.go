package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mesopool/mesopool/internal/uuid"
	"github.com/mesopool/mesopool/marathon"
	marathonapi "github.com/mesopool/mesopool/marathon/api"
	"github.com/mesopool/mesopool/marathon/runner"
	"github.com/mesopool/mesopool/store"
)

// MarathonOptions are what to ask of Marathon.
type MarathonOptions struct {
	Cluster     Options // provider, owner, store; the rest is not looked at
	Sizes       []int   // instances of the apps that are posted, one after the other
	Apps        int     // then so many apps of PerApp instances, for the reads
	PerApp      int
	Reads       int // of each kind
	Subscribers int // of the event stream
}

// MarathonResult is what Marathon took on a simulated data center.
type MarathonResult struct {
	Deploy    []Deployment  `json:"deployments"`
	Tasks     int           `json:"tasks"` // while the reads were measured
	Apps      int           `json:"apps"`
	OneP50    time.Duration `json:"one_app_p50_ns"` // GET /v2/apps/{id}
	OneP99    time.Duration `json:"one_app_p99_ns"`
	AllFirst  time.Duration `json:"everything_first_ns"` // GET /v2/apps?embed=apps.tasks, when nothing of it was asked for before
	AllP99    time.Duration `json:"everything_p99_ns"`   // while one app changes between two reads
	AllBytes  int64         `json:"everything_bytes"`
	GzipFirst time.Duration `json:"everything_gzip_first_ns"` // the same compressed, when it never was
	GzipP99   time.Duration `json:"everything_gzip_p99_ns"`
	GzipBytes int64         `json:"everything_gzip_bytes"`
	SameP99   time.Duration `json:"everything_unchanged_p99_ns"` // with If-None-Match
	Events    float64       `json:"events_per_second"`           // to all subscribers together, while one app is scaled
	Listeners int           `json:"subscribers"`
}

// Deployment is how long an app took from its POST until all ran.
type Deployment struct {
	Instances int           `json:"instances"`
	Took      time.Duration `json:"took_ns"`
}

// marathonBench is one run.
type marathonBench struct {
	opt    MarathonOptions
	at     string
	result MarathonResult
}

// RunMarathon measures Marathon on a whole cluster in this process.
func RunMarathon(ctx context.Context, o MarathonOptions) (MarathonResult, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, gctx := errgroup.WithContext(ctx)
	c, err := start(gctx, g, o.Cluster)
	if err != nil {
		return MarathonResult{}, err
	}
	b := &marathonBench{opt: o}
	if err := b.start(gctx, g, c); err != nil {
		return MarathonResult{}, err
	}
	g.Go(func() error {
		defer cancel()
		return b.drive(gctx)
	})
	err = g.Wait()
	return b.result, err
}

// start brings Marathon up beside the cluster.
func (b *marathonBench) start(ctx context.Context, g *errgroup.Group, c *cluster) error {
	core := marathon.DefaultConfig()
	core.NewID, core.Role = func() string { return uuid.New().String() }, "*"
	run, err := runner.New(ctx, runner.Config{Core: core, Store: store.NewMemory(), Log: quiet})
	if err != nil {
		return err
	}
	client := newClient(func() string { return c.master.UPID().Addr.String() }, "marathon", time.Hour)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	b.at = "http://" + l.Addr().String()
	srv := &http.Server{Handler: marathonapi.New(marathonapi.Config{Runner: run, Version: "1.11.0", Role: "*", Address: l.Addr().String(), Framework: "marathon"})}
	g.Go(func() error { return run.Run(ctx, client) })
	g.Go(func() error { return client.Run(ctx, run) })
	g.Go(func() error { <-ctx.Done(); return srv.Close() })
	g.Go(func() error {
		if err := srv.Serve(l); err != http.ErrServerClosed {
			return err
		}
		return nil
	})
	return nil
}

func (b *marathonBench) say(text string) {
	report(Options{Name: "marathon", Progress: b.opt.Cluster.Progress}, text)
}

func (b *marathonBench) drive(ctx context.Context) error {
	for i, n := range b.opt.Sizes {
		b.say(fmt.Sprintf("an app of %d instances", n))
		took, err := b.deploy(ctx, fmt.Sprintf("size-%d", i), n)
		if err != nil {
			return err
		}
		b.result.Deploy = append(b.result.Deploy, Deployment{n, took})
	}
	for _, step := range []func(context.Context) error{b.fill, b.read, b.listen} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func definition(id string, instances int) string {
	return fmt.Sprintf(`{"id":"/%s","instances":%d,"cpus":0.001,"mem":1,"cmd":"sleep infinity","container":{"type":"DOCKER","docker":{"image":"bench"}},"portDefinitions":[]}`, id, instances)
}

// call makes a request and reads its answer to the end.
func (b *marathonBench) call(ctx context.Context, method, path, body string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, b.at+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s: %.200s", method, path, resp.Status, text)
	}
	return text, err
}

// deploy posts an app and waits until all its instances run.
func (b *marathonBench) deploy(ctx context.Context, id string, instances int) (time.Duration, error) {
	begin := time.Now()
	if _, err := b.call(ctx, http.MethodPost, "/v2/apps", definition(id, instances)); err != nil {
		return 0, err
	}
	err := b.settle(ctx, id, instances)
	return time.Since(begin), err
}

// settle waits until an app has so many running instances.
func (b *marathonBench) settle(ctx context.Context, id string, instances int) error {
	var failed error
	err := until(ctx, func() bool {
		var answer struct {
			App struct {
				Running int `json:"tasksRunning"`
			} `json:"app"`
		}
		text, err := b.call(ctx, http.MethodGet, "/v2/apps/"+id+"?embed=app.counts", "")
		if failed = err; err == nil {
			failed = json.Unmarshal(text, &answer)
		}
		return failed != nil || answer.App.Running == instances
	})
	if failed != nil {
		return failed
	}
	return err
}

// fill makes the many apps for the reads.
func (b *marathonBench) fill(ctx context.Context) error {
	for n := range b.opt.Apps {
		if n%100 == 0 {
			b.say(fmt.Sprintf("%d of %d apps posted", n, b.opt.Apps))
		}
		if _, err := b.call(ctx, http.MethodPost, "/v2/apps", definition(fmt.Sprintf("many/app-%d", n), b.opt.PerApp)); err != nil {
			return err
		}
	}
	b.say("waiting for all of them")
	for n := range b.opt.Apps {
		if err := b.settle(ctx, fmt.Sprintf("many/app-%d", n), b.opt.PerApp); err != nil {
			return err
		}
	}
	b.result.Apps, b.result.Tasks = b.opt.Apps+len(b.opt.Sizes), b.opt.Apps*b.opt.PerApp
	for _, n := range b.opt.Sizes {
		b.result.Tasks += n
	}
	return nil
}

// read asks for one app, and for everything.
func (b *marathonBench) read(ctx context.Context) error {
	b.say("reading")
	var one []time.Duration
	for n := range b.opt.Reads {
		begin := time.Now()
		if _, err := b.call(ctx, http.MethodGet, fmt.Sprintf("/v2/apps/many/app-%d", n%max(1, b.opt.Apps)), ""); err != nil {
			return err
		}
		one = append(one, time.Since(begin))
	}
	slices.Sort(one)
	b.result.OneP50, b.result.OneP99 = one[len(one)/2], one[len(one)*99/100]
	r := &b.result
	var err error
	if r.AllFirst, r.AllP99, r.AllBytes, err = b.readAll(ctx, map[string]string{"Accept-Encoding": "identity"}); err != nil {
		return err
	}
	if r.GzipFirst, r.GzipP99, r.GzipBytes, err = b.readAll(ctx, map[string]string{"Accept-Encoding": "gzip"}); err != nil {
		return err
	}
	return b.readSame(ctx)
}

const everything = "/v2/apps?embed=apps.tasks&embed=apps.counts"

// readAll reads everything many times, to the last byte as it comes; between two
// reads one app changes.
func (b *marathonBench) readAll(ctx context.Context, header map[string]string) (first, p99 time.Duration, size int64, err error) {
	var all []time.Duration
	for n := range max(2, b.opt.Reads/10) {
		if b.opt.Apps > 0 {
			app := fmt.Sprintf("/v2/apps/many/app-%d?force=true&restart=auto", n%b.opt.Apps)
			if _, err := b.call(ctx, http.MethodPut, app, fmt.Sprintf(`{"labels":{"n":"%s-%d"}}`, header["Accept-Encoding"], n)); err != nil {
				return 0, 0, 0, err
			}
		}
		begin := time.Now()
		resp, err := b.get(ctx, everything, header)
		if err != nil {
			return 0, 0, 0, err
		}
		size, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err != nil {
			return 0, 0, 0, err
		}
		all = append(all, time.Since(begin))
	}
	first, all = all[0], all[1:]
	slices.Sort(all)
	return first, all[len(all)*99/100], size, nil
}

// readSame asks for everything when nothing has changed.
func (b *marathonBench) readSame(ctx context.Context) error {
	resp, err := b.get(ctx, everything, nil)
	if err != nil {
		return err
	}
	resp.Body.Close()
	var all []time.Duration
	for range max(1, b.opt.Reads/10) {
		begin := time.Now()
		same, err := b.get(ctx, everything, map[string]string{"If-None-Match": resp.Header.Get("ETag")})
		if err != nil {
			return err
		}
		same.Body.Close()
		if same.StatusCode != http.StatusNotModified {
			continue // something has: a deployment ended
		}
		all = append(all, time.Since(begin))
	}
	if len(all) == 0 {
		return fmt.Errorf("GET %s with If-None-Match was never answered with 304", everything)
	}
	slices.Sort(all)
	b.result.SameP99 = all[len(all)*99/100]
	return nil
}

// get leaves the body to the caller, and as it comes.
func (b *marathonBench) get(ctx context.Context, path string, header map[string]string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, b.at+path, nil)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		r.Header.Set(k, v)
	}
	return http.DefaultClient.Do(r)
}

// listen counts the events that all subscribers get while an app is scaled.
func (b *marathonBench) listen(ctx context.Context) error {
	b.say("events")
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	var events atomic.Int64
	var g errgroup.Group
	for range b.opt.Subscribers {
		g.Go(func() error { return b.subscribe(ctx, &events) })
	}
	const instances = 2000
	begin := time.Now()
	if _, err := b.call(ctx, http.MethodPost, "/v2/apps", definition("told", instances)); err != nil {
		return err
	}
	if err := b.settle(ctx, "told", instances); err != nil {
		return err
	}
	b.result.Events, b.result.Listeners = float64(events.Load())/time.Since(begin).Seconds(), b.opt.Subscribers
	leave()
	return g.Wait()
}

func (b *marathonBench) subscribe(ctx context.Context, events *atomic.Int64) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, b.at+"/v2/events", nil)
	if err != nil {
		return err
	}
	r.Header.Set("Accept", "text/event-stream")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil // the measurement is over
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "event:") {
			events.Add(1)
		}
	}
	return nil
}

// WriteMarathon prints what was measured.
func WriteMarathon(w io.Writer, r *MarathonResult) {
	var rows [][]string
	for _, d := range r.Deploy {
		rows = append(rows, []string{fmt.Sprintf("POST of an app of %d instances until all run", d.Instances), durationText(d.Took)})
	}
	rows = append(rows,
		[]string{"apps and tasks during the reads", fmt.Sprintf("%d, %d", r.Apps, r.Tasks)},
		[]string{"GET of one app, p50", durationText(r.OneP50)}, []string{"GET of one app, p99", durationText(r.OneP99)},
		[]string{"GET of everything with its tasks, the first", durationText(r.AllFirst)},
		[]string{"GET of everything, one app changed, p99", fmt.Sprintf("%s, %s", durationText(r.AllP99), bytesText(r.AllBytes))},
		[]string{"GET of everything, compressed, the first", durationText(r.GzipFirst)},
		[]string{"GET of everything, compressed, one app changed, p99", fmt.Sprintf("%s, %s", durationText(r.GzipP99), bytesText(r.GzipBytes))},
		[]string{"GET of everything, nothing changed, p99", durationText(r.SameP99)},
		[]string{fmt.Sprintf("events to %d subscribers", r.Listeners), perSecond(r.Events)})
	table(w, []string{"", ""}, rows)
}
