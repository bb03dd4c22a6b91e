package link

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/mesopool/mesopool/mesos/convert"
	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
)

// verdict is a row of docs/agent.md: what the agent does with a field.
type verdict struct{ kind, remark string }

var fieldRow = regexp.MustCompile("^\\| `([A-Za-z0-9_.*]+\\.[a-z_*]+)` \\| (\\w+) \\| ?(.*?) ?\\|$")

func readVerdicts(t *testing.T) map[string]verdict {
	t.Helper()
	text, err := os.ReadFile("../../docs/agent.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text2, ok := strings.Cut(string(text), "## Every field")
	if !ok {
		t.Fatal("docs/agent.md has no part called Every field")
	}
	out := map[string]verdict{}
	for line := range strings.Lines(text2) {
		m := fieldRow.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		if _, twice := out[m[1]]; twice {
			t.Errorf("%s is listed twice", m[1])
		}
		out[m[1]] = verdict{m[2], m[3]}
	}
	return out
}

// fields lists the fields of a message and of all that it is made of.
func fields(d protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool) (out []string) {
	if seen[d.FullName()] || d.IsMapEntry() {
		return nil
	}
	seen[d.FullName()] = true
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		out = append(out, strings.TrimPrefix(string(f.FullName()), "mesos.v1."))
		if f.IsMap() {
			f = f.MapValue()
		}
		if m := f.Message(); m != nil {
			out = append(out, fields(m, seen)...)
		}
	}
	return out
}

// covers says whether a row, which may end in *, is about a field.
func covers(row, field string) bool {
	prefix, all := strings.CutSuffix(row, "*")
	return row == field || all && strings.HasPrefix(field, prefix)
}

// TestEveryFieldHasAVerdict: what a TaskInfo can say is done, translated or
// refused, and the table says which.
func TestEveryFieldHasAVerdict(t *testing.T) {
	verdicts, used := readVerdicts(t), map[string]bool{}
	for _, field := range fields((&mesosv1.TaskInfo{}).ProtoReflect().Descriptor(), map[protoreflect.FullName]bool{}) {
		n := 0
		for row := range verdicts {
			if covers(row, field) {
				used[row] = true
				n++
			}
		}
		if n != 1 {
			t.Errorf("%s has %d rows in docs/agent.md, want one", field, n)
		}
	}
	for row, v := range verdicts {
		if !used[row] {
			t.Errorf("%s is in docs/agent.md and not in the protocol", row)
		}
		if !slices.Contains([]string{"done", "translated", "refused"}, v.kind) {
			t.Errorf("%s is %q", row, v.kind)
		}
	}
}

// refusedTasks are tasks that have a field which is refused.
func refusedTasks() map[string]*mesosv1.TaskInfo {
	container := func(c *mesosv1.ContainerInfo) *mesosv1.TaskInfo {
		c.Type = mesosv1.ContainerInfo_MESOS.Enum()
		return &mesosv1.TaskInfo{Container: c}
	}
	image := func(i *mesosv1.Image) *mesosv1.TaskInfo {
		return container(&mesosv1.ContainerInfo{Mesos: &mesosv1.ContainerInfo_MesosInfo{Image: i}})
	}
	volume := func(v *mesosv1.Volume) *mesosv1.TaskInfo {
		v.ContainerPath = new("/x")
		return container(&mesosv1.ContainerInfo{Volumes: []*mesosv1.Volume{v}})
	}
	source := func(kind mesosv1.Volume_Source_Type) *mesosv1.TaskInfo {
		return volume(&mesosv1.Volume{Source: &mesosv1.Volume_Source{
			Type: &kind, HostPath: &mesosv1.Volume_Source_HostPath{Path: new("/srv"), MountPropagation: &mesosv1.MountPropagation{}},
		}})
	}
	appc := image(&mesosv1.Image{Type: mesosv1.Image_APPC.Enum(), Appc: &mesosv1.Image_Appc{Name: new("x")}})
	credential := image(&mesosv1.Image{Type: mesosv1.Image_DOCKER.Enum(), Docker: &mesosv1.Image_Docker{Name: new("x"), Credential: &mesosv1.Credential{}}})
	secret := &mesosv1.TaskInfo{Command: &mesosv1.CommandInfo{Environment: &mesosv1.Environment{Variables: []*mesosv1.Environment_Variable{{
		Name: new("PW"), Type: mesosv1.Environment_Variable_SECRET.Enum(),
		Secret: &mesosv1.Secret{Type: mesosv1.Secret_REFERENCE.Enum(), Reference: &mesosv1.Secret_Reference{Name: new("pw")}},
	}}}}}
	host, sandbox, csi := source(mesosv1.Volume_Source_HOST_PATH), source(mesosv1.Volume_Source_SANDBOX_PATH), source(mesosv1.Volume_Source_CSI_VOLUME)
	disk := &mesosv1.TaskInfo{Resources: []*mesosv1.Resource{{
		Name: new("disk"), Type: mesosv1.Value_SCALAR.Enum(), Scalar: &mesosv1.Value_Scalar{Value: new(1.0)},
		Disk: &mesosv1.Resource_DiskInfo{Source: &mesosv1.Resource_DiskInfo_Source{Type: mesosv1.Resource_DiskInfo_Source_MOUNT.Enum()}},
	}}}
	return map[string]*mesosv1.TaskInfo{
		"Secret.reference": secret, "Secret.Reference.name": secret, "Secret.Reference.key": secret,
		"Image.appc": appc, "Image.Appc.name": appc, "Image.Appc.id": appc, "Image.Appc.labels": appc,
		"Image.Docker.credential": credential, "Credential.principal": credential, "Credential.secret": credential,
		"NetworkInfo.groups":            container(&mesosv1.ContainerInfo{NetworkInfos: []*mesosv1.NetworkInfo{{Groups: []string{"db"}}}}),
		"LinuxInfo.share_pid_namespace": container(&mesosv1.ContainerInfo{LinuxInfo: &mesosv1.LinuxInfo{SharePidNamespace: new(true)}}),
		"LinuxInfo.ipc_mode":            container(&mesosv1.ContainerInfo{LinuxInfo: &mesosv1.LinuxInfo{IpcMode: mesosv1.LinuxInfo_SHARE_PARENT.Enum()}}),
		"SeccompInfo.profile_name":      container(&mesosv1.ContainerInfo{LinuxInfo: &mesosv1.LinuxInfo{Seccomp: &mesosv1.SeccompInfo{ProfileName: new("x")}}}),
		"Volume.host_path":              volume(&mesosv1.Volume{HostPath: new("/srv")}),
		"Volume.image":                  volume(&mesosv1.Volume{Image: &mesosv1.Image{}}),
		"Volume.Source.host_path":       host, "Volume.Source.HostPath.*": host, "MountPropagation.mode": host,
		"Volume.Source.sandbox_path": sandbox, "Volume.Source.SandboxPath.*": sandbox, "Volume.Source.secret": source(mesosv1.Volume_Source_SECRET),
		"Volume.Source.csi_volume": csi, "Volume.Source.CSIVolume.*": csi,
		"Resource.DiskInfo.source": disk, "Resource.DiskInfo.Source.*": disk,
	}
}

// TestRefusalsHaveTheirWords: what the table calls refused is refused, in those
// words.
func TestRefusalsHaveTheirWords(t *testing.T) {
	verdicts, tasks := readVerdicts(t), refusedTasks()
	for row, v := range verdicts {
		_, rest, quoted := strings.Cut(v.remark, `"`)
		words, _, _ := strings.Cut(rest, `"`)
		info := tasks[row]
		switch {
		case v.kind != "refused" && info == nil:
			continue
		case info == nil || !quoted:
			t.Errorf("%s is refused: no words in docs/agent.md, or no task here that shows it", row)
			continue
		}
		s, err := convert.Spec("f1", info)
		if err == nil {
			err = unsupported(&s)
		}
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v, want %q", row, err, words)
		}
	}
	for row := range tasks {
		if _, ok := verdicts[row]; !ok {
			t.Errorf("%s is not in docs/agent.md", row)
		}
	}
}
