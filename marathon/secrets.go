package marathon

import (
	"fmt"
	"maps"
	"slices"
)

// secrets: whoever uses a secret must say where it comes from.
func (c *checker) secrets(a *App) {
	for _, name := range slices.Sorted(maps.Keys(a.Secrets)) {
		c.must(name != "", "/secrets", "a name must not be empty")
		c.must(a.Secrets[name].Source != "", "/secrets/"+name+"/source", "must not be empty")
	}
	where := "/env"
	if a.IsPod() {
		where = "/environment"
	}
	c.envSecrets(where, a.Env, a.Secrets)
	if a.Pod == nil {
		return
	}
	for i, x := range a.Pod.Containers {
		c.envSecrets(fmt.Sprintf("/containers(%d)/environment", i), x.Environment, a.Secrets)
	}
}

func (c *checker) envSecrets(where string, env map[string]EnvValue, known map[string]Secret) {
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if s := env[name].Secret; s != "" {
			c.must(known[s] != Secret{}, where+"/"+name, "references an undefined secret named '%s'", s)
		}
	}
}
