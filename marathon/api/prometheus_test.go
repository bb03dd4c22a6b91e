package api

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
)

// What Prometheus' marathon_sd reads of an answer (discovery/marathon/marathon.go:
// app, task, container, portMapping, portDefinition, network).
type (
	sdApps struct {
		Apps []sdApp `json:"apps"`
	}
	sdApp struct {
		ID        string            `json:"id"`
		Tasks     []sdTask          `json:"tasks"`
		Running   int               `json:"tasksRunning"`
		Labels    map[string]string `json:"labels"`
		Container struct {
			Docker struct {
				Image        string      `json:"image"`
				PortMappings []sdMapping `json:"portMappings"`
			} `json:"docker"`
			PortMappings []sdMapping `json:"portMappings"`
		} `json:"container"`
		PortDefinitions []sdDefinition `json:"portDefinitions"`
		Networks        []struct {
			Name string `json:"name"`
			Mode string `json:"mode"`
		} `json:"networks"`
		RequirePorts bool `json:"requirePorts"`
	}
	sdTask struct {
		ID          string   `json:"id"`
		Host        string   `json:"host"`
		Ports       []uint32 `json:"ports"`
		IPAddresses []struct {
			Address string `json:"ipAddress"`
			Proto   string `json:"protocol"`
		} `json:"ipAddresses"`
	}
	sdMapping struct {
		Labels        map[string]string `json:"labels"`
		ContainerPort uint32            `json:"containerPort"`
		HostPort      uint32            `json:"hostPort"`
		ServicePort   uint32            `json:"servicePort"`
	}
	sdDefinition struct {
		Labels map[string]string `json:"labels"`
		Port   uint32            `json:"port"`
	}
)

// targets are the addresses that it would scrape: in a container network the
// container's own, else host and port of the task (extractPortMapping and
// targetsForApp there).
func (a *sdApp) targets() (out []string) {
	mappings := a.Container.PortMappings
	if len(mappings) == 0 {
		mappings = a.Container.Docker.PortMappings
	}
	inside := len(a.Networks) > 0 && a.Networks[0].Mode == "container"
	for _, t := range a.Tasks {
		if inside && len(t.IPAddresses) > 0 {
			for _, m := range mappings {
				out = append(out, fmt.Sprintf("%s:%d", t.IPAddresses[0].Address, m.ContainerPort))
			}
			continue
		}
		for _, p := range t.Ports {
			out = append(out, fmt.Sprintf("%s:%d", t.Host, p))
		}
	}
	return out
}

func TestPrometheusFindsTargets(t *testing.T) {
	s := newSite(t)
	s.post(`{"id":"/inside","container":{"docker":{"image":"i"},"portMappings":[{"containerPort":9100,"labels":{"scrape":"yes"}}]},"networks":[{"mode":"container","name":"dcn"}]}`)
	s.post(`{"id":"/bridge","container":{"docker":{"image":"i","network":"BRIDGE","portMappings":[{"containerPort":9101,"hostPort":0},{"containerPort":9102}]}}}`)
	s.post(`{"id":"/host","cmd":"x","labels":{"team":"a"},"portDefinitions":[{"port":9103,"labels":{"scrape":"yes"}}],"requirePorts":true}`)
	r := s.want("GET", "/v2/apps/?embed=apps.tasks", "", 200, "") // as it asks, slash and all
	var got sdApps
	if err := json.Unmarshal([]byte(r.text), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{"/inside": {"10.0.0.9:9100"}, "/bridge": {"10.0.0.9:9101", "10.0.0.9:9102"}, "/host": {"10.0.0.9:9103"}}
	for _, a := range got.Apps {
		if targets := a.targets(); !slices.Equal(targets, want[a.ID]) || a.Running != 1 {
			t.Errorf("%s: targets %v, want %v; %d running", a.ID, targets, want[a.ID], a.Running)
		}
		delete(want, a.ID)
		switch a.ID {
		case "/inside":
			if a.Container.PortMappings[0].Labels["scrape"] != "yes" || a.Container.Docker.Image != "i" {
				t.Errorf("labels for relabelling: %+v", a.Container)
			}
		case "/host":
			if a.Labels["team"] != "a" || a.PortDefinitions[0].Labels["scrape"] != "yes" || !a.RequirePorts {
				t.Errorf("labels for relabelling: %+v", a)
			}
		}
	}
	if len(want) > 0 {
		t.Errorf("not there: %v", want)
	}
}
