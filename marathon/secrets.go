package marathon

import (
	"fmt"
	"maps"
	"slices"
	"time"
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

type (
	// AskSecrets wants the values of secrets, by their sources, and is answered
	// with GotSecrets.
	AskSecrets struct {
		App     string
		Sources []string
	}

	// GotSecrets are the values that an app waits for, or why there are none.
	GotSecrets struct {
		App    string
		Values map[string]string // by source
		Error  string
	}
)

func (AskSecrets) effect() {}
func (GotSecrets) input()  {}

// secretAnswer is how long an answer may take; a refusal is asked about again
// after it.
const secretAnswer = 15 * time.Second

// secretsOf is what an app has of its secrets while it lacks instances. Values
// are in no record and in no answer of the API, and are asked for anew when the
// app lacks instances the next time.
type secretsOf struct {
	values map[string]string // by source; nil: not known
	why    string            // there are none
	asked  time.Time
}

// secretSources lists the sources of the secrets that an app's environment
// names.
func (a *App) secretSources() []string {
	set := map[string]bool{}
	note := func(env map[string]EnvValue) {
		for _, v := range env {
			if v.Secret != "" {
				set[a.Secrets[v.Secret].Source] = true
			}
		}
	}
	note(a.Env)
	if a.Pod != nil {
		for _, c := range a.Pod.Containers {
			note(c.Environment)
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// lacksSecrets says whether the app's next instance waits for a secret.
func (a *app) lacksSecrets() bool {
	return a.secrets.values == nil && len(a.def.secretSources()) > 0
}

// askSecrets asks for what an app that lacks instances needs.
func (c *Core) askSecrets(now time.Time, a *app, fx []Effect) []Effect {
	if !a.lacksSecrets() || now.Before(a.secrets.asked.Add(secretAnswer)) {
		return fx
	}
	a.secrets.asked = now
	c.timers.Add(now.Add(secretAnswer), timer{kind: timerApp, id: a.def.ID})
	return append(fx, AskSecrets{App: a.def.ID, Sources: a.def.secretSources()})
}

func (c *Core) gotSecrets(in GotSecrets, fx []Effect) []Effect {
	a := c.apps[in.App]
	if a == nil || c.lacking[in.App] == nil {
		return fx
	}
	a.secrets.why = in.Error
	if in.Error == "" && containsAll(in.Values, a.def.secretSources()) {
		a.secrets.values, a.asked = in.Values, 0
		c.changed[in.App] = true
	}
	return fx
}

func containsAll(values map[string]string, sources []string) bool {
	return !slices.ContainsFunc(sources, func(s string) bool {
		_, ok := values[s]
		return !ok
	})
}

// waitsForSecrets is the reason as a sentence.
func (a *app) waitsForSecrets() string {
	if a.secrets.why != "" {
		return "a secret cannot be read: " + a.secrets.why
	}
	return "waits for its secrets"
}

// setEnv writes the user's own variables; secrets are values by source.
func (a *App) setEnv(env *environment, own map[string]EnvValue, secrets map[string]string) {
	for k, v := range own {
		if v.Secret != "" {
			env.set(k, secrets[a.Secrets[v.Secret].Source])
			continue
		}
		env.set(k, v.Text)
	}
}
