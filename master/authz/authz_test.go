package authz

import (
	"strings"
	"testing"
)

func mustParse(t testing.TB, text string) *ACLs {
	t.Helper()
	a, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

var (
	nobody   = Subject{}
	ops      = Subject{Name: "ops"}
	dev      = Subject{Name: "dev"}
	nameless = Subject{Nameless: true}
)

func TestAllows(t *testing.T) {
	const opsOnly = `{"permissive": false, "run_tasks": [
		{"principals": {"values": ["ops"]}, "users": {"type": "ANY"}},
		{"principals": {"values": ["dev"]}, "users": {"values": ["www", "app"]}}]}`
	const noRoot = `{"run_tasks": [{"principals": {"type": "NONE"}, "users": {"values": ["root"]}}]}`
	const tree = `{"permissive": false, "register_frameworks": [
		{"principals": {"values": ["dev"]}, "roles": {"values": ["eng/%", "qa"]}},
		{"principals": {"type": "ANY"}, "roles": {"type": "NONE"}}]}`
	for _, x := range []struct {
		name, acls string
		who        Subject
		action     Action
		objects    []string
		want       bool
	}{
		{"nothing is said, permissive", `{}`, dev, RunTask, []string{"root"}, true},
		{"nothing is said, not permissive", `{"permissive": false}`, dev, RunTask, []string{"root"}, false},
		{"any user", opsOnly, ops, RunTask, []string{"root"}, true},
		{"any user, for any", opsOnly, ops, RunTask, nil, true},
		{"a user that is listed", opsOnly, dev, RunTask, []string{"www"}, true},
		{"one that is not", opsOnly, dev, RunTask, []string{"root"}, false},
		{"one of two", opsOnly, dev, RunTask, []string{"www", "root"}, false},
		{"some are not any", opsOnly, dev, RunTask, nil, false},
		{"nobody is not among some", opsOnly, nobody, RunTask, []string{"www"}, false},
		{"claims without a name", `{}`, nameless, RunTask, []string{"www"}, false},
		{"none may", noRoot, ops, RunTask, []string{"root"}, false},
		{"none may, nor nobody", noRoot, nobody, RunTask, []string{"root"}, false},
		{"others may", noRoot, nobody, RunTask, []string{"www"}, true},
		{"a role below", tree, dev, RegisterFramework, []string{"eng/web"}, true},
		{"two below", tree, dev, RegisterFramework, []string{"eng/web/x"}, true},
		{"the role itself is not below it", tree, dev, RegisterFramework, []string{"eng"}, false},
		{"a name that only begins so", tree, dev, RegisterFramework, []string{"english"}, false},
		{"a role in the same list", tree, dev, RegisterFramework, []string{"qa"}, true},
		{"what is below it is not it", tree, dev, RegisterFramework, []string{"qa/x"}, false},
		{"any role", tree, dev, RegisterFramework, nil, false},
		{"another principal", tree, ops, RegisterFramework, []string{"qa"}, false},
		{"the first that matches decides", `{"view_flags": [{"principals": {"values": ["dev"]}, "flags": {"type": "NONE"}},
			{"principals": {"type": "ANY"}, "flags": {"type": "ANY"}}]}`, dev, ViewFlags, nil, false},
		{"and the second for others", `{"view_flags": [{"principals": {"values": ["dev"]}, "flags": {"type": "NONE"}},
			{"principals": {"type": "ANY"}, "flags": {"type": "ANY"}}]}`, nobody, ViewFlags, nil, true},
		{"values of ANY do not count", `{"permissive": false, "run_tasks": [{"principals": {"type": "ANY", "values": ["x"]}, "users": {"type": "ANY"}}]}`, dev, RunTask, []string{"root"}, true},
		{"no values", `{"run_tasks": [{"principals": {}, "users": {"type": "NONE"}}]}`, dev, RunTask, []string{"root"}, true},
	} {
		t.Run(x.name, func(t *testing.T) {
			if got := mustParse(t, x.acls).Allows(x.who, x.action, x.objects...); got != x.want {
				t.Errorf("got %v, want %v", got, x.want)
			}
		})
	}
	var none *ACLs
	if !none.Allows(nameless, RunTask, "root") || !none.Registers(nameless, nil) {
		t.Error("without ACLs something is refused")
	}
}

func TestRegisters(t *testing.T) {
	strict := mustParse(t, `{"permissive": false, "register_frameworks": [{"principals": {"values": ["dev"]}, "roles": {"values": ["a", "b"]}}]}`)
	for _, x := range []struct {
		acls  *ACLs
		who   Subject
		roles []string
		want  bool
	}{
		{strict, dev, []string{"a", "b"}, true},
		{strict, dev, []string{"a", "c"}, false},
		{strict, dev, nil, false},
		{mustParse(t, `{}`), dev, nil, true},
		{mustParse(t, `{}`), nameless, nil, false},
	} {
		if got := x.acls.Registers(x.who, x.roles); got != x.want {
			t.Errorf("%v as %+v: %v", x.roles, x.who, got)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                      "no JSON of the form",
		"null":                  "no JSON of the form",
		"[]":                    "no JSON of the form",
		`{"permissive": "yes"}`: `permissive is "yes"`,
		`{"run_task": []}`:      `"run_task" is no list of ACLs`,
		`{"run_tasks": {}}`:     "run_tasks is no list",
		`{"run_tasks": [{}]}`:   "run_tasks[0].principals is missing",
		`{"view_tasks": [{"principals": {"type": "ANY"}}]}`:                                                      "view_tasks[0].users is missing",
		`{"run_tasks": [{"principals": {"type": "ALL"}, "users": {}}]}`:                                          `run_tasks[0].principals.type is "ALL"`,
		`{"run_tasks": [{"principals": {"value": ["x"]}, "users": {}}]}`:                                         "run_tasks[0].principals is",
		`{"run_tasks": [{"principals": {}, "users": {}, "roles": {}}]}`:                                          `run_tasks[0] has "roles"`,
		`{"view_flags": [{"principals": {"type": "ANY"}, "flags": {"values": ["x"]}}]}`:                          "ACL.ViewFlags type must be either NONE or ANY",
		`{"get_endpoints": [{"principals": {"type": "ANY"}, "paths": {"values": ["/metrics/snapshot", "/x"]}}]}`: "Path: '/x' is not an authorizable path",
	} {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	if a := mustParse(t, `{"permissive": null, "run_tasks": null}`); !a.Allows(dev, RunTask, "x") {
		t.Error("null is not the same as nothing")
	}
}

// FuzzParse: what can be read decides without a stumble, and nobody without a
// name is ever allowed anything.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"permissive": false, "register_frameworks": [{"principals": {"values": ["dev"]}, "roles": {"values": ["eng/%"]}}]}`), "dev", "eng/x")
	f.Add([]byte(`{"run_tasks": [{"principals": {"type": "NONE"}, "users": {"type": "ANY"}}]}`), "", "root")
	f.Fuzz(func(t *testing.T, text []byte, who, object string) {
		a, err := Parse(text)
		if err != nil {
			return
		}
		for name := range lists {
			a.Allows(Subject{Name: who}, Action(name), object)
			if a.Allows(nameless, Action(name), object) {
				t.Errorf("%s: the nameless are allowed %s", text, name)
			}
		}
	})
}
