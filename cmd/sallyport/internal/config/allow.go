package config

import (
	"errors"
	"strings"
	"unicode"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"sallyport/gateway/control"
	"sallyport/internal/printable"
	"sallyport/policy"
	"sallyport/policy/rule"
)

const allowKey = "allow"

// allow reads `allow`. An error is told at its place within the expression.
func (m *mapping) allow() *rule.Rule {
	n, ok := m.take(allowKey)
	if !ok {
		return nil
	}
	source, ok := n.rawText()
	switch {
	case !ok:
		n.text(allowKey)
		return nil
	case n.folded():
		// It could end in a comment that the lines below were not meant to belong to, and would allow more than is written.
		m.load.errorf(n.Place, "%s takes several lines as a block with |, which keeps them", allowKey)
		return nil
	case strings.ContainsFunc(source, func(r rune) bool { return isControl(r) && r != '\n' && r != '\t' }):
		m.load.errorf(n.Place, "%s holds a control character: remove it", allowKey)
		return nil
	}
	source = strings.TrimRightFunc(source, unicode.IsSpace)
	compiled := m.load.rules[source]
	if compiled != nil {
		return compiled
	}
	compiled, err := rule.Compile(source)
	if err != nil {
		at := n.Place
		if e := (*rule.Error)(nil); errors.As(err, &e) {
			at, err = n.within(source, e.Line, e.Column), errors.New(e.Problem)
		}
		m.load.errorf(at, "%s: %s", allowKey, printable.Text(err.Error()))
		return nil
	}
	m.load.rules[source] = compiled
	return compiled
}

// folded reports whether the value's lines were put together, so that it is not what stands in the file.
func (n node) folded() bool {
	switch v := n.ast.(type) {
	case *ast.LiteralNode:
		return strings.HasPrefix(v.Start.Value, ">")
	case *ast.StringNode:
		return strings.Contains(strings.TrimSpace(v.Token.Origin), "\n")
	}
	return false
}

// within returns the place of a line and column, from 1, of n's text. White space may differ between the text and the
// file: characters that are none are counted.
func (n node) within(text string, line, column int) control.Place {
	before := 0
	for _, r := range text {
		if line == 1 && column <= 1 {
			break
		}
		if r == '\n' {
			if line == 1 {
				break // the column is behind the line's end
			}
			line--
			continue
		}
		if line == 1 {
			column--
		}
		if !unicode.IsSpace(r) {
			before++
		}
	}
	at, origin, quote := n.Place, "", rune(0)
	switch v := n.ast.(type) {
	case *ast.LiteralNode:
		origin = v.Value.Token.Origin
		at.Line, at.Column = tokenPos(at.File, v.Start).Line+1, 1
	case *ast.StringNode:
		origin = strings.TrimSpace(v.Token.Origin)
		switch v.Token.Type {
		case token.SingleQuoteType:
			quote = '\''
		case token.DoubleQuoteType:
			quote = '"'
		}
	}
	if quote != 0 && len(origin) > 0 {
		origin = origin[1:]
		at.Column++
	}
	last := at
	for rest := []rune(origin); len(rest) > 0; {
		taken, space := 1, unicode.IsSpace(rest[0])
		if quote != 0 && len(rest) > 1 {
			taken, space = escaped(quote, rest, space)
		}
		switch {
		case rest[0] == '\n':
			at.Line, at.Column = at.Line+1, 1
		case !space && before == 0:
			return at
		default:
			if !space {
				before--
			}
			at.Column += taken
			if !space {
				last = at
			}
		}
		rest = rest[taken:]
	}
	return last // the end of the text
}

// escaped returns how many characters of a quoted text stand for the next one, and whether that one is white space.
func escaped(quote rune, rest []rune, space bool) (taken int, isSpace bool) {
	switch {
	case quote == '\'' && rest[0] == quote && rest[1] == quote:
		return 2, false
	case quote != '"' || rest[0] != '\\':
		return 1, space
	}
	switch rest[1] {
	case 'x':
		return min(4, len(rest)), false
	case 'u':
		return min(6, len(rest)), false
	case 'U':
		return min(10, len(rest)), false
	case 'n', 't', ' ', '\t':
		return 2, true
	}
	return 2, false
}

// warnOfRules tells of rules that no call can satisfy since what they ask about is never looked at.
func (l *loader) warnOfRules(m *mapping, api *control.API) {
	proofs := []struct {
		name, word string
		off        func(policy.Security) bool
	}{
		{"certificate", "mutualssl", func(s policy.Security) bool { return s.Open || s.Certificate == policy.Off }},
		{"token", "oauth2", func(s policy.Security) bool { return s.Open || s.Token == policy.Off }},
	}
	for _, p := range proofs {
		reads := func(r *rule.Rule) bool { return r != nil && r.Uses(p.name+".") && !r.Uses(p.name+".present") }
		if reads(api.Allow) && p.off(api.Security) && len(api.Words) > 0 {
			l.warnf(m.find(allowKey).Place, "%s asks about the %s, and without %s in security no call has one: it may refuse all of them",
				allowKey, p.name, p.word)
			continue
		}
		for _, r := range api.Resources {
			if p.off(r.Security) && (reads(api.Allow) || reads(r.Allow)) && len(api.Words) > 0 {
				l.warnf(m.Place, "%s asks about the %s, and calls of resource %s have none, since it is not asked for there: it may refuse all of them",
					allowKey, p.name, printable.Quote(r.Path))
			}
		}
	}
}
