package config

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
)

// A Secret is a password that shows itself only to Reveal: printed, logged or marshalled in any way it is "[redacted]".
type Secret string

const redacted = "[redacted]"

// Reveal is the secret itself.
func (s Secret) Reveal() string { return string(s) }

// String is "[redacted]", also for the empty secret.
func (Secret) String() string { return redacted }

// GoString is "[redacted]".
func (Secret) GoString() string { return redacted }

// Format writes "[redacted]" for every verb and flag.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalText is "[redacted]".
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON is "[redacted]".
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalYAML is "[redacted]".
func (Secret) MarshalYAML() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// LogValue is "[redacted]".
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

const maxSecret = 64 << 10 // bytes of a secret file

// secret returns the secret under key, its references replaced by what they stand for. No message holds any part of it.
func (m *mapping) secret(key string) Secret {
	n, ok := m.take(key)
	if !ok {
		return ""
	}
	s, ok := n.rawText()
	if !ok {
		m.load.errorf(n.Pos, "%s is to be text, not %s: put it in quotes", key, n.kind())
		return ""
	}
	value, err := m.load.expand(m.from, s)
	switch {
	case err != nil:
		m.load.errorf(n.Pos, "%s: %v", key, err)
	case value == "":
		m.load.errorf(n.Pos, "%s is empty: give a value, or remove it", key)
	}
	return Secret(value)
}

// expand replaces ${env:NAME} and ${file:PATH} in s. What they stand for is taken as it is.
func (l *loader) expand(from *source, s string) (string, error) {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(s, "${")
		out.WriteString(before)
		if !found {
			return out.String(), nil
		}
		reference, after, closed := strings.Cut(rest, "}")
		scheme, name, named := strings.Cut(reference, ":")
		if !closed || !named || name == "" {
			return "", errReference
		}
		value, err := l.lookup(from, scheme, name)
		if err != nil {
			return "", err
		}
		out.WriteString(value)
		s = after
	}
}

// errReference doesn't quote what it found: it may be a password that happens to hold "${".
var errReference = errors.New("a reference is ${env:NAME} or ${file:PATH}; put a secret that itself holds \"${\" in a file")

// lookup returns what one reference stands for.
func (l *loader) lookup(from *source, scheme, name string) (string, error) {
	switch scheme {
	case "env":
		if !isVariable(name) {
			return "", errReference
		}
		value, set := l.outside.lookupEnv(name)
		if !set || value == "" {
			return "", fmt.Errorf("the environment variable %s is not set, or empty: set it for this process", name)
		}
		l.env[name] = value
		return value, nil
	case "file":
		data, err := l.read(from.resolve(name), maxSecret)
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

// isVariable says whether s is a name that a POSIX shell can set.
func isVariable(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isLetter(c) && c != '_' && (i == 0 || !isDigit(c)) {
			return false
		}
	}
	return s != ""
}
