package sim

import "testing"

// TestRegressions replays what once went wrong: the seed with its whole
// scenario, and the smallest one that showed it.
func TestRegressions(t *testing.T) {
	for _, r := range []struct {
		what     string
		seed     uint64
		scenario string
	}{
		{"a launch that reaches its agent after the agent was given up runs for ever: the master does not know it, so nobody can end it", 106, `
			3s create 2877034766
			3.705s create 1004829892
			10.187s cut 3760618510
			24.428s restart 754161544
			2m39.664s cancel 3616574584`},
		{"a registration that crosses the acknowledgement of a task's end leaves a row for ever", 106, `
			3s create 2877034766
			3.705s create 1004829892
			10.187s cut 3760618510
			24.428s restart 754161544
			1m6.091s kill 2771634609
			1m21.124s hang 4251303933
			1m36.474s reset 2053144153
			1m50.968s host-loss 3225800352
			2m2.098s create 1858576014
			2m29.079s bad-listing 2320683815
			2m39.664s cancel 3616574584`},
	} {
		s, err := ParseScenario(r.scenario)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []Scenario{s, Generate(r.seed)} {
			if f := New(r.seed, Options{}).Run(s); f != nil {
				t.Errorf("%s: %v", r.what, f)
			}
		}
	}
}
