package ends_test

import (
	"testing"

	"sallyport/internal/ends"
)

func TestCommon(t *testing.T) {
	for _, c := range []struct {
		x, y        string
		first, last int
	}{
		{"", "", 0, 0},
		{"abc", "", 0, 0},
		{"abc", "abc", 3, 0},
		{"abc", "abxc", 2, 1},
		{"abc", "ac", 1, 1},
		{"aaa", "aa", 2, 0},
		{"abc", "xyz", 0, 0},
		{"abc", "xbc", 0, 2},
	} {
		first, last := ends.Common([]rune(c.x), []byte(c.y), func(x *rune, y *byte) bool { return *x == rune(*y) })
		if first != c.first || last != c.last {
			t.Errorf("%q and %q: %d and %d, want %d and %d", c.x, c.y, first, last, c.first, c.last)
		}
	}
}
