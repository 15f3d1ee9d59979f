package quickstart

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// The names of curl's configuration files that are no client's.
const (
	curlNobody  = "nobody"
	curlValid   = "valid-token"
	curlExpired = "expired-token"
	curlForged  = "forged-token"
)

// curlFile is where curl finds how a client calls, so that the commands are short.
func curlFile(name string) string { return "curl/" + name }

// curlNames are the clients, and the holders of tokens.
func curlNames() []string {
	names := []string{curlNobody, curlValid, curlExpired, curlForged}
	for _, c := range clients {
		names = append(names, c.name)
	}
	return names
}

// fillCurl writes those of curl's configuration files that are not there, made from the folder's other files. Paths in
// them count from where curl is started, which is the folder.
func (f *folder) fillCurl() error {
	for _, name := range curlNames() {
		switch _, err := os.Lstat(f.path(curlFile(name))); {
		case err == nil:
			continue
		case !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("looking at %s: %w", f.shownPath(curlFile(name)), err)
		}
		text, err := f.curlConfig(name)
		if err != nil {
			return err
		}
		if err := f.write(curlFile(name), []byte(text)); err != nil {
			return fmt.Errorf("writing %s: %w", f.shownPath(curlFile(name)), err)
		}
	}
	return nil
}

func (f *folder) curlConfig(name string) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "# curl -K %s URL calls as %s, from the folder of %s.\n", curlFile(name), name, fileSettings)
	fmt.Fprintf(&b, "include\ncacert = %q\n", fileCA)
	for _, c := range clients {
		if c.name == name {
			fmt.Fprintf(&b, "cert = %q\nkey = %q\n", c.certificateFile(), c.keyFile())
		}
	}
	tokens := map[string]string{curlValid: tokenValid, curlExpired: tokenExpired, curlForged: tokenForged}
	if file := tokens[name]; file != "" {
		token, err := f.readSecret(file)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "header = \"Authorization: Bearer %s\"\n", token)
	}
	return b.String(), nil
}
