package server

import (
	"fmt"
	"math"
	"strings"

	mesosv1 "github.com/mesopool/mesopool/mesos/v1"
)

// taskProblem says what is wrong with a task as far as it can be seen from the
// task alone, "" when nothing is. Order and words are Mesos'
// (master/validation.cpp, task::validate); that the ID is new, the agent is the
// offer's and the resources fit is checked by the core.
func taskProblem(t *mesosv1.TaskInfo, limits bool) string {
	for _, check := range []func(*mesosv1.TaskInfo) string{
		func(t *mesosv1.TaskInfo) string { return idProblem(t.GetTaskId().GetValue()) },
		killPolicyProblem, completionProblem, checkProblem, healthProblem, taskResourcesProblem,
		func(t *mesosv1.TaskInfo) string { return limitsProblem(t, limits) },
		taskCommandProblem, taskContainerProblem, taskExecutorProblem,
	} {
		if problem := check(t); problem != "" {
			return problem
		}
	}
	return ""
}

const maxID = 255 // NAME_MAX: IDs become names of directories

// idProblem is common/validation.cpp, validateID.
func idProblem(id string) string {
	switch {
	case id == "":
		return "ID must not be empty"
	case len(id) > maxID:
		return fmt.Sprintf("ID must not be greater than %d characters", maxID)
	case id == "." || id == "..":
		return fmt.Sprintf("'%s' is disallowed", id)
	case strings.ContainsFunc(id, func(c rune) bool { return c < ' ' || c == 0x7f || c == '/' || c == '\\' }):
		return fmt.Sprintf("'%s' contains invalid characters", id)
	}
	return ""
}

func killPolicyProblem(t *mesosv1.TaskInfo) string {
	if t.GetKillPolicy().GetGracePeriod().GetNanoseconds() < 0 {
		return "Task's 'kill_policy.grace_period' must be non-negative"
	}
	return ""
}

func completionProblem(t *mesosv1.TaskInfo) string {
	if t.GetMaxCompletionTime().GetNanoseconds() < 0 {
		return "Task's `max_completion_time` must be non-negative"
	}
	return ""
}

func prefixed(prefix, problem string) string {
	if problem == "" {
		return ""
	}
	return prefix + problem
}

func checkProblem(t *mesosv1.TaskInfo) string {
	c := t.Check
	if c == nil {
		return ""
	}
	problem := ""
	switch c.GetType() {
	case mesosv1.CheckInfo_COMMAND:
		problem = "Expecting 'command' to be set for COMMAND check"
		if c.Command != nil {
			problem = prefixed("Check's `CommandInfo` is invalid: ", commandProblem(c.Command.Command))
		}
	case mesosv1.CheckInfo_HTTP:
		problem = "Expecting 'http' to be set for HTTP check"
		if c.Http != nil {
			problem = pathProblem("check", c.Http.GetPath())
		}
	case mesosv1.CheckInfo_TCP:
		if c.Tcp == nil {
			problem = "Expecting 'tcp' to be set for TCP check"
		}
	default:
		problem = "CheckInfo must specify 'type'"
	}
	if problem == "" {
		problem = timesProblem(c.GetDelaySeconds(), c.GetIntervalSeconds(), c.GetTimeoutSeconds(), 0)
	}
	return prefixed("Task uses invalid check: ", problem)
}

func healthProblem(t *mesosv1.TaskInfo) string {
	h := t.HealthCheck
	if h == nil {
		return ""
	}
	problem := healthTypeProblem(h)
	if problem == "" {
		problem = timesProblem(h.GetDelaySeconds(), h.GetIntervalSeconds(), h.GetTimeoutSeconds(), h.GetGracePeriodSeconds())
	}
	return prefixed("Task uses invalid health check: ", problem)
}

func healthTypeProblem(h *mesosv1.HealthCheck) string {
	switch h.GetType() {
	case mesosv1.HealthCheck_COMMAND:
		if h.Command == nil {
			return "Expecting 'command' to be set for COMMAND health check"
		}
		return prefixed("Health check's `CommandInfo` is invalid: ", commandProblem(h.Command))
	case mesosv1.HealthCheck_HTTP:
		if h.Http == nil {
			return "Expecting 'http' to be set for HTTP health check"
		}
		if s := h.Http.GetScheme(); s != "" && s != "http" && s != "https" {
			return fmt.Sprintf("Unsupported HTTP health check scheme: '%s'", s)
		}
		return pathProblem("health check", h.Http.GetPath())
	case mesosv1.HealthCheck_TCP:
		if h.Tcp == nil {
			return "Expecting 'tcp' to be set for TCP health check"
		}
		return ""
	}
	if h.Type == nil {
		return "HealthCheck must specify 'type'"
	}
	return fmt.Sprintf("'%s' is not a valid health check type", h.GetType())
}

func pathProblem(kind, path string) string {
	if path != "" && path[0] != '/' {
		return fmt.Sprintf("The path '%s' of HTTP %s must start with '/'", path, kind)
	}
	return ""
}

func timesProblem(delay, interval, timeout, grace float64) string {
	for _, x := range []struct {
		name  string
		value float64
	}{
		{"delay_seconds", delay},
		{"interval_seconds", interval},
		{"timeout_seconds", timeout},
		{"grace_period_seconds", grace},
	} {
		if x.value < 0 || math.IsNaN(x.value) {
			return fmt.Sprintf("Expecting '%s' to be non-negative", x.name)
		}
	}
	return ""
}

func taskResourcesProblem(t *mesosv1.TaskInfo) string {
	if len(t.Resources) == 0 {
		return "Task uses no resources"
	}
	all := t.Resources
	if t.Executor != nil {
		all = append(all[:len(all):len(all)], t.Executor.Resources...)
	}
	return prefixed("Task uses invalid resources: ", resourcesProblem(all))
}

// resourcesProblem checks resources that are used together.
func resourcesProblem(list []*mesosv1.Resource) string {
	revocable, volumes := map[string]bool{}, map[string]bool{}
	role := list[0].GetAllocationInfo().GetRole()
	for _, r := range list {
		if got := r.GetAllocationInfo().GetRole(); got != role {
			return fmt.Sprintf("The resources have multiple allocation roles ('%s' and '%s') but only one allocation role is allowed", role, got)
		}
		if before, seen := revocable[r.GetName()]; seen && before != (r.Revocable != nil) {
			return fmt.Sprintf("Cannot use both revocable and non-revocable '%s' at the same time", r.GetName())
		}
		revocable[r.GetName()] = r.Revocable != nil
		if v := r.GetScalar().GetValue(); r.GetName() == "gpus" && v != math.Trunc(v) {
			return "The 'gpus' resource must be an unsigned integer"
		}
		if problem := volumeIDProblem(r, volumes); problem != "" {
			return problem
		}
	}
	return ""
}

// volumeIDProblem notes a persistent volume among those seen.
func volumeIDProblem(r *mesosv1.Resource, seen map[string]bool) string {
	p := r.GetDisk().GetPersistence()
	if p == nil {
		return ""
	}
	if len(r.Reservations) == 0 {
		return "Persistent volumes cannot be created from unreserved resources"
	}
	id := r.GetProviderId().GetValue() + "/" + r.Reservations[len(r.Reservations)-1].GetRole() + "/" + p.GetId()
	if seen[id] && r.Shared == nil {
		return fmt.Sprintf("Persistence ID '%s' is not unique", p.GetId())
	}
	seen[id] = true
	return ""
}

func limitsProblem(t *mesosv1.TaskInfo, capable bool) string {
	if len(t.Limits) == 0 {
		return ""
	}
	if !capable {
		return "Task resource limits are not supported on the agent: it lacks the TASK_RESOURCE_LIMITS capability"
	}
	for _, name := range []string{"cpus", "mem"} {
		limit, set := t.Limits[name]
		if set && limit.GetValue() < amountOf(t.Resources, name) {
			return fmt.Sprintf("Task's %s limit %v is less than its request %v", name, limit.GetValue(), amountOf(t.Resources, name))
		}
	}
	for name := range t.Limits {
		if name != "cpus" && name != "mem" {
			return fmt.Sprintf("Task resource limits are only allowed for 'cpus' and 'mem', not for '%s'", name)
		}
	}
	return ""
}

func amountOf(list []*mesosv1.Resource, name string) (sum float64) {
	for _, r := range list {
		if r.GetName() == name {
			sum += r.GetScalar().GetValue()
		}
	}
	return sum
}

func taskCommandProblem(t *mesosv1.TaskInfo) string {
	if t.Command == nil {
		return ""
	}
	return prefixed("Task's `CommandInfo` is invalid: ", commandProblem(t.Command))
}

// commandProblem is common/validation.cpp, validateCommandInfo.
func commandProblem(c *mesosv1.CommandInfo) string {
	for _, v := range c.GetEnvironment().GetVariables() {
		switch v.GetType() {
		case mesosv1.Environment_Variable_SECRET:
			if v.Secret == nil {
				return fmt.Sprintf("Environment variable '%s' of type 'SECRET' must have a secret set", v.GetName())
			}
			if v.Value != nil {
				return fmt.Sprintf("Environment variable '%s' of type 'SECRET' must not have a value set", v.GetName())
			}
		case mesosv1.Environment_Variable_VALUE:
			if v.Value == nil {
				return fmt.Sprintf("Environment variable '%s' of type 'VALUE' must have a value set", v.GetName())
			}
		default:
			return "Environment variable of type 'UNKNOWN' is not allowed"
		}
	}
	return ""
}

func taskContainerProblem(t *mesosv1.TaskInfo) string {
	if t.Container == nil {
		return ""
	}
	return prefixed("Task's `ContainerInfo` is invalid: ", containerProblem(t.Container))
}

// containerProblem is common/validation.cpp, validateContainerInfo.
func containerProblem(c *mesosv1.ContainerInfo) string {
	for _, v := range c.Volumes {
		if problem := volumeProblem(v); problem != "" {
			return "Invalid volume: " + problem
		}
	}
	if c.GetType() != mesosv1.ContainerInfo_DOCKER {
		return ""
	}
	if c.Docker == nil {
		return "DockerInfo 'docker' is not set for DOCKER typed ContainerInfo"
	}
	for _, p := range c.Docker.Parameters {
		if p.GetKey() == "name" {
			return "Parameter in DockerInfo must not be 'name'"
		}
	}
	return ""
}

func volumeProblem(v *mesosv1.Volume) string {
	kinds := 0
	for _, set := range []bool{v.HostPath != nil, v.Image != nil, v.Source != nil} {
		if set {
			kinds++
		}
	}
	if kinds != 1 {
		return "Only one of them should be set: 'host_path', 'image' and 'source'"
	}
	if v.Source == nil {
		return ""
	}
	return sourceProblem(v.Source)
}

func sourceProblem(s *mesosv1.Volume_Source) string {
	missing := ""
	switch s.GetType() {
	case mesosv1.Volume_Source_DOCKER_VOLUME:
		if s.DockerVolume == nil {
			missing = "docker_volume"
		}
	case mesosv1.Volume_Source_HOST_PATH:
		if s.HostPath == nil {
			missing = "host_path"
		}
	case mesosv1.Volume_Source_SANDBOX_PATH:
		if s.SandboxPath == nil {
			missing = "sandbox_path"
		}
	case mesosv1.Volume_Source_SECRET:
		if s.Secret == nil {
			missing = "secret"
		}
	case mesosv1.Volume_Source_CSI_VOLUME:
		if s.CsiVolume == nil {
			missing = "csi_volume"
		}
	default:
		return "'source.type' is unknown"
	}
	if missing != "" {
		return fmt.Sprintf("'source.%s' is not set for %s volume", missing, s.GetType())
	}
	return ""
}

func taskExecutorProblem(t *mesosv1.TaskInfo) string {
	if (t.Executor != nil) == (t.Command != nil) {
		return "Task should have at least one (but not both) of CommandInfo or ExecutorInfo present"
	}
	if t.Executor == nil {
		return ""
	}
	if t.Executor.GetType() == mesosv1.ExecutorInfo_DEFAULT {
		return "'ExecutorInfo.type' of a LAUNCH must not be DEFAULT"
	}
	return executorProblem(t.Executor)
}

// executorProblem is what is wrong with an executor of either kind
// (master/validation.cpp, executor::internal::validate).
func executorProblem(e *mesosv1.ExecutorInfo) string {
	if problem := idProblem(e.GetExecutorId().GetValue()); problem != "" {
		return "Executor's ID is invalid: " + problem
	}
	if problem := executorTypeProblem(e); problem != "" {
		return problem
	}
	if e.GetShutdownGracePeriod().GetNanoseconds() < 0 {
		return "ExecutorInfo's 'shutdown_grace_period' must be non-negative"
	}
	if problem := commandProblem(e.Command); problem != "" {
		return "Executor's `CommandInfo` is invalid: " + problem
	}
	return prefixed("Executor's `ContainerInfo` is invalid: ", executorContainer(e))
}

func executorTypeProblem(e *mesosv1.ExecutorInfo) string {
	switch e.GetType() {
	case mesosv1.ExecutorInfo_DEFAULT:
		switch c := e.Container; {
		case e.Command != nil:
			return "'ExecutorInfo.command' must not be set for 'DEFAULT' executor"
		case c != nil && c.GetType() != mesosv1.ContainerInfo_MESOS:
			return "'ExecutorInfo.container.type' must be 'MESOS' for 'DEFAULT' executor"
		case c.GetMesos().GetImage() != nil:
			return "'ExecutorInfo.container.mesos.image' must not be set for 'DEFAULT' executor"
		}
	case mesosv1.ExecutorInfo_CUSTOM:
		if e.Command == nil {
			return "'ExecutorInfo.command' must be set for 'CUSTOM' executor"
		}
	}
	return ""
}

func executorContainer(e *mesosv1.ExecutorInfo) string {
	if e.Container == nil {
		return ""
	}
	return containerProblem(e.Container)
}
