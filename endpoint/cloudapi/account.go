package cloudapi

import (
	"net/http"
	"path"
	"slices"

	"github.com/mesopool/mesopool/endpoint"
	"github.com/mesopool/mesopool/endpoint/backend"
)

func (a *API) accountRoutes() {
	a.handle("GET /{account}", (*call).account)
	a.handle("GET /{account}/keys", (*call).keys)
	a.handle("POST /{account}/keys", (*call).addKey)
	a.handle("GET /{account}/keys/{key}", (*call).key)
	a.handle("DELETE /{account}/keys/{key}", (*call).deleteKey)
	a.handle("GET /{account}/datacenters", func(c *call) error {
		return c.give(http.StatusOK, map[string]string{a.cloud.Datacenter(): a.opt.URL})
	})
	a.handle("GET /{account}/services", func(c *call) error {
		return c.give(http.StatusOK, map[string]string{"cloudapi": a.opt.URL, "docker": a.opt.Docker})
	})
	a.handle("GET /{account}/config", (*call).config)
	a.handle("GET /{account}/limits", (*call).limits)
	a.handle("GET /{account}/packages", (*call).packages)
	a.handle("GET /{account}/packages/{package}", (*call).pack)
	// Docker's images are none of CloudAPI's (sdc-cloudapi: docs/index.md).
	a.handle("GET /{account}/images", func(c *call) error { return c.give(http.StatusOK, []any{}) })
	a.handle("GET /{account}/images/{image}", func(c *call) error { return absent("image " + c.PathValue("image")) })
	a.handle("GET /{account}/networks", (*call).networks)
	a.handle("GET /{account}/networks/{network}", (*call).network)
}

func (c *call) account() error {
	return c.give(http.StatusOK, map[string]any{
		"id": c.acct.UUID, "login": c.acct.Login, "email": c.acct.Email, "created": c.acct.Created, "updated": c.acct.Created,
		"triton_cns_enabled": true,
	})
}

func keyView(k *endpoint.Key) map[string]any {
	return map[string]any{"name": k.Name, "fingerprint": k.Fingerprint, "key": k.Key, "created": k.Created}
}

func (c *call) keys() error {
	out := []any{}
	for i := range c.acct.Keys {
		out = append(out, keyView(&c.acct.Keys[i]))
	}
	return c.give(http.StatusOK, out)
}

func sameKey(k *endpoint.Key, id string) bool { return k.Name == id || k.Fingerprint == id }

func (c *call) key() error {
	for i := range c.acct.Keys {
		if k := &c.acct.Keys[i]; sameKey(k, c.PathValue("key")) {
			return c.give(http.StatusOK, keyView(k))
		}
	}
	return absent("key " + c.PathValue("key"))
}

func (c *call) addKey() error {
	in, err := c.read()
	if err != nil {
		return err
	}
	k, err := endpoint.ParseKey(in["name"], in["key"])
	if err != nil {
		return invalid(err.Error())
	}
	_, err = c.api.cloud.Accounts().Change(c.acct.Login, func(a *endpoint.Account) error {
		taken := slices.ContainsFunc(a.Keys, func(o endpoint.Key) bool { return o.Name == k.Name || o.Fingerprint == k.Fingerprint })
		if taken || len(a.Keys) >= endpoint.MaxKeys {
			return invalid("a key of that name or fingerprint exists already, or there are too many")
		}
		a.Keys = append(a.Keys, k)
		return nil
	})
	if err != nil {
		return err
	}
	return c.give(http.StatusCreated, keyView(&k))
}

func (c *call) deleteKey() error {
	id := c.PathValue("key")
	_, err := c.api.cloud.Accounts().Change(c.acct.Login, func(a *endpoint.Account) error {
		left := slices.DeleteFunc(a.Keys, func(k endpoint.Key) bool { return sameKey(&k, id) })
		if len(left) == len(c.acct.Keys) {
			return absent("key " + id)
		}
		a.Keys = left
		return nil
	})
	if err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

func (c *call) config() error {
	n, err := c.api.cloud.Networks(c.Context(), c.acct)
	if err != nil {
		return err
	}
	return c.give(http.StatusOK, map[string]string{"default_network": n[0].UUID})
}

// limits tells what is bounded: RAM in MiB, quota in GiB
// (sdc-cloudapi: plugins/provision_limits.js).
func (c *call) limits() error {
	out := []any{}
	used, l := c.api.cloud.Usage(c.acct), c.acct.Limits
	for _, x := range []struct {
		by          string
		value, used int
	}{{"machines", l.Machines, used.Machines}, {"ram", l.RAM, used.RAM}, {"quota", l.Quota, (used.Disk + 1023) / 1024}} {
		if x.value > 0 && !c.api.opt.LimitsOff {
			out = append(out, map[string]any{"by": x.by, "value": x.value, "used": x.used})
		}
	}
	return c.give(http.StatusOK, out)
}

// packageView has no cpu_cap: CloudAPI does not tell it (sdc-cloudapi: lib/packages.js).
func packageView(p *endpoint.Package) map[string]any {
	return map[string]any{
		"id": p.UUID, "name": p.Name, "memory": p.MemoryMiB, "disk": p.DiskMiB, "swap": p.SwapMiB, "lwps": p.LWPs, "vcpus": p.VCPUs,
		"version": p.Version, "group": p.Group, "description": p.Description, "default": p.Default,
	}
}

func (c *call) packages() error {
	name := c.URL.Query().Get("name")
	if _, err := path.Match(name, ""); err != nil {
		return invalid("name is " + name + ", which is no pattern")
	}
	out := []any{}
	for _, p := range c.api.cloud.Packages(c.acct) {
		if ok, _ := path.Match(name, p.Name); ok || name == "" {
			out = append(out, packageView(p))
		}
	}
	return c.give(http.StatusOK, out)
}

func (c *call) pack() error {
	id := c.PathValue("package")
	for _, p := range c.api.cloud.Packages(c.acct) {
		if p.UUID == id || p.Name == id {
			return c.give(http.StatusOK, packageView(p))
		}
	}
	return absent("package " + id)
}

func networkView(n *backend.Network) map[string]any {
	out := map[string]any{"id": n.UUID, "name": n.Name, "public": n.Public, "fabric": !n.Public}
	if n.Subnet.IsValid() {
		out["subnet"], out["gateway"], out["internet_nat"] = n.Subnet.String(), n.Gateway.String(), true
	}
	return out
}

func (c *call) networks() error {
	all, err := c.api.cloud.Networks(c.Context(), c.acct)
	if err != nil {
		return err
	}
	out := []any{}
	for i := range all {
		out = append(out, networkView(&all[i]))
	}
	return c.give(http.StatusOK, out)
}

func (c *call) network() error {
	n, err := c.api.cloud.Network(c.Context(), c.acct, c.PathValue("network"))
	if err != nil {
		return err
	}
	return c.give(http.StatusOK, networkView(n))
}
