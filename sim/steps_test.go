package sim

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mesopool/mesopool/marathon"
)

// deployment is a change that the scheduler is killed in, at every commit.
type deployment struct {
	name   string
	before string // a group
	after  string
}

// What is deployed: three instances at a time may be more or one may be less,
// and what depends on something waits for it.
var deployments = []deployment{
	{
		"rolling",
		`{"id":"/g","apps":[{"id":"a","cmd":"serve","cpus":0.1,"mem":32,"instances":4,"env":{"V":"1"}}]}`,
		`{"id":"/g","apps":[{"id":"a","cmd":"serve","cpus":0.1,"mem":32,"instances":4,"env":{"V":"2"},"upgradeStrategy":{"minimumHealthCapacity":0.75,"maximumOverCapacity":0.25},
			"healthChecks":[{"protocol":"TCP","gracePeriodSeconds":60,"intervalSeconds":5}],"portDefinitions":[{"port":0,"name":"w"}],"readinessChecks":[{"portName":"w","intervalSeconds":5,"timeoutSeconds":2}]}]}`,
	},
	{
		"no room for more",
		`{"id":"/g","apps":[{"id":"a","cmd":"serve","cpus":0.1,"mem":32,"instances":3,"env":{"V":"1"}}]}`,
		`{"id":"/g","apps":[{"id":"a","cmd":"serve","cpus":0.1,"mem":32,"instances":3,"env":{"V":"2"},"upgradeStrategy":{"minimumHealthCapacity":0.5,"maximumOverCapacity":0}}]}`,
	},
	{
		"group with dependencies",
		`{"id":"/g","apps":[{"id":"db","cmd":"serve","cpus":0.1,"mem":32,"instances":2},{"id":"old","cmd":"serve","cpus":0.1,"mem":32}]}`,
		`{"id":"/g","apps":[{"id":"db","cmd":"serve","cpus":0.1,"mem":32,"instances":2,"env":{"V":"2"}},{"id":"web","cmd":"serve","cpus":0.1,"mem":32,"instances":2,"dependencies":["db"]}],
			"groups":[{"id":"h","dependencies":["/g/web"],"apps":[{"id":"last","cmd":"serve","cpus":0.1,"mem":32,"healthChecks":[{"protocol":"TCP","gracePeriodSeconds":60,"intervalSeconds":5}]}]}]}`,
	},
}

// calmWorld is a cluster of one agent in which nothing happens by chance but
// small delays.
func calmWorld(d *deployment) *World {
	w := New(1, Options{})
	w.at(epoch.Add(10*time.Second), func() { w.putTree(d.before) })
	w.boot()
	w.runUntil(epoch.Add(2 * time.Minute))
	w.calm = true
	return w
}

func (w *World) putTree(text string) {
	t, err := marathon.ReadGroup([]byte(text), "/", w.marathon.role)
	if err != nil {
		panic(err)
	}
	w.ask(marathon.ChangeGroup{DeploymentID: w.table.id("d"), Put: t})
}

// deploy makes the change in a new cluster, and ends the scheduler's life at one
// of the commits after it, 0 is none. It returns how many there were.
func deploy(d *deployment, at int, how death) (commits int, f *Failure) {
	w := calmWorld(d)
	if why := w.unsettled(); why != "" {
		w.failf("steps", "before the change: %s", why)
	}
	from := w.marathon.commits
	if at > 0 {
		w.marathon.deadly, w.marathon.manner = from+at, how
	}
	w.putTree(d.after)
	for end := w.now.Add(10 * time.Minute); w.failure == nil && w.now.Before(end); {
		w.runUntil(w.now.Add(time.Second))
		if w.marathon.up && len(w.marathon.core.Deployments()) == 0 && w.now.Sub(epoch) > 150*time.Second {
			break
		}
	}
	if commits = w.marathon.commits - from; at > 0 && w.marathon.life != 2 {
		w.failf("steps", "the scheduler has had %d lives", w.marathon.life)
	}
	if at == 1 && how == uncommitted {
		w.putTree(d.after) // nobody has promised anything yet: who asked asks again
	}
	w.endFaults()
	w.settle()
	w.wantTree(d.after)
	return commits, w.failure
}

// wantTree compares what Marathon has with what is wanted.
func (w *World) wantTree(text string) {
	t, err := marathon.ReadGroup([]byte(text), "/", w.marathon.role)
	if err != nil {
		panic(err)
	}
	views := w.marathon.core.Summaries(w.now, nil)
	if len(views) != len(t.Apps) {
		w.failf("steps", "there are %d apps, and %d are wanted", len(views), len(t.Apps))
	}
	for _, a := range t.Apps {
		v, there := w.marathon.core.App(w.now, a.ID)
		if !there || v.Running != a.Instances || fmt.Sprint(v.App.Env) != fmt.Sprint(a.Env) {
			w.failf("steps", "%s: there %v, %d running, %v; %d and %v are wanted", a.ID, there, v.Running, v.App, a.Instances, a.Env)
		}
	}
}

// TestEveryStep kills the scheduler at each single commit of a deployment, in
// every way: before it is durable, before anything of it has left, amid what
// leaves. All checks hold throughout, and the wanted state comes.
func TestEveryStep(t *testing.T) {
	for i := range deployments {
		d := &deployments[i]
		steps, f := deploy(d, 0, alive)
		if f != nil || steps < 10 {
			t.Errorf("%s, undisturbed: %d commits, %v", d.name, steps, f)
			continue
		}
		var done atomic.Int64
		parallel(func(n int) bool {
			at, how := 1+n/3, []death{uncommitted, undispatched, amidEffects}[n%3]
			if at > steps || t.Failed() {
				return false
			}
			if _, f := deploy(d, at, how); f != nil {
				t.Errorf("%s, killed at commit %d of %d, %s: %v", d.name, at, steps, deathNames[how], f)
			}
			done.Add(1)
			return true
		})
		t.Logf("%s: %d commits, killed %d times", d.name, steps, done.Load())
	}
}
