package listenerprofiles

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// A reference is ${env:NAME} or ${file:PATH}, which stand for a secret in a password element.
type reference struct{ kind, name string }

// parseReference reads the text of a password element. Text that has "${" and is no reference is refused, rather than taken
// for a password.
func parseReference(text string) (ref reference, ok bool, err error) {
	if !strings.Contains(text, "${") {
		return reference{}, false, nil
	}
	inner, begins := strings.CutPrefix(strings.TrimSpace(text), "${")
	inner, ends := strings.CutSuffix(inner, "}")
	kind, name, split := strings.Cut(inner, ":")
	if !begins || !ends || !split || name == "" || strings.ContainsAny(name, "${}") || kind != "env" && kind != "file" ||
		kind == "env" && (strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") != "" || name[0] <= '9') {
		return reference{}, false, errors.New("a secret is ${env:NAME} or ${file:PATH} and nothing beside it; a password with ${ in it goes into a file")
	}
	if kind == "file" {
		if err := checkLocation(name); err != nil {
			return reference{}, false, err
		}
	}
	return reference{kind, name}, true, nil
}

// checkLocation refuses relative paths that leave the base folder. Absolute paths are taken at their word.
func checkLocation(path string) error {
	if filepath.IsAbs(path) || filepath.IsLocal(path) {
		return nil
	}
	return errors.New("a relative path must not leave the base folder; use an absolute one")
}

// secret returns what text stands for. The error shows no values.
func (l *loader) secret(text string) (string, error) {
	ref, ok, err := parseReference(text)
	if err != nil || !ok {
		return text, err
	}
	if ref.kind == "env" {
		value, ok := os.LookupEnv(ref.name)
		writeField(l.all, []byte(value))
		if !ok || value == "" {
			return "", fmt.Errorf("password: environment variable %s is not set", ref.name)
		}
		return value, nil
	}
	data, err := l.read(l.path(ref.name))
	if err != nil {
		return "", fmt.Errorf("password: %s: %w", l.path(ref.name), err)
	}
	value := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	if value == "" {
		return "", fmt.Errorf("password: %s is empty", l.path(ref.name))
	}
	return value, nil
}
