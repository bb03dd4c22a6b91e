package interop

import (
	"net/url"
	"strings"
	"testing"
	"time"

	gomarathon "github.com/gambol99/go-marathon"
)

// marathon starts a whole cluster, and returns what go-marathon makes of it.
func marathon(t *testing.T, config gomarathon.Config) (client gomarathon.Marathon, base string) {
	t.Helper()
	master, _ := cluster(t)
	at := port(t)
	base = "http://127.0.0.1:" + at
	run(t, "marathon", "--ip", "127.0.0.1", "--port", at, "--master", master, "--work-dir", t.TempDir())
	await(t, base+"/ping")
	config.URL = base
	client, err := gomarathon.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	return client, base
}

// value fails the test for good when a call has failed.
func value[T any](got T, err error) func(t *testing.T, call string) T {
	return func(t *testing.T, call string) T {
		t.Helper()
		check(t, call, err)
		return got
	}
}

func sleeper(id string) *gomarathon.Application {
	app := gomarathon.NewDockerApplication().Name(id).CPU(0.1).Memory(32).Storage(0).Count(1).AddEnv("A", "b").AddLabel("k", "v")
	app.Container.Docker.Container("any:1").Bridged().ExposePort(gomarathon.PortMapping{ContainerPort: 80, Protocol: "tcp"})
	return app
}

// TestGoMarathonApps makes every call about apps that the library has.
func TestGoMarathonApps(t *testing.T) {
	m, _ := marathon(t, gomarathon.NewDefaultConfig())
	made := value(m.CreateApplication(sleeper("/web")))(t, "CreateApplication")
	if made.Version == "" || len(made.Deployments) != 1 {
		t.Errorf("created: %+v", made)
	}
	check(t, "WaitOnApplication", m.WaitOnApplication("/web", patience))
	if ids := value(m.ListApplications(nil))(t, "ListApplications"); len(ids) != 1 || ids[0] != "/web" {
		t.Errorf("apps: %v", ids)
	}
	if all := value(m.Applications(url.Values{"label": {"k==v"}, "embed": {"apps.tasks"}}))(t, "Applications"); len(all.Apps) != 1 || len(all.Apps[0].Tasks) != 1 {
		t.Errorf("apps by label: %+v", all)
	}
	app := value(m.Application("/web"))(t, "Application")
	if app.TasksRunning != 1 || (*app.Env)["A"] != "b" || !app.AllTaskRunning() {
		t.Errorf("app: %+v", app)
	}
	if ok := value(m.ApplicationOK("/web"))(t, "ApplicationOK"); !ok {
		t.Error("the app is not well")
	}
	by := value(m.ApplicationBy("/web", &gomarathon.GetAppOpts{Embed: []string{"app.taskStats", "app.counts"}}))(t, "ApplicationBy")
	if by.TaskStats["startedAfterLastScaling"].Stats.Counts["running"] != 1 {
		t.Errorf("statistics: %+v", by.TaskStats)
	}
	first := app.Version
	d := value(m.ScaleApplicationInstances("/web", 3, false))(t, "ScaleApplicationInstances")
	check(t, "WaitOnDeployment", m.WaitOnDeployment(d.DeploymentID, patience))
	if has := value(m.HasDeployment(d.DeploymentID))(t, "HasDeployment"); has {
		t.Error("the deployment has ended, and is there")
	}
	app = sleeper("/web").Count(2).AddLabel("k", "w")
	d = value(m.UpdateApplication(app, true))(t, "UpdateApplication")
	check(t, "WaitOnDeployment", m.WaitOnDeployment(d.DeploymentID, patience))
	versions := value(m.ApplicationVersions("/web"))(t, "ApplicationVersions")
	if len(versions.Versions) != 3 {
		t.Errorf("versions: %v", versions.Versions)
	}
	if has := value(m.HasApplicationVersion("/web", first))(t, "HasApplicationVersion"); !has {
		t.Error("the first version is gone")
	}
	if old := value(m.ApplicationByVersion("/web", first))(t, "ApplicationByVersion"); *old.Instances != 1 || (*old.Labels)["k"] != "v" {
		t.Errorf("the first version: %+v", old)
	}
	d = value(m.SetApplicationVersion("/web", &gomarathon.ApplicationVersion{Version: first}))(t, "SetApplicationVersion")
	check(t, "WaitOnDeployment", m.WaitOnDeployment(d.DeploymentID, patience))
	if app := value(m.Application("/web"))(t, "Application"); *app.Instances != 1 {
		t.Errorf("%d instances after the way back", *app.Instances)
	}
	d = value(m.RestartApplication("/web", false))(t, "RestartApplication")
	value(m.ApplicationDeployments("/web"))(t, "ApplicationDeployments")
	check(t, "WaitOnDeployment", m.WaitOnDeployment(d.DeploymentID, patience))
	d = value(m.DeleteApplication("/web", false))(t, "DeleteApplication")
	check(t, "WaitOnDeployment", m.WaitOnDeployment(d.DeploymentID, patience))
	if _, err := m.Application("/web"); !isNotFound(err) {
		t.Errorf("an app that is gone: %v", err)
	}
}

// TestGoMarathonTasks makes every call about tasks and the queue.
func TestGoMarathonTasks(t *testing.T) {
	m, _ := marathon(t, gomarathon.NewDefaultConfig())
	value(m.CreateApplication(sleeper("/web").Count(4)))(t, "CreateApplication")
	check(t, "WaitOnApplication", m.WaitOnApplication("/web", patience))
	tasks := value(m.Tasks("/web"))(t, "Tasks").Tasks
	all := value(m.AllTasks(&gomarathon.AllTasksOpts{Status: "running"}))(t, "AllTasks").Tasks
	if len(tasks) != 4 || len(all) != 4 || len(tasks[0].Ports) != 1 || tasks[0].StartedAt == "" || len(tasks[0].IPAddresses) == 0 {
		t.Fatalf("tasks: %+v; all: %+v", tasks, all)
	}
	ends := value(m.TaskEndpoints("/web", 80, false))(t, "TaskEndpoints")
	if len(ends) != 4 || !strings.HasPrefix(ends[0], tasks[0].Host[:3]) {
		t.Errorf("endpoints: %v", ends)
	}
	// The library makes the app's ID from the task's as it was before Marathon 1.5.
	if _, err := m.KillTask(tasks[0].ID, &gomarathon.KillTaskOpts{Scale: true}); !isNotFound(err) {
		t.Errorf("KillTask: %v", err)
	}
	check(t, "KillTasks", m.KillTasks([]string{tasks[0].ID}, &gomarathon.KillTaskOpts{Scale: true}))
	check(t, "KillTasks", m.KillTasks([]string{tasks[1].ID}, &gomarathon.KillTaskOpts{}))
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		app := value(m.Application("/web"))(t, "Application")
		if *app.Instances == 3 && app.TasksRunning == 3 && len(app.Deployments) == 0 {
			break
		}
		if time.Since(start) > patience {
			t.Fatalf("the app does not settle: %+v", app)
		}
	}
	if killed := value(m.KillApplicationTasks("/web", &gomarathon.KillApplicationTasksOpts{}))(t, "KillApplicationTasks").Tasks; len(killed) != 3 {
		t.Errorf("killed: %+v", killed)
	}
	value(m.CreateApplication(sleeper("/large").CPU(1000)))(t, "CreateApplication")
	queue := value(m.Queue())(t, "Queue")
	if len(queue.Items) == 0 || queue.Items[len(queue.Items)-1].Application.ID != "/large" && queue.Items[0].Application.ID != "/large" {
		t.Errorf("queue: %+v", queue)
	}
	check(t, "DeleteQueueDelay", m.DeleteQueueDelay("/large"))
	deployments := value(m.Deployments())(t, "Deployments")
	for _, d := range deployments {
		if len(d.AffectedApps) == 1 && d.AffectedApps[0] == "/large" {
			value(m.DeleteDeployment(d.ID, false))(t, "DeleteDeployment")
		}
	}
}

// TestGoMarathonGroups makes every call about groups.
func TestGoMarathonGroups(t *testing.T) {
	m, _ := marathon(t, gomarathon.NewDefaultConfig())
	group := gomarathon.NewApplicationGroup("/shop").App(sleeper("/shop/web")).App(sleeper("/shop/db"))
	check(t, "CreateGroup", m.CreateGroup(group))
	check(t, "WaitOnGroup", m.WaitOnGroup("/shop", patience))
	if has := value(m.HasGroup("/shop"))(t, "HasGroup"); !has {
		t.Error("there is no group")
	}
	if got := value(m.Group("/shop"))(t, "Group"); len(got.Apps) != 2 || got.Apps[0].ID != "/shop/db" && got.Apps[0].ID != "/shop/web" {
		t.Errorf("group: %+v", got)
	}
	if got := value(m.Groups())(t, "Groups"); len(got.Groups) != 1 {
		t.Errorf("groups: %+v", got)
	}
	if got := value(m.GroupsBy(&gomarathon.GetGroupOpts{Embed: []string{"group.groups"}}))(t, "GroupsBy"); len(got.Groups) != 1 {
		t.Errorf("groups by options: %+v", got)
	}
	if got := value(m.GroupBy("/shop", &gomarathon.GetGroupOpts{Embed: []string{"group.apps", "group.apps.tasks"}}))(t, "GroupBy"); len(got.Apps) != 2 || len(got.Apps[0].Tasks) != 1 {
		t.Errorf("group by options: %+v", got)
	}
	d := value(m.UpdateGroup("/shop", gomarathon.NewApplicationGroup("/shop").App(sleeper("/shop/web").Count(2)), true))(t, "UpdateGroup")
	check(t, "WaitOnDeployment", m.WaitOnDeployment(d.DeploymentID, patience))
	if got := value(m.Group("/shop"))(t, "Group"); len(got.Apps) != 1 || *got.Apps[0].Instances != 2 {
		t.Errorf("changed group: %+v", got)
	}
	d = value(m.DeleteGroup("/shop", false))(t, "DeleteGroup")
	check(t, "WaitOnDeployment", m.WaitOnDeployment(d.DeploymentID, patience))
	if has := value(m.HasGroup("/shop"))(t, "HasGroup"); has {
		t.Error("the group is still there")
	}
}

// TestGoMarathonPods makes every call about pods.
func TestGoMarathonPods(t *testing.T) {
	m, _ := marathon(t, gomarathon.NewDefaultConfig())
	if yes := value(m.SupportsPods())(t, "SupportsPods"); !yes {
		t.Fatal("pods are not supported")
	}
	pod := func(count int) *gomarathon.Pod {
		image := gomarathon.NewPodContainerImage().SetKind(gomarathon.ImageTypeDocker).SetID("any:1")
		return gomarathon.NewPod().Name("/pod").Count(count).
			AddContainer(gomarathon.NewPodContainer().SetName("one").SetCommand("sleep infinity").CPUs(0.1).Memory(32).SetImage(image)).
			AddContainer(gomarathon.NewPodContainer().SetName("two").SetCommand("sleep infinity").CPUs(0.1).Memory(32).SetImage(image))
	}
	made := value(m.CreatePod(pod(1)))(t, "CreatePod")
	check(t, "WaitOnPod", m.WaitOnPod("/pod", patience))
	if !m.PodIsRunning("/pod") {
		t.Error("the pod does not run")
	}
	got := value(m.Pod("/pod"))(t, "Pod")
	if len(got.Containers) != 2 || got.Containers[0].Name != "one" {
		t.Errorf("pod: %+v", got)
	}
	if all := value(m.Pods())(t, "Pods"); len(all) != 1 {
		t.Errorf("pods: %+v", all)
	}
	if all := value(m.PodStatuses())(t, "PodStatuses"); len(all) != 1 {
		t.Errorf("statuses: %+v", all)
	}
	value(m.UpdatePod(pod(2), true))(t, "UpdatePod")
	check(t, "WaitOnPod", m.WaitOnPod("/pod", patience))
	status := value(m.PodStatus("/pod"))(t, "PodStatus")
	if len(status.Instances) != 2 || len(status.Instances[0].Containers) != 2 {
		t.Fatalf("status: %+v", status)
	}
	versions := value(m.PodVersions("/pod"))(t, "PodVersions")
	if len(versions) != 2 {
		t.Errorf("versions: %v", versions)
	}
	if old := value(m.PodByVersion("/pod", made.Version))(t, "PodByVersion"); old.Version != made.Version {
		t.Errorf("the first version: %+v", old)
	}
	value(m.DeletePodInstance("/pod", status.Instances[0].ID))(t, "DeletePodInstance")
	if gone := value(m.DeletePodInstances("/pod", []string{status.Instances[1].ID}))(t, "DeletePodInstances"); len(gone) != 1 {
		t.Errorf("ended instances: %+v", gone)
	}
	d := value(m.DeletePod("/pod", true))(t, "DeletePod")
	check(t, "WaitOnDeployment", m.WaitOnDeployment(d.DeploymentID, patience))
}

// TestGoMarathonService makes the other calls, and listens to events.
func TestGoMarathonService(t *testing.T) {
	config := gomarathon.NewDefaultConfig()
	config.EventsTransport = gomarathon.EventsTransportSSE
	m, base := marathon(t, config)
	if ok := value(m.Ping())(t, "Ping"); !ok {
		t.Error("no pong")
	}
	if info := value(m.Info())(t, "Info"); info.FrameworkID == "" || info.Version == "" {
		t.Errorf("info: %+v", info)
	}
	if leader := value(m.Leader())(t, "Leader"); !strings.HasSuffix(base, leader) {
		t.Errorf("the leader is %s, the address %s", leader, base)
	}
	if m.GetMarathonURL() != base {
		t.Errorf("the URL is %s", m.GetMarathonURL())
	}
	check(t, "Subscribe", m.Subscribe("http://127.0.0.1:1/events"))
	if subs := value(m.Subscriptions())(t, "Subscriptions"); len(subs.CallbackURLs) != 1 {
		t.Errorf("subscriptions: %+v", subs)
	}
	check(t, "Unsubscribe", m.Unsubscribe("http://127.0.0.1:1/events"))
	events := value(m.AddEventsListener(gomarathon.EventIDApplications|gomarathon.EventIDDeploymentSuccess))(t, "AddEventsListener")
	defer m.RemoveEventsListener(events)
	value(m.CreateApplication(sleeper("/web")))(t, "CreateApplication")
	seen := map[string]bool{}
	for timeout := time.After(patience); !seen["status_update_event"] || !seen["deployment_success"]; {
		select {
		case e := <-events:
			seen[e.Name] = true
		case <-timeout:
			t.Fatalf("events: %v", seen)
		}
	}
}

func check(t *testing.T, call string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", call, err)
	}
}

func isNotFound(err error) bool {
	api, ok := err.(*gomarathon.APIError)
	return ok && api.ErrCode == gomarathon.ErrCodeNotFound
}
