package server

import (
	"bytes"

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

// parts are the last values of a message's fields with small numbers: the bytes
// of strings and messages, and of numbers as they are serialized.
type parts [32][]byte

// partsOf reads as far as the message is whole.
func partsOf(message []byte) (p parts) {
	for len(message) > 0 {
		n, kind, tag := consumeTag(message)
		if tag < 0 {
			return p
		}
		var value []byte
		var size int
		if kind == protowire.BytesType {
			value, size = consumeBytes(message[tag:])
		} else if size = protowire.ConsumeFieldValue(n, kind, message[tag:]); size >= 0 {
			value = message[tag : tag+size]
		}
		if size < 0 {
			return p
		}
		if int(n) < len(p) {
			p[n] = value
		}
		message = message[tag+size:]
	}
	return p
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
		end := 1 + int(b[0])
		return b[1:end:end], end
	}
	return protowire.ConsumeBytes(b)
}

// without returns a message without some fields, whose numbers are bits.
func without(message []byte, drop uint64) []byte {
	out := make([]byte, 0, 256)
	for len(message) > 0 {
		n, _, size := protowire.ConsumeField(message)
		if size < 0 {
			break
		}
		if n > 63 || drop&(1<<n) == 0 {
			out = append(out, message[:size]...)
		}
		message = message[size:]
	}
	return bytes.Clone(out)
}
