package cloudapi

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"

	"github.com/mesopool/mesopool/endpoint"
	"github.com/mesopool/mesopool/endpoint/backend"
)

func (a *API) machineRoutes() {
	a.handle("GET /{account}/machines", (*call).machines) // HEAD too
	a.handle("POST /{account}/machines", func(*call) error {
		return refuse(http.StatusBadRequest, "NotImplemented", "containers are made with the Docker API")
	})
	a.handle("GET /{account}/machines/{machine}", func(c *call) error {
		return c.machine(func(m *endpoint.Container) error { return c.give(http.StatusOK, c.view(m)) })
	})
	a.handle("DELETE /{account}/machines/{machine}", (*call).deleteMachine)
	a.handle("POST /{account}/machines/{machine}", (*call).order)
	a.handle("GET /{account}/machines/{machine}/tags", func(c *call) error {
		return c.machine(func(m *endpoint.Container) error { return c.give(http.StatusOK, tags(m)) })
	})
	a.handle("GET /{account}/machines/{machine}/tags/{tag}", (*call).tag)
	a.handle("GET /{account}/machines/{machine}/metadata", func(c *call) error {
		return c.machine(func(*endpoint.Container) error { return c.give(http.StatusOK, map[string]string{}) })
	})
	a.handle("GET /{account}/machines/{machine}/nics", func(c *call) error {
		return c.machine(func(m *endpoint.Container) error { return c.give(http.StatusOK, c.nics(m)) })
	})
	a.handle("GET /{account}/changefeed", (*call).changefeed)
}

// tags are what Triton has of labels (sdc-docker: vmTagsFromLabels).
func tags(m *endpoint.Container) map[string]any {
	all := map[string]any{"sdc_docker": true}
	for k, v := range m.Labels {
		all["docker:label:"+k] = v
	}
	for k, v := range m.Tags {
		all[k] = v
		if b, err := strconv.ParseBool(v); err == nil && (v == "true" || v == "false") {
			all[k] = b
		}
	}
	return all
}

func state(m *endpoint.Container) string {
	switch {
	case m.Gone:
		return "deleted"
	case m.Phase == backend.Provisioning:
		return "provisioning"
	case m.Phase == backend.Running:
		return "running"
	}
	return "stopped"
}

// imageUUID is the first half of an image's digest (sdc-docker: lib/common.js).
func imageUUID(id string) string {
	hex := strings.TrimPrefix(id, "sha256:")
	if len(hex) < 32 {
		return "00000000-0000-0000-0000-000000000000"
	}
	return endpoint.UUIDOfID(hex)
}

// networkUUIDs are those of the account's networks by name.
func (c *call) networkUUIDs() map[string]string {
	out := map[string]string{}
	all, err := c.api.cloud.Networks(c.Context(), c.acct)
	if err != nil {
		return out // the names are told without
	}
	for i := range all {
		out[all[i].Name] = all[i].UUID
	}
	return out
}

func (c *call) nics(m *endpoint.Container) []any {
	out, ids := []any{}, c.networkUUIDs()
	for i, n := range m.NICs {
		out = append(out, map[string]any{
			"ip": n.IP.String(), "mac": n.MAC, "primary": i == 0, "network": ids[n.Network], "state": "running",
		})
	}
	return out
}

func (c *call) view(m *endpoint.Container) map[string]any {
	out := map[string]any{
		"id": m.UUID(), "name": m.Name, "type": "smartmachine", "brand": "lx", "state": state(m), "image": imageUUID(m.Image),
		"memory": m.MemoryMiB, "disk": m.DiskMiB, "metadata": map[string]string{}, "tags": tags(m), "created": m.Created.UTC(),
		"updated": m.Modified.UTC(), "docker": true, "firewall_enabled": true, "deletion_protection": false, "package": m.Package,
		"compute_node": backend.UUIDOf("server/" + c.api.cloud.Datacenter()), "dns_names": append([]string{}, c.api.cloud.DNSNames(c.acct, m)...),
		"nics": c.nics(m),
	}
	ips, networks, ids := []string{}, []string{}, c.networkUUIDs()
	for _, n := range m.NICs {
		ips, networks = append(ips, n.IP.String()), append(networks, ids[n.Network])
	}
	out["ips"], out["networks"] = ips, networks
	if len(ips) > 0 {
		out["primaryIp"] = ips[0]
	}
	return out
}

// wanted turns a query into a test.
func (c *call) wanted() func(*endpoint.Container) bool {
	q := c.URL.Query()
	return func(m *endpoint.Container) bool {
		for name, values := range q {
			if !fits(m, name, values[0]) {
				return false
			}
		}
		return true
	}
}

func fits(m *endpoint.Container, name, v string) bool {
	if tag, is := strings.CutPrefix(name, "tag."); is {
		got, there := tags(m)[tag]
		b, flag := got.(bool)
		return there && (v == "*" || got == v || flag && strconv.FormatBool(b) == v)
	}
	switch name {
	case "brand":
		return v == "lx"
	case "type":
		return v == "smartmachine"
	case "name":
		return m.Name == v
	case "image":
		return imageUUID(m.Image) == v
	case "state":
		return state(m) == v
	case "memory":
		return strconv.Itoa(m.MemoryMiB) == v
	case "docker":
		return v == "true"
	}
	return true // limit, offset, and what is not known
}

func (c *call) machines() error {
	found, err := page(c, c.api.cloud.Containers(c.acct, c.wanted()))
	if err != nil {
		return err
	}
	out := []any{}
	for _, m := range found {
		out = append(out, c.view(m))
	}
	return c.give(http.StatusOK, out)
}

// machine finds the machine of the path.
func (c *call) machine(do func(*endpoint.Container) error) error {
	id := c.PathValue("machine")
	m, deleted := c.api.cloud.Instance(c.acct, id)
	switch {
	case m != nil:
		return do(m)
	case deleted:
		return refuse(http.StatusGone, "ResourceNotFound", "machine "+id+" was deleted")
	}
	return absent("machine " + id)
}

func (c *call) tag() error {
	return c.machine(func(m *endpoint.Container) error {
		if v, there := tags(m)[c.PathValue("tag")]; there {
			return c.give(http.StatusOK, v)
		}
		return absent("tag " + c.PathValue("tag"))
	})
}

func (c *call) deleteMachine() error {
	return c.machine(func(m *endpoint.Container) error {
		if m.Phase == backend.Provisioning {
			return refuse(http.StatusConflict, "InvalidState", "the machine is being provisioned")
		}
		if err := c.api.cloud.Remove(c.Context(), c.acct, m.ID, true); err != nil {
			return err
		}
		c.w.WriteHeader(http.StatusNoContent)
		return nil
	})
}

// grace is how long a machine has to stop.
const grace = 10 * time.Second

// order takes an order that is carried out after the answer.
func (c *call) order() error {
	in, err := c.read()
	if err != nil {
		return err
	}
	return c.machine(func(m *endpoint.Container) error {
		cloud, acct := c.api.cloud, c.acct
		orders := map[string]func(context.Context) error{
			"start":  func(ctx context.Context) error { return cloud.Start(ctx, acct, m.ID) },
			"stop":   func(ctx context.Context) error { return cloud.Stop(ctx, acct, m.ID, grace) },
			"reboot": func(ctx context.Context) error { return cloud.Restart(ctx, acct, m.ID, grace) },
		}
		if in["action"] == "rename" {
			return c.accepted(cloud.Rename(c.Context(), acct, m.ID, in["name"]))
		}
		do, known := orders[in["action"]]
		if !known {
			return invalid("action is " + strconv.Quote(in["action"]) + "; it must be start, stop, reboot or rename")
		}
		if m.Phase == backend.Provisioning {
			return refuse(http.StatusConflict, "InvalidState", "the machine is being provisioned")
		}
		cloud.Later(in["action"]+" "+m.UUID(), do)
		return c.accepted(nil)
	})
}

func (c *call) accepted(err error) error {
	if err == nil {
		c.w.WriteHeader(http.StatusAccepted)
	}
	return err
}

// What a feed can tell of (sdc-cloudapi: lib/changefeed.js).
var subResources = []string{"alias", "customer_metadata", "destroyed", "nics", "owner_uuid", "server_uuid", "state", "tags"}

// registration is what the client of a feed wants; nothing is told before it.
type registration struct {
	Resource     string   `json:"resource"`
	SubResources []string `json:"subResources"`
	VMs          []string `json:"vms"`
}

func (r *registration) valid() bool {
	unknown := func(s string) bool { return !slices.Contains(subResources, s) }
	return r.Resource == "vm" && len(r.SubResources) > 0 && !slices.ContainsFunc(r.SubResources, unknown)
}

// changefeed tells every change of the account's machines until either side ends.
func (c *call) changefeed() error {
	feed, ok := c.api.cloud.Subscribe(c.acct)
	if !ok {
		return refuse(420, "RequestThrottled", "This account has too many feeds")
	}
	defer feed.Close()
	ws, err := websocket.Accept(c.w, c.Request, nil)
	if err != nil {
		return nil // it has answered
	}
	defer ws.CloseNow()
	ctx, cancel := context.WithCancel(c.Context())
	defer cancel()
	wants := make(chan *registration)
	go func() {
		defer cancel()
		register(ctx, ws, wants)
	}()
	var want *registration
	known := map[string]*endpoint.Container{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case want = <-wants:
		case m, open := <-feed.C():
			if !open {
				ws.Close(websocket.StatusPolicyViolation, "too slow")
				return nil
			}
			if err := c.tell(ctx, ws, want, known[m.ID], m); err != nil {
				return nil
			}
			known[m.ID] = m
			if m.Gone {
				delete(known, m.ID)
			}
		}
	}
}

// register reads registrations; invalid ones have no effect.
func register(ctx context.Context, ws *websocket.Conn, wants chan<- *registration) {
	for {
		_, text, err := ws.Read(ctx)
		if err != nil {
			return
		}
		r := &registration{}
		if json.Unmarshal(text, r) != nil || !r.valid() {
			continue
		}
		select {
		case wants <- r:
		case <-ctx.Done():
			return
		}
	}
}

func (c *call) tell(ctx context.Context, ws *websocket.Conn, want *registration, before, m *endpoint.Container) error {
	changed := changes(before, m)
	if want == nil || len(want.VMs) > 0 && !slices.Contains(want.VMs, m.UUID()) ||
		!slices.ContainsFunc(changed, func(s string) bool { return slices.Contains(want.SubResources, s) }) {
		return nil
	}
	text, err := json.Marshal(map[string]any{
		"published": strconv.FormatInt(m.Modified.UnixMilli(), 10), "changeKind": map[string]any{"resource": "vm", "subResources": changed},
		"changedResourceId": m.UUID(), "resourceState": strings.Replace(state(m), "deleted", "destroyed", 1), "resourceObject": c.view(m),
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return ws.Write(ctx, websocket.MessageText, text)
}

// changes names what differs.
func changes(before, m *endpoint.Container) []string {
	if before == nil {
		return []string{"state", "alias", "nics", "tags"}
	}
	var out []string
	if m.Gone {
		out = append(out, "destroyed")
	}
	if state(before) != state(m) || before.Restarts != m.Restarts || !before.Started.Equal(m.Started) {
		out = append(out, "state")
	}
	if before.Name != m.Name {
		out = append(out, "alias")
	}
	if !slices.Equal(before.NICs, m.NICs) {
		out = append(out, "nics")
	}
	return out
}
