package mesosjson

import (
	"bytes"
	"encoding/base64"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Marshal returns m as JSON. Missing required fields are not an error here:
// what is unset does not appear.
func Marshal(m proto.Message) []byte { return Append(nil, m) }

// Append appends m as JSON to dst.
func Append(dst []byte, m proto.Message) []byte {
	r := m.ProtoReflect()
	return infoOf(r.Descriptor()).append(dst, r)
}

func (m *message) append(dst []byte, r protoreflect.Message) []byte {
	dst = append(dst, '{')
	start := len(dst)
	for _, f := range m.fields {
		set := r.Has(f.desc)
		if !set && f.unset == "" {
			continue
		}
		if len(dst) > start {
			dst = append(dst, ',')
		}
		if !set {
			dst = append(dst, f.unset...)
			continue
		}
		dst = f.append(append(dst, f.prefix...), r.Get(f.desc))
	}
	return append(dst, '}')
}

func (f *field) append(dst []byte, v protoreflect.Value) []byte {
	switch {
	case f.list:
		return f.appendList(dst, v.List())
	case f.key != nil:
		return f.appendMap(dst, v.Map())
	default:
		return f.appendOne(dst, v)
	}
}

func (f *field) appendOne(dst []byte, v protoreflect.Value) []byte {
	if f.msg != nil {
		return f.msg.append(dst, v.Message())
	}
	return f.appendScalar(dst, v)
}

func (f *field) appendList(dst []byte, list protoreflect.List) []byte {
	dst = append(dst, '[')
	for i := range list.Len() {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = f.appendOne(dst, list.Get(i))
	}
	return append(dst, ']')
}

// appendMap sorts by key, so that equal messages give equal text.
func (f *field) appendMap(dst []byte, m protoreflect.Map) []byte {
	values := make(map[string]protoreflect.Value, m.Len())
	keys := make([]string, 0, m.Len())
	m.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		keys = append(keys, k.String())
		values[k.String()] = v
		return true
	})
	slices.Sort(keys)
	dst = append(dst, '{')
	for i, k := range keys {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(AppendString(dst, k), ':')
		dst = f.value.appendOne(dst, values[k])
	}
	return append(dst, '}')
}

func (f *field) appendScalar(dst []byte, v protoreflect.Value) []byte {
	switch f.kind {
	case protoreflect.StringKind:
		return AppendString(dst, v.String())
	case protoreflect.EnumKind:
		return f.appendEnum(dst, v.Enum())
	case protoreflect.BoolKind:
		return strconv.AppendBool(dst, v.Bool())
	case protoreflect.DoubleKind, protoreflect.FloatKind:
		return AppendFloat(dst, v.Float())
	case protoreflect.BytesKind:
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, v.Bytes())
		return append(dst, '"')
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind, protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return strconv.AppendUint(dst, v.Uint(), 10)
	default:
		return strconv.AppendInt(dst, v.Int(), 10)
	}
}

// appendEnum prints a number without a name as a string, which readers take
// for an unknown name and ignore.
func (f *field) appendEnum(dst []byte, n protoreflect.EnumNumber) []byte {
	dst = append(dst, '"')
	if v := f.desc.Enum().Values().ByNumber(n); v != nil {
		dst = append(dst, v.Name()...)
	} else {
		dst = strconv.AppendInt(dst, int64(n), 10)
	}
	return append(dst, '"')
}

// AppendFloat appends a double as Mesos prints it: the shortest digits that
// read back the same, always with a point or an exponent, the latter from 1e21
// on and below 1e-6 (1.0, 0.1, 1795185189.25, 1e30, 2.5e-7). JSON has no
// infinities: they become the strings that Mesos reads back. NaN becomes null.
func AppendFloat(dst []byte, x float64) []byte {
	switch {
	case math.IsInf(x, 0):
		return append(dst, infinity(x)...)
	case math.IsNaN(x):
		return append(dst, "null"...)
	}
	size := math.Abs(x)
	if size != 0 && (size < 1e-6 || size >= 1e21) {
		return appendExponent(dst, x)
	}
	start := len(dst)
	dst = strconv.AppendFloat(dst, x, 'f', -1, 64)
	if !slices.Contains(dst[start:], '.') {
		dst = append(dst, ".0"...)
	}
	return dst
}

func infinity(x float64) string {
	if x < 0 {
		return `"-Infinity"`
	}
	return `"Infinity"`
}

// appendExponent prints 1e30 and 1e-7 where strconv has 1e+30 and 1e-07.
func appendExponent(dst []byte, x float64) []byte {
	start := len(dst)
	dst = strconv.AppendFloat(dst, x, 'e', -1, 64)
	e := start + bytes.IndexByte(dst[start:], 'e')
	sign, digits := dst[e+1], bytes.TrimPrefix(dst[e+2:], []byte("0"))
	dst = dst[:e+1]
	if sign == '-' {
		dst = append(dst, '-')
	}
	return append(dst, digits...)
}

const hex = "0123456789ABCDEF"

// AppendString appends s as a JSON string. Bytes that are not UTF-8 become
// U+FFFD: Mesos passes them through, and its readers choke on them.
func AppendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := plain(s); i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c < ' ' || c == '"' || c == '\\' {
				dst = appendEscape(append(dst, s[start:i]...), c)
				start = i + 1
			}
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 {
			dst = append(append(dst, s[start:i]...), "\uFFFD"...)
			start = i + 1
		}
		i += n
	}
	return append(append(dst, s[start:]...), '"')
}

// plain returns how many bytes s begins with that stand for themselves, in steps
// of eight: it may be fewer than there are.
func plain(s string) (n int) {
	const each, high = 0x0101010101010101, 0x8080808080808080
	for ; len(s) >= 8; s = s[8:] {
		w := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
			uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
		quote, back := w^'"'*each, w^'\\'*each
		// A byte below b leaves its high bit in x-b*each, unless x had one.
		if (w|(w-' '*each)|(quote-each)&^quote|(back-each)&^back)&high != 0 {
			return n
		}
		n += 8
	}
	return n
}

func appendEscape(dst []byte, c byte) []byte {
	const letters = "btn\x00fr" // of \b to \r
	switch {
	case c == '"' || c == '\\':
		return append(dst, '\\', c)
	case c >= '\b' && c <= '\r' && c != '\v':
		return append(dst, '\\', letters[c-'\b'])
	default:
		return append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
	}
}
