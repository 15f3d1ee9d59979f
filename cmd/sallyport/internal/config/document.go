package config

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"sallyport/gateway/control"
)

const (
	maxFile  = 4 << 20 // bytes of a YAML file
	maxDepth = 32      // nested maps and lists; the parser recurses, and a stack overflow can't be recovered from
	maxKeys  = 1000    // in one block map; the parser's time grows with their square
)

// parseDocument reads the single YAML document in data. It accepts plain maps, lists and scalars only: an anchor,
// alias, merge key, tag, directive or "?" key is an error, as are control characters and what isn't UTF-8. Duplicate
// keys are left for the caller to report.
func parseDocument(file string, data []byte) (root ast.Node, err error) {
	text, err := checkText(file, data)
	if err != nil {
		return nil, err
	}
	// The library sometimes indexes into its tokens unchecked; its panics are reported as syntax errors.
	defer func() {
		if recover() != nil {
			root, err = nil, problem(tokenPos(file, nil), "this is not YAML that can be read")
		}
	}()
	tokens := joinColons(lexer.Tokenize(text))
	if err := checkTokens(file, tokens); err != nil {
		return nil, err
	}
	parsed, err := parseTokens(file, tokens)
	if err != nil {
		return nil, err
	}
	start := tokenPos(file, nil)
	if len(parsed.Docs) > 1 {
		if second := parsed.Docs[1]; second.Start != nil {
			start = tokenPos(file, second.Start)
		}
		return nil, problem(start, "a second document begins here: keep one document in a file")
	}
	if len(parsed.Docs) == 0 || parsed.Docs[0].Body == nil {
		return nil, problem(start, "the file is empty")
	}
	return parsed.Docs[0].Body, nil
}

func problem(at control.Place, message string) error {
	return control.Problem{Place: at, Message: message}
}

// checkText returns data as text with "\n" line ends and without a byte order mark.
func checkText(file string, data []byte) (string, error) {
	if len(data) > maxFile {
		return "", problem(control.Place{File: file}, fmt.Sprintf("the file is larger than %d MiB", maxFile>>20))
	}
	text := strings.ReplaceAll(strings.TrimPrefix(string(data), "\ufeff"), "\r\n", "\n")
	at := tokenPos(file, nil)
	for i, r := range text {
		switch {
		case r == '\n':
			at.Line, at.Column = at.Line+1, 1
			continue
		case r == utf8.RuneError && !strings.HasPrefix(text[i:], "\ufffd"):
			return "", problem(at, "a byte that is not UTF-8: save the file as UTF-8")
		case isControl(r) && r != '\t', r == '\ufeff':
			return "", problem(at, fmt.Sprintf("control character %U: remove it", r))
		}
		at.Column++
	}
	return text, nil
}

// isControl reports whether r is a C0 or C1 control, or one of Unicode's line ends, which YAML 1.1 and 1.2 read
// differently.
func isControl(r rune) bool {
	return r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029'
}

// tokenPos is where t is, or the start of the file if it is nowhere.
func tokenPos(file string, t *token.Token) control.Place {
	if t == nil || t.Position == nil {
		return control.Place{File: file, Line: 1, Column: 1}
	}
	return control.Place{File: file, Line: max(t.Position.Line, 1), Column: max(t.Position.Column, 1)}
}

// checkTokens refuses the YAML features that a configuration does not need, and bounds depth and size.
func checkTokens(file string, tokens token.Tokens) error {
	flow, line := 0, 0
	var open []block
	for i, t := range tokens {
		pos := tokenPos(file, t)
		switch t.Type {
		case token.AnchorType, token.AliasType:
			return problem(pos, "anchors and aliases are not supported: write the value out")
		case token.MergeKeyType:
			return problem(pos, "merge keys are not supported: write the keys out")
		case token.TagType:
			return problem(pos, "tags are not supported: write the value without one")
		case token.DirectiveType:
			return problem(pos, "directives are not supported: remove the line, or quote the value")
		case token.MappingKeyType:
			return problem(pos, `keys with "?" are not supported: write "key: value", or quote the value`)
		case token.CommentType, token.InvalidType: // the parser reports the latter
			continue
		case token.MappingStartType, token.SequenceStartType:
			flow++
		case token.MappingEndType, token.SequenceEndType:
			flow--
		}
		if isPlain(t) && (i == 0 || tokens[i-1].Type != token.LiteralType && tokens[i-1].Type != token.FoldedType) {
			if err := checkPlain(t, pos, flow > 0); err != nil {
				return err
			}
		}
		if starts, entry := pos.Line != line, t.Type == token.SequenceEntryType; flow == 0 && (starts || entry) {
			for starts && len(open) > 0 && open[len(open)-1].column > pos.Column {
				open = open[:len(open)-1]
			}
			if len(open) == 0 || open[len(open)-1].column < pos.Column {
				open = append(open, block{column: pos.Column})
			}
			if !entry {
				open[len(open)-1].keys++
			}
			if open[len(open)-1].keys > maxKeys {
				return problem(pos, fmt.Sprintf("more than %d keys in one map", maxKeys))
			}
		}
		line = pos.Line
		if flow > maxDepth || len(open) > maxDepth {
			return problem(pos, fmt.Sprintf("more than %d maps and lists within each other", maxDepth))
		}
	}
	return nil
}

// A block is an open map or list, or both at one column, in lines.
type block struct {
	column, keys int
}

// checkPlain refuses unquoted scalars that the scanner accepts against YAML 1.2.2, section 7.3.3, and those that span
// lines: an entry after a wrong indent or a missing comma would silently become part of a value.
func checkPlain(t *token.Token, pos control.Place, flow bool) error {
	if lines := strings.Split(strings.TrimSpace(t.Origin), "\n"); len(lines) > 1 { // the position is that of the last line
		pos.Line = max(1, pos.Line-len(lines)+2)
		pos.Column = len(lines[1]) - len(strings.TrimLeft(lines[1], " ")) + 1
		return problem(pos, "the value in the line before goes on here: mend the indentation, or put it in quotes")
	}
	value, why := t.Value, ""
	switch {
	case strings.Contains(value, ": ") || strings.Contains(value, ":\t") || strings.HasSuffix(value, ":"):
		why = "a value without quotes holds a colon before a space: put a comma before the next key, or the value in quotes"
	case flow && strings.ContainsAny(value, "[]{},"):
		why = "a value without quotes holds a bracket: close it, or put the value in quotes"
	case value != "" && strings.Contains("[]{},#&*!|>'\"%@`", value[:1]):
		why = "a value begins with a character that has a meaning of its own: put it in quotes"
	default:
		return nil
	}
	return problem(pos, why)
}

// parseTokens runs the library's parser and converts its errors.
func parseTokens(file string, tokens token.Tokens) (*ast.File, error) {
	parsed, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err == nil {
		return parsed, nil
	}
	var syntax yaml.Error
	if !errors.As(err, &syntax) {
		return nil, problem(tokenPos(file, nil), "this is not YAML that can be read")
	}
	// The message without the quoted source line and the character after a backslash: both may be part of a password.
	message := syntax.GetMessage()
	if before, _, ok := strings.Cut(message, "escape character "); ok {
		message = before + "escape character: write \\\\ for a backslash, or use single quotes"
	}
	if strings.HasPrefix(message, "mapping value is not allowed") {
		message += ": put a value that holds a colon in quotes, or mend the indentation"
	}
	return nil, problem(tokenPos(file, syntax.GetToken()), "YAML: "+message)
}
