package provider

// As finds the first provider in a chain of decorators that has the optional
// power T, such as Logger or Execer. A decorator shows what it wraps with a
// method Unwrap() Provider.
func As[T any](p Provider) (T, bool) {
	for p != nil {
		if t, ok := p.(T); ok {
			return t, true
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
