package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sallyport/internal/printable"

	"github.com/lestrrat-go/jwx/v3/jwk"
)

// Bounds on a source of keys: bytes of the file or answer, keys in it, bits of an RSA modulus.
const (
	maxSource  = 1 << 20
	maxKeys    = 1000
	minRSABits = 2048
	maxRSABits = 16384
)

// A key verifies tokens by the algorithms that belong to it: a token's alg chooses among them, and never the kind of
// key.
type key struct {
	id         string // kid; empty if it has none
	algorithms []string
	public     crypto.PublicKey
}

// newKey decides which algorithms public may verify by: all that its kind and curve have, or the JWK's alg alone.
func newKey(id string, public crypto.PublicKey, alg string) (*key, error) {
	var possible []string
	switch public := public.(type) {
	case *rsa.PublicKey:
		if bits := public.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return nil, fmt.Errorf("its RSA modulus has %d bits, not %d to %d", bits, minRSABits, maxRSABits)
		}
		if public.E < 3 || public.E%2 == 0 {
			return nil, errors.New("its RSA exponent is not odd and at least 3")
		}
		possible = rsaAlgorithms
	case *ecdsa.PublicKey:
		switch public.Curve {
		case elliptic.P256():
			possible = p256Algorithms
		case elliptic.P384():
			possible = p384Algorithms
		case elliptic.P521():
			possible = p521Algorithms
		default:
			return nil, errors.New("its curve is not P-256, P-384 or P-521")
		}
		if _, err := public.ECDH(); err != nil {
			return nil, errors.New("it is no point of its curve")
		}
	case ed25519.PublicKey:
		if len(public) != ed25519.PublicKeySize {
			return nil, errors.New("its length is wrong")
		}
		possible = ed25519Algorithms
	default:
		return nil, fmt.Errorf("%T is not the kind of key that verifies tokens", public)
	}
	k := &key{id: id, algorithms: possible, public: public}
	if alg == "" {
		return k, nil
	}
	if !slices.Contains(possible, alg) {
		return nil, fmt.Errorf("it does not verify by its alg %s", printable.Quote(alg))
	}
	if _, several := public.(*rsa.PublicKey); several { // other kinds have one algorithm, whatever its name
		k.algorithms = []string{alg}
	}
	return k, nil
}

func (k *key) equal(other *key) bool {
	return k.id == other.id && slices.Equal(k.algorithms, other.algorithms) && k.samePublic(other)
}

func (k *key) samePublic(other *key) bool {
	public, ok := k.public.(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(other.public)
}

// A keySet is the keys of an issuer as they were read once. It never changes.
type keySet struct {
	byID    map[string][]*key // by kid, the empty one for those without; of each, one at most verifies by an algorithm
	members map[*key]struct{}
	anyID   *key                // verifies whatever the kid: the key of a certificate file
	ignored []error             // why others in the source are not among them
	shown   []*x509.Certificate // what the source has in place of bare keys
	digest  [sha256.Size]byte
	read    time.Time // when the source last had this content
}

// find chooses the key for a token by its kid and alg; the alg settles kind and curve. unknown means that a newer set
// might have its kid.
func (s *keySet) find(h header) (k *key, unknown bool) {
	switch {
	case s.anyID != nil:
		return fitting([]*key{s.anyID}, h.algorithm), false
	case h.hasKeyID:
		keys := s.byID[h.keyID]
		return fitting(keys, h.algorithm), len(keys) == 0
	default:
		return s.only(h.algorithm), false
	}
}

func fitting(keys []*key, algorithm string) *key {
	for _, k := range keys {
		if slices.Contains(k.algorithms, algorithm) {
			return k
		}
	}
	return nil
}

// only is the one key that fits the algorithm, if there is exactly one, under whatever kids.
func (s *keySet) only(algorithm string) *key {
	var found *key
	for k := range s.members {
		if !slices.Contains(k.algorithms, algorithm) {
			continue
		}
		if found != nil && !found.samePublic(k) {
			return nil
		}
		found = k
	}
	return found
}

// merge makes a set of keys that takes over the equal ones of old, so that what was verified by them stays so.
func merge(keys []*key, old *keySet) *keySet {
	s := &keySet{byID: make(map[string][]*key, len(keys)), members: make(map[*key]struct{}, len(keys))}
	for _, k := range keys {
		if old != nil {
			if i := slices.IndexFunc(old.byID[k.id], k.equal); i >= 0 {
				k = old.byID[k.id][i]
			}
		}
		s.byID[k.id] = append(s.byID[k.id], k)
		s.members[k] = struct{}{}
	}
	return s
}

// parseJWKS returns the keys of a JSON Web Key Set (RFC 7517) that verify signatures, at most one for a kid and an
// algorithm, and why the others don't.
func parseJWKS(b []byte) (keys []*key, ignored []error, err error) {
	members, err := parseObject(b)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the JWKS: %w", err)
	}
	var list []json.RawMessage
	if json.Unmarshal(members["keys"], &list) != nil {
		return nil, nil, errors.New("reading the JWKS: it has no list of keys")
	}
	if len(list) > maxKeys {
		return nil, nil, fmt.Errorf("reading the JWKS: more than %d keys", maxKeys)
	}
	byID := make(map[string][]*key, len(list))
	for i, item := range list {
		k, err := parseJWK(item)
		if err != nil {
			ignored = append(ignored, fmt.Errorf("key %d: %w", i+1, err))
			continue
		}
		same := byID[k.id]
		if i := slices.IndexFunc(same, k.samePublic); i >= 0 {
			// The same key again, perhaps for another algorithm, is one.
			same[i].algorithms = union(same[i].algorithms, k.algorithms)
			continue
		}
		byID[k.id] = append(same, k)
		keys = append(keys, k)
	}
	keys, unclear := withoutAmbiguity(keys, byID)
	return keys, append(ignored, unclear...), nil
}

// withoutAmbiguity keeps of each key the algorithms by which no other of its kid verifies: several may share a kid
// (RFC 7517, section 4.5) as long as alg tells them apart.
func withoutAmbiguity(keys []*key, byID map[string][]*key) (clear []*key, ambiguous []error) {
	shared := make(map[string][]string) // by kid
	for _, k := range keys {
		same := byID[k.id]
		if k.id == "" || len(same) < 2 {
			clear = append(clear, k)
			continue
		}
		if k == same[0] {
			shared[k.id] = sharedAlgorithms(same)
			if list := strings.Join(shared[k.id], ", "); list != "" {
				ambiguous = append(ambiguous, fmt.Errorf(
					"kid %s: more than one key has it and verifies by %s: give each its own kid or alg", printable.Quote(k.id), list))
			}
		}
		own := slices.DeleteFunc(slices.Clone(k.algorithms), func(a string) bool { return slices.Contains(shared[k.id], a) })
		if len(own) > 0 {
			clear = append(clear, &key{id: k.id, algorithms: own, public: k.public})
		}
	}
	return clear, ambiguous
}

// sharedAlgorithms returns the algorithms by which more than one of keys verifies.
func sharedAlgorithms(keys []*key) []string {
	var once, more []string
	for _, k := range keys {
		for _, a := range k.algorithms {
			switch {
			case !slices.Contains(once, a):
				once = append(once, a)
			case !slices.Contains(more, a):
				more = append(more, a)
			}
		}
	}
	return more
}

// union is a and what only b has.
func union(a, b []string) []string {
	return append(slices.Clip(a), slices.DeleteFunc(slices.Clone(b), func(s string) bool { return slices.Contains(a, s) })...)
}

// errOtherUse marks a key that says that it is not for signatures: no mistake of its issuer's.
var errOtherUse = errors.New("it is for something else than signatures")

// parseJWK takes a public key for signatures. Its errors don't quote it, since it might be a private key.
func parseJWK(b []byte) (*key, error) {
	var members object
	var id string
	if json.Unmarshal(b, &members) == nil {
		_, _ = members.text("kid", &id) // for the errors: another kind of kid fails below
	}
	fail := func(err error) (*key, error) {
		if id != "" {
			err = fmt.Errorf("kid %s: %w", printable.Quote(id), err)
		}
		return nil, err
	}
	parsed, err := jwk.ParseKey(b)
	if err != nil {
		return fail(errors.New("it is malformed, too short, or of a kind not known here"))
	}
	if use, ok := parsed.KeyUsage(); ok && use != "sig" {
		return fail(fmt.Errorf("its use is not sig: %w", errOtherUse))
	}
	if ops, ok := parsed.KeyOps(); ok && !slices.Contains(ops, jwk.KeyOpVerify) {
		return fail(fmt.Errorf("its key_ops are without verify: %w", errOtherUse))
	}
	var alg string
	if parsed.Has(jwk.AlgorithmKey) {
		algorithm, ok := parsed.Algorithm()
		if !ok || algorithm.String() == "" {
			return fail(errors.New("its alg is unknown"))
		}
		alg = algorithm.String()
	}
	var public any // not crypto.PublicKey: Export knows any only
	if err := jwk.Export(parsed, &public); err != nil {
		return fail(errors.New("its values make no key, or one too short"))
	}
	switch public.(type) {
	case []byte:
		return fail(errors.New("it is a shared secret"))
	case crypto.Signer:
		return fail(errors.New("it is a private key, which its owner should not show"))
	}
	k, err := newKey(id, public, alg)
	if err != nil {
		return fail(err)
	}
	return k, nil
}

// parsePEM returns the key of a PEM file with exactly one certificate or public key. The certificate is only a
// container: its names and dates are not checked.
func parsePEM(b []byte) (*key, error) {
	block, rest := pem.Decode(b)
	if block == nil {
		return nil, errors.New("reading the certificate: it is not PEM")
	}
	if more, _ := pem.Decode(rest); more != nil {
		return nil, errors.New("reading the certificate: the file holds more than one")
	}
	var public crypto.PublicKey
	var err error
	switch block.Type {
	case "CERTIFICATE":
		var certificate *x509.Certificate
		if certificate, err = x509.ParseCertificate(block.Bytes); err == nil {
			public = certificate.PublicKey
		}
	case "PUBLIC KEY":
		public, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		public, err = x509.ParsePKCS1PublicKey(block.Bytes)
	default:
		return nil, fmt.Errorf("reading the certificate: %s is neither a certificate nor a public key",
			printable.Quote(block.Type))
	}
	if err != nil {
		return nil, fmt.Errorf("reading the %s: %w", strings.ToLower(block.Type), err)
	}
	k, err := newKey("", public, "")
	if err != nil {
		return nil, fmt.Errorf("reading the certificate: its key: %w", err)
	}
	return k, nil
}

// roots are the certificates of a CA file.
type roots struct {
	pool         *x509.CertPool // nil: the system's
	certificates []*x509.Certificate
	skipped      []error // why others in the file are not among them
}

// parseRoots reads the certificates of a PEM file, one of which must be of use.
func parseRoots(b []byte) (r roots, err error) {
	r.pool = x509.NewCertPool()
	for n := 1; ; n++ {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			r.skipped = append(r.skipped, fmt.Errorf("PEM block %d is skipped: %w", n, err))
			continue
		}
		r.pool.AddCert(c)
		r.certificates = append(r.certificates, c)
	}
	switch {
	case len(r.certificates) > 0:
		return r, nil
	case len(r.skipped) > 0:
		return r, fmt.Errorf("reading the CA file: it has no certificate that can be used: %w", r.skipped[0])
	}
	return r, errors.New("reading the CA file: it has no PEM certificate")
}

// certificatesIn returns the certificates of a PEM file that can be read.
func certificatesIn(b []byte) []*x509.Certificate {
	r, _ := parseRoots(b)
	return r.certificates
}
