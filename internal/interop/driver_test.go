package interop

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/mesos/mesos-go/api/v0/auth"
	"github.com/mesos/mesos-go/api/v0/auth/sasl"
	_ "github.com/mesos/mesos-go/api/v0/auth/sasl/mech/crammd5"
	"github.com/mesos/mesos-go/api/v0/mesosproto"
	"github.com/mesos/mesos-go/api/v0/scheduler"
)

// drivenFramework is what the driver of mesos-go calls: the older scheduler API,
// over libprocess, with the messages from before there were calls.
type drivenFramework struct {
	registered, reregistered chan string
	offers                   chan *mesosproto.Offer
	updates                  chan *mesosproto.TaskStatus
	errors                   chan string
}

func (f *drivenFramework) Registered(_ scheduler.SchedulerDriver, id *mesosproto.FrameworkID, _ *mesosproto.MasterInfo) {
	f.registered <- id.GetValue()
}

func (f *drivenFramework) Reregistered(_ scheduler.SchedulerDriver, m *mesosproto.MasterInfo) {
	f.reregistered <- m.GetId()
}

func (f *drivenFramework) ResourceOffers(_ scheduler.SchedulerDriver, offers []*mesosproto.Offer) {
	for _, o := range offers {
		f.offers <- o
	}
}

func (f *drivenFramework) StatusUpdate(_ scheduler.SchedulerDriver, s *mesosproto.TaskStatus) {
	f.updates <- s
}

func (f *drivenFramework) Error(_ scheduler.SchedulerDriver, text string) { f.errors <- text }

func (*drivenFramework) Disconnected(scheduler.SchedulerDriver)                        {}
func (*drivenFramework) OfferRescinded(scheduler.SchedulerDriver, *mesosproto.OfferID) {}
func (*drivenFramework) SlaveLost(scheduler.SchedulerDriver, *mesosproto.SlaveID)      {}
func (*drivenFramework) FrameworkMessage(scheduler.SchedulerDriver, *mesosproto.ExecutorID, *mesosproto.SlaveID, string) {
}

func (*drivenFramework) ExecutorLost(scheduler.SchedulerDriver, *mesosproto.ExecutorID, *mesosproto.SlaveID, int) {
}

// drive starts a driver of a framework; id is "" for a new one.
func drive(t *testing.T, master, id string, credential *mesosproto.Credential) (*drivenFramework, *scheduler.MesosSchedulerDriver) {
	t.Helper()
	f := &drivenFramework{
		registered: make(chan string, 10), reregistered: make(chan string, 10), offers: make(chan *mesosproto.Offer, 1000),
		updates: make(chan *mesosproto.TaskStatus, 1000), errors: make(chan string, 10),
	}
	info := &mesosproto.FrameworkInfo{User: new("root"), Name: new("driven"), FailoverTimeout: new(3600.0), Checkpoint: new(true)}
	if id != "" {
		info.Id = &mesosproto.FrameworkID{Value: &id}
	}
	if credential != nil {
		info.Principal = credential.Principal
	}
	local := net.IPv4(127, 0, 0, 1)
	d, err := scheduler.NewMesosSchedulerDriver(scheduler.DriverConfig{
		Scheduler: f, Framework: info, Master: master, Credential: credential, BindingAddress: local,
		WithAuthContext: func(ctx context.Context) context.Context {
			return sasl.WithBindingAddress(auth.WithLoginProvider(ctx, sasl.ProviderName), local)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Abort() })
	return f, d
}

func next[T any](t *testing.T, what string, c <-chan T, errors <-chan string) T {
	t.Helper()
	var none T
	select {
	case got := <-c:
		return got
	case text := <-errors:
		t.Fatalf("waiting for %s: error %q", what, text)
	case <-time.After(patience):
		t.Fatalf("no %s came", what)
	}
	return none
}

func (f *drivenFramework) state(t *testing.T, id string, want mesosproto.TaskState) *mesosproto.TaskStatus {
	t.Helper()
	for {
		s := next(t, want.String(), f.updates, f.errors)
		if s.GetTaskId().GetValue() == id && s.GetState() == want {
			return s
		}
	}
}

func (f *drivenFramework) launch(t *testing.T, d *scheduler.MesosSchedulerDriver, id string) {
	t.Helper()
	o := next(t, "an offer", f.offers, f.errors)
	amount := func(name string, v float64) *mesosproto.Resource {
		return &mesosproto.Resource{Name: &name, Type: mesosproto.Value_SCALAR.Enum(), Scalar: &mesosproto.Value_Scalar{Value: &v}}
	}
	task := &mesosproto.TaskInfo{
		Name: &id, TaskId: &mesosproto.TaskID{Value: &id}, SlaveId: o.SlaveId, Command: &mesosproto.CommandInfo{Value: new("sleep infinity")},
		Container: &mesosproto.ContainerInfo{Type: mesosproto.ContainerInfo_DOCKER.Enum(), Docker: &mesosproto.ContainerInfo_DockerInfo{Image: new("web:1")}},
		Resources: []*mesosproto.Resource{amount("cpus", 0.1), amount("mem", 32)},
	}
	if _, err := d.LaunchTasks([]*mesosproto.OfferID{o.Id}, []*mesosproto.TaskInfo{task}, &mesosproto.Filters{RefuseSeconds: new(0.0)}); err != nil {
		t.Fatal(err)
	}
}

// TestMesosGoDriver has the driver of mesos-go v0 launch, reconcile and kill; then
// another one takes its framework over, before and after the master's restart.
func TestMesosGoDriver(t *testing.T) {
	master, restart := cluster(t)
	f, d := drive(t, master, "", nil)
	id := next(t, "registration", f.registered, f.errors)
	f.launch(t, d, "t1")
	running := f.state(t, "t1", mesosproto.TaskState_TASK_RUNNING)
	if len(running.Uuid) != 16 || running.GetContainerStatus() == nil {
		t.Errorf("status %v", running)
	}
	if _, err := d.ReconcileTasks(nil); err != nil {
		t.Fatal(err)
	}
	if s := f.state(t, "t1", mesosproto.TaskState_TASK_RUNNING); len(s.Uuid) > 0 {
		t.Errorf("a status of the master is to be acknowledged: %v", s)
	}
	if _, err := d.Stop(true); err != nil {
		t.Fatal(err)
	}
	f, d = drive(t, master, id, nil)
	if again := next(t, "registration", f.registered, f.errors); again != id {
		t.Fatalf("registered as %s, want %s", again, id)
	}
	f.launch(t, d, "t2")
	f.state(t, "t2", mesosproto.TaskState_TASK_RUNNING)
	if _, err := d.Stop(true); err != nil {
		t.Fatal(err)
	}
	restart()
	f, d = drive(t, master, id, nil)
	if again := next(t, "registration", f.registered, f.errors); again != id {
		t.Fatalf("registered as %s after the master's restart, want %s", again, id)
	}
	next(t, "an offer", f.offers, f.errors) // the agent is back, with its tasks
	for _, task := range []string{"t1", "t2"} {
		if _, err := d.KillTask(&mesosproto.TaskID{Value: &task}); err != nil {
			t.Fatal(err)
		}
		f.state(t, task, mesosproto.TaskState_TASK_KILLED)
	}
	if _, err := d.Stop(false); err != nil {
		t.Fatal(err)
	}
}

// TestMesosGoDriverAuthenticates has it prove who it is, or fail to.
func TestMesosGoDriverAuthenticates(t *testing.T) {
	at, file := port(t), filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(file, []byte(`{"credentials": [{"principal": "me", "secret": "s3cret"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "master", "--ip", "127.0.0.1", "--port", at, "--work-dir", t.TempDir(), "--credentials", file, "--authenticate-frameworks")
	await(t, "http://127.0.0.1:"+at+"/health")
	f, _ := drive(t, "127.0.0.1:"+at, "", &mesosproto.Credential{Principal: new("me"), Secret: new("s3cret")})
	next(t, "registration", f.registered, f.errors)
	stranger, _ := drive(t, "127.0.0.1:"+at, "", nil)
	next(t, "the refusal", stranger.errors, nil)
}
