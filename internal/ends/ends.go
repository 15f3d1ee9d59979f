// Package ends compares lists that differ in few places.
package ends

// Common returns how many elements x and y begin with alike, and how many of the others they end with alike. It calls
// same with an element of each.
func Common[X, Y any](x []X, y []Y, same func(*X, *Y) bool) (first, last int) {
	shorter := min(len(x), len(y))
	for first < shorter && same(&x[first], &y[first]) {
		first++
	}
	for last < shorter-first && same(&x[len(x)-1-last], &y[len(y)-1-last]) {
		last++
	}
	return first, last
}
