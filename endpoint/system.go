package endpoint

import (
	"io"
	"net"
	"net/http"
	"runtime"

	"github.com/mesopool/mesopool/endpoint/backend"
)

func (c *call) ping() error {
	c.w.Header().Set("Content-Type", "text/plain")
	_, err := io.WriteString(c.w, "OK")
	return ignore(err)
}

func (c *call) caPEM() error {
	c.w.Header().Set("Content-Type", "application/x-pem-file")
	_, err := c.w.Write(c.s.cloud.authority.PEM())
	return ignore(err)
}

// auth takes any credentials: they are checked by the registry when used.
func (c *call) auth() error { return c.give(map[string]string{"Status": "Login Succeeded"}) }

// version has these keys only (sdc-docker: lib/endpoints/version.js).
func (c *call) version() error {
	return c.give(map[string]string{
		"ApiVersion": apiVersion, "Arch": "amd64", "BuildTime": c.s.cloud.started.UTC().Format(http.TimeFormat),
		"GitCommit": "mesopool", "GoVersion": runtime.Version(), "Os": "solaris", "Version": engineVersion,
	})
}

// info has these keys only (sdc-docker: lib/backends/sdc/sysinfo.js).
func (c *call) info() error {
	images, err := c.s.cloud.AccountImages(c.r.Context(), c.acct)
	if err != nil {
		return err
	}
	return c.give(map[string]any{
		"Architecture": "x86_64", "Driver": "sdc", "DriverStatus": [][]string{{"SDCAccount", c.acct.Login}}, "ExecutionDriver": "sdc-0.7.11",
		"KernelVersion": "3.12.0-1-amd64", "LoggingDriver": "json-file", "OperatingSystem": "SmartDataCenter", "OSType": "linux",
		"Name": c.s.cloud.cfg.Datacenter, "IndexServerAddress": "https://index.docker.io/v1/", "MemoryLimit": true, "SwapLimit": true,
		"IPv4Forwarding": true, "Containers": c.s.cloud.Usage(c.acct).Machines, "Images": len(images), "ID": backend.UUIDOf("endpoint/" + c.s.cloud.cfg.Datacenter),
	})
}

func networkView(n *backend.Network) map[string]any {
	kind, config := "Triton", []map[string]string{}
	if n.Subnet.IsValid() {
		config = append(config, map[string]string{"Subnet": n.Subnet.String(), "Gateway": n.Gateway.String()})
	}
	return map[string]any{
		"Name": n.Name, "Id": NetworkID(n), "Scope": "overlay", "Driver": kind,
		"IPAM": map[string]any{"Driver": "default", "Options": nil, "Config": config}, "Containers": map[string]any{}, "Options": map[string]string{},
	}
}

func (c *call) networkList() error {
	all, err := c.s.cloud.Networks(c.r.Context(), c.acct)
	if err != nil {
		return err
	}
	f, err := parseFilters(c.r.URL.Query().Get("filters"))
	if err != nil {
		return err
	}
	out := []any{}
	for i := range all {
		if f.accepts("name", all[i].Name) && f.accepts("id", NetworkID(&all[i])) {
			out = append(out, networkView(&all[i]))
		}
	}
	return c.give(out)
}

func (c *call) networkInspect() error {
	n, err := c.s.cloud.Network(c.r.Context(), c.acct, c.args[0])
	if err != nil {
		return err
	}
	view := networkView(n)
	members := map[string]any{}
	for _, got := range c.s.cloud.Containers(c.acct, nil) {
		for _, nic := range got.NICs {
			if nic.Network == n.Name {
				members[got.ID] = map[string]string{
					"Name": got.Name, "EndpointID": "", "MacAddress": nic.MAC,
					"IPv4Address": (&net.IPNet{IP: nic.IP.AsSlice(), Mask: net.CIDRMask(nic.Bits, 32)}).String(), "IPv6Address": "",
				}
			}
		}
	}
	view["Containers"] = members
	return c.give(view)
}
