package provider

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

func parse(t *testing.T, text string) resources.Resources {
	t.Helper()
	r, err := resources.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestLabelsRoundTrip(t *testing.T) {
	owner := task.Owner{Cluster: "mesos", Agent: "dc-1"}
	dynamic := resources.Resources{{
		Name: "disk", Scalar: resources.Whole(10), Role: "db",
		Reservations: []resources.Reservation{{Dynamic: true, Role: "db", Principal: "ops", Labels: []resources.Label{{Key: "k", Value: "v"}}}},
		Disk:         &resources.Disk{PersistenceID: "p1", ContainerPath: "data"},
	}}
	tests := []struct {
		name, label string
		resources   resources.Resources
	}{
		{"none", "", nil},
		{"plain", "cpus:0.1;mem:32", parse(t, "cpus:0.1;mem:32")},
		{"allocated", "cpus:0.1;mem:32@web/eu", parse(t, "cpus:0.1;mem:32").Allocated("web/eu")},
		{"reserved", "cpus(prod):2@prod", parse(t, "cpus(prod):2").Allocated("prod")},
		{"two roles", `[{"n":"cpus","v":1000,"a":"a"},{"n":"mem","v":2000,"a":"b"}]`, parse(t, "cpus:1").Allocated("a").Add(parse(t, "mem:2").Allocated("b")...)},
		{"dynamic", `[{"n":"disk","v":10000,"R":[{"Dynamic":true,"Role":"db","Principal":"ops","Labels":[{"Key":"k","Value":"v"}]}],"a":"db","d":{"PersistenceID":"p1","ContainerPath":"data"}}]`, dynamic},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			spec := task.Spec{Key: task.Key{Framework: "f-0001", ID: "web.a=b/ü"}, Resources: tt.resources}
			labels := Labels(owner, spec)
			if labels[LabelResources] != tt.label {
				t.Errorf("label is %s, want %s", labels[LabelResources], tt.label)
			}
			gotOwner, key, r, ok := ParseLabels(labels)
			if !ok || gotOwner != owner || key != spec.Key || !r.Equal(tt.resources) {
				t.Errorf("read back %v %v %v %v", gotOwner, key, r, ok)
			}
		})
	}
}

func TestLabelsOfTheSpecCannotOverrideOurs(t *testing.T) {
	spec := task.Spec{Labels: []task.Label{{Key: LabelCluster, Value: "evil"}, {Key: "tier", Value: "1"}}}
	want := map[string]string{LabelCluster: "c", LabelAgent: "a", LabelFramework: "", LabelTask: "", LabelResources: "", "tier": "1"}
	if diff := cmp.Diff(want, Labels(task.Owner{Cluster: "c", Agent: "a"}, spec)); diff != "" {
		t.Error(diff)
	}
}

func TestParseLabelsOfOthers(t *testing.T) {
	for _, labels := range []map[string]string{nil, {LabelCluster: "c"}, {LabelAgent: "a"}} {
		if _, _, _, ok := ParseLabels(labels); ok {
			t.Errorf("%v counts as owned", labels)
		}
	}
	_, _, r, ok := ParseLabels(map[string]string{LabelCluster: "c", LabelAgent: "a", LabelResources: "[broken"})
	if !ok || r != nil {
		t.Errorf("unreadable resources: got %v, %v", r, ok)
	}
}

type bare struct{ Provider }

type wrapped struct{ Provider }

func (w wrapped) Unwrap() Provider { return w.Provider }

type logging struct {
	Provider
	Logger
}

func TestAs(t *testing.T) {
	inner := &logging{}
	if got, ok := As[Logger](wrapped{wrapped{inner}}); !ok || got != inner {
		t.Errorf("through two decorators: got %v, %v", got, ok)
	}
	if _, ok := As[Logger](bare{inner}); ok {
		t.Error("found a Logger behind something that does not unwrap")
	}
	if _, ok := As[Execer](wrapped{inner}); ok {
		t.Error("found an Execer that is not there")
	}
}
