package mesosjson

import (
	"encoding/json"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// quietDefaults are the fields that declare a default and are deprecated in
// Mesos, which therefore does not print them when they are unset. Our .proto
// files leave the option out, for we use these fields on purpose.
var quietDefaults = map[protoreflect.FullName]bool{
	"mesos.v1.FrameworkInfo.role": true,
	"mesos.v1.Resource.role":      true,
}

// message is what encoding and decoding need of a message type.
type message struct {
	fields   []*field // in the order of declaration
	byName   map[string]*field
	byNumber []*field // nil where there is none
	required []*field
}

type field struct {
	desc   protoreflect.FieldDescriptor
	name   string
	prefix string // "name":
	unset  string // what is printed for an unset field, with prefix; mostly nothing
	kind   protoreflect.Kind
	list   bool
	msg    *message // of a message or of a list of messages
	key    *field   // of a map
	value  *field   // of a map

	wireType protowire.Type
	oneof    bool
}

var messages = struct {
	sync.Mutex
	cache sync.Map // protoreflect.MessageDescriptor → *message, complete
}{}

// infoOf returns the cached description of a message type.
func infoOf(desc protoreflect.MessageDescriptor) *message {
	if m, ok := messages.cache.Load(desc); ok {
		return m.(*message)
	}
	messages.Lock()
	defer messages.Unlock()
	b := builder{}
	m := b.message(desc)
	for d, built := range b {
		messages.cache.Store(d, built)
	}
	return m
}

// maxNumber bounds the numbers of fields that are looked up by number; Mesos' are
// small. A field beyond would go unseen, so a test looks for one.
const maxNumber = 1000

// builder holds the types of one call of infoOf, which may refer to each other
// in circles.
type builder map[protoreflect.MessageDescriptor]*message

func (b builder) message(desc protoreflect.MessageDescriptor) *message {
	if m, ok := messages.cache.Load(desc); ok {
		return m.(*message)
	}
	if m := b[desc]; m != nil {
		return m
	}
	fields := desc.Fields()
	m := &message{byName: make(map[string]*field, fields.Len())}
	b[desc] = m
	for i := range fields.Len() {
		f := b.field(fields.Get(i))
		m.fields = append(m.fields, f)
		m.byName[f.name] = f
		if n := int(f.desc.Number()); n < maxNumber {
			for len(m.byNumber) <= n {
				m.byNumber = append(m.byNumber, nil)
			}
			m.byNumber[n] = f
		}
		if f.desc.Cardinality() == protoreflect.Required {
			m.required = append(m.required, f)
		}
	}
	return m
}

func (b builder) field(desc protoreflect.FieldDescriptor) *field {
	f := &field{desc: desc, name: string(desc.Name()), kind: desc.Kind(), list: desc.IsList(), wireType: wireTypeOf(desc.Kind()), oneof: desc.ContainingOneof() != nil}
	name, _ := json.Marshal(f.name)
	f.prefix = string(name) + ":"
	switch {
	case desc.IsMap():
		f.key, f.value = b.field(desc.MapKey()), b.field(desc.MapValue())
	case desc.Message() != nil:
		f.msg = b.message(desc.Message())
	case desc.HasDefault() && !quietDefaults[desc.FullName()]:
		f.unset = string(f.appendScalar([]byte(f.prefix), desc.Default()))
	}
	return f
}
