package config

import (
	"strings"

	"sallyport/internal/printable"
)

// either returns "a", "a or b", "a, b or c".
func either(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// nearest returns the word that s is probably a misspelling of, or "".
func nearest(s string, words []string) string {
	best, distance := "", 3
	if len(s) > 64 {
		return ""
	}
	for _, w := range words {
		if strings.EqualFold(s, w) {
			return w
		}
		if d := edits(strings.ToLower(s), strings.ToLower(w)); d < distance && d < len(w)/2 {
			best, distance = w, d
		}
	}
	return best
}

// edits returns the Levenshtein distance of a and b in bytes.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

// isName reports whether s can stand unquoted in commands, metrics, URLs and logs.
func isName(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isLetter(c) && !isDigit(c) && (i == 0 || !strings.ContainsRune("._-", rune(c))) {
			return false
		}
	}
	return s != "" && len(s) <= maxName
}

const maxName = 100 // bytes of a name

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
func isDigit(c byte) bool  { return '0' <= c && c <= '9' }

// name returns the text under key if it is a name.
func (m *mapping) name(key string) text {
	m.need(key, "a name of letters, digits, \".\", \"_\" and \"-\"")
	return m.checkName(key, m.text(key))
}

// checkName reports a text that is not a name.
func (m *mapping) checkName(key string, t text) text {
	if t.OK && !isName(t.Value) {
		m.load.errorf(t.Place,
			"%s %s is to be at most %d letters, digits, \".\", \"_\" and \"-\", the first a letter or digit",
			key, printable.Quote(t.Value), maxName)
		t.OK = false
	}
	return t
}
