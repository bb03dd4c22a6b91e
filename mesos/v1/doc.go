// Package mesosv1 is the generated vocabulary of the Mesos v1 API:
// identifiers, resources, tasks, offers, agents and statuses. It is proto2:
// required fields matter, and an unset field differs from a zero one.
package mesosv1
