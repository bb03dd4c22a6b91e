package marathon

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
)

// Problem is what is wrong with a definition, by the path of the field.
type Problem struct {
	Path   string   `json:"path"`
	Errors []string `json:"errors"`
}

// BadDefinition is a definition that is refused.
type BadDefinition struct {
	Syntax   bool   // not JSON, or of the wrong types
	Text     string // the parser's words when there are no problems by path
	Problems []Problem
}

// Error joins the problems into a sentence.
func (b *BadDefinition) Error() string {
	if len(b.Problems) == 0 {
		return b.Text
	}
	parts := make([]string, len(b.Problems))
	for i, p := range b.Problems {
		parts[i] = p.Path + ": " + strings.Join(p.Errors, ", ")
	}
	return strings.Join(parts, "; ")
}

func problem(path, format string, args ...any) *BadDefinition {
	return &BadDefinition{Problems: []Problem{{Path: path, Errors: []string{fmt.Sprintf(format, args...)}}}}
}

// Read reads a definition: all shapes that Marathon ever took, with explicit
// nulls, defaults filled in. role is the one for apps that name none.
func Read(text []byte, role string) (*App, error) {
	fields, err := readFields(text)
	if err != nil {
		return nil, err
	}
	return build(fields, role)
}

// Update reads a change of an existing app: fields that are given replace the
// old ones, null and absent ones keep them.
func Update(old *App, text []byte) (*App, error) {
	change, err := readFields(text)
	if err != nil {
		return nil, err
	}
	was, err := json.Marshal(old)
	if err != nil {
		return nil, err
	}
	fields, err := readFields(was)
	if err != nil {
		return nil, err
	}
	forget(fields, change)
	for k, v := range change {
		fields[k] = v
	}
	keepOpen(fields, change)
	return build(fields, old.Role)
}

// displaced lists, for a field of a change, the old fields that mean the same
// in another shape.
var displaced = map[string][]string{
	"cmd": {"args"}, "args": {"cmd"}, "uris": {"fetch"}, "ports": {"portDefinitions"}, "portDefinitions": {"portDefinitions"},
	"ipAddress": {"networks", "portDefinitions"}, "networks": {"networks"},
}

func forget(fields, change map[string]json.RawMessage) {
	for k := range change {
		for _, old := range displaced[k] {
			delete(fields, old)
		}
	}
	if change["container"] == nil {
		return
	}
	var c legacyContainer
	if json.Unmarshal(change["container"], &c) == nil && c.Docker.Network != "" {
		delete(fields, "networks")
		delete(fields, "portDefinitions")
	}
}

// readFields splits an object into its fields and drops the nulls, which some
// clients send for every field that they leave open, at any depth. What only
// the server sets is dropped too.
func readFields(text []byte) (map[string]json.RawMessage, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		return nil, &BadDefinition{Syntax: true, Text: typeError(err)}
	}
	if fields == nil {
		return nil, &BadDefinition{Syntax: true, Text: "a definition is an object, not null"}
	}
	for k, v := range fields {
		if string(v) == "null" {
			delete(fields, k)
			continue
		}
		fields[k] = clean(v, k != "env" && k != "environment")
	}
	delete(fields, "version")
	delete(fields, "versionInfo")
	return fields, nil
}

// wholeNumber is one that some languages write with a decimal point.
var wholeNumber = regexp.MustCompile(`^(-?[0-9]+)\.0+$`)

// clean takes the nulls out of all objects, and the ".0" from whole numbers.
func clean(text json.RawMessage, numbers bool) json.RawMessage {
	switch text[0] {
	case '{':
		var object map[string]json.RawMessage
		json.Unmarshal(text, &object) // it is well formed
		for k, v := range object {
			object[k] = clean(v, numbers)
			if string(v) == "null" {
				delete(object, k)
			}
		}
		text, _ = json.Marshal(object)
	case '[':
		var list []json.RawMessage
		json.Unmarshal(text, &list)
		for i := range list {
			list[i] = clean(list[i], numbers)
		}
		text, _ = json.Marshal(list)
	default:
		if m := wholeNumber.FindSubmatch(text); numbers && m != nil {
			return m[1]
		}
	}
	return text
}

// legacy holds the fields that only old definitions have.
type legacy struct {
	URIs      []string         `json:"uris"`
	Ports     []int            `json:"ports"`
	IPAddress *legacyIPAddress `json:"ipAddress"`
	Container *legacyContainer `json:"container"`
}

type legacyIPAddress struct {
	NetworkName string `json:"networkName"`
	Discovery   struct {
		Ports []struct {
			Number   int    `json:"number"`
			Name     string `json:"name"`
			Protocol string `json:"protocol"`
		} `json:"ports"`
	} `json:"discovery"`
}

type legacyContainer struct {
	Docker struct {
		Network      string        `json:"network"`
		PortMappings []PortMapping `json:"portMappings"`
		Env          any           `json:"env"`
	} `json:"docker"`
}

// build fills a definition from its fields and brings it into canonical form.
func build(fields map[string]json.RawMessage, role string) (*App, error) {
	text, err := json.Marshal(fields)
	if err != nil {
		return nil, &BadDefinition{Syntax: true, Text: err.Error()}
	}
	a := defaults()
	if err := json.Unmarshal(text, a); err != nil {
		return nil, &BadDefinition{Syntax: true, Text: err.Error(), Problems: wrongTypes[App](text)}
	}
	var old legacy
	if err := json.Unmarshal(text, &old); err != nil {
		return nil, &BadDefinition{Syntax: true, Text: err.Error(), Problems: wrongTypes[legacy](text)}
	}
	if a.Role == "" {
		a.Role = role
	}
	a.residentDefaults(fields)
	a.leftOpen(fields)
	if err := a.normalize(&old, fields); err != nil {
		return nil, err
	}
	return a, a.validate()
}

func defaults() *App {
	return &App{
		Instances: 1, CPUs: 1, Mem: 128, BackoffSeconds: 1, BackoffFactor: 1.15, MaxLaunchDelaySeconds: 300,
		Upgrade: UpgradeStrategy{MinimumHealthCapacity: 1, MaximumOverCapacity: 1}, KillSelect: "YOUNGEST_FIRST",
		Env: map[string]EnvValue{}, Labels: map[string]string{}, Constraints: [][]string{}, Fetch: []Fetch{}, Dependencies: []string{},
		HealthChecks: []HealthCheck{}, Readiness: []ReadinessCheck{},
	}
}
