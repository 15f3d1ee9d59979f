package listenerprofiles

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"sallyport/internal/printable"

	"golang.org/x/text/encoding/charmap"
)

// Bounds of listenerprofiles.xml.
const (
	maxFile     = 1 << 20 // bytes
	maxDepth    = 8       // elements within each other; the form needs 4
	maxElements = 50_000
	maxProblems = 20 // that are reported at once
)

// A ParseError is a problem in listenerprofiles.xml, and where it is.
type ParseError struct {
	File         string
	Line, Column int    // from 1; 0 means unknown
	Element      string // the name of the element at fault
	Message      string
	Err          error // what is behind it, or nil
}

// Error returns "file:line:column: <element>: message".
func (e *ParseError) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
		if e.Column > 0 {
			fmt.Fprintf(&b, ":%d", e.Column)
		}
	}
	if e.Element != "" {
		fmt.Fprintf(&b, ": <%s>", e.Element)
	}
	return b.String() + ": " + e.Message
}

// Unwrap returns Err.
func (e *ParseError) Unwrap() error { return e.Err }

// A PartError is a problem with one part of a profile that no file of profiles says: of a listener's own settings.
type PartError struct {
	Name string // of the Settings
	Part Part
	Err  error
}

// Error returns "name: problem".
func (e PartError) Error() string { return e.Name + ": " + e.Err.Error() }

// Unwrap returns Err.
func (e PartError) Unwrap() error { return e.Err }

// Problems is everything that is wrong at once: *ParseErrors for what the file says, PartErrors for the listener's own
// settings.
type Problems []error

// Error has one line for each.
func (ps Problems) Error() string { return errors.Join(ps...).Error() }

// Unwrap returns the problems.
func (ps Problems) Unwrap() []error { return ps }

// join joins problems, bounded.
func join(problems Problems) error {
	if more := len(problems) - maxProblems; more > 0 {
		problems = append(problems[:maxProblems:maxProblems], fmt.Errorf("and %d more problems", more))
	}
	if len(problems) == 0 {
		return nil
	}
	return problems
}

// An element is a node of the document, with its place.
type element struct {
	name         string
	line, column int
	attributes   []xml.Attr // but for the declarations of namespaces
	children     []*element
	text         strings.Builder // all character data directly within, comments left out
}

// word is the text without the white space around it.
func (e *element) word() string { return strings.Trim(e.text.String(), xmlSpace) }

// A place is a line and a column, from 1.
type place struct{ line, column int }

func (e *element) place() place { return place{e.line, e.column} }

func (e *element) problem(file, format string, args ...any) *ParseError {
	return &ParseError{File: file, Line: e.line, Column: e.column, Element: e.name, Message: fmt.Sprintf(format, args...)}
}

// readDocument reads XML 1.0 in UTF-8 or ISO-8859-1, and of it only what a configuration needs: no DOCTYPE, so no
// entities, no processing instructions, no depth.
func readDocument(file string, data []byte) (*element, error) {
	if len(data) > maxFile {
		return nil, &ParseError{File: file, Message: fmt.Sprintf("larger than %d bytes", maxFile)}
	}
	data, bom := bytes.CutPrefix(data, []byte("\ufeff"))
	d := xml.NewDecoder(bytes.NewReader(data))
	d.CharsetReader = func(name string, input io.Reader) (io.Reader, error) {
		// Not x/net/html/charset: browsers take ISO-8859-1 for windows-1252, and a password would change.
		switch latin1 := strings.EqualFold(name, "ISO-8859-1"); {
		case latin1 && bom:
			return nil, errors.New("the file says ISO-8859-1, and its byte order mark says UTF-8")
		case latin1:
			return charmap.ISO8859_1.NewDecoder().Reader(input), nil
		}
		return nil, fmt.Errorf("encoding %s: only UTF-8 and ISO-8859-1 are read", printable.Quote(name))
	}
	var root *element
	var open []*element // from the root to where we are
	elements := 0
	for first := true; ; first = false {
		line, column := d.InputPos()
		at := func(message string) error {
			name := ""
			if len(open) > 0 {
				name = open[len(open)-1].name
			}
			return &ParseError{File: file, Line: line, Column: column, Element: name, Message: message}
		}
		token, err := d.Token()
		if err == io.EOF && root != nil {
			return root, nil
		}
		if err != nil {
			line, column = d.InputPos()
			return nil, at(syntaxMessage(err))
		}
		switch token := token.(type) {
		case xml.StartElement:
			if elements++; elements > maxElements {
				return nil, at(fmt.Sprintf("more than %d elements", maxElements))
			}
			if len(open) == maxDepth {
				return nil, at(fmt.Sprintf("elements are nested more than %d deep", maxDepth))
			}
			e := &element{name: qualified(token.Name), line: line, column: column, attributes: attributes(token)}
			switch {
			case len(open) > 0:
				parent := open[len(open)-1]
				parent.children = append(parent.children, e)
			case root == nil:
				root = e
			default:
				return nil, at(fmt.Sprintf("a second root element <%s>", e.name))
			}
			open = append(open, e)
		case xml.EndElement:
			open = open[:len(open)-1]
		case xml.CharData:
			if len(open) > 0 {
				open[len(open)-1].text.Write(token)
			} else if strings.Trim(string(token), xmlSpace) != "" {
				return nil, at("text outside of the root element")
			}
		case xml.ProcInst:
			if token.Target != "xml" || !first {
				return nil, at("processing instructions are refused")
			}
		case xml.Directive:
			return nil, at("DOCTYPE and other declarations are refused")
		}
	}
}

// attributes returns a copy of the attributes, without the declarations of namespaces, which are none.
func attributes(token xml.StartElement) []xml.Attr {
	return slices.DeleteFunc(token.Copy().Attr, func(a xml.Attr) bool {
		return a.Name.Space == "xmlns" || a.Name.Space == "" && a.Name.Local == "xmlns"
	})
}

const xmlSpace = " \t\r\n"

func syntaxMessage(err error) string {
	if err == io.EOF {
		return "there is no root element"
	}
	if syntax := (*xml.SyntaxError)(nil); errors.As(err, &syntax) {
		if syntax.Msg == io.ErrUnexpectedEOF.Error() {
			return "the file ends here, before it is closed: put the whole file back"
		}
		return syntax.Msg
	}
	return strings.TrimPrefix(err.Error(), "xml: ")
}

func qualified(name xml.Name) string {
	s := name.Local
	if name.Space != "" {
		s = name.Space + ":" + s
	}
	const shown = 64
	if len(s) > shown {
		s = strings.ToValidUTF8(s[:shown], "") + "…"
	}
	return s
}
