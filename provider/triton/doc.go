// Package triton runs containers on a Triton data center: through sdc-docker,
// which speaks an old Docker remote API with rules of its own, and with what
// CloudAPI knows beside it: packages, limits, and a feed of changes.
//
// sdc-docker ignores without a word much of what a task can ask for. What it
// would ignore and what matters is refused here; what does not is logged. The
// rules and their sources are told in docs/triton.md.
package triton
