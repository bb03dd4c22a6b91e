package interop

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/backoff"
	"github.com/mesos/mesos-go/api/v1/lib/encoding/codecs"
	"github.com/mesos/mesos-go/api/v1/lib/extras/scheduler/callrules"
	"github.com/mesos/mesos-go/api/v1/lib/extras/scheduler/controller"
	"github.com/mesos/mesos-go/api/v1/lib/extras/scheduler/eventrules"
	"github.com/mesos/mesos-go/api/v1/lib/extras/store"
	"github.com/mesos/mesos-go/api/v1/lib/httpcli"
	"github.com/mesos/mesos-go/api/v1/lib/httpcli/httpsched"
	"github.com/mesos/mesos-go/api/v1/lib/resources"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler/calls"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler/events"
)

// framework is one that is built on mesos-go as its own example is.
type framework struct {
	t      *testing.T
	caller calls.Caller
	id     store.Singleton
	events chan scheduler.Event
	offers []scheduler.Event // that came while something else was waited for
	why    atomic.Value      // the last subscription ended
}

func info(name string) *mesos.FrameworkInfo {
	timeout := 3600.0
	return &mesos.FrameworkInfo{
		User: "root", Name: name, Roles: []string{"web"}, FailoverTimeout: &timeout,
		Capabilities: []mesos.FrameworkInfo_Capability{
			{Type: mesos.FrameworkInfo_Capability_MULTI_ROLE},
			{Type: mesos.FrameworkInfo_Capability_PARTITION_AWARE},
			{Type: mesos.FrameworkInfo_Capability_RESERVATION_REFINEMENT},
		},
	}
}

func startFramework(t *testing.T, addr, id string) *framework {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	f := &framework{
		t: t, id: store.NewInMemorySingleton(), events: make(chan scheduler.Event, 10_000),
	}
	if id != "" {
		f.id.Set(id)
	}
	client := httpcli.New(
		httpcli.Endpoint("http://"+addr+"/api/v1/scheduler"), httpcli.Codec(codecs.ByMediaType[codecs.MediaTypeProtobuf]), httpcli.Do(httpcli.With()),
	)
	f.caller = callrules.WithFrameworkID(store.GetIgnoreErrors(f.id)).Caller(httpsched.NewCaller(client, httpsched.AllowReconnection(true)))
	handler := eventrules.New(
		func(ctx context.Context, e *scheduler.Event, err error, next eventrules.Chain) (context.Context, *scheduler.Event, error) {
			f.events <- *e
			if e.GetType() == scheduler.Event_ERROR {
				cancel() // or it would take the framework back
			}
			return next(ctx, e, err)
		}, controller.LiftErrors(),
	).Handle(events.Handlers{
		scheduler.Event_SUBSCRIBED: controller.TrackSubscription(f.id, time.Hour),
		scheduler.Event_UPDATE:     controller.AckStatusUpdates(f.caller),
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		controller.Run(ctx, info("mesos-go"), f.caller, controller.WithEventHandler(handler), controller.WithFrameworkID(store.GetIgnoreErrors(f.id)),
			controller.WithRegistrationTokens(backoff.Notifier(10*time.Millisecond, time.Second, ctx.Done())),
			controller.WithSubscriptionTerminated(func(err error) { f.why.Store(fmt.Sprint(err)) }))
	}()
	t.Cleanup(func() { cancel(); <-done })
	return f
}

// next waits for an event that is wanted. Offers that pass by stay good until it
// subscribes anew.
func (f *framework) next(what string, want func(*scheduler.Event) bool) *scheduler.Event {
	f.t.Helper()
	timeout := time.After(patience)
	for i := range f.offers {
		if e := f.offers[i]; want(&e) {
			f.offers = append(f.offers[:i:i], f.offers[i+1:]...)
			return &e
		}
	}
	for {
		select {
		case e := <-f.events:
			if e.GetType() == scheduler.Event_SUBSCRIBED {
				f.offers = nil
			}
			if want(&e) {
				return &e
			}
			if e.GetType() == scheduler.Event_OFFERS {
				f.offers = append(f.offers, e)
			}
		case <-timeout:
			f.t.Fatalf("no %s came; the last subscription ended with %v", what, f.why.Load())
		}
	}
}

func (f *framework) subscribed() string {
	f.t.Helper()
	e := f.next("SUBSCRIBED", func(e *scheduler.Event) bool { return e.GetType() == scheduler.Event_SUBSCRIBED })
	return e.GetSubscribed().GetFrameworkID().GetValue()
}

func (f *framework) state(task string, want mesos.TaskState) mesos.TaskStatus {
	f.t.Helper()
	e := f.next(fmt.Sprintf("%s of %s", want, task), func(e *scheduler.Event) bool {
		s := e.GetUpdate().GetStatus()
		return e.GetType() == scheduler.Event_UPDATE && s.TaskID.Value == task && s.GetState() == want
	})
	return e.GetUpdate().GetStatus()
}

func (f *framework) call(c *scheduler.Call) {
	f.t.Helper()
	if err := calls.CallNoData(context.Background(), f.caller, c); err != nil {
		f.t.Fatalf("%s: %v", c.GetType(), err)
	}
}

// launch starts a task on the next offer, with resources found in it as the
// library finds them.
func (f *framework) launch(id string) mesos.AgentID {
	f.t.Helper()
	offer := f.next("offer", func(e *scheduler.Event) bool { return e.GetType() == scheduler.Event_OFFERS }).GetOffers().GetOffers()[0]
	var wants mesos.Resources
	wants.Add1(resources.NewCPUs(0.1).Resource)
	wants.Add1(resources.NewMemory(32).Resource)
	for i := range wants {
		wants[i].AllocationInfo = &mesos.Resource_AllocationInfo{Role: offer.AllocationInfo.Role}
	}
	found := resources.Find(wants, offer.Resources...)
	if len(found) == 0 {
		f.t.Fatalf("mesos-go finds no room in %v", offer.Resources)
	}
	image, shell, command := "web:1", true, "sleep infinity"
	task := mesos.TaskInfo{
		Name: id, TaskID: mesos.TaskID{Value: id}, AgentID: offer.AgentID, Resources: found,
		Command: &mesos.CommandInfo{Shell: &shell, Value: &command},
		Container: &mesos.ContainerInfo{
			Type: mesos.ContainerInfo_DOCKER.Enum(), Docker: &mesos.ContainerInfo_DockerInfo{Image: image},
		},
	}
	f.call(calls.Accept(calls.OfferOperations{calls.OpLaunch(task)}.WithOffers(offer.ID)).With(calls.RefuseSeconds(0)))
	return offer.AgentID
}

// TestMesosGo drives a framework on mesos-go through its life, in the library's
// own codec. Its other one, JSON, fails on every master since Mesos 1.9, for it
// does not know their capability QUOTA_V2.
func TestMesosGo(t *testing.T) {
	addr, restart := cluster(t)
	f := startFramework(t, addr, "")
	id := f.subscribed()
	agent := f.launch("t1")
	if s := f.state("t1", mesos.TASK_RUNNING); len(s.UUID) != 16 || s.ContainerStatus == nil || len(s.ContainerStatus.NetworkInfos) == 0 {
		t.Errorf("running: %v", s)
	}
	f.call(calls.Reconcile())
	if s := f.state("t1", mesos.TASK_RUNNING); len(s.UUID) != 0 || s.GetReason() != mesos.REASON_RECONCILIATION {
		t.Errorf("reconciled: %v", s)
	}
	f.call(calls.Reconcile(calls.ReconcileTasks(map[string]string{"no such task": agent.Value})))
	f.state("no such task", mesos.TASK_GONE)

	// Another instance takes over, by the ID; the old one is told.
	second := startFramework(t, addr, id)
	if again := second.subscribed(); again != id {
		t.Fatalf("the second instance is %s, want %s", again, id)
	}
	f.next("ERROR", func(e *scheduler.Event) bool {
		return e.GetType() == scheduler.Event_ERROR && e.GetError().GetMessage() == "Framework failed over"
	})
	second.call(calls.Suppress())
	second.call(calls.Revive())
	second.launch("t2")
	second.state("t2", mesos.TASK_RUNNING)
	second.call(calls.Kill("t1", agent.Value))
	second.state("t1", mesos.TASK_KILLED)

	// The master starts again: the library subscribes again by itself.
	restart()
	if again := second.subscribed(); again != id {
		t.Errorf("after a restart of the master it is %s, want %s", again, id)
	}
	second.launch("t3")
	second.state("t3", mesos.TASK_RUNNING)
	second.call(calls.Kill("t2", ""))
	second.state("t2", mesos.TASK_KILLED)

	second.call(&scheduler.Call{Type: scheduler.Call_TEARDOWN})
	if text := fetch(t, "http://"+addr+"/frameworks"); !strings.Contains(text, `"frameworks":[],"completed_frameworks":[{"id":"`+id+`"`) {
		t.Errorf("after TEARDOWN: %s", text)
	}
}

// fetch reads what a URL says once the framework is no more listed as running.
func fetch(t *testing.T, url string) string {
	t.Helper()
	text := ""
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if text = string(body); strings.Contains(text, `"frameworks":[],`) {
			return text
		}
	}
	return text
}
