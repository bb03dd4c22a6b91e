package marathon

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// normalize brings the older shapes into the canonical one
// (AppNormalization.scala): uris become fetch, docker.network becomes
// networks, docker.portMappings move up, ports become portDefinitions.
func (a *App) normalize(old *legacy, fields map[string]json.RawMessage) error {
	a.ID = absolute(a.ID, "/")
	a.spellings()
	for i, d := range a.Dependencies {
		a.Dependencies[i] = absolute(d, a.dependencyBase(d))
	}
	if err := a.normalizeFetch(old.URIs); err != nil {
		return err
	}
	if err := a.normalizeNetworks(old); err != nil {
		return err
	}
	a.normalizePorts(old, fields)
	for i := range a.HealthChecks {
		a.HealthChecks[i].setDefaults()
	}
	for i := range a.Readiness {
		a.Readiness[i].setDefaults()
	}
	if a.Autoscale != nil {
		a.Autoscale.setDefaults()
	}
	if a.Container != nil && a.Container.Volumes == nil {
		a.Container.Volumes = []Volume{}
	}
	if d := a.docker(); d != nil && d.Parameters == nil {
		d.Parameters = []Parameter{}
	}
	if a.Executor == "//cmd" {
		a.Executor = ""
	}
	return nil
}

// spellings: words that come from a list may be written in any case
// (enum.liquid, reads), those of constraints too
// (SchedulingValidation.scala, complyWithAppConstraintRules).
func (a *App) spellings() {
	a.KillSelect = strings.ToUpper(a.KillSelect)
	for i := range a.Networks {
		a.Networks[i].Mode = strings.ToLower(a.Networks[i].Mode)
	}
	for i := range a.Readiness {
		a.Readiness[i].Protocol = strings.ToUpper(a.Readiness[i].Protocol)
	}
	for _, con := range a.Constraints {
		if len(con) > 1 {
			con[1] = strings.ToUpper(con[1])
		}
	}
	if a.Container == nil {
		return
	}
	a.Container.Type = strings.ToUpper(a.Container.Type)
	for i := range a.Container.Volumes {
		v := &a.Container.Volumes[i]
		if v.Mode = strings.ToUpper(v.Mode); v.Persistent != nil {
			v.Persistent.Type = strings.ToLower(v.Persistent.Type)
		}
	}
}

// normalizeFetch turns uris into fetch. Answers of Marathon before 1.5 name the
// same files in both.
func (a *App) normalizeFetch(uris []string) error {
	known := func(uri string) bool { return slices.ContainsFunc(a.Fetch, func(f Fetch) bool { return f.URI == uri }) }
	both := len(a.Fetch) > 0
	for i, u := range uris {
		if both && !known(u) {
			return problem(fmt.Sprintf("/uris(%d)", i), "%q is not in fetch; may not be set together with it", u)
		}
		if !both {
			a.Fetch = append(a.Fetch, Fetch{URI: u})
		}
	}
	return nil
}

// dependencyBase is what a dependency is relative to: dots go up from the app
// itself (PathId.canonicalPath), a bare name is a neighbour.
func (a *App) dependencyBase(d string) string {
	if strings.HasPrefix(strings.TrimSpace(d), ".") {
		return a.ID
	}
	return path.Dir(a.ID)
}

func (a *App) docker() *Docker {
	if a.Container == nil {
		return nil
	}
	return a.Container.Docker
}

func absolute(id, base string) string {
	id = strings.TrimSpace(id)
	if id == "" {
		return ""
	}
	return path.Join("/", path.Join(ifRelative(id, base), id))
}

func ifRelative(id, base string) string {
	if strings.HasPrefix(id, "/") {
		return "/"
	}
	return base
}

func (a *App) normalizeNetworks(old *legacy) error {
	if a.Container != nil && a.Container.Type == "" {
		a.Container.Type = "DOCKER"
	}
	for i := range a.Networks {
		if a.Networks[i].Mode == "" {
			a.Networks[i].Mode = NetworkContainer
		}
	}
	if old.Container != nil && old.Container.Docker.Network != "" && len(a.Networks) > 0 && old.Container.Docker.Network != "USER" {
		if want := legacyModes[strings.ToUpper(old.Container.Docker.Network)]; want != a.Networks[0].Mode {
			return problem("/container/docker/network", "%s contradicts networks[0].mode %s; leave the older field out", old.Container.Docker.Network, a.Networks[0].Mode)
		}
	}
	if len(a.Networks) > 0 {
		return nil
	}
	mode := ""
	if old.Container != nil {
		mode = strings.ToUpper(old.Container.Docker.Network)
	}
	n, known := legacyModes[mode]
	if !known {
		return problem("/container/docker/network", "%q is none of BRIDGE, HOST, USER, NONE", mode)
	}
	a.Networks = []Network{{Mode: n}}
	if old.IPAddress != nil && (mode == "" || n == NetworkContainer) {
		a.Networks[0] = Network{Mode: NetworkContainer, Name: old.IPAddress.NetworkName}
	}
	if mode == "" && old.IPAddress == nil && a.Container != nil && len(a.Container.PortMappings) > 0 {
		a.Networks[0].Mode = NetworkBridge
	}
	return nil
}

var legacyModes = map[string]string{"": NetworkHost, "HOST": NetworkHost, "BRIDGE": NetworkBridge, "USER": NetworkContainer, "NONE": NetworkContainer}

// normalizePorts gives bridge and host apps their one default port, and host
// apps their definitions out of ports.
func (a *App) normalizePorts(old *legacy, fields map[string]json.RawMessage) {
	if old.Container != nil && old.Container.Docker.PortMappings != nil && len(a.Container.PortMappings) == 0 {
		a.Container.PortMappings = old.Container.Docker.PortMappings
	}
	if a.mode() == NetworkHost {
		a.hostPorts(old, fields)
		return
	}
	a.Ports = nil
	if a.Container == nil {
		a.Container = &Container{Type: "MESOS"}
	}
	if old.IPAddress != nil {
		for _, p := range old.IPAddress.Discovery.Ports {
			a.Container.PortMappings = append(a.Container.PortMappings, PortMapping{ContainerPort: p.Number, Name: p.Name, Protocol: p.Protocol})
		}
	}
	if len(a.Container.PortMappings) == 0 && a.mode() == NetworkBridge && !noMappings(fields) {
		a.Container.PortMappings = []PortMapping{{Name: "default"}}
	}
	for i := range a.Container.PortMappings {
		m := &a.Container.PortMappings[i]
		m.Protocol = protocolName(m.Protocol)
		if m.HostPort == nil && a.mode() == NetworkBridge {
			m.HostPort = new(0)
		}
	}
}

// noMappings says whether the container names its port mappings, in either
// shape, and leaves them empty.
func noMappings(fields map[string]json.RawMessage) bool {
	var c struct {
		PortMappings json.RawMessage `json:"portMappings"`
		Docker       struct {
			PortMappings json.RawMessage `json:"portMappings"`
		} `json:"docker"`
	}
	json.Unmarshal(fields["container"], &c) // of the right types by now
	return string(c.PortMappings) == "[]" || string(c.Docker.PortMappings) == "[]"
}

func (a *App) hostPorts(old *legacy, fields map[string]json.RawMessage) {
	_, named := fields["portDefinitions"]
	_, namedOld := fields["ports"]
	if !named { // answers of Marathon before 1.5 name the same ports in both
		for _, p := range old.Ports {
			a.Ports = append(a.Ports, PortDefinition{Port: p})
		}
	}
	if len(a.Ports) == 0 && !named && !namedOld {
		a.Ports = []PortDefinition{{Name: "default"}}
	}
	if a.Ports == nil {
		a.Ports = []PortDefinition{}
	}
	for i := range a.Ports {
		a.Ports[i].Protocol = protocolName(a.Ports[i].Protocol)
	}
}

func protocolName(p string) string {
	if p == "" {
		return "tcp"
	}
	return strings.ToLower(p)
}

func (a *App) mode() string {
	if len(a.Networks) == 0 {
		return NetworkHost
	}
	return a.Networks[0].Mode
}

// setDefaults fills in what a check leaves open. Times that are 0 were not
// given: no check can have them.
func (h *HealthCheck) setDefaults() {
	h.Protocol = strings.ToUpper(h.Protocol)
	if h.Protocol == "" {
		h.Protocol = "HTTP"
	}
	if h.Path == "" && strings.Contains(h.Protocol, "HTTP") {
		h.Path = "/"
	}
	if h.PortIndex == nil && h.Port == nil && h.Protocol != "COMMAND" {
		h.PortIndex = new(0)
	}
	if h.Interval == 0 {
		h.Interval = 60
	}
	if h.Timeout == 0 {
		h.Timeout = 20
	}
}

// UnmarshalJSON fills in the defaults for which 0 is a value of its own.
func (h *HealthCheck) UnmarshalJSON(text []byte) error {
	if string(text) == "null" {
		return errors.New("a health check is an object, not null")
	}
	type plain HealthCheck
	v := plain{GraceSeconds: 300, MaxFailures: 3, Delay: 15}
	if err := json.Unmarshal(text, &v); err != nil {
		return err
	}
	*h = HealthCheck(v)
	return nil
}

func (r *ReadinessCheck) setDefaults() {
	set := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	set(&r.Name, "readinessCheck")
	set(&r.Protocol, "HTTP")
	set(&r.Path, "/")
	set(&r.PortName, "http-api")
	if r.Interval == 0 {
		r.Interval = 30
	}
	if r.Timeout == 0 {
		r.Timeout = 10
	}
	if len(r.ReadyCodes) == 0 {
		r.ReadyCodes = []int{200}
	}
}
