// Package resources is the arithmetic of what an agent offers and a task uses:
// scalars in thousandths, ranges and sets, with roles, reservations and the
// other marks that keep two amounts apart.
//
// It knows nothing of tasks, agents or messages. Scalars are fixed-point as in
// Mesos (values.cpp, convertToFixed: llround(x*1000)), so sums never drift.
// Values are never modified in place: every operation returns new Resources.
package resources
