package scheduler

import (
	"testing"

	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
)

func agentAt(scheme, ip string, port int32) *mesosv1.URL {
	return &mesosv1.URL{Scheme: &scheme, Path: new("/slave(1)"), Address: &mesosv1.Address{Hostname: new("host-1"), Ip: &ip, Port: &port}}
}

func TestAgentURL(t *testing.T) {
	bare := agentAt("http", "10.0.0.1", 5051)
	bare.Path = nil
	for _, x := range []struct {
		url  *mesosv1.URL
		want string
	}{
		{agentAt("http", "10.0.0.1", 5051), "http://10.0.0.1:5051/slave(1)"},
		{agentAt("https", "fd00::1", 5051), "https://[fd00::1]:5051/slave(1)"},
		{agentAt("http", "", 80), "http://host-1:80/slave(1)"},
		{bare, "http://10.0.0.1:5051"},
		{agentAt("ftp", "10.0.0.1", 5051), ""},
		{agentAt("http", "10.0.0.1", 0), ""},
		{agentAt("http", "10.0.0.1", 70000), ""},
		{nil, ""},
		{&mesosv1.URL{Scheme: new("http")}, ""},
	} {
		if got := agentURL(x.url); got != x.want {
			t.Errorf("%v: %q, want %q", x.url, got, x.want)
		}
	}
}
