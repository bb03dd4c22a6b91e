package master

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// crowd is frameworks that take what they are offered and let it go again.
type crowd struct {
	*script
	*rapid.T
	tasks int
	ends  map[task.Key]time.Time // when a task of somebody greedy ends
}

func newCrowd(rt *rapid.T, t *testing.T, agents, frameworks int) *crowd {
	c := &crowd{script: newScript(t, nil), T: rt, ends: map[task.Key]time.Time{}}
	for i := range agents {
		c.do(RegisterAgent{Agent: agentOf(i+1, rapid.SampledFrom([]string{"cpus:4;mem:8192", "cpus:12;mem:65536"}).Draw(rt, "size"))})
	}
	for i := range frameworks {
		f := frameworkOf(fmt.Sprintf("f%d", i))
		f.Roles = []string{rapid.SampledFrom([]string{"web", "db", "web/a"}).Draw(rt, "role")}
		c.do(Subscribe{Info: f, Stream: fmt.Sprintf("s%d", i)})
	}
	return c
}

// launch takes tasks of one cpu from an offer, up to a number, and returns how
// many it got.
func (c *crowd) launch(o *Offer, upTo int, lasting time.Duration) int {
	cmd := Accept{Framework: o.Framework, Offers: []string{o.ID}}
	if o.Resources.Amount("cpus") < 1000 {
		cmd.Refuse = 5 * time.Second
	}
	for room := o.Resources.Amount("cpus") / 1000; len(cmd.Launches) < min(int(room), upTo); {
		c.tasks++
		l := launchOf(fmt.Sprintf("t%d", c.tasks), o.Agent, "cpus:1;mem:32")
		l.Resources = amount("cpus:1;mem:32").Allocated(o.Role)
		cmd.Launches = append(cmd.Launches, l)
		c.ends[task.Key{Framework: o.Framework, ID: l.ID}] = c.now.Add(lasting)
	}
	c.do(cmd)
	return len(cmd.Launches)
}

// end ends the tasks whose time has come.
func (c *crowd) end() {
	for _, f := range c.core.sortedFrameworks() {
		for _, t := range sortedTasks(f.tasks) {
			if at := c.ends[t.Key]; at.After(c.now) {
				continue
			}
			u := updateOf(t.Agent, f.ID, t.Key.ID, task.Finished)
			c.do(u)
			c.do(ackOf(u))
			delete(c.ends, t.Key)
		}
	}
}

// TestNobodyStarves: whatever greedy others take and for however long they
// refuse, one that wants a cpu, and says so, gets it soon after some are free,
// and again and again. One that does not say so is offered what is left of
// memory too, which counts as its share, as in Mesos.
func TestNobodyStarves(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		greedy := rapid.IntRange(1, 3).Draw(rt, "greedy frameworks")
		c := newCrowd(rt, t, rapid.IntRange(1, 2).Draw(rt, "agents"), greedy)
		lasting := time.Duration(rapid.IntRange(1, 6).Draw(rt, "seconds a task takes")) * time.Second
		modest, served, since := "", 0, c.now
		answer := func() {
			for range 4 { // nobody thinks for long
				for _, o := range c.core.allOffers() {
					switch {
					case c.core.offers[o.ID] == nil:
					case o.Framework == modest:
						if c.launch(o, 1, lasting) > 0 {
							served, since = served+1, c.now
						}
					case rapid.IntRange(0, 9).Draw(rt, "declines") == 0:
						c.do(Decline{Framework: o.Framework, Offers: []string{o.ID}, Refuse: time.Hour})
					default:
						c.launch(o, 1000, lasting)
					}
				}
			}
		}
		for range 60 {
			c.wait(time.Second)
			for _, a := range c.core.sortedAgents() {
				c.do(Pong{Agent: a.ID})
			}
			answer()
			c.end()
			if modest == "" && rapid.Bool().Draw(rt, "comes") {
				f := frameworkOf("modest")
				f.Roles = []string{rapid.SampledFrom([]string{"web", "db", "new"}).Draw(rt, "role")}
				f.MinAllocatable = map[string][]resources.Scalars{f.Roles[0]: {amount("cpus:1").Scalars()}}
				modest, since = fmt.Sprintf("m-%04d", greedy), c.now
				c.do(Subscribe{Info: f, Stream: "modest"})
			}
			answer()
			// Tasks end within their time. What is free then goes to those who have
			// least, of whom there are at most all.
			if limit := time.Duration(greedy+2)*lasting + 10*time.Second; modest != "" && c.now.Sub(since) > limit {
				rt.Fatalf("for %v one that wants a cpu has got none, after %d", c.now.Sub(since), served)
			}
		}
	})
}

// TestLeastIsServedFirst: of those who refuse nothing the one with the lowest
// share is offered what is free.
func TestLeastIsServedFirst(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newScript(t, func(c *Config) { c.OfferParts = 1 })
		s.do(RegisterAgent{Agent: agentOf(1, "cpus:1000;mem:100000")})
		n := rapid.IntRange(2, 6).Draw(rt, "frameworks")
		for i := range n {
			s.do(Subscribe{Info: frameworkOf(fmt.Sprintf("f%d", i)), Stream: fmt.Sprintf("s%d", i)})
		}
		share := map[string]resources.Milli{}
		for i := range 30 {
			offers := s.core.allOffers()
			if len(offers) != 1 {
				rt.Fatalf("%d offers of one agent that is not cut", len(offers))
			}
			o := offers[0]
			for _, f := range s.core.frameworks {
				if share[f.ID] < share[o.Framework] {
					rt.Fatalf("%s with %v cpus is offered before %s with %v", o.Framework, share[o.Framework], f.ID, share[f.ID])
				}
			}
			cpus := rapid.IntRange(0, 20).Draw(rt, "cpus")
			cmd := Accept{Framework: o.Framework, Offers: []string{o.ID}}
			if cpus > 0 {
				cmd.Launches = []Launch{launchOf(fmt.Sprintf("t%d", i), o.Agent, fmt.Sprintf("cpus:%d", cpus))}
			}
			s.do(cmd)
			share[o.Framework] += resources.Whole(int64(cpus))
		}
	})
}
