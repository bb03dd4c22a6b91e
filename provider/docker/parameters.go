package docker

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/go-connections/nat"
	"github.com/docker/go-units"

	"github.com/mesopool/mesopool/task"
)

// setters translate flags of `docker run` by their long names.
var setters = map[string]func(r *request, value string) error{
	"add-host":          list(func(r *request) *[]string { return &r.host.ExtraHosts }),
	"cap-add":           (*request).capAdd,
	"cap-drop":          list(func(r *request) *[]string { return (*[]string)(&r.host.CapDrop) }),
	"cpu-period":        number(func(r *request) *int64 { return &r.host.CPUPeriod }),
	"cpu-quota":         number(func(r *request) *int64 { return &r.host.CPUQuota }),
	"cpuset-cpus":       text(func(r *request) *string { return &r.host.CpusetCpus }),
	"cpuset-mems":       text(func(r *request) *string { return &r.host.CpusetMems }),
	"dns":               list(func(r *request) *[]string { return &r.host.DNS }),
	"dns-opt":           list(func(r *request) *[]string { return &r.host.DNSOptions }),
	"dns-option":        list(func(r *request) *[]string { return &r.host.DNSOptions }),
	"dns-search":        list(func(r *request) *[]string { return &r.host.DNSSearch }),
	"domainname":        text(func(r *request) *string { return &r.config.Domainname }),
	"entrypoint":        (*request).entrypoint,
	"env":               (*request).envVar,
	"expose":            (*request).exposeFlag,
	"group-add":         list(func(r *request) *[]string { return &r.host.GroupAdd }),
	"hostname":          text(func(r *request) *string { return &r.config.Hostname }),
	"init":              pointer(func(r *request, v bool) { r.host.Init = &v }, strconv.ParseBool),
	"ip":                text(func(r *request) *string { return &r.ip }),
	"ipc":               (*request).ipc,
	"label":             (*request).label,
	"link":              list(func(r *request) *[]string { return &r.links }),
	"log-driver":        text(func(r *request) *string { return &r.host.LogConfig.Type }),
	"log-opt":           (*request).logOpt,
	"mac-address":       text(func(r *request) *string { return &r.mac }),
	"memory-swap":       size(func(r *request) *int64 { return &r.host.MemorySwap }),
	"memory-swappiness": pointer(func(r *request, v int64) { r.host.MemorySwappiness = &v }, parseInt),
	"net":               list(func(r *request) *[]string { return &r.networks }),
	"net-alias":         list(func(r *request) *[]string { return &r.aliases }),
	"network":           list(func(r *request) *[]string { return &r.networks }),
	"network-alias":     list(func(r *request) *[]string { return &r.aliases }),
	"oom-score-adj":     (*request).oomScore,
	"pids-limit":        pointer(func(r *request, v int64) { r.host.PidsLimit = &v }, parseInt),
	"privileged":        flag(func(r *request) *bool { return &r.host.Privileged }),
	"read-only":         flag(func(r *request) *bool { return &r.host.ReadonlyRootfs }),
	"security-opt":      (*request).securityOpt,
	"shm-size":          size(func(r *request) *int64 { return &r.host.ShmSize }),
	"stop-signal":       text(func(r *request) *string { return &r.config.StopSignal }),
	"stop-timeout":      pointer(func(r *request, v int64) { n := int(v); r.config.StopTimeout = &n }, parseInt),
	"storage-opt":       pair(func(r *request) *map[string]string { return &r.host.StorageOpt }),
	"sysctl":            pair(func(r *request) *map[string]string { return &r.host.Sysctls }),
	"tmpfs":             (*request).tmpfs,
	"tty":               flag(func(r *request) *bool { return &r.config.Tty }),
	"ulimit":            (*request).ulimit,
	"user":              text(func(r *request) *string { return &r.config.User }),
	"volume":            (*request).volumeFlag,
	"volume-driver":     text(func(r *request) *string { return &r.driver }),
	"workdir":           text(func(r *request) *string { return &r.config.WorkingDir }),
}

// ignored are flags of old definitions that need no translation, with the
// reason that is logged.
var ignored = map[string]string{
	"restart":     "ended tasks are replaced by their framework",
	"memory":      "the task's own resources bound its memory",
	"cpu-shares":  "the task's own resources give its shares",
	"name":        "containers are named after their task",
	"publish":     "every container has an address of its own",
	"publish-all": "every container has an address of its own",
	"rm":          "containers are removed when their end is acknowledged",
	"detach":      "tasks always run in the background",
}

// aliases of flags that have a short form.
var longNames = map[string]string{
	"e": "env", "h": "hostname", "l": "label", "u": "user", "v": "volume", "w": "workdir", "p": "publish", "m": "memory", "t": "tty",
}

// parameters applies the task's parameters in order.
func (r *request) parameters(s *task.Spec) error {
	for _, p := range s.Parameters {
		name := strings.TrimLeft(p.Key, "-")
		if long, ok := longNames[name]; ok {
			name = long
		}
		if why, ok := ignored[name]; ok {
			r.notes = append(r.notes, name+"="+p.Value+": "+why)
			continue
		}
		set, ok := setters[name]
		if !ok {
			return reject("the Docker parameter %q (value %q) is not supported; remove it from the task", p.Key, p.Value)
		}
		if err := set(r, p.Value); err != nil {
			return reject("the Docker parameter %s=%s: %v", name, p.Value, err)
		}
	}
	return nil
}

func text(field func(*request) *string) func(*request, string) error {
	return func(r *request, v string) error { *field(r) = v; return nil }
}

func list(field func(*request) *[]string) func(*request, string) error {
	return func(r *request, v string) error { *field(r) = append(*field(r), v); return nil }
}

func flag(field func(*request) *bool) func(*request, string) error {
	return func(r *request, v string) (err error) {
		*field(r) = true
		if v != "" {
			*field(r), err = strconv.ParseBool(v)
		}
		return err
	}
}

func parseInt(v string) (int64, error) { return strconv.ParseInt(v, 10, 64) }

func number(field func(*request) *int64) func(*request, string) error {
	return func(r *request, v string) (err error) { *field(r), err = parseInt(v); return err }
}

func size(field func(*request) *int64) func(*request, string) error {
	return func(r *request, v string) (err error) {
		if *field(r) = -1; v != "-1" {
			*field(r), err = units.RAMInBytes(v)
		}
		return err
	}
}

func pointer[T any](set func(*request, T), parse func(string) (T, error)) func(*request, string) error {
	return func(r *request, text string) error {
		v, err := parse(text)
		if err == nil {
			set(r, v)
		}
		return err
	}
}

func pair(field func(*request) *map[string]string) func(*request, string) error {
	return func(r *request, v string) error {
		key, value, ok := strings.Cut(v, "=")
		if !ok {
			return errWantPair
		}
		if *field(r) == nil {
			*field(r) = map[string]string{}
		}
		(*field(r))[key] = value
		return nil
	}
}

type parameterError string

func (e parameterError) Error() string { return string(e) }

const (
	errWantPair parameterError = "want name=value"
	errHostIPC  parameterError = "only private, shareable and none are offered; there is no host to share with"
	errHostPath parameterError = "a host path cannot be mounted: tasks run on no particular host; use a named volume"
	errNoPath   parameterError = "want volume:/path/in/container[:ro]"
	errRights   parameterError = "it gives power over the engine's host, which is not allowed here"
)

func (r *request) label(v string) error {
	key, value, _ := strings.Cut(v, "=")
	r.config.Labels[key] = value
	return nil
}

func (r *request) envVar(v string) error {
	if !strings.Contains(v, "=") {
		return errWantPair
	}
	r.config.Env = append(r.config.Env, v)
	return nil
}

func (r *request) entrypoint(v string) error {
	r.config.Entrypoint = []string{v}
	return nil
}

func (r *request) exposeFlag(v string) error {
	port, proto, ok := strings.Cut(v, "/")
	if !ok {
		proto = "tcp"
	}
	p, err := nat.NewPort(proto, port)
	if err == nil {
		r.expose(p)
	}
	return err
}

// hostRights are the capabilities that amount to the host's root.
var hostRights = []string{"ALL", "SYS_ADMIN", "SYS_MODULE", "SYS_RAWIO", "SYS_BOOT", "SYS_PTRACE", "DAC_READ_SEARCH", "BPF", "PERFMON"}

func (r *request) capAdd(v string) error {
	if slices.Contains(hostRights, strings.TrimPrefix(strings.ToUpper(v), "CAP_")) && !r.o.AllowPrivileged {
		return errRights
	}
	r.host.CapAdd = append(r.host.CapAdd, v)
	return nil
}

func (r *request) securityOpt(v string) error {
	if !r.o.AllowPrivileged && v != "no-new-privileges" && v != "no-new-privileges:true" && v != "no-new-privileges=true" {
		return errRights
	}
	r.host.SecurityOpt = append(r.host.SecurityOpt, v)
	return nil
}

func (r *request) ipc(v string) error {
	switch v {
	case "private", "shareable", "none":
		r.host.IpcMode = container.IpcMode(v)
		return nil
	}
	return errHostIPC
}

func (r *request) logOpt(v string) error {
	return pair(func(r *request) *map[string]string { return &r.host.LogConfig.Config })(r, v)
}

func (r *request) oomScore(v string) (err error) {
	r.host.OomScoreAdj, err = strconv.Atoi(v)
	return err
}

func (r *request) tmpfs(v string) error {
	dir, options, _ := strings.Cut(v, ":")
	if r.host.Tmpfs == nil {
		r.host.Tmpfs = map[string]string{}
	}
	r.host.Tmpfs[dir] = options
	return nil
}

func (r *request) ulimit(v string) error {
	u, err := units.ParseUlimit(v)
	if err == nil {
		r.host.Ulimits = append(r.host.Ulimits, u)
	}
	return err
}

// volumeFlag takes name:/path[:ro] and, for an anonymous volume, /path.
func (r *request) volumeFlag(v string) error {
	name, rest, named := strings.Cut(v, ":")
	switch {
	case !named && path.IsAbs(v):
		return r.volume(task.Volume{Container: v})
	case !named:
		return errNoPath
	case strings.ContainsAny(name, "/~") || strings.HasPrefix(name, "."):
		return errHostPath
	}
	target, mode, _ := strings.Cut(rest, ":")
	if !path.IsAbs(target) {
		return errNoPath
	}
	return r.volume(task.Volume{Name: name, Container: target, ReadOnly: slices.Contains(strings.Split(mode, ","), "ro")})
}
