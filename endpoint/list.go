package endpoint

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"

	"github.com/mesopool/mesopool/endpoint/backend"
)

// filters are those of a list: each name with its values.
type filters map[string][]string

// parseFilters reads both encodings: {"name":["a"]} and {"name":{"a":true}}.
func parseFilters(text string) (filters, error) {
	if text == "" {
		return nil, nil
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &raw); err != nil {
		return nil, internal("Invalid filters: %s", text)
	}
	f := filters{}
	for name, v := range raw {
		var list []string
		var set map[string]bool
		if json.Unmarshal(v, &list) != nil {
			if json.Unmarshal(v, &set) != nil {
				return nil, internal("Invalid filters: %s", text)
			}
			list = slices.Sorted(maps.Keys(set))
		}
		f[name] = list
	}
	return f, nil
}

// accepts says whether one of a filter's values, as a beginning, fits.
func (f filters) accepts(name, value string) bool {
	return len(f[name]) == 0 || slices.ContainsFunc(f[name], func(v string) bool { return strings.HasPrefix(value, v) })
}

// match is one test of a list.
type match func(*Container) bool

// matches turns a list's query into tests (sdc-docker:
// lib/backends/sdc/containers.js getContainers). Filters of other names have
// no effect.
func (c *call) matches(f filters) ([]match, error) {
	var all []match
	for _, from := range []func(filters) ([]match, error){
		patterns, c.labels, statuses, c.ages, exits,
	} {
		more, err := from(f)
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
	return all, nil
}

// patterns are name and id: regular expressions on what has no leading slash.
func patterns(f filters) ([]match, error) {
	var all []match
	for name, of := range map[string]func(*Container) string{
		"name": func(c *Container) string { return c.Name }, "id": func(c *Container) string { return c.ID },
	} {
		var forms []*regexp.Regexp
		for _, v := range f[name] {
			form, err := regexp.Compile(v)
			if err != nil {
				return nil, internal("Invalid regular expression: /%s/", v)
			}
			forms = append(forms, form)
		}
		if len(forms) > 0 {
			all = append(all, func(c *Container) bool {
				return slices.ContainsFunc(forms, func(r *regexp.Regexp) bool { return r.MatchString(of(c)) })
			})
		}
	}
	return all, nil
}

// labels must all fit. A value ends at its first =, so values that have one are
// never found, and triton.* labels are none.
func (c *call) labels(f filters) ([]match, error) {
	var all []match
	for _, v := range f["label"] {
		parts := strings.Split(v, "=")
		all = append(all, func(got *Container) bool {
			value, there := got.Labels[parts[0]]
			if parts[0] == PackageLabel {
				value, there = got.Package, true
			}
			return there && (len(parts) == 1 || value == parts[1])
		})
	}
	return all, nil
}

// statuses must all fit at once: two different ones find nothing. A container
// that was never started is exited, one that is being made is created.
func statuses(f filters) ([]match, error) {
	var all []match
	for _, v := range f["status"] {
		var phase backend.Phase
		switch v {
		case "created":
			phase = backend.Provisioning
		case "running":
			phase = backend.Running
		case "exited":
			phase = backend.Stopped
		case "restarting", "paused":
			all = append(all, func(*Container) bool { return false })
			continue
		default:
			return nil, internal("Unrecognised filter value for status: %s", v)
		}
		all = append(all, func(c *Container) bool { return c.Phase == phase })
	}
	return all, nil
}

// ages are before and since another container.
func (c *call) ages(f filters) ([]match, error) {
	q := c.r.URL.Query()
	var all []match
	for _, v := range append(slices.Clone(f["before"]), q["before"]...) {
		other, err := c.s.cloud.Container(c.acct, v)
		if err != nil {
			return nil, err
		}
		all = append(all, func(c *Container) bool { return c.Created.Before(other.Created) })
	}
	for _, v := range append(slices.Clone(f["since"]), q["since"]...) {
		other, err := c.s.cloud.Container(c.acct, v)
		if err != nil {
			return nil, err
		}
		all = append(all, func(c *Container) bool { return c.Created.After(other.Created) })
	}
	return all, nil
}

func exits(f filters) ([]match, error) {
	var codes []int
	for _, v := range f["exited"] {
		n, err := strconv.Atoi(v)
		if err != nil {
			return nil, internal("Invalid filter value for exited: %s", v)
		}
		codes = append(codes, n)
	}
	if codes == nil {
		return nil, nil
	}
	return []match{func(c *Container) bool {
		return c.Phase == backend.Stopped && c.HasExit && slices.Contains(codes, c.ExitCode)
	}}, nil
}

// status is a container's state in words (sdc-docker:
// lib/backends/sdc/utils.js _containerStatusFromVmobj).
func status(c *Container, now time.Time) string {
	switch {
	case c.Phase == backend.Provisioning:
		return fmt.Sprintf("Provisioning %d seconds", int(now.Sub(c.Created).Seconds()))
	case c.Phase == backend.Running:
		return "Up " + units.HumanDuration(now.Sub(c.Started))
	case c.Started.IsZero():
		return "Created"
	case !c.HasExit:
		return "Exited"
	}
	return fmt.Sprintf("Exited (%d) %s ago", c.ExitCode, units.HumanDuration(now.Sub(c.Finished)))
}

// Labels are a container's as callers see them: with the package's.
func (c *Container) allLabels() map[string]string {
	all := make(map[string]string, len(c.Labels)+len(c.Tags)+1)
	maps.Copy(all, c.Labels)
	maps.Copy(all, c.Tags)
	all[PackageLabel] = c.Package
	return all
}

type portView struct {
	IP          string `json:"IP,omitempty"`
	PrivatePort int    `json:"PrivatePort"`
	PublicPort  int    `json:"PublicPort,omitempty"`
	Type        string `json:"Type"`
}

func (c *Container) ports() []portView {
	all := []portView{}
	for _, p := range sortedUnion(c.Exposed, c.Published) {
		port, proto, _ := strings.Cut(p, "/")
		n, _ := strconv.Atoi(port)
		v := portView{PrivatePort: n, Type: proto}
		if slices.Contains(c.Published, p) {
			v.IP, v.PublicPort = "0.0.0.0", n
		}
		all = append(all, v)
	}
	return all
}

func sortedUnion(a, b []string) []string {
	all := append(slices.Clone(a), b...)
	slices.Sort(all)
	return slices.Compact(all)
}

// listItem has these fields only: no State, no NetworkSettings, no Mounts.
type listItem struct {
	ID      string `json:"Id"`
	Created int64
	Command string
	Names   []string
	Status  string
	Image   string
	Labels  map[string]string
	Ports   []portView
}

func listed(c *Container, now time.Time) listItem {
	names := []string{"/" + c.Name}
	for _, l := range c.Linked {
		names = append(names, "/"+l)
	}
	return listItem{
		c.ID, c.Created.Unix(), strings.Join(slices.Concat(c.Entrypoint, c.Cmd), " "), names, status(c, now), c.ImageName, c.allLabels(), c.ports(),
	}
}

func (c *call) containerList() error {
	q := c.r.URL.Query()
	f, err := parseFilters(q.Get("filters"))
	if err != nil {
		return err
	}
	all, err := c.matches(f)
	if err != nil {
		return err
	}
	limit, _ := strconv.Atoi(q.Get("limit"))
	if !truth(q.Get("all")) && limit <= 0 && len(f["status"]) == 0 {
		all = append(all, func(c *Container) bool { return c.Phase == backend.Running })
	}
	found := c.s.cloud.Containers(c.acct, func(got *Container) bool {
		return !slices.ContainsFunc(all, func(m match) bool { return !m(got) })
	})
	if limit > 0 {
		found = found[:min(limit, len(found))]
	}
	return c.stream(found)
}

// stream writes the items one by one: a list may be long.
func (c *call) stream(found []*Container) error {
	c.w.Header().Set("Content-Type", "application/json")
	c.w.WriteHeader(http.StatusOK)
	enc, now := json.NewEncoder(c.w), time.Now()
	sep := "["
	for _, got := range found {
		if _, err := io.WriteString(c.w, sep); err != nil {
			return ignore(err)
		}
		if err := enc.Encode(listed(got, now)); err != nil {
			return ignore(err)
		}
		sep = ","
	}
	_, err := io.WriteString(c.w, strings.TrimPrefix(sep+"]", ","))
	return ignore(err)
}

// truth reads a flag of a query.
func truth(v string) bool {
	return !slices.Contains([]string{"", "0", "no", "false", "none"}, strings.ToLower(v))
}
