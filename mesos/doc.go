// Package mesos is the folder of the Mesos wire; it holds no code itself.
//
//   - proto has the .proto files, v1 and messages the Go code made of them
//     (scripts/generate.sh);
//   - recordio frames the records of the streaming HTTP APIs;
//   - mesosjson is Mesos' own mapping between protobuf and JSON;
//   - libprocess carries messages between masters, agents and drivers.
//
// Nothing here knows what an agent or a master does with what it reads.
package mesos
