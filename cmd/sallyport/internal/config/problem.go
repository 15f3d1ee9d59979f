package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A Pos is a place in a file.
type Pos struct {
	File         string // as the user named it, or found from there
	Line, Column int    // from 1, columns in characters; 0: the file as a whole
}

// String is "file:line:column", or the file alone if there is no line.
func (p Pos) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// An Error is one thing that is wrong with the configuration, where it is, and what to do about it.
type Error struct {
	Pos
	Message string // never holds a secret's value
}

// Error is "file:line:column: message".
func (e Error) Error() string { return e.Pos.String() + ": " + e.Message }

// String is the same as Error.
func (e Error) String() string { return e.Error() }

// Errors is everything that is wrong with the configuration, in the order of the files.
type Errors []Error

// Error has one line for each.
func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// sorted orders es by place and drops repetitions; files keep the order in which they were read.
func (es Errors) sorted(files []string) Errors {
	rank := func(f string) int { return slices.Index(files, f) }
	slices.SortStableFunc(es, func(a, b Error) int {
		return cmp.Or(cmp.Compare(rank(a.File), rank(b.File)), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(es)
}
