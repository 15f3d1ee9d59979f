package listenerprofiles

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sallyport/internal/secret"
)

// checkSecret checks the references in a password element without resolving them.
func checkSecret(text string) error {
	files, err := secret.Files(text)
	if err != nil {
		return err
	}
	for _, path := range files {
		if err := checkLocation(path); err != nil {
			return err
		}
	}
	return nil
}

// checkLocation refuses relative paths that leave the base folder. Absolute paths may lead anywhere.
func checkLocation(path string) error {
	if filepath.IsAbs(path) || filepath.IsLocal(path) {
		return nil
	}
	return errors.New("a relative path must not leave the base folder; use an absolute one")
}

// secret returns a password with its references replaced. Surrounding white space is dropped only if there are any.
func (l *loader) secret(text string) (string, error) {
	if strings.Contains(text, "${") {
		text = strings.Trim(text, xmlSpace)
	}
	value, err := secret.Source{
		Env: func(name string) (string, bool) {
			value, set := os.LookupEnv(name)
			writeField(l.all, []byte(value))
			return value, set
		},
		File: func(path string) ([]byte, error) { return l.read(l.path(path)) },
	}.Expand(text)
	if err != nil {
		return "", fmt.Errorf("password: %w", err)
	}
	return value, nil
}
