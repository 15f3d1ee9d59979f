package config

import (
	"unicode/utf8"

	"github.com/goccy/go-yaml/token"
)

// joinColons rejoins plain scalars that the scanner splits: inside {…} it ends a scalar at any colon, so that
// [http://127.0.0.1:9000] would become a map. YAML 1.2.2, section 7.3.3, ends it only at a colon before a space or one
// of ",[]{}".
func joinColons(tokens token.Tokens) token.Tokens {
	var out token.Tokens
	for i := 0; i < len(tokens); i++ {
		t := tokens[i]
		if t.Type != token.MappingValueType || i+1 == len(tokens) || !isPlain(tokens[i+1]) || !follows(t, 1, tokens[i+1]) {
			out = append(out, t)
			continue
		}
		next, last := tokens[i+1], len(out)-1
		switch {
		case last >= 0 && isPlain(out[last]) && follows(out[last], utf8.RuneCountInString(out[last].Value), t):
			before := out[last]
			out[last] = token.String(before.Value+":"+next.Value, before.Origin+t.Origin+next.Origin, before.Position)
			i++
		case last >= 0 && opensEntry(out[last]): // [::1]
			out = append(out, token.String(":"+next.Value, t.Origin+next.Origin, t.Position))
			i++
		default:
			out = append(out, t)
		}
	}
	for i, t := range out {
		t.Prev, t.Next = nil, nil
		if i > 0 {
			t.Prev, out[i-1].Next = out[i-1], t
		}
	}
	return out
}

// isPlain reports whether t is an unquoted scalar.
func isPlain(t *token.Token) bool {
	switch t.Type {
	case token.StringType, token.IntegerType, token.BinaryIntegerType, token.OctetIntegerType, token.HexIntegerType,
		token.FloatType, token.InfinityType, token.NanType, token.BoolType, token.NullType:
		return true
	}
	return false
}

// follows reports whether b begins where a, of the given number of characters, ends.
func follows(a *token.Token, length int, b *token.Token) bool {
	return a.Position != nil && b.Position != nil &&
		a.Position.Line == b.Position.Line && a.Position.Column+length == b.Position.Column
}

func opensEntry(t *token.Token) bool {
	return t.Type == token.SequenceStartType || t.Type == token.MappingStartType || t.Type == token.CollectEntryType
}
