package consul

import (
	"cmp"
	"net"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/mesopool/mesopool/task"
)

// TaskServices says which services of the catalog a running task is: one per
// port, or one without a port. It is empty when the task opts out (label
// consul=false, SERVICE_IGNORE) or has no address to be reached at.
//
// The conventions are those of the bridges that people know:
//
//   - Name: label "consul" (marathon-consul; "true" or "" means the app's id),
//     else SERVICE_<port>_NAME or SERVICE_NAME as label or variable
//     (registrator), else the discovery name, else the task's name. With several
//     ports a named port adds its name as a tag, one without a name adds its
//     number to the service's name. If ports carry the label "consul"
//     themselves, just those are registered, under these names.
//   - Tags: keys of labels whose value is "tag", SERVICE_TAGS, the label "tags",
//     and for a Marathon task "marathon" and "marathon-task:<id>".
//   - Check: the task's HTTP or TCP health check, else a TCP check of the port.
//     Checks go to the container's own address, which Consul can reach, even
//     where clients get a published one.
func TaskServices(spec task.Spec, c task.ContainerStatus, owner task.Owner, agentID string) []Service {
	t := taskView{spec: &spec, status: &c, owner: owner, agentID: agentID, env: lastValues(spec.Env)}
	if t.ignored(0) || falsy(t.label("consul")) {
		return nil
	}
	ports := t.ports()
	if len(ports) == 0 {
		return t.services(task.Port{}, false)
	}
	ports = chosen(ports)
	var out []Service
	for _, p := range ports {
		out = append(out, t.services(p, len(ports) > 1)...)
	}
	return out
}

// taskView is a task with the look-ups that the conventions need.
type taskView struct {
	spec    *task.Spec
	status  *task.ContainerStatus
	owner   task.Owner
	agentID string
	env     map[string]string
}

// services are the services of one port: several if its label "consul" lists
// several names. Port 0 stands for a task without ports.
func (t *taskView) services(p task.Port, several bool) []Service {
	at, inner := t.endpoints(p)
	if at.Address == "" || t.ignored(p.Container) {
		return nil
	}
	names, explicit := t.portNames(p)
	var out []Service
	for i, name := range names {
		s := Service{
			ID: t.id(p, i), Name: name, Address: at.Address, Port: at.Port, Inner: inner,
			Tags: t.tags(p), Meta: t.meta(), Check: t.check(p, name),
		}
		if several && p.Name != "" {
			s.Tags = appendNew(s.Tags, p.Name)
		} else if several && !explicit {
			s.Name = dnsName(name, "-"+strconv.Itoa(int(p.Container)))
		}
		out = append(out, s)
	}
	return out
}

// id is unique among all tasks of all agents, and the same at every call.
func (t *taskView) id(p task.Port, i int) string {
	parts := []string{"mesos", t.agentID, t.spec.Key.Framework, t.spec.Key.ID, strconv.Itoa(int(p.Container))}
	if p.Protocol == "udp" {
		parts = append(parts, "udp")
	}
	if i > 0 {
		parts = append(parts, strconv.Itoa(i+1))
	}
	return strings.Join(parts, ":")
}

// ports are the ports of the task: the container's own, or those that the
// discovery information advertises. Names come from either.
func (t *taskView) ports() []task.Port {
	ports := slices.Clone(t.spec.Ports)
	if d := t.spec.Discovery; d != nil && len(ports) == 0 {
		ports = slices.Clone(d.Ports)
	} else if d != nil {
		for i := range ports {
			describe(&ports[i], d.Ports)
		}
	}
	return slices.DeleteFunc(ports, func(p task.Port) bool { return p.Container == 0 })
}

// chosen are the ports to register: not those that opt out, and if any is named
// by the label "consul", only such.
func chosen(ports []task.Port) []task.Port {
	ports = slices.DeleteFunc(ports, func(p task.Port) bool { return falsy(label(p.Labels, "consul")) })
	if slices.ContainsFunc(ports, named) {
		ports = slices.DeleteFunc(ports, func(p task.Port) bool { return !named(p) })
	}
	return ports
}

// named says whether a port has the label "consul" with names for it.
func named(p task.Port) bool { return len(labelNames(p)) > 0 }

func labelNames(p task.Port) []string {
	value, ok := label(p.Labels, "consul")
	if !ok {
		return nil
	}
	var names []string
	for _, n := range csv(value) {
		if n = dnsName(n, ""); n != "" {
			names = append(names, n)
		}
	}
	return names
}

// describe fills in a port's name and labels from its advertised twin.
func describe(p *task.Port, advertised []task.Port) {
	for _, d := range advertised {
		if d.Container == p.Container && protocol(d) == protocol(*p) {
			p.Name = cmp.Or(p.Name, d.Name)
			p.Labels = append(slices.Clone(p.Labels), d.Labels...)
			return
		}
	}
}

func protocol(p task.Port) string { return cmp.Or(p.Protocol, "tcp") }

// portNames are the names of a port's services. They are explicit when they
// were given for this very port.
func (t *taskView) portNames(p task.Port) (names []string, explicit bool) {
	if names := labelNames(p); len(names) > 0 {
		return names, true
	}
	if p.Container != 0 {
		if v, ok := t.setting(portKey(p.Container, "NAME")); ok && dnsName(v, "") != "" {
			return []string{dnsName(v, "")}, true
		}
	}
	return []string{t.name()}, false
}

// name is the task's own service name.
func (t *taskView) name() string {
	var candidates []string
	if v, ok := t.label("consul"); ok {
		if v == "" || v == "true" {
			v = t.env["MARATHON_APP_ID"]
		}
		candidates = append(candidates, v)
	}
	v, _ := t.setting("SERVICE_NAME")
	candidates = append(candidates, v)
	if t.spec.Discovery != nil {
		candidates = append(candidates, t.spec.Discovery.Name)
	}
	for _, c := range append(candidates, t.spec.Name, t.spec.Key.ID) {
		if n := dnsName(c, ""); n != "" {
			return n
		}
	}
	return "task"
}

// endpoints are where clients reach a port, and its address in the cluster's
// network if that is another one.
func (t *taskView) endpoints(p task.Port) (at, inner Endpoint) {
	if len(t.status.Addresses) > 0 {
		at = Endpoint{Address: t.status.Addresses[0], Port: p.Container}
	}
	ip := net.ParseIP(t.status.PublishIP)
	if p.Container == 0 || ip == nil || ip.IsUnspecified() {
		return at, inner
	}
	for _, published := range t.status.Ports {
		if published.Container == p.Container && protocol(published) == protocol(p) && published.Host != 0 {
			return Endpoint{Address: t.status.PublishIP, Port: published.Host}, at
		}
	}
	return at, inner
}

// tags are the tags of one port's service.
func (t *taskView) tags(p task.Port) []string {
	var tags []string
	for _, l := range append(slices.Clone(t.spec.Labels), p.Labels...) {
		if l.Value == "tag" {
			tags = appendNew(tags, l.Key)
		}
	}
	lists := []string{"SERVICE_TAGS"}
	if p.Container != 0 {
		lists = append(lists, portKey(p.Container, "TAGS"))
	}
	for _, key := range lists {
		v, _ := t.setting(key)
		tags = appendNew(tags, csv(v)...)
	}
	v, _ := t.label("tags")
	tags = appendNew(tags, csv(v)...)
	if t.env["MARATHON_APP_ID"] != "" {
		tags = appendNew(tags, "marathon", "marathon-task:"+t.spec.Key.ID)
	}
	return tags
}

// meta says whose the service is, for people and programs.
func (t *taskView) meta() map[string]string {
	m := make(map[string]string)
	for key, value := range map[string]string{
		"cluster":       t.owner.Cluster,
		"agent":         t.owner.Agent,
		"agent_id":      t.agentID,
		"framework_id":  t.spec.Key.Framework,
		"mesos_task_id": t.spec.Key.ID,
		"container_id":  t.status.ID,
		"app_id":        t.env["MARATHON_APP_ID"],
		"app_version":   t.env["MARATHON_APP_VERSION"],
	} {
		if value != "" {
			m[key] = clip(value, maxMetaValue)
		}
	}
	return m
}

// check is how Consul finds out whether the port is well; nil when it cannot.
func (t *taskView) check(p task.Port, name string) *Check {
	if len(t.status.Addresses) == 0 {
		return nil
	}
	host := t.status.Addresses[0]
	if h := t.spec.Health; h != nil && h.Type != task.CheckCommand {
		if c := healthCheck(h, host, cmp.Or(h.Port, p.Container)); c != nil {
			return c
		}
	}
	if p.Container == 0 || protocol(p) != "tcp" {
		return nil
	}
	return &Check{
		Name: "port " + strconv.Itoa(int(p.Container)) + " of " + name + " accepts connections",
		TCP:  net.JoinHostPort(host, strconv.Itoa(int(p.Container))),
	}
}

// healthCheck is the task's own health check as Consul makes it.
func healthCheck(h *task.HealthCheck, host string, port uint16) *Check {
	if port == 0 {
		return nil
	}
	at := net.JoinHostPort(host, strconv.Itoa(int(port)))
	c := &Check{Interval: h.Interval, Timeout: h.Timeout}
	switch h.Type {
	case task.CheckHTTP:
		c.HTTP = cmp.Or(h.Scheme, "http") + "://" + at + "/" + strings.TrimPrefix(h.Path, "/")
		c.Name = "GET /" + strings.TrimPrefix(h.Path, "/")
	case task.CheckTCP:
		c.TCP = at
		c.Name = "port " + strconv.Itoa(int(port)) + " accepts connections"
	default:
		return nil
	}
	return c
}

// ignored says whether the task (port 0) or one port opts out in registrator's
// way.
func (t *taskView) ignored(port uint16) bool {
	key := "SERVICE_IGNORE"
	if port != 0 {
		key = portKey(port, "IGNORE")
	}
	v, ok := t.setting(key)
	return ok && !falsy(v, true)
}

func portKey(port uint16, what string) string {
	return "SERVICE_" + strconv.Itoa(int(port)) + "_" + what
}

// setting looks a registrator setting up, as label first and then as variable.
func (t *taskView) setting(key string) (string, bool) {
	if v, ok := t.label(key); ok {
		return v, true
	}
	v, ok := t.env[key]
	return v, ok
}

func (t *taskView) label(key string) (string, bool) { return t.spec.Label(key) }

func label(labels []task.Label, key string) (string, bool) {
	for _, l := range labels {
		if l.Key == key {
			return l.Value, true
		}
	}
	return "", false
}

// falsy says whether a value is there and says no.
func falsy(value string, there bool) bool {
	return there && slices.Contains([]string{"false", "0", "no"}, strings.ToLower(strings.TrimSpace(value)))
}

func lastValues(env []task.Label) map[string]string {
	m := make(map[string]string, len(env))
	for _, e := range env {
		m[e.Key] = e.Value
	}
	return m
}

func csv(list string) []string {
	var out []string
	for item := range strings.SplitSeq(list, ",") {
		if item = strings.TrimSpace(item); item != "" {
			out = append(out, item)
		}
	}
	return out
}

func appendNew(list []string, items ...string) []string {
	for _, item := range items {
		if !slices.Contains(list, item) {
			list = append(list, item)
		}
	}
	return list
}

// dnsName turns any text, with a suffix that must stay, into a DNS label: lower
// case letters, digits and single dashes, at most 63 characters. It is empty if
// nothing of the text is left.
func dnsName(text, suffix string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(text) {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			b.WriteRune(r)
		} else if b.Len() > 0 && !strings.HasSuffix(b.String(), "-") {
			b.WriteByte('-')
		}
	}
	name := b.String()
	if room := 63 - len(suffix); len(name) > room {
		name = name[:room]
	}
	if name = strings.TrimRight(name, "-"); name == "" {
		return ""
	}
	return name + suffix
}

// clip shortens text to at most n bytes, at the border of a character.
func clip(text string, n int) string {
	if len(text) <= n {
		return text
	}
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n]
}
