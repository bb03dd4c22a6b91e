package provider

// As finds the first provider in a chain of decorators that has the optional
// power T, such as Logger or Execer. A decorator shows what it wraps with a
// method Unwrap() Provider. One that has something to add to a power has a
// method Decorate(power any) any, which returns a value with the powers that it
// cares about around the one that was found.
func As[T any](p Provider) (T, bool) {
	var around []decorator
	for p != nil {
		if t, ok := p.(T); ok {
			return decorate(t, around), true
		}
		if d, ok := p.(decorator); ok {
			around = append(around, d)
		}
		u, ok := p.(interface{ Unwrap() Provider })
		if !ok {
			break
		}
		p = u.Unwrap()
	}
	var none T
	return none, false
}

type decorator interface{ Decorate(power any) any }

// decorate puts the decorators around a power, the innermost first. What a
// decorator does not know stays as it is.
func decorate[T any](t T, around []decorator) T {
	for i := len(around) - 1; i >= 0; i-- {
		if d, ok := around[i].Decorate(t).(T); ok {
			t = d
		}
	}
	return t
}
