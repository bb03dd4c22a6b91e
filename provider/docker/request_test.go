package docker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/google/go-cmp/cmp"

	"github.com/mesopool/mesopool/provider"
	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

func newRequest(t *testing.T, o Options, s task.Spec) (*request, error) {
	t.Helper()
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if s.Image == "" {
		s.Image = "app:1"
	}
	return e.request(someone, "web-1", &s)
}

func amounts(t *testing.T, text string) resources.Resources {
	t.Helper()
	r, err := resources.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestLimits(t *testing.T) {
	tests := []struct {
		name, resources, limits string
		want                    container.Resources
	}{
		{"nothing", "", "", container.Resources{}},
		{"requests", "cpus:0.5;mem:64", "", container.Resources{CPUShares: 512, Memory: 64 << 20}},
		{"least", "cpus:0.001;mem:1", "", container.Resources{CPUShares: 2, Memory: 32 << 20}},
		{
			"limits", "cpus:1;mem:64", "cpus:1.5;mem:128",
			container.Resources{CPUShares: 1024, CPUPeriod: 100_000, CPUQuota: 150_000, Memory: 128 << 20, MemoryReservation: 64 << 20},
		},
		{"no bound", "cpus:1;mem:64", "cpus:1e12;mem:1e12", container.Resources{CPUShares: 1024, MemoryReservation: 64 << 20}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := newRequest(t, Options{}, task.Spec{Resources: amounts(t, tt.resources), Limits: amounts(t, tt.limits).Scalars()})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, r.host.Resources); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCommands(t *testing.T) {
	tests := []struct {
		command         task.Command
		entrypoint, cmd string
	}{
		{task.Command{}, "", ""},
		{task.Command{Shell: true, Value: "echo $A"}, "/bin/sh", "-c|echo $A"},
		{task.Command{Value: "serve", Args: []string{"-p", "80"}}, "", "serve|-p|80"},
		{task.Command{Args: []string{"-p", "80"}}, "", "-p|80"},
	}
	for _, tt := range tests {
		r, err := newRequest(t, Options{}, task.Spec{Command: tt.command})
		if err != nil {
			t.Fatal(err)
		}
		if e, c := strings.Join(r.config.Entrypoint, "|"), strings.Join(r.config.Cmd, "|"); e != tt.entrypoint || c != tt.cmd {
			t.Errorf("%+v gives %q, %q", tt.command, e, c)
		}
	}
}

func TestNetworks(t *testing.T) {
	net := func(value string) []task.Label { return []task.Label{{Key: "net", Value: value}} }
	tests := []struct {
		name    string
		spec    task.Spec
		mode    string // "" with err
		cluster bool
		err     string
	}{
		{"default", task.Spec{}, "own", true, ""},
		{"bridge", task.Spec{Network: task.Network{Mode: task.NetworkBridge}}, "own", true, ""},
		{"none", task.Spec{Network: task.Network{Mode: task.NetworkNone}}, "none", false, ""},
		{"user", task.Spec{Network: task.Network{Mode: task.NetworkUser, Name: "blue"}}, "blue", false, ""},
		{"own by name", task.Spec{Network: task.Network{Mode: task.NetworkUser, Name: "own"}}, "own", true, ""},
		{"host", task.Spec{Network: task.Network{Mode: task.NetworkHost}}, "", false, "the host's network is not offered"},
		{"host by name", task.Spec{Network: task.Network{Mode: task.NetworkUser, Name: "host"}}, "", false, "not offered"},
		{"of a container", task.Spec{Network: task.Network{Mode: task.NetworkUser, Name: "container:x"}}, "", false, "not offered"},
		{"parameter", task.Spec{Network: task.Network{Mode: task.NetworkHost}, Parameters: net("blue")}, "blue", false, ""},
		{"parameter host", task.Spec{Parameters: net("host")}, "", false, "not offered"},
		{"parameter bridge", task.Spec{Parameters: net("bridge")}, "own", true, ""},
		{"parameter none", task.Spec{Parameters: net("none")}, "none", false, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := newRequest(t, Options{Network: "own"}, tt.spec)
			if tt.err != "" {
				wantRejected(t, err, tt.err)
				return
			}
			if err != nil || string(r.host.NetworkMode) != tt.mode || r.cluster != tt.cluster {
				t.Errorf("got %+v, %v", r, err)
			}
		})
	}
}

func wantRejected(t *testing.T, err error, want string) {
	t.Helper()
	if !errors.Is(err, provider.ErrRejected) || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v; want a refusal with %q", err, want)
	}
}

func TestRefusals(t *testing.T) {
	parameter := func(key, value string) task.Spec {
		return task.Spec{Parameters: []task.Label{{Key: key, Value: value}}}
	}
	tests := []struct {
		spec       task.Spec
		want       string
		privileged bool // allowed with AllowPrivileged
	}{
		{task.Spec{Privileged: true}, "privileged", true},
		{parameter("privileged", "true"), "privileged", true},
		{parameter("security-opt", "seccomp=unconfined"), "security-opt=seccomp=unconfined", true},
		{parameter("cap-add", "sys_admin"), "cap-add=sys_admin", true},
		{parameter("device", "/dev/sda"), `"device" (value "/dev/sda") is not supported`, false},
		{parameter("pid", "host"), `"pid"`, false},
		{parameter("ipc", "host"), "only private", false},
		{parameter("volume", "/etc:/etc"), "named volume", false},
		{parameter("volume", "./a:/etc"), "named volume", false},
		{parameter("volume", "data:etc"), "want volume:/path", false},
		{parameter("env", "HOME"), "want name=value", false},
		{parameter("ulimit", "nofile"), "ulimit=nofile", false},
		{parameter("shm-size", "much"), "shm-size=much", false},
		{parameter("init", "perhaps"), "init=perhaps", false},
		{task.Spec{Volumes: []task.Volume{{Container: "a", Name: "b"}, {Container: "/x", Host: "/etc"}}}, "volumes[1]", false},
		{task.Spec{Volumes: []task.Volume{{Name: "b"}}}, "path in the container is missing", false},
	}
	for _, tt := range tests {
		t.Run(tt.want, func(t *testing.T) {
			_, err := newRequest(t, Options{}, tt.spec)
			wantRejected(t, err, tt.want)
			if _, err := newRequest(t, Options{AllowPrivileged: true}, tt.spec); (err == nil) != tt.privileged {
				t.Errorf("where privileges are allowed: %v", err)
			}
		})
	}
}

func TestImages(t *testing.T) {
	e, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = e.request(someone, "web-1", &task.Spec{})
	wantRejected(t, err, "no default image is set")
	e.o.DefaultImage = "base:1"
	if r, err := e.request(someone, "web-1", &task.Spec{}); err != nil || r.config.Image != "base:1" {
		t.Errorf("got %v, %v", r, err)
	}
}

// TestEveryParameter: each flag of the table does something with a fair value.
func TestEveryParameter(t *testing.T) {
	values := map[string]string{
		"cpu-period": "50000", "cpu-quota": "1000", "env": "A=1", "expose": "80", "init": "true", "ipc": "private", "log-opt": "a=b",
		"memory-swap": "-1", "memory-swappiness": "0", "oom-score-adj": "5", "pids-limit": "9", "privileged": "", "read-only": "",
		"security-opt": "no-new-privileges", "shm-size": "64m", "stop-timeout": "3", "storage-opt": "size=1g", "sysctl": "a=b", "tty": "true",
		"ulimit": "nofile=1:2", "volume": "data:/data:ro", "ip": "10.1.2.3", "mac-address": "02:42:ac:11:65:43", "net": "blue", "network": "blue",
	}
	plain, err := newRequest(t, Options{Network: "own"}, task.Spec{})
	if err != nil {
		t.Fatal(err)
	}
	for name := range setters {
		value, ok := values[name]
		if !ok {
			value = "x"
		}
		r, err := newRequest(t, Options{Network: "own", AllowPrivileged: true}, task.Spec{
			Parameters: []task.Label{{Key: name, Value: value}}, Volumes: nil,
		})
		if err != nil {
			t.Errorf("%s=%s: %v", name, value, err)
			continue
		}
		same := cmp.Equal(plain.config, r.config) && cmp.Equal(plain.host, r.host) && cmp.Equal(plain.net, r.net)
		if same && name != "link" && name != "volume-driver" {
			t.Errorf("%s=%s changes nothing", name, value)
		}
	}
}

func TestParametersOfVolumes(t *testing.T) {
	r, err := newRequest(t, Options{}, task.Spec{
		Parameters: []task.Label{{Key: "volume", Value: "a:/a:ro"}, {Key: "v", Value: "/anon"}, {Key: "volume-driver", Value: "nfs"}},
		Volumes:    []task.Volume{{Name: "b", Container: "b", Driver: "ceph", Options: []task.Label{{Key: "k", Value: "v"}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range r.host.Mounts {
		got = append(got, m.Source+" "+m.Target+" "+m.VolumeOptions.DriverConfig.Name)
	}
	want := []string{"a /a nfs", " /anon nfs", "b " + provider.Sandbox + "/b ceph"}
	if diff := cmp.Diff(want, got); diff != "" || !r.host.Mounts[0].ReadOnly {
		t.Error(diff, r.host.Mounts[0])
	}
}

// TestVolumesOfTheSandbox: a relative host path is one of the sandbox, where the
// persistent volumes are. Of what is not there, nothing is mounted.
func TestVolumesOfTheSandbox(t *testing.T) {
	disk := resources.Resource{Name: "disk", Scalar: resources.Whole(32), Reservations: []resources.Reservation{{Dynamic: true, Role: "db"}}, Disk: &resources.Disk{PersistenceID: "p", ContainerPath: "data"}}
	spec := task.Spec{Resources: resources.Resources{disk}, Volumes: []task.Volume{{Host: "data", Container: "/var/lib/db", ReadOnly: true}}}
	r, err := newRequest(t, Options{}, spec)
	if err != nil {
		t.Fatal(err)
	}
	name := provider.VolumeName(someone, "db", "p")
	var got []string
	for _, m := range r.host.Mounts {
		got = append(got, fmt.Sprint(m.Source, " ", m.Target, " ", m.ReadOnly))
	}
	if diff := cmp.Diff([]string{name + " " + provider.Sandbox + "/data false", name + " /var/lib/db true"}, got); diff != "" {
		t.Error(diff)
	}
	for _, host := range []string{"other", "/data"} {
		spec.Volumes[0].Host = host
		_, err := newRequest(t, Options{}, spec)
		wantRejected(t, err, "the host path "+host+" cannot be mounted")
	}
}

// TestDefaultNetwork: without a network of its own, nothing is lost silently.
func TestDefaultNetwork(t *testing.T) {
	r, err := newRequest(t, Options{}, task.Spec{Network: task.Network{Aliases: []string{"web"}}})
	if err != nil || r.net != nil || len(r.notes) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	_, err = newRequest(t, Options{}, task.Spec{Parameters: []task.Label{{Key: "ip", Value: "10.1.2.3"}}})
	wantRejected(t, err, "need a network")
}

func TestNotes(t *testing.T) {
	r, err := newRequest(t, Options{}, task.Spec{Parameters: []task.Label{{Key: "restart", Value: "always"}, {Key: "publish", Value: "80:80"}}})
	if err != nil || len(r.notes) != 2 || r.host.RestartPolicy.Name != "" || len(r.host.PortBindings) != 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestParameterLabelCannotOverrideOurs(t *testing.T) {
	r, err := newRequest(t, Options{}, task.Spec{Parameters: []task.Label{{Key: "label", Value: provider.LabelCluster + "=evil"}}})
	if err != nil || r.config.Labels[provider.LabelCluster] != someone.Cluster {
		t.Errorf("%v, %v", r.config.Labels, err)
	}
}

func TestCredentials(t *testing.T) {
	dir := t.TempDir()
	script := "#!/bin/sh\nread server\nif [ \"$server\" = https://index.docker.io/v1/ ]; then echo '{\"Username\":\"<token>\",\"Secret\":\"tok\"}'\n" +
		"elif [ \"$server\" = broken.example ]; then echo oops; exit 1\nelse echo 'credentials not found in native keychain'; exit 1; fi\n"
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-test"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	file := configFile{CredsStore: "test"}
	if a, ok, err := file.find(t.Context(), "docker.io"); err != nil || !ok || a.IdentityToken != "tok" || a.Username != "" {
		t.Errorf("Docker Hub: %+v, %v, %v", a, ok, err)
	}
	if _, ok, err := file.find(t.Context(), "other.example"); ok || err != nil {
		t.Errorf("an unknown registry: %v, %v", ok, err)
	}
	if _, _, err := file.find(t.Context(), "broken.example"); err == nil || !strings.Contains(err.Error(), "docker-credential-test") {
		t.Errorf("a broken helper: %v", err)
	}
}

func TestWithTag(t *testing.T) {
	for in, want := range map[string]string{
		"app": "docker.io/library/app:latest", "app:1": "docker.io/library/app:1", "hub.example:5000/a/b": "hub.example:5000/a/b:latest", "Bad Name": "Bad Name",
	} {
		if got := withTag(in); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}

// TestParametersAreDocumented: docs/agent.md names every flag, and no other.
func TestParametersAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/agent.md")
	if err != nil {
		t.Fatal(err)
	}
	_, part, _ := strings.Cut(string(text), "## Parameters")
	part, _, _ = strings.Cut(part, "## Every field")
	listed := map[string]bool{}
	for line := range strings.Lines(part) {
		if cells := strings.Split(line, "|"); len(cells) > 2 {
			for _, m := range regexp.MustCompile("`--([a-z-]+)`").FindAllStringSubmatch(cells[1], -1) {
				listed[m[1]] = true
			}
		}
	}
	for name := range setters {
		if !listed[name] {
			t.Errorf("--%s is not in docs/agent.md", name)
		}
	}
	for name := range ignored {
		if !listed[name] {
			t.Errorf("--%s, which is ignored, is not in docs/agent.md", name)
		}
	}
	for name := range listed {
		if setters[name] == nil && ignored[name] == "" {
			t.Errorf("docs/agent.md names --%s, which is refused", name)
		}
	}
}
