package api

import (
	"errors"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	client "github.com/gambol99/go-marathon"

	"github.com/mesopool/mesopool/marathon"
)

// library is go-marathon, as it is, against our API.
type library struct {
	client.Marathon
	s      *site
	called map[string]bool
}

func newLibrary(t *testing.T) *library {
	t.Helper()
	s := newSite(t)
	cfg := client.NewDefaultConfig()
	cfg.URL, cfg.PollingWaitTime, cfg.EventsTransport = s.URL, 2*time.Millisecond, client.EventsTransportSSE
	c, err := client.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &library{Marathon: c, s: s, called: map[string]bool{}}
}

// ok checks a call that must work; the names are those of the interface.
func (l *library) ok(err error, calls string) {
	l.s.t.Helper()
	l.note(calls)
	if err != nil {
		l.s.t.Errorf("%s: %v", calls, err)
	}
}

func (l *library) note(calls string) {
	for name := range strings.FieldsSeq(calls) {
		l.called[name] = true
	}
}

// fails checks that the library understands a refusal.
func (l *library) fails(err error, code int, calls string) {
	l.s.t.Helper()
	l.note(calls)
	var own *client.APIError
	if !errors.As(err, &own) || own.ErrCode != code {
		l.s.t.Errorf("%s: %v, want the library's error %d", calls, err, code)
	}
}

func (l *library) must(ok bool, format string, args ...any) {
	l.s.t.Helper()
	if !ok {
		l.s.t.Errorf(format, args...)
	}
}

func libraryApp(id string) *client.Application {
	app := client.NewDockerApplication().Name(id).CPU(1).Storage(0).Count(2).AddEnv("A", "b").AddLabel("env", "prod")
	app.Memory(64)
	app.Container.Docker.Container("web:1").Bridged().Expose(80)
	return app
}

const wait = 10 * time.Second

// TestGoMarathon makes every call that the library has.
func TestGoMarathon(t *testing.T) {
	l := newLibrary(t)
	for _, part := range []func(){l.service, l.applications, l.changes, l.tasks, l.groups, l.deployments, l.subscriptions} {
		part()
	}
	every := reflect.TypeFor[client.Marathon]()
	for m := range every.Methods() {
		if !l.called[m.Name] {
			t.Errorf("%s was not called", m.Name)
		}
	}
}

func (l *library) service() {
	up, err := l.Ping()
	l.ok(err, "Ping")
	info, err := l.Info()
	l.ok(err, "Info")
	leader, err := l.Leader()
	l.ok(err, "Leader")
	l.must(up && info.Name == "marathon" && info.FrameworkID == "fw" && leader == "me:8080" && l.GetMarathonURL() == l.s.URL, "%v %+v %s", up, info, leader)
	l.note("GetMarathonURL")
	_, err = l.AbdicateLeader() // there is no other to lead
	l.must(err != nil, "the only scheduler has abdicated")
	l.note("AbdicateLeader")
}

func (l *library) applications() {
	made, err := l.CreateApplication(libraryApp("/g/web"))
	l.ok(err, "CreateApplication")
	l.must(made.ID == "/g/web" && len(made.DeploymentIDs()) == 1, "%+v", made)
	l.ok(l.WaitOnApplication("/g/web", wait), "WaitOnApplication")
	_, err = l.CreateApplication(libraryApp("/g/web"))
	l.fails(err, client.ErrCodeDuplicateID, "CreateApplication")
	bad := libraryApp("/bad")
	_, err = l.CreateApplication(bad.Count(-1))
	l.fails(err, client.ErrCodeInvalidBean, "CreateApplication")
	_, err = l.Application("/none")
	l.fails(err, client.ErrCodeNotFound, "Application")
	l.s.settle()
	app, err := l.Application("/g/web")
	l.ok(err, "Application")
	l.must(app.TasksRunning == 2 && len(app.Tasks) == 2 && (*app.Env)["A"] == "b" && app.Tasks[0].IPAddresses[0].IPAddress == "10.0.0.9", "%+v", app)
	by, err := l.ApplicationBy("/g/web", &client.GetAppOpts{Embed: []string{"app.tasks"}})
	l.ok(err, "ApplicationBy")
	ids, err := l.ListApplications(url.Values{"label": {"env==prod"}})
	l.ok(err, "ListApplications")
	all, err := l.Applications(url.Values{"embed": {"apps.tasks"}})
	l.ok(err, "Applications")
	well, err := l.ApplicationOK("/g/web")
	l.ok(err, "ApplicationOK")
	under, err := l.ApplicationDeployments("/g/web")
	l.ok(err, "ApplicationDeployments")
	l.must(by.ID == "/g/web" && len(ids) == 1 && len(all.Apps) == 1 && well && len(under) == 0, "%+v %v %+v %v %v", by, ids, all, well, under)
}

func (l *library) changes() {
	versions, err := l.ApplicationVersions("/g/web")
	l.ok(err, "ApplicationVersions")
	first := versions.Versions[0]
	old, err := l.ApplicationByVersion("/g/web", first)
	l.ok(err, "ApplicationByVersion")
	has, err := l.HasApplicationVersion("/g/web", first)
	l.ok(err, "HasApplicationVersion")
	l.must(has && old.Version == first, "%v %+v", has, old)
	next := client.NewDockerApplication().Name("/g/web").AddEnv("A", "c")
	next.Container = nil
	for _, change := range []func() (*client.DeploymentID, error){
		func() (*client.DeploymentID, error) { return l.UpdateApplication(next, false) },
		func() (*client.DeploymentID, error) {
			return l.SetApplicationVersion("/g/web", &client.ApplicationVersion{Version: first})
		},
		func() (*client.DeploymentID, error) { return l.ScaleApplicationInstances("/g/web", 3, false) },
		func() (*client.DeploymentID, error) { return l.RestartApplication("/g/web", false) },
	} {
		d, err := change()
		l.ok(err, "UpdateApplication SetApplicationVersion ScaleApplicationInstances RestartApplication")
		l.ok(l.WaitOnDeployment(d.DeploymentID, wait), "WaitOnDeployment")
	}
	app, err := l.Application("/g/web")
	l.ok(err, "Application")
	l.must((*app.Env)["A"] == "b" && *app.Instances == 3, "%+v", app)
}

func (l *library) tasks() {
	list, err := l.Tasks("/g/web")
	l.ok(err, "Tasks")
	all, err := l.AllTasks(&client.AllTasksOpts{Status: "running"})
	l.ok(err, "AllTasks")
	l.must(len(list.Tasks) == 3 && len(all.Tasks) == 3, "%+v %+v", list, all)
	killed, err := l.KillTask(list.Tasks[0].ID, nil)
	l.ok(err, "KillTask")
	l.must(killed.ID == list.Tasks[0].ID, "%+v", killed)
	l.ok(l.KillTasks([]string{list.Tasks[1].ID}, &client.KillTaskOpts{Scale: true}), "KillTasks")
	l.s.settle()
	left, err := l.KillApplicationTasks("/g/web", &client.KillApplicationTasksOpts{Host: "10.0.0.9"})
	l.ok(err, "KillApplicationTasks")
	l.must(len(left.Tasks) == 2, "%+v", left)
	_, err = l.TaskEndpoints("/g/web", 80, false) // it looks where ports were before Marathon 1.5
	l.must(err != nil, "the library has learned the newer shape: test what it finds")
	l.note("TaskEndpoints")
}

func (l *library) groups() {
	group := client.NewApplicationGroup("/lib").App(libraryApp("/lib/a")).App(libraryApp("/lib/b").DependsOn("/lib/a"))
	l.ok(l.CreateGroup(group), "CreateGroup")
	l.ok(l.WaitOnGroup("/lib", wait), "WaitOnGroup")
	has, err := l.HasGroup("/lib")
	l.ok(err, "HasGroup")
	all, err := l.Groups()
	l.ok(err, "Groups")
	some, err := l.GroupsBy(&client.GetGroupOpts{Embed: []string{"group.groups", "group.apps"}})
	l.ok(err, "GroupsBy")
	one, err := l.Group("/lib")
	l.ok(err, "Group")
	by, err := l.GroupBy("/lib", &client.GetGroupOpts{Embed: []string{"group.apps"}})
	l.ok(err, "GroupBy")
	l.must(has && len(all.Groups) == 2 && len(some.Groups) == 2 && len(one.Apps) == 2 && len(by.Apps) == 2, "%v %+v %+v %+v %+v", has, all, some, one, by)
	l.s.settle()
	d, err := l.UpdateGroup("/lib", client.NewApplicationGroup("/lib").App(libraryApp("/lib/a")), false)
	l.ok(err, "UpdateGroup")
	l.ok(l.WaitOnDeployment(d.DeploymentID, wait), "WaitOnDeployment")
	_, err = l.DeleteGroup("/lib", true)
	l.ok(err, "DeleteGroup")
	l.s.settle()
}

func (l *library) deployments() {
	stuck := libraryApp("/stuck").CPU(1e6)
	made, err := l.CreateApplication(stuck)
	l.ok(err, "CreateApplication")
	id := made.DeploymentIDs()[0].DeploymentID
	list, err := l.Deployments()
	l.ok(err, "Deployments")
	has, err := l.HasDeployment(id)
	l.ok(err, "HasDeployment")
	queue, err := l.Queue()
	l.ok(err, "Queue")
	l.must(has && len(list) == 1 && list[0].AffectedApps[0] == "/stuck" && len(queue.Items) == 1 && queue.Items[0].Application.ID == "/stuck", "%v %+v %+v", has, list, queue)
	l.ok(l.DeleteQueueDelay("/stuck"), "DeleteQueueDelay")
	_, err = l.UpdateApplication(libraryApp("/stuck").CPU(2e6), false)
	l.fails(err, client.ErrCodeAppLocked, "UpdateApplication")
	back, err := l.DeleteDeployment(id, false)
	l.ok(err, "DeleteDeployment")
	l.ok(l.WaitOnDeployment(back.DeploymentID, wait), "WaitOnDeployment")
	_, err = l.DeleteApplication("/stuck", true)
	l.fails(err, client.ErrCodeNotFound, "DeleteApplication")
	_, err = l.DeleteApplication("/g/web", true)
	l.ok(err, "DeleteApplication")
	l.s.settle()
}

func (l *library) subscriptions() {
	l.ok(l.Subscribe("http://127.0.0.1:1/events"), "Subscribe")
	list, err := l.Subscriptions()
	l.ok(err, "Subscriptions")
	l.must(len(list.CallbackURLs) == 1, "%+v", list)
	l.ok(l.Unsubscribe("http://127.0.0.1:1/events"), "Unsubscribe")
	events, err := l.AddEventsListener(client.EventIDApplications | client.EventIDDeploymentSuccess)
	l.ok(err, "AddEventsListener")
	seen := map[string]bool{}
	timeout := time.After(wait)
	for tries := 0; !seen["deployment_success"] || !seen["status_update_event"]; tries++ {
		// The library does not say when its stream is there.
		if err := l.s.r.Do(l.s.t.Context(), marathon.Change{DeploymentID: newID(), Put: []*marathon.App{l.tiny(tries)}, Force: true}); err != nil {
			l.s.t.Fatal(err)
		}
		select {
		case e := <-events:
			seen[e.Name] = true
		case <-time.After(50 * time.Millisecond):
		case <-timeout:
			l.s.t.Fatalf("seen %v", seen)
		}
	}
	go func() {
		for range events { // what is on its way would hold the library up
		}
	}()
	l.RemoveEventsListener(events)
	l.note("RemoveEventsListener")
}

func (l *library) tiny(n int) *marathon.App {
	a, err := marathon.Read([]byte(`{"id":"/tiny","cmd":"x","env":{"N":`+string(rune('0'+n%10))+`}}`), "*")
	if err != nil {
		l.s.t.Fatal(err)
	}
	return a
}
