// Package interop has foreign programs drive ours. It is a module of its own, so
// that what they need does not come into the program: it knows mesopool only as
// a binary.
package interop
