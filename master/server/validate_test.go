package server

import (
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
)

func scalar(name string, v float64) *mesosv1.Resource {
	return &mesosv1.Resource{Name: &name, Type: mesosv1.Value_SCALAR.Enum(), Scalar: &mesosv1.Value_Scalar{Value: &v}}
}

func validTask() *mesosv1.TaskInfo {
	return &mesosv1.TaskInfo{
		Name: new("web"), TaskId: &mesosv1.TaskID{Value: new("web.1")}, AgentId: &mesosv1.AgentID{Value: new("a")},
		Resources: []*mesosv1.Resource{scalar("cpus", 1), scalar("mem", 64)}, Command: &mesosv1.CommandInfo{Value: new("true")},
		Container: &mesosv1.ContainerInfo{Type: mesosv1.ContainerInfo_DOCKER.Enum(), Docker: &mesosv1.ContainerInfo_DockerInfo{Image: new("web")}},
	}
}

func volumeOf(v *mesosv1.Volume) *mesosv1.Volume {
	v.ContainerPath, v.Mode = new("/data"), mesosv1.Volume_RW.Enum()
	return v
}

func TestTaskProblem(t *testing.T) {
	type task = *mesosv1.TaskInfo
	health := func(h *mesosv1.HealthCheck) func(task) { return func(t task) { t.HealthCheck = h } }
	check := func(c *mesosv1.CheckInfo) func(task) { return func(t task) { t.Check = c } }
	env := func(v *mesosv1.Environment_Variable) func(task) {
		v.Name = new("X")
		return func(t task) {
			t.Command.Environment = &mesosv1.Environment{Variables: []*mesosv1.Environment_Variable{v}}
		}
	}
	volume := func(v *mesosv1.Volume) func(task) {
		return func(t task) { t.Container.Volumes = []*mesosv1.Volume{volumeOf(v)} }
	}
	limit := func(name string, v float64) func(task) {
		return func(t task) { t.Limits = map[string]*mesosv1.Value_Scalar{name: {Value: &v}} }
	}
	persistent := func(r *mesosv1.Resource) *mesosv1.Resource {
		r.Disk = &mesosv1.Resource_DiskInfo{Persistence: &mesosv1.Resource_DiskInfo_Persistence{Id: new("v1")}}
		r.Reservations = []*mesosv1.Resource_ReservationInfo{{Role: new("db")}}
		return r
	}
	for _, x := range []struct {
		name   string
		change func(task)
		want   string
	}{
		{"nothing", func(task) {}, ""},
		{"empty ID", func(t task) { t.TaskId.Value = new("") }, "ID must not be empty"},
		{"long ID", func(t task) { t.TaskId.Value = new(strings.Repeat("x", 256)) }, "ID must not be greater than 255 characters"},
		{"longest ID", func(t task) { t.TaskId.Value = new(strings.Repeat("x", 255)) }, ""},
		{"dots", func(t task) { t.TaskId.Value = new("..") }, "'..' is disallowed"},
		{"slash", func(t task) { t.TaskId.Value = new("a/b") }, "'a/b' contains invalid characters"},
		{"backslash", func(t task) { t.TaskId.Value = new(`a\b`) }, `'a\b' contains invalid characters`},
		{"control character", func(t task) { t.TaskId.Value = new("a\x00") }, "'a\x00' contains invalid characters"},
		{"kill policy", func(t task) {
			t.KillPolicy = &mesosv1.KillPolicy{GracePeriod: &mesosv1.DurationInfo{Nanoseconds: new(int64(-1))}}
		}, "Task's 'kill_policy.grace_period' must be non-negative"},
		{"completion time", func(t task) { t.MaxCompletionTime = &mesosv1.DurationInfo{Nanoseconds: new(int64(-1))} }, "Task's `max_completion_time` must be non-negative"},
		{"check without type", check(&mesosv1.CheckInfo{}), "Task uses invalid check: CheckInfo must specify 'type'"},
		{"check without TCP", check(&mesosv1.CheckInfo{Type: mesosv1.CheckInfo_TCP.Enum()}), "Task uses invalid check: Expecting 'tcp' to be set for TCP check"},
		{"check without command", check(&mesosv1.CheckInfo{Type: mesosv1.CheckInfo_COMMAND.Enum()}), "Task uses invalid check: Expecting 'command' to be set for COMMAND check"},
		{"check with a time below 0", check(&mesosv1.CheckInfo{Type: mesosv1.CheckInfo_TCP.Enum(), Tcp: &mesosv1.CheckInfo_Tcp{}, TimeoutSeconds: new(-1.0)}), "Task uses invalid check: Expecting 'timeout_seconds' to be non-negative"},
		{"health without type", health(&mesosv1.HealthCheck{}), "Task uses invalid health check: HealthCheck must specify 'type'"},
		{"health of type unknown", health(&mesosv1.HealthCheck{Type: mesosv1.HealthCheck_UNKNOWN.Enum()}), "Task uses invalid health check: 'UNKNOWN' is not a valid health check type"},
		{"health without HTTP", health(&mesosv1.HealthCheck{Type: mesosv1.HealthCheck_HTTP.Enum()}), "Task uses invalid health check: Expecting 'http' to be set for HTTP health check"},
		{"health scheme", health(&mesosv1.HealthCheck{Type: mesosv1.HealthCheck_HTTP.Enum(), Http: &mesosv1.HealthCheck_HTTPCheckInfo{Scheme: new("ftp")}}), "Task uses invalid health check: Unsupported HTTP health check scheme: 'ftp'"},
		{"health path", health(&mesosv1.HealthCheck{Type: mesosv1.HealthCheck_HTTP.Enum(), Http: &mesosv1.HealthCheck_HTTPCheckInfo{Path: new("x")}}), "Task uses invalid health check: The path 'x' of HTTP health check must start with '/'"},
		{"health", health(&mesosv1.HealthCheck{Type: mesosv1.HealthCheck_TCP.Enum(), Tcp: &mesosv1.HealthCheck_TCPCheckInfo{}}), ""},
		{"health grace", health(&mesosv1.HealthCheck{Type: mesosv1.HealthCheck_TCP.Enum(), Tcp: &mesosv1.HealthCheck_TCPCheckInfo{}, GracePeriodSeconds: new(math.NaN())}), "Task uses invalid health check: Expecting 'grace_period_seconds' to be non-negative"},
		{"no resources", func(t task) { t.Resources = nil }, "Task uses no resources"},
		{"two roles", func(t task) { allocate(t.Resources[:1], "a"); allocate(t.Resources[1:], "b") }, "Task uses invalid resources: The resources have multiple allocation roles ('a' and 'b')"},
		{"half a GPU", func(t task) { t.Resources = append(t.Resources, scalar("gpus", 0.5)) }, "Task uses invalid resources: The 'gpus' resource must be an unsigned integer"},
		{"revocable and not", func(t task) {
			r := scalar("cpus", 1)
			r.Revocable = &mesosv1.Resource_RevocableInfo{}
			t.Resources = append(t.Resources, r)
		}, "Task uses invalid resources: Cannot use both revocable and non-revocable 'cpus' at the same time"},
		{"one volume twice", func(t task) {
			t.Resources = append(t.Resources, persistent(scalar("disk", 1)), persistent(scalar("disk", 1)))
		}, "Task uses invalid resources: Persistence ID 'v1' is not unique"},
		{"volume of nobody", func(t task) {
			r := persistent(scalar("disk", 1))
			r.Reservations = nil
			t.Resources = append(t.Resources, r)
		}, "Task uses invalid resources: Persistent volumes cannot be created from unreserved resources"},
		{"limit", limit("cpus", 2), ""},
		{"infinite limit", limit("mem", math.Inf(1)), ""},
		{"low limit", limit("cpus", 0.5), "Task's cpus limit 0.5 is less than its request 1"},
		{"limit of disk", limit("disk", 5), "Task resource limits are only allowed for 'cpus' and 'mem', not for 'disk'"},
		{"secret without one", env(&mesosv1.Environment_Variable{Type: mesosv1.Environment_Variable_SECRET.Enum()}), "Task's `CommandInfo` is invalid: Environment variable 'X' of type 'SECRET' must have a secret set"},
		{"value without one", env(&mesosv1.Environment_Variable{}), "Task's `CommandInfo` is invalid: Environment variable 'X' of type 'VALUE' must have a value set"},
		{"variable of type unknown", env(&mesosv1.Environment_Variable{Type: mesosv1.Environment_Variable_UNKNOWN.Enum()}), "Task's `CommandInfo` is invalid: Environment variable of type 'UNKNOWN' is not allowed"},
		{"no docker", func(t task) { t.Container.Docker = nil }, "Task's `ContainerInfo` is invalid: DockerInfo 'docker' is not set for DOCKER typed ContainerInfo"},
		{"own name", func(t task) {
			t.Container.Docker.Parameters = []*mesosv1.Parameter{{Key: new("name"), Value: new("x")}}
		}, "Task's `ContainerInfo` is invalid: Parameter in DockerInfo must not be 'name'"},
		{"volume", volume(&mesosv1.Volume{HostPath: new("/x")}), ""},
		{"volume of nothing", volume(&mesosv1.Volume{}), "Task's `ContainerInfo` is invalid: Invalid volume: Only one of them should be set: 'host_path', 'image' and 'source'"},
		{"volume source", volume(&mesosv1.Volume{Source: &mesosv1.Volume_Source{Type: mesosv1.Volume_Source_SECRET.Enum()}}), "Task's `ContainerInfo` is invalid: Invalid volume: 'source.secret' is not set for SECRET volume"},
		{"volume source of type unknown", volume(&mesosv1.Volume{Source: &mesosv1.Volume_Source{}}), "Task's `ContainerInfo` is invalid: Invalid volume: 'source.type' is unknown"},
		{"neither", func(t task) { t.Command = nil }, "Task should have at least one (but not both) of CommandInfo or ExecutorInfo present"},
		{"both", func(t task) { t.Executor = &mesosv1.ExecutorInfo{} }, "Task should have at least one (but not both) of CommandInfo or ExecutorInfo present"},
		{"executor", func(t task) {
			t.Executor, t.Command = &mesosv1.ExecutorInfo{ExecutorId: &mesosv1.ExecutorID{Value: new("e")}, Command: t.Command}, nil
		}, ""},
		{"executor without ID", func(t task) { t.Executor, t.Command = &mesosv1.ExecutorInfo{}, nil }, "Executor's ID is invalid: ID must not be empty"},
		{"executor without command", func(t task) {
			t.Executor, t.Command = &mesosv1.ExecutorInfo{Type: mesosv1.ExecutorInfo_CUSTOM.Enum(), ExecutorId: &mesosv1.ExecutorID{Value: new("e")}}, nil
		}, "'ExecutorInfo.command' must be set for 'CUSTOM' executor"},
		{"the first problem counts", func(t task) { t.TaskId.Value, t.Resources, t.Command = new("."), nil, nil }, "'.' is disallowed"},
	} {
		t.Run(x.name, func(t *testing.T) {
			info := validTask()
			x.change(info)
			if got := taskProblem(info, true); got != x.want && (x.want == "" || !strings.HasPrefix(got, x.want)) {
				t.Errorf("got  %q\nwant %q", got, x.want)
			}
		})
	}
	limited := validTask()
	limit("cpus", 2)(limited)
	if got := taskProblem(limited, false); !strings.Contains(got, "TASK_RESOURCE_LIMITS") {
		t.Errorf("limits on an agent that has none: %q", got)
	}
}

func TestFrameworkProblem(t *testing.T) {
	type framework = *mesosv1.FrameworkInfo
	multi := func(roles ...string) func(framework) {
		return func(f framework) {
			f.Roles = roles
			f.Capabilities = []*mesosv1.FrameworkInfo_Capability{{Type: mesosv1.FrameworkInfo_Capability_MULTI_ROLE.Enum()}}
		}
	}
	role := func(r string) func(framework) { return func(f framework) { f.Role = &r } }
	for _, x := range []struct {
		name       string
		change     func(framework)
		suppressed []string
		want       string
	}{
		{"no role", func(framework) {}, nil, ""},
		{"role", role("web/eu"), nil, ""},
		{"roles", multi("web", "*"), []string{"web"}, ""},
		{"roles of an old framework", func(f framework) { f.Roles = []string{"web"} }, nil, "'FrameworkInfo.roles' must not be set"},
		{"role of a new framework", func(f framework) { multi("web")(f); role("web")(f) }, nil, "'FrameworkInfo.role' must not be set"},
		{"the same twice", multi("a", "a"), nil, "'FrameworkInfo.roles' contains duplicate items: a"},
		{"empty", role(""), nil, "Empty role name is invalid"},
		{"leading slash", role("/a"), nil, "Role '/a' cannot start with a slash"},
		{"trailing slash", role("a/"), nil, "Role 'a/' cannot end with a slash"},
		{"two slashes", role("a//b"), nil, "Role 'a//b' cannot contain two adjacent slashes"},
		{"dots", role("a/../b"), nil, "Role 'a/../b' cannot include '..' as a component"},
		{"star inside", multi("a/*"), nil, "'FrameworkInfo.roles' contains invalid role: Role 'a/*' cannot include '*' as a component"},
		{"dash", role("a/-b"), nil, "Role component '-b' is invalid because it begins with a dash"},
		{"space", role("a b"), nil, "Role component 'a b' is invalid because it contains backspace or whitespace"},
		{"failover timeout", func(f framework) { f.FailoverTimeout = new(-1.0) }, nil, "The framework failover_timeout (-1) is invalid"},
		{"suppressed", multi("web"), []string{"db"}, "Suppressed role 'db' is not contained in the list of roles"},
		{"offer filter", func(f framework) { f.OfferFilters = map[string]*mesosv1.OfferFilters{"db": {}} }, nil, "'FrameworkInfo.offer_filters' contains role 'db'"},
		{"ID", func(f framework) { f.Id = &mesosv1.FrameworkID{Value: new("a/b")} }, nil, "'a/b' contains invalid characters"},
	} {
		f := &mesosv1.FrameworkInfo{User: new("u"), Name: new("n")}
		x.change(f)
		if got := frameworkProblem(f, x.suppressed); got != x.want && (x.want == "" || !strings.HasPrefix(got, x.want)) {
			t.Errorf("%s: got %q, want %q", x.name, got, x.want)
		}
	}
}

func TestRefuseTime(t *testing.T) {
	for _, x := range []struct {
		filters *mesosv1.Filters
		want    time.Duration
	}{
		{nil, 5 * time.Second},
		{&mesosv1.Filters{}, 5 * time.Second},
		{&mesosv1.Filters{RefuseSeconds: new(0.0)}, 0},
		{&mesosv1.Filters{RefuseSeconds: new(1.5)}, 1500 * time.Millisecond},
		{&mesosv1.Filters{RefuseSeconds: new(-1.0)}, 5 * time.Second},
		{&mesosv1.Filters{RefuseSeconds: new(math.NaN())}, 5 * time.Second},
		{&mesosv1.Filters{RefuseSeconds: new(1e300)}, 365 * 24 * time.Hour},
	} {
		if got := refuseTime(x.filters); got != x.want {
			t.Errorf("%v: %v, want %v", x.filters, got, x.want)
		}
	}
}

// TestUpgrade: an old framework's resources reach the agent in the new form.
func TestUpgrade(t *testing.T) {
	for _, x := range []struct{ in, want *mesosv1.Resource }{
		{&mesosv1.Resource{Role: new("*")}, &mesosv1.Resource{}},
		{&mesosv1.Resource{}, &mesosv1.Resource{}},
		{
			&mesosv1.Resource{Role: new("db")},
			&mesosv1.Resource{Reservations: []*mesosv1.Resource_ReservationInfo{{Type: mesosv1.Resource_ReservationInfo_STATIC.Enum(), Role: new("db")}}},
		},
		{
			&mesosv1.Resource{Role: new("db"), Reservation: &mesosv1.Resource_ReservationInfo{Principal: new("p")}},
			&mesosv1.Resource{Reservations: []*mesosv1.Resource_ReservationInfo{{Type: mesosv1.Resource_ReservationInfo_DYNAMIC.Enum(), Role: new("db"), Principal: new("p")}}},
		},
	} {
		if upgrade(x.in); !proto.Equal(x.in, x.want) {
			t.Errorf("got %v, want %v", x.in, x.want)
		}
	}
}
