package provider

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"

	"github.com/mesopool/mesopool/resources"
	"github.com/mesopool/mesopool/task"
)

// The labels that say whose a container is. They are few and short: some
// backends index all labels of a container in one column.
const (
	LabelCluster   = "mesopool.cluster"
	LabelAgent     = "mesopool.agent"
	LabelFramework = "mesopool.framework"
	LabelTask      = "mesopool.task"
	LabelResources = "mesopool.resources"
)

// Labels returns the labels of the owner's container for s: the spec's own and
// Mesopool's, which the spec cannot override.
func Labels(owner task.Owner, s task.Spec) map[string]string {
	out := make(map[string]string, len(s.Labels)+5)
	for _, l := range s.Labels {
		out[l.Key] = l.Value
	}
	out[LabelCluster] = owner.Cluster
	out[LabelAgent] = owner.Agent
	out[LabelFramework] = s.Key.Framework
	out[LabelTask] = s.Key.ID
	out[LabelResources] = encodeResources(s.Resources)
	return out
}

// ParseLabels is the inverse of Labels. ok is false when the container is
// nobody's: one of the owner's labels is missing. Resources that cannot be read
// are nil; the container is its owner's all the same.
func ParseLabels(labels map[string]string) (owner task.Owner, key task.Key, r resources.Resources, ok bool) {
	cluster, hasCluster := labels[LabelCluster]
	agent, hasAgent := labels[LabelAgent]
	if !hasCluster || !hasAgent {
		return task.Owner{}, task.Key{}, nil, false
	}
	owner = task.Owner{Cluster: cluster, Agent: agent}
	key = task.Key{Framework: labels[LabelFramework], ID: labels[LabelTask]}
	return owner, key, decodeResources(labels[LabelResources]), true
}

// encodeResources writes "cpus:0.1;mem:32@web" (@web: all are allocated to the
// role web) where that says everything, and JSON where it does not.
func encodeResources(r resources.Resources) string {
	if len(r) == 0 {
		return ""
	}
	text := strings.ReplaceAll(r.String(), "; ", ";")
	if role := r[0].Role; role != "" {
		text += "@" + role
	}
	if back := decodeResources(text); len(back) == len(r) && back.Equal(r) {
		return text
	}
	return encodeMarked(r)
}

func decodeResources(text string) resources.Resources {
	if strings.HasPrefix(text, "[") {
		return decodeMarked(text)
	}
	text, role, allocated := strings.Cut(text, "@")
	r, err := resources.Parse(text)
	if err != nil {
		return nil
	}
	if allocated {
		return r.Allocated(role)
	}
	return r
}

// markedResource is a resource as JSON with one-letter names.
type markedResource struct {
	Name         string                  `json:"n"`
	Kind         resources.Kind          `json:"k,omitempty"`
	Scalar       resources.Milli         `json:"v,omitempty"`
	Ranges       resources.Ranges        `json:"r,omitempty"`
	Set          []string                `json:"s,omitempty"`
	Reservations []resources.Reservation `json:"R,omitempty"`
	Role         string                  `json:"a,omitempty"`
	Disk         *resources.Disk         `json:"d,omitempty"`
	Provider     string                  `json:"p,omitempty"`
	Revocable    bool                    `json:"x,omitempty"`
	Shared       bool                    `json:"h,omitempty"`
}

func encodeMarked(r resources.Resources) string {
	out := make([]markedResource, len(r))
	for i := range r {
		out[i] = markedResource(r[i])
	}
	text, err := json.Marshal(out)
	if err != nil {
		panic(err) // plain values only: cannot fail
	}
	return string(text)
}

func decodeMarked(text string) resources.Resources {
	var in []markedResource
	if json.Unmarshal([]byte(text), &in) != nil {
		return nil
	}
	out := make(resources.Resources, 0, len(in))
	for _, m := range in {
		out = append(out, resources.Resource(m))
	}
	return out
}

// PersistentVolume is the name of the volume that holds a role's persistent
// data, the same whenever it is asked for: IDs are unique within a role only.
func PersistentVolume(owner task.Owner, role, id string) string {
	sum := sha256.Sum256([]byte(owner.Cluster + "\x00" + owner.Agent + "\x00" + role + "\x00" + id))
	return "mesopool-" + owner.Cluster + "-" + hex.EncodeToString(sum[:12])
}
