package endpoint

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/mesopool/mesopool/endpoint/backend"
)

// shell is a person with the plain docker command and a tenant's certificates.
type shell struct {
	t     *testing.T
	url   string
	certs string
	env   []string
}

// shellOf skips where there is no docker command, but in CI.
func (c *client) shell() *shell {
	c.r.t.Helper()
	if _, err := exec.LookPath("docker"); err != nil {
		if os.Getenv("CI") != "" {
			c.r.t.Fatal(err)
		}
		c.r.t.Skipf("%s needs the docker command: %v", c.r.t.Name(), err)
	}
	certs := c.r.t.TempDir()
	if err := c.r.cloud.Authority().WriteCerts(c.acct, certs); err != nil {
		c.r.t.Fatal(err)
	}
	return &shell{t: c.r.t, url: strings.Replace(c.r.url, "https", "tcp", 1), certs: certs}
}

func (s *shell) run(line string) (string, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", append([]string{"--tlsverify", "-H", s.url}, strings.Fields(line)...)...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.certs, "DOCKER_CERT_PATH=" + s.certs}, s.env...)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// ok runs what must succeed and say something.
func (s *shell) ok(want, line string) string {
	s.t.Helper()
	out, err := s.run(line)
	if err != nil || !strings.Contains(out, want) {
		s.t.Errorf("docker %s: %v\n%s\nwant %q", line, err, out, want)
	}
	return out
}

// fails runs what must fail and say why.
func (s *shell) fails(want, line string) {
	s.t.Helper()
	if out, err := s.run(line); err == nil || !strings.Contains(out, want) {
		s.t.Errorf("docker %s: %v\n%s\nwant a failure with %q", line, err, out, want)
	}
}

// TestRulesByDocker is the rules as far as the plain docker command can express
// them, by their numbers; rules_test.go has them all by raw HTTP.
func TestRulesByDocker(t *testing.T) {
	r := plainRig(t)
	c := r.newTenant("teama")
	s := c.shell()
	t.Run("02 versions", func(t *testing.T) {
		old := *s
		old.env = []string{"DOCKER_API_VERSION=1.19"}
		old.fails("InvalidVersion", "ps")
	})
	t.Run("04 certificates", func(t *testing.T) {
		stranger := *s
		stranger.certs = t.TempDir()
		ca, err := os.ReadFile(s.certs + "/ca.pem")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(stranger.certs+"/ca.pem", ca, 0o600); err != nil {
			t.Fatal(err)
		}
		stranger.fails("Unauthorized", "ps")
	})
	for _, x := range []struct{ rule, want, line string }{
		{"05", "Operating System: SmartDataCenter", "info"},
		{"05", "1.9.0", "version"},
		{"06", "!events is not implemented", "events --since 1m"},
		{"06", "!network create is not implemented", "network create n"},
		{"09", "", "create --name web run"},
		{"12", "!No such image: none", "create --pull never none"},
		{"14", "!NetworkMode host is not supported", "create --network host run"},
		{"14", "!NetworkMode none is not supported", "create --network none run"},
		{"14", "!Container networking is not supported", "create --network container:web run"},
		{"14", "!network other not found", "create --network other run"},
		{"15", "!Invalid binds", "create -v /etc:/x run"},
		{"15", "!host volumes are not supported", "create -v data:/x run"},
		{"16", "!too many data volumes: max 8", "create -v /1 -v /2 -v /3 -v /4 -v /5 -v /6 -v /7 -v /8 -v /9 run"},
		{"17", "!remapping of port numbers not allowed", "create -p 8080:80 run"},
		{"18", "", "create --name open -p 80:80 run"},
		{"18", "100.64.", "inspect --format {{.NetworkSettings.IPAddress}} open"},
		{"19", "!triton.x", "create --label triton.x=1 run"},
		{"20", "268435456", "inspect --format {{.HostConfig.Memory}} --type container small"},
		{"20", "!NoSufficientPackage", "create -m 100g run"},
		{"20", "!no packages match parameters", "create --label com.joyent.package=none run"},
		{"21", "", "create --name plain --privileged --cap-add ALL --pid host --ipc host --read-only --ulimit nofile=1 run"},
		{"21", "false", "inspect --format {{.HostConfig.Privileged}} plain"},
		{"22", "!unsupported log driver: syslog", "create --log-driver syslog run"},
		{"23", "", "create --name again --restart unless-stopped run"},
		{"23", "[]", "inspect --format [{{.HostConfig.RestartPolicy.Name}}] again"},
		{"24", "!Already exists for this owner_uuid", "create --name web run"},
		{"25", "!ValidationFailed", "create --hostname a_b run"},
		{"26", "!No command specified", "create empty"},
		{"28", "!", "create -e affinity:container==none run"},
		{"29", "web", "start web"},
		{"29", "web", "start web"},
		{"33", "3", "wait short"},
		{"34", "!You cannot remove a running container", "rm web"},
		{"36", "out", "logs short"},
		{"37", "!is not running", "exec short true"},
		{"38", "!not allowed for this command", "top short"},
		{"39", "Exited (3)", "ps -a --filter name=^short$ --format {{.Status}}"},
		{"40", "web", "ps --filter label=com.joyent.package --format {{.Names}}"},
		{"40", "!Unrecognised filter value for status: odd", "ps --filter status=odd"},
		{"41", "com.joyent.package:sample-", "inspect --format {{.Config.Labels}} web"},
		{"31", "web", "kill -s HUP web"},
		{"32", "Exited (-9)", "ps -a --filter name=^web$ --format {{.Status}}"},
		{"29", "web", "stop web"},
		{"35", "", "run -d --name lively --restart always run"},
		{"35", "", "kill lively"},
		{"07", "!does not exist", "update -m 1g web"},
		{"06", "!pause is not implemented", "pause lively"},
		{"06", "!changes is not implemented", "diff web"},
		{"06", "!export is not implemented", "export web"},
		{"34", "web", "rm web"},
		{"34", "!No such container: web", "rm web"},
	} {
		if x.rule == "20" && strings.HasSuffix(x.line, "small") {
			s.ok("", "create --name small -m 200m run")
		}
		if x.rule == "33" {
			s.ok("", "run -d --name short exit")
		}
		t.Run(x.rule+" "+x.line, func(t *testing.T) {
			here := *s
			here.t = t
			if why, fails := strings.CutPrefix(x.want, "!"); fails {
				here.fails(why, x.line)
				return
			}
			here.ok(x.want, x.line)
		})
	}
	eventually(t, "a killed container is started again", func() bool {
		out, err := s.run("inspect --format {{.State.Running}}/{{.RestartCount}} lively")
		return err == nil && out == "true/1"
	})
	t.Run("08 modes", func(t *testing.T) {
		r.server.SetMode(Mode{ReadOnly: true})
		defer r.server.SetMode(Mode{})
		s.ok("lively", "ps")
		s.fails("", "stop lively")
	})
	t.Run("27 quota", func(t *testing.T) {
		if _, err := r.cloud.Accounts().Change("teama", func(a *Account) error { a.Limits = Limits{Machines: 1}; return nil }); err != nil {
			t.Fatal(err)
		}
		s.fails("Quota exceeded", "create run")
	})
	t.Run("42 lookup", func(t *testing.T) {
		id := s.ok("", "inspect --format {{.Id}} lively")
		s.ok(id, "inspect --format {{.Id}} "+id[:8])
	})
	t.Run("43 tenants", func(t *testing.T) {
		other := r.newTenant("teamb").shell()
		other.ok("", "create --name lively run") // the name is free there
		if out := other.ok("", "ps -q"); out != "" {
			t.Errorf("another tenant sees %s", out)
		}
		other.fails("No such container: short", "logs short")
	})
}

// TestProvisioningByDocker: what is being made is shown as such (rules 10 and 11).
func TestProvisioningByDocker(t *testing.T) {
	r := newRig(t, Config{}, backend.MemoryConfig{Provision: 3 * time.Second}, Options{})
	s := r.newTenant("teama").shell()
	made := make(chan error, 1)
	go func() { _, err := s.run("create --name slow run"); made <- err }()
	eventually(t, "the container is being provisioned", func() bool {
		out, err := s.run("ps -a --format {{.Names}}/{{.Status}}")
		return err == nil && strings.HasPrefix(out, "slow/Provisioning ")
	})
	s.fails("", "start slow")
	s.fails("Already exists for this owner_uuid", "create --name slow run")
	if err := <-made; err != nil {
		t.Error(err)
	}
	s.ok("slow", "start slow")
}
