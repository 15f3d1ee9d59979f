package load

import (
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"sallyport/internal/regularfile"
)

// maxTokens bounds a file of tokens, in bytes.
const maxTokens = 256 << 20

// Identities reads the certificates NAME.crt and keys NAME.key of a folder, sorted by name, or only those of the given
// names.
func Identities(folder string, names ...string) ([]tls.Certificate, error) {
	if len(names) == 0 {
		files, err := filepath.Glob(filepath.Join(folder, "*.crt"))
		if err != nil {
			return nil, fmt.Errorf("client certificates: %w", err)
		}
		for _, f := range files {
			names = append(names, strings.TrimSuffix(filepath.Base(f), ".crt"))
		}
		slices.Sort(names)
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("client certificates: no *.crt in %s", folder)
	}
	list := make([]tls.Certificate, 0, len(names))
	for _, name := range names {
		c, err := tls.LoadX509KeyPair(filepath.Join(folder, name+".crt"), filepath.Join(folder, name+".key"))
		if err != nil {
			return nil, fmt.Errorf("client certificate %s: %w", name, err)
		}
		list = append(list, c)
	}
	return list, nil
}

// CertificateHeaders returns the leaf certificates as a load balancer forwards them: URL-escaped PEM in the header
// name.
func CertificateHeaders(name string, identities []tls.Certificate) []Header {
	list := make([]Header, len(identities))
	for i, c := range identities {
		text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})
		list[i] = Header{name, strings.ReplaceAll(url.QueryEscape(string(text)), "+", "%20")}
	}
	return list
}

// Tokens reads bearer tokens, one a line, and returns the headers that carry them.
func Tokens(file string) ([]Header, error) {
	data, err := regularfile.ReadArgument(file, maxTokens)
	if err != nil {
		return nil, fmt.Errorf("tokens: %s: %w", file, err)
	}
	var list []Header
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); line != "" {
			list = append(list, Header{"Authorization", "Bearer " + line})
		}
	}
	if list == nil {
		return nil, fmt.Errorf("tokens: none in %s", file)
	}
	return list, nil
}
