package api

import (
	"encoding/binary"
	"encoding/json"
	"hash/maphash"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mesopool/mesopool/marathon"
)

// piece is an app as it is shown. It is encoded once, and then kept for as long
// as nothing changes of what it shows.
type piece struct {
	app  *marathon.App // together with sum: what was shown
	sum  uint64
	text []byte
	run  atomic.Pointer[run] // that begins with this piece; nil: nobody has asked for it
}

// kind is what of an app is shown: each has pieces of its own.
type kind struct{ tasks, readiness, stats, failure bool }

func kindOf(embed func(string) bool) kind {
	failures := embed("failures")
	return kind{tasks: embed("tasks") || failures, readiness: embed("readiness") || failures, stats: embed("taskStats"), failure: embed("lastTaskFailure") || failures}
}

// mostKinds is of how many kinds pieces are kept: clients ask for the same again.
const mostKinds = 3

// pieces are kept by kind and by app.
type pieces struct {
	seed maphash.Seed

	mu    sync.Mutex
	kinds []kind // the one asked for last is last
	kept  map[kind]map[string]*piece
}

func newPieces() *pieces {
	return &pieces{seed: maphash.MakeSeed(), kept: map[kind]map[string]*piece{}}
}

// of returns the pieces of a kind, which nobody changes.
func (p *pieces) of(k kind) map[string]*piece {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.kept[k]
}

// keep adds to the pieces of a kind. When these are all there are, or when most of
// the others must be those of apps that are gone, only these are kept.
func (p *pieces) keep(k kind, list []*piece, apps int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fresh := make(map[string]*piece, len(list))
	if len(list) < apps && len(p.kept[k]) <= 2*apps {
		maps.Copy(fresh, p.kept[k])
	}
	for _, x := range list {
		fresh[x.app.ID] = x
	}
	p.kept[k] = fresh
	p.kinds = append(slices.DeleteFunc(p.kinds, func(o kind) bool { return o == k }), k)
	for len(p.kinds) > mostKinds {
		delete(p.kept, p.kinds[0])
		p.kinds = p.kinds[1:]
	}
}

// shown is an app on its way into a list: its piece, or what it is to be made of.
type shown struct {
	piece *piece            // nil: to be made
	view  *marathon.AppView // nil: not needed
	sum   uint64
	kept  bool // the piece may be used again
}

// list are the pieces of the apps that are wanted, by ID; nil wants all.
func (a *API) list(r *http.Request, want func(*marathon.App) bool, embed func(string) bool) ([]*piece, error) {
	k := kindOf(embed)
	apps := 0 // that there are
	found, err := see(r, a, func(c *marathon.Core) []shown {
		return a.pieces.find(c, k, func(d *marathon.App) bool { apps++; return !d.IsPod() && (want == nil || want(d)) })
	})
	if err != nil {
		return nil, err
	}
	made := 0
	for i := range found {
		if found[i].piece == nil && found[i].kept {
			made++
		}
	}
	if err := each(len(found), func(i int) error { return a.pieces.make(&found[i], embed) }); err != nil {
		return nil, err
	}
	out := make([]*piece, len(found))
	var keep []*piece
	for i := range found {
		out[i] = found[i].piece
		if found[i].kept {
			keep = append(keep, out[i])
		}
	}
	if made > 0 {
		a.pieces.keep(k, keep, apps)
	}
	return out, nil
}

// find looks at the apps, and copies those that have no piece or that show
// something else than it does.
func (p *pieces) find(c *marathon.Core, k kind, want func(*marathon.App) bool) (out []shown) {
	known := p.of(k)
	out = make([]shown, 0, len(known))
	c.Visit(time.Now(), want, func(v *marathon.AppView) {
		s := shown{kept: lasting(v, k)}
		if s.kept {
			s.sum = p.sum(v, k)
			if x := known[v.App.ID]; x != nil && x.app == v.App && x.sum == s.sum {
				s.piece = x
				out = append(out, s)
				return
			}
		}
		if k.tasks || k.stats {
			v.Keep()
		} else {
			v.Instances = nil
		}
		s.view = new(*v)
		out = append(out, s)
	})
	return out
}

// make encodes what has no piece yet.
func (p *pieces) make(s *shown, embed func(string) bool) error {
	if s.piece != nil {
		return nil
	}
	text, err := json.Marshal(describe(s.view, embed))
	s.piece = &piece{app: s.view.App, sum: s.sum, text: text}
	if !s.kept {
		s.piece.sum = maphash.Bytes(p.seed, text)
	}
	return err
}

// each calls do with 0 to n-1, on all cores when there are many.
func each(n int, do func(int) error) error {
	workers := min(runtime.GOMAXPROCS(0), n/64+1)
	var g errgroup.Group
	var next atomic.Int64
	for range workers {
		g.Go(func() error {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// lasting says whether sum covers all that is shown: the few apps with volumes,
// or with readiness checks under way, and what grows with time, are encoded anew.
func lasting(v *marathon.AppView, k kind) bool {
	return !k.stats && len(v.Residences) == 0 && len(v.Readiness) == 0
}

// digest is a sum of values in their order.
type digest struct{ maphash.Hash }

func (d *digest) text(list ...string) {
	for _, s := range list {
		d.number(len(s))
		d.WriteString(s)
	}
}

func (d *digest) number(list ...int) {
	for _, n := range list {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], uint64(n))
		d.Write(b[:])
	}
}

func (d *digest) time(list ...time.Time) {
	for _, t := range list {
		if t.IsZero() {
			d.number(0)
		} else {
			d.number(int(t.UnixMilli())) // more is not shown
		}
	}
}

func (d *digest) yes(list ...bool) {
	for _, y := range list {
		if y {
			d.WriteByte(1)
		} else {
			d.WriteByte(0)
		}
	}
}

// sum covers all that describe shows of a view that lasts, but for the
// definition. The instances may have any order.
func (p *pieces) sum(v *marathon.AppView, k kind) uint64 {
	d := &digest{}
	d.SetSeed(p.seed)
	d.number(v.Staged, v.Running, v.Healthy, v.Unhealthy, v.Finished, len(v.Deployments), len(v.Notes))
	d.text(v.Deployments...)
	d.text(v.Notes...)
	d.text(v.Waiting)
	if f := v.LastFailure; f != nil && k.failure {
		d.text(f.AppID, f.Host, f.Message, f.State, f.TaskID, f.AgentID, f.Timestamp, f.Version)
	}
	sum := d.Sum64()
	if k.tasks {
		for _, i := range v.Instances {
			d.Reset()
			d.instance(i)
			sum += d.Sum64()
		}
	}
	return sum
}

// instance covers all that describeTask shows.
func (d *digest) instance(i *marathon.Instance) {
	d.text(i.TaskID, i.ID, i.App, i.Agent, i.Host, i.Version, i.Role, i.Region, i.Zone)
	d.number(int(i.State), len(i.Addresses), len(i.Ports))
	d.time(i.Staged, i.Started)
	d.text(i.Addresses...)
	for n, port := range i.Ports {
		host, public := i.Address(n)
		d.text(host)
		d.number(port, public)
	}
	checks := i.Checks()
	for n := range i.Definition().HealthChecks {
		s := checks[n]
		if s == nil || !s.Known {
			d.yes(false)
			continue
		}
		d.yes(true, s.Alive)
		d.number(s.Failures)
		d.time(s.FirstSuccess, s.LastSuccess, s.LastFailure)
		d.text(s.Cause)
	}
}
