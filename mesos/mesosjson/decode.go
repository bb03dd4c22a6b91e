package mesosjson

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// ErrRequired is the reason why JSON without a required field is refused.
var ErrRequired = errors.New("required field is missing")

// Unmarshal reads a JSON object into m, which it empties first. An error names
// the field by its path, as in accept.operations[0].type, and the value; m then
// holds part of what was read and is of no use. It may wrap ErrRequired.
func Unmarshal(in []byte, m proto.Message) error {
	proto.Reset(m)
	r := m.ProtoReflect()
	s := &scanner{in: in}
	if s.peek() != '{' {
		if s.pos == len(in) {
			return errors.New("no JSON, want an object")
		}
		return fmt.Errorf("want a JSON object, not %s", excerpt(in[s.pos:]))
	}
	if err := infoOf(r.Descriptor()).read(s, r); err != nil {
		return err
	}
	return s.end()
}

// pathError is an error in a field, below the value that is being read.
type pathError struct {
	path string
	err  error
}

func (e *pathError) Error() string { return strings.TrimPrefix(e.path, ".") + ": " + e.err.Error() }
func (e *pathError) Unwrap() error { return e.err }

// at puts a step before the path of an error.
func at(step string, err error) error {
	if p, ok := err.(*pathError); ok {
		p.path = step + p.path
		return p
	}
	return &pathError{path: step, err: err}
}

func (m *message) read(s *scanner, r protoreflect.Message) error {
	if err := s.enter(); err != nil {
		return err
	}
	for first := true; ; first = false {
		ok, err := s.more(first, '}')
		if err != nil {
			return err
		}
		if !ok {
			return m.checkRequired(r)
		}
		if err := m.readField(s, r); err != nil {
			return err
		}
	}
}

func (m *message) checkRequired(r protoreflect.Message) error {
	for _, f := range m.required {
		if !r.Has(f.desc) {
			return at("."+f.name, ErrRequired)
		}
	}
	return nil
}

func (m *message) readField(s *scanner, r protoreflect.Message) error {
	name, err := s.key()
	if err != nil {
		return err
	}
	f := m.byName[string(name)]
	if f == nil {
		return s.skip()
	}
	if r.Has(f.desc) { // a name twice: the last one counts
		r.Clear(f.desc)
	}
	if s.peek() == 'n' {
		return s.literal("null")
	}
	if err := f.read(s, r); err != nil {
		return at("."+f.name, err)
	}
	return nil
}

func (f *field) read(s *scanner, r protoreflect.Message) error {
	switch {
	case f.list:
		return f.readList(s, r.Mutable(f.desc).List())
	case f.key != nil:
		return f.readMap(s, r.Mutable(f.desc).Map())
	case f.msg != nil:
		return f.readMessage(s, r.Mutable(f.desc).Message())
	}
	v, err := f.readScalar(s)
	if err == nil && v.IsValid() {
		r.Set(f.desc, v)
	}
	return err
}

func (f *field) readMessage(s *scanner, r protoreflect.Message) error {
	if s.peek() != '{' {
		return s.unexpected("an object")
	}
	return f.msg.read(s, r)
}

func (f *field) readList(s *scanner, list protoreflect.List) error {
	if s.peek() != '[' {
		return f.readElement(s, list)
	}
	if err := s.enter(); err != nil {
		return err
	}
	for i := 0; ; i++ {
		ok, err := s.more(i == 0, ']')
		if err != nil || !ok {
			return err
		}
		if s.peek() == 'n' {
			err = s.literal("null")
		} else {
			err = f.readElement(s, list)
		}
		if err != nil {
			return at("["+strconv.Itoa(i)+"]", err)
		}
	}
}

func (f *field) readElement(s *scanner, list protoreflect.List) error {
	if f.msg != nil {
		return f.readMessage(s, list.AppendMutable().Message())
	}
	v, err := f.readScalar(s)
	if err == nil && v.IsValid() {
		list.Append(v)
	}
	return err
}

func (f *field) readMap(s *scanner, m protoreflect.Map) error {
	if s.peek() != '{' {
		return s.unexpected("an object")
	}
	if err := s.enter(); err != nil {
		return err
	}
	for first := true; ; first = false {
		ok, err := s.more(first, '}')
		if err != nil || !ok {
			return err
		}
		name, err := s.key()
		if err != nil {
			return err
		}
		key := string(name)
		if err := f.readEntry(s, m, key); err != nil {
			return at(fmt.Sprintf("[%q]", key), err)
		}
	}
}

func (f *field) readEntry(s *scanner, m protoreflect.Map, name string) error {
	k, err := f.key.fromString([]byte(name))
	if err != nil {
		return err
	}
	if s.peek() == 'n' {
		m.Clear(k.MapKey())
		return s.literal("null")
	}
	if f.value.msg != nil {
		m.Clear(k.MapKey())
		return f.value.readMessage(s, m.Mutable(k.MapKey()).Message())
	}
	v, err := f.value.readScalar(s)
	if err == nil && v.IsValid() {
		m.Set(k.MapKey(), v)
	}
	return err
}

// readScalar reads a value of the field's kind. Without an error, the value is
// invalid when it is to be ignored.
func (f *field) readScalar(s *scanner) (v protoreflect.Value, err error) {
	switch c := s.peek(); {
	case c == '"':
		text, err := s.str()
		if err != nil {
			return v, err
		}
		return f.fromString(text)
	case c == '{' || c == '[':
		return v, s.unexpected(f.wants())
	case f.kind == protoreflect.BoolKind:
		return f.readBool(s, c)
	case !f.numeric() || c == 't' || c == 'f':
		return v, s.unexpected(f.wants())
	}
	text, err := s.number()
	if err != nil {
		return v, err
	}
	return f.fromNumber(text)
}

func (f *field) readBool(s *scanner, c byte) (protoreflect.Value, error) {
	switch c {
	case 't':
		return protoreflect.ValueOfBool(true), s.literal("true")
	case 'f':
		return protoreflect.ValueOfBool(false), s.literal("false")
	default:
		return protoreflect.Value{}, s.unexpected(f.wants())
	}
}

// fromString reads what stands in quotes.
func (f *field) fromString(text []byte) (v protoreflect.Value, err error) {
	switch f.kind {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(strings.ToValidUTF8(string(text), "\uFFFD")), nil
	case protoreflect.BytesKind:
		return f.fromBase64(text)
	case protoreflect.EnumKind:
		return f.fromName(text)
	case protoreflect.BoolKind:
		if b, err := strconv.ParseBool(string(text)); err == nil && len(text) >= len("true") {
			return protoreflect.ValueOfBool(b), nil
		}
	case protoreflect.DoubleKind, protoreflect.FloatKind:
		if bytes.HasSuffix(text, []byte("Infinity")) {
			return f.fromInfinity(text)
		}
	}
	if f.numeric() && len(text) > 0 && numberLen(text) == len(text) {
		return f.fromNumber(text)
	}
	return v, fmt.Errorf("want %s, not %s", f.wants(), quote(text))
}

// fromBase64 takes padded and unpadded text, of both alphabets.
func (f *field) fromBase64(text []byte) (v protoreflect.Value, err error) {
	enc := base64.RawStdEncoding
	if bytes.ContainsAny(text, "-_") {
		enc = base64.RawURLEncoding
	}
	out, err := enc.AppendDecode(nil, bytes.TrimRight(text, "="))
	if err != nil {
		return v, fmt.Errorf("want base64, not %s", quote(text))
	}
	return protoreflect.ValueOfBytes(out), nil
}

// fromName ignores an unknown name unless the field is required.
func (f *field) fromName(text []byte) (v protoreflect.Value, err error) {
	if d := f.desc.Enum().Values().ByName(protoreflect.Name(text)); d != nil {
		return protoreflect.ValueOfEnum(d.Number()), nil
	}
	if f.desc.Cardinality() == protoreflect.Required {
		return v, fmt.Errorf("%s is not a %s", quote(text), f.desc.Enum().Name())
	}
	return v, nil
}

func (f *field) fromInfinity(text []byte) (v protoreflect.Value, err error) {
	x := math.Inf(1)
	switch string(text) {
	case "Infinity":
	case "-Infinity":
		x = math.Inf(-1)
	default:
		return v, fmt.Errorf("want %s, not %s", f.wants(), quote(text))
	}
	return f.fromFloat(x), nil
}

func (f *field) fromFloat(x float64) protoreflect.Value {
	if f.kind == protoreflect.FloatKind {
		return protoreflect.ValueOfFloat32(float32(x))
	}
	return protoreflect.ValueOfFloat64(x)
}

// fromNumber reads the text of a JSON number.
func (f *field) fromNumber(text []byte) (v protoreflect.Value, err error) {
	switch f.kind {
	case protoreflect.DoubleKind, protoreflect.FloatKind:
		x, err := strconv.ParseFloat(string(text), 64)
		if err != nil {
			return v, fmt.Errorf("%s is beyond a double", excerpt(text))
		}
		return f.fromFloat(x), nil
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		n, err := parseUint(text, 32)
		return protoreflect.ValueOfUint32(uint32(n)), err
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		n, err := parseUint(text, 64)
		return protoreflect.ValueOfUint64(n), err
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		n, err := parseInt(text, 32)
		return protoreflect.ValueOfInt32(int32(n)), err
	default:
		n, err := parseInt(text, 64)
		return protoreflect.ValueOfInt64(n), err
	}
}

// parseInt also takes 5.0 and 5e3, which some clients write.
func parseInt(text []byte, bits int) (int64, error) {
	n, err := strconv.ParseInt(string(text), 10, bits)
	if err == nil {
		return n, nil
	}
	x, err := strconv.ParseFloat(string(text), 64)
	limit := math.Ldexp(1, bits-1)
	if err != nil || x != math.Trunc(x) || x < -limit || x >= limit {
		return 0, fmt.Errorf("%s is not an integer of %d bits", excerpt(text), bits)
	}
	return int64(x), nil
}

func parseUint(text []byte, bits int) (uint64, error) {
	n, err := strconv.ParseUint(string(text), 10, bits)
	if err == nil {
		return n, nil
	}
	x, err := strconv.ParseFloat(string(text), 64)
	if err != nil || x != math.Trunc(x) || x < 0 || x >= math.Ldexp(1, bits) {
		return 0, fmt.Errorf("%s is not an unsigned integer of %d bits", excerpt(text), bits)
	}
	return uint64(x), nil
}

func (f *field) numeric() bool {
	switch f.kind {
	case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.EnumKind, protoreflect.BoolKind:
		return false
	default:
		return true
	}
}

func (f *field) wants() string {
	switch {
	case f.kind == protoreflect.EnumKind:
		return "a name of " + string(f.desc.Enum().Name())
	case f.kind == protoreflect.BoolKind:
		return "true or false"
	case f.kind == protoreflect.BytesKind:
		return "base64"
	case f.numeric():
		return "a number"
	default:
		return "a string"
	}
}

// unexpected is the error for a value of the wrong sort, or for none at all.
func (s *scanner) unexpected(want string) error {
	start := s.pos
	if err := s.skip(); err != nil {
		return err
	}
	return fmt.Errorf("want %s, not %s", want, excerpt(s.in[start:s.pos]))
}

// maxExcerpt is how many bytes of a wrong value an error shows.
const maxExcerpt = 64

func excerpt(text []byte) string {
	if len(text) <= maxExcerpt {
		return strings.ToValidUTF8(string(text), "\uFFFD")
	}
	cut := maxExcerpt
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return strings.ToValidUTF8(string(text[:cut]), "\uFFFD") + "…"
}

func quote(text []byte) string { return strconv.Quote(excerpt(text)) }
