// Package recent keeps once what many rows say: the latest different values, of
// which equal ones take the place of new ones.
package recent

// size is how many different values are remembered.
const size = 16

// Values remembers the latest different values. The zero value is not ready: use
// New. It is not for concurrent use.
type Values[T any] struct {
	equal func(a, b T) bool
	kept  [size]T
	next  int
}

// New returns values that compare with equal. They must never be changed in place.
func New[T any](equal func(a, b T) bool) *Values[T] { return &Values[T]{equal: equal} }

// Same returns an equal value that is remembered already, or v, which then is.
func (s *Values[T]) Same(v T) T {
	for i := range min(s.next, size) {
		if s.equal(s.kept[i], v) {
			return s.kept[i]
		}
	}
	s.kept[s.next%size] = v
	s.next++
	return v
}
