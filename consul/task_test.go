package consul

import (
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/mesopool/mesopool/task"
)

var (
	testOwner = task.Owner{Cluster: "teama", Agent: "agent"}
	oneIP     = task.ContainerStatus{ID: "c1", Addresses: []string{"10.0.0.7"}}
)

// spec is a task that the cases below vary.
func spec(change func(*task.Spec)) task.Spec {
	s := task.Spec{Key: task.Key{Framework: "f1", ID: "web.1"}, Name: "web.shop"}
	if change != nil {
		change(&s)
	}
	return s
}

func port(name string, number uint16, labels ...task.Label) task.Port {
	return task.Port{Name: name, Container: number, Labels: labels}
}

// brief is what the naming cases look at: name:port [tags].
func brief(services []Service) []string {
	var out []string
	for _, s := range services {
		line := s.Name + ":" + itoa(s.Port)
		if len(s.Tags) > 0 {
			line += " " + strings.Join(s.Tags, ",")
		}
		out = append(out, line)
	}
	return out
}

func itoa(n uint16) string { return strconv.Itoa(int(n)) }

func TestTaskServicesNamesAndTags(t *testing.T) {
	cases := []struct {
		name   string
		change func(*task.Spec)
		want   []string
	}{
		{"task name", nil, []string{"web-shop:0"}},
		{"no usable name", func(s *task.Spec) { s.Name, s.Key.ID = "___", "…" }, []string{"task:0"}},
		{"task id", func(s *task.Spec) { s.Name = "" }, []string{"web-1:0"}},
		{"one port", func(s *task.Spec) { s.Ports = []task.Port{port("http", 80)} }, []string{"web-shop:80"}},
		{"several without names", func(s *task.Spec) {
			s.Ports = []task.Port{port("", 8091), port("", 8092)}
		}, []string{"web-shop-8091:8091", "web-shop-8092:8092"}},
		{"several with names", func(s *task.Spec) {
			s.Ports = []task.Port{port("client", 4222), port("cluster", 6222)}
		}, []string{"web-shop:4222 client", "web-shop:6222 cluster"}},
		{"discovery name and ports", func(s *task.Spec) {
			s.Discovery = &task.Discovery{Name: "b.a", Ports: []task.Port{port("http", 8080)}}
		}, []string{"b-a:8080"}},
		{"discovery names ports", func(s *task.Spec) {
			s.Ports = []task.Port{port("", 80), port("", 81)}
			s.Discovery = &task.Discovery{Name: "web", Ports: []task.Port{port("front", 80), port("back", 81)}}
		}, []string{"web:80 front", "web:81 back"}},
		{"service name variable", func(s *task.Spec) {
			s.Env = []task.Label{{Key: "SERVICE_NAME", Value: "no"}, {Key: "SERVICE_NAME", Value: "Shop Front"}}
			s.Discovery = &task.Discovery{Name: "other"}
		}, []string{"shop-front:0"}},
		{"service name of a port", func(s *task.Spec) {
			s.Ports = []task.Port{port("", 80), port("", 81)}
			s.Env = []task.Label{{Key: "SERVICE_80_NAME", Value: "front"}}
		}, []string{"front:80", "web-shop-81:81"}},
		{"label consul", func(s *task.Spec) {
			s.Labels = []task.Label{{Key: "consul", Value: "shop"}, {Key: "SERVICE_NAME", Value: "other"}}
		}, []string{"shop:0"}},
		{"label consul true", func(s *task.Spec) {
			s.Labels = []task.Label{{Key: "consul", Value: "true"}}
			s.Env = []task.Label{{Key: "MARATHON_APP_ID", Value: "/shop/web"}}
		}, []string{"shop-web:0 marathon,marathon-task:web.1"}},
		{"label consul of ports chooses them", func(s *task.Spec) {
			s.Ports = []task.Port{port("", 80), port("", 81, task.Label{Key: "consul", Value: "front, Shop_Front"})}
		}, []string{"front:81", "shop-front:81"}},
		{"port opted out", func(s *task.Spec) {
			s.Ports = []task.Port{port("", 80), port("", 81, task.Label{Key: "consul", Value: "false"})}
		}, []string{"web-shop:80"}},
		{"all ports opted out", func(s *task.Spec) {
			s.Ports = []task.Port{port("", 81, task.Label{Key: "consul", Value: "false"})}
		}, nil},
		{"port ignored", func(s *task.Spec) {
			s.Ports = []task.Port{port("a", 80), port("b", 81)}
			s.Labels = []task.Label{{Key: "SERVICE_81_IGNORE", Value: "true"}}
		}, []string{"web-shop:80 a"}},
		{"opted out", func(s *task.Spec) { s.Labels = []task.Label{{Key: "consul", Value: "False"}} }, nil},
		{"ignored", func(s *task.Spec) { s.Env = []task.Label{{Key: "SERVICE_IGNORE", Value: "yes"}} }, nil},
		{"not ignored", func(s *task.Spec) { s.Env = []task.Label{{Key: "SERVICE_IGNORE", Value: "false"}} }, []string{"web-shop:0"}},
		{"tags", func(s *task.Spec) {
			s.Labels = []task.Label{{Key: "blue", Value: "tag"}, {Key: "tags", Value: "a, b,,a"}, {Key: "SERVICE_TAGS", Value: "c"}}
			s.Ports = []task.Port{port("", 80, task.Label{Key: "green", Value: "tag"})}
		}, []string{"web-shop:80 blue,green,c,a,b"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := brief(TaskServices(spec(c.change), oneIP, testOwner, "S1"))
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("services (-want +got):\n%s", d)
			}
		})
	}
}

func TestTaskServicesWhole(t *testing.T) {
	s := spec(func(s *task.Spec) {
		s.Ports = []task.Port{{Container: 53, Protocol: "udp", Host: 53}}
		s.Env = []task.Label{{Key: "MARATHON_APP_ID", Value: "/web"}, {Key: "MARATHON_APP_VERSION", Value: strings.Repeat("é", 300)}}
	})
	want := []Service{{
		ID: "mesos:S1:f1:web.1:53:udp", Name: "web-shop", Tags: []string{"marathon", "marathon-task:web.1"},
		Address: "10.0.0.7", Port: 53,
		Meta: map[string]string{
			"cluster": "teama", "agent": "agent", "agent_id": "S1", "framework_id": "f1", "mesos_task_id": "web.1",
			"container_id": "c1", "app_id": "/web", "app_version": strings.Repeat("é", 256),
		},
	}}
	if d := cmp.Diff(want, TaskServices(s, oneIP, testOwner, "S1")); d != "" {
		t.Errorf("services (-want +got):\n%s", d)
	}
}

func TestTaskServicesChecks(t *testing.T) {
	tcp := &Check{Name: "port 80 of web-shop accepts connections", TCP: "10.0.0.7:80"}
	cases := []struct {
		name   string
		health *task.HealthCheck
		port   uint16
		want   *Check
	}{
		{"none", nil, 80, tcp},
		{"no port", nil, 0, nil},
		{"command", &task.HealthCheck{Type: task.CheckCommand}, 80, tcp},
		{
			"http", &task.HealthCheck{Type: task.CheckHTTP, Port: 8080, Path: "ok", Interval: 3 * time.Second, Timeout: time.Second},
			80, &Check{Name: "GET /ok", HTTP: "http://10.0.0.7:8080/ok", Interval: 3 * time.Second, Timeout: time.Second},
		},
		{
			"https without a port of its own", &task.HealthCheck{Type: task.CheckHTTP, Scheme: "https", Path: "/"},
			443, &Check{Name: "GET /", HTTP: "https://10.0.0.7:443/"},
		},
		{"tcp", &task.HealthCheck{Type: task.CheckTCP, Port: 81}, 80, &Check{Name: "port 81 accepts connections", TCP: "10.0.0.7:81"}},
		{"health without any port", &task.HealthCheck{Type: task.CheckTCP}, 0, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := spec(func(s *task.Spec) { s.Ports, s.Health = []task.Port{port("", c.port)}, c.health })
			got := TaskServices(s, oneIP, testOwner, "S1")
			if len(got) != 1 {
				t.Fatalf("%d services, want 1", len(got))
			}
			if d := cmp.Diff(c.want, got[0].Check); d != "" {
				t.Errorf("check (-want +got):\n%s", d)
			}
		})
	}
}

func TestTaskServicesAddresses(t *testing.T) {
	s := spec(func(s *task.Spec) { s.Ports = []task.Port{port("", 80)} })
	published := task.ContainerStatus{
		Addresses: []string{"fd00::7"}, PublishIP: "127.0.0.1",
		Ports: []task.Port{{Container: 81, Host: 40081}, {Container: 80, Host: 40080, Protocol: "tcp"}},
	}
	got := TaskServices(s, published, testOwner, "S1")
	if len(got) != 1 {
		t.Fatalf("%d services, want 1", len(got))
	}
	if got[0].Address != "127.0.0.1" || got[0].Port != 40080 || got[0].Inner != (Endpoint{"fd00::7", 80}) {
		t.Errorf("published: got %s port %d, inner %v", got[0].Address, got[0].Port, got[0].Inner)
	}
	if got[0].Check.TCP != "[fd00::7]:80" {
		t.Errorf("the check goes to %q, want the container's own address", got[0].Check.TCP)
	}
	published.PublishIP = "0.0.0.0"
	if got := TaskServices(s, published, testOwner, "S1"); got[0].Address != "fd00::7" || got[0].Inner != (Endpoint{}) {
		t.Errorf("published on no address in particular: got %s, inner %v", got[0].Address, got[0].Inner)
	}
	if got := TaskServices(s, task.ContainerStatus{}, testOwner, "S1"); got != nil {
		t.Errorf("without any address: got %v, want nothing", brief(got))
	}
}

func TestDNSName(t *testing.T) {
	long := strings.Repeat("a", 70)
	for _, c := range []struct{ in, suffix, want string }{
		{"Shop_Front", "", "shop-front"},
		{"--/a//b--", "", "a-b"},
		{"grüße", "", "gr-e"},
		{"", "-80", ""},
		{long, "", long[:63]},
		{long, "-8080", long[:58] + "-8080"},
		{strings.Repeat("a", 62) + "-b", "", strings.Repeat("a", 62)},
	} {
		if got := dnsName(c.in, c.suffix); got != c.want {
			t.Errorf("dnsName(%q, %q) = %q, want %q", c.in, c.suffix, got, c.want)
		}
	}
}

func FuzzDNSName(f *testing.F) {
	f.Add("Shop_Front", uint16(80))
	f.Fuzz(func(t *testing.T, text string, n uint16) {
		got := dnsName(text, "-"+itoa(n))
		if len(got) > 63 || strings.HasPrefix(got, "-") || strings.Contains(got, "--") {
			t.Errorf("dnsName(%q) = %q is no DNS label", text, got)
		}
		if c := clip(text, int(n%64)); utf8.ValidString(text) && !utf8.ValidString(c) || len(c) > int(n%64) {
			t.Errorf("clip(%q, %d) = %q", text, n%64, c)
		}
	})
}
