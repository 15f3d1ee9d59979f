package token

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"time"
)

// PoisonKeys makes the use of any key panic.
func (v *Verifier) PoisonKeys() {
	for _, from := range v.issuers {
		old := from.keys.set.Load()
		var keys []*key
		for k := range old.members {
			keys = append(keys, &key{id: k.id, algorithms: k.algorithms, public: (*rsa.PublicKey)(nil)})
		}
		set := merge(keys, nil)
		set.digest, set.read = old.digest, old.read
		from.keys.set.Store(set)
	}
}

// ParseSources reads b as each kind of file and answer that holds keys.
func ParseSources(b []byte) {
	_, _, _ = parseJWKS(b)
	_, _ = parsePEM(b)
	_, _ = parseRoots(b)
}

// Seconds reads a NumericDate.
func Seconds(number string) (*time.Time, error) {
	return object{"t": json.RawMessage(number)}.seconds("t")
}

// Absent returns how many kids are remembered as absent.
func (v *Verifier) Absent() (n int) {
	for _, from := range v.issuers {
		from.keys.mu.Lock()
		n += len(from.keys.absent.young) + len(from.keys.absent.old)
		from.keys.mu.Unlock()
	}
	return n
}

// SetSource replaces where keys are read.
func (v *Verifier) SetSource(read func(context.Context) ([]byte, error)) {
	for _, from := range v.issuers {
		from.keys.source = read
	}
}

// VerifyJWS verifies a signature by a key set, as Verify does before it looks at claims.
func VerifyJWS(jwks []byte, raw string) error {
	s, err := parseJWS(raw)
	if err != nil {
		return err
	}
	keys, _, err := parseJWKS(jwks)
	if err != nil {
		return err
	}
	k, _ := merge(keys, nil).find(s.header)
	if k == nil {
		return noKey(s.header)
	}
	if !k.verifies(&s) {
		return invalid("its signature does not verify")
	}
	return nil
}
