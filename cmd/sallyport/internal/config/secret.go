package config

import (
	"fmt"
	"log/slog"

	"sallyport/internal/secret"
)

// A Secret is a password that only Reveal returns: printed, logged or marshalled in any way it is "[redacted]".
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

// secret returns the secret under key, with its references replaced. No message holds any part of it.
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
	value, err := secret.Source{
		Env: func(name string) (string, bool) {
			value, set := m.load.outside.lookupEnv(name)
			m.load.env[name] = value
			return value, set
		},
		File: func(path string) ([]byte, error) { return m.load.read(m.from.resolve(path), maxFile) },
	}.Expand(s)
	switch {
	case err != nil:
		m.load.errorf(n.Pos, "%s: %v", key, err)
	case value == "":
		m.load.errorf(n.Pos, "%s is empty: give a value, or remove it", key)
	}
	return Secret(value)
}
