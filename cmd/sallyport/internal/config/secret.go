package config

import "sallyport/internal/secret"

// secret returns the secret under key, with its references replaced. No message holds any part of it.
func (m *mapping) secret(key string) string {
	n, ok := m.take(key)
	if !ok {
		return ""
	}
	if _, ok := n.rawText(); !ok {
		m.load.errorf(n.Place, "%s is to be text, not %s: put it in quotes", key, n.kind())
		return ""
	}
	value, _ := n.expand(key, nil)
	return value
}

// expand returns a text whose references are replaced by what encode makes of what they stand for; nil leaves it as it
// is. What is wrong is reported, an empty text as well.
func (n node) expand(key string, encode func(string) string) (value string, ok bool) {
	written, _ := n.rawText()
	value, err := secret.Source{
		Env: func(name string) (string, bool) {
			value, set := n.load.outside.lookupEnv(name)
			n.load.env[name] = value
			writeText(n.load.made, name)
			writeText(n.load.made, value)
			return value, set
		},
		File:   func(path string) ([]byte, error) { return n.load.read(n.from.resolve(path), maxFile) },
		Encode: encode,
	}.Expand(written)
	switch {
	case err != nil:
		n.load.errorf(n.Place, "%s: %v", key, err)
	case value == "":
		n.load.errorf(n.Place, "%s is empty: give a value, or remove it", key)
	default:
		return value, true
	}
	return "", false
}
