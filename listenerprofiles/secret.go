package listenerprofiles

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sallyport/internal/printable"
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

// secret returns a password: what alias stands for, or text with its references replaced. Surrounding white space is
// dropped only if there are any.
func (l *loader) secret(text, alias string) (string, error) {
	if alias != "" {
		value, ok := l.cfg.Secrets[alias]
		if !ok {
			return "", fmt.Errorf("password: nothing says what the secretAlias %s stands for: add dynamicSSLProfiles.secrets: {%s: \"${file:PATH}\"}",
				printable.Quote(alias), printable.Quote(alias))
		}
		return value, nil
	}
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
