package convert

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

func diff(t *testing.T, what string, want, got any) {
	t.Helper()
	if d := cmp.Diff(want, got, protocmp.Transform()); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

// wire sends a message through its bytes, which also checks required fields.
func wire[T proto.Message](t *testing.T, in, out T) T {
	t.Helper()
	b, err := proto.Marshal(in)
	if err == nil {
		err = proto.Unmarshal(b, out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func parse(t *testing.T, text string) resources.Resources {
	t.Helper()
	r, err := resources.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func fullSpec(t *testing.T) task.Spec {
	return task.Spec{
		Key: task.Key{Framework: "f1", ID: "web.1"}, Name: "web", Resources: parse(t, "cpus:0.1;mem:32").Allocated("web"),
		Limits: resources.NewScalars(resources.Scalar{Name: "cpus", Amount: 1500}),
		Image:  "web:1", ForcePull: true, Command: task.Command{Value: "/web", Args: []string{"-v", "x"}},
		Env: []task.Label{{Key: "A", Value: "1"}, {Key: "A", Value: "2"}}, User: "nobody", Hostname: "web-1", TTY: true,
		Network: task.Network{Mode: task.NetworkUser, Name: "dcn"},
		Ports:   []task.Port{{Container: 80, Host: 31000, Protocol: "tcp"}, {Container: 53, Protocol: "udp"}},
		Volumes: []task.Volume{
			{Container: "/data", Name: "data", Driver: "local", Options: []task.Label{{Key: "o", Value: "v"}}, ReadOnly: true},
			{Container: "/host", Host: "/srv"},
		},
		Parameters: []task.Label{{Key: "label", Value: "a=b"}}, Privileged: true, Labels: []task.Label{{Key: "l", Value: "v"}},
		Discovery: &task.Discovery{Name: "web", Visibility: int32(mesosv1.DiscoveryInfo_CLUSTER), Ports: []task.Port{
			{Name: "http", Container: 80, Protocol: "tcp", Labels: []task.Label{{Key: "x", Value: "y"}}},
		}},
		Fetch:     []task.URI{{Value: "http://x/y", Output: "z", Executable: true, Extract: true, Cache: true}},
		KillGrace: new(7 * time.Second), MaxCompletion: time.Hour,
		Health: &task.HealthCheck{
			Type: task.CheckHTTP, Port: 80, Scheme: "http", Path: "/ok", Delay: time.Second, Interval: 2 * time.Second,
			Timeout: 3 * time.Second, Grace: 4 * time.Second, Failures: 5,
		},
	}
}

func TestSpecRoundTrip(t *testing.T) {
	change := func(f func(*task.Spec)) task.Spec {
		s := fullSpec(t)
		f(&s)
		return s
	}
	for name, s := range map[string]task.Spec{
		"full": fullSpec(t),
		"shell": change(func(s *task.Spec) {
			s.Command = task.Command{Shell: true, Value: "echo $A"}
		}),
		"the image's own command": change(func(s *task.Spec) { s.Command = task.Command{} }),
		"arguments only":          change(func(s *task.Spec) { s.Command = task.Command{Args: []string{"a"}} }),
		"host network":            change(func(s *task.Spec) { s.Network = task.Network{Mode: task.NetworkHost} }),
		"no network":              change(func(s *task.Spec) { s.Network = task.Network{Mode: task.NetworkNone} }),
		"bridge":                  change(func(s *task.Spec) { s.Network = task.Network{Mode: task.NetworkBridge} }),
		"grace of nothing":        change(func(s *task.Spec) { s.KillGrace = new(time.Duration(0)) }),
		"tcp check": change(func(s *task.Spec) {
			s.Health = &task.HealthCheck{Type: task.CheckTCP, Port: 81, Failures: 1}
		}),
		"command check": change(func(s *task.Spec) {
			s.Health = &task.HealthCheck{Type: task.CheckCommand, Command: task.Command{Shell: true, Value: "true"}}
		}),
		"a check": change(func(s *task.Spec) {
			s.Check = &task.HealthCheck{Type: task.CheckHTTP, Port: 80, Path: "/x", Delay: time.Second, Interval: 2 * time.Second, Timeout: 3 * time.Second}
		}),
		"a check of a port": change(func(s *task.Spec) { s.Check = &task.HealthCheck{Type: task.CheckTCP, Port: 80} }),
		"a check by command": change(func(s *task.Spec) {
			s.Check = &task.HealthCheck{Type: task.CheckCommand, Command: task.Command{Value: "a", Args: []string{"b"}}, User: "me", Env: []task.Label{{Key: "A", Value: "1"}}}
		}),
		"a check of an IPv6 address": change(func(s *task.Spec) {
			s.Health = &task.HealthCheck{Type: task.CheckTCP, Port: 81, Failures: 1, IPv6: true}
		}),
		"no container": {Key: task.Key{Framework: "f1", ID: "t"}, Name: "n", Resources: parse(t, "cpus:1"), Command: task.Command{Shell: true, Value: "true"}},
	} {
		t.Run(name, func(t *testing.T) {
			info := wire(t, TaskInfo(&s, "a1"), &mesosv1.TaskInfo{})
			if info.GetAgentId().GetValue() != "a1" {
				t.Errorf("agent %q", info.GetAgentId().GetValue())
			}
			got, err := Spec("f1", info)
			if err != nil {
				t.Fatal(err)
			}
			diff(t, "spec", s, got)
		})
	}
}

func TestSpecDefaults(t *testing.T) {
	docker := func(d *mesosv1.ContainerInfo_DockerInfo) *mesosv1.TaskInfo {
		return &mesosv1.TaskInfo{Container: &mesosv1.ContainerInfo{Type: mesosv1.ContainerInfo_DOCKER.Enum(), Docker: d}}
	}
	for name, x := range map[string]struct {
		in   *mesosv1.TaskInfo
		want func(task.Spec) bool
	}{
		"a network that is not named is the cluster's": {
			docker(&mesosv1.ContainerInfo_DockerInfo{Image: new("x")}),
			func(s task.Spec) bool { return s.Network.Mode == task.NetworkDefault },
		},
		"a command is a shell line": {
			&mesosv1.TaskInfo{Command: &mesosv1.CommandInfo{Value: new("a")}},
			func(s task.Spec) bool { return s.Command.Shell },
		},
		"no command, no shell": {
			&mesosv1.TaskInfo{Command: &mesosv1.CommandInfo{}},
			func(s task.Spec) bool { return !s.Command.Shell },
		},
		"an infinite limit": {
			&mesosv1.TaskInfo{Limits: map[string]*mesosv1.Value_Scalar{"mem": {Value: new(math.Inf(1))}}},
			func(s task.Spec) bool { return s.Limits.Get("mem") == resources.MaxMilli },
		},
		"the volume driver makes names of host paths": {
			&mesosv1.TaskInfo{Container: &mesosv1.ContainerInfo{
				Type: mesosv1.ContainerInfo_DOCKER.Enum(), Docker: &mesosv1.ContainerInfo_DockerInfo{Image: new("x"), VolumeDriver: new("rexray")},
				Volumes: []*mesosv1.Volume{{ContainerPath: new("/d"), HostPath: new("vol"), Mode: mesosv1.Volume_RW.Enum()}},
			}},
			func(s task.Spec) bool {
				return s.Volumes[0].Name == "vol" && s.Volumes[0].Driver == "rexray" && s.Volumes[0].Host == ""
			},
		},
		"an image of the other containerizer": {
			&mesosv1.TaskInfo{Container: &mesosv1.ContainerInfo{
				Type: mesosv1.ContainerInfo_MESOS.Enum(), NetworkInfos: []*mesosv1.NetworkInfo{{Name: new("dcn"), PortMappings: []*mesosv1.NetworkInfo_PortMapping{{HostPort: new(uint32(1)), ContainerPort: new(uint32(2))}}}},
				Mesos: &mesosv1.ContainerInfo_MesosInfo{Image: &mesosv1.Image{Type: mesosv1.Image_DOCKER.Enum(), Docker: &mesosv1.Image_Docker{Name: new("y")}}},
			}},
			func(s task.Spec) bool {
				return s.Image == "y" && s.Network.Mode == task.NetworkUser && s.Ports[0].Container == 2
			},
		},
		"an image that must be new, with credentials": {
			&mesosv1.TaskInfo{Container: &mesosv1.ContainerInfo{
				Type: mesosv1.ContainerInfo_MESOS.Enum(),
				Mesos: &mesosv1.ContainerInfo_MesosInfo{Image: &mesosv1.Image{
					Type: mesosv1.Image_DOCKER.Enum(), Cached: new(false),
					Docker: &mesosv1.Image_Docker{Name: new("y"), Config: &mesosv1.Secret{Type: mesosv1.Secret_VALUE.Enum(), Value: &mesosv1.Secret_Value{Data: []byte("{}")}}},
				}},
			}},
			func(s task.Spec) bool { return s.ForcePull && string(s.PullConfig) == "{}" },
		},
		"health defaults": {
			&mesosv1.TaskInfo{HealthCheck: &mesosv1.HealthCheck{Type: mesosv1.HealthCheck_TCP.Enum(), Tcp: &mesosv1.HealthCheck_TCPCheckInfo{Port: new(uint32(1))}}},
			func(s task.Spec) bool {
				return s.Health.Delay == 15*time.Second && s.Health.Interval == 10*time.Second && s.Health.Timeout == 20*time.Second &&
					s.Health.Failures == 3 && s.Health.Grace == 10*time.Second
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Spec("f1", x.in)
			if err != nil || !x.want(got) {
				t.Errorf("spec %+v, error %v", got, err)
			}
		})
	}
}

func TestSpecRefuses(t *testing.T) {
	volume := func(v *mesosv1.Volume) *mesosv1.TaskInfo {
		return &mesosv1.TaskInfo{Container: &mesosv1.ContainerInfo{Type: mesosv1.ContainerInfo_DOCKER.Enum(), Volumes: []*mesosv1.Volume{v}}}
	}
	for want, in := range map[string]*mesosv1.TaskInfo{
		"volume 0 (/x): host path or":   volume(&mesosv1.Volume{ContainerPath: new("/x")}),
		"SANDBOX_PATH are not":          volume(&mesosv1.Volume{ContainerPath: new("/x"), Source: &mesosv1.Volume_Source{Type: mesosv1.Volume_Source_SANDBOX_PATH.Enum()}}),
		"limit of mem":                  {Limits: map[string]*mesosv1.Value_Scalar{"mem": {Value: new(-1.0)}}},
		"resource 0 (cpus)":             {Resources: []*mesosv1.Resource{{Name: new("cpus"), Type: mesosv1.Value_SCALAR.Enum()}}},
		"resource 0 (): the name":       {Resources: []*mesosv1.Resource{{Name: new("")}}},
		"type TEXT cannot be an amount": {Resources: []*mesosv1.Resource{{Name: new("x"), Type: mesosv1.Value_TEXT.Enum()}}},
		"resource 0 (mem)":              {Resources: []*mesosv1.Resource{{Name: new("mem"), Type: mesosv1.Value_SCALAR.Enum(), Scalar: &mesosv1.Value_Scalar{Value: new(math.NaN())}}}},
	} {
		if _, err := Spec("f1", in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

// Old frameworks name no type of a health check: what is there tells it.
func TestHealthCheckWithoutType(t *testing.T) {
	for want, in := range map[task.CheckType]*mesosv1.HealthCheck{
		task.CheckHTTP:    {Http: &mesosv1.HealthCheck_HTTPCheckInfo{Port: new(uint32(80))}},
		task.CheckTCP:     {Tcp: &mesosv1.HealthCheck_TCPCheckInfo{Port: new(uint32(80))}},
		task.CheckCommand: {Command: &mesosv1.CommandInfo{Value: new("true")}},
	} {
		s, err := Spec("f1", &mesosv1.TaskInfo{HealthCheck: in})
		if err != nil || s.Health.Type != want {
			t.Fatalf("error %v, check %+v, want type %v", err, s.Health, want)
		}
		h := s.Health
		if h.Delay != 15*time.Second || h.Interval != 10*time.Second || h.Timeout != 20*time.Second || h.Grace != 10*time.Second || h.Failures != 3 {
			t.Errorf("defaults: %+v", h)
		}
	}
}

func markedResources(t *testing.T) resources.Resources {
	out := parse(t, "cpus:0.1;mem:32;ports:[31000-31005,31010-31010];zones:{a,b}")
	static := parse(t, "cpus:2")[0]
	static.Reservations = []resources.Reservation{{Role: "db"}}
	dynamic := parse(t, "mem:64")[0]
	dynamic.Role = "web"
	dynamic.Reservations = []resources.Reservation{{Dynamic: true, Role: "web", Principal: "ops", Labels: []resources.Label{{Key: "k", Value: "v"}}}}
	disk := parse(t, "disk:10")[0]
	disk.Reservations = []resources.Reservation{{Dynamic: true, Role: "web"}}
	disk.Disk = &resources.Disk{PersistenceID: "p1", Principal: "ops", ContainerPath: "data", ReadOnly: true}
	source, err := proto.MarshalOptions{Deterministic: true}.Marshal(&mesosv1.Resource_DiskInfo_Source{
		Type: mesosv1.Resource_DiskInfo_Source_MOUNT.Enum(), Mount: &mesosv1.Resource_DiskInfo_Source_Mount{Root: new("/mnt")},
	})
	if err != nil {
		t.Fatal(err)
	}
	mount := parse(t, "disk:20")[0]
	mount.Disk = &resources.Disk{Source: string(source)}
	other := parse(t, "gpus:1")[0]
	other.Provider, other.Revocable, other.Shared = "rp", true, true
	return append(out, static, dynamic, disk, mount, other)
}

func TestResourcesInThreeFormats(t *testing.T) {
	refined := parse(t, "cpus:1")[0]
	refined.Reservations = []resources.Reservation{{Role: "web"}, {Dynamic: true, Role: "web/a"}}
	for format, name := range map[Format]string{Stack: "stack", Role: "role", Both: "both"} {
		t.Run(name, func(t *testing.T) {
			in := append(markedResources(t), refined)
			list := ResourcesTo(in, format)
			for i, r := range list {
				list[i] = wire(t, r, &mesosv1.Resource{})
				if stack, role := len(list[i].Reservations) > 0, list[i].Role != nil; stack && format == Role || role && format == Stack || !role && format != Stack {
					t.Errorf("not in the format: %v", list[i])
				}
			}
			got, err := Resources(list)
			if err != nil {
				t.Fatal(err)
			}
			want := in
			if format == Role {
				want = in[:len(in)-1] // a refinement cannot be written so
			}
			if !got.Equal(want) || len(got) != len(want) {
				t.Errorf("got  %v\nwant %v", got, want)
			}
		})
	}
}

func TestStatusRoundTrip(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC)
	for name, s := range map[string]task.Status{
		"full": {
			State: task.Running, Source: task.SourceExecutor, Reason: task.ReasonHealthCheckStatus, Message: "m", Time: at, UUID: task.UUID{1, 15: 2},
			Healthy: new(false), Data: []byte("[{}]"), Container: &task.ContainerStatus{
				ID: "c", Addresses: []string{"10.0.0.1", "fd00::1"}, Network: "net", PublishIP: "127.0.0.1",
				Ports: []task.Port{{Container: 80, Host: 31000, Protocol: "tcp"}},
			},
		},
		"bare":               {State: task.Lost},
		"without an address": {State: task.Starting, Time: at, Container: &task.ContainerStatus{ID: "c"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := wire(t, TaskStatus("t", "a", &s), &mesosv1.TaskStatus{})
			if m.GetTaskId().GetValue() != "t" || m.GetAgentId().GetValue() != "a" {
				t.Errorf("message: %v", m)
			}
			diff(t, "status", s, Status(m))
		})
	}
	if m := TaskStatus("t", "", &task.Status{}); m.AgentId != nil || m.Uuid != nil || m.Message != nil || m.Reason != nil {
		t.Errorf("what is not known is set: %v", m)
	}
}

// Every state and reason of ours is one of Mesos'.
func TestNames(t *testing.T) {
	for s := task.Starting; s <= task.Unknown; s++ {
		if got := mesosv1.TaskState(s).String(); got != s.String() {
			t.Errorf("state %d is %s, Mesos' is %s", s, s, got)
		}
	}
	for _, r := range []task.Reason{
		task.ReasonContainerLaunchFailed, task.ReasonExecutorTerminated, task.ReasonFrameworkRemoved, task.ReasonHealthCheckStatus,
		task.ReasonInvalidOffers, task.ReasonKilledDuringLaunch, task.ReasonMaxCompletionTime, task.ReasonReconciliation,
		task.ReasonAgentDisconnected, task.ReasonAgentRemoved, task.ReasonAgentRemovedByOperator, task.ReasonAgentReregistered,
		task.ReasonAgentRestarted, task.ReasonTaskGroupInvalid, task.ReasonTaskInvalid,
	} {
		if m := TaskStatus("t", "", &task.Status{Reason: r}); m.Reason == nil || Status(m).Reason != r {
			t.Errorf("reason %s is not in mesos.proto", r)
		}
	}
}

func TestTimes(t *testing.T) {
	if Seconds(time.Time{}) != 0 || !Time(0).IsZero() {
		t.Error("no time is not no time")
	}
	at := time.Date(2026, 11, 20, 14, 33, 9, 123456000, time.UTC)
	if got := Time(Seconds(at)); !got.Equal(at) {
		t.Errorf("%v becomes %v", at, got)
	}
}

func TestHas(t *testing.T) {
	f := &mesosv1.FrameworkInfo{Capabilities: []*mesosv1.FrameworkInfo_Capability{{Type: mesosv1.FrameworkInfo_Capability_MULTI_ROLE.Enum()}}}
	if !Has(f, mesosv1.FrameworkInfo_Capability_MULTI_ROLE) || Has(f, mesosv1.FrameworkInfo_Capability_PARTITION_AWARE) || Has(nil, mesosv1.FrameworkInfo_Capability_MULTI_ROLE) {
		t.Error("capabilities are misread")
	}
}

// TestResourcesShared: equal lists are one value, and lists that differ in
// anything are not.
func TestResourcesShared(t *testing.T) {
	scalar := func(change func(*mesosv1.Resource)) []*mesosv1.Resource {
		r := &mesosv1.Resource{
			Name: new("cpus"), Type: mesosv1.Value_SCALAR.Enum(), Scalar: &mesosv1.Value_Scalar{Value: new(2.0)}, Role: new("*"),
			AllocationInfo: &mesosv1.Resource_AllocationInfo{Role: new("dev")},
		}
		change(r)
		return []*mesosv1.Resource{r}
	}
	same := func(*mesosv1.Resource) {}
	a, err := Resources(scalar(same))
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := Resources(scalar(same)); &a[0] != &b[0] {
		t.Error("two equal lists are kept twice")
	}
	for name, change := range map[string]func(*mesosv1.Resource){
		"amount":     func(r *mesosv1.Resource) { r.Scalar.Value = new(3.0) },
		"name":       func(r *mesosv1.Resource) { r.Name = new("mem") },
		"allocation": func(r *mesosv1.Resource) { r.AllocationInfo.Role = new("prod") },
		"role":       func(r *mesosv1.Resource) { r.Role = new("prod") },
		"revocable":  func(r *mesosv1.Resource) { r.Revocable = &mesosv1.Resource_RevocableInfo{} },
		"shared":     func(r *mesosv1.Resource) { r.Shared = &mesosv1.Resource_SharedInfo{} },
		"provider":   func(r *mesosv1.Resource) { r.ProviderId = &mesosv1.ResourceProviderID{Value: new("p")} },
		"disk": func(r *mesosv1.Resource) {
			r.Disk = &mesosv1.Resource_DiskInfo{Persistence: &mesosv1.Resource_DiskInfo_Persistence{Id: new("v"), Principal: new("p")}}
		},
	} {
		b, err := Resources(scalar(change))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if a.Equal(b) {
			t.Errorf("%s: %v and %v are taken for the same", name, a, b)
		}
	}
}

func TestCheckStatusRoundTrip(t *testing.T) {
	for _, kind := range []task.CheckType{task.CheckCommand, task.CheckHTTP, task.CheckTCP} {
		for _, value := range []*int32{nil, new(int32(0)), new(int32(1))} {
			s := task.Status{State: task.Running, Check: &task.CheckStatus{Type: kind, Value: value}}
			m := wire(t, TaskStatus("t", "", &s), &mesosv1.TaskStatus{})
			set := map[task.CheckType]bool{
				task.CheckCommand: m.CheckStatus.Command != nil, task.CheckHTTP: m.CheckStatus.Http != nil, task.CheckTCP: m.CheckStatus.Tcp != nil,
			}
			for k, is := range set {
				if is != (k == kind) {
					t.Errorf("%v: the part of %v is set: %v", kind, k, is)
				}
			}
			diff(t, "status", s.Check, Status(m).Check)
		}
	}
}

func TestLinuxBecomesFlags(t *testing.T) {
	in := &mesosv1.TaskInfo{Container: &mesosv1.ContainerInfo{
		Type: mesosv1.ContainerInfo_MESOS.Enum(),
		NetworkInfos: []*mesosv1.NetworkInfo{{Name: new("net"), IpAddresses: []*mesosv1.NetworkInfo_IPAddress{
			{Protocol: mesosv1.NetworkInfo_IPv4.Enum()}, {IpAddress: new("10.0.0.9")},
		}}},
		RlimitInfo: &mesosv1.RLimitInfo{Rlimits: []*mesosv1.RLimitInfo_RLimit{
			{Type: mesosv1.RLimitInfo_RLimit_RLMT_NOFILE.Enum(), Soft: new(uint64(1)), Hard: new(uint64(2))}, {Type: mesosv1.RLimitInfo_RLimit_RLMT_CORE.Enum()},
		}},
		LinuxInfo: &mesosv1.LinuxInfo{
			ShmSize: new(uint32(64)), Seccomp: &mesosv1.SeccompInfo{Unconfined: new(true)},
			EffectiveCapabilities: &mesosv1.CapabilityInfo{Capabilities: []mesosv1.CapabilityInfo_Capability{mesosv1.CapabilityInfo_CHOWN, mesosv1.CapabilityInfo_KILL}},
			BoundingCapabilities:  &mesosv1.CapabilityInfo{Capabilities: []mesosv1.CapabilityInfo_Capability{mesosv1.CapabilityInfo_SETGID}},
		},
	}}
	got, err := Spec("f1", in)
	if err != nil {
		t.Fatal(err)
	}
	var flags []string
	for _, p := range got.Parameters {
		flags = append(flags, p.Key+"="+p.Value)
	}
	diff(t, "flags", []string{
		"ulimit=nofile=1:2", "ulimit=core=-1:-1", "security-opt=seccomp=unconfined", "shm-size=64m", "cap-drop=ALL", "cap-add=CHOWN", "cap-add=KILL", "ip=10.0.0.9",
	}, flags)
}

func TestSecretsByValue(t *testing.T) {
	in := &mesosv1.TaskInfo{Command: &mesosv1.CommandInfo{Environment: &mesosv1.Environment{Variables: []*mesosv1.Environment_Variable{{
		Name: new("PW"), Type: mesosv1.Environment_Variable_SECRET.Enum(),
		Secret: &mesosv1.Secret{Type: mesosv1.Secret_VALUE.Enum(), Value: &mesosv1.Secret_Value{Data: []byte("x")}},
	}}}}}
	got, err := Spec("f1", in)
	if err != nil || len(got.Env) != 1 || got.Env[0] != (task.Label{Key: "PW", Value: "x"}) {
		t.Errorf("environment %v, error %v", got.Env, err)
	}
}
