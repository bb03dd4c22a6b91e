package endpoint

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
)

// request is a create call's body, of which only what Triton honours is read.
type request struct {
	image                           string
	cmd, entrypoint, env            []string
	user, workDir, hostname, domain string
	tty, openStdin, stdinOnce       bool
	labels                          map[string]string
	noLabels                        bool // Labels is null or absent
	volumes                         []string

	memory                     int64
	networkMode                string
	bindings                   map[string][]binding
	publishAll                 bool
	links, binds, volumesFrom  []string
	dns, dnsSearch, extraHosts []string
	restartName                string
	restartMax                 int
	logDriver                  string
	logOptions                 map[string]string
	exposed                    []string // ignored, for Strict
	ignored                    []string // names of fields that have no effect
}

type binding struct{ HostIp, HostPort string } //nolint:staticcheck // Docker's spelling

// decodeCreate reads and checks the types of a body.
func decodeCreate(text []byte) (*request, error) {
	var top fields
	if err := json.Unmarshal(text, &top); err != nil || top == nil {
		return nil, &Error{http.StatusBadRequest, "InvalidContent", "Invalid JSON: the body must be an object"}
	}
	host, err := hostConfig(top)
	if err != nil {
		return nil, err
	}
	r := &request{noLabels: !top.set("Labels")}
	if err := r.config(top); err != nil {
		return nil, err
	}
	if err := r.host(host); err != nil {
		return nil, err
	}
	r.ignored = append(notHonoured("", top, ignoredConfig), notHonoured("HostConfig.", host, ignoredHost)...)
	return r, nil
}

// hostConfig must be an object; null gets the words of the failure it causes
// (sdc-docker: lib/validate.js).
func hostConfig(top fields) (fields, error) {
	raw, there := top["HostConfig"]
	var host fields
	if !there {
		return nil, validation(`"HostConfig" must be an object`)
	}
	if !top.set("HostConfig") {
		return nil, internal("TypeError: Cannot read property 'Binds' of null")
	}
	if json.Unmarshal(raw, &host) != nil {
		return nil, validation(`"HostConfig" must be an object`)
	}
	return host, nil
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *request) config(f fields) error {
	if !f.set("Image") {
		return validation(`"Image" must be a string`)
	}
	var volumes, exposed map[string]json.RawMessage
	err := first(
		f.text("Image", &r.image), f.texts("Cmd", &r.cmd), f.texts("Entrypoint", &r.entrypoint), f.texts("Env", &r.env),
		f.text("User", &r.user), f.text("WorkingDir", &r.workDir), f.text("Hostname", &r.hostname), f.text("Domainname", &r.domain),
		f.flag("Tty", &r.tty), f.flag("OpenStdin", &r.openStdin), f.flag("StdinOnce", &r.stdinOnce),
		f.textMap("Labels", &r.labels), f.read("Volumes", &volumes, "an object"), f.read("ExposedPorts", &exposed, "an object"),
	)
	for v := range volumes {
		r.volumes = append(r.volumes, v)
	}
	for p := range exposed {
		r.exposed = append(r.exposed, p)
	}
	slices.Sort(r.volumes)
	slices.Sort(r.exposed)
	return err
}

func (r *request) host(f fields) error {
	var restart struct {
		Name              string
		MaximumRetryCount int
	}
	log := fields{}
	err := first(
		f.read("Memory", &r.memory, "a number"), f.text("NetworkMode", &r.networkMode), f.flag("PublishAllPorts", &r.publishAll),
		f.read("PortBindings", &r.bindings, "an object of arrays"), f.texts("Links", &r.links), f.texts("Binds", &r.binds),
		f.texts("VolumesFrom", &r.volumesFrom), f.texts("Dns", &r.dns), f.texts("DnsSearch", &r.dnsSearch), f.texts("ExtraHosts", &r.extraHosts),
		f.read("RestartPolicy", &restart, "an object"), f.read("LogConfig", &log, "an object"),
		log.text("Type", &r.logDriver), log.textMap("Config", &r.logOptions),
	)
	r.restartName, r.restartMax = restart.Name, restart.MaximumRetryCount
	return err
}

// What is never read of a create call (sdc-docker: lib/backends/sdc/containers.js).
var (
	ignoredConfig = []string{"Healthcheck", "StopSignal", "StopTimeout", "MacAddress", "Shell", "OnBuild", "NetworkingConfig"}
	ignoredHost   = []string{
		"AutoRemove", "BlkioDeviceReadBps", "BlkioDeviceReadIOps", "BlkioDeviceWriteBps", "BlkioDeviceWriteIOps", "BlkioWeight",
		"BlkioWeightDevice", "CapAdd", "CapDrop", "CgroupParent", "CgroupnsMode", "CpuCount", "CpuPercent", "CpuPeriod", "CpuQuota",
		"CpuRealtimePeriod", "CpuRealtimeRuntime", "CpuShares", "CpusetCpus", "CpusetMems", "DeviceCgroupRules", "DeviceRequests",
		"Devices", "DnsOptions", "GroupAdd", "Init", "IpcMode", "Isolation", "KernelMemory", "MemoryReservation", "MemorySwap",
		"MemorySwappiness", "Mounts", "NanoCpus", "OomKillDisable", "OomScoreAdj", "PidMode", "PidsLimit", "Privileged",
		"ReadonlyRootfs", "Runtime", "SecurityOpt", "ShmSize", "StorageOpt", "Sysctls", "Tmpfs", "Ulimits", "UTSMode", "UsernsMode",
	}
)

func notHonoured(at string, f fields, names []string) []string {
	var out []string
	for _, n := range names {
		unset := n == "MemorySwappiness" && string(f[n]) == "-1" // the docker command's way to say nothing
		if !unset && !empty(n, f[n]) {
			out = append(out, at+n)
		}
	}
	return out
}

// strict refuses what would silently be ignored.
func (r *request) strict(name string) error {
	bad := slices.Clone(r.ignored)
	for _, p := range r.exposed {
		if _, bound := r.bindings[p]; !bound && !r.publishAll {
			bad = append(bad, "ExposedPorts")
			break
		}
	}
	switch r.restartName {
	case "", "no", "always", "on-failure":
	default:
		bad = append(bad, "HostConfig.RestartPolicy "+r.restartName)
	}
	for _, b := range r.bindings {
		if len(b) > 1 || len(b) == 1 && b[0].HostIp != "" && b[0].HostIp != "0.0.0.0" {
			bad = append(bad, "HostConfig.PortBindings beyond the first port")
			break
		}
	}
	if len(bad) > 0 {
		return &Error{http.StatusUnprocessableEntity, "Strict", "Triton ignores " + strings.Join(bad, ", ") + "; leave it out"}
	}
	if name != strings.ToLower(name) || len(name) > MaxListedName {
		return &Error{http.StatusUnprocessableEntity, "Strict", "the name " + name + " is not found by name service: use at most 62 lower-case letters, digits and dashes"}
	}
	return nil
}
