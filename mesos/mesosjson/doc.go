// Package mesosjson is Mesos' own mapping between protobuf and JSON, which is
// not the one of protojson:
//
//   - fields have the names of the .proto file and come in its order;
//   - all integers are numbers, doubles keep their point (1.0), enum values are
//     names, bytes are base64;
//   - an unset field that declares a default is printed with it, unless the
//     field is deprecated; an empty list or map is not printed.
//
// Reading is generous, as Mesos is: unknown fields and unknown names of enum
// values are ignored, null stands for unset wherever it occurs, numbers and
// booleans may be strings, and one element may stand for a list of one. It is
// strict where silence would do harm: a fraction or an overflow in an integer
// field is an error (Mesos cuts it off), and so is a missing required field.
//
//	body := mesosjson.Marshal(event)
//	err := mesosjson.Unmarshal(body, call) // "accept.filters: want an object, not 5"
//
// The rules are those of stout/protobuf.hpp and stout/jsonify.hpp in Mesos.
// The package knows no particular message, except for quietDefaults.
package mesosjson
