package endpoint

import (
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/mesopool/mesopool/endpoint/backend"
)

// The labels that mean something to Triton (npm: triton-tags 1.4.0).
var tritonTags = map[string]func(string) bool{
	"triton.cns.services":                      cnsServices,
	"triton.cns.disable":                       boolean,
	"triton.cns.reverse_ptr":                   reversePtr.MatchString,
	"triton.network.public":                    func(v string) bool { return v != "" },
	"triton.cmon.groups":                       groups.MatchString,
	"triton.placement.exclude_virtual_servers": boolean,
}

var (
	reversePtr = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9.-]{0,252}[a-zA-Z0-9])?$`)
	groups     = regexp.MustCompile(`^[a-zA-Z0-9_-]+(,[a-zA-Z0-9_-]+)*$`)
	cnsService = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}(:[0-9]{1,5})?(:[a-z]+=[^:,]*)*$`)
)

func boolean(v string) bool { return v == "true" || v == "false" }

// cnsServices checks a list of name[:port][:key=value]… (triton-cns: docs/metadata.md).
func cnsServices(v string) bool {
	for s := range strings.SplitSeq(v, ",") {
		if !cnsService.MatchString(s) {
			return false
		}
	}
	return true
}

// splitLabels separates what is Triton's own from the rest. The package's label
// is not kept: it is made up again when somebody reads.
func splitLabels(image, asked map[string]string) (labels, tags map[string]string, err error) {
	labels, tags = map[string]string{}, map[string]string{}
	for _, from := range []map[string]string{image, asked} {
		for k, v := range from {
			switch {
			case k == PackageLabel:
			case !strings.HasPrefix(k, "triton."):
				labels[k] = v
			case tritonTags[k] == nil:
				return nil, nil, validation(`invalid label: Unrecognized special triton tag "%s"`, k)
			case !tritonTags[k](v):
				return nil, nil, validation(`invalid label: Invalid value for triton tag "%s": "%s"`, k, v)
			default:
				tags[k] = v
			}
		}
	}
	return labels, tags, nil
}

// DNSNames are the names that container name service has for a container
// (triton-cns: lib/vm-to-zones.js, docs/metadata.md).
func (c *Cloud) DNSNames(a *Account, got *Container) []string {
	return c.dnsNames(a, got.Spec, got.Name, got.Phase == backend.Running)
}

func (c *Cloud) dnsNames(a *Account, s *backend.Spec, name string, running bool) []string {
	if s.Tags["triton.cns.disable"] == "true" {
		return nil
	}
	var names []string
	for _, owner := range []string{a.UUID, a.Login} {
		zone := "." + owner + "." + c.cfg.Datacenter + "." + c.cfg.DNSSuffix
		names = append(names, UUIDOfID(s.ID)+".inst"+zone)
		if len(name) <= MaxListedName {
			names = append(names, hostLabel(name)+".inst"+zone)
		}
		for service := range strings.SplitSeq(s.Tags["triton.cns.services"], ",") {
			if label, _, _ := strings.Cut(service, ":"); label != "" && running {
				names = append(names, label+".svc"+zone)
			}
		}
	}
	return names
}

// hostLabel turns a container's name into a label of a host name.
func hostLabel(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(name))
}

// logOptions are the options of each driver, the required ones first
// (sdc-docker: docs/api/features/logdrivers.md).
var logOptions = map[string]struct{ required, optional []string }{
	"json-file": {nil, []string{"max-size", "max-file"}},
	"none":      {},
	"syslog":    {nil, []string{"syslog-address", "syslog-facility", "syslog-tag", "tag"}},
	"gelf":      {[]string{"gelf-address"}, []string{"gelf-tag", "tag"}},
	"fluentd":   {nil, []string{"fluentd-address", "fluentd-tag", "tag"}},
}

func (c *Cloud) checkLog(r *request) error {
	if r.logDriver == "" {
		r.logDriver = "json-file"
	}
	o, known := logOptions[r.logDriver]
	if !known || !slices.Contains(c.cfg.LogDrivers, r.logDriver) {
		return validation("unsupported log driver: %s", r.logDriver)
	}
	for _, need := range o.required {
		if r.logOptions[need] == "" {
			return validation("missing option for log driver %s: %s", r.logDriver, need)
		}
	}
	for k := range r.logOptions {
		if !slices.Contains(o.required, k) && !slices.Contains(o.optional, k) {
			return validation("unknown option for log driver %s: %s", r.logDriver, k)
		}
	}
	return nil
}

// publicNetwork is the network of public addresses that a label asks for.
func (c *Cloud) publicNetwork(tags map[string]string, publishes bool) (string, error) {
	name, asked := tags["triton.network.public"]
	if !asked {
		return "", nil
	}
	if !publishes {
		return "", validation("invalid label: triton.network.public needs published ports")
	}
	for _, n := range c.cfg.PublicNetworks {
		if n.Name == name || n.UUID == name {
			return n.Name, nil
		}
	}
	return "", &Error{http.StatusNotFound, "ResourceNotFound", "network " + name + " not found"}
}
