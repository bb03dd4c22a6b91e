package endpoint

import (
	"encoding/json"
	"net/http"
	"path"
	"regexp"
	"strings"
)

// affinityForm is label<op>value, or container<op>value (sdc-docker:
// lib/backends/sdc/affinity.js). A ~ makes it a wish.
var affinityForm = regexp.MustCompile(`^([a-zA-Z_][a-zA-Z0-9_.-]*)(==|!=)(~?)(.+)$`)

// swarmAffinities is the label that holds a JSON array of expressions.
const swarmAffinities = "com.docker.swarm.affinities"

type affinity struct {
	key, value string
	same, soft bool
	form       *regexp.Regexp // of /…/ values
}

// takeAffinities removes the expressions from the environment and returns all.
func (r *request) takeAffinities() ([]affinity, error) {
	var texts, env []string
	for _, v := range r.env {
		if expr, is := strings.CutPrefix(v, "affinity:"); is {
			texts = append(texts, expr)
		} else {
			env = append(env, v)
		}
	}
	if len(texts) > 0 && r.noLabels {
		return nil, internal("TypeError: Cannot read property '%s' of null", swarmAffinities)
	}
	r.env = env
	if label, there := r.labels[swarmAffinities]; there {
		var more []string
		if json.Unmarshal([]byte(label), &more) != nil {
			return nil, validation("invalid affinity: %s is no JSON array of strings", swarmAffinities)
		}
		texts = append(texts, more...)
	}
	var all []affinity
	for _, text := range texts {
		a, err := parseAffinity(text)
		if err != nil {
			return nil, err
		}
		all = append(all, a)
	}
	return all, nil
}

func parseAffinity(text string) (affinity, error) {
	m := affinityForm.FindStringSubmatch(text)
	if m == nil {
		return affinity{}, validation("invalid affinity: %q", text)
	}
	a := affinity{key: m[1], value: m[4], same: m[2] == "==", soft: m[3] == "~"}
	if n := len(a.value); n > 1 && a.value[0] == '/' && a.value[n-1] == '/' {
		form, err := regexp.Compile(a.value[1 : n-1])
		if err != nil {
			return affinity{}, validation("invalid affinity: %q: %v", text, err)
		}
		a.form = form
	} else if _, err := path.Match(a.value, ""); err != nil {
		return affinity{}, validation("invalid affinity: %q", text)
	}
	return a, nil
}

func (a *affinity) matches(c *Container) bool {
	values := []string{c.Name, c.ID}
	if a.key != "container" {
		label, there := c.Labels[a.key]
		if !there {
			return false
		}
		values = []string{label}
	}
	for _, v := range values {
		if a.form != nil && a.form.MatchString(v) {
			return true
		}
		if ok, _ := path.Match(a.value, v); ok && a.form == nil {
			return true
		}
	}
	return a.key == "container" && len(a.value) >= shortID && strings.HasPrefix(c.ID, a.value)
}

// place refuses what cannot be placed: a container that must be beside one that
// is not there. There is room enough to be apart of anything.
func (c *Cloud) place(a *Account, all []affinity) error {
	for _, x := range all {
		if x.soft || !x.same {
			continue
		}
		if len(c.Containers(a, x.matches)) == 0 {
			return &Error{
				http.StatusConflict, "NoAllocatableServersError",
				"problem creating container: No compute resources available: no server has a container with " + x.key + "==" + x.value,
			}
		}
	}
	return nil
}
