// Package convert turns Mesos' messages into the project's own vocabulary and
// back: resources, task specifications, statuses. It keeps no state and does
// no I/O.
//
// What a message says and the vocabulary has no word for is not lost on the
// way: whoever passes a task on keeps the message itself (Spec.Origin).
package convert
