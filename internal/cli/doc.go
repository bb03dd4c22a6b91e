// Package cli is the command tree: configuration (flags over MESOPOOL_*
// variables over a file), the wiring of the roles, and exit codes. It imports
// everything and nothing imports it.
package cli
