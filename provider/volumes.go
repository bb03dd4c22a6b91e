package provider

import (
	"crypto/sha256"
	"encoding/hex"

	"github.com/mesopool/mesopool/task"
)

// VolumeName is the name of an owner's persistent volume, the same whenever it
// is asked for. IDs are unique within the role that reserved the disk
// (master/validation.cpp, validateUniquePersistenceID).
func VolumeName(owner task.Owner, role, id string) string {
	sum := sha256.Sum256([]byte(owner.Cluster + "\x00" + owner.Agent + "\x00" + role + "\x00" + id))
	return "mesopool-" + owner.Cluster + "-" + hex.EncodeToString(sum[:12])
}

// PersistentVolumes are the volumes that a task's resources stand for, by name:
// each where the resource says, and where volumes of the task have it besides.
func PersistentVolumes(owner task.Owner, s *task.Spec) []task.Volume {
	var out []task.Volume
	for i := range s.Resources {
		r := &s.Resources[i]
		if !r.Persistent() {
			continue
		}
		one := task.Volume{Name: VolumeName(owner, r.ReservedTo(), r.Disk.PersistenceID), Container: r.Disk.ContainerPath, ReadOnly: r.Disk.ReadOnly}
		out = append(out, one)
		for _, v := range s.Volumes {
			if s.FromSandbox(&v) && v.Host == r.Disk.ContainerPath {
				out = append(out, task.Volume{Name: one.Name, Container: v.Container, ReadOnly: v.ReadOnly || one.ReadOnly})
			}
		}
	}
	return out
}

// OwnerLabels are the labels that say whose something is that belongs to no
// task, such as a volume.
func OwnerLabels(owner task.Owner) map[string]string {
	return map[string]string{LabelCluster: owner.Cluster, LabelAgent: owner.Agent}
}
