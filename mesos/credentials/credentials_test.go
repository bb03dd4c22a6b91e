package credentials

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for name, x := range map[string]struct {
		text string
		n    int
		err  string
	}{
		"nothing":        {"", 0, ""},
		"JSON":           {`{"credentials": [{"principal": "a", "secret": "s"}, {"principal": "b c", "secret": "t u"}]}`, 2, ""},
		"JSON of nobody": {` {"credentials": []}`, 0, ""},
		"lines":          {"a s\n\nb\tt\r\n", 2, ""},
		"one word":       {"a s\nb\n", 0, "line 2 has 1 words"},
		"three words":    {"a s t", 0, "line 1 has 3 words"},
		"twice":          {"a s\na t", 0, `"a" is there twice`},
		"no principal":   {`{"credentials": [{"secret": "s"}]}`, 0, "no principal"},
		"broken JSON":    {`{"credentials": [{"principal": "a", "secret": hush}]}`, 0, "no JSON of the form"},
		"a number":       {`{"credentials": [{"principal": "a", "secret": 7}]}`, 0, "no JSON of the form"},
	} {
		t.Run(name, func(t *testing.T) {
			known, err := Parse([]byte(x.text))
			if x.err == "" && (err != nil || known.Len() != x.n) {
				t.Errorf("%d principals, error %v, want %d", known.Len(), err, x.n)
			}
			if x.err != "" && (err == nil || !strings.Contains(err.Error(), x.err) || strings.Contains(err.Error(), "hush")) {
				t.Errorf("error %v, want %q", err, x.err)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	known, err := Parse([]byte(`{"credentials": [{"principal": "a", "secret": "s"}, {"principal": "empty"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		principal, secret string
		want              bool
	}{{"a", "s", true}, {"a", "S", false}, {"a", "", false}, {"b", "s", false}, {"b", "", false}, {"empty", "", false}, {"", "", false}} {
		if got := known.Check(x.principal, x.secret); got != x.want {
			t.Errorf("%q with %q: %v", x.principal, x.secret, got)
		}
	}
	if _, ok := known.Secret("empty"); ok {
		t.Error("an empty secret is one")
	}
	if (Known{}).Check("", "") {
		t.Error("nobody is known, and yet somebody is")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"credentials": [{"principal": "a", "secret": "s"}]}`))
	f.Add([]byte("a s\nb t\n"))
	f.Add([]byte("{"))
	f.Fuzz(func(t *testing.T, text []byte) {
		known, err := Parse(text)
		if err == nil && known.Check("", "") {
			t.Error("nobody is somebody")
		}
	})
}
