package token

import (
	"crypto/rsa"
	"slices"

	"github.com/golang-jwt/jwt/v5"
)

// Algorithms by which keys of each kind verify. Ed25519 is the name that RFC 9864 gives to EdDSA with that curve.
var (
	rsaAlgorithms     = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
	p256Algorithms    = []string{"ES256"}
	p384Algorithms    = []string{"ES384"}
	p521Algorithms    = []string{"ES512"}
	ed25519Algorithms = []string{"EdDSA", "Ed25519"}
)

// methods do the arithmetic of each of them.
var methods = map[string]jwt.SigningMethod{
	"RS256":   jwt.SigningMethodRS256,
	"RS384":   jwt.SigningMethodRS384,
	"RS512":   jwt.SigningMethodRS512,
	"PS256":   saltOfHash(jwt.SigningMethodPS256),
	"PS384":   saltOfHash(jwt.SigningMethodPS384),
	"PS512":   saltOfHash(jwt.SigningMethodPS512),
	"ES256":   jwt.SigningMethodES256,
	"ES384":   jwt.SigningMethodES384,
	"ES512":   jwt.SigningMethodES512,
	"EdDSA":   jwt.SigningMethodEdDSA,
	"Ed25519": jwt.SigningMethodEdDSA,
}

// saltOfHash is m with a salt as long as the hash, and no other (RFC 7518, section 3.5). The library takes any.
func saltOfHash(m *jwt.SigningMethodRSAPSS) jwt.SigningMethod {
	return &jwt.SigningMethodRSAPSS{
		SigningMethodRSA: m.SigningMethodRSA,
		Options:          &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash},
	}
}

// verifies reports whether the key made the signature of s, by an algorithm of its own.
func (k *key) verifies(s *jws) bool {
	return slices.Contains(k.algorithms, s.header.algorithm) &&
		methods[s.header.algorithm].Verify(s.signed, s.signature, k.public) == nil
}
