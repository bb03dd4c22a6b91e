package endpoint

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mesopool/mesopool/endpoint/backend"
)

// moment is a time as Docker writes it; never is year one.
func moment(t time.Time) string {
	if t.IsZero() {
		return "0001-01-01T00:00:00Z"
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

func (c *call) containerInspect() error {
	got, err := c.s.cloud.Container(c.acct, c.args[0])
	if err != nil {
		return err
	}
	return c.give(inspected(got))
}

// inspected has the keys of sdc-docker's lib/backends/sdc/utils.js
// vmobjToInspect and no others: State has no Status, NetworkSettings no
// Networks, and there are no Mounts.
func inspected(c *Container) map[string]any {
	argv := slices.Concat(c.Entrypoint, c.Cmd)
	return map[string]any{
		"Id": c.ID, "Name": "/" + c.Name, "Created": moment(c.Created), "Path": argv[0], "Args": append([]string{}, argv[1:]...),
		"Image": c.Image, "Driver": "sdc", "ExecDriver": "sdc-0.7.11", "HostnamePath": "", "HostsPath": "", "LogPath": "", "MountLabel": "",
		"ProcessLabel": "", "ResolvConfPath": "", "ExecIDs": nil, "RestartCount": c.Restarts, "AppArmorProfile": "",
		"Volumes": volumeView(c), "VolumesRW": map[string]bool{},
		"State": stateView(c), "Config": configView(c), "HostConfig": hostView(c), "NetworkSettings": networkSettings(c),
	}
}

func volumeView(c *Container) map[string]string {
	all := map[string]string{}
	for _, v := range c.Volumes {
		all[v] = ""
	}
	return all
}

func stateView(c *Container) map[string]any {
	finished := c.Finished
	if c.Phase == backend.Running {
		finished = time.Time{}
	}
	return map[string]any{
		"Error": c.State.Error, "ExitCode": c.ExitCode, "FinishedAt": moment(finished), "OOMKilled": false, "Paused": false,
		"Pid": c.Pid, "Restarting": false, "Running": c.Phase == backend.Running, "StartedAt": moment(c.Started),
	}
}

// set makes Docker's map of nothing.
func set(names []string) map[string]any {
	all := map[string]any{}
	for _, n := range names {
		all[n] = map[string]any{}
	}
	return all
}

func configView(c *Container) map[string]any {
	bytes := int64(c.MemoryMiB) << 20
	return map[string]any{
		"Hostname": c.Hostname, "Domainname": c.Domain, "User": c.User, "Memory": bytes, "MemorySwap": bytes * 2, "CpuShares": c.CPUShares,
		"Cpuset": "", "AttachStdin": c.OpenStdin, "AttachStdout": true, "AttachStderr": true, "PortSpecs": nil,
		"ExposedPorts": set(sortedUnion(c.Exposed, c.Published)), "Tty": c.TTY, "OpenStdin": c.OpenStdin, "StdinOnce": c.StdinOnce,
		"Env": append([]string{}, c.Env...), "Cmd": c.Cmd, "Entrypoint": c.Entrypoint, "Image": c.ImageName, "Volumes": set(c.Volumes),
		"WorkingDir": c.WorkDir, "NetworkDisabled": false, "OnBuild": nil, "Labels": c.allLabels(),
	}
}

func hostView(c *Container) map[string]any {
	var links, from []string
	for _, l := range c.Links {
		links = append(links, "/"+l.Name+":/"+c.Name+"/"+l.Alias)
	}
	for _, s := range c.VolumesFrom {
		from = append(from, s.ID)
	}
	options := map[string]string{}
	maps.Copy(options, c.LogOptions)
	return map[string]any{
		"Binds": nil, "ContainerIDFile": "", "Memory": int64(c.MemoryMiB) << 20, "MemorySwap": int64(c.MemoryMiB) << 21, "CpuShares": c.CPUShares,
		"CpusetCpus": "", "LxcConf": []any{}, "PortBindings": bindingView(c, false), "Links": links, "PublishAllPorts": false,
		"Dns": c.DNS, "DnsSearch": c.DNSSearch, "ExtraHosts": c.ExtraHosts, "VolumesFrom": from, "Devices": []any{}, "NetworkMode": "bridge",
		"RestartPolicy": map[string]any{"Name": c.Restart.Name, "MaximumRetryCount": c.Restart.Max},
		"LogConfig":     map[string]any{"Type": c.LogDriver, "Config": options},
	}
}

// bindingView maps each port to where it is published; with all, also those
// that are not.
func bindingView(c *Container, all bool) map[string]any {
	out := map[string]any{}
	if all {
		for _, p := range c.Exposed {
			out[p] = nil
		}
	}
	for _, p := range c.Published {
		port, _, _ := strings.Cut(p, "/")
		out[p] = []map[string]string{{"HostIp": "0.0.0.0", "HostPort": port}}
	}
	return out
}

// networkSettings tells the primary address only; before there is one, the
// ports are all.
func networkSettings(c *Container) map[string]any {
	out := map[string]any{"Ports": bindingView(c, true)}
	if len(c.NICs) == 0 {
		return out
	}
	n := c.NICs[0]
	gateway := ""
	if n.Gateway.IsValid() {
		gateway = n.Gateway.String()
	}
	maps.Copy(out, map[string]any{
		"Bridge": "", "Gateway": gateway, "IPAddress": n.IP.String(), "IPPrefixLen": n.Bits, "MacAddress": n.MAC, "PortMapping": nil,
	})
	return out
}
