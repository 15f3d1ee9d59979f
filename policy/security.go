package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// securityWords are the words of an API's or a resource's security list, and what each demands.
var securityWords = []struct {
	word    string
	demands Security
}{
	{"mutualssl", Security{Certificate: Optional}},
	{"mutualssl_mandatory", Security{Certificate: Mandatory}},
	{"oauth2", Security{Token: Optional}},
	{"oauth_basic_auth_api_key_mandatory", Security{Token: Mandatory}},
	{"none", Security{Open: true}},
}

// notBuilt are words that are specified but not built yet.
var notBuilt = []string{"basic_auth", "api_key"}

// ParseWord returns what one word of a security list demands. Case counts.
func ParseWord(word string) (Security, error) {
	var known []string
	for _, w := range securityWords {
		if w.word == word {
			return w.demands, nil
		}
		known = append(known, w.word)
	}
	if slices.Contains(notBuilt, word) {
		return Security{}, fmt.Errorf("security %s is not built yet: use mutualssl or oauth2", word)
	}
	return Security{}, fmt.Errorf("security words are %s, not %.60q", strings.Join(known, ", "), word)
}

// ParseSecurity returns what a security list and a precedence demand together. A list that opens no way in, or is open
// and closed at once, is an error; so is an unknown word.
func ParseSecurity(words []string, precedence Precedence) (Security, error) {
	s := Security{Precedence: precedence}
	for _, word := range words {
		one, err := ParseWord(word)
		if err != nil {
			return Security{}, err
		}
		s.Open = s.Open || one.Open
		s.Certificate = max(s.Certificate, one.Certificate)
		s.Token = max(s.Token, one.Token)
	}
	switch {
	case len(words) == 0:
		return Security{}, errors.New("security is empty: name what is asked for, or say [none] for open")
	case s.Open && len(words) > 1:
		return Security{}, errors.New("none stands alone: remove it, or the others")
	case s.Token == Mandatory && !slices.Contains(words, "oauth2"):
		return Security{}, errors.New("oauth_basic_auth_api_key_mandatory needs oauth2 in the list: add it")
	}
	return s, nil
}

// ParsePrecedence reads certificate or token.
func ParsePrecedence(word string) (Precedence, error) {
	for _, p := range []Precedence{CertificateFirst, TokenFirst} {
		if word == p.String() {
			return p, nil
		}
	}
	return 0, fmt.Errorf("%.60q is neither certificate nor token", word)
}
