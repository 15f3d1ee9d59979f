package listenerprofiles

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sallyport/internal/printable"
)

// ParseVerifyClient reads none, optional or require, without case. "" is Optional; anything else is an error, where
// WSO2 silently asks for no certificate.
func ParseVerifyClient(word string) (VerifyClient, error) {
	switch strings.ToLower(word) {
	case "", "optional":
		return Optional, nil
	case "none":
		return None, nil
	case "require":
		return Require, nil
	}
	return Require, fmt.Errorf("unknown word %s, it is one of none, optional, require", printable.Quote(word))
}

// ParseProtocols reads the words of httpsProtocols, without case: TLSv1.2 and TLSv1.3. Older versions, unknown and
// repeated words are errors. No words give nil, which means both.
func ParseProtocols(words []string) ([]uint16, error) {
	versions, old, err := readProtocols(words)
	var problems []error
	for _, word := range old {
		problems = append(problems, fmt.Errorf("%s is refused: TLSv1.2 and TLSv1.3 are served", printable.Quote(word)))
	}
	if err != nil {
		problems = append(problems, err)
	}
	if len(problems) > 0 {
		return nil, joinLine(problems)
	}
	return versions, nil
}

// readProtocols returns the versions of TLS that are served, and apart from them the older ones. Unknown and repeated
// words are errors.
func readProtocols(words []string) (versions []uint16, old []string, err error) {
	var problems []error
	for i, word := range words {
		var version uint16
		if slices.ContainsFunc(words[:i], func(before string) bool { return strings.EqualFold(before, word) }) {
			problems = append(problems, fmt.Errorf("%s is repeated", printable.Quote(word)))
			continue
		}
		switch strings.ToLower(word) {
		case "tlsv1.2":
			version = tls.VersionTLS12
		case "tlsv1.3":
			version = tls.VersionTLS13
		case "tlsv1", "tlsv1.0", "tlsv1.1", "sslv3", "sslv2", "sslv2hello":
			old = append(old, word)
			continue
		default:
			problems = append(problems, fmt.Errorf("unknown protocol %s, it is one of TLSv1.2, TLSv1.3", printable.Quote(word)))
			continue
		}
		versions = append(versions, version)
	}
	if len(problems) > 0 {
		return nil, old, joinLine(problems)
	}
	slices.Sort(versions)
	return versions, old, nil
}

// defaultCiphers are ECDHE with AEAD. Go's own default for TLS 1.2 has CBC suites too.
var defaultCiphers = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// ParseCiphers reads the names of PreferredCiphers, as IANA and Java write them, without case. The list is an
// allow-list for TLS 1.2. Names of TLS 1.3 suites, and the renegotiation signal that Java lists, are accepted without
// effect, since Go fixes the former: a list of such names alone gives an empty list that isn't nil. CBC, RSA key
// exchange, 3DES, RC4, unknown and repeated names are errors. No names give nil, the default.
func ParseCiphers(names []string) ([]uint16, error) {
	if len(names) == 0 {
		return nil, nil
	}
	ciphers := []uint16{}
	seen := make(map[string]bool, len(names))
	var problems []error
	for _, name := range names {
		upper := strings.ToUpper(name)
		if seen[upper] {
			problems = append(problems, fmt.Errorf("%s is repeated", printable.Quote(name)))
			continue
		}
		seen[upper] = true
		id, err := cipher(upper)
		if err != nil {
			problems = append(problems, err)
		} else if id != 0 {
			ciphers = append(ciphers, id)
		}
	}
	if len(problems) > 0 {
		return nil, joinLine(problems)
	}
	return ciphers, nil
}

// cipher returns the id of a TLS 1.2 suite, or 0 for a name that is accepted without effect.
func cipher(name string) (uint16, error) {
	if name == "TLS_EMPTY_RENEGOTIATION_INFO_SCSV" {
		return 0, nil
	}
	for _, suite := range tls.CipherSuites() {
		if suite.Name != name {
			continue
		}
		switch {
		case slices.Contains(defaultCiphers, suite.ID):
			return suite.ID, nil
		case slices.Contains(suite.SupportedVersions, tls.VersionTLS13):
			return 0, nil
		}
	}
	if strings.HasPrefix(name, "TLS_") || strings.HasPrefix(name, "SSL_") {
		return 0, fmt.Errorf("%s is refused: only ECDHE with AES-GCM or ChaCha20 is served", printable.Quote(name))
	}
	return 0, fmt.Errorf("unknown cipher suite %s, names are those of IANA and Java, like "+
		"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", printable.Quote(name))
}

// joinLine joins problems into one line.
func joinLine(problems []error) error {
	return errors.New(strings.ReplaceAll(errors.Join(problems...).Error(), "\n", "; "))
}
