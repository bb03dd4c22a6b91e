package marathon

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

const wholePod = `{"id":"/g/pod","labels":{"l":"v"},"user":"u","environment":{"A":"pod","B":"pod"},
	"containers":[
		{"name":"web","image":{"kind":"DOCKER","id":"nginx","forcePull":true},"exec":{"command":{"argv":["/bin/x","y"]}},"resources":{"cpus":0.5,"mem":64},
		 "endpoints":[{"name":"http","containerPort":80,"hostPort":0,"protocol":["http"]},{"name":"admin","containerPort":0}],"environment":{"B":"own"},
		 "healthCheck":{"http":{"endpoint":"http","path":"/h"},"maxConsecutiveFailures":2},"volumeMounts":[{"name":"shared","mountPath":"data","readOnly":true}],
		 "artifacts":[{"uri":"u","extract":false}],"lifecycle":{"killGracePeriodSeconds":7}},
		{"name":"side","exec":{"command":{"shell":"sleep 1"}},"resources":{"cpus":0.1,"mem":32}}],
	"volumes":[{"name":"shared"}],"networks":[{"mode":"container","name":"dcn"}],"scaling":{"kind":"fixed","instances":3},
	"scheduling":{"backoff":{"backoff":2,"backoffFactor":2,"maxLaunchDelay":60},"upgrade":{"minimumHealthCapacity":0.5,"maximumOverCapacity":0},
		"placement":{"constraints":[{"fieldName":"rack","operator":"LIKE","value":"a.*"}]},"killSelection":"Oldest_First","unreachableStrategy":"disabled"}}`

func mustReadPod(t tb, text string) *App {
	t.Helper()
	a, err := ReadPod([]byte(text), "*")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// wantPodRoundTrip: what is shown of a pod can be put again and changes nothing.
func wantPodRoundTrip(t *testing.T, a *App) {
	t.Helper()
	text, err := json.Marshal(a.PodDefinition())
	if err != nil {
		t.Fatal(err)
	}
	if again := mustReadPod(t, string(text)); !sameConfig(a, again) || again.Instances != a.Instances {
		t.Errorf("%s: %s", text, cmp.Diff(a, again))
	}
}

func TestReadPod(t *testing.T) {
	a := mustReadPod(t, wholePod)
	if a.Instances != 3 || a.BackoffSeconds != 2 || a.Upgrade.MinimumHealthCapacity != 0.5 || a.KillSelect != "OLDEST_FIRST" || !a.Unreachable.Disabled ||
		!slices.Equal(a.Constraints[0], []string{"rack", "LIKE", "a.*"}) || a.CPUs != 0.7 || a.Mem != 128 || a.Disk != 10 {
		t.Errorf("%+v", a)
	}
	wantPodRoundTrip(t, a)
}

func TestPodProblems(t *testing.T) {
	for change, where := range map[[2]string]string{
		{`"/g/pod"`, `"/G"`}:                                                   "/id",
		{`"name":"side"`, `"name":"web"`}:                                      "/containers(1)/name",
		{`"name":"side"`, `"name":"a b"`}:                                      "/containers(1)/name",
		{`"cpus":0.1`, `"cpus":-1`}:                                            "/containers(1)/resources/cpus",
		{`"DOCKER"`, `"APPC"`}:                                                 "/containers(0)/image/kind",
		{`"shell":"sleep 1"`, `"shell":""`}:                                    "/containers(1)/exec/command",
		{`"name":"admin"`, `"name":"http"`}:                                    "/containers(0)/endpoints(1)/name",
		{`"containerPort":80`, `"containerPort":1e6`}:                          "/containers(0)/endpoints(0)/containerPort",
		{`"endpoint":"http"`, `"endpoint":"none"`}:                             "/containers(0)/healthCheck",
		{`"path":"/h"`, `"path":"h"`}:                                          "/containers(0)/healthCheck/http/path",
		{`[{"name":"shared"}]`, `[]`}:                                          "/containers(0)/volumeMounts(0)/name",
		{`[{"name":"shared"}]`, `[{"name":"shared","persistent":{"size":1}}]`}: "/volumes(0)/persistent",
		{`[{"name":"shared"}]`, `[{"name":"shared","secret":"x"}]`}:            "/volumes(0)/secret",
		{`"mode":"container"`, `"mode":"x"`}:                                   "/networks(0)/mode",
		{`"instances":3`, `"instances":-3`}:                                    "/scaling/instances",
		{`"minimumHealthCapacity":0.5`, `"minimumHealthCapacity":2`}:           "/upgradeStrategy/minimumHealthCapacity",
		{`"LIKE"`, `"LOVE"`}:                                                   "/scheduling/placement/constraints(0)",
		{`"B":"own"`, `"B":{"secret":"none"}`}:                                 "/containers(0)/environment/B",
		{`"A":"pod"`, `"A":{"secret":"none"}`}:                                 "/environment/A",
		{`"name":"web","image"`, `"name":7,"image"`}:                           "/containers(0)/name",
	} {
		_, err := ReadPod([]byte(strings.Replace(wholePod, change[0], change[1], 1)), "*")
		var bad *BadDefinition
		if !errors.As(err, &bad) || !slices.ContainsFunc(bad.Problems, func(p Problem) bool { return p.Path == where }) {
			t.Errorf("%s: %v, want a problem at %s", change[1], err, where)
		}
	}
}

func TestPodGroup(t *testing.T) {
	a := mustReadPod(t, wholePod)
	i := &Instance{ID: "g_pod.instance-1", TaskID: "g_pod.instance-1", Host: "h", Version: "v1", Role: "*"}
	i.Parts = a.parts(i)
	offer, err := resources.Parse("cpus:9;mem:9999;disk:99")
	if err != nil {
		t.Fatal(err)
	}
	part, lacking := a.take(offer, a.amounts(), "*")
	if lacking != "" {
		t.Fatal(lacking)
	}
	g := a.group(i, part, nil)
	if g.Pod.Pod != i.ID || g.Pod.Resources.Scalars().String() != "cpus:0.1; disk:10; mem:32" || g.Pod.Network.Name != "dcn" || len(g.Pod.Ports) != 2 ||
		g.Pod.Ports[0].Protocol != "tcp" || g.Pod.Ports[1].Container != 31001 {
		t.Errorf("the pod: %+v", g.Pod)
	}
	web, side := g.Tasks[0], g.Tasks[1]
	env := map[string]string{}
	for _, e := range web.Env {
		env[e.Key] = e.Value
	}
	want := map[string]string{
		"A": "pod", "B": "own", "HOST": "h", "MARATHON_APP_ID": "/g/pod", "MARATHON_APP_VERSION": "v1", "MARATHON_APP_DOCKER_IMAGE": "nginx",
		"MARATHON_APP_LABELS": "L", "MARATHON_APP_LABEL_L": "v", "MARATHON_CONTAINER_ID": "web", "MARATHON_CONTAINER_RESOURCE_CPUS": "0.5",
		"MARATHON_CONTAINER_RESOURCE_MEM": "64.0", "MARATHON_CONTAINER_RESOURCE_DISK": "0.0", "MARATHON_CONTAINER_RESOURCE_GPUS": "0",
		"MESOS_TASK_ID": "g_pod.instance-1.web.1", "MESOS_EXECUTOR_ID": "g_pod.instance-1", "ENDPOINT_HTTP": "80", "EP_HOST_HTTP": "80", "EP_CONTAINER_HTTP": "80",
		"ENDPOINT_ADMIN": "31001", "EP_CONTAINER_ADMIN": "31001",
	}
	if diff := cmp.Diff(want, env); diff != "" {
		t.Error(diff)
	}
	if web.Key.ID != "g_pod.instance-1.web.1" || web.Image != "nginx" || !web.ForcePull || web.Command.Value != "/bin/x" || web.Command.Args[0] != "y" || web.User != "u" ||
		web.Health.Port != 80 || web.Health.Failures != 2 || *web.KillGrace != 7*time.Second || web.Fetch[0].Extract || web.Volumes[0].Sandbox != "shared" || !web.Volumes[0].ReadOnly {
		t.Errorf("web: %+v", web)
	}
	if !side.Command.Shell || side.Resources.Scalars().String() != "cpus:0.1; mem:32" {
		t.Errorf("side: %+v", side)
	}
}

func (w *world) parts(pod string) []*Part {
	v, _ := w.core.App(w.now, pod)
	if len(v.Instances) != 1 {
		w.t.Fatalf("%d instances", len(v.Instances))
	}
	return v.Instances[0].Parts
}

// A container that fails takes its instance with it, and another comes; one that
// finishes leaves the others.
func TestPodContainersEnd(t *testing.T) {
	w := started(t, definePod(t, "/p", ""))
	w.run(time.Minute)
	w.wantRunning("/p", 1)
	first := w.parts("/p")
	w.report(first[0].TaskID, task.Finished)
	w.run(time.Minute)
	w.wantRunning("/p", 1)
	if got := w.parts("/p"); got[1].TaskID != first[1].TaskID || got[0].State != task.Finished {
		t.Errorf("after one has finished: %+v", got)
	}
	w.report(first[1].TaskID, task.Failed)
	w.run(time.Minute)
	w.wantRunning("/p", 1)
	if got := w.parts("/p"); got[1].TaskID == first[1].TaskID || w.core.apps["/p"].failure == nil {
		t.Errorf("after one has failed: %+v", got)
	}
}

// An instance is well when all its checked containers are.
func TestPodHealth(t *testing.T) {
	def := definePod(t, "/p", "")
	check := &PodExec{}
	check.Command.Argv = []string{"x"}
	def.Pod.Containers[0].HealthCheck = &PodCheck{Exec: check}
	w := started(t, def)
	w.run(time.Minute)
	v, _ := w.core.App(w.now, "/p")
	if v.Healthy+v.Unhealthy != 0 || len(w.core.Deployments()) != 1 {
		t.Fatalf("before a result: %+v", v)
	}
	i := v.Instances[0]
	for _, well := range []bool{true, false} {
		w.must(Updated{TaskID: i.Parts[0].TaskID, Agent: i.Agent, Status: task.Status{State: task.Running, Healthy: &well}})
		v, _ = w.core.App(w.now, "/p")
		if (v.Healthy == 1) != well || len(w.core.Deployments()) != 0 {
			t.Errorf("well %v: %+v", well, v)
		}
	}
}

// TestCheckedContainerFinishes: what has come to its end is not waited for.
func TestCheckedContainerFinishes(t *testing.T) {
	def := definePod(t, "/p", "")
	check := &PodExec{}
	check.Command.Argv = []string{"x"}
	def.Pod.Containers[0].HealthCheck = &PodCheck{Exec: check}
	w := started(t, def)
	w.report(w.parts("/p")[0].TaskID, task.Finished)
	w.run(time.Minute)
	w.wantRunning("/p", 1)
}

// TestPodHealthAfterARestart: what was known of a container's health before is
// not taken for true.
func TestPodHealthAfterARestart(t *testing.T) {
	def := definePod(t, "/p", "")
	check := &PodExec{}
	check.Command.Argv = []string{"x"}
	for n := range def.Pod.Containers {
		def.Pod.Containers[n].HealthCheck = &PodCheck{Exec: check}
	}
	w := started(t, def)
	i := w.core.apps["/p"].sorted()[0]
	tell := func(part int) {
		w.must(Updated{TaskID: i.Parts[part].TaskID, Agent: i.Agent, Status: task.Status{State: task.Running, Healthy: new(true)}})
	}
	tell(0)
	tell(1)
	w.commit(Save{Key: KeyInstance + i.TaskID, Value: i})
	w.crash()
	if tell(0); w.core.apps["/p"].tally.healthy != 0 {
		t.Error("healthy after one of two containers has said so")
	}
	if tell(1); w.core.apps["/p"].tally.healthy != 1 {
		t.Error("not healthy after both have said so")
	}
}

func TestPodsAndAppsDoNotMix(t *testing.T) {
	w := started(t, definePod(t, "/p", ""))
	if err := w.put(define(t, "/p", "")); err == nil {
		t.Error("an app took the place of a pod")
	}
	steps := w.core.ended[0].Steps
	text, _ := json.Marshal(steps)
	if want := `[[{"action":"StartPod","pod":"/p"}],[{"action":"ScalePod","pod":"/p"}]]`; string(text) != want {
		t.Errorf("steps %s", text)
	}
	var back [][]Action
	if err := json.Unmarshal(text, &back); err != nil || !cmp.Equal(back, steps) {
		t.Errorf("read again: %v %v", back, err)
	}
}

func TestPodCorpus(t *testing.T) {
	files, _ := filepath.Glob("../../shared/corpus/marathon-pods/*.json")
	if len(files) == 0 {
		t.Skip("the corpus of pod definitions is not there: ../../shared/corpus/marathon-pods")
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		a, err := ReadPod(text, "*")
		if err == nil {
			wantPodRoundTrip(t, a)
			continue
		}
		t.Logf("refused: %s: %v", filepath.Base(f), err)
		var bad *BadDefinition
		if !errors.As(err, &bad) || len(bad.Problems) == 0 || !strings.HasPrefix(bad.Problems[0].Path, "/") {
			t.Errorf("%s: %v tells its author nothing", f, err)
		}
	}
}

func FuzzReadPod(f *testing.F) {
	f.Add([]byte(wholePod))
	f.Add([]byte(`{"id":"p","containers":[null,{}],"volumes":[{}],"networks":[{},{}],"scheduling":{"backoff":{}},"scaling":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		a, err := ReadPod(text, "*")
		var bad *BadDefinition
		switch {
		case err != nil && (!errors.As(err, &bad) || err.Error() == ""):
			t.Errorf("%v", err)
		case err == nil:
			i := &Instance{ID: "i", Role: "*"}
			i.Parts = a.parts(i)
			a.group(i, nil, nil)
			wantPodRoundTrip(t, a)
		}
	})
}
