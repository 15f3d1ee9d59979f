// Package secret reads ${env:NAME} and ${file:PATH}, the references that stand for secrets in a configuration.
package secret

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// A Source resolves references.
type Source struct {
	Env  func(name string) (value string, set bool) // as os.LookupEnv
	File func(path string) ([]byte, error)          // path as written; the error does not name it

	Encode func(value string) string // what takes the place of a reference; nil: the value as it is
}

// maxFile bounds a secret file, in bytes.
const maxFile = 64 << 10

// Expand replaces the references in text by their values, which are not expanded again; one line end at the end of a
// file is dropped. A missing or empty value is an error. Errors show no value and no other part of text.
func (s Source) Expand(text string) (string, error) {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(text, "${")
		out.WriteString(before)
		if !found {
			return out.String(), nil
		}
		reference, after, closed := strings.Cut(rest, "}")
		scheme, name, named := strings.Cut(reference, ":")
		if !closed || !named || name == "" {
			return "", errReference
		}
		value, err := s.lookup(scheme, name)
		if err != nil {
			return "", err
		}
		if s.Encode != nil {
			value = s.Encode(value)
		}
		out.WriteString(value)
		text = after
	}
}

// errReference quotes nothing: the text may be a password that happens to hold "${".
var errReference = errors.New("a reference is ${env:NAME} or ${file:PATH}; put a secret that itself holds \"${\" in " +
	"a file")

func (s Source) lookup(scheme, name string) (string, error) {
	switch {
	case scheme == "env" && isVariable(name):
		value, set := s.Env(name)
		if !set || value == "" {
			return "", fmt.Errorf("the environment variable %s is not set, or empty: set it for this process", name)
		}
		return value, nil
	case scheme == "file":
		data, err := s.File(name)
		if err == nil && len(data) > maxFile {
			err = fmt.Errorf("larger than %d bytes", maxFile)
		}
		if err != nil {
			return "", fmt.Errorf("secret file %s: %w", quote(name), err)
		}
		value, cut := strings.CutSuffix(string(data), "\r\n")
		if !cut {
			value = strings.TrimSuffix(value, "\n")
		}
		if value == "" {
			return "", fmt.Errorf("secret file %s is empty", quote(name))
		}
		return value, nil
	}
	return "", errReference
}

// Files returns the paths of the file references in text, as written. It resolves nothing: its error is about syntax.
func Files(text string) (paths []string, err error) {
	const something = "x"
	_, err = Source{
		Env: func(string) (string, bool) { return something, true },
		File: func(path string) ([]byte, error) {
			paths = append(paths, path)
			return []byte(something), nil
		},
	}.Expand(text)
	return paths, err
}

// isVariable reports whether a POSIX shell can set a variable of this name.
func isVariable(s string) bool {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_"
	return strings.Trim(s, letters+"0123456789") == "" && strings.IndexAny(s, letters) == 0
}

// quote returns a path from outside quoted and truncated.
func quote(path string) string {
	const shown = 60
	if utf8.RuneCountInString(path) > shown {
		path = string([]rune(path)[:shown]) + "…"
	}
	return fmt.Sprintf("%q", path)
}
