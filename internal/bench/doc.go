// Package bench measures launches: a framework on the real v1 scheduler API,
// the bundled master and the virtual agent over the real agent protocol, on any
// provider; and, for an engine, the bare client loop beside it.
package bench
