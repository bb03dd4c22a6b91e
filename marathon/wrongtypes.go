package marathon

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// wrongTypes finds every value of the wrong type in a JSON text that could not
// be read into a T, by its path: encoding/json tells only the first, and only
// part of its path.
func wrongTypes[T any](text []byte) []Problem {
	var c checker
	c.types(text, reflect.TypeFor[T](), "")
	return c.problems
}

func (c *checker) types(text json.RawMessage, t reflect.Type, where string) {
	err := json.Unmarshal(text, reflect.New(t).Interface())
	if err == nil {
		return
	}
	before := len(c.problems)
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.Struct:
		c.fieldTypes(text, t, where)
	case reflect.Map:
		var values map[string]json.RawMessage
		json.Unmarshal(text, &values)
		for _, k := range slices.Sorted(maps.Keys(values)) {
			c.types(values[k], t.Elem(), where+"/"+k)
		}
	case reflect.Slice:
		var values []json.RawMessage
		json.Unmarshal(text, &values)
		for i, v := range values {
			c.types(v, t.Elem(), fmt.Sprintf("%s(%d)", where, i))
		}
	}
	if len(c.problems) == before {
		c.must(false, where, "%s", typeError(err))
	}
}

func (c *checker) fieldTypes(text json.RawMessage, t reflect.Type, where string) {
	var values map[string]json.RawMessage
	json.Unmarshal(text, &values)
	for field := range t.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if v, ok := values[name]; ok && name != "" {
			c.types(v, field.Type, where+"/"+name)
		}
	}
}

func typeError(err error) string {
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		return err.Error()
	}
	return fmt.Sprintf("expected %s, got %s", typeName(wrong.Type), wrong.Value)
}

// typeName is what JSON calls a type.
func typeName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Slice:
		return "an array"
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Int:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a text"
	}
	return t.String()
}
