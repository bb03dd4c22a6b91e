package convert

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
	"github.com/mesopool/mesopool/task"
)

// readLinux translates what Mesos' own containerizer knows of the kernel into
// Docker's flags.
func readLinux(s *task.Spec, c *mesosv1.ContainerInfo) error {
	flag := func(name, value string) {
		s.Parameters = append(s.Parameters, task.Label{Key: name, Value: value})
	}
	if err := readRLimits(c.GetRlimitInfo(), flag); err != nil {
		return err
	}
	l := c.GetLinuxInfo()
	switch {
	case l.GetSharePidNamespace():
		return errors.New("the processes of other containers cannot be shared (share_pid_namespace): tasks run on no particular host")
	case l.GetIpcMode() == mesosv1.LinuxInfo_SHARE_PARENT:
		return errors.New("the memory of other containers cannot be shared (ipc_mode SHARE_PARENT): tasks run on no particular host")
	case l.GetSeccomp().GetProfileName() != "":
		return fmt.Errorf("the seccomp profile %q is not known to this agent; only the engine's own is offered", l.GetSeccomp().GetProfileName())
	case l.GetSeccomp().GetUnconfined():
		flag("security-opt", "seccomp=unconfined")
	}
	if l.GetShmSize() > 0 { // MiB
		flag("shm-size", strconv.FormatUint(uint64(l.GetShmSize()), 10)+"m")
	}
	readCapabilities(l, flag)
	return nil
}

// readCapabilities: a container has exactly the effective capabilities that are
// named (the older field says the same); a bound alone is what it has.
func readCapabilities(l *mesosv1.LinuxInfo, flag func(name, value string)) {
	for _, info := range []*mesosv1.CapabilityInfo{l.GetEffectiveCapabilities(), l.GetCapabilityInfo(), l.GetBoundingCapabilities()} {
		if info == nil {
			continue
		}
		flag("cap-drop", "ALL")
		for _, c := range info.Capabilities {
			flag("cap-add", c.String())
		}
		return
	}
}

func readRLimits(in *mesosv1.RLimitInfo, flag func(name, value string)) error {
	bound := func(v *uint64) string {
		if v == nil {
			return "-1"
		}
		return strconv.FormatUint(*v, 10)
	}
	for _, r := range in.GetRlimits() {
		name, known := strings.CutPrefix(r.GetType().String(), "RLMT_")
		if !known {
			return fmt.Errorf("a resource limit (rlimit) is of type %v, which is not known", r.GetType())
		}
		if (r.Hard == nil) != (r.Soft == nil) { // mesos: rlimits.cpp, set
			return fmt.Errorf("the resource limit %s has only one of soft and hard; it needs both or none", name)
		}
		flag("ulimit", strings.ToLower(name)+"="+bound(r.Soft)+":"+bound(r.Hard))
	}
	return nil
}
