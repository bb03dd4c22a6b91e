package api

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

var (
	equalTerm = regexp.MustCompile(`^\s*([^\s=!,()]+)\s*(==|!=)\s*([^\s,()]*)\s*$`)
	setTerm   = regexp.MustCompile(`^\s*([^\s=!,()]+)\s+(in|notin)\s*\(([^()]*)\)\s*$`)
	nameTerm  = regexp.MustCompile(`^\s*([^\s=!,()]+)\s*$`)
)

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
	for i, r := range text {
		switch {
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
			v, ok := labels[m[1]]
			return ok && (v == m[3]) == (m[2] == "==")
		}, nil
	}
	if m := setTerm.FindStringSubmatch(text); m != nil {
		var values []string
		for v := range strings.SplitSeq(m[3], ",") {
			values = append(values, strings.TrimSpace(v))
		}
		return func(labels map[string]string) bool {
			v, ok := labels[m[1]]
			return ok && slices.Contains(values, v) == (m[2] == "in")
		}, nil
	}
	if m := nameTerm.FindStringSubmatch(text); m != nil {
		return func(labels map[string]string) bool { _, ok := labels[m[1]]; return ok }, nil
	}
	return nil, fmt.Errorf("%q is no label selector; examples: env, env==prod, env in (prod,test)", text)
}
