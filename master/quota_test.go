package master

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mesopool/mesopool/resources"
)

func quotaOf(role, sure, most string) Quota {
	q := Quota{Role: role, Guarantees: amount(sure).Scalars(), Limits: map[string]resources.Milli{}}
	for _, x := range amount(most).Scalars() {
		q.Limits[x.Name] = x.Amount
	}
	return q
}

// inRole subscribes a framework in a role and returns its ID.
func (s *script) subscribeIn(n int, role string) string {
	f := frameworkOf(role)
	f.Roles = []string{role}
	s.do(Subscribe{Info: f, Stream: fmt.Sprintf("s%d", n)})
	return fmt.Sprintf("m-%04d", n)
}

func (s *script) held(framework string) (sum resources.Resources) {
	for _, o := range s.core.frameworks[framework].offers {
		sum = sum.Add(o.Resources...)
	}
	return sum
}

func TestLimit(t *testing.T) {
	s := newScript(t, nil)
	s.do(RegisterAgent{Agent: agentOf(1, "cpus:8;mem:8192;ports:[1-9]")})
	s.do(SetQuotas{Quotas: []Quota{quotaOf("eng", "", "cpus:3")}})
	f := s.subscribeIn(0, "eng/web")
	if got := s.held(f); got.Amount("cpus") != 3000 || got.Amount("mem") != 8192_000 || len(got) != 3 {
		t.Errorf("offered %s", got)
	}
	s.do(SetQuotas{Quotas: []Quota{quotaOf("eng", "", "cpus:2")}})
	if got := s.held(f).Amount("cpus"); got != 2000 {
		t.Errorf("after the limit went down: %v cpus", got)
	}
	none := Quota{Role: "eng", Limits: map[string]resources.Milli{"cpus": 0, "mem": 0}}
	s.do(SetQuotas{Quotas: []Quota{none}})
	if got := s.held(f); len(got) != 0 {
		t.Errorf("a limit of nothing: %s", got)
	}
	s.do(SetQuotas{Quotas: []Quota{{Role: "eng"}}})
	if got := s.held(f).Amount("cpus"); got != 8000 {
		t.Errorf("without quota: %v cpus", got)
	}
}

// What is guaranteed stays free for those who have the guarantee.
func TestGuarantee(t *testing.T) {
	s := newScript(t, nil)
	s.do(RegisterAgent{Agent: agentOf(1, "cpus:8;mem:8192")})
	s.do(SetQuotas{Quotas: []Quota{quotaOf("sure", "cpus:5", "")}})
	other := s.subscribeIn(0, "other")
	if got := s.held(other).Amount("cpus"); got != 3000 {
		t.Errorf("others are offered %v cpus", got)
	}
	mine := s.subscribeIn(1, "sure")
	if got := s.held(mine).Amount("cpus"); got != 5000 {
		t.Errorf("the guarantee is offered with %v cpus", got)
	}
}

// A guarantee that comes later makes the others give back what they only hold.
func TestGuaranteeRescinds(t *testing.T) {
	s := newScript(t, nil)
	s.do(RegisterAgent{Agent: agentOf(1, "cpus:8;mem:8192")})
	other := s.subscribeIn(0, "other")
	mine := s.subscribeIn(1, "sure")
	s.do(SetQuotas{Quotas: []Quota{quotaOf("sure", "cpus:5", "cpus:5")}})
	if a, b := s.held(other).Amount("cpus"), s.held(mine).Amount("cpus"); a != 3000 || b != 5000 {
		t.Errorf("others %v, the guaranteed %v", a, b)
	}
}

// Reservations count, whether they are used or not.
func TestQuotaCountsReservations(t *testing.T) {
	s := newScript(t, nil)
	info := capable(1, "cpus:8;mem:8192")
	info.Resources = amount("cpus:4;mem:8192").Add(reserved("cpus:4", "eng")...)
	s.do(RegisterAgent{Agent: info})
	s.do(SetQuotas{Quotas: []Quota{quotaOf("eng", "", "cpus:5")}})
	f := s.subscribeIn(0, "eng")
	if got := s.held(f).Amount("cpus"); got != 5000 {
		t.Errorf("offered %v cpus", got)
	}
}

func TestQuotaRefused(t *testing.T) {
	s := newScript(t, nil)
	s.do(RegisterAgent{Agent: agentOf(1, "cpus:8;mem:8192")})
	f := s.subscribeIn(0, "eng")
	s.do(Accept{Framework: f, Offers: []string{"m-O0"}, Launches: []Launch{func() Launch {
		l := launchOf("a", "m-S0", "cpus:4")
		l.Resources = l.Resources.Allocated("eng")
		return l
	}()}})
	for _, x := range []struct {
		name string
		q    Quota
		err  error
	}{
		{"nested", quotaOf("a/b", "cpus:1", ""), ErrInvalid},
		{"above the limit", quotaOf("a", "cpus:2", "cpus:1"), ErrInvalid},
		{"more than there is", quotaOf("a", "cpus:9", ""), ErrOvercommit},
		{"below what is used", quotaOf("eng", "", "cpus:3"), ErrInvalid},
		{"huge", Quota{Role: "a", Limits: map[string]resources.Milli{"cpus": maxQuota + 1}}, ErrInvalid},
	} {
		fx, err := s.core.Apply(s.now, SetQuotas{Quotas: []Quota{quotaOf("b", "cpus:1", ""), x.q}}, nil)
		if !errors.Is(err, x.err) || len(fx) > 0 || len(s.core.quotas) > 0 {
			t.Errorf("%s: %v, %v, %v", x.name, err, text(fx), s.core.quotas)
		}
	}
	for _, q := range []Quota{quotaOf("a", "cpus:9", ""), quotaOf("eng", "", "cpus:3")} {
		if _, err := s.core.Apply(s.now, SetQuotas{Quotas: []Quota{q}, Force: true}, nil); err != nil {
			t.Errorf("%s by force: %v", q.Role, err)
		}
	}
}

// With quota, nothing is offered after a failover until most agents are back.
func TestPausedAfterFailover(t *testing.T) {
	s := newScript(t, nil)
	s.do(Restore{Quotas: []Quota{quotaOf("sure", "cpus:5", "")}, Weights: map[string]float64{"other": 3}})
	for i := range 10 {
		a := agentOf(i, "cpus:8;mem:8192")
		a.ID = fmt.Sprintf("old-S%d", i)
		s.do(Recover{Agent: a})
	}
	f := s.subscribeIn(0, "sure")
	for i := range 8 {
		if n := len(s.core.frameworks[f].offers); n > 0 {
			t.Fatalf("%d offers with %d agents back", n, i)
		}
		a := agentOf(i, "cpus:8;mem:8192")
		a.ID = fmt.Sprintf("old-S%d", i)
		s.do(ReregisterAgent{Agent: a})
	}
	if len(s.core.frameworks[f].offers) == 0 {
		t.Error("no offers with 8 of 10 agents back")
	}
	if got := s.core.roles.Weight("other"); got != 3 {
		t.Errorf("weight %v", got)
	}
}

func TestPauseEnds(t *testing.T) {
	s := newScript(t, nil)
	s.do(Restore{Quotas: []Quota{quotaOf("sure", "cpus:5", "")}})
	gone := agentOf(1, "cpus:1")
	gone.ID = "old-S0"
	s.do(Recover{Agent: gone})
	f := s.subscribeIn(0, "sure")
	s.do(RegisterAgent{Agent: agentOf(2, "cpus:8;mem:8192")})
	if n := len(s.core.frameworks[f].offers); n > 0 {
		t.Errorf("%d offers at once", n)
	}
	pingless(s, 11*time.Minute)
	if len(s.core.frameworks[f].offers) == 0 {
		t.Error("none after the time of the missing agent")
	}
}

func TestMinAllocatable(t *testing.T) {
	s := newScript(t, nil)
	s.do(RegisterAgent{Agent: agentOf(1, "cpus:2;mem:8192")})
	f := frameworkOf("f")
	f.MinAllocatable = map[string][]resources.Scalars{"web": {amount("cpus:3").Scalars(), amount("cpus:1;mem:9000").Scalars()}}
	s.do(Subscribe{Info: f, Stream: "s"})
	if got := s.held("m-0000"); len(got) > 0 {
		t.Errorf("too little is offered: %s", got)
	}
	s.do(RegisterAgent{Agent: agentOf(2, "cpus:4;mem:10")})
	if got := s.held("m-0000").Amount("cpus"); got != 4000 {
		t.Errorf("offered %v cpus", got)
	}
}

// TestQuotaProperties: limits are never passed, guarantees always find room,
// what roles consume is what they have, and everything free ends up with
// somebody who may have it.
func TestQuotaProperties(t *testing.T) {
	roles := []string{"a", "a/x", "a/y", "b", "c"}
	rapid.Check(t, func(rt *rapid.T) {
		s := newScript(t, func(c *Config) { c.OfferParts = rapid.SampledFrom([]int{1, 4}).Draw(rt, "parts") })
		for i := range rapid.IntRange(1, 4).Draw(rt, "agents") {
			info := capable(i+1, rapid.SampledFrom([]string{"cpus:8;mem:4096", "cpus:40;mem:65536"}).Draw(rt, "size"))
			if rapid.Bool().Draw(rt, "reserved") {
				info.Resources = info.Resources.Sub(amount("cpus:2")...).Add(reserved("cpus:2", rapid.SampledFrom(roles).Draw(rt, "role"))...)
			}
			s.do(RegisterAgent{Agent: info})
		}
		tasks := 0
		for n := range rapid.IntRange(1, 30).Draw(rt, "steps") {
			s.now = s.now.Add(10 * time.Second)
			switch rapid.IntRange(0, 4).Draw(rt, "what") {
			case 0:
				if len(s.core.frameworks) < 6 {
					s.subscribeIn(len(s.core.frameworks), rapid.SampledFrom(roles).Draw(rt, "role"))
				}
			case 1:
				q := Quota{Role: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "quota"), Limits: map[string]resources.Milli{}}
				sure := rapid.IntRange(0, 8).Draw(rt, "guarantee")
				q.Guarantees = resources.NewScalar("cpus", resources.Whole(int64(sure))).Scalars()
				if rapid.Bool().Draw(rt, "limited") {
					q.Limits["cpus"] = resources.Whole(int64(sure + rapid.IntRange(0, 4).Draw(rt, "room")))
				}
				_, err := s.core.Apply(s.now, SetQuotas{Quotas: []Quota{q}}, nil)
				if err != nil && !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrOvercommit) {
					rt.Fatal(err)
				}
			default:
				for _, o := range s.core.allOffers() {
					if rapid.Bool().Draw(rt, "keep") {
						continue
					}
					tasks++
					l := Launch{ID: fmt.Sprintf("t%d-%d", n, tasks), Agent: o.Agent, Resources: o.Resources.Filter(func(r *resources.Resource) bool { return r.Name == "cpus" })}
					if rapid.Bool().Draw(rt, "half") && len(l.Resources) > 0 {
						l.Resources = slices.Clone(l.Resources[:1])
						l.Resources[0].Scalar = (l.Resources[0].Scalar + 1) / 2
					}
					s.do(Accept{Framework: o.Framework, Offers: []string{o.ID}, Launches: []Launch{l}})
				}
			}
			s.settle()
			checkQuota(rt, s.core)
		}
	})
}

func checkQuota(t *rapid.T, c *Core) {
	counted, free := map[string]resources.Scalars{}, resources.Milli(0)
	count := func(r resources.Resources) {
		for _, x := range r {
			if top := topRole(x.Role); len(x.Reservations) == 0 {
				counted[top] = counted[top].Add(resources.Resources{x}.Scalars())
			}
		}
	}
	for _, a := range c.agents {
		count(a.used)
		count(a.offered)
		for top, amount := range reservedBy(a.Resources) {
			counted[top] = counted[top].Add(amount)
		}
		free += a.free().Unreserved().Amount("cpus")
	}
	var lacking resources.Milli
	for _, role := range []string{"a", "b", "c"} {
		has, q := counted[role].Get("cpus"), c.quotas[role]
		if got := c.consumed[role].Get("cpus"); got != has {
			t.Fatalf("role %s consumes %v cpus by the books and %v by what there is", role, got, has)
		}
		if limit, set := q.Limits["cpus"]; set && has > limit {
			t.Fatalf("role %s has %v cpus, its limit is %v", role, has, limit)
		}
		lacking += max(0, q.Guarantees.Get("cpus")-has)
	}
	for _, o := range c.offers {
		if q := c.quotas[topRole(o.Role)]; free < lacking && len(q.Guarantees) == 0 && o.Resources.Unreserved().Amount("cpus") > 0 {
			t.Fatalf("%v cpus are guaranteed to others, %v are free, and %s is offered to %s", lacking, free, o.Resources, o.Role)
		}
	}
	for _, a := range c.agents {
		if left := a.free().Unreserved(); len(c.quotas) == 0 && len(c.frameworks) > 0 && c.allocatable(left) {
			t.Fatalf("nobody is offered %s of %s", left, a.ID)
		}
	}
}
