package control

import (
	"errors"
	"fmt"
	"strings"

	"sallyport/listenerprofiles"
)

// A Place is where in a file something is written.
type Place struct {
	File         string // as the user named it, or found from there
	Line, Column int    // from 1; 0: the file as a whole
}

// String is "file:line:column", or the file alone if there is no line.
func (p Place) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// Placed is a value and where it is written.
type Placed[T any] struct {
	Place
	Value T
}

// A Problem is one thing that is wrong, and where.
type Problem struct {
	Place
	Message string // one line; never holds a secret's value
}

// Error is "file:line:column: message".
func (p Problem) Error() string { return p.Place.String() + ": " + p.Message }

// Problems is everything that is wrong at once.
type Problems []Problem

// Error has one line for each.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// Add adds err, unless it is nil.
func (ps *Problems) Add(at Place, err error) {
	if err != nil {
		*ps = append(*ps, Problem{at, strings.ReplaceAll(err.Error(), "\n", "; ")})
	}
}

// addProfiles adds the errors of a listener's profiles: those of the XML have places in it, the others are the
// listener's.
func (ps *Problems) addProfiles(l *Listener, err error) {
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		for _, e := range joined.Unwrap() {
			ps.addProfiles(l, e)
		}
		return
	}
	var parse *listenerprofiles.ParseError
	if !errors.As(err, &parse) {
		ps.Add(l.Place, err)
		return
	}
	message := parse.Message
	if parse.Element != "" {
		message = "<" + parse.Element + ">: " + message
	}
	place := Place{parse.File, parse.Line, parse.Column}
	if place.Line > 0 {
		place.Column = max(1, place.Column) // what is wrong with a store is known to the line of its profile
	}
	ps.Add(place, errors.New(message))
}
