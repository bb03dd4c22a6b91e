package mesosjson

import (
	"math"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

// AppendWire appends a serialized message as Append would print it, mostly without
// making the message: several times as fast. Bytes that are no such message append
// nothing, and false says so.
func AppendWire(dst []byte, desc protoreflect.MessageDescriptor, wire []byte) ([]byte, bool) {
	return infoOf(desc).appendSerialized(dst, desc, wire)
}

// appendSerialized leaves what is rare (maps, floats, packed lists, a message in
// two parts) to Unmarshal and Append: of the smallest message that has it.
func (m *message) appendSerialized(dst []byte, desc protoreflect.MessageDescriptor, wire []byte) ([]byte, bool) {
	if quick, ok := m.appendWire(dst, wire); ok {
		return quick, true
	}
	made := dynamicpb.NewMessage(desc)
	if (proto.UnmarshalOptions{AllowPartial: true}).Unmarshal(wire, made) != nil {
		return dst, false
	}
	return Append(dst, made), true
}

// found is one field's value in a serialized message.
type found struct {
	f     *field
	bytes []byte // of strings, bytes and messages
	bits  uint64 // of all else
}

func (m *message) appendWire(dst, wire []byte) ([]byte, bool) {
	var room [16]found
	values, ok := m.scan(room[:0], wire)
	if !ok {
		return dst, false
	}
	dst = append(dst, '{')
	start := len(dst)
	for _, f := range m.fields {
		first := 0
		for first < len(values) && values[first].f != f {
			first++
		}
		set := first < len(values)
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
		if dst, ok = f.appendFound(append(dst, f.prefix...), values[first:]); !ok {
			return dst, false
		}
	}
	return append(dst, '}'), true
}

// scan finds the values of all known fields; of a scalar that is there twice
// the last one counts.
func (m *message) scan(values []found, wire []byte) ([]found, bool) {
	for len(wire) > 0 {
		n, kind, size := consumeTag(wire)
		if size < 0 {
			return nil, false
		}
		wire = wire[size:]
		v := found{f: m.numbered(n)}
		switch kind {
		case protowire.VarintType:
			v.bits, size = protowire.ConsumeVarint(wire)
		case protowire.Fixed64Type:
			v.bits, size = protowire.ConsumeFixed64(wire)
		case protowire.Fixed32Type:
			var bits uint32
			bits, size = protowire.ConsumeFixed32(wire)
			v.bits = uint64(bits)
		case protowire.BytesType:
			v.bytes, size = consumeBytes(wire)
		default:
			return nil, false
		}
		if size < 0 {
			return nil, false
		}
		wire = wire[size:]
		if v.f == nil {
			continue
		}
		if kind != v.f.wireType || v.f.key != nil || v.f.oneof {
			return nil, false
		}
		var ok bool
		if values, ok = put(values, v); !ok {
			return nil, false
		}
	}
	return values, true
}

// consumeTag and consumeBytes are protowire's, quicker where a byte is enough.

func consumeTag(b []byte) (protowire.Number, protowire.Type, int) {
	if c := b[0]; c < 0x80 && c >= 8 {
		return protowire.Number(c >> 3), protowire.Type(c & 7), 1
	}
	return protowire.ConsumeTag(b)
}

func consumeBytes(b []byte) ([]byte, int) {
	if len(b) > 0 && b[0] < 0x80 && len(b) > int(b[0]) {
		return b[1 : 1+int(b[0])], 1 + int(b[0])
	}
	return protowire.ConsumeBytes(b)
}

func put(values []found, v found) ([]found, bool) {
	if !v.f.list {
		for i := range values {
			if values[i].f == v.f {
				values[i] = v
				return values, v.f.msg == nil
			}
		}
	}
	return append(values, v), true
}

func (m *message) numbered(n protowire.Number) *field {
	if int(n) < len(m.byNumber) {
		return m.byNumber[n]
	}
	return nil
}

// appendFound prints the first of the values, or of a list all that are its.
func (f *field) appendFound(dst []byte, values []found) ([]byte, bool) {
	if !f.list {
		return f.appendBits(dst, &values[0])
	}
	ok := true
	dst = append(dst, '[')
	start := len(dst)
	for i := range values {
		if values[i].f != f {
			continue
		}
		if len(dst) > start {
			dst = append(dst, ',')
		}
		if dst, ok = f.appendBits(dst, &values[i]); !ok {
			return dst, false
		}
	}
	return append(dst, ']'), true
}

func (f *field) appendBits(dst []byte, v *found) ([]byte, bool) {
	switch f.kind {
	case protoreflect.MessageKind:
		return f.msg.appendSerialized(dst, f.desc.Message(), v.bytes)
	case protoreflect.StringKind:
		return AppendString(dst, string(v.bytes)), true
	case protoreflect.DoubleKind:
		return AppendFloat(dst, math.Float64frombits(v.bits)), true
	}
	value, ok := f.value64(v)
	if !ok {
		return dst, false
	}
	return f.appendScalar(dst, value), true
}

func (f *field) value64(v *found) (protoreflect.Value, bool) {
	switch f.kind {
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(v.bytes), true
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(v.bits != 0), true
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(int32(v.bits))), true
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(v.bits)), true
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(int64(v.bits)), true
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(v.bits)), true
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(v.bits), true
	}
	return protoreflect.Value{}, false
}

// wireTypeOf is how a kind is serialized, an impossible type for the rare ones.
func wireTypeOf(k protoreflect.Kind) protowire.Type {
	switch k {
	case protoreflect.MessageKind, protoreflect.StringKind, protoreflect.BytesKind:
		return protowire.BytesType
	case protoreflect.DoubleKind:
		return protowire.Fixed64Type
	case protoreflect.BoolKind, protoreflect.EnumKind, protoreflect.Int32Kind, protoreflect.Int64Kind, protoreflect.Uint32Kind, protoreflect.Uint64Kind:
		return protowire.VarintType
	}
	return -1
}
