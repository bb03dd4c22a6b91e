package server

import (
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/mesopool/mesopool/master"
)

// The messages that are sent most often are put together from pieces that are
// serialized already.

func appendBytes(dst []byte, n protowire.Number, b []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(dst, n, protowire.BytesType), b)
}

func appendString(dst []byte, n protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(dst, n, protowire.BytesType), s)
}

func appendBool(dst []byte, n protowire.Number, v bool) []byte {
	return protowire.AppendVarint(protowire.AppendTag(dst, n, protowire.VarintType), protowire.EncodeBool(v))
}

// appendID appends one of Mesos' ID messages, which all have value = 1.
func appendID(dst []byte, n protowire.Number, id string) []byte {
	size := protowire.SizeTag(1) + protowire.SizeBytes(len(id))
	dst = protowire.AppendVarint(protowire.AppendTag(dst, n, protowire.BytesType), uint64(size))
	return appendString(dst, 1, id)
}

// frameworkIDField is FrameworkInfo.id.
const frameworkIDField = 3

// appendFramework appends a framework's description with its ID. An ID in the
// description itself comes first and so does not count.
func appendFramework(dst []byte, n protowire.Number, f *master.FrameworkInfo) []byte {
	dst = protowire.AppendTag(dst, n, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(len(f.Origin)+idSize(f.ID)))
	dst = append(dst, f.Origin...)
	return appendID(dst, frameworkIDField, f.ID)
}

// idSize is how long appendID's field is with a number below 16.
func idSize(id string) int {
	return protowire.SizeTag(1) + protowire.SizeBytes(protowire.SizeTag(1)+protowire.SizeBytes(len(id)))
}

// field returns the last value of a bytes field, nil if there is none or the
// message is broken.
func field(message []byte, want protowire.Number) []byte {
	var out []byte
	for len(message) > 0 {
		n, kind, size := protowire.ConsumeField(message)
		if size < 0 {
			return nil
		}
		if n == want && kind == protowire.BytesType {
			_, _, tag := protowire.ConsumeTag(message)
			out, _ = protowire.ConsumeBytes(message[tag:])
		}
		message = message[size:]
	}
	return out
}

// without returns a message without a field.
func without(message []byte, drop protowire.Number) []byte {
	out := make([]byte, 0, len(message))
	for len(message) > 0 {
		n, _, size := protowire.ConsumeField(message)
		if size < 0 {
			return out
		}
		if n != drop {
			out = append(out, message[:size]...)
		}
		message = message[size:]
	}
	return out
}
