package config

import "sallyport/internal/secret"

// secret returns the secret under key, with its references replaced. No message holds any part of it.
func (m *mapping) secret(key string) string {
	n, ok := m.take(key)
	if !ok {
		return ""
	}
	s, ok := n.rawText()
	if !ok {
		m.load.errorf(n.Place, "%s is to be text, not %s: put it in quotes", key, n.kind())
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
		m.load.errorf(n.Place, "%s: %v", key, err)
	case value == "":
		m.load.errorf(n.Place, "%s is empty: give a value, or remove it", key)
	}
	return value
}
