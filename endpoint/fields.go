package endpoint

import (
	"bytes"
	"encoding/json"
	"slices"
)

// fields is a JSON object whose values are looked at one by one, each with its
// own refusal (sdc-docker: lib/validate.js).
type fields map[string]json.RawMessage

// set says whether a value is there and not null.
func (f fields) set(name string) bool {
	v, there := f[name]
	return there && !bytes.Equal(bytes.TrimSpace(v), []byte("null"))
}

// read decodes one value; one that is absent or null leaves out as it is.
func (f fields) read(name string, out any, kind string) error {
	if !f.set(name) {
		return nil
	}
	if err := json.Unmarshal(f[name], out); err != nil {
		return validation("%q must be %s", name, kind)
	}
	return nil
}

func (f fields) text(name string, out *string) error { return f.read(name, out, "a string") }
func (f fields) flag(name string, out *bool) error   { return f.read(name, out, "a boolean") }

// texts reads an array of strings; null elements are none.
func (f fields) texts(name string, out *[]string) error {
	var all []*string
	if err := f.read(name, &all, "an array of strings"); err != nil {
		return err
	}
	for _, s := range all {
		if s == nil {
			return validation("%q must be an array of strings", name)
		}
		*out = append(*out, *s)
	}
	return nil
}

// textMap reads an object of strings.
func (f fields) textMap(name string, out *map[string]string) error {
	var all map[string]*string
	if err := f.read(name, &all, "an object of strings"); err != nil {
		return err
	}
	for k, v := range all {
		if v == nil {
			return validation("%q must be an object of strings", name)
		}
		if *out == nil {
			*out = map[string]string{}
		}
		(*out)[k] = *v
	}
	return nil
}

// empty says whether JSON has nothing in it: null, false, 0, "", and arrays and
// objects of nothing. The keys of a map say something by themselves.
func empty(name string, text json.RawMessage) bool {
	var v any
	if len(text) == 0 || json.Unmarshal(text, &v) != nil {
		return true
	}
	keyed, object := v.(map[string]any)
	if object && name != "NetworkingConfig" && name != "Healthcheck" {
		return len(keyed) == 0
	}
	return nothing(v)
}

func nothing(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case bool:
		return !v
	case float64:
		return v == 0
	case string:
		return v == ""
	case []any:
		return !slices.ContainsFunc(v, func(x any) bool { return !nothing(x) })
	case map[string]any:
		for _, x := range v {
			if !nothing(x) {
				return false
			}
		}
		return true
	}
	return false
}
