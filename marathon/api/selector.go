package api

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// word is a name or a value; a backslash takes the meaning from what follows.
const word = `(?:\\.|[^\s=!,()\\])`

var (
	equalTerm = regexp.MustCompile(`^\s*(` + word + `+)\s*(==|!=)\s*(` + word + `*)\s*$`)
	setTerm   = regexp.MustCompile(`^\s*(` + word + `+)\s+(in|notin)\s*\(((?:` + word + `|[,\s])*)\)\s*$`)
	nameTerm  = regexp.MustCompile(`^\s*(` + word + `+)\s*$`)
	escape    = regexp.MustCompile(`\\(.)`)
)

func plain(text string) string { return escape.ReplaceAllString(text, "$1") }

// parseSelector reads a label selector: "a", "a==b", "a!=b", "a in (x,y)",
// "a notin (x,y)", joined by commas (LabelSelector.scala). All operators need
// the label to be there.
func parseSelector(text string) (func(map[string]string) bool, error) {
	var terms []func(map[string]string) bool
	for _, part := range splitTerms(text) {
		if strings.TrimSpace(part) == "" {
			continue
		}
		term, err := parseTerm(part)
		if err != nil {
			return nil, err
		}
		terms = append(terms, term)
	}
	return func(labels map[string]string) bool {
		for _, term := range terms {
			if !term(labels) {
				return false
			}
		}
		return true
	}, nil
}

// splitTerms cuts at the commas that are not inside brackets.
func splitTerms(text string) []string {
	var out []string
	depth, start := 0, 0
	escaped := false
	for i, r := range text {
		switch {
		case escaped || r == '\\':
			escaped = !escaped
		case r == '(':
			depth++
		case r == ')':
			depth--
		case r == ',' && depth == 0:
			out = append(out, text[start:i])
			start = i + 1
		}
	}
	return append(out, text[start:])
}

func parseTerm(text string) (func(map[string]string) bool, error) {
	if m := equalTerm.FindStringSubmatch(text); m != nil {
		return func(labels map[string]string) bool {
			v, ok := labels[plain(m[1])]
			return ok && (v == plain(m[3])) == (m[2] == "==")
		}, nil
	}
	if m := setTerm.FindStringSubmatch(text); m != nil {
		var values []string
		for _, v := range splitTerms(m[3]) {
			values = append(values, plain(strings.TrimSpace(v)))
		}
		return func(labels map[string]string) bool {
			v, ok := labels[plain(m[1])]
			return ok && slices.Contains(values, v) == (m[2] == "in")
		}, nil
	}
	if m := nameTerm.FindStringSubmatch(text); m != nil {
		return func(labels map[string]string) bool { _, ok := labels[plain(m[1])]; return ok }, nil
	}
	return nil, fmt.Errorf("%q is no label selector; examples: env, env==prod, env in (prod,test)", text)
}
